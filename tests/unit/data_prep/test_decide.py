"""Decisions about the whole set: repetitions, lying functionals, outliers, and how records are grouped and split."""

import numpy as np
import pytest

from data_prep.decide import LabelsLieError, decide, robust_residuals, spread
from data_prep.facts import NO_REASON, REASONS, FactsTable, RecordFacts
from data_prep.sources.base import ParsedFrame
from rung.config.preparation import FilterConfig, SplitConfig
from rung.data.index import REJECTED, Index
from rung.data.record import StructureRecord
from rung.data.reference import bundled_reference
from tests.unit.data.samples import write_dataset

GGA, R2SCAN = bundled_reference("MPtrj"), bundled_reference("MP-r2SCAN")


def record(number: int, *, functional="GGA", excess=0.0, edge=4.0, numbers=(26, 8), **replaced) -> StructureRecord:
    """A crystal whose energy per atom is `excess` above the functional's references."""
    table = R2SCAN if functional.startswith("r2SCAN") else GGA
    named = {"material_id": f"m-{number}", "frame_id": "f", "source": "test", "functional": functional}
    labels = {"energy": float(table[np.array(numbers) - 1].sum() + len(numbers) * excess)}
    return StructureRecord(
        atomic_numbers=np.array(numbers),
        lattice=(edge + 1e-3 * number) * np.eye(3),
        frac_coords=np.linspace(0, 0.5, len(numbers))[:, None] * np.ones(3),
        **{**named, **labels, **replaced},
    )


@pytest.fixture
def judged(tmp_path):
    def make(records, filters=None, split=None, restored=()):
        folder = write_dataset(tmp_path / f"set-{len(list(tmp_path.iterdir()))}", records)
        names = sorted(path.name.removesuffix(".lmdb") for path in folder.glob("*.lmdb"))
        facts = FactsTable.of([RecordFacts.of(ParsedFrame(each, "energy"), 0, None) for each in records])
        return decide(
            Index(folder, names), facts, FilterConfig(**(filters or {})), SplitConfig(**(split or {})), restored
        )

    return make


def reasons(decision) -> dict[int, str]:
    return {row: REASONS[decision.reason[row]].value for row in np.flatnonzero(decision.reason != NO_REASON).tolist()}


def test_same_names_are_duplicates_whatever_the_filters_say(judged):
    records = [record(0), record(0, edge=4.5), record(0, functional="r2SCAN")]
    assert reasons(judged(records, {"duplicates": "keep"})) == {1: "duplicate"}


def test_same_structure_functional_and_energy(judged):
    first = record(0)
    same = {"lattice": first.lattice, "frac_coords": first.frac_coords}

    def twin(number, **replaced):
        made = record(number)
        fields = {name: getattr(made, name) for name in ("atomic_numbers", "energy", "source", "functional")}
        return StructureRecord(**fields | same | {"material_id": f"m-{number}", "frame_id": "f"} | replaced)

    records = [first, twin(1), twin(2, energy=first.energy + 0.1), twin(3, functional="r2SCAN", energy=-80.0)]
    records += [twin(4, forces=np.zeros((2, 3))), twin(5)]
    decision = judged(records, {"functional_check": "off"})
    assert reasons(decision) == {1: "duplicate", 5: "duplicate"}
    assert "record 0, m-0/f" in decision.details[5]
    assert reasons(judged(records, {"functional_check": "off", "duplicates": "keep"})) == {}


def test_labels_that_lie_alone_are_refused(judged):
    """Trap 3: r2SCAN's references of W lie 20 eV/atom below those of GGA."""
    good = [record(number, numbers=(74, 8), functional="r2SCAN") for number in range(5)]
    liar = record(9, numbers=(74, 8), functional="r2SCAN", energy=float(GGA[73] + GGA[7]))
    decision = judged([*good, liar])
    assert reasons(decision) == {5: "functional_mismatch"}
    assert "MPtrj" in decision.details[5]
    assert reasons(judged([*good, liar], {"functional_check": "off", "outlier_z": None})) == {}


def test_a_set_that_lies_as_a_whole_is_an_error(judged):
    liars = [
        record(number, numbers=(74, 8), functional="r2SCAN", energy=float(GGA[73] + GGA[7])) for number in range(5)
    ]
    with pytest.raises(LabelsLieError, match=r"5 of 5 records that state the functional r2SCAN .*source\.functional"):
        judged([record(9), *liars])
    with pytest.raises(LabelsLieError):
        judged(liars, {"functional_check": "warn"})
    judged(liars, {"functional_check": "off"})


