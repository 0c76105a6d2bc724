"""The training loop: one for pretraining and fine-tuning, the same under every launcher.

What is trained on, in which order and at which rate is a function of (seed, epoch, global step). A run can be killed at
any moment; the next start with the same storage and name goes on from the newest whole checkpoint.
"""

import json
import logging
from collections.abc import Sequence
from typing import Any

from chgnet.model import CHGNet

from rung.config.load import to_yaml
from rung.config.progress import told_to
from rung.config.secrets import redacted_values
from rung.config.tree import TrainConfig
from rung.model.weights import save_model
from rung.training.context import TrainContext
from rung.training.distributed import naming_hung_ranks, wait_for_all
from rung.training.elements import ELEMENTS_NAME
from rung.training.hardware import hardware_of_ranks
from rung.training.initial import initial_model
from rung.training.loop import Loop
from rung.training.meanwhile import Meanwhile
from rung.training.numerics import numerics
from rung.training.resilience.storage import insist
from rung.training.run import (
    CONFIG_NAME,
    INITIAL_NAME,
    MODEL_NAME,
    REFERENCE_NAME,
    SUMMARY_NAME,
    RunFolder,
    TrainSummary,
    check_same_run,
    model_of,
    package_versions,
)
from rung.training.session import HELD_OUT, Session
from rung.training.sinks import MetricSink, RunDescription
from rung.training.state import Progress

logger = logging.getLogger(__name__)


def train(config: TrainConfig, context: TrainContext, sinks: Sequence[MetricSink] = ()) -> TrainSummary:
    """Train, or go on training, the run that the config describes.

    Args:
        config: the run.
        context: this rank.
        sinks: receivers of metrics besides the run's own metrics.jsonl; used on rank 0.

    Returns:
        The run's summary, the same on every rank but for its speed; rank 0 also writes it to the run's folder.

    Raises:
        ValueError: the data, the model or the saved state do not fit the config, or a shard cannot be read and
            `faults.damaged_shards` is refuse.
        AbsurdStartError: the untouched model is further off than `reference.start_limit`.
        NonFiniteError: on every rank, before the update that would have spoilt the weights.
        MemoryBudgetError: on every rank, when one cannot hold a single structure.
        StorageError: the storage refused for longer than `faults.storage_patience`.
        HungRankError: a rank did not come to where the others wait for it.
    """
    meanwhile = told_to(Meanwhile(RunFolder.of(config), context.rank))
    with numerics(config.training), naming_hung_ranks(config.faults.collective_timeout), meanwhile:
        session = Session(config, context, sinks)
        try:
            return _run(session)
        except BaseException:
            session.abort()
            raise


def _run(session: Session) -> TrainSummary:
    state = session.newest_state()
    if state is None:
        _start(session)
    else:
        finished = _finished_summary(session, state)
        if finished is not None:
            return finished
        _resume(session, state)
    _open_sinks(session)
    Loop(session).run()
    return _finish(session)


def _start(session: Session) -> None:
    """Begin at step 0 with the initial model, and record what it is worth untouched."""
    initial = initial_model(session.config, session.dataset, session.records["train"], session.context)
    session.open(initial.model, Progress(initial.reference, {}), initial.model.state_dict())
    if session.step.replay is not None:
        session.step.replay.begin()
    session.progress.zero_step = {split: session.errors(split) for split in HELD_OUT}
    if session.context.rank == 0:
        _write_config(session)
        session.write(REFERENCE_NAME, json.dumps(initial.reference, indent=1))
        if session.config.transfer.l2_sp:
            path, patience = session.folder.path / INITIAL_NAME, session.config.faults.storage_patience
            insist(lambda: save_model(initial.model, path, {"of": "the pull towards it"}), str(path), patience)
    session.checkpoint(session.progress.zero_step["validation"])


def _resume(session: Session, state: dict[str, Any]) -> None:
    """Go on from a checkpoint."""
    changes = check_same_run(session.config, session.dataset.manifest_hash, state, session.folder.path)
    session.restore(state)
    progress = session.progress
    logger.info("%s: resuming at step %d of %d", session.folder.path, progress.step, session.total_steps)
    if changes:
        text = f"going on from step {progress.step} with changed settings (run.allow_changes): {'; '.join(changes)}"
        session.incident("changed settings", text)
        progress.changes += [f"step {progress.step}: {change}" for change in changes]
        if session.context.rank == 0:
            _write_config(session)


