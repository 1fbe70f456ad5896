"""Figures and tables of sections 3.4 and 3.5: they draw, and the numbers in them are those of the
models and engines."""

from __future__ import annotations

import re

import matplotlib
import numpy as np
import onnx
import pytest
import torch

matplotlib.use("Agg")

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from lib import quantize
from lib.chapters import ch03_conversion
from lib.deploy import Deployment
from lib.errors import InputError
from lib.export import TOLERANCE, check_agreement, describe, export_network, to_fp16
from lib.measure.speed import NoRanges
from lib.siamrpn.crop import as_input
from lib.siamrpn.network import NetworkConfig, SiamRPN
from lib.siamrpn.parts import NETWORKS

pytest.importorskip("openvino", reason="an engine is compiled: pip install -e '.[engines]'")
NOTE = "Run test, 2026-01-01 00:00 UTC: 2 cores Test, OpenVINO 2026.4.1, CPU"
CROPS = 2


@pytest.fixture(scope="module")
def network() -> SiamRPN:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return SiamRPN(NetworkConfig.resnet50(1 / 16)).eval()


@pytest.fixture(scope="module")
def models(network: SiamRPN) -> dict[str, onnx.ModelProto]:
    return export_network(network)


@pytest.fixture(scope="module")
def exemplar() -> np.ndarray:
    return np.random.RandomState(0).randint(0, 256, (127, 127, 3)).astype(np.uint8)


@pytest.fixture(scope="module")
def bounds(models: dict[str, onnx.ModelProto]) -> dict[str, quantize.Bounds]:
    random = np.random.RandomState(0)
    feeds = [
        {"search": as_input(random.randint(0, 256, (255, 255, 3)).astype(np.uint8))}
        for _ in range(CROPS)
    ]
    return quantize.activation_bounds(models["search"], feeds)


@pytest.fixture(scope="module")
def deployment(network: SiamRPN, bounds: dict[str, quantize.Bounds]) -> Deployment:
    return Deployment(
        network, "openvino", cache=None, ranges=lambda quantisation: {"search": bounds}
    )


@pytest.fixture(scope="module")
def x() -> np.ndarray:
    return np.abs(np.random.RandomState(0).laplace(0, 1, 20000)).astype(np.float32)


BY_METHOD = {"minmax": 12.0, "entropy": 6.0, "percentile": 7.0}


@pytest.fixture(scope="module")
def drawn(models, exemplar, bounds, deployment, x) -> dict[str, Figure]:
    engine = deployment.engine("search", "int8")
    return {
        "crop": ch03_conversion.crop(models["target"], exemplar, 3, NOTE),
        "networks": ch03_conversion.networks(models, NOTE),
        "errors": ch03_conversion.errors(x, BY_METHOD, NOTE),
        "rounding": ch03_conversion.rounding(6.35, NOTE),
        "workflow": ch03_conversion.workflow(
            models["search"],
            deployment.model("search", "int8"),
            CROPS,
            bounds["entropy"],
            engine,
            "entropy",
            NOTE,
        ),
    }


CHARTS = ("crop", "errors", "rounding")
NAMES = (*CHARTS, "networks", "workflow")


def texts(figure: Figure) -> str:
    return "\n".join(text.get_text() for text in figure.findobj(matplotlib.text.Text))  # type: ignore[attr-defined]


@pytest.mark.parametrize("name", NAMES)
def test_a_figure_names_run_and_machine_and_has_titles(drawn: dict[str, Figure], name: str) -> None:
    assert NOTE in texts(drawn[name]).replace("\n", " ")
    assert all(axis.get_title(loc="left") for axis in drawn[name].axes)


@pytest.mark.parametrize("name", CHARTS)
def test_the_axes_of_a_chart_say_what_they_measure(drawn: dict[str, Figure], name: str) -> None:
    assert all(axis.get_xlabel() and axis.get_ylabel() for axis in drawn[name].axes)


@pytest.mark.parametrize("name", NAMES)
def test_nothing_is_cut_off_and_letters_can_be_read_on_a_phone(
    drawn: dict[str, Figure], name: str
) -> None:
    figure, canvas = drawn[name], FigureCanvasAgg(drawn[name])
    canvas.draw()
    width, height = figure.get_size_inches()
    inside = figure.get_tightbbox(canvas.get_renderer())
    assert (
        inside.x0 >= -0.02
        and inside.y0 >= -0.02
        and inside.x1 <= width + 0.02
        and inside.y1 <= height + 0.02
    )
    for text in figure.findobj(matplotlib.text.Text):  # type: ignore[attr-defined]
        if text.get_text().strip():
            assert text.get_fontsize() * 350 / (72 * width) >= 8, (
                f"{text.get_text()} in a figure of 350 pixels"
            )


