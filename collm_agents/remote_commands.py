"""`collm eval` with agents behind servers.

For `cli`, which dispatches to it. It reads the words; `remote_eval` plays.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from collm_agents.config import Config, TeamConfig
from collm_agents.overrides import eval_item, load_config
from collm_envs.errors import InputError

_LOCAL = ("critic", "rollout", "learner", "runner")  # sections about models that are trained here


def is_remote(agents: str | None) -> bool:
    """Whether what was written for `--agents` names a server."""
    return agents is not None and "://" in agents


def eval_remote(args: argparse.Namespace) -> Mapping[str, Any]:
    """The report of the agents that `--agents` places; on an environment, or on that of a run with its settings.

    Raises:
        InputError: for words that are about models of this process.
    """
    for name in ("episodes", "gif", "protocol", "preset", "checkpoint"):
        if getattr(args, name) not in (None, []):
            raise InputError(f"--{name} does not go with agents behind servers")
    items = [eval_item(word) or word for word in args.words]
    if args.seed is not None:
        items.append(f"eval.seed={args.seed}")
    if Path(args.run).is_dir():
        from collm_agents.results import stored_config

        config = stored_config(Path(args.run), items)
    else:
        config = load_config(args.run, overrides=items)
        _refuse_models(config)

    from collm_agents.remote_eval import evaluate_remote  # imports torch

    return evaluate_remote(config, args.agents)


def _refuse_models(config: Config) -> None:
    """A setting that nobody reads here is a mistake."""
    plain = Config()
    changed = [name for name in _LOCAL if getattr(config, name) != getattr(plain, name)]
    if replace(config.team, sampling=TeamConfig().sampling) != TeamConfig():
        changed.insert(0, "team")
    if changed:
        raise InputError(
            f"settings of [{changed[0]}] are about models of this process, and the agents are behind servers; "
            "team.sampling is what they are asked with"
        )
