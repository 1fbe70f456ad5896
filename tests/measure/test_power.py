"""Power: lines of every JetPack generation, energy against closed formulas, and sensors that
misbehave while a run goes on."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
import types
from pathlib import Path

import numpy as np
import pytest

from lib.errors import InputError
from lib.measure.power import (
    TOTAL,
    Gap,
    Log,
    Nvml,
    Rapl,
    Reading,
    Sampler,
    SensorFault,
    Tegrastats,
    energy_per_frame,
    find_gaps,
    find_sensor,
    integrate,
    measure,
    measure_parts,
    parse_tegrastats,
    read_log,
    thesis_power,
    write_log,
)

ROOT = Path(__file__).resolve().parents[2]
PERIOD = 0.05

# Lines as people posted them in public issues and test suites; the rails' order and spelling are
# the point.
JETPACK_4 = (
    "RAM 14700/15692MB (lfb 3x2MB) SWAP 898/8192MB (cached 23MB) CPU [0%@1190,0%@1190,0%@1190,0%@1190,0%@1190,0%@1190,0%@1190,"
    "0%@1190] EMC_FREQ 0% GR3D_FREQ 0% AO@30C GPU@30.5C Tboard@31C Tdiode@32C AUX@30.5C CPU@31.5C thermal@30.8C PMIC@100C "
    "GPU 463/463 CPU 618/618 SOC 2936/2936 CV 0/0 VDDRQ 309/309 SYS5V 3306/3306\n"
)
JETPACK_5 = (
    "RAM 2571/31011MB (lfb 6460x4MB) SWAP 0/15505MB (cached 0MB) CPU [0%@1190,1%@1190,0%@1190,0%@1189,off,off,off,off] "
    "EMC_FREQ 0%@1331 GR3D_FREQ 37%@114 VIC_FREQ 115 APE 150 AUX@36C CPU@36.5C thermal@35.7C Tboard@37C AO@35C GPU@35C "
    "Tdiode@38.75C PMIC@50C GPU 467mW/467mW CPU 467mW/467mW SOC 1245mW/1245mW CV 0mW/0mW VDDRQ 311mW/311mW SYS5V 2768mW/2768mW\n"
)
ORIN = (
    "11-21-2025 08:49:48 RAM 13983/62780MB (lfb 424x4MB) SWAP 126/31390MB (cached 0MB) CPU [90%@2201,100%@2201] EMC_FREQ 1%@2133 "
    "GR3D_FREQ 14%@[407,407] VIC_FREQ 115 NVDLA0_FREQ @1600 APE 174 CV0@-256C CPU@77.281C Tboard@62C SOC2@70C GPU@69.125C "
    "tj@77.281C VDD_GPU_SOC 3150mW/2971mW VDD_CPU_CV 14312mW/12415mW VIN_SYS_5V0 4968mW/5048mW NC 0mW/0mW "
    "VDDQ_VDD2_1V8AO 1091mW/1091mW NC 0mW/0mW\n"
)
ORIN_NANO = (
    "12-23-2024 22:54:11 RAM 3162/7620MB (lfb 4x2MB) SWAP 0/3810MB (cached 0MB) CPU [1%@729,0%@729,0%@729,0%@729,off,off] "
    "GR3D_FREQ 1% cpu@62.843C soc2@61.968C gpu@61.687C tj@62.843C VDD_IN 3913mW/3922mW VDD_CPU_GPU_CV 598mW/598 "
    "VDD_SOC 1238mW/1237mW\n"
)
TX2 = "RAM 1685/7854MB (lfb 1044x4MB) CPU [0%@1303,0%@345] MTS fg 1% bg 8% GPU@39C VDD_IN {}/{} VDD_GPU 154/154\n"


@pytest.mark.parametrize(
    "line, power, temperature, load",
    [
        (
            JETPACK_4,
            {"GPU": 0.463, "CPU": 0.618, "SOC": 2.936, "CV": 0, "VDDRQ": 0.309, "SYS5V": 3.306},
            {"GPU": 30.5, "PMIC": 100},
            {"GPU": 0, "EMC": 0, "CPU": 0},
        ),
        (
            JETPACK_5,
            {"GPU": 0.467, "CPU": 0.467, "SOC": 1.245, "CV": 0, "VDDRQ": 0.311, "SYS5V": 2.768},
            {"GPU": 35, "Tdiode": 38.75},
            {"GPU": 37, "EMC": 0, "CPU": 1 / 8},
        ),
        (
            ORIN,
            {
                "VDD_GPU_SOC": 3.15,
                "VDD_CPU_CV": 14.312,
                "VIN_SYS_5V0": 4.968,
                "VDDQ_VDD2_1V8AO": 1.091,
            },
            {"GPU": 69.125, "tj": 77.281},
            {"GPU": 14, "EMC": 1, "CPU": 95},
        ),
        (
            ORIN_NANO,
            {"VDD_IN": 3.913, "VDD_CPU_GPU_CV": 0.598, "VDD_SOC": 1.238},
            {"gpu": 61.687},
            {"GPU": 1, "CPU": 1 / 6},
        ),
    ],
    ids=["JetPack 4, AGX Xavier", "JetPack 5, AGX Xavier", "AGX Orin", "Orin Nano"],
)
def test_lines_of_each_generation(line, power, temperature, load):
    reading = parse_tegrastats(line)
    assert dict(reading.power) == pytest.approx(power)
    assert dict(reading.load) == pytest.approx(load)
    assert set(temperature.items()) <= set(reading.temperature.items())
    assert "CV0" not in reading.temperature  # -256 degrees: switched off


def test_the_second_number_is_the_average():
    assert dict(parse_tegrastats(ORIN).average) == pytest.approx(
        {"VDD_GPU_SOC": 2.971, "VDD_CPU_CV": 12.415, "VIN_SYS_5V0": 5.048, "VDDQ_VDD2_1V8AO": 1.091}
    )


@pytest.mark.parametrize(
    "line",
    [
        "",
        "\n",
        "RAM 14700/15692MB (lfb 3x2MB) SWAP 898/8192MB",
        JETPACK_4[:200],
        "\ufffd\x00\x01 GPU@30C",
        "APE 150 MTS fg 0% bg 0%",
        "GPU 25",
    ],
)
def test_a_line_without_rails_is_no_reading(line):
    with pytest.raises(SensorFault, match="a line without power"):
        parse_tegrastats(line)


# Closed formulas


def test_a_ramp_is_integrated_exactly():
    times = np.linspace(0, 10, 11)
    watts = 2 + 3 * times
    assert integrate(times, watts, [], 0, 10) == pytest.approx((2 * 10 + 3 * 10**2 / 2, 10))
    assert integrate(times, watts, [], 2.5, 7.25) == pytest.approx(
        (2 * 4.75 + 3 * (7.25**2 - 2.5**2) / 2, 4.75)
    )
    gap = Gap(4, 6, "why not")
    assert integrate(times, watts, [gap], 0, 10) == pytest.approx(
        (170 - (2 * 2 + 3 * (6**2 - 4**2) / 2), 8)
    )
    assert integrate(times, watts, [Gap(0, 10, "all of it")], 0, 10) == (0, 0)
    assert integrate([], [], [], 0, 10) == (0, 0)


def test_uneven_sampling_weighs_by_time():
    assert integrate([0, 1, 1.5, 4], [1, 3, 3, 5], [], 0, 4)[0] == pytest.approx(
        2 * 1 + 3 * 0.5 + 4 * 2.5
    )


def test_the_ends_are_extended_only_as_far_as_a_period():
    assert find_gaps([1, 2, 3], [], 0, 4, period=1) == []
    assert integrate([1, 2, 3], [5, 5, 5], [], 0, 4) == pytest.approx((20, 4))
    early, late = find_gaps([1, 2, 3], [], -2, 6, period=1)
    assert (early.start, early.end, late.start, late.end) == (-2, 1, 3, 6)
    assert early.reason == "no reading for 3 s"


def test_every_gap_has_its_reasons():
    times = [0, 1, 2, 5, 6, 7]
    faults = [(6.2, "cut"), (6.1, "garbage"), (6.3, "cut")]
    assert find_gaps(times, faults, 0, 7, period=1) == [
        Gap(2, 5, "no reading for 3 s"),
        Gap(6, 7, "garbage; cut"),
    ]
    assert find_gaps(times, faults, 3, 4, period=1) == [Gap(3, 4, "no reading for 3 s")]
    assert find_gaps([], [(0.0, "no such program")], 1, 4, period=1) == [
        Gap(1, 4, "no such program")
    ]
    assert find_gaps([0, 1], [(1.5, "died")], 2, 3, period=1) == [Gap(2, 3, "died")]
    assert find_gaps([0, 1], [(3.5, "after the run")], 0, 1.5, period=1) == []


def test_the_thesis_power_is_the_largest_running_average():
    """The averages that a TX2 printed in a public issue are the running means of its samples, cut
    off to whole mW."""
    lines = [
        TX2.format(*numbers) for numbers in ((1931, 1931), (1776, 1853), (1738, 1815), (1776, 1805))
    ]
    readings = [parse_tegrastats(line) for line in lines]
    samples = [reading.power["VDD_IN"] for reading in readings]
    printed = [reading.average["VDD_IN"] for reading in readings]
    assert np.floor(np.cumsum(samples) / np.arange(1, 5) * 1000) / 1000 == pytest.approx(printed)
    for first in range(4):  # whichever sample the run begins with
        power = thesis_power(np.arange(1, 5 - first), samples[first:], 0, 4 - first, period=1)
        assert power == pytest.approx(max(np.cumsum(samples[first:]) / np.arange(1, 5 - first)))
    assert thesis_power(np.arange(1, 5), samples, 0, 4, period=1) == max(printed)


def test_the_thesis_power_samples_every_five_seconds():
    times = np.arange(0, 21.0)
    # What lies between the samples is not seen
    watts = np.where(times % 5 == 0, 1 + times / 5, 100)
    assert thesis_power(times, watts, 0, 20) == pytest.approx((2 + 3 + 4 + 5) / 4)
    assert thesis_power(times, watts, 0, 3) == 100  # shorter than a period: its last reading
    # None from a sensor that died at 7 s
    assert thesis_power(times[:8], watts[:8], 0, 20) == pytest.approx(np.mean([2, 100]))
    assert np.isnan(thesis_power([], [], 0, 20))


def test_energy_per_frame_is_power_by_rate():
    """Tables 4.6 and 4.1: 21.378 W at 11 frames a second are 1.94 joules (not kJ, as the table's
    head says)."""
    assert round(energy_per_frame(21.378, 11), 2) == 1.94
    assert np.isnan(energy_per_frame(20, 0))


def log_of(power, period=1.0, phases=(("run", 0, 10),), faults=(), rail="GPU"):
    events = [(float(faults_), "fault", text) for faults_, text in faults]
    for name, start, end in phases:
        events += [(float(start), "begin", name), (float(end), "end", name)]
    return Log(
        "tegrastats",
        period,
        [Reading({rail: watts}, seconds=float(seconds)) for seconds, watts in power],
        events,
    )


def test_the_spread_is_that_of_blocks_of_frames():
    """10 W throughout; 50 frames in the first 5 s, 100 in the rest: 1 J a frame, then 0.5 J
    twice."""
    done = np.concatenate([np.linspace(0, 5, 51)[1:], np.linspace(5, 10, 101)[1:]])
    power = measure(log_of([(t, 10) for t in range(11)]), done, blocks=3)
    assert (power.frames, power.seconds, power.covered, power.watts, power.joules) == (
        150,
        10,
        10,
        10,
        100,
    )
    assert power.energy_per_frame == pytest.approx(100 / 150)
    assert power.energy_spread == pytest.approx(np.std([1, 0.5, 0.5], ddof=1))
    assert np.isnan(power.idle_watts) and np.isnan(power.net_energy_per_frame)
    assert power.gaps == ()


def test_idle_power_is_subtracted():
    readings = [(t, 4) for t in range(10)] + [(t, 10) for t in range(10, 21)]
    power = measure(log_of(readings, phases=(("idle", 0, 9), ("run", 10, 20))), 50)
    assert (power.idle_watts, power.watts, power.energy_per_frame) == (4, 10, 2)
    assert power.net_energy_per_frame == pytest.approx((10 - 4) * 10 / 50)
    assert power.energy_spread == pytest.approx(0, abs=1e-12)


def test_a_gap_counts_neither_as_zero_nor_as_if_it_were_measured():
    """Whatever was drawn in the gap: joules are of the covered time, and the mean is theirs."""
    readings = [(t, 6) for t in range(5)] + [(t, 6) for t in range(8, 11)]
    power = measure(log_of(readings, faults=[(4.5, "a line without an end")]), 20)
    assert power.gaps == (Gap(4, 8, "a line without an end"),)
    assert (power.covered, power.joules, power.watts, power.energy_per_frame) == (6, 36, 6, 3)
    assert power.thesis_watts == 6


def test_all_rails_add_up_unless_one_holds_the_others():
    xavier = Log(
        "tegrastats", 1, [parse_tegrastats(JETPACK_4)], [(0.0, "begin", "run"), (1.0, "end", "run")]
    )
    assert measure(xavier, 1, rail=TOTAL).watts == pytest.approx(
        0.463 + 0.618 + 2.936 + 0.309 + 3.306
    )
    assert measure(xavier, 1).rail == "GPU"
    nano = Log(
        "tegrastats", 1, [parse_tegrastats(ORIN_NANO)], [(0.0, "begin", "run"), (1.0, "end", "run")]
    )
    assert measure(nano, 1, rail=TOTAL).watts == pytest.approx(3.913)
    assert measure(nano, 1).rail == "VDD_CPU_GPU_CV"


def test_no_frames_and_no_readings_are_nan_and_unknown_names_are_refused():
    power = measure(log_of([(t, 10) for t in range(11)]), 0)
    assert (
        power.watts == 10
        and np.isnan(power.energy_per_frame)
        and np.isnan(power.thesis_energy_per_frame)
    )
    power = measure(log_of([]), 5)
    assert (
        np.isnan(power.watts)
        and power.joules == power.covered == 0
        and power.gaps == (Gap(0, 10, "no reading for 10 s"),)
    )
    with pytest.raises(InputError, match="no phase 'test'"):
        measure(log_of([(0, 1)]), 5, phase="test")
    with pytest.raises(InputError, match="no rail 'DLA', only GPU"):
        measure(log_of([(0, 1)]), 5, rail="DLA")


# A real child process in the place of tegrastats

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


@pytest.fixture
def player(tmp_path):
    script = tmp_path / "player.py"
    script.write_text(textwrap.dedent(PLAYER))
    return lambda mode: Tegrastats((sys.executable, "-S", "-E", str(script), mode, str(tmp_path)))


def alive(path):
    """Whether the process whose number is in the file runs."""
    try:
        return (
            Path(f"/proc/{path.read_text()}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
        )
    except FileNotFoundError:
        return False


def wait_for(condition, seconds=120.0):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.01)


def play(sensor, tmp_path, more=4):
    """A run beside the sensor, until it has given `more` readings after its trouble at the sixth
    line, or has died."""
    with Sampler(sensor, PERIOD, tmp_path / "power.csv") as sampler, sampler.phase("run"):
        wait_for(
            lambda: (
                len(sampler.log.readings) >= 5 + more
                or any("ended" in text for _, _, text in sampler.log.events)
            )
        )
        time.sleep(3 * PERIOD)
    assert not alive(tmp_path / "pid")
    return sampler.log


@pytest.mark.parametrize(
    "mode, reason",
    [
        ("dies", "tegrastats ended (status 3)"),
        ("cut", "tegrastats: a line without power ('RAM 1/2MB CPU"),
        ("garbage", "tegrastats: a line without"),
        ("stalls", "no reading for "),
        ("negative", "impossible power (GPU at -2.534 W)"),
        ("absurd", "impossible power (GPU at 1e+08 W)"),
    ],
)
def test_a_sensor_that_misbehaves_leaves_a_named_gap_and_the_run_goes_on(
    player, tmp_path, mode, reason
):
    log = play(player(mode), tmp_path)
    power = measure(log, 100)
    named = sorted(
        (gap for gap in power.gaps if reason in gap.reason), key=lambda gap: gap.start - gap.end
    )
    assert len(named) == 1 or mode == "stalls"  # a busy machine may stall it once more
    assert power.watts == pytest.approx(2.534)  # nothing of the bad line in it
    assert power.covered + sum(gap.end - gap.start for gap in power.gaps) == pytest.approx(
        power.seconds
    )
    assert power.joules == pytest.approx(2.534 * power.covered)
    assert power.energy_per_frame == pytest.approx(2.534 * power.seconds / 100)
    if mode == "dies":
        assert named[0].end == log.phase("run")[1]  # to the end of the run
    else:
        # And the sensor was heard again
        assert any(reading.seconds > named[0].end for reading in log.readings)


def test_a_jumping_clock_changes_nothing(player, tmp_path):
    begin = time.monotonic()
    log = play(player("clock"), tmp_path)
    power = measure(log, 100)
    assert power.watts == pytest.approx(2.534)
    # Which a busy machine may cause
    assert [gap for gap in power.gaps if not gap.reason.startswith("no reading for ")] == []
    seconds = [reading.seconds for reading in log.readings]
    assert seconds == sorted(seconds) and 0 < seconds[-1] <= time.monotonic() - begin


def test_a_cut_line_is_a_gap_only_of_the_rails_it_lost(player, tmp_path):
    log = play(player("cut after"), tmp_path)
    lost = "a line without SOC, SYS5V"
    assert not [gap for gap in measure(log, 1, rail="GPU").gaps if lost in gap.reason]
    power = measure(log, 1, rail=TOTAL)
    assert len([gap for gap in power.gaps if lost in gap.reason]) == 1
    assert power.watts == pytest.approx(2.534 + 0.31 + 1.241 + 1.8)


def test_a_cut_line_glued_to_the_next_gives_no_wrong_number(player, tmp_path):
    log = play(player("cut and glued"), tmp_path)
    assert measure(log, 1, rail=TOTAL).watts == pytest.approx(2.534 + 0.31 + 1.241 + 1.8)


def test_a_flood_of_nonsense_does_not_fill_the_log(player, tmp_path):
    with Sampler(player("floods"), PERIOD, tmp_path / "power.csv") as sampler, sampler.phase("run"):
        wait_for((tmp_path / "flooded").is_file)
    assert len(sampler.log.events) == 5  # begin, three faults, end
    assert (tmp_path / "power.csv").stat().st_size < 5000
    assert (
        measure(sampler.log, 1).gaps[-1].reason == "tegrastats: a line without power ('nonsense')"
    )


def test_a_deaf_sensor_and_its_children_are_ended(player, tmp_path):
    with Sampler(player("deaf"), PERIOD) as sampler:
        wait_for(lambda: sampler.log.readings)
        assert alive(tmp_path / "pid") and alive(tmp_path / "child")
    assert not alive(tmp_path / "pid")
    wait_for(lambda: not alive(tmp_path / "child"))


def test_an_exception_in_the_run_passes_and_the_sensor_is_ended(player, tmp_path):
    def run():
        with Sampler(player("steady"), PERIOD) as sampler, sampler.phase("run"):
            wait_for(lambda: sampler.log.readings)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        run()
    assert not alive(tmp_path / "pid")


def test_a_killed_run_keeps_its_log_and_leaves_no_sensor(player, tmp_path):
    program = (
        f"import time; from lib.measure.power import *\nsensor = Tegrastats({player('steady').command!r})\n"
        f"with Sampler(sensor, {PERIOD}, {str(tmp_path / 'power.csv')!r}) as s, s.phase('run'): time.sleep(60)"
    )
    path = tmp_path / "power.csv"
    with subprocess.Popen([sys.executable, "-c", program], cwd=str(ROOT)) as process:
        wait_for(lambda: path.is_file() and path.read_text().count("GPU=2.534") >= 5)
        process.send_signal(signal.SIGKILL)
    wait_for(lambda: not alive(tmp_path / "pid"))
    log = read_log(path)
    assert (log.sensor, log.period) == ("tegrastats", PERIOD)
    assert measure(log, 10).watts == pytest.approx(2.534)
    whole = len(log.readings)
    path.write_text(path.read_text()[:-30])  # and were the last line cut
    assert len(read_log(path).readings) == whole - 1


# A run in parts


def parts_log(joins=((0, 4), (6, 10)), watts=((5, 5), (9, 9)), idle=2):
    """1 Hz readings of two parts after an idle phase of four seconds, each cut out of one log."""
    times = [(t, idle) for t in range(-5, 0)]
    times += [(t, watts[0][0]) for t in range(5)] + [(t, watts[1][0]) for t in range(6, 11)]
    log = log_of(times, phases=(("idle", -5, -1),))
    return [log.cut(start, end) for start, end in joins]


def test_parts_of_a_log_are_logs_with_the_idle_phase():
    first, second = parts_log()
    assert (first.phase("run"), first.phase("idle")) == ((0, 4), (-5, -1))
    assert [reading.seconds for reading in second.readings] == [-5, -4, -3, -2, -1, 6, 7, 8, 9, 10]
    power = measure(second, 8)
    assert (power.watts, power.idle_watts, power.seconds, power.gaps) == (9, 2, 4, ())
    assert (power.energy_per_frame, power.net_energy_per_frame) == (4.5, 3.5)


def test_parts_are_put_together_by_their_energy():
    """5 W x 4 s in 4 frames and 9 W x 4 s in 8: 56 J in 12 frames; the thesis's power is the mean
    after 5 s, or after all 8."""
    power = measure_parts(list(zip(parts_log(), (4, 8))), fps=2)
    assert (power.seconds, power.covered, power.frames, power.joules, power.watts) == (
        8,
        8,
        12,
        56,
        7,
    )
    assert (power.energy_per_frame, power.idle_watts) == (pytest.approx(56 / 12), 2)
    assert power.net_energy_per_frame == pytest.approx((56 - 2 * 8) / 12)
    assert power.energy_spread == pytest.approx(np.std([5, 4.5], ddof=1))
    assert power.thesis_watts == 9, "the sample after five seconds is in the second part"
    assert power.thesis_energy_per_frame == 4.5
    assert (
        power.gaps == ()
        and measure_parts([(Log("", 1), 3)], 1) is None
        and measure_parts([], 1) is None
    )


def test_a_part_without_readings_is_a_gap_in_the_row():
    dead = Log(
        "tegrastats",
        1,
        [],
        [(0.0, "fault", "tegrastats ended"), (20.0, "begin", "run"), (23.0, "end", "run")],
    )
    power = measure_parts([(parts_log()[0], 4), (dead, 3)], fps=1)
    assert (power.watts, power.seconds, power.covered, power.frames, power.joules) == (
        5,
        7,
        4,
        7,
        20,
    )
    assert power.gaps == (Gap(4, 7, "tegrastats ended"),)
    assert power.energy_per_frame == pytest.approx(5 * 7 / 7)


def test_another_sensors_watts_are_not_added():
    first = parts_log()[0]
    other = Log(
        "NVML",
        1,
        [Reading({"GPU": 100}, seconds=t) for t in range(5)],
        [(0.0, "begin", "run"), (4.0, "end", "run")],
    )
    power = measure_parts([(first, 4), (other, 4)], 1)
    assert (power.sensor, power.watts, power.frames, power.seconds) == ("tegrastats", 5, 4, 4)


def test_a_fault_before_a_part_is_why_it_has_no_readings():
    log = log_of([(0, 5), (1, 5)], faults=[(1.5, "tegrastats ended (status 1)")], phases=())
    part = log.cut(10, 14)
    assert measure(part, 1).gaps == (Gap(10, 14, "tegrastats ended (status 1)"),)


def test_a_part_is_written_and_read_back(tmp_path):
    part = parts_log()[1]
    write_log(tmp_path / "a" / "power.csv", part)
    again = read_log(tmp_path / "a" / "power.csv")
    assert (again.sensor, again.period, again.readings) == (part.sensor, part.period, part.readings)
    assert sorted(again.events) == sorted(part.events)
    assert measure(again, 8) == measure(part, 8)
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"power\.csv: cannot be written"):
        write_log(tmp_path / "file" / "power.csv", part)


# The log


def test_the_log_is_read_back_as_it_was(player, tmp_path):
    with Sampler(player("negative"), PERIOD, tmp_path / "runs" / "power.csv") as sampler:
        with sampler.phase("idle"):
            wait_for(lambda: len(sampler.log.readings) >= 3)
        with sampler.phase("run"):
            wait_for(lambda: len(sampler.log.readings) >= 8)
    log = read_log(tmp_path / "runs" / "power.csv")
    assert (log.sensor, log.period) == (sampler.log.sensor, sampler.log.period)
    assert [(kind, text) for _, kind, text in log.events] == [
        (kind, text) for _, kind, text in sampler.log.events
    ]
    assert [(r.power, r.average, r.temperature, r.load) for r in log.readings] == [
        (r.power, r.average, r.temperature, r.load) for r in sampler.log.readings
    ]
    assert [r.seconds for r in log.readings] == pytest.approx(
        [r.seconds for r in sampler.log.readings], abs=1e-4
    )
    assert log.phase("idle") == pytest.approx(sampler.log.phase("idle"), abs=1e-4)
    assert measure(log, 10).net_energy_per_frame == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize(
    "text, words",
    [
        ("", "not a power log"),
        ("boxes\n1,2\n", "not a power log"),
        ("# RAPL, every 1 s\nseconds\n1.0,now,,GPU=2\n1.0,now,,GPU=x\n", "line 4 is not"),
        ("# RAPL, every 1 s\nseconds\nsoon,now,begin: run\n", "line 3 is not"),
        ("# RAPL, every 1 s\nseconds\n1\n", "line 3 is not"),
    ],
)
def test_other_files_are_refused(tmp_path, text, words):
    (tmp_path / "power.csv").write_text(text)
    with pytest.raises(InputError, match=words):
        read_log(tmp_path / "power.csv")


def test_files_that_cannot_be_read_or_written_are_named(tmp_path):
    with pytest.raises(InputError, match=r"gone\.csv: cannot be read"):
        read_log(tmp_path / "gone.csv")
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"power\.csv: cannot be written"), Sampler(
        None, path=tmp_path / "file" / "power.csv"
    ):
        pass


def test_a_disk_that_fills_up_costs_the_file_and_not_the_readings(player, tmp_path):
    """A limit on the size of files stands for the full disk; the last line may be cut, what stands
    before it is read."""
    program = (
        f"import resource, time; from lib.measure.power import *\n"
        f"resource.setrlimit(resource.RLIMIT_FSIZE, (1500, 1500))\n"
        f"with Sampler(Tegrastats({player('steady').command!r}), {PERIOD}, {str(tmp_path / 'power.csv')!r}) as s:\n"
        f"    while len(s.log.readings) < 20: time.sleep(0.02)\n"
        f"print(len(s.log.readings), [text for _, kind, text in s.log.events if kind == 'note'])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=str(ROOT), capture_output=True, text=True, check=True
    )
    assert done.stdout.startswith("20 [") or int(done.stdout.split()[0]) > 20
    assert "power.csv cannot be written (File too large)" in done.stdout
    assert 3 <= len(read_log(tmp_path / "power.csv").readings) < 15


# The other sensors


def powercap(root, **zones):
    """A tree as Linux has it under /sys/class/powercap: folder -> (name, counter in µJ)."""
    for folder, (name, count) in zones.items():
        zone = root / folder.replace("_", ":").replace("rapl", "intel-rapl")
        zone.mkdir(parents=True, exist_ok=True)
        (zone / "name").write_text(name + "\n")
        (zone / "energy_uj").write_text(f"{count}\n")
        (zone / "max_energy_range_uj").write_text("262143328850\n")
    return root


def test_rapl_counts_packages_and_memory_once(tmp_path):
    zones = {
        "rapl_0": "package-0",
        "rapl_0_0": "core",
        "rapl_0_1": "dram",
        "rapl_1": "package-1",
        "rapl_2": "psys",
    }
    powercap(tmp_path, **{folder: (name, 1000) for folder, name in zones.items()})
    sensor = Rapl(tmp_path)
    sensor.open(1.0)
    time.sleep(0.01)
    powercap(
        tmp_path,
        rapl_0=("package-0", 3_001_000),
        rapl_0_1=("dram", 501_000),
        rapl_1=("package-1", 1000),
    )
    reading = sensor.read()
    joules = {name: watts * 2 * reading.age for name, watts in reading.power.items()}
    assert joules == pytest.approx({"package-0": 3, "package-0/dram": 0.5, "package-1": 0})


def test_rapl_counters_that_begin_again_lose_nothing(tmp_path):
    sensor = Rapl(powercap(tmp_path, rapl_0=("package-0", 262_143_328_850 - 1_500_000)))
    sensor.open(1.0)
    time.sleep(0.01)
    powercap(tmp_path, rapl_0=("package-0", 500_000))
    reading = sensor.read()
    assert reading.power["package-0"] * 2 * reading.age == pytest.approx(2.0)


def test_rapl_faults_are_gaps_and_no_mean_reaches_over_them(tmp_path):
    sensor = Rapl(powercap(tmp_path, rapl_0=("package-0", 0)))
    counter = tmp_path / "intel-rapl:0" / "energy_uj"
    with Sampler(sensor, PERIOD) as sampler, sampler.phase("run"):
        wait_for(lambda: len(sampler.log.readings) >= 3)
        counter.rename(tmp_path / "away")
        wait_for(lambda: any(kind == "fault" for _, kind, _ in sampler.log.events))
        (tmp_path / "away").write_text("20000000\n")  # 20 J meanwhile
        (tmp_path / "away").rename(counter)
        seen = len(sampler.log.readings)
        wait_for(lambda: len(sampler.log.readings) >= seen + 2)
    power = measure(sampler.log, 1)
    assert power.rail == TOTAL and power.joules == 0
    gap = next(gap for gap in power.gaps if "energy_uj: No such file" in gap.reason)
    assert gap.end < power.seconds + sampler.log.phase("run")[0]


def test_rapl_counts_that_are_no_numbers_are_faults(tmp_path):
    sensor = Rapl(powercap(tmp_path, rapl_0=("package-0", 0)))
    sensor.open(1.0)
    (tmp_path / "intel-rapl:0" / "energy_uj").write_text("?\n")
    with pytest.raises(SensorFault, match="holds no number"):
        sensor.read()


@pytest.fixture
def pynvml(monkeypatch):
    """A stand-in for NVIDIA's package, since NVML needs a GPU: the functions used here, in NVML's
    units."""
    module = types.ModuleType("pynvml")
    module.NVMLError = type("NVMLError", (Exception,), {})
    module.NVML_TEMPERATURE_GPU = 0
    module.open, module.lost = 0, False

    def count(step):
        module.open += step

    def power(handle):
        if module.lost:
            raise module.NVMLError("GPU is lost")
        return 65432 + 1000 * handle

    module.nvmlInit = lambda: count(1)
    module.nvmlShutdown = lambda: count(-1)
    module.nvmlDeviceGetHandleByIndex = lambda index: index
    module.nvmlDeviceGetHandleByUUID = lambda name: {"GPU-5": 5}[name]
    module.nvmlDeviceGetPowerUsage = power
    module.nvmlDeviceGetTemperature = lambda handle, kind: 61
    module.nvmlDeviceGetUtilizationRates = lambda handle: types.SimpleNamespace(gpu=87, memory=12)
    monkeypatch.setitem(sys.modules, "pynvml", module)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    return module


def test_nvml_is_read_in_watts_and_a_lost_gpu_is_a_gap(pynvml, monkeypatch):
    with Sampler(Nvml(1), PERIOD) as sampler, sampler.phase("run"):
        wait_for(lambda: len(sampler.log.readings) >= 3)
        pynvml.lost = True
        wait_for(lambda: any(kind == "fault" for _, kind, _ in sampler.log.events))
    reading = sampler.log.readings[0]
    assert (reading.power, reading.temperature, reading.load) == (
        {"GPU": 66.432},
        {"GPU": 61},
        {"GPU": 87},
    )
    assert measure(sampler.log, 1).gaps[-1].reason == "NVML: GPU is lost"
    assert pynvml.open == 0


@pytest.mark.parametrize(
    "visible, watts", [("3,5", 70.432), ("3,GPU-5", 70.432), ("7", 66.432), ("", 66.432)]
)
def test_nvml_counts_gpus_as_cuda_does(pynvml, monkeypatch, visible, watts):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    sensor = Nvml(1)
    sensor.open(1.0)
    assert sensor.read().power == {"GPU": watts}


def test_the_sensor_is_the_one_that_fits_the_device(tmp_path, pynvml):
    program = tmp_path / "tegrastats"
    program.write_text(f"#!{sys.executable}\nimport time\ntime.sleep(60)\n")
    program.chmod(0o755)
    powercap(tmp_path / "sys", rapl_0=("package-0", 0))
    none, root = str(tmp_path / "none"), tmp_path / "sys"
    assert [find_sensor(device, str(program), root)[1] for device in (None, "cpu", "cuda")] == [
        "tegrastats"
    ] * 3
    assert [find_sensor(device, none, root)[1] for device in (None, "cpu", "cuda:1")] == [
        "NVML",
        "RAPL",
        "NVML",
    ]
    assert find_sensor("cuda:1", none, root)[0].index == 1
    assert pynvml.open == 0


def test_no_sensor_is_an_answer(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pynvml", None)  # as where it is not installed
    sensor, note = find_sensor(None, str(tmp_path / "tegrastats"), tmp_path)
    assert sensor is None
    assert note.startswith("no power sensor here (")
    assert "pip install nvidia-ml-py" in note and f"no counters in {tmp_path}" in note
    with Sampler(sensor, path=tmp_path / "power.csv") as sampler, sampler.phase("run"):
        pass
    for log in (sampler.log, read_log(tmp_path / "power.csv")):
        power = measure(log, 5)
        assert (
            power.sensor == ""
            and np.isnan(power.watts)
            and np.isnan(power.thesis_watts)
            and power.gaps == ()
        )


def test_a_sensor_that_goes_between_finding_and_using_is_a_gap(tmp_path):
    with Sampler(Tegrastats((str(tmp_path / "tegrastats"),))) as sampler, sampler.phase("run"):
        pass
    assert (
        measure(sampler.log, 1).gaps[0].reason
        == f"{tmp_path / 'tegrastats'}: No such file or directory"
    )


def test_a_driver_that_raises_anything_does_not_end_the_run():
    class Broken(Rapl):
        name = "broken"

        def open(self, period):
            pass

        def read(self):
            return {}[1]

    with Sampler(Broken(), PERIOD) as sampler, sampler.phase("run"):
        wait_for(lambda: len(sampler.log.events) > 1)
    assert measure(sampler.log, 1).gaps[0].reason == "broken failed (KeyError: 1)"


def test_a_mean_over_the_past_is_placed_in_the_past():
    class Slow(Rapl):
        def open(self, period):
            pass

        def read(self):
            return Reading({"package-0": 1.0}, age=100)

    with Sampler(Slow(), PERIOD) as sampler:
        wait_for(lambda: sampler.log.readings)
        now = sampler.now()
    assert -100 <= sampler.log.readings[0].seconds <= now - 100


def test_importing_needs_no_hardware_package():
    code = "import sys, lib.measure.power; sys.exit(bool({'pynvml', 'torch', 'cv2'} & set(sys.modules)))"
    subprocess.run(
        [sys.executable, "-c", code],
        cwd=str(ROOT),
        check=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
