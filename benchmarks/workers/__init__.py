"""What workers on Ray send, and what they gain: `python -m benchmarks.workers`. See `__main__`."""
