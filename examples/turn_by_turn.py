"""The same environments through PettingZoo's turn-by-turn (AEC) API, where agents reply one after another.

They still cannot see each other's replies of a turn: it is played when the last of them has replied.

    python examples/turn_by_turn.py
    python examples/turn_by_turn.py --env debug/handshake-v0 --turns 2
"""

import argparse

import numpy as np
import pettingzoo

import collm_envs  # noqa: F401  # registers the environments


def main():
    """One episode of scripted agents, with what each of them sees and says."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--env", default="writing/tldr-mini-v0")
    parser.add_argument("--turns", type=int, default=1)
    parser.add_argument("--kind", default="oracle", help="random, novice or oracle")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()

    env = pettingzoo.make("aec", args.env, num_turns=args.turns)
    parallel = pettingzoo.utils.aec_to_parallel(env).unwrapped  # the environment below, which has the scripts
    rng = np.random.default_rng(args.seed)
    env.reset(seed=args.seed)
    for agent in env.agent_iter():
        observation, reward, terminated, truncated, info = env.last()
        if terminated or truncated:
            print(f"{agent} was paid {reward:.3f}; score {info['score']:.3f}, success {info['success']}")
            env.step(None)
            continue
        reply = parallel.scripted(args.kind, agent, rng)
        print(f"{agent} sees: {observation['text']}\n{agent} says: {reply}")
        env.step(reply)


if __name__ == "__main__":
    main()
