"""What the network is asked to answer for a search crop: a label and a box offset for every anchor
(PySOT's `AnchorTarget`)."""

from __future__ import annotations

from typing import Dict, Tuple

import numpy as np

from lib.siamrpn.anchors import STRIDE, anchor_grid, corners, iou

THRESHOLD_POSITIVE = 0.6
THRESHOLD_NEGATIVE = 0.3
POSITIVES = 16
NEGATIVES = 16  # of a pair whose target is absent
TOTAL = 64


def output_size(search_size: int) -> int:
    """Side of the response map of a search crop: 25 for 255."""
    return (search_size - 127) // STRIDE + 1 + 8


def _some(where: np.ndarray, count: int, rng: np.random.RandomState) -> Tuple[np.ndarray, ...]:
    """Indices of at most `count` true places, drawn at random; draws nothing when there are no more
    than that."""
    positions = np.nonzero(where)
    if len(positions[0]) <= count:
        return positions
    chosen = np.arange(len(positions[0]))
    rng.shuffle(chosen)
    return tuple(p[chosen[:count]] for p in positions)


def anchor_targets(
    box: np.ndarray, negative: bool, rng: np.random.RandomState, search_size: int = 255
) -> Dict[str, np.ndarray]:
    """Labels and offsets for a target box x1 y1 x2 y2 in pixels of a search crop, on its response
    map: label (A, S, S) int64: 1, 0 or -1 (not used); delta (4, A, S, S) and weight (A, S, S)
    float32.

    A negative pair (the exemplar shows something else) has negatives around the box only. `rng` is
    used exactly as PySOT uses NumPy's global state.
    """
    size = output_size(search_size)
    grid = anchor_grid(size)
    grid[..., :2] += search_size // 2
    shape = grid.shape[:3]
    label, delta = -np.ones(shape, np.int64), np.zeros((4, *shape), np.float32)
    weight = np.zeros(shape, np.float32)
    cx, cy = (box[0] + box[2]) * 0.5, (box[1] + box[3]) * 0.5
    if negative:
        col, row = (
            size // 2 + int(np.ceil((c - search_size // 2) / STRIDE + 0.5)) for c in (cx, cy)
        )
        near = np.zeros(shape, bool)
        near[:, max(0, row - 3) : row + 4, max(0, col - 3) : col + 4] = True
        label[_some(near, NEGATIVES, rng)] = 0
        return {"label": label, "delta": delta, "weight": weight}
    acx, acy, aw, ah = np.moveaxis(grid, -1, 0)
    delta[0], delta[1] = (cx - acx) / aw, (cy - acy) / ah
    delta[2], delta[3] = np.log((box[2] - box[0]) / aw), np.log((box[3] - box[1]) / ah)
    overlap = iou(tuple(np.moveaxis(corners(grid), -1, 0)), tuple(np.asarray(box, float)))
    positive = _some(overlap > THRESHOLD_POSITIVE, POSITIVES, rng)
    label[_some(overlap < THRESHOLD_NEGATIVE, TOTAL - POSITIVES, rng)] = 0
    label[positive] = 1
    weight[positive] = 1.0 / (len(positive[0]) + 1e-6)
    return {"label": label, "delta": delta, "weight": weight}
