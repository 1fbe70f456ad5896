"""Small datasets and a scripted tracker for the tests of lib.vot."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np

from lib.vot.dataset import TAGS, Dataset, Video
from lib.vot.protocol import Trajectory

WIDTH, HEIGHT = 160, 120


def entries(*lines):
    """Raw result lines as a trajectory: numbers are codes, tuples are regions."""
    rows = tuple(np.atleast_1d(np.array(line, float)) for line in lines)
    return Trajectory(rows, np.full(len(rows), np.nan))


def still_sequence(name="still", count=40, box=(50.0, 40.0, 30.0, 20.0), **tags):
    """A target that does not move, without frames."""
    flags = {tag: np.array(tags.get(tag, np.zeros(count)), bool) for tag in TAGS}
    return Video(name, (), (np.array(box),) * count, flags, WIDTH, HEIGHT)


def dataset_of(*sequences):
    return Dataset("test", Path("test"), tuple(sequences))


def write_vot(folder, count=12, flat=False, box="50,40,30,20", suffix=".jpg"):
    """A VOT sequence folder with plain frames."""
    images = folder if flat else folder / "color"
    images.mkdir(parents=True, exist_ok=True)
    for index in range(count):
        image = np.full((HEIGHT, WIDTH, 3), 20 * index % 256, np.uint8)
        cv2.imwrite(str(images / f"{index + 1:08d}{suffix}"), image)
    (folder / "groundtruth.txt").write_text((box + "\n") * count)
    return folder


class ScriptedTracker:
    """Answers with the boxes it was given, keyed by the frame's number in its grey level, and
    remembers what it was asked."""

    def __init__(self, answer):
        self.answer, self.calls = answer, []

    def init(self, frame, box):
        self.calls.append(("init", box))

    def track(self, frame):
        self.calls.append(("track", len(self.calls)))
        return SimpleNamespace(box=self.answer(frame), score=1.0)
