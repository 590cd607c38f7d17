"""ClassEval: the methods of one class, written by several agents and merged into its skeleton."""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from typing import Any, ClassVar

import numpy as np

from collm_envs.coding import judging, scripted
from collm_envs.coding.feedback import one_line
from collm_envs.coding.functions import DATA, Attempt, CodeState
from collm_envs.coding.rows import optional_strings, optional_text, parse_field, parsed, require_plan
from collm_envs.coding.rules import (
    CLASS_LIMIT_S,
    TIME_LIMIT_S,
    ClassRun,
    all_passed,
    class_metrics,
    class_tests,
    duplicates,
    methods,
)
from collm_envs.env import CollabEnv
from collm_envs.errors import DataError, require_choice
from collm_envs.registry import register
from collm_envs.reward import Score, Scorer
from collm_envs.sandbox import TIERS, Program, RunResult, UnitTests
from collm_envs.task import FieldError, Row, RowFormat, Task, read_rows

ASSIGNMENTS = ("params", "balanced")
SHOWN_IDS = 5  # failing tests that feedback names


def class_row(row: Row) -> tuple[dict[str, Any], dict[str, Any]]:
    """Public and hidden fields of a ClassEval row."""
    name, written = row["class_name"], _method_names(row)
    shell, source = _shell(row, name, written)
    functions = {node.name: node for node in shell.body if isinstance(node, ast.FunctionDef)}
    missing = [method for method in written if method not in functions]
    if missing:
        raise FieldError("methods_info", f"{missing[0]!r} is not in the skeleton")
    public: dict[str, Any] = {
        "class_name": name,
        "skeleton": row["skeleton"],
        "shell": source,
        "imports": optional_strings(row, "import_statement"),
        "methods": [
            {
                "name": method,
                "parameters": [item.arg for item in functions[method].args.args],
                "only_self": _only_self(functions[method]),
                "lines": (functions[method].end_lineno or 0) - functions[method].lineno + 1,
            }
            for method in written
        ],
    }
    hidden = {
        "test": row["test"],
        "setup": _test_imports(row, public["imports"]),
        "solution_code": optional_text(row, "solution_code"),
    }
    require_plan("test", UnitTests(hidden["test"], hidden["setup"]))
    return public, hidden


def _shell(row: Row, name: str, written: Sequence[str]) -> tuple[ast.ClassDef, str]:
    """The class that methods are merged into, parsed and as text.

    That is the skeleton. A few skeletons of the data set are not Python (a quotation mark of print, an unclosed
    string); there it is the reference without the bodies of the wanted methods and without methods of its own.
    """
    try:
        tree, source = parsed(row["skeleton"]), row["skeleton"]
    except SyntaxError:
        tree = parse_field("solution_code", optional_text(row, "solution_code"))
        for shell in (node for node in tree.body if isinstance(node, ast.ClassDef)):
            shell.body = [node for node in shell.body if _is_given(node, written)]
            for node in (n for n in shell.body if isinstance(n, ast.FunctionDef) and n.name in written):
                node.body = [ast.Pass()]
        source = ast.unparse(tree)
        tree = parsed(source)
    found = [node for node in tree.body if isinstance(node, ast.ClassDef) and node.name == name]
    if not found:
        raise FieldError("skeleton", f"no class {name!r}")
    return found[-1], source


def _is_given(node: ast.stmt, written: Sequence[str]) -> bool:
    """Whether a member of a reference class belongs to its skeleton."""
    return not isinstance(node, ast.FunctionDef) or node.name in written or node.name.startswith("__")


def _test_imports(row: Row, imports: Sequence[str]) -> str:
    """Of the class's imports those that its tests use: the rest may need packages that tests can do without."""
    tree = parse_field("test", row["test"])
    used = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    kept = []
    for line in imports:
        names = (item for node in ast.walk(parse_field("import_statement", line)) for item in _bound(node))
        if used & set(names):
            kept.append(line)
    return "\n".join(kept)


def _bound(node: ast.AST) -> list[str]:
    if isinstance(node, (ast.Import, ast.ImportFrom)):
        return [(alias.asname or alias.name).partition(".")[0] for alias in node.names]
    return []


