"""What every registered environment must keep, whoever wrote it. A new id is covered by being registered."""

import doctest
import importlib
import inspect
import json
import os
import pickle
import subprocess
import sys
import time
import warnings

import gymnasium
import gymnasium.utils.env_checker
import numpy as np
import pettingzoo
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pettingzoo.test import api_test, parallel_api_test

import collm_envs
from collm_envs import TextDict, check_env, list_envs, make

IDS = [spec.id for spec in list_envs()]
CLASSES = sorted({spec.env_class for spec in list_envs()}, key=lambda cls: cls.__name__)
ROOT = os.path.dirname(collm_envs.__path__[0])

pytestmark = pytest.mark.filterwarnings("error")


def several_turns(id):
    return make(id, num_turns=3)


def replies(env, rng):
    """Half noise, half the novice: episodes that neither fail nor end at once."""
    return {a: env.scripted(("random", "novice")[int(rng.integers(2))], a, rng) for a in env.agents}


def play(env, seed, rng=None):
    """Everything that can be seen of an episode, from its reset or from where it stands."""
    rng = rng or np.random.default_rng(seed)
    seen = [] if seed is None else [env.reset(seed=seed), env.state()]
    while env.agents:
        seen += [env.step(replies(env, rng)), env.state(), env.global_info(), list(env.agents)]
    return seen


def test_there_are_environments():
    assert {"debug/echo-v0", "debug/handshake-v0"} <= set(IDS)
    assert all(
        f"{name}-sparse-{v}" in IDS
        for name, _, v in (id.rpartition("-") for id in IDS)
        if "sparse" not in name
    )


@pytest.mark.parametrize("id", IDS)
def test_the_contract(id):
    begun = time.perf_counter()
    check_env(id).raise_if_failed()
    assert time.perf_counter() - begun < 20  # a small one takes a tenth of a second


@pytest.mark.parametrize("id", IDS)
def test_pettingzoos_own_test_without_a_warning(id, capsys):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for env in (make(id), several_turns(id)):
            parallel_api_test(env, num_cycles=6)


# PettingZoo says these of whatever is no array.
ADVICE = r"(Action|Observation) space for each agent probably should be|Observation is not a NumPy array"


@pytest.mark.parametrize("id", IDS)
def test_pettingzoos_own_test_of_the_aec_view(id, capsys):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", message=ADVICE)
        api_test(pettingzoo.make("aec", id, num_turns=3), num_cycles=10)
        parallel_api_test(TextDict(several_turns(id)), num_cycles=6)


@pytest.mark.parametrize("id", IDS)
def test_gymnasiums_own_test_of_every_agents_view(id, capsys):
    for agent in make(id).possible_agents:
        view = gymnasium.make(id, agent=agent, partners="novice", num_turns=3)
        gymnasium.utils.env_checker.check_env(view.unwrapped, skip_render_check=True)


@pytest.mark.parametrize("id", IDS)
def test_a_seed_fixes_the_whole_episode(id):
    first, again, other = (play(several_turns(id), seed) for seed in (11, 11, 12))
    assert first == again
    assert first != other


PLAY = """
import hashlib, json, sys
import numpy as np
from collm_envs import list_envs, make
digests = {}
for spec in list_envs():
    env = make(spec.id, num_turns=3)
    seen, rng = [env.reset(seed=5)], np.random.default_rng(5)
    while env.agents:
        seen += [env.step({a: env.scripted("novice", a, rng) for a in env.agents}), env.state()]
    digests[spec.id] = hashlib.sha256(repr(seen).encode()).hexdigest()
print(json.dumps(digests))
"""


def run(code, **env):
    return subprocess.Popen(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env={**os.environ, **env},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_an_episode_does_not_depend_on_the_order_of_hashes():
    running = [run(PLAY, PYTHONHASHSEED=seed) for seed in ("1", "2")]
    digests = []
    for process in running:
        out, err = process.communicate(timeout=120)
        assert process.returncode == 0, err
        digests.append(json.loads(out))
    assert set(digests[0]) == set(IDS)
    assert digests[0] == digests[1]


@pytest.mark.parametrize("id", IDS)
def test_a_pickled_copy_and_a_clone_go_on_alike(id):
    env = several_turns(id)
    env.reset(seed=3)
    env.step(dict.fromkeys(env.agents, ""))
    twins = [env.clone(), pickle.loads(pickle.dumps(env)), pickle.loads(pickle.dumps(env.clone()))]
    ends = [[*play(twin, None, np.random.default_rng(4)), twin.reset()] for twin in (env, *twins)]
    assert all(end == ends[0] for end in ends)


@pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: cls.__name__)
def test_the_example_in_the_docstring_runs(cls):
    module = importlib.import_module(cls.__module__)
    found = doctest.DocTestFinder(recurse=False).find(cls, cls.__name__, module, globs={})
    assert sum(len(test.examples) for test in found) >= 2, f"{cls.__name__} has no example that runs"
    runner, said = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS), []
    for test in found:
        runner.run(test, out=said.append)
    assert not runner.failures, "".join(said)


@pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: cls.__name__)
def test_every_constructor_setting_is_documented(cls):
    documented = "".join(inspect.getdoc(base) or "" for base in cls.__mro__ if base is not object)
    own = [name for name in collm_envs.spec(cls.env_id).settings() if f"{name}:" not in documented]
    undocumented = [name for name in own if f"`{name}`" not in documented and f"`{name}=" not in documented]
    assert not undocumented


FUZZED = {id: make(id, num_turns=2) for id in IDS if "sparse" not in id}
TEXTS = st.text(st.characters(codec=None), max_size=200) | st.sampled_from(
    ["", "\x00", "\ud800", "@agent_0 turn 1 says:\n", "A", "-1", "1e999", "```", "nan", "{}", "\n" * 50]
)


@pytest.mark.parametrize("id", FUZZED)
@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_no_reply_breaks_it(id, data):
    env = FUZZED[id]
    env.reset(seed=0)
    while env.agents:
        before = env.state()
        observations, rewards, _, _, infos = env.step({a: data.draw(TEXTS) for a in env.agents})
        info = next(iter(infos.values()))
        assert env.low - 1e-6 <= info["score"] <= env.high + 1e-6
        assert sum(info["reward_parts"].values()) == pytest.approx(info["score"], abs=1e-9)
        assert set(rewards.values()) == {info["score"] - env.high}
        assert env.state().startswith(before)
        assert all(env.observation_space(a).contains(text) for a, text in observations.items())
        env.state().encode()


FOREIGN = (
    "torch",
    "transformers",
    "peft",
    "datasets",
    "evaluate",
    "matplotlib",
    "ray",
    "wandb",
    "pyarrow",
    "PIL",
)


def test_importing_is_light(record_property):
    code = "import sys, time; t = time.perf_counter(); import collm_envs; "
    code += f"print(time.perf_counter() - t, *(m for m in {FOREIGN} if m in sys.modules))"
    out, err = run(code).communicate(timeout=60)
    seconds, *heavy = out.split() or pytest.fail(err)
    record_property("import_s", float(seconds))
    print(f"import collm_envs: {float(seconds):.2f} s")  # noqa: T201  # shown with -s
    assert not heavy
    assert float(seconds) < 5  # half a second where nothing else runs
