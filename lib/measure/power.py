"""Power and energy of a run, for tables 4.6 and 4.7 and figure 4.11 (sections 3.3.4 and 4.3).

A sampler reads one sensor beside the run: tegrastats on a Jetson, NVML on other NVIDIA GPUs, RAPL
on x86 processors. Its log gives two figures. The thesis's (`thesis_power`): a sample in five
seconds, their running average, its largest value; energy per frame is that / FPS. The better one
(`measure`): power integrated over the run, the idle power subtracted, with a spread.

    sensor, note = find_sensor("cuda")
    with Sampler(sensor, path="run/power.csv") as sampler:
        with sampler.phase("idle"): time.sleep(30)
        with sampler.phase("run"): ...
    print(note, measure(sampler.log, frames=21356))

`quality.measure` samples beside what it times: one sampler for all, of whose log each sequence of a
variant keeps its part (`Log.cut`, `write_log`), with the idle time before; `measure_parts` puts a
variant's parts together again.

Nothing that a sensor does ends the run. A time without good readings is a gap with a reason, and is
not integrated over. Times are seconds of the monotonic clock since the sampler's start; power is in
watts.
"""

from __future__ import annotations

import csv
import io
import os
import re
import signal
import subprocess
import threading
import time
from bisect import bisect_right
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import (
    IO,
    Any,
    Dict,
    Iterator,
    List,
    Mapping,
    NamedTuple,
    Optional,
    Sequence,
    Tuple,
    Union,
)

import numpy as np

from lib.errors import InputError
from lib.files import write_text

THESIS_PERIOD = 5.0  # s, section 4.3
PERIOD = 0.5  # s between two readings of a run
IDLE_SECONDS = 10.0  # that the idle power is taken over, before a run
TOTAL = "total"  # in place of a rail: all of them
MOST_WATTS = 2000.0  # no rail of anything measured here takes more
_LATE = 1.75  # sampling periods between two readings: one is missing
_INPUTS = ("VDD_IN", "POM_5V_IN")  # rails of some Jetsons that already hold all others
_KINDS = ("power", "average", "temperature", "load")
_COLUMNS = ("seconds", "time", "event", *_KINDS)

# mW now / on average since tegrastats began
_RAIL = re.compile(r"\b([A-Za-z]\w*) (-?\d+)(?:mW)?/(-?\d+)(?:mW)?(?!\S)")
_TEMPERATURE = re.compile(r"\b([A-Za-z]\w*)@(-?\d+(?:\.\d+)?)C\b")
_LOAD = re.compile(r"\b(GR3D|EMC)_FREQ (\d+)%")
_CORES = re.compile(r"\bCPU \[([^\]]*)\]")


class SensorFault(Exception):
    """Why a sensor gives no reading; becomes the reason of a gap."""


@dataclass(frozen=True)
class Reading:
    """power, average: {rail: W}, now and since the sensor began; temperature: degrees Celsius;
    load: percent; seconds: when.

    age: how many seconds ago the power was so (a counter gives the mean since its last reading:
    half of that time).
    """

    power: Mapping[str, float]
    average: Mapping[str, float] = field(default_factory=dict)
    temperature: Mapping[str, float] = field(default_factory=dict)
    load: Mapping[str, float] = field(default_factory=dict)
    age: float = 0.0
    seconds: float = 0.0


def parse_tegrastats(line: str) -> Reading:
    """A line of tegrastats, of any Jetson: rails as `GPU 2534/2534` (JetPack 4) or `GPU
    2534mW/2534mW` (5 and later).

    load: GPU, EMC (memory) and CPU, the mean over all cores. Raises SensorFault where no rail is in
    the line.
    """
    rails = [rail for rail in _RAIL.findall(line) if rail[0] != "NC"]  # not connected
    if not rails:
        raise SensorFault(f"a line without power ({line.strip()[:40]!r})")
    load = {"GPU" if name == "GR3D" else name: float(value) for name, value in _LOAD.findall(line)}
    cores = _CORES.search(line)
    if cores:
        # 0 where it says "off"
        shares = [
            float(core.partition("%")[0]) if "%" in core else 0.0 for core in cores[1].split(",")
        ]
        load["CPU"] = sum(shares) / len(shares)
    # -256: switched off
    temperature = {
        name: float(value) for name, value in _TEMPERATURE.findall(line) if float(value) > -200
    }
    return Reading(
        {name: int(now) / 1000 for name, now, _ in rails},
        {name: int(mean) / 1000 for name, _, mean in rails},
        temperature,
        load,
    )


