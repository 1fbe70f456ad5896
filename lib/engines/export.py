"""The three networks of figure 3.9 as ONNX models (thesis section 3.4): named tensors, fixed
shapes, typed FP32 and FP16.

Precision is a property of the model, not of a builder's flag: every framework compiles the same
FP32, FP16 or INT8 file (`lib.engines.quantize` makes the last). Batch normalisation is folded into the
convolutions before, so that a convolution is one node with its weights and bias, which is what
quantisation needs. Works with PyTorch 1.13 (Xavier) to current ones.
"""

from __future__ import annotations

import copy
import inspect
import io
import json
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any, Dict, Iterable, List, Mapping, Sequence, Tuple, Union

import numpy as np
import torch
from torch import nn

from lib import environment
from lib.errors import InputError
from lib.files import whole_file
from lib.siamrpn.network import SiamRPN, fold_batch_norm
from lib.siamrpn.parts import INPUTS, KERNELS, NETWORKS, OUTPUTS, example_inputs, three_networks

if TYPE_CHECKING:
    import onnx

OPSET = 13  # QuantizeLinear per channel begins here, and TensorRT 8.5 reads it
SCORE_SIDE = 25  # of the xcorr network's answers
# Largest difference between ONNX Runtime and PyTorch, as a share of the output's range
TOLERANCE = 1e-4


def need_onnx() -> Any:
    """The package onnx, or InputError that says how to get it."""
    try:
        import onnx
    except ImportError:
        raise InputError("ONNX models need the package onnx: pip install -e '.[engines]'") from None
    return onnx


def need_onnxruntime() -> Any:
    """The package onnxruntime, or InputError that says how to get it."""
    try:
        import onnxruntime
    except ImportError:
        raise InputError(
            "checking and quantising ONNX models needs onnxruntime: pip install -e '.[engines]'"
        ) from None
    return onnxruntime


# -- PyTorch to ONNX -------------------------------------------------------------------------------


def export_network(network: SiamRPN, names: Sequence[str] = NETWORKS) -> Dict[str, onnx.ModelProto]:
    """The target, search and xcorr networks (or those named) as typed FP32 models, checked by
    ONNX's checker.

    Names and shapes of inputs and outputs are those of `lib.siamrpn.parts`; `describe` reads what
    else a model carries.
    """
    modules = three_networks(network)
    return {name: _export(modules[name], name, network) for name in names}


def _export(module: nn.Module, name: str, network: SiamRPN) -> onnx.ModelProto:
    """One network, traced without its weights, which are put in afterwards: the exporter holds them
    in memory four times."""
    onnx = need_onnx()
    folded = fold_batch_norm(module)
    inputs = example_inputs(name, network.config.rpn)
    stream: Any = io.BytesIO()
    # The exporter by tracing is the one that every supported PyTorch has; newer ones have to
    # be asked for it.
    classic: Dict[str, Any] = (
        {"dynamo": False} if "dynamo" in inspect.signature(torch.onnx.export).parameters else {}
    )
    with warnings.catch_warnings(), torch.no_grad():
        warnings.filterwarnings("ignore", category=DeprecationWarning)
        warnings.filterwarnings("ignore", category=torch.jit.TracerWarning)
        torch.onnx.export(
            folded,
            tuple(inputs.values()),
            stream,
            export_params=False,
            opset_version=OPSET,
            input_names=list(INPUTS[name]),
            output_names=list(OUTPUTS[name]),
            **classic,
        )
    model = _without_identities(onnx.load_from_string(stream.getvalue()))
    weights = folded.state_dict()
    for value in [value for value in model.graph.input if value.name in weights]:
        model.graph.input.remove(value)
        model.graph.initializer.append(
            onnx.numpy_helper.from_array(weights[value.name].numpy(), value.name)
        )
    onnx.helper.set_model_props(
        model,
        {"network": name, "precision": "fp32", "config": json.dumps(network.config.to_dict())},
    )
    check(model)
    return model


