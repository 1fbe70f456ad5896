"""Frames from a video file, a folder of images or a camera; boxes out as CSV and an annotated
mp4."""

from __future__ import annotations

from contextlib import contextmanager
from pathlib import Path
from typing import Any, Iterator

import cv2
import numpy as np

from lib.errors import InputError
from lib.files import whole_file, write_text
from lib.vot.dataset import read_frame

IMAGES = (".jpg", ".jpeg", ".png", ".bmp", ".ppm", ".tif", ".tiff")
COLUMNS = "frame,x,y,w,h,score,seconds"
COLOUR = (0, 190, 255)  # BGR


class FrameSource:
    """Iterates over (H, W, 3) uint8 BGR frames of one size.

    source: a video file, a folder with images (sorted by name; `color/` or `img/` inside it is
    taken), or a camera as its number. `len` is the number of frames where it is known, else 0;
    `rate` is in frames per second. Raises InputError naming what is wrong.
    """

    def __init__(self, source: str) -> None:
        self.name, self.rate = source, 30.0
        self._files: list[Path] = []
        self._capture: Any = None
        path = Path(source)
        if path.is_dir():
            inside = next(
                (path / name for name in ("color", "img") if (path / name).is_dir()), path
            )
            self._files = sorted(f for f in inside.iterdir() if f.suffix.lower() in IMAGES)
            if not self._files:
                raise InputError(f"{path}: no images in this folder")
        elif path.is_file() or source.isdigit():
            self._capture = cv2.VideoCapture(int(source) if source.isdigit() else source)
            if not self._capture.isOpened():
                raise InputError(f"{source}: not a readable video or camera")
            rate = self._capture.get(cv2.CAP_PROP_FPS)
            self.rate = rate if 1 <= rate <= 1000 else 30.0
        else:
            raise InputError(f"{source}: no such video, folder or camera number")

    def __len__(self) -> int:
        if self._capture is None:
            return len(self._files)
        return max(0, int(self._capture.get(cv2.CAP_PROP_FRAME_COUNT)))

    def __iter__(self) -> Iterator[np.ndarray]:
        shape = None
        for number, frame in enumerate(self._frames(), 1):
            shape = shape or frame.shape
            if frame.shape != shape:
                raise InputError(
                    f"{self.name}: frame {number} has {frame.shape[1]}x{frame.shape[0]} pixels, "
                    f"the first has {shape[1]}x{shape[0]}"
                )
            yield frame
        if shape is None:
            raise InputError(f"{self.name}: no frame could be read")

    def _frames(self) -> Iterator[np.ndarray]:
        yield from map(read_frame, self._files)
        if self._capture is None:
            return
        expected, read = len(self), 0
        try:
            found, frame = self._capture.read()
            while found:
                read += 1
                yield frame
                found, frame = self._capture.read()
        finally:
            self._capture.release()
        # Containers may count a few frames too many; a tenth is damage
        if 0 < read < 0.9 * expected:
            raise InputError(f"{self.name}: truncated, {read} of {expected} frames could be read")


class TrackWriter:
    """Takes frames and boxes one by one, for `write_track`."""

    def __init__(self, folder: Path, rate: float) -> None:
        self.boxes, self.video = folder / "boxes.csv", folder / "tracked.mp4"
        self.partial = self.video  # where the video is written to
        self.rows: list[str] = []
        self._rate = rate
        self._encoder: Any = None

    def add(self, frame: np.ndarray, box: np.ndarray, score: float, seconds: float) -> None:
        """Append a frame with its box x y w h in pixels, score 0..1."""
        if self._encoder is None:
            code, size = cv2.VideoWriter.fourcc(*"mp4v"), (frame.shape[1], frame.shape[0])
            self._encoder = cv2.VideoWriter(str(self.partial), code, self._rate, size)
            if not self._encoder.isOpened():
                raise InputError(f"{self.video}: OpenCV cannot write mp4 videos there")
        numbers = [*(f"{value:.2f}" for value in box), f"{score:.4f}", f"{seconds:.5f}"]
        self.rows.append(",".join([str(len(self.rows) + 1), *numbers]))
        self._encoder.write(annotated(frame, box, score))

    def close(self) -> None:
        if self._encoder is not None:
            self._encoder.release()


@contextmanager
def write_track(folder: Path, rate: float) -> Iterator[TrackWriter]:
    """boxes.csv and tracked.mp4 in a folder; both appear when the block ends, or neither where it
    fails. Raises InputError where they cannot be written."""
    writer = TrackWriter(folder, rate)
    with whole_file(writer.video) as writer.partial:
        try:
            yield writer
        finally:
            writer.close()
        capture = cv2.VideoCapture(str(writer.partial))
        written = int(capture.get(cv2.CAP_PROP_FRAME_COUNT))
        capture.release()
        if written != len(writer.rows):  # OpenCV says nothing when a disk is full
            raise InputError(f"{folder}: not everything could be written (is the disk full?)")
        write_text(writer.boxes, "\n".join([COLUMNS, *writer.rows, ""]))


def annotated(frame: np.ndarray, box: np.ndarray, score: float) -> np.ndarray:
    """A copy of the frame with box (x y w h) and score drawn."""
    image = frame.copy()
    x, y, width, height = (int(round(float(value))) for value in box)
    cv2.rectangle(image, (x, y), (x + width, y + height), COLOUR, 2)
    place, font = (x, max(12, y - 5)), cv2.FONT_HERSHEY_SIMPLEX
    cv2.putText(image, f"{score:.2f}", place, font, 0.5, COLOUR, 1, cv2.LINE_AA)
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
