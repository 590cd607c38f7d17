from dataclasses import dataclass, replace

import pytest

from collm_agents import algorithms
from collm_agents.config import AgentConfig, RunConfig
from collm_agents.explain import explain, explain_env
from collm_agents.overrides import dump_config, load_config, load_env_settings, parse_value
from collm_agents.sections import Section, setting
from collm_envs import SettingError, UnknownEnvError, spec

ENV = "debug/echo-v0"


@dataclass(frozen=True)
class Probe(Section):
    """An estimator with two settings."""

    _where = "algorithm"
    depth: float = setting(0.9, "a number", low=0, high=1)
    kind: str = setting("mean", "a choice", choices=("mean", "none"))


@pytest.fixture(autouse=True)
def probe(monkeypatch):
    """One small algorithm of our own, so that these tests do not depend on the real ones."""
    found = algorithms.AlgorithmSpec("probe", Probe, None, None)
    monkeypatch.setattr(algorithms, "list_algorithms", lambda: [found])


def load(*words, env=ENV, **layers):
    return load_config(env, overrides=["algorithm=probe", *words], **layers)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("3", 3),
        ("-1.5e-3", -1.5e-3),
        ("true", True),
        ("[4, 1]", [4, 1]),
        ('"a b"', "a b"),
        ("train[:1000]", "train[:1000]"),
        ("Qwen/Qwen3-1.7B", "Qwen/Qwen3-1.7B"),
        ("", ""),
        ("True", "True"),
        ("1\nother = 2", "1\nother = 2"),
        ("2024-01-01", "2024-01-01"),
        ("a=b,c=d", "a=b,c=d"),
    ],
)
def test_values_are_toml_literals_or_bare_text(text, value):
    assert parse_value(text) == value


def test_defaults_and_aliases():
    words = "model=some/model tuning=lora seed=3 num_turns=2 reward=sparse branching=[4,1] update_epochs=5"
    config = load(*words.split(), "out=here", "joint_samples=10", "split=train[:5]")
    assert (config.env_id, config.algorithm_name) == (ENV, "probe")
    assert config.env_kwargs == {"num_turns": 2, "reward": "sparse", "split": "train[:5]"}
    assert (config.team.model, config.team.tuning) == ("some/model", "lora")
    assert (config.run.seed, config.run.out, config.run.joint_samples) == (3, "here", 10)
    assert config.rollout.branching == (4, 1)
    assert config.learner.update_epochs == 5


def test_full_keys_agents_and_bare_names():
    config = load(
        "team.agents.agent_0.model=other", "team.sampling.temperature=1", "lr=1e-6", "rank=4", "depth=0.5"
    )
    assert config.team.agents == {"agent_0": AgentConfig(model="other")}
    assert config.team.sampling.temperature == 1.0
    assert (config.learner.lr, config.team.lora.rank) == (1e-6, 4)
    assert config.algorithm == {"name": "probe", "depth": 0.5}


def test_text_settings_take_what_looks_like_a_number():
    assert load("out=7").run.out == "7"
    assert load("source=2024").env["source"] == "2024"


def test_layers_win_in_order(tmp_path):
    preset, file = tmp_path / "p.toml", tmp_path / "f.toml"
    preset.write_text('model = "a"\n[learner]\nlr = 1.0\nclip = 0.1\n[env.rewards]\nechoed = 2.0\n')
    file.write_text("[learner]\nlr = 2.0\ncritic_lr = 3.0\n")
    config = load("critic_lr=4", presets=[str(preset)], files=[file])
    assert (config.team.model, config.learner.lr, config.learner.clip) == ("a", 2.0, 0.1)
    assert config.learner.critic_lr == 4.0
    assert config.env_kwargs == {"rewards": {"echoed": 2.0}}


def test_tables_on_the_command_line_merge_or_stand_whole():
    assert load("rewards.echoed=0.5").env["rewards"] == {"echoed": 0.5}
    assert load("env.rewards={echoed = 0.5}").env["rewards"] == {"echoed": 0.5}
    assert load("team.sampling={top_p = 0.5}").team.sampling.top_p == 0.5


