"""TensorRT: the thesis's compiled engines on NVIDIA GPUs (section 4.2), from TensorRT 8.5 on the
Xavier to 11, and TensorRT-RTX.

What one version does otherwise than another stands in one table (`CAPABILITIES`). An ONNX model
says its types itself: from TensorRT 10 on they bind the builder; 8.5 may deviate, so `executed`
reads from the engine what runs. TensorRT-RTX builds plans without a GPU too (`build_plan` with a
compute capability).
"""

from __future__ import annotations

import ctypes
import hashlib
import json
import re
import sys
from collections import Counter
from dataclasses import dataclass
from functools import lru_cache
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import (
    TYPE_CHECKING,
    Any,
    Callable,
    Dict,
    FrozenSet,
    List,
    Mapping,
    NamedTuple,
    Optional,
    Sequence,
    Tuple,
    Union,
    cast,
)

import numpy as np

from lib.engines import cuda, plans
from lib.errors import InputError
from lib.files import whole_file
from lib.siamrpn.contract import PRECISIONS, LayerTime, TensorSpec, check_feeds
from lib.siamrpn.parts import KERNELS

if TYPE_CHECKING:
    import onnx
    import tensorrt as trt  # every flavour's calls are checked against the stubs of TensorRT 10
else:

    class _Installed:
        """The installed flavour's module, imported when something of it is used first."""

        def __getattr__(self, name: str) -> Any:
            return getattr(flavour().module, name)

    trt = _Installed()

WORKSPACE = 1 << 30  # bytes that a layer may use while it runs, as in the thesis


# -- What is installed -----------------------------------------------------------------------------


class Capabilities(NamedTuple):
    """What a version of TensorRT does: bind the builder to the model's types, take correlation
    kernels as inputs, calibrate by itself (as in the thesis), keep execution contexts when weights
    change, make CUDA graphs itself, build for absent GPUs."""

    typed: bool = True
    kernel_inputs: bool = True
    calibrator: bool = False
    contexts_survive_refit: bool = True
    own_graphs: bool = False
    portable: bool = False


# Newest first: the first row that is old enough counts
CAPABILITIES: Tuple[Tuple[str, Tuple[int, int], Capabilities], ...] = (
    ("TensorRT-RTX", (1, 0), Capabilities(own_graphs=True, portable=True)),
    ("TensorRT", (11, 0), Capabilities()),
    ("TensorRT", (10, 0), Capabilities(calibrator=True)),
    (
        "TensorRT",
        (8, 5),
        Capabilities(
            typed=False, kernel_inputs=False, calibrator=True, contexts_survive_refit=False
        ),
    ),
)
# The first one that is installed is taken
MODULES = {
    "tensorrt": "TensorRT",
    "tensorrt_rtx": "TensorRT-RTX",
    "tensorrt_rtx_bindings": "TensorRT-RTX",
}


@dataclass(frozen=True)
class Flavour:
    """The installed TensorRT. name: with its version, "TensorRT 8.5.2.2"."""

    module: Any
    name: str
    can: Capabilities


def capabilities(title: str, version: str) -> Capabilities:
    """The row of the table for a version. Raises InputError for one that is older than all rows."""
    numbers = tuple(int(number) for number in re.findall(r"\d+", version)[:2])
    for name, since, can in CAPABILITIES:
        if name == title and numbers >= since:
            return can
    raise InputError(f"{title} {version} is too old: 8.5 is the oldest that works here")


@lru_cache(maxsize=1)
def flavour() -> Flavour:
    """The TensorRT that is installed. Raises InputError, with what to do, where there is none or it
    cannot be loaded."""
    for name, title in MODULES.items():
        try:
            if name == "tensorrt_rtx_bindings":
                _load_rtx_libraries()
            module = import_module(name)
        except ModuleNotFoundError:
            continue
        except (ImportError, OSError, RuntimeError) as error:
            raise InputError(
                f"{title} is installed but cannot be loaded ({' '.join(str(error).split())})"
            ) from None
        # A package of type stubs leaves an empty module of the same name
        if hasattr(module, "Builder"):
            return Flavour(
                module, f"{title} {module.__version__}", capabilities(title, module.__version__)
            )
    raise InputError(f"the framework TensorRT is not installed: {_remedy()}")


