"""The runs of a study: their configs, and what is wanted of each."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, get_args

import numpy as np

from rung.config.command import parse_arguments, parse_overrides
from rung.config.load import ConfigError, apply_overrides
from rung.config.progress import followed
from rung.config.reference import ReferenceMode
from rung.config.sections import DataConfig, ModelConfig
from rung.config.studies import StudyConfig
from rung.config.tree import TrainConfig
from rung.data.staging import manifest_at
from rung.evaluation.forgetting import forgetting
from rung.model.support import cutoffs_of
from rung.orchestration.many_runs import run_all, train_one
from rung.orchestration.paths import resolve_data, resolve_weights
from rung.training.context import LocalContext
from rung.training.initial import load_model
from rung.training.metrics import Metrics
from rung.training.run import RunFolder, TrainSummary
from rung.training.sinks import read_metrics

FORGETTING_NAME = "forgetting.json"


@dataclass(frozen=True)
class Planned:
    """One run of a study.

    Attributes:
        method: as the config names it.
        seed: of the run.
        share: of the training materials.
        config: the run.
    """

    method: str
    seed: int
    share: float
    config: TrainConfig


@dataclass(frozen=True)
class Finished:
    """What came of a run.

    Attributes:
        planned: the run.
        summary: its figures.
        forgetting: errors on the probe with the pretrained reference, and those of the pretrained model.
        curve: validation energy MAE, eV/atom, by step.
    """

    planned: Planned
    summary: TrainSummary
    forgetting: dict[str, Metrics]
    curve: dict[int, float]


def plan(study: StudyConfig, methods: Sequence[str], shares: Sequence[float]) -> list[Planned]:
    """Every method with every share and seed. Seeds and materials are the same for all methods.

    Raises:
        ConfigError: a method begins with no reference mode, or its keys are wrong.
        ValueError: the pretrained weights cannot be loaded, or there are no test materials to compare the runs on.
    """
    _require_test_materials(study.base.data.path)
    sizes = size_of(study.base.model)
    planned = []
    for method in methods:
        for share in shares:
            for seed in study.seeds:
                name = f"{_slug(method)}-{share:g}-seed{seed}"
                keys = {
                    "run.name": name,
                    "run.storage": str(Path(study.output) / "runs"),
                    "run.seed": seed,
                    "data.subset": share * study.base.data.subset,
                }
                config = apply_overrides(study.base, _method(method, sizes) | keys, overrides_from=f"method {method!r}")
                planned.append(Planned(method, seed, share, config))
    return planned


def carry_out(study: StudyConfig, planned: Sequence[Planned], probe: DataConfig | None = None) -> list[Finished]:
    """Train what is not trained yet, and collect.

    Raises:
        KeyboardInterrupt: a signal asked to stop. What training itself raises is raised here too.
    """
    # Ray's workers run in other folders.
    pretrained = resolve_weights(study.base.model.init)
    work = partial(_train_and_probe, probe=resolve_data(probe) if probe else None, pretrained=pretrained)
    finished = []
    with followed("study", len(planned), "run") as advance:
        results = run_all(work, [each.config for each in planned], study.at_a_time)
        for each, result in zip(planned, results, strict=True):
            finished.append(Finished(each, *_read_back(result)))
            advance(1)
    return finished


def size_of(config: ModelConfig) -> dict[str, Any]:
    """Size of a pretrained network as keys of the config, so that a random one of the same size can be made."""
    model = load_model(config)
    cutoffs = cutoffs_of(model)
    return {
        "model.feature_dim": model.atom_fea_dim,
        "model.num_radial": model.model_args.get("num_radial", 31),
        "model.num_angular": model.model_args.get("num_angular", 31),
        "model.num_blocks": model.n_conv,
        "model.graph.atom_cutoff": cutoffs.atom_cutoff,
        "model.graph.bond_cutoff": cutoffs.bond_cutoff,
    }


def mean_and_spread(values: Sequence[float]) -> tuple[float, float | None]:
    """Mean over seeds, and the standard deviation of one run (n - 1); None for one seed."""
    return float(np.mean(values)), float(np.std(values, ddof=1)) if len(values) > 1 else None


def write_results(
    output: str, summary: dict[str, Any], write_report: Callable[[Path, Mapping[str, Any]], None]
) -> Path:
    """Write summary.json and report.html of a study; returns the path of the former."""
    folder = Path(output)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "summary.json"
    path.write_text(json.dumps(summary, indent=1))
    write_report(folder / "report.html", summary)
    return path


def _require_test_materials(path: str) -> None:
    manifest, _ = manifest_at(path)
    if manifest.split.get("records", {}).get("test") == 0:
        raise ValueError(
            f"base.data.path {path} has no test materials, on which a study compares its runs: prepare it again with a"
            " larger split.test"
        )


def _method(method: str, sizes: dict[str, Any]) -> dict[str, Any]:
    mode, *words = method.split()
    if mode not in get_args(ReferenceMode):
        raise ConfigError(f"method {method!r} begins with {mode!r}: one of {', '.join(get_args(ReferenceMode))}")
    overrides = parse_overrides(TrainConfig, parse_arguments(words).overrides)
    random = {"model.init": "none", "model.freeze_depth": 0} | sizes if mode == "scratch" else {}
    # Studies compare bad starts too: nothing is refused for being one.
    return {"reference.mode": mode, "reference.start_limit": None} | random | overrides


def _train_and_probe(config: TrainConfig, probe: DataConfig | None, pretrained: str) -> dict[str, Any]:
    """Train a run, and measure what it forgot; plain values, which travel from Ray's workers."""
    summary = train_one(config)
    folder = RunFolder.of(config).path
    forgotten = _forgetting(folder, config, probe, pretrained) if probe is not None else {}
    curve = {
        line["step"]: line["validation/energy_mae"]
        for line in read_metrics(folder / "metrics.jsonl")
        if "validation/energy_mae" in line
    }
    return {"summary": summary.to_dict(), "forgetting": forgotten, "curve": curve}


def _read_back(result: dict[str, Any]) -> tuple[TrainSummary, dict[str, Metrics], dict[int, float]]:
    return TrainSummary(**result["summary"]), result["forgetting"], result["curve"]


def _forgetting(folder: Path, config: TrainConfig, probe: DataConfig, pretrained: str) -> dict[str, Metrics]:
    """Errors on the test materials of the pretraining functional, with its reference put back; kept in the run."""
    path = folder / FORGETTING_NAME
    if path.exists():
        return json.loads(path.read_text())
    context = LocalContext()
    before = load_model(ModelConfig(init=pretrained)).to(context.device)
    after = RunFolder(folder).load_model("best").to(context.device)
    found = forgetting(before, after, probe, config.batch, context)
    path.write_text(json.dumps(found, indent=1))
    return found


def _slug(method: str) -> str:
    """A method as part of a run's name."""
    words = "".join(character if character.isalnum() or character in "._" else "-" for character in method)
    return "-".join(part for part in words.split("-") if part)
