"""`Benchmark`: a suite's runs, each a program of its own, gone on with wherever they were left, and put together.

For `collm bench` and for scripts. A run lives in `OUT/runs/KEY` (see `bench_run`). What is finished is never done
again, what was interrupted goes on from its checkpoint, what failed begins anew, and what was started with other
settings than the suite now has is refused. Nothing here trains, and nothing here judges who is better.
"""

from __future__ import annotations

import json
import os
import platform
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import collm_envs
from collm_agents.bench_run import MEANT, Place, failed_record, is_of, last_words, read_run, record_of
from collm_agents.claim import held
from collm_agents.pool import Job, OnRay, Pool
from collm_agents.records import Record, Results, write_results
from collm_agents.results import EPISODES
from collm_agents.suite import WARMSTART, Run, Suite, parse_warmstart
from collm_envs.errors import CollmError, InputError

PACKAGES = tuple(Path(file).resolve().parent for file in (__file__, collm_envs.__file__))
COLUMNS = ("score", "success", "return", "turns", "reply_tokens")
LANDMARK = "checkpoints/[0-9]*/progress.json"
NO_PARQUET = "episodes.parquet was not written: pip install 'collm[data]'"


class Stopped(CollmError):
    """A signal came before the end; everything is left so that the same call goes on.

    Attributes:
        code: what a shell calls it.
    """

    def __init__(self, message: str, number: int) -> None:
        super().__init__(message)
        self.code = 128 + number