def _remedy() -> str:
    if Path("/etc/nv_tegra_release").exists():
        return "it comes with JetPack (sudo apt install nvidia-jetpack), and .venv must see the system's packages (make install)"
    if any(
        Path(driver).exists()
        for driver in ("/proc/driver/nvidia/version", "/dev/nvidiactl", "/dev/dxg")
    ):
        return cuda.INSTALL
    return f"without an NVIDIA GPU, use the OpenVINO engine; with one, {cuda.INSTALL}"


def _load_rtx_libraries() -> None:
    """TensorRT-RTX's bindings on PyPI come without the libraries, which ONNX Runtime's plugin
    brings: load them from there. Where that is not installed, the system's loader has to find them
    (LD_LIBRARY_PATH)."""
    found = find_spec("onnxruntime_ep_nv_tensorrt_rtx")
    for folder in found.submodule_search_locations or [] if found else []:
        for library in ("libtensorrt_rtx.so*", "libtensorrt_onnxparser_rtx.so*"):
            for path in sorted(Path(folder).glob(library))[:1]:
                ctypes.CDLL(str(path), mode=ctypes.RTLD_GLOBAL)


def missing() -> Optional[str]:
    """What TensorRT lacks to run here, in a sentence with what to do; None where an NVIDIA GPU, a
    way to it and TensorRT are."""
    try:
        cuda.device(), flavour()
    except InputError as error:
        return str(error)
    return None


def available() -> bool:
    """Whether there are an NVIDIA GPU, a way to it, and TensorRT."""
    return missing() is None


@lru_cache(maxsize=1)
def _log() -> Any:
    """The process's one logger, which keeps TensorRT's errors for the sentence that reports
    them."""

    class Log(trt.ILogger):
        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.errors: List[str] = []

        def log(self, severity: Any, message: str) -> None:
            if severity in (trt.Logger.INTERNAL_ERROR, trt.Logger.ERROR):
                self.errors.append(" ".join(message.split()))

    return Log()


def _refused(what: str) -> InputError:
    """One sentence with TensorRT's first words about what failed, which name the cause; the later
    ones follow from it."""
    errors, _log().errors = _log().errors, []
    return InputError(
        f"{flavour().name} {what} ({errors[0][:300] if errors else 'it gives no reason'})"
    )


# -- Building --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class EntropyCalibration:
    """The thesis's INT8: TensorRT runs an FP32 model on `feeds` (input name -> array, batch size 1)
    and picks the ranges.

    folder: keeps the ranges in a file for each model and set of feeds, never one for each type of
    network.
    """

    feeds: Sequence[Mapping[str, np.ndarray]]
    folder: Optional[Path] = None

    def digest(self) -> str:
        """A name for the contents of all feeds."""
        contents = hashlib.sha256()
        for feed in self.feeds:
            for name in sorted(feed):
                contents.update(
                    f"{name} {feed[name].shape} {feed[name].dtype}".encode() + feed[name].tobytes()
                )
        return contents.hexdigest()[:16]

    def path(self, model: bytes) -> Optional[Path]:
        """Where the ranges for a model are kept."""
        return (
            self.folder / f"{plans.digest(model)}-{self.digest()}.calibration"
            if self.folder
            else None
        )


