"""Post-training quantisation (thesis section 3.5): ranges of activations, and INT8 models with
QuantizeLinear/DequantizeLinear.

Symmetric uniform quantisation as the thesis's equations 3.4 and 3.5 give it: one scale for an
activation tensor, one for every output channel of a weight. The result is an ONNX model whose QDQ
nodes say where integers flow, so that OpenVINO, ONNX Runtime and every TensorRT from 8.5 on compile
the same arithmetic; there is no calibration inside an engine that nobody can look at.

The xcorr network is the one that the thesis loses (EAO 0.17). Its correlation multiplies two
tensors that both change at run time, so a kernel's scale can only be right for the targets it was
calibrated on. `XCORR_KEPT` names what stays in floating point here, and section 4.2.1 of the book
measures what each choice costs.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import (
    TYPE_CHECKING,
    Any,
    Collection,
    Dict,
    Iterable,
    List,
    Mapping,
    Sequence,
    Set,
)

import numpy as np

from lib.engines.export import check, need_onnx, properties, session, set_property, shapes
from lib.errors import InputError
from lib.siamrpn.parts import KERNELS

if TYPE_CHECKING:
    import onnx

LEVELS = 127  # largest quantised value of a symmetric range
LEAST = 1e-12  # what a probability of zero counts as in a divergence
BINS = 2048  # of a histogram of absolute values, as in TensorRT's entropy calibration
PERCENTILE = 99.99
METHODS = ("minmax", "entropy", "percentile")
# Layers of the xcorr network that stay in floating point, see `kind`
XCORR_KEPT = ("correlation", "sum")

Bounds = Dict[str, float]  # tensor -> largest absolute value that it is quantised for


# -- Equations 3.4 and 3.5 -------------------------------------------------------------------------


def scale(bound: Any) -> Any:
    """Equation 3.4: the step of a symmetric 8-bit range that reaches to `bound`, the largest
    absolute value (a number or array)."""
    return np.maximum(bound, 1e-12) / LEVELS


def quantize(x: np.ndarray, step: Any) -> np.ndarray:
    """Equation 3.5: int8 values, rounded to the nearest, ties to the even one, clipped to
    -128..127."""
    return np.clip(np.rint(np.asarray(x) / step), -LEVELS - 1, LEVELS).astype(np.int8)


# -- Ranges from histograms ------------------------------------------------------------------------


@dataclass(frozen=True)
class Histogram:
    """Absolute values of one tensor: counts (BINS,) over 0..largest."""

    largest: float
    counts: np.ndarray


def minmax_bound(histogram: Histogram) -> float:
    """The largest value seen."""
    return histogram.largest


def percentile_bound(histogram: Histogram, percentile: float = PERCENTILE) -> float:
    """The value that `percentile` per cent of all values do not exceed, at the upper edge of its
    bin."""
    share = np.cumsum(histogram.counts) / max(histogram.counts.sum(), 1)
    return histogram.largest * (int(np.searchsorted(share, percentile / 100)) + 1) / BINS


def entropy_bound(histogram: Histogram) -> float:
    """The bound at which the quantised distribution loses least information (Kullback-Leibler
    divergence).

    After S. Migacz, "8-bit inference with TensorRT" (GTC 2017): for every bound from 128 bins on,
    the values beyond it are added to the last bin, the rest is merged into 128 levels and spread
    over the bins that were not empty. The bin at zero is left out, as TensorRT does: after a ReLU
    it holds half of all values and says nothing about the range.
    """
    counts = histogram.counts.astype(float)
    counts[0] = 0.0
    if counts.sum() == 0:
        return histogram.largest
    quick = _divergences(counts)
    # Nearly equal ones, which the plain sum then tells apart
    close = np.flatnonzero(quick <= quick.min() + 1e-6 * (1 + abs(quick.min())))
    candidates = [LEVELS + 1 + int(place) for place in close]
    return (
        histogram.largest
        * min(candidates, key=lambda bins: (_divergence(counts, bins), bins))
        / BINS
    )


def _divergence(counts: np.ndarray, bins: int) -> float:
    """Kullback-Leibler divergence of the first `bins` bins, merged into levels and spread again,
    from what they hold with all values beyond added to the last; where the former is zero and the
    latter is not, a very small number keeps it finite."""
    total, levels = counts.sum(), LEVELS + 1
    reference = counts[:bins].copy()
    level = np.minimum(np.arange(bins) * levels // bins, levels - 1)
    filled = reference > 0
    sums = np.bincount(level, reference, levels)
    members = np.bincount(level, filled, levels)
    spread = np.where(filled, (sums / np.maximum(members, 1))[level], 0.0)
    reference[-1] += counts[bins:].sum()
    p, q = reference / total, spread / max(spread.sum(), 1e-30)
    there = p > 0
    return float((p[there] * np.log(p[there] / np.maximum(q[there], LEAST))).sum())


def _divergences(counts: np.ndarray) -> np.ndarray:
    """`_divergence` for every number of bins from LEVELS + 1 to BINS, but for rounding, from
    running sums."""
    levels, total = LEVELS + 1, counts.sum()
    bins = np.arange(levels, BINS + 1)
    log = np.log(np.maximum(counts, 1e-300))
    held, filled, entropy = (
        np.concatenate([[0.0], np.cumsum(each)]) for each in (counts, counts > 0, counts * log)
    )
    # The first bin of every level, rounded up
    edges = -(-np.arange(levels + 1) * bins[:, None] // levels)
    sums, members = np.diff(held[edges], axis=1), np.diff(filled[edges], axis=1)
    inside = held[bins]
    q = np.maximum(sums / np.maximum(members, 1) / np.maximum(inside, 1e-30)[:, None], LEAST)
    divergence = (
        entropy[bins] - inside * np.log(total) - np.where(sums > 0, sums * np.log(q), 0).sum(1)
    )
    last, beyond = counts[bins - 1], total - inside
    q_last = np.where(last > 0, q[:, -1], LEAST)
    alone = np.where(last > 0, last * (log[bins - 1] - np.log(total) - np.log(q_last)), 0)
    more = last + beyond
    together = np.where(
        more > 0, more * (np.log(np.maximum(more, 1e-300) / total) - np.log(q_last)), 0
    )
    return (divergence - alone + together) / total


def observe(
    model: onnx.ModelProto, feeds: Sequence[Mapping[str, np.ndarray]], tensors: Sequence[str]
) -> Dict[str, Histogram]:
    """Histograms of tensors over all feeds, the model run in FP32 by ONNX Runtime: once for the
    largest values, once to count.

    Raises InputError for an empty set, a feed that does not fit the model, or values that are not
    finite.
    """
    if not feeds:
        raise InputError("the calibration set is empty")
    run = observer(model, tensors)
    largest = dict.fromkeys(tensors, 0.0)
    for values in map(run, feeds):
        for name, value in values.items():
            # max() would drop a NaN
            largest[name] = float(np.maximum(largest[name], np.abs(value).max()))
    bad = [name for name, value in largest.items() if not np.isfinite(value)]
    if bad:
        raise InputError(
            f"the calibration set is of no use: '{bad[0]}' takes values that are not finite"
        )
    counts = {name: np.zeros(BINS, np.int64) for name in tensors}
    for values in map(run, feeds):
        for name, value in values.items():
            index = np.minimum(
                np.abs(value).ravel() * (BINS / max(largest[name], 1e-12)), BINS - 1
            ).astype(np.int32)
            counts[name] += np.bincount(index, minlength=BINS)
    return {name: Histogram(largest[name], counts[name]) for name in tensors}


def observer(model: onnx.ModelProto, tensors: Sequence[str]) -> Any:
    """A function from feeds to the values of inner tensors."""
    onnx = need_onnx()
    inputs, outputs = shapes(model.graph.input), {value.name for value in model.graph.output}
    open_model = copy.deepcopy(model)
    open_model.graph.output.extend(
        onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None)
        for name in tensors
        if name not in outputs and name not in inputs
    )
    runtime, inner = (
        session(open_model, every_tensor=True),
        [name for name in tensors if name not in inputs],
    )

    def run(feeds: Mapping[str, np.ndarray]) -> Dict[str, np.ndarray]:
        for name, shape in inputs.items():
            if name not in feeds or feeds[name].shape != shape:
                given = feeds[name].shape if name in feeds else "missing"
                raise InputError(
                    f"the calibration set does not fit the network: '{name}' is {given}, it takes {shape}"
                )
        values = dict(zip(inner, runtime.run(inner, dict(feeds)))) if inner else {}
        return {**values, **{name: feeds[name] for name in tensors if name in inputs}}

    return run


def activation_bounds(
    model: onnx.ModelProto, feeds: Sequence[Mapping[str, np.ndarray]]
) -> Dict[str, Bounds]:
    """method -> tensor -> bound, for every activation that `to_int8` may quantise; one pass for all
    methods. Raises as `observe`."""
    histograms = observe(model, feeds, quantisable(model))
    bound = {"minmax": minmax_bound, "entropy": entropy_bound, "percentile": percentile_bound}
    return {
        method: {name: bound[method](histogram) for name, histogram in histograms.items()}
        for method in METHODS
    }


# -- Where integers flow ---------------------------------------------------------------------------


def kind(node: onnx.NodeProto, model: onnx.ModelProto) -> str:
    """What a node is to quantisation: "convolution"; in the xcorr network "correlation" (its
    weights are no constants), "last" (the convolution that ends a head) and "sum" (the weighted sum
    over the three levels); "shortcut" (the sum that ends a bottleneck); "" for what is not
    quantised."""
    xcorr = properties(model).get("network") == "xcorr"
    if node.op_type in ("Add", "Mul"):
        return "sum" if xcorr else "shortcut" if node.op_type == "Add" else ""
    if node.op_type != "Conv":
        return ""
    if node.input[1] in KERNELS:
        return "correlation"
    followed = {
        tensor for other in model.graph.node if other.op_type == "Relu" for tensor in other.input
    }
    return "last" if xcorr and node.output[0] not in followed else "convolution"


def _read_by(node: onnx.NodeProto, what: str, weights: Collection[str]) -> List[str]:
    """The activations that a node of this `kind` reads as integers. Of a shortcut's sum only the
    shortcut: the other one stays where it is computed."""
    if not what:
        return []
    return [
        tensor
        for tensor in (node.input[1:] if what == "shortcut" else node.input[:2])
        if tensor not in weights
    ]


def quantisable(model: onnx.ModelProto) -> List[str]:
    """The activations that `to_int8` may quantise, in the order of the graph."""
    weights = {weight.name for weight in model.graph.initializer} | _constants(model)
    return list(
        dict.fromkeys(
            tensor
            for node in model.graph.node
            for tensor in _read_by(node, kind(node, model), weights)
        )
    )


def _constants(model: onnx.ModelProto) -> Set[str]:
    return {node.output[0] for node in model.graph.node if node.op_type == "Constant"}


def to_int8(
    model: onnx.ModelProto,
    bounds: Bounds,
    kept: Iterable[str] = XCORR_KEPT,
    fixed_kernels: bool = False,
) -> onnx.ModelProto:
    """The model with QDQ nodes, so that its nodes run in INT8, but those whose `kind` is in `kept`.

    bounds: tensor -> largest absolute value (`activation_bounds`). fixed_kernels: a correlation
    kernel gets a scale for every channel, whose bound is bounds["kernel_cls2[0]"] and so on
    (`channel_bounds`), instead of one. Biases stay in floating point: TensorRT refuses quantised
    ones. Raises InputError where a bound is missing or is no positive number.
    """
    onnx = need_onnx()
    int8 = copy.deepcopy(model)
    graph, kept = int8.graph, tuple(kept)
    weights = {weight.name: weight for weight in graph.initializer}
    nodes: List[Any] = []
    quantised: Dict[str, str] = {}

    def constant(name: str, value: np.ndarray) -> str:
        graph.initializer.append(onnx.numpy_helper.from_array(value, name))
        return name

    def activation(tensor: str) -> str:
        if tensor not in quantised:
            step = scale(_bound(bounds, tensor))
            if fixed_kernels and tensor in KERNELS:
                channels = shapes(model.graph.input)[tensor][0]
                step = scale(
                    np.array(
                        [_bound(bounds, f"{tensor}[{channel}]") for channel in range(channels)]
                    )
                )
            axis = {"axis": 0} if np.ndim(step) else {}
            ends = [
                constant(f"{tensor}_scale", np.asarray(step, np.float32)),
                constant(f"{tensor}_zero", np.zeros(np.shape(step), np.int8)),
            ]
            nodes.append(
                onnx.helper.make_node(
                    "QuantizeLinear",
                    [tensor, *ends],
                    [f"{tensor}_q"],
                    name=f"quantize_{tensor}",
                    **axis,
                )
            )
            nodes.append(
                onnx.helper.make_node(
                    "DequantizeLinear",
                    [f"{tensor}_q", *ends],
                    [f"{tensor}_dq"],
                    name=f"dequantize_{tensor}",
                    **axis,
                )
            )
            quantised[tensor] = f"{tensor}_dq"
        return quantised[tensor]

    def weight(name: str) -> str:
        if name not in quantised:
            values = onnx.numpy_helper.to_array(weights[name])
            step = scale(np.abs(values).reshape(len(values), -1).max(1)).astype(np.float32)
            integers = quantize(values, step.reshape(-1, *[1] * (values.ndim - 1)))
            ends = [
                constant(f"{name}_q", integers),
                constant(f"{name}_scale", step),
                constant(f"{name}_zero", np.zeros(len(step), np.int8)),
            ]
            nodes.append(
                onnx.helper.make_node(
                    "DequantizeLinear", ends, [f"{name}_dq"], name=f"dequantize_{name}", axis=0
                )
            )
            quantised[name] = f"{name}_dq"
            graph.initializer.remove(weights[name])
        return quantised[name]

    known = {*weights, *_constants(model)}
    for node in list(graph.node):
        what = kind(node, model)
        if what and what not in kept:
            read = _read_by(node, what, known)
            node.input[:] = [
                activation(tensor) if tensor in read else tensor for tensor in node.input
            ]
            if what in ("convolution", "last"):
                node.input[1] = weight(node.input[1])
        nodes.append(node)
    del graph.node[:]
    graph.node.extend(nodes)
    set_property(int8, "precision", "int8")
    check(int8)
    return int8


def _bound(bounds: Bounds, tensor: str) -> float:
    try:
        value = bounds[tensor]
    except KeyError:
        raise InputError(
            f"the calibration has no range for '{tensor}': it was made for another network"
        ) from None
    if not (np.isfinite(value) and value >= 0):
        raise InputError(f"the calibration's range for '{tensor}' is {value}, which is no range")
    return float(value)


def channel_bounds(kernels: Mapping[str, np.ndarray]) -> Bounds:
    """Largest absolute value of every channel of correlation kernels (C, 1, 5, 5), as bounds of
    "kernel_cls2[0]" and so on: what an engine that is built with these kernels as weights takes for
    their scales, and keeps when those of another target are put in."""
    return {
        f"{name}[{channel}]": float(np.abs(kernel).max())
        for name in KERNELS
        for channel, kernel in enumerate(kernels[name])
    }
