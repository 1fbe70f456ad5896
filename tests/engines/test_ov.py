"""OpenVINO's engines, really compiled: PyTorch's boxes, the precision that runs, plans that survive
damage, kernels inside."""

from __future__ import annotations

import copy
import json
import sys
from collections import Counter
from datetime import timedelta
from types import SimpleNamespace

import numpy as np
import pytest

torch = pytest.importorskip("torch")
onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
openvino = pytest.importorskip("openvino")

from lib.engines import ov  # noqa: E402
from lib.engines.export import (  # noqa: E402
    export_network,
    random_feeds,
    run_onnx,
    to_fp16,
    with_constant_kernels,
)
from lib.engines.pytorch import torch_network  # noqa: E402
from lib.engines.quantize import observe, quantisable, to_int8  # noqa: E402
from lib.engines.zoo import DEMO_WEIGHTS, tracker_config  # noqa: E402
from lib.errors import InputError  # noqa: E402
from lib.files import digest  # noqa: E402
from lib.siamrpn.checkpoint import load_network  # noqa: E402
from lib.siamrpn.contract import LAYER_TYPES, PRECISIONS, EngineNetwork, by_type  # noqa: E402
from lib.siamrpn.parts import INPUTS, KERNELS, MAPS, NETWORKS, OUTPUTS  # noqa: E402
from lib.siamrpn.tracker import SiamRPNTracker  # noqa: E402
from lib.vot.dataset import axis_aligned_box, load_dataset  # noqa: E402

from .helpers import CHANNELS, crops, mean_of_the_range, of_the_range  # noqa: E402

# Asked of OpenVINO, not of lib/
CAPABILITIES = openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
# what FP16 runs in
HALF = next((name.lower() for name in ("BF16", "FP16") if name in CAPABILITIES), "fp32")
HERE = [precision for precision in PRECISIONS if precision != "int8" or "INT8" in CAPABILITIES]

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def models(network):
    """name, precision -> model."""
    found = {}
    for name, model in export_network(network).items():
        histograms = observe(
            model, [random_feeds(name, CHANNELS, seed) for seed in (0, 1)], quantisable(model)
        )
        bounds = {tensor: histogram.largest for tensor, histogram in histograms.items()}
        found[name, "fp32"] = model
        found[name, "fp16"] = to_fp16(model)
        found[name, "int8"] = to_int8(model, bounds)
    return found


@pytest.fixture(scope="module")
def files(models):
    return {key: model.SerializeToString() for key, model in models.items()}


@pytest.fixture(scope="module")
def engines(files):
    return {
        (name, precision): ov.build(data, name, precision)
        for (name, precision), data in files.items()
        if precision in HERE
    }


def together(engines, precision):
    return EngineNetwork({name: engines[name, precision] for name in NETWORKS})


def kernels_of(seed):
    feeds = random_feeds("xcorr", CHANNELS, seed)
    return {name: feeds[name] for name in KERNELS}


def with_kernels_inside(models, precision, kernels):
    """An xcorr engine that is refitted."""
    model = with_constant_kernels(models["xcorr", precision], kernels)
    return ov.build(model.SerializeToString(), "xcorr", precision, refit=True)


# -- What comes out --------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NETWORKS)
def test_fp32_engines_agree_with_onnx_runtime_within_a_ten_thousandth(models, engines, name):
    feeds = random_feeds(name, CHANNELS, seed=4)
    engine = engines[name, "fp32"]
    answer = engine(feeds)
    assert tuple(engine.inputs) == INPUTS[name] and set(engine.outputs) == set(OUTPUTS[name])
    for tensor, expected in zip(OUTPUTS[name], run_onnx(models[name, "fp32"], feeds)):
        assert engine.outputs[tensor] == expected.shape
        assert of_the_range(answer[tensor], expected) < 1e-4
    assert engine.inputs == {key: value.shape for key, value in feeds.items()}


# A processor without VNNI adds pairs of 8-bit products in 16 bits, which saturate: its INT8 is
# farther from FP32.
@pytest.mark.parametrize("precision, share", [("fp16", 0.05), ("int8", 0.25)])
@pytest.mark.parametrize("name", NETWORKS)
def test_lower_precisions_are_near_fp32_and_not_equal_to_it(
    models, engines, name, precision, share
):
    if precision not in HERE:
        pytest.skip(f"this processor has no {precision}")
    feeds = random_feeds(name, CHANNELS)
    exact = dict(zip(OUTPUTS[name], run_onnx(models[name, "fp32"], feeds)))
    answer = engines[name, precision](feeds)
    errors = [mean_of_the_range(answer[tensor], exact[tensor]) for tensor in OUTPUTS[name]]
    assert 1e-6 < max(errors) < share


