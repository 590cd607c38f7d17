"""`Searcher`: the trials of a search, drawn, run as a benchmark's runs, and the best of each algorithm filled in.

For `collm search` and for scripts. Trial by trial, all algorithms at once, each learning from its own trials alone.
`OUT` is a benchmark's folder whose algorithms are the trials (`mc-t01`), with `search.json` on top. A draw depends
on the seed, the trial's number and what earlier trials gave, so an interrupted search draws what it would have
drawn. What failed stays failed and counts. Optuna draws; nothing but this module knows it.
"""

from __future__ import annotations

import dataclasses
import json
import math
import sys
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from collm_agents.bench_run import Place
from collm_agents.benchmark import Benchmark
from collm_agents.claim import held
from collm_agents.pool import OnRay
from collm_agents.records import Record
from collm_agents.search_file import Range, Search, word
from collm_agents.suite import Contender, Suite
from collm_agents.suite_file import suite_table
from collm_agents.whole_file import write_whole
from collm_envs.errors import InputError

STARTUP = 4  # finished trials of an algorithm before `tpe` learns from them; until then it draws at random
TRAINER = (sys.executable, "-m", "collm_agents.cli", "train")


@dataclass
class Trial:
    """Settings of an algorithm that were drawn, and what they gave.

    Attributes:
        algorithm: its label in the suite.
        number: from 1.
        settings: setting -> value.
        state: `drawn`, `done`, `failed`, or `refused`: values that are fine alone and cannot go together.
        value: mean of `environments`; None unless done.
        environments: environment and form -> normalised metric, mean over seeds.
        seconds: of all its runs, evaluations and loading too.
        error: why it failed.
    """

    algorithm: str
    number: int
    settings: dict[str, Any]
    state: str = "drawn"
    value: float | None = None
    environments: dict[str, float] = field(default_factory=dict)
    seconds: float = 0.0
    error: str = ""

    @property
    def label(self) -> str:
        """The algorithm that it is in the benchmark."""
        return f"{self.algorithm}-t{self.number:02d}"

    @property
    def words(self) -> tuple[str, ...]:
        """Its settings as the command line says them."""
        return tuple(word(key, value) for key, value in self.settings.items())


class _Runs(Benchmark):
    """A benchmark of trials that runs only those which are open, and nothing twice that failed."""

    open: frozenset[str] = frozenset()

    def missing(self) -> list[Place]:
        return [
            place
            for place in super().missing()
            if place.run.algorithm in self.open and place.state() != "failed"
        ]


