"""From weights to engines: export, quantise, compile, each once, shared by all mixtures of
precisions (thesis figure 3.9, section 4.2).

A `Deployment` is one tracker's weights on one framework and device. Its nine engines (three
networks at three precisions) are made when they are asked for; the 27 mixtures of section 4.2.1 are
put together from them.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Dict, List, Optional, Tuple

from lib.engines.calibration import METHOD, Ranges
from lib.engines.export import export_network, need_onnx, save_model, to_fp16, with_constant_kernels
from lib.engines.quantize import GROUPS, METHODS, XCORR_KEPT, to_int8
from lib.errors import InputError
from lib.files import ROOT
from lib.siamrpn.contract import Engine, EngineNetwork
from lib.siamrpn.network import SiamRPN, parameter_count
from lib.siamrpn.parts import three_networks

if TYPE_CHECKING:
    import onnx

LARGE = 10e6  # parameters; freeing memory late is harmless for smaller networks
CACHE = ROOT / "data" / "cache" / "plans"
# glibc's M_MMAP_MAX and M_TRIM_THRESHOLD: while memory is kept, and glibc's defaults
MALLOPT = {-4: (0, 2**16), -1: (2**31 - 1, 2**17)}


@dataclass(frozen=True)
class Framework:
    """How a framework is called, the module of lib/ that runs it, and the precisions it has
    here. device: the only one that it runs on; empty for any."""

    title: str
    module: str
    precisions: Tuple[str, ...]
    device: str = ""


FRAMEWORKS: Dict[str, Framework] = {
    "pytorch": Framework("PyTorch", "lib.engines.pytorch", ("fp32", "fp16")),
    "openvino": Framework("OpenVINO", "lib.engines.ov", ("fp32", "fp16", "int8"), "cpu"),
    "tensorrt": Framework("TensorRT", "lib.engines.trt", ("fp32", "fp16", "int8"), "cuda"),
}


@dataclass(frozen=True)
class Recipe:
    """How an INT8 xcorr network is made. kept: the kinds of nodes (`quantize.kind`) in floating
    point. feeds: of calibration.XCORR_FEEDS. fixed: whether kernels have the scales, channel by
    channel, of those that the calibration saw first, as weights have in an engine that is refitted
    later."""

    kept: Tuple[str, ...]
    feeds: str = "own"
    fixed: bool = False


RECIPES: Dict[str, Recipe] = {
    "standard": Recipe(XCORR_KEPT),
    "last-kept": Recipe((*XCORR_KEPT, "last")),
    "everything": Recipe(()),
    "one-target": Recipe((), "one-target", fixed=True),
    "stand-in": Recipe((), "stand-in", fixed=True),
    "stand-in-standard": Recipe(XCORR_KEPT, "stand-in"),
    "misbound": Recipe((), "misbound"),
}
CALIBRATIONS = ("training", "benchmark")


@dataclass(frozen=True)
class Quantisation:
    """How INT8 engines come about. calibration: "training" (ranges kept beside the weights) or
    "benchmark" (the thesis's way, from the sequences that are tested). method: of quantize.METHODS.
    recipe: of RECIPES. kept: groups of layers (quantize.GROUPS) that stay in floating point besides
    what the recipe keeps."""

    calibration: str = "training"
    method: str = METHOD
    recipe: str = "standard"
    kept: Tuple[str, ...] = ()

    def __post_init__(self) -> None:
        asked: List[Tuple[str, Collection[str]]] = [(group, GROUPS) for group in self.kept]
        asked += (self.calibration, CALIBRATIONS), (self.method, METHODS), (self.recipe, RECIPES)
        for name, known in asked:
            if name not in known:
                raise InputError(f"quantisation: unknown '{name}' (there are {', '.join(known)})")


USUAL = Quantisation()


def framework_module(name: str) -> Any:
    """The module of lib/engines that runs a framework. Raises InputError for an unknown one."""
    if name not in FRAMEWORKS:
        raise InputError(f"unknown framework '{name}' (there are {', '.join(FRAMEWORKS)})")
    return import_module(FRAMEWORKS[name].module)


def missing_frameworks(names: Sequence[str]) -> Dict[str, str]:
    """Those of the frameworks that cannot run here: name -> a sentence that says what is missing
    and what to do."""
    missing = {}
    for name in names:
        try:
            framework_module(name).need()
        except InputError as error:
            missing[name] = f"{FRAMEWORKS[name].title}: {error}"
    return missing


def choose_framework(name: str = "auto") -> str:
    """The compiled framework of this machine for "auto": TensorRT where it and an NVIDIA GPU are
    there, else OpenVINO."""
    if name == "auto":
        return "openvino" if missing_frameworks(["tensorrt"]) else "tensorrt"
    framework_module(name)
    return name


def usable_framework(name: str = "auto", device: Optional[str] = None) -> str:
    """The framework `name` where it runs here and on `device`; for "auto" the first of TensorRT,
    OpenVINO and PyTorch that does. Raises InputError where none does."""
    names = ["tensorrt", "openvino", "pytorch"] if name == "auto" else [name]
    missing = missing_frameworks(names)
    for each in names:
        own = FRAMEWORKS[each].device
        if device and own not in ("", device):
            missing[each] = f"{FRAMEWORKS[each].title} runs on {own}, not on device {device!r}"
        if each not in missing:
            return each
    raise InputError(missing[name])


class Deployment:
    """One tracker's weights on one framework and device; engines are made once and kept.

    ranges: gives the ranges of activations for a quantisation; only called for INT8. models: a
    folder for the FP32 models that the others are made of; without one, those of small networks are
    kept in memory, and others are exported each time.
    """

    def __init__(
        self,
        network: SiamRPN,
        framework: str,
        device: str = "cpu",
        cache: Optional[Path] = CACHE,
        ranges: Optional[Callable[[Quantisation], Ranges]] = None,
        models: Optional[Path] = None,
    ) -> None:
        self.module = framework_module(framework)
        self.framework, self.device, self.cache = framework, device, cache
        self.weights, self._ranges, self._models = network, ranges, models
        self.parameters = parameter_count(network)
        self._plain: Dict[str, onnx.ModelProto] = {}
        self._engines: Dict[Tuple[str, str, Quantisation], Engine] = {}

    def model(
        self, name: str, precision: str, quantisation: Quantisation = USUAL
    ) -> onnx.ModelProto:
        """One network's ONNX model at a precision. Raises InputError for INT8 without ranges."""
        plain = self._exported(name)
        if precision == "fp32":
            return plain
        if precision == "fp16":
            return to_fp16(plain)
        if self._ranges is None:
            raise InputError("INT8 needs a calibration; `siambook calibrate` makes one")
        recipe, ranges = RECIPES[quantisation.recipe], self._ranges(quantisation)
        kept = (*recipe.kept, *quantisation.kept)
        return to_int8(plain, ranges[name][quantisation.method], kept, recipe.fixed)

    def _exported(self, name: str) -> onnx.ModelProto:
        if name in self._plain:
            return self._plain[name]
        path = self._models / f"{name}.onnx" if self._models else None
        if path and path.is_file():
            return need_onnx().load(str(path))
        model = export_network(self.weights, [name])[name]
        if path:
            save_model(model, path)
        elif self.parameters <= LARGE:
            self._plain[name] = model
        return model

    def engine(self, name: str, precision: str, quantisation: Quantisation = USUAL) -> Engine:
        """One network's engine at a precision, built or loaded when first asked for."""
        return self.engines({name: precision}, quantisation)[name]

    def network(
        self, precisions: Mapping[str, str], quantisation: Quantisation = USUAL
    ) -> EngineNetwork:
        """The tracker's network with a precision for each of the three, by name."""
        return EngineNetwork(self.engines(precisions, quantisation))

    def engines(
        self, precisions: Mapping[str, str], quantisation: Quantisation = USUAL
    ) -> Dict[str, Engine]:
        """Engines by network. Raises InputError for a precision that the framework lacks."""
        framework = FRAMEWORKS[self.framework]
        for precision in precisions.values():
            if precision not in framework.precisions:
                raise InputError(
                    f"{framework.title} has no precision '{precision}' here (there are {', '.join(framework.precisions)})"
                )
        # Only INT8 depends on how it was quantised
        keys = {
            name: (name, precision, quantisation if precision == "int8" else USUAL)
            for name, precision in precisions.items()
        }
        for key in keys.values():
            if key not in self._engines:
                self._engines[key] = self._make(*key)
        return {name: self._engines[key] for name, key in keys.items()}

    def _make(self, name: str, precision: str, quantisation: Quantisation) -> Engine:
        if self.framework == "pytorch":  # runs modules; the others compile ONNX models
            module, channels = three_networks(self.weights)[name], self.weights.config.rpn
            return self.module.TorchEngine(module, name, channels, self.device, precision)
        return self.compile(self.model(name, precision, quantisation), name, precision)

    def compile(
        self, model: onnx.ModelProto, name: str, precision: str, refit: bool = False
    ) -> Engine:
        """An engine of an ONNX model. refit: kernels are inside."""
        engine = self.module.build(model.SerializeToString(), name, precision, self.cache, refit)
        if self.parameters > LARGE:
            give_back_memory()
        return engine


def refitted(
    deployment: Deployment,
    precision: str,
    kernels: Mapping[str, Any],
    quantisation: Quantisation = USUAL,
) -> Engine:
    """The xcorr engine with the kernels inside, as the thesis has it: `refit` replaces them.
    kernels: of a first target."""
    model = with_constant_kernels(deployment.model("xcorr", precision, quantisation), kernels)
    return deployment.compile(model, "xcorr", precision, refit=True)


def give_back_memory() -> None:
    """Hand freed memory back to the system, where the C library can (glibc): it keeps what hundreds
    of freed weights leave behind, which for the full network is more than a board has to spare."""
    gc.collect()
    _c_library("malloc_trim", 0)


@contextlib.contextmanager
def memory_kept() -> Iterator[None]:
    """Within, freed memory is kept for the next call, where the C library can (glibc), as other
    allocators do; afterwards large pieces go back to the system again."""
    for option, (within, _) in MALLOPT.items():
        _c_library("mallopt", option, within)
    try:
        yield
    finally:
        for option, (_, usual) in MALLOPT.items():
            _c_library("mallopt", option, usual)
        give_back_memory()


def _c_library(function: str, *arguments: int) -> None:
    with contextlib.suppress(OSError, AttributeError, TypeError):
        getattr(ctypes.CDLL(None), function)(*arguments)
