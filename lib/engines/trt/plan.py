"""From an ONNX model to a plan, TensorRT's serialised engine.

An ONNX model says its types itself: from TensorRT 10 on they bind the builder. 8.5 may deviate, so
`TensorRTEngine.executed` reads from the engine what runs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Dict, Optional, Tuple, cast

import numpy as np

from lib.engines.export import set_nodes, shapes, with_constant_kernels
from lib.engines.trt.installed import checked, flavour, log
from lib.errors import InputError
from lib.siamrpn.parts import KERNELS

if TYPE_CHECKING:
    import onnx
    import tensorrt as trt
else:
    from lib.engines.trt.installed import trt

WORKSPACE = 1 << 30  # bytes that a layer may use while it runs, as in the thesis


def build_plan(
    model: bytes,
    precision: str,
    refit: bool = False,
    compute_capability: Optional[Tuple[int, int]] = None,
) -> bytes:
    """A plan of an ONNX model's bytes.

    refit: weights named in KERNELS can be replaced. compute_capability: of a GPU that is not here,
    (8, 6); only TensorRT-RTX builds for one. Raises InputError for what TensorRT refuses.
    """
    log().errors = []
    try:
        builder = trt.Builder(log())
    except TypeError:  # what the bindings make of a null pointer
        builder = checked(None, "cannot build here")
    flags, typed = trt.NetworkDefinitionCreationFlag, flavour().typed
    network = builder.create_network(
        1 << int(flags.STRONGLY_TYPED if typed else flags.EXPLICIT_BATCH)
    )
    parser = trt.OnnxParser(network, log())
    checked(parser.parse(model), "cannot read the ONNX model")
    config = builder.create_builder_config()
    config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, WORKSPACE)
    # Costs no time; `executed` and `profile` live on it
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
    config.clear_flag(trt.BuilderFlag.TF32)  # FP32 means FP32; TF32 is on unless it is cleared
    if not typed and precision != "fp32":
        config.set_flag(getattr(trt.BuilderFlag, precision.upper()))
    if refit:
        _mark_kernels(network, config)
    if flavour().rtx:
        _aim(config, compute_capability)
    plan = builder.build_serialized_network(network, config)
    return bytes(checked(plan, "cannot compile the model"))


def _mark_kernels(network: trt.INetworkDefinition, config: trt.IBuilderConfig) -> None:
    """Make the kernels, and where the version can tell them apart nothing else, replaceable: what
    is fixed can be fused."""
    individually = getattr(trt.BuilderFlag, "REFIT_INDIVIDUAL", None)
    config.set_flag(trt.BuilderFlag.REFIT if individually is None else individually)
    if individually is not None:
        for name in KERNELS:
            checked(network.mark_weights_refittable(name), f"has no weights '{name}' to refit")


def _aim(config: trt.IBuilderConfig, capability: Optional[Tuple[int, int]]) -> None:
    """TensorRT-RTX: build for one compute capability, or for the GPU that is here."""
    rtx, known = cast(Any, config), cast(Any, trt).ComputeCapability
    name = "CURRENT" if capability is None else "SM{}{}".format(*capability)
    if not hasattr(known, name):
        raise InputError(f"{flavour().name} does not build for {name}")
    rtx.num_compute_capabilities = 1
    rtx.set_compute_capability(getattr(known, name), 0)


# -- Kernels as weights ----------------------------------------------------------------------------


def refittable(model: onnx.ModelProto) -> Tuple[onnx.ModelProto, Dict[str, np.ndarray]]:
    """The xcorr network with a mean filter in the place of its kernels, so that its plan is the
    same for every target; and the kernels that it had inside, or {} where they were inputs.

    Where kernels are cast to FP16, the weights are FP16 instead: weights of a convolution can be
    replaced in every version, what a cast reads may not.
    """
    from onnx import numpy_helper

    inside = {
        weight.name: numpy_helper.to_array(weight)
        for weight in model.graph.initializer
        if weight.name in KERNELS
    }
    sizes = {name: value.shape for name, value in inside.items()} or shapes(model.graph.input)
    casts = {
        node.output[0]: node.input[0]
        for node in model.graph.node
        if node.op_type == "Cast" and node.input[0] in KERNELS
    }
    dtype = np.float16 if casts else np.float32
    neutral = {name: np.full(sizes[name], 1 / np.prod(sizes[name][2:]), dtype) for name in KERNELS}
    model = with_constant_kernels(model, neutral)
    kept = [node for node in model.graph.node if node.output[0] not in casts]
    for node in kept:
        node.input[:] = [casts.get(tensor, tensor) for tensor in node.input]
    return set_nodes(model, kept), inside
