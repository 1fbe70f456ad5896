"""Sections 3.4 and 3.5 executed on a small network: the numbers in figures and tables are those of
the models and engines."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from lib.engines import deploy
from lib.engines.export import TOLERANCE, check_agreement, describe, to_fp16
from lib.engines.quantize import scale, to_int8
from lib.errors import InputError
from lib.measure import speed
from lib.measure.speed import NoRanges
from lib.report.plots import by
from lib.siamrpn.checkpoint import save_weights
from lib.siamrpn.crop import as_input
from lib.siamrpn.network import NetworkConfig, SiamRPN
from lib.siamrpn.parts import NETWORKS

from .helpers import Page, assert_readable, executed, texts

pytest.importorskip("openvino", reason="an engine is compiled: pip install -e '.[engines]'")
CHARTS = ("fig-3-8", "fig-range-errors", "fig-rounding")
NAMES = (*CHARTS, "fig-3-9", "fig-3-10")


@pytest.fixture(scope="module")
def parameters(small: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Of both pages: few frames, and a network that knows nothing."""
    folder = tmp_path_factory.mktemp("conversion")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = SiamRPN(NetworkConfig.resnet50(1 / 16)).eval()
    save_weights(folder / "small.pth", network.state_dict())
    return {
        "dataset": str(small),
        "weights": str(folder / "small.pth"),
        "run": str(folder / "run"),
    }


@pytest.fixture(scope="module")
def onnx_page(parameters: dict[str, str], one_thread: None) -> Page:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(speed, "full_size_network", lambda: SiamRPN(NetworkConfig.resnet50(1 / 16)))
        return executed("03_4_onnx", **parameters)


@pytest.fixture(scope="module")
def quantised(parameters: dict[str, str], one_thread: None) -> Page:
    return executed("03_5_tensorrt", framework="openvino", **parameters)


@pytest.fixture(scope="module")
def drawn(onnx_page: Page, quantised: Page) -> dict[str, Figure]:
    return {**onnx_page.figures(), **quantised.figures()}


# -- How figures look ------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_a_figure_names_run_and_machine_has_titles_and_can_be_read(
    drawn: dict[str, Figure], name: str
) -> None:
    assert_readable(drawn[name], "Run run, ")
    assert all(axis.get_title(loc="left") for axis in drawn[name].axes)
    if name in CHARTS:
        assert all(axis.get_xlabel() and axis.get_ylabel() for axis in drawn[name].axes)


@pytest.mark.parametrize("name", ["fig-3-9", "fig-3-10"])
def test_the_words_in_a_drawing_do_not_overlap_and_stay_on_the_sheet(
    drawn: dict[str, Figure], name: str
) -> None:
    canvas = FigureCanvasAgg(drawn[name])
    canvas.draw()
    [axis] = drawn[name].axes
    words = [text for text in axis.texts if text.get_text()]
    boxes = [text.get_window_extent(canvas.get_renderer()) for text in words]
    assert not [(a, b) for i, a in enumerate(boxes) for b in boxes[:i] if a.overlaps(b)]
    sheet = axis.bbox
    for patch in axis.patches:
        box = patch.get_window_extent(canvas.get_renderer())
        assert sheet.x0 <= box.x0 and box.x1 <= sheet.x1
        assert sheet.y0 <= box.y0 and box.y1 <= sheet.y1


def test_no_legend_lies_on_the_curves(drawn: dict[str, Figure], quantised: Page) -> None:
    figure = drawn["fig-range-errors"]
    assert all(axis.get_legend() is None for axis in figure.axes)
    [legend] = figure.legends
    methods = {label for *_, label in quantised.LINES.values()}
    names = {text.get_text() for text in legend.get_texts()}
    assert names == {"discretisation", "truncation", "sum", *methods}


# -- Section 3.4 -----------------------------------------------------------------------------------


