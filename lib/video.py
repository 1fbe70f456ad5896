"""Frames from a video file, a folder of images or a camera; boxes out as CSV and an annotated
mp4."""

from __future__ import annotations

import csv
import os
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Iterator, Optional, Tuple, Type

import cv2
import numpy as np

from lib.errors import InputError
from lib.vot.dataset import read_frame

IMAGES = (".jpg", ".jpeg", ".png", ".bmp", ".ppm", ".tif", ".tiff")
COLUMNS = ("frame", "x", "y", "w", "h", "score", "seconds")


class FrameSource:
    """Iterates over (H, W, 3) uint8 BGR frames of one size.

    source: a video file, a folder with images (sorted by name; `color/` or `img/` inside it is
    taken), or a camera as its number. `len` is the number of frames where it is known, else 0;
    `rate` is in frames a second. Raises InputError naming what is wrong.
    """

    def __init__(self, source: str) -> None:
        self.name = source
        self.files: Tuple[Path, ...] = ()
        self.capture: Optional[Any] = None
        self.rate = 30.0
        path = Path(source)
        if path.is_dir():
            inside = next(
                (path / name for name in ("color", "img") if (path / name).is_dir()), path
            )
            self.files = tuple(
                sorted(file for file in inside.iterdir() if file.suffix.lower() in IMAGES)
            )
            if not self.files:
                raise InputError(f"{path}: no images in this folder")
        elif path.is_file() or source.isdigit():
            self.capture = cv2.VideoCapture(int(source) if source.isdigit() else str(path))
            if not self.capture.isOpened():
                raise InputError(
                    f"camera {source}: cannot be opened"
                    if source.isdigit()
                    else f"{path}: not a readable video"
                )
            rate = self.capture.get(cv2.CAP_PROP_FPS)
            self.rate = rate if np.isfinite(rate) and 1 <= rate <= 1000 else 30.0
        else:
            raise InputError(f"{source}: no such video, folder or camera number")

    def __len__(self) -> int:
        if self.capture is None:
            return len(self.files)
        return 0 if self.name.isdigit() else max(0, int(self.capture.get(cv2.CAP_PROP_FRAME_COUNT)))

    def __iter__(self) -> Iterator[np.ndarray]:
        shape = None
        for number, frame in enumerate(self._frames(), 1):
            if shape is not None and frame.shape != shape:
                raise InputError(
                    f"{self.name}: frame {number} has {frame.shape[1]}x{frame.shape[0]} pixels, "
                    f"the first has {shape[1]}x{shape[0]}"
                )
            shape = frame.shape
            yield frame
        if shape is None:
            raise InputError(f"{self.name}: no frame could be read")

    def _frames(self) -> Iterator[np.ndarray]:
        if self.capture is None:
            yield from map(read_frame, self.files)
            return
        try:
            expected, read = len(self), 0
            while True:
                found, frame = self.capture.read()
                if not found:
                    break
                read += 1
                yield frame
            # Containers may count a few frames too many; a tenth is damage
            if 0 < read < 0.9 * expected:
                raise InputError(
                    f"{self.name}: truncated, {read} of {expected} frames could be read"
                )
        finally:
            self.capture.release()


class TrackWriter:
    """Writes boxes.csv and tracked.mp4 into a folder; both appear when the last frame is done, or
    not at all."""

    def __init__(self, folder: Path, rate: float) -> None:
        self.boxes, self.video = folder / "boxes.csv", folder / "tracked.mp4"
        self._partial = [
            file.with_name(f".{file.stem}.{os.getpid()}{file.suffix}")
            for file in (self.boxes, self.video)
        ]
        self._rate = rate
        self._encoder: Optional[Any] = None
        self._added = 0
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._stream = self._partial[0].open("w", newline="")
        except OSError as error:
            raise InputError(f"{folder}: cannot be written ({error.strerror})") from None
        self._rows = csv.writer(self._stream)
        self._rows.writerow(COLUMNS)

    def __enter__(self) -> TrackWriter:
        return self

    def add(
        self, number: int, frame: np.ndarray, box: np.ndarray, score: float, seconds: float
    ) -> None:
        """Append frame `number` (from 1), box x y w h in pixels, score 0..1."""
        if self._encoder is None:
            size = (frame.shape[1], frame.shape[0])
            self._encoder = cv2.VideoWriter(
                str(self._partial[1]), cv2.VideoWriter.fourcc(*"mp4v"), self._rate, size
            )
            if not self._encoder.isOpened():
                raise InputError(
                    f"{self.video}: this build of OpenCV cannot write mp4 videos there"
                )
        self._rows.writerow([number, *(f"{v:.2f}" for v in box), f"{score:.4f}", f"{seconds:.5f}"])
        self._encoder.write(annotated(frame, box, score))
        self._added += 1

    def __exit__(
        self,
        kind: Optional[Type[BaseException]],
        value: Optional[BaseException],
        trace: Optional[TracebackType],
    ) -> None:
        with suppress(OSError):
            self._stream.close()
        if self._encoder is not None:
            self._encoder.release()
        if kind is None and not self._complete():
            kind = InputError
        if kind is None:
            for partial, final in zip(self._partial, (self.boxes, self.video)):
                os.replace(str(partial), str(final))
        for partial in self._partial:
            with suppress(FileNotFoundError):
                partial.unlink()
        if value is None and kind is InputError:
            raise InputError(
                f"{self.boxes.parent}: not everything could be written (is the disk full?)"
            )

    def _complete(self) -> bool:
        """Whether both files hold what was added: OpenCV says nothing when a disk is full."""
        capture = cv2.VideoCapture(str(self._partial[1]))
        frames = int(capture.get(cv2.CAP_PROP_FRAME_COUNT)) if capture.isOpened() else -1
        capture.release()
        return (
            frames == self._added
            and len(self._partial[0].read_text().splitlines()) == self._added + 1
        )


def annotated(frame: np.ndarray, box: np.ndarray, score: float) -> np.ndarray:
    """A copy of the frame with box (x y w h) and score drawn."""
    image = frame.copy()
    x, y, width, height = (int(round(float(v))) for v in box)
    cv2.rectangle(image, (x, y), (x + width, y + height), (0, 190, 255), 2)
    cv2.putText(
        image,
        f"{score:.2f}",
        (x, max(12, y - 5)),
        cv2.FONT_HERSHEY_SIMPLEX,
        0.5,
        (0, 190, 255),
        1,
        cv2.LINE_AA,
    )
    return image


def draw_box(frame: np.ndarray) -> np.ndarray:
    """Let the user draw the target with the mouse: x y w h. Through matplotlib, since headless
    OpenCV has no windows.

    Raises InputError where there is no display, or the window is closed without a box.
    """
    import matplotlib
    from matplotlib import pyplot
    from matplotlib.widgets import RectangleSelector

    if matplotlib.get_backend().lower() in ("agg", "pdf", "svg", "ps", "template", "cairo"):
        raise InputError("no display to draw the box on: give it with --init x,y,w,h")
    _, axes = pyplot.subplots(num="Draw the target, then close the window")
    axes.imshow(frame[..., ::-1])
    axes.set_axis_off()
    selector = RectangleSelector(axes, lambda *_: None, useblit=True, interactive=True)
    pyplot.show()
    left, right, top, bottom = selector.extents
    if right - left < 1 or bottom - top < 1:
        raise InputError(
            "no box was drawn: draw one with the mouse, or give it with --init x,y,w,h"
        )
    return np.array([left, top, right - left, bottom - top])
