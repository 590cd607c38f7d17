"""A new algorithm in one file: imitate the best reply of each group of siblings.

An algorithm is an estimator: a frozen dataclass whose fields are its settings. It says what it needs from
rollouts, what it asks of a critic, and turns both into one advantage per reply. Collector, learner and trainer
stay as they are.

    python examples/custom_algorithm.py --joint-samples 640
"""

import argparse
from dataclasses import dataclass

import numpy as np

from collm_agents.advantages import Estimate, RolloutNeeds, child_scan, complete_nodes, row_mean
from collm_agents.algorithms import algorithm
from collm_agents.batch import Rollouts
from collm_agents.config import Section, setting
from collm_agents.experiment import Experiment
from collm_agents.overrides import load_config


@algorithm("best-of-group")
@dataclass(frozen=True)
class BestOfGroup(Section):
    """Advantage 1 for replies whose return is the best of their siblings, 0 for the others; no critic.

    Groups in which all are equal teach nothing and get 0.
    """

    _where = "algorithm"
    gamma: float = setting(0.9, "discount per turn", low=0, high=1)
    advantage_norm: str = setting("none", "default of learner.advantage_norm", choices=("none", "batch"))

    @property
    def rollout_needs(self) -> RolloutNeeds:
        """A tree, with at least two siblings to choose from."""
        return RolloutNeeds(branching="tree", min_siblings=2)

    @property
    def variant(self) -> str:
        """Named in every result."""
        return "best"

    def critic_queries(self, rollouts: Rollouts) -> None:
        """Nothing is asked of a critic."""
        return None

    def __call__(self, rollouts: Rollouts, values=None) -> Estimate:
        """One advantage per row (a reply of one agent), [N], and which rows may be trained on."""
        returns = child_scan(rollouts.nodes.reward, rollouts, self.gamma)  # per joint action, [M]
        per_row, keep = row_mean(returns, rollouts, complete_nodes(rollouts))
        advantage = np.zeros(len(rollouts.rows))
        place = rollouts.rows.point * len(rollouts.agents) + rollouts.rows.agent  # one agent at one point
        for key in np.unique(place[keep]):
            rows = np.flatnonzero((place == key) & keep)
            best = per_row[rows] >= per_row[rows].max() - 1e-9
            advantage[rows] = best & ~best.all()
        return Estimate(advantage, keep)


def main():
    """Train with the new algorithm."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--env", default="writing/tldr-mini-v0")
    parser.add_argument("--joint-samples", type=int, default=640)
    args = parser.parse_args()
    config = load_config(
        args.env, overrides=["algorithm=best-of-group", f"joint_samples={args.joint_samples}"]
    )
    result = Experiment(config).run().result
    start, end = (result[when]["metrics"]["score"]["mean"] for when in ("start", "end"))
    print(f"{result['variant']}: score {start:.3f} -> {end:.3f} of {result['high']:g}")


if __name__ == "__main__":
    main()
