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
import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Dict, NamedTuple

import numpy as np

from lib.engines.export import need_onnx, properties, session, set_nodes, set_property, shapes
from lib.errors import InputError
from lib.siamrpn.contract import check_feeds
from lib.siamrpn.parts import KERNELS

if TYPE_CHECKING:
    import onnx

LEVELS = 127  # largest quantised value of a symmetric range
LEAST = 1e-12  # what a probability of zero counts as in a divergence, which it keeps finite
BINS = 2048  # of a histogram of absolute values, as in TensorRT's entropy calibration
PERCENTILE = 99.99
METHODS = ("minmax", "entropy", "percentile")
# Layers of the xcorr network that stay in floating point, see `kind`
XCORR_KEPT = ("correlation", "sum")

# Groups of layers (section 4.2.4): name -> how the names of their nodes begin, in all networks
GROUPS = {
    "stem": "/backbone/(conv1|relu|maxpool)",
    **{f"stage {number}": f"/backbone/layer{number}/" for number in (1, 2, 3, 4)},
    "neck": "/neck/",
    "branches": "/conv_(kernel|search)",
    "correlation": "/Conv",
    "heads": "/head",
    "sum": "/(Add|Mul)",
}

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


class Histogram(NamedTuple):
    """Absolute values of one tensor: counts (BINS,) over 0..largest, which is the bound "minmax"."""

    largest: float
    counts: np.ndarray


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
    # Of equal divergences, which differ by rounding, the one of the fewest bins
    best = int(np.argmin(np.round(divergences(counts), 12)))
    return histogram.largest * (LEVELS + 1 + best) / BINS


