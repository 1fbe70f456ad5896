"""Power: energy against closed formulas, and sensors that misbehave while a run goes on."""

from __future__ import annotations

import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from typing import Any, Callable, Dict, List, Sequence, Tuple

import numpy as np
import pytest

from lib.errors import InputError
from lib.files import ROOT
from lib.measure.full_power import blocks
from lib.measure.power import (
    TOTAL,
    Log,
    Sampler,
    integrate,
    measure_parts,
    read_log,
    thesis_power,
    usual_rail,
    write_log,
)
from lib.measure.sensors import Reading, Sensor, Tegrastats, parse_tegrastats

from .helpers import alive, wait_for

PERIOD = 0.05
# As a TX2 printed it, in a public issue: mW now and on average
TX2 = "RAM 1685/7854MB CPU [0%@1303,0%@345] GPU@39C VDD_IN {}/{} VDD_GPU 154/154"
PRINTED = ((1931, 1931), (1776, 1853), (1738, 1815), (1776, 1805))


# -- Closed formulas -------------------------------------------------------------------------------


def test_a_ramp_is_integrated_exactly() -> None:
    times = np.linspace(0, 10, 11)
    watts = 2 + 3 * times

    def energy(start: float, end: float) -> float:
        return 2 * (end - start) + 3 * (end**2 - start**2) / 2

    for span in ((0.0, 10.0), (2.5, 7.25)):
        assert integrate(times, watts, [], span, 1) == pytest.approx(
            (energy(*span), span[1] - span[0])
        )
    fault = [5.5]
    assert integrate(times, watts, fault, (0, 10), 1) == pytest.approx((170 - energy(5, 6), 9))
    lost = np.delete(np.arange(11), 5)
    found = integrate(times[lost], watts[lost], [], (0, 10), 1)
    assert found == pytest.approx((170 - energy(4, 6), 8)), "neither zero nor guessed"
    assert integrate(np.array([]), np.array([]), [], (0, 10), 1) == (0, 0)


def test_uneven_sampling_weighs_by_time() -> None:
    times, watts = np.array([0, 1, 1.5, 4]), np.array([1, 3, 3, 5])
    joules, _ = integrate(times, watts, [], (0, 4), 2)
    assert joules == pytest.approx(2 * 1 + 3 * 0.5 + 4 * 2.5)


def test_the_ends_are_extended_only_as_far_as_a_period() -> None:
    times, watts = np.array([1.0, 2, 3]), np.full(3, 5.0)
    assert integrate(times, watts, [], (0, 4), 1) == pytest.approx((20, 4))
    assert integrate(times, watts, [], (-2, 6), 1) == pytest.approx((10, 2))
    assert integrate(times, watts, [3.5], (0, 4), 1) == pytest.approx((15, 3)), "it died"
    assert integrate(times, watts, [], (10, 12), 1) == (0, 0)


def test_the_thesis_power_is_the_largest_running_average() -> None:
    """The averages that a TX2 printed are the running means of its samples, cut off to whole mW."""
    samples = [parse_tegrastats(TX2.format(*numbers))["VDD_IN"] for numbers in PRINTED]
    means = np.cumsum(samples) / np.arange(1, 5)
    assert np.floor(means * 1000).tolist() == [mean for _, mean in PRINTED]
    for first in range(4):  # whichever sample the run begins with
        kept = np.array(samples[first:])
        watts = thesis_power(np.arange(1, 5 - first), kept, 0, 4 - first, period=1)
        assert watts == pytest.approx(max(np.cumsum(kept) / np.arange(1, 5 - first)))


def test_the_thesis_power_samples_every_five_seconds() -> None:
    times = np.arange(0, 21.0)
    # What lies between the samples is not seen
    watts = np.where(times % 5 == 0, 1 + times / 5, 100)
    assert thesis_power(times, watts, 0, 20) == pytest.approx((2 + 3 + 4 + 5) / 4)
    assert thesis_power(times, watts, 0, 3) == 100, "shorter than a period: its last reading"
    dead = thesis_power(times[:8], watts[:8], 0, 20)  # at 7 s
    assert dead == pytest.approx(np.mean([2, 100]))
    assert np.isnan(thesis_power(np.array([]), np.array([]), 0, 20))


# -- Logs and their parts --------------------------------------------------------------------------


def log_of(
    power: Sequence[Tuple[float, float]],
    faults: Sequence[Tuple[float, str]] = (),
    rail: str = "GPU",
    sensor: str = "tegrastats",
    **phases: Tuple[float, float],
) -> Log:
    """A log at 1 Hz; power: seconds and watts."""
    readings = [Reading(seconds, {rail: watts}) for seconds, watts in power]
    return Log(sensor, 1, readings, list(faults), dict(phases))


