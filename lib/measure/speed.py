"""Speed: engines timed alone on the machine, in turns (section 4.2, figures 4.2 to 4.4).

Speed does not depend on what the weights know, so the full-size network has random ones. Times are
compared within one group only: its candidates take turns with a reference, so background load
affects all of them, and a ratio comes with its spread over the rounds. A turn is disturbed if other
work used the processor. It is repeated, and turns that stay disturbed are counted.

While turns are taken the process keeps the memory that it frees. Otherwise PyTorch on a processor
asks the system for fresh memory in every frame, and what that costs seems to differ from run
to run (tests/benchmarks/bench_faults.py).
"""

from __future__ import annotations

import os
import time
from collections import Counter
from functools import lru_cache
from pathlib import Path
from typing import Any, Callable, Dict, Mapping, NamedTuple, Sequence

import numpy as np
import torch

from lib import environment
from lib.engines.calibration import Ranges
from lib.engines.deploy import Deployment, memory_kept
from lib.engines.export import random_feeds
from lib.engines.quantize import METHODS
from lib.measure.variants import Variant
from lib.siamrpn.contract import Engine, EngineNetwork, describe_executed
from lib.siamrpn.crop import as_input
from lib.siamrpn.network import NetworkConfig, SiamRPN
from lib.siamrpn.parts import NETWORKS
from lib.siamrpn.tracker import SiamRPNTracker

NO_RANGE = 6.0  # the bound of every activation where INT8 is only timed
INITIAL_BOX = (200.0, 150.0, 60.0, 50.0)  # x, y, w, h in the 480x360 frames that are tracked
# Seconds before another framework's turn: OpenMP's threads wait actively for 0.2 s
REST = 0.3
TURN_SECONDS = 0.25  # that the frames of a turn fill, where more than the fewest fit
FEWEST_CALLS, MOST_CALLS = 3, 50
OTHERS = 0.15  # cores that other work may use before a turn counts as disturbed
SLOWER = 1.25  # than the fastest turn of the same candidate: disturbed
TRIES = 3  # of a turn that is disturbed

# Seconds, (rounds, calls) each: "frame", its parts "crop", "network" (search and xcorr engine with
# the copies between) and "decode", and single calls of the three engines where they were timed.
Times = Mapping[str, np.ndarray]


# -- What is timed ---------------------------------------------------------------------------------


def random_network(config: NetworkConfig) -> SiamRPN:
    """A network with seeded random weights, in evaluation mode."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return SiamRPN(config).eval()


def full_size_network(width: float = 1.0) -> SiamRPN:
    """SiamRPN++ at a fraction of the thesis's width with random weights."""
    return random_network(NetworkConfig.resnet50(width))


class NoRanges(Dict[str, float]):
    """Bounds for timing alone: their values do not change how long INT8 takes."""

    def __missing__(self, tensor: str) -> float:
        return NO_RANGE


def timing_deployment(
    network: SiamRPN, framework: str, device: str = "cpu", models: Path | None = None
) -> Deployment:
    """A deployment whose engines are good for timing: no plan is kept, INT8 has made-up ranges.

    models: a folder that keeps the FP32 models for later deployments of the same network.
    """
    ranges: Ranges = {name: dict.fromkeys(METHODS, NoRanges()) for name in NETWORKS}
    return Deployment(network, framework, device, None, lambda quantisation: ranges, models)


# -- Turns -----------------------------------------------------------------------------------------


def time_group(
    group: Sequence[Timed], rounds: int = 3, done: Callable[[], Any] = lambda: None
) -> None:
    """Time candidates in turns, `rounds` times over; the first one is the reference. done is called
    after each turn.

    A disturbed turn is repeated at once, so that candidates still take turns.
    """
    # Repetitions of the whole group: a machine that is always busy must not take for ever
    patience, before = rounds * len(group), ""
    with memory_kept():
        for _ in range(rounds):
            for one in group:
                if one.variant.framework != before:
                    time.sleep(REST)
                before = one.variant.framework
                patience -= one.play(patience)
                done()
    for one in group:
        one.reference = group[0].times


