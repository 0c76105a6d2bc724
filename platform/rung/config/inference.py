"""The config of prediction: a model, structures, and where the answers go."""

from typing import Literal

from rung.config.preparation import ParallelConfig
from rung.config.section import Section, setting

PropertyName = Literal["forces", "stress", "magmoms"]
PredictionFormat = Literal["parquet", "extxyz"]


class BudgetConfig(Section):
    """What a worker evaluates at once."""

    max_bonds: int = setting(60_000, "undirected bonds; one structure with more is evaluated alone", unit="bonds", ge=1)
    max_angles: int = setting(100_000, "angles; one structure with more is evaluated alone", unit="angles", ge=1)


class PredictConfig(Section):
    """predict: a model's energies, forces, stresses and magnetic moments of many structures."""

    model: str = setting(
        ..., "0.3.0, r2scan, a model file (.pth.tar) or a run's folder (its best checkpoint)", min_length=1
    )
    input: str | tuple[str, ...] = setting(
        ...,
        "structures: a folder that prepare_data wrote (LMDB), or files, folders or globs of extended XYZ, CIF, JSON"
        " (pymatgen's or ASE's) and what else ASE reads; local, or URLs",
    )
    output: str = setting(..., "folder for predictions, failures.jsonl and summary.json", min_length=1)
    format: PredictionFormat = setting("parquet", "parquet: a table; extxyz: structures with their predictions")
    properties: tuple[PropertyName, ...] = setting(
        ("forces", "stress", "magmoms"), "what is predicted besides the energy; less is faster"
    )
    chunk: int = setting(
        256, "structures in one piece of work; what is finished stays finished", unit="structures", ge=1
    )
    budget: BudgetConfig = setting(BudgetConfig(), "memory")
    parallel: ParallelConfig = setting(ParallelConfig(workers=1), "who predicts")
    gpus_per_worker: float | None = setting(
        None, "parallel.kind ray: GPUs of one task; 1 where the cluster has GPUs if absent", unit="GPUs", ge=0
    )

    @property
    def inputs(self) -> tuple[str, ...]:
        """All that `input` names."""
        return (self.input,) if isinstance(self.input, str) else self.input
