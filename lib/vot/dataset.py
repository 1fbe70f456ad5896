"""Annotated sequences (section 3.3.2): VOT folders, PySOT's json files and OTB folders behind one
type.

Annotations are checked once, on loading; frames are read one at a time, and evaluating raw results
needs none.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Mapping
from typing import Sequence as Seq

import numpy as np

from lib.errors import InputError
from lib.files import pictures_in
from lib.vot.overlap import region_corners

TAGS = ("camera_motion", "illumination_change", "motion_change", "size_change", "occlusion")
# The names VOT gives them in files (tag files, PySOT's json, reports).
TAG_FILES = {tag: tag.replace("illumination", "illum") for tag in TAGS}
VOT2018_FRAMES = 21356
VOT2018_SEQUENCES = 60
_ENDINGS = {b"\xff\xd8": b"\xff\xd9", b"\x89P": b"IEND"}  # how JPEG and PNG files begin and end


@dataclass(frozen=True)
class Sequence:
    """One video with a region per frame.

    frames: N paths; the files may be missing on this machine. regions: N float arrays of 4 (x, y,
    w, h) or 8 numbers (a polygon's corners x1, y1, .. x4, y4) in pixels. tags: attribute -> (N,)
    bool. width, height: of every frame, in pixels.
    """

    name: str
    frames: tuple[Path, ...]
    regions: tuple[np.ndarray, ...]
    tags: Mapping[str, np.ndarray]
    width: int
    height: int

    def __len__(self) -> int:
        return len(self.regions)

    def frame(self, index: int) -> np.ndarray:
        """(H, W, 3) uint8, BGR. Raises InputError where the file is missing or broken."""
        return read_frame(self.frames[index])

    @property
    def has_frames(self) -> bool:
        return bool(self.frames) and self.frames[0].is_file()


@dataclass(frozen=True)
class Dataset:
    """Sequences in the order of their list; `path` is the folder or json file they came from."""

    name: str
    path: Path
    sequences: tuple[Sequence, ...] = field(repr=False)

    def __len__(self) -> int:
        return len(self.sequences)

    def __iter__(self):
        return iter(self.sequences)

    def __getitem__(self, name: str) -> Sequence:
        return {sequence.name: sequence for sequence in self.sequences}[name]


def polygon_corners(region: np.ndarray) -> np.ndarray:
    """(4, 2) float64 corners of a box (clockwise from the top left) or of a polygon."""
    return region_corners([region])[0]


def axis_aligned_box(region: np.ndarray) -> np.ndarray:
    """The box (x, y, w, h) a tracker is initialised with: PySOT's get_axis_aligned_bbox as its
    test.py applies it.

    A polygon becomes the box around its mean corner with the polygon's area and the aspect ratio of
    its bounding box; the sizes count pixels (w = s * (x_max - x_min) + 1, x = centre - (w - 1) /
    2). A box stays as it is.
    """
    region = np.asarray(region, float)
    if region.size == 4:
        return region.copy()
    corners = region.reshape(4, 2)
    extent = corners.max(0) - corners.min(0)
    sides = np.linalg.norm(corners[0] - corners[1]) * np.linalg.norm(corners[1] - corners[2])
    size = np.sqrt(sides / extent.prod()) * extent + 1
    return np.concatenate([corners.mean(0) - (size - 1) / 2, size])


def read_frame(path: Path) -> np.ndarray:
    """(H, W, 3) uint8, BGR; a grey file gets three equal channels. Raises InputError where the file
    is missing, truncated or no image."""
    import cv2  # evaluating needs no images, so the import waits

    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise InputError(f"Frame {path} cannot be read: {error.strerror}.") from None
    image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR) if data else None
    if image is None:
        raise InputError(f"Frame {path} is not a readable image.")
    # OpenCV fills the missing part with grey and says nothing
    if _ENDINGS.get(data[:2], b"") not in data[-1024:]:
        raise InputError(f"Frame {path} is truncated.")
    return image


def load_dataset(path: str | Path) -> Dataset:
    """Load a VOT folder, an OTB folder (both: of sequences, or one sequence) or PySOT's json file
    (or the folder holding it).

    Raises InputError, naming the file, where annotations are missing, unreadable, too few, not
    finite, empty or off the image.
    """
    path = Path(path)
    if not path.exists():
        raise InputError(f"Dataset {path} does not exist.")
    described = path / f"{path.resolve().name}.json" if path.is_dir() else path
    if described.is_file():
        sequences = _load_json(described)
    else:
        sequences = [_load_folder(folder) for folder in _sequence_folders(path)]
    if not sequences:
        raise InputError(
            f"Dataset {path} holds no sequence (list.txt, groundtruth.txt, groundtruth_rect.txt)."
        )
    return Dataset(described.stem, path, tuple(sequences))


def _first(folder: Path, *names: str) -> Path | None:
    """The first of the names that exists in a folder."""
    return next((folder / name for name in names if (folder / name).exists()), None)


def _annotations(folder: Path) -> Path | None:
    return _first(folder, "groundtruth.txt", "groundtruth_rect.txt")


def _sequence_folders(path: Path) -> list[Path]:
    """The sequences of a folder: itself, those in its list.txt, or all inside."""
    if _annotations(path):
        return [path]
    listing = path / "list.txt"
    if listing.is_file():
        return [path / name.strip() for name in read_text(listing).splitlines() if name.strip()]
    return sorted(folder for folder in path.iterdir() if _annotations(folder))


def _load_folder(folder: Path) -> Sequence:
    """A VOT sequence (frames in color/ or beside groundtruth.txt) or an OTB sequence (frames in
    img/)."""
    source = _annotations(folder) or folder / "groundtruth.txt"
    regions = read_numbers(source)
    images = _first(folder, "color", "img") or folder
    frames = pictures_in(images)
    if not frames:
        raise InputError(f"Sequence folder {folder} has no frames.")
    tags = {}
    for tag, name in TAG_FILES.items():
        file = _first(folder, f"{name}.tag", f"{name}.label")
        tags[tag] = [value for row in read_numbers(file) for value in row] if file else []
    size = read_frame(frames[0]).shape[1::-1]
    return _checked(str(source), folder.resolve().name, frames, regions, tags, size)


def _load_json(path: Path) -> list[Sequence]:
    """PySOT's json: {name: {img_names, gt_rect, one list per tag, width, height}}.

    An empty tag list means that the tag never occurs. OTB's json has no sizes: a frame tells.
    """
    sequences = []
    try:
        for name, video in json.loads(read_text(path)).items():
            frames = [path.parent / image for image in video["img_names"]]
            regions = [[float(value) for value in region] for region in video["gt_rect"]]
            tags = {
                tag: [float(value) for value in video.get(key, ())]
                for tag, key in TAG_FILES.items()
            }
            if "width" in video:
                size = int(video["width"]), int(video["height"])
            else:
                size = read_frame(frames[0]).shape[1::-1]
            sequences.append(_checked(f"{path} ('{name}')", name, frames, regions, tags, size))
    except (ValueError, KeyError, TypeError, AttributeError, IndexError):
        raise InputError(f"{path} is not a dataset in PySOT's json format.") from None
    return sequences


def _checked(
    source: str,
    name: str,
    frames: Seq[Path],
    regions: Seq[Seq[float]],
    tags: Mapping[str, Seq[float]],
    size: tuple[int, int],
) -> Sequence:
    """The sequence, or InputError where its annotations cannot be meant: `source` names the file in
    the message."""
    count, (width, height) = len(frames), size
    if len(regions) != count or not count:
        raise InputError(f"{source} has {len(regions)} boxes for {count} frames.")
    corners = region_corners([np.asarray(region) for region in regions])  # (N, 4, 2)
    low, high = corners.min(1), corners.max(1)
    inverted = np.array([len(region) == 4 and min(region[2:]) <= 0 for region in regions])
    faults = {
        "has neither 4 nor 8 finite numbers": ~np.isfinite(corners).all((1, 2)),
        "has no positive size": (high <= low).any(1) | inverted,
        f"is outside its {width} x {height} image": ((high <= 0) | (low >= size)).any(1),
    }
    for fault, where in faults.items():
        if where.any():
            raise InputError(f"{source}: the box of frame {int(where.argmax()) + 1} {fault}.")
    flags = {tag: np.asarray(values, float) > 0 for tag, values in tags.items()}
    for tag, values in flags.items():
        if len(values) not in (0, count):
            raise InputError(f"{source}: tag '{tag}' has {len(values)} values for {count} frames.")
        if not len(values):
            flags[tag] = np.zeros(count, bool)
    boxes = tuple(np.array(region, float) for region in regions)
    return Sequence(name, tuple(frames), boxes, flags, width, height)


def read_text(path: Path) -> str:
    """A text file's content. Raises InputError where it cannot be read."""
    try:
        return path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "not a text file"
        raise InputError(f"{path} cannot be read: {reason}.") from None


def read_numbers(path: Path) -> list[list[float]]:
    """Rows of numbers separated by commas, tabs or spaces; empty lines at the end are dropped.
    Raises InputError naming a bad line."""
    rows: list[list[float]] = []
    for number, line in enumerate(read_text(path).rstrip().splitlines(), 1):
        try:
            rows.append([float(value) for value in line.replace(",", " ").split()])
        except ValueError:
            raise InputError(f"{path}: line {number} is not a list of numbers.") from None
    return rows
