"""Speed: framework x precision x network, the whole frame accounted for, and latency by layer type (section 4.2, figures 4.2
to 4.4).

Times are compared within one run only: the variant and PyTorch FP32 take turns, block by block, so that what else the machine
does meets both, and a ratio comes with the spread over the rounds. Speed does not depend on what the weights know, so at
thesis scale the full-size network runs with random ones.
"""
from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Any, Callable, Dict, Iterator, List, Mapping, Optional, Tuple
from typing import Sequence as Seq

import numpy as np
import pandas as pd
import torch

from lib.calibration import Ranges
from lib.deploy import FRAMEWORKS, Deployment, give_back_memory, missing_frameworks, refitted
from lib.engines.base import Engine, EngineNetwork, LayerTime, describe_executed
from lib.errors import InputError
from lib.export import random_feeds
from lib.quantize import METHODS
from lib.siamrpn.crop import as_input
from lib.siamrpn.network import NetworkConfig, SiamRPN
from lib.siamrpn.parts import NETWORKS
from lib.siamrpn.tracker import SiamRPNTracker

FRAME_PARTS = ("crop", "network", "decode")  # of a tracked frame; network: search and xcorr engine with the copies between
INITIAL_BOX = (200.0, 150.0, 60.0, 50.0)     # x, y, w, h in the 480x360 frames that are tracked
REST = 0.3  # s between turns: threads of the other framework that wait actively (OpenMP's do for 0.2 s) take a core meanwhile
NO_RANGE = 6.0  # the bound of every activation where INT8 is only timed


@dataclass(frozen=True)
class Times:
    """Seconds, (rounds, calls) each: whole frames, their parts, single calls of the engines."""

    frame: np.ndarray
    parts: Dict[str, np.ndarray]
    engines: Dict[str, np.ndarray]


@dataclass(frozen=True)
class Timed:
    """One framework at one precision, and PyTorch FP32 timed in turns with it."""

    framework: str            # a key of FRAMEWORKS
    version: str              # "OpenVINO 2026.4.1"
    device: str
    precision: str
    executed: str             # convolutions of the search and xcorr network by precision
    plan_bytes: int
    build_seconds: float
    times: Times = field(repr=False)
    reference: Times = field(repr=False)

    def row(self) -> Dict[str, Any]:
        """A line of the table: milliseconds (medians, quartiles of the frame), ratios to PyTorch FP32 (medians, smallest and
        largest round), megabytes."""
        low, middle, high = (float(value) for value in np.percentile(1000 * self.times.frame, [25, 50, 75]))
        row: Dict[str, Any] = {
            "framework": self.version, "device": self.device, "precision": self.precision.upper(), "executed": self.executed,
            "frame_ms": middle, "frame_ms_low": low, "frame_ms_high": high, "fps": 1000 / middle,
            **dict(zip(("ratio", "ratio_low", "ratio_high"), times_faster(self.times, self.reference))),
        }
        for name in NETWORKS:
            own, base = (float(np.median(times.engines[name])) for times in (self.times, self.reference))
            row.update({f"{name}_ms": 1000 * own, f"{name}_ratio": base / own})
        medians = {part: 1000 * float(np.median(seconds)) for part, seconds in self.times.parts.items()}
        row["copies_ms"] = max(medians["network"] - row["search_ms"] - row["xcorr_ms"], 0.0)
        row.update({"crop_ms": medians["crop"], "decode_ms": medians["decode"], "outside_ms": medians["crop"] + medians["decode"],
                    "plan_mb": self.plan_bytes / 1e6, "build_s": self.build_seconds})
        return row


def times_faster(one: Times, other: Times) -> Tuple[float, float, float]:
    """How many frames the one tracks in the time that the other takes for a frame: median, smallest and largest of the rounds,
    in which the two took turns."""
    ratios = np.median(other.frame, 1) / np.median(one.frame, 1)
    return float(np.median(ratios)), float(ratios.min()), float(ratios.max())


# -- Networks to time ----------------------------------------------------------------------------------------------------------


def random_network(config: NetworkConfig) -> SiamRPN:
    """A network with seeded random weights, in evaluation mode."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return SiamRPN(config).eval()


def full_size_network(width: float = 1.0) -> SiamRPN:
    """SiamRPN++ at a fraction of the thesis's width with random weights."""
    return random_network(NetworkConfig.resnet50(width))


class NoRanges(Dict[str, float]):
    """Bounds for timing alone: what an activation is divided by does not change how long that takes."""

    def __missing__(self, tensor: str) -> float:
        return NO_RANGE


