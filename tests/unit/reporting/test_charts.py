"""Charts hold the data that they show, as columns that a reader can download."""

import csv
import io
import json

import numpy as np
import pytest

from rung.reporting.chart import Axis, Chart, column, numbers, rows, script_json
from rung.reporting.distributions import BINS, MOST_POINTS, agreement, bin_values, density, histogram
from rung.reporting.elements import PLACES, periodic_table_html
from rung.reporting.plots import Curve, Points, bars, lines, parallel, parity, scatter

ENERGY, FORCE = Axis("energy", "eV/atom"), Axis("force", "eV/Å", log=True)


def table_of(chart: Chart) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(chart.csv())))


def test_columns_have_one_length():
    with pytest.raises(ValueError, match="one length"):
        Chart(columns={"a": [1], "b": [1, 2]}, traces=[], layout={})


def test_traces_name_columns_that_are_there():
    with pytest.raises(ValueError, match="'energy'"):
        Chart(columns={"a": [1]}, traces=[{"x": column("energy"), "customdata": rows("a")}], layout={})


def test_what_is_not_finite_is_absent():
    assert numbers(np.array([1.0, np.nan, np.inf])) == [1.0, None, None]
    chart = scatter({"a": Points([1.0, np.nan], [2.0, 3.0])}, ENERGY, ENERGY)
    assert "NaN" not in chart.to_json()


def test_json_within_a_page_cannot_end_its_script():
    text = script_json({"name": "</script>&"})
    assert "<" not in text
    assert json.loads(text) == {"name": "</script>&"}


@pytest.mark.parametrize("axis", [ENERGY, FORCE])
def test_histogram_counts_every_value(axis):
    values = np.abs(np.random.default_rng(0).normal(size=1000)) + 0.01
    binned = bin_values({"a": values}, axis, whole=True)
    assert binned.counts["a"].sum() == len(values)
    assert binned.beyond == {"a": 0}
    assert np.all(np.diff(binned.edges) > 0)


def test_few_values_are_all_drawn_and_far_outliers_of_many_are_not():
    few = histogram({"a": np.arange(100.0)}, ENERGY, Axis("records"))
    assert few.note == ""
    many = np.append(np.random.default_rng(0).normal(size=20_000), 1e6)
    chart = histogram({"a": many}, ENERGY, Axis("records"))
    drawn = sum(int(row["records"]) for row in table_of(chart))
    assert drawn < len(many)
    assert chart.note == f"Outside the axis: {len(many) - drawn} records."


def test_equal_values_have_a_bin():
    for axis in (ENERGY, FORCE):
        assert bin_values({"a": np.full(5, 2.0)}, axis).counts["a"].sum() == 5


def test_histogram_on_a_logarithmic_axis_says_how_many_zeros_it_leaves_out():
    chart = histogram({"a": [0.0, 0.0, 1.0, 10.0]}, FORCE, Axis("records"))
    assert chart.note == "Outside the axis: 2 records."


def test_density_counts_points():
    rng = np.random.default_rng(0)
    chart = density(rng.normal(size=500), rng.normal(size=500), ENERGY, ENERGY, "records")
    counted = sum(int(row["records"]) for row in table_of(chart))
    assert len(table_of(chart)) == BINS**2
    assert counted == 500


@pytest.mark.parametrize(("number", "kind"), [(100, "scatter"), (MOST_POINTS + 1, "heatmap")])
def test_many_points_are_drawn_as_a_density(number, kind):
    values = np.random.default_rng(0).normal(size=number)
    chart = agreement({"model": Points(values, values + 0.1)}, ENERGY, "records")
    assert chart.traces[0]["type"] == kind
    assert chart.layout["xaxis"]["title"]["text"] == "energy, label (eV/atom)"


def test_parity_has_one_range_and_the_names_of_its_points():
    chart = parity({"test": Points([0.0, 1.0], [0.5, 3.0], ["a", "b"])}, ENERGY)
    shape = chart.layout["shapes"][0]
    assert (shape["x0"], shape["x1"], shape["y0"], shape["y1"]) == (0.0, 3.0, 0.0, 3.0)
    assert [row["name"] for row in table_of(chart)] == ["a", "b"]


def test_lines_with_a_band_hold_its_edges():
    chart = lines(
        {"transfer": Curve([1, 10], [2.0, 1.0], [1.5, 0.5], [2.5, 1.5]), "scratch": Curve([1], [3.0])}, ENERGY, FORCE
    )
    table = table_of(chart)
    assert table[0]["force, low (eV/Å)"] == "1.5"
    assert table[2]["force, low (eV/Å)"] == table[2]["force (eV/Å)"] == "3"
    assert chart.layout["yaxis"]["type"] == "log"


def test_bars_and_parallel_coordinates_keep_categories_and_text():
    chart = bars(["a", "b"], {"x": [1, 2], "y": [3, 4]}, Axis("reason"), Axis("frames"))
    assert table_of(chart)[1] == {"reason": "b", "x": "2", "y": "4"}
    chart = parallel(["t0"], {Axis("mode"): ["refit"], FORCE: [0.1]}, FORCE)
    assert chart.text_columns == ["name", "mode"]


def test_bars_have_ends_where_there_is_a_spread():
    chart = bars(["a", "b"], {"x": [1.0, 2.0]}, Axis("method"), ENERGY, spreads={"x": [0.5, np.nan]})
    assert [row["energy (eV/atom), spread"] for row in table_of(chart)] == ["0.5", ""]
    assert chart.traces[0]["error_y"]["array"] == column("energy (eV/atom), spread")


def test_periodic_table():
    html = periodic_table_html({"Fe": 10.0, "O": 0.0, "H": 1.0}, Axis("records", log=True), "caption", "file")
    assert html.count('data-symbol="') == 2  # zero has no logarithm and is drawn empty
    assert 'data-symbol="Fe" data-value="10.0"' in html
    assert "Lr" not in html
    assert "Lr" in periodic_table_html({"Lr": 1.0}, Axis("records"), "caption", "file")
    with pytest.raises(ValueError, match="'Xx'"):
        periodic_table_html({"Xx": 1.0}, Axis("records"), "caption", "file")


def test_every_element_has_one_place():
    assert len(PLACES) == 118
    assert len(set(PLACES.values())) == 118
