"""Frames from whatever OpenCV opens, or from a folder of pictures; boxes out as CSV, and an
annotated video."""

from __future__ import annotations

import os
from contextlib import contextmanager, suppress
from fractions import Fraction
from pathlib import Path
from typing import Any, Callable, Iterator

import cv2
import numpy as np

from lib.errors import InputError
from lib.files import pictures_of, refuse_others
from lib.siamrpn.tracker import TrackResult
from lib.vot.dataset import read_frame

COLUMNS = "frame,x,y,w,h,score,seconds,lost,time"
COLOUR, LOST_COLOUR = (0, 190, 255), (60, 60, 255)  # BGR
LARGEST_SIDE = 4096  # px, of a video that hardware decodes
TICKS = 90000  # of a video's clock, per second


class FrameSource:
    """Iterates over (H, W, 3) uint8 BGR frames of one size, the first frame's.

    source: a folder with pictures (in natural order; `color/` or `img/` inside it is taken), or
    what OpenCV opens: a video file, an address (rtsp, http), a camera as its number. `len` is the
    number of frames as far as it is known, a guess of the container's; `rate` is in frames per
    second. `seconds` is the time of the last frame since the first. note: is called with a
    sentence about anything unexpected. Raises InputError naming what is wrong.
    """

    def __init__(self, source: str, note: Callable[[str], Any] = print) -> None:
        self.name, self.rate, self.seconds = source, 30.0, 0.0
        self._note = note
        self._files: list[Path] = []
        self._capture: Any = None
        if os.path.isdir(source):
            self._files = pictures_of(Path(source))
            if not self._files:
                raise InputError(f"{source}: no images in this folder")
            return
        if source.lower().endswith((".tif", ".tiff")) and cv2.imcount(source) > 1:
            raise InputError(
                f"{source}: {cv2.imcount(source)} pictures in one file; give a folder of pictures"
            )
        camera = source.isascii() and source.isdigit() and len(source) < 5
        self._capture = cv2.VideoCapture(int(source) if camera else source)
        if not self._capture.isOpened():
            known = camera or os.path.exists(source) or "://" in source
            fault = "not a readable video" if known else "no such video, folder, address or camera"
            raise InputError(f"{source}: {fault}")
        rate = self._capture.get(cv2.CAP_PROP_FPS)
        self.rate = rate if 0.01 <= rate <= 1000 else 30.0

    def __len__(self) -> int:
        if self._capture is None:
            return len(self._files)
        return max(0, int(self._capture.get(cv2.CAP_PROP_FRAME_COUNT)))

    def __iter__(self) -> Iterator[np.ndarray]:
        return self._captured() if self._capture is not None else self._pictures()

    def _pictures(self) -> Iterator[np.ndarray]:
        first, low, high = read_frame(self._files[0], deep=True), 0.0, 255.0
        if first.dtype != np.uint8:  # all but a thousandth lie between black and white
            low, high = np.nanpercentile(first, (0.1, 99.9))
            self._note(
                f"{self.name}: pictures of {first.dtype}, whose values {low:g} to {high:g} "
                "become 0 to 255 in every frame"
            )
        for number, file in enumerate(self._files):
            self.seconds = number / self.rate
            frame = read_frame(file, deep=True)
            if frame.shape != first.shape or frame.dtype != first.dtype:
                raise InputError(
                    f"{self.name}: frame {number + 1} has {_about(frame)}, the first has {_about(first)}"
                )
            if frame.dtype != np.uint8:
                share = (frame.astype(np.float32) - low) / max(high - low, 1e-6)
                frame = np.nan_to_num(np.clip(255 * share, 0, 255)).astype(np.uint8)
            yield frame

    def _captured(self) -> Iterator[np.ndarray]:
        announced, read, start = len(self), 0, 0.0
        found, frame = self._capture.read()
        if not found:
            raise InputError(f"{self.name}: no frame could be read")
        first, scaled = frame, False
        while found:
            time = self._capture.get(cv2.CAP_PROP_POS_MSEC) / 1000 - start
            if read == 0:
                start, time = time, 0.0
            elif time <= self.seconds:  # a container without times
                time = self.seconds + 1 / self.rate
            self.seconds, read = time, read + 1
            if frame.shape != first.shape:
                if not scaled:
                    self._note(
                        f"{self.name}: frame {read} has {_about(frame)}, the first has "
                        f"{_about(first)}; such frames are scaled to the first one's size"
                    )
                frame = cv2.resize(frame, first.shape[1::-1], interpolation=cv2.INTER_AREA)
                scaled = True
            yield frame
            found, frame = self._capture.read()
        # By time: of a varying rate a container knows the length, and guesses the count
        shown = start + self.seconds + 1 / self.rate
        if read < announced and shown < 0.9 * announced / self.rate:
            self._note(
                f"{self.name}: {announced} frames announced, {read} could be read (damaged, or cut "
                "without re-encoding)"
            )