class Sensor:
    """A sensor that is asked for each reading (`read`). `open` raises SensorFault where it is not
    to be had."""

    name = ""

    def open(self, period: float) -> None:
        raise NotImplementedError

    def read(self) -> Optional[Reading]:
        raise NotImplementedError

    def close(self) -> None:
        """Let go of everything; a waiting `stream` ends."""

    def stream(self, period: float, stop: threading.Event) -> Iterator[Union[Reading, str]]:
        """Readings as they come, faults as sentences, until `stop` is set. period: s."""
        due = time.monotonic()
        while not stop.is_set():
            try:
                reading = self.read()
                if reading is not None:
                    yield reading
            except SensorFault as fault:
                yield str(fault)
            due = max(due + period, time.monotonic())
            stop.wait(due - time.monotonic())


class Tegrastats(Sensor):
    """NVIDIA's program that prints a line a period. command: another one, or with arguments."""

    name = "tegrastats"

    def __init__(self, command: Sequence[str] = ("tegrastats",)) -> None:
        self.command = tuple(command)
        self.process: Optional[subprocess.Popen[bytes]] = None

    def open(self, period: float) -> None:
        command = [*self.command, "--interval", str(max(1, round(period * 1000)))]
        # In a session of its own: Ctrl-C in a terminal does not reach it, `close` reaches
        # its children, too
        try:
            self.process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        except OSError as error:
            raise SensorFault(f"{self.command[0]}: {error.strerror}") from None

    def stream(self, period: float, stop: threading.Event) -> Iterator[Union[Reading, str]]:
        process = self.process
        assert process is not None and process.stdout is not None
        with process.stdout as output:
            for raw in iter(lambda: output.readline(65536), b""):
                if stop.is_set():
                    return
                try:
                    if not raw.endswith(b"\n"):
                        raise SensorFault("a line without an end")
                    yield parse_tegrastats(raw.decode("utf-8", "replace"))
                except SensorFault as fault:
                    yield f"tegrastats: {fault}"
        with suppress(subprocess.TimeoutExpired):
            process.wait(1)
        yield f"tegrastats ended (status {process.returncode})"

    def close(self) -> None:
        process, self.process = self.process, None
        if process is None:
            return
        try:
            with suppress(ProcessLookupError, subprocess.TimeoutExpired):  # gone already, or deaf
                os.killpg(process.pid, signal.SIGTERM)
                process.wait(1)
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)  # also children that outlive it
            process.wait()


class Nvml(Sensor):
    """An NVIDIA GPU's own sensor; the whole card is rail `GPU`. index: as CUDA counts."""

    name = "NVML"

    def __init__(self, index: int = 0) -> None:
        self.index = index
        self.nvml: Any = None

    def open(self, period: float) -> None:
        try:
            import pynvml
        except ImportError:
            raise SensorFault("NVML: a package is missing (pip install nvidia-ml-py)") from None
        visible = [
            name.strip()
            for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")
            if name.strip()
        ]
        name = visible[self.index] if self.index < len(visible) else str(self.index)
        try:
            pynvml.nvmlInit()
            self.nvml = pynvml
            by_index = name.isdigit()
            self.handle = (
                pynvml.nvmlDeviceGetHandleByIndex(int(name))
                if by_index
                else pynvml.nvmlDeviceGetHandleByUUID(name)
            )
        except pynvml.NVMLError as error:
            raise SensorFault(f"NVML: {error}") from None
        self.read()

    def read(self) -> Reading:
        nvml = self.nvml
        try:
            return Reading(
                {"GPU": nvml.nvmlDeviceGetPowerUsage(self.handle) / 1000},
                temperature={
                    "GPU": float(
                        nvml.nvmlDeviceGetTemperature(self.handle, nvml.NVML_TEMPERATURE_GPU)
                    )
                },
                load={"GPU": float(nvml.nvmlDeviceGetUtilizationRates(self.handle).gpu)},
            )
        except nvml.NVMLError as error:
            raise SensorFault(f"NVML: {error}") from None

    def close(self) -> None:
        if self.nvml is not None:
            self.nvml.nvmlShutdown()
            self.nvml = None


