"""The errors of a model on prepared data."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from chgnet.model import CHGNet

from rung.config.sections import DataConfig, LossConfig, ModelConfig
from rung.config.tree import EvaluateConfig
from rung.data.dataset import ShardDataset
from rung.data.staging import staged
from rung.training.context import LocalContext
from rung.training.initial import load_model
from rung.training.metrics import Metrics
from rung.training.validate import Validator


@dataclass(frozen=True)
class EvaluationSummary:
    """Errors in eV/atom, eV/Å, GPa and μB."""

    output: str
    """Folder of the summary."""
    model: str
    data: str
    manifest_hash: str
    split: str
    num_records: int
    errors: Metrics
    """MAE and RMSE over all records."""
    errors_by_functional: dict[str, Metrics]

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self)


def evaluate_model(config: EvaluateConfig) -> EvaluationSummary:
    """Evaluate a model on one split of a data set and write `summary.json` to the output folder.

    Raises:
        ValueError: the model cannot be loaded, the data's cutoffs are not the model's, or the split is empty.
    """
    context = LocalContext()
    model = load_model(ModelConfig(init=config.model)).to(context.device)
    dataset = open_for(model, config.data)
    records = dataset.select(config.split)
    if len(records) == 0:
        raise ValueError(f"{config.data.path} has no {config.split} records: choose another split")
    validator = Validator(dataset, context, config.data, config.batch)
    functionals = dataset.index.functional[records]
    summary = EvaluationSummary(
        output=config.output,
        model=config.model,
        data=config.data.path,
        manifest_hash=dataset.manifest_hash,
        split=config.split,
        num_records=len(records),
        errors=_without_loss(validator.errors(model, records, LossConfig())),
        errors_by_functional={
            name.decode(): _without_loss(validator.errors(model, records[functionals == name], LossConfig()))
            for name in np.unique(functionals)
        },
    )
    folder = Path(config.output)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "summary.json").write_text(json.dumps(summary.to_dict(), indent=1))
    return summary


def open_for(model: CHGNet, data: DataConfig) -> ShardDataset:
    """Open a data set and check that its graphs have the model's cutoffs."""
    dataset = ShardDataset(staged(data))
    dataset.check_cutoffs(model.graph_converter.atom_graph_cutoff, model.graph_converter.bond_graph_cutoff)
    return dataset


def _without_loss(errors: Metrics) -> Metrics:
    return {name: value for name, value in errors.items() if name != "loss"}
