"""`PassAtK` for `evaluate.load`."""

from collm_envs.metrics.coding import PassAtK

__all__ = ["PassAtK"]
