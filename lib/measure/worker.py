"""Workers of a quality measurement: where they run, and what they do (section 3.3).

A task tracks a sequence with variants that share a search engine, or makes a calibration. Tasks run
in processes of this machine, on a Dask cluster, or in this process. Each computes on one thread, so
its digits do not depend on the number of cores; two processes of one thread are also faster than
one of two.
"""

from __future__ import annotations

import os
import signal
import socket
import threading
import time
from concurrent.futures import FIRST_COMPLETED, CancelledError, Executor, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import lru_cache
from math import prod
from multiprocessing import get_context, parent_process
from pathlib import Path
from typing import Any, Callable, Iterator, Mapping, NamedTuple, Sequence, Tuple

import numpy as np

from lib import environment
from lib.engines.calibration import (
    Ranges,
    calibrate_ways,
    read_ranges,
    thesis_pairs,
    training_ranges,
    write_ranges,
)
from lib.engines.deploy import RECIPES, Deployment, Quantisation
from lib.engines.zoo import weights_path
from lib.environment import device
from lib.errors import InputError
from lib.files import ROOT, digest
from lib.measure.keys import CODE, dataset_digest, decided_by, sequence_digest, settings
from lib.measure.variants import Variant
from lib.siamrpn.checkpoint import load_network
from lib.siamrpn.contract import Engine, EngineNetwork
from lib.siamrpn.parts import NETWORKS
from lib.siamrpn.tracker import SiamRPNTracker
from lib.vot.dataset import Dataset, Video, axis_aligned_box
from lib.vot.protocol import FAILURE, Protocol, Trajectory, run_reset_based

CONNECT_SECONDS = 5.0
WORKER_SECONDS = 30.0  # without any worker
KEPT = "what was finished is kept, and the same command goes on"
CALIBRATIONS = ROOT / "data" / "cache" / "calibration"
MEMORY_BYTES = 2**30  # of a sequence's decoded frames, and of what a search engine remembers

Task = Tuple[Any, ...]  # a function and its arguments


# -- Where tasks run -------------------------------------------------------------------------------


class Serial:
    """This process, one task after the other."""

    def answers(self, tasks: Sequence[Task]) -> Iterator[tuple[Task, Any]]:
        for function, *arguments in tasks:
            yield (function, *arguments), function(*arguments)


class Pool:
    """Workers behind an executor. still_there: called when nothing was answered for a while."""

    def __init__(self, executor: Executor, still_there: Callable[[], Any] = lambda: None) -> None:
        self.executor, self.still_there = executor, still_there

    def answers(self, tasks: Sequence[Task]) -> Iterator[tuple[Task, Any]]:
        """Every task's answer as it comes. Raises InputError where a task or its worker fails."""
        pending = {self.executor.submit(*task): task for task in tasks}
        while pending:
            done, _ = wait(pending, timeout=WORKER_SECONDS, return_when=FIRST_COMPLETED)
            if not done:
                self.still_there()
            # What was finished comes first, and so is kept, whatever else failed.
            for future in sorted(done, key=lambda one: one.cancelled() or bool(one.exception())):
                yield pending.pop(future), _answer(future)


def _answer(future: Any) -> Any:
    try:
        return future.result()
    except Exception as error:
        if isinstance(error, BrokenProcessPool):
            fault = "a worker process ended (often for lack of memory)"
        elif isinstance(error, CancelledError):
            fault = "the scheduler went away"
        elif isinstance(error, InputError):
            fault = str(error)
        else:
            fault = f"a worker failed ({type(error).__name__}) {' '.join(str(error).split())}"
        raise InputError(f"{fault}; {KEPT}") from error


def is_alone(scheduler: str) -> bool:
    """Whether tasks run in this process, one after the other, and so are timed: on a GPU."""
    return device() != "cpu" and not scheduler


@contextmanager
def open_executor(scheduler: str = "", workers: int = 0) -> Iterator[Any]:
    """Where tasks run. scheduler: "" (processes; on a GPU this process), "local" (processes) or
    tcp://HOST:PORT. workers: processes, one per core unless given.

    Raises InputError where no scheduler answers or the package is missing.
    """
    if scheduler not in ("", "local"):
        with _connected(scheduler) as client:
            _check_workers(client)
            yield Pool(client.get_executor(pure=False), lambda: _wait_for_worker(client))
    elif is_alone(scheduler):
        yield Serial()
    else:
        count = workers or environment.cores() or 1
        executor = ProcessPoolExecutor(count, get_context("spawn"), _start_worker, (os.getpid(),))
        try:
            yield Pool(executor)
            executor.shutdown()
        finally:  # after a fault nobody waits for tasks that are still running
            for process in list((getattr(executor, "_processes", None) or {}).values()):
                process.kill()
            executor.shutdown(wait=False)


