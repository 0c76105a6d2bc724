"""Many independent runs, one after the other in this process or as tasks of a Ray cluster."""

from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

from rung.config.sections import LauncherConfig
from rung.config.tree import TrainConfig
from rung.orchestration.launch import launch
from rung.orchestration.paths import resolve_paths
from rung.training.context import LocalContext
from rung.training.run import TrainSummary

Result = TypeVar("Result")
Work = Callable[[TrainConfig], Result]


def run_all(work: Work[Result], configs: Sequence[TrainConfig], at_a_time: int | None) -> Iterator[Result]:
    """Yield what `work` makes of each run, in their order.

    Args:
        work: trains a run (`train_one`) and returns what is wanted of it; it must be importable by Ray's workers.
        configs: the runs, all with the same launcher.
        at_a_time: runs at the same time on Ray.
    """
    resolved = [resolve_paths(config) for config in configs]
    if configs[0].launcher.kind == "local":
        return map(work, resolved)
    from rung.orchestration.ray_runs import map_runs  # noqa: PLC0415 (the local launcher needs no Ray)

    return map_runs(work, resolved, at_a_time)


def train_one(config: TrainConfig) -> TrainSummary:
    """Train a run of a study in this process, whoever started it; returns at once where it is complete.

    Raises:
        KeyboardInterrupt: a signal asked to stop, even if the run was complete by then: the study must not go on.
    """
    context = LocalContext()
    summary = launch(config.model_copy(update={"launcher": LauncherConfig(kind="local")}), context)
    if not summary.completed or context.stop_requested:
        raise KeyboardInterrupt
    return summary
