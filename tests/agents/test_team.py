import builders
import numpy as np
import pytest
import torch
from builders import played, team

from collm_agents.chat import History
from collm_agents.config import AgentConfig, TeamConfig, resolve_tuning
from collm_agents.draws import DrawKey
from collm_agents.members import agent_specs
from collm_agents.team import Request
from collm_envs.errors import InputError, SettingError

AGENTS = ("a_0", "b_1")


def requests(players, count=6, greedy=False):
    found = []
    for i in range(count):
        agent = players.agents[i % len(players.agents)]
        prompt = players.observe(agent, History(), "x" * (1 + 3 * i)).ids
        found.append(Request(agent, prompt, None if greedy else DrawKey(0, 0, f"t{i}", (0,), agent)))
    return found


def test_agents_follow_the_team_but_for_what_they_say_themselves():
    config = TeamConfig(
        model="x/y", agents={"b_1": AgentConfig(model="builtin"), "c_2": AgentConfig(tuning="full")}
    )
    found = [(s.name, s.model, s.tuning) for s in agent_specs(config, ("a_0", "b_1", "c_2"))]
    assert found == [("a_0", "x/y", "lora"), ("b_1", "builtin", "full"), ("c_2", "x/y", "full")]


def test_an_agent_that_the_environment_does_not_have_is_refused_with_the_nearest_name():
    with pytest.raises(SettingError, match=r"writer_1.*writer_0"):
        agent_specs(TeamConfig(agents={"writer_1": AgentConfig()}), ("writer_0",))


def test_auto_tuning_is_full_for_the_builtin_model_only():
    assert [resolve_tuning("auto", m) for m in ("builtin", "x/y")] == ["full", "lora"]
    assert resolve_tuning("lora", "builtin") == "lora"


def test_agents_of_one_base_share_a_backbone_and_others_do_not():
    shared = team(AGENTS)
    assert shared.backbones["a_0"] is shared.backbones["b_1"]
    mixed = team(AGENTS, ["qwen3", "llama"])
    assert mixed.backbones["a_0"] is not mixed.backbones["b_1"]
    assert mixed.formats["a_0"].tokenizer is not mixed.formats["b_1"].tokenizer


def test_replies_come_in_the_order_of_the_requests():
    players = team(AGENTS, ["qwen3", "llama"])
    asked = requests(players)
    replies = players.act(asked)
    assert len(replies) == len(asked)
    for request, reply in zip(asked, replies, strict=True):
        assert reply.ids == players.act([request])[0].ids
        assert reply.text == players.formats[request.agent].decode(reply.ids)


def test_greedy_requests_take_the_likeliest_tokens_beside_sampled_ones():
    players = team(AGENTS)
    asked = [*requests(players, 4), *requests(players, 4, greedy=True)]
    replies = players.act(asked)
    for request, reply in zip(asked[4:], replies[4:], strict=True):
        with torch.no_grad():
            logits = players.backbones[request.agent].reply_logits(
                request.agent, [request.prompt], [reply.ids]
            )[0]
        logits[:, len(players.formats[request.agent].banned) :] = -1e9
        logits[:, : len(players.formats[request.agent].banned)].masked_fill_(
            players.formats[request.agent].banned, -1e9
        )
        assert logits.argmax(-1).tolist() == list(reply.ids)
    assert [r.ids for r in players.act(asked[4:])] == [r.ids for r in replies[4:]]


def test_no_requests_no_replies():
    assert team(AGENTS).act([]) == []


def test_a_request_of_nobody_is_an_error():
    players = team(AGENTS)
    with pytest.raises(KeyError, match="c_2"):
        players.act([Request("c_2", (1, 2), None)])


@torch.no_grad()
def boost(players, agent, ids, by=50.0):
    """Make tokens overwhelmingly likely, whatever the context."""
    head = players.backbones[agent].module(agent).get_output_embeddings()
    forward = head.forward

    def louder(*args, **kwargs):
        out = forward(*args, **kwargs)
        out[..., list(ids)] += by
        return out

    head.forward = louder


