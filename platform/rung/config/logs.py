"""Log lines: text for people, or JSON for machines where RUNG_LOG_FORMAT asks for it; never with secrets."""

import json
import logging
import os
from datetime import UTC, datetime
from typing import Final, TextIO

from rung.config.progress import LiveBar
from rung.config.secrets import RedactingFormatter, redacted

FORMAT_VARIABLE: Final = "RUNG_LOG_FORMAT"
"""Environment variable: `text` (default) or `json`."""

_PACKAGES: Final = ("rung", "data_prep")


class JsonFormatter(logging.Formatter):
    """One JSON object a line: time (UTC), level, logger, message, rank, run and, of an error, its traceback.

    Args:
        rank: of this process.
        run: name of the run; empty before it is known.
    """

    def __init__(self, rank: int, run: str) -> None:
        super().__init__()
        self._about = {"rank": rank} | ({"run": run} if run else {})

    def format(self, record: logging.LogRecord) -> str:
        """The record as one line."""
        line = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "message": redacted(record.getMessage()),
            **self._about,
        }
        if record.exc_info:
            line["traceback"] = redacted(self.formatException(record.exc_info))
        return json.dumps(line, ensure_ascii=False)


class _AboveBars(logging.StreamHandler[TextIO]):
    """Writes to stderr, above the progress bars that stand there."""

    def emit(self, record: logging.LogRecord) -> None:
        """Take the bars away for the moment."""
        with LiveBar.external_write_mode(file=self.stream):
            super().emit(record)


def _worth_a_line(record: logging.LogRecord) -> bool:
    """Leave out what other packages tell of themselves: Ray Train writes a line for every report of every rank."""
    return record.levelno >= logging.WARNING or record.name.partition(".")[0] in _PACKAGES


def configure_logging(rank: int = 0, run: str = "") -> None:
    """Send log lines to stderr: progress of Rung from rank 0, warnings from everyone.

    Args:
        rank: of this process.
        run: name of the run, kept with each line of JSON.

    Raises:
        ValueError: RUNG_LOG_FORMAT names no format.
    """
    form = os.environ.get(FORMAT_VARIABLE) or "text"
    if form not in ("text", "json"):
        raise ValueError(f"{FORMAT_VARIABLE} is {form!r}: set it to text or json, or unset it")
    handler = _AboveBars()
    text = RedactingFormatter("%(asctime)s %(levelname)s %(name)s: %(message)s", datefmt="%H:%M:%S")
    handler.setFormatter(JsonFormatter(rank, run) if form == "json" else text)
    handler.addFilter(_worth_a_line)
    logging.basicConfig(handlers=[handler], force=True)
    for package in _PACKAGES:
        logging.getLogger(package).setLevel(logging.INFO if rank == 0 else logging.WARNING)
