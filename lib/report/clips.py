"""Moving pictures of the pages: tracked frames side by side, with boxes as they were measured.

A clip is an H.264 video inside the page, so it plays without a server; on paper and for readers
without videos there is a still.
"""

from __future__ import annotations

import tempfile
from base64 import b64encode
from html import escape
from pathlib import Path
from typing import Iterable, Mapping, Sequence, Tuple

import cv2
import matplotlib
import numpy as np
from PIL import Image, ImageDraw, ImageFont, ImageOps

from lib.measure.measurement import Measurement
from lib.report.plots import ORANGE, SKY, YELLOW, needs_frames
from lib.video import H264
from lib.vot.dataset import Video, polygon_corners
from lib.vot.protocol import FAILURE, INIT

WHITE, INK = "#FFFFFF", "#222222"
WIDTH, BAR = 300, 26  # pixels: of a panel, and of its title's height


class Clip:
    """frames: (H, W, 3) uint8 RGB of one size, shown `rate` a second. still: the number of the
    frame that stands for the clip on paper. alt: what is to be seen, for those who cannot."""

    def __init__(
        self, frames: Sequence[np.ndarray], caption: str, alt: str, still: int = 0, rate: float = 6
    ) -> None:
        self.caption, self.alt = caption, alt
        self.still = cv2.imencode(".jpg", frames[still][..., ::-1])[1].tobytes()
        height, width = frames[0].shape[:2]
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "clip.mp4"
            encoder = H264(path, rate, (width // 2 * 2, height // 2 * 2))
            for number, frame in enumerate(frames):
                even = frame[: height // 2 * 2, : width // 2 * 2, ::-1]
                encoder.write(np.array(even), number / rate)
            encoder.close()
            self.video = path.read_bytes()

    def _repr_html_(self) -> str:
        still = f"data:image/jpeg;base64,{b64encode(self.still).decode()}"
        video = f"data:video/mp4;base64,{b64encode(self.video).decode()}"
        alt = escape(self.alt, quote=True)
        return (
            f'<figure class="clip"><video autoplay muted loop playsinline controls poster="{still}" '
            f'aria-label="{alt}" src="{video}"></video><img class="still" src="{still}" alt="{alt}">'
            f"<figcaption>{escape(self.caption)}</figcaption></figure>"
        )

    def __repr__(self) -> str:
        return f"Clip of {len(self.video) / 1e3:.0f} kB: {self.caption}"


@needs_frames
def side_by_side(
    data: Iterable[Video], trackers: Mapping[str, Measurement], caption: str, length: int = 120
) -> Clip:
    """A panel per tracker: annotation, box, number of failures so far.

    The sequence is the one on which the last tracker fails most often more than the first one, and
    the frames are the `length` around its first failure there. The caption may name {sequence}.
    """
    first, *_, last = trackers.values()
    sequence = max(data, key=lambda each: _failures(last, each).size - _failures(first, each).size)
    failed = _failures(last, sequence)
    middle = int(failed[0]) if failed.size else length // 2
    start = max(0, min(middle, len(sequence) - length // 2) - length // 2)
    panels = [
        np.hstack([panel(sequence, number, *tracker) for tracker in trackers.items()])
        for number in range(start, min(len(sequence), start + length))
    ]
    names = ", ".join(trackers)
    alt = f"{sequence.name}, tracked by {names}: the target with its annotation and their boxes."
    return Clip(panels, caption.format(sequence=sequence.name), alt, still=len(panels) // 2)


def _failures(measured: Measurement, sequence: Video) -> np.ndarray:
    return np.flatnonzero(measured.trajectories[sequence.name].codes == FAILURE)


def panel(sequence: Video, number: int, title: str, measured: Measurement) -> np.ndarray:
    """(H, WIDTH, 3) uint8 RGB: a frame with boxes, its title above."""
    image, scale = resized(sequence.frame(number))
    draw = ImageDraw.Draw(image)
    corners = polygon_corners(sequence.regions[number]) * scale
    draw.polygon([tuple(corner) for corner in corners], outline=YELLOW, width=2)
    failures = int(np.sum(_failures(measured, sequence) <= number))
    entry = measured.trajectories[sequence.name].entries[number]
    if len(entry) == 4:
        x, y, w, h = entry * scale
        draw.rectangle((x, y, x + max(w, 1), y + max(h, 1)), outline=SKY, width=3)
    elif entry[0] != INIT:
        draw.rectangle((0, 0, *image.size), outline=ORANGE, width=6)
    return titled(image, title, f"lost {failures}×" if failures else "")


def resized(frame: np.ndarray) -> Tuple[Image.Image, float]:
    """A BGR image as wide as a panel, and its scale."""
    scale = WIDTH / frame.shape[1]
    size = (WIDTH, round(frame.shape[0] * scale))
    small = cv2.resize(frame, size, interpolation=cv2.INTER_AREA)
    return Image.fromarray(cv2.cvtColor(small, cv2.COLOR_BGR2RGB)), scale


def titled(image: Image.Image, title: str, right: str = "") -> np.ndarray:
    """The image under a bar with its title, and with orange words at the bar's right end."""
    image = ImageOps.expand(image, (0, BAR, 0, 0), INK)
    draw = ImageDraw.Draw(image)
    font = ImageFont.truetype(f"{matplotlib.get_data_path()}/fonts/ttf/DejaVuSans-Bold.ttf", 15)
    draw.text((8, 4), title, fill=WHITE, font=font)
    draw.text((WIDTH - 8, 4), right, fill=ORANGE, font=font, anchor="ra")
    return np.asarray(image)
