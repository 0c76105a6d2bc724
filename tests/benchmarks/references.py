"""Fitted elemental references beside the tables that the chgnet package carries, and what stands out.

python -m tests.benchmarks.references --json FILE

Three fits of one energy per element: the shift from PBE to r2SCAN on the MatPES element references that both
functionals share; PBE energies of WBM's relaxed crystals beside the MPtrj table; and the shift between surrogate sets,
whose labels contain the tables' difference by construction.
"""

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
from pymatgen.core import Element

from rung.data.dataset import ShardDataset
from rung.data.pairing import find_pairs
from rung.data.reference import ReferenceFit, bundled_reference, fit_reference
from rung.studies.functionals import compare_with_tables
from tests.benchmarks.cells import DATA
from tests.benchmarks.drawing import Named, draw_named
from tests.benchmarks.figures import Figures, run
from tests.benchmarks.real_sets import MATPES, prepare_set
from tests.benchmarks.surrogates import surrogate_set

NAMED: Final = 6
"""Elements named in each panel."""

PANELS: Final = {
    "matpes_shift": "PBE to r2SCAN, one MatPES element each",
    "wbm_pbe": "PBE energies of WBM crystals, MPtrj table",
    "surrogate_shift": "shift between surrogate sets",
}


def shift_between(lower: ShardDataset, upper: ShardDataset) -> tuple[ReferenceFit, dict[str, Any]]:
    """Fit of the differences on the structures that both hold, and each element's two numbers."""
    pairs = find_pairs(lower, upper, 1e-3)
    differences = upper.index.energy[pairs.second] - lower.index.energy[pairs.first]
    fit = fit_reference(lower.compositions(pairs.first), differences)
    return fit, compare_with_tables(fit)["elements"]


def beside_mptrj(dataset: ShardDataset) -> tuple[ReferenceFit, dict[str, Any]]:
    """Fit to the labels themselves, beside the MPtrj table."""
    fit = fit_reference(*dataset.compositions_and_energies(dataset.select("train")))
    table = bundled_reference("MPtrj")
    places = np.flatnonzero((fit.records_with > 0) & (table != 0)).tolist()
    rows = {Element.from_Z(z + 1).symbol: {"fitted": float(fit.energies[z]), "tables": float(table[z])} for z in places}
    return fit, rows


def measure() -> Figures:
    """Agreement of each fit, and every element of it."""
    figures: Figures = {}
    with tempfile.TemporaryDirectory(prefix="rung-references-") as scratch:
        folder = Path(scratch)
        names = (f"{MATPES}, PBE", f"{MATPES}, r2SCAN", "wbm-equilibrium")
        for name in names:
            prepare_set(name, DATA, folder)
        pbe, r2scan, wbm = (ShardDataset(folder / name) for name in names)
        found = {
            "matpes_shift": shift_between(pbe, r2scan),
            "wbm_pbe": beside_mptrj(wbm),
            "surrogate_shift": shift_between(*(ShardDataset(surrogate_set(each)) for each in ("GGA", "r2SCAN"))),
        }
    for panel, (fit, rows) in found.items():
        figures |= {f"{panel}_{key}": value for key, value in agreement(rows).items()}
        figures |= {f"{panel}_records": fit.num_records, f"{panel}_left_eV_per_atom": fit.mae_after}
        figures |= {f"{panel}_{s}_{key}": row[key] for s, row in rows.items() for key in ("fitted", "tables")}
    return figures


def agreement(rows: Mapping[str, Mapping[str, float]]) -> Figures:
    """Correlation, median deviation, and the elements that deviate most, worst first."""
    fitted, tables = (np.array([row[key] for row in rows.values()]) for key in ("fitted", "tables"))
    off = np.abs(fitted - tables)
    order = np.argsort(-off)
    rest = np.delete(np.arange(len(off)), order[0])
    symbols = list(rows)
    return {
        "elements": len(symbols),
        "pearson": float(np.corrcoef(fitted, tables)[0, 1]),
        "pearson_without_worst": float(np.corrcoef(fitted[rest], tables[rest])[0, 1]),
        "median_deviation_eV_per_atom": float(np.median(off)),
        "largest_deviations_eV_per_atom": ", ".join(
            f"{symbols[at]} {fitted[at] - tables[at]:+.2f}" for at in order[:NAMED]
        ),
    }


def draw(figures: Figures, path: Path) -> None:
    """The fits against the tables, the worst elements with their names."""
    panels = {}
    for panel, title in PANELS.items():
        symbols = [name.split("_")[-2] for name in figures if name.startswith(panel) and name.endswith("_fitted")]
        worst = [part.split()[0] for part in str(figures[f"{panel}_largest_deviations_eV_per_atom"]).split(", ")]
        x, y = ([float(figures[f"{panel}_{s}_{key}"]) for s in symbols] for key in ("tables", "fitted"))
        names = [symbol if symbol in worst else "" for symbol in symbols]
        label = (
            f"r = {figures[f'{panel}_pearson']:.3f}, {figures[f'{panel}_pearson_without_worst']:.3f} less {worst[0]}"
        )
        panels[title] = {label: Named(x, y, names)}
    draw_named(panels, "table of the chgnet package (eV/atom)", "fitted (eV/atom)", path)


if __name__ == "__main__":
    run(measure, __doc__, draw)
