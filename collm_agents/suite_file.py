"""Suites as they are written: a TOML file, or a few words of the command line.

Read strictly, key by key: what is unknown, of another type or out of range is one error with file and key. What
a suite means stands in `suite`.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from collm_agents.config import Config
from collm_agents.layers import read_toml
from collm_agents.overrides import ALIASES, parse_value
from collm_agents.records import AXES
from collm_agents.suite import WARMSTART, Arena, Contender, Suite, parse_warmstart
from collm_envs import spec
from collm_envs.errors import InputError, suggest
from collm_envs.reward import SCHEDULES

MOST_SEEDS = 10_000
MOST_NAME = 60  # letters of what a suite of the command line compares, in its name
SUITES = Path(__file__).parent / "suites"
# Said by the suite itself, or by the place a run has in it.
_OWN = (
    *(
        "run.seed",
        "run.out",
        "algorithm.name",
        "env.id",
        "run.task_passes",
        *(f"run.{axis}" for axis in AXES),
    ),
    *("eval.points", "eval.every", "eval.tasks", "eval.final_tasks", "eval.final_episodes", "eval.greedy"),
    *("eval.greedy_too", "eval.samples"),
)
# Settings that a suite crosses under a key of its own, by that key.
CROSSED = {"env.reward": "reward", "env.num_turns": "num_turns", "team.model": "models"}
_SECTIONS = {field.name for field in dataclasses.fields(Config)} - {"algorithm"}
_TYPES: dict[type, str] = {
    **{int: "a whole number", float: "a number", str: "text", bool: "true or false", list: "a list"}
}
T = TypeVar("T")


class Table:
    """A TOML table that is read key by key; what is left at the end is an error.

    Args:
        values: the table.
        place: what messages call it.
    """

    def __init__(self, values: Any, place: str) -> None:
        if not isinstance(values, Mapping):
            raise InputError(f"{place} must be a table, not {values!r}")
        self.rest, self.place, self._known = dict(values), place, list[str]()

    def at(self, key: str) -> str:
        """A key, for messages."""
        return f"{self.place}: {key}" if ": " not in self.place else f"{self.place}.{key}"

    def pick(self, key: str, kinds: tuple[type, ...], default: Any = None) -> Any:
        """A value of one of some types; without a default it has to be there."""
        self._known.append(key)
        value = self.rest.pop(key, default)
        if value is None:
            raise InputError(f"{self.at(key)} is missing")
        if type(value) not in kinds:
            names = " or ".join(_TYPES[kind] for kind in kinds)
            raise InputError(f"{self.at(key)} must be {names}, not {value!r}")
        return value

    def one(self, key: str, kind: type[T], default: T | None = None) -> T:
        """A value of a type."""
        return self.pick(key, (kind,), default)

    def many(self, key: str, kind: type[T], default: Sequence[T] = ()) -> tuple[T, ...]:
        """A list of a type, or one alone."""
        value = self.pick(key, (list, kind), list(default))
        values = value if isinstance(value, list) else [value]
        for item in values:
            if type(item) is not kind:
                raise InputError(f"{self.at(key)}: every entry must be {_TYPES[kind]}, not {item!r}")
        return tuple(values)

    def table(self, key: str) -> Table:
        """A table within; empty where there is none."""
        self._known.append(key)
        return Table(self.rest.pop(key, {}), self.at(key))

    def tables(self, key: str) -> list[Table]:
        """A list of tables."""
        values = self.pick(key, (list,), [])
        return [Table(value, f"{self.at(key)}[{number}]") for number, value in enumerate(values)]

    def done(self, known: Sequence[str] = ()) -> None:
        """Raise where something was not read; `known` are keys that could have been."""
        for key in self.rest:
            raise InputError(f"{self.at(key)}: there is no such key{suggest(key, [*self._known, *known])}")


def list_suites() -> list[str]:
    """Names of the packaged suites."""
    return sorted(path.stem for path in SUITES.glob("*.toml"))


def find_suite(name: str) -> Suite:
    """The suite of a packaged name, or of a TOML file.

    Raises:
        InputError: where there is neither, or something in it cannot be used; names file and key.
    """
    return read_suite(*find_table(name))


def find_table(name: str) -> tuple[dict[str, Any], str, str]:
    """The parsed TOML of a packaged name or a file, what messages call it, and its own name.

    Raises:
        InputError: where there is neither.
    """
    packaged = SUITES / f"{name}.toml"
    file = packaged if packaged.is_file() else Path(name).expanduser()
    if not file.is_file():
        raise InputError(f"no suite {name!r}{suggest(name, list_suites())}")
    return read_toml(file), name if packaged.is_file() else str(file), file.stem


def read_suite(table: Mapping[str, Any], source: str, name: str = "") -> Suite:
    """A suite from its parsed TOML.

    Args:
        table: the whole file.
        source: what messages call it.
        name: of the suite where it does not say.

    Raises:
        InputError: names the key.
    """
    whole = Table(table, source)
    evaluation = whole.table("evaluation")
    algorithms = whole.table("algorithms")
    contenders = tuple(_contender(label, algorithms.table(label)) for label in list(algorithms.rest))
    arenas = tuple(_arena(part, {c.label for c in contenders}) for part in whole.tables("environments"))
    suite = Suite(
        name=_plain_name(whole.one("name", str, name), source),
        algorithms=contenders,
        environments=arenas,
        seeds=read_seeds(whole.pick("seeds", (int, list), 5), source),
        budget=_budget(whole.table("budget")),
        points=positive(evaluation.one("points", int, Suite.points), evaluation.at("points")),
        tasks=positive(evaluation.one("tasks", int, Suite.tasks), evaluation.at("tasks")),
        greedy=_greedy(evaluation.many("greedy", bool, (False,)), source),
        settings=check_settings(whole.many("settings", str), f"{source}: settings"),
        models=_models(whole.many("models", str), source),
        source=source,
    )
    for part in (evaluation, whole):
        part.done()
    if not contenders or not arenas:
        raise InputError(f"{source}: needs [algorithms.LABEL] and [[environments]], at least one of each")
    check_crossed(suite)
    return suite


def suite_table(suite: Suite) -> dict[str, Any]:
    """A suite as a TOML file would say it: `read_suite` gives it back."""

    def budget(own: tuple[str, float]) -> dict[str, Any]:
        unit, amount = own
        return {unit: amount if unit == "wall_s" else int(amount)}

    def arena(own: Arena) -> dict[str, Any]:
        lists = {name: list(getattr(own, name)) for name in ("reward", "num_turns", "settings")}
        tables = {"presets": dict(own.presets), "budget": budget(own.budget) if own.budget else {}}
        return {"env": own.env, **{name: value for name, value in {**lists, **tables}.items() if value}}

    return {
        "name": suite.name,
        "seeds": list(suite.seeds),
        "settings": list(suite.settings),
        "models": list(suite.models),
        "budget": budget(suite.budget),
        "evaluation": {"points": suite.points, "tasks": suite.tasks, "greedy": list(suite.greedy)},
        "algorithms": {
            own.label: {"algorithm": own.algorithm, "settings": list(own.settings)}
            for own in suite.algorithms
        },
        "environments": [arena(own) for own in suite.environments],
    }


def suite_of_words(algorithms: str, envs: str, name: str = "command-line") -> Suite:
    """A suite from the command line.

    Args:
        algorithms: names joined by commas; `mc+rollout.samples=2` is `mc` with a setting of its own.
        envs: ids joined by commas.
        name: of the suite.
    """
    contenders = []
    for label in _split(algorithms):
        algorithm, *settings = label.split("+")
        contenders.append(Contender(label, algorithm, check_settings(settings, f"--algorithms {label}")))
        _known_algorithm(algorithm, "--algorithms")
    for env in _split(envs):
        spec(env)
    if not contenders or not _split(envs):
        raise InputError("--algorithms and --envs need at least one name each")
    return Suite(name, tuple(contenders), tuple(Arena(env) for env in _split(envs)))


def name_of_words(suite: Suite) -> str:
    """A name for a suite of the command line: what it compares, and a hash of all that it says but its seeds."""
    arenas = sorted(suite.environments, key=lambda arena: arena.env)
    table = suite_table(dataclasses.replace(suite, name="", seeds=(), environments=tuple(arenas)))
    told = [*sorted(own.label for own in suite.algorithms), *(arena.env for arena in arenas)]
    words = re.sub(r"[^A-Za-z0-9]+", "-", " ".join(told)).strip("-")[:MOST_NAME]
    digest = hashlib.sha256(json.dumps(table, sort_keys=True).encode()).hexdigest()
    return f"{words}-{digest[:8]}"


def with_words(suite: Suite, words: Sequence[str], seeds: str = "") -> Suite:
    """A suite with settings of the command line on top.

    Args:
        suite: as it was read.
        words: `key=value`: a budget (`joint_samples`, `tokens`, `wall_s`), `points`, `tasks`, `greedy`; `reward`,
            `num_turns` and `model`, several joined by commas; all else is a setting of all runs, before which those
            of the suite give way.
        seeds: a count, or seeds joined by commas (`7,` is one seed).
    """
    place = "command line"
    changes: dict[str, Any] = {}
    crossed: dict[str, Any] = {}
    settings: list[str] = []
    for word in words:
        key, sign, text = word.partition("=")
        if not sign:
            raise InputError(f"{place}: {word!r} is not key=value")
        value = parse_value(text)
        if key in AXES:
            if "budget" in changes:
                raise InputError(f"{place}: give one budget, of {', '.join(AXES)}")
            changes["budget"] = _budget(Table({key: value}, place))
            crossed["budget"] = None
        elif key in ("points", "tasks"):
            changes[key] = positive(Table({key: value}, place).one(key, int, 0), f"{place}: {key}")
        elif key == "greedy":
            both = [parse_value(part) for part in _split(text)]
            changes[key] = _greedy(Table({key: both}, place).many(key, bool), place)
        elif (name := CROSSED.get(full_key(key))) is not None:
            (changes if name == "models" else crossed)[name] = _list_of_words(name, text, place)
        else:
            settings += check_settings([word], place)
    if seeds:
        numbers = [parse_value(part) for part in _split(seeds)]
        changes["seeds"] = read_seeds(numbers if "," in seeds or not numbers else numbers[0], place)
    _check_labels(suite, words, place)

    def left(own: Sequence[str]) -> tuple[str, ...]:
        """Settings that are not crossed in their place now."""
        return tuple(word for word in own if CROSSED.get(full_key(word)) not in {**changes, **crossed})

    return dataclasses.replace(
        suite,
        settings=left(suite.settings),
        algorithms=tuple(
            # Last among what can be set: whatever the suite, an environment or an algorithm says, these win.
            dataclasses.replace(own, settings=(*left(own.settings), *settings))
            for own in suite.algorithms
        ),
        environments=tuple(
            dataclasses.replace(own, settings=left(own.settings), **crossed) for own in suite.environments
        ),
        **changes,
    )


def _list_of_words(name: str, text: str, place: str) -> tuple[Any, ...]:
    """What is crossed, from the command line."""
    parts = [(parse_value(part), part) for part in _split(text)]
    if name == "num_turns":
        turns = Table({name: [value for value, _ in parts]}, place).many(name, int)
        return tuple(positive(own, f"{place}: {name}") for own in turns)
    plain = [value if isinstance(value, str) else part for value, part in parts]
    return _rewards(plain, place) if name == "reward" else _models(plain, place)


def _check_labels(suite: Suite, words: Sequence[str], place: str) -> None:
    """Raise where a word would undo what an algorithm's label says of it (`mc+rollout.samples=2`)."""
    for contender in suite.algorithms:
        for own in contender.settings:
            for word in words:
                if f"+{own}" in contender.label and same_key(word, own):
                    raise InputError(f"{place}: {word} would undo what {contender.label} says; say it once")