class Rapl(Sensor):
    """The energy counters of x86 processors (packages, and memory where it is counted apart), in µJ
    under `root`."""

    name = "RAPL"

    def __init__(self, root: Union[str, Path] = "/sys/class/powercap") -> None:
        self.root = Path(root)

    def open(self, period: float) -> None:
        self.zones: Dict[str, Path] = {}
        self.last: Optional[Tuple[float, Dict[str, int]]] = None
        try:
            for zone in sorted(self.root.glob("intel-rapl:*")):  # AMD's, too, have this name
                name = (zone / "name").read_text().strip()
                # Not psys, which holds the packages, nor core and uncore, which are in them
                if name.startswith("package"):
                    self.zones[name] = zone
                elif name == "dram":
                    self.zones[
                        (zone.with_name(zone.name.rpartition(":")[0]) / "name").read_text().strip()
                        + "/dram"
                    ] = zone
        except OSError as error:
            raise SensorFault(f"RAPL: {error.filename}: {error.strerror}") from None
        if not self.zones:
            raise SensorFault(f"RAPL: no counters in {self.root}")
        self.read()

    def read(self) -> Optional[Reading]:
        last, self.last = self.last, None  # after a fault a mean would reach over it: begin anew
        try:
            counts = {
                name: int((zone / "energy_uj").read_text()) for name, zone in self.zones.items()
            }
            now = time.monotonic()
            used = {name: count - last[1][name] for name, count in counts.items()} if last else {}
            for name in used:
                if used[name] < 0:  # the counter began again at 0
                    used[name] += int((self.zones[name] / "max_energy_range_uj").read_text())
        except OSError as error:
            raise SensorFault(f"RAPL: {error.filename}: {error.strerror}") from None
        except ValueError:
            raise SensorFault("RAPL: a counter holds no number") from None
        self.last = now, counts
        if last is None or now <= last[0]:
            return None
        return Reading(
            {name: value / 1e6 / (now - last[0]) for name, value in used.items()},
            age=(now - last[0]) / 2,
        )


def find_sensor(
    device: Optional[str] = None,
    tegrastats: str = "tegrastats",
    powercap: Union[str, Path] = "/sys/class/powercap",
) -> Tuple[Optional[Sensor], str]:
    """The sensor for what runs on `device` ("cuda:1", "cpu"; None: whichever is there) and its
    name; or None and why."""
    index = int((device or "").partition(":")[2] or 0)
    sensors: List[Sensor] = [Tegrastats((tegrastats,))]
    sensors += [] if device == "cpu" else [Nvml(index)]
    sensors += [] if (device or "").startswith("cuda") else [Rapl(powercap)]
    reasons = []
    for sensor in sensors:
        try:
            sensor.open(1.0)
            return sensor, sensor.name
        except SensorFault as fault:
            reasons.append(str(fault))
        finally:
            sensor.close()
    return None, f"no power sensor here ({'; '.join(reasons)})"


Event = Tuple[float, str, str]


