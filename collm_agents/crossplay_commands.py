"""The verb `crossplay`: teams whose agents come from different runs.

For `cli`, which dispatches to it. It reads the words, says how far the work has come, prints tables and writes
the JSON file; `crossplay` does the work and is imported, with torch, only when there is some.
"""

from __future__ import annotations

import argparse
import json
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path

from collm_agents import terminal
from collm_agents.config import EvalConfig
from collm_agents.explain import explain
from collm_agents.overrides import EVAL_KEYS, checkpoint_word, eval_item
from collm_agents.whole_file import write_whole
from collm_envs.errors import InputError, SettingError, suggest

QUIET_S = 2.0  # nothing is said of what takes less
# Beside the words of [eval]: what settles a difference between runs, and where they play.
SETTLED = ("env.", "team.sampling.")
SETTLED_KEYS = (
    "team.template",
    "team.enable_thinking",
    "team.rewriting_template",
    "team.prompt_overflow",
    "team.max_context",
    "team.kv_budget",
    "run.device",
    "run.threads",
)


class Progress:
    """Says on stderr what is being done, where that or what came before it took a while.

    Args:
        quiet_s: least seconds between two lines; a step that is over sooner may be passed over.
    """

    def __init__(self, quiet_s: float = QUIET_S) -> None:
        self._quiet_s = quiet_s
        self._start = self._last = time.monotonic()
        self._later: threading.Timer | None = None

    def __call__(self, text: str) -> None:
        """Say it now, or as soon as the last line is old enough, if it is then still being done."""
        self.stop()
        wait = self._last + self._quiet_s - time.monotonic()
        if wait <= 0:
            self._say(text)
        else:
            self._later = threading.Timer(wait, self._say, (text,))
            self._later.daemon = True
            self._later.start()

    def stop(self) -> None:
        """What was being done is over."""
        if self._later is not None:
            self._later.cancel()

    def _say(self, text: str) -> None:
        self._last = time.monotonic()
        print(f"{self._last - self._start:.0f} s  {text}", file=sys.stderr, flush=True)


def build_crossplay(parser: argparse.ArgumentParser) -> None:
    """Arguments of `crossplay`."""
    parser.add_argument(
        "words",
        nargs="+",
        metavar="RUN|key=value",
        help="folders of two or more runs, and settings of [eval] for all of them, such as tasks=64 greedy=true; "
        "env.*, team.sampling.* and team.template settle what runs differ in",
    )
    parser.add_argument(
        "--checkpoint",
        type=checkpoint_word,
        metavar="N|best",
        help="joint samples of the checkpoints, or each run's best (default each run's last)",
    )
    parser.add_argument("--out", metavar="FILE.json", help="write all metrics of all teams")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.epilog = f"{parser.epilog}\n\nsettings:\n" + terminal.settings(
        row for row in explain(EvalConfig) if row.key in EVAL_KEYS
    )


def run_crossplay(args: argparse.Namespace) -> int:
    """Play the teams, print tables or JSON, write the file."""
    folders, items = read_words(args.words)
    out = Path(args.out).expanduser() if args.out else None
    if out is not None and (out.is_dir() or not out.parent.is_dir()):
        raise InputError(
            f"--out {args.out}: {'is a folder; name a file' if out.is_dir() else 'its folder does not exist'}"
        )
    progress = Progress()

    from collm_agents.crossplay import crossplay  # imports torch

    try:
        found = crossplay(folders, overrides=items, checkpoint_at=args.checkpoint, tell=progress)
    finally:
        progress.stop()
    text = json.dumps(found, indent=1, ensure_ascii=False)
    if out is not None:
        write_whole(out, text + "\n")
    print(text if args.json else terminal.crossplay(found))
    return 0


def read_words(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """Folders of runs, and settings that hold for all.

    Raises:
        InputError: for a folder that is no run, or a setting that is not of an evaluation.
    """
    folders, items = [], []
    for word in words:
        key, sign, _ = word.partition("=")
        if not sign or Path(word).is_dir():
            if not (Path(word) / "config.toml").is_file():
                raise InputError(f"no run in {word}: there is no {Path(word) / 'config.toml'}")
            folders.append(word)
        elif item := eval_item(word):
            items.append(item)
        elif key in SETTLED_KEYS or key.startswith(SETTLED):
            items.append(word)
        else:
            name = key.removeprefix("eval.")
            near = suggest(name, [*EVAL_KEYS, *SETTLED_KEYS]) or "; `collm crossplay --help` lists what does"
            raise SettingError(f"command line: {word!r} sets nothing that runs are evaluated with{near}")
    return folders, items
