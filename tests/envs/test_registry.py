"""Names: what makes an environment, what refuses to, and packages that bring their own."""

import subprocess
import sys
import textwrap

import gymnasium
import pettingzoo
import pytest
from toy_envs import Sum

import collm_envs
from collm_envs import (
    InputError,
    SettingError,
    UnknownEnvError,
    VecEnv,
    list_envs,
    make,
    make_vec,
    register,
    registry,
    spec,
)


@pytest.fixture
def own_names():
    """Takes ids that a test registered out again."""
    before = dict(registry._SPECS)
    yield
    for id in set(registry._SPECS) - set(before):
        del registry._SPECS[id]
        for names in (pettingzoo.parallel_registry, pettingzoo.aec_registry, gymnasium.registry):
            names.pop(id)
    registry._SPECS.update(before)


def toy(name):
    return type(name, (Sum,), {"__doc__": f"{name} of the tests."})


def test_an_id_makes_its_environment_here_and_through_pettingzoo():
    for env in (
        make("debug/echo-v0", num_agents=3),
        pettingzoo.make("parallel", "debug/echo-v0", num_agents=3),
    ):
        assert type(env).__name__ == "Echo"
        assert env.env_id == "debug/echo-v0"
        assert env.num_agents == 0
        assert len(env.possible_agents) == 3
    with pytest.raises(SettingError, match="no setting 'num_agent'; did you mean 'num_agents'"):
        pettingzoo.make("parallel", "debug/echo-v0", num_agent=3)
    for names in (pettingzoo.parallel_registry, pettingzoo.aec_registry, gymnasium.registry):
        assert {s.id for s in list_envs()} <= set(names)


def test_ids_of_other_libraries_are_not_overwritten(own_names):
    gymnasium.register("toy/theirs-v0", entry_point=dict)
    try:
        with pytest.raises(InputError, match="'toy/theirs-v0' is taken"):
            register("toy/theirs-v0")(toy("Mine"))
    finally:
        gymnasium.registry.pop("toy/theirs-v0")
    assert "toy/theirs-v0" not in pettingzoo.parallel_registry


def test_the_sparse_twin_differs_in_its_reward_alone():
    env = make("debug/echo-sparse-v0")
    assert (env.env_id, env.schedule.kind) == ("debug/echo-sparse-v0", "sparse")
    assert make("debug/echo-v0").schedule.kind == "dense"
    assert spec("debug/echo-sparse-v0").summary.endswith("Sparse reward.")
    assert make("debug/echo-sparse-v0", reward="final").schedule.kind == "final"


@pytest.mark.parametrize(
    ("id", "message"),
    [
        ("debug/ecko-v0", "unknown environment 'debug/ecko-v0'; did you mean 'debug/echo-v0'"),
        ("debug/echo-v9", "did you mean 'debug/echo-v0'"),
        ("qqqq", "unknown environment 'qqqq'"),
        ("", "unknown environment ''"),
        (None, "is a string such as 'debug/echo-v0', not None"),
    ],
)
def test_unknown_ids(id, message):
    with pytest.raises(UnknownEnvError, match=message):
        make(id)


def test_unknown_and_wrong_settings():
    with pytest.raises(
        SettingError, match="debug/echo-v0 has no setting 'num_turn'; did you mean 'num_turns'"
    ):
        make("debug/echo-v0", num_turn=2)
    with pytest.raises(SettingError, match="num_turns must be a whole number >= 1, not 'two'"):
        make("debug/echo-v0", num_turns="two")


def test_settings_reach_through_the_constructors_that_pass_them_on():
    class Sized(Sum):
        def __init__(self, *, size: int = 4, **kwargs):
            super().__init__(**kwargs)
            self.size = size

    class Closed(Sum):
        def __init__(self, *, size: int = 4):
            super().__init__()

    assert {"size", "num_turns", "reward"} <= set(registry.env_settings(Sized))
    assert set(registry.env_settings(Closed)) == {"size"}


def test_registering(own_names):
    mine = register("toy/mine-v0", num_turns=3)(toy("Mine"))
    assert (make("toy/mine-v0").num_turns, make("toy/mine-v0", num_turns=1).num_turns) == (3, 1)
    assert make("toy/mine-sparse-v0").num_turns == 3
    assert [s.id for s in list_envs("toy/")] == ["toy/mine-sparse-v0", "toy/mine-v0"]
    assert spec("toy/mine-v0").summary == "Mine of the tests."
    assert "num_turns" in spec("toy/mine-v0").settings()
    assert mine.env_id == "toy/mine-v0"
    register("toy/lone-v0", sparse=False)(toy("Lone"))
    assert "toy/lone-sparse-v0" not in [s.id for s in list_envs()]


def test_a_taken_id_is_refused_but_a_reloaded_class_takes_its_place(own_names):
    register("toy/mine-v0")(toy("Mine"))
    with pytest.raises(InputError, match=r"'toy/mine-v0' is taken by .*:Mine"):
        register("toy/mine-v0")(toy("Other"))
    newer = register("toy/mine-v0")(toy("Mine"))
    assert type(make("toy/mine-v0")) is newer
    with pytest.raises(InputError, match="taken"):
        register("debug/echo-v0")(toy("Thief"))
    assert type(make("debug/echo-v0")).__name__ == "Echo"


