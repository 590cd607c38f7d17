"""Function environments: rows, roles, prompts, feedback, and what never reaches an observation."""

from __future__ import annotations

import json
import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from collm_envs import DataError, EnvFault, SettingError, make, make_vec, play_scripted
from collm_envs.coding import judging, rules
from collm_envs.coding.functions import FunctionTeam
from collm_envs.sandbox import RunResult, TestResult
from collm_envs.task import Task

IDS = ("coding/humaneval-v0", "coding/coophumaneval-v0", "coding/mbpp-v0")
AUX = "def aux(x):\n    return x + 3"
MAIN = "def f(x):\n    return aux(x) * 2"
HUMANEVAL = {
    "task_id": "H/1",
    "prompt": "import math\n\ndef g(x):\n    return x\n\ndef f(x: int) -> int:\n    '''Double {x}.'''\n",
    "entry_point": "f",
    "test": "def check(c):\n    assert c(1) == 2\n    assert c(2) == 4\n    assert c(g(7)) == 14\n",
    "canonical_solution": "    y = x + x\n    return y * 1\n",
}
MBPP = {
    "task_id": 5,
    "text": "Write a function to double a number.",
    "code": "K = 2\r\ndef double_it(x, times=1):\r\n    return x * K",
    "test_list": ["assert double_it(1) == 2", "assert double_it(4) == 8"],
    "test_setup_code": "",
    "challenge_test_list": ["assert double_it(-3) == -6"],
}
OWN = {
    "task_id": "o/1",
    "prompt": "def f(x):\n    '''Add.'''\n",
    "entry_point": "f",
    "tests": ["assert f(1) == 8", "assert f(2) == 10"],
}


def saved(tmp_path, *rows) -> str:
    path = tmp_path / "rows.jsonl"
    path.write_text("\n".join(json.dumps(row) for row in rows))
    return str(path)


def changed(row, **fields):
    return {key: value for key, value in {**row, **fields}.items() if value is not ...}


# -- rows --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("id", IDS)
@pytest.mark.parametrize(
    "row",
    [HUMANEVAL, MBPP, {**changed(MBPP, text=...), "prompt": "Double."}],
    ids=["he", "mbpp", "sanitized"],
)
def test_every_layout_plays_everywhere(id, row, tmp_path):
    env = make(id, source=saved(tmp_path, row), split="all")
    assert play_scripted(env, "oracle", env.tasks)[0]["score"] == pytest.approx(4)


def test_a_humaneval_row(tmp_path):
    env = make(IDS[0], source=saved(tmp_path, HUMANEVAL), split="all")
    task = env.tasks[0]
    assert (task.id, task.public["entry_point"], task.public["parameters"]) == ("H/1", "f", ("x",))
    assert task.public["examples"] == ("assert f(1) == 2",)
    assert "def g" in task.public["given"]
    assert "def f" not in task.public["given"]
    assert len(task.hidden["tests"]) == 2
    observations, _ = env.reset(options={"task": task})
    assert all("Double {x}." in text for text in observations.values())
    *_, infos = env.step({"aux_0": "def aux(x): return x", "main_1": "def f(x): return aux(x) * 2"})
    assert infos["aux_0"]["score"] == pytest.approx(4)  # the problem's own helper serves the tests


def test_an_mbpp_row(tmp_path):
    tasks = {
        n: make(IDS[2], source=saved(tmp_path, MBPP), split="all", visible_tests=n).tasks[0]
        for n in (0, 1, 9)
    }
    prompt = tasks[1].public["prompt"]
    assert "double a number" in prompt
    assert "def double_it(x, times=1):" in prompt
    assert prompt.count("assert") == 1
    assert "assert" not in tasks[0].public["prompt"]
    assert len(tasks[9].public["visible"]) == 2  # one is kept back
    assert tasks[9].hidden["tests"] == ("assert double_it(-3) == -6",)
    assert tasks[0].id == "5"


