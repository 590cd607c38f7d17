"""How tests will be judged: decided once per tests, from their source alone. For the trainer's side.

Trusted source only is parsed here; a program's never is. The mildest way that fits is taken: `calls` (arguments
go in, answers come out and are compared outside), `asserts` and `unittest` (tests run in a process of their own
and reach the program over a socket), or `inproc` (tests run beside the program, which could forge them).
"""

from __future__ import annotations

import ast
import functools
import importlib.util
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from collm_envs.errors import InputError
from collm_envs.sandbox.decompose import BUILTINS, bound_names, decompose, setup_names
from collm_envs.sandbox.results import Asserts, UnitTests


@dataclass(frozen=True)
class Plan:
    """How tests are judged.

    Attributes:
        names: one per test, as results report them.
        mode: `calls`, `asserts`, `unittest` or `inproc`.
        calls: for `calls`, `[index, function, args, kwargs]` of each test; this is all that the program's
            process learns of it.
        expects: for `calls`, what `verdict.judge` takes, for each test.
        tests: for the other modes, the job of the process that runs the tests.
        reason: why `inproc` was taken; "" otherwise.
    """

    names: tuple[str, ...]
    mode: str
    calls: tuple[list[Any], ...] = ()
    expects: tuple[dict[str, Any], ...] = ()
    tests: dict[str, Any] = field(default_factory=dict)
    reason: str = ""

    def wire(self) -> dict[str, Any]:
        """The plan as JSON-able data."""
        return {
            "names": list(self.names),
            "mode": self.mode,
            "calls": list(self.calls),
            "expects": list(self.expects),
            "tests": self.tests,
        }


def plan(tests: Asserts | UnitTests) -> Plan:
    """Decide how tests are judged; the same tests are planned once.

    Raises:
        InputError: when the tests are no Python, or hold no test.
    """
    if isinstance(tests, UnitTests):
        return _plan_unittest(tests.source, tests.setup)
    return _plan_asserts(tuple(tests.statements), tests.setup, tuple(sorted(tests.names.items())))


def _parse(source: str, what: str) -> ast.Module:
    try:
        return ast.parse(source)
    except (SyntaxError, ValueError, RecursionError) as error:
        raise InputError(f"{what} is no Python: {error}") from None


@functools.lru_cache(maxsize=4096)
def _plan_asserts(statements: tuple[str, ...], setup: str, names: tuple[tuple[str, str], ...]) -> Plan:
    if not statements:
        raise InputError("no asserts to run")
    before = _parse(setup, "the setup of the asserts")
    known = setup_names(before, dict(names))
    parts = []
    for number, source in enumerate(statements):
        body = _parse(source, f"assert {number}").body
        parts.append(decompose(body[0], known) if known is not None and len(body) == 1 else None)
    titles = tuple(source.strip() for source in statements)
    if all(part is not None for part in parts):
        calls = tuple([index, *part.call] for index, part in enumerate(parts) if part)
        return Plan(titles, "calls", calls, tuple(part.expect for part in parts if part))
    whole = _parse("\n".join([setup, *statements]), "the asserts")
    setup = implied_imports(whole) + setup
    job = {"kind": "asserts", "setup": setup, "statements": list(statements), "bindings": dict(names)}
    job |= {"names": list(titles), "operators": operator_classes(whole)}
    reason = needs_program(whole)
    return Plan(titles, "inproc" if reason else "asserts", tests=job, reason=reason)


@functools.lru_cache(maxsize=1024)
def _plan_unittest(source: str, setup: str) -> Plan:
    tree = _parse(source, "the unit test")
    before = _parse(setup, "the setup of the unit test")
    names = tuple(unittest_names(tree))
    if not names:
        raise InputError("no unittest.TestCase with a test method in the unit test")
    whole = ast.Module([*before.body, *tree.body], [])
    setup = implied_imports(whole) + setup
    job = {"kind": "unittest", "setup": setup, "source": source, "bindings": {}, "names": list(names)}
    job["operators"] = operator_classes(whole)
    reason = needs_program(whole)
    return Plan(names, "inproc" if reason else "unittest", tests=job, reason=reason)


