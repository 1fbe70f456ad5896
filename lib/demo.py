"""The demo benchmark: 60 generated sequences in VOT layout, for chapter 4 where VOT2018 is missing.

`demo_scenes` says what moves how; here it is drawn, annotated and written. Polygons and tags follow
from the motions, not from the pixels. Ground truth is the target's box carried by its homography:
four corners, covered or not (amodal, as in VOT).

A tag is 1 in a frame where its rule holds; the first frame can only be tagged `occlusion`. "Before"
means that many frames ago, or the first frame in the first frames of a sequence.

- `camera_motion`: the background in the frame's corners moved by more than `CAMERA_PIXELS` (mean)
- `illum_change`: a mid-grey differs by more than `LIGHT_CHANGE` from `LIGHT_FRAMES` before
- `motion_change`: the target's mean velocities over the `MOTION_FRAMES` before the frame and after
  it differ by more than `MOTION_PIXELS`
- `occlusion`: more than `COVERED` of the target's area inside the frame lies behind something
- `size_change`: the polygon's area differs by more than `SIZE_CHANGE` from `SIZE_FRAMES` before
"""

from __future__ import annotations

import json
import os
import re
import shutil
from pathlib import Path
from typing import Collection, Iterator, NamedTuple

import cv2
import numpy as np

from lib import demo_scenes
from lib.demo_scenes import Spec, Sprite, list_specs, photograph, project, shift
from lib.errors import InputError
from lib.files import digest, locked
from lib.progress import progress as progress_bar

CAMERA_PIXELS = 1.0  # px per frame
LIGHT_CHANGE, LIGHT_FRAMES = 0.15, 10
MOTION_PIXELS, MOTION_FRAMES = 2.0, 3  # px per frame
COVERED = 0.10
SIZE_CHANGE, SIZE_FRAMES = 0.20, 10  # half a sequence

STAMP = "made-by.json"  # in a finished benchmark: which generator made which sequences
_JPEG = 90


# --- pixels -------------------------------------------------------------------------------------


def _shrunk(image: np.ndarray, scale: float) -> tuple[np.ndarray, np.ndarray]:
    """The image at the largest scale it is shown at, and the (3, 3) map back to full pixels.

    Warping the full image would alias.
    """
    if scale >= 1:
        return image, np.eye(3)
    small = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    across, down = image.shape[1] / small.shape[1], image.shape[0] / small.shape[0]
    return small, np.array([[across, 0, (across - 1) / 2], [0, down, (down - 1) / 2], [0, 0, 1]])