def test_a_prompt_of_plain_text(tmp_path):
    prompt = "import math\nfrom typing import List\nPlease write f, it's easy:\nimport is a word."
    row = changed(
        HUMANEVAL, prompt=prompt, canonical_solution=..., test=HUMANEVAL["test"].replace("g(7)", "7")
    )
    env = make(IDS[1], source=saved(tmp_path, row), split="all")
    assert env.tasks[0].public["given"] == "import math\nfrom typing import List"
    env.reset(options={"task": 0})
    *_, infos = env.step({"aux_0": "def aux(x): return x", "main_1": "def f(x: List): return aux(x) * 2"})
    assert infos["aux_0"]["score"] == pytest.approx(4)
    env.reset(options={"task": 0})
    *_, infos = env.step({a: env.scripted("novice", a, np.random.default_rng(0)) for a in env.agents})
    assert not infos["aux_0"]["success"]


BROKEN_ROWS = [
    (changed(HUMANEVAL, test="x = 1"), "field 'test': the test must define check"),
    (changed(HUMANEVAL, test="def check(c):\n  assert ("), "'test'"),
    (changed(HUMANEVAL, test="def check(candidate):\n    pass\n"), "'test'"),
    (changed(HUMANEVAL, entry_point="h"), "no function 'h'"),
    (changed(HUMANEVAL, entry_point="aux", prompt="def aux(x):\n    '''T.'''\n"), "helper's name"),
    (changed(HUMANEVAL, canonical_solution=3), "'canonical_solution'.*expected str"),
    (changed(MBPP, code="def f(:"), "'code'.*not Python"),
    (changed(MBPP, code="x = 1"), "calls no function"),
    (changed(MBPP, test_list=["assert 1 =="]), "'test_list'.*not Python"),
    (changed(MBPP, challenge_test_list="assert"), "'challenge_test_list'.*list of strings"),
    (changed(MBPP, test_setup_code="import ("), "'test_setup_code'.*not Python"),
    (changed(HUMANEVAL, test=...), "needs the fields"),
    (changed(OWN, tests=["assert f(1) == 1", 3]), "'tests'"),
    (changed(OWN, tests=["assert f(1) =="]), "field 'tests': assert 0 is no Python"),
    (changed(OWN, test_setup="import ("), "field 'test_setup': not Python"),
    (changed(MBPP, challenge_test_list=["assert ("]), "field 'challenge_test_list': not Python"),
]


@pytest.mark.parametrize(("row", "message"), BROKEN_ROWS, ids=range(len(BROKEN_ROWS)))
def test_a_broken_row_is_one_line_that_names_it(row, message, tmp_path):
    source = saved(tmp_path, row)
    with pytest.raises(DataError, match=message) as caught:
        make(IDS[0], source=source, split="all").reset(options={"task": 0})
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith(f"{source}, row 1")


@pytest.mark.parametrize("id", [*IDS, "coding/compose-mini-v0", "coding/classeval-v0"])
def test_an_unknown_tier_is_told_before_anything_is_loaded(id):
    with pytest.raises(SettingError, match=r"sandbox='ful' is not offered by .*full"):
        make(id, sandbox="ful")
    assert make(id, sandbox="no-userns").sandbox == "no-userns"


def test_no_reference_no_oracle(tmp_path):
    env = make(IDS[1], source=saved(tmp_path, changed(HUMANEVAL, canonical_solution=...)), split="all")
    env.reset()
    with pytest.raises(SettingError, match="no reference"):
        env.scripted("oracle", "aux_0", np.random.default_rng(0))


@pytest.mark.parametrize("value", [-1, 1.5, True, "all"])
def test_visible_tests_is_a_count(value):
    with pytest.raises(SettingError, match="visible_tests"):
        make(IDS[0], visible_tests=value)


def test_builtin_problems_by_split():
    tasks = {split: make(IDS[0], split=split).tasks for split in ("train", "test")}
    ids = [task.id for split in tasks.values() for task in split]
    assert len(set(ids)) == len(ids) >= 60
    assert all(task.hidden["tests"] for split in tasks.values() for task in split)


# -- roles and prompts -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("id", IDS)
@pytest.mark.parametrize(
    ("count", "roles"),
    [(1, ["coder_0"]), (2, ["aux_0", "main_1"]), (3, ["aux_0", "main_1", "aux_2"])],
)
def test_roles(id, count, roles):
    env = make(id, num_agents=count)
    assert env.possible_agents == roles
    assert env.num_turns == 2
    observations, _ = env.reset(seed=0)
    problem = env.task.public["prompt"].rstrip()
    entry = env.task.public["entry_point"]
    for agent, text in observations.items():
        assert text.startswith(problem)
        assert "{" not in text[len(problem) :]
        for name in env.functions_of(agent, entry):
            assert f"`{name}`" in text


