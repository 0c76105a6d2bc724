"""Whatever JSON stands in a record, reading it gives a record or a rejection, never another exception."""

import copy
import json

import pytest

from data_prep.sources.base import ParsedFrame, RawFrame, Rejection
from data_prep.sources.matpes import MatpesParser
from data_prep.sources.mptrj import MptrjParser

JUNK = [
    None,
    True,
    0,
    -1,
    1e400,
    1e30,
    float("nan"),
    "",
    "text",
    [],
    {},
    [1],
    [[1]],
    [None],
    ["x"],
    {"a": 1},
    [[]],
    [{}],
]


def places(value, path=()):
    """Every place in a JSON document."""
    yield path
    children = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, child in children:
        yield from places(child, (*path, key))


def replaced(document, path, junk):
    document = copy.deepcopy(document)
    *parents, last = path
    target = document
    for key in parents:
        target = target[key]
    target[last] = junk
    return document


@pytest.mark.parametrize("kind", ["mptrj", "matpes"])
def test_junk_anywhere(kind, mptrj_frame, matpes_record):
    whole = mptrj_frame() if kind == "mptrj" else matpes_record()
    parser = MptrjParser("test", "GGA", "corrected") if kind == "mptrj" else MatpesParser("test", None)
    for path in list(places(whole))[1:]:
        for junk in JUNK:
            payload = json.dumps(replaced(whole, path, junk)).encode()
            (outcome,) = parser([RawFrame(("mp-1", "f"), 0, payload)])
            assert isinstance(outcome, ParsedFrame | Rejection)


@pytest.mark.parametrize("payload", [b"", b"{", b"nul", b"\xff\xfe", b'{"structure": "\xff"}', b"[" * 100_000])
def test_bytes_that_are_no_object(payload):
    for parser in (MptrjParser("test", "GGA", "corrected"), MatpesParser("test", None)):
        (outcome,) = parser([RawFrame(("mp-1", "f"), 0, payload)])
        assert isinstance(outcome, Rejection)
