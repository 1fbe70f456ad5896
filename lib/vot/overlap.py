"""Overlap of two regions (section 3.3.1, equation 3.2), for whole trajectories at once.

`pixel_overlap` counts the pixels of rasterised polygons, as PySOT's compiled region code and VOT's
toolkits do; `area_overlap` takes exact areas. A region is a box (x, y, w, h) or a polygon of four
corners (x1, y1, .. x4, y4).
"""

from __future__ import annotations

from typing import Sequence

import numpy as np

_ABSENT = np.int32(1 << 30)  # sorts behind every crossing of a scan line


def region_corners(regions: Sequence[np.ndarray], box_end: float = 0) -> np.ndarray:
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
                left, top = values[:, :2].T
                right, bottom = (values[:, :2] + values[:, 2:] + box_end).T
                values = np.stack([left, top, right, top, right, bottom, left, bottom], 1)
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
    corners = np.stack([p, q]).astype(np.float32)  # (2, N, 4, 2)
    low, high = (-np.inf, np.inf) if bounds is None else (0.0, np.asarray(bounds, np.float32))
    known = np.isfinite(corners).all((0, 2, 3))
    overlap = np.where(known, 0.0, np.nan)
    with np.errstate(invalid="ignore"):
        least = np.maximum(np.floor(corners.min(2)), low)  # (2, N, 2)
        most = np.minimum(np.ceil(corners.max(2)), high)
        meet = np.flatnonzero(known & (most.min(0) > least.max(0)).all(1))
    if meet.size:
        origin = least[:, meet].min(0)
        size = (most[:, meet].max(0) - origin).astype(np.int32) + 1
        both, either = _count_pixels(_round(corners[:, meet] - origin[:, None]), size)
        overlap[meet] = both.astype(np.float32) / np.maximum(either, 1).astype(np.float32)
    return overlap


def area_overlap(boxes: np.ndarray, polygons: np.ndarray) -> np.ndarray:
    """Intersection over union of exact areas: corners (N, 4, 2) of boxes and of polygons -> (N,)
    float64 in 0..1, NaN where a corner is not finite.

    The polygon is cut along the box's four sides. A corner outside moves onto the side, so every
    polygon keeps the same number of corners, and what lies along the side encloses nothing.
    """
    cut = polygons
    for axis, inwards, side in ((0, 1, 0), (1, 1, 0), (0, -1, 2), (1, -1, 2)):
        depth = inwards * (cut[..., axis] - boxes[:, side, axis, None])  # (N, V)
        ahead, beyond = np.roll(depth, -1, 1), np.roll(cut, -1, 1)
        crosses = (depth < 0) != (ahead < 0)
        t = np.where(crosses, depth, 0.0) / np.where(crosses, depth - ahead, 1.0)
        inside = cut.copy()
        inside[..., axis] -= inwards * np.minimum(depth, 0.0)
        crossing = np.where(crosses[..., None], cut + t[..., None] * (beyond - cut), inside)
        cut = np.stack([inside, crossing], 2).reshape(len(cut), -1, 2)  # (N, 2V, 2)
    both = _area(cut)
    either = _area(boxes) + _area(polygons) - both
    return np.where(np.isnan(either), np.nan, both / np.where(either > 0, either, 1.0))


def _area(corners: np.ndarray) -> np.ndarray:
    corners = corners - corners[:, :1]  # near the origin, for precision
    x, y = corners[..., 0], corners[..., 1]
    return 0.5 * np.abs((x * np.roll(y, -1, 1) - np.roll(x, -1, 1) * y).sum(1))


def _round(values: np.ndarray) -> np.ndarray:
    """Half away from zero, as C's round(); float64 so that adding 0.5 is exact, and cut to what
    fits an int32."""
    return np.clip(np.trunc(values.astype(float) + np.copysign(0.5, values)), -1e8, 1e8)


def _count_pixels(polygons: np.ndarray, size: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Pixels in both and in either of N pairs of whole-number polygons (2, N, 4, 2) on grids of
    size (N, 2)."""
    y = polygons[..., 1]
    top = np.maximum(y.min((0, 2)), 0).astype(np.int32)
    bottom = np.minimum(y.max((0, 2)), size[:, 1] - 1).astype(np.int32)
    rows = np.maximum(bottom - top + 1, 1)
    starts = np.concatenate([[0], np.cumsum(rows)[:-1]])
    line = np.arange(rows.sum(), dtype=np.int32) - np.repeat(starts.astype(np.int32) - top, rows)
    last = np.repeat(size[:, 0] - 1, rows)
    spans_p, spans_q = (_spans(polygon, rows, line, last) for polygon in polygons)
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
    nodes = []
    for i in range(4):  # edges from corner i back to corner i - 1, horizontal ones have no node
        (x, y), (k, r) = polygon[:, i].T, (polygon[:, i - 1] - polygon[:, i]).T
        low, high = np.where(r == 0, np.inf, np.minimum(y, y + r)), np.maximum(y, y + r)
        on = (line >= np.repeat(low, rows)) & (line <= np.repeat(high, rows))
        x, y, k, r = (np.repeat(value, rows) for value in (x, y, k, np.where(r == 0, 1, r)))
        # towards zero, as C's cast
        nodes.append(np.where(on, x + (line - y) / r * k, _ABSENT).astype(np.int32))
    for i, j in ((0, 1), (2, 3), (0, 2), (1, 3), (1, 2)):
        nodes[i], nodes[j] = np.minimum(nodes[i], nodes[j]), np.maximum(nodes[i], nodes[j])
    n0, n1, n2, n3 = nodes
    # Walk the sorted nodes: equal neighbours mean a corner, the first is passed over;
    # otherwise the pair is filled.
    first = (n0 != n1) & (n1 != _ABSENT)
    second = ~first & (n1 != n2) & (n2 != _ABSENT)
    third = ~second & (n2 != n3) & (n3 != _ABSENT)
    spans = [(np.where(first, n0, n1), np.where(first, n1, np.where(second, n2, -1)))]
    if third.any():
        spans.append((np.where(first & (n1 == n2), n2 + 1, n2), np.where(third, n3, -1)))
    return [(np.maximum(left, 0), np.minimum(right, last)) for left, right in spans]
