"""Variables are set for a while."""

import contextlib
import os

from rung.orchestration.environment import environment


def test_variables_are_given_back_whatever_happens(monkeypatch):
    monkeypatch.setenv("RUNG_SET", "before")
    monkeypatch.delenv("RUNG_UNSET", raising=False)
    within = environment({"RUNG_SET": "now", "RUNG_UNSET": "now"}, defaults={"RUNG_OTHER": "default"})
    with contextlib.suppress(RuntimeError), within:
        assert (os.environ["RUNG_SET"], os.environ["RUNG_UNSET"], os.environ["RUNG_OTHER"]) == ("now", "now", "default")
        raise RuntimeError
    assert os.environ["RUNG_SET"] == "before"
    assert not {"RUNG_UNSET", "RUNG_OTHER"} & os.environ.keys()


def test_a_default_gives_way_to_what_is_set(monkeypatch):
    monkeypatch.setenv("RUNG_SET", "before")
    with environment({}, defaults={"RUNG_SET": "default"}):
        assert os.environ["RUNG_SET"] == "before"
