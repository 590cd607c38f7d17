"""The verb `new`: a file to start from, for people who write tasks.

For `cli`, which dispatches to it. It writes the templates of `templates/`, filled in with the names that follow
from the path, and never writes over a file. Works without torch.
"""

from __future__ import annotations

import argparse
import importlib.util
import keyword
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from string import Template

from collm_envs import list_envs
from collm_envs.errors import InputError, require_choice

KINDS = ("task",)
_WORD = re.compile(r"[a-z][a-z0-9_]*")


@dataclass(frozen=True)
class NewTask:
    """Names of a task to be written, all drawn from its path.

    Attributes:
        base: folder from which the module is imported.
        folder: folder of the files.
        stem: the file's name without its suffix.
        module: dotted name, as seen from `base`.
    """

    base: Path
    folder: Path
    stem: str
    module: str

    @property
    def class_name(self) -> str:
        """Such as `WeekPlan` for `week_plan.py`."""
        return "".join(word.capitalize() for word in self.stem.split("_"))

    @property
    def id(self) -> str:
        """Such as `my_tasks/negotiation-v0`; a file in no folder of its own is `mine/...`."""
        *above, _ = self.module.split(".")
        return f"{above[-1] if above else 'mine'}/{self.stem.strip('_').replace('_', '-')}-v0"

    @property
    def name(self) -> str:
        """What the command line calls it."""
        return f"{self.module}:{self.class_name}"

    def texts(self) -> Mapping[Path, str]:
        """The files to be written, by path."""
        test = self.folder / f"test_{self.stem}.py"
        words = {
            "id": self.id,
            "module": self.module,
            "class_name": self.class_name,
            "test_path": test.relative_to(self.base).as_posix(),
        }
        made = {
            path: Template(_template(name)).substitute(words)
            for path, name in (
                (self.folder / f"{self.stem}.py", "task.py.txt"),
                (test, "test_task.py.txt"),
                (self.folder / f"{self.stem}.md", "task.md.txt"),
            )
        }
        package = self.folder
        while package != self.base:  # so that pytest, too, imports the tests by their dotted name
            if not (package / "__init__.py").exists():
                made[package / "__init__.py"] = ""
            package = package.parent
        return made


def _template(name: str) -> str:
    return (files("collm_agents") / "templates" / name).read_text(encoding="utf-8")


def build_new(parser: argparse.ArgumentParser) -> None:
    """Arguments of `new`."""
    parser.add_argument("kind", metavar="KIND", help="what to write: task")
    parser.add_argument("path", metavar="PATH", help="the file, such as my_tasks/negotiation.py")


def run_new(args: argparse.Namespace) -> int:
    """Write a task with its tests and its page, and say what to do next."""
    require_choice("KIND", args.kind, KINDS, "collm new")
    task = name_task(args.path)
    texts = task.texts()
    for path in texts:
        if path.exists() or path.is_symlink():
            raise InputError(f"{_shown(path)} exists; nothing was written")
    _write(texts)
    start = "" if task.base == Path.cwd() else f"  cd {task.base}\n"
    test = next(path for path in texts if path.name.startswith("test_"))
    print(
        f"{task.id}, {task.name}, written to\n"
        + "".join(f"  {_shown(path)}\n" for path in texts)
        + f"\nnext:\n{start}"
        f"  collm check {task.name} --probe-rewards\n"
        f"  python -m pytest {test.relative_to(task.base)}\n"
        f"  collm play {task.name} --agents oracle\n"
        f"  collm train {task.name} joint_samples=256"
    )
    return 0


def name_task(text: str) -> NewTask:
    """The names of a task from the path of its file.

    Raises:
        InputError: for a path that is no Python file, or that could not be imported under its name.
    """
    path = Path(text).expanduser()
    if path.suffix != ".py":
        raise InputError(f"{text!r} is no Python file; a path such as my_tasks/negotiation.py is wanted")
    whole, here = (path if path.is_absolute() else Path.cwd() / path).resolve(), Path.cwd()
    base = here if whole.is_relative_to(here) else whole.parent
    words = whole.relative_to(base).with_suffix("").parts
    for word in words:
        if not _WORD.fullmatch(word) or keyword.iskeyword(word) or not word.strip("_"):
            raise InputError(
                f"{text!r}: {word!r} cannot name a module; use small letters, digits and _, from a letter on"
            )
    if words[-1].startswith("test_"):
        raise InputError(
            f"{text!r}: names with test_ are for tests; its tests go into test_NAME.py beside it"
        )
    _refuse_taken(text, words[0], base)
    task = NewTask(base, whole.parent, words[-1], ".".join(words))
    if task.id in [spec.id for spec in list_envs()]:
        raise InputError(f"{text!r}: the id {task.id!r} is taken; choose another name or folder")
    return task


def _refuse_taken(text: str, top: str, base: Path) -> None:
    """A module of the standard library or of an installed package would be imported in the file's place."""
    known = top in sys.stdlib_module_names
    if not known:
        try:
            found = importlib.util.find_spec(top)
        except (ImportError, ValueError):
            found = None
        origin = (
            found.origin if found else None
        )  # a folder without __init__.py has none, and yields to one with
        known = origin is not None and not Path(origin).resolve().is_relative_to(base)
    if known:
        raise InputError(f"{text!r}: there is a module {top!r} already, which Python would import instead")


def _write(texts: Mapping[Path, str]) -> None:
    try:
        for path, text in texts.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("x", encoding="utf-8") as file:
                file.write(text)
    except OSError as error:
        raise InputError(f"cannot write {_shown(Path(error.filename or '?'))}: {error.strerror}") from None


def _shown(path: Path) -> str:
    return str(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path)
