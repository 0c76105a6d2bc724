"""The model as MLflow loads and serves it. This file is the whole of it: chgnet, pymatgen, ASE and torch, no Rung.

MLflow keeps a copy of this text beside the weights and runs it where the model is loaded ("models from code"), so
nothing of it is ever pickled, and whoever loads the model needs the listed packages alone. The weights are read without
running code either.

Input: a list of crystal structures, each pymatgen's `Structure.as_dict()` or ASE's own JSON, as of
`ase.io.jsonio.encode`. Output, one object for each: energy (eV), energy_per_atom (eV/atom), forces (num_atoms, 3) in
eV/Å, stress (3, 3) in GPa, positive under tension, and magmoms (num_atoms,) in μB. A structure that cannot be predicted
refuses the request, with its number and the reason.
"""

import json
import math
import os
import threading
from typing import Any

import mlflow
import numpy as np
import torch
from ase import Atoms
from ase.io import jsonio
from chgnet.model import CHGNet
from chgnet.model.composition_model import AtomRef
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import INVALID_PARAMETER_VALUE
from mlflow.pyfunc import PythonModel, PythonModelContext
from pymatgen.core import DummySpecies, Structure

WEIGHTS = "weights"
"""Name of the artifact."""

DEFAULT_LIMITS = {"max_structures": 256, "max_atoms": 2000, "min_distance": 0.5}
"""The model's configuration: structures in a request, atoms in one of them, and Å between two atoms."""

_HEAVIEST = 94


class BadInputError(MlflowException):
    """A request that cannot be answered; becomes HTTP 400 with this text.

    The scoring server would set the whole input, megabytes of it, in front of the message: the first one stays.
    """

    def __init__(self, text: str) -> None:
        self._text = text
        super().__init__(text, error_code=INVALID_PARAMETER_VALUE)

    @property
    def message(self) -> str:  # pyright: ignore[reportIncompatibleVariableOverride] -- see above
        """What is wrong, and what is allowed."""
        return self._text

    @message.setter
    def message(self, text: str) -> None:
        """Ignore what the server makes of it."""


class ServedModel(PythonModel):
    """Predicts with an exported CHGNet."""

    def load_context(self, context: PythonModelContext) -> None:
        """Read the weights."""
        self._limits = DEFAULT_LIMITS | dict(context.model_config or {})
        self._model = _load(context.artifacts[WEIGHTS])
        # Requests come in threads of their own; more of them at once than cores would only make each other wait.
        self._turn = threading.BoundedSemaphore(os.cpu_count() or 1)

    def predict(  # pyright: ignore[reportIncompatibleMethodOverride] -- MLflow lets the context be left out
        self,
        model_input: list[dict[str, Any]],
        params: dict[str, Any] | None = None,  # noqa: ARG002 (the signature that MLflow asks for)
    ) -> list[dict[str, Any]]:
        """Predict for structures.

        Args:
            model_input: structures as pymatgen's or ASE's JSON.
            params: none.

        Raises:
            BadInputError: names the first structure that cannot be predicted, and why.
        """
        if len(model_input) > self._limits["max_structures"]:
            raise BadInputError(
                f"{len(model_input)} structures in one request; at most {self._limits['max_structures']} are taken:"
                " send several requests"
            )
        structures = [self._read(raw, number) for number, raw in enumerate(model_input)]
        with self._turn:
            return [self._predict(structure, number) for number, structure in enumerate(structures)]

    def _read(self, raw: dict[str, Any], number: int) -> Structure:
        where = f"structure {number}"
        num_atoms = _num_atoms(raw, where)
        if not 1 <= num_atoms <= self._limits["max_atoms"]:
            raise BadInputError(f"{where} has {num_atoms} atoms; 1 to {self._limits['max_atoms']} are allowed")
        structure = _structure(raw, where)
        _check(structure, self._limits["min_distance"], where)
        return structure

    def _predict(self, structure: Structure, number: int) -> dict[str, Any]:
        try:
            graph = self._model.graph_converter(structure)
        except ValueError as error:  # an atom without neighbours
            raise BadInputError(f"structure {number} ({structure.formula}): {error!s:.200}") from error
        found: Any = self._model.predict_graph(graph)
        energy = float(found["e"])
        return {
            "energy": energy * len(structure),
            "energy_per_atom": energy,
            "forces": found["f"].tolist(),
            "stress": found["s"].tolist(),
            "magmoms": found["m"].tolist(),
        }


