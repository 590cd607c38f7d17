"""One agent alone, in Gymnasium: the others are part of its environment, as scripts or functions.

What one agent can reach depends on whom it plays with. Here the first agent follows a script beside partners of
every kind. An agent of a run would be one more: `collm_agents.interop.frozen.frozen_agents("runs/NAME")`.

    python examples/one_agent.py
    python examples/one_agent.py --env games/strbuild-mini-v0 --episodes 20
"""

import argparse

import gymnasium
import numpy as np

import collm_envs  # noqa: F401  # registers the environments


def parrot(history, rng):
    """A partner of one's own: its history ends with what it sees now, and it says just that."""
    return history[-1]


def play(env, kind, episodes, seed):
    """Mean score of the agent's scripted play.

    Args:
        env: a single-agent environment.
        kind: the script of the agent.
        episodes: how many are played.
        seed: seed of the tasks, the partners and the script.
    """
    rng, scores = np.random.default_rng(seed), []
    for episode in range(episodes):
        env.reset(seed=seed + episode)
        over, info = False, {}
        while not over:
            reply = env.unwrapped.env.scripted(kind, env.unwrapped.agent, rng)
            _observation, _reward, terminated, truncated, info = env.step(reply)
            over = terminated or truncated
        scores.append(info["score"])
    return float(np.mean(scores))


def main():
    """A table: the agent's script down, its partners across."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--env", default="writing/tldr-mini-v0")
    parser.add_argument("--episodes", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()

    partners = {"random": "random", "novice": "novice", "oracle": "oracle", "parrot": parrot}
    print(f"{args.env}, mean score of {args.episodes} episodes")
    print("agent   " + "".join(f"{name:>8}" for name in partners))
    for kind in ("novice", "oracle"):
        scores = (
            play(gymnasium.make(args.env, partners=partner), kind, args.episodes, args.seed)
            for partner in partners.values()
        )
        print(f"{kind:8}" + "".join(f"{score:8.3f}" for score in scores))


if __name__ == "__main__":
    main()
