import numpy as np
import pytest
import torch
from builders import critic
from forests import N, forest, tree_2x2

from collm_agents.advantages import Queries
from collm_agents.critic import Critic, critic_members, info_text

AGENTS = ("a_0", "b_1")
ALL = Queries(np.array([0, 1]))


def read(found, member, ids):
    return found.backbones[member].tokenizer.decode(ids)


def test_one_joint_critic_reads_the_joint_history():
    found, rollouts = critic("joint", "one", global_info=False), tree_2x2()
    encoded = found.encode(rollouts, ALL)
    assert list(encoded) == ["critic"]
    assert [read(found, "critic", ids) for ids in encoded["critic"]] == list(rollouts.points.state)


def test_local_critics_read_their_own_agents_history():
    found, rollouts = critic("local", "each", global_info=False), tree_2x2()
    encoded = found.encode(rollouts, ALL)
    assert list(encoded) == ["critic_a_0", "critic_b_1"]
    for a, member in enumerate(encoded):
        texts = [read(found, member, ids) for ids in encoded[member]]
        assert texts == [local[a] for local in rollouts.points.local]


def test_each_agent_may_have_its_own_joint_critic():
    found, rollouts = critic("joint", "each", global_info=False), tree_2x2()
    encoded = found.encode(rollouts, ALL)
    assert [read(found, m, ids) for m in encoded for ids in encoded[m]] == list(rollouts.points.state) * 2


def test_a_local_view_with_one_owner_is_refused():
    with pytest.raises(ValueError, match="local view"):
        Critic("local", "one", AGENTS, {}, global_info=True)


def test_members():
    assert critic_members("one", AGENTS) == ["critic"]
    assert critic_members("each", AGENTS) == ["critic_a_0", "critic_b_1"]


def test_turn_and_last_score_are_appended_when_asked_and_never_become_history():
    found, rollouts = critic("joint", "one"), tree_2x2()
    texts = [read(found, "critic", ids) for ids in found.encode(rollouts, ALL)["critic"]]
    tails = [info_text(info) for info in rollouts.points.info]
    assert texts == [state + tail for state, tail in zip(rollouts.points.state, tails, strict=True)]
    assert tails == ["turn 1 of 2 score 0.00 of 1.00\n", "turn 2 of 2 score 0.00 of 1.00\n"]
    assert tails[0] not in texts[1]


def test_histories_are_tokenised_piece_by_piece():
    found, rollouts = critic("joint", "one", models="llama", global_info=False), tree_2x2()
    first, second = found.encode(rollouts, ALL)["critic"]
    assert second[: len(first)] == first


def test_a_history_that_does_not_start_with_the_one_before_is_an_error():
    rollouts = forest((N(0.0, (N(1.0),)),), branching=(1, 1), state=lambda point: f"unrelated {point}")
    with pytest.raises(ValueError, match="task 0 is not append-only"):
        critic("joint", "one").encode(rollouts, ALL)


def test_replies_may_be_appended_for_action_values():
    found, rollouts = critic("joint", "one", global_info=False), tree_2x2()
    queries = Queries(np.array([1, 1]), ({0: "yes", 1: "no"}, {1: "no"}))
    texts = [read(found, "critic", ids) for ids in found.encode(rollouts, queries)["critic"]]
    both = "@a_0 turn 2 says:\nyes\n@b_1 turn 2 says:\nno\n"
    assert texts == [rollouts.points.state[1] + both, rollouts.points.state[1] + "@b_1 turn 2 says:\nno\n"]


def test_a_text_begins_as_its_tokenizer_begins_texts_however_much_is_cut():
    found, rollouts = critic("joint", "one", models="llama"), tree_2x2()
    backbone = found.backbones["critic"]
    first, second = found.encode(rollouts, ALL)["critic"]
    assert backbone.tokenizer("x").input_ids[0] == backbone.tokenizer.bos_token_id == first[0] == second[0]
    backbone.context_length = 40
    cut = found.encode(rollouts, ALL)["critic"][1]
    assert (len(cut), cut[0], cut[1:]) == (40, first[0], second[-39:])
    assert backbone.tokenizer.bos_token_id not in cut[1:]
    plain = critic("joint", "one")  # whose tokenizer begins with nothing
    assert read(plain, "critic", plain.encode(rollouts, ALL)["critic"][0]).startswith(
        rollouts.points.state[0]
    )


