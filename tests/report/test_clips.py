"""Clips show what was measured: the sequence that the rule names, every frame, the failures."""

from __future__ import annotations

import re
from base64 import b64decode
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest

from lib.report import clips
from lib.vot.dataset import Dataset
from lib.vot.protocol import FAILURE, Trajectory


def tracked(data: Dataset, lost: dict[str, int]) -> Any:
    """A measurement whose boxes are the annotations, but for a failure at a frame of `lost`."""
    trajectories = {}
    for sequence in data:
        entries = [np.array([1.0]), *sequence.regions[1:]]
        if sequence.name in lost:
            entries[lost[sequence.name]] = np.array([FAILURE], float)
        trajectories[sequence.name] = Trajectory(tuple(entries), np.zeros(len(entries)))
    return SimpleNamespace(trajectories=trajectories)


def frames_of(clip: clips.Clip, folder: Path) -> list[np.ndarray]:
    [video] = re.findall(r'src="data:video/mp4;base64,([^"]+)"', clip._repr_html_())
    path = folder / "clip.mp4"
    path.write_bytes(b64decode(video))
    capture, found = cv2.VideoCapture(str(path)), []
    there, frame = capture.read()
    while there:
        found.append(frame)
        there, frame = capture.read()
    return found


@pytest.mark.parametrize("place", [0, -1])
def test_a_clip_shows_where_the_last_tracker_fails_and_the_first_does_not(
    still: Dataset, tmp_path: Path, place: int
) -> None:
    hard = still.sequences[place]
    trackers = {"sound": tracked(still, {}), "weak": tracked(still, {hard.name: 2})}
    clip = clips.side_by_side(still, trackers, "{sequence} is hard", length=6)
    assert clip.caption == f"{hard.name} is hard" and hard.name in clip.alt
    frames = frames_of(clip, tmp_path)
    assert len(frames) == min(6, len(hard))
    assert frames[0].shape[1] == 2 * clips.WIDTH
    # The frame of a failure is drawn red around the weak tracker's panel, and nowhere else
    left, right = np.hsplit(frames[2].astype(int), 2)
    redness = [
        panel[-4:, 20:-20, 2].mean() - panel[-4:, 20:-20, 0].mean() for panel in (left, right)
    ]
    assert redness[1] > redness[0] + 60
