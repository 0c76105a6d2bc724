"""The scanner agrees with a real JSON parser, wherever the blocks end, and refuses what is not whole."""

import io
import json
import random

import pytest

from data_prep.sources import scan
from data_prep.sources.raw_file import BrokenFileError
from data_prep.sources.scan import Scanner

NESTED = {
    "mp-1": {"a-0": {"x": [1, [2, {"deep": "}"}]], "s": 'quote " and \\ and \\" and ]'}, "a-1": {}},
    'odd "key" {': {"b-0": {"t": "\n\t", "u": "Å"}},
    "empty": {},
    "mp-2": {"c-0": {"y": -1.5e-7}, "c-1": {"z": None}},
}


def spans(text: str | bytes, depth: int) -> list[scan.Span]:
    data = text if isinstance(text, bytes) else text.encode()
    return list(Scanner(io.BytesIO(data).read, depth, "file"))


def as_json(text: str | bytes, depth: int) -> list[tuple[tuple[str, ...], object]]:
    return [(span.path, json.loads(span.data)) for span in spans(text, depth)]


def nested_items() -> list[tuple[tuple[str, ...], object]]:
    return [((outer, inner), value) for outer, frames in NESTED.items() for inner, value in frames.items()]


@pytest.mark.parametrize("block", [1, 2, 3, 5, 16, 1 << 20])
@pytest.mark.parametrize("indent", [None, 2])
def test_agrees_with_a_parser_whatever_the_blocks(monkeypatch, block, indent):
    monkeypatch.setattr(scan, "BLOCK", block)
    for ensure_ascii in (True, False):
        assert as_json(json.dumps(NESTED, indent=indent, ensure_ascii=ensure_ascii), 2) == nested_items()


def test_positions_are_bytes_of_the_text():
    text = "\ufeff  " + json.dumps(NESTED, ensure_ascii=False)
    data = text.encode()
    for span in spans(data, 2):
        assert data[span.start :].startswith(span.data)


def test_list_of_records_at_depth_one():
    assert as_json('[{"a": 1}, {"b": [2]}]', 1) == [(("0",), {"a": 1}), (("1",), {"b": [2]})]


def test_lines_of_records_at_depth_zero():
    assert as_json('{"a": 1}\n{"b": "{"}\n\n{"c": []}\n', 0) == [
        (("0",), {"a": 1}),
        (("1",), {"b": "{"}),
        (("2",), {"c": []}),
    ]


def test_scalars_in_place_of_records_are_handed_out():
    text = '{"a": null, "b": {"x": 1.5, "y": {"z": 2}, "w": "t, {"}, "c": true}'
    assert as_json(text, 2) == [
        (("a",), None),
        (("b", "x"), 1.5),
        (("b", "y"), {"z": 2}),
        (("b", "w"), "t, {"),
        (("c",), True),
    ]


def test_bare_nan_stays_inside_its_record():
    found = spans('{"a": {"f": NaN}, "b": {"f": 1}}', 1)
    assert [span.data for span in found] == [b'{"f": NaN}', b'{"f": 1}']


def test_cut_anywhere_is_an_error():
    whole = json.dumps({"mp-1": {"f-0": {"s": "a\\b", "x": [1]}}}).encode()
    for length in range(1, len(whole)):
        with pytest.raises(BrokenFileError, match="cut short"):
            spans(whole[:length], 2)


def test_error_says_where():
    with pytest.raises(BrokenFileError, match=r"file, byte 33, inside mp-7: .* cut short"):
        spans('{"mp-1": {"f": {}}, "mp-7": {"g":', 2)


@pytest.mark.parametrize(
    "text",
    [
        "not json at all",
        "<html></html>",
        '"only a text"',
        "42",
        '{"a": {} "b": {}}',
        '{"a": {},, "b": {}}',
        '{"a": {},}',
        '{"a" {}}',
        "{{}}",
        '["a": {}]',
        '{"a": {}]',
        "[{}}",
        "{}{}}",
        '{"a": {}} trailing',
    ],
)
def test_not_json_is_an_error(text):
    with pytest.raises(BrokenFileError):
        spans(text, 1)


def test_a_value_without_end_does_not_fill_the_memory(monkeypatch):
    monkeypatch.setattr(scan, "LARGEST_VALUE", 1000)
    monkeypatch.setattr(scan, "BLOCK", 100)
    with pytest.raises(BrokenFileError, match="no end"):
        spans('{"a": {"b": "' + "x" * 5000, 1)


def test_random_documents():
    rng = random.Random(0)

    def value(depth: int) -> object:
        kind = rng.random()
        if depth == 0 or kind < 0.3:
            return rng.choice([1, -2.5, None, True, "", '"', "\\", "[{", 'a"b\\\\', "é"])
        if kind < 0.6:
            return [value(depth - 1) for _ in range(rng.randrange(3))]
        return {f"k{i}\\": value(depth - 1) for i in range(rng.randrange(3))}

    for _ in range(50):
        document = {f"key {i}": value(4) for i in range(4)}
        assert as_json(json.dumps(document), 1) == [((key,), item) for key, item in document.items()]
