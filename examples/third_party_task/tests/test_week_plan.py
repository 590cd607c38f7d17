"""Tests of the package: `python -m pytest tests` beside it, once it is installed."""

import doctest
import json

import pettingzoo
import pytest
import week_plan.task
from week_plan.jobs import rows_of, solve, to_task
from week_plan.merge import claims_of, merge
from week_plan.task import WeekPlan

import collm_envs
from collm_envs import DataError, check_env, make, play_scripted, probe_rewards

JOBS = {
    "paint": 0,
    "mend": 1,
    "cook": 2,
    "sew": 2,
    "wash": 4,
    "pack": 4,
}  # last days: Mon, Tue, Wed, Wed, Fri, Fri
FREE = ((0, 1), (1, 2), (2, 4))
ALL = ('{"paint": "Mon", "mend": "Tue"}', '{"cook": "Tue", "sew": "Wed"}', '{"wash": "Wed", "pack": "Fri"}')


def parts(*replies):
    """What three replies to the task above earn."""
    env = WeekPlan()
    task = collm_envs.Task("by hand", {"jobs": JOBS, "free": FREE})
    env.reset(seed=0, options={"task": task})
    *_, infos = env.step(dict(zip(env.possible_agents, replies, strict=True)))
    info = infos["planner_0"]
    assert info["score"] == pytest.approx(sum(info["reward_parts"].values()))
    return tuple(info["reward_parts"].values()), info["success"]


def test_the_installed_package_publishes_its_ids():
    assert "planning/week-v0" in [spec.id for spec in collm_envs.list_envs("planning/")]
    assert type(make("planning/week-v0")).__name__ == "WeekPlan"
    assert make("planning/week-sparse-v0").schedule.kind == "sparse"
    env = pettingzoo.make("parallel", "planning/week-v0", num_turns=3)
    assert (env.env_id, env.num_turns, len(env.possible_agents)) == ("planning/week-v0", 3, 3)


@pytest.mark.parametrize("id", ["planning/week-v0", "planning/week-sparse-v0"])
def test_the_contract_is_kept(id):
    check_env(id).raise_if_failed()


def test_the_example_in_the_docstring_runs():
    assert doctest.testmod(week_plan.task) == (0, 6)


@pytest.mark.parametrize(
    ("replies", "due", "success"),
    [
        (ALL, (1, 1, 2, 1), True),
        ((*ALL[:2], "{}"), (1, 0, 0, 0), False),  # a free rider: nobody's work is paid
        ((*ALL[:2], "I do the rest!"), (2 / 3, 0, 0, 0), False),
        ((ALL[0], ALL[1], '{"wash": "Wed"}'), (1, 0.5, 5 / 3, 1), False),  # half a share
        ((*ALL[:2], '{"wash": "Wed", "pack": "Fri", "fly": "Fri"}'), (1, 1, 2, 6 / 7), False),
        (
            ('{"paint": "Mon", "cook": "Tue"}', *ALL[1:]),
            (1, 0.5, 5 / 3, 5 / 6),
            False,
        ),  # cook: the lower number
        (("", "", ""), (0, 0, 0, 0), False),
        (("[" * 9000, "9" * 9000, '{"paint": 3}'), (0, 0, 0, 0), False),
    ],
)
def test_rewards_by_hand(replies, due, success):
    got, solved = parts(*replies)
    assert got == pytest.approx(due)
    assert solved is success


def test_claims_are_merged_by_day_then_agent_then_order():
    replies = (
        '{"sew": "Tue", "mend": "Tue"}',
        '{"sew": "Tue", "paint": "Tue", "pack": "Fri"}',
        '{"sew": "Wed"}',
    )
    merged = merge(JOBS, FREE, replies)
    assert merged.standing == (("sew", 0, 1),)
    assert merged.dropped == (
        (1, "paint", "late"),
        (1, "pack", "not a free day"),
        (0, "mend", "two on one day"),
        (1, "sew", "taken"),
        (2, "sew", "taken"),
    )


def test_only_a_json_object_of_texts_is_read():
    assert claims_of(' {"a": "Mon"}\n') == {"a": "Mon"}
    for text in ("", "{", '["a"]', '{"a": 1}', '{"a": ["Mon"]}', 'x {"a": "Mon"}', '"a"', "NaN"):
        assert claims_of(text) is None


def test_feedback_says_what_stands_what_is_open_and_what_was_dropped():
    env = WeekPlan()
    env.reset(seed=0, options={"task": collm_envs.Task("by hand", {"jobs": JOBS, "free": FREE})})
    seen, *_ = env.step(dict(zip(env.possible_agents, (ALL[0], '{"mend": "Tue"}', "no"), strict=True)))
    assert seen["planner_0"].startswith(
        "Plan: paint Mon by planner_0, mend Tue by planner_0. Open: cook, sew, "
    )
    assert "Yours dropped: mend (taken)." in seen["planner_1"]
    assert "not one JSON object" in seen["planner_2"]


def test_every_week_can_be_done_and_the_splits_share_none():
    weeks = {split: [json.dumps(row) for row in rows_of(split)] for split in ("train", "test")}
    assert [len(rows) for rows in weeks.values()] == [300, 60]
    assert not set(weeks["train"]) & set(weeks["test"])
    for row in (*rows_of("train"), *rows_of("test")):
        public, _ = to_task(row)
        assert len(solve(public["jobs"], public["free"])) == 6
    records = play_scripted(WeekPlan(split="test"), "oracle", list(WeekPlan(split="test").tasks))
    assert all(record["success"] and record["score"] == 5 for record in records)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"free_1": ["Mon", "Sun"]}, "'Sun' is no day"),
        ({"jobs": {"dig": "Mon"}}, "1 jobs, not 6"),
        ({"free_2": ["Mon"]}, "no plan does all of them"),
    ],
)
def test_a_row_that_cannot_be_used_names_file_row_and_field(change, said, tmp_path):
    rows = [{**rows_of("train")[0], **change}] * 2
    (tmp_path / "weeks.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    with pytest.raises(DataError, match=said) as error:
        list(WeekPlan(source=str(tmp_path / "weeks.jsonl")).tasks)
    assert "weeks.jsonl" in str(error.value)


def test_no_degenerate_agent_beats_the_novice():
    report = probe_rewards("planning/week-v0")
    assert not report.warnings, str(report)
