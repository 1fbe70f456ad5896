"""Images with a class: generated ones, which need no download, or folders like ImageNet's.

A generated class is one of 8 shapes with one of 8 textures. Colours, place, size, angle, clutter,
light, blur and covering are random, so neither colour nor outline alone gives the class away. A
picture is a function of (seed, index), so a run that stops and resumes sees the same pictures.
"""

from __future__ import annotations

from pathlib import Path
from typing import Callable, Dict, Tuple

import cv2
import numpy as np
from torch.utils.data import Dataset

from lib.errors import InputError
from lib.files import pictures_in
from lib.siamrpn.crop import as_input
from lib.training.augment import degrade, relight
from lib.vot.dataset import read_frame

GENERATED = "generated"
TEXTURES = ("stripes", "checks", "dots", "rings", "zigzag", "plaid", "grain", "bricks")

CIRCLE = np.stack([function(np.arange(48) * (2 * np.pi / 48)) for function in (np.cos, np.sin)], 1)
TIPS = np.arange(10) * (2 * np.pi / 10)  # of the star, in turns far from and near its centre
# Corners of the shapes, x and y, about -1..1
OUTLINES: Dict[str, np.ndarray] = {
    "disc": CIRCLE,
    "triangle": np.array([(0, -1), (0.95, 0.8), (-0.95, 0.8)]),
    "square": np.array([(-0.8, -0.8), (0.8, -0.8), (0.8, 0.8), (-0.8, 0.8)]),
    "star": np.stack([np.sin(TIPS), -np.cos(TIPS)], 1) * np.tile([1.0, 0.42], 5)[:, None],
    "cross": np.stack(
        [
            [-0.3, 0.3, 0.3, 1, 1, 0.3, 0.3, -0.3, -0.3, -1, -1, -0.3],
            [-1, -1, -0.3, -0.3, 0.3, 0.3, 1, 1, 0.3, 0.3, -0.3, -0.3],
        ],
        1,
    ),
    "ring": CIRCLE,
    "half disc": CIRCLE[:25] * (1, 1.2) - (0, 0.5),
    "arrow": np.stack([[-1, 0.1, 0.1, 1, 0.1, 0.1, -1], [-0.3, -0.3, -0.9, 0, 0.9, 0.3, 0.3]], 1),
}
CLASSES = tuple(f"{shape}, {texture}" for shape in OUTLINES for texture in TEXTURES)
Picture = Tuple[np.ndarray, int]  # (3, S, S) float32, BGR 0..255, and its class


class Generated(Dataset):
    """Generated pictures of 64 classes, S x S pixels; validation uses seeds of its own."""

    classes = CLASSES

    def __init__(self, size: int, seed: int, validation: bool = False) -> None:
        self.size, self.seed, self.validation = size, seed, validation

    def __getitem__(self, index: int) -> Picture:
        random = np.random.RandomState([self.seed, index, int(self.validation)])
        label = int(random.randint(len(CLASSES)))
        return as_input(draw(label, self.size, random))[0], label


class Folders(Dataset):
    """`folder/train/CLASS/*` and `folder/val/CLASS/*`, as ImageNet is unpacked.

    Index i of training is a picture of epoch i // length, in that epoch's own order, cropped and
    mirrored at random as is usual for ImageNet (8 to 100 % of the area); validation pictures are
    cropped at the centre. Raises InputError for missing folders.
    """

    def __init__(self, folder: Path, size: int, seed: int, validation: bool = False) -> None:
        self.size, self.seed, self.validation = size, seed, validation
        train, val = (
            {
                child.name: pictures_in(child)
                for child in sorted((folder / part).glob("*"))
                if child.is_dir()
            }
            for part in ("train", "val")
        )
        if not train or list(train) != list(val) or not all([*train.values(), *val.values()]):
            raise InputError(
                f"{folder}: needs pictures in train/CLASS/ and val/CLASS/, of the same classes"
            )
        self.classes = tuple(train)
        self.files = [
            (file, label)
            for label, files in enumerate((val if validation else train).values())
            for file in files
        ]
        self._order = (-1, np.empty(0, int))  # epoch, and its permutation

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> Picture:
        epoch, place = divmod(index, len(self.files))
        random = np.random.RandomState([self.seed, epoch, place])
        if not self.validation:
            if epoch != self._order[0]:
                order = np.random.RandomState([self.seed, epoch]).permutation(len(self.files))
                self._order = (epoch, order)
            place = int(self._order[1][place])
        file, label = self.files[place]
        image = read_frame(file)
        crop = _centre(image, self.size) if self.validation else _crop(image, self.size, random)
        return as_input(crop)[0], label


def open_pictures(data: str, size: int, seed: int, validation: bool = False) -> Generated | Folders:
    """The pictures of a configuration: "generated", or a folder."""
    if data == GENERATED:
        return Generated(size, seed, validation)
    return Folders(Path(data), size, seed, validation)


def _crop(image: np.ndarray, size: int, random: np.random.RandomState) -> np.ndarray:
    """8 to 100 % of the picture's area at a random place, mirrored in half of the cases."""
    height, width = image.shape[:2]
    area = height * width * random.uniform(0.08, 1.0)
    ratio = np.exp(random.uniform(np.log(3 / 4), np.log(4 / 3)))
    w = min(width, max(1, int(np.sqrt(area * ratio))))
    h = min(height, max(1, int(np.sqrt(area / ratio))))
    x, y = random.randint(width - w + 1), random.randint(height - h + 1)
    how = cv2.INTER_AREA if w > size else cv2.INTER_LINEAR
    crop = cv2.resize(image[y : y + h, x : x + w], (size, size), interpolation=how)
    return crop[:, ::-1] if random.randint(2) else crop