def _calibrator(
    calibration: EntropyCalibration, model: bytes, inputs: Mapping[str, TensorSpec]
) -> Any:
    """TensorRT's calibrator, fed by tensor name. Raises InputError for a set that is empty or does
    not fit."""
    if not calibration.feeds:
        raise InputError("the calibration set is empty")
    for feed in calibration.feeds:
        check_feeds(inputs, {name: feed[name] for name in inputs if name in feed}, "calibrated")
    device, path = cuda.device(), calibration.path(model)
    feeds, buffers = (
        iter(calibration.feeds),
        {name: Buffer(device, spec) for name, spec in inputs.items()},
    )

    class Calibrator(trt.IInt8EntropyCalibrator2):
        def __init__(self) -> None:
            trt.IInt8EntropyCalibrator2.__init__(self)

        def get_batch_size(self) -> int:
            return 1

        def get_batch(self, names: List[str]) -> Any:
            feed = next(feeds, None)
            if feed is None:
                return None
            for name in names:
                buffers[name].send(feed[name])
            device.synchronize()
            return [buffers[name].memory.pointer for name in names]

        def read_calibration_cache(self) -> Any:
            return path.read_bytes() if path and path.is_file() else None

        def write_calibration_cache(self, cache: Any) -> None:
            if path:
                with whole_file(path) as temporary:
                    temporary.write_bytes(bytes(cache))

    return Calibrator()


def build_plan(
    model: bytes,
    precision: str,
    refit: bool = False,
    tf32: bool = False,
    calibrator: Optional[EntropyCalibration] = None,
    compute_capability: Optional[Tuple[int, int]] = None,
) -> bytes:
    """A plan of an ONNX model's bytes. refit: weights named in KERNELS can be replaced. tf32: FP32
    may be computed in TF32, as the thesis's engines were. compute_capability: of a GPU that is not
    here, (8, 6). Raises InputError for what cannot be."""
    can, log = flavour().can, _log()
    log.errors = []
    if precision not in PRECISIONS:
        raise InputError(f"unknown precision '{precision}' (there are {', '.join(PRECISIONS)})")
    if calibrator and not (can.calibrator and precision == "int8"):
        raise InputError(
            f"{flavour().name} does not calibrate for {precision}; give it a model with QDQ nodes (lib.engines.quantize)"
        )
    if compute_capability and (refit or not can.portable):
        raise InputError(
            f"{flavour().name} builds {'a plan to refit' if refit else 'plans'} only for the GPU that it runs on"
        )
    try:
        builder = trt.Builder(log)
    except TypeError:  # what the bindings make of a null pointer
        raise _refused("cannot build here") from None
    if not getattr(builder, f"platform_has_fast_{precision}", True):
        raise InputError(
            f"this GPU has no {precision.upper()} in {flavour().name}; fp32 runs everywhere"
        )
    typed = can.typed and not calibrator
    network = builder.create_network(
        1 << int(_creation_flag(typed)) if typed or not can.typed else 0
    )
    parser = trt.OnnxParser(network, log)
    if not parser.parse(model):
        error = parser.get_error(0)
        node = getattr(error, "node_name", str)() or (
            f"number {error.node()}" if error.node() >= 0 else "none"
        )
        raise InputError(
            f"{flavour().name} cannot read the ONNX model: {' '.join(error.desc().split())} (node {node})"
        )
    config = builder.create_builder_config()
    config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, WORKSPACE)
    # Costs no time; `executed` and `profile` live on it
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
    if not tf32:
        config.clear_flag(trt.BuilderFlag.TF32)  # it is on unless it is cleared
    if not typed and precision != "fp32":
        config.set_flag(getattr(trt.BuilderFlag, precision.upper()))
    if calibrator:
        tensors = (network.get_input(index) for index in range(network.num_inputs))
        specs = {tensor.name: TensorSpec(_shape(tensor.shape), "float32") for tensor in tensors}
        # The bindings keep it alive as long as the config
        config.int8_calibrator = _calibrator(calibrator, model, specs)
    if refit:
        _mark_kernels(network, config)
    if can.portable:
        _aim(config, compute_capability)
    plan = builder.build_serialized_network(network, config)
    if plan is None:
        raise _refused("cannot compile the model")
    return bytes(plan)


def _shape(dims: trt.Dims) -> Tuple[int, ...]:
    return tuple(dims[axis] for axis in range(len(dims)))


def _creation_flag(typed: bool) -> Any:
    flags = trt.NetworkDefinitionCreationFlag
    return flags.STRONGLY_TYPED if typed else flags.EXPLICIT_BATCH


