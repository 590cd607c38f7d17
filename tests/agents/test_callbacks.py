"""Callbacks by themselves, and in runs that they stop, that fail in them, and that go on."""

import json
from types import SimpleNamespace

import pytest
from builders import folder

from collm_agents import checkpoint
from collm_agents.callbacks import BestCheckpoint, Callback, Callbacks, EarlyStopping, RunState, monitored
from collm_agents.experiment import Experiment
from collm_agents.overrides import load_config
from collm_envs.errors import InputError, SettingError


def report(*scores, per_task=1):
    """An evaluation with these scores, some episodes for each task."""
    rows = [
        {"task_id": f"t{i // per_task}", "score": s, "success": s > 0.5, "return": -s}
        for i, s in enumerate(scores)
    ]
    return {"episodes": rows}


def state(tmp_path=None, at=0, tasks=1):
    return RunState(tmp_path, None, None, SimpleNamespace(joint_samples=at), tasks)


def shown(callback, scores, start=0):
    """How far a run comes that evaluates to these scores every 8 joint samples, and why it stops."""
    run = state()
    for number, score in enumerate(scores, start):
        run.progress.joint_samples = 8 * number
        callback.on_evaluate(run, report(score))
        if run.stopped:
            break
    return run.progress.joint_samples, run.stopped


@pytest.mark.parametrize(
    ("patience", "min_delta", "scores", "end"),
    [
        (2, 0.0, [0.1, 0.2, 0.2, 0.2, 0.9], 24),  # an equal one is no better
        (2, 0.0, [0.1, 0.2, 0.1, 0.3, 0.2, 0.1], 40),  # a better one starts the count anew
        (1, 0.0, [0.5, 0.4], 8),
        (2, 0.1, [0.1, 0.15, 0.19, 0.9], 16),  # creeping counts as standing
        (2, 0.1, [0.1, 0.21, 0.32, 0.43], None),
        (3, 0.0, [0.3, 0.2, 0.1], None),
    ],
)
def test_patience_by_hand(patience, min_delta, scores, end):
    at, reason = shown(EarlyStopping(patience, min_delta), scores)
    assert (at if reason else None) == end
    if end is not None:
        assert (
            reason
            == f"early stopping: no better score than {max(scores[: end // 8 + 1 - patience]):.3f} in "
            + (f"{patience} evaluations")
        )


def test_a_second_evaluation_at_one_place_is_not_counted():
    stopping, run = EarlyStopping(2), state()
    for _ in range(5):
        stopping.on_evaluate(run, report(0.5))
    assert not run.stopped


def test_what_is_remembered_is_enough_to_go_on():
    scores = [0.1, 0.4, 0.2, 0.1, 0.0]
    whole = shown(EarlyStopping(3), scores)
    for cut in range(1, 4):
        first, second = EarlyStopping(3), EarlyStopping(3)
        shown(first, scores[:cut])
        second.load_state_dict(json.loads(json.dumps(first.state_dict())))
        assert shown(second, scores[cut:], start=cut) == whole


def test_a_stopped_run_stays_stopped_unless_its_patience_grows():
    first = EarlyStopping(1)
    shown(first, [0.5, 0.4])
    for patience, stopped in ((1, True), (2, False)):
        again, run = EarlyStopping(patience), state()
        again.load_state_dict(first.state_dict())
        again.on_start(run)
        assert bool(run.stopped) == stopped


def test_evaluations_of_any_length_are_compared_over_the_same_tasks():
    assert monitored(report(0.2, 0.4, 1.0, 1.0), "score", 2) == pytest.approx(0.3)
    assert monitored(report(0.2, 0.4, 1.0, 1.0, per_task=2), "score", 1) == pytest.approx(0.3)
    assert monitored(report(0.2, 0.6), "success", 2) == 0.5
    assert monitored(report(0.2), "score", 2) is None  # too short to compare
    stopping, run = EarlyStopping(1), state(tasks=2)
    for at, found in ((0, report(0.5, 0.5, 1.0)), (8, report(0.1)), (16, report(0.5, 0.6))):
        run.progress.joint_samples = at
        stopping.on_evaluate(run, found)
    assert (stopping.best, run.stopped) == (pytest.approx(0.55), "")


