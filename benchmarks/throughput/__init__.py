"""What learning costs: our learners beside comlrl's, and beside what the machine could do.

`python -m benchmarks.throughput` (`make bench-throughput`) plays and trains the same shapes on both sides in turn,
each in a process of its own, and writes medians, ratios and their spread. See `__main__` for what is held equal.
"""
