"""Training pairs (thesis section 3.1.1): an exemplar, a search crop and where the target is in it.

Every pair is a function of (seed, index) alone, so a run that stops and resumes, or loads in
several processes, sees the same. Three kinds: *annotated* (two frames of a sequence, or a still
against its warped self), *patch* (any textured region of any picture) and *paste* (an object cut
out and set on two other backgrounds). Search crops may get occluders and distractors.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Dict, List, NamedTuple, Sequence, Tuple

import cv2
import numpy as np
from torch.utils.data import Dataset

from lib.engines.calibration import CropPair
from lib.errors import InputError
from lib.siamrpn.crop import EXEMPLAR_SIZE, SEARCH_SIZE, context_side, training_window, window_map
from lib.training.augment import Augmentation, degrade, flip, mapped_size, random_affine, relight
from lib.training.targets import anchor_targets, output_size
from lib.vot.dataset import read_frame

if TYPE_CHECKING:
    from lib.training.loop import TrainConfig

CACHED_PICTURES = 4000  # in memory, for each worker: about 1.5 GB
CROP_SIZE = 511  # side of the crops that pairs are cut from, as in PySOT


class Frame(NamedTuple):
    """A picture with one target: box x1 y1 x2 y2 in its pixels, or (w, h) of the target at the
    centre of a finished 511 crop."""

    path: Path
    box: Tuple[float, ...]


Clip = List[Frame]  # the frames that show one target: many for a sequence, one for a still


class Sample(NamedTuple):
    """A target at the centre of a 511 crop: image (511, 511, 3) uint8, width and height in it."""

    image: np.ndarray
    size: Tuple[float, float]


@dataclass(frozen=True)
class PairConfig:
    """Which pairs are drawn, and how hard they are made. Shares and probabilities are 0..1."""

    shares: Dict[str, float] = field(
        default_factory=lambda: {"annotated": 0.4, "patch": 0.25, "paste": 0.35}
    )
    negative: float = 0.2  # share of pairs whose exemplar shows something else
    video: float = 0.4  # share of annotated pairs drawn from sequences, where there are any
    frame_range: int = 30  # largest distance of two frames of a pair, in listed frames
    grey: float = 0.2
    warp: float = 1.0  # strength of rotation, shear and stretch of stills
    light: float = 1.0  # strength of changes of light
    degrade: bool = True  # motion blur, low resolution and noise on search crops
    occluder: float = 0.2
    distractor: float = 0.35
    # Largest one of the target from the centre of a 255 search crop, in pixels (figure 3.1)
    shift: float = 64.0
    scale: float = 0.2
    blur: float = 0.05  # PySOT's cross blur; 0.2 there
    mirror: float = 0.5
    holdout: Tuple[str, ...] = ()  # sequences whose boxes are never trained on


def load_manifest(path: Path, holdout: Sequence[str] = ()) -> List[Clip]:
    """Read a manifest (a JSON list of file, boxes as x y w h, sequence, frame) into clips, held-out
    sequences left out.

    Raises InputError for a missing or malformed manifest or image file.
    """
    try:
        entries = json.loads(Path(path).read_text())
        clips: List[Clip] = []
        videos: Dict[str, Clip] = {}
        for entry in entries:
            image = Path(path).parent / entry["file"]
            for x, y, w, h in entry["boxes"]:
                if (
                    not all(map(isfinite, (x, y, w, h)))
                    or min(w, h) < 1
                    or max(abs(x), abs(y), w, h) > 1e5
                ):
                    raise InputError(
                        f"{path}: {entry['file']} has the box {[x, y, w, h]}, which no target can have"
                    )
            frames = [Frame(image, (x, y, x + w, y + h)) for x, y, w, h in entry["boxes"]]
            if entry["sequence"] is None:
                clips += [[frame] for frame in frames]
            elif entry["sequence"] not in holdout:
                videos.setdefault(entry["sequence"], []).append(frames[0])
    except (OSError, ValueError, KeyError, IndexError, TypeError) as error:
        raise InputError(f"{path}: not a training manifest ({error!r})") from None
    unknown = sorted(set(holdout) - {entry["sequence"] for entry in entries})
    if unknown:
        raise InputError(f"{path}: no sequence {unknown[0]!r} to hold out")
    clips += videos.values()
    missing = next((clip[0].path for clip in clips if not clip[0].path.is_file()), None)
    if missing is not None or not clips:
        raise InputError(
            f"{path}: " + (f"the image {missing} is missing" if missing else "no image with a box")
        )
    return clips


def held_out(path: Path, names: Sequence[str]) -> List[Clip]:
    """The clips of a manifest's named sequences, those that `load_manifest` leaves out."""
    trained = load_clips(path, names)
    return [clip for clip in load_clips(path) if len(clip) > 1 and clip not in trained]


