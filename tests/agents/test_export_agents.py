"""Exported agents in plain transformers and peft: what they say, what they are shown, what their folders hold."""

import json
import re

import pytest
import torch
from builders import folder
from peft import AutoPeftModelForCausalLM
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

from collm_agents import checkpoint
from collm_agents.chat import History
from collm_agents.cli import main
from collm_agents.experiment import Experiment
from collm_agents.export_agents import export_agents
from collm_agents.overrides import load_config
from collm_envs.errors import InputError

PROMPTS, REPLIES = [(70, 71, 72, 73)], [(80, 81, 82)]
VLLM_RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)  # what its max_lora_rank may be; 16 unless one is chosen


def trained(out, *words, env="paying_env:Paying"):
    words = [
        "algorithm=mc",
        f"run.out={out}",
        "joint_samples=16",
        "rollout.samples=2",
        "rollout.buffer=8",
        *words,
    ]
    words += [
        "eval.tasks=3",
        "eval.final_tasks=3",
        "track.tensorboard=false",
        "run.threads=1",
        "learner.lr=0.01",
    ]
    words += ["checkpoint.keep=9", "team.sampling.temperature=0.7", "max_new_tokens=6"]
    Experiment(load_config(env, overrides=words)).run()
    return out


KINDS = {
    "lora": (f"model={folder('qwen3')}", "tuning=lora"),
    "two bases": (f"model={folder('qwen3')}", f"team.agents.agent_1.model={folder('llama')}", "tuning=lora"),
    "full": (f"model={folder('llama')}", "tuning=full"),
    "shared": (f"model={folder('qwen3')}", "tuning=lora", "shared=true"),
    "builtin": (),
}


