"""Quality: the boxes of variants under the reset-based protocol, measured once and kept in a run
(chapter 4).

Boxes do not depend on what else the machine does. So a task is one sequence with variants that
share a search engine, each task computes on one thread, and as many run at once as there are cores
(`lib.measure.worker`). This process alone writes in data/runs/<run>:

    environment.json                     machine, versions and commit of the last measurement
    <dataset>/<dataset>.json             the annotations: the run can be evaluated anywhere
    <dataset>/<variant>/measured.json    all that decided the results below
    .../baseline/<sequence>/             of a variant, by sequence:
        <sequence>_001.txt               the VOT toolkit's raw file
        <sequence>_001_lost.csv          where the tracker was at each failure
        <sequence>_001_time.value, _001_power.json
                                         where the pass was serial and alone (a GPU)

A sequence counts as measured when its raw file is there, whole. So a measurement that was killed
goes on, and a damaged file is measured again. Where measured.json names something else than what
would decide a result now, the variant is measured again. A run of another machine is read only
(`lib.measure.runs`): in place of what it lacks there is a `runs.Lacking`.
"""

from __future__ import annotations

import shutil
import sys
import time
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import Any, Mapping, Sequence, Tuple

import numpy as np

from lib import environment
from lib.engines.deploy import RECIPES, framework_module
from lib.engines.zoo import DEMO, weights_path
from lib.environment import device
from lib.errors import InputError
from lib.files import ROOT, locked, write_text
from lib.measure import power, runs
from lib.measure.keys import dataset_digest, decided_by, resets_by, sequence_digest
from lib.measure.measurement import Measurement, frames_tracked
from lib.measure.runs import is_recorded, read_json, run_folder, to_json
from lib.measure.variants import MEASURED, Variant
from lib.measure.worker import Order, Tracked, calibrate, is_alone, open_executor, track
from lib.progress import progress
from lib.vot.dataset import Dataset, Video, read_numbers
from lib.vot.metrics import evaluate
from lib.vot.protocol import PYSOT, Protocol, Trajectory, frames_per_second
from lib.vot.results import read_trajectory, result_path, write_trajectory

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
) -> list[Any]:
    """Measure every variant on the dataset, or load what the run has measured already: a
    `Measurement` each, in the order given.

    scheduler, workers: where (`worker.open_executor`). shown: a progress bar, or bar: one to count
    on (units of `work`). One process measures in a run at a time; another one says that it waits,
    and then loads. Raises InputError before anything of the run is touched where weights, settings
    or frames are missing; later where a worker fails, and what was finished by then is kept. In place of
    what a recorded run lacks there is a `runs.Lacking`.
    """
    if is_recorded(run, device()):
        return [_recorded(variant, dataset, run, protocol) for variant in variants]
    busy = f"run {Path(run).name}: another process is measuring into it; waiting for it to end"
    with locked(run_folder(run) / runs.LOCK, waiting=busy):
        jobs, tasks = _plan(variants, dataset, run, protocol, scheduler)
        if tasks:
            share = 1 / _parallel(scheduler, workers)
            what = f"{len(variants)} variants on {dataset.name}"
            own = progress(share * _work(tasks), what, shown) if bar is None else nullcontext(bar)
            with own as counted, open_executor(scheduler, workers) as pool:
                _measure(_phases(tasks, dataset), jobs, pool, counted, share)
        runs.keep_annotations(run, dataset)
        return [jobs[variant].result(protocol) for variant in variants]


def work(
    variants: Sequence[Variant], dataset: Dataset, run: str, scheduler: str = "", workers: int = 0
) -> float:
    """How long `measure` would take, in frames of the demo tracker in PyTorch FP32; 0 where the run
    has everything."""
    if is_recorded(run, device()):
        return 0.0
    _, tasks = _plan(variants, dataset, run, PYSOT, scheduler)
    return _work(tasks) / _parallel(scheduler, workers)


# An order, a sequence, and the variants of the order that lack it
Task = Tuple[Order, Video, Tuple[Variant, ...]]