def steady(watts: float, start: int = 0, end: int = 10) -> List[Tuple[float, float]]:
    return [(t, watts) for t in range(start, end + 1)]


def measured(parts: Sequence[Tuple[Log, int]], fps: float = 1.0) -> Dict[str, Any]:
    power = measure_parts(parts, fps)
    assert power["sensor"] is not None
    return power


def test_the_spread_is_that_of_blocks_of_frames() -> None:
    """10 W throughout, at a frame rate that grows from block to block."""
    done = np.cumsum(np.repeat(1 / np.arange(1, 11), 20)) / 6
    log = log_of(steady(10), run=(0, float(done[-1])))
    power = measured(blocks(log, list(done)))
    assert power["power_w"] == pytest.approx(10)
    assert power["power_covered_s"] == pytest.approx(power["power_s"]) == pytest.approx(done[-1])
    assert power["energy_j"] == pytest.approx(10 * done[-1] / 200)
    assert power["energy_j_spread"] == pytest.approx(np.std(10 / np.arange(1, 11) / 6, ddof=1))
    assert np.isnan(power["idle_w"]) and np.isnan(power["net_energy_j"])


def test_idle_power_is_subtracted() -> None:
    log = log_of([*steady(4, 0, 9), *steady(10, 10, 20)], idle=(0, 9), run=(10, 20))
    power = measured([(log, 50)])
    assert (power["idle_w"], power["power_w"], power["energy_j"]) == (4, 10, 2)
    assert power["net_energy_j"] == pytest.approx((10 - 4) * 10 / 50)
    assert np.isnan(power["energy_j_spread"]), "one part has none"


def test_a_gap_counts_neither_as_zero_nor_as_if_it_were_measured() -> None:
    """Whatever was drawn in the gap: energy is of the covered time, and the mean is its."""
    readings = [*steady(6, 0, 4), *steady(6, 8, 10)]
    power = measured([(log_of(readings, [(4.5, "a cut line")], run=(0, 10)), 20)])
    assert (power["power_covered_s"], power["power_s"]) == (6, 10)
    assert (power["power_w"], power["energy_j"], power["power_w_thesis"]) == (6, 3, 6)


def test_all_rails_add_up_unless_one_holds_the_others() -> None:
    def log(**watts: float) -> Log:
        return Log("tegrastats", 1, [Reading(0, watts)])

    xavier, nano = log(GPU=1, CPU=2, SOC=4), log(VDD_IN=4, VDD_CPU_GPU_CV=1, VDD_SOC=2)
    assert xavier.series(TOTAL)[1].tolist() == [7] and nano.series(TOTAL)[1].tolist() == [4]
    thor = log(VDD_GPU=5, VDD_CPU_SOC_MSS=3, VIN_SYS_5V0=4, VIN=20)
    assert thor.series(TOTAL)[1].tolist() == [20]
    rails = [usual_rail([each]) for each in (xavier, nano, log(**{"package-0": 3}))]
    assert rails == ["GPU", "VDD_CPU_GPU_CV", TOTAL]


def test_no_frames_and_no_readings_are_nan() -> None:
    power = measured([(log_of(steady(10), run=(0, 10)), 0)], fps=0)
    assert power["power_w"] == 10
    assert np.isnan([power["energy_j"], power["energy_j_thesis"]]).all()
    power = measured([(log_of([], run=(0, 10)), 5)])
    assert power["power_covered_s"] == 0
    assert np.isnan([power["power_w"], power["power_w_thesis"]]).all()


def parts_log() -> List[Log]:
    """1 Hz readings of two parts after an idle phase of four seconds, each cut out of one log."""
    readings = [*steady(2, -5, -1), *steady(5, 0, 4), *steady(9, 6, 10)]
    log = log_of(readings, idle=(-5, -1))
    return [log.cut(0, 4), log.cut(6, 10)]


def test_parts_of_a_log_are_logs_with_the_idle_phase() -> None:
    first, second = parts_log()
    assert (first.phases["run"], first.phases["idle"]) == ((0, 4), (-5, -1))
    assert [reading.seconds for reading in second.readings] == [-5, -4, -3, -2, -1, 6, 7, 8, 9, 10]
    power = measured([(second, 8)])
    assert (power["power_w"], power["idle_w"]) == (9, 2)
    assert (power["power_s"], power["power_covered_s"]) == (4, 4)
    assert (power["energy_j"], power["net_energy_j"]) == (4.5, 3.5)


