"""What happens beside a stage: writers, exporters, loggers."""
