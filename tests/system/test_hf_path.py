"""Real text through Hugging Face models: train, resume, evaluate, and load what was saved without us."""

import json
from pathlib import Path

import pytest
import torch
from builders import folder
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from collm_agents import checkpoint
from collm_agents.experiment import Experiment
from collm_agents.overrides import load_config
from collm_envs.errors import InputError

torch.set_num_threads(1)
pytestmark = pytest.mark.system
SCITLDR = Path(__file__).resolve().parents[2].parent / "shared" / "data" / "scitldr_train.jsonl.gz"
PROMPTS, REPLIES = [(70, 71, 72, 73)], [(80, 81, 82)]
KINDS = {
    "lora": ("model={qwen3}", "tuning=lora"),
    "full": ("model={qwen3}", "tuning=full"),
    "two architectures": ("model={qwen3}", "team.agents.{second}.model={llama}", "tuning=lora"),
}


def words(kind, env_id, out, budget):
    second = {"debug/echo-v0": "agent_1", "writing/tldr-v0": "detail_1"}[env_id]
    values = {"qwen3": folder("wordy-qwen3"), "llama": folder("wordy-llama"), "second": second}
    return [
        *(word.format(**values) for word in KINDS[kind]),
        f"run.out={out}",
        f"joint_samples={budget}",
        "run.threads=1",
        "rollout.samples=2",
        "rollout.buffer=4",
        "team.sampling.max_new_tokens=60",
        "team.lora.rank=4",
        "eval.tasks=2",
        "eval.final_tasks=3",
        "eval.every=4",
        "checkpoint.keep=9",
        "track.tensorboard=false",
    ]


@pytest.fixture(scope="module", params=list(KINDS))
def run(request, tmp_path_factory):
    """A run on real text, trained, resumed and done; where the text is absent, on built-in posts."""
    out = tmp_path_factory.mktemp("runs") / "run"
    env_id = "writing/tldr-v0"
    overrides = [*words(request.param, env_id, out, 4), "algorithm=collm-cc"]
    if SCITLDR.is_file():
        overrides += [f"source={SCITLDR}", "split=train[:8]", "eval.split=test[:3]"]
    Experiment(load_config(env_id, overrides=overrides)).run()
    result = Experiment.resume(out, ["run.joint_samples=8"]).result
    experiment = Experiment(load_config(None, files=[out / "config.toml"]))
    return request.param, out, experiment, result


def test_both_agents_and_the_critic_were_trained_and_evaluated(run):
    _, out, experiment, result = run
    assert result["joint_samples"] == 8
    assert json.loads((out / "result.json").read_text("utf-8"))["end"]["metrics"]["score"]["n"] == 3
    rows = [json.loads(line) for line in (out / "metrics.jsonl").read_text("utf-8").splitlines()]
    updates = [row for row in rows if row["kind"] == "update"]
    assert [row["joint_samples"] for row in updates] == [4, 8]
    members = [*experiment.agent_base(), "critic"]
    for member in members:
        assert any(row[f"grad_norm/{member}"] > 0 for row in updates), member
    for row in updates:
        assert all(row[f"sampler_gap/{member}"] < 1e-4 for member in experiment.agent_base())
    assert [row["joint_samples"] for row in rows if row["kind"] == "eval"] == [0, 4, 8]


def test_evaluating_the_run_again_gives_the_end_of_the_run(run):
    _, out, _, result = run
    again = Experiment.evaluate(out)
    assert again["metrics"] == result["end"]["metrics"]
    assert again["samples"] == result["end"]["samples"]
    earlier = Experiment.evaluate(out, checkpoint_at=4)
    assert earlier["samples"] != again["samples"]
    greedy = Experiment.evaluate(out, overrides=["eval.greedy=true"])
    assert greedy["metrics"]["score"]["n"] == 3


def ours(experiment, place, agent):
    """What a checkpoint's agent says by our own way of loading and computing."""
    team = experiment.build_team()
    checkpoint.load_team(place, team)
    with torch.no_grad():
        return team.backbones[agent].reply_logits(agent, PROMPTS, REPLIES)[0]


def plain(experiment, place, agent):
    """The same by transformers and peft alone."""
    model, tuning = experiment.agent_base()[agent]
    saved = place / "agents" / agent
    if tuning == "full":
        AutoTokenizer.from_pretrained(saved)  # a whole model is of use with its tokenizer only
        found = AutoModelForCausalLM.from_pretrained(saved)
    else:
        found = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(model), saved)
    with torch.no_grad():
        return found.eval()(torch.tensor([PROMPTS[0] + REPLIES[0]])).logits[0, len(PROMPTS[0]) - 1 : -1]


def test_saved_agents_load_in_plain_transformers_and_peft_and_say_the_same(run):
    _, out, experiment, _ = run
    place = checkpoint.pick(out)
    for agent, (model, _) in experiment.agent_base().items():
        own = ours(experiment, place, agent)
        assert torch.allclose(own, plain(experiment, place, agent), atol=1e-5)
        with torch.no_grad():
            base = AutoModelForCausalLM.from_pretrained(model)(torch.tensor([PROMPTS[0] + REPLIES[0]])).logits
        assert (own - base[0, len(PROMPTS[0]) - 1 : -1]).abs().max() > 1e-4  # training has moved it


def test_an_adapter_names_the_base_it_belongs_to(run):
    kind, out, experiment, _ = run
    place = checkpoint.pick(out)
    for agent, (model, tuning) in experiment.agent_base().items():
        if tuning == "lora":
            config = json.loads((place / "agents" / agent / "adapter_config.json").read_text("utf-8"))
            assert config["base_model_name_or_path"] == model
        else:
            config = json.loads((place / "agents" / agent / "config.json").read_text("utf-8"))
            assert config["model_type"] == "qwen3"
    assert (kind == "two architectures") == (
        len({model for model, _ in experiment.agent_base().values()}) > 1
    )


def test_the_critic_is_saved_with_its_head(run):
    _, out, _, _ = run
    head = load_file(checkpoint.pick(out) / "critics" / "critic" / "value_head.safetensors")
    shapes = {"linear.weight": (1, 32), "linear.bias": (1,), "centre": (), "scale": (), "moments": (3,)}
    assert {k: tuple(v.shape) for k, v in head.items()} == shapes
    assert head["linear.weight"].abs().sum() > 0


def test_a_second_run_does_not_write_over_the_first(run):
    _, _, experiment, _ = run
    with pytest.raises(InputError, match="--resume"):
        experiment.run()


@pytest.mark.parametrize("algorithm", ["mc", "collm-dc"])
def test_the_other_algorithms_take_two_architectures_and_two_turns_too(tmp_path, algorithm):
    overrides = words("two architectures", "debug/echo-v0", tmp_path / "run", 4)
    overrides += [f"algorithm={algorithm}", "num_turns=2"]
    result = Experiment(load_config("debug/echo-v0", overrides=overrides)).run().result
    assert result["joint_samples"] >= 4
    critics = {p.name for p in (checkpoint.pick(tmp_path / "run") / "critics").glob("*")}
    assert critics == ({"critic_agent_0", "critic_agent_1"} if algorithm == "collm-dc" else set())
