import io
import multiprocessing
import sys
import time

import pytest

from rung.config import progress
from rung.config.progress import followed, progress_bar, told_to, waiting


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture(autouse=True)
def _at_once(monkeypatch):
    monkeypatch.setattr(progress, "_SHOWN_AFTER", 0.0)
    monkeypatch.setattr(progress, "_TICK", 0.02)


def on_a_terminal(monkeypatch):
    """Called in the test itself: pytest changes stderr after the fixtures."""
    monkeypatch.setattr(sys, "stderr", Terminal())
    return sys.stderr


def work(parts):
    with followed("evaluating", sum(parts), "structure") as advance:
        for part in parts:
            advance(part)


def test_a_bar_on_a_terminal_says_what_is_done_and_goes_in_the_end(monkeypatch):
    terminal = on_a_terminal(monkeypatch)
    work([3, 4])
    shown = terminal.getvalue()
    assert "evaluating:   0%|" in shown
    assert "0/7 [00:00<?, ? structures/s]" in shown
    assert shown.rsplit("\r", 2)[1].strip() == ""


def test_work_that_is_short_is_not_worth_a_bar(monkeypatch):
    terminal = on_a_terminal(monkeypatch)
    monkeypatch.setattr(progress, "_SHOWN_AFTER", 60.0)
    work([3, 4])
    assert terminal.getvalue() == ""


def test_nothing_is_shown_where_there_is_no_terminal(monkeypatch):
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    work([3, 4])
    assert sys.stderr.getvalue() == ""


def test_a_listener_hears_of_it_instead(monkeypatch):
    terminal = on_a_terminal(monkeypatch)
    heard = []
    with told_to(lambda *news: heard.append(news)):
        work([3, 4])
    work([1])
    assert heard == [
        ("evaluating", 3, 7, "structure"),
        ("evaluating", 7, 7, "structure"),
        ("evaluating", 7, 7, "structure"),
    ]
    assert "/7" not in terminal.getvalue()


def test_work_that_fails_is_no_longer_under_way():
    heard = []
    with pytest.raises(OSError, match="gone"), told_to(lambda *news: heard.append(news)):
        fail_in(followed("staging", 9, "B"))
    assert heard == [("staging", 2, 9, "B"), ("staging", 9, 9, "B")]


def fail_in(following):
    with following as advance:
        advance(2)
        raise OSError("gone")


def test_bytes_are_counted_in_thousands(monkeypatch):
    terminal = on_a_terminal(monkeypatch)
    with progress_bar("staging", 3_000_000, "B", done=1_500_000):
        pass
    assert "1.50M/3.00M" in terminal.getvalue()


def test_the_clock_of_a_bar_goes_on_while_nothing_is_done(monkeypatch):
    terminal = on_a_terminal(monkeypatch)
    bar = progress_bar("evaluating", 7, "structure")
    until(lambda: terminal.getvalue().count("0/7") > 3)
    bar.close()
    assert terminal.getvalue().rsplit("\r", 2)[1].strip() == ""
    shown = terminal.getvalue()
    time.sleep(0.1)
    assert terminal.getvalue() == shown


def test_a_bar_that_only_the_clock_has_drawn_goes_too(monkeypatch):
    terminal = on_a_terminal(monkeypatch)
    bar = progress_bar("evaluating", 7, "structure", delay=0.05)
    assert terminal.getvalue() == ""
    until(lambda: "0/7" in terminal.getvalue())
    bar.close()
    assert terminal.getvalue().rsplit("\r", 2)[1].strip() == ""


def test_a_worker_process_shows_nothing(monkeypatch):
    terminal = on_a_terminal(monkeypatch)
    monkeypatch.setattr(progress, "parent_process", multiprocessing.current_process)
    work([3, 4])
    assert terminal.getvalue() == ""


def test_what_cannot_be_counted_is_shown_by_its_time(monkeypatch):
    terminal = on_a_terminal(monkeypatch)
    with waiting("starting", 10.0):
        until(lambda: "90%" in terminal.getvalue())
        time.sleep(0.1)
    shown = terminal.getvalue()
    assert "00:00, usually 10 s" in shown
    assert "100%" not in shown, "it stays short of its end while it is not over"


def test_a_listener_hears_how_long_it_takes(monkeypatch):
    heard = []
    with told_to(lambda *news: heard.append(news)), waiting("starting", 3.4):
        until(lambda: len(heard) == 2)
    assert heard == [("starting", done, 3, "second") for done in (1, 2, 3)]


def until(shown):
    deadline = time.monotonic() + 30
    while not shown():
        assert time.monotonic() < deadline
        time.sleep(0.005)
