"""Data rows of function tasks: HumanEval's, MBPP's and the project's own layout, as tasks.

For the environments of `functions`. Rows are trusted data and are parsed here; replies never are. The first
`visible` asserts become public, at least one stays hidden.
"""

from __future__ import annotations

import ast
import re
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from collm_envs.errors import InputError
from collm_envs.sandbox import Asserts, UnitTests
from collm_envs.sandbox.plan import check_function, plan, prompt_helpers
from collm_envs.task import FieldError, Row, RowFormat

RESERVED = ("aux", "aux2", "aux3")
Fields = tuple[dict[str, Any], dict[str, Any]]


def function_formats(visible: int) -> tuple[RowFormat, ...]:
    """The accepted layouts, with so many asserts shown to the agents."""
    return (
        RowFormat(
            {"task_id": str, "prompt": str, "entry_point": str, "tests": list}, OwnRow(visible), "task_id"
        ),
        RowFormat(
            {"task_id": str, "prompt": str, "entry_point": str, "test": str}, HumanEvalRow(visible), "task_id"
        ),
        RowFormat(
            {"task_id": int, "prompt": str, "code": str, "test_list": list},
            MbppRow(visible, "prompt"),
            "task_id",
        ),
        RowFormat(
            {"task_id": int, "text": str, "code": str, "test_list": list}, MbppRow(visible, "text"), "task_id"
        ),
    )


def optional_strings(row: Row, column: str) -> list[str]:
    """A column of strings that may be missing or empty."""
    value = row.get(column)
    items = [] if value is None else list(value)
    if isinstance(value, str) or not all(isinstance(item, str) for item in items):
        raise FieldError(column, "expected a list of strings")
    return items


def optional_text(row: Row, column: str) -> str:
    """A text column that may be missing or empty."""
    value = row.get(column)
    if value is not None and not isinstance(value, str):
        raise FieldError(column, f"expected str, found {type(value).__name__}")
    return value or ""


