"""What a person at a terminal sees while a set is prepared."""

import io
import sys

from data_prep.convert import prepare


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_a_terminal_shows_how_far_it_is(raw, config_for, monkeypatch):
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    prepare(config_for(raw))
    last = terminal.getvalue().rstrip().splitlines()[-1].rsplit("\r", 1)[-1]
    assert "100%" in last
    assert "24 kept, 4 rejected" in last
    assert "records/s" in last
    assert "GB" in last


def test_a_log_is_left_alone(raw, config_for, monkeypatch):
    log = io.StringIO()
    monkeypatch.setattr(sys, "stderr", log)
    prepare(config_for(raw))
    assert log.getvalue() == ""
