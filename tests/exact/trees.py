"""Trees of episodes of the small game as `Rollouts`, drawn as the collector draws them, many thousands at once."""

from __future__ import annotations

import itertools

import numpy as np
from game import AGENTS, START

from collm_agents.forest import Forest


def draw(game, branching, trees, seed, *, mode="aligned", greedy_sibling=False):
    """Draw trees.

    Args:
        game: the game.
        branching: replies per agent and turn.
        trees: how many.
        seed: of all draws.
        mode: how replies pair up.
        greedy_sibling: a greedy joint reply at every point, too.

    Returns:
        The rollouts, and the own histories of both agents at every point.
    """
    grower = _Grower(game, branching, np.random.default_rng(seed), mode, greedy_sibling)
    for tree in range(trees):
        state = int(grower.rng.random() >= START[0])
        point = grower.point(tree, -1, 0, game.first(state))
        grower.groups = {}
        grower.grow(tree, point, state, game.first(state), -1, 1.0 / trees, -1, False)
    return grower.forest.finish(AGENTS, [str(i) for i in range(trees)], branching), grower.histories


class _Grower:
    def __init__(self, game, branching, rng, mode, greedy_sibling):
        self.game, self.branching, self.rng, self.mode, self.greedy = (
            game,
            branching,
            rng,
            mode,
            greedy_sibling,
        )
        self.forest, self.histories, self.groups = Forest(), [], {}
        self.cumulative = [table.cumsum(-1) for table in game.policy]

    def point(self, tree, parent, turn, histories):
        self.histories.append(histories)
        local = tuple(str(self.game.index(i, histories[i])) for i in range(2))
        return self.forest.add(
            self.forest.points, tree=tree, parent=parent, turn=turn, state="", local=local, info={}
        )

    def row(self, agent, point, history, greedy):
        """One reply: its action and its row."""
        place = self.game.index(agent, history)
        policy = self.game.policy[agent][place]
        if greedy:
            action = int(policy.argmax())
        else:
            drawn = np.searchsorted(self.cumulative[agent][place], self.rng.random(), side="right")
            action = min(int(drawn), self.game.actions - 1)
        return action, self.forest.add(
            self.forest.rows,
            agent=agent,
            point=point,
            prompt=(place,),
            reply=(action,),
            logprob=np.log(policy[[action]]),
            text=str(action),
            cut=False,
            clipped=False,
        )

    def plan(self, turn, greedy):
        """Picks of both agents for every joint reply of a point, -1 for greedy ones."""
        if greedy:
            return [(-1, -1)]
        width = range(self.branching[turn])
        pairs = itertools.product(width, width) if self.mode == "cross" else zip(width, width, strict=True)
        return [*pairs, (-1, -1)] if self.greedy else list(pairs)

    def grow(self, tree, point, state, histories, parent, weight, group, greedy):
        turn = self.forest.points["turn"][point]
        plan = self.plan(turn, greedy)
        picks = dict.fromkeys((agent, pair[agent]) for pair in plan for agent in range(2))
        drawn = {(i, g): self.row(i, point, histories[i], g < 0) for i, g in picks}
        key = ("point", point) if self.branching[turn] > 1 or group < 0 else ("group", group)
        if key not in self.groups:
            self.groups[key] = self.forest.new_group()
        share = weight / max(1, sum(pair[0] >= 0 for pair in plan))
        for pair in plan:
            actions, rows = zip(*(drawn[i, pair[i]] for i in range(2)), strict=True)
            found = self.game.after(turn, state, histories, actions)
            ahead = -1 if found is None else self.point(tree, point, turn + 1, found[1])
            reward = self.game.reward[(turn, state, *actions)]
            node = self.forest.add(
                self.forest.nodes,
                parent=parent,
                point=point,
                next_point=ahead,
                group=self.groups[key],
                reward=reward,
                score=reward,
                terminated=found is None,
                truncated=False,
                success=False,
                greedy=pair[0] < 0,
                weight=share if pair[0] >= 0 else 0.0,
                parts={},
                metrics={},
            )
            self.forest.row_of.append(list(rows))
            if found is not None:
                self.grow(tree, ahead, *found, node, share, self.groups[key], pair[0] < 0)


def tree_gradients(game, rollouts, advantage, weight):
    """Gradient contribution of every tree, times trees: the sum of weight * advantage * grad log pi of its rows.

    The mean over trees is what a learner's first step follows.

    Returns:
        [trees, parameters].
    """
    rows, trees = rollouts.rows, len(rollouts.tasks)
    sizes = [table.size for table in game.policy]
    found = np.zeros((trees, sum(sizes)))
    tree = rollouts.points.tree[rows.point]
    signal = weight * advantage * trees
    key = np.array([prompt[0] for prompt in rows.prompt])
    action = np.array([reply[0] for reply in rows.reply])
    for agent in range(2):
        own = np.flatnonzero(rows.agent == agent)
        start = agent * sizes[0]
        for a in range(game.actions):
            slope = (action[own] == a) - game.policy[agent][key[own], a]
            np.add.at(found, (tree[own], start + key[own] * game.actions + a), signal[own] * slope)
    return found


def far_from(gradients, exact):
    """Greatest distance of the mean from the exact gradient in standard errors; what never varies is exact."""
    mean, error = gradients.mean(0), gradients.std(0, ddof=1) / np.sqrt(len(gradients))
    still = error < 1e-12
    assert np.allclose(mean[still], exact[still], atol=1e-9)
    return float(np.abs((mean - exact)[~still] / error[~still]).max())
