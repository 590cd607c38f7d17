"""In every registered environment, what a decentralised critic is told is its agent's own sight and speech."""

import numpy as np
import pytest
from builders import ScriptedTeam, critic

from collm_agents.algorithms.dc import DecentralisedCritics
from collm_agents.collect import Collector
from collm_agents.critic import info_text
from collm_envs import VecEnv, list_envs, make
from collm_envs.history import entry
from collm_envs.sandbox import best_tier, probe

IDS = [spec.id for spec in list_envs()]
SECRETS = ("zebra", "quokka", "walrus", "ibis", "okapi", "tapir", "lemur", "gecko")


@pytest.mark.parametrize("id", IDS)
def test_a_local_critic_is_told_what_its_agent_saw_and_said_and_no_more(id):
    if id.startswith("coding/") and best_tier(probe()) not in ("full", "no-userns"):
        pytest.skip("this host confines nothing")
    env = make(id, num_turns=2)
    agents = tuple(env.possible_agents)
    word = dict(zip(agents, SECRETS, strict=False))
    players = ScriptedTeam(agents, lambda agent, prompt, node: f"{word[agent]} {node}", limit=10**9)
    rollouts = Collector(VecEnv(env), players, (2, 1), 0).collect([env.tasks[0]], 0)
    values = critic("local", "each", agents, global_info=True)
    encoded = values.encode(rollouts, DecentralisedCritics().critic_queries(rollouts))
    later = 0
    for point, turn in enumerate(rollouts.points.turn):
        for a, agent in enumerate(agents):
            others = [secret for name, secret in word.items() if name != agent]
            local = rollouts.points.local[point][a]
            assert not any(secret in local for secret in others)
            # Nothing but entries of this agent, in turns, and the critic's tokens are just these and m_t.
            assert local.startswith(entry(agent, 0, "sees", "")[:8])
            tokens = encoded[f"critic_{agent}"][point]
            text = values.backbones[f"critic_{agent}"].tokenizer.decode(tokens)
            tail = info_text(rollouts.points.info[point])
            room = values.backbones[f"critic_{agent}"].context_length
            assert text.endswith(tail)
            if len(tokens) < room:
                assert text == local + tail
            assert not any(secret in text for secret in others)
            if turn:
                later += 1
                assert word[agent] in local
    assert later or np.all(rollouts.nodes.terminated)
