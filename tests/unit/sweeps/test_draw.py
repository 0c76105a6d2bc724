"""Points: reproducible, within bounds, conditional, and better where there is something to learn."""

import math
from collections import Counter

import numpy as np
import pytest

from rung.config.space import parse_space
from rung.config.tree import FinetuneConfig
from rung.sweeps.draw import grid, perturbed_point, random_point, tpe_point

RATE = {"optimizer.learning_rate": {"log_uniform": [1e-5, 1e-2]}}
SPACE = parse_space(
    {
        **RATE,
        "model.freeze_depth": {"grid": [0, 1, 2]},
        "batch.structures": {"uniform": [4, 6]},
        "optimizer.kind": {"choice": ["adam", "adamw"]},
        "optimizer.weight_decay": {"log_uniform": [1e-6, 1e-2], "when": {"optimizer.kind": ["adamw"]}},
    },
    FinetuneConfig,
)


def test_random_points_are_those_of_seed_and_number():
    points = [random_point(SPACE, 1, number) for number in range(300)]
    assert points == [random_point(SPACE, 1, number) for number in range(300)]
    assert points[0] != random_point(SPACE, 2, 0)
    assert Counter(point["model.freeze_depth"] for point in points) == {0: 100, 1: 100, 2: 100}
    assert {point["batch.structures"] for point in points} == {4, 5, 6}
    assert all(1e-5 <= point["optimizer.learning_rate"] <= 1e-2 for point in points)
    below = sum(point["optimizer.learning_rate"] < 10**-3.5 for point in points)  # half of the decades
    assert 110 < below < 190
    assert all(("optimizer.weight_decay" in point) == (point["optimizer.kind"] == "adamw") for point in points)


def test_a_grid_has_every_combination_once():
    space = parse_space(
        {
            "optimizer.kind": {"choice": ["adam", "adamw"]},
            "model.freeze_depth": {"grid": [0, 1, 2]},
            "optimizer.weight_decay": {"choice": [0.1, 0.2], "when": {"optimizer.kind": ["adamw"]}},
        },
        FinetuneConfig,
    )
    points = grid(space, 0)
    assert len(points) == len({tuple(sorted(point.items())) for point in points}) == 3 + 3 * 2
    assert points == grid(space, 0)
    assert points != grid(space, 1)


def test_a_grid_over_a_range_is_refused():
    with pytest.raises(ValueError, match=r"optimizer\.weight_decay has a range"):
        grid(SPACE, 0)


@pytest.mark.parametrize("objectives", [1, 2])
def test_tpe_learns_and_is_reproducible(objectives):
    ended = []
    for number in range(40):
        point = tpe_point(SPACE, 0, number, ended, [])
        assert point == tpe_point(SPACE, 0, number, ended, [])
        error = 1e-3 + abs(math.log10(point["optimizer.learning_rate"]) + 3) + point["model.freeze_depth"]
        ended.append((point, (error,) * objectives))
        assert ("optimizer.weight_decay" in point) == (point["optimizer.kind"] == "adamw")
    early, late = ended[:8], ended[-16:]
    assert sum(values[0] for _, values in late) / 16 < 0.6 * sum(values[0] for _, values in early) / 8


def test_tpe_keeps_away_from_what_is_running():
    space = parse_space(RATE, FinetuneConfig)
    ended = [(random_point(space, 0, number), (1.0 + number,)) for number in range(12)]
    running = [tpe_point(space, 0, 20, ended, [])]
    assert tpe_point(space, 0, 20, ended, running) != running[0]


def test_a_perturbed_point_moves_what_may_change_and_stays_in_the_space():
    point = random_point(SPACE, 1, 0) | {"optimizer.kind": "adamw", "optimizer.weight_decay": 1e-6}
    keys = ("optimizer.learning_rate", "optimizer.weight_decay", "optimizer.kind")
    moved = [perturbed_point(SPACE, point, keys, np.random.default_rng(seed)) for seed in range(200)]
    ratios = Counter(round(one["optimizer.learning_rate"] / point["optimizer.learning_rate"], 2) for one in moved)
    assert ratios[0.8] > 40
    assert ratios[1.25] > 40
    assert len(ratios) > 30, "a quarter is drawn anew"
    assert {one["optimizer.kind"] for one in moved} == {"adamw"}, "the weight decay depends on it"
    assert min(one["optimizer.weight_decay"] for one in moved) == 1e-6
    assert all(one["model.freeze_depth"] == point["model.freeze_depth"] for one in moved)


@pytest.mark.parametrize(("now", "beside"), [(4, {4, 8}), (8, {4, 16}), (16, {8, 16})])
def test_a_perturbed_choice_moves_to_the_value_beside_it(monkeypatch, now, beside):
    monkeypatch.setattr("rung.sweeps.draw._REDRAWN", 0.0)
    space = parse_space({"batch.structures": {"choice": [4, 8, 16]}}, FinetuneConfig)
    found = {
        perturbed_point(space, {"batch.structures": now}, ["batch.structures"], np.random.default_rng(seed))[
            "batch.structures"
        ]
        for seed in range(20)
    }
    assert found == beside
