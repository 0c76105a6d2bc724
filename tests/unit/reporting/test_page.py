"""A page is one file that needs nothing else, says what it was given, and runs no script but its own."""

import base64
import hashlib
import re

import pytest

from rung.reporting.chart import Axis
from rung.reporting.page import Page
from rung.reporting.plots import Points, scatter
from rung.reporting.table import Column

HOSTILE = '</script><script>alert("x")</script><img src=x onerror=alert(1)>'


def page_with_everything(name: str = "Fe2O3") -> Page:
    page = Page(f"Data set {name}", f"of {name}")
    section = page.section("Energies")
    section.text(name).note(name).tiles({name: "1 eV"})
    section.table([Column("name"), Column("energy", "eV")], [[name, -1.5], ["NaCl", None]], f"Energies of {name}")
    section.periodic_table({"Fe": 3.0, "O": 12.0}, Axis("records", log=True), name)
    points = Points([1.0, 2.0], [3.0, 4.0], [name, "NaCl"])
    section.figure(scatter({name: points}, Axis("label", "eV"), Axis("prediction", "eV")), f"Of {name}")
    page.section("Energies").text("a second section of the same title")
    return page


def test_it_is_written_whole_and_the_same_each_time(tmp_path):
    for name in ("a.html", "b.html"):
        page_with_everything().write(tmp_path / name)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.html", "b.html"]
    assert (tmp_path / "a.html").read_bytes() == (tmp_path / "b.html").read_bytes()


def test_it_loads_nothing():
    text = page_with_everything().html()
    outside = re.sub(r'<script id="library">.*?</script>', "", text, flags=re.DOTALL)
    assert not re.findall(r"""(?:src|href)=["'](?!#)""", outside)
    assert "default-src 'none'" in outside


def test_text_from_data_stays_text():
    text = page_with_everything(HOSTILE).html()
    assert "<img" not in text
    assert 'alert("x")</script>' not in text
    assert text.count("<script") == page_with_everything("NaCl").html().count("<script")


def test_the_policy_allows_the_scripts_that_are_there():
    text = page_with_everything().html()
    scripts = re.findall(r"""<script(?: id="library")?>(.*?)</script>""", text, flags=re.DOTALL)
    assert len(scripts) == 2
    for script in scripts:
        digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
        assert f"'sha256-{digest}'" in text


def test_sections_of_one_title_have_anchors_of_their_own():
    text = page_with_everything().html()
    assert re.findall(r'<section id="([^"]+)"', text) == ["energies", "energies-2"]


def test_a_page_without_charts_carries_no_plotting_script():
    page = Page("Words")
    page.section("One").text("nothing to draw")
    assert len(page.html()) < 50_000 < len(page_with_everything().html())


def test_broken_text_can_be_written(tmp_path):
    page = Page("half a pair \ud800")
    page.section("One").text("\ud800")
    page.write(tmp_path / "page.html")
    assert "half a pair" in (tmp_path / "page.html").read_text(encoding="utf-8")


def test_rows_that_do_not_fit_their_columns_are_refused():
    with pytest.raises(ValueError, match="has 1 cells; found"):
        Page("x").section("y").table([Column("a")], [[1, 2]], "caption")


def test_numbers_in_tables_keep_their_digits_for_the_csv():
    section = Page("x").section("y").table([Column("e", "eV", ".2f")], [[-1.23456789], [None]], "caption")
    assert 'data-value="-1.23456789"' in section.html()
    assert "\u22121.23" in section.html()
    assert 'data-value="">\u2013' in section.html()
