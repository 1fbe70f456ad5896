"""Variants, and "measure, or load what this run has measured" (chapter 4).

A variant is one tracker to measure: weights, framework, and a precision for each of its three networks; an experiment is a list
of them. `measure` tracks a dataset with each under the reset-based protocol and keeps what came out in a run, the folder
data/runs/<run>/:

    environment.json                                          the machine, versions and commit of the last measurement
    <section>.csv                                             a section's table, e.g. 04_1_baseline.csv
    full_size.json                                            seconds a frame of the full-size network
    <dataset>/<variant>/measured.json                         all that decided the results below
    <dataset>/<variant>/baseline/<sequence>/<sequence>_001.txt, _001_time.value     the VOT toolkit's raw file, seconds a frame
    <dataset>/<variant>/baseline/<sequence>/<sequence>_001_lost.csv                 where the tracker was at each failure

A sequence counts as measured when its raw file is there, which is written last and at once; so a measurement that was killed goes
on with the sequence it was in. Where measured.json says something else than what would decide a result now, the variant is
measured again.
"""
from __future__ import annotations

import ast
import contextlib
import fcntl
import hashlib
import json
import re
import shutil
import sys
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Callable, Iterator, Mapping
from typing import Sequence as Seq

import numpy as np
import pandas as pd
import torch
from tqdm import tqdm

from lib import environment
from lib.demo import make_benchmark
from lib.engines.base import TrackerNetwork
from lib.engines.pytorch import TorchNetwork
from lib.errors import InputError
from lib.files import write_text
from lib.siamrpn.checkpoint import load_network
from lib.siamrpn.network import NetworkConfig, SiamRPN
from lib.siamrpn.tracker import SiamRPNTracker
from lib.thesis import VOT2018_FRAMES, VOT2018_SEQUENCES
from lib.vot.dataset import Dataset, Sequence, axis_aligned_box, load_dataset, read_numbers
from lib.vot.metrics import MEASURES, Evaluation, bootstrap, evaluate
from lib.vot.protocol import FAILURE, PYSOT, Protocol, Trajectory, frames_per_second, run_one_pass, run_reset_based
from lib.vot.results import read_results, result_path, write_trajectory
from lib.zoo import DEMO, tracker_config, weights_path

ROOT = Path(__file__).resolve().parent.parent
RUNS = ROOT / "data" / "runs"
DEMO_DATASET = ROOT / "data" / "cache" / "demo-benchmark"  # what `dataset: demo` means, generated where it is not there yet
PUBLISHED = "SiamRPNpp_R50"  # PySOT's siamrpn_r50_l234_dwxcorr, as its raw results' folder is named
MEASURED = "measured.json"
DECIDE_RESETS = ("failure_overlap", "skip", "overlap", "box_end", "image_end")  # of a protocol; the rest concerns evaluation


# -- Variants ------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Variant:
    """One tracker to measure. name: of its folder and row. weights: "demo" or a path, relative to the repository or absolute.

    framework: a key of ENGINES. target, search, xcorr: precision of the three networks of figure 3.9.
    """

    name: str
    weights: str = DEMO
    framework: str = "pytorch"
    target: str = "fp32"
    search: str = "fp32"
    xcorr: str = "fp32"

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[\w.-]+", self.name):
            raise InputError(f"Variant '{self.name}': a name is made of letters, digits, dots, dashes and underscores.")
        if self.framework not in ENGINES:
            raise InputError(f"Variant '{self.name}': unknown framework '{self.framework}' (there are {', '.join(ENGINES)}).")

    @property
    def precision(self) -> str:
        """ "FP32", or "FP16/FP32/INT8" (target, search, xcorr) where precisions are mixed."""
        names = [self.target, self.search, self.xcorr]
        return "/".join(names if len(set(names)) > 1 else names[:1]).upper()


@dataclass(frozen=True)
class Engine:
    """How a framework is called, which module of lib/ it is, and how to load a variant's networks onto a device."""

    title: str
    module: str
    load: Callable[[Variant, str], TrackerNetwork]