def _mark_kernels(network: trt.INetworkDefinition, config: trt.IBuilderConfig) -> None:
    """Make the kernels, and where the version can tell them apart nothing else, replaceable: what
    is fixed can be fused."""
    individually = getattr(trt.BuilderFlag, "REFIT_INDIVIDUAL", None)
    config.set_flag(trt.BuilderFlag.REFIT if individually is None else individually)
    if individually is not None:
        missing = [name for name in KERNELS if not network.mark_weights_refittable(name)]
        if missing:
            raise InputError(f"the xcorr network has no weights '{missing[0]}' to refit")


def _aim(config: trt.IBuilderConfig, capability: Optional[Tuple[int, int]]) -> None:
    """TensorRT-RTX: build for one compute capability, or for the GPU that is here."""
    rtx, known = cast(Any, config), cast(Any, trt).ComputeCapability
    name = "CURRENT" if capability is None else "SM{}{}".format(*capability)
    if not hasattr(known, name):
        raise InputError(f"{flavour().name} does not build for {name}")
    rtx.num_compute_capabilities = 1
    rtx.set_compute_capability(getattr(known, name), 0)


def plan_key(
    model: bytes,
    precision: str,
    framework: str,
    gpu: str,
    refit: bool,
    tf32: bool,
    calibration: str,
) -> Dict[str, str]:
    """All that decides a plan. gpu: name and compute capability. calibration: digest of an implicit
    calibration, or ""."""
    options = {"refit": refit, "tf32": tf32, "workspace": WORKSPACE}
    return {
        "model": plans.digest(model),
        "precision": precision,
        "framework": framework,
        "device": gpu,
        "options": repr(sorted(options.items())),
        "calibration": calibration,
    }


# -- The model -------------------------------------------------------------------------------------


def check_model(model: onnx.ModelProto, network: str, precision: str) -> None:
    """Raises InputError where a model of this project says that it is another network, or of
    another precision: its own types are what runs."""
    from lib.engines.export import properties

    for what, wanted in (("network", network), ("precision", precision)):
        found = properties(model).get(what, wanted)
        if found != wanted:
            raise InputError(
                f"the ONNX model has the {what} '{found}' and was to be built as '{wanted}'"
            )


def _read(model: bytes) -> onnx.ModelProto:
    from google.protobuf.message import DecodeError

    from lib.engines.export import need_onnx

    try:
        return need_onnx().load_from_string(model)
    except DecodeError:
        raise InputError("not a readable ONNX model") from None


def correlations(model: onnx.ModelProto) -> FrozenSet[str]:
    """Names of the convolutions whose weights are correlation kernels, also through casts and QDQ
    nodes."""
    source = {node.output[0]: node for node in model.graph.node if node.output}

    def origin(tensor: str) -> str:
        while tensor in source and source[tensor].op_type in (
            "Cast",
            "QuantizeLinear",
            "DequantizeLinear",
        ):
            tensor = source[tensor].input[0]
        return tensor

    return frozenset(
        node.name
        for node in model.graph.node
        if node.op_type == "Conv" and origin(node.input[1]) in KERNELS
    )


