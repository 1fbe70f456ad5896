"""Quality: the boxes of variants under the reset-based protocol, measured once and kept in a run
(chapter 4).

Boxes do not depend on what else the machine does. So a task is one sequence with variants that
share a search engine, each task computes on one thread, and an executor runs as many as there are
cores (`lib.measure.executors`). This process alone writes in data/runs/<run>:

    environment.json                     machine, versions and commit of the last measurement
    <dataset>/<dataset>.json             the annotations: the run can be evaluated anywhere
    <dataset>/tasks.csv                  seconds of every task of the last measurement
    <dataset>/<variant>/measured.json    all that decided the results below
    .../baseline/<sequence>/             of a variant, by sequence:
        <sequence>_001.txt               the VOT toolkit's raw file
        <sequence>_001_lost.csv          where the tracker was at each failure
        <sequence>_001_time.value, _001_power.json
                                         where the pass was serial and alone (a GPU)

A sequence counts as measured when its raw file is there, whole. So a measurement that was killed
goes on, and a damaged file is measured again. Where measured.json names something else than what
would decide a result now, the variant is measured again. A run of another machine is read only
(`lib.measure.runs`): what it lacks is an `Absent`.
"""

from __future__ import annotations

import contextlib
import shutil
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any, Dict, Iterator, List, Mapping, Sequence, Tuple

import numpy as np

from lib import environment
from lib.engines.deploy import RECIPES, framework_module
from lib.engines.zoo import DEMO, weights_path
from lib.environment import device
from lib.errors import InputError
from lib.files import ROOT, locked, write_text
from lib.measure import power, runs
from lib.measure.executors import open_executor
from lib.measure.keys import dataset_digest, decided_by, resets_by
from lib.measure.measurement import Measurement, frames_tracked
from lib.measure.runs import absent, is_recorded, read_json, run_folder, to_json
from lib.measure.variants import MEASURED, Variant
from lib.measure.worker import Order, Tracked, calibrate, check, track
from lib.progress import progress
from lib.vot.dataset import Dataset, read_numbers
from lib.vot.dataset import Sequence as Video
from lib.vot.metrics import evaluate
from lib.vot.protocol import PYSOT, Protocol, Trajectory, frames_per_second
from lib.vot.results import read_trajectory, result_path, write_trajectory

TASKS = "tasks.csv"
# For the time left alone: what a frame costs on one thread beside PyTorch FP32, by what a
# compiled search network computes in; how much another variant of the same search engine adds;
# and how many frames a calibration is worth.
COST = {"fp32": 0.75, "fp16": 0.2, "int8": 0.35}
ADDED = 0.4
CALIBRATING = 600.0
NOT_ALONE = "quality is measured on all cores at once, and so without power"


# -- Measuring -------------------------------------------------------------------------------------


def measure(
    variants: Sequence[Variant],
    dataset: Dataset,
    run: str,
    protocol: Protocol = PYSOT,
    shown: bool = True,
    scheduler: str = "",
    workers: int = 0,
    bar: Any = None,
) -> List[Measurement]:
    """Measure every variant on the dataset, or load what the run has measured already; in the order
    given.

    scheduler, workers: where (`executors.open_executor`). shown: a progress bar, or bar: one to
    count on (units of `work`). One process measures in a run at a time; another one says that it
    waits, and then loads. Raises InputError before anything of the run is touched where weights,
    settings or frames are missing; later where a worker fails, and what was finished by then is
    kept. Into a recorded run nothing is measured: what it lacks is an `Absent`.
    """
    if is_recorded(run, device()):
        dataset = runs.annotated(run, dataset.name, dataset)
        return [_recorded(variant, dataset, run, protocol) for variant in variants]
    contents = dataset_digest(dataset)
    busy = f"run {Path(run).name}: another process is measuring into it; waiting for it to end"
    with locked(run_folder(run) / runs.LOCK, waiting=busy):
        timed = device() != "cpu" and not scheduler
        jobs = {one: _Job(one, dataset, run, contents, protocol, timed) for one in variants}
        waiting = [job for job in jobs.values() if job.missing]
        if waiting:
            with contextlib.ExitStack() as stack:
                if bar is None:
                    total = _work(waiting, timed)
                    what = f"{len(waiting)} variants on {dataset.name}"
                    bar = stack.enter_context(progress(total, what, shown))
                pool = stack.enter_context(open_executor(scheduler, workers, device()))
                _measure(waiting, dataset, contents, protocol, pool, bar)
        runs.keep_annotations(run, dataset)
        return [jobs[variant].result() for variant in variants]


