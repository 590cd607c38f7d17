"""A run that was stopped and resumed is the run that was not: bit for bit on CPU."""

import json
import shutil

import pytest
import torch
from builders import folder
from run_files import rows, saved
from safetensors.torch import load_file

from collm_agents import checkpoint
from collm_agents.callbacks import Callback
from collm_agents.experiment import Experiment
from collm_agents.overrides import load_config

STOP = 48  # where patience ends the run of the last test
TEAM = {
    "shared lora": ("model={qwen3}", "tuning=lora"),
    "two bases": ("model={qwen3}", "team.agents.agent_1.model={llama}", "tuning=lora"),
    "full": ("model={qwen3}", "tuning=full"),
}


def run(out, algorithm, kind, budget, *more, callbacks=()):
    models = {name: folder(name) for name in ("qwen3", "llama")}
    words = [word.format(**models) for word in TEAM[kind]]
    words += [f"algorithm={algorithm}", f"run.out={out}", f"run.joint_samples={budget}", "num_turns=2"]
    words += [
        "rollout.samples=2",
        "rollout.buffer=8",
        "team.sampling.max_new_tokens=5",
        "learner.minibatches=2",
    ]
    words += ["eval.every=16", "eval.tasks=3", "eval.final_tasks=3", "track.tensorboard=false"]
    words += ["team.lora.rank=2", "run.threads=1", "learner.lr=0.01", *more]
    return Experiment(load_config("paying_env:Paying", overrides=words)).run(callbacks)


def assert_same(one, two):
    assert rows(one) == rows(two)
    first, second = saved(one), saved(two)
    assert first.keys() == second.keys()
    moments = [v for name, v in first.items() if name.endswith(":exp_avg")]
    assert len(moments) > 8
    assert sum(bool(v.abs().sum() > 0) for v in moments) > len(moments) // 2  # something was learned from
    different = [name for name in first if not torch.equal(first[name], second[name])]
    assert not different


@pytest.mark.parametrize(
    ("algorithm", "kind"),
    [("mc", "shared lora"), ("collm-cc", "shared lora"), ("collm-dc", "two bases"), ("collm-cc", "full")],
)
def test_a_resumed_run_is_the_uninterrupted_one(tmp_path, algorithm, kind):
    run(tmp_path / "whole", algorithm, kind, 32)
    run(tmp_path / "parts", algorithm, kind, 16)
    Experiment.resume(tmp_path / "parts", ["run.joint_samples=32"])
    assert_same(tmp_path / "whole", tmp_path / "parts")
    progress = []
    for name in ("whole", "parts"):
        progress.append(json.loads((checkpoint.pick(tmp_path / name) / "progress.json").read_text("utf-8")))
        phases, wall_s = progress[-1].pop("phases"), progress[-1].pop("wall_s")
        assert sum(phases.values()) == pytest.approx(wall_s, rel=0.03)
        assert progress[-1].pop("overlapped_s") >= 0
    assert progress[0] == progress[1]


def test_a_run_killed_between_checkpoints_is_resumed_from_the_last_one(tmp_path):
    run(tmp_path / "whole", "collm-cc", "shared lora", 32)
    # What a kill after 24 samples leaves: the checkpoint of 16, later rows, a last line cut off, half a checkpoint.
    killed = tmp_path / "killed"
    run(killed, "collm-cc", "shared lora", 16, "checkpoint.keep=9")
    more = [
        json.dumps({"kind": "update", "joint_samples": 24, "wall_s": 9.0, "reward": 7.0}),
        '{"kind": "upd',
    ]
    with (killed / "metrics.jsonl").open("a", encoding="utf-8") as file:
        file.write("\n".join(more))
    shutil.copytree(checkpoint.pick(killed), killed / "checkpoints" / ".writing-000000024")
    (killed / "result.json").unlink()
    Experiment.resume(killed, ["run.joint_samples=32", "checkpoint.keep=2"])
    assert_same(tmp_path / "whole", killed)
    assert (killed / "result.json").is_file()


def test_the_same_config_twice_is_the_same_run(tmp_path):
    for name in ("one", "two"):
        run(tmp_path / name, "collm-dc", "shared lora", 16)
    assert_same(tmp_path / "one", tmp_path / "two")


def test_another_seed_is_another_run(tmp_path):
    run(tmp_path / "one", "mc", "shared lora", 16)
    run(tmp_path / "two", "mc", "shared lora", 16, "seed=1")
    assert rows(tmp_path / "one") != rows(tmp_path / "two")


class Kill(Callback):
    """Ends the process, as far as the run can tell, in one hook at one place."""

    def __init__(self, hook, at):
        self.at = at
        setattr(self, hook, self._die)

    def _die(self, run, *given):
        if run.progress.joint_samples == self.at:
            raise KeyboardInterrupt


PATIENT = ("run.patience=2", "checkpoint.best=true", "eval.every=12", "eval.tasks=2", "eval.seed=5")


@pytest.fixture(scope="module")
def stopped_early(tmp_path_factory):
    """The folder of a run that stopped early without being interrupted, and its result."""
    out = tmp_path_factory.mktemp("whole") / "run"
    return out, run(out, "mc", "shared lora", 96, *PATIENT).result


@pytest.mark.parametrize(
    ("hook", "at"),
    [
        ("on_step", 36),
        ("on_evaluate", 24),
        ("on_checkpoint", 24),
        ("on_evaluate", STOP),
        ("on_checkpoint", STOP),
    ],
)
def test_a_resumed_run_stops_early_where_the_uninterrupted_one_does(tmp_path, stopped_early, hook, at):
    (place, whole), killed = stopped_early, tmp_path / "killed"
    assert (whole["joint_samples"], whole["stopped"][:14]) == (STOP, "early stopping")
    with pytest.raises(KeyboardInterrupt):
        run(killed, "mc", "shared lora", 96, *PATIENT, callbacks=[Kill(hook, at)])
    resumed = Experiment.resume(killed).result
    assert_same(place, killed)
    for name in ("joint_samples", "stopped", "start", "end"):
        assert whole[name] == resumed[name]
    best, other = (checkpoint.pick(own, "best") for own in (place, killed))
    assert best.name == other.name == "best-000000024"
    for file in best.rglob("*.safetensors"):
        twin = load_file(other / file.relative_to(best))
        assert all(torch.equal(tensor, twin[key]) for key, tensor in load_file(file).items())
    one, two = (checkpoint.callback_states(checkpoint.pick(own)) for own in (place, killed))
    assert one == two
