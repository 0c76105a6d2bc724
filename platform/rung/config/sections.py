"""The sections of the jobs that train and evaluate: data, batch, model, training, cluster, tracking."""

from typing import Final, Literal, Self

from pydantic import model_validator

from rung.config.preparation import GraphConfig
from rung.config.section import Section, setting

NAMED_WEIGHTS: Final = ("none", "0.3.0", "r2scan")
"""Values of `model.init` that name no file or folder: random weights, and the models that chgnet carries."""


class RunConfig(Section):
    """Who the run is. Name and storage together are its identity: the same two resume the same run."""

    name: str = setting("run", "name of the run", min_length=1, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    storage: str = setting(
        "runs", "folder that holds all runs; on a cluster, one that every node can reach", min_length=1
    )
    seed: int = setting(0, "seed of initial weights and of the order of the data", ge=0, lt=2**31)
    allow_changes: tuple[str, ...] = setting(
        (),
        "keys, sections or data.manifest that may differ from what the run was started with; all other differences"
        " that would change the model are refused",
    )


class DataConfig(Section):
    """The shards to read."""

    path: str = setting(..., "folder that prepare_data wrote, or URL of its copy in object storage", min_length=1)
    subset: float = setting(
        1.0, "share of the training materials to train on; smaller shares are parts of larger ones", gt=0, le=1
    )
    cache: str = setting("~/.cache/rung/data", "folder of this node for copies of data sets in object storage")
    cache_limit: float = setting(500.0, "most that these copies may take; unused ones make room", unit="GB", gt=0)
    workers: int = setting(
        0, "processes that decode and collate batches ahead of the model; 0 does it in the loop", ge=0
    )
    prefetch: int = setting(4, "batches kept ready by each process", unit="batches", ge=1)


class BatchConfig(Section):
    """The global batch, and what one rank may hold at once."""

    structures: int = setting(40, "structures in one optimizer step, over all ranks", unit="structures", ge=1)
    max_bonds: int = setting(
        400_000, "undirected bonds that a rank evaluates at once; more are accumulated", unit="bonds", ge=1
    )
    max_angles: int = setting(
        600_000, "angles that a rank evaluates at once; more are accumulated", unit="angles", ge=1
    )


class ModelConfig(Section):
    """CHGNet's size and where its weights come from."""

    init: str = setting(
        "none", "initial weights: none, 0.3.0, r2scan, a model file (.pth.tar) or a run's folder", min_length=1
    )
    feature_dim: int = setting(64, "width of atom, bond and angle features (initial weights bring their own)", ge=1)
    num_radial: int = setting(31, "radial basis functions (initial weights bring their own)", ge=1)
    num_angular: int = setting(31, "angular basis functions, odd (initial weights bring their own)", ge=1)
    num_blocks: int = setting(4, "interaction blocks (initial weights bring their own)", ge=2)
    graph: GraphConfig = setting(GraphConfig(), "cutoffs (initial weights bring their own)")
    freeze_depth: int = setting(
        0, "0 nothing frozen; 1 embeddings and bases; 1 + k also the first k interaction blocks", ge=0
    )

    @model_validator(mode="after")
    def _num_angular_is_odd(self) -> Self:
        if self.num_angular % 2 == 0:
            raise ValueError(
                f"num_angular is {self.num_angular}; a Fourier basis has 1 + 2n functions: use an odd number"
            )
        return self


class LossConfig(Section):
    """Weighted sum of one mean per target; each mean is over the labels that are present."""

    kind: Literal["huber", "mse", "mae"] = setting("huber", "penalty on each residual")
    delta: float = setting(0.1, "residual at which huber turns from square to line", unit="unit of the target", gt=0)
    energy: float = setting(1.0, "weight of the energy per atom (eV/atom)", ge=0)
    force: float = setting(1.0, "weight of the forces (eV/Å)", ge=0)
    stress: float = setting(0.1, "weight of the stress (GPa)", ge=0)
    magmom: float = setting(0.1, "weight of the magnetic moments (μB)", ge=0)

    @model_validator(mode="after")
    def _some_weight(self) -> Self:
        if self.energy + self.force + self.stress + self.magmom == 0:
            raise ValueError(
                "every weight is 0, so nothing would be learnt: raise loss.energy, force, stress or magmom"
            )
        return self


class OptimizerConfig(Section):
    """The update rule."""

    kind: Literal["adam", "adamw"] = setting("adam", "update rule")
    learning_rate: float = setting(1e-3, "peak learning rate", gt=0, le=1)
    weight_decay: float = setting(0.0, "decay of weights", ge=0)
    clip_norm: float | None = setting(None, "largest norm of the gradient; larger ones are scaled down", gt=0)
    ema_decay: float | None = setting(
        None, "decay of the moving average of the weights that is validated and exported", gt=0, lt=1
    )


class ScheduleConfig(Section):
    """The learning rate over the run, a function of the global step alone."""

    kind: Literal["cosine", "constant"] = setting("cosine", "shape after the warm-up")
    warmup: float = setting(0.0, "share of all steps during which the rate rises from 0", unit="fraction", ge=0, lt=1)
    final: float = setting(0.01, "rate at the last step, as a share of the peak", unit="fraction", ge=0, le=1)


Precision = Literal["float32", "tf32"]


class TrainingConfig(Section):
    """Length of the run, and what is kept of it."""

    epochs: int = setting(30, "passes over the training records", unit="epochs", ge=0)
    log_every: int = setting(10, "steps between two logged training metrics", unit="steps", ge=1)
    checkpoint_every: int = setting(
        0, "steps between two checkpoints; 0 writes them at the end of epochs only", unit="steps", ge=0
    )
    checkpoint_minutes: float | None = setting(
        None, "time between two checkpoints, besides checkpoint_every", unit="min", gt=0
    )
    keep: int = setting(2, "newest checkpoints kept besides the best", unit="checkpoints", ge=1)
    deterministic: bool = setting(False, "use deterministic algorithms only (slower on GPUs)")
    precision: Precision = setting(
        "float32",
        "of the factors in matrix products; tf32 is faster on NVIDIA GPUs from Ampere on, and shifts forces by up to"
        " 4 meV/Å (tests/benchmarks/README.md)",
    )
    profile: tuple[int, int] | None = setting(
        None, "first and last step to trace with PyTorch's profiler; the trace lands in the run's folder", unit="steps"
    )

    @model_validator(mode="after")
    def _profile_in_order(self) -> Self:
        if self.profile is not None and not 1 <= self.profile[0] <= self.profile[1]:
            raise ValueError(f"profile is {list(self.profile)}; give the first and last step, counted from 1, in order")
        return self


class FaultsConfig(Section):
    """What a run puts up with, and for how long."""

    non_finite: Literal["stop", "skip", "rewind"] = setting(
        "stop",
        "loss or gradient that is not finite: stop before the update; skip the update; rewind to the last checkpoint"
        " and go on at a lower rate",
    )
    max_skips: int = setting(10, "skip: updates that may be left out in the whole run", unit="steps", ge=1)
    max_rewinds: int = setting(3, "rewind: how often in the whole run", ge=1)
    rewind_rate: float = setting(0.5, "rewind: learning rate afterwards, as a share of before", gt=0, lt=1)
    damaged_shards: Literal["refuse", "skip"] = setting(
        "refuse", "shard that cannot be read: end the run, or train without its records and say so"
    )
    storage_patience: float = setting(600.0, "time that storage may refuse writes before the run ends", unit="s", ge=0)
    collective_timeout: float = setting(
        1800.0,
        "longest wait of a rank for the others; after it the run restarts, and the message names the rank",
        unit="s",
        gt=0,
    )
    loss_spike: float | None = setting(
        10.0, "report the records of a step whose loss is so many times the median of the last 50", gt=1
    )
    straggler: float | None = setting(
        1.5, "report a rank that takes so many times as long for its share of a step as the others", gt=1
    )

    @model_validator(mode="after")
    def _ranks_wait_longer_than_storage(self) -> Self:
        if self.storage_patience >= self.collective_timeout:
            raise ValueError(
                f"storage_patience is {self.storage_patience:g} s and collective_timeout {self.collective_timeout:g} s,"
                " but ranks wait while rank 0 waits for storage: make storage_patience the shorter one"
            )
        return self


class LauncherConfig(Section):
    """Who starts the training loop, and with what."""

    kind: Literal["local", "torchrun", "ray"] = setting(
        "ray", "local: this process; torchrun: started by torchrun; ray: Ray Train"
    )
    address: str | None = setting(None, "ray: cluster address; RAY_ADDRESS or a new local cluster if absent")
    num_workers: int | tuple[int, int] = setting(
        1,
        "ray: ranks, each with its own model replica; [min, max] lets the run shrink and grow with the cluster",
        unit="ranks",
    )
    cpus_per_worker: float = setting(1.0, "ray: CPUs of one rank", unit="CPUs", gt=0)
    gpus_per_worker: float | None = setting(
        None, "ray: GPUs of one rank; 1 where the cluster has GPUs if absent", unit="GPUs", ge=0
    )
    max_failures: int = setting(3, "ray: restarts from the last checkpoint after a lost worker", ge=0)
    start_timeout: float = setting(600.0, "ray: longest wait for the workers' resources", unit="s", gt=0)

    @model_validator(mode="after")
    def _some_workers(self) -> Self:
        if not 1 <= self.min_workers <= self.max_workers:
            raise ValueError(
                f"num_workers is {self.num_workers}; give a whole number of at least 1, or [min, max] in order"
            )
        return self

    @property
    def min_workers(self) -> int:
        """The fewest ranks to train with."""
        return self.num_workers if isinstance(self.num_workers, int) else self.num_workers[0]

    @property
    def max_workers(self) -> int:
        """The most ranks to train with."""
        return self.num_workers if isinstance(self.num_workers, int) else self.num_workers[1]


class TrackingConfig(Section):
    """Where metrics go besides the run's own metrics.jsonl."""

    kind: Literal["off", "mlflow"] = setting("mlflow", "off, or MLflow")
    uri: str | None = setting(
        None, "MLflow server or database; MLFLOW_TRACKING_URI or mlflow.db in the storage folder if absent"
    )
    experiment: str = setting("rung", "MLflow experiment", min_length=1)
    model: bool = setting(
        default=True, meaning="keep a complete run's model there in the form that MLflow loads and serves"
    )
    checkpoints: Literal["none", "best", "last"] = setting(
        "none", "checkpoint that is copied there when the run is complete; all of them stay in run.storage"
    )
    system_metrics_every: float = setting(
        10.0, "time between two samples of CPU, memory, GPUs and network of every node; 0 takes none", unit="s", ge=0
    )
