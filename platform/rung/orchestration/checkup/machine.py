"""Checks of the machine itself: GPUs, CPUs, compiled loops, memory that processes share."""

import os
import shutil
import tempfile
from importlib import metadata
from pathlib import Path
from typing import Final

import numba
import torch
import torch.cuda.nccl

from rung.orchestration.checkup.finding import Finding, Subject, note, ok, problem
from rung.orchestration.paths import existing_folder
from rung.orchestration.resources import OBJECT_STORE_BYTES
from rung.training.hardware import node_hardware

DRIVER: Final = Path("/proc/driver/nvidia/version")
SHARED_MEMORY: Final = Path("/dev/shm")  # noqa: S108 (where the system has it)
_CPU_LIMITS: Final = (Path("/sys/fs/cgroup/cpu.max"), Path("/sys/fs/cgroup/cpu/cpu.cfs_quota_us"))

_OLDEST_FOR_TRITON: Final = (7, 0)
"""Compute capability below which Triton compiles nothing."""


def check_gpus(subject: Subject) -> Finding:
    """GPUs that PyTorch can use, and why not."""
    driver = _driver()
    if torch.cuda.is_available():
        return _usable_gpus()
    if driver and torch.version.cuda is None:
        return problem(
            f"this machine has an NVIDIA GPU (driver {driver}), but torch {torch.__version__} is a build for CPUs",
            "install torch's build for CUDA: https://pytorch.org/get-started/locally",
        )
    if driver:
        hidden = os.environ.get("CUDA_VISIBLE_DEVICES")
        if hidden is not None and hidden.strip() in ("", "-1"):
            return note(f"CUDA_VISIBLE_DEVICES={hidden!r} hides the GPUs", "unset it to train on them")
        return problem(
            f"this machine has an NVIDIA GPU (driver {driver}), but torch {torch.__version__} (CUDA"
            f" {torch.version.cuda}) cannot use it",
            "update the driver, or install torch for the CUDA that it knows; nvidia-smi names both",
        )
    wanted = subject.launcher.gpus_per_worker or 0
    if wanted > 0 and not _elsewhere(subject):
        return problem(
            f"launcher.gpus_per_worker is {wanted:g}, but this machine has no NVIDIA GPU",
            "leave launcher.gpus_per_worker out to train on CPUs, or start the job where there is a GPU",
        )
    return ok("no NVIDIA GPU: training runs on CPUs")


def _usable_gpus() -> Finding:
    facts = node_hardware()
    names = ", ".join(f"{gpu['name']} ({gpu['memory_gib']:g} GiB)" for gpu in facts["gpus"])
    oldest = min(torch.cuda.get_device_capability(number) for number in range(torch.cuda.device_count()))
    level = ".".join(map(str, oldest))
    found = f"{len(facts['gpus'])} x {names}, compute capability {level}, torch for CUDA {torch.version.cuda}"
    built = [name.removeprefix("sm_") for name in torch.cuda.get_arch_list() if name.startswith("sm_")]
    if built and oldest < min((int(name.rstrip("af")[:-1]), int(name.rstrip("af")[-1])) for name in built):
        return problem(
            f"{found}: it was built for {', '.join(built)}", "install an older torch, or take a newer GPU (7.0 and up)"
        )
    if oldest < _OLDEST_FOR_TRITON:
        return problem(f"{found}: Triton needs 7.0", "take a newer GPU, or hide this one: CUDA_VISIBLE_DEVICES=''")
    try:
        version = metadata.version("triton")
    except metadata.PackageNotFoundError:
        return problem(f"{found}, without Triton", "install it: python -m pip install triton")
    return ok(f"{found}, Triton {version}")


def check_nccl(subject: Subject) -> Finding:  # noqa: ARG001 (all checks look alike)
    """What ranks on GPUs talk through."""
    if not torch.cuda.is_available():
        return ok("not needed without GPUs")
    if not torch.distributed.is_nccl_available():
        return problem("this torch has no NCCL, so ranks on GPUs cannot talk", "install torch's own build for CUDA")
    return ok("NCCL " + ".".join(map(str, torch.cuda.nccl.version())))