def _load_pytorch(variant: Variant, device: str) -> TrackerNetwork:
    if variant.precision != "FP32":
        raise InputError(f"Variant '{variant.name}': PyTorch runs in FP32 here, not in {variant.precision}.")
    return TorchNetwork(load_network(weights_path(variant.weights, ROOT)), device)


ENGINES: dict[str, Engine] = {"pytorch": Engine("PyTorch", "engines/pytorch.py", _load_pytorch)}


def baseline(weights: str) -> list[Variant]:
    """Section 4.1: the tracker as PySOT runs it."""
    return [Variant("pytorch-fp32", weights)]


# -- Names to things -----------------------------------------------------------------------------------------------------------


def open_dataset(name: str, progress: bool = True) -> Dataset:
    """The dataset of a profile: "demo" is generated where it is not there yet, anything else is a path."""
    if name == DEMO:
        return load_dataset(make_benchmark(DEMO_DATASET, progress=progress))
    return load_dataset(ROOT / name)  # an absolute path stays what it is


def run_folder(run: str) -> Path:
    """data/runs/<run>; an absolute path is taken as it is."""
    return RUNS / run


def device() -> str:
    """The GPU where PyTorch sees one, the processor otherwise."""
    return "cuda" if torch.cuda.is_available() else "cpu"


# -- Measuring -----------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Measurement:
    """One variant on one dataset, complete. results: its folder. lost: sequence -> frame -> box at a failure."""

    variant: Variant
    dataset: Dataset = field(repr=False)
    run: str
    results: Path
    parameters: int
    environment: Mapping[str, Any] = field(repr=False)
    trajectories: Mapping[str, Trajectory] = field(repr=False)
    lost: Mapping[str, Mapping[int, np.ndarray]] = field(repr=False)
    evaluation: Evaluation = field(repr=False)

    @property
    def fps(self) -> float:
        """Frames per second by PySOT's scheme (section 3.3.3)."""
        return frames_per_second(self.trajectories.values())

    @property
    def fps_tracked(self) -> float:
        """Frames per second of the tracked frames alone: track calls over their time."""
        return frames_per_second(self.trajectories.values(), tracked_only=True)

    @property
    def machine(self) -> str:
        return environment.label(self.environment)

    @property
    def note(self) -> str:
        """What a caption says: the run, the machine, the day."""
        return _note(self.run, self.environment)

    @property
    def scale(self) -> str:
        """What these numbers may be compared with, in a sentence."""
        frames, count, millions = sum(map(len, self.dataset)), len(self.dataset), self.parameters / 1e6
        on = f"{self.dataset.name} ({count} sequences, {frames:,} frames) with a network of {millions:.1f} M parameters"
        if (len(self.dataset), frames) == (VOT2018_SEQUENCES, VOT2018_FRAMES):
            return f"Measured on {on}: the thesis's benchmark."
        return f"Demo scale: measured on {on}. Accuracy, robustness and EAO are not comparable with values on VOT2018."

    def row(self) -> dict[str, Any]:
        """A line of a section's table: what was measured on what, the measures with their 95 % intervals, speed."""
        return {
            "row": "measured", "variant": self.variant.name, "framework": ENGINES[self.variant.framework].title,
            "precision": self.variant.precision, "hardware": self.machine, "network": f"{self.parameters / 1e6:.1f} M parameters",
            "dataset": self.dataset.name, "sequences": len(self.dataset), "frames": sum(map(len, self.dataset)),
            **_scores(self.evaluation), "fps": self.fps, "fps_tracked": self.fps_tracked,
            "run": Path(self.run).name, "date": self.environment["date"],
        }


def measure(variants: Seq[Variant], dataset: Dataset, run: str, protocol: Protocol = PYSOT, progress: bool = True
            ) -> list[Measurement]:
    """Measure every variant on the dataset, or load what the run has measured already; in the order given.

    One process measures in a run at a time; another one waits, and then loads. Raises InputError before anything of the run is
    touched where weights, settings or frames are not to be had.
    """
    contents = dataset_digest(dataset)
    with _locked(run_folder(run)):
        return [_measure(variant, dataset, contents, run, protocol, progress) for variant in variants]


