"""Hugging Face `evaluate` metrics for the scores of the environments.

Each is an importable class (`collm_envs.metrics.writing.LengthRatio`) and a thin script, so that
`evaluate.load(collm_envs.metrics.path("length_ratio"))` works with no network. Needs the extra `data`;
nothing here is imported by `import collm_envs`.
"""

from __future__ import annotations

from pathlib import Path

from collm_envs.errors import SettingError, suggest

_SCRIPTS = Path(__file__).parent / "scripts"


def names() -> list[str]:
    """Names of the metrics, in order."""
    return sorted(script.stem for script in _SCRIPTS.glob("[a-z]*.py"))


def path(name: str) -> str:
    """Path of a metric's script, for `evaluate.load`.

    Args:
        name: such as `length_ratio`.

    Raises:
        SettingError: for an unknown name.
    """
    if name not in names():
        raise SettingError(f"unknown metric {name!r}{suggest(name, names())}")
    return str(_SCRIPTS / f"{name}.py")
