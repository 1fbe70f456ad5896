"""Overlap of two regions (section 3.3.1, equation 3.2), for whole trajectories at once.

Two ways of measuring: `pixel_overlap` counts the pixels of rasterised polygons as PySOT's compiled
region code and VOT's toolkits do, `area_overlap` takes exact areas. `surely_meet` tells of most
single pairs at a glance that they overlap at all. A region is a box (x, y, w, h) or a polygon of
four corners (x1, y1, .. x4, y4).
"""

from __future__ import annotations

from math import hypot
from typing import Sequence as Seq

import numpy as np

# Pixels inside: more than rounding a corner (0.71) and the point (0.71) to whole pixels can take
# away
DEEP = 3.0
_ABSENT = np.int32(1 << 30)  # sorts behind every crossing of a scan line


def region_corners(regions: Seq[np.ndarray], box_end: float = 0) -> np.ndarray:
    """Corners of boxes and polygons: N regions of 4 or 8 numbers -> (N, 4, 2) float64; anything
    else (a code) becomes NaN.

    Boxes reach from x to x + w + box_end, and clockwise from the top left corner.
    """
    sizes = np.array([len(region) for region in regions], int)
    corners = np.full((len(regions), 8), np.nan)
    for size in (4, 8):
        rows = np.flatnonzero(sizes == size)
        if rows.size:
            values = np.array([regions[row] for row in rows.tolist()], dtype=np.float64)
            if size == 4:
                low, high = values[:, :2], values[:, :2] + values[:, 2:] + box_end
                values = np.concatenate(
                    [low, high[:, :1], low[:, 1:], high, low[:, :1], high[:, 1:]], 1
                )
            corners[rows] = values
    return corners.reshape(-1, 4, 2)


def pixel_overlap(
    p: np.ndarray, q: np.ndarray, bounds: np.ndarray | tuple[float, float] | None = None
) -> np.ndarray:
    """Intersection over union of rasterised regions.

    p, q: corners (N, 4, 2) in pixels. bounds: (w, h) or (N, 2), pixels 0..w and 0..h are counted,
    None for no bounds. Returns (N,) float64 in 0..1, NaN where a corner is not finite. The rules
    are those of region.c in PySOT (VOT's TraX code): corners rounded half away from zero, both ends
    of a scan line filled (a box of 20 x 20 has 21 x 21 pixels), rows and columns of a single node
    left out, and 0 at once where the bounding boxes cut to `bounds` have no common area.
    """
    p, q = np.asarray(p, np.float32), np.asarray(q, np.float32)
    low, high = (
        (-np.inf, np.float32(np.inf)) if bounds is None else (0.0, np.asarray(bounds, np.float32))
    )
    known = np.isfinite(p).all((1, 2)) & np.isfinite(q).all((1, 2))
    overlap = np.where(known, 0.0, np.nan)
    with np.errstate(invalid="ignore"):
        p_low, p_high = np.maximum(np.floor(p.min(1)), low), np.minimum(np.ceil(p.max(1)), high)
        q_low, q_high = np.maximum(np.floor(q.min(1)), low), np.minimum(np.ceil(q.max(1)), high)
        meet = known & (np.minimum(p_high, q_high) > np.maximum(p_low, q_low)).all(1)
    origin = np.minimum(p_low, q_low)
    boxes, swap = _is_box(p), ~_is_box(p) & _is_box(q)
    # The cheap shape first
    p, q = np.where(swap[:, None, None], q, p), np.where(swap[:, None, None], p, q)
    for rows in (np.flatnonzero(meet & (boxes | swap)), np.flatnonzero(meet & ~(boxes | swap))):
        if rows.size:
            shift, size = (
                origin[rows],
                (np.maximum(p_high, q_high) - origin)[rows].astype(np.int32) + 1,
            )
            both, either = _count_pixels(
                _round(p[rows] - shift[:, None]), _round(q[rows] - shift[:, None]), size
            )
            overlap[rows] = both.astype(np.float32) / np.maximum(either, 1).astype(np.float32)
    return overlap


