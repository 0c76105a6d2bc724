"""A batch of graphs as flat tensors: what the model computes on."""

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rung.data.fields import FIELD, Level
from rung.data.graph import line_graph
from rung.data.record import GraphRecord

__all__ = ["GraphBatch", "GraphRecord", "collate"]


@dataclass(frozen=True, eq=False, kw_only=True)
class GraphBatch:
    """The graphs of several structures, atoms and bonds numbered through.

    B structures, N atoms, U undirected bonds, A angles; "float" is the type asked of `collate`. The bonds shorter
    than the bond cutoff, of all structures, come first: [0, num_short_bonds). See `rung.data.graph` for what a bond
    and an angle mean. Absent labels hold 0 and are masked out by `has_*`.

    Attributes:
        num_structures: B.
        num_short_bonds: how many of the U bonds are short.
        record_ids: (B,) int64, ids in the data set, -1 outside one.
        lattice: (B, 3, 3) float, rows, Å.
        num_atoms: (B,) int64.
        atomic_numbers: (N,) int64.
        frac_coords: (N, 3) float.
        atom_owner: (N,) int64, structure of each atom, ascending.
        bond_atoms: (2, U) int64, rows first and second atom.
        bond_image: (U, 3) float, whole numbers, periodic image of the second atom.
        bond_owner: (U,) int64, structure of each bond.
        angle_centre: (A,) int64, atom.
        angle_bond_i: (A,) int64, ascending, below num_short_bonds.
        angle_bond_j: (A,) int64, below num_short_bonds.
        angle_sign: (A,) float, +1 or -1.
        energy: (B,) float, eV/atom.
        forces: (N, 3) float, eV/Å.
        stress: (B, 3, 3) float, GPa, positive under tension.
        magmoms: (N,) float, absolute, μB.
        has_energy: (B,) bool.
        has_forces: (B,) bool.
        has_stress: (B,) bool.
        has_magmoms: (B,) bool.
    """

    num_structures: int
    num_short_bonds: int
    record_ids: Tensor
    lattice: Tensor
    num_atoms: Tensor
    atomic_numbers: Tensor
    frac_coords: Tensor
    atom_owner: Tensor
    bond_atoms: Tensor
    bond_image: Tensor
    bond_owner: Tensor
    angle_centre: Tensor
    angle_bond_i: Tensor
    angle_bond_j: Tensor
    angle_sign: Tensor
    energy: Tensor
    forces: Tensor
    stress: Tensor
    magmoms: Tensor
    has_energy: Tensor
    has_forces: Tensor
    has_stress: Tensor
    has_magmoms: Tensor

    @property
    def num_bonds(self) -> int:
        """U, undirected bonds of all structures."""
        return self.bond_atoms.shape[1]

    @property
    def num_angles(self) -> int:
        """A, angles of all structures."""
        return self.angle_centre.shape[0]

    def to(self, device: torch.device | str, *, non_blocking: bool = False) -> Self:
        """Return a copy on `device`."""
        return replace(self, **{name: x.to(device, non_blocking=non_blocking) for name, x in self._tensors()})

    def pin_memory(self) -> Self:
        """Return a copy in page-locked memory, from which copies to a GPU can overlap with computation."""
        return replace(self, **{name: x.pin_memory() for name, x in self._tensors()})

    def _tensors(self) -> list[tuple[str, Tensor]]:
        pairs = ((field.name, getattr(self, field.name)) for field in fields(self))
        return [(name, value) for name, value in pairs if isinstance(value, Tensor)]


