"""Which TensorRT is installed, and what its version can do."""

from __future__ import annotations

import ctypes
import re
from functools import lru_cache
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, List, NamedTuple, Optional, TypeVar

from lib.engines import cuda
from lib.errors import InputError

if TYPE_CHECKING:
    import tensorrt as trt  # every flavour's calls are checked against the stubs of TensorRT 10
else:

    class _Installed:
        """The installed flavour's module, imported when something of it is used first."""

        def __getattr__(self, name: str) -> Any:
            return getattr(flavour().module, name)

    trt = _Installed()

Result = TypeVar("Result")
# Of NVIDIA's drivers: on PCs, on Jetsons, in WSL
GPU_FILES = ("/dev/nvidiactl", "/dev/nvhost-ctrl-gpu", "/dev/nvgpu", "/dev/dxg")

# The first one that is installed is taken
MODULES = {
    "tensorrt": "TensorRT",
    "tensorrt_rtx": "TensorRT-RTX",
    "tensorrt_rtx_bindings": "TensorRT-RTX",
}


class Flavour(NamedTuple):
    """The installed TensorRT.

    name: with its version, "TensorRT 8.5.2.2". typed: the model's types bind the builder,
    correlation kernels can be inputs, and execution contexts survive a refit (since TensorRT 10).
    rtx: TensorRT-RTX, which builds plans for absent GPUs.
    """

    module: Any
    name: str
    typed: bool
    rtx: bool


@lru_cache(maxsize=1)
def flavour() -> Flavour:
    """The TensorRT that is installed. Raises InputError where there is none, one before 8.5, or one
    that cannot be loaded."""
    for name, title in MODULES.items():
        try:
            if name == "tensorrt_rtx_bindings":
                _load_rtx_libraries()
            module = import_module(name)
        except ModuleNotFoundError:
            continue
        except (ImportError, OSError, RuntimeError) as error:
            said = " ".join(str(error).split())
            raise InputError(f"{title} is installed but cannot be loaded ({said})") from None
        if not hasattr(module, "Builder"):  # a package of type stubs leaves an empty module
            continue
        rtx, release = title == "TensorRT-RTX", str(module.__version__)
        numbers = tuple(int(number) for number in re.findall(r"\d+", release)[:2])
        if not rtx and numbers < (8, 5):
            raise InputError(f"{title} {release} is too old: 8.5 is the oldest that works here")
        return Flavour(module, f"{title} {release}", rtx or numbers >= (10, 0), rtx)
    raise InputError(
        f"the framework TensorRT is not installed: {cuda.INSTALL} on x86, JetPack on a Jetson; "
        "without an NVIDIA GPU, use the OpenVINO engine"
    )


def _load_rtx_libraries() -> None:
    """TensorRT-RTX's bindings on PyPI come without the libraries, which ONNX Runtime's plugin
    brings: load them from there. Where that is not installed, the system's loader has to find them
    (LD_LIBRARY_PATH)."""
    found = find_spec("onnxruntime_ep_nv_tensorrt_rtx")
    for folder in found.submodule_search_locations or [] if found else []:
        for library in ("libtensorrt_rtx.so*", "libtensorrt_onnxparser_rtx.so*"):
            for path in sorted(Path(folder).glob(library))[:1]:
                ctypes.CDLL(str(path), mode=ctypes.RTLD_GLOBAL)


def need() -> None:
    """Raises InputError, with what to do, where no NVIDIA GPU can be used or TensorRT is not
    installed."""
    try:
        cuda.gpu(), flavour()
    except InputError:
        if any(Path(path).exists() for path in GPU_FILES):
            raise
        raise InputError("this machine has no NVIDIA GPU") from None


def version() -> str:
    """The installed flavour and its version, e.g. "TensorRT 8.5.2.2"."""
    return flavour().name


@lru_cache(maxsize=1)
def log() -> Any:
    """The process's one logger; it keeps TensorRT's errors."""

    class Log(trt.ILogger):
        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.errors: List[str] = []

        def log(self, severity: Any, message: str) -> None:
            if severity in (trt.Logger.INTERNAL_ERROR, trt.Logger.ERROR):
                self.errors.append(" ".join(message.split()))

    return Log()


def checked(result: Optional[Result], what: str) -> Result:
    """What a call of TensorRT returned. None and False raise InputError with TensorRT's errors."""
    errors, log().errors = log().errors, []
    if result is None or result is False:
        raise InputError(f"{flavour().name} {what} ({' '.join(errors)[:500] or 'no reason given'})")
    return result
