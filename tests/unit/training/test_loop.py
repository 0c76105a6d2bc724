"""Steps that go wrong, and what the run is told to do about it."""

import dataclasses
import hashlib
import json
import shutil

import numpy as np
import pytest
import torch

from data_prep.convert import prepare
from rung.config.tree import PrepareConfig
from rung.data.codec import DamagedShardError
from rung.data.dataset import ShardDataset
from rung.training import loop, step, validate
from rung.training.context import LocalContext
from rung.training.run import RunFolder
from rung.training.session import MemoryBudgetError
from rung.training.sinks import INCIDENTS_NAME, read_metrics
from rung.training.step import NonFiniteError
from rung.training.trainer import train


def cpu():
    return LocalContext("cpu")


def incidents_of(config):
    return read_metrics(RunFolder.of(config).path / INCIDENTS_NAME)


def state_of(config):
    return RunFolder.of(config).load_state("last")


def spoiling(monkeypatch, spoil, when):
    """Have `spoil` change the batches of steps for which `when(number of the attempt)` holds."""
    compute, attempts = step.TrainStep.compute, []

    def spoilt(self, plan, batches, *replayed):
        attempts.append((plan.epoch, plan.step))
        return compute(self, plan, [spoil(batch) for batch in batches] if when(len(attempts)) else batches, *replayed)

    monkeypatch.setattr(step.TrainStep, "compute", spoilt)
    return attempts


def nan(batch):
    return dataclasses.replace(batch, energy=batch.energy * torch.nan)


def test_a_skipped_step_leaves_weights_and_sums_as_they_were(make_config, monkeypatch):
    config = make_config(faults={"non_finite": "skip"}, training={"epochs": 1, "log_every": 1})
    spoiling(monkeypatch, nan, lambda attempt: attempt == 3)
    summary = train(config, cpu())
    assert summary.completed
    (incident,) = incidents_of(config)
    assert incident["kind"] == "skipped step"
    assert "step 2 of epoch 0 (global step 3)" in incident["text"]
    assert "surrogate-" in incident["text"]
    logged = [line for line in read_metrics(RunFolder.of(config).path / "metrics.jsonl") if "gradient_norm" in line]
    assert [line["skipped_steps"] for line in logged] == [0, 0, 1, 1, 1, 1]
    assert all(np.isfinite(line.get("train/loss", 0.0)) for line in logged)
    assert int(state_of(config)["optimizer"]["state"][0]["step"]) == summary.steps - 1


def test_skipping_has_a_bound(make_config, monkeypatch):
    config = make_config(faults={"non_finite": "skip", "max_skips": 2})
    spoiling(monkeypatch, nan, lambda attempt: attempt >= 3)
    with pytest.raises(NonFiniteError, match=r"global step 5.*faults\.max_skips are used up"):
        train(config, cpu())


def test_a_rewound_run_goes_on_from_the_checkpoint_at_a_lower_rate(make_config, monkeypatch):
    training = {"epochs": 2, "log_every": 1, "checkpoint_every": 2}
    config = make_config(faults={"non_finite": "rewind"}, training=training, schedule={"kind": "constant"})
    attempts = spoiling(monkeypatch, nan, lambda attempt: attempt == 4)
    assert train(config, cpu()).completed
    assert attempts[:6] == [(0, 0), (0, 1), (0, 2), (0, 3), (0, 2), (0, 3)]
    (incident,) = incidents_of(config)
    assert "Going back from step 3 to the checkpoint of step 2" in incident["text"]
    lines = [line for line in read_metrics(RunFolder.of(config).path / "metrics.jsonl") if "learning_rate" in line]
    assert [line["step"] for line in lines] == list(range(1, 13)), "the steps that were undone are logged once"
    assert [line["learning_rate"] for line in lines] == pytest.approx([3e-3] * 2 + [1.5e-3] * 10)
    assert state_of(config)["progress"]["rewinds"] == 1


def test_a_loss_spike_is_reported_with_its_records(make_config, monkeypatch):
    config = make_config(training={"epochs": 4}, faults={"loss_spike": 5.0}, loss={"kind": "mse"})
    spoiling(
        monkeypatch,
        lambda batch: dataclasses.replace(batch, energy=batch.energy + 100.0),
        lambda attempt: attempt == 15,
    )
    train(config, cpu())
    spike = incidents_of(config)[0]
    assert spike["kind"] == "loss spike"
    assert "step 2 of epoch 2 (global step 15)" in spike["text"]
    assert spike["text"].count("surrogate-") == 6, "the records of the step"


