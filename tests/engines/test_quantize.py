"""Quantisation: equations 3.4 and 3.5 by formula, ranges against ONNX Runtime and SciPy, INT8
models as frameworks need them."""

from __future__ import annotations

import copy
from collections import Counter

import numpy as np
import pytest

torch = pytest.importorskip("torch")
onnx = pytest.importorskip("onnx")
ort = pytest.importorskip("onnxruntime")

from lib.engines.calibration import CropPair, network_feeds  # noqa: E402
from lib.engines.export import export_network, random_feeds, run_onnx  # noqa: E402
from lib.engines.quantize import (  # noqa: E402
    BINS,
    LEVELS,
    METHODS,
    XCORR_KEPT,
    Histogram,
    activation_bounds,
    channel_bounds,
    divergences,
    entropy_bound,
    kind,
    observe,
    percentile_bound,
    quantisable,
    quantize,
    scale,
    to_int8,
)
from lib.engines.zoo import DEMO_WEIGHTS  # noqa: E402
from lib.errors import InputError  # noqa: E402
from lib.siamrpn.checkpoint import load_network  # noqa: E402
from lib.siamrpn.parts import KERNELS, MAPS, NETWORKS, OUTPUTS  # noqa: E402

from .helpers import mean_of_the_range  # noqa: E402


@pytest.fixture(scope="module")
def models():
    """The demo network, whose trained activations have ranges like real ones."""
    return export_network(load_network(DEMO_WEIGHTS))


def picture(seed, size):
    """A crop with edges and smooth parts, from a formula."""
    y, x = np.mgrid[:size, :size] / size * (3 + seed)
    channels = [
        127 + 120 * np.sin(5 * x + seed) * np.cos(3 * y),
        255 * ((x + y) % 1 > 0.5),
        255 * (np.hypot(x - 1, y - 1) % 1),
    ]
    return np.stack(channels, -1).astype(np.uint8)


@pytest.fixture(scope="module")
def feeds(models):
    """Three feeds of every network; the xcorr network's come from the other two."""
    return network_feeds(
        models, [CropPair(picture(seed, 127), picture(seed, 255)) for seed in range(3)]
    )


@pytest.fixture(scope="module")
def bounds(models, feeds):
    """The xcorr network's ranges by every method; the largest values of the other two, which have
    many more tensors."""
    found = {"xcorr": activation_bounds(models["xcorr"], feeds["xcorr"])}
    for name in ("target", "search"):
        histograms = observe(models[name], feeds[name], quantisable(models[name]))
        found[name] = {
            "minmax": {tensor: histogram.largest for tensor, histogram in histograms.items()}
        }
    return found


# -- Equations 3.4 and 3.5 -------------------------------------------------------------------------


def test_the_step_is_the_largest_absolute_value_over_127():
    assert scale(127.0) == 1.0
    assert scale(1.0) == pytest.approx(1 / 127)
    assert np.allclose(scale(np.array([12.7, 254.0])), [0.1, 2.0])
    assert scale(0.0) > 0  # a tensor of zeros divides by nothing


@pytest.mark.parametrize(
    "x, step, q",
    [
        (0.0, 0.5, 0),
        (0.2, 0.5, 0),
        (0.3, 0.5, 1),
        (-0.3, 0.5, -1),
        (0.25, 0.5, 0),
        (0.75, 0.5, 2),
        (1.25, 0.5, 2),
        (1.75, 0.5, 4),
        (-0.25, 0.5, 0),
        (-0.75, 0.5, -2),
        (-1.25, 0.5, -2),
        (63.5, 0.5, 127),
        (63.75, 0.5, 127),
        (64.0, 0.5, 127),
        (1e9, 0.5, 127),
        (-63.5, 0.5, -127),
        (-64.0, 0.5, -128),
        (-64.25, 0.5, -128),
        (-65.0, 0.5, -128),
        (-1e9, 0.5, -128),
    ],
)
def test_values_are_rounded_ties_to_even_and_clipped_to_minus_128_to_127(x, step, q):
    result = quantize(np.array([x], np.float32), step)
    assert result.dtype == np.int8
    assert result[0] == q


