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

from collm_envs.errors import DataError, InputError
from collm_envs.sandbox import Asserts
from collm_envs.sandbox.plan import check_function, prompt_helpers
from collm_envs.task import Row, RowFormat

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
        raise DataError(f"task {row.get('task_id')!r}, field {column!r}: expected a list of strings")
    return items


def optional_text(row: Row, column: str) -> str:
    """A text column that may be missing or empty."""
    value = row.get(column)
    if value is not None and not isinstance(value, str):
        found = type(value).__name__
        raise DataError(f"task {row.get('task_id')!r}, field {column!r}: expected str, found {found}")
    return value or ""


def parsed(source: str) -> ast.Module:
    """Parse trusted text; published data hold strings with doubtful escapes, of which Python would warn."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return ast.parse(source)


def parse_field(row: Row, column: str, source: str) -> ast.Module:
    """Parse a field of Python text.

    Raises:
        DataError: naming task and field.
    """
    try:
        return parsed(source)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise DataError(f"task {row.get('task_id')!r}, field {column!r}: not Python ({error})") from None


@dataclass(frozen=True)
class HumanEvalRow:
    """`prompt`, `entry_point`, `test` with `def check(candidate)`; `canonical_solution` may be missing."""

    visible: int

    def __call__(self, row: Row) -> Fields:
        """Public and hidden fields of a row."""
        entry, prompt = row["entry_point"], row["prompt"]
        tests = _checks(row["test"], entry, str(row.get("task_id")))
        body = optional_text(row, "canonical_solution")
        head, given = _read_prompt(prompt, entry)
        reference = {"solution": prompt + body} if body.strip() else {}
        return _fields(row, prompt, entry, head, given, tests, self.visible, reference)


@dataclass(frozen=True)
class OwnRow:
    """`prompt`, `entry_point`, `tests`; `test_setup`, `aux` and `main` may be missing."""

    visible: int

    def __call__(self, row: Row) -> Fields:
        """Public and hidden fields of a row."""
        entry, prompt = row["entry_point"], row["prompt"]
        tests = Asserts(tuple(row["tests"]), optional_text(row, "test_setup"))
        head, given = _read_prompt(prompt, entry)
        reference = {name: optional_text(row, name) for name in ("aux", "main")}
        return _fields(
            row, prompt, entry, head, given, tests, self.visible, reference if all(reference.values()) else {}
        )


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
        code = row["code"].replace("\r\n", "\n")
        tree = parse_field(row, "code", code)
        entry = _called(parse_field(row, "test_list", statements[0]), tree, row)
        setup = "\n".join([*optional_strings(row, "test_imports"), optional_text(row, "test_setup_code")])
        parse_field(row, "test_setup_code", setup)
        header = _header(_definition(tree, entry, row, "code"))
        prompt = f"{row[self.column].strip()}\n\nThe function's header: {header}"
        shown = statements[: _shown(self.visible, len(statements))]
        if shown:
            prompt += "\nIt must pass:\n" + "\n".join(shown)
        tests = Asserts(tuple(statements), setup)
        return _fields(row, prompt, entry, tree, "", tests, self.visible, {"solution": code})


@lru_cache(maxsize=4096)
def _checks(source: str, entry: str, task: str) -> Asserts:
    try:
        return check_function(source, entry)
    except InputError as error:
        raise DataError(f"task {task!r}, field 'test': {error}") from None


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


def _fields(
    row: Row,
    prompt: str,
    entry: str,
    tree: ast.Module | None,
    given: str,
    tests: Asserts,
    visible: int,
    reference: Mapping[str, str],
) -> Fields:
    if entry in RESERVED:
        raise DataError(f"task {row.get('task_id')!r}, field 'entry_point': {entry!r} is a helper's name")
    own = _definition(tree, entry, row, "prompt").args if tree else None
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


def _definition(tree: ast.Module, entry: str, row: Row, column: str) -> ast.FunctionDef:
    found = [node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == entry]
    if not found:
        raise DataError(f"task {row.get('task_id')!r}, field {column!r}: no function {entry!r}")
    return found[-1]


def _header(function: ast.FunctionDef) -> str:
    returns = f" -> {ast.unparse(function.returns)}" if function.returns else ""
    return f"def {function.name}({ast.unparse(function.args)}){returns}:"


def _called(test: ast.Module, code: ast.Module, row: Row) -> str:
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
    raise DataError(
        f"task {row.get('task_id')!r}, field 'test_list': the first test calls no function of the field 'code'"
    )
