"""From TOML files and `section.key=value` to a `Config`, and back to TOML.

Layers, later ones winning: the defaults in `config.py`, presets, files, the command line. Every unknown key
is an error that names the place it stands in and the nearest key that exists, so that a misspelt setting
never trains silently with its default. Nothing here knows what a setting means; limits stand beside the
declarations in `config.py`, and values that only an environment can judge are judged when it is built.
"""

from __future__ import annotations

import argparse
import dataclasses
import tomllib
import types
import typing
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import collm_envs
from collm_agents.budget import UNITS
from collm_agents.config import DEFAULT_ALGORITHM, Config, EvalConfig
from collm_agents.explain import OPEN_SECTIONS, explain
from collm_agents.layers import find_preset, read_layers
from collm_agents.sections import check_limits, check_type, field_types
from collm_agents.whole_file import write_whole
from collm_envs.errors import SettingError, UnknownEnvError, suggest

COMMAND_LINE = "command line"
LISTED = "; `collm train --help` lists all"
ALIASES: dict[str, str] = {
    "algorithm": "algorithm.name",
    "model": "team.model",
    "tuning": "team.tuning",
    "seed": "run.seed",
    "joint_samples": "run.joint_samples",
    "task_passes": "run.task_passes",
    "out": "run.out",
    "num_turns": "env.num_turns",
    "num_agents": "env.num_agents",
    "reward": "env.reward",
    "formula": "env.formula",
    "feedback": "env.feedback",
    "source": "env.source",
    "split": "env.split",
    "branching": "rollout.branching",
    "joint_mode": "rollout.joint_mode",
    "workers": "runner.workers",
    "update_epochs": "learner.update_epochs",
}
# What an evaluation on its own takes, and the field of [eval] it sets: it counts as a run's last one.
_COURSE = (
    "every",
    "points",
    "greedy_too",
    "monitor",
)  # fields of [eval] that are about the evaluations along a run
EVAL_KEYS = {field.name: field.name for field in dataclasses.fields(EvalConfig) if field.name not in _COURSE}
EVAL_KEYS["tasks"] = "final_tasks"
_SIMPLE_TYPES: dict[str, Any] = {"int": int, "float": float, "str": str, "bool": bool, "None": type(None)}


@dataclass(frozen=True)
class _Given:
    """A value that somebody wrote.

    Attributes:
        key: the key as written, split at its dots.
        value: read as a TOML literal where it is one.
        text: the characters as written, on the command line only.
        layer: position among the layers; later ones win.
        place: for messages: a file's name or "command line".
    """

    key: tuple[str, ...]
    value: Any
    text: str | None
    layer: int
    place: str

    @property
    def name(self) -> str:
        return ".".join(self.key)

    def error(self, message: str) -> SettingError:
        return SettingError(f"{self.place}: {message}")


Tree = dict[str, Any]  # nested tables whose leaves are `_Given`


def eval_item(word: str) -> str | None:
    """A word that sets a field of [eval], as an evaluation on its own reads it; None for any other."""
    key, sign, value = word.partition("=")
    name = EVAL_KEYS.get(key.removeprefix("eval."))
    return f"eval.{name}={value}" if sign and name else None


def checkpoint_word(text: str) -> int | str:
    """A checkpoint as the command line names it: joint samples, or `best`.

    Raises:
        argparse.ArgumentTypeError: for anything else.
    """
    if text != "best" and not (text.isascii() and text.isdecimal()):
        raise argparse.ArgumentTypeError(f"joint samples or best, not {text!r}")
    return text if text == "best" else int(text)


# -- loading ----------------------------------------------------------------------------------------------