@pytest.mark.parametrize("name", ["networks", "workflow"])
def test_the_words_in_a_drawing_do_not_overlap_and_stay_on_the_sheet(
    drawn: dict[str, Figure], name: str
) -> None:
    canvas = FigureCanvasAgg(drawn[name])
    canvas.draw()
    [axis] = drawn[name].axes
    boxes = [
        text.get_window_extent(canvas.get_renderer()) for text in axis.texts if text.get_text()
    ]
    assert not [(a, b) for i, a in enumerate(boxes) for b in boxes[:i] if a.overlaps(b)]
    patches = [patch.get_window_extent(canvas.get_renderer()) for patch in axis.patches]
    sheet = axis.bbox
    assert all(
        sheet.x0 <= box.x0 and box.x1 <= sheet.x1 and sheet.y0 <= box.y0 and box.y1 <= sheet.y1
        for box in patches
    )


def test_the_crop_is_the_central_7_by_7_of_what_pytorch_computes(
    network, models, exemplar, drawn
) -> None:
    found = ch03_conversion.crops(models["target"])
    channels = [stage.channels for stage in network.config.stages[1:]]
    rpn = network.config.rpn
    assert [crop.shapes for crop in found] == [
        [(1, c, 15, 15), (1, rpn, 15, 15), (1, rpn, 7, 7)] for c in channels
    ]
    assert {crop.corner for crop in found} == {(4, 4)}
    with torch.inference_mode():
        expected = (
            network.neck(network.backbone(torch.from_numpy(as_input(exemplar))), crop=True)[1][0]
            .mean(0)
            .numpy()
        )
    np.testing.assert_allclose(drawn["crop"].axes[3].images[0].get_array(), expected, atol=1e-4)
    for shape in found[1].shapes:
        assert ch03_conversion.by(shape) in texts(drawn["crop"])


def test_a_network_without_a_crop_is_refused_in_one_sentence(models) -> None:
    with pytest.raises(InputError, match="no target network"):
        ch03_conversion.crops(models["search"])


def test_the_drawing_of_the_networks_counts_what_the_models_hold(models, drawn) -> None:
    words = texts(drawn["networks"]).replace("\u00a0", " ")
    for name in NETWORKS:
        known = describe(models[name])
        assert f"{known['parameters'] / 1e6:.2f} M parameters" in words
        counted = {
            f"{count} {kind}" for kind, count in known["operators"].items() if kind != "Constant"
        }
        assert counted <= set(re.split(r", |,?\n", words))
        assert all(
            ch03_conversion.by(shape) in words
            for shape in [*known["inputs"].values(), *known["outputs"].values()]
        )


def test_the_workflow_shows_the_numbers_of_model_and_engine(deployment, bounds, drawn) -> None:
    words, int8, engine = (
        texts(drawn["workflow"]),
        deployment.model("search", "int8"),
        deployment.engine("search", "int8"),
    )
    operators = describe(int8)["operators"]
    assert (
        f"{operators['QuantizeLinear']} QuantizeLinear, {operators['DequantizeLinear']} DequantizeLinear"
        in words
    )
    assert f"{CROPS} crops" in words and f"{len(bounds['entropy'])} activations" in words
    assert f"plan of {engine.plan_bytes / 1e6:.1f} MB" in words and engine.framework in words
    assert all(f"{count} {kind.upper()}" in words for kind, count in engine.executed().items())


def test_the_sum_is_drawn_as_the_sum_and_the_methods_where_they_are(x, drawn) -> None:
    above, below = drawn["errors"].axes
    lines = {line.get_label(): line for line in above.lines}
    bound = lines["sum"].get_xdata()[20]
    assert lines["sum"].get_ydata()[20] == pytest.approx(
        sum(quantize.quantisation_errors(x, bound))
    )
    assert lines["sum"].get_ydata()[20] == pytest.approx(
        np.mean(
            (
                quantize.dequantize(
                    quantize.quantize(x, quantize.scale(bound)), quantize.scale(bound)
                )
                - x
            )
            ** 2
        ),
        rel=1e-4,
    )
    assert sorted(line.get_xdata()[0] for line in below.lines) == sorted(BY_METHOD.values())