class Turn(NamedTuple):
    """seconds: as `Times`, of one round. others: cores that other work used meanwhile."""

    seconds: dict[str, list[float]]
    others: float

    @property
    def middle(self) -> float:
        return float(np.median(self.seconds["frame"]))


class Timed:
    """Built engines and their turns: tracked frames and their parts, then, where all three have one
    precision, each engine by itself. Raises InputError where the framework lacks a precision.

    place: of the weights among the networks that are compared. reference: times of the reference
    in the same rounds. repeated: turns taken again.
    """

    def __init__(self, place: int, deployment: Deployment, variant: Variant) -> None:
        self.place, self.variant = place, variant
        self.network = deployment.network(variant.precisions, variant.quantisation)
        self.reference: Times = {}
        self.repeated, self.fastest = 0, float("inf")
        self.engines = self.network.engines if self.is_pure else {}
        channels = next(iter(self.network.target.outputs.values()))[0]  # (C, 1, 5, 5)
        self.feeds = {name: random_feeds(name, channels) for name in self.engines}
        self.frames, self.tracker = random_frames(), PartsTracker(self.network)
        self.tracker.timed(self.frames[0])  # allocates and chooses algorithms
        seconds = self.tracker.timed(self.frames[0])["frame"]
        self.calls = int(np.clip(TURN_SECONDS / seconds, FEWEST_CALLS, MOST_CALLS))
        self.turns: list[Turn] = []

    @property
    def is_pure(self) -> bool:
        return len(set(self.variant.precisions.values())) == 1

    @property
    def times(self) -> Times:
        parts = self.turns[0].seconds
        return {name: np.array([turn.seconds[name] for turn in self.turns]) for name in parts}

    @property
    def disturbed(self) -> int:
        """Turns that stayed disturbed."""
        return sum(map(self.is_disturbed, self.turns))

    def play(self, patience: int) -> int:
        """Take a turn, up to `TRIES` times while it is disturbed, and keep the least disturbed;
        returns the number of repetitions, at most `patience`."""
        tries = [self._turn()]
        while self.is_disturbed(tries[-1]) and len(tries) <= min(TRIES - 1, patience):
            time.sleep(REST)
            tries.append(self._turn())
        self.turns.append(min(tries, key=lambda turn: (self.is_disturbed(turn), turn.middle)))
        self.repeated += len(tries) - 1
        return len(tries) - 1

    def is_disturbed(self, turn: Turn) -> bool:
        return turn.others > OTHERS or turn.middle > SLOWER * self.fastest

    def _turn(self) -> Turn:
        watch = Watch()
        self.tracker.timed(self.frames[0])  # caches are cold
        calls = [
            self.tracker.timed(self.frames[index % len(self.frames)]) for index in range(self.calls)
        ]
        seconds = {name: [call[name] for call in calls] for name in calls[0]}
        for name, engine in self.engines.items():
            seconds[name] = time_engine(engine, self.feeds[name], self.calls)
        turn = Turn(seconds, watch.others())
        self.fastest = min(self.fastest, turn.middle)
        return turn

    def row(self) -> dict[str, Any]:
        """A line of a table: milliseconds (medians, quartiles of the frame), ratios to the
        reference, megabytes."""
        variant, engines = self.variant, self.network.engines
        executed = Counter(engines["search"].executed()) + Counter(engines["xcorr"].executed())
        low, middle, high = np.percentile(1000 * self.times["frame"], [25, 50, 75]).tolist()
        return {
            "framework": engines["search"].framework,
            "device": engines["search"].device,
            "precision": variant.precision,
            **variant.precisions,
            "executed": describe_executed(executed),
            "frame_ms": middle,
            "frame_ms_low": low,
            "frame_ms_high": high,
            "fps": 1000 / middle,
            **ratios(self.times, self.reference, "ratio"),
            **self._parts(),
            "plan_mb": sum(engine.plan_bytes for engine in engines.values()) / 1e6,
            "build_s": sum(engine.build_seconds for engine in engines.values()),
            "repeated": self.repeated,
            "disturbed": self.disturbed,
        }

    def _parts(self) -> dict[str, float]:
        ms, reference = (
            {name: 1000 * float(np.median(seconds)) for name, seconds in times.items()}
            for times in (self.times, self.reference)
        )
        row = {f"{part}_ms": ms[part] for part in ("crop", "decode")}
        row["outside_ms"] = ms["crop"] + ms["decode"]
        if "search" not in ms:
            return row
        for name in NETWORKS:
            row[f"{name}_ms"] = ms[name]
            row[f"{name}_ratio"] = reference[name] / ms[name]
        return {**row, "copies_ms": max(ms["network"] - ms["search"] - ms["xcorr"], 0.0)}


