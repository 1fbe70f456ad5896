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
import tempfile
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Callable, Dict, Mapping, Optional, Sequence, Tuple

from lib.engines.calibration import METHOD, Ranges
from lib.engines.quantize import METHODS, XCORR_KEPT, to_int8
from lib.errors import InputError
from lib.files import ROOT
from lib.siamrpn.contract import Engine, EngineNetwork
from lib.siamrpn.network import SiamRPN, parameter_count
from lib.siamrpn.parts import NETWORKS, three_networks

if TYPE_CHECKING:
    import onnx

# parameters; of a smaller network what is freed late does not matter, and looking for it takes
# longer than building
LARGE = 10e6
CACHE = ROOT / "data" / "cache" / "plans"


@dataclass(frozen=True)
class Framework:
    """How a framework is called, the module of lib/ that runs it, and the precisions it has
    here."""

    title: str
    module: str
    precisions: Tuple[str, ...]


FRAMEWORKS: Dict[str, Framework] = {
    "pytorch": Framework("PyTorch", "lib.engines.pytorch", ("fp32", "fp16")),
    "openvino": Framework("OpenVINO", "lib.engines.ov", ("fp32", "fp16", "int8")),
    "tensorrt": Framework("TensorRT", "lib.engines.trt", ("fp32", "fp16", "int8")),
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
    recipe: of RECIPES."""

    calibration: str = "training"
    method: str = METHOD
    recipe: str = "standard"

    def __post_init__(self) -> None:
        choices = (
            (self.calibration, CALIBRATIONS),
            (self.method, METHODS),
            (self.recipe, tuple(RECIPES)),
        )
        for value, known in choices:
            if value not in known:
                raise InputError(f"quantisation: unknown '{value}' (there are {', '.join(known)})")


USUAL = Quantisation()


def framework_module(name: str) -> Any:
    """The module of lib/engines that runs a framework. Raises InputError for an unknown one."""
    if name not in FRAMEWORKS:
        raise InputError(f"unknown framework '{name}' (there are {', '.join(FRAMEWORKS)})")
    return import_module(FRAMEWORKS[name].module)


def missing_frameworks(names: Sequence[str]) -> Dict[str, str]:
    """Those of the frameworks that cannot run here: name -> a sentence that says what is missing
    and what to do."""
    found = {name: framework_module(name).missing() for name in names}
    return {
        name: f"{FRAMEWORKS[name].title}: {sentence}"
        for name, sentence in found.items()
        if sentence
    }


def choose_framework(name: str = "auto") -> str:
    """The compiled framework of this machine for "auto": TensorRT where it and an NVIDIA GPU are
    there, else OpenVINO."""
    if name != "auto":
        framework_module(name)
        return name
    return "tensorrt" if import_module("lib.engines.trt").available() else "openvino"


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
        self.weights, self._ranges = network, ranges
        self._known: Dict[Quantisation, Ranges] = {}
        self.parameters = parameter_count(network)
        self._models = models
        self._plain: Dict[str, onnx.ModelProto] = {}
        self._engines: Dict[Tuple[str, str, Quantisation], Engine] = {}

    def model(
        self, name: str, precision: str, quantisation: Quantisation = USUAL
    ) -> onnx.ModelProto:
        """One network's ONNX model at a precision. Raises InputError for a precision that is none,
        or without ranges for INT8."""
        from lib.engines.export import to_fp16

        plain = self._exported(name)
        if precision == "fp32":
            return plain
        return to_fp16(plain) if precision == "fp16" else self._to_int8(name, plain, quantisation)

    def _exported(self, name: str) -> onnx.ModelProto:
        from lib.engines.export import export_network, load_model, save_model

        if name in self._plain:
            return self._plain[name]
        path = self._models / f"{name}.onnx" if self._models else None
        if path and path.is_file():
            return load_model(path)
        model = export_network(self.weights, [name])[name]
        if path:
            save_model(model, path)
        elif self.parameters <= LARGE:
            self._plain[name] = model
        return model

    def _to_int8(
        self, name: str, plain: onnx.ModelProto, quantisation: Quantisation
    ) -> onnx.ModelProto:
        if self._ranges is None:
            raise InputError("INT8 needs a calibration; `siambook calibrate` makes one")
        if quantisation not in self._known:
            self._known[quantisation] = self._ranges(quantisation)
        recipe, bounds = (
            RECIPES[quantisation.recipe],
            self._known[quantisation][name][quantisation.method],
        )
        return to_int8(plain, bounds, recipe.kept, fixed_kernels=recipe.fixed)

    def engine(self, name: str, precision: str, quantisation: Quantisation = USUAL) -> Engine:
        """One network's engine at a precision, built or loaded when first asked for."""
        return self.engines({name: precision}, quantisation)[name]

    def network(
        self, precisions: Mapping[str, str], quantisation: Quantisation = USUAL
    ) -> EngineNetwork:
        """The tracker's network with a precision for each of the three, by name."""
        return EngineNetwork(
            self.engines({name: precisions[name] for name in NETWORKS}, quantisation)
        )

    def engines(
        self, precisions: Mapping[str, str], quantisation: Quantisation = USUAL
    ) -> Dict[str, Engine]:
        """Engines by network. Models go through files, all written before the first is built: of
        the full network neither two models nor a model and what exporting it takes should be in
        memory at once."""
        there = FRAMEWORKS[self.framework].precisions
        for precision in precisions.values():
            if precision not in there:
                title = FRAMEWORKS[self.framework].title
                raise InputError(
                    f"{title} has no precision '{precision}' here (there are {', '.join(there)})"
                )
        keys = {
            name: (name, precision, _relevant(precision, quantisation))
            for name, precision in precisions.items()
        }
        missing = [key for key in keys.values() if key not in self._engines]
        if self.framework == "pytorch":  # runs modules; the others compile ONNX models
            for name, precision, _ in missing:
                module, channels = three_networks(self.weights)[name], self.weights.config.rpn
                self._engines[name, precision, USUAL] = self.module.TorchEngine(
                    module, name, channels, self.device, precision
                )
        elif missing:
            self._compile(missing)
        return {name: self._engines[key] for name, key in keys.items()}

    def _compile(self, keys: Sequence[Tuple[str, str, Quantisation]]) -> None:
        from lib.engines.export import save_model

        large = self.parameters > LARGE
        with tempfile.TemporaryDirectory() as folder:
            paths = [save_model(self.model(*key), Path(folder) / f"{key[0]}.onnx") for key in keys]
            for key, path in zip(keys, paths):
                if large:
                    give_back_memory()
                self._engines[key] = self.module.build(path, key[0], key[1], self.cache)
        if large:
            give_back_memory()


def give_back_memory() -> None:
    """Hand freed memory back to the system, where the C library can (glibc): it keeps what hundreds
    of freed weights leave behind, which for the full network is more than a board has to spare."""
    gc.collect()
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


def _relevant(precision: str, quantisation: Quantisation) -> Quantisation:
    """Only INT8 depends on how it was quantised."""
    return quantisation if precision == "int8" else USUAL


def refitted(
    deployment: Deployment,
    precision: str,
    kernels: Mapping[str, Any],
    quantisation: Quantisation = USUAL,
) -> Engine:
    """The xcorr engine with the kernels inside, as the thesis has it: `refit` replaces them.
    kernels: of a first target."""
    from lib.engines.export import save_model, with_constant_kernels

    if deployment.framework == "pytorch":
        raise InputError("PyTorch takes kernels as inputs and cannot be refitted")
    model = with_constant_kernels(deployment.model("xcorr", precision, quantisation), kernels)
    with tempfile.TemporaryDirectory() as folder:
        path = save_model(model, Path(folder) / "xcorr.onnx")
        return deployment.module.build(path, "xcorr", precision, deployment.cache, refit=True)
