"""`JointScore` for `evaluate.load`."""

from collm_envs.metrics.joint import JointScore

__all__ = ["JointScore"]
