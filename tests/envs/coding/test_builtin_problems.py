"""The built-in coding problems: well-formed rows, right references, tests that catch broken programs."""

from __future__ import annotations

import ast
import doctest
import json
import re
import signal
import unittest
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from mutants import hollow, mutants_of

import collm_envs

DATA = Path(collm_envs.__file__).parent / "data"
FUNCTION_FIELDS = {"task_id", "entry_point", "prompt", "tests", "test_setup", "aux", "main"}
CLASS_FIELDS = {
    *("task_id", "class_name", "import_statement", "class_description", "class_constructor"),
    *("skeleton", "methods_info", "test", "test_classes", "solution_code"),
}
# CPU seconds a broken program may take; the references take less than a millisecond.
LIMIT_S = 0.04


def rows_of(name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (DATA / name).read_text(encoding="utf-8").splitlines()]


TRAIN, TEST = rows_of("coding_train.jsonl"), rows_of("coding_test.jsonl")
CLASS_TRAIN, CLASS_TEST = rows_of("classes_train.jsonl"), rows_of("classes_test.jsonl")
PROBLEMS, CLASSES = TRAIN + TEST, CLASS_TRAIN + CLASS_TEST
each_problem = pytest.mark.parametrize("row", PROBLEMS, ids=lambda row: row["task_id"])
each_class = pytest.mark.parametrize("row", CLASSES, ids=lambda row: row["task_id"])


class TooSlow(BaseException):
    """A broken program ran over `LIMIT_S`; no `except Exception` of a program can catch it."""


@pytest.fixture(autouse=True)
def alarm() -> Iterator[None]:
    """Programs that never end are cut by the clock of this process' own CPU time."""

    def ring(signum: int, frame: object) -> None:
        raise TooSlow

    before = signal.signal(signal.SIGVTALRM, ring)
    yield
    signal.setitimer(signal.ITIMER_VIRTUAL, 0)
    signal.signal(signal.SIGVTALRM, before)


def imports_of(row: dict[str, Any]) -> str:
    nodes = [node for node in ast.parse(row["prompt"]).body if not isinstance(node, ast.FunctionDef)]
    return "\n".join(ast.unparse(node) for node in nodes)


def program_of(row: dict[str, Any], aux: str | None = None, main: str | None = None) -> str:
    aux, main = row["aux"] if aux is None else aux, row["main"] if main is None else main
    return "\n\n".join([imports_of(row), aux, row["test_setup"], main])


def namespace_of(row: dict[str, Any]) -> dict[str, Any]:
    names: dict[str, Any] = {}
    exec(program_of(row), names)
    return names


def survives(program: str, tests: list[str]) -> bool:
    """Whether the program passes every test within the limit."""
    names: dict[str, Any] = {}
    signal.setitimer(signal.ITIMER_VIRTUAL, LIMIT_S)
    try:
        exec(program, names)
        for test in tests:
            exec(test, names)
    except (Exception, TooSlow):
        return False
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
    return True


def prose_of(docstring: str) -> str:
    """The text of a docstring without its examples, on one line."""
    return " ".join(docstring.split(">>>")[0].split())


def sentences_of(docstring: str) -> list[str]:
    return re.split(r"(?<=\.)\s+(?=[A-Z])", prose_of(docstring))


def examples_fail(docstring: str, names: dict[str, Any]) -> tuple[int, str]:
    """How many doctest examples there are, and the report of those that fail."""
    found = doctest.DocTestParser().get_doctest(docstring, dict(names), "example", None, 0)
    report: list[str] = []
    doctest.DocTestRunner(verbose=False).run(found, out=report.append)
    return len(found.examples), "".join(report)


# --- functions: shape -------------------------------------------------------------------------------------------


def test_there_are_enough_problems_in_both_splits() -> None:
    assert (len(TRAIN), len(TEST)) == (48, 16)


