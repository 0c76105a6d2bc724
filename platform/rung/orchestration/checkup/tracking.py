"""Check of MLflow: its server answers, or its database can be written."""

import os
import sqlite3
import urllib.error
import urllib.request
from contextlib import closing
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from rung.config.secrets import redacted
from rung.orchestration.checkup.finding import Finding, Subject, note, ok, problem, refusal
from rung.orchestration.mlflow_sink import check_server, resolve_uri
from rung.orchestration.paths import existing_folder

_ANSWER_SECONDS: Final = 5.0
_SQLITE: Final = "sqlite:///"


def check_mlflow(subject: Subject) -> Finding:
    """Whether MLflow takes metrics: its server answers, or its database can be written."""
    if subject.tracking.kind == "off":
        return ok("off (tracking.kind): metrics go to metrics.jsonl alone")
    try:
        uri = resolve_uri(subject.tracking.uri, subject.storage)
    except ValueError as error:
        return refusal(error, "correct tracking.uri")
    return _database(Path(uri.removeprefix(_SQLITE))) if uri.startswith(_SQLITE) else _server(uri)


def _server(uri: str) -> Finding:
    advice = "start the server, correct tracking.uri (MLFLOW_TRACKING_URI), or set tracking.kind to off"
    try:
        check_server(uri, _ANSWER_SECONDS)
        if uri.startswith(("http://", "https://")):
            parts = urlsplit(uri)  # without its user and password, which urllib takes for a part of the host
            url = parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()
            urllib.request.urlopen(f"{url.rstrip('/')}/health", timeout=_ANSWER_SECONDS).close()  # noqa: S310
    except urllib.error.HTTPError as error:
        if error.code in (401, 403):
            return note(
                f"{redacted(uri)} answers, and asks who you are ({error.code})",
                "set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN",
            )
        return problem(f"{redacted(uri)} answers {error.code} {error.reason}: is it an MLflow server?", advice)
    except OSError as error:
        return problem(f"{redacted(uri)} does not answer ({redacted(str(error.__cause__ or error))})", advice)
    return ok(f"{redacted(uri)} answers") if urlsplit(uri).hostname else note(f"{redacted(uri)} was not tried")


def _database(path: Path) -> Finding:
    """Whether MLflow's own database can be written; it is left as it is."""
    advice = "correct run.storage or tracking.uri, or set tracking.kind to off"
    if not path.exists():
        folder = existing_folder(path)
        if not folder.is_dir() or not os.access(folder, os.W_OK):
            return problem(f"its database {path} cannot be made in {folder}", advice)
        return ok(f"its database {path} will be made")
    try:
        with closing(sqlite3.connect(f"{path.as_uri()}?mode=rw", uri=True, timeout=_ANSWER_SECONDS)) as database:
            database.execute("BEGIN IMMEDIATE")  # takes the lock of a writer
            database.execute("SELECT COUNT(*) FROM sqlite_master")
            database.rollback()
    except sqlite3.Error as error:
        return problem(f"its database {path} cannot be written ({error})", advice)
    return ok(f"its database {path} can be written")
