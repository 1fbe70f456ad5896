"""What a full-size engine takes to start and to run, kept in a run (section 5.3): memory, seconds
until the first box, and the slowest of its frames.

Each engine has a process of its own. It starts from files: random weights for PyTorch, ONNX models
and their kept plans for what compiles.
"""

from __future__ import annotations

import tempfile
import time
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from lib import environment
from lib.engines.deploy import FRAMEWORKS, Deployment, framework_module, give_back_memory
from lib.engines.export import save_model
from lib.environment import device
from lib.errors import InputError
from lib.measure import full_size, runs, speed
from lib.measure.worker import open_executor
from lib.siamrpn.checkpoint import load_network, save_weights
from lib.siamrpn.contract import EngineNetwork
from lib.siamrpn.network import SiamRPN
from lib.siamrpn.parts import NETWORKS

SECONDS, FEWEST, MOST = 2.0, 10, 100  # that frames of an engine take, and how many they are
COST = 210.0  # of an engine, in frames of the demo tracker, for the time left alone
WEIGHTS = "weights.pth"


def engines_to_start(framework: str) -> list[tuple[int, str, str]]:
    """What is started: (place among `timed_configs`, framework, precision) of the whole network in
    PyTorch FP32 and every precision of the framework, and of the most pruned one in the last."""
    small = max(
        place for place, (multiple, _) in enumerate(full_size.timed_configs()) if multiple == 1
    )
    every = [(0, *pair) for pair in full_size.pairs(framework)]
    return list(dict.fromkeys([*every, (small, *every[-1][1:])]))


def work(run: str, framework: str) -> float:
    """How long `started` would take, in frames of the demo tracker; 0 where the run has it."""
    return _record(run, framework).work


def started(run: str, framework: str, bar: Any = None) -> Any:
    """A record: rows, one per engine (`start`, with place, framework and precision), and missing,
    sentences on those that could not start. Measured, or what the run has; `runs.Lacking` where a
    recorded run lacks it. bar: as of `full_size.engine_speed`."""
    record = _record(run, framework).load(bar)
    return record or runs.Lacking("how engines start, and what memory they take", run)


def _record(run: str, framework: str) -> runs.Record:
    name, key = f"start/{framework}.json", partial(full_size.group_key, framework)
    cost = COST * len(engines_to_start(framework))
    return runs.Record(run, name, key, cost, lambda bar: _measure(framework, bar))


def _measure(framework: str, bar: Any) -> dict[str, Any]:
    rows, missing = [], []
    for place, name, precision in engines_to_start(framework):
        bar.set_description(f"start: {name} {precision}")
        try:
            with tempfile.TemporaryDirectory() as folder, open_executor("local", 1) as pool:
                pool.executor.submit(_memory)  # its process imports PyTorch meanwhile
                network = speed.random_network(full_size.timed_configs()[place][1])
                _prepare(Path(folder), network, name, precision)
                task = (start, Path(folder), name, precision, environment.threads())
                [(_, row)] = pool.answers([task])
            rows.append({"place": place, "framework": name, "precision": precision, **row})
        except InputError as error:
            missing.append(f"{FRAMEWORKS[name].title} {precision.upper()}: {error}")
        bar.update(COST)
    return {"rows": rows, "missing": missing}


def _prepare(folder: Path, network: SiamRPN, framework: str, precision: str) -> None:
    """Write the files that an engine starts from."""
    if framework == "pytorch":
        save_weights(folder / WEIGHTS, network.state_dict())
        return
    deployment = speed.timing_deployment(network, framework, device())
    deployment.cache = folder
    for name in NETWORKS:
        model = deployment.model(name, precision)
        save_model(model, folder / f"{name}.onnx")
        deployment.compile(model, name, precision)
    give_back_memory()


def start(folder: Path, framework: str, precision: str, threads: int) -> dict[str, float]:
    """Start an engine from the files in `folder` and track frames with it.

    MB above what the process had before: memory_mb while it runs, peak_mb with loading, device_mb on
    a GPU. load_s: from files to engines. first_ms: from there to the first box, exemplar included.
    frame_ms, frame_ms_99: median and 99th percentile of the frames after it. others: cores that
    other work used meanwhile.
    """
    environment.use_threads(threads)
    framework_module(framework).version()  # loads the library
    frames, before = speed.random_frames(), _memory()
    with suppress(OSError):  # from now on, the peak is of what follows
        Path("/proc/self/clear_refs").write_text("5")
    begin = time.perf_counter()
    network = _load(folder, framework, precision)
    loaded = time.perf_counter()
    tracker = speed.PartsTracker(network)
    tracker.timed(frames[0])
    first, watch = time.perf_counter(), speed.Watch()
    seconds = [tracker.timed(frames[0])["frame"]]
    while len(seconds) < FEWEST or (sum(seconds) < SECONDS and len(seconds) < MOST):
        seconds.append(tracker.timed(frames[len(seconds) % len(frames)])["frame"])
    others, after = watch.others(), _memory()
    middle, slow = 1000 * np.percentile(seconds, [50, 99])
    return {
        **{f"{name}_mb": after[name] - before[name] for name in ("memory", "device")},
        "peak_mb": after["peak"] - before["memory"],
        "load_s": loaded - begin,
        "first_ms": 1000 * (first - loaded),
        "frame_ms": float(middle),
        "frame_ms_99": float(slow),
        "frames": len(seconds),
        "others": others,
    }


def _load(folder: Path, framework: str, precision: str) -> EngineNetwork:
    if framework == "pytorch":
        deployment = Deployment(load_network(folder / WEIGHTS), framework, device())
        return deployment.network(dict.fromkeys(NETWORKS, precision))
    build = framework_module(framework).build
    models = {name: (folder / f"{name}.onnx").read_bytes() for name in NETWORKS}
    return EngineNetwork(
        {name: build(models.pop(name), name, precision, folder, False) for name in NETWORKS}
    )


def _memory() -> dict[str, float]:
    """MB: of this process now and at its peak, and what all processes have on the GPU."""
    fields = {"memory": "VmRSS", "peak": "VmHWM"}
    own = {name: 1e3 * (environment.memory_gb(field) or np.nan) for name, field in fields.items()}
    free, total = torch.cuda.mem_get_info() if device() == "cuda" else (0, 0)
    return {**own, "device": (total - free) / 1e6}
