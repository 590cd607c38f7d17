"""The tasks: jobs with last days, who is free when, and a solver that shows that a task can be done.

Days are numbers from 0 (Monday) inside, short names outside.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from collm_envs.task import FieldError

DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri")
NAMES = ("paint", "mend", "cook", "sweep", "weld", "sew", "plant", "wash", "pack", "print", "carve", "polish")
AGENTS = 3
SHARE = 2  # jobs that are an agent's fair share
FREE = ("free_0", "free_1", "free_2")

Plan = tuple[tuple[str, int, int], ...]  # (job, agent, day)


def rows_of(split: str) -> list[dict]:
    """Rows without a file: 300 of `train`, 60 of `test`; no two are alike."""
    rng = np.random.default_rng(7)  # a fixed seed: the same tasks everywhere
    rows = {str(row): row for row in (_row(rng) for _ in range(400))}
    found = list(rows.values())
    return found[:300] if split == "train" else found[300:360]


def _row(rng: np.random.Generator) -> dict:
    """A task made from its solution: two jobs for each agent on two of its three free days."""
    names = [str(name) for name in rng.choice(NAMES, size=AGENTS * SHARE, replace=False)]
    free = [sorted(int(day) for day in rng.choice(len(DAYS), size=3, replace=False)) for _ in range(AGENTS)]
    jobs = {}
    for agent, days in enumerate(free):
        for i, day in enumerate(rng.choice(days, size=SHARE, replace=False)):
            last = min(int(day) + int(rng.integers(2)), len(DAYS) - 1)
            jobs[names[agent * SHARE + i]] = DAYS[last]
    shown = dict(sorted(jobs.items()))
    return {"jobs": shown, **{key: [DAYS[day] for day in days] for key, days in zip(FREE, free, strict=True)}}


def to_task(row: Mapping) -> tuple[dict, dict]:
    """A row as (public, hidden) fields. A row that no plan solves is an error of the data, not of the agents.

    Raises:
        FieldError: names the field that is wrong.
    """
    for field, days in (("jobs", row["jobs"].values()), *((key, row[key]) for key in FREE)):
        for day in days:
            if day not in DAYS:
                raise FieldError(field, f"{day!r} is no day; days are {', '.join(DAYS)}")
    jobs = {job: DAYS.index(day) for job, day in row["jobs"].items()}
    if len(jobs) != AGENTS * SHARE:
        raise FieldError("jobs", f"{len(jobs)} jobs, not {AGENTS * SHARE}")
    free = tuple(tuple(DAYS.index(day) for day in row[key]) for key in FREE)
    if solve(jobs, free) is None:
        raise FieldError("jobs", f"no plan does all of them with {SHARE} jobs for each of {AGENTS} agents")
    return {"jobs": jobs, "free": free}, {}


def solve(jobs: Mapping[str, int], free: Sequence[Sequence[int]]) -> Plan | None:
    """A plan in which every job stands and every agent has its share; None where there is none.

    Args:
        jobs: last day by job.
        free: free days by agent.
    """
    order = sorted(jobs, key=lambda job: (jobs[job], job))

    def extend(plan: Plan) -> Plan | None:
        if len(plan) == len(order):
            return plan
        job = order[len(plan)]
        for agent, days in enumerate(free):
            own = [day for _, who, day in plan if who == agent]
            for day in days:
                if len(own) < SHARE and day not in own and day <= jobs[job]:
                    whole = extend((*plan, (job, agent, day)))
                    if whole is not None:
                        return whole
        return None

    return extend(())
