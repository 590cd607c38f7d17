"""Write what can be read off the code: `settings.md`, `environments/`, pictures, tables of `algorithms/`.

For whoever changes a setting or an environment. `python docs/generate.py` writes the pages,
`python docs/generate.py --check` exits 1 and names the ones that are stale. Needs Pillow, but no torch. Nothing is
worded here that stands in the code: settings come from their declarations, environments from their docstrings.
"""

from __future__ import annotations

import argparse
import functools
import inspect
import itertools
import json
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

DOCS = Path(__file__).resolve().parent
sys.path[:0] = [str(DOCS.parent), str(DOCS)]  # the checkout the pages belong to, installed or not

import algorithm_pages  # noqa: E402
from collm_agents import terminal  # noqa: E402
from collm_agents.algorithms import list_algorithms  # noqa: E402
from collm_agents.config import Config  # noqa: E402
from collm_agents.explain import explain  # noqa: E402
from collm_agents.layers import list_presets  # noqa: E402
from collm_agents.overrides import ALIASES  # noqa: E402
from collm_envs import CollabEnv, EnvSpec, list_envs, make, play_scripted  # noqa: E402
from collm_envs.env import FORMULAS  # noqa: E402
from collm_envs.render import scripted_frames  # noqa: E402
from collm_envs.reward import SCHEDULES  # noqa: E402
from tables import COMMAND, MARK, code, settings_table, table  # noqa: E402

SEED, SPLIT = 0, "test"
PICTURED = 3  # the task whose picture is shown
TRIES = 20  # novices whose first turn may end an episode before a second one is shown
SCORES = "environments/scores.json"
SECTIONS = ("Observations", "Actions", "Rewards", "Success", "Arguments", "Scripted", "Version history")
Scores = dict[str, dict[str, dict[str, float]]]


def main(arguments: Sequence[str] | None = None) -> int:
    """Write or check the pages; the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 where a page is stale")
    args = parser.parse_args(arguments)
    wanted, drawn = pages(), pictures()
    left_over = {
        path.relative_to(DOCS).as_posix() for path in (DOCS / "environments").glob("*") if path.is_file()
    } - wanted.keys()
    if args.check:
        stale = sorted(name for name, text in wanted.items() if not _same(DOCS / name, text))
        stale += sorted(name for name, frame in drawn.items() if not _same_picture(DOCS / name, frame))
        for name in [*stale, *sorted(left_over)]:
            print(f"stale: docs/{name}; run {COMMAND}", file=sys.stderr)
        return 1 if stale or left_over else 0
    for name, text in wanted.items():
        (DOCS / name).parent.mkdir(exist_ok=True)
        (DOCS / name).write_text(text, encoding="utf-8")
    for name, frame in drawn.items():
        (DOCS / name).parent.mkdir(exist_ok=True)
        Image.fromarray(frame).save(DOCS / name, optimize=True)
    for name in left_over:
        (DOCS / name).unlink()
    return 0


def _same(path: Path, text: str) -> bool:
    return path.is_file() and path.read_text(encoding="utf-8") == text


def _same_picture(path: Path, frame: np.ndarray) -> bool:
    return path.is_file() and np.array_equal(np.asarray(Image.open(path)), frame)


def own_envs() -> list[EnvSpec]:
    """The environments of this project."""
    return [spec for spec in list_envs() if spec.env_class.__module__.startswith("collm_envs.")]


def pictures() -> dict[str, np.ndarray]:
    """Pictures by path under `docs/`: the end of an episode that an oracle and a novice play together."""
    found = {}
    for spec in own_envs():
        if "-sparse-" not in spec.id and draws(spec):
            env = make(spec.id, split=SPLIT)
            kinds = dict(zip(env.possible_agents, itertools.cycle(("oracle", "novice")), strict=False))
            found[picture_name(spec.id)] = scripted_frames(env, kinds, env.tasks[PICTURED], seed=SEED)[-1]
    return found


def draws(spec: EnvSpec) -> bool:
    """Whether an environment renders to arrays."""
    return "rgb_array" in spec.env_class.metadata["render_modes"]


def picture_name(id: str) -> str:
    """Path of an environment's picture under `docs/`."""
    return f"images/{id.replace('/', '-')}.png"


def pages() -> dict[str, str]:
    """Text by path under `docs/`."""
    specs = own_envs()
    base = [spec for spec in specs if "-sparse-" not in spec.id]
    scores = {spec.id: scripted_scores(spec.id) for spec in base}
    found = {
        "settings.md": settings_page(),
        "environments/index.md": index_page(base, scores),
        SCORES: json.dumps({"command": COMMAND, "split": SPLIT, "seed": SEED, "scores": scores}, indent=1)
        + "\n",
    }
    for spec in base:
        twins = [other.id for other in specs if other.env_class is spec.env_class and other.id != spec.id]
        found[f"environments/{page_name(spec.id)}"] = env_page(spec, twins, scores[spec.id])
    return found | algorithm_pages.pages(DOCS)


