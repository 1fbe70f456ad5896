"""Variants, and "measure, or load what this run has measured" (chapter 4).

A variant is one tracker to measure: weights, framework, and a precision for each of its three networks; an experiment is a list
of them. `measure` tracks a dataset with each under the reset-based protocol and keeps what came out in a run, the folder
data/runs/<run>/:

    environment.json                                          the machine, versions and commit of the last measurement
    <section>.csv                                             a section's table, e.g. 04_1_baseline.csv
    full_size.json, engine_speed_<framework>.json             speed of the full-size networks
    <dataset>/<variant>/measured.json                         all that decided the results below
    <dataset>/<variant>/baseline/<sequence>/<sequence>_001.txt, _001_time.value     the VOT toolkit's raw file, seconds a frame
    <dataset>/<variant>/baseline/<sequence>/<sequence>_001_lost.csv                 where the tracker was at each failure
    <dataset>/<variant>/baseline/<sequence>/<sequence>_001_shared.value             frames whose search another variant had done
    <dataset>/<variant>/baseline/<sequence>/<sequence>_001_power.csv                what the power sensor saw, where there is one
    <dataset>/<dataset>.json                                  the annotations, so that the run can be evaluated anywhere

A sequence counts as measured when its raw file is there, which is written last and at once; so a measurement that was killed goes
on with the sequence it was in. Where measured.json says something else than what would decide a result now, the variant is
measured again. A run that was recorded on another machine is read only (`lib.runs` has the rule): nothing is compared, nothing is
measured into it, and what it lacks is an `Absent` that views show as a sentence.
"""
from __future__ import annotations

import contextlib
import re
import shutil
import sys
import time
from collections import Counter
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Callable, Mapping, cast
from typing import Sequence as Seq

import numpy as np
from tqdm import tqdm

from lib import environment, power, runs
from lib.calibration import Ranges, calibrate_ways, read_ranges, thesis_pairs, write_ranges
from lib.demo import make_benchmark
from lib.deploy import FRAMEWORKS, RECIPES, USUAL, Deployment, Quantisation, choose_framework, framework_module
from lib.digests import code_digest, dataset_digest, digest
from lib.engines.base import PRECISIONS, Engine, EngineNetwork, describe_executed
from lib.engines.shared import SharedEngine
from lib.environment import device
from lib.errors import InputError
from lib.files import ROOT, locked, write_text
from lib.quantize import METHODS
from lib.runs import absent, is_recorded, read_json, run_folder, run_note, to_json
from lib.siamrpn.checkpoint import load_network
from lib.siamrpn.parts import NETWORKS
from lib.siamrpn.tracker import SiamRPNTracker, TrackerConfig
from lib.thesis import VOT2018_FRAMES, VOT2018_SEQUENCES
from lib.vot.dataset import Dataset, Sequence, axis_aligned_box, load_dataset, read_numbers
from lib.vot.metrics import Evaluation, columns, evaluate
from lib.vot.protocol import FAILURE, PYSOT, Protocol, Trajectory, frames_per_second, run_reset_based
from lib.vot.results import read_results, result_path, write_trajectory
from lib.zoo import DEMO, tracker_config, weights_path

CACHE = ROOT / "data" / "cache"
DEMO_DATASET = CACHE / "demo-benchmark"  # what `dataset: demo` means, generated where it is not there yet
MEASURED = "measured.json"
IN_MEMORY_BYTES = 2**30  # of decoded frames, of one sequence
DECIDE_RESETS = ("failure_overlap", "skip", "overlap", "box_end", "image_end")  # of a protocol; the rest concerns evaluation


