"""Which of upstream's many CHGNet variants rung evaluates; every other one is refused, never approximated."""

from typing import Any, Final

from chgnet.model import CHGNet
from chgnet.model.composition_model import AtomRef

from rung.config.preparation import GraphConfig

SUPPORTED: Final[dict[str, tuple[Any, tuple[Any, ...]]]] = {
    "update_bond": (True, (True,)),
    "update_angle": (True, (True,)),
    "conv_dropout": (0, (0,)),
    "mlp_dropout": (0, (0,)),
    "mlp_first": (True, (True,)),
    "is_intensive": (True, (True,)),
    "non_linearity": ("silu", ("silu",)),
    "gMLP_norm": ("layer", ("layer",)),
    "readout_norm": ("layer", ("layer",)),
    "conv_norm": (None, (None,)),
    "mlp_out_bias": (False, (False,)),
    "final_mlp": ("MLP", ("MLP", "normal")),
}
"""Argument of upstream's constructor -> (upstream's default, the values that rung evaluates)."""


class UnsupportedModelError(ValueError):
    """A CHGNet whose architecture rung does not evaluate."""


def cutoffs_of(model: CHGNet) -> GraphConfig:
    """Cutoffs (Å) of the graphs that the model reads."""
    converter = model.graph_converter
    return GraphConfig(atom_cutoff=converter.atom_graph_cutoff, bond_cutoff=converter.bond_graph_cutoff)


def require_supported(model: CHGNet) -> None:
    """Refuse a CHGNet that `evaluate` would get wrong.

    Costs microseconds, so it runs in front of every evaluation.

    Raises:
        UnsupportedModelError: names each argument, the value found and the values allowed.
    """
    arguments = model.model_args
    faults = [
        f"{name}={value!r} (allowed: {', '.join(map(repr, allowed))})"
        for name, (default, allowed) in SUPPORTED.items()
        if (value := arguments.get(name, default)) not in allowed
    ]
    faults += [
        f"{name}={arguments[name]!r} (allowed: 0 or one width)"
        for name in ("atom_conv_hidden_dim", "bond_conv_hidden_dim", "angle_layer_hidden_dim")
        if not isinstance(arguments[name], int | None)
    ]
    if model.n_conv < 2:
        faults.append(f"n_conv={model.n_conv} (allowed: 2 and more)")
    reference = model.composition_model
    if reference is not None and not (isinstance(reference, AtomRef) and reference.is_intensive):
        faults.append(f"composition_model={type(reference).__name__} (allowed: an intensive AtomRef, or None)")
    if faults:
        raise UnsupportedModelError(
            "this CHGNet has an architecture that rung does not evaluate: "
            + "; ".join(faults)
            + ". Supported are the architectures of the bundled 0.3.0 and r2scan models at any size"
        )
