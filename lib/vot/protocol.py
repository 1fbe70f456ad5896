"""The reset-based (supervised) protocol and the one-pass run (sections 3.3.1 and 3.3.3), as data
and two loops.

A tracker is any object with `init(frame_bgr, box_xywh)` and `track(frame_bgr)`; the result of track
has `.box` (x, y, w, h).
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any, Callable, Iterable, Optional
from typing import Sequence as Seq

import numpy as np

from lib.vot.dataset import Sequence, axis_aligned_box
from lib.vot.overlap import area_overlap, pixel_overlap, region_corners, surely_meet

SKIPPED, INIT, FAILURE = 0, 1, 2  # VOT's codes in raw results


@dataclass(frozen=True)
class Protocol:
    """Everything that decides a reset-based measurement; the defaults are PySOT's for VOT2018."""

    name: str = "pysot"
    failure_overlap: float = 0.0  # an overlap of at most this is a failure
    skip: int = 5  # frames from a failure to the re-initialisation
    burn_in: int = 10  # frames from an initialisation on that accuracy leaves out
    eao_low: int = 100  # bounds of the interval of lengths that EAO averages over, both included
    eao_high: int = 356
    # The length that the EAO curve starts with: does the initial frame count?
    first_length: int = 1
    overlap: str = "pixels"  # "pixels", or "area" for exact areas without bounds
    box_end: int = 0  # a box is rasterised from x to x + w + box_end
    image_end: int = 0  # regions are cut to 0 .. w + image_end, for accuracy
    eao_image_end: int = -1  # and for EAO
    # Mean over all frames, or over "sequences" weighted with their length
    accuracy_over: str = "frames"
    # Does a failure count for EAO when too few frames are left to start again?
    late_failures: bool = False

    def __post_init__(self) -> None:
        if self.overlap not in ("pixels", "area") or self.accuracy_over not in (
            "frames",
            "sequences",
        ):
            raise ValueError(
                f"protocol '{self.name}': unknown overlap '{self.overlap}' or mean over '{self.accuracy_over}'"
            )


PYSOT = Protocol()
# votchallenge/toolkit: stack/vot2018/shortterm.yaml, analysis/supervised.py, region/raster.py.
# Accuracy and EAO agree within 3e-4; single frames differ more, because the toolkit truncates
# boxes to pixels where PySOT (and this) rounds them.
TOOLKIT = Protocol(
    "toolkit",
    first_length=0,
    box_end=-1,
    image_end=-1,
    accuracy_over="sequences",
    late_failures=True,
)
PROTOCOLS = {protocol.name: protocol for protocol in (PYSOT, TOOLKIT)}


@dataclass(frozen=True)
class Trajectory:
    """What a tracker did on one sequence.

    entries: N float arrays as in raw files: one number is a code (1 initialised, 2 failure, 0
    skipped), 4 a box (x, y, w, h), 8 a polygon. seconds: (N,) duration of the init or track call, 0
    for skipped frames, NaN where it is not known.
    """

    entries: tuple[np.ndarray, ...]
    seconds: np.ndarray = field(repr=False)

    def __len__(self) -> int:
        return len(self.entries)

    @property
    def codes(self) -> np.ndarray:
        """(N,) int: 0, 1 or 2, and -1 where the entry is a region."""
        return np.array([int(entry[0]) if len(entry) == 1 else -1 for entry in self.entries])


def region_overlaps(
    predicted: Seq[np.ndarray],
    annotated: Seq[np.ndarray],
    size: tuple[int, int],
    protocol: Protocol,
    end: int | None = None,
) -> np.ndarray:
    """(N,) overlap of N pairs of regions as the protocol measures it, in images of size (w, h); end
    in place of image_end."""
    p, q = region_corners(predicted, protocol.box_end), region_corners(annotated, protocol.box_end)
    if protocol.overlap == "area":
        return area_overlap(p, q)
    return pixel_overlap(p, q, np.add(size, protocol.image_end if end is None else end))


def is_failure(
    box: np.ndarray, region: np.ndarray, size: tuple[int, int], protocol: Protocol
) -> bool:
    """Whether the tracker has lost an annotated region; a box that is not finite is lost as
    well."""
    if protocol.failure_overlap <= 0:
        p, q = region_corners([box, region], protocol.box_end)
        if surely_meet(p, q, size):
            return False
    return not region_overlaps([box], [region], size, protocol)[0] > protocol.failure_overlap


OnFrame = Callable[[int, np.ndarray, np.ndarray, Optional[np.ndarray]], Any]


def run_reset_based(
    tracker: Any, sequence: Sequence, protocol: Protocol = PYSOT, on_frame: OnFrame | None = None
) -> Trajectory:
    """Track with re-initialisation: a failure at frame i is marked 2, frames i + 1 .. i + skip - 1
    are marked 0, and the tracker starts again from the annotation at frame i + skip, marked 1
    (PySOT's test.py, VOT's supervised experiment).

    on_frame(index, frame, entry, box) sees every frame; box is the tracker's (at a failure the lost
    one), None if skipped.
    """
    entries: list[np.ndarray] = []
    seconds = np.zeros(len(sequence))
    start = 0
    for index, region in enumerate(sequence.regions):
        frame, box = sequence.frame(index), None
        if index < start:
            entry = np.array([SKIPPED], float)
        elif index == start:
            box = axis_aligned_box(region)
            _, seconds[index] = _timed(tracker.init, frame, box)
            entry = np.array([INIT], float)
        else:
            result, seconds[index] = _timed(tracker.track, frame)
            entry = box = np.array(result.box, float)
            if is_failure(box, region, (frame.shape[1], frame.shape[0]), protocol):
                entry, start = np.array([FAILURE], float), index + protocol.skip
        entries.append(entry)
        if on_frame:
            on_frame(index, frame, entry, box)
    return Trajectory(tuple(entries), seconds)


def run_one_pass(tracker: Any, sequence: Sequence, on_frame: OnFrame | None = None) -> Trajectory:
    """One-pass evaluation: initialised in the first frame, never again; every entry is a box, the
    first the initial one."""
    entries: list[np.ndarray] = []
    seconds = np.zeros(len(sequence))
    for index, region in enumerate(sequence.regions):
        frame = sequence.frame(index)
        if index == 0:
            box = axis_aligned_box(region)
            _, seconds[index] = _timed(tracker.init, frame, box)
        else:
            result, seconds[index] = _timed(tracker.track, frame)
            box = np.array(result.box, float)
        entries.append(box)
        if on_frame:
            on_frame(index, frame, box, box)
    return Trajectory(tuple(entries), seconds)


def frames_per_second(trajectories: Iterable[Trajectory], tracked_only: bool = False) -> float:
    """Speed over trajectories, NaN where times are not known.

    By PySOT's scheme every frame but the first counts, skipped ones too, over the time of all init
    and track calls, so that failures look like speed (section 3.3.3); with `tracked_only`, track
    calls over the time of track calls.
    """
    frames, seconds = 0, 0.0
    for trajectory in trajectories:
        if tracked_only:
            tracked = (trajectory.codes != INIT) & (trajectory.codes != SKIPPED)
            tracked[0] = False
            frames, seconds = (
                frames + int(tracked.sum()),
                seconds + float(trajectory.seconds[tracked].sum()),
            )
        else:
            frames, seconds = (
                frames + len(trajectory) - 1,
                seconds + float(trajectory.seconds.sum()),
            )
    return frames / seconds if seconds > 0 else float("nan")


def _timed(call: Callable, *arguments: Any) -> tuple[Any, float]:
    begin = time.perf_counter()
    result = call(*arguments)
    return result, time.perf_counter() - begin
