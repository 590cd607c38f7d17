"""Algorithms as data: an estimator, what it needs from rollouts, and the critic it asks.

MC, CoLLM-CC and CoLLM-DC differ in nothing else, so a new algorithm is one file here (or anywhere that is
imported): a frozen dataclass whose fields are its settings, with `@algorithm(name, view=..., owners=...)`.
"""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from collm_envs.errors import SettingError, suggest

E = TypeVar("E", bound=type)


@dataclass(frozen=True)
class AlgorithmSpec:
    """One registered algorithm.

    Attributes:
        name: as in `algorithm=...`.
        estimator: frozen dataclass with the algorithm's settings; see `advantages.Estimator`.
        view: what its critic reads: `joint` (all agents' history), `local` (one agent's own), None (no critic).
        owners: `one` critic for all agents or `each` agent its own; None without a critic.
    """

    name: str
    estimator: type
    view: str | None
    owners: str | None

    @property
    def summary(self) -> str:
        """First line of the estimator's docstring."""
        return (inspect.getdoc(self.estimator) or "").partition("\n")[0]


_ALGORITHMS: dict[str, AlgorithmSpec] = {}


def algorithm(name: str, *, view: str | None = None, owners: str | None = None) -> Callable[[E], E]:
    """Class decorator: register an estimator under a name.

    Args:
        name: what users write; taken once.
        view: `joint`, `local` or None.
        owners: `one`, `each` or None; given exactly when `view` is.
    """
    if (
        view not in (None, "joint", "local")
        or owners not in (None, "one", "each")
        or (view is None) != (owners is None)
    ):
        raise SettingError(f"algorithm {name!r}: view={view!r} with owners={owners!r} makes no critic")

    def attach(estimator: E) -> E:
        if name in _ALGORITHMS:
            raise SettingError(f"algorithm {name!r} is registered already")
        _ALGORITHMS[name] = AlgorithmSpec(name, estimator, view, owners)
        return estimator

    return attach


def list_algorithms() -> list[AlgorithmSpec]:
    """Registered algorithms by name, our own modules imported first."""
    for module in pkgutil.iter_modules(__path__):
        importlib.import_module(f"{__name__}.{module.name}")
    return [_ALGORITHMS[name] for name in sorted(_ALGORITHMS)]


def find_algorithm(name: str) -> AlgorithmSpec:
    """The algorithm of a name, or of `module:Class` for one that is not in this package.

    Raises:
        SettingError: with the nearest names, or with what is wrong with the module.
    """
    module_name, colon, attribute = name.partition(":")
    if colon:
        try:
            module = importlib.import_module(module_name)
        except (Exception, SystemExit) as error:  # a plug-in's import can fail in any way
            raise SettingError(
                f"algorithm {name!r}: importing {module_name} failed: {type(error).__name__}: {error}"
            ) from error
        for spec in _ALGORITHMS.values():
            if spec.estimator is getattr(module, attribute, None):
                return spec
        raise SettingError(f"algorithm {name!r}: {module_name} has no class {attribute!r} with @algorithm")
    known = {spec.name: spec for spec in list_algorithms()}
    if name not in known:
        raise SettingError(f"unknown algorithm {name!r}{suggest(name, known)}")
    return known[name]


def build_estimator(section: Mapping[str, Any]) -> Any:
    """The estimator of an `algorithm` section: its name and its settings.

    Raises:
        SettingError: for an unknown name or setting, or a value out of range.
    """
    spec = find_algorithm(str(section["name"]))
    return spec.estimator(**{key: value for key, value in section.items() if key != "name"})
