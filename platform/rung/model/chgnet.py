"""CHGNet on one flat batch: upstream's network and weights, without its loops and its repeated work.

The network is Deng et al., Nat. Mach. Intell. 5, 1031 (2023); the parameters live in upstream's own `CHGNet`, and the
result agrees with upstream's `forward` to rounding. What makes it fast:

- Bonds are undirected. The two directed edges of a bond share basis, features and weight; messages go once forward and
  once backward over all bonds, so nothing of a bond is gathered.
- The first linear layer of a gated perceptron reads [centre | bond | neighbour (| angle)]. A linear layer of a
  concatenation is the sum of one layer per part, so each block of the weight is applied where its part lives (atoms,
  undirected bonds) and only the sums are formed per edge or angle. Core and gate share these products.
- Only short bonds (< bond cutoff) carry angles, and only their features ever change. All other bonds keep their
  embedding, which each layer reads straight from the basis through the product of both weights; so are angles until
  their first update.
- A sum of messages weighted by both bonds of an angle takes the weight of the first bond after the sum.
- Gathering, perceptron and sum are one operation with derivatives of its own (`rung.model.message`, `rung.model.gate`),
  which keeps nothing per edge or angle, or four arrays of autograd's forty (`rung.model.compiled`).
- The last angle update feeds nothing and is left out; its parameters keep no gradient (see `unused_parameters`).
"""

from dataclasses import dataclass, replace
from typing import cast

import torch
import torch.nn.functional as F  # noqa: N812 -- as everyone who uses torch writes it
from chgnet.model import CHGNet
from chgnet.model.functions import GatedMLP
from chgnet.model.layers import AtomConv
from torch import Tensor, nn

from rung.data.batch import GraphBatch
from rung.model.geometry import bond_vectors, expand, forces_from, padded, stress_from
from rung.model.layers import after_first_layer, angle_update, atom_conv, bond_conv, first_layer, perceptron
from rung.model.message import pass_messages
from rung.model.routes import Product, Routes
from rung.model.support import require_supported


@dataclass(frozen=True)
class Prediction:
    """What the network says of a batch; a property not asked for is None.

    Attributes:
        energy: (num_structures,) energy with the composition's reference, eV/atom.
        forces: (num_atoms, 3) eV/Å.
        stress: (num_structures, 3, 3) GPa, positive under tension.
        magmoms: (num_atoms,) absolute magnetic moments, μB.
    """

    energy: Tensor
    forces: Tensor | None
    stress: Tensor | None
    magmoms: Tensor | None


def evaluate(
    model: CHGNet,
    batch: GraphBatch,
    *,
    forces: bool = True,
    stress: bool = True,
    magmoms: bool = True,
    create_graph: bool = False,
) -> Prediction:
    """Predict the properties of every structure of a batch.

    Args:
        model: upstream's network, on the batch's device and of its dtype.
        batch: structures as one flat graph.
        forces: whether to differentiate the energy by positions.
        stress: whether to differentiate the energy by strain.
        magmoms: whether to read out magnetic moments.
        create_graph: whether a loss of the prediction will be differentiated by the parameters. Without it the
            prediction is detached and takes a fraction of the memory.

    Raises:
        UnsupportedModelError: the model has an architecture that this function would get wrong.
    """
    require_supported(model)
    derivatives = forces or stress
    vectors = bond_vectors(batch).requires_grad_(derivatives)
    with torch.set_grad_enabled(derivatives or create_graph):
        topology = _topology(batch, learns=create_graph)
        site_energies, moments = _network(model, batch, topology, vectors, magmoms=magmoms)
        gradient = None
        if derivatives:
            (gradient,) = torch.autograd.grad(site_energies.sum(), vectors, create_graph=create_graph)
        totals = site_energies + _reference_energies(model, batch)
        energy = totals.new_zeros(batch.num_structures).index_add(0, batch.atom_owner, totals) / batch.num_atoms
    vectors = vectors.detach()
    return Prediction(
        energy=energy if create_graph else energy.detach(),
        forces=forces_from(batch, gradient) if forces and gradient is not None else None,
        stress=stress_from(batch, vectors, gradient) if stress and gradient is not None else None,
        magmoms=moments if create_graph or moments is None else moments.detach(),
    )


