"""Section 4.2's chapters on a small benchmark: every mixture measured in one pass, kept, and shown beside the thesis's rows."""
from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from lib import experiments, full_size, pruning, thesis
from lib.chapters import ch04_engines
from lib.deploy import RECIPES, Deployment, Quantisation
from lib.engines import trt
from lib.errors import InputError
from lib.siamrpn.checkpoint import load_network
from lib.siamrpn.network import NetworkConfig
from lib.vot.dataset import load_dataset
from lib.vot.metrics import evaluate, paired_bootstrap
from lib.vot.protocol import FAILURE
from lib.vot.results import read_results
from lib.zoo import DEMO_WEIGHTS

pytest.importorskip("openvino")
numpy_helper = pytest.importorskip("onnx").numpy_helper
pytestmark = pytest.mark.usefixtures("one_thread")

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def executed(small: Path, tmp_path_factory) -> tuple[Path, dict]:
    """The chapter of mixtures through papermill, and its run."""
    folder = tmp_path_factory.mktemp("mixtures")
    notebook = "notebooks/04_2_1_mixed_precision.ipynb"
    command = [sys.executable, "-m", "papermill", notebook, str(folder / "out.ipynb"), "--cwd", "notebooks",
               "-r", "dataset", str(small),
               "-r", "run", str(folder / "run"), "-r", "framework", "openvino"]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr[-3000:]
    return folder / "run", json.loads((folder / "out.ipynb").read_text(encoding="utf-8"))


def test_the_27_mixtures_are_the_thesis_s_27() -> None:
    ours = {(v.target, v.search, v.xcorr) for v in experiments.mixtures("demo", "openvino")}
    theirs = ch04_engines.with_pure_rows(thesis.table("table_4_3"), thesis.table("table_4_2"))
    assert len(theirs) == len(ours) == 27
    assert {tuple(str(row[name]).lower() for name in ("target", "search", "xcorr")) for row in theirs} == ours


def test_names_tell_mixtures_apart() -> None:
    variants = [*experiments.baseline("demo"), *experiments.mixtures("demo", "openvino"),
                *experiments.calibrations("demo", "openvino"), *experiments.xcorr_recipes("demo", "openvino")]
    by_name = {variant.name: variant for variant in variants}
    assert all(by_name[variant.name] == variant for variant in variants)
    assert len(by_name) == 1 + 27 + 5 + 2 + len(RECIPES), "one calibration and the FP16 row are among the mixtures"


def test_the_table_has_a_row_a_mixture_and_says_what_the_raw_files_say(executed, small) -> None:
    run, notebook = executed
    outputs = [out.get("data", {}) for cell in notebook["cells"] for out in cell.get("outputs", [])]
    table = [data["text/html"] for data in outputs if "text/html" in data]
    body = "".join(table[0]).split("<tbody>")[1]
    assert body.count("<tr>") == 27
    dataset = load_dataset(small)
    for variant in experiments.mixtures("demo", "openvino"):
        again = evaluate(dataset, read_results(run / dataset.name / variant.name, dataset))
        assert f"{again.eao:.3f}" in body
    figures = [out for cell in notebook["cells"] if "mystnb" in cell["metadata"] for out in cell["outputs"]]
    assert len(figures) == 2 and all("image/svg+xml" in out["data"] for out in figures)


def test_mixtures_share_their_engines_and_are_measured_once(executed, small) -> None:
    run, _ = executed
    dataset = load_dataset(small)
    measured = experiments.measure(experiments.mixtures("demo", "openvino"), dataset, str(run))
    before = {path: path.stat().st_mtime_ns for path in run.glob("*/*/baseline/*/*_001.txt")}
    assert len(before) == 2 * (27 + 2 + len(RECIPES))
    experiments.measure(experiments.mixtures("demo", "openvino"), dataset, str(run))
    assert {path: path.stat().st_mtime_ns for path in before} == before
    for one in measured:
        assert {name: engine["precision"] for name, engine in one.engines.items()} == one.variant.precisions
        executed_in = one.engines["search"]["executed"]
        assert ("int8" in executed_in) == (one.variant.search == "int8")
        assert set(executed_in) == {"fp32"} or one.variant.search != "fp32"


