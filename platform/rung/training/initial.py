"""The model that a run starts from: weights, and the elemental reference of its data set."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from chgnet.model import CHGNet
from numpy.typing import NDArray

from rung.config.sections import ModelConfig
from rung.config.tree import TrainConfig
from rung.data.dataset import ShardDataset
from rung.data.reference import bundled_reference, fit_reference
from rung.model import weights
from rung.model.reference import prepare_reference
from rung.training.run import RunFolder


@dataclass(frozen=True)
class InitialModel:
    """A model ready for its first step."""

    model: CHGNet
    reference: dict[str, Any]
    """How the elemental reference came about: mode, and the fit with its energies, rank, coverage and residuals."""


def initial_model(config: TrainConfig, dataset: ShardDataset, train_records: NDArray[np.int64]) -> InitialModel:
    """Build the model and give it the reference that `reference.mode` asks for.

    Every rank does the same work and gets the same numbers, so nothing needs to be sent.

    Args:
        config: the run.
        dataset: the data set.
        train_records: (n,) ids of the training records; the reference is fitted to these alone.
    """
    torch.manual_seed(config.run.seed)
    model = load_model(config.model)
    mode = config.reference.mode
    fit = None
    if mode in ("scratch", "refit"):
        compositions, energies = dataset.compositions_and_energies(train_records)
        fit = fit_reference(compositions, energies, config.reference.ridge)
    table = config.reference.unseen
    fallback = bundled_reference(table) if table != "pretrained" else None
    unseen = prepare_reference(model, mode, fit, fallback)
    reference = {"mode": mode, "unseen": list(unseen), "fit": fit.to_json() if fit else None}
    return InitialModel(model, reference)


def load_model(config: ModelConfig) -> CHGNet:
    """Load initial weights: a run's folder gives its best checkpoint, all else is up to `rung.model.weights`."""
    folder = Path(config.init).expanduser()
    if folder.is_dir():
        return RunFolder(folder.absolute()).load_model("best")
    return weights.initial_model(config)