@dataclass
class Log:
    """What a sampler saw. sensor: "" where there is none; period: s; events: (seconds, kind, text).

    Kinds: fault (of the sensor), begin and end (of the phase that is the text), note (anything
    else).
    """

    sensor: str
    period: float
    readings: List[Reading] = field(default_factory=list)
    events: List[Event] = field(default_factory=list)

    def phase(self, name: str) -> Optional[Tuple[float, float]]:
        """Start and end of a phase in seconds, or None. One that a kill cut off ends with the
        log."""
        times = {
            kind: seconds
            for seconds, kind, text in self.events
            if text == name and kind in ("begin", "end")
        }
        last = max(
            [seconds for seconds, _, _ in self.events]
            + [reading.seconds for reading in self.readings],
            default=0.0,
        )
        return (
            (times["begin"], times["end"] if times.get("end", -1.0) >= times["begin"] else last)
            if times
            else None
        )

    def series(self, rail: str) -> Tuple[np.ndarray, np.ndarray, List[Tuple[float, str]]]:
        """(N,) times and (N,) watts of a rail or of `TOTAL`; faults as (seconds, reason), a line
        without the rail being one."""
        needed = (
            [rail]
            if rail != TOTAL
            else [name for name in self.rails() if name in _INPUTS][:1] or self.rails()
        )
        points, faults = (
            [],
            [(seconds, text) for seconds, kind, text in self.events if kind == "fault"],
        )
        for reading in self.readings:
            missing = [name for name in needed if name not in reading.power]
            if missing:
                faults.append((reading.seconds, f"a line without {', '.join(missing)}"))
            else:
                points.append((reading.seconds, sum(reading.power[name] for name in needed)))
        table = np.array(points, float).reshape(-1, 2)
        return table[:, 0], table[:, 1], faults

    def rails(self) -> List[str]:
        """Names of all rails, the GPU's first."""
        names = {name for reading in self.readings for name in reading.power}
        return sorted(names, key=lambda name: (name != "GPU", "GPU" not in name, name))

    def cut(self, start: float, end: float, name: str = "run") -> Log:
        """The part from `start` to `end` (s) as a log of its own, which is its phase `name`; the
        idle phase stays in it.

        The reading before `start` stays, too, where it is close enough to tell the power at
        `start`.
        """
        # The sampler may be adding to both
        readings, events = list(self.readings), list(self.events)
        idle, early = self.phase("idle") or (0.0, -1.0), start - _LATE * self.period
        heard = max(
            (reading.seconds for reading in readings if reading.seconds < early), default=0.0
        )
        kept = [
            reading
            for reading in readings
            if early <= reading.seconds <= end or idle[0] <= reading.seconds <= idle[1]
        ]
        noted = [
            event
            for event in events
            if event[1] in ("fault", "note")
            and (heard <= event[0] <= end or idle[0] <= event[0] <= idle[1])
        ]
        phases = [event for event in events if event[2] == "idle" and event[1] in ("begin", "end")]
        return Log(
            self.sensor,
            self.period,
            kept,
            sorted([*phases, *noted, (start, "begin", name), (end, "end", name)]),
        )


class Sampler:
    """Reads a sensor every `period` seconds behind a `with` block; `log` has what it saw, and so
    has the CSV file `path`.

    The file grows line by line: a kill costs one at most, and `read_log` reads the rest. Without a
    sensor only phases are noted. Raises InputError where `path` cannot be written. Later faults, of
    the sensor or a full disk, are in the log.
    """

    def __init__(
        self, sensor: Optional[Sensor], period: float = 1.0, path: Union[str, Path, None] = None
    ) -> None:
        self.sensor, self.path = sensor, path
        self.log = Log(sensor.name if sensor else "", period)
        self._file: Optional[IO[str]] = None
        self._lock, self._stop = threading.Lock(), threading.Event()
        self._thread = threading.Thread(target=self._run, name="power", daemon=True)

    def __enter__(self) -> Sampler:
        if self.path is not None:
            try:
                Path(self.path).parent.mkdir(parents=True, exist_ok=True)
                self._file = open(self.path, "w", encoding="utf-8")
                self._file.write(_head(self.log))
                self._file.flush()
            except OSError as error:
                raise InputError(f"{self.path}: cannot be written ({error.strerror})") from None
        self._start = time.monotonic()
        if self.sensor is not None:
            try:
                self.sensor.open(self.log.period)
                self._thread.start()
            except SensorFault as fault:
                self._note("fault", str(fault))
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        try:
            if self.sensor is not None:
                self.sensor.close()
        finally:
            if self._thread.is_alive():
                self._thread.join(2)  # a driver that hangs keeps its daemon thread
            with self._lock:
                self._close_file()

    def now(self) -> float:
        """Seconds since the start, for the times of frames."""
        return self.since(time.monotonic())

    def since(self, moment: float) -> float:
        """Seconds from the start to a moment of the monotonic clock."""
        return moment - self._start

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Name a part of the log: "run" is what is measured, the power of "idle" is subtracted from
        it."""
        self._note("begin", name)
        try:
            yield
        finally:
            self._note("end", name)

    def _run(self) -> None:
        assert self.sensor is not None
        faults = 0
        try:
            for item in self.sensor.stream(self.log.period, self._stop):
                if self._stop.is_set():
                    return
                if isinstance(item, Reading):
                    wrong = [
                        f"{name} at {watts:g} W"
                        for name, watts in item.power.items()
                        if not 0 <= watts <= MOST_WATTS
                    ]
                    if not wrong:
                        faults = 0
                        self._add(replace(item, seconds=self.now() - item.age))
                        continue
                    item = f"impossible power ({', '.join(wrong)})"
                faults += 1
                if faults <= 3:  # these name the gap; a flood of garbage shall not fill the disk
                    self._note("fault", item)
        # The run goes on, whatever a driver raises here, and the log says it
        except Exception as error:
            if not self._stop.is_set():
                self._note("fault", f"{self.log.sensor} failed ({type(error).__name__}: {error})")

    def _add(self, reading: Reading) -> None:
        self.log.readings.append(reading)
        self._write(reading)

    def _note(self, kind: str, text: str) -> None:
        text = " ".join(text.split())
        self.log.events.append((self.now(), kind, text))
        self._write(self.log.events[-1])

    def _write(self, item: Union[Reading, Event]) -> None:
        # For people: this clock may jump
        date = datetime.now(timezone.utc).isoformat(timespec="seconds")
        seconds = item.seconds if isinstance(item, Reading) else item[0]
        with self._lock:
            if self._file is not None:
                try:
                    self._file.write(_line(item, date))
                    self._file.flush()
                except OSError as error:  # a full disk: the log goes on in memory
                    self._close_file()
                    self.log.events.append(
                        (seconds, "note", f"{self.path} cannot be written ({error.strerror})")
                    )

    def _close_file(self) -> None:
        file, self._file = self._file, None
        if file is not None:
            with suppress(OSError):  # what could not be written has been noted
                file.close()


def _head(log: Log) -> str:
    return f"# {log.sensor or 'no sensor'}, every {log.period:g} s\n{','.join(_COLUMNS)}\n"


def _line(item: Union[Reading, Event], date: str = "") -> str:
    """A reading or an event as a line of a log's file."""
    if isinstance(item, Reading):
        groups = [getattr(item, kind) for kind in _KINDS]
        seconds, event = item.seconds, ""
        values = [
            " ".join(f"{name}={value:.6g}" for name, value in group.items()) for group in groups
        ]
    else:
        seconds, event, values = item[0], f"{item[1]}: {item[2]}", [""] * len(_KINDS)
    row = io.StringIO()
    csv.writer(row, lineterminator="\n").writerow([f"{seconds:.4f}", date, event, *values])
    return row.getvalue()


