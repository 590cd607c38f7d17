"""Every kind of team and critic apart and together: the same run. Homes are called here, without processes.

What comes of a process boundary is `test_placement`'s.
"""

import contextlib

import pytest
from builders import folder
from run_files import rows, saved

from collm_agents.distributed import placement
from collm_agents.distributed.home import Home
from collm_agents.experiment import Experiment
from collm_agents.overrides import load_config
from collm_agents.recipe import Recipe


class Here(placement.Homes):
    """Homes without processes; what they are sent and give is packed all the same."""

    def started(self, site):
        return Home([])

    def call_each(self, home, method, args):
        # Now: a home does things in the order of asking.
        answer = getattr(self._actors[home][0], method)(*args[0])
        return (lambda: answer,)

    def ready(self, asked, count, timeout_s=None):
        return list(asked)[:count]

    def get(self, home, refs):
        return refs[0]()

    def close(self):
        self._actors = {}


def run(out, *more):
    words = ["algorithm=collm-cc", "num_turns=2", "rollout.samples=2", "rollout.buffer=8"]
    words += ["joint_samples=16", "eval.every=8", "eval.tasks=2", "eval.final_tasks=2", "learner.lr=0.01"]
    words += ["team.sampling.max_new_tokens=5", "run.threads=1", "track.tensorboard=false", f"out={out}"]
    Experiment(load_config("paying_env:Paying", overrides=[*words, *more])).run()
    return out


TINY = [f"model={folder('qwen3')}", "team.lora.rank=2"]
LORA, FULL = [*TINY, "tuning=lora"], [*TINY, "tuning=full"]
OTHER = f"team.agents.agent_1.model={folder('llama')}"
DC, SHARE = "algorithm=collm-dc", "critic.share_backbone=true"
KINDS = {
    "adapters": LORA,
    "adapters held to the base": [*LORA, "learner.kl_coef=0.1", "algorithm=mc"],
    "copies held to the base": [*FULL, "learner.kl_coef=0.1", DC],
    "two bases": [*LORA, OTHER, DC],
    "shared weights": [*LORA, "team.shared=true"],
    "shared weights with critics of their own": [*FULL, "team.shared=true", DC],
    "heads on the agents' own models": [*LORA, SHARE, DC],
    "a frozen teammate": [*FULL, "team.agents.agent_0.trainable=false", DC],
    "a scripted teammate": [*FULL, "team.agents.agent_0.script=random"],
    "every combination": [*FULL, "joint_mode=cross", "algorithm=mc", "num_turns=1"],
    "a warm-up of the critic": [*LORA, "learner.critic_warmup=1", "learner.value_norm=true"],
    "values of replies": [*FULL, "algorithm.critic=q", "learner.value_targets=refreshed"],
}


@pytest.mark.parametrize("kind", KINDS)
def test_apart_is_the_run_of_one_process(kind, tmp_path, monkeypatch):
    words = KINDS[kind]
    run(tmp_path / "one", *words)
    monkeypatch.setattr(placement, "Homes", Here)
    monkeypatch.setattr(placement, "connected", lambda *args: contextlib.nullcontext())
    run(tmp_path / "apart", *words, "placement.apart=true")
    one, other = saved(tmp_path / "one"), saved(tmp_path / "apart")
    assert one.keys() == other.keys()
    assert not [name for name in one if not one[name].equal(other[name])]
    first, second = rows(tmp_path / "one"), rows(tmp_path / "apart")
    assert len(first) == len(second) > 4
    assert any(v > 1e-3 for row in first for k, v in row.items() if k.startswith("grad_norm/"))
    for row, placed in zip(first, second, strict=True):
        assert row.keys() == {name for name in placed if not name.startswith("placement/")}
        # Adapters of one base are drawn in one batch here and in two there, so the sampler's own log-probs, which
        # nothing is computed from, are rounded otherwise.
        assert {k for k in row if row[k] != placed[k]} <= {"sampler_gap/agent_0", "sampler_gap/agent_1"}


def test_models_that_are_spread_are_computed_in_the_type_of_where_they_go(monkeypatch):
    """They are loaded on the CPU, where `auto` alone would be float32."""
    seen = []

    def models(recipe, **kwargs):
        seen.append((recipe.device, recipe.config.team.dtype))
        raise InterruptedError

    monkeypatch.setattr(Recipe, "models", models)
    recipe = Experiment(load_config("debug/echo-v0", overrides=["run.device=cpu"])).recipe
    for device, size in (("cuda", 2), ("cuda", 1), ("cpu", 2)):
        with pytest.raises(InterruptedError):
            Home(()).build(recipe, device, {"agent_0"}, 0, size, "")
    assert seen == [("cpu", "bfloat16"), ("cuda", "auto"), ("cpu", "float32")]