# -- feedback ----------------------------------------------------------------------------------------------------

TASK = Task(
    "t",
    {
        "prompt": "def f(x):\n    '''Add three, then double.'''",
        "entry_point": "f",
        "parameters": ["x"],
        "given": "",
        "visible": ["assert f(1) == 8"],
        "examples": ["assert f(1) == 8"],
    },
    {"tests": ["assert f(2) == 10", "assert f(-3) == 0"], "setup": "", "names": {}},
)


def second(aux: str, main: str, **settings) -> dict[str, list[str]]:
    """Lines of what each agent sees at the second turn."""
    env = make(IDS[0], **settings)
    env.reset(seed=0, options={"task": TASK})
    observations, *_ = env.step({"aux_0": aux, "main_1": main})
    return {agent: text.split("\n") for agent, text in observations.items()}


def test_level_feedback_names_what_failed():
    told = second("It is:\ndef aux(x):\n    return (x", "def f(x):\n    print(x)")
    assert told["aux_0"][0].startswith("Your function `aux` does not parse: line 3, column 12: ")
    assert told["aux_0"][1:] == [
        "A partner's function `f` is missing or returns nothing.",
        "Tests passed: 0 of 3.",
        "Write your part again.",
    ]
    assert told["main_1"][:2] == [
        "Your function `f` returns nothing.",
        "A partner's function `aux` does not parse.",
    ]
    told = second("nothing", "def f(x):\n    return aux(x) * 2")
    assert told["aux_0"][0] == "Your reply defines no function `aux`."
    assert told["main_1"][1] == "A partner's function `aux` is missing or returns nothing."


def test_level_feedback_shows_public_tests_alone():
    told = second(AUX, "def f(x):\n    return aux(x) * 2 - (x == 1)")
    assert "Tests passed: 2 of 3." in told["aux_0"]
    assert "Failed: assert f(1) == 8" in told["aux_0"]
    assert not [line for line in told["aux_0"] if "f(2)" in line or "f(-3)" in line]
    told = second(AUX, "def f(x):\n    return aux(x) * 2 if x == 1 else 0")  # a hidden one fails
    assert told["aux_0"] == [
        "Your function `aux` was found.",
        "A partner's function `f` was found.",
        "Tests passed: 2 of 3.",
        "Write your part again.",
    ]


@pytest.mark.parametrize(
    ("main", "line"),
    [
        ("def f(x):\n    return x", "`f` does not call `aux`."),
        ("def f(x):\n    aux(x)\n    return x", "`f` calls `aux` and drops its result."),
        ("def f(x):\n    return aux(x)", "`f` only hands its arguments on; it must do work of its own."),
        (
            "def aux(x): return 1\ndef f(x):\n    return aux(x) + 1",
            "Your own `aux` was left out: a partner writes it.",
        ),
    ],
)
def test_main_is_told_how_it_uses_the_helper(main, line):
    told = second(AUX, main)
    assert line in told["main_1"]
    assert line not in told["aux_0"]


def test_an_error_while_loading_is_told():
    assert (
        "The program failed before the first test: ModuleNotFoundError: No module named 'nothing_here'"
        in second("import nothing_here\n" + AUX, MAIN.replace("2", "3"))["main_1"]
    )


def test_errors_are_short_and_on_one_line():
    told = second(AUX, "def f(x):\n    raise ValueError('a\\nb' * 500)")["aux_0"]
    shown = told[told.index("Failed: assert f(1) == 8") + 1]
    assert len(shown) <= 170
    assert told[-1] == "Write your part again."
    assert len(told) == 6


def test_coarser_feedback():
    wrong = "def f(x):\n    return aux(x) * 3"
    assert second(AUX, wrong, feedback="plain")["aux_0"] == ["Write your part again."]
    assert second(AUX, wrong, feedback="passed")["main_1"] == [
        "Not all tests passed.",
        "Write your part again.",
    ]
    assert second(AUX, wrong, feedback="level_passed")["main_1"] == [
        "Helper functions defined: yes.",
        "Main function defined: yes.",
        "Program parses: yes.",
        "All tests passed: no.",
        "Helper used: yes.",
        "Main does work of its own: yes.",
        "Write your part again.",
    ]