def _start_worker(parent: int) -> None:
    """A worker ends with the process that started it, and leaves Ctrl-C to it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()


def _end_with(parent: int) -> None:
    process = parent_process()
    if process is not None and process.pid == parent:
        process.join()
    os._exit(1)


@contextmanager
def _connected(scheduler: str) -> Iterator[Any]:
    """A Dask client of the scheduler."""
    try:
        import distributed
    except ImportError:
        raise InputError("a cluster needs distributed: pip install -e '.[cluster]'") from None
    host, _, port = scheduler.partition("://")[2].rpartition(":")
    try:
        with socket.create_connection((host.strip("[]"), int(port)), CONNECT_SECONDS) as probe:
            # Schedulers speak first; a client would wait for ever for one that does not
            probe.recv(1)
        client = distributed.Client(scheduler, timeout=CONNECT_SECONDS)
    except Exception as error:  # what is no scheduler may answer anything
        reason = " ".join(str(error).split()) or type(error).__name__
        raise InputError(
            f"no Dask scheduler answers at '{scheduler}' ({reason}); `dask scheduler` starts one at "
            "tcp://HOST:PORT"
        ) from None
    with client:
        yield client


def _wait_for_worker(client: Any) -> None:
    try:
        client.wait_for_workers(1, timeout=WORKER_SECONDS)
    # distributed's TimeoutError has moved between versions, and a dead scheduler raises others.
    except Exception:
        raise InputError(
            f"the scheduler has had no worker for {WORKER_SECONDS:.0f} s; "
            f"`dask worker ADDRESS --nthreads 1` starts one; {KEPT}"
        ) from None


def _check_workers(client: Any) -> None:
    _wait_for_worker(client)
    for worker, error in client.run(one_thread, on_error="return").items():
        if error is not None and not isinstance(error, OSError):  # of a worker that was just lost
            raise InputError(
                f"worker {worker} cannot run this repository's code ({error}); start it in {ROOT} "
                "in the same environment"
            )


# -- What a worker does ----------------------------------------------------------------------------


@dataclass(frozen=True)
class Order:
    """Variants with the same weights and search engine, and all that decides their results.

    contents: `dataset_digest`. decided: `decided_by` of the first variant. ways: the calibrations
    from the benchmark that the weights need (`calibration.XCORR_FEEDS`); () where these variants
    need none. alone: the pass is serial and timed.
    """

    variants: tuple[Variant, ...]
    contents: str
    protocol: Protocol
    decided: tuple[tuple[str, str], ...]
    ways: tuple[str, ...]
    alone: bool


class Tracked(NamedTuple):
    """A worker's answer: the trajectory, frame -> lost box at a failure, about the engines, and its
    begin and end (monotonic)."""

    trajectory: Trajectory
    lost: dict[int, np.ndarray]
    about: dict[str, Any]
    span: tuple[float, float]


# A tracker follows one target at a time, however many threads a worker has.
_ALONE = threading.Lock()


def one_thread() -> None:
    """Let PyTorch and the compiled engines, which follow it, and OpenCV compute on one thread."""
    import cv2
    import torch

    torch.set_num_threads(1)
    cv2.setNumThreads(1)


def check(order: Order) -> None:
    """Raises InputError where this worker would not do what the process that ordered does."""
    own = decided_by(order.variants[0], order.contents, order.protocol, order.alone)
    differing = [
        f"{name} ({own[name]} there, {value} here)"
        for name, value in order.decided
        if own[name] != value
    ]
    if differing:
        raise InputError(
            f"results of the worker on {socket.gethostname()} could differ, as this does: "
            f"{' '.join(', '.join(differing).split())}; start it in {ROOT} where all is the same"
        )


def track(
    order: Order, video: Video, contents: str, wanted: Sequence[Variant]
) -> dict[Variant, Tracked]:
    """Track a sequence with variants of an order. contents: its `sequence_digest`."""
    with _ALONE:
        if not order.alone:
            one_thread()
        if sequence_digest(video) != contents:
            raise InputError(f"the frames or boxes of '{video.name}' are others on the worker")
        trackers = _trackers(order)
        trackers.known.clear()  # another sequence has other crops
        frames = _in_memory(video) if len(wanted) > 1 else video
        if order.alone:  # a first call allocates and chooses algorithms
            first = trackers.by_variant[wanted[0]]
            first.init(frames.frame(0), axis_aligned_box(video.regions[0]))
            first.track(frames.frame(0))
        return {one: _track(one, trackers, frames, order) for one in wanted}


def _in_memory(video: Video) -> Video:
    """The sequence with frames that are decoded once, unless they take more than a gigabyte."""
    if 3 * video.width * video.height * len(video) > MEMORY_BYTES:
        return video
    copy = replace(video)
    object.__setattr__(copy, "frame", lru_cache(None)(video.frame))  # the dataclass is frozen
    return copy


def _track(one: Variant, trackers: Trackers, video: Video, order: Order) -> Tracked:
    lost: dict[int, np.ndarray] = {}

    def on_frame(index: int, frame: Any, entry: np.ndarray, box: Any) -> None:
        if len(entry) == 1 and entry[0] == FAILURE:
            lost[index] = box

    begin = time.monotonic()
    trajectory = run_reset_based(trackers.by_variant[one], video, order.protocol, on_frame)
    if not order.alone:  # what else ran decided the times
        trajectory = Trajectory(trajectory.entries, np.full(len(video), np.nan))
    return Tracked(trajectory, lost, trackers.about[one], (begin, time.monotonic()))


class Trackers(NamedTuple):
    """Of an order, by variant: trackers, and what is worth knowing of their engines. known: what
    their search engine remembers."""

    by_variant: dict[Variant, SiamRPNTracker]
    about: dict[Variant, dict[str, Any]]
    known: dict[bytes, dict[str, Any]]


@lru_cache(maxsize=1)
def _trackers(order: Order) -> Trackers:
    """The order's trackers, kept for the next sequences."""
    if not order.alone:
        check(order)
    deployment = _deployment(order)
    found = Trackers({}, {}, {})
    for one in order.variants:
        network = deployment.network(one.precisions, one.quantisation)
        engines = {name: _about_engine(engine) for name, engine in network.engines.items()}
        found.about[one] = {"parameters": deployment.parameters, "engines": engines}
        if len(order.variants) > 1:
            search = Remembering(network.search, found.known)
            network = EngineNetwork({**network.engines, "search": search})
        found.by_variant[one] = SiamRPNTracker(network, settings(one))
    return found