def _centre(image: np.ndarray, size: int) -> np.ndarray:
    """The middle of the picture, seven eighths of its shorter side."""
    height, width = image.shape[:2]
    side = max(1, int(min(height, width) * 0.875))
    x, y = (width - side) // 2, (height - side) // 2
    return cv2.resize(image[y : y + side, x : x + side], (size, size), interpolation=cv2.INTER_AREA)


# -- Drawing ---------------------------------------------------------------------------------------


def draw(label: int, size: int, random: np.random.RandomState) -> np.ndarray:
    """A picture of a class, (size, size, 3) uint8."""
    shape, texture = divmod(label, len(TEXTURES))
    canvas = _clutter(size, random)
    paint = _texture(TEXTURES[texture], size, random)
    mask = _silhouette(tuple(OUTLINES)[shape], size, random)
    canvas = (canvas * (1 - mask) + paint * mask).astype(np.uint8)
    if random.random_sample() < 0.3:  # something thin lies across it
        start, end = random.randint(0, size, (2, 2)).tolist()
        colour = random.randint(0, 256, 3).tolist()
        cv2.line(canvas, start, end, colour, int(random.randint(2, size // 12)))
    return degrade(relight(canvas, random), random)


def _two_colours(random: np.random.RandomState) -> Tuple[np.ndarray, np.ndarray]:
    """Two colours that differ by a third of the scale or more in some channel."""
    while True:
        one, other = random.uniform(0, 255, 3), random.uniform(0, 255, 3)
        if np.abs(one - other).max() > 85:
            return one, other


def _clutter(size: int, random: np.random.RandomState) -> np.ndarray:
    """Smooth colours with scraps of shapes and textures on them."""
    colours = random.randint(0, 256, (4, 4, 3)).astype(np.uint8)
    canvas = cv2.resize(colours, (size, size), interpolation=cv2.INTER_CUBIC)
    for _ in range(random.randint(2, 6)):
        paint = _texture(TEXTURES[random.randint(len(TEXTURES))], size, random)
        points = random.randint(-size // 4, size * 5 // 4, (3, 2)).astype(np.int32)
        scrap = cv2.fillConvexPoly(np.zeros((size, size), np.uint8), points, 1)
        mixed = (0.5 * canvas + 0.5 * paint).astype(np.uint8)
        canvas = np.where(scrap[..., None] > 0, mixed, canvas)
    return canvas


def _texture(name: str, size: int, random: np.random.RandomState) -> np.ndarray:
    """Two colours by a pattern of random pitch, angle and phase, (size, size, 3)."""
    pitch, angle = size * random.uniform(0.06, 0.14), random.uniform(0, 2 * np.pi)
    y, x = np.mgrid[:size, :size] + random.uniform(0, size, (2, 1, 1))
    u = (np.cos(angle) * x + np.sin(angle) * y) / pitch
    v = (np.cos(angle) * y - np.sin(angle) * x) / pitch
    grains = max(4, int(size / pitch * 2))
    patterns: Dict[str, Callable[[], np.ndarray]] = {
        "stripes": lambda: u % 2 < 1,
        "checks": lambda: (np.floor(u) + np.floor(v)) % 2 < 1,
        "dots": lambda: np.hypot(u % 2 - 1, v % 2 - 1) < 0.6,
        "rings": lambda: np.hypot(u - u.mean(), v - v.mean()) % 2 < 1,
        "zigzag": lambda: (v + np.abs(u % 2 - 1) * 1.5) % 2 < 1,
        "plaid": lambda: (u % 3 < 0.7) | (v % 3 < 0.7),
        "grain": lambda: cv2.resize(random.standard_normal((grains, grains)), (size, size)) > 0,
        "bricks": lambda: (v % 1.5 < 0.25) | ((u + np.floor(v / 1.5) % 2 * 1.5) % 3 < 0.3),
    }
    one, other = _two_colours(random)
    return np.where(patterns[name]()[..., None], one, other)


def _silhouette(name: str, size: int, random: np.random.RandomState) -> np.ndarray:
    """A soft mask (size, size, 1), 0..1, of a shape at a random place, size, angle and shear."""
    radius, angle = size * random.uniform(0.22, 0.42), random.uniform(0, 2 * np.pi)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    bend = np.array([[1, random.uniform(-0.3, 0.3)], [0, random.uniform(0.75, 1.25)]])
    centre = size / 2 + random.uniform(-0.12, 0.12, 2) * size

    def fill(outline: np.ndarray) -> np.ndarray:
        points = np.round((outline @ (turn @ bend).T * radius + centre) * 16).astype(np.int32)
        return cv2.fillPoly(np.zeros((size, size), np.float32), [points], 1.0, shift=4)

    mask = fill(OUTLINES[name])
    if name == "ring":
        mask = mask * (1 - fill(CIRCLE * 0.5))
    return cv2.GaussianBlur(mask, (0, 0), 0.8)[..., None]