def without_memory(monkeypatch, enough):
    """A device that holds so many structures at once."""
    accumulate = step.TrainStep._accumulate

    def limited(self, model, batch, plan):
        if len(batch.record_ids) > enough:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return accumulate(self, model, batch, plan)

    monkeypatch.setattr(step.TrainStep, "_accumulate", limited)


def test_without_memory_the_same_steps_are_done_in_smaller_parts(make_config, monkeypatch):
    training = {"epochs": 1, "log_every": 1}
    whole, cut = make_config("whole", training=training), make_config("cut", training=training)
    train(whole, cpu())
    without_memory(monkeypatch, enough=3)
    big = cut.model_copy(update={"batch": cut.batch.model_copy(update={"max_bonds": 2000, "max_angles": 2000})})
    assert train(big, cpu()).completed
    kinds = {incident["kind"] for incident in incidents_of(cut)}
    assert kinds == {"out of memory"}
    assert "rank 0 ran out of memory in step 1" in incidents_of(cut)[0]["text"]
    first, second = (state_of(config)["model"]["state_dict"] for config in (whole, cut))
    for name, weights in first.items():
        torch.testing.assert_close(second[name], weights, rtol=2e-3, atol=2e-5, msg=name)


def test_a_structure_that_does_not_fit_alone_ends_the_run(make_config, monkeypatch):
    without_memory(monkeypatch, enough=0)
    with pytest.raises(MemoryBudgetError, match="rank 0 ran out of memory in step 1 with a single structure"):
        train(make_config(batch={"structures": 6, "max_angles": 4000}), cpu())


def test_without_memory_an_evaluation_is_done_in_smaller_parts(make_config, monkeypatch):
    whole, cut = make_config("whole"), make_config("cut")
    train(whole, cpu())
    real, enough = validate.evaluate, 3

    def limited(model, batch, **options):
        if len(batch.record_ids) > enough:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return real(model, batch, **options)

    monkeypatch.setattr(validate, "evaluate", limited)
    big = cut.model_copy(update={"batch": cut.batch.model_copy(update={"max_bonds": 2000, "max_angles": 2000})})
    assert train(big, cpu()).completed
    assert "rank 0 ran out of memory in the evaluation after step 0. All ranks" in incidents_of(cut)[0]["text"]
    first, second = (state_of(config)["progress"]["zero_step"]["validation"] for config in (whole, cut))
    assert second == pytest.approx(first, rel=1e-4)
    enough = 0
    alone = make_config("alone", batch={"structures": 6, "max_angles": 4000})
    with pytest.raises(MemoryBudgetError, match="in the evaluation after step 0 with a single structure"):
        train(alone, cpu())


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    """Forty structures in several shards."""
    folder = tmp_path_factory.mktemp("shards") / "gga"
    source = {"kind": "surrogate", "functional": "GGA", "num_structures": 40}
    split = {"validation": 0.2, "test": 0.2}
    tree = {"output": str(folder), "source": source, "split": split, "shards": {"max_mb": 0.02}}
    prepare(PrepareConfig.model_validate(tree))
    return folder


