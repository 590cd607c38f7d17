"""Nothing that comes from outside is run, and no secret of this process leaves it."""

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

import collm_agents
import collm_envs

PACKAGES = [Path(package.__file__).parent for package in (collm_envs, collm_agents)]
ROOT = PACKAGES[0].parent
RUNS = {  # what runs or unpickles, and why it may
    "collm_envs/sandbox/candidate.py": {"exec", "compile"},  # inside the sandbox: the program that is judged
    "collm_envs/sandbox/judge.py": {"exec", "compile"},  # inside the sandbox: the task's own tests
    "collm_envs/sandbox/serve.py": {
        "pickle.loads"
    },  # inside the sandbox: what the judge beside it has pickled
    "collm_envs/coding/assemble.py": {"compile"},  # whether it is a program at all; it is not run
    "collm_envs/contract.py": {"pickle.loads"},  # a copy that it made itself, of an environment under test
    "collm_agents/distributed/wire.py": {"pickle.loads"},  # between the driver and workers that it started
    "collm_agents/distributed/worker.py": {"pickle.loads"},
    "collm_agents/distributed/parcels.py": {
        "pickle.loads"
    },  # between the driver and members' processes of its own
}
NEVER = {
    "eval",
    "exec",
    "compile",
    "pickle.load",
    "pickle.loads",
    "marshal.loads",
    "marshal.load",
    "yaml.load",
}
NEVER |= {
    "os.system",
    "os.popen",
    "torch.load",
    "shelve.open",
    "joblib.load",
    "dill.loads",
    "cloudpickle.loads",
}


def called():
    """(file, name of what is called, the call) all over the packages."""
    for package in PACKAGES:
        for file in sorted(package.rglob("*.py")):
            for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
                if isinstance(node, ast.Call):
                    yield str(file.relative_to(ROOT)), ast.unparse(node.func), node


def keywords(node):
    return {word.arg: ast.unparse(word.value) for word in node.keywords}


def test_nothing_is_run_or_unpickled_but_where_the_table_says_why():
    found = {(file, name) for file, name, node in called() if name in NEVER}
    allowed = {(file, name) for file, names in RUNS.items() for name in names}
    assert not found - allowed
    assert not allowed - found


def test_no_shell_and_no_code_of_a_model():
    for file, name, node in called():
        given = keywords(node)
        assert given.get("shell", "False") == "False", (file, node.lineno)
        assert given.get("trust_remote_code", "False") == "False", (file, node.lineno)
        if name.endswith(".from_pretrained") and name.startswith("AutoModel"):
            assert given.get("use_safetensors") == "True", (file, node.lineno)


SECRETS = {
    "HF_TOKEN": "hf_canary7Qx1",
    "WANDB_API_KEY": "canary7Qx2" * 4,
    "COLLM_API_KEY": "sk-canary7Qx3",
    "AWS_SECRET_ACCESS_KEY": "canary7Qx4",
    "MY_PASSWORD": "canary7Qx5",
}


@pytest.mark.system
def test_secrets_of_the_environment_reach_no_file_and_no_line(tmp_path):
    out = tmp_path / "run"
    settings = ["joint_samples=16", "rollout.buffer=8", "eval.tasks=4", "eval.final_tasks=4", f"out={out}"]
    words = ["train", "coding/compose-mini-v0", *settings]
    environment = {**os.environ, **SECRETS}
    told = ""
    for command in (
        words,
        ["eval", str(out)],
        ["view", str(out)],
        ["export", "agents", str(out), "--out", str(tmp_path / "agents")],
    ):
        done = subprocess.run(
            [sys.executable, "-m", "collm_agents.cli", *command],
            capture_output=True,
            text=True,
            env=environment,
            cwd=tmp_path,
            check=False,
        )
        assert done.returncode == 0, done.stderr[-2000:]
        told += done.stdout + done.stderr
    assert "canary7Qx" not in told
    files = [file for file in tmp_path.rglob("*") if file.is_file()]
    assert any(file.suffix == ".safetensors" for file in files)
    assert not [file for file in files if b"canary7Qx" in file.read_bytes()]
