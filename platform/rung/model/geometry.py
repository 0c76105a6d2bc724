"""From positions to the bases that the network sees, and from their gradient back to forces and stress.

The energy depends on positions and cell through the bond vectors alone. With g = dE/dv of each undirected bond,
forces and stress are sums over bonds, so the network is differentiated with respect to one tensor.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F  # noqa: N812 -- as everyone who uses torch writes it
from chgnet.model import CHGNet
from torch import Tensor

from rung.data.batch import GraphBatch
from rung.units import EV_PER_CUBIC_ANGSTROM_IN_GPA

_COSINE_MARGIN = 1 - 1e-6
"""Upstream's factor in front of acos, kept for parity: the slope of acos at exactly -1 and 1 is infinite."""


@dataclass(frozen=True)
class Bases:
    """What the geometry contributes to the network, each with zeros behind its functions (`padded`).

    Attributes:
        atom_graph: (num_bonds, num_radial + zeros) radial basis of every bond, cutoff of the atom graph.
        bond_graph: (num_short_bonds, num_radial + zeros) radial basis of short bonds, cutoff of the bond graph.
        angles: (num_angles, num_angular + zeros) Fourier basis of every angle.
    """

    atom_graph: Tensor
    bond_graph: Tensor
    angles: Tensor


def padded(rows: Tensor) -> Tensor:
    """Add columns of zeros up to a multiple of 8: products over CHGNet's 31 functions take twice as long as over 32."""
    return F.pad(rows, (0, -rows.shape[1] % 8))


def bond_vectors(batch: GraphBatch) -> Tensor:
    """Vector of each undirected bond from its second atom's image to its first atom: (num_bonds, 3), Å."""
    first, second = batch.bond_atoms
    steps = batch.frac_coords[first] - batch.frac_coords[second] - batch.bond_image
    return torch.bmm(steps[:, None, :], batch.lattice[batch.bond_owner])[:, 0]


def expand(model: CHGNet, batch: GraphBatch, vectors: Tensor) -> Bases:
    """Expand lengths and angles in CHGNet's bases (Deng et al. 2023, Methods).

    Lengths in radial Bessel functions with DimeNet's envelope (arXiv 2003.03123), angles in a Fourier series.

    Args:
        model: holder of the bases' learnable frequencies.
        batch: which short bonds form angles, and the sign of each pair of bonds.
        vectors: (num_bonds, 3) bond vectors, Å.
    """
    lengths = torch.linalg.vector_norm(vectors, dim=1)
    short = lengths[: batch.num_short_bonds]
    directions = vectors[: batch.num_short_bonds] / short[:, None]
    cosines = (directions.index_select(0, batch.angle_bond_i) * directions.index_select(0, batch.angle_bond_j)).sum(
        dim=1
    )
    angles = torch.acos(cosines * (batch.angle_sign * _COSINE_MARGIN))
    encoder = model.bond_basis_expansion
    return Bases(
        atom_graph=padded(encoder.rbf_expansion_ag(lengths)),
        bond_graph=padded(encoder.rbf_expansion_bg(short)),
        angles=padded(model.angle_basis_expansion.fourier_expansion(angles)),
    )


def forces_from(batch: GraphBatch, gradient: Tensor) -> Tensor:
    """Force on each atom, -dE/dx, from the gradient by the bond vectors.

    Args:
        batch: which atoms each bond joins.
        gradient: (num_bonds, 3) dE/dv, eV/Å.

    Returns:
        (num_atoms, 3), eV/Å
    """
    first, second = batch.bond_atoms
    forces = gradient.new_zeros(len(batch.atomic_numbers), 3)
    return forces.index_add(0, second, gradient).index_add(0, first, gradient, alpha=-1)


def stress_from(batch: GraphBatch, vectors: Tensor, gradient: Tensor) -> Tensor:
    """Stress of each structure, (dE/dstrain) / volume with the strained lattice `lattice @ (1 + strain)`.

    Args:
        batch: which structure owns each bond, and its lattice.
        vectors: (num_bonds, 3) bond vectors v, Å; under strain they become v (1 + strain).
        gradient: (num_bonds, 3) dE/dv, eV/Å.

    Returns:
        (num_structures, 3, 3), GPa, positive under tension
    """
    virials = vectors[:, :, None] * gradient[:, None, :]
    sums = virials.new_zeros(batch.num_structures, 3, 3).index_add(0, batch.bond_owner, virials)
    first, second, third = batch.lattice.unbind(dim=1)
    volumes = (first * torch.linalg.cross(second, third)).sum(dim=1).abs()
    return sums * (EV_PER_CUBIC_ANGSTROM_IN_GPA / volumes)[:, None, None]
