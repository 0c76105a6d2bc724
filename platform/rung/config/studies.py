"""The configs of the studies: many runs or records, one answer."""

from typing import Self

from pydantic import model_validator

from rung.config.section import Section, setting
from rung.config.sections import DataConfig
from rung.config.tree import TrainConfig


class LabelledSetConfig(Section):
    """One of the two data sets that are compared."""

    data: DataConfig = setting(..., "prepared data")
    isolated_atoms: str | None = setting(
        None, "file with the energies of isolated atoms at this functional: MatPES's layouts, or CSV", min_length=1
    )
    column: str | None = setting(None, "column of isolated_atoms where it is a CSV with several", min_length=1)


class FunctionalsConfig(Section):
    """study_functionals: how far two functionals agree on the same structures."""

    output: str = setting(..., "folder for summary.json and report.html", min_length=1)
    lower: LabelledSetConfig = setting(..., "the functional with many data, such as GGA")
    upper: LabelledSetConfig = setting(..., "the functional to reach, such as r2SCAN")
    tolerance: float = setting(1e-3, "structures are the same up to this distance", unit="Å", gt=0)
    min_pairs: int = setting(3, "elements with fewer pairs have no correlation of their own", unit="pairs", ge=3)


class StudyConfig(Section):
    """What the studies of training have in common: every run is an ordinary run, and finished ones are not repeated."""

    output: str = setting(..., "folder for summary.json, report.html and the runs", min_length=1)
    base: TrainConfig = setting(
        ...,
        "the budget that all runs share; its run.name, run.storage, run.seed, reference.mode and reference.start_limit"
        " are replaced",
    )
    seeds: tuple[int, ...] = setting((0, 1, 2), "seeds; the spread over them is the error bar", min_length=1)
    at_a_time: int | None = setting(
        None, "base.launcher.kind ray: runs at the same time; as many as the cluster holds if absent", unit="runs", ge=1
    )

    @model_validator(mode="after")
    def _starts_from_weights(self) -> Self:
        if self.base.model.init == "none":
            raise ValueError("base.model.init is 'none', but a study asks what pretrained weights are worth: set it")
        if self.base.launcher.kind == "torchrun":
            raise ValueError("base.launcher.kind is 'torchrun', which starts one run: set it to local or ray")
        if len(set(self.seeds)) < len(self.seeds):
            raise ValueError(f"seeds {list(self.seeds)} repeat one: give each once")
        return self


METHODS_MEANING = (
    "a reference mode, and after it any keys of a training run as on the command line: 'refit --model.freeze_depth 2'"
)


class TransferStudyConfig(StudyConfig):
    """study_transfer: which treatment carries a pretrained model over best, at one budget."""

    methods: tuple[str, ...] = setting(
        ("scratch", "trainable", "frozen", "refit", "residual"), METHODS_MEANING, min_length=1
    )
    probe: DataConfig | None = setting(
        None, "prepared data of the pretraining functional, to measure what its test materials are worth afterwards"
    )


class ScalingStudyConfig(StudyConfig):
    """study_scaling: how many data of the higher functional are needed, with pretraining and without."""

    methods: tuple[str, ...] = setting(("scratch", "refit"), METHODS_MEANING + "; the first is the yardstick")
    shares: tuple[float, ...] = setting(
        (0.05, 0.1, 0.2, 0.4, 1.0), "shares of the training materials, each set part of the next", min_length=2
    )
    fit_from: int = setting(0, "fewest training records that the power law is fitted to", unit="records", ge=0)

    @model_validator(mode="after")
    def _shares_rise(self) -> Self:
        if list(self.shares) != sorted(set(self.shares)) or not 0 < self.shares[0] <= self.shares[-1] <= 1:
            raise ValueError(f"shares are {list(self.shares)}; they rise, above 0 and up to 1")
        return self