def ratios(one: Times, other: Times, name: str) -> dict[str, float]:
    """How many frames the one tracks in the time that the other takes for a frame: median, smallest
    and largest round."""
    found = np.median(other["frame"], 1) / np.median(one["frame"], 1)
    values = (np.median(found), found.min(), found.max())
    return {f"{name}{end}": float(value) for end, value in zip(("", "_low", "_high"), values)}


class Watch:
    """How much of this process's cores other work uses, from now on."""

    def __init__(self) -> None:
        self._begin = self._now()

    @staticmethod
    def _now() -> np.ndarray:
        return np.array([time.perf_counter(), time.process_time(), environment.busy_seconds()])

    def others(self) -> float:
        """Cores that other work has used, 0 where the system does not say."""
        wall, own, busy = self._now() - self._begin
        # The clocks of both ends are a tick off at most
        slack = 2.0 / os.sysconf("SC_CLK_TCK") * (environment.cores() or 1)
        return float(max(0.0, busy - own - slack) / max(wall, 1e-9))


@lru_cache(maxsize=1)
def random_frames() -> list[np.ndarray]:
    random = np.random.RandomState(0)
    return [random.randint(0, 256, (360, 480, 3), np.uint8) for _ in range(4)]


def seconds_of(call: Callable[..., Any], *arguments: Any) -> float:
    begin = time.perf_counter()
    call(*arguments)
    return time.perf_counter() - begin


def time_engine(engine: Engine, feeds: Mapping[str, Any], calls: int) -> list[float]:
    """Seconds of single calls until the first output is on the host, which is when a GPU has
    finished."""
    feeds = {name: feeds[name] for name in engine.inputs}
    first = next(iter(engine.outputs))

    def call() -> None:
        engine.numpy(engine(feeds)[first])

    if calls > 1:
        call()
    return [seconds_of(call) for _ in range(calls)]


class PartsTracker(SiamRPNTracker):
    """A tracker that looks at the same place in every frame and times a frame's parts."""

    def __init__(self, network: EngineNetwork) -> None:
        super().__init__(network)
        self.init(random_frames()[0], np.array(INITIAL_BOX))
        self._start = self.center, self.size

    def timed(self, frame: np.ndarray) -> dict[str, float]:
        """Track; returns the seconds of the frame and its parts (`Times`)."""
        # Random weights blow the box up, and with it the crop, as no target does
        self.center, self.size = self._start
        begin = time.perf_counter()
        crop, scale = self.search_crop(frame)
        search = as_input(crop)
        cropped = time.perf_counter()
        cls, loc = self.network.track(self.kernels, search)
        answered = time.perf_counter()
        self.update(cls, loc, scale, frame.shape[1], frame.shape[0])
        end = time.perf_counter()
        return {
            "frame": end - begin,
            "crop": cropped - begin,
            "network": answered - cropped,
            "decode": end - answered,
        }


def keep_tracking(network: EngineNetwork, seconds: float) -> list[float]:
    """Track random frames for some seconds; returns when each was done (monotonic)."""
    frames, tracker = random_frames(), PartsTracker(network)
    done: list[float] = []
    end = time.monotonic() + seconds
    with memory_kept():
        while time.monotonic() < end:
            tracker.timed(frames[len(done) % len(frames)])
            done.append(time.monotonic())
    return done
