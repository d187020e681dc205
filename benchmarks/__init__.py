"""Timings, run by hand: ``python -m benchmarks.decode`` and so on. No test times anything."""
