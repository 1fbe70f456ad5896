"""Candidates in turns: what they take while nothing else runs, and how one notices that something
did (section 4.2).

Times are compared within one group only. Its candidates take turns, so what else the machine does
affects all of them, and a ratio comes with its spread over the rounds. A turn in which the
processor was shared is disturbed; it is repeated, and what stays disturbed is counted.
"""

from __future__ import annotations

import os
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Callable, Dict, List, Mapping, NamedTuple, Sequence, Tuple

import numpy as np

from lib import environment
from lib.engines.export import random_feeds
from lib.siamrpn.contract import Engine, EngineNetwork, describe_executed
from lib.siamrpn.crop import as_input
from lib.siamrpn.parts import NETWORKS
from lib.siamrpn.tracker import SiamRPNTracker

# network: search and xcorr engine with the copies between
FRAME_PARTS = ("crop", "network", "decode")
INITIAL_BOX = (200.0, 150.0, 60.0, 50.0)  # x, y, w, h in the 480x360 frames that are tracked
# Seconds before another framework's turn: OpenMP's threads wait actively for 0.2 s
REST = 0.3
TURN_SECONDS = 0.25  # that the frames of a turn fill, where more than one fits
MOST_CALLS = 50
OTHERS = 0.15  # cores that other work may use before a turn counts as disturbed
SLOWER = 1.25  # than the fastest turn of the same candidate: disturbed
TRIES = 3  # of a turn that is disturbed


@dataclass(frozen=True)
class Times:
    """Seconds, (rounds, calls) each: whole frames, their parts, single calls of the engines (empty
    where they were not timed)."""

    frame: np.ndarray
    parts: Dict[str, np.ndarray]
    engines: Dict[str, np.ndarray]


@dataclass(frozen=True)
class Candidate:
    """Engines that are built and wait for their turn.

    place: of the weights among the networks that are compared. single: whether the three engines
    are also timed by themselves.
    """

    place: int
    framework: str  # a key of FRAMEWORKS
    precisions: Mapping[str, str]
    network: EngineNetwork = field(repr=False)
    single: bool = True

    @property
    def precision(self) -> str:
        """ "FP32", or "FP16/FP32/INT8" where precisions are mixed."""
        names = [self.precisions[name] for name in NETWORKS]
        return "/".join(names if len(set(names)) > 1 else names[:1]).upper()


