"""A folder full of broken things: data files, settings, models, runs, results, plug-ins. For `test_bad_input`."""

from __future__ import annotations

import gzip
import json
import os
import shutil
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from tiny_models import byte_tokenizer, save_llama, save_qwen3

from collm_agents.experiment import Experiment
from collm_agents.overrides import load_config

GIGABYTES = 2 * 1024**3


def build(root: Path) -> None:
    """Make everything, in the folder that commands are then given in."""
    _data(root)
    _settings(root)
    _plugins(root)
    _models(root)
    _runs(root)
    _results(root)
    _suites(root)


def _data(root: Path) -> None:
    good = b'{"prompt": "a long post"}\n' * 4
    whole = gzip.compress(good * 500)
    files = {
        "good.jsonl": good,
        "nocolumn.jsonl": b'{"text": "a"}\n{"text": "b"}\n',
        "number.jsonl": b'{"prompt": "a"}\n{"prompt": 5}\n',
        "nothing.jsonl": b'{"prompt": "a"}\n{"prompt": null}\n',
        "spaces.jsonl": b'{"prompt": "a"}\n{"prompt": "  "}\n',
        "empty.jsonl": b"",
        "blank.jsonl": b"\n \n\n",
        "latin.jsonl": '{"prompt": "café"}\n'.encode("latin-1"),
        "utf16.jsonl": '{"prompt": "a"}\n'.encode("utf-16"),
        "broken.jsonl": b'{"prompt": "a"}\n{"prompt": \n',
        "lists.jsonl": b"[1]\n[2]\n",
        "one.jsonl": b'{"prompt": "alone"}\n',
        "deep.jsonl": b"[" * 100_000,
        "object.json": b'{"prompt": "a"}',
        "half.json": b'[{"prompt": "a"}, ',
        "cells.csv": b"prompt,more\na,b\nc\n",
        "open.csv": b'prompt\n"never closed\n',
        "header.csv": b"prompt\n",
        "table.xlsx": b"PK\x03\x04",
        "nosuffix": good,
        "not.parquet": good,
        "plain.jsonl.gz": good,
        "cut.jsonl.gz": whole[: len(whole) // 2],
        "picture.jsonl.gz": gzip.compress(b"\x89PNG\r\n\x1a\n" + bytes(range(256))),
        "mute.txt": b"\xff\xfe\x00",
        "noprogram.jsonl": b'{"name": "a"}\n',
        "notests.jsonl": b'{"name": "a", "code": "x = 1", "tests": []}\n',
        "badtests.jsonl": b'{"name": "a", "code": "x = 1", "tests": ["x == 1"]}\n',
    }
    for name, content in files.items():
        (root / name).write_bytes(content)
    for name in ("endless.jsonl", "endless.json", "endless.csv"):
        (root / name).touch()
        os.truncate(root / name, GIGABYTES)  # sparse: it takes no room
    with gzip.GzipFile(root / "bomb.jsonl.gz", "wb", compresslevel=1) as file:
        for _ in range(128):
            file.write(bytes(2**20))
    (root / "folder").mkdir()


def _settings(root: Path) -> None:
    files = {
        "good.toml": '[algorithm]\nname = "mc"\n',
        "broken.toml": "[learner\n",
        "twice.toml": "[run]\nseed = 1\nseed = 2\n",
        "key.toml": "[learner]\nlearning_rate = 0.1\n",
        "section.toml": "[lerner]\nlr = 0.1\n",
        "type.toml": '[run]\nseed = "one"\n',
        "range.toml": "[team.sampling]\ntop_p = 2.0\n",
        "scalar.toml": 'team = "builtin"\n',
        "budgets.toml": "[run]\njoint_samples = 8\ntokens = 8\n",
        "extends.toml": 'extends = "no/such"\n',
        "extends-number.toml": "extends = 3\n",
        "loop.toml": 'extends = "loop.toml"\n',
        "agent.toml": "[team.agents.writer_9]\nmodel = 'builtin'\n",
        "noenv.toml": "[run]\nseed = 1\n",
        "env.toml": '[env]\nid = "debug/ecko-v0"\n',
        "number-env.toml": "[env]\nid = 3\n",
        "date.toml": "[run]\nseed = 2024-01-01\n",
    }
    for name, content in files.items():
        (root / name).write_text(content, encoding="utf-8")
    (root / "latin.toml").write_bytes('[run]\nout = "café"\n'.encode("latin-1"))
    (root / "huge.toml").touch()
    os.truncate(root / "huge.toml", GIGABYTES)


def _plugins(root: Path) -> None:
    env = (
        "from collm_envs import CollabEnv\n\n\nclass Env(CollabEnv):\n"
        '    """One.\n\n    Observations: x.\n\n    Actions: x.\n\n    Rewards: x.\n\n    Example: x.\n    """\n\n'
    )
    files = {
        "drill_raises": "raise RuntimeError('no licence')\n",
        "drill_exits": "raise SystemExit(3)\n",
        "drill_interrupts": "class Odd(BaseException):\n    pass\n\n\nraise Odd('odd')\n",
        "drill_syntax": "def broken(:\n",
        "drill_needs": "import surely_not_installed\n",
        "drill_empty": "",
        "drill_other": "class Env:\n    pass\n",
        "drill_init": env + "    def __init__(self, **kwargs):\n        raise RuntimeError('no data')\n",
        "drill_roles": env + "    def roles(self, num_agents):\n        return ('Writer',)\n",
    }
    for name, content in files.items():
        (root / f"{name}.py").write_text(content, encoding="utf-8")
    (root / "drill_latin.py").write_bytes("café = 1\n".encode("latin-1"))
    # A package that is installed and publishes an environment whose module cannot be imported.
    about = root / "drill_plugin-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: drill-plugin\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text(
        "[collm.envs]\nplugin/raises-v0 = drill_raises:Env\nPlugin/BAD = drill_raises:Env\n"
    )


