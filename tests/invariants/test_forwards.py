"""Ways of computing the same log-probs and replies that must agree."""

import numpy as np
import pytest
import torch
from builders import backbone, folder, played, stir, team

from collm_agents.chat import History
from collm_agents.collect import Collector
from collm_agents.config import LoraConfig, SamplingConfig, TeamConfig
from collm_agents.draws import DrawKey
from collm_agents.models.backbone import Backbone
from collm_agents.team import AgentTeam, Request
from collm_envs import VecEnv, make

AGENTS = ("agent_0", "agent_1")
PROMPTS, REPLIES = [(70, 71, 72), (80,), (90, 91)], [(5, 6), (7, 8, 9), (10,)]


@pytest.mark.parametrize("tuning", ["lora", "full"])
@pytest.mark.parametrize("models", ["qwen3", "llama", ["qwen3", "llama"]], ids=["qwen3", "llama", "mixed"])
def test_the_samplers_log_probs_are_the_teacher_forced_ones(models, tuning):
    # Ragged prompts, several turns, non-zero adapters; fp32 and no truncation.
    players = team(AGENTS, models, tuning, num_turns=3, sampling={"max_new_tokens": 9, "temperature": 0.8})
    rollouts = played(players, (3, 2, 1), tasks=3)
    assert len({len(p) for p in rollouts.rows.prompt}) > 3
    for a, agent in enumerate(AGENTS):
        rows = np.flatnonzero(rollouts.rows.agent == a)
        with torch.no_grad():
            forced, mask = players.logprobs(
                agent, [rollouts.rows.prompt[r] for r in rows], [rollouts.rows.reply[r] for r in rows]
            )
        spread = []
        for i, row in enumerate(rows):
            found = forced[i, mask[i]].numpy()
            assert found == pytest.approx(rollouts.rows.logprob[row], abs=1e-5)
            spread.append(found)
        assert np.concatenate(spread).std() > 0.3  # the comparison is not one of near-uniform models


def asked(players, count=10):
    requests = []
    for i in range(count):
        agent = players.agents[i % 2]
        prompt = players.observe(agent, History(), "word " * (1 + i % 4) + str(i)).ids
        greedy = i % 5 == 4
        requests.append(Request(agent, prompt, None if greedy else DrawKey(0, 1, f"t{i}", (0,), agent)))
    return requests


@pytest.mark.parametrize("models", ["qwen3", ["qwen3", "llama"]], ids=["shared", "mixed"])
def test_replies_are_the_same_whatever_the_batch_size_and_order(models):
    players = team(AGENTS, models, sampling={"max_new_tokens": 10})
    requests = asked(players)
    whole = players.act(requests)
    single = team(AGENTS, models, sampling={"max_new_tokens": 10}, batch_rows=1).act(requests)
    assert [r.ids for r in single] == [r.ids for r in whole]
    order = np.random.default_rng(0).permutation(len(requests))
    shuffled = players.act([requests[i] for i in order])
    assert [r.ids for r in shuffled] == [whole[i].ids for i in order]
    assert [r.text for r in shuffled] == [whole[i].text for i in order]
    assert len({r.ids for r in whole}) > 3


def test_rollouts_of_a_task_do_not_depend_on_the_other_tasks_or_their_order():
    players = team(AGENTS, num_turns=2, sampling={"max_new_tokens": 8})
    env = make("debug/echo-v0", num_turns=2)

    def by_task(numbers):
        rollouts = Collector(VecEnv(env), players, (2, 2), 7).collect([env.tasks[i] for i in numbers], 3)
        found = {}
        for row in range(len(rollouts.rows)):
            task = rollouts.tasks[rollouts.points.tree[rollouts.rows.point[row]]]
            found.setdefault(task, []).append((rollouts.rows.prompt[row], rollouts.rows.reply[row]))
        return {task: sorted(rows) for task, rows in found.items()}

    together, reversed_, alone = by_task([0, 1, 2]), by_task([2, 1, 0]), by_task([1])
    assert together == reversed_
    assert alone.items() <= together.items()
    assert len(set(map(str, together.values()))) == 3


def test_another_update_or_seed_draws_other_replies():
    players = team(AGENTS, sampling={"max_new_tokens": 8})
    one, again, later, seeded = (
        played(players, (2,), seed=s, update=u).rows.reply for s, u in ((0, 0), (0, 0), (0, 1), (1, 0))
    )
    assert one == again
    assert one != later
    assert one != seeded


@pytest.mark.parametrize("name", ["qwen3", "llama"])
def test_a_forward_of_mixed_adapters_is_each_adapters_own_forward(name):
    model = stir(backbone(name, AGENTS))
    width = 6
    rows = [
        (agent, p + r)
        for agent, (p, r) in zip(
            ("agent_1", "agent_0", "agent_1"), zip(PROMPTS, REPLIES, strict=True), strict=True
        )
    ]
    ids, mask = torch.zeros((3, width), dtype=torch.long), torch.zeros((3, width), dtype=torch.long)
    for i, (_, tokens) in enumerate(rows):
        ids[i, : len(tokens)], mask[i, : len(tokens)] = torch.tensor(tokens), 1
    with torch.no_grad():
        mixed = model._peft(
            input_ids=ids, attention_mask=mask, adapter_names=[agent for agent, _ in rows]
        ).logits
        for i, (agent, tokens) in enumerate(rows):
            own = model.module(agent)(torch.tensor([tokens])).logits[0]
            assert torch.allclose(mixed[i, : len(tokens)], own, atol=1e-5)
        other = model.module("agent_0")(torch.tensor([rows[0][1]])).logits[0]
    assert not torch.allclose(mixed[0, : len(rows[0][1])], other, atol=1e-2)


def copies_of(name, tuning):
    """A team whose agents name two folders with the same model: two backbones."""
    settings = TeamConfig(lora=LoraConfig(rank=4, alpha=8.0), sampling=SamplingConfig(max_new_tokens=6))
    kwargs = {"tuning": tuning, "lora": settings.lora, "dtype": torch.float32, "device": "cpu"}
    backbones = {agent: Backbone(folder(name), [agent], **kwargs) for agent in AGENTS}
    return AgentTeam(AGENTS, backbones, settings)


@pytest.mark.parametrize("tuning", ["lora", "full"])
def test_two_copies_of_a_base_are_one_shared_base(tuning):
    shared, apart = team(AGENTS, "qwen3", tuning, stirred=False), copies_of("qwen3", tuning)
    assert len({id(b) for b in shared.backbones.values()}) == 1
    assert len({id(b) for b in apart.backbones.values()}) == 2
    for players in (shared, apart):
        for agent in AGENTS:
            generator = torch.Generator().manual_seed(AGENTS.index(agent))
            with torch.no_grad():
                for parameter in players.backbones[agent].parameters(agent).values():
                    parameter.add_(0.05 * torch.randn(parameter.shape, generator=generator))
    one, two = (played(players, (2,), tasks=3) for players in (shared, apart))
    assert one.rows.prompt == two.rows.prompt
    assert one.rows.reply == two.rows.reply
    for agent in AGENTS:
        with torch.no_grad():
            found = [players.logprobs(agent, PROMPTS, REPLIES)[0] for players in (shared, apart)]
        assert torch.equal(*found)