# -- Variants ------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Variant:
    """One tracker to measure. name: of its folder and row. weights: "demo" or a path, relative to the repository or absolute.

    framework: a key of deploy.FRAMEWORKS. target, search, xcorr: precision of the three networks of figure 3.9. quantisation:
    of those in INT8.
    """

    name: str
    weights: str = DEMO
    framework: str = "pytorch"
    target: str = "fp32"
    search: str = "fp32"
    xcorr: str = "fp32"
    quantisation: Quantisation = USUAL

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[\w.-]+", self.name):
            raise InputError(f"Variant '{self.name}': a name is made of letters, digits, dots, dashes and underscores.")
        framework_module(self.framework)
        unknown = [precision for precision in self.precisions.values() if precision not in PRECISIONS]
        if unknown:
            raise InputError(f"Variant '{self.name}': unknown precision '{unknown[0]}' (there are {', '.join(PRECISIONS)}).")

    @property
    def precisions(self) -> dict[str, str]:
        """Precision by network."""
        return {"target": self.target, "search": self.search, "xcorr": self.xcorr}

    @property
    def precision(self) -> str:
        """ "FP32", or "FP16/FP32/INT8" (target, search, xcorr) where precisions are mixed."""
        names = list(self.precisions.values())
        return "/".join(names if len(set(names)) > 1 else names[:1]).upper()

    @property
    def title(self) -> str:
        """For rows and legends: "OpenVINO INT8"."""
        return f"{FRAMEWORKS[self.framework].title} {self.precision}"


def baseline(weights: str) -> list[Variant]:
    """Section 4.1: the tracker as PySOT runs it."""
    return [Variant("pytorch-fp32", weights)]


def mixture(weights: str, framework: str, target: str, search: str, xcorr: str, quantisation: Quantisation = USUAL
            ) -> Variant:
    """One mixture of precisions, named after them: "openvino-int8", "openvino-fp16-fp32-int8", with what differs from the usual
    quantisation behind."""
    precisions = (target, search, xcorr)
    names = precisions if len(set(precisions)) > 1 else precisions[:1]
    given = [getattr(quantisation, part) for part in ("calibration", "method", "recipe")
             if getattr(quantisation, part) != getattr(USUAL, part)] if "int8" in precisions else []
    return Variant("-".join((framework, *names, *given)), weights, framework, *precisions, quantisation)


def engines(weights: str, framework: str) -> list[Variant]:
    """Section 4.2, table 4.2: the compiled tracker with all three networks at FP32, FP16 and INT8."""
    return [mixture(weights, framework, precision, precision, precision) for precision in PRECISIONS]


def mixtures(weights: str, framework: str) -> list[Variant]:
    """Section 4.2.1, table 4.3: all 27 mixtures, those of table 4.2 among them, sorted by the search network as the thesis
    does."""
    return [mixture(weights, framework, target, search, xcorr)
            for search in PRECISIONS for xcorr in PRECISIONS for target in PRECISIONS]


def calibrations(weights: str, framework: str) -> list[Variant]:
    """Section 4.2: all three networks in INT8, calibrated by every method on training data and on the frames that are tested."""
    return [mixture(weights, framework, "int8", "int8", "int8", Quantisation(calibration, method))
            for calibration in ("training", "benchmark") for method in METHODS]


def xcorr_recipes(weights: str, framework: str) -> list[Variant]:
    """Section 4.2.1: an INT8 xcorr network between FP16 ones, by every recipe, with ranges by entropy; by the largest value as
    well for the recipe that is used and the one that quantises everything, which tells what clipping does."""
    recipes = [Quantisation("benchmark", method, recipe) for recipe in RECIPES
               for method in (("minmax", "entropy") if recipe in ("standard", "everything") else ("entropy",))]
    return [mixture(weights, framework, "fp16", "fp16", "fp16"),
            *(mixture(weights, framework, "fp16", "fp16", "int8", recipe) for recipe in recipes)]


# -- Names to things -----------------------------------------------------------------------------------------------------------


def open_dataset(name: str, run: str | None = None, progress: bool = True) -> Dataset:
    """The dataset of a profile: "demo" is generated where it is not there yet, anything else is a path.

    run: for a recorded one, the dataset as the run has it (`runs.annotated`); then it need not be on this machine.
    """
    path = DEMO_DATASET if name == DEMO else ROOT / name  # an absolute path stays what it is
    recorded = run is not None and is_recorded(run, device())
    if name == DEMO:
        make_benchmark(path, progress=progress)
    local = None if recorded and not path.exists() else load_dataset(path)
    if run is None or not recorded:
        return cast(Dataset, local)
    return runs.annotated(run, local.name if local else path.stem, local)


