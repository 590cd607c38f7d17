"""`LengthRatio` for `evaluate.load`."""

from collm_envs.metrics.writing import LengthRatio

__all__ = ["LengthRatio"]