def write_log(path: Union[str, Path], log: Log) -> None:
    """Write a log, whole or not at all; `read_log` reads it. Raises InputError where the place
    cannot be written to."""

    def when(item: Union[Reading, Event]) -> float:
        return item.seconds if isinstance(item, Reading) else item[0]

    items: List[Union[Reading, Event]] = [*log.events, *log.readings]
    write_text(path, _head(log) + "".join(map(_line, sorted(items, key=when))))


def read_log(path: Union[str, Path]) -> Log:
    """A sampler's log; a last line without an end (a kill) is left out. Raises InputError naming
    file and line."""
    try:
        lines = Path(path).read_text(encoding="utf-8").split("\n")[:-1]
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(
            f"{path}: cannot be read ({getattr(error, 'strerror', None) or 'not a text file'})"
        ) from None
    head = re.fullmatch(r"# (.+), every ([\d.e+-]+) s", lines[0] if lines else "")
    if head is None:
        raise InputError(f"{path}: not a power log")
    log = Log("" if head[1] == "no sensor" else head[1], float(head[2]))
    for number, row in enumerate(csv.reader(lines[2:]), 3):
        try:
            seconds, _, event, *groups = row
            if event:
                kind, _, text = event.partition(": ")
                log.events.append((float(seconds), kind, text))
            else:
                pairs = [[pair.rpartition("=") for pair in group.split()] for group in groups]
                values = [{name: float(value) for name, _, value in group} for group in pairs]
                log.readings.append(Reading(**dict(zip(_KINDS, values)), seconds=float(seconds)))  # type: ignore[arg-type]
        except (ValueError, TypeError):
            raise InputError(f"{path}: line {number} is not a line of a power log") from None
    return log


class Gap(NamedTuple):
    """A time, in seconds, without good readings."""

    start: float
    end: float
    reason: str


Times = Union[Sequence[float], np.ndarray]