def test_quantising_equals_onnx_quantizelinear_bit_for_bit():
    helper, single = onnx.helper, onnx.TensorProto.FLOAT
    step = np.float32(0.037)
    constants = [
        onnx.numpy_helper.from_array(np.array(step), "step"),
        onnx.numpy_helper.from_array(np.array(0, np.int8), "zero"),
    ]
    graph = helper.make_graph(
        [
            helper.make_node("QuantizeLinear", ["x", "step", "zero"], ["q"]),
            helper.make_node("DequantizeLinear", ["q", "step", "zero"], ["y"]),
        ],
        "qdq",
        [helper.make_tensor_value_info("x", single, (50000,))],
        [
            helper.make_tensor_value_info("q", onnx.TensorProto.INT8, (50000,)),
            helper.make_tensor_value_info("y", single, (50000,)),
        ],
        constants,
    )
    x = np.random.RandomState(0).normal(0, 2, 50000).astype(np.float32)
    assert (np.abs(x) > 128 * step).any()
    q, y = run_onnx(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8),
        {"x": x},
    )
    assert np.array_equal(quantize(x, step), q)
    assert np.array_equal(quantize(x, step) * step, y)


def test_inside_the_range_no_value_moves_by_more_than_half_a_step():
    x = np.linspace(-3, 3, 10001)
    moved = np.abs(quantize(x, scale(3.0)) * scale(3.0) - x)
    assert moved.max() <= 0.5 * scale(3.0) * (1 + 1e-5)
    assert moved.max() > 0.49 * scale(3.0)


# -- Ranges from histograms ------------------------------------------------------------------------


def histogram(values):
    values = np.abs(values)
    return Histogram(float(values.max()), np.histogram(values, BINS, (0, values.max()))[0])


def test_the_percentile_bound_is_numpys_within_a_bin():
    values = np.random.RandomState(1).laplace(size=300000)
    kept = histogram(values)
    for percentile in (50.0, 99.0, 99.99):
        expected = np.percentile(np.abs(values), percentile)
        assert (
            expected - 1e-9
            <= percentile_bound(kept, percentile)
            <= expected + 2.01 * kept.largest / BINS
        )
    assert percentile_bound(kept, 100.0) == pytest.approx(kept.largest)


def test_entropy_cuts_outliers_off_where_the_rest_needs_every_level():
    """127 uneven values fit into 128 levels without loss; a range up to the outlier would merge 16
    of them to one."""
    counts = np.zeros(BINS, np.int64)
    counts[1:128] = np.where(np.arange(1, 128) % 2, 10, 1000)
    counts[127], counts[-1] = 1000, 1
    assert entropy_bound(Histogram(20.48, counts)) == pytest.approx(1.28)


def test_entropy_keeps_the_whole_range_of_what_it_represents_without_loss():
    assert entropy_bound(Histogram(5.0, np.full(BINS, 100))) == 5.0


def test_zeros_after_a_relu_say_nothing_about_the_range():
    values = histogram(np.random.RandomState(2).exponential(size=100000))
    with_zeros = values.counts.copy()
    with_zeros[0] += 10**9
    assert (
        entropy_bound(Histogram(values.largest, with_zeros))
        == entropy_bound(values)
        < values.largest
    )


def test_a_tensor_of_zeros_has_a_bound_and_is_quantised_to_zeros():
    nothing = Histogram(0.0, np.array([7] + [0] * (BINS - 1)))
    assert entropy_bound(nothing) == percentile_bound(nothing) == 0.0
    assert not quantize(np.zeros(3), scale(0.0)).any()


