"""Power and energy of a run (sections 3.3.4 and 4.3; tables 4.6 and 4.7).

A sampler reads one sensor in a thread beside the run. Its log gives two figures. The thesis's
(`thesis_power`): a sample every five seconds, their running average, its largest value; energy per
frame is that / FPS. The better one: power integrated over the time of tracking, with and without
the idle power, and with a spread.

`quality.measure` keeps one part of the log per sequence (`Log.cut`, `write_log`); `measure_parts`
puts a variant's parts together. Nothing that a sensor does ends the run: time without good readings
is a gap, and is not integrated over. Times are seconds of the monotonic clock.
"""

from __future__ import annotations

import json
import threading
import time
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Dict, Iterator, List, Optional, Sequence, Tuple, Union

import numpy as np

from lib.errors import InputError
from lib.files import write_text
from lib.measure.sensors import Ina3221, Nvml, Rapl, Reading, Sensor, SensorFault, Tegrastats

THESIS_PERIOD = 5.0  # s, section 4.3
PERIOD = 0.5  # s between two readings of a run
IDLE_SECONDS = 10.0  # for the idle power, before a run
TOTAL = "total"  # in place of a rail: all rails
_INPUTS = ("VDD_IN", "POM_5V_IN", "VIN")  # on some Jetsons a rail that includes all others
COLUMNS = (
    *("power_w_thesis", "energy_j_thesis", "power_w", "idle_w", "energy_j", "energy_j_spread"),
    *("net_energy_j", "net_energy_j_spread", "power_s", "power_covered_s"),
)
LATE = 1.75  # periods between two readings: one is missing

Span = Tuple[float, float]  # start and end, s


def find_sensor(device: str) -> Tuple[Optional[Sensor], str]:
    """The sensor for what runs on `device` ("cpu" or "cuda") and its name; or None and why."""
    reasons = []
    for sensor in (Tegrastats(), Ina3221(), Nvml() if device == "cuda" else Rapl()):
        try:
            sensor.open(1.0)
            return sensor, sensor.name
        except SensorFault as fault:
            reasons.append(str(fault))
        finally:
            sensor.close()
    return None, f"no power sensor here ({'; '.join(reasons)})"


# -- Sampling --------------------------------------------------------------------------------------


@dataclass
class Log:
    """What a sampler saw. sensor: "" without one; period: s between two readings; phases: name ->
    start and end, s. "run" is what is measured, "idle" is the time whose power is subtracted."""

    sensor: str
    period: float
    readings: List[Reading] = field(default_factory=list)
    faults: List[Tuple[float, str]] = field(default_factory=list)
    phases: Dict[str, Span] = field(default_factory=dict)

    def series(self, rail: str) -> Tuple[np.ndarray, np.ndarray, List[float]]:
        """(N,) times and (N,) watts of a rail or of `TOTAL`, and the times of faults. A reading
        without the rail is a fault."""
        needed = [rail]
        if rail == TOTAL:
            rails = sorted({name for reading in self.readings for name in reading.watts})
            needed = [name for name in rails if name in _INPUTS][:1] or rails
        faults = [seconds for seconds, _ in self.faults]
        times, watts = [], []
        for reading in self.readings:
            if all(name in reading.watts for name in needed):
                times.append(reading.seconds)
                watts.append(sum(reading.watts[name] for name in needed))
            else:
                faults.append(reading.seconds)
        return np.array(times), np.array(watts), faults

    def energy(self, rail: str, phase: str) -> Tuple[float, float]:
        """Joules in a phase outside of gaps, and the seconds that they cover."""
        return integrate(*self.series(rail), self.phases.get(phase, (0.0, 0.0)), self.period)

    def cut(self, start: float, end: float) -> Log:
        """The part from `start` to `end` as a log whose phase "run" it is. The idle phase stays, and
        so do readings close before and after: they give the power at both ends."""
        late, (idle_start, idle_end) = LATE * self.period, self.phases.get("idle", (0.0, -1.0))
        readings = [
            reading
            for reading in list(self.readings)  # the sampler may be adding to it
            if start - late <= reading.seconds <= end + late
            or idle_start <= reading.seconds <= idle_end
        ]
        faults = [fault for fault in self.faults if fault[0] <= end + late]
        return Log(self.sensor, self.period, readings, faults, {**self.phases, "run": (start, end)})


