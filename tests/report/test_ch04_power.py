"""Section 4.3 executed: the thesis's arithmetic recomputed, a run's power beside it, and one
sentence where there is none."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Dict

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

from lib import environment
from lib.measure import full_power, power, runs
from lib.measure.full_power import FullSizePower
from lib.measure.sensors import Reading
from lib.report import audit, thesis

from .helpers import Page, executed

NONE = "no power sensor here (a desk)"


def execute(small: Path, run: str, answer: FullSizePower) -> Page:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(full_power, "full_size_power", lambda *_: answer)
        return executed("04_3_power", dataset=str(small), run=run)


@pytest.fixture(scope="module")
def page(small: Path, small_run: str) -> Page:
    pytest.importorskip("openvino", reason="OpenVINO is missing: install the `engines` extra")
    return execute(small, small_run, FullSizePower([], NONE))


def own_row(framework: str, precision: str, watts: float) -> Dict[str, Any]:
    """A row of `full_power`, from a log of constant power: idle 2 W, 50 frames in 10 s."""
    readings = [Reading(t, {"GPU": 2.0 if t < 0 else watts}) for t in range(-5, 11)]
    log = power.Log("tegrastats", 1, readings, [], {"idle": (-5, -1), "run": (0, 10)})
    return {
        "row": "measured",
        "variant": f"{framework}-{precision}",
        "framework": framework,
        "precision": precision,
        "network": "54.0 M parameters",
        "dataset": "random frames",
        "run": "here",
        **power.measure_parts([(log.cut(0, 5), 20), (log.cut(5, 10), 30)], 5),
    }


@pytest.fixture(scope="module")
def powered(page: Page, small: Path, small_run: str) -> Page:
    rows = [own_row("PyTorch", "FP32", 20), own_row("OpenVINO", "FP16", 5)]
    return execute(small, small_run, FullSizePower([*rows, rows[0]], "tegrastats"))


def number(cell: Any) -> float:
    text = cell[0] if isinstance(cell, tuple) else cell
    return float(text.split()[0])


# -- The thesis's numbers --------------------------------------------------------------------------


def test_a_line_is_read_by_rail_with_its_average(page: Page) -> None:
    assert page.read_rails(page.LINE)["SYS5V"] == (3.306, 3.306)
    assert set(page.rails) == {"GPU", "CPU", "SOC", "CV", "VDDRQ", "SYS5V"}
    assert page.read_rails("NC 0mW/0mW VDD_IN 3913mW/3922mW")["VDD_IN"] == (3.913, 3.922)


def test_energy_is_that_of_a_closed_formula(page: Page) -> None:
    times = np.arange(0, 10.5, 0.5)
    joules, seconds = page.energy(times, 2 + 3 * times, 2.5, 7.25)
    assert (joules, seconds) == pytest.approx((2 * 4.75 + 3 * (7.25**2 - 2.5**2) / 2, 4.75))
    tail = 4 * 4 * (1 - np.exp(-20 / 4) - np.exp(-10 / 4) + np.exp(-12 / 4))
    assert page.run_joules == pytest.approx(18 * 12 + tail, rel=0.002), "less what the gap hides"
    assert (page.covered, page.idle) == (18, 4)


def test_table_4_6_has_joules_and_savings_against_both_bases(page: Page) -> None:
    rows = page.table("Power against TensorRT FP32").rows
    printed = thesis.table("table_4_6")
    fps = [thesis.table("table_4_1")["fps"][1], *thesis.table("table_4_2")["fps"]]
    joules = printed["power_w"] / fps
    assert [row[3] for row in rows] == [f"{value:.3f}" for value in joules]
    assert [number(cell) for cell in rows[2][5:]] == pytest.approx(
        [-38.98, 100 * (joules[2] / joules[0] - 1), -37.52, 100 * (joules[2] / joules[1] - 1)],
        abs=0.005,
    )


def test_every_percentage_of_table_4_7_is_recomputed(page: Page) -> None:
    rows = page.table("Energy against 45.5 M").rows
    frame = thesis.table("table_4_7")
    whole = frame[frame["parameters_m"] == 45.5].set_index(["framework", "precision"])
    assert len(rows) == len(frame) == 16
    for row, printed in zip(rows, frame.to_dict("records")):
        base = whole.loc[(printed["framework"], printed["precision"])]
        if printed["parameters_m"] == 45.5:
            assert row[3] == row[5] == "–"
            continue
        for cell, column in ((row[3], "power"), (row[5], "energy")):
            value = {"power": "power_w", "energy": "energy_j"}[column]
            expected = 100 * (printed[value] / base[value] - 1)
            assert float(cell[1].strip("()% ")) == pytest.approx(expected, abs=0.005)
            assert number(cell) == pytest.approx(printed[f"{column}_change_pct"])
    marked = [(row[0], row[1]) for row in rows if any("≠" in str(cell) for cell in row)]
    by_audit = {
        tuple(finding.id.split("/")[1].split(" M "))
        for finding in audit.findings()
        if finding.id.startswith("table_4_7/") and finding.reading != "agrees"
    }
    assert {(size.split()[0], name) for size, name in marked} == by_audit


def test_power_rises_where_the_table_says(page: Page) -> None:
    rows = page.table("Power, change in W").rows
    assert [row[0] for row in rows].count("TensorRT FP32") == 1
    assert number(next(row for row in rows if row[0] == "TensorRT FP32")[2]) == 0.014
    assert len(rows) == audit.looked_up()["steps up in power"]


def test_the_deviations_are_all_that_the_audit_finds_besides_the_unit(page: Page) -> None:
    shown = page.table("Follows")
    for words in ("37.52", "83.6", "82.9", "96.59"):
        assert words in str(shown), words
    assert {finding.reading for finding in page.deviating} <= {"base", "slip"}
    [unit] = [finding for finding in page.about_power if finding.reading == "units"]
    assert unit not in page.deviating


def test_figure_4_11_shows_every_value_of_table_4_7(page: Page, powered: Page) -> None:
    for each, panels in ((page, 2), (powered, 3)):
        figure = each.figures()["fig-4-11"]
        assert isinstance(figure, Figure) and len(figure.axes) == panels
        for axis, column in zip(figure.axes, ("power_w", "energy_j")):
            widths = sorted(bar.get_width() for bar in axis.patches)
            assert widths == sorted(thesis.table("table_4_7")[column])
    own = powered.figures()["fig-4-11"].axes[2]
    assert [bar.get_width() for bar in own.patches] == [20, 5]


# -- A run's power ---------------------------------------------------------------------------------


def test_without_a_sensor_the_command_is_named(page: Page, powered: Page) -> None:
    [said] = [text for text in page.texts() if text.startswith("Missing here")]
    assert NONE in said and "papermill notebooks/04_3_power.ipynb" in said
    assert not [text for text in powered.texts() if text.startswith("Missing here")]


def test_measured_rows_have_both_definitions_and_their_spread(powered: Page) -> None:
    first, second = powered.table("Power, integrated, W").rows
    assert first[0] == (
        "PyTorch FP32",
        "measured now, run here",
        "random frames, 54.0 M parameters",
        "tegrastats, rail GPU",
    )
    assert [number(cell) for cell in second[1:7]] == pytest.approx([5, 1, 5, 2, 1, 0.6])
    spread = np.std([5 * 5 / 20, 5 * 5 / 30], ddof=1)
    assert float(second[5][1].strip("(±) ")) == pytest.approx(spread, abs=0.0005)
    assert second[7:] == ["-75.00 %", "-75.00 %"] and first[7:] == ["–", "–"]


def test_what_was_not_covered_is_named(powered: Page) -> None:
    row = {**powered.rows[0], "power_covered_s": 6.0}
    assert powered.own_row(row)[3] == ("20.000", "4.0 of 10 s without readings")
    lost = {**row, "power_covered_s": 0.0, "power_w": np.nan, "energy_j": np.nan}
    assert powered.own_row(lost)[3] == ("–", "10.0 of 10 s without readings")
    assert powered.own_row(lost)[7:] == ["–", "–"]


def test_rows_of_the_runs_tables_with_a_sensor_are_shown(page: Page, small_run: str) -> None:
    found = runs.with_power(small_run, environment.device())
    assert isinstance(found, pd.DataFrame) and len(found) and found["sensor"].isna().all()
    assert page.rows == []
