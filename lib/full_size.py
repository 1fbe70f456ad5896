"""Speed and power of the full-size networks, whole and pruned, on this machine, kept in a run (sections 4.1 to 4.3).

Their weights are random (seeded), as no speed depends on them; so this needs neither VOT2018 nor PySOT's weights.
"""
from __future__ import annotations

import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Mapping, cast
from typing import Sequence as Seq

import numpy as np
import torch

from lib import environment, power
from lib.bench import (
    Ready,
    Timed,
    full_size_network,
    keep_tracking,
    layer_times,
    make_ready,
    pairs_to_time,
    random_network,
    reinitialisation,
    time_together,
    times_faster,
    timing_deployment,
)
from lib.deploy import FRAMEWORKS, framework_module, give_back_memory, missing_frameworks
from lib.digests import code_digest, digest, source
from lib.engines.base import by_type
from lib.engines.pytorch import torch_network
from lib.environment import device
from lib.errors import InputError
from lib.experiments import power_columns, warm_up
from lib.pruned import timed_configs
from lib.pruning import backbone_parameters
from lib.runs import absent, is_recorded, kept_record, read_json, run_folder, run_note, to_json
from lib.siamrpn.network import NetworkConfig
from lib.siamrpn.parts import NETWORKS
from lib.siamrpn.tracker import SiamRPNTracker
from lib.vot.dataset import Dataset, Sequence
from lib.vot.protocol import run_one_pass


@dataclass(frozen=True)
class Speed:
    """Seconds of single track calls, (N,), and where they were taken."""

    seconds: np.ndarray = field(repr=False)
    run: str
    parameters: int
    environment: Mapping[str, Any] = field(repr=False)
    recorded: bool = False

    @property
    def fps(self) -> float:
        """Frames per second at the median time of a frame."""
        return float(1 / np.median(self.seconds))

    @property
    def spread(self) -> tuple[float, float]:
        """Frames per second at the upper and the lower quartile of the time: half of the frames lie between."""
        slow, fast = np.percentile(self.seconds, [75, 25])
        return float(1 / slow), float(1 / fast)

    @property
    def note(self) -> str:
        return run_note(self.run, self.environment, recorded=self.recorded)

    def row(self) -> dict[str, Any]:
        """A line for table 4.1, without quality: random weights have none."""
        return {"row": "recorded" if self.recorded else "measured", "variant": "full-size", "framework": "PyTorch",
                "precision": "FP32", "hardware": environment.label(self.environment),
                "network": f"{self.parameters / 1e6:.1f} M parameters",
                "dataset": "speed only, random weights", "fps_tracked": self.fps, "fps_tracked_low": self.spread[0],
                "fps_tracked_high": self.spread[1], "run": Path(self.run).name, "date": self.environment["date"]}


def full_size_fps(dataset: Dataset, run: str, frames: int = 0, width: float = 1.0) -> Speed:
    """Speed of the full-size network in PyTorch FP32 on this machine, tracking the first frames of the dataset; kept in the run.

    The weights are random (seeded): speed does not depend on them. frames: 12 on a processor and 100 on a GPU unless given.
    """
    on = device()
    frames, sequence = frames or (12 if on == "cpu" else 100), dataset.sequences[0]
    parts = {"frames": f"{frames} of {sequence.name}, {sequence.width}x{sequence.height}", "width": str(width),
             "framework": f"pytorch {torch.__version__}", "code": code_digest("pytorch"),
             "machine": to_json(environment.hardware(on))}
    record = kept_record(run, "full_size.json", parts, lambda: _time_full_size(sequence, frames, width, on))
    if record is None:
        return cast(Speed, absent("the speed of the full-size network in PyTorch", run))
    return Speed(np.array(record["seconds"]), run, record["parameters"], record["environment"], is_recorded(run, on))


def _time_full_size(sequence: Sequence, frames: int, width: float, on: str) -> dict[str, Any]:
    network = full_size_network(width)
    tracker = SiamRPNTracker(torch_network(network, on))
    warm_up(tracker, sequence)
    part = replace(sequence, frames=sequence.frames[: frames + 1], regions=sequence.regions[: frames + 1])
    seconds = run_one_pass(tracker, part).seconds[1:]
    return {"seconds": seconds.tolist(), "parameters": sum(parameter.numel() for parameter in network.parameters())}