class Benchmark:
    """A suite in a folder.

    Args:
        suite: what to run.
        out: folder; made where it is missing.
        processes: programs at once.
        gpus: entries of CUDA_VISIBLE_DEVICES that runs are dealt out to.
        ray: a cluster that plays the runs; `processes` 0 is then as many as it has room for.
        slim: drop critics and optimizers of a run once it is finished.
        redo: run again what was started with other settings, in place of refusing it.
        said: called with a line for people when something ended.
        seen: called now and then with (ended, failed, all, names of what is running, seconds left or None).
        trainer: command that trains, in place of `collm train`'s.

    Raises:
        InputError: for a suite or a folder that cannot be used.
    """

    def __init__(
        self,
        suite: Suite,
        out: Path,
        *,
        processes: int = 0,
        gpus: Sequence[str] = (),
        ray: OnRay | None = None,
        slim: bool = False,
        redo: bool = False,
        said: Callable[[str], Any] = lambda line: None,
        seen: Callable[[int, int, int, Sequence[str], float | None], Any] = lambda *told: None,
        trainer: Sequence[str] = (sys.executable, "-m", "collm_agents.cli", "train"),
    ) -> None:
        self.suite, self.out, self.gpus = suite, out.expanduser(), tuple(gpus)
        self.slim, self.redo = slim, redo
        self.ray = ray
        self.processes = processes or (0 if ray else cores())
        self.at_once = len(gpus) or self.processes  # 0: nobody knows before the cluster is asked
        self.said, self.seen, self.trainer = said, seen, tuple(trainer)
        self.places = [Place(run, self.out / "runs" / run.key) for run in suite.runs()]
        self._took: list[float] = []
        if self.out.exists() and not self.out.is_dir():
            raise InputError(f"{out} is not a folder")

    def missing(self) -> list[Place]:
        """Runs that are not finished, in order.

        Raises:
            InputError: where one was started with other settings, unless it may be done again.
        """
        for place in self.places:
            if (change := place.change()) and not self.redo:
                raise InputError(
                    f"{place.folder}: started with other settings: {change}. Take another --out, or --redo to do "
                    "such runs again"
                )
        return [place for place in self.places if place.change() or place.state() != "done"]

    def run(self) -> Results:
        """Run what is missing, and write the merged files.

        Returns:
            All records, those of failed runs too.

        Raises:
            Stopped: when a signal came before the end.
            InputError: when another call is at work in the folder.
        """
        with self._held() as lock:
            missing = self.missing()
            self._rebuild_models(missing, lock)
            ended, failed = len(self.places) - len(missing), 0

            def count(place: Place, seconds: float) -> None:
                nonlocal ended, failed
                ended, failed = ended + 1, failed + (place.state() == "failed")
                self.said(f"{ended}/{len(self.places)} {self._told(place, seconds)}")

            def told(running: Sequence[Job], waiting: int) -> None:
                names = [job.name for job in running]
                left = self._left(len(running), waiting)
                self.seen(ended, failed, len(self.places), names, left)

            jobs = [self._job(place, count) for place in missing]
            if jobs:
                self._pool(self._runner(lock, told), jobs)
            return self._write()

    def adopt(self, results: Results) -> int:
        """Take over runs that were done elsewhere, such as partial results that were shared; returns how many.

        Args:
            results: their records. A run is taken where all its ways of evaluation are there with its settings;
                what is here already is kept. Episodes and weights of such runs are not at hand.

        Raises:
            InputError: when not a single one is of this suite.
        """
        known = {record.place: record for record in results.done}
        ours = {
            (p.run.environment, p.run.task_of(g), p.run.algorithm, p.run.seed)
            for p in self.places
            for g in p.run.greedy
        }
        if not ours & known.keys():
            raise InputError(
                f"none of the {len(known)} runs to be taken over is of the suite {self.suite.name!r}: environment, "
                "task, algorithm and seed have to be its own"
            )
        count = 0
        with self._held():
            for place in self.missing():
                run = place.run
                wanted = [(run.environment, run.task_of(g), run.algorithm, run.seed) for g in run.greedy]
                found = [known[key] for key in wanted if key in known and is_of(known[key], run)]
                if len(found) == len(wanted) and place.state() == "new":
                    seconds = max(point.wall_s for point in found[0].points)
                    commits = str(results.about.get("commit", "")).split(", ")
                    unknown = dict.fromkeys(MEANT)  # records do not say what their presets held
                    place.note("done", seconds, commits, records=[asdict(own) for own in found], **unknown)
                    count += 1
        return count

    def guess_s(self, run: Run) -> float | None:
        """Seconds that a run may take: as long as its like did here, else by `suites/rates.json`; None: unknown."""
        alike = [
            place.stored()["wall_s"]
            for place in self.places
            if (place.run.environment, place.run.algorithm) == (run.environment, run.algorithm)
            and place.state() == "done"
        ]
        return sum(alike) / len(alike) if alike else self.suite.rated_s(run)

    # -- programs --------------------------------------------------------------------------------------------

    def _held(self) -> AbstractContextManager[int]:
        told = f"{self.out}: another `collm bench` is at work there, or a run that one left behind"
        self.out.mkdir(parents=True, exist_ok=True)
        return held(self.out, told, by=".lock")

    def _job(self, place: Place, count: Callable[[Place, float], Any]) -> Job:
        def finish(code: int, seconds: float) -> None:
            self._finish(place, code, seconds)
            self._took.append(seconds)
            count(place, seconds)

        model = place.run.model
        needs = [self._warmstart(model)] if model.startswith(WARMSTART) else []
        landmark = f"{place.train.name}/{LANDMARK}"
        return Job(place.run.key, place.folder, lambda: self._begin(place), finish, needs, landmark)

    def _begin(self, place: Place) -> list[str]:
        """Make the folder ready and say the command: going on where there is a checkpoint, else from the start."""
        stored, run, now = place.stored(), place.run, commit()
        anew = stored.get("state") != "started" or bool(place.change())
        if not anew and any(place.train.glob(LANDMARK)):
            earlier = stored["commits"]
            place.note("started", stored["wall_s"], [*earlier, *([now] if now not in earlier else [])])
            return [*self.trainer, "--resume", str(place.train.absolute())]
        shutil.rmtree(place.folder, ignore_errors=True)
        place.note("started", 0.0, [now])
        preset = ["--preset", run.preset] if run.preset else []
        settings = [self._located(word) for word in run.settings]
        return [*self.trainer, run.environment, *preset, *settings, f"run.out={place.train.absolute()}"]

    def _located(self, word: str) -> str:
        key, _, value = word.partition("=")
        if key == "team.model" and value.startswith(WARMSTART):
            return f"{key}=builtin:{self._warmstart(value).absolute()}"
        return word

    def _finish(self, place: Place, code: int, seconds: float) -> None:
        stored = place.stored()
        wall_s, commits = stored["wall_s"] + seconds, stored["commits"]
        error = "" if code == 0 else last_words(place.folder / "stderr.txt", code)
        if not error and (change := place.change()):
            error = f"what its settings name changed while the benchmark ran: {change}"
        if not error:
            try:
                records = [asdict(record) for record in read_run(place)]
            except (OSError, ValueError, LookupError, TypeError) as broken:
                error = f"its files cannot be read: {type(broken).__name__}: {broken}"
            else:
                place.note("done", wall_s, commits, records=records)
                if self.slim:
                    place.slim()
                return
        place.note("failed", wall_s, commits, error=error)

    def _warmstart(self, model: str) -> Path:
        seed, size = parse_warmstart(model)
        return self.out / "warmstarts" / (str(seed) if size == "small" else f"{seed}-{size}")

    def _rebuild_models(self, missing: Sequence[Place], lock: int) -> None:
        """Build the warm starts that are named and not there yet."""
        named = {place.run.model for place in missing if place.run.model.startswith(WARMSTART)}
        wanted = {self._warmstart(model): model for model in sorted(named)}

        def job(model: str) -> Job:
            folder, (seed, size) = self._warmstart(model), parse_warmstart(model)
            part, log = folder.with_name(f".{folder.name}.part"), folder.with_name(f"{folder.name}-log")
            words = [sys.executable, "-m", "collm_agents.models.warmstart", "--no-report"]

            def begin() -> list[str]:
                shutil.rmtree(part, ignore_errors=True)
                log.mkdir(parents=True, exist_ok=True)
                return [*words, "--seed", str(seed), "--size", size, "--out", str(part)]

            def finish(code: int, seconds: float) -> None:
                if code:
                    raise CollmError(f"{folder}: no warm start: {last_words(log / 'stderr.txt', code)}")
                part.rename(folder)
                self.said(f"warm start {folder.name} built in {seconds:.0f} s")

            return Job(f"warm start {folder.name}", log, begin, finish)

        def told(running: Sequence[Job], waiting: int) -> None:
            self.seen(0, 0, len(self.places), [job.name for job in running], None)

        jobs = [job(model) for folder, model in wanted.items() if not folder.is_dir()]
        self._pool(Pool(self.processes or cores(), self.gpus, kept_open=[lock], told=told), jobs)

    def _runner(self, lock: int, told: Callable[[Sequence[Job], int], Any]) -> Pool:
        """What plays the runs."""
        if self.ray is None:
            return Pool(self.processes, self.gpus, kept_open=[lock], told=told)
        from collm_agents.distributed.pool import RayPool

        return RayPool(self.ray, self.processes, told=told)

    def _pool(self, pool: Pool, jobs: Sequence[Job]) -> None:
        if not pool.run(jobs):
            self._write()
            done = sum(place.state() == "done" for place in self.places)
            raise Stopped(
                f"stopped by {signal.Signals(pool.stopped_by).name} with {done} of {len(self.places)} runs done; "
                "the same command goes on from here",
                pool.stopped_by,
            )

    def _left(self, running: int, waiting: int) -> float | None:
        if not self._took:
            return None
        each = sum(self._took) / len(self._took)
        return each * (waiting + running / 2) / max(self.at_once or running, 1)

    def _told(self, place: Place, seconds: float) -> str:
        stored = place.stored()
        if stored["state"] == "failed":
            return f"{place.run.key} FAILED after {seconds:.0f} s: {stored['error']}"
        metrics = stored["records"][0]["final"]["metrics"]
        return (
            f"{place.run.key} {seconds:.0f} s  score {metrics['score']:.3f}  success {metrics['success']:.3f}"
        )

    # -- results ---------------------------------------------------------------------------------------------

    def records(self) -> list[Record]:
        """Records of all runs that were tried, read from their `run.json`."""
        found = []
        for place in self.places:
            stored = place.stored()
            if stored.get("state") == "done":
                found += [record_of(own) for own in stored["records"]]
            elif stored.get("state") == "failed":
                found += [failed_record(place.run, greedy, stored["error"]) for greedy in place.run.greedy]
        return found

    def _write(self) -> Results:
        results = Results(tuple(self.records()), self._about())
        write_results(results, self.out / "results.json")
        self._write_episodes()
        known = {place.folder.name for place in self.places}
        runs = self.out / "runs"
        others = [path.name for path in runs.iterdir() if path.name not in known] if runs.is_dir() else []
        if others:
            self.said(f"left out: {len(others)} runs in {self.out / 'runs'} that are not of this suite")
        return results

    def _about(self) -> dict[str, Any]:
        suite = self.suite
        made = [place.train / "result.json" for place in self.places if place.state() == "done"]
        commits = {name for place in self.places for name in place.stored().get("commits", ())}
        if len(commits) > 1:
            self.said(
                f"mixed: the runs are of {len(commits)} states of the code: {', '.join(sorted(commits))}"
            )
        versions = [json.loads(file.read_text("utf-8"))["versions"] for file in made if file.is_file()]
        return {
            "suite": suite.name,
            "budget": dict([suite.budget]),
            "seeds": list(suite.seeds),
            "evaluation": {"points": suite.points, "tasks": suite.tasks, "greedy": list(suite.greedy)},
            "commit": ", ".join(sorted(commits)),
            "machine": f"{platform.machine()}, {cores()} cores",
            "versions": [own for i, own in enumerate(versions) if own not in versions[:i]],
        }

    def _write_episodes(self) -> None:
        """All episodes of all last evaluations, one row each."""
        names = ("environment", "task", "algorithm", "seed", "task_id", *COLUMNS)
        columns: dict[str, list[Any]] = {name: [] for name in names}
        done = [place for place in self.places if place.state() == "done"]
        here = [place for place in done if (place.train / EPISODES).is_file()]
        if len(here) < len(done):
            self.said(f"episodes of {len(done) - len(here)} runs are not here: they were done elsewhere")
        for place in here:
            for line in (place.train / EPISODES).read_text("utf-8").splitlines():
                row, run = json.loads(line), place.run
                own = (
                    run.environment,
                    run.task_of(row["greedy"] or run.greedy == (True,)),
                    run.algorithm,
                    run.seed,
                )
                values = (*own, *(row[name] for name in ("task_id", *COLUMNS)))
                for name, value in zip(names, values, strict=True):
                    columns[name].append(value)
        from collm_agents.export import write_parquet

        try:
            write_parquet(columns, self.out / "episodes.parquet")
        except ImportError:
            self.said(NO_PARQUET)


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def commit(packages: Sequence[Path] = PACKAGES) -> str:
    """The commit that the packages are of, `+` where files of theirs differ from it; empty outside a checkout.

    A repository that does not track them, such as that of a user who installed them within it, is not theirs.
    """
    heads = [_head(package) for package in packages]
    return max(heads, key=len) if len({head.rstrip("+") for head in heads}) == 1 else ""


def _head(package: Path) -> str:
    """The commit of a package's folder, `+` where files differ; empty where git does not track it."""

    def git(*words: str) -> str:
        try:
            done = subprocess.run(["git", *words], cwd=package, capture_output=True, text=True, check=True)
        except (OSError, subprocess.CalledProcessError):
            return ""
        return done.stdout.strip()

    head = git("rev-parse", "HEAD") if git("ls-files", "__init__.py") else ""
    return head + "+" * bool(head and git("status", "--porcelain", "--untracked-files=no", "."))