class Searcher:
    """A search in a folder.

    Args:
        search: what to try.
        out: folder; made where it is missing.
        processes: programs at once.
        gpus: as for `Benchmark`.
        ray: as for `Benchmark`.
        said: called with a line for people when something ended.
        seen: as for `Benchmark`; it counts the runs of all trials that are drawn.
        trainer: command that trains.

    Raises:
        InputError: for a folder of another search.
    """

    def __init__(
        self,
        search: Search,
        out: Path,
        *,
        processes: int = 0,
        gpus: Sequence[str] = (),
        ray: OnRay | None = None,
        said: Callable[[str], Any] = lambda line: None,
        seen: Callable[[int, int, int, Sequence[str], float | None], Any] = lambda *told: None,
        trainer: Sequence[str] = TRAINER,
    ) -> None:
        self.search, self.out, self.said = search, out.expanduser(), said
        self.at_once = len(gpus) or processes
        self._more: dict[str, Any] = {
            "processes": processes,
            "gpus": gpus,
            "ray": ray,
            "said": said,
            "seen": seen,
            "trainer": trainer,
        }
        if self.out.exists() and not self.out.is_dir():
            raise InputError(f"{out} is not a folder")
        self.trials = self._stored()

    def run(self) -> list[Trial]:
        """Draw and run what is missing, and write `search.json` and `chosen.toml`.

        Returns:
            All trials, failed ones too, in the order they were drawn in.

        Raises:
            Stopped: when a signal came before the end.
            InputError: without Optuna, or when another call is at work in the folder.
        """
        _optuna()
        self.out.mkdir(parents=True, exist_ok=True)
        with held(self.out, f"{self.out}: another `collm search` is at work there", by=".search.lock"):
            self.trials = self._stored()
            for number in range(1, self.search.trials + 1):
                drawn = {trial.algorithm for trial in self.trials if trial.number == number}
                for contender in self.search.suite.algorithms:
                    if contender.label not in drawn:
                        self.trials.append(self._draw(contender.label, number))
                self._save()
                self._play([trial for trial in self.trials if trial.state == "drawn"])
                self._save()
            if (suite := self.chosen()) is not None:
                write_whole(self.out / "chosen.toml", self._written(suite))
            else:
                (self.out / "chosen.toml").unlink(missing_ok=True)
            return self.trials

    def best(self, label: str) -> Trial | None:
        """The best finished trial of an algorithm, the earliest of equals; None where all failed."""
        done = [trial for trial in self.trials if trial.algorithm == label and trial.value is not None]
        return max(done, key=lambda trial: trial.value or 0.0, default=None)

    def chosen(self) -> Suite | None:
        """The suite with the best settings of each algorithm; None where one has none."""
        filled = []
        for contender in self.search.suite.algorithms:
            best = self.best(contender.label)
            if best is None:
                return None
            filled.append(dataclasses.replace(contender, settings=(*contender.settings, *best.words)))
        suite = self.search.suite
        return dataclasses.replace(suite, name=f"{suite.name}-chosen", algorithms=tuple(filled))

    # -- trials ----------------------------------------------------------------------------------------------

    def _draw(self, label: str, number: int) -> Trial:
        earlier = [trial for trial in self.trials if trial.algorithm == label]
        trial = Trial(label, number, draw(self.search, self.search.ranges[label], earlier))
        try:
            self._suite([trial]).runs()
        except InputError as error:
            trial.state, trial.error = "refused", str(error)
            self.said(self._told(trial))
        return trial

    def _suite(self, trials: Sequence[Trial]) -> Suite:
        known = {contender.label: contender for contender in self.search.suite.algorithms}
        contenders = [
            Contender(
                trial.label,
                known[trial.algorithm].algorithm,
                (*known[trial.algorithm].settings, *trial.words),
            )
            for trial in trials
        ]
        return self.search.suite_of(contenders, {trial.label: trial.algorithm for trial in trials})

    def _play(self, open_: Sequence[Trial]) -> None:
        """Run what is drawn, beside the runs of all trials before it, and judge it."""
        if not open_:
            return
        played = [trial for trial in self.trials if trial.state != "refused"]
        runs = _Runs(self._suite(played), self.out, slim=True, **self._more)
        runs.open = frozenset(trial.label for trial in open_)
        records = runs.run().records
        for trial in open_:
            own = [place for place in runs.places if place.run.algorithm == trial.label]
            trial.seconds = round(sum(place.stored()["wall_s"] for place in own), 2)
            self._judge(trial, [record for record in records if record.algorithm == trial.label])
            self.said(self._told(trial))

    def _judge(self, trial: Trial, records: Sequence[Record]) -> None:
        values: dict[str, list[float]] = {}
        for record in records:
            if record.final is None:
                trial.state = "failed"
                trial.error = trial.error or f"{record.environment} seed {record.seed}: {record.error}"
                continue
            place = f"{record.environment} {record.task}"
            values.setdefault(place, []).append(self._value(record))
        trial.environments = {place: sum(own) / len(own) for place, own in values.items()}
        if trial.state != "failed":
            trial.state = "done"
            trial.value = sum(trial.environments.values()) / len(trial.environments)

    def _value(self, record: Record) -> float:
        assert record.final is not None
        metric = self.search.metric
        try:
            value = record.normalised(record.final.metrics[metric], metric)
        except (KeyError, ZeroDivisionError):
            value = math.nan
        if not math.isfinite(value):
            raise InputError(
                f"{record.environment} {record.task}: {metric} cannot be set between novice and oracle, whose own "
                "are missing or equal; search with another metric and --out"
            )
        return value

    def _told(self, trial: Trial) -> str:
        end = f"FAILED: {trial.error}" if trial.value is None else f"{self.search.metric} {trial.value:.3f}"
        return (
            f"trial {trial.number}/{self.search.trials} of {trial.algorithm}: {' '.join(trial.words)}: {end}"
        )

    # -- files -----------------------------------------------------------------------------------------------

    def _stored(self) -> list[Trial]:
        """Trials of `search.json`, which has to be of this search."""
        file = self.out / "search.json"
        if not file.is_file():
            return []
        try:
            found = json.loads(file.read_text("utf-8"))
            before, trials = found["search"], [Trial(**own) for own in found["trials"]]
        except (ValueError, KeyError, TypeError) as error:
            raise InputError(f"{file}: not the file of a search ({error!r})") from None
        for name, now in json.loads(json.dumps(self.search.definition())).items():
            if before.get(name) != now:
                raise InputError(f"{file}: begun with another {name}; take another --out")
        if (most := max((trial.number for trial in trials), default=0)) > self.search.trials:
            raise InputError(
                f"{file}: has {most} trials of each; there may be more, not {self.search.trials}"
            )
        return trials

    def _save(self) -> None:
        best = {own.label: self.best(own.label) for own in self.search.suite.algorithms}
        told = {
            "search": self.search.definition(),
            "optuna": _optuna().__version__,
            "chosen": {label: trial.number if trial else None for label, trial in best.items()},
            "trials": [asdict(trial) for trial in self.trials],
        }
        self.out.mkdir(parents=True, exist_ok=True)
        text = json.dumps(told, ensure_ascii=False, allow_nan=False, indent=1)
        write_whole(self.out / "search.json", text + "\n")

    def _written(self, suite: Suite) -> str:
        import tomli_w

        seeds = ", ".join(map(str, self.search.seeds))
        table = {name: value for name, value in suite_table(suite).items() if value != []}
        return (
            f"# The best of {self.search.trials} trials of every algorithm, from seeds {seeds}: see search.json.\n"
            + tomli_w.dumps(table)
        )