def test_the_least_error_is_of_the_errors_drawn(x, drawn) -> None:
    [line] = [line for line in drawn["errors"].axes[0].lines if line.get_label() == "sum"]
    best = line.get_xdata()[int(np.argmin(line.get_ydata()))]
    text, (lowest, highest) = (
        ch03_conversion.error_finding(x, BY_METHOD),
        (line.get_ydata().min(), max(BY_METHOD.values())),
    )
    assert f"{best:.2f} has the least" in text
    ratio = sum(quantize.quantisation_errors(x, highest)) / lowest
    assert f"{ratio:.1f} times this (largest value, {highest:.2f})" in text


def test_no_legend_lies_on_the_curves(drawn) -> None:
    figure = drawn["errors"]
    assert all(axis.get_legend() is None for axis in figure.axes)
    [legend] = figure.legends
    names = [text.get_text() for text in legend.get_texts()]
    assert set(names) == {
        "discretisation",
        "truncation",
        "sum",
        *(label for *_, label in ch03_conversion.BOUNDS.values()),
    }


def test_steps_are_as_high_as_the_scale_and_end_at_the_range(drawn) -> None:
    [axis] = drawn["rounding"].axes
    [line] = [line for line in axis.lines if line.get_label() == "quantised"]
    heights = np.diff(np.unique(line.get_ydata()))
    np.testing.assert_allclose(heights, quantize.scale(6.35), rtol=1e-3)
    assert max(line.get_ydata()) == pytest.approx(6.35, rel=1e-5) and max(line.get_xdata()) > 6.35


def test_the_table_of_networks_says_what_the_files_weigh(network, models) -> None:
    rows = ch03_conversion.network_rows(network)
    table = str(ch03_conversion.network_table(rows, "Networks."))
    for name, row in zip(NETWORKS, rows):
        assert row["megabytes"] == pytest.approx(models[name].ByteSize() / 1e6)
        assert row["fp16_mb"] == pytest.approx(to_fp16(models[name]).ByteSize() / 1e6)
        assert row["int8_mb"] == pytest.approx(
            quantize.to_int8(models[name], NoRanges()).ByteSize() / 1e6
        )
        assert row["agreement"] == check_agreement(models[name], network) < TOLERANCE
        assert f"{row['fp16_mb']:.2f}" in table
    assert f"6 × kernel: {network.config.rpn}×1×5×5" in table


def test_the_levels_shares_are_the_trained_ones(network, models) -> None:
    shares = ch03_conversion.fusion_weights(models["xcorr"])
    assert shares["cls"] == pytest.approx(torch.softmax(network.rpn_head.cls_weight, 0).tolist())
    assert shares["loc"] == pytest.approx(torch.softmax(network.rpn_head.loc_weight, 0).tolist())


def test_the_chosen_weights_differ_in_range_and_the_chosen_activation_is_inside(
    models, bounds
) -> None:
    name, weight = ch03_conversion.uneven_weights(models["search"])
    assert weight.ndim == 4 and name in {
        tensor.name for tensor in models["search"].graph.initializer
    }
    tensor = ch03_conversion.uneven_activation(models["search"], bounds)
    ratios = {
        key: bounds["minmax"][key] / bounds["entropy"][key]
        for key in bounds["minmax"]
        if key != "search"
    }
    assert ratios[tensor] == max(ratios.values())


def test_a_precision_that_the_machine_lacks_is_a_row_that_says_so(deployment, monkeypatch) -> None:
    def refuse(name: str, precision: str, *more: object) -> None:
        raise InputError("this processor lacks it")

    monkeypatch.setattr(deployment, "engine", refuse)
    rows = ch03_conversion.engine_rows(deployment, "search")
    assert "this processor lacks it" in str(ch03_conversion.engine_table(rows, "Engines."))


def test_engines_report_what_they_execute(deployment) -> None:
    rows = ch03_conversion.engine_rows(deployment, "search")
    assert [row["precision"] for row in rows] == ["fp32", "fp16", "int8"]
    assert rows[0]["qdq"] == 0 < rows[2]["qdq"] and "FP32" in rows[0]["executed"]
