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
import tempfile
from collections import Counter
from functools import lru_cache
from pathlib import Path
from typing import Any, Dict, List, Mapping, Optional, Union

import numpy as np

from lib.engines import plans
from lib.environment import threads
from lib.errors import InputError
from lib.siamrpn.contract import PRECISIONS, LayerTime, TensorSpec, check_feeds

TITLE = "OpenVINO"
NAMES = {"f32": "fp32", "f16": "fp16", "bf16": "bf16", "i8": "int8", "u8": "int8"}
LAYERS = {
    "Convolution": "convolution",
    "GroupConvolution": "convolution",
    "Pooling": "pooling",
    "MaxPool": "pooling",
    "Reorder": "reformat",
    "Convert": "reformat",
    "Transpose": "reformat",
    "FakeQuantize": "reformat",
    "Eltwise": "elementwise",
    "Add": "elementwise",
    "Multiply": "elementwise",
    "Relu": "elementwise",
    "Subgraph": "elementwise",
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


def missing() -> Optional[str]:
    """What is missing to run OpenVINO here, in a sentence with what to do; None where nothing
    is."""
    try:
        core()
    except InputError as error:
        return str(error)
    return None


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
    if precision not in PRECISIONS:
        raise InputError(f"unknown precision '{precision}' (there are {', '.join(PRECISIONS)})")
    if precision == "int8" and "INT8" not in capabilities:
        raise InputError("this processor has no INT8 in OpenVINO; fp32 runs everywhere")
    if precision == "fp32":
        return "f32"
    half = next(
        (name.lower().replace("fp16", "f16") for name in ("BF16", "FP16") if name in capabilities),
        None,
    )
    return half or "f32"


class OpenVINOEngine:
    """One network compiled for the processor (the `Engine` contract). Inputs are used where they
    lie, outputs stay where they are."""

    device = "CPU"

    def __init__(
        self,
        model: Path,
        network: str,
        precision: str,
        cache: Optional[Path] = None,
        refit: bool = False,
    ) -> None:
        self.network, self.precision, self.refits, self.framework = (
            network,
            precision,
            refit,
            f"{TITLE} {version()}",
        )
        if not model.is_file():
            raise InputError(f"{model}: no such ONNX file")
        self._model = model.read_bytes() if refit else b""
        self._compile(model, plans.digest_file(model), cache)

    def _compile(self, model: Union[Path, bytes], digest: str, cache: Optional[Path]) -> None:
        options = {
            "INFERENCE_PRECISION_HINT": hint(self.precision),
            "PERFORMANCE_HINT": "LATENCY",
            "NUM_STREAMS": "1",
            "INFERENCE_NUM_THREADS": str(threads()),
            "PERF_COUNT": "YES",  # costs nothing that can be measured
            "ENABLE_CPU_PINNING": "NO",  # or processes of one thread share the first core
        }
        key = {
            "model": digest,
            "precision": self.precision,
            "framework": self.framework,
            "device": str(core().get_property("CPU", "FULL_DEVICE_NAME")),
            "options": repr(sorted(options.items())),
        }

        built: List[Any] = []
        size: List[int] = []

        def build() -> bytes:
            try:
                if cache:
                    built.append(core().compile_model(core().read_model(model), "CPU", options))
                    return bytes(built[0].export_model().getvalue())
                # OpenVINO's own cache tells the size without copies in memory
                with tempfile.TemporaryDirectory() as folder:
                    built.append(
                        core().compile_model(
                            core().read_model(model), "CPU", {**options, "CACHE_DIR": folder}
                        )
                    )
                    size.append(sum(file.stat().st_size for file in Path(folder).glob("*.blob")))
                    return b""
            except RuntimeError as error:
                reason = str(error).strip().splitlines()[-1]
                raise InputError(
                    f"OpenVINO cannot compile the {self.network} network ({reason})"
                ) from None

        def load(plan: bytes) -> Any:
            return built[0] if built else core().import_model(io.BytesIO(plan), "CPU", options)

        self._compiled, plan = plans.load_or_build(
            cache, f"{self.network}-{self.precision}-openvino", key, build, load
        )
        self._request = self._compiled.create_infer_request()
        self.build_seconds, self.plan_bytes = plan.build_seconds, len(plan.data) or size[0]
        self.inputs = {
            port.get_any_name(): TensorSpec(tuple(port.shape), "float32")
            for port in self._compiled.inputs
        }
        self.outputs = {
            port.get_any_name(): TensorSpec(tuple(port.shape), "float32")
            for port in self._compiled.outputs
        }
        # The arrays that the inputs are read from, where they lie; None for a copy
        self._read: Dict[str, Any] = {}
        self._results = {name: self._request.get_tensor(name).data for name in self.outputs}

    def __call__(self, feeds: Mapping[str, Any]) -> Dict[str, np.ndarray]:
        check_feeds(self.inputs, feeds, self.network)
        changed = {
            name: array for name, array in feeds.items() if array is not self._read.get(name)
        }
        self._read.update(dict.fromkeys(changed))
        self._request.infer(changed, share_inputs=True, share_outputs=True)
        for name, array in changed.items():
            if array.dtype == np.float32 and array.flags.carray:  # of others OpenVINO has a copy
                self._read[name] = array
        return self._results

    def numpy(self, tensor: np.ndarray) -> np.ndarray:
        return tensor.copy()

    def keep(self, tensors: Mapping[str, np.ndarray]) -> Dict[str, np.ndarray]:
        return {name: tensor.copy() for name, tensor in tensors.items()}

    def refit(self, kernels: Mapping[str, Any]) -> None:
        """OpenVINO has no refitting: the model with the kernels as constants is compiled again."""
        import onnx

        from lib.engines.export import set_initializers

        self._model = set_initializers(
            onnx.load_from_string(self._model), kernels
        ).SerializeToString()
        self._compile(self._model, "", None)  # a plan for one target is of no use to another

    def executed(self) -> Dict[str, int]:
        counts: Counter = Counter()
        for operation in self._compiled.get_runtime_model().get_ops():
            info = operation.get_rt_info()
            if LAYERS.get(str(info["layerType"].astype(str))) == "convolution":
                counts[NAMES.get(str(info["runtimePrecision"].astype(str)), "other")] += 1
        return dict(counts)

    def profile(self, feeds: Mapping[str, Any], calls: int) -> List[LayerTime]:
        self(feeds)
        seconds: Counter = Counter()
        for _ in range(calls):
            self(feeds)
            for layer in self._request.profiling_info:
                seconds[layer.node_name] += layer.real_time.total_seconds() / calls
        correlations = self._correlations()
        layers = []
        for layer in self._request.profiling_info:
            if layer.node_type in UNTIMED and not seconds[layer.node_name]:
                continue
            kind = (
                "correlation"
                if layer.node_name in correlations
                else LAYERS.get(layer.node_type, "other")
            )
            executed = NAMES.get(
                layer.exec_type.rsplit("_", 1)[-1].lower().replace("fp32", "f32"), ""
            )
            layers.append(LayerTime(layer.node_name, kind, executed, seconds[layer.node_name]))
        return layers

    def _correlations(self) -> List[str]:
        """The xcorr network's grouped convolutions: OpenVINO gives their weights five dimensions,
        with the groups in front."""
        operations = self._compiled.get_runtime_model().get_ops() if self.network == "xcorr" else []
        return [
            operation.get_friendly_name()
            for operation in operations
            if LAYERS.get(str(operation.get_rt_info()["layerType"].astype(str))) == "convolution"
            and operation.get_input_size() > 1
            and len(operation.input(1).get_partial_shape()) == 5
        ]


def build(
    model: Path, network: str, precision: str, cache: Optional[Path] = None, refit: bool = False
) -> OpenVINOEngine:
    """An engine of an ONNX file; cache: folder for plans. Raises InputError for what OpenVINO or
    the processor cannot do."""
    return OpenVINOEngine(model, network, precision, cache, refit)
