"""Sections 4.1, 4.2 and 4.2.1 on a small benchmark: every mixture measured once, kept, and shown
beside the thesis's rows."""

from __future__ import annotations

import io
import re
import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Iterator

import numpy as np
import pandas as pd
import pytest

from lib.engines.deploy import RECIPES, Deployment, Quantisation
from lib.engines.zoo import DEMO_SETTINGS, DEMO_WEIGHTS, FOLDER
from lib.measure import full_size, quality, variants, worker
from lib.measure.measurement import Measurement
from lib.report import compare, thesis
from lib.report.tables import ABSENT, Text
from lib.siamrpn.checkpoint import load_network
from lib.siamrpn.network import NetworkConfig
from lib.vot.dataset import Dataset
from lib.vot.metrics import Evaluation, evaluate, paired_bootstrap
from lib.vot.protocol import Trajectory
from lib.vot.results import read_results

from .helpers import BOX, COUNT, LOST, SKIP, Page, assert_readable, executed, made_up_speed

pytest.importorskip("openvino")
numpy_helper = pytest.importorskip("onnx").numpy_helper


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The smallest tracker that follows its target, with its ranges, under a name that stands for
    no pruned one."""
    folder = tmp_path_factory.mktemp("weights")
    for ending in (".pth", ".calibration.csv"):
        shutil.copy(FOLDER / f"distilled_26{ending}", folder / f"own{ending}")
    shutil.copy(DEMO_SETTINGS, folder)
    return str(folder / "own.pth")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(tmp_path_factory.mktemp("runs") / "mixtures")


@pytest.fixture(scope="module")
def mixtures(weights: str, dataset: Dataset, run: str) -> list[Measurement]:
    return quality.measure(variants.mixtures(weights, "openvino"), dataset, run, shown=False)


@pytest.fixture(scope="module")
def engines(weights: str, mixtures: list[Measurement]) -> list[Measurement]:
    """FP32, FP16 and INT8 throughout."""
    found = {one.variant: one for one in mixtures}
    return [found[variant] for variant in variants.engines(weights, "openvino")]


@pytest.fixture(scope="module")
def speeds() -> Iterator[None]:
    """Full-size networks that nobody timed."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(full_size, "engine_speed", lambda _, framework: made_up_speed(framework))
        line = {"row": "measured", "framework": "PyTorch", "fps_tracked": 1.5}
        patch.setattr(full_size, "baseline_speed", lambda _: line)
        yield


@pytest.fixture(scope="module")
def baseline_page(small: Path, small_run: str, speeds: None) -> Page:
    return executed("04_1_baseline", dataset=str(small), run=small_run)


@pytest.fixture(scope="module")
def parameters(
    small: Path, run: str, weights: str, mixtures: list[Measurement], speeds: None
) -> dict[str, str]:
    return {"dataset": str(small), "run": run, "weights": weights, "framework": "openvino"}


@pytest.fixture(scope="module")
def engines_page(parameters: dict[str, str]) -> Page:
    return executed("04_2_engines", **parameters)


@pytest.fixture(scope="module")
def mixtures_page(parameters: dict[str, str]) -> Page:
    return executed("04_2_1_mixed_precision", **parameters)


# -- Section 4.1 -----------------------------------------------------------------------------------


def test_table_4_1_has_what_was_printed_and_what_was_measured(
    baseline_page: Page, dataset: Dataset, small_run: str
) -> None:
    table = baseline_page.tables()[0]
    paper, xavier, here, large = table.rows
    assert [row[0] for row in table.rows] == ["published", "thesis", *["measured now"] * 2]
    assert paper[4:9] == ["0.6", "0.234", "0.414", "50", "35"]
    assert xavier[4:9] == ["0.6", "0.243", "0.413", "52", "11"]
    again = evaluate(
        dataset, read_results(Path(small_run) / dataset.name / "pytorch-fp32", dataset)
    )
    assert here[6][0] == f"{again.eao:.3f}" and here[8:] == [ABSENT] * 2, "no speed"
    assert large[9] == "1.5" and large[4:8] == [ABSENT] * 4, "no quality"


