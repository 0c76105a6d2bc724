"""What a person at a terminal sees while a set is prepared."""

import io
import re
import time
from functools import partial

import pytest

import rung.config.progress
from data_prep import progress
from data_prep.convert import prepare
from data_prep.progress import Progress
from rung.config.progress import LiveBar


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture(autouse=True)
def _wide(monkeypatch):
    monkeypatch.setenv("COLUMNS", "160")  # room for what stands behind the bar


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
    assert re.search(r"/s, \d+\.\d GB", last)


def test_a_log_is_left_alone(shown):
    assert shown(io.StringIO()) == ""


class Input:
    """Ten thousand bytes in a hundred items."""

    def __init__(self):
        self.read = 0

    def items(self):
        for _ in range(100):
            self.read += 100
            yield self.read

    def position(self):
        return self.read, 10_000, "B"


def test_the_bar_shows_what_is_done_and_not_what_is_read(monkeypatch):
    stream = Terminal()
    monkeypatch.setattr(progress, "LiveBar", partial(LiveBar, file=stream))
    source = Input()
    with Progress("prepare", source.position, lambda: "all well") as shown:
        chunks = list(shown.chunks(source.items(), 10, skip=20))
        assert [len(chunk) for chunk in chunks] == [10] * 8
        for _ in shown.counted(item for chunk in chunks[:3] for item in chunk[:9]):
            pass
    last = stream.getvalue().rstrip().rsplit("\r", 1)[-1]
    assert "40%" in last, "20 items of an earlier start and two chunks; of the third, an item is left"
    assert (shown.skipped, shown.done) == (20, 27)
    assert "all well, " in last


def test_what_an_earlier_start_has_done_is_shown_as_it_is_read(monkeypatch):
    monkeypatch.setattr(rung.config.progress, "_TICK", 0.01)
    stream = Terminal()
    monkeypatch.setattr(progress, "LiveBar", partial(LiveBar, file=stream))
    source = Input()

    def slow():
        for item in source.items():
            deadline = time.monotonic() + 20
            while source.read == 5_000 and "50%" not in stream.getvalue():
                assert time.monotonic() < deadline
                time.sleep(0.005)
            yield item

    with Progress("prepare", source.position, lambda: "") as shown:
        assert len(list(shown.chunks(slow(), 10, skip=90))) == 1
