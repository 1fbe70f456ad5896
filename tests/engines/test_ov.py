"""OpenVINO on the demo network: ONNX Runtime's numbers, PyTorch's boxes, and precisions that are told as they run."""
from __future__ import annotations

import sys
from collections import Counter

import numpy as np
import pytest

torch = pytest.importorskip("torch")
onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
pytest.importorskip("openvino")

from lib import experiments  # noqa: E402
from lib.engines import ov, plans  # noqa: E402
from lib.engines.base import LAYER_TYPES, EngineNetwork, by_type  # noqa: E402
from lib.engines.pytorch import torch_network  # noqa: E402
from lib.errors import InputError  # noqa: E402
from lib.export import export_network, random_feeds, run_onnx, save_model, to_fp16, with_constant_kernels  # noqa: E402
from lib.quantize import to_int8  # noqa: E402
from lib.siamrpn.checkpoint import load_network  # noqa: E402
from lib.siamrpn.parts import KERNELS, MAPS, NETWORKS, OUTPUTS  # noqa: E402
from lib.siamrpn.tracker import SiamRPNTracker  # noqa: E402
from lib.vot.dataset import axis_aligned_box, load_dataset  # noqa: E402
from lib.zoo import DEMO_WEIGHTS, tracker_config  # noqa: E402

CHANNELS = 64


def can(precision):
    try:
        return bool(ov.hint(precision))
    except InputError:
        return False


here = pytest.mark.parametrize("precision", [
    pytest.param(name, marks=pytest.mark.skipif(not can(name), reason=f"this processor has no {name}"))
    for name in ("fp32", "fp16", "int8")])


@pytest.fixture(scope="module")
def demo():
    return load_network(DEMO_WEIGHTS)


@pytest.fixture(scope="module")
def models(demo):
    """(network, precision) -> ONNX model, INT8 with the ranges that come with the demo weights."""
    ranges = experiments.read_ranges(experiments.calibration_path(DEMO_WEIGHTS), experiments.digest(DEMO_WEIGHTS.read_bytes()))
    plain = export_network(demo)
    return {**{(name, "fp32"): model for name, model in plain.items()},
            **{(name, "fp16"): to_fp16(model) for name, model in plain.items()},
            **{(name, "int8"): to_int8(model, ranges[name]["entropy"]) for name, model in plain.items()}}