def test_differences_are_paired_and_to_the_row_that_the_head_names(executed, small) -> None:
    run, _ = executed
    measured = experiments.measure(experiments.engines("demo", "openvino"), load_dataset(small), str(run))
    value, low, high = paired_bootstrap(measured[2].evaluation, measured[0].evaluation)["eao"]
    text, _ = ch04_engines.eao_difference(measured[2], measured[0])
    assert float(text.strip(" *")) == pytest.approx(value, abs=0.0005) and text.endswith("*") == (low > 0 or high < 0)
    change = measured[2].evaluation.eao - measured[0].evaluation.eao
    said = ch04_engines.verdict(measured[2], measured[0], 0.02)
    assert ch04_engines.signed(change, 4) in said and "within 0.02, the limit that this book sets" in said
    table = ch04_engines.quantisations(measured, measured[0], ch04_engines.recipe_name, "Caption.")
    assert f"these {len(measured[0].evaluation.sequences)} sequences cannot tell the difference from 0" in table.caption


@pytest.mark.parametrize("given, text", [
    ((0.0123, -0.0012, 0.0213), ("+0.012", "(-0.001 to +0.021)")),
    ((-0.0002, -0.0012, 0.0213), ("0.000", "(-0.001 to +0.021)")),
    ((0.0013, 0.00045, 0.0024), ("+0.0013 *", "(+0.0004 to +0.0024)")),
    ((-0.0013, -0.0024, -0.00004), ("-0.00130 *", "(-0.00240 to -0.00004)")),
    ((0.0016, -0.00002, 0.0035), ("+0.0016", "(0.0000 to +0.0035)")),
    ((0.0, 0.0, 0.0), ("0.000", "(0.000 to 0.000)")),
    ((0.5, float("nan"), float("nan")), "+0.500"),
])
def test_a_marked_interval_never_shows_0_and_no_zero_has_a_sign(given, text) -> None:
    assert ch04_engines.difference(*given) == text


def test_the_thesiss_values_stand_under_ours_as_printed(executed, small) -> None:
    run, _ = executed
    measured = experiments.measure(experiments.mixtures("demo", "openvino"), load_dataset(small), str(run))
    printed = ch04_engines.with_pure_rows(thesis.rows("table_4_3"), thesis.rows("table_4_2"))
    table = ch04_engines.mixtures(measured, measured[0], printed, "Caption.")
    rows = {tuple(row[:3]): row for row in table.rows}
    assert [rows["FP32", "FP32", "INT8"][place][-1] for place in (3, 4, 5, 7)] == [
        "thesis 0.539", "thesis 0.754", "thesis 0.170", "thesis 13.4"]
    assert rows["FP32", "INT8", "INT8"][7][-1] == "thesis 64.0" and rows["FP32", "FP32", "FP32"][3][-1] == "thesis 0.6"
    assert "best of" not in (said := ch04_engines.beyond_noise(measured, measured[0])) and "out of 27" in said


def test_a_finer_digit_stands_in_brackets_beside_the_printed_one(executed, small) -> None:
    run, _ = executed
    measured = experiments.measure(experiments.engines("demo", "openvino"), load_dataset(small), str(run))
    baseline = thesis.table("table_4_1").tail(1).assign(precision="FP32")
    reported = pd.concat([baseline, thesis.table("table_4_2")], ignore_index=True)
    rows = ch04_engines.engines(measured, measured[0], reported, thesis.table("digits"), "Caption.").rows[len(measured):]
    assert (rows[0][2], rows[0][6]) == (("0.6", "(0.602)"), ("11", "(11.1)")) and rows[3][2] == ("0.6", "(0.606)")
    assert [row[5] for row in rows[1:]] == ["-0.021", "-0.024", "-0.066"]