def test_ids_and_names_are_unique_and_no_sentence_is_in_both_splits() -> None:
    for field in ("task_id", "entry_point", "prompt", "aux", "main"):
        values = [row[field] for row in PROBLEMS]
        assert len(set(values)) == len(values), field
    sentences = [
        {text for row in rows for text in sentences_of(ast.get_docstring(ast.parse(row["prompt"]).body[-1]))}
        for rows in (TRAIN, TEST)
    ]
    assert not sentences[0] & sentences[1]
    asserts = [{text.split("(", 1)[1] for row in rows for text in row["tests"]} for rows in (TRAIN, TEST)]
    assert len(asserts[0] & asserts[1]) <= 8, "only trivial calls, such as those on nothing, may coincide"


@each_problem
def test_fields_have_their_types_and_names_agree(row: dict[str, Any]) -> None:
    assert set(row) == FUNCTION_FIELDS
    assert all(isinstance(row[field], str) for field in FUNCTION_FIELDS - {"tests"})
    assert re.fullmatch(r"collm/[a-z_]+", row["task_id"])
    assert 6 <= len(row["tests"]) <= 10
    assert len(set(row["tests"])) == len(row["tests"])
    prompt, aux, main = (ast.parse(row[field]).body[-1] for field in ("prompt", "aux", "main"))
    assert [node.name for node in (prompt, aux, main)] == [row["entry_point"], "aux", row["entry_point"]]
    assert len(ast.parse(row["aux"]).body) == len(ast.parse(row["main"]).body) == 1
    assert ast.unparse(prompt.args) == ast.unparse(main.args)
    assert all(arg.annotation for arg in prompt.args.args)
    assert prompt.returns is not None


@each_problem
def test_the_prompt_explains_the_task_and_not_its_solution(row: dict[str, Any]) -> None:
    function = ast.parse(row["prompt"]).body[-1]
    assert isinstance(function, ast.FunctionDef)
    assert len(function.body) == 1, "a prompt has no body"
    docstring = ast.get_docstring(function)
    assert 2 <= len(sentences_of(docstring)) <= 5
    assert not re.search(r"\baux\b|\bhelper\b", row["prompt"])
    assert max(map(len, row["prompt"].splitlines())) <= 124


@each_problem
def test_a_test_compares_a_call_with_a_literal_and_the_first_is_the_shown_example(
    row: dict[str, Any],
) -> None:
    shown = 0
    for text in row["tests"]:
        (node,) = ast.parse(text).body
        assert isinstance(node, ast.Assert)
        assert isinstance(node.test, ast.Compare)
        call, (operator,), (wanted,) = node.test.left, node.test.ops, node.test.comparators
        assert isinstance(call, ast.Call)
        assert (ast.unparse(call.func), type(operator), call.keywords) == (row["entry_point"], ast.Eq, [])
        for literal in (*call.args, wanted):
            ast.literal_eval(literal)
        assert not isinstance(ast.literal_eval(wanted), float)
        shown += ast.get_source_segment(text, call) in row["prompt"]
    docstring = ast.get_docstring(ast.parse(row["prompt"]).body[-1])
    example = doctest.DocTestParser().get_examples(docstring)[0]
    assert row["tests"][0].startswith(f"assert {example.source.strip()} == ")
    assert len(row["tests"]) - shown >= 4, "at least four tests are not in the prompt"


@each_problem
def test_main_builds_on_what_aux_returns(row: dict[str, Any]) -> None:
    aux, main = ast.parse(row["aux"]), ast.parse(row["main"])
    assert any(isinstance(node, ast.Return) and node.value is not None for node in ast.walk(aux))

    def calls(node: ast.AST) -> bool:
        return any(isinstance(n, ast.Call) and ast.unparse(n.func) == "aux" for n in ast.walk(node))

    assert calls(main)
    thrown_away = [n for n in ast.walk(main) if isinstance(n, ast.Expr) and isinstance(n.value, ast.Call)]
    assert not any(ast.unparse(n.value.func) == "aux" for n in thrown_away)
    statements = [node for node in ast.walk(main) if isinstance(node, ast.stmt)][1:]
    own = [n for n in statements if not isinstance(n, (ast.If, ast.For, ast.While)) and not calls(n)]
    assert len(own) >= 2, "main is more than a thin wrapper"