# -- what is hidden stays hidden ---------------------------------------------------------------------------------

SECRET = Task(
    "s",
    {**TASK.public, "visible": ["assert f('open') == 'shown'"], "examples": ["assert f('open') == 'shown'"]},
    {
        "tests": [
            "assert f('zqxj one') == 'zqxj two'",
            "assert f(['zqxj three']) == {'zqxj four': 44444}",
        ],
        "setup": "kept = 'zqxj five'",
        "names": {},
    },
)
SPY = """
import gc, sys
seen = []
def aux(x):
    seen.append(x)
    frame, texts = sys._getframe(), []
    while frame:
        texts.append(repr(frame.f_locals))
        frame = frame.f_back
    texts += [repr(thing) for thing in gc.get_objects() if type(thing) in (list, dict, tuple, str)]
    backwards = [text[::-1] for text in texts]  # the word itself must not stand in this program
    found = [text[max(0, text.find('jxqz') - 20):][:80][::-1] for text in backwards if 'jxqz' in text]
    raise ValueError(repr((seen, found)))
"""
REPLIES = [
    ("def aux(x):\n    raise ValueError(x)", "def f(x):\n    return aux(x) + 1"),
    ("def aux(x):\n    return x", "def f(x):\n    return [aux(x)]"),
    (
        "seen = []\ndef aux(x):\n    seen.append(x)\n    return str(seen)",
        "def f(x):\n    return aux(x) + '!'",
    ),
    ("import gc\ndef aux(x):\n    return x\n@print\nclass A: pass\nassert 0", "def f(x):\n    return aux(x"),
    ("print('x')\ndef aux(x):\n    print(x)\n    exit(str(x))", "def f(x):\n    return aux(x)"),
    ("", ""),
]


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from(FunctionTeam.feedback_modes),
    st.integers(0, 3),
    st.sampled_from([1, 2, 4]),
    st.lists(st.sampled_from(REPLIES), min_size=2, max_size=2),
)
def test_no_observation_holds_hidden_text(mode, visible, count, plays):
    env = make(IDS[0], num_turns=3, feedback=mode, visible_tests=visible, num_agents=count)
    observations, _ = env.reset(seed=0, options={"task": SECRET})
    texts = [*observations.values()]
    for aux, main in plays:
        if env.agents:
            replies = {"aux_0": aux, "main_1": main, "coder_0": f"{aux}\n{main}"}
            observations, *_ = env.step(
                {agent: replies.get(agent, "def aux2(x): return x") for agent in env.agents}
            )
            texts += observations.values()
    assert not any("zqxj" in text or "44444" in text for text in texts)


def test_one_run_is_the_score_and_another_is_told(monkeypatch):
    runs = []

    def counted(program, tests, **limits):
        runs.append(len(tests.statements))
        return submit(program, tests, **limits)

    submit = judging.submit
    monkeypatch.setattr(judging, "submit", counted)
    for settings_, expected in (
        ({}, [3, 1, 3]),
        ({"feedback": "passed"}, [3, 3]),
        ({"num_turns": 1}, [3]),
    ):
        runs.clear()
        env = make(IDS[0], **settings_)
        env.reset(options={"task": TASK})
        while env.agents:
            env.step(dict.fromkeys(env.agents, AUX))
        assert runs == expected


SIX = Task(
    "six",
    {**TASK.public, "visible": [f"assert f({x}) == {x}" for x in range(4)]},
    {"tests": ["assert f(8) == 8", "assert f(9) == 9"], "setup": "", "names": {}},
)
HANGS = "def f(x):\n    while x < 4:\n        pass\n    return aux(x) + 0"
COUNTS = "calls = []\ndef f(x):\n    calls.append(x)\n    return aux(x) if len(calls) < 5 else -1"


@pytest.mark.parametrize("main", [HANGS, COUNTS])
def test_a_score_depends_on_the_replies_alone(main, monkeypatch):
    modes = ["level_feedback", "plain"]
    if main is HANGS:
        monkeypatch.setitem(rules.TIME_LIMIT_S, "paper", 0.3)
        del modes[1:]  # it takes its time
    scores = {}
    for mode in modes:
        env = make(IDS[0], feedback=mode)
        env.reset(options={"task": SIX})
        for turn in range(2):
            *_, infos = env.step({"aux_0": "def aux(x):\n    return x", "main_1": main})
            scores[mode, turn] = infos["aux_0"]["score"], infos["aux_0"]["metrics"]["pass_rate"]
    assert len(set(scores.values())) == 1
    assert scores["level_feedback", 1][1] == (0 if main is HANGS else pytest.approx(4 / 6))