def _method_names(row: Row) -> list[str]:
    infos = row.get("methods_info")
    if isinstance(infos, Mapping):  # as columns
        infos = [{"method_name": name} for name in infos.get("method_name", ())]
    names: list[Any] = [
        info.get("method_name") if isinstance(info, Mapping) else None
        for info in (infos if infos is not None else ())
    ]
    if not names or not all(isinstance(name, str) for name in names):
        raise FieldError("methods_info", "expected a list of objects with a method_name")
    return list(dict.fromkeys(names))


def _only_self(function: ast.FunctionDef) -> bool:
    own = function.args
    rest = [*own.posonlyargs, *own.args, *own.kwonlyargs, *filter(None, (own.vararg, own.kwarg))]
    return [item.arg for item in rest] == ["self"]


def assign(methods: Sequence[Mapping[str, Any]], count: int, how: str) -> list[list[str]]:
    """Deal the methods of a class.

    Args:
        methods: `name`, `only_self` and `lines` of each, in the class's order.
        count: how many agents.
        how: `params`: methods whose only parameter is `self` go to the first agent, the others in turn to the
            rest. `balanced`: the longest descriptions first, each to the agent with the fewest lines so far.

    Returns:
        Method names by agent, in the class's order; an agent may get none.
    """
    owner: dict[str, int] = {}
    if count == 1:
        owner = {method["name"]: 0 for method in methods}
    elif how == "params":
        others = [method["name"] for method in methods if not method["only_self"]]
        owner = {name: 1 + i % (count - 1) for i, name in enumerate(others)}
    else:
        loads = [0] * count
        for method in sorted(methods, key=lambda method: -method["lines"]):
            agent = loads.index(min(loads))
            owner[method["name"]] = agent
            loads[agent] += method["lines"]
    return [[m["name"] for m in methods if owner.get(m["name"], 0) == agent] for agent in range(count)]


@dataclass(frozen=True)
class ClassState(CodeState):
    """As for functions: the class, and what each agent was told of the last turn."""


