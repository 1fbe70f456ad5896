"""From weights to engines: each made once, nine for all 27 mixtures, INT8 only with ranges, kernels
inside where asked for."""

from __future__ import annotations

import ctypes
import itertools
import sys

import numpy as np
import pytest

torch = pytest.importorskip("torch")
onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
openvino = pytest.importorskip("openvino")

from lib.engines import ov  # noqa: E402
from lib.engines.calibration import network_feeds  # noqa: E402
from lib.engines.deploy import (  # noqa: E402
    FRAMEWORKS,
    RECIPES,
    USUAL,
    Deployment,
    Quantisation,
    choose_framework,
    framework_module,
    memory_kept,
    refitted,
)
from lib.engines.export import properties, run_onnx, save_model  # noqa: E402
from lib.engines.quantize import METHODS, channel_bounds, kind, observe, quantisable, to_int8  # noqa: E402
from lib.errors import InputError  # noqa: E402
from lib.siamrpn.contract import PRECISIONS  # noqa: E402
from lib.siamrpn.parts import KERNELS, MAPS, NETWORKS  # noqa: E402

from .helpers import crops, mean_of_the_range, noise_pairs, of_the_range  # noqa: E402

CAPABILITIES = set(openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"))
needs_int8 = pytest.mark.skipif("INT8" not in CAPABILITIES, reason="this processor lacks INT8")

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def feeds(models):
    """Two feeds of the xcorr network as the other two make them."""
    return network_feeds(models, noise_pairs(2))


@pytest.fixture(scope="module")
def ranges(models, feeds):
    """The largest values for every method, and those of the first target's kernels channel by
    channel."""
    found = {}
    for name, model in models.items():
        given = feeds[name] if name == "xcorr" else feeds[name][:1]
        histograms = observe(model, given, quantisable(model))
        bounds = {tensor: histogram.largest for tensor, histogram in histograms.items()}
        found[name] = {
            method: {**bounds, **channel_bounds(feeds["xcorr"][0])} for method in METHODS
        }
    return found


@pytest.fixture
def deployment(network, ranges):
    return Deployment(network, "openvino", cache=None, ranges=lambda quantisation: ranges)


@pytest.fixture
def built(monkeypatch):
    """(network, precision) of everything that OpenVINO builds from here on."""
    calls, build = [], ov.build

    def counted(model, network, precision, *arguments, **named):
        calls.append((network, precision))
        return build(model, network, precision, *arguments, **named)

    monkeypatch.setattr(ov, "build", counted)
    return calls


def cls_of(network):
    exemplar, search = crops(0)
    return network.track(network.template(exemplar), search)[0]


# -- Models and engines ----------------------------------------------------------------------------


def test_models_say_their_network_and_precision_and_are_files_that_are_read_back(
    deployment, tmp_path
):
    for name, precision in itertools.product(NETWORKS, PRECISIONS):
        model = deployment.model(name, precision)
        assert (properties(model)["network"], properties(model)["precision"]) == (name, precision)
        if precision == "int8":
            assert onnx.load(str(save_model(model, tmp_path / f"{name}.onnx"))) == model


@needs_int8
def test_nine_engines_make_all_27_mixtures(deployment, built):
    mixtures = list(itertools.product(PRECISIONS, repeat=3))
    answers = {}
    for mixture in mixtures:
        network = deployment.network(dict(zip(NETWORKS, mixture)))
        shown = "/".join(mixture).upper() if len(set(mixture)) > 1 else mixture[0].upper()
        assert network.name == f"OpenVINO {ov.version()} {shown} (CPU)"
        answers[mixture] = cls_of(network)
    assert len(mixtures) == 27
    assert sorted(built) == sorted(itertools.product(NETWORKS, PRECISIONS))
    exact = answers["fp32", "fp32", "fp32"]
    errors = {mixture: mean_of_the_range(cls, exact) for mixture, cls in answers.items()}
    assert max(errors.values()) < 0.3, "INT8 saturates on a processor without VNNI"
    del errors["fp32", "fp32", "fp32"]
    assert all(error > 0 for error in errors.values())


def test_an_engine_is_made_once_and_only_int8_depends_on_how_it_was_quantised(deployment, built):
    by_entropy, by_largest = Quantisation(method="entropy"), Quantisation(method="minmax")
    assert deployment.engine("xcorr", "fp32", by_entropy) is deployment.engine(
        "xcorr", "fp32", by_largest
    )
    assert built == [("xcorr", "fp32")]
    if "INT8" in CAPABILITIES:
        first = deployment.engine("xcorr", "int8", by_entropy)
        assert deployment.engine("xcorr", "int8", by_entropy) is first
        assert deployment.engine("xcorr", "int8", by_largest) is not first
        assert built == [("xcorr", "fp32"), ("xcorr", "int8"), ("xcorr", "int8")]


def test_ranges_are_asked_for_int8_only_and_for_its_quantisation(network, ranges):
    asked = []

    def give(quantisation):
        asked.append(quantisation)
        return ranges

    deployment = Deployment(network, "openvino", cache=None, ranges=give)
    deployment.model("xcorr", "fp32")
    deployment.model("xcorr", "fp16")
    assert asked == []
    deployment.model("xcorr", "int8", Quantisation(recipe="everything"))
    assert asked == [Quantisation(recipe="everything")]


def test_int8_takes_the_ranges_of_its_method(network, ranges):
    scaled = {
        name: {
            method: {tensor: bound * factor for tensor, bound in methods[method].items()}
            for method, factor in zip(METHODS, (1.0, 0.5, 0.25))
        }
        for name, methods in ranges.items()
    }
    deployment = Deployment(network, "openvino", cache=None, ranges=lambda quantisation: scaled)
    steps = []
    for method in METHODS:
        model = deployment.model("xcorr", "int8", Quantisation(method=method, recipe="everything"))
        [step] = [
            onnx.numpy_helper.to_array(weight)
            for weight in model.graph.initializer
            if weight.name == "map_loc2_scale"
        ]
        steps.append(float(step))
    largest = ranges["xcorr"]["minmax"]["map_loc2"]
    assert steps == pytest.approx([largest / 127, largest / 254, largest / 508])


@pytest.mark.parametrize("recipe", list(RECIPES))
def test_a_recipe_keeps_in_floating_point_what_it_says(deployment, recipe):
    plain = deployment.model("xcorr", "fp32")
    kinds = {node.name: kind(node, plain) for node in plain.graph.node}
    int8 = deployment.model("xcorr", "int8", Quantisation(recipe=recipe))
    integers = {
        tensor
        for node in int8.graph.node
        if node.op_type == "DequantizeLinear"
        for tensor in node.output
    }
    quantised = {
        kinds[node.name]
        for node in int8.graph.node
        if kinds.get(node.name) and set(node.input) & integers
    }
    assert quantised == {"convolution", "correlation", "last", "sum"} - set(RECIPES[recipe].kept)
    per_channel = any(
        node.name == "quantize_kernel_cls2" and node.attribute for node in int8.graph.node
    )
    assert per_channel == RECIPES[recipe].fixed


def test_a_second_deployment_takes_its_plans_from_the_cache(network, tmp_path, monkeypatch, capsys):
    everywhere = dict.fromkeys(NETWORKS, "fp32")
    first = Deployment(network, "openvino", cache=tmp_path).network(everywhere)
    before = {path.name: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    assert len(before) == 3
    monkeypatch.setattr(
        ov.core(), "compile_model", lambda *_: pytest.fail("built again"), raising=False
    )
    second = Deployment(network, "openvino", cache=tmp_path).network(everywhere)
    assert {path.name: path.stat().st_mtime_ns for path in tmp_path.iterdir()} == before
    assert capsys.readouterr().err == ""
    assert np.array_equal(cls_of(first), cls_of(second))


def test_pytorch_runs_the_modules_themselves(network):
    deployment = Deployment(network, "pytorch", cache=None)
    engines = deployment.engines({"target": "fp32", "search": "fp16", "xcorr": "fp32"})
    assert [engines[name].precision for name in NETWORKS] == ["fp32", "fp16", "fp32"]
    assert deployment.engine("search", "fp16") is engines["search"]
    assert deployment.parameters == sum(value.numel() for value in network.parameters())


# -- Kernels inside --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "precision, quantisation",
    [
        ("fp32", USUAL),
        ("fp16", USUAL),
        pytest.param("int8", USUAL, marks=needs_int8),
        pytest.param("int8", Quantisation(recipe="one-target"), marks=needs_int8),
    ],
    ids=["fp32", "fp16", "int8", "int8 with fixed scales"],
)
def test_a_refitted_xcorr_engine_equals_the_one_with_kernels_as_inputs(
    deployment, feeds, precision, quantisation
):
    first, second = feeds["xcorr"]
    maps = {name: second[name] for name in MAPS}
    usual = deployment.engine("xcorr", precision, quantisation)
    fitted = refitted(deployment, precision, {name: first[name] for name in KERNELS}, quantisation)
    assert fitted.refits and set(fitted.inputs) == set(MAPS)
    cls = []
    for target in (first, second, {**first, **{name: -1.5 * first[name] for name in KERNELS}}):
        kernels = {name: target[name] for name in KERNELS}
        fitted.refit(kernels)
        own, theirs = fitted.keep(fitted(maps)), usual.keep(usual({**kernels, **maps}))
        for name in ("cls", "loc"):
            assert of_the_range(own[name], theirs[name]) <= (1e-4 if precision == "fp32" else 0.03)
        cls.append(own["cls"])
    assert not np.array_equal(cls[0], cls[1])


def test_scales_of_the_first_target_clip_the_kernels_of_a_stronger_one(deployment, feeds, ranges):
    """One reason why a refitted INT8 xcorr network fails: only its correlations run in INT8
    here."""
    plain = deployment.model("xcorr", "fp32")
    int8 = to_int8(
        plain, ranges["xcorr"]["minmax"], ("convolution", "last", "sum"), fixed_kernels=True
    )
    first = feeds["xcorr"][0]

    def error(strength):
        given = {**first, **{name: np.float32(strength) * first[name] for name in KERNELS}}
        exact = run_onnx(plain, given)[0]
        return np.sqrt(np.mean((run_onnx(int8, given)[0] - exact) ** 2)) / np.std(exact)

    assert error(1) < 0.1
    assert error(3) > 5 * error(1)


# -- Bad input -------------------------------------------------------------------------------------


def test_int8_without_ranges_names_the_command_that_makes_them(network):
    with pytest.raises(
        InputError, match=r"INT8 needs a calibration; `siambook calibrate` makes one"
    ):
        Deployment(network, "openvino", cache=None).engine("search", "int8")


def test_ranges_of_another_network_are_refused(network, ranges):
    swapped = {**ranges, "search": {method: {"exemplar": 255.0} for method in METHODS}}
    with pytest.raises(
        InputError, match="has no range for 'search': it was made for another network"
    ):
        Deployment(network, "openvino", cache=None, ranges=lambda quantisation: swapped).engine(
            "search", "int8"
        )


def test_a_precision_that_a_framework_has_not_is_refused(network, deployment):
    with pytest.raises(
        InputError, match=r"PyTorch has no precision 'int8' here \(there are fp32, fp16\)"
    ):
        Deployment(network, "pytorch").engine("search", "int8")
    with pytest.raises(
        InputError, match=r"OpenVINO has no precision 'fp64' here \(there are fp32, fp16, int8\)"
    ):
        deployment.network({"target": "fp32", "search": "fp64", "xcorr": "fp32"})


def refuse():
    raise InputError("no GPU")


def test_an_unknown_framework_is_refused_and_auto_takes_tensorrt_only_with_a_gpu(monkeypatch):
    for call in (framework_module, choose_framework):
        with pytest.raises(
            InputError, match=r"unknown framework 'onnx' \(there are pytorch, openvino, tensorrt\)"
        ):
            call("onnx")
    assert choose_framework("pytorch") == "pytorch"
    trt = framework_module("tensorrt")
    monkeypatch.setattr(trt, "need", lambda: None)
    assert choose_framework() == "tensorrt"
    monkeypatch.setattr(trt, "need", refuse)
    assert choose_framework() == "openvino"
    assert all(framework_module(name) for name in FRAMEWORKS)


@pytest.mark.parametrize(
    "given", [{"calibration": "guessing"}, {"method": "average"}, {"recipe": "secret"}]
)
def test_an_unknown_quantisation_is_refused(given):
    [value] = given.values()
    with pytest.raises(InputError, match=rf"quantisation: unknown '{value}' \(there are "):
        Quantisation(**given)


def faults_of_large_arrays() -> int:
    """Page faults of 20 arrays of 48 MB, one after the other."""
    resource = pytest.importorskip("resource")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(20):
        np.empty(12_000_000, np.float32).fill(1)
    return int(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)


@pytest.mark.skipif(
    not sys.platform.startswith("linux") or not hasattr(ctypes.CDLL(None), "mallopt"),
    reason="another C library than glibc",
)
def test_memory_is_kept_for_the_next_call_within_and_given_back_afterwards() -> None:
    before = faults_of_large_arrays()
    with memory_kept():
        faults_of_large_arrays()
        within = faults_of_large_arrays()
    assert within < before / 10
    assert faults_of_large_arrays() > before / 10