def test_what_has_no_kernel_in_16_bits_is_compiled_in_fp32_and_says_so(files, monkeypatch):
    """As OpenVINO refuses some networks on processors with bf16 and without matrix units."""
    asked, compile_in = [], ov.OpenVINOEngine._compile_in

    def refuses_bf16(self, numbers, model, cache):
        asked.append(numbers)
        if numbers == "bf16":
            raise InputError("no implementation")
        compile_in(self, numbers, model, cache)

    monkeypatch.setattr(ov.OpenVINOEngine, "_compile_in", refuses_bf16)
    monkeypatch.setattr(ov, "hint", lambda precision: "bf16")
    engine = ov.build(files["xcorr", "fp16"], "xcorr", "fp16")
    assert asked == ["bf16", "f32"] and set(engine.executed()) == {"fp32"}
    with pytest.raises(InputError, match="cannot compile"):
        ov.build(b"no model", "xcorr", "fp16")


@pytest.mark.slow
def test_boxes_over_a_real_sequence_are_pytorchs_within_a_twentieth_of_a_pixel(shared):
    network = load_network(DEMO_WEIGHTS)
    compiled = EngineNetwork(
        {
            name: ov.build(model.SerializeToString(), name, "fp32")
            for name, model in export_network(network).items()
        }
    )
    [sequence] = load_dataset(shared / "sequences" / "OTB" / "Crossing")
    frames = [sequence.frame(index) for index in range(21)]
    boxes = []
    for each in (torch_network(network), compiled):
        tracker = SiamRPNTracker(each, tracker_config("demo"))
        tracker.init(frames[0], axis_aligned_box(sequence.regions[0]))
        boxes.append(np.array([tracker.track(frame).box for frame in frames[1:]]))
    assert boxes[0].shape == boxes[1].shape == (20, 4)
    assert np.abs(boxes[0] - boxes[1]).max() < 0.05
    centre = boxes[1][:, :2] + boxes[1][:, 2:] / 2
    annotated = np.array([region[:2] + region[2:] / 2 for region in sequence.regions[1:21]])
    # And it did follow the target
    assert np.median(np.linalg.norm(centre - annotated, axis=1)) < 10


def test_kernels_of_one_target_stay_valid_after_another_is_taken(engines):
    network = together(engines, "fp32")
    first = network.template(crops(1)[0])
    before = network.track(first, crops(1)[1])
    second = network.template(crops(2)[0])
    other = network.track(second, crops(1)[1])
    after = network.track(first, crops(1)[1])
    assert all(np.array_equal(one, same) for one, same in zip(before, after))
    assert not np.array_equal(other[0], after[0])


def test_outputs_as_numpy_stay_and_the_engines_own_are_those_of_the_last_call(engines):
    engine = engines["search", "fp32"]
    own = engine({"search": crops(1)[1]})["map_cls2"]
    kept, all_kept = engine.numpy(own), engine.keep({"map_cls2": own})["map_cls2"]
    before = kept.copy()
    assert kept.dtype == np.float32
    engine({"search": crops(2)[1]})
    assert np.array_equal(kept, before) and np.array_equal(all_kept, before)
    assert not np.array_equal(own, before)


@pytest.mark.parametrize("kind", ["as it is", "float64", "read-only", "not contiguous"])
def test_an_array_that_changes_in_place_is_read_again(engines, kind):
    """An engine sets only the arrays that are new to it, and of some OpenVINO has a copy."""
    engine, (first, second) = engines["search", "fp32"], (crops(1)[1], crops(2)[1])
    feed = first.astype(np.float64) if kind == "float64" else first.copy()
    view = {"read-only": feed.view(), "not contiguous": np.asfortranarray(feed)}.get(kind, feed)
    under = view if kind == "not contiguous" else feed
    view.flags.writeable = kind != "read-only"
    for crop in (first, second):
        under[...] = crop
        answer = engine.keep(engine({"search": view}))
        expected = engine.keep(engine({"search": crop.copy()}))
        again = engine({"search": view})
        for name, right in expected.items():
            assert np.array_equal(answer[name], right) and np.array_equal(again[name], right)


