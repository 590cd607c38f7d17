"""The small game as an environment, and teams and critics that are tables, for the real collector and learner."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from types import SimpleNamespace

import numpy as np
import torch
from game import AGENTS, START

from collm_agents.chat import History
from collm_agents.models.sharding import Whole
from collm_agents.team import Reply, Scored
from collm_envs import CollabEnv, RowFormat, component

SAYS = 10  # token of a reply: its number beyond those of observations


@dataclass(frozen=True)
class Position:
    turn: int
    state: int
    shown: tuple


@component("pay", low=-8, high=8)
def pay(reward):
    """The game's reward."""
    return reward


class GameEnv(CollabEnv):
    """The game, drawn by the environment's own generator. Its episodes never end early.

    Observations: numbers.

    Actions: a number.

    Rewards: `pay`.

    Example: none.
    """

    row_formats = (RowFormat({"seed": int}, lambda row: ({"seed": row["seed"]}, {})),)
    game = None

    def roles(self, num_agents):
        return AGENTS

    def components(self):
        return (pay,)

    def builtin_rows(self, split):
        return [{"seed": 0}]

    def begin(self, task, rng):
        state = int(rng.random() >= START[0])
        return Position(0, state, ((state,), (0,)))

    def prompt(self, state, agent):
        return " ".join(map(str, state.shown[AGENTS.index(agent)]))

    def advance(self, state, actions):
        joint = tuple(int(actions[a]) for a in AGENTS)
        place = (state.turn, state.state, *joint)
        following = int(self.game.next[place])
        return Position(state.turn + 1, following, ((following,), (0,))), float(self.game.reward[place])


class Table:
    """As much of a backbone as a learner reads."""

    device, checkpointing, packs, shards = "cpu", False, True, Whole()

    def __init__(self, **members):
        self.members = members

    def parameters(self, member):
        return {"table": self.members[member]}


class TableTeam:
    """Softmax tables as a team: prompts are own histories as tokens, replies are one token."""

    def __init__(self, game):
        self.game, self.agents, self.models, self.scripted = game, AGENTS, AGENTS, {}
        self.learners = self.trained = AGENTS
        self.users = {agent: (agent,) for agent in AGENTS}
        self.tables = {
            agent: theta.detach().clone().float().requires_grad_(True)
            for agent, theta in zip(AGENTS, game.theta, strict=True)
        }
        self.backbones = {agent: Table(**{agent: self.tables[agent]}) for agent in AGENTS}
        self.calls = 0

    def observe(self, agent, history, text):
        return History(history.ids + tuple(map(int, text.split())))

    def place(self, agent, prompt):
        """Row of the policy table that belongs to a memory."""
        key = tuple(("says", token - SAYS) if token >= SAYS else ("sees", token) for token in prompt)
        return self.game.index(AGENTS.index(agent), key)

    def holding(self):
        return contextlib.nullcontext(SimpleNamespace())

    def act(self, requests, on_reply=None):
        self.calls += len(requests)
        found = []
        for number, request in enumerate(requests):
            chance = self.game.policy[AGENTS.index(request.agent)][self.place(request.agent, request.prompt)]
            drawn = np.searchsorted(chance.cumsum(), request.key.uniforms(1)[0], side="right")
            action = min(int(drawn), self.game.actions - 1)
            found.append(Reply(str(action), (action + SAYS,), np.log(chance[[action]]), cut=False))
            if on_reply is not None:
                on_reply(number, found[-1])
        return found

    def score(self, member, prompts, replies, budget, *, entropy=False, reference=False):
        """One row a batch, so that micro-batches are exercised."""
        for row, (prompt, reply) in enumerate(zip(prompts, replies, strict=True)):
            logp = torch.log_softmax(self.tables[member][self.place(member, prompt)], -1)
            picked = logp[reply[0] - SAYS].reshape(1, 1)
            yield Scored(np.array([row]), picked, torch.ones(1, 1, dtype=torch.bool))


class TableCritic:
    """Tables as critics: one of joint histories, or one per agent of its own."""

    def __init__(self, view):
        self.view, self.share = view, False
        self.owners = "one" if view == "joint" else "each"
        self.members = ["critic"] if view == "joint" else [f"critic_{agent}" for agent in AGENTS]
        self.agent_of = {} if view == "joint" else {m: i for i, m in enumerate(self.members)}
        self.tables = {m: {} for m in self.members}
        self.weights = {m: torch.zeros(256, requires_grad=True) for m in self.members}
        self.backbones = {m: Table(**{m: self.weights[m]}) for m in self.members}
        # Tables that have been filled stay as they are.
        self.heads = dict.fromkeys(self.members, SimpleNamespace(set_bias=lambda value: None))

    def parameters(self, member):
        return {"table": self.weights[member]}

    def encode(self, rollouts, queries):
        found = {}
        for i, member in enumerate(self.members):
            names = [
                rollouts.points.state[p] if self.view == "joint" else rollouts.points.local[p][i]
                for p in queries.point
            ]
            table = self.tables[member]
            found[member] = [(table.setdefault(name, len(table)),) for name in names]
        return found

    def overlong(self, encoded):
        return 0

    def score(self, member, sequences, budget):
        for row, (place,) in enumerate(sequences):
            yield np.array([row]), self.weights[member][place].reshape(1)

    def valued(self, member, sequences, budget):
        return np.array([float(self.weights[member].detach()[place]) for (place,) in sequences])

    def joined(self, per_member):
        columns = [per_member[m] for m in self.members]
        return columns[0] if self.view == "joint" else np.array(columns).T

    def values(self, encoded, budget):
        return self.joined({m: self.valued(m, encoded[m], budget) for m in self.members})

    def own(self, member, per_query):
        return per_query if per_query.ndim == 1 else per_query[:, self.agent_of[member]]
