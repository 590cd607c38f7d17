"""Coding: functions and classes whose parts are written apart and must work together.

Nothing that a model wrote is parsed or run outside the sandbox: `assemble` and what it imports run there.
"""

from collm_envs.coding import classeval, compose, humaneval, mbpp

__all__ = ["classeval", "compose", "humaneval", "mbpp"]