def test_frames_in_which_both_lost_the_target_are_named_and_not_compared(executed, small) -> None:
    run, _ = executed
    one, *_ = experiments.measure(experiments.engines("demo", "openvino"), load_dataset(small), str(run))
    lost = sum(int((trajectory.codes == FAILURE).sum()) for trajectory in one.trajectories.values())
    compared = sum(map(experiments.frames_tracked, one.trajectories.values())) - lost
    said = ch04_engines.same_boxes(one, one)
    assert f"over {compared:,} tracked frames with a box" in said and (f"in {lost} more" in said) == (lost > 0)


def test_openvino_keeps_the_weights_of_an_fp16_plan_in_fp32(tmp_path) -> None:
    deployment = Deployment(load_network(DEMO_WEIGHTS), "openvino", cache=tmp_path)
    model = deployment.model("search", "fp16")
    deployment.engine("search", "fp16")
    [plan] = [path.read_bytes() for path in tmp_path.rglob("*") if path.is_file() and path.stat().st_size > 100_000]
    weights = [numpy_helper.to_array(weight) for weight in model.graph.initializer]
    large = [weight for weight in weights if weight.dtype == np.float16 and weight.ndim == 4]
    assert large and all(weight.astype(np.float32).tobytes() in plan and weight.tobytes() not in plan for weight in large)
    rows = [{"framework": "OpenVINO 1", "precision": precision, "plan_mb": 9} for precision in ("FP32", "FP16")]
    assert "keeps the weights of an FP16 plan in FP32" in ch04_engines.about_plans(rows)
    assert not ch04_engines.about_plans(rows[:1])


@pytest.mark.parametrize("allowed, word", [(1.0, "holds"), (-1.0, "does not hold")])
def test_a_verdict_follows_its_rule(executed, small, allowed: float, word: str) -> None:
    run, _ = executed
    fp32, _, int8 = experiments.measure(experiments.engines("demo", "openvino"), load_dataset(small), str(run))
    assert f"** {word} the EAO" in ch04_engines.verdict(int8, fp32, allowed)


