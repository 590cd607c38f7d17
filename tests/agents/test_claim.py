"""A run's folder belongs to one process: names are claimed, not looked up, and a lock keeps the second one out."""

import errno
import fcntl
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import pytest

from collm_agents.callbacks import Callback
from collm_agents.claim import claimed, held, held_run
from collm_agents.experiment import Experiment
from collm_agents.overrides import load_config
from collm_envs.errors import InputError, SettingError

TINY = (
    *("algorithm=mc", "joint_samples=8", "rollout.samples=2", "rollout.buffer=4", "run.threads=1"),
    *("eval.tasks=2", "eval.final_tasks=2", "eval.points=1", "track.tensorboard=false"),
)


def config(out="", *more):
    return load_config("debug/echo-v0", overrides=[*TINY, f"out={out}", *more])


def paths(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*"))


def test_runs_that_start_together_have_a_folder_each(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def claim(_):
        found = stack.enter_context(claimed(config(), "mc"))
        (found / "config.toml").touch()
        return found.name

    with ExitStack() as stack, ThreadPoolExecutor(8) as pool:
        names = list(pool.map(claim, range(8)))
    assert sorted(names) == ["debug-echo-v0-mc-s0", *(f"debug-echo-v0-mc-s0-{n}" for n in range(2, 9))]


@pytest.mark.parametrize("there", [False, True])
def test_a_second_run_for_the_same_folder_is_told_and_the_first_is_left_alone(tmp_path, there):
    out = tmp_path / "run"
    if there:
        out.mkdir()
    with claimed(config(out), "mc"):
        second = pytest.raises(
            InputError, match=f"run.out='{out}': another process trains there; name another"
        )
        with second, claimed(config(out), "mc"):
            pass
        assert paths(out) == []
        (out / "config.toml").touch()
    with pytest.raises(SettingError, match="not an empty folder"), claimed(config(out), "mc"):
        pass
    assert paths(out) == ["config.toml"]


def test_what_was_made_and_not_written_in_goes_again(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for out in ("", "deep/er/run"):
        with pytest.raises(ZeroDivisionError), claimed(config(out), "mc"):
            raise ZeroDivisionError
    assert paths(tmp_path) == []
    (tmp_path / "mine").mkdir()
    with pytest.raises(ZeroDivisionError), claimed(config("mine"), "mc"):
        raise ZeroDivisionError
    assert paths(tmp_path) == ["mine"]
    with claimed(config(), "mc") as folder:
        (folder / "config.toml").touch()
    assert paths(tmp_path) == [
        "mine",
        *("runs", "runs/debug-echo-v0-mc-s0", "runs/debug-echo-v0-mc-s0/config.toml"),
    ]


def test_a_file_in_the_way_is_told(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs").touch()
    with (
        pytest.raises(SettingError, match=r"cannot be made .*; name another folder"),
        claimed(config(), "mc"),
    ):
        pass


def test_a_lock_ends_with_its_process(tmp_path):
    code = """
import time
from pathlib import Path
from collm_agents.callbacks import Callback
from collm_agents.claim import held
with held(Path("."), ""):
    print("held", flush=True)
    time.sleep(60)
"""
    process = subprocess.Popen([sys.executable, "-c", code], cwd=tmp_path, stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "held\n"
    with (
        pytest.raises(InputError, match=f"{tmp_path}: another process trains there; wait"),
        held_run(tmp_path),
    ):
        pass
    process.kill()
    process.wait()
    process.stdout.close()
    with held_run(tmp_path):
        assert paths(tmp_path) == []


def test_a_folder_that_was_removed_and_made_again_meanwhile_is_another(tmp_path, monkeypatch):
    folder, real = tmp_path / "run", fcntl.flock
    folder.mkdir()
    before = []

    def flock(descriptor, how):
        if not before:  # its holder wrote nothing and ended between opening and locking
            before.append(folder.rename(tmp_path / "gone"))
            folder.mkdir()
        real(descriptor, how)

    monkeypatch.setattr(fcntl, "flock", flock)
    for by in ("", "file"):
        with held(folder, "taken", by), pytest.raises(InputError, match="taken"), held(folder, "taken", by):
            pass
    assert paths(folder) == ["file"]


def test_a_file_system_without_locks_is_told(tmp_path, monkeypatch, caplog):
    def flock(file, how):
        raise OSError(errno.ENOSYS, "Function not implemented")

    monkeypatch.setattr(fcntl, "flock", flock)
    with held(tmp_path, "taken"):
        pass
    assert "no locks (Function not implemented)" in caplog.text


class Intruder(Callback):
    """Starts the same run again, and goes on with it, while it trains."""

    def __init__(self):
        self.told = []

    def on_start(self, run):
        out = run.run_dir
        for start in (lambda: Experiment(config(out)).run(), lambda: Experiment.resume(out)):
            with pytest.raises(InputError) as caught:
                start()
            self.told.append(str(caught.value))


def test_runs_hold_their_folder_while_they_train(tmp_path, monkeypatch):
    out, intruder = tmp_path / "run", Intruder()
    monkeypatch.setattr("collm_agents.experiment.check_folder", lambda config: None)  # both looked at once
    Experiment(config(out)).run([intruder])
    Experiment.resume(out, ["joint_samples=12"], [intruder])
    assert [line.rpartition(": ")[2] for line in intruder.told] == [
        "another process trains there; name another folder",
        "another process trains there; wait until it ends, or stop it",
    ] * 2