def unittest_names(tree: ast.Module) -> Iterator[str]:
    """`Class.method` of every test in the source, inherited ones too; methods in the order unittest takes."""
    classes = {node.name: node for node in tree.body if isinstance(node, ast.ClassDef)}

    def bases(node: ast.ClassDef) -> list[str]:
        return [ast.unparse(base).rpartition(".")[2] for base in node.bases]

    def is_case(node: ast.ClassDef) -> bool:
        return any(
            name.endswith("TestCase") if name not in classes else name != node.name and is_case(classes[name])
            for name in bases(node)
        )

    def methods(node: ast.ClassDef) -> dict[str, None]:
        found: dict[str, None] = {}
        for name in bases(node):
            if name in classes and name != node.name:
                found |= methods(classes[name])
        for item in node.body:
            if isinstance(item, ast.FunctionDef | ast.AsyncFunctionDef) and item.name.startswith("test"):
                found[item.name] = None
        return found

    for name, node in classes.items():
        if is_case(node):
            yield from (f"{name}.{method}" for method in sorted(methods(node)))


_MODULES = {
    name: f"import {name}" for name in ("collections", "copy", "functools", "itertools", "json", "math")
}
_MODULES |= {
    name: f"import {name}" for name in ("operator", "os", "random", "re", "statistics", "string", "sys")
}
_MODULES |= {"np": "import numpy as np", "pd": "import pandas as pd"}


def implied_imports(tree: ast.Module) -> str:
    """Imports that tests forgot, since the program happens to make them.

    Without these `math.isclose(f(2), 4)` would ask the program's `math`.
    """
    bound = bound_names(tree)
    used = {
        node.value.id
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name)
    }
    lines = [
        f"try:\n    {_MODULES[name]}\nexcept ImportError:\n    pass\n"
        for name in sorted(used & _MODULES.keys() - bound)
    ]
    return "".join(lines)


def operator_classes(tree: ast.Module) -> list[str]:
    """Classes with whose objects the tests themselves do arithmetic, such as `v * 2` after `v = Vector(1)`.

    Objects of these may be given plain operands; those of others may not, since `f(2) - 4` would tell an object
    that the program returned in place of a number what is expected of it.
    """
    made: dict[str, str] = {}
    for node in ast.walk(tree):
        match node:
            case ast.Assign(value=ast.Call(func=ast.Name(id=name))):
                made |= {ast.unparse(target): name for target in node.targets}
    found = set()
    for node in ast.walk(tree):
        operands: list[ast.expr] = []
        if isinstance(node, ast.BinOp):
            operands = [node.left, node.right]
        elif isinstance(node, ast.Compare) and not all(isinstance(op, _PLAIN_COMPARE) for op in node.ops):
            operands = [node.left, *node.comparators]
        for operand in operands:
            if isinstance(operand, ast.Call) and isinstance(operand.func, ast.Name):
                found.add(operand.func.id)
            found.add(made.get(ast.unparse(operand), ""))
    return sorted(name for name in found if name[:1].isupper())


_PLAIN_COMPARE = (ast.Eq, ast.NotEq, ast.Is, ast.IsNot)
_CAPTURES = {
    "redirect_stdout",
    "redirect_stderr",
    "assertLogs",
    "assertNoLogs",
    "assertWarns",
    "assertWarnsRegex",
}
_CAPTURES |= {"catch_warnings", "capsys", "capfd", "monkeypatch"}
_STREAMS = {"stdout", "stderr", "stdin"}


def needs_program(tree: ast.Module) -> str:
    """Why tests must run in the program's own process; "" when they need not.

    Such are tests that reach into it by other ways than its functions and objects: they patch what it uses, read
    what it prints, logs or warns, change its process's state, inspect its code, or derive classes from its own.
    """
    modules = {
        (alias.asname or alias.name).partition(".")[0]
        for node in ast.walk(tree)
        if isinstance(node, ast.Import)
        for alias in node.names
    }
    bound = bound_names(tree)
    for node in ast.walk(tree):
        reason = _reason(node, modules, bound)
        if reason:
            return f"line {node.lineno}: {reason}"  # type: ignore[attr-defined]
    return ""


