"""A run: measured once, the same bytes wherever, loaded afterwards, gone on with after any fault,
stale when it must be."""

from __future__ import annotations

import json
import os
import pickle
import re
import shutil
import signal
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any, Callable, Dict, List

import numpy as np
import pytest

from lib import environment
from lib.engines.deploy import Quantisation, missing_frameworks
from lib.errors import InputError
from lib.measure import keys, power, quality, variants, worker
from lib.measure.variants import Variant, baseline, mixture
from lib.vot.dataset import Dataset, load_dataset
from lib.vot.metrics import evaluate
from lib.vot.protocol import TOOLKIT
from lib.vot.results import read_results

from .helpers import (
    FRAMES,
    NAMES,
    Dask,
    alive,
    children,
    make_patches,
    make_program,
    measure,
    raw_files,
    serially,
    start,
    state,
    wait_for,
    workers_of,
    written,
)

# -- The same bytes wherever -----------------------------------------------------------------------

FEW = 6  # frames of each sequence
SMALLEST = str(keys.ROOT / "data" / "demo" / "distilled_26.pth")  # the fastest of the demo trackers


@pytest.fixture(scope="module")
def few(small: Path) -> Dataset:
    data = load_dataset(small)
    videos = [
        replace(
            video,
            frames=video.frames[:FEW],
            regions=video.regions[:FEW],
            tags={tag: flags[:FEW] for tag, flags in video.tags.items()},
        )
        for video in data
    ]
    return replace(data, sequences=tuple(videos))


@pytest.fixture(scope="module")
def chosen(weights: Path) -> List[Variant]:
    """A tracker that fails, alone and calibrated on the benchmark, and demo trackers that share a
    search engine."""
    plain = Variant("tiny", str(weights))
    if missing_frameworks(["openvino"]):
        return [plain, *baseline(SMALLEST)]
    pair = [mixture(SMALLEST, "openvino", ("fp32", "fp32", xcorr)) for xcorr in ("fp32", "int8")]
    how = Quantisation("benchmark")
    return [plain, *pair, mixture(str(weights), "openvino", ("fp32", "fp32", "int8"), how)]


@pytest.fixture(scope="module")
def expected(
    chosen: List[Variant], few: Dataset, tmp_path_factory: pytest.TempPathFactory
) -> Dict[str, bytes]:
    """Raw files of a serial run, where passes are timed and every tracker does its own work."""
    run = tmp_path_factory.mktemp("serial")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(quality, "open_executor", serially)
        patch.setattr(quality, "is_alone", lambda scheduler: True)
        patch.setattr(worker.Remembering, "__init__", None)
        measured = quality.measure(chosen, few, str(run), shown=False)
    for one in measured:
        assert all(np.isfinite(each.seconds).all() for each in one.trajectories.values())
    assert any(2 in one.codes for one in measured[0].trajectories.values()), "failures to agree on"
    found = raw_files(run)
    assert len(found) == len(list(run.rglob("*_001_time.value"))) == 2 * len(chosen)
    return found


