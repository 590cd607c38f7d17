"""`UniqueWordRatio` for `evaluate.load`."""

from collm_envs.metrics.writing import UniqueWordRatio

__all__ = ["UniqueWordRatio"]
