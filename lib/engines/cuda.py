"""CUDA beneath the TensorRT engines: device memory, pinned buffers, copies on one stream (thesis
section 4.2).

Through PyCUDA where it is installed (the thesis's way, and what a Jetson has), else through
NVIDIA's cuda-python. Every error code is checked. All engines of a
process share one device object, and with it one stream: what is put on it runs in order, so that an
engine's outputs can be another's inputs without anybody waiting.
"""

from __future__ import annotations

import ctypes
import weakref
from functools import lru_cache
from importlib import import_module
from importlib.util import find_spec
from typing import Any, Protocol, Tuple

import numpy as np

from lib.errors import InputError

INSTALL = "pip install -e '.[tensorrt]'"


class CudaError(RuntimeError):
    """A CUDA call that failed, by its name and CUDA's own words."""


class Memory:
    """Device memory at an address; it is freed with the last reference to this object."""

    def __init__(self, pointer: int, owner: Any = None) -> None:
        self.pointer, self.owner = pointer, owner


class Device(Protocol):
    """One GPU with one stream. Sizes are bytes, pointers are addresses on the device, arrays are
    pinned float32 (page-locked: only copies to and from such memory run beside other work). Copies
    return before they are done; an error of earlier work is raised by `synchronize`."""

    name: str
    compute_capability: Tuple[int, int]
    stream: int  # its handle

    def allocate(self, size: int) -> Memory: ...
    def pinned(self, shape: Tuple[int, ...]) -> np.ndarray: ...
    def upload(self, pointer: int, array: np.ndarray) -> None: ...
    def download(self, array: np.ndarray, pointer: int) -> None: ...
    def copy(self, target: int, source: int, size: int) -> None: ...
    def synchronize(self) -> None: ...


class PyCudaDevice:
    """The device through PyCUDA 2020.1 or newer, whose calls raise for every error code."""

    def __init__(self) -> None:
        # The primary context is the one that TensorRT and PyTorch use, so memory and streams are
        # common to all.
        gpu = import_module("pycuda.autoprimaryctx").device
        self._driver = import_module("pycuda.driver")
        self.name, self.compute_capability = gpu.name(), tuple(gpu.compute_capability())
        self._stream = self._driver.Stream()
        self.stream = self._stream.handle

    def allocate(self, size: int) -> Memory:
        memory = self._driver.mem_alloc(size)
        return Memory(int(memory), memory)

    def pinned(self, shape: Tuple[int, ...]) -> np.ndarray:
        return self._driver.pagelocked_empty(shape, np.float32)

    def upload(self, pointer: int, array: np.ndarray) -> None:
        self._driver.memcpy_htod_async(pointer, array, self._stream)

    def download(self, array: np.ndarray, pointer: int) -> None:
        self._driver.memcpy_dtoh_async(array, pointer, self._stream)

    def copy(self, target: int, source: int, size: int) -> None:
        self._driver.memcpy_dtod_async(target, source, size, self._stream)

    def synchronize(self) -> None:
        self._stream.synchronize()


class CudaPythonDevice:
    """The device through NVIDIA's cuda-python, 11.4 or newer; runtime: its module of the CUDA
    runtime's functions."""

    def __init__(self, runtime: Any) -> None:
        self._runtime = runtime
        gpu = self._call("cudaGetDeviceProperties", self._call("cudaGetDevice"))
        self.name, self.compute_capability = gpu.name.decode().strip("\0"), (gpu.major, gpu.minor)
        self._stream = self._call("cudaStreamCreate")
        self.stream = int(self._stream)

    def _call(self, name: str, *arguments: Any) -> Any:
        """Call a function of the runtime by its name. Raises CudaError for any code but success."""
        error, *values = getattr(self._runtime, name)(*arguments)
        if int(error):
            said = self._runtime.cudaGetErrorString(error)[1]
            raise CudaError(f"{name}: {said.decode() if isinstance(said, bytes) else said}")
        return values[0] if values else None

    def allocate(self, size: int) -> Memory:
        pointer = self._call("cudaMalloc", size)
        memory = Memory(int(pointer))
        weakref.finalize(memory, self._call, "cudaFree", pointer)
        return memory

    def pinned(self, shape: Tuple[int, ...]) -> np.ndarray:
        count = int(np.prod(shape))
        pointer = self._call("cudaHostAlloc", 4 * count, 0)
        buffer: Any = (ctypes.c_float * count).from_address(int(pointer))
        # The array and its views keep the buffer
        weakref.finalize(buffer, self._call, "cudaFreeHost", pointer)
        return np.frombuffer(buffer, np.float32).reshape(shape)

    def upload(self, pointer: int, array: np.ndarray) -> None:
        self._copy(pointer, array.ctypes.data, array.nbytes, "HostToDevice")

    def download(self, array: np.ndarray, pointer: int) -> None:
        self._copy(array.ctypes.data, pointer, array.nbytes, "DeviceToHost")

    def copy(self, target: int, source: int, size: int) -> None:
        self._copy(target, source, size, "DeviceToDevice")

    def _copy(self, target: int, source: int, size: int, direction: str) -> None:
        kind = getattr(self._runtime.cudaMemcpyKind, f"cudaMemcpy{direction}")
        self._call("cudaMemcpyAsync", target, source, size, kind, self._stream)

    def synchronize(self) -> None:
        self._call("cudaStreamSynchronize", self._stream)


@lru_cache(maxsize=1)
def gpu() -> Device:
    """The process's GPU and its one stream. Raises InputError without an NVIDIA GPU, or without
    PyCUDA and cuda-python."""
    try:
        return PyCudaDevice() if find_spec("pycuda") else CudaPythonDevice(_runtime())
    except InputError:
        raise
    # The two bindings' own types, for a driver or a GPU that is not there
    except Exception as error:
        said = " ".join(str(error).split()) or type(error).__name__
        raise InputError(
            f"no NVIDIA GPU can be used here ({said}); the OpenVINO engine runs on the processor"
        ) from None


def _runtime() -> Any:
    for name in ("cuda.bindings.runtime", "cuda.cudart"):  # since cuda-python 12.6, and before
        try:
            return import_module(name)
        except ModuleNotFoundError:
            continue
    raise InputError(
        f"TensorRT reaches the GPU through PyCUDA or cuda-python, and neither is installed: {INSTALL}"
    )