def test_a_target_network_of_another_framework_hands_its_kernels_over(network, engines):
    mixed = EngineNetwork(
        {**together(engines, "fp32").engines, "target": torch_network(network).target}
    )
    exemplar, search = crops(3)
    own, theirs = (
        each.track(each.template(exemplar), search) for each in (mixed, together(engines, "fp32"))
    )
    assert all(of_the_range(one, other) < 1e-4 for one, other in zip(own, theirs))


# -- Precision -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name, convolutions", [("target", 62), ("search", 62), ("xcorr", 18)])
@pytest.mark.parametrize("precision, runs_in", [("fp32", "fp32"), ("fp16", HALF)])
def test_fp32_runs_in_fp32_only_and_fp16_in_the_sixteen_bits_of_the_processor_or_says_fp32(
    engines, name, convolutions, precision, runs_in
):
    assert engines[name, precision].executed() == {runs_in: convolutions}
    assert engines[name, precision].precision == precision


@pytest.mark.skipif("int8" not in HERE, reason="this processor has no INT8")
@pytest.mark.parametrize(
    "name, integers, convolutions", [("target", 62, 62), ("search", 62, 62), ("xcorr", 12, 18)]
)
def test_int8_runs_mostly_in_int8_and_the_correlations_in_floating_point(
    engines, name, integers, convolutions
):
    executed = engines[name, "int8"].executed()
    assert sum(executed.values()) == convolutions
    assert executed["int8"] >= 0.9 * integers
    if name == "xcorr":
        correlations = {
            layer.precision
            for layer in engines[name, "int8"].profile(random_feeds(name, CHANNELS), 1)
            if layer.type == "correlation"
        }
        assert correlations <= {"fp32", "fp16", "bf16"}


@pytest.mark.parametrize("precision", HERE)
@pytest.mark.parametrize("name", NETWORKS)
def test_the_precision_told_is_that_of_the_kernels_that_the_profiler_saw(engines, name, precision):
    engine = engines[name, precision]
    seen = Counter(
        layer.precision
        for layer in engine.profile(random_feeds(name, CHANNELS), 1)
        if layer.type in ("convolution", "correlation")
    )
    assert seen == engine.executed()


@pytest.mark.parametrize(
    "capabilities, hints",
    [
        (("FP32", "INT8", "BF16", "FP16"), {"fp32": "f32", "fp16": "bf16", "int8": "bf16"}),
        (("FP32", "INT8", "BF16"), {"fp32": "f32", "fp16": "bf16", "int8": "bf16"}),
        (("FP32", "INT8", "FP16"), {"fp32": "f32", "fp16": "f16", "int8": "f16"}),
        (("FP32", "INT8"), {"fp32": "f32", "fp16": "f32", "int8": "f32"}),
        (("FP32",), {"fp32": "f32", "fp16": "f32"}),
    ],
)
def test_fp16_becomes_fp32_where_the_processor_lacks_it_and_int8_is_refused(
    monkeypatch, capabilities, hints
):
    def get_property(device, name):
        assert (device, name) == ("CPU", "OPTIMIZATION_CAPABILITIES")
        return list(capabilities)

    monkeypatch.setattr(ov, "core", lambda: SimpleNamespace(get_property=get_property))
    for precision in PRECISIONS:
        if precision in hints:
            assert ov.hint(precision) == hints[precision]
        else:
            with pytest.raises(InputError, match="this processor has no INT8"):
                ov.hint(precision)


def test_an_engine_is_not_built_in_a_precision_that_the_processor_lacks(
    files, tmp_path, monkeypatch
):
    real = ov.core()

    class Lesser:
        """The real Core, on a processor with nothing but FP32."""

        def __getattr__(self, name):
            return getattr(real, name)

        def get_property(self, device, name):
            told = real.get_property(device, name)
            return ["FP32"] if name == "OPTIMIZATION_CAPABILITIES" else told

    monkeypatch.setattr(ov, "version", lambda: "1.0")
    monkeypatch.setattr(ov, "core", Lesser)
    with pytest.raises(InputError, match="fp32 runs everywhere"):
        ov.build(files["xcorr", "int8"], "xcorr", "int8", tmp_path)
    assert not list(tmp_path.iterdir())
    for precision in ("fp32", "fp16"):
        engine = ov.build(files["xcorr", precision], "xcorr", precision, tmp_path)
        assert engine.executed() == {"fp32": 18}


# -- Plans -----------------------------------------------------------------------------------------


def answers(engine):
    feeds = random_feeds(engine.network, CHANNELS, seed=7)
    return engine.keep(engine(feeds))


def same(one, other):
    return one.keys() == other.keys() and all(
        np.array_equal(one[name], other[name]) for name in one
    )