@pytest.mark.parametrize("tuning", ["full", "lora"])
def test_banned_tokens_are_never_drawn_and_have_no_probability_in_teacher_forcing(tuning):
    players = team(AGENTS, tuning=tuning, sampling={"max_new_tokens": 8})
    form = players.formats["a_0"]
    vocabulary = players.backbones["a_0"].config.vocab_size
    assert vocabulary > len(form.banned)  # rows of the output matrix that no token has
    banned = [*form.banned.nonzero().flatten().tolist(), *range(len(form.banned), vocabulary)]
    boost(players, "a_0", banned)
    prompt = players.observe("a_0", History(), "hello").ids
    drawn = players.act([Request("a_0", prompt, DrawKey(0, 0, "t", (i,), "a_0")) for i in range(16)])
    drawn += players.act([Request("a_0", prompt, None)])
    assert not {i for reply in drawn for i in reply.ids} & set(banned)
    with torch.no_grad():
        forced, mask = players.logprobs("a_0", [prompt] * len(banned), [(5, id) for id in banned])
    assert mask.all()
    assert forced[:, 1].isneginf().all()
    assert forced[:, 0].isfinite().all()


def test_teacher_forced_log_probs_are_scaled_by_temperature_and_not_truncated():
    players = team(AGENTS, sampling={"temperature": 0.5, "top_p": 0.3, "top_k": 2})
    prompt, reply = players.observe("a_0", History(), "hello").ids, (5, 200, 7)
    with torch.no_grad():
        found, _ = players.logprobs("a_0", [prompt], [reply])
        logits = players.backbones["a_0"].reply_logits("a_0", [prompt], [reply])[0]
    allowed = torch.zeros(logits.shape[-1], dtype=torch.bool)
    allowed[: len(players.formats["a_0"].banned)] = ~players.formats["a_0"].banned
    expected = (logits / 0.5).masked_fill(~allowed, float("-inf")).log_softmax(-1)
    assert torch.allclose(found[0], expected[torch.arange(3), list(reply)], atol=1e-6)


def test_log_probs_on_padding_are_zero_and_masked():
    players = team(AGENTS)
    with torch.no_grad():
        found, mask = players.logprobs("a_0", [(70,), (71, 72, 73)], [(5, 6, 7), (8,)])
    assert mask.tolist() == [[True, True, True], [True, False, False]]
    assert found[1, 1:].tolist() == [0.0, 0.0]
    assert (found[mask] < 0).all()


def test_the_limit_of_a_prompt_leaves_room_for_the_reply():
    players = team(AGENTS, max_context=60, sampling={"max_new_tokens": 20}, prompt_overflow="clip")
    history = players.observe("a_0", History(), "y" * 500)
    assert len(history.ids) == 40
    assert history.clipped == 1
    assert players.limits == {"a_0": 40, "b_1": 40}
    assert team(AGENTS).limits["a_0"] == 4096 - 6


def test_a_context_without_room_for_a_reply_is_an_error():
    with pytest.raises(InputError, match=r"max_new_tokens=20 \(agent a_0\)"):
        team(AGENTS, max_context=24, sampling={"max_new_tokens": 20})


def test_no_context_is_longer_than_the_model_was_made_for():
    with pytest.raises(InputError, match=r"max_context=4097: the model of agent .* was made for 4096 tokens"):
        team(AGENTS, max_context=4097)


def test_templates_that_cannot_do_later_turns_matter_only_beyond_one(tmp_path, monkeypatch):
    from tiny_models import save_qwen3

    folder = str(save_qwen3(tmp_path / "thinks", rewrites=True))
    monkeypatch.setattr(builders, "folder", lambda name: folder)
    assert team(AGENTS, num_turns=1)
    with pytest.raises(InputError, match="rewrites past turns"):
        team(AGENTS, num_turns=2)
    assert team(AGENTS, num_turns=2, rewriting_template="keep")


def test_replies_hold_one_log_prob_per_token():
    players = team(AGENTS, sampling={"max_new_tokens": 5})
    for reply in players.act(requests(players, 8)):
        assert len(reply.logprob) == len(reply.ids) <= 5
        assert (np.asarray(reply.logprob) <= 0).all()
        ended = reply.ids[-1] in players.formats["a_0"].stop_ids
        assert reply.cut == (not ended)


def forced(players, asked, replies):
    """Largest difference between the sampler's log-probs and teacher-forced ones."""
    found = []
    for request, reply in zip(asked, replies, strict=True):
        with torch.no_grad():
            logp, _ = players.logprobs(request.agent, [request.prompt], [reply.ids])
        found.append(float(np.abs(logp[0].numpy() - reply.logprob).max()))
    return max(found)


