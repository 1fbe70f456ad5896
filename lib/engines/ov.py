"""OpenVINO: the compiled engine of machines without an NVIDIA GPU (the thesis's section 4.2 on a
processor).

FP16 runs as bfloat16 or half precision, whichever the processor multiplies in hardware; on a
processor with neither, its 16-bit weights are multiplied in FP32. INT8 runs the integers that the
model's QDQ nodes ask for, and what the model keeps in floating point in 16 bits where the processor
has them. `executed` tells what ran. Engines use as many threads as PyTorch does, so that one
setting (`torch.set_num_threads`, OMP_NUM_THREADS) holds for every framework.
"""

from __future__ import annotations

import io
from collections import Counter
from functools import lru_cache
from pathlib import Path
from typing import Any, Dict, List, Mapping, Optional

import numpy as np

from lib.engines import plans
from lib.engines.export import need_onnx, with_constant_kernels
from lib.engines.quantize import group
from lib.environment import threads
from lib.errors import InputError
from lib.files import digest
from lib.siamrpn.contract import LayerTime, check_feeds

TITLE = "OpenVINO"
NAMES = {"f32": "fp32", "f16": "fp16", "bf16": "bf16", "i8": "int8", "u8": "int8"}
LAYERS = {
    **dict.fromkeys(("Convolution", "GroupConvolution"), "convolution"),
    **dict.fromkeys(("Pooling", "MaxPool"), "pooling"),
    **dict.fromkeys(("Reorder", "Convert", "Transpose", "FakeQuantize"), "reformat"),
    **dict.fromkeys(("Eltwise", "Add", "Multiply", "Relu", "Subgraph"), "elementwise"),
}
UNTIMED = ("Input", "Parameter", "Output", "Result", "Const", "Constant")  # no work of their own


@lru_cache(maxsize=1)
def core() -> Any:
    """OpenVINO's Core; InputError where the package is missing."""
    try:
        import openvino
    except ImportError:
        raise InputError(
            "the framework OpenVINO is not installed: pip install -e '.[engines]'"
        ) from None
    return openvino.Core()


def version() -> str:
    """OpenVINO's version, e.g. "2026.4.1"."""
    core()
    import openvino

    return str(openvino.__version__).split("-")[0]


def hint(precision: str) -> str:
    """What OpenVINO is asked to compute in: "f32", "bf16" or "f16". Raises InputError for INT8
    where the processor lacks it.

    bf16 comes first: where a processor has both, its matrix units work on bf16. FP16 becomes "f32"
    where it has neither.
    """
    capabilities = core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    if precision == "int8" and "INT8" not in capabilities:
        raise InputError("this processor has no INT8 in OpenVINO; fp32 runs everywhere")
    if precision != "fp32" and "BF16" in capabilities:
        return "bf16"
    return "f16" if precision != "fp32" and "FP16" in capabilities else "f32"