def test_a_program_that_looks_around_learns_nothing():
    vec = make_vec(IDS[0], num_turns=3)
    vec.reset([SECRET] * 40, range(40))
    main = "def f(x):\n    return aux(x) + 1"
    steps = vec.step({row: {"aux_0": f"{SPY}\n# {row}", "main_1": main} for row in range(40)})
    texts = [text for step in steps.values() for text in step.observations.values()]
    vec.close()
    assert not any("zqxj" in text for text in texts)


def test_the_spy_would_be_seen_without_the_separate_run(monkeypatch):
    monkeypatch.setattr(FunctionTeam, "_tells_errors", False)
    env = make(IDS[0])
    env.reset(options={"task": SECRET})
    score = env.submit({"aux_0": SPY, "main_1": "def f(x):\n    return aux(x) + 1"}).result()
    assert "zqxj" in str(score.details["run"].result.tests)
    assert not score.details["public"].tests


# -- the way through the sandbox ---------------------------------------------------------------------------------


def test_many_rows_at_once():
    vec = make_vec(IDS[0], num_turns=1)
    tasks = [vec.template.tasks[i] for i in range(12)]
    vec.reset(tasks, range(12))
    rng = np.random.default_rng(0)
    kinds = ["oracle", "novice"] * 6
    steps = vec.step(
        {row: {a: vec.scripted(row, kinds[row], a, rng) for a in vec.agents} for row in range(12)}
    )
    assert [steps[row].info["score"] == pytest.approx(4) for row in range(12)] == [True, False] * 6
    vec.close()


def test_an_environment_holds_no_sandbox():
    env = make(IDS[0])
    env.reset(seed=0)
    env.step(dict.fromkeys(env.agents, "def aux(x): return x"))
    twin = pickle.loads(pickle.dumps(env))
    assert twin.state() == env.state()


def test_a_failing_sandbox_is_a_fault(monkeypatch):
    monkeypatch.setattr(judging, "submit", lambda *_, **__: failed(OSError("gone")))
    env = make(IDS[0])
    env.reset(seed=0)
    with pytest.raises(EnvFault, match="gone"):
        env.step(dict.fromkeys(env.agents, ""))
    assert not env.agents


def test_a_defect_of_the_assembler_is_a_fault(monkeypatch):
    class Box:
        def submit(self, *_, **__):
            return ready(RunResult((TestResult("a", "error"),), {"fault": "KeyError: 'x'"}))

    monkeypatch.setattr(judging, "shared", lambda **_: Box())
    env = make(IDS[0])
    env.reset(seed=0)
    with pytest.raises(EnvFault, match="assembling the program failed: KeyError"):
        env.step(dict.fromkeys(env.agents, ""))


def ready(value):
    future = judging.Future()
    future.set_result(value)
    return future


def failed(error):
    future = judging.Future()
    future.set_exception(error)
    return future


def test_then_passes_results_and_exceptions_on():
    assert judging.then(ready(3), lambda x: x + 1).result() == 4
    with pytest.raises(OSError, match="gone"):
        judging.then(failed(OSError("gone")), str).result()
    with pytest.raises(ZeroDivisionError):
        judging.then(ready(0), lambda x: 1 // x).result()
    late = judging.Future()
    chained = judging.then(late, str)
    assert not chained.done()
    late.set_result(7)
    assert chained.result() == "7"


def test_a_cancelled_future_is_left_alone():
    late, calls = judging.Future(), []
    chained = judging.then(late, calls.append)
    assert chained.cancel()
    late.set_result(1)
    assert chained.cancelled()
    assert not calls


def test_gather_keeps_the_order():
    first, other = judging.Future(), judging.Future()
    both = judging.gather([first, other])
    other.set_result("b")
    assert not both.done()
    first.set_result("a")
    assert both.result() == ["a", "b"]
    with pytest.raises(OSError, match="gone"):
        judging.gather([ready(1), failed(OSError("gone"))]).result()
