"""TensorRT: what versions can do, and the layer types; the engine on stand-ins for the GPU; the real
builder of TensorRT-RTX, which needs no GPU; and, where there is a GPU, the engine against ONNX
Runtime."""

from __future__ import annotations

import ctypes
import json
import os
import re
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Dict, Iterator, Mapping, Sequence, Tuple

import numpy as np
import pytest

from lib.engines import cuda, trt
from lib.engines.export import (
    export_network,
    random_feeds,
    run_onnx,
    to_fp16,
    with_constant_kernels,
)
from lib.engines.quantize import XCORR_KEPT, activation_bounds, to_int8
from lib.engines.trt import engine as trt_engine
from lib.engines.trt import installed, layers, plan
from lib.errors import InputError
from lib.measure.speed import NoRanges
from lib.siamrpn.checkpoint import load_network
from lib.siamrpn.contract import LAYER_TYPES, PRECISIONS, Engine, EngineNetwork, by_type
from lib.siamrpn.network import NetworkConfig, SiamRPN
from lib.siamrpn.parts import INPUTS, KERNELS, MAPS, NETWORKS, OUTPUTS

from .helpers import of_the_range

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

DEMO = Path(__file__).resolve().parents[2] / "data" / "demo" / "siamrpn_r50_quarter.pth"


# -- Small models ----------------------------------------------------------------------------------


def small_model(
    network: str,
    nodes: Sequence[onnx.NodeProto],
    inputs: Mapping[str, Sequence[int]],
    outputs: Mapping[str, Sequence[int]],
    weights: Sequence[onnx.TensorProto] = (),
) -> onnx.ModelProto:
    """A model of these nodes; inputs and outputs are shapes by name."""
    helper = onnx.helper
    values = [
        [
            helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape)
            for name, shape in shapes.items()
        ]
        for shapes in (inputs, outputs)
    ]
    graph = helper.make_graph(nodes, network, *values, weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    onnx.checker.check_model(model, full_check=True)
    return model


def xcorr_model(channels: int = 4) -> onnx.ModelProto:
    """An xcorr network in small: six depthwise correlations, summed over levels to cls and loc."""
    node = onnx.helper.make_node
    branches = [name.split("_")[1] for name in KERNELS]
    nodes = [
        node(
            "Conv",
            [f"map_{name}", f"kernel_{name}"],
            [f"out_{name}"],
            f"/Conv_{name}",
            group=channels,
        )
        for name in branches
    ]
    for name in OUTPUTS["xcorr"]:
        levels = [f"out_{branch}" for branch in branches if branch.startswith(name)]
        nodes.append(node("Sum", levels, [name], f"sum_{name}"))
    kernels = dict.fromkeys(KERNELS, (channels, 1, 3, 3))
    maps = dict.fromkeys(MAPS, (1, channels, 8, 8))
    outputs = dict.fromkeys(OUTPUTS["xcorr"], (1, channels, 6, 6))
    return small_model("xcorr", nodes, {**kernels, **maps}, outputs)


def maps_model(channels: int = 4, network: str = "search") -> onnx.ModelProto:
    """Six maps, or kernels, out of one input by convolutions of constant weights."""
    node, random = onnx.helper.make_node, np.random.RandomState(0)
    [given], side = INPUTS[network], {"search": 10, "target": 5}[network]
    shape = {"search": (1, channels, 8, 8), "target": (channels, 1, 3, 3)}[network]
    nodes, weights = [], {"shape": np.array(shape, np.int64)}
    for name in OUTPUTS[network]:
        nodes.append(node("Conv", [given, f"w_{name}"], [f"c_{name}"], f"conv_{name}"))
        nodes.append(node("Reshape", [f"c_{name}", "shape"], [name], f"reshape_{name}"))
        weights[f"w_{name}"] = random.randn(channels, 3, 3, 3).astype(np.float32)
    return small_model(
        network,
        nodes,
        {given: (1, 3, side, side)},
        dict.fromkeys(OUTPUTS[network], shape),
        [onnx.numpy_helper.from_array(value, name) for name, value in weights.items()],
    )


def at_precision(
    plain: onnx.ModelProto,
    precision: str,
    bounds: Mapping[str, float],
    kept: Sequence[str] = XCORR_KEPT,
) -> onnx.ModelProto:
    """A model of FP32 as it is, or converted."""
    if precision == "int8":
        return to_int8(plain, bounds, kept)
    return to_fp16(plain) if precision == "fp16" else plain


def feeds_of(model: onnx.ModelProto, seed: int = 0) -> Dict[str, np.ndarray]:
    random = np.random.RandomState(seed)
    return {
        value.name: random.uniform(
            -1, 1, [dim.dim_value for dim in value.type.tensor_type.shape.dim]
        ).astype(np.float32)
        for value in model.graph.input
    }


def reference(model: onnx.ModelProto, feeds: Mapping[str, np.ndarray]) -> Dict[str, np.ndarray]:
    return dict(zip([value.name for value in model.graph.output], run_onnx(model, feeds)))


# -- What is installed -----------------------------------------------------------------------------


@pytest.fixture
def fresh() -> Iterator[None]:
    """Forget what was found installed, before and after."""
    # The logger stays: a TensorRT that was loaded keeps its address
    caches = (installed.flavour, cuda.gpu)
    for cached in caches:
        cached.cache_clear()
    yield
    for cached in caches:
        cached.cache_clear()


def install(monkeypatch: pytest.MonkeyPatch, **module: Any) -> None:
    """A module of these names in the place of every TensorRT; none without names."""
    for name in installed.MODULES:
        monkeypatch.setitem(sys.modules, name, None)
    if module:
        monkeypatch.setitem(sys.modules, "tensorrt", SimpleNamespace(**module))


@pytest.mark.parametrize(
    "version, typed",
    [("8.5.2.2", False), ("8.6.1", False), ("10.13.0.35", True), ("11.4.0", True)],
)
def test_the_model_binds_the_builder_from_tensorrt_10_on(
    fresh: None, monkeypatch: pytest.MonkeyPatch, version: str, typed: bool
) -> None:
    install(monkeypatch, __version__=version, Builder=None)
    found = installed.flavour()
    assert (found.name, found.typed, found.rtx) == (f"TensorRT {version}", typed, False)
    assert trt.version() == found.name


def test_a_tensorrt_before_8_5_is_refused(fresh: None, monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, __version__="8.4.3", Builder=None)
    with pytest.raises(InputError, match=r"TensorRT 8\.4\.3 is too old"):
        installed.flavour()


@pytest.mark.parametrize("stubs", [{}, {"__doc__": "what importing a folder of .pyi files leaves"}])
def test_a_missing_tensorrt_is_one_sentence_and_type_stubs_are_none(
    fresh: None, monkeypatch: pytest.MonkeyPatch, stubs: Dict[str, str]
) -> None:
    install(monkeypatch, **stubs)
    with pytest.raises(InputError, match=r"TensorRT is not installed: pip install") as fault:
        installed.flavour()
    assert "\n" not in str(fault.value)
    with pytest.raises(InputError):
        trt.need()


def test_a_tensorrt_without_its_libraries_says_so(
    fresh: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "tensorrt.py").write_text("raise ImportError('no libnvinfer.so.10')")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "tensorrt", raising=False)
    with pytest.raises(InputError, match=r"cannot be loaded \(no libnvinfer\.so\.10"):
        installed.flavour()