@pytest.fixture
def kept(files, tmp_path):
    """A folder with the plan of the FP32 search network, the plan's path, and what the engine
    answered when it was built."""
    folder = tmp_path / "plans"
    engine = ov.build(files["search", "fp32"], "search", "fp32", folder)
    [path] = folder.iterdir()
    return folder, path, engine


def test_a_kept_plan_is_loaded_and_not_built(files, kept, monkeypatch, capsys):
    folder, path, built = kept
    before = path.read_bytes()
    real = ov.core()
    monkeypatch.setattr(real, "compile_model", lambda *_: pytest.fail("built again"), raising=False)
    loaded = ov.build(files["search", "fp32"], "search", "fp32", folder)
    assert same(answers(loaded), answers(built))
    assert (loaded.build_seconds, loaded.plan_bytes) == (built.build_seconds, built.plan_bytes)
    assert 0 < loaded.plan_bytes < len(before) == path.stat().st_size
    assert loaded.executed() == built.executed()
    assert (loaded.inputs, loaded.outputs) == (built.inputs, built.outputs)
    assert capsys.readouterr().err == ""


def test_another_precision_or_model_has_a_plan_of_its_own(files, models, kept, tmp_path):
    folder, path, _ = kept
    for precision in HERE[1:]:
        ov.build(files["search", precision], "search", precision, folder)
    other = copy.deepcopy(models["search", "fp32"])
    weight = other.graph.initializer[0]
    weight.CopyFrom(
        onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(weight) * 1.01, weight.name)
    )
    changed = ov.build(other.SerializeToString(), "search", "fp32", folder)
    assert len(list(folder.iterdir())) == len(HERE) + 1
    assert path.exists()
    assert not same(
        answers(changed), answers(ov.build(files["search", "fp32"], "search", "fp32", folder))
    )


