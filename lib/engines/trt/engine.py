"""Running a plan on the GPU."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any, Dict, List, Mapping, Optional

import numpy as np

from lib.engines import cuda, plans
from lib.engines.export import need_onnx
from lib.engines.trt.installed import checked, flavour, log
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


class DeviceTensor:
    """A float32 tensor on the GPU, and the pinned array that it is filled from and read through."""

    def __init__(self, device: cuda.Device, shape: Shape) -> None:
        self.shape, self._device = shape, device
        self._pinned = device.pinned(shape)
        self._memory = device.allocate(self._pinned.nbytes)
        self.pointer = self._memory.pointer

    def send(self, values: np.ndarray) -> None:
        """Put values on their way to the device."""
        self._device.synchronize()  # the pinned array may still be read for the call before
        np.copyto(self._pinned, values, casting="same_kind")
        self._device.upload(self.pointer, self._pinned)

    def numpy(self) -> np.ndarray:
        """The values, when everything before is done."""
        self._device.download(self._pinned, self.pointer)
        self._device.synchronize()
        return self._pinned.copy()

    def copy(self) -> DeviceTensor:
        """A copy on the device."""
        other = DeviceTensor(self._device, self.shape)
        self._device.copy(other.pointer, self.pointer, self._pinned.nbytes)
        return other


class TensorRTEngine:
    """One network compiled for the GPU (the `Engine` contract). Outputs stay there as
    `DeviceTensor`s for other engines.

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
        self._gpu = cuda.gpu()
        self.network, self.precision = network, precision
        self.framework, self.device = flavour().name, self._gpu.name
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
            "device": "{} {}.{}".format(self.device, *self._gpu.compute_capability),
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
        self._given, self._results = (
            {name: DeviceTensor(self._gpu, shape) for name, shape in shapes.items()}
            for shapes in (self.inputs, self.outputs)
        )
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

    def __call__(self, feeds: Mapping[str, Any]) -> Dict[str, DeviceTensor]:
        check_feeds(self.inputs, feeds, self.network)
        self._run(self._context, {name: self._on_device(name, feeds[name]) for name in self.inputs})
        return dict(self._results)

    def _on_device(self, name: str, value: Any) -> DeviceTensor:
        """An input where the GPU reads it: another engine's output is used where it lies."""
        if isinstance(value, DeviceTensor):
            return value
        self._given[name].send(np.asarray(value))
        return self._given[name]

    def _run(self, context: trt.IExecutionContext, given: Mapping[str, DeviceTensor]) -> None:
        for name, tensor in {**given, **self._results}.items():
            taken = context.set_tensor_address(name, tensor.pointer)
            checked(taken, f"does not take the address of '{name}'")
        done = context.execute_async_v3(self._gpu.stream)
        checked(done, f"cannot run the {self.network} network")

    def numpy(self, tensor: DeviceTensor) -> np.ndarray:
        return tensor.numpy()

    def keep(self, tensors: Mapping[str, DeviceTensor]) -> Dict[str, DeviceTensor]:
        return {name: tensor.copy() for name, tensor in tensors.items()}

    def refit(self, kernels: Mapping[str, Any]) -> None:
        if not self.refits:
            raise InputError("this engine takes kernels as inputs and cannot be refitted")
        refitter, fresh = trt.Refitter(self._engine, log()), {}
        dtype = np.float16 if self.precision == "fp16" else np.float32  # as the model has them
        for name in KERNELS:
            value = kernels[name]
            array = value.numpy() if isinstance(value, DeviceTensor) else value
            fresh[name] = np.ascontiguousarray(array, dtype)  # must live until the refitter is done
            taken = refitter.set_named_weights(name, trt.Weights(fresh[name]))
            checked(taken, f"does not take the kernel '{name}'")
        self._gpu.synchronize()  # nothing may run while weights change
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

        check_feeds(self.inputs, feeds, self.network)
        given = {name: self._on_device(name, feeds[name]) for name in self.inputs}
        # The context that tracks stays without a profiler
        context, profiler = self._new_context(), Profiler()
        self._run(context, given)
        self._gpu.synchronize()
        context.profiler = profiler
        for _ in range(calls):
            self._run(context, given)
            self._gpu.synchronize()
        layers = {layer["Name"]: layer for layer in self._layers()}
        return [
            LayerTime(name, classify(layer), layer_precision(layer), spent)
            for name, spent in seconds.items()
            for layer in [layers.get(name, {"Name": name})]
        ]


build = TensorRTEngine  # what every module that compiles calls its engine
