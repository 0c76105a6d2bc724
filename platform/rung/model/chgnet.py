"""CHGNet on one flat batch: upstream's network and weights, without its loops and its repeated work.

The network is Deng et al., Nat. Mach. Intell. 5, 1031 (2023); the parameters live in upstream's own `CHGNet`, and the
result agrees with upstream's `forward` to rounding. What makes it fast:

- Bonds are undirected. The two directed edges of a bond share basis, features and weight, and are two rows of one
  (2, num_bonds, ...) tensor, so nothing of a bond is gathered.
- The first linear layer of a gated perceptron reads [centre | bond | neighbour (| angle)]. A linear layer of a
  concatenation is the sum of one layer per part, so each block of the weight is applied where its part lives (atoms,
  undirected bonds) and only the sums are formed per edge or angle. Core and gate share these products.
- Only short bonds (< bond cutoff) carry angles, and only their features ever change. All other bonds keep their
  embedding, which each layer reads straight from the basis through the product of both weights.
- A sum of messages weighted by both bonds of an angle takes the weight of the first bond after the sum.
- The last angle update feeds nothing and is left out; its parameters keep no gradient (see `unused_parameters`).
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F  # noqa: N812 -- as everyone who uses torch writes it
from chgnet.model import CHGNet
from chgnet.model.functions import MLP, GatedMLP
from torch import Tensor, nn

from rung.data.batch import GraphBatch
from rung.model.gate import gate
from rung.model.geometry import bond_vectors, expand, forces_from, stress_from
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
        site_energies, moments = _network(model, batch, vectors, magmoms=magmoms)
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
    """Who passes messages to whom, as row numbers; derived once per evaluation, without gradients.

    Attributes:
        num_atoms: atoms of the batch.
        num_short_bonds: undirected bonds that form angles; they come first.
        centre: (2 * num_bonds,) atom that receives over each directed edge; first every bond forward, then every
            bond backward.
        neighbour: (2 * num_bonds,) atom that sends.
        spokes: (2 * num_short_bonds,) centre atom of each directed short bond, forward then backward.
        spoke_i: (num_angles,) the directed short bond that is the angle's first side.
        bond_i: (num_angles,) its undirected bond.
        bond_j: (num_angles,) undirected bond of the second side.
    """

    num_atoms: int
    num_short_bonds: int
    centre: Tensor
    neighbour: Tensor
    spokes: Tensor
    spoke_i: Tensor
    bond_i: Tensor
    bond_j: Tensor


def _topology(batch: GraphBatch) -> _Topology:
    first, second = batch.bond_atoms
    short = batch.num_short_bonds
    # A bond of an atom with its own image is forward by this rule in both senses, and rightly: both have one centre.
    backward = batch.angle_centre != first[batch.angle_bond_i]
    return _Topology(
        num_atoms=len(batch.atomic_numbers),
        num_short_bonds=short,
        centre=batch.bond_atoms.reshape(-1),
        neighbour=torch.cat((second, first)),
        spokes=torch.cat((first[:short], second[:short])),
        spoke_i=batch.angle_bond_i + short * backward,
        bond_i=batch.angle_bond_i,
        bond_j=batch.angle_bond_j,
    )


def _network(model: CHGNet, batch: GraphBatch, vectors: Tensor, *, magmoms: bool) -> tuple[Tensor, Tensor | None]:
    """Energy of each site (num_atoms,) in eV, without reference, and magnetic moments (num_atoms,) in μB."""
    bases = expand(model, batch, vectors)
    topology = _topology(batch)
    atoms = model.atom_embedding(batch.atomic_numbers - 1)
    short_bonds = model.bond_embedding(bases.atom_graph[: topology.num_short_bonds])
    changes: Tensor | None = None  # of the short bonds, since their embedding
    angles = model.angle_embedding(bases.angles)
    weights = model.bond_weights_ag(bases.atom_graph)
    short_weights = model.bond_weights_bg(bases.bond_graph)
    weights_j = short_weights.index_select(0, topology.bond_j)

    for depth, bond_conv in enumerate(model.bond_conv_layers):
        edges = _edge_terms(model, depth, bases.atom_graph, changes)
        atoms = atoms + _atom_conv(model.atom_conv_layers[depth], topology, atoms, edges, weights)
        messages = _angle_messages(bond_conv.twoBody_bond, topology, atoms, short_bonds, angles) * weights_j
        sums = torch.zeros_like(short_bonds).index_add(0, topology.bond_i, messages) * short_weights
        change = bond_conv.mlp_out(sums)
        changes = change if changes is None else changes + change
        short_bonds = short_bonds + change
        if depth + 1 < len(model.bond_conv_layers):
            block = model.angle_layers[depth].twoBody_bond
            angles = angles + _angle_messages(block, topology, atoms, short_bonds, angles)

    moments = model.site_wise(atoms)[:, 0].abs() if magmoms else None
    edges = _edge_terms(model, -1, bases.atom_graph, changes)
    atoms = atoms + _atom_conv(model.atom_conv_layers[-1], topology, atoms, edges, weights)
    return model.mlp(model.readout_norm(atoms))[:, 0], moments


def _edge_terms(model: CHGNet, depth: int, basis: Tensor, changes: Tensor | None) -> Tensor:
    """Part of an atom convolution's first layer that depends on the bond alone: (num_bonds, 2 * hidden_dim).

    A bond's features are its embedding plus, for short bonds, what bond convolutions added. The first is read from
    the basis with both weights multiplied beforehand, which is exact since nothing lies between the two.
    """
    block = model.atom_conv_layers[depth].twoBody_atom
    width = model.atom_fea_dim
    weight, bias = _first_layer(block)
    weight = weight[:, width:-width]
    terms = F.linear(basis, weight @ model.bond_embedding.weight, bias)
    if changes is None:
        return terms
    short = len(changes)
    return torch.cat((terms[:short] + F.linear(changes, weight), terms[short:]))


def _atom_conv(layer: nn.Module, topology: _Topology, atoms: Tensor, edges: Tensor, weights: Tensor) -> Tensor:
    """Change of the atoms' features (Deng et al. 2023, eq. 3): (num_atoms, feature_dim)."""
    block = layer.twoBody_atom
    width = atoms.shape[1]
    weight, _ = _first_layer(block)
    centres = F.linear(atoms, weight[:, :width])
    neighbours = F.linear(atoms, weight[:, -width:])
    hidden = centres.index_select(0, topology.centre) + neighbours.index_select(0, topology.neighbour)
    hidden = hidden.unflatten(0, (2, -1)) + edges
    messages = _finish(block, hidden) * weights
    return layer.mlp_out(torch.zeros_like(atoms).index_add(0, topology.centre, messages.flatten(0, 1)))


