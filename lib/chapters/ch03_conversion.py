"""Figures and tables of sections 3.4 and 3.5: the exported networks and their quantisation (figures
3.8 to 3.10).

Views only, as in `plots`: ONNX models, crops, tensors and engines come in, figures and tables go
out. Every shape, count and size in them is read from the model or the engine that is shown.
"""

from __future__ import annotations

import textwrap
from collections import Counter
from typing import TYPE_CHECKING, Any, Mapping, NamedTuple
from typing import Sequence as Seq

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from lib.chapters.plots import (
    BLUE,
    GREEN,
    GREY,
    ORANGE,
    SKY,
    WIDTH,
    YELLOW,
    by,
    draw_arrow,
    draw_box,
    finished,
    new_figure,
    new_sheet,
    plt,
    styled,
)
from lib.chapters.tables import ABSENT, Table, Text
from lib.deploy import FRAMEWORKS, USUAL, Deployment, Quantisation, give_back_memory
from lib.engines.base import Engine, describe_executed
from lib.errors import InputError
from lib.export import check_agreement, describe, export_network, need_onnx, shapes, to_fp16
from lib.measure.speed import NoRanges
from lib.quantize import LEVELS, dequantize, observer, quantisation_errors, quantize, scale, to_int8
from lib.siamrpn.crop import as_input
from lib.siamrpn.network import SiamRPN
from lib.siamrpn.parts import KERNELS, MAPS, NETWORKS

if TYPE_CHECKING:
    import onnx

BOUNDS = {
    "minmax": (GREY, ":", "largest value"),
    "entropy": (GREEN, "--", "entropy"),
    "percentile": (ORANGE, "-.", "percentile"),
}


# -- Section 3.4: the exported networks ------------------------------------------------------------


class Crop(NamedTuple):
    """One level of the target network's neck: names and shapes (backbone's feature, after the
    convolution, after the crop), and the row and column at which the crop begins."""

    tensors: tuple[str, str, str]
    shapes: list[tuple[int, ...]]
    corner: tuple[int, int]


def crops(target: onnx.ModelProto) -> list[Crop]:
    """The necks of a target network, from the graph: convolutions whose output is sliced. Raises
    InputError without any."""
    onnx = need_onnx()
    known = shapes(onnx.shape_inference.infer_shapes(target).graph.value_info)
    constants = {
        node.output[0]: node.attribute[0].t
        for node in target.graph.node
        if node.op_type == "Constant"
    }
    constants.update({weight.name: weight for weight in target.graph.initializer})
    found = []
    for conv in (node for node in target.graph.node if node.op_type == "Conv"):
        tensor, corner = conv.output[0], {2: 0, 3: 0}
        slices = {node.input[0]: node for node in target.graph.node if node.op_type == "Slice"}
        while tensor in slices:
            node = slices[tensor]
            axes, starts = (
                onnx.numpy_helper.to_array(constants[node.input[index]]).ravel().tolist()
                for index in (3, 1)
            )
            corner.update(zip(axes, starts))
            tensor = node.output[0]
        if tensor != conv.output[0]:
            names = (conv.input[0], conv.output[0], tensor)
            found.append(Crop(names, [known[name] for name in names], (corner[2], corner[3])))
    if not found:
        raise InputError("no feature is cropped in this model: it is no target network")
    return found


def tensor_values(
    model: onnx.ModelProto, feeds: Mapping[str, np.ndarray], tensors: Seq[str]
) -> list[np.ndarray]:
    """What inner tensors of an FP32 model are for one set of inputs."""
    values = observer(model, tensors)(feeds)
    return [values[name] for name in tensors]


