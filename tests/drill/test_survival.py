"""A run that is killed, stopped or cut off by a full disk goes on as if nothing had been, or says what it keeps."""

import errno
import json
import os
import random
import resource
import shutil

import kills
import pytest
import torch
from kills import PHASES, Job
from run_files import rows, saved

from collm_agents import checkpoint
from collm_agents.callbacks import Callback
from collm_agents.checkpoint import CheckpointWriteError
from collm_agents.cli import main
from collm_agents.experiment import Experiment
from collm_agents.overrides import load_config

ALGORITHMS = ("mc", "collm-cc", "collm-dc")
SHORT = (
    *("joint_samples=24", "rollout.buffer=8", "rollout.samples=4", "learner.minibatches=2", "run.threads=1"),
    *("eval.every=16", "eval.tasks=3", "eval.final_tasks=3", "checkpoint.every=8"),
    *("track.tensorboard=false", "track.live=false"),
)
TIMES = ("wall_s", "trained_s", "phases_s", "overlapped_s", "peak_memory")


def words(algorithm, out):
    return ("train", "debug/handshake-v0", "num_turns=2", f"algorithm={algorithm}", f"out={out}", *SHORT)


def single(out):
    """Words of a run of one turn, so that all its updates are of 8 joint samples."""
    return ("train", "debug/echo-v0", "algorithm=mc", f"out={out}", *SHORT)


def lines(file):
    return [json.loads(line) for line in file.read_text("utf-8").splitlines()]


def assert_same(one, two):
    """Metrics, every reply that was kept, the last evaluation, and every weight and moment, bit for bit."""
    assert rows(one) == rows(two)
    for name in ("samples.jsonl", "episodes.jsonl"):
        assert lines(one / name) == lines(two / name)
    first, second = (json.loads((place / "result.json").read_text("utf-8")) for place in (one, two))
    for key in first.keys() - set(TIMES):
        assert first[key] == second[key], key
    weights, others = saved(one), saved(two)
    assert weights.keys() == others.keys()
    assert [name for name in weights if not torch.equal(weights[name], others[name])] == []


# -- kills -------------------------------------------------------------------------------------------------

# Algorithm, phase, event: in the second update, between two checkpoints, while one is written, in an evaluation.
QUICK = [("mc", "sampling", 12), ("collm-cc", "update", 14), ("collm-dc", "checkpoint", 170)]


@pytest.fixture(scope="module")
def killed(tmp_path_factory):
    """Uninterrupted runs; runs that are killed and go on; two that are stopped by other signals and go on."""
    root = tmp_path_factory.mktemp("kills")
    jobs = [Job(words(algorithm, f"{algorithm}-whole")) for algorithm in ALGORITHMS]
    for algorithm, phase, at in QUICK:
        own = words(algorithm, f"{algorithm}-killed")
        jobs += [Job(own, phase, at), Job(own, go_on=f"{algorithm}-killed")]
    for name, phase, at in (("SIGTERM", "update", 5), ("SIGINT", "checkpoint", 80)):
        own = words("mc", name)
        jobs += [Job(own, phase, at, name), Job(own, go_on=name)]
    return root, kills.run(jobs, root)


def test_every_phase_of_a_run_is_counted(killed):
    _, ended = killed
    for one in ended[:3]:
        assert one.code == 0, one.err
        assert all(one.counts[phase] > 5 for phase in PHASES), one.counts


@pytest.mark.parametrize("number", range(len(QUICK)))
def test_a_killed_run_goes_on_to_what_the_uninterrupted_one_is(killed, number):
    root, ended = killed
    algorithm, _, _ = QUICK[number]
    dead, resumed = ended[3 + 2 * number : 5 + 2 * number]
    assert (dead.code, resumed.code, resumed.anew) == (-9, 0, False), resumed.err
    assert_same(root / f"{algorithm}-whole", root / f"{algorithm}-killed")


