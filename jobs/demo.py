"""The whole road on surrogate data: the jobs one after the other, as a user calls them. Everything lands in demo/.

Data and runs that are there already are not made again.
"""

import json
import shlex
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

from ase.build import bulk
from chgnet.model import CHGNet, CHGNetCalculator

CONFIGS = "jobs/configs/demo"


def run(command: str) -> dict[str, Any]:
    """Run one job and return its summary."""
    print(f"\n$ python {command}", flush=True)
    done = subprocess.run([sys.executable, *shlex.split(command)], stdout=subprocess.PIPE, text=True, check=False)  # noqa: S603
    if done.returncode != 0:
        sys.exit(done.returncode)
    return json.loads(Path(done.stdout.splitlines()[-1]).read_text())


def row(name: str, errors: dict[str, float]) -> str:
    """One line of the table of mean absolute errors (eV/atom, eV/Å, GPa, μB), in the units of its head."""
    values = (errors["energy_mae"] * 1e3, errors["force_mae"] * 1e3, errors["stress_mae"], errors["magmom_mae"])
    return f"{name:44}{values[0]:10.1f}{values[1]:10.1f}{values[2]:10.3f}{values[3]:10.3f}"


def main() -> None:
    """Go the road once and print what the transfer gained."""
    run(f"jobs/prepare_data.py --config {CONFIGS}/prepare_gga.yaml")
    run(f"jobs/pretrain.py --config {CONFIGS}/pretrain.yaml")
    run(f"jobs/prepare_data.py --config {CONFIGS}/prepare_r2scan.yaml")
    tuned = run(f"jobs/finetune.py --config {CONFIGS}/finetune.yaml")
    before = run(f"jobs/evaluate.py --config {CONFIGS}/evaluate_pretrained.yaml")
    after = run(f"jobs/evaluate.py --config {CONFIGS}/evaluate_finetuned.yaml")
    model_file = run(f"jobs/export.py --config {CONFIGS}/export.yaml")["model"]

    print(f"\nMean absolute errors on {after['num_records']} r2SCAN test structures (surrogate labels, not DFT)")
    print(f"{'':44}{'energy':>10}{'force':>10}{'stress':>10}{'magmom':>10}")
    print(f"{'':44}{'meV/atom':>10}{'meV/Å':>10}{'GPa':>10}{'μB':>10}")
    print(row("pretrained, as it is (GGA reference)", before["errors"]))
    print(row("zero-step: pretrained, r2SCAN reference", tuned["zero_step"]["test"]))
    print(row("fine-tuned", after["errors"]))

    warnings.filterwarnings("ignore", module="chgnet")
    rock_salt = bulk("NaCl", "rocksalt", a=5.69, cubic=True)
    rock_salt.calc = CHGNetCalculator(CHGNet.from_file(model_file))
    energy = rock_salt.get_potential_energy() / len(rock_salt)
    print(f"\n{model_file}, loaded by plain chgnet as an ASE calculator: NaCl {energy:.3f} eV/atom")


if __name__ == "__main__":
    main()
