"""Power laws of error against number of records, fitted in log-log with confidence bands."""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats


@dataclass(frozen=True)
class PowerLaw:
    """error = 10^intercept * n^slope, by least squares on the logarithms.

    Attributes:
        slope: the exponent; negative where more data help.
        intercept: decimal logarithm of the error at one record.
        r_squared: share of the variance of the logarithm that the law explains.
        slope_low: lower end of the 95 % confidence interval of the slope.
        slope_high: upper end.
        n_points: points fitted.
        centre: mean decimal logarithm of n.
        sum_squares: sum of squared deviations from it.
        deviation: standard deviation of a point from the law, decimal logarithm.
    """

    slope: float
    intercept: float
    r_squared: float
    slope_low: float
    slope_high: float
    n_points: int
    centre: float
    sum_squares: float
    deviation: float

    @classmethod
    def fit(cls, records: Sequence[int], errors: Sequence[float]) -> Self | None:
        """Fit a law to points (n,), all above 0; None with fewer than three, or with one number of records alone."""
        x, y = np.log10(np.asarray(records, float)), np.log10(np.asarray(errors, float))
        if len(x) < 3 or len(np.unique(x)) < 2:
            return None
        centre = float(x.mean())
        sum_squares = float(np.square(x - centre).sum())
        slope = float(((x - centre) * (y - y.mean())).sum() / sum_squares)
        intercept = float(y.mean() - slope * centre)
        left = float(np.square(y - intercept - slope * x).sum())
        total = float(np.square(y - y.mean()).sum())
        deviation = math.sqrt(left / (len(x) - 2))
        margin = _t(len(x)) * deviation / math.sqrt(sum_squares)
        return cls(
            slope=slope,
            intercept=intercept,
            r_squared=1 - left / total if total > 0 else 1.0,
            slope_low=slope - margin,
            slope_high=slope + margin,
            n_points=len(x),
            centre=centre,
            sum_squares=sum_squares,
            deviation=deviation,
        )

    def at(self, records: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
        """The law, and the lower and upper end of its 95 % confidence band, at numbers of records."""
        x = np.log10(np.asarray(records, float))
        y = self.intercept + self.slope * x
        margin = (
            _t(self.n_points) * self.deviation * np.sqrt(1 / self.n_points + (x - self.centre) ** 2 / self.sum_squares)
        )
        return 10**y, 10 ** (y - margin), 10 ** (y + margin)

    def records_for(self, error: float) -> float | None:
        """Records at which the law reaches an error; None where it does not fall, or needs 10^15 records or more."""
        if self.slope >= 0:
            return None
        exponent = (math.log10(error) - self.intercept) / self.slope
        return 10**exponent if exponent < 15 else None

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)


def _t(n_points: int) -> float:
    return float(stats.t.ppf(0.975, n_points - 2))
