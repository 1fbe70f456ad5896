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
from matplotlib.figure import Figure

from lib.report import plots, thesis
from lib.report.tables import ABSENT, Table
from lib.vot.dataset import TAGS
from lib.vot.metrics import Evaluation, bootstrap

from .helpers import assert_readable

NOTE = "Run test, 2026-01-01 00:00 UTC: 2 cores Test, PyTorch 2.13.0, CPU"
ROWS = {"surely less": (-0.1, -0.2, -0.05), "cannot be told": (0.1, -0.1, 0.3)}
BASELINE = thesis.table("figure_4_5")[["attribute", "PyTorch FP32"]]


@pytest.fixture(scope="module")
def figures(evaluated: Evaluation) -> dict[str, Figure]:
    return {
        "attributes": plots.attributes({"measured now": evaluated}, BASELINE, NOTE),
        "forest": plots.forest(ROWS, "ΔEAO", NOTE, [-0.02, 0.01]),
    }


def test_attributes_have_titles_units_and_a_note_and_stand_beside_the_thesiss(
    figures: dict[str, Figure], evaluated: Evaluation
) -> None:
    figure = figures["attributes"]
    assert_readable(figure, NOTE)
    assert all(axis.get_title(loc="left") and "0 to 1" in axis.get_xlabel() for axis in figure.axes)
    here, theirs = (
        [line.get_xdata()[0] for line in axis.lines if len(line.get_xdata()) == 1]
        for axis in figure.axes
    )
    scores = evaluated.attributes()
    assert here == [scores[name]["eao"] for name in (*TAGS, "empty")]
    values = BASELINE.set_index("attribute")["PyTorch FP32"]
    assert theirs == [values[tag] for tag in TAGS]


def test_measured_thesis_and_published_differ_in_colour_and_in_shape() -> None:
    for looks in ([plots.MEASURED, plots.THESIS], plots.TRACKERS):
        assert len({look["color"] for look in looks}) == len(looks)
        assert len({look["marker"] for look in looks}) == len(looks)


def test_the_band_is_around_the_curve(evaluated: Evaluation) -> None:
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
