"""Section 4.2's chapters on a small benchmark: every mixture measured once, kept, and shown beside
the thesis's rows."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

from lib.engines.deploy import RECIPES, Deployment, Quantisation
from lib.engines.zoo import DEMO_SETTINGS, DEMO_WEIGHTS, FOLDER
from lib.errors import InputError
from lib.measure import full_size, quality, variants, worker
from lib.measure.measurement import Measurement, frames_tracked
from lib.report import ch04_engines, thesis
from lib.report.tables import ABSENT, Table, Text
from lib.siamrpn.checkpoint import load_network
from lib.siamrpn.network import NetworkConfig
from lib.vot.dataset import Dataset, load_dataset
from lib.vot.metrics import evaluate, paired_bootstrap
from lib.vot.protocol import FAILURE
from lib.vot.results import read_results

from .helpers import made_up_speed, page

pytest.importorskip("openvino")
numpy_helper = pytest.importorskip("onnx").numpy_helper


@pytest.fixture(scope="module")
def dataset(small: Path) -> Dataset:
    return load_dataset(small)


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


def test_the_27_mixtures_are_the_thesis_s_27() -> None:
    ours = {(v.target, v.search, v.xcorr) for v in variants.mixtures("demo", "openvino")}
    theirs = ch04_engines.with_pure_rows(thesis.table("table_4_3"), thesis.table("table_4_2"))
    assert len(theirs) == len(ours) == 27
    assert {
        tuple(str(row[name]).lower() for name in ("target", "search", "xcorr")) for row in theirs
    } == ours


def test_names_tell_mixtures_apart() -> None:
    every = [
        *variants.baseline("demo"),
        *variants.mixtures("demo", "openvino"),
        *variants.calibrations("demo", "openvino"),
        *variants.xcorr_recipes("demo", "openvino"),
    ]
    by_name = {variant.name: variant for variant in every}
    assert all(by_name[variant.name] == variant for variant in every)
    assert len(by_name) == 1 + 27 + 5 + 2 + len(RECIPES), (
        "one calibration and the FP16 row are among the mixtures"
    )


def test_the_page_of_mixtures_says_what_the_raw_files_say(
    mixtures: list[Measurement],
    dataset: Dataset,
    small: Path,
    run: str,
    weights: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(full_size, "engine_speed", lambda run, framework: made_up_speed(framework))
    shown = page(
        "04_2_1_mixed_precision", dataset=str(small), run=run, weights=weights, framework="openvino"
    )
    table = shown[1]
    assert isinstance(table, Table) and len(table.rows) == 27
    for variant, row in zip(variants.mixtures(weights, "openvino"), table.rows):
        again = evaluate(dataset, read_results(Path(run) / dataset.name / variant.name, dataset))
        assert row[5][0] == f"{again.eao:.3f}"
    assert [type(each) for each in shown[2:]] == [Text, Figure, Text, Figure, Text, Table, Text]
    assert len(shown[-2].rows) == len(RECIPES) + 3, (
        "two recipes with two methods, and the row that is not quantised"
    )
    for name, rows in (("04_2_1_mixed_precision", 27), ("04_2_1_xcorr_recipes", len(RECIPES) + 3)):
        assert len(pd.read_csv(Path(run) / f"{name}.csv")) == rows


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


def test_differences_are_paired_and_to_the_row_that_the_head_names(
    engines: list[Measurement],
) -> None:
    measured = engines
    value, low, high = paired_bootstrap(measured[2].evaluation, measured[0].evaluation)["eao"]
    text, _ = ch04_engines.eao_difference(measured[2], measured[0])
    assert float(text.strip(" *")) == pytest.approx(value, abs=0.0005) and text.endswith("*") == (
        low > 0 or high < 0
    )
    change = measured[2].evaluation.eao - measured[0].evaluation.eao
    said = ch04_engines.verdict(measured[2], measured[0], 0.02)
    assert (
        ch04_engines.signed(change, 4) in said
        and "within 0.02, the limit that this book sets" in said
    )
    table = ch04_engines.quantisations(measured, measured[0], ch04_engines.recipe_name, "Caption.")
    assert (
        f"these {len(measured[0].evaluation.sequences)} sequences cannot tell the difference from 0"
        in table.caption
    )


@pytest.mark.parametrize(
    "given, text",
    [
        ((0.0123, -0.0012, 0.0213), ("+0.012", "(-0.001 to +0.021)")),
        ((-0.0002, -0.0012, 0.0213), ("0.000", "(-0.001 to +0.021)")),
        ((0.0013, 0.00045, 0.0024), ("+0.0013 *", "(+0.0004 to +0.0024)")),
        ((-0.0013, -0.0024, -0.00004), ("-0.00130 *", "(-0.00240 to -0.00004)")),
        ((0.0016, -0.00002, 0.0035), ("+0.0016", "(0.0000 to +0.0035)")),
        ((0.0, 0.0, 0.0), ("0.000", "(0.000 to 0.000)")),
        ((0.5, float("nan"), float("nan")), "+0.500"),
    ],
)
def test_a_marked_interval_never_shows_0_and_no_zero_has_a_sign(given, text) -> None:
    assert ch04_engines.difference(*given) == text


def test_the_thesiss_values_stand_under_ours_as_printed(mixtures: list[Measurement]) -> None:
    measured = full_size.with_speed(mixtures, made_up_speed())
    printed = ch04_engines.with_pure_rows(thesis.rows("table_4_3"), thesis.rows("table_4_2"))
    table = ch04_engines.mixtures(measured, measured[0], printed, "Caption.")
    rows = {tuple(row[:3]): row for row in table.rows}
    assert table.heads[7] == "FPS, full-size network"
    assert [rows[(level,) * 3][7][0] for level in ("FP32", "FP16", "INT8")] == [
        "8.9",
        "17.5",
        "41.7",
    ], "1000 / (1.1 x + 2) ms"
    assert [rows["FP32", "FP32", "INT8"][place][-1] for place in (3, 4, 5, 7)] == [
        "thesis 0.539",
        "thesis 0.754",
        "thesis 0.170",
        "thesis 13.4",
    ]
    assert (
        rows["FP32", "INT8", "INT8"][7][-1] == "thesis 64.0"
        and rows["FP32", "FP32", "FP32"][3][-1] == "thesis 0.6"
    )
    assert (
        "best of" not in (said := ch04_engines.beyond_noise(measured, measured[0]))
        and "out of 27" in said
    )


def test_quality_that_was_not_timed_has_a_dash_for_its_speed(engines: list[Measurement]) -> None:
    printed = ch04_engines.with_pure_rows(thesis.rows("table_4_3"), thesis.rows("table_4_2"))
    table = ch04_engines.mixtures(engines, engines[0], printed, "Caption.")
    assert (
        table.heads[7] == "FPS, tracked frames"
        and [row[7][0] for row in table.rows] == [ABSENT] * 3
    )


def test_a_finer_digit_stands_in_brackets_beside_the_printed_one(
    engines: list[Measurement],
) -> None:
    measured = full_size.with_speed(engines, made_up_speed())
    baseline = thesis.table("table_4_1").tail(1).assign(precision="FP32")
    reported = pd.concat([baseline, thesis.table("table_4_2")], ignore_index=True)
    rows = ch04_engines.engines(
        measured, measured[0], reported, thesis.table("digits"), "Caption."
    ).rows[len(measured) :]
    assert (rows[0][2], rows[0][6]) == (("0.6", "(0.602)"), ("11", "(11.1)")) and rows[3][2] == (
        "0.6",
        "(0.606)",
    )
    assert [row[5] for row in rows[1:]] == ["-0.021", "-0.024", "-0.066"]


def test_frames_in_which_both_lost_the_target_are_named_and_not_compared(
    engines: list[Measurement],
) -> None:
    one = engines[0]
    lost = sum(int((trajectory.codes == FAILURE).sum()) for trajectory in one.trajectories.values())
    compared = sum(map(frames_tracked, one.trajectories.values())) - lost
    said = ch04_engines.same_boxes(one, one)
    assert f"over {compared:,} tracked frames with a box" in said and (
        f"in {lost} more" in said
    ) == (lost > 0)


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
    rows = [
        {"framework": "OpenVINO 1", "precision": precision, "plan_mb": 9}
        for precision in ("FP32", "FP16")
    ]
    assert "keeps the weights of an FP16 plan in FP32" in ch04_engines.about_plans(rows)
    assert not ch04_engines.about_plans(rows[:1])


@pytest.mark.parametrize("allowed, word", [(1.0, "holds"), (-1.0, "does not hold")])
def test_a_verdict_follows_its_rule(engines: list[Measurement], allowed: float, word: str) -> None:
    fp32, _, int8 = engines
    assert f"** {word} the EAO" in ch04_engines.verdict(int8, fp32, allowed)


def test_networks_are_compared_with_the_whole_one_of_the_same_engine_and_that_one_with_itself() -> (
    None
):
    def stand_in(place: int, seconds: float) -> Any:
        times = {"frame": np.array([[seconds]])}
        return SimpleNamespace(candidate=SimpleNamespace(place=place), times=times, row=dict)

    def found(group: str, *timed: Any) -> list[float]:
        return [row["whole_ratio"] for row in full_size._rows(networks, timed, group)]

    networks = [(1, NetworkConfig.resnet50(0.125)), (4, NetworkConfig.resnet50(0.0625))]
    assert found("pytorch", stand_in(0, 4), stand_in(1, 1)) == [1, 4]
    assert found("openvino-int8", stand_in(0, 4), stand_in(0, 2), stand_in(1, 1)) == [2]
    assert found("openvino-mixtures", stand_in(0, 4), stand_in(0, 2), stand_in(0, 1)) == [1, 1]


def test_the_tables_of_speed_have_a_row_an_engine_and_say_how_they_were_timed_and_what_is_missing() -> (
    None
):
    speed = made_up_speed(missing=["TensorRT: no GPU here"])
    table = ch04_engines.speeds(speed, "Speeds.")
    assert [row[0] for row in table.rows] == [
        ("PyTorch 1", "FP32"),
        *(("OpenVINO 1", level) for level in ch04_engines.LEVELS),
    ]
    assert ch04_engines.ROUNDS in table.caption and ch04_engines.APART in table.caption
    assert "Missing: TensorRT: no GPU here." in table.caption
    assert ch04_engines.reinitialisations(speed, "x").rows == [
        [level, ("15.0", "12.5–17.5"), ("150.0", "125.0–175.0")] for level in ch04_engines.LEVELS
    ]


@pytest.mark.parametrize("network", ["target", "search", "xcorr"])
def test_every_figure_of_speed_has_titles_units_and_a_note(network: str) -> None:
    speed = made_up_speed()
    for figure in (
        ch04_engines.layer_types(speed, network, "the note"),
        ch04_engines.frame_parts(speed, "the note"),
    ):
        assert all(axis.get_title(loc="left") and "ms" in axis.get_xlabel() for axis in figure.axes)
        assert "the note" in figure._supxlabel.get_text()


def test_figures_of_quality_draw_the_measured_and_the_reported_values(
    engines: list[Measurement], weights: str, dataset: Dataset, run: str
) -> None:
    [plain] = quality.measure(variants.baseline(weights), dataset, run, shown=False)
    measured = full_size.with_speed([plain, *engines], made_up_speed())
    reported = thesis.table("digits")
    figure = ch04_engines.speed_quality(measured, reported, "note")
    drawn = [
        tuple(np.ravel(line.get_data()))
        for line in figure.axes[1].lines
        if len(line.get_xdata()) == 1
    ]
    assert drawn == list(zip(reported["fps"], reported["eao"]))
    assert len(ch04_engines.attributes(measured, thesis.table("figure_4_5"), "note").axes) == 2
    same = ch04_engines.same_boxes(measured[0], measured[1])
    assert "PyTorch FP32 and OpenVINO FP32" in same


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


def test_unknown_precisions_and_frameworks_are_refused() -> None:
    with pytest.raises(InputError, match="unknown precision 'fp8'"):
        variants.mixture("demo", "openvino", ("fp8", "fp32", "fp32"))
    with pytest.raises(InputError, match="unknown framework 'tvm'"):
        variants.mixture("demo", "tvm", ["fp32"] * 3)
    with pytest.raises(InputError, match="unknown 'median'"):
        Quantisation(method="median")