def area_overlap(p: np.ndarray, q: np.ndarray) -> np.ndarray:
    """Intersection over union of exact areas: corners (N, 4, 2) twice -> (N,) float64 in 0..1, NaN
    where a corner is not finite.

    One of each pair has to be convex. p is cut along the four sides of q: a corner outside is
    projected onto the side, so every polygon of the batch keeps the same number of corners and the
    parts along the side enclose nothing.
    """
    swap = (_is_box(p) & ~_is_box(q))[:, None, None]
    p, q = np.where(swap, q, p), np.where(swap, p, q)  # the box cuts
    area_p, area_q = np.abs(_signed_area(p)), _signed_area(q)
    cut = p
    for side in range(4):
        start, along = q[:, side], q[:, (side + 1) % 4] - q[:, side]
        normal = np.stack([-along[:, 1], along[:, 0]], 1) * np.where(area_q < 0, -1.0, 1.0)[:, None]
        length = (normal * normal).sum(1)
        depth = ((cut - start[:, None]) * normal[:, None]).sum(2)  # (N, V), positive inside
        ahead, beyond = np.roll(depth, -1, 1), np.roll(cut, -1, 1)
        crosses = (depth < 0) != (ahead < 0)
        t = np.where(crosses, depth, 0.0) / np.where(crosses, depth - ahead, 1.0)
        inside = (
            cut
            - (np.minimum(depth, 0.0) / np.where(length > 0, length, 1.0)[:, None])[..., None]
            * normal[:, None]
        )
        crossing = np.where(crosses[..., None], cut + t[..., None] * (beyond - cut), inside)
        cut = np.stack([inside, crossing], 2).reshape(len(cut), -1, 2)  # (N, 2V, 2)
    both = np.abs(_signed_area(cut))
    either = area_p + np.abs(area_q) - both
    return np.where(np.isnan(either), np.nan, both / np.where(either > 0, either, 1.0))


def surely_meet(p: np.ndarray, q: np.ndarray, bounds: tuple[float, float]) -> bool:
    """Whether a point lies so deep inside both regions, corners (4, 2) each, and inside 0..w and
    0..h, bounds (w, h), that their overlap is above 0 by pixels as by areas. False says nothing:
    the point is the middle of what the bounding boxes share.

    For one pair in a tenth of the time of `pixel_overlap`, which is made for thousands.
    """
    low, high = np.maximum(p.min(0), q.min(0)), np.minimum(p.max(0), q.max(0))
    x, y = ((low + high) / 2).tolist()
    if not (DEEP < x < bounds[0] - DEEP and DEEP < y < bounds[1] - DEEP):
        return False
    for corners in (p.tolist(), q.tolist()):
        depths = []  # signed distances from the lines along the sides, all of one sign inside
        for (x1, y1), (x2, y2) in zip(corners, corners[1:] + corners[:1]):
            depths.append(
                ((x2 - x1) * (y - y1) - (y2 - y1) * (x - x1)) / (hypot(x2 - x1, y2 - y1) or 1.0)
            )
        if not (min(depths) > DEEP or max(depths) < -DEEP):
            return False
    return True


def _signed_area(corners: np.ndarray) -> np.ndarray:
    corners = corners - corners[:, :1]  # near the origin, for precision
    x, y = corners[..., 0], corners[..., 1]
    return 0.5 * (x * np.roll(y, -1, 1) - np.roll(x, -1, 1) * y).sum(1)


def _is_box(corners: np.ndarray) -> np.ndarray:
    """Axis-aligned with the corners in order, starting along x or along y."""
    x, y = corners[..., 0], corners[..., 1]
    along_x = (
        (y[:, 0] == y[:, 1]) & (x[:, 1] == x[:, 2]) & (y[:, 2] == y[:, 3]) & (x[:, 3] == x[:, 0])
    )
    along_y = (
        (x[:, 0] == x[:, 1]) & (y[:, 1] == y[:, 2]) & (x[:, 2] == x[:, 3]) & (y[:, 3] == y[:, 0])
    )
    return along_x | along_y


