"""Sections 4.2.4 and 4.2.5, beyond the thesis: precision by layer, and channels by the
millisecond."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from lib.engines.quantize import GROUPS
from lib.measure import full_size, latency, layers, variants
from lib.vot.metrics import paired_bootstrap

from .helpers import Page, assert_readable, executed, made_up_speed, timed

pytest.importorskip("openvino")


@pytest.fixture(scope="module")
def by_layer(small: Path, small_run: str) -> Page:
    speed = made_up_speed("openvino")
    rows = [
        {**timed("openvino-whole", "OpenVINO 1", ["int8"] * 3), "kept": layers.kept(one)}
        for one in layers.steps("demo", "openvino")
    ]
    speed = replace(speed, rows=[*speed.rows, *rows])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(full_size, "engine_speed", lambda run, framework: speed)
        patch.setattr(variants, "mixtures", variants.engines)
        given = {"dataset": str(small), "run": small_run, "framework": "openvino"}
        return executed("04_2_4_layers", **given)


def test_the_groups_of_the_page_hold_all_convolutions(by_layer: Page) -> None:
    shown = by_layer.table("Xcorr network")
    assert [row[0] for row in shown.rows] == [*GROUPS]
    # 53 convolutions of a ResNet-50 (four of them shortcuts), three of the neck, six branches
    assert sum(row[2] for row in shown.rows) == 53 + 16 + 3 + 6


def test_every_group_has_its_loss_in_both_precisions(by_layer: Page) -> None:
    shown, found = by_layer.table("INT8 alone, change of overlap"), layers.read()[0]
    for row, (_, kept) in zip(shown.rows, found.iterrows()):
        assert row[0] == kept["group"] and f"{kept['int8']:+.3f}"[1:] in row[1][0]
        assert row[3] == f"{kept['fp16_ms']:.2f}"
    figures = by_layer.figures()
    assert_readable(figures["fig-sensitivity"], "OpenVINO")
    assert_readable(figures["fig-front"], "a processor")
    assert len(figures["fig-sensitivity"].axes[0].get_yticks()) == 2 * len(GROUPS)


def test_steps_of_the_search_are_compared_with_fp16(by_layer: Page) -> None:
    shown = by_layer.table("In 16 bits")
    assert len(shown.rows) == len(layers.STEPS) + 2 and shown.rows[0][0] == "nothing"
    base = by_layer.pure["FP16"].evaluation
    for row, one in zip(shown.rows, by_layer.steps):
        value, _, _ = paired_bootstrap(one.evaluation, base)["eao"]
        assert row[1][0] == f"{one.evaluation.eao:.3f}" and f"{abs(value):.3f}" in row[2][0]
        # 22 ms of the search and xcorr network, and 2 of the rest
        assert row[3] == f"{1000 / 24:.1f}"
    written = pd.read_csv(Path(by_layer.run) / "04_2_4_layers.csv")
    assert written["variant"].tolist() == [one.variant.name for one in by_layer.steps]
    [said] = [str(each) for _, each in by_layer.cells_shown if "frames per second" in str(each)]
    assert "Keep in 16 bits here: " in said


def test_nncf_is_beside_this_books_int8(by_layer: Page) -> None:
    shown, recorded = by_layer.table("Mean overlap"), layers.beside_nncf()
    assert [row[0] for row in shown.rows] == ["FP16", "INT8, this book", "INT8, NNCF"]
    for row, kept in zip(shown.rows, recorded["rows"]):
        assert row[1] == f"{kept['overlap']:.3f}" and row[3][0] == f"{kept['ms'][0]:.1f}"
    assert "NNCF" in shown.caption


@pytest.fixture(scope="module")
def by_time(small: Path, small_run: str) -> Page:
    given = {"dataset": str(small), "run": small_run, "framework": "openvino"}
    return executed("04_2_5_latency", **given)


def test_predicted_and_measured_times_are_beside_each_other(by_time: Page) -> None:
    shown, (model, recorded) = by_time.table("Predicted, ms"), latency.read()
    assert len(shown.rows) == len(recorded["networks"])
    errors = [float(row[-1]) for row in shown.rows if row[0][0] == "milliseconds"]
    assert len(errors) == 6 and f"{max(map(abs, errors)):.1f} %" in " ".join(
        str(each) for _, each in by_time.cells_shown
    )
    assert model.predict(latency.FULL) == recorded["networks"][0]["predicted_ms"]
    assert_readable(by_time.figures()["fig-layer-times"], "OpenVINO")


def test_both_choices_are_measured_at_the_same_latency(by_time: Page) -> None:
    shown = by_time.table("Frame at full size, ms")
    assert [row[0] for row in shown.rows] == ["parameters", "milliseconds"]
    for row, one in zip(shown.rows, by_time.measured):
        assert row[-1][0] == f"{one.evaluation.eao:.3f}"
    ms = [float(row[2][0]) for row in shown.rows]
    assert ms[0] == pytest.approx(ms[1], rel=0.05)
    stages = by_time.table("stage 1").rows
    assert float(stages[1][1]) > float(stages[0][1]), "early stages are cheaper than they look"