@pytest.mark.parametrize(
    "id",
    [
        "mine-v0",
        "toy/mine",
        "toy/mine-v",
        "Toy/mine-v0",
        "a/b/mine-v0",
        "toy/my mine-v0",
        "toy/mine-v0\n",
        "",
    ],
)
def test_malformed_ids(id):
    with pytest.raises(InputError, match="does not read domain/name-vN"):
        register(id)(toy("Mine"))


def test_only_environments_can_be_registered():
    with pytest.raises(InputError, match="only subclasses of CollabEnv"):
        register("toy/dict-v0")(dict)


def test_module_and_class_names():
    env = make("toy_envs:Sum", num_turns=2)
    assert (type(env), env.num_turns) == (Sum, 2)
    for name, message in (
        ("toy_envs:Sun", "toy_envs has no CollabEnv class 'Sun'; did you mean 'Sum'"),
        ("toy_envs:digits", "has no CollabEnv class 'digits'"),
        ("no_such_module:Sum", "there is no module 'no_such_module'"),
        ("toy_envs.inner:Sum", "there is no module 'toy_envs.inner'|importing toy_envs.inner failed"),
        (":Sum", "does not read module:Class"),
    ):
        with pytest.raises(UnknownEnvError, match=message):
            make(name)


def test_vector_environments_are_made_by_name():
    rows = make_vec("debug/echo-v0", num_agents=3)
    assert isinstance(rows, VecEnv)
    assert rows.agents == ["agent_0", "agent_1", "agent_2"]


@pytest.mark.parametrize(
    "path", ["my_tasks/week_plan.py", "./my_tasks/week_plan.py", "my_tasks\\week_plan.py"]
)
def test_a_file_in_place_of_a_name_is_told_its_name(path):
    with pytest.raises(UnknownEnvError, match=r"such as my_tasks\.week_plan:WeekPlan$"):
        collm_envs.spec(path)


# -- packages that bring their own -----------------------------------------------------------------

PLUGIN = """
from collm_envs import register
from collm_envs.debug.letters import Echo
@register("plug/parrot-v0", num_turns=2)
class Parrot(Echo):
    "A parrot."
"""
ENTRIES = """
[collm.envs]
plug/parrot-v0 = parrot:Parrot
plug/parrot-sparse-v0 = parrot:Parrot
plug/broken-v0 = broken_plugin:Env
plug/quits-v0 = quitting_plugin:Env
plug/absent-v0 = absent_plugin:Env
Bad Id = parrot:Parrot
debug/echo-v0 = parrot:Parrot
"""


def run(path, code):
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        env={"PYTHONPATH": f"{path}:{collm_envs.__path__[0]}/..", "PATH": ""},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done


@pytest.fixture
def installed(tmp_path):
    info = tmp_path / "plugins-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: plugins\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(ENTRIES)
    (tmp_path / "parrot.py").write_text(PLUGIN)
    (tmp_path / "broken_plugin.py").write_text("raise RuntimeError('half installed')")
    (tmp_path / "quitting_plugin.py").write_text("import sys; sys.exit('a script')")
    return tmp_path


def test_plug_ins_are_listed_without_import_and_made_on_demand(installed):
    done = run(
        installed,
        """
        import sys, collm_envs, pettingzoo
        assert "parrot" not in sys.modules and "broken_plugin" not in sys.modules
        listed = {s.id: s.summary for s in collm_envs.list_envs("plug/")}
        assert set(listed) == {"plug/" + n for n in
            ("parrot-v0", "parrot-sparse-v0", "broken-v0", "quits-v0", "absent-v0")}, listed
        assert listed["plug/parrot-v0"] == "from plugins"
        assert "parrot" not in sys.modules
        sparse = collm_envs.make("plug/parrot-sparse-v0")
        assert (sparse.schedule.kind, sparse.num_turns) == ("sparse", 2), sparse.schedule
        env = pettingzoo.make("parallel", "plug/parrot-v0", num_agents=3)
        assert (type(env).__module__, env.env_id, env.num_turns) == ("parrot", "plug/parrot-v0", 2)
        assert len(env.reset(seed=0)[0]) == 3
        assert collm_envs.spec("plug/parrot-v0").summary == "A parrot."
        collm_envs.load_plugins()
        assert type(collm_envs.make("debug/echo-v0")).__name__ == "Echo"
        """,
    )
    assert "package plugins: environment id 'Bad Id' does not read domain/name-vN" in done.stderr
    assert (
        "package plugins: environment id 'debug/echo-v0' is taken by collm_envs.debug.letters:Echo"
        in done.stderr
    )


def test_a_broken_plug_in_harms_only_itself(installed):
    run(
        installed,
        """
        import collm_envs
        for id, words in {
            "plug/broken-v0": "importing broken_plugin failed: RuntimeError: half installed",
            "plug/quits-v0": "importing quitting_plugin failed: SystemExit: a script",
            "plug/absent-v0": "there is no module 'absent_plugin'",
        }.items():
            try:
                collm_envs.make(id)
            except collm_envs.UnknownEnvError as error:
                assert words in str(error) and "\\n" not in str(error), error
            else:
                raise AssertionError(id)
        collm_envs.make("debug/echo-v0").reset(seed=0)
        """,
    )