def _load(path: str) -> CHGNet:
    stored = torch.load(path, map_location="cpu", weights_only=True)["model"]
    model = CHGNet(**stored["model_args"])
    model.load_state_dict(stored["state_dict"])
    if isinstance(model.composition_model, AtomRef):
        model.composition_model.fitted = True  # upstream predicts only with a reference that says so
    model.graph_converter.set_isolated_atom_response("error")
    return model.to("cuda" if torch.cuda.is_available() else "cpu").eval()


def _num_atoms(raw: dict[str, Any], where: str) -> int:
    """Number of atoms, before anything is built of them."""
    sites = raw.get("sites")
    if isinstance(sites, list) and "lattice" in raw:
        return len(sites)
    numbers = raw.get("numbers")
    if isinstance(numbers, dict):
        numbers = (numbers.get("__ndarray__") or [None] * 3)[2]
    if isinstance(numbers, list) and "cell" in raw:
        return len(numbers)
    keys = ", ".join(sorted(map(str, raw)))[:100]
    raise BadInputError(
        f"{where} has the keys {keys or 'none'}; give pymatgen's Structure.as_dict() (lattice, sites) or ASE's JSON"
        " (numbers, positions, cell, pbc)"
    )


def _structure(raw: dict[str, Any], where: str) -> Structure:
    # Both libraries raise whatever the input happens to break.
    try:
        if "sites" in raw:
            return Structure.from_dict(raw)
        atoms: Any = jsonio.decode(json.dumps(raw))
        if not isinstance(atoms, Atoms):
            atoms = Atoms(**{key: atoms[key] for key in ("numbers", "positions", "cell", "pbc")})
        if not atoms.pbc.all():
            raise BadInputError(f"{where} is not periodic in all three directions (pbc {atoms.pbc.tolist()})")  # noqa: TRY301
        return Structure(atoms.cell.array, atoms.numbers.tolist(), atoms.positions, coords_are_cartesian=True)
    except BadInputError:
        raise
    except Exception as error:
        raise BadInputError(f"{where} is no crystal structure: {type(error).__name__}: {error!s:.200}") from error


def _check(structure: Structure, min_distance: float, where: str) -> None:
    where = f"{where} ({structure.formula[:60]})"
    if not structure.is_ordered:
        raise BadInputError(f"{where} has sites that are shared or partly empty: give an ordered structure")
    unknown = [site.specie for site in structure if isinstance(site.specie, DummySpecies) or site.specie.Z > _HEAVIEST]
    if unknown:
        raise BadInputError(f"{where} has the element {unknown[0]}; CHGNet knows H to Pu")
    if not (np.isfinite(structure.lattice.matrix).all() and np.isfinite(structure.frac_coords).all()):
        raise BadInputError(f"{where} has a coordinate that is not finite")
    volume = structure.volume
    if volume <= 1e-9 * math.prod(structure.lattice.abc):
        raise BadInputError(f"{where} has lattice vectors that span no volume")
    # No packing of spheres is denser; the search for pairs would not end in such a cell.
    if len(structure) > volume * math.sqrt(2) / min_distance**3 or min(structure.lattice.abc) < min_distance:
        raise BadInputError(f"{where} has {len(structure)} atoms in {volume:.3g} Å³: they overlap")
    first, second, _, distance = structure.get_neighbor_list(min_distance)
    if len(distance):
        at = int(distance.argmin())
        raise BadInputError(
            f"{where} has overlapping atoms: {first[at]} and {second[at]} are {distance[at]:.3g} Å apart; at least"
            f" {min_distance} Å is allowed"
        )


mlflow.models.set_model(ServedModel())