def _plan(
    variants: Sequence[Variant], dataset: Dataset, run: str, protocol: Protocol, scheduler: str
) -> tuple[dict[Variant, _Job], list[Task]]:
    """What the run has of the variants, and tasks for what it lacks, the costly ones first.

    Variants that share a search engine are together; each is apart where passes are timed.
    """
    contents, alone = dataset_digest(dataset), is_alone(scheduler)
    jobs = {
        one: _Job(one, dataset, run, decided_by(one, contents, protocol, alone)) for one in variants
    }
    groups: dict[Any, list[Variant]] = {}
    ways: dict[str, set[str]] = {}  # of the calibrations from the benchmark, by weights
    for one in [one for one, job in jobs.items() if job.missing]:
        how = one.quantisation if one.search == "int8" else None
        engine = one if alone else (one.weights, one.framework, one.search, how)
        groups.setdefault(engine, []).append(one)
        if _on_benchmark(one):
            ways.setdefault(one.weights, set()).add(RECIPES[one.quantisation.recipe].feeds)
    tasks = []
    for group in sorted(groups.values(), key=lambda group: -_cost(group[:1])):
        needed = ways[group[0].weights] if any(map(_on_benchmark, group)) else ()
        decided = tuple(jobs[group[0]].decided.items())
        order = Order(tuple(group), contents, protocol, decided, tuple(sorted(needed)), alone)
        lacking = [
            (video, [x for x in group if video.name in jobs[x].missing]) for video in dataset
        ]
        tasks += [(order, video, tuple(ones)) for video, ones in lacking if ones]
    return jobs, tasks


def _on_benchmark(variant: Variant) -> bool:
    return "int8" in variant.precisions.values() and variant.quantisation.calibration == "benchmark"


def _parallel(scheduler: str, workers: int) -> int:
    """How many tasks run at once, as far as is known beforehand."""
    return 1 if is_alone(scheduler) else workers or environment.cores() or 1


def _work(tasks: Sequence[Task]) -> float:
    calibrated = {order.variants[0].weights for order, _, _ in tasks if order.ways}
    tracked = sum(_cost(ones) * len(video) for _, video, ones in tasks)
    return tracked + CALIBRATING * len(calibrated)


def _cost(variants: Sequence[Variant]) -> float:
    """Of a frame with variants that share a search engine, beside the demo network in PyTorch
    FP32."""
    one = variants[0]
    size = weights_path(one.weights, ROOT).stat().st_size / weights_path(DEMO).stat().st_size
    cost = 1.0 if one.framework == "pytorch" else COST[one.search]
    if (one.framework, one.search) == ("openvino", "fp16"):
        hint = framework_module("openvino").hint("fp16")
        cost = COST["fp32" if hint == "f32" else "fp16"]
    return size * cost * (1 + ADDED * (len(variants) - 1))


def _measure(
    phases: Sequence[Sequence[Any]], jobs: Mapping[Variant, _Job], pool: Any, bar: Any, share: float
) -> None:
    """Have every call done by some worker, and write its answer as it comes."""
    alone = next(order.alone for phase in phases for _, order, *_ in phase)
    sensor, told = power.find_sensor(device()) if alone else (None, NOT_ALONE)
    about = {"power": told, "environment": environment.record(device())}
    with power.Sampler(sensor, power.PERIOD) as sampler:
        if sensor is not None:
            with sampler.phase("idle"):
                time.sleep(power.IDLE_SECONDS)
        for calls in phases:
            for (_, order, of, *_), answer in pool.answers(calls):
                for variant, tracked in answer.items():
                    log = sampler.log.cut(*tracked.span) if sensor else None
                    jobs[variant].write(of, tracked, about, log)
                bar.update(share * (_cost(list(answer)) * len(of) if answer else CALIBRATING))
                bar.set_description(f"quality: {order.variants[0].title}", refresh=False)


def _phases(tasks: Sequence[Task], dataset: Dataset) -> tuple[list[Any], list[Any]]:
    """Calls of workers: those that need no calibration from the benchmark, beside making it; then
    the others."""
    for video in {video.name: video for _, video, _ in tasks}.values():
        video.frame(0)  # a frame that cannot be read is a fault now, not after an hour
    digests = {video.name: sequence_digest(video) for video in dataset}
    calls = [(track, order, video, digests[video.name], ones) for order, video, ones in tasks]
    later = [call for call in calls if call[1].ways]
    makers = {order.variants[0].weights: (calibrate, order, dataset) for _, order, *_ in later}
    return [*makers.values(), *(call for call in calls if not call[1].ways)], later