def _reason(node: ast.AST, modules: set[str], bound: frozenset[str]) -> str:
    match node:
        case ast.Name(id="patch") | ast.Attribute(attr="patch"):
            return "patches what the program uses"
        case ast.Name(id=name) | ast.Attribute(attr=name) if name in _CAPTURES:
            return f"{name} captures what the program does"
        case ast.Name(id="inspect", ctx=ast.Load()) if "inspect" in modules:
            return "inspects the program's code"
        case ast.Attribute(value=ast.Name(id="sys"), attr=name) if name in _STREAMS:
            return f"uses sys.{name}"
        case ast.Attribute(value=ast.Name(id=name), ctx=ast.Store()) if name in modules:
            return f"changes the module {name}"
        case ast.Attribute(value=ast.Name(id="os"), attr="chdir" | "putenv"):
            return "changes the process"
        case ast.Subscript(value=ast.Attribute(value=ast.Name(id="os"), attr="environ"), ctx=ast.Store()):
            return "changes the process"
        case ast.Await() | ast.AsyncFunctionDef():
            return "awaits the program"
        case ast.ClassDef():
            for base in node.bases:
                if isinstance(base, ast.Name) and base.id not in bound and base.id not in BUILTINS:
                    return f"derives a class from the program's {base.id}"
    return ""


def _holds_assert(node: ast.AST) -> bool:
    return any(isinstance(part, ast.Assert) for part in ast.walk(node))


def check_function(source: str, entry_point: str) -> Asserts:
    """Tests written as `def check(candidate): ...`, as asserts.

    Each assert of its body is a test; a loop, `with` or `if` that holds asserts is one test. The other statements,
    and those of the module, are the setup; one that stands behind an assert becomes part of each test after it.
    An assert of a constant (`assert True`) tests nothing and is left out.

    Args:
        source: module that defines `check`.
        entry_point: the program's function that `check` is called with.

    Raises:
        InputError: when there is no such function or no test in it.
    """
    tree = _parse(source, "the check function")
    checks = [node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == "check"]
    if len(checks) != 1 or len(checks[0].args.args) != 1:
        raise InputError("the test must define check(candidate) once")
    before = [node for node in tree.body if node is not checks[0]]
    between: list[ast.stmt] = []
    statements: list[str] = []
    for node in checks[0].body:
        if isinstance(node, ast.Assert) and isinstance(node.test, ast.Constant) and node.test.value:
            continue
        if _holds_assert(node) and not isinstance(node, ast.FunctionDef | ast.ClassDef):
            statements.append(ast.unparse(ast.Module([*between, node], [])))
        elif not (isinstance(node, ast.Expr) and isinstance(node.value, ast.Name | ast.Constant)):
            (between if statements else before).append(node)
    if not statements:
        raise InputError("no test in check")
    argument = checks[0].args.args[0].arg
    return Asserts(tuple(statements), ast.unparse(ast.Module(before, [])), {argument: entry_point})


def prompt_helpers(prompt: str, entry_point: str) -> str:
    """The complete definitions in a prompt, as setup for tests that use them.

    Imports, constants and functions other than the one to be written, and other than those that are a docstring
    only.
    """
    tree = _parse(prompt, "the prompt")
    kept = []
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            body = [item for item in node.body if not (isinstance(item, ast.Expr) and _is_text(item.value))]
            if node.name == entry_point or all(isinstance(item, ast.Pass) for item in body):
                continue
        kept.append(node)
    return ast.unparse(ast.Module(kept, []))


def _is_text(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and (isinstance(node.value, str) or node.value is Ellipsis)


@functools.lru_cache(maxsize=4096)
def missing_packages(source: str) -> tuple[str, ...]:
    """Packages that trusted source imports at its top level and that are not installed here.

    Where a program or its tests need one, a failure says nothing about the program.
    """
    found: dict[str, None] = {}
    for node in _parse(source, "the source").body:
        if isinstance(node, ast.Import):
            found |= dict.fromkeys(alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found[node.module.partition(".")[0]] = None
    known = sys.stdlib_module_names
    return tuple(name for name in found if name not in known and importlib.util.find_spec(name) is None)
