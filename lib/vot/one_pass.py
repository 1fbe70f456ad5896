"""One pass without resets, as OTB and its followers measure: mean overlap, success and precision.

`metrics.bootstrap` and `metrics.paired_bootstrap` take a `OnePass`, too.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Callable, ClassVar, Mapping, Sequence

import numpy as np

from lib.errors import InputError
from lib.vot.dataset import Dataset, Video
from lib.vot.overlap import area_overlap, region_corners
from lib.vot.protocol import FAILURE, Protocol, Trajectory, run_one_pass

SUCCESS_THRESHOLDS = np.arange(0, 1.05, 0.05)  # of the success curve
PRECISION_PX = 20


@dataclass(frozen=True)
class OnePass:
    """One tracker on one dataset in one pass, without resets. A data set's number is the mean over
    its sequences.

    frames: (S,) frames with a target. overlap: (S,) mean overlap of the frames after the first (AO).
    success: (S, 21) share of frames whose overlap exceeds 0, 0.05, .. 1. precision: (S,) share of
    frames whose centre is at most 20 px away. The last two count as PySOT's toolkit does, with the
    first frame.
    """

    dataset: str
    sequences: tuple[str, ...]
    frames: np.ndarray = field(repr=False)
    overlap: np.ndarray = field(repr=False)
    success: np.ndarray = field(repr=False)
    precision: np.ndarray = field(repr=False)
    left_out: int = 0
    protocol: ClassVar[Protocol] = Protocol("one pass")
    measures: ClassVar[tuple[str, ...]] = ("overlap", "auc", "precision")

    def scores(self, counts: np.ndarray, attribute: str = "all") -> dict[str, np.ndarray]:
        """The measures of samples of sequences, as in `Evaluation.scores`."""
        values = (self.overlap, self.success.mean(1), self.precision)
        return {name: counts @ value / counts.sum(1) for name, value in zip(self.measures, values)}

    def as_dict(self) -> dict[str, Any]:
        """Everything as JSON values."""
        one = np.eye(len(self.sequences))  # every sequence by itself
        rows = zip(*(values.tolist() for values in self.scores(one).values()))
        return {
            "dataset": self.dataset,
            "protocol": self.protocol.name,
            "sequences": len(self.sequences),
            "left_out": self.left_out,
            "frames": int(self.frames.sum()),
            **{key: float(value[0]) for key, value in self.scores(one.sum(0)[None]).items()},
            "success_curve": self.success.mean(0).tolist(),
            "per_sequence": {
                name: dict(zip(self.measures, row)) for name, row in zip(self.sequences, rows)
            },
        }


def evaluate_one_pass(dataset: Dataset, results: Mapping[str, Sequence[Trajectory]]) -> OnePass:
    """Evaluate results without resets, means over the repetitions. Frames without a target count
    neither for nor against. Raises InputError for results with resets or polygons."""
    columns: list[tuple[Any, ...]] = []
    for sequence in dataset:
        own = []
        for trajectory in results[sequence.name]:
            if FAILURE in trajectory.codes or 8 in map(len, trajectory.entries):
                raise InputError(f"The results of '{sequence.name}' have resets, or polygons.")
            p, q = _corners(sequence, trajectory)
            overlaps = np.nan_to_num(area_overlap(p, q))
            success = (overlaps[:, None] > SUCCESS_THRESHOLDS).mean(0)
            away = np.linalg.norm(p.mean(1) - q.mean(1), axis=1)
            own.append((overlaps[1:].mean(), success, (away <= PRECISION_PX).mean()))
        columns.append((sequence.present.sum(), *(np.mean(values, 0) for values in zip(*own))))
    frames, overlap, success, precision = (np.array(column) for column in zip(*columns))
    names = tuple(one.name for one in dataset)
    return OnePass(dataset.name, names, frames, overlap, success, precision, dataset.left_out)


def average_overlap(sequence: Video, trajectory: Trajectory) -> float:
    """AO of a one-pass run: the mean over all frames with a target after the first of the exact
    overlap of prediction and annotation."""
    return float(np.nan_to_num(area_overlap(*_corners(sequence, trajectory)))[1:].mean())


def _corners(sequence: Video, trajectory: Trajectory) -> tuple[np.ndarray, np.ndarray]:
    """Predicted and annotated corners, (K, 4, 2) each, of the frames with a target."""
    predicted, present = list(trajectory.entries), sequence.present
    if not present[1:].any():
        raise InputError(f"'{sequence.name}' has no frame with a target after the first.")
    if len(predicted[0]) == 1:  # VOT's code 1 stands for the first annotation
        predicted[0] = sequence.regions[0]
    return region_corners(predicted)[present], region_corners(sequence.regions)[present]


def track_all(
    tracker: Any, dataset: Dataset, after_each: Callable[[], object]
) -> tuple[dict[str, list[Trajectory]], Dataset]:
    """One pass over every sequence, and the dataset without those whose frames cannot be read.
    Raises InputError where none can."""
    results, faults = {}, []
    for sequence in dataset:
        try:
            results[sequence.name] = [run_one_pass(tracker, sequence)]
        except InputError as error:
            faults.append(error)
        after_each()
    return results, dataset.without(faults, results)
