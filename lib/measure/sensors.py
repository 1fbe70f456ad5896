"""Power sensors: tegrastats or INA3221 on a Jetson, NVML on other NVIDIA GPUs, RAPL on x86
processors (section 3.3.4).

A sensor is opened, streams readings, and is closed. A fault while it streams is a sentence in the
stream; it does not end the run (`lib.measure.power`).
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Dict, Iterator, List, Mapping, NamedTuple, Optional, Sequence, Tuple, Union

import numpy as np

POWERCAP = Path("/sys/class/powercap")
I2C = Path("/sys/bus/i2c/drivers")
# "GPU 2534/2534" (JetPack 4), "GPU 2534mW/2534mW" (5), "GPU 2534mW/2534mW/9000mW" (7): mW now / on
# average so far / at most
_RAIL = re.compile(r"\b([A-Za-z]\w*) (-?\d+)(?:mW)?(?:/-?\d+(?:mW)?){1,2}(?!\S)")
NOT_CONNECTED = "NC"
OFFSET = 1.0  # W, by which a monitor may read an idle rail too low


class SensorFault(Exception):
    """Why a sensor gives no reading."""


class Reading(NamedTuple):
    """When, in seconds of the monotonic clock, and the watts of each rail."""

    seconds: float
    watts: Mapping[str, float]

    def is_possible(self) -> bool:
        """No rail of a machine that is measured here draws more than 2 kW."""
        return all(-OFFSET <= watts <= 2000 for watts in self.watts.values())


def parse_tegrastats(line: str) -> Dict[str, float]:
    """Watts of each rail in a line of tegrastats, from any Jetson. Raises SensorFault where the
    line has no rail."""
    found = {rail: int(milliwatts) / 1000 for rail, milliwatts in _RAIL.findall(line)}
    found.pop(NOT_CONNECTED, None)
    if not found:
        raise SensorFault(f"a line without power ({line.strip()[:40]!r})")
    return found


class Sensor:
    """A sensor that is asked for each reading (`read`); None: the next one will be the first."""

    name = ""

    def open(self, period: float) -> None:
        """Raises SensorFault where the sensor is missing. period: seconds between readings."""
        self.read()

    def read(self) -> Optional[Reading]:
        raise NotImplementedError

    def close(self) -> None:
        """Free everything; a waiting `stream` ends."""

    def stream(self, period: float, stop: threading.Event) -> Iterator[Union[Reading, str]]:
        """Readings as they come, and faults as sentences, until `stop` is set."""
        while not stop.wait(period):
            try:
                reading = self.read()
                if reading is not None:
                    yield reading
            except SensorFault as fault:
                yield str(fault)


class Tegrastats(Sensor):
    """NVIDIA's program for Jetsons; it prints one line per period."""

    name = "tegrastats"

    def __init__(self, command: Sequence[str] = ("tegrastats",)) -> None:
        self.command = tuple(command)
        self.process: Optional[subprocess.Popen[bytes]] = None

    def open(self, period: float) -> None:
        command = [*self.command, "--interval", str(max(1, round(period * 1000)))]
        try:
            # In its own session: Ctrl-C does not reach it, and `close` also ends its children
            self.process = subprocess.Popen(
                command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True
            )
        except OSError as error:
            raise SensorFault(f"{self.command[0]}: {error.strerror}") from None

    def stream(self, period: float, stop: threading.Event) -> Iterator[Union[Reading, str]]:
        process = self.process
        assert process is not None and process.stdout is not None
        with process.stdout as output:
            for raw in output:
                try:
                    yield Reading(
                        time.monotonic(), parse_tegrastats(raw.decode("utf-8", "replace"))
                    )
                except SensorFault as fault:
                    yield f"tegrastats: {fault}"
        yield f"tegrastats ended (status {process.wait()})"

    def close(self) -> None:
        process, self.process = self.process, None
        if process is not None:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


class Ina3221(Sensor):
    """The power monitors of a Jetson as the kernel shows them, for containers without tegrastats."""

    name = "INA3221"

    def __init__(self, root: Path = I2C) -> None:
        self.root = root
        self.rails: Dict[str, List[Path]] = {}  # voltage in mV and current in mA, or power in mW

    def open(self, period: float) -> None:
        kinds = (
            ("*/hwmon/*/in{}_label", "in{}_input", "curr{}_input"),  # from JetPack 5 on
            ("*/iio:device*/rail_name_{}", "in_power{}_input"),
        )
        for number in range(4):
            for label, *names in ([name.format(number) for name in kind] for kind in kinds):
                for name in sorted(self.root.glob(f"ina3221*/{label}")):
                    files = [name.with_name(file) for file in names]
                    if all(file.is_file() for file in files):
                        self.rails[name.read_text().strip()] = files
        self.rails.pop(NOT_CONNECTED, None)
        if not self.rails:
            raise SensorFault(f"INA3221: no power monitors in {self.root}")
        self.read()

    def read(self) -> Reading:
        try:
            watts = {
                rail: float(np.prod([_number(file) / 1000 for file in files]))
                for rail, files in self.rails.items()
            }
        except (OSError, ValueError) as error:
            raise SensorFault(f"INA3221: {error}") from None
        return Reading(time.monotonic(), watts)


class Nvml(Sensor):
    """PyTorch's current GPU, by NVIDIA's library; the rail `GPU` is the whole card."""

    name = "NVML"

    def read(self) -> Reading:
        import torch

        try:
            return Reading(time.monotonic(), {"GPU": torch.cuda.power_draw() / 1000})
        except Exception as error:  # no package, no driver, an older PyTorch, a lost GPU
            raise SensorFault(f"NVML: {error}") from None


class Rapl(Sensor):
    """Energy counters of x86 processors, in µJ: every package, and its memory where that is counted
    apart. A reading is the mean power since the last one, dated in the middle."""

    name = "RAPL"

    def __init__(self, root: Path = POWERCAP) -> None:
        self.root = root
        self.zones: Dict[str, Path] = {}
        self.last: Optional[Tuple[float, Dict[str, int]]] = None

    def open(self, period: float) -> None:
        for zone in sorted(self.root.glob("intel-rapl:*")):  # AMD's have this name, too
            name = (zone / "name").read_text().strip()
            # Not psys, which includes the packages, nor core and uncore, which are parts of them
            if name.startswith("package"):
                self.zones[name] = zone
            elif name == "dram":
                self.zones[f"dram-{zone.name.split(':')[1]}"] = zone
        if not self.zones:
            raise SensorFault(f"RAPL: no counters in {self.root}")
        self.read()

    def read(self) -> Optional[Reading]:
        last, self.last = self.last, None  # after a fault, a mean would include the fault's time
        try:
            counts = {rail: _number(zone / "energy_uj") for rail, zone in self.zones.items()}
            now = time.monotonic()
            self.last = now, counts
            if last is None:
                return None
            used = {rail: count - last[1][rail] for rail, count in counts.items()}
            for rail in used:
                if used[rail] < 0:  # the counter restarted at 0
                    used[rail] += _number(self.zones[rail] / "max_energy_range_uj")
        except (OSError, ValueError) as error:
            raise SensorFault(f"RAPL: {error}") from None
        watts = {rail: microjoules / 1e6 / (now - last[0]) for rail, microjoules in used.items()}
        return Reading((now + last[0]) / 2, watts)


def _number(path: Path) -> int:
    return int(path.read_text())
