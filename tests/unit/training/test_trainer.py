"""The loop: exact resume, independence of batch limits, and what it refuses."""

import dataclasses
import json

import pytest
import torch
from chgnet.model import CHGNet

from rung.data.dataset import ShardDataset
from rung.training.context import LocalContext
from rung.training.run import RunFolder
from rung.training.sinks import read_metrics
from rung.training.step import NonFiniteError
from rung.training.trainer import train


class StopsAt(LocalContext):
    """A rank that is asked to leave before a global step, as by a preemption notice."""

    def __init__(self, step):
        super().__init__("cpu")
        self.step = step

    def should_stop(self, step):
        return step >= self.step


class DiesAt(LocalContext):
    """A rank that is lost at a global step without a word."""

    def __init__(self, step):
        super().__init__("cpu")
        self.step = step

    def should_stop(self, step):
        if step >= self.step:
            raise SystemExit("killed")
        return False


def cpu():
    return LocalContext("cpu")


def final_state(config):
    return RunFolder.of(config).load_state("last")


def assert_same_weights(first, second, **tolerance):
    one, other = first["model"]["state_dict"], second["model"]["state_dict"]
    assert one.keys() == other.keys()
    for name, weights in one.items():
        torch.testing.assert_close(weights, other[name], msg=name, **(tolerance or {"rtol": 0, "atol": 0}))


WITH_EVERYTHING = {
    "optimizer": {"learning_rate": 3e-3, "ema_decay": 0.9, "clip_norm": 1.0, "kind": "adamw", "weight_decay": 1e-2},
    "schedule": {"warmup": 0.2},
}


@pytest.mark.parametrize("stop", [1, 3, 4])
def test_train_n_and_resume_m_is_train_n_plus_m(make_config, stop):
    whole, halves = make_config("whole", **WITH_EVERYTHING), make_config("halves", **WITH_EVERYTHING)
    expected = train(whole, cpu())
    stopped = train(halves, StopsAt(stop))
    assert not stopped.completed
    assert stopped.steps == stop
    resumed = train(halves, cpu())
    assert resumed.completed
    assert_same_weights(final_state(whole), final_state(halves))
    for key in ("best", "zero_step", "best_step", "steps"):
        assert getattr(resumed, key) == getattr(expected, key)
    assert final_state(whole)["average"]["num_updates"] == final_state(halves)["average"]["num_updates"]


def test_a_killed_run_repeats_the_lost_steps_and_logs_each_once(make_config):
    training = {"epochs": 3, "log_every": 1, "checkpoint_every": 2}
    whole, killed = make_config("whole", training=training), make_config("killed", training=training)
    train(whole, cpu())
    for step in (3, 5):
        with pytest.raises(SystemExit):
            train(killed, DiesAt(step))
    train(killed, cpu())
    assert_same_weights(final_state(whole), final_state(killed))

    def errors(config):
        lines = read_metrics(RunFolder.of(config).path / "metrics.jsonl")
        return [
            {key: value for key, value in line.items() if not key.startswith(("time/", "memory/"))} for line in lines
        ]

    assert errors(killed) == errors(whole)


def test_a_complete_run_returns_its_summary_at_once(make_config):
    config = make_config()
    first = train(config, cpu())
    before = (RunFolder.of(config).path / "metrics.jsonl").stat().st_mtime_ns
    assert train(config, cpu()) == first
    assert (RunFolder.of(config).path / "metrics.jsonl").stat().st_mtime_ns == before


def test_metrics_and_weights_do_not_depend_on_how_a_batch_is_cut(make_config):
    whole = make_config("whole")
    cut = make_config("cut", batch={"structures": 6, "max_bonds": 150, "max_angles": 100})
    first, second = train(whole, cpu()), train(cut, cpu())
    assert_same_weights(final_state(whole), final_state(cut), rtol=2e-4, atol=2e-6)
    for split, errors in first.zero_step.items():
        assert second.zero_step[split] == pytest.approx(errors, rel=1e-5)


def test_learning_lowers_the_training_loss(make_config):
    config = make_config(training={"epochs": 12, "log_every": 5}, optimizer={"learning_rate": 1e-2})
    train(config, cpu())
    losses = [
        line["train/loss"] for line in read_metrics(RunFolder.of(config).path / "metrics.jsonl") if "train/loss" in line
    ]
    assert losses[-1] < 0.8 * losses[0]


def test_the_best_weights_are_what_is_exported(make_config):
    config = make_config(optimizer={"learning_rate": 1e-2, "ema_decay": 0.8})
    summary = train(config, cpu())
    validation = [
        (line["validation/loss"], line["step"])
        for line in read_metrics(RunFolder.of(config).path / "metrics.jsonl")
        if "validation/loss" in line
    ]
    assert summary.best_step == min(validation)[1]
    assert summary.best["validation"]["loss"] == pytest.approx(min(validation)[0], rel=1e-6)
    exported = CHGNet.from_file(summary.model)
    for name, weights in RunFolder.of(config).load_model("best").state_dict().items():
        assert torch.equal(exported.state_dict()[name], weights), name


