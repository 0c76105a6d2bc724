"""All checks in the order in which they are told, and what they say as text."""

import importlib
import textwrap
from collections.abc import Callable, Iterator, Mapping
from typing import Final

from rung.config.secrets import redacted
from rung.orchestration.checkup.finding import Finding, Subject, ok, problem

Check = Callable[[Subject], Finding]


def check_config(subject: Subject) -> Finding:
    """Whether the config is one of a job's."""
    if subject.complaint:
        return problem(subject.complaint, "correct it; everything else is checked with the defaults")
    return ok(f"of {subject.kind}" if subject.kind else "none given: --config FILE looks at data, folders and servers")


def later(module: str, name: str) -> Check:
    """A check whose module is imported when it runs: a package that cannot be imported spoils no other check."""

    def check(subject: Subject) -> Finding:
        return getattr(importlib.import_module(f"rung.orchestration.checkup.{module}"), name)(subject)

    return check


CHECKS: Final[Mapping[str, Check]] = {
    "config": check_config,
    "versions": later("versions", "check_versions"),
    "GPUs": later("machine", "check_gpus"),
    "NCCL": later("machine", "check_nccl"),
    "threads": later("machine", "check_threads"),
    "compiled loops": later("machine", "check_loops"),
    "shared memory": later("machine", "check_shared_memory"),
    "storage": later("places", "check_storage"),
    "free disk": later("places", "check_disk"),
    "raw files": later("places", "check_raw_files"),
    "data": later("places", "check_data"),
    "weights": later("places", "check_weights"),
    "MLflow": later("tracking", "check_mlflow"),
    "Ray": later("ray_cluster", "check_ray"),
    "ranks": later("ray_cluster", "check_ranks"),
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
                "install what was tested: python -m pip install --constraint constraints.txt --editable ."
                if isinstance(error, ImportError)
                else "jobs may work all the same; please report it with the versions above",
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