@pytest.mark.parametrize(
    "draw",
    [
        lambda random: random.normal(size=20000),
        lambda random: random.laplace(size=20000),
        lambda random: np.append(random.uniform(-1, 1, 20000), [9.0, -7.0]),
    ],
    ids=["normal", "laplace", "uniform with outliers"],
)
def test_divergences_are_scipys(draw):
    """Independent of lib/: levels by splitting, the divergence by scipy.stats.entropy."""
    entropy = pytest.importorskip("scipy.stats").entropy
    kept = histogram(draw(np.random.RandomState(3)))
    counts = kept.counts.astype(float)
    counts[0] = 0

    def divergence(bins):
        reference = np.append(counts[: bins - 1], counts[bins - 1 :].sum())
        level_of = [bin_ * (LEVELS + 1) // bins for bin_ in range(bins)]
        spread = np.zeros(bins)
        edges = np.flatnonzero(np.diff(level_of)) + 1
        for members in np.split(np.arange(bins), edges):
            filled = members[counts[members] > 0]
            if len(filled):
                spread[filled] = counts[members].sum() / len(filled)
        return entropy(
            reference, np.where(reference > 0, np.maximum(spread, 1e-12 * spread.sum()), 0)
        )

    quick = divergences(counts)
    tried = range(LEVELS + 1, BINS + 1, 7)
    assert [quick[bins - LEVELS - 1] for bins in tried] == pytest.approx(
        [divergence(bins) for bins in tried], abs=1e-9
    )
    chosen = round(entropy_bound(kept) / kept.largest * BINS)
    assert divergence(chosen) <= min(map(divergence, tried)) * (1 + 1e-6)


def test_counts_are_those_of_numpys_histogram_over_all_feeds(models, feeds):
    tensors = [*MAPS[:2], "cls"]
    found = observe(models["xcorr"], feeds["xcorr"], tensors)
    for tensor in tensors:
        values = [
            run_onnx(models["xcorr"], feed)[0] if tensor == "cls" else feed[tensor]
            for feed in feeds["xcorr"]
        ]
        values = np.abs(np.stack(values)).ravel()
        expected = np.histogram(values, BINS, (0, values.max()))[0]
        # ONNX Runtime optimises the two graphs apart
        assert found[tensor].largest == pytest.approx(values.max(), rel=1e-6)
        assert found[tensor].counts.sum() == values.size
        # At edges of bins FP32 and FP64 may differ
        assert np.abs(found[tensor].counts - expected).sum() <= 1e-3 * values.size


def test_minmax_ranges_equal_those_of_onnx_runtimes_calibrator(models, feeds, bounds, tmp_path):
    calibrate = pytest.importorskip("onnxruntime.quantization.calibrate")
    for name in ("target", "xcorr"):
        model = tmp_path / f"{name}.onnx"
        onnx.save(models[name], str(model))
        calibrator = calibrate.create_calibrator(
            str(model), None, str(tmp_path / "augmented.onnx"), extra_options={}
        )
        calibrator.collect_data(Reader(feeds[name]))
        theirs = {
            tensor: float(np.abs(data.range_value).max())
            for tensor, data in calibrator.compute_data().items()
        }
        assert bounds[name]["minmax"].keys() <= theirs.keys()
        for tensor, bound in bounds[name]["minmax"].items():
            assert bound == pytest.approx(theirs[tensor], rel=1e-5), tensor


class Reader:
    """Feeds for ONNX Runtime's calibration, one after the other."""

    def __init__(self, feeds):
        self.feeds = iter(feeds)

    def get_next(self):
        return next(self.feeds, None)


def test_clipping_methods_never_reach_beyond_the_largest_value(bounds):
    ranges = bounds["xcorr"]
    assert list(ranges) == list(METHODS)
    for method in ("entropy", "percentile"):
        assert ranges[method].keys() == ranges["minmax"].keys()
        assert all(
            0 < bound <= ranges["minmax"][tensor] for tensor, bound in ranges[method].items()
        )
    assert any(
        ranges["entropy"][tensor] < 0.9 * bound for tensor, bound in ranges["minmax"].items()
    )


# -- INT8 models -----------------------------------------------------------------------------------


def parts(model):
    """Nodes by what they put out, constants by name."""
    return (
        {tensor: node for node in model.graph.node for tensor in node.output},
        {weight.name: onnx.numpy_helper.to_array(weight) for weight in model.graph.initializer},
    )


def is_integer(tensor, made_by):
    return tensor in made_by and made_by[tensor].op_type == "DequantizeLinear"


@pytest.mark.parametrize("name", NETWORKS)
def test_weights_are_int8_per_channel_zero_points_zero_and_biases_float(models, bounds, name):
    _, plain = parts(models[name])
    int8 = to_int8(models[name], bounds[name]["minmax"])
    made_by, constants = parts(int8)
    seen = 0
    for node in int8.graph.node:
        if node.op_type != "Conv" or not is_integer(node.input[1], made_by):
            continue
        seen += 1
        weight = made_by[node.input[1]]
        integers, step, zero = (constants[tensor] for tensor in weight.input)
        original = plain[weight.input[0][: -len("_q")]]
        assert [attribute.i for attribute in weight.attribute if attribute.name == "axis"] == [0]
        assert integers.dtype == zero.dtype == np.int8
        assert step.shape == zero.shape == (len(original),)
        assert not zero.any()
        expected = np.abs(original).max((1, 2, 3)) / 127
        assert np.allclose(step, expected, rtol=1e-6)
        assert (np.abs(integers.astype(int)).max((1, 2, 3)) == 127).all()
        restored = integers * step[:, None, None, None]
        assert (np.abs(restored - original).max((1, 2, 3)) <= 0.5 * step * (1 + 1e-4)).all()
        bias = constants[node.input[2]]
        assert bias.dtype == np.float32
        assert np.array_equal(bias, plain[node.input[2]])
        activation = made_by[node.input[0]]
        assert activation.op_type == "DequantizeLinear"
        quantising = made_by[activation.input[0]]
        assert quantising.op_type == "QuantizeLinear"
        assert list(quantising.input[1:]) == list(activation.input[1:])
        step, zero = (constants[tensor] for tensor in activation.input[1:])
        assert step.shape == zero.shape == ()
        assert zero.dtype == np.int8 and zero == 0
        assert step == np.float32(bounds[name]["minmax"][quantising.input[0]] / 127)
    assert seen == {"target": 62, "search": 62, "xcorr": 12}[name]


@pytest.mark.parametrize(
    "kept, integers",
    [
        (XCORR_KEPT, {"convolution": 6, "last": 6}),
        ((*XCORR_KEPT, "last"), {"convolution": 6}),
        ((), {"correlation": 6, "convolution": 6, "last": 6, "sum": 10}),
        (("correlation", "convolution", "last", "sum"), {}),
    ],
    ids=["standard", "last layers kept", "everything in integers", "nothing in integers"],
)
def test_what_is_kept_of_the_xcorr_network_stays_in_floating_point(
    models, feeds, bounds, kept, integers
):
    model, feed = models["xcorr"], feeds["xcorr"][0]
    kinds = {node.name: kind(node, model) for node in model.graph.node}
    int8 = to_int8(model, bounds["xcorr"]["minmax"], kept)
    made_by, _ = parts(int8)
    found = Counter(
        kinds[node.name]
        for node in int8.graph.node
        if kinds.get(node.name) and any(is_integer(tensor, made_by) for tensor in node.input)
    )
    assert found == integers
    if not integers:
        assert all(
            np.array_equal(own, exact)
            for own, exact in zip(run_onnx(int8, feed), run_onnx(model, feed))
        )


def test_the_kinds_of_nodes_are_those_of_a_bottleneck_network_with_six_correlations(models):
    counted = {
        name: {
            what: sum(kind(node, model) == what for node in model.graph.node)
            for what in ("convolution", "shortcut", "correlation", "last", "sum")
        }
        for name, model in models.items()
    }
    backbone = {"convolution": 62, "shortcut": 16, "correlation": 0, "last": 0, "sum": 0}
    assert counted == {
        "target": backbone,
        "search": backbone,
        "xcorr": {"convolution": 6, "shortcut": 0, "correlation": 6, "last": 6, "sum": 10},
    }


@pytest.mark.parametrize("name", NETWORKS)
def test_quantisable_names_all_that_a_model_in_integers_needs_and_no_more(models, name):
    needed = quantisable(models[name])
    complete = dict.fromkeys(needed, 1.0)
    int8 = to_int8(models[name], complete, ())
    assert {node.input[0] for node in int8.graph.node if node.op_type == "QuantizeLinear"} == set(
        needed
    )
    for tensor in (needed[0], needed[-1]):
        lacking = {other: bound for other, bound in complete.items() if other != tensor}
        with pytest.raises(InputError, match="has no range for"):
            to_int8(models[name], lacking, ())


def test_outputs_in_integers_stay_near_those_in_fp32_and_keep_their_order(models, feeds, bounds):
    for name, largest in (("target", 0.1), ("search", 0.1), ("xcorr", 0.05)):
        int8 = to_int8(models[name], bounds[name]["minmax"])
        assert tuple(value.name for value in int8.graph.output) == OUTPUTS[name]
        for own, exact in zip(
            run_onnx(int8, feeds[name][0]), run_onnx(models[name], feeds[name][0])
        ):
            assert 1e-6 < mean_of_the_range(own, exact) < largest


def test_scales_and_outputs_agree_with_onnx_runtimes_own_quantiser(models, feeds, bounds, tmp_path):
    quantization = pytest.importorskip("onnxruntime.quantization")
    plain, theirs_path = tmp_path / "search.onnx", tmp_path / "int8.onnx"
    onnx.save(models["search"], str(plain))
    symmetric = {"ActivationSymmetric": True, "WeightSymmetric": True, "QuantizeBias": False}
    quantization.quantize_static(
        str(plain),
        str(theirs_path),
        Reader(feeds["search"]),
        per_channel=True,
        op_types_to_quantize=["Conv"],
        extra_options=symmetric,
    )
    theirs = onnx.load(str(theirs_path))
    ours = to_int8(models["search"], bounds["search"]["minmax"], kept=("shortcut",))

    def scales(model):
        made_by, constants = parts(model)
        return {
            node.name: [constants[made_by[tensor].input[1]] for tensor in node.input[:2]]
            for node in model.graph.node
            if node.op_type == "Conv"
        }

    own, other = scales(ours), scales(theirs)
    assert own.keys() == other.keys() and len(own) == 62
    for name, (activation, weight) in own.items():
        assert np.allclose(weight, other[name][1], rtol=1e-5), name
        assert activation == pytest.approx(float(other[name][0]), rel=1e-5), name
    # Theirs also rounds what a convolution puts out.
    exact = run_onnx(models["search"], feeds["search"][1])
    for ours_out, theirs_out, plain_out in zip(
        run_onnx(ours, feeds["search"][1]), run_onnx(theirs, feeds["search"][1]), exact
    ):
        deviation = [np.sqrt(np.mean((out - plain_out) ** 2)) for out in (ours_out, theirs_out)]
        assert deviation[0] < 1.2 * deviation[1]
        assert np.sqrt(np.mean((ours_out - theirs_out) ** 2)) < 0.1 * np.ptp(plain_out)


def test_a_channel_without_weights_stays_zero(models, bounds):
    model = copy.deepcopy(models["xcorr"])
    last = next(node for node in model.graph.node if kind(node, model) == "last")
    weight = next(weight for weight in model.graph.initializer if weight.name == last.input[1])
    values = onnx.numpy_helper.to_array(weight).copy()
    values[3] = 0
    weight.CopyFrom(onnx.numpy_helper.from_array(values, weight.name))
    int8 = to_int8(model, bounds["xcorr"]["minmax"])
    _, constants = parts(int8)
    assert not constants[f"{weight.name}_q"][3].any()
    assert np.isfinite(run_onnx(int8, random_feeds("xcorr", 64))[0]).all()


def test_fixed_kernels_have_a_scale_for_every_channel_as_weights_have(models, feeds, bounds):
    kernels = {name: feeds["xcorr"][0][name] for name in KERNELS}
    complete = {**bounds["xcorr"]["minmax"], **channel_bounds(kernels)}
    made_by, constants = parts(to_int8(models["xcorr"], complete, (), fixed_kernels=True))
    for name in KERNELS:
        node = made_by[f"{name}_q"]
        assert [attribute.i for attribute in node.attribute if attribute.name == "axis"] == [0]
        assert np.allclose(
            constants[node.input[1]], np.abs(kernels[name]).max((1, 2, 3)) / 127, rtol=1e-6
        )
    one_scale, _ = parts(to_int8(models["xcorr"], complete, ()))
    assert not one_scale["kernel_cls2_q"].attribute or not one_scale["kernel_cls2_q"].attribute[0].i
    with pytest.raises(InputError, match=r"no range for 'kernel_cls2\[0\]'"):
        to_int8(models["xcorr"], bounds["xcorr"]["minmax"], (), fixed_kernels=True)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -1.0])
