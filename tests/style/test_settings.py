"""A setting that nobody reads is a lie to the user: every field of `config.py` is read somewhere."""

import ast
import dataclasses
from collections import Counter
from pathlib import Path

import pytest

import collm_agents
from collm_agents import config

PACKAGE = Path(collm_agents.__file__).parent
SETTINGS = [
    (cls, field.name)
    for cls in vars(config).values()
    if isinstance(cls, type) and issubclass(cls, config.Section) and cls is not config.Section
    for field in dataclasses.fields(cls)
]
SHARED = {name for name, count in Counter(name for _, name in SETTINGS).items() if count > 1}


def reads():
    """Every `base.attribute` read in the package: the last name of the base, and the attribute."""
    found = set()
    for path in PACKAGE.rglob("*.py"):
        if path.name in ("config.py", "overrides.py", "explain.py"):
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Load):
                base = node.value
                name = base.attr if isinstance(base, ast.Attribute) else getattr(base, "id", "")
                found.add((name, node.attr))
    return found


READS = reads()


@pytest.mark.parametrize(("cls", "name"), SETTINGS, ids=[f"{cls.__name__}.{name}" for cls, name in SETTINGS])
def test_every_setting_is_read(cls, name):
    section = cls._where.rpartition(".")[2].rstrip("s")
    readers = {base for base, attribute in READS if attribute == name}
    if name in SHARED:  # several sections have this field, so the reader's name must tell which is meant
        readers = {base for base in readers if section in base or base in ("config", "own", "settings")}
    assert readers, f"{cls._where}.{name} is declared and never read"
