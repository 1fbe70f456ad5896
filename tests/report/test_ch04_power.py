"""Section 4.3's views: the thesis's arithmetic computed again, a run's power beside it, and the
sentence where there is none."""

from __future__ import annotations

import re

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

from lib.measure import power
from lib.measure.measurement import power_columns
from lib.measure.power import Log, Reading, measure
from lib.report import ch04_power, thesis

HEAD = "Caption."


def run_rows(count: int = 2) -> pd.DataFrame:
    """Rows as `quality.measure` makes them, from logs of a constant power: 20 W for PyTorch FP32, 5
    W for an engine, idle 2 W."""
    rows = []
    for (framework, precision), watts in list(
        zip((("PyTorch", "FP32"), ("OpenVINO", "FP16")), (20, 5))
    )[:count]:
        readings = [
            Reading({"GPU": 2.0 if t < 0 else watts}, seconds=float(t)) for t in range(-5, 11)
        ]
        events = [
            (-5.0, "begin", "idle"),
            (-1.0, "end", "idle"),
            (0.0, "begin", "run"),
            (10.0, "end", "run"),
        ]
        drawn = measure(Log("tegrastats", 1, readings, events), 50)
        rows.append(
            {
                "row": "measured",
                "variant": f"{framework}-{precision}",
                "framework": framework,
                "precision": precision,
                "network": "3.4 M parameters",
                "dataset": "demo",
                "run": "here",
                **power_columns(drawn),
            }
        )
    return pd.DataFrame(rows)


def test_table_4_6_has_joules_and_changes_against_pytorch() -> None:
    table = ch04_power.table_4_6(pd.DataFrame(), HEAD)
    printed = thesis.table("table_4_6")
    fps = [thesis.table("table_4_1")["fps"][1], *thesis.table("table_4_2")["fps"]]
    joules = printed["power_w"] / fps
    assert [row[2][0] for row in table.rows] == [f"{value:.3f}" for value in joules]
    assert [row[2][1] for row in table.rows] == [
        f"printed: {value:g} kJ" for value in printed["energy_kj"]
    ]
    assert table.rows[2][3] == "-38.98 %" and table.rows[0][3] == "–"
    assert float(table.rows[3][4].split()[0]) == pytest.approx(
        100 * (joules[3] / joules[0] - 1), abs=0.005
    )
    assert len(table.heads) == 5, "no empty columns where nothing was measured"


def test_measured_rows_have_both_definitions_and_their_spread() -> None:
    table = ch04_power.table_4_6(run_rows(), HEAD)
    first, second = table.rows[4:]
    assert first[0] == (
        "PyTorch FP32",
        "measured now, run here",
        "demo, 3.4 M parameters",
        "tegrastats, rail GPU",
    )
    assert (second[1], second[2], second[3], second[4]) == ("5.000", "1", "-75.00 %", "-75.00 %")
    assert (second[5], second[6], second[7][0], second[8][0]) == (
        ("5.000", ""),
        "2.000",
        "1",
        "0.6",
    )
    assert second[7][1].startswith("(± ")
    assert "running average" in table.caption


def test_what_was_not_covered_is_named() -> None:
    rows = run_rows(1).assign(power_covered_s=6.0)
    assert ch04_power.table_4_6(rows, HEAD).rows[4][5] == ("20.000", "4.0 of 10 s without readings")


def test_every_percentage_of_table_4_7_is_computed_again() -> None:
    table = ch04_power.table_4_7(pd.DataFrame(), HEAD)
    frame = thesis.table("table_4_7")
    assert len(table.rows) == len(frame) == 16
    for row, printed in zip(table.rows, frame.to_dict("records")):
        base = frame[
            (frame["parameters_m"] == 45.5)
            & (frame["framework"] == printed["framework"])
            & (frame["precision"] == printed["precision"])
        ].iloc[0]
        if printed["parameters_m"] == 45.5:
            assert row[3] == "–"
            continue
        expected = 100 * (printed["power_w"] / base["power_w"] - 1)
        assert float(row[3][1].strip("()% ")) == pytest.approx(expected, abs=0.005)
        assert float(re.split(" ", row[3][0])[0]) == pytest.approx(printed["power_change_pct"])
    marked = [(row[0][0], row[1]) for row in table.rows if any("≠" in str(cell) for cell in row)]
    assert marked == [("22.5 M", "PyTorch FP32")], "-9.9967 % was cut off"


def test_the_deviations_are_all_that_the_audit_finds_of_power() -> None:
    table = ch04_power.deviations(HEAD)
    wrong = [
        finding
        for finding in thesis.audit()
        if ch04_power.concerns_power(finding) and finding.reading != "agrees"
    ]
    assert len(table.rows) == len(wrong) and len(wrong) >= 10
    text = str(table)
    assert "_" not in "".join(line for row in table.rows for line in row[0]), (
        "a cell is named in words"
    )
    assert ("table 4.6", "PyTorch FP32: energy a frame") in [row[0] for row in table.rows]
    for words in ("37.52", "83.6", "82.9", "96.59", "-9.99", "MAXN"):
        assert words in text, words
    assert "another unit" in text and "4.7" in text


def test_sentences_are_computed_from_the_tables() -> None:
    assert (
        "4 of 4 energies are right in joules" in ch04_power.unit_finding()
        and "kJ" in ch04_power.unit_finding()
    )
    assert (
        f"Here it is read every {power.PERIOD:g} s" in ch04_power.sampling()
        and "every 5 s." in ch04_power.sampling()
    )
    found = ch04_power.against_size()
    assert (
        found.count(" W at ") == 6 and "19.837 W at 30 M" in found and "2.914 W at 22.5 M" in found
    )


@pytest.mark.parametrize(
    "sensor, has_rows, words",
    [
        (
            "no power sensor here (tegrastats: No such file or directory)",
            False,
            "No power sensor here",
        ),
        ("no power sensor here (RAPL: energy_uj: Permission denied)", False, "sudo chmod a+r"),
        (
            "no power sensor here (NVML: a package is missing (pip install nvidia-ml-py))",
            False,
            "pip install -e '.[power]'",
        ),
        (
            "no power in run xavier, which was recorded on another machine",
            False,
            "No power in run xavier",
        ),
        ("tegrastats", False, "measured without it"),
        ("tegrastats", True, "read from tegrastats"),
    ],
)
def test_where_power_comes_from_is_said(sensor: str, has_rows: bool, words: str) -> None:
    text = ch04_power.about_sensor(sensor, has_rows)
    assert words in text
    assert ("papermill notebooks/04_3_power.ipynb" in text) != has_rows


@pytest.mark.parametrize("rows", [pd.DataFrame(), run_rows()], ids=["no sensor", "with power"])
def test_figure_4_11_shows_every_value_of_table_4_7(rows: pd.DataFrame) -> None:
    figure = ch04_power.figure_4_11(rows, "Note.")
    assert isinstance(figure, Figure) and len(figure.axes) == (3 if len(rows) else 2)
    for axis, column in zip(figure.axes, ("power_w", "energy_j")):
        assert sorted(bar.get_width() for bar in axis.patches) == sorted(
            thesis.table("table_4_7")[column]
        )
    if len(rows):
        assert [bar.get_width() for bar in figure.axes[2].patches] == rows[
            "power_w_thesis"
        ].tolist()


def test_a_variant_that_stands_in_several_tables_is_one_row() -> None:
    rows = run_rows()
    without = rows.assign(variant="x", power_w=np.nan)
    assert len(ch04_power.all_rows(rows.to_dict("records"), pd.concat([rows, without]))) == 2
    assert len(ch04_power.all_rows([], pd.DataFrame())) == 0