def _deployment(order: Order) -> Deployment:
    weights = weights_path(order.variants[0].weights, ROOT)

    def ranges(quantisation: Quantisation) -> Ranges:
        if quantisation.calibration == "benchmark":
            path, origin = _calibration(order, weights, RECIPES[quantisation.recipe].feeds)
            return read_ranges(path, origin)
        return training_ranges(weights)

    return Deployment(load_network(weights), order.variants[0].framework, device(), ranges=ranges)


def _about_engine(engine: Engine) -> dict[str, Any]:
    names = ("framework", "device", "precision", "plan_bytes", "build_seconds")
    return {"executed": engine.executed(), **{name: getattr(engine, name) for name in names}}


class Remembering:
    """A search engine that computes each crop once (the `Engine` contract). known: answers by crop.

    Mixtures of precisions ask the same search engine about the same crop while their boxes round to
    the same pixels. The answer is the same, bit for bit.
    """

    def __init__(self, engine: Engine, known: dict[bytes, dict[str, Any]]) -> None:
        self.engine, self.known = engine, known
        shapes = (*engine.inputs.values(), *engine.outputs.values())
        self.most = MEMORY_BYTES // sum(4 * prod(shape) for shape in shapes)

    def __call__(self, feeds: Mapping[str, Any]) -> dict[str, Any]:
        crop = feeds["search"].tobytes()
        if crop in self.known:
            return self.known[crop]
        answer = self.engine(feeds)
        if len(self.known) < self.most:
            self.known[crop] = answer = self.engine.keep(answer)
        return answer

    def __getattr__(self, name: str) -> Any:
        return getattr(self.engine, name)


# -- Calibration from the benchmark (section 4.2) --------------------------------------------------


def requested_frames(dataset: Dataset) -> int:
    """How many frames to calibrate on: 1,000 of VOT2018's 21,356, as in the thesis; the same share
    of every sequence of a smaller benchmark, and at least 96 in all."""
    total = sum(map(len, dataset))
    return min(1000, max(1, total * len(dataset) // 96))


def _calibration(order: Order, weights: Path, way: str) -> tuple[Path, str]:
    """Where ranges from the benchmark are kept, and what they are made from."""
    origin = f"{digest(weights.read_bytes())} on {order.contents}, {way}, {CODE}"
    return CALIBRATIONS / f"{digest(origin.encode())}.csv", origin


def calibrate(order: Order, dataset: Dataset) -> dict[Variant, Tracked]:
    """Write the order's ranges from the tested frames, where they are missing; tracks nothing."""
    with _ALONE:
        one_thread()
        if not order.alone:
            check(order)
        weights = weights_path(order.variants[0].weights, ROOT)
        kept = {way: _calibration(order, weights, way) for way in order.ways}
        missing = [way for way, (path, _) in kept.items() if not path.is_file()]
        if not missing:
            return {}
        if dataset_digest(dataset) != order.contents:  # what is kept must be what its name says
            raise InputError(f"the frames or boxes of '{dataset.name}' are others on the worker")
        deployment = Deployment(load_network(weights), "openvino", cache=None)
        models = {name: deployment.model(name, "fp32") for name in NETWORKS}
        pairs = thesis_pairs(dataset, requested_frames(dataset))
        source = f"{len(pairs)} frames of {dataset.name}, as in section 4.2"
        for way, ranges in calibrate_ways(models, pairs, missing).items():
            path, origin = kept[way]
            write_ranges(
                path, ranges, source if way == "own" else f"{source}, xcorr: {way}", origin
            )
        return {}
