"""report.html: what a data set holds, what was set aside and why, on one page for a person to look at.

python -m data_prep.report FOLDER    writes it again
"""

import argparse
import logging
import sys
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np

from data_prep.facts import MEASURES
from data_prep.quarantine_file import read_quarantine
from data_prep.tally import records_with_elements
from data_prep.view import SetView
from rung.config.logs import configure_logging
from rung.config.progress import followed
from rung.data.codec import ShardError
from rung.data.dataset import Manifest
from rung.data.index import SPLITS, split_name
from rung.data.record import Reason
from rung.reporting.chart import Axis, Cell
from rung.reporting.distributions import histogram
from rung.reporting.page import Page, Section
from rung.reporting.plots import bars
from rung.reporting.table import Column

logger = logging.getLogger("data_prep.report")  # also when it is run as a program

REPORT: Final = "report.html"
_EXAMPLES: Final = 3  # of each reason
_EXTREMES: Final = 10  # records named for each label
_MOST_NAMED: Final = 50  # outliers
_FEW: Final = 20  # training records below which an element is called rare
_OUTLIERS: Final = (Reason.ENERGY_OUTLIER, Reason.FORCE_OUTLIER, Reason.STRESS_OUTLIER, Reason.FUNCTIONAL_MISMATCH)
_RECORDS: Final = Axis("records")


def write_report(folder: Path) -> Path:
    """Write the page of a data set into its folder; equal sets give equal pages.

    Raises:
        ShardError: the folder holds no data set, or a file of it is damaged.
    """
    data = SetView.open(folder)
    page = Page(f"Data set {data.manifest.source['dataset']}", _subtitle(data.manifest))
    with followed("writing the report", len(_SECTIONS), "section") as advance:
        for title, fill in _SECTIONS.items():
            fill(page.section(title), data)
            advance(1)
    page.write(folder / REPORT)
    return folder / REPORT


def _subtitle(manifest: Manifest) -> str:
    source, graph = manifest.source, manifest.graph
    return (
        f"Prepared from source.kind {source['kind']}; energies: {source['energy'] or 'the default of that kind'};"
        f" bonds up to {graph.atom_cutoff:g} Å, angles between bonds up to {graph.bond_cutoff:g} Å."
    )


def _overview(section: Section, data: SetView) -> None:
    counts, index = data.manifest.counts, data.index
    materials = len(np.unique(index.material_id[data.kept]))
    section.tiles(
        {
            "frames read": f"{counts['read']:,}",
            "records in use": f"{counts['kept']:,}",
            "set aside": f"{counts['read'] - counts['kept']:,}",
            "materials": f"{materials:,}",
            "elements": f"{len(data.manifest.elements)}",
            "atoms": f"{int(index.num_atoms[data.kept].sum(dtype=np.int64)):,}",
        }
    )
    keys = data.manifest.labels["energy_keys"]
    if len(keys) > 1:
        found = ", ".join(f"{key} ({count:,})" for key, count in keys.items())
        section.note(f"Energies come from different keys: {found}. Corrected and uncorrected energies do not mix.")
    columns = [Column("label"), Column("measure"), *map(Column, ("records", "mean", "spread", "least", "most"))]
    rows: list[list[Cell]] = []
    for measure in MEASURES:
        found = data.manifest.labels[measure.label]
        numbers = [found.get(key) for key in ("mean", "std", "min", "max")]
        rows.append([measure.label, f"{measure.meaning} ({measure.unit})", found["records"], *numbers])
    section.table(columns, rows, "Labels of the records in use. A label that is absent is left out of the loss.")


def _energies(section: Section, data: SetView) -> None:
    section.text(
        "The reference is the part of the energy that composition alone explains; every functional and every data set"
        " has its own. It is fitted to the training records and subtracted before a network learns the rest.",
    )
    raw = data.measured(0)
    if not raw:
        section.note("No record has an energy.")
        return
    energy = Axis("energy per atom", "eV/atom")
    section.figure(histogram(raw, energy, _RECORDS), "Energies as they are in the source.")
    after = {name: found.after for name, found in data.referenced.items() if len(found.after)}
    if not after:
        section.note("No training record has an energy, so no reference is fitted.")
        return
    left = Axis("referenced energy per atom", "eV/atom")
    section.figure(histogram(after, left, _RECORDS), "The same energies with the fitted reference subtracted.")
    _fits(section, data)


