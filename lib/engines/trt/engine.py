"""Running a plan on the GPU."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any, Dict, List, Mapping, Optional

import numpy as np
import torch
from torch import Tensor

from lib.engines import plans
from lib.engines.export import need_onnx
from lib.engines.pytorch import device_name
from lib.engines.trt.installed import checked, flavour, gpu, log
from lib.engines.trt.layers import classify, layer_precision
from lib.engines.trt.plan import build_plan, refittable
from lib.errors import InputError
from lib.files import digest
from lib.siamrpn.contract import LayerTime, Shape, check_feeds
from lib.siamrpn.parts import KERNELS

if TYPE_CHECKING:
    import tensorrt as trt
else:
    from lib.engines.trt.installed import trt


class TensorRTEngine:
    """One network compiled for the GPU (the `Engine` contract). Its memory is PyTorch's: outputs are
    tensors on the GPU, which other engines read there.

    model: an ONNX file's bytes. cache: folder for plans. refit: the xcorr network's kernels are
    inside instead of inputs, as they always are before TensorRT 10. Raises InputError for what
    TensorRT or the GPU cannot do.
    """

    def __init__(
        self,
        model: bytes,
        network: str,
        precision: str,
        cache: Optional[Path] = None,
        refit: bool = False,
    ) -> None:
        self._on, self._stream = gpu()
        self.network, self.precision, self.framework = network, precision, flavour().name
        self.device = device_name(self._on)
        # Before TensorRT 10, kernels cannot be inputs
        self.refits = network == "xcorr" and (refit or not flavour().typed)
        kernels: Dict[str, np.ndarray] = {}
        if self.refits:
            proto, kernels = refittable(need_onnx().load_from_string(model))
            model = proto.SerializeToString()
        key = {
            "model": digest(model),
            "precision": precision,
            "framework": self.framework,
            "device": self.device,
            "options": f"refit {self.refits}",
        }
        self._engine, self.build_seconds, self.plan_bytes = plans.load_or_build(
            cache,
            f"{network}-{precision}-tensorrt",
            key,
            lambda: build_plan(model, precision, self.refits),
            self._load,
        )
        self.inputs = self._shapes(trt.TensorIOMode.INPUT)
        self.outputs = self._shapes(trt.TensorIOMode.OUTPUT)
        with torch.cuda.stream(self._stream):
            self._results = {
                name: torch.empty(shape, device=self._on) for name, shape in self.outputs.items()
            }
        self._context = self._new_context()
        if kernels:
            self.refit(kernels)

    def _load(self, plan: bytes) -> trt.ICudaEngine:
        self._runtime = trt.Runtime(log())  # must outlive the engine
        return checked(self._runtime.deserialize_cuda_engine(plan), "cannot load the plan")

    def _shapes(self, mode: trt.TensorIOMode) -> Dict[str, Shape]:
        engine = self._engine
        names = [engine.get_tensor_name(index) for index in range(engine.num_io_tensors)]
        found = {name: engine.get_tensor_shape(name) for name in names}
        return {
            name: tuple(dims[axis] for axis in range(len(dims)))
            for name, dims in found.items()
            if engine.get_tensor_mode(name) == mode
        }

    def _new_context(self) -> trt.IExecutionContext:
        return checked(self._engine.create_execution_context(), "cannot make room for a run")

    def __call__(self, feeds: Mapping[str, Any]) -> Dict[str, Tensor]:
        self._run(self._context, feeds)
        return dict(self._results)

    def _run(self, context: trt.IExecutionContext, feeds: Mapping[str, Any]) -> None:
        check_feeds(self.inputs, feeds, self.network)
        with torch.cuda.stream(self._stream):
            given = {  # outputs of other engines are used where they are
                name: torch.as_tensor(
                    feeds[name], dtype=torch.float32, device=self._on
                ).contiguous()
                for name in self.inputs
            }
            for name, tensor in {**given, **self._results}.items():
                taken = context.set_tensor_address(name, tensor.data_ptr())
                checked(taken, f"does not take the address of '{name}'")
            done = context.execute_async_v3(self._stream.cuda_stream)
        checked(done, f"cannot run the {self.network} network")

    def numpy(self, tensor: Tensor) -> np.ndarray:
        with torch.cuda.stream(self._stream):
            return tensor.cpu().numpy()

    def keep(self, tensors: Mapping[str, Tensor]) -> Dict[str, Tensor]:
        with torch.cuda.stream(self._stream):
            return {name: tensor.clone() for name, tensor in tensors.items()}

    def refit(self, kernels: Mapping[str, Any]) -> None:
        if not self.refits:
            raise InputError("this engine takes kernels as inputs and cannot be refitted")
        refitter, fresh = trt.Refitter(self._engine, log()), {}
        dtype = np.float16 if self.precision == "fp16" else np.float32  # as the model has them
        for name in KERNELS:
            value = kernels[name]
            array = self.numpy(value) if isinstance(value, Tensor) else value
            fresh[name] = np.ascontiguousarray(array, dtype)  # must live until the refitter is done
            taken = refitter.set_named_weights(name, trt.Weights(fresh[name]))
            checked(taken, f"does not take the kernel '{name}'")
        self._stream.synchronize()  # nothing may run while weights change
        checked(refitter.refit_cuda_engine(), "cannot refit the xcorr network")
        if not flavour().typed:  # contexts do not survive a refit before TensorRT 10
            self._context = self._new_context()

    def _layers(self) -> List[Mapping[str, Any]]:
        inspector = self._engine.create_engine_inspector()
        told = json.loads(inspector.get_engine_information(trt.LayerInformationFormat.JSON))
        return [layer if isinstance(layer, dict) else {"Name": layer} for layer in told["Layers"]]

    def executed(self) -> Dict[str, int]:
        counted = Counter(
            layer_precision(layer)
            for layer in self._layers()
            if classify(layer) in ("convolution", "correlation")
        )
        return dict(counted)

    def profile(self, feeds: Mapping[str, Any], calls: int) -> List[LayerTime]:
        seconds: Dict[str, float] = {}

        class Profiler(trt.IProfiler):
            def __init__(self) -> None:
                trt.IProfiler.__init__(self)

            def report_layer_time(self, layer_name: str, ms: float) -> None:
                seconds[layer_name] = seconds.get(layer_name, 0.0) + ms * 1e-3 / calls

        # The context that tracks stays without a profiler
        context, profiler = self._new_context(), Profiler()
        self._run(context, feeds)
        self._stream.synchronize()
        context.profiler = profiler
        for _ in range(calls):
            self._run(context, feeds)
            self._stream.synchronize()
        layers = {layer["Name"]: layer for layer in self._layers()}
        return [
            LayerTime(name, classify(layer), layer_precision(layer), spent)
            for name, spent in seconds.items()
            for layer in [layers.get(name, {"Name": name})]
        ]


build = TensorRTEngine  # what every module that compiles calls its engine
