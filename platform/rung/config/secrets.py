"""Passwords and keys that must not be written down: not in logs, configs, checkpoints or MLflow.

They come from the environment or from files of the services they are for. Where one comes by another way, inside the
address of a server or as part of somebody else's error message, it is masked here.
"""

import logging
import os
import re
from collections.abc import Mapping
from typing import Any, Final

MASK: Final = "***"

_IN_URL: Final = re.compile(r"(?<=://)[^/\s@'\"]*@")
_NAMED: Final = re.compile(r"(?:PASSWORD|SECRET|TOKEN|ACCESS_KEY|API_KEY|CREDENTIAL)")
_SHORTEST: Final = 6  # characters of a value that is looked for: shorter ones would mask ordinary words


def redacted(text: str) -> str:
    """The text without the user and password of URLs, and without values of secret environment variables."""
    text = _IN_URL.sub(f"{MASK}@", text)
    for name, value in os.environ.items():
        if _NAMED.search(name.upper()) and len(value) >= _SHORTEST and not os.path.exists(value):  # noqa: PTH110
            text = text.replace(value, MASK)
    return text


def redacted_values(tree: Any) -> Any:
    """A tree of plain values with every text redacted."""
    if isinstance(tree, str):
        return redacted(tree)
    if isinstance(tree, Mapping):
        return {key: redacted_values(value) for key, value in tree.items()}
    if isinstance(tree, list | tuple):
        return [redacted_values(value) for value in tree]
    return tree


class RedactingFormatter(logging.Formatter):
    """Formats log records without secrets, tracebacks included."""

    def format(self, record: logging.LogRecord) -> str:
        """The whole text of a record."""
        return redacted(super().format(record))