def parsed(source: str) -> ast.Module:
    """Parse trusted text; published data hold strings with doubtful escapes, of which Python would warn."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return ast.parse(source)


def parse_field(column: str, source: str) -> ast.Module:
    """Parse a field of Python text.

    Raises:
        FieldError: when it is none.
    """
    try:
        return parsed(source)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise FieldError(column, f"not Python ({error})") from None


def require_plan(column: str, tests: Asserts | UnitTests) -> None:
    """Raise a `FieldError` unless the tests can be judged; how is remembered for when they are."""
    try:
        plan(tests)
    except InputError as error:
        raise FieldError(column, str(error)) from None


@dataclass(frozen=True)
class HumanEvalRow:
    """`prompt`, `entry_point`, `test` with `def check(candidate)`; `canonical_solution` may be missing."""

    visible: int

    def __call__(self, row: Row) -> Fields:
        """Public and hidden fields of a row."""
        entry, prompt = row["entry_point"], row["prompt"]
        tests = _checks(row["test"], entry)
        body = optional_text(row, "canonical_solution")
        head, given = _read_prompt(prompt, entry)
        reference = {"solution": prompt + body} if body.strip() else {}
        return _fields("test", prompt, entry, head, given, tests, self.visible, reference)


@dataclass(frozen=True)
class OwnRow:
    """`prompt`, `entry_point`, `tests`; `test_setup`, `aux` and `main` may be missing."""

    visible: int

    def __call__(self, row: Row) -> Fields:
        """Public and hidden fields of a row."""
        entry, prompt = row["entry_point"], row["prompt"]
        tests = Asserts(tuple(row["tests"]), optional_text(row, "test_setup"))
        parse_field("test_setup", tests.setup)
        head, given = _read_prompt(prompt, entry)
        reference = {name: optional_text(row, name) for name in ("aux", "main")}
        known = reference if all(reference.values()) else {}
        return _fields("tests", prompt, entry, head, given, tests, self.visible, known)


@dataclass(frozen=True)
class MbppRow:
    """`prompt` or `text`, `code`, `test_list`; imports, set-up and challenge tests may be missing.

    The text names no function, so the header of the reference is added to it, and the visible asserts.
    """

    visible: int
    column: str

    def __call__(self, row: Row) -> Fields:
        """Public and hidden fields of a row."""
        statements = [*row["test_list"], *optional_strings(row, "challenge_test_list")]
        for column in ("test_list", "challenge_test_list"):
            for statement in optional_strings(row, column):
                parse_field(column, statement)
        code = row["code"].replace("\r\n", "\n")
        tree = parse_field("code", code)
        entry = _called(parsed(statements[0]), tree)
        setup = "\n".join([*optional_strings(row, "test_imports"), optional_text(row, "test_setup_code")])
        parse_field("test_setup_code", setup)
        header = _header(_definition(tree, entry, "code"))
        prompt = f"{row[self.column].strip()}\n\nThe function's header: {header}"
        shown = statements[: _shown(self.visible, len(statements))]
        if shown:
            prompt += "\nIt must pass:\n" + "\n".join(shown)
        tests = Asserts(tuple(statements), setup)
        return _fields("test_list", prompt, entry, tree, "", tests, self.visible, {"solution": code})


@lru_cache(maxsize=4096)
def _checks(source: str, entry: str) -> Asserts:
    try:
        return check_function(source, entry)
    except InputError as error:
        raise FieldError("test", str(error)) from None


def _read_prompt(prompt: str, entry: str) -> tuple[ast.Module | None, str]:
    """A prompt's syntax tree, and what it gives beside the function to be written: imports and helpers.

    A prompt that is no Python is plain text: it has no tree, and gives the imports that stand in it as lines.
    """
    # A prompt ends inside the function's body; `pass` makes it whole.
    source = prompt.rstrip() + "\n    pass\n"
    try:
        return parsed(source), prompt_helpers(source, entry)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        lines = re.findall(r"^(?:import [\w.]+|from [\w.]+ import \w+)(?: as \w+)?$", prompt, re.MULTILINE)
        return None, "\n".join(lines)


def whole_tests(given: str, setup: str, statements: Sequence[str], names: Mapping[str, str]) -> Asserts:
    """Asserts with all that goes before them: what the task gives, and their own setup."""
    return Asserts(tuple(statements), "\n".join(filter(None, (given, setup))), dict(names))


def _fields(
    column: str,
    prompt: str,
    entry: str,
    tree: ast.Module | None,
    given: str,
    tests: Asserts,
    visible: int,
    reference: Mapping[str, str],
) -> Fields:
    if entry in RESERVED:
        raise FieldError("entry_point", f"{entry!r} is a helper's name")
    own = _definition(tree, entry, "prompt").args if tree else None
    require_plan(column, whole_tests(given, tests.setup, tests.statements, tests.names))
    shown = _shown(visible, len(tests.statements))
    arguments = [*own.posonlyargs, *own.args] if own else []
    public = {
        "prompt": prompt,
        "entry_point": entry,
        "parameters": [item.arg for item in arguments],
        "given": given,
        "visible": list(tests.statements[:shown]),
        "examples": [_readable(text, tests.names) for text in tests.statements[:shown]],
    }
    hidden = {
        "tests": list(tests.statements[shown:]),
        "setup": tests.setup,
        "names": dict(tests.names),
        **reference,
    }
    return public, hidden


def _shown(visible: int, total: int) -> int:
    """How many asserts are public: one is always kept back."""
    return min(visible, total - 1)


def _readable(statement: str, names: Mapping[str, str]) -> str:
    """A test as the agents know it: with the function's own name."""
    for name, target in names.items():
        statement = re.sub(rf"\b{re.escape(name)}\b", target.replace("\\", ""), statement)
    return statement


def _definition(tree: ast.Module, entry: str, column: str) -> ast.FunctionDef:
    found = [node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == entry]
    if not found:
        raise FieldError(column, f"no function {entry!r}")
    return found[-1]


def _header(function: ast.FunctionDef) -> str:
    returns = f" -> {ast.unparse(function.returns)}" if function.returns else ""
    return f"def {function.name}({ast.unparse(function.args)}){returns}:"


def _called(test: ast.Module, code: ast.Module) -> str:
    """The function of the reference that the first assert calls."""
    defined = {node.name for node in code.body if isinstance(node, ast.FunctionDef)}
    called: Sequence[str] = [
        node.func.id
        for node in ast.walk(test)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
    ]
    for name in called:
        if name in defined:
            return name
    raise FieldError("test_list", "the first test calls no function of the field 'code'")
