"""Annotated sequences (section 3.3.2): VOT folders, PySOT's json files and OTB folders behind one
type.

Annotations are checked once, on loading; frames are read one at a time, and evaluating raw results
needs none.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any, Collection, Mapping, Sequence

import numpy as np

from lib.errors import InputError
from lib.files import pictures_of
from lib.reading import read_bytes, read_mapping, read_text
from lib.vot.overlap import region_corners

TAGS = ("camera_motion", "illumination_change", "motion_change", "size_change", "occlusion")
# The names VOT gives them in files (tag files, PySOT's json, reports).
TAG_FILES = {tag: tag.replace("illumination", "illum") for tag in TAGS}
VOT2018_FRAMES = 21356
VOT2018_SEQUENCES = 60
# OTB's sequences that are annotated from a later frame on (the benchmark's page), by its number
OTB_STARTS = {"David": 300, "BlurCar1": 247, "BlurCar3": 3, "BlurCar4": 18, "Tiger1": 6}
FARTHEST = 1e6  # px, no corner of a target is as far away
DECIMAL_COMMA = re.compile(r"-?\d+,\d+")
# Files that say in which frames there is no target to see, and the number that says so: LaSOT's, GOT-10k's
VISIBILITY = {
    "full_occlusion.txt": 1,
    "out_of_view.txt": 1,
    "absence.label": 1,
    "cover.label": 0,
}
ABSENT = np.full(4, np.nan)  # the region of a frame without target


@dataclass(frozen=True)
class Video:
    """One video with a region per frame.

    frames: N paths; the files may be missing on this machine. regions: N float arrays of 4 (x, y,
    w, h) or 8 numbers (a polygon's corners x1, y1, .. x4, y4) in pixels; `ABSENT` where a frame has
    no target in sight. tags: attribute -> (N,) bool. width, height: of every frame, in pixels.
    unused: frames after the last one with a region.
    """

    name: str
    frames: tuple[Path, ...]
    regions: tuple[np.ndarray, ...]
    tags: Mapping[str, np.ndarray]
    width: int
    height: int
    unused: int = 0

    def __len__(self) -> int:
        return len(self.regions)

    def frame(self, index: int) -> np.ndarray:
        """(H, W, 3) uint8, BGR. Raises InputError where the file is missing or broken."""
        return read_frame(self.frames[index])

    @property
    def present(self) -> np.ndarray:
        """(N,) bool, whether the target is in sight. Other frames count neither for nor against."""
        return np.array([bool(np.isfinite(region).all()) for region in self.regions])

    @property
    def has_frames(self) -> bool:
        return bool(self.frames) and os.path.isfile(self.frames[0])


@dataclass(frozen=True)
class Dataset:
    """Sequences in the order of their list; `path` is the folder or json file they came from. notes:
    sentences on what was not as it should be; left_out: number of sequences that cannot be used."""

    name: str
    path: Path
    sequences: tuple[Video, ...] = field(repr=False)
    notes: tuple[str, ...] = ()
    left_out: int = 0

    def without(self, faults: Sequence[InputError], kept: Collection[str]) -> Dataset:
        """The dataset of the sequences `kept`, with the faults of the others as notes. Raises the
        first fault where none is kept."""
        if faults and not kept:
            raise faults[0]
        notes = (f"{str(fault).rstrip('.')}; this sequence is left out." for fault in faults)
        return replace(
            self,
            sequences=tuple(one for one in self if one.name in kept),
            notes=(*self.notes, *notes),
            left_out=self.left_out + len(faults),
        )

    def __len__(self) -> int:
        return len(self.sequences)

    def __iter__(self):
        return iter(self.sequences)

    def __getitem__(self, name: str) -> Video:
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


def read_frame(path: Path, deep: bool = False) -> np.ndarray:
    """(H, W, 3) uint8, BGR; a grey file gets three equal channels. deep: files of more than 8 bits
    keep their type. Raises InputError where the file is missing, truncated or no image."""
    import cv2  # evaluating needs no images, so the import waits

    data, flags = read_bytes(path), cv2.IMREAD_COLOR | (cv2.IMREAD_ANYDEPTH if deep else 0)
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), flags) if data else None
    except cv2.error:  # it claims to be larger than OpenCV reads
        image = None
    if image is None:
        raise InputError(f"Frame {path} is not a readable image.")
    if _is_cut(data):
        raise InputError(f"Frame {path} is truncated.")
    return image


def _is_cut(data: bytes) -> bool:
    """Whether a PNG file has no end, or pixels of a JPEG file are missing: OpenCV fills these with
    grey, wherever its end marker stands. Behind the end a video may follow (a motion photo)."""
    if data.startswith(b"\x89P"):
        return b"IEND\xaeB`\x82" not in data
    if data.startswith(b"\xff\xd8"):
        import av

        decoder = av.CodecContext.create("mjpeg", "r")
        decoder.options = {"err_detect": "explode"}  # or it fills them, too
        try:
            decoder.decode(av.Packet(data))
        except av.error.InvalidDataError:
            return True
        except av.error.FFmpegError:  # a kind of JPEG that it does not know
            return False
    return False


def load_dataset(path: str | Path, leave_out: bool = False) -> Dataset:
    """Load a VOT folder, an OTB folder (both: of sequences, or one sequence) or PySOT's json file
    (or the folder holding it).

    A sequence whose annotations are missing, unreadable, too few or impossible raises InputError
    that names the file and the fault. leave_out: such a sequence is left out, with a note of the
    dataset; InputError is raised where none is left.
    """
    path = Path(path)
    if not os.path.exists(path):  # False also for what can be no path
        raise InputError(f"Dataset {path} does not exist.")
    described = path / f"{_name(path)}.json" if path.is_dir() else path
    if described.is_file():
        videos = read_mapping(described).items()
        loaders = [partial(_load_json, described, name, video) for name, video in videos]
    else:
        loaders = [partial(_load_folder, annotation) for annotation in _in_folder(path)]
    sequences, faults = [], []
    for load in loaders:
        try:
            sequences.append(load())
        except InputError as error:
            if not leave_out:
                raise
            faults.append(error)
    if not sequences and not faults:
        raise InputError(
            f"Dataset {path} holds no sequence (list.txt, groundtruth.txt, groundtruth_rect.txt)."
        )
    names = [sequence.name for sequence in sequences]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice:
        raise InputError(f"Dataset {path} has two sequences of the name '{twice}'.")
    surplus = tuple(
        f"{one.name}: the last {one.unused} frames have no box, and are not used."
        for one in sequences
        if one.unused
    )
    return Dataset(described.stem, path, tuple(sequences), surplus).without(faults, names)


def _first(folder: Path, *names: str) -> Path | None:
    """The first of the names that exists in a folder."""
    return next((folder / name for name in names if os.path.exists(folder / name)), None)


def _annotations(folder: Path) -> list[Path]:
    """The annotation files of a sequence; OTB has one per target where there are two."""
    alone = _first(folder, "groundtruth.txt", "groundtruth_rect.txt")
    numbered = sorted(folder.glob("groundtruth_rect.[0-9]*.txt"))
    filled = [file for file in numbered if file.stat().st_size]  # Human4's first one is empty
    return [alone] if alone else filled or numbered


def _in_folder(path: Path) -> list[Path]:
    """Annotation files of the sequences of a folder: itself, those in its list.txt, or all
    inside."""
    listing = path / "list.txt"
    if _annotations(path):
        folders = [path]
    elif listing.is_file():
        names = (name.strip() for name in read_text(listing).splitlines())
        folders = [path / name for name in names if name]
    else:
        folders = [folder for folder in sorted(path.iterdir()) if _annotations(folder)]
    files = (_annotations(folder) or [folder / "groundtruth.txt"] for folder in folders)
    return list(chain(*files))


def _load_folder(source: Path) -> Video:
    """A VOT sequence (frames in color/ or beside groundtruth.txt) or an OTB sequence (frames in
    img/), by its annotations. OTB annotates parts of some videos; surplus frames are at the end."""
    regions, folder = read_numbers(source), source.parent
    frames = pictures_of(folder)
    if not frames:
        raise InputError(f"Sequence folder {folder} has no frames.")
    name, target, unused = _name(folder), source.stem.partition(".")[2], 0
    if source.stem.startswith("groundtruth_rect") and 0 < len(regions) < len(frames):
        start = OTB_STARTS.get(name, 0)
        late = [one for one in frames if one.stem.isdecimal() and int(one.stem) >= start]
        frames = late if len(late) >= len(regions) else frames
        unused = max(len(frames) - len(regions), 0)
        frames = frames[: len(regions)]
        numbers = [int(one.stem) for one in frames if one.stem.isdecimal()]
        if unused and len(numbers) == len(frames) != numbers[-1] - numbers[0] + 1:
            raise InputError(
                f"{source}: {len(regions)} boxes for {len(frames) + unused} frames, between which some are missing."
            )
    for label, gone in VISIBILITY.items():
        if (folder / label).is_file():
            values = [value for row in read_numbers(folder / label) for value in row]
            regions = _hidden(regions, values, gone, str(folder / label))
    tags = {}
    for tag, label in TAG_FILES.items():
        file = _first(folder, f"{label}.tag", f"{label}.label")
        tags[tag] = [value for row in read_numbers(file) for value in row] if file else []
    size = read_frame(frames[0]).shape[1::-1]
    name += f"-{target}" if target else ""
    return replace(_checked(str(source), name, frames, regions, tags, size), unused=unused)


def _hidden(
    regions: list[list[float]], values: Sequence[float], gone: int, source: str
) -> list[list[float]]:
    """The regions, `ABSENT` where a value says that the target is gone."""
    if len(values) != len(regions):
        raise InputError(f"{source} has {len(values)} values for {len(regions)} frames.")
    return [ABSENT.tolist() if value == gone else box for box, value in zip(regions, values)]


def _name(folder: Path) -> str:
    """Of a folder as it was given: a link has its own."""
    return os.path.basename(os.path.abspath(folder))


def _load_json(path: Path, name: str, video: Any) -> Video:
    """One sequence of PySOT's json, {name: {img_names, gt_rect, one list per tag, width, height}};
    VOT's toolkit has its frames one folder deeper, in color/.

    An empty tag list means that the tag never occurs. OTB's json has no sizes: a frame tells.
    """
    try:
        frames = [path.parent / image for image in video["img_names"]]
        for inside in ("color", "img"):
            deeper = [frame.parent / inside / frame.name for frame in frames]
            if not os.path.exists(frames[0]) and os.path.exists(deeper[0]):
                frames = deeper
        regions = [[float(value) for value in region] for region in video["gt_rect"]]
        if "absent" in video:  # LaSOT's json: 0 where the target is gone
            regions = _hidden(regions, video["absent"], 0, f"{path} ('{name}', absent)")
        tags = {
            tag: [float(value) for value in video.get(key, ())] for tag, key in TAG_FILES.items()
        }
        known = "width" in video
        size = (int(video["width"]), int(video["height"])) if known else (0, 0)
    except (ValueError, KeyError, TypeError, AttributeError, IndexError):
        raise InputError(f"{path} ('{name}') is not in PySOT's json format.") from None
    size = size if known else read_frame(frames[0]).shape[1::-1]
    return _checked(f"{path} ('{name}')", name, frames, regions, tags, size)


def _checked(
    source: str,
    name: str,
    frames: Sequence[Path],
    regions: Sequence[Sequence[float]],
    tags: Mapping[str, Sequence[float]],
    size: tuple[int, int],
) -> Video:
    """The sequence, or InputError where its annotations cannot be meant: `source` names the file in
    the message."""
    count, (width, height) = len(frames), size
    if len(regions) != count or not count:
        raise InputError(f"{source} has {len(regions)} boxes for {count} frames.")
    boxes = [ABSENT if _is_absent(region) else np.array(region, float) for region in regions]
    absent = np.array([box is ABSENT for box in boxes])
    corners = region_corners(boxes)  # (N, 4, 2)
    low, high = corners.min(1), corners.max(1)
    inverted = np.array([len(box) == 4 and min(box[2:]) <= 0 for box in boxes])
    outside = ((high <= 0) | (low >= size)).any(1)
    first = np.arange(count) == 0
    faults = {
        "has neither 4 nor 8 finite numbers": ~((np.abs(corners) < FARTHEST).all((1, 2)) | absent),
        "has no positive size": (high <= low).any(1) | inverted,
        f"is outside its {width} x {height} image": outside & first,
        "is absent": absent & first,
        "is smaller than a pixel": ((high - low) < 1).any(1) & first,
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
    seen = tuple(ABSENT if out else box for box, out in zip(boxes, outside))
    return Video(name, tuple(frames), seen, flags, width, height)


def _is_absent(region: Sequence[float]) -> bool:
    """Whether a region says that its frame has no target: NaN (UAV123), 0,0,0,0 (LaSOT), -1,-1,-1,-1,
    the toolkit's code 0, or a box without width or height (GOT-10k)."""
    values = np.asarray(region, float)
    empty = values.size == 4 and values[2:].min() == 0
    nothing = empty or np.isnan(values).all() or (values <= 0).all()
    return values.size in (1, 4, 8) and bool(nothing)


def read_numbers(path: Path) -> list[list[float]]:
    """Rows of numbers separated by commas, tabs or spaces; empty lines at the end are dropped.
    Raises InputError naming a bad line."""
    rows: list[list[float]] = []
    for number, line in enumerate(read_text(path).rstrip().splitlines(), 1):
        words = line.split()
        if len(words) == 4 and all(DECIMAL_COMMA.fullmatch(word) for word in words):
            raise InputError(
                f"{path}: line {number} can be four numbers with decimal commas, or eight numbers; "
                "write decimal points, or commas between all numbers."
            )
        try:
            rows.append([float(value) for value in line.replace(",", " ").split()])
            if "_" in line:  # which Python allows between digits
                raise ValueError
        except ValueError:
            raise InputError(f"{path}: line {number} is not a list of numbers.") from None
    return rows