# --- functions: meaning -----------------------------------------------------------------------------------------


@each_problem
def test_the_reference_passes_its_tests_and_its_examples(row: dict[str, Any]) -> None:
    for test in row["tests"]:
        exec(test, namespace_of(row))
    count, report = examples_fail(ast.get_docstring(ast.parse(row["prompt"]).body[-1]), namespace_of(row))
    assert count in (1, 2)
    assert not report
    assert survives(program_of(row), row["tests"])


@each_problem
def test_programs_that_do_nothing_fail_every_problem(row: dict[str, Any]) -> None:
    tests = row["tests"]
    assert not survives("", tests)
    assert not survives(row["aux"], tests)
    assert not survives(row["main"], tests), "without aux the entry point must not work"
    assert not survives(program_of(row, aux=hollow(row["aux"])), tests)
    assert not survives(program_of(row, main=hollow(row["main"])), tests)


def kills_of(row: dict[str, Any]) -> list[tuple[str, str, bool]]:
    """For every broken program of a problem the part, the kind of slip, and whether the tests notice."""
    kills = []
    for part in ("aux", "main"):
        for kind, source in mutants_of(row[part]):
            kills.append((part, kind, not survives(program_of(row, **{part: source}), row["tests"])))
    return kills


def test_tests_catch_broken_programs() -> None:
    rates = {}
    for row in PROBLEMS:
        kills = kills_of(row)
        for part in ("aux", "main"):
            assert sum(part == name for name, _, _ in kills) >= 3, (row["task_id"], part)
        rates[row["task_id"]] = sum(killed for *_, killed in kills) / len(kills)
        subtle = [killed for _, kind, killed in kills if kind in ("compare", "arithmetic")]
        assert any(subtle), row["task_id"]
    assert min(rates.values()) >= 0.8, sorted(rates.items(), key=lambda item: item[1])[:5]
    assert sum(rates.values()) / len(rates) >= 0.9


def test_the_slips_are_real_changes_each_in_one_place() -> None:
    assert [
        source.splitlines()[1].strip() for _, source in mutants_of("def f(a):\n    return a + 2 < 3")
    ] == [
        *("return None", "return not a + 2 < 3", "return a + 2 <= 3"),
        *("return a - 2 < 3", "return a < 3", "return a + 2 < 4", "return a + 3 < 3"),
    ]
    assert not survives("def f():\n    while True:\n        pass", ["assert f() == 1"])


# --- classes ----------------------------------------------------------------------------------------------------


def class_node(source: str) -> ast.ClassDef:
    return next(node for node in ast.parse(source).body if isinstance(node, ast.ClassDef))


def methods_in(source: str) -> dict[str, ast.FunctionDef]:
    return {node.name: node for node in class_node(source).body if isinstance(node, ast.FunctionDef)}


def failures_of(row: dict[str, Any], solution: str) -> dict[str, int]:
    """The number of failed tests of each TestCase, and under "" the number of tests run."""
    names: dict[str, Any] = {"__name__": "built_in"}
    exec("\n".join([*row["import_statement"], solution, row["test"]]), names)
    counts = {"": 0}
    for case in row["test_classes"]:
        result = unittest.TestResult()
        # The clock rings again and again: unittest notes the cut as an error and goes on with the next test.
        signal.setitimer(signal.ITIMER_VIRTUAL, LIMIT_S, LIMIT_S)
        unittest.defaultTestLoader.loadTestsFromTestCase(names[case]).run(result)
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        counts[case] = len(result.failures) + len(result.errors)
        counts[""] += result.testsRun
    return counts


