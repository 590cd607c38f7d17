"""The command line: `collm VERB [ENV] key=value …`.

For people at a terminal and for scripts. It reads what was written, calls the library and prints; exit codes
are 0 (done), 1 (failed), 2 (bad input: one line on stderr, nothing written) and 128 + N (a run stopped by signal
N). torch and its friends are imported only by the verbs that need them.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import sys
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from collm_agents import (
    author_commands,
    bench_command,
    crossplay_commands,
    env_commands,
    eval_commands,
    export_command,
    report_command,
    sandbox_commands,
    search_command,
    terminal,
    view_command,
)
from collm_agents.config import Config
from collm_agents.eval_commands import check_run
from collm_agents.explain import explain
from collm_agents.layers import list_presets
from collm_agents.overrides import ALIASES, load_config
from collm_envs import CollmError, InputError
from collm_envs.errors import suggest

OVERVIEW = """\
usage: collm VERB [ENV] [key=value ...]

Train several LLM agents that act at once on one text task, and measure what they learned.

{verbs}

first steps:
  collm envs                                        what can be played
  collm play writing/tldr-mini-v0 --agents oracle   watch an episode
  collm train writing/tldr-mini-v0                  minutes on two CPU cores, no network
  collm eval runs/NAME                              evaluate what was trained

