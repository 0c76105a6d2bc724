"""Records that cannot be used: each is counted and listed with its reason, never replaced nor dropped in silence."""

from collections import Counter
from collections.abc import Iterator, Mapping

from data_prep.sources.base import ParsedFrame
from rung.config.preparation import FilterConfig
from rung.data.index import IndexRow
from rung.data.record import Reason


def refusal(parsed: ParsedFrame, row: IndexRow, filters: FilterConfig) -> tuple[Reason, str] | None:
    """Why a record, looked at alone, is set aside: the first reason and what was found; None if it is kept."""
    return next(_refusals(parsed, row, filters), None)


def _refusals(parsed: ParsedFrame, row: IndexRow, filters: FilterConfig) -> Iterator[tuple[Reason, str]]:
    # Before convergence: linear response counts its own steps among the electronic ones.
    task = parsed.task_type or ""
    if any(refused.lower() in task for refused in filters.task_types):
        yield Reason.TASK_TYPE, f"task type {task!r} is one of filters.task_types, {', '.join(filters.task_types)}"
    if parsed.converged is False and filters.unconverged == "reject":
        yield Reason.UNCONVERGED, "its electronic steps did not converge (filters.unconverged)"
    if filters.functionals is not None and row.functional not in filters.functionals:
        allowed = ", ".join(filters.functionals)
        yield Reason.WRONG_FUNCTIONAL, f"functional {row.functional}; filters.functionals keeps {allowed}"
    plus_u = parsed.hubbard_u or row.functional.endswith("+U")
    if plus_u and filters.hubbard_u == "reject":
        yield Reason.HUBBARD_U, f"calculated with +U (functional {row.functional}; filters.hubbard_u)"
    sizes = ("atoms", filters.max_atoms), ("bonds", filters.max_bonds), ("angles", filters.max_angles)
    for noun, most in sizes:
        found = getattr(row, f"num_{noun}")
        if most is not None and found > most:
            yield Reason.TOO_LARGE, f"{found:,} {noun}; filters.max_{noun} allows {most:,}"


def reasons_text(counts: Mapping[str, int]) -> str:
    """The reasons with their counts, most frequent first, for one line of text."""
    return ", ".join(f"{reason} {count:,}" for reason, count in Counter(counts).most_common()) or "none"
