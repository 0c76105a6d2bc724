"""Importance: what decides is found, what does not is not."""

import numpy as np

from rung.sweeps.importance import importance


def draw(number=200):
    rng = np.random.default_rng(0)
    points = [
        {"rate": float(10 ** rng.uniform(-5, -2)), "depth": int(rng.integers(4)), "kind": str(rng.choice(["a", "b"]))}
        for _ in range(number)
    ]
    return points, rng


def test_the_key_that_decides_comes_first_and_noise_gets_nothing():
    points, rng = draw()
    scores = [(np.log10(one["rate"]) + 3.5) ** 2 + 0.2 * one["depth"] + 0.05 * rng.normal() for one in points]
    found = importance(points, scores)
    assert next(iter(found)) == "rate"
    assert found["rate"] > 0.5
    assert 0.02 < found["depth"] < found["rate"]
    assert found["kind"] < 0.03


def test_a_diverged_trial_does_not_hide_the_rest():
    points, _ = draw()
    scores = [float(one["depth"]) for one in points]
    scores[0] = 1e12
    assert importance(points, scores)["depth"] > 0.9


def test_nothing_to_explain():
    assert importance([], []) == {}
    assert importance([{"rate": 1e-3}] * 5, [1.0] * 5) == {"rate": 0.0}
    assert importance([{"rate": 1e-3}, {"rate": 1e-2}], [1.0, 2.0]) == {"rate": 0.0}  # no residual to compare with


def test_absent_keys_are_a_group_of_their_own():
    points = [{"kind": "adam"} if at % 2 else {"kind": "adamw", "decay": 1e-3 * at} for at in range(40)]
    assert importance(points, [float(at % 2) for at in range(40)])["decay"] > 0.9
