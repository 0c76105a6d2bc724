"""One labelled structure: as a source reads it (`StructureRecord`) and with its graph (`GraphRecord`)."""

from dataclasses import dataclass, fields
from enum import StrEnum
from typing import Final, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rung.data.fields import FIELD, FIELDS, Labels

MAX_ATOMIC_NUMBER: Final = 94
"""CHGNet embeds the elements H to Pu."""

_MAX_NAME_BYTES: Final = 128
_LABEL_NAMES: Final = tuple(field.name for field in FIELDS if field.label is not None)


class Reason(StrEnum):
    """Why a record was refused; preparation counts records by reason."""

    MALFORMED = "malformed"
    MISSING_KEY = "missing_key"
    WRONG_SHAPE = "wrong_shape"
    NOT_FINITE = "not_finite"
    UNKNOWN_ELEMENT = "unknown_element"
    DISORDERED = "disordered"
    NO_LABEL = "no_label"
    ISOLATED_ATOM = "isolated_atom"
    OVERLAPPING_ATOMS = "overlapping_atoms"
    TOO_LARGE = "too_large"
    DUPLICATE = "duplicate"
    UNCONVERGED = "unconverged"
    TASK_TYPE = "task_type"
    HUBBARD_U = "hubbard_u"
    WRONG_FUNCTIONAL = "wrong_functional"
    FUNCTIONAL_MISMATCH = "functional_mismatch"
    ENERGY_OUTLIER = "energy_outlier"
    FORCE_OUTLIER = "force_outlier"
    STRESS_OUTLIER = "stress_outlier"


