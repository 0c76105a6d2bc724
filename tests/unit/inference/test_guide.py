"""The Python of docs/models.md works as it stands, with fewer steps."""

import re
from pathlib import Path

import pytest
from pymatgen.core import Lattice, Structure

from rung.model.weights import load, save_model

GUIDE = Path(__file__).resolve().parents[3] / "docs" / "models.md"
BLOCKS = re.findall(r"```python\n(.*?)```", GUIDE.read_text(), re.DOTALL)


@pytest.mark.parametrize("block", [block for block in BLOCKS if "mlflow" not in block], ids=["chgnet", "ase"])
def test_the_guides_code_runs(block, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    save_model(load("r2scan"), "models/finetune-r2scan/chgnet.pth.tar", {})
    cell = Structure.from_spacegroup("Fm-3m", Lattice.cubic(5.7), ["Na", "Cl"], [[0, 0, 0], [0.5, 0.5, 0.5]])
    cell.get_primitive_structure().to(filename="NaCl.cif")
    shorter = re.sub(r"\.run\(1000\)", ".run(2)", block).replace("steps=500", "steps=3")
    assert shorter != block
    exec(compile(shorter, str(GUIDE), "exec"), {})
