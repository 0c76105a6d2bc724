"""Names of functionals, and what VASP's tags say about a calculation."""

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

VASP_TAGS: Final = frozenset(
    (
        *("NELM", "METAGGA", "GGA", "LHFCALC", "HFSCREEN", "AEXX", "IVDW", "LUSE_VDW"),
        *("LDAU", "LDAUU", "LDAUJ", "ICHARG", "IBRION", "NSW", "LEPSILON"),
    )
)
"""The tags of VASP that are asked here."""

DEFAULT_NELM: Final = 60
"""Electronic steps that VASP allows where no NELM is given."""

_FUNCTIONALS: Final = {
    "gga": "GGA",
    "pbe": "GGA",
    "pe": "GGA",
    "metagga": "meta-GGA",
    "r2scan": "r2SCAN",
    "r2sca": "r2SCAN",  # VASP keeps five letters of a tag
    "scan": "SCAN",
    "rscan": "rSCAN",
    "pbesol": "PBEsol",
    "ps": "PBEsol",
    "lda": "LDA",
    "ca": "LDA",
    "pz": "LDA",
    "rpbe": "RPBE",
    "rp": "RPBE",
    "revpbe": "revPBE",
    "re": "revPBE",
    "pw91": "PW91",
    "91": "PW91",
    "am05": "AM05",
    "am": "AM05",
    "tpss": "TPSS",
    "revtpss": "revTPSS",
    "rtpss": "revTPSS",
    "m06l": "M06-L",
    "mbj": "mBJ",
    "hf": "HF",
    "hse03": "HSE03",
    "hse06": "HSE06",
    "hse": "HSE06",
    "pbe0": "PBE0",
    "b3lyp": "B3LYP",
    "optpbe": "optPBE-vdW",
    "or": "optPBE-vdW",
    "optb88": "optB88-vdW",
    "bo": "optB88-vdW",
    "optb86b": "optB86b-vdW",
    "mk": "optB86b-vdW",
    "bf": "BEEF-vdW",
    "beef": "BEEF-vdW",
}
"""Rung's name for each name that data sets and VASP use (in small letters, without blanks, dashes and superscripts)."""

_DISPERSION: Final = {
    1: "D2",
    10: "D2",
    11: "D3",
    12: "D3BJ",
    13: "D4",
    2: "TS",
    20: "TS",
    21: "TSHI",
    202: "MBD",
    263: "MBD",
    4: "dDsC",
    3: "ULG",
}
"""What VASP's IVDW adds to the functional (VASP's manual, tag IVDW)."""

_NOT_SET: Final = ("", "--", "none", "f", ".false.", "false")
"""What VASP writes for a tag that was not given."""


def functional_name(raw: str) -> str:
    """Rung's name of a functional: PBE is GGA, R2SCAN is r2SCAN; an unknown name is kept as it is written."""
    written = raw.strip()
    key = re.sub(r"[\s_-]", "", written.lower().replace("²", "2").replace("_u", "+u"))
    base, plus, rest = key.partition("+")
    known = _FUNCTIONALS.get(base)
    if known is None or rest not in ("", "u"):
        return written
    return f"{known}+U" if plus else known


def known_functional(raw: str) -> str:
    """Rung's name of a functional that somebody typed; an unknown one is refused.

    Raises:
        ValueError: no functional of that name is known.
    """
    name = functional_name(raw)
    base = name.removesuffix("+U").partition("-D")[0]
    if base not in _FUNCTIONALS.values():
        allowed = ", ".join(dict.fromkeys(_FUNCTIONALS.values()))
        raise ValueError(f"source.functional is {raw!r}; known are {allowed}, each also with +U")
    return name


def with_u(functional: str, *, applied: bool) -> str:
    """The name of a functional with or without +U."""
    base = functional.removesuffix("+U")
    return f"{base}+U" if applied else base


def vasp_functional(tags: Mapping[str, Any], potcars: Sequence[str] = ()) -> str | None:
    """The functional that VASP's tags ask for, +U and dispersion included; None where they do not say.

    A meta-GGA goes before a GGA, as in VASP. That a tag asks does not mean that VASP obeyed: the check of energies
    against elemental references finds the runs that did not.

    Args:
        tags: of INCAR, or VASP's parameters with those of INCAR over them.
        potcars: titles of the potentials, whose own functional is used where no tag is set.
    """
    base = _base_functional(tags, potcars)
    if base is None:
        return None
    dispersion = _DISPERSION.get(_integer(tags.get("IVDW")) or 0)
    if dispersion is None and _flag(tags.get("LUSE_VDW")) and not base.endswith("-vdW"):
        dispersion = "rVV10"
    name = f"{base}-{dispersion}" if dispersion else base
    return with_u(name, applied=vasp_hubbard_u(tags))


def _base_functional(tags: Mapping[str, Any], potcars: Sequence[str]) -> str | None:
    if _flag(tags.get("LHFCALC")):
        screening = _number(tags.get("HFSCREEN")) or 0.0
        exchange = _number(tags.get("AEXX"))
        if exchange == 1:
            return "HF"
        return "PBE0" if screening == 0 else "HSE03" if abs(screening - 0.3) < 0.01 else "HSE06"
    for tag in ("METAGGA", "GGA"):
        written = str(tags.get(tag) or "").strip()
        if written.lower() not in _NOT_SET:
            return functional_name(written)
    # No tag: the functional of the potentials.
    if any(title.split()[:1] == ["PAW_PBE"] for title in potcars):
        return "GGA"
    if any(title.split()[:1] == ["PAW_GGA"] for title in potcars):
        return "PW91"
    return "LDA" if any(title.split()[:1] == ["PAW"] for title in potcars) else None


def vasp_hubbard_u(tags: Mapping[str, Any]) -> bool:
    """Whether VASP's tags apply a +U that is not zero."""
    if not _flag(tags.get("LDAU")):
        return False
    values = [*_numbers(tags.get("LDAUU")), *_numbers(tags.get("LDAUJ"))]
    return any(values) if values else True


def vasp_task_type(tags: Mapping[str, Any]) -> str | None:
    """What kind of calculation VASP's tags ask for; None where they do not say."""
    ions, steps, charge = (_integer(tags.get(tag)) for tag in ("IBRION", "NSW", "ICHARG"))
    if charge is not None and charge >= 10:
        return "nscf"
    if ions in (5, 6, 7, 8) or _flag(tags.get("LEPSILON")):
        return "dfpt"
    if ions is None and steps is None:
        return None
    if not steps or ions == -1:
        return "static"
    return "molecular dynamics" if ions == 0 else "structure optimization"


def _flag(value: Any) -> bool:
    return value is True or str(value).strip(" .").upper() in ("T", "TRUE", "1")


def _number(value: Any) -> float | None:
    return next(iter(_numbers(value)), None)


def _integer(value: Any) -> int | None:
    number = _number(value)
    return None if number is None or not math.isfinite(number) else int(number)


def _numbers(value: Any) -> list[float]:
    """The numbers of a tag: one, a list of them, or their text."""
    if isinstance(value, bool) or value is None:
        return []
    words = value if isinstance(value, list | tuple) else str(value).split()
    try:
        return [float(word) for word in words]
    except (TypeError, ValueError, OverflowError):
        return []