class ClassTeam(CollabEnv):
    """The methods of a class, written by several agents. Subclasses are class data.

    Args:
        num_turns: turn limit.
        assignment: who writes which method, `params` or `balanced` (see `assign`).
        sandbox: how well programs must be confined: `auto`, or the name of a tier.
        settings: those of `CollabEnv`.

    Attributes:
        instructions: the prompt; `{skeleton}` and `{methods}` are replaced.
        alone: the prompt of a single agent.
        idle: the prompt of an agent without methods.
    """

    agent_counts = tuple(range(1, 9))
    feedback_modes = ("code_feedback", "plain")
    row_formats = (
        RowFormat({"task_id": str, "class_name": str, "skeleton": str, "test": str}, class_row, "task_id"),
    )
    instructions: ClassVar[str] = (
        "{skeleton}\n\nYou and your partners complete the class above together, each on your own. Your part: "
        "{methods}. Write these methods and no others, each as a complete definition. Reply with Python code only."
    )
    alone: ClassVar[str] = (
        "{skeleton}\n\nComplete the class above: write {methods}, each as a complete definition. Reply with Python "
        "code only."
    )
    idle: ClassVar[str] = (
        "{skeleton}\n\nYou and your partners complete the class above together, each on your own. Your partners "
        "write all of its methods; you have none to write. Reply with an empty comment (#)."
    )

    def __init__(
        self, *, num_turns: int = 2, assignment: str = "params", sandbox: str = "auto", **settings: Any
    ) -> None:
        require_choice("assignment", assignment, ASSIGNMENTS, self.env_id)
        require_choice("sandbox", sandbox, ("auto", *TIERS), self.env_id)
        self.assignment, self.sandbox = assignment, sandbox
        super().__init__(num_turns=num_turns, **settings)

    def roles(self, num_agents: int) -> Sequence[str]:
        return tuple(f"method_{i}" for i in range(num_agents))

    def components(self) -> Sequence[Scorer]:
        return (methods, class_tests, duplicates)

    def measure(self, outcome: ClassRun) -> Mapping[str, float]:
        return class_metrics(outcome)

    def success_rule(self) -> Callable[[Any, float, Mapping[str, float]], bool]:
        return _solved

    def builtin_rows(self, split: str) -> Sequence[Row]:
        """Classes written for the project, by split."""
        return read_rows(DATA / f"classes_{split}.jsonl")

    def methods_of(self, task: Task) -> dict[str, list[str]]:
        """Names of the methods that each agent writes."""
        dealt = assign(task.public["methods"], len(self.possible_agents), self.assignment)
        return dict(zip(self.possible_agents, dealt, strict=True))

    def begin(self, task: Task, rng: np.random.Generator) -> ClassState:
        return ClassState(task)

    def prompt(self, state: ClassState, agent: str) -> str:
        if state.told:
            return state.told[agent]
        own = self.methods_of(state.task)[agent]
        text = self.alone if len(self.possible_agents) == 1 else self.instructions if own else self.idle
        listed = ", ".join(f"`{name}`" for name in own)
        # The skeleton goes in last: braces inside it are text.
        return text.replace("{methods}", listed).replace("{skeleton}", state.task.public["skeleton"].rstrip())

    def advance(self, state: ClassState, actions: Mapping[str, str]) -> tuple[ClassState, Attempt]:
        return state, Attempt(state.task, {agent: actions[agent] for agent in self.possible_agents})

    def judge(self, outcome: Attempt) -> Future[Score]:
        """Merge and test the replies in the sandbox; the score comes from its client's thread."""
        public, dealt = outcome.task.public, self.methods_of(outcome.task)
        replies = [
            {"text": outcome.replies[agent], "methods": dealt[agent]} for agent in self.possible_agents
        ]
        payload = {
            "replies": replies,
            "class_name": public["class_name"],
            "skeleton": public["shell"],
            "imports": list(public["imports"]),
        }
        program = Program(prepare=f"{judging.ASSEMBLE}:methods", payload=payload)
        future = judging.submit(
            program,
            UnitTests(outcome.task.hidden["test"], outcome.task.hidden["setup"]),
            given="\n".join(public["imports"]),
            tier=self.sandbox,
            time_limit_s=TIME_LIMIT_S[self.formula],
            total_limit_s=CLASS_LIMIT_S,
        )
        return judging.then(future, partial(self._score_run, tuple(m["name"] for m in public["methods"])))

    def _score_run(self, names: tuple[str, ...], result: RunResult) -> Score:
        run = ClassRun(names, result)
        return replace(self.reward_model(run), details={"run": run})

    def settle(self, state: ClassState, outcome: Attempt, score: Score) -> ClassState:
        run: ClassRun = score.details["run"]
        dealt = self.methods_of(state.task)
        lines = {agent: list(self._told(run, dealt[agent])) for agent in self.possible_agents}
        return replace(
            state, told={agent: "\n".join([*told, "Write your part again."]) for agent, told in lines.items()}
        )

    def _told(self, run: ClassRun, own: Sequence[str]) -> Iterator[str]:
        """What an agent learns: of its own methods, how many tests passed, and the names of some that failed."""
        if self.feedback == "plain":
            return
        for name in own:
            state = run.state(name)
            if state.get("error"):
                line, column, error = state["error"]
                yield f"Your method `{name}` does not parse: line {line}, column {column}: {one_line(error)}."
            else:
                yield (
                    f"Your method `{name}` was found."
                    if state.get("found")
                    else f"Your method `{name}` is missing."
                )
        for name in run.result.facts.get("duplicated", ()):
            yield f"More than one of you wrote `{name}`."
        if not run.parses:
            yield "The methods together do not parse."
            return
        yield f"Tests passed: {run.result.passed} of {run.result.total}."
        failed = [test.name for test in run.result.tests if test.status != "pass"]
        if failed and not run.result.error:
            yield (
                "Failed: "
                + ", ".join(failed[:SHOWN_IDS])
                + (" and more." if len(failed) > SHOWN_IDS else ".")
            )

    def novice(self, state: ClassState, agent: str, rng: np.random.Generator) -> str:
        own = self.methods_of(state.task)[agent]
        parameters = {method["name"]: method["parameters"] for method in state.task.public["methods"]}
        written = (name for name in own if rng.random() < 0.9)
        return "\n\n".join(scripted.stub(name, parameters[name], (), rng) for name in written)

    def oracle(self, state: ClassState, agent: str, rng: np.random.Generator) -> str:
        solution, name = state.task.hidden["solution_code"], state.task.public["class_name"]
        if not solution:
            raise DataError(f"task {state.task.id!r} has no solution_code, so it has no oracle")
        dealt = self.methods_of(state.task)
        assigned = frozenset(method for methods in dealt.values() for method in methods)
        first = agent == self.possible_agents[0]
        return _solution(solution, name, tuple(dealt[agent]), assigned, beside=first)


