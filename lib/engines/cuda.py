"""CUDA beneath the TensorRT engines: device memory, pinned buffers, copies on one stream, CUDA
graphs (thesis section 4.2).

Through PyCUDA where it is installed (the thesis's way, and what a Jetson has), else through
NVIDIA's cuda-python, which alone has CUDA graphs. Every error code is checked. All engines of a
process share one device object, and with it one stream: what is put on it runs in order, so that an
engine's outputs can be another's inputs without anybody waiting.
"""

from __future__ import annotations

import ctypes
import weakref
from dataclasses import dataclass
from functools import lru_cache, partial
from importlib import import_module
from importlib.util import find_spec
from typing import Any, Callable, NamedTuple, Optional, Protocol, Tuple

import numpy as np

from lib.errors import InputError

INSTALL = "pip install -e '.[tensorrt]'"


class CudaError(RuntimeError):
    """A CUDA call that failed, by its name and CUDA's own words."""


@dataclass(frozen=True)
class Memory:
    """Device memory at an address; it is freed with the last reference to its owner."""

    pointer: int
    owner: Any


class Event(NamedTuple):
    """A mark on the stream: record puts it behind what is there now, synchronize waits until the
    stream has passed it (not at all where it was never recorded)."""

    record: Callable[[], None]
    synchronize: Callable[[], None]


class Device(Protocol):
    """One GPU with one stream. Sizes are bytes, pointers are addresses on the device; copies return
    before they are done."""

    name: str
    compute_capability: Tuple[int, int]
    stream: int  # its handle

    def allocate(self, size: int) -> Memory:
        """Device memory."""

    def pinned(self, shape: Tuple[int, ...], dtype: str) -> np.ndarray:
        """An array in page-locked host memory: only copies to and from such memory run beside other
        work."""

    def upload(self, pointer: int, array: np.ndarray) -> None:
        """Copy a pinned array to the device."""

    def download(self, array: np.ndarray, pointer: int) -> None:
        """Copy from the device into a pinned array."""

    def copy(self, target: int, source: int, size: int) -> None:
        """Copy within the device."""

    def event(self) -> Event:
        """A new event."""

    def synchronize(self) -> None:
        """Wait for everything on the stream; an error of earlier work is raised here."""

    def capture(self, run: Callable[[], None]) -> Optional[Callable[[], None]]:
        """What `run` puts on the stream as a CUDA graph, without running it: a function that
        launches it, or None where the binding has no graphs. Raises what `run` raises, and
        CudaError for work that cannot be captured."""


class PyCudaDevice:
    """The device through PyCUDA 2020.1 or newer, whose calls raise for every error code; it has no
    graphs."""

    def __init__(self) -> None:
        # The primary context is the one that TensorRT and PyTorch use, so memory and
        # streams are common to all.
        primary, self._driver = (
            import_module("pycuda.autoprimaryctx"),
            import_module("pycuda.driver"),
        )
        self.name, self.compute_capability = (
            primary.device.name(),
            tuple(primary.device.compute_capability()),
        )
        self._stream = self._driver.Stream()
        self.stream = self._stream.handle

    def allocate(self, size: int) -> Memory:
        memory = self._driver.mem_alloc(size)
        return Memory(int(memory), memory)

    def pinned(self, shape: Tuple[int, ...], dtype: str) -> np.ndarray:
        return self._driver.pagelocked_empty(shape, np.dtype(dtype))

    def upload(self, pointer: int, array: np.ndarray) -> None:
        self._driver.memcpy_htod_async(pointer, array, self._stream)

    def download(self, array: np.ndarray, pointer: int) -> None:
        self._driver.memcpy_dtoh_async(array, pointer, self._stream)

    def copy(self, target: int, source: int, size: int) -> None:
        self._driver.memcpy_dtod_async(target, source, size, self._stream)

    def event(self) -> Event:
        event, stream = self._driver.Event(), self._stream
        return Event(lambda: event.record(stream), event.synchronize)

    def synchronize(self) -> None:
        self._stream.synchronize()

    def capture(self, run: Callable[[], None]) -> Optional[Callable[[], None]]:
        return None


