"""The sections of data preparation: source, graph, split, shards."""

from typing import Literal, Self

from pydantic import model_validator

from rung.config.section import Section, setting


class GraphConfig(Section):
    """Neighbour cutoffs of the crystal graph (CHGNet, Deng et al. 2023, Methods)."""

    atom_cutoff: float = setting(
        6.0, "cutoff of the atom graph: pairs closer than this are bonds", unit="Å", gt=0, le=20
    )
    bond_cutoff: float = setting(
        3.0, "cutoff of the bond graph: bonds shorter than this form angles", unit="Å", gt=0, le=20
    )

    @model_validator(mode="after")
    def _bond_cutoff_within_atom_cutoff(self) -> Self:
        if self.bond_cutoff > self.atom_cutoff:
            raise ValueError(
                f"bond_cutoff {self.bond_cutoff} Å exceeds atom_cutoff {self.atom_cutoff} Å: lower bond_cutoff"
            )
        return self


SourceKind = Literal["mptrj", "matpes", "mp_api", "vasp", "ase", "atoms", "surrogate"]
EnergyChoice = Literal["corrected", "uncorrected", "free", "zero_smearing", "without_entropy", "mp2020"]

_ENERGIES: dict[SourceKind, tuple[EnergyChoice, ...]] = {
    "mptrj": ("corrected", "uncorrected"),
    "matpes": ("uncorrected",),
    "mp_api": ("uncorrected", "corrected", "free", "zero_smearing", "without_entropy", "mp2020"),
    "vasp": ("free", "zero_smearing", "without_entropy", "mp2020"),
    "ase": ("uncorrected", "free"),
    "atoms": ("uncorrected",),
    "surrogate": ("uncorrected",),
}
"""The energies that each kind of source has; the first is its default."""


class AseConfig(Section):
    """Where an ASE frame keeps its labels: keys of its calculator's results, its info or its arrays."""

    energy: str = setting("energy", "total energy, eV (where source.energy is free: free_energy)", min_length=1)
    forces: str = setting("forces", "forces, eV/Å", min_length=1)
    stress: str = setting("stress", "stress, eV/Å³, positive under tension, 3 x 3 or Voigt", min_length=1)
    magmoms: str = setting("magmoms", "magnetic moments, μB", min_length=1)
    material: str = setting("material_id", "name of the material; its formula where absent", min_length=1)
    frame: str = setting("frame_id", "name of the frame; its number where absent", min_length=1)
    functional: str = setting("functional", "functional; source.functional where absent", min_length=1)


class MaterialsProjectConfig(Section):
    """What to ask the Materials Project for, where source.path is absent; the key is read from MP_API_KEY."""

    material_ids: tuple[str, ...] = setting((), "materials by id, such as [mp-149, mp-19770]")
    chemical_systems: tuple[str, ...] = setting((), "materials by elements, such as [Li-Fe-O, Si-*]")

    @property
    def asks(self) -> bool:
        """Whether anything is asked for."""
        return bool(self.material_ids or self.chemical_systems)


class SourceConfig(Section):
    """Where raw records come from."""

    kind: SourceKind = setting(..., "format of the raw records")
    path: str | tuple[str, ...] | None = setting(
        None, "file, folder, glob, or a list of them; local, or a URL such as s3://, gs:// (every kind but surrogate)"
    )
    functional: str | None = setting(
        None, "functional of the records where the file does not state it, or the surrogate's: GGA or r2SCAN"
    )
    dataset: str | None = setting(None, "name kept with every record; the file's name if absent")
    energy: EnergyChoice | None = setting(
        None,
        "which energy is the label; if absent, corrected for mptrj, free for VASP and tasks, else the file's own;"
        " mp2020: VASP's own plus the Materials Project's corrections (Wang et al., Sci. Rep. 11, 15496 (2021))",
    )
    materials: str | None = setting(
        None, "vasp, mp_api: JSON file {folder or task id: material id}, which the split goes by", min_length=1
    )
    limit: int | None = setting(None, "stop after this many raw records", unit="records", ge=1)
    num_structures: int = setting(400, "surrogate: number of crystal structures to make", unit="structures", ge=1)
    seed: int = setting(0, "surrogate: seed of the structures", ge=0)
    elements: tuple[str, ...] | None = setting(
        None, "surrogate: symbols of the elements to build with; all that it knows if absent", min_length=1
    )
    ase: AseConfig = setting(AseConfig(), "ase: keys of the labels")
    mp: MaterialsProjectConfig = setting(MaterialsProjectConfig(), "mp_api: what to ask for without a file")

    @property
    def paths(self) -> tuple[str, ...]:
        """All that `path` names."""
        return (self.path,) if isinstance(self.path, str) else self.path or ()

    @property
    def energy_choice(self) -> EnergyChoice:
        """The energy asked for, or the kind's default."""
        return self.energy or _ENERGIES[self.kind][0]

    @model_validator(mode="after")
    def _path_matches_kind(self) -> Self:
        if self.kind == "surrogate" and self.path is not None:
            raise ValueError("the surrogate source makes its records and reads no file: remove source.path")
        if self.kind == "surrogate" and self.functional not in ("GGA", "r2SCAN"):
            raise ValueError(f"source.functional is {self.functional!r}; the surrogate has 'GGA' and 'r2SCAN'")
        if self.kind == "mp_api" and bool(self.paths) == self.mp.asks:
            raise ValueError(
                "source.kind 'mp_api' reads files or asks the Materials Project: set either source.path, or"
                " source.mp.material_ids or source.mp.chemical_systems"
            )
        if self.kind not in ("surrogate", "mp_api") and not self.paths:
            raise ValueError(f"source.kind {self.kind!r} reads a file: set source.path")
        return self

    @model_validator(mode="after")
    def _keys_match_kind(self) -> Self:
        if self.energy not in (None, *_ENERGIES[self.kind]):
            raise ValueError(
                f"source.energy is {self.energy!r}; source.kind {self.kind!r} has {', '.join(_ENERGIES[self.kind])}"
            )
        foreign = {
            "ase": self.kind != "ase" and self.ase != AseConfig(),
            "mp": self.kind != "mp_api" and self.mp.asks,
            "materials": self.kind not in ("vasp", "mp_api") and self.materials is not None,
        }
        for key, is_foreign in foreign.items():
            if is_foreign:
                raise ValueError(f"source.{key} means nothing to source.kind {self.kind!r}: remove it")
        return self


