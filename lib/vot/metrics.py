"""Accuracy, robustness and expected average overlap (section 3.3.1), per attribute, per sequence
and with bootstrap intervals.

`evaluate` reduces every sequence to a few sums that are kept apart; every number of the data set is
a weighted combination of them (`Evaluation.scores`), so resampling the sequences costs no more than
a product of matrices.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any, ClassVar, Mapping, Sequence

import numpy as np

from lib.errors import InputError
from lib.vot.dataset import TAG_FILES, TAGS, Dataset, Video
from lib.vot.protocol import FAILURE, INIT, PYSOT, Protocol, Trajectory, region_overlaps

ATTRIBUTES = ("all", *TAGS, "empty")  # empty: the frames that carry none of the five tags
MEASURES = ("accuracy", "robustness", "failures", "eao")


@dataclass(frozen=True)
class Evaluation:
    """One tracker on one dataset: sums per attribute (A) and sequence (S), of means over the
    repetitions.

    overlap_sum, overlap_count, failed, frames: (A, S). curve_sum, curve_weight: (A, S, L), the
    weighted sum and the weights of the segments that say something about a length. eao_interval:
    the lengths N_lo..N_hi, both included, that EAO averages over.
    """

    dataset: str
    protocol: Protocol
    sequences: tuple[str, ...]
    left_out: int  # sequences of the dataset that cannot be used
    repetitions: int
    eao_interval: tuple[int, int]
    overlap_sum: np.ndarray = field(repr=False)
    overlap_count: np.ndarray = field(repr=False)
    failed: np.ndarray = field(repr=False)
    frames: np.ndarray = field(repr=False)
    curve_sum: np.ndarray = field(repr=False)
    curve_weight: np.ndarray = field(repr=False)
    measures: ClassVar[tuple[str, ...]] = MEASURES

    def scores(self, counts: np.ndarray, attribute: str = "all") -> dict[str, np.ndarray]:
        """The four measures of samples of sequences: counts (B, S) says how often each sequence
        occurs.

        Returns (B,) arrays: accuracy (0..1), robustness (failures per 100 frames), failures, eao
        (0..1); NaN where undefined.
        """
        a = ATTRIBUTES.index(attribute)
        low, high = np.subtract(self.eao_interval, self.protocol.first_length)
        curve_sum = counts @ self.curve_sum[a][:, low : high + 1]  # (B, lengths)
        curve_weight = counts @ self.curve_weight[a][:, low : high + 1]
        known, failures = curve_weight > 0, counts @ self.failed[a]
        return {
            "accuracy": _ratio(counts @ self.overlap_sum[a], counts @ self.overlap_count[a]),
            "robustness": 100 * _ratio(failures, counts @ self.frames[a]),
            "failures": failures,
            "eao": _ratio(_ratio(curve_sum, curve_weight, 0.0).sum(1), known.sum(1)),
        }

    def attributes(self) -> dict[str, dict[str, float]]:
        """attribute -> measures, for all frames, the five tags and the frames without one."""
        once = np.ones((1, len(self.sequences)))
        return {
            name: {key: float(value[0]) for key, value in self.scores(once, name).items()}
            for name in ATTRIBUTES
        }

    @property
    def accuracy(self) -> float:
        return self.attributes()["all"]["accuracy"]

    @property
    def robustness(self) -> float:
        return self.attributes()["all"]["robustness"]

    @property
    def failures(self) -> float:
        return self.attributes()["all"]["failures"]

    @property
    def eao(self) -> float:
        return self.attributes()["all"]["eao"]

    def eao_curve(self) -> np.ndarray:
        """(L,) expected average overlap of tracking L frames from an initialisation; NaN where no
        segment tells, [0] is 1."""
        curve = _ratio(self.curve_sum[0].sum(0), self.curve_weight[0].sum(0))
        curve[0] = 1.0
        return curve

    def per_sequence(self) -> dict[str, dict[str, float]]:
        """sequence -> accuracy, failures and frames."""
        accuracy = _ratio(self.overlap_sum[0], self.overlap_count[0]).tolist()
        rows = zip(accuracy, self.failed[0].tolist(), self.frames[0].astype(int).tolist())
        return {
            name: dict(zip(("accuracy", "failures", "frames"), row))
            for name, row in zip(self.sequences, rows)
        }

    def as_dict(self) -> dict[str, Any]:
        """Everything as JSON values; attributes under the names they have in files."""
        attributes = self.attributes()
        result = {
            "dataset": self.dataset,
            "protocol": self.protocol.name,
            "sequences": len(self.sequences),
            "left_out": self.left_out,
            "frames": int(self.frames[0].sum()),
            "repetitions": self.repetitions,
            **attributes.pop("all"),
            "eao_interval": list(self.eao_interval),
            "attributes": {TAG_FILES.get(name, name): row for name, row in attributes.items()},
            "per_sequence": self.per_sequence(),
            "eao_curve": self.eao_curve().tolist(),
        }
        return json_values(result)


def json_values(values: Mapping[str, Any]) -> dict[str, Any]:
    """The same as JSON has it: lists for tuples, and null for NaN."""
    return json.loads(json.dumps(values), parse_constant=lambda _: None)


def evaluate(
    dataset: Dataset, results: Mapping[str, Sequence[Trajectory]], protocol: Protocol = PYSOT
) -> Evaluation:
    """Evaluate raw results of the reset-based protocol: sequence name -> repetitions, as
    `results.read_results` gives them.

    Raises InputError where a sequence has no result, one of another length, or one that was not
    made with resets.
    """
    names = tuple(sequence.name for sequence in dataset)
    lengths = [len(sequence) for sequence in dataset]
    parts = [
        _reduce(sequence, results.get(sequence.name, ()), protocol, max(lengths))
        for sequence in dataset
    ]
    sums = [np.stack(part, 1) for part in zip(*parts)]  # each (A, S) or (A, S, L)
    interval = eao_interval(lengths, protocol)
    repetitions = max(len(results[name]) for name in names)
    return Evaluation(dataset.name, protocol, names, dataset.left_out, repetitions, interval, *sums)


def eao_interval(lengths: Sequence[int], protocol: Protocol = PYSOT) -> tuple[int, int]:
    """The interval of lengths (N_lo, N_hi, both included) that EAO averages over.

    The protocol's, where at least one sequence is as long as its upper bound. Otherwise it is found
    as VOT found it (VOT2015, section 4.3): around the mode of a kernel density estimate of the
    lengths, growing towards the denser side until it holds half of the probability. Silverman's
    bandwidth, at least 1 frame.
    """
    values = np.asarray(lengths, float)
    if values.max() >= protocol.eao_high:
        return protocol.eao_low, protocol.eao_high
    spread = min(values.std(), np.subtract(*np.percentile(values, [75, 25])) / 1.34) or values.std()
    bandwidth = max(0.9 * spread * len(values) ** -0.2, 1.0)
    grid = np.arange(2, max(int(values.max()), 2) + 1)
    density = np.exp(-0.5 * ((grid[:, None] - values) / bandwidth) ** 2).sum(1)
    low = high = int(density.argmax())
    while density[low : high + 1].sum() < 0.5 * density.sum():
        if high + 1 == len(grid) or (low > 0 and density[low - 1] >= density[high + 1]):
            low -= 1
        else:
            high += 1
    return int(grid[low]), int(grid[high])


def bootstrap(
    evaluation: Any,
    attribute: str = "all",
    groups: Mapping[str, str] | None = None,
    n: int = 2000,
) -> dict[str, tuple[float, float]]:
    """95 % intervals (low, high) of the measures over n draws of sequences with
    replacement, always the same draws.

    groups: sequence -> group, where sequences of a group are not independent (they show the same
    photograph); then whole groups are drawn. With a single sequence the bounds are NaN.
    """
    samples = evaluation.scores(resample(evaluation.sequences, n, groups), attribute)
    return {measure: percentiles(samples[measure]) for measure in evaluation.measures}


def paired_bootstrap(a: Any, b: Any, level: float = 0.95) -> dict[str, tuple[float, float, float]]:
    """Difference a - b with its interval, measure -> (difference, low, high); both trackers see the
    same drawn sequences.

    What the trackers find hard together cancels, so this interval is narrower than two separate
    ones suggest. Raises InputError where the two were not measured on the same sequences with the
    same protocol.
    """
    alike = a.sequences == b.sequences and a.protocol == b.protocol
    if not alike or (a.frames != b.frames).any():
        raise InputError(
            f"Evaluations on {a.dataset} ({a.protocol.name}) and {b.dataset} ({b.protocol.name}) cannot be paired."
        )
    once, counts = np.ones((1, len(a.sequences))), resample(a.sequences)
    ours, theirs = a.scores(counts), b.scores(counts)
    own, other = a.scores(once), b.scores(once)
    return {
        name: (float((own[name] - other[name])[0]), *percentiles(ours[name] - theirs[name], level))
        for name in a.measures
    }


def columns(evaluation: Evaluation) -> dict[str, float]:
    """The measures and their intervals as columns: accuracy, accuracy_low, accuracy_high, ..."""
    intervals = bootstrap(evaluation)
    columns = {}
    for measure in MEASURES:
        columns[measure] = getattr(evaluation, measure)
        columns[f"{measure}_low"], columns[f"{measure}_high"] = intervals[measure]
    return columns


def frame_overlaps(
    sequence: Video, trajectory: Trajectory, protocol: Protocol = PYSOT, eao: bool = False
) -> np.ndarray:
    """(N,) overlap of every frame, NaN where the entry is a code; eao: cut to the image as the
    protocol does for EAO."""
    size = (sequence.width, sequence.height)
    return region_overlaps(trajectory.entries, sequence.regions, size, protocol, eao)


def _reduce(
    sequence: Video, trajectories: Sequence[Trajectory], protocol: Protocol, length: int
) -> list[np.ndarray]:
    """The sums of one sequence, in the order of Evaluation's fields: four (A,) and two (A, L)."""
    count = len(sequence)
    if not trajectories or any(len(t) != count or t.codes[0] != INIT for t in trajectories):
        raise InputError(
            f"Sequence '{sequence.name}' has no result of {count} frames made with resets."
        )
    present = sequence.present
    tags = np.array([np.ones(count, bool), *(sequence.tags[tag] for tag in TAGS)])
    tags = np.concatenate([tags, ~tags[1:].any(0, keepdims=True)]) * present.astype(float)  # (A, N)
    overlaps, failed = [], np.zeros(len(tags))
    curve_sum, curve_weight = np.zeros((2, len(tags), length))
    for trajectory in trajectories:
        codes = trajectory.codes
        failed += tags[:, codes == FAILURE].sum(1) / len(trajectories)
        overlap = frame_overlaps(sequence, trajectory, protocol)
        for start in np.flatnonzero(codes == INIT).tolist():
            overlap[start : start + protocol.burn_in] = np.nan
        overlaps.append(overlap)
        overlap = np.nan_to_num(frame_overlaps(sequence, trajectory, protocol, eao=True))
        for start, stop, survived in _segments(codes, present, protocol):
            seen = present[start:stop]
            means, known = _segment_means(overlap[start:stop], seen, survived, length)
            counted = stop - start - np.count_nonzero(~seen)
            weight = tags[:, start:stop].sum(1) / counted / len(trajectories)
            curve_sum += weight[:, None] * means
            curve_weight += weight[:, None] * known
    overlap_sum, overlap_count = _accuracy_sums(np.array(overlaps), tags, protocol)
    return [overlap_sum, overlap_count, failed, tags.sum(1), curve_sum, curve_weight]