@pytest.fixture(scope="module")
def paths(models, tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    return {key: save_model(model, folder / f"{key[0]}-{key[1]}.onnx") for key, model in models.items()}


@pytest.fixture(scope="module")
def engines(paths):
    """Every network at every precision that is here."""
    return {key: ov.build(path, *key) for key, path in paths.items() if can(key[1])}


@pytest.fixture(scope="module")
def feeds(models):
    """What the networks see: random crops, and what the FP32 target and search networks make of them."""
    crops = {**random_feeds("target", CHANNELS), **random_feeds("search", CHANNELS)}
    made = {tensor: value for name in ("target", "search")
            for tensor, value in zip(OUTPUTS[name], run_onnx(models[name, "fp32"], {key: crops[key] for key in crops
                                                                                    if key == {"target": "exemplar"}.get(name, name)}))}
    return {"target": {"exemplar": crops["exemplar"]}, "search": {"search": crops["search"]}, "xcorr": made}


def difference(own, theirs):
    return max(np.abs(own[name] - theirs[name]).max() / np.ptp(theirs[name]) for name in theirs)


def in_onnx(model, feeds):
    return dict(zip([value.name for value in model.graph.output], run_onnx(model, feeds)))


@here
@pytest.mark.parametrize("name", NETWORKS)
def test_answers_are_those_of_onnx_runtime(models, engines, feeds, name, precision):
    engine = engines[name, precision]
    own = engine.keep(engine(feeds[name]))
    worst = difference(own, in_onnx(models[name, "fp32"], feeds[name]))
    assert worst < {"fp32": 1e-4, "fp16": 0.1, "int8": 0.3}[precision]
    assert (worst > 1e-5) == (precision != "fp32")  # something else was computed
    assert (engine.network, engine.precision, engine.device) == (name, precision, "CPU")
    assert {tensor: (spec.shape, spec.dtype) for tensor, spec in engine.outputs.items()} == {
        tensor: (value.shape, "float32") for tensor, value in own.items()}
    assert list(engine.inputs) == list(feeds[name])


@here
def test_the_precision_told_is_the_one_in_the_runtimes_own_graph(engines, precision):
    names = {"f32": "fp32", "f16": "fp16", "bf16": "bf16", "i8": "int8", "u8": "int8"}
    for name in NETWORKS:
        engine = engines[name, precision]
        told = engine.executed()
        found = Counter()
        for operation in engine._compiled.get_runtime_model().get_ops():
            info = operation.get_rt_info()
            if info["layerType"].astype(str) in ("Convolution", "GroupConvolution"):
                found[names[info["runtimePrecision"].astype(str)]] += 1
        assert told == dict(found)
        assert sum(told.values()) == {"target": 62, "search": 62, "xcorr": 18}[name]
        half = {"bf16": "bf16", "f16": "fp16", "f32": "fp32"}[ov.hint("int8")]
        expected = {"fp32": {"fp32"}, "fp16": {names[ov.hint("fp16")]} if precision == "fp16" else set(), "int8": {"int8", half}}
        assert set(told) <= expected[precision]
        if precision == "int8":
            assert told["int8"] >= 12  # in the xcorr network the six correlations stay as they are
            assert told["int8"] == {"target": 62, "search": 62, "xcorr": 12}[name]


def test_fp32_boxes_are_pytorchs_within_a_twentieth_of_a_pixel_over_a_real_sequence(shared, demo, engines):
    video = load_dataset(shared / "sequences" / "OTB")["Crossing"]
    trackers = [SiamRPNTracker(network, tracker_config("demo")) for network in (
        torch_network(demo), EngineNetwork({name: engines[name, "fp32"] for name in NETWORKS}))]
    for tracker in trackers:
        tracker.init(video.frame(0), axis_aligned_box(video.regions[0]))
    boxes = [[tracker.track(frame).box for tracker in trackers] for frame in map(video.frame, range(1, len(video)))]
    differences = np.abs(np.diff(np.array(boxes), axis=1))
    assert len(boxes) == 119
    assert differences.max() < 0.05


@here
def test_only_the_xcorr_network_has_correlations_and_every_layer_has_a_type(engines, feeds, precision):
    for name in NETWORKS:
        layers = engines[name, precision].profile(feeds[name], 2)
        assert {layer.type for layer in layers} <= set(LAYER_TYPES)
        assert sum(layer.type == "correlation" for layer in layers) == (6 if name == "xcorr" else 0)
        times = by_type(layers)
        assert times["convolution"] > 0
        assert sum(times.values()) == pytest.approx(sum(layer.seconds for layer in layers))
        if precision != "int8":
            assert times["convolution"] > times["other"]


@here
def test_refitted_kernels_answer_as_kernels_as_inputs_also_after_a_second_refit(models, engines, feeds, tmp_path, precision):
    first = {name: feeds["xcorr"][name] for name in KERNELS}
    fitted = ov.build(save_model(with_constant_kernels(models["xcorr", precision], first), tmp_path / "x.onnx"), "xcorr", precision,
                      refit=True)
    maps = {name: feeds["xcorr"][name] for name in MAPS}
    given = engines["xcorr", precision]
    assert list(fitted.inputs) == list(MAPS)
    answers = []
    for factor in (1, -0.7, 0.4):
        kernels = {name: (kernel[::-1] * factor).copy() for name, kernel in first.items()} if factor != 1 else first
        if factor != 1:
            fitted.refit(kernels)
        answers.append(given.keep(given({**kernels, **maps})))
        assert difference(fitted(maps), answers[-1]) < (1e-5 if precision == "fp32" else 0.02)
    assert difference(answers[0], answers[1]) > 0.05  # targets that can be told apart


def test_kernels_stay_valid_after_another_target(engines, feeds):
    network = EngineNetwork({name: engines[name, "fp32"] for name in NETWORKS})
    search = feeds["search"]["search"]
    first = network.template(feeds["target"]["exemplar"])
    before = network.track(first, search)
    second = network.template(random_feeds("target", CHANNELS, 9)["exemplar"] * 0.3)
    other = network.track(second, search)
    after = network.track(first, search)
    assert all(np.array_equal(*pair) for pair in zip(before, after))
    assert not np.array_equal(before[0], other[0])


# -- Plans ---------------------------------------------------------------------------------------------------------------------


@here
def test_a_kept_plan_answers_as_a_new_engine_and_tells_the_same(paths, engines, feeds, tmp_path, capsys, precision):
    first, again = (ov.build(paths["xcorr", precision], "xcorr", precision, tmp_path) for _ in range(2))
    [plan] = tmp_path.iterdir()
    assert again.build_seconds == first.build_seconds  # what building took, not loading
    assert 0 < again.plan_bytes == first.plan_bytes < plan.stat().st_size
    for engine in (first, again):
        assert difference(engine(feeds["xcorr"]), engines["xcorr", precision](feeds["xcorr"])) < 1e-6
        assert engine.executed() == engines["xcorr", precision].executed()
    assert capsys.readouterr().err == ""


def test_another_model_or_precision_is_another_plan(paths, tmp_path):
    for key in (("xcorr", "fp32"), ("xcorr", "int8"), ("target", "fp32")):
        ov.build(paths[key], *key, tmp_path)
    ov.build(paths["target", "fp32"], "xcorr", "fp32", tmp_path / "named alike")
    names = [path.name for path in (*tmp_path.glob("*.plan"), *tmp_path.glob("*/*.plan"))]
    assert len(set(names)) == 4


def flip(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 16
    path.write_bytes(bytes(data))


def sealed(data):
    """A file that the cache takes for a good plan of the same key, with contents that are none."""
    def write(path):
        key = plans.json.loads(path.read_bytes().split(b"\n")[0])["key"]
        plans._write(path, key, plans.Plan(data, 1.0, False))
    return write


@pytest.mark.parametrize("damage", [
    flip, lambda path: path.write_bytes(path.read_bytes()[:5000]), lambda path: path.write_text("somebody else's"), sealed(b"no plan")],
    ids=["flipped bit", "cut short", "text", "refused by OpenVINO"])
def test_a_damaged_plan_is_built_again_with_a_line_and_the_right_results(paths, engines, feeds, tmp_path, capsys, damage):
    ov.build(paths["xcorr", "fp32"], "xcorr", "fp32", tmp_path)
    [plan] = tmp_path.iterdir()
    damage(plan)
    engine = ov.build(paths["xcorr", "fp32"], "xcorr", "fp32", tmp_path)
    assert f"{plan}: built again" in capsys.readouterr().err
    assert difference(engine(feeds["xcorr"]), engines["xcorr", "fp32"](feeds["xcorr"])) < 1e-6


def test_a_folder_that_cannot_be_written_is_a_line_and_the_engine_runs(paths, engines, feeds, tmp_path, capsys):
    (tmp_path / "file").write_text("")
    engine = ov.build(paths["xcorr", "fp32"], "xcorr", "fp32", tmp_path / "file" / "plans")
    assert "the engine runs all the same" in capsys.readouterr().err
    assert difference(engine(feeds["xcorr"]), engines["xcorr", "fp32"](feeds["xcorr"])) < 1e-6


# -- Bad input -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("change, words", [
    (lambda feeds: feeds.pop("map_loc3"), "it lacks 'map_loc3'"),
    (lambda feeds: feeds.update(picture=feeds["map_cls2"]), "it has no input 'picture'"),
    (lambda feeds: feeds.update(map_cls2=feeds["map_cls2"][:, :32]), "takes 'map_cls2' of shape (1, 64, 29, 29), not (1, 32, 29, 29)"),
], ids=["missing", "unknown", "shape"])
def test_a_call_that_does_not_fit_is_refused_in_one_sentence(engines, feeds, change, words):
    wrong = dict(feeds["xcorr"])
    change(wrong)
    with pytest.raises(InputError) as refusal:
        engines["xcorr", "fp32"](wrong)
    assert words in str(refusal.value)


