"""The page of a data set says what is in it, what was set aside and why."""

import json
import re
from pathlib import Path

import pytest

from data_prep.convert import prepare
from data_prep.quarantine import restore
from data_prep.report import main, write_report
from rung.data.dataset import read_manifest


@pytest.fixture
def prepared(raw, config_for) -> Path:
    config = config_for(raw)
    prepare(config)
    return Path(config.output)


def test_preparation_writes_it_and_it_can_be_written_again(prepared):
    page = prepared / "report.html"
    before = page.read_bytes()
    assert main([str(prepared)]) == 0
    assert page.read_bytes() == before


def test_it_names_each_reason_with_an_example(prepared):
    text = write_report(prepared).read_text()
    for reason in read_manifest(prepared)[0].counts["rejected"]:
        assert f'<td class="short">{reason}</td>' in text
    assert "isolated" in text
    assert "overlap" in text


def test_its_figures_are_those_of_the_manifest(prepared):
    text = write_report(prepared).read_text()
    manifest, _ = read_manifest(prepared)
    assert f"<dt>records in use</dt><dd>{manifest.counts['kept']}</dd>" in text
    symbols = dict(re.findall(r'data-symbol="(\w+)" data-value="([\d.]+)"', text))
    assert {symbol: int(float(count)) for symbol, count in symbols.items()} == manifest.elements
    drawn = [json.loads(chart) for chart in re.findall(r'<script type="application/json">(.*?)</script>', text)]
    assert any("referenced energy per atom" in chart["csv"] for chart in drawn)


def test_records_put_back_change_it(mptrj_frame, structure, write, config_for):
    content = {f"mp-{n}": {"f": mptrj_frame(structure=structure(edge=4 + 0.02 * n))} for n in range(8)}
    content["mp-7"]["f"]["force"] = [[16_657.0, 0, 0], [0, 0, 0]]
    config = config_for(write(content))
    prepare(config)
    page = Path(config.output) / "report.html"
    assert "16,657.0 eV/Å" in page.read_text()
    restore(Path(config.output), [7])
    assert "Nothing was set aside" in page.read_text()


def test_a_set_without_energies_has_a_page(mptrj_frame, structure, write, config_for):
    bare = dict.fromkeys(("uncorrected_total_energy", "corrected_total_energy", "energy_per_atom", "magmom"))
    content = {f"mp-{n}": {"f": mptrj_frame(structure=structure(edge=4 + 0.02 * n), **bare)} for n in range(4)}
    config = config_for(write(content))
    prepare(config)
    text = (Path(config.output) / "report.html").read_text()
    assert "No record has an energy." in text
    assert "No record has magmoms other than zero." in text


def test_no_data_set(tmp_path, capsys):
    assert main([str(tmp_path)]) == 2
    assert "is no prepared data set" in capsys.readouterr().err
