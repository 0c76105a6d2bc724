"""The errors of a model on prepared data: figures, where they come from, and a report to look at."""

import json
import logging
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from chgnet.model import CHGNet

from rung.config.sections import DataConfig, ModelConfig
from rung.config.tree import EvaluateConfig
from rung.data.dataset import ShardDataset
from rung.data.staging import staged
from rung.evaluation.breakdown import by_element, by_force, by_functional, by_magnetism, by_size, worst
from rung.evaluation.comparison import Comparison, compare
from rung.evaluation.forgetting import forgetting
from rung.evaluation.phases import PhaseJudgement, judge_phases
from rung.evaluation.physics import check_physics
from rung.evaluation.report import Findings, write_report
from rung.model.support import cutoffs_of
from rung.training.context import LocalContext
from rung.training.initial import load_model
from rung.training.metrics import Metrics
from rung.training.run import RunFolder
from rung.training.wording import in_words

logger = logging.getLogger(__name__)

REPORT_NAME: Final = "report.html"
_WORST: Final = 20
"""Records named of each target."""


@dataclass(frozen=True)
class EvaluationSummary:
    """Errors in eV/atom, eV/Å, GPa and μB."""

    output: str
    """Folder of the summary and of report.html."""
    model: str
    data: str
    manifest_hash: str
    """sha256 of the data set's manifest."""
    split: str
    num_records: int
    errors: Metrics
    """MAE and RMSE over all records."""
    errors_by_functional: dict[str, Metrics]
    errors_by: dict[str, dict[str, dict[str, float]]]
    """Errors by `element`, `num_atoms`, `force` on the atom and `magnetism` (`rung.evaluation.breakdown`)."""
    worst: dict[str, list[dict[str, Any]]]
    """The records with the largest errors of each target."""
    baseline: dict[str, Any] | None
    """Errors of the other model, and by target the share of structures, or atoms, on which this one is better."""
    phases: dict[str, Any] | None
    """Formation and decomposition energies: `PhaseJudgement`, of its phases the number."""
    forgetting: dict[str, Metrics] | None
    """Errors on the probe before and after fine-tuning, the pretrained reference in both."""
    physics: list[dict[str, Any]]
    """Every law of the physics gate: deviation found, limit and unit."""

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self)


def evaluate_model(config: EvaluateConfig) -> EvaluationSummary:
    """Evaluate a model on one split of a data set and write `summary.json` and `report.html` to the output folder.

    Raises:
        ValueError: a model cannot be loaded, data cannot be read or have other cutoffs than the model, the split is
            empty, or the probe has no test records or no pretrained model.
    """
    context = LocalContext()
    model = load_model(ModelConfig(init=config.model)).to(context.device)
    baseline = load_model(ModelConfig(init=config.baseline)).to(context.device) if config.baseline else None
    pretrained = load_model(ModelConfig(init=_pretrained(config))).to(context.device) if config.probe else None
    dataset = open_for(model, config.data)
    records = dataset.select(config.split)
    if len(records) == 0:
        raise ValueError(f"{config.data.path} has no {config.split} records: choose another split")
    if baseline is not None:
        open_for(baseline, config.data)
    findings = Findings(
        compared=compare(model, dataset, records, config.data, config.batch),
        baseline=compare(baseline, dataset, records, config.data, config.batch) if baseline is not None else None,
        phases=judge_phases(model, dataset, config) if config.phase_diagrams else None,
        laws=check_physics(model),
    )
    ledger = None
    if config.probe is not None and pretrained is not None:
        ledger = forgetting(pretrained, model, config.probe, config.batch, context)
    summary = _summary(config, dataset, findings, ledger)
    folder = Path(config.output)
    folder.mkdir(parents=True, exist_ok=True)
    write_report(folder / REPORT_NAME, summary.to_dict(), findings, dataset)
    (folder / "summary.json").write_text(json.dumps(summary.to_dict(), indent=1))
    for name, found in ((config.model, findings.compared), (config.baseline, findings.baseline)):
        if found is not None:
            count = f"{len(records):,} {config.split} records"
            logger.info("errors on %s: %s: %s", count, name, in_words(found.errors()))
    logger.info("look at %s", folder / REPORT_NAME)
    return summary


def open_for(model: CHGNet, data: DataConfig) -> ShardDataset:
    """Open a data set and check that its graphs have the model's cutoffs.

    Raises:
        ShardError: it is no data set, or its graphs have others.
    """
    dataset = ShardDataset(staged(data))
    dataset.check_cutoffs(cutoffs_of(model))
    return dataset


def _summary(
    config: EvaluateConfig, dataset: ShardDataset, findings: Findings, ledger: dict[str, Metrics] | None
) -> EvaluationSummary:
    compared = findings.compared
    return EvaluationSummary(
        output=config.output,
        model=config.model,
        data=config.data.path,
        manifest_hash=dataset.manifest_hash,
        split=config.split,
        num_records=len(compared.record_ids),
        errors=compared.errors(),
        errors_by_functional=by_functional(compared, dataset),
        errors_by={
            "element": by_element(compared, dataset),
            "num_atoms": by_size(compared, dataset),
            "force": by_force(compared),
            "magnetism": by_magnetism(compared),
        },
        worst={target: worst(compared, dataset, target, _WORST) for target in compared.targets},
        baseline=_beside(config.baseline, compared, findings.baseline),
        phases=_phases(findings.phases),
        forgetting=ledger,
        physics=[law.to_json() for law in findings.laws],
    )


def _beside(name: str | None, compared: Comparison, baseline: Comparison | None) -> dict[str, Any] | None:
    if baseline is None:
        return None
    better = {
        target: float((found.error_of_row < baseline.targets[target].error_of_row).mean())
        for target, found in compared.targets.items()
    }
    return {"model": name, "errors": baseline.errors(), "better": better}


def _phases(judgement: PhaseJudgement | None) -> dict[str, Any] | None:
    """Without the phases one by one, which the report holds."""
    if judgement is None:
        return None
    plain = judgement.to_json()
    return plain | {"phases": len(judgement.phases)}


def _pretrained(config: EvaluateConfig) -> str:
    """The model whose reference the probe is judged with.

    Raises:
        ValueError: it is not given, and the model does not tell.
    """
    if config.pretrained is not None:
        return config.pretrained
    folder = Path(config.model).expanduser()
    init = "none"
    if folder.is_dir():
        init = RunFolder(folder.absolute()).load_state("best")["config"]["model"]["init"]
    if init == "none":
        raise ValueError(
            f"probe.path is set, but {config.model} does not tell which pretrained model it comes from: set pretrained"
        )
    return init
