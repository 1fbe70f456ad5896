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


def hardware(device: str = "cpu") -> dict[str, Any]:
    """What decides speed and does not change from one measurement to the next: processor, cores,
    GPU, device, threads, and on a Jetson the power mode."""
    import torch  # waits, so that the book's extension can ask for the processor without it

    gpu = torch.cuda.get_device_name(torch.device(device)) if device.startswith("cuda") else None
    mode = power_mode()
    return {
        "processor": processor(),
        "cores": cores(),
        "gpu": gpu,
        "device": device,
        "threads": threads(),
        **({"power_mode": mode} if mode else {}),
    }


def machine(device: str = "cpu") -> dict[str, Any]:
    """`hardware` without the threads: they are a setting of a process, and pages run with another
    one than measurements."""
    return {name: value for name, value in hardware(device).items() if name != "threads"}


def record(device: str = "cpu") -> dict[str, Any]:
    """This machine now, as JSON values. in_use: share of the processor that other work takes just
    now, 0..1 (null if unknown).

    Takes a third of a second, in which this process rests.
    """
    import torch

    return {
        "date": datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC"),
        "commit": _commit(),
        "load": round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None,
        "in_use": _in_use(),
        "hardware": hardware(device),
        "memory_gib": _memory_gib(),
        "system": platform.platform(),
        "versions": {
            "python": platform.python_version(),
            **versions(),
            "cuda": torch.version.cuda if device != "cpu" else None,
        },
    }


def label(record: Mapping[str, Any], framework: str = "") -> str:
    """One line for captions: "2 cores AMD EPYC, PyTorch 2.13.0, CPU"; framework: with its version,
    where it was not PyTorch."""
    machine = record["hardware"]
    where = f"{machine['cores']} core{'' if machine['cores'] == 1 else 's'} {machine['processor']}"
    framework = framework or f"PyTorch {record['versions']['torch'].split('+')[0]}"
    mode = f", mode {machine['power_mode']}" if machine.get("power_mode") else ""
    return f"{where}, {framework}, {machine['gpu'] or 'CPU'}{mode}"


def was_busy(record: Mapping[str, Any]) -> bool:
    """Whether other work took a quarter of the processor or more as measuring began: speeds are
    then too low."""
    return (record["in_use"] or 0) >= 0.25


def _in_use(seconds: float = 0.3) -> float | None:
    """Share of all cores' time that was not idle over a moment, from /proc/stat."""

    def times() -> list[int]:
        return [
            int(value) for value in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:]
        ]

    try:
        before = times()
        time.sleep(seconds)
        spent = [now - then for now, then in zip(times(), before)]
    except (OSError, ValueError):
        return None
    idle = spent[3] + spent[4]  # idle, and idle while waiting for a disk
    return round(1 - idle / max(sum(spent[:8]), 1), 2)


def processor() -> str:
    """Name of the processor as the system gives it."""
    try:
        names = re.findall(
            r"^(?:model name|Model)\s*:\s*(.*)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE
        )
    except OSError:
        names = []
    return names[0].strip() if names else platform.processor() or platform.machine()


def gpus() -> list[str]:
    """NVIDIA's GPUs by name, as their driver for PCs and servers lists them; asked without a
    framework."""
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


def peak_memory_gb() -> float | None:
    """The most memory that this process has had at once, in GB (10^9 bytes); None where the system
    does not say."""
    try:
        found = re.search(
            r"^VmHWM:\s*(\d+) kB$", Path("/proc/self/status").read_text(), re.MULTILINE
        )
    except OSError:
        return None
    return int(found.group(1)) * 1024 / 1e9 if found else None


def _memory_gib() -> float | None:
    try:
        return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1)
    except (ValueError, OSError, AttributeError):
        return None


def _commit() -> str | None:
    """The repository's commit, with "+" where files differ from it; None outside of git."""

    def git(*command: str) -> str:
        return subprocess.run(
            ["git", *command], cwd=ROOT, capture_output=True, text=True, check=True
        ).stdout.strip()

    try:
        return git("rev-parse", "--short=12", "HEAD") + (
            "+" if git("status", "--porcelain", "--untracked-files=no") else ""
        )
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
