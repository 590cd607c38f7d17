"""Names for environments, on top of PettingZoo's own registry.

`@register("writing/mine-v0")` puts a class into PettingZoo's parallel registry, so
`pettingzoo.make("parallel", "writing/mine-v0")` works too; `pettingzoo.make("aec", ...)` gives its AEC view and
`gymnasium.make(...)` its single-agent view. What is added: typed errors with suggestions, a `-sparse` twin,
`"module:Class"` names, vector environments, and installed packages that publish tasks through the entry-point
group `collm.envs` (entry name = id, value = `module:Class`), which are imported only when used.
"""

from __future__ import annotations

import importlib
import inspect
import re
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib.metadata import entry_points
from typing import Any, TypeVar

import gymnasium
import pettingzoo
from pettingzoo import AECEnv, aec_registry, parallel_registry

from collm_envs.env import CollabEnv
from collm_envs.errors import CollmError, InputError, SettingError, UnknownEnvError, suggest
from collm_envs.partners import Choice
from collm_envs.single_agent import SingleAgentEnv
from collm_envs.vector import VecEnv
from collm_envs.views import to_aec

ENTRY_POINT_GROUP = "collm.envs"
WHERE = "; its traceback shows where (--debug)"
_ID = re.compile(r"[a-z][a-z0-9_]*/[a-z0-9][a-z0-9_-]*-v\d+")
C = TypeVar("C", bound=type[CollabEnv])


@dataclass(frozen=True)
class EnvSpec:
    """One registered environment.

    Attributes:
        id: such as `writing/tldr-v0`.
        target: the class, or `module:Class` where it is imported at first use.
        kwargs: settings that the id stands for.
        summary: one line on what it is.
    """

    id: str
    target: type[CollabEnv] | str
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    summary: str = ""

    @property
    def env_class(self) -> type[CollabEnv]:
        """The class, imported if need be."""
        return _import_class(self.target) if isinstance(self.target, str) else self.target

    def settings(self) -> dict[str, inspect.Parameter]:
        """Keyword arguments of the environment by name, those of its base classes included."""
        return env_settings(self.env_class)


_SPECS: dict[str, EnvSpec] = {}


def register(id: str, *, sparse: bool = True, **kwargs: Any) -> Callable[[C], C]:
    """Class decorator: register an environment under an id.

    Args:
        id: `domain/name-vN`; the version is raised when reward or prompts change.
        sparse: also register `domain/name-sparse-vN`, the same task with `reward="sparse"`.
        kwargs: settings that this id stands for.

    Raises:
        InputError: for a malformed id or one that is taken.
    """

    def attach(cls: C) -> C:
        if not (isinstance(cls, type) and issubclass(cls, CollabEnv)):
            raise InputError(f"{id}: only subclasses of CollabEnv can be registered, not {cls!r}")
        if "env_id" not in cls.__dict__:
            cls.env_id = id
        summary = (inspect.getdoc(cls) or "").partition("\n")[0]
        _add(EnvSpec(id, cls, kwargs, summary))
        if sparse:
            name, _, version = id.rpartition("-")
            twin = f"{name}-sparse-{version}"
            _add(EnvSpec(twin, cls, {**kwargs, "reward": "sparse"}, summary + " Sparse reward."))
        return cls

    return attach


def _add(spec: EnvSpec) -> None:
    if not isinstance(spec.id, str) or not _ID.fullmatch(spec.id):
        raise InputError(f"environment id {spec.id!r} does not read domain/name-vN in lower case")
    known = _SPECS.get(spec.id)
    if known and _target_name(known) == _target_name(spec):
        _SPECS[spec.id] = (
            spec  # a plug-in's module registering itself as it is imported, or a reloaded module
        )
        return
    if known or any(spec.id in taken for taken in (parallel_registry, aec_registry, gymnasium.registry)):
        owner = f" by {_target_name(known)}" if known else ""
        raise InputError(f"environment id {spec.id!r} is taken{owner}")
    _SPECS[spec.id] = spec
    builder = _Builder(spec.id)
    pettingzoo.register("parallel", spec.id, entry_point=builder)
    pettingzoo.register("aec", spec.id, entry_point=builder.aec)
    gymnasium.register(spec.id, entry_point=builder.single)


def _target_name(spec: EnvSpec) -> str:
    target = spec.target
    return target if isinstance(target, str) else f"{target.__module__}:{target.__qualname__}"


@dataclass(frozen=True)
class _Builder:
    """What PettingZoo and Gymnasium call to build an id; keeps the id on the environment."""

    id: str

    def __call__(self, **kwargs: Any) -> CollabEnv:
        return _build(_SPECS[self.id], kwargs)

    def aec(self, **kwargs: Any) -> AECEnv:
        """Its AEC view."""
        return to_aec(self(**kwargs))

    def single(
        self,
        agent: str | None = None,
        partners: Choice | Mapping[str, Choice] | None = None,
        **kwargs: Any,
    ) -> SingleAgentEnv:
        """Its single-agent view."""
        return SingleAgentEnv(self(**kwargs), agent, partners)


