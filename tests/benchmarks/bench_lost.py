"""When is a target lost? `python tests/benchmarks/bench_lost.py [--out data/demo/lost.yaml]`.

Tracks generated sequences that are in no benchmark (numbers of lib.demo_scenes from 1001) with the
demo tracker, and each once more with a cut: after eight frames comes another sequence, and the
target is gone. The threshold is chosen on one half of them, and tested on the other half and on the
real sequences in ../shared/sequences.

gone: share of frames after the cut that count as lost. astray: of those where the box does not overlap
the annotation, mostly since it follows a look-alike. seen: of those where it overlaps and less than
half of the target is covered, so these are false alarms.
"""

from __future__ import annotations

import argparse
from itertools import product
from pathlib import Path
from typing import NamedTuple

import numpy as np
import yaml

from lib.demo import render
from lib.demo_scenes import make_spec
from lib.engines.zoo import open_tracker
from lib.vot.dataset import axis_aligned_box, load_dataset
from lib.vot.overlap import area_overlap, region_corners

FALSE_ALARMS = 0.01
HALVES = {"choosing": range(1001, 1041), "testing": range(1301, 1341)}
BEFORE_CUT = 8  # frames
SCORES, FRAMES = (0.3, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95), (1, 2, 3, 4, 5)
SEQUENCES = Path(__file__).resolve().parents[3] / "shared" / "sequences"


class Run(NamedTuple):
    """Of the frames after the first: scores, and which of them are of the three kinds."""

    scores: np.ndarray
    kinds: dict[str, np.ndarray]


def track(tracker, frames, regions):
    """Scores, and overlaps with the annotations, of the frames after the first."""
    frames = iter(frames)
    tracker.init(next(frames), axis_aligned_box(regions[0]))
    results = [tracker.track(frame) for frame in frames]
    boxes = [result.box for result in results]
    overlaps = area_overlap(region_corners(boxes), region_corners(regions[1:]))
    return np.array([result.score for result in results]), overlaps


def generated(tracker, numbers):
    other = list(render(make_spec(numbers[0] - 1)))
    for number in numbers:
        own = list(render(make_spec(number)))
        regions, images = [f.polygon.ravel() for f in own], [f.image for f in own]
        scores, overlaps = track(tracker, images, regions)
        covered = np.array([f.covered for f in own[1:]])
        yield Run(scores, {"astray": overlaps == 0, "seen": (overlaps > 0) & (covered < 0.5)})
        cut = images[:BEFORE_CUT] + [f.image for f in other[BEFORE_CUT:]]
        scores, _ = track(tracker, cut, regions)
        yield Run(scores, {"gone": np.arange(1, len(cut)) >= BEFORE_CUT})
        other = own


def real(tracker, names=("VOT2018", "OTB")):
    for name in names:
        for sequence in load_dataset(SEQUENCES / name):
            frames = map(sequence.frame, range(len(sequence)))
            scores, overlaps = track(tracker, frames, sequence.regions)
            yield Run(scores, {"astray": overlaps == 0, "seen": overlaps > 0})


def alarms(scores, score, frames):
    """(N,) whether the last `frames` scores are all below `score`."""
    weak = 0, *np.cumsum(scores < score)
    return np.array(
        [
            i + 1 >= frames and weak[i + 1] - weak[i + 1 - frames] == frames
            for i in range(len(scores))
        ]
    )


def rates(runs, score, frames):
    """For each kind of frames, how many there are, and the share that counts as lost."""
    found = {}
    for kind in ("gone", "astray", "seen"):
        those = [(run, run.kinds[kind]) for run in runs if kind in run.kinds]
        hits = [alarms(run.scores, score, frames)[which] for run, which in those]
        values = np.concatenate(hits) if hits else np.zeros(0)
        if len(values):
            found[kind] = {"frames": len(values), "lost": round(float(values.mean()), 4)}
    return found


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", default="data/demo/lost.yaml")
    options = parser.parse_args()
    tracker = open_tracker(precision="fp16")
    runs = {name: list(generated(tracker, numbers)) for name, numbers in HALVES.items()}
    settings = list(product(SCORES, FRAMES))
    allowed = [
        setting
        for setting in settings
        if rates(runs["choosing"], *setting)["seen"]["lost"] <= FALSE_ALARMS
    ]
    score, frames = max(
        allowed, key=lambda setting: rates(runs["choosing"], *setting)["gone"]["lost"]
    )
    if SEQUENCES.is_dir():
        runs["real"] = list(real(tracker))
    about = {
        "made_by": "tests/benchmarks/bench_lost.py, which says what the three kinds of frames are",
        "tracker": f"demo weights, {tracker.network.name}",
        "numbers": {name: f"{one[0]} to {one[-1]}" for name, one in HALVES.items()},
        "chosen": f"most of `gone` with at most {FALSE_ALARMS:.0%} of `seen`",
        "score": score,
        "frames": frames,
        **{name: rates(own, score, frames) for name, own in runs.items()},
    }
    text = yaml.safe_dump(about, sort_keys=False)
    Path(options.out).write_text(text)
    print(text)
    for setting in settings:
        print(*setting, {name: rates(own, *setting) for name, own in runs.items()})


if __name__ == "__main__":
    main()
