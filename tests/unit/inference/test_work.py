"""Predictions by chunks: the same numbers as chgnet's, one outcome for each structure."""

import pickle

import numpy as np
import pytest
import torch
from pymatgen.core import Lattice, Structure

from rung.config.inference import BudgetConfig
from rung.config.sections import ModelConfig
from rung.data.record import Reason, RecordError, StructureRecord
from rung.inference import predictor as predictor_module
from rung.inference.predictor import Predictor, TooLargeError
from rung.inference.work import Failure, Item, ModelCopy, Predicted, Work
from rung.model.weights import build
from tests.unit.conftest import SMALL_MODEL


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return build(ModelConfig.model_validate(SMALL_MODEL))


def cells(count=6):
    rng = np.random.default_rng(0)
    made = []
    for number in range(count):
        cell = Structure.from_spacegroup("Fm-3m", Lattice.cubic(4.3), ["Mn", "O"], [[0, 0, 0], [0.5, 0.5, 0.5]])
        cell.make_supercell([1 + number % 2, 1, 1])
        moved = cell.cart_coords + rng.normal(scale=0.05, size=(len(cell), 3))
        made.append(Structure(cell.lattice, cell.species, moved, coords_are_cartesian=True))
    return made


def record_of(cell):
    if isinstance(cell, RecordError):
        raise cell
    return StructureRecord(
        atomic_numbers=np.array(cell.atomic_numbers),
        lattice=cell.lattice.matrix,
        frac_coords=cell.frac_coords,
        source="test",
        material_id="m",
        frame_id="0",
        functional="none",
    )


def items(contents):
    return [Item(index, f"cell#{index}", content) for index, content in enumerate(contents)]


def work(model, **changes):
    settings = {"budget": BudgetConfig(), "properties": ("forces", "stress", "magmoms")} | changes
    return Work(ModelCopy.of(model), record_of, **settings)


@pytest.mark.parametrize("budget", [BudgetConfig(), BudgetConfig(max_bonds=1, max_angles=1)])
def test_predictions_are_those_of_chgnet(model, budget):
    outcomes = work(model, budget=budget)(items(cells()))
    for outcome, cell in zip(outcomes, cells(), strict=True):
        expected = model.predict_structure(cell)
        found = outcome.properties
        assert found.energy_per_atom == pytest.approx(float(expected["e"]), abs=1e-5)
        assert np.allclose(found.forces, expected["f"], atol=1e-5)
        assert np.allclose(found.stress, expected["s"], atol=1e-4)
        assert np.allclose(found.magmoms, expected["m"], atol=1e-5)
        assert outcome.frac_coords.shape == (len(cell), 3)


def test_each_item_has_its_outcome_in_order_and_failures_say_why(model):
    good = cells(3)
    contents = [good[0], RecordError(Reason.MALFORMED, "no JSON"), good[1], good[2]]
    contents.insert(2, Structure(Lattice.cubic(30), ["O"], [[0, 0, 0]]))
    outcomes = work(model)(items(contents))
    assert [type(outcome) for outcome in outcomes] == [Predicted, Failure, Failure, Predicted, Predicted]
    assert [outcome.index for outcome in outcomes] == list(range(5))
    assert [outcome.reason for outcome in outcomes[1:3]] == ["malformed", "isolated_atom"]
    assert outcomes[3].properties.energy_per_atom == pytest.approx(
        float(model.predict_structure(good[1])["e"]), abs=1e-5
    )


def test_a_chunk_without_a_single_structure_is_no_error(model):
    (outcome,) = work(model)(items([RecordError(Reason.MALFORMED, "x")]))
    assert isinstance(outcome, Failure)


def test_properties_that_were_not_asked_for_are_left_out(model):
    (outcome,) = work(model, properties=("magmoms",))(items(cells(1)))
    assert outcome.properties.forces is None
    assert outcome.properties.stress is None
    assert outcome.properties.magmoms is not None


def test_the_work_travels_to_another_process(model):
    copy = pickle.loads(pickle.dumps(work(model)))
    (ours,), (theirs,) = work(model)(items(cells(1))), copy(items(cells(1)))
    assert ours.properties.energy_per_atom == theirs.properties.energy_per_atom


def test_a_model_that_predicts_nonsense_fails_by_name(model):
    broken = build(ModelConfig.model_validate(SMALL_MODEL))
    with torch.no_grad():
        broken.get_parameter("atom_embedding.embedding.weight").fill_(float("nan"))
    (outcome,) = work(broken)(items(cells(1)))
    assert outcome.reason == "not_finite"


@pytest.mark.parametrize(
    "error", [torch.OutOfMemoryError("no room"), RuntimeError("DefaultCPUAllocator: can't allocate memory")]
)
def test_what_does_not_fit_in_memory_is_halved_and_then_given_up_alone(model, monkeypatch, error):
    real = predictor_module.evaluate

    def small_memory(model, batch, **wanted):
        if len(batch.atomic_numbers) > 8:
            raise error
        return real(model, batch, **wanted)

    monkeypatch.setattr(predictor_module, "evaluate", small_memory)
    outcomes = work(model)(items(cells(4)))  # 8, 16, 8, 16 atoms
    assert [isinstance(outcome, Predicted) for outcome in outcomes] == [True, False, True, False]
    assert outcomes[1].reason == "too_large"
    assert "16 atoms" in outcomes[1].detail
    assert issubclass(TooLargeError, RuntimeError)


def test_other_errors_of_the_model_are_not_taken_for_want_of_memory(model, monkeypatch):
    def broken(*_, **__):
        raise RuntimeError("expected scalar type Float")

    monkeypatch.setattr(predictor_module, "evaluate", broken)
    with pytest.raises(RuntimeError, match="expected scalar type"):
        work(model)(items(cells(1)))


def test_a_predictor_states_its_cutoffs(model):
    assert Predictor(model).cutoffs.atom_cutoff == 6.0