def _round(values: np.ndarray) -> np.ndarray:
    """Half away from zero, as C's round(); float64 so that adding 0.5 is exact, and cut to what
    fits an int32."""
    return np.clip(np.trunc(values.astype(float) + np.copysign(0.5, values)), -1e8, 1e8)


def _count_pixels(p: np.ndarray, q: np.ndarray, size: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Pixels in both and in either of two batches of whole-number polygons (F, 4, 2) on grids of
    size (F, 2)."""
    y = np.concatenate([p[..., 1], q[..., 1]], 1)
    top = np.maximum(y.min(1), 0).astype(np.int32)
    rows = np.maximum(np.minimum(y.max(1), size[:, 1] - 1).astype(np.int32) - top + 1, 1)
    starts = np.concatenate([[0], np.cumsum(rows)[:-1]])
    line = np.arange(rows.sum(), dtype=np.int32) - np.repeat(starts.astype(np.int32) - top, rows)
    last = np.repeat(size[:, 0].astype(np.int32) - 1, rows)
    spans_p, spans_q = (_spans(polygon, rows, line, last) for polygon in (p, q))
    count = sum(np.maximum(right - left + 1, 0) for left, right in spans_p + spans_q)
    both = sum(
        np.maximum(np.minimum(a[1], b[1]) - np.maximum(a[0], b[0]) + 1, 0)
        for a in spans_p
        for b in spans_q
    )
    both = np.add.reduceat(both, starts)
    return both, np.add.reduceat(count, starts) - both


def _spans(
    polygon: np.ndarray, rows: np.ndarray, line: np.ndarray, last: np.ndarray
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Filled pixels of every scan line: one or two pairs (first, last), each (R,) int32, empty
    where last < first."""
    if _is_box(polygon).all():
        left, top = polygon.min(1).astype(np.int32).T
        right, bottom = polygon.max(1).astype(np.int32).T
        # An edge without thickness fills nothing
        right = np.where((left == right) | (top == bottom), -1, right)
        on = (line >= np.repeat(top, rows)) & (line <= np.repeat(bottom, rows))
        return [_clip(np.repeat(left, rows), np.where(on, np.repeat(right, rows), -1), last)]
    nodes = []
    for i in range(4):  # edges from corner i back to corner i - 1, horizontal ones have no node
        (x, y), (k, r) = polygon[:, i].T, (polygon[:, i - 1] - polygon[:, i]).T
        low, high = np.where(r == 0, np.inf, np.minimum(y, y + r)), np.maximum(y, y + r)
        on = (line >= np.repeat(low, rows)) & (line <= np.repeat(high, rows))
        at = np.repeat(x, rows) + (line - np.repeat(y, rows)) / np.repeat(
            np.where(r == 0, 1, r), rows
        ) * np.repeat(k, rows)
        nodes.append(np.where(on, at, _ABSENT).astype(np.int32))  # towards zero, as C's cast
    for i, j in ((0, 1), (2, 3), (0, 2), (1, 3), (1, 2)):
        nodes[i], nodes[j] = np.minimum(nodes[i], nodes[j]), np.maximum(nodes[i], nodes[j])
    n0, n1, n2, n3 = nodes
    # Walk the sorted nodes: equal neighbours mean a corner, the first is passed over;
    # otherwise the pair is filled.
    first = (n0 != n1) & (n1 != _ABSENT)
    second = ~first & (n1 != n2) & (n2 != _ABSENT)
    third = ~second & (n2 != n3) & (n3 != _ABSENT)
    spans = [_clip(np.where(first, n0, n1), np.where(first, n1, np.where(second, n2, -1)), last)]
    if third.any():
        spans.append(_clip(np.where(first & (n1 == n2), n2 + 1, n2), np.where(third, n3, -1), last))
    return spans


def _clip(left: np.ndarray, right: np.ndarray, last: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return np.maximum(left, 0), np.minimum(right, last)