def refittable(
    model: onnx.ModelProto, calibrated: bool
) -> Tuple[onnx.ModelProto, Dict[str, np.ndarray]]:
    """(the xcorr network with kernels as weights of convolutions, the kernels that it had inside or
    {}).

    The plan is built with a mean filter in their place, so that it is the same for every target; an
    implicit calibration (calibrated) needs the real ones. A cast to FP16 is applied to the weights
    here: weights of a convolution can be replaced in every version, what a cast reads may not.
    """
    from onnx import numpy_helper

    from lib.engines.export import set_initializers, shapes, with_constant_kernels

    inputs = shapes(model.graph.input)
    inside = {
        weight.name: numpy_helper.to_array(weight)
        for weight in model.graph.initializer
        if weight.name in KERNELS
    }
    sizes = {
        name: inputs[name] if name in inputs else inside[name].shape
        for name in KERNELS
        if name in inputs or name in inside
    }
    neutral = {
        name: np.full(size, 1 / np.prod(size[2:]), np.float32) for name, size in sizes.items()
    }
    if not inside:
        model = with_constant_kernels(model, neutral)
    elif not calibrated:
        model = set_initializers(model, neutral)
    weights = {weight.name: weight for weight in model.graph.initializer}
    for cast_node in [
        node for node in model.graph.node if node.op_type == "Cast" and node.input[0] in KERNELS
    ]:
        name, result = cast_node.input[0], cast_node.output[0]
        weights[name].CopyFrom(
            numpy_helper.from_array(numpy_helper.to_array(weights[name]).astype(np.float16), name)
        )
        model.graph.node.remove(cast_node)
        for node in model.graph.node:
            node.input[:] = [name if tensor == result else tensor for tensor in node.input]
    return model, inside


def kernel_types(model: onnx.ModelProto) -> Dict[str, str]:
    """Type (NumPy's name) of every correlation kernel that is a weight: refitting takes no
    other."""
    from onnx import numpy_helper

    return {
        weight.name: str(numpy_helper.to_array(weight).dtype)
        for weight in model.graph.initializer
        if weight.name in KERNELS
    }


# -- What a plan's layers are ----------------------------------------------------------------------

# Fragments of the inspector's LayerType in lower case; the first line that has one counts.
# Myelin, the compiler inside newer versions, calls every convolution "correlation"; which of them
# are ours is asked by name.
LAYERS = (
    (
        "reformat",
        ("reformat", "noop", "shuffle", "cast", "quantize", "concat", "slice", "identity"),
    ),
    ("convolution", ("convolution", "convact", "correlation", "gemm")),
    ("pooling", ("pool",)),
    ("elementwise", ("pointwise", "elementwise", "scale", "activation", "unary")),
)
# Operations in the names of Myelin's generated kernels
MOVES = {"Move", "Tran", "Cast", "Conc", "Resh", "Slic", "Pad"}
ROUNDS = {"Mul", "Min", "Max", "Roun"}  # with a cast, they are a QuantizeLinear
TYPES = (
    ("bf16", "bf16"),
    ("bfloat16", "bf16"),
    ("int8", "int8"),
    ("fp16", "fp16"),
    ("half", "fp16"),
    ("tf32", "tf32"),
    ("fp32", "fp32"),
    ("float", "fp32"),
)


def classify(layer: Mapping[str, Any], correlations: FrozenSet[str]) -> str:
    """The type (of base.LAYER_TYPES) of a layer as the inspector describes it; correlations: names
    of such ONNX nodes."""
    kind, name = str(layer.get("LayerType", "")).lower(), str(layer.get("Name", ""))
    # Its metadata also names neighbours that are not in it
    if kind == "kgen" or name.startswith("__myl_"):
        made = set(re.findall(r"[A-Z][a-z]+", name[len("__myl_") :].split("_")[0]))
        return (
            "reformat"
            if made and made & MOVES and made <= MOVES | ROUNDS
            else "elementwise"
            if made
            else "other"
        )
    found = next(
        (result for result, fragments in LAYERS if any(fragment in kind for fragment in fragments)),
        "other",
    )
    if found == "convolution" and (layer.get("Groups", 1) > 1 or correlations & _nodes(layer)):
        return "correlation"
    return found


def _nodes(layer: Mapping[str, Any]) -> FrozenSet[str]:
    """Names of the ONNX nodes that a layer was made of: from its metadata, or its name where there
    is none (TensorRT 8)."""
    metadata = re.findall(r"\[ONNX Layer: ([^\]|]*?)\s*(?:\||\])", str(layer.get("Metadata", "")))
    return frozenset(metadata or re.split(r" \+ |\|\|", str(layer.get("Name", ""))))


