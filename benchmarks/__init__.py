"""Timings, run by hand: ``python -m benchmarks.decode`` and so on. No test times anything.

Every script runs under the settings of process that the command line runs under.
"""

from pipeline.process import keep_freed_memory, wait_politely

wait_politely()  # before a script imports torch
keep_freed_memory()
