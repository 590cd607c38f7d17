"""`Rate` for `evaluate.load`."""

from collm_envs.metrics.coding import Rate

__all__ = ["Rate"]