def test_two_of_one_name_and_what_is_none_are_refused():
    with pytest.raises(SettingError, match="two are called 'EarlyStopping'"):
        Callbacks(state(), [EarlyStopping(1), EarlyStopping(2)])
    with pytest.raises(SettingError, match="no instance"):
        Callbacks(state(), [EarlyStopping])


def test_a_state_that_json_cannot_hold_is_told_of_whom():
    class Odd(Callback):
        def state_dict(self):
            return {"when": object()}

    with pytest.raises(SettingError, match="state of the callback Odd"):
        Callbacks(state(), [Odd()]).state_dict()


def test_a_state_that_nobody_takes_back_is_logged(caplog):
    hooks = Callbacks(state(), [])
    hooks.load_state_dict({"Gone": {"a": 1}, "EarlyStopping": EarlyStopping(1).state_dict()})
    assert [record.getMessage() for record in caplog.records] == [
        "the run had a callback Gone, which is not there now: what it knew is lost"
    ]


def test_another_metric_begins_anew(caplog):
    first, second = EarlyStopping(1), EarlyStopping(1, metric="success")
    shown(first, [0.5, 0.4])
    second.load_state_dict(first.state_dict())
    assert (second.best, second.waited) == (None, 0)
    assert caplog.messages == ["EarlyStopping compared score and begins anew with success"]


def test_a_patience_of_none_is_refused():
    with pytest.raises(SettingError, match="at least 1"):
        EarlyStopping(0)


# -- in runs -----------------------------------------------------------------------------------------------


class Diary(Callback):
    """Writes down what it is told, and remembers it over a resume."""

    def __init__(self):
        self.lines = []

    def _note(self, what, run):
        self.lines.append(f"{what} {run.progress.joint_samples}")

    def on_start(self, run):
        self._note("start", run)

    def on_step(self, run, metrics):
        assert metrics["joint_samples_in_update"] == 8
        self._note("step", run)

    def on_evaluate(self, run, report):
        assert len(report["episodes"]) == report["metrics"]["score"]["n"]
        self._note("evaluate", run)

    def on_checkpoint(self, run, folder):
        assert folder == checkpoint.pick(run.run_dir)
        self._note("checkpoint", run)

    def on_end(self, run):
        self._note("end", run)

    def state_dict(self):
        return {"lines": self.lines}

    def load_state_dict(self, state):
        self.lines = [*state["lines"], "resumed"]


def config(out, budget=32, *more):
    words = [f"model={folder('qwen3')}", "tuning=lora", "algorithm=mc", f"run.out={out}", "num_turns=1"]
    words += [f"run.joint_samples={budget}", "rollout.samples=2", "rollout.buffer=8", "team.lora.rank=2"]
    words += ["team.sampling.max_new_tokens=5", "eval.every=16", "eval.tasks=3", "eval.final_tasks=4"]
    words += ["track.tensorboard=false", "run.threads=1", "learner.lr=0.01", *more]
    return load_config("paying_env:Paying", overrides=words)


def test_every_hook_is_called_in_order_and_goes_on_with_a_resumed_run(tmp_path):
    first = Diary()
    Experiment(config(tmp_path / "run", 16)).run([first])
    assert first.lines == [
        "start 0", "evaluate 0", "checkpoint 0", "step 8", "step 16", "evaluate 16", "checkpoint 16", "end 16",
    ]  # fmt: skip
    second = Diary()
    Experiment.resume(tmp_path / "run", ["run.joint_samples=24"], [second])
    assert second.lines == [
        "start 0", "evaluate 0", "checkpoint 0", "step 8", "step 16", "evaluate 16", "resumed",
        "start 16", "step 24", "evaluate 24", "checkpoint 24", "end 24",
    ]  # fmt: skip


class StopAt(Callback):
    """Stops a run in one hook at one place."""

    def __init__(self, hook, at):
        self.at = at
        setattr(self, hook, self._stop)

    def _stop(self, run, *given):
        if run.progress.joint_samples == self.at:
            run.stop("enough")


