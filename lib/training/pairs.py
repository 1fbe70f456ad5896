"""Training pairs (thesis section 3.1.1): an exemplar, a search crop, and where the target is in it.

Every pair is a function of (seed, index) alone, so a run that stops and resumes, or loads in
several processes, sees the same. Three kinds: *annotated* (two frames of a sequence, or a still
against its warped self), *patch* (any textured region of any picture) and *paste* (an object cut
out and set on two other backgrounds). Search crops may get occluders and distractors.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Dict, List, NamedTuple, Sequence, Tuple, Union

import cv2
import numpy as np
from torch.utils.data import Dataset

from lib.engines.calibration import CropPair
from lib.errors import InputError
from lib.reading import parse_data, read_mapping, read_text
from lib.siamrpn.crop import EXEMPLAR_SIZE, SEARCH_SIZE, context_side, training_window, window_map
from lib.training.augment import augment, degrade, flip, random_affine, relight
from lib.training.targets import anchor_targets
from lib.vot.dataset import read_frame

if TYPE_CHECKING:
    from lib.training.tracker import TrainConfig

CROP_SIZE = 511  # side of the crops that pairs are cut from, as in PySOT
KINDS = ("annotated", "paste", "patch")
UNTURNED = np.eye(2)
read_picture = lru_cache(maxsize=4000)(read_frame)  # about 1.5 GB in every worker


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

    @property
    def box(self) -> np.ndarray:
        """x1 y1 x2 y2 in the crop, centred as PySOT centres it."""
        center, half = CROP_SIZE // 2, np.array(self.size) / 2
        return np.concatenate([center - half, center + half])


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

    def __post_init__(self) -> None:
        unknown = sorted(set(self.shares) - set(KINDS))
        if unknown or sum(self.shares.values()) <= 0:
            raise ValueError(f"pairs: unknown kinds {unknown}, or shares that add up to nothing")
        shares = (self.negative, self.video, self.grey, self.occluder, self.blur, self.mirror)
        if self.frame_range < 1 or self.distractor >= 1 or max(shares) > 1:
            raise ValueError("pairs: frame_range should be above 0, and no probability above 1")


# -- Files -----------------------------------------------------------------------------------------


def load_clips(path: Union[str, Path], holdout: Sequence[str] = ()) -> List[Clip]:
    """Clips of a manifest file, of a folder with `manifest.json`, or of a folder of PySOT's:
    `crop511/` and JSON files beside it. Sequences of a manifest can be held out.

    Raises InputError for missing or malformed files.
    """
    path = Path(path)
    crops = (path / "crop511").is_dir()
    if crops and holdout:
        raise InputError(f"{path}: sequences can be held out of a manifest, not of crop511/")
    try:
        clips = _crop511(path) if crops else _manifest(path, holdout)
    except (OSError, ValueError, KeyError, IndexError, AttributeError, TypeError) as error:
        raise InputError(f"{path}: not a training manifest, nor crops ({error!r})") from None
    some = clips[:1] if crops else clips  # crop511 has millions
    missing = next((clip[0].path for clip in some if not clip[0].path.is_file()), None)
    if missing or not clips:
        raise InputError(f"{path}: {f'{missing} is missing' if missing else 'no boxes'}")
    return clips


def held_out(path: Union[str, Path], names: Sequence[str]) -> List[Clip]:
    """The clips of a manifest's named sequences, which `load_clips` leaves out."""
    trained = load_clips(path, names)
    return [clip for clip in load_clips(path) if len(clip) > 1 and clip not in trained]


def _manifest(path: Path, holdout: Sequence[str]) -> List[Clip]:
    """Clips of a JSON list of file, boxes as x y w h, sequence and frame."""
    path = path / "manifest.json" if path.is_dir() else path
    stills: List[Clip] = []
    videos: Dict[str, Clip] = {name: [] for name in holdout}
    for entry in parse_data(read_text(path), path):
        for x, y, w, h in entry["boxes"]:
            if not min(w, h) >= 1 or not all(map(isfinite, (x, y, w, h))):
                raise InputError(
                    f"{path}: {entry['file']} has the box {[x, y, w, h]}, which no target can have"
                )
            frame = Frame(path.parent / entry["file"], (x, y, x + w, y + h))
            if entry["sequence"] is None:
                stills.append([frame])
            else:
                videos.setdefault(entry["sequence"], []).append(frame)
    for name in holdout:
        if not videos.pop(name):
            raise InputError(f"{path}: no sequence {name!r} to hold out")
    return stills + list(videos.values())


def _crop511(path: Path) -> List[Clip]:
    """Clips of PySOT's crops `<video>/<frame>.<track>.x.jpg` and JSON files of video -> track ->
    frame -> box. A box is x1 y1 x2 y2 or w h in the original picture; only its size matters."""
    clips = []
    for annotation in sorted(path.glob("*.json")):
        for video, tracks in read_mapping(annotation).items():
            for track, frames in tracks.items():
                clip = []
                numbered = ((int(name), box) for name, box in frames.items() if name.isdigit())
                for number, box in sorted(numbered):
                    size = (box[2] - box[0], box[3] - box[1]) if len(box) == 4 else tuple(box)
                    if min(size) > 0:
                        name = f"{number:06d}.{track}.x.jpg"
                        clip.append(Frame(path / "crop511" / video / name, size))
                clips.append(clip)
    return [clip for clip in clips if clip]