def load_crop511(folder: Path, annotation: Path) -> List[Clip]:
    """Read PySOT's training data: crops `<video>/<frame>.<track>.x.jpg` and a JSON of video ->
    track -> frame -> box.

    A box is x1 y1 x2 y2 or w h in pixels of the original picture; only its size matters. Raises
    InputError.
    """
    try:
        videos = json.loads(Path(annotation).read_text())
        clips = []
        for video, tracks in videos.items():
            for track, frames in tracks.items():
                listed = sorted((int(name), box) for name, box in frames.items() if name.isdigit())
                sizes = [
                    (n, (box[2] - box[0], box[3] - box[1]) if len(box) == 4 else tuple(box))
                    for n, box in listed
                ]
                clips.append(
                    [
                        Frame(Path(folder) / video / f"{n:06d}.{track}.x.jpg", size)
                        for n, size in sizes
                        if min(size) > 0
                    ]
                )
    except (OSError, ValueError, AttributeError, TypeError) as error:
        raise InputError(
            f"{annotation}: not an annotation file of PySOT's crop511 data ({error!r})"
        ) from None
    clips = [clip for clip in clips if clip]
    if not clips or not clips[0][0].path.is_file():
        raise InputError(
            f"{folder}: no crops for {annotation}"
            + (f", {clips[0][0].path} is missing" if clips else "")
        )
    return clips


def load_clips(path: Path, holdout: Sequence[str] = ()) -> List[Clip]:
    """Clips of a manifest file, of a folder with `manifest.json`, or of a PySOT folder: `crop511/`
    and JSON files beside it."""
    path = Path(path)
    if path.is_dir() and not (path / "manifest.json").is_file():
        annotations = sorted(path.glob("*.json"))
        if not (path / "crop511").is_dir() or not annotations:
            raise InputError(
                f"{path}: neither manifest.json nor crop511/ with a JSON file beside it"
            )
        if holdout:
            raise InputError(f"{path}: sequences can be held out of a manifest, not of crop511/")
        return [
            clip
            for annotation in annotations
            for clip in load_crop511(path / "crop511", annotation)
        ]
    return load_manifest(path / "manifest.json" if path.is_dir() else path, holdout)