@dataclass(frozen=True)
class EngineSpeed:
    """Speed of the full-size networks, the whole one and pruned ones, on every framework and precision, timed in turns, so that
    any two may be compared; kept in a run.

    rows: of `bench.Timed.row`, with the network's place (0: the whole one), the backbone's parameters, the multiple of channels
    that it keeps, and how many times faster it is than the whole network with the same engine (whole_ratio, whole_ratio_low,
    whole_ratio_high: median, smallest and largest of the rounds) and with PyTorch FP32 (plain_ratio, ...). Of the whole network
    also: layers, framework and precision ("openvino int8") -> network -> layer type -> seconds a call; reinitialisation,
    precision -> "inputs" and "refit" -> seconds of single initialisations, empty where there is no such way.
    missing: what could not be timed here, in sentences. turns: "2 of 2" for two rounds of two frames.
    """

    rows: Seq[Mapping[str, Any]] = field(repr=False)
    layers: Mapping[str, Mapping[str, Mapping[str, float]]] = field(repr=False)
    reinitialisation: Mapping[str, Mapping[str, Seq[float]]] = field(repr=False)
    missing: Seq[str]
    parameters: int
    framework: str
    run: str
    environment: Mapping[str, Any] = field(repr=False)
    recorded: bool = False
    turns: str = ""

    @property
    def whole(self) -> list[Mapping[str, Any]]:
        """The rows of the whole network."""
        return [row for row in self.rows if row["place"] == 0]

    @property
    def compared(self) -> list[Mapping[str, Any]]:
        """The rows of all networks with the engines that all of them were timed with."""
        shared = {(row["framework"], row["precision"]) for row in self.rows if row["place"]}
        return [row for row in self.rows if (row["framework"], row["precision"]) in shared]

    @property
    def note(self) -> str:
        return run_note(self.run, self.environment, FRAMEWORKS[self.framework].title, self.recorded)

    @property
    def size(self) -> str:
        """Of the whole network: "53.9 M parameters"."""
        return f"{self.parameters / 1e6:.1f} M parameters"

    def row_of(self, framework: str, precision: str) -> Mapping[str, Any]:
        """The whole network's row of a framework (a key of deploy.FRAMEWORKS) and a precision. Raises InputError where it is
        missing."""
        title = FRAMEWORKS[framework].title
        for row in self.whole:
            if str(row["framework"]).startswith(title) and row["precision"] == precision.upper():
                return row
        raise InputError(f"{title} in {precision.upper()} was not timed in run {self.run}")


def engine_speed(run: str, framework: str, networks: Seq[tuple[int, NetworkConfig]] = (), rounds: int = 2, calls: int = 2
                 ) -> EngineSpeed:
    """Time the full-size networks in PyTorch and in the given framework, the whole one with its layers and re-initialisation, or
    load what the run has.

    networks: each with the multiple of channels that it keeps, the whole one first; `pruned.timed_configs` unless given.
    """
    on, networks = device(), networks or timed_configs()
    missing = missing_frameworks(["tensorrt"])  # which every reader of section 4.2 looks for
    frameworks = list(dict.fromkeys(["pytorch", framework]))
    parts = {"networks": to_json([config.to_dict() for _, config in networks]), "turns": f"{rounds} of {calls}",
             "machine": to_json(environment.hardware(on)), "absent": ", ".join(missing),
             "frameworks": ", ".join(f"{name} {framework_module(name).version()}" for name in frameworks),
             "code": digest((code_digest(framework) + code_digest("pytorch") + source("bench.py")).encode())}
    record = kept_record(run, f"engine_speed_{framework}.json", parts,
                         lambda: {**_time_engines(networks, frameworks, rounds, calls, on), "absent": list(missing.values())})
    if record is None:
        return cast(EngineSpeed, absent(f"the speed of the full-size networks with {FRAMEWORKS[framework].title}", run))
    return EngineSpeed(record["rows"], record["layers"], record["reinitialisation"],
                       [*record["missing"], *record["absent"]], record["parameters"],
                       framework, run, record["environment"], is_recorded(run, on), record["decided_by"]["turns"])


def _time_engines(networks: Seq[tuple[int, NetworkConfig]], frameworks: Seq[str], rounds: int, calls: int, on: str
                  ) -> dict[str, Any]:
    missing: list[str] = []
    made = [random_network(config) for _, config in networks]
    ready = make_ready(made, frameworks, on, missing.append, first_only=[("pytorch", "fp16")])  # which the thesis has nowhere
    rows = _rows(networks, ready, time_together(ready, rounds, calls))
    layers, again = {}, {}
    for each in [one for one in ready if one.place == 0]:
        times = layer_times(each.deployment, each.precision, calls)
        layers[f"{each.framework} {each.precision}"] = {part: by_type(found) for part, found in times.items()}
        if each.framework == frameworks[-1] != "pytorch":
            again[each.precision] = {way: [] if seconds is None else seconds.tolist()
                                     for way, seconds in reinitialisation(each.deployment, each.precision).items()}
    return {"rows": rows, "layers": layers, "reinitialisation": again, "missing": missing,
            "parameters": sum(parameter.numel() for parameter in made[0].parameters())}


