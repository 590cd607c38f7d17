"""Who may import what, and how large things may grow: the rules of the house, read off the syntax trees."""

import ast
import re
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("collm_envs", "collm_agents")
FILES = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))
NAMES = [str(path.relative_to(ROOT)) for path in FILES]
DOMAINS = sorted(
    path.name
    for path in (ROOT / "collm_envs").iterdir()
    if path.is_dir() and (path / "__init__.py").exists() and path.name not in ("metrics", "sandbox", "data")
)
MAX_FUNCTION, MAX_MODULE, MAX_SHARED = 80, 450, 25
MODELS = ("torch", "transformers", "peft")

# One file may import what nobody else may.
OWNERS = {
    "ray": {"collm_agents/distributed"},
    "wandb": {"collm_agents/tracking.py"},
    "tensorboard": {"collm_agents/tracking.py"},
    "torch.utils.tensorboard": {"collm_agents/tracking.py"},
    "trackio": {"collm_agents/tracking.py"},
    "matplotlib": {"collm_agents/plots.py", "collm_agents/figures.py"},
    "trl": {"collm_agents/interop/trl.py"},
    "torchrl": {"collm_agents/interop/torchrl.py"},
    "tensordict": {"collm_agents/interop/torchrl.py"},
    "optuna": {"collm_agents/search.py"},
    "datasets": {
        "collm_envs/task.py",
        "collm_envs/metrics",
        "collm_agents/export.py",
        "collm_agents/interop/trl.py",
    },
    "pyarrow": {"collm_envs/task.py", "collm_agents/export.py"},
    "evaluate": {"collm_envs/metrics"},
    "PIL": {"collm_envs/render.py"},
}
REPORT = ("records", "report", "report_command", "report_numbers", "report_page", "figures", "pages")
VIEW = ("view_command", "view_page", "episodes", "pictures", "thinning", "waiting")
LIGHT = {f"collm_agents/{name}.py" for name in ("__init__", "cli", "config", "stats", *REPORT, *VIEW)}
PURE = {f"collm_agents/{name}.py" for name in ("advantages", "losses", "batch")}


@dataclass(frozen=True)
class Import:
    """One imported module: its full name, its line, and whether it is reached by importing the file."""

    module: str
    line: int
    at_module_level: bool
    for_types: bool

    def under(self, *tops):
        return any(self.module == top or self.module.startswith(top + ".") for top in tops)


def imports(source, name="collm_envs/x.py"):
    """Every import of a file, relative ones resolved; `from a import b` counts as both `a` and `a.b`."""
    package = name.removesuffix(".py").split("/")[:-1]
    found = []

    def visit(node, level, types):
        if isinstance(node, ast.Import):
            found.extend(Import(alias.name, node.lineno, level, types) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) + 1 - node.level] if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            found.append(Import(module, node.lineno, level, types))
            found.extend(Import(f"{module}.{alias.name}", node.lineno, level, types) for alias in node.names)
        elif isinstance(node, ast.Call):
            called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            first = node.args[0] if node.args else None
            if called in ("import_module", "__import__") and isinstance(first, ast.Constant):
                found.append(Import(str(first.value), node.lineno, level, types))
        if isinstance(node, ast.If) and ast.unparse(node.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING"):
            for child in node.body:
                visit(child, level, True)
            for child in node.orelse:
                visit(child, level, types)
            return
        inner = level and not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda))
        for child in ast.iter_child_nodes(node):
            visit(child, inner, types)

    visit(ast.parse(source), True, False)
    return found


def broken_rules(name, source):
    """The rows of the table that a file breaks, one line each."""
    in_envs = name.startswith("collm_envs/")
    domain = next((d for d in DOMAINS if name.startswith(f"collm_envs/{d}/")), None)
    wrong = []
    for found in imports(source, name):
        runs = not found.for_types  # what only a type checker reads is not imported
        if runs and in_envs and found.under(*MODELS):
            wrong.append((found, "environments never need a model"))
        if in_envs and found.under("collm_agents"):
            wrong.append((found, "environments do not know their learners"))
        if domain and found.under(*(f"collm_envs.{other}" for other in DOMAINS if other != domain)):
            wrong.append((found, "a domain does not know another"))
        if not in_envs and found.under(*(f"collm_envs.{domain}" for domain in DOMAINS)):
            wrong.append((found, "agents reach environments by their ids"))
        if runs and name in LIGHT and found.at_module_level and found.under(*MODELS):
            wrong.append((found, "this file works without a model"))
        if name in PURE and found.under("transformers", "peft", "pettingzoo", "collm_envs"):
            wrong.append((found, "this file holds pure tensor functions"))
        for top, owners in OWNERS.items():
            owned = any(name == owner or name.startswith(owner + "/") for owner in owners)
            if runs and found.under(top) and not owned:
                wrong.append((found, f"{top} belongs to {' and '.join(sorted(owners))}"))
            elif runs and in_envs and found.under(top) and found.at_module_level and "metrics" not in name:
                wrong.append((found, f"{top} is imported inside the function that needs it"))
    return [f"{name}:{found.line}: {found.module}: {why}" for found, why in wrong]


@pytest.mark.parametrize("name", NAMES)
def test_the_import_table(name):
    assert not broken_rules(name, (ROOT / name).read_text())


