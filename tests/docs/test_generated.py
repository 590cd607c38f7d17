"""The generated pages are those of the code, and every name that the docs point at exists."""

import importlib
import re
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import pytest

from collm_agents.algorithms import list_algorithms
from collm_agents.config import CriticConfig, LearnerConfig, RolloutConfig

ROOT = Path(__file__).resolve().parents[2]
GENERATE = ROOT / "docs" / "generate.py"
PAGES = sorted(path for path in (ROOT / "docs").rglob("*.md") if "_build" not in path.parts)
NAME = re.compile(r"`(collm_(?:envs|agents)(?:\.\w+)+)`")
NAMES = sorted({name for page in PAGES for name in NAME.findall(page.read_text(encoding="utf-8"))})
LINK = re.compile(r"\[[^\]]*\]\((?!https?:|#)([^)#\s]+)(?:#[^)]*)?\)")


def generate(*words, script=GENERATE):
    return subprocess.run(
        [sys.executable, str(script), *words], capture_output=True, text=True, timeout=300, check=False
    )


def resolve(name):
    """The object behind a dotted name: the longest importable module, then attributes or fields."""
    parts = name.split(".")
    for cut in range(len(parts), 0, -1):
        try:
            found = importlib.import_module(".".join(parts[:cut]))
        except ModuleNotFoundError as error:
            if not name.startswith(str(error.name)):  # something that the module itself imports
                raise
            continue
        for part in parts[cut:]:
            fields = getattr(found, "__dataclass_fields__", {})
            found = fields[part] if part in fields else getattr(found, part)
        return found
    raise ModuleNotFoundError(name)


def test_no_committed_page_is_stale():
    done = generate("--check")
    assert done.returncode == 0, done.stderr


def test_a_stale_a_missing_and_a_left_over_page_are_told(tmp_path):
    for folder in ("collm_agents", "collm_envs"):
        (tmp_path / folder).symlink_to(ROOT / folder)
    script = tmp_path / "docs" / "generate.py"
    script.parent.mkdir()
    for path in (*GENERATE.parent.glob("*.py"), *(GENERATE.parent / "algorithms").glob("*.md")):
        copy = script.parent / path.relative_to(GENERATE.parent)
        copy.parent.mkdir(exist_ok=True)
        copy.write_text(path.read_text(encoding="utf-8"), encoding="utf-8")
    assert generate(script=script).returncode == 0
    assert generate("--check", script=script).returncode == 0
    (script.parent / "settings.md").write_text("old")
    page = script.parent / "algorithms" / "mc.md"
    page.write_text(page.read_text(encoding="utf-8").replace("discount per turn", "something else"))
    (script.parent / "environments" / "index.md").unlink()
    (script.parent / "environments" / "gone-v0.md").write_text("an environment of the past")
    done = generate("--check", script=script)
    assert done.returncode == 1
    assert [line.split(";")[0] for line in done.stderr.splitlines()] == [
        "stale: docs/algorithms/mc.md",
        "stale: docs/environments/index.md",
        "stale: docs/settings.md",
        "stale: docs/environments/gone-v0.md",
    ]


def test_an_algorithm_without_a_page_is_told(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(GENERATE.parent))
    import algorithm_pages

    with pytest.raises(ValueError, match=r"docs/algorithms/collm-cc\.md must exist"):
        algorithm_pages.pages(tmp_path)


def test_the_references_name_the_code():
    text = (ROOT / "docs" / "references.md").read_text(encoding="utf-8")
    assert len(set(NAME.findall(text))) > 40


@pytest.mark.parametrize("name", NAMES)
def test_a_dotted_name_resolves(name):
    assert resolve(name) is not None


def test_a_wrong_name_would_be_noticed():
    with pytest.raises(AttributeError):
        resolve("collm_agents.losses.no_such_loss")


@pytest.mark.parametrize("page", PAGES, ids=[page.relative_to(ROOT).as_posix() for page in PAGES])
def test_links_lead_somewhere(page):
    for target in LINK.findall(page.read_text(encoding="utf-8")):
        assert (page.parent / target).exists(), f"{page.name} links to {target}"


def test_the_page_of_algorithms_names_every_option_that_changes_learning():
    text = (ROOT / "docs" / "algorithms.md").read_text(encoding="utf-8")
    table = text.partition("## Options of the learner")[2]
    named = set(
        re.findall(r"`(?:\w+\.)*(?:NAME\.)?(\w+)`", "\n".join(re.findall(r"^\|([^|]*)\|", table, re.M)))
    )
    wanted = {field.name for part in (LearnerConfig, RolloutConfig, CriticConfig) for field in fields(part)}
    wanted |= {
        field.name
        for spec in list_algorithms()
        if spec.estimator.__module__.startswith("collm_agents.")
        for field in fields(spec.estimator)
    }
    assert wanted > {"kl_coef", "joint_mode", "share_backbone", "lam", "baseline"}
    assert wanted - named == set()
