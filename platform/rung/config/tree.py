"""The config of each job, composed of sections."""

from typing import Literal, Self

from pydantic import model_validator

from rung.config.preparation import FilterConfig, GraphConfig, ParallelConfig, ShardConfig, SourceConfig, SplitConfig
from rung.config.reference import ReferenceConfig
from rung.config.registry import RegistryConfig
from rung.config.search import SearchConfig
from rung.config.section import Section, setting
from rung.config.sections import (
    BatchConfig,
    DataConfig,
    FaultsConfig,
    LauncherConfig,
    LossConfig,
    ModelConfig,
    OptimizerConfig,
    RunConfig,
    ScheduleConfig,
    TrackingConfig,
    TrainingConfig,
)
from rung.config.space import Dimension, parse_space
from rung.config.transfer import ReplayConfig, TransferConfig

SplitName = Literal["train", "validation", "test"]


class PrepareConfig(Section):
    """prepare_data: raw records to LMDB shards."""

    output: str = setting(..., "folder for the shards", min_length=1)
    source: SourceConfig = setting(..., "raw records")
    graph: GraphConfig = setting(GraphConfig(), "cutoffs; stored with the shards and checked against the model")
    filters: FilterConfig = setting(FilterConfig(), "which records are set aside")
    split: SplitConfig = setting(SplitConfig(), "split by material")
    shards: ShardConfig = setting(ShardConfig(), "storage")
    parallel: ParallelConfig = setting(ParallelConfig(), "who does the work")


class TrainConfig(Section):
    """pretrain and finetune: shards to a model. The two differ by config, not by code."""

    run: RunConfig = setting(RunConfig(), "identity of the run")
    data: DataConfig = setting(..., "training data")
    batch: BatchConfig = setting(BatchConfig(), "batches")
    model: ModelConfig = setting(ModelConfig(), "model")
    reference: ReferenceConfig = setting(ReferenceConfig(), "elemental references")
    transfer: TransferConfig = setting(TransferConfig(), "how pretrained weights are moved")
    replay: ReplayConfig = setting(ReplayConfig(), "data of the pretraining functional, trained on at the same time")
    loss: LossConfig = setting(LossConfig(), "loss")
    optimizer: OptimizerConfig = setting(OptimizerConfig(), "optimizer")
    schedule: ScheduleConfig = setting(ScheduleConfig(), "learning rate")
    training: TrainingConfig = setting(TrainingConfig(), "length and checkpoints")
    faults: FaultsConfig = setting(FaultsConfig(), "what the run puts up with")
    launcher: LauncherConfig = setting(LauncherConfig(), "cluster")
    tracking: TrackingConfig = setting(TrackingConfig(), "tracking")

    @model_validator(mode="after")
    def _weights_match_reference(self) -> Self:
        pretrained = self.model.init != "none"
        if self.reference.mode == "scratch" and pretrained:
            raise ValueError(
                f"reference.mode 'scratch' trains from random weights, but model.init is {self.model.init!r}:"
                " set model.init to none, or reference.mode to refit, frozen or trainable"
            )
        if self.reference.mode in ("frozen", "trainable", "residual") and not pretrained:
            raise ValueError(
                f"reference.mode {self.reference.mode!r} builds on a pretrained reference, but model.init is 'none':"
                " set model.init, or reference.mode to scratch"
            )
        if self.reference.mode == "isolated" and pretrained and self.reference.isolated_pretrained.path is None:
            raise ValueError(
                "reference.mode 'isolated' with pretrained weights shifts their reference by the difference of the"
                " isolated atoms at both functionals: set reference.isolated_pretrained.path"
            )
        return self


class FinetuneConfig(TrainConfig):
    """finetune: a training run that starts from weights."""

    @model_validator(mode="after")
    def _starts_from_weights(self) -> Self:
        if self.model.init == "none":
            raise ValueError(
                "model.init is 'none', but fine-tuning starts from weights: set model.init to 0.3.0, r2scan, a model"
                " file or a run's folder, or use jobs/pretrain.py to train from random weights"
            )
        return self


class SweepConfig(FinetuneConfig):
    """sweep: many fine-tuning runs that differ in the keys of a search space. All other keys are those of one run."""

    sweep: SearchConfig = setting(..., "the search")

    @model_validator(mode="after")
    def _space_fits(self) -> Self:
        parse_space(self.sweep.space, FinetuneConfig)
        if self.launcher.kind != "ray":
            raise ValueError(
                f"launcher.kind is {self.launcher.kind!r}, but a sweep's trials run on Ray, which starts on this"
                " machine where there is no cluster: set launcher.kind to ray"
            )
        if self.sweep.scheduler.kind == "pbt" and self.launcher.max_workers > 1:
            raise ValueError(
                f"sweep.scheduler.kind is pbt, but launcher.num_workers is {self.launcher.num_workers}: trials of"
                " several ranks do not wait at the end of a generation; set it to 1, or choose another scheduler"
            )
        if self.launcher.min_workers != self.launcher.max_workers:
            raise ValueError(
                f"launcher.num_workers is {self.launcher.num_workers}, but how many trials run at once is derived"
                " from a fixed number of ranks each: give a whole number"
            )
        return self

    @property
    def dimensions(self) -> tuple[Dimension, ...]:
        """The search space."""
        return parse_space(self.sweep.space, FinetuneConfig)

    def base(self) -> FinetuneConfig:
        """The run that every trial is a variant of."""
        return FinetuneConfig.model_validate(self.model_dump(exclude={"sweep"}))


class EvaluateConfig(Section):
    """evaluate: the errors of a model on prepared data."""

    model: str = setting(
        ..., "0.3.0, r2scan, a model file (.pth.tar) or a run's folder (its best checkpoint)", min_length=1
    )
    output: str = setting(..., "folder for the figures", min_length=1)
    data: DataConfig = setting(..., "data to evaluate on")
    split: SplitName = setting("test", "which part of the materials")
    batch: BatchConfig = setting(BatchConfig(), "limits of one evaluation")
    baseline: str | None = setting(
        None, "another model, named as model is, whose errors stand beside; none if absent", min_length=1
    )
    probe: DataConfig | None = setting(
        None, "data of the pretraining functional: what the model has forgotten of its test materials"
    )
    pretrained: str | None = setting(
        None,
        "probe: the model before fine-tuning, whose reference is put back; what the run started from if absent",
        min_length=1,
    )
    phase_diagrams: int = setting(
        500,
        "most chemical systems whose phase diagrams give formation and decomposition energies; 0 leaves them out",
        unit="systems",
        ge=0,
    )
    track: bool = setting(True, "add the report to the MLflow run of the model, where it comes from a tracked run")

    @model_validator(mode="after")
    def _probe_for_pretrained(self) -> Self:
        if self.pretrained is not None and self.probe is None:
            raise ValueError("pretrained is used with a probe alone: set probe.path, or leave pretrained out")
        return self


class ExportConfig(Section):
    """export: a run's best model as a file that plain chgnet loads."""

    run: str = setting(..., "the run's folder", min_length=1)
    output: str = setting(..., "model file to write (.pth.tar)", pattern=r"\.pth\.tar$")
    checkpoint: Literal["best", "last"] = setting("best", "which of the run's checkpoints")
    functional: Literal["target", "replay"] = setting(
        "target", "target: of data.path; replay: of replay.path, with its reference and readout"
    )
    registry: RegistryConfig = setting(RegistryConfig(), "publication in MLflow's model registry")