`collm VERB --help` explains a verb. Exit codes: 0 done, 1 failed, 2 bad input,
128 + N stopped by signal N.
"""
DATA_EXTRAS = ("datasets", "pyarrow", "evaluate")
TRAIN_EXTRAS = (
    "torch",
    "transformers",
    "peft",
    "safetensors",
    "jinja2",
    "rich",
    "tensorboard",
    "tomli_w",
    "httpx",
)


@dataclass(frozen=True)
class Verb:
    """One verb: what it does, how it is used, which arguments it takes, what runs."""

    summary: str
    examples: Sequence[str]
    build: Callable[[Any], None]
    run: Callable[[argparse.Namespace], int]


class _Parser(argparse.ArgumentParser):
    """An argument parser whose errors are `InputError`s and whose help may go on with a longer text."""

    more: Callable[[], str] | None = None

    def error(self, message: str) -> NoReturn:
        raise InputError(f"{message} (see {self.prog} --help)")

    def format_help(self) -> str:
        return super().format_help() + (f"\n{self.more()}\n" if self.more else "")


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        argv: arguments after the program's name; default those of the process.

    Returns:
        The exit code.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in words
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())  # so that `module:Class` finds a file in the folder one stands in
    try:
        code = _dispatch(words)
        sys.stdout.flush()
        return code
    except InputError as error:
        return _fail(str(error), 2, debug)
    except KeyboardInterrupt:
        return _fail("interrupted", 1, debug)
    except BrokenPipeError:  # the reader of a pipe has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        extra = "train" if package in TRAIN_EXTRAS else "data" if package in DATA_EXTRAS else ""
        if extra:
            return _fail(f"this needs the package {package}: pip install 'collm[{extra}]'", 1, debug)
        return _fail(f"{error}; --debug shows where", 1, debug)
    except CollmError as error:
        if code := getattr(error, "code", 0):  # a run that was stopped
            return _fail(str(error), code, debug)
        return _fail(f"{type(error).__name__}: {error}; --debug shows where", 1, debug)
    except Exception as error:
        return _fail(f"{type(error).__name__}: {error}; --debug shows where", 1, debug)


def _fail(message: str, code: int, debug: bool) -> int:
    if debug:
        traceback.print_exc()
    print("collm: error: " + " ".join(message.split()), file=sys.stderr)
    return code


def _dispatch(words: list[str]) -> int:
    if not words or words[0] in ("-h", "--help", "help"):
        verbs = terminal.definitions((name, verb.summary) for name, verb in VERBS.items())
        print(OVERVIEW.format(verbs=verbs), end="")
        return 0
    name, *rest = words
    if name not in VERBS:
        raise InputError(f"unknown verb {name!r}{suggest(name, VERBS)}")
    verb = VERBS[name]
    parser = _Parser(
        prog=f"collm {name}",
        description=f"{verb.summary[0].upper()}{verb.summary[1:]}.",
        epilog="examples:\n" + "\n".join(f"  collm {line}" for line in verb.examples),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    verb.build(parser)
    return verb.run(parser.parse_intermixed_args(rest))


# -- runs --------------------------------------------------------------------------------------------------


def _build_train(parser: _Parser) -> None:
    env_commands.add_env(parser)
    parser.add_argument(
        "--preset", action="append", default=[], metavar="NAME", help="settings by name, or a TOML file"
    )
    parser.add_argument("--config", action="append", default=[], metavar="FILE", help="TOML file of settings")
    parser.add_argument("--resume", metavar="RUN", help="go on with a run from its last checkpoint")
    parser.add_argument(
        "--dry-run", action="store_true", help="say what would happen; load and write nothing"
    )
    parser.more = _train_settings


def _train_settings() -> str:
    from collm_agents.algorithms import list_algorithms

    blocks = ["presets: " + ", ".join(list_presets()), "settings, written section.field=value:"]
    for field in dataclasses.fields(Config):
        if field.name not in ("env", "algorithm"):
            section = field.default_factory
            blocks.append(f"[{field.name}]\n" + terminal.settings(explain(section, field.name)))
    blocks.append("[env] settings of the environment: `collm envs ID` shows them")
    for spec in list_algorithms():
        rows = terminal.settings(explain(spec.estimator, "algorithm"))
        blocks.append(f"[algorithm] algorithm={spec.name}: {spec.summary}\n{rows}")
    blocks.append("short names:\n" + terminal.definitions(ALIASES.items()))
    blocks.append("Any other field that only one section has may be written without its section.")
    return "\n\n".join(blocks)


def _train(args: argparse.Namespace) -> int:
    env_id, items = env_commands.split_words(args.words)
    if args.resume is None:
        config = load_config(env_id, presets=args.preset, files=args.config, overrides=items)
    elif args.preset or args.config or env_id or args.dry_run:
        raise InputError("--resume keeps the run's own settings; only key=value may stand beside it")
    else:
        check_run(args.resume)

    from collm_agents.experiment import Experiment  # imports torch
    from collm_agents.stops import stoppable

    if args.dry_run:
        print(Experiment(config).plan())
        return 0
    with stoppable() as place:
        if args.resume is not None:
            done = Experiment.resume(args.resume, overrides=items, callbacks=[place])
        else:
            done = Experiment(config).run([place])
    run_dir = Path(done.run_dir)
    result = json.loads((run_dir / "result.json").read_text(encoding="utf-8"))
    print(terminal.summary(result, str(run_dir), _draw_curve(run_dir)))
    return 0


def _draw_curve(run_dir: Path) -> str | None:
    """The curve's path, or None where matplotlib is missing or nothing was evaluated."""
    from collm_agents.plots import curve

    try:
        return str(curve(run_dir, run_dir / "curve.png"))
    except (ImportError, InputError):
        return None


