"""Sections 3.6, 4.2.2 and 4.2.3 as notebooks, and what their tables and sentences say."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

from lib import pruning
from lib.measure import full_size, pruned, quality
from lib.measure.full_size import EngineSpeed
from lib.measure.measurement import Measurement
from lib.measure.variants import baseline
from lib.report import ch04_engines, ch04_pruning, thesis
from lib.report.tables import Table, Text
from lib.vot.dataset import load_dataset
from lib.vot.metrics import evaluate
from lib.vot.protocol import Trajectory

from .helpers import made_up_speed, page

pytest.importorskip("openvino")


def test_the_method_is_drawn_from_the_real_network(tmp_path):
    shown = page("03_6_pruning", run=str(tmp_path / "run"))
    assert len([each for each in shown if isinstance(each, Figure)]) == 4
    drawn = " ".join(
        text.get_text()
        for each in shown[:1]
        for text in each.findobj(lambda artist: hasattr(artist, "get_text"))
    )
    assert "2048 channels" in drawn
    text = " ".join(each for each in shown if isinstance(each, Text))
    assert "45,528,128 parameters and 11,392 channels" in text
    correlations = [
        float(value) for value in re.findall(r"(0\.\d{3,4})", text.split("Rank correlation")[1])[:2]
    ]
    assert correlations[0] > 0.9 and correlations[1] > 0.99
    assert max(float(value) for value in re.findall(r"\d\.\de-\d\d", text)) < 1e-5
    tables = [each for each in shown if isinstance(each, Table)]
    assert (
        "2,857,232" in str(tables[0])
        and "45,528,128" in str(tables[1])
        and len(tables[0].rows) == 17
    )


def test_the_logs_become_table_4_4(tmp_path):
    shown = page("04_2_2_pruned_backbone", run=str(tmp_path / "run"))
    assert len([each for each in shown if isinstance(each, Figure)]) == 4
    rows = pd.read_csv(tmp_path / "run" / "04_2_2_pruned_backbone.csv")
    for share, row in zip((1.0, *pruned.SHARES), rows.to_dict("records")):
        last = pruned.log("head" if share == 1 else f"finetune_{round(100 * share)}").iloc[-1]
        assert (
            row["top1"] == pytest.approx(100 * last["top1"])
            and row["top1_low"] < row["top1"] < row["top1_high"]
        )
        assert row["compression"] == pytest.approx(share, rel=0.01)
    [table] = [each for each in shown if isinstance(each, Table)]
    assert "69.796" in str(table)


@pytest.fixture(scope="module")
def shipped(small: Path, small_run: str) -> Measurement:
    """The demo tracker."""
    return quality.measure(baseline("demo"), load_dataset(small), small_run, shown=False)[0]


@pytest.fixture(scope="module")
def measured(shipped: Measurement) -> list[Measurement]:
    """The unpruned tracker and the smallest ones on every engine: as if each had given the demo
    tracker's boxes, but somewhat smaller than the one before."""
    chosen = [tracker for tracker in pruned.trackers() if tracker.share in (1.0, 0.26)]
    listed = [variant for tracker in chosen for variant in pruned.variants(tracker, "openvino")]
    assert list(dict.fromkeys(map(pruned.tracker_of, listed))) == chosen
    assert [tracker.training for tracker in chosen] == [
        "frozen",
        "frozen",
        "distilled",
        "recalibrated",
        "cut",
    ]
    found = []
    for place, variant in enumerate(listed):
        size = np.array([1, 1, 0.97**place, 0.97**place])
        boxes = {
            name: Trajectory(
                tuple(entry * size if len(entry) == 4 else entry for entry in each.entries),
                each.seconds,
            )
            for name, each in shipped.trajectories.items()
        }
        evaluation = evaluate(shipped.dataset, {name: [each] for name, each in boxes.items()})
        found.append(replace(shipped, variant=variant, trajectories=boxes, evaluation=evaluation))
    return full_size.with_speed(found, made_up_speed())