def compiled_framework(framework: str, run: str) -> str:
    """`deploy.choose_framework` for a run of this machine; of a recorded run "auto" is the framework that it has measured."""
    if framework != "auto" or not is_recorded(run, device()):
        return choose_framework(framework)
    records = map(read_json, sorted(run_folder(run).glob(f"*/*/{MEASURED}")))
    found = Counter(record["decided_by"]["framework"].split()[0] for record in records if "decided_by" in record)
    found.update(path.stem.rpartition("_")[2] for path in run_folder(run).glob("engine_speed_*.json"))
    del found["pytorch"]
    return found.most_common(1)[0][0] if found else choose_framework(framework)


# -- Measuring -----------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Measurement:
    """One variant on one dataset, complete. results: its folder. lost: sequence -> frame -> box at a failure. engines: network ->
    framework, precision as asked and as executed, plan_bytes, build_seconds. power: None without a sensor; sensor: its name, or
    why there was none. shared: frames whose search another variant had done before. recorded: whether on another machine."""

    variant: Variant
    dataset: Dataset = field(repr=False)
    run: str
    results: Path
    parameters: int
    environment: Mapping[str, Any] = field(repr=False)
    engines: Mapping[str, Mapping[str, Any]] = field(repr=False)
    trajectories: Mapping[str, Trajectory] = field(repr=False)
    lost: Mapping[str, Mapping[int, np.ndarray]] = field(repr=False)
    evaluation: Evaluation = field(repr=False)
    power: power.Power | None = field(default=None, repr=False)
    sensor: str = ""
    shared: int = 0
    recorded: bool = False

    @property
    def whose(self) -> str:
        """For legends: whether it was measured here or comes from a recorded run."""
        return "recorded" if self.recorded else "measured now"

    @property
    def fps(self) -> float:
        """Frames per second by PySOT's scheme (section 3.3.3)."""
        return frames_per_second(self.trajectories.values())

    @property
    def fps_tracked(self) -> float:
        """Frames per second of the tracked frames alone: track calls over their time."""
        return frames_per_second(self.trajectories.values(), tracked_only=True)

    def evaluated_by(self, protocol: Protocol) -> Evaluation:
        """The same raw results counted by other rules."""
        return evaluate(self.dataset, {name: [trajectory] for name, trajectory in self.trajectories.items()}, protocol)

    @property
    def executed(self) -> str:
        """Convolutions of the search and the xcorr network by the precision that they ran in."""
        counts = Counter(self.engines["search"]["executed"])
        counts.update(self.engines["xcorr"]["executed"])
        return describe_executed(counts)

    @property
    def machine(self) -> str:
        return environment.label(self.environment, self.engines["search"]["framework"])

    @property
    def note(self) -> str:
        """What a caption says: the run, the machine, the day."""
        return run_note(self.run, self.environment, self.engines["search"]["framework"], self.recorded)

    @property
    def scale(self) -> str:
        """What these numbers may be compared with, in a sentence."""
        frames, count, millions = sum(map(len, self.dataset)), len(self.dataset), self.parameters / 1e6
        on = f"{self.dataset.name} ({count} sequences, {frames:,} frames) with a network of {millions:.1f} M parameters"
        if (len(self.dataset), frames) == (VOT2018_SEQUENCES, VOT2018_FRAMES):
            return f"Measured on {on}: the thesis's benchmark."
        return f"Demo scale: measured on {on}. Accuracy, robustness and EAO are not comparable with values on VOT2018."

    def row(self) -> dict[str, Any]:
        """A line of a section's table: what was measured on what, the measures with their 95 % intervals, speed, power."""
        return {
            "row": "recorded" if self.recorded else "measured", "variant": self.variant.name,
            "framework": FRAMEWORKS[self.variant.framework].title,
            "precision": self.variant.precision, **self.variant.precisions, "executed": self.executed,
            "plan_mb": sum(engine["plan_bytes"] for engine in self.engines.values()) / 1e6,
            "build_s": sum(engine["build_seconds"] for engine in self.engines.values()),
            "hardware": self.machine, "network": f"{self.parameters / 1e6:.1f} M parameters",
            "dataset": self.dataset.name, "sequences": len(self.dataset), "frames": sum(map(len, self.dataset)),
            **columns(self.evaluation), "fps": self.fps, "fps_tracked": self.fps_tracked, "shared": self.shared,
            **power_columns(self.power),
            "run": Path(self.run).name, "date": self.environment["date"],
        }


