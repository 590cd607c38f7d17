import gc

import numpy as np
import peft
import pytest
import torch
from tiny_models import ARCHITECTURES, WINDOW, random_model

from collm_agents.clock import Clock
from collm_agents.config import SamplingConfig
from collm_agents.losses import masked_log_softmax
from collm_agents.models import decode as module
from collm_agents.models.decode import Row, Setting, decode, misfit, plainly
from collm_agents.models.grouped import GroupedAdapters, groupable
from collm_agents.models.kvcache import BufferCache, BufferLayer, PrefixStore

STOPS, VOCABULARY, LIMIT = {2, 3, 4, 5, 6}, 50, 12
BANNED = torch.zeros(VOCABULARY, dtype=torch.bool)
BANNED[[0, 1, 7]] = True


def setting(store=None, adapters=None, budget=2048, limit=LIMIT, clock=None, **sampling):
    return Setting(
        SamplingConfig(max_new_tokens=limit, **sampling),
        STOPS,
        BANNED,
        0,
        adapters=adapters,
        store=store,
        clock=clock or Clock(),
        budget=budget,
    )


def rows(lengths, siblings=3, seed=0, greedy=(), members=("m",), limit=LIMIT):
    """`siblings` rows for each of some random prompts, members in turn; `greedy` are numbers of rows."""
    rng = np.random.default_rng(seed)
    found = []
    for i, length in enumerate(lengths):
        prompt = tuple(rng.integers(8, VOCABULARY, length).tolist())
        for _ in range(siblings):
            u = None if len(found) in greedy else rng.random(limit)
            found.append(Row(members[i % len(members)], prompt, u))
    return found


def drawn(model, asked, how, loop=decode):
    """Replies in order; each row is told exactly once."""
    told = {}

    def tell(number, reply):
        assert number not in told
        told[number] = reply

    loop(model, asked, how, tell)
    assert sorted(told) == list(range(len(asked)))
    return [told[i] for i in range(len(asked))]


def gap(replies, others):
    """Largest difference of log-probs; the tokens must be equal."""
    assert [r.ids for r in replies] == [o.ids for o in others]
    assert [r.cut for r in replies] == [o.cut for o in others]
    return max(float(np.abs(r.logprob - o.logprob).max()) for r, o in zip(replies, others, strict=True))


@torch.no_grad()
def forced_gap(forward, asked, replies, temperature=1.0):
    """Largest difference of the replies' log-probs to those of one plain pass per row, without a cache."""
    found = []
    for row, reply in zip(asked, replies, strict=True):
        ids = torch.tensor([[*row.prompt, *reply.ids]])
        logits = forward(row.member, ids)[0, len(row.prompt) - 1 : -1]
        logp = masked_log_softmax(logits, temperature, BANNED)
        own = logp[torch.arange(len(reply.ids)), list(reply.ids)].numpy()
        found.append(float(np.abs(own - reply.logprob).max()))
    return max(found)


def plain(model):
    return lambda member, ids: model(input_ids=ids, use_cache=False).logits


RAGGED = [9, 1, 4, 9, 17]


def test_keys_and_values_are_freed_with_the_batch():
    model, asked = random_model(next(iter(ARCHITECTURES))), rows(RAGGED)
    gc.collect()
    gc.disable()  # whose rounds would hide that caches are part of a cycle
    try:
        drawn(model, asked, setting())
        assert not [held for held in gc.get_objects() if isinstance(held, BufferCache | BufferLayer)]
    finally:
        gc.enable()


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_log_probs_are_the_teacher_forced_ones_on_every_architecture(name):
    # Ragged prompts on both sides of the window, siblings, greedy rows and compaction.
    model, asked = random_model(name), rows(RAGGED, greedy={4, 7})
    assert min(RAGGED) < WINDOW < max(RAGGED)
    replies = drawn(model, asked, setting(temperature=0.9))
    assert forced_gap(plain(model), asked, replies, 0.9) <= 1e-5
    assert len({len(r.ids) for r in replies}) > 2  # rows ended at different times
    assert np.concatenate([r.logprob for r in replies]).std() > 0.3  # and the model is far from uniform


@pytest.mark.parametrize("name", ["llama", "gemma3"])
def test_eager_attention_takes_masks_of_another_type(name):
    model, asked = random_model(name, attention="eager"), rows(RAGGED)
    assert forced_gap(plain(model), asked, drawn(model, asked, setting())) <= 1e-5