def load_config(
    env_id: str | None = None,
    *,
    presets: Sequence[str] = (),
    files: Sequence[str | Path] = (),
    overrides: Sequence[str] = (),
) -> Config:
    """The resolved settings of a run.

    Args:
        env_id: the environment; None leaves it to `env.id` in a preset or file.
        presets: names of packaged presets (`paper/writing-cc`) or paths of TOML files.
        files: TOML files, applied after the presets. Both may begin with `extends` (`layers.read_layers`).
        overrides: `key=value` items, applied last; keys as in the TOML files, or their aliases.

    Raises:
        SettingError: for an unknown or ambiguous key, a wrong type, a value out of range, a missing file.
        UnknownEnvError: for an environment that does not exist.
    """
    layers = [layer for name in presets for layer in read_layers(find_preset(name), f"preset {name}")]
    layers += [layer for path in files for layer in read_layers(Path(path).expanduser(), str(path))]
    given = [
        _Given(key, value, None, number, place)
        for number, (table, place) in enumerate(layers)
        for key, value in _leaves(table)
    ]
    given += [item for word in overrides for item in _parse_word(word, len(layers))]
    named = None if env_id else _last(given, "env.id")
    env_id = named.value if named else env_id
    if env_id is None:
        searched = "".join(f"{place}: " for _, place in layers[-1:])
        raise SettingError(
            f"{searched}no environment given; name one, such as writing/tldr-mini-v0 (`collm envs` lists them)"
        )
    chosen = _last(given, "algorithm.name", "algorithm")
    algorithm = str(chosen.value if chosen else DEFAULT_ALGORITHM)
    try:
        known = _Known(env_id, algorithm)
    except UnknownEnvError as error:
        raise (UnknownEnvError(f"{named.place}: {error}") if named else error) from None
    tree: Tree = {}
    for item in given:
        _plant(tree, known.resolve(item), item)
    _choose_budget(tree)
    sections = {
        name: _build(cls, tree.pop(name, {}), name)
        for name, cls in field_types(Config).items()
        if name not in OPEN_SECTIONS
    }
    config = Config(
        env={"id": env_id, **known.read_open("env", tree.pop("env", {}))},
        algorithm={"name": algorithm, **known.read_open("algorithm", tree.pop("algorithm", {}))},
        **sections,
    )
    if not any(getattr(config.run, unit) for unit in UNITS):
        raise SettingError(f"the run has no budget: run.{', run.'.join(UNITS)} are all 0")
    return config


def load_env_settings(env_id: str, overrides: Sequence[str]) -> dict[str, Any]:
    """Settings of an environment alone, from `key=value` or `env.key=value` items.

    Raises:
        SettingError: for a key that the environment does not have, or a value of the wrong type.
    """
    known = _Known(env_id, None)
    tree: Tree = {}
    for item in (item for word in overrides for item in _parse_word(word, 0)):
        key = item.key[1:] if item.key[0] == "env" and len(item.key) > 1 else item.key
        _plant(tree, ("env", *key), item)
    return known.read_open("env", tree.get("env", {}))


def parse_value(text: str) -> Any:
    """A value of the command line: a TOML literal (number, true, list, quoted text), else the bare text."""
    try:
        parsed = tomllib.loads(f"value = {text}")
    except tomllib.TOMLDecodeError:
        return text
    if set(parsed) != {"value"} or not isinstance(parsed["value"], (bool, int, float, str, list, dict)):
        return text  # several lines, or a date, which no setting takes
    return parsed["value"]


def _parse_word(word: str, layer: int) -> list[_Given]:
    """One item of the command line; an inline table gives one value per entry."""
    key, sign, text = word.partition("=")
    parts = tuple(part.strip() for part in key.split("."))
    if not sign or not all(parts):
        raise SettingError(f"{COMMAND_LINE}: {word!r} is not key=value")
    value = parse_value(text.strip())
    if isinstance(value, Mapping) and value:
        return [_Given((*parts, *key), part, None, layer, COMMAND_LINE) for key, part in _leaves(value)]
    return [_Given(parts, value, text.strip(), layer, COMMAND_LINE)]


