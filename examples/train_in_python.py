"""Train a team from Python: a config, an experiment, a result.

The same as `collm train writing/tldr-mini-v0 algorithm=mc joint_samples=...`, for scripts and notebooks.

    python examples/train_in_python.py --joint-samples 640
"""

import argparse

from collm_agents.experiment import Experiment
from collm_agents.overrides import load_config


def main():
    """Train, then evaluate the saved run in another way."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--joint-samples", type=int, default=640)
    args = parser.parse_args()

    config = load_config(
        "writing/tldr-mini-v0",
        overrides=["algorithm=mc", "baseline=leave_one_out", f"joint_samples={args.joint_samples}"],
    )
    done = Experiment(config).run()
    for when in ("start", "end"):
        score = done.result[when]["metrics"]["score"]
        print(f"{when:5} score {score['mean']:.3f} [{score['low']:.3f}, {score['high']:.3f}], n={score['n']}")

    report = Experiment.evaluate(done.run_dir, overrides=["eval.greedy=true", "eval.final_tasks=16"])
    print(
        f"greedy score {report['metrics']['score']['mean']:.3f} on 16 tasks; the run lies in {done.run_dir}"
    )


if __name__ == "__main__":
    main()
