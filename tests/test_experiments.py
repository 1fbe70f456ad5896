"""A run: measured once, loaded afterwards, continued after a kill, and measured again when what decides it has changed."""
from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Iterator

import cv2
import numpy as np
import pandas as pd
import pytest
import torch

from lib import cli, digests, environment, experiments, full_size, power, published, runs, zoo
from lib.chapters import ch04_engines, plots, tables
from lib.errors import InputError
from lib.experiments import Variant
from lib.siamrpn.checkpoint import save_weights
from lib.siamrpn.network import NetworkConfig, SiamRPN
from lib.siamrpn.tracker import TrackerConfig
from lib.vot.dataset import load_dataset
from lib.vot.metrics import evaluate
from lib.vot.protocol import PYSOT, TOOLKIT
from lib.vot.results import read_results

ROOT = Path(__file__).parent.parent
NAMES = ("first", "second", "third")
FRAMES = 8


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """Two threads on a network this small only wait for each other; the processes that tests start have one, too."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A network of an eighth of the demo network's width, so that a frame takes milliseconds."""
    path = tmp_path_factory.mktemp("weights") / "tiny.pth"
    save_tiny(path, seed=0)
    return path


def save_tiny(path: Path, seed: int) -> None:
    torch.manual_seed(seed)
    save_weights(path, SiamRPN(NetworkConfig.resnet50(1 / 32)).state_dict())


@pytest.fixture
def benchmark(tmp_path: Path) -> Path:
    """A VOT folder of three sequences: a bright patch that moves over noise."""
    folder, random = tmp_path / "benchmark", np.random.RandomState(0)
    for at, name in enumerate(NAMES):
        (folder / name / "color").mkdir(parents=True)
        boxes = []
        for index in range(FRAMES):
            image = random.randint(0, 90, (90, 120, 3), np.uint8)
            x, y = 20 + 4 * index, 30 + at * 5
            image[y : y + 20, x : x + 25] = 200 + random.randint(0, 50, (20, 25, 3))
            cv2.imwrite(str(folder / name / "color" / f"{index + 1:08d}.png"), image)
            boxes.append(f"{x},{y},25,20\n")
        (folder / name / "groundtruth.txt").write_text("".join(boxes))
    (folder / "list.txt").write_text("".join(f"{name}\n" for name in NAMES))
    return folder


def measure(benchmark: Path, weights: Path, run: Path, **options) -> experiments.Measurement:
    variant = Variant("tiny", str(weights))
    return experiments.measure([variant], load_dataset(benchmark), str(run), progress=False, **options)[0]


def raw_files(run: Path) -> dict[str, str]:
    """The raw results of a run, which decide every number but speed."""
    return {path.name: path.read_text() for path in sorted(run.glob("*/*/baseline/*/*_001.txt"))}


def written(run: Path) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in run.glob("*/*/baseline/*/*") if path.is_file()}


# -- Measure, or load ----------------------------------------------------------------------------------------------------------


def test_a_run_is_raw_files_times_and_the_machine(benchmark: Path, weights: Path, tmp_path: Path) -> None:
    measured = measure(benchmark, weights, tmp_path / "run")
    folder = tmp_path / "run" / "benchmark" / "tiny"
    assert list(raw_files(tmp_path / "run")) == [f"{name}_001.txt" for name in NAMES]
    again = evaluate(load_dataset(benchmark), read_results(folder, load_dataset(benchmark)))
    assert again.as_dict() == measured.evaluation.as_dict()
    for name, trajectory in measured.trajectories.items():
        assert (trajectory.seconds[trajectory.codes != 0] > 0).all()
        assert sorted(measured.lost[name]) == np.flatnonzero(trajectory.codes == 2).tolist(), "every failure keeps the lost box"
    record = json.loads((tmp_path / "run" / "environment.json").read_text())
    assert record["versions"]["torch"] == torch.__version__ and record["hardware"]["cores"] >= 1 and record["date"]
    assert environment.label(record) in measured.note and "Run run" in measured.note
    assert not list((tmp_path / "run").rglob("*.tmp")) and not list(folder.rglob(".*"))


