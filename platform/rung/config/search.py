"""What a sweep searches, how it chooses trials, and when it gives one up."""

from typing import Any, Final, Literal, Self

from pydantic import model_validator

from rung.config.section import Section, setting

Objective = Literal["energy_mae", "force_mae", "stress_mae", "magmom_mae", "probe_force_mae"]


MUTABLE: Final = (
    "optimizer.learning_rate",
    "optimizer.weight_decay",
    "optimizer.clip_norm",
    "loss.energy",
    "loss.force",
    "loss.stress",
    "loss.magmom",
    "loss.delta",
)
"""What population based training may change in the middle of a run."""


class SchedulerConfig(Section):
    """When a trial that does badly is stopped, or takes over a better one.

    asha: Li et al. 2018, arXiv 1810.05934; median: Golovin et al. 2017 (Google Vizier); pbt: Jaderberg et al. 2017,
    arXiv 1711.09846.
    """

    kind: Literal["asha", "median", "pbt", "none"] = setting(
        "asha",
        "asha: trials pause after grace, grace x reduction, ... epochs, and the best 1 / reduction of those that have"
        " come so far go on; median: stopped when worse"
        " than the median of the others; pbt: every interval epochs the worst go on from copies of the best, with"
        " other rates and loss weights; none: every trial runs to its end",
    )
    grace: int = setting(1, "asha, median: epochs that every trial is given", unit="epochs", ge=1)
    reduction: float = setting(3.0, "asha: one of so many goes on", gt=1)
    interval: int = setting(2, "pbt: epochs of a generation", unit="epochs", ge=1)
    quantile: float = setting(0.25, "pbt: share of the trials that take over one of as many best", gt=0, le=0.5)


class SearchConfig(Section):
    """The search itself. Each trial is an ordinary run with its folder below run.storage / run.name / trials."""

    space: dict[str, Any] = setting(
        ...,
        "key of this configuration: one of {log_uniform: [low, high]}, {uniform: [low, high]}, {choice: [...]},"
        " {grid: [...]}; with `when: {other key: [values]}` it is varied for these values only",
        min_length=1,
    )
    trials: int = setting(
        16, "trials besides the two that are always run, untouched model and paper's recipe; grid: at most", ge=1
    )
    searcher: Literal["random", "grid", "tpe"] = setting(
        "random", "random draws; grid: all combinations; tpe: Optuna's tree-structured Parzen estimator"
    )
    objectives: tuple[Objective, ...] = setting(
        ("energy_mae",),
        "validation errors to make small; several are ranked by their geometric mean and given one by one to tpe",
        min_length=1,
    )
    probe: str | None = setting(
        None, "prepared GGA data on whose validation materials forgetting is measured (probe_force_mae)"
    )
    scheduler: SchedulerConfig = setting(SchedulerConfig(), "when trials are stopped")
    concurrent: int | None = setting(
        None, "most trials at a time; as many as the cluster holds if absent", unit="trials", ge=1
    )
    registered_model: str | None = setting(
        None,
        "name under which MLflow registers the best model; it becomes the champion unless the present one is better",
        min_length=1,
    )

    @model_validator(mode="after")
    def _population_that_can_change(self) -> Self:
        if self.scheduler.kind != "pbt":
            return self
        if not set(self.space) & set(MUTABLE):
            raise ValueError(
                f"scheduler.kind is pbt, which changes values on the way, but the space has {', '.join(self.space)}:"
                f" add one of {', '.join(MUTABLE)}, or choose another scheduler"
            )
        if self.trials < 2:
            raise ValueError("scheduler.kind is pbt, but trials is 1: a population has two or more")
        return self

    @model_validator(mode="after")
    def _probe_for_its_objective(self) -> Self:
        if "probe_force_mae" in self.objectives and self.probe is None:
            raise ValueError(
                "objectives holds probe_force_mae, but there is no probe: set sweep.probe to prepared GGA data,"
                " or leave that objective out"
            )
        if len(set(self.objectives)) < len(self.objectives):
            raise ValueError(f"objectives {list(self.objectives)} names one twice: keep one")
        return self