class FilterConfig(Section):
    """Which records are set aside. They are stored all the same, listed with their reason, and can be put back."""

    unconverged: Literal["reject", "keep"] = setting(
        "reject", "frames whose electronic steps did not converge, where the source says so"
    )
    task_types: tuple[str, ...] = setting(
        ("nscf", "dfpt"), "kinds of calculation that are refused, by a part of their name: theirs are no plain energies"
    )
    functionals: tuple[str, ...] | None = setting(
        None, "functionals to keep, such as [GGA, GGA+U]; all others are refused; any if absent"
    )
    hubbard_u: Literal["reject", "keep"] = setting("keep", "frames calculated with +U, where the source says so")
    duplicates: Literal["reject", "keep"] = setting(
        "reject", "second and later records of the same structure and functional with the same energy (to 0.1 meV/atom)"
    )
    functional_check: Literal["reject", "warn", "off"] = setting(
        "reject", "records whose energy fits the elemental references of another functional than the stated one"
    )
    outlier_z: float | None = setting(
        20.0, "robust standard deviations from the median beyond which a record is an outlier; off if absent", gt=0
    )
    energy_floor: float = setting(
        5.0, "referenced energies closer to the median than this are no outliers", unit="eV/atom", ge=0
    )
    force_floor: float = setting(50.0, "largest forces below this are no outliers", unit="eV/Å", ge=0)
    stress_floor: float = setting(200.0, "largest stresses below this are no outliers", unit="GPa", ge=0)
    max_atoms: int | None = setting(None, "larger cells are refused", unit="atoms", ge=1)
    max_bonds: int | None = setting(None, "structures with more undirected bonds are refused", unit="bonds", ge=1)
    max_angles: int | None = setting(None, "structures with more angles are refused", unit="angles", ge=1)


class SplitConfig(Section):
    """Split by material: all frames of a material, at every functional, fall on the same side."""

    validation: float = setting(0.1, "share of materials used for validation", unit="fraction", ge=0, lt=1)
    test: float = setting(0.1, "share of materials used for testing", unit="fraction", ge=0, lt=1)
    by: Literal["material", "composition", "chemical_system"] = setting(
        "material", "what stays together: a material, all of the same reduced formula, all of the same elements"
    )
    salt: str = setting("rung", "text hashed with the material id; sets with the same salt share their split")

    @model_validator(mode="after")
    def _something_left_to_train_on(self) -> Self:
        if self.validation + self.test >= 1:
            raise ValueError(f"validation {self.validation} + test {self.test} leave nothing to train on: lower one")
        return self


class ShardConfig(Section):
    """How records are stored."""

    max_mb: float = setting(
        512.0,
        "a shard is finished when its records take this much; a preparation that was killed goes on behind it",
        unit="MB",
        gt=0,
    )


class ParallelConfig(Section):
    """Who parses, builds graphs and encodes. The result does not depend on it."""

    kind: Literal["local", "ray"] = setting("local", "local: processes of this machine; ray: tasks of a Ray cluster")
    workers: int | None = setting(
        None, "processes, or Ray tasks at a time; as many as there are CPUs if absent", unit="processes", ge=1
    )
    address: str | None = setting(None, "ray: cluster address; RAY_ADDRESS or a new local cluster if absent")