def _contender(label: str, table: Table) -> Contender:
    name = _known_algorithm(table.one("algorithm", str, label), table.at("algorithm"))
    settings = check_settings(table.many("settings", str), table.at("settings"))
    table.done()
    return Contender(label, name, settings)


def _arena(table: Table, labels: set[str]) -> Arena:
    env = table.one("env", str)
    try:
        spec(env)
    except InputError as error:
        raise InputError(f"{table.at('env')}: {error}") from None
    presets = table.table("presets")
    chosen = {label: presets.one(label, str) for label in list(presets.rest)}
    for label in chosen:
        if label not in labels:
            raise InputError(f"{presets.at(label)}: no such algorithm{suggest(label, labels)}")
    budget = table.table("budget")
    arena = Arena(
        env,
        _rewards(table.many("reward", str), table.at("reward")),
        tuple(positive(turns, table.at("num_turns")) for turns in table.many("num_turns", int)),
        check_settings(table.many("settings", str), table.at("settings")),
        chosen,
        _budget(budget) if budget.rest else None,
    )
    table.done()
    return arena


def _budget(table: Table) -> tuple[str, float]:
    given = [axis for axis in AXES if axis in table.rest]
    if len(given) != 1:
        raise InputError(f"{table.place}: give exactly one of {', '.join(AXES)}")
    kind = (int, float) if given[0] == "wall_s" else (int,)
    amount = table.pick(given[0], kind)
    table.done(AXES)
    if amount <= 0:
        raise InputError(f"{table.at(given[0])} must be greater than 0, not {amount}")
    return given[0], float(amount)


