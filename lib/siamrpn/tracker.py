"""The tracker around the networks (PySOT's SiamRPN tracker): crop, decode, penalties, window,
smoothing, clipping."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, Tuple

import numpy as np

from lib.errors import InputError
from lib.siamrpn.anchors import RATIOS, anchor_grid
from lib.siamrpn.crop import CONTEXT, EXEMPLAR_SIZE, SEARCH_SIZE, as_input, context_side, subwindow

if TYPE_CHECKING:
    from lib.siamrpn.contract import EngineNetwork

# The exponent of a box offset is cut here: no real one is as large, and a wild one would overflow
LARGEST_STRETCH = 20.0
# When a target counts as lost: chosen with the demo weights, error rates in data/demo/lost.yaml
LOST_SCORE, LOST_FRAMES = 0.8, 2


@dataclass(frozen=True)
class TrackerConfig:
    """Settings of the tracker; the defaults are PySOT's for SiamRPN++ with ResNet-50.

    penalty: how strongly a change of size and aspect ratio lowers a score. window: weight of the
    cosine window against the score. rate: how far size follows the network, times penalty and
    score. smallest: least side of a box in pixels.
    """

    penalty: float = 0.05
    window: float = 0.42
    rate: float = 0.38
    smallest: float = 10.0


class TrackResult(NamedTuple):
    """box: (4,) float64, x y w h in frame pixels. score: target probability of the chosen anchor,
    0..1. anchor: its number. lost: whether the score is below LOST_SCORE in LOST_FRAMES
    successive frames."""

    box: np.ndarray
    score: float
    anchor: int
    penalised_score: float
    lost: bool = False


class SiamRPNTracker:
    """One target in one video. `init` on the first frame, then `track` frame by frame; a new `init`
    starts over."""

    def __init__(self, network: EngineNetwork, config: TrackerConfig = TrackerConfig()) -> None:
        self.network, self.config = network, config
        self.anchors = np.zeros((0, 4), np.float32)
        self.window = np.zeros(0)
        self.kernels: Any = None
        self.weak = 0  # successive frames with a score below LOST_SCORE

    def init(self, frame: np.ndarray, box: np.ndarray) -> None:
        """Take the target from a frame (H, W, 3) uint8 BGR, box x y w h in pixels. Raises
        InputError for a box that cannot be."""
        check_frame(frame)
        box = check_box(box, frame)
        x, y, width, height = box
        self.weak = 0
        self.center = np.array([x + (width - 1) / 2, y + (height - 1) / 2])
        self.size = np.array([width, height])
        self.fill = frame.mean(axis=(0, 1))
        side = round(context_side(width, height))
        self.kernels = self.network.template(
            as_input(subwindow(frame, self.center, side, EXEMPLAR_SIZE, self.fill))
        )

    def search_crop(self, frame: np.ndarray) -> Tuple[np.ndarray, float]:
        """Search crop (255, 255, 3) uint8 around the last position, and crop pixels per frame
        pixel."""
        side = context_side(*self.size)
        crop = subwindow(
            frame, self.center, round(side * (SEARCH_SIZE / EXEMPLAR_SIZE)), SEARCH_SIZE, self.fill
        )
        return crop, EXEMPLAR_SIZE / side

    def track(self, frame: np.ndarray) -> TrackResult:
        """Find the target in the next frame."""
        if self.kernels is None:
            raise RuntimeError("track() before init()")
        check_frame(frame)
        crop, scale = self.search_crop(frame)
        cls, loc = self.network.track(self.kernels, as_input(crop))
        return self.update(cls, loc, scale, frame.shape[1], frame.shape[0])

    def update(
        self, cls: np.ndarray, loc: np.ndarray, scale: float, width: int, height: int
    ) -> TrackResult:
        """Choose the best anchor from the networks' outputs and move the target there; width and
        height are the frame's."""
        if cls.shape[2] ** 2 * len(RATIOS) != len(self.anchors):
            self.anchors = anchor_grid(cls.shape[2]).reshape(-1, 4)
            hanning = np.hanning(cls.shape[2])
            self.window = np.tile(np.outer(hanning, hanning).ravel(), len(RATIOS))
        score = target_probability(cls)
        boxes = decode(loc, self.anchors)
        penalty = change_penalty(boxes, self.size * scale, self.config.penalty)
        ranking = penalty * score * (1 - self.config.window) + self.window * self.config.window
        best = int(np.argmax(ranking))
        move, size = boxes[:2, best] / scale, boxes[2:, best] / scale
        rate = penalty[best] * score[best] * self.config.rate
        frame_size = np.array([width, height])
        self.center = np.clip(self.center + move, 0, frame_size)
        self.size = np.clip(self.size * (1 - rate) + size * rate, self.config.smallest, frame_size)
        box = np.concatenate([self.center - self.size / 2, self.size])
        self.weak = self.weak + 1 if score[best] < LOST_SCORE else 0
        lost = self.weak >= LOST_FRAMES
        return TrackResult(box, float(score[best]), best, float(ranking[best]), lost)


