import dataclasses
import tomllib

import pytest

from collm_agents.models import warmstart
from collm_agents.overrides import load_config
from collm_agents.records import AXES
from collm_agents.suite import WARMSTART_SIZES, parse_warmstart
from collm_agents.suite_file import (
    find_suite,
    list_suites,
    read_suite,
    suite_of_words,
    suite_table,
    with_words,
)
from collm_envs.errors import InputError

WHOLE = """
name = "two"
seeds = [3, 1]
settings = ["learner.lr=1e-3"]
[budget]
tokens = 100
[evaluation]
points = 2
tasks = 6
[algorithms.mc-tree]
algorithm = "mc"
settings = ["rollout.branching=tree"]
[algorithms.collm-cc]
[[environments]]
env = "games/strbuild-mini-v0"
reward = ["dense", "sparse"]
num_turns = [1, 2]
"""


def suite(text=WHOLE):
    return read_suite(tomllib.loads(text), "mine.toml", "mine")


def minimal(top="", env='env = "debug/echo-v0"', algorithm="[algorithms.mc]"):
    return (
        f"[budget]\njoint_samples = 8\n{algorithm}\n[[environments]]\n{env}\n"
        if not top
        else (f"{top}\n{algorithm}\n[[environments]]\n{env}\n")
    )


def runs(text):
    return suite(text).runs()


def places(text):
    return [(run.environment, run.task, run.algorithm, run.seed) for run in runs(text)]


# -- what a suite means -------------------------------------------------------------------------------------


def test_everything_is_crossed_seed_by_seed_in_the_order_given():
    found = places(WHOLE)
    assert len(found) == len(set(found)) == 2 * 2 * 2 * 2
    assert [seed for *_, seed in found] == [3] * 8 + [1] * 8
    assert {task for _, task, _, _ in found} == {"dense-h1", "dense-h2", "sparse-h1", "sparse-h2"}
    assert {algorithm for _, _, algorithm, _ in found} == {"mc-tree", "collm-cc"}


def test_a_run_says_all_its_settings():
    run = runs(WHOLE)[-1]
    assert run.settings[3:] == (
        "learner.lr=1e-3",
        "algorithm.name=collm-cc",
        "env.reward=sparse",
        "env.num_turns=2",
        "run.tokens=100",
        "eval.points=2",
        "eval.tasks=6",
        "eval.final_tasks=6",
        "eval.final_episodes=60",
        "run.seed=1",
    )
    assert "rollout.branching=tree" in runs(WHOLE)[0].settings
    assert run.key == "games-strbuild-mini-v0_sparse-h2_collm-cc_s1"


def test_what_the_suite_leaves_open_the_environment_its_settings_and_presets_say():
    assert places(minimal())[0][1] == "dense-h1"
    assert (
        places(minimal(env='env = "debug/echo-sparse-v0"\nsettings = ["num_turns=3"]'))[0][1] == "sparse-h3"
    )
    preset = 'env = "games/strbuild-v0"\npresets = { mc = "paper/strbuild-mc" }'
    (run, *_) = runs(minimal(env=preset))
    assert (run.task, run.preset) == ("dense-h4", "paper/strbuild-mc")
    assert not run.model


def test_forms_of_one_environment_are_told_apart_by_what_differs():
    two = (
        'env = "games/strbuild-mini-v0"\nsettings = ["world=kept"]\nnum_turns = 1\n'
        '[[environments]]\nenv = "games/strbuild-mini-v0"\nnum_turns = 1\n[[environments]]\nenv = "debug/echo-v0"'
    )
    assert [p[:2] for p in places(f"seeds = 1\n{minimal(env=two)}")] == [
        ("games/strbuild-mini-v0", "dense-h1-world=kept"),
        ("games/strbuild-mini-v0", "dense-h1"),
        ("debug/echo-v0", "dense-h1"),
    ]
    one = 'env = "games/strbuild-mini-v0"\nsettings = ["world=kept"]'
    assert places(minimal(env=one))[0][1] == "dense-h4"


def test_models_are_crossed_and_named_where_there_are_several():
    found = runs('seeds = 1\nmodels = ["builtin", "warmstart:7"]\n' + minimal())
    assert [(run.task, run.model) for run in found] == [
        ("dense-h1-builtin", "builtin"),
        ("dense-h1-warmstart:7", "warmstart:7"),
    ]
    assert found[1].key == "debug-echo-v0_dense-h1-warmstart-7_mc_s0"
    assert runs('models = "builtin"\n' + minimal())[0].task == "dense-h1"


