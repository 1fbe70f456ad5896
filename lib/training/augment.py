"""Augmentation of training crops: PySOT's (shift, scale, colour, blur, flip), and what stills need
to stand in for video."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Tuple

import cv2
import numpy as np

from lib.siamrpn.crop import window_map

# Square roots of the eigenvalues times eigenvectors of ImageNet's colours, as in PySOT
COLOUR_SPREAD = np.array(
    [
        [-0.55919361, 0.98062831, -0.41940627],
        [1.72091413, 0.19879334, -1.82968581],
        [4.64467907, 4.73710203, 4.88324118],
    ],
    np.float32,
)


@dataclass(frozen=True)
class Augmentation:
    """Strengths of PySOT's augmentation: shift in pixels, scale as a share, the rest as
    probabilities."""

    shift: float
    scale: float
    blur: float = 0.0
    flip: float = 0.0
    colour: float = 1.0

    def __call__(
        self,
        image: np.ndarray,
        box: np.ndarray,
        size: int,
        rng: np.random.RandomState,
        grey: bool = False,
    ) -> Tuple[np.ndarray, np.ndarray]:
        """Cut a size x size crop around the centre of a 511 crop.

        image: (S, S, 3) uint8. box: x1 y1 x2 y2 in it. Returns the crop (size, size, 3) as float
        and the box in it. `rng` is used exactly as PySOT uses NumPy's global state.
        """
        if grey:
            image = cv2.cvtColor(cv2.cvtColor(image, cv2.COLOR_BGR2GRAY), cv2.COLOR_GRAY2BGR)
        image, box = self._shift_and_scale(image, box, size, rng)
        if self.colour > rng.random_sample():
            image = image - (COLOUR_SPREAD @ rng.randn(3, 1))[::-1].reshape(3).astype(np.float32)
        if self.blur > rng.random_sample():
            image = cv2.filter2D(image, -1, cross_kernel(rng))
        if self.flip and self.flip > rng.random_sample():
            image, box = flip(image, box)
        return image, box

    def _shift_and_scale(
        self, image: np.ndarray, box: np.ndarray, size: int, rng: np.random.RandomState
    ) -> Tuple[np.ndarray, np.ndarray]:
        height, width = image.shape[:2]
        side = np.array([size - 1.0, size - 1.0])
        scale = np.ones(2)
        if self.scale:
            scale = np.array([1.0 + (rng.random_sample() * 2 - 1.0) * self.scale for _ in range(2)])
            scale = np.minimum(scale, np.array([width, height]) / side)
        center = np.array([height // 2, width // 2])
        window = np.concatenate([center - side * scale / 2, center + side * scale / 2])
        if self.shift:
            drawn = np.array([(rng.random_sample() * 2 - 1.0) * self.shift for _ in range(2)])
            room = np.array([width, height]) - 1 - window[2:]
            window = window + np.tile(np.maximum(-window[:2], np.minimum(room, drawn)), 2)
        crop = cv2.warpAffine(
            image, window_map(window, size), (size, size), borderMode=cv2.BORDER_CONSTANT
        )
        return crop, (np.asarray(box) - np.tile(window[:2], 2)) / np.tile(scale, 2)


def flip(image: np.ndarray, box: np.ndarray) -> Tuple[np.ndarray, np.ndarray]:
    """Mirror an image and its box x1 y1 x2 y2 left to right."""
    last = image.shape[1] - 1
    return cv2.flip(image, 1), np.array([last - box[2], box[1], last - box[0], box[3]])


def cross_kernel(rng: np.random.RandomState) -> np.ndarray:
    """PySOT's blur: a cross of 5 to 45 pixels, its weight shared at random between the two bars."""
    size = rng.choice(np.arange(5, 46, 2))
    kernel = np.zeros((size, size))
    share = rng.random_sample()
    kernel[:, size // 2] += share / size
    kernel[size // 2, :] += (1 - share) / size
    return kernel


def motion_kernel(rng: np.random.RandomState, longest: int = 11) -> np.ndarray:
    """A line of 3 to `longest` pixels at a random angle, weights summing to one."""
    length = rng.randint(3, longest + 1)
    kernel = np.zeros((length, length), np.float32)
    angle = rng.uniform(0, np.pi)
    half = (length - 1) / 2
    tip = np.array([np.cos(angle), np.sin(angle)]) * half
    ends = [tuple(int(round(v)) for v in half + sign * tip) for sign in (-1, 1)]
    cv2.line(kernel, ends[0], ends[1], 1.0)
    return kernel / kernel.sum()


def relight(image: np.ndarray, rng: np.random.RandomState, strength: float = 1.0) -> np.ndarray:
    """Random gamma, contrast, brightness and colour balance on uint8, by one lookup table a
    channel."""
    ramp = np.arange(256, dtype=np.float32) / 255
    gamma = np.exp(rng.uniform(-0.5, 0.5) * strength)
    contrast = np.exp(rng.uniform(-0.4, 0.4) * strength)
    brightness = rng.uniform(-0.15, 0.15) * strength
    balance = np.exp(rng.uniform(-0.12, 0.12, 3) * strength)
    tables = [
        np.clip(((ramp**gamma - 0.5) * contrast * b + 0.5 + brightness) * 255, 0, 255).astype(
            np.uint8
        )
        for b in balance
    ]
    return cv2.LUT(image, np.stack(tables, 1)[:, None, :])


def degrade(image: np.ndarray, rng: np.random.RandomState) -> np.ndarray:
    """Random motion blur, low resolution, or noise: what a video frame has and a photograph has
    not."""
    draw = rng.random_sample()
    if draw < 0.25:
        return cv2.filter2D(image, -1, motion_kernel(rng))
    if draw < 0.45:
        size = image.shape[0]
        small = int(size / rng.uniform(1.3, 3.0))
        return cv2.resize(
            cv2.resize(image, (small, small), interpolation=cv2.INTER_AREA), (size, size)
        )
    if draw < 0.55:
        noise = rng.normal(0, rng.uniform(2, 10), image.shape[:2] + (1,))
        return np.clip(image + noise, 0, 255).astype(np.uint8)
    return image


def random_affine(
    rng: np.random.RandomState, rotation: float, shear: float, stretch: float
) -> np.ndarray:
    """Random linear map (2, 2): rotation in degrees, shear and stretch as shares, each drawn evenly
    up to its limit."""
    angle = np.deg2rad(rng.uniform(-rotation, rotation))
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    log_stretch = rng.uniform(-stretch, stretch)
    return turn @ np.array(
        [[np.exp(log_stretch), rng.uniform(-shear, shear)], [0.0, np.exp(-log_stretch)]]
    )


def mapped_size(width: float, height: float, linear: np.ndarray) -> Tuple[float, float]:
    """Sides of the box around a mapped ellipse of the given sides: closer to an object's extent
    than its mapped rectangle."""
    return (
        float(np.hypot(linear[0, 0] * width, linear[0, 1] * height)),
        float(np.hypot(linear[1, 0] * width, linear[1, 1] * height)),
    )
