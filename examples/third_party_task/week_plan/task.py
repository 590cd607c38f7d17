"""`planning/week-v0`: three agents plan a week without talking, one JSON object each."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from collm_envs import CollabEnv, RowFormat, register

from week_plan.jobs import AGENTS, DAYS, FREE, SHARE, rows_of, solve, to_task
from week_plan.merge import Merged, clean, done, form, least, merge


@dataclass(frozen=True)
class Week:
    """The state: last day by job, free days by agent, and the last turn's plan."""

    jobs: Mapping[str, int]
    free: tuple[tuple[int, ...], ...]
    last: Merged | None = None


def _all_done(merged: Merged, total: float, parts: Mapping[str, float]) -> bool:
    """Every job stands, everybody does its share, and no claim was dropped."""
    return len(merged.standing) == merged.jobs and least(merged) == 1 and not merged.dropped


@register("planning/week-v0")
class WeekPlan(CollabEnv):
    """Three agents share out six jobs over five days; each knows only on which days it is free.

    Observations: turn 0 shows the jobs with their last days and the agent's own free days. Later turns show the
    merged plan, what is open, and which of the agent's own claims were dropped, with the reason.

    Actions: one JSON object of the jobs that the agent takes, with a day for each, such as
    `{"paint": "Mon", "sew": "Thu"}`. One job a day. Claims of all agents are merged: the earlier day goes first,
    then the agent's number.

    Rewards: `form` 0 to 1 (a gate), `least` 0 to 1 (a gate: what the idlest agent does of its share of two jobs),
    `done` 0 to 2, `clean` 0 to 1. Success when all jobs stand, everybody does its share and no claim was dropped.

    Arguments: those of `CollabEnv`; `num_agents` is 3, `num_turns` 2 unless given. `source`: `builtin` has 300
    train and 60 test weeks; files need `jobs` (last day by job) and `free_0`, `free_1`, `free_2` (lists of days).

    Example:
        >>> from collm_envs import make
        >>> env = make("planning/week-v0")
        >>> observations, _ = env.reset(seed=0, options={"task": 0})
        >>> observations["planner_0"].splitlines()[1]
        'Jobs with last days: carve Fri, pack Thu, plant Fri, polish Tue, print Fri, sew Fri.'
        >>> *_, infos = env.step(dict.fromkeys(env.agents, "{}"))
        >>> infos["planner_0"]["reward_parts"]["form"], infos["planner_0"]["score"]
        (1.0, 1.0)
    """

    agent_counts = (AGENTS,)
    row_formats = (RowFormat({"jobs": dict, **dict.fromkeys(FREE, list)}, to_task),)
    reply_words = 4 * SHARE

    def __init__(self, *, num_agents: int = AGENTS, num_turns: int = 2, **kwargs: Any) -> None:
        super().__init__(num_agents=num_agents, num_turns=num_turns, **kwargs)

    def roles(self, num_agents: int) -> Sequence[str]:
        return tuple(f"planner_{i}" for i in range(num_agents))

    def components(self) -> Sequence:
        return (form, least, done, clean)

    def success_rule(self):
        return _all_done

    def builtin_rows(self, split: str) -> Sequence[dict]:
        return rows_of(split)

    def begin(self, task, rng: np.random.Generator) -> Week:
        return Week(task.public["jobs"], task.public["free"])

    def prompt(self, state: Week, agent: str) -> str:
        me = self.possible_agents.index(agent)
        if state.last is not None:
            return self._feedback(state, me)
        jobs = ", ".join(f"{job} {DAYS[day]}" for job, day in state.jobs.items())
        return (
            f"You are {agent}, one of {AGENTS} who plan a week at the same time, without talking.\n"
            f"Jobs with last days: {jobs}.\n"
            f"Your free days: {', '.join(DAYS[day] for day in state.free[me])}. "
            f"One job a day, {SHARE} for each of you.\n"
            'Reply with your jobs as JSON only, such as {"dig": "Mon"}.'
        )

    def _feedback(self, state: Week, me: int) -> str:
        last = state.last
        plan = ", ".join(
            f"{job} {DAYS[day]} by {self.possible_agents[who]}" for job, who, day in last.standing
        )
        still = ", ".join(job for job in state.jobs if job not in {job for job, _, _ in last.standing})
        mine = ", ".join(f"{job[:20]} ({why})" for who, job, why in last.dropped if who == me)
        read = "" if last.read[me] else " Your reply was not one JSON object of texts."
        told = f"Plan: {plan or 'empty'}. Open: {still or 'nothing'}. Yours dropped: {mine or 'none'}."
        return f"{told}{read} Reply again."

    def advance(self, state: Week, actions: Mapping[str, str]) -> tuple[Week, Merged]:
        merged = merge(state.jobs, state.free, [actions[agent] for agent in self.possible_agents])
        return replace(state, last=merged), merged

    def measure(self, outcome: Merged) -> Mapping[str, float]:
        return {"standing_jobs": len(outcome.standing), "dropped_claims": len(outcome.dropped)}

    def novice(self, state: Week, agent: str, rng: np.random.Generator) -> str:
        """Two jobs at random, each on a free day that is not too late for it where there is one."""
        free = state.free[self.possible_agents.index(agent)]
        claims = {}
        for job in sorted(str(job) for job in rng.choice(list(state.jobs), size=SHARE, replace=False)):
            days = [day for day in free if day <= state.jobs[job]] or free
            claims[job] = DAYS[int(rng.choice(days))]
        return json.dumps(claims)

    def oracle(self, state: Week, agent: str, rng: np.random.Generator) -> str:
        """Its share of the solver's plan."""
        me = self.possible_agents.index(agent)
        return json.dumps(
            {job: DAYS[day] for job, who, day in solve(state.jobs, state.free) or () if who == me}
        )