def test_sequences_are_counted_one_by_one(
    baseline_page: Page, still: Dataset, evaluated: Evaluation
) -> None:
    rows = baseline_page.per_sequence(still, evaluated, "caption").rows
    assert [row[0][0] for row in rows] == ["b", "a", "c"], "most failures first"
    assert rows[0][1:3] == [f"{COUNT - 4}", "1"] and rows[1][2] == "0"


def test_frames_are_drawn_into_the_page(
    baseline_page: Page, still: Dataset, beside: dict[str, Trajectory]
) -> None:
    figure, out = baseline_page.gallery(still, beside, "the note"), io.StringIO()
    assert_readable(figure, "the note")
    figure.savefig(out, format="svg")
    drawn = re.sub(r"xmlns:\w+=\"[^\"]+\"", "", out.getvalue())
    assert "data:image/png;base64" in drawn and 'href="http' not in drawn


def test_the_failure_shown_is_followed_by_a_new_start(
    baseline_page: Page, still: Dataset, beside: dict[str, Trajectory]
) -> None:
    sequence, index = baseline_page.find_failure(still, beside, SKIP)
    assert (sequence.name, index) == ("b", LOST)
    lost = {"b": {LOST: np.array(BOX) + (50, 0, 0, 0)}}
    assert_readable(baseline_page.failure(still, beside, lost, SKIP, "the note"), "the note")
    calm = {name: beside["a" if name == "b" else name] for name in beside}
    assert baseline_page.find_failure(still, calm, SKIP) is None
    assert isinstance(baseline_page.failure(still, calm, {}, SKIP, "the note"), Text)
    for figure in baseline_page.figures().values():
        assert isinstance(figure, Text) or assert_readable(figure, "Run small") is None


# -- Variants --------------------------------------------------------------------------------------


def test_pages_list_the_variants_that_the_command_line_measures(
    engines_page: Page, mixtures_page: Page, weights: str
) -> None:
    plain = variants.baseline(weights)
    assert engines_page.tested == [*plain, *variants.engines(weights, "openvino")]
    assert engines_page.ways == variants.calibrations(weights, "openvino")
    assert mixtures_page.mixtures == variants.mixtures(weights, "openvino")
    found = [mixtures_page.fp16, *mixtures_page.recipes]
    assert found == variants.xcorr_recipes(weights, "openvino")
    assert {recipe for recipe, *_ in mixtures_page.WAYS} == set(RECIPES)


def test_the_27_mixtures_are_the_thesis_s_27(mixtures_page: Page) -> None:
    ours = {(v.target, v.search, v.xcorr) for v in mixtures_page.mixtures}
    theirs = mixtures_page.theirs[["target", "search", "xcorr"]].to_numpy().tolist()
    assert len(theirs) == len(ours) == 27
    assert {tuple(name.lower() for name in row) for row in theirs} == ours


def test_names_tell_mixtures_apart() -> None:
    every = [
        *variants.baseline("demo"),
        *variants.mixtures("demo", "openvino"),
        *variants.calibrations("demo", "openvino"),
        *variants.xcorr_recipes("demo", "openvino"),
    ]
    assert len({variant.name for variant in every}) == len(set(every))
    assert len(set(every)) == 1 + 27 + 5 + 2 + len(RECIPES), (
        "one calibration and the FP16 row are among the mixtures"
    )