def check_frame(frame: np.ndarray) -> None:
    """A frame is (H, W, 3) uint8; anything else raises InputError."""
    if getattr(frame, "ndim", 0) != 3 or frame.shape[2] != 3 or frame.dtype != np.uint8:
        shape = getattr(frame, "shape", None)
        raise InputError(
            f"a frame of shape {shape} and type {getattr(frame, 'dtype', type(frame).__name__)}: "
            "height x width x 3 of uint8 (BGR) is needed"
        )


def check_box(box: np.ndarray, frame: np.ndarray) -> np.ndarray:
    """A target's first box x y w h as four floats. Raises InputError for a box that cannot be."""
    box = np.asarray(box, float)
    if box.shape != (4,) or not np.isfinite(box).all() or min(box[2:]) < 1:
        raise InputError(
            f"initial box {box.tolist()}: four finite numbers x, y, w, h with w and h of at least 1 are needed"
        )
    x, y, width, height = box
    rows, columns = frame.shape[:2]
    if max(width / columns, height / rows) > 4:
        fault = "is far larger than"
    elif x >= columns or y >= rows or x + width <= 0 or y + height <= 0:
        fault = "lies outside"
    else:
        return box
    raise InputError(f"initial box {box.tolist()} {fault} the {columns}x{rows} frame")


def target_probability(cls: np.ndarray) -> np.ndarray:
    """Softmax of background and target scores: (1, 2A, S, S) to (A * S * S,), 0..1."""
    background, target = cls.reshape(2, -1)
    largest = np.maximum(background, target)
    exponential = np.exp(target - largest)
    return exponential / (exponential + np.exp(background - largest))


def decode(loc: np.ndarray, anchors: np.ndarray) -> np.ndarray:
    """Box offsets (1, 4A, S, S) and anchors (A * S * S, 4) to boxes cx cy w h relative to the
    crop's centre: (4, A * S * S)."""
    offset = loc.reshape(4, -1)
    boxes = np.empty_like(offset)
    boxes[:2] = offset[:2] * anchors[:, 2:].T + anchors[:, :2].T
    boxes[2:] = np.exp(np.minimum(offset[2:], LARGEST_STRETCH)) * anchors[:, 2:].T
    return boxes


def change_penalty(boxes: np.ndarray, size: np.ndarray, strength: float) -> np.ndarray:
    """exp(-strength * (r s - 1)): s and r are the changes of size and aspect ratio against the last
    box, each at least 1.

    boxes: (4, N) cx cy w h. size: (2,) the last width and height. Both in crop pixels.
    """

    def change(ratio: np.ndarray) -> np.ndarray:
        return np.maximum(ratio, 1.0 / ratio)

    context = CONTEXT * (boxes[2] + boxes[3])
    sides = np.sqrt((boxes[2] + context) * (boxes[3] + context))
    scale_change = change(sides / context_side(size[0], size[1]))
    ratio_change = change((size[0] / size[1]) / (boxes[2] / boxes[3]))
    return np.exp(-(ratio_change * scale_change - 1) * strength)
