import builders
import peft
import pytest
import torch
from builders import backbone, gap, same, stir, weights

from collm_agents.config import LoraConfig
from collm_envs.errors import InputError

PROMPTS, REPLIES = [(70, 71, 72), (80,)], [(5, 6), (7, 8, 9)]


def logits(model, member, prompts=PROMPTS, replies=REPLIES):
    with torch.no_grad():
        return model.reply_logits(member, prompts, replies)


def base_state(model):
    """Weights of the frozen base under the adapters."""
    return {n: p.detach().clone() for n, p in model._peft.named_parameters() if "lora_" not in n}


@pytest.mark.parametrize("tuning", ["lora", "full"])
def test_members_start_as_the_base_and_part_when_one_changes(tuning):
    model = backbone(tuning=tuning)
    plain = backbone(members=("only",), tuning="full")
    for member in model.members:
        assert torch.equal(logits(model, member), logits(plain, "only"))
    with torch.no_grad():
        for parameter in model.parameters("a_0").values():
            parameter.add_(0.05)
    assert not torch.equal(logits(model, "a_0"), logits(plain, "only"))
    assert torch.equal(logits(model, "b_1"), logits(plain, "only"))


@pytest.mark.parametrize("tuning", ["lora", "full"])
def test_gradients_reach_the_member_that_was_asked_and_no_other(tuning):
    model = stir(backbone(tuning=tuning))
    model.reply_logits("b_1", PROMPTS, REPLIES).sum().backward()
    assert all(p.grad is None for p in model.parameters("a_0").values())
    assert any(p.grad is not None and p.grad.abs().sum() > 0 for p in model.parameters("b_1").values())


def test_adapters_train_and_the_base_is_frozen():
    model = stir(backbone())
    before = base_state(model)
    trained = set(model.parameters("a_0"))
    assert trained
    assert all("lora_" in name and ".a_0." in name for name in trained)
    optimizer = torch.optim.AdamW(model.parameters("a_0").values(), lr=0.1)
    model.reply_logits("a_0", PROMPTS, REPLIES).logsumexp(-1).sum().backward()
    optimizer.step()
    assert same(before, base_state(model))
    assert all(not p.requires_grad for n, p in model._peft.named_parameters() if "lora_" not in n)


def test_full_copies_share_no_memory_but_tied_weights_stay_tied():
    model = backbone("llama", tuning="full")
    first, second = (model.parameters(m) for m in model.members)
    assert not {p.data_ptr() for p in first.values()} & {p.data_ptr() for p in second.values()}
    for member in model.members:
        module = model.module(member)
        assert module.get_output_embeddings().weight is module.get_input_embeddings().weight


def test_member_names_that_contain_each_other_are_kept_apart():
    # The team of CoLLM-DC: agents and their critics on one base.
    names = ("agent_1", "critic_agent_1", "agent_10", "critic")
    model = backbone(members=names)
    found = [set(model.parameters(name)) for name in names]
    assert sum(map(len, found)) == len(set.union(*found))
    assert len({len(f) for f in found}) == 1


def test_an_unknown_member_is_an_error():
    with pytest.raises(KeyError, match="nobody"):
        backbone().module("nobody")


def test_modules_stay_in_evaluation_mode():
    for tuning in ("lora", "full"):
        model = backbone(tuning=tuning)
        assert not any(
            module.training for member in model.members for module in model.module(member).modules()
        )


def test_an_adapters_start_depends_on_the_seed_and_its_own_name_not_on_who_else_is_there():
    alone, together = backbone(members=("b_1",), seed=4), backbone(members=("a_0", "b_1"), seed=4)
    assert same(weights(alone, "b_1"), weights(together, "b_1"))
    first, second = weights(together, "a_0"), weights(together, "b_1")
    pairs = [(first[n], second[n.replace(".a_0.", ".b_1.")]) for n in first if "lora_A" in n]
    assert not any(torch.equal(one, other) for one, other in pairs)
    assert gap(weights(backbone(members=("b_1",), seed=5), "b_1"), weights(alone, "b_1")) > 0


def test_building_a_backbone_leaves_the_global_generator_alone():
    builders.folder("qwen3")
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    backbone()
    assert torch.equal(torch.rand(3), expected)


@pytest.mark.parametrize("name", ["qwen3", "llama"])
def test_reply_logits_are_those_of_each_row_alone_whatever_is_padded(name):
    model = stir(backbone(name))
    module, found = model.module("a_0"), logits(model, "a_0")
    for i, (prompt, reply) in enumerate(zip(PROMPTS, REPLIES, strict=True)):
        with torch.no_grad():
            alone = module(torch.tensor([[*prompt, *reply]])).logits[0]
        expected = alone[len(prompt) - 1 : len(prompt) + len(reply) - 1]
        assert torch.allclose(found[i, : len(reply)], expected, atol=1e-5)


