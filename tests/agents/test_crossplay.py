"""Cross-play on real runs of a few updates, and on two that hold opposite conventions."""

import json
import re
import shutil
import time

import numpy as np
import pytest
import torch
from builders import folder

from collm_agents import checkpoint
from collm_agents.chat import History
from collm_agents.cli import main
from collm_agents.crossplay import comparisons, crossplay, lineups, read_runs, short_names
from collm_agents.crossplay_commands import Progress, read_words
from collm_agents.experiment import Experiment
from collm_agents.integrity import seal
from collm_agents.overrides import load_config
from collm_envs.errors import InputError, SettingError

SMALL = (
    "rollout.samples=2",
    "rollout.buffer=8",
    "joint_samples=8",
    "eval.every=1000",
    "eval.tasks=2",
    "eval.final_tasks=6",
    "track.samples=6",
    "track.tensorboard=false",
    "track.live=false",
    "run.threads=1",
    "run.device=cpu",
    "learner.lr=0.005",
)
LORA = ("tuning=lora", "team.lora.rank=4", "team.sampling.max_new_tokens=6", "learner.lr=0.05")


def run(place, *words, env="debug/echo-v0"):
    """A run of one update."""
    words = (*SMALL, "algorithm=mc", *words, f"out={place}")
    return Experiment(load_config(env, overrides=words)).run().run_dir


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Three runs of two algorithms."""
    root = tmp_path_factory.mktemp("runs")
    return [
        run(root / "mc-s0", "seed=0"),
        run(root / "mc-s1", "seed=1"),
        run(root / "dc-s0", "algorithm=collm-dc"),
    ]


def copy_of(place, tmp_path):
    return shutil.copytree(place, tmp_path / "copy")


def said(sample):
    """What each agent said in a conversation, turn by turn."""
    return re.findall(r"^@(\w+) turn (\d+) says:\n(.*?)\n(?=@|\Z)", sample["text"], re.M | re.S)


# -- numbers and plans by hand -----------------------------------------------------------------------------


def test_two_roles_fill_the_matrix_with_one_team_each():
    found = lineups(2, 3)
    assert len(found) == 9
    assert all(lineup.entry == lineup.runs for lineup in found)


def test_more_roles_swap_one_after_the_other():
    found = {}
    for lineup in lineups(3, 2):
        found.setdefault(lineup.entry, []).append(lineup.runs)
    assert found == {
        (0, 0): [(0, 0, 0)],
        (0, 1): [(0, 1, 1), (1, 0, 1), (1, 1, 0)],
        (1, 0): [(1, 0, 0), (0, 1, 0), (0, 0, 1)],
        (1, 1): [(1, 1, 1)],
    }


def test_comparisons_by_hand():
    cells = np.zeros((3, 3, 2))
    cells[0, 0], cells[1, 1], cells[2, 2] = (1.0, 1.0), (0.5, 1.0), (0.0, 0.2)
    cells[0, 1], cells[1, 0], cells[2, 0] = (0.2, 0.4), (0.0, 0.2), (0.1, 0.3)
    found = {group.pop("pairs"): group for group in comparisons(cells, ["mc", "mc", "dc"])}
    assert {name: group["entries"] for name, group in found.items()} == {
        "all": 6,
        "within mc": 2,
        "across algorithms": 4,
    }
    means = {
        name: [group[key]["mean"] for key in ("self_play", "cross_play", "difference")]
        for name, group in found.items()
    }
    assert means["all"] == pytest.approx([3.7 / 6, 1.2 / 12, 3.7 / 6 - 1.2 / 12])
    assert means["within mc"] == pytest.approx([3.5 / 4, 0.2, 3.5 / 4 - 0.2])
    # Both partners' self-play, half each: run 2 is in every pair.
    assert means["across algorithms"] == pytest.approx([(1.0 + 0.75 + 2 * 0.1) / 4, 0.05, 0.4375])
    assert found["all"]["difference"]["n"] == 2


def test_differences_are_taken_task_by_task():
    rng = np.random.default_rng(0)
    level = rng.normal(size=200)  # tasks differ far more than teams do
    cells = np.stack([[level, level - 0.1], [level - 0.1, level]])
    (found, _) = comparisons(cells, ["mc", "mc"])
    assert found["difference"]["high"] - found["difference"]["low"] < 1e-9
    assert found["difference"]["mean"] == pytest.approx(0.1)
    assert found["self_play"]["high"] - found["self_play"]["low"] > 0.1


def test_several_algorithms_with_seeds_are_also_told_together():
    found = comparisons(np.zeros((4, 4, 2)), ["mc", "dc", "mc", "dc"], "success")
    assert [(group["pairs"], group["entries"]) for group in found] == [
        ("all", 12),
        ("within mc", 2),
        ("within dc", 2),
        ("within an algorithm", 4),
        ("across algorithms", 8),
    ]


def test_runs_are_named_by_as_little_of_their_path_as_tells_them_apart(tmp_path):
    assert short_names([tmp_path / "a", tmp_path / "b"]) == ["a", "b"]
    assert short_names([tmp_path / "x" / "run", tmp_path / "y" / "run"]) == ["x/run", "y/run"]
    with pytest.raises(InputError, match="named twice"):
        short_names([tmp_path / "a", tmp_path / "b" / ".." / "a"])


# -- real runs ---------------------------------------------------------------------------------------------


def test_the_diagonal_is_what_eval_reports(trained):
    found = crossplay(trained, overrides=["eval.samples=2"])
    own = {tuple(team["entry"]): team for team in found["teams"]}
    assert len(own) == len(found["teams"]) == 9
    for i, place in enumerate(trained):
        report = Experiment.evaluate(place, overrides=["eval.samples=2"])
        assert own[i, i]["metrics"] == report["metrics"]
        assert own[i, i]["samples"] == report["samples"]
        for metric in ("score", "success"):
            assert found["matrix"][metric][i][i] == report["metrics"][metric]
    assert [run["algorithm"] for run in found["runs"]] == ["mc", "mc", "collm-dc"]
    assert [run["seed"] for run in found["runs"]] == [0, 1, 0]
    assert {len(team["per_task"]["score"]) for team in found["teams"]} == {len(found["tasks"])} == {6}


@pytest.mark.parametrize("greedy", ["true", "false"])
def test_where_agents_need_not_agree_nothing_is_lost_among_strangers(trained, greedy):
    found = crossplay(trained, overrides=[f"eval.greedy={greedy}"])  # echo: each agent's share is its own
    for group in found["comparisons"]["score"]:
        for key in ("mean", "low", "high"):
            assert group["difference"][key] == pytest.approx(0.0, abs=1e-12)
    assert found["eval"]["greedy"] is (greedy == "true")


def test_an_agent_says_beside_strangers_what_it_says_at_home(trained):
    found = crossplay(trained[:2])
    spoken = {tuple(team["entry"]): list(map(said, team["samples"])) for team in found["teams"]}
    assert spoken[0, 0] != spoken[1, 1]
    for row, column in ((0, 1), (1, 0)):
        for mixed, first, second in zip(
            spoken[row, column], spoken[row, row], spoken[column, column], strict=True
        ):
            assert [one for one in mixed if one[0] == "agent_0"] == [o for o in first if o[0] == "agent_0"]
            assert [one for one in mixed if one[0] == "agent_1"] == [o for o in second if o[0] == "agent_1"]


@pytest.mark.parametrize(
    "words",
    [
        ("num_turns=2",),
        (*LORA, "num_turns=2"),
        ("team.shared=true", "num_agents=3"),
        ("num_agents=3", "team.agents.agent_2.script=novice"),
    ],
    ids=["full", "lora", "shared", "scripted"],
)
def test_with_a_copy_of_itself_a_run_plays_as_with_itself(tmp_path, words):
    if "tuning=lora" in words:
        words = (*words, f"team.model={folder('wordy-qwen3')}")
    place = run(tmp_path / "run", *words)
    found = crossplay([place, copy_of(place, tmp_path)])
    first = found["teams"][0]
    for team in found["teams"]:
        assert team["metrics"] == first["metrics"]
        assert team["samples"] == first["samples"]
    assert first["metrics"] == Experiment.evaluate(place)["metrics"]
    for groups in found["comparisons"].values():
        assert [group["difference"]["mean"] for group in groups] == [0.0, 0.0]
    assert len(found["teams"]) == (8 if "team.shared=true" in words else 4)
    assert found["scripted"] == ({"agent_2": "novice"} if "num_agents=3" in words[:1] else {})


def test_runs_that_share_weights_and_runs_that_do_not_play_together(trained, tmp_path):
    shared = run(tmp_path / "shared", "team.shared=true")
    found = crossplay([trained[0], shared])
    assert [team["agents"] for team in found["teams"]] == [
        {"agent_0": i, "agent_1": j} for i in (0, 1) for j in (0, 1)
    ]
    assert found["teams"][3]["metrics"] == Experiment.evaluate(shared)["metrics"]


def test_runs_on_other_bases_play_together(tmp_path):
    """Adapters of two sizes, another base, and full copies, at one table."""
    few = ("team.sampling.max_new_tokens=6", "eval.final_tasks=2", "eval.greedy=true")
    words = [
        (*LORA, f"team.model={folder('wordy-qwen3')}"),
        (*LORA, f"team.model={folder('wordy-qwen3')}", "team.lora.rank=2"),
        (*LORA, f"team.model={folder('llama')}", "seed=1"),
        ("model=builtin",),
    ]
    places = [run(tmp_path / str(i), *own, *few) for i, own in enumerate(words)]
    found = crossplay(places)
    for i, place in enumerate(places):
        own = next(team for team in found["teams"] if team["entry"] == [i, i])
        assert own["metrics"] == Experiment.evaluate(place)["metrics"]
    again = crossplay(places[::-1])
    for team in found["teams"]:
        entry = [3 - i for i in team["entry"]]
        twin = next(other for other in again["teams"] if other["entry"] == entry)
        assert twin["samples"] == team["samples"]


def teach(place, replies):
    """Overwrite a run's agents with ones that say one thing each, whatever they are shown."""
    made = Experiment(load_config(None, files=[place / "config.toml"]))
    team, saved = made.build_team(), checkpoint.pick(place)
    seen, _ = made.env.reset(seed=0, options={"task": 0})
    for agent, text in replies.items():
        form, model = team.formats[agent], team.backbones[agent]
        prompt = team.observe(agent, History(), seen[agent]).ids
        reply = (*form.encode(text), form.tokenizer.eos_token_id)
        optimizer = torch.optim.Adam(model.parameters(agent).values(), lr=3e-3)
        for _ in range(20):
            optimizer.zero_grad()
            (-team.logprobs(agent, [prompt], [reply])[0].sum()).backward()
            optimizer.step()
        model.save(agent, saved / "agents" / agent)
    seal(saved)