def _accuracy_sums(
    overlaps: np.ndarray, tags: np.ndarray, protocol: Protocol
) -> tuple[np.ndarray, np.ndarray]:
    """Sum and count, (A,) each, whose ratio is a sequence's accuracy, from (R, N) overlaps and (A,
    N) tags."""
    known = np.isfinite(overlaps)
    values = np.where(known, overlaps, 0.0)
    if protocol.accuracy_by_sequence:
        means = _ratio(values @ tags.T, known @ tags.T, 0.0).mean(0)
        return means * tags.sum(1), tags.sum(1)
    # of each frame's mean over the repetitions that saw it
    return tags @ _ratio(values.sum(0), known.sum(0), 0.0), tags @ known.any(0)


def _segments(
    codes: np.ndarray, present: np.ndarray, protocol: Protocol
) -> list[tuple[int, int, bool]]:
    """(start, stop, survived) of every run from an initialisation: to the end, or past the next
    initialisation after a failure, which waits for a frame with a target.

    A failure in the last frames, with no frame left to start again, ends no segment for PySOT (and
    VOT's MATLAB toolkit); with the protocol's `late_failures` it does.
    """
    count, failures = len(codes), np.flatnonzero(codes == FAILURE).tolist()
    allowed = np.append(np.flatnonzero(present), count)
    later = (at + protocol.skip for at in failures if at + protocol.skip <= count)
    starts = [0, *(int(allowed[np.searchsorted(allowed, at)]) for at in later)]
    segments = [(start, following + 1, False) for start, following in zip(starts, starts[1:])]
    if starts[-1] < count:
        survived = len(failures) < len(starts) or not protocol.late_failures
        segments.append((starts[-1], count, survived))
    return segments


