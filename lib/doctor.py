"""What this machine has for a profile, what it lacks, and the command that supplies it (`siambook
doctor`).

A check is a function from the profile's parameters to findings; CHECKS has them in the order of the
screen. Nothing is installed, generated or measured into a run.
"""

from __future__ import annotations

import re
import shutil
import sys
import time
from importlib import metadata
from pathlib import Path
from typing import Any, Iterator, List, Mapping, NamedTuple

import numpy as np

from lib import environment
from lib.engines import deploy, zoo
from lib.engines.calibration import training_ranges
from lib.errors import InputError
from lib.files import ROOT, digest
from lib.measure import everything, full_size, quality, runs, start, variants
from lib.measure.power import find_sensor
from lib.siamrpn.checkpoint import load_network

MEMORY, DISK = 8, 4  # GB that `make book` takes at most
# What decides speed, as Linux names it: x86, then aarch64
INSTRUCTIONS = (
    *("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "avx512_fp16", "amx_bf16", "amx_int8"),
    *("asimd", "fphp", "asimddp", "bf16", "i8mm", "sve"),
)
Parameters = Mapping[str, Any]


class Check(NamedTuple):
    """advice: the command that supplies what is missing, "" where nothing is. needed: without it
    the profile cannot run."""

    name: str
    value: str
    advice: str = ""
    needed: bool = False

    @property
    def state(self) -> str:
        return ("missing" if self.needed else "note") if self.advice else "ok"


def _python(_: Parameters) -> Iterator[Check]:
    old = sys.version_info < (3, 9)
    yield Check("Python", sys.version.split()[0], "make book PYTHON=python3.x" if old else "")
    lock = "requirements-board.lock" if old else "requirements.lock"
    here = {_normal(each.metadata["Name"]): each.version for each in metadata.distributions()}
    differs = ", ".join(differences((ROOT / lock).read_text(), here))
    install = "make install EXTRAS=board" if old else "make install"
    yield Check("versions", differs or f"as in {lock}", install if differs else "")


def differences(lock: str, installed: Mapping[str, str]) -> List[str]:
    """Installed packages (normalised name -> version) in another version than the lock's, e.g.
    "numpy 2.0.0 (lock: 2.5.5)". Builds of one version (2.13.0+cpu) do not differ."""
    from packaging.requirements import Requirement

    found = []
    for pin in map(Requirement, re.findall(r"^[^#\n].*$", lock, re.MULTILINE)):
        version, locked = installed.get(_normal(pin.name), ""), str(pin.specifier)[2:]
        if version and (not pin.marker or pin.marker.evaluate()) and version not in pin.specifier:
            found.append(f"{pin.name} {version} (lock: {locked})")
    return found


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _processor(_: Parameters) -> Iterator[Check]:
    flags = instruction_sets(_text("/proc/cpuinfo"))
    yield Check("processor", f"{environment.processor()} ({', '.join(flags) or 'unknown'})")
    record = environment.record()
    used = "unknown" if record["in_use"] is None else f"{record['in_use']:.0%}"
    busy = environment.was_busy(record)
    advice = "stop other work before speed is measured" if busy else ""
    yield Check("cores", f"{environment.cores()}; in use by others: {used}", advice)
    memory, free = record["memory_gib"], shutil.disk_usage(ROOT).free / 1e9
    little = memory is not None and memory < MEMORY
    advice = f"close other programs or add swap: up to {MEMORY} GB are used" if little else ""
    yield Check("memory", f"{memory} GiB", advice)
    advice = f"free {DISK - free:.1f} GB, e.g. rm -r data/cache/plans" if free < DISK else ""
    yield Check("free disk", f"{free:.1f} GB", advice, needed=True)


def instruction_sets(cpuinfo: str) -> List[str]:
    """Of INSTRUCTIONS, those of the first processor in /proc/cpuinfo."""
    line = re.search(r"^(?:flags|Features)\s*:(.*)$", cpuinfo, re.MULTILINE)
    flags = line[1].split() if line else []
    return [name for name in INSTRUCTIONS if name in flags]


def _text(path: str) -> str:
    return Path(path).read_text(errors="replace") if Path(path).is_file() else ""


def _gpu(_: Parameters) -> Iterator[Check]:
    device, jetson = environment.device(), jetson_linux(_text("/etc/nv_tegra_release"))
    names = environment.gpus() + ([f"Jetson Linux {jetson}"] if jetson else [])
    driver = driver_version(_text("/proc/driver/nvidia/version"))
    value = ", ".join(names + ([f"driver {driver}"] if driver else []))
    unseen = names and device != "cuda"
    advice = "install a PyTorch with CUDA (Jetson: NVIDIA's own wheel)" if unseen else ""
    yield Check("GPU", value or "none", advice)
    if names:
        found = "".join(each.version for each in metadata.distributions(name="pycuda"))
        yield Check("PyCUDA", found or "none", "" if found else "pip install -e '.[pycuda]'")
    if jetson:
        mode = str(environment.power_mode())
        advice = "" if mode.startswith("MAXN") else "sudo nvpmodel -m 0 && sudo jetson_clocks"
        yield Check("power mode", mode, advice)
    said = find_sensor(device)[1]
    advice = "sudo chmod a+r /sys/class/powercap/*/energy_uj" if "energy_uj" in said else ""
    yield Check("power sensor", said, advice)


def driver_version(text: str) -> str:
    """By /proc/driver/nvidia/version, e.g. "535.104.05"; "" where it names none."""
    found = re.search(r"^NVRM version:.*?(\d+\.\d[\d.]*)", text)
    return found[1] if found else ""


def jetson_linux(text: str) -> str:
    """The release by /etc/nv_tegra_release, e.g. "35.2.1"; "" where it names none."""
    found = re.search(r"^# R(\d+) \(release\), REVISION: ([\d.]+)", text)
    return f"{found[1]}.{found[2]}" if found else ""


def _engines(values: Parameters) -> Iterator[Check]:
    chosen = deploy.choose_framework(str(values["framework"]))
    absent = deploy.missing_frameworks(["openvino", "tensorrt"])
    for name in ("openvino", "tensorrt"):
        title, module = deploy.FRAMEWORKS[name].title, deploy.framework_module(name)
        needed = name == chosen and not _is_read_only(values)
        if name not in absent:
            fp16 = f", FP16 is {module.hint('fp16')}" if name == "openvino" else ""
            yield Check(title, module.version() + fp16)
        elif needed or environment.gpus():
            yield Check(title, "none", absent[name][len(f"{title}: ") :], needed)


def _is_read_only(values: Parameters) -> bool:
    return runs.is_recorded(str(values["run"]), environment.device())


def _data(values: Parameters) -> Iterator[Check]:
    if _is_read_only(values):
        yield Check("data", f"not needed, run {values['run']} is only read here")
        return
    yield _dataset(str(values["dataset"]))
    try:
        path = zoo.weights_path(str(values["weights"]), ROOT)
        load_network(path)
    except InputError as error:
        yield Check("weights", str(error), "siambook fetch weights", needed=True)
        return
    yield Check("weights", f"{path}, SHA-256 {digest(path.read_bytes())}...")
    try:
        training_ranges(path)
    except InputError as error:
        advice = f"siambook calibrate data/cache/VOT2018 --pairs 1000 --weights {path}"
        yield Check("INT8 ranges", str(error), advice, needed=True)


def _dataset(name: str) -> Check:
    if name == zoo.DEMO and not variants.DEMO_DATASET.is_dir():
        return Check("dataset", "demo, to be generated", "siambook demo-data")
    try:
        sequences = variants.open_dataset(name).sequences
        frames = [frame for sequence in sequences for frame in sequence.frames]
        lost = sum(not frame.is_file() for frame in frames)
        value = f"{name}, {len(sequences)} sequences, {len(frames)} frames, {lost} of them missing"
    except InputError as error:
        value, lost = str(error), 1
    return Check("dataset", value, "siambook fetch vot2018" if lost else "", needed=True)


def _kept(values: Parameters) -> Iterator[Check]:
    folders = {f"run {name}": runs.run_folder(name) for name in runs.names()}
    for name, folder in {"plans": deploy.CACHE, **folders}.items():
        sizes = [path.stat().st_size for path in folder.rglob("*") if path.is_file()]
        yield Check(name, f"{len(sizes)} files, {sum(sizes) / 1e6:.1f} MB")
    run = str(values["run"])
    try:
        framework = variants.compiled_framework(str(values["framework"]), run)
        chosen = everything.every_variant(str(values["weights"]), framework)
        dataset = variants.open_dataset(str(values["dataset"]), run)  # generates it, in seconds
        work = quality.work(chosen, dataset, run)
        work += full_size.work(run, framework) + start.work(run, framework)
    except InputError:  # what is missing has its own line
        return
    minutes = work * _seconds_of_a_frame() / 60
    yield Check("make book", f"about {minutes:.0f} minutes to measure, then the pages")


def _seconds_of_a_frame() -> float:
    """Of the demo tracker in PyTorch FP32, as busy as the machine is now: the median of ten."""
    tracker, frame, ends = zoo.open_tracker(), np.zeros((240, 320, 3), np.uint8), []
    tracker.init(frame, np.array([100.0, 80.0, 40.0, 40.0]))
    for _ in range(11):
        tracker.track(frame)
        ends.append(time.perf_counter())
    return float(np.median(np.diff(ends)))


CHECKS = (_python, _processor, _gpu, _engines, _data, _kept)


def examine(values: Parameters) -> List[Check]:
    """What all checks find for a profile's parameters (dataset, weights, run, framework)."""
    return [finding for check in CHECKS for finding in check(values)]


def report(findings: List[Check]) -> str:
    """One screen of text."""
    marks = {"ok": " ", "note": "-", "missing": "!"}
    width = max(len(finding.name) for finding in findings)
    lines = []
    for each in findings:
        lines.append(f"{marks[each.state]} {each.name:<{width}}  {each.value}")
        lines += [f"  {'':<{width}}  -> {each.advice}"] if each.advice else []
    return "\n".join(lines)
