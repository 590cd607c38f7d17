"""What a run tells while it goes: `metrics.jsonl`, `samples.jsonl`, boards and a live terminal view.

For the trainer. `metrics.jsonl` is the record that curves and reports are made from: one JSON object per
update or evaluation with `kind`, `joint_samples`, `wall_s` and flat numbers. A metric that does not apply is
absent; one that is not finite is an error, since a NaN in a log is a broken run that nobody has noticed yet.
When a run ends the same numbers are written as `metrics.csv`. Boards (TensorBoard, wandb, trackio) get a copy of
every number and are never read; their libraries are imported here only, when they are used.
"""

from __future__ import annotations

import contextlib
import csv
import importlib.util
import json
import math
import sys
import time
import tomllib
import uuid
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol

from collm_agents.whole_file import naming, whole, write_whole
from collm_envs.errors import CollmError, InputError, SettingError

if TYPE_CHECKING:
    from collm_agents.config import Config, TrackConfig

METRICS, SAMPLES, TENSORBOARD = "metrics.jsonl", "samples.jsonl", "tensorboard"
TABLE, BOARDS = "metrics.csv", "boards.json"
RESERVED = ("kind", "joint_samples", "wall_s")
EXTRAS = {"tensorboard": "train", "wandb": "wandb", "trackio": "trackio"}  # by board, what brings its library


class MetricError(CollmError, ValueError):
    """A metric that cannot be recorded: not a finite number, or under a reserved name."""


class BrokenRecordError(MetricError, InputError):
    """A line of a run's record that cannot be read."""


class Tracker:
    """Records a run.

    Args:
        run_dir: folder of the run; it exists.
        config: the run's settings; `track` is read here.
        budget: joint samples of the whole run, for the progress bar; 0 where nobody knows.
    """

    def __init__(self, run_dir: str | Path, config: Config, budget: int) -> None:
        self.run_dir, self._config, self._track = Path(run_dir), config, config.track
        self._purge_step: int | None = None
        self._boards: list[_Board] | None = None
        self._started, self._earlier_s = time.monotonic(), 0.0
        self._title = f"{config.env_id} · {config.algorithm_name} · seed {config.run.seed}"
        self._view = None
        if config.track.live and sys.stdout.isatty():
            from collm_agents.live import LiveView

            self._view = LiveView(self._title, budget)

    def __enter__(self) -> Tracker:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close(failed=kind is not None)

    def open(self) -> None:
        """Open the boards, so that what is wrong with them shows before there is anything to record.

        Raises:
            SettingError: when a library is missing, or a service does not let us in.
        """
        if self._boards is None:
            check_boards(self._track)
            self._boards = []
            if self._track.tensorboard:
                self._boards.append(_TensorBoard(self.run_dir / TENSORBOARD, self._purge_step))
            if self._track.wandb:
                self._boards.append(_Wandb(self.run_dir, self._config))
            if self._track.trackio:
                self._boards.append(_Trackio(self.run_dir, self._config))

    def rewind(self, joint_samples: int) -> None:
        """Forget what was recorded beyond a checkpoint, before a resumed run goes on from it.

        A last line that was cut off when the run was killed is dropped too.

        Args:
            joint_samples: joint samples at the checkpoint.
        """
        for name in (METRICS, SAMPLES):
            path = self.run_dir / name
            if not path.is_file():
                continue
            try:
                kept = [row for row in read_rows(path) if row["joint_samples"] <= joint_samples]
                if name == METRICS and kept:
                    self._earlier_s, self._started = float(kept[-1]["wall_s"]), time.monotonic()
            except (KeyError, TypeError, ValueError) as error:
                if isinstance(error, BrokenRecordError):
                    raise
                raise BrokenRecordError(f"{path}: a line has no usable {error}; take the line out") from None
            write_whole(path, "".join(_line(row) for row in kept))
        self._purge_step = joint_samples + 1  # TensorBoard hides what the killed run wrote from here on
        if self._view:
            self._view.show_progress(joint_samples)

    def update(self, metrics: Mapping[str, float], joint_samples: int) -> None:
        """Record one update of the learner.

        Args:
            metrics: flat numbers. `reward`, `score`, `success`, `tokens_per_s` and the seconds of each phase
                (`decode_s`, `env_s`, ...) are shown live.
            joint_samples: joint samples drawn so far.

        Raises:
            MetricError: for a value that is not finite.
        """
        self._record("update", metrics, joint_samples)
        if self._view:
            self._view.show_update(metrics, joint_samples)

    def evaluation(self, report: Mapping[str, Any], joint_samples: int) -> None:
        """Record one evaluation.

        Args:
            report: `metrics` (name -> `mean`, `low`, `high`, `n`) and `samples` (conversations), as
                `evaluate` makes it. Means keep their name; the rest is `<name>/low` and so on.
            joint_samples: joint samples drawn so far.

        Raises:
            MetricError: for a value that is not finite.
        """
        flat: dict[str, float] = {}
        for name, stats in report["metrics"].items():
            flat[name] = stats["mean"]
            flat |= {
                f"{name}/{key}": stats[key] for key in ("low", "high", "n") if stats.get(key) is not None
            }
        self._record("eval", flat, joint_samples)
        samples: Sequence[Mapping[str, Any]] = report.get("samples", ())
        self._append(
            SAMPLES, [{"joint_samples": joint_samples, **row} for row in samples[: self._track.samples]]
        )
        if self._view:
            self._view.show_evaluation(flat, joint_samples)
        else:
            line = "  ".join(f"{name} {flat[name]:.3f}" for name in ("score", "success") if name in flat)
            sys.stderr.write(f"{joint_samples} joint samples  {line}\n")
            sys.stderr.flush()

    def close(self, failed: bool = False) -> None:
        """Finish files and boards and give the terminal back; safe to call twice.

        Args:
            failed: whether the run ends with an error; boards that tell so are told.
        """
        if self._view:
            self._view.close()
            self._view = None
        boards, self._boards = self._boards, None
        for board in boards or ():
            board.close(failed)
        if boards is not None and (self.run_dir / METRICS).is_file():
            write_table(self.run_dir / METRICS, self.run_dir / TABLE)

    def _record(self, kind: str, metrics: Mapping[str, float], joint_samples: int) -> None:
        numbers = {name: _number(name, value) for name, value in metrics.items()}
        wall_s = round(self._earlier_s + time.monotonic() - self._started, 3)
        row = {"kind": kind, "joint_samples": int(joint_samples), "wall_s": wall_s, **numbers}
        self._append(METRICS, [row])
        self.open()
        for board in self._boards or ():
            board.log(kind, numbers, int(joint_samples), wall_s)

    def _append(self, name: str, rows: Sequence[Mapping[str, Any]]) -> None:
        if rows:
            path = self.run_dir / name
            with naming(path), path.open("a", encoding="utf-8") as file:
                file.writelines(_line(row) for row in rows)