def read_seeds(value: Any, source: str) -> tuple[int, ...]:
    """Seeds from how many there are, or a list."""
    seeds = list(range(min(value, MOST_SEEDS + 1))) if type(value) is int else value
    fine = isinstance(seeds, list) and all(type(seed) is int and seed >= 0 for seed in seeds)
    if not fine or not 0 < len(seeds) <= MOST_SEEDS or len(set(seeds)) < len(seeds):
        raise InputError(
            f"{source}: seeds must be how many, up to {MOST_SEEDS}, or a list of different whole numbers, "
            f"not {value!r:.80}"
        )
    return tuple(seeds)


def _greedy(values: Sequence[bool], source: str) -> tuple[bool, ...]:
    if not values or len(set(values)) < len(values):
        raise InputError(f"{source}: greedy must be false, true or [false, true], not {list(values)!r}")
    return tuple(sorted(values))


def _models(values: Sequence[str], source: str) -> tuple[str, ...]:
    for model in values:
        if model.startswith(WARMSTART):
            try:
                parse_warmstart(model)
            except InputError as error:
                raise InputError(f"{source}: models: {error}") from None
    return tuple(values)


def _rewards(values: Sequence[str], place: str) -> tuple[str, ...]:
    for reward in values:
        if reward not in SCHEDULES:
            raise InputError(f"{place}: {reward!r} is not a reward schedule{suggest(reward, SCHEDULES)}")
    return tuple(values)


