"""Older formats of a run's state, brought to the present one by one function per version."""

from collections.abc import Callable
from typing import Any, Final

_State = dict[str, Any]


def _from_version_1(state: _State) -> _State:
    """Version 2 keeps what the run has been through, which epochs are closed, and a second functional's own weights.

    A checkpoint at the end of an epoch was only ever written after its validation, so the epochs before it are closed.
    """
    new = {"closed_epochs": None, "rate_factor": 1.0, "rewinds": 0, "skipped": 0, "budget_factor": 1.0}
    return {**state, "replay": None, "progress": {**state["progress"], **new, "left_out_shards": [], "changes": []}}


def _from_version_2(state: _State) -> _State:
    """Version 3 holds the same, packed (`rung.training.packing`)."""
    return state


def _from_version_3(state: _State) -> _State:
    """Version 4 averages a second functional's own weights too, here from what they were trained to on."""
    average, own = state["average"], state["replay"]
    if not average or not own:
        return state
    more = {f"replay.{name}": value for name, value in own.items()}
    return {**state, "average": {**average, "average": {**average["average"], **more}}}


PACKED_SINCE: Final = 3
"""Version from which on a file holds a packed state."""

_UPGRADES: Final[tuple[Callable[[_State], _State], ...]] = (_from_version_1, _from_version_2, _from_version_3)
"""The function at place n leads from version n + 1 to n + 2."""

FORMAT_VERSION: Final = len(_UPGRADES) + 1
"""Of the states that are written now."""


def upgraded(state: _State, version: int) -> _State:
    """The state, of a version from 1 on, in the present format."""
    for upgrade in _UPGRADES[version - 1 :]:
        state = upgrade(state)
    return state
