"""The sections of what goes beyond the choice of a reference: how gently weights are moved, and what is kept alive."""

from typing import Literal

from rung.config.section import Section, setting


class TransferConfig(Section):
    """How pretrained weights are moved.

    Discriminative rates and gradual unfreezing: Howard and Ruder 2018, arXiv 1801.06146; L2-SP: Li et al., ICML 2018.
    """

    layer_decay: float = setting(
        1.0,
        "learning rate of each interaction block as a share of the next one's; the readout has the full rate, the"
        " embeddings the lowest (discriminative rates)",
        gt=0,
        le=1,
    )
    unfreeze_every: int = setting(
        0,
        "gradual unfreezing: model.freeze_depth falls by one after each so many epochs; 0 keeps it",
        unit="epochs",
        ge=0,
    )
    l2_sp: float = setting(
        0.0, "L2-SP: strength of the pull towards the initial weights, half of it times the squared distance", ge=0
    )


class ReplayConfig(Section):
    """A second data set, of the pretraining functional, trained on at the same time with its own reference."""

    path: str | None = setting(None, "prepared data of the other functional; no replay if absent", min_length=1)
    share: float = setting(0.2, "share of the structures in each step that come from it", unit="fraction", gt=0, lt=1)
    readout: Literal["shared", "own"] = setting(
        "shared", "shared: replay against forgetting; own: multi-fidelity, each functional with a readout of its own"
    )