def layer_precision(layer: Mapping[str, Any]) -> str:
    """What a layer computes in, by the type of what it reads: "fp32", "tf32", "fp16", "bf16",
    "int8"; "" where nothing tells."""
    tensors = layer.get("Inputs") or [{}]
    told = str(tensors[0].get("Datatype") or tensors[0].get("Format/Datatype", "")).lower()
    precision = next((name for fragment, name in TYPES if fragment in told), "")
    return (
        "tf32"
        if precision == "fp32" and "tf32" in str(layer.get("TacticName", "")).lower()
        else precision
    )


# -- Running ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class DeviceTensor:
    """A tensor on the GPU; owner keeps its memory."""

    pointer: int
    shape: Tuple[int, ...]
    dtype: str
    owner: Any

    @property
    def nbytes(self) -> int:
        """Size in bytes."""
        return int(np.prod(self.shape)) * np.dtype(self.dtype).itemsize


class Buffer:
    """Device memory for one tensor and the pinned array that it is filled from."""

    def __init__(self, device: cuda.Device, spec: TensorSpec) -> None:
        self._device, self._pinned, self._sent = (
            device,
            device.pinned(spec.shape, spec.dtype),
            device.event(),
        )
        self.memory = device.allocate(self._pinned.nbytes)

    def send(self, values: np.ndarray) -> int:
        """Put values on their way to the device, cast where needed; the address where they will
        be."""
        self._sent.synchronize()  # the pinned array may still be read for the call before
        np.copyto(self._pinned, values, casting="same_kind")
        self._device.upload(self.memory.pointer, self._pinned)
        self._sent.record()
        return self.memory.pointer


