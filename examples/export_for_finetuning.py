"""Export a run: its episodes as data for fine-tuning, its agents as folders that transformers loads.

The same as `collm export episodes RUN` and `collm export agents RUN`.

    python examples/export_for_finetuning.py --joint-samples 128
"""

import argparse

from transformers import AutoModelForCausalLM, AutoTokenizer

from collm_agents.experiment import Experiment
from collm_agents.export import episodes_dataset, pairs_dataset
from collm_agents.export_agents import export_agents
from collm_agents.overrides import load_config


def main():
    """Train a little, with four replies to every evaluated task, and look at what there is."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--joint-samples", type=int, default=128)
    args = parser.parse_args()

    words = ["algorithm=mc", f"joint_samples={args.joint_samples}", "eval.tasks=8", "eval.final_tasks=8"]
    words += ["eval.samples=4", "track.samples=32"]
    run_dir = Experiment(load_config("debug/echo-v0", overrides=words)).run().run_dir

    rows, pairs = episodes_dataset(run_dir), pairs_dataset(run_dir)
    solved = rows.filter(lambda row: row["success"])
    print(f"{rows.num_rows} replies, {solved.num_rows} of solved tasks, {pairs.num_rows} pairs")
    print("chosen", pairs[0]["chosen"], "over", pairs[0]["rejected"], "for", pairs[0]["prompt"])

    for folder in export_agents(run_dir, run_dir / "agents"):
        model, tokenizer = (
            AutoModelForCausalLM.from_pretrained(folder),
            AutoTokenizer.from_pretrained(folder),
        )
        seen = tokenizer.apply_chat_template(
            rows[0]["prompt"], add_generation_prompt=True, return_tensors="pt"
        )
        said = model.generate(**seen)[0, seen["input_ids"].shape[1] :]
        print(folder.name, "replies", tokenizer.decode(said, skip_special_tokens=True))


if __name__ == "__main__":
    main()
