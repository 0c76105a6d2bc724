"""What the manifest counts."""

from collections import Counter

import numpy as np
import pytest

from data_prep.convert import prepare
from data_prep.facts import FactsTable
from data_prep.finish import decide_again
from data_prep.tally import tally
from rung.config.preparation import SplitConfig
from rung.data.dataset import ShardDataset


@pytest.fixture
def prepared(mptrj_frame, structure, write, config_for):
    """Eight frames of one material each; the energies fall, and one of them is absurd."""
    energies = [-4.0 - 0.1 * number for number in range(7)] + [600.0]
    content = {
        f"mp-{number}": {"f": mptrj_frame(structure=structure(edge=4.0 + 0.02 * number), energy_per_atom=energy)}
        for number, energy in enumerate(energies)
    }
    config = config_for(write(content))
    prepare(config)
    return ShardDataset(config.output)


def test_statistics_are_those_of_the_records_in_use(prepared):
    facts = FactsTable.load(prepared.path, [shard.name for shard in prepared.manifest.shards])
    decision = decide_again(prepared.manifest, prepared.index, facts)
    counted = tally(prepared.index, facts, decision, Counter({"energy_outlier": 1}), SplitConfig())
    assert counted["counts"] == {"read": 8, "stored": 8, "kept": 7, "rejected": {"energy_outlier": 1}}
    energy, values = counted["labels"]["energy"], -4.0 - 0.1 * np.arange(7)
    assert energy["records"] == 7
    assert energy["mean"] == pytest.approx(values.mean())
    assert energy["std"] == pytest.approx(values.std())
    assert (energy["min_record"], energy["max_record"]) == ("mp-6/f", "mp-0/f")
    assert counted["elements"] == {"Na": 7, "Cl": 7}
    assert sum(counted["split"]["materials"].values()) == 7
    assert counted["references"]["GGA"]["num_records"] == counted["split"]["records"]["train"]