class OpenVINOEngine:
    """One network compiled for the processor (the `Engine` contract). Inputs are used where they
    lie, outputs stay where they are.

    model: an ONNX file's bytes. cache: folder for plans. refit: kernels are inside. Raises
    InputError for what OpenVINO or the processor cannot do.
    """

    device = "CPU"

    def __init__(
        self,
        model: bytes,
        network: str,
        precision: str,
        cache: Optional[Path] = None,
        refit: bool = False,
    ) -> None:
        self.network, self.precision, self.refits = network, precision, refit
        self.framework = f"{TITLE} {version()}"
        self._model = model if refit else b""
        self._compile(model, cache)

    def _compile(self, model: bytes, cache: Optional[Path]) -> None:
        wanted = hint(self.precision)
        try:
            self._compile_in(wanted, model, cache)
        except InputError:
            if wanted == "f32":
                raise
            # Without matrix units, bf16 has no kernel for correlations with a scale per channel
            self._compile_in("f32", model, cache)

    def _compile_in(self, numbers: str, model: bytes, cache: Optional[Path]) -> None:
        options = {
            "INFERENCE_PRECISION_HINT": numbers,
            "PERFORMANCE_HINT": "LATENCY",
            "NUM_STREAMS": "1",
            "INFERENCE_NUM_THREADS": str(threads()),
            "PERF_COUNT": "YES",  # costs nothing that can be measured
            "ENABLE_CPU_PINNING": "NO",  # or processes of one thread share the first core
        }
        key = {
            "model": digest(model),
            "precision": self.precision,
            "framework": self.framework,
            "device": str(core().get_property("CPU", "FULL_DEVICE_NAME")),
            "options": repr(sorted(options.items())),
        }
        built: List[Any] = []

        def compile_model() -> bytes:
            try:
                built.append(core().compile_model(core().read_model(model), "CPU", options))
            except RuntimeError as error:
                reason = str(error).strip().splitlines()[-1]
                raise InputError(
                    f"OpenVINO cannot compile the {self.network} network ({reason})"
                ) from None
            return bytes(built[0].export_model().getvalue())

        def load(plan: bytes) -> Any:
            return built[0] if built else core().import_model(io.BytesIO(plan), "CPU", options)

        name = f"{self.network}-{self.precision}-openvino"
        self._compiled, self.build_seconds, self.plan_bytes = plans.load_or_build(
            cache, name, key, compile_model, load
        )
        self._request = self._compiled.create_infer_request()
        self.inputs, self.outputs = (
            {port.get_any_name(): tuple(port.shape) for port in ports}
            for ports in (self._compiled.inputs, self._compiled.outputs)
        )
        # The arrays that inputs are read from, where they lie: setting twelve costs a quarter of a ms
        self._read: Dict[str, Any] = {}
        self._results = {name: self._request.get_tensor(name).data for name in self.outputs}

    def __call__(self, feeds: Mapping[str, Any]) -> Dict[str, np.ndarray]:
        check_feeds(self.inputs, feeds, self.network)
        read = self._read
        changed = {name: array for name, array in feeds.items() if array is not read.get(name)}
        self._request.infer(changed, share_inputs=True, share_outputs=True)
        for name, array in changed.items():  # of arrays of another layout OpenVINO has a copy
            shared = array.dtype == np.float32 and array.flags.carray
            read[name] = array if shared else None
        return self._results

    def numpy(self, tensor: np.ndarray) -> np.ndarray:
        return tensor.copy()

    def keep(self, tensors: Mapping[str, np.ndarray]) -> Dict[str, np.ndarray]:
        return {name: tensor.copy() for name, tensor in tensors.items()}

    def refit(self, kernels: Mapping[str, Any]) -> None:
        """OpenVINO has no refitting: the model with the kernels as constants is compiled again."""
        model = with_constant_kernels(need_onnx().load_from_string(self._model), kernels)
        self._compile(model.SerializeToString(), None)  # of no use to another target

    def executed(self) -> Dict[str, int]:
        counts: Counter = Counter()
        for operation in self._compiled.get_runtime_model().get_ops():
            about = operation.get_rt_info()
            if LAYERS.get(str(about["layerType"].astype(str))) == "convolution":
                counts[NAMES.get(str(about["runtimePrecision"].astype(str)), "other")] += 1
        return dict(counts)

    def profile(self, feeds: Mapping[str, Any], calls: int) -> List[LayerTime]:
        self(feeds)
        seconds: Counter = Counter()
        for _ in range(calls):
            self(feeds)
            for layer in self._request.profiling_info:
                seconds[layer.node_name] += layer.real_time.total_seconds() / calls
        layers = []
        for layer in self._request.profiling_info:
            name, kind = layer.node_name, LAYERS.get(layer.node_type, "other")
            if kind == "convolution" and group(name) == "correlation":
                kind = "correlation"
            executed = layer.exec_type.rsplit("_", 1)[-1].lower().replace("fp32", "f32")
            if layer.node_type not in UNTIMED or seconds[name]:
                layers.append(LayerTime(name, kind, NAMES.get(executed, ""), seconds[name]))
        return layers


need, build = core, OpenVINOEngine  # by the names that `contract.Engine` gives