def test_a_range_that_is_none_is_refused_by_name(models, bounds, bad):
    with pytest.raises(InputError, match="the calibration's range for 'search' is no finite"):
        to_int8(models["search"], {**bounds["search"]["minmax"], "search": bad})


def test_the_fp32_model_stays_as_it_was(models, bounds):
    before = models["xcorr"].SerializeToString(deterministic=True)
    to_int8(models["xcorr"], bounds["xcorr"]["minmax"], ())
    assert models["xcorr"].SerializeToString(deterministic=True) == before


# -- Bad calibration sets --------------------------------------------------------------------------


@pytest.mark.parametrize("feed", [{}, {"search": np.zeros((1, 3, 127, 127), np.float32)}])
def test_a_set_that_does_not_fit_the_network_is_refused(models, feed):
    with pytest.raises(InputError, match=r"takes 'search' of shape \(1, 3, 255, 255\)"):
        activation_bounds(models["search"], [feed])


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("first", [True, False], ids=["first", "last"])
def test_values_that_are_not_finite_are_refused(models, feeds, bad, first):
    spoilt = {"search": feeds["search"][0]["search"].copy()}
    spoilt["search"][0, 1, 100, 100] = bad
    given = [spoilt, feeds["search"][1]] if first else [feeds["search"][1], spoilt]
    with pytest.raises(InputError, match="values that are not finite"):
        activation_bounds(models["search"], given)