def test_mixtures_run_in_their_precisions_and_are_measured_once(
    mixtures: list[Measurement],
    weights: str,
    dataset: Dataset,
    run: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(quality, "open_executor", lambda *_: pytest.fail("measured again"))
    again = quality.measure(variants.mixtures(weights, "openvino"), dataset, run, shown=False)
    for one, other in zip(mixtures, again):
        assert one.row() == pytest.approx(other.row(), nan_ok=True)
        assert {
            name: engine["precision"] for name, engine in one.engines.items()
        } == one.variant.precisions
        executed_in = one.engines["search"]["executed"]
        assert ("int8" in executed_in) == (one.variant.search == "int8")
        assert set(executed_in) == {"fp32"} or one.variant.search != "fp32"


# -- Section 4.2.1 ---------------------------------------------------------------------------------


def test_the_page_of_mixtures_says_what_the_raw_files_say(
    mixtures_page: Page, dataset: Dataset, run: str
) -> None:
    table, by_search, by_xcorr, recipes, _ = mixtures_page.tables()
    place = table.heads.index("EAO")
    found = []
    for variant, row in zip(mixtures_page.mixtures, table.rows):
        again = evaluate(dataset, read_results(Path(run) / dataset.name / variant.name, dataset))
        assert row[place][0] == f"{again.eao:.3f}"
        found.append((row[2], again.eao))
    eao = pd.DataFrame(found).groupby(0)[1].agg(["min", "median", "max"])
    for row in by_xcorr.rows:
        assert row[1:4] == [f"{value:.3f}" for value in eao.loc[row[0]]]
    assert [row[0] for row in by_search.rows] == list(compare.LEVELS)
    assert [row[4:] for row in by_search.rows] == [
        ["12.8", "13.2", "13.8"],
        ["33.6", "42.7", "52.9"],
        ["43.0", "60.9", "78.8"],
    ]
    assert len(recipes.rows) == len(mixtures_page.recipes) == len(RECIPES) + 2
    written = {"04_2_1_mixed_precision": 27, "04_2_1_xcorr_recipes": len(RECIPES) + 3}
    for name, rows in written.items():
        assert len(pd.read_csv(Path(run) / f"{name}.csv")) == rows
    for figure in mixtures_page.figures().values():
        assert_readable(figure, "Run ")


def test_the_thesiss_values_stand_beside_ours_as_printed(mixtures_page: Page) -> None:
    table = mixtures_page.tables()[0]
    rows = {tuple(row[:3]): dict(zip(table.heads, row)) for row in table.rows}
    fps = [rows[(level,) * 3]["FPS, full-size network"] for level in compare.LEVELS]
    assert fps == ["8.9", "17.5", "41.7"], "1000 / (1.1 x + 2) ms"
    row = rows["FP32", "FP32", "INT8"]
    printed = [row[f"{name}, thesis"] for name in ("A", "R", "EAO", "FPS")]
    assert printed == ["0.539", "0.754", "0.170", "13.4"]
    assert rows["FP32", "INT8", "INT8"]["FPS, thesis"] == "64.0"
    assert rows["FP32", "FP32", "FP32"]["A, thesis"] == "0.6"


def test_quality_that_was_not_timed_has_a_dash_for_its_speed(
    mixtures_page: Page, engines: list[Measurement]
) -> None:
    table = mixtures_page.table_4_3(engines, mixtures_page.theirs, "Caption.")
    place = table.heads.index("FPS, tracked frames")
    assert [row[place] for row in table.rows] == [ABSENT] * 3


def test_intervals_beyond_chance_are_counted(mixtures_page: Page) -> None:
    measured, base = mixtures_page.measured, mixtures_page.base
    changes = [
        paired_bootstrap(one.evaluation, base.evaluation)["eao"] for one in measured if one != base
    ]
    marked = sum(compare.leaves_out_0(low, high) for _, low, high in changes)
    assert mixtures_page.beyond_chance(measured, base).startswith(f"{marked} of 26 ")


# -- Section 4.2 -----------------------------------------------------------------------------------


def test_differences_are_paired_and_to_the_tracker_that_is_named(engines_page: Page) -> None:
    steps = engines_page.tables()[1]
    pytorch, fp32, fp16, int8 = engines_page.measured
    here, theirs = engines_page.figures()["fig-engine-changes"].axes
    marks = [line.get_xdata()[0] for line in here.lines if len(line.get_xdata()) == 1]
    assert marks == [
        paired_bootstrap(one.evaluation, pytorch.evaluation)["eao"][0] for one in (fp32, fp16, int8)
    ]
    assert theirs.lines[0].get_xdata().tolist() == pytest.approx([-0.021, -0.024, -0.066])
    for row, one, base in zip(steps.rows, (fp32, fp16, int8), (pytorch, fp32, fp32)):
        assert row[0] == (one.variant.title, f"against {base.variant.title}")
        change = paired_bootstrap(one.evaluation, base.evaluation)["eao"]
        assert row[3] == compare.difference(*change)
    assert [row[-1] for row in steps.rows] == ["-0.021", "-0.003", "-0.045"]


@pytest.mark.parametrize(
    "given, text",
    [
        ((0.0123, -0.0012, 0.0213), ("+0.012", "(-0.001 to +0.021)")),
        ((-0.0002, -0.0012, 0.0213), ("0.000", "(-0.001 to +0.021)")),
        ((0.0123, 0.0045, 0.0213), ("+0.012 *", "(+0.004 to +0.021)")),
        ((-0.0013, -0.0024, -0.00004), ("-0.001 (*)", "(-0.002 to 0.000)")),
        ((0.0016, -0.00002, 0.0035), ("+0.002", "(0.000 to +0.004)")),
        ((0.0, 0.0, 0.0), ("0.000", "(0.000 to 0.000)")),
        ((0.5, float("nan"), float("nan")), "+0.500"),
    ],
)
def test_a_mark_is_in_brackets_beside_a_bound_shown_as_0_and_no_zero_has_a_sign(
    given, text
) -> None:
    assert compare.difference(*given) == text


def test_table_4_2_has_the_thesiss_rows_with_one_more_digit(engines_page: Page) -> None:
    table = engines_page.tables()[0]
    rows = [dict(zip(table.heads, row)) for row in table.rows[4:]]
    assert [(row["A"], row["EAO"], row["FPS, full-size network"]) for row in rows] == [
        ("0.602", "0.413", "11.1"),
        ("0.603", "0.392", "13.1"),
        ("0.603", "0.389", "49.9"),
        ("0.606", "0.347", "65.7"),
    ]


def test_frames_in_which_both_lost_the_target_are_not_compared(
    engines_page: Page, beside: dict[str, Trajectory]
) -> None:
    one = replace(engines_page.pytorch, trajectories=beside)
    moved = {
        name: replace(each, entries=tuple(e + 0.25 if len(e) == 4 else e for e in each.entries))
        for name, each in beside.items()
    }
    other = replace(one, trajectories=moved)
    boxes = sum(len(entry) == 4 for each in beside.values() for entry in each.entries)
    said = engines_page.same_boxes(one, other)
    assert f"0.2500 pixels in {boxes} frames; in 0 frames" in said
    calm = replace(one, trajectories={**beside, "b": beside["c"]})
    assert f"in {1 + SKIP} frames only one" in engines_page.same_boxes(one, calm)


def test_openvino_keeps_the_weights_of_an_fp16_plan_in_fp32(tmp_path) -> None:
    deployment = Deployment(load_network(DEMO_WEIGHTS), "openvino", cache=tmp_path)
    model = deployment.model("search", "fp16")
    deployment.engine("search", "fp16")
    [plan] = [
        path.read_bytes()
        for path in tmp_path.rglob("*")
        if path.is_file() and path.stat().st_size > 100_000
    ]
    weights = [numpy_helper.to_array(weight) for weight in model.graph.initializer]
    large = [weight for weight in weights if weight.dtype == np.float16 and weight.ndim == 4]
    assert large and all(
        weight.astype(np.float32).tobytes() in plan and weight.tobytes() not in plan
        for weight in large
    )


def test_networks_are_compared_with_the_whole_one_of_the_same_engine_and_that_one_with_itself(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def stand_in(place: int, seconds: float) -> Any:
        times = {"frame": np.array([[seconds]])}
        return SimpleNamespace(place=place, variant=variants.baseline("")[0], times=times, row=dict)

    def found(group: str, *timed: Any) -> list[float]:
        return [row["whole_ratio"] for row in full_size._rows(timed, group)]

    networks = [(1, NetworkConfig.resnet50(0.125)), (4, NetworkConfig.resnet50(0.0625))]
    monkeypatch.setattr(full_size, "timed_configs", lambda: networks)
    assert found("pytorch", stand_in(0, 4), stand_in(1, 1)) == [1, 4]
    assert found("openvino-int8", stand_in(0, 4), stand_in(0, 2), stand_in(1, 1)) == [2]
    assert found("openvino-whole", stand_in(0, 4), stand_in(0, 2), stand_in(0, 1)) == [1, 1]


def test_the_tables_of_speed_have_a_row_an_engine_and_say_what_is_missing(
    engines_page: Page,
) -> None:
    speed = made_up_speed(missing=["TensorRT: no GPU here"])
    table = engines_page.frame_times(speed, engines_page.reported)
    names = [("PyTorch 1", "FP32"), *(("OpenVINO 1", level) for level in compare.LEVELS)]
    assert [tuple(row[:2]) for row in table.rows] == names
    place = table.heads.index("× PyTorch FP32, thesis")
    assert [row[place] for row in table.rows] == [ABSENT, "1.2", "4.5", "5.9"]
    assert table.rows[0][-2:] == [ABSENT] * 2 and table.rows[1][-2:] == ["45.5", "1.0"]
    assert "Missing: TensorRT: no GPU here." in table.caption
    times = engines_page.network_times(speed, "Networks.")
    assert [row[2] for row in times.rows] == ["10.00", "10.00", "5.00", "2.00"]
    assert engines_page.initialisations(speed, "x").rows == [
        [level, ("15.0", "12.5–17.5"), ("150.0", "125.0–175.0")] for level in compare.LEVELS
    ]
    one_way = {level: {"inputs": [0.01, 0.02], "refit": []} for level in ("fp32",)}
    speed = replace(speed, reinitialisation=one_way)
    assert engines_page.initialisations(speed, "x").rows[0][2] == ABSENT


def test_figures_of_section_4_2_can_be_read_and_draw_the_reported_values(
    engines_page: Page,
) -> None:
    figures = engines_page.figures()
    assert set(figures) == {
        "fig-frame-parts",
        "fig-pictures",
        "fig-engine-changes",
        "fig-calibrations",
        *(f"fig-4-{number}" for number in (1, 2, 3, 4, 5)),
    }
    for figure in figures.values():
        assert_readable(figure, "Run ")
        assert all(axis.get_title(loc="left") for axis in figure.axes)
    for name in ("fig-4-2", "fig-4-3", "fig-4-4", "fig-frame-parts"):
        assert all("ms" in axis.get_xlabel() for axis in figures[name].axes)
    drawn = [
        tuple(np.ravel(line.get_data()))
        for line in figures["fig-4-1"].axes[1].lines
        if len(line.get_xdata()) == 1
    ]
    reported = thesis.table("digits")
    assert drawn == list(zip(reported["fps"], reported["eao"]))


# -- Quantisation ----------------------------------------------------------------------------------


def test_a_calibration_from_the_benchmark_is_kept_and_another_way_is_another(
    weights: str, dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker, "CALIBRATIONS", tmp_path / "calibration")
    tested = variants.calibrations(weights, "openvino")
    [first] = [one for one in tested if one.quantisation == Quantisation("benchmark", "minmax")]
    other, whole = variants.xcorr_recipes(weights, "openvino")[-1], dataset.sequences[0]
    tags = {tag: flags[:2] for tag, flags in whole.tags.items()}
    begin = replace(whole, frames=whole.frames[:2], regions=whole.regions[:2], tags=tags)
    few = Dataset(dataset.name, dataset.path, (begin,))
    for count, variant in enumerate((first, first, other), 1):
        quality.measure([variant], few, str(tmp_path / f"run {count}"), shown=False)
        assert len(list((tmp_path / "calibration").glob("*.csv"))) == (2 if variant is other else 1)
