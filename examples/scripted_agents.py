"""Play an environment with scripted agents, through PettingZoo's own interface and nothing else.

Importing `collm_envs` registers the environments; from there on this is PettingZoo's parallel loop. No torch.

    python examples/scripted_agents.py
    python examples/scripted_agents.py --env debug/handshake-v0 --turns 2 --episodes 20
"""

import argparse

import numpy as np
import pettingzoo

import collm_envs  # noqa: F401  # registers the environments


def play(env, kinds, episodes, seed):
    """Mean score and success rate of a team.

    Args:
        env: a parallel environment.
        kinds: `random`, `novice` or `oracle` by agent.
        episodes: how many are played.
        seed: seed of the tasks and of the scripts.
    """
    rng = np.random.default_rng(seed)
    scores, solved = [], []
    for episode in range(episodes):
        env.reset(seed=seed + episode)
        while env.agents:
            replies = {agent: env.unwrapped.scripted(kinds[agent], agent, rng) for agent in env.agents}
            _observations, _rewards, _terminations, _truncations, infos = env.step(replies)
        info = next(iter(infos.values()))  # score and success are the team's: every agent's info has them
        scores.append(info["score"])
        solved.append(info["success"])
    return float(np.mean(scores)), float(np.mean(solved))


def main():
    """Compare teams of one kind, and one mixed team."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--env", default="writing/tldr-mini-v0")
    parser.add_argument("--turns", type=int, default=1)
    parser.add_argument("--episodes", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()

    env = pettingzoo.make("parallel", args.env, num_turns=args.turns)
    agents = env.possible_agents
    teams = {kind: dict.fromkeys(agents, kind) for kind in ("random", "novice", "oracle")}
    teams["mixed"] = {agent: ("novice", "oracle")[i % 2] for i, agent in enumerate(agents)}
    print(f"{args.env}, {args.turns} turn(s), {args.episodes} episodes")
    for name, kinds in teams.items():
        score, success = play(env, kinds, args.episodes, args.seed)
        print(f"{name:8} score {score:.3f}  success {success:.0%}")


if __name__ == "__main__":
    main()