def measure(variants: Seq[Variant], dataset: Dataset, run: str, protocol: Protocol = PYSOT, progress: bool = True
            ) -> list[Measurement]:
    """Measure every variant on the dataset, or load what the run has measured already; in the order given.

    One pass over the sequences measures all variants that miss one: its frames are read once, engines that several variants
    have are built once, and on a processor a search engine answers the same crop once (`lib.engines.shared`, which says what that
    means for times). A variant is alone while it is timed. One process measures in a run at a time; another one waits, and
    then loads. A power sensor, where there is one, is read all the while, and for some seconds before. Raises InputError before
    anything of the run is touched where weights, settings or frames are not to be had. Into a recorded run nothing is measured:
    what it lacks is an `Absent`.
    """
    if is_recorded(run, device()):
        dataset = runs.annotated(run, dataset.name, dataset)
        return [_recorded(variant, dataset, run, protocol) for variant in variants]
    contents = dataset_digest(dataset)
    with locked(run_folder(run) / runs.LOCK):
        deployments = Deployments(dataset, contents, variants)
        jobs = {variant: _Job(variant, deployments, run, contents, protocol) for variant in variants}
        waiting = [job for job in jobs.values() if job.missing]
        total = sum(len(sequence) for job in waiting for sequence in job.missing)
        sensor, about = power.find_sensor(device()) if waiting else (None, "")
        with power.Sampler(sensor, power.PERIOD) as sampler:
            if sensor is not None:
                with sampler.phase("idle"):
                    time.sleep(power.IDLE_SECONDS)
            machine = environment.record(device()) if waiting else {}
            for job in waiting:
                job.start(about, machine)
            runs.keep_annotations(run, dataset)
            what = f"{len(waiting)} variants on {dataset.name}"
            with tqdm(total=total, desc=what, unit="frame", disable=not (progress and total)) as bar:
                if sensor is None:  # which would see work that is shared in the first variant alone
                    share_search(waiting)
                for sequence in dataset:
                    late = sorted((job for job in waiting if sequence in job.missing),
                                  key=lambda job: job.variant.framework)  # whose threads get in another framework's way
                    frames = _in_memory(sequence) if len(late) > 1 else sequence
                    for job in late:
                        job.measure(frames, bar.update, sampler)
                    for job in late:
                        job.forget()
        return [jobs[variant].result() for variant in variants]


def _recorded(variant: Variant, dataset: Dataset, run: str, protocol: Protocol) -> Measurement:
    """A variant of a recorded run as the run has it, whatever is on this machine; an `Absent` where the run lacks it."""
    results = run_folder(run) / dataset.name / variant.name
    record = read_json(results / MEASURED)
    lacking = [sequence.name for sequence in dataset if not result_path(results, sequence.name).is_file()]
    if not record or len(lacking) == len(dataset):
        return absent(f"{variant.title} on {dataset.name} ({variant.name})", run, variant=variant)
    if lacking:
        return absent(f"{len(lacking)} of {len(dataset)} sequences of {dataset.name} with {variant.title}", run, variant=variant)
    if record.get("decided_by", {}).get("protocol") != _resets_by(protocol):
        return absent(f"{variant.title} on {dataset.name} by this protocol", run, variant=variant)
    return _load(variant, dataset, run, results, record, protocol, recorded=True)


def _load(variant: Variant, dataset: Dataset, run: str, results: Path, record: Mapping[str, Any], protocol: Protocol,
          recorded: bool = False) -> Measurement:
    trajectories = {name: repetitions[0] for name, repetitions in read_results(results, dataset).items()}
    lost = {name: _read_lost(result_path(results, name)) for name in trajectories}
    evaluation = evaluate(dataset, {name: [trajectory] for name, trajectory in trajectories.items()}, protocol)
    logs = {name: _power_path(result_path(results, name)) for name in trajectories}
    parts = [(power.read_log(path), frames_tracked(trajectories[name])) for name, path in logs.items() if path.is_file()]
    counts = [_shared_path(result_path(results, name)) for name in trajectories]
    shared = sum(int(path.read_text()) for path in counts if path.is_file())
    drawn = power.measure_parts(parts, frames_per_second(trajectories.values()))
    return Measurement(variant, dataset, run, results, record["parameters"], record["environment"], record["engines"],
                       trajectories, lost, evaluation, drawn, record.get("power", ""), shared, recorded)


