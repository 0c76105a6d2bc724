"""The model card: what a stranger should know of a model before using it, made from the run's own files."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self

import yaml

from rung.training.hardware import hardware_text
from rung.training.run import CONFIG_NAME, DESCRIPTION_NAME, REFERENCE_NAME, SOURCE_NAME, SUMMARY_NAME
from rung.training.wording import UNITS

CARD_NAME: Final = "MODEL_CARD.md"

_SPLITS: Final = ("train", "validation", "test")


@dataclass(frozen=True)
class RunRecord:
    """What a run's folder says of the run.

    Attributes:
        summary: summary.json.
        config: the resolved config.
        reference: the elemental references and how they were found.
        description: data manifest, package versions and hardware; may be empty.
        source: which code each start of the run had; may be empty.
    """

    summary: Mapping[str, Any]
    config: Mapping[str, Any]
    reference: Mapping[str, Any]
    description: Mapping[str, Any]
    source: Sequence[Mapping[str, Any]]

    @classmethod
    def read(cls, folder: Path) -> Self:
        """Read a run's folder.

        Raises:
            ValueError: the run is not complete.
        """
        path = folder / SUMMARY_NAME
        summary = _json(path) if path.exists() else {"completed": False}
        if not summary["completed"]:  # a run that was stopped has a summary too
            raise ValueError(f"{folder} holds no complete run, and only such a run has a model to publish: resume it")
        return cls(
            summary=summary,
            config=yaml.safe_load((folder / CONFIG_NAME).read_text()),
            reference=_json(folder / REFERENCE_NAME),
            description=_json(folder / DESCRIPTION_NAME) if (folder / DESCRIPTION_NAME).exists() else {},
            source=json.loads((folder / SOURCE_NAME).read_text()) if (folder / SOURCE_NAME).exists() else [],
        )

    @property
    def manifest(self) -> Mapping[str, Any]:
        """Of the training data."""
        return self.description.get("manifest", {})

    @property
    def functionals(self) -> Mapping[str, int]:
        """Training data's functionals and their records."""
        return self.manifest.get("functionals", {})


def model_card(name: str, run: RunRecord, physics: Sequence[Mapping[str, Any]], license_of_data: str | None) -> str:
    """Write the card as Markdown.

    Args:
        name: of the model.
        run: where it comes from.
        physics: the laws that it was tried on, as `Check.to_json`.
        license_of_data: as their publisher states it; None if unknown.
    """
    parts = [
        f"# {name}",
        _what_it_is(run),
        "## Errors\n\n" + _errors(run.summary),
        "## Training data\n\n" + _bullets(_data(run, license_of_data)),
        "## Recipe\n\n" + _bullets(_recipe(run.config, run.summary)),
        "## Reference energies\n\n" + _bullets(_references(run.reference)),
        "## Known limits\n\n" + _bullets(_limits(run)),
        "## Checks and provenance\n\n" + _bullets(_provenance(run, physics)),
    ]
    return "\n\n".join(parts) + "\n"


def _what_it_is(run: RunRecord) -> str:
    functionals = " and ".join(run.functionals) or "unknown functional"
    size = run.summary["num_parameters"]
    return (
        f"A CHGNet interatomic potential with {size:,} parameters for {functionals} energies, forces, stresses and"
        " magnetic moments of periodic crystals. The file loads in plain chgnet, `CHGNet.from_file(...)`, and as an ASE"
        " calculator. Energies are those of the training data's functional and settings: never mix them with others."
    )


def _errors(summary: Mapping[str, Any]) -> str:
    """Mean absolute errors, best and untouched, on what was held out."""
    columns = [target for target in UNITS if any(f"{target}_mae" in row for row in summary["best"].values())]
    rows = [f"| mean absolute error | {' | '.join(f'{target} ({UNITS[target][0]})' for target in columns)} |"]
    rows.append("| --- |" + " --- |" * len(columns))
    for split in ("test", "validation"):
        number = summary["num_records"].get(split, 0)
        for title, errors in (("", summary["best"].get(split)), (", untouched start", summary["zero_step"].get(split))):
            if errors:
                cells = " | ".join(_error(errors, target) for target in columns)
                rows.append(f"| {number} {split} records{title} | {cells} |")
    if len(rows) == 2:
        return "No materials were held out, so no error is known."
    return "\n".join(rows) + "\n\nHeld-out materials are in no training record."