def _without_identities(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model without Identity nodes: the exporter shares equal weights through them, which hides
    weights from quantisation."""
    source = {
        node.output[0]: node.input[0] for node in model.graph.node if node.op_type == "Identity"
    }
    kept = [node for node in model.graph.node if node.op_type != "Identity"]
    for node in kept:
        for index, tensor in enumerate(node.input):
            while tensor in source:
                tensor = source[tensor]
            node.input[index] = tensor
    del model.graph.node[:]
    model.graph.node.extend(kept)
    return model


def without_weights(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy of all but the weights (initializers), which are most of a model."""
    onnx = need_onnx()
    helper, graph = onnx.helper, model.graph
    bare = helper.make_graph(
        graph.node,
        graph.name,
        graph.input,
        graph.output,
        doc_string=graph.doc_string,
        value_info=graph.value_info,
    )
    copied = helper.make_model(
        bare,
        ir_version=model.ir_version,
        opset_imports=model.opset_import,
        producer_name=model.producer_name,
        producer_version=model.producer_version,
    )
    copied.metadata_props.extend(model.metadata_props)
    return copied


def check(model: onnx.ModelProto) -> None:
    """ONNX's checker, inferred shapes as well, with the weights as inputs: it holds what it checks
    in memory three times. Raises the checker's errors."""
    onnx = need_onnx()
    bare = without_weights(model)
    for weight in model.graph.initializer:
        onnx.checker.check_tensor(weight)
        bare.graph.input.append(
            onnx.helper.make_tensor_value_info(weight.name, weight.data_type, weight.dims)
        )
    onnx.checker.check_model(bare, full_check=True)


# -- Other forms of a model ------------------------------------------------------------------------


def to_fp16(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model with weights and computation in FP16 and inputs and outputs in FP32, whatever the
    engines around it run in.

    Raises InputError where a weight has no finite FP16 value.
    """
    onnx = need_onnx()
    half = without_weights(model)
    graph = half.graph
    graph.initializer.extend(map(_half, model.graph.initializer))
    for constant in [
        attribute.t
        for node in graph.node
        if node.op_type == "Constant"
        for attribute in node.attribute
    ]:
        constant.CopyFrom(_half(constant))
    inside = {value.name: f"{value.name}_fp16" for value in [*graph.input, *graph.output]}
    for node in graph.node:
        node.input[:] = [inside.get(tensor, tensor) for tensor in node.input]
        node.output[:] = [inside.get(tensor, tensor) for tensor in node.output]
    down = [
        _cast(value.name, inside[value.name], onnx.TensorProto.FLOAT16) for value in graph.input
    ]
    up = [_cast(inside[value.name], value.name, onnx.TensorProto.FLOAT) for value in graph.output]
    nodes = [*down, *graph.node, *up]
    del graph.node[:]
    graph.node.extend(nodes)
    set_property(half, "precision", "fp16")
    check(half)
    return half


def _half(weight: onnx.TensorProto) -> onnx.TensorProto:
    numpy_helper = need_onnx().numpy_helper
    values = numpy_helper.to_array(weight)
    if values.dtype != np.float32:
        return weight
    if not (np.abs(values) <= np.finfo(np.float16).max).all():
        largest = np.abs(values).max()
        raise InputError(
            f"FP16: the weights '{weight.name}' reach {largest:.3g}, which FP16 has no number for"
        )
    return numpy_helper.from_array(values.astype(np.float16), weight.name)


def _cast(source: str, target: str, to: int) -> Any:
    return need_onnx().helper.make_node("Cast", [source], [target], name=f"cast_{target}", to=to)


def with_constant_kernels(
    model: onnx.ModelProto, kernels: Mapping[str, np.ndarray]
) -> onnx.ModelProto:
    """The xcorr network with the six kernels as weights of the same names instead of inputs: what
    TensorRT refits by name.

    kernels: name -> (C, 1, 5, 5) float32. Raises InputError for a model without these inputs.
    """
    onnx = need_onnx()
    model = copy.deepcopy(model)
    inputs = {value.name: value for value in model.graph.input}
    missing = [name for name in KERNELS if name not in inputs or name not in kernels]
    if missing:
        raise InputError(f"not an xcorr network with kernels as inputs: '{missing[0]}' is missing")
    for name in KERNELS:
        model.graph.input.remove(inputs[name])
        model.graph.initializer.append(
            onnx.numpy_helper.from_array(np.ascontiguousarray(kernels[name], np.float32), name)
        )
    return model


def set_initializers(model: onnx.ModelProto, values: Mapping[str, np.ndarray]) -> onnx.ModelProto:
    """The same model object with weights replaced by name, e.g. the kernels of another target."""
    onnx = need_onnx()
    for weight in model.graph.initializer:
        if weight.name in values:
            weight.CopyFrom(
                onnx.numpy_helper.from_array(
                    np.ascontiguousarray(values[weight.name], np.float32), weight.name
                )
            )
    return model


# -- Looking at a model ----------------------------------------------------------------------------


def properties(model: onnx.ModelProto) -> Dict[str, str]:
    """What this project wrote into the model: network, precision, configuration (JSON),
    calibration."""
    return {entry.key: entry.value for entry in model.metadata_props}


def set_property(model: onnx.ModelProto, key: str, value: str) -> None:
    """Write one property into the model."""
    need_onnx().helper.set_model_props(model, {**properties(model), key: value})


def shapes(values: Iterable[Any]) -> Dict[str, Tuple[int, ...]]:
    """Names and shapes of a graph's inputs or outputs."""
    return {
        value.name: tuple(dim.dim_value for dim in value.type.tensor_type.shape.dim)
        for value in values
    }


def describe(model: onnx.ModelProto) -> Dict[str, Any]:
    """network, precision, inputs, outputs (name -> shape), operators (type -> count), parameters,
    megabytes, gflop of a run.

    gflop counts the convolutions, two operations for a multiplication with addition.
    """
    onnx = need_onnx()
    inferred = onnx.shape_inference.infer_shapes(model)
    weights = {weight.name: tuple(weight.dims) for weight in model.graph.initializer}
    known = {
        **shapes(inferred.graph.value_info),
        **shapes(model.graph.input),
        **shapes(model.graph.output),
        **weights,
    }
    source = {node.output[0]: node for node in model.graph.node}
    operators: Dict[str, int] = {}
    flop = 0.0
    for node in model.graph.node:
        operators[node.op_type] = operators.get(node.op_type, 0) + 1
        if node.op_type == "Conv":
            kernel = known[_origin(node.input[1], source)]
            flop += 2.0 * np.prod(kernel[1:]) * np.prod(known[node.output[0]])
    return {
        "network": properties(model).get("network"),
        "precision": properties(model).get("precision"),
        "inputs": shapes(model.graph.input),
        "outputs": shapes(model.graph.output),
        "operators": operators,
        "parameters": int(
            sum(
                np.prod(dims)
                for name, dims in weights.items()
                if not name.endswith(("_scale", "_zero"))
            )
        ),
        "megabytes": model.ByteSize() / 1e6,
        "gflop": float(flop) / 1e9,
    }


def _origin(tensor: str, source: Mapping[str, Any]) -> str:
    """The tensor before quantisation and casts."""
    while tensor in source and source[tensor].op_type in (
        "DequantizeLinear",
        "QuantizeLinear",
        "Cast",
    ):
        tensor = source[tensor].input[0]
    return tensor


def check_agreement(model: onnx.ModelProto, network: SiamRPN, seed: int = 0) -> float:
    """Largest difference between ONNX Runtime and PyTorch on random input, as a share of each
    output's range.

    Raises InputError where it is above TOLERANCE or not a number.
    """
    name = properties(model)["network"]
    feeds = random_feeds(name, network.config.rpn, seed)
    with torch.inference_mode():
        expected = three_networks(network)[name](
            *(torch.from_numpy(value) for value in feeds.values())
        )
    worst = 0.0
    for tensor, own, theirs in zip(
        OUTPUTS[name], run_onnx(model, feeds), (value.numpy() for value in expected)
    ):
        difference = float(np.abs(own - theirs).max() / max(float(np.ptp(theirs)), 1e-30))
        if not difference <= TOLERANCE:
            raise InputError(
                f"the exported {name} network differs from PyTorch by {difference:.2g} of the range of '{tensor}'"
            )
        worst = max(worst, difference)
    return worst


def random_feeds(name: str, channels: int, seed: int = 0) -> Dict[str, np.ndarray]:
    """Inputs of the right shapes: crops of 0..255, kernels and maps of 0..1."""
    random = np.random.RandomState(seed)
    high = 1.0 if name == "xcorr" else 255.0
    return {
        tensor: random.uniform(0, high, tuple(value.shape)).astype(np.float32)
        for tensor, value in example_inputs(name, channels).items()
    }


def session(
    model: Union[onnx.ModelProto, bytes], threads: int = 0, every_tensor: bool = False
) -> Any:
    """An ONNX Runtime session on the CPU, with as many threads as PyTorch unless given.

    every_tensor: for models with inner tensors as outputs, which changing the layout of the data
    would lose (it does where channels are not a multiple of the vector's length).
    """
    ort = need_onnxruntime()
    options = ort.SessionOptions()
    options.log_severity_level = 3  # what it says about its own optimisations is not for the reader
    options.intra_op_num_threads = threads or environment.threads()
    if every_tensor:
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    data = model if isinstance(model, bytes) else model.SerializeToString()
    return ort.InferenceSession(data, options, providers=["CPUExecutionProvider"])


def run_onnx(model: onnx.ModelProto, feeds: Mapping[str, np.ndarray]) -> List[np.ndarray]:
    """Outputs of a model in ONNX Runtime, in the graph's order."""
    return session(model).run(None, dict(feeds))


# -- Files -----------------------------------------------------------------------------------------


def load_model(path: Union[str, Path]) -> onnx.ModelProto:
    """Read an ONNX file of one of the three networks. Raises InputError for anything else, saying
    what does not fit."""
    onnx = need_onnx()
    try:
        model = onnx.load(str(path))
        onnx.checker.check_model(model)
    except FileNotFoundError:
        raise InputError(f"{path}: no such ONNX file") from None
    except Exception as error:  # protobuf and the checker raise types of their own
        reason = " ".join(str(error).split())[:120] or type(error).__name__
        raise InputError(f"{path}: not a readable ONNX model ({reason})") from None
    check_interface(model, str(path))
    return model


def check_interface(model: onnx.ModelProto, source: str) -> None:
    """Raises InputError where inputs or outputs are not those of the network that the model says it
    is."""
    name = properties(model).get("network")
    inputs, outputs = shapes(model.graph.input), shapes(model.graph.output)
    if name not in NETWORKS:
        raise InputError(
            f"{source}: an ONNX model of another network (inputs {', '.join(inputs) or 'none'}); "
            f"`siambook export` writes the target, search and xcorr networks"
        )
    expected = set(INPUTS[name]) - (
        set(KERNELS) if name == "xcorr" and not set(KERNELS) & set(inputs) else set()
    )
    if set(inputs) != expected or set(outputs) != set(OUTPUTS[name]):
        raise InputError(
            f"{source}: inputs {sorted(inputs)} and outputs {sorted(outputs)} are not those of the {name} network"
        )
    try:
        config = json.loads(properties(model)["config"])
        channels, anchors = int(config["rpn"]), int(config["anchors"])
    except (KeyError, TypeError, ValueError):
        raise InputError(
            f"{source}: the model does not carry its network's config; `siambook export` writes it"
        ) from None
    fitting: Dict[str, Tuple[int, ...]] = {
        "cls": (1, 2 * anchors, SCORE_SIDE, SCORE_SIDE),
        "loc": (1, 4 * anchors, SCORE_SIDE, SCORE_SIDE),
    }
    # What the target and the search network answer with is what the xcorr network takes
    for part in NETWORKS:
        fitting.update(
            {tensor: tuple(value.shape) for tensor, value in example_inputs(part, channels).items()}
        )
    for tensor, shape in {**inputs, **outputs}.items():
        if shape != fitting[tensor]:
            does = "takes" if tensor in inputs else "gives"
            raise InputError(
                f"{source}: '{tensor}' has shape {shape}, the {name} network {does} {fitting[tensor]}"
            )


def save_model(model: onnx.ModelProto, path: Union[str, Path]) -> Path:
    """Write a model, whole or not at all. Raises InputError where it cannot be written.

    Weight by weight, so that no second copy of them is in memory: protobuf reads messages that
    follow each other as one.
    """
    onnx = need_onnx()
    with whole_file(path) as temporary, temporary.open("wb") as stream:
        stream.write(without_weights(model).SerializeToString())
        for weight in model.graph.initializer:
            stream.write(
                onnx.ModelProto(graph=onnx.GraphProto(initializer=[weight])).SerializeToString()
            )
    return Path(path)
