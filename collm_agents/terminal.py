"""Plain text for the terminal: tables, documentation pages, episodes and the summary of a run.

For the command line. Strings in, strings out; nothing here prints, reads files or needs more than the
standard library, so that `collm envs` looks the same everywhere.
"""

from __future__ import annotations

import inspect
import shutil
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from collm_agents.explain import Explained, explain_env
from collm_envs import CollabEnv, EnvSpec
from collm_envs.history import terminal_safe

FIRST_METRICS = ("score", "success")
LAST_METRICS = (
    "return",
    "score_sum",
    "turns",
    "reply_tokens",
    "truncated_replies",
    "empty_replies",
    "truncated_episodes",
    "tries",
    "reply_s",
)


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Columns padded to their widest cell; the first is set left, the others right."""
    lines = [tuple(header), *map(tuple, rows)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(header))]
    rule = tuple("-" * width for width in widths)
    return "\n".join(_padded(line, widths) for line in (lines[0], rule, *lines[1:]))


def _padded(line: Sequence[str], widths: Sequence[int]) -> str:
    first = line[0].ljust(widths[0])
    return "  ".join(
        [first, *(cell.rjust(width) for cell, width in zip(line[1:], widths[1:], strict=True))]
    ).rstrip()


def definitions(rows: Iterable[tuple[str, str]]) -> str:
    """Names with their wrapped descriptions beside them."""
    pairs = list(rows)
    indent = min(max((len(name) for name, _ in pairs), default=0) + 4, 36)
    width = max(shutil.get_terminal_size((100, 24)).columns, 72)
    lines = []
    for name, text in pairs:
        wrapped = textwrap.wrap(text, width - indent, break_long_words=False, break_on_hyphens=False) or [""]
        if len(name) + 3 > indent:
            lines.append(f"  {name}")
        else:
            lines.append(f"  {name}".ljust(indent) + wrapped.pop(0))
        lines += [" " * indent + line for line in wrapped]
    return "\n".join(line.rstrip() for line in lines)


def settings(rows: Iterable[Explained]) -> str:
    """Settings with default, doc and limits."""

    def told(row: Explained) -> str:
        named = all(choice in row.doc for choice in row.limits.split(" | "))  # the doc lists the choices
        return f"{row.doc.rstrip('.')}{'' if named else f' [{row.limits}]'} (default {shown(row.default)})"

    return definitions((row.key, told(row)) for row in rows)


def shown(value: Any) -> str:
    """A default as a user would write it."""
    if isinstance(value, bool):
        return str(value).lower()
    if value in ("", None):
        return '""' if value == "" else "unset"
    return str(value)


# -- environments ------------------------------------------------------------------------------------------


def env_list(specs: Iterable[EnvSpec]) -> str:
    """Ids with their one-line summaries."""
    return definitions((spec.id, spec.summary) for spec in specs)


def env_page(spec: EnvSpec) -> str:
    """The documentation page of an environment: its docstring, then its settings."""
    page = inspect.getdoc(spec.env_class) or "(no documentation)"
    rows = settings(env_settings(spec))
    return f"{spec.id}\n{'=' * len(spec.id)}\n\n{page}\n\nSettings (key=value)\n\n{rows}"


def env_settings(spec: EnvSpec) -> list[Explained]:
    """Settings of an environment; an id may stand for defaults of its own."""
    rows = explain_env(spec.env_class)
    return [row._replace(default=spec.kwargs.get(row.key, row.default)) for row in rows]


def turn(
    number: int, observations: Mapping[str, str], replies: Mapping[str, str], hidden: Iterable[str] = ()
) -> str:
    """One turn of a conversation.

    Args:
        number: the turn, from 0.
        observations: what each agent saw.
        replies: what each agent said.
        hidden: agents whose observation has been shown already.
    """
    blocks = [f"-- turn {number + 1} " + "-" * 40]
    for agent, reply in replies.items():
        if agent not in hidden:
            blocks.append(f"{agent} sees:\n{textwrap.indent(observations[agent], '    ')}")
        blocks.append(f"{agent} says:\n{textwrap.indent(reply or '(nothing)', '    ')}")
    return terminal_safe("\n".join(blocks))


def score(env: CollabEnv, info: Mapping[str, Any]) -> str:
    """The score of a turn with every reward part beside the most it can be."""
    verdict = "success" if info["success"] else "no success"
    rows = [
        (name, f"{value:.3f}", f"{part_high(env, name):.3f}") for name, value in info["reward_parts"].items()
    ]
    return f"score {info['score']:.3f} of {env.high:.3f}, {verdict}\n" + table(("part", "got", "most"), rows)


def part_high(env: CollabEnv, name: str) -> float:
    """The most that a reward component can contribute."""
    model = env.reward_model
    return model.weights[name] * model.components[model.names.index(name)].high


# -- runs --------------------------------------------------------------------------------------------------


def metric_names(reports: Iterable[Mapping[str, Any]]) -> list[str]:
    """Metrics of the reports: score and success, the parts, then the rest."""
    found = dict.fromkeys(name for report in reports for name in report["metrics"])
    first = [name for name in FIRST_METRICS if name in found]
    last = [name for name in LAST_METRICS if name in found]
    parts = [name for name in found if name.startswith("parts/")]
    others = [name for name in found if name not in {*first, *last, *parts}]
    return [*first, *parts, *others, *last]


def report(found: Mapping[str, Any]) -> str:
    """One evaluation as a table."""
    rows = []
    for name in metric_names([found]):
        stats = found["metrics"][name]
        rows.append(
            (_label(name), _number(name, stats["mean"]), _interval(name, stats), str(int(stats["n"])))
        )
    return table(("metric", "mean", "95 % interval", "n"), rows)


def before_after(result: Mapping[str, Any]) -> str:
    """Start and end of a run side by side, with the scripted references.

    Args:
        result: the run's `result.json`.
    """
    start, end = result["start"], result["end"]
    references = {name: found for name, found in result.get("references", {}).items() if found}
    header = ("metric", "start", "end", "95 % interval of end", *references)
    rows = []
    for name in metric_names([start, end]):
        stats = end["metrics"].get(name)
        rows.append(
            (
                _label(name),
                _mean(name, start),
                _mean(name, end),
                _interval(name, stats) if stats else "",
                *(_mean(name, found) for found in references.values()),
            )
        )
    return table(header, rows)


def summary(result: Mapping[str, Any], run_dir: str, curve: str | None) -> str:
    """What is printed after a run: before and after, one conversation, where everything lies."""
    name = result.get("variant") or result["algorithm"]
    start, end = (result[key]["metrics"]["score"]["mean"] for key in ("start", "end"))
    cost = f"{result['joint_samples']} joint samples, {result['updates']} updates, {result['wall_s']:.0f} s"
    if result.get("stopped"):
        cost += f" ({result['stopped']})"
    blocks = [
        f"{name} on {result['env']}, seed {result['seed']}: "
        f"score {start:.3f} -> {end:.3f} of {result['high']:.3f} after {cost}",
        before_after(result),
    ]
    samples = result["end"].get("samples") or []
    if samples:
        first = samples[0]
        verdict = "success" if first["success"] else "no success"
        told = textwrap.indent(terminal_safe(first["text"].rstrip()), "    ")
        blocks.append(
            f"A conversation (task {first['task_id']}, score {first['score']:.3f}, {verdict}):\n{told}"
        )
    places = [("run", run_dir), *([("curve", curve)] if curve else [])]
    places += [("evaluate", f"collm eval {run_dir}"), ("go on", f"collm train --resume {run_dir}")]
    blocks.append(definitions(places))
    return "\n\n".join(blocks)


def crossplay(found: Mapping[str, Any]) -> str:
    """Teams of different runs: who they are, a matrix for score and success, self-play beside cross-play.

    Args:
        found: what `crossplay.crossplay` returns.
    """
    roles, count = found["roles"], len(found["runs"])
    if len(roles) == 2:
        reading = f"{roles[0]} is of the row's run, {roles[1]} of the column's"
    else:
        reading = "one agent is of the row's run, the others of the column's; mean over which one it is"
    drawn = "greedy" if found["eval"]["greedy"] else f"{found['eval']['samples']} drawn per task"
    blocks = [
        f"{found['env']}, {len(found['tasks'])} tasks, episodes: {drawn}; the score is {found['high']:.3f} at most",
        table(
            ("run", "algorithm", "seed", "joint samples"),
            (
                (f"{i}  {run['name']}", run["algorithm"], str(run["seed"]), str(run["joint_samples"]))
                for i, run in enumerate(found["runs"], 1)
            ),
        ),
    ]
    for metric, matrix in found["matrix"].items():
        rows = [
            (str(i), *(_with_interval(metric, stats) for stats in row)) for i, row in enumerate(matrix, 1)
        ]
        header = ("run", *(str(i) for i in range(1, count + 1)))
        blocks.append(f"{_label(metric)} with 95 % intervals over tasks; {reading}\n{table(header, rows)}")
    for metric, groups in found["comparisons"].items():
        header = (f"{_label(metric)}, pairs of runs", "entries", "self-play", "cross-play", "difference")
        rows = [
            (
                group["pairs"],
                str(group["entries"]),
                *(_with_interval(metric, group[key]) for key in ("self_play", "cross_play", "difference")),
            )
            for group in groups
        ]
        blocks.append(table(header, rows))
    return "\n\n".join(blocks)


def _with_interval(name: str, stats: Mapping[str, Any]) -> str:
    return f"{_number(name, stats['mean'])} {_interval(name, stats)}".rstrip()


def _label(name: str) -> str:
    return f"  {name.removeprefix('parts/')}" if name.startswith("parts/") else name.replace("_", " ")


def _number(name: str, value: float) -> str:
    if name == "success":
        return f"{value:.1%}"
    return f"{value:.1f}" if name == "reply_tokens" else f"{value:.3f}"


def _mean(name: str, found: Mapping[str, Any]) -> str:
    stats = found["metrics"].get(name)
    return _number(name, stats["mean"]) if stats else ""


def _interval(name: str, stats: Mapping[str, Any]) -> str:
    if stats.get("low") is None or stats.get("high") is None:
        return ""
    return f"[{_number(name, stats['low'])}, {_number(name, stats['high'])}]"