def _angle_messages(block: GatedMLP, topology: _Topology, atoms: Tensor, bonds: Tensor, angles: Tensor) -> Tensor:
    """Gated perceptron of [bond i | bond j | angle | centre atom] (eq. 4 and 5): (num_angles, feature_dim)."""
    weight, bias = _first_layer(block)
    blocks = weight.split((bonds.shape[1], bonds.shape[1], angles.shape[1], atoms.shape[1]), dim=1)
    # The centre belongs to the directed bond i, of which there are fewer than angles.
    spokes = F.linear(bonds, blocks[0]).repeat(2, 1) + F.linear(atoms, blocks[3]).index_select(0, topology.spokes)
    partners = F.linear(bonds, blocks[1])
    hidden = F.linear(angles, blocks[2], bias)
    hidden = hidden + spokes.index_select(0, topology.spoke_i) + partners.index_select(0, topology.bond_j)
    return _finish(block, hidden)


def _linears(perceptron: MLP) -> list[nn.Linear]:
    return [layer for layer in perceptron.layers if isinstance(layer, nn.Linear)]


def _first_layer(block: GatedMLP) -> tuple[Tensor, Tensor]:
    """First layers of core and gate as one: weight (2 * hidden_dim, input_dim) and bias (2 * hidden_dim,)."""
    core, opening = _linears(block.mlp_core)[0], _linears(block.mlp_gate)[0]
    return torch.cat((core.weight, opening.weight)), torch.cat((core.bias, opening.bias))


def _finish(block: GatedMLP, hidden: Tensor) -> Tensor:
    """What follows a gated perceptron's first layer: (..., 2 * hidden_dim) to (..., feature_dim)."""
    core, opening = hidden.chunk(2, dim=-1)
    for core_layer, gate_layer in zip(_linears(block.mlp_core)[1:], _linears(block.mlp_gate)[1:], strict=True):
        core, opening = core_layer(F.silu(core)), gate_layer(F.silu(opening))
    return gate(block, core, opening)


def _reference_energies(model: CHGNet, batch: GraphBatch) -> Tensor:
    """Reference energy of each atom's element, (num_atoms,) eV."""
    reference = model.composition_model
    if reference is None:
        return torch.zeros_like(batch.frac_coords[:, 0])
    return reference.fc.weight[0, batch.atomic_numbers - 1]