def _about(frame: np.ndarray) -> str:
    depth = "" if frame.dtype == np.uint8 else f" of {frame.dtype}"
    return f"{frame.shape[1]}x{frame.shape[0]} pixels{depth}"


class TrackWriter:
    """Takes frames and boxes one by one, for `write_track`. `fault` is why there is no video."""

    def __init__(self, folder: Path, rate: float, video: bool) -> None:
        self.boxes, self.video = folder / "boxes.csv", folder / "tracked.mp4"
        self.number, self.lost, self.fault = 0, 0, "" if video else "--no-video"
        self._partial = folder / f".tracked.{os.getpid()}.mp4"
        refuse_others(self.boxes, COLUMNS[:13].encode())
        if video and self.video.exists() and not self.boxes.exists():
            raise InputError(
                f"{self.video}: is there already, and was not made by this command; name another --out"
            )
        self._before = self.boxes.read_bytes() if self.boxes.is_file() else None
        self._rate = rate
        self._rows: Any = None
        self._encoder: Any = None

    def add(
        self, frame: np.ndarray, result: TrackResult, seconds: float, time: float = 0.0
    ) -> np.ndarray:
        """Append a frame with its result; returns it with the box drawn. seconds: of tracking.
        time: of the frame in the video."""
        if self._rows is None:
            self.boxes.parent.mkdir(parents=True, exist_ok=True)
            self._rows = self.boxes.open("w", encoding="utf-8")
            self._rows.write(f"{COLUMNS}\n")
        self.number, self.lost = self.number + 1, self.lost + result.lost
        box = ",".join(f"{value:.2f}" for value in result.box)
        self._rows.write(
            f"{self.number},{box},{result.score:.4f},{seconds:.5f},{result.lost:d},{time:.4f}\n"
        )
        image = annotated(frame, result.box, result.score, result.lost)
        if not self.fault:
            self._draw(image, time)
        try:
            self._rows.flush()
        except OSError:  # without the video there is room
            self.drop_video("the disk is full")
            self._rows.flush()
        return image

    def _draw(self, image: np.ndarray, time: float) -> None:
        try:
            fitted = _fitted(image)
            if self._encoder is None:
                size = fitted.shape[1], fitted.shape[0]
                self._encoder = H264(self._partial, self._rate, size)
            self._encoder.write(fitted, time)
        except Exception as error:  # boxes never depend on the video
            self.drop_video(" ".join(str(error).split()))

    def drop_video(self, fault: str) -> None:
        self.fault, self._encoder = fault or "the encoder failed", None
        with suppress(OSError):
            os.truncate(self._partial, 0)  # it may be open still
            self._partial.unlink()

    def close(self, keep: bool) -> None:
        """End both files; keep: False takes them away, and restores the boxes of an earlier run."""
        if self._encoder is not None:
            try:
                self._encoder.close()
                if keep:
                    os.replace(self._partial, self.video)
                else:
                    self.drop_video("not kept")
            except Exception as error:
                self.drop_video(" ".join(str(error).split()))
        if self._rows is not None:
            try:
                self._rows.close()
            except OSError:  # what is left to write has no room
                if keep:
                    raise
            if not keep:
                self.boxes.unlink()
                if self._before is not None:
                    self.boxes.write_bytes(self._before)