@pytest.fixture(params=["bytes", "cut"])
def damaged(request, shards, tmp_path):
    """The same, the second shard damaged, and the name of that shard."""
    folder = tmp_path / "damaged"
    shutil.copytree(shards, folder)
    path = sorted(folder.glob("*.lmdb"))[1]
    content = bytearray(path.read_bytes())
    if request.param == "cut":  # reading what is not there would end the process with SIGBUS
        path.write_bytes(content[: len(content) // 2])
    else:
        content[8192:] = bytes(byte ^ 0xFF for byte in content[8192:])
        path.write_bytes(content)
    return folder, path.stem


def test_without_memory_errors_by_element_are_found_in_smaller_parts(make_config, monkeypatch):
    whole, cut = make_config("whole"), make_config("cut")
    train(whole, cpu())
    real = validate.Validator.element_sums

    def limited(self, model, record_ids):
        if self.largest_batch(record_ids) > 3:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return real(self, model, record_ids)

    monkeypatch.setattr(validate.Validator, "element_sums", limited)
    big = cut.model_copy(update={"batch": cut.batch.model_copy(update={"max_bonds": 2000, "max_angles": 2000})})
    assert train(big, cpu()).completed
    assert "rank 0 ran out of memory in the evaluation after step" in incidents_of(cut)[0]["text"]
    first, second = (
        json.loads((RunFolder.of(config).path / "elements.json").read_text())["test"] for config in (whole, cut)
    )
    assert first.keys() == second.keys()
    assert all(second[element] == pytest.approx(first[element], rel=1e-4) for element in first)


def test_a_damaged_shard_is_refused_by_name(make_config, damaged):
    folder, name = damaged
    config = make_config(data={"path": str(folder)}, training={"epochs": 1}, batch={"structures": 4})
    with pytest.raises(DamagedShardError, match=name):
        train(config, cpu())


@pytest.mark.parametrize("workers", [0, 1])
def test_a_damaged_shard_is_left_out_by_choice_and_named(make_config, damaged, workers):
    folder, name = damaged
    data = {"path": str(folder), "workers": workers}
    faults = {"damaged_shards": "skip"}
    config = make_config(data=data, faults=faults, training={"epochs": 1}, batch={"structures": 4})
    summary = train(config, cpu())
    assert summary.completed
    found = incidents_of(config)
    assert [(incident["kind"], incident["shard"]) for incident in found] == [("damaged shard", name)]
    assert state_of(config)["progress"]["left_out_shards"] == [name]


@pytest.mark.parametrize("workers", [0, 1])
def test_a_damaged_shard_of_the_second_functional_is_left_out_too(make_config, shards, damaged, workers):
    folder, name = damaged
    keys = {
        "data": {"path": str(shards), "workers": workers},
        "replay": {"path": str(folder), "share": 0.5},
        "batch": {"structures": 8},
        "training": {"epochs": 3},
    }
    with pytest.raises(DamagedShardError, match=name):
        train(make_config("refused", **keys), cpu())
    whole, halves = (make_config(run, faults={"damaged_shards": "skip"}, **keys) for run in ("whole", "halves"))
    assert train(whole, cpu()).completed
    found = incidents_of(whole)
    assert [(incident["kind"], incident["shard"]) for incident in found] == [("damaged shard", f"replay/{name}")]
    train(halves, StopsAt(7))
    assert train(halves, cpu()).completed
    for key, weights in state_of(whole)["model"]["state_dict"].items():
        assert torch.equal(state_of(halves)["model"]["state_dict"][key], weights), key


class StopsAt(LocalContext):
    def __init__(self, step):
        super().__init__("cpu")
        self.step = step

    def should_stop(self, step):
        return step >= self.step


@pytest.mark.parametrize("name", ["optimizer.learning_rate", "optimizer"])
def test_a_setting_may_change_where_the_config_says_so(make_config, tmp_path, name):
    train(make_config(), StopsAt(2))
    run = {"name": "run", "storage": str(tmp_path / "runs"), "allow_changes": [name]}
    config = make_config(run=run, optimizer={"learning_rate": 1e-4})
    assert train(config, cpu()).completed
    text = "optimizer.learning_rate: 0.003 then, 0.0001 now"
    assert text in incidents_of(config)[0]["text"]
    assert state_of(config)["progress"]["changes"] == [f"step 2: {text}"]
    assert train(make_config(optimizer={"learning_rate": 1e-4}), cpu()).completed, "it is the run's setting now"


def test_other_settings_than_the_allowed_are_refused_and_so_are_names_that_are_no_keys(make_config, tmp_path):
    train(make_config(), StopsAt(2))
    run = {"name": "run", "storage": str(tmp_path / "runs")}
    with pytest.raises(ValueError, match=r"loss\.force: 1.0 then, 2.0 now.*allow_changes: \[loss\.force\]"):
        train(make_config(run=run | {"allow_changes": ["optimizer"]}, loss={"force": 2.0}), cpu())
    with pytest.raises(ValueError, match=r"names optimiser, which is no key"):
        train(make_config(run=run | {"allow_changes": ["optimiser"]}), cpu())


def written_by(version, state):
    """The state as Rung wrote it in that version."""
    if version == 1:
        names = ("reference", "zero_step", "step", "best_loss", "structures_per_second")
        return state | {"progress": {name: state["progress"][name] for name in names}}  # all that it held
    return state


@pytest.mark.parametrize("version", [1, 2])
def test_a_checkpoint_of_an_older_version_is_upgraded_and_gives_the_same_model(make_config, version):
    whole, old = make_config("whole"), make_config("old")
    train(whole, cpu())
    train(old, StopsAt(4))
    store = RunFolder.of(old).checkpoints(keep=10)
    for number in store.steps():
        path, manifest = store.path(number) / "state.pt", store.path(number) / "manifest.json"
        torch.save(written_by(version, store.load(number)), path)
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        facts = json.loads(manifest.read_text()) | {"format_version": version, "state_sha256": digest}
        manifest.write_text(json.dumps(facts))
    assert train(old, cpu()).completed
    for name, weights in state_of(whole)["model"]["state_dict"].items():
        assert torch.equal(state_of(old)["model"]["state_dict"][name], weights), name


def test_no_random_numbers_are_drawn_after_the_initial_weights(make_config, monkeypatch):
    """So there are none whose state a checkpoint would have to hold."""
    whole, scrambled = make_config("whole"), make_config("scrambled")
    train(whole, cpu())
    compute, rng = step.TrainStep.compute, np.random.default_rng()

    def scrambling(self, plan, batches, *replayed):
        torch.manual_seed(int(rng.integers(2**31)))
        np.random.seed(int(rng.integers(2**31)))  # noqa: NPY002 (the global one is what must not matter)
        return compute(self, plan, batches, *replayed)

    monkeypatch.setattr(step.TrainStep, "compute", scrambling)
    train(scrambled, cpu())
    for name, weights in state_of(whole)["model"]["state_dict"].items():
        assert torch.equal(state_of(scrambled)["model"]["state_dict"][name], weights), name


@pytest.mark.parametrize(("minutes", "steps"), [(1e-9, [1, 2, 3, 4, 5, 6, 6]), (1e9, [6])])
def test_checkpoints_come_by_the_clock(make_config, monkeypatch, minutes, steps):
    save, saved = loop.Loop.save, []

    def noting(self, metrics):
        saved.append(self.session.progress.step)
        save(self, metrics)

    monkeypatch.setattr(loop.Loop, "save", noting)
    train(make_config(training={"epochs": 1, "checkpoint_minutes": minutes}), cpu())
    assert saved == steps


def test_storage_that_is_gone_for_a_while_costs_nothing(make_config, monkeypatch, tmp_path):
    """The run's folder gives way to a file in the middle of the run, so that every write is refused for real."""
    training = {"epochs": 3, "log_every": 1, "checkpoint_every": 1}
    whole, gone = make_config("whole", training=training), make_config("gone", training=training)
    train(whole, cpu())
    folder, aside = RunFolder.of(gone).path, tmp_path / "aside"

    class TakesAway(LocalContext):
        def should_stop(self, step):
            if step == 4:
                session_writer_idle(folder)
                folder.rename(aside)
                folder.touch()
            if step == 9:
                folder.unlink()
                aside.rename(folder)
            return False

    def session_writer_idle(folder):
        while list((folder / "checkpoints").glob(".step-*")):
            pass

    assert train(gone, TakesAway("cpu")).completed
    for name, weights in state_of(whole)["model"]["state_dict"].items():
        assert torch.equal(state_of(gone)["model"]["state_dict"][name], weights), name
    steps = [
        [line["step"] for line in read_metrics(RunFolder.of(config).path / "metrics.jsonl")] for config in (whole, gone)
    ]
    assert steps[0] == steps[1]


def test_a_record_left_out_keeps_the_place_of_all_others(shards):
    from rung.config.sections import BatchConfig
    from rung.data.sampler import StepSampler

    dataset = ShardDataset(shards)
    ids = dataset.select("train")
    make = lambda: StepSampler(dataset.index, ids, BatchConfig(structures=4), 0, 0, 1)  # noqa: E731
    for whole, less in zip(make().plans(1), make().without(ids[:5]).plans(1), strict=True):
        before = np.concatenate(whole.micro_batches)
        expected = before[~np.isin(before, ids[:5])]
        found = np.concatenate(less.micro_batches) if less.micro_batches else []
        assert sorted(found) == sorted(expected)
        assert less.label_counts.energy == len(expected)
