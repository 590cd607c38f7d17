import numpy as np
import pytest
import torch
from safetensors import SafetensorError
from safetensors.torch import save_file

from collm_agents.tensor_file import read_state, write_state


def same(one, other):
    if isinstance(one, torch.Tensor):
        return isinstance(other, torch.Tensor) and one.dtype == other.dtype and one.equal(other)
    if isinstance(one, dict):
        return list(one) == list(other) and all(same(one[key], other[key]) for key in one)
    if isinstance(one, (list, tuple)):
        return type(one) is type(other) and len(one) == len(other) and all(map(same, one, other))
    return type(one) is type(other) and one == other


def test_an_optimizer_comes_back_as_it_was(tmp_path):
    weight = torch.nn.Parameter(torch.randn(3, 4))
    for kind in (torch.optim.AdamW, torch.optim.SGD, torch.optim.Adagrad):
        optimizer = kind([weight], lr=0.1)
        weight.square().sum().backward()
        optimizer.step()
        state = {"updates": 3, "optimizers": {"a": optimizer.state_dict()}}
        write_state(tmp_path / "s", state)
        found = read_state(tmp_path / "s")
        assert same(state, found)
        kind([weight], lr=0.2).load_state_dict(found["optimizers"]["a"])


def test_kinds_keys_and_order_are_kept(tmp_path):
    part = torch.arange(6.0)
    state = {
        2: (1, 2.5, None, True, "é"),
        "1": [{}, [], (), {"tensor": "0"}, {"dict": [[1, 2]]}],
        1: {"a": part[::2], "b": part[:3], "c": torch.tensor(7), "d": torch.zeros(0, dtype=torch.bfloat16)},
        "n": float("inf"),
    }
    write_state(tmp_path / "s", state)
    assert same(state, read_state(tmp_path / "s"))


@pytest.mark.parametrize("thing", [object(), {1, 2}, b"x", np.zeros(2), {(1, 2): 3}, {"a": print}, {1.5: 0}])
def test_what_is_no_plain_data_is_not_written(tmp_path, thing):
    with pytest.raises(TypeError, match="of a state"):
        write_state(tmp_path / "s", {"x": thing})
    assert not (tmp_path / "s").exists()


def test_another_file_is_refused(tmp_path):
    save_file({"a": torch.zeros(2)}, tmp_path / "s")
    with pytest.raises(ValueError, match="no state"):
        read_state(tmp_path / "s")
    torch.save({"a": 1}, tmp_path / "p")
    with pytest.raises(SafetensorError):
        read_state(tmp_path / "p")
