"""Joint functions: helpers and a main function, written apart and run together.

`FunctionTeam` is what all function environments share: roles, prompts, judging and feedback. A concrete one is
class data: its data set, its prompts, its words. See `rules` for the score and `assemble` for how replies become a
program.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from collm_envs.coding import feedback, judging, scripted
from collm_envs.coding.feedback import Wording
from collm_envs.coding.rows import function_formats, whole_tests
from collm_envs.coding.rules import TIME_LIMIT_S, FunctionRun, all_passed, function_levels, function_metrics
from collm_envs.env import CollabEnv
from collm_envs.errors import SettingError, require_choice
from collm_envs.reward import Score, Scorer
from collm_envs.sandbox import TIERS, Program, RunResult
from collm_envs.task import Row, RowFormat, Task, TaskSource, load_source, read_rows

_PROMPTS = {
    "aux": (
        "{problem}\n\nYou solve the problem above together with a partner, each on your own. The partner writes "
        "`{entry}` and may call helpers.{others} Your part: a helper function named `{own}` that does a useful "
        "share of the work and returns its result. It cannot be seen by others, so let its arguments be easy to "
        "guess. Reply with Python code only."
    ),
    "main": (
        "{problem}\n\nYou solve the problem above together with partners, each on your own. Your part: "
        "`{entry}`. Helper functions that others write: {helpers}. You cannot see them, but you can call them. Do "
        "not define them, and do more than return what they return. Reply with Python code only."
    ),
    "coder": (
        "{problem}\n\nSolve the problem above with two functions in one reply. First a helper function named "
        "`aux` that does a useful share of the work and returns its result. Then `{entry}`, which calls `aux` and "
        "does work of its own besides. Reply with Python code only."
    ),
}
TOTAL_LIMIT_S = 60.0  # of all asserts of a task
DATA = Path(__file__).parent.parent / "data"
HELPERS = {"aux_0": "aux", "aux_2": "aux2", "aux_3": "aux3"}
MAIN_ROLE, SOLE_ROLE = "main_1", "coder_0"


@dataclass(frozen=True)
class CodeState:
    """The problem, what each agent was told of the last turn (nothing before any), and the turns played."""

    task: Task
    told: Mapping[str, str] = field(default_factory=dict)
    turn: int = 0


@dataclass(frozen=True)
class Attempt:
    """The replies of a turn by agent, to be judged; `last` where no agent will be told of it."""

    task: Task
    replies: Mapping[str, str]
    last: bool = False


class FunctionTeam(CollabEnv):
    """Helpers and a main function, written apart. Subclasses are class data.

    Args:
        num_turns: turn limit.
        visible_tests: how many of a task's tests are public; at least one stays hidden.
        sandbox: how well programs must be confined: `auto`, or the name of a tier.
        settings: those of `CollabEnv`.

    Attributes:
        prompts: by kind of role (`aux`, `main`, `coder`); `{problem}`, `{entry}`, `{own}` (the agent's function),
            `{helpers}` are replaced.
        other_helpers: what a helper's prompt says of further ones.
        wording: phrases of the feedback.
    """

    agent_counts = (1, 2, 3, 4)
    feedback_modes = ("level_feedback", "level_passed", "passed", "plain")
    row_formats = function_formats(visible=1)
    prompts: ClassVar[Mapping[str, str]] = _PROMPTS
    other_helpers: ClassVar[str] = " Further partners write the helpers {helpers}."
    wording: ClassVar[Wording] = Wording()

    def __init__(
        self, *, num_turns: int = 2, visible_tests: int = 1, sandbox: str = "auto", **settings: Any
    ) -> None:
        if not isinstance(visible_tests, int) or isinstance(visible_tests, bool) or visible_tests < 0:
            raise SettingError(f"visible_tests must be a whole number >= 0, not {visible_tests!r}")
        require_choice("sandbox", sandbox, ("auto", *TIERS), self.env_id)
        self.visible_tests, self.sandbox = visible_tests, sandbox
        super().__init__(num_turns=num_turns, **settings)

    @property
    def tasks(self) -> TaskSource:
        """The tasks of `source` and `split`, with `visible_tests` of their tests public."""
        if self._tasks is None:
            self._tasks = load_source(
                self.source, self.split, self.formats(), builtin=self._builtin, hub=self.hub_dataset
            )
        return self._tasks

    def formats(self) -> Sequence[RowFormat]:
        """The accepted layouts of rows, with `visible_tests` of the tests public."""
        return function_formats(self.visible_tests)

    def roles(self, num_agents: int) -> Sequence[str]:
        if num_agents == 1:
            return (SOLE_ROLE,)
        return ("aux_0", MAIN_ROLE, "aux_2", "aux_3")[:num_agents]

    @property
    def helpers(self) -> tuple[str, ...]:
        """Names of the helper functions, in the order of their agents."""
        return tuple(HELPERS[agent] for agent in self.possible_agents if agent in HELPERS) or ("aux",)

    def functions_of(self, agent: str, entry: str) -> tuple[str, ...]:
        """Names of the functions that an agent writes."""
        if agent == SOLE_ROLE:
            return ("aux", entry)
        return (HELPERS.get(agent, entry),)

    def components(self) -> Sequence[Scorer]:
        return function_levels(self.helpers)

    def measure(self, outcome: FunctionRun) -> Mapping[str, float]:
        return function_metrics(outcome)

    def success_rule(self) -> Callable[[Any, float, Mapping[str, float]], bool]:
        return _solved

    def builtin_rows(self, split: str) -> Sequence[Row]:
        """Problems written for the project, by split."""
        return read_rows(DATA / f"coding_{split}.jsonl")

    def begin(self, task: Task, rng: np.random.Generator) -> CodeState:
        return CodeState(task)

    def prompt(self, state: CodeState, agent: str) -> str:
        if state.told:
            return state.told[agent]
        public = state.task.public
        own = HELPERS.get(agent, public["entry_point"])
        others = [name for name in self.helpers if name != own]
        names = others if agent in HELPERS else self.helpers
        values = {
            "others": self.other_helpers if agent in HELPERS and others else "",
            "helpers": " and ".join(", ".join(f"`{name}`" for name in names).rsplit(", ", 1)),
            "own": own,
            "entry": public["entry_point"],
            "problem": public["prompt"].rstrip(),
        }
        text = self.prompts[agent.partition("_")[0]]
        for name, value in values.items():  # the problem goes in last: braces inside it are text
            text = text.replace(f"{{{name}}}", value)
        return text

    def advance(self, state: CodeState, actions: Mapping[str, str]) -> tuple[CodeState, Attempt]:
        turn = state.turn + 1
        replies = {agent: actions[agent] for agent in self.possible_agents}
        return replace(state, turn=turn), Attempt(state.task, replies, last=turn >= self.num_turns)

    def judge(self, outcome: Attempt) -> Future[Score]:
        """Assemble and test the replies in the sandbox; the score comes from its client's thread."""
        public, hidden = outcome.task.public, outcome.task.hidden
        entry = public["entry_point"]
        replies = [
            {"text": outcome.replies[agent], "functions": list(self.functions_of(agent, entry))}
            # Helpers first: where two agents define a further function of one name, the helper's stays.
            for agent in sorted(self.possible_agents, key=lambda agent: agent == MAIN_ROLE)
        ]
        program = Program(
            prepare=f"{judging.ASSEMBLE}:function",
            payload={"replies": replies, "entry": entry, "given": public["given"]},
        )
        groups = [(*public["visible"], *hidden["tests"])]  # one run is the score, whatever is told of it
        if self._tells_errors and public["visible"] and not outcome.last:
            # Once more and apart: a program may put whatever it has seen into an error that is told.
            groups.append(tuple(public["visible"]))
        runs = [
            judging.submit(
                program,
                whole_tests(public["given"], hidden["setup"], statements, hidden["names"]),
                given=public["given"],
                tier=self.sandbox,
                time_limit_s=TIME_LIMIT_S[self.formula],
                total_limit_s=TOTAL_LIMIT_S,
            )
            for statements in groups
        ]
        return judging.then(judging.gather(runs), partial(self._score_runs, entry))

    @property
    def _tells_errors(self) -> bool:
        return self.feedback == "level_feedback" and bool(self.wording.failed)

    def _score_runs(self, entry: str, results: Sequence[RunResult]) -> Score:
        run = FunctionRun(self.helpers, entry, results[0], self.formula)
        public = results[1] if len(results) > 1 else RunResult(())
        return replace(self.reward_model(run), details={"run": run, "public": public})

    def settle(self, state: CodeState, outcome: Attempt, score: Score) -> CodeState:
        run: FunctionRun = score.details["run"]
        told = {}
        for agent in self.possible_agents:
            own = self.functions_of(agent, run.entry)
            told[agent] = feedback.told(
                self.feedback,
                run,
                own,
                state.task.public["examples"],
                self.wording,
                redefined=run.redefined(own),
                public=score.details["public"],
            )
        return replace(state, told=told)

    def novice(self, state: CodeState, agent: str, rng: np.random.Generator) -> str:
        public = state.task.public
        names = self.functions_of(agent, public["entry_point"])
        return "\n\n".join(scripted.stub(name, public["parameters"], self.helpers, rng) for name in names)

    def oracle(self, state: CodeState, agent: str, rng: np.random.Generator) -> str:
        entry = state.task.public["entry_point"]
        parts = scripted.divide(entry, self.helpers, self._reference(state.task))
        return "\n\n".join(parts[name] for name in self.functions_of(agent, entry))

    def _reference(self, task: Task) -> tuple[tuple[str, str], ...]:
        known = tuple((key, task.hidden[key]) for key in ("aux", "main", "solution") if key in task.hidden)
        if not known:
            raise SettingError(f"task {task.id!r} has no reference solution, so it has no oracle")
        return known


def _solved(run: FunctionRun, total: float, parts: Mapping[str, float]) -> bool:
    return all_passed(run.result)