def find_gaps(
    times: Times, faults: Sequence[Tuple[float, str]], start: float, end: float, period: float
) -> List[Gap]:
    """Where in `start`..`end` two readings in a row have a fault between them or are too far apart
    for `period` (all s)."""
    gaps, faults = [], sorted(faults)
    stamps = [seconds for seconds, _ in faults]
    for a, b in zip([-np.inf, *times], [*times, np.inf]):
        if b <= start or a >= end:
            continue
        between = faults[bisect_right(stamps, a) : bisect_right(stamps, b if b < np.inf else end)]
        length = (b if b < np.inf else end) - (a if a > -np.inf else start)
        if between or length > _LATE * period:
            reasons = dict.fromkeys(reason for _, reason in between)
            gaps.append(
                Gap(
                    float(max(a, start)),
                    float(min(b, end)),
                    "; ".join(reasons) or f"no reading for {length:.3g} s",
                )
            )
    return gaps


def integrate(
    times: Times, watts: Times, gaps: Sequence[Gap], start: float, end: float
) -> Tuple[float, float]:
    """Joules (trapezoid) between `start` and `end` outside of the gaps, and the seconds that they
    cover.

    Before the first and after the last reading the power is taken as constant, unless there is a
    gap.
    """
    if len(times) == 0 or end <= start:
        return 0.0, 0.0
    borders = [border for gap in gaps for border in (gap.start, gap.end)]
    grid = np.unique(np.clip([start, *times, *borders, end], start, end))
    power, lengths, middles = (
        np.interp(grid, times, watts),
        np.diff(grid),
        (grid[1:] + grid[:-1]) / 2,
    )
    good = np.ones(len(lengths), bool)
    for gap in gaps:
        good &= (middles < gap.start) | (middles > gap.end)
    return float(((power[1:] + power[:-1]) / 2 * lengths)[good].sum()), float(lengths[good].sum())


def thesis_power(
    times: Times, watts: Times, start: float, end: float, period: float = THESIS_PERIOD
) -> float:
    """Watts as in section 4.3: a sample each `period` s, the mean of all samples so far, the
    largest of these means; NaN if none.

    That mean is the second number that tegrastats prints. Here it is taken of the run alone, for
    every sensor, from its latest reading at each sample; one older than a period is none.
    """
    ticks = (
        np.arange(start + period, end + 1e-9, period) if end - start >= period else np.array([end])
    )
    latest = np.searchsorted(times, ticks, side="right") - 1
    samples = [
        watts[index]
        for index, tick in zip(latest, ticks)
        if index >= 0 and times[index] > tick - period
    ]
    return (
        float((np.cumsum(samples) / np.arange(1, len(samples) + 1)).max())
        if samples
        else float("nan")
    )


def energy_per_frame(watts: float, fps: float) -> float:
    """Joules: P / FPS (section 4.3)."""
    return watts / fps if fps > 0 else float("nan")


@dataclass(frozen=True)
class Power:
    """Power (W) and energy (J) of a run; NaN where unknown.

    seconds: of the run; covered: those with readings; watts, joules: mean power and energy of
    these; idle_watts: the mean of the idle phase. energy_per_frame: the mean power x seconds a
    frame, spread: its standard deviation over blocks of frames; net: the same with the idle power
    subtracted. thesis: section 4.3, with the run's frames a second.
    """

    sensor: str
    rail: str
    seconds: float
    covered: float
    frames: int
    watts: float
    joules: float
    idle_watts: float
    energy_per_frame: float
    energy_spread: float
    net_energy_per_frame: float
    net_energy_spread: float
    thesis_watts: float
    thesis_energy_per_frame: float
    gaps: Tuple[Gap, ...]