class CudaPythonDevice:
    """The device through NVIDIA's cuda-python, 11.4 or newer; runtime: its module of the CUDA
    runtime's functions."""

    def __init__(self, runtime: Any) -> None:
        self._runtime = runtime
        properties = self.call("cudaGetDeviceProperties", self.call("cudaGetDevice"))
        self.name, self.compute_capability = (
            properties.name.decode().strip("\0"),
            (properties.major, properties.minor),
        )
        self._stream = self.call("cudaStreamCreate")
        self.stream = int(self._stream)

    def call(self, name: str, *arguments: Any) -> Any:
        """Call a function of the runtime by its name. Raises CudaError for any code but success."""
        error, *values = getattr(self._runtime, name)(*arguments)
        if int(error):
            said = self._runtime.cudaGetErrorString(error)[1]
            raise CudaError(f"{name}: {said.decode() if isinstance(said, bytes) else said}")
        return values[0] if values else None

    def allocate(self, size: int) -> Memory:
        pointer, owner = self.call("cudaMalloc", size), _Owner()
        weakref.finalize(owner, self.call, "cudaFree", pointer)
        return Memory(int(pointer), owner)

    def pinned(self, shape: Tuple[int, ...], dtype: str) -> np.ndarray:
        size = int(np.prod(shape)) * np.dtype(dtype).itemsize
        pointer = self.call("cudaHostAlloc", size, 0)
        buffer: Any = (ctypes.c_ubyte * size).from_address(int(pointer))
        # The array and its views keep the buffer
        weakref.finalize(buffer, self.call, "cudaFreeHost", pointer)
        return np.frombuffer(buffer, dtype).reshape(shape)

    def upload(self, pointer: int, array: np.ndarray) -> None:
        self._copy(pointer, array.ctypes.data, array.nbytes, "HostToDevice")

    def download(self, array: np.ndarray, pointer: int) -> None:
        self._copy(array.ctypes.data, pointer, array.nbytes, "DeviceToHost")

    def copy(self, target: int, source: int, size: int) -> None:
        self._copy(target, source, size, "DeviceToDevice")

    def _copy(self, target: int, source: int, size: int, direction: str) -> None:
        kind = getattr(self._runtime.cudaMemcpyKind, f"cudaMemcpy{direction}")
        self.call("cudaMemcpyAsync", target, source, size, kind, self._stream)

    def event(self) -> Event:
        event, call = self.call("cudaEventCreate"), self.call
        return Event(
            partial(call, "cudaEventRecord", event, self._stream),
            partial(call, "cudaEventSynchronize", event),
        )

    def synchronize(self) -> None:
        self.call("cudaStreamSynchronize", self._stream)

    def capture(self, run: Callable[[], None]) -> Optional[Callable[[], None]]:
        self.call(
            "cudaStreamBeginCapture",
            self._stream,
            self._runtime.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal,
        )
        try:
            run()
        except BaseException:
            # So that the stream runs again; what `run` raised says more
            self._runtime.cudaStreamEndCapture(self._stream)
            raise
        captured = self.call("cudaStreamEndCapture", self._stream)
        executable = self.call("cudaGraphInstantiateWithFlags", captured, 0)
        self.call("cudaGraphDestroy", captured)
        launch = partial(self.call, "cudaGraphLaunch", executable, self._stream)
        weakref.finalize(launch, self.call, "cudaGraphExecDestroy", executable)
        return launch


class _Owner:
    """Something that memory can be freed with."""


@lru_cache(maxsize=1)
def device() -> Device:
    """The process's GPU and its one stream. Raises InputError without an NVIDIA GPU, or without
    PyCUDA and cuda-python."""
    try:
        if find_spec("pycuda") is not None:
            return PyCudaDevice()
        return CudaPythonDevice(_runtime())
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