@dataclass(frozen=True)
class Timed:
    """A candidate's times, and those of the reference in the same rounds. disturbed: turns that
    stayed disturbed."""

    candidate: Candidate
    times: Times = field(repr=False)
    reference: Times = field(repr=False)
    repeated: int = 0
    disturbed: int = 0

    def row(self) -> Dict[str, Any]:
        """A line of a table: milliseconds (medians, quartiles of the frame), ratios to the
        reference, megabytes."""
        engines = self.candidate.network.engines
        executed = Counter(engines["search"].executed()) + Counter(engines["xcorr"].executed())
        low, middle, high = (
            float(value) for value in np.percentile(1000 * self.times.frame, [25, 50, 75])
        )
        return {
            "framework": engines["search"].framework,
            "device": engines["search"].device,
            "precision": self.candidate.precision,
            **self.candidate.precisions,
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

    def _parts(self) -> Dict[str, float]:
        medians = {
            part: 1000 * float(np.median(seconds)) for part, seconds in self.times.parts.items()
        }
        row = {f"{part}_ms": medians[part] for part in ("crop", "decode")}
        row["outside_ms"] = row["crop_ms"] + row["decode_ms"]
        for name, seconds in self.times.engines.items():
            row[f"{name}_ms"] = 1000 * float(np.median(seconds))
            row[f"{name}_ratio"] = (
                float(np.median(self.reference.engines[name])) * 1000 / row[f"{name}_ms"]
            )
        if self.times.engines:
            row["copies_ms"] = max(medians["network"] - row["search_ms"] - row["xcorr_ms"], 0.0)
        return row


def ratios(one: Times, other: Times, name: str) -> Dict[str, float]:
    """How many frames the one tracks in the time that the other takes for a frame: median, smallest
    and largest round."""
    found = np.median(other.frame, 1) / np.median(one.frame, 1)
    values = (np.median(found), found.min(), found.max())
    return {f"{name}{end}": float(value) for end, value in zip(("", "_low", "_high"), values)}


class Turn(NamedTuple):
    """One turn of a candidate. shared: how much of a core other work used meanwhile, 0 where the
    system does not say."""

    seconds: Dict[str, List[float]]
    shared: float

    @property
    def middle(self) -> float:
        return float(np.median(self.seconds["frame"]))


def time_group(
    candidates: Sequence[Candidate], rounds: int = 3, done: Callable[[], Any] = lambda: None
) -> List[Timed]:
    """Time candidates in turns, `rounds` times over; the first one is the reference. done is called
    after each turn.

    A turn is disturbed where other work used more than `OTHERS` of a core, or where it is `SLOWER`
    than the candidate's fastest. It is repeated up to `TRIES` times, at once, so that candidates
    still take turns; the least disturbed one counts.
    """
    frame_seconds: Dict[int, float] = {}
    blocks = [_Block(each, frame_seconds) for each in candidates]
    fastest = [float("inf")] * len(blocks)
    turns: List[List[Turn]] = [[] for _ in blocks]
    repeated = [0] * len(blocks)
    # Repetitions of the whole group: a machine that is always busy must not take for ever
    patience = rounds * len(blocks)
    before = ""
    for _ in range(rounds):
        for place, block in enumerate(blocks):
            tries: List[Turn] = []
            while len(tries) < TRIES and (
                not tries or (patience > 0 and _disturbed(tries[-1], fastest[place]))
            ):
                if tries:
                    repeated[place] += 1
                    patience -= 1
                if block.framework != before or tries:
                    time.sleep(REST)
                before = block.framework
                tries.append(block.turn())
                fastest[place] = min(fastest[place], tries[-1].middle)
            turns[place].append(
                min(tries, key=lambda turn: (_disturbed(turn, fastest[place]), turn.middle))
            )
            done()
    times = [_as_times(own) for own in turns]
    left = [sum(_disturbed(turn, fast) for turn in own) for own, fast in zip(turns, fastest)]
    return [
        Timed(each, own, times[0], again, bad)
        for each, own, again, bad in zip(candidates, times, repeated, left)
    ]


def _disturbed(turn: Turn, fastest: float) -> bool:
    return turn.shared > OTHERS or turn.middle > SLOWER * fastest


def _as_times(turns: Sequence[Turn]) -> Times:
    found = {name: np.array([turn.seconds[name] for turn in turns]) for name in turns[0].seconds}
    engines = {name: found[name] for name in NETWORKS if name in found}
    return Times(found["frame"], {part: found[part] for part in FRAME_PARTS}, engines)


class _Block:
    """A candidate's turn: tracked frames and their parts, then its engines by themselves."""

    def __init__(self, candidate: Candidate, known: Dict[int, float]) -> None:
        """known: seconds of a frame by search engine; engines that are there are warm."""
        self.framework, self.single = candidate.framework, candidate.single
        network = candidate.network
        self.engines = network.engines
        channels = _target_channels(network.target)
        self.feeds = {name: random_feeds(name, channels) for name in NETWORKS}
        self.frames = _frames()
        self.tracker = PartsTracker(network)
        self.tracker.init(self.frames[0], np.array(INITIAL_BOX))
        if id(network.search) not in known:
            seconds_of(self.tracker.track, self.frames[0])  # allocates and chooses algorithms
            known[id(network.search)] = seconds_of(self.tracker.track, self.frames[0])
        self.calls = int(np.clip(TURN_SECONDS / known[id(network.search)], 1, MOST_CALLS))

    def turn(self) -> Turn:
        watch = Watch()
        if self.calls > 1:  # caches are cold; of a frame that takes long this is a small part
            self.tracker.track(self.frames[0])
        self.tracker.seconds = {part: [] for part in FRAME_PARTS}
        frames = [self.frames[index % len(self.frames)] for index in range(self.calls)]
        whole = [seconds_of(self.tracker.track, frame) for frame in frames]
        found = {"frame": whole, **self.tracker.seconds}
        # What follows is not part of this turn.
        self.tracker.seconds = {part: [] for part in FRAME_PARTS}
        if self.single:
            for name, engine in self.engines.items():
                found[name] = time_engine(engine, self.feeds[name], self.calls)
        return Turn(found, watch.shared())


def _target_channels(target: Engine) -> int:
    """C of the kernels (C, 1, 5, 5)."""
    return next(iter(target.outputs.values()))[0]


class Watch:
    """How much of this process's cores other work uses, from now on: the system's clocks less the
    process's own."""

    def __init__(self) -> None:
        self._begin = self._now()

    def shared(self) -> float:
        """Cores that other work used since the start, 0 where the system does not say
        (/proc/stat)."""
        (wall, own, busy), (wall_0, own_0, busy_0) = self._now(), self._begin
        others = (busy - busy_0) - (own - own_0)
        # The clocks of both ends are a tick off at most
        tick = 2.0 / os.sysconf("SC_CLK_TCK") if busy else 0.0
        return max(0.0, others - tick * (environment.cores() or 1)) / max(wall - wall_0, 1e-9)

    @staticmethod
    def _now() -> Tuple[float, float, float]:
        return time.perf_counter(), time.process_time(), _busy_seconds()


def _busy_seconds() -> float:
    """Seconds that the cores of this process were not idle, stolen time included; 0 where the
    system does not say."""
    try:
        lines = Path("/proc/stat").read_text(encoding="utf-8").splitlines()
        cores = os.sched_getaffinity(0)
        tick = os.sysconf("SC_CLK_TCK")
    except (OSError, AttributeError, ValueError):
        return 0.0
    fields = (line.split() for line in lines if line.startswith("cpu") and line[3].isdigit())
    mine = ([int(value) for value in each[1:9]] for each in fields if int(each[0][3:]) in cores)
    # 3, 4: idle, and idle while waiting for a disk
    return sum(sum(each) - each[3] - each[4] for each in mine) / tick


def _frames() -> List[np.ndarray]:
    random = np.random.RandomState(0)
    return [random.randint(0, 256, (360, 480, 3), np.uint8) for _ in range(4)]


def seconds_of(call: Callable[..., Any], *arguments: Any) -> float:
    begin = time.perf_counter()
    call(*arguments)
    return time.perf_counter() - begin


def time_engine(engine: Engine, feeds: Mapping[str, Any], calls: int) -> List[float]:
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
    """A tracker that keeps the seconds of a frame's parts, and looks at the same place in every
    frame."""

    def __init__(self, network: EngineNetwork) -> None:
        super().__init__(network)
        self.seconds: Dict[str, List[float]] = {part: [] for part in FRAME_PARTS}

    def init(self, frame: np.ndarray, box: np.ndarray) -> None:
        super().init(frame, box)
        self._start = self.center, self.size

    def track(self, frame: np.ndarray) -> Any:
        # Random weights blow the box up, and with it the crop, as no target does
        self.center, self.size = self._start
        begin = time.perf_counter()
        crop, scale = self.search_crop(frame)
        search = as_input(crop)
        cropped = time.perf_counter()
        cls, loc = self.network.track(self.kernels, search)
        answered = time.perf_counter()
        result = self.update(cls, loc, scale, frame.shape[1], frame.shape[0])
        spent = (cropped - begin, answered - cropped, time.perf_counter() - answered)
        for part, seconds in zip(FRAME_PARTS, spent):
            self.seconds[part].append(seconds)
        return result


def keep_tracking(
    network: EngineNetwork, seconds: float, now: Callable[[], float] = time.monotonic
) -> List[float]:
    """Track random frames for some seconds, so that a sensor can see what that takes; when each was
    done, by the clock `now`."""
    frames = _frames()
    tracker = PartsTracker(network)
    tracker.init(frames[0], np.array(INITIAL_BOX))
    done: List[float] = []
    end = now() + seconds
    while now() < end:
        tracker.track(frames[len(done) % len(frames)])
        done.append(now())
    return done
