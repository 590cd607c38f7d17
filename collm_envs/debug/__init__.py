"""Two tiny environments on which a learner must succeed before it is trusted with more."""

from collm_envs.debug import letters

__all__ = ["letters"]