def test_opposite_conventions_succeed_at_home_and_fail_together(tmp_path):
    rows = tmp_path / "rows.jsonl"
    rows.write_text('{"letters": "AB"}\n')
    words = (f"env.source={rows}", "split=all", "eval.split=all", "eval.greedy=true", "joint_samples=2")
    one = run(tmp_path / "one", *words, env="debug/handshake-v0")
    other = copy_of(one, tmp_path)
    teach(one, {"agent_0": "A", "agent_1": "B"})
    teach(other, {"agent_0": "B", "agent_1": "A"})
    found = crossplay([one, other])
    for metric in ("score", "success"):
        means = [[cell["mean"] for cell in row] for row in found["matrix"][metric]]
        assert means == [[1.0, 0.0], [0.0, 1.0]]
        (group, _) = found["comparisons"][metric]
        assert [group[key]["mean"] for key in ("self_play", "cross_play", "difference")] == [1.0, 0.0, 1.0]
    assert [
        [text for _, _, text in said(sample)] for team in found["teams"] for sample in team["samples"]
    ] == [["A", "B"], ["A", "A"], ["B", "B"], ["B", "A"]]


# -- what is refused ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("env", "words", "message"),
    [
        ("debug/handshake-v0", (), "env.id is 'debug/echo-v0' in the one and 'debug/handshake-v0'"),
        (
            "debug/echo-v0",
            ("num_agents=3",),
            "agents is 'agent_0, agent_1' in the one and 'agent_0, agent_1,",
        ),
        ("debug/echo-v0", ("num_turns=2",), "env.num_turns is 1 in the one and 2 in the other"),
        ("debug/echo-v0", ("feedback=plain",), "env.feedback is 'score' in the one and 'plain'"),
        ("debug/echo-v0", ("temperature=0.5",), "team.sampling.temperature is 1.0 in the one and 0.5"),
        ("debug/echo-v0", ("template=none",), "team.template is 'auto' in the one and 'none'"),
        ("debug/echo-v0", ("eval.greedy=true",), "eval.greedy is False in the one and True in the other"),
        (
            "debug/echo-v0",
            ("team.agents.agent_1.script=oracle",),
            "team.agents.agent_1.script is '' in the one and 'oracle'",
        ),
    ],
)
def test_runs_that_cannot_be_compared_are_named(trained, tmp_path, env, words, message):
    other = run(tmp_path / "other", *words, env=env)
    with pytest.raises(InputError, match="mc-s0 and other cannot play together") as caught:
        read_runs([trained[0], other])
    assert message in str(caught.value)


