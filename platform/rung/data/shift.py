"""The shift between two functionals as one energy per element, fitted to what a model of the first leaves unexplained.

A plain refit of the reference must explain each label by composition alone, so with fewer materials than elements, or
elements that seldom appear, it takes in structure that the network explains already. What a pretrained model leaves of
the labels is far closer to a function of composition, and a ridge keeps elements with few records near the common
shift. The strength of the ridge is the one that predicts left-out materials best.
"""

from dataclasses import asdict, dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from pymatgen.core import Element

from rung.data.reference import NUM_ELEMENTS

STRENGTHS: Final = tuple(np.geomspace(1e-6, 1e3, 37).tolist())
"""Ridges tried, relative to the mean squared singular value of the atomic fractions."""


@dataclass(frozen=True, kw_only=True, eq=False)
class ShiftFit:
    """A ridge fit of energies that a model leaves unexplained.

    Attributes:
        shift: (94,) to add to the model's reference, eV/atom; elements without a record have prior plus `mean`.
        mean: shift common to all elements, beyond the prior, eV/atom.
        strength: ridge on the deviations from it, on the scale of squared singular values of the atomic fractions.
        left_out_rmse: error on materials left out of the fit, eV/atom; None where there is only one.
        freedom: effective degrees of freedom, the trace of the hat matrix.
        records_with: (94,) records that contain each element.
        num_records: records fitted.
        num_materials: materials among them.
        mae_before: mean absolute residual, eV/atom.
        mae_after: what the shift leaves of it, eV/atom.
    """

    shift: NDArray[np.float64]
    mean: float
    strength: float
    left_out_rmse: float | None
    freedom: float
    records_with: NDArray[np.int64]
    num_records: int
    num_materials: int
    mae_before: float
    mae_after: float

    def to_json(self) -> dict[str, Any]:
        """Plain values; shifts and counts by symbol, of the elements seen."""
        seen = {Element.from_Z(int(z) + 1).symbol: int(z) for z in np.flatnonzero(self.records_with)}
        return asdict(self) | {
            "shift": {symbol: float(self.shift[z]) for symbol, z in seen.items()},
            "records_with": {symbol: int(self.records_with[z]) for symbol, z in seen.items()},
        }


def fit_shift(
    compositions: NDArray[np.integer],
    unexplained: NDArray[np.floating],
    materials: NDArray[Any],
    prior: NDArray[np.floating] | None = None,
    strength: float | None = None,
) -> ShiftFit:
    """Fit the shift of each element by ridge regression on the energy per atom, with an unpenalised common shift.

    Args:
        compositions: (n, 94) number of atoms of each element.
        unexplained: (n,) label minus prediction, total energies, eV.
        materials: (n,) name of the material; records of one are left out together.
        prior: (94,) shift expected before the data are seen, eV/atom; 0 if absent.
        strength: of the ridge; chosen by leaving out materials if absent.

    Raises:
        ValueError: nothing to fit, or energies that are not finite.
    """
    if len(unexplained) == 0 or not np.isfinite(unexplained).all():
        raise ValueError(f"a shift is fitted to finite energies; found {len(unexplained)}, some of them not finite")
    expected = np.zeros(NUM_ELEMENTS) if prior is None else np.asarray(prior, np.float64)
    fractions = compositions / compositions.sum(axis=1, keepdims=True)
    per_atom = unexplained / compositions.sum(axis=1)
    targets = per_atom - fractions @ expected
    centre, mean = fractions.mean(axis=0), float(targets.mean())
    left, singular, right = np.linalg.svd(fractions - centre, full_matrices=False)
    kept = singular > 1e-9 * max(float(singular[0]), 1e-9)
    left, singular, right = left[:, kept], singular[kept], right[kept]
    ridge = _Ridge(left, singular, targets - mean, _groups(materials))
    if strength is None:
        strength = ridge.best_strength()
    deviation = right.T @ (singular / (singular**2 + strength) * (left.T @ (targets - mean)))
    # The fractions of a record sum to 1, so the offset of the centred fit is a shift of every element.
    common = mean - float(centre @ deviation)
    shift = expected + common + deviation
    return ShiftFit(
        shift=shift,
        mean=common,
        strength=float(strength),
        left_out_rmse=ridge.left_out_rmse(strength),
        freedom=1 + float((singular**2 / (singular**2 + strength)).sum()),
        records_with=(compositions > 0).sum(axis=0),
        num_records=len(unexplained),
        num_materials=len(ridge.groups),
        mae_before=float(np.abs(per_atom).mean()),
        mae_after=float(np.abs(per_atom - fractions @ shift).mean()),
    )


@dataclass(frozen=True, eq=False)
class _Ridge:
    """Singular vectors of the centred fractions, targets, and rows by material."""

    left: NDArray[np.float64]
    singular: NDArray[np.float64]
    targets: NDArray[np.float64]
    groups: list[NDArray[np.int64]]

    def best_strength(self) -> float:
        """The strength with the least error on left-out materials."""
        scale = float(np.square(self.singular).mean()) if self.singular.size else 1.0
        strengths = [scale * relative for relative in STRENGTHS]
        errors = [self.left_out_rmse(strength) for strength in strengths]
        found = [error if error is not None else np.inf for error in errors]
        return strengths[int(np.argmin(found))] if np.isfinite(found).any() else strengths[-1]

    def left_out_rmse(self, strength: float) -> float | None:
        """Error of each material as predicted from all others, in closed form: (1 - H_gg)^-1 times its residuals.

        Allen's PRESS (Technometrics 16, 125 (1974)) with the rows of a material left out together.
        """
        if len(self.groups) < 2:
            return None
        weights = self.singular**2 / (self.singular**2 + strength)
        residuals = self.targets - self.left @ (weights * (self.left.T @ self.targets))
        total = 0.0
        for rows in self.groups:
            part = self.left[rows]
            hat = (part * weights) @ part.T + 1 / len(self.targets)  # the common shift is fitted as well
            total += float(np.square(np.linalg.lstsq(np.eye(len(rows)) - hat, residuals[rows], rcond=None)[0]).sum())
        return float(np.sqrt(total / len(self.targets)))


def _groups(materials: NDArray[Any]) -> list[NDArray[np.int64]]:
    _, numbers = np.unique(materials, return_inverse=True)
    order = np.argsort(numbers, kind="stable")
    return np.split(order, np.flatnonzero(np.diff(numbers[order])) + 1)


def covering_sample(compositions: NDArray[np.integer], most: int) -> NDArray[np.int64]:
    """Rows of at most `most` records in which every element is as well represented as it can be, ascending.

    Args:
        compositions: (n, 94) number of atoms of each element.
        most: how many records.
    """
    num_records = len(compositions)
    if num_records <= most:
        return np.arange(num_records)
    share = max(1, most // (2 * NUM_ELEMENTS))
    wanted = [np.flatnonzero(column)[:share] for column in (compositions > 0).T]
    first = np.unique(np.concatenate(wanted))[:most]
    rest = np.setdiff1d(np.arange(num_records), first)
    even = rest[np.linspace(0, len(rest) - 1, most - len(first)).astype(np.int64)]
    return np.union1d(first, even)
