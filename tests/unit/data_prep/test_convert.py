"""prepare: a raw file becomes a data set that reads back, whole or not at all, the same every time."""

import errno
import json
import logging
import os
from pathlib import Path

import numpy as np
import pytest

from data_prep import output
from data_prep.convert import NoUsableRecordError, prepare
from data_prep.output import OutputError
from data_prep.verify import verify
from rung.data.dataset import ShardDataset
from rung.data.fields import Labels

SMALL_SHARDS = {"max_mb": 0.001}


REASONS = {"isolated_atom": 1, "no_label": 1, "not_finite": 1, "overlapping_atoms": 1}


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name != "summary.json"}


def nothing_left(config) -> bool:
    folder = Path(config.output)
    return not folder.exists() and not list(folder.parent.glob(".*"))


def test_reads_back(raw, config_for):
    config = config_for(raw, shards=SMALL_SHARDS)
    summary = prepare(config)
    assert (summary.records_read, summary.records_kept, summary.shards) == (28, 24, 4)
    assert summary.records_rejected == REASONS
    dataset = ShardDataset(config.output)
    assert len(dataset) == 24
    assert dataset.record_names([0, 23]) == ["mp-0/mp-0-0-0", "mp-11/mp-11-0-1"]
    record = dataset[2]
    assert record.energy == -8.0
    assert record.magmoms.tolist() == [1.0, 2.0]
    assert dataset[0].labels == Labels.ENERGY | Labels.FORCES | Labels.STRESS
    np.testing.assert_allclose(np.diag(record.stress), [-1.0, -2.0, -3.0], rtol=1e-6)
    assert verify(Path(config.output)).problems == ()


def test_every_rejection_is_listed(raw, config_for, caplog):
    config = config_for(raw)
    with caplog.at_level(logging.WARNING):
        prepare(config)
    lines = [json.loads(line) for line in (Path(config.output) / "quarantine.jsonl").read_text().splitlines()]
    assert {(line["material_id"], line["frame_id"], line["reason"]) for line in lines} == {
        ("mp-3", "isolated", "isolated_atom"),
        ("mp-4", "overlap", "overlapping_atoms"),
        ("mp-5", "nan", "not_finite"),
        ("mp-6", "bare", "no_label"),
    }
    assert all(line["source"] == "test" and line["detail"] and line["position"] > 0 for line in lines)
    assert "4 of 28 records rejected" in caplog.text


def test_manifest(raw, config_for):
    config = config_for(raw)
    prepare(config)
    manifest = json.loads((Path(config.output) / "manifest.json").read_text())
    assert manifest["counts"] == {"read": 28, "stored": 24, "kept": 24, "rejected": REASONS}
    assert manifest["graph"] == {"atom_cutoff": 6.0, "bond_cutoff": 3.0}
    assert manifest["elements"] == {"Na": 24, "Cl": 24}
    assert manifest["functionals"] == {"GGA": 24}
    assert manifest["source"]["num_bytes"] == raw.stat().st_size
    assert manifest["source"]["dataset"] == "test"
    assert sum(manifest["split"]["records"].values()) == 24
    assert sum(manifest["split"]["materials"].values()) == 12
    assert manifest["labels"]["magmoms"]["records"] == 12
    assert manifest["labels"]["energy"]["mean"] == pytest.approx(-4.0)
    assert manifest["labels"]["energy_keys"] == {"energy_per_atom": 24}
    assert "output" not in manifest["config"]


def test_summary_has_the_figures(raw, config_for):
    config = config_for(raw)
    summary = prepare(config)
    written = json.loads((Path(config.output) / "summary.json").read_text())
    assert written == summary.to_json()
    assert written["records_rejected"] == 4
    assert written["records_per_second"] > 0
    assert written["bytes"] == sum(path.stat().st_size for path in Path(config.output).glob("shard-*"))


def test_same_input_same_bytes(raw, config_for, tmp_path):
    one, two = config_for(raw), config_for(raw, output=str(tmp_path / "again"))
    prepare(one)
    prepare(two)
    assert contents(Path(one.output)) == contents(Path(two.output))


