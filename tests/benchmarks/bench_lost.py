"""When is a target lost? `python tests/benchmarks/bench_lost.py [--out data/demo/lost.yaml]`.

Tracks generated sequences that are in no benchmark (lib.demo_scenes, numbers from 1001) once each
with the demo tracker in FP32, and in the same way the real sequences in ../shared/sequences. A
target is really lost in a frame where the box does not overlap the annotation. The threshold is
chosen on the first half of the generated sequences: the most hits with at most `FALSE_ALARMS`.
"""

from __future__ import annotations

import argparse
from itertools import product
from pathlib import Path

import numpy as np
import yaml

from lib.demo import render
from lib.demo_scenes import make_spec
from lib.engines.zoo import open_tracker
from lib.vot.dataset import axis_aligned_box, load_dataset
from lib.vot.overlap import area_overlap, region_corners

FALSE_ALARMS = 0.02  # share of the frames in which the target is not lost
CHOOSING, TESTING = range(1001, 1121), range(1121, 1241)
SCORES, FRAMES = np.arange(0.05, 1, 0.05).round(2), (1, 2, 3, 4, 5)
SEQUENCES = Path(__file__).resolve().parents[3] / "shared" / "sequences"


def tracked(tracker, frames, regions):
    """Scores, and overlaps with the annotations, of the frames after the first."""
    frames = iter(frames)
    tracker.init(next(frames), axis_aligned_box(regions[0]))
    results = [tracker.track(frame) for frame in frames]
    boxes = [result.box for result in results]
    overlaps = area_overlap(region_corners(boxes), region_corners(regions[1:]))
    return np.array([result.score for result in results]), overlaps


def generated(tracker, numbers):
    for number in numbers:
        frames = list(render(make_spec(number)))
        yield tracked(tracker, [f.image for f in frames], [f.polygon.ravel() for f in frames])


def real(tracker, names=("VOT2018", "OTB")):
    for name in names:
        for sequence in load_dataset(SEQUENCES / name):
            frames = map(sequence.frame, range(len(sequence)))
            yield tracked(tracker, frames, sequence.regions)


def alarms(scores, score, frames):
    """Whether the last `frames` scores of each frame are all below `score`."""
    weak = np.zeros(len(scores), int)
    for index, value in enumerate(scores):
        weak[index] = weak[index - 1] + 1 if value < score else 0
    return weak >= frames


def rates(runs, score, frames):
    """Share of lost frames with an alarm, and of other frames with one."""
    lost = np.concatenate([overlaps == 0 for _, overlaps in runs])
    alarm = np.concatenate([alarms(scores, score, frames) for scores, _ in runs])
    return {
        "sequences": len(runs),
        "frames": len(lost),
        "lost": int(lost.sum()),
        "hits": round(float(alarm[lost].mean()), 4) if lost.any() else None,
        "false_alarms": round(float(alarm[~lost].mean()), 4),
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", default="data/demo/lost.yaml")
    options = parser.parse_args()
    tracker = open_tracker()
    choosing = list(generated(tracker, CHOOSING))
    found = [
        (rates(choosing, float(score), frames), float(score), frames)
        for score, frames in product(SCORES, FRAMES)
    ]
    allowed = [one for one in found if one[0]["false_alarms"] <= FALSE_ALARMS]
    best, score, frames = max(allowed, key=lambda one: one[0]["hits"])
    about = {
        "made_by": "tests/benchmarks/bench_lost.py",
        "tracker": f"demo weights, {tracker.network.name}",
        "lost": "the box does not overlap the annotation",
        "chosen": f"most hits with at most {FALSE_ALARMS:.0%} false alarms, on `choosing`",
        "score": score,
        "frames": frames,
        "choosing": {"generated": f"{CHOOSING[0]} to {CHOOSING[-1]}", **best},
        "testing": {
            "generated": f"{TESTING[0]} to {TESTING[-1]}",
            **rates(list(generated(tracker, TESTING)), score, frames),
        },
    }
    if SEQUENCES.is_dir():
        about["real"] = rates(list(real(tracker)), score, frames)
    text = yaml.safe_dump(about, sort_keys=False)
    Path(options.out).write_text(text)
    print(text)


if __name__ == "__main__":
    main()
