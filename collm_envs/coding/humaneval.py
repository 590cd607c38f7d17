"""HumanEval and CoopHumanEval as joint tasks: a helper and the function that calls it."""

from __future__ import annotations

from collm_envs.coding.functions import FunctionTeam
from collm_envs.registry import register


@register("coding/humaneval-v0")
class HumanEval(FunctionTeam):
    """A helper and a main function, written apart, solve a programming problem and are tested together.

    Observations: turn 0 shows the problem (a header with its documentation) and the role's instructions.
    `aux_0` writes a helper `aux`, `main_1` the function that the problem asks for; each knows of the other's
    part and sees nothing of its text. Later turns tell, by `feedback`: `level_feedback` whether the own
    function was found and parses (line and column), whether the partner's did, how many tests passed, the
    public tests that failed with their errors, and, to main, whether it uses the helper; `level_passed` yes or
    no for each level; `passed` that not all tests passed; `plain` only to write again. An error of a public
    test may quote what a partner's code raised.

    Actions: Python in any form that models write: fenced or bare, with prose or `<think>` blocks around it.
    Of each reply counts the function assigned to the agent (the last complete definition), with the helpers,
    classes, constants and imports that stand beside it; a partner's function that it defines too is left out.
    With `num_agents=1`, `coder_0` writes both functions in one reply; `aux_2` and `aux_3` write further helpers
    `aux2` and `aux3`.

    Rewards: six parts, at most 4 with one helper; 0.9 more for each further one. Scoring stops after the main
    function, the syntax or the tests at zero.

    - `aux_defined` 0.4 for each helper that is defined and returns something.
    - `main_defined` 0.6 if the main function is defined and returns something.
    - `syntax` 0.5 if the joint program parses.
    - `tests` passed / total; each assert counts on its own and has 8 s (`formula="paper"`) or 10 s
      (`"release"`); after three time-outs the others count as failed.
    - `aux_used` 0.5 for each helper that main calls, and 0 (0.5 less 0.5) where it throws the result away.
    - `own_work` 1 if main calls a helper and is more than a thin wrapper: thin is to hand one's arguments to
      helpers and return what comes back. With `formula="release"` the helper need only be there, not be called.

    Success: every test passes, the hidden ones included; the helper need not be used. Replies are read and run
    in the sandbox alone. What a test expects never enters the process that runs the replies; public tests, whose
    errors are told, run once more and apart from the hidden ones for that.

    Arguments: those of `CollabEnv`, with 2 turns by default; `visible_tests` (1): how many asserts are public,
    at least one is always hidden; `sandbox` (`auto`): the confinement asked for, see `collm sandbox doctor`.
    `source`: `builtin` (problems of the project's own), `hub` (`openai/openai_humaneval`, `split="test"`), or a
    file with the fields `task_id`, `prompt`, `entry_point` and `test`, or of MBPP's fields.

    Scripted: `novice` writes headers with a constant or an argument behind them; `oracle` divides the reference
    solution between helper and main and reaches the greatest score.

    Example:
        >>> from collm_envs import make
        >>> env = make("coding/humaneval-v0")
        >>> _ = env.reset(seed=0, options={"task": 0})
        >>> entry = env.task.public["entry_point"]
        >>> replies = {"aux_0": "def aux(x): return x", "main_1": f"def {entry}(x): return aux(x)"}
        >>> _, _, _, _, infos = env.step(replies)
        >>> {name: infos["main_1"]["reward_parts"][name] for name in ("aux_defined", "main_defined", "syntax")}
        {'aux_defined': 0.4, 'main_defined': 0.6, 'syntax': 0.5}

    Version history: v0.
    """

    hub_dataset = "openai/openai_humaneval"


@register("coding/coophumaneval-v0")
class CoopHumanEval(HumanEval):
    """The HumanEval task on problems that were chosen because they can be divided.

    Observations: as `coding/humaneval-v0`: the problem and the role's instructions, later the feedback.

    Actions: as there: Python, `aux` from `aux_0` and the main function from `main_1`.

    Rewards: as there: `aux_defined` 0.4, `main_defined` 0.6, `syntax` 0.5, `tests` at most 1, `aux_used` 0.5,
    `own_work` 1; at most 4 with one helper.

    Success: every test passes, the hidden ones included.

    Arguments: as there. `source`: `hub` is `OpenMLRL/CoopHumanEval` (82 problems; the paper trains on 66 and
    tests on 16 of them, so slice its split), which has no reference solutions and so no oracle; `builtin` has
    the project's own problems.

    Scripted: as there.

    Example:
        >>> from collm_envs import make
        >>> env = make("coding/coophumaneval-v0", feedback="passed")
        >>> _ = env.reset(seed=0)
        >>> observations, *_ = env.step({"aux_0": "def aux(x): return x", "main_1": "no code"})
        >>> observations["aux_0"].splitlines()
        ['Not all tests passed.', 'Write your part again.']

    Version history: v0.
    """

    hub_dataset = "OpenMLRL/CoopHumanEval"
