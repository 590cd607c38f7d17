"""`WritingScore` for `evaluate.load`."""

from collm_envs.metrics.writing import WritingScore

__all__ = ["WritingScore"]
