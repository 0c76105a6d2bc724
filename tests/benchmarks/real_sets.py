"""Every set of real data through the whole preparation: frames read, kept, and rejected by reason.

python -m tests.benchmarks.real_sets --json FILE

Each folder is prepared with the source and settings that fit it, and verified. What VASP's files are packed into JSON
as (a test asset of the Materials Project's) is unpacked first. Free atoms are refused as a whole, as they should be.
"""

import gzip
import json
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from data_prep.convert import NoUsableRecordError, prepare
from data_prep.encode import Encoder
from data_prep.quarantine_file import read_quarantine
from data_prep.sources.registry import open_source
from data_prep.verify import verify
from rung.config.tree import PrepareConfig
from tests.benchmarks.cells import DATA
from tests.benchmarks.figures import Figures, run


@dataclass(frozen=True)
class Prepared:
    """What became of one set: frames read, kept, and rejected by reason; and the lines of its quarantine."""

    read: int
    kept: int
    rejected: dict[str, int]
    quarantine: tuple[dict[str, Any], ...] = ()


MATPES: Final = "matpes-element-refs"

SETS: Final[dict[str, dict[str, Any]]] = {
    "derived-mptrj-format": {"kind": "mptrj", "path": "derived-mptrj-format"},
    "emmet-tasks": {
        "kind": "mp_api",
        "path": ["emmet-tasks/*task*.json.gz", "emmet-tasks/elasticity", "emmet-tasks/magnetism"],
    },
    "emmet-tasks, entries": {"kind": "mp_api", "path": "emmet-tasks/Li-Fe-O.json.gz"},
    "emmet-tasks, VASP": {"kind": "vasp", "path": "emmet-tasks/vasp"},
    f"{MATPES}, PBE": {"kind": "matpes", "path": f"{MATPES}/MatPES-PBE-Element-Refs.json.gz"},
    f"{MATPES}, r2SCAN": {"kind": "matpes", "path": f"{MATPES}/MatPES-r2SCAN-Element-Refs.json.gz"},
    f"{MATPES}, MP": {"kind": "mp_api", "path": f"{MATPES}/MP-PBE-Element-Refs.json.gz", "functional": "PBE"},
    "caneparesearch-r2scan": {"kind": "vasp", "path": "caneparesearch-r2scan"},
    "atomate2-vasp": {"kind": "vasp", "path": "atomate2-vasp"},
    "chgnet-vasp": {"kind": "vasp", "path": "chgnet-vasp"},
    "fairchem-oxides": {"kind": "ase", "path": "fairchem-oxides", "functional": "PBE"},
    "isolated-atoms-mp": {"kind": "atoms", "path": "isolated-atoms-mp/atomic_energies.csv"},
    "wbm-equilibrium": {"kind": "mp_api", "path": "wbm-equilibrium", "functional": "PBE"},
}
"""The source of each set; paths are relative to the data."""


def prepare_set(name: str, data: Path, scratch: Path) -> Prepared:
    """Prepare one of `SETS` into a folder below `scratch`, and check it."""
    source = dict(SETS[name])
    paths = [source["path"]] if isinstance(source["path"], str) else source["path"]
    if paths == ["emmet-tasks/vasp"]:
        source["path"] = str(unpack(data / paths[0], scratch / "unpacked"))
    else:
        source["path"] = [str(data / path) for path in paths]
    output = scratch / name
    config = PrepareConfig.model_validate({"output": str(output), "source": source, "parallel": {"workers": 1}})
    try:
        summary = prepare(config)
    except NoUsableRecordError:
        return _all_refused(config)
    verify(output).require_sound()
    return Prepared(
        summary.records_read, summary.records_kept, summary.records_rejected, tuple(read_quarantine(output))
    )


def unpack(folder: Path, target: Path) -> Path:
    """Write the files of VASP runs that are kept as `{name: {"0": bytes in hexadecimal}}`."""
    for path in sorted(folder.glob("*.json.gz")):
        run_folder = target / path.name.removesuffix(".json.gz")
        run_folder.mkdir(parents=True, exist_ok=True)
        for name, parts in json.loads(gzip.decompress(path.read_bytes())).items():
            (run_folder / name).write_bytes(b"".join(map(bytes.fromhex, parts.values())))
    return target


def _all_refused(config: PrepareConfig) -> Prepared:
    """What there is to count in a set without any usable record, of which nothing is left."""
    source = open_source(config.source)
    frames = list(source.frames())
    outcomes = Encoder(source.parser, config.graph, config.filters)(frames)
    source.close()
    reasons = Counter(outcome.reason.value for outcome in outcomes)
    return Prepared(len(frames), 0, dict(reasons))


def measure() -> Figures:
    """Prepare all sets, and print the table."""
    figures: Figures = {}
    total = Prepared(0, 0, {})
    start = time.monotonic()
    table = ["| set | read | kept | rejected |", "| --- | --- | --- | --- |"]
    with tempfile.TemporaryDirectory(prefix="rung-real-") as scratch:
        for name in SETS:
            begin = time.monotonic()
            done = prepare_set(name, DATA, Path(scratch))
            reasons = ", ".join(f"{reason} {count}" for reason, count in sorted(done.rejected.items()))
            table.append(f"| `{name}` | {done.read:,} | {done.kept:,} | {reasons or 'none'} |")
            figures |= {f"{name}: read": done.read, f"{name}: kept": done.kept}
            figures |= {f"{name}: {reason}": count for reason, count in sorted(done.rejected.items())}
            figures[f"{name}: seconds"] = round(time.monotonic() - begin, 2)
            total = Prepared(total.read + done.read, total.kept + done.kept, {})
    sys.stdout.write("\n".join(table) + "\n")
    seconds = time.monotonic() - start
    return figures | {"sets": len(SETS), "read": total.read, "kept": total.kept, "seconds": round(seconds, 1)}


if __name__ == "__main__":
    run(measure, __doc__)
