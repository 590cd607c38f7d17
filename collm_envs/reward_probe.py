"""Degenerate agents against a reward: what could be earned without doing the task, found before training.

For task authors (`collm check ENV --probe-rewards`). Six kinds of agents that do no work play the same tasks as
the novice. Where one of them is paid more, a learner may end there: it is a warning, since only the author knows
whether the task is meant so. It does not search for hacks, and a reward without a warning is not proved sound.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from collm_envs.checker import Finding, subject_of
from collm_envs.env import CollabEnv
from collm_envs.errors import CollmError, InputError, require_count
from collm_envs.probe import SEED, Subject, shown_path
from collm_envs.tables import wrapped_table
from collm_envs.task import Task

WIDTH = 2.0  # standard errors of a paired difference: about a 95 % interval
COUNTS = (1, 12, 100)  # how often the one token is said
Replies = dict[str, str]


@dataclass
class Stage:
    """What a degenerate agent may look at: an episode as it stands, and one of another task beside it."""

    env: CollabEnv
    seen: Replies
    rng: np.random.Generator
    other: CollabEnv | None
    script: str
    said: Replies | None = None


@dataclass(frozen=True)
class Played:
    """One kind of agent over the tasks.

    Attributes:
        name: which kind.
        what: what it says.
        score: mean score of the last turn.
        success: fraction of the tasks solved.
        paid: mean sum of rewards, which is what training raises.
        over: mean of its pay over the reference's on the same tasks; 0 for the reference itself.
        margin: half of a 95 % interval of `over`.
        parts: mean of each part of the last turn's score, over the reference's.
        where: file and line of the component through which it gains most; empty where it gains nothing.
        fault: the error that ended it; empty where there was none.
    """

    name: str
    what: str
    score: float = math.nan
    success: float = math.nan
    paid: float = math.nan
    over: float = 0.0
    margin: float = 0.0
    parts: Mapping[str, float] | None = None
    where: str = ""
    fault: str = ""

    @property
    def warns(self) -> bool:
        """Whether it is paid more than the reference, by more than chance."""
        return self.over > self.margin + 1e-9

    @property
    def status(self) -> str:
        """One word: `FAIL`, `warn`, `even` (not told apart from the reference), `ok`; empty for the reference."""
        if self.fault or self.parts is None:
            return "FAIL" if self.fault else ""
        return "warn" if self.warns else ("even" if self.over > -self.margin - 1e-9 else "ok")


@dataclass(frozen=True)
class ProbeReport:
    """What degenerate agents earn.

    Attributes:
        name: the environment, as it was named.
        reference: `novice`, or `random` where there is no novice.
        tasks: how many were played by each.
        high: greatest score.
        played: the reference, then every kind of degenerate agent.
        notes: what was not played, and why.
    """

    name: str
    reference: str
    tasks: int
    high: float
    played: tuple[Played, ...]
    notes: tuple[str, ...] = ()

    @property
    def warnings(self) -> tuple[Played, ...]:
        """The agents that beat the reference."""
        return tuple(one for one in self.played if one.warns)

    @property
    def ok(self) -> bool:
        """Whether every agent could be played; warnings are no failure."""
        return not any(one.fault for one in self.played)

    def table(self, width: int | None = None) -> str:
        """Who earns what, and through which part of the reward."""
        header = (
            "",
            "agent",
            "what it says",
            "score",
            "success",
            "paid",
            f"over {self.reference}",
            "through",
            "where",
        )
        return wrapped_table(header, [self._row(one) for one in self.played], width)

    def _row(self, one: Played) -> tuple[str, ...]:
        if one.fault:
            return (one.status, one.name, one.what, "", "", "", "", one.fault, one.where)
        gains = sorted(
            ((gain, part) for part, gain in (one.parts or {}).items() if gain > 1e-9), reverse=True
        )
        through = ", ".join(f"{part} {gain:+.2f}" for gain, part in gains) if one.warns else ""
        over = f"{one.over:+.3f} ± {one.margin:.3f}" if one.parts is not None else ""
        numbers = (f"{one.score:.3f}", f"{one.success:.0%}", f"{one.paid:.3f}")
        return (one.status, one.name, one.what, *numbers, over, through, one.where if one.warns else "")

    def to_json(self) -> dict[str, Any]:
        """The report as plain data."""
        keys = (
            "name",
            "what",
            "score",
            "success",
            "paid",
            "over",
            "margin",
            "parts",
            "where",
            "fault",
            "warns",
        )
        played = [{key: getattr(one, key) for key in keys} for one in self.played]
        for told in played:
            told |= {
                key: None for key, value in told.items() if isinstance(value, float) and math.isnan(value)
            }
        return {"reference": self.reference, "tasks": self.tasks, "high": self.high, "agents": played}

    def __str__(self) -> str:
        count = len(self.warnings)
        verdict = (
            f"{count} degenerate agents beat the {self.reference}"
            if count
            else f"none beats the {self.reference}"
        )
        lines = [
            f"{self.name}, rewards: {verdict} ({self.tasks} tasks, score at most {self.high:.4g})",
            "",
            self.table(),
        ]
        if count:
            lines += [
                "",
                "A learner may end where a degenerate agent is paid more. Make the named part ask for what only "
                "the task can give, put a gate before it, or say in the docstring why this is meant.",
            ]
        return "\n".join([*lines, *(f"note: {note}" for note in self.notes)])


# -- the agents --------------------------------------------------------------------------------------------


def _empty(stage: Stage) -> Replies:
    return dict.fromkeys(stage.env.agents, "")


def _copies_prompt(stage: Stage) -> Replies:
    return {agent: stage.seen[agent] for agent in stage.env.agents}


def _copies_partner(stage: Stage) -> Replies:
    first = stage.env.scripted(stage.script, stage.env.agents[0], stage.rng)
    return dict.fromkeys(stage.env.agents, first)


def _longest(stage: Stage) -> Replies:
    limit = stage.env.max_reply_chars
    texts = {agent: f"{text or 'word'} " for agent, text in stage.seen.items()}
    return {agent: (text * (limit // len(text) + 1))[:limit].rstrip() for agent, text in texts.items()}


@dataclass(frozen=True)
class _OneToken:
    """One word so many times: the first or the last of the own prompt, or one that is in any language model."""

    pick: str
    count: int

    def __call__(self, stage: Stage) -> Replies:
        return {agent: " ".join([self._word(text)] * self.count) for agent, text in stage.seen.items()}

    def _word(self, text: str) -> str:
        words = text.split() or ["the"]
        return {"first": words[0], "last": words[-1], "the": "the"}[self.pick]


def _other_oracle(stage: Stage) -> Replies:
    other = stage.other
    if other is None:
        raise InputError("there is no other task")
    if other.agents:
        said = {agent: other.scripted("oracle", agent, stage.rng) for agent in other.agents}
        other.step(said)
        return said
    return dict(stage.said or {})


Agent = Callable[[Stage], Replies]
ONE_TOKEN = {
    f"{'the word `the`' if pick == 'the' else f'the {pick} word of its prompt'}, {count} times": _OneToken(
        pick, count
    )
    for pick in ("first", "last", "the")
    for count in COUNTS
}
AGENTS: dict[str, dict[str, Agent]] = {
    "empty": {"nothing": _empty},
    "copies the prompt": {"its prompt": _copies_prompt},
    "copies the partner": {"what the first agent's {script} says": _copies_partner},
    "longest": {"its prompt over and over, up to the limit of a reply": _longest},
    "one token": dict(ONE_TOKEN),
    "another task's oracle": {"the oracle's replies to another task": _other_oracle},
}


# -- the probe ---------------------------------------------------------------------------------------------


def probe_rewards(
    env_or_id: str | type[CollabEnv] | CollabEnv, *, tasks: int = 24, **kwargs: Any
) -> ProbeReport:
    """Let degenerate agents play, and compare their pay with the novice's.

    Args:
        env_or_id: a registered id, a `module:Class` name, a class or an instance.
        tasks: how many tasks each plays, spread over those of the environment.
        kwargs: settings for an id or a class.

    Returns:
        The report; `report.warnings` are the agents that beat the novice.

    Raises:
        InputError: for something that is no environment, or one that cannot be built.
    """
    require_count("tasks", tasks)
    subject = subject_of(env_or_id, kwargs)
    if isinstance(subject, Finding):
        raise InputError(f"cannot be probed: {subject.message}")
    env, other = subject.build(), subject.build().clone()
    script = "novice" if subject.has("novice") else "random"
    count = min(tasks, len(env.tasks))
    chosen = [env.tasks[i * len(env.tasks) // count] for i in range(count)]
    notes = [] if script == "novice" else ["there is no novice; agents are compared with random words"]
    if not subject.has("oracle"):
        notes.append("there is no oracle, so none of another task")

    def play(agent: Agent) -> list[dict[str, Any]]:
        return [
            _episode(env, task, agent, _unlike(chosen, i), other, script, i) for i, task in enumerate(chosen)
        ]

    reference = play(lambda stage: {a: stage.env.scripted(script, a, stage.rng) for a in stage.env.agents})
    played = [_told(subject, env, script, "", reference, None)]
    for name, variants in AGENTS.items():
        if variants.keys() == {"the oracle's replies to another task"} and not subject.has("oracle"):
            continue
        found = [
            _try(subject, env, name, what.format(script=script), partial(play, agent), reference)
            for what, agent in variants.items()
        ]
        played.append(max(found, key=lambda one: (bool(one.fault), one.over)))
    return ProbeReport(subject.name, script, count, env.high, tuple(played), tuple(notes))


def _unlike(tasks: Sequence[Task], index: int) -> Task | None:
    """Another task, far away in the list, that shows something else."""
    for step in range(len(tasks)):
        other = tasks[(index + len(tasks) // 2 + step) % len(tasks)]
        if other.public != tasks[index].public:
            return other
    return None


def _episode(
    env: CollabEnv, task: Task, agent: Agent, unlike: Task | None, other: CollabEnv, script: str, number: int
) -> dict[str, Any]:
    seen, _ = env.reset(seed=SEED + number, options={"task": task})
    if unlike is not None:
        other.reset(seed=SEED + number, options={"task": unlike})
    stage = Stage(env, seen, np.random.default_rng([SEED, number]), other if unlike else None, script)
    paid, info = 0.0, {}
    while env.agents:
        stage.said = agent(stage)
        stage.seen, rewards, _, _, infos = env.step(stage.said)
        info = next(iter(infos.values()))
        paid += next(iter(rewards.values()))
    return {"score": info["score"], "success": info["success"], "parts": info["reward_parts"], "paid": paid}


def _try(
    subject: Subject, env: CollabEnv, name: str, what: str, play: Callable[[], list], reference: list
) -> Played:
    try:
        return _told(subject, env, name, what, play(), reference)
    except CollmError as error:
        return Played(name, what, fault=str(error), where=subject.raised_at(error))


def _told(
    subject: Subject, env: CollabEnv, name: str, what: str, records: list[dict], reference: list[dict] | None
) -> Played:
    score, success, paid = (float(np.mean([r[key] for r in records])) for key in ("score", "success", "paid"))
    if reference is None:
        return Played(name, what, score, success, paid)
    gains = np.array([one["paid"] - other["paid"] for one, other in zip(records, reference, strict=True)])
    margin = WIDTH * float(np.std(gains, ddof=1)) / math.sqrt(len(gains)) if len(gains) > 1 else 0.0
    parts = {
        part: float(
            np.mean([r["parts"][part] for r in records]) - np.mean([r["parts"][part] for r in reference])
        )
        for part in env.reward_model.names
    }
    best = max(parts, key=lambda part: parts[part], default="")
    where = _component_line(env, best) if parts.get(best, 0.0) > 0 else ""
    return Played(name, what, score, success, paid, float(gains.mean()), margin, parts, where)


def _component_line(env: CollabEnv, name: str) -> str:
    scorer = env.reward_model.components[env.reward_model.names.index(name)]
    owner = scorer if inspect.isfunction(scorer) else type(scorer)
    try:
        return f"{shown_path(inspect.getsourcefile(owner) or '?')}:{inspect.getsourcelines(owner)[1]}"
    except (OSError, TypeError):
        return ""