WHOLE = NetworkConfig.resnet50(0.125)
SMALL = [(1, WHOLE), (4, pruning.cut_config(WHOLE, {name: count // 2 for name, count in pruning.mask_layers(WHOLE).items()}))]


@pytest.fixture(scope="module")
def speed(tmp_path_factory) -> full_size.EngineSpeed:
    return full_size.engine_speed(str(tmp_path_factory.mktemp("speed")), "openvino", SMALL, rounds=2, calls=2)


def test_the_parts_of_a_frame_account_for_the_whole_frame(speed) -> None:
    for row in speed.whole:
        parts = sum(row[f"{part}_ms"] for part in ch04_engines.PARTS)
        assert parts == pytest.approx(row["frame_ms"], rel=0.5), "medians of parts that were timed apart"
        assert row["outside_ms"] == pytest.approx(row["crop_ms"] + row["decode_ms"])


def test_speed_is_kept_and_has_a_row_for_every_framework_and_precision(speed) -> None:
    engines = [("PyTorch", "FP32"), ("PyTorch", "FP16"), ("OpenVINO", "FP32"), ("OpenVINO", "FP16"), ("OpenVINO", "INT8")]
    assert [(row["framework"].split()[0], row["precision"]) for row in speed.whole] == engines
    assert [(row["framework"].split()[0], row["precision"]) for row in speed.rows if row["place"] == 1] == [
        engine for engine in engines if engine != ("PyTorch", "FP16")]
    assert [row["precision"] for row in speed.compared] == 2 * ["FP32", "FP32", "FP16", "INT8"]
    again = full_size.engine_speed(speed.run, "openvino", SMALL, rounds=2, calls=2)
    assert again.rows == speed.rows, "loaded, not timed again"
    assert speed.row_of("openvino", "int8")["precision"] == "INT8"
    with pytest.raises(InputError, match="TensorRT in INT8 was not timed"):
        speed.row_of("tensorrt", "int8")
    assert set(speed.reinitialisation) == {"fp32", "fp16", "int8"}
    assert all(len(ways["inputs"]) and len(ways["refit"]) for ways in speed.reinitialisation.values())


def test_networks_timed_together_are_compared_with_the_whole_one(speed) -> None:
    whole, pruned = ({(row["framework"], row["precision"]): row for row in rows}
                     for rows in (speed.whole, [row for row in speed.rows if row["place"] == 1]))
    assert all(row["whole_ratio"] == row["whole_ratio_low"] == row["whole_ratio_high"] == 1 for row in speed.whole)
    for engine, row in pruned.items():
        assert row["parameters"] < whole[engine]["parameters"] and row["multiple"] == 4
        assert row["whole_ratio_low"] <= row["whole_ratio"] <= row["whole_ratio_high"]
        assert row["plain_ratio"] > 0 and whole[engine]["plain_ratio"] == pytest.approx(whole[engine]["ratio"])


def test_a_framework_that_is_not_here_is_named_with_what_would_bring_it(speed) -> None:
    if trt.available():
        pytest.skip("TensorRT and a GPU are here")
    [sentence] = speed.missing
    assert sentence.startswith("TensorRT: ") and ("pip install" in sentence or "OpenVINO" in sentence)
    assert f"Missing: {sentence}" in ch04_engines.speeds(speed, "Speeds.").caption


def test_the_caption_of_speeds_says_how_often_was_timed(speed) -> None:
    caption = ch04_engines.speeds(speed, "Speeds.").caption
    assert "medians of 2 rounds of 2 frames each" in caption and ch04_engines.APART in caption
    assert "several rounds" in ch04_engines.about_rounds("")


@pytest.mark.parametrize("network", ["target", "search", "xcorr"])
def test_every_figure_of_speed_has_titles_units_and_a_note(speed, network: str) -> None:
    for figure in (ch04_engines.layer_types(speed, network, "the note"), ch04_engines.frame_parts(speed, "the note")):
        assert all(axis.get_title(loc="left") and "ms" in axis.get_xlabel() for axis in figure.axes)
        assert "the note" in figure._supxlabel.get_text()


def test_figures_of_quality_draw_the_measured_and_the_reported_values(executed, small) -> None:
    run, _ = executed
    dataset = load_dataset(small)
    measured = experiments.measure([*experiments.baseline("demo"), *experiments.engines("demo", "openvino")], dataset, str(run))
    reported = thesis.table("digits")
    figure = ch04_engines.speed_quality(measured, reported, "note")
    drawn = [tuple(np.ravel(line.get_data())) for line in figure.axes[1].lines if len(line.get_xdata()) == 1]
    assert drawn == list(zip(reported["fps"], reported["eao"]))
    assert len(ch04_engines.attributes(measured, thesis.table("figure_4_5"), "note").axes) == 2
    same = ch04_engines.same_boxes(measured[0], measured[1])
    assert "PyTorch FP32 and OpenVINO FP32" in same


def test_a_calibration_from_the_benchmark_is_kept_and_one_of_other_frames_is_another(small, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(experiments, "CACHE", tmp_path)
    dataset = load_dataset(small)
    [variant] = [v for v in experiments.calibrations("demo", "openvino") if v.quantisation == Quantisation("benchmark", "minmax")]
    experiments.measure([variant], dataset, str(tmp_path / "run"))
    [first] = (tmp_path / "calibration").glob("*.csv")
    other = experiments.xcorr_recipes("demo", "openvino")[-1]
    experiments.measure([other], dataset, str(tmp_path / "run"))
    assert len(list((tmp_path / "calibration").glob("*.csv"))) == 2 and first.is_file()


def test_unknown_precisions_and_frameworks_are_refused() -> None:
    with pytest.raises(InputError, match="unknown precision 'fp8'"):
        experiments.mixture("demo", "openvino", "fp8", "fp32", "fp32")
    with pytest.raises(InputError, match="unknown framework 'tvm'"):
        experiments.mixture("demo", "tvm", "fp32", "fp32", "fp32")
    with pytest.raises(InputError, match="unknown 'median'"):
        Quantisation(method="median")
