"""Learning-rate schedule and moving average."""

import math

import pytest
import torch

from rung.config.sections import OptimizerConfig, ScheduleConfig
from rung.training.optimizer import WeightAverage, build_optimizer, learning_rate


def test_cosine_ends_exactly_at_the_final_rate():
    schedule = ScheduleConfig(kind="cosine", final=0.01)
    rates = [learning_rate(step, 7, 1e-3, schedule) for step in range(7)]
    assert rates[0] == pytest.approx(1e-3)
    assert rates[-1] == pytest.approx(1e-5)
    assert rates == sorted(rates, reverse=True)
    assert rates[3] == pytest.approx((1e-3 + 1e-5) / 2)


@pytest.mark.parametrize("total", [1, 2, 3])
def test_the_shortest_runs_have_a_positive_rate(total):
    assert all(learning_rate(step, total, 1e-3, ScheduleConfig(final=0.1)) >= 1e-4 for step in range(total))


def test_warm_up_rises_to_the_peak_and_never_starts_at_zero():
    schedule = ScheduleConfig(warmup=0.5, final=0.0)
    rates = [learning_rate(step, 8, 1.0, schedule) for step in range(8)]
    assert rates[:4] == pytest.approx([0.25, 0.5, 0.75, 1.0])
    assert rates[4] == pytest.approx(1.0)
    assert rates[-1] == pytest.approx(0.0)


def test_constant_stays():
    assert learning_rate(99, 100, 0.5, ScheduleConfig(kind="constant")) == 0.5


@pytest.mark.parametrize(("kind", "cls"), [("adam", torch.optim.Adam), ("adamw", torch.optim.AdamW)])
def test_optimizer_kinds(kind, cls):
    parameter = torch.nn.Parameter(torch.ones(2))
    optimizer = build_optimizer([parameter], OptimizerConfig(kind=kind, learning_rate=0.25, weight_decay=0.5))
    assert type(optimizer) is cls
    assert optimizer.param_groups[0]["lr"] == 0.25
    assert optimizer.param_groups[0]["weight_decay"] == 0.5


def test_moving_average_follows_its_recurrence_and_swaps_back():
    model = torch.nn.Linear(1, 1, bias=False)
    with torch.no_grad():
        model.weight.fill_(0.0)
    average = WeightAverage(model.named_parameters(), decay=0.5)
    expected = 0.0
    for update, value in enumerate([1.0, 2.0, 3.0]):
        with torch.no_grad():
            model.weight.fill_(value)
        average.update()
        decay = min(0.5, (1 + update) / (10 + update))
        expected = decay * expected + (1 - decay) * value
    average.swap()
    assert model.weight.item() == pytest.approx(expected)
    average.swap()
    assert model.weight.item() == 3.0


def test_moving_average_resumes():
    model = torch.nn.Linear(2, 1)
    first = WeightAverage(model.named_parameters(), decay=0.9)
    first.update()
    second = WeightAverage(model.named_parameters(), decay=0.9)
    second.load_state_dict(first.state_dict())
    assert second.num_updates == 1
    for mine, theirs in zip(
        second.state_dict()["average"].values(), first.state_dict()["average"].values(), strict=True
    ):
        assert torch.equal(mine, theirs)


def test_frozen_parameters_are_not_averaged():
    model = torch.nn.Linear(2, 1)
    model.bias.requires_grad_(False)
    average = WeightAverage(model.named_parameters(), decay=0.9)
    assert list(average.state_dict()["average"]) == ["weight"]
    assert math.isclose(average.decay, 0.9)
