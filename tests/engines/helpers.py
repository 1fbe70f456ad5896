"""What engines are fed, and how far apart their answers are."""

from __future__ import annotations

from typing import List, Tuple

import numpy as np

from lib.engines.calibration import CropPair
from lib.engines.export import random_feeds

CHANNELS = 32  # of conftest's network


def crops(seed: int) -> Tuple[np.ndarray, np.ndarray]:
    """(exemplar, search crop)"""
    target, search = (random_feeds(name, CHANNELS, seed) for name in ("target", "search"))
    return target["exemplar"], search["search"]


def noise_pairs(count: int) -> List[CropPair]:
    random = np.random.RandomState(0)
    return [
        CropPair(*(random.randint(0, 256, (side, side, 3), np.uint8) for side in (127, 255)))
        for _ in range(count)
    ]


def of_the_range(own: np.ndarray, theirs: np.ndarray) -> float:
    """The largest difference, as a share of the range of `theirs`."""
    return float(np.abs(own - theirs).max() / np.ptp(theirs))


def mean_of_the_range(own: np.ndarray, theirs: np.ndarray) -> float:
    """The root mean square of the differences, as a share of the range of `theirs`."""
    return float(np.sqrt(np.mean((own - theirs) ** 2)) / np.ptp(theirs))
