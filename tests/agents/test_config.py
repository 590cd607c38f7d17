import dataclasses
from collections.abc import Mapping

import pytest

from collm_agents.config import (
    AgentConfig,
    Config,
    CriticConfig,
    LearnerConfig,
    RolloutConfig,
    RunConfig,
    SamplingConfig,
    TeamConfig,
    resolved,
)
from collm_agents.explain import explain
from collm_agents.sections import check_limits, check_type
from collm_envs import SettingError


def test_every_setting_has_one_line_of_doc():
    rows = explain(Config)
    assert len(rows) > 50
    for row in rows:
        assert row.doc, row.key
        assert "\n" not in row.doc, row.key


def test_defaults_keep_their_own_limits():
    config = Config()
    for section in dataclasses.fields(config):
        value = getattr(config, section.name)
        if dataclasses.is_dataclass(value):
            dataclasses.replace(value)


def test_configs_are_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        RunConfig().seed = 1


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: RunConfig(seed=-1), "run.seed must be at least 0"),
        (lambda: RunConfig(seed=True), "run.seed must be a whole number, not True"),
        (lambda: RunConfig(seed=1.0), "run.seed must be a whole number"),
        (lambda: SamplingConfig(top_p=0), "top_p must be greater than 0"),
        (lambda: SamplingConfig(top_p=1.01), "top_p must be at most 1"),
        (lambda: LearnerConfig(lr=float("inf")), "learner.lr must be finite"),
        (lambda: LearnerConfig(lr="1"), "learner.lr must be a number"),
        (lambda: TeamConfig(tuning="Lora"), "is not a choice; did you mean 'lora'"),
        (lambda: RolloutConfig(branching=()), "one whole number >= 1 per turn"),
        (lambda: RolloutConfig(branching=[4, 0]), "one whole number >= 1 per turn"),
        (lambda: RolloutConfig(branching=[4, 1.5]), "rollout.branching must be"),
        (lambda: RolloutConfig(joint_mode="crossed"), "did you mean 'cross'"),
    ],
)
def test_wrong_values_are_refused_where_a_section_is_built(build, message):
    with pytest.raises(SettingError, match=message):
        build()


def test_boundaries_are_allowed():
    assert SamplingConfig(top_p=1).top_p == 1.0
    assert SamplingConfig(top_p=1e-9).top_p == 1e-9
    assert RunConfig(seed=0).seed == 0
    assert RolloutConfig(branching=[4, 1]).branching == (4, 1)


def test_types():
    assert check_type("x", 3, float) == 3.0
    assert check_type("x", [1, 2], tuple) == (1, 2)
    assert check_type("x", None, int | None) is None
    assert check_type("x", {"a": 1}, Mapping[str, float]) == {"a": 1.0}
    with pytest.raises(SettingError, match="x must be a whole number or none, not 'a'"):
        check_type("x", "a", int | None)
    with pytest.raises(SettingError, match=r"x\.a must be a number"):
        check_type("x", {"a": "b"}, Mapping[str, float])


def test_text_has_no_numeric_limits():
    check_limits("x", "text", {"low": 0})


def open_settings(**team):
    found = resolved(Config(team=TeamConfig(**team)))
    return found.team.sampling.max_new_tokens, found.learner.lr, found.learner.critic_lr


def test_open_settings_follow_the_model():
    assert open_settings() == (40, 5e-4, 1e-3)
    assert open_settings(model="x/y") == (256, 5e-5, 3e-5)
    assert open_settings(model="x/y", tuning="full") == (256, 5e-6, 3e-6)


def test_the_built_in_models_replies_are_as_long_as_is_of_use():
    assert resolved(Config(), reply_words=8).team.sampling.max_new_tokens == 12
    assert resolved(Config(), reply_words=100).team.sampling.max_new_tokens == 40
    other = Config(team=TeamConfig(model="x/y"))
    assert resolved(other, reply_words=8).team.sampling.max_new_tokens == 256  # its words are other tokens


def test_a_mixed_team_takes_the_most_careful_defaults():
    mixed = {"a_0": AgentConfig(tuning="full"), "b_1": AgentConfig(tuning="lora")}
    assert open_settings(model="x/y", agents=mixed) == (256, 5e-6, 3e-5)  # critics follow team.tuning
    assert open_settings(agents={"b_1": AgentConfig(model="x/y")}) == (256, 5e-5, 3e-5)


def test_a_critics_rate_follows_its_own_model_and_tuning():
    def rate(team, critic):
        return resolved(Config(team=TeamConfig(**team), critic=CriticConfig(**critic))).learner.critic_lr

    hub = {"model": "x/y"}
    assert rate(hub, {"tuning": "full"}) == 3e-6
    assert rate({**hub, "tuning": "full"}, {"tuning": "lora"}) == 3e-5
    assert rate({}, {"model": "x/y"}) == 3e-5
    assert rate(hub, {"model": "builtin"}) == 1e-3
    assert rate(hub, {"model": "builtin", "tuning": "lora"}) == 1e-3
    assert rate({**hub, "tuning": "full"}, {"share_backbone": True}) == 3e-6


def test_what_no_agent_uses_decides_nothing():
    lora = dict.fromkeys(("a_0", "b_1"), AgentConfig(tuning="lora"))
    config = Config(team=TeamConfig(model="x/y", tuning="full", agents=lora))
    assert resolved(config, agents=("a_0", "b_1")).learner.lr == 5e-5
    assert resolved(config, agents=("a_0", "b_1", "c_2")).learner.lr == 5e-6
    unused = TeamConfig(
        model="x/y", agents={"a_0": AgentConfig(model="builtin"), "b_1": AgentConfig(script="oracle")}
    )
    found = resolved(Config(team=unused), agents=("a_0", "b_1"))
    assert (found.learner.lr, found.learner.lr_schedule, found.team.sampling.max_new_tokens) == (
        5e-4,
        "linear",
        40,
    )


def test_what_the_user_says_is_kept():
    config = Config(
        team=TeamConfig(sampling=SamplingConfig(max_new_tokens=7)),
        learner=LearnerConfig(lr=0.1, critic_lr=0.2),
    )
    found = resolved(config)
    assert (found.team.sampling.max_new_tokens, found.learner.lr, found.learner.critic_lr) == (7, 0.1, 0.2)