class _Job:
    """One variant on a dataset: what the run has of it, and what is missing.

    decided: `decided_by`; of a recorded run None, and its results are taken as they are.
    """

    def __init__(
        self, variant: Variant, dataset: Dataset, run: str, decided: Mapping[str, str] | None
    ) -> None:
        self.variant, self.dataset, self.run, self.decided = variant, dataset, run, decided or {}
        self.results = run_folder(run) / dataset.name / variant.name
        self.record = read_json(self.results / MEASURED)
        self.fresh = decided is None or self.record.get("decided_by") == decided
        self.known: dict[str, Trajectory] = {}
        if self.fresh:
            self._read()

    @property
    def missing(self) -> list[str]:
        return [video.name for video in self.dataset if video.name not in self.known]

    def _read(self) -> None:
        """Read the raw results that are there and whole; a damaged one is named and left out."""
        for video in self.dataset:
            path = result_path(self.results, video.name)
            try:
                if path.is_file():
                    trajectory = read_trajectory(path)
                    if len(trajectory) != len(video):
                        raise InputError(f"{path}: {len(trajectory)} lines for {len(video)} frames")
                    self.known[video.name] = trajectory
            except InputError as error:
                print(f"{error} This sequence is measured again.", file=sys.stderr)

    def write(
        self, video: Video, tracked: Tracked, about: Mapping[str, Any], log: power.Log | None
    ) -> None:
        """Keep what a worker answered. The raw file comes last: where it is, the sequence is
        measured."""
        if not self.fresh:
            self._clear({**about, **tracked.about})
        path = result_path(self.results, video.name)
        if log is not None:
            power.write_log(_beside(path, "power.json"), log)
        lines = (
            ",".join([str(index), *(f"{value:.4f}" for value in box)])
            for index, box in tracked.lost.items()
        )
        write_text(_beside(path, "lost.csv"), "".join(line + "\n" for line in lines))
        write_trajectory(path, tracked.trajectory)
        self.known[video.name] = read_trajectory(path)

    def _clear(self, about: Mapping[str, Any]) -> None:
        """Remove what is stale and write down what decides the new results; killed in between, it
        is stale again."""
        before = self.record.get("decided_by", {})
        if before:
            changed = [name for name, own in self.decided.items() if before.get(name) != own]
            where = f"{self.results.name} on {self.results.parent.name}"
            print(f"{where} is measured again: {', '.join(changed)} changed", file=sys.stderr)
        with suppress(FileNotFoundError):
            (self.results / MEASURED).unlink()
        shutil.rmtree(self.results, ignore_errors=True)
        self.record = {"decided_by": self.decided, **about}
        write_text(self.results / MEASURED, to_json(self.record))
        runs.write_environment(self.run, self.record["environment"])
        self.fresh = True

    def result(self, protocol: Protocol, recorded: bool = False) -> Measurement:
        trajectories = {video.name: self.known[video.name] for video in self.dataset}
        paths = {name: result_path(self.results, name) for name in trajectories}
        logs = [
            (power.read_log(_beside(path, "power.json")), frames_tracked(trajectories[name]))
            for name, path in paths.items()
            if _beside(path, "power.json").is_file()
        ]
        return Measurement(
            variant=self.variant,
            dataset=self.dataset,
            run=self.run,
            results=self.results,
            parameters=self.record["parameters"],
            environment=self.record["environment"],
            engines=self.record["engines"],
            trajectories=trajectories,
            lost={name: _read_lost(path) for name, path in paths.items()},
            evaluation=evaluate(
                self.dataset, {name: [one] for name, one in trajectories.items()}, protocol
            ),
            power=power.measure_parts(logs, frames_per_second(trajectories.values())),
            recorded=recorded,
        )


def _recorded(variant: Variant, dataset: Dataset, run: str, protocol: Protocol) -> Any:
    """A variant of a recorded run as the run has it, whatever is on this machine; `Lacking` where the
    run lacks it."""
    job, what = _Job(variant, dataset, run, None), f"{variant.title} on {dataset.name}"
    if not job.record or not job.known:
        what += f" ({variant.name})"
    elif job.missing:
        gone = f"{len(job.missing)} of {len(dataset)} sequences"
        what = f"{gone} of {dataset.name} with {variant.title}"
    elif job.record.get("decided_by", {}).get("protocol") != resets_by(protocol):
        what += " by this protocol"
    else:
        return job.result(protocol, recorded=True)
    return runs.Lacking(what, run, variant=variant, speed={}, whose="recorded")


def _beside(path: Path, what: str) -> Path:
    return path.with_name(f"{path.stem}_{what}")


def _read_lost(path: Path) -> dict[int, np.ndarray]:
    lost = _beside(path, "lost.csv")
    rows = read_numbers(lost) if lost.is_file() else []
    return {int(row[0]): np.array(row[1:]) for row in rows}
