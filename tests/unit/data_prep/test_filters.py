"""What is set aside by looking at one record alone: one reason each, with what was found and the key that decides."""

import pytest

from data_prep.filters import reasons_text, refusal
from data_prep.sources.base import ParsedFrame
from rung.config.preparation import FilterConfig
from rung.data.record import Reason
from rung.data.shard import ShardEntry
from tests.unit.data.samples import CUTOFFS, random_record


@pytest.fixture
def judge():
    def make(filters=None, *, functional="GGA", **said):
        record = random_record(3, functional=functional)
        found = refusal(
            ParsedFrame(record, "energy", **said), ShardEntry.of(record, CUTOFFS).row, FilterConfig(**(filters or {}))
        )
        return found and found[0]

    return make


def test_nothing_is_wrong(judge):
    assert judge(converged=True, task_type="static", hubbard_u=False) is None
    assert judge() is None  # a source that does not say


@pytest.mark.parametrize(
    ("filters", "said", "reason"),
    [
        ({}, {"converged": False}, Reason.UNCONVERGED),
        ({"unconverged": "keep"}, {"converged": False}, None),
        ({}, {"task_type": "nscf line"}, Reason.TASK_TYPE),
        ({}, {"task_type": "dfpt dielectric", "converged": False}, Reason.TASK_TYPE),
        ({}, {"task_type": "deformation"}, None),
        ({"task_types": ("Deformation",)}, {"task_type": "deformation"}, Reason.TASK_TYPE),
        ({"task_types": ()}, {"task_type": "nscf line"}, None),
        ({"functionals": ("GGA", "GGA+U")}, {"functional": "GGA+U"}, None),
        ({"functionals": ("GGA", "GGA+U")}, {"functional": "r2SCAN"}, Reason.WRONG_FUNCTIONAL),
        ({"hubbard_u": "reject"}, {"functional": "GGA+U"}, Reason.HUBBARD_U),
        ({"hubbard_u": "reject"}, {"hubbard_u": True}, Reason.HUBBARD_U),
        ({"hubbard_u": "reject"}, {"hubbard_u": False}, None),
        ({"max_atoms": 1}, {}, Reason.TOO_LARGE),
        ({"max_bonds": 1}, {}, Reason.TOO_LARGE),
        ({"max_angles": 1}, {}, Reason.TOO_LARGE),
        ({"max_atoms": 1000, "max_bonds": 10**6, "max_angles": 10**6}, {}, None),
    ],
)
def test_each_filter(judge, filters, said, reason):
    assert judge(filters, **said) == reason


def test_most_frequent_reason_first():
    assert reasons_text({"duplicate": 2, "no_label": 1_000}) == "no_label 1,000, duplicate 2"
    assert reasons_text({}) == "none"
