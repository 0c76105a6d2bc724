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


class SourceConfig(Section):
    """Where raw records come from."""

    kind: Literal["mptrj", "matpes", "surrogate"] = setting(..., "format of the raw records")
    path: str | None = setting(None, "raw file (every kind but surrogate)")
    functional: str | None = setting(
        None, "functional of the records where the file does not state it, or the surrogate's: GGA or r2SCAN"
    )
    dataset: str | None = setting(None, "name kept with every record; the file's name if absent")
    energy: Literal["corrected", "uncorrected"] = setting(
        "corrected", "mptrj: MP2020-corrected energy (CHGNet's label) or the calculation's own"
    )
    limit: int | None = setting(None, "stop after this many raw records", unit="records", ge=1)
    num_structures: int = setting(400, "surrogate: number of crystal structures to make", unit="structures", ge=1)
    seed: int = setting(0, "surrogate: seed of the structures", ge=0)

    @model_validator(mode="after")
    def _path_matches_kind(self) -> Self:
        if self.kind == "surrogate" and self.path is not None:
            raise ValueError("the surrogate source makes its records and reads no file: remove source.path")
        if self.kind == "surrogate" and self.functional not in ("GGA", "r2SCAN"):
            raise ValueError(f"source.functional is {self.functional!r}; the surrogate has 'GGA' and 'r2SCAN'")
        if self.kind != "surrogate" and self.path is None:
            raise ValueError(f"source.kind {self.kind!r} reads a file: set source.path")
        return self


class SplitConfig(Section):
    """Split by material: all frames of a material, at every functional, fall on the same side."""

    validation: float = setting(0.1, "share of materials used for validation", unit="fraction", ge=0, lt=1)
    test: float = setting(0.1, "share of materials used for testing", unit="fraction", ge=0, lt=1)
    salt: str = setting("rung", "text hashed with the material id; sets with the same salt share their split")

    @model_validator(mode="after")
    def _something_left_to_train_on(self) -> Self:
        if self.validation + self.test >= 1:
            raise ValueError(f"validation {self.validation} + test {self.test} leave nothing to train on: lower one")
        return self


class ShardConfig(Section):
    """How records are stored."""

    records_per_shard: int = setting(20_000, "records in one LMDB shard", unit="records", ge=1)
