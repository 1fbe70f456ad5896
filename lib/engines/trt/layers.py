"""The layers of a plan: their types, and the precisions that they run in."""

from __future__ import annotations

import re
from typing import Any, List, Mapping

from lib.engines.quantize import group

# Fragments of the inspector's LayerType in lower case; the first line that has one counts.
# Myelin, the compiler inside newer versions, calls every convolution "correlation"; which of them
# are ours is asked by name.
LAYERS = (
    ("reformat", "reformat|noop|shuffle|cast|quantize|concat|slice|identity"),
    ("convolution", "convolution|convact|correlation|gemm"),
    ("pooling", "pool"),
    ("elementwise", "pointwise|elementwise|scale|activation|unary"),
)
# Operations in the names of Myelin's generated kernels
MOVES = {"Move", "Tran", "Cast", "Conc", "Resh", "Slic", "Pad"}
ROUNDS = {"Mul", "Min", "Max", "Roun"}  # with a cast, they are a QuantizeLinear
TYPES = (
    ("bf16|bfloat16", "bf16"),
    ("int8", "int8"),
    ("fp16|half", "fp16"),
    ("tf32", "tf32"),
    ("fp32|float", "fp32"),
)


def classify(layer: Mapping[str, Any]) -> str:
    """The type (of contract.LAYER_TYPES) of a layer as the inspector describes it."""
    kind, name = str(layer.get("LayerType", "")).lower(), str(layer.get("Name", ""))
    # Its metadata also names neighbours that are not in it
    if kind == "kgen" or name.startswith("__myl_"):
        return _classify_generated(name)
    found = next((result for result, words in LAYERS if re.search(words, kind)), "other")
    if found == "convolution" and (
        layer.get("Groups", 1) > 1 or "correlation" in map(group, _nodes(layer))
    ):
        return "correlation"
    return found


def _classify_generated(name: str) -> str:
    """The type of one of Myelin's kernels, by the operations in its name: __myl_MulAddRelu_..."""
    made = set(re.findall(r"[A-Z][a-z]+", name[len("__myl_") :].split("_")[0]))
    if made & MOVES and made <= MOVES | ROUNDS:
        return "reformat"
    return "elementwise" if made else "other"


def _nodes(layer: Mapping[str, Any]) -> List[str]:
    """Names of the ONNX nodes that a layer was made of: from its metadata, or its name where there
    is none (TensorRT 8)."""
    metadata = re.findall(r"\[ONNX Layer: ([^\]|]*?)\s*(?:\||\])", str(layer.get("Metadata", "")))
    return metadata or re.split(r" \+ |\|\|", str(layer.get("Name", "")))


def layer_precision(layer: Mapping[str, Any]) -> str:
    """What a layer computes in, by the type of what it reads: "fp32", "tf32", "fp16", "bf16",
    "int8"; "" where nothing tells."""
    tensors = layer.get("Inputs") or [{}]
    told = str(tensors[0].get("Datatype") or tensors[0].get("Format/Datatype", "")).lower()
    precision = next((name for words, name in TYPES if re.search(words, told)), "")
    tactic = str(layer.get("TacticName", "")).lower()
    return "tf32" if precision == "fp32" and "tf32" in tactic else precision
