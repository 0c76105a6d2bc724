"""One trunk, two functionals: a second CHGNet that shares another's layers and differs in reference and readout."""

import copy
from collections.abc import Mapping
from typing import Final, Literal

from chgnet.model import CHGNet
from torch import Tensor, nn

_REFERENCE: Final = "composition_model"
_READOUT: Final = ("readout_norm", "mlp", "site_wise")

Readout = Literal["shared", "own"]


def companion(model: CHGNet, readout: Readout) -> CHGNet:
    """A CHGNet whose layers are those of `model`, with a reference of its own and, if asked for, a readout of its own.

    Training either moves the shared layers of both. Each is an ordinary CHGNet to whoever evaluates or saves it.

    Args:
        model: on the device and of the type to compute with; not changed.
        readout: "own" starts as a copy of the model's: norm, energy perceptron and magnetic moments.
    """
    twin = copy.copy(model)
    # A shallow copy would share the table of layers too, and replacing one would replace it in both.
    twin.__dict__["_modules"] = dict(model.__dict__["_modules"])
    for name in own_modules(readout):
        setattr(twin, name, copy.deepcopy(getattr(model, name)))
    for parameter in twin.get_submodule(_REFERENCE).parameters():
        parameter.requires_grad_(False)
    return twin


def own_modules(readout: Readout) -> tuple[str, ...]:
    """Names of the layers that a companion does not share."""
    return (_REFERENCE, *_READOUT) if readout == "own" else (_REFERENCE,)


def own_parameters(twin: CHGNet, readout: Readout) -> dict[str, nn.Parameter]:
    """The trainable parameters that belong to the companion alone, by name."""
    return {
        name: parameter
        for name, parameter in twin.named_parameters()
        if name.startswith(tuple(f"{module}." for module in own_modules(readout))) and parameter.requires_grad
    }


def own_state(twin: CHGNet, readout: Readout) -> dict[str, Tensor]:
    """What the companion does not share, on the CPU."""
    prefixes = tuple(f"{module}." for module in own_modules(readout))
    state = twin.state_dict()
    return {name: value.detach().cpu().clone() for name, value in state.items() if name.startswith(prefixes)}


def load_own_state(twin: CHGNet, state: Mapping[str, Tensor]) -> None:
    """Put back what `own_state` returned."""
    twin.load_state_dict(dict(state), strict=False)
