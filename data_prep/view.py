"""A prepared data set as its report shows it: columns by functional, before and after referencing."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Final, Self

import numpy as np
from numpy.typing import NDArray

from data_prep.facts import FactsTable
from rung.data.dataset import Manifest, read_manifest
from rung.data.fields import Labels
from rung.data.index import REJECTED, Index
from rung.data.reference import ReferenceFit, residuals

_ROWS_AT_ONCE: Final = 65_536


@dataclass(frozen=True)
class SetView:
    """A data set in columns, grouped as a person looks at it."""

    folder: Path
    manifest: Manifest
    index: Index
    facts: FactsTable

    @cached_property
    def kept(self) -> NDArray[np.bool_]:
        """Which stored records are used: (n,)."""
        return self.index.split != REJECTED

    @cached_property
    def functionals(self) -> list[str]:
        """Functionals of the records that are used, the most frequent first."""
        counts = self.manifest.functionals
        return sorted(counts, key=lambda name: (-counts[name], name))

    @classmethod
    def open(cls, folder: Path) -> Self:
        """Read the columns of a data set.

        Raises:
            ShardError: the folder holds no data set, or a file of it is damaged.
        """
        manifest, _ = read_manifest(folder)
        names = [shard.name for shard in manifest.shards]
        return cls(folder, manifest, Index(folder, names), FactsTable.load(folder, names))

    def rows(self, functional: str) -> NDArray[np.int64]:
        """The used records of a functional: (n,) row numbers."""
        return np.flatnonzero(self.kept & (self.index.functional == functional.encode()))

    def measured(self, column: int) -> dict[str, NDArray[np.float64]]:
        """The numbers (n,) of one of `MEASURES` that are there, by functional; functionals without any are left out."""
        values = {name: self.facts.measures[self.rows(name), column] for name in self.functionals}
        return {name: found[np.isfinite(found)] for name, found in values.items() if np.isfinite(found).any()}

    @cached_property
    def referenced(self) -> Mapping[str, "Referenced"]:
        """Energies of each functional whose reference is fitted."""
        return {name: self._referenced(name) for name in self.functionals if name in self.manifest.references}

    def _referenced(self, functional: str) -> "Referenced":
        fit = ReferenceFit.from_json(self.manifest.references[functional])
        rows = self.rows(functional)
        rows = rows[self.index.labels[rows] & Labels.ENERGY > 0]
        parts = [rows[at : at + _ROWS_AT_ONCE] for at in range(0, len(rows), _ROWS_AT_ONCE)]
        energies, known = zip(*(self._energies(part, fit) for part in parts), strict=True)
        seen = np.concatenate(known)
        before, after = np.concatenate(energies, axis=1)[:, seen]
        return Referenced(fit, rows[seen], before, after, int((~seen).sum()))

    def _energies(self, rows: NDArray[np.int64], fit: ReferenceFit) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
        """Energies without and with the reference, (2, len(rows)), and whether the fit knows all elements."""
        counts = self.index.compositions(rows)
        strange = counts[:, fit.records_with == 0].sum(axis=1)
        return residuals(counts, self.index.energy[rows], fit.energies), strange == 0


@dataclass(frozen=True)
class Referenced:
    """Energies of one functional's records before and after its elemental reference is subtracted.

    Attributes:
        fit: of the reference.
        rows: (n,) records with elements that the fit knows.
        before: (n,) eV/atom.
        after: (n,) eV/atom.
        left_out: records with other elements.
    """

    fit: ReferenceFit
    rows: NDArray[np.int64]
    before: NDArray[np.float64]
    after: NDArray[np.float64]
    left_out: int