def unused_parameters(model: CHGNet) -> list[str]:
    """Names of the parameters that no prediction depends on: those of the last angle update.

    Their `grad` stays None. Whoever averages gradients over ranks must not wait for them: freeze them, as `freeze`
    does at every depth.
    """
    last = len(model.angle_layers) - 1
    return [name for name, _ in model.named_parameters() if name.startswith(f"angle_layers.{last}.")]


@dataclass(frozen=True)
class _Topology:
    """Who passes messages to whom; derived once per evaluation, without gradients.

    Attributes:
        ranges: numbers of bonds in the ranges that are summed apart: short ones and all others, or all at once.
        bonds: in each range, from the second atom of each bond to the first, and from the first to the second; as one
            sum or as two.
        spokes: (2 * num_short_bonds,) centre atom of each directed short bond, all forward, then all backward.
        to_bonds: from each angle to its first bond, weighted by its second.
        to_angles: to each angle itself.
    """

    ranges: tuple[int, ...]
    bonds: tuple[tuple[Routes, ...], ...]
    spokes: Tensor
    to_bonds: Routes
    to_angles: Routes


def _topology(batch: GraphBatch, *, learns: bool) -> _Topology:
    first, second = batch.bond_atoms
    short, num_angles, bond_i, bond_j = batch.num_short_bonds, batch.num_angles, batch.angle_bond_i, batch.angle_bond_j
    # A bond of an atom with its own image is forward by this rule in both senses, and rightly: both have one centre.
    spoke_i = bond_i + short * (batch.angle_centre != first[bond_i])
    sides = (spoke_i, bond_j, None)
    num_atoms = len(batch.atomic_numbers)
    # The compiled loops of a CPU take each range's own product; a GPU is better off with fewer and longer sums.
    ranges = (batch.num_bonds,) if _for_kernels(first) else (short, batch.num_bonds - short)
    return _Topology(
        ranges=ranges,
        bonds=tuple(_both_ways(ends, num_atoms, learns=learns) for ends in batch.bond_atoms.split(ranges, dim=1)),
        spokes=torch.cat((first[:short], second[:short])),
        to_bonds=Routes(sides, bond_j, bond_i, num_angles, short, learns),
        to_angles=Routes(sides, None, None, num_angles, num_angles, learns),
    )


def _for_kernels(tensor: Tensor) -> bool:
    """Whether messages are laid out as the fused kernels of a GPU want them."""
    return tensor.device.type == "cuda"


def _both_ways(bond_atoms: Tensor, num_atoms: int, *, learns: bool) -> tuple[Routes, ...]:
    first, second = bond_atoms
    num_bonds = len(first)
    if _for_kernels(first):  # where each message of a sum has a bond of its own, no two add to one gradient
        forward = Routes((first, second, None), None, first, num_bonds, num_atoms, learns)
        return forward, Routes((second, first, None), None, second, num_bonds, num_atoms, learns)
    # On a CPU both ways of a bond follow each other, so that its row is read from memory once.
    ends, starts = bond_atoms.T.flatten(), bond_atoms.flip(0).T.flatten()
    bonds = torch.arange(num_bonds).repeat_interleave(2)
    return (Routes((ends, starts, bonds), bonds, ends, 2 * num_bonds, num_atoms, learns, shared=2),)