def work(variants: Sequence[Variant], dataset: Dataset, run: str) -> float:
    """How much `measure` would have to do, in frames of PyTorch FP32; 0 where the run has
    everything."""
    if is_recorded(run, device()):
        return 0.0
    contents = dataset_digest(dataset)
    timed = device() != "cpu"
    return _work([_Job(one, dataset, run, contents, PYSOT, timed) for one in variants], timed)


def parallel(scheduler: str = "", workers: int = 0) -> int:
    """How many tasks run at once, as far as is known beforehand."""
    return 1 if device() != "cpu" and not scheduler else workers or environment.cores() or 1


def _work(jobs: Sequence[_Job], alone: bool) -> float:
    total = 0.0
    for group in _groups([job for job in jobs if job.missing], alone):
        for video in {video.name: video for job in group for video in job.missing}.values():
            total += _task_work([job.variant for job in group if video in job.missing], video)
    return total + CALIBRATING * len(_ways(jobs))


def _task_work(variants: Sequence[Variant], video: Video) -> float:
    return _cost(variants[0]) * len(video) * (1 + ADDED * (len(variants) - 1))


def _cost(variant: Variant) -> float:
    """Of a frame, beside the demo network in PyTorch FP32."""
    size = weights_path(variant.weights, ROOT).stat().st_size / weights_path(DEMO).stat().st_size
    if variant.framework == "pytorch":
        return size
    engines, precision = framework_module(variant.framework), variant.search
    in_fp32 = (
        precision == "fp16" and variant.framework == "openvino" and engines.hint("fp16") == "f32"
    )
    return size * COST["fp32" if in_fp32 else precision]


def _measure(
    jobs: Sequence[_Job], dataset: Dataset, contents: str, protocol: Protocol, pool: Any, bar: Any
) -> None:
    """Have every task done by some worker, and write its answer as it comes."""
    for video in {video.name: video for job in jobs for video in job.missing}.values():
        video.frame(0)  # a frame that cannot be read is a fault now, not after an hour
    orders = _orders(jobs, contents, protocol, pool.alone)
    pool.check(check, orders)
    sensor, about = power.find_sensor(device()) if pool.alone else (None, NOT_ALONE)
    machine = environment.record(device())
    by_variant = {job.variant: job for job in jobs}
    with power.Sampler(sensor, power.PERIOD) as sampler:
        if sensor is not None:
            with sampler.phase("idle"):
                time.sleep(power.IDLE_SECONDS)
        spent = []
        for phase, tasks in enumerate(_in_phases(orders, by_variant, dataset)):
            for (_, order, of, *_), answer in pool.answers(tasks):
                for variant, tracked in answer.tracked.items():
                    by_variant[variant].write(of, tracked, about, machine, sampler)
                ones = list(answer.tracked)
                bar.update(_task_work(ones, of) if ones else CALIBRATING)
                bar.set_description(f"quality: {order.variants[0].title}", refresh=False)
                names = " ".join(variant.name for variant in answer.tracked)
                spent.append(f"{phase},{of.name},{names},{answer.seconds:.3f}\n")
    write_text(jobs[0].results.parent / TASKS, "phase,of,variants,seconds\n" + "".join(spent))