def test_evaluating_both_ways_is_one_run_and_two_records():
    top = "[budget]\njoint_samples = 8\n[evaluation]\ngreedy = "
    both, greedy, sampled = (runs(minimal(f"{top}{v}"))[0] for v in ("[true, false]", "true", "false"))
    assert [both.task_of(g) for g in both.greedy] == ["dense-h1", "dense-h1-greedy"]
    assert "eval.greedy_too=true" in both.settings
    assert [greedy.task_of(g) for g in greedy.greedy] == ["dense-h1-greedy"]
    assert "eval.greedy=true" in greedy.settings
    assert not [word for word in sampled.settings if "greedy" in word]


def test_an_environment_may_have_a_budget_of_its_own():
    text = minimal(env='env = "debug/echo-v0"\nbudget = { wall_s = 2.5 }')
    assert "run.wall_s=2.5" in runs(text)[0].settings
    assert "run.joint_samples=8" in runs(minimal())[0].settings


# -- what is refused ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("colour = 1\n" + minimal(), "mine.toml: colour: there is no such key"),
        ("seed = 1\n" + minimal(), "did you mean 'seeds'"),
        ("seeds = 0\n" + minimal(), "seeds must be how many"),
        ("seeds = [1, 1]\n" + minimal(), "seeds must be how many"),
        ("seeds = [-1]\n" + minimal(), "seeds must be how many"),
        ('seeds = "5"\n' + minimal(), "mine.toml: seeds must be a whole number or a list"),
        ("seeds = true\n" + minimal(), "mine.toml: seeds must be a whole number or a list"),
        ('name = "a/b"\n' + minimal(), "name must be letters"),
        ("name = 3\n" + minimal(), "mine.toml: name must be text"),
        ("settings = 3\n" + minimal(), "mine.toml: settings must be a list or text"),
        ("settings = [3]\n" + minimal(), "mine.toml: settings: every entry must be text"),
        ('settings = ["lr"]\n' + minimal(), "'lr' is not key=value"),
        ('settings = ["lrr=1"]\n' + minimal(), "debug/echo-v0 with mc: unknown setting 'lrr'"),
        ('settings = ["seed=3"]\n' + minimal(), "seed is the suite's own"),
        ('settings = ["run.tokens=3"]\n' + minimal(), "run.tokens is the suite's own"),
        ('settings = ["eval.tasks=3"]\n' + minimal(), "eval.tasks is the suite's own"),
        ('settings = ["greedy=true"]\n' + minimal(), "greedy is the suite's own"),
        ('models = ["warmstart:x"]\n' + minimal(), "'warmstart:x' is not warmstart:SEED"),
        ('models = ["warmstart:1:huge"]\n' + minimal(), "SIZE being small|medium"),
        (minimal("[budget]"), "mine.toml: budget: give exactly one of joint_samples, tokens, wall_s"),
        (minimal("[budget]\ntokens = 3\nwall_s = 3"), "give exactly one of"),
        (minimal("[budget]\ntokens = 1.5"), "mine.toml: budget.tokens must be a whole number"),
        (minimal("[budget]\nwall_s = 0"), "mine.toml: budget.wall_s must be greater than 0"),
        (minimal("[budget]\ntokens = 3\nhours = 1"), "mine.toml: budget.hours: there is no such key"),
        (minimal("budget = 3"), "mine.toml: budget must be a table"),
        ("evaluation = {points = 0}\n" + minimal(), "mine.toml: evaluation.points must be at least 1"),
        ("evaluation = {tasks = 1.0}\n" + minimal(), "evaluation.tasks must be a whole number"),
        ("evaluation = {greedy = []}\n" + minimal(), "greedy must be false, true or"),
        ("evaluation = {greedy = [1]}\n" + minimal(), "greedy: every entry must be true or false"),
        ("evaluation = {task = 1}\n" + minimal(), "did you mean 'tasks'"),
        (minimal(algorithm="[algorithms.mcc]"), "algorithms.mcc.algorithm: unknown algorithm 'mcc'"),
        (minimal(algorithm="[algorithms.a]\nalgorithm = 3"), "algorithms.a.algorithm must be text"),
        (minimal(algorithm="[algorithms.mc]\nlr = 3"), "algorithms.mc.lr: there is no such key"),
        ("algorithms = 3\n" + minimal(algorithm=""), "algorithms must be a table"),
        (minimal(algorithm=""), "needs [algorithms.LABEL] and [[environments]]"),
        (minimal(env=""), "mine.toml: environments[0].env is missing"),
        (minimal(env='env = "debug/ech-v0"'), "environments[0].env: unknown environment"),
        (minimal(env='env = "debug/echo-v0"\nreward = "dens"'), "environments[0].reward: 'dens' is"),
        (minimal(env='env = "debug/echo-v0"\nnum_turns = [0]'), "environments[0].num_turns must be at least 1"),
        (minimal(env='env = "debug/echo-v0"\nturns = 1'), "environments[0].turns: there is no such key"),
        (minimal(env='env = "debug/echo-v0"\nsettings = ["world=kept"]'), "debug/echo-v0 with mc"),
        (minimal(env='env = "debug/echo-v0"\npresets = {mx = "a"}'), "presets.mx: no such algorithm"),
        (minimal(env='env = "debug/echo-v0"\npresets = {mc = "a"}'), "unknown preset 'a'"),
        (minimal(env='env = "debug/echo-v0"\n[[environments]]\nenv = "debug/echo-v0"'), "two runs of debug/echo"),
    ],
)  # fmt: skip
def test_what_cannot_be_used_is_one_clear_line(text, message):
    with pytest.raises(InputError) as caught:
        runs(text)
    assert message in str(caught.value)
    assert str(caught.value).startswith("mine.toml")