@pytest.mark.parametrize("contents", [b"", b"no model at all"], ids=["empty", "text"])
def test_a_file_that_is_no_model_is_refused_in_one_sentence(tmp_path, contents):
    (tmp_path / "bad.onnx").write_bytes(contents)
    with pytest.raises(InputError, match="OpenVINO cannot compile the search network") as refusal:
        ov.build(tmp_path / "bad.onnx", "search", "fp32")
    assert "\n" not in str(refusal.value)


class Processor:
    def __init__(self, *capabilities):
        self.capabilities = list(capabilities)

    def get_property(self, device, name):
        assert (device, name) == ("CPU", "OPTIMIZATION_CAPABILITIES")
        return self.capabilities


@pytest.mark.parametrize("capabilities, precision, expected", [
    (("FP32", "INT8"), "fp32", "f32"), (("FP32", "INT8"), "int8", "f32"), (("FP32", "FP16", "INT8"), "fp16", "f16"),
    (("FP32", "FP16", "BF16"), "fp16", "bf16"), (("FP32", "BF16", "INT8"), "int8", "bf16"),
    (("FP32", "INT8"), "fp16", InputError("multiplies neither bf16 nor fp16")), (("FP32", "BF16"), "int8", InputError("has no INT8")),
    (("FP32",), "fp8", InputError("unknown precision 'fp8'")),
])
def test_a_precision_is_what_the_processor_has_or_a_sentence(monkeypatch, tmp_path, capabilities, precision, expected):
    monkeypatch.setattr(ov, "core", lambda: Processor(*capabilities))
    if isinstance(expected, str):
        assert ov.hint(precision) == expected
        return
    with pytest.raises(InputError, match=str(expected)):
        ov.hint(precision)


def test_without_openvino_a_sentence_says_what_to_install(paths, monkeypatch):
    ov.core.cache_clear()
    monkeypatch.setitem(sys.modules, "openvino", None)
    try:
        for call in (ov.version, lambda: ov.build(paths["xcorr", "fp32"], "xcorr", "fp32")):
            with pytest.raises(InputError, match=r"OpenVINO is not installed: pip install -e '\.\[engines\]'"):
                call()
    finally:
        ov.core.cache_clear()