def frames_tracked(trajectory: Trajectory) -> int:
    """Frames that the tracker was asked about: all but initialisations and those skipped after a failure."""
    return int(np.isin(trajectory.codes, (-1, FAILURE)).sum())


def power_columns(drawn: power.Power | None) -> dict[str, Any]:
    """Power in a row of a section's table, by both definitions of `lib.power`; empty without a sensor."""
    names = {"power_w_thesis": "thesis_watts", "energy_j_thesis": "thesis_energy_per_frame", "power_w": "watts",
             "idle_w": "idle_watts", "energy_j": "energy_per_frame", "energy_j_spread": "energy_spread",
             "net_energy_j": "net_energy_per_frame", "net_energy_j_spread": "net_energy_spread", "power_s": "seconds",
             "power_covered_s": "covered"}
    return {"sensor": drawn.sensor if drawn else None, "rail": drawn.rail if drawn else None,
            **{column: getattr(drawn, name) if drawn else float("nan") for column, name in names.items()}}


class Deployments:
    """The engines of the variants of one measurement, each made once. variants: all of them, whose calibrations are made
    together."""

    def __init__(self, dataset: Dataset, contents: str, variants: Seq[Variant] = ()) -> None:
        self.dataset, self.contents = dataset, contents
        self._calibrated = {(one.weights, RECIPES[one.quantisation.recipe].feeds) for one in variants
                            if "int8" in one.precisions.values() and one.quantisation.calibration == "benchmark"}
        self._made: dict[tuple[str, str], Deployment] = {}
        self._made_ranges: dict[tuple[str, str], Ranges] = {}

    def of(self, variant: Variant) -> Deployment:
        """What the variant's engines are made with; a calibration is made or read when the first INT8 engine that needs it is."""
        key = (variant.weights, variant.framework)
        if key not in self._made:
            deployment = Deployment(load_network(weights_path(variant.weights, ROOT)), variant.framework, device(),
                                    ranges=lambda quantisation: self.ranges(deployment, variant, quantisation))
            self._made[key] = deployment
        return self._made[key]

    def network(self, variant: Variant) -> EngineNetwork:
        return self.of(variant).network(variant.precisions, variant.quantisation)

    def ranges(self, deployment: Deployment, variant: Variant, quantisation: Quantisation) -> Ranges:
        """The ranges of a calibration: those beside the weights, or made from the dataset and kept in data/cache."""
        weights, how = weights_path(variant.weights, ROOT), RECIPES[quantisation.recipe].feeds
        if quantisation.calibration == "training":
            if how != "own":
                raise InputError(f"the recipe '{quantisation.recipe}' has a calibration of its own, from the benchmark")
            return training_ranges(weights)
        own = digest(weights.read_bytes())
        if (own, how) not in self._made_ranges:
            wanted = [how, *sorted(way for name, way in self._calibrated if name == variant.weights and way != how)]
            origins = {way: f"{own} on {self.contents}, {way}, {code_digest(deployment.framework)}" for way in wanted}
            paths = {way: CACHE / "calibration" / f"{digest(origin.encode())}.csv" for way, origin in origins.items()}
            if not paths[how].is_file():
                self._calibrate(deployment, {way: (paths[way], origins[way]) for way in wanted if not paths[way].is_file()})
            self._made_ranges[own, how] = read_ranges(paths[how], origins[how])
        return self._made_ranges[own, how]

    def _calibrate(self, deployment: Deployment, files: Mapping[str, tuple[Path, str]]) -> None:
        """Write ranges from the frames that are tested. files: way -> its file, and what it is made from."""
        pairs = thesis_pairs(self.dataset, requested_frames(self.dataset))
        models = {name: deployment.model(name, "fp32") for name in NETWORKS}
        for way, ranges in calibrate_ways(models, pairs, files).items():
            source = f"{len(pairs)} frames of {self.dataset.name}, as in section 4.2"
            write_ranges(files[way][0], ranges, source if way == "own" else f"{source}, xcorr: {way}", files[way][1])


def calibration_path(weights: Path) -> Path:
    """Where the ranges that belong to weights are kept: beside them."""
    return weights.with_suffix(".calibration.csv")


def weights_of(name: str) -> Path:
    """The file of `demo` or of a path, which may be relative to the folder one is in."""
    return weights_path(name if name == DEMO else str(Path(name).resolve()))


