"""The page of one run: its curves, where its time went, and its episodes to look through.

For the verb `view`. Turns a run's folder into the data of `view_page.js`, which selects and draws. Episodes stand
in blocks at the end, which the page reads when they are looked at: it is drawn before a browser has come to them.
Neither the page nor this module holds all of them at once. Works without torch.
"""

from __future__ import annotations

import json
import math
import tempfile
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any

from collm_agents.clock import PHASES
from collm_agents.episodes import Episode, kept_episodes, read_episodes
from collm_agents.pages import as_script_data, fill, rounded
from collm_agents.pictures import Pictures
from collm_agents.thinning import Thinned, thinned
from collm_agents.tracking import METRICS, MetricError
from collm_agents.waiting import Waiting
from collm_agents.whole_file import whole
from collm_envs.errors import InputError

BLOCK_EPISODES, BLOCK_CHARS = 64, 200_000  # a block is closed when either is reached
SPOOL_CHARS = 64_000_000  # blocks beyond that wait on the disk
PICTURES = 200  # episodes that are drawn, the newest


def write_page(run_dir: Path, file: Path, pictures: int = PICTURES) -> None:
    """Write the page of a run.

    Args:
        run_dir: the run's folder.
        file: where the page goes; it is there whole or not at all.
        pictures: most episodes to draw, the newest of the run.

    Raises:
        InputError: when the folder is no run, or one of its files is broken.
    """
    try:
        with whole(file) as part, part.open("w", encoding="utf-8", newline="\n") as out:
            out.writelines(view_page(run_dir, pictures))
    except OSError as error:
        raise InputError(f"cannot write {file}: {error.strerror or error}") from None


def view_page(run_dir: Path, pictures: int = PICTURES) -> Iterator[str]:
    """The HTML of a run's page, piece by piece; arguments and errors as of `write_page`."""
    config = _toml(run_dir / "config.toml")
    with tempfile.SpooledTemporaryFile(SPOOL_CHARS, "w+", encoding="utf-8", newline="\n") as blocks:
        own = {"DATA": _data(run_dir, config, pictures, blocks), "EPISODES": _again(blocks)}
        yield from fill("view_page.html", ("view_page.css",), ("view_page.js",), own)


def _toml(file: Path) -> dict[str, Any]:
    if not file.is_file():
        raise InputError(f"{file.parent} is not a run: it has no config.toml")
    try:
        return tomllib.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(f"{file}: {error}") from None


def _again(file: IO[str]) -> Iterator[str]:
    """What was written into a file, line by line."""
    file.seek(0)
    yield from file


def _data(run_dir: Path, config: Mapping[str, Any], pictures: int, blocks: IO[str]) -> Iterator[str]:
    """The data of the page but for the episodes, whose blocks go into a file: their list is known after them."""
    try:
        metrics = thinned(run_dir / METRICS)
        result = _result(run_dir / "result.json")
        index = _Index()
        drawer = Pictures(run_dir)
        blocks.writelines(_blocks(run_dir, index, drawer, pictures))
    except MetricError as error:
        raise InputError(str(error)) from None
    yield _script(
        "data",
        {
            **_head(run_dir, config, result, metrics),
            "high": _known(result.get("high")),
            "references": _references(result),
            "kinds": {kind: _lines(found) for kind, found in metrics.items()},
            "phases": list(PHASES),
            "phases_s": {
                name: _known(seconds) for name, seconds in (result.get("phases_s") or {}).items() if seconds
            },
            "about": [
                *_flat(config),
                *_flat({k: result[k] for k in ("versions", "peak_memory") if result.get(k)}),
            ],
            "notes": _notes(metrics, index, drawer),
            "episodes": index.data(),
        },
    )


def _result(file: Path) -> dict[str, Any]:
    """What `result.json` holds; nothing while a run goes on."""
    if not file.is_file():
        return {}
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(f"{file}: {error}") from None
    if not isinstance(found, dict):
        raise InputError(f"{file}: not an object")
    return found


# -- episodes ----------------------------------------------------------------------------------------------


class _Index:
    """What the list of episodes shows, as columns, and where each block begins."""

    def __init__(self) -> None:
        self.at: list[int] = []
        self.task: list[str] = []
        self.score: list[float | None] = []
        self.success: list[int] = []
        self.turns: list[int] = []
        self.cut: list[int] = []
        self.starts: list[int] = []
        self.undrawn = 0

    def add(self, episode: Episode) -> None:
        """Take an episode in."""
        self.at.append(episode["joint_samples"])
        self.task.append(episode["task_id"])
        self.score.append(_known(episode["score"]))
        self.success.append(int(episode["success"]))
        self.turns.append(len(episode["turns"]))
        self.cut.append(
            int(any(own.get("cut") for turn in episode["turns"] for own in turn["agents"].values()))
        )

    def data(self) -> dict[str, Any]:
        """The columns as plain data."""
        return {
            name: getattr(self, name) for name in ("at", "task", "score", "success", "turns", "cut", "starts")
        }


