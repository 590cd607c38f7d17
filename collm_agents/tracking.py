"""What a run tells while it goes: `metrics.jsonl`, `samples.jsonl`, TensorBoard and a live terminal view.

For the trainer. `metrics.jsonl` is the record that curves and reports are made from: one JSON object per
update or evaluation with `kind`, `joint_samples`, `wall_s` and flat numbers. A metric that does not apply is
absent; one that is not finite is an error, since a NaN in a log is a broken run that nobody has noticed yet.
TensorBoard and `rich` are imported here only, when they are used.
"""

from __future__ import annotations

import json
import math
import os
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from collm_agents.clock import PHASES
from collm_envs.errors import CollmError

if TYPE_CHECKING:
    from collm_agents.config import Config

METRICS, SAMPLES, TENSORBOARD = "metrics.jsonl", "samples.jsonl", "tensorboard"
RESERVED = ("kind", "joint_samples", "wall_s")


class MetricError(CollmError, ValueError):
    """A metric that cannot be recorded: not a finite number, or under a reserved name."""


class Tracker:
    """Records a run.

    Args:
        run_dir: folder of the run; it exists.
        config: the run's settings; `track` is read here.
        budget: joint samples of the whole run, for the progress bar; 0 where nobody knows.
    """

    def __init__(self, run_dir: str | Path, config: Config, budget: int) -> None:
        self.run_dir, self._track = Path(run_dir), config.track
        self._purge_step: int | None = None
        self._board: Any = None
        self._started, self._earlier_s = time.monotonic(), 0.0
        self._title = f"{config.env_id} · {config.algorithm_name} · seed {config.run.seed}"
        live = config.track.live and sys.stdout.isatty()
        self._view = _LiveView(self._title, budget) if live else None

    def __enter__(self) -> Tracker:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

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
            kept = [row for row in read_rows(path) if row["joint_samples"] <= joint_samples]
            if name == METRICS and kept:
                self._earlier_s, self._started = float(kept[-1]["wall_s"]), time.monotonic()
            part = path.with_suffix(".part")
            part.write_text("".join(_line(row) for row in kept), encoding="utf-8")
            os.replace(part, path)
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

    def close(self) -> None:
        """Finish the files and give the terminal back; safe to call twice."""
        if self._board is not None:
            self._board.close()
            self._board = None
        if self._view:
            self._view.close()
            self._view = None

    def _record(self, kind: str, metrics: Mapping[str, float], joint_samples: int) -> None:
        numbers = {name: _number(name, value) for name, value in metrics.items()}
        wall_s = round(self._earlier_s + time.monotonic() - self._started, 3)
        row = {"kind": kind, "joint_samples": int(joint_samples), "wall_s": wall_s, **numbers}
        self._append(METRICS, [row])
        if self._track.tensorboard:
            board = self._open_board()
            for name, value in numbers.items():
                board.add_scalar(f"{kind}/{name}", value, joint_samples)
            board.flush()

    def _append(self, name: str, rows: Sequence[Mapping[str, Any]]) -> None:
        if rows:
            with (self.run_dir / name).open("a", encoding="utf-8") as file:
                file.writelines(_line(row) for row in rows)

    def _open_board(self) -> Any:
        if self._board is None:
            from torch.utils.tensorboard import SummaryWriter

            self._board = SummaryWriter(str(self.run_dir / TENSORBOARD), purge_step=self._purge_step)
        return self._board


def read_rows(path: str | Path, kind: str | None = None) -> list[dict[str, Any]]:
    """Rows of a `metrics.jsonl` or `samples.jsonl`; a last line cut off by a kill is left out.

    Args:
        path: the file.
        kind: only rows of this kind, `update` or `eval`.

    Raises:
        MetricError: for a broken line that is not the last one.
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
                raise MetricError(f"{path}, line {number}: not JSON") from None
            if not isinstance(row, dict):
                raise MetricError(f"{path}, line {number}: not an object")
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


class _LiveView:
    """Progress bar over the budget, the latest numbers below it."""

    SHOWN = ("reward", "score", "success", "tokens_per_s")

    def __init__(self, title: str, budget: int) -> None:
        from rich.live import Live
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        self._progress = Progress(
            TextColumn(title, markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("joint samples"),
            TimeRemainingColumn(),
        )
        self._bar = self._progress.add_task("", total=budget or None)
        self._lines: dict[str, str] = {}
        self._live = Live(self._draw(), refresh_per_second=4)
        self._live.start()

    def show_progress(self, joint_samples: int) -> None:
        self._progress.update(self._bar, completed=joint_samples)
        self._live.update(self._draw())

    def show_update(self, metrics: Mapping[str, float], joint_samples: int) -> None:
        shown = [
            f"{name.replace('_per_s', '/s')} {metrics[name]:.3g}" for name in self.SHOWN if name in metrics
        ]
        phases = {name.removesuffix("_s"): seconds for name, seconds in metrics.items() if _is_phase(name)}
        total = sum(phases.values()) or 1.0
        self._lines["update"] = "   ".join(shown)
        self._lines["time"] = "   ".join(
            f"{phase} {s:.2f} s ({s / total:.0%})" for phase, s in phases.items()
        )
        self.show_progress(joint_samples)

    def show_evaluation(self, flat: Mapping[str, float], joint_samples: int) -> None:
        parts = [f"{name} {flat[name]:.3f}" for name in ("score", "success") if name in flat]
        parts += [f"{name.removeprefix('parts/')} {flat[name]:.3f}" for name in flat if _is_part(name)]
        self._lines[f"eval at {joint_samples}"] = "   ".join(parts)
        evaluations = [key for key in self._lines if key.startswith("eval")]
        for key in evaluations[:-1]:  # the newest only
            del self._lines[key]
        self.show_progress(joint_samples)

    def close(self) -> None:
        self._live.stop()

    def _draw(self) -> Any:
        from rich.console import Group
        from rich.table import Table

        table = Table.grid(padding=(0, 2))
        for label, text in self._lines.items():
            if text:
                table.add_row(label, text)
        return Group(self._progress, table)


def _is_phase(name: str) -> bool:
    return name.removesuffix("_s") in PHASES and name.endswith("_s")


def _is_part(name: str) -> bool:
    return name.startswith("parts/") and not name.endswith(("/low", "/high", "/n"))
