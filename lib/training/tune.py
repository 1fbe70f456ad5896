"""Penalty, window influence and rate of the tracker, chosen for a network on sequences that its
training did not see."""

from __future__ import annotations

from dataclasses import replace
from typing import Callable, Dict, Sequence, Tuple

import numpy as np

from lib.siamrpn.contract import EngineNetwork
from lib.siamrpn.tracker import SiamRPNTracker, TrackerConfig
from lib.training.pairs import Clip
from lib.vot.dataset import Video, read_frame
from lib.vot.one_pass import average_overlap
from lib.vot.protocol import run_one_pass

GRID: Dict[str, Tuple[float, ...]] = {
    "window": (0.2, 0.3, 0.36, 0.42, 0.48, 0.55),
    "penalty": (0.02, 0.05, 0.1, 0.16, 0.24),
    "rate": (0.2, 0.3, 0.38, 0.5, 0.65),
}


def as_video(clip: Clip) -> Video:
    """A training clip of several frames as a sequence to track."""
    height, width = read_frame(clip[0].path).shape[:2]
    frames, boxes = zip(*clip)
    regions = tuple(np.array([x1, y1, x2 - x1, y2 - y1]) for x1, y1, x2, y2 in boxes)
    return Video(clip[0].path.stem, frames, regions, {}, width, height)


def overlap_on(network: EngineNetwork, videos: Sequence[Video], config: TrackerConfig) -> float:
    """Mean over sequences of the average overlap in one pass, 0..1."""
    tracker = SiamRPNTracker(network, config)
    overlaps = [average_overlap(video, run_one_pass(tracker, video)) for video in videos]
    return float(np.mean(overlaps))


def tune(
    network: EngineNetwork,
    videos: Sequence[Video],
    report: Callable[[TrackerConfig, float], None] = lambda config, overlap: None,
) -> Tuple[TrackerConfig, float]:
    """Coordinate search over GRID from PySOT's settings: in turn, each setting takes its best
    value, twice over.

    Returns the settings and their mean average overlap. report(config, overlap) hears of every
    trial.
    """
    tried: Dict[TrackerConfig, float] = {}

    def best(trials: Sequence[TrackerConfig]) -> TrackerConfig:
        for config in trials:
            if config not in tried:
                tried[config] = overlap_on(network, videos, config)
                report(config, tried[config])
        return max(tried, key=lambda config: tried[config])

    chosen = best([TrackerConfig()])
    for name, values in [*GRID.items()] * 2:
        chosen = best([replace(chosen, **{name: value}) for value in values])
    return chosen, tried[chosen]
