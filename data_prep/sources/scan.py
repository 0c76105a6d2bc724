"""Cuts a large JSON text into the bytes of its records without parsing them.

A record is a value at a known depth: `{mp_id: {frame_id: frame}}` has its frames at depth 2, a list of records
has them at depth 1, JSON lines at depth 0. Only brackets and quotes are looked at, a block at a time with numpy:
140 MB/s on a core where a streaming parser (ijson on yajl) makes objects at 30 MB/s. Parsing is left to whoever gets
the bytes, on another core if there is one, and a record that is not valid JSON (a bare NaN, which yajl gives the whole
file up for) spoils itself alone.
"""

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np

from data_prep.sources.raw_file import BrokenFileError

BLOCK: Final = 1 << 19
"""Bytes read at once. Larger blocks leave the cache and are slower."""

LARGEST_VALUE: Final = 1 << 29
"""Bytes after which a value without an end is taken for damage (the largest frames known are below 1 MB)."""

_OPEN: Final = 1
_CLOSE: Final = 2
_QUOTE: Final = 3
_KIND: Final = np.zeros(256, dtype=np.uint8)
_KIND[list(b"[{")] = _OPEN
_KIND[list(b"]}")] = _CLOSE
_KIND[list(b'"')] = _QUOTE
_CLOSER_OF: Final = {ord("{"): ord("}"), ord("["): ord("]")}