def _network(
    model: CHGNet, batch: GraphBatch, topology: _Topology, vectors: Tensor, *, magmoms: bool
) -> tuple[Tensor, Tensor | None]:
    """Energy of each site (num_atoms,) in eV, without reference, and magnetic moments (num_atoms,) in μB."""
    bases = expand(model, batch, vectors)
    atoms = model.atom_embedding(batch.atomic_numbers - 1)
    short, others = bases.atom_graph.split((batch.num_short_bonds, batch.num_bonds - batch.num_short_bonds))
    bond_embedding = padded(model.bond_embedding.weight)
    bonds = _Bonds(F.linear(short, bond_embedding), others, bond_embedding)
    angles, embedding = bases.angles, padded(model.angle_embedding.weight)
    weight = padded(model.bond_weights_ag.weight)
    weights = tuple(F.linear(basis, weight) for basis in bases.atom_graph.split(topology.ranges))
    short_weights = F.linear(bases.bond_graph, padded(model.bond_weights_bg.weight))

    for depth in range(model.n_conv - 1):
        atoms = atoms + _atom_change(atom_conv(model, depth), topology, atoms, bonds, weights)
        layer = bond_conv(model, depth)
        terms = _angle_terms(perceptron(layer), topology, atoms, bonds.short, angles, embedding)
        # The weight of an angle's first bond is common to all messages to that bond, so it follows the sum.
        sums = pass_messages(topology.to_bonds, terms, short_weights, after_first_layer(perceptron(layer)))
        bonds = replace(bonds, short=bonds.short + layer.mlp_out(sums * short_weights))
        if depth + 2 < model.n_conv:
            block = perceptron(angle_update(model, depth))
            terms = _angle_terms(block, topology, atoms, bonds.short, angles, embedding)
            before = angles if embedding is None else F.linear(angles, embedding)
            angles, embedding = before + pass_messages(topology.to_angles, terms, None, after_first_layer(block)), None

    moments = model.site_wise(atoms)[:, 0].abs() if magmoms else None
    atoms = atoms + _atom_change(atom_conv(model, -1), topology, atoms, bonds, weights)
    normal = cast("nn.LayerNorm", model.readout_norm)(atoms)
    return model.mlp(normal)[:, 0], moments


@dataclass(frozen=True)
class _Bonds:
    """Features of short bonds, and what those of all others are made of and stay.

    Attributes:
        short: (num_short_bonds, feature_dim)
        others: (num_bonds - num_short_bonds, num_radial + zeros) radial basis.
        embedding: (feature_dim, num_radial + zeros) makes features of it.
    """

    short: Tensor
    others: Tensor
    embedding: Tensor


def _atom_change(
    layer: AtomConv, topology: _Topology, atoms: Tensor, bonds: _Bonds, weights: tuple[Tensor, ...]
) -> Tensor:
    """What an atom convolution adds to the atoms' features (Deng et al. 2023, Methods): (num_atoms, feature_dim).

    Bonds that are not short are read from their basis with both weights multiplied beforehand, which is exact since
    nothing lies between the two.
    """
    width = atoms.shape[1]
    weight, bias = first_layer(perceptron(layer))
    of_bonds, rest = weight[:, width:-width], after_first_layer(perceptron(layer))
    ends, starts = F.linear(atoms, weight[:, :width], bias), F.linear(atoms, weight[:, -width:])
    products = Product(bonds.short, of_bonds), Product(bonds.others, of_bonds @ bonds.embedding)
    one_range = len(topology.ranges) == 1
    edges = (torch.cat([product.computed() for product in products]),) if one_range else products
    sums = [
        pass_messages(way, (ends, starts, edge), weight_of_bonds, rest)
        for ways, edge, weight_of_bonds in zip(topology.bonds, edges, weights, strict=True)
        for way in ways
    ]
    return layer.mlp_out(torch.stack(sums).sum(dim=0))


def _angle_terms(
    block: GatedMLP, topology: _Topology, atoms: Tensor, bonds: Tensor, angles: Tensor, embedding: Tensor | None
) -> tuple[Tensor, Tensor, Product]:
    """Parts of the first layer of [bond i | bond j | angle | centre atom], each (..., 2 * hidden_dim).

    Bond convolution and angle update begin with it (Deng et al. 2023, Methods; the order is upstream's). The angles are
    features, or with an embedding's weight the basis that it makes features of. The bias stands where there are fewest
    rows.
    """
    weight, bias = first_layer(block)
    angle_dim = angles.shape[1] if embedding is None else embedding.shape[0]
    blocks = weight.split((bonds.shape[1], bonds.shape[1], angle_dim, atoms.shape[1]), dim=1)
    of_angles = blocks[2] if embedding is None else blocks[2] @ embedding
    # The centre belongs to the directed bond i, of which there are fewer than angles.
    spokes = F.linear(bonds, blocks[0]).repeat(2, 1) + F.linear(atoms, blocks[3]).index_select(0, topology.spokes)
    return spokes, F.linear(bonds, blocks[1], bias), Product(angles, of_angles)


def _reference_energies(model: CHGNet, batch: GraphBatch) -> Tensor:
    """Reference energy of each atom's element, (num_atoms,) eV."""
    if model.composition_model is None:
        return torch.zeros_like(batch.frac_coords[:, 0])
    weight = model.get_parameter("composition_model.fc.weight")
    return weight[0, batch.atomic_numbers - 1]
