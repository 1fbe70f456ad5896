"""Penalty, window influence and rate of the tracker, chosen for a network on sequences that its
training did not see."""

from __future__ import annotations

from dataclasses import replace
from typing import Callable, Dict, List, Sequence, Tuple

import cv2
import numpy as np

from lib.errors import InputError
from lib.siamrpn.contract import TrackerNetwork
from lib.siamrpn.tracker import SiamRPNTracker, TrackerConfig
from lib.training.pairs import Clip
from lib.vot.dataset import Sequence as Video
from lib.vot.metrics import average_overlap
from lib.vot.protocol import run_one_pass

GRID: Dict[str, Tuple[float, ...]] = {
    "window": (0.2, 0.3, 0.36, 0.42, 0.48, 0.55),
    "penalty": (0.02, 0.05, 0.1, 0.16, 0.24),
    "rate": (0.2, 0.3, 0.38, 0.5, 0.65),
}


def as_video(clip: Clip) -> Video:
    """A training clip of several frames as a sequence to track."""
    picture = cv2.imread(str(clip[0].path))
    if picture is None or len(clip[0].box) != 4:
        raise InputError(f"{clip[0].path}: not a frame with a box to track")
    boxes = tuple(
        np.array([x1, y1, x2 - x1, y2 - y1]) for x1, y1, x2, y2 in (frame.box for frame in clip)
    )
    return Video(
        clip[0].path.stem,
        tuple(frame.path for frame in clip),
        boxes,
        {},
        picture.shape[1],
        picture.shape[0],
    )


def overlap_on(network: TrackerNetwork, videos: Sequence[Video], config: TrackerConfig) -> float:
    """Mean over sequences of the average overlap in one pass, 0..1."""
    tracker = SiamRPNTracker(network, config)
    return float(
        np.mean([average_overlap(video, run_one_pass(tracker, video)) for video in videos])
    )


def tune(
    network: TrackerNetwork,
    videos: Sequence[Video],
    rounds: int = 2,
    report: Callable[[TrackerConfig, float], None] = lambda config, overlap: None,
) -> Tuple[TrackerConfig, float]:
    """Coordinate search over GRID from PySOT's settings: one at a time takes its best value,
    `rounds` times over.

    Returns the settings and their mean average overlap. report(config, overlap) hears of every
    trial.
    """
    best = TrackerConfig()
    best_overlap = overlap_on(network, videos, best)
    report(best, best_overlap)
    tried: List[TrackerConfig] = [best]
    for _ in range(rounds):
        for name, values in GRID.items():
            for config in [replace(best, **{name: value}) for value in values]:
                if config in tried:
                    continue
                tried.append(config)
                overlap = overlap_on(network, videos, config)
                report(config, overlap)
                if overlap > best_overlap:
                    best, best_overlap = config, overlap
    return best, best_overlap
