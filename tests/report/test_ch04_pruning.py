"""Sections 3.6, 4.2.2 and 4.2.3 and the page of the demo model, executed: their own code agrees
with the library, the logs and the thesis."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any, Sequence

import numpy as np
import pandas as pd
import pytest
import torch
from matplotlib.figure import Figure

from lib import pruning
from lib.measure import full_size, pruned, quality
from lib.measure.measurement import Measurement
from lib.measure.runs import Lacking
from lib.measure.variants import Variant, baseline
from lib.report import thesis
from lib.report.tables import Text
from lib.vot.dataset import Dataset, axis_aligned_box
from lib.vot.metrics import evaluate, paired_bootstrap
from lib.vot.protocol import Trajectory

from .helpers import Page, executed, made_up_speed

# -- Section 3.6 -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def method(one_thread: None) -> Page:
    return executed("03_6_pruning")


def test_the_backbone_is_drawn_and_counted_from_the_real_network(method: Page) -> None:
    figures = method.figures()
    assert list(figures) == ["fig-3-11", "fig-3-6-scores", "fig-3-6-k", "fig-3-6-kept"]
    drawn = " ".join(text.get_text() for text in figures["fig-3-11"].axes[0].texts)
    assert "2048 channels" in drawn and "dilation 4" in drawn
    assert method.table("Channels to score").rows[0][1:] == ["45,528,128", "11,392"]
    *_, channels = method.tables()
    assert len(channels.rows) == 17 and channels.rows[0][1] == "2,857,232"


@pytest.mark.parametrize("layer", ["layer1.0.conv2", "layer3.sum", "layer4.2.conv1"])
def test_the_pages_mask_and_score_are_the_librarys(method: Page, layer: str) -> None:
    channel = 5
    [score] = method.scorer.score(layer, [channel])
    assert method.score(layer, channel) == pytest.approx(score, rel=1e-3)
    keep = {layer: np.arange(len(method.scores[layer])) != channel}
    theirs = pruning.masked(method.classifier, keep).state_dict()
    ours = method.masked(method.classifier, layer, channel).state_dict()
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_other_ways_to_score_keep_the_order(method: Page) -> None:
    quick, exact = (float(row[2]) for row in method.table("Rank correlation").rows)
    assert quick > 0.9 and exact > 0.99


def test_the_slider_shows_what_a_number_of_channels_keeps(method: Page) -> None:
    [chart] = method.shown_as(method.Chart)
    [slider] = chart.chart["layout"]["sliders"]
    labels = [int(step["label"]) for step in slider["steps"]]
    assert set(method.chosen.values()) < set(labels) and labels == sorted(labels)
    assert slider["steps"][slider["active"]]["label"] == str(method.chosen[0.5])
    first, *_, last = slider["steps"]
    assert set(last["args"][0]["y"][0]) == {100.0} and "1.00 of all" in str(last["args"][1])
    assert min(first["args"][0]["y"][0]) >= 30
    k, kept = labels[12], slider["steps"][12]["args"][0]["y"][0]
    every = np.concatenate([*method.scores.values()])
    floor = np.sort(every)[-k]
    for values, share in zip(method.scores.values(), kept):
        stays = max(int((values >= floor).sum()), int(np.ceil(0.3 * len(values))))
        assert share == pytest.approx(100 * stays / len(values), abs=0.06)


def test_the_page_chooses_for_a_budget_as_the_library_does(method: Page) -> None:
    assert method.ranks(np.array([0.1, 0.3, 0.2, 0.3])).tolist() == [3, 0, 2, 1]
    whole = pruning.backbone_parameters(pruned.demo_config())
    for share, choice in pruned.choices().items():
        assert method.chosen[share] == choice.k
        assert {name: keep.tolist() for name, keep in method.keeps[share].items()} == {
            name: keep.tolist() for name, keep in choice.keep.items()
        }
        assert choice.size == pytest.approx(share * whole, rel=0.01)
        assert method.parameters(choice.k) == choice.size
    nothing, least = method.keep_best(0), pruning.keep_best(method.scores, 0)
    assert all(np.array_equal(nothing[layer], least[layer]) for layer in least)


def test_the_cut_networks_compute_what_the_masked_ones_do(method: Page) -> None:
    rows = method.table("Largest difference").rows
    assert len(rows) == 3 and max(float(row[-1]) for row in rows) < 1e-5
    [said] = [str(each) for _, each in method.cells_shown if "behind conv2" in str(each)]
    assert float(re.findall(r"\d\.\de-\d\d", said)[0]) < 1e-5


def test_fine_tuning_lowers_the_loss(method: Page) -> None:
    assert method.losses[-1] < method.losses[0]
    assert pruning.backbone_parameters(method.student.config) == method.parameters(
        method.chosen[0.26]
    )


def test_the_full_size_channels_are_four_times_the_demos() -> None:
    found = pruned.scores()
    for size, config in pruned.full_configs().items():
        keep = pruning.choose(pruned.demo_config(), found, int(size), times=4).keep
        assert pruning.mask_layers(config) == {
            name: 4 * count for name, count in pruning.counts(keep).items()
        }


# -- Section 4.2.2, and the demo model -------------------------------------------------------------


@pytest.fixture(scope="module")
def trainings(tmp_path_factory: pytest.TempPathFactory) -> Page:
    run = tmp_path_factory.mktemp("trainings") / "run"
    return executed("04_2_2_pruned_backbone", run=str(run))


def test_the_logs_become_table_4_4(trainings: Page) -> None:
    assert len(trainings.figures()) == 4
    rows = pd.read_csv(Path(trainings.run) / "04_2_2_pruned_backbone.csv")
    shown = trainings.table("Compression").rows
    reported = thesis.table("table_4_4")["top1"]
    for place, share in enumerate((1.0, *pruned.SHARES)):
        last = pruned.training_log("head" if share == 1 else f"finetune_{round(100 * share)}").iloc[
            -1
        ]
        row = rows.iloc[place]
        assert row["top1"] == pytest.approx(100 * last["top1"])
        assert row["top1_low"] < row["top1"] < row["top1_high"]
        assert row["compression"] == pytest.approx(share, rel=0.01)
        if place:
            assert float(shown[place][3]) == pytest.approx(row["top1"] - rows["top1"][0], abs=0.051)
            assert float(shown[place][7]) == pytest.approx(reported[place] - reported[0], abs=0.051)
    assert shown[0][6] == "69.796"


@pytest.mark.parametrize(
    "share, count, low, high", [(0.5, 100, 0.4038, 0.5962), (0.0, 50, 0.0, 0.0714)]
)
def test_wilsons_interval(
    trainings: Page, share: float, count: int, low: float, high: float
) -> None:
    assert trainings.wilson(share, count) == pytest.approx((low, high), abs=2e-4)


def test_the_demo_models_training_is_shown_from_its_log_and_steps() -> None:
    page = executed("A_demo_model")
    classes, boxes, distilled = (axis.lines[0] for axis in page.figures()["fig-demo-training"].axes)
    assert len(classes.get_xdata()) == len(boxes.get_xdata()) == (page.log["total"] > 0).sum()
    assert distilled.get_xdata()[0] < classes.get_xdata()[0], "the backbone learns first"
    shown = page.table("Mean of the four").rows
    assert [float(row[1]) for row in shown] == pytest.approx(page.steps["mean"].tolist(), abs=6e-4)


# -- Section 4.2.3 ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def shipped(dataset: Dataset, small_run: str) -> Measurement:
    """The demo tracker."""
    return quality.measure(baseline("demo"), dataset, small_run, shown=False)[0]


def engines_page(shipped: Measurement, small: Path, run: Path, lacking: str = "") -> Page:
    """The page as if each variant had given the demo tracker's boxes, but somewhat smaller than the
    one before; lacking: the name of one that the run does not have."""

    def measure(listed: Sequence[Variant], *_: Any) -> list[Any]:
        return [shrunk(variant, place) for place, variant in enumerate(listed)]

    def shrunk(variant: Variant, place: int) -> Any:
        if variant.name == lacking:
            return Lacking(variant.title, str(run), variant=variant, speed={})
        size = np.array([1, 1, 0.97**place, 0.97**place])
        boxes = {
            name: Trajectory(
                tuple(entry * size if len(entry) == 4 else entry for entry in each.entries),
                each.seconds,
            )
            for name, each in shipped.trajectories.items()
        }
        evaluation = evaluate(shipped.dataset, {name: [each] for name, each in boxes.items()})
        return replace(shipped, variant=variant, trajectories=boxes, evaluation=evaluation)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(quality, "measure", measure)
        patch.setattr(full_size, "engine_speed", lambda run, framework: made_up_speed(framework))
        given = {"dataset": str(small), "run": str(run), "framework": "openvino"}
        return executed("04_2_3_pruned_engines", **given)


@pytest.fixture(scope="module")
def engines(shipped: Measurement, small: Path, tmp_path_factory: pytest.TempPathFactory) -> Page:
    pytest.importorskip("openvino")
    return engines_page(shipped, small, tmp_path_factory.mktemp("engines") / "run")


def test_the_page_measures_every_tracker_that_the_repository_has(engines: Page) -> None:
    assert pruned.trackers() == engines.TRACKERS
    trainings = [tracker.training for tracker in engines.TRACKERS if tracker.share == 0.26]
    assert trainings == ["frozen", "distilled", "recalibrated", "cut"]


def test_table_4_5_has_a_row_for_every_tracker_and_engine(engines: Page) -> None:
    shown = engines.table("Plan, MB")
    assert len(shown.rows) == len(engines.measured) == 4 * 4 + 3 + 2 + 1
    for row, theirs in zip(shown.rows, thesis.rows("table_4_5")):
        assert row[7:] == [theirs[name] for name in ("accuracy", "robustness", "eao", "fps")]
    assert all(row[7:] == ["–"] * 4 for row in shown.rows[16:]), "it has no other trainings"
    for row, one in zip(shown.rows, engines.measured):
        assert row[4][0] == f"{one.evaluation.eao:.3f}"
    assert shown.heads[5:7] == ["FPS, full-size network", "Plan, MB"]
    assert [shown.rows[place][6] for place in (0, 3, 15)] == ["–", "45.5", "12.0"]
    written = pd.read_csv(Path(engines.run) / "04_2_3_pruned_engines.csv")
    assert written["share"].tolist()[:8] == [1.0] * 4 + [0.66] * 4
    here, there = engines.figures()["fig-4-10"].axes
    points = [[line for line in axis.lines if len(line.get_xdata())] for axis in (here, there)]
    points = [[line for line in each if line.get_marker() != "None"] for each in points]
    assert [len(each) for each in points] == [22, 16]
    assert max(line.get_ydata()[0] for line in points[1]) == 0.344


def test_trackers_are_compared_by_the_paired_bootstrap(engines: Page) -> None:
    [said] = [str(each) for _, each in engines.cells_shown if "unpruned frozen" in str(each)]
    assert "0.62 of" in said and "0.51 of" in said, "0.212 of 0.344, and of 0.413"
    pairs = [pair for group in engines.PAIRS.values() for pair in group]
    axis = engines.figures()["fig-pairs"].axes[0]
    assert [label.get_text() for label in axis.get_yticklabels()] == [
        " − ".join(pair) for pair in pairs
    ]
    marks = [line for line in axis.lines if len(line.get_xdata()) == 1]
    for mark, pair in zip(marks, pairs):
        one, other = (engines.plain[title].evaluation for title in pair)
        expected = paired_bootstrap(one, other)["eao"]
        assert engines.paired_bootstrap(one, other) == pytest.approx(expected)
        assert mark.get_xdata()[0] == pytest.approx(one.eao - other.eao)


def test_the_area_of_boxes_is_beside_the_annotated_one(engines: Page) -> None:
    shown = engines.table("Box area / annotated").rows
    assert [row[0] for row in shown] == [*(one.title for one in engines.TRACKERS), "demo tracker"]
    first, *_, last = (float(row[-1]) for row in shown[:-1])
    place = len(engines.measured) - 1
    assert last / first == pytest.approx(0.97 ** (2 * place), rel=0.02)
    annotated = {
        video.name: Trajectory(
            tuple(axis_aligned_box(region) for region in video.regions), np.zeros(len(video))
        )
        for video in engines.shipped.dataset
    }
    assert engines.box_area(replace(engines.shipped, trajectories=annotated)) == pytest.approx(1)


def test_the_full_size_networks_are_in_one_table(engines: Page) -> None:
    shown = engines.table("× whole network")
    assert len(shown.rows) == 5 * 4
    assert (("11.9 M", "multiples of 32"), "31", "OpenVINO 1 INT8") in [
        tuple(row[:3]) for row in shown.rows
    ]
    whole, *_ = shown.rows
    # 89.2 GFLOP are the backbone's (counted apart from this project)
    assert 89.2 < engines.OPERATIONS[0] / 1e9 < 100 and whole[1] == "97"
    [int8] = [row for row in shown.rows if row[:3] == [("12.0 M", ""), "31", "OpenVINO 1 INT8"]]
    assert int8[-1] == ("3.00", "2.70–3.30"), "the smallest and the largest round"
    [said] = [str(each) for _, each in engines.cells_shown if "a ratio of" in str(each)]
    assert f"{94.4 / 62.1:.2f}" in said
    assert len(pd.read_csv(Path(engines.run) / "04_2_3_full_size.csv")) == len(shown.rows)


def test_a_run_without_a_variant_is_shown_all_the_same(
    shipped: Measurement, small: Path, tmp_path: Path
) -> None:
    pytest.importorskip("openvino")
    page = engines_page(shipped, small, tmp_path / "run", lacking="frozen_50-pytorch-fp32")
    shown = page.table("Plan, MB")
    assert len(shown.rows) == 21 and "Missing here" in shown.caption
    replaced = [each for _, each in page.cells_shown if str(each).startswith("Missing here")]
    assert len(replaced) == 4 and not any(isinstance(each, Figure) for each in replaced)
    assert isinstance(replaced[0], Text) and page.table("× whole network").rows
