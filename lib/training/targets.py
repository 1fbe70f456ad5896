"""What the network is asked to answer for a search crop: a label and a box offset for every anchor
(PySOT's `AnchorTarget`)."""

from __future__ import annotations

from typing import NamedTuple, Tuple

import numpy as np

from lib.siamrpn.anchors import STRIDE, anchor_grid, corners, iou

THRESHOLD_POSITIVE = 0.6
THRESHOLD_NEGATIVE = 0.3
POSITIVES = 16
NEGATIVES = 16  # of a pair whose target is absent
TOTAL = 64


class Targets(NamedTuple):
    """label (A, S, S) int64: 1, 0 or -1 (not used); delta (4, A, S, S) float32; weight (A, S, S)
    float32; overlap (A, S, S)."""

    label: np.ndarray
    delta: np.ndarray
    weight: np.ndarray
    overlap: np.ndarray


def output_size(search_size: int) -> int:
    """Side of the response map of a search crop: 25 for 255."""
    return (search_size - 127) // STRIDE + 1 + 8


def _keep(
    positions: Tuple[np.ndarray, ...], count: int, rng: np.random.RandomState
) -> Tuple[Tuple[np.ndarray, ...], int]:
    """At most `count` of the positions, drawn at random; draws nothing when there are no more than
    that."""
    found = positions[0].shape[0]
    if found <= count:
        return positions, found
    chosen = np.arange(found)
    rng.shuffle(chosen)
    return tuple(p[chosen[:count]] for p in positions), count


def anchor_targets(
    box: np.ndarray, size: int, negative: bool, rng: np.random.RandomState, search_size: int = 255
) -> Targets:
    """Labels and offsets for a target box x1 y1 x2 y2 in crop pixels on a size x size response map.

    A negative pair (the exemplar shows something else) has negatives around the box only. `rng` is
    used exactly as PySOT uses NumPy's global state.
    """
    grid = anchor_grid(size)
    grid[..., :2] += search_size // 2
    label = -np.ones(grid.shape[:3], np.int64)
    delta = np.zeros((4,) + grid.shape[:3], np.float32)
    weight = np.zeros(grid.shape[:3], np.float32)
    cx, cy = (box[0] + box[2]) * 0.5, (box[1] + box[3]) * 0.5
    width, height = box[2] - box[0], box[3] - box[1]
    if negative:
        col, row = (
            size // 2 + int(np.ceil((c - search_size // 2) / STRIDE + 0.5)) for c in (cx, cy)
        )
        label[:, max(0, row - 3) : min(size, row + 4), max(0, col - 3) : min(size, col + 4)] = 0
        kept, _ = _keep(np.where(label == 0), NEGATIVES, rng)
        label[:] = -1
        label[kept] = 0
        return Targets(label, delta, weight, np.zeros(grid.shape[:3], np.float32))
    acx, acy, aw, ah = np.moveaxis(grid, -1, 0)
    delta[0], delta[1] = (cx - acx) / aw, (cy - acy) / ah
    delta[2], delta[3] = np.log(width / aw), np.log(height / ah)
    overlap = iou(tuple(np.moveaxis(corners(grid), -1, 0)), tuple(np.asarray(box, float)))
    positive, count = _keep(np.where(overlap > THRESHOLD_POSITIVE), POSITIVES, rng)
    rest, _ = _keep(np.where(overlap < THRESHOLD_NEGATIVE), TOTAL - POSITIVES, rng)
    label[positive] = 1
    weight[positive] = 1.0 / (count + 1e-6)
    label[rest] = 0
    return Targets(label, delta, weight, overlap)
