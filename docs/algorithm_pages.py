"""The generated part of `algorithms/*.md`: what stands in the registry and in the settings' declarations.

The pages are written by hand but for what lies between two marks. An algorithm without a page is an error, so
that a new one gets its page with its file.
"""

from __future__ import annotations

import re
from pathlib import Path

from collm_agents.algorithms import AlgorithmSpec, list_algorithms
from collm_agents.explain import explain
from collm_agents.layers import list_presets
from tables import COMMAND, settings_table, table

BEGIN = f"<!-- Written by `{COMMAND}`: begin -->"
END = f"<!-- Written by `{COMMAND}`: end -->"
PART = re.compile(f"{re.escape(BEGIN)}.*?{re.escape(END)}", re.DOTALL)
READS = {"joint": "the joint history", "local": "its agent's own history", None: "–"}
ROLLOUTS = {"tree": "a tree, K replies at every point", "paths": "K paths per task"}
OWNERS = {"one": "one for all agents", "each": "one for each agent", None: "none"}


def pages(docs: Path) -> dict[str, str]:
    """Text by path under `docs/`, the generated part made anew.

    Raises:
        ValueError: for an algorithm whose page is missing or has no place for that part.
    """
    found = {}
    for spec in list_algorithms():
        if not spec.estimator.__module__.startswith("collm_agents."):
            continue
        name = f"algorithms/{spec.name}.md"
        text = (docs / name).read_text(encoding="utf-8") if (docs / name).is_file() else ""
        if len(PART.findall(text)) != 1:
            raise ValueError(f"docs/{name} must exist and hold the lines {BEGIN!r} and {END!r} once")
        before, after = PART.split(text)
        found[name] = before + "\n\n".join([BEGIN, facts(spec), END]) + after
    return found


def facts(spec: AlgorithmSpec) -> str:
    """Registry facts, settings and presets of one algorithm."""
    estimator = spec.estimator()
    needs = estimator.rollout_needs
    rows = [
        ("`algorithm=`", f"`{spec.name}`"),
        ("critic", OWNERS[spec.owners]),
        ("reads", READS[spec.view]),
        ("rollouts (`rollout.branching=auto`)", ROLLOUTS[needs.branching]),
        ("least K", str(needs.min_siblings)),
        ("pairs of replies (`rollout.joint_mode`)", ", ".join(f"`{mode}`" for mode in needs.joint_modes)),
        ("`learner.advantage_norm=auto`", f"`{estimator.advantage_norm}`"),
        ("variant with default settings", f"`{estimator.variant}`"),
    ]
    suffix = re.escape(spec.name.removeprefix("collm-"))  # of the presets' names
    presets = [name for name in list_presets() if re.search(rf"-{suffix}(-lora)?$", name)]
    told = "Presets: " + (", ".join(f"`{name}`" for name in presets) or "none") + "."
    return "\n\n".join([table(("", ""), rows), settings_table(explain(spec.estimator, "algorithm")), told])