def test_an_override_settles_a_difference(trained, tmp_path):
    # Another training split and a default that is written out are no differences.
    other = run(tmp_path / "other", "temperature=0.5", "split=train[:64]", "feedback=score")
    with pytest.raises(InputError, match=r"team.sampling.temperature=VALUE settles it"):
        read_runs([trained[0], other])
    players = read_runs([trained[0], other], ["team.sampling.temperature=0.7"])
    assert {player.experiment.config.team.sampling.temperature for player in players} == {0.7}


def test_one_run_and_one_model_have_nobody_to_play_with(trained, tmp_path):
    with pytest.raises(InputError, match="at least two runs"):
        read_runs(trained[:1])
    alone = run(tmp_path / "alone", "team.agents.agent_1.script=novice")
    with pytest.raises(InputError, match=r"alone has one agent that is a model \(agent_0\)"):
        read_runs([alone, copy_of(alone, tmp_path)])


def test_missing_weights_and_checkpoints_are_named(trained, tmp_path):
    broken = copy_of(trained[0], tmp_path)
    with pytest.raises(InputError, match="has no checkpoint at 7 joint samples"):
        read_runs([trained[0], broken], checkpoint_at=7)
    shutil.rmtree(checkpoint.pick(broken) / "agents" / "agent_1")
    with pytest.raises(InputError, match=r"is damaged: agents/agent_1/.* is missing"):
        crossplay([trained[0], broken])