def _measure(variant: Variant, dataset: Dataset, contents: str, run: str, protocol: Protocol, progress: bool) -> Measurement:
    results, on = run_folder(run) / dataset.name / variant.name, device()
    parts = decided_by(variant, contents, protocol, on)
    record = read_json(results / MEASURED)
    fresh = record.get("decided_by") == parts
    missing = [s for s in dataset if not fresh or not result_path(results, s.name).is_file()]
    if missing:
        network = ENGINES[variant.framework].load(variant, on)
        for sequence in missing:
            sequence.frame(0)  # frames that are not there are a fault now, not after an hour
        if not fresh:
            record = _start(results, record, parts, load_network(weights_path(variant.weights, ROOT)), on)
            write_text(run_folder(run) / "environment.json", to_json(record["environment"]))
        tracker = SiamRPNTracker(network, tracker_config(variant.weights))
        _warm_up(tracker, missing[0])
        bar = tqdm(total=sum(map(len, missing)), desc=f"{variant.name} on {dataset.name}", unit="frame", disable=not progress)
        with bar:
            for sequence in missing:
                _measure_sequence(tracker, sequence, protocol, result_path(results, sequence.name), bar.update)
    trajectories = {name: repetitions[0] for name, repetitions in read_results(results, dataset).items()}
    lost = {name: _read_lost(result_path(results, name)) for name in trajectories}
    evaluation = evaluate(dataset, {name: [trajectory] for name, trajectory in trajectories.items()}, protocol)
    parameters, machine = record["parameters"], record["environment"]
    return Measurement(variant, dataset, run, results, parameters, machine, trajectories, lost, evaluation)


def decided_by(variant: Variant, contents: str, protocol: Protocol, on: str) -> dict[str, str]:
    """All that decides a variant's raw results and times, part by part, so that one can say what changed.

    contents: `dataset_digest`. on: the device.
    """
    return {
        "weights": digest(weights_path(variant.weights, ROOT).read_bytes()),
        "dataset": contents,
        "tracker": to_json(asdict(tracker_config(variant.weights))),
        "protocol": to_json({name: getattr(protocol, name) for name in DECIDE_RESETS}),
        "precision": variant.precision,
        "framework": f"{variant.framework} {torch.__version__}",
        "code": _code_digest(variant.framework),
        "machine": to_json(environment.hardware(on)),
    }


def _start(results: Path, record: Mapping[str, Any], parts: Mapping[str, str], network: SiamRPN, on: str) -> dict[str, Any]:
    """Clear what is stale and write down what will decide the new results; killed in between, it is stale again."""
    before = record.get("decided_by", {})
    if before:
        changed = ", ".join(name for name in parts if before.get(name) != parts[name])
        print(f"{results.name} on {results.parent.name} is measured again: {changed} changed", file=sys.stderr)
    with contextlib.suppress(FileNotFoundError):
        (results / MEASURED).unlink()
    shutil.rmtree(results, ignore_errors=True)
    parameters = sum(parameter.numel() for parameter in network.parameters())
    new = {"decided_by": dict(parts), "parameters": parameters, "environment": environment.record(on)}
    write_text(results / MEASURED, to_json(new))
    return new


def _measure_sequence(tracker: SiamRPNTracker, sequence: Sequence, protocol: Protocol, path: Path,
                      done: Callable[[int], Any]) -> None:
    lost: dict[int, np.ndarray] = {}

    def on_frame(index: int, frame: np.ndarray, entry: np.ndarray, box: np.ndarray | None) -> None:
        done(1)
        if len(entry) == 1 and entry[0] == FAILURE and box is not None:
            lost[index] = box

    trajectory = run_reset_based(tracker, sequence, protocol, on_frame)
    lines = (",".join([str(index), *(f"{value:.4f}" for value in box)]) for index, box in lost.items())
    write_text(_lost_path(path), "".join(line + "\n" for line in lines))
    write_trajectory(path, trajectory)  # last: where the raw file is, the sequence is measured


