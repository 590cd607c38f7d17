"""A callback: write the first conversation of every evaluation into a diary, and stop when all tasks are solved.

python examples/callbacks.py --joint-samples 640
"""

import argparse

from collm_agents.callbacks import Callback
from collm_agents.experiment import Experiment
from collm_agents.overrides import load_config


class Diary(Callback):
    """Appends to `diary.md` in the run's folder."""

    def on_evaluate(self, run, report):
        """Write down how a conversation goes by now."""
        success, first = report["metrics"]["success"]["mean"], report["samples"][0]
        with (run.run_dir / "diary.md").open("a", encoding="utf-8") as file:
            file.write(f"# {run.progress.joint_samples} joint samples, success {success:.0%}\n\n")
            file.write("".join(f"    {line}\n" for line in first["text"].splitlines()) + "\n")
        if success == 1.0:
            run.stop("every task is solved")


def main():
    """Train with the diary, then show its first page."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--joint-samples", type=int, default=640)
    args = parser.parse_args()

    words = ["algorithm=mc", f"joint_samples={args.joint_samples}", "eval.tasks=16", "eval.final_tasks=16"]
    done = Experiment(load_config("debug/echo-v0", overrides=words)).run(callbacks=[Diary()])
    print((done.run_dir / "diary.md").read_text(encoding="utf-8").partition("\n# ")[0].strip())
    print(f"ended after {done.result['joint_samples']} joint samples {done.result['stopped']}".strip())


if __name__ == "__main__":
    main()
