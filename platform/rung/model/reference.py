"""The elemental reference inside a model.

Fitting it to the target set before fine-tuning is what makes a GGA network transferable to r²SCAN (arXiv 2504.05565,
Methods 1 to 4).
"""

import logging
from typing import Literal

import numpy as np
import torch
from chgnet.model import CHGNet
from numpy.typing import NDArray

from rung.data.reference import NUM_ELEMENTS, ReferenceFit

FitMode = Literal["scratch", "trainable", "frozen", "refit"]
"""The modes that need no more than a fit to the labels; the others set the energies themselves."""

_logger = logging.getLogger(__name__)


def reference_of(model: CHGNet) -> NDArray[np.float64]:
    """Reference energy of each element in a model: (94,), eV/atom."""
    return _weight(model).detach().cpu().double().numpy()[0].copy()


def set_reference(model: CHGNet, energies: NDArray[np.floating]) -> None:
    """Replace a model's reference energies.

    Args:
        model: changed in place.
        energies: (94,), eV/atom.
    """
    if energies.shape != (NUM_ELEMENTS,) or not np.isfinite(energies).all():
        raise ValueError(f"a reference is {NUM_ELEMENTS} finite energies; found shape {energies.shape}: {energies}")
    weight = _weight(model)
    with torch.no_grad():
        weight[0] = torch.from_numpy(np.asarray(energies, dtype=np.float64)).to(weight)


def prepare_reference(
    model: CHGNet, mode: FitMode, fit: ReferenceFit | None, fallback: NDArray[np.floating] | None = None
) -> tuple[str, ...]:
    """Give a model the reference that a run asks for, before its first step.

    Args:
        model: changed in place: reference energies, and whether they are trained.
        mode: "trainable" keeps the pretrained reference and trains it, "frozen" keeps it; "refit" takes the fit but
            keeps the pretrained energy of elements that the fit did not see; "scratch" takes the fit alone.
        fit: the fit to the training records; needed by "refit" and "scratch".
        fallback: (94,) energies, eV/atom, of the elements that the fit did not see, in place of the pretrained ones.

    Returns:
        symbols of the elements whose energy the fit could not tell; also logged.
    """
    _weight(model).requires_grad_(mode == "trainable")
    if mode in ("trainable", "frozen"):
        return ()
    if fit is None:
        raise ValueError(f"reference.mode {mode!r} sets the reference to a fit, but no fit was given")
    unseen = fit.records_with == 0
    previous = reference_of(model) if mode == "refit" else np.zeros(NUM_ELEMENTS)
    set_reference(model, np.where(unseen, previous if fallback is None else fallback, fit.energies))
    if unseen.any():
        kept = "keep their pretrained reference" if mode == "refit" else "have the reference 0"
        if fallback is not None:
            kept = "take the reference that reference.unseen names"
        _logger.info("%d elements absent from the training records %s: %s", unseen.sum(), kept, " ".join(fit.unseen))
    return fit.unseen


def _weight(model: CHGNet) -> torch.nn.Parameter:
    if model.composition_model is None:
        raise ValueError("this CHGNet has no composition_model, so it has no reference energies to read or set")
    return model.get_parameter("composition_model.fc.weight")