def training_ranges(weights: Path) -> Ranges:
    """The ranges kept beside weights. Raises InputError where there are none, or those of other weights."""
    return read_ranges(calibration_path(weights), digest(weights.read_bytes()))


def requested_frames(dataset: Dataset) -> int:
    """How many frames to ask the thesis's calibration for: 1,000 of VOT2018's 21,356, and the same share of a smaller
    benchmark as makes at least 96."""
    total = sum(map(len, dataset))
    return min(1000, max(1, total * len(dataset) // 96))


def _in_memory(sequence: Sequence) -> Sequence:
    """The sequence with its frames decoded, unless they would take more than a gigabyte."""
    if len(sequence) * sequence.width * sequence.height * 3 > IN_MEMORY_BYTES:
        return sequence
    return DecodedSequence(sequence.name, sequence.frames, sequence.regions, sequence.tags, sequence.width, sequence.height,
                           tuple(sequence.frame(index) for index in range(len(sequence))))


@dataclass(frozen=True)
class DecodedSequence(Sequence):
    """A sequence whose frames are in memory."""

    images: tuple[np.ndarray, ...] = field(default=(), repr=False)

    def frame(self, index: int) -> np.ndarray:
        return self.images[index]


class _Job:
    """One variant's measurement: what is missing, measuring a sequence, and the result."""

    def __init__(self, variant: Variant, deployments: Deployments, run: str, contents: str, protocol: Protocol) -> None:
        self.variant, self.deployments, self.run, self.protocol = variant, deployments, run, protocol
        self.dataset, self.results = deployments.dataset, run_folder(run) / deployments.dataset.name / variant.name
        self.parts = decided_by(variant, contents, protocol, device())
        self.record = read_json(self.results / MEASURED)
        self.fresh = self.record.get("decided_by") == self.parts
        self.missing = [s for s in self.dataset if not self.fresh or not result_path(self.results, s.name).is_file()]

    def start(self, sensor: str, machine: Mapping[str, Any]) -> None:
        """Build the engines and, where nothing of it is measured yet, write down what decides the results. sensor: of power, or
        why there is none. machine: `environment.record`."""
        network = self.deployments.network(self.variant)
        for sequence in self.missing:
            sequence.frame(0)  # frames that are not there are a fault now, not after an hour
        if not self.fresh:
            about = {"parameters": self.deployments.of(self.variant).parameters, "engines": _about_engines(network),
                     "power": sensor, "environment": dict(machine)}
            self.record = _start(self.results, self.record, self.parts, about)
            runs.write_environment(self.run, self.record["environment"])
        self.network = network
        self.tracker = SiamRPNTracker(network, _settings(self.variant))
        self.shared: SharedEngine | None = None
        self.warm = False

    def share(self, engine: SharedEngine) -> None:
        """Search with an engine that other jobs search with as well."""
        self.tracker.network = EngineNetwork({**self.network.engines, "search": cast(Engine, engine)})
        self.shared = engine

    def measure(self, sequence: Sequence, done: Callable[[int], Any], sampler: power.Sampler) -> None:
        if not self.warm:
            warm_up(self.tracker, sequence)
            self.warm = True
        path, before = result_path(self.results, sequence.name), self.shared.hits if self.shared else 0
        clock = self.shared.clock if self.shared else time.perf_counter
        trajectory = _track_sequence(self.tracker, sequence, self.protocol, path, done, sampler, clock)
        if self.shared:
            write_text(_shared_path(path), f"{self.shared.hits - before}\n")
        write_trajectory(path, trajectory)  # last: where the raw file is, the sequence is measured

    def forget(self) -> None:
        if self.shared:
            self.shared.forget()

    def result(self) -> Measurement:
        return _load(self.variant, self.dataset, self.run, self.results, self.record, self.protocol)


def _about_engines(network: EngineNetwork) -> dict[str, dict[str, Any]]:
    """What is worth knowing of the three engines: framework, precision as asked and as executed, size of the plan, time to
    build."""
    return {name: {"framework": engine.framework, "device": engine.device, "precision": engine.precision,
                   "executed": engine.executed(), "plan_bytes": engine.plan_bytes,
                   "build_seconds": round(engine.build_seconds, 3)}
            for name, engine in network.engines.items()}


def decided_by(variant: Variant, contents: str, protocol: Protocol, on: str) -> dict[str, str]:
    """All that decides a variant's raw results and times, part by part, so that one can say what changed.

    contents: `dataset_digest`. on: the device.
    """
    return {
        "weights": digest(weights_path(variant.weights, ROOT).read_bytes()),
        "dataset": contents,
        "tracker": to_json(asdict(_settings(variant))),
        "protocol": _resets_by(protocol),
        "precision": variant.precision,
        "framework": f"{variant.framework} {framework_module(variant.framework).version()}",
        "quantisation": _quantised_by(variant),
        "code": code_digest(variant.framework),
        "machine": to_json(environment.hardware(on)),
    }


def _resets_by(protocol: Protocol) -> str:
    return to_json({name: getattr(protocol, name) for name in DECIDE_RESETS})


def _settings(variant: Variant) -> TrackerConfig:
    return tracker_config(variant.weights if variant.weights == DEMO else str(ROOT / variant.weights))


def _quantised_by(variant: Variant) -> str:
    """What decides the integers of a variant's INT8 networks; "" for a variant without."""
    if "int8" not in variant.precisions.values():
        return ""
    path = calibration_path(weights_path(variant.weights, ROOT))
    kept = digest(path.read_bytes()) if variant.quantisation.calibration == "training" and path.is_file() else ""
    return to_json({**asdict(variant.quantisation), "ranges": kept})


def _start(results: Path, record: Mapping[str, Any], parts: Mapping[str, str], about: Mapping[str, Any]) -> dict[str, Any]:
    """Clear what is stale and write down what will decide the new results; killed in between, it is stale again."""
    before = record.get("decided_by", {})
    if before:
        changed = ", ".join(name for name in parts if before.get(name) != parts[name])
        print(f"{results.name} on {results.parent.name} is measured again: {changed} changed", file=sys.stderr)
    with contextlib.suppress(FileNotFoundError):
        (results / MEASURED).unlink()
    shutil.rmtree(results, ignore_errors=True)
    new = {"decided_by": dict(parts), **about}
    write_text(results / MEASURED, to_json(new))
    return new


def share_search(jobs: Seq[_Job]) -> None:
    """Let jobs with the same search engine share its answers, where its calls return when they are done: not on a GPU."""
    shared: dict[int, SharedEngine] = {}
    searches = Counter(id(job.network.search) for job in jobs if device() == "cpu")
    for job in jobs:
        engine = job.network.search
        if searches[id(engine)] > 1:
            job.share(shared.setdefault(id(engine), SharedEngine(engine)))


def _track_sequence(tracker: SiamRPNTracker, sequence: Sequence, protocol: Protocol, path: Path, done: Callable[[int], Any],
                    sampler: power.Sampler, clock: Callable[[], float]) -> Trajectory:
    lost: dict[int, np.ndarray] = {}

    def on_frame(index: int, frame: np.ndarray, entry: np.ndarray, box: np.ndarray | None) -> None:
        done(1)
        if len(entry) == 1 and entry[0] == FAILURE and box is not None:
            lost[index] = box

    begin = sampler.now()
    trajectory = run_reset_based(tracker, sequence, protocol, on_frame, clock)
    if sampler.sensor is not None:
        power.write_log(_power_path(path), sampler.log.cut(begin, sampler.now()))
    lines = (",".join([str(index), *(f"{value:.4f}" for value in box)]) for index, box in lost.items())
    write_text(_lost_path(path), "".join(line + "\n" for line in lines))
    return trajectory


def warm_up(tracker: SiamRPNTracker, sequence: Sequence) -> None:
    """A first call allocates and chooses algorithms; it says nothing about speed."""
    frame = sequence.frame(0)
    tracker.init(frame, axis_aligned_box(sequence.regions[0]))
    tracker.track(frame)


def _lost_path(path: Path) -> Path:
    return path.with_name(f"{path.stem}_lost.csv")


def _shared_path(path: Path) -> Path:
    return path.with_name(f"{path.stem}_shared.value")


def _power_path(path: Path) -> Path:
    return path.with_name(f"{path.stem}_power.csv")


def _read_lost(path: Path) -> dict[int, np.ndarray]:
    rows = read_numbers(_lost_path(path)) if _lost_path(path).is_file() else []
    return {int(row[0]): np.array(row[1:]) for row in rows}