def _segment_means(
    values: np.ndarray, seen: np.ndarray, survived: bool, length: int
) -> tuple[np.ndarray, np.ndarray]:
    """Mean overlap of the first 1, 2, .. frames after the initial one, (L,), and where it is known.

    seen: the frames with a target. After a failure overlaps are 0 for ever; a segment that lasted to
    the end of its sequence says nothing about longer ones.
    """
    padded, counted = np.zeros(length), np.ones(length)
    padded[1 : len(values)] = values[1:]
    counted[: len(values)] = seen
    counted[0] = 0
    known = np.ones(length)
    if survived:
        known[len(values) :] = 0
    return known * np.cumsum(padded) / np.maximum(np.cumsum(counted), 1), known


def resample(
    sequences: Sequence[str], n: int = 2000, groups: Mapping[str, str] | None = None
) -> np.ndarray:
    """(n, S) how often each sequence was drawn, by itself or with its group; (0, S) where there is
    only one to draw."""
    member = np.arange(len(sequences))
    if groups is not None:
        _, member = np.unique([groups[name] for name in sequences], return_inverse=True)
    count = member.max() + 1
    draws = n if count > 1 else 0
    drawn = np.random.RandomState(0).multinomial(count, np.full(count, 1 / count), draws)
    return drawn[:, member].astype(float)


def percentiles(samples: np.ndarray, level: float = 0.95) -> tuple[float, float]:
    samples = samples[np.isfinite(samples)]
    if not samples.size:
        return float("nan"), float("nan")
    low, high = np.percentile(samples, [50 * (1 - level), 50 * (1 + level)])
    return float(low), float(high)


def _ratio(above: np.ndarray, below: np.ndarray, otherwise: float = np.nan) -> np.ndarray:
    return np.where(below > 0, above / np.where(below > 0, below, 1), otherwise)