@styled
def crop(target: onnx.ModelProto, exemplar: np.ndarray, level: int, note: str) -> Figure:
    """Figure 3.8: an exemplar crop (127, 127, 3) and the channel means of its feature at a level
    (2, 3 or 4) of the neck."""
    one, size = crops(target)[level - 2], (WIDTH, WIDTH + 1.3)
    maps = tensor_values(target, {target.graph.input[0].name: as_input(exemplar)}, one.tensors)
    figure, axes = plt.subplots(2, 2, figsize=size, layout="constrained")
    heads = (f"Conv{level + 1} (level {level})", "after the 1×1 Conv", "after the crop")
    axes[0, 0].imshow(exemplar[..., ::-1])
    axes[0, 0].set_title(
        f"exemplar\n{by(shapes(target.graph.input)[target.graph.input[0].name])}", fontsize=10
    )
    for axis, head, feature, shape in zip(axes.ravel()[1:], heads, maps, one.shapes):
        axis.imshow(feature[0].mean(0), cmap="cividis")
        axis.set_title(f"{head}\n{by(shape)}", fontsize=10)
    (row, column), side = one.corner, one.shapes[2][-1]
    axes[1, 0].add_patch(
        Rectangle((column - 0.5, row - 0.5), side, side, fill=False, ec="white", lw=3.5)
    )
    axes[1, 0].add_patch(
        Rectangle((column - 0.5, row - 0.5), side, side, fill=False, ec=ORANGE, lw=2)
    )
    for axis in axes.ravel():
        axis.grid(False)
        axis.set(xlabel="column", ylabel="row")
        axis.locator_params(integer=True, nbins=5)
    return finished(figure, note)


@styled
def networks(models: Mapping[str, onnx.ModelProto], note: str) -> Figure:
    """Figure 3.9: the three networks, what goes in and comes out, and what they consist of."""
    facts = {name: describe(models[name]) for name in NETWORKS}
    figure, axis = new_sheet("Three networks", 5.9)
    places = {"target": (2.4, 7.6, 4.7), "search": (7.6, 7.6, 4.7), "xcorr": (5, 3.4, 8)}
    for name, (x, y, width) in places.items():
        known = facts[name]
        operators = _operators(known, 22 if width < 5 else 48)
        text = (
            f"{known['parameters'] / 1e6:.2f} M parameters\n{known['gflop']:.2f} GFLOP\n{operators}"
        )
        draw_box(
            axis,
            (x, y),
            (width, 2.75 if width < 5 else 2.1),
            f"{name} network",
            text,
            YELLOW if name == "xcorr" else SKY,
        )
    for name, x in (("target", 2.4), ("search", 7.6)):
        [(tensor, shape)] = facts[name]["inputs"].items()
        draw_box(axis, (x, 10.5), (4, 1.1), f"input {tensor}", by(shape))
        draw_arrow(axis, (x, 10), (x, 9))
    for x, names, what in ((2.4, KERNELS, "kernels"), (7.6, MAPS, "maps")):
        draw_arrow(axis, (x, 6.2), (x, 4.45))
        axis.text(
            x + 0.2,
            5.35,
            f"{len(names)} {what}\n{by(facts['xcorr']['inputs'][names[0]])}",
            fontsize=9,
            va="center",
        )
    for x, (tensor, shape) in zip((2.4, 7.6), facts["xcorr"]["outputs"].items()):
        draw_arrow(axis, (x, 2.35), (x, 1.35))
        draw_box(axis, (x, 0.8), (4, 1.1), f"output {tensor}", by(shape))
    return finished(figure, note)


def fusion_weights(xcorr: onnx.ModelProto) -> dict[str, list[float]]:
    """The shares of levels 2, 3 and 4 in the sums that end the xcorr network, read from its
    constants."""
    onnx = need_onnx()
    constants = {
        node.output[0]: node.attribute[0].t
        for node in xcorr.graph.node
        if node.op_type == "Constant"
    }
    constants.update({weight.name: weight for weight in xcorr.graph.initializer})
    found = [
        float(onnx.numpy_helper.to_array(constants[node.input[1]]))
        for node in xcorr.graph.node
        if node.op_type == "Mul"
    ]
    return {"cls": found[:3], "loc": found[3:]}


