"""Scores of joint replies in any environment, by the environment's own judge.

For replies that were made elsewhere and kept: nothing is played here but one turn for each. In the coding
environments the programs run in the sandbox, all at once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any, ClassVar

import datasets

from collm_envs.env import CollabEnv
from collm_envs.errors import InputError, SettingError, suggest
from collm_envs.history import encodable
from collm_envs.metrics.base import TEXT, ColumnMetric, summary
from collm_envs.registry import make
from collm_envs.task import Task


class JointScore(ColumnMetric):
    """Score of joint replies to tasks: `score`, `values`, `percent`, `success`, `solved`, `parts`, `measured`.

    `compute` takes `env_id` beside the columns, and settings of that environment such as `split`. Each example is
    the first turn of an episode; what an environment draws, it draws from seed 0. `percent` is of the greatest
    score, `solved` says of each example whether it is a success, `parts` and `measured` (such as `pass_rate` and
    `aux_use`) are means by name.
    """

    columns: ClassVar = {"predictions": datasets.Sequence(TEXT), "references": TEXT}
    inputs = (
        "predictions: one list per example, a reply of each agent in order. references: ids of the tasks."
    )

    def clean(self, value: Any) -> Any:
        """Texts without lone surrogates, which Arrow refuses; they are replaced as environments do."""
        if isinstance(value, str):
            return encodable(value)
        return [self.clean(reply) for reply in value] if isinstance(value, Sequence) else value

    def _compute(
        self,
        predictions: Sequence[Sequence[str]],
        references: Sequence[str],
        env_id: str | None = None,
        **settings: Any,
    ) -> dict[str, Any]:
        if env_id is None:
            raise SettingError(
                f"{self.name}: give the environment that judges, such as env_id='writing/tldr-v0'"
            )
        env = make(env_id, **settings)
        tasks = self._tasks(env, references)
        for number, replies in enumerate(predictions):
            if len(replies) != len(env.possible_agents):
                wanted = f"one for each of {', '.join(env.possible_agents)}"
                have = f"example {number} (from 0) has {len(replies)} replies"
                raise InputError(f"{self.name}: {have}, not {wanted}")
        turns = [
            _submit(env, tasks[name], replies) for replies, name in zip(predictions, references, strict=True)
        ]
        infos = [next(iter(turn.resolve(judged)[-1].values())) for turn, judged in turns]
        scores = [info["score"] for info in infos]
        return {
            **summary("score", scores),
            "percent": 100 * fmean(scores) / env.high,
            "success": fmean(info["success"] for info in infos),
            "solved": [info["success"] for info in infos],
            "parts": _means([info["reward_parts"] for info in infos]),
            "measured": _means([info["metrics"] for info in infos]),
        }

    def _tasks(self, env: CollabEnv, names: Sequence[str]) -> dict[str, Task]:
        wanted = set(names)
        found = {task.id: task for task in env.tasks if task.id in wanted}
        for name in names:
            if name not in found:
                known = suggest(name, (task.id for task in env.tasks))
                where = f"{env.tasks.name} has no task {name!r} in {env.split!r}"
                raise InputError(f"{self.name}: {where}{known}")
        return found


def _submit(env: CollabEnv, task: Task, replies: Sequence[str]) -> tuple[CollabEnv, Any]:
    """A copy of the environment whose first turn is being judged, and the judge's answer."""
    twin = env.clone()
    twin.reset(seed=0, options={"task": task})
    return twin, twin.submit(dict(zip(twin.possible_agents, replies, strict=True)))


def _means(found: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Means by name, over the examples that have it."""
    names = dict.fromkeys(name for one in found for name in one)
    return {name: fmean(one[name] for one in found if name in one) for name in names}