@pytest.mark.parametrize("lengths", [[8, 8, 8], [3, 3]], ids=["beyond the window", "within it"])
@pytest.mark.parametrize("name", ["qwen2", "qwen2-windowed", "mistral", "gemma2", "gemma3"])
def test_prompts_of_equal_lengths_need_no_padding(name, lengths):
    model, asked = random_model(name), rows(lengths)
    assert forced_gap(plain(model), asked, drawn(model, asked, setting())) <= 1e-5


@pytest.mark.parametrize("budget", [1, 20, 2048])
@pytest.mark.parametrize("name", ["llama", "qwen3", "gemma2"])
def test_replies_are_those_of_the_slow_loop(name, budget):
    model, asked = random_model(name), rows(RAGGED, greedy={0, 14})
    how = setting(budget=budget)
    assert gap(drawn(model, asked, how), drawn(model, asked, how, plainly)) <= 1e-5


@pytest.mark.parametrize("sampling", [{"top_p": 0.6}, {"top_k": 3}, {"top_p": 0.8, "top_k": 5}])
def test_truncated_draws_are_those_of_the_slow_loop_and_greedy_rows_are_not_truncated(sampling):
    model, asked = random_model("qwen3"), rows(RAGGED, greedy={1, 2, 3})
    how = setting(**sampling)
    replies = drawn(model, asked, how)
    assert gap(replies, drawn(model, asked, how, plainly)) <= 1e-5
    free = drawn(model, asked, setting())
    assert [replies[i].logprob.tolist() for i in (1, 2, 3)] == [free[i].logprob.tolist() for i in (1, 2, 3)]
    assert any(r.ids != f.ids for r, f in zip(replies, free, strict=True))


@pytest.mark.parametrize("name", ["llama", "qwen2", "qwen3", "gemma2", "gemma3"])
def test_greedy_replies_are_those_of_generate(name):
    model, asked = random_model(name), rows(RAGGED, siblings=1, greedy=range(5))
    for row, reply in zip(asked, drawn(model, asked, setting()), strict=True):
        expected = model.generate(
            torch.tensor([row.prompt]),
            attention_mask=torch.ones((1, len(row.prompt)), dtype=torch.long),
            do_sample=False,
            max_new_tokens=LIMIT,
            eos_token_id=sorted(STOPS),
            pad_token_id=0,
            suppress_tokens=BANNED.nonzero().flatten().tolist(),
        )[0, len(row.prompt) :]
        assert list(reply.ids) == expected.tolist()


def test_a_row_does_not_depend_on_the_others_or_their_order():
    model, asked = random_model("qwen3"), rows(RAGGED, greedy={5})
    whole = drawn(model, asked, setting())
    order = np.random.default_rng(1).permutation(len(asked))
    shuffled = drawn(model, [asked[i] for i in order], setting())
    assert gap(shuffled, [whole[i] for i in order]) <= 1e-5
    assert gap([drawn(model, [row], setting())[0] for row in asked], whole) <= 1e-5


def watch(model, monkeypatch):
    """Shapes of all inputs that a model is called with."""
    shapes, forward = [], model.forward

    def watched(*args, **kwargs):
        shapes.append(tuple(kwargs["input_ids"].shape))
        return forward(*args, **kwargs)

    monkeypatch.setattr(model, "forward", watched)
    return shapes


def test_each_prompt_is_computed_once_and_finished_rows_leave(monkeypatch):
    model, asked = random_model("qwen3"), rows([5, 5, 8], siblings=4)
    shapes = watch(model, monkeypatch)
    replies = drawn(model, asked, setting(budget=10))
    assert shapes[:2] == [(2, 5), (1, 8)]
    assert {s[1] for s in shapes[2:]} == {1}
    sizes = [s[0] for s in shapes[2:]]
    # As long as more than three quarters are unfinished nothing moves; then exactly the unfinished ones remain.
    size, expected = len(asked), []
    for step in range(1, LIMIT):
        unfinished = sum(len(r.ids) > step for r in replies)
        if not unfinished:
            break
        size = unfinished if unfinished <= module.DENSE * size else size
        expected.append(size)
    assert sizes == expected
    assert len(set(sizes)) > 2


@pytest.mark.parametrize("poll", [2, 5, 100])
def test_looking_rarely_changes_no_reply(monkeypatch, poll):
    model, asked = random_model("qwen3"), rows(RAGGED)
    often = drawn(model, asked, setting())
    monkeypatch.setattr(module, "poll_every", lambda device: poll)
    assert gap(drawn(model, asked, setting()), often) <= 1e-5


