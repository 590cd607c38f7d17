"""One episode, turn by turn: what each agent sees, what is paid for what, and what a critic reads.

An agent's prompt is its own; the joint history, `env.state()`, holds everybody's and is for critics and for you.

    python examples/one_episode.py
    python examples/one_episode.py --env games/strbuild-mini-v0 --turns 2 --task 3
"""

import argparse
import textwrap

import numpy as np

from collm_envs import make


def told(title, text):
    """A text under its title, indented."""
    print(f"{title}\n{textwrap.indent(text.strip() or '(nothing)', '    ')}")


def play(env, task, kinds, seed):
    """Play one episode with scripted agents and tell of it; the joint history."""
    rng = np.random.default_rng(seed)
    observations, _infos = env.reset(seed=seed, options={"task": task})
    turn = 0
    while env.agents:
        print(f"== turn {turn + 1} of {env.num_turns}")
        for agent in env.agents:
            told(f"{agent} sees", observations[agent])
        replies = {agent: env.scripted(kinds[agent], agent, rng) for agent in env.agents}
        for agent, reply in replies.items():
            told(f"{agent} says", reply)
        observations, rewards, terminations, truncations, infos = env.step(replies)
        agent, info = next(iter(infos.items()))  # score, parts and success are the team's
        parts = ", ".join(f"{name} {value:.3f}" for name, value in info["reward_parts"].items())
        print(f"score {info['score']:.3f} of {env.high:g} ({parts}); paid {rewards[agent]:.3f}")
        turn += 1
    ended = "success" if info["success"] else "turn limit" if terminations[agent] else "cut from outside"
    print(f"== over: {ended}; truncated: {any(truncations.values())}")
    return env.state()


def main():
    """A team of novices."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--env", default="writing/tldr-mini-v0")
    parser.add_argument("--turns", type=int, default=2)
    parser.add_argument("--task", type=int, default=0)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()

    env = make(args.env, num_turns=args.turns, split="test")
    state = play(env, args.task, dict.fromkeys(env.possible_agents, "novice"), args.seed)
    told("== the joint history", state)


if __name__ == "__main__":
    main()
