import json

import pytest
import torch
from builders import critic, learner, played, same, team, weights

from collm_agents import checkpoint
from collm_agents.algorithms.cc import CentralisedCritic
from collm_agents.algorithms.dc import DecentralisedCritics
from collm_agents.algorithms.mc import MonteCarlo
from collm_envs.errors import InputError

AGENTS = ("agent_0", "agent_1")


def save(run_dir, players, values, found, samples, keep=2):
    return checkpoint.save(run_dir, players, values, found, {"joint_samples": samples, "updates": 1}, keep)


def trained(estimator, view=None, models="qwen3", tuning="lora"):
    players = team(AGENTS, models, tuning, sampling={"max_new_tokens": 4})
    owners = {"joint": "one", "local": "each"}.get(view)
    values = critic(view, owners, AGENTS, stirred=False) if view else None
    found = learner(players, estimator, values)
    found.update(played(players, (2,)))
    return players, values, found


@pytest.mark.parametrize(
    ("estimator", "view", "models", "tuning"),
    [
        (MonteCarlo(baseline="none"), None, "qwen3", "lora"),
        (CentralisedCritic(), "joint", "llama", "full"),
        (DecentralisedCritics(), "local", ["qwen3", "llama"], "lora"),
    ],
)
def test_everything_comes_back_bit_for_bit(tmp_path, estimator, view, models, tuning):
    players, values, found = trained(estimator, view, models, tuning)
    folder = save(tmp_path, players, values, found, 8)
    other_players = team(AGENTS, models, tuning, stirred=False)
    owners = {"joint": "one", "local": "each"}.get(view)
    other_values = critic(view, owners, AGENTS) if view else None
    other = learner(other_players, estimator, other_values)
    progress = checkpoint.load(folder, other_players, other_values, other)
    assert progress == {"joint_samples": 8, "updates": 1}
    assert other.updates == found.updates == 1
    for agent in AGENTS:
        assert same(weights(players.backbones[agent], agent), weights(other_players.backbones[agent], agent))
    for member in values.members if values else ():
        assert same(
            weights(values.backbones[member], member), weights(other_values.backbones[member], member)
        )
        assert same(values.heads[member].state_dict(), other_values.heads[member].state_dict())
        assert values.heads[member].linear.weight.abs().sum() > 0
    for name, optimizer in found.optimizers.items():
        one, two = (o.state_dict()["state"] for o in (optimizer, other.optimizers[name]))
        assert one.keys() == two.keys()
        assert all(torch.equal(one[i][k], two[i][k]) for i in one for k in ("exp_avg", "exp_avg_sq", "step"))


def test_the_newest_checkpoints_are_kept_in_the_order_of_samples(tmp_path):
    players, values, found = trained(MonteCarlo())
    for samples in (8, 1000, 64, 200_000_000):
        save(tmp_path, players, values, found, samples, keep=3)
    assert [int(p.name) for p in checkpoint.found(tmp_path)] == [64, 1000, 200_000_000]
    assert int(checkpoint.pick(tmp_path).name) == 200_000_000
    assert int(checkpoint.pick(tmp_path, 64).name) == 64


def test_a_checkpoint_that_was_never_finished_is_not_one(tmp_path):
    players, values, found = trained(MonteCarlo())
    folder = save(tmp_path, players, values, found, 8)
    half = tmp_path / "checkpoints" / ".writing-000000016"
    half.mkdir()
    (half / "progress.json").write_text("{}")
    (tmp_path / "checkpoints" / "000000024").mkdir()  # without progress: killed by hand, or copied in part
    assert checkpoint.pick(tmp_path) == folder


def test_a_checkpoint_that_fails_to_be_written_leaves_the_old_one(tmp_path, monkeypatch):
    players, values, found = trained(MonteCarlo())
    folder = save(tmp_path, players, values, found, 8)

    def full_disk(*args, **more):
        raise OSError("no space left on device")

    monkeypatch.setattr("collm_agents.tensor_file.save_file", full_disk)
    with pytest.raises(OSError, match="no space"):
        save(tmp_path, players, values, found, 16)
    assert checkpoint.found(tmp_path) == [folder]


def test_saving_again_at_the_same_place_replaces_it(tmp_path):
    players, values, found = trained(MonteCarlo())
    save(tmp_path, players, values, found, 8)
    folder = checkpoint.save(tmp_path, players, values, found, {"joint_samples": 8, "updates": 7}, 2)
    assert json.loads((folder / "progress.json").read_text())["updates"] == 7
    assert len(checkpoint.found(tmp_path)) == 1


def test_missing_checkpoints_are_one_line_that_names_those_there_are(tmp_path):
    with pytest.raises(InputError, match="no checkpoint"):
        checkpoint.pick(tmp_path)
    players, values, found = trained(MonteCarlo())
    save(tmp_path, players, values, found, 8)
    with pytest.raises(InputError, match="at 16 joint samples; it has 8"):
        checkpoint.pick(tmp_path, 16)


def test_a_checkpoint_of_another_team_is_refused(tmp_path):
    players, values, found = trained(MonteCarlo())
    folder = save(tmp_path, players, values, found, 8)
    with pytest.raises(InputError, match="writer_0"):
        checkpoint.load_team(folder, team(("writer_0",)))
    with pytest.raises(InputError, match="does not fit"):
        checkpoint.load_team(folder, team(AGENTS, "llama"))


def test_nothing_in_a_checkpoint_is_code(tmp_path):
    players, values, found = trained(CentralisedCritic(), "joint")
    folder = save(tmp_path, players, values, found, 8)
    kinds = {file.suffix for file in folder.rglob("*") if file.is_file()}
    assert kinds <= {".safetensors", ".json", ".jinja", ".md", ".txt"}
