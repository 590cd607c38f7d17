"""From nothing to a trained team of a task of one's own, as a user would: real commands in an empty folder."""

import json

import pytest
from cli_process import REPO, assert_bad_input, collm, python

pytestmark = pytest.mark.system
NAME = "my_tasks.negotiation:Negotiation"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with the task that `collm new` writes."""
    made = tmp_path_factory.mktemp("author")
    done = collm("new", "task", "my_tasks/negotiation.py", cwd=made)
    assert done.returncode == 0, done.stderr
    assert f"collm check {NAME} --probe-rewards" in done.stdout
    return made


def test_the_task_keeps_the_contract_and_no_degenerate_agent_beats_its_novice(folder):
    done = collm("check", NAME, "--probe-rewards", cwd=folder)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{NAME}: all 16 hold" in done.stdout
    assert "none beats the novice" in done.stdout
    assert "FAIL" not in done.stdout
    assert "warn" not in done.stdout


@pytest.mark.parametrize(
    "start", [["-m", "pytest"], ["-P", "-m", "pytest"]]
)  # with and without the folder on the path
def test_its_own_tests_pass(start, folder):
    done = python(*start, "-q", "-p", "no:cacheprovider", "my_tasks", cwd=folder)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "10 passed" in done.stdout


def test_its_page_and_an_episode_are_shown(folder):
    done = collm("envs", NAME, cwd=folder)
    assert done.returncode == 0, done.stderr
    assert "`valid` (a gate), `wished` and `apart`, 1 each" in done.stdout
    done = collm("play", NAME, "--agents", "oracle", "--seed", "3", cwd=folder)
    assert "score 3.000 of 3.000, success" in done.stdout


def test_it_trains_with_no_registration_and_the_run_is_evaluated_by_its_name(folder):
    settings = ("joint_samples=64", "eval.final_tasks=8", "out=runs/first", "run.threads=1")
    done = collm("train", NAME, *settings, cwd=folder)
    assert done.returncode == 0, done.stderr
    result = json.loads((folder / "runs" / "first" / "result.json").read_text())
    assert result["env"] == NAME
    assert result["joint_samples"] == 64
    assert result["references"]["oracle"]["metrics"]["score"]["mean"] == 3
    assert collm("eval", "runs/first", "tasks=4", cwd=folder).returncode == 0


def test_a_mistake_is_shown_with_file_line_and_remedy(folder):
    source = (folder / "my_tasks" / "negotiation.py").read_text()
    broken = source.replace("actions[agent].strip() for", "str(int(actions[agent])) for")
    assert broken != source
    (folder / "my_tasks" / "broken.py").write_text(broken.replace("negotiation-v0", "broken-v0"))
    at = next(i for i, line in enumerate(broken.splitlines(), 1) if "str(int(" in line)
    done = collm("check", "my_tasks.broken:Negotiation", "--json", cwd=folder)
    assert done.returncode == 1, done.stderr
    found = [one for one in json.loads(done.stdout)["findings"] if not one["ok"]]
    assert {"hostile replies", "determinism"} <= {one["check"] for one in found}
    assert {one["where"] for one in found} == {f"my_tasks/broken.py:{at}"}
    assert all(one["remedy"] for one in found)
    done = collm("check", "my_tasks.broken:Negotiation", cwd=folder)
    assert done.returncode == 1
    assert f"my_tasks/broken.py:{at}" in done.stdout
    assert "a bad reply is scored" in done.stdout


def test_a_second_one_of_that_name_is_refused(folder):
    before = (folder / "my_tasks" / "negotiation.py").read_text()
    done = collm("new", "task", "my_tasks/negotiation.py", cwd=folder)
    assert_bad_input(done, folder, {path.name for path in folder.iterdir()})
    assert "my_tasks/negotiation.py exists" in done.stderr
    assert (folder / "my_tasks" / "negotiation.py").read_text() == before


def test_what_is_written_is_formatted_and_clean(folder):
    files = ("my_tasks/negotiation.py", "my_tasks/test_negotiation.py")
    for words in (("check", "--ignore", "D,I001"), ("format", "--check")):
        done = python("-m", "ruff", *words, "--config", str(REPO / "pyproject.toml"), *files, cwd=folder)
        assert done.returncode == 0, done.stdout + done.stderr
