"""Whatever a state holds comes back as it was."""

import math

import pytest
import torch

from rung.training.packing import pack, unpack


def test_tensors_of_every_kind_and_plain_values_come_back():
    state = {
        "optimizer": {
            "state": {0: {"step": torch.tensor(3.0)}, 7: {}},
            "groups": [{"betas": (0.9, 0.999), "foreach": None}],
        },
        "weights": {"a": torch.arange(6.0).reshape(2, 3).T, "b": torch.empty(0, 3), "$odd": torch.tensor([True])},
        "counts": torch.tensor([[2**40]]),
        "sums": torch.full((2,), 1 / 3, dtype=torch.float64),
        "progress": {"best": math.inf, "third": 1 / 3, "name": "é", "done": False, "shards": []},
    }
    found = unpack(pack(state).content())
    assert found["optimizer"]["groups"] == state["optimizer"]["groups"]
    assert found["optimizer"]["state"].keys() == {0, 7}
    assert found["optimizer"]["state"][0]["step"].shape == ()
    assert found["progress"] == state["progress"]
    for part, name in [("weights", "a"), ("weights", "b"), ("weights", "$odd")]:
        assert torch.equal(found[part][name], state[part][name])
    for name in ("counts", "sums"):
        assert found[name].dtype == state[name].dtype
        assert torch.equal(found[name], state[name])


def test_a_packed_state_does_not_change_with_its_source():
    weights = torch.zeros(3)
    packed = pack({"weights": weights})
    weights += 1
    assert torch.equal(unpack(packed.content())["weights"], torch.zeros(3))


def test_what_comes_back_shares_no_memory():
    content = pack({"a": torch.zeros(2), "b": torch.zeros(2)}).content()
    found = unpack(content)
    found["a"] += 1
    assert torch.equal(found["b"], torch.zeros(2))
    assert found["a"].untyped_storage().nbytes() == 8


def test_other_things_are_refused():
    with pytest.raises(TypeError, match="no set"):
        pack({"a": {1}})