def test_search_engines_that_remember_change_no_byte(
    expected: Dict[str, bytes],
    chosen: List[Variant],
    few: Dataset,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: List[int] = []
    real = worker.Remembering.__call__

    def counted(self: Any, feeds: Any) -> Any:
        known = len(self.known)
        answer = real(self, feeds)
        asked.append(len(self.known) - known)
        return answer

    monkeypatch.setattr(worker.Remembering, "__call__", counted)
    monkeypatch.setattr(quality, "open_executor", serially)
    found = quality.measure(chosen, few, str(tmp_path), shown=False)
    assert raw_files(tmp_path) == expected
    assert all(np.isnan(each.seconds).all() for each in found[0].trajectories.values())
    assert not list(tmp_path.rglob("*_001_time.value")), "not timed"
    if len(chosen) > 2:
        assert 0 in asked and 1 in asked, "some crops were remembered"


class Counting:
    """A search engine that reuses its output's memory, as OpenVINO does."""

    def __init__(self) -> None:
        self.inputs, self.outputs = {"search": (1, 3, 8, 8)}, {}
        self.calls, self.output = 0, np.zeros(1, np.float32)

    def __call__(self, feeds: Dict[str, np.ndarray]) -> Dict[str, np.ndarray]:
        self.calls += 1
        self.output[:] = feeds["search"].sum()
        return {"map": self.output}

    def keep(self, tensors: Dict[str, np.ndarray]) -> Dict[str, np.ndarray]:
        return {name: tensor.copy() for name, tensor in tensors.items()}


@pytest.mark.parametrize("most, calls", [(2**30, 3), (2 * 768, 5), (0, 7)])
def test_memory_of_crops_has_an_end(most: int, calls: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker, "MEMORY_BYTES", most)
    engine = Counting()
    remembering = worker.Remembering(engine, {})  # type: ignore[arg-type]
    crops = [np.full((1, 3, 8, 8), value, np.float32) for value in range(3)]
    for place in (0, 1, 2, 0, 1, 2, 2):
        answer = remembering({"search": crops[place]})
        assert answer["map"][0] == crops[place].sum()
    assert engine.calls == calls


@pytest.mark.slow
def test_one_process_and_after_its_death_another_write_the_same_bytes(
    expected: Dict[str, bytes],
    chosen: List[Variant],
    few: Dataset,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    before, write = workers_of(os.getpid()), quality.write_trajectory

    def and_kill(path: Path, trajectory: Any) -> None:
        write(path, trajectory)
        for pid in workers_of(os.getpid()) - before:
            os.kill(pid, signal.SIGKILL)

    with monkeypatch.context() as patch:
        patch.setattr(quality, "write_trajectory", and_kill)
        with pytest.raises(InputError, match=r"a worker process ended .* the same command"):
            quality.measure(chosen, few, str(tmp_path), shown=False, workers=1)
    kept = written(tmp_path)
    assert 0 < len(raw_files(tmp_path)) < len(expected)
    quality.measure(chosen, few, str(tmp_path), shown=False, workers=1)
    assert raw_files(tmp_path) == expected
    assert {name: written(tmp_path)[name] for name in kept} == kept, "what was finished is kept"


MEASURE = """
import pickle, sys
from lib.measure import quality
if __name__ == "__main__":
    with open(sys.argv[1], "rb") as file:
        chosen, data = pickle.load(file)
    quality.measure(chosen, data, sys.argv[2], shown=False, workers=2)
"""


@pytest.mark.slow
def test_two_processes_whose_parent_is_killed_leave_nobody_and_the_command_goes_on(
    expected: Dict[str, bytes], chosen: List[Variant], few: Dataset, tmp_path: Path
) -> None:
    order, run = tmp_path / "order", tmp_path / "run"
    chosen = [chosen[0], chosen[-1]]
    order.write_bytes(pickle.dumps((chosen, few)))
    names = {one.name for one in chosen}
    expected = {path: raw for path, raw in expected.items() if path.split("/")[1] in names}
    process = start(MEASURE, order, run)
    wait_for(lambda: raw_files(run), process)
    below = children(process.pid)
    assert len(workers_of(process.pid)) == 2
    process.kill()
    process.communicate()
    wait_for(lambda: not any(map(alive, below)), seconds=20)
    kept = {name: at for name, at in written(run).items() if name.endswith("_001.txt")}
    assert 0 < len(kept) < len(expected)
    again = start(MEASURE, order, run)
    told = again.communicate(timeout=300)[1]
    assert again.returncode == 0 and "measured again" not in told
    assert raw_files(run) == expected
    assert {name: written(run)[name] for name in kept} == kept, "what was finished is kept"


@pytest.mark.slow
def test_a_cluster_of_two_workers_writes_the_same_bytes(
    expected: Dict[str, bytes], chosen: List[Variant], few: Dataset, tmp_path: Path
) -> None:
    """PyTorch would use two threads in the first worker, and the second could do two tasks at a
    time."""
    distributed = pytest.importorskip("distributed")
    processes, run = Dask(tmp_path / "dask"), tmp_path / "run"
    try:
        processes.add("one", OMP_NUM_THREADS="2")
        processes.add("two", threads=2)
        processes.wait_for("one", "two")
        quality.measure(chosen, few, str(run), shown=False, scheduler=processes.address)
        assert raw_files(run) == expected
        with distributed.Client(processes.address) as client:
            took_part = client.run(lambda: "lib.measure.worker" in sys.modules)
        assert list(took_part.values()) == [True, True]
    finally:
        processes.close()


# -- Measure, or load ------------------------------------------------------------------------------


@pytest.mark.usefixtures("in_process")
def test_a_run_is_raw_files_and_the_machine(patches: Path, weights: Path, tmp_path: Path) -> None:
    measured = measure(patches, weights, tmp_path / "run")
    folder = tmp_path / "run" / "patches" / "tiny"
    assert len(raw_files(folder)) == len(NAMES)
    again = evaluate(load_dataset(patches), read_results(folder, load_dataset(patches)))
    assert again.as_dict() == measured.evaluation.as_dict()
    for name, trajectory in measured.trajectories.items():
        failures = np.flatnonzero(trajectory.codes == 2).tolist()
        assert sorted(measured.lost[name]) == failures, "every failure keeps the lost box"
        assert np.isnan(trajectory.seconds).all()
    record = json.loads((tmp_path / "run" / "environment.json").read_text())
    assert record["hardware"]["cores"] >= 1 and record["date"]
    assert environment.label(record) in measured.note and "Run run" in measured.note
    row = measured.row()
    assert row["row"] == "measured" and row["robustness"] == measured.evaluation.robustness
    assert np.isnan([row["fps"], row["fps_tracked"], row["power_w"]]).all(), "not timed"
    assert measured.scale.startswith("Demo scale: measured on patches (3 sequences, 24 frames)")
    assert not list((tmp_path / "run").rglob(".*.json")), "nothing is left of writing"


@pytest.mark.usefixtures("in_process")
def test_what_was_measured_is_loaded(
    patches: Path, weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, variant = load_dataset(patches), Variant("tiny", str(weights))
    assert quality.work([variant], data, str(tmp_path / "run")) > 0
    first = measure(patches, weights, tmp_path / "run")
    before = state(tmp_path / "run")
    assert quality.work([variant], data, str(tmp_path / "run")) == 0
    monkeypatch.setattr(quality, "open_executor", None)
    second = measure(patches, weights, tmp_path / "run")
    assert before.items() <= state(tmp_path / "run").items()
    assert str(second.row()) == str(first.row())


@pytest.mark.usefixtures("in_process")
def test_what_has_become_stale_is_measured_again(
    measured: Path,
    patches: Path,
    weights: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    shutil.copytree(measured, tmp_path / "run")
    before = written(tmp_path / "run")
    monkeypatch.setattr(keys, "CODE", "edited")
    measure(patches, weights, tmp_path / "run", protocol=TOOLKIT)
    after = written(tmp_path / "run")
    assert set(after) == set(before) and all(after[path] > before[path] for path in before)
    told = capsys.readouterr().err
    assert "tiny on patches is measured again: protocol, code changed" in told


# -- Killed, full, damaged -------------------------------------------------------------------------

# What the scripts below begin with: measuring in their own process.
HERE = """
import json, os, resource, shutil, signal, sys, time
from pathlib import Path

from lib import environment
from lib.errors import InputError
from lib.measure import quality
from lib.measure.keys import CODE
from lib.measure.variants import Variant
from lib.vot.dataset import load_dataset
from measure.helpers import raw_files, serially, written

quality.open_executor, write = serially, quality.write_trajectory
environment._in_use, environment._commit = lambda: 0.0, lambda: None
folder, weights, *more = sys.argv[1:]
data, chosen = load_dataset(folder), [Variant("tiny", weights)]

def measure(run):
    quality.measure(chosen, data, str(run), shown=False)
"""

KILLED = """
stale, work = more

def in_child(run, step):
    # A process that is killed before its so many-th change of a file; returns whether it was.
    pid = os.fork()
    if pid:
        return os.waitpid(pid, 0)[1] == signal.SIGKILL
    left = [step]
    def hook(event, arguments):
        changes = event in ("os.rename", "os.remove", "os.rmdir", "os.mkdir") or (
            event == "open" and isinstance(arguments[2], int) and arguments[2] & (os.O_WRONLY | os.O_RDWR)
            and str(run) in str(arguments[0]))
        left[0] -= changes
        if changes and left[0] < 0:
            os.kill(os.getpid(), signal.SIGKILL)
    sys.addaudithook(hook)
    measure(run)
    os._exit(0)

whole = Path(work) / "whole"
measure(whole)
expected = raw_files(whole / "patches" / "tiny")
steps, kills, partial = 0, 0, 0
while True:
    run = Path(work) / f"killed-{steps}"
    shutil.copytree(stale, run)
    if not in_child(run, steps):
        break
    kills += 1
    results = run / "patches" / "tiny"
    record = quality.read_json(results / "measured.json")
    fresh = record.get("decided_by", {}).get("code") == CODE
    kept = {name: at for name, at in written(run).items() if fresh and name.endswith("_001.txt")}
    measure(run)
    assert raw_files(results) == expected, steps
    assert {name: written(run)[name] for name in kept} == kept, steps
    partial += 0 < len(kept) < len(expected)
    shutil.rmtree(run)
    steps += int(os.environ["STRIDE"])
print(json.dumps([kills, partial]))
"""


@pytest.mark.slow
def test_a_kill_at_any_moment_loses_nothing_that_was_finished(
    weights: Path, tmp_path: Path
) -> None:
    """The run that is gone on with holds stale results at first, whose removal is killed, too."""
    patches = make_patches(tmp_path / "patches", frames=3)
    stale = tmp_path / "stale"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(quality, "open_executor", serially)
        patch.setattr(keys, "CODE", "before")
        worker._trackers.cache_clear()
        measure(patches, weights, stale)
    worker._trackers.cache_clear()
    work = tmp_path / "work"
    work.mkdir()
    process = start(HERE + KILLED, patches, weights, stale, work, STRIDE="3")
    out, error = process.communicate(timeout=300)
    assert process.returncode == 0, error
    kills, partial = json.loads(out.splitlines()[-1])
    assert kills >= 8 and partial >= 1, "kills before, between and after results"


FULL = """
def and_full(path, trajectory):
    write(path, trajectory)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1, 1))

quality.write_trajectory = and_full
try:
    measure(more[0])
except InputError as error:
    sys.exit(str(error))
"""


@pytest.mark.usefixtures("in_process")
def test_a_full_disk_is_said_and_the_same_command_goes_on(
    patches: Path, weights: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    process = start(HERE + FULL, patches, weights, run)
    error = process.communicate(timeout=120)[1].splitlines()[-1]  # PyTorch 2.0 warns
    assert process.returncode == 1
    assert re.fullmatch(rf"{run}/\S+second_001\S+: cannot be written \(File too large\)", error)
    kept = written(run)
    assert len(raw_files(run)) == 1
    measure(patches, weights, run)
    assert {name: written(run)[name] for name in kept} == kept
    assert len(raw_files(run)) == len(NAMES)


DAMAGES: Dict[str, Callable[[bytes], bytes]] = {
    "cut": lambda whole: whole[: -len(whole.splitlines()[-1]) - 1],
    "text": lambda whole: whole.replace(b"1\n", b"one\n", 1),
    "binary": lambda whole: b"\xff\xfe\0" * 10,
    "empty": lambda whole: b"",
}


@pytest.mark.usefixtures("in_process")
@pytest.mark.parametrize("fault", [*DAMAGES, "record"])
def test_a_damaged_file_is_named_and_its_sequence_measured_again(
    fault: str,
    measured: Path,
    patches: Path,
    weights: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    shutil.copytree(measured, tmp_path / "run")
    before = raw_files(tmp_path / "run")
    path = tmp_path / "run" / "patches" / "tiny" / "baseline" / "second" / "second_001.txt"
    record = tmp_path / "run" / "patches" / "tiny" / variants.MEASURED
    times = written(tmp_path / "run")
    if fault == "record":
        record.write_bytes(record.read_bytes()[:100])
    else:
        path.write_bytes(DAMAGES[fault](path.read_bytes()))
    measure(patches, weights, tmp_path / "run")
    assert raw_files(tmp_path / "run") == before
    again = {name for name, at in written(tmp_path / "run").items() if at != times[name]}
    names = NAMES if fault == "record" else ("second",)
    assert {Path(name).parent.name for name in again} == set(names)
    if fault != "record":
        told = capsys.readouterr().err
        assert str(path) in told and "This sequence is measured again." in told


SLOWLY = """
quality.write_trajectory = lambda path, trajectory: (write(path, trajectory), time.sleep(0.5))
measure(more[0])
"""


@pytest.mark.usefixtures("in_process")
def test_the_second_of_two_measurements_in_one_run_says_that_it_waits_and_loads(
    patches: Path, weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    first = start(HERE + SLOWLY, patches, weights, run)
    wait_for(lambda: raw_files(run), first)
    measure(patches, weights, run)
    told = capsys.readouterr().err
    assert "run run: another process is measuring into it; waiting for it to end" in told
    assert "measured again" not in told and len(raw_files(run)) == len(NAMES)
    assert first.wait(timeout=60) == 0, "it had finished"


@pytest.mark.usefixtures("in_process")
def test_faults_of_the_input_are_named_before_anything_is_touched(
    patches: Path, weights: Path, tmp_path: Path
) -> None:
    measure(patches, weights, tmp_path / "run")
    before = written(tmp_path / "run")
    with pytest.raises(InputError, match=r"missing\.pth: no such weights file"):
        measure(patches, tmp_path / "missing.pth", tmp_path / "run")
    bad = tmp_path / "bad.pth"
    bad.write_bytes(b"no checkpoint")
    with pytest.raises(InputError, match=r"bad\.pth"):
        measure(patches, bad, tmp_path / "run")
    frame = patches / "third" / "color" / "00000001.png"
    frame.write_bytes(frame.read_bytes()[:200])
    with pytest.raises(InputError, match="00000001"):
        measure(patches, weights, tmp_path / "run")
    assert written(tmp_path / "run") == before


@pytest.mark.usefixtures("in_process")
def test_what_a_frame_in_the_middle_stops_is_kept_until_then(
    patches: Path, weights: Path, tmp_path: Path
) -> None:
    frame = patches / "second" / "color" / "00000005.png"
    whole = frame.read_bytes()
    frame.write_bytes(whole[:200])
    with pytest.raises(InputError, match=r"Frame .*00000005\.png is "):
        measure(patches, weights, tmp_path / "run")
    assert [Path(name).name for name in raw_files(tmp_path / "run")] == ["first_001.txt"]


# -- Times and power of a pass that is alone -------------------------------------------------------

TEGRASTATS = """
import sys, time
assert sys.argv[1:] == ["--interval", "20"], sys.argv
while True:
    print("RAM 1/2MB CPU [0%@1190] GR3D_FREQ 37%@114 GPU@35C GPU 2534mW/2534mW CPU 310mW/310mW", flush=True)
    time.sleep(0.02)
"""


@pytest.fixture
def sensor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A program named tegrastats, first on the path, whose GPU rail draws 2.534 W; passes are
    serial and alone."""
    program = make_program(tmp_path / "bin" / "tegrastats", TEGRASTATS)
    monkeypatch.setenv("PATH", f"{program.parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setattr(power, "PERIOD", 0.02)
    monkeypatch.setattr(power, "IDLE_SECONDS", 0.3)
    monkeypatch.setattr(quality, "open_executor", serially)
    monkeypatch.setattr(quality, "is_alone", lambda scheduler: True)
    return program


def test_power_is_sampled_while_a_variant_is_timed_and_kept(
    patches: Path, weights: Path, tmp_path: Path, sensor: Path
) -> None:
    run = tmp_path / "run"
    measured = measure(patches, weights, run)
    drawn = measured.power
    assert (drawn["sensor"], drawn["rail"]) == ("tegrastats", "GPU")
    tracked = [int(np.isin(one.codes, (-1, 2)).sum()) for one in measured.trajectories.values()]
    for name in ("power_w", "power_w_thesis", "idle_w"):
        assert drawn[name] == pytest.approx(2.534)
    assert drawn["energy_j"] == pytest.approx(2.534 * drawn["power_s"] / sum(tracked))
    assert drawn["energy_j_thesis"] == pytest.approx(2.534 / measured.fps), "P / FPS"
    row = measured.row()
    energy = (drawn["power_w"], drawn["energy_j"], "GPU")
    assert (row["power_w"], row["energy_j"], row["rail"]) == energy
    logs = sorted(run.glob("*/*/baseline/*/*_power.json"))
    assert [log.name for log in logs] == [f"{name}_001_power.json" for name in sorted(NAMES)]
    assert all(set(power.read_log(log).phases) == {"idle", "run"} for log in logs)
    sensor.unlink()
    again = measure(patches, weights, run)
    assert str(again.row()) == str(row) and again.power == drawn
    make_program(sensor, TEGRASTATS.replace("2534", "5000"))
    kept = logs[0].read_text()
    (run / "patches" / "tiny" / "baseline" / "third" / "third_001.txt").unlink()
    more = measure(patches, weights, run).power
    assert logs[0].read_text() == kept and 2.534 < more["power_w"] < 5


def test_speeds_are_those_of_the_times_by_both_schemes(
    patches: Path, weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(quality, "open_executor", serially)
    monkeypatch.setattr(quality, "is_alone", lambda scheduler: True)
    monkeypatch.setattr(power, "find_sensor", lambda device: (None, "no power sensor here"))
    measured = measure(patches, weights, tmp_path)
    trajectories = measured.trajectories.values()
    total = sum(one.seconds.sum() for one in trajectories)
    assert measured.fps == pytest.approx(len(NAMES) * (FRAMES - 1) / total)
    tracked = np.concatenate([one.seconds[np.isin(one.codes, (-1, 2))] for one in trajectories])
    assert measured.fps_tracked == pytest.approx(len(tracked) / tracked.sum())
    assert measured.power["sensor"] is None
    assert np.isnan(measured.row()["power_w"]) and measured.row()["sensor"] is None
    assert not list(tmp_path.rglob("*_power.json"))