def test_the_environment_may_come_from_a_file(tmp_path):
    file = tmp_path / "f.toml"
    file.write_text(f'[env]\nid = "{ENV}"\n[algorithm]\nname = "probe"\n')
    assert load_config(files=[file]).env_id == ENV
    assert load_config("debug/handshake-v0", files=[file]).env_id == "debug/handshake-v0"


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("learner.lrr=1", "command line: unknown setting 'learner.lrr'; did you mean 'lr'"),
        ("lerner.lr=1", "unknown setting 'lerner.lr'; did you mean 'learner.lr'"),
        ("modle=x", "unknown setting 'modle'; did you mean 'model'"),
        ("learner.depth=1", "did you mean 'algorithm.depth'|known: algorithm.depth"),
        ("samples=2", "'samples' is ambiguous; write eval.samples or rollout.samples or track.samples"),
        ("every=2", "'every' is ambiguous; write checkpoint.every or eval.every"),
        ("env.num_turn=2", "debug/echo-v0 has no setting 'num_turn'; did you mean 'num_turns'"),
        ("algorithm.dpth=2", "algorithm probe has no setting 'dpth'; did you mean 'depth'|known: depth"),
        ("algorithm.depth=2", "command line: algorithm.depth must be at most 1, not 2"),
        ("algorithm.kind=max", "algorithm.kind='max' is not a choice; known: mean, none"),
        ("num_turns=two", "env.num_turns must be a whole number, not 'two'"),
        ("num_turns.x=2", "env.num_turns must be a whole number"),
        ("learner.lr=fast", "learner.lr must be a number, not 'fast'"),
        ("learner.lr=-1", "command line: learner.lr must be at least 0, not -1"),
        ("learner.lr=nan", "learner.lr must be finite"),
        ("learner.lr.x=1", "unknown setting 'learner.lr.x'; did you mean 'lr'"),
        ("team=big", "'team' is a section, not a setting"),
        ("team.sampling=big", "'team.sampling' is a section, not a setting"),
        ("env=debug/echo-v0", "'env' is a section, not a setting"),
        ("team.enable_thinking=True", "must be true or false, not 'True'"),
        ("team.agents.agent_0.modle=x", "unknown setting 'team.agents.agent_0.modle'; did you mean 'model'"),
        ("tuning=half", "team.tuning='half' is not a choice; known: auto, full, lora"),
        ("branching=[0]", "rollout.branching as a list needs"),
        ("branching=bush", "rollout.branching='bush' is not a choice"),
        ("seed", "'seed' is not key=value"),
        ("=3", "'=3' is not key=value"),
        ("joint_samples=0", "the run has no budget"),
    ],
)
def test_what_cannot_be_used_is_one_clear_line(word, message):
    with pytest.raises(SettingError, match=message.replace("[", r"\[").replace("(", r"\(")) as caught:
        load(word)
    assert "\n" not in str(caught.value)


def test_errors_in_files_name_the_file(tmp_path):
    file = tmp_path / "mine.toml"
    file.write_text("[learner]\nlr = -1\n")
    with pytest.raises(SettingError, match=r"mine\.toml: learner\.lr must be at least 0"):
        load(files=[file])
    file.write_text("[learner]\nlearning_rate = 1\n")
    with pytest.raises(SettingError, match=r"mine\.toml: unknown setting 'learner\.learning_rate'"):
        load(files=[file])
    file.write_text("[learner\n")
    with pytest.raises(SettingError, match=r"mine\.toml: cannot be read as TOML"):
        load(files=[file])
    with pytest.raises(SettingError, match="no such config file"):
        load(files=[tmp_path / "absent.toml"])


def test_unknown_environment_algorithm_and_preset():
    with pytest.raises(UnknownEnvError, match="did you mean 'debug/echo-v0'"):
        load(env="debug/ecko-v0")
    with pytest.raises(SettingError, match="unknown algorithm 'prob'; did you mean 'probe'"):
        load_config(ENV, overrides=["algorithm=prob"])
    with pytest.raises(SettingError, match="unknown preset 'paper/writing-c'; did you mean 'paper/writing-"):
        load(presets=["paper/writing-c"])
    with pytest.raises(SettingError, match="no environment given"):
        load_config(None, overrides=["algorithm=probe"])


def test_one_budget(tmp_path):
    file = tmp_path / "f.toml"
    file.write_text("[run]\ntask_passes = 2\n")
    run = load(files=[file]).run
    assert (run.task_passes, run.joint_samples) == (2.0, 0)
    run = load("joint_samples=50", files=[file]).run
    assert (run.task_passes, run.joint_samples) == (0.0, 50)
    run = load("task_passes=0", files=[file]).run
    assert (run.task_passes, run.joint_samples) == (0.0, RunConfig().joint_samples)
    with pytest.raises(SettingError, match=r"or run\.task_passes as the budget, not both"):
        load("joint_samples=50", "task_passes=3")


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["task_passes=2.5", "branching=[4,1]", "rewards.echoed=0.5", "team.agents.agent_1.tuning=lora"],
        ['out=a "quoted" \\ path', "eval.split=test[1000:1100]", "learner.lr=5e-6", "depth=0.25"],
    ],
)  # fmt: skip
def test_dump_loads_back_to_the_same_config(words, tmp_path):
    config = load(*words)
    file = tmp_path / "config.toml"
    file.write_text(dump_config(config))
    assert load_config(None, files=[file]) == config


def test_a_saved_config_takes_overrides(tmp_path):
    file = tmp_path / "config.toml"
    file.write_text(dump_config(load("task_passes=2")))
    changed = load_config(None, files=[file], overrides=["joint_samples=5"])
    assert changed.run == replace(RunConfig(), joint_samples=5)


def test_explain_covers_every_setting_with_a_line_of_doc():
    rows = explain(RunConfig, "run")
    assert rows[0].key == "run.seed"
    assert rows[0].limits == ">= 0"
    rows = explain_env(spec(ENV).env_class)
    by_key = {row.key: row for row in rows}
    assert by_key["num_turns"].default == 1
    assert all(row.doc for row in rows), [row.key for row in rows if not row.doc]


def test_settings_of_an_environment_alone():
    assert load_env_settings(ENV, ["num_turns=2", "env.reward=final"]) == {"num_turns": 2, "reward": "final"}
    with pytest.raises(SettingError, match="has no setting 'lr'"):
        load_env_settings(ENV, ["lr=2"])
    with pytest.raises(SettingError, match="must be a whole number"):
        load_env_settings(ENV, ["num_turns=x"])
