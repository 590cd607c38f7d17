"""A search as it is written: a suite with a table `[search]`, read as strictly as the suite itself.

For `search` and its command. It says how many trials every algorithm has, which settings they draw from which
ranges, and from which seeds they run. The number of trials is one for all: no algorithm is tuned longer than
another. Nothing here draws or runs.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from collm_agents.suite import Contender, Suite
from collm_agents.suite_file import (
    CROSSED,
    Table,
    check_crossed,
    check_settings,
    find_table,
    positive,
    read_seeds,
    read_suite,
    same_key,
    suite_table,
    with_words,
)
from collm_envs.errors import InputError, suggest

SAMPLERS = ("tpe", "random")
METRICS = ("score", "success", "return")
PLAIN = (int, float, str, bool)  # what a setting may be drawn from


@dataclass(frozen=True)
class Range:
    """What a setting is drawn from: everything between two numbers, or one of several values.

    Attributes:
        low: least value; whole numbers are drawn where both ends are whole.
        high: greatest value.
        log: even over magnitudes in place of values.
        choices: the values; then the rest says nothing.
    """

    low: float = 0
    high: float = 0
    log: bool = False
    choices: tuple[Any, ...] = ()

    @property
    def whole(self) -> bool:
        """Whether whole numbers are drawn."""
        return type(self.low) is int and type(self.high) is int

    def edges(self) -> tuple[Any, ...]:
        """Values which stand for all of them when settings are checked."""
        return self.choices or (self.low, self.high)

    def plain(self) -> Any:
        """As TOML and JSON say it."""
        return list(self.choices) if self.choices else {"low": self.low, "high": self.high, "log": self.log}


@dataclass(frozen=True)
class Search:
    """A search before it is run.

    Attributes:
        suite: what the chosen settings are for; its own seeds are left to the comparison.
        seeds: of the search's runs.
        ranges: label of an algorithm -> setting -> what it is drawn from.
        trials: of every algorithm.
        seed: of the draws.
        sampler: `tpe` learns from earlier trials, `random` does not.
        metric: of the last evaluation, on the way from novice to oracle.
        settings: of the search's runs only.
    """

    suite: Suite
    seeds: tuple[int, ...]
    ranges: Mapping[str, Mapping[str, Range]] = field(default_factory=dict)
    trials: int = 8
    seed: int = 0
    sampler: str = "tpe"
    metric: str = "score"
    settings: tuple[str, ...] = ()

    def suite_of(self, contenders: Sequence[Contender], names: Mapping[str, str]) -> Suite:
        """The suite of trials, each an algorithm of its own.

        Args:
            contenders: the trials.
            names: label of a trial -> label of its algorithm, whose presets it has.
        """
        arenas = [
            dataclasses.replace(
                arena, presets={t: arena.presets[a] for t, a in names.items() if a in arena.presets}
            )
            for arena in self.suite.environments
        ]
        return dataclasses.replace(
            self.suite,
            algorithms=tuple(contenders),
            environments=tuple(arenas),
            seeds=self.seeds,
            settings=(*self.suite.settings, *self.settings),
            greedy=self.suite.greedy[:1],  # where both are evaluated, the draws judge
        )

    def definition(self) -> dict[str, Any]:
        """All that makes trials what they are, but for how many there are."""
        ranges = {
            label: {key: own.plain() for key, own in keys.items()} for label, keys in self.ranges.items()
        }
        return {
            "seeds": list(self.seeds),
            "seed": self.seed,
            "sampler": self.sampler,
            "metric": self.metric,
            "settings": list(self.settings),
            "ranges": ranges,
            "suite": suite_table(self.suite),
        }


def word(key: str, value: Any) -> str:
    """A setting as the command line says it."""
    return f"{key}={str(value).lower() if isinstance(value, bool) else value}"


def find_search(name: str, words: Sequence[str] = (), trials: int | None = None) -> Search:
    """The search of a TOML file.

    Args:
        name: path of the file.
        words: `key=value` on top, as for `with_words`.
        trials: in place of the file's.

    Raises:
        InputError: where something cannot be used; names file and key.
    """
    return read_search(*find_table(name), words, trials)


def read_search(
    table: Mapping[str, Any],
    source: str,
    name: str = "",
    words: Sequence[str] = (),
    trials: int | None = None,
) -> Search:
    """A search from its parsed TOML; arguments as for `read_suite` and `find_search`."""
    rest = dict(table)
    if "search" not in rest:
        raise InputError(f"{source}: needs a table [search]; without one it is a suite for `collm bench`")
    own = Table(rest.pop("search"), f"{source}: search")
    suite = with_words(read_suite(rest, source, name), words)
    count = own.one("trials", int, Search.trials)
    search = Search(
        suite,
        _seeds(own),
        _ranges(own.table("ranges"), [contender.label for contender in suite.algorithms]),
        positive(count if trials is None else trials, own.at("trials") if trials is None else "--trials"),
        own.one("seed", int, Search.seed),
        _one_of(own.one("sampler", str, Search.sampler), SAMPLERS, own.at("sampler")),
        _one_of(own.one("metric", str, Search.metric), METRICS, own.at("metric")),
        check_settings(own.many("settings", str), own.at("settings")),
    )
    own.done()
    _check(search, own)
    return search


def _seeds(own: Table) -> tuple[int, ...]:
    seeds = own.many("seeds", int)
    if not seeds:
        raise InputError(f"{own.at('seeds')} is missing: a list of seeds that the suite has not")
    return read_seeds(list(seeds), own.place)


def _one_of(value: str, known: Sequence[str], place: str) -> str:
    if value not in known:
        raise InputError(f"{place} must be one of {', '.join(known)}, not {value!r}{suggest(value, known)}")
    return value


def _ranges(table: Table, labels: Sequence[str]) -> dict[str, dict[str, Range]]:
    """Ranges of each algorithm: those of all in their order, its own in their places and after them."""
    apart = {label: table.table(label) for label in labels if label in table.rest}
    shared = {key: _range(table, key) for key in list(table.rest)}
    own = {label: {key: _range(part, key) for key in list(part.rest)} for label, part in apart.items()}
    return {label: {**shared, **own.get(label, {})} for label in labels}


def _range(table: Table, key: str) -> Range:
    place = table.at(f'"{key}"')
    value = table.rest.pop(key)
    if "." not in key:
        raise InputError(
            f"{place}: neither an algorithm of the suite nor a setting; those are quoted in full: "
            "'learner.lr'"
        )
    if key.startswith("env."):
        raise InputError(f"{place}: another environment is another task; only what learns is searched")
    check_settings([f"{key}=0"], place)
    if isinstance(value, list):
        plain = bool(value) and all(type(one) in PLAIN for one in value)
        if not plain or any(one in value[:i] for i, one in enumerate(value)):
            raise InputError(f"{place} must list different numbers, texts, true or false, not {value!r}")
        return Range(choices=tuple(value))
    if not isinstance(value, Mapping):
        raise InputError(f"{place} must be a list of values, or {{low = …, high = …}}, not {value!r}")
    own = Table(value, place)
    low, high = (own.pick(end, (int, float)) for end in ("low", "high"))
    found = Range(low, high, own.one("log", bool, False))
    own.done()
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        raise InputError(f"{place}: low must be below high, not {low} and {high}")
    if found.log and low <= 0:
        raise InputError(f"{place}: log needs low above 0, not {low}")
    return found


def _check(search: Search, own: Table) -> None:
    """Raise for seeds that are used twice, settings that are both fixed and drawn, and values no run could have."""
    suite = search.suite
    check_crossed(dataclasses.replace(suite, settings=(*suite.settings, *search.settings)))
    if both := sorted(set(search.seeds) & set(suite.seeds)):
        raise InputError(
            f"{own.at('seeds')}: {', '.join(map(str, both))} are the suite's seeds too; what is chosen on a seed "
            "has to be compared on others"
        )
    for contender in suite.algorithms:
        if not search.ranges[contender.label]:
            raise InputError(f"{own.at('ranges')}: nothing is drawn for {contender.label}")
        for key, one in search.ranges[contender.label].items():
            place = f'{own.at("ranges")}."{key}"'
            if fixed := _fixed(search, contender, key):
                raise InputError(f"{place}: {contender.label} has it fixed as well: {fixed}")
            for value in one.edges():
                tried = dataclasses.replace(contender, settings=(*contender.settings, word(key, value)))
                whole = search.suite_of([tried], {contender.label: contender.label})
                dataclasses.replace(whole, source=f"{place}: {value!r}").runs()


def _fixed(search: Search, contender: Contender, key: str) -> str:
    """The setting of the suite that says what is drawn; empty where none does."""
    arenas = [setting for arena in search.suite.environments for setting in arena.settings]
    for setting in (*search.suite.settings, *search.settings, *contender.settings, *arenas):
        if same_key(setting, key):
            return setting
    if CROSSED.get(key) == "models" and search.suite.models:
        return f"models = {list(search.suite.models)!r}"
    return ""
