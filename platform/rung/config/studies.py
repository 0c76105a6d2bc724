"""The configs of the studies: many runs or records, one answer."""

from rung.config.section import Section, setting
from rung.config.sections import DataConfig


class LabelledSetConfig(Section):
    """One of the two data sets that are compared."""

    data: DataConfig = setting(..., "prepared data")
    isolated_atoms: str | None = setting(
        None, "file with the energies of isolated atoms at this functional: MatPES's layouts, or CSV", min_length=1
    )
    column: str | None = setting(None, "column of isolated_atoms where it is a CSV with several", min_length=1)


class FunctionalsConfig(Section):
    """study_functionals: how far two functionals agree on the same structures."""

    output: str = setting(..., "folder for summary.json and report.html", min_length=1)
    lower: LabelledSetConfig = setting(..., "the functional with many data, such as GGA")
    upper: LabelledSetConfig = setting(..., "the functional to reach, such as r2SCAN")
    tolerance: float = setting(1e-3, "structures are the same up to this distance", unit="Å", gt=0)
    min_pairs: int = setting(3, "elements with fewer pairs have no correlation of their own", unit="pairs", ge=3)
