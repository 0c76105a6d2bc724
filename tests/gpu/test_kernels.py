"""The fused kernels on an NVIDIA GPU against torch's own operations in float64 on the CPU."""

import pytest
import torch
from pymatgen.core import Lattice, Structure

from rung.config.preparation import GraphConfig
from rung.data.batch import collate
from rung.data.graph import graph_record
from rung.data.record import StructureRecord
from rung.model.chgnet import evaluate
from rung.model.gate import Parameters
from rung.model.message import by_autograd, with_derivatives
from rung.model.routes import Routes
from rung.model.weights import load

pytest.importorskip("triton", reason="the kernels need Triton")
pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")]

WIDTH = 64


def _case(num_messages, *, hidden_layer, weight, to_targets, device, dtype):
    """Messages like those of the model; `weight` is gathered, own (of the message) or none."""
    generator = torch.Generator().manual_seed(num_messages)
    senders, targets = num_messages // 10 + 7, num_messages // 15 + 1

    def normal(*shape, scale=0.7, centre=0.0):
        values = centre + scale * torch.randn(*shape, generator=generator, dtype=torch.float64)
        return values.to(device, dtype).requires_grad_()

    def rows(limit):
        return torch.randint(limit, (num_messages,), generator=generator).to(device)

    routes = Routes(
        terms=(rows(senders), rows(senders), None),
        weight=rows(senders) if weight == "gathered" else None,
        target=rows(targets) if to_targets else None,
        num_messages=num_messages,
        num_targets=targets if to_targets else num_messages,
        learns=True,
    )
    layer = (normal(2, WIDTH, WIDTH, scale=0.2), normal(2, WIDTH)) if hidden_layer else ()
    return {
        "routes": routes,
        "terms": tuple(normal(count, 2 * WIDTH) for count in (senders, senders, num_messages)),
        "weight": None if weight == "none" else normal(senders if weight == "gathered" else num_messages, WIDTH),
        "parameters": Parameters(normal(2, WIDTH, centre=1.0), normal(2, WIDTH), *layer),
    }


def _values_and_gradients(function, case):
    """The result, its gradient by terms and weight, and the gradients of a loss of both."""
    result = function(**case)
    senders = [*case["terms"], *([] if case["weight"] is None else [case["weight"]])]
    slopes = torch.autograd.grad((result + 0.1 * result.square()).sum(), senders, create_graph=True)
    loss = sum(slope.sin().sum() for slope in slopes) + result.sum()
    learnt = [part for part in case["parameters"].parts if part is not None]
    return [result, *slopes, *torch.autograd.grad(loss, [*senders, *learnt])]


FORMS = ((True, "own", True), (True, "gathered", True), (False, "none", False))
"""With a hidden layer, its weight, summed over targets: messages to atoms, to bonds, to angles."""


def assert_as_exact_as_float32(num_messages, device, hidden_layer, weight, to_targets):
    from rung.model import fused

    kind = {"hidden_layer": hidden_layer, "weight": weight, "to_targets": to_targets}
    case = _case(num_messages, **kind, device=device, dtype=torch.float32)
    found = _values_and_gradients(lambda **inputs: with_derivatives(fused, **inputs), case)
    expected = _values_and_gradients(by_autograd, _case(num_messages, **kind, device="cpu", dtype=torch.float64))
    plain = _values_and_gradients(by_autograd, _case(num_messages, **kind, device="cpu", dtype=torch.float32))
    for one, exact, rounded in zip(found, expected, plain, strict=True):
        # What float32 itself loses varies by case: a row of nearly equal values makes the norm's slope large.
        allowed = 5 * (rounded.double() - exact).norm() + 1e-6 * exact.norm()
        assert (one.cpu().double() - exact).norm() <= allowed


@pytest.mark.parametrize("form", FORMS, ids=["to atoms", "to bonds", "to angles"])
@pytest.mark.parametrize("num_messages", [0, 1, 75, 20011])
def test_kernels_are_as_exact_as_float32(num_messages, form):
    assert_as_exact_as_float32(num_messages, "cuda", *form)


def small_step(device):
    """Energy, forces, stress, magmoms and gradients of CHGNet 0.3.0 on one cell."""
    lattice = Lattice.hexagonal(2.9, 7.0)
    sites = [[0.02, 0, 0.5], [0, 0.01, 0], [1 / 3, 2 / 3, 0.15], [2 / 3, 1 / 3, 0.86]]
    cell = Structure(lattice, ["Li", "Co", "O", "O"], sites)
    record = StructureRecord(
        atomic_numbers=cell.atomic_numbers,
        lattice=cell.lattice.matrix,
        frac_coords=cell.frac_coords,
        energy=0.0,
        source="test",
        material_id="m",
        frame_id="f",
        functional="GGA",
    )
    model = load("0.3.0").to(device)
    batch = collate([graph_record(record, GraphConfig())]).to(device)
    found = evaluate(model, batch, create_graph=True)
    values = [found.energy, found.forces, found.stress, found.magmoms]
    sum(value.square().sum() for value in values).backward()
    gradient = torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])
    return [value.detach().cpu() for value in (*values, gradient)]


def test_prediction_and_gradients_equal_the_cpu():
    for ours, reference in zip(small_step("cuda"), small_step("cpu"), strict=True):
        assert (ours - reference).norm() <= 1e-4 * (reference.norm() + 0.1)
