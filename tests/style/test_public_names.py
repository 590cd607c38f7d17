"""What both packages offer is annotated completely, marked as typed, and found in the reference."""

import importlib
import inspect
import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
REFERENCE = ROOT / "docs" / "reference"
MODULES = sorted(
    {
        name
        for page in REFERENCE.glob("*.md")
        for name in re.findall(r"^\| `(collm_[\w.]+)` \|", page.read_text(), re.M)
    }
)


def own_functions(module):
    """Public functions, and public methods of public classes, with their names."""
    names = getattr(module, "__all__", None) or [name for name in vars(module) if not name.startswith("_")]
    for name in names:
        value = getattr(module, name)
        if not getattr(value, "__module__", "").startswith("collm_"):
            continue
        if inspect.isfunction(value):
            yield name, value
        elif inspect.isclass(value):
            for own, member in vars(value).items():
                plain = getattr(member, "__func__", getattr(member, "fget", member))
                written = inspect.isfunction(plain) and plain.__code__.co_filename.startswith(str(ROOT))
                if written and (not own.startswith("_") or own == "__init__"):
                    yield f"{name}.{own}", plain


def bare(function):
    """Parameters without annotation, `return` among them."""
    signature = inspect.signature(function)
    missing = [
        name
        for i, (name, parameter) in enumerate(signature.parameters.items())
        if parameter.annotation is parameter.empty and not (i == 0 and name in ("self", "cls"))
    ]
    return missing + ["return"] * (signature.return_annotation is signature.empty)


@pytest.mark.parametrize("name", MODULES)
def test_public_names_are_annotated(name):
    found = {label: bare(function) for label, function in own_functions(importlib.import_module(name))}
    assert {label: missing for label, missing in found.items() if missing} == {}


def test_a_bare_name_would_be_noticed():
    def half(a: int, b, *rest):
        return a

    assert bare(half) == ["b", "rest", "return"]
    assert len(MODULES) > 40
    assert len(list(own_functions(importlib.import_module("collm_envs")))) > 40


@pytest.mark.parametrize("package", ["collm_envs", "collm_agents"])
def test_a_package_is_marked_as_typed(package):
    assert (ROOT / package / "py.typed").is_file()
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    assert "py.typed" in project["tool"]["setuptools"]["package-data"][package]