def network_rows(network: SiamRPN) -> list[dict[str, Any]]:
    """A row for each of the three networks, exported one at a time: what `describe` reads,
    megabytes in FP16 and INT8 (which do not depend on ranges), and the largest difference between
    ONNX Runtime and PyTorch as a share of the output's range."""
    rows = []
    for name in NETWORKS:
        model = export_network(network, [name])[name]
        rows.append(
            {
                **describe(model),
                "fp16_mb": to_fp16(model).ByteSize() / 1e6,
                "int8_mb": to_int8(model, NoRanges()).ByteSize() / 1e6,
                "agreement": check_agreement(model, network),
            }
        )
        del model
        give_back_memory()
    return rows


def network_table(rows: Seq[Mapping[str, Any]], caption: str) -> Table:
    """The rows of `network_rows`."""

    def tensors(of: Mapping[str, tuple[int, ...]]) -> tuple[str, ...]:
        counts = Counter(
            (name.rstrip("0123456789").split("_")[0], shape) for name, shape in of.items()
        )
        return tuple(
            f"{f'{count} × ' if count > 1 else ''}{name}: {by(shape)}"
            for (name, shape), count in counts.items()
        )

    heads = [
        "Network",
        "Inputs → outputs",
        "Operators",
        "FP32, FP16, INT8, MB",
        "ONNX Runtime − PyTorch",
    ]
    cells = [
        [
            (
                row["network"],
                f"{row['parameters'] / 1e6:.3f} M parameters",
                f"{row['gflop']:.2f} GFLOP",
            ),
            (*tensors(row["inputs"]), *(f"→ {tensor}" for tensor in tensors(row["outputs"]))),
            _operators(row, 1000),
            tuple(f"{row[key]:.2f}" for key in ("megabytes", "fp16_mb", "int8_mb")),
            f"{row['agreement']:.0e}",
        ]
        for row in rows
    ]
    return Table(
        heads,
        cells,
        f"{caption} Last column: the largest difference as a share of the output's range.",
    )


def _operators(known: Mapping[str, Any], width: int) -> str:
    """Operators that compute, most frequent first."""
    counted = [
        f"{count}\u00a0{name}"
        for name, count in Counter(known["operators"]).most_common()
        if name != "Constant"
    ]
    return textwrap.fill(", ".join(counted), width, break_on_hyphens=False)


# -- Section 3.5: quantisation ---------------------------------------------------------------------


def uneven_weights(model: onnx.ModelProto) -> tuple[str, np.ndarray]:
    """Name and weights (outputs, inputs, h, w) of the convolution whose output channels differ most
    in range."""
    onnx = need_onnx()
    arrays = {
        weight.name: onnx.numpy_helper.to_array(weight)
        for weight in model.graph.initializer
        if len(weight.dims) == 4
    }
    ranges = {name: np.abs(array).max((1, 2, 3)) for name, array in arrays.items()}
    name = max(
        ranges, key=lambda name: float(ranges[name].max() / max(np.median(ranges[name]), 1e-12))
    )
    return name, arrays[name]


def uneven_activation(model: onnx.ModelProto, bounds: Mapping[str, Mapping[str, float]]) -> str:
    """The activation inside a network whose largest value lies farthest above its entropy range.
    bounds: method -> tensor -> bound."""
    inner = [name for name in bounds["minmax"] if name not in shapes(model.graph.input)]
    return max(inner, key=lambda name: bounds["minmax"][name] / max(bounds["entropy"][name], 1e-12))