def _write_config(session: Session) -> None:
    values = redacted_values(session.config.model_dump(mode="json"))
    session.write(CONFIG_NAME, to_yaml(TrainConfig.model_validate(values)))


def _open_sinks(session: Session) -> None:
    """Introduce the run to the sinks."""
    hardware = hardware_of_ranks()
    description = RunDescription(
        folder=session.folder.path,
        config=session.config,
        manifest_hash=session.dataset.manifest_hash,
        manifest=session.dataset.manifest.model_dump(mode="json"),
        reference=session.progress.reference,
        num_parameters=session.model.n_params,
        versions=package_versions(),
        first_step=session.progress.step,
        total_steps=session.total_steps,
        hardware=hardware,
    )
    for sink in session.sinks:
        sink.start(description)
    if session.progress.step == 0:
        validation = session.progress.zero_step["validation"]
        session.log({f"validation/{name}": value for name, value in validation.items()})


def _finished_summary(session: Session, state: dict[str, Any]) -> TrainSummary | None:
    """The summary of a run that is complete already."""
    path = session.folder.path / SUMMARY_NAME
    if state["progress"]["step"] < session.total_steps or not path.exists():
        return None
    check_same_run(session.config, session.dataset.manifest_hash, state, session.folder.path)
    summary = TrainSummary.read(path)
    return summary if summary.completed else None


def _finish(session: Session) -> TrainSummary:
    """Evaluate the best weights on what was held out, and write model and summary; a stopped run leaves without."""
    session.written()
    progress = session.progress
    completed = progress.step >= session.total_steps
    best_step = session.store.best_step() or 0
    best_model = model_of(session.store.load(best_step)).to(session.context.device) if completed else None
    summary = TrainSummary(
        run=str(session.folder.path),
        model=str(session.folder.path / MODEL_NAME),
        steps=progress.step,
        epochs=progress.step / session.sampler.steps_per_epoch,
        num_parameters=session.model.n_params,
        num_trainable=session.step.gradients.buffer.numel(),
        best_step=best_step,
        completed=completed,
        num_records={split: len(ids) for split, ids in session.records.items()},
        zero_step=progress.zero_step,
        best={split: session.errors(split, best_model) for split in HELD_OUT} if best_model else {},
        structures_per_second=progress.structures_per_second,
    )
    elements = session.errors_by_element(best_model) if best_model else {}
    if session.context.rank == 0:
        if elements:
            session.write(ELEMENTS_NAME, json.dumps(elements, indent=1))
        _write_results(session, best_model, summary)
    wait_for_all()  # rank 0 may still be writing; its connections should not end under it
    return summary


def _write_results(session: Session, model: CHGNet | None, summary: TrainSummary) -> None:
    """Write summary and, of a complete run, the model, and hand them to the sinks."""
    patience = session.config.faults.storage_patience
    session.incidents.close(patience)
    if model is None:
        session.write(SUMMARY_NAME, json.dumps(summary.to_dict(), indent=1))
        for sink in session.sinks:
            sink.abort()
        logger.warning(
            "stopped after step %d of %d, as asked; the same command resumes from there",
            *(summary.steps, session.total_steps),
        )
        return
    card = {"run": summary.to_dict(), "config": redacted_values(session.config.model_dump(mode="json"))}
    path = session.folder.path / MODEL_NAME
    insist(lambda: save_model(model, path, card), str(path), patience)
    session.write(SUMMARY_NAME, json.dumps(summary.to_dict(), indent=1))
    artifacts = [session.folder.path / name for name in (MODEL_NAME, SUMMARY_NAME, CONFIG_NAME, REFERENCE_NAME)]
    for sink in session.sinks:
        sink.finish(artifacts)
    if summary.best_step == 0 and summary.steps > 0:
        logger.warning("no epoch was better than the initial model, which is what %s holds", summary.model)
