"""Rows of environments: equal to single ones, in order, and unharmed by slow or failing judges."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from toy_envs import HandJudged, SlowSum, Sum

from collm_envs import EnvFault, SettingError, VecEnv


def started(env, count=3, seed=0):
    rows = VecEnv(env)
    tasks = [env.tasks[i % len(env.tasks)] for i in range(count)]
    return rows, rows.reset(tasks, [seed + i for i in range(count)])


def say(*replies):
    return {f"adder_{i}": reply for i, reply in enumerate(replies)}


def test_rows_equal_single_environments():
    rows, observations = started(Sum(num_turns=3), count=5)
    singles = [Sum(num_turns=3) for _ in range(5)]
    rng = np.random.default_rng(0)
    for i, env in enumerate(singles):
        assert env.reset(seed=i, options={"task": env.tasks[i]})[0] == observations[i]
    while any(env.agents for env in singles):
        live = [i for i, env in enumerate(singles) if env.agents]
        actions = {i: {a: singles[i].scripted("novice", a, rng) for a in rows.agents} for i in reversed(live)}
        steps = rows.step(actions)
        assert list(steps) == list(actions)  # the order of the request
        for i in live:
            seen, rewards, ended, cut, infos = singles[i].step(actions[i])
            step = steps[i]
            assert (step.row, step.observations, step.infos) == (i, seen, infos)
            assert step.reward == rewards["adder_0"]
            assert (step.terminated, step.truncated) == (ended["adder_0"], cut["adder_0"])
            assert step.info is step.infos["adder_0"]
        assert rows.states(live) == [singles[i].state() for i in live]
        assert rows.global_infos(live) == [singles[i].global_info() for i in live]
    assert rows.scripted(0, "oracle", "adder_0", rng) == singles[0].scripted("oracle", "adder_0", rng)


def test_what_is_ready_comes_in_row_order_whatever_was_sent_first():
    rows, _ = started(Sum(num_turns=2), count=4)
    for row in (2, 0, 3):
        rows.send(row, say("1", "1"))
    assert [step.row for step in rows.recv()] == [0, 2, 3]
    with pytest.raises(EnvFault, match="nothing sent"):
        rows.recv()


def test_an_early_judgement_is_not_held_up_by_a_late_one():
    env = HandJudged(num_turns=2)
    rows, _ = started(env, count=3)
    for row in range(3):
        rows.send(row, say(str(row), "1"))
    env.answer(2)
    assert [step.row for step in rows.recv()] == [2]
    rows.send(2, say("0", "0"))  # it goes on while the others wait
    env.answer(3)
    env.answer(0)
    assert [step.row for step in rows.recv()] == [0, 2]
    env.answer(1)
    (last,) = rows.recv()
    assert last.info["score"] == pytest.approx(1 + 2 * (1 - 4 / 10))  # 1 + 1 of 6


def test_recv_blocks_until_something_is_judged():
    env = HandJudged()
    rows, _ = started(env, count=2)
    rows.send(0, say("1", "1"))
    rows.send(1, say("1", "1"))
    threading.Timer(0.05, env.answer, [1]).start()
    late = threading.Timer(3, env.answer, [0])  # so that waiting for all fails rather than hangs
    late.start()
    begun = time.monotonic()
    assert [step.row for step in rows.recv()] == [1]
    assert 0.03 < time.monotonic() - begun < 3
    late.cancel()


class Sleepy(SlowSum):
    """The first reply says for how many hundredths of a second the judge sleeps."""

    @staticmethod
    def work(model, outcome):
        time.sleep(int(outcome.replies[0]) / 100)
        if outcome.replies[1] == "13":
            raise ZeroDivisionError("judge broke")
        return model(outcome)


def test_threads_with_varied_delays_give_the_results_of_plain_judging():
    with ThreadPoolExecutor(4) as Sleepy.pool:
        delays = (6, 0, 3, 1)
        replies = {row: say(str(delay), str(row)) for row, delay in enumerate(delays)}
        slow, _ = started(Sleepy(), count=4)
        plain, _ = started(Sum(), count=4)
        expected = plain.step(replies)
        assert slow.step(replies) == expected
        slow, _ = started(Sleepy(), count=4)
        for row, joint in replies.items():
            slow.send(row, joint)
        order = []
        while len(order) < 4:
            order += slow.recv()
        assert {step.row: step for step in order} == expected
        assert order[-1].row == 0


def test_a_failing_judge_names_row_context_and_costs_the_others_nothing():
    with ThreadPoolExecutor(4) as Sleepy.pool:
        env = Sleepy(num_turns=2)
        env.env_id = "toy/sleepy-v0"
        rows, _ = started(env, count=4)
        replies = {0: say("0", "1"), 1: say("1", "13"), 2: say("3", "1"), 3: say("0", "2")}
        expected = started(Sum(num_turns=2), count=4)[0].step({r: replies[r] for r in (0, 2, 3)})
        with pytest.raises(
            EnvFault, match=r"toy/sleepy-v0, task 'builtin:train#1', turn 0: judge\(\).*judge broke"
        ):
            rows.step(replies)
        got = {}
        while len(got) < 3:
            got.update((step.row, step) for step in rows.recv())
        assert got == expected
        with pytest.raises(EnvFault, match="call reset"):
            rows.send(1, say("1", "1"))


def test_a_fault_among_ready_rows_loses_no_step():
    env = HandJudged()
    rows, _ = started(env, count=3)
    for row in range(3):
        rows.send(row, say("1", "1"))
    env.answer(0)
    env.asked[1][0].set_exception(OSError("disk"))
    env.answer(2)
    with pytest.raises(EnvFault, match="disk"):
        rows.recv()
    with pytest.raises(EnvFault, match="row 0's last step was not received"):
        rows.send(0, say("1", "1"))
    assert [step.row for step in rows.recv()] == [0, 2]


def test_leftover_steps_and_faults_come_in_row_order():
    env = HandJudged()
    rows, _ = started(env, count=4)
    for row in (3, 2, 1, 0):  # judgement number n belongs to row 3 - n
        rows.send(row, say("1", "1"))
    env.answer(1)
    env.asked[0][0].set_exception(OSError("disk of row 3"))
    with pytest.raises(EnvFault, match="row 3"):
        rows.recv()  # row 2 was judged by then, and is kept
    env.answer(3)
    assert [step.row for step in rows.recv()] == [0, 2]
    rows, _ = started(env, count=2)
    for row in (1, 0):
        rows.send(row, say("1", "1"))
    for number in (4, 5):
        env.asked[number][0].set_exception(OSError(f"judgement {number}"))
    for number in (5, 4):
        with pytest.raises(EnvFault, match=f"judgement {number}"):
            rows.recv()


def test_step_leaves_alone_what_was_sent_before():
    env = HandJudged()
    rows, _ = started(env, count=2)
    rows.send(0, say("1", "1"))
    threading.Timer(0.02, lambda: (env.answer(0), env.answer(1))).start()
    assert list(rows.step({1: say("1", "1")})) == [1]
    assert [step.row for step in rows.recv()] == [0]


def test_cloned_rows_go_their_own_ways():
    rows, _ = started(Sum(num_turns=3), count=2)
    rows.step({0: say("1", "1"), 1: say("2", "2")})
    assert rows.clone([1, 1, 0]) == [2, 3, 4]
    assert len(rows) == 5
    assert rows.states([2, 3, 4]) == rows.states([1, 1, 0])
    steps = rows.step({1: say("0", "1"), 2: say("0", "1"), 3: say("3", "3"), 4: say("2", "3")})
    assert (steps[1].reward, steps[1].infos) == (steps[2].reward, steps[2].infos)
    assert steps[3].terminated  # 3 + 3 of 6
    assert not steps[2].terminated
    assert steps[4].terminated  # 2 + 3 of 5
    assert rows.global_infos([0])[0]["turn"] == 1


def test_wrong_rows_and_lengths_are_refused():
    rows, _ = started(Sum(), count=2)
    for row in (2, -1):
        with pytest.raises(SettingError, match=f"no row {row}: 2 rows"):
            rows.send(row, say("1", "1"))
        with pytest.raises(SettingError, match="no row"):
            rows.clone([0, row])
    assert len(rows) == 2
    with pytest.raises(SettingError, match="1 tasks but 2 seeds"):
        rows.reset([Sum().tasks[0]], [1, 2])


def test_reset_and_close_while_judging():
    env = HandJudged()
    rows, _ = started(env, count=1)
    rows.send(0, say("1", "1"))
    with pytest.raises(EnvFault, match="being judged"):
        rows.reset([env.tasks[0]], [0])
    rows.close()
    assert env.asked[0][0].cancelled()
    assert len(rows) == 0