def _warm_up(tracker: SiamRPNTracker, sequence: Sequence) -> None:
    """A first call allocates and chooses algorithms; it says nothing about speed."""
    frame = sequence.frame(0)
    tracker.init(frame, axis_aligned_box(sequence.regions[0]))
    tracker.track(frame)


def _lost_path(path: Path) -> Path:
    return path.with_name(f"{path.stem}_lost.csv")


def _read_lost(path: Path) -> dict[int, np.ndarray]:
    rows = read_numbers(_lost_path(path)) if _lost_path(path).is_file() else []
    return {int(row[0]): np.array(row[1:]) for row in rows}


def write_section(run: str, section: str, rows: Seq[Mapping[str, Any]]) -> pd.DataFrame:
    """Write a section's table to the run as <section>.csv and return it, e.g. write_section("local", "04_1_baseline", rows)."""
    frame = pd.DataFrame(list(rows))
    write_text(run_folder(run) / f"{section}.csv", frame.to_csv(index=False))
    return frame


# -- Speed at full size --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Speed:
    """Seconds of single track calls, (N,), and where they were taken."""

    seconds: np.ndarray = field(repr=False)
    run: str
    parameters: int
    environment: Mapping[str, Any] = field(repr=False)

    @property
    def fps(self) -> float:
        """Frames per second at the median time of a frame."""
        return float(1 / np.median(self.seconds))

    @property
    def spread(self) -> tuple[float, float]:
        """Frames per second at the upper and the lower quartile of the time: half of the frames lie between."""
        slow, fast = np.percentile(self.seconds, [75, 25])
        return float(1 / slow), float(1 / fast)

    @property
    def note(self) -> str:
        return _note(self.run, self.environment)

    def row(self) -> dict[str, Any]:
        """A line for table 4.1, without quality: random weights have none."""
        return {"row": "measured", "variant": "full-size", "framework": "PyTorch", "precision": "FP32",
                "hardware": environment.label(self.environment), "network": f"{self.parameters / 1e6:.1f} M parameters",
                "dataset": "speed only, random weights", "fps_tracked": self.fps, "fps_tracked_low": self.spread[0],
                "fps_tracked_high": self.spread[1], "run": self.run, "date": self.environment["date"]}


def full_size_fps(dataset: Dataset, run: str, frames: int = 0, width: float = 1.0) -> Speed:
    """Speed of the full-size network in PyTorch FP32 on this machine, tracking the first frames of the dataset; kept in the run.

    The weights are random (seeded): speed does not depend on them. frames: 12 on a processor and 100 on a GPU unless given.
    """
    on = device()
    frames, sequence = frames or (12 if on == "cpu" else 100), dataset.sequences[0]
    parts = {"frames": f"{frames} of {sequence.name}, {sequence.width}x{sequence.height}", "width": str(width),
             "framework": f"pytorch {torch.__version__}", "code": _code_digest("pytorch"),
             "machine": to_json(environment.hardware(on))}
    with _locked(run_folder(run)) as folder:
        record = read_json(folder / "full_size.json")
        if record.get("decided_by") != parts:
            record = {"decided_by": parts, "environment": environment.record(on), **_time_full_size(sequence, frames, width, on)}
            write_text(folder / "full_size.json", to_json(record))
    return Speed(np.array(record["seconds"]), run, record["parameters"], record["environment"])


def _time_full_size(sequence: Sequence, frames: int, width: float, on: str) -> dict[str, Any]:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = SiamRPN(NetworkConfig.resnet50(width)).eval()
    tracker = SiamRPNTracker(TorchNetwork(network, on))
    _warm_up(tracker, sequence)
    part = replace(sequence, frames=sequence.frames[: frames + 1], regions=sequence.regions[: frames + 1])
    seconds = run_one_pass(tracker, part).seconds[1:]
    return {"seconds": seconds.tolist(), "parameters": sum(parameter.numel() for parameter in network.parameters())}


# -- The published tracker -----------------------------------------------------------------------------------------------------