@pytest.mark.parametrize(
    ("hook", "at"),
    [("on_start", 0), ("on_step", 8), ("on_evaluate", 16), ("on_checkpoint", 16), ("on_checkpoint", 0)],
)
def test_a_run_that_is_stopped_ends_as_any_other(tmp_path, hook, at):
    diary = Diary()
    result = Experiment(config(tmp_path / "run")).run([StopAt(hook, at), diary]).result
    assert (result["joint_samples"], result["stopped"]) == (at, "enough")
    assert result["end"]["metrics"]["score"]["n"] == 4  # the last evaluation is a last one
    kept = json.loads((tmp_path / "run" / "evaluations.json").read_text())
    assert (kept[-1]["joint_samples"], kept[-1]["edge"]) == (at, True)
    assert diary.lines[-2:] == [f"checkpoint {at}", f"end {at}"]
    assert int(checkpoint.pick(tmp_path / "run").name) == at
    # Resumed without that callback it goes on, and is not evaluated again where it was.
    again = Experiment.resume(tmp_path / "run").result
    assert (again["joint_samples"], again["stopped"]) == (32, "")
    rows = json.loads((tmp_path / "run" / "evaluations.json").read_text())
    assert [row["joint_samples"] for row in rows[: len(kept)]] == [row["joint_samples"] for row in kept]


def test_an_error_in_a_callback_says_where(tmp_path):
    class Broken(Callback):
        def on_step(self, run, metrics):
            raise ZeroDivisionError

    diary = Diary()
    with pytest.raises(ZeroDivisionError) as caught:
        Experiment(config(tmp_path / "run")).run([Broken(), diary])
    assert caught.value.__notes__ == ["in on_step of the callback Broken"]
    assert "end 8" not in diary.lines


def test_the_best_agents_are_kept_when_their_checkpoint_is_gone(tmp_path):
    out = tmp_path / "run"
    Experiment(config(out, 64, "checkpoint.best=true", "checkpoint.keep=1", "eval.every=8")).run()
    rows = json.loads((out / "evaluations.json").read_text())
    state = checkpoint.callback_states(checkpoint.pick(out))["BestCheckpoint"]
    best = checkpoint.pick(out, "best")
    assert checkpoint.samples_of(best) == state["at"]
    assert [p.name for p in checkpoint.found(out)] == ["000000064"]
    # What is kept plays as it did when it was best, and better than all else did.
    again = Experiment.evaluate(out, checkpoint_at="best", overrides=["eval.final_tasks=3"])
    assert again["metrics"]["score"]["mean"] == pytest.approx(state["best"])
    own = {row["joint_samples"]: row["metrics"]["score"]["mean"] for row in rows if not row["edge"]}
    assert state["best"] >= max(own.values())
    assert all(value < state["best"] for at, value in own.items() if at < state["at"])
    assert {p.name for p in best.iterdir()} == {"agents", "progress.json", "sha256.json"}


def test_the_best_is_kept_after_a_kill_between_checkpoint_and_keeping(tmp_path):
    out = tmp_path / "run"
    Experiment(config(out, 32, "checkpoint.best=true", "checkpoint.keep=9")).run()
    best = checkpoint.pick(out, "best")
    older = next(p for p in checkpoint.found(out) if checkpoint.samples_of(p) != checkpoint.samples_of(best))
    best.rename(best.with_name(f"best-{older.name}"))
    (best.parent / f".writing-{best.name}" / "agents").mkdir(parents=True)
    Experiment.resume(out)
    assert checkpoint.pick(out, "best") == best
    assert len(list(best.parent.glob("*best*"))) == 1


def test_without_a_best_the_error_says_how_to_get_one(tmp_path):
    with pytest.raises(InputError, match=r"checkpoint\.best=true"):
        checkpoint.pick(tmp_path, "best")


def test_the_best_waits_for_a_better_one():
    keeper = BestCheckpoint()
    shown(keeper, [0.2, 0.5, 0.5, 0.4])
    assert (keeper.best, keeper.at) == (0.5, 8)