def _rows(networks: Seq[tuple[int, NetworkConfig]], ready: Seq[Ready], timed: Seq[Timed]) -> list[dict[str, Any]]:
    """The rows of `EngineSpeed`, network by network."""
    whole = {(each.framework, each.precision): one for each, one in zip(ready, timed) if each.place == 0}
    rows: list[dict[str, Any]] = []
    for each, one in zip(ready, timed):
        multiple, config = networks[each.place]
        ratios = times_faster(one.times, whole[each.framework, each.precision].times)
        plain = times_faster(one.times, whole["pytorch", "fp32"].times)
        rows.append({**one.row(), "parameters": backbone_parameters(config), "multiple": multiple, "place": each.place,
                     **dict(zip(("whole_ratio", "whole_ratio_low", "whole_ratio_high"), ratios)),
                     **dict(zip(("plain_ratio", "plain_ratio_low", "plain_ratio_high"), plain))})
    return sorted(rows, key=lambda row: row["place"])


@dataclass(frozen=True)
class FullSizePower:
    """Power of the full-size network while it tracks, kept in a run. rows: as those of `Measurement.row`, without quality; none
    without a sensor. sensor: its name, or why there was none."""

    rows: Seq[Mapping[str, Any]] = field(repr=False)
    sensor: str
    run: str
    environment: Mapping[str, Any] = field(repr=False)


def full_size_power(run: str, framework: str, width: float = 1.0, seconds: float = 30.0) -> FullSizePower:
    """Power of the full-size network with random weights in PyTorch FP32 and in every precision of the framework, each tracking
    for some seconds; or what the run has. Without a sensor nothing is run."""
    on, name = device(), f"full_size_power_{framework}.json"
    sensor, about = power.find_sensor(on)
    frameworks = list(dict.fromkeys(["pytorch", framework]))
    parts = {"width": str(width), "seconds": str(seconds), "machine": to_json(environment.hardware(on)),
             "frameworks": ", ".join(f"{key} {framework_module(key).version()}" for key in frameworks),
             "code": digest((code_digest(framework) + code_digest("pytorch")).encode())}
    kept = read_json(run_folder(run) / name)
    if sensor is None and not is_recorded(run, on) and kept.get("decided_by") != parts:
        return FullSizePower([], about, run, environment.record(on))
    record = kept_record(run, name, parts, lambda: _draw_power(run, sensor, frameworks, width, seconds, on))
    if record is None:
        return FullSizePower([], f"no power in run {Path(run).name}, which was recorded on another machine", run, {})
    whose = {"row": "recorded" if is_recorded(run, on) else "measured", "run": Path(run).name}
    rows = [{**row, **whose} for row in record["rows"]]
    return FullSizePower(rows, record["sensor"], run, record["environment"])


def _draw_power(run: str, sensor: power.Sensor | None, frameworks: Seq[str], width: float, seconds: float, on: str
                ) -> dict[str, Any]:
    network, rows = full_size_network(width), []
    for name, precision in [("pytorch", "fp32"), *pairs_to_time(frameworks)]:
        if name == "pytorch" and precision != "fp32":
            continue  # table 4.6 has PyTorch in FP32 alone
        engine = timing_deployment(network, name, on).network(dict.fromkeys(NETWORKS, precision))
        keep_tracking(engine, 1.0)
        path = run_folder(run) / f"full_size_power_{frameworks[-1]}" / f"{name}-{precision}.csv"
        with power.Sampler(sensor, power.PERIOD, path) as sampler:
            with sampler.phase("idle"):
                time.sleep(power.IDLE_SECONDS)
            with sampler.phase("run"):
                done = keep_tracking(engine, seconds, sampler.now)
        drawn = power.measure(sampler.log, done)
        parameters = sum(parameter.numel() for parameter in network.parameters())
        rows.append({"variant": f"full-size-{name}-{precision}", "framework": FRAMEWORKS[name].title,
                     "precision": precision.upper(), "network": f"{parameters / 1e6:.1f} M parameters",
                     "dataset": "random frames, random weights", "fps_tracked": len(done) / drawn.seconds,
                     **power_columns(drawn)})
        del engine
        give_back_memory()
    return {"rows": rows, "sensor": sensor.name if sensor else ""}