TYPES_ONLY = "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import {}\nelse:\n    {} = None"


@pytest.mark.parametrize(
    ("name", "source", "count"),
    [
        ("collm_envs/env.py", "import torch", 1),
        ("collm_envs/env.py", "def f():\n    import torch.nn as nn", 1),
        ("collm_envs/env.py", "import importlib\nimportlib.import_module('peft')", 1),
        ("collm_envs/env.py", "from torchvision import x", 0),  # a name that only begins alike
        ("collm_envs/env.py", TYPES_ONLY.format("torch", "torch"), 0),
        ("collm_envs/env.py", TYPES_ONLY.format("numpy", "numpy").replace("numpy = None", "import torch"), 1),
        ("collm_envs/env.py", "from collm_agents import team", 2),
        ("collm_envs/debug/letters.py", "from collm_envs.writing import rules", 2),
        ("collm_envs/debug/letters.py", "from ..writing.rules import x", 2),
        ("collm_envs/debug/letters.py", "from .. import writing", 1),
        ("collm_envs/debug/letters.py", "from collm_envs.debug import other\nfrom collm_envs import text", 0),
        ("collm_envs/__init__.py", "from collm_envs import debug, writing", 0),
        ("collm_envs/task.py", "def f():\n    import datasets", 0),
        ("collm_envs/task.py", "import datasets", 1),
        ("collm_envs/task.py", "class A:\n    import pyarrow", 1),
        ("collm_envs/text.py", "def f():\n    import datasets", 1),
        ("collm_envs/metrics/text.py", "import datasets\nimport evaluate", 0),
        ("collm_envs/render.py", "def draw():\n    from PIL import Image", 0),
        ("collm_envs/render.py", "from PIL import Image", 2),
        ("collm_envs/debug/letters.py", "def draw():\n    from PIL import Image", 2),
        ("collm_agents/cli.py", "import torch", 1),
        ("collm_agents/cli.py", "try:\n    import peft\nexcept ImportError:\n    peft = None", 1),
        ("collm_agents/cli.py", "def main():\n    import torch", 0),
        ("collm_agents/team.py", "import torch", 0),
        ("collm_agents/losses.py", "def f():\n    from transformers import x", 2),
        ("collm_agents/batch.py", "import collm_envs", 1),
        ("collm_agents/team.py", "from collm_envs.debug.letters import Echo", 2),
        ("collm_agents/team.py", "from collm_envs import make", 0),
        ("collm_agents/team.py", "def f():\n    import ray", 1),
        ("collm_agents/distributed/worker.py", "import ray", 0),
        ("collm_agents/trainer.py", "def f():\n    from torch.utils.tensorboard import SummaryWriter", 2),
        ("collm_agents/tracking.py", "from torch.utils.tensorboard import SummaryWriter", 0),
        ("collm_agents/report.py", "import matplotlib.pyplot", 1),
        ("collm_agents/plots.py", "import matplotlib.pyplot", 0),
    ],
)
def test_the_table_itself_bites(name, source, count):
    assert len(broken_rules(name, source)) == count, broken_rules(name, source)


@pytest.mark.parametrize("name", NAMES)
def test_every_module_says_what_it_is(name):
    text = ast.get_docstring(ast.parse((ROOT / name).read_text()))
    assert text, f"{name} has no docstring"
    assert text.partition("\n")[0].rstrip().endswith((".", ":", "?", "…")), (
        f"{name}: the first line is no sentence"
    )


def test_no_file_is_named_after_nothing():
    vague = re.compile(r"^(utils?|common|helpers?|misc|base_.*)$")
    parts = {part for name in NAMES for part in name.removesuffix(".py").split("/")}
    assert not [part for part in sorted(parts) if vague.match(part)]


@pytest.mark.parametrize("name", NAMES)
def test_modules_and_functions_stay_readable(name):
    source = (ROOT / name).read_text()
    assert len(source.splitlines()) <= MAX_MODULE
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            first = node.body[0]
            is_doc = isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant)
            begin = first.end_lineno if is_doc else node.lineno  # a docstring may be as long as it needs
            length = node.end_lineno - begin
            assert length <= MAX_FUNCTION, f"{name}:{node.lineno}: {node.name} has {length} lines"


def shared_runs(sources, limit):
    """Runs of more than `limit` equal consecutive lines (blank ones apart) in two of the sources."""
    seen, found = defaultdict(set), set()
    for name, source in sources.items():
        lines = [line.strip() for line in source.splitlines() if line.strip()]
        for i in range(len(lines) - limit):
            seen["\n".join(lines[i : i + limit + 1])].add(name)
    for text, names in seen.items():
        if len(names) > 1:
            found.add((*sorted(names), text.partition("\n")[0]))
    return sorted(found)


def test_no_two_modules_share_a_long_passage():
    assert not shared_runs({name: (ROOT / name).read_text() for name in NAMES}, MAX_SHARED)


def test_shared_passages_are_seen():
    lines = [f"x{i} = {i}" for i in range(26)]
    one, other = "\n".join(["a = 0", *lines]), "\n\n".join([*lines, "b = 0"])
    assert shared_runs({"one": one, "other": other}, 25)
    assert not shared_runs({"one": one, "other": other}, 26)