def test_there_are_enough_classes_and_the_splits_share_nothing() -> None:
    assert (len(CLASS_TRAIN), len(CLASS_TEST)) == (9, 4)
    for field in ("task_id", "class_name", "class_description", "skeleton", "test", "solution_code"):
        assert len({row[field] for row in CLASSES}) == len(CLASSES), field
    described = [
        {prose_of(info["method_description"].split('"""')[1]) for row in rows for info in row["methods_info"]}
        for rows in (CLASS_TRAIN, CLASS_TEST)
    ]
    assert not described[0] & described[1]


@each_class
def test_a_class_row_is_well_formed(row: dict[str, Any]) -> None:
    assert set(row) == CLASS_FIELDS
    lists = {"import_statement", "methods_info", "test_classes"}
    assert all(isinstance(row[field], str) for field in CLASS_FIELDS - lists)
    assert all(isinstance(row[field], list) for field in lists)
    assert re.fullmatch(r"collm/[a-z_]+", row["task_id"])
    names = [info["method_name"] for info in row["methods_info"]]
    assert 4 <= len(names) <= 8
    skeleton, solution = methods_in(row["skeleton"]), methods_in(row["solution_code"])
    assert [*skeleton] == [*solution] == ["__init__", *names]
    assert class_node(row["skeleton"]).name == class_node(row["solution_code"]).name == row["class_name"]
    plain = {name for name in names if len(solution[name].args.args) == 1}
    assert plain
    assert plain != set(names), "some methods take no argument and some do"
    assert list(methods_in(row["class_constructor"])) == ["__init__"]
    assert row["class_description"].strip() in row["class_constructor"]


@each_class
def test_a_skeleton_shows_signatures_and_docstrings_only(row: dict[str, Any]) -> None:
    skeleton = methods_in(row["skeleton"])
    for info in row["methods_info"]:
        assert set(info) == {"method_name", "method_description", "test_class"}
        node = skeleton[info["method_name"]]
        assert len(node.body) == 1
        assert len(doctest.DocTestParser().get_examples(ast.get_docstring(node))) >= 1
        assert ast.get_source_segment(row["skeleton"], node) == info["method_description"]
        body = ast.unparse(methods_in(row["solution_code"])[info["method_name"]])
        assert '"""' not in body
        assert info["test_class"] in row["test_classes"]


@each_class
def test_the_reference_class_passes_its_tests_and_its_examples(row: dict[str, Any]) -> None:
    counts = failures_of(row, row["solution_code"])
    run = counts.pop("")
    assert set(counts.values()) == {0}
    assert len(counts) == len(row["methods_info"]) + 1
    assert run >= 2 * len(counts)
    defined = {node.name for node in ast.parse(row["test"]).body if isinstance(node, ast.ClassDef)}
    assert defined == set(row["test_classes"])
    names: dict[str, Any] = {}
    exec("\n".join([*row["import_statement"], row["solution_code"]]), names)
    for info in row["methods_info"]:
        docstring = ast.get_docstring(methods_in(row["skeleton"])[info["method_name"]])
        assert examples_fail(docstring, names)[1] == ""


@each_class
def test_a_class_with_one_empty_method_fails_the_tests_of_that_method(row: dict[str, Any]) -> None:
    for info in row["methods_info"]:
        tree = ast.parse(row["solution_code"])
        methods_of = {n.name: n for n in ast.walk(tree) if isinstance(n, ast.FunctionDef)}
        methods_of[info["method_name"]].body = [ast.Return(ast.Constant(None))]
        counts = failures_of(row, ast.unparse(ast.fix_missing_locations(tree)))
        assert counts[info["test_class"]] >= 1, info["method_name"]
        assert counts[row["test_classes"][-1]] >= 1, "the test of the whole class uses every method"


@each_class
def test_tests_catch_broken_classes(row: dict[str, Any]) -> None:
    kills = []
    for _, source in mutants_of(row["solution_code"]):
        counts = failures_of(row, source)
        kills.append(sum(counts.values()) > counts[""])
    assert len(kills) >= 20
    assert sum(kills) / len(kills) >= 0.8
