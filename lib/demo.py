"""The demo benchmark: sixteen generated sequences in VOT layout, to measure chapter 4 on where VOT2018 is not at hand.

Every pixel comes from the photographs inside scikit-image's wheel; nothing is fetched. A *scene* is one photograph, seen by a
virtual camera that pans, zooms, rolls, tilts and shakes. The target is a region of the scene itself or one cut out of another
photograph with a soft, rounded mask; distractors and occluders are cut-outs, too. A sequence is an entry of data (`_SEQUENCES`),
one function renders them all, and polygons and tags follow from the parameters, not from the pixels.

Ground truth is the target's box carried by its homography: four corners, whether they are covered or not (amodal, as in VOT).
A tag is 1 in a frame where its rule holds; the first frame, which has no earlier one, can only be tagged `occlusion`.

| tag             | rule                                                                                                      |
|-----------------|-----------------------------------------------------------------------------------------------------------|
| `camera_motion` | the background in the frame's four corners moved by more than `CAMERA_PIXELS` (mean) since the last frame |
| `illum_change`  | a mid-grey is brighter or darker by more than `LIGHT_CHANGE` than `LIGHT_FRAMES` frames ago               |
| `motion_change` | the target's mean velocities over `MOTION_FRAMES` before and after differ by more than `MOTION_PIXELS`    |
| `occlusion`     | more than `COVERED` of the target's area inside the frame lies behind something                           |
| `size_change`   | the polygon's area is larger or smaller by more than `SIZE_CHANGE` than `SIZE_FRAMES` frames ago          |
"""
from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import json
import os
import shutil
import time
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Callable, Iterable, Iterator, NamedTuple, Tuple

import cv2
import numpy as np
from tqdm import tqdm

from lib.errors import InputError

CAMERA_PIXELS = 1.0  # px a frame
LIGHT_CHANGE, LIGHT_FRAMES = 0.15, 10
MOTION_PIXELS, MOTION_FRAMES = 2.0, 3  # px a frame
COVERED = 0.10
SIZE_CHANGE, SIZE_FRAMES = 0.20, 20
TAGS = ("camera_motion", "illum_change", "motion_change", "occlusion", "size_change")  # VOT2018's file names, plus ".tag"

STAMP = "made-by.json"  # written inside a finished benchmark: which generator made which sequences
_STALE = 600.0  # seconds without a change after which another process's temporary folder counts as left over
_FOCAL = 400.0  # px, of the perspective that a tilt gives
_JPEG = 90

Points = Tuple[Tuple[float, float], ...]
Keys = Tuple[Tuple[float, ...], ...]  # rows of (time 0..1, values ...), see Sprite.path and Spec.light


@dataclass(frozen=True)
class Sprite:
    """A region of a photograph and how it moves over the scene."""

    photo: str  # file in skimage/data; "" marks a region of the scene itself, which is not drawn and does not move in it
    outline: Points  # in the photograph's pixels; rounded off and feathered when cut out
    path: Keys = ()  # rows of (time, x, y, scale = 1, roll in degrees = 0, tilt in degrees = 0), x and y in pixels of the scene
    corners: bool = False  # straight lines with sharp corners between the rows instead of a smooth curve
    shake: float = 0.0  # px of the scene, random
    wobble: float = 0.0  # px at the largest scale it is shown at: a travelling wave bends it


@dataclass(frozen=True)
class Spec:
    """One sequence as data: a scene, a camera over it, a target, and what makes it difficult."""

    name: str
    description: str
    photo: str  # the scene
    size: tuple[int, int]  # of a frame: width, height
    frames: int
    camera: Keys  # rows of (time, x, y, zoom = 1, roll = 0, tilt = 0): the scene's point shown in the middle of the frame
    target: Sprite
    behind: tuple[Sprite, ...] = ()  # drawn before the target
    front: tuple[Sprite, ...] = ()  # drawn after it
    light: Keys = ((0.0, 1.0, 1.0),)  # rows of (time, gain, gamma), linear in between
    shake: float = 0.0  # of the camera, px of the scene
    exposure: float = 0.0  # fraction of the frame's time during which motion blurs
    noise: float = 1.5  # standard deviation of the sensor's noise in grey levels
    grey: bool = False