class Sampler:
    """Reads a sensor every `period` seconds behind a `with` block; `log` has what it saw. Without a
    sensor only phases are noted."""

    def __init__(self, sensor: Optional[Sensor], period: float) -> None:
        self.sensor = sensor
        self.log = Log(sensor.name if sensor else "", period)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="power", daemon=True)

    def __enter__(self) -> Sampler:
        if self.sensor is not None:
            try:
                self.sensor.open(self.log.period)
                self._thread.start()
            except SensorFault as fault:
                self._fault(str(fault))
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        if self.sensor is not None:
            self.sensor.close()
        if self._thread.is_alive():
            self._thread.join(2)  # a driver that hangs keeps its daemon thread

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Note when the block began and ended."""
        start = time.monotonic()
        try:
            yield
        finally:
            self.log.phases[name] = start, time.monotonic()

    def _run(self) -> None:
        assert self.sensor is not None
        good = True
        for item in self.sensor.stream(self.log.period, self._stop):
            if self._stop.is_set():
                return
            if isinstance(item, Reading) and item.is_possible():
                self.log.readings.append(item)
                good = True
            elif good:  # the first fault names the gap: a flood must not fill the log
                self._fault(f"impossible: {item}" if isinstance(item, Reading) else item)
                good = False

    def _fault(self, reason: str) -> None:
        self.log.faults.append((time.monotonic(), " ".join(reason.split())))


def write_log(path: Union[str, Path], log: Log) -> None:
    """Write a log as JSON, whole or not at all (`files.write_text`)."""
    write_text(path, json.dumps(asdict(log)) + "\n")


def read_log(path: Union[str, Path]) -> Log:
    """A log of `write_log`. Raises InputError for any other file."""
    try:
        saved = json.loads(Path(path).read_text(encoding="utf-8"))
        saved["readings"] = [Reading(*reading) for reading in saved["readings"]]
        return Log(**saved)
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise InputError(f"{path}: not a power log ({error})") from None


# -- Power and energy ------------------------------------------------------------------------------


def integrate(
    times: np.ndarray, watts: np.ndarray, faults: Sequence[float], span: Span, period: float
) -> Tuple[float, float]:
    """Joules in a span by the trapezoidal rule, and the seconds with good readings. Readings with a
    fault between them, or more than 1.75 periods apart, have a gap between them. Before the first
    reading and after the last, power is constant for as long."""
    if len(times) == 0:
        return 0.0, 0.0
    edges = np.array([min(span[0], times[0]), *times, max(span[1], times[-1])])
    good = np.diff(edges) <= LATE * period
    good &= np.diff(np.searchsorted(np.sort(faults), edges)) == 0
    edges = np.clip(edges, span[0], span[1])
    power, seconds = np.interp(edges, times, watts), np.diff(edges)
    joules = (power[1:] + power[:-1]) / 2 * seconds
    return float(joules[good].sum()), float(seconds[good].sum())


def thesis_power(
    times: np.ndarray, watts: np.ndarray, start: float, end: float, period: float = THESIS_PERIOD
) -> float:
    """Watts as in section 4.3: a sample every `period` s, the mean of all samples so far, the
    largest of these means; NaN without samples.

    tegrastats prints that mean as the second number of a rail. Here it starts with the run, and is
    the same for every sensor: a sample is the latest reading, if that is younger than a period.
    """
    ticks = np.arange(start + period, end + 1e-9, period) if end - start >= period else [end]
    latest = [(np.searchsorted(times, tick, side="right") - 1, tick) for tick in ticks]
    samples = [watts[i] for i, tick in latest if i >= 0 and times[i] > tick - period]
    means = np.cumsum(samples) / np.arange(1, len(samples) + 1)
    return float(means.max()) if len(means) else float("nan")


def measure_parts(parts: Sequence[Tuple[Log, int]], fps: float) -> Dict[str, Any]:
    """The power of a run in parts, each a log and the frames tracked in its phase "run", as
    `COLUMNS` of a table, with its sensor and rail: the GPU's, or all without one.

    power_w: mean over the seconds with readings (power_covered_s, of power_s); idle_w: of the idle
    phase. energy_j: mean power x seconds per frame; net_energy_j: with the idle power subtracted;
    _spread: standard deviation over parts. _thesis: by section 4.3, with the parts in a row, and
    by `fps`. NaN where unknown; no sensor (None) where no part has one.
    """
    sensor = next((log.sensor for log, _ in parts if log.sensor), None)
    if sensor is None:
        return {"sensor": None, "rail": None, **dict.fromkeys(COLUMNS, float("nan"))}
    logs = [log for log, _ in parts if log.sensor == sensor]
    rail = usual_rail(logs)
    frames = np.array([count for log, count in parts if log.sensor == sensor], float)
    seconds = np.array([np.ptp(log.phases["run"]) for log in logs])
    joules, covered = np.array([log.energy(rail, "run") for log in logs]).T
    idle = _ratio(*np.sum([log.energy(rail, "idle") for log in logs], axis=0))
    watts, frame = _ratio(joules.sum(), covered.sum()), _ratio(seconds.sum(), frames.sum())
    known = (covered > 0) & (frames > 0)
    own, own_frame = joules[known] / covered[known], seconds[known] / frames[known]
    thesis = thesis_power(*_in_a_row(logs, rail), 0.0, seconds.sum())
    return {
        "sensor": sensor,
        "rail": rail,
        "power_w_thesis": thesis,
        "energy_j_thesis": _ratio(thesis, fps),
        "power_w": watts,
        "idle_w": idle,
        "energy_j": watts * frame,
        "energy_j_spread": _spread(own * own_frame),
        "net_energy_j": (watts - idle) * frame,
        "net_energy_j_spread": _spread((own - idle) * own_frame),
        "power_s": float(seconds.sum()),
        "power_covered_s": float(covered.sum()),
    }


def _in_a_row(logs: Sequence[Log], rail: str) -> Tuple[np.ndarray, np.ndarray]:
    """Times and watts of the logs' runs, one run after the other from 0 s."""
    times, watts, before = [], [], 0.0
    for log in logs:
        start, end = log.phases["run"]
        seen, drawn, _ = log.series(rail)
        inside = (start <= seen) & (seen <= end)
        times.append(seen[inside] - start + before)
        watts.append(drawn[inside])
        before += end - start
    return np.concatenate(times), np.concatenate(watts)


def usual_rail(logs: Sequence[Log]) -> str:
    """The GPU's, or all without one."""
    rails = sorted({name for log in logs for reading in log.readings for name in reading.watts})
    return "GPU" if "GPU" in rails else next((name for name in rails if "GPU" in name), TOTAL)


def _ratio(value: float, by: float) -> float:
    return float(value / by) if by > 0 else float("nan")


def _spread(values: np.ndarray) -> float:
    """Standard deviation; NaN of fewer than two values."""
    return float(values.std(ddof=1)) if len(values) > 1 else float("nan")
