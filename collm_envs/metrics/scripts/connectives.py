"""`Connectives` for `evaluate.load`."""

from collm_envs.metrics.writing import Connectives

__all__ = ["Connectives"]