def test_the_crop_is_the_central_7_by_7_of_what_pytorch_computes(
    onnx_page: Page, drawn: dict[str, Figure]
) -> None:
    network, found = onnx_page.network, onnx_page.crops(onnx_page.models["target"])
    rpn = network.config.rpn
    expected_shapes = [
        [(1, stage.channels, 15, 15), (1, rpn, 15, 15), (1, rpn, 7, 7)]
        for stage in network.config.stages[1:]
    ]
    assert [shapes for _, shapes, _ in found] == expected_shapes
    assert {corner for *_, corner in found} == {(4, 4)}
    exemplar = torch.from_numpy(as_input(onnx_page.pair.exemplar))
    with torch.inference_mode():
        feature = network.neck(network.backbone(exemplar), crop=True)[1][0].mean(0).numpy()
    shown = drawn["fig-3-8"].axes[3].images[0].get_array()
    np.testing.assert_allclose(shown, feature, atol=1e-4)
    assert all(by(shape) in texts(drawn["fig-3-8"]) for shape in found[1][1])
    with pytest.raises(InputError, match="no target network"):
        onnx_page.crops(onnx_page.models["search"])


def test_the_drawing_of_the_networks_counts_what_the_models_hold(
    onnx_page: Page, drawn: dict[str, Figure]
) -> None:
    words = texts(drawn["fig-3-9"]).replace("\u00a0", " ")
    for model in onnx_page.models.values():
        known = describe(model)
        assert f"{known['parameters'] / 1e6:.2f} M parameters" in words
        kinds = known["operators"].items()
        counted = {f"{count} {kind}" for kind, count in kinds if kind != "Constant"}
        assert counted <= set(re.split(r", |,?\n", words))
        shapes = [*known["inputs"].values(), *known["outputs"].values()]
        assert all(by(shape) in words for shape in shapes)


def test_the_table_of_networks_says_what_the_files_weigh(onnx_page: Page) -> None:
    table = str(onnx_page.network_table(onnx_page.rows, "Networks."))
    for name, row in zip(NETWORKS, onnx_page.rows):
        model = onnx_page.models[name]
        assert row["megabytes"] == pytest.approx(model.ByteSize() / 1e6)
        assert row["fp16_mb"] == pytest.approx(to_fp16(model).ByteSize() / 1e6)
        assert row["int8_mb"] == pytest.approx(to_int8(model, NoRanges()).ByteSize() / 1e6)
        assert row["agreement"] == check_agreement(model, onnx_page.network) < TOLERANCE
        assert f"{row['fp16_mb']:.2f}" in table
    assert f"6 × kernel: {onnx_page.network.config.rpn}×1×5×5" in table


def test_the_files_alone_find_the_trackers_box(onnx_page: Page) -> None:
    assert np.abs(onnx_page.box - onnx_page.expected).max() < 0.05
    assert np.abs(onnx_page.box - onnx_page.start).max() > 0.05  # it is not where it was


def test_the_levels_shares_are_the_trained_ones(onnx_page: Page) -> None:
    head = onnx_page.network.rpn_head
    assert onnx_page.shares["cls"] == pytest.approx(torch.softmax(head.cls_weight, 0).tolist())
    assert onnx_page.shares["loc"] == pytest.approx(torch.softmax(head.loc_weight, 0).tolist())


# -- Section 3.5 -----------------------------------------------------------------------------------


def test_errors_of_a_uniform_distribution_are_those_of_the_closed_formulas(
    quantised: Page,
) -> None:
    x = np.linspace(-1, 1, 400001)
    discretisation, truncation = quantised.two_errors(x, 1.0)
    assert discretisation == pytest.approx(scale(1.0) ** 2 / 12, rel=0.01)
    assert truncation == 0.0
    discretisation, truncation = quantised.two_errors(x, 0.6)
    # values outside go to 0.6 above, and to 128/127 of it below: two halves of the integral
    # of (|x| - end)^2
    outside = sum((1 - end) ** 3 / 3 for end in (0.6, 0.6 * 128 / 127)) / 2
    assert truncation == pytest.approx(outside, rel=0.01)
    assert discretisation == pytest.approx(0.6 * scale(0.6) ** 2 / 12, rel=0.02)
    exact = np.mean((quantised.quantise(x, scale(0.6)) * scale(0.6) - x) ** 2)
    assert discretisation + truncation == pytest.approx(exact, rel=1e-9)


def test_the_sum_is_drawn_as_the_sum_and_the_methods_where_they_are(
    quantised: Page, drawn: dict[str, Figure]
) -> None:
    above, below = drawn["fig-range-errors"].axes
    lines = {line.get_label(): line for line in above.lines}
    bound, height = (axis[20] for axis in lines["sum"].get_data())
    assert height == pytest.approx(sum(quantised.two_errors(quantised.values, bound)))
    best = quantised.grid[quantised.sums.argmin()]
    assert quantised.sums.min() == pytest.approx(sum(quantised.two_errors(quantised.values, best)))
    methods = sorted(quantised.by_method.values())
    assert sorted(line.get_xdata()[0] for line in below.lines) == pytest.approx(methods)


