"""Which keys of the space decide how good a trial gets."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

_BINS = 4


def importance(points: Sequence[Mapping[str, Any]], scores: ArrayLike) -> dict[str, float]:
    """Share of the variance of the scores' ranks that each key explains by itself, from 0 to 1, largest first.

    Values of a key are grouped: equal ones, or quarters where a key has more than four different numbers. The share is
    epsilon squared (Kelley 1935), the share between groups less what groups of that number would show by chance. Ranks
    make it blind to the few trials that diverge.

    Args:
        points: (n,) values by key; a key that is absent from a point is a group of its own.
        scores: (n,) score of each.
    """
    ranks = _ranks(np.asarray(scores, dtype=np.float64))
    keys = dict.fromkeys(key for point in points for key in point)
    found = {key: _explained(_groups([point.get(key) for point in points]), ranks) for key in keys}
    return dict(sorted(found.items(), key=lambda pair: -pair[1]))


def _ranks(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Ranks from 0; equal values share the mean of theirs."""
    unique, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    means = np.cumsum(counts) - (counts + 1) / 2
    return means[inverse] if len(unique) else values


def _groups(values: Sequence[Any]) -> NDArray[np.int64]:
    """(n,) number of the group of each value."""
    numbers = [value for value in values if isinstance(value, int | float) and not isinstance(value, bool)]
    if len(set(numbers)) <= _BINS or len(numbers) < len([value for value in values if value is not None]):
        names = [repr(value) for value in values]
        return np.unique(names, return_inverse=True)[1]
    edges = np.quantile(numbers, np.linspace(0, 1, _BINS + 1)[1:-1])
    return np.array([-1 if value is None else int(np.searchsorted(edges, value, side="right")) for value in values])


def _explained(groups: NDArray[np.int64], ranks: NDArray[np.float64]) -> float:
    kinds = np.unique(groups)
    total = float(((ranks - ranks.mean()) ** 2).sum()) if len(ranks) else 0.0
    free = len(ranks) - len(kinds)
    if total == 0 or free <= 0 or len(kinds) < 2:
        return 0.0
    within = sum(float(((ranks[groups == kind] - ranks[groups == kind].mean()) ** 2).sum()) for kind in kinds)
    between = total - within
    return max(0.0, (between - (len(kinds) - 1) * within / free) / total)
