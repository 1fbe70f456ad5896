"""The reset-based (supervised) protocol and the one-pass run (sections 3.3.1 and 3.3.3), as data
and two loops.

A tracker is any object with `init(frame_bgr, box_xywh)` and `track(frame_bgr)`; the result of track
has `.box` (x, y, w, h).
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any, Callable, Iterable, Optional, Sequence

import numpy as np

from lib.vot.dataset import Video, axis_aligned_box
from lib.vot.overlap import pixel_overlap, region_corners

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
    first_length: int = 1  # of the EAO curve: 1 counts the initial frame, 0 does not
    box_end: int = 0  # a box is rasterised from x to x + w + box_end
    image_end: int = 0  # regions are cut to 0 .. w + image_end, for accuracy
    eao_image_end: int = -1  # and for EAO
    accuracy_by_sequence: bool = False  # mean over sequences, weighted with their lengths
    late_failures: bool = False  # a failure too late for another start counts for EAO


PYSOT = Protocol()
# votchallenge/toolkit: stack/vot2018/shortterm.yaml, analysis/supervised.py, region/raster.py.
# Accuracy and EAO agree within 3e-4; single frames differ more, because the toolkit truncates
# boxes to pixels where PySOT (and this) rounds them.
TOOLKIT = Protocol(
    "toolkit",
    first_length=0,
    box_end=-1,
    image_end=-1,
    accuracy_by_sequence=True,
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
    predicted: Sequence[np.ndarray],
    annotated: Sequence[np.ndarray],
    size: Sequence[int],
    protocol: Protocol,
    eao: bool = False,
) -> np.ndarray:
    """(N,) overlap of N pairs of regions in images of size (w, h), NaN where one is a code.

    eao: cut to the image as the protocol does for EAO.
    """
    p, q = region_corners(predicted, protocol.box_end), region_corners(annotated, protocol.box_end)
    end = protocol.eao_image_end if eao else protocol.image_end
    return pixel_overlap(p, q, np.add(size, end))


OnFrame = Callable[[int, np.ndarray, np.ndarray, Optional[np.ndarray]], Any]


def run_reset_based(
    tracker: Any, sequence: Video, protocol: Protocol = PYSOT, on_frame: OnFrame | None = None
) -> Trajectory:
    """Track with re-initialisation, as PySOT's test.py and VOT's supervised experiment do.

    A failure at frame i is marked 2, frames i + 1 .. i + skip - 1 are marked 0, and the tracker
    starts again from the annotation at frame i + skip, marked 1 (or, while the target is absent, from
    the next one with a target). In frames without target nothing fails. on_frame(index, frame, entry, box)
    sees every frame; box is the tracker's (at a failure the lost one), None if skipped.
    """
    entries: list[np.ndarray] = []
    seconds = np.zeros(len(sequence))
    start, present = 0, sequence.present
    for index, region in enumerate(sequence.regions):
        frame, box = sequence.frame(index), None
        if index == start and not present[index]:
            start += 1
        if index < start:
            entry = np.array([SKIPPED], float)
        elif index == start:
            box = axis_aligned_box(region)
            _, seconds[index] = _timed(tracker.init, frame, box)
            entry = np.array([INIT], float)
        else:
            result, seconds[index] = _timed(tracker.track, frame)
            entry = box = np.array(result.box, float)
            overlap = region_overlaps([box], [region], frame.shape[1::-1], protocol)[0]
            # NaN, of a box that is not finite, too
            if present[index] and not overlap > protocol.failure_overlap:
                entry, start = np.array([FAILURE], float), index + protocol.skip
        entries.append(entry)
        if on_frame:
            on_frame(index, frame, entry, box)
    return Trajectory(tuple(entries), seconds)


def run_one_pass(tracker: Any, sequence: Video) -> Trajectory:
    """Track without re-initialisation; the first entry is the initial box."""
    boxes = [axis_aligned_box(sequence.regions[0])]
    seconds = np.zeros(len(sequence))
    _, seconds[0] = _timed(tracker.init, sequence.frame(0), boxes[0])
    for index in range(1, len(sequence)):
        result, seconds[index] = _timed(tracker.track, sequence.frame(index))
        boxes.append(np.array(result.box, float))
    return Trajectory(tuple(boxes), seconds)


def frames_per_second(trajectories: Iterable[Trajectory], tracked_only: bool = False) -> float:
    """Speed over trajectories, NaN where times are not known.

    By PySOT's scheme every frame but the first counts, skipped ones too, over the time of all init
    and track calls, so that failures look like speed (section 3.3.3). tracked_only: track calls
    over the time of track calls.
    """
    frames, seconds = 0, 0.0
    for trajectory in trajectories:
        later = np.arange(len(trajectory)) > 0
        tracked = later & (trajectory.codes != INIT) & (trajectory.codes != SKIPPED)
        frames += int((tracked if tracked_only else later).sum())
        seconds += float(trajectory.seconds[tracked if tracked_only else ...].sum())
    return frames / seconds if seconds > 0 else float("nan")


def _timed(call: Callable, *arguments: Any) -> tuple[Any, float]:
    begin = time.perf_counter()
    result = call(*arguments)
    return result, time.perf_counter() - begin
