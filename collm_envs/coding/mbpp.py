"""MBPP as a joint task: a helper and the function that calls it, from one sentence."""

from __future__ import annotations

from collm_envs.coding.functions import FunctionTeam
from collm_envs.registry import register


@register("coding/mbpp-v0")
class Mbpp(FunctionTeam):
    """A helper and a main function, written apart, solve a problem told in one sentence.

    Observations: turn 0 shows the sentence, the header of the function, the public tests and the role's
    instructions; later turns as `coding/humaneval-v0`.

    Actions: as there: Python, `aux` from `aux_0` and the main function from `main_1`.

    Rewards: as there: `aux_defined` 0.4, `main_defined` 0.6, `syntax` 0.5, `tests` at most 1, `aux_used` 0.5,
    `own_work` 1; at most 4 with one helper.

    Success: every test passes, the hidden ones included.

    Arguments: as there. `source`: `hub` is `google-research-datasets/mbpp` (974 problems, fields `text`, `code`,
    `test_list`), a file may also hold the sanitized ones (427, field `prompt`); `challenge_test_list` counts as
    hidden tests, `test_setup_code` and `test_imports` run before them. `builtin` has the project's own problems.

    Scripted: as there.

    Example:
        >>> from collm_envs import make
        >>> env = make("coding/mbpp-v0", visible_tests=2)
        >>> _ = env.reset(seed=0)
        >>> _, _, _, _, infos = env.step({"aux_0": "def aux(x): return x", "main_1": "def aux(x): return 1"})
        >>> infos["aux_0"]["score"], infos["aux_0"]["success"]
        (0.4, False)

    Version history: v0.
    """

    hub_dataset = "google-research-datasets/mbpp"
