"""Our environments in TorchRL: a collector gathers frames from a policy that reads and writes texts.

python examples/torchrl_collector.py --frames 32
"""

import argparse

import numpy as np
from tensordict import NonTensorStack
from torchrl.collectors import Collector

from collm_agents.interop.torchrl import TextPettingZooEnv
from collm_envs import make


def say_a_letter(env, rng):
    """A policy: every agent says one of the letters that it was shown, whichever.

    Args:
        env: whose groups of agents it speaks for.
        rng: where chance comes from.
    """

    def act(tensordict):
        for group in env.group_map:
            seen = tensordict.get((group, "observation")).tolist()
            letters = [str(rng.choice(text.partition(": ")[2].split())) for text in seen]
            tensordict.set((group, "action"), NonTensorStack(*letters))
        return tensordict

    return act


def main():
    """Collect, then look at the batch."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--frames", type=int, default=64)
    args = parser.parse_args()

    env = TextPettingZooEnv(make("debug/handshake-v0"), seed=0)
    policy = say_a_letter(env, np.random.default_rng(0))
    collector = Collector(env, policy, frames_per_batch=args.frames, total_frames=args.frames)
    for batch in collector:
        after = batch["next"]
        print(f"frames {len(batch)}, episodes {int(after['done'].sum())}")
        print("seen", batch[0].get(("agent", "observation")).tolist())
        print("said", batch[0].get(("agent", "action")).tolist())
        print(f"mean reward {after['agent', 'reward'].mean():.3f}")
        print(f"solved {after['agent', 'info', 'success'][after['done'].squeeze(-1)].mean():.2f}")
    collector.shutdown()


if __name__ == "__main__":
    main()
