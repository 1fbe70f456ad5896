"""The three networks of figure 3.9 as ONNX models (thesis section 3.4): named tensors, fixed
shapes, typed FP32 and FP16.

Precision is a property of the model, not of a builder's flag: every framework compiles the same
FP32, FP16 or INT8 file (`lib.engines.quantize` makes the last). Batch normalisation is folded into the
convolutions before, so that a convolution is one node with its weights and bias, which is what
quantisation needs. Works with PyTorch 1.13 (Xavier) to current ones.
"""

from __future__ import annotations

import contextlib
import copy
import inspect
import io
import json
import warnings
from collections import Counter
from dataclasses import asdict
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Dict, Iterable, List, Mapping, Sequence, Tuple, Union

import numpy as np
import torch
from torch import nn

from lib.environment import threads
from lib.errors import InputError
from lib.files import refuse_others, whole_file
from lib.siamrpn.network import SiamRPN, fold_batch_norm
from lib.siamrpn.parts import INPUTS, KERNELS, NETWORKS, OUTPUTS, example_inputs, three_networks

if TYPE_CHECKING:
    import onnx

OPSET = 13  # QuantizeLinear per channel begins here, and TensorRT 8.5 reads it
QDQ = ("QuantizeLinear", "DequantizeLinear", "Cast")  # change how numbers are written
# Largest difference between ONNX Runtime and PyTorch, as a share of the output's range
TOLERANCE = 1e-4


def need_onnx(package: str = "onnx") -> Any:
    """The package onnx (or onnxruntime), or InputError that says how to get it."""
    try:
        return import_module(package)
    except ImportError:
        raise InputError(
            f"ONNX models need the package {package}: pip install -e '.[engines]'"
        ) from None


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
    model = _without_identities(onnx.load_from_string(_trace(folded, name, network.config.rpn)))
    weights = folded.state_dict()
    for value in [value for value in model.graph.input if value.name in weights]:
        model.graph.input.remove(value)
        model.graph.initializer.append(_initializer(value.name, weights[value.name].numpy()))
    config = json.dumps(asdict(network.config))
    onnx.helper.set_model_props(model, {"network": name, "precision": "fp32", "config": config})
    need_onnx().checker.check_model(model, full_check=True)
    return model


def _trace(module: nn.Module, name: str, channels: int) -> bytes:
    """PyTorch's export of the graph, its weights as inputs."""
    stream: Any = io.BytesIO()
    # The exporter by tracing is the one that every supported PyTorch has; newer ones have to
    # be asked for it.
    newer = "dynamo" in inspect.signature(torch.onnx.export).parameters
    classic: Dict[str, Any] = {"dynamo": False} if newer else {}
    # PyTorch 2.0 prints a report of its diagnostics
    quiet = contextlib.redirect_stdout(io.StringIO())
    with warnings.catch_warnings(), torch.no_grad(), quiet:
        warnings.filterwarnings("ignore", category=DeprecationWarning)
        warnings.filterwarnings("ignore", category=torch.jit.TracerWarning)
        torch.onnx.export(
            module,
            tuple(example_inputs(name, channels).values()),
            stream,
            export_params=False,
            opset_version=OPSET,
            input_names=list(INPUTS[name]),
            output_names=list(OUTPUTS[name]),
            **classic,
        )
    return stream.getvalue()


def _initializer(name: str, values: np.ndarray) -> Any:
    contiguous = np.asarray(values, order="C")  # np.ascontiguousarray makes a vector of a scalar
    return need_onnx().numpy_helper.from_array(contiguous, name)


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
    return set_nodes(model, kept)


# -- Other forms of a model ------------------------------------------------------------------------


