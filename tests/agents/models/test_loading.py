import dataclasses
import json
import shutil

import pytest
import torch
from tiny_models import save_llama, save_qwen3

from collm_agents.config import LoraConfig, resolve_tuning, resolved
from collm_agents.models import loading
from collm_agents.models.backbone import Backbone
from collm_agents.overrides import load_config
from collm_envs.errors import InputError


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("models")
    return {"qwen3": save_qwen3(root / "qwen3"), "llama": save_llama(root / "llama")}


def broken(folders, name, tmp_path, *patterns):
    copy = shutil.copytree(folders[name], tmp_path / "copy")
    for pattern in patterns:
        for file in copy.glob(pattern):
            file.unlink()
    return str(copy)


def one_line(call):
    with pytest.raises(InputError) as caught:
        call()
    message = str(caught.value)
    assert "\n" not in message
    assert len(message) < 600
    return message


@pytest.mark.parametrize("name", ["qwen3", "llama"])
def test_a_folder_without_tokenizer_is_an_error(folders, tmp_path, name):
    folder = broken(folders, name, tmp_path, "tok*", "*.jinja")
    message = one_line(lambda: loading.load_tokenizer(folder))
    assert folder in message
    assert "tokenizer" in message


@pytest.mark.parametrize("path", ["/no/such/folder", "./missing", "a/b/c", "~/surely/not/there"])
def test_a_missing_folder_is_an_error_and_nothing_is_asked_of_the_hub(path):
    for load in (
        loading.load_config,
        loading.load_tokenizer,
        lambda name: loading.load_model(name, torch.float32, "cpu"),
    ):
        assert path in one_line(lambda load=load: load(path))


def test_pickled_weights_are_refused(folders, tmp_path):
    folder = broken(folders, "qwen3", tmp_path, "*.safetensors")
    torch.save({"weight": torch.zeros(2)}, f"{folder}/pytorch_model.bin")
    assert "safetensors" in one_line(lambda: loading.load_model(folder, torch.float32, "cpu"))


def test_a_folder_without_weights_or_config_is_an_error(folders, tmp_path):
    folder = broken(folders, "qwen3", tmp_path, "*.safetensors")
    one_line(lambda: loading.load_model(folder, torch.float32, "cpu"))
    shutil.rmtree(folder)
    folder = broken(folders, "qwen3", tmp_path, "config.json")
    one_line(lambda: loading.load_model(folder, torch.float32, "cpu"))
    one_line(lambda: loading.load_config(folder))


def test_cut_off_weights_are_an_error(folders, tmp_path):
    folder = broken(folders, "qwen3", tmp_path)
    file = tmp_path / "copy" / "model.safetensors"
    file.write_bytes(file.read_bytes()[:1000])
    one_line(lambda: loading.load_model(folder, torch.float32, "cpu"))


def test_code_of_a_model_folder_is_never_run(folders, tmp_path):
    folder = broken(folders, "qwen3", tmp_path)
    mark = tmp_path / "ran"
    code = f"from pathlib import Path\nPath({str(mark)!r}).touch()\n"
    (tmp_path / "copy" / "modeling_evil.py").write_text(code)
    config = json.loads((tmp_path / "copy" / "config.json").read_text())
    config["model_type"] = "evil"
    config["auto_map"] = {
        "AutoConfig": "modeling_evil.Evil",
        "AutoModelForCausalLM": "modeling_evil.Evil",
        "AutoTokenizer": ["modeling_evil.Evil", "modeling_evil.Evil"],
    }
    (tmp_path / "copy" / "config.json").write_text(json.dumps(config))
    one_line(lambda: loading.load_config(folder))
    one_line(lambda: loading.load_model(folder, torch.float32, "cpu"))
    assert not mark.exists()


def test_models_are_loaded_for_inference_in_the_asked_precision(folders):
    model = loading.load_model(str(folders["qwen3"]), torch.bfloat16, "cpu")
    assert not model.training
    assert {p.dtype for p in model.parameters()} == {torch.bfloat16}


def test_context_length_is_read_from_the_config(folders):
    assert loading.context_length(loading.load_config(str(folders["qwen3"]))) == 4096
    assert loading.context_length(object()) == 0


def test_a_tokenizer_bigger_than_the_model_is_an_error(folders, tmp_path):
    folder = broken(folders, "qwen3", tmp_path)
    tokenizer = loading.load_tokenizer(folder)
    tokenizer.add_tokens([f"<new{i}>" for i in range(10)])
    tokenizer.save_pretrained(folder)
    kwargs = {"tuning": "lora", "lora": LoraConfig(), "dtype": torch.float32, "device": "cpu"}
    assert "tokens" in one_line(lambda: Backbone(folder, ["a"], **kwargs))


@pytest.mark.parametrize("device", ["gpu", "cuda:99", "warp"])
def test_a_device_that_is_not_there_is_an_error(device):
    assert device in one_line(lambda: loading.pick_device(device))


def test_a_rebuilt_built_in_model_has_the_built_in_ones_defaults(tmp_path):
    folder = shutil.copytree(loading.BUILTIN_FOLDER, tmp_path / "mine")
    assert loading.resolve(f"builtin:{folder}") == str(folder)
    shipped, mine = (
        resolved(load_config("debug/echo-v0", overrides=[f"model={name}"]), reply_words=1)
        for name in ("builtin", f"builtin:{folder}")
    )
    assert dataclasses.replace(mine, team=shipped.team) == shipped
    assert mine.team.sampling == shipped.team.sampling
    assert resolve_tuning("auto", f"builtin:{folder}") == "full"
    assert "does not exist" in one_line(lambda: loading.load_config(f"builtin:{tmp_path / 'absent'}"))


def test_auto_resolves_to_what_the_device_does_well():
    assert loading.pick_dtype("auto", "cpu") == torch.float32
    assert loading.pick_dtype("auto", "cuda") == torch.bfloat16
    assert loading.pick_device("cpu") == "cpu"


def test_a_folder_that_is_no_model_is_a_whole_sentence(tmp_path):
    (tmp_path / "notes.txt").write_text("nothing here")
    with pytest.raises(InputError) as caught:
        loading.load_tokenizer(str(tmp_path))
    assert not str(caught.value).endswith(":")
    assert "no config.json" in str(caught.value)
