"""A Dec-POMDP small enough to enumerate: two agents, two or three turns, a handful of replies.

Agent 0 sees the state, agent 1 nothing of it; rewards and transitions depend on both replies. In the `seen` game
each also sees what the partner said last. Policies are softmax tables over an agent's own history. Everything that
the estimators estimate is computed here exactly: the policy gradient, values of joint and own histories, and values
of replies.
"""

from __future__ import annotations

import itertools

import numpy as np
import torch

AGENTS = ("a_0", "b_1")
START = (0.4, 0.6)  # of the two states


class Game:
    """One game and one pair of policies.

    Args:
        seed: of rewards, transitions and policies.
        turns: horizon.
        actions: replies that each agent has.
        seen: agents see the partner's last reply.
        gamma: discount.
        early: one joint reply of the first turn ends the episode.
        scale: of the rewards.
    """

    def __init__(self, seed=0, *, turns=2, actions=2, seen=False, gamma=1.0, early=True, scale=1.0):
        rng = np.random.default_rng(seed)
        shape = (turns, 2, actions, actions)
        self.turns, self.actions, self.seen, self.gamma = turns, actions, seen, gamma
        self.reward = scale * rng.normal(size=shape)
        self.next = rng.integers(0, 2, size=shape)
        self.ends = np.zeros(shape, dtype=bool)
        self.ends[0, 0, 1, 0] = early
        self.ends[-1] = True
        self.keys = ({}, {})
        for state in range(2):
            self._find_keys(0, state, self.first(state))
        self.theta = tuple(
            torch.tensor(rng.normal(size=(len(keys), actions)), requires_grad=True) for keys in self.keys
        )
        self.refresh()

    def refresh(self):
        """Recompute policies and values after a change of `theta`."""
        self.policy = tuple(torch.softmax(t, -1).detach().numpy() for t in self.theta)
        self.value, self.q = {}, {}
        by_history, by_reply = ({}, {}), ({}, {})  # summed chance and chance times worth
        for state in range(2):
            self._values(0, state, self.first(state), START[state], by_history, by_reply)
        self.local, self.local_q = (
            tuple({key: total / chance for key, (chance, total) in own.items()} for own in found)
            for found in (by_history, by_reply)
        )

    # -- rules -----------------------------------------------------------------------------------------------

    def first(self, state):
        """Own histories at the start."""
        return (("sees", state),), (("sees", 0),)

    def after(self, turn, state, histories, joint):
        """Next state and own histories, or None where the episode ends."""
        if self.ends[(turn, state, *joint)]:
            return None
        following = int(self.next[(turn, state, *joint)])
        shown = [(following,), (0,)]
        if self.seen:
            shown = [(following, joint[1]), (joint[0],)]
        return following, tuple(
            (*h, ("says", a), ("sees", *s)) for h, a, s in zip(histories, joint, shown, strict=True)
        )

    def joint_actions(self):
        return itertools.product(range(self.actions), repeat=2)

    def index(self, agent, history):
        """Row of the policy table."""
        return self.keys[agent][history]

    def _find_keys(self, turn, state, histories):
        for agent, history in enumerate(histories):
            self.keys[agent].setdefault(history, len(self.keys[agent]))
        for joint in self.joint_actions():
            found = self.after(turn, state, histories, joint)
            if found is not None:
                self._find_keys(turn + 1, *found)

    # -- exact quantities ------------------------------------------------------------------------------------

    def objective(self):
        """Expected discounted return as a differentiable function of the tables."""
        logits = tuple(torch.log_softmax(t, -1) for t in self.theta)

        def ahead(turn, state, histories):
            total = torch.zeros((), dtype=torch.float64)
            for joint in self.joint_actions():
                logp = sum(logits[i][self.index(i, histories[i]), joint[i]] for i in range(2))
                worth = torch.tensor(self.reward[(turn, state, *joint)])
                found = self.after(turn, state, histories, joint)
                if found is not None:
                    worth = worth + self.gamma * ahead(turn + 1, *found)
                total = total + torch.exp(logp) * worth
            return total

        return sum(START[s] * ahead(0, s, self.first(s)) for s in range(2))

    def gradient(self):
        """Exact policy gradient, flat: agent 0's table, then agent 1's."""
        grads = torch.autograd.grad(self.objective(), self.theta)
        return np.concatenate([g.numpy().ravel() for g in grads])

    def _values(self, turn, state, histories, weight, by_history, by_reply):
        worth = 0.0
        for joint in self.joint_actions():
            chance = np.prod([self.policy[i][self.index(i, histories[i]), joint[i]] for i in range(2)])
            found = self.after(turn, state, histories, joint)
            own = self.reward[(turn, state, *joint)]
            if found is not None:
                own += self.gamma * self._values(turn + 1, *found, weight * chance, by_history, by_reply)
            self.q[(histories, joint)] = own
            worth += chance * own
            for agent in range(2):
                _note(by_reply[agent], (histories[agent], joint[agent]), weight * chance, own)
        self.value[histories] = worth
        for agent in range(2):
            _note(by_history[agent], histories[agent], weight, worth)
        return worth


def _note(table, key, weight, worth):
    before = table.get(key, (0.0, 0.0))
    table[key] = (before[0] + weight, before[1] + weight * worth)