# -- settings ----------------------------------------------------------------------------------------------


def settings_page() -> str:
    """All settings by section, then the algorithms', the short names and the presets."""
    parts = [
        MARK,
        "# Settings",
        "Every setting of a run, as `section.field`. Write it on the command line as `section.field=value`, or "
        "in a TOML file under `[section]`. A field that only one section has may be written without its "
        "section. Unknown keys are errors. `collm train --help` prints the same.",
    ]
    rows = explain(Config)
    for name in dict.fromkeys(row.key.partition(".")[0] for row in rows):
        own = [row for row in rows if row.key.partition(".")[0] == name]
        parts += [f"## `[{name}]`", settings_table(own)]
    parts += [
        "## `[env]`",
        "`env.id` names the environment; its other settings are on "
        "[its page](environments/index.md) and in `collm envs ID`.",
    ]
    for spec in list_algorithms():
        if spec.estimator.__module__.startswith("collm_agents."):
            heading = f'## `[algorithm]` with `name = "{spec.name}"`'
            parts += [heading, spec.summary, settings_table(explain(spec.estimator, "algorithm"))]
    aliases = table(("short", "full"), [(f"`{short}`", f"`{full}`") for short, full in ALIASES.items()])
    presets = "\n".join(f"- `{name}`" for name in list_presets())
    told = (
        '`--preset NAME` loads one. A preset or a file of your own that begins with `extends = "NAME"` is laid '
        "over the preset, or the file, of that name and holds only what differs."
    )
    parts += ["## Short names", aliases, "## Presets", told, presets]
    return "\n\n".join(parts) + "\n"


# -- environments ------------------------------------------------------------------------------------------


def page_name(id: str) -> str:
    """File name of an environment's page."""
    return id.replace("/", "-") + ".md"


def scripted_scores(id: str) -> dict[str, dict[str, float]]:
    """Mean score and success rate of the scripted agents, one episode per built-in test task."""
    env = make(id, split=SPLIT)
    found = {}
    for kind in env.scripted_kinds:
        records = play_scripted(env, kind, env.tasks, seed=SEED)
        found[kind] = {
            "score": round(float(np.mean([record["score"] for record in records])), 4),
            "success": round(float(np.mean([record["success"] for record in records])), 4),
            "tasks": len(records),
        }
    return found


def index_page(specs: Sequence[EnvSpec], scores: Scores) -> str:
    """All environments with the scores of their scripted agents."""
    kinds = ("random", "novice", "oracle")
    rows = []
    for spec in specs:
        cells = [f"{scores[spec.id][k]['score']:.2f}" if k in scores[spec.id] else "–" for k in kinds]
        rows.append((f"[`{spec.id}`]({page_name(spec.id)})", spec.summary, *cells, f"{make(spec.id).high:g}"))
    parts = [
        MARK,
        "# Environments",
        "Each id has a twin with a sparse reward: `writing/tldr-v0` and `writing/tldr-sparse-v0`. "
        "`-mini` environments are sized for the built-in model.",
        table(("id", "task", *kinds, "highest"), rows),
        _provenance(),
    ]
    return "\n\n".join(parts) + "\n"


def _provenance() -> str:
    return (
        f"Scores are means over the built-in `{SPLIT}` split, one episode per task, default settings, "
        f"seed {SEED}. Command: `{COMMAND}`; result file: [`scores.json`](scores.json)."
    )


def env_page(spec: EnvSpec, twins: Sequence[str], scores: dict[str, dict[str, float]]) -> str:
    """The page of one environment."""
    cls = spec.env_class
    rows = [
        (f"`{row.key}`", code(row.default), _offered(cls, row.key), row.doc)
        for row in terminal.env_settings(spec)
    ]
    told = [
        (kind, f"{found['score']:.3f}", f"{found['success']:.1%}", str(int(found["tasks"])))
        for kind, found in scores.items()
    ]
    env = make(spec.id, split=SPLIT)
    parts = [
        MARK,
        f"# `{spec.id}`",
        *([f"![an oracle and a novice together](../{picture_name(spec.id)})"] if draws(spec) else []),
        docstring_markdown(inspect.getdoc(cls) or ""),
        "## Ids",
        "\n".join(f"- `{id}`" for id in (spec.id, *twins)),
        "## Prompts",
        f"The first built-in `{SPLIT}` task, seed {SEED}, default settings, as each agent sees it:",
        *prompts(env),
        *later_prompts(spec.id, env),
        "## Reward parts",
        "Scored in this order and added up, each with its weight under `rewards` (1 where none is given). Behind a "
        "gate that comes to zero or less nothing more counts.",
        _components(spec),
        "## Scripted agents",
        table(("agent", "mean score", "success", "tasks"), told),
        _provenance(),
        "## Settings",
        table(("setting", "default", "offered", "what it does"), rows),
    ]
    return "\n\n".join(parts) + "\n"


