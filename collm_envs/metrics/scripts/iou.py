"""`Iou` for `evaluate.load`."""

from collm_envs.metrics.games import Iou

__all__ = ["Iou"]