@pytest.mark.parametrize("name", ["qwen3", "llama"])
@pytest.mark.parametrize("tuning", ["lora", "full"])
def test_last_hidden_is_that_of_each_sequence_alone(name, tuning):
    model = stir(backbone(name, tuning=tuning))
    sequences = [(70, 71, 72, 73), (80,), (90, 91)]
    with torch.no_grad():
        found = model.last_hidden("b_1", sequences)
        for i, sequence in enumerate(sequences):
            out = model.module("b_1")(torch.tensor([sequence]), output_hidden_states=True)
            assert torch.allclose(found[i], out.hidden_states[-1][0, -1], atol=1e-5)


@pytest.mark.parametrize("name", ["qwen3", "llama"])
@pytest.mark.parametrize("tuning", ["lora", "full"])
def test_saved_members_come_back_bit_for_bit(tmp_path, name, tuning):
    model = stir(backbone(name, members=("agent_1", "agent_10", "critic_agent_1"), tuning=tuning))
    for member in model.members:
        model.save(member, tmp_path / member)
    fresh = backbone(name, members=("critic_agent_1", "agent_10", "agent_1"), tuning=tuning)
    for member in model.members:
        fresh.load(member, tmp_path / member)
        assert same(weights(model, member), weights(fresh, member))
        assert torch.equal(logits(model, member), logits(fresh, member))


@pytest.mark.parametrize("tuning", ["lora", "full"])
def test_loading_one_member_leaves_the_others_alone(tmp_path, tuning):
    model = stir(backbone(tuning=tuning), seed=1)
    model.save("a_0", tmp_path / "a_0")
    other = stir(backbone(tuning=tuning), seed=2)
    before = weights(other, "b_1")
    other.load("a_0", tmp_path / "a_0")
    assert same(before, weights(other, "b_1"))
    assert same(weights(model, "a_0"), weights(other, "a_0"))


def test_an_adapter_is_saved_into_its_folder_and_nothing_beside_it(tmp_path):
    model = stir(backbone())
    model.save("a_0", tmp_path / "a_0")
    model.save("a_0", tmp_path / "elsewhere")
    assert {p.name for p in tmp_path.iterdir()} == {"a_0", "elsewhere"}
    for folder in tmp_path.iterdir():
        assert {"adapter_model.safetensors", "adapter_config.json"} <= {p.name for p in folder.iterdir()}
        assert all(p.is_file() for p in folder.iterdir())


@pytest.mark.parametrize("tuning", ["lora", "full"])
def test_weights_that_do_not_fit_are_refused(tmp_path, tuning):
    backbone("qwen3", tuning=tuning).save("a_0", tmp_path / "a_0")
    with pytest.raises(InputError, match="does not fit"):
        backbone("llama", tuning=tuning).load("a_0", tmp_path / "a_0")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="empty: there are no weights"):
        backbone("qwen3", tuning=tuning).load("a_0", tmp_path / "empty")


def test_adapters_of_another_rank_are_refused(tmp_path):
    backbone().save("a_0", tmp_path / "a_0")
    with pytest.raises(InputError, match="does not fit"):
        backbone(lora=LoraConfig(rank=8)).load("a_0", tmp_path / "a_0")


def test_target_modules_may_be_named_and_unknown_ones_are_an_error():
    model = backbone(lora=LoraConfig(rank=2, target_modules="q_proj, v_proj"))
    assert {n.split(".")[-4] for n in model.parameters("a_0")} == {"q_proj", "v_proj"}
    with pytest.raises(InputError, match="target_modules"):
        backbone(lora=LoraConfig(target_modules="no_such_module"))


def test_all_adapters_of_a_base_have_no_dropout():
    model = backbone()
    assert all(config.lora_dropout == 0 for config in model._peft.peft_config.values())
    assert isinstance(model._peft, peft.PeftModel)


def test_full_copies_train_in_float32_and_compute_in_what_was_asked():
    model = backbone(tuning="full", dtype=torch.bfloat16)
    assert {p.dtype for p in model.parameters("a_0").values()} == {torch.float32}
    exact = logits(backbone(tuning="full"), "a_0")
    rounded = logits(model, "a_0").float()
    assert not torch.equal(rounded, exact)
    assert torch.allclose(rounded, exact, atol=0.2)
    # A step far below bfloat16's resolution is not lost.
    before = weights(model, "a_0")
    optimizer = torch.optim.SGD(model.parameters("a_0").values(), lr=1e-6)
    model.reply_logits("a_0", PROMPTS, REPLIES).float().logsumexp(-1).sum().backward()
    optimizer.step()
    assert 0 < gap(before, weights(model, "a_0")) < 1e-3


def test_adapters_on_a_bfloat16_base_are_kept_in_float32():
    model = backbone(dtype=torch.bfloat16)
    assert {p.dtype for p in model.parameters("a_0").values()} == {torch.float32}
    assert {p.dtype for p in base_state(model).values()} == {torch.bfloat16}


def test_end_tokens_come_from_the_models_generation_config():
    assert backbone("qwen3").stop_ids == (backbone("qwen3").tokenizer.eos_token_id,)
