"""What the pages of chapter 2 share: a real pair of frames, the check of an equation, drawings."""

from __future__ import annotations

from typing import NamedTuple, Tuple, Union

import numpy as np
from matplotlib.axes import Axes
from torch import Tensor

from lib.errors import InputError
from lib.report.tables import Text
from lib.siamrpn.anchors import STRIDE
from lib.siamrpn.crop import EXEMPLAR_SIZE, SEARCH_SIZE, context_side, subwindow
from lib.vot.dataset import Dataset, Video, axis_aligned_box

AWAY = (4, 6)  # strides that the target of a shown pair of frames has gone between them
PAIR_FRAMES = 30  # after the first, in which such a pair is looked for
Example = Union[np.ndarray, Tensor, float]


def agreement(name: str, here: Example, there: Example, tolerance: float = 1e-5) -> Text:
    """How far two computations of the same thing are apart, as a share of the largest value.

    Raises ArithmeticError where that is more than `tolerance` or the shapes differ.
    """
    one, two = (
        np.asarray(value.detach() if isinstance(value, Tensor) else value, float)
        for value in (here, there)
    )
    if one.shape != two.shape:
        raise ArithmeticError(f"{name}: shape {one.shape} here and {two.shape} in PyTorch")
    apart = float(np.abs(one - two).max() / max(float(np.abs(two).max()), 1e-30))
    if not apart <= tolerance:
        raise ArithmeticError(
            f"{name}: {apart:.1e} apart from PyTorch, where {tolerance:.0e} is allowed"
        )
    values = f"{one.size:,} values" if one.size > 1 else "the one value"
    return Text(
        f"{name}: NumPy and PyTorch agree in {values}; "
        f"the largest difference is {apart:.1g} of the largest value."
    )


# -- A real pair of frames -------------------------------------------------------------------------


class Pair(NamedTuple):
    """The first frame of a sequence and another one as a tracker sees them that found the target
    in the first. second: the other's index.

    exemplar (127, 127, 3) and search crop (255, 255, 3), uint8 BGR. box: the second annotation,
    x1 y1 x2 y2 in pixels of the search crop.
    """

    sequence: Video
    second: int
    exemplar: np.ndarray
    search: np.ndarray
    box: np.ndarray

    @property
    def note(self) -> str:
        return f"Sequence {self.sequence.name}, frames 1 and {self.second + 1}"

    @property
    def centre(self) -> np.ndarray:
        """(2,) of the second annotation, x and y in pixels from the middle of the search crop."""
        return (self.box[:2] + self.box[2:]) / 2 - SEARCH_SIZE // 2


def choose_pair(dataset: Dataset) -> Pair:
    """The first sequence whose uncovered target gets AWAY strides from its first place, and the
    first frame where it has; else the frame with the farthest target of all.

    Raises InputError where no two frames of a sequence will do.
    """
    ways = []
    for sequence in dataset:
        centre, side = _place(sequence, 0)
        for index in range(1, min(PAIR_FRAMES, len(sequence) - 1) + 1):
            gone = float(np.linalg.norm(_place(sequence, index)[0] - centre))
            strides = gone * EXEMPLAR_SIZE / side / STRIDE
            if AWAY[0] <= strides <= AWAY[1] and not sequence.tags["occlusion"][index]:
                return _pair(sequence, index)
            if strides <= AWAY[1]:
                ways.append((strides, sequence, index))
    if not ways:
        raise InputError(
            f"dataset {dataset.name}: no two frames of a sequence show the same target near one place"
        )
    return _pair(*max(ways, key=lambda way: way[0])[1:])


def _place(sequence: Video, index: int) -> Tuple[np.ndarray, float]:
    """Centre of an annotation and the side of its exemplar window, in frame pixels."""
    box = axis_aligned_box(sequence.regions[index])
    return box[:2] + (box[2:] - 1) / 2, context_side(box[2], box[3])


def _pair(sequence: Video, index: int) -> Pair:
    first, second, (centre, side) = sequence.frame(0), sequence.frame(index), _place(sequence, 0)
    fill, larger = first.mean((0, 1)), round(side * SEARCH_SIZE / EXEMPLAR_SIZE)
    exemplar = subwindow(first, centre, round(side), EXEMPLAR_SIZE, fill)
    search = subwindow(second, centre, larger, SEARCH_SIZE, fill)
    box = axis_aligned_box(sequence.regions[index])
    ends = np.array([box[:2], box[:2] + box[2:] - 1])
    seen = ((ends - centre) * EXEMPLAR_SIZE / side + SEARCH_SIZE // 2).ravel()
    return Pair(sequence, index, exemplar, search, seen)


# -- Drawings --------------------------------------------------------------------------------------


def picture(axis: Axes, image: np.ndarray, title: str) -> None:
    """An image (H, W, 3) BGR."""
    axis.imshow(image[..., ::-1], interpolation="antialiased")
    axis.set_title(title, fontsize=10)
    axis.set_axis_off()


def box_of(corners: np.ndarray) -> np.ndarray:
    """x1 y1 x2 y2 to x y w h."""
    return np.concatenate([corners[:2], corners[2:] - corners[:2]])
