import pytest

from collm_agents.layers import PRESETS, find_preset, list_presets, read_layers
from collm_agents.overrides import dump_config, load_config
from collm_envs import SettingError

ENV = "debug/echo-v0"


def write(folder, **texts):
    for name, text in texts.items():
        (folder / f"{name}.toml").write_text(text, encoding="utf-8")
    return folder


def test_what_extends_wins_key_by_key_over_what_it_extends(tmp_path):
    write(
        tmp_path,
        base='[learner]\nlr = 1.0\nclip = 0.1\n[team.agents.agent_0]\nmodel = "a"\n',
        middle='extends = "base.toml"\n[learner]\nlr = 2.0\ncritic_lr = 3.0\n',
        top='extends = "middle.toml"\n[learner]\ncritic_lr = 4.0\n[team.agents.agent_0]\ntuning = "lora"\n',
    )
    for given in ({"presets": [str(tmp_path / "top.toml")]}, {"files": [tmp_path / "top.toml"]}):
        config = load_config(ENV, **given)
        assert (config.learner.lr, config.learner.clip, config.learner.critic_lr) == (2.0, 0.1, 4.0)
        assert (config.team.agents["agent_0"].model, config.team.agents["agent_0"].tuning) == ("a", "lora")
    config = load_config(ENV, files=[tmp_path / "top.toml"], overrides=["learner.lr=9"])
    assert config.learner.lr == 9.0


def test_layers_come_farthest_first_and_are_named(tmp_path):
    write(tmp_path, base="[run]\nseed = 1\n", top='extends = "base.toml"\n[run]\nseed = 2\n')
    assert read_layers(tmp_path / "top.toml", "mine") == [
        ({"run": {"seed": 1}}, "base.toml"),
        ({"run": {"seed": 2}}, "mine"),
    ]


def test_a_file_may_extend_a_packaged_preset(tmp_path):
    file = write(tmp_path, top='extends = "builtin-writing"\n[run]\nseed = 5\n') / "top.toml"
    config, preset = load_config(files=[file]), load_config(presets=["builtin-writing"])
    assert config.run.seed == 5
    assert (config.env_id, config.eval, config.run.joint_samples) == (
        preset.env_id,
        preset.eval,
        preset.run.joint_samples,
    )
    assert "extends" not in dump_config(config)


def test_relative_paths_start_from_the_file_that_names_them(tmp_path, monkeypatch):
    (tmp_path / "inner").mkdir()
    write(tmp_path, base="[run]\nseed = 7\n")
    write(tmp_path / "inner", top='extends = "../base.toml"\n')
    monkeypatch.chdir("/")
    assert load_config(ENV, files=[tmp_path / "inner" / "top.toml"]).run.seed == 7


def test_a_budget_of_the_other_kind_replaces_the_one_extended(tmp_path):
    write(tmp_path, base="[run]\ntask_passes = 2\n", top='extends = "base.toml"\n[run]\njoint_samples = 50\n')
    run = load_config(ENV, files=[tmp_path / "top.toml"]).run
    assert (run.task_passes, run.joint_samples) == (0.0, 50)


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        ({"top": 'extends = "top.toml"\n'}, r"top\.toml: extends='top\.toml' leads back"),
        (
            {"top": 'extends = "a.toml"\n', "a": 'extends = "b.toml"\n', "b": 'extends = "./a.toml"\n'},
            r"^b\.toml: extends='\./a\.toml' leads back to a file that extends this one",
        ),
        (
            {"top": 'extends = "paper/writing-c"\n'},
            r"top\.toml: extends: unknown preset 'paper/writing-c'; did you mean 'paper/writing-",
        ),
        (
            {"top": 'extends = ["a", "b"]\n'},
            r"top\.toml: extends must name one preset or file, not \['a', 'b'\]",
        ),
        ({"top": 'extends = "a.toml"\n', "a": "[learner\n"}, r"a\.toml: cannot be read as TOML"),
        (
            {"top": 'extends = "a.toml"\n', "a": "[learner]\nlr = -1\n"},
            r"^a\.toml: learner\.lr must be at least 0",
        ),
        ({"top": '[run]\nextends = "a.toml"\n'}, r"top\.toml: unknown setting 'run\.extends'"),
    ],
)
def test_a_chain_that_cannot_be_followed_is_one_clear_line(texts, message, tmp_path):
    with pytest.raises(SettingError, match=message) as caught:
        load_config(ENV, files=[write(tmp_path, **texts) / "top.toml"])
    assert "\n" not in str(caught.value)


def test_presets_are_found_by_name_then_by_path(tmp_path):
    assert find_preset("paper/writing-cc") == PRESETS / "paper" / "writing-cc.toml"
    file = write(tmp_path, mine="") / "mine.toml"
    assert find_preset(str(file)) == file
    assert find_preset("mine.toml", tmp_path) == file
    assert list_presets() == sorted(list_presets())
