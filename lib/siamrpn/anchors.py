"""Anchors of the region proposal network and the overlap of boxes (thesis figure 2.10; values of
PySOT's ResNet-50 model)."""

from __future__ import annotations

from typing import Tuple

import numpy as np

STRIDE = 8
RATIOS = (0.33, 0.5, 1.0, 2.0, 3.0)
SCALE = 8.0


def anchor_grid(size: int) -> np.ndarray:
    """Anchors of every output position, centred on the crop's centre: (A, size, size, 4) float32,
    cx cy w h in pixels of the search crop.

    Sides are cut to whole numbers before scaling, as PySOT does.
    """
    offset = (np.arange(size) - size // 2) * STRIDE
    grid = np.zeros((len(RATIOS), size, size, 4), np.float32)
    grid[..., 0] = offset[None, None, :]
    grid[..., 1] = offset[None, :, None]
    for anchor, ratio in zip(grid, RATIOS):
        width = int(np.sqrt(STRIDE * STRIDE / ratio))
        anchor[..., 2:] = width * SCALE, int(width * ratio) * SCALE
    return grid


def corners(boxes: np.ndarray) -> np.ndarray:
    """cx cy w h to x1 y1 x2 y2, last axis."""
    half = boxes[..., 2:] * 0.5
    return np.concatenate([boxes[..., :2] - half, boxes[..., :2] + half], axis=-1)


def iou(a: Tuple[np.ndarray, ...], b: Tuple[np.ndarray, ...]) -> np.ndarray:
    """Intersection over union of boxes given as (x1, y1, x2, y2) arrays that broadcast."""
    width = np.maximum(0, np.minimum(a[2], b[2]) - np.maximum(a[0], b[0]))
    height = np.maximum(0, np.minimum(a[3], b[3]) - np.maximum(a[1], b[1]))
    inter = width * height
    return inter / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - inter)
