"""What a worker does: track a sequence with variants that share a search engine, or make the
calibration that they need."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field
from functools import lru_cache
from math import prod
from pathlib import Path
from typing import Any, ClassVar, Dict, List, Mapping, NamedTuple, Optional, Sequence, Tuple

import numpy as np

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
from lib.measure.executors import one_thread
from lib.measure.keys import CODE, dataset_digest, decided_by, settings
from lib.measure.variants import Variant
from lib.siamrpn.checkpoint import load_network
from lib.siamrpn.contract import Engine, EngineNetwork
from lib.siamrpn.parts import NETWORKS
from lib.siamrpn.tracker import SiamRPNTracker
from lib.vot.dataset import Dataset, axis_aligned_box
from lib.vot.dataset import Sequence as Video
from lib.vot.protocol import FAILURE, Protocol, Trajectory, run_reset_based

CALIBRATIONS = ROOT / "data" / "cache" / "calibration"
IN_MEMORY_BYTES = 2**30  # of decoded frames, of one sequence
REMEMBERED_BYTES = 2**30  # of crops and answers of a search engine, of one sequence


@dataclass(frozen=True)
class Order:
    """What workers are told: variants with the same weights and search engine, and all that decides
    the first one's results.

    ways: how the xcorr network's calibrations from the benchmark are put together
    (`calibration.XCORR_FEEDS`); () for none. alone: the pass is serial and timed. contents:
    `dataset_digest` of the whole dataset.
    """

    variants: Tuple[Variant, ...]
    contents: str
    protocol: Protocol
    decided: Tuple[Tuple[str, str], ...]
    ways: Tuple[str, ...]
    alone: bool


class Tracked(NamedTuple):
    """A worker's answer: the trajectory, frame -> lost box at a failure, about the engines, and its
    begin and end (monotonic)."""

    trajectory: Trajectory
    lost: Dict[int, np.ndarray]
    about: Dict[str, Any]
    span: Tuple[float, float]


class Answer(NamedTuple):
    """Of a task: what was tracked, by variant, and how long that took."""

    tracked: Dict[Variant, Tracked]
    seconds: float


# A tracker follows one target at a time, however many threads a worker has.
_ALONE = threading.Lock()


def check(orders: Sequence[Order]) -> None:
    """Raises InputError where this process would not do what the one that ordered does."""
    for order in orders:
        own, theirs = (
            decided_by(order.variants[0], order.contents, order.protocol, order.alone),
            dict(order.decided),
        )
        differing = [name for name in theirs if own.get(name) != theirs[name]]
        if differing:
            told = ", ".join(
                f"{name} ({own.get(name)} there, {theirs[name]} here)" for name in differing
            )
            raise InputError(
                f"results could differ, as this does: {' '.join(told.split())}; start it where all is the same"
            )


def track(order: Order, video: Video, contents: str, wanted: Sequence[Variant]) -> Answer:
    """Track a sequence with variants of an order. contents: `dataset_digest` of the sequence
    alone."""
    begin = time.perf_counter()
    with _ALONE:
        if not order.alone:
            one_thread()
        if dataset_digest(Dataset(video.name, Path(), (video,))) != contents:
            raise InputError(f"the frames or boxes of '{video.name}' are others on the worker")
        try:
            trackers, about = _trackers(order)
            frames = _in_memory(video) if len(wanted) > 1 else video
            if order.alone:
                warm_up(trackers[wanted[0]], video)
            tracked = {one: _track(trackers[one], frames, order, about[one]) for one in wanted}
            return Answer(tracked, time.perf_counter() - begin)
        except InputError:
            raise
        except Exception as error:
            who = f"sequence '{video.name}' with {order.variants[0].title}"
            raise InputError(f"{who} failed ({type(error).__name__}: {error})") from error
        finally:
            _forget()


def _track(tracker: SiamRPNTracker, video: Video, order: Order, about: Dict[str, Any]) -> Tracked:
    lost: Dict[int, np.ndarray] = {}

    def on_frame(
        index: int, frame: np.ndarray, entry: np.ndarray, box: Optional[np.ndarray]
    ) -> None:
        if len(entry) == 1 and entry[0] == FAILURE and box is not None:
            lost[index] = box

    begin = time.monotonic()
    trajectory = run_reset_based(tracker, video, order.protocol, on_frame)
    if not order.alone:  # what else ran decided the times
        trajectory = Trajectory(trajectory.entries, np.full(len(video), np.nan))
    return Tracked(trajectory, lost, about, (begin, time.monotonic()))


def warm_up(tracker: SiamRPNTracker, video: Video) -> None:
    """A first call allocates and chooses algorithms; it says nothing about speed."""
    frame = video.frame(0)
    tracker.init(frame, axis_aligned_box(video.regions[0]))
    tracker.track(frame)


def _in_memory(video: Video) -> Video:
    """The sequence with its frames decoded, unless they would take more than a gigabyte."""
    if len(video) * video.width * video.height * 3 > IN_MEMORY_BYTES:
        return video
    fields = {name: getattr(video, name) for name in Video.__dataclass_fields__}
    return _Decoded(**fields, images=tuple(video.frame(index) for index in range(len(video))))


@dataclass(frozen=True)
class _Decoded(Video):
    images: Tuple[np.ndarray, ...] = field(default=(), repr=False)

    def frame(self, index: int) -> np.ndarray:
        return self.images[index]


@lru_cache(maxsize=1)
def _trackers(order: Order) -> Tuple[Dict[Variant, SiamRPNTracker], Dict[Variant, Dict[str, Any]]]:
    """The order's trackers and what is worth knowing of their engines, kept for the next
    sequences."""
    if not order.alone:
        check([order])  # the task itself looks, too: its worker may have come late
    deployment = _deployment(order)
    trackers, about = {}, {}
    shared: Dict[int, Remembering] = {}
    for one in order.variants:
        network = deployment.network(one.precisions, one.quantisation)
        about[one] = {"parameters": deployment.parameters, "engines": _about_engines(network)}
        if len(order.variants) > 1:
            search = shared.setdefault(id(network.search), Remembering(network.search))
            network = EngineNetwork({**network.engines, "search": search})
        trackers[one] = SiamRPNTracker(network, settings(one))
    return trackers, about


def _deployment(order: Order) -> Deployment:
    weights = weights_path(order.variants[0].weights, ROOT)

    def ranges(quantisation: Quantisation) -> Ranges:
        feeds = RECIPES[quantisation.recipe].feeds
        if quantisation.calibration == "benchmark":
            path, origin = _calibration(order, weights, feeds)
            return read_ranges(path, origin)
        if feeds != "own":
            recipe = quantisation.recipe
            raise InputError(
                f"the recipe '{recipe}' has a calibration of its own, from the benchmark"
            )
        return training_ranges(weights)

    return Deployment(load_network(weights), order.variants[0].framework, device(), ranges=ranges)


def _forget() -> None:
    """Drop what search engines remember: another sequence has other crops."""
    for known in Remembering.all_known:
        known.clear()


class Remembering:
    """A search engine that computes each crop once (the `Engine` contract).

    Mixtures of precisions ask the same search engine about the same crop while their boxes round to
    the same pixels. The answer is the same, bit for bit, so boxes do not change; only the time
    does, which quality does not take.
    """

    all_known: ClassVar[List[Dict[bytes, Dict[str, Any]]]] = []

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.known: Dict[bytes, Dict[str, Any]] = {}
        shapes = (*engine.inputs.values(), *engine.outputs.values())
        self.most = REMEMBERED_BYTES // sum(4 * prod(shape) for shape in shapes)
        self.all_known.append(self.known)

    def __call__(self, feeds: Mapping[str, Any]) -> Dict[str, Any]:
        crop = feeds["search"].tobytes()
        if crop in self.known:
            return self.known[crop]
        answer = self.engine(feeds)
        if len(self.known) < self.most:
            self.known[crop] = answer = self.engine.keep(answer)
        return answer

    def __getattr__(self, name: str) -> Any:
        return getattr(self.engine, name)


def _about_engines(network: EngineNetwork) -> Dict[str, Dict[str, Any]]:
    """Framework, precision as asked and as executed, size of the plan and time to build, of the
    three engines."""
    return {
        name: {
            "framework": engine.framework,
            "device": engine.device,
            "precision": engine.precision,
            "executed": engine.executed(),
            "plan_bytes": engine.plan_bytes,
            "build_seconds": round(engine.build_seconds, 3),
        }
        for name, engine in network.engines.items()
    }


# -- Calibration from the benchmark (section 4.2) --------------------------------------------------


def requested_frames(dataset: Dataset) -> int:
    """How many frames to ask the thesis's calibration for: 1,000 of VOT2018's 21,356.

    Of a smaller benchmark the same share of every sequence, and at least 96 frames in all.
    """
    total = sum(map(len, dataset))
    return min(1000, max(1, total * len(dataset) // 96))


def _calibration(order: Order, weights: Path, way: str) -> Tuple[Path, str]:
    """Where ranges from the benchmark are kept, and what they are made from."""
    origin = f"{digest(weights.read_bytes())} on {order.contents}, {way}, {CODE}"
    return CALIBRATIONS / f"{digest(origin.encode())}.csv", origin


def calibrate(order: Order, dataset: Dataset) -> Answer:
    """Write the ranges from the frames that are tested, by all of the order's ways, where they are
    not there yet."""
    begin = time.perf_counter()
    with _ALONE:
        one_thread()
        if not order.alone:
            check([order])
        weights = weights_path(order.variants[0].weights, ROOT)
        files = {way: _calibration(order, weights, way) for way in order.ways}
        files = {way: (path, origin) for way, (path, origin) in files.items() if not path.is_file()}
        if files:
            if dataset_digest(dataset) != order.contents:  # what is kept must be what its name says
                raise InputError(
                    f"the frames or boxes of '{dataset.name}' are others on the worker"
                )
            deployment = Deployment(load_network(weights), "openvino", cache=None)
            models = {name: deployment.model(name, "fp32") for name in NETWORKS}
            pairs = thesis_pairs(dataset, requested_frames(dataset))
            source = f"{len(pairs)} frames of {dataset.name}, as in section 4.2"
            for way, ranges in calibrate_ways(models, pairs, files).items():
                about = source if way == "own" else f"{source}, xcorr: {way}"
                write_ranges(files[way][0], ranges, about, files[way][1])
    return Answer({}, time.perf_counter() - begin)