def test_a_name_is_a_packaged_suite_or_a_file(tmp_path):
    file = tmp_path / "own.toml"
    file.write_text(minimal(), "utf-8")
    assert find_suite(str(file)).name == "own"
    assert find_suite("smoke").name == "smoke"
    with pytest.raises(InputError, match="no suite 'smok'; did you mean 'smoke'"):
        find_suite("smok")
    file.write_text("a = ", "utf-8")
    with pytest.raises(InputError, match="cannot be read as TOML"):
        find_suite(str(file))


def test_a_warm_start_names_seed_and_size():
    assert parse_warmstart("warmstart:3") == (3, "small")
    assert parse_warmstart("warmstart:03:medium") == (3, "medium")
    for wrong in ("warmstart:", "warmstart:-1", "warmstart:1:", "warmstart:1:large", "warmstart:1:medium:2"):
        with pytest.raises(InputError, match="SIZE being"):
            parse_warmstart(wrong)
    assert tuple(warmstart.SIZES) == WARMSTART_SIZES


def test_a_larger_warm_start_is_in_no_estimate():
    found = runs('seeds = 1\nmodels = ["warmstart:7", "warmstart:7:medium"]\n' + minimal())
    whole = suite('seeds = 1\nmodels = ["warmstart:7", "warmstart:7:medium"]\n' + minimal())
    assert [whole.rated_s(run) is None for run in found] == [False, True]


@pytest.mark.parametrize("name", list_suites())
def test_packaged_suites_can_be_used(name):
    found = find_suite(name)
    assert found.name == name
    assert (
        len(found.runs())
        == {
            "smoke": 8,
            "mini": 480,
            "mini-core": 120,
            "mini-search": 18,
            "mini-ablations": 66,
            "mini-worlds": 27,
            "mini-warmstarts": 18,
            "medium": 18,
            "paper": 75,
        }[name]
    )


# -- the command line ---------------------------------------------------------------------------------------


def test_a_suite_of_words_is_one_of_a_file():
    direct = with_words(
        suite_of_words("mc,collm-cc", "debug/echo-v0"),
        ["joint_samples=8", "points=3", "tasks=5", "reward=dense,sparse", "num_turns=1,2", "learner.lr=0.1"],
        "2",
    )
    text = 'name = "command-line"\nseeds = 2\n[evaluation]\npoints = 3\ntasks = 5\n' + minimal(
        algorithm='[algorithms.mc]\nsettings = ["learner.lr=0.1"]\n'
        '[algorithms.collm-cc]\nsettings = ["learner.lr=0.1"]',
        env='env = "debug/echo-v0"\nreward = ["dense", "sparse"]\nnum_turns = [1, 2]',
    )
    assert dataclasses.replace(direct, source="mine.toml") == suite(text)


def test_an_algorithm_of_the_command_line_may_have_settings():
    label = "mc+rollout.samples=2+rollout.branching=[2,1]"
    found = with_words(suite_of_words(f"mc,{label}", "debug/echo-v0"), ["num_turns=2"], "7,").runs()
    assert [(run.algorithm, run.seed) for run in found] == [("mc", 7), (label, 7)]
    assert found[1].settings[-9:-7] == ("rollout.branching=[2,1]", "algorithm.name=mc")


def test_words_win_over_the_file():
    found = with_words(suite(), ["wall_s=3", "greedy=true,false", "num_turns=2"], "0,")
    assert (found.budget, found.greedy) == (("wall_s", 3.0), (False, True))
    assert (found.environments[0].num_turns, found.seeds) == ((2,), (0,))
    with_own = suite(minimal(env='env = "debug/echo-v0"\nbudget = { wall_s = 2.5 }'))
    assert "run.tokens=9" in with_words(with_own, ["tokens=9"]).runs()[0].settings


def settings_of_all(name, *words):
    """What the runs of a packaged suite are started with, with words behind it, as configs."""
    runs = with_words(find_suite(name), words).runs()
    return [load_config(run.environment, overrides=run.settings) for run in runs]