def _models(root: Path) -> None:
    good = save_qwen3(root / "qwen3")
    save_llama(root / "llama")

    def copy(name: str, *without: str) -> Path:
        folder = shutil.copytree(good, root / name)
        for pattern in without:
            for file in folder.glob(pattern):
                file.unlink()
        return folder

    def config(folder: Path, **changes: object) -> None:
        file = folder / "config.json"
        file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))

    copy("noconfig", "config.json")
    copy("notokenizer", "tok*", "*.jinja")
    copy("noweights", "*.safetensors")
    pickled = copy("pickled", "*.safetensors")
    torch.save({"weight": torch.zeros(2)}, pickled / "pytorch_model.bin")
    cut = copy("cut") / "model.safetensors"
    cut.write_bytes(cut.read_bytes()[:1000])
    (copy("garbage") / "model.safetensors").write_bytes(b"\xff" * 4096)
    (copy("noweight") / "model.safetensors").write_bytes(b"")
    (copy("badconfig") / "config.json").write_text("{")
    config(copy("unknown"), model_type="hal9000")
    config(copy("encoder"), model_type="bert", architectures=["BertForMaskedLM"])
    config(copy("wide"), hidden_size=48)
    config(copy("deep"), num_hidden_layers=3)
    shallow = copy("shallow") / "model.safetensors"
    tensors = load_file(shallow)
    save_file({k: v for k, v in tensors.items() if ".layers.1." not in k}, shallow, {"format": "pt"})
    more = byte_tokenizer()
    more.add_tokens([f"<new{i}>" for i in range(10)])
    more.save_pretrained(copy("vocabulary", "tok*", "*.jinja"))
    (copy("badtokenizer") / "tokenizer.json").write_text("{}")
    (root / "adapter").mkdir()
    (root / "adapter" / "adapter_config.json").write_text('{"base_model_name_or_path": "x"}')


def _train(root: Path, name: str, *words: str, env: str = "debug/echo-v0") -> Path:
    words = ("algorithm=mc", "joint_samples=8", "rollout.buffer=8", "eval.points=1", *words)
    words += ("eval.tasks=2", "eval.final_tasks=2", "track.tensorboard=false", "track.live=false")
    Experiment(load_config(env, overrides=[*words, f"out={root / name}"])).run()
    return root / name