def test_any_ordered_map_gives_the_same_bytes(raw, config_for, tmp_path, monkeypatch):
    from concurrent.futures import ThreadPoolExecutor

    one, two = config_for(raw), config_for(raw, output=str(tmp_path / "again"))
    prepare(one)
    monkeypatch.setattr("data_prep.sources.json_file.JsonFile.chunk", 3)
    with ThreadPoolExecutor(2) as pool:
        prepare(two, run_chunks=pool.map)
    assert contents(Path(one.output)) == contents(Path(two.output))


def test_work_can_be_sent_to_another_process(raw, config_for):
    import pickle

    from data_prep.encode import Encoded, Encoder
    from data_prep.sources.registry import open_source

    config = config_for(raw)
    source = open_source(config.source)
    frames = list(source.frames())
    source.close()
    work = pickle.loads(pickle.dumps(Encoder(source.parser, config.graph, config.filters)))
    outcomes = pickle.loads(pickle.dumps(work(frames)))
    assert sum(isinstance(outcome, Encoded) for outcome in outcomes) == 24


def test_second_call_reuses(raw, config_for, caplog):
    config = config_for(raw)
    first = prepare(config)
    before = contents(Path(config.output))
    with caplog.at_level(logging.INFO):
        second = prepare(config)
    assert second.reused
    assert (second.records_kept, second.records_rejected) == (first.records_kept, first.records_rejected)
    assert second.num_bytes == first.num_bytes
    assert "already prepared" in caplog.text
    assert contents(Path(config.output)) == before


def test_reuse_outlives_the_raw_file(raw, config_for):
    config = config_for(raw)
    prepare(config)
    raw.unlink()
    assert prepare(config).reused


def test_other_settings_are_refused_by_name(raw, config_for):
    prepare(config_for(raw))
    other = config_for(raw, split={"test": 0.2}, source={"energy": "uncorrected"})
    with pytest.raises(OutputError) as error:
        prepare(other)
    assert "source.energy is None there, 'uncorrected' asked" in str(error.value)
    assert "split.test is 0.1 there, 0.2 asked" in str(error.value)


def test_changed_raw_file_is_refused(raw, config_for):
    config = config_for(raw)
    prepare(config)
    raw.write_bytes(raw.read_bytes() + b" ")
    with pytest.raises(OutputError, match="has changed since"):
        prepare(config)


def test_touched_raw_file_is_not_changed(raw, config_for):
    config = config_for(raw)
    prepare(config)
    os.utime(raw, ns=(2**62, 2**62))
    assert prepare(config).reused
    raw.write_bytes(raw.read_bytes().replace(b"-6.0", b"-7.0"))
    os.utime(raw, ns=(2**62, 2**62))
    with pytest.raises(OutputError, match="has changed since"):
        prepare(config)


def test_folder_with_other_things_is_refused(raw, config_for):
    config = config_for(raw)
    Path(config.output).mkdir()
    (Path(config.output) / "thesis.tex").touch()
    with pytest.raises(OutputError, match="not empty"):
        prepare(config)
    assert [path.name for path in Path(config.output).iterdir()] == ["thesis.tex"]


def test_output_that_is_a_file_is_refused(raw, config_for):
    config = config_for(raw)
    Path(config.output).touch()
    with pytest.raises(OutputError, match="is a file"):
        prepare(config)


def test_empty_folder_is_used(raw, config_for):
    config = config_for(raw)
    Path(config.output).mkdir()
    assert prepare(config).records_kept == 24


def test_two_preparations_of_one_output(raw, config_for):
    config = config_for(raw)
    with output.partial_folder(Path(config.output)) as folder:
        with pytest.raises(OutputError, match="another process"):
            prepare(config)
        assert folder.is_dir()
    assert prepare(config).records_kept == 24


@pytest.mark.parametrize("where", ["ShardWriter.add", "ShardWriter.finish", "FactsTable.save"])
def test_full_disk(raw, config_for, monkeypatch, where):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(f"data_prep.store.{where}", full)
    config = config_for(raw)
    with pytest.raises(OutputError, match=r"No space left on device.*run the same command to go on"):
        prepare(config)
    assert not Path(config.output).exists()
    monkeypatch.undo()
    assert prepare(config).records_kept == 24