def _fits(section: Section, data: SetView) -> None:
    unit = "eV/atom"
    columns = [
        Column("functional"),
        Column("records"),
        Column("elements"),
        Column("rank"),
        Column("condition"),
        Column("spread before", unit),
        Column("spread after", unit),
        Column("MAE after", unit),
        Column("left out"),
    ]
    rows: list[list[Cell]] = []
    for name, found in data.referenced.items():
        elements, spread = (
            int((found.fit.records_with > 0).sum()),
            [float(v.std()) for v in (found.before, found.after)],
        )
        fit = [found.fit.num_records, elements, found.fit.rank, found.fit.condition]
        rows.append([name, *fit, *spread, float(np.abs(found.after).mean()), found.left_out])
    section.table(
        columns,
        rows,
        "The fits. A rank below the number of elements means that some elements share their energy arbitrarily; left"
        " out are records with elements that no training record has, whose energies no fit can know.",
    )


def _forces(section: Section, data: SetView) -> None:
    for column, measure in enumerate(MEASURES[1:], start=1):
        values = {name: found[found > 0] for name, found in data.measured(column).items() if (found > 0).any()}
        if not values:
            section.text(f"No record has {measure.label} other than zero.")
            continue
        axis = Axis(measure.meaning, measure.unit, log=True)
        zero = sum(int((found == 0).sum()) for found in data.measured(column).values())
        also = f" Records in which it is zero, {zero:,}, are not drawn." if zero else ""
        section.figure(histogram(values, axis, _RECORDS, whole=True), f"{measure.meaning.capitalize()}.{also}")


def _elements(section: Section, data: SetView) -> None:
    counts = {symbol: float(count) for symbol, count in data.manifest.elements.items()}
    section.periodic_table(counts, Axis("records", log=True), "Records in use that contain each element.")
    for name, found in data.referenced.items():
        seen = found.fit.to_json()["records_with"]
        rare = [f"{symbol} ({count})" for symbol, count in seen.items() if count < _FEW]
        here = records_with_elements(data.index, data.rows(name))
        unseen = [symbol for symbol in here if symbol in found.fit.unseen]
        if rare:
            section.text(f"{name}: elements in fewer than {_FEW} training records: {', '.join(rare)}.")
        if unseen:
            section.note(
                f"{name}: no training record contains {', '.join(unseen)}, though others do: their reference energy"
                " cannot be fitted (reference.unseen chooses a table for them)."
            )


def _sizes(section: Section, data: SetView) -> None:
    index = data.index
    rows = {name: data.rows(name) for name in data.functionals}
    sizes = (
        (Axis("atoms", log=True), index.num_atoms, "Atoms in a cell."),
        (
            Axis("bonds per atom"),
            2 * index.num_bonds / index.num_atoms,
            "Neighbours of an atom within the atom cutoff.",
        ),
        (Axis("angles per atom"), index.num_angles / index.num_atoms, "Angles, which decide what a cell costs."),
    )
    for axis, values, caption in sizes:
        section.figure(histogram({name: values[part] for name, part in rows.items()}, axis, _RECORDS), caption)


def _set_aside(section: Section, data: SetView) -> None:
    counts: Counter[str] = Counter(data.manifest.counts["rejected"])
    if not counts:
        section.text("Nothing was set aside.")
        return
    reasons = [reason for reason, _ in counts.most_common()]
    chart = bars(reasons, {"frames": [counts[reason] for reason in reasons]}, Axis("reason"), Axis("frames", log=True))
    section.figure(chart, "Frames that are not used, by reason.", wide=True)
    examples: dict[str, list[list[Cell]]] = defaultdict(list)
    for line in read_quarantine(data.folder):
        if len(examples[line["reason"]]) < _EXAMPLES:
            examples[line["reason"]].append(_quarantined(line))
    shown = [row for reason in reasons for row in examples[reason]]
    columns = [*map(Column, ("reason", "material", "frame", "what was found"))]
    section.table(columns, shown, f"Up to {_EXAMPLES} examples of each reason; quarantine.jsonl lists all.")