def test_table_4_5_has_a_row_for_every_tracker_and_engine(measured):
    table = ch04_pruning.engines(measured, thesis.table("table_4_5"), "caption")
    assert len(table.rows) == len(measured) == 4 + 4 + 3 + 2 + 1
    printed = thesis.rows("table_4_5")
    # The thesis's 45.5 M and 12 M
    for row, theirs in zip(table.rows, [*printed[:4], *printed[-4:]]):
        assert [row[place][-1] for place in (2, 3, 4, 5)] == [
            f"thesis {theirs[name]}" for name in ("accuracy", "robustness", "eao", "fps")
        ]
    assert not any("thesis" in str(row) for row in table.rows[8:])  # it trained none the better way
    for row, one in zip(table.rows, measured):
        assert row[4][0] == f"{one.evaluation.eao:.3f}"
    assert table.heads[5:] == ["FPS, full-size network", "Plan, MB"]
    assert (table.rows[3][6], table.rows[7][6]) == ("45.5", "12.0"), (
        "the plans of the networks that were timed"
    )


def test_relations_are_quotients_and_paired_differences(measured, shipped):
    table = ch04_pruning.relations(measured, shipped, thesis.table("table_4_5"), 0.413)
    # The thesis's 0.212 of 0.344, and of the baseline's 0.413
    assert [row[3] for row in table.rows[:2]] == ["0.62", "0.51"]
    base, frozen = (one.evaluation for one in measured if one.variant.framework == "pytorch")
    # distilled, recalibrated, cut
    ours = [one.evaluation for one in measured[8:] if one.variant.precision == "FP32"]
    pairs = [
        (frozen, base),
        *((one, whole) for one in ours for whole in (base, shipped.evaluation, frozen)),
    ]
    for row, (one, other) in zip(table.rows[2:], pairs):
        assert row[3] == f"{one.eao / other.eao:.2f}"
        assert float(row[4][0].strip(" *")) == pytest.approx(one.eao - other.eao, abs=0.0005)
    assert len(table.rows) == 2 + len(pairs)
    figure = ch04_pruning.speed_quality(measured, thesis.table("table_4_5"), "note")
    assert (
        figure.axes[1].lines
        and figure.legends
        and not any(axis.get_legend() for axis in figure.axes)
    )


@pytest.mark.parametrize(
    "change, words",
    [
        ((0.1, 0.01, 0.2), "higher"),
        ((-0.1, -0.2, -0.01), "lower"),
        ((0.1, -0.01, 0.2), "undecided"),
        ((0.1, float("nan"), float("nan")), "undecided"),
    ],
)
def test_what_quality_goes_with_is_said_as_far_as_the_intervals_bear_it_out(
    measured, shipped, monkeypatch, change, words
):
    monkeypatch.setattr(ch04_pruning, "paired_bootstrap", lambda one, other: {"eao": change})
    said = ch04_pruning.quality_finding(measured, shipped)
    lines = [line for line in said.split("\n") if line.startswith("- ")]
    assert [line.count(f", {words}") for line in lines] == [1, 2, 2]
    assert ("do not show that EAO depends" in said) == (words == "undecided")
    assert ("they show that fewer channels cost EAO" in said) == (words == "lower")


def test_the_full_size_channels_are_four_times_the_demos():
    found = pruned.scores()
    for size, config in pruned.full_configs().items():
        keep = pruning.choose(pruned.demo_config(), found, int(size), times=4).keep
        assert pruning.mask_layers(config) == {
            name: 4 * count for name, count in pruning.counts(keep).items()
        }


