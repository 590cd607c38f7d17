"""Settings that make no sense together are refused with the reason, and those that merely do nothing are not."""

import pytest

from collm_agents.experiment import Experiment
from collm_agents.overrides import load_config
from collm_envs.errors import SettingError


def experiment(*words):
    return Experiment(load_config("debug/handshake-v0", overrides=["joint_samples=64", *words]))


DC, APART = "algorithm=collm-dc", "placement.apart=true"
SHARE = "critic.share_backbone=true"
AHEAD = ("workers=2", "runner.staleness=1")
REFUSED = [
    (("team.agents.agent_0.trainable=false", "team.agents.agent_1.script=oracle"), "nobody learns"),
    (("team.agents.agent_0.script=novice", "team.agents.agent_1.script=oracle"), "nobody learns"),
    (
        ("algorithm=mc", "learner.kl_coef=0.1", *(f"team.agents.agent_{i}.trainable=false" for i in (0, 1))),
        "nobody learns",
    ),
    ((SHARE,), "collm-cc has no critic per agent.*collm-dc"),
    ((DC, SHARE, "critic.model=builtin"), "leave critic.model"),
    ((DC, SHARE, "critic.tuning=lora"), "leave critic.model, critic.tuning"),
    ((DC, SHARE, "team.shared=true"), "team.shared alone"),
    (("learner.lr_schedule=constant", "learner.lr_end=0.1"), "lr_end=0.1.*lr_schedule is constant"),
    (
        ("tuning=lora", "model=x/y", "learner.lr_end=0.1"),
        "lr_schedule is constant",
    ),  # as auto resolves for it
    (("learner.lr_warmup=1",), "lr_warmup=1: the run has at most 1 updates"),
    (("learner.critic_warmup=1",), "critic_warmup=1.*agents would never learn"),
    (("learner.value_targets=refreshed", "learner.critic_epochs=1"), "between a critic's passes"),
    (("learner.value_clip=0.2", "learner.critic_epochs=1"), "from a critic's second pass on"),
    (("learner.ratio=none",), "right for one step after sampling, and learner.update_epochs is 2"),
    (("learner.ratio=none", "learner.update_epochs=1", "learner.minibatches=2"), "learner.minibatches is 2"),
    ((DC, SHARE, "learner.critic_warmup=1", "rollout.buffer=8"), "a critic's steps change its agent"),
    ((APART, "placement.agents.agent_0.ranks=2", "placement.gpus=0.5"), "gpus=0.5 would let two share one"),
    ((APART, "placement.agents.agent_0.ranks=2", "team.cuda_graphs=true"), "leave team.cuda_graphs at auto"),
    (("runner.staleness=1",), "runner.workers is 0"),
    ((*AHEAD, "learner.ratio=none", "learner.update_epochs=1"), "ratio=none would take them"),
    ((*AHEAD, "learner.old_logprobs=computed"), "has to be sampled"),
    ((*AHEAD, "run.joint_samples=0", "run.wall_s=9"), "a budget in seconds"),
    ((*AHEAD, "team.sampling.top_p=0.9"), "top_p has to be 1"),
    (("learner.old_logprobs=sampled", "team.sampling.top_k=4"), "top_k 0"),
    (("team.shared=true", "team.agents.agent_0.trainable=false"), "learn together or not at all"),
    (("team.shared=true", "team.agents.agent_0.weights=here"), "starting point"),
    ((APART, "workers=2"), "no process but its own has a member's; choose one"),
    ((APART, "placement.agents.agent_7.gpus=1"), "placement.agents.agent_7: no agent has that name"),
    (
        (APART, "team.agents.agent_0.script=oracle", "placement.agents.agent_0.cpus=2"),
        "a scripted agent has no weights",
    ),
    ((APART, "team.shared=true", "placement.agents.agent_0.cpus=2"), "one process, placement.agents.team"),
    ((APART, DC, "placement.critic.cpus=2"), "placement.critic: .*its critics live with their agents"),
    (
        (APART, "tuning=lora", "placement.agents.agent_0.ranks=2"),
        "agent_0 cannot be spread over 2 processes, for agent_0 trains adapters",
    ),
    (
        (APART, "learner.optimizer=adafactor", "placement.critic.ranks=3"),
        "critic cannot be spread over 3 processes, for its optimizer keeps moments",
    ),
    ((APART, "algorithm=mc", "placement.critic.cpus=2"), "placement.critic: .*has no critic"),
]


@pytest.mark.parametrize(("words", "reason"), REFUSED)
def test_what_could_not_be_had_is_refused_before_anything_is_loaded(words, reason, monkeypatch):
    monkeypatch.setattr("collm_agents.recipe.build_backbones", lambda *a, **k: pytest.fail("loaded"))
    with pytest.raises(SettingError, match=reason):
        experiment(*words).build()
    with pytest.raises(SettingError, match=reason):
        experiment(*words).plan()


@pytest.mark.parametrize(
    "words",
    [
        ("learner.ratio=none", "learner.update_epochs=1"),  # the clip has nothing to clip
        ("algorithm=mc", "learner.value_clip=0.2", "learner.critic_warmup=99", "learner.critic_epochs=1"),
        ("algorithm=mc", "critic.model=builtin", "learner.value_norm=true"),
        ("algorithm=mc", SHARE),
        ("algorithm=mc", "joint_mode=cross", "num_agents=1"),
        ("algorithm.critic=q", "rollout.samples=1"),
        (DC, SHARE, "algorithm.critic=q"),
        ("learner.lr_end=0.5",),  # linear for the built-in model
        ("learner.lr_warmup=3", "learner.critic_warmup=3", "rollout.buffer=16"),
        ("learner.value_targets=refreshed", "learner.value_clip=0.2", "learner.critic_epochs=2"),
        ("team.shared=true", "team.agents.agent_0.script=oracle"),
    ],
)
def test_what_merely_does_nothing_or_is_unusual_is_planned(words):
    assert experiment(*words).plan().updates >= 1


def test_a_warm_up_may_last_as_long_as_the_run_can_if_episodes_end_early():
    """Two turns of four paths: eight joint samples per task, of which early success leaves four."""
    words = ("num_turns=2", "rollout.buffer=16", "rollout.samples=4")
    assert experiment(*words).plan().updates == 4
    assert experiment(*words, "learner.lr_warmup=7").plan()
    with pytest.raises(SettingError, match="at most 8 updates"):
        experiment(*words, "learner.lr_warmup=8").plan()


def test_budgets_in_passes_count_their_updates_exactly():
    words = ("joint_samples=0", "task_passes=1", "split=train[:10]", "rollout.buffer=8", "rollout.samples=4")
    assert experiment(*words, "learner.lr_warmup=4").plan().updates == 5
    with pytest.raises(SettingError, match="at most 5 updates"):
        experiment(*words, "learner.lr_warmup=5").plan()


def test_a_team_of_scripts_alone_has_nothing_to_evaluate():
    scripts = [f"team.agents.agent_{i}.script=oracle" for i in (0, 1)]
    for more in ((), ("team.shared=true",)):
        with pytest.raises(SettingError, match=r"every agent is scripted.*--agents"):
            experiment(*scripts, *more).evaluate_untrained()


def test_a_central_critic_takes_the_base_of_the_first_agent_that_learns():
    words = ("team.agents.agent_0.script=oracle", "team.agents.agent_1.model=some/base", "critic.tuning=full")
    assert experiment(*words).critic_base() == {"critic": ("some/base", "full")}
    assert experiment(DC, *words).critic_base() == {"critic_agent_1": ("some/base", "full")}
    assert experiment("algorithm=mc", *words).critic_base() == {}