def test_replies_are_told_when_they_end_and_not_with_the_last(monkeypatch):
    model, asked = random_model("qwen3"), rows(RAGGED)
    shapes, calls, replies = watch(model, monkeypatch), {}, {}

    def tell(number, reply):
        calls[number], replies[number] = len(shapes), reply

    decode(model, asked, setting(), tell)
    assert shapes[0] == (len(RAGGED), max(RAGGED))  # one pass for all prompts, then one per token
    assert calls == {i: len(reply.ids) for i, reply in replies.items()}


def test_prompts_are_counted_as_prefill():
    clock = Clock()
    with clock.phase("decode"):
        drawn(random_model("qwen3"), rows(RAGGED), setting(clock=clock))
    spent = clock.read()
    assert 0 < spent["prefill"] < spent["prefill"] + spent["decode"]
    assert spent["decode"] > 0


# -- history ------------------------------------------------------------------------------------------------------


def grown(asked, replies, seed=0, siblings=2):
    """Next turns: every row's prompt and reply, and some new tokens; `siblings` rows for each."""
    rng = np.random.default_rng(100 + seed)
    found = []
    for row, reply in zip(asked, replies, strict=True):
        fresh = rng.integers(8, VOCABULARY, int(rng.integers(1, 6))).tolist()
        prompt = (*row.prompt, *reply.ids, *fresh)
        found += [Row(row.member, prompt, rng.random(LIMIT)) for _ in range(siblings)]
    return found


@pytest.mark.parametrize("name", ["llama", "qwen2", "qwen3", "mistral", "gemma2", "gemma3"])
def test_later_turns_of_a_tree_go_on_from_what_was_computed(name, monkeypatch):
    model, store = random_model(name), PrefixStore(10_000_000)
    asked = rows(RAGGED, siblings=2, greedy={3})
    shapes = watch(model, monkeypatch)
    for turn in range(3):
        shapes.clear()
        replies = drawn(model, asked, setting(store=store))
        computed = sum(s[0] * s[1] for s in shapes if s[1] > 1)
        assert forced_gap(plain(model), asked, replies) <= 1e-5
        whole = sum(map(len, {row.prompt for row in asked}))
        if turn:  # one reply's last token and at most five new ones, padding to a group's longest included
            assert computed <= 6 * len({row.prompt for row in asked}) < whole / 2
        asked = grown(asked, replies, turn, siblings=2 if turn == 0 else 1)


def test_replies_are_the_same_with_and_without_history():
    model, store = random_model("qwen3"), PrefixStore(10_000_000)
    asked = rows(RAGGED)
    later = grown(asked, drawn(model, asked, setting(store=store)))
    later += rows([6, 30], seed=9)  # and strangers among them
    assert store.bytes > 0
    assert gap(drawn(model, later, setting(store=store)), drawn(model, later, setting())) <= 1e-5


def test_history_of_one_member_is_not_taken_for_anothers():
    store = PrefixStore(10_000_000)
    one, other = random_model("qwen3", seed=1), random_model("qwen3", seed=2)
    asked = rows(RAGGED, members=("one",))
    later = grown(asked, drawn(one, asked, setting(store=store)))
    moved = [Row("other", row.prompt, row.uniforms) for row in later]
    replies = drawn(other, moved, setting(store=store))
    assert forced_gap(plain(other), moved, replies) <= 1e-5


@pytest.mark.parametrize("budget", [0, 1, 20_000, 40_000])
def test_history_keeps_to_its_budget_and_what_is_gone_is_computed_again(budget):
    model, store, asked = random_model("qwen3"), PrefixStore(budget), rows(RAGGED)
    for turn in range(3):
        replies = drawn(model, asked, setting(store=store))
        assert store.bytes <= budget
        assert forced_gap(plain(model), asked, replies) <= 1e-5
        asked = grown(asked, replies, turn, siblings=1)
    full = PrefixStore(10_000_000)
    drawn(model, asked, setting(store=full))
    assert full.bytes > 40_000


def test_a_released_store_knows_nothing():
    model, store, asked = random_model("qwen3"), PrefixStore(10_000_000), rows(RAGGED)
    replies = drawn(model, asked, setting(store=store))
    known = (*asked[0].prompt, *replies[0].ids, 9)
    assert store.find("m", known, store.lengths("m")).length == len(known) - 2
    assert (
        store.find("m", known[:-2], store.lengths("m")) is None
    )  # the whole prompt would leave nothing to do
    store.release()
    assert (store.bytes, store.lengths("m"), store.find("m", known, [len(known) - 2])) == (0, [], None)


# -- adapters -----------------------------------------------------------------------------------------------------


