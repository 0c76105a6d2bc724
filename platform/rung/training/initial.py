"""The model that a run starts from: weights, and the elemental reference of its data set.

The modes scratch, trainable, frozen and refit are Methods 1 to 4 of arXiv 2504.05565.
"""

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from chgnet.model import CHGNet
from numpy.typing import NDArray

from rung.config.reference import IsolatedConfig, ReferenceConfig
from rung.config.sections import NAMED_WEIGHTS, ModelConfig
from rung.config.tree import TrainConfig
from rung.data.dataset import ShardDataset
from rung.data.fields import Labels
from rung.data.isolated import read_isolated_atoms
from rung.data.reference import bundled_reference, fit_common_elements
from rung.data.shift import covering_sample, fit_shift
from rung.model import weights
from rung.model.reference import reference_of, set_reference, train_reference
from rung.model.support import cutoffs_of
from rung.training.context import LocalContext, TrainContext
from rung.training.doctor import Judged, diagnose, refuse_absurd
from rung.training.predictions import EnergyPredictor
from rung.training.run import RunFolder

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class InitialModel:
    """A model ready for its first step, on the rank's device."""

    model: CHGNet
    reference: dict[str, Any]
    """How the elemental reference came about: mode, fit or shift, and the doctor's diagnosis."""


@dataclass(frozen=True)
class Treatment:
    """One way to give a model its reference: (94,) energies, eV/atom, and how they came about."""

    energies: NDArray[np.float64]
    origin: dict[str, Any]


def initial_model(
    config: TrainConfig,
    dataset: ShardDataset,
    train_records: NDArray[np.int64],
    context: TrainContext | None = None,
) -> InitialModel:
    """Build the model and give it the reference that `reference.mode` asks for.

    Every rank gets the same numbers. The reference doctor judges the start, tells the log, and refuses an absurd one.

    Args:
        config: the run.
        dataset: the data set.
        train_records: (n,) ids of the training records; the reference is fitted to these alone.
        context: this rank; a plain process on the CPU if absent.

    Raises:
        AbsurdStartError: the untouched model is further off than `reference.start_limit`.
        ValueError: the weights cannot be loaded or do not fit config and data, no training record has an energy,
            isolated atoms are missing, or a shard cannot be read.
    """
    torch.manual_seed(config.run.seed)
    context = context or LocalContext("cpu")
    model = load_model(config.model).to(context.device)
    dataset.check_cutoffs(cutoffs_of(model))
    predictor = EnergyPredictor(dataset, context, config)
    treatments, train = _treatments(config, model, predictor, train_records)
    mode = config.reference.mode
    held_out_records = _labelled(dataset, dataset.select("validation"))
    held_out = (
        _judged(model, predictor, held_out_records, config.reference.sample)[1] if len(held_out_records) else None
    )
    references = {name: treatment.energies for name, treatment in treatments.items()}
    diagnosis = diagnose(mode, references, reference_of(model), train, held_out)
    if context.rank == 0:
        for line in diagnosis.lines():
            logger.info("reference: %s", line)
    refuse_absurd(diagnosis, config.reference)
    set_reference(model, treatments[mode].energies)
    train_reference(model, mode == "trainable")
    origin = {"mode": mode, "unseen": [], "fit": None, **treatments[mode].origin}
    return InitialModel(model, origin | {"doctor": diagnosis.to_json()})


def load_model(config: ModelConfig) -> CHGNet:
    """Load initial weights on the CPU: of a run's folder the best checkpoint, else what `rung.model.weights` finds.

    Raises:
        ValueError: there are none, rung does not evaluate their architecture, or they are of another size than the
            config asks for.
    """
    folder = Path(config.init).expanduser()
    is_run = config.init not in NAMED_WEIGHTS and folder.is_dir()
    model = RunFolder(folder.absolute()).load_model("best") if is_run else weights.initial_model(config)
    weights.check_size(model, config)
    return model


