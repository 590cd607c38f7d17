"""Declaring settings: dataclasses whose fields carry a line of doc and their limits, checked when they are built.

For `config.py` and for estimators. Nothing here knows which settings there are.
"""

from __future__ import annotations

import dataclasses
import math
import types
import typing
from collections.abc import Mapping, Sequence
from dataclasses import field
from functools import cache
from typing import Any

from collm_envs.errors import SettingError, suggest


def setting(
    default: Any,
    doc: str,
    *,
    choices: Sequence[Any] | None = None,
    low: float | None = None,
    high: float | None = None,
    above: float | None = None,
) -> Any:
    """A dataclass field with its documentation and its limits.

    Args:
        default: value where the user says nothing.
        doc: one line: what it does, with its unit.
        choices: the only values allowed.
        low: least value allowed.
        high: greatest value allowed.
        above: the value must be greater than this.
    """
    limits = {"doc": doc, "choices": choices, "low": low, "high": high, "above": above}
    if isinstance(default, (dict, list)) or dataclasses.is_dataclass(default):
        return field(default_factory=lambda: default, metadata=limits)
    return field(default=default, metadata=limits)


@cache
def field_types(cls: type) -> Mapping[str, Any]:
    """The types that a class declares, by field; resolved once, since every setting read asks for them."""
    return types.MappingProxyType(typing.get_type_hints(cls))


class Section:
    """Base of the dataclasses here: checks type and limits of every field when it is built."""

    _where: typing.ClassVar[str] = ""

    def __post_init__(self) -> None:
        cls: Any = type(self)  # a type checker takes a dataclass with __eq__ for unhashable
        hints = field_types(cls)
        for spec in dataclasses.fields(self):  # type: ignore[arg-type]
            name = f"{self._where}.{spec.name}" if self._where else spec.name
            value = check_type(name, getattr(self, spec.name), hints[spec.name])
            check_limits(name, value, spec.metadata)
            object.__setattr__(self, spec.name, value)


def check_type(name: str, value: Any, hint: Any) -> Any:
    """The value as the declared type, whole numbers passing for floats; a `SettingError` otherwise."""
    origin, options = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        for option in options:
            try:
                return check_type(name, value, option)
            except SettingError:
                continue
    elif hint is Any or (hint is type(None) and value is None):
        return value
    elif origin in (tuple, Sequence) or hint is tuple:
        if isinstance(value, (list, tuple)):
            return tuple(check_type(name, item, options[0] if options else Any) for item in value)
    elif origin in (dict, Mapping):
        if isinstance(value, Mapping):
            return {str(k): check_type(f"{name}.{k}", v, options[1]) for k, v in value.items()}
    elif hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    elif isinstance(hint, type) and isinstance(value, hint) and (hint is bool or not isinstance(value, bool)):
        return value
    raise SettingError(f"{name} must be {_type_name(hint)}, not {value!r}")


def _type_name(hint: Any) -> str:
    plain = {int: "a whole number", float: "a number", str: "text", bool: "true or false", type(None): "none"}
    if hint in plain:
        return plain[hint]
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        return " or ".join(_type_name(option) for option in typing.get_args(hint))
    if typing.get_origin(hint) in (tuple, Sequence):
        return "a list"
    return "a table" if typing.get_origin(hint) in (dict, Mapping) else getattr(hint, "__name__", str(hint))


def check_limits(name: str, value: Any, limits: Mapping[str, Any]) -> None:
    """Raise a `SettingError` where a value breaks the limits given to `setting`."""
    choices = limits.get("choices")
    if choices is not None and value not in choices:
        raise SettingError(
            f"{name}={value!r} is not a choice{suggest(str(value), filter(None, map(str, choices)))}"
        )
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        return
    if not math.isfinite(value):
        raise SettingError(f"{name} must be finite, not {value}")
    for key, broken, phrase in (
        ("low", lambda limit: value < limit, "at least"),
        ("high", lambda limit: value > limit, "at most"),
        ("above", lambda limit: value <= limit, "greater than"),
    ):
        limit = limits.get(key)
        if limit is not None and broken(limit):
            raise SettingError(f"{name} must be {phrase} {limit}, not {value}")