@register("coding/classeval-v0")
class ClassEval(ClassTeam):
    """The methods of one class, written by several agents, are merged into its skeleton and tested.

    Observations: turn 0 shows the skeleton (header, constructor, and the documentation of each method) and the
    names of the agent's own methods. Later turns tell, by `feedback`: `code_feedback` whether the own methods
    were found and parse (line and column), which methods more than one agent wrote, how many tests passed and
    the names of the first five that failed; `plain` only to write again.

    Actions: Python in any form that models write: methods on their own or in a class, fenced or bare. Of each
    reply count the methods assigned to the agent (the last complete definition of each); another's are ignored.
    New methods, functions and imports are kept where their names are free. With `num_agents=1`, `method_0`
    writes the whole class.

    Rewards: three parts in [-1, 6]; all 0 where the merged class does not parse.

    - `methods` 2 valid / total: those that their agent wrote and that parse.
    - `tests` 4 passed / total tests; 8 s for each (`formula="paper"`) or 10 s (`"release"`), 40 s for all.
    - `duplicates` minus the share of methods that more than one agent wrote.

    Success: every test passes. A method that nobody wrote stays empty, and a test may pass without it. The tests
    run in the sandbox, apart from the class; `inproc` in the metrics is 1 where they could only run beside it.

    Arguments: those of `CollabEnv`, with 2 turns by default; `assignment`: `params` (methods whose only
    parameter is `self` go to `method_0`, the others in turn to the rest; an agent may have none) or `balanced`
    (by the length of their descriptions); `sandbox` (`auto`): the confinement asked for. `source`: `builtin`
    (classes of the project's own), `hub` (`FudanSELab/ClassEval`, `split="test"`), or a file with its fields.

    Scripted: `novice` writes headers with a constant or an argument behind them; `oracle` its methods of the
    reference class, which reaches the greatest score.

    Example:
        >>> from collm_envs import make
        >>> env = make("coding/classeval-v0", num_agents=2, assignment="balanced")
        >>> _ = env.reset(seed=0, options={"task": 0})
        >>> name = env.methods_of(env.task)["method_0"][0]
        >>> reply = f"def {name}(self): return None"
        >>> _, _, _, _, infos = env.step({"method_0": reply, "method_1": reply})
        >>> infos["method_0"]["reward_parts"]["duplicates"] == -1 / len(env.task.public["methods"])
        True

    Version history: v0.
    """

    hub_dataset = "FudanSELab/ClassEval"


@lru_cache(maxsize=1024)
def _solution(
    source: str, class_name: str, own: tuple[str, ...], assigned: frozenset[str], *, beside: bool
) -> str:
    """An agent's methods of a reference class; with `beside`, also what is nobody's."""
    tree = parsed(source)
    shell = [node for node in tree.body if isinstance(node, ast.ClassDef) and node.name == class_name][-1]
    members = [node for node in shell.body if isinstance(node, ast.FunctionDef)]
    kept = [node for node in members if node.name in own]
    spare: list[ast.stmt] = []
    if beside:
        kept += [node for node in members if node.name not in assigned and not node.name.startswith("__")]
        spare = [node for node in tree.body if node is not shell and not isinstance(node, ast.Expr)]
    shell.body = [*kept] or [ast.Pass()]
    return ast.unparse(ast.Module([*spare, shell], []))


def _solved(run: ClassRun, total: float, parts: Mapping[str, float]) -> bool:
    return all_passed(run.result)