def _runs(root: Path) -> None:
    good = _train(root, "run")
    _train(root, "shake", env="debug/handshake-v0")
    _train(root, "adapters", f"model={root / 'qwen3'}", "tuning=lora", "team.lora.rank=2")
    newest = "checkpoints/000000008"

    def copy(name: str) -> Path:
        return shutil.copytree(good, root / name)

    def cut(file: Path) -> None:
        file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])

    (copy("run-noconfig") / "config.toml").unlink()
    (copy("run-emptyconfig") / "config.toml").write_text("")
    (copy("run-badconfig") / "config.toml").write_text("[learner\n")
    file = copy("run-oldconfig") / "config.toml"
    file.write_text(file.read_text().replace("[learner]\n", "[learner]\nmomentum = 0.5\n"))
    file = copy("run-otherenv") / "config.toml"
    file.write_text(file.read_text().replace("debug/echo-v0", "gone/echo-v0"))
    shutil.rmtree(copy("run-nocheckpoint") / "checkpoints")

    def only(name: str) -> Path:
        """The newest checkpoint alone, so that there is none before it."""
        for place in (copy(name) / "checkpoints").iterdir():
            if place.name != Path(newest).name:
                shutil.rmtree(place)
        return root / name / newest

    shutil.rmtree(only("run-noagent") / "agents" / "agent_1")
    cut(only("run-cut") / "agents" / "agent_0" / "model.safetensors")
    cut(only("run-learner") / "learner.safetensors")
    torch.save({"evil": print}, only("run-evil") / "learner.safetensors")
    (only("run-progress") / "progress.json").write_text('{"joint_samples": ')
    (only("run-nolearner") / "learner.safetensors").unlink()
    place = only("run-tampered") / "agents" / "agent_0" / "model.safetensors"
    raw = bytearray(place.read_bytes())
    raw[-1] ^= 1
    place.write_bytes(raw)
    (copy("run-metrics") / "metrics.jsonl").write_text('{"kind": "upd\n{"kind": "eval"}\n')
    (copy("run-nometrics") / "metrics.jsonl").unlink()
    (copy("run-evaluations") / "evaluations.json").write_text("[{")
    (copy("run-samples") / "samples.jsonl").write_text("nonsense\n{}\n")
    (copy("run-oddsamples") / "samples.jsonl").write_text('{"a": 1}\n')
    (copy("run-nosamples") / "samples.jsonl").unlink()


def _results(root: Path) -> None:
    number = {"score": [0.5], "success": [0.5], "return": [1.0], "episodes": [2.0]}
    steps = {"step_0": {"step_count": 0, "elapsed_time": 0.0, **number}, "absolute_metrics": number}
    good = {"echo": {"dense": {"mc": {"seed_0": steps}}}}
    cases = {
        "good": good,
        "other": {"elsewhere": good["echo"]},
        "list": [1],
        "empty": {},
        "flat": {"echo": 3},
        "seed": {"echo": {"dense": {"mc": {"first": steps}}}},
        "noend": {"echo": {"dense": {"mc": {"seed_0": {"step_0": steps["step_0"]}}}}},
        "step": {"echo": {"dense": {"mc": {"seed_0": {**steps, "step_0": 3}}}}},
        "text": {"echo": {"dense": {"mc": {"seed_0": {**steps, "absolute_metrics": {"score": ["a"]}}}}}},
        "nobody": {"echo": {"dense": {"mc": {"seed_0": {**steps, "absolute_metrics": {"score": []}}}}}},
    }
    for name, content in cases.items():
        (root / f"results-{name}.json").write_text(json.dumps(content))
    (root / "results-half.json").write_text('{"echo": {')
    (root / "results-mute.json").write_bytes(b"\xff\xfe\x00\x01")
    endless = {
        "echo": {"dense": {"mc": {"seed_0": {**steps, "absolute_metrics": {"score": [float("nan")]}}}}}
    }
    (root / "results-nan.json").write_text(json.dumps(endless))
    for name, about in {
        "about": "{",
        "aboutlist": "[]",
        "aboutruns": '{"runs": [3]}',
        "aboutkeys": '{"runs": [{"environment": "echo"}]}',
        "aboutpoints": '{"runs": [{"environment": "echo", "task": "dense", "algorithm": "mc", "seed": 1, '
        '"points": [{"x": 1}]}]}',
    }.items():
        (root / f"results-{name}.json").write_text(json.dumps(good))
        (root / f"results-{name}-about.json").write_text(about)


def _suites(root: Path) -> None:
    body = '[algorithms.mc]\n[[environments]]\nenv = "debug/echo-v0"\n[budget]\njoint_samples = 8\n'
    files = {
        "suite-good": body,
        "suite-half": "[algorithms",
        "suite-bare": "seeds = 2\n",
        "suite-algorithm": body.replace("[algorithms.mc]", "[algorithms.mcc]"),
        "suite-env": body.replace("echo", "ecko"),
        "suite-key": "sedes = 3\n" + body,
        "suite-budget": body.replace("joint_samples = 8", "joint_samples = 0"),
        "suite-budgets": body + "tokens = 9\n",
        "suite-seeds": "seeds = [1, 1]\n" + body,
        "suite-settings": 'settings = ["run.seed=3"]\n' + body,
        "suite-unknown": 'settings = ["lr_=3"]\n' + body,
        "suite-reward": body.replace('v0"\n', 'v0"\nreward = "dens"\n'),
        "suite-list": "algorithms = [1]\n",
        "search-bare": "trials = 2\n",
        "search-suite": 'suite = "no-such"\n',
        "search-key": 'suite = "smoke"\ntrails = 2\n',
    }
    for name, content in files.items():
        (root / f"{name}.toml").write_text(content, encoding="utf-8")
