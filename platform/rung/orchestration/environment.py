"""Environment variables that are given back, so that a process which runs several things is not changed by one."""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager


@contextmanager
def environment(values: Mapping[str, str], *, defaults: Mapping[str, str] | None = None) -> Iterator[None]:
    """Set variables, and take them back afterwards.

    Args:
        values: whatever is set now.
        defaults: only where nothing is set now.
    """
    wanted = {name: os.environ.get(name, value) for name, value in (defaults or {}).items()} | dict(values)
    before = {name: os.environ.get(name) for name in wanted}
    os.environ.update(wanted)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