def full_key(word: str) -> str:
    """The key of a setting as written, a short name in full where it is one of the documented ones."""
    key = ".".join(part.strip() for part in word.partition("=")[0].split("."))
    return ALIASES.get(key, key)


def same_key(one: str, other: str) -> bool:
    """Whether two settings set the same; a key may leave its section out (`lr`)."""
    keys = sorted((full_key(one), full_key(other)), key=len)
    return keys[0] == keys[1] or keys[1].endswith(f".{keys[0]}")


def check_settings(words: Sequence[str], place: str) -> tuple[str, ...]:
    """Settings of runs, unless they say what the suite says."""
    for word in words:
        full, key = full_key(word), word.partition("=")[0]
        if "=" not in word:
            raise InputError(f"{place}: {word!r} is not key=value")
        if full in _SECTIONS:
            raise InputError(f"{place}: {word!r} sets several; write {full}.key=value for each")
        if full in _OWN or any(full == own.partition(".")[2] for own in _OWN if own.startswith("eval.")):
            raise InputError(f"{place}: {key} is the suite's own to say, under a key of its own")
    return tuple(words)


def check_crossed(suite: Suite) -> None:
    """Raise for a setting that no run would have, since the suite crosses the same under a key of its own."""
    for arena in suite.environments:
        lists = {"reward": arena.reward, "num_turns": arena.num_turns, "models": suite.models}
        own = [setting for contender in suite.algorithms for setting in contender.settings]
        for word in (*suite.settings, *arena.settings, *own):
            name = CROSSED.get(full_key(word), "")
            if values := lists.get(name):
                told = f"{name} = {list(values)!r}"
                raise InputError(f"{suite.source}: {word} is lost beside {told} of {arena.env}; say it once")


def _known_algorithm(name: str, place: str) -> str:
    from collm_agents.algorithms import find_algorithm  # here, since estimators import torch

    try:
        find_algorithm(name)
    except InputError as error:
        raise InputError(f"{place}: {error}") from None
    return name


def _plain_name(name: str, source: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", name):
        raise InputError(f"{source}: name must be letters, digits, dots and dashes, not {name!r}")
    return name


def positive(value: int, place: str) -> int:
    """A count, unless it is none."""
    if value < 1:
        raise InputError(f"{place} must be at least 1, not {value}")
    return value


def _split(text: str) -> list[str]:
    """Parts between commas, those within brackets apart."""
    return [part.strip() for part in re.split(r",(?![^\[]*\])", text) if part.strip()]
