"""Augmentation of training crops: PySOT's (shift, scale, colour, blur, flip), and what makes stills
look like video."""

from __future__ import annotations

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


def augment(
    image: np.ndarray,
    box: np.ndarray,
    size: int,
    rng: np.random.RandomState,
    shift: float,
    scale: float,
    blur: float = 0.0,
    grey: bool = False,
) -> Tuple[np.ndarray, np.ndarray]:
    """PySOT's augmentation: cut a size x size crop around the centre of a 511 crop.

    image: (S, S, 3) uint8. box: x1 y1 x2 y2 in it. shift: largest one, in pixels of the crop.
    scale: largest change, as a share. blur: its probability. Returns the crop (size, size, 3) as
    float and the box in it. `rng` is used exactly as PySOT uses NumPy's global state.
    """
    if grey:
        image = cv2.cvtColor(cv2.cvtColor(image, cv2.COLOR_BGR2GRAY), cv2.COLOR_GRAY2BGR)
    height, width = image.shape[:2]
    side = np.array([size - 1.0, size - 1.0])
    zoom = np.ones(2)
    if scale:
        zoom = np.array([1.0 + (rng.random_sample() * 2 - 1.0) * scale for _ in range(2)])
        zoom = np.minimum(zoom, np.array([width, height]) / side)
    center = np.array([height // 2, width // 2])
    window = np.concatenate([center - side * zoom / 2, center + side * zoom / 2])
    if shift:
        drawn = np.array([(rng.random_sample() * 2 - 1.0) * shift for _ in range(2)])
        room = np.array([width, height]) - 1 - window[2:]
        window = window + np.tile(np.maximum(-window[:2], np.minimum(room, drawn)), 2)
    crop = cv2.warpAffine(image, window_map(window, size), (size, size))
    box = (np.asarray(box) - np.tile(window[:2], 2)) / np.tile(zoom, 2)
    rng.random_sample()  # PySOT draws whether to change colours, and always does
    crop = crop - (COLOUR_SPREAD @ rng.randn(3, 1))[::-1].reshape(3).astype(np.float32)
    if blur > rng.random_sample():
        crop = cv2.filter2D(crop, -1, cross_kernel(rng))
    return crop, box


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


def motion_kernel(rng: np.random.RandomState) -> np.ndarray:
    """A line of 3 to 11 pixels at a random angle, weights summing to one."""
    length = rng.randint(3, 12)
    kernel = np.zeros((length, length), np.float32)
    angle, half = rng.uniform(0, np.pi), (length - 1) / 2
    tip = np.array([np.cos(angle), np.sin(angle)]) * half
    ends = [tuple(int(round(v)) for v in half + sign * tip) for sign in (-1, 1)]
    cv2.line(kernel, ends[0], ends[1], 1.0)
    return kernel / kernel.sum()


def relight(image: np.ndarray, rng: np.random.RandomState, strength: float = 1.0) -> np.ndarray:
    """Random gamma, contrast, brightness and colour balance on uint8, by one lookup table per
    channel."""
    ramp = np.arange(256, dtype=np.float32) / 255
    gamma = np.exp(rng.uniform(-0.5, 0.5) * strength)
    contrast = np.exp(rng.uniform(-0.4, 0.4) * strength)
    brightness = rng.uniform(-0.15, 0.15) * strength
    balance = np.exp(rng.uniform(-0.12, 0.12, 3) * strength)
    tables = [((ramp**gamma - 0.5) * contrast * b + 0.5 + brightness) * 255 for b in balance]
    table = np.clip(np.stack(tables, 1), 0, 255).astype(np.uint8)  # (256, 3)
    return cv2.LUT(image, table[:, None, :])


def degrade(image: np.ndarray, rng: np.random.RandomState) -> np.ndarray:
    """Random motion blur, low resolution, or noise, which photographs lack and video has."""
    draw = rng.random_sample()
    if draw < 0.25:
        return cv2.filter2D(image, -1, motion_kernel(rng))
    if draw < 0.45:
        size = image.shape[0]
        small = int(size / rng.uniform(1.3, 3.0))
        reduced = cv2.resize(image, (small, small), interpolation=cv2.INTER_AREA)
        return cv2.resize(reduced, (size, size))
    if draw < 0.55:
        noise = rng.normal(0, rng.uniform(2, 10), image.shape[:2] + (1,))
        return np.clip(image + noise, 0, 255).astype(np.uint8)
    return image


def random_affine(rng: np.random.RandomState, strength: float) -> np.ndarray:
    """Random linear map (2, 2) of strength 0..1: up to 20 degrees of rotation, shear of 0.1 and
    stretch of 0.15."""
    rotation, shear, stretch = 20 * strength, 0.1 * strength, 0.15 * strength
    angle, longer = np.deg2rad(rng.uniform(-rotation, rotation)), rng.uniform(-stretch, stretch)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    return turn @ [[np.exp(longer), rng.uniform(-shear, shear)], [0.0, np.exp(-longer)]]