def test_parts_are_put_together_by_their_energy() -> None:
    """5 W x 4 s in 4 frames and 9 W x 4 s in 8: 56 J in 12 frames; the thesis's power is the sample
    after 5 s."""
    power = measured(list(zip(parts_log(), (4, 8))), fps=2)
    assert [power[name] for name in ("power_s", "power_covered_s", "power_w")] == [8, 8, 7]
    assert (power["energy_j"], power["idle_w"]) == (pytest.approx(56 / 12), 2)
    assert power["net_energy_j"] == pytest.approx((56 - 2 * 8) / 12)
    assert power["energy_j_spread"] == pytest.approx(np.std([5, 4.5], ddof=1))
    assert power["net_energy_j_spread"] == pytest.approx(np.std([3, 3.5], ddof=1))
    assert power["power_w_thesis"] == 9, "the sample after five seconds is in the second part"
    assert power["energy_j_thesis"] == 4.5
    for parts in ([(Log("", 1), 3)], []):
        assert measure_parts(parts, 1)["sensor"] is None


def test_a_part_without_readings_and_another_sensors_watts_are_not_added() -> None:
    first, dead = parts_log()[0], log_of([], [(0.0, "tegrastats ended")], run=(20, 23))
    power = measured([(first, 4), (dead, 3)])
    assert [power[name] for name in ("power_w", "power_s", "power_covered_s")] == [5, 7, 4]
    assert power["energy_j"] == 5
    other = log_of(steady(100, 0, 4), sensor="NVML", run=(0, 4))
    power = measured([(first, 4), (other, 4)])
    assert (power["sensor"], power["power_w"], power["power_s"]) == ("tegrastats", 5, 4)


def test_a_log_is_written_and_read_back(tmp_path: Path) -> None:
    part, path = parts_log()[1], tmp_path / "a" / "power.json"
    part.faults.append((6.5, 'a "line", cut'))
    write_log(path, part)
    again = read_log(path)
    assert again.readings == part.readings
    assert measured([(again, 8)] * 2) == measured([(part, 8)] * 2)
    for text in ("", "boxes\n1,2\n", "[1]", '{"sensor": "RAPL"}', path.read_text()[:-30]):
        path.write_text(text)
        with pytest.raises(InputError, match=r"power\.json: not a power log"):
            read_log(path)


# -- A real child process in the place of tegrastats -----------------------------------------------

PLAYER = """
    import os, signal, subprocess, sys, time
    mode, folder, interval = sys.argv[1], sys.argv[2], int(sys.argv[4]) / 1000
    assert sys.argv[3] == "--interval"
    open(f"{folder}/pid", "w").write(str(os.getpid()))
    out = sys.stdout.buffer
    good = "RAM 1/2MB CPU [10%@1190,off] GR3D_FREQ 99%@1377 GPU@40C GPU 2534/2534 CPU 310/310 SOC 1241/1241 SYS5V 1800/1800\\n"
    if mode == "deaf":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        child = subprocess.Popen(["sleep", "60"])
        open(f"{folder}/child", "w").write(str(child.pid))
    for number in range(1000000):
        line = good.encode()
        if number == 5:
            if mode == "dies":
                sys.exit(3)
            elif mode == "cut":
                line = line[:line.index(b" GPU 2534") + 7] + b"\\n"
            elif mode == "cut after":
                line = line[:line.index(b" SOC") + 7] + b"\\n"
            elif mode == "cut and glued":
                line = line[:-20]
            elif mode == "garbage":
                line = bytes(range(256)) * 300 + b"\\n"
            elif mode == "stalls":
                time.sleep(10 * interval)
            elif mode == "negative":
                line = line.replace(b" GPU 2534", b" GPU -2534")
            elif mode == "absurd":
                line = line.replace(b" GPU 2534", b" GPU 99999999999")
        if mode == "floods" and number >= 5:
            line, interval = b"nonsense\\n", 0
        if number == 20000:  # more than fits into a pipe, so that most of it was read
            open(f"{folder}/flooded", "w").close()
        if mode == "clock":  # the system's time jumps back by years and forth again
            line = (b"01-01-1970 00:00:07 " if number % 2 else b"12-27-2025 10:03:21 ") + line
        out.write(line)
        out.flush()
        time.sleep(interval)
"""


Player = Callable[[str], Tegrastats]


@pytest.fixture
def player(tmp_path: Path) -> Player:
    script = tmp_path / "player.py"
    script.write_text(textwrap.dedent(PLAYER))
    return lambda mode: Tegrastats((sys.executable, "-S", "-E", str(script), mode, str(tmp_path)))


def running(number: Path) -> bool:
    """Whether the process whose number is in the file runs."""
    return number.is_file() and alive(int(number.read_text() or 0))