@torch.no_grad()
def adapted(name, members, seed=0, size=0.1):
    """A model with random adapters of which each has a scale of its own."""
    found = None
    for number, member in enumerate(members):
        config = peft.LoraConfig(
            r=3, lora_alpha=4.0 + number, target_modules="all-linear", task_type="CAUSAL_LM"
        )
        if found is None:
            found = peft.get_peft_model(random_model(name), config, adapter_name=member)
        else:
            found.add_adapter(member, config)
    generator = torch.Generator().manual_seed(seed)
    for key, parameter in found.named_parameters():
        if "lora_" in key:
            parameter.copy_(size * torch.randn(parameter.shape, generator=generator))
    return found.eval()


def of_member(model):
    def forward(member, ids):
        model.set_adapter(member)
        return model(input_ids=ids, use_cache=False).logits

    return forward


MEMBERS = ("a", "b", "c")


# Large adapters amplify rounding: a plain pass in float32 is then itself 8e-6 off. In float64 nothing hides.
@pytest.mark.parametrize(
    ("dtype", "size", "tolerance"), [(torch.float32, 0.1, 1e-5), (torch.float64, 0.3, 1e-6)]
)
@pytest.mark.parametrize("name", ["llama", "qwen2", "gemma2"])
def test_rows_of_several_adapters_are_each_adapters_own(name, dtype, size, tolerance):
    model, store = adapted(name, MEMBERS, size=size).to(dtype), PrefixStore(10_000_000)
    asked = rows([9, 1, 4, 9, 17, 6], siblings=2, members=MEMBERS)
    asked = [asked[i] for i in np.random.default_rng(2).permutation(len(asked))]
    for turn in range(2):  # with history, and members in no order
        grouped = GroupedAdapters(model.get_base_model(), MEMBERS)
        with grouped.in_place():
            replies = drawn(model.get_base_model(), asked, setting(store=store, adapters=grouped))
        assert forced_gap(of_member(model), asked, replies) <= tolerance
        moved = [Row(MEMBERS[MEMBERS.index(r.member) - 1], r.prompt, r.uniforms) for r in asked]
        assert forced_gap(of_member(model), moved, replies) > 0.1  # members do differ
        asked = grown(asked, replies, turn)


def test_some_of_the_adapters_and_prompts_that_members_share():
    model = adapted("qwen3", MEMBERS)
    same = [Row(m, (9, 10, 11), u) for u in np.random.default_rng(0).random((4, LIMIT)) for m in ("c", "a")]
    for members in (("c", "a"), ("a", "c", "b")):
        grouped = GroupedAdapters(model.get_base_model(), members)
        with grouped.in_place():
            replies = drawn(model.get_base_model(), same, setting(adapters=grouped))
        assert forced_gap(of_member(model), same, replies) <= 1e-5


def test_adapted_layers_are_left_as_they_were_even_after_an_error():
    model = adapted("qwen3", ("a", "b"))
    ids = torch.tensor([[9, 10, 11]])
    before = of_member(model)("b", ids)
    grouped = GroupedAdapters(model.get_base_model(), ("a", "b"))
    with pytest.raises(RuntimeError), grouped.in_place():
        raise RuntimeError
    assert torch.equal(of_member(model)("b", ids), before)
    assert not any("forward" in vars(m) for m in model.modules())


def test_only_plain_adapters_on_linear_layers_are_grouped():
    assert groupable(adapted("qwen3", ("a",)))
    for kwargs in ({"use_dora": True}, {"target_modules": ["embed_tokens"]}, {"lora_bias": True}):
        config = peft.LoraConfig(**{"r": 2, "target_modules": ["q_proj"], "task_type": "CAUSAL_LM", **kwargs})
        assert not groupable(peft.get_peft_model(random_model("qwen3"), config))


# -- models that it does not fit ----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_common_models_fit(name):
    assert misfit(random_model(name), 0) == ""


def test_a_model_that_reads_masks_otherwise_is_found_out(monkeypatch):
    model = random_model("llama")
    forward = model.forward
    monkeypatch.setattr(model, "forward", lambda **kw: forward(**{**kw, "attention_mask": None}))
    assert "logits differ" in misfit(model, 0)

    def refusing(**kwargs):
        raise ValueError("no such mask")

    monkeypatch.setattr(model, "forward", refusing)
    assert misfit(model, 0) == "ValueError: no such mask"


def test_layers_of_other_kinds_are_not_tried():
    model = random_model("qwen2")
    model.config.layer_types = ["full_attention", "linear_attention", "full_attention"]
    assert "linear_attention" in misfit(model, 0)