def _leaves(table: Mapping[str, Any], prefix: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    for key, value in table.items():
        if isinstance(value, Mapping) and value:
            yield from _leaves(value, (*prefix, key))
        else:
            yield (*prefix, key), value


def _last(given: Iterable[_Given], *names: str) -> _Given | None:
    items = [item for item in given if item.name in names]
    return items[-1] if items else None


def _plant(tree: Tree, path: tuple[str, ...], item: _Given) -> None:
    """Put a value into the tree; what stood in its place or above it gives way, as later layers win."""
    for key in path[:-1]:
        if not isinstance(tree.get(key), dict):
            tree[key] = {}
        tree = tree[key]
    tree[path[-1]] = item


def _choose_budget(tree: Tree) -> None:
    """Keep the budget that the last layer names; a run has one, and none of its own rules out the default."""
    run = tree.get("run")
    if not isinstance(run, dict):
        return
    given = {
        name: item
        for name in UNITS
        if isinstance(item := run.get(name), _Given) and item.value not in (0, "")
    }
    if not given:
        return
    last = max(item.layer for item in given.values())
    kept = [name for name, item in given.items() if item.layer == last]
    if len(kept) > 1:
        both = " or ".join(f"run.{name}" for name in kept)
        raise given[kept[0]].error(f"give {both} as the budget, not both")
    for name in given:
        if name not in kept:
            del run[name]
    if kept != ["joint_samples"]:
        run["joint_samples"] = dataclasses.replace(given[kept[0]], value=0, text=None)


# -- what is known ----------------------------------------------------------------------------------------


class _Known:
    """Every key that the chosen environment and algorithm allow, and how to read a key as written."""

    def __init__(self, env_id: str, algorithm: str | None) -> None:
        self.open: dict[str, dict[str, tuple[Any, Mapping[str, Any]]]] = {
            "env": {
                name: (simple_hint(parameter.annotation), {})
                for name, parameter in collm_envs.spec(env_id).settings().items()
            },
            "algorithm": _estimator_fields(algorithm) if algorithm else {},
        }
        self.owner = {"env": env_id, "algorithm": f"algorithm {algorithm}"}
        keys = [row.key for row in explain(Config)]
        keys += [f"{section}.{name}" for section, names in self.open.items() for name in names]
        self.keys = {tuple(key.split(".")) for key in keys} | {("env", "id"), ("algorithm", "name")}
        self.by_name: dict[str, list[tuple[str, ...]]] = {}
        for path in sorted({key[: i + 1] for key in self.keys for i in range(1, len(key))}):
            if "<name>" not in path and path not in (("env", "id"), ("algorithm", "name")):
                self.by_name.setdefault(path[-1], []).append(path)

    def resolve(self, item: _Given) -> tuple[str, ...]:
        """The full path of a key as written.

        Raises:
            SettingError: for a name that no section has, or several have.
        """
        head, rest = item.key[0], item.key[1:]
        sections = {path[0] for path in self.keys}
        found = self.by_name.get(head, [])
        if head in sections and (rest or head not in ALIASES):
            path = item.key
        elif head in ALIASES:
            path = (*ALIASES[head].split("."), *rest)
        elif len(found) == 1:
            path = (*found[0], *rest)
        elif found:
            raise item.error(f"{head!r} is ambiguous; write " + " or ".join(map(".".join, found)))
        else:
            names = {*ALIASES, *self.by_name, *map(".".join, self.keys)}
            near = suggest(item.name, names) or LISTED
            raise item.error(f"unknown setting {item.name!r}{near}")
        if path[0] not in OPEN_SECTIONS:
            self._check(path, item)
        return path

    def _check(self, path: tuple[str, ...], item: _Given) -> None:
        """Raise where a closed section has no setting of this path."""

        def under(key: tuple[str, ...], start: tuple[str, ...]) -> bool:
            return len(key) > len(start) and all(a in (b, "<name>") for a, b in zip(key, start, strict=False))

        if any(len(key) == len(path) and under((*key, ""), path) for key in self.keys):
            return
        if any(under(key, path) for key in self.keys):
            if item.value != {}:
                raise _not_a_setting(item, ".".join(path))
            return
        depth = max(i for i in range(1, len(path)) if any(under(key, path[:i]) for key in self.keys))
        siblings = {key[depth] for key in self.keys if under(key, path[:depth])}
        elsewhere = [".".join(found) for found in self.by_name.get(path[-1], ())]
        near = suggest(path[-1], elsewhere) if elsewhere else suggest(".".join(path[depth:]), siblings)
        raise item.error(f"unknown setting {'.'.join(path)!r}{near or LISTED}")

    def read_open(self, section: str, tree: Any) -> dict[str, Any]:
        """The settings of `env` or `algorithm`, checked against the environment or estimator chosen."""
        if isinstance(tree, _Given):
            raise _not_a_setting(tree, section)
        values = {}
        for name, below in tree.items():
            item = _first_given(below)
            if name == ("id" if section == "env" else "name"):
                continue
            known = self.open[section]
            if name not in known:
                raise item.error(f"{self.owner[section]} has no setting {name!r}{suggest(name, known)}")
            hint, limits = known[name]
            values[name] = _read_leaf(below, f"{section}.{name}", hint, limits)
        return values


def simple_hint(annotation: Any) -> Any:
    """The type an environment's parameter is annotated with; Any where it is not a simple one."""
    if not isinstance(annotation, str):
        plain = isinstance(annotation, type) and annotation in _SIMPLE_TYPES.values()
        return annotation if plain else Any
    options = [_SIMPLE_TYPES.get(part.strip(), Any) for part in annotation.split("|")]
    return Any if Any in options else typing.Union[tuple(options)]  # noqa: UP007  # built at run time


def _estimator_fields(algorithm: str) -> dict[str, tuple[Any, Mapping[str, Any]]]:
    from collm_agents.algorithms import find_algorithm  # here, since estimators may import torch

    estimator = find_algorithm(algorithm).estimator
    hints = field_types(estimator)
    return {
        spec.name: (hints[spec.name], spec.metadata) for spec in dataclasses.fields(estimator) if spec.init
    }


# -- building ---------------------------------------------------------------------------------------------


def _build(cls: type, tree: Any, where: str) -> Any:
    """A section from its part of the tree, whose keys `resolve` has checked."""
    if isinstance(tree, _Given):  # an empty table
        return cls()
    specs = {spec.name: spec for spec in dataclasses.fields(cls)}
    hints = field_types(cls)
    values: dict[str, Any] = {}
    for name, below in tree.items():
        full = f"{where}.{name}"
        hint = hints[name]
        table = typing.get_args(hint)[1:] if typing.get_origin(hint) is Mapping else ()
        if dataclasses.is_dataclass(hint):
            values[name] = _build(typing.cast(type, hint), below, full)
        elif table and dataclasses.is_dataclass(table[0]) and isinstance(below, dict):
            values[name] = {
                key: _build(typing.cast(type, table[0]), part, f"{full}.{key}") for key, part in below.items()
            }
        else:
            values[name] = _read_leaf(below, full, hint, specs[name].metadata)
    try:
        return cls(**values)
    except SettingError as error:
        raise (_first_given(tree).error(str(error)) if tree else error) from None


def _read_leaf(below: Any, name: str, hint: Any, limits: Mapping[str, Any]) -> Any:
    item, value = _first_given(below), _plain_tree(below)
    if item.text is not None and not isinstance(value, str) and _takes_text(hint):
        try:
            value = check_type(name, value, hint)
        except SettingError:
            value = item.text  # `out=7` is a folder called 7, not a number
    try:
        value = check_type(name, value, hint)
        check_limits(name, value, limits)
    except SettingError as error:
        raise item.error(str(error)) from None
    return value


def _takes_text(hint: Any) -> bool:
    union = typing.get_origin(hint) in (typing.Union, types.UnionType)
    return hint is str or (union and str in typing.get_args(hint))


def _plain_tree(below: Any) -> Any:
    if isinstance(below, _Given):
        return below.value
    return {key: _plain_tree(part) for key, part in below.items()}


def _first_given(below: Any) -> _Given:
    while isinstance(below, dict):
        below = next(iter(below.values()))
    return below


def _not_a_setting(item: _Given, section: str) -> SettingError:
    return item.error(f"{section!r} is a section, not a setting; write {section}.key=value")


# -- writing ----------------------------------------------------------------------------------------------


def dump_config(config: Config) -> str:
    """TOML text that loads back to an equal `Config`."""
    import tomli_w  # in the extra `train`; reading needs only the standard library

    return tomli_w.dumps(_to_plain(config))


def save_config(config: Config, file: Path) -> None:
    """Write it as `dump_config` tells it; a kill leaves the old file or the new one."""
    write_whole(file, dump_config(config))


def _to_plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value):
        return {spec.name: _to_plain(getattr(value, spec.name)) for spec in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {key: _to_plain(part) for key, part in value.items() if part is not None}
    if isinstance(value, (list, tuple)):
        return [_to_plain(part) for part in value]
    return value
