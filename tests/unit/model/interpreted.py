"""Checks that run where TRITON_INTERPRET is 1: the kernels take tensors on the CPU there."""

from unittest import mock

from rung.model import chgnet, fused
from rung.model.message import computed, with_derivatives
from tests.gpu.test_kernels import FORMS, assert_as_exact_as_float32, small_step


def kernels_are_as_exact_as_float32():
    for num_messages in (0, 1, 75):
        for form in FORMS:
            assert_as_exact_as_float32(num_messages, "cpu", *form)


def step_equals_that_of_the_loops():
    expected = small_step("cpu")
    calls = []

    def by_kernels(routes, terms, weight, parameters):
        calls.append(routes.num_messages)
        assert fused.fits(computed(terms), parameters)
        return with_derivatives(fused, routes, computed(terms), weight, parameters)

    layout = mock.patch.object(chgnet, "_for_kernels", return_value=True)
    with layout, mock.patch.object(chgnet, "pass_messages", by_kernels):
        found = small_step("cpu")
    assert sum(calls) > 0
    for ours, reference in zip(found, expected, strict=True):
        assert (ours - reference).norm() <= 1e-4 * (reference.norm() + 0.1)
