"""`siambook doctor`: what it reads, by recorded files; what it finds here; when it refuses."""

from __future__ import annotations

import json
import os
import shutil
from collections import namedtuple
from pathlib import Path
from typing import Any, Dict

import pytest

from lib import cli, doctor, environment
from lib.measure import sensors

# The form of these files on an AGX Xavier with JetPack 5.1
XAVIER = {
    "release": "# R35 (release), REVISION: 2.1, GCID: 32413640, BOARD: t186ref, EABI: aarch64, "
    "DATE: Tue Jan 24 23:38:33 UTC 2023\n",
    "cpuinfo": "processor\t: 0\nmodel name\t: ARMv8 Processor rev 0 (v8l)\nBogoMIPS\t: 62.50\n"
    "Features\t: fp asimd evtstrm aes pmull sha1 sha2 crc32 atomics fphp asimdhp cpuid asimdrdm "
    "dcpop\nCPU implementer\t: 0x4e\n",
    "tegrastats": "RAM 4722/30991MB (lfb 4x4MB) SWAP 0/15496MB CPU [1%@1190,0%@1190] "
    "GPU 311mW/311mW CPU 1090mW/1090mW SOC 1090mW/1090mW CV 0mW/0mW VDDRQ 311mW/311mW",
}
SERVER = (
    "NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.104.05  Sat Aug 19 01:15:15 UTC 2023\n"
    "GCC version:  gcc version 12.2.0\n"
)
VALUES = {"dataset": "demo", "weights": "demo", "run": "local", "framework": "auto"}


def examined(*checks: Any, **values: str) -> Dict[str, doctor.Check]:
    every = [finding for check in checks for finding in check({**VALUES, **values})]
    return {finding.name: finding for finding in every}


# -- Recorded files --------------------------------------------------------------------------------


def test_a_xaviers_files_are_understood() -> None:
    assert doctor.jetson_linux(XAVIER["release"]) == "35.2.1"
    assert doctor.instruction_sets(XAVIER["cpuinfo"]) == ["asimd", "fphp"]
    assert sensors.parse_tegrastats(XAVIER["tegrastats"])["GPU"] == 0.311


def test_a_servers_driver_and_processor_are_understood() -> None:
    assert doctor.driver_version(SERVER) == "535.104.05"
    assert doctor.instruction_sets("flags\t\t: fpu avx2 amx_int8 avx512f\n") == [
        *("avx2", "avx512f", "amx_int8")
    ]


def test_files_that_are_absent_name_nothing() -> None:
    assert (doctor.jetson_linux(""), doctor.driver_version("")) == ("", "")
    assert doctor.instruction_sets("") == []


def test_a_xaviers_screen(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    files = {"/etc/nv_tegra_release": XAVIER["release"], "/proc/cpuinfo": XAVIER["cpuinfo"]}
    monkeypatch.setattr(doctor, "_text", lambda path: files.get(path, ""))
    for name, text in {
        "nvpmodel": "NV Power Mode: MODE_15W\n2\n",
        "tegrastats": XAVIER["tegrastats"],
    }.items():
        (tmp_path / name).write_text(f"#!/bin/sh\ncat <<END\n{text}\nEND\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    environment.power_mode.cache_clear()
    try:
        found = examined(doctor._gpu)
    finally:
        environment.power_mode.cache_clear()
    assert found["GPU"].value == "Jetson Linux 35.2.1"
    assert found["GPU"].state == "note"  # PyTorch does not see it
    assert (found["power mode"].value, found["power mode"].state) == ("MODE_15W", "note")
    assert "nvpmodel -m 0" in found["power mode"].advice
    assert found["power sensor"].value == "tegrastats"


# -- The lock --------------------------------------------------------------------------------------


def test_versions_are_compared_with_the_lock() -> None:
    lock = '# made by\ntorch==2.13.0\nnum-py==2.5.5 ; python_version >= "3"\nold==1 ; python_version < "3"\nother==3'
    installed = {"torch": "2.13.0+cpu", "num-py": "2.0.0", "old": "2"}
    assert doctor.differences(lock, installed) == ["num-py 2.0.0 (lock: 2.5.5)"]


# -- This machine ----------------------------------------------------------------------------------


def test_a_full_disk_stops_the_profile(monkeypatch: pytest.MonkeyPatch) -> None:
    usage = namedtuple("usage", "total used free")
    assert examined(doctor._processor)["free disk"].state in ("ok", "missing")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(10**12, 10**12, 10**8))
    finding = examined(doctor._processor)["free disk"]
    assert finding.state == "missing" and "3.9 GB" in finding.advice


def test_without_its_framework_a_profile_cannot_run(monkeypatch: pytest.MonkeyPatch) -> None:
    from lib.engines import deploy

    assert examined(doctor._engines, framework="tensorrt")["TensorRT"].state == "missing"
    said = {"openvino": "OpenVINO: the framework OpenVINO is not installed: pip install ..."}
    monkeypatch.setattr(deploy, "missing_frameworks", lambda names: {**said, "tensorrt": "none"})
    finding = examined(doctor._engines)["OpenVINO"]
    assert finding.state == "missing" and "pip install" in finding.advice


def test_data_and_weights_that_are_missing_have_their_commands(tmp_path: Path) -> None:
    found = examined(doctor._data, dataset=str(tmp_path / "vot"), weights=str(tmp_path / "w.pth"))
    assert {name: finding.advice for name, finding in found.items()} == {
        "dataset": "siambook fetch vot2018",
        "weights": "siambook fetch weights",
    }
    assert {finding.state for finding in found.values()} == {"missing"}


def test_a_frame_that_is_lost_is_seen(small: Path) -> None:
    assert doctor._dataset(str(small)).state == "ok"
    lost = sorted((small / "lost").parent.glob("*/color/*"))[-1]
    kept = lost.read_bytes()
    lost.unlink()
    try:
        assert doctor._dataset(str(small)).state == "missing"
    finally:
        lost.write_bytes(kept)


def test_the_command_prints_json_and_its_status_says_whether_the_profile_can_run(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    checks = (doctor._python, doctor._processor, doctor._data)
    monkeypatch.setattr(doctor, "CHECKS", checks)
    status = cli.main(["doctor", "--profile", "profiles/xavier.yaml", "--json"])
    found = {each["name"]: each for each in json.loads(capsys.readouterr().out)}
    assert status == 1 and found["weights"]["state"] == "missing"
    monkeypatch.setattr(doctor, "CHECKS", checks[:1])
    assert cli.main(["doctor"]) == 0
    assert "Python" in capsys.readouterr().out