def check_threads(subject: Subject) -> Finding:  # noqa: ARG001 (all checks look alike)
    """Cores that this process may use, and the threads that it would start."""
    cores, limit = len(os.sched_getaffinity(0)), cpu_limit()
    usable = cores if limit is None else min(cores, limit)
    found = f"{cores} cores" + ("" if limit is None else f", limited to {limit:g} by the container (cgroup)")
    given = os.environ.get("OMP_NUM_THREADS")
    if given is None:
        advice = "export OMP_NUM_THREADS=1 where several processes share the cores"
        return note(f"{found}; OMP_NUM_THREADS is not set: every process starts a thread a core", advice)
    if not given.isdigit() or int(given) < 1:
        return problem(f"OMP_NUM_THREADS is {given!r}", "set it to a whole number of at least 1, or unset it")
    if int(given) > usable:
        return note(
            f"{found}; OMP_NUM_THREADS is {given}: threads would wait for each other",
            f"lower it to {max(1, int(usable))}",
        )
    return ok(f"{found}; OMP_NUM_THREADS is {given}")


def cpu_limit() -> float | None:
    """CPUs that the container may use; None where nothing limits it."""
    for path in _CPU_LIMITS:
        if not path.exists():
            continue
        quota, *rest = path.read_text().split()
        period = rest[0] if rest else path.with_name("cpu.cfs_period_us").read_text()
        return None if quota in ("max", "-1") else int(quota) / int(period)
    return None


def check_loops(subject: Subject) -> Finding:  # noqa: ARG001 (all checks look alike)
    """Whether numba compiles here, and keeps what it compiled."""
    from rung.model import rows  # noqa: PLC0415 (asks numba for its folder)

    total = numba.njit(_total)(3)
    if total != 3:
        return problem(f"numba {numba.__version__} compiles to wrong code", "install the tested version of numba")
    folder = rows.values.stats.cache_path  # pyright: ignore[reportFunctionMemberAccess] (numba's dispatcher)
    advice = "set NUMBA_CACHE_DIR to a folder that can be written, or every process compiles anew (a minute)"
    if folder is None:
        return note("numba compiles, but finds no folder to keep its code in", advice)
    try:
        with tempfile.TemporaryFile(dir=existing_folder(Path(folder))):
            pass
    except OSError as error:
        return note(f"numba compiles, but {folder} cannot be written ({error.strerror})", advice)
    return ok(f"numba compiles, and keeps its code in {folder}")


def _total(number: int) -> int:
    total = 0
    for each in range(number):
        total += each
    return total


def check_shared_memory(subject: Subject) -> Finding:
    """Room for Ray's object store, which lies in shared memory."""
    if not SHARED_MEMORY.is_dir():
        return note(f"this system has no {SHARED_MEMORY}", "Ray keeps its objects on disk, which is slow")
    usage, needed = shutil.disk_usage(SHARED_MEMORY), OBJECT_STORE_BYTES
    found = f"{SHARED_MEMORY} has {_size(usage.free)} of {_size(usage.total)} free; Ray's object store takes"
    found += f" {_size(needed)}"
    if usage.free < needed and subject.launcher.kind == "ray" and not _elsewhere(subject):
        return problem(found, "give the container more: docker run --shm-size=1g, or an emptyDir of medium Memory")
    return ok(found)


def _elsewhere(subject: Subject) -> bool:
    """Whether ranks run on a cluster that is there already, so that this machine says little about them."""
    return subject.launcher.kind == "ray" and bool(subject.launcher.address or os.environ.get("RAY_ADDRESS"))


def _driver() -> str:
    """Version of NVIDIA's driver; empty where there is none."""
    if not DRIVER.exists():
        return ""
    words = DRIVER.read_text().split()
    return next((word for word in words if word.replace(".", "").isdigit() and "." in word), "of unknown version")


def _size(number: float) -> str:
    return f"{number / 2**30:.1f} GiB"