# -- boards ------------------------------------------------------------------------------------------------


class _Board(Protocol):
    """Where every number of a run is shown as well."""

    def log(self, kind: str, numbers: Mapping[str, float], joint_samples: int, wall_s: float) -> None:
        """Take the numbers of one update or evaluation."""

    def close(self, failed: bool) -> None:
        """Finish; nothing follows."""


def check_boards(track: TrackConfig) -> None:
    """Look whether the libraries of all boards are there; nothing is imported.

    Raises:
        SettingError: names the extra that brings a missing one.
    """
    wanted = {"tensorboard": track.tensorboard, "wandb": track.wandb, "trackio": track.trackio}
    for name, extra in EXTRAS.items():
        if wanted[name] and importlib.util.find_spec(name) is None:
            raise SettingError(f"track.{name}=true needs the package {name}: pip install 'collm[{extra}]'")


def _identity(run_dir: Path) -> dict[str, str]:
    """A run's `id` and `name` on boards outside its folder: made once, then kept in it for all its parts."""
    file = run_dir / BOARDS
    if not file.is_file():
        id = uuid.uuid4().hex[:12]
        write_whole(file, json.dumps({"id": id, "name": f"{run_dir.resolve().name}-{id[:6]}"}) + "\n")
    return json.loads(file.read_text("utf-8"))


def _settings(config: Config) -> dict[str, Any]:
    from collm_agents.overrides import dump_config

    return tomllib.loads(dump_config(config))


class _TensorBoard:
    """A folder of event files."""

    def __init__(self, folder: Path, purge_step: int | None) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._writer: Any = SummaryWriter(str(folder), purge_step=purge_step)

    def log(self, kind: str, numbers: Mapping[str, float], joint_samples: int, wall_s: float) -> None:
        for name, value in numbers.items():
            self._writer.add_scalar(f"{kind}/{name}", value, joint_samples)
        self._writer.flush()

    def close(self, failed: bool) -> None:
        self._writer.close()