def _in_phases(
    orders: Sequence[Order], jobs: Mapping[Variant, _Job], dataset: Dataset
) -> Iterator[List[Tuple[Any, ...]]]:
    """Tasks, the costly ones first: those that need no calibration from the benchmark, beside
    making it; then the others."""
    digests = {
        video.name: dataset_digest(replace(dataset, sequences=(video,))) for video in dataset
    }

    def tasks(chosen: Sequence[Order]) -> List[Tuple[Any, ...]]:
        wanted = [
            (order, video, tuple(one for one in order.variants if video in jobs[one].missing))
            for order in sorted(chosen, key=lambda order: -_cost(order.variants[0]))
            for video in dataset
        ]
        return [
            (track, order, video, digests[video.name], ones)
            for order, video, ones in wanted
            if ones
        ]

    later = [order for order in orders if order.ways]
    makers = {order.variants[0].weights: (calibrate, order, dataset) for order in later}
    yield [*makers.values(), *tasks([order for order in orders if not order.ways])]
    yield tasks(later)


def _orders(jobs: Sequence[_Job], contents: str, protocol: Protocol, alone: bool) -> List[Order]:
    ways = _ways(jobs)
    return [
        Order(
            tuple(job.variant for job in group),
            contents,
            protocol,
            tuple(group[0].parts.items()),
            tuple(sorted(ways[group[0].variant.weights]))
            if any(_on_benchmark(job.variant) for job in group)
            else (),
            alone,
        )
        for group in _groups(jobs, alone)
    ]


def _groups(jobs: Sequence[_Job], alone: bool) -> List[List[_Job]]:
    """Variants that share a search engine together; each apart where passes are timed."""
    groups: Dict[Any, List[_Job]] = {}
    for job in jobs:
        one = job.variant
        how = one.quantisation if one.search == "int8" else None
        engine = one if alone else (one.weights, one.framework, one.search, how)
        groups.setdefault(engine, []).append(job)
    return list(groups.values())


def _ways(jobs: Sequence[_Job]) -> Dict[str, set]:
    """Weights -> how the calibrations from the benchmark that these jobs need are put together."""
    ways: Dict[str, set] = {}
    for job in jobs:
        if job.missing and _on_benchmark(job.variant):
            feeds = RECIPES[job.variant.quantisation.recipe].feeds
            ways.setdefault(job.variant.weights, set()).add(feeds)
    return ways


def _on_benchmark(variant: Variant) -> bool:
    return "int8" in variant.precisions.values() and variant.quantisation.calibration == "benchmark"


class _Job:
    """One variant's measurement: what the run has of it, what is missing, and the result."""

    def __init__(
        self,
        variant: Variant,
        dataset: Dataset,
        run: str,
        contents: str,
        protocol: Protocol,
        alone: bool,
    ) -> None:
        self.variant, self.dataset, self.run, self.protocol = variant, dataset, run, protocol
        self.results = run_folder(run) / dataset.name / variant.name
        self.parts = decided_by(variant, contents, protocol, alone)
        self.record = read_json(self.results / MEASURED)
        self.fresh = self.record.get("decided_by") == self.parts
        self.known = _read_whole(self.results, dataset) if self.fresh else {}
        self.missing = [video for video in dataset if video.name not in self.known]

    def write(
        self,
        video: Video,
        tracked: Tracked,
        about: str,
        machine: Mapping[str, Any],
        sampler: power.Sampler,
    ) -> None:
        """Keep what a worker answered. The raw file comes last: where it is, the sequence is
        measured."""
        if not self.fresh:
            self._clear({"power": about, "environment": dict(machine), **tracked.about})
        path = result_path(self.results, video.name)
        if sampler.sensor is not None:
            power.write_log(_power_path(path), sampler.log.cut(*tracked.span))
        lines = (
            ",".join([str(index), *(f"{value:.4f}" for value in box)])
            for index, box in tracked.lost.items()
        )
        write_text(_lost_path(path), "".join(line + "\n" for line in lines))
        write_trajectory(path, tracked.trajectory)
        self.known[video.name] = read_trajectory(path)

    def _clear(self, about: Mapping[str, Any]) -> None:
        """Remove what is stale and write down what decides the new results; killed in between, it
        is stale again."""
        before = self.record.get("decided_by", {})
        if before:
            changed = ", ".join(name for name in self.parts if before.get(name) != self.parts[name])
            where = f"{self.results.name} on {self.results.parent.name}"
            print(f"{where} is measured again: {changed} changed", file=sys.stderr)
        with contextlib.suppress(FileNotFoundError):
            (self.results / MEASURED).unlink()
        shutil.rmtree(self.results, ignore_errors=True)
        self.record = {"decided_by": self.parts, **about}
        write_text(self.results / MEASURED, to_json(self.record))
        runs.write_environment(self.run, self.record["environment"])
        self.fresh = True

    def result(self) -> Measurement:
        return _load(self.variant, self.dataset, self.run, self.known, self.record, self.protocol)