def play(sensor: Sensor, tmp_path: Path, more: int = 4) -> Log:
    """A run beside the sensor, until it has given `more` readings after its trouble at the sixth
    line, or has died."""
    with Sampler(sensor, PERIOD) as sampler, sampler.phase("run"):
        wait_for(
            lambda: (
                len(sampler.log.readings) >= 5 + more
                or any("ended" in text for _, text in sampler.log.faults)
            )
        )
        time.sleep(3 * PERIOD)
    assert not running(tmp_path / "pid")
    return sampler.log


@pytest.mark.parametrize(
    "mode, reason",
    [
        ("dies", "tegrastats ended (status 3)"),
        ("cut", "tegrastats: a line without power ('RAM 1/2MB CPU"),
        ("garbage", "tegrastats: a line without"),
        ("negative", "-2.534"),
        ("absurd", "99999999.999"),
        ("stalls", ""),
    ],
)
def test_a_sensor_that_misbehaves_leaves_a_gap_and_the_run_goes_on(
    player: Player, tmp_path: Path, mode: str, reason: str
) -> None:
    log = play(player(mode), tmp_path)
    power = measured([(log, 100)])
    assert power["power_w"] == pytest.approx(2.534), "nothing of the bad line is in it"
    assert power["power_covered_s"] < power["power_s"], "the time around it is left out"
    assert power["energy_j"] == pytest.approx(2.534 * power["power_s"] / 100)
    assert [reason in text for _, text in log.faults] == ([True] if reason else [])
    if mode == "dies":
        assert log.readings[-1].seconds < log.faults[0][0]
    elif log.faults:
        assert log.readings[-1].seconds > log.faults[0][0], "the sensor was heard again"


def test_a_cut_line_is_a_gap_only_of_the_rails_it_lost(player: Player, tmp_path: Path) -> None:
    log = play(player("cut after"), tmp_path)
    (_, gpu, at_gpu), (_, total, in_all) = log.series("GPU"), log.series(TOTAL)
    assert (len(at_gpu), len(in_all), len(gpu)) == (0, 1, len(total) + 1)
    assert total == pytest.approx(2.534 + 0.31 + 1.241 + 1.8)


@pytest.mark.parametrize("mode", ["cut and glued", "clock"])
def test_glued_lines_and_a_jumping_clock_give_no_wrong_number(
    player: Player, tmp_path: Path, mode: str
) -> None:
    begin = time.monotonic()
    log = play(player(mode), tmp_path)
    times, watts, _ = log.series(TOTAL)
    assert watts == pytest.approx(2.534 + 0.31 + 1.241 + 1.8)
    assert begin < times[0] and (np.diff(times) > 0).all() and times[-1] <= time.monotonic()


def test_a_flood_of_nonsense_does_not_fill_the_log(player: Player, tmp_path: Path) -> None:
    with Sampler(player("floods"), PERIOD) as sampler, sampler.phase("run"):
        wait_for((tmp_path / "flooded").is_file)
    [(_, reason)] = sampler.log.faults
    assert reason == "tegrastats: a line without power ('nonsense')"
    power = measured([(sampler.log, 1)])
    assert power["power_covered_s"] < power["power_s"]


def test_an_exception_in_the_run_passes_and_a_deaf_sensor_and_its_children_are_ended(
    player: Player, tmp_path: Path
) -> None:
    def run() -> None:
        with Sampler(player("deaf"), PERIOD) as sampler:
            wait_for(lambda: sampler.log.readings)
            assert running(tmp_path / "pid") and running(tmp_path / "child")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        run()
    assert not running(tmp_path / "pid")
    wait_for(lambda: not running(tmp_path / "child"))


def test_a_killed_run_leaves_no_sensor(player: Player, tmp_path: Path) -> None:
    program = (
        f"import time; from lib.measure.power import *\nsensor = Tegrastats({player('steady').command!r})\n"
        f"with Sampler(sensor, {PERIOD}): time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", program], cwd=str(ROOT)) as process:
        wait_for(lambda: running(tmp_path / "pid"))
        process.send_signal(signal.SIGKILL)
    wait_for(lambda: not running(tmp_path / "pid"))


def test_a_sensor_that_goes_between_finding_and_using_is_a_gap(tmp_path: Path) -> None:
    program = str(tmp_path / "tegrastats")
    with Sampler(Tegrastats((program,)), PERIOD) as sampler, sampler.phase("run"):
        pass
    assert [text for _, text in sampler.log.faults] == [f"{program}: No such file or directory"]
    assert measured([(sampler.log, 1)])["power_covered_s"] == 0


def test_without_a_sensor_only_phases_are_noted() -> None:
    with Sampler(None, PERIOD) as sampler, sampler.phase("run"):
        pass
    log = sampler.log
    assert (log.sensor, log.readings, log.faults, list(log.phases)) == ("", [], [], ["run"])
