"""CoLLM's environments and agents in other libraries: `torchrl`, `trl`, and trained agents as partners (`frozen`).

The libraries are optional. Each is imported by its own module here and nowhere else; where it is missing, the error
says what to install.
"""

from __future__ import annotations

import importlib
from types import ModuleType

from collm_envs.errors import InputError


def need(library: str) -> ModuleType:
    """An optional library.

    Args:
        library: name of its top module.

    Raises:
        InputError: where it, or what it is built on, is not installed; says how to get it.
    """
    try:
        return importlib.import_module(library)
    except ModuleNotFoundError as error:
        raise InputError(f"this needs the package {error.name}: pip install 'collm[interop]'") from error