def test_the_slider_tells_the_errors_of_its_range(quantised: Page) -> None:
    [chart] = quantised.shown_as(quantised.Chart)
    [slider] = chart.chart["layout"]["sliders"]
    assert len(slider["steps"]) == len(quantised.grid)
    x = np.abs(quantised.values)
    for step in slider["steps"][::10]:
        moved = step["args"][1]
        bound, said = moved["shapes[0].x0"], moved["annotations[0].text"]
        assert float(step["label"]) == pytest.approx(bound, rel=5e-3)
        rounding, clipping, together, cut = map(
            float, re.findall(r"(?<= )[\d.e+-]+(?=[,; ])", said)[-4:]
        )
        difference = (np.clip(np.rint(x / scale(bound)), 0, 127) * scale(bound) - x) ** 2
        assert rounding == pytest.approx(difference[x <= bound].sum() / x.size, rel=0.06)
        assert clipping == pytest.approx(difference[x > bound].sum() / x.size, rel=0.06)
        assert together == pytest.approx(difference.mean(), rel=0.06)
        assert cut == pytest.approx(100 * (x > bound).mean(), rel=0.06)


def test_steps_are_as_high_as_the_scale_and_end_at_the_range(quantised: Page) -> None:
    [axis] = quantised.rounding(6.35, "A note.").axes
    [line] = [line for line in axis.lines if line.get_label() == "quantised"]
    heights = np.diff(np.unique(line.get_ydata()))
    np.testing.assert_allclose(heights, scale(6.35), rtol=1e-3)
    assert max(line.get_ydata()) == pytest.approx(6.35, rel=1e-5) and max(line.get_xdata()) > 6.35


def test_the_chosen_weights_differ_in_range_and_the_chosen_activation_is_inside(
    quantised: Page,
) -> None:
    ranges = np.abs(quantised.weight).max((1, 2, 3))
    assert quantised.weight.ndim == 4 and ranges.max() > np.median(ranges)
    bounds = quantised.bounds
    ratios = {
        key: bounds["minmax"][key] / bounds["entropy"][key]
        for key in bounds["minmax"]
        if key != "search"
    }
    assert ratios[quantised.tensor] == max(ratios.values())


def test_the_workflow_shows_the_numbers_of_model_and_engine(
    quantised: Page, drawn: dict[str, Figure]
) -> None:
    words, engine = texts(drawn["fig-3-10"]), quantised.deployment.engine("search", "int8")
    operators = describe(quantised.int8)["operators"]
    assert f"{operators['QuantizeLinear']} QuantizeLinear" in words
    assert f"{operators['DequantizeLinear']} DequantizeLinear" in words
    assert f"{len(quantised.pairs)} crops" in words
    assert f"{len(quantised.bounds['entropy'])} activations" in words
    assert f"plan of {engine.plan_bytes / 1e6:.1f} MB" in words and engine.framework in words
    assert all(f"{count} {kind.upper()}" in words for kind, count in engine.executed().items())


def test_engines_report_what_they_execute_and_answer_alike(quantised: Page) -> None:
    rows = quantised.rows
    assert [row["precision"] for row in rows] == ["fp32", "fp16", "int8"]
    assert rows[0]["qdq"] == 0 < rows[2]["qdq"] and "FP32" in rows[0]["executed"]
    assert quantised.same < 1e-3 < quantised.apart, "refitted, and with another target's kernels"
    assert 0 < quantised.moved["fp16"] < 0.05 and quantised.moved["fp16"] < quantised.moved["int8"]


def test_a_precision_that_the_machine_lacks_is_a_row_that_says_so(
    parameters: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    real = deploy.Deployment.engine

    def refuse(self: Any, name: str, precision: str, *more: Any) -> Any:
        if precision == "fp16":
            raise InputError("this processor lacks it")
        return real(self, name, precision, *more)

    monkeypatch.setattr(deploy.Deployment, "engine", refuse)
    page = executed("03_5_tensorrt", framework="openvino", **parameters)
    said = Counter("this processor lacks it" in str(value) for _, value in page.cells_shown)
    assert said[True] == 1