def timing_deployment(network: SiamRPN, framework: str, device: str = "cpu", keep_models: bool = False) -> Deployment:
    """A deployment whose engines are good for timing: nothing is cached, INT8 has made-up ranges."""
    ranges: Ranges = {name: dict.fromkeys(METHODS, NoRanges()) for name in NETWORKS}
    return Deployment(network, framework, device, cache=None, ranges=lambda quantisation: ranges, keep_models=keep_models)


def pairs_to_time(frameworks: Seq[str]) -> List[Tuple[str, str]]:
    """(framework, precision) of every row, PyTorch FP32 left out: it is what the others are compared with."""
    every = [(name, precision) for name in frameworks for precision in FRAMEWORKS[name].precisions]
    return [pair for pair in every if pair != ("pytorch", "fp32")]


# -- Timing --------------------------------------------------------------------------------------------------------------------


def bench(network: SiamRPN, frameworks: Seq[str], device: str = "cpu", rounds: int = 5, calls: int = 4,
          report: Callable[[str], None] = lambda text: None) -> Iterator[Timed]:
    """Time every framework at every precision, one after the other, each in turns with PyTorch FP32; the first row is
    PyTorch's own.

    rounds: how often the two take turns; calls: frames in a turn. Only one variant is in memory at a time. report hears what is
    missing here, in a sentence. Yields rows as they are done.
    """
    reference = timing_deployment(network, "pytorch", device).network(dict.fromkeys(NETWORKS, "fp32"))
    yield _time("pytorch", "fp32", lambda names: {name: reference.engines[name] for name in names}, reference, rounds, calls)
    absent = missing_frameworks(frameworks)
    for sentence in absent.values():
        report(sentence)
    for framework, precision in pairs_to_time([name for name in frameworks if name not in absent]):
        def make(names: Seq[str]) -> Dict[str, Engine]:
            deployment = timing_deployment(network, framework, device)  # noqa: B023 - used before the loop goes on
            return deployment.engines(dict.fromkeys(names, precision))  # noqa: B023

        try:
            yield _time(framework, precision, make, reference, rounds, calls)
        except InputError as error:
            report(f"{FRAMEWORKS[framework].title} {precision.upper()}: {error}")
        give_back_memory()


def _time(framework: str, precision: str, make: Callable[[Seq[str]], Dict[str, Engine]], reference: EngineNetwork, rounds: int,
          calls: int) -> Timed:
    """First the target network, which runs once in a while, then the two that run for every frame; never all three in memory."""
    [target] = make(["target"]).values()
    feeds = {name: random_feeds(name, target_channels(target)) for name in NETWORKS}
    once, base_once = in_turns([_engine_block([engine], feeds, calls) for engine in (target, reference.target)], rounds)
    sizes = [(target.plan_bytes, target.build_seconds)]
    del target
    give_back_memory()
    engines = make(["search", "xcorr"])
    network = EngineNetwork({"target": reference.target, **engines})
    always, base_always = in_turns([_frame_block(each, feeds, calls) for each in (network, reference)], rounds)
    executed: Counter = Counter()
    for engine in engines.values():
        executed.update(engine.executed())
        sizes.append((engine.plan_bytes, engine.build_seconds))
    times, base = (_as_times({**single, **frames}) for single, frames in ((once, always), (base_once, base_always)))
    size, seconds = map(sum, zip(*sizes))
    return Timed(framework, network.search.framework, network.search.device, precision, describe_executed(executed), int(size),
                 float(seconds), times, base)


@dataclass(frozen=True)
class Ready:
    """An engine network that is built and waits to be timed. place: of its weights among the networks that are compared."""

    place: int
    framework: str
    precision: str
    deployment: Deployment = field(repr=False)
    network: EngineNetwork = field(repr=False)


def make_ready(networks: Seq[SiamRPN], frameworks: Seq[str], device: str = "cpu",
               report: Callable[[str], None] = lambda text: None, first_only: Seq[Tuple[str, str]] = ()) -> List[Ready]:
    """Every network in PyTorch FP32 and with every framework at every precision, by framework and precision; report hears what
    is missing here, in a sentence. first_only: pairs of framework and precision that only the first network gets."""
    absent = missing_frameworks(frameworks)
    for sentence in absent.values():
        report(sentence)
    ready = []
    pairs = [("pytorch", "fp32"), *pairs_to_time([name for name in frameworks if name not in absent])]
    for framework in dict.fromkeys(name for name, _ in pairs):
        deployments = [timing_deployment(network, framework, device, keep_models=True) for network in networks]
        for precision in (level for name, level in pairs if name == framework):
            for place, deployment in enumerate(deployments[:1] if (framework, precision) in first_only else deployments):
                try:
                    engines = deployment.network(dict.fromkeys(NETWORKS, precision))
                except InputError as error:
                    report(f"{FRAMEWORKS[framework].title} {precision.upper()}: {error}")
                    break  # the other networks lack it as well
                ready.append(Ready(place, framework, precision, deployment, engines))
        for deployment in deployments:
            deployment.forget_models()
    give_back_memory()
    return ready