# -- Pairs -----------------------------------------------------------------------------------------


class PairDataset(Dataset):
    """Pairs by index; what is drawn depends on (seed, index) only."""

    def __init__(
        self, clips: Sequence[Clip], config: PairConfig, search_size: int, seed: int
    ) -> None:
        self.config, self.search_size, self.seed = config, search_size, seed
        self.stills = [clip[0] for clip in clips if len(clip) == 1]
        self.videos = [clip for clip in clips if len(clip) > 1]
        self.frames = [frame for clip in clips for frame in clip]
        self.kinds = sorted(config.shares)
        shares = [config.shares[kind] for kind in self.kinds]
        self.bounds = np.cumsum(shares) / sum(shares)

    def __getitem__(self, index: int) -> Dict[str, np.ndarray]:
        """exemplar (3, 127, 127) and search (3, S, S) uint8 BGR; label, delta and weight as
        `anchor_targets` gives them."""
        rng = np.random.RandomState((self.seed * 1_000_003 + index) % 2**32)
        config, size = self.config, self.search_size
        negative = bool(rng.random_sample() < config.negative)
        exemplar, search = self.pair(rng)
        if negative:
            exemplar, _ = self.pair(rng)
        grey, mirrored = rng.random_sample() < config.grey, rng.random_sample() < config.mirror
        shift = config.shift * (size - EXEMPLAR_SIZE) / (SEARCH_SIZE - EXEMPLAR_SIZE)
        z, _ = augment(exemplar.image, exemplar.box, EXEMPLAR_SIZE, rng, 4, 0.05, grey=grey)
        x, box = augment(
            search.image, search.box, size, rng, shift, config.scale, config.blur, grey
        )
        if mirrored:
            z, (x, box) = cv2.flip(z, 1), flip(x, box)
        answers = anchor_targets(box, negative, rng, size)
        return {"exemplar": _pixels(z), "search": _pixels(x), **answers}

    def pair(self, rng: np.random.RandomState) -> Tuple[Sample, Sample]:
        """Exemplar and search sample of one target, before PySOT's augmentation."""
        config = self.config
        kind = self.kinds[int(np.searchsorted(self.bounds, rng.random_sample()))]
        first, second = self.frames_of(kind, rng)
        strength = config.warp * (0.3 if first is not second else 1.0)
        exemplar = self.sample(first)
        search = self.sample(second, random_affine(rng, strength))
        if kind == "paste":
            behind = [self.background(rng), self.background(rng)]
            power = rng.uniform(2, 6)
            if rng.random_sample() < 0.3:
                behind[1] = behind[0]
            exemplar = exemplar._replace(image=paste(behind[0], exemplar, (0, 0), power))
            search = search._replace(image=paste(behind[1], search, (0, 0), power))
        if config.light:
            light = 0.5 * config.light
            exemplar = exemplar._replace(image=relight(exemplar.image, rng, light))
        return exemplar, search._replace(image=self.worsened(search, rng))

    def frames_of(self, kind: str, rng: np.random.RandomState) -> Tuple[Frame, Frame]:
        """Frames of exemplar and search crop; the same one for a still."""
        config = self.config
        annotated = kind == "annotated"
        if annotated and self.videos and (rng.random_sample() < config.video or not self.stills):
            clip = self.videos[rng.randint(len(self.videos))]
            first = rng.randint(len(clip))
            low = max(0, first - config.frame_range)
            high = min(len(clip) - 1, first + config.frame_range)
            return clip[first], clip[rng.randint(low, high + 1)]
        if annotated and self.stills:
            frame = self.stills[rng.randint(len(self.stills))]
        elif kind == "paste" and rng.random_sample() < 0.7:
            frame = self.frames[rng.randint(len(self.frames))]
        else:
            frame = self.patch(rng)
        return frame, frame

    def patch(
        self, rng: np.random.RandomState, smallest: float = 0.12, largest: float = 0.45
    ) -> Frame:
        """A random region with some texture of a random picture (any region after five tries).

        smallest, largest: its side as a share of the picture's shorter side.
        """
        for _ in range(5):
            path = self.frames[rng.randint(len(self.frames))].path
            picture = read_picture(path)
            height, width = picture.shape[:2]
            side = min(height, width) * rng.uniform(smallest, largest)
            aspect = np.exp(rng.uniform(-0.8, 0.8) / 2)
            w, h = min(side * aspect, 0.8 * width), min(side / aspect, 0.8 * height)
            x, y = rng.uniform(0, width - w), rng.uniform(0, height - h)
            if picture[int(y) : int(y + h), int(x) : int(x + w)].std() > 15:
                break
        return Frame(path, (x, y, x + w, y + h))

    def background(self, rng: np.random.RandomState) -> np.ndarray:
        """A 511 crop around a small patch, mirrored at the picture's border."""
        return self.sample(self.patch(rng, 0.08, 0.25), border=cv2.BORDER_REFLECT_101).image

    def worsened(self, search: Sample, rng: np.random.RandomState) -> np.ndarray:
        """Distractors beside the target, an occluder on a part of it, then light and blur."""
        image, config = search.image, self.config
        extent = np.array(search.size)
        while rng.random_sample() < config.distractor:
            anything = rng.random_sample() < 0.4
            other = self.sample(
                self.patch(rng) if anything else self.frames[rng.randint(len(self.frames))]
            )
            angle = rng.uniform(0, 2 * np.pi)
            direction = np.array([np.cos(angle), np.sin(angle)])
            reach = 0.5 * (extent + np.array(other.size)) * rng.uniform(1.0, 1.8)
            away = reach * direction / np.abs(direction).max()
            image = paste(image, other, away, rng.uniform(2, 6))
        if rng.random_sample() < config.occluder:
            other = self.sample(self.patch(rng))
            away = rng.choice([-1, 1], 2) * extent * rng.uniform(0.3, 0.7, 2)
            size = tuple(extent * rng.uniform(0.4, 0.9, 2))
            image = paste(image, Sample(other.image, size), away, rng.uniform(2, 6))
        if config.light:
            image = relight(image, rng, config.light)
        return degrade(image, rng) if config.degrade else image

    def sample(
        self,
        frame: Frame,
        linear: np.ndarray = UNTURNED,
        border: int = cv2.BORDER_CONSTANT,
    ) -> Sample:
        """511 crop around a frame's target, warped by a linear map about the target's centre."""
        picture = read_picture(frame.path)
        height, width = picture.shape[:2]
        if len(frame.box) == 2:
            fits, mapping, (w, h) = width == height == CROP_SIZE, np.eye(2, 3), frame.box
        else:
            x1, y1, x2, y2 = frame.box
            fits = x1 < width and y1 < height and min(x2, y2) > 0
            mapping = window_map(training_window(np.array(frame.box), CROP_SIZE), CROP_SIZE)
            w, h = x2 - x1, y2 - y1
        if not fits:
            raise InputError(
                f"{frame.path}: the target {list(frame.box)} does not fit a picture of {width}x{height} pixels"
            )
        zoom, center = EXEMPLAR_SIZE / context_side(w, h), (CROP_SIZE - 1) / 2
        offset = linear @ (mapping[:, 2] - center) + center
        image = cv2.warpAffine(
            picture,
            np.hstack([linear @ mapping[:, :2], offset[:, None]]),
            (CROP_SIZE, CROP_SIZE),
            borderMode=border,
            borderValue=tuple(float(value) for value in picture[::8, ::8].mean((0, 1))),
        )
        # The box around a mapped ellipse is closer to an object's extent than a mapped rectangle
        mapped = np.hypot(*(linear * (w * zoom, h * zoom)).T)
        return Sample(image, (float(mapped[0]), float(mapped[1])))


