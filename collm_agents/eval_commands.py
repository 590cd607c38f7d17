"""The verb `eval`: trained agents, scripted ones, untrained models, or agents behind servers.

For `cli`, which dispatches to it. It reads the words and prints a report; others play.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from collm_agents import env_commands, terminal
from collm_agents.config import Config, EvalConfig, TeamConfig
from collm_agents.explain import explain
from collm_agents.overrides import EVAL_KEYS, checkpoint_word, eval_item, load_config
from collm_envs import InputError, SettingError, list_envs
from collm_envs.errors import suggest

PROTOCOL_NAMES = ("parallel", "pipeline", "discussion", "single")
_LOCAL = (
    "critic",
    "rollout",
    "learner",
    "runner",
    "placement",
)  # sections about models that are trained here


def check_run(folder: str) -> None:
    """Raise an `InputError` unless a folder is a run's."""
    if not (Path(folder) / "config.toml").is_file():
        raise InputError(f"no run in {folder}: there is no {Path(folder) / 'config.toml'}")


def build_eval(parser: Any) -> None:
    """Arguments of `eval`."""
    parser.add_argument(
        "run",
        metavar="RUN|ENV",
        help="folder of a run, or an environment for scripted agents or untrained models",
    )
    parser.add_argument(
        "words",
        nargs="*",
        metavar="key=value",
        help="settings of [eval], such as tasks=16 greedy=true; where an environment is named, its own and, for "
        "untrained models, all those of `collm train`",
    )
    parser.add_argument(
        "--protocol",
        choices=PROTOCOL_NAMES,
        help="how the agents reply: parallel (default), pipeline (one sees the replies before its own), discussion "
        "(each replies again after seeing the others'), single (one agent does it all); untrained models then play "
        "an environment",
    )
    parser.add_argument(
        "--checkpoint",
        type=checkpoint_word,
        metavar="N|best",
        help="joint samples of a checkpoint, or the best (default the last)",
    )
    parser.add_argument(
        "--agents",
        help="scripted agents instead of the trained ones: random, novice or oracle, or several as for play; or "
        "agents behind servers, name=http://HOST:PORT/v1,... (settings: [remote], team.sampling)",
    )
    parser.add_argument("--episodes", type=int, help="episodes of scripted agents (default 100)")
    parser.add_argument("--seed", type=int, help="seed of tasks and scripts (default 0)")
    parser.add_argument(
        "--preset", action="append", default=[], metavar="NAME", help="settings of untrained models"
    )
    parser.add_argument("--gif", metavar="FILE", help="also draw an episode of scripted agents")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.more = lambda: (
        "settings:\n" + terminal.settings(row for row in explain(EvalConfig) if row.key in EVAL_KEYS)
    )


def run_eval(args: argparse.Namespace) -> int:
    """Print the report of whoever is asked for."""
    if _is_remote(args.agents):
        report = _eval_remote(args)
    elif Path(args.run).is_dir() or (
        args.run not in [spec.id for spec in list_envs()] and ":" not in args.run
    ):
        report = _eval_run(args)
    elif args.protocol or args.preset:
        report = _eval_untrained(args)
    else:
        report = env_commands.eval_scripted(args)
    print(json.dumps(report, indent=2) if args.json else terminal.report(report))
    return 0


def _refuse(args: argparse.Namespace, names: Sequence[str], reason: str) -> None:
    for name in names:
        if getattr(args, name) not in (None, []):
            raise InputError(f"--{name} {reason}")


def _eval_untrained(args: argparse.Namespace) -> Mapping[str, Any]:
    """An environment played by models as they come: the prompting baselines."""
    _refuse(args, ("agents", "episodes", "gif"), "is for scripted agents, not for --protocol")
    _refuse(args, ("checkpoint",), "is for a run, not for an environment")
    protocol = args.protocol or "parallel"
    items = [eval_item(word) or word for word in args.words]
    if args.seed is not None:
        items.append(f"eval.seed={args.seed}")
    if protocol == "single":
        if any(word.partition("=")[0] in ("num_agents", "env.num_agents") for word in args.words):
            raise InputError("--protocol single is num_agents=1; leave num_agents out")
        items.append("num_agents=1")
    config = load_config(args.run, presets=args.preset, overrides=items)

    from collm_agents.experiment import Experiment  # imports torch

    return Experiment(config).evaluate_untrained("parallel" if protocol == "single" else protocol)


def _eval_run(args: argparse.Namespace) -> Mapping[str, Any]:
    if not Path(args.run).exists() and (near := suggest(args.run, [spec.id for spec in list_envs()])):
        raise InputError(f"no run in {args.run}, and no environment of that name{near}")
    check_run(args.run)
    _refuse(args, ("episodes", "seed", "gif"), "is for an environment and scripted agents, not for a run")
    _refuse(args, ("preset",), "is for an environment; a run has its own settings")
    if args.protocol == "single":
        raise InputError("--protocol single is for an environment: a run's team is the one that was trained")
    if args.agents:
        _refuse(
            args, ("protocol", "checkpoint"), "is for the trained agents, not for the scripts of --agents"
        )
    items = []
    for word in args.words:
        item = eval_item(word)
        if item is None:
            name = word.partition("=")[0].removeprefix("eval.")
            raise SettingError(f"command line: {word!r} sets nothing of [eval]{suggest(name, EVAL_KEYS)}")
        items.append(item)

    from collm_agents.experiment import Experiment  # imports torch

    return Experiment.evaluate(
        args.run,
        checkpoint_at=args.checkpoint,
        overrides=items,
        scripted=args.agents,
        protocol=args.protocol or "parallel",
    )


def _is_remote(agents: str | None) -> bool:
    """Whether what was written for `--agents` names a server."""
    return agents is not None and "://" in agents


def _eval_remote(args: argparse.Namespace) -> Mapping[str, Any]:
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
