"""Texts that VASP writes, of a small crystal, for the tests of whoever reads them."""

from collections.abc import Mapping, Sequence
from typing import Final

LATTICE: Final = [[4.0, 0.0, 0.0], [0.5, 4.1, 0.0], [0.0, 0.0, 4.2]]
FRACTIONAL: Final = [[0.0, 0.0, 0.0], [0.5, 0.5, 0.5]]
CARTESIAN: Final = [[0.0, 0.0, 0.0], [2.25, 2.05, 2.1]]
FORCES: Final = [[0.1, 0.0, -0.2], [-0.1, 0.0, 0.2]]
STRESS: Final = [[10.0, 4.0, 6.0], [4.0, 20.0, 5.0], [6.0, 5.0, 30.0]]
MOMENTS: Final = [-1.5, 0.5]
POTCARS: Final = ("PAW_PBE Mn_pv 02Aug2007", "PAW_PBE O 08Apr2002")
SYMBOLS: Final = ("Mn", "O")


def rows(values: Sequence[Sequence[float]], name: str = "") -> str:
    text = "".join(f"<v>{' '.join(f'{x:.8f}' for x in row)}</v>\n" for row in values)
    return f'<varray name="{name}">{text}</varray>\n'


def vasprun_step(energy: float, electronic: int = 5, *, stress: bool = True, others: str | None = None) -> str:
    energies = f'<i name="e_fr_energy">{energy:.8f}</i>' + (
        others or f'<i name="e_wo_entrp">{energy + 0.02:.8f}</i><i name="e_0_energy">{energy + 0.01:.8f}</i>'
    )
    return (
        "<calculation>\n"
        + "<scstep><energy><i name='e_fr_energy'>0.0</i></energy></scstep>\n" * electronic
        + f"<structure><crystal>{rows(LATTICE, 'basis')}</crystal>{rows(FRACTIONAL, 'positions')}</structure>\n"
        + rows(FORCES, "forces")
        + (rows(STRESS, "stress") if stress else "")
        + f"<energy>{energies}</energy>\n"
        + "<eigenvalues><array><set><r>1.0 2.0</r></set></array></eigenvalues>\n</calculation>\n"
    )


def vasprun(
    steps: Sequence[str] | None = None,
    incar: Mapping[str, str] | None = None,
    potcars: Sequence[str] = POTCARS,
    symbols: Sequence[str] = SYMBOLS,
) -> str:
    """A run of two ionic steps, unless others are given."""
    tags = "".join(f'<i name="{tag}">{value}</i>' for tag, value in (incar or {}).items())
    atoms = "".join(f"<rc><c>{symbol}</c><c>{number + 1}</c></rc>" for number, symbol in enumerate(symbols))
    kinds = "".join(
        f"<rc><c>1</c><c>{symbol}</c><c>1.0</c><c>1.0</c><c>{potcar}</c></rc>"
        for symbol, potcar in zip(symbols, potcars, strict=False)
    )
    return (
        '<?xml version="1.0" encoding="ISO-8859-1"?>\n<modeling>\n'
        f"<incar>{tags}</incar>\n<parameters><i name='NELM'>60</i></parameters>\n"
        f"<atominfo><array name='atoms'><set>{atoms}</set></array>"
        f"<array name='atomtypes'><set>{kinds}</set></array></atominfo>\n"
        + "".join(steps or (vasprun_step(-20.0), vasprun_step(-20.5)))
        + "</modeling>\n"
    )


def outcar_step(
    number: int, energy: float, electronic: int = 2, *, stress: bool = True, reached: bool | None = True
) -> str:
    lines = [f"--------- Iteration{number:7d}({i + 1:4d})  ---------" for i in range(electronic)]
    if reached is not None:
        lines.append(
            f"------------------------ aborting loop {'because' if reached else 'EDIFF was not reached (unconverged)'}"
            f"{' EDIFF is reached' if reached else ''} ----------------"
        )
    if stress:
        xx, yy, zz, xy, yz, zx = 10.0, 20.0, 30.0, 4.0, 5.0, 6.0
        lines.append(f"  in kB  {xx:11.5f} {yy:11.5f} {zz:11.5f} {xy:11.5f} {yz:11.5f} {zx:11.5f}")
    lines += ["      direct lattice vectors                 reciprocal lattice vectors"]
    lines += [" ".join(f"{x:13.9f}" for x in (*row, 0.1, 0.2, 0.3)) for row in LATTICE]
    lines += [" POSITION                                       TOTAL-FORCE (eV/Angst)", " " + "-" * 60]
    lines += [" ".join(f"{x:13.5f}" for x in (*at, *f)) for at, f in zip(CARTESIAN, FORCES, strict=True)]
    lines += [
        " " + "-" * 60,
        f"  free  energy   TOTEN  =     {energy:14.8f} eV",
        "",
        f"  energy  without entropy={energy + 0.02:14.8f}  energy(sigma->0) ={energy + 0.01:14.8f}",
    ]
    return "\n".join(lines) + "\n"


def moments_table(moments: Sequence[float] = MOMENTS, axis: str = "x") -> str:
    lines = [f" magnetization ({axis})", "", "# of ion       s       p       d       tot", "-" * 42]
    lines += [f"{i + 1:5d}      0.000   0.000   0.000  {moment:7.3f}" for i, moment in enumerate(moments)]
    return "\n".join([*lines, "-" * 42, "tot  0.0 0.0 0.0 0.0"]) + "\n"


def outcar(steps: Sequence[str] | None = None, tags: str = "", after: str = "") -> str:
    """A run of two ionic steps, unless others are given."""
    head = [
        " vasp.6.3.0 20Jan22 (build) complex",
        *(f"   VRHFIN ={symbol}: s2p4" for symbol in SYMBOLS),
        *(f"   TITEL  = {potcar}" for potcar in POTCARS),
        "   ions per type =               1   1",
        "   NELM   =     60;   NELMIN=  2; NELMDL= -5     # of ELM steps",
        tags,
    ]
    body = "".join(steps or (outcar_step(1, -20.0), outcar_step(2, -20.5)))
    return "\n".join(head) + "\n" + body + after