def test_what_was_measured_is_loaded(benchmark: Path, weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = measure(benchmark, weights, tmp_path / "run")
    before = written(tmp_path / "run")
    monkeypatch.setattr(experiments, "run_reset_based", None)
    second = measure(benchmark, weights, tmp_path / "run")
    assert written(tmp_path / "run") == before
    assert str(second.row()) == str(first.row())


@pytest.mark.parametrize("part", ["weights", "dataset", "tracker", "protocol", "code", "framework", "machine"])
def test_what_has_become_stale_is_measured_again(
    part: str, benchmark: Path, weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    own = tmp_path / "own.pth"
    own.write_bytes(weights.read_bytes())
    measure(benchmark, own, tmp_path / "run")
    before = written(tmp_path / "run")
    options = {}
    if part == "weights":
        save_tiny(own, seed=1)
    elif part == "dataset":
        frame = benchmark / "second" / "color" / "00000005.png"
        cv2.imwrite(str(frame), cv2.imread(str(frame))[::-1])
    elif part == "tracker":
        monkeypatch.setattr(experiments, "tracker_config", lambda weights: TrackerConfig(window=0.3))
    elif part == "protocol":
        options["protocol"] = TOOLKIT
    elif part == "code":
        monkeypatch.setattr(experiments, "code_digest", lambda framework: "changed")
    elif part == "framework":
        monkeypatch.setattr(torch, "__version__", "1.9.0")
    else:
        monkeypatch.setattr(torch, "get_num_threads", lambda: 99)
    measure(benchmark, own, tmp_path / "run", **options)
    after = written(tmp_path / "run")
    assert set(after) == set(before) and all(after[path] > before[path] for path in before)
    assert f"measured again: {part} changed" in capsys.readouterr().err


def test_comments_do_not_make_results_stale(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    engines = (f"engines/{part}.py" for part in ("base", "shared", "pytorch"))
    for name in ("siamrpn/tracker.py", *engines, *(f"vot/{part}.py" for part in ("dataset", "overlap", "protocol"))):
        (tmp_path / "lib" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "lib" / name).write_text("SKIP = 5\n")
    monkeypatch.setattr(digests, "ROOT", tmp_path)
    before = digests.code_digest("pytorch")
    (tmp_path / "lib/vot/protocol.py").write_text("SKIP = 5  # frames\n")
    assert digests.code_digest("pytorch") == before
    (tmp_path / "lib/vot/protocol.py").write_text("SKIP = 6\n")
    assert digests.code_digest("pytorch") != before


# -- Killed and continued ------------------------------------------------------------------------------------------------------

SLOWLY = """
import sys, time
from pathlib import Path
from lib import experiments
from lib.vot.dataset import load_dataset
real = experiments.write_trajectory
experiments.write_trajectory = lambda path, trajectory: (real(path, trajectory), time.sleep(1))
benchmark, weights, run = sys.argv[1:]
experiments.measure([experiments.Variant("tiny", weights)], load_dataset(benchmark), run, progress=False)
"""


def test_a_killed_measurement_goes_on_to_the_same_raw_files(benchmark: Path, weights: Path, tmp_path: Path) -> None:
    run, whole = tmp_path / "run", tmp_path / "whole"
    process = start(benchmark, weights, run)
    wait_for(lambda: raw_files(run), process)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    kept = written(run)
    assert 0 < len(raw_files(run)) < len(NAMES), "the kill came midway"
    measure(benchmark, weights, run)
    measure(benchmark, weights, whole)
    assert raw_files(run) == raw_files(whole)
    complete = {path for path in kept if path.name.endswith("_001.txt")}
    assert all(written(run)[path] == kept[path] for path in complete), "what was complete is kept"


def start(benchmark: Path, weights: Path, run: Path) -> subprocess.Popen:
    command = [sys.executable, "-c", SLOWLY, str(benchmark), str(weights), str(run)]
    return subprocess.Popen(command, cwd=ROOT, env={**os.environ, "OMP_NUM_THREADS": "1"})


def wait_for(condition, process: subprocess.Popen, seconds: float = 120) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None, "the measuring process ended by itself"
        assert time.monotonic() < end, "nothing was measured"
        time.sleep(0.01)


def test_a_kill_while_stale_results_are_cleared_leaves_nothing_that_counts(
    benchmark: Path, weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    measure(benchmark, weights, tmp_path / "run")
    other = tmp_path / "other.pth"
    save_tiny(other, seed=1)

    def killed(*args, **options):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(experiments.shutil, "rmtree", killed)
        with pytest.raises(KeyboardInterrupt):
            measure(benchmark, other, tmp_path / "run")
    assert raw_files(tmp_path / "run"), "the old files are still there"
    before = written(tmp_path / "run")
    measure(benchmark, weights, tmp_path / "run")
    after = written(tmp_path / "run")
    assert all(after[path] > before[path] for path in before), "but nobody takes them for results"


def test_two_processes_do_not_measure_the_same(benchmark: Path, weights: Path, tmp_path: Path) -> None:
    first = start(benchmark, weights, tmp_path / "run")
    wait_for(lambda: raw_files(tmp_path / "run"), first)
    measure(benchmark, weights, tmp_path / "run")  # waits for the other
    assert len(raw_files(tmp_path / "run")) == len(NAMES)
    assert first.wait(timeout=60) == 0
    times = json.loads((tmp_path / "run" / "benchmark" / "tiny" / "measured.json").read_text())
    assert times["decided_by"]["weights"] == digests.digest(weights.read_bytes())


# -- Speed ---------------------------------------------------------------------------------------------------------------------


def test_speed_at_full_size_is_measured_once_and_has_median_and_quartiles(
    benchmark: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = load_dataset(benchmark)
    speed = full_size.full_size_fps(data, str(tmp_path / "run"), frames=5, width=1 / 32)
    assert speed.seconds.shape == (5,) and speed.spread[0] <= speed.fps <= speed.spread[1]
    assert speed.fps == pytest.approx(1 / np.median(speed.seconds))
    assert "accuracy" not in speed.row()
    monkeypatch.setattr(full_size, "run_one_pass", None)
    again = full_size.full_size_fps(data, str(tmp_path / "run"), frames=5, width=1 / 32)
    assert again.seconds.tolist() == speed.seconds.tolist()


def test_skipped_frames_look_like_speed_only_by_pysots_scheme(benchmark: Path, weights: Path, tmp_path: Path) -> None:
    measured = measure(benchmark, weights, tmp_path / "run")
    seconds = {name: t.seconds for name, t in measured.trajectories.items()}
    total = sum(values.sum() for values in seconds.values())
    assert measured.fps == pytest.approx(len(NAMES) * (FRAMES - 1) / total)
    tracked = np.concatenate([t.seconds[np.isin(t.codes, (-1, 2))] for t in measured.trajectories.values()])
    assert measured.fps_tracked == pytest.approx(len(tracked) / tracked.sum())


# -- Power ---------------------------------------------------------------------------------------------------------------------

TEGRASTATS = """#!{python}
import sys, time
assert sys.argv[1:] == ["--interval", "20"], sys.argv
while True:
    print("RAM 1/2MB CPU [0%@1190] GR3D_FREQ 37%@114 GPU@35C GPU 2534mW/2534mW CPU 310mW/310mW SOC 1241mW/1241mW", flush=True)
    time.sleep(0.02)
"""


@pytest.fixture
def sensor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A program named tegrastats, first on the path, whose GPU rail draws 2.534 W."""
    program = tmp_path / "bin" / "tegrastats"
    program.parent.mkdir()
    program.write_text(TEGRASTATS.format(python=sys.executable))
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setattr(power, "PERIOD", 0.02)
    monkeypatch.setattr(power, "IDLE_SECONDS", 0.3)
    return program


def test_power_is_sampled_while_a_variant_is_timed(benchmark: Path, weights: Path, tmp_path: Path, sensor: Path) -> None:
    measured = measure(benchmark, weights, tmp_path / "run")
    drawn = measured.power
    assert drawn is not None and (drawn.sensor, drawn.rail, measured.sensor) == ("tegrastats", "GPU", "tegrastats")
    assert drawn.frames == sum(int(np.isin(t.codes, (-1, 2)).sum()) for t in measured.trajectories.values())
    assert [drawn.watts, drawn.thesis_watts] == pytest.approx([2.534, 2.534])
    assert drawn.idle_watts == pytest.approx(2.534) and drawn.net_energy_per_frame == pytest.approx(0, abs=1e-9)
    assert drawn.energy_per_frame == pytest.approx(2.534 * drawn.seconds / drawn.frames)
    assert drawn.thesis_energy_per_frame == pytest.approx(2.534 / measured.fps), "P / FPS, with the table's FPS"
    assert drawn.energy_spread > 0
    row = measured.row()
    assert (row["power_w"], row["energy_j"], row["rail"]) == (drawn.watts, drawn.energy_per_frame, "GPU")
    logs = sorted((tmp_path / "run").glob("*/*/baseline/*/*_power.csv"))
    assert [log.name for log in logs] == [f"{name}_001_power.csv" for name in sorted(NAMES)]
    assert all(power.read_log(log).phase("idle") and power.read_log(log).phase("run") for log in logs)


def test_power_that_was_sampled_is_loaded_where_there_is_no_sensor(
    benchmark: Path, weights: Path, tmp_path: Path, sensor: Path
) -> None:
    first = measure(benchmark, weights, tmp_path / "run")
    sensor.unlink()
    again = measure(benchmark, weights, tmp_path / "run")
    assert str(again.row()) == str(first.row()) and again.power == first.power


def test_a_resumed_run_keeps_what_was_sampled(benchmark: Path, weights: Path, tmp_path: Path, sensor: Path) -> None:
    measure(benchmark, weights, tmp_path / "run")
    folder = tmp_path / "run" / "benchmark" / "tiny" / "baseline"
    before = (folder / "first" / "first_001_power.csv").read_text()
    (folder / "third" / "third_001.txt").unlink()  # as if it had been killed in the third sequence
    (folder / "third" / "third_001_power.csv").write_text("")
    sensor.write_text(sensor.read_text().replace("2534", "5000"))
    drawn = measure(benchmark, weights, tmp_path / "run").power
    assert (folder / "first" / "first_001_power.csv").read_text() == before
    assert drawn is not None and 2.534 < drawn.watts < 5
    assert drawn.thesis_watts == 5, "of a run below five seconds the last reading"


def test_beside_a_power_sensor_every_variant_does_its_own_work(benchmark: Path, tmp_path: Path, sensor: Path) -> None:
    pytest.importorskip("openvino")
    variants = [experiments.mixture("demo", "openvino", "fp32", "fp32", xcorr) for xcorr in ("fp32", "fp16")]
    found = experiments.measure(variants, load_dataset(benchmark), str(tmp_path / "run"), progress=False)
    assert [one.shared for one in found] == [0, 0] and all(one.power is not None for one in found)


def test_without_a_sensor_the_columns_stay_empty_and_the_reason_is_kept(
    benchmark: Path, weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(power, "find_sensor", lambda device: (None, "no power sensor here (it is a desk)"))
    measured = measure(benchmark, weights, tmp_path / "run")
    assert measured.power is None and measured.sensor == "no power sensor here (it is a desk)"
    assert np.isnan(measured.row()["power_w"]) and measured.row()["sensor"] is None
    assert not list((tmp_path / "run").rglob("*_power.csv"))


def test_the_full_size_networks_power_needs_a_sensor_and_is_kept(tmp_path: Path, sensor: Path) -> None:
    run = str(tmp_path / "run")
    drawn = full_size.full_size_power(run, "pytorch", width=1 / 32, seconds=0.5)
    [row] = drawn.rows
    assert [row["power_w"], row["power_w_thesis"]] == pytest.approx([2.534, 2.534]) and row["energy_j_spread"] >= 0
    assert row["energy_j"] == pytest.approx(2.534 / row["fps_tracked"], rel=0.05)
    sensor.unlink()
    assert full_size.full_size_power(run, "pytorch", width=1 / 32, seconds=0.5).rows == drawn.rows
    without = full_size.full_size_power(str(tmp_path / "other"), "pytorch", width=1 / 32, seconds=0.5)
    assert list(without.rows) == [] and without.sensor.startswith("no power sensor here")
    assert not (tmp_path / "other").exists(), "nothing was run"


# -- Recorded runs -------------------------------------------------------------------------------------------------------------


@pytest.fixture
def recorded(benchmark: Path, weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run that was measured, copied to another place and made another machine's; no tracker can run from here on."""
    first = measure(benchmark, weights, tmp_path / "first")
    runs.write_section(str(tmp_path / "first"), "04_1_baseline", [first.row()])
    monkeypatch.setattr(runs, "RUNS", tmp_path / "runs")
    folder = tmp_path / "runs" / "xavier"
    shutil.copytree(tmp_path / "first", folder)
    for path in (folder / "environment.json", folder / "benchmark" / "tiny" / "measured.json"):
        record = json.loads(path.read_text())
        machine = record.get("environment", record)
        machine.update(date="2023-04-01 12:00 UTC")
        machine["hardware"].update(processor="ARMv8 Processor rev 0", cores=8, gpu="Xavier", device="cuda", power_mode="MAXN")
        path.write_text(json.dumps(record))

    def refuse(*args, **options):
        raise AssertionError("a tracker ran")

    for module, name in ((experiments, "run_reset_based"), (experiments, "load_network"), (experiments, "write_text"),
                         (full_size, "run_one_pass"), (full_size, "full_size_network"), (runs, "locked")):
        monkeypatch.setattr(module, name, refuse)
    return folder


def state(folder: Path) -> dict[str, tuple[int, int]]:
    return {str(path): (path.stat().st_mtime_ns, path.stat().st_size) for path in sorted(folder.rglob("*"))}


def test_a_recorded_run_is_shown_without_its_dataset_its_weights_or_a_measurement(
    recorded: Path, benchmark: Path, weights: Path, tmp_path: Path
) -> None:
    own = pd.read_csv(tmp_path / "first" / "04_1_baseline.csv").iloc[0]
    before = state(recorded)
    benchmark.rename(tmp_path / "away")
    data = experiments.open_dataset(str(benchmark), "xavier")
    assert [sequence.name for sequence in data] == list(NAMES) and not data.sequences[0].has_frames
    [shown] = experiments.measure([Variant("tiny", "weights/that/are/not/here.pth")], data, "xavier")
    row = shown.row()
    for measure_ in ("accuracy", "robustness", "eao", "eao_low", "eao_high", "fps", "fps_tracked"):
        assert row[measure_] == pytest.approx(own[measure_], nan_ok=True), measure_
    assert row["row"] == "recorded" and shown.whose == "recorded"
    assert shown.note.startswith("Recorded run xavier, 2023-04-01 12:00 UTC: 8 cores ARMv8") and "mode MAXN" in shown.note
    runs.write_section("xavier", "04_1_baseline", [row])
    assert state(recorded) == before, "nothing was written into it"
    assert "No picture here: the frames of 'first'" in plots.gallery(data, shown.trajectories, shown.note)


def test_pictures_of_a_recorded_run_come_from_frames_that_are_here(recorded: Path, benchmark: Path) -> None:
    data = experiments.open_dataset(str(benchmark), "xavier")
    assert all(sequence.has_frames for sequence in data)
    assert data.sequences[1].frame(0).shape == (90, 120, 3)


def test_a_recorded_run_of_vot2018_is_evaluated_without_its_frames(
    recorded: Path, benchmark: Path, shared: Path, tmp_path: Path
) -> None:
    """PySOT's own raw results stand for those of a run."""
    data = load_dataset(shared / "vot2018" / "VOT2018.json")
    results = recorded / "VOT2018" / "tiny"
    shutil.copytree(shared / "vot2018" / "results" / published.PUBLISHED, results)
    shutil.copy(recorded / "benchmark" / "tiny" / "measured.json", results)
    runs.keep_annotations("xavier", data)
    here = experiments.open_dataset(str(tmp_path / "nowhere" / "VOT2018"), "xavier")
    [shown] = experiments.measure([Variant("tiny", "weights.pth")], here, "xavier")
    expected = json.loads((shared / "vot2018" / "expected.json").read_text())["trackers"][published.PUBLISHED]
    assert shown.evaluation.failures == 50 and shown.evaluation.eao == pytest.approx(expected["eao"]["all"], abs=2e-4)
    assert "the thesis's benchmark" in shown.scale
    assert "`siambook fetch vot2018`" in plots.gallery(here, shown.trajectories, shown.note)
    assert len(tables.per_sequence(here, shown.trajectories, shown.evaluation, "c").rows) == 60


def test_what_a_recorded_run_lacks_is_a_sentence_and_never_measured(recorded: Path, benchmark: Path, weights: Path) -> None:
    data = experiments.open_dataset(str(benchmark), "xavier")
    before = state(recorded)
    there, absent = experiments.measure([Variant("tiny", str(weights)), Variant("other", str(weights))], data, "xavier")
    sentence = str(absent)
    assert sentence.startswith("run xavier, recorded on another machine (8 cores ARMv8 Processor rev 0")
    assert "does not have PyTorch FP32 on benchmark (other)" in sentence
    table = tables.results([runs.write_section("xavier", "s", [there.row(), absent.row()])], "Caption.")
    assert len(table.rows) == 1 and table.rows[0][0][0] == "recorded" and sentence in table.caption
    for view in (plots.eao({"x": absent.evaluation}, {}, absent.note), ch04_engines.same_boxes(there, absent),
                 ch04_engines.verdict(absent, there, 0.1), plots.failure(data, absent.trajectories, absent.lost, 5, absent.note)):
        assert isinstance(view, tables.Text) and sentence in view
    speed = full_size.full_size_fps(data, "xavier")
    assert "the speed of the full-size network" in str(speed) and "does not have" in f"{speed.note}"
    assert state(recorded) == before


def test_the_command_line_reads_a_recorded_run_and_names_what_it_lacks(
    recorded: Path, benchmark: Path, weights: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (recorded / "benchmark" / "tiny").rename(recorded / "benchmark" / "pytorch-fp32")
    command = ["evaluate", "--dataset", str(benchmark), "--weights", str(weights), "--run", "xavier", "--json"]
    assert cli.main(command) == 0
    assert json.loads(capsys.readouterr().out)["frames"] == len(NAMES) * FRAMES
    assert cli.main([*command, "--protocol", "toolkit"]) == 2
    assert "by this protocol, and is only read here" in capsys.readouterr().err


def test_a_part_of_a_variant_is_no_result_of_a_recorded_run(recorded: Path, benchmark: Path, weights: Path) -> None:
    (recorded / "benchmark" / "tiny" / "baseline" / "third" / "third_001.txt").unlink()
    data = experiments.open_dataset(str(benchmark), "xavier")
    [absent] = experiments.measure([Variant("tiny", str(weights))], data, "xavier")
    assert "does not have 1 of 3 sequences of benchmark" in str(absent)
    (recorded / "benchmark" / "benchmark.json").unlink()
    benchmark.rename(benchmark.with_name("away"))
    with pytest.raises(InputError, match=r"run xavier has no annotations of benchmark .* and the dataset is not on this machine"):
        experiments.open_dataset(str(benchmark), "xavier")


def test_annotations_of_a_run_are_those_of_the_dataset(recorded: Path, benchmark: Path, shared: Path, tmp_path: Path) -> None:
    for data, run in ((load_dataset(benchmark), "xavier"), (load_dataset(shared / "vot2018" / "VOT2018.json"), "copy")):
        if run == "copy":
            runs.keep_annotations(run, data)
        kept = load_dataset(runs.run_folder(run) / data.name)
        assert kept.name == data.name and [s.name for s in kept] == [s.name for s in data]
        for one, other in zip(kept, data):
            assert all(np.array_equal(a, b) for a, b in zip(one.regions, other.regions)) and len(one) == len(other)
            assert all(np.array_equal(one.tags[tag], other.tags[tag]) for tag in other.tags)
            assert (one.width, one.height) == (other.width, other.height)
    assert (tmp_path / "runs" / "copy" / "VOT2018" / "VOT2018.json").stat().st_size < 2.4e6


@pytest.mark.parametrize("change, recorded_there", [
    ({}, False), ({"threads": 99}, False), ({"processor": "another"}, True), ({"cores": 999}, True), ({"gpu": "Xavier"}, True)])
def test_which_runs_are_this_machines_own(change: dict, recorded_there: bool, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(runs, "RUNS", tmp_path)
    for name in ("named", "local"):
        runs.write_environment(name, {"hardware": {**environment.hardware("cpu"), **change}})
    assert runs.is_recorded("named", "cpu") == recorded_there
    assert not runs.is_recorded("local", "cpu") and not runs.is_recorded("none yet", "cpu")


def test_the_framework_of_a_recorded_run_is_what_it_measured(recorded: Path) -> None:
    path = recorded / "benchmark" / "tiny" / "measured.json"
    path.write_text(path.read_text().replace("pytorch 2", "tensorrt 2"))
    assert experiments.compiled_framework("auto", "xavier") == "tensorrt"
    assert experiments.compiled_framework("openvino", "xavier") == "openvino"


def test_runs_stand_side_by_side(recorded: Path) -> None:
    found = runs.recorded("04_1_baseline")
    assert list(found) == ["xavier"] and found["xavier"]["variant"].tolist() == ["tiny"]
    assert runs.recorded("04_1_baseline", besides="xavier") == {} and runs.recorded("04_9_none") == {}


# -- Labels and rows -----------------------------------------------------------------------------------------------------------


def test_a_section_is_written_as_csv_with_intervals(benchmark: Path, weights: Path, tmp_path: Path) -> None:
    measured = measure(benchmark, weights, tmp_path / "run")
    frame = runs.write_section(str(tmp_path / "run"), "04_1_baseline", [measured.row()])
    text = (tmp_path / "run" / "04_1_baseline.csv").read_text()
    assert {"accuracy_low", "accuracy_high", "eao_low", "eao_high", "fps", "fps_tracked"} <= set(text.splitlines()[0].split(","))
    assert frame["row"].tolist() == ["measured"] and frame["robustness"][0] == measured.evaluation.robustness


def test_demo_scale_is_named_as_such(benchmark: Path, weights: Path, tmp_path: Path) -> None:
    scale = measure(benchmark, weights, tmp_path / "run").scale
    assert scale.startswith("Demo scale: measured on benchmark (3 sequences, 24 frames)") and "not comparable" in scale


def test_the_published_row_is_computed_from_raw_results(shared: Path) -> None:
    [(label, evaluation)] = published.evaluations(str(shared / "vot2018")).items()
    expected = json.loads((shared / "vot2018" / "expected.json").read_text())["trackers"][published.PUBLISHED]
    assert evaluation.failures == 50 and "published" in label
    row = published.rows({label: evaluation}).iloc[0]
    assert row["eao"] == pytest.approx(expected["eao"]["all"], abs=2e-4)
    assert row["eao_low"] < row["eao"] < row["eao_high"]
    assert published.evaluations(None) == {} and len(published.rows({})) == 0


# -- Faults --------------------------------------------------------------------------------------------------------------------


def test_faults_are_named_before_anything_is_touched(benchmark: Path, weights: Path, tmp_path: Path) -> None:
    measure(benchmark, weights, tmp_path / "run")
    before = written(tmp_path / "run")
    with pytest.raises(InputError, match=r"missing\.pth: no such weights file"):
        measure(benchmark, tmp_path / "missing.pth", tmp_path / "run")
    bad = tmp_path / "bad.pth"
    bad.write_bytes(b"no checkpoint")
    with pytest.raises(InputError, match=r"bad\.pth"):
        measure(benchmark, bad, tmp_path / "run")
    for frame in (benchmark / "third" / "color").iterdir():
        frame.rename(frame.with_suffix(".bmp"))  # the dataset is another one now, and its first frame no image of that kind
    (benchmark / "third" / "color" / "00000003.bmp").write_bytes(b"")
    with pytest.raises(InputError, match="00000003"):
        measure(benchmark, weights, tmp_path / "other")
    assert written(tmp_path / "run") == before


@pytest.mark.parametrize("text", ["window: [1", "windw: 0.4", "window: wide", "- 0.4"])
def test_faulty_settings_of_the_tracker_are_named(text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(zoo, "DEMO_SETTINGS", tmp_path / "tracker.yaml")
    (tmp_path / "tracker.yaml").write_text(text)
    with pytest.raises(InputError, match=r"tracker\.yaml: (not readable|unknown tracker setting|window should be)"):
        zoo.tracker_config("demo")


def test_tuned_settings_belong_to_the_demo_weights_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(zoo, "DEMO_SETTINGS", tmp_path / "tracker.yaml")
    (tmp_path / "tracker.yaml").write_text("penalty: 0.1\nwindow: 0.3\nrate: 0.5\n")
    assert zoo.tracker_config("demo") == TrackerConfig(0.1, 0.3, 0.5)
    assert zoo.tracker_config("data/cache/other.pth") == TrackerConfig()


def test_variants_that_cannot_be_are_refused() -> None:
    with pytest.raises(InputError, match="unknown framework 'tensorflow'"):
        Variant("x", framework="tensorflow")
    with pytest.raises(InputError, match="a name is made of"):
        Variant("../x")
    assert Variant("x", target="fp16", search="int8").precision == "FP16/INT8/FP32"
    assert PYSOT.skip == 5
