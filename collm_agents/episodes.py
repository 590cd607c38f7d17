"""Episodes of a run's evaluations, taken apart into what each agent saw and said at every turn.

For the page of a run. Reads `samples.jsonl`, or `evaluations.json` where that is missing; plays and scores nothing.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from collm_agents.tracking import SAMPLES, stream_rows
from collm_envs.errors import InputError

EVALUATIONS = "evaluations.json"
_LABEL = re.compile(r"^@(\S+) turn (\d+) (sees|says):\n", re.MULTILINE)

Episode = dict[str, Any]


def kept_episodes(run_dir: Path) -> tuple[Path | None, int]:
    """The file that holds a run's conversations, and how many; None where none were kept."""
    samples = run_dir / SAMPLES
    if samples.is_file():
        with samples.open("rb") as file:
            return samples, sum(line.strip() != b"" for line in file)
    whole = run_dir / EVALUATIONS
    if whole.is_file():
        return whole, sum(1 for _ in _of_evaluations(whole))
    return None, 0


def read_episodes(path: Path) -> Iterator[Episode]:
    """Conversations in the order they were played.

    Args:
        path: as `kept_episodes` found it.

    Yields:
        `joint_samples`, `task_id`, `score`, `success`, `text` and `turns`; a turn holds `reward`, `score`, `parts`
        and `measured`, None or empty where the run kept none, and by agent in `agents` what it `sees` and `says`,
        its `tokens`, and whether its reply was `cut` or its observation `clipped`.

    Raises:
        InputError: for a row that is no conversation.
    """
    rows = _of_evaluations(path) if path.name == EVALUATIONS else (row for row, _ in stream_rows(path))
    for number, row in enumerate(rows, 1):
        try:
            yield _episode(row)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise InputError(f"{path}, conversation {number}: {_told(error)}; take the line out") from None


def _of_evaluations(path: Path) -> Iterator[dict[str, Any]]:
    try:
        kept = json.loads(path.read_text(encoding="utf-8"))
        rows = [{"joint_samples": one["joint_samples"], **row} for one in kept for row in one["samples"]]
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"{path}: {_told(error)}") from None
    yield from rows


def _told(error: Exception) -> str:
    return f"{error} is missing" if isinstance(error, KeyError) else f"{type(error).__name__} {error}"


def _episode(row: Mapping[str, Any]) -> Episode:
    told = row.get("turns") or []
    turns = []
    for number, agents in enumerate(said_and_seen(row["text"])):
        own = told[number] if number < len(told) else {}
        replies = own.get("replies", {})
        turns.append(
            {
                "reward": own.get("reward"),
                "score": own.get("score"),
                "parts": dict(own.get("parts", {})),
                "measured": dict(own.get("measured", {})),
                "agents": {name: {**texts, **replies.get(name, {})} for name, texts in agents.items()},
            }
        )
    return {
        "joint_samples": int(row["joint_samples"]),
        "task_id": str(row["task_id"]),
        "score": float(row["score"]),
        "success": bool(row["success"]),
        "text": row["text"],
        "turns": turns,
    }


def said_and_seen(history: str) -> list[dict[str, dict[str, str]]]:
    """A joint history by turn and agent: `sees` and `says`.

    No text can forge an entry (`collm_envs.history`), so this is exact but for a line that begins with "@":
    there it has a space before it.
    """
    turns: dict[int, dict[str, dict[str, str]]] = {}
    labels = list(_LABEL.finditer(history))
    ends = [label.start() for label in labels[1:]] + [len(history)]
    for label, end in zip(labels, ends, strict=False):
        agent, turn, kind = label.groups()
        text = history[label.end() : end].removesuffix("\n")
        turns.setdefault(int(turn), {}).setdefault(agent, {})[kind] = text
    return [turns[turn] for turn in sorted(turns)]
