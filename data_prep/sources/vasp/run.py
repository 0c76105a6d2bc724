"""One ionic step of a VASP run: its own text out of vasprun.xml or OUTCAR, and what the whole run has in common."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Final, Literal, Self

import orjson

from data_prep.functionals import VASP_TAGS
from data_prep.sources.base import RawFrame
from data_prep.sources.payload import load_object, required
from rung.data.record import Reason, RecordError

LARGEST_STEP: Final = 64 << 20
"""Bytes of text that one ionic step or the head of a file may have; a cell of 1,000 atoms has about 1 MB."""

FileFormat = Literal["vasprun", "outcar"]


@dataclass(frozen=True, slots=True)
class Settings:
    """What the steps of a run have in common.

    Attributes:
        symbols: element of each atom.
        potcars: title of each potential.
        tags: the tags of VASP that decide about functional, convergence and kind of calculation.
        hubbards: U of each element, eV; empty where none is applied.
    """

    symbols: tuple[str, ...]
    potcars: tuple[str, ...]
    tags: dict[str, Any]
    hubbards: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Step:
    """An ionic step as it was cut out of a file.

    Attributes:
        number: from 1.
        text: of the step, without what is not needed (eigenvalues, densities of states).
        settings: of the run; None where they could not be read.
        broken: why the step cannot be used, where that is known already.
    """

    number: int
    text: str
    settings: Settings | None
    broken: str = ""


@dataclass(frozen=True, slots=True)
class StepFrame:
    """A step on its way to the parser.

    Attributes:
        form: of the step's text.
        step: itself.
        outcar: text of the same step in the OUTCAR beside a vasprun.xml, for its moments.
    """

    form: FileFormat
    step: Step
    outcar: str = ""

    def dump(self) -> bytes:
        """The frame as JSON, which a person can read in the quarantine."""
        return orjson.dumps(asdict(self))

    @classmethod
    def load(cls, frame: RawFrame) -> Self:
        """Read it back.

        Raises:
            RecordError: the step is broken, or the frame is none.
        """
        raw = load_object(frame)
        step = required(raw, "step", dict)
        if step.get("broken"):
            raise RecordError(Reason.MALFORMED, str(step["broken"]))
        settings = required(step, "settings", dict)
        try:
            read = Settings(
                tuple(map(str, settings["symbols"])),
                tuple(map(str, settings["potcars"])),
                dict(settings["tags"]),
                {str(element): float(value) for element, value in dict(settings["hubbards"]).items()},
            )
            return cls(raw["form"], Step(int(step["number"]), str(step["text"]), read), str(raw.get("outcar") or ""))
        except (KeyError, TypeError, ValueError) as error:
            raise RecordError(Reason.MALFORMED, f"it is no ionic step of a VASP run: {error!r}") from error


def settings_of(
    symbols: Sequence[str], types: Sequence[str], potcars: Sequence[str], tags: Mapping[str, Any]
) -> Settings:
    """Settings of a run from its tags.

    Args:
        symbols: element of each atom.
        types: element of each block of POTCAR, which LDAUU follows.
        potcars: titles of the potentials.
        tags: all tags that were found.
    """
    values = str(tags.get("LDAUU") or "").split()
    # The blocks may be listed several times over; the first round is the one that counts.
    hubbards = {
        element: number
        for element, value in zip(types, values, strict=False)
        if (number := _number(value)) is not None and len(values) >= len(types)
    }
    on = str(tags.get("LDAU")).strip(" .").upper() in ("T", "TRUE")
    known = {tag: value for tag, value in tags.items() if tag in VASP_TAGS}
    return Settings(tuple(symbols), tuple(potcars), known, hubbards if on else {})


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None
