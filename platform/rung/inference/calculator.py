"""An ASE calculator on Rung's evaluation of CHGNet: the numbers of chgnet's calculator in a fraction of the time."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from ase import Atoms
from ase.calculators.calculator import Calculator, CalculatorSetupError, all_changes
from chgnet.model import CHGNet

from rung.config.sections import ModelConfig
from rung.data.graph import graph_record
from rung.data.record import RecordError, StructureRecord
from rung.inference.predictor import Predictor, TooLargeError
from rung.training.context import default_device
from rung.training.initial import load_model
from rung.units import gpa_to_ase_stress


class RungCalculator(Calculator):
    """Energy (eV), forces (eV/Å), stress (eV/Å³) and magnetic moments (μB) of a periodic cell.

    The energy is the cell's, forces are (num_atoms, 3), stress is (6,) in ASE's Voigt order, positive under tension,
    moments are (num_atoms,) absolute values.

    Args:
        model: a model file (.pth.tar), a run's folder, 0.3.0, r2scan, or a CHGNet.
        device: to compute on; the GPU where there is one if absent.
        kwargs: of ASE's `Calculator`.

    Raises:
        ValueError: the model cannot be loaded.
    """

    implemented_properties: list[str] = ["energy", "free_energy", "forces", "stress", "magmoms"]  # noqa: RUF012 (ASE's)

    def __init__(self, model: str | Path | CHGNet, device: torch.device | str | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        network = model if isinstance(model, CHGNet) else load_model(ModelConfig(init=str(model)))
        self._predictor = Predictor(network, device=device or default_device())

    def calculate(
        self,
        atoms: Atoms | None = None,
        properties: list[str] | None = None,
        system_changes: list[str] = all_changes,
    ) -> None:
        """Compute everything at once, since ASE's optimizers and dynamics ask for most of it.

        Raises:
            CalculatorSetupError: the cell is not periodic, an element is beyond Pu, an atom has no neighbour, or two of
                them overlap.
            TooLargeError: memory does not suffice.
            UnsupportedModelError: rung does not evaluate the CHGNet that was given.
        """
        super().calculate(atoms, properties or ["energy"], system_changes)
        assert self.atoms is not None  # noqa: S101 - the line above keeps a copy of the atoms
        try:
            graph = graph_record(_record(self.atoms), self._predictor.cutoffs)
        except RecordError as error:
            raise CalculatorSetupError(f"{self.atoms.get_chemical_formula()}: {error.detail}") from error
        (found,) = self._predictor.predict([graph])
        if isinstance(found, TooLargeError):
            raise found
        energy = found.energy_per_atom * len(self.atoms)
        assert found.forces is not None  # noqa: S101 - all properties are asked for
        assert found.stress is not None  # noqa: S101
        assert found.magmoms is not None  # noqa: S101
        self.results = {
            "energy": energy,
            "free_energy": energy,
            "forces": found.forces.astype(np.float64),
            "stress": gpa_to_ase_stress(found.stress),
            "magmoms": found.magmoms.astype(np.float64),
        }


def _record(atoms: Atoms) -> StructureRecord:
    if not atoms.pbc.all():
        raise CalculatorSetupError(
            f"the cell is periodic in {atoms.pbc.tolist()}, but CHGNet describes crystals: set atoms.pbc = True and"
            " give a cell, with a wide gap for a slab or a cluster"
        )
    return StructureRecord(
        atomic_numbers=atoms.numbers,
        lattice=atoms.cell.array,
        frac_coords=atoms.get_scaled_positions(wrap=False),
        source="ase",
        material_id="ase",
        frame_id="ase",
        functional="none",
    )
