"""Points of a search space: a function of the space, the seed, the trial's number and, for tpe, the results so far."""

import itertools
import logging
import warnings
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
import optuna

from rung.config.space import Dimension

Point = dict[str, Any]
"""Value by dotted key."""

_STARTUP = 8
"""Random points before tpe has enough results to go by."""

_REDRAWN = 0.25
"""Probability that a perturbed key is drawn anew."""

_FACTORS = (0.8, 1.25)
"""What a perturbed number is multiplied by."""

_DIGITS = 4
"""Significant digits of a drawn number: a recipe that a person can write down."""


def grid(space: Sequence[Dimension], seed: int) -> list[Point]:
    """All combinations of the space's values, shuffled so that a part of them covers the space.

    Raises:
        ValueError: the space has a range.
    """
    ranges = [dimension.key for dimension in space if dimension.is_range]
    if ranges:
        raise ValueError(
            f"sweep.searcher 'grid' tries all values, but {', '.join(ranges)} has a range: list its values"
        )
    points: list[Point] = []
    for values in itertools.product(*(dimension.values for dimension in space)):
        everything = dict(zip((dimension.key for dimension in space), values, strict=True))
        point = _applying(space, everything)
        if point not in points:
            points.append(point)
    order = np.random.default_rng(seed).permutation(len(points))
    return [points[at] for at in order]


def random_point(space: Sequence[Dimension], seed: int, number: int) -> Point:
    """A random point; the values of grids are gone through in turn, so that each is tried equally often."""
    rng = np.random.default_rng([seed, number])
    grids = [dimension for dimension in space if dimension.kind == "grid"]
    combinations = list(itertools.product(*(dimension.values for dimension in grids)))
    in_turn = dict(zip((dimension.key for dimension in grids), combinations[number % len(combinations)], strict=True))
    drawn = {dimension.key: _draw(dimension, rng) for dimension in space}
    return _applying(space, drawn | in_turn)


def tpe_point(
    space: Sequence[Dimension],
    seed: int,
    number: int,
    ended: Sequence[tuple[Point, Sequence[float]]],
    running: Sequence[Point],
) -> Point:
    """What Optuna's TPE proposes next (Bergstra et al. 2011; several objectives: Ozaki et al. 2020).

    Args:
        space: the space.
        seed: of the sampler.
        number: of the trial to draw.
        ended: points with their objectives, all to be made small; their number is the same for all.
        running: points without a result yet; tpe keeps away from them.
    """
    logging.getLogger("optuna").setLevel(logging.WARNING)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        sampler = optuna.samplers.TPESampler(seed=seed + number, n_startup_trials=_STARTUP, constant_liar=True)
    objectives = len(ended[0][1]) if ended else 1
    study = optuna.create_study(sampler=sampler, directions=[optuna.study.StudyDirection.MINIMIZE] * objectives)
    for point, values in ended:
        study.add_trial(
            optuna.trial.create_trial(
                params=_coded(space, point), distributions=_distributions(space, point), values=list(values)
            )
        )
    for point in running:
        study.add_trial(
            optuna.trial.create_trial(
                params=_coded(space, point),
                distributions=_distributions(space, point),
                state=optuna.trial.TrialState.RUNNING,
            )
        )
    asked = study.ask()
    point: Point = {}
    for dimension in space:
        if dimension.applies(point):
            point[dimension.key] = _ask(asked, dimension)
    return point


def perturbed_point(space: Sequence[Dimension], point: Point, keys: Collection[str], rng: np.random.Generator) -> Point:
    """A point beside another one (Jaderberg et al. 2017): each key is drawn anew, or moved a little.

    Args:
        space: the space.
        point: where to start.
        keys: those that may change; one that others depend on does not.
        rng: decides.
    """
    changed = dict(point)
    fixed = {key for dimension in space for key in dimension.when}
    for dimension in space:
        if dimension.key not in point or dimension.key not in keys or dimension.key in fixed:
            continue
        if rng.random() < _REDRAWN:
            changed[dimension.key] = _draw(dimension, rng)
        elif dimension.is_range:
            changed[dimension.key] = _tidy(dimension, point[dimension.key] * _FACTORS[rng.integers(2)])
        else:
            place = dimension.values.index(point[dimension.key]) + (1, -1)[rng.integers(2)]
            changed[dimension.key] = dimension.values[min(max(place, 0), len(dimension.values) - 1)]
    return changed


def _applying(space: Sequence[Dimension], values: Mapping[str, Any]) -> Point:
    point: Point = {}
    for dimension in space:
        if dimension.applies(point):
            point[dimension.key] = values[dimension.key]
    return point


def _draw(dimension: Dimension, rng: np.random.Generator) -> Any:
    if not dimension.is_range:
        return dimension.values[rng.integers(len(dimension.values))]
    low, high = dimension.values
    if dimension.kind == "log_uniform":
        value = float(np.exp(rng.uniform(np.log(low), np.log(high + dimension.whole))))
    else:
        value = float(rng.uniform(low, high + dimension.whole))
    return _tidy(dimension, value)


def _tidy(dimension: Dimension, value: float) -> float | int:
    low, high = dimension.values
    if dimension.whole:
        return min(max(int(value), low), high)
    return min(max(float(f"{value:.{_DIGITS}g}"), low), high)


def _distributions(space: Sequence[Dimension], point: Point) -> dict[str, optuna.distributions.BaseDistribution]:
    return {dimension.key: _distribution(dimension) for dimension in space if dimension.key in point}


def _distribution(dimension: Dimension) -> optuna.distributions.BaseDistribution:
    if not dimension.is_range:
        return optuna.distributions.CategoricalDistribution(range(len(dimension.values)))
    low, high = dimension.values
    log = dimension.kind == "log_uniform"
    if dimension.whole:
        return optuna.distributions.IntDistribution(low, high, log=log)
    return optuna.distributions.FloatDistribution(low, high, log=log)


def _coded(space: Sequence[Dimension], point: Point) -> dict[str, Any]:
    """Choices by their position: Optuna takes plain values alone."""
    return {
        dimension.key: point[dimension.key] if dimension.is_range else dimension.values.index(point[dimension.key])
        for dimension in space
        if dimension.key in point
    }


def _ask(asked: optuna.Trial, dimension: Dimension) -> Any:
    value: Any = asked._suggest(dimension.key, _distribution(dimension))  # noqa: SLF001 (no public way by distribution)
    return _tidy(dimension, value) if dimension.is_range else dimension.values[value]