def _build(spec: EnvSpec, kwargs: Mapping[str, Any]) -> CollabEnv:
    cls = spec.env_class
    spec = _SPECS.get(spec.id, spec)  # importing a plug-in's module may have registered the id in full
    known = env_settings(cls)
    for key in kwargs:
        if key not in known:
            raise SettingError(f"{spec.id} has no setting {key!r}{suggest(key, known)}")
    try:
        env = cls(**{**spec.kwargs, **kwargs})
    except CollmError:
        raise
    except Exception as error:  # as an import, a plug-in's constructor can fail in any way
        raise InputError(
            f"environment {spec.id!r}: building it failed: {type(error).__name__}: {error}{WHERE}"
        ) from error
    env.env_id = spec.id
    return env


def load_plugins() -> None:
    """Register what installed packages publish in the entry-point group `collm.envs`; imports none of them.

    An entry that cannot be registered (a malformed id, one that is taken) is left out with a warning: one bad
    package must not break the others.
    """
    for point in entry_points(group=ENTRY_POINT_GROUP):
        target = f"{point.module}:{point.attr}"
        source = point.dist.name if point.dist else target
        known = _SPECS.get(point.name)
        if known and _target_name(known) == target:
            continue
        try:
            _add(EnvSpec(point.name, target, {}, f"from {source}"))
        except InputError as error:
            warnings.warn(f"package {source}: {error}; left out", RuntimeWarning, stacklevel=2)


def env_settings(cls: type[CollabEnv]) -> dict[str, inspect.Parameter]:
    """Keyword arguments of an environment class by name, walking up while `**kwargs` passes them on."""
    found: dict[str, inspect.Parameter] = {}
    for base in cls.__mro__:
        init = base.__dict__.get("__init__")
        if init is None:
            continue
        parameters = inspect.signature(init).parameters.values()
        for parameter in parameters:
            if (
                parameter.kind in (parameter.KEYWORD_ONLY, parameter.POSITIONAL_OR_KEYWORD)
                and parameter.name != "self"
            ):
                found.setdefault(parameter.name, parameter)
        if base is CollabEnv or not any(p.kind is p.VAR_KEYWORD for p in parameters):
            break
    return found


def spec(id: str) -> EnvSpec:
    """The registered environment behind an id, or behind a `module:Class` name.

    Raises:
        UnknownEnvError: with the nearest names.
    """
    if not isinstance(id, str):
        raise UnknownEnvError(f"an environment id is a string such as 'debug/echo-v0', not {id!r}")
    if id in _SPECS:
        return _SPECS[id]
    if ":" in id:
        cls = _import_class(id)
        return EnvSpec(id, cls, {}, (inspect.getdoc(cls) or "").partition("\n")[0])
    hint = suggest(id, _SPECS) or "; `collm envs` lists them"
    if id.endswith(".py"):
        module = ".".join(part for part in re.split(r"[/\\]", id.removesuffix(".py")) if part.strip("."))
        name = module.rpartition(".")[2].title().replace("_", "")
        hint = f"; a file goes by module:Class, such as {module}:{name}"
    raise UnknownEnvError(f"unknown environment {id!r}{hint}")


def _import_class(name: str) -> type[CollabEnv]:
    module_name, _, attribute = name.partition(":")
    if not module_name or not attribute:
        raise UnknownEnvError(f"environment {name!r} does not read module:Class")
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name and (module_name == error.name or module_name.startswith(error.name + ".")):
            raise UnknownEnvError(
                f"environment {name!r}: there is no module {error.name!r} to import"
            ) from None
        raise UnknownEnvError(
            f"environment {name!r}: importing {module_name} failed: {error}{WHERE}"
        ) from error
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # a plug-in's import can fail in any way
        raise UnknownEnvError(
            f"environment {name!r}: importing {module_name} failed: {type(error).__name__}: {error}{WHERE}"
        ) from error
    cls = getattr(module, attribute, None)
    if not (isinstance(cls, type) and issubclass(cls, CollabEnv)):
        classes = [k for k, v in vars(module).items() if isinstance(v, type) and issubclass(v, CollabEnv)]
        hint = suggest(attribute, classes) or "; it holds none at all"
        raise UnknownEnvError(f"{module_name} has no CollabEnv class {attribute!r}{hint}")
    if "env_id" not in cls.__dict__:
        cls.env_id = name
    return cls


def make(id: str, **kwargs: Any) -> CollabEnv:
    """Build an environment.

    Args:
        id: a registered id, or `module:Class`.
        kwargs: the environment's settings.

    Raises:
        UnknownEnvError: for an id that is not registered.
        SettingError: for a setting that the environment does not have, or a value out of range.
    """
    return _build(spec(id), kwargs)


def make_vec(id: str, **kwargs: Any) -> VecEnv:
    """Build a vector environment: any number of rows of one environment, stepped together."""
    return VecEnv(make(id, **kwargs))


def list_envs(prefix: str = "") -> list[EnvSpec]:
    """Registered environments in order of their ids, those of installed packages included."""
    return [_SPECS[id] for id in sorted(_SPECS) if id.startswith(prefix)]
