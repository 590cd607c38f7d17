"""`collm new`: names that follow from the path, and one clear line for every path that will not do."""

import os
import sys
from pathlib import Path

import pytest

from collm_agents.author_commands import name_task
from collm_agents.cli import main


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.path", list(sys.path))  # the command puts the folder on it
    return tmp_path


def made(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


@pytest.mark.parametrize(
    ("path", "module", "class_name", "id"),
    [
        ("my_tasks/negotiation.py", "my_tasks.negotiation", "Negotiation", "my_tasks/negotiation-v0"),
        ("week_plan.py", "week_plan", "WeekPlan", "mine/week-plan-v0"),
        ("./a/b/c2_d.py", "a.b.c2_d", "C2D", "b/c2-d-v0"),
    ],
)
def test_names_follow_from_the_path(path, module, class_name, id, folder):
    task = name_task(path)
    assert (task.module, task.class_name, task.id, task.base) == (module, class_name, id, folder)


def test_a_path_elsewhere_is_imported_from_its_own_folder(folder, tmp_path_factory, capsys):
    away = tmp_path_factory.mktemp("away")
    assert main(["new", "task", str(away / "deal.py")]) == 0
    assert made(away) == ["deal.md", "deal.py", "test_deal.py"]
    assert not made(folder)
    told = capsys.readouterr().out
    assert f"  cd {away}\n" in told
    assert "collm check deal:Deal --probe-rewards" in told
    assert "python -m pytest test_deal.py" in told


def test_it_writes_task_tests_page_and_package_and_keeps_a_package_that_is_there(folder, capsys):
    Path("my_tasks").mkdir()
    Path("my_tasks/__init__.py").write_text("mine = 1\n")
    assert main(["new", "task", "my_tasks/deals/negotiation.py"]) == 0
    assert made(folder) == [
        "my_tasks/__init__.py",
        "my_tasks/deals/__init__.py",
        "my_tasks/deals/negotiation.md",
        "my_tasks/deals/negotiation.py",
        "my_tasks/deals/test_negotiation.py",
    ]
    assert Path("my_tasks/__init__.py").read_text() == "mine = 1\n"
    for name in made(folder):
        text = Path(name).read_text()
        assert "$" not in text
        assert not text or text.endswith("\n")
    assert "collm train my_tasks.deals.negotiation:Negotiation" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["task", "my_tasks/negotiation"], "'my_tasks/negotiation' is no Python file"),
        (["task", "negotiation.txt"], "is no Python file; a path such as my_tasks/negotiation.py is wanted"),
        (["task", ""], "is no Python file"),
        (["task", "my-tasks/negotiation.py"], "'my-tasks' cannot name a module"),
        (["task", "2day.py"], "'2day' cannot name a module"),
        (["task", "Negotiation.py"], "'Negotiation' cannot name a module; use small letters"),
        (["task", "while.py"], "'while' cannot name a module"),
        (["task", "a b.py"], "'a b' cannot name a module"),
        (["task", "test_deal.py"], "names with test_ are for tests"),
        (["task", "json.py"], "there is a module 'json' already"),
        (["task", "numpy/deal.py"], "there is a module 'numpy' already"),
        (["task", "writing/tldr.py"], "the id 'writing/tldr-v0' is taken"),
        (["tsk", "deal.py"], "did you mean 'task'?"),
        (["task"], "the following arguments are required: PATH"),
    ],
)
def test_a_path_that_will_not_do_is_one_line_and_nothing_is_written(words, said, folder, capsys):
    assert main(["new", *words]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert said in err
    assert err.startswith("collm: error: ")
    assert err.count("\n") == 1
    assert not made(folder)


@pytest.mark.parametrize("name", ["deal.py", "test_deal.py", "deal.md"])
def test_it_never_writes_over_a_file(name, folder, capsys):
    Path("mine").mkdir()
    (Path("mine") / name).write_text("keep me")
    assert main(["new", "task", "mine/deal.py"]) == 2
    assert f"mine/{name} exists; nothing was written" in capsys.readouterr().err
    assert made(folder) == [f"mine/{name}"]
    assert (Path("mine") / name).read_text() == "keep me"


def test_a_folder_that_cannot_be_written_is_one_line(folder, capsys):
    Path("mine").write_text("a file")
    assert main(["new", "task", "mine/deal.py"]) == 2
    assert "cannot write mine" in capsys.readouterr().err
    assert os.listdir() == ["mine"]