def prompts(env: CollabEnv) -> list[str]:
    """What every agent sees at the start of the first task; what all see alike is shown once."""
    seen, _ = env.reset(seed=SEED, options={"task": 0})
    return _shown(seen)


def _shown(seen: Mapping[str, str]) -> list[str]:
    by_text: dict[str, list[str]] = {}
    for agent, text in seen.items():
        by_text.setdefault(text, []).append(agent)
    return [
        f"{' and '.join(f'`{agent}`' for agent in agents)}:\n\n{fenced(text)}"
        for text, agents in by_text.items()
    ]


def fenced(text: str) -> str:
    """A text as a code block, whatever fences it holds."""
    ticks = "`" * max(3, 1 + max(map(len, re.findall("`+", text)), default=0))
    return f"{ticks}text\n{text.rstrip()}\n{ticks}"


def later_prompts(id: str, env: CollabEnv) -> list[str]:
    """What the agents see after a turn of novices that did not end the episode; nothing where none is found."""
    longer = make(id, split=SPLIT, num_turns=max(2, env.num_turns))
    turns = "" if longer.num_turns == env.num_turns else " with `num_turns=2`"
    for seed in range(TRIES):
        longer.reset(seed=SEED, options={"task": 0})
        rng = np.random.default_rng(seed)
        seen, *_ = longer.step({agent: longer.scripted("novice", agent, rng) for agent in longer.agents})
        if longer.agents:
            return [f"And{turns} in the second turn, after one of novices:", *_shown(seen)]
    return []


def _components(spec: EnvSpec) -> str:
    ranges: dict[str, dict[str, str]] = {}
    docs: dict[str, dict[str, str]] = {}
    for formula in FORMULAS:
        env = make(spec.id, formula=formula)
        for scorer in env.reward_model.components:
            told = f"{scorer.low:g} to {scorer.high:g}" + (", gate" if scorer.gate else "")
            ranges.setdefault(scorer.component_name, {})[formula] = told
            docs.setdefault(scorer.component_name, {})[formula] = _component_doc(scorer)
        ranges.setdefault("**score**", {})[formula] = f"{env.low:g} to {env.high:g}"
    total = ranges.pop("**score**")
    rows = []
    for name, found in ranges.items():
        told = [f"{formula}: {doc}" for formula, doc in docs[name].items()]
        alike = len(docs[name]) == len(FORMULAS) and len(set(docs[name].values())) == 1
        doc = next(iter(docs[name].values())) if alike else " ".join(told)
        rows.append((name, *(found.get(f, "–") for f in FORMULAS), doc))
    rows.append(("**score**", *(total[f] for f in FORMULAS), "their sum"))
    return table(("part", *(f'`formula="{name}"`' for name in FORMULAS), "what it pays"), rows)


def _component_doc(scorer: Any) -> str:
    """The first paragraph of a component's docstring."""
    doc = inspect.getdoc(scorer.func if isinstance(scorer, functools.partial) else scorer) or ""
    return " ".join(doc.partition("\n\n")[0].split())


def _offered(cls: type[CollabEnv], key: str) -> str:
    values: dict[str, Sequence[Any]] = {
        "num_agents": cls.agent_counts,
        "feedback": cls.feedback_modes,
        "formula": FORMULAS,
        "reward": SCHEDULES,
        "render_mode": cls.metadata["render_modes"],
    }
    return ", ".join(f"`{value}`" for value in values.get(key, ()))


def docstring_markdown(doc: str) -> str:
    """An environment's docstring as Markdown: labels in bold, the example as a code block."""
    text, sign, rest = doc.partition("\nExample:\n")
    example, _, after = rest.partition("\n\n") if sign else ("", "", "")
    labels = "|".join(SECTIONS)
    blocks = [_bold(text.strip(), labels)]
    if sign:
        blocks.append(f"**Example:**\n\n```pycon\n{inspect.cleandoc(example)}\n```")
        blocks.append(_bold(after.strip(), labels))
    return "\n\n".join(block for block in blocks if block)


def _bold(text: str, labels: str) -> str:
    return re.sub(rf"^({labels}):", r"**\1:**", text, flags=re.MULTILINE)


if __name__ == "__main__":
    sys.exit(main())