# -- the command -------------------------------------------------------------------------------------------


def test_the_command_prints_tables_and_writes_everything(trained, tmp_path, capsys):
    out = tmp_path / "found.json"
    words = ["crossplay", *map(str, trained), "tasks=3"]
    assert main([*words, "--out", str(out)]) == 0
    printed = capsys.readouterr().out
    assert "1  mc-s0" in printed
    assert "agent_0 is of the row's run, agent_1 of the column's" in printed
    for wanted in ("score with 95 %", "success with 95 %", "self-play", "cross-play", "within mc", "across"):
        assert wanted in printed
    written = json.loads(out.read_text("utf-8"))
    assert str(tmp_path.parent) not in out.read_text("utf-8")
    assert len(written["tasks"]) == 3
    assert len(written["teams"]) == 9
    assert {"score", "success", "reply_tokens", "parts/echoed"} <= set(written["teams"][1]["metrics"])
    assert main([*words, "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == written


def test_words_are_runs_settings_or_wrong(trained, tmp_path):
    named = shutil.copytree(trained[0], tmp_path / "lr=1")
    assert read_words([str(named), "tasks=3", "eval.greedy=true", "team.template=none"]) == (
        [str(named)],
        ["eval.final_tasks=3", "eval.greedy=true", "team.template=none"],
    )
    with pytest.raises(SettingError, match=r"'gredy=true' sets nothing .*did you mean 'greedy'"):
        read_words(["gredy=true"])
    with pytest.raises(SettingError, match=r"'team.model=builtin' sets nothing"):
        read_words(["team.model=builtin"])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["absent"], "no run in absent"),
        (["{run}", "{run}"], "is named twice"),
        (["{run}"], "at least two runs"),
        (["{run}", "{run}", "--out", "absent/found.json"], "its folder does not exist"),
        (["{run}", "{run}", "--out", "."], "--out .: is a folder"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_two(trained, words, message, capsys):
    assert main(["crossplay", *(word.format(run=trained[0]) for word in words)]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    assert message in err


def test_progress_is_told_of_what_takes_a_while_and_not_of_what_is_over(capsys):
    progress = Progress(quiet_s=0.2)
    progress("short")
    progress("long")
    told, until = "", time.monotonic() + 30
    while not told.endswith("\n") and time.monotonic() < until:
        time.sleep(0.05)
        told += capsys.readouterr().err
    assert told.endswith(" s  long\n")
    assert "short" not in told
    time.sleep(0.3)
    progress("next")  # the last line is old enough
    assert capsys.readouterr().err.endswith(" s  next\n")
    progress("over")
    progress.stop()
    time.sleep(0.3)
    assert capsys.readouterr().err == ""