_BOM: Final = b"\xef\xbb\xbf"
_ESCAPED: Final = re.compile(rb"\\.", re.DOTALL)
_STRING: Final = rb'"(?:[^"\\]|\\.)*"'
_QUOTED: Final = re.compile(_STRING, re.DOTALL)
_SPACE: Final = rb"[ \t\r\n]*"
_LEAD: Final = re.compile(
    _SPACE + rb"(,?)" + _SPACE + rb"(?:(" + _STRING + rb")" + _SPACE + rb":)?" + _SPACE, re.DOTALL
)
_SCALAR: Final = re.compile(_STRING + rb"|[^\s,:{}\[\]\"]+", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Span:
    """One value of the text.

    Attributes:
        path: the keys (or positions in lists) that lead to it, outermost first.
        start: position of its first byte in the decompressed text.
        data: its bytes.
    """

    path: tuple[str, ...]
    start: int
    data: bytes


@dataclass(slots=True)
class _Container:
    """An open container above the records: its bracket, its key, and how many values it has had."""

    opener: int
    key: str
    num_values: int = 0


class Scanner:
    """Finds the values at one depth of a JSON text; scalars above that depth are handed out with their shorter path.

    Args:
        read: returns up to n more bytes; empty at the end.
        depth: how many containers surround a record.
        name: what to call the text in errors.
    """

    def __init__(self, read: Callable[[int], bytes], depth: int, name: str) -> None:
        self._read = read
        self._depth = depth
        self._name = name
        self._open: list[_Container] = []
        self._root = _Container(opener=0, key="")  # the text itself: holds one value, or lines of them
        self._buffer = b""
        self._start = 0  # position of the buffer in the text

    def __iter__(self) -> Iterator[Span]:
        """Yield every value, in the order of the text.

        Raises:
            BrokenFileError: the text is not JSON, or ends inside a container.
        """
        # A value longer than the buffer is scanned again from its start, so the buffer doubles until it fits.
        while block := self._read(max(BLOCK, len(self._buffer))):
            self._buffer += block
            if not self._root.num_values:
                self._check_beginning()
            yield from self._values()
            if len(self._buffer) > LARGEST_VALUE:
                raise self._broken(0, f"a value has no end within {LARGEST_VALUE >> 20} MiB; the file is damaged here")
        if self._open or self._buffer.strip():
            raise self._broken(len(self._buffer), "the text ends inside a value; the file is cut short")

    def _check_beginning(self) -> None:
        text = self._buffer.removeprefix(_BOM).lstrip()
        if text and text[:1] not in (b"{", b"["):
            raise self._broken(0, f"not JSON: it begins with {text[:30]!r}, and a data set begins with {{ or [")
        self._start += len(self._buffer) - len(text)
        self._buffer = text

    def _values(self) -> Iterator[Span]:
        """Yield the values that are complete in the buffer, and drop them from it."""
        brackets = _shallow_brackets(self._buffer, len(self._open), self._depth)
        cursor = 0
        last = len(brackets) - 1
        for index, position in enumerate(brackets):
            if position < cursor:
                continue  # closes a record that was handed out with its opening bracket
            closes = self._buffer[position] in b"]}"
            is_record = not closes and len(self._open) == self._depth
            if is_record and index == last:
                break  # not complete yet
            scalars, key = self._between(cursor, position, is_end=closes)
            yield from scalars
            cursor = position + 1
            if is_record:
                cursor = brackets[index + 1] + 1
                yield Span(self._path(key), self._start + position, self._buffer[position:cursor])
            elif closes:
                self._close(position)
            else:
                self._open.append(_Container(self._buffer[position], key))
        self._buffer = self._buffer[cursor:]
        self._start += cursor

    def _between(self, start: int, end: int, *, is_end: bool) -> tuple[list[Span], str]:
        """Read what stands between two brackets: scalars with their keys, then the key of the value that follows."""
        container = self._open[-1] if self._open else self._root
        scalars: list[Span] = []
        while True:
            lead = _LEAD.match(self._buffer, start, end)
            assert lead is not None  # noqa: S101 - every part of the pattern is optional
            comma, quoted = lead.groups()
            position = lead.end()
            if position == end and is_end and not comma and quoted is None:
                return scalars, ""
            if bool(comma) != bool(self._open and container.num_values) or (quoted is None) == (
                container.opener == ord("{")
            ):
                raise self._broken(
                    start, f"not JSON: found {self._buffer[start : min(end, start + 40)]!r} between two values"
                )
            key = json.loads(quoted) if quoted else str(container.num_values)
            container.num_values += 1
            if position == end and not is_end:
                return scalars, key
            scalar = _SCALAR.match(self._buffer, position, end)
            if scalar is None or not self._open:
                raise self._broken(position, f"not JSON: found {self._buffer[position : position + 40]!r}, not a value")
            scalars.append(Span(self._path(key), self._start + position, scalar.group()))
            start = scalar.end()

    def _path(self, key: str) -> tuple[str, ...]:
        # The outermost container is the text's only value and has no key of its own.
        return (*(container.key for container in self._open[1:]), key)

    def _close(self, position: int) -> None:
        bracket = self._buffer[position]
        if not self._open or _CLOSER_OF[self._open[-1].opener] != bracket:
            raise self._broken(position, f"not JSON: {chr(bracket)!r} closes nothing that is open")
        self._open.pop()

    def _broken(self, position: int, what: str) -> BrokenFileError:
        keys = " > ".join(container.key for container in self._open[1:])
        inside = f", inside {keys}" if keys else ""
        return BrokenFileError(f"{self._name}, byte {self._start + position:,}{inside}: {what}")


def open_brackets(text: bytes) -> int:
    """How many brackets are open at the end of a JSON text; those in strings are none."""
    bare = _QUOTED.sub(b"", text)
    return sum(map(bare.count, (b"{", b"["))) - sum(map(bare.count, (b"}", b"]")))


def _shallow_brackets(buffer: bytes, level: int, depth: int) -> list[int]:
    """Positions of the brackets of values that have at most `depth` containers around them.

    Args:
        buffer: JSON text that begins outside any string.
        level: number of containers open at its beginning.
        depth: the greatest number of containers around a value of interest.
    """
    kinds = np.take(_KIND, np.frombuffer(buffer, dtype=np.uint8))
    positions = np.flatnonzero(kinds)
    if b"\\" in buffer:
        escaped = [match.end() - 1 for match in _ESCAPED.finditer(buffer)]
        positions = positions[~np.isin(positions, escaped)]
    kinds = kinds[positions]
    is_quote = kinds == _QUOTE
    in_string = np.cumsum(is_quote, dtype=np.int64) & 1
    is_bracket = ~is_quote & (in_string == 0)
    positions, kinds = positions[is_bracket], kinds[is_bracket]
    opens = kinds == _OPEN
    # After an opening bracket the level counts the value itself, after its closing bracket it does not.
    around = level + np.cumsum(np.where(opens, 1, -1)) - opens
    return positions[around <= depth].tolist()