def _read_whole(results: Path, dataset: Dataset) -> Dict[str, Trajectory]:
    """The raw results that are there and whole, by sequence; a damaged one is named and left
    out."""
    known = {}
    for video in dataset:
        path = result_path(results, video.name)
        if path.is_file():
            try:
                known[video.name] = read_trajectory(path)
                if len(known[video.name]) != len(video):
                    raise InputError(
                        f"{path}: {len(known.pop(video.name))} lines for {len(video)} frames"
                    )
            except InputError as error:
                print(f"{error} This sequence is measured again.", file=sys.stderr)
    return known


def _load(
    variant: Variant,
    dataset: Dataset,
    run: str,
    known: Mapping[str, Trajectory],
    record: Mapping[str, Any],
    protocol: Protocol,
    recorded: bool = False,
) -> Measurement:
    results = run_folder(run) / dataset.name / variant.name
    trajectories = {video.name: known[video.name] for video in dataset}
    paths = {name: result_path(results, name) for name in trajectories}
    evaluation = evaluate(dataset, {name: [one] for name, one in trajectories.items()}, protocol)
    logs = [(_power_path(path), frames_tracked(trajectories[name])) for name, path in paths.items()]
    parts = [(power.read_log(path), frames) for path, frames in logs if path.is_file()]
    drawn = power.measure_parts(parts, frames_per_second(trajectories.values()))
    return Measurement(
        variant,
        dataset,
        run,
        results,
        record["parameters"],
        record["environment"],
        record["engines"],
        trajectories,
        {name: _read_lost(path) for name, path in paths.items()},
        evaluation,
        drawn,
        record.get("power", ""),
        recorded,
    )


def _recorded(variant: Variant, dataset: Dataset, run: str, protocol: Protocol) -> Any:
    """A variant of a recorded run as the run has it, whatever is on this machine; an `Absent` where
    the run lacks it."""
    results = run_folder(run) / dataset.name / variant.name
    record, known = read_json(results / MEASURED), _read_whole(results, dataset)
    lacking = len(dataset) - len(known)
    what = ""
    if not record or not known:
        what = f"{variant.title} on {dataset.name} ({variant.name})"
    elif lacking:
        what = f"{lacking} of {len(dataset)} sequences of {dataset.name} with {variant.title}"
    elif record.get("decided_by", {}).get("protocol") != resets_by(protocol):
        what = f"{variant.title} on {dataset.name} by this protocol"
    if what:
        return absent(what, run, variant=variant)
    return _load(variant, dataset, run, known, record, protocol, recorded=True)


def _lost_path(path: Path) -> Path:
    return path.with_name(f"{path.stem}_lost.csv")


def _power_path(path: Path) -> Path:
    return path.with_name(f"{path.stem}_power.json")


def _read_lost(path: Path) -> Dict[int, np.ndarray]:
    rows = read_numbers(_lost_path(path)) if _lost_path(path).is_file() else []
    return {int(row[0]): np.array(row[1:]) for row in rows}
