"""An exported agent behind `transformers serve`, in a process of its own: its reply is that of the team."""

import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest
import torch
from builders import folder

from collm_agents import checkpoint
from collm_agents.chat import History
from collm_agents.experiment import Experiment
from collm_agents.export_agents import export_agents
from collm_agents.overrides import load_config
from collm_agents.team import Request

pytestmark = pytest.mark.system
pytest.importorskip("fastapi")
pytest.importorskip("uvicorn")
torch.set_num_threads(1)
START_S = 300


def free_port():
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


def ask(port, path, body=None):
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}{path}", data, {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=60) as answer:
        return json.load(answer)


@pytest.fixture
def served(tmp_path):
    """A trained agent's folder, its run, and the port that it is served on."""
    run_dir = tmp_path / "run"
    words = [
        f"model={folder('qwen3')}",
        "tuning=lora",
        "algorithm=mc",
        f"run.out={run_dir}",
        "joint_samples=16",
    ]
    words += [
        "rollout.samples=2",
        "rollout.buffer=8",
        "team.lora.rank=4",
        "max_new_tokens=12",
        "run.threads=1",
    ]
    words += ["eval.tasks=2", "eval.final_tasks=2", "track.tensorboard=false", "learner.lr=0.01"]
    Experiment(load_config("paying_env:Paying", overrides=words)).run()
    place = export_agents(run_dir, tmp_path / "out", merge=True)[0]
    port, log = free_port(), tmp_path / "serve.log"
    tool = Path(sys.executable).with_name("transformers")
    words = [str(tool), "serve", str(place), "--host", "127.0.0.1", "--port", str(port), "--device", "cpu"]
    settings = {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "HF_HOME": str(tmp_path / "hf")}
    with log.open("w") as out:
        process = subprocess.Popen(words, stdout=out, stderr=subprocess.STDOUT, env=settings)
    try:
        until = time.monotonic() + START_S
        while True:
            try:
                assert ask(port, "/health") == {"status": "ok"}
                break
            except (urllib.error.URLError, ConnectionError):
                assert process.poll() is None, log.read_text()
                assert time.monotonic() < until, log.read_text()
                time.sleep(0.5)
        yield place, run_dir, port
    finally:
        process.terminate()
        process.wait(30)


def test_an_exported_agent_replies_behind_a_server_as_in_its_team(served):
    place, run_dir, port = served
    experiment = Experiment(load_config(None, files=[run_dir / "config.toml"]))
    team = experiment.build_team(stored=True)
    checkpoint.load_team(checkpoint.pick(run_dir), team)
    seen, _ = experiment.env.reset(seed=0)
    history = team.observe(place.name, History(), seen[place.name])
    (own,) = team.act([Request(place.name, history.ids, None)])  # the likeliest tokens
    messages = [{"role": "user", "content": seen[place.name]}]
    body = {"model": str(place), "messages": messages, "temperature": 0.0, "max_tokens": 12}
    answer = ask(port, "/v1/chat/completions", body)
    assert answer["choices"][0]["message"]["content"].strip() == own.text.strip()
    assert len(own.text.strip()) >= 5
    assert answer["usage"]["prompt_tokens"] == len(history.ids)