def test_a_warning_in_place_of_a_refusal(judged, caplog):
    good = [record(number, numbers=(74, 8)) for number in range(5)]
    liar = record(9, numbers=(74, 8), energy=float(R2SCAN[73] + R2SCAN[7]))
    assert reasons(judged([*good, liar], {"functional_check": "warn", "outlier_z": None})) == {}
    assert "1 of 6 records that state GGA have energies that fit MP-r2SCAN" in caplog.text


def test_functionals_without_a_table_pass(judged):
    assert reasons(judged([record(number, functional="HSE06", energy=-1000.0) for number in range(5)])) == {}


def test_outliers_of_each_label(judged):
    records = [record(number) for number in range(30)]
    records += [record(30, excess=620.0)]
    records += [record(31, forces=np.array([[16_657.0, 0, 0], [0, 0, 0]])), record(32, forces=np.ones((2, 3)))]
    records += [record(33, stress=np.diag([900.0, 0, 0])), record(34, stress=np.diag([20.0, 0, 0]))]
    decision = judged(records)
    assert reasons(decision) == {30: "energy_outlier", 31: "force_outlier", 33: "stress_outlier"}
    assert "+620" in decision.details[30]
    assert reasons(judged(records, {"outlier_z": None})) == {}
    assert 31 not in reasons(judged(records, {"force_floor": 20_000.0}))


def test_outliers_do_not_hide_themselves(judged):
    """A fifth of absurd energies would pull a plain least-squares fit to themselves."""
    records = [record(number, numbers=(26, 8) if number % 2 else (26, 26, 8)) for number in range(40)]
    records += [record(40 + number, excess=300.0 + 50 * number) for number in range(10)]
    assert sorted(reasons(judged(records))) == list(range(40, 50))


def test_an_element_that_only_outliers_have_is_not_judged(judged):
    records = [record(number) for number in range(30)] + [record(30, numbers=(54, 8), energy=5e4)]
    assert 30 not in reasons(judged(records))


def test_functionals_are_judged_apart(judged):
    """r2SCAN's energies are no outliers beside GGA's."""
    records = [record(number, numbers=(74, 8)) for number in range(30)]
    records += [record(30 + number, numbers=(74, 8), functional="r2SCAN") for number in range(3)]
    assert reasons(judged(records)) == {}


def test_restored_records_stay(judged):
    records = [record(number) for number in range(30)] + [record(30, excess=620.0)]
    decision = judged(records, restored=[30])
    assert reasons(decision) == {}
    assert decision.split[30] != REJECTED


def test_only_records_in_use_have_a_split(judged):
    decision = judged([record(number) for number in range(30)] + [record(30, excess=620.0)])
    assert np.flatnonzero(decision.split == REJECTED).tolist() == [30]


@pytest.mark.parametrize("by", ["composition", "chemical_system"])
def test_split_by_composition_or_elements(judged, by):
    kinds = [(26, 8), (26, 26, 8, 8), (26, 8, 8), (11, 17), (17, 11)]
    records = [record(number, numbers=kinds[number % 5]) for number in range(40)]
    together = [{0, 1}, {3, 4}] if by == "composition" else [{0, 1, 2}, {3, 4}]
    for salt in "abcd":
        split = judged(records, {"outlier_z": None}, {"by": by, "salt": salt, "test": 0.4, "validation": 0.2}).split
        for group in together:
            assert len({split[row] for row in range(40) if row % 5 in group}) == 1


def test_spread_is_robust():
    values = np.concatenate((np.random.default_rng(0).normal(scale=2.0, size=10_000), [1e9] * 100))
    assert spread(values) == pytest.approx(2.0, rel=0.05)
    assert spread(np.array([1.0, 2.0])) == 0.0


def test_residuals_of_an_exact_set_are_zero(tmp_path):
    records = [record(number, numbers=numbers) for number, numbers in enumerate([(26, 8), (26, 26, 8), (8, 8, 26)] * 5)]
    folder = write_dataset(tmp_path / "set", records)
    index = Index(folder, sorted(path.name.removesuffix(".lmdb") for path in folder.glob("*.lmdb")))
    np.testing.assert_allclose(robust_residuals(index, np.arange(15)), 0, atol=1e-6)
