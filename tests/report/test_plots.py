"""Figures and tables say what they show: titles, units, run and machine, the thesis's value beside
the measured one."""

from __future__ import annotations

import base64
import io
import re
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
import pytest

matplotlib.use("Agg")

from matplotlib.figure import Figure

from lib.report import plots, thesis
from lib.report.tables import ABSENT, Table
from lib.vot.dataset import TAGS, Dataset
from lib.vot.metrics import Evaluation, bootstrap
from lib.vot.protocol import Trajectory

from .helpers import assert_readable, texts

NOTE = "Run test, 2026-01-01 00:00 UTC: 2 cores Test, PyTorch 2.13.0, CPU"
ROWS = {"surely less": (-0.1, -0.2, -0.05), "cannot be told": (0.1, -0.1, 0.3)}
BASELINE = thesis.table("figure_4_5")[["attribute", "PyTorch FP32"]]


@pytest.fixture(scope="module")
def figures(
    still: Dataset, beside: dict[str, Trajectory], evaluated: Evaluation
) -> dict[str, Figure]:
    lengths = [len(sequence) for sequence in still]
    return {
        "eao": plots.eao("measured now", evaluated, lengths, NOTE),
        "attributes": plots.attributes({"measured now": evaluated}, BASELINE, NOTE),
        "gallery": plots.gallery(still, beside, NOTE),
        "forest": plots.forest(ROWS, "ΔEAO", NOTE, [-0.02, 0.01]),
    }


@pytest.mark.parametrize("name", ["eao", "attributes", "gallery"])
def test_a_figure_has_titles_and_a_note_and_is_legible(
    figures: dict[str, Figure], name: str
) -> None:
    assert_readable(figures[name], NOTE)
    drawn = [axis for axis in figures[name].axes if axis.has_data()]
    assert drawn and all(axis.get_title(loc="left") for axis in drawn)


@pytest.mark.parametrize("name", ["eao", "attributes"])
def test_the_axes_of_a_chart_say_what_they_measure(figures: dict[str, Figure], name: str) -> None:
    labels = [axis.get_xlabel() for axis in figures[name].axes]
    assert all(re.search(r"frames|0 to 1", label) for label in labels)


def test_the_thesis_stands_beside_what_was_measured(
    figures: dict[str, Figure], evaluated: Evaluation
) -> None:
    assert "measured now" in texts(figures["eao"])
    here, theirs = (
        [line.get_xdata()[0] for line in axis.lines if len(line.get_xdata()) == 1]
        for axis in figures["attributes"].axes
    )
    scores = evaluated.attributes()
    assert here == [scores[name]["eao"] for name in (*TAGS, "empty")]
    values = BASELINE.set_index("attribute")["PyTorch FP32"]
    assert theirs == [values[tag] for tag in TAGS]


def test_measured_thesis_and_published_differ_in_colour_and_in_shape() -> None:
    for looks in ([plots.MEASURED, plots.THESIS], plots.TRACKERS):
        assert len({look["color"] for look in looks}) == len(looks)
        assert len({look["marker"] for look in looks}) == len(looks)


def test_the_drawn_curve_and_its_band_belong_to_the_evaluation(
    figures: dict[str, Figure], evaluated: Evaluation
) -> None:
    curve = figures["eao"].axes[0].lines[0]
    np.testing.assert_array_equal(np.asarray(curve.get_ydata()), evaluated.eao_curve())
    low, high = plots.curve_band(evaluated)
    known = np.isfinite(low)
    assert known.any() and (low[known] <= evaluated.eao_curve()[known] + 1e-9).all()
    assert (high[known] >= evaluated.eao_curve()[known] - 1e-9).all()


def test_the_band_at_one_length_is_the_interval_of_the_eao_over_that_length(
    evaluated: Evaluation,
) -> None:
    from dataclasses import replace

    at = 20
    length = at + evaluated.protocol.first_length
    alone = bootstrap(replace(evaluated, eao_interval=(length, length)), n=1000)["eao"]
    low, high = plots.curve_band(evaluated)
    assert (low[at], high[at]) == pytest.approx(alone)


def test_a_mark_is_filled_where_its_interval_leaves_out_0(figures: dict[str, Figure]) -> None:
    here, theirs = figures["forest"].axes
    marks = [line for line in here.lines if len(line.get_xdata()) == 1]
    assert [mark.get_markerfacecolor() for mark in marks] == [plots.BLUE, "white"]
    assert theirs.lines[0].get_xdata().tolist() == [-0.02, 0.01]
    assert_readable(figures["forest"], NOTE)


# -- Tables ----------------------------------------------------------------------------------------


def test_a_table_is_a_frame_and_its_columns() -> None:
    frame = pd.DataFrame(
        [
            {"who": ("thesis", "Xavier"), "eao": "0.170", "change": (0.01, np.nan, np.nan)},
            {"who": "here", "eao": 0.41234, "eao_low": 0.4, "eao_high": 0.5, "fps": 8.951},
        ]
    )
    frame.attrs["missing"] = "run x does not have y"
    columns: list[tuple[str, str, Any]] = [
        ("Whose", "who", ""),
        ("EAO", "eao", ".3f"),
        ("FPS", "fps", ".1f"),
        ("Change", "change", lambda value, *_: f"{value:+.2f}"),
        ("Mb", "nowhere", ".1f"),
    ]
    table = Table.of(frame, columns, "Caption.")
    assert table.heads == ["Whose", "EAO", "FPS", "Change", "Mb"]
    assert table.rows == [
        [("thesis", "Xavier"), "0.170", ABSENT, "+0.01", ABSENT],
        ["here", ("0.412", "0.400–0.500"), "9.0", ABSENT, ABSENT],
    ]
    assert table.caption.startswith("Caption.") and "run x does not have y" in table.caption


def test_a_page_has_a_table_as_html_and_as_csv() -> None:
    rows = [["here", ("0.412", "0.400–0.500"), ABSENT], [("a < b", ""), "1", "2"]]
    html = Table(["Whose number", "EAO", "FPS"], rows, "A caption <here>")._repr_html_()
    link = r'<a download="([^"]+)" href="data:text/csv;charset=utf-8;base64,([^"]+)"'
    [(name, data)] = re.findall(link, html)
    cells = pd.read_csv(io.BytesIO(base64.b64decode(data)))
    assert name == "a-caption-here.csv" and cells.shape == (2, 3)
    assert cells["EAO"].tolist() == ["0.412 0.400–0.500", "1"]
    assert "A caption &lt;here&gt;" in html and "a &lt; b" in html
    assert html.count("<tr>") == 3 and "0.400–0.500" in html
    plain = Table(["Whose", "EAO"], [("here", ("0.412", "0.400–0.500"))], "", plain=True)
    assert "0.400–0.500" not in plain._repr_html_() and "0.400–0.500" in plain.csv()


def test_the_style_does_not_leak(figures: dict[str, Figure]) -> None:
    default = matplotlib.rcParamsDefault["axes.titlelocation"]
    assert matplotlib.rcParams["axes.titlelocation"] == default


def test_pages_read_no_picture_from_disk(figures: dict[str, Figure]) -> None:
    out = io.StringIO()
    figures["gallery"].savefig(out, format="svg")
    drawn = re.sub(r"xmlns:\w+=\"[^\"]+\"", "", out.getvalue())
    assert "data:image/png;base64" in drawn and 'href="http' not in drawn
