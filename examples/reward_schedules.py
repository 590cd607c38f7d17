"""The same episodes under every reward schedule: what is paid when, and what it adds up to.

The score of a turn says how good it was; the schedule (`reward=`) says what of it is paid. `final` and `delta` have
the same discounted sum in every episode, so they ask for the same, and `delta` says it turn by turn.

    python examples/reward_schedules.py
    python examples/reward_schedules.py --env games/housebuild-mini-v0 --turns 4 --episodes 50
"""

import argparse

import numpy as np

from collm_envs import make

GAMMA = 0.9
SCHEDULES = ("dense", "final", "outcome", "delta")


def rewards_of(env_id, schedule, turns, episode):
    """Rewards of one episode of novices, turn by turn."""
    gamma = {"gamma": GAMMA} if schedule == "delta" else {}
    env = make(env_id, reward=schedule, num_turns=turns, split="test", **gamma)
    env.reset(seed=episode, options={"task": episode % len(env.tasks)})
    rng = np.random.default_rng(episode)
    paid = []
    while env.agents:
        _, rewards, *_ = env.step({agent: env.scripted("novice", agent, rng) for agent in env.agents})
        paid.append(next(iter(rewards.values())))  # joint: the same for all
    return np.array(paid)


def discounted(paid):
    """Sum of rewards, each times gamma^t."""
    return float((paid * GAMMA ** np.arange(len(paid))).sum())


def main():
    """A table of mean rewards by turn, and their discounted sums."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--env", default="writing/tldr-mini-v0")
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--episodes", type=int, default=50)
    args = parser.parse_args()

    turns = "".join(f"{f'turn {t + 1}':>9}" for t in range(args.turns))
    print(
        f"{args.env}, {args.episodes} episodes of novices\n{'reward':8}{turns}{'sum':>9}  with gamma {GAMMA:g}"
    )
    sums = {}
    for schedule in SCHEDULES:
        played = [rewards_of(args.env, schedule, args.turns, episode) for episode in range(args.episodes)]
        # A turn that an episode did not reach pays nothing.
        means = np.mean([np.pad(paid, (0, args.turns - len(paid))) for paid in played], axis=0)
        sums[schedule] = [discounted(paid) for paid in played]
        cells = "".join(f"{mean:9.3f}" for mean in means)
        print(f"{schedule:8}{cells}{np.mean(sums[schedule]):9.3f}")
    same = np.allclose(sums["final"], sums["delta"])
    print(f"final and delta have the same discounted sum in every episode: {'yes' if same else 'no'}")


if __name__ == "__main__":
    main()
