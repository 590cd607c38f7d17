import pytest
from builders import backbone, folder

from collm_agents.experiment import Experiment
from collm_agents.models import loading
from collm_agents.overrides import load_config
from collm_envs.errors import InputError, SettingError

GIB = 1024**3


def plan(*overrides, env="debug/echo-v0"):
    return Experiment(load_config(env, overrides=overrides)).plan()


@pytest.fixture(autouse=True)
def _no_weights(monkeypatch):
    def refuse(*args, **kwargs):
        raise AssertionError("a plan loads no weights")

    monkeypatch.setattr(loading.AutoModelForCausalLM, "from_pretrained", refuse)


def test_samples_updates_and_steps_are_those_of_the_run():
    found = plan(
        f"model={folder('qwen3')}",
        "algorithm=mc",
        "num_turns=2",
        "rollout.samples=3",
        "rollout.buffer=20",
        "joint_samples=100",
        "learner.update_epochs=2",
        "learner.minibatches=3",  # as there are but two trees, two
    )
    # A tree of 3 + 9 nodes; two of them fill a buffer of 20; 100 samples are five such buffers at least.
    assert found.samples_per_update == 24
    assert found.updates == 5
    assert found.optimizer_steps == 5 * 2 * 2
    assert found.joint_samples == 100
    assert "branching 3x3" in found.algorithm
    assert "mean" in found.algorithm


def test_a_budget_in_passes_is_an_upper_bound_in_samples():
    found = plan("algorithm=mc", "rollout.samples=4", "task_passes=2", "num_turns=2", "split=train[:10]")
    assert (found.tasks, found.joint_samples) == (10, 2 * 10 * 20)


def test_members_are_listed_with_model_and_tuning():
    found = plan(
        "algorithm=collm-dc", f"model={folder('qwen3')}", f"team.agents.agent_1.model={folder('llama')}"
    )
    assert found.agents == {"agent_0": (folder("qwen3"), "lora"), "agent_1": (folder("llama"), "lora")}
    assert found.critics == {
        "critic_agent_0": (folder("qwen3"), "lora"),
        "critic_agent_1": (folder("llama"), "lora"),
    }
    assert list(plan("algorithm=collm-cc").critics) == ["critic"]
    assert plan("algorithm=mc").critics == {}


@pytest.mark.parametrize("name", ["qwen3", "llama"])
def test_weights_and_optimizer_are_counted_to_the_byte(name, monkeypatch):
    monkeypatch.undo()
    words = ("algorithm=mc", f"model={folder(name)}", "team.lora.rank=4")
    real = backbone(name, ("agent_0", "agent_1"))
    base = sum(p.numel() for n, p in real._peft.named_parameters() if "lora_" not in n)
    adapter = sum(p.numel() for p in real.parameters("agent_0").values())
    found = plan(*words, "tuning=lora").memory
    assert found.weights == 4 * (base + 2 * adapter)
    assert found.optimizer == 2 * 4 * 2 * adapter
    assert found.gradients == 4 * adapter  # one agent at a time
    found = plan(*words, "tuning=full").memory
    assert found.weights == 4 * 2 * base
    assert found.optimizer == 2 * 4 * 2 * base
    assert found.gradients == 4 * base
    held = plan(*words, "tuning=full", "learner.kl_coef=0.1").memory
    assert held.weights == 4 * 3 * base  # the reference is a copy


def test_optimizers_differ_in_their_moments():
    words = ("algorithm=mc", f"model={folder('qwen3')}", "tuning=full")
    found = {k: plan(*words, f"learner.optimizer={k}").memory.optimizer for k in ("adamw", "adafactor")}
    assert found["adamw"] > found["adafactor"] == 0


def test_named_target_modules_are_counted(monkeypatch):
    monkeypatch.undo()
    words = ("algorithm=mc", f"model={folder('qwen3')}", "team.lora.rank=4", "tuning=lora")
    some = plan(*words, "team.lora.target_modules=q_proj,v_proj").memory.optimizer
    whole = plan(*words).memory.optimizer
    assert 0 < some < whole


def test_more_tokens_need_more_memory():
    words = ("algorithm=mc", f"model={folder('qwen3')}")
    small, large = (
        plan(*words, f"team.sampling.max_new_tokens={n}", "learner.microbatch_tokens=100000").memory
        for n in (8, 512)
    )
    assert large.sampling > small.sampling
    assert large.activations > small.activations


def test_checkpointing_and_a_smaller_budget_need_less():
    words = ("algorithm=collm-cc", f"model={folder('qwen3')}", "team.sampling.max_new_tokens=64")
    plain = plan(*words).memory.activations
    assert plan(*words, "learner.gradient_checkpointing=true").memory.activations < 0.8 * plain
    assert plan(*words, "learner.microbatch_tokens=128").memory.activations < 0.8 * plain


@pytest.mark.parametrize("env", ["debug/handshake-v0", "games/strbuild-mini-v0", "coding/compose-mini-v0"])
@pytest.mark.parametrize("algorithm", ["mc", "collm-cc", "collm-dc"])
def test_every_domain_and_algorithm_has_a_plan(env, algorithm):
    found = plan(f"algorithm={algorithm}", "num_turns=2", "joint_samples=64", env=env).memory
    assert min(found.weights, found.optimizer, found.sampling, found.gradients, found.activations) > 0
    assert found.peak > found.weights + found.optimizer + found.activations


def test_a_plan_reads_well():
    text = str(plan("algorithm=collm-cc", f"model={folder('qwen3')}"))
    for word in ("debug/echo-v0", "collm-cc", "agent_0", "critic", "lora", "joint samples", "GiB"):
        assert word in text


@pytest.mark.parametrize(
    "overrides",
    [
        ("model=./no/such/folder",),
        ("source=./no/such/file.jsonl",),
        ("algorithm=mc", "rollout.samples=1"),  # nothing to compare a reply with
        ("branching=[2, 2]",),
        ("reward=delta", "env.gamma=0.5", "algorithm.gamma=0.9", "num_turns=2"),
        ("team.agents.agent_7.model=builtin",),
        ("run.device=warp",),
    ],
)
def test_what_cannot_be_run_cannot_be_planned_and_is_one_line(overrides):
    with pytest.raises((InputError, SettingError)) as caught:
        plan(*overrides)
    assert "\n" not in str(caught.value)