class Frame(NamedTuple):
    """What one moment looks like and why."""

    image: np.ndarray  # (height, width, 3) uint8, BGR
    polygon: np.ndarray  # (4, 2) px
    camera: np.ndarray  # (3, 3) homography from the scene to the frame
    brightness: float  # of a mid-grey, 1 = unchanged
    covered: float  # 0..1 of the target's area inside the frame


def _oval(x: float, y: float, across: float, down: float) -> Points:
    """An ellipse's outline from its centre and half axes."""
    turns = np.arange(24) * (2 * np.pi / 24)
    return tuple((float(x + across * np.cos(a)), float(y + down * np.sin(a))) for a in turns)


_HEAD: Points = ((152, 75), (165, 35), (215, 12), (270, 22), (300, 65), (296, 100), (268, 118), (258, 160), (236, 186),
                 (212, 186), (192, 160), (182, 118), (155, 100))
_CAT: Points = ((48, 40), (110, 8), (230, 2), (330, 18), (362, 90), (352, 160), (305, 250), (255, 282), (190, 250), (100, 215),
                (50, 130))
_SHUTTLE: Points = ((392, 2), (412, 2), (450, 20), (455, 180), (462, 215), (440, 278), (375, 278), (350, 215), (368, 170),
                    (376, 70))
_HELMET: Points = ((283, 440), (300, 390), (345, 352), (400, 345), (450, 362), (485, 400), (500, 460), (495, 508), (290, 508))
_PROFILE: Points = ((150, 110), (180, 70), (225, 62), (272, 90), (275, 130), (262, 170), (235, 196), (190, 185), (160, 150))
_POST: Points = ((200, 5), (290, 5), (290, 505), (200, 505))

