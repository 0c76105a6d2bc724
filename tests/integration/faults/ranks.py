"""Groups of ranks that start in a tenth of a second, so that a test can afford to kill them again and again.

The processes are forked from a server that has imported everything. They open a real process group, and are the same as
those that torchrun starts; this file takes torchrun's part: when one dies it ends the others and starts all anew.
"""

import json
import multiprocessing
import os
import signal
import socket
import time
from collections import defaultdict
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from rung.config.tree import TrainConfig
from rung.data.dataset import ShardDataset
from rung.training import loop, step, validate
from rung.training.context import TorchrunContext
from rung.training.run import RunFolder
from rung.training.trainer import train

SERVER = multiprocessing.get_context("forkserver")
SERVER.set_forkserver_preload(["tests.integration.faults.ranks"])


@dataclass(frozen=True)
class Fault:
    """What happens to one rank, between its gradient and the sum over ranks of a global step (counted from 1)."""

    kind: str  # kill, hang, terminate, out of memory, no memory to evaluate, not a number
    rank: int
    step: int


class Disturbed(TorchrunContext):
    """A rank that something happens to."""

    fault = None

    def should_stop(self, step):
        fault = self.fault
        if fault is not None and (fault.rank, fault.step) == (self.rank, step):
            number = {"kill": signal.SIGKILL, "hang": signal.SIGSTOP, "terminate": signal.SIGTERM}.get(fault.kind)
            if number is not None:
                os.kill(os.getpid(), number)
                time.sleep(0)  # Python's handlers run between two instructions
        return super().should_stop(step)


def rank_main(values, world_size, port, start, fault, rank):
    """One rank, from fork to exit."""
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(world_size)}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    config = TrainConfig.model_validate(values)
    folder = RunFolder.of(config).path
    note_records(folder / "trained-on", start, rank, fault)
    context = Disturbed(config.faults.collective_timeout)
    context.handle_signals()
    context.fault = fault
    output = (folder / f"start-{start}-rank-{rank}.log").open("w")
    os.dup2(output.fileno(), 2)
    train(config, context)
    context.close()


def note_records(folder, start, rank, fault):
    """Have every gradient note which records it is of; and spoil the one that the fault is about."""
    folder.mkdir(parents=True, exist_ok=True)
    compute = step.TrainStep.compute
    file = (folder / f"{start}-{rank}.jsonl").open("a", buffering=1)
    steps_of = loop.Loop._steps_of

    def with_step(self, epoch, first):
        self.session.step.session = self.session
        return steps_of(self, epoch, first)

    def noting(self, plan, batches, *replayed):
        number = self.session.progress.step + 1
        ids = [record_id for batch in batches for record_id in batch.record_ids.tolist()]
        file.write(json.dumps({"step": number, "ids": ids}) + "\n")
        if fault is not None and fault.rank == rank and fault.step == number:
            budget = self.session.progress.budget_factor
            if fault.kind == "out of memory" and budget == 1.0:
                self.abstain()
                return False
            if fault.kind == "not a number":
                batches = [replace(batch, energy=batch.energy * torch.nan) for batch in batches]
        return compute(self, plan, batches, *replayed)

    step.TrainStep.compute = noting
    loop.Loop._steps_of = with_step
    if fault is not None and fault.kind == "no memory to evaluate" and fault.rank == rank:
        refuse_the_first_evaluation()


def refuse_the_first_evaluation():
    """As a device does that is too small for it."""
    evaluate = validate.evaluate

    def refusing(*arguments, **options):
        validate.evaluate = evaluate
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

    validate.evaluate = refusing


class Group:
    """The ranks of one start."""

    def __init__(self, config, world_size, start=0, fault=None):
        RunFolder.of(config).path.mkdir(parents=True, exist_ok=True)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        arguments = (config.model_dump(mode="json"), world_size, port, start, fault)
        self.processes = [SERVER.Process(target=rank_main, args=(*arguments, rank)) for rank in range(world_size)]
        for process in self.processes:
            process.start()

    def wait(self, seconds=120.0):
        """Wait for all; when one dies, end the others. Returns the exit codes as they were before that."""
        deadline = time.monotonic() + seconds
        while any(process.is_alive() for process in self.processes):
            if any(process.exitcode not in (None, 0) for process in self.processes):
                break
            assert time.monotonic() < deadline, "the ranks do not end"
            time.sleep(0.01)
        codes = [process.exitcode for process in self.processes]
        for process in self.processes:
            process.kill()
            process.join()
        return codes


def run_whole(config, world_size):
    """A run that nothing happens to."""
    assert Group(config, world_size).wait() == [0] * world_size, logs(config)


def logs(config):
    """What the ranks had to say."""
    return "\n".join(path.read_text() for path in sorted(RunFolder.of(config).path.glob("start-*.log")))


def weights_of(config):
    return RunFolder.of(config).load_state("last")["model"]["state_dict"]


def assert_same_weights(config, expected):
    for name, weights in weights_of(config).items():
        torch.testing.assert_close(weights, weights_of(expected)[name], rtol=0, atol=0, msg=name)


def distance(config, expected):
    """Euclidean distance of the weights, over their norm."""
    pairs = [(weights, weights_of(expected)[name]) for name, weights in weights_of(config).items()]
    one, other = (torch.cat([pair[i].double().flatten() for pair in pairs]) for i in (0, 1))
    return float((one - other).norm() / other.norm())


def trained_on(config):
    """Record ids of each global step, sorted: those of the last start that did it, all ranks together."""
    by_step = defaultdict(lambda: defaultdict(list))
    for path in Path(RunFolder.of(config).path / "trained-on").iterdir():
        start = int(path.stem.partition("-")[0])
        attempts = {}
        for line in path.read_text().splitlines():
            entry = json.loads(line)
            attempts[entry["step"]] = entry["ids"]  # the last attempt counts: one without memory is done again
        for number, ids in attempts.items():
            by_step[number][start] += ids
    return {number: sorted(starts[max(starts)]) for number, starts in sorted(by_step.items())}


def assert_each_record_once_per_epoch(config):
    """None lost, none doubled, and nothing but the training split."""
    expected = ShardDataset(config.data.path).select("train")
    steps = trained_on(config)
    per_epoch = len(steps) // config.training.epochs
    for epoch in range(config.training.epochs):
        ids = [i for number in range(epoch * per_epoch, (epoch + 1) * per_epoch) for i in steps[number + 1]]
        np.testing.assert_array_equal(sorted(ids), expected)
