"""What a measurement was made on: processor, memory, GPU, versions, commit, date, load. Written to
a run's environment.json.

Speed is a property of the machine, so every table and figure of the book names it (`label`).
"""

from __future__ import annotations

import os
import platform
import re
import subprocess
import time
from contextlib import suppress
from datetime import datetime, timezone
from functools import lru_cache
from importlib import import_module, metadata
from pathlib import Path
from typing import Any, Mapping

from lib.files import ROOT

SPEED_THREADS = "SIAMBOOK_SPEED_THREADS"
PACKAGES = ("torch", "numpy", "cv2")
# Named in a record where they are installed
DISTRIBUTIONS = ("openvino", "onnx", "onnxruntime", "tensorrt", "tensorrt-rtx-cu13-bindings")


def device() -> str:
    """The GPU where PyTorch sees one ("cuda"), the processor otherwise ("cpu")."""
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def threads() -> int:
    """How many threads every framework computes with: PyTorch's setting."""
    import torch

    return int(torch.get_num_threads())


def speed_threads() -> int:
    """How many threads speed is measured with: this process's. The kernels of pages, several of
    which run at once, compute with one and are told the number by a variable."""
    return int(os.environ.get(SPEED_THREADS) or threads())


def use_threads(count: int) -> None:
    """Of PyTorch, which OpenVINO and ONNX Runtime follow (`threads`), and of OpenCV."""
    import cv2
    import torch

    torch.set_num_threads(count)
    cv2.setNumThreads(count)


def hardware(device: str = "cpu") -> dict[str, Any]:
    """The parts of the machine that decide speed; on a Jetson with the power mode."""
    import torch  # waits, so that the book's extension can ask for the processor without it

    gpu = torch.cuda.get_device_name(torch.device(device)) if device.startswith("cuda") else None
    mode = power_mode()
    return {
        "processor": processor(),
        "cores": cores(),
        "gpu": gpu,
        "device": device,
        **({"power_mode": mode} if mode else {}),
    }


def record(device: str = "cpu") -> dict[str, Any]:
    """This machine now, as JSON values. in_use: share of the processor that other work takes,
    0..1 (null if unknown); finding that out takes a third of a second."""
    import torch

    return {
        "date": datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC"),
        "commit": _commit(),
        "in_use": _in_use(),
        "hardware": hardware(device),
        "memory_gib": memory_gib(),
        "system": platform.platform(),
        "versions": {
            "python": platform.python_version(),
            **versions(),
            "cuda": torch.version.cuda if device != "cpu" else None,
        },
    }


def label(record: Mapping[str, Any], framework: str = "") -> str:
    """One line for captions: "2 cores AMD EPYC, PyTorch 2.13.0, CPU". framework: name and version,
    PyTorch's unless given."""
    machine = record["hardware"]
    where = f"{machine['cores']} core{'' if machine['cores'] == 1 else 's'} {machine['processor']}"
    count = record.get("threads", machine["cores"])
    if count != machine["cores"]:
        where = f"{count} thread{'' if count == 1 else 's'} on {where}"
    framework = framework or f"PyTorch {record['versions']['torch'].split('+')[0]}"
    mode = f", mode {machine['power_mode']}" if machine.get("power_mode") else ""
    return f"{where}, {framework}, {machine['gpu'] or 'CPU'}{mode}"


def was_busy(record: Mapping[str, Any]) -> bool:
    """Whether other work took at least a quarter of the processor as measuring began."""
    return (record["in_use"] or 0) >= 0.25


def _in_use(seconds: float = 0.3) -> float | None:
    """Share of this process's cores that was in use over a moment."""
    before = busy_seconds()
    time.sleep(seconds)
    busy = busy_seconds() - before
    return round(min(busy / seconds / (cores() or 1), 1.0), 2) if before else None


def memory_gib() -> float | None:
    """Memory of the machine; None where the system does not say (Windows)."""
    if not hasattr(os, "sysconf"):
        return None
    return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1)


def busy_seconds() -> float:
    """Seconds that the cores of this process were not idle since the system started, stolen time
    included; 0 where the system does not say."""
    try:
        lines = Path("/proc/stat").read_text().splitlines()
    except OSError:
        return 0.0
    own, tick = os.sched_getaffinity(0), os.sysconf("SC_CLK_TCK")
    fields = (line.split() for line in lines if re.match(r"cpu\d", line))
    times = ([int(value) for value in each[1:9]] for each in fields if int(each[0][3:]) in own)
    # 3, 4: idle, and idle while waiting for a disk
    return sum(sum(each) - each[3] - each[4] for each in times) / tick


def processor() -> str:
    """Name of the processor as the system gives it."""
    with suppress(OSError):
        text = Path("/proc/cpuinfo").read_text()
        found = re.search(r"^(?:model name|Model)\s*:\s*(.*)$", text, re.MULTILINE)
        if found:
            return found[1].strip()
    return platform.processor() or platform.machine()


def gpus() -> list[str]:
    """Names of NVIDIA's GPUs, as the driver for PCs and servers lists them."""
    files = sorted(Path("/proc/driver/nvidia/gpus").glob("*/information"))
    return [
        name.strip()
        for file in files
        for name in re.findall(r"^Model:(.*)$", file.read_text(), re.MULTILINE)
    ]


def cores() -> int | None:
    """Cores of the processor that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()


@lru_cache(maxsize=1)
def power_mode() -> str | None:
    """A Jetson's power mode, e.g. "MAXN" (section 3.3.4), as NVIDIA's nvpmodel says it; None on
    other machines."""
    try:
        told = subprocess.run(["nvpmodel", "-q"], capture_output=True, text=True, timeout=10).stdout
    except (OSError, subprocess.TimeoutExpired):
        return None
    found = re.search(r"NV Power Mode:\s*(\S+)", told)
    return found.group(1) if found else None


def memory_gb(field: str = "VmHWM") -> float | None:
    """Peak memory of this process in GB (10^9 bytes), or with field="VmRSS" what it has now; None
    where the system does not say."""
    with suppress(OSError):
        found = re.search(rf"^{field}:\s*(\d+) kB$", Path("/proc/self/status").read_text(), re.M)
        return int(found[1]) * 1024 / 1e9 if found else None
    return None


def _commit() -> str | None:
    """The repository's commit, with "+" where files differ from it; None outside of git."""

    command = ["git", "describe", "--always", "--dirty=+", "--exclude=*", "--abbrev=12"]
    try:
        told = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
        return told.stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None


@lru_cache(maxsize=1)
def versions() -> dict[str, str]:
    """Of the libraries that decide results, where they are installed."""
    found = {name: str(import_module(name).__version__) for name in PACKAGES}
    for name in DISTRIBUTIONS:  # not imported: TensorRT's can only be where its libraries are found
        with suppress(metadata.PackageNotFoundError):
            found[name] = metadata.version(name)
    return found