def collate(records: Sequence[GraphRecord], dtype: torch.dtype = torch.float32) -> GraphBatch:
    """Join records into one batch and derive its angles.

    Args:
        records: at least one.
        dtype: floating type of coordinates and labels.

    Raises:
        ValueError: there is no record.
    """
    if not records:
        raise ValueError("a batch needs at least one record; found none")
    num_atoms = np.array([record.num_atoms for record in records])
    short_bonds, long_bonds = _Bonds.short(records, num_atoms), _Bonds.long(records, num_atoms)
    angles = line_graph(*short_bonds.atoms)

    def floats(array: NDArray) -> Tensor:
        return torch.from_numpy(array).to(dtype)

    structures = np.arange(len(records))
    labels = {name: floats(_label_rows(records, name)) for name in ("energy", "forces", "stress", "magmoms")}
    masks = {f"has_{name}": torch.tensor([getattr(r, name) is not None for r in records]) for name in labels}
    return GraphBatch(
        num_structures=len(records),
        num_short_bonds=short_bonds.atoms.shape[1],
        record_ids=torch.tensor([record.record_id for record in records]),
        lattice=floats(np.stack([record.lattice for record in records])),
        num_atoms=torch.from_numpy(num_atoms),
        atomic_numbers=torch.from_numpy(np.concatenate([r.atomic_numbers for r in records]).astype(np.int64)),
        frac_coords=floats(np.concatenate([record.frac_coords for record in records])),
        atom_owner=torch.from_numpy(np.repeat(structures, num_atoms)),
        bond_atoms=torch.from_numpy(np.concatenate([short_bonds.atoms, long_bonds.atoms], axis=1)),
        bond_image=floats(np.concatenate([short_bonds.image, long_bonds.image])),
        bond_owner=torch.from_numpy(np.concatenate([short_bonds.owner, long_bonds.owner])),
        angle_centre=torch.from_numpy(angles.centre),
        angle_bond_i=torch.from_numpy(angles.bond_i),
        angle_bond_j=torch.from_numpy(angles.bond_j),
        angle_sign=floats(angles.sign),
        **labels,
        **masks,
    )


@dataclass(frozen=True)
class _Bonds:
    """Bonds of one kind, of all records: atoms (2, U), image (U, 3), owner (U,)."""

    atoms: NDArray[np.int64]
    image: NDArray[np.int8]
    owner: NDArray[np.int64]

    @classmethod
    def short(cls, records: Sequence[GraphRecord], num_atoms: NDArray[np.int64]) -> Self:
        """Join the bonds shorter than the bond cutoff."""
        return cls._join(records, num_atoms, [slice(0, record.num_short_bonds) for record in records])

    @classmethod
    def long(cls, records: Sequence[GraphRecord], num_atoms: NDArray[np.int64]) -> Self:
        """Join all other bonds."""
        return cls._join(records, num_atoms, [slice(record.num_short_bonds, None) for record in records])

    @classmethod
    def _join(cls, records: Sequence[GraphRecord], num_atoms: NDArray[np.int64], rows: list[slice]) -> Self:
        # Two contiguous rows: the model gathers by one of them at a time.
        atoms = [record.bond_atoms[part].T for record, part in zip(records, rows, strict=True)]
        counts = [part.shape[1] for part in atoms]
        first_atom = np.repeat(np.cumsum(num_atoms) - num_atoms, counts)
        return cls(
            atoms=np.add(np.concatenate(atoms, axis=1), first_atom, order="C"),
            image=np.concatenate([record.bond_image[part] for record, part in zip(records, rows, strict=True)]),
            owner=np.repeat(np.arange(len(records)), counts),
        )


def _label_rows(records: Sequence[GraphRecord], name: str) -> NDArray:
    """Join one label over the records, zeros where it is absent; energies become eV/atom in double precision."""
    if name == "energy":
        return np.array([(record.energy or 0.0) / record.num_atoms for record in records])
    field = FIELD[name]
    values = [getattr(record, name) for record in records]
    filled = [
        np.zeros(field.full_shape(record.num_atoms, 0), field.dtype) if value is None else value
        for record, value in zip(records, values, strict=True)
    ]
    return np.stack(filled) if field.level is Level.GRAPH else np.concatenate(filled)