def time_together(ready: Seq[Ready], rounds: int = 3, calls: int = 2) -> List[Timed]:
    """Time engines in turns, all with all others, so that any two may be compared; each one's reference is PyTorch FP32 of the
    same place. All are in memory at once, which `bench` avoids."""
    blocks = []
    for each in ready:
        feeds = {name: random_feeds(name, target_channels(each.network.target)) for name in NETWORKS}
        blocks.append(_joined(_frame_block(each.network, feeds, calls), _engine_block([each.network.target], feeds, calls)))
    found = [_as_times(seconds) for seconds in in_turns(blocks, rounds, [each.framework for each in ready])]
    plain = {each.place: times for each, times in zip(ready, found) if (each.framework, each.precision) == ("pytorch", "fp32")}
    return [_timed(each.framework, each.precision, each.network.engines, times, plain[each.place])
            for each, times in zip(ready, found)]


def _timed(framework: str, precision: str, engines: Mapping[str, Engine], times: Times, reference: Times) -> Timed:
    executed = Counter(engines["search"].executed()) + Counter(engines["xcorr"].executed())
    size = sum(engine.plan_bytes for engine in engines.values())
    seconds = sum(engine.build_seconds for engine in engines.values())
    search = engines["search"]
    return Timed(framework, search.framework, search.device, precision, describe_executed(executed), size, seconds, times,
                 reference)


def _as_times(seconds: Mapping[str, np.ndarray]) -> Times:
    return Times(seconds["frame"], {part: seconds[part] for part in FRAME_PARTS}, {name: seconds[name] for name in NETWORKS})


def target_channels(target: Engine) -> int:
    """C of the kernels (C, 1, 5, 5)."""
    return next(iter(target.outputs.values())).shape[0]


Block = Callable[[], Dict[str, List[float]]]


def in_turns(blocks: Seq[Block], rounds: int, whose: Optional[Seq[str]] = None) -> List[Dict[str, np.ndarray]]:
    """Run the blocks one after the other, `rounds` times over: for each, name -> seconds (rounds, calls).

    whose: the framework of each block, where neighbours of one framework need no rest between them.
    """
    found: List[Dict[str, List[List[float]]]] = [{} for _ in blocks]
    before = None
    for _ in range(rounds):
        for place, (block, times) in enumerate(zip(blocks, found)):
            if whose is None or whose[place] != before:
                time.sleep(REST)
            before = whose[place] if whose else None
            for name, seconds in block().items():
                times.setdefault(name, []).append(list(seconds))
    return [{name: np.array(seconds) for name, seconds in times.items()} for times in found]


def _joined(*blocks: Block) -> Block:
    """One block that runs several, with what all of them found."""
    return lambda: {name: seconds for block in blocks for name, seconds in block().items()}


def _engine_block(engines: Seq[Engine], feeds: Mapping[str, Mapping[str, Any]], calls: int) -> Block:
    return lambda: {engine.network: time_engine(engine, feeds[engine.network], calls) for engine in engines}


def _frame_block(network: EngineNetwork, feeds: Mapping[str, Mapping[str, Any]], calls: int) -> Block:
    """Tracked frames and their parts, then the two engines alone."""
    random = np.random.RandomState(0)
    frames = [random.randint(0, 256, (360, 480, 3), np.uint8) for _ in range(4)]
    tracker = _PartsTracker(network)
    tracker.init(frames[0], np.array(INITIAL_BOX))
    engines = _engine_block([network.search, network.xcorr], feeds, calls)

    def block() -> Dict[str, List[float]]:
        tracker.track(frames[0])
        tracker.seconds = {part: [] for part in FRAME_PARTS}
        whole = [_seconds(tracker.track, frames[index % len(frames)]) for index in range(calls)]
        return {"frame": whole, **tracker.seconds, **engines()}

    return block


def _seconds(call: Callable[..., Any], *arguments: Any) -> float:
    begin = time.perf_counter()
    call(*arguments)
    return time.perf_counter() - begin


