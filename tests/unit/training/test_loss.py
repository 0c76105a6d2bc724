"""The loss against hand sums and against chgnet's own."""

import dataclasses
from types import SimpleNamespace

import pytest
import torch
from chgnet.trainer.trainer import CombinedLoss

from rung.config.sections import LossConfig
from rung.data.sampler import LabelCounts
from rung.model.chgnet import Prediction
from rung.training.loss import loss_of, penalty, target_errors

SIZES = [2, 3]


def batch_of(labels, present):
    owner = torch.repeat_interleave(torch.arange(len(SIZES)), torch.tensor(SIZES))
    masks = {f"has_{name}": torch.tensor(flags) for name, flags in present.items()}
    return SimpleNamespace(atom_owner=owner, **labels, **masks)


def random_case(seed, present):
    generator = torch.Generator().manual_seed(seed)
    shapes = {"energy": (2,), "forces": (5, 3), "stress": (2, 3, 3), "magmoms": (5,)}
    labels = {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}
    predicted = {name: torch.randn(shape, generator=generator, requires_grad=True) for name, shape in shapes.items()}
    return Prediction(**predicted), batch_of(labels, present)


def counts_of(present):
    atoms = [
        sum(size for size, flag in zip(SIZES, present[name], strict=True) if flag) for name in ("forces", "magmoms")
    ]
    return LabelCounts(sum(present["energy"]), 3 * atoms[0], 9 * sum(present["stress"]), atoms[1])


ALL = {"energy": [True, True], "forces": [True, True], "stress": [True, True], "magmoms": [True, True]}
SOME = {"energy": [True, False], "forces": [False, True], "stress": [True, True], "magmoms": [True, False]}


@pytest.mark.parametrize(("kind", "upstream"), [("huber", "Huber"), ("mse", "MSE"), ("mae", "MAE")])
def test_equal_to_chgnets_loss_where_all_labels_are_there(kind, upstream):
    prediction, batch = random_case(0, ALL)
    config = LossConfig(kind=kind, delta=0.1, energy=3, force=1, stress=0.1, magmom=0.7)
    mine = loss_of(target_errors(prediction, batch, config), counts_of(ALL), config)
    theirs = CombinedLoss(
        target_str="efsm",
        criterion=upstream,
        energy_loss_ratio=3,
        force_loss_ratio=1,
        stress_loss_ratio=0.1,
        mag_loss_ratio=0.7,
        delta=0.1,
    )(
        {
            "e": batch.energy,
            "f": list(batch.forces.split(SIZES)),
            "s": list(batch.stress),
            "m": list(batch.magmoms.split(SIZES)),
        },
        {
            "e": prediction.energy,
            "f": list(prediction.forces.split(SIZES)),
            "s": list(prediction.stress),
            "m": list(prediction.magmoms.split(SIZES)),
        },
    )["loss"]
    torch.testing.assert_close(mine, theirs)
    names = ("energy", "forces", "stress", "magmoms")
    leaves = [getattr(prediction, name) for name in names]
    for ours, upstreams in zip(
        torch.autograd.grad(mine, leaves, retain_graph=True), torch.autograd.grad(theirs, leaves), strict=True
    ):
        torch.testing.assert_close(ours, upstreams)


def test_absent_labels_neither_count_nor_pull():
    prediction, batch = random_case(1, SOME)
    config = LossConfig(kind="mae", energy=1, force=2, stress=3, magmom=4)
    errors = target_errors(prediction, batch, config)
    loss = loss_of(errors, counts_of(SOME), config)
    by_hand = (
        1 * (prediction.energy[0] - batch.energy[0]).abs()
        + 2 * (prediction.forces[2:] - batch.forces[2:]).abs().mean()
        + 3 * (prediction.stress - batch.stress).abs().mean()
        + 4 * (prediction.magmoms[:2] - batch.magmoms[:2]).abs().mean()
    )
    torch.testing.assert_close(loss, by_hand)
    loss.backward()
    assert prediction.energy.grad[1] == 0
    assert prediction.forces.grad[:2].abs().sum() == 0
    assert prediction.magmoms.grad[2:].abs().sum() == 0
    assert errors.sums[:, 3].tolist() == [1, 9, 18, 2]


def test_a_batch_without_any_label_of_a_kind_is_finite():
    none = {name: [False, False] for name in ALL}
    prediction, batch = random_case(2, none)
    config = LossConfig()
    loss = loss_of(target_errors(prediction, batch, config), counts_of(none), config)
    assert loss.item() == 0
    loss.backward()
    assert torch.isfinite(prediction.forces.grad).all()


def test_a_target_that_was_not_predicted_counts_nothing():
    prediction, batch = random_case(3, ALL)
    bare = Prediction(energy=prediction.energy, forces=None, stress=None, magmoms=None)
    errors = target_errors(bare, batch, LossConfig(force=0, stress=0, magmom=0))
    assert errors.sums.dtype == torch.float64
    assert errors.sums[:, 3].tolist() == [2, 0, 0, 0]
    assert errors.sums[1:].abs().sum() == errors.penalties[1:].abs().sum() == 0


def test_a_target_that_was_not_predicted_leaves_the_next_ones_in_place():
    prediction, batch = random_case(3, ALL)
    errors = target_errors(dataclasses.replace(prediction, stress=None), batch, LossConfig())
    assert errors.sums[:, 3].tolist() == [2, 15, 0, 5]


def test_sums_hold_penalty_error_square_and_count():
    prediction, batch = random_case(4, SOME)
    errors = target_errors(prediction, batch, LossConfig(kind="huber", delta=0.1))
    residual = (prediction.forces - batch.forces)[2:].detach().double()
    huber = penalty(residual, LossConfig(kind="huber", delta=0.1)).sum()
    expected = torch.stack((huber, residual.abs().sum(), residual.square().sum(), torch.tensor(9.0).double()))
    torch.testing.assert_close(errors.sums[1], expected, rtol=1e-6, atol=0)
    torch.testing.assert_close(errors.sums[:, 0].float(), errors.penalties)
    assert not errors.sums.requires_grad


def test_huber_turns_from_square_to_line_at_delta():
    residual = torch.tensor([0.0, 0.1, 0.2, 1.0, -1.0])
    expected = [0.0, 0.005, 0.02, 0.2 * (1.0 - 0.1), 0.2 * (1.0 - 0.1)]
    assert penalty(residual, LossConfig(kind="huber", delta=0.2)).tolist() == pytest.approx(expected)