def paste(base: np.ndarray, layer: Sample, offset: Sequence[float], power: float) -> np.ndarray:
    """Set the centre of a 511 crop on another one, cut out as a soft superellipse |x/a|^power +
    |y/b|^power < 1.

    offset: x, y of the layer's target from the centre of the base, in pixels. Returns a new image.
    """
    half, center = np.array(layer.size) / 2, CROP_SIZE // 2
    place = center + np.round(np.asarray(offset, float)).astype(int)
    reach = np.minimum(np.ceil(half * 1.1).astype(int), center - 1)
    # First and last pixel of the layer, from its centre
    low, high = np.maximum(-reach, -place), np.minimum(reach, CROP_SIZE - 1 - place)
    if (low >= high).any():
        return base
    x, y = (
        np.abs(np.arange(low[i], high[i] + 1, dtype=np.float32) / half[i]) ** power for i in (0, 1)
    )
    inside = (x[None, :] + y[:, None]) ** (1 / power)
    alpha = np.clip((1.05 - inside) / 0.1, 0, 1)[..., None]
    (left, top), (right, bottom) = center + low, center + high + 1
    cut_out = layer.image[top:bottom, left:right]
    (left, top), (right, bottom) = place + low, place + high + 1
    out = base.copy()
    target = out[top:bottom, left:right]
    target[:] = alpha * cut_out + (1 - alpha) * target
    return out


def _pixels(image: np.ndarray) -> np.ndarray:
    """(S, S, 3) of any type to (3, S, S) uint8."""
    return np.ascontiguousarray(np.clip(np.rint(image), 0, 255).astype(np.uint8).transpose(2, 0, 1))


def training_pairs(config: TrainConfig, count: int) -> List[CropPair]:
    """Pairs as training draws them, with its augmentation, from its data without the held-out
    sequences; never the pairs of the training itself."""
    clips = load_clips(config.data, config.pairs.holdout)
    drawn = PairDataset(clips, config.pairs, SEARCH_SIZE, config.seed + 1)
    samples = (drawn[index] for index in range(count))
    crops = ("exemplar", "search")
    return [CropPair(*(each[name].transpose(1, 2, 0) for name in crops)) for each in samples]