VERBS = {
    "envs": Verb(
        "list the environments, or show the page of one",
        ("envs", "envs writing/", "envs writing/tldr-v0", "envs --json"),
        env_commands.build_envs,
        env_commands.run_envs,
    ),
    "play": Verb(
        "play episodes with scripted agents or yourself",
        (
            "play writing/tldr-mini-v0 --agents oracle",
            "play debug/handshake-v0 num_turns=2 --agents agent_0=human,agent_1=novice --episodes 3",
        ),
        env_commands.build_play,
        env_commands.run_play,
    ),
    "check": Verb(
        "check that an environment keeps the contract",
        ("check writing/tldr-v0", "check my_tasks.negotiation:Negotiation --probe-rewards"),
        env_commands.build_check,
        env_commands.run_check,
    ),
    "new": Verb(
        "write a task to start from, with tests and a page",
        ("new task my_tasks/negotiation.py",),
        author_commands.build_new,
        author_commands.run_new,
    ),
    "score": Verb(
        "score given replies and show every part of the reward",
        (
            "score debug/echo-v0 --task 3 --reply agent_0=A --reply agent_1=B",
            "score writing/tldr-v0 source=my.jsonl --reply summary_0=@a.txt --reply detail_1=@b.txt --json",
        ),
        env_commands.build_score,
        env_commands.run_score,
    ),
    "train": Verb(
        "train a team of agents",
        (
            "train writing/tldr-mini-v0",
            "train writing/tldr-v0 algorithm=mc model=Qwen/Qwen3-0.6B tuning=lora source=my.jsonl",
            "train writing/tldr-v0 --preset paper/writing-cc --dry-run",
            "train --resume runs/NAME joint_samples=12800",
        ),
        _build_train,
        _train,
    ),
    "eval": Verb(
        "evaluate a trained team on held-out tasks, or scripted agents or untrained models on an environment",
        (
            "eval runs/NAME",
            "eval runs/NAME tasks=16 greedy=true --json",
            "eval runs/NAME --agents oracle",
            "eval writing/tldr-v0 --agents summary_0=http://127.0.0.1:8001/v1,detail_1=http://127.0.0.1:8002/v1",
            "eval games/housebuild-v0 --agents oracle,novice --episodes 200 --gif house.gif",
            "eval games/strbuild-mini-v0 --protocol discussion model=builtin tasks=32",
        ),
        eval_commands.build_eval,
        eval_commands.run_eval,
    ),
    "bench": Verb(
        "compare algorithms on environments over seeds, in runs that can be interrupted",
        (
            "bench smoke",
            "bench mini-core --dry-run",
            "bench my-suite.toml --processes 8 --out bench/mine",
            "bench --algorithms mc,collm-cc,collm-dc --envs games/strbuild-mini-v0 --seeds 5 joint_samples=2048",
        ),
        bench_command.build_bench,
        bench_command.run_bench,
    ),
    "search": Verb(
        "try settings of algorithms, equally many of each, and fill a suite in with the best",
        ("search my-search.toml", "search my-search.toml --trials 16 --processes 8 --dry-run"),
        search_command.build_search,
        search_command.run_search,
    ),
    "crossplay": Verb(
        "play teams whose agents come from different runs of one environment",
        (
            "crossplay runs/cc-s0 runs/cc-s1 runs/mc-s0",
            "crossplay runs/cc-s0 runs/cc-s1 tasks=64 greedy=true --out crossplay.json",
        ),
        crossplay_commands.build_crossplay,
        crossplay_commands.run_crossplay,
    ),
    "sandbox": Verb(
        "show what confines untrusted programs on this host, or run some",
        ("sandbox doctor", "sandbox run programs.jsonl"),
        sandbox_commands.build_sandbox,
        sandbox_commands.run_sandbox,
    ),
    "report": Verb(
        "write tables, figures and a page from the results of a benchmark",
        ("report results/NAME.json", "report results --out report --metric success"),
        report_command.build_report,
        report_command.run_report,
    ),
    "view": Verb(
        "write a page of one run, or show it in a browser: curves, timing and every kept episode",
        ("view runs/NAME", "view runs/NAME --serve", "view runs/NAME --out run.html --pictures 1000"),
        view_command.build_view,
        view_command.run_view,
    ),
    "export": Verb(
        "write a run's episodes, agents or numbers for other tools",
        (
            "export episodes runs/NAME --out episodes",
            "export agents runs/NAME --out agents --checkpoint best --merge",
            "export metrics runs/NAME --out metrics.csv",
        ),
        export_command.build_export,
        export_command.run_export,
    ),
}

if __name__ == "__main__":
    sys.exit(main())