def speed_row(parameters: float, ratio: tuple, multiple: int = 1, precision: str = "INT8") -> dict:
    return {
        "framework": "OpenVINO 1",
        "precision": precision,
        "place": int(parameters < 40e6),
        "parameters": parameters,
        "multiple": multiple,
        "frame_ms": 10.0,
        "frame_ms_low": 9.0,
        "frame_ms_high": 11.0,
        "fps": 100.0,
        "search_ms": 8.0,
        "plan_mb": 30.0,
        "ratio": 8.0,
        "ratio_low": 7.5,
        "ratio_high": 8.25,
        **dict(zip(("whole_ratio", "whole_ratio_low", "whole_ratio_high"), ratio)),
    }


def speeds(rows: list, missing: tuple = ()) -> EngineSpeed:
    return EngineSpeed(rows, {}, {}, missing, 54_000_000, "openvino", "run", {})


def test_the_aim_at_full_size_is_judged_by_every_round():
    rows = [
        speed_row(45.5e6, (1, 1, 1)),
        speed_row(30e6, (1.2, 1.1, 1.3)),
        speed_row(12e6, (1.9, 1.8, 1.95)),
        speed_row(12e6, (2.9, 2.8, 3), precision="FP32"),
        speed_row(11.9e6, (2.2, 2.1, 2.3), 32),
    ]

    def finding(rows):
        return ch04_pruning.full_size_finding(speeds(rows), thesis.table("table_4_5"), 2.0)

    assert "12.0 M: 1.90 times (1.80–1.95), missed in every round" in finding(rows)
    assert "11.9 M (multiples of 32): 2.20 times (2.10–2.30), reached in every round" in finding(
        rows
    )
    assert "1.52 times (94.4 and 62.1 FPS, table 4.5)" in finding(rows)
    assert "faster in every round with OpenVINO 1 INT8 (2.20 times" in finding(rows)
    rows[-1] = speed_row(11.9e6, (2.2, 1.9, 2.3), 32)
    assert "reached in some rounds and missed in others" in finding(rows)
    assert "multiples of 32 no engine is faster in every round" in finding(rows)
    faster = [
        speed_row(12e6, (2, 2, 2), precision="FP16"),
        speed_row(11.9e6, (3, 3, 3), 32, "FP16"),
    ]
    assert "with OpenVINO 1 FP16 (3.00 times" in (said := finding([*rows, *faster]))
    assert "with OpenVINO 1 INT8 no gain can be told" in said
    assert "could be timed" in finding([])
    table = ch04_pruning.full_size(speeds(rows, ("FP16 is missing",)), "Caption.")
    assert ch04_engines.ROUNDS in table.caption and table.rows[0][6] == ("8.0", "7.5–8.2")
    assert [row[0] for row in table.rows] == [
        "45.5 M",
        "30.0 M",
        "12.0 M",
        "12.0 M",
        "11.9 M (multiples of 32)",
    ]
    assert table.rows[2][-1] == ("1.90", "1.80–1.95") and "FP16 is missing" in table.caption


def test_a_resumed_training_with_a_dip_is_called_one():
    assert "no dip to recover" in ch04_pruning.resumed_finding({"top1": 0.0, "top5": 0.0})
    assert "3 points apart" in ch04_pruning.resumed_finding({"top1": 0.03, "top5": 0.01})


def test_fine_tuning_is_compared_with_the_thesiss():
    rows = [
        {"top1": 10.0, "top1_low": 8.0, "top1_high": 12.0},
        {"top1": 30.0, "top1_low": 28.0, "top1_high": 32.0},
        {"top1": 11.0, "top1_low": 9.0, "top1_high": 13.0},
    ]
    text = ch04_pruning.finetuning_finding(rows, thesis.table("table_4_4"))
    assert "by 4.5 to 6.2 points" in text or "by 4.6 to 6.2 points" in text
    assert "1 of 2 pruned networks beat the whole one, by 1 to 20 points" in text


def test_the_demo_choices_have_the_thesiss_shares():
    whole = pruning.backbone_parameters(pruned.demo_config())
    for share, choice in pruned.choices().items():
        assert choice.parameters == pytest.approx(share * whole, rel=0.01)
        assert np.concatenate(list(choice.keep.values())).sum() >= choice.k
