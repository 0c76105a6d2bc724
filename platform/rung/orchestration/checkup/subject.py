"""Which job a config is for, and what of it the checkup looks at."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from rung.config.command import parse_overrides
from rung.config.document import TREES
from rung.config.inference import PredictConfig
from rung.config.load import ConfigError, load_config, read_keys
from rung.config.section import Section
from rung.config.sections import DataConfig, LauncherConfig, TrackingConfig
from rung.config.tree import ExportConfig, FinetuneConfig, PrepareConfig, TrainConfig
from rung.orchestration.checkup.finding import Subject

_JOBS: Final[Mapping[str, type[Section]]] = {"training": TrainConfig} | {
    job: tree for job, tree in TREES.items() if tree not in (TrainConfig, FinetuneConfig)
}
"""Pretraining and fine-tuning have the same keys."""


def subject_of(path: Path | None, overrides: Mapping[str, str]) -> Subject:
    """What to look at: the parts of any job's config; without a config, defaults. Faults of the config are kept in it.

    Args:
        path: YAML file of any job.
        overrides: text of values by dotted key, as on a job's command line.
    """
    if path is None and not overrides:
        return Subject()
    try:
        kind = job_of({*(read_keys(path) if path else ()), *(key.partition(".")[0] for key in overrides)})
        tree = _JOBS[kind]
        config = load_config(tree, path, parse_overrides(tree, overrides), overrides_from="command line")
    except (ConfigError, OSError) as error:
        return Subject(complaint=str(error))
    return _parts(kind, config)


def job_of(keys: set[str]) -> str:
    """The job whose config has most of these top-level keys and fewest others that it requires."""

    def fit(kind: str) -> tuple[int, int]:
        fields = _JOBS[kind].model_fields
        missing = [name for name, field in fields.items() if field.is_required() and name not in keys]
        return len(keys & fields.keys()) - len(keys - fields.keys()), -len(missing)

    return max(_JOBS, key=fit)


def _parts(kind: str, config: Section) -> Subject:
    base = getattr(config, "base", None)  # a study is many runs of its base; a sweep makes its own
    run = base if isinstance(base, TrainConfig) else config
    if isinstance(run, TrainConfig):
        storage, model, launcher, tracking = run.run.storage, run.model, run.launcher, run.tracking
    else:
        storage, model, launcher, tracking = Subject().storage, None, _parallel(config), _tracking(config)
    output: Any = getattr(config, "output", None)
    if output is None:
        key_and_folder = ("run.storage", storage)
    else:
        key_and_folder = ("output", str(Path(output).parent) if kind == "export" else output)
    return Subject(
        kind=kind,
        output=key_and_folder,
        data=dict(_data_sets(config)) | ({"base.data": base.data} if isinstance(base, TrainConfig) else {}),
        sources=dict(_raw_files(config)),
        model=model,
        launcher=launcher,
        tracking=tracking,
        storage=storage,
    )


def _parallel(config: Section) -> LauncherConfig:
    """Who does the work of a job that trains nothing."""
    parallel: Any = getattr(config, "parallel", None)
    return (
        LauncherConfig(kind="local")
        if parallel is None
        else LauncherConfig(kind=parallel.kind, address=parallel.address)
    )


def _tracking(config: Section) -> TrackingConfig:
    """What a job that trains nothing tells MLflow: of an evaluation its errors, of an export the registered model."""
    if isinstance(config, ExportConfig) and config.registry.model is not None:
        return TrackingConfig(uri=config.registry.uri)
    return TrackingConfig(kind="mlflow" if getattr(config, "track", False) else "off")


def _data_sets(config: Section) -> Iterator[tuple[str, DataConfig]]:
    """Every prepared set that a config names, replayed ones included."""
    for name in type(config).model_fields:
        value: Any = getattr(config, name)
        if isinstance(value, DataConfig):
            yield name, value
        elif isinstance(getattr(value, "data", None), DataConfig) and name != "base":
            yield f"{name}.data", value.data
        elif name == "replay" and value.path is not None:
            yield name, DataConfig(path=value.path)


def _raw_files(config: Section) -> Iterator[tuple[str, str]]:
    """Local files and folders that a job reads; patterns and URLs are left to the job."""
    if isinstance(config, PrepareConfig):
        named = [("source.path", path) for path in config.source.paths]
    elif isinstance(config, PredictConfig):
        named = [("input", path) for path in ([config.input] if isinstance(config.input, str) else config.input)]
    else:
        named = []
    for key, path in named:
        if not any(sign in path for sign in ("://", "*", "?", "[")):
            yield key, path
