"""All checks in the order in which they are told, and what they say as text."""

import textwrap
from collections.abc import Callable, Iterator, Mapping
from typing import Final

from rung.config.secrets import redacted
from rung.orchestration.checkup.finding import Finding, Subject, ok, problem
from rung.orchestration.checkup.machine import (
    check_gpus,
    check_loops,
    check_nccl,
    check_shared_memory,
    check_threads,
    check_versions,
)
from rung.orchestration.checkup.places import check_data, check_disk, check_raw_files, check_storage, check_weights
from rung.orchestration.checkup.services import check_mlflow, check_ranks, check_ray

Check = Callable[[Subject], Finding]


def check_config(subject: Subject) -> Finding:
    """Whether the config is one of a job's."""
    if subject.complaint:
        return problem(subject.complaint, "correct it; everything else is checked with the defaults")
    return ok(f"of {subject.kind}" if subject.kind else "none given: --config FILE looks at data, folders and servers")


CHECKS: Final[Mapping[str, Check]] = {
    "config": check_config,
    "versions": check_versions,
    "GPUs": check_gpus,
    "NCCL": check_nccl,
    "threads": check_threads,
    "compiled loops": check_loops,
    "shared memory": check_shared_memory,
    "storage": check_storage,
    "free disk": check_disk,
    "raw files": check_raw_files,
    "data": check_data,
    "weights": check_weights,
    "MLflow": check_mlflow,
    "Ray": check_ray,
    "ranks": check_ranks,
}

_WIDTH, _NAME_WIDTH = 120, 26


def examine(subject: Subject, checks: Mapping[str, Check] = CHECKS) -> Iterator[tuple[str, Finding]]:
    """Run the checks one after the other; one that breaks is a problem itself, and the others go on."""
    for name, check in checks.items():
        try:
            finding = check(subject)
        except Exception as error:  # noqa: BLE001 (whatever is broken here must not hide what the others find)
            finding = problem(
                f"this check failed itself ({type(error).__name__}: {' '.join(str(error).split())[:200]})",
                "jobs may work all the same; please report it with the versions above",
            )
        yield name, finding


def line(name: str, finding: Finding) -> str:
    """A finding as text: status, name, what was found; the advice below it."""
    head = f"{finding.status:8} {name:16} "
    texts = [redacted(finding.found), *([f"-> {redacted(finding.advice)}"] if finding.advice else [])]
    wrapped = [
        part
        for text in texts
        for each in text.splitlines()
        for part in textwrap.wrap(each, _WIDTH - _NAME_WIDTH, break_long_words=False, break_on_hyphens=False)
    ]
    return "\n".join(f"{head if number == 0 else ' ' * _NAME_WIDTH}{part}" for number, part in enumerate(wrapped))


def total(findings: list[Finding]) -> str:
    """The last line."""
    problems, notes = (sum(each.status == status for each in findings) for status in ("problem", "note"))
    if problems:
        return f"{problems} of {len(findings)} checks found a problem: follow the arrows (->), then run this again"
    return "no problem found" + (f", {notes} note{'s' * (notes > 1)}" if notes else "")