def flip_a_bit(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def put_in_what_openvino_refuses(path):
    """A whole and honest file, as after a change inside of OpenVINO that its version hides."""
    head = json.loads(path.read_bytes().split(b"\n", 1)[0])
    data = b"not what OpenVINO exports" * 100
    head.update(digest=digest(data))
    path.write_bytes(json.dumps(head).encode() + b"\n" + data)


@pytest.mark.parametrize("damage", [flip_a_bit, put_in_what_openvino_refuses])
def test_a_damaged_plan_is_built_again_and_the_results_are_right(files, kept, capsys, damage):
    folder, path, built = kept
    damage(path)
    again = ov.build(files["search", "fp32"], "search", "fp32", folder)
    said = capsys.readouterr().err
    assert str(path) in said and said.count("built again") == said.count("\n") == 1
    assert ("it is damaged" in said) == (damage is flip_a_bit), "else OpenVINO's own words"
    assert same(answers(again), answers(built))


def test_the_size_of_a_plan_is_known_also_where_none_is_kept(engines, kept):
    assert engines["search", "fp32"].plan_bytes == pytest.approx(kept[2].plan_bytes, rel=0.05)


# -- Kernels inside --------------------------------------------------------------------------------


@pytest.mark.parametrize("precision", HERE)
def test_kernels_inside_answer_as_kernels_as_inputs_also_after_a_second_refit(
    models, engines, precision
):
    targets = [
        {name: kernel - 0.4 for name, kernel in kernels_of(seed).items()} for seed in (1, 2, 3)
    ]
    maps = {name: random_feeds("xcorr", CHANNELS, 1)[name] for name in MAPS}
    fitted = with_kernels_inside(models, precision, targets[0])
    assert fitted.refits and not engines["xcorr", precision].refits
    assert set(fitted.inputs) == set(MAPS)
    told = []
    for index, kernels in enumerate(targets):
        if index:
            fitted.refit(kernels)
        own = fitted.keep(fitted(maps))
        theirs = engines["xcorr", precision]({**kernels, **maps})
        for name in ("cls", "loc"):
            assert of_the_range(own[name], theirs[name]) <= (1e-4 if precision == "fp32" else 0.02)
        told.append(own["cls"])
    assert not np.array_equal(told[0], told[1]) and not np.array_equal(told[1], told[2])
    assert fitted.executed() == engines["xcorr", precision].executed()


def test_a_tracker_network_refits_when_the_target_changes_and_only_then(models, engines):
    fitted = with_kernels_inside(models, "fp32", kernels_of(0))
    usual = together(engines, "fp32")
    network = EngineNetwork({**usual.engines, "xcorr": fitted})
    refit, refits = fitted.refit, []
    fitted.refit = lambda kernels: (refits.append(1), refit(kernels))
    first = network.template(crops(1)[0])
    for _ in range(3):
        one = network.track(first, crops(1)[1])
    assert len(refits) == 1
    second = network.template(crops(2)[0])
    two = network.track(second, crops(2)[1])
    again = network.track(first, crops(1)[1])
    assert len(refits) == 3
    for own, kernels, search in ((one, first, 1), (two, second, 2), (again, first, 1)):
        expected = usual.track(kernels, crops(search)[1])
        assert all(of_the_range(a, b) < 1e-4 for a, b in zip(own, expected))


# -- Layers ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("precision", HERE)
@pytest.mark.parametrize("name", NETWORKS)
def test_layers_have_the_types_of_every_framework_and_six_correlate(engines, name, precision):
    layers = engines[name, precision].profile(random_feeds(name, CHANNELS), 3)
    times = by_type(layers)
    assert {layer.type for layer in layers} <= set(LAYER_TYPES)
    assert times["convolution"] > 0
    assert (times["pooling"] > 0) == (name != "xcorr")
    assert sum(layer.type == "correlation" for layer in layers) == (6 if name == "xcorr" else 0)
    assert sum(layer.type == "other" for layer in layers) <= 0.2 * len(layers)


def test_a_layers_time_is_the_mean_of_the_calls_in_seconds(engines, monkeypatch):
    engine, told = engines["search", "fp32"], iter(range(1, 4))

    class Request:
        """Tells of one layer: 1 ms in the first call that is profiled, 2 ms and 3 ms in the
        next."""

        def __init__(self):
            self.profiling_info = []

        def infer(self, feeds, **how):
            number = next(told, 0) if self.profiling_info else 0  # the first call only warms up
            layer = {"node_name": "one", "node_type": "Convolution", "exec_type": "jit_f32"}
            self.profiling_info = [
                SimpleNamespace(real_time=timedelta(milliseconds=number), **layer)
            ]

    monkeypatch.setattr(engine, "_request", Request())
    [layer] = engine.profile({"search": crops(1)[1]}, 3)
    assert (layer.name, layer.type, layer.precision) == ("one", "convolution", "fp32")
    assert layer.seconds == pytest.approx(0.002)


@pytest.mark.parametrize("precision", HERE)
def test_a_correlation_is_one_also_with_the_kernels_inside(models, precision):
    fitted = with_kernels_inside(models, precision, kernels_of(0))
    maps = {name: random_feeds("xcorr", CHANNELS)[name] for name in MAPS}
    for _ in range(2):
        layers = fitted.profile(maps, 1)
        assert sum(layer.type == "correlation" for layer in layers) == 6
        fitted.refit(kernels_of(0))


# -- Bad input -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name, change",
    [
        ("kernel_loc4", lambda feeds: feeds.pop("kernel_loc4")),
        ("exemplar", lambda feeds: feeds.update(exemplar=feeds["map_cls2"])),
        ("map_cls2", lambda feeds: feeds.update(map_cls2=feeds["map_cls2"][:, :16])),
    ],
)
def test_a_wrong_call_is_one_sentence_that_names_the_tensor(engines, name, change):
    feeds = dict(random_feeds("xcorr", CHANNELS))
    change(feeds)
    with pytest.raises(InputError, match=f"^the xcorr network takes '{name}' of shape "):
        engines["xcorr", "fp32"](feeds)


@pytest.mark.parametrize(
    "content", [b"", b"no model at all", None], ids=["empty", "text", "cut short"]
)
def test_a_file_that_is_no_model_is_one_sentence(files, tmp_path, content):
    data = files["search", "fp32"][:50000] if content is None else content
    with pytest.raises(InputError, match=r"^OpenVINO cannot compile the search network") as refusal:
        ov.build(data, "search", "fp32", tmp_path / "plans")
    assert "\n" not in str(refusal.value)
    assert not (tmp_path / "plans").exists()


def test_a_missing_package_is_one_sentence_with_the_command(files, monkeypatch):
    ov.core.cache_clear()
    monkeypatch.setitem(sys.modules, "openvino", None)
    try:
        for call in (
            ov.version,
            lambda: ov.hint("fp32"),
            lambda: ov.build(files["xcorr", "fp32"], "xcorr", "fp32"),
        ):
            with pytest.raises(
                InputError,
                match=r"^the framework OpenVINO is not installed: pip install -e '\.\[engines\]'$",
            ):
                call()
    finally:
        ov.core.cache_clear()