def _error(errors: Mapping[str, float], target: str) -> str:
    value = errors.get(f"{target}_mae")
    return "–" if value is None else f"{UNITS[target][1] * value:.4g}"


def _data(run: RunRecord, license_of_data: str | None) -> dict[str, str]:
    manifest = run.manifest
    source = manifest.get("source", {})
    counts = run.summary["num_records"]
    facts = {
        "set": f"{source.get('dataset', run.config['data']['path'])}"
        + ("" if source.get("is_dft", True) else f", labels by {source.get('labelled_by')}, not by first principles"),
        "records": ", ".join(f"{counts[split]:,} {split}" for split in _SPLITS if split in counts)
        + "; split by material",
        "functional": ", ".join(f"{name} ({count:,} records)" for name, count in run.functionals.items()),
        "elements": " ".join(manifest.get("elements", {})),
        "manifest SHA-256": run.description.get("manifest_hash", ""),
        "licence": license_of_data or "not stated; ask whoever published the data before you pass the model on",
    }
    return {name: value for name, value in facts.items() if value}


def _recipe(config: Mapping[str, Any], summary: Mapping[str, Any]) -> dict[str, str]:
    loss, model, optimizer = config["loss"], config["model"], config["optimizer"]
    frozen = f", freeze depth {model['freeze_depth']}" if model["freeze_depth"] else ""
    weights = ", ".join(f"{name} {loss[name]:g}" for name in ("energy", "force", "stress", "magmom"))
    facts = {
        "initial weights": ("random" if model["init"] == "none" else model["init"]) + frozen,
        "loss": f"{loss['kind']}, weights: {weights}",
        "optimizer": f"{optimizer['kind']}, rate {optimizer['learning_rate']:g}, {config['schedule']['kind']} schedule",
        "length": f"{summary['epochs']:g} epochs of {config['batch']['structures']} structures a step; the best"
        f" validation loss was at step {summary['best_step']:,} of {summary['steps']:,}",
        "seed": str(config["run"]["seed"]),
    }
    if config["replay"]["path"]:
        facts["replay"] = f"{config['replay']['path']}, share {config['replay']['share']:g}"
    return facts


def _references(reference: Mapping[str, Any]) -> dict[str, str]:
    unseen = reference.get("unseen") or []
    return {
        "mode": str(reference["mode"]),
        "elements without a training record": " ".join(unseen) or "none",
    }


def _limits(run: RunRecord) -> dict[str, str]:
    elements = run.manifest.get("elements", {})
    few = [name for name, count in elements.items() if count < 10]
    cutoff = (run.manifest.get("graph") or run.config["model"]["graph"])["atom_cutoff"]
    facts = {
        "elements": "outside the list above the energies have no basis, whatever the model answers",
        "interaction": f"nothing beyond {cutoff:g} Å, so no dispersion or Coulomb tail; every atom needs a neighbour",
        "magnetic moments": "absolute values; no order or direction is predicted",
    }
    if few:
        facts["elements with fewer than 10 records"] = " ".join(few)
    if run.summary["best_step"] == 0 and run.summary["steps"] > 0:
        facts["training"] = "no epoch was better than the initial weights, which this model holds"
    return facts


def _provenance(run: RunRecord, physics: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    versions = run.description.get("versions", {})
    kept = sum(bool(check["holds"]) for check in physics)
    facts = {
        "physics gate": f"{kept} of {len(physics)} laws hold (derivatives of the energy, invariances, smoothness)"
        if physics
        else "not tried; `jobs/export.py` does",
        "software": ", ".join(f"{name} {version}" for name, version in versions.items()),
        "code": ", ".join(
            f"{name} {value}" for name, value in (run.source[-1] if run.source else {}).items() if name != "time"
        ),
        "hardware": hardware_text(run.description.get("hardware", ())),
        "run": str(run.summary["run"]),
    }
    return {name: value for name, value in facts.items() if value}


def _bullets(facts: Mapping[str, str]) -> str:
    return "\n".join(f"- **{name}**: {value}" for name, value in facts.items())


def _json(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text())