def inputs(players, monkeypatch):
    """Shapes of the batches that the agents' models are called with."""
    shapes = []
    for agent in players.agents:
        found = players.backbones[agent].module(agent)
        causal = found.get_base_model() if hasattr(found, "get_base_model") else found
        forward = causal.forward
        if getattr(forward, "watched", False):
            continue

        def watched(*args, forward=forward, **kwargs):
            shapes.append(tuple(kwargs["input_ids"].shape))
            return forward(*args, **kwargs)

        watched.watched = True
        monkeypatch.setattr(causal, "forward", watched)
    return shapes


@pytest.mark.parametrize("tuning", ["lora", "full"])
def test_weights_updated_between_two_calls_are_seen(tuning):
    players = team(AGENTS, tuning=tuning)
    asked = requests(players)
    before = players.act(asked)
    with torch.no_grad():
        for parameter in players.backbones["b_1"].parameters("b_1").values():
            parameter.mul_(1.5)
    after = players.act(asked)
    assert forced(players, asked, after) <= 1e-5
    for request, old, new in zip(asked, before, after, strict=True):
        same = old.ids == new.ids and np.array_equal(old.logprob, new.logprob)
        assert same is (request.agent == "a_0")


def test_adapters_of_one_base_share_a_batch_and_full_copies_do_not(monkeypatch):
    for tuning, batches in (("lora", 1), ("full", 2)):
        players = team(AGENTS, tuning=tuning, sampling={"max_new_tokens": 1})
        asked = requests(players)
        players.act(asked[:1])  # what fits the model is tried out here
        shapes = inputs(players, monkeypatch)
        replies = players.act(asked)
        assert len(shapes) == batches
        assert sum(rows for rows, _ in shapes) == len(asked)
        assert forced(players, asked, replies) <= 1e-5


@pytest.mark.parametrize("tuning", ["lora", "full"])
def test_models_that_the_fast_loop_does_not_fit_are_decoded_by_the_slow_one_and_it_is_said(
    tuning, monkeypatch, caplog
):
    fast = team(AGENTS, tuning=tuning)
    asked = [*requests(fast), *requests(fast, 3, greedy=True)]
    expected = [reply.ids for reply in fast.act(asked)]
    monkeypatch.setattr("collm_agents.models.backbone.misfit", lambda model, pad: "its masks are odd")
    slow = team(AGENTS, tuning=tuning)
    monkeypatch.setattr("collm_agents.team.decode", None)
    for _ in range(2):
        assert [reply.ids for reply in slow.act(asked)] == expected
    own = [r.getMessage() for r in caplog.records if r.name.startswith("collm_agents")]
    assert [text.split(": ", 1)[1] for text in own] == ["its masks are odd"]


@pytest.mark.parametrize("tuning", ["lora", "full"])
def test_turns_are_held_within_a_collection_and_released_after_it(tuning, monkeypatch):
    players = team(AGENTS, tuning=tuning, num_turns=2)
    first = requests(players)
    players.act(first)
    assert players.store.bytes == 0  # nobody asked to hold
    shapes = inputs(players, monkeypatch)
    with players.holding():
        replies = players.act(first)
        assert players.store.bytes > 0
        later = [
            Request(r.agent, (*r.prompt, *reply.ids, 70, 71), DrawKey(0, 0, f"u{i}", (0,), r.agent))
            for i, (r, reply) in enumerate(zip(first, replies, strict=True))
        ]
        shapes.clear()
        replies = players.act(later)
        assert max(width for _, width in shapes) == 3  # a reply's last token and the two new ones
    assert forced(players, later, replies) <= 1e-5
    assert players.store.bytes == 0
    with pytest.raises(KeyError), players.holding():
        players.act([*first, Request("nobody", (1, 2), None)])
    assert players.store.bytes == 0


def test_a_collector_holds_what_later_turns_can_use(monkeypatch):
    taken = []
    for branching in ((2,), (2, 1)):
        players = team(("agent_0", "agent_1"), num_turns=len(branching))
        keep = players.store.keep
        monkeypatch.setattr(
            players.store,
            "keep",
            lambda *args, keep=keep, s=players.store: (keep(*args), taken.append(s.bytes)),
        )
        played(players, branching)
        assert players.store.bytes == 0
        assert (max(taken) > 0) is (len(branching) > 1)
        taken.clear()


def test_prompts_are_counted_as_prefill():
    players = team(AGENTS)
    before = players.clock.read()
    players.act(requests(players))
    assert players.clock.since(before)["prefill"] > 0