class _Layer:
    """A sprite's soft cut-out, ready to be pasted into frames."""

    def __init__(self, sprite: Sprite) -> None:
        photo, outline = photograph(sprite.photo), sprite.outline
        left, top = np.maximum(outline.min(axis=0).astype(int) - 8, 0)
        right, bottom = np.minimum(outline.max(axis=0).astype(int) + 9, photo.shape[1::-1])
        mask = np.zeros(photo.shape[:2], np.uint8)
        cv2.fillPoly(mask, [np.round(outline).astype(np.int32)], 255)
        mask = mask[top:bottom, left:right]
        rounded = np.where(cv2.GaussianBlur(mask, (0, 0), 2) > 127, 255, 0).astype(np.uint8)
        inner = cv2.erode(rounded, np.ones((3, 3), np.uint8))  # the feather avoids the surroundings
        alpha = cv2.GaussianBlur(inner, (0, 0), 1.2)[..., None]
        colour = photo[top:bottom, left:right].astype(np.float32) * (alpha.astype(np.float32) / 255)
        cut = np.concatenate([np.round(colour).astype(np.uint8), alpha], axis=2)  # premultiplied
        self._cut, grow = _shrunk(cut, float(sprite.poses[:, 2].max()))
        self._to_photo = shift(float(left), float(top)) @ grow
        self._sprite = sprite

    def paste(self, image: np.ndarray, frame: float, flat: bool | None = None) -> None:
        """Lay it over an image (H, W, 3); flat: as a white (True) or black (False) silhouette."""
        matrix = self._sprite.to_frame(frame) @ self._to_photo
        height, width = self._cut.shape[:2]
        corners = np.array([(-1, -1), (width, -1), (width, height), (-1, height)], dtype=np.float64)
        reach = project(matrix, corners)
        left, top = np.maximum(np.floor(reach.min(axis=0)), 0).astype(int)
        right, bottom = np.minimum(np.ceil(reach.max(axis=0)) + 1, image.shape[1::-1]).astype(int)
        if left >= right or top >= bottom:  # out of view
            return
        matrix = shift(-float(left), -float(top)) @ matrix
        patch = cv2.warpPerspective(self._cut, matrix, (int(right - left), int(bottom - top)))
        alpha, window = patch[..., 3:].astype(np.uint16), image[top:bottom, left:right]
        over = patch[..., :3] if flat is None else alpha * flat
        window[:] = np.minimum((window * (255 - alpha) + 127) // 255 + over, 255).astype(np.uint8)


class Rendered(NamedTuple):
    """What one moment looks like and why."""

    image: np.ndarray  # (height, width, 3) uint8, BGR
    polygon: np.ndarray  # (4, 2) px
    covered: float  # 0..1 of the target's area inside the frame


def render(spec: Spec) -> Iterator[Rendered]:
    """The frames of one sequence, in order.

    Example: `next(render(list_specs()[0])).polygon.shape` is `(4, 2)`. Raises InputError where a
    photograph is missing.
    """
    scene, to_scene = _shrunk(photograph(spec.scene.photo), float(spec.scene.poses[:, 2].max()))
    target, front = _Layer(spec.target), [_Layer(sprite) for sprite in spec.front]
    random, (width, height) = np.random.RandomState(spec.seed), spec.size
    grain = np.round(random.normal(size=(height + 64, width + 64, 3)) * spec.noise).astype(np.int16)

    def snapshot(frame: float) -> np.ndarray:
        view = spec.scene.to_frame(frame) @ to_scene
        image = cv2.warpPerspective(scene, view, spec.size, borderMode=cv2.BORDER_REFLECT_101)
        for layer in [target] * spec.target.drawn + front:
            layer.paste(image, frame)
        return image

    def polygon(frame: float) -> np.ndarray:
        return project(spec.target.to_frame(frame), spec.target.box)

    for index in range(len(spec.light)):
        begin, end = (polygon(index + part * spec.exposure / 2) for part in (-1, 1))
        # the mean of snapshots around the frame: one per 2 px that the target moves, at most 16
        count = min(max(int(np.ceil(np.abs(begin - end).max() / 2)), 1), 16)
        moments = index + spec.exposure * ((np.arange(count) + 0.5) / count - 0.5)
        total = np.sum([snapshot(float(moment)) for moment in moments], axis=0, dtype=np.uint16)
        mean = np.asarray((total + count // 2) // count, dtype=np.uint8)
        lit = np.clip(np.round(np.arange(256) * spec.light[index]), 0, 255).astype(np.uint8)
        y, x = random.randint(0, 64, size=2)
        noise = np.ascontiguousarray(grain[y : y + height, x : x + width])
        image = cv2.add(cv2.LUT(mean, lit), noise, dtype=cv2.CV_8U)
        yield Rendered(image, polygon(index), _covered(target, front, index, spec.size))


def _covered(target: _Layer, front: list[_Layer], frame: float, size: tuple[int, int]) -> float:
    """The fraction of the target's area inside the frame that layers in front of it hide."""
    image = np.zeros((size[1], size[0], 3), np.uint8)
    target.paste(image, frame, flat=True)
    area = max(float(image.sum()), 1.0)
    for layer in front:
        layer.paste(image, frame, flat=False)
    return 1 - float(image.sum()) / area


# --- tags ---------------------------------------------------------------------------------------


def tag_frames(spec: Spec, frames: list[Rendered]) -> dict[str, np.ndarray]:
    """The five tags, each (N,) bool, by the rules in the module's table."""
    polygons = np.array([frame.polygon for frame in frames])  # (N, 4, 2)
    x, y = polygons[..., 0], polygons[..., 1]
    area = np.abs((x * np.roll(y, -1, axis=1) - y * np.roll(x, -1, axis=1)).sum(axis=1)) / 2
    width, height = spec.size
    corners = np.array([(0, 0), (width, 0), (width, height), (0, height)], dtype=np.float64)
    views = [spec.scene.to_frame(index) for index in range(len(frames))]
    moved = np.zeros(len(frames))
    for index, (old, now) in enumerate(zip(views, views[1:]), start=1):
        there = project(now @ np.linalg.inv(old), corners)
        moved[index] = np.linalg.norm(there - corners, axis=1).mean()
    centres, k = polygons.mean(axis=1), MOTION_FRAMES
    bend = np.zeros(len(frames))  # needs frames on both sides: the ends stay without this tag
    turns = centres[2 * k :] - 2 * centres[k:-k] + centres[: -2 * k]
    bend[k:-k] = np.linalg.norm(turns, axis=1) / k
    return {
        "camera_motion": moved > CAMERA_PIXELS,
        "illum_change": _change(spec.light, LIGHT_FRAMES) > LIGHT_CHANGE,
        "motion_change": bend > MOTION_PIXELS,
        "occlusion": np.array([frame.covered for frame in frames]) > COVERED,
        "size_change": _change(area, SIZE_FRAMES) > SIZE_CHANGE,
    }


def _change(values: np.ndarray, frames: int) -> np.ndarray:
    """(N,) by how much values differ from that many frames before, relative to the smaller one."""
    before = values[np.maximum(np.arange(len(values)) - frames, 0)]
    return np.asarray(np.maximum(values / before, before / values) - 1)


# --- files --------------------------------------------------------------------------------------


def make_benchmark(
    folder: str | os.PathLike[str], sequences: Collection[str] | None = None, progress: bool = False
) -> Path:
    """Write the benchmark (or the named sequences of it) in VOT layout and return its folder.

    `list.txt`; `<name>/color/%08d.jpg` from 1; `<name>/groundtruth.txt`, eight numbers (px) per
    line; `<name>/<tag>.tag`, 0 or 1 per line; `photographs.csv` with columns sequence,
    target_photo, scene_photo and challenge. The folder appears whole or not at all. One that this
    very generator has made stays as it is, one that another version made is replaced, and a folder
    that holds anything else is refused.

    Raises InputError for a folder that is refused or cannot be written, and missing photographs.
    """
    folder = Path(folder).absolute()
    specs = [spec for spec in list_specs() if sequences is None or spec.name in sequences]
    stamp = _stamp(specs)
    if _made_by(folder) == stamp:
        return folder
    _refuse(folder)
    partial = folder.with_name(f".{folder.name}.partial")  # beside it: a rename is atomic
    with locked(folder.with_name(f".{folder.name}.lock")):
        shutil.rmtree(partial, ignore_errors=True)  # of a process that was killed
        try:
            if _made_by(folder) == stamp:  # another process was faster
                return folder
            with progress_bar(len(specs), "demo benchmark", progress) as bar:
                for spec in specs:
                    _write_sequence(partial / "new" / spec.name, spec)
                    bar.update(1)
            _write_lists(partial / "new", specs)
            (partial / "new" / STAMP).write_text(stamp)
            _refuse(folder)  # once more: generating took a while
            if folder.exists():
                folder.rename(partial / "old")
            (partial / "new").rename(folder)
        except OSError as error:
            raise InputError(f"{folder}: cannot be written ({error.strerror or error})") from error
        finally:
            shutil.rmtree(partial, ignore_errors=True)
    return folder


def _stamp(specs: list[Spec]) -> str:
    """What a finished folder is recognised by: the generator's files and the sequences' names."""
    files = (__file__, demo_scenes.__file__, demo_scenes.TABLES)
    generator = digest(b"".join(Path(file).read_bytes() for file in files))
    return json.dumps({"generator": generator, "sequences": [spec.name for spec in specs]}) + "\n"


def _made_by(folder: Path) -> str:
    """The stamp of a finished benchmark, empty where there is none."""
    path = folder / STAMP
    return path.read_text(errors="replace") if path.is_file() else ""


def _refuse(folder: Path) -> None:
    """Raise InputError where the folder holds a file that no version of this generator wrote."""
    form = r'{"generator": "\w+", "sequences": \["([\w", -]+)"\]}\n'
    stamp = re.fullmatch(form, _made_by(folder))
    names = stamp[1].replace('", "', "|") if stamp else ""
    inside = rf"({names})/(color/\d{{8}}\.jpg|groundtruth\.txt|\w+\.tag)"
    ours = rf"list\.txt|photographs\.csv|{re.escape(STAMP)}|{inside}"
    for path in (folder, *sorted(folder.rglob("*"))):
        name = path.relative_to(folder).as_posix()
        is_file = os.path.lexists(path) and (path.is_symlink() or not path.is_dir())
        if is_file and not (stamp and re.fullmatch(ours, name)):
            raise InputError(
                f"{path}: this does not come from the demo benchmark, so {folder} is not "
                "overwritten; name an empty or a new folder."
            )


def _write_lists(folder: Path, specs: list[Spec]) -> None:
    (folder / "list.txt").write_text("".join(f"{spec.name}\n" for spec in specs))
    rows = [("sequence", "target_photo", "scene_photo", "challenge")]
    rows += [(spec.name, spec.target.photo, spec.scene.photo, spec.challenge) for spec in specs]
    (folder / "photographs.csv").write_text("".join(f"{','.join(row)}\n" for row in rows))


def _write_sequence(folder: Path, spec: Spec) -> None:
    (folder / "color").mkdir(parents=True)
    frames = list(render(spec))
    for index, frame in enumerate(frames, start=1):
        _, encoded = cv2.imencode(".jpg", frame.image, [cv2.IMWRITE_JPEG_QUALITY, _JPEG])
        (folder / "color" / f"{index:08d}.jpg").write_bytes(encoded.tobytes())
    lines = (",".join(f"{value:.2f}" for value in frame.polygon.ravel()) for frame in frames)
    (folder / "groundtruth.txt").write_text("".join(f"{line}\n" for line in lines))
    for tag, holds in tag_frames(spec, frames).items():
        (folder / f"{tag}.tag").write_text("".join(f"{int(value)}\n" for value in holds))
