"""Task documents straight from the Materials Project, by its own client (the optional extra `rung[mp]`).

Materials are asked for by id or by elements; their tasks come in pieces of a few at a time. The key is read from
MP_API_KEY alone, so that it is never written into a config, a manifest or a log.
"""

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from hashlib import sha256
from typing import Any, Final

from data_prep.sources.base import RawFrame
from data_prep.sources.json_file import JSON_CHUNK
from data_prep.sources.mp_api.cut import cut_document
from data_prep.sources.mp_api.documents import document_parser
from data_prep.sources.raw_file import BrokenFileError
from rung.config.preparation import MaterialsProjectConfig, SourceConfig

_KEY: Final = "MP_API_KEY"
_TASKS_AT_ONCE: Final = 20
"""Task documents of one answer: a large one has some 10 MB."""

_FIELDS: Final = ["task_id", "task_type", "run_type", "calcs_reversed", "input", "last_updated"]


class LiveTasks:
    """Streams the ionic steps of the tasks of some materials, in the order of their ids.

    Args:
        config: of the source.
        name: of the data set.
        client: an open `mp_api.client.MPRester`.

    Raises:
        BrokenFileError: the project does not answer, or has no tasks of these materials.
    """

    chunk = JSON_CHUNK

    def __init__(self, config: SourceConfig, name: str, client: Any) -> None:
        self.name = name
        self.parser = document_parser(config, name)
        self._client = client
        self._tasks = _tasks(client, config.mp)
        self._done = 0
        self._hash = sha256()

    def frames(self) -> Iterator[RawFrame]:
        """Ask for the tasks, a few at a time, and cut them into steps."""
        position = 0
        for start in range(0, len(self._tasks), _TASKS_AT_ONCE):
            wanted = dict(self._tasks[start : start + _TASKS_AT_ONCE])
            found = {str(document["task_id"]): document for document in self._ask(list(wanted))}
            for task, material in wanted.items():
                document = {**found.get(task, {}), "task_id": task, "material_id": material}
                payload = json.dumps(document, default=str).encode()
                self._hash.update(payload)
                for frame in cut_document(RawFrame((task,), 0, payload)):
                    yield RawFrame(frame.path, position, frame.payload)
                    position += 1
                self._done += 1

    def identity(self) -> dict[str, Any]:
        """The tasks, and the version of the database that they are read from."""
        return {"database_version": self._version(), "tasks": self._tasks}

    def progress(self) -> tuple[int, int, str]:
        """Tasks read, tasks in all, unit."""
        return self._done, len(self._tasks), "tasks"

    def facts(self) -> dict[str, Any]:
        """Version of the database, number of tasks, and the hash of what was read."""
        return {"sha256": self._hash.hexdigest(), "database_version": self._version(), "tasks": len(self._tasks)}

    def close(self) -> None:
        """End the session."""
        self._client.__exit__(None, None, None)

    def _version(self) -> str:
        return str(_asked(self._client.get_database_version))

    def _ask(self, tasks: Sequence[str]) -> list[Mapping[str, Any]]:
        found = _asked(self._client.materials.tasks.search, task_ids=list(tasks), fields=_FIELDS)
        return [_plain(document) for document in found]


def open_live(config: SourceConfig, name: str) -> LiveTasks:
    """Connect to the Materials Project.

    Raises:
        BrokenFileError: the client is not installed, there is no key, or the project does not answer.
    """
    try:
        from mp_api.client import MPRester  # noqa: PLC0415 # pyright: ignore[reportMissingImports] - an optional extra
    except ImportError as error:
        raise BrokenFileError(
            "source.kind mp_api without source.path asks the Materials Project, which needs its client: pip install"
            " 'mp-api>=0.45' (or Rung's extra mp), or set source.path to files of task documents"
        ) from error
    if not os.environ.get(_KEY):
        raise BrokenFileError(f"the environment variable {_KEY} is not set: the Materials Project gives you a key")
    return LiveTasks(config, name, _asked(MPRester, use_document_model=False, mute_progress_bars=True))


def _tasks(client: Any, wanted: MaterialsProjectConfig) -> list[tuple[str, str]]:
    """Task and material ids, in a fixed order."""
    fields = ["material_id", "task_ids", "deprecated_tasks"]
    search = client.materials.search
    found: list[Any] = []
    if wanted.material_ids:
        found += _asked(search, material_ids=list(wanted.material_ids), fields=fields)
    if wanted.chemical_systems:
        found += _asked(search, chemsys=list(wanted.chemical_systems), fields=fields)
    pairs = set[tuple[str, str]]()
    for document in map(_plain, found):
        retired = set(map(str, document.get("deprecated_tasks") or ()))
        material = str(document["material_id"])
        pairs |= {(str(task), material) for task in document.get("task_ids") or () if str(task) not in retired}
    if not pairs:
        raise BrokenFileError(
            "the Materials Project has no tasks for source.mp.material_ids"
            f" {list(wanted.material_ids)} or source.mp.chemical_systems {list(wanted.chemical_systems)}"
        )
    return sorted(pairs, key=lambda pair: (pair[1], pair[0]))


def _plain(document: Any) -> dict[str, Any]:
    return document if isinstance(document, dict) else document.model_dump(mode="json")


def _asked(call: Any, **arguments: Any) -> Any:
    """What the client answers. Its errors, and those of the network below it, are of many kinds."""
    try:
        return call(**arguments)
    except Exception as error:
        raise BrokenFileError(f"the Materials Project did not answer: {error!r:.300}") from error