_SEQUENCES: tuple[Spec, ...] = (
    # The easy third: one challenge each, slow.
    Spec(
        "face", "A portrait under a slow hand-held camera that pans, zooms and rolls.", "astronaut.png", (360, 270), 100,
        camera=((0, 225, 140, 1.1), (.35, 245, 125, 1.25, -6), (.7, 200, 130, 1.0, 7), (1, 232, 108, 1.3)),
        target=Sprite("", _HEAD), shake=.4),
    Spec(
        "cup", "A coffee cup glides over a brick wall, growing and turning, before a fixed camera.", "brick.png", (400, 300), 90,
        camera=((0, 256, 256, .8),),
        target=Sprite("coffee.png", _oval(278, 222, 202, 170), (
            (0, 120, 200, .30), (.3, 230, 300, .34, 15), (.6, 380, 290, .42, -10), (1, 330, 190, .30, -20)))),
    Spec(
        "crater", "A crater of the moon in grey, the light fading and coming back.", "moon.png", (320, 240), 80,
        camera=((0, 150, 110, 1.9), (.5, 105, 95, 2.1, 10), (1, 140, 80, 1.9)), target=Sprite("", _oval(121, 88, 28, 28)),
        light=((0, 1, 1), (.25, 1, 1), (.5, .6, 1), (.65, .6, 1), (.9, 1.1, 1)), grey=True, noise=2),
    Spec(
        "wheel", "A motorcycle's front wheel while the camera walks round it.", "motorcycle_left.png", (480, 360), 90,
        camera=((0, 470, 290, .95, 0, 15), (.5, 500, 310, 1.1, 3), (1, 550, 340, 1.2, -3, -20)),
        target=Sprite("", _oval(606, 370, 80, 90)), shake=.3),
    Spec(
        "shuttle", "A space shuttle crosses the deep field, the camera following late.", "hubble_deep_field.jpg", (360, 270), 90,
        camera=((0, 220, 600), (.4, 360, 480), (1, 760, 330, 1.1)),
        target=Sprite("astronaut.png", _SHUTTLE, (
            (0, 160, 640, .34, 10), (.3, 330, 480, .38, 25), (.6, 540, 420, .42, 50), (1, 810, 300, .36, 40)))),
    # The middle: two or three challenges, faster.
    Spec(
        "cat", "A cat's head darts about a garage and turns away from the viewer.", "motorcycle_right.png", (400, 300), 100,
        camera=((0, 370, 250, .62),),
        target=Sprite("chelsea.png", _CAT, (
            (0, 160, 180, .40), (.15, 280, 300, .42, 8, 20), (.3, 420, 190, .44, -10, 40), (.45, 560, 320, .40, -5, -10),
            (.6, 420, 360, .36, 10, -40), (.8, 220, 300, .42, 0, 10), (1, 330, 180, .45, 15)), corners=True, shake=1.5),
        exposure=.5),
    Spec(
        "badge", "A mission badge under a shaking camera that looks at it from both sides.", "astronaut.png", (320, 240), 90,
        camera=((0, 180, 370, 1.6), (.3, 160, 390, 2.0, 15, 35), (.65, 185, 395, 1.5, -20, -40), (1, 165, 375, 2.2)),
        target=Sprite("", _oval(170, 386, 39, 39)), shake=1.6, exposure=.5),
    Spec(
        "disc", "The optic disc of a retina through a lens that breathes; the light flickers.", "retina.jpg", (400, 300), 80,
        camera=((0, 380, 640, .50), (.4, 320, 720, .62, 25), (.7, 400, 560, .45, 45), (1, 360, 660, .55, 20)),
        target=Sprite("", _oval(257, 648, 74, 88)), shake=1,
        light=((0, 1, 1), (.2, 1, 1), (.25, .65, 1.2), (.4, .7, 1), (.45, 1.1, .9), (.65, 1, 1), (.7, 1, 1.8), (.85, 1, 1.8),
               (.88, 1, 1))),
    Spec(
        "cameraman", "A cameraman's head in grey; twice a column of gravel passes in front of it.", "camera.png", (360, 270), 100,
        camera=((0, 230, 150, 1.05), (.5, 260, 160, 1.15), (1, 220, 140, 1.0)), target=Sprite("", _PROFILE),
        front=(Sprite("gravel.png", _POST, (
            (0, -60, 180, .75), (.25, -30, 180, .75), (.55, 480, 180, .75), (.7, 480, 180, .75), (1, 90, 180, .75)),
            corners=True),), grey=True, shake=.5),
    Spec(
        "headlamp", "A motorcycle's headlamp in a garage where the light is switched off and on.", "motorcycle_left.png",
        (400, 300), 90, camera=((0, 520, 200, 1.2), (.5, 560, 170, 1.5, -5), (1, 520, 150, 1.3, 5, 15)),
        target=Sprite("", _oval(533, 158, 28, 33)), shake=.6, noise=3,
        light=((0, 1, 1), (.29, 1, 1), (.31, .4, 1), (.54, .4, 1), (.56, 1.35, .9), (.78, 1.35, .9), (.8, .8, 1.4))),
    Spec(
        "helmet", "A helmet is thrown across a lawn, fast enough to blur.", "grass.png", (480, 360), 100,
        camera=((0, 256, 220, .95),), exposure=.6,
        target=Sprite("astronaut.png", _HELMET, (
            (0, 90, 250, .38, -10), (.12, 160, 120, .38, 20), (.3, 380, 260, .40, 70), (.45, 420, 130, .42, 110),
            (.6, 250, 240, .46, 60), (.75, 110, 130, .42, 20), (1, 330, 260, .36, -30)))),
    # The hard third: look-alikes, full occlusion, jumps.
    Spec(
        "coin", "A coin slides between coins like it, and two of them slide over it.", "coins.png", (384, 300), 100,
        camera=((0, 192, 151),),
        target=Sprite("coins.png", _oval(270, 118, 26, 26), (
            (0, 110, 88), (.25, 190, 90, 1, 30), (.45, 250, 155, 1, 60), (.7, 160, 155, 1, 40), (1, 70, 215))),
        behind=(Sprite("coins.png", _oval(212, 193, 25, 25), ((0, 300, 90), (.5, 200, 120), (1, 250, 220))),),
        front=(Sprite("coins.png", _oval(335, 43, 31, 31), ((0, 330, 220), (.35, 262, 150), (.5, 210, 120), (1, 100, 90))),
               Sprite("coins.png", _oval(47, 261, 28, 28), ((0, 70, 250), (.7, 148, 175), (1, 230, 90))))),
    Spec(
        "galaxy", "A small galaxy among many under a jolting telescope; a shuttle hides it once.", "hubble_deep_field.jpg",
        (320, 240), 90, shake=2.2, exposure=.4, noise=3,
        camera=((0, 180, 400, 1.1), (.3, 130, 440, 1.3, 10), (.45, 170, 360, 1.2), (.7, 90, 410, 1.0, -15), (1, 150, 390, 1.3)),
        target=Sprite("", _oval(123, 400, 21, 22)),
        front=(Sprite("astronaut.png", _SHUTTLE, ((0, -60, 560, .4, 30), (.4, -60, 560, .4, 30), (.85, 340, 200, .4, 50)),
                      corners=True),)),
    Spec(
        "twins", "Two astronauts with one face change places, the wrong one in front.", "coffee.png", (400, 300), 100,
        camera=((0, 280, 200, .75), (.5, 300, 200, .8), (1, 300, 210, .72)), light=((0, 1, 1), (.6, 1, 1), (.85, .8, 1.3)),
        target=Sprite("astronaut.png", _HEAD, (
            (0, 150, 150, .6), (.4, 260, 210, .62, 10), (.6, 350, 200, .66, -5), (1, 460, 150, .58, 10))),
        front=(Sprite("astronaut.png", _HEAD, (
            (0, 470, 280, .6, -10), (.4, 360, 260, .62), (.6, 270, 240, .62), (1, 130, 260, .6))),)),
    Spec(
        "eye", "A cat's eye while the camera jerks from side to side; the other eye waits.", "chelsea.png", (320, 240), 80,
        camera=((0, 200, 130, 1.1), (.15, 170, 140, 1.15), (.25, 220, 110, 1.2, 8), (.4, 150, 130, 1.4, -5),
                (.55, 215, 125, 1.2, 10), (.7, 140, 110, 1.1, -10), (.85, 210, 150, 1.2), (1, 160, 120, 1.3, 5)),
        target=Sprite("", _oval(172, 115, 40, 36)), shake=2, exposure=.7),
    Spec(
        "gland", "A gland bends as it drifts over tissue like it, under a passing flap and a failing lamp.", "ihc.png",
        (360, 270), 110, camera=((0, 250, 250, .8), (.5, 260, 240, .9, 5), (1, 250, 260, .85, -5)),
        target=Sprite("ihc.png", _oval(315, 400, 66, 86), (
            (0, 380, 330, .8), (.3, 300, 300, .8, 40), (.6, 180, 250, .9, 90), (1, 300, 180, .75, 60)), wobble=4),
        front=(Sprite("ihc.png", _oval(110, 110, 95, 100), ((0, 20, 20, .9), (.25, 40, 60, .9), (.75, 340, 440, .9)),
                      corners=True),),
        light=((0, 1, 1), (.65, 1, 1), (.75, .6, 1), (.8, .95, 1), (.85, .55, 1), (.95, 1, 1))),
)