def published(folder: str | None, tracker: str = PUBLISHED) -> dict[str, Evaluation]:
    """Published raw results evaluated here, by label; `folder` has VOT2018.json and results/<tracker>, or is None: empty."""
    if not folder:
        return {}
    dataset = load_dataset(ROOT / folder / "VOT2018.json")
    return {"published raw results": evaluate(dataset, read_results(ROOT / folder / "results" / tracker, dataset))}


def published_rows(evaluations: Mapping[str, Evaluation]) -> pd.DataFrame:
    """Lines for table 4.1 from `published`."""
    return pd.DataFrame([{"row": "published", "framework": "PyTorch", "hardware": f"{label}, evaluated now",
                          "dataset": evaluation.dataset, **_scores(evaluation)} for label, evaluation in evaluations.items()])


def about_published(folder: str | None, tracker: str = PUBLISHED) -> str:
    """Where the published row was computed from, or how to have it computed."""
    if folder:
        return (f"The row of published raw results is computed from `results/{tracker}` in `{folder}`, PySOT's answers with "
                "`siamrpn_r50_l234_dwxcorr` on VOT2018, by the same code as the measured row.")
    return ("No raw results of VOT2018 were given, so the published row is the paper's. Given a folder with `VOT2018.json` "
            "(annotations in PySOT's format, as in github.com/MegviiDetection/video_analyst) and "
            f"`results/{tracker}/baseline/<sequence>/<sequence>_001.txt` (raw results of PySOT's `siamrpn_r50_l234_dwxcorr`, "
            "as in github.com/whjzsy/SiamTrackers), the row is computed with its intervals: "
            "`papermill notebooks/04_1_baseline.ipynb out.ipynb --cwd notebooks -p vot2018_results FOLDER`.")


def _scores(evaluation: Evaluation) -> dict[str, float]:
    """The measures and their intervals as columns: accuracy, accuracy_low, accuracy_high, ..."""
    intervals = bootstrap(evaluation)
    columns = {}
    for measure in MEASURES:
        columns[measure] = getattr(evaluation, measure)
        columns[f"{measure}_low"], columns[f"{measure}_high"] = intervals[measure]
    return columns


# -- Digests and files ---------------------------------------------------------------------------------------------------------


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:16]


def dataset_digest(dataset: Dataset) -> str:
    """Names, regions and the bytes of every frame. Raises InputError where frames are missing."""
    sha = hashlib.sha256()
    for sequence in dataset:
        if not sequence.has_frames:
            raise InputError(f"Dataset {dataset.path}: the frames of '{sequence.name}' are not there, so it cannot be tracked.")
        sha.update(repr((sequence.name, [region.tolist() for region in sequence.regions])).encode())
        for frame in sequence.frames:
            try:
                sha.update(digest(frame.read_bytes()).encode())
            except OSError as error:
                raise InputError(f"Frame {frame} cannot be read: {error.strerror}.") from None
    return sha.hexdigest()[:16]


def _code_digest(framework: str) -> str:
    """The code between a frame and its raw result: network, crop, tracker, engine, protocol and the overlap that it resets by."""
    lib = ROOT / "lib"
    files = [*sorted(lib.glob("siamrpn/*.py")), lib / ENGINES[framework].module,
             *(lib / "vot" / name for name in ("dataset.py", "overlap.py", "protocol.py"))]
    return digest("".join(ast.dump(ast.parse(file.read_text(encoding="utf-8"))) for file in files).encode())  # less comments


def _note(run: str, record: Mapping[str, Any]) -> str:
    busy = f"; the machine was {100 * record['in_use']:.0f} % busy with other work, so speeds are too low"
    return f"Run {Path(run).name}, {record['date']}: {environment.label(record)}{busy if environment.was_busy(record) else ''}"


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[Path]:
    """The run's folder, made if need be, for this process alone; the lock goes with the process, however it ends."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / ".lock").touch()
    except OSError as error:
        raise InputError(f"{folder}: the run cannot be written there ({error.strerror or error}).") from None
    with open(folder / ".lock") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield folder


def to_json(value: Any) -> str:
    return json.dumps(value, indent=1, sort_keys=True) + "\n"


def read_json(path: Path) -> dict[str, Any]:
    """A record of the run; empty where there is none or it is damaged, which means: measure again."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}
