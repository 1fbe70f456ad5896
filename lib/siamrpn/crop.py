"""Exemplar and search crops (thesis figures 3.2 and 3.3): square windows around a target, padded
with the frame's mean colour."""

from __future__ import annotations

import cv2
import numpy as np

CONTEXT = 0.5  # context added around the target, as a share of width plus height
EXEMPLAR_SIZE = 127
SEARCH_SIZE = 255


def context_side(width: float, height: float) -> float:
    """Side of the square exemplar window of a target, in frame pixels: sqrt((w + p)(h + p)) with p
    = (w + h) / 2."""
    context = CONTEXT * (width + height)
    return float(np.sqrt((width + context) * (height + context)))


def subwindow(
    frame: np.ndarray, center: np.ndarray, side: int, out_size: int, fill: np.ndarray
) -> np.ndarray:
    """Cut a square window out of a frame and resize it.

    frame: (H, W, 3) uint8. center: (2,) x, y. side: window side in frame pixels. fill: (3,) colour
    outside the frame. Returns (out_size, out_size, 3) uint8. Window borders are rounded as PySOT's
    `get_subwindow` rounds them, but only the window is padded, not the frame.
    """
    x0, y0 = (int(np.floor(c - (side + 1) / 2 + 0.5)) for c in center)
    height, width = frame.shape[:2]
    left, top = max(0, -x0), max(0, -y0)
    right, bottom = max(0, x0 + side - width), max(0, y0 + side - height)
    patch = frame[max(0, y0) : max(0, y0 + side), max(0, x0) : max(0, x0 + side)]
    if left or top or right or bottom:
        # PySOT's canvas is uint8 too: the mean colour is cut to whole numbers
        color = np.asarray(fill).astype(np.uint8).tolist()
        if patch.size == 0:  # the window lies outside of the frame
            return np.full((out_size, out_size, 3), color, np.uint8)
        patch = cv2.copyMakeBorder(
            patch, top, bottom, left, right, cv2.BORDER_CONSTANT, value=color
        )
    if side != out_size:
        patch = cv2.resize(patch, (out_size, out_size))
    return patch


def as_input(crop: np.ndarray) -> np.ndarray:
    """Crop (S, S, 3) uint8 to network input (1, 3, S, S) float32, BGR 0..255."""
    return np.ascontiguousarray(crop.transpose(2, 0, 1)[None], dtype=np.float32)


def window_map(box: np.ndarray, out_size: int) -> np.ndarray:
    """Affine map (2, 3) that takes the window x1 y1 x2 y2 to an image of out_size pixels, corner
    pixels onto corner pixels."""
    x1, y1, x2, y2 = (float(v) for v in box)
    sx, sy = (out_size - 1) / (x2 - x1), (out_size - 1) / (y2 - y1)
    return np.array([[sx, 0, -sx * x1], [0, sy, -sy * y1]], float)


def training_window(box: np.ndarray, side_size: int) -> np.ndarray:
    """Window x1 y1 x2 y2 of a training crop (PySOT's `crop_like_SiamFC`): the exemplar's, grown to
    side_size at its scale."""
    cx, cy = (box[2] + box[0]) / 2.0, (box[3] + box[1]) / 2.0
    side = context_side(box[2] - box[0], box[3] - box[1])
    half = side / 2 + (side_size - EXEMPLAR_SIZE) / 2.0 * side / EXEMPLAR_SIZE
    return np.array([cx - half, cy - half, cx + half, cy + half])