def list_specs() -> tuple[Spec, ...]:
    """The sequences as data, in the benchmark's order; `name` and `description` are what the book's table prints."""
    return _SEQUENCES


# --- motion ---------------------------------------------------------------------------------------------------------------------


class _Motion:
    """Poses (x, y, scale, roll, tilt) along a path's rows, callable at any frame number, whole or not."""

    def __init__(self, path: Keys, frames: int, corners: bool, shake: float, seed: int) -> None:
        rows = np.array([tuple(row) + (0.0, 0.0, 0.0, 1.0, 0.0, 0.0)[len(row):] for row in path], dtype=np.float64)  # (K, 6)
        self._times, self._poses = rows[:, 0] * (frames - 1), rows[:, 1:]
        self._slopes = None if corners or len(rows) < 2 else np.gradient(self._poses, self._times, axis=0)
        jolts = np.random.RandomState(seed).normal(size=(frames + 4, 2)) * shake  # RandomState: numpy keeps its stream for ever
        self._jolts = (jolts[:-2] + 2 * jolts[1:-1] + jolts[2:]) / 2.45  # neighbours agree a little; the deviation stays `shake`
        self.largest = float(self._poses[:, 2].max())

    def __call__(self, frame: float) -> np.ndarray:
        pose = self._along(min(max(frame, self._times[0]), self._times[-1]))
        at, part = divmod(max(frame, 0.0), 1.0)
        jolt = self._jolts[int(at)] * (1 - part) + self._jolts[int(at) + 1] * part
        return pose + np.append(jolt, (0.0, 0.0, 0.0))

    def _along(self, frame: float) -> np.ndarray:
        if len(self._times) == 1:
            return self._poses[0]
        k = min(int(np.searchsorted(self._times, frame, side="right")) - 1, len(self._times) - 2)
        span = self._times[k + 1] - self._times[k]
        u = (frame - self._times[k]) / span
        line = self._poses[k] * (1 - u) + self._poses[k + 1] * u
        if self._slopes is None:
            return line
        chord = self._poses[k + 1] - self._poses[k]  # cubic Hermite: the line plus what bends it to the slopes at both ends
        return line + u * (1 - u) * ((1 - u) * (self._slopes[k] * span - chord) - u * (self._slopes[k + 1] * span - chord))