@pytest.fixture(scope="module", params=list(KINDS))
def run(request, tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "run"
    return request.param, trained(out, *KINDS[request.param])


def ours(run_dir, at=None):
    """The team of a checkpoint by our own loading."""
    experiment = Experiment(load_config(None, files=[run_dir / "config.toml"]))
    team = experiment.build_team(stored=True)
    checkpoint.load_team(checkpoint.pick(run_dir, at), team)
    return team


@torch.no_grad()
def logits(model):
    return model.eval()(torch.tensor([PROMPTS[0] + REPLIES[0]])).logits[0, len(PROMPTS[0]) - 1 : -1].float()


@torch.no_grad()
def team_logits(team, agent):
    return team.backbones[agent].reply_logits(team.member[agent], PROMPTS, REPLIES)[0]


@pytest.mark.parametrize("merge", [False, True])
def test_exported_agents_say_what_the_team_says(run, tmp_path, merge):
    kind, run_dir = run
    team = ours(run_dir)
    adapters = kind not in ("full", "builtin") and not merge
    for place in export_agents(run_dir, tmp_path / "out", merge=merge):
        load = AutoPeftModelForCausalLM if adapters else AutoModelForCausalLM
        own = team_logits(team, place.name)
        assert torch.allclose(own, logits(load.from_pretrained(place)), atol=1e-5)
        before = team_logits(ours(run_dir, 0), place.name)
        assert (own - before).abs().max() > 1e-4  # training has moved it, so a base alone would not do
        assert (place / "adapter_config.json").is_file() == adapters
        assert (place / "config.json").is_file() != adapters


@pytest.mark.parametrize("turns", [1, 2])
@pytest.mark.parametrize(
    (
        "model",
        "template",
    ),  # not builtin without its template: its tokens hold what follows, so seams are cut otherwise
    [("builtin", "auto"), ("qwen3", "auto"), ("qwen3", "none"), ("llama", "auto"), ("llama", "none")],
)
def test_a_server_shows_an_agent_what_training_showed_it(tmp_path, model, template, turns):
    name = model if model == "builtin" else folder(model)
    words = [f"model={name}", "tuning=full", f"template={template}", "joint_samples=8", "num_turns=2"]
    run_dir = trained(tmp_path / "run", *words, "eval.tasks=1", "eval.final_tasks=1")
    team = ours(run_dir)
    place = export_agents(run_dir, tmp_path / "out")[0]
    tokenizer = AutoTokenizer.from_pretrained(place)
    agent, form = place.name, team.formats[place.name]
    history = team.observe(agent, History(), "Say the letter: S")
    messages = [{"role": "user", "content": "Say the letter: S"}]
    if turns == 2:
        said = (*form.encode("the letter S"), tokenizer.eos_token_id)
        history = team.observe(agent, history.reply(said), "again, and\nbetter")
        messages += [
            {"role": "assistant", "content": "the letter S"},
            {"role": "user", "content": "again, and\nbetter"},
        ]
    found = tokenizer.apply_chat_template(messages, add_generation_prompt=True, enable_thinking=False)
    assert list(found["input_ids"]) == list(history.ids)


def test_whole_models_draw_as_in_training(run, tmp_path):
    _, run_dir = run
    sampling = load_config(None, files=[run_dir / "config.toml"]).team.sampling
    for place in export_agents(run_dir, tmp_path / "out", merge=True):
        own = GenerationConfig.from_pretrained(place)
        found = (own.do_sample, own.temperature, own.top_p, own.top_k, own.max_new_tokens)
        assert found == (True, 0.7, 1.0, 0, sampling.max_new_tokens)
        assert AutoTokenizer.from_pretrained(place).eos_token_id in own.eos_token_id
        assert AutoModelForCausalLM.from_pretrained(place).generation_config.top_k == 0


def test_adapters_have_the_layout_that_vllm_reads(run, tmp_path):
    """What vLLM's loader asks of an adapter, as its sources have it; vLLM itself is not run."""
    kind, run_dir = run
    if kind in ("full", "builtin"):
        pytest.skip("no adapters")
    for place in export_agents(run_dir, tmp_path / "out"):
        config = json.loads((place / "adapter_config.json").read_text("utf-8"))
        assert config["peft_type"] == "LORA"
        assert config["r"] in VLLM_RANKS
        assert config["r"] <= 16  # what it takes without --max-lora-rank
        assert config["lora_alpha"] / config["r"] == 2.0
        assert isinstance(config["target_modules"], list)
        assert config["bias"] == "none"
        absent = (
            "modules_to_save",
            "use_dora",
            "use_rslora",
            "rank_pattern",
            "alpha_pattern",
            "layers_to_transform",
        )
        assert not [key for key in absent if config[key]]
        tensors = load_file(place / "adapter_model.safetensors")
        named = {}
        for name, tensor in tensors.items():
            found = re.fullmatch(
                r"base_model\.model\.(model\.layers\.\d+\.(?:self_attn|mlp)\.\w+_proj)\.lora_([AB])\.weight",
                name,
            )
            assert found, name
            named.setdefault(found[1], {})[found[2]] = tensor.shape
        base = AutoModelForCausalLM.from_pretrained(config["base_model_name_or_path"])
        assert set(named) == set(config["target_modules"])
        for name, shapes in named.items():
            wide, narrow = base.get_submodule(name).weight.shape
            assert shapes == {"A": (config["r"], narrow), "B": (wide, config["r"])}


def test_whole_models_have_the_layout_that_servers_read(run, tmp_path):
    _, run_dir = run
    for place in export_agents(run_dir, tmp_path / "out", merge=True):
        config = json.loads((place / "config.json").read_text("utf-8"))
        assert config["architectures"] in (["Qwen3ForCausalLM"], ["LlamaForCausalLM"])
        assert not [key for key in load_file(place / "model.safetensors") if "lora" in key]
        names = {path.name for path in place.iterdir()}
        assert {"tokenizer.json", "chat_template.jinja", "generation_config.json"} <= names
        assert not [name for name in names if name.endswith((".bin", ".pkl", ".py"))]


def test_an_adapter_on_the_builtin_model_is_refused_unless_merged(tmp_path, capsys):
    run_dir = trained(tmp_path / "run", "tuning=lora", "team.lora.rank=2")
    assert main(["export", "agents", str(run_dir), "--out", str(tmp_path / "out")]) == 2
    assert "--merge writes whole models" in capsys.readouterr().err
    assert main(["export", "agents", str(run_dir), "--out", str(tmp_path / "out"), "--merge"]) == 0
    assert capsys.readouterr().out.split() == [str(tmp_path / "out" / f"agent_{i}") for i in (0, 1)]
    team = ours(run_dir)
    for place in (tmp_path / "out").iterdir():
        whole = AutoModelForCausalLM.from_pretrained(place)
        assert torch.allclose(team_logits(team, place.name), logits(whole), atol=1e-5)


def test_a_scripted_teammate_is_left_out_and_a_chosen_checkpoint_taken(tmp_path):
    words = ("team.agents.agent_1.script=novice", "checkpoint.best=true")
    run_dir = trained(tmp_path / "run", *words, env="debug/echo-v0")
    for which in (0, "best", 16):
        places = export_agents(run_dir, tmp_path / str(which), checkpoint_at=which)
        assert [place.name for place in places] == ["agent_0"]
        at = checkpoint.samples_of(checkpoint.pick(run_dir, which))
        assert f"for {at} joint samples" in (places[0] / "README.md").read_text("utf-8")
        own = logits(AutoModelForCausalLM.from_pretrained(places[0]))
        assert torch.allclose(team_logits(ours(run_dir, which), "agent_0"), own, atol=1e-5)
    with pytest.raises(InputError, match="not an empty folder"):
        export_agents(run_dir, tmp_path / "best")


def test_a_card_says_what_the_agent_is_and_nothing_of_private_data(tmp_path):
    source = tmp_path / "private.jsonl"
    source.write_text(json.dumps({"word": "hush-hush"}) + "\n")
    words = (f"env.source={source}", "env.split=all", "eval.split=all")
    run_dir = trained(tmp_path / "run", *words)
    assert "hush-hush" in (run_dir / "samples.jsonl").read_text("utf-8")
    for place in export_agents(run_dir, tmp_path / "out"):
        card = (place / "README.md").read_text("utf-8")
        assert f"# `{place.name}` of `paying_env:Paying`" in card
        assert "library_name: transformers" in card
        assert f"```text\n{place.name} sees train " in card
        told = card.partition("| these weights | ")[2].partition(" |")[0]
        assert re.fullmatch(r"\d\.\d{3}, n=1", told)  # one task: a mean without an interval
        assert "temperature 0.7" in card
        assert str(tmp_path) not in card
        assert "hush-hush" not in card