# -- draws ------------------------------------------------------------------------------------------------


def draw(search: Search, ranges: Mapping[str, Range], earlier: Sequence[Trial]) -> dict[str, Any]:
    """Settings of the next trial of an algorithm.

    Equal ranges give equal first draws: no algorithm is luckier than another before it has learned something.

    Args:
        search: seed and sampler.
        ranges: setting -> what it is drawn from.
        earlier: its trials so far, in order.
    """
    optuna = _optuna()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    kinds = optuna.distributions

    def distribution(own: Range) -> Any:
        if own.choices:
            return kinds.CategoricalDistribution(own.choices)
        kind = kinds.IntDistribution if own.whole else kinds.FloatDistribution
        return kind(own.low, own.high, log=own.log)

    seed = zlib.crc32(f"{search.seed}/{len(earlier)}".encode())
    if search.sampler == "tpe":
        sampler = optuna.samplers.TPESampler(seed=seed, n_startup_trials=STARTUP)
    else:
        sampler = optuna.samplers.RandomSampler(seed=seed)
    space = {key: distribution(own) for key, own in ranges.items()}
    study = optuna.create_study(direction="maximize", sampler=sampler)
    for trial in earlier:
        known = {"params": trial.settings, "distributions": space}
        end = {"state": optuna.trial.TrialState.FAIL} if trial.value is None else {"value": trial.value}
        study.add_trial(optuna.trial.create_trial(**known, **end))
    drawn = study.ask(space).params
    return {key: drawn[key] for key in ranges}


def _optuna() -> Any:
    try:
        import optuna
    except ModuleNotFoundError:
        raise InputError(
            "a search draws with Optuna, which is not here: pip install 'collm[search]'"
        ) from None
    return optuna
