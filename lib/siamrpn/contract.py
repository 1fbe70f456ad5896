"""The contracts between the tracker and whatever executes its networks (thesis figure 3.9).

An `Engine` is one of the three networks, ready to run; `EngineNetwork` is the three together, as
the tracker calls them. Engines are called with named tensors and answer
with named tensors. A tensor is a NumPy array, or something of the framework's own (a buffer on a
GPU) that another engine of the same framework takes as it is, so that the search network's maps
reach the xcorr network without a copy.
"""

from __future__ import annotations

from collections import Counter
from typing import Any, Dict, Iterable, List, Mapping, NamedTuple, Optional, Protocol, Tuple

import numpy as np

from lib.errors import InputError

PRECISIONS = ("fp32", "fp16", "int8")
# What layers are called on every framework (figures 4.2 to 4.4). correlation: the depthwise
# convolution with the target's kernels; elementwise: activations, sums, normalisation; reformat:
# conversions of precision and layout, copies inside an engine.
LAYER_TYPES = ("convolution", "correlation", "pooling", "elementwise", "reformat", "other")

Shape = Tuple[int, ...]


class LayerTime(NamedTuple):
    """Mean time of one layer in one call. type: of LAYER_TYPES. precision: as executed, "fp32",
    "bf16", "int8", "" where unknown."""

    name: str
    type: str
    precision: str
    seconds: float


class Engine(Protocol):
    """One network, ready to run. A module of lib/engines that compiles has `build(bytes of an ONNX
    model, network, precision, folder for plans, refit)`, `version()`, and `need()`, which raises
    InputError where the framework cannot run here; PyTorch's engine is made from the module."""

    network: str  # "target", "search" or "xcorr"
    framework: str  # "OpenVINO 2026.4.1"
    device: str  # "CPU", or the GPU's name
    precision: str  # as asked for: of PRECISIONS
    inputs: Dict[str, Shape]  # arrays are float32
    outputs: Dict[str, Shape]
    build_seconds: float  # what building took, also where the plan then came from the cache
    plan_bytes: int  # size of the serialised engine; 0 where the framework has none
    # True: kernels are constants inside, changed by `refit`; False: they are inputs
    refits: bool

    def __call__(self, feeds: Mapping[str, Any]) -> Dict[str, Any]:
        """Run. feeds: every input by name, arrays of the shapes in `inputs` or tensors of an engine
        of the same framework.

        Returns every output by name; they are valid until the next call. Raises InputError for a
        missing, unknown or misshapen input.
        """

    def numpy(self, tensor: Any) -> np.ndarray:
        """A tensor that this engine returned as a float32 array that stays."""

    def keep(self, tensors: Mapping[str, Any]) -> Dict[str, Any]:
        """Copies of outputs that stay valid after the next call, where the framework keeps
        tensors."""

    def refit(self, kernels: Mapping[str, Any]) -> None:
        """Replace the correlation kernels inside (only where `refits`)."""

    def executed(self) -> Dict[str, int]:
        """Number of convolutions and correlations by the precision that they run in, e.g. {"int8":
        12, "bf16": 6}: what runs, and not what was asked for."""

    def profile(self, feeds: Mapping[str, Any], calls: int) -> List[LayerTime]:
        """Mean time of each layer over `calls` calls, by the framework's own profiler."""


class EngineNetwork:
    """Three engines as the tracker calls them, on NumPy arrays. The search and xcorr engines are of
    one framework; kernels stay on whatever device it uses."""

    def __init__(self, engines: Mapping[str, Engine]) -> None:
        self.engines = dict(engines)
        self.target, self.search = engines["target"], engines["search"]
        self.xcorr = engines["xcorr"]
        precisions = [engine.precision.upper() for engine in (self.target, self.search, self.xcorr)]
        mixed = "/".join(precisions if len(set(precisions)) > 1 else precisions[:1])
        self.name = f"{self.search.framework} {mixed} ({self.search.device})"
        # The kernels inside a refitted xcorr engine
        self._fitted: Optional[Mapping[str, Any]] = None

    def template(self, exemplar: np.ndarray) -> Dict[str, Any]:
        """Exemplar crop (1, 3, 127, 127) float32, BGR 0..255, to the six correlation kernels."""
        outputs = self.target({"exemplar": exemplar})
        if self.target.framework == self.xcorr.framework:
            kernels = self.target.keep(outputs)
        else:
            kernels = {name: self.target.numpy(kernel) for name, kernel in outputs.items()}
        self._fit(kernels)
        return kernels

    def track(
        self, kernels: Mapping[str, Any], search: np.ndarray
    ) -> Tuple[np.ndarray, np.ndarray]:
        """Search crop (1, 3, 255, 255) float32 to scores (1, 10, 25, 25) and box offsets (1, 20,
        25, 25), both float32."""
        self._fit(kernels)
        maps = self.search({"search": search})
        outputs = self.xcorr(maps if self.xcorr.refits else {**kernels, **maps})
        return self.xcorr.numpy(outputs["cls"]), self.xcorr.numpy(outputs["loc"])

    def _fit(self, kernels: Mapping[str, Any]) -> None:
        """Kernels that the xcorr engine has inside change when the target does, not at every
        frame."""
        if self.xcorr.refits and self._fitted is not kernels:
            self.xcorr.refit(kernels)
            self._fitted = kernels


def describe_executed(layers: Mapping[str, int]) -> str:
    """ "12 INT8, 6 BF16": convolutions by the precision they run in, most first."""
    return ", ".join(
        f"{count} {name.upper() or 'unknown'}" for name, count in Counter(layers).most_common()
    )


def by_type(layers: Iterable[LayerTime]) -> Dict[str, float]:
    """Seconds of every layer type, in the order of LAYER_TYPES."""
    times = dict.fromkeys(LAYER_TYPES, 0.0)
    for layer in layers:
        times[layer.type] += layer.seconds
    return times


def check_feeds(inputs: Mapping[str, Shape], feeds: Mapping[str, Any], network: str) -> None:
    """Raises InputError where a feed is missing, unknown or of another shape than the network's
    input."""
    given = {name: tuple(value.shape) for name, value in feeds.items()}
    for name in {**inputs, **given} if given != inputs else ():
        if given.get(name) != inputs.get(name):
            raise InputError(
                f"the {network} network takes '{name}' of shape {inputs.get(name)}, not {given.get(name)}"
            )
