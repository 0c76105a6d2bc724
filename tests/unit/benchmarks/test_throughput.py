"""What the benchmark counts; that it counts all of a step on a GPU is for tests/gpu."""

import torch

from rung.model import chgnet
from tests.benchmarks.throughput import count_bytes, count_flops, messages_by, step_of

LEFT, RIGHT = torch.rand(30, 20), torch.rand(20, 10)


def product():
    """A view moves nothing."""
    (LEFT @ RIGHT).view(-1)


def test_operations_of_a_product():
    assert count_flops(product) == 2 * 30 * 20 * 10


def test_bytes_of_a_product():
    assert count_bytes(product, "blocks") == 4 * (30 * 20 + 20 * 10 + 30 * 10)


def test_bytes_of_an_array_that_is_read_twice_by_one_operation_count_once():
    assert count_bytes(lambda: LEFT * LEFT, "blocks") == 4 * (30 * 20 + 30 * 20)


def test_a_step_takes_gradients_and_the_messages_come_back_as_they_were():
    before = chgnet.pass_messages
    with messages_by("blocks"):
        assert chgnet.pass_messages is not before
        step = step_of(2, "cpu")
        assert count_flops(step) > 1e8
    assert chgnet.pass_messages is before