class RecordError(ValueError):
    """A record that cannot be used: the reason to count it under, and what was found."""

    def __init__(self, reason: Reason, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail

    def __reduce__(self) -> tuple[type[Self], tuple[Reason, str]]:
        # Exceptions are rebuilt from `args` when a worker process sends them; this one takes two arguments.
        return type(self), (self.reason, self.detail)


@dataclass(frozen=True, eq=False, kw_only=True)
class StructureRecord:
    """A structure and its labels in Rung's units, checked and brought to the stored types at construction.

    Raises `RecordError` for anything that cannot be used. Distances between atoms are the graph's business.

    Attributes:
        atomic_numbers: (num_atoms,), 1 to 94.
        lattice: (3, 3), rows, Å.
        frac_coords: (num_atoms, 3); wrapped into [0, 1).
        energy: total energy of the cell, eV, or None.
        forces: (num_atoms, 3), eV/Å, or None.
        stress: (3, 3), GPa, positive under tension, or None.
        magmoms: (num_atoms,), μB; signs are dropped; or None.
        source: name of the data set.
        material_id: frames of one material share it; the split goes by it.
        frame_id: tells the frames of a material apart.
        functional: `GGA`, `GGA+U`, `r2SCAN`, ...
    """

    atomic_numbers: NDArray[np.uint8]
    lattice: NDArray[np.float64]
    frac_coords: NDArray[np.float64]
    energy: float | None = None
    forces: NDArray[np.float32] | None = None
    stress: NDArray[np.float32] | None = None
    magmoms: NDArray[np.float32] | None = None
    source: str
    material_id: str
    frame_id: str
    functional: str

    def __post_init__(self) -> None:
        numbers = _checked_atomic_numbers(self.atomic_numbers)
        lattice = _checked("lattice", self.lattice, len(numbers))
        _check_volume(lattice)
        values = {
            "atomic_numbers": numbers,
            "lattice": lattice,
            "frac_coords": wrap(_checked("frac_coords", self.frac_coords, len(numbers))),
        }
        for name in _LABEL_NAMES:
            label = getattr(self, name)
            values[name] = None if label is None else _checked(name, label, len(numbers))
        if values["energy"] is not None:
            values["energy"] = float(values["energy"])
        if values["magmoms"] is not None:
            values["magmoms"] = np.abs(values["magmoms"])
        for name in ("source", "material_id", "frame_id", "functional"):
            values[name] = _checked_name(name, getattr(self, name))
        for name, value in values.items():
            object.__setattr__(self, name, value)

    @property
    def num_atoms(self) -> int:
        """Number of atoms in the cell."""
        return len(self.atomic_numbers)

    @property
    def labels(self) -> Labels:
        """Which labels are there."""
        return present_labels(self)


@dataclass(frozen=True, eq=False, kw_only=True)
class GraphRecord:
    """A structure with its graph: what a shard stores and what a batch is made of.

    The arrays have the types, shapes and units of `rung.data.fields.FIELDS`; decoded ones are read-only views. The
    counts are those of `rung.data.graph.CrystalGraph`; `record_id` is -1 outside a data set.
    """

    lattice: NDArray[np.float64]
    energy: float | None
    frac_coords: NDArray[np.float64]
    stress: NDArray[np.float32] | None
    forces: NDArray[np.float32] | None
    magmoms: NDArray[np.float32] | None
    bond_atoms: NDArray[np.uint16]
    bond_image: NDArray[np.int8]
    atomic_numbers: NDArray[np.uint8]
    num_short_bonds: int
    num_angles: int
    record_id: int = -1

    @property
    def num_atoms(self) -> int:
        """Number of atoms in the cell."""
        return len(self.atomic_numbers)

    @property
    def num_bonds(self) -> int:
        """Number of undirected bonds."""
        return len(self.bond_atoms)

    @property
    def labels(self) -> Labels:
        """Which labels are there."""
        return present_labels(self)


def present_labels(record: StructureRecord | GraphRecord) -> Labels:
    """Flags of the labels that are not None."""
    labels = Labels.NONE
    for name in _LABEL_NAMES:
        if getattr(record, name) is not None:
            labels |= Labels[name.upper()]
    return labels


def wrap(frac_coords: NDArray[np.float64]) -> NDArray[np.float64]:
    """Bring fractional coordinates (num_atoms, 3) into [0, 1)."""
    wrapped = frac_coords - np.floor(frac_coords)
    # The remainder of a tiny negative number rounds to 1.
    wrapped[wrapped >= 1.0] = 0.0
    return wrapped


def _checked(name: str, value: ArrayLike, num_atoms: int) -> NDArray:
    """Bring `value` to the type declared for the field `name`; refuse another shape and numbers that are not finite."""
    field = FIELD[name]
    try:
        with np.errstate(over="ignore"):
            array = np.array(value, dtype=np.float64, order="C").astype(field.dtype)
    except (TypeError, ValueError) as error:
        raise RecordError(Reason.MALFORMED, f"{name} is not an array of numbers: {error}") from error
    shape = field.full_shape(num_atoms, 0)
    if array.shape != shape:
        raise RecordError(Reason.WRONG_SHAPE, f"{name} has shape {array.shape}; {num_atoms} atoms need {shape}")
    if not np.isfinite(array).all():
        raise RecordError(Reason.NOT_FINITE, f"{name} holds a value that is not a finite {field.dtype.name}")
    return array


def _checked_atomic_numbers(value: ArrayLike) -> NDArray[np.uint8]:
    numbers = np.asarray(value)
    if numbers.ndim != 1 or len(numbers) == 0:
        raise RecordError(
            Reason.WRONG_SHAPE, f"atomic_numbers has shape {numbers.shape}; one number per atom is needed"
        )
    if not np.issubdtype(numbers.dtype, np.integer):
        raise RecordError(Reason.MALFORMED, f"atomic_numbers are {numbers.dtype.name}; they are whole numbers")
    outside = numbers[(numbers < 1) | (numbers > MAX_ATOMIC_NUMBER)]
    if len(outside):
        raise RecordError(Reason.UNKNOWN_ELEMENT, f"atomic number {outside[0]}; CHGNet knows 1 to {MAX_ATOMIC_NUMBER}")
    return numbers.astype(FIELD["atomic_numbers"].dtype)


def _check_volume(lattice: NDArray[np.float64]) -> None:
    lengths = np.linalg.norm(lattice, axis=1)
    volume = abs(np.linalg.det(lattice))
    # Relative to the box of the same edges: a flat cell is one whose vectors lie in a plane to rounding.
    if volume <= 1e-9 * lengths.prod():
        raise RecordError(Reason.MALFORMED, f"the lattice vectors {lattice.tolist()} span no volume")


def _checked_name(name: str, value: str) -> str:
    if not isinstance(value, str) or not value:
        raise RecordError(Reason.MALFORMED, f"{name} is {value!r}; a non-empty text is needed")
    num_bytes = len(value.encode())
    if num_bytes > _MAX_NAME_BYTES or "\0" in value:
        raise RecordError(
            Reason.MALFORMED,
            f"{name} {value[:40]!r}... has {num_bytes} bytes; up to {_MAX_NAME_BYTES}, none of them NUL",
        )
    return value


assert {field.name for field in FIELDS} <= {field.name for field in fields(GraphRecord)}  # noqa: S101 - our own invariant