@pytest.mark.parametrize(
    ("name", "word", "section", "field", "value"),
    [
        ("mini-search", "learner.lr=7e-4", "learner", "lr", 7e-4),
        ("mini-search", "lr=7e-4", "learner", "lr", 7e-4),
        ("mini-ablations", "critic_warmup=3", "learner", "critic_warmup", 3),
        ("mini-warmstarts", "model=nope/none", "team", "model", "nope/none"),
        ("mini-warmstarts", "team.model=warmstart:4", "team", "model", "warmstart:4"),
        ("smoke", "run.threads=2", "run", "threads", 2),
        ("mini-worlds", "kv_budget=7", "team", "kv_budget", 7),
    ],
)
def test_words_reach_every_run_whatever_the_suite_says(name, word, section, field, value):
    assert {getattr(getattr(config, section), field) for config in settings_of_all(name, word)} == {value}


@pytest.mark.parametrize("word", ["num_turns=1", "env.num_turns=1", "env . num_turns=1"])
def test_what_is_crossed_is_said_by_any_of_its_names(word):
    runs = with_words(find_suite("mini-core"), [word, "env.reward=final,dense"], "1").runs()
    assert {run.task for run in runs} == {"final-h1", "dense-h1"}
    assert {config.env["num_turns"] for config in settings_of_all("mini-core", word)} == {1}
    own = suite(minimal(env='env = "debug/handshake-v0"\nsettings = ["num_turns=3", "reward=final"]'))
    (run, *_) = with_words(own, [word]).runs()
    assert run.task == "final-h1"
    assert [own for own in run.settings if "num_turns" in own] == ["env.num_turns=1"]


def test_models_of_the_command_line_are_crossed():
    found = with_words(
        suite('settings = ["model=builtin"]\n' + minimal()), ["model=builtin,warmstart:7"], "1"
    )
    assert [(run.task, run.model) for run in found.runs()] == [
        ("dense-h1-builtin", "builtin"),
        ("dense-h1-warmstart:7", "warmstart:7"),
    ]
    assert read_suite(suite_table(found), "again") == dataclasses.replace(found, source="again")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('settings = ["model=builtin"]\nmodels = ["warmstart:1"]\n' + minimal(),
         "mine.toml: model=builtin is lost beside models = ['warmstart:1'] of debug/echo-v0; say it once"),
        (minimal(env='env = "debug/echo-v0"\nnum_turns = 1\nsettings = ["num_turns=2"]'),
         "mine.toml: num_turns=2 is lost beside num_turns = [1] of debug/echo-v0; say it once"),
        (minimal(env='env = "debug/echo-v0"\nreward = "dense"',
                 algorithm='[algorithms.mc]\nsettings = ["env.reward=final"]'),
         "mine.toml: env.reward=final is lost beside reward = ['dense'] of debug/echo-v0; say it once"),
    ],
)  # fmt: skip
def test_a_setting_that_no_run_would_have_is_refused(text, message):
    with pytest.raises(InputError) as caught:
        suite(text)
    assert str(caught.value) == message


def test_words_do_not_undo_what_a_label_says():
    direct = suite_of_words("mc,mc+learner.lr=1e-3", "debug/echo-v0")
    message = r"command line: lr=2e-3 would undo what mc\+learner.lr=1e-3 says; say it once"
    with pytest.raises(InputError, match=message):
        with_words(direct, ["lr=2e-3"])
    assert len(with_words(direct, ["critic_lr=2e-3"], "1").runs()) == 2


@pytest.mark.parametrize(
    ("words", "seeds", "message"),
    [
        (["env={num_turns=1}"], "", "sets several; write env.key=value for each"),
        (["run={seed=3}"], "", "sets several; write run.key=value for each"),
        (["run . seed=1"], "", "is the suite's own"),
        (["model=warmstart:x"], "", "'warmstart:x' is not warmstart:SEED"),
        (["lr"], "", "'lr' is not key=value"),
        (["seed=1"], "", "seed is the suite's own"),
        (["tokens=1", "wall_s=1"], "", "give one budget"),
        (["tokens=x"], "", "tokens must be a whole number"),
        (["points=0"], "", "points must be at least 1"),
        (["greedy=maybe"], "", "must be true or false"),
        (["reward=dens"], "", "not a reward schedule"),
        (["num_turns=x"], "", "must be a whole number"),
        ([], "x", "seeds must be"),
    ],
)
def test_words_that_cannot_be_used_are_one_clear_line(words, seeds, message):
    with pytest.raises(InputError, match=message):
        with_words(suite(), words, seeds)


def test_axes_are_budgets():
    for axis in AXES:
        assert with_words(suite(), [f"{axis}=3"]).runs()[0].settings.count(f"run.{axis}=3") == 1
