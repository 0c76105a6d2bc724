"""How well two sets of numbers agree: shift, correlation, spread."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Agreement:
    """Statistics of n pairs of numbers, second minus first; all but the correlation in the numbers' unit.

    Attributes:
        n: pairs.
        shift: mean difference.
        spread: standard deviation of the difference.
        mae: mean absolute difference.
        largest: largest absolute difference.
        pearson: correlation; None where one of the two does not vary.
    """

    n: int
    shift: float
    spread: float
    mae: float
    largest: float
    pearson: float | None

    @classmethod
    def of(cls, first: NDArray[np.floating], second: NDArray[np.floating]) -> Self | None:
        """Compare two arrays of one shape, element by element; None if there is nothing to compare."""
        x, y = np.asarray(first, np.float64).ravel(), np.asarray(second, np.float64).ravel()
        if x.size == 0:
            return None
        difference = y - x
        return cls(
            n=x.size,
            shift=float(difference.mean()),
            spread=float(difference.std()),
            mae=float(np.abs(difference).mean()),
            largest=float(np.abs(difference).max()),
            pearson=pearson(x, y),
        )

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)


def pearson(x: NDArray[np.floating], y: NDArray[np.floating]) -> float | None:
    """Correlation of two arrays (n,); None with fewer than three pairs, or where one does not vary beyond rounding."""
    if len(x) < 3:
        return None
    spreads = [float(values.std()) for values in (x, y)]
    scales = [float(np.abs(values).max()) for values in (x, y)]
    if any(spread <= 1e-9 * max(scale, 1e-6) for spread, scale in zip(spreads, scales, strict=True)):
        return None
    return float(np.corrcoef(x, y)[0, 1])


def as_json(agreements: Mapping[str, Agreement | None]) -> dict[str, Any]:
    """Plain values of several agreements by name."""
    return {name: None if agreement is None else agreement.to_json() for name, agreement in agreements.items()}
