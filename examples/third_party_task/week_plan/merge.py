"""Replies become claims, claims become one plan by a fixed rule, and the plan is what is paid for.

Everything here is total: any text is read, and what cannot be used is dropped with the reason.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from collm_envs import component

from week_plan.jobs import DAYS, SHARE, Plan


@dataclass(frozen=True)
class Merged:
    """The outcome of a turn.

    Attributes:
        jobs: how many jobs there are.
        read: by agent, whether its reply could be read.
        standing: the claims that hold, in the order of the plan.
        dropped: (agent, job, reason) of the claims that do not.
    """

    jobs: int
    read: tuple[bool, ...]
    standing: Plan
    dropped: tuple[tuple[int, str, str], ...]

    def held_by(self, agent: int) -> int:
        """How many standing jobs an agent has."""
        return sum(who == agent for _, who, _ in self.standing)


def claims_of(reply: str) -> dict[str, str] | None:
    """The jobs and days of a reply; None unless it is one JSON object of texts and nothing else."""
    try:
        found = json.loads(reply)
    except (ValueError, RecursionError):  # no JSON, or brackets without end
        return None
    if not isinstance(found, dict) or not all(isinstance(day, str) for day in found.values()):
        return None
    return found


def merge(jobs: Mapping[str, int], free: Sequence[Sequence[int]], replies: Sequence[str]) -> Merged:
    """One plan out of all replies.

    A claim must name a job, a free day of the agent and not be late. Of those that do, the earlier day goes first,
    then the agent's number, then the order in which it was written: a job stands once, and an agent does one a day.

    Args:
        jobs: last day by job.
        free: free days by agent.
        replies: one by agent.
    """
    read = [claims_of(reply) for reply in replies]
    valid, dropped = [], []
    for agent, claims in enumerate(read):
        for place, (job, name) in enumerate((claims or {}).items()):
            day = DAYS.index(name) if name in DAYS else -1
            reason = _reason(jobs, free[agent], job, day)
            if reason:
                dropped.append((agent, job, reason))
            else:
                valid.append((day, agent, place, job))
    standing: list[tuple[str, int, int]] = []
    for day, agent, _, job in sorted(valid):
        if any(job == other for other, _, _ in standing):
            dropped.append((agent, job, "taken"))
        elif any((agent, day) == (who, when) for _, who, when in standing):
            dropped.append((agent, job, "two on one day"))
        else:
            standing.append((job, agent, day))
    return Merged(len(jobs), tuple(claims is not None for claims in read), tuple(standing), tuple(dropped))


def _reason(jobs: Mapping[str, int], free: Sequence[int], job: str, day: int) -> str:
    """Why a claim cannot stand whatever the others do; empty where it can."""
    if job not in jobs:
        return "no such job"
    if day not in free:
        return "not a free day"
    return "late" if day > jobs[job] else ""


@component("form", low=0, high=1, gate=True)
def form(merged: Merged) -> float:
    """Fraction of the replies that could be read."""
    return sum(merged.read) / len(merged.read)


@component("least", low=0, high=1, gate=True)
def least(merged: Merged) -> float:
    """What the agent with the fewest standing jobs does of its share: at 0 no work is paid."""
    return min(1.0, min(merged.held_by(agent) for agent in range(len(merged.read))) / SHARE)


@component("done", low=0, high=2)
def done(merged: Merged) -> float:
    """Fraction of the jobs that stand, twice."""
    return 2 * len(merged.standing) / merged.jobs


@component("clean", low=0, high=1)
def clean(merged: Merged) -> float:
    """Fraction of the claims that stand; nothing for no claim at all."""
    return len(merged.standing) / max(len(merged.standing) + len(merged.dropped), 1)