def _treatments(
    config: TrainConfig, model: CHGNet, predictor: EnergyPredictor, train_records: NDArray[np.int64]
) -> tuple[dict[str, Treatment], Judged]:
    """Every treatment that these weights and data allow, and the training records that it is judged on."""
    dataset, reference = predictor.dataset, config.reference
    pretrained = config.model.init != "none"
    records = _labelled(dataset, train_records)
    if len(records) == 0:
        raise ValueError(f"{config.data.path} has no training record with an energy: a reference cannot be fitted")
    judged, train = _judged(model, predictor, records, reference.sample)
    initial = reference_of(model)
    found = {
        "refit" if pretrained else "scratch": _fitted(reference, initial if pretrained else None, dataset, records)
    }
    if pretrained:
        found["frozen"] = found["trainable"] = Treatment(initial, {})
        found["residual"] = _residual(reference, initial, train, dataset.index.material_id[judged])
    if reference.isolated.path is not None:
        found["isolated"] = _isolated(reference, initial if pretrained else None, train)
    return found, train


def _fitted(
    config: ReferenceConfig, initial: NDArray[np.float64] | None, dataset: ShardDataset, records: NDArray[np.int64]
) -> Treatment:
    compositions, energies = dataset.compositions_and_energies(records)
    fallback = np.zeros(compositions.shape[1]) if initial is None else initial
    if config.unseen != "pretrained":
        fallback = bundled_reference(config.unseen)
    fit = fit_common_elements(compositions, energies, fallback, config.min_records, config.ridge)
    unseen = fit.records_with == 0
    return Treatment(np.where(unseen, fallback, fit.energies), {"unseen": list(fit.unseen), "fit": fit.to_json()})


def _residual(
    config: ReferenceConfig, initial: NDArray[np.float64], train: Judged, materials: NDArray[Any]
) -> Treatment:
    unexplained = train.labels - train.network - train.compositions @ initial
    priors = {"none": None, "tables": bundled_reference("MP-r2SCAN") - bundled_reference("MPtrj")}
    names = list(priors) if config.prior == "auto" else [config.prior]
    fits = {
        name: fit_shift(train.compositions, unexplained, materials, priors[name], config.strength) for name in names
    }
    best = min(names, key=lambda name: fits[name].left_out_rmse or 0.0)
    return Treatment(initial + fits[best].shift, {"shift": fits[best].to_json() | {"prior": best}})


def _isolated(config: ReferenceConfig, initial: NDArray[np.float64] | None, train: Judged) -> Treatment:
    atoms = _read_isolated(config.isolated, train, "reference.isolated")
    if initial is None:
        return Treatment(atoms, {"isolated": config.isolated.path})
    before = _read_isolated(config.isolated_pretrained, train, "reference.isolated_pretrained")
    return Treatment(
        initial + atoms - before,
        {"isolated": config.isolated.path, "isolated_pretrained": config.isolated_pretrained.path},
    )


def _read_isolated(config: IsolatedConfig, train: Judged, key: str) -> NDArray[np.float64]:
    if config.path is None:
        raise ValueError(f"{key}.path is not set, but the shift of isolated atoms needs both functionals: set it")
    atoms = read_isolated_atoms(config.path, config.column)
    missing = np.flatnonzero(np.isnan(atoms) & (train.compositions.sum(axis=0) > 0))
    if missing.size:
        raise ValueError(f"{key}.path {config.path} has no energy of atomic numbers {(missing + 1).tolist()}: add them")
    return np.nan_to_num(atoms)


def _labelled(dataset: ShardDataset, records: NDArray[np.int64]) -> NDArray[np.int64]:
    return records[dataset.index.labels[records] & Labels.ENERGY > 0]


def _judged(
    model: CHGNet, predictor: EnergyPredictor, records: NDArray[np.int64], most: int
) -> tuple[NDArray[np.int64], Judged]:
    """Ids, labels and predictions of a sample of records."""
    dataset = predictor.dataset
    sample, energies = predictor.energies(model, records[covering_sample(dataset.compositions(records), most)])
    compositions, labels = dataset.compositions_and_energies(sample)
    compositions = compositions.astype(np.int64)
    totals = energies * compositions.sum(axis=1)
    return sample, Judged(compositions, labels, totals - compositions @ reference_of(model))
