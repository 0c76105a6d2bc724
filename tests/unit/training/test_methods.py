"""What goes beyond the reference: rates by depth, unfreezing, L2-SP, replay and multi-fidelity, and that all resume."""

import shutil
from pathlib import Path

import pytest
import torch
from chgnet.model import CHGNet

from data_prep.convert import prepare
from rung.config.transfer import TransferConfig
from rung.config.tree import ExportConfig, PrepareConfig
from rung.evaluation.export import export_model
from rung.model.reference import reference_of
from rung.training import step
from rung.training.context import LocalContext
from rung.training.doctor import AbsurdStartError
from rung.training.run import RunFolder
from rung.training.trainer import train
from rung.training.upgrades import upgraded


class StopsAt(LocalContext):
    def __init__(self, step):
        super().__init__("cpu")
        self.step = step

    def should_stop(self, step):
        return step >= self.step


def weights(config, which="last"):
    return RunFolder.of(config).load_state(which)["model"]["state_dict"]


@pytest.fixture
def other_dataset(tmp_path_factory):
    folder = tmp_path_factory.mktemp("other") / "r2scan"
    source = {"kind": "surrogate", "functional": "r2SCAN", "num_structures": 36}
    prepare(PrepareConfig.model_validate({"output": str(folder), "source": source}))
    return folder


@pytest.fixture
def pretrained(make_config):
    config = make_config("pretrained", training={"epochs": 1})
    train(config, LocalContext("cpu"))
    return str(RunFolder.of(config).path)


def tuned(make_config, name, init, **sections):
    model = {"init": init, **sections.pop("model", {})}
    reference = {"mode": "refit"}
    return make_config(name, **{"model": model, "reference": reference, "training": {"epochs": 2}} | sections)


def moved(config, init, name):
    return float((weights(config)[name] - weights_of(init)[name]).norm())


def weights_of(folder):
    return RunFolder(Path(folder)).load_state("best")["model"]["state_dict"]


FIRST, LAST = "atom_embedding.embedding.weight", "mlp.layers.0.weight"


def test_rates_fall_with_depth(make_config, pretrained):
    even = tuned(make_config, "even", pretrained)
    decayed = tuned(make_config, "decayed", pretrained, transfer={"layer_decay": 0.1})
    for config in (even, decayed):
        train(config, LocalContext("cpu"))
    assert moved(decayed, pretrained, FIRST) < 0.01 * moved(even, pretrained, FIRST)
    assert moved(decayed, pretrained, LAST) > 0.3 * moved(even, pretrained, LAST)


def test_blocks_thaw_one_epoch_after_the_other(make_config, pretrained):
    keys = {"model": {"freeze_depth": 2}, "transfer": {"unfreeze_every": 1}}
    short = tuned(make_config, "short", pretrained, **keys, training={"epochs": 1})
    whole = tuned(make_config, "whole", pretrained, **keys, training={"epochs": 3})
    for config in (short, whole):
        train(config, LocalContext("cpu"))
    block = next(name for name in weights(short) if name.startswith("atom_conv_layers.0.") and name.endswith("weight"))
    assert moved(short, pretrained, FIRST) == moved(short, pretrained, block) == 0
    assert moved(short, pretrained, LAST) > 0
    assert moved(whole, pretrained, FIRST) > 0


def test_the_pull_keeps_weights_near_their_start(make_config, pretrained):
    free = tuned(make_config, "free", pretrained)
    pulled = tuned(make_config, "pulled", pretrained, transfer={"l2_sp": 100.0})
    for config in (free, pulled):
        train(config, LocalContext("cpu"))
    assert moved(pulled, pretrained, LAST) < 0.7 * moved(free, pretrained, LAST)


EVERYTHING = {"layer_decay": 0.7, "unfreeze_every": 1, "l2_sp": 0.1}


def exported(config, functional, folder):
    output = str(folder / functional / "m.pth.tar")
    run = str(RunFolder.of(config).path)
    export_model(ExportConfig(run=run, output=output, checkpoint="last", functional=functional))
    return CHGNet.from_file(output)


@pytest.mark.parametrize("readout", ["shared", "own"])
def test_all_of_it_resumes_exactly_and_exports_both_functionals(
    make_config, small_dataset, other_dataset, tmp_path, readout, pretrained
):
    replay = {"path": str(small_dataset), "share": 0.34, "readout": readout}
    data = {"path": str(other_dataset)}
    keys = {"data": data, "model": {"freeze_depth": 2}, "transfer": EVERYTHING, "replay": replay}
    whole, halves = (tuned(make_config, name, pretrained, **keys) for name in ("whole", "halves"))
    train(whole, LocalContext("cpu"))
    train(halves, StopsAt(3))
    train(halves, LocalContext("cpu"))
    first, second = (RunFolder.of(config).load_state("last") for config in (whole, halves))
    for part in ("replay", "model"):
        one, other = (state[part] if part == "replay" else state[part]["state_dict"] for state in (first, second))
        assert all(torch.equal(value, other[name]) for name, value in one.items())
    models = {functional: exported(whole, functional, tmp_path) for functional in ("target", "replay")}
    trunk = [models[name].state_dict()[FIRST] for name in models]
    assert torch.equal(*trunk)
    assert torch.equal(*(models[name].state_dict()[LAST] for name in models)) is (readout == "shared")
    kept = reference_of(models["replay"])
    assert kept == pytest.approx(weights_of(pretrained)["composition_model.fc.weight"][0].numpy(), abs=1e-6)
    assert abs(kept - reference_of(models["target"])).max() > 1e-3


