"""What settings exist: key, default, limits and a line of doc, read off the declarations.

For `--help`, `collm envs ID` and the docs. The declarations themselves stand in `config.py`, on the
estimators and in the environments' docstrings; nothing is written twice.
"""

from __future__ import annotations

import dataclasses
import inspect
import re
import typing
from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any, NamedTuple

from collm_agents.config import Config
from collm_agents.sections import field_types
from collm_envs.registry import env_settings

OPEN_SECTIONS = ("env", "algorithm")  # their settings depend on the environment and the algorithm chosen


class Explained(NamedTuple):
    """One setting as `--help` prints it."""

    key: str
    default: Any
    doc: str
    limits: str


def explain(section: Any, prefix: str = "") -> list[Explained]:
    """The settings of a section's dataclass, those of its own sections included.

    Args:
        section: `Config`, a section of it, or an estimator; the class or an instance.
        prefix: dotted path of the section, put before every key.
    """
    return list(_rows(section if isinstance(section, type) else type(section), prefix))


@cache  # declarations do not change, and every override that is read looks here
def _rows(cls: Any, prefix: str) -> tuple[Explained, ...]:
    hints = field_types(cls)
    rows: list[Explained] = []
    for spec in dataclasses.fields(cls):
        if not spec.init or (cls is Config and spec.name in OPEN_SECTIONS):
            continue
        key = f"{prefix}.{spec.name}" if prefix else spec.name
        table = (
            typing.get_args(hints[spec.name])[1:] if typing.get_origin(hints[spec.name]) is Mapping else ()
        )
        if dataclasses.is_dataclass(hints[spec.name]):
            rows += explain(hints[spec.name], key)
        elif table and dataclasses.is_dataclass(table[0]):
            rows += explain(table[0], f"{key}.<name>")
        else:
            rows.append(Explained(key, _default(spec), spec.metadata.get("doc", ""), _limits(spec.metadata)))
    return tuple(rows)


def explain_env(cls: type) -> list[Explained]:
    """The settings of an environment class, with the lines of doc in its docstrings."""
    docs: dict[str, str] = {}
    for find in (_documented_args, _told_arguments):
        for base in cls.__mro__:
            for name, doc in find(inspect.cleandoc(base.__doc__ or "")):
                docs.setdefault(name, doc)
    return [
        Explained(name, "" if spec.default is spec.empty else spec.default, docs.get(name, ""), "")
        for name, spec in env_settings(cls).items()
    ]


def _documented_args(doc: str) -> Iterator[tuple[str, str]]:
    section = re.search(r"^Args:\n((?:[ ]+.*\n?|\n(?=[ ]))*)", doc, re.MULTILINE)
    for match in re.finditer(r"^ {4}(\w+): (.*(?:\n {5,}.*)*)", section[1] if section else "", re.MULTILINE):
        yield match[1], " ".join(match[2].split())


def _told_arguments(doc: str) -> Iterator[tuple[str, str]]:
    """Settings that the paragraph "Arguments:" tells of, as `name`: text up to the next."""
    section = re.search(r"^Arguments: (.*(?:\n.+)*)", doc, re.MULTILINE)
    text = " ".join(section[1].split()) if section else ""
    for match in re.finditer(r"(?:^|\. )`(\w+)`: (.+?)(?=\. `\w+`: |$)", text):
        yield match[1], match[2].rstrip(".") + "."


def _default(spec: dataclasses.Field) -> Any:
    if spec.default is not dataclasses.MISSING:
        return spec.default
    return spec.default_factory() if spec.default_factory is not dataclasses.MISSING else ""


def _limits(metadata: Mapping[str, Any]) -> str:
    if metadata.get("choices") is not None:
        return " | ".join(str(choice) or '""' for choice in metadata["choices"])
    signs = (("above", ">"), ("low", ">="), ("high", "<="))
    return ", ".join(f"{sign} {metadata[key]}" for key, sign in signs if metadata.get(key) is not None)
