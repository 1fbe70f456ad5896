"""FP16 by layer (section 4.2.4): a model in which one group of layers computes with FP16 numbers.

INT8 by layer needs nothing of its own: `quantize.to_int8` leaves out the groups that it is told to
keep. Processors seldom multiply in FP16, so here the numbers are rounded to it and multiplied in
FP32, which is what TensorRT's FP16 layers do. ONNX Runtime rounds where a model has casts; OpenVINO
takes them out again.
"""

from __future__ import annotations

import copy
from typing import Any, Collection, Dict, List, Mapping

import numpy as np

from lib.engines.export import cast, need_onnx, session, set_nodes, shapes
from lib.engines.quantize import group
from lib.siamrpn.contract import check_feeds

COMPUTE = ("Conv", "Add", "Mul")  # the other nodes pass on what they read


def fp16_in(model: Any, groups: Collection[str]) -> Any:
    """The FP32 model in which all that the nodes of `groups` (quantize.GROUPS) read and put out is
    rounded to FP16."""
    types, mixed = need_onnx().TensorProto, copy.deepcopy(model)
    nodes: List[Any] = []
    rounded: Dict[str, str] = {}

    def round_to_fp16(tensor: str, to: str) -> None:
        nodes.append(cast(tensor, f"{tensor}_fp16", types.FLOAT16))
        nodes.append(cast(f"{tensor}_fp16", to, types.FLOAT))

    for node in mixed.graph.node:
        if node.op_type not in COMPUTE or group(node.name) not in groups:
            nodes.append(node)
            continue
        for tensor in node.input:
            if tensor not in rounded:
                rounded[tensor] = f"{tensor}_rounded"
                round_to_fp16(tensor, rounded[tensor])
        node.input[:] = [rounded[tensor] for tensor in node.input]
        output, node.output[0] = node.output[0], f"{node.output[0]}_exact"
        nodes.append(node)
        round_to_fp16(node.output[0], output)
    set_nodes(mixed, nodes)
    need_onnx().checker.check_model(mixed, full_check=True)
    return mixed


class OnnxEngine:
    """One network in ONNX Runtime on the processor (the `Engine` contract, as far as tracking needs
    it)."""

    framework, device, precision, refits = "ONNX Runtime", "CPU", "fp16", False

    def __init__(self, model: Any, network: str) -> None:
        self.network, self._session = network, session(model)
        self.inputs, self.outputs = shapes(model.graph.input), shapes(model.graph.output)

    def __call__(self, feeds: Mapping[str, Any]) -> Dict[str, np.ndarray]:
        check_feeds(self.inputs, feeds, self.network)
        return dict(zip(self.outputs, self._session.run(list(self.outputs), dict(feeds))))

    def numpy(self, tensor: np.ndarray) -> np.ndarray:
        return tensor

    def keep(self, tensors: Mapping[str, np.ndarray]) -> Dict[str, np.ndarray]:
        return dict(tensors)
