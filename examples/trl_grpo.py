"""A baseline of one policy: TRL's GRPO plays every agent of a team, each from its own prompt.

Takes the built-in model, or any causal language model by name or folder.

    python examples/trl_grpo.py --steps 30
    python examples/trl_grpo.py --env writing/tldr-v0 --model Qwen/Qwen3-0.6B --max-new-tokens 128
"""

import argparse

from trl import GRPOConfig, GRPOTrainer

from collm_agents.interop.trl import EnvironmentBridge
from collm_agents.models.loading import resolve
from collm_envs import make


def main():
    """Train, and print what TRL logged."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--env", default="writing/tldr-mini-v0")
    parser.add_argument("--turns", type=int, default=1)
    parser.add_argument("--model", default="builtin")
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--max-new-tokens", type=int, default=40)
    parser.add_argument("--out", default="grpo")
    args = parser.parse_args()

    bridge = EnvironmentBridge(make(args.env, num_turns=args.turns))
    trainer = GRPOTrainer(
        resolve(args.model),
        args=GRPOConfig(
            output_dir=args.out,
            max_steps=args.steps,
            per_device_train_batch_size=32,
            num_generations=8,
            max_completion_length=args.max_new_tokens,
            learning_rate=1e-3,
            logging_steps=max(1, args.steps // 6),
            save_strategy="no",
            report_to="none",
            bf16=False,
            disable_tqdm=True,
        ),
        train_dataset=bridge.dataset(),
        reward_funcs=bridge.reward,
        rollout_func=bridge.rollout,
    )
    trainer.train()
    for row in trainer.state.log_history:
        if "reward" in row:
            print(f"step {row['step']:3}  reward {row['reward']:.3f}  score {row['collm/score']:.3f}")


if __name__ == "__main__":
    main()
