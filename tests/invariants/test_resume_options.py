"""Runs with all kinds of options, stopped in the middle and resumed with the same budget: bit for bit the same."""

import json
import shutil

import pytest
from test_resume import assert_same, rows, run

from collm_agents import checkpoint
from collm_agents.experiment import Experiment

OPTIONS = {
    "falling rates after a warm-up": (
        "collm-cc",
        ("learner.lr_schedule=cosine", "learner.lr_warmup=2", "learner.lr_end=0.1"),
    ),
    "normalised, clipped and refreshed values": (
        "collm-cc",
        ("learner.value_norm=true", "learner.value_clip=0.5", "learner.value_targets=refreshed"),
    ),
    "values of own replies on the agents' models": (
        "collm-dc",
        ("critic.share_backbone=true", "algorithm.critic=q", "learner.value_norm=true"),
    ),
    "a scripted teammate": ("collm-dc", ("team.agents.agent_0.script=random",)),
    "a frozen teammate": ("collm-cc", ("team.agents.agent_1.trainable=false",)),
    "crossed, held to base and entropy": (
        "mc",
        (
            "joint_mode=cross",
            "branching=paths",
            "learner.kl_coef=0.05",
            "learner.entropy_coef=0.01",
        ),
    ),
}


@pytest.mark.parametrize("name", OPTIONS)
def test_a_run_stopped_in_the_middle_goes_on_as_if_it_had_not(tmp_path, name):
    algorithm, more = OPTIONS[name]
    model = ("model=builtin", "tuning=auto") if "teammate" in name else ()
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    run(whole, algorithm, "full", 32, *model, *more, "checkpoint.keep=9", "eval.every=8")
    shutil.copytree(whole, parts)
    (parts / "result.json").unlink()
    for folder in checkpoint.found(parts):
        if int(folder.name) > 16:
            shutil.rmtree(folder)
    assert 0 < int(checkpoint.pick(parts).name) <= 16
    assert len(checkpoint.found(whole)) > len(checkpoint.found(parts))
    Experiment.resume(parts)
    assert_same(whole, parts)
    results = [json.loads((folder / "result.json").read_text("utf-8")) for folder in (whole, parts)]
    assert results[0]["end"] == results[1]["end"]


def test_the_rates_of_a_run_follow_their_course_over_its_budget(tmp_path):
    words = ("learner.lr_schedule=linear", "learner.lr_end=0.2", "learner.lr_warmup=1", "num_turns=1")
    run(tmp_path / "run", "mc", "shared lora", 32, *words)
    found = [row for row in rows(tmp_path / "run") if row["kind"] == "update"]
    assert [row["joint_samples"] for row in found] == [8, 16, 24, 32]
    # Shares of the budget spent before each update: 0, 1/4, 1/2, 3/4; the first one warms up.
    expected = [0.01 * f for f in (0.5, 0.2 + 0.8 * 0.75, 0.2 + 0.8 * 0.5, 0.2 + 0.8 * 0.25)]
    assert [row["lr"] for row in found] == pytest.approx(expected)