class _Wandb:
    """A run of Weights & Biases, which later parts of ours go on with; no code, console or host is sent."""

    def __init__(self, run_dir: Path, config: Config) -> None:
        import wandb

        own = _identity(run_dir)
        try:
            self._run: Any = wandb.init(
                project=config.track.project,
                id=own["id"],
                name=own["name"],
                resume="allow",
                reinit="create_new",
                dir=str(run_dir),
                config=_settings(config),
                settings=wandb.Settings(
                    console="off",
                    disable_code=True,
                    disable_git=True,
                    x_disable_meta=True,
                    x_disable_stats=True,
                ),
            )
        except wandb.errors.Error as error:
            raise SettingError(f"track.wandb=true: {error} (WANDB_MODE=offline needs no account)") from error
        self._run.define_metric("joint_samples")
        self._run.define_metric("*", step_metric="joint_samples")

    def log(self, kind: str, numbers: Mapping[str, float], joint_samples: int, wall_s: float) -> None:
        own = {f"{kind}/{name}": value for name, value in numbers.items()}
        self._run.log({"joint_samples": joint_samples, "wall_s": wall_s, **own})

    def close(self, failed: bool) -> None:
        self._run.finish(exit_code=int(failed))


class _Trackio:
    """A run of trackio, in its folder on this machine unless its own variables say otherwise."""

    def __init__(self, run_dir: Path, config: Config) -> None:
        import trackio

        self._trackio: Any = trackio
        with contextlib.redirect_stdout(sys.stderr):  # stdout is the command's own
            trackio.init(
                project=config.track.project,
                name=_identity(run_dir)["name"],
                resume="allow",
                config=_settings(config),
                embed=False,
                auto_log_gpu=False,
                auto_log_cpu=False,
            )

    def log(self, kind: str, numbers: Mapping[str, float], joint_samples: int, wall_s: float) -> None:
        own = {f"{kind}/{name}": value for name, value in numbers.items()}
        self._trackio.log({"wall_s": wall_s, **own}, step=joint_samples)

    def close(self, failed: bool) -> None:
        with contextlib.redirect_stdout(sys.stderr):
            self._trackio.finish()


# -- files -------------------------------------------------------------------------------------------------


def write_table(metrics: Path, file: Path) -> None:
    """Write a `metrics.jsonl` as CSV: a line per row, a column per name, empty where a row has no such metric.

    Args:
        metrics: the file that is read, twice; it may still grow.
        file: to write; it is whole or not there.

    Raises:
        MetricError: as `read_rows`.
    """
    columns = dict.fromkeys(RESERVED)
    count = 0
    for row, _ in stream_rows(metrics):
        columns |= dict.fromkeys(row)
        count += 1
    with whole(file) as part, part.open("w", encoding="utf-8", newline="") as out:
        writer = csv.DictWriter(out, list(columns), lineterminator="\n")
        writer.writeheader()
        writer.writerows(row for (row, _), _ in zip(stream_rows(metrics), range(count), strict=False))


def read_rows(path: str | Path, kind: str | None = None) -> list[dict[str, Any]]:
    """Rows of a `metrics.jsonl` or `samples.jsonl`; a last line cut off by a kill is left out.

    Args:
        path: the file.
        kind: only rows of this kind, `update` or `eval`.

    Raises:
        BrokenRecordError: for a broken line that is not the last one.
    """
    return [row for row, _ in stream_rows(path) if kind is None or row.get("kind") == kind]


def stream_rows(path: str | Path) -> Iterator[tuple[dict[str, Any], int]]:
    """The rows of `read_rows` one by one, each with the bytes of the file up to its end."""
    done = 0
    with Path(path).open("rb") as file:
        for number, line in enumerate(file, 1):
            done += len(line)
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except (ValueError, RecursionError):
                if not line.endswith(b"\n"):  # only a killed run leaves such a line, and only as the last
                    return
                raise BrokenRecordError(f"{path}, line {number}: not JSON; take the line out") from None
            if not isinstance(row, dict):
                raise BrokenRecordError(f"{path}, line {number}: not an object; take the line out")
            yield row, done


def _line(row: Mapping[str, Any]) -> str:
    return json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n"


def _number(name: str, value: Any) -> float:
    if name in RESERVED:
        raise MetricError(f"{name!r} cannot be the name of a metric")
    try:
        number = float(value)
    except (TypeError, ValueError):
        raise MetricError(f"metric {name!r} is not a number: {value!r}") from None
    if not math.isfinite(number):
        raise MetricError(f"metric {name!r} is {number}; leave out what does not apply")
    return number