@pytest.fixture
def averaged(make_config, small_dataset, other_dataset, pretrained):
    """A run with two readouts and averaged weights."""
    replay = {"path": str(small_dataset), "share": 0.34, "readout": "own"}
    keys = {"data": {"path": str(other_dataset)}, "replay": replay, "optimizer": {"ema_decay": 0.9}}
    return tuned(make_config, "averaged", pretrained, **keys)


def test_the_average_takes_in_both_readouts(averaged, tmp_path):
    train(averaged, LocalContext("cpu"))
    state = RunFolder.of(averaged).load_state("last")
    average = state["average"]["average"]
    trained = {"target": state["model"]["state_dict"][LAST], "replay": state["replay"][LAST]}
    for functional, name in (("target", LAST), ("replay", f"replay.{LAST}")):
        found = exported(averaged, functional, tmp_path).state_dict()[LAST]
        assert torch.equal(found, average[name])
        assert not torch.equal(found, trained[functional])


def test_an_average_of_version_3_goes_on_from_the_second_readout_as_it_was_trained(averaged):
    train(averaged, StopsAt(3))
    state = RunFolder.of(averaged).load_state("last")
    average = state["average"]["average"]
    old = {name: value for name, value in average.items() if not name.startswith("replay.")}
    new = upgraded(state | {"average": state["average"] | {"average": old}}, 3)["average"]["average"]
    assert new.keys() >= average.keys()
    assert torch.equal(new[f"replay.{LAST}"], state["replay"][LAST])


def test_a_run_with_replay_goes_on_without_the_weights_that_it_began_with(
    make_config, small_dataset, other_dataset, pretrained
):
    replay = {"path": str(small_dataset), "share": 0.34}
    config = tuned(make_config, "orphan", pretrained, data={"path": str(other_dataset)}, replay=replay)
    train(config, StopsAt(3))
    shutil.rmtree(pretrained)
    assert train(config, LocalContext("cpu")).completed


def test_replayed_structures_are_cut_like_all_others_where_memory_lacks(
    make_config, small_dataset, other_dataset, pretrained, monkeypatch
):
    keys = {"data": {"path": str(other_dataset)}, "replay": {"path": str(small_dataset), "share": 0.5}}
    config = tuned(make_config, "cut", pretrained, **keys, training={"epochs": 1})
    accumulate = step.TrainStep._accumulate

    def limited(self, model, batch, plan):
        replayed = model is not self.model
        if replayed and len(batch.record_ids) > 1:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return accumulate(self, model, batch, plan)

    monkeypatch.setattr(step.TrainStep, "_accumulate", limited)
    small = config.model_copy(update={"batch": config.batch.model_copy(update={"max_bonds": 4000, "max_angles": 8000})})
    assert train(small, LocalContext("cpu")).completed
    assert RunFolder.of(config).load_state("last")["progress"]["budget_factor"] < 1


def test_residual_starts_better_than_frozen_and_an_absurd_start_is_refused(make_config, other_dataset):
    data = {"path": str(other_dataset)}
    keys = {"data": data, "reference": {"mode": "residual"}, "training": {"epochs": 0}}
    config = tuned(make_config, "residual", "0.3.0", **keys)
    train(config, LocalContext("cpu"))
    doctor = RunFolder.of(config).load_state("last")["progress"]["reference"]["doctor"]
    origin = RunFolder.of(config).load_state("last")["progress"]["reference"]
    assert origin["shift"]["prior"] == "tables", "these labels differ by the very tables"
    assert doctor["zero_step"]["residual"] < 0.5 * doctor["zero_step"]["frozen"]
    assert set(doctor["zero_step"]) == {"refit", "frozen", "trainable", "residual"}
    absurd = tuned(make_config, "absurd", "0.3.0", data=data, reference={"mode": "frozen", "start_limit": 0.5})
    with pytest.raises(AbsurdStartError, match=r"reference\.start_limit 0\.5"):
        train(absurd, LocalContext("cpu"))
    assert not RunFolder.of(absurd).path.exists()


def test_defaults_change_nothing():
    assert TransferConfig().layer_decay == 1
    assert TransferConfig().unfreeze_every == TransferConfig().l2_sp == 0
