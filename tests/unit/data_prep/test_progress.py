"""What a person at a terminal sees while a set is prepared."""

import io
from functools import partial

import pytest

from data_prep import progress
from data_prep.convert import prepare
from rung.config.progress import LiveBar


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture
def shown(raw, config_for, monkeypatch):
    """Prepare a set with a bar on a stream, and return what the stream got."""

    def prepared(stream):
        monkeypatch.setattr(progress, "LiveBar", partial(LiveBar, file=stream))
        prepare(config_for(raw))
        return stream.getvalue()

    return prepared


def test_a_terminal_shows_how_far_it_is(shown):
    last = shown(Terminal()).rstrip().rsplit("\r", 1)[-1]
    assert "100%" in last
    assert "24 kept, 4 rejected" in last
    assert "records/s" in last
    assert "GB" in last


def test_a_log_is_left_alone(shown):
    assert shown(io.StringIO()) == ""
