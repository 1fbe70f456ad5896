"""Sensors: lines of every JetPack generation, RAPL's counters, NVML, and which one is found."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path
from typing import Dict, Tuple

import pytest
import torch

from lib.measure import power
from lib.measure.sensors import Ina3221, Nvml, Rapl, Reading, SensorFault, parse_tegrastats

from .helpers import make_program

ROOT = Path(__file__).resolve().parents[2]

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
# ../shared/cases/tegrastats-jetpack7-orin: now, on average, at most
JETPACK_7 = (
    "11-02-2026 10:11:00 RAM 9120/62817MB (lfb 4x4MB) CPU [11%@2201,4%@2201,off,off] EMC_FREQ 2%@3199 GR3D_FREQ "
    "40%@[1300,1300] NVENC0 off NVDEC0 off VIC off APE 174 cpu@51.5C/52.1C soc0@49.0C/49.2C gpu@47.0C/47.5C tj@52.1C/52.1C "
    "VDD_GPU_SOC 4000mW/4100mW/9000mW VDD_CPU_CV 1633mW/1700mW/2450mW VIN_SYS_5V0 5200mW/5210mW/5500mW\n"
)


@pytest.mark.parametrize(
    "line, watts",
    [
        (
            JETPACK_4,
            {"GPU": 0.463, "CPU": 0.618, "SOC": 2.936, "CV": 0, "VDDRQ": 0.309, "SYS5V": 3.306},
        ),
        (
            JETPACK_5,
            {"GPU": 0.467, "CPU": 0.467, "SOC": 1.245, "CV": 0, "VDDRQ": 0.311, "SYS5V": 2.768},
        ),
        (
            ORIN,
            {
                "VDD_GPU_SOC": 3.15,
                "VDD_CPU_CV": 14.312,
                "VIN_SYS_5V0": 4.968,
                "VDDQ_VDD2_1V8AO": 1.091,
            },
        ),
        (JETPACK_7, {"VDD_GPU_SOC": 4.0, "VDD_CPU_CV": 1.633, "VIN_SYS_5V0": 5.2}),
        (ORIN_NANO, {"VDD_IN": 3.913, "VDD_CPU_GPU_CV": 0.598, "VDD_SOC": 1.238}),
    ],
    ids=["JetPack 4, AGX Xavier", "JetPack 5, AGX Xavier", "AGX Orin", "JetPack 7", "Orin Nano"],
)
def test_lines_of_each_generation(line: str, watts: Dict[str, float]) -> None:
    assert parse_tegrastats(line) == pytest.approx(watts)


@pytest.mark.parametrize(
    "line",
    ["", "RAM 14700/15692MB (lfb 3x2MB)", JETPACK_4[:200], "\ufffd\x00\x01 GPU@30C", "GPU 25"],
)
def test_a_line_without_rails_is_no_reading(line: str) -> None:
    with pytest.raises(SensorFault, match="a line without power"):
        parse_tegrastats(line)


# -- RAPL ------------------------------------------------------------------------------------------


def powercap(root: Path, **zones: Tuple[str, int]) -> Path:
    """A tree as Linux has it under /sys/class/powercap: folder -> (name, counter in µJ)."""
    for folder, (name, count) in zones.items():
        zone = root / folder.replace("_", ":").replace("rapl", "intel-rapl")
        zone.mkdir(parents=True, exist_ok=True)
        (zone / "name").write_text(name + "\n")
        (zone / "energy_uj").write_text(f"{count}\n")
        (zone / "max_energy_range_uj").write_text("262143328850\n")
    return root


def joules(sensor: Rapl) -> Dict[str, float]:
    """Energy since the last reading: its power x its time."""
    assert sensor.last is not None
    before = sensor.last[0]
    reading = sensor.read()
    assert reading is not None and before < reading.seconds < sensor.last[0]
    return {rail: watts * (sensor.last[0] - before) for rail, watts in reading.watts.items()}


def test_rapl_counts_packages_and_memory_once(tmp_path: Path) -> None:
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
    more = {"rapl_0": ("package-0", 3_001_000), "rapl_0_1": ("dram", 501_000)}
    powercap(tmp_path, **more)
    assert joules(sensor) == pytest.approx({"package-0": 3, "dram-0": 0.5, "package-1": 0})


def test_rapl_counters_that_begin_again_lose_nothing(tmp_path: Path) -> None:
    sensor = Rapl(powercap(tmp_path, rapl_0=("package-0", 262_143_328_850 - 1_500_000)))
    sensor.open(1.0)
    powercap(tmp_path, rapl_0=("package-0", 500_000))
    assert joules(sensor) == pytest.approx({"package-0": 2.0})


def test_no_mean_of_rapl_reaches_over_a_fault(tmp_path: Path) -> None:
    sensor = Rapl(powercap(tmp_path, rapl_0=("package-0", 0)))
    sensor.open(1.0)
    counter = tmp_path / "intel-rapl:0" / "energy_uj"
    counter.write_text("?\n")
    with pytest.raises(SensorFault, match="RAPL: invalid literal"):
        sensor.read()
    counter.write_text("20000000\n")  # 20 J meanwhile
    assert sensor.read() is None
    assert joules(sensor) == {"package-0": 0}


# -- INA3221 ---------------------------------------------------------------------------------------


def test_the_kernels_power_monitors_are_read_in_watts(tmp_path: Path) -> None:
    hwmon = tmp_path / "ina3221" / "1-0040" / "hwmon" / "hwmon3"
    iio = tmp_path / "ina3221x" / "1-0041" / "iio:device0"
    texts = {
        hwmon: {"in1_label": "VDD_IN", "in1_input": "5000", "curr1_input": "800"},
        iio: {"rail_name_0": "VDDRQ", "in_power0_input": "309"},
    }
    texts[hwmon].update({"in2_label": "NC", "in2_input": "0", "curr2_input": "0"})
    texts[hwmon].update({"in7_label": "sum of shunt voltages", "in7_input": "1"})
    for folder, files in texts.items():
        folder.mkdir(parents=True)
        for name, text in files.items():
            (folder / name).write_text(text + "\n")
    sensor = Ina3221(tmp_path)
    sensor.open(1.0)
    assert sensor.read().watts == pytest.approx({"VDD_IN": 4.0, "VDDRQ": 0.309})
    (hwmon / "curr1_input").write_text("?\n")
    with pytest.raises(SensorFault, match="INA3221: "):
        sensor.read()
    with pytest.raises(SensorFault, match="no power monitors"):
        Ina3221(tmp_path / "elsewhere").open(1.0)


def test_a_monitor_may_read_an_idle_rail_a_little_too_low() -> None:
    readings = [Reading(0.0, {"CV": watts}) for watts in (-0.04, 0.0, -40.0, 3000.0)]
    assert [reading.is_possible() for reading in readings] == [True, True, False, False]


# -- NVML, and which sensor it is ------------------------------------------------------------------


def test_nvml_is_read_in_watts_and_a_lost_gpu_is_a_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    """PyTorch's function in the place of a GPU, in its unit, mW."""
    monkeypatch.setattr(torch.cuda, "power_draw", lambda: 66432, raising=False)
    reading = Nvml().read()
    assert reading.watts == {"GPU": 66.432} and 0 <= time.monotonic() - reading.seconds < 60

    def lost() -> int:
        raise RuntimeError("GPU is lost")

    monkeypatch.setattr(torch.cuda, "power_draw", lost, raising=False)
    with pytest.raises(SensorFault, match="NVML: GPU is lost"):
        Nvml().read()


def test_the_sensor_is_the_one_that_fits_the_device(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    root = tmp_path / "powercap"
    monkeypatch.setattr(power, "Rapl", lambda: Rapl(root))
    for device, reason in (("cpu", f"no counters in {root}"), ("cuda", "NVML: ")):
        sensor, about = power.find_sensor(device)
        assert sensor is None and about.startswith("no power sensor here (tegrastats: ")
        assert reason in about
    powercap(root, rapl_0=("package-0", 0))
    monkeypatch.setattr(torch.cuda, "power_draw", lambda: 1000, raising=False)
    assert [power.find_sensor(device)[1] for device in ("cpu", "cuda")] == ["RAPL", "NVML"]
    make_program(tmp_path / "tegrastats", "import time\ntime.sleep(60)\n")
    assert [power.find_sensor(device)[1] for device in ("cpu", "cuda")] == ["tegrastats"] * 2


def test_importing_needs_no_hardware_package() -> None:
    code = "import sys, lib.measure.power; sys.exit(bool({'pynvml', 'torch'} & set(sys.modules)))"
    subprocess.run([sys.executable, "-c", code], cwd=str(ROOT), check=True)
