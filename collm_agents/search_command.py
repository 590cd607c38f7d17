"""The verb `search`: settings of every algorithm, tried equally often, and the suite with the best of them.

For `cli`, which dispatches to it. It reads the words, says on stderr how far the work has come and prints a table;
`search` does the work.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from collm_agents import terminal
from collm_agents.bench_command import Progress, add_places, duration, places
from collm_envs.errors import InputError

if TYPE_CHECKING:
    from collm_agents.search import Searcher, Trial
    from collm_agents.search_file import Range, Search


def build_search(parser: argparse.ArgumentParser) -> None:
    """Arguments of `search`."""
    parser.add_argument(
        "words",
        nargs="+",
        metavar="SUITE|key=value",
        help="a TOML file with a suite and its table [search]; behind it a budget, points, tasks, reward, "
        "num_turns, model and settings of all runs, as for `collm bench`",
    )
    parser.add_argument("--trials", type=int, metavar="N", help="of every algorithm (default: the file's)")
    parser.add_argument("--out", metavar="FOLDER", help="where it goes, and goes on (default search/NAME)")
    add_places(parser)
    parser.add_argument(
        "--dry-run", action="store_true", help="show ranges, count runs and estimate; run and write nothing"
    )


def run_search(args: argparse.Namespace) -> int:
    """Search; 0 when every algorithm has settings chosen, 1 when one has none, 128 + signal when stopped."""
    from collm_agents.benchmark import Stopped
    from collm_agents.search import Searcher
    from collm_agents.search_file import find_search

    names = [word for word in args.words if "=" not in word or Path(word).is_file()]
    if len(names) != 1:
        raise InputError("name one TOML file with a suite and its table [search]")
    search = find_search(names[0], [word for word in args.words if word not in names], args.trials)
    out = Path(args.out or Path("search") / search.suite.name)
    progress = Progress()
    searcher = Searcher(
        search,
        out,
        **places(args),
        said=progress.say,
        seen=progress.see,
    )
    if args.dry_run:
        print(plan(searcher))
        return 0
    try:
        searcher.run()
    except Stopped as stopped:
        progress.say(str(stopped))
        return stopped.code
    finally:
        progress.clear()
    print(table(searcher))
    print(f"\nall trials: {out / 'search.json'}")
    lost = [own.label for own in search.suite.algorithms if searcher.best(own.label) is None]
    if lost:
        print(f"nothing chosen: every trial of {', '.join(lost)} failed")
        return 1
    print(f"to compare what was chosen: collm bench {out / 'chosen.toml'}")
    return 0


# -- tables -----------------------------------------------------------------------------------------------


def table(searcher: Searcher) -> str:
    """All trials, algorithm by algorithm, with what was chosen."""
    rows, errors = [], []
    for contender in searcher.search.suite.algorithms:
        best = searcher.best(contender.label)
        for trial in searcher.trials:
            if trial.algorithm == contender.label:
                rows.append(_row(trial, trial is best))
                errors += [f"  {trial.state}: {trial.label}: {trial.error}"] if trial.error else []
    metric = searcher.search.metric
    header = ("trial", metric, "seconds", "")
    note = f"{metric}: 0 the novice's, 1 the oracle's; mean over environments and search seeds."
    return "\n".join([terminal.table(header, rows), note, *errors])


def _row(trial: Trial, best: bool) -> tuple[str, str, str, str]:
    drawn = " ".join(f"{key}={_short(value)}" for key, value in trial.settings.items())
    value = trial.state if trial.value is None else f"{trial.value:.3f}"
    return f"{trial.label}  {drawn}", value, f"{trial.seconds:.0f}", "chosen" if best else ""


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def plan(searcher: Searcher) -> str:
    """What a call would do: ranges, how many runs, and how long they may take."""
    search = searcher.search
    rows = [
        (f"{label}  {key}", _told(own)) for label, keys in search.ranges.items() for key, own in keys.items()
    ]
    each = len(_plain_runs(search))
    count, over = len(search.suite.algorithms), sum(trial.state != "drawn" for trial in searcher.trials)
    runs, seeds = each * search.trials, ", ".join(map(str, search.seeds))
    return "\n".join(
        [
            terminal.table(("drawn", "from"), rows),
            f"\nsearch {search.suite.name}: {search.trials} trials of each of {count} algorithms, {over} of "
            f"{search.trials * count} done, in {searcher.out}",
            f"{runs} runs: seeds {seeds}; sampler {search.sampler}, its seed {search.seed}",
            *_estimate(searcher, search.trials - over / count),
        ]
    )


def _told(own: Range) -> str:
    if own.choices:
        return ", ".join(map(str, own.choices))
    return f"{own.low:g} .. {own.high:g}{' log' if own.log else ''}"


def _plain_runs(search: Search) -> list[Any]:
    labels = {contender.label: contender.label for contender in search.suite.algorithms}
    return search.suite_of(search.suite.algorithms, labels).runs()


def _estimate(searcher: Searcher, trials: float) -> Iterator[str]:
    """A line on time, by rates that were measured once; nothing where there is none for some run."""
    from collm_agents.benchmark import cores

    search, more = searcher.search, searcher.at_once or cores()
    rated = [search.suite.rated_s(run) for run in _plain_runs(search)]
    known = [seconds for seconds in rated if seconds is not None]
    if known and trials > 0:
        whole = sum(known) / len(known) * len(rated) * trials
        yield f"time: about {duration(whole / more)} with {more} at a time, within a factor of two or three"
