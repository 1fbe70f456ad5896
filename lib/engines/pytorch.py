"""The baseline of thesis section 4.1: PyTorch in eager mode, in FP32, and in 16 bits for
comparison."""

from __future__ import annotations

import copy
import os
import time
from typing import Any, Dict, List, Mapping, Tuple

import numpy as np
import torch
from torch import Tensor, nn

from lib.errors import InputError
from lib.siamrpn.contract import EngineNetwork, LayerTime, check_feeds
from lib.siamrpn.network import SiamRPN
from lib.siamrpn.parts import BRANCHES, OUTPUTS, example_inputs, three_networks

TITLE = "PyTorch"
# Operators of PyTorch's profiler as layer types; the convolution with the target's kernels is
# told apart by its weights' shape.
ELEMENTWISE = ("batch_norm", "relu_", "relu", "add", "add_", "mul", "softmax")
LAYERS = {
    "aten::conv2d": "convolution",
    "aten::max_pool2d": "pooling",
    **{f"aten::{name}": "elementwise" for name in ELEMENTWISE},
    **{f"aten::{name}": "reformat" for name in ("to", "copy_", "contiguous")},
}


def need() -> None:
    """Nothing: PyTorch is a dependency of everything here."""


def version() -> str:
    """PyTorch's version, e.g. "2.13.0"."""
    return str(torch.__version__).split("+")[0]


def usable_device(name: str) -> torch.device:
    """A device by name ("cpu", "cuda", "cuda:1"); one that is not here raises InputError."""
    try:
        tensor = torch.zeros(1, device=name)
        tensor.cpu()  # "meta" computes nothing
        return tensor.device
    except Exception:  # each device's library has faults of its own, some a page long
        gpu = ", cuda" if torch.cuda.is_available() else ""
        raise InputError(f"device {name!r} cannot be used here (there are: cpu{gpu})") from None


class TorchEngine:
    """One network in PyTorch's eager mode (the `Engine` contract); tensors stay on the device
    between engines.

    precision: "fp32", or "fp16", which is half precision on a GPU and bfloat16 on a processor,
    where half is slow. Weights and inputs are cast, outputs stay in 16 bits. There is no INT8 in
    eager mode.
    """

    refits = False
    plan_bytes = 0

    def __init__(
        self,
        module: nn.Module,
        network: str,
        channels: int,
        device: str = "cpu",
        precision: str = "fp32",
    ) -> None:
        begin = time.perf_counter()
        # FP32 means FP32: newer GPUs would round convolutions to TF32
        torch.backends.cudnn.allow_tf32 = False
        self.on = usable_device(device)
        half = torch.float16 if self.on.type == "cuda" else torch.bfloat16
        self.type = torch.float32 if precision == "fp32" else half
        names = {torch.float32: "fp32", torch.float16: "fp16", torch.bfloat16: "bf16"}
        self._executed = names[self.type]
        # A cast changes a module, and the three share weights
        own = module if precision == "fp32" else copy.deepcopy(module)
        self.module = own.eval().to(self.on, self.type)
        self.network, self.precision, self.framework = network, precision, f"{TITLE} {version()}"
        self.device = torch.cuda.get_device_name(self.on) if self.on.type == "cuda" else "CPU"
        examples = example_inputs(network, channels)
        self.inputs = {name: tuple(value.shape) for name, value in examples.items()}
        with torch.inference_mode():
            outputs = self.module(*(value.to(self.on, self.type) for value in examples.values()))
        self.outputs = {name: tuple(value.shape) for name, value in zip(OUTPUTS[network], outputs)}
        self.build_seconds = time.perf_counter() - begin

    @torch.inference_mode()
    def __call__(self, feeds: Mapping[str, Any]) -> Dict[str, Tensor]:
        check_feeds(self.inputs, feeds, self.network)
        tensors = (torch.as_tensor(feeds[name]).to(self.on, self.type) for name in self.inputs)
        return dict(zip(self.outputs, self.module(*tensors)))

    def numpy(self, tensor: Tensor) -> np.ndarray:
        return tensor.float().cpu().numpy()

    def keep(self, tensors: Mapping[str, Tensor]) -> Dict[str, Tensor]:
        return dict(tensors)  # every call returns new tensors

    def refit(self, kernels: Mapping[str, Any]) -> None:
        raise InputError("PyTorch takes kernels as inputs and cannot be refitted")

    def executed(self) -> Dict[str, int]:
        convolutions = sum(isinstance(module, nn.Conv2d) for module in self.module.modules())
        return {self._executed: convolutions + (len(BRANCHES) if self.network == "xcorr" else 0)}

    def profile(self, feeds: Mapping[str, Any], calls: int) -> List[LayerTime]:
        os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # or it tells standard error what it does
        from torch.profiler import ProfilerActivity, profile

        self(feeds)
        gpu = self.on.type == "cuda"
        activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if gpu else [])]
        with profile(activities=activities, record_shapes=True) as record:
            for _ in range(calls):
                self(feeds)
        spent: Dict[Tuple[str, str], float] = {}
        for event in record.events():
            # What another operator calls is part of that operator's time
            if event.name in LAYERS and event.cpu_parent is None:
                layer = f"{event.name} {event.input_shapes}", self._kind(event)
                time_us = event.device_time_total if gpu else event.cpu_time_total
                spent[layer] = spent.get(layer, 0.0) + time_us * 1e-6 / calls
        return [
            LayerTime(name, kind, self._executed, seconds)
            for (name, kind), seconds in spent.items()
        ]

    def _kind(self, event: Any) -> str:
        """The type of an operator of LAYERS. A correlation is an xcorr convolution whose weights
        have one input channel."""
        convolution = self.network == "xcorr" and event.name == "aten::conv2d"
        weight = event.input_shapes[1] if convolution else []
        return "correlation" if weight[1:2] == [1] else LAYERS[event.name]


def torch_network(network: SiamRPN, device: str = "cpu") -> EngineNetwork:
    """A SiamRPN++ as the tracker's network in PyTorch FP32."""
    engines = {
        name: TorchEngine(module, name, network.config.rpn, device)
        for name, module in three_networks(network).items()
    }
    return EngineNetwork(engines)