def measure(
    log: Log,
    frames: Union[int, Sequence[float]],
    phase: str = "run",
    rail: Optional[str] = None,
    blocks: int = 10,
) -> Power:
    """The power of a phase of the log. frames: how many it tracked, or the times (s, `Sampler.now`)
    at which each was done.

    rail: a name in the log or `TOTAL`; by default the GPU's, or all without one. Raises InputError
    for an unknown phase or rail.
    """
    span, idle_span, rails = log.phase(phase), log.phase("idle"), log.rails()
    if span is None:
        raise InputError(f"the power log has no phase '{phase}'")
    if rails and rail not in (None, TOTAL, *rails):
        raise InputError(f"the power log has no rail '{rail}', only {', '.join(rails)}")
    rail = rail or _usual_rail(rails)
    times, watts, faults = log.series(rail)

    def mean(begin: float, stop: float) -> Tuple[float, float, float]:
        joules, covered = integrate(
            times, watts, find_gaps(times, faults, begin, stop, log.period), begin, stop
        )
        return (joules / covered if covered else float("nan")), joules, covered

    (start, end), idle = span, mean(*idle_span)[0] if idle_span else float("nan")
    power, joules, covered = mean(start, end)
    done = (
        np.linspace(start, end, int(frames) + 1)[1:]
        if isinstance(frames, (int, np.integer))
        else np.asarray(frames, float)
    )
    fps = len(done) / (end - start) if end > start else 0.0
    pieces = [piece for piece in np.array_split(done, blocks) if len(piece)]
    borders = [start, *(float(piece[-1]) for piece in pieces)]
    shares = np.array(
        [((b - a) / len(piece), mean(a, b)[0]) for a, b, piece in zip(borders, borders[1:], pieces)]
    ).reshape(-1, 2)
    shares = shares[~np.isnan(shares[:, 1])]  # blocks without any reading
    # J a frame, with and without the idle power
    each = [shares[:, 0] * (shares[:, 1] - base) for base in (0.0, idle)]
    thesis = thesis_power(times, watts, start, end)
    gaps = find_gaps(times, faults, start, end, log.period) if log.sensor else []
    return Power(
        log.sensor,
        rail,
        end - start,
        covered,
        len(done),
        power,
        joules,
        idle,
        energy_per_frame(power, fps),
        _spread(each[0]),
        energy_per_frame(power - idle, fps),
        _spread(each[1]),
        thesis,
        energy_per_frame(thesis, fps),
        tuple(gaps),
    )


def measure_parts(parts: Sequence[Tuple[Log, int]], fps: float) -> Optional[Power]:
    """The power of a run in parts, each with a log and the frames tracked in it; None where no part
    has a log of a sensor.

    Energy a frame is that of all covered parts, its spread the standard deviation over them. The
    thesis's power is taken of the parts in a row, its energy a frame with `fps`, the frames a
    second of the tables. Times of gaps are of the parts in a row.
    """
    sensor = next((log.sensor for log, _ in parts if log.sensor), "")
    # One sensor's watts are not another one's
    logs = [(log, frames) for log, frames in parts if log.sensor == sensor]
    if not sensor:
        return None
    rail, offset = _usual_rail([name for log, _ in logs for name in log.rails()]), 0.0
    ones: List[Power] = []
    gaps: List[Gap] = []
    times: List[np.ndarray] = []
    watts: List[np.ndarray] = []
    for log, frames in logs:
        if rail != TOTAL and rail not in log.rails():
            log = replace(log, readings=[])  # nothing of this rail was heard in this part
        one = measure(log, frames, rail=rail if log.readings else None)
        shift = offset - (log.phase("run") or (0.0, 0.0))[0]
        seen, taken, _ = log.series(rail)
        inside = (seen + shift >= offset) & (seen + shift <= offset + one.seconds)
        times, watts = [*times, seen[inside] + shift], [*watts, taken[inside]]
        gaps += [Gap(gap.start + shift, gap.end + shift, gap.reason) for gap in one.gaps]
        offset += one.seconds
        ones.append(one)
    covered, joules, frames = (
        sum(getattr(one, name) for one in ones) for name in ("covered", "joules", "frames")
    )
    idles = [one.idle_watts for one in ones if not np.isnan(one.idle_watts)]
    power, idle = (
        joules / covered if covered else float("nan"),
        float(np.mean(idles)) if idles else float("nan"),
    )
    rate = frames / offset if offset else 0.0
    thesis = thesis_power(np.concatenate(times), np.concatenate(watts), 0.0, offset)
    return Power(
        sensor,
        rail,
        offset,
        covered,
        frames,
        power,
        joules,
        idle,
        energy_per_frame(power, rate),
        _spread([one.energy_per_frame for one in ones]),
        energy_per_frame(power - idle, rate),
        _spread([one.net_energy_per_frame for one in ones]),
        thesis,
        energy_per_frame(thesis, fps),
        tuple(gaps),
    )


def _usual_rail(rails: Sequence[str]) -> str:
    """The GPU's, or all without one."""
    return next(
        (name for name in rails if name == "GPU"),
        next((name for name in rails if "GPU" in name), TOTAL),
    )


def _spread(values: Union[Sequence[float], np.ndarray]) -> float:
    """Standard deviation of what is known; NaN of less than two."""
    known = np.asarray(values, float)
    known = known[~np.isnan(known)]
    return float(known.std(ddof=1)) if len(known) > 1 else float("nan")