def divergences(counts: np.ndarray) -> np.ndarray:
    """Kullback-Leibler divergence for every number n of bins from LEVELS + 1 to BINS, (BINS -
    LEVELS,): of the first n bins with all values beyond in the last (p) from the same bins merged
    into levels and spread again (q).

    Running sums give the sums over levels for all n at once: inside a level q is constant, so only
    the last bin, whose p is another, is added on its own.
    """
    levels, total = LEVELS + 1, counts.sum()
    bins = np.arange(levels, BINS + 1)
    held, filled, entropy = (
        np.concatenate([[0.0], np.cumsum(each)])
        for each in (counts, counts > 0, counts * np.log(np.maximum(counts, 1.0)))
    )
    edges = -(-np.arange(levels + 1) * bins[:, None] // levels)  # first bins of levels, rounded up
    sums, members = np.diff(held[edges], axis=1), np.diff(filled[edges], axis=1)  # (n, levels)
    q = sums / np.maximum(members, 1) / np.maximum(held[bins], 1e-30)[:, None]
    log_q = np.log(np.maximum(q, LEAST))
    last = counts[bins - 1]
    log_q_last = np.where(last > 0, log_q[:, -1], np.log(LEAST))
    p_last = last + total - held[bins]
    sums[:, -1] -= last
    before = entropy[bins - 1] - held[bins - 1] * np.log(total) - (sums * log_q).sum(1)
    at_last = p_last * (np.log(np.maximum(p_last, 1e-300) / total) - log_q_last)
    return (before + at_last) / total


def observe(
    model: onnx.ModelProto, feeds: Sequence[Mapping[str, np.ndarray]], tensors: Sequence[str]
) -> dict[str, Histogram]:
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
    for name, bound in largest.items():
        if not np.isfinite(bound):
            raise InputError(f"the calibration set gives '{name}' values that are not finite")
    counts = {name: np.zeros(BINS, np.int64) for name in tensors}
    for values in map(run, feeds):
        for name, value in values.items():
            place = np.abs(value).ravel() * (BINS / max(largest[name], 1e-12))
            index = np.minimum(place, BINS - 1).astype(np.int32)
            counts[name] += np.bincount(index, minlength=BINS)
    return {name: Histogram(largest[name], counts[name]) for name in tensors}


def observer(
    model: onnx.ModelProto, tensors: Sequence[str]
) -> Callable[[Mapping[str, np.ndarray]], dict[str, np.ndarray]]:
    """A function from feeds to the values of inner tensors."""
    onnx = need_onnx()
    inputs, outputs = shapes(model.graph.input), {value.name for value in model.graph.output}
    inner = [name for name in tensors if name not in inputs]
    open_model = copy.deepcopy(model)
    open_model.graph.output.extend(
        onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None)
        for name in inner
        if name not in outputs
    )
    runtime = session(open_model, every_tensor=True)

    def run(feeds: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        check_feeds(inputs, feeds, "calibrated")
        values = dict(zip(inner, runtime.run(inner, dict(feeds)))) if inner else {}
        return {**values, **{name: feeds[name] for name in tensors if name in inputs}}

    return run


def activation_bounds(
    model: onnx.ModelProto, feeds: Sequence[Mapping[str, np.ndarray]]
) -> dict[str, Bounds]:
    """method -> tensor -> bound, for every activation that `to_int8` may quantise; one pass for all
    methods. Raises as `observe`."""
    histograms = observe(model, feeds, quantisable(model)).items()
    return {
        "minmax": {name: histogram.largest for name, histogram in histograms},
        "entropy": {name: entropy_bound(histogram) for name, histogram in histograms},
        "percentile": {name: percentile_bound(histogram) for name, histogram in histograms},
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


def group(node: str) -> str:
    """The group of layers that a node of this name belongs to, of GROUPS; "" for none."""
    return next((name for name, begin in GROUPS.items() if re.match(begin, node)), "")


def _read_by(node: onnx.NodeProto, what: str, constants: Collection[str]) -> list[str]:
    """The activations that a node of this `kind` reads as integers. Of a shortcut's sum only the
    shortcut: the other one stays where it is computed."""
    if not what:
        return []
    tensors = node.input[1:] if what == "shortcut" else node.input[:2]
    return [tensor for tensor in tensors if tensor not in constants]


def _constants(model: onnx.ModelProto) -> dict[str, Any]:
    """Weights by name, and None for what Constant nodes put out."""
    nodes = (node for node in model.graph.node if node.op_type == "Constant")
    return {
        **{node.output[0]: None for node in nodes},
        **{weight.name: weight for weight in model.graph.initializer},
    }


def quantisable(model: onnx.ModelProto) -> list[str]:
    """The activations that `to_int8` may quantise, in the order of the graph."""
    constants = _constants(model)
    read = (_read_by(node, kind(node, model), constants) for node in model.graph.node)
    return list(dict.fromkeys(tensor for tensors in read for tensor in tensors))


def to_int8(
    model: onnx.ModelProto,
    bounds: Bounds,
    kept: Iterable[str] = XCORR_KEPT,
    fixed_kernels: bool = False,
) -> onnx.ModelProto:
    """The model with QDQ nodes, so that its nodes run in INT8, but those whose `kind` or `group` is
    in `kept`.

    bounds: tensor -> largest absolute value (`activation_bounds`). fixed_kernels: a correlation
    kernel gets a scale for every channel, whose bound is bounds["kernel_cls2[0]"] and so on
    (`channel_bounds`), instead of one. Biases stay in floating point: TensorRT refuses quantised
    ones. Raises InputError where a bound is missing or is no positive number.
    """
    int8, kept = copy.deepcopy(model), tuple(kept)
    constants, sizes, qdq = _constants(int8), shapes(model.graph.input), _QDQ(int8.graph)
    for node in list(int8.graph.node):
        what = kind(node, model)
        if what and what not in kept and group(node.name) not in kept:
            read = _read_by(node, what, constants)
            for tensor in read:
                channels = sizes[tensor][0] if fixed_kernels and tensor in KERNELS else 0
                qdq.add(tensor, _step(bounds, tensor, channels))
            node.input[:] = [f"{tensor}_dq" if tensor in read else tensor for tensor in node.input]
            if what in ("convolution", "last"):
                qdq.add_weight(constants[node.input[1]])
                node.input[1] += "_dq"
        qdq.nodes.append(node)
    set_nodes(int8, qdq.nodes)
    set_property(int8, "precision", "int8")
    need_onnx().checker.check_model(int8, full_check=True)
    return int8


def _step(bounds: Bounds, tensor: str, channels: int) -> np.ndarray:
    """A tensor's scale; one for each of `channels`, unless they are 0."""
    names = [f"{tensor}[{channel}]" for channel in range(channels)] or [tensor]
    try:
        found = np.array([bounds[name] for name in names])
    except KeyError as error:
        raise InputError(
            f"the calibration has no range for {error}: it was made for another network"
        ) from None
    if not (np.isfinite(found).all() and (found >= 0).all()):
        raise InputError(f"the calibration's range for '{tensor}' is no finite positive number")
    return np.asarray(scale(found if channels else found[0]), np.float32)


class _QDQ:
    """The nodes of an INT8 model in order, and what quantising adds to its graph: tensor X is
    quantised to X_q and read as X_dq."""

    def __init__(self, graph: onnx.GraphProto) -> None:
        self.graph = graph
        self.nodes: list[Any] = []
        self._done: set[str] = set()

    def add(self, tensor: str, step: np.ndarray, integers: np.ndarray | None = None) -> None:
        """Quantise a tensor by one step, or one for each channel: where the model runs, or now to
        these integers."""
        if tensor in self._done:
            return
        self._done.add(tensor)
        ends = {"scale": step, "zero": np.zeros(step.shape, np.int8)}
        if integers is None:
            self._node("Quantize", tensor, tensor, "q", step.ndim)
        else:
            ends = {"q": integers, **ends}
        self._node("Dequantize", tensor, f"{tensor}_q", "dq", step.ndim)
        for end, value in ends.items():
            constant = need_onnx().numpy_helper.from_array(value, f"{tensor}_{end}")
            self.graph.initializer.append(constant)

    def add_weight(self, weight: onnx.TensorProto) -> None:
        """Replace a weight by its integers, with a scale for every output channel."""
        if weight.name not in self._done:
            values = need_onnx().numpy_helper.to_array(weight)
            step = scale(np.abs(values).reshape(len(values), -1).max(1)).astype(np.float32)
            each = step.reshape(-1, *[1] * (values.ndim - 1))
            self.add(weight.name, step, quantize(values, each))
            self.graph.initializer.remove(weight)

    def _node(self, kind: str, tensor: str, read: str, end: str, per_channel: int) -> None:
        inputs = [read, f"{tensor}_scale", f"{tensor}_zero"]
        axis = {"axis": 0} if per_channel else {}
        name, output = f"{kind.lower()}_{tensor}", f"{tensor}_{end}"
        make_node = need_onnx().helper.make_node
        self.nodes.append(make_node(f"{kind}Linear", inputs, [output], name=name, **axis))


def channel_bounds(kernels: Mapping[str, np.ndarray]) -> Bounds:
    """Largest absolute value of every channel of correlation kernels (C, 1, 5, 5), as bounds of
    "kernel_cls2[0]" and so on: what an engine that is built with these kernels as weights takes for
    their scales, and keeps when those of another target are put in."""
    return {
        f"{name}[{channel}]": float(np.abs(kernel).max())
        for name in KERNELS
        for channel, kernel in enumerate(kernels[name])
    }
