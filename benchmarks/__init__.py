"""Measurements of the project, each a module to run: `python -m benchmarks.sandbox`."""
