"""The comparison of two functionals."""

import json

import numpy as np
import pytest

from data_prep.convert import prepare
from rung.config.studies import FunctionalsConfig
from rung.config.tree import PrepareConfig
from rung.data.reference import bundled_reference, fit_reference
from rung.studies.agreement import Agreement
from rung.studies.functionals import NoPairsError, compare_with_tables, study_functionals


def test_agreement_by_hand():
    found = Agreement.of(np.array([0.0, 1.0, 2.0]), np.array([1.0, 2.0, 6.0]))
    assert found is not None
    assert (found.n, found.shift, found.mae, found.largest) == (3, 2.0, 2.0, 4.0)
    assert found.pearson == pytest.approx(np.corrcoef([0, 1, 2], [1, 2, 6])[0, 1])
    assert Agreement.of(np.zeros(4), np.arange(4.0)).pearson is None


def test_shifts_of_the_tables_are_recovered_and_an_outlier_is_named():
    rng = np.random.default_rng(0)
    truth = bundled_reference("MP-r2SCAN") - bundled_reference("MPtrj")
    counts = np.zeros((400, 94), dtype=np.int64)
    for row in counts:
        row[rng.choice([2, 7, 8, 10, 12, 15, 16, 19, 69], 3, replace=False)] = rng.integers(1, 5, 3)
    truth = truth + np.where(np.arange(94) == 69, -34.0, 0.0)
    noise = rng.normal(scale=0.01, size=len(counts)) * counts.sum(axis=1)
    found = compare_with_tables(fit_reference(counts, counts @ truth + noise))
    assert found["outliers"] == ["Yb"]
    assert found["agreement_without_outliers"]["pearson"] > 0.999


@pytest.fixture(scope="module")
def element_references(shared_data, tmp_path_factory):
    folder = tmp_path_factory.mktemp("pairs")
    files = {f: shared_data / f"matpes-element-refs/MatPES-{f}-Element-Refs.json.gz" for f in ("PBE", "r2SCAN")}
    for functional, path in files.items():
        source = {"kind": "matpes", "path": str(path)}
        prepare(PrepareConfig.model_validate({"output": str(folder / functional), "source": source}))
    return {
        side: {"data": {"path": str(folder / functional)}, "isolated_atoms": str(files[functional])}
        for side, functional in (("lower", "PBE"), ("upper", "r2SCAN"))
    }


def test_real_pairs_show_the_papers_effect(element_references, tmp_path):
    config = FunctionalsConfig.model_validate({"output": str(tmp_path), **element_references})
    summary = json.loads(study_functionals(config).read_text())
    assert summary["num_pairs"] == 63
    assert summary["energy"]["raw"]["pearson"] == pytest.approx(0.519, abs=5e-4)
    assert summary["energy"]["raw"]["shift"] == pytest.approx(-21.76, abs=5e-3)
    assert summary["energy"]["less isolated atoms"]["pearson"] == pytest.approx(0.992, abs=5e-4)
    assert summary["energy"]["less isolated atoms"]["shift"] == pytest.approx(0.097, abs=5e-4)
    assert summary["tables"]["outliers"] == ["Yb"]
    page = (tmp_path / "report.html").read_text()
    assert "0.519" in page
    assert "Yb_2" in page


def test_sets_without_a_common_structure_are_refused(element_references, small_dataset, tmp_path):
    sets = element_references | {"upper": {"data": {"path": str(small_dataset)}}}
    with pytest.raises(NoPairsError, match="no structure that is the same"):
        study_functionals(FunctionalsConfig.model_validate({"output": str(tmp_path), **sets}))
