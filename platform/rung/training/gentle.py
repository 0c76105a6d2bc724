"""Moving pretrained weights gently: rates by depth, gradual unfreezing, and a pull towards where they began.

All of it is a function of the epoch and of the initial weights, so an interrupted run goes on exactly.

Rates by depth and gradual unfreezing: Howard and Ruder, ACL 2018 (arXiv 1801.06146). The pull is L2-SP: Li et al., ICML
2018 (arXiv 1802.01483).
"""

from collections.abc import Mapping
from functools import partial

import torch
from chgnet.model import CHGNet
from torch import Tensor, nn

from rung.config.sections import ModelConfig
from rung.config.transfer import TransferConfig
from rung.model.freeze import depth_of, freeze, max_depth


class GentleTransfer:
    """Rates and pull of a run.

    Args:
        model: on its device, with the initial or the resumed weights; its `requires_grad` flags are set.
        config: depth that is frozen at first.
        transfer: how gently.
        anchor: initial weights by name, for L2-SP; not read where it is off.

    Attributes:
        depths: of each parameter, by name (`rung.model.freeze.depth_of`).

    Raises:
        ValueError: the model has no such depth.
    """

    def __init__(
        self, model: CHGNet, config: ModelConfig, transfer: TransferConfig, anchor: Mapping[str, Tensor]
    ) -> None:
        self._config = config
        self._transfer = transfer
        self._readout = max_depth(model) + 1
        # Blocks that thaw later are trainable from the start with a rate of 0: Adam's averages of their gradients are
        # sound when they thaw, and the set of parameters never changes under the optimizer.
        freeze(model, config.freeze_depth)
        if transfer.unfreeze_every:
            freeze(model, 0)
        self.depths = {name: depth_of(model, name) for name, _ in model.named_parameters()}
        self._pulled: list[tuple[nn.Parameter, Tensor]] = []
        if transfer.l2_sp:
            self._pulled = [
                (parameter, anchor[name].to(parameter))
                for name, parameter in model.named_parameters()
                if parameter.requires_grad and not name.startswith("composition_model.")
            ]

    def frozen_depth(self, epoch: int) -> int:
        """The depth that is frozen in an epoch, counted from 0."""
        every = self._transfer.unfreeze_every
        return max(0, self._config.freeze_depth - epoch // every) if every else self._config.freeze_depth

    def factor(self, epoch: int, depth: int) -> float:
        """Rate of the parameters of a depth, as a share of the rate of the readout."""
        if depth <= self.frozen_depth(epoch):
            return 0.0
        return self._transfer.layer_decay ** (self._readout - min(depth, self._readout))

    def factors(self, epoch: int) -> "partial[float]":
        """`factor` of one epoch."""
        return partial(self.factor, epoch)

    def add_pull(self) -> None:
        """Add the gradient of L2-SP, strength times the distance, on every rank alike; the reference is not pulled."""
        with torch.no_grad():
            for parameter, anchor in self._pulled:
                if parameter.grad is not None:
                    parameter.grad.add_(parameter - anchor, alpha=self._transfer.l2_sp)
