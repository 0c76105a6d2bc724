"""The section of the elemental reference energies."""

from typing import Literal, Self

from pydantic import model_validator

from rung.config.section import Section, setting

ReferenceMode = Literal["scratch", "trainable", "frozen", "refit", "residual", "isolated"]


class IsolatedConfig(Section):
    """Energies of isolated atoms at one functional."""

    path: str | None = setting(None, "file: MatPES's layouts or CSV, plain or gzip", min_length=1)
    column: str | None = setting(None, "column of a CSV with several functionals", min_length=1)


class ReferenceConfig(Section):
    """Elemental reference energies: the four methods of arXiv 2504.05565, and two beyond it."""

    mode: ReferenceMode = setting(
        "refit",
        "scratch: random weights, reference fitted to this set (Method 1); trainable: pretrained weights, their"
        " reference trained along (Method 2); frozen: their reference kept (Method 3); refit: reference fitted to this"
        " set (Method 4); residual: theirs plus the shift fitted to labels minus their predictions; isolated: theirs"
        " plus the shift of isolated atoms, or the isolated atoms alone for random weights",
    )
    ridge: float = setting(
        0.0,
        "scratch and refit: ridge added to the squared singular values of the fit; 0 is the minimum-norm solution",
        ge=0,
    )
    min_records: int = setting(
        1, "scratch and refit: elements in fewer training records count as unseen", unit="records", ge=1
    )
    unseen: Literal["pretrained", "MPtrj", "MP-r2SCAN"] = setting(
        "pretrained",
        "scratch and refit: energy of elements that no training record contains: that of the initial weights (0 where"
        " they are random), or that of a table of the chgnet package",
    )
    prior: Literal["auto", "none", "tables"] = setting(
        "auto",
        "residual: shift of each element before the data are seen: one for all (none), MP-r2SCAN minus MPtrj of the"
        " chgnet package's tables (tables), or whichever predicts left-out materials better (auto)",
    )
    strength: float | None = setting(
        None, "residual: ridge on the shifts; chosen by leaving out one material after the other if absent", gt=0
    )
    sample: int = setting(
        5000,
        "most training records that the initial model predicts to judge its reference",
        unit="records",
        ge=1,
    )
    isolated: IsolatedConfig = setting(IsolatedConfig(), "isolated atoms at the functional of the data")
    isolated_pretrained: IsolatedConfig = setting(
        IsolatedConfig(), "isolated atoms at the functional of the initial weights"
    )
    start_limit: float | None = setting(
        10.0,
        "a run whose untouched model has a larger mean energy error is refused; absent: none is",
        unit="eV/atom",
        gt=0,
    )

    @model_validator(mode="after")
    def _isolated_atoms_are_there(self) -> Self:
        if self.mode == "isolated" and self.isolated.path is None:
            raise ValueError("reference.mode 'isolated' needs the energies of the atoms: set reference.isolated.path")
        return self