def _shift(x: float, y: float) -> np.ndarray:
    return np.array([[1, 0, x], [0, 1, y], [0, 0, 1]], dtype=np.float64)


def _homography(place: tuple[float, float], scale: float, roll: float, tilt: float, origin: tuple[float, float]) -> np.ndarray:
    """The (3, 3) map that scales, rolls and tilts about `origin` and sets that point down at `place`."""
    roll, tilt = np.deg2rad(roll), np.deg2rad(tilt)
    turn = np.array([[np.cos(roll), -np.sin(roll), 0], [np.sin(roll), np.cos(roll), 0], [0, 0, 1]]) * [[scale], [scale], [1]]
    swing = np.array([[np.cos(tilt), 0, 0], [0, 1, 0], [np.sin(tilt) / _FOCAL, 0, 1]])
    return _shift(*place) @ swing @ turn @ _shift(-origin[0], -origin[1])


def _project(matrix: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Points (N, 2) carried by a homography: (N, 2)."""
    carried = np.column_stack([points, np.ones(len(points))]) @ matrix.T
    return carried[:, :2] / carried[:, 2:]


# --- pixels ---------------------------------------------------------------------------------------------------------------------


def _photograph(name: str) -> np.ndarray:
    """A photograph of scikit-image's wheel, (H, W, 3) BGR. Raises InputError where the package or the file is missing."""
    package = importlib.util.find_spec("skimage")
    if package is None or package.origin is None:
        raise InputError("scikit-image is not installed, and the demo benchmark is made from its photographs.")
    path = Path(package.origin).parent / "data" / name
    image = cv2.imread(str(path)) if path.is_file() else None
    if image is None:
        raise InputError(f"{path}: this photograph of scikit-image is missing or unreadable; install scikit-image again.")
    return image


def _shrunk(image: np.ndarray, scale: float) -> tuple[np.ndarray, np.ndarray]:
    """The image at the largest scale it is shown at, so that warping does not alias, and the (3, 3) map back to full pixels."""
    if scale >= 1:
        return image, np.eye(3)
    small = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    across, down = image.shape[1] / small.shape[1], image.shape[0] / small.shape[0]
    return small, np.array([[across, 0, (across - 1) / 2], [0, down, (down - 1) / 2], [0, 0, 1]])


class _Layer:
    """A sprite made ready: its soft cut-out (premultiplied BGRA), its box, and the homography to the scene at any frame."""

    def __init__(self, sprite: Sprite, photo: np.ndarray, frames: int, zoom: float, seed: int) -> None:
        outline = np.array(sprite.outline, dtype=np.float64)  # (K, 2)
        low, high = outline.min(axis=0), outline.max(axis=0)
        self.box = np.array([low, (high[0], low[1]), high, (low[0], high[1])])  # (4, 2) clockwise from the top left
        self._origin = tuple((low + high) / 2)
        self.drawn, self._wobble, self._frames = bool(sprite.photo), sprite.wobble, frames
        self._motion = _Motion(sprite.path, frames, sprite.corners, sprite.shake, seed) if self.drawn else None
        left, top = np.maximum(low.astype(int) - 8, 0)
        right, bottom = np.minimum(high.astype(int) + 9, (photo.shape[1], photo.shape[0]))
        mask = cv2.fillPoly(np.zeros(photo.shape[:2], np.uint8), [np.round(outline).astype(np.int32)], 255)
        rounded = np.where(cv2.GaussianBlur(mask, (0, 0), 5) > 127, 255, 0).astype(np.uint8)
        inner = cv2.erode(rounded, np.ones((3, 3), np.uint8))  # keeps the feather off the surroundings
        alpha = cv2.GaussianBlur(inner, (0, 0), 1.2)[top:bottom, left:right, None]
        colour = photo[top:bottom, left:right].astype(np.float32) * (alpha.astype(np.float32) / 255)
        cut = np.concatenate([np.round(colour).astype(np.uint8), alpha], axis=2)
        self._cut, grow = _shrunk(cut, zoom * (self._motion.largest if self._motion else 1.0))
        self._to_photo = _shift(float(left), float(top)) @ grow

    def to_scene(self, frame: float) -> np.ndarray:
        """(3, 3) from the sprite's photograph to the scene."""
        if self._motion is None:
            return np.eye(3)
        x, y, scale, roll, tilt = self._motion(frame)
        return _homography((x, y), scale, roll, tilt, self._origin)

    def warped(self, camera: np.ndarray, frame: float, size: tuple[int, int]) -> tuple[tuple[slice, slice], np.ndarray] | None:
        """The window of the frame that the sprite touches and its (h, w, 4) pixels there, or None when it is out of view."""
        matrix = camera @ self.to_scene(frame) @ self._to_photo
        height, width = self._cut.shape[:2]
        reach = _project(matrix, np.array([(-1, -1), (width, -1), (width, height), (-1, height)], dtype=np.float64))
        left, top = np.maximum(np.floor(reach.min(axis=0)), 0).astype(int)
        right, bottom = np.minimum(np.ceil(reach.max(axis=0)) + 1, size).astype(int)
        if left >= right or top >= bottom:
            return None
        matrix = _shift(-float(left), -float(top)) @ matrix
        patch = cv2.warpPerspective(self._bent(frame), matrix, (int(right - left), int(bottom - top)), flags=cv2.INTER_LINEAR)
        return (slice(top, bottom), slice(left, right)), patch

    def _bent(self, frame: float) -> np.ndarray:
        if not self._wobble:
            return self._cut
        height, width = self._cut.shape[:2]
        y, x = np.mgrid[:height, :width].astype(np.float32)
        wave = 2 * np.pi * (y / height + 4 * frame / self._frames)  # one wave over the height, four periods in the sequence
        return cv2.remap(self._cut, (x + self._wobble * np.sin(wave)).astype(np.float32), y, cv2.INTER_LINEAR)


def _paste(image: np.ndarray, layer: _Layer, camera: np.ndarray, frame: float) -> None:
    touched = layer.warped(camera, frame, (image.shape[1], image.shape[0]))
    if touched is not None:
        window, patch = touched
        under = image[window].astype(np.uint16) * (255 - patch[..., 3:].astype(np.uint16))
        image[window] = np.minimum((under + 127) // 255 + patch[..., :3], 255).astype(np.uint8)


def _covered(target: _Layer, front: list[_Layer], camera: np.ndarray, frame: float, size: tuple[int, int]) -> float:
    """The fraction of the target's area inside the frame that layers in front of it hide."""
    own = target.warped(camera, frame, size) if front else None
    if own is None:
        return 0.0
    window, patch = own
    area = np.zeros((size[1], size[0]), np.float32)
    area[window] = patch[..., 3]
    left = area.copy()
    for layer in front:
        over = layer.warped(camera, frame, size)
        if over is not None:
            left[over[0]] *= 1 - over[1][..., 3].astype(np.float32) / 255
    return float(1 - left.sum(dtype=np.float64) / max(area.sum(dtype=np.float64), 1.0))


def _light(keys: Keys, at: float) -> tuple[np.ndarray, float]:
    """The look-up table (256,) uint8 of gain and gamma at a time 0..1, and what it does to a mid-grey (1 = nothing)."""
    rows = np.array(keys, dtype=np.float64)
    gain, gamma = (float(np.interp(at, rows[:, 0], rows[:, k])) for k in (1, 2))
    table = np.clip(np.round(255 * gain * (np.arange(256) / 255) ** gamma), 0, 255).astype(np.uint8)
    return table, gain * 0.5 ** gamma / 0.5


def render(spec: Spec) -> Iterator[Frame]:
    """The frames of one sequence, in order.

    Example: `next(render(list_specs()[0])).image.shape` is `(270, 360, 3)`. Raises InputError where a photograph is missing.
    """
    seed = zlib.crc32(spec.name.encode()) % 2 ** 31  # of the name, so that a new sequence leaves the others as they are
    photo, (width, height) = _photograph(spec.photo), spec.size
    middle = ((width - 1) / 2, (height - 1) / 2)
    motion = _Motion(spec.camera, spec.frames, False, spec.shake, seed)
    scene, to_scene = _shrunk(photo, motion.largest)
    sprites = spec.behind + (spec.target,) + spec.front
    layers = [_Layer(s, _photograph(s.photo) if s.photo else photo, spec.frames, motion.largest, seed + 1 + k)
              for k, s in enumerate(sprites)]
    target, front = layers[len(spec.behind)], layers[len(spec.behind) + 1:]
    random = np.random.RandomState(seed)
    grain = np.round(random.normal(size=(height + 64, width + 64, 1 if spec.grey else 3)) * spec.noise).astype(np.int16)

    def camera(frame: float) -> np.ndarray:
        x, y, zoom, roll, tilt = motion(frame)
        return _homography(middle, zoom, roll, tilt, (x, y))

    def snapshot(frame: float) -> np.ndarray:
        view = camera(frame)
        image = cv2.warpPerspective(scene, view @ to_scene, spec.size, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101)
        for layer in layers:
            if layer.drawn:
                _paste(image, layer, view, frame)
        return image

    def outline(frame: float) -> np.ndarray:
        return _project(camera(frame) @ target.to_scene(frame), target.box)

    for index in range(spec.frames):
        image = _exposed(snapshot, outline, index, spec.exposure)
        if spec.grey:
            image = cv2.cvtColor(cv2.cvtColor(image, cv2.COLOR_BGR2GRAY), cv2.COLOR_GRAY2BGR)
        table, brightness = _light(spec.light, index / (spec.frames - 1))
        y, x = random.randint(0, 64, size=2)
        noise = np.ascontiguousarray(np.broadcast_to(grain[y:y + height, x:x + width], image.shape))
        image = cv2.add(cv2.LUT(image, table), noise, dtype=cv2.CV_8U)
        view = camera(index)
        yield Frame(image, outline(index), view, brightness, _covered(target, front, view, index, spec.size))


def _exposed(snapshot: Callable[[float], np.ndarray], outline: Callable[[float], np.ndarray], frame: float,
             exposure: float) -> np.ndarray:
    """The mean of as many snapshots around a frame as the target's motion needs (one for every 1.5 px, eight at most)."""
    travel = float(np.abs(outline(frame + exposure / 2) - outline(frame - exposure / 2)).max())
    count = min(max(int(np.ceil(travel / 1.5)), 1), 8)
    moments = frame + exposure * ((np.arange(count) + 0.5) / count - 0.5)
    total = np.sum([snapshot(float(moment)) for moment in moments], axis=0, dtype=np.uint16)
    return np.asarray((total + count // 2) // count, dtype=np.uint8)


# --- tags -----------------------------------------------------------------------------------------------------------------------


def polygon_area(polygons: np.ndarray) -> np.ndarray:
    """Areas (N,) of polygons (N, 4, 2) in square pixels."""
    x, y = polygons[..., 0], polygons[..., 1]
    return np.abs((x * np.roll(y, -1, axis=1) - y * np.roll(x, -1, axis=1)).sum(axis=1)) / 2


def tag_frames(frames: list[Frame], size: tuple[int, int]) -> dict[str, np.ndarray]:
    """The five tags, each (N,) bool, by the rules of the module's table; `size` is a frame's width and height in pixels."""
    polygons = np.array([frame.polygon for frame in frames])  # (N, 4, 2)
    centres, area = polygons.mean(axis=1), polygon_area(polygons)
    brightness = np.array([frame.brightness for frame in frames])
    corners = np.array([(0, 0), (size[0], 0), size, (0, size[1])], dtype=np.float64)
    moved = [0.0] + [float(np.linalg.norm(_project(now.camera @ np.linalg.inv(old.camera), corners) - corners, axis=1).mean())
                     for old, now in zip(frames, frames[1:])]
    n, k = np.arange(len(frames)), MOTION_FRAMES
    bend = np.zeros(len(frames))  # velocities need frames on both sides, so the ends stay without this tag
    bend[k:-k] = np.linalg.norm(centres[2 * k:] - 2 * centres[k:-k] + centres[:-2 * k], axis=1) / k
    return {"camera_motion": np.array(moved) > CAMERA_PIXELS,
            "illum_change": _ratio(brightness, brightness[np.maximum(n - LIGHT_FRAMES, 0)]) > 1 + LIGHT_CHANGE,
            "motion_change": bend > MOTION_PIXELS,
            "occlusion": np.array([frame.covered for frame in frames]) > COVERED,
            "size_change": _ratio(area, area[np.maximum(n - SIZE_FRAMES, 0)]) > 1 + SIZE_CHANGE}


def _ratio(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.asarray(np.maximum(a / b, b / a))


# --- files ----------------------------------------------------------------------------------------------------------------------


def make_benchmark(folder: str | os.PathLike[str], sequences: Iterable[str] | None = None, progress: bool = False) -> Path:
    """Write the benchmark (or the named sequences of it) in VOT layout and return its folder.

    `list.txt`, `<name>/color/%08d.jpg` from 1, `<name>/groundtruth.txt` (eight numbers a line, px), one `<name>/<tag>.tag` for
    each of `TAGS` (0 or 1 a line). The folder appears whole or not at all: one that this very generator has made is left as it
    is, one that another version made is replaced, and any other folder with something in it is refused.

    Raises InputError for an unknown sequence, a folder that is something else or cannot be written, and missing photographs.
    """
    folder, specs = Path(folder).absolute(), _chosen(sequences)
    stamp = _stamp(specs)
    partial = folder.with_name(f".{folder.name}.partial-{os.getpid()}")  # beside it, so that renaming is atomic
    try:
        if _made_by(folder) == stamp:
            return folder
        if folder.exists() and not (_made_by(folder) or (folder.is_dir() and not any(folder.iterdir()))):
            raise InputError(f"{folder}: this is not a demo benchmark, so it is not overwritten; name an empty or a new folder.")
        folder.parent.mkdir(parents=True, exist_ok=True)
        _sweep(folder, partial)
        partial.mkdir()
        for spec in tqdm(specs, desc="demo benchmark", unit="sequence", disable=not progress):
            _write_sequence(partial / spec.name, spec)
        (partial / "list.txt").write_text("".join(f"{spec.name}\n" for spec in specs))
        (partial / STAMP).write_text(stamp)
        if _made_by(folder) != stamp:  # else another process was faster
            _put_in_place(partial, folder)
    except OSError as error:
        raise InputError(f"{folder}: the demo benchmark cannot be written there ({error.strerror or error}).") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return folder


def _chosen(names: Iterable[str] | None) -> list[Spec]:
    known = [spec.name for spec in _SEQUENCES]
    wanted = known if names is None else list(names)
    for name in wanted:
        if name not in known:
            raise InputError(f"{name}: no such sequence in the demo benchmark, which has {', '.join(known)}.")
    return [spec for spec in _SEQUENCES if spec.name in wanted]


def _stamp(specs: list[Spec]) -> str:
    """What a finished folder is recognised by: this file's text, so that no change is forgotten, and the sequences."""
    generator = hashlib.sha256(Path(__file__).read_bytes()).hexdigest()[:16]
    return json.dumps({"generator": generator, "sequences": [spec.name for spec in specs]}) + "\n"


def _made_by(folder: Path) -> str:
    """The stamp of a finished benchmark, empty where there is none."""
    path = folder / STAMP
    return path.read_text(errors="replace") if path.is_file() else ""


def _sweep(folder: Path, own: Path) -> None:
    """Remove what interrupted runs left behind, but not what another process is writing now."""
    for path in folder.parent.glob(f".{folder.name}.partial-*"):
        with contextlib.suppress(FileNotFoundError):  # somebody else sweeps, too
            if path == own or time.time() - path.stat().st_mtime > _STALE:
                shutil.rmtree(path)


def _put_in_place(partial: Path, folder: Path) -> None:
    """Rename the finished folder, after moving an older version's out of the way."""
    old = partial.with_name(f"{partial.name}-old")
    if folder.exists():
        folder.rename(old)
    partial.rename(folder)
    shutil.rmtree(old, ignore_errors=True)


def _write_sequence(folder: Path, spec: Spec) -> None:
    (folder / "color").mkdir(parents=True)
    frames: list[Frame] = []
    for index, frame in enumerate(render(spec), start=1):
        _, encoded = cv2.imencode(".jpg", frame.image, [cv2.IMWRITE_JPEG_QUALITY, _JPEG])
        (folder / "color" / f"{index:08d}.jpg").write_bytes(encoded.tobytes())
        frames.append(frame._replace(image=np.empty(0)))  # the pixels are on disk
    lines = (",".join(f"{value:.2f}" for value in frame.polygon.ravel()) for frame in frames)
    (folder / "groundtruth.txt").write_text("".join(f"{line}\n" for line in lines))
    for tag, holds in tag_frames(frames, spec.size).items():
        (folder / f"{tag}.tag").write_text("".join(f"{int(value)}\n" for value in holds))