def time_engine(engine: Engine, feeds: Mapping[str, Any], calls: int) -> List[float]:
    """Seconds of single calls until the first output is on the host, which is when a GPU has finished; one call before to
    warm up."""
    feeds = {name: feeds[name] for name in engine.inputs}
    first = next(iter(engine.outputs))

    def call() -> None:
        engine.numpy(engine(feeds)[first])

    call()
    return [_seconds(call) for _ in range(calls)]


class _PartsTracker(SiamRPNTracker):
    """A tracker that keeps the seconds of a frame's parts."""

    def __init__(self, network: EngineNetwork) -> None:
        super().__init__(network)
        self.seconds: Dict[str, List[float]] = {part: [] for part in FRAME_PARTS}

    def init(self, frame: np.ndarray, box: np.ndarray) -> None:
        super().init(frame, box)
        self._start = self.center, self.size

    def track(self, frame: np.ndarray) -> Any:
        self.center, self.size = self._start  # random weights blow the box up, and with it the crop, as no target does
        begin = time.perf_counter()
        crop, scale = self.search_crop(frame)
        search = as_input(crop)
        cropped = time.perf_counter()
        cls, loc = self.network.track(self.kernels, search)
        answered = time.perf_counter()
        result = self.update(cls, loc, scale, frame.shape[1], frame.shape[0])
        for part, seconds in zip(FRAME_PARTS, (cropped - begin, answered - cropped, time.perf_counter() - answered)):
            self.seconds[part].append(seconds)
        return result


def keep_tracking(network: EngineNetwork, seconds: float, now: Callable[[], float] = time.monotonic) -> List[float]:
    """Track random frames for some seconds, so that a sensor can see what that takes; when each was done, by the clock `now`."""
    frames = np.random.RandomState(0).randint(0, 256, (4, 360, 480, 3), np.uint8)
    tracker = _PartsTracker(network)
    tracker.init(frames[0], np.array(INITIAL_BOX))
    done: List[float] = []
    end = now() + seconds
    while now() < end:
        tracker.track(frames[len(done) % len(frames)])
        done.append(now())
    return done


# -- Layers and re-initialisation ----------------------------------------------------------------------------------------------


def layer_times(deployment: Deployment, precision: str, calls: int = 5) -> Dict[str, List[LayerTime]]:
    """Mean times of the layers of the three networks, by the framework's own profiler."""
    channels = deployment.weights.config.rpn
    found = {}
    for name in NETWORKS:
        engine = deployment.engine(name, precision)
        found[name] = engine.profile(random_feeds(name, channels), calls)
    return found


def reinitialisation(deployment: Deployment, precision: str, calls: int = 7) -> Dict[str, Optional[np.ndarray]]:
    """Seconds from an exemplar crop to kernels that the xcorr network runs with, (calls,): as inputs, and as constants that
    are put in by `refit`. None where the framework cannot refit."""
    exemplar = random_feeds("target", deployment.weights.config.rpn)["exemplar"]
    network = deployment.network(dict.fromkeys(NETWORKS, precision))
    kernels = network.template(exemplar)
    inputs = np.array([_seconds(network.template, exemplar) for _ in range(calls)])
    if deployment.framework == "pytorch":
        return {"inputs": inputs, "refit": None}
    first = {name: network.target.numpy(kernel) for name, kernel in kernels.items()}
    fitted = EngineNetwork({**network.engines, "xcorr": refitted(deployment, precision, first)})
    fitted.template(exemplar)
    return {"inputs": inputs, "refit": np.array([_seconds(fitted.template, exemplar) for _ in range(calls)])}


def report(rows: Seq[Mapping[str, Any]]) -> str:
    """The rows of `Timed.row` for a terminal: ms a call and ratio to PyTorch FP32 of every network and of the whole
    frame."""
    heads = ["framework", "precision", "convolutions run in", "target ms", "", "search ms", "", "xcorr ms", "", "frame ms",
             "quartiles", "ratio (rounds)", "outside ms", "plan MB", "build s"]
    cells = [[row["framework"], row["precision"], row["executed"],
              *(text for name in ("target", "search", "xcorr")
                for text in (f"{row[f'{name}_ms']:.2f}", f"{row[f'{name}_ratio']:.2f}x")),
              f"{row['frame_ms']:.2f}", f"{row['frame_ms_low']:.2f}-{row['frame_ms_high']:.2f}",
              f"{row['ratio']:.2f}x ({row['ratio_low']:.2f}-{row['ratio_high']:.2f})", f"{row['outside_ms']:.2f}",
              f"{row['plan_mb']:.1f}", f"{row['build_s']:.2f}"] for row in rows]
    return pd.DataFrame(cells, columns=pd.Index(heads)).to_string(index=False)