class PairDataset(Dataset):
    """Pairs by index, for `torch.utils.data.DataLoader`; what is drawn depends on (seed, index)
    only."""

    def __init__(
        self, clips: Sequence[Clip], config: PairConfig, search_size: int, seed: int
    ) -> None:
        self.config, self.search_size, self.seed = config, search_size, seed
        self.stills = [clip for clip in clips if len(clip) == 1]
        self.videos = [clip for clip in clips if len(clip) > 1]
        self.frames = [frame for clip in clips for frame in clip]
        self.pictures: Dict[Path, np.ndarray] = {}
        unknown = set(config.shares) - {"annotated", "patch", "paste"}
        if unknown or sum(config.shares.values()) <= 0:
            raise InputError(
                f"pairs: unknown kinds {sorted(unknown)}"
                if unknown
                else "pairs: the shares add up to nothing"
            )
        self.kinds = sorted(config.shares)
        self.bounds = np.cumsum([config.shares[kind] for kind in self.kinds]) / sum(
            config.shares.values()
        )

    def __getitem__(self, index: int) -> Dict[str, np.ndarray]:
        """exemplar (3, 127, 127) and search (3, S, S) uint8 BGR; label, delta and weight as in
        `targets.Targets`."""
        rng = np.random.RandomState((self.seed * 1_000_003 + index) % 2**32)
        config = self.config
        negative = bool(rng.random_sample() < config.negative)
        exemplar, search = self._pair(rng)
        if negative:
            exemplar, _ = self._pair(rng)
        grey, mirrored = rng.random_sample() < config.grey, rng.random_sample() < config.mirror
        shift = config.shift * (self.search_size - EXEMPLAR_SIZE) / (255 - EXEMPLAR_SIZE)
        z, _ = Augmentation(4, 0.05)(exemplar.image, _box(exemplar), EXEMPLAR_SIZE, rng, grey)
        x, box = Augmentation(shift, config.scale, config.blur)(
            search.image, _box(search), self.search_size, rng, grey
        )
        if mirrored:
            z, x, box = flip(z, _box(exemplar))[0], *flip(x, box)
        target = anchor_targets(box, output_size(self.search_size), negative, rng, self.search_size)
        return {
            "exemplar": _pixels(z),
            "search": _pixels(x),
            "label": target.label,
            "delta": target.delta,
            "weight": target.weight,
        }

    def _pair(self, rng: np.random.RandomState) -> Tuple[Sample, Sample]:
        """Exemplar and search sample of one target, before PySOT's augmentation."""
        config = self.config
        kind = self.kinds[int(np.searchsorted(self.bounds, rng.random_sample()))]
        exemplar_frame, search_frame = self._frames_of(kind, rng)
        strength = config.warp * (0.3 if exemplar_frame is not search_frame else 1.0)
        exemplar = self._sample(exemplar_frame, np.eye(2))
        search = self._sample(
            search_frame, random_affine(rng, 20 * strength, 0.1 * strength, 0.15 * strength)
        )
        if kind == "paste":
            backgrounds = [
                self._sample(self._patch(rng, 0.08, 0.25), np.eye(2), cv2.BORDER_REFLECT_101)
                for _ in range(2)
            ]
            power = rng.uniform(2, 6)
            if rng.random_sample() < 0.3:
                backgrounds[1] = backgrounds[0]
            exemplar = Sample(paste(backgrounds[0].image, exemplar, (0, 0), power), exemplar.size)
            search = Sample(paste(backgrounds[1].image, search, (0, 0), power), search.size)
        if config.light:
            exemplar = Sample(relight(exemplar.image, rng, 0.5 * config.light), exemplar.size)
        return exemplar, Sample(self._worsen(search, rng), search.size)

    def _frames_of(self, kind: str, rng: np.random.RandomState) -> Tuple[Frame, Frame]:
        if (
            kind == "annotated"
            and self.videos
            and (rng.random_sample() < self.config.video or not self.stills)
        ):
            clip = self.videos[rng.randint(len(self.videos))]
            first = rng.randint(len(clip))
            low, high = (
                max(0, first - self.config.frame_range),
                min(len(clip) - 1, first + self.config.frame_range),
            )
            return clip[first], clip[rng.randint(low, high + 1)]
        if kind == "annotated" and self.stills:
            frame = self.stills[rng.randint(len(self.stills))][0]
        elif kind == "paste" and rng.random_sample() < 0.7:
            frame = self.frames[rng.randint(len(self.frames))]
        else:
            frame = self._patch(rng)
        return frame, frame

    def _patch(
        self, rng: np.random.RandomState, smallest: float = 0.12, largest: float = 0.45
    ) -> Frame:
        """A random region with some texture of a random picture (the last one tried, should none of
        five have any).

        smallest, largest: its side as a share of the picture's shorter side.
        """
        for _ in range(5):
            path = self.frames[rng.randint(len(self.frames))].path
            picture = self._picture(path)
            height, width = picture.shape[:2]
            side = min(height, width) * rng.uniform(smallest, largest)
            aspect = np.exp(rng.uniform(-0.8, 0.8) / 2)
            w, h = min(side * aspect, 0.8 * width), min(side / aspect, 0.8 * height)
            x, y = rng.uniform(0, width - w), rng.uniform(0, height - h)
            if picture[int(y) : int(y + h), int(x) : int(x + w)].std() > 15:
                break
        return Frame(path, (x, y, x + w, y + h))

    def _worsen(self, search: Sample, rng: np.random.RandomState) -> np.ndarray:
        """Distractors beside the target, an occluder on a part of it, then light and blur."""
        image, config = search.image, self.config
        extent = np.array(search.size)
        while rng.random_sample() < config.distractor:
            other = self._sample(
                self._patch(rng) if rng.random_sample() < 0.4 else self._any(rng), np.eye(2)
            )
            angle = rng.uniform(0, 2 * np.pi)
            reach = 0.5 * (extent + np.array(other.size)) * rng.uniform(1.0, 1.8)
            away = (
                reach
                * np.array([np.cos(angle), np.sin(angle)])
                / max(abs(np.cos(angle)), abs(np.sin(angle)))
            )
            image = paste(image, other, away, rng.uniform(2, 6))
        if rng.random_sample() < config.occluder:
            other = self._sample(self._patch(rng), np.eye(2))
            side = rng.choice([-1, 1], 2) * extent * rng.uniform(0.3, 0.7, 2)
            image = paste(
                image,
                Sample(other.image, tuple(extent * rng.uniform(0.4, 0.9, 2))),
                side,
                rng.uniform(2, 6),
            )
        if config.light:
            image = relight(image, rng, config.light)
        return degrade(image, rng) if config.degrade else image

    def _any(self, rng: np.random.RandomState) -> Frame:
        return self.frames[rng.randint(len(self.frames))]

    def _sample(
        self, frame: Frame, linear: np.ndarray, border: int = cv2.BORDER_CONSTANT
    ) -> Sample:
        """511 crop around a frame's target, the target warped by a linear map about its centre."""
        picture = self._picture(frame.path)
        if len(frame.box) == 2:
            if picture.shape[:2] != (CROP_SIZE, CROP_SIZE):
                raise InputError(
                    f"{frame.path}: {picture.shape[1]}x{picture.shape[0]} pixels where a crop has 511x511"
                )
            mapping = np.eye(2, 3)
            size = frame.box
        else:
            if not (
                frame.box[0] < picture.shape[1]
                and frame.box[1] < picture.shape[0]
                and min(frame.box[2:]) > 0
            ):
                raise InputError(
                    f"{frame.path}: the box {list(frame.box)} (x1, y1, x2, y2) lies outside the picture"
                )
            mapping = window_map(training_window(np.array(frame.box), CROP_SIZE), CROP_SIZE)
            size = (frame.box[2] - frame.box[0], frame.box[3] - frame.box[1])
        zoom = EXEMPLAR_SIZE / context_side(*size)
        center = (CROP_SIZE - 1) / 2
        turned = np.hstack(
            [linear @ mapping[:, :2], (linear @ (mapping[:, 2] - center) + center)[:, None]]
        )
        fill = tuple(float(v) for v in picture[::8, ::8].mean((0, 1)))
        image = cv2.warpAffine(
            picture, turned, (CROP_SIZE, CROP_SIZE), borderMode=border, borderValue=fill
        )
        return Sample(image, mapped_size(size[0] * zoom, size[1] * zoom, linear))

    def _picture(self, path: Path) -> np.ndarray:
        if path not in self.pictures:
            if len(self.pictures) >= CACHED_PICTURES:
                self.pictures.pop(next(iter(self.pictures)))
            self.pictures[path] = read_frame(path)
        return self.pictures[path]


