"""How a team comes to its joint reply: at once, one after the other, or after a discussion.

For collectors. Training is always `parallel`: every agent sees only its own prompt. The others are the prompting
baselines of the paper's tables for untrained teams; they are ways of evaluating, and no environment knows of
them. What agents are shown of each other goes through their own chat format, as any observation does.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from collm_agents.chat import History
from collm_agents.draws import DrawKey
from collm_agents.team import AgentTeam, Reply, Request
from collm_envs.errors import InputError

PIPELINE = (
    "Those who replied before you in this turn:\n\n{said}\n\nNow give your own reply to the task above."
)
DISCUSSION = "In this turn the others replied:\n\n{said}\n\nNow give your own final reply to the task above."


@dataclass(frozen=True)
class Seat:
    """One agent's place at one joint reply.

    Attributes:
        agent: who sits there.
        before: its memory without the newest observation.
        seen: the newest observation.
        history: its memory with it, up to where the reply begins.
        key: what its draws are keyed by; None takes the likeliest tokens.
        script: a scripted agent's reply, which no protocol changes.
    """

    agent: str
    before: History
    seen: str
    history: History
    key: DrawKey | None
    script: Reply | None = None


@dataclass(frozen=True)
class Said:
    """One agent's final reply, with the memory that it was given from and what it cost.

    Attributes:
        history: up to where the reply begins.
        reply: the reply.
        drafted: tokens of earlier replies of the same turn that the environment never saw.
    """

    history: History
    reply: Reply
    drafted: int = 0


Table = Sequence[Seat]
Finished = Callable[[int, Sequence[Said]], None]
Protocol = Callable[[AgentTeam, Sequence[Table], Finished], None]


def parallel(team: AgentTeam, tables: Sequence[Table], finished: Finished) -> None:
    """All reply at once, each from its own prompt alone.

    Args:
        team: the agents.
        tables: one seat per agent for each joint reply.
        finished: told a table's number and what its seats said, as soon as that is known: the environment may
            score it while others are still being drawn.
    """
    said: list[dict[int, Said]] = [{} for _ in tables]

    def put(number: int, place: int, reply: Reply) -> None:
        said[number][place] = Said(tables[number][place].history, reply)
        if len(said[number]) == len(tables[number]):
            finished(number, [said[number][i] for i in range(len(tables[number]))])

    asked, places = [], []
    for number, table in enumerate(tables):
        for place, seat in enumerate(table):
            if seat.script is not None:
                put(number, place, seat.script)
            else:
                asked.append(Request(seat.agent, seat.history.ids, seat.key))
                places.append((number, place))
    team.act(asked, lambda i, reply: put(*places[i], reply))


def pipeline(team: AgentTeam, tables: Sequence[Table], finished: Finished) -> None:
    """One after the other in the agents' order; each sees the replies of those before it."""
    said: list[list[Said]] = [[] for _ in tables]
    for place in range(len(team.agents)):
        seats = []
        for table, own in zip(tables, said, strict=True):
            seat = table[place]
            if own and seat.script is None:
                told = {earlier.agent: one.reply.text for earlier, one in zip(table, own, strict=False)}
                shown = f"{seat.seen}\n\n{PIPELINE.format(said=_quoted(told))}"
                seat = replace(seat, history=_observe(team, seat, seat.before, shown))
            seats.append([seat])
        for own, (one,) in zip(said, _all(parallel, team, seats), strict=True):
            own.append(one)
    for number, own in enumerate(said):
        finished(number, own)


def discussion(team: AgentTeam, tables: Sequence[Table], finished: Finished) -> None:
    """All reply at once, see what the others replied, and reply again; the second replies are played."""
    if len(team.agents) == 1:
        return parallel(team, tables, finished)
    drafts = _all(parallel, team, tables)
    seats = [
        [
            _after_drafts(
                team, seat, own[place], {t.agent: o.reply.text for t, o in zip(table, own, strict=True)}
            )
            for place, seat in enumerate(table)
        ]
        for table, own in zip(tables, drafts, strict=True)
    ]

    def told(number: int, finals: Sequence[Said]) -> None:
        costs = [
            0 if s.script else len(d.reply.ids) for s, d in zip(seats[number], drafts[number], strict=True)
        ]
        finished(number, [replace(final, drafted=cost) for final, cost in zip(finals, costs, strict=True)])

    return parallel(team, seats, told)


def _all(protocol: Protocol, team: AgentTeam, tables: Sequence[Table]) -> list[list[Said]]:
    """What all tables said, once all are finished."""
    found: dict[int, list[Said]] = {}
    protocol(team, tables, lambda number, said: found.update({number: list(said)}))
    return [found[number] for number in range(len(tables))]


def _after_drafts(team: AgentTeam, seat: Seat, draft: Said, said: Mapping[str, str]) -> Seat:
    """A seat that remembers its own draft and has seen the others'."""
    if seat.script is not None:
        return seat
    others = {agent: text for agent, text in said.items() if agent != seat.agent}
    shown = DISCUSSION.format(said=_quoted(others))
    history = _observe(team, seat, seat.history.reply(draft.reply.ids), shown)
    # Another key, or the same uniforms would be drawn for both replies.
    key = seat.key and replace(seat.key, agent=f"{seat.agent}/final")
    return replace(seat, history=history, key=key)


PROTOCOLS: Mapping[str, Protocol] = {"parallel": parallel, "pipeline": pipeline, "discussion": discussion}


def _quoted(said: Mapping[str, str]) -> str:
    return "\n\n".join(f"{agent}:\n{text}" for agent, text in said.items())


def _observe(team: AgentTeam, seat: Seat, memory: History, text: str) -> History:
    history = team.observe(seat.agent, memory, text)
    if history is None:
        raise InputError(
            f"what {seat.agent} is shown of the others does not fit its context; shorten replies "
            "(team.sampling.max_new_tokens) or take team.prompt_overflow=clip"
        )
    return history