@contextmanager
def write_track(folder: Path, rate: float, video: bool = True) -> Iterator[TrackWriter]:
    """boxes.csv and, unless `video` is False, tracked.mp4 in a folder. Boxes are written frame by
    frame; both files stay when the block ends or is interrupted, and go where it fails.

    Raises InputError where boxes cannot be written.
    """
    new, keep = not os.path.exists(folder), True
    try:
        writer = TrackWriter(folder, rate, video)
        try:
            yield writer
        except (InputError, OSError):
            keep = False
            raise
        finally:
            writer.close(keep)
    except OSError as error:
        raise InputError(f"{folder}: cannot be written ({error.strerror or error})") from None
    finally:
        if new and not keep:
            with suppress(OSError):
                folder.rmdir()


class H264:
    """A video by PyAV, with the frames at their own times."""

    def __init__(self, path: Path, rate: float, size: tuple[int, int]) -> None:
        import av

        self._av = av
        self._file = av.open(str(path), "w", options={"movflags": "faststart"})
        rounded = Fraction(rate).limit_denominator(1001)
        options = {"preset": "veryfast", "crf": "23"}
        self._stream = self._file.add_stream("libx264", rate=rounded, options=options)
        self._stream.width, self._stream.height = size
        self._stream.pix_fmt = "yuv420p"
        self._stream.codec_context.time_base = Fraction(1, TICKS)

    def write(self, image: np.ndarray, time: float) -> None:
        frame = self._av.VideoFrame.from_ndarray(image, format="bgr24")
        frame.pts, frame.time_base = round(time * TICKS), Fraction(1, TICKS)
        self._file.mux(self._stream.encode(frame))

    def close(self) -> None:
        self._file.mux(self._stream.encode(None))
        self._file.close()


def _fitted(image: np.ndarray) -> np.ndarray:
    """The image in a size that every player has: not above LARGEST_SIDE, and of even sides."""
    height, width = image.shape[:2]
    scale = min(1.0, LARGEST_SIDE / max(height, width))
    size = [max(2, 2 * round(scale * side / 2)) for side in (width, height)]
    if size == [width, height]:
        return image
    return cv2.resize(image, size, interpolation=cv2.INTER_AREA)


def annotated(frame: np.ndarray, box: np.ndarray, score: float, lost: bool = False) -> np.ndarray:
    """A copy of the frame with box (x y w h) and score drawn."""
    image, colour = frame.copy(), LOST_COLOUR if lost else COLOUR
    x, y, width, height = (int(round(float(value))) for value in box)
    cv2.rectangle(image, (x, y), (x + width, y + height), colour, 2)
    place, font = (x, max(12, y - 5)), cv2.FONT_HERSHEY_SIMPLEX
    text = f"{'lost ' if lost else ''}{score:.2f}"
    cv2.putText(image, text, place, font, 0.5, colour, 1, cv2.LINE_AA)
    return image


def _pyplot() -> Any:
    """matplotlib's pyplot, since headless OpenCV has no windows. Raises InputError where there is
    no display."""
    import matplotlib
    from matplotlib import pyplot

    if matplotlib.get_backend().lower() in ("agg", "pdf", "svg", "ps", "template", "cairo"):
        raise InputError("no display here: give the box with --init x,y,w,h, and leave out --show")
    return pyplot


class Window:
    """A live window. `show` returns False once the user has closed it."""

    def __init__(self, title: str) -> None:
        self._pyplot = _pyplot()
        self._picture: Any = None
        self._figure, self._axes = self._pyplot.subplots(num=title)
        self._axes.set_axis_off()
        self._figure.show()

    def show(self, image: np.ndarray) -> bool:
        if self._picture is None:
            self._picture = self._axes.imshow(image[..., ::-1])
        self._picture.set_data(image[..., ::-1])
        self._figure.canvas.draw_idle()
        self._figure.canvas.flush_events()
        return self._pyplot.fignum_exists(self._figure.number)


def ask_box(frame: np.ndarray) -> np.ndarray:
    """Let the user draw the target with the mouse: x y w h.

    Raises InputError where there is no display, or the window is closed without a box.
    """
    from matplotlib.widgets import RectangleSelector

    pyplot = _pyplot()
    _, axes = pyplot.subplots(
        num="Draw a box around the target with the mouse, then close the window"
    )
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
