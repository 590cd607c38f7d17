"""The joint function task for models of a million parameters: two integer steps, two functions."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from collm_envs.coding import steps
from collm_envs.coding.feedback import Wording
from collm_envs.coding.functions import HELPERS, MAIN_ROLE, SOLE_ROLE, CodeState, FunctionTeam
from collm_envs.coding.rules import FunctionRun, all_passed
from collm_envs.coding.steps import OPERATIONS, STEPS, Step
from collm_envs.registry import register
from collm_envs.task import FieldError, Row, RowFormat
from collm_envs.text import pieces

ENTRY = "f"
# How often the novice makes each mistake.
WRONG_CONSTANT, WRONG_WORD, ALONE, WRAPPED = 0.15, 0.15, 0.1, 0.1


@dataclass(frozen=True)
class ComposeRow:
    """`steps` such as `add 3 times 2`, and `inputs` such as `3 -4 7 12`; each input is one test.

    Attributes:
        visible: how many tests are public.
        count: how many of the steps are used.
    """

    visible: int
    count: int

    def __call__(self, row: Row) -> tuple[dict[str, Any], dict[str, Any]]:
        """Public and hidden fields of a row."""
        chosen = steps.read_steps(row["steps"])[: self.count]
        if len(chosen) < self.count:
            raise FieldError("steps", f"{row['steps']!r} has fewer than the {self.count} steps needed")
        try:
            inputs = [int(word) for word in row["inputs"].split()]
        except ValueError:
            raise FieldError("inputs", f"{row['inputs']!r} is no list of whole numbers") from None
        tests = [f"assert {ENTRY}({x}) == {steps.value(chosen, x)}" for x in inputs]
        shown = min(self.visible, len(tests) - 1)
        public = {
            "prompt": " ".join(f"{word} {constant}" for word, constant in chosen),
            "steps": [list(step) for step in chosen],
            "entry_point": ENTRY,
            "parameters": ["x"],
            "given": "",
            "visible": tests[:shown],
            "examples": tests[:shown],
        }
        return public, {"tests": tests[shown:], "setup": "", "names": {}}


@register("coding/compose-mini-v0")
class ComposeMini(FunctionTeam):
    """A helper and a main function make one integer function of two steps, with replies of at most 16 tokens.

    Same class, sandbox and scoring code as `coding/humaneval-v0`; tasks, prompts and feedback are smaller. Either
    agent could take either step: `aux` the first and main `aux(x) * 2`, or `aux` the second and main `aux(x + 3)`.
    Nothing says which, so the two must come to agree without talking.

    Observations: turn 0 shows the steps, the same to all, and which function to write. Later turns tell, by
    `feedback`: `level_feedback` what is missing, how many tests passed, and to main whether to use a helper or do
    more; `level_passed` yes or no for each level; `passed` that tests failed; `plain` only to try again.

    Actions: one function in one line, `def aux(x): return x + 3`. With `num_agents=1` both, in two lines. With
    three or four agents there are as many steps, and further helpers `aux2` and `aux3`.

    Rewards: as `coding/humaneval-v0`: `aux_defined` 0.4 and `aux_used` 0.5 for each helper, `main_defined` 0.6,
    `syntax` 0.5, `tests` at most 1, `own_work` 1; at most 4 with one helper. Each task has four asserts, which
    nearly always tell the two steps in order from a step done twice or left out.

    Success: every test passes, main uses every helper, and it does work of its own. (The big ones ask for the
    tests alone; here a main that does both steps itself has not solved the task.)

    Arguments: those of `CollabEnv`, with 2 turns by default; `visible_tests` and `sandbox` as there. `source`:
    `builtin` generates 3294 train and 128 test tasks, no two with the same first two steps, of add, minus, times,
    over (rounded down), mod, max and min with constants up to 12; or a file with the fields `steps`
    (`add 3 times 2`) and `inputs` (`3 -4 7 12`).

    Scripted: `novice` writes functions of the right shape, each for a step picked at random, three times in twenty
    with another operation and as often with another constant, and main at times without the helper; `oracle`
    takes the steps in turn and reaches the greatest score.

    Example:
        >>> from collm_envs import make
        >>> env = make("coding/compose-mini-v0")
        >>> observations, _ = env.reset(seed=0, options={"task": 0})
        >>> observations["aux_0"]
        'f: x min 8 over 5 write: aux'
        >>> replies = {"aux_0": "def aux(x): return x + 1", "main_1": "def f(x): return aux(x)"}
        >>> observations, *_ = env.step(replies)
        >>> observations["main_1"]
        'tests 0 of 4 need more try again'

    Version history: v0.
    """

    row_formats = (RowFormat({"steps": str, "inputs": str}, ComposeRow(visible=1, count=2)),)
    prompts: ClassVar[Mapping[str, str]] = {
        "aux": "f: x {problem} write: {own}",
        "main": "f: x {problem} write: f",
        "coder": "f: x {problem} write: aux f",
    }
    other_helpers = ""
    wording: ClassVar[Wording] = Wording(
        found="",
        missing="missing {name}",
        mute="return {name}",
        broken="error {name}",
        theirs="",
        not_theirs="partner missing {name}",
        broken_theirs="partner error {name}",
        joint="error",
        redefined="no {name}",
        tests="tests {passed} of {total}",
        failed="",
        loading="error",
        unused="use {name}",
        dropped="use {name}",
        thin="need more",
        level="{level} {answer}",
        level_names=("aux", "f", "line", "tests", "use", "more"),
        not_passed="tests failed",
        again="try again",
        joiner=" ",
    )

    def formats(self) -> Sequence[RowFormat]:
        count = max(2, len(self.possible_agents))
        return (RowFormat({"steps": str, "inputs": str}, ComposeRow(self.visible_tests, count)),)

    def builtin_rows(self, split: str) -> Sequence[Row]:
        """Generated tasks, the same at every load."""
        train, test = steps.rows()
        return train if split == "train" else test

    def success_rule(self) -> Callable[[Any, float, Mapping[str, float]], bool]:
        """Every test passes, and main both uses the helpers and does work of its own."""
        return _solved_together

    @property
    def reply_words(self) -> int:  # type: ignore[override]
        """Sixteen for each function, signs counted."""
        return 16 * max(len(self.functions_of(agent, ENTRY)) for agent in self.possible_agents)

    @classmethod
    def vocabulary(cls) -> list[str]:
        """Every word, number and single sign that prompts, feedback and scripted replies can hold, sorted."""
        wording = vars(cls.wording).values()
        phrases = [
            *cls.prompts.values(),
            *cls.wording.level_names,
            *(p for p in wording if isinstance(p, str)),
        ]
        shown = re.sub(r"\{\w*\}", " ", " ".join(phrases))
        code = " ".join(steps.written(step, "x") for step in STEPS) + " def return :"
        found = {*pieces(shown), *pieces(code), *HELPERS.values(), ENTRY, *OPERATIONS}
        words = {piece for piece in found if piece.isalnum()}
        signs = {sign for piece in found - words for sign in piece}
        numbers = map(str, range(steps.GREATEST + 1))
        return sorted(
            {*words, *signs, *numbers, *(f"@{role}" for role in (*HELPERS, MAIN_ROLE, SOLE_ROLE)), "\n"}
        )

    def novice(self, state: CodeState, agent: str, rng: np.random.Generator) -> str:
        """Each function of the right shape, of a step picked at random, with wrong constants or operations."""
        wanted = [tuple(step) for step in state.task.public["steps"]]
        texts = []
        for name in self.functions_of(agent, ENTRY):
            if name == ENTRY:
                texts.append(self._novice_main(wanted, rng))
            else:
                step = _mistaken(wanted[int(rng.integers(len(wanted)))], rng)
                texts.append(f"def {name}(x): return {steps.written(step, 'x')}")
        return "\n".join(texts)

    def _novice_main(self, wanted: Sequence[Step], rng: np.random.Generator) -> str:
        own = int(rng.integers(len(wanted)))
        step = _mistaken(wanted[own], rng)
        kind = rng.random()
        if kind < ALONE:
            return f"def {ENTRY}(x): return {steps.written(step, 'x')}"
        if kind < ALONE + WRAPPED:
            return f"def {ENTRY}(x): return {self._chain(len(wanted), None, step)}"
        return f"def {ENTRY}(x): return {self._chain(len(wanted), own, step)}"

    def _chain(self, count: int, own: int | None, step: Step) -> str:
        """Main's value: the step at position `own` is its own, the others are left to the helpers in turn."""
        text, helpers = "x", iter(self.helpers)
        for position in range(count):
            helper = None if position == own else next(helpers, None)
            if helper is not None:
                text = f"{helper}({text})"
            elif position == own:
                text = steps.written(step, text)
        return text

    def oracle(self, state: CodeState, agent: str, rng: np.random.Generator) -> str:
        """Helpers take the first steps in turn, main the last one."""
        wanted = [tuple(step) for step in state.task.public["steps"]]
        last = len(wanted) - 1
        parts = {
            name: f"def {name}(x): return {steps.written(step, 'x')}"
            for name, step in zip(self.helpers, wanted, strict=False)
        }
        parts[ENTRY] = f"def {ENTRY}(x): return {self._chain(len(wanted), last, wanted[last])}"
        return "\n".join(parts[name] for name in self.functions_of(agent, ENTRY))


def _mistaken(step: Step, rng: np.random.Generator) -> Step:
    """A step, at times with another constant or another operation."""
    word, constant = step
    if rng.random() < WRONG_WORD:
        word = str(rng.choice([other for other in OPERATIONS if other != word]))
    if rng.random() < WRONG_CONSTANT:
        constant = int(rng.choice([other for other in range(2, steps.GREATEST + 1) if other != constant]))
    return word, max(constant, OPERATIONS[word].least)


def _solved_together(run: FunctionRun, total: float, parts: Mapping[str, float]) -> bool:
    return all_passed(run.result) and run.works and all(map(run.used, run.helpers))