def paste(base: np.ndarray, layer: Sample, offset: Sequence[float], power: float) -> np.ndarray:
    """Set the centre of a 511 crop on another one, cut out as a soft superellipse |x/a|^power +
    |y/b|^power < 1.

    offset: x, y of the layer's target from the centre of the base, in pixels. Returns a new image.
    """
    half = np.array(layer.size) / 2
    center = CROP_SIZE // 2
    place = center + np.round(np.asarray(offset, float)).astype(int)
    reach = np.minimum(np.ceil(half * 1.1).astype(int), center - 1)
    # Both included
    low, high = np.maximum(-reach, -place), np.minimum(reach, CROP_SIZE - 1 - place)
    if (low >= high).any():
        return base
    x, y = (
        np.abs(np.arange(low[i], high[i] + 1, dtype=np.float32) / half[i]) ** power for i in (0, 1)
    )
    inside = (x[None, :] + y[:, None]) ** (1 / power)
    alpha = np.clip((1.05 - inside) / 0.1, 0, 1)[..., None]
    out = base.copy()
    target, source = (
        image[
            origin[1] + low[1] : origin[1] + high[1] + 1,
            origin[0] + low[0] : origin[0] + high[0] + 1,
        ]
        for image, origin in ((out, place), (layer.image, np.array([center, center])))
    )
    target[:] = alpha * source + (1 - alpha) * target
    return out


def _box(sample: Sample) -> np.ndarray:
    """Box x1 y1 x2 y2 of a sample's target in its 511 crop, centred as PySOT centres it."""
    center, half = CROP_SIZE // 2, np.array(sample.size) / 2
    return np.concatenate([center - half, center + half])


def _pixels(image: np.ndarray) -> np.ndarray:
    """(S, S, 3) of any type to (3, S, S) uint8."""
    return np.ascontiguousarray(np.clip(np.rint(image), 0, 255).astype(np.uint8).transpose(2, 0, 1))


def training_pairs(config: TrainConfig, count: int, seed: int = 0) -> List[CropPair]:
    """Pairs as training draws them, with its augmentation, from its data without the held-out
    sequences."""
    clips = load_clips(Path(config.data), config.pairs.holdout)
    # +1: not the pairs that were trained on
    drawn = PairDataset(clips, config.pairs, SEARCH_SIZE, config.seed + seed + 1)
    samples = (drawn[index] for index in range(count))
    return [
        CropPair(sample["exemplar"].transpose(1, 2, 0), sample["search"].transpose(1, 2, 0))
        for sample in samples
    ]