@pytest.mark.parametrize("where", ["finish.write_json", "finish.write_splits", "convert.write_json"])
def test_full_disk_in_the_second_pass(raw, config_for, monkeypatch, tmp_path, where):
    def full(path, _):
        path.with_name(".some.partial").write_bytes(b"{")
        raise OSError(errno.ENOSPC, "No space left on device")

    config, whole = (
        config_for(raw, shards=SMALL_SHARDS),
        config_for(raw, shards=SMALL_SHARDS, output=str(tmp_path / "whole")),
    )
    prepare(whole)
    monkeypatch.setattr(f"data_prep.{where}", full)
    with pytest.raises(OutputError, match="No space left on device"):
        prepare(config)
    assert not Path(config.output).exists()
    monkeypatch.undo()
    prepare(config)
    assert contents(Path(config.output)) == contents(Path(whole.output))


def test_unwritable_place(raw, config_for, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match=r"cannot write output .*Not a directory"):
        prepare(config_for(raw, output=str(tmp_path / "file" / "out")))


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_folder_without_permission(raw, config_for, tmp_path):
    (tmp_path / "closed").mkdir(mode=0o500)
    with pytest.raises(OutputError, match="Permission denied"):
        prepare(config_for(raw, output=str(tmp_path / "closed" / "out")))


def test_duplicates_keep_the_first(mptrj_frame, write, config_for):
    frames = ",".join(f'"f": {json.dumps(mptrj_frame(energy_per_atom=energy))}' for energy in (-4.0, -5.0))
    again = json.dumps({"f": mptrj_frame()})
    text = f'{{"mp-1": {{{frames}}}, "mp-2": {again}, "mp-1": {again}}}'
    config = config_for(write(text), filters={"duplicates": "keep"})
    summary = prepare(config)
    assert (summary.records_kept, summary.records_rejected) == (2, {"duplicate": 2})
    assert ShardDataset(config.output)[0].energy == -8.0


def test_limit_counts_raw_records(raw, config_for):
    config = config_for(raw, source={"limit": 9})
    assert prepare(config).records_read == 9
    manifest = json.loads((Path(config.output) / "manifest.json").read_text())
    assert len(manifest["source"]["sha256"]) == 64


def test_mixed_energies_are_pointed_out(mptrj_frame, write, config_for, caplog):
    other = mptrj_frame(energy_per_atom=None, corrected_total_energy=None)
    prepare(config_for(write({"mp-1": {"a": mptrj_frame(), "b": other}}), filters={"duplicates": "keep"}))
    assert "corrected and uncorrected energies do not mix" in caplog.text


def test_split_goes_by_material_in_every_source(raw, matpes_record, write, config_for, tmp_path):
    gga = config_for(raw)
    prepare(gga)
    records = [
        matpes_record(functional="r2SCAN", matpes_id=f"x-{m}", provenance={"original_mp_id": f"mp-{m}"})
        for m in range(12)
    ]
    repeated = {"duplicates": "keep"}
    r2scan = config_for(write(records, "r2scan.json"), "matpes", output=str(tmp_path / "r2scan"), filters=repeated)
    prepare(r2scan)
    split_of = {}
    for config in (gga, r2scan):
        index = ShardDataset(config.output).index
        for material, split in zip(index.material_id.tolist(), index.split.tolist(), strict=True):
            assert split_of.setdefault(material, split) == split
    assert len(split_of) == 12


def test_nothing_usable(mptrj_frame, structure, write, config_for):
    isolated = mptrj_frame(structure=structure(edge=30.0))
    config = config_for(write({"mp-1": {"a": isolated, "b": isolated, "c": mptrj_frame(structure=None)}}))
    with pytest.raises(NoUsableRecordError) as error:
        prepare(config)
    text = str(error.value)
    assert "no usable record among the 3" in text
    assert "isolated_atom 2, missing_key 1" in text
    assert "First of each reason: isolated_atom: a (" in text
    assert nothing_left(config)