def _blocks(run_dir: Path, index: _Index, drawer: Pictures, pictures: int) -> Iterator[str]:
    path, count = kept_episodes(run_dir)
    if path is None:
        return
    first_drawn = count - pictures if drawer.possible else count
    held: list[str] = []
    with Waiting("reading episodes") as waiting:
        for number, episode in enumerate(read_episodes(path)):
            waiting.at(number / count)
            if not held:
                index.starts.append(number)
            index.add(episode)
            if number >= first_drawn:
                for turn, picture in zip(episode["turns"], drawer.of(episode), strict=False):
                    turn["picture"] = picture
            elif drawer.possible:
                index.undrawn += 1
            held.append(as_script_data([_turn(turn) for turn in episode["turns"]]))
            if len(held) >= BLOCK_EPISODES or sum(map(len, held)) >= BLOCK_CHARS:
                yield _block(len(index.starts) - 1, held)
                held = []
    if held:
        yield _block(len(index.starts) - 1, held)


def _turn(turn: Mapping[str, Any]) -> dict[str, Any]:
    return {
        **turn,
        "reward": _known(turn["reward"]),
        "score": _known(turn["score"]),
        **{kind: {name: _known(v) for name, v in turn[kind].items()} for kind in ("parts", "measured")},
    }


def _block(number: int, held: list[str]) -> str:
    return f'<script type="application/json" id="block{number}">[{",".join(held)}]</script>\n'


def _script(name: str, data: Any) -> str:
    return f'<script type="application/json" id="{name}">{as_script_data(data)}</script>\n'


# -- metrics and words -------------------------------------------------------------------------------------


def _lines(found: Thinned) -> dict[str, Any]:
    return {
        "rows": found.rows,
        "together": found.together,
        "x": {axis: _row(values) for axis, values in found.x.items()},
        "lines": {
            name: {
                "y": _row(line.y),
                **({"low": _row(line.low), "high": _row(line.high)} if _any(line.low) else {}),
            }
            for name, line in found.lines.items()
        },
    }


def _row(values: list[float]) -> list[float | None]:
    return [rounded(value) for value in values]


def _any(values: list[float]) -> bool:
    return any(not math.isnan(value) for value in values)


def _known(value: Any) -> float | None:
    """A number, rounded; None for anything else."""
    return rounded(float(value)) if isinstance(value, (int, float)) else None


def _references(result: Mapping[str, Any]) -> dict[str, dict[str, float | None]]:
    """Scripted agent -> metric -> mean."""
    found: Mapping[str, Any] = result.get("references") or {}
    return {
        kind: {name: _known(stats.get("mean")) for name, stats in report["metrics"].items()}
        for kind, report in found.items()
        if report and kind != "random"
    }


def _head(
    run_dir: Path, config: Mapping[str, Any], result: Mapping[str, Any], metrics: Mapping[str, Thinned]
) -> dict[str, str]:
    name = run_dir.resolve().name
    env = config.get("env", {}).get("id", "unknown environment")
    algorithm = result.get("variant") or config.get("algorithm", {}).get("name", "unknown algorithm")
    told = [f"{env}, {algorithm}, seed {config.get('run', {}).get('seed', 0)}."]
    places = [found.x["joint_samples"][-1] for found in metrics.values() if found.rows]
    if result:
        told.append(
            f"{result.get('joint_samples', 0)} joint samples, {result.get('updates', 0)} updates, "
            f"{result.get('tokens', 0)} tokens, {float(result.get('wall_s') or 0):.0f} s."
        )
    elif places:
        told.append(f"{max(places):.0f} joint samples so far; the run has not come to its end.")
    else:
        told.append("Nothing was recorded yet.")
    return {"title": f"Run {name}", "told": " ".join(told)}


def _flat(settings: Mapping[str, Any], prefix: str = "") -> Iterator[list[str]]:
    """Nested settings as rows of a dotted name and its value."""
    for name, value in settings.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield [f"{prefix}{name}", str(value)]


def _notes(metrics: Mapping[str, Thinned], index: _Index, drawer: Pictures) -> list[str]:
    """What a reader must know of what is not shown as it was."""
    found = [
        f"Of {thin.rows} rows of kind {kind}, {thin.together} neighbours make a point: their mean, with the least "
        "and the greatest as a band."
        for kind, thin in metrics.items()
        if thin.together > 1
    ]
    if drawer.trouble:
        found.append(f"No pictures: the environment cannot be made here ({drawer.trouble}).")
    if index.undrawn:
        found.append(
            f"The newest {drawer.drawn + drawer.lost} episodes have pictures; --pictures N draws more."
        )
    if drawer.lost:
        found.append(
            f"{drawer.lost} episodes have no picture: playing their replies again gave another history."
        )
    return found