def test_without_a_binding_to_cuda_the_command_that_installs_one_is_named(
    fresh: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("cuda.bindings.runtime", "cuda.cudart"):
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.setattr(cuda, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"neither is installed: pip install"):
        cuda.gpu()


class Runtime:
    """The functions of NVIDIA's runtime bindings on host memory; `fail` names one that returns an
    error code."""

    def __init__(self, fail: str = "") -> None:
        self.fail, self.calls, self.memory = fail, [], {}
        self.cudaMemcpyKind = SimpleNamespace(
            cudaMemcpyHostToDevice="up",
            cudaMemcpyDeviceToHost="down",
            cudaMemcpyDeviceToDevice="within",
        )

    def cudaGetErrorString(self, error: int) -> Any:
        return 0, b"out of memory"

    def _block(self, size: int) -> int:
        block = ctypes.create_string_buffer(size)
        self.memory[ctypes.addressof(block)] = block
        return ctypes.addressof(block)

    def __getattr__(self, name: str) -> Any:
        def call(*arguments: Any) -> Any:
            self.calls.append(name)
            if name == self.fail:
                return (2,)
            if name in ("cudaMalloc", "cudaHostAlloc"):
                return 0, self._block(arguments[0])
            if name in ("cudaFree", "cudaFreeHost"):
                del self.memory[arguments[0]]
            if name == "cudaMemcpyAsync":
                ctypes.memmove(arguments[0], arguments[1], arguments[2])
            if name == "cudaGetDeviceProperties":
                return 0, SimpleNamespace(name=b"Stand-in", major=8, minor=6)
            results = {"cudaGetDevice": 0, "cudaStreamCreate": 7}
            return (0, results[name]) if name in results else (0,)

        return call


def test_cuda_python_copies_through_pinned_memory_and_frees_what_nothing_refers_to() -> None:
    runtime = Runtime()
    device = cuda.CudaPythonDevice(runtime)
    assert (device.name, device.compute_capability, device.stream) == ("Stand-in", (8, 6), 7)
    sent, received = device.pinned((2, 3)), device.pinned((2, 3))
    memory, other = device.allocate(sent.nbytes), device.allocate(sent.nbytes)
    sent[:] = np.arange(6).reshape(2, 3)
    device.upload(memory.pointer, sent)
    device.copy(other.pointer, memory.pointer, sent.nbytes)
    device.download(received, other.pointer)
    np.testing.assert_array_equal(received, sent)
    assert len(runtime.memory) == 4
    view = sent[0]
    del sent, received, memory, other
    assert len(runtime.memory) == 1 and view[1] == 1, "a view of a pinned array keeps its memory"
    del view
    assert not runtime.memory


@pytest.mark.parametrize(
    "name, use",
    [
        ("cudaMalloc", lambda device: device.allocate(4)),
        ("cudaHostAlloc", lambda device: device.pinned((1,))),
        ("cudaStreamSynchronize", lambda device: device.synchronize()),
    ],
)
def test_every_error_code_of_cuda_is_raised_with_its_words(name: str, use: Any) -> None:
    with pytest.raises(cuda.CudaError, match=f"{name}: out of memory"):
        use(cuda.CudaPythonDevice(Runtime(fail=name)))


# -- Models and layers ------------------------------------------------------------------------------

BOUNDS = dict.fromkeys([*KERNELS, *MAPS], 1.0)


@pytest.mark.parametrize("precision", PRECISIONS)
def test_kernels_become_weights_at_every_precision(precision: str) -> None:
    plain = xcorr_model()
    feeds = feeds_of(plain)
    kernels = {name: feeds[name] for name in KERNELS}
    model = at_precision(plain, precision, BOUNDS, kept=("sum",))
    neutral, inside = plan.refittable(model)
    again, had = plan.refittable(with_constant_kernels(model, kernels))
    assert neutral.SerializeToString() == again.SerializeToString(), (
        "the plan does not depend on the target"
    )
    assert inside == {} and all(np.array_equal(had[name], kernels[name]) for name in KERNELS)
    types = {weight.data_type for weight in neutral.graph.initializer if weight.name in KERNELS}
    half, single = onnx.TensorProto.FLOAT16, onnx.TensorProto.FLOAT
    assert types == {half if precision == "fp16" else single}
    onnx.checker.check_model(neutral, full_check=True)
    maps = {name: feeds[name] for name in MAPS}
    means = {name: np.full_like(kernels[name], 1 / 9) for name in KERNELS}
    expected = reference(model, {**maps, **means})
    for name, value in reference(neutral, maps).items():
        np.testing.assert_allclose(
            value, expected[name], atol=1e-2 if precision == "fp16" else 1e-6
        )


def layer(name: str, kind: str, *read: Mapping[str, str], **more: Any) -> Dict[str, Any]:
    """A layer as the inspector describes it, by what it reads."""
    return {"Name": name, "LayerType": kind, "Inputs": list(read), **more}


# As TensorRT 8.5 describes layers (developer guide, "Engine Inspector")
OLD_FP32 = {"Format/Datatype": "Row major linear FP32"}
OLD_FP16 = {"Format/Datatype": "Channel major FP16 format where channel % 8 == 0"}
OLD_INT8 = {"Format/Datatype": "Thirty-two wide channel vectorized row major Int8 format"}
OLD = [
    (
        "convolution",
        "int8",
        layer("/conv1/Conv + /relu/Relu", "CaskConvolution", {"Name": "x", **OLD_INT8}, Groups=1),
    ),
    ("correlation", "fp16", layer("/Conv_3", "CaskConvolution", OLD_FP16, Groups=1)),
    ("correlation", "fp32", layer("other", "CudaDepthwiseConvolution", OLD_FP32, Groups=256)),
    (
        "convolution",
        "tf32",
        layer(
            "c",
            "CaskConvolution",
            OLD_FP32,
            TacticName="sm80_xmma_fprop_implicit_gemm_tf32f32_tf32f32_f32",
        ),
    ),
    (
        "reformat",
        "fp32",
        layer("Reformatting CopyNode for Input Tensor 0 to /Conv_3", "Reformat", OLD_FP32),
    ),
    ("pooling", "", {"Name": "/maxpool/MaxPool", "LayerType": "CaskPooling"}),
    ("elementwise", "", {"Name": "PWN(/Add, /relu/Relu)", "LayerType": "PointWiseV2"}),
    ("elementwise", "", {"Name": "/Add", "LayerType": "ElementWise"}),
    ("other", "", {"Name": "{ForeignNode[/Softmax]}", "LayerType": "Myelin"}),
    ("other", "", {"Name": "only a name"}),
]

# As TensorRT-RTX 1.7 does (log of a real build)
FLOAT, HALF, INT8 = ({"Datatype": name} for name in ("Float", "Half", "Int8"))
NEW = [
    (
        "convolution",
        "int8",
        layer(
            "/conv1/Conv_myl0_4",
            "correlation",
            {**INT8, "Format": "(NHWC) Channel major format"},
            TacticName="__myelin_CASK_STUB",
            Metadata="[ONNX Layer: /conv1/Conv]\x1f[ONNX Layer: dequantize_search]",
        ),
    ),
    (
        "correlation",
        "fp32",
        layer(
            "/Conv_3_myl0_4",
            "correlation",
            FLOAT,
            FLOAT,
            Metadata="[ONNX Layer: /Conv_3]\x1e[ONNX Layer: r]",
        ),
    ),
    ("reformat", "fp32", layer("__myl_Tran_myl0_1", "kgen", FLOAT, Metadata="")),
    (
        "reformat",
        "fp32",
        layer("__myl_MulMinMaxRounCast_myl0_7", "kgen", FLOAT, Metadata="[ONNX Layer: /Conv_3]"),
    ),
    (
        "elementwise",
        "fp32",
        layer(
            "__myl_MulAddReluMulMinMaxRounCast_myl0_5",
            "kgen",
            FLOAT,
            Metadata="[ONNX Layer: /conv1/Conv]\x1f[ONNX Layer: /relu/Relu]",
        ),
    ),
    ("elementwise", "fp16", layer("__myl_Mul_myl0_5", "kgen", HALF)),
    ("pooling", "int8", layer("__mye6297_pooling_myl0_6", "maxpool", INT8)),
    ("other", "", layer("entry^bb^signal^4_myl0_0", "signal")),
]


@pytest.mark.parametrize(
    "kind, precision, described",
    [*OLD, *NEW],
    ids=[described["Name"] for _, _, described in (*OLD, *NEW)],
)
def test_layers_get_the_type_and_precision_that_the_inspector_tells(
    kind: str, precision: str, described: Dict[str, Any]
) -> None:
    assert kind in LAYER_TYPES
    assert layers.classify(described) == kind
    assert layers.layer_precision(described) == precision


# -- The engine on stand-ins: host memory for the GPU, ONNX Runtime for the plan -------------------


class HostDevice:
    """`cuda.Device` on host memory, where everything is done at once."""

    name, compute_capability, stream = "Stand-in", (8, 6), 7

    def __init__(self) -> None:
        self.uploads = 0

    def allocate(self, size: int) -> cuda.Memory:
        block = ctypes.create_string_buffer(size)
        return cuda.Memory(ctypes.addressof(block), block)

    def pinned(self, shape: Any) -> np.ndarray:
        return np.zeros(shape, np.float32)

    def upload(self, pointer: int, array: np.ndarray) -> None:
        self.uploads += 1
        ctypes.memmove(pointer, array.ctypes.data, array.nbytes)

    def download(self, array: np.ndarray, pointer: int) -> None:
        ctypes.memmove(array.ctypes.data, pointer, array.nbytes)

    def copy(self, target: int, source: int, size: int) -> None:
        ctypes.memmove(target, source, size)

    def synchronize(self) -> None:
        pass


class PlanContext:
    """An execution context whose plan is an ONNX model."""

    profiler: Any = None

    def __init__(self, engine: PlanEngine) -> None:
        self.engine, self.addresses, self.generation = engine, {}, engine.generation

    def set_tensor_address(self, name: str, pointer: int) -> bool:
        self.addresses[name] = pointer
        return True

    def execute_async_v3(self, stream: int) -> bool:
        assert stream == HostDevice.stream
        assert self.generation == self.engine.generation or self.engine.survives, (
            "a context from before a refit"
        )
        graph = self.engine.model.graph
        feeds = {}
        for value in graph.input:
            address = ctypes.cast(self.addresses[value.name], ctypes.POINTER(ctypes.c_float))
            feeds[value.name] = np.ctypeslib.as_array(
                address, self.engine.get_tensor_shape(value.name)
            ).copy()
        for name, result in reference(self.engine.model, feeds).items():
            ctypes.memmove(
                self.addresses[name], np.ascontiguousarray(result).ctypes.data, result.nbytes
            )
        if self.profiler is not None:
            for node in graph.node:
                self.profiler.report_layer_time(node.name, 2.0)
        return True


class PlanEngine:
    """An engine whose plan is an ONNX model; survives: contexts may be used after a refit."""

    def __init__(self, plan: bytes, survives: bool) -> None:
        self.model, self.survives, self.generation = onnx.load_from_string(plan), survives, 0
        self.values = {
            value.name: value for value in [*self.model.graph.input, *self.model.graph.output]
        }
        # In an order that is nobody's
        self.num_io_tensors, self._names = len(self.values), sorted(self.values)

    def get_tensor_name(self, index: int) -> str:
        return self._names[index]

    def get_tensor_mode(self, name: str) -> str:
        return "output" if name in {value.name for value in self.model.graph.output} else "input"

    def get_tensor_shape(self, name: str) -> Any:
        return tuple(dim.dim_value for dim in self.values[name].type.tensor_type.shape.dim)

    def create_execution_context(self) -> PlanContext:
        return PlanContext(self)

    def create_engine_inspector(self) -> Any:
        kinds = {"Conv": "CaskConvolution", "Sum": "PointWiseV2", "Reshape": "NoOp"}
        told = [layer(node.name, kinds[node.op_type], OLD_FP32) for node in self.model.graph.node]
        return SimpleNamespace(get_engine_information=lambda form: json.dumps({"Layers": told}))


class PlanRefitter:
    def __init__(self, engine: PlanEngine, log: Any) -> None:
        self.engine, self.fresh = engine, {}

    def set_named_weights(self, name: str, weights: np.ndarray) -> bool:
        known = {weight.name: weight for weight in self.engine.model.graph.initializer}
        if name not in known or tuple(known[name].dims) != weights.shape:
            return False
        self.fresh[name] = weights
        return True

    def refit_cuda_engine(self) -> bool:
        for weight in self.engine.model.graph.initializer:
            if weight.name in self.fresh:
                weight.CopyFrom(onnx.numpy_helper.from_array(self.fresh[weight.name], weight.name))
        self.engine.generation += 1
        return len(self.fresh) == len(KERNELS)


@pytest.fixture(params=["8.5.2", "10.13.0"])
def gpu(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, fresh: None) -> HostDevice:
    """A GPU and TensorRT of two generations, stood in for."""

    class Base:
        def __init__(self) -> None:
            pass

    survives = request.param != "8.5.2"
    install(
        monkeypatch,
        __version__=request.param,
        Builder=None,
        IProfiler=Base,
        Weights=lambda array: array,
        Runtime=lambda log: SimpleNamespace(
            deserialize_cuda_engine=lambda plan: PlanEngine(plan, survives)
        ),
        Refitter=PlanRefitter,
        TensorIOMode=SimpleNamespace(INPUT="input", OUTPUT="output"),
        LayerInformationFormat=SimpleNamespace(JSON="json"),
    )
    device, log = HostDevice(), SimpleNamespace(errors=[])
    for module in (installed, trt_engine):
        monkeypatch.setattr(module, "log", lambda: log)
    monkeypatch.setattr(cuda, "gpu", lambda: device)
    monkeypatch.setattr(trt_engine, "build_plan", lambda model, *options: model)
    return device


def three(refit: bool = False) -> Dict[str, Engine]:
    models = {
        "target": maps_model(network="target"),
        "search": maps_model(),
        "xcorr": xcorr_model(),
    }
    return {
        name: trt.build(model.SerializeToString(), name, "fp32", refit=refit)
        for name, model in models.items()
    }


@pytest.mark.parametrize("refit", [False, True])
def test_three_engines_track_as_the_models_do_and_leave_their_tensors_on_the_gpu(
    gpu: HostDevice, refit: bool
) -> None:
    engines = three(refit)
    network = EngineNetwork(engines)
    assert engines["xcorr"].refits == (refit or "8.5" in engines["xcorr"].framework)
    targets = [feeds_of(maps_model(network="target"), seed)["exemplar"] for seed in (1, 2)]
    kept = [network.template(target) for target in targets]
    frames = [feeds_of(maps_model(), seed)["search"] for seed in (3, 4, 5)]
    before = gpu.uploads
    # Back to the first: nothing of it was overwritten
    for kernels, target in [*zip(kept, targets), (kept[0], targets[0])]:
        for frame in frames:
            maps = reference(maps_model(), {"search": frame})
            expected = reference(
                xcorr_model(),
                {**reference(maps_model(network="target"), {"exemplar": target}), **maps},
            )
            for name, value in zip(("cls", "loc"), network.track(kernels, frame)):
                np.testing.assert_allclose(value, expected[name], rtol=1e-4, atol=1e-4)
    assert gpu.uploads - before == 9, "one upload a frame: maps and kernels never left the GPU"


def test_an_engine_refuses_wrong_feeds_and_kernels_that_do_not_fit(gpu: HostDevice) -> None:
    engines = three(refit=True)
    with pytest.raises(InputError, match="takes 'search' of shape"):
        engines["search"]({})
    with pytest.raises(InputError, match="takes 'search' of shape"):
        engines["search"]({"search": np.zeros((1, 3, 4, 4), np.float32)})
    with pytest.raises(InputError, match="takes kernels as inputs"):
        engines["search"].refit({})
    with pytest.raises(InputError, match="does not take the kernel 'kernel_cls2'"):
        engines["xcorr"].refit({name: np.zeros((4, 1, 5, 5), np.float32) for name in KERNELS})


def test_kernels_of_a_first_target_that_the_model_has_inside_are_in_the_engine(
    gpu: HostDevice,
) -> None:
    feeds = feeds_of(xcorr_model())
    model = with_constant_kernels(xcorr_model(), {name: feeds[name] for name in KERNELS})
    engine = trt.build(model.SerializeToString(), "xcorr", "fp32", refit=True)
    outputs = engine({name: feeds[name] for name in MAPS})
    np.testing.assert_allclose(
        engine.numpy(outputs["cls"]), reference(xcorr_model(), feeds)["cls"], rtol=1e-4, atol=1e-5
    )


def test_profile_and_executed_count_what_the_plan_has(gpu: HostDevice) -> None:
    engine, feeds = three()["xcorr"], feeds_of(xcorr_model())
    told = engine.profile({name: feeds[name] for name in engine.inputs}, calls=3)
    times = by_type(told)
    assert times["correlation"] == pytest.approx(6 * 2e-3)
    assert times["elementwise"] == pytest.approx(2 * 2e-3)
    assert sum(times.values()) == pytest.approx(8 * 2e-3), "mean of the calls, every layer once"
    assert engine.executed() == {"fp32": 6}


def test_plans_are_kept_and_a_refused_one_is_built_again(
    gpu: HostDevice,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    model, built = maps_model().SerializeToString(), []
    monkeypatch.setattr(trt_engine, "build_plan", lambda data, *options: built.append(data) or data)
    trt.build(model, "search", "fp32", tmp_path)
    trt.build(model, "search", "fp32", tmp_path)
    assert len(built) == 1
    trt.build(model, "search", "fp16", tmp_path)
    assert len(built) == 2 and len(list(tmp_path.iterdir())) == 2
    path = min(tmp_path.iterdir(), key=lambda file: file.stat().st_mtime)
    path.write_bytes(path.read_bytes()[:-1])
    trt.build(model, "search", "fp32", tmp_path)
    assert len(built) == 3 and "built again" in capsys.readouterr().err


# -- Types -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def stubs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The stubs of TensorRT 10.13 in a form that mypy reads. The package as it stands lacks
    py.typed and does not parse: parameters are called `in`, one without a default follows others,
    and a variable of the module hides the type bool."""
    folder, found = tmp_path_factory.mktemp("stubs"), find_spec("tensorrt_stubs")
    pytest.importorskip("mypy")
    if found is None or found.origin is None:
        pytest.skip("tensorrt-stubs is not installed")
    for package in ("tensorrt", "tensorrt_bindings"):
        shutil.copytree(
            Path(found.origin).parents[1] / package,
            folder / package,
            ignore=shutil.ignore_patterns("*.so*"),
        )
    path = folder / "tensorrt_bindings" / "tensorrt.pyi"
    text = re.sub(r"\bin: ", "in_: ", path.read_text()).replace(
        "channel_axis: int)", "channel_axis: int = ...)"
    )
    path.write_text(
        re.sub(r"(->|:) bool\b", r"\1 builtins.bool", text).replace(
            "\nimport ", "\nimport builtins\nimport ", 1
        )
    )
    return folder


def type_faults(stubs: Path, copied: Path, change: Mapping[str, str]) -> str:
    """What mypy says of lib/ with these words of its TensorRT modules changed."""
    root = Path(trt.__file__).parents[3]
    shutil.copytree(root / "lib", copied / "lib")
    for path in (copied / "lib" / "engines" / "trt").glob("*.py"):
        for old, new in change.items():
            path.write_text(path.read_text().replace(old, new))
    shutil.copy(root / "pyproject.toml", copied)
    result = subprocess.run(
        [sys.executable, "-m", "mypy", "--cache-dir", os.devnull, "lib/engines/trt"],
        cwd=copied,
        env={**os.environ, "MYPYPATH": str(stubs)},
        capture_output=True,
        text=True,
    )
    assert result.returncode in (0, 1) and "prevented further checking" not in result.stdout
    lines = result.stdout.splitlines()
    return "\n".join(line for line in lines if line.startswith("lib/") and ": error: " in line)


@pytest.mark.slow
def test_every_call_of_tensorrt_has_the_types_of_its_stubs(stubs: Path, tmp_path: Path) -> None:
    assert type_faults(stubs, tmp_path / "own", {}) == ""
    changes = {
        "execute_async_v3(": "execute_async_v2(",
        "limit(trt.MemoryPoolType.WORKSPACE, WORKSPACE)": "limit(WORKSPACE, WORKSPACE)",
    }
    faults = type_faults(stubs, tmp_path / "broken", changes)
    assert '"IExecutionContext" has no attribute "execute_async_v2"' in faults
    assert 'expected "MemoryPoolType"' in faults


# -- The real builder of TensorRT-RTX, without a GPU -----------------------------------------------

AMPERE = (8, 6)


@pytest.fixture(scope="module")
def rtx() -> installed.Flavour:
    """TensorRT-RTX, installed by its bindings and ONNX Runtime's plugin, which brings the
    libraries."""
    try:
        found = installed.flavour()
    except InputError as error:
        pytest.skip(str(error))
    if not found.rtx:
        pytest.skip(f"{found.name} builds only for a GPU that is here")
    return found


def demo() -> SiamRPN:
    return load_network(DEMO)


def demo_model(name: str, precision: str) -> Tuple[onnx.ModelProto, Dict[str, np.ndarray]]:
    """One of the demo network's models, and feeds of it."""
    network = demo()
    plain, feeds = export_network(network)[name], random_feeds(name, network.config.rpn)
    bounds = activation_bounds(plain, [feeds])["minmax"]
    return at_precision(plain, precision, bounds), feeds


def full() -> SiamRPN:
    return SiamRPN(NetworkConfig.resnet50()).eval()


@pytest.fixture(
    scope="module", params=[demo, pytest.param(full, marks=pytest.mark.slow)], ids=["demo", "full"]
)
def models(request: pytest.FixtureRequest) -> Dict[str, Dict[str, onnx.ModelProto]]:
    """network -> precision -> model."""
    exported = {}
    for name, plain in export_network(request.param()).items():
        bounds = NoRanges()  # sizes do not depend on them
        exported[name] = {
            precision: at_precision(plain, precision, bounds) for precision in PRECISIONS
        }
    return exported


@pytest.mark.parametrize("name", NETWORKS)
def test_rtx_compiles_every_network_at_every_precision_without_a_gpu(
    rtx: installed.Flavour, models: Any, name: str
) -> None:
    sizes = {
        precision: len(
            plan.build_plan(model.SerializeToString(), precision, compute_capability=AMPERE)
        )
        for precision, model in models[name].items()
    }
    assert sizes["fp16"] < 0.65 * sizes["fp32"], "weights in half precision"
    assert all(size > 100_000 for size in sizes.values())


def logged_layers(model: onnx.ModelProto, precision: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """The builder's own account of the plan's layers, from its log."""
    lines, log = [], installed.log()
    monkeypatch.setattr(type(log), "log", lambda self, severity, message: lines.append(message))
    plan.build_plan(model.SerializeToString(), precision, compute_capability=AMPERE)
    return next(line for line in lines if line.startswith("Layers:"))


@pytest.mark.parametrize("precision", PRECISIONS)
def test_the_layers_of_a_real_plan_are_classified_and_run_what_the_model_says(
    rtx: installed.Flavour, precision: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, _ = demo_model("xcorr", precision)
    text = logged_layers(model, precision, monkeypatch)
    found = []
    for line in text.splitlines()[1:]:
        fields = re.match(
            r"Name: (?P<Name>.*?), LayerType: (?P<LayerType>\w+), Inputs: \[(?P<Inputs>.*?)\], Constants:",
            line,
        )
        if fields:
            inputs = [
                {"Datatype": kind} for kind in re.findall(r"Datatype: (\w+)", fields["Inputs"])
            ]
            found.append(
                {**fields.groupdict(), "Inputs": inputs, "Metadata": line.split("Metadata: ")[-1]}
            )
    kinds = [(layers.classify(layer), layers.layer_precision(layer)) for layer in found]
    expected = {"fp32": ("fp32", "fp32"), "fp16": ("fp16", "fp16"), "int8": ("fp32", "int8")}[
        precision
    ]
    assert kinds.count(("correlation", expected[0])) == 6, "the six depthwise correlations"
    assert kinds.count(("convolution", expected[1])) == 12, "two convolutions in each of six heads"
    assert sum(kind in ("correlation", "convolution") for kind, _ in kinds) == 18


def test_a_node_that_the_parser_does_not_take_is_named(rtx: installed.Flavour) -> None:
    model = xcorr_model()
    model.graph.node[3].attribute[0].i = 3  # groups that do not divide the channels
    with pytest.raises(InputError, match=r"cannot read the ONNX model \(.*/Conv_loc2.*group"):
        plan.build_plan(model.SerializeToString(), "fp32", compute_capability=AMPERE)


def test_what_rtx_cannot_do_is_one_sentence(rtx: installed.Flavour) -> None:
    model = xcorr_model().SerializeToString()
    with pytest.raises(InputError, match="cannot read the ONNX model"):
        plan.build_plan(b"junk", "fp32", compute_capability=AMPERE)
    with pytest.raises(InputError, match="does not build for SM72"):
        plan.build_plan(model, "fp32", compute_capability=(7, 2))


def test_fp32_does_not_run_in_tf32(rtx: installed.Flavour, monkeypatch: pytest.MonkeyPatch) -> None:
    seen, aim = [], plan._aim

    def watched(config: Any, capability: Any) -> None:
        seen.append(config.get_flag(installed.trt.BuilderFlag.TF32))
        aim(config, capability)

    monkeypatch.setattr(plan, "_aim", watched)
    plan.build_plan(xcorr_model().SerializeToString(), "fp32", compute_capability=AMPERE)
    assert seen == [False]


@pytest.mark.parametrize("precision", PRECISIONS)
def test_the_parser_knows_the_kernels_by_name_so_that_they_can_be_refitted(
    rtx: installed.Flavour, precision: str
) -> None:
    model = at_precision(xcorr_model(), precision, BOUNDS, kept=("sum",))
    model, _ = plan.refittable(model)
    builder = installed.trt.Builder(installed.log())
    typed = 1 << int(installed.trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED)
    network = builder.create_network(typed)
    parser = installed.trt.OnnxParser(network, installed.log())
    assert parser.parse(model.SerializeToString())
    plan._mark_kernels(network, builder.create_builder_config())
    other = builder.create_network(typed)
    with pytest.raises(InputError, match="no weights 'kernel_cls2' to refit"):
        plan._mark_kernels(other, builder.create_builder_config())


# -- With a GPU ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def real() -> installed.Flavour:
    try:
        cuda.gpu()
        return installed.flavour()
    except InputError as error:
        pytest.skip(f"needs an NVIDIA GPU and TensorRT: {error}")


# Largest difference as a share of the output's range
TOLERANCE = {"fp32": 1e-3, "fp16": 2e-2, "int8": 0.1}


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("name", NETWORKS)
def test_on_a_gpu_engines_agree_with_onnx_runtime(
    real: installed.Flavour, name: str, precision: str
) -> None:
    model, feeds = demo_model(name, precision)
    engine = trt.build(model.SerializeToString(), name, precision)
    if engine.refits:
        engine.refit({kernel: feeds[kernel] for kernel in KERNELS})
    given = {tensor: feeds[tensor] for tensor in engine.inputs}
    expected = reference(model, feeds)
    outputs = {tensor: engine.numpy(value) for tensor, value in engine(given).items()}
    for tensor, value in outputs.items():
        assert of_the_range(value, expected[tensor]) <= TOLERANCE[precision], tensor
    if precision == "fp32":
        assert set(engine.executed()) == {"fp32"}, "no TF32 unless asked for"
    else:
        assert engine.executed().get(precision, 0) > 0


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_on_a_gpu_a_refitted_engine_equals_one_with_kernels_as_inputs(
    real: installed.Flavour, precision: str
) -> None:
    if not real.typed:
        pytest.skip(f"{real.name} takes no kernels as inputs")
    model, first = demo_model("xcorr", precision)
    data = model.SerializeToString()
    inputs = trt.build(data, "xcorr", precision)
    inside = trt.build(data, "xcorr", precision, refit=True)
    for feeds in (first, random_feeds("xcorr", demo().config.rpn, seed=1)):
        inside.refit({name: feeds[name] for name in KERNELS})
        one, other = inputs(feeds), inside({name: feeds[name] for name in MAPS})
        for name in OUTPUTS["xcorr"]:
            own, expected = inside.numpy(other[name]), inputs.numpy(one[name])
            assert of_the_range(own, expected) <= TOLERANCE[precision]


def test_on_a_gpu_every_convolution_of_a_profile_has_a_time(real: installed.Flavour) -> None:
    model, feeds = demo_model("search", "fp32")
    engine = trt.build(model.SerializeToString(), "search", "fp32")
    layers = engine.profile(feeds, calls=3)
    assert by_type(layers)["correlation"] == 0, "a search network correlates nothing"
    assert layers and all(layer.seconds > 0 for layer in layers if layer.type == "convolution")