@pytest.mark.parametrize(("name", "code", "place"), [("SIGTERM", 143, 9), ("SIGINT", 130, 11)])
def test_other_signals_end_a_run_with_one_line_and_it_goes_on(killed, name, code, place):
    root, ended = killed
    stopped, resumed = ended[place : place + 2]
    assert stopped.code == code
    told = [line for line in stopped.err.splitlines() if line.startswith("collm")]
    assert len(told) == 1
    assert told[0].startswith(f"collm: error: stopped by {name}; {name} keeps its checkpoint at ")
    assert told[0].endswith(f"to go on: collm train --resume {name}")
    assert "Traceback" not in stopped.err
    assert (resumed.code, resumed.anew) == (0, False), resumed.err
    assert_same(root / "mc-whole", root / name)


@pytest.mark.drill
def test_thirty_random_kills(tmp_path):
    """Ten of each algorithm, five in each phase, every third run killed twice; the moments are printed."""
    whole = kills.run([Job(words(algorithm, f"{algorithm}-whole")) for algorithm in ALGORITHMS], tmp_path)
    counts = {algorithm: one.counts for algorithm, one in zip(ALGORITHMS, whole, strict=True)}
    draw, jobs, plan = random.Random(20260), [], []
    for number in range(30):
        algorithm, phase = ALGORITHMS[number % 3], PHASES[number // 5]
        own, place = words(algorithm, f"run{number}"), f"run{number}"
        moments = [draw.randint(1, counts[algorithm][phase])]
        jobs.append(Job(own, phase, moments[0]))
        if number % 3 == number // 10:
            moments.append(draw.randint(1, counts[algorithm][phase] // 2))
            jobs.append(Job(own, phase, moments[1], go_on=place))
        jobs.append(Job(own, go_on=place))
        plan.append((algorithm, phase, moments, place, len(jobs)))
    ended, start = kills.run(jobs, tmp_path, timeout_s=1800), 0
    for algorithm, phase, moments, place, end in plan:
        own, start = ended[start:end], end
        codes = [one.code for one in own]
        moment = f"{algorithm} {phase} {moments} of {counts[algorithm][phase]}"
        print(f"{place} {moment}: {codes} anew {own[-1].anew}")  # noqa: T201
        assert codes[0] == -9
        assert codes[-1] == 0, own[-1].err
        assert_same(tmp_path / f"{algorithm}-whole", tmp_path / place)


# -- checkpoints -------------------------------------------------------------------------------------------


def begun(out, callbacks=()):
    _, env, *overrides = single(out)
    return Experiment(load_config(env, overrides=overrides)).run(callbacks)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    out = tmp_path_factory.mktemp("whole") / "run"
    begun(out)
    return out


def cut(file):
    file.write_bytes(file.read_bytes()[:-100])


def flip(file):
    raw = bytearray(file.read_bytes())
    raw[-1] ^= 1
    file.write_bytes(raw)


@pytest.mark.parametrize(
    ("name", "damage"),
    [
        ("agents/agent_0/model.safetensors", cut),
        ("agents/agent_1/model.safetensors", flip),
        ("learner.safetensors", cut),
        ("learner.safetensors", flip),
        ("progress.json", flip),
        ("agents/agent_1/config.json", os.unlink),
        ("sha256.json", cut),
    ],
)
def test_a_damaged_checkpoint_is_named_and_the_one_before_it_is_gone_on_from(
    tmp_path, whole, name, damage, capsys
):
    run = shutil.copytree(whole, tmp_path / "run")
    newest = checkpoint.pick(run)
    damage(newest / name)
    (run / "result.json").unlink()
    assert main(["train", "--resume", str(run)]) == 0
    assert_same(whole, run)
    assert (newest.with_name(f"damaged-{newest.name}")).is_dir()
    assert checkpoint.pick(run) == newest  # written anew


def test_the_log_says_which_file_is_damaged_and_where_it_goes_on(tmp_path, whole, caplog):
    run = shutil.copytree(whole, tmp_path / "run")
    flip(checkpoint.pick(run) / "learner.safetensors")
    checkpoint.newest_whole(run)
    (record,) = caplog.records
    assert (
        "000000024 is damaged: learner.safetensors is not what was written (SHA-256)" in record.getMessage()
    )
    assert record.getMessage().endswith("the run goes on from 000000016")


def test_nothing_that_was_evaluated_is_read_from_a_damaged_checkpoint(tmp_path, whole, capsys):
    run = shutil.copytree(whole, tmp_path / "run")
    flip(checkpoint.pick(run) / "agents/agent_0/model.safetensors")
    assert main(["eval", str(run), "tasks=2"]) == 2
    assert "agents/agent_0/model.safetensors is not what was written" in capsys.readouterr().err
    assert main(["eval", str(run), "tasks=2", "--checkpoint", "16"]) == 0


def test_a_kill_between_two_names_of_a_checkpoint_leaves_one(tmp_path, whole, monkeypatch):
    run = shutil.copytree(whole, tmp_path / "run")
    newest = checkpoint.pick(run)
    newest.rename(newest.with_name(f".replaced-{newest.name}"))
    assert checkpoint.newest_whole(run) == newest


def test_what_killed_runs_left_half_written_is_cleared_away(tmp_path, whole):
    run = shutil.copytree(whole, tmp_path / "run")
    shutil.copytree(checkpoint.pick(run), run / "checkpoints" / ".writing-000000020")
    Experiment.resume(run, ["joint_samples=32"])
    assert not list((run / "checkpoints").glob(".*"))


# -- disks -------------------------------------------------------------------------------------------------


class Fill(Callback):
    """From a number of joint samples on, files may not grow beyond 100 kB, as on a disk that is nearly full."""

    def __init__(self, at):
        self.at = at

    def on_step(self, run, metrics):
        if run.progress.joint_samples >= self.at:
            resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))


@pytest.fixture
def room():
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    yield lambda: resource.setrlimit(resource.RLIMIT_FSIZE, before)
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_checkpoint_that_does_not_fit_leaves_the_one_before_and_no_rest(tmp_path, whole, room):
    with pytest.raises(CheckpointWriteError, match=r"checkpoints/000000016 could not be written: "):
        begun(tmp_path / "run", callbacks=[Fill(16)])
    room()
    assert sorted(path.name for path in (tmp_path / "run" / "checkpoints").iterdir()) == [
        "000000000",
        "000000008",
    ]
    Experiment.resume(tmp_path / "run")
    assert_same(whole, tmp_path / "run")


def test_a_full_disk_is_one_line_that_says_how_to_go_on(tmp_path, whole, monkeypatch, capsys):
    """Metrics that go to /dev/full: the kernel's own "no space left"."""
    monkeypatch.chdir(tmp_path)

    def fill(self, metrics, joint_samples):
        if joint_samples == 16:
            (self.run_dir / "metrics.jsonl").rename(self.run_dir / "kept.jsonl")
            (self.run_dir / "metrics.jsonl").symlink_to("/dev/full")
        return update(self, metrics, joint_samples)

    from collm_agents.tracking import Tracker

    update = Tracker.update
    monkeypatch.setattr(Tracker, "update", fill)
    assert main(list(single("run"))) == 1
    last = capsys.readouterr().err.splitlines()[-1]
    assert (
        "No space left on device; run keeps its checkpoint at 8; to go on: collm train --resume run" in last
    )
    monkeypatch.undo()
    os.replace(tmp_path / "run" / "kept.jsonl", tmp_path / "run" / "metrics.jsonl")
    assert main(["train", "--resume", str(tmp_path / "run")]) == 0
    assert_same(whole, tmp_path / "run")


@pytest.mark.parametrize("number", [errno.EROFS, errno.EACCES])
def test_a_folder_that_cannot_be_written_is_told_and_nothing_is_changed(
    tmp_path, whole, number, monkeypatch, capsys
):
    run = shutil.copytree(whole, tmp_path / "run")
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    real = os.replace

    def refuse(source, target, *more):
        if str(target).startswith(str(run)):
            raise OSError(number, os.strerror(number), str(target))
        return real(source, target, *more)

    monkeypatch.setattr(os, "replace", refuse)
    assert main(["train", "--resume", str(run), "joint_samples=32"]) == 1
    assert f"{os.strerror(number)}; training had not begun" in capsys.readouterr().err
    assert all(path.read_bytes() == content for path, content in before.items())


def test_a_place_where_no_folder_can_be_made_is_bad_input(capsys):
    assert main(list(single("/proc/run"))) == 2
    err = capsys.readouterr().err
    assert err.startswith("collm: error: run.out='/proc/run': ")
    assert err.count("\n") == 1