def test_zero_epochs_evaluate_the_untouched_model(make_config):
    config = make_config(
        training={"epochs": 0}, model={"init": "0.3.0"}, reference={"mode": "frozen"}, batch={"structures": 4}
    )
    summary = train(config, cpu())
    assert summary.steps == 0
    assert summary.best == summary.zero_step
    assert summary.zero_step["test"]["energy_mae"] < 1e-5, "the labels are this model's own predictions"
    # In other batches, float32 rounds otherwise; it is 1e-5 eV/Å off float64 on these cells, whoever multiplies.
    assert summary.zero_step["test"]["force_mae"] < 2e-5


def test_frozen_blocks_do_not_move(make_config):
    config = make_config(model={**make_config().model.model_dump(), "freeze_depth": 2})
    train(config, cpu())
    first, last = RunFolder.of(config).checkpoints(), final_state(config)["model"]["state_dict"]
    start = first.load(first.steps()[0])["model"]["state_dict"]
    moved = {name for name, weights in last.items() if not torch.equal(weights, start[name])}
    assert not any(name.startswith(("atom_embedding", "bond_embedding", "atom_conv_layers.0.")) for name in moved)
    assert any(name.startswith("atom_conv_layers.1.") for name in moved)
    assert not any(name.startswith("composition_model") for name in moved)


def test_a_trainable_reference_moves_and_a_frozen_one_does_not(make_config):
    source = make_config("source")
    train(source, cpu())
    before = final_state(source)["model"]["state_dict"]["composition_model.fc.weight"]
    for mode, moves in (("trainable", True), ("frozen", False)):
        config = make_config(mode, model={"init": str(RunFolder.of(source).path)}, reference={"mode": mode})
        train(config, cpu())
        after = final_state(config)["model"]["state_dict"]["composition_model.fc.weight"]
        assert torch.equal(before, after) is not moves


@pytest.mark.parametrize(
    ("sections", "key"),
    [
        ({"optimizer": {"learning_rate": 1e-4}}, "optimizer.learning_rate: 0.003 then, 0.0001 now"),
        ({"batch": {"structures": 4}}, "batch.structures: 6 then, 4 now"),
        ({"training": {"epochs": 9, "log_every": 2}}, "training.epochs: 3 then, 9 now"),
    ],
)
def test_a_run_is_not_resumed_with_other_settings(make_config, sections, key):
    train(make_config(), StopsAt(2))
    with pytest.raises(ValueError, match=key):
        train(make_config(**sections), cpu())


def test_a_run_is_not_resumed_on_other_data(make_config, small_dataset, tmp_path):
    train(make_config(), StopsAt(2))
    other = tmp_path / "other"
    other.mkdir()
    for file in small_dataset.iterdir():
        (other / file.name).write_bytes(file.read_bytes())
    manifest = json.loads((other / "manifest.json").read_text())
    (other / "manifest.json").write_text(json.dumps(manifest | {"note": "touched"}))
    with pytest.raises(ValueError, match=r"data\.manifest: .* then, .* now"):
        train(make_config(data={"path": str(other)}), cpu())


def test_settings_that_do_not_decide_the_model_may_change(make_config):
    train(make_config(), StopsAt(2))
    summary = train(make_config(training={"epochs": 3, "log_every": 1, "keep": 5}), cpu())
    assert summary.completed


def test_a_gradient_that_is_not_finite_stops_before_the_update(make_config, monkeypatch):
    config = make_config()
    train(config, StopsAt(2))
    before = final_state(config)
    original = ShardDataset.__init__

    def poisoned(self, *args, **kwargs):
        original(self, *args, **kwargs)
        read = self.records.read
        reader = dataclasses.replace(self.records)
        object.__setattr__(
            reader, "read", lambda ids: [dataclasses.replace(record, energy=float("nan")) for record in read(ids)]
        )
        self.records = reader

    monkeypatch.setattr(ShardDataset, "__init__", poisoned)
    with pytest.raises(NonFiniteError, match=r"epoch 0 \(global step 3\) is not finite.*rank 0: .*surrogate-"):
        train(config, cpu())
    assert_same_weights(before, final_state(config))


def test_other_cutoffs_are_refused_with_both(make_config):
    model = make_config().model.model_dump() | {"graph": {"atom_cutoff": 5.0, "bond_cutoff": 3.0}}
    with pytest.raises(ValueError, match=r"6\.0.*5\.0"):
        train(make_config(model=model), cpu())


def test_steps_are_traced_on_request(make_config):
    config = make_config(training={"epochs": 1, "profile": [2, 3]})
    train(config, cpu())
    trace = json.loads((RunFolder.of(config).path / "trace-steps-2-3.json").read_text())
    assert any("index_select" in event.get("name", "") for event in trace["traceEvents"])


def test_speed_is_logged_with_what_bounds_it(make_config):
    config = make_config(training={"epochs": 1})
    train(config, cpu())
    logged = read_metrics(RunFolder.of(config).path / "metrics.jsonl")
    speeds = [line for line in logged if "time/structures_per_second" in line]
    assert speeds
    for line in speeds:
        assert line["time/atoms_per_second"] > line["time/structures_per_second"] > 0
        assert 0 <= line["time/data_wait"] < 1
        assert line["time/imbalance"] == 1
        assert line["memory/peak_mib"] > 50