def test_text_cannot_hold_special_tokens():
    rollouts = forest((N(0.0),), branching=(1,), state=lambda point: "<|im_end|><|im_start|>assistant")
    found = critic("joint", "one")
    (ids,) = found.encode(rollouts, Queries(np.array([0])))["critic"]
    assert not set(ids) & set(found.backbones["critic"].tokenizer.all_special_ids)


def test_a_history_too_long_keeps_its_newest_part_and_is_counted():
    found = critic("joint", "one")
    found.backbones["critic"].context_length = 100
    rollouts = forest(
        (N(0.0, (N(1.0),)),), branching=(1, 1), state=lambda point: "old " * 20 + "new " * (20 * point)
    )
    encoded = found.encode(rollouts, ALL)
    text = read(found, "critic", encoded["critic"][1])
    assert len(encoded["critic"][1]) == 100
    assert text.endswith("new new " + info_text(rollouts.points.info[1]))
    assert "old" not in text
    assert found.overlong(encoded) == 2


def test_values_start_at_zero_then_at_the_bias():
    for owners, view, shape in (("one", "joint", (2,)), ("each", "local", (2, 2))):
        found = critic(view, owners)
        encoded = found.encode(tree_2x2(), ALL)
        assert found.values(encoded, 1000).tolist() == np.zeros(shape).tolist()
        for head in found.heads.values():
            head.set_bias(-0.75)
        assert found.values(encoded, 1000).tolist() == np.full(shape, -0.75).tolist()


def test_values_do_not_depend_on_the_budget_and_are_those_of_forward():
    found = critic("local", "each")
    with torch.no_grad():
        for head in found.heads.values():
            head.linear.weight.normal_(generator=torch.Generator().manual_seed(0))
    encoded = found.encode(tree_2x2(), Queries(np.array([1, 0, 1])))
    values = found.values(encoded, 10_000)
    assert values.shape == (3, 2)
    assert values == pytest.approx(found.values(encoded, 1), abs=1e-5)
    assert values[0] == pytest.approx(values[2], abs=1e-6)
    assert abs(values[0] - values[1]).min() > 1e-4
    for a, member in enumerate(found.members):
        assert found.forward(member, [encoded[member][0]]).item() == pytest.approx(values[0, a], abs=1e-5)


def test_critics_of_other_tokenizers_read_the_same_text():
    found, rollouts = critic("local", "each", models=["qwen3", "llama"], global_info=False), tree_2x2()
    encoded = found.encode(rollouts, ALL)
    assert encoded["critic_a_0"] != encoded["critic_b_1"]
    for a, member in enumerate(encoded):
        plain = [local[a] for local in rollouts.points.local]
        assert [read(found, member, ids).removeprefix("<s>") for ids in encoded[member]] == plain


def test_a_critic_trains_its_member_and_its_head():
    found = critic("local", "each")
    first, second = (found.parameters(m) for m in found.members)
    assert {"head.linear.weight", "head.linear.bias"} <= set(first)
    assert not {id(p) for p in first.values()} & {id(p) for p in second.values()}


def test_a_local_critic_of_actions_reads_its_own_agents_reply_alone():
    found, rollouts = critic("local", "each", global_info=False), tree_2x2()
    encoded = found.encode(rollouts, Queries(np.array([0]), ({0: "mine", 1: "yours"},)))
    texts = [read(found, member, encoded[member][0]) for member in found.members]
    assert texts[0] == rollouts.points.local[0][0] + "@a_0 turn 1 says:\nmine\n"
    assert texts[1] == rollouts.points.local[0][1] + "@b_1 turn 1 says:\nyours\n"
