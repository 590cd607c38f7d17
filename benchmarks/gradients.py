"""How much the estimators' gradients vary, where the exact one is known: MC, CoLLM-CC and CoLLM-DC on small games.

`python -m benchmarks.gradients --out benchmarks/results/FILE.json` draws trees of the enumerable games of the tests
(`tests/exact/game.py`) and prints, for every estimator, the variance of its gradient (trace of the covariance) at
equal joint samples, relative to MARLOO on paths, and how far its mean is from the exact gradient (sampling error
included: unbiased ones are not at 0). Critics are perfect, or tables fitted by TD(0) to a number of earlier
episodes. Two kinds of games: agents see their partner's last reply, or they do not; in both it decides the reward.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

from collm_agents.algorithms.cc import CentralisedCritic
from collm_agents.algorithms.dc import DecentralisedCritics
from collm_agents.algorithms.mc import MonteCarlo
from collm_agents.batch import Rollouts

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "exact"))
from game import Game
from trees import draw, tree_gradients

GAMMA = 0.9
EPISODES = (20, 80, 320)  # that learned critics were fitted to
SHAPES = {"tree": (3, 3, 3), "paths": (3, 1, 1)}


def table_values(game: Game, view: str, episodes: int, seed: int) -> dict:
    """TD(0)'s fixed point on some episodes: value by history (joint) or by agent and own history (local)."""
    rollouts, at = draw(game, (1,) * game.turns, episodes, seed)
    nodes, values = rollouts.nodes, {}
    for turn in reversed(range(game.turns)):
        found: dict[Any, list[float]] = {}
        for node in np.flatnonzero(rollouts.turn == turn):
            for key, after in keys(view, at, nodes.point[node], nodes.next_point[node]):
                found.setdefault(key, []).append(nodes.reward[node] + GAMMA * values.get(after, 0.0))
        values |= {key: float(np.mean(targets)) for key, targets in found.items()}
    return values


def keys(view: str, at: list, point: int, after: int) -> list[tuple[Any, Any]]:
    """What a critic of a view is asked at a point, with what it is asked at the next one (None at the end)."""
    if view == "joint":
        return [(at[point], at[after] if after >= 0 else None)]
    return [((i, at[point][i]), (i, at[after][i]) if after >= 0 else None) for i in range(2)]


def values_at(view: str, at: list, table: dict) -> np.ndarray:
    """A table's values at all points: [P] or [P, 2]; 0 for histories it has not seen."""
    if view == "joint":
        return np.array([table.get(own, 0.0) for own in at])
    return np.array([[table.get((i, own[i]), 0.0) for i in range(2)] for own in at])


def perfect(game: Game, view: str) -> dict:
    """The exact table."""
    if view == "joint":
        return dict(game.value)
    return {(i, history): v for i in range(2) for history, v in game.local[i].items()}


def measure(game: Game, rollouts: Rollouts, estimator: Any, values: np.ndarray | None) -> tuple[float, float]:
    """Variance at one joint sample (trace of the covariance), and the mean's distance over the exact's length."""
    estimate = estimator(rollouts, values)
    turn = rollouts.points.turn[rollouts.rows.point]
    weight = rollouts.row_weight() * estimate.keep * GAMMA**turn
    gradients = tree_gradients(game, rollouts, estimate.advantage, weight)
    exact = game.gradient()
    share = rollouts.joint_samples / len(rollouts.tasks)
    far = np.linalg.norm(gradients.mean(0) - exact) / np.linalg.norm(exact)
    return float(gradients.var(0).sum() * share), float(far)


def one_game(seed: int, seen: bool, trees: int) -> dict[str, tuple[float, float]]:
    """All estimators on one game."""
    game, found = Game(seed, turns=3, seen=seen, gamma=GAMMA, early=False), {}
    for shape, branching in SHAPES.items():
        count = max(50, trees * 9 // sum(int(np.prod(branching[: t + 1])) for t in range(3)))
        rollouts, at = draw(game, branching, count, 100 + seed)
        for baseline in ("none", "mean", "leave_one_out", "max"):
            estimator = MonteCarlo(gamma=GAMMA, baseline=baseline)
            found[f"mc {baseline}, {shape}"] = measure(game, rollouts, estimator, None)
        for kind, view in ((CentralisedCritic, "joint"), (DecentralisedCritics, "local")):
            tables = {"perfect": perfect(game, view)}
            tables |= {f"{n} episodes": table_values(game, view, n, 500 + seed) for n in EPISODES}
            for name, table in tables.items():
                for lam in (0.0, 0.5, 1.0):
                    estimator, values = kind(gamma=GAMMA, lam=lam), values_at(view, at, table)
                    label = "cc" if view == "joint" else "dc"
                    found[f"{label} lambda {lam:g}, {name}, {shape}"] = measure(
                        game, rollouts, estimator, values
                    )
    return found


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--games", type=int, default=6, help="games of each kind")
    parser.add_argument(
        "--trees", type=int, default=600, help="paths of three turns per shape, or as many nodes in trees"
    )
    parser.add_argument("--out", type=Path, help="JSON file")
    options = parser.parse_args()
    told: dict[str, dict[str, Any]] = {}
    for kind, seen in (("partner unseen", False), ("partner seen", True)):
        runs = [one_game(seed, seen, options.trees) for seed in range(options.games)]
        for name in runs[0]:
            ratio = [run[name][0] / run["mc leave_one_out, paths"][0] for run in runs]
            told.setdefault(name, {})[kind] = {
                "variance_ratio": float(np.exp(np.mean(np.log(ratio)))),
                "lowest": min(ratio),
                "highest": max(ratio),
                "bias": float(np.mean([run[name][1] for run in runs])),
            }
    print(
        "| estimator | variance, partner unseen | bias | variance, partner seen | bias |\n|---|---|---|---|---|"
    )
    for name, by_kind in told.items():
        cells = [
            f"{own['variance_ratio']:.2f} ({own['lowest']:.2f} to {own['highest']:.2f}) | {own['bias']:.2f}"
            for own in by_kind.values()
        ]
        print(f"| {name} | " + " | ".join(cells) + " |")
    if options.out:
        record = {
            "command": " ".join(["python -m benchmarks.gradients", *sys.argv[1:]]),
            "games": options.games,
            "estimators": told,
        }
        options.out.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
