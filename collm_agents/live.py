"""The live view of a training run in a terminal: a bar over the budget, and the latest numbers below it.

For `tracking`, where the output is a terminal. `rich` is imported here, when it is used. Nothing is recorded here.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from collm_agents.clock import PHASES


class LiveView:
    """Progress bar over the budget, the latest numbers below it.

    Args:
        title: what is run.
        budget: joint samples of the whole run; 0 where nobody knows.
    """

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
        """Move the bar."""
        self._progress.update(self._bar, completed=joint_samples)
        self._live.update(self._draw())

    def show_update(self, metrics: Mapping[str, float], joint_samples: int) -> None:
        """Show an update's numbers and where its time went."""
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
        """Show an evaluation in place of the last one."""
        parts = [f"{name} {flat[name]:.3f}" for name in ("score", "success") if name in flat]
        parts += [f"{name.removeprefix('parts/')} {flat[name]:.3f}" for name in flat if _is_part(name)]
        self._lines[f"eval at {joint_samples}"] = "   ".join(parts)
        evaluations = [key for key in self._lines if key.startswith("eval")]
        for key in evaluations[:-1]:  # the newest only
            del self._lines[key]
        self.show_progress(joint_samples)

    def close(self) -> None:
        """Give the terminal back."""
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