@styled
def errors(x: np.ndarray, bounds: Mapping[str, float], note: str) -> Figure:
    """Discretisation against truncation error over the range, and the histogram of x below. bounds:
    by method of BOUNDS."""
    figure, (above, below) = new_figure(5.4, [1.5, 1])
    grid = _grid(x, bounds)
    parts = np.array([quantisation_errors(x, bound) for bound in grid])
    for values, color, line, label in (
        (parts[:, 0], BLUE, "-", "discretisation"),
        (parts[:, 1], ORANGE, "-", "truncation"),
        (parts.sum(1), "black", "--", "sum"),
    ):
        above.plot(grid, np.where(values > 0, values, np.nan), color=color, ls=line, label=label)
    below.hist(np.abs(x).ravel(), bins=100, color=SKY, log=True)
    for method, bound in bounds.items():
        color, line, label = BOUNDS[method]
        for axis in (above, below):
            axis.axvline(
                bound, color=color, ls=line, lw=1.6, label=label if axis is below else None
            )
    above.set(
        title="Error over the range",
        ylabel="mean squared error",
        yscale="log",
        xlim=(0, grid[-1]),
        ylim=(parts[:, 0].min() / 3, parts.sum(1).max() * 2),
        xlabel="range: largest value quantised",
    )
    below.set(
        title="Values of the tensor", xlabel="absolute value", ylabel="count", xlim=(0, grid[-1])
    )
    # An error over a method, column by column
    pairs = zip(*(zip(*axis.get_legend_handles_labels()) for axis in (above, below)))
    figure.legend(
        *zip(*(entry for pair in pairs for entry in pair)),
        loc="outside upper left",
        ncols=3,
        fontsize=9,
    )
    return finished(figure, note)


def _grid(x: np.ndarray, bounds: Mapping[str, float]) -> np.ndarray:
    return np.linspace(0.05, 1.05, 41) * max(float(np.abs(x).max()), *bounds.values())


def error_finding(x: np.ndarray, bounds: Mapping[str, float]) -> Text:
    """Where the sum of both errors is least, and how far above it the methods end."""
    grid = _grid(x, bounds)
    sums = [sum(quantisation_errors(x, bound)) for bound in grid]
    ratios = [
        f"{sum(quantisation_errors(x, bound)) / min(sums):.1f} times this ({BOUNDS[method][2]}, {bound:.2f})"
        for method, bound in bounds.items()
    ]
    best = grid[int(np.argmin(sums))]
    return Text(
        f"Of the ranges tried, {best:.2f} has the least mean squared error, {min(sums):.2g}. With the methods' "
        f"ranges it is {', '.join(ratios[:-1])} and {ratios[-1]}."
    )


@styled
def rounding(bound: float, note: str, before: int = 6, after: int = 3) -> Figure:
    """Equation 3.5 as steps against the identity, at the upper end of a range: `before` steps
    inside of it and `after` beyond."""
    figure, axis = new_figure(3.1)
    step = scale(bound)
    x = np.linspace((LEVELS - before) * step, (LEVELS + after) * step, 2001)
    axis.plot(x, x, color=GREY, ls="--", lw=1.4, label="identity")
    axis.plot(x, dequantize(quantize(x, step), step), color=BLUE, label="quantised")
    axis.axvline(bound, color=GREEN, ls=":", label=f"range {bound:.3g} = {LEVELS} s")
    axis.set(
        title=f"Equation 3.5, step s = {step:.3g}",
        xlabel="value x",
        ylabel=r"$s \cdot x_q$",
        xlim=(x[0], x[-1]),
    )
    axis.legend(loc="upper left", fontsize=9)
    return finished(figure, note)


