"""Exported agents behind `transformers serve`, each in a process of its own: they reply as in their team."""

import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
import torch

from collm_agents import checkpoint
from collm_agents.chat import History
from collm_agents.cli import main
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


@contextmanager
def serving(place, port, home):
    """A server of an exported agent, once it is healthy."""
    log = home / f"{place.name}.log"
    tool = Path(sys.executable).with_name("transformers")
    words = [str(tool), "serve", str(place), "--host", "127.0.0.1", "--port", str(port), "--device", "cpu"]
    settings = {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "HF_HOME": str(home / "hf")}
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
        yield
    finally:
        process.terminate()
        process.wait(30)


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    """A run, its agents' folders, and the ports that these are served on."""
    home = tmp_path_factory.mktemp("served")
    run_dir = home / "run"
    words = [f"run.out={run_dir}", "algorithm=mc", "num_turns=2", "run.threads=1", "track.tensorboard=false"]
    words += [
        "joint_samples=16",
        "rollout.samples=2",
        "rollout.buffer=8",
        "eval.tasks=2",
        "eval.final_tasks=2",
    ]
    # Its words are whole: what a server reads back from a text is what was drawn.
    Experiment(load_config("writing/tldr-mini-v0", overrides=["model=builtin", *words])).run()
    places = export_agents(run_dir, home / "out", merge=True)
    ports = [free_port() for _ in places]
    with ExitStack() as stack:
        for place, port in zip(places, ports, strict=True):
            stack.enter_context(serving(place, port, home))
        yield run_dir, places, ports


def test_an_exported_agent_replies_behind_a_server_as_in_its_team(served):
    run_dir, (place, _), (port, _) = served
    experiment = Experiment(load_config(None, files=[run_dir / "config.toml"]))
    team = experiment.build_team(stored=True)
    checkpoint.load_team(checkpoint.pick(run_dir), team)
    seen, _ = experiment.env.reset(seed=0)
    history = team.observe(place.name, History(), seen[place.name])
    (own,) = team.act([Request(place.name, history.ids, None)])  # the likeliest tokens
    messages = [{"role": "user", "content": seen[place.name]}]
    body = {"model": str(place), "messages": messages, "temperature": 0.0}
    body["max_tokens"] = team.sampling.max_new_tokens
    answer = ask(port, "/v1/chat/completions", body)
    assert answer["choices"][0]["message"]["content"].strip() == own.text.strip()
    assert len(own.text.strip()) >= 5
    assert answer["usage"]["prompt_tokens"] == len(history.ids)


def test_a_team_of_two_servers_plays_as_in_this_process(served, capsys):
    run_dir, places, ports = served
    agents = ",".join(f"{p.name}=http://127.0.0.1:{port}/v1" for p, port in zip(places, ports, strict=True))
    assert main(["eval", str(run_dir), "tasks=6", "greedy=true", "--agents", agents, "--json"]) == 0
    apart = json.loads(capsys.readouterr().out)
    here = Experiment.evaluate(run_dir, overrides=["eval.final_tasks=6", "eval.greedy=true"])
    assert apart["samples"][0]["text"] == here["samples"][0]["text"]
    for name in ("score", "score_sum", "return", "turns", "success"):
        assert apart["metrics"][name] == here["metrics"][name], name
    assert apart["metrics"]["tries"]["mean"] == 1
    # Drawn: other draws than ours, since every server has its own.
    assert main(["eval", str(run_dir), "tasks=2", "--agents", agents, "--json"]) == 0
    drawn = json.loads(capsys.readouterr().out)
    assert drawn["samples"][0]["text"] != apart["samples"][0]["text"]


def test_a_server_that_dies_is_named(served, capsys):
    _, places, ports = served
    agents = (
        f"{places[0].name}=http://127.0.0.1:{ports[0]}/v1,{places[1].name}=http://127.0.0.1:{free_port()}/v1"
    )
    words = ["remote.retries=1", "remote.backoff_s=0.01", "remote.timeout_s=30"]
    assert main(["eval", "writing/tldr-mini-v0", "tasks=2", *words, "--agents", agents]) == 1
    err = capsys.readouterr().err
    assert f"agent {places[1].name} at http://127.0.0.1:" in err
    assert "no reply in 2 tries" in err