def to_fp16(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model with weights and computation in FP16 and inputs and outputs in FP32, whatever the
    engines around it run in.

    Raises InputError where a weight has no finite FP16 value.
    """
    types = need_onnx().TensorProto
    half = copy.deepcopy(model)
    graph = half.graph
    for weight in graph.initializer:
        weight.CopyFrom(_half(weight))
    for node in graph.node:
        for attribute in node.attribute if node.op_type == "Constant" else ():
            attribute.t.CopyFrom(_half(attribute.t))
    inside = {value.name: f"{value.name}_fp16" for value in [*graph.input, *graph.output]}
    for node in graph.node:
        node.input[:] = [inside.get(tensor, tensor) for tensor in node.input]
        node.output[:] = [inside.get(tensor, tensor) for tensor in node.output]
    down = [cast(value.name, inside[value.name], types.FLOAT16) for value in graph.input]
    up = [cast(inside[value.name], value.name, types.FLOAT) for value in graph.output]
    set_nodes(half, [*down, *graph.node, *up])
    set_property(half, "precision", "fp16")
    need_onnx().checker.check_model(half, full_check=True)
    return half


def _half(weight: onnx.TensorProto) -> onnx.TensorProto:
    values = need_onnx().numpy_helper.to_array(weight)
    if values.dtype != np.float32:
        return weight
    if not (np.abs(values) <= np.finfo(np.float16).max).all():
        raise InputError(f"FP16: the weights '{weight.name}' have values that FP16 cannot express")
    return _initializer(weight.name, values.astype(np.float16))


def cast(source: str, target: str, to: int) -> Any:
    return need_onnx().helper.make_node("Cast", [source], [target], name=f"cast_{target}", to=to)


def set_nodes(model: onnx.ModelProto, nodes: Sequence[onnx.NodeProto]) -> onnx.ModelProto:
    """The same model object with these nodes."""
    nodes = list(nodes)
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    return model


def with_constant_kernels(
    model: onnx.ModelProto, kernels: Mapping[str, np.ndarray]
) -> onnx.ModelProto:
    """The xcorr network with these six kernels as weights, by the names of its inputs or of the
    weights that it has instead: what TensorRT refits by name. kernels: name -> (C, 1, 5, 5)
    float32."""
    model = copy.deepcopy(model)
    for values in (model.graph.input, model.graph.initializer):
        for value in [value for value in values if value.name in KERNELS]:
            values.remove(value)
    model.graph.initializer.extend(_initializer(name, kernels[name]) for name in KERNELS)
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
    megabytes, gflop of a run."""
    graph = model.graph
    weights = {weight.name: tuple(weight.dims) for weight in graph.initializer}
    quantised = ("_scale", "_zero")  # what describes integers is no parameter
    return {
        "network": properties(model).get("network"),
        "precision": properties(model).get("precision"),
        "inputs": shapes(graph.input),
        "outputs": shapes(graph.output),
        "operators": dict(Counter(node.op_type for node in graph.node)),
        "parameters": int(
            sum(np.prod(dims) for name, dims in weights.items() if not name.endswith(quantised))
        ),
        "megabytes": model.ByteSize() / 1e6,
        "gflop": _flop(model) / 1e9,
    }


def _flop(model: onnx.ModelProto) -> float:
    """Operations of the convolutions, two for a multiplication with addition."""
    inferred = need_onnx().shape_inference.infer_shapes(model).graph
    known = shapes([*inferred.value_info, *inferred.input, *inferred.output])
    known.update({weight.name: tuple(weight.dims) for weight in inferred.initializer})
    source = {node.output[0]: node for node in inferred.node}
    operations = 0.0
    for node in inferred.node:
        if node.op_type == "Conv":
            weight = node.input[1]
            while weight in source and source[weight].op_type in QDQ:
                weight = source[weight].input[0]
            operations += 2.0 * np.prod(known[weight][1:]) * np.prod(known[node.output[0]])
    return float(operations)


def check_agreement(model: onnx.ModelProto, network: SiamRPN) -> float:
    """Largest difference between ONNX Runtime and PyTorch on random input, as a share of each
    output's range.

    Raises InputError where it is above TOLERANCE or not a number.
    """
    name = properties(model)["network"]
    feeds = random_feeds(name, network.config.rpn)
    with torch.inference_mode():
        expected = three_networks(network)[name](*map(torch.from_numpy, feeds.values()))
    differences = [
        np.abs(own - theirs.numpy()).max() / max(np.ptp(theirs.numpy()), 1e-30)
        for own, theirs in zip(run_onnx(model, feeds), expected)
    ]
    worst = float(np.max(differences))
    if not worst <= TOLERANCE:
        raise InputError(
            f"the exported {name} network differs from PyTorch by {worst:.2g} of an output's range"
        )
    return worst


def random_feeds(name: str, channels: int, seed: int = 0) -> Dict[str, np.ndarray]:
    """Inputs of the right shapes: crops of 0..255, kernels and maps of 0..1."""
    random = np.random.RandomState(seed)
    high = 1.0 if name == "xcorr" else 255.0
    return {
        tensor: random.uniform(0, high, tuple(value.shape)).astype(np.float32)
        for tensor, value in example_inputs(name, channels).items()
    }


def session(model: onnx.ModelProto, every_tensor: bool = False) -> Any:
    """An ONNX Runtime session on the CPU, with as many threads as PyTorch.

    every_tensor: for models with inner tensors as outputs, which changing the layout of the data
    would lose (it does where channels are not a multiple of the vector's length).
    """
    ort = need_onnx("onnxruntime")
    options = ort.SessionOptions()
    options.log_severity_level = 3  # what it says about its own optimisations is not for the reader
    options.intra_op_num_threads = threads()
    if every_tensor:
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    return ort.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )


def run_onnx(model: onnx.ModelProto, feeds: Mapping[str, np.ndarray]) -> List[np.ndarray]:
    """Outputs of a model in ONNX Runtime, in the graph's order."""
    return session(model).run(None, dict(feeds))


# -- Files -----------------------------------------------------------------------------------------


def save_model(model: onnx.ModelProto, path: Union[str, Path]) -> Path:
    """Write a model, whole or not at all. Raises InputError where it cannot be written, or where
    `path` is a file that PyTorch's exporter did not make."""
    refuse_others(path, model.producer_name.encode())
    with whole_file(path) as temporary:
        temporary.write_bytes(model.SerializeToString())
    return Path(path)
