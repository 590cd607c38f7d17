"""A new algorithm in one file: counterfactual advantages from a critic of joint replies (COMA).

An algorithm is an estimator: a frozen dataclass whose fields are its settings. It says what it needs from
rollouts, what it asks of a critic, and turns both into one advantage per reply. Collector, learner and trainer
stay as they are.

COMA (Foerster et al. 2018) asks of each agent's reply: how much better was it than what the team would have got had
this agent said something else, all others saying the same? Its expectation over the agent's own policy runs over
all actions; replies are too many for that, so it is taken over the agent's other replies at the same point.

    python examples/custom_algorithm.py --env debug/handshake-v0 --joint-samples 640
    collm train debug/handshake-v0 algorithm=examples.custom_algorithm:Coma    # from the repository's root
"""

import argparse
from dataclasses import dataclass

import numpy as np

from collm_agents.advantages import Estimate, Queries, RolloutNeeds, child_mean, child_scan, row_mean
from collm_agents.algorithms import algorithm
from collm_agents.batch import Rollouts
from collm_agents.experiment import Experiment
from collm_agents.overrides import load_config
from collm_agents.sections import Section, setting


@algorithm("coma", view="joint", owners="one")
@dataclass(frozen=True)
class Coma(Section):
    """A_i = G - mean over the agent's other replies a_i' at this point of Q(h, (a_i', the others' replies)).

    G is the lambda-return from Q: r + gamma * Q of the next joint reply for lambda 0, what was earned for 1. One
    central critic of the joint history with the joint reply is trained on it. (With Q(h, a) in G's place, as in the
    paper, a critic that knows nothing yet would train the agents on its errors.)
    """

    _where = "algorithm"
    gamma: float = setting(0.9, "discount per turn", low=0, high=1)
    lam: float = setting(0.0, "lambda of the critic's targets: 0 is SARSA, 1 the return", low=0, high=1)
    advantage_norm: str = setting("batch", "default of learner.advantage_norm", choices=("none", "batch"))

    @property
    def rollout_needs(self) -> RolloutNeeds:
        """A tree: every point needs at least two replies per agent, or there is nothing to compare with."""
        return RolloutNeeds(branching="tree", min_siblings=2)

    @property
    def variant(self) -> str:
        """Named in every result."""
        return f"q{self.lam:g}"

    def critic_queries(self, rollouts: Rollouts) -> Queries:
        """Every joint action as it was played, then each with one agent's reply exchanged: Q queries."""
        nodes = range(len(rollouts.nodes))
        asked = [(node, rollouts.row_of[node]) for node in nodes]
        asked += [(node, rows) for node, _, rows in self._exchanged(rollouts)]
        texts = rollouts.rows.text
        replies = tuple({a: texts[row] for a, row in enumerate(rows)} for _, rows in asked)
        return Queries(rollouts.nodes.point[[node for node, _ in asked]], replies)

    def __call__(self, rollouts: Rollouts, values) -> Estimate:
        """One advantage per row (a reply of one agent), [N], and a target per query, [Q]."""
        nodes, count = rollouts.nodes, len(rollouts.nodes)
        played, exchanged = values[:count], values[count:]
        delta = nodes.reward + self.gamma * child_mean(played, rollouts) - played
        delta[nodes.truncated] = 0.0  # no reply followed there, so nothing was valued to learn from
        target, use = child_scan(delta, rollouts, self.gamma * self.lam) + played, ~nodes.truncated
        others = np.zeros((count, len(rollouts.agents), 2))  # sum and number of the exchanged ones
        for (node, agent, _), value in zip(self._exchanged(rollouts), exchanged, strict=True):
            others[node, agent] += value, 1.0
        baseline = others[..., 0] / np.maximum(others[..., 1], 1.0)
        advantage, keep = row_mean(target[:, None] - baseline, rollouts, use)
        # Exchanged replies were not played: nothing is known of what they lead to.
        nothing = np.zeros(len(exchanged))
        return Estimate(
            advantage,
            keep & self._compared(rollouts, others),
            np.concatenate([target, nothing]),
            np.concatenate([nodes.weight * use, nothing]),
        )

    @staticmethod
    def _compared(rollouts: Rollouts, others: np.ndarray) -> np.ndarray:
        """Rows for which another reply of the agent was there to be compared with, [N]."""
        found = np.zeros(len(rollouts.rows), dtype=bool)
        found[rollouts.row_of] = others[..., 1] > 0
        return found

    @staticmethod
    def _exchanged(rollouts: Rollouts) -> list[tuple[int, int, np.ndarray]]:
        """For every node and agent: the joint replies with this agent's reply exchanged for another of its own."""
        rows, found = rollouts.rows, []
        at: dict[tuple[int, int], list[int]] = {}
        for row, place in enumerate(zip(rows.point.tolist(), rows.agent.tolist(), strict=True)):
            at.setdefault(place, []).append(row)
        for node, used in enumerate(rollouts.row_of):
            for agent, own in enumerate(used):
                for other in at[int(rollouts.nodes.point[node]), agent]:
                    if other != own:
                        exchanged = used.copy()
                        exchanged[agent] = other
                        found.append((node, agent, exchanged))
        return found


def main():
    """Train with the new algorithm."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--env", default="writing/tldr-mini-v0")
    parser.add_argument("--joint-samples", type=int, default=640)
    args = parser.parse_args()
    config = load_config(args.env, overrides=["algorithm=coma", f"joint_samples={args.joint_samples}"])
    result = Experiment(config).run().result
    start, end = (result[when]["metrics"]["score"]["mean"] for when in ("start", "end"))
    print(f"{result['variant']}: score {start:.3f} -> {end:.3f} of {result['high']:g}")


if __name__ == "__main__":
    main()
