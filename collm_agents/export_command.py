"""The verb `export`: a run's episodes, agents or numbers, for other tools.

For `cli`, which dispatches to it. It reads the words, calls the library and says what was written; only exporting
agents imports torch.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from collm_agents.overrides import checkpoint_word
from collm_envs.errors import InputError

WHAT = ("episodes", "agents", "metrics")


def build_export(parser: argparse.ArgumentParser) -> None:
    """Arguments of `export`."""
    parser.add_argument(
        "what",
        choices=WHAT,
        help="episodes: a data set with a row per turn and agent, and pairs of sibling replies; agents: each as a "
        "folder that transformers or peft loads; metrics: metrics.jsonl as CSV",
    )
    parser.add_argument("run", metavar="RUN", help="folder of a run; it may still be going on")
    parser.add_argument(
        "--out", required=True, metavar="PATH", help="folder that is made; of metrics the CSV file"
    )
    parser.add_argument("--format", choices=("parquet", "jsonl"), help="of episodes (default parquet)")
    parser.add_argument(
        "--across",
        action="store_true",
        help="of episodes: pair replies of different evaluations to one prompt too",
    )
    parser.add_argument(
        "--checkpoint",
        type=checkpoint_word,
        metavar="N|best",
        help="of agents: joint samples of a checkpoint, or the best (default the last)",
    )
    parser.add_argument(
        "--merge",
        action="store_true",
        help="of agents: adapters added into whole models, which any server takes",
    )


def run_export(args: argparse.Namespace) -> int:
    """Write what was asked for, and say where it is."""
    allowed: dict[str, Sequence[str]] = {
        "episodes": ("format", "across"),
        "agents": ("checkpoint", "merge"),
        "metrics": (),
    }
    _refuse(args, allowed)
    run_dir, out = Path(args.run), Path(args.out).expanduser()
    if not (run_dir / "config.toml").is_file():
        raise InputError(f"{run_dir} is not a run: it has no config.toml")
    if args.what == "episodes":
        from collm_agents.export import export_episodes

        done = export_episodes(run_dir, out, form=args.format or "parquet", across=args.across)
        print(f"{done.folder}: {done.rows} rows, {done.note or f'{done.pairs} pairs'}")
    elif args.what == "metrics":
        from collm_agents.tracking import METRICS, write_table

        if not (run_dir / METRICS).is_file():
            raise InputError(f"{run_dir} has recorded nothing yet: there is no {METRICS}")
        if out.is_dir() or not out.absolute().parent.is_dir():
            raise InputError(f"--out {out}: {'a folder' if out.is_dir() else 'its folder does not exist'}")
        write_table(run_dir / METRICS, out)
        print(out)
    else:
        from collm_agents.export_agents import export_agents  # imports torch

        for folder in export_agents(run_dir, out, checkpoint_at=args.checkpoint, merge=args.merge):
            print(folder)
    return 0


def _refuse(args: argparse.Namespace, allowed: dict[str, Sequence[str]]) -> None:
    for what, names in allowed.items():
        for name in names:
            if what != args.what and getattr(args, name) not in (None, False):
                raise InputError(f"--{name} is for {what}, not for {args.what}")