def _quarantined(line: Mapping[str, Any]) -> list[Cell]:
    return [line["reason"].value, line["material_id"], line["frame_id"], line["detail"]]


def _splits(section: Section, data: SetView) -> None:
    by = data.manifest.config["split"]["by"].replace("_", " ")
    section.text(f"Records of the same {by} are never torn apart, and another data set splits them alike.")
    index = data.index
    columns = [Column("functional")]
    columns += [Column(f"{split} {noun}") for noun in ("records", "materials") for split in SPLITS]
    rows: list[list[Cell]] = []
    for name in data.functionals:
        of_this = data.rows(name)
        parts = [of_this[index.split[of_this] == number] for number in range(len(SPLITS))]
        materials = [len(np.unique(index.material_id[part])) for part in parts]
        rows.append([name, *map(len, parts), *materials])
    section.table(columns, rows, "Records and materials of each part.")
    energies = {
        split: found.after[index.split[found.rows] == number]
        for number, split in enumerate(SPLITS)
        for found in [next(iter(data.referenced.values()), None)]
        if found is not None
    }
    energies = {split: values for split, values in energies.items() if len(values)}
    if energies:
        axis = Axis("referenced energy per atom", "eV/atom")
        name = next(iter(data.referenced))
        section.figure(histogram(energies, axis, _RECORDS), f"Energies of each part ({name}); they should look alike.")


def _extremes(section: Section, data: SetView) -> None:
    outliers = [_quarantined(line) for line in read_quarantine(data.folder) if line["reason"] in _OUTLIERS]
    if outliers:
        columns = [*map(Column, ("reason", "material", "frame", "what was found"))]
        section.table(columns, outliers[:_MOST_NAMED], _set_aside_caption(len(outliers)))
    columns = [*map(Column, ("functional", "material/frame", "atoms", "split"))]
    for name, found in data.referenced.items():
        order = np.argsort(-np.abs(found.after - np.median(found.after)), kind="stable")[:_EXTREMES]
        rows = [[*_named(data, name, int(found.rows[at])), float(found.after[at])] for at in order]
        value = Column("referenced energy", "eV/atom")
        section.table([*columns, value], rows, f"Records in use whose energies lie farthest out, {name}.")
    for number, measure in enumerate(MEASURES[1:], start=1):
        rows = []
        values = np.where(data.kept, np.nan_to_num(data.facts.measures[:, number], nan=-np.inf), -np.inf)
        for at in np.argsort(-values, kind="stable")[:_EXTREMES]:
            if np.isfinite(values[at]):
                functional = data.index.functional[at : at + 1].tolist()[0].decode()
                rows.append([*_named(data, functional, int(at)), float(values[at])])
        if rows:
            value = Column(measure.meaning, measure.unit)
            section.table([*columns, value], rows, f"Records in use with the largest {measure.label}.")


def _set_aside_caption(total: int) -> str:
    more = f"; the first {_MOST_NAMED} of {total:,}" if total > _MOST_NAMED else ""
    return f"Outliers that were set aside{more}. Good ones can be put back: python -m data_prep.quarantine."


def _named(data: SetView, functional: str, row: int) -> list[Cell]:
    split = split_name(int(data.index.split[row]))
    return [functional, *data.index.record_names([row]), int(data.index.num_atoms[row]), split]


_SECTIONS: Final[Mapping[str, Callable[[Section, SetView], None]]] = {
    "Overview": _overview,
    "Set aside": _set_aside,
    "Energies": _energies,
    "Forces, stresses and moments": _forces,
    "Elements": _elements,
    "Sizes": _sizes,
    "Splits": _splits,
    "Outliers and extremes": _extremes,
}


def main(argv: Sequence[str] | None = None) -> int:
    """Write the page of the folder named on the command line; 0, or 2 if it is no data set."""
    parser = argparse.ArgumentParser(prog="python -m data_prep.report", description="Write a data set's report again.")
    parser.add_argument("folder", type=Path, help="folder that prepare_data wrote")
    configure_logging()
    try:
        path = write_report(parser.parse_args(argv).folder)
    except ShardError as error:
        logger.error("%s", error)  # noqa: TRY400 - the message says it all
        return 2
    logger.info("%s", path)
    return 0


if __name__ == "__main__":
    sys.exit(main())
