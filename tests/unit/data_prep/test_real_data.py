"""Real first-principles data through the whole preparation."""

import gzip
import json
from pathlib import Path

import numpy as np
import pytest

from data_prep.convert import prepare
from data_prep.verify import verify
from rung.data.dataset import ShardDataset
from rung.data.fields import Labels


def by_name(dataset: ShardDataset) -> dict[str, int]:
    return {name: i for i, name in enumerate(dataset.record_names(range(len(dataset))))}


def test_mptrj_format(shared_data, config_for):
    path = shared_data / "derived-mptrj-format" / "mp_tasks_in_mptrj_format.json.gz"
    config = config_for(path)
    summary = prepare(config)
    assert (summary.records_read, summary.records_kept, summary.records_rejected) == (780, 730, {"duplicate": 50})
    dataset = ShardDataset(config.output)
    labels = dataset.index.labels
    assert np.count_nonzero(labels & Labels.MAGMOMS) == 212
    assert np.all(labels & (Labels.ENERGY | Labels.FORCES | Labels.STRESS) == 7)
    assert dataset.index.num_atoms.sum() == 12_518
    assert verify(Path(config.output)).problems == ()

    names = by_name(dataset)
    content = json.loads(gzip.decompress(path.read_bytes()))
    frames = [(frame_id, frame) for frames in content.values() for frame_id, frame in frames.items()]
    ids = {name.partition("/")[2]: i for name, i in names.items()}
    for frame_id, frame in frames[::40]:
        record = dataset[ids[frame_id]]
        assert record.energy / record.num_atoms == pytest.approx(frame["energy_per_atom"], abs=1e-12)
        np.testing.assert_allclose(record.forces, frame["force"], atol=1e-6)
        np.testing.assert_allclose(record.stress, -0.1 * np.array(frame["stress"]), rtol=1e-6, atol=1e-6)
        if frame["magmom"] is None:
            assert record.magmoms is None
        else:
            np.testing.assert_allclose(record.magmoms, np.abs(frame["magmom"]), atol=1e-6)


@pytest.fixture
def element_references(shared_data, config_for, tmp_path) -> dict[str, ShardDataset]:
    datasets = {}
    for functional, name in (("GGA", "PBE"), ("r2SCAN", "r2SCAN")):
        path = shared_data / "matpes-element-refs" / f"MatPES-{name}-Element-Refs.json.gz"
        config = config_for(path, "matpes", output=str(tmp_path / name))
        summary = prepare(config)
        assert (summary.records_read, summary.records_kept) == (89, 89)
        assert verify(Path(config.output)).problems == ()
        datasets[functional] = ShardDataset(config.output)
        assert set(datasets[functional].index.functional.tolist()) == {functional.encode()}
        assert np.all(datasets[functional].index.labels == 15)
    return datasets


def test_matpes_pairs_show_the_shift(element_references):
    """63 elements have the same structure in both sets; figures as measured from the raw files."""
    gga, r2scan = element_references["GGA"], element_references["r2SCAN"]
    pairs = [(i, by_name(r2scan)[name]) for name, i in by_name(gga).items() if name in by_name(r2scan)]
    assert len(pairs) == 63
    energies = np.array([(gga[i].energy / gga[i].num_atoms, r2scan[j].energy / r2scan[j].num_atoms) for i, j in pairs])
    assert np.diff(energies, axis=1).mean() == pytest.approx(-21.76, abs=0.01)
    assert np.corrcoef(energies.T)[0, 1] == pytest.approx(0.519, abs=0.001)
    for i, j in pairs:
        assert gga.index.split[i] == r2scan.index.split[j]
        np.testing.assert_allclose(gga[i].lattice, r2scan[j].lattice, atol=2e-4)


def test_matpes_voigt_stress(element_references, shared_data):
    raw = json.loads(
        gzip.decompress((shared_data / "matpes-element-refs" / "MatPES-PBE-Element-Refs.json.gz").read_bytes())
    )
    dataset = element_references["GGA"]
    record = dataset[list(raw).index("Fe")]
    xx, yy, zz, yz, xz, xy = raw["Fe"]["stress"]
    expected = -0.1 * np.array([[xx, xy, xz], [xy, yy, yz], [xz, yz, zz]])
    np.testing.assert_allclose(record.stress, expected, rtol=1e-6)
    assert record.magmoms.tolist() == [2.25, 2.25]
