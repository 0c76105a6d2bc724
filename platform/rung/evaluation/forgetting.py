"""What fine-tuning cost at the pretraining functional: errors on its own test materials, before and after."""

import copy

from chgnet.model import CHGNet

from rung.config.sections import BatchConfig, DataConfig, LossConfig
from rung.data.dataset import ShardDataset
from rung.data.staging import staged
from rung.model.reference import reference_of, set_reference
from rung.model.support import cutoffs_of
from rung.training.context import LocalContext
from rung.training.metrics import Metrics
from rung.training.validate import Validator


def forgetting(
    before: CHGNet, after: CHGNet, probe: DataConfig, batch: BatchConfig, context: LocalContext
) -> dict[str, Metrics]:
    """Errors of both models on the probe's test materials, the later one with the earlier one's reference put back.

    Args:
        before: the pretrained model, on the context's device.
        after: what became of it; not changed.
        probe: prepared data of the pretraining functional.
        batch: limits of one evaluation.
        context: where to compute.

    Returns:
        `before` and `after`, as `rung.training.metrics` names them; the loss is that of `LossConfig`'s defaults.

    Raises:
        ValueError: the probe cannot be read, has no test records, or has other cutoffs than the models.
    """
    dataset = ShardDataset(staged(probe))
    dataset.check_cutoffs(cutoffs_of(after))
    records = dataset.select("test")
    if len(records) == 0:
        raise ValueError(f"{probe.path} has no test records, on which forgetting is measured: choose another probe")
    after = copy.deepcopy(after)
    set_reference(after, reference_of(before))
    validator = Validator(dataset, context, probe, batch)
    return {
        name: validator.errors(model, records, LossConfig()) for name, model in (("before", before), ("after", after))
    }
