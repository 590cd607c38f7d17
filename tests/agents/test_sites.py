"""Which processes there are and what each asks for, worked out by hand."""

import dataclasses

import pytest

from collm_agents.experiment import Experiment
from collm_agents.overrides import load_config
from collm_agents.sites import Site, check_sites, sites
from collm_envs import SettingError


def made(*words):
    words = ["joint_samples=64", "placement.apart=true", *words]
    return Experiment(load_config("debug/handshake-v0", overrides=words)).recipe


@pytest.mark.parametrize(
    ("words", "members"),
    [
        (["algorithm=mc"], {"agent_0": ("agent_0",), "agent_1": ("agent_1",)}),
        (["algorithm=collm-cc"], {"agent_0": ("agent_0",), "agent_1": ("agent_1",), "critic": ("critic",)}),
        (
            ["algorithm=collm-dc"],
            {"agent_0": ("agent_0", "critic_agent_0"), "agent_1": ("agent_1", "critic_agent_1")},
        ),
        (  # a teammate that never learns has weights, and no critic
            ["algorithm=collm-dc", "team.agents.agent_0.trainable=false"],
            {"agent_0": ("agent_0",), "agent_1": ("agent_1", "critic_agent_1")},
        ),
        (
            ["algorithm=collm-dc", "team.agents.agent_0.script=oracle"],
            {"agent_1": ("agent_1", "critic_agent_1")},
        ),
        (
            ["algorithm=collm-dc", "team.shared=true"],
            {"team": ("team", "critic_agent_0", "critic_agent_1")},
        ),
        (["algorithm=collm-cc", "team.shared=true"], {"team": ("team",), "critic": ("critic",)}),
    ],
)
def test_every_member_has_one_process_and_a_critic_of_its_own_lives_with_its_agent(words, members):
    assert {site.name: site.members for site in sites(made(*words))} == members


def test_what_one_process_asks_for_goes_before_what_all_do():
    words = ["placement.cpus=2", "placement.gpus=1", "placement.agents.agent_0.gpus=0.5"]
    words += ["placement.agents.agent_0.node=10.0.0.7", "placement.critic.gpus=0", "placement.critic.cpus=4"]
    first, second, critic = sites(made("algorithm=collm-cc", *words, "placement.critic.node=big"))
    assert first == Site("agent_0", ("agent_0",), 2.0, 0.5, 1, "10.0.0.7")
    assert second == Site("agent_1", ("agent_1",), 2.0, 1.0, 1, "")
    assert critic == Site("critic", ("critic",), 4.0, 0.0, 1, "big")
    assert first.resources == {"node:10.0.0.7": 0.001}
    assert second.resources == {}
    assert critic.asks == {"CPU": 4.0, "GPU": 0.0, "big": 0.001}


@pytest.mark.parametrize(
    ("device", "gpus", "refused"), [("cuda", 0, True), ("cuda", 0.3, False), ("cpu", 0, False)]
)
def test_a_device_of_the_driver_does_not_pass_for_one_of_the_processes(device, gpus, refused):
    recipe = dataclasses.replace(made(f"placement.gpus={gpus}"), device=device)
    if refused:
        with pytest.raises(SettingError, match=r"run\.device is 'cuda' here; set placement\.gpus"):
            check_sites(recipe.config, recipe)
    else:
        check_sites(recipe.config, recipe)
