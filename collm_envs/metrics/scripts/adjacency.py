"""`Adjacency` for `evaluate.load`."""

from collm_envs.metrics.games import Adjacency

__all__ = ["Adjacency"]