class TensorRTEngine:
    """One network compiled for the GPU (the `Engine` contract). Outputs stay there as
    `DeviceTensor`s for other engines."""

    def __init__(
        self,
        model: bytes,
        network: str,
        precision: str,
        cache: Optional[Path] = None,
        refit: Optional[bool] = None,
        tf32: bool = False,
        calibrator: Optional[EntropyCalibration] = None,
    ) -> None:
        self._gpu, self._can = cuda.device(), flavour().can
        self.network, self.precision, self.framework, self.device = (
            network,
            precision,
            flavour().name,
            self._gpu.name,
        )
        self.refits = network == "xcorr" and (bool(refit) or not self._can.kernel_inputs)
        if (refit and network != "xcorr") or (refit is False and self.refits):
            raise InputError(
                f"{self.framework}: refit={refit} is not possible for the {network} network"
            )
        proto, kernels = _read(model), {}  # type: onnx.ModelProto, Dict[str, np.ndarray]
        check_model(proto, network, "fp32" if calibrator else precision)
        if self.refits:
            proto, kernels = refittable(proto, calibrator is not None)
            model = proto.SerializeToString()
            self._types = kernel_types(proto)
        self._correlations = correlations(proto)
        gpu = "{} {}.{}".format(self._gpu.name, *self._gpu.compute_capability)
        key = plan_key(
            model,
            precision,
            self.framework,
            gpu,
            self.refits,
            tf32,
            calibrator.digest() if calibrator else "",
        )
        self._engine, plan = plans.load_or_build(
            cache,
            f"{network}-{precision}-tensorrt",
            key,
            lambda: build_plan(model, precision, self.refits, tf32, calibrator),
            self._load,
        )
        self.build_seconds, self.plan_bytes = plan.build_seconds, len(plan.data)
        self.inputs, self.outputs = (
            self._specs(trt.TensorIOMode.INPUT),
            self._specs(trt.TensorIOMode.OUTPUT),
        )
        # For inputs that come from arrays
        self._buffers: Dict[str, Buffer] = {}
        # Pinned memory, for outputs that are fetched
        self._received: Dict[Tuple[int, ...], np.ndarray] = {}
        self._results = {name: self._tensor(spec) for name, spec in self.outputs.items()}
        self._begin()
        if kernels and calibrator is None:
            self.refit(kernels)

    def _load(self, plan: bytes) -> trt.ICudaEngine:
        self._runtime = trt.Runtime(_log())  # must outlive the engine
        engine = self._runtime.deserialize_cuda_engine(plan)
        if engine is None:
            raise _refused("cannot load the plan")
        return engine

    def _specs(self, mode: trt.TensorIOMode) -> Dict[str, TensorSpec]:
        # Not by `trt.nptype`: that of TensorRT 8.5 fails with NumPy 1.24.
        types, engine = {trt.DataType.FLOAT: "float32", trt.DataType.HALF: "float16"}, self._engine
        names = [engine.get_tensor_name(index) for index in range(engine.num_io_tensors)]
        return {
            name: TensorSpec(
                _shape(engine.get_tensor_shape(name)), types[engine.get_tensor_dtype(name)]
            )
            for name in names
            if engine.get_tensor_mode(name) == mode
        }

    def _tensor(self, spec: TensorSpec) -> DeviceTensor:
        memory = self._gpu.allocate(int(np.prod(spec.shape)) * np.dtype(spec.dtype).itemsize)
        return DeviceTensor(memory.pointer, spec.shape, spec.dtype, memory)

    def _begin(self) -> None:
        """A new execution context, bound to nothing yet."""
        self._context = self._new_context(self._can.own_graphs)
        self._bound: Tuple[int, ...] = ()
        self._graph: Optional[Callable[[], None]] = None
        self._graphs = not self._can.own_graphs

    def _new_context(self, own_graphs: bool) -> trt.IExecutionContext:
        if own_graphs:  # TensorRT-RTX captures when its kernels are compiled, which only it knows
            config = self._engine.create_runtime_config()
            cast(Any, config).cuda_graph_strategy = cast(
                Any, trt
            ).CudaGraphStrategy.WHOLE_GRAPH_CAPTURE
            context = self._engine.create_execution_context(config)
        else:
            context = self._engine.create_execution_context()
        if context is None:
            raise _refused(f"cannot run the {self.network} network")
        return context

    def __call__(self, feeds: Mapping[str, Any]) -> Dict[str, DeviceTensor]:
        check_feeds(self.inputs, feeds, self.network)
        addresses = tuple(self._address(name, feeds[name]) for name in self.inputs)
        if addresses != self._bound:
            self._bind(self._context, addresses)
            self._bound, self._graph = addresses, None
            self._run(self._context)  # TensorRT asks for one plain run before a capture
            return dict(self._results)
        if self._graphs and self._graph is None:
            self._graph = self._capture()
        if self._graph is not None:
            self._graph()
        else:
            self._run(self._context)
        return dict(self._results)

    def _address(self, name: str, value: Any) -> int:
        if isinstance(value, DeviceTensor):
            if value.dtype != self.inputs[name].dtype:
                raise InputError(
                    f"the {self.network} network takes '{name}' as {self.inputs[name].dtype}, not {value.dtype}"
                )
            return value.pointer
        if name not in self._buffers:
            self._buffers[name] = Buffer(self._gpu, self.inputs[name])
        return self._buffers[name].send(np.asarray(value))

    def _bind(self, context: trt.IExecutionContext, addresses: Sequence[int]) -> None:
        pointers = {
            **dict(zip(self.inputs, addresses)),
            **{name: tensor.pointer for name, tensor in self._results.items()},
        }
        for name, pointer in pointers.items():
            if not context.set_tensor_address(name, pointer):
                raise _refused(f"does not take the address of '{name}'")

    def _run(self, context: trt.IExecutionContext) -> None:
        if not context.execute_async_v3(self._gpu.stream):
            raise _refused(f"cannot run the {self.network} network")

    def _capture(self) -> Optional[Callable[[], None]]:
        try:
            graph = self._gpu.capture(lambda: self._run(self._context))
        except (InputError, cuda.CudaError) as error:
            graph = None
            print(
                f"the {self.network} network runs without a CUDA graph ({error})", file=sys.stderr
            )
        self._graphs = graph is not None
        return graph

    def numpy(self, tensor: DeviceTensor) -> np.ndarray:
        if tensor.shape not in self._received:
            self._received[tensor.shape] = self._gpu.pinned(tensor.shape, tensor.dtype)
        self._gpu.download(self._received[tensor.shape], tensor.pointer)
        self._gpu.synchronize()
        # A copy: the pinned array is used again
        return self._received[tensor.shape].astype(np.float32)

    def keep(self, tensors: Mapping[str, DeviceTensor]) -> Dict[str, DeviceTensor]:
        kept = {
            name: self._tensor(TensorSpec(tensor.shape, tensor.dtype))
            for name, tensor in tensors.items()
        }
        for name, tensor in tensors.items():
            self._gpu.copy(kept[name].pointer, tensor.pointer, tensor.nbytes)
        return kept

    def refit(self, kernels: Mapping[str, Any]) -> None:
        if not self.refits:
            raise InputError(
                "this engine takes kernels as inputs; build it with refit=True to have them inside"
            )
        refitter, fresh = trt.Refitter(self._engine, _log()), {}
        for name, dtype in self._types.items():
            value = (
                self.numpy(kernels[name])
                if isinstance(kernels[name], DeviceTensor)
                else kernels[name]
            )
            fresh[name] = np.ascontiguousarray(value, dtype)  # must live until the refitter is done
            if not refitter.set_named_weights(name, trt.Weights(fresh[name])):
                raise _refused(f"does not take the kernel '{name}'")
        self._gpu.synchronize()  # nothing may run while weights change
        if not refitter.refit_cuda_engine():
            missing = ", ".join(refitter.get_missing_weights())
            raise _refused(
                f"cannot refit the xcorr network{f', it lacks {missing}' if missing else ''}"
            )
        self._graph = None
        if not self._can.contexts_survive_refit:
            self._begin()

    def _layers(self) -> List[Mapping[str, Any]]:
        told = json.loads(
            self._engine.create_engine_inspector().get_engine_information(
                trt.LayerInformationFormat.JSON
            )
        )
        return [layer if isinstance(layer, dict) else {"Name": layer} for layer in told["Layers"]]

    def executed(self) -> Dict[str, int]:
        kinds = ("convolution", "correlation")
        return dict(
            Counter(
                layer_precision(layer)
                for layer in self._layers()
                if classify(layer, self._correlations) in kinds
            )
        )

    def profile(self, feeds: Mapping[str, Any], calls: int) -> List[LayerTime]:
        seconds: Dict[str, float] = {}

        class Profiler(trt.IProfiler):
            def __init__(self) -> None:
                trt.IProfiler.__init__(self)

            def report_layer_time(self, layer_name: str, ms: float) -> None:
                seconds[layer_name] = seconds.get(layer_name, 0.0) + ms * 1e-3 / calls

        self(feeds)
        # The context that tracks stays without a profiler
        context, profiler = self._new_context(own_graphs=False), Profiler()
        self._bind(context, self._bound)
        self._run(context)
        self._gpu.synchronize()
        context.profiler = profiler
        for _ in range(calls):
            self._run(context)
            self._gpu.synchronize()
        layers = {layer["Name"]: layer for layer in self._layers()}
        told = [layers.get(name, {"Name": name}) for name in seconds]
        return [
            LayerTime(
                layer["Name"],
                classify(layer, self._correlations),
                layer_precision(layer),
                seconds[layer["Name"]],
            )
            for layer in told
        ]


def build(
    model: Union[bytes, Path],
    network: str,
    precision: str,
    cache: Optional[Path] = None,
    refit: Optional[bool] = None,
    tf32: bool = False,
    calibrator: Optional[EntropyCalibration] = None,
) -> TensorRTEngine:
    """An engine of an ONNX file or of its bytes. cache: folder for plans. refit: kernels inside
    instead of as inputs (None: where the version knows no other way). tf32, calibrator: see
    `build_plan`. Raises InputError for what TensorRT or the GPU cannot do."""
    data = model.read_bytes() if isinstance(model, Path) else model
    return TensorRTEngine(data, network, precision, cache, refit, tf32, calibrator)


def version() -> str:
    """The installed flavour and its version, e.g. "TensorRT 8.5.2.2"."""
    return flavour().name
