"""Power of the full-size network while it tracks, kept in a run (section 4.3)."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Dict, Mapping, Optional, Sequence

from lib import environment
from lib.engines.deploy import FRAMEWORKS, framework_module, give_back_memory
from lib.environment import device
from lib.measure import power
from lib.measure.keys import CODE
from lib.measure.measurement import power_columns
from lib.measure.runs import is_recorded, kept_record, read_json, run_folder, to_json
from lib.measure.speed import (
    full_size_network,
    keep_tracking,
    pairs_to_time,
    timing_deployment,
)
from lib.siamrpn.network import parameter_count
from lib.siamrpn.parts import NETWORKS


@dataclass(frozen=True)
class FullSizePower:
    """Power of the full-size network while it tracks, kept in a run.

    rows: as those of `quality.Measurement.row`, without quality; none without a sensor. sensor: its
    name, or why there was none.
    """

    rows: Sequence[Mapping[str, Any]] = field(repr=False)
    sensor: str
    run: str
    environment: Mapping[str, Any] = field(repr=False)


def full_size_power(
    run: str, framework: str, width: float = 1.0, seconds: float = 30.0
) -> FullSizePower:
    """Power of the full-size network in PyTorch FP32 and in every precision of the framework, or
    what the run has.

    Each tracks for some seconds. Without a sensor nothing is run.
    """
    on, name = device(), f"full_size_power_{framework}.json"
    sensor, about = power.find_sensor(on)
    frameworks = list(dict.fromkeys(["pytorch", framework]))
    parts = {
        "width": str(width),
        "seconds": str(seconds),
        "machine": to_json(environment.hardware(on)),
        "frameworks": ", ".join(f"{key} {framework_module(key).version()}" for key in frameworks),
        "code": CODE,
    }
    kept = read_json(run_folder(run) / name)
    if sensor is None and not is_recorded(run, on) and kept.get("decided_by") != parts:
        return FullSizePower([], about, run, environment.record(on))
    record = kept_record(
        run, name, parts, lambda: _draw_power(run, sensor, frameworks, width, seconds)
    )
    if record is None:
        sentence = f"no power in run {Path(run).name}, which was recorded on another machine"
        return FullSizePower([], sentence, run, {})
    whose = {"row": "recorded" if is_recorded(run, on) else "measured", "run": Path(run).name}
    rows = [{**row, **whose} for row in record["rows"]]
    return FullSizePower(rows, record["sensor"], run, record["environment"])


def _draw_power(
    run: str,
    sensor: Optional[power.Sensor],
    frameworks: Sequence[str],
    width: float,
    seconds: float,
) -> Dict[str, Any]:
    network, rows = full_size_network(width), []
    # Table 4.6 has PyTorch in FP32 alone
    pairs = [pair for pair in pairs_to_time(frameworks) if pair[0] != "pytorch"]
    for name, precision in [("pytorch", "fp32"), *pairs]:
        engine = timing_deployment(network, name, device()).network(
            dict.fromkeys(NETWORKS, precision)
        )
        keep_tracking(engine, 1.0)
        path = run_folder(run) / f"full_size_power_{frameworks[-1]}" / f"{name}-{precision}.csv"
        with power.Sampler(sensor, power.PERIOD, path) as sampler:
            with sampler.phase("idle"):
                time.sleep(power.IDLE_SECONDS)
            with sampler.phase("run"):
                done = keep_tracking(engine, seconds, sampler.now)
        drawn = power.measure(sampler.log, done)
        about = {
            "variant": f"full-size-{name}-{precision}",
            "framework": FRAMEWORKS[name].title,
            "precision": precision.upper(),
            "network": f"{parameter_count(network) / 1e6:.1f} M parameters",
            "dataset": "random frames, random weights",
            "fps_tracked": len(done) / drawn.seconds,
        }
        rows.append({**about, **power_columns(drawn)})
        del engine
        give_back_memory()
    return {"rows": rows, "sensor": sensor.name if sensor else ""}