@styled
def workflow(
    plain: onnx.ModelProto,
    int8: onnx.ModelProto,
    crops_seen: int,
    bounds: Mapping[str, float],
    engine: Engine,
    method: str,
    note: str,
) -> Figure:
    """Figure 3.10: post-training quantisation of one network. bounds: tensor -> largest value, by
    `method`."""
    before, after = describe(plain), describe(int8)
    nodes = [after["operators"].get(f"{name}Linear", 0) for name in ("Quantize", "Dequantize")]
    steps = [float(scale(bound)) for bound in bounds.values()]
    figure, axis = new_sheet("Post-training quantisation", 6.0)
    draw_box(
        axis,
        (2.5, 10.3),
        (4.6, 1.7),
        f"{before['network']} network",
        f"ONNX, FP32, {before['megabytes']:.1f} MB\n{before['operators']['Conv']} convolutions",
        SKY,
    )
    draw_box(axis, (7.5, 10.3), (4.6, 1.7), "calibration set", f"{crops_seen} crops")
    stages = (
        (8.0, "run in FP32", f"{len(bounds)} activations: largest values, histograms", None),
        (
            5.9,
            f"ranges by {method}, equation 3.4",
            f"{len(bounds)} steps s, {min(steps):.3f} to {max(steps):.3f}",
            None,
        ),
        (
            3.6,
            "QDQ nodes, equation 3.5",
            f"ONNX, INT8, {after['megabytes']:.1f} MB\n"
            f"{nodes[0]} QuantizeLinear, {nodes[1]} DequantizeLinear",
            SKY,
        ),
        (
            1.05,
            f"engine: {engine.framework}, {engine.device}",
            f"plan of {engine.plan_bytes / 1e6:.1f} MB\n"
            f"convolutions run: {describe_executed(engine.executed())}",
            YELLOW,
        ),
    )
    for x in (2.5, 7.5):
        draw_arrow(axis, (x, 9.45), (x, 8.65))
    # Half the height of each box
    ends = [0.45 + 0.2 * (1 + text.count("\n")) for _, _, text, _ in stages]
    for index, ((y, title, text, color), end) in enumerate(zip(stages, ends)):
        draw_box(axis, (5, y), (9.6, 2 * end), title, text, color)
        if index:
            draw_arrow(axis, (5, stages[index - 1][0] - ends[index - 1]), (5, y + end))
    return finished(figure, note)


def engine_rows(
    deployment: Deployment, name: str, quantisation: Quantisation = USUAL
) -> list[dict[str, Any]]:
    """One network at every precision of the framework: the model that is compiled, and the engine;
    a reason where there is none."""
    rows: list[dict[str, Any]] = []
    for precision in FRAMEWORKS[deployment.framework].precisions:
        row: dict[str, Any] = {"precision": precision}
        try:
            model, engine = (
                deployment.model(name, precision, quantisation),
                deployment.engine(name, precision, quantisation),
            )
        except InputError as error:
            rows.append({**row, "missing": str(error)})
            continue
        operators = describe(model)["operators"]
        rows.append(
            {
                **row,
                "framework": engine.framework,
                "model_mb": model.ByteSize() / 1e6,
                "qdq": sum(
                    operators.get(kind, 0) for kind in ("QuantizeLinear", "DequantizeLinear")
                ),
                "cast": operators.get("Cast", 0),
                "executed": describe_executed(engine.executed()),
                "plan_mb": engine.plan_bytes / 1e6,
                "build_s": engine.build_seconds,
            }
        )
    return rows


def engine_table(rows: Seq[Mapping[str, Any]], caption: str) -> Table:
    """The rows of `engine_rows`."""
    heads = [
        "Precision of the model",
        "Model, MB",
        "QDQ nodes",
        "Cast nodes",
        "Convolutions run in",
        "Plan, MB",
        "Built in, s",
    ]
    cells = [
        [row["precision"].upper(), ABSENT, ABSENT, ABSENT, row["missing"], ABSENT, ABSENT]
        if "missing" in row
        else [
            (row["precision"].upper(), row["framework"]),
            f"{row['model_mb']:.2f}",
            row["qdq"],
            row["cast"],
            row["executed"],
            f"{row['plan_mb']:.2f}",
            f"{row['build_s']:.2f}",
        ]
        for row in rows
    ]
    return Table(heads, cells, caption)


# -- Drawings --------------------------------------------------------------------------------------
