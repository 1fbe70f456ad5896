"""A run: measured once, loaded afterwards, continued after a kill, and measured again when what decides it has changed."""
from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Iterator

import cv2
import numpy as np
import pytest
import torch

from lib import environment, experiments, zoo
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
        monkeypatch.setattr(experiments, "_code_digest", lambda framework: "changed")
    elif part == "framework":
        monkeypatch.setattr(torch, "__version__", "1.9.0")
    else:
        monkeypatch.setattr(torch, "get_num_threads", lambda: 99)
    measure(benchmark, own, tmp_path / "run", **options)
    after = written(tmp_path / "run")
    assert set(after) == set(before) and all(after[path] > before[path] for path in before)
    assert f"measured again: {part} changed" in capsys.readouterr().err


def test_comments_do_not_make_results_stale(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("siamrpn/tracker.py", "engines/base.py", "engines/pytorch.py", *(f"vot/{part}.py" for part in (
            "dataset", "overlap", "protocol"))):
        (tmp_path / "lib" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "lib" / name).write_text("SKIP = 5\n")
    monkeypatch.setattr(experiments, "ROOT", tmp_path)
    before = experiments._code_digest("pytorch")
    (tmp_path / "lib/vot/protocol.py").write_text("SKIP = 5  # frames\n")
    assert experiments._code_digest("pytorch") == before
    (tmp_path / "lib/vot/protocol.py").write_text("SKIP = 6\n")
    assert experiments._code_digest("pytorch") != before


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
    assert times["decided_by"]["weights"] == experiments.digest(weights.read_bytes())


# -- Speed ---------------------------------------------------------------------------------------------------------------------


def test_speed_at_full_size_is_measured_once_and_has_median_and_quartiles(
    benchmark: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = load_dataset(benchmark)
    speed = experiments.full_size_fps(data, str(tmp_path / "run"), frames=5, width=1 / 32)
    assert speed.seconds.shape == (5,) and speed.spread[0] <= speed.fps <= speed.spread[1]
    assert speed.fps == pytest.approx(1 / np.median(speed.seconds))
    assert "accuracy" not in speed.row()
    monkeypatch.setattr(experiments, "run_one_pass", None)
    again = experiments.full_size_fps(data, str(tmp_path / "run"), frames=5, width=1 / 32)
    assert again.seconds.tolist() == speed.seconds.tolist()


def test_skipped_frames_look_like_speed_only_by_pysots_scheme(benchmark: Path, weights: Path, tmp_path: Path) -> None:
    measured = measure(benchmark, weights, tmp_path / "run")
    seconds = {name: t.seconds for name, t in measured.trajectories.items()}
    total = sum(values.sum() for values in seconds.values())
    assert measured.fps == pytest.approx(len(NAMES) * (FRAMES - 1) / total)
    tracked = np.concatenate([t.seconds[np.isin(t.codes, (-1, 2))] for t in measured.trajectories.values()])
    assert measured.fps_tracked == pytest.approx(len(tracked) / tracked.sum())


# -- Labels and rows -----------------------------------------------------------------------------------------------------------


def test_a_section_is_written_as_csv_with_intervals(benchmark: Path, weights: Path, tmp_path: Path) -> None:
    measured = measure(benchmark, weights, tmp_path / "run")
    frame = experiments.write_section(str(tmp_path / "run"), "04_1_baseline", [measured.row()])
    text = (tmp_path / "run" / "04_1_baseline.csv").read_text()
    assert {"accuracy_low", "accuracy_high", "eao_low", "eao_high", "fps", "fps_tracked"} <= set(text.splitlines()[0].split(","))
    assert frame["row"].tolist() == ["measured"] and frame["robustness"][0] == measured.evaluation.robustness


def test_demo_scale_is_named_as_such(benchmark: Path, weights: Path, tmp_path: Path) -> None:
    scale = measure(benchmark, weights, tmp_path / "run").scale
    assert scale.startswith("Demo scale: measured on benchmark (3 sequences, 24 frames)") and "not comparable" in scale


def test_the_published_row_is_computed_from_raw_results(shared: Path) -> None:
    [(label, evaluation)] = experiments.published(str(shared / "vot2018")).items()
    expected = json.loads((shared / "vot2018" / "expected.json").read_text())["trackers"][experiments.PUBLISHED]
    assert evaluation.failures == 50 and "published" in label
    row = experiments.published_rows({label: evaluation}).iloc[0]
    assert row["eao"] == pytest.approx(expected["eao"]["all"], abs=2e-4)
    assert row["eao_low"] < row["eao"] < row["eao_high"]
    assert experiments.published(None) == {} and len(experiments.published_rows({})) == 0


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
