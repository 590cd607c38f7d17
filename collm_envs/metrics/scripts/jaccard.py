"""`Jaccard` for `evaluate.load`."""

from collm_envs.metrics.writing import Jaccard

__all__ = ["Jaccard"]
