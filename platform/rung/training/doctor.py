"""The reference doctor: what each treatment of the elemental references would start from, before a step is taken.

The network is evaluated once. A reference adds a sum over atoms to its energies, so the error of the untouched model
under every mode follows from the same predictions. Why errors and correlations are told: between functionals energies
are shifted and correlate poorly (arXiv 2504.05565).
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from pymatgen.core import Element

from rung.config.reference import ReferenceConfig

_FEW: Final = 5
"""Records below which an element is called out."""


class AbsurdStartError(ValueError):
    """A model that starts so far off that something other than learning is needed."""


@dataclass(frozen=True, eq=False)
class Judged:
    """Records that the doctor looks at.

    Attributes:
        compositions: (n, 94) atoms of each element.
        labels: (n,) total energies, eV.
        network: (n,) what the network says without any reference, total energies, eV.
    """

    compositions: NDArray[np.integer]
    labels: NDArray[np.float64]
    network: NDArray[np.float64]

    def errors(self, reference: NDArray[np.floating]) -> NDArray[np.float64]:
        """Prediction minus label with a reference (94,) in eV/atom: (n,), eV/atom."""
        total = self.network + self.compositions @ reference
        return (total - self.labels) / self.compositions.sum(axis=1)


@dataclass(frozen=True)
class Diagnosis:
    """What the doctor found; energies in eV/atom.

    Attributes:
        mode: the mode that the run asked for.
        zero_step: mean absolute error of the untouched model under every mode that is possible here, on held-out
            records where there are any; `scratch` is the fitted reference without any network.
        judged_on: which records these are, and how many.
        correlation: Pearson's r of the initial model's energies per atom with the labels of the sampled training
            records: `raw`, and `referenced`, each less its own reference; None where one does not vary, or of fewer
            than three.
        elements: for each element: `records` of the sample, mean error `before`, with the initial reference, and
            `after`, with the chosen one; both signed.
        few: elements in fewer than five records of the sample, and in at least one.
        unseen: elements of held-out records that no record of the sample contains.
    """

    mode: str
    zero_step: dict[str, float]
    judged_on: str
    correlation: dict[str, float | None]
    elements: dict[str, dict[str, float]]
    few: list[str]
    unseen: list[str]

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)

    def lines(self) -> list[str]:
        """The diagnosis as text."""
        errors = ", ".join(
            f"{mode} {_energy(error)}{' <- chosen' if mode == self.mode else ''}"
            for mode, error in self.zero_step.items()
        )
        found = [f"zero-step energy MAE on {self.judged_on}: {errors}"]
        raw, referenced = self.correlation["raw"], self.correlation["referenced"]
        if raw is not None and referenced is not None:
            found.append(f"initial model against labels: r = {raw:.3f} raw, {referenced:.3f} referenced")
        worst = sorted(self.elements.items(), key=lambda item: -abs(item[1]["after"]))[:5]
        found.append(
            "mean error by element, before -> after: "
            + ", ".join(f"{symbol} {e['before']:+.3f} -> {e['after']:+.3f}" for symbol, e in worst)
            + " eV/atom (the five worst)"
        )
        if self.few:
            found.append(f"elements in fewer than {_FEW} training records of the sample: {' '.join(self.few)}")
        if self.unseen:
            found.append(f"elements held out but never trained on: {' '.join(self.unseen)}")
        return found


def diagnose(
    mode: str,
    references: Mapping[str, NDArray[np.float64]],
    initial: NDArray[np.float64],
    train: Judged,
    held_out: Judged | None,
) -> Diagnosis:
    """Judge every reference on the same predictions.

    Args:
        mode: the one chosen.
        references: (94,) energies of each mode that is possible, eV/atom.
        initial: (94,) reference of the initial weights.
        train: training records, a sample.
        held_out: held-out records; None if there are none, and then the training records are judged.
    """
    judged, name = (held_out, "held-out") if held_out is not None else (train, "training")
    alone = Judged(judged.compositions, judged.labels, np.zeros(len(judged.labels)))
    zero_step = {
        each: float(np.abs((alone if each == "scratch" else judged).errors(reference)).mean())
        for each, reference in references.items()
    }
    counts = (train.compositions > 0).sum(axis=0)
    chosen = Judged(train.compositions, train.labels, np.zeros_like(train.network)) if mode == "scratch" else train
    return Diagnosis(
        mode=mode,
        zero_step=zero_step,
        judged_on=f"{len(judged.labels)} {name} records",
        correlation=_correlations(train, initial, references[mode]),
        elements=_by_element(train.compositions, train.errors(initial), chosen.errors(references[mode])),
        few=_symbols((counts > 0) & (counts < _FEW)),
        unseen=_symbols((judged.compositions.sum(axis=0) > 0) & (counts == 0)),
    )


def refuse_absurd(diagnosis: Diagnosis, config: ReferenceConfig) -> None:
    """Stop a run that would spend its epochs on an offset.

    Raises:
        AbsurdStartError: with the reason and the key to change.
    """
    error = diagnosis.zero_step[diagnosis.mode]
    if config.start_limit is None or error <= config.start_limit:
        return
    others = {mode: value for mode, value in diagnosis.zero_step.items() if mode not in (diagnosis.mode, "scratch")}
    best = min(others, key=lambda mode: others[mode], default=None)
    advice = "the labels may be total energies in another unit, or of another functional: look at the data"
    if best is not None and others[best] < 0.1 * error:
        advice = f"set reference.mode to {best}, which starts {_energy(others[best])} off"
    raise AbsurdStartError(
        f"reference.mode {diagnosis.mode!r} starts {_energy(error)} off on {diagnosis.judged_on}, more than"
        f" reference.start_limit {config.start_limit} eV/atom: {advice}; or raise reference.start_limit (null for none)"
    )


def _correlations(train: Judged, initial: NDArray[np.float64], chosen: NDArray[np.float64]) -> dict[str, float | None]:
    sizes = train.compositions.sum(axis=1)
    labels, referenced = train.labels / sizes, (train.labels - train.compositions @ chosen) / sizes
    raw, network = (train.network + train.compositions @ initial) / sizes, train.network / sizes
    return {"raw": _pearson(raw, labels), "referenced": _pearson(network, referenced)}


def _pearson(x: NDArray[np.float64], y: NDArray[np.float64]) -> float | None:
    if len(x) < 3 or min(x.std(), y.std()) < 1e-9:
        return None
    return float(np.corrcoef(x, y)[0, 1])


def _by_element(
    compositions: NDArray[np.integer], before: NDArray[np.float64], after: NDArray[np.float64]
) -> dict[str, dict[str, float]]:
    found = {}
    for place in np.flatnonzero(compositions.sum(axis=0)).tolist():
        rows = compositions[:, place] > 0
        found[Element.from_Z(place + 1).symbol] = {
            "records": int(rows.sum()),
            "before": float(before[rows].mean()),
            "after": float(after[rows].mean()),
        }
    return found


def _symbols(mask: NDArray[np.bool_]) -> list[str]:
    return [Element.from_Z(place + 1).symbol for place in np.flatnonzero(mask).tolist()]


def _energy(value: float) -> str:
    return f"{1000 * value:.0f} meV/atom" if value < 1 else f"{value:.2f} eV/atom"
