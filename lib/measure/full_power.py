"""Power of the full-size network while it tracks, kept in a run (section 4.3)."""

from __future__ import annotations

import time
from functools import partial
from pathlib import Path
from typing import Any, Dict, List, Mapping, NamedTuple, Optional, Sequence, Tuple

import numpy as np

from lib import environment
from lib.engines.deploy import FRAMEWORKS, give_back_memory
from lib.measure import power
from lib.measure.full_size import pairs
from lib.measure.keys import timed_by
from lib.measure.runs import Record, is_recorded, run_folder
from lib.measure.speed import (
    full_size_network,
    keep_tracking,
    timing_deployment,
)
from lib.siamrpn.network import SiamRPN, parameter_count
from lib.siamrpn.parts import NETWORKS

BLOCKS = 10  # of frames, for the spread


class FullSizePower(NamedTuple):
    """rows: as `measurement.Measurement.row`, without quality. sensor: its name, or why there was
    none; then there are no rows."""

    rows: Sequence[Mapping[str, Any]]
    sensor: str


def full_size_power(
    run: str, framework: str, width: float = 1.0, seconds: float = 30.0, bar: Any = None
) -> FullSizePower:
    """Power of the full-size network in PyTorch FP32 and in every precision of the framework, or
    what the run has. Each tracks for some seconds. Without a sensor nothing is run. bar: as of
    `full_size.engine_speed`."""
    device, folder = environment.device(), f"full_size_power_{framework}"
    sensor, about = power.find_sensor(device)

    def draw(bar: Any) -> Dict[str, Any]:
        network, rows = full_size_network(width), []
        for pair in pairs(framework):
            rows.append(measure_one(network, pair, sensor, seconds, run_folder(run) / folder))
            give_back_memory()
            bar.update(1)
        return {"rows": rows, "sensor": about}

    key = partial(timed_by, framework, width=width, seconds=seconds)
    record = Record(run, f"{folder}.json", key, len(pairs(framework)), draw)
    if sensor is None and record.work:
        return FullSizePower([], about)
    found = record.load(bar)
    if found is None:
        return FullSizePower([], f"run {Path(run).name} is of another machine and has no power")
    whose = "recorded" if is_recorded(run, device) else "measured"
    rows = [{**row, "row": whose, "run": Path(run).name} for row in found["rows"]]
    return FullSizePower(rows, found["sensor"])


def measure_one(
    network: SiamRPN,
    pair: Tuple[str, str],
    sensor: Optional[power.Sensor],
    seconds: float,
    logs: Path,
) -> Dict[str, Any]:
    """A row: the network's power while it tracks random frames, for some seconds after a rest."""
    framework, precision = pair
    deployment = timing_deployment(network, framework, environment.device())
    engine = deployment.network(dict.fromkeys(NETWORKS, precision))
    keep_tracking(engine, 1.0)  # warm up
    with power.Sampler(sensor, power.PERIOD) as sampler:
        with sampler.phase("idle"):
            time.sleep(power.IDLE_SECONDS)
        with sampler.phase("run"):
            done = keep_tracking(engine, seconds)
    power.write_log(logs / f"{framework}-{precision}.json", sampler.log)
    fps = len(done) / float(np.ptp(sampler.log.phases["run"]))
    return {
        "variant": f"full-size-{framework}-{precision}",
        "framework": FRAMEWORKS[framework].title,
        "precision": precision.upper(),
        "network": f"{parameter_count(network) / 1e6:.1f} M parameters",
        "dataset": "random frames, random weights",
        "fps_tracked": fps,
        **power.measure_parts(blocks(sampler.log, done), fps),
    }


def blocks(log: power.Log, done: Sequence[float]) -> List[Any]:
    """The run of a log in parts of as many frames. done: when each frame was done."""
    pieces = [piece for piece in np.array_split(done, BLOCKS) if len(piece)]
    start, end = log.phases["run"]
    borders = [start, *(float(piece[-1]) for piece in pieces[:-1]), end]
    return [(log.cut(a, b), len(piece)) for a, b, piece in zip(borders, borders[1:], pieces)]
