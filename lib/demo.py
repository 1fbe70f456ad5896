"""The demo benchmark: 60 generated sequences in VOT layout, for chapter 4 where VOT2018 is missing.

A number and a challenge make a sequence: `make_spec(7, "occlusion")`. All that is drawn comes from
the tables below: targets and scenes from the photographs in scikit-image's wheel (nothing is
fetched), and for each challenge the ranges of speed, light, occluders and so on. A sequence's level
is its position in these ranges; levels are spread evenly from easy to hard. The first frames are
quiet, and the difficulty begins at a drawn frame, the event.

All motion is in the frame's pixels: the target's, that of the objects passing in front of it, and
the scene's. The target is cut out of its photograph with a soft mask, or it is a part of the scene
and moves with the camera. Polygons and tags follow from these motions, not from the pixels. Ground
truth is the target's box carried by its homography: four corners, covered or not (amodal, as in
VOT). The ranges were set for the demo tracker's scores as a whole, not for single sequences.

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

import contextlib
import functools
import hashlib
import importlib.util
import json
import os
import re
import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable, Iterable, Iterator, NamedTuple, Sequence, Tuple

import cv2
import numpy as np

from lib.errors import InputError
from lib.progress import progress as progress_bar

CAMERA_PIXELS = 1.0  # px per frame
LIGHT_CHANGE, LIGHT_FRAMES = 0.15, 10
MOTION_PIXELS, MOTION_FRAMES = 2.0, 3  # px per frame
COVERED = 0.10
SIZE_CHANGE, SIZE_FRAMES = 0.20, 10  # half a sequence
TAGS = ("camera_motion", "illum_change", "motion_change", "occlusion", "size_change")  # plus ".tag"

STAMP = "made-by.json"  # in a finished benchmark: which generator made which sequences
_STALE = 600.0  # seconds without a change after which a temporary folder counts as left over
_FOCAL = 400.0  # px, of the perspective that a tilt gives
_JPEG = 90

# --- what sequences are made of: data -----------------------------------------------------------

COUNT, FRAMES = 60, 20  # sequences, and frames of each
SIZES = ((320, 240), (360, 270), (400, 300))  # of a frame: width and height in px
SIDE = (46.0, 78.0)  # px, the square root of the target's area in the first frame
SHORTEST, LONGEST = 36.0, 0.6  # a target's short side in px, its long side in frame heights
EVENT = (4, 8)  # the frame in which the difficulty begins
CALM = 0.4  # the target's speed before the event, relative to afterwards
TURN = (3, 7)  # frames between two turns
ZOOM = (1.1, 1.6)  # of the scene, relative to where it just fills the frame
FOLLOW = (0.0, 0.0, 0.3)  # choices: how much of the target's motion the camera takes part in
LINGER = 0.3  # speed of a look-alike after it met the target, relative to before
NOISE = (1.0, 3.0)  # standard deviation in grey levels

Range = Tuple[float, float]  # easy and hard


class Challenge(NamedTuple):
    """Ranges of what makes a sequence difficult; lengths are relative to the target's side."""

    words: str
    speed: Range = (0.02, 0.08)  # per frame
    burst: Range = (0.0, 0.0)  # added to the speed in the two frames after a turn
    shake: Range = (0.0, 0.6)  # px
    blur: Range = (0.2, 0.5)  # of the time from frame to frame
    roll: Range = (0.0, 15.0)  # degrees, until the last frame
    tilt: Range = (0.0, 12.0)  # degrees, until the last frame
    grow: Range = (1.0, 1.12)  # of the side, until the last frame; or its inverse
    dark: Range = (0.0, 0.0)  # part of the light that is lost
    cover: Range = (0.0, 0.0)  # width of what passes in front, in sides
    cover_frames: Range = (6.0, 10.0)  # how long it takes to pass
    twins: Range = (0.0, 0.0)  # number of look-alikes
    miss: Range = (1.0, 0.4)  # how far from the target they pass
    carried: bool = False  # the target rests in the scene, and the camera moves


CHALLENGES = {
    "camera": Challenge(
        "the camera jerks and turns",
        speed=(0.1, 0.2),
        burst=(0.8, 1.4),
        shake=(1.0, 4.0),
        blur=(0.3, 0.8),
        roll=(5, 40),
        twins=(1, 3),
        carried=True,
    ),
    "light": Challenge("the light changes", speed=(0.4, 0.65), dark=(0.6, 0.97), twins=(1, 3)),
    "motion": Challenge(
        "it moves fast", speed=(0.6, 1.1), blur=(0.3, 0.9), roll=(5, 60), twins=(1, 3)
    ),
    "occlusion": Challenge(
        "{thing} passes in front",
        speed=(0.15, 0.3),
        cover=(1.5, 2.1),
        cover_frames=(8, 12),
        twins=(0, 2),
    ),
    "size": Challenge(
        "it {grows} and turns away", speed=(0.3, 0.55), grow=(1.8, 4), tilt=(30, 65), twins=(2, 4)
    ),
    "lookalike": Challenge("it wanders", speed=(0.3, 0.6), twins=(2, 5), miss=(0.6, 0.2)),
    "mixed": Challenge(
        "it is fast, the light changes, {thing} passes in front",
        speed=(0.35, 0.65),
        roll=(5, 30),
        grow=(1.1, 1.6),
        dark=(0.4, 0.85),
        cover=(1.0, 1.6),
        twins=(1, 3),
    ),
}

CROWD = ("", ", and one like the target passes", ", and others like the target pass")
SCENES = {  # where a target can be, and how the description says it; "own" is its photograph
    "brick": ("brick.png", " on a brick wall"),
    "garage": ("motorcycle_right.png", " in a garage"),
    "grass": ("grass.png", " on a lawn"),
    "gravel": ("gravel.png", " on gravel"),
    "moon": ("moon.png", " over the moon"),
    "sky": ("hubble_deep_field.jpg", " in the deep field"),
    "table": ("coffee.png", " on a table"),
    "tissue": ("ihc.png", " on tissue"),
}


class Target(NamedTuple):
    """An object in a photograph, to be cut out or shown in its place."""

    name: str
    phrase: str
    photo: str
    scenes: str  # where it can be
    outline: str  # "x,y x,y ..." as in SVG, or "oval x y a b" with half axes; the photograph's px


def _targets(table: str) -> tuple[Target, ...]:
    """Parse entries: a line of fields, then indented lines with the outline."""
    targets = []
    for entry in re.split(r"\n(?=\w)", table.strip()):
        fields, _, outline = entry.partition("\n")
        name, phrase, photo, scenes = fields.split(" | ")
        targets.append(Target(name, phrase, photo, scenes, outline.strip()))
    return tuple(targets)


TARGETS = _targets("""
face | a woman's face | astronaut.png | brick grass gravel
  152,75 160,45 185,25 215,12 270,22 297,60 296,100 278,130 262,145 255,175 236,188 212,186
  192,168 182,132 160,115
cameraman | a cameraman's head | camera.png | own
  160,110 170,85 195,66 225,64 255,80 270,105 270,138 325,138 328,180 310,200 262,195 240,200
  215,198 185,215 165,160
cell | a bright cell | cell.png | own tissue
  oval 428 374 65 65
cat | a cat's head | chelsea.png | brick grass gravel
  48,40 110,8 230,2 330,18 362,90 352,160 305,250 255,282 190,250 100,215 50,130
cup | a coffee cup | coffee.png | brick grass gravel
  175,95 185,55 220,28 270,18 330,25 380,50 402,90 410,65 425,70 418,120 455,160 478,215 470,270
  440,320 390,360 330,383 280,388 220,380 160,358 110,320 82,270 78,215 95,165 130,130
coin | a coin | coins.png | own brick
  oval 270 118 26 26
colours | a colour wheel | color.png | brick grass gravel garage
  oval 185 185 165 165
horse | a black horse | horse.png | grass gravel tissue
  358,9 350,19 339,19 313,22 296,30 273,50 249,80 229,89 181,93 127,82 101,82 49,90 36,96 25,110
  18,143 19,229 30,250 39,244 48,210 51,122 60,101 55,134 68,190 50,220 49,267 44,291 52,304
  63,311 73,309 57,285 58,254 68,229 90,204 98,243 104,284 118,303 133,301 118,284 108,258 108,236
  119,191 135,166 181,184 248,188 251,212 245,294 252,309 268,307 256,289 256,263 262,248 266,297
  274,312 290,311 274,292 272,264 292,186 304,169 309,124 327,70 352,80 370,102 380,100 388,88
  365,36 354,24
galaxy | a spiral galaxy | hubble_deep_field.jpg | own sky
  oval 124 400 22 22
gland | a gland | ihc.png | own
  270,345 285,320 305,308 325,318 350,322 372,345 383,390 378,430 370,470 355,498 325,500 300,480
  275,445 256,400 258,365
crater | a crater | moon.png | own
  oval 121 88 28 28
headlamp | a headlamp | motorcycle_left.png | own
  oval 533 158 28 33
tank | a red fuel tank | motorcycle_right.png | own
  272,225 297,200 332,175 372,160 407,157 432,175 427,210 417,235 402,241 347,240 297,248
disc | the optic disc | retina.jpg | own
  oval 257 648 74 88
rocket | the top of a rocket | rocket.jpg | brick moon sky
  321,126 328,134 331,150 335,165 336,185 336,250 308,250 308,185 309,165 312,150 314,134
note | a handwritten note | text.png | brick garage table
  4,4 444,4 444,168 4,168
logo | a round sticker | logo.png | brick gravel garage
  oval 250 247 236 236
shuttle | a space shuttle | astronaut.png | sky moon
  397,15 410,2 428,4 437,45 447,40 455,60 455,180 457,265 440,284 375,284 368,268 373,245 355,228
  356,208 378,180 381,78 384,48 395,45
eye | a cat's eye | chelsea.png | own
  oval 172 115 38 34
spoon | a spoon | coffee.png | own
  oval 365 283 39 40
wheel | a front wheel | motorcycle_left.png | own
  514,300 510,330 520,370 545,410 590,442 630,452 665,445 684,410 680,370 660,325 640,300 625,318
  600,305 570,300 560,290 530,285
badge | a mission badge | astronaut.png | own
  oval 170 386 38 38
helmet | a helmet | astronaut.png | grass gravel
  280,505 278,440 295,395 330,360 370,347 410,344 450,355 480,385 495,430 502,458 509,468 509,508
""")
OCCLUDERS = _targets("""
gravel | a patch of gravel | gravel.png | any
  200,5 300,5 300,505 200,505
bricks | a piece of wall | brick.png | any
  150,5 250,5 250,505 150,505
lawn | a strip of lawn | grass.png | any
  100,5 200,5 200,505 100,505
""") + tuple(target for target in TARGETS if target.name in ("cup", "note", "helmet"))


# --- a sequence as parameters -------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Sprite:
    """A part of a photograph and how it moves through the frame."""

    photo: str
    outline: np.ndarray  # (K, 2) in the photograph's px; softened when cut out
    poses: np.ndarray  # (N, 5) x, y in the frame, scale, roll, tilt in degrees; for each frame
    drawn: bool = True  # False: it is in the scene already

    @functools.cached_property
    def box(self) -> np.ndarray:
        """(4, 2) corners around the outline, clockwise from the top left; the photograph's px."""
        (left, top), (right, bottom) = self.outline.min(axis=0), self.outline.max(axis=0)
        return np.array([(left, top), (right, top), (right, bottom), (left, bottom)])

    def to_frame(self, frame: float) -> np.ndarray:
        """(3, 3) homography from the photograph to the frame at a time in frames."""
        return _homography(self.poses, frame, self.box.mean(axis=0))


@dataclass(frozen=True, eq=False)
class Spec:
    """One sequence: a scene, a camera over it, a target, and what makes it difficult."""

    name: str
    description: str
    challenge: str
    seed: int
    photo: str  # the scene
    size: tuple[int, int]  # of a frame: width, height
    frames: int
    anchor: np.ndarray  # (2,) the scene's point that the camera's poses move
    camera: np.ndarray  # (N, 5) poses of the scene, as in Sprite
    target: Sprite
    front: tuple[Sprite, ...]  # drawn over it
    light: np.ndarray  # (N,) brightness, 1 = unchanged
    exposure: float  # fraction of the frame's time during which motion blurs
    noise: float  # standard deviation of the sensor's noise in grey levels


class _Draw:
    """Random numbers of one sequence, with its level, frame size and event."""

    def __init__(self, number: int, how: Challenge) -> None:
        self.random = np.random.RandomState(number)  # RandomState: numpy keeps its stream for ever
        self.level = number // len(CHALLENGES) * 0.618034 % 1  # the golden ratio spreads evenly
        self.how = how
        self.size: tuple[int, int] = self.choice(SIZES)
        self.event = self.whole(*EVENT)

    def graded(self, name: str) -> float:
        """The value at the sequence's level in the challenge's range of that name."""
        easy, hard = getattr(self.how, name)
        return float(easy + (hard - easy) * self.level)

    def between(self, low: float, high: float) -> float:
        return float(self.random.uniform(low, high))

    def whole(self, low: int, high: int) -> int:
        return int(self.random.randint(low, high + 1))

    def choice(self, items: Sequence[Any]) -> Any:
        return items[self.whole(0, len(items) - 1)]

    def signed(self, value: float) -> float:
        return value * self.choice((-1.0, 1.0))


@functools.lru_cache(maxsize=None)
def list_specs() -> tuple[Spec, ...]:
    """The sequences in the benchmark's order; the book prints their names and descriptions."""
    names = tuple(CHALLENGES)
    return tuple(make_spec(n, names[n % len(names)]) for n in range(1, COUNT + 1))


def make_spec(number: int, challenge: str) -> Spec:
    """The sequence that a number and one of `CHALLENGES` make: always the same one."""
    draw = _Draw(number, CHALLENGES[challenge])
    photos = list(dict.fromkeys(target.photo for target in TARGETS))
    same = [target for target in TARGETS if target.photo == photos[number % len(photos)]]
    target = same[number // len(photos) % len(same)]
    place = draw.choice(target.scenes.split())
    photo, where = SCENES.get(place, (target.photo, ""))
    shape = np.array(_photograph(photo).shape[1::-1])
    own = place == "own"
    sprite = Sprite(target.photo, _outline(target.outline), np.zeros((FRAMES, 5)), not own)
    sprite.poses[:, 2:] = _turning(draw, sprite.box, float((draw.size / shape).max()) * own)
    low, high = _room(draw, sprite, shape)
    sprite.poses[:, :2] = _walk(draw, low, high, _sides(sprite))
    anchor, camera = _camera(draw, sprite, shape)
    thing = draw.choice([o for o in OCCLUDERS if o.photo not in (photo, target.photo)])
    twins = round(draw.graded("twins"))
    front = [_twin(draw, sprite, k) for k in range(twins)]
    if draw.how.cover[1]:
        front.append(_occluder(draw, sprite, thing))
    jolts = draw.random.normal(size=(FRAMES, 2)) * draw.graded("shake")
    for poses in [camera, sprite.poses] + [other.poses for other in front]:
        poses[:, :2] += jolts
    grows = "grows" if sprite.poses[-1, 2] > sprite.poses[0, 2] else "shrinks"
    words = draw.how.words.format(thing=thing.phrase, grows=grows)
    words += CROWD[min(twins, 2)]
    return Spec(
        name=f"{target.name}-{challenge}-{number:02d}",
        description=f"{target.phrase[0].upper()}{target.phrase[1:]}{where}; {words}.",
        challenge=challenge,
        seed=number,
        photo=photo,
        size=draw.size,
        frames=FRAMES,
        anchor=anchor,
        camera=camera,
        target=sprite,
        front=tuple(front),
        light=_light(draw),
        exposure=draw.graded("blur"),
        noise=draw.between(*NOISE),
    )


def _outline(text: str) -> np.ndarray:
    """(K, 2) points of a Target's outline."""
    if text.startswith("oval"):
        x, y, across, down = map(float, text.split()[1:])
        turns = np.arange(24) * (2 * np.pi / 24)
        return np.column_stack([x + across * np.cos(turns), y + down * np.sin(turns)])
    return np.array([point.split(",") for point in text.split()], dtype=np.float64)


def _sides(sprite: Sprite) -> np.ndarray:
    """(N,) the square root of the target's area in px."""
    return sprite.poses[:, 2] * np.sqrt(np.ptp(sprite.box, axis=0).prod())


def _turning(draw: _Draw, box: np.ndarray, least: float) -> np.ndarray:
    """(N, 3) scale, roll and tilt, which change from the event on.

    least: the scale at which a scene fills the frame if the target is a part of it, otherwise 0.
    """
    sides = np.ptp(box, axis=0)
    grow = draw.graded("grow") ** (1 if least else draw.signed(1))
    scale = draw.between(*SIDE) / np.sqrt(sides.prod() * grow)
    scale = max(scale, SHORTEST / sides.min(), least)
    grow = min(grow, max(LONGEST * draw.size[1] / sides.max() / scale, 1))
    roll, tilt = draw.signed(draw.graded("roll")), draw.signed(draw.graded("tilt"))
    after = np.clip((np.arange(FRAMES) - draw.event) / (FRAMES - 1 - draw.event), 0, 1)
    return np.column_stack([scale * grow**after, roll * after, tilt * after])


def _room(draw: _Draw, sprite: Sprite, shape: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Bounds (2,) of the target's centre: it stays in the frame, and a scene's edges out of it."""
    reach = np.array([_project(sprite.to_frame(k), sprite.box) for k in range(FRAMES)])
    low, high = -reach.min(axis=(0, 1)), draw.size - reach.max(axis=(0, 1))
    if not sprite.drawn:
        zoom, centre = sprite.poses[:, 2].min(), sprite.box.mean(axis=0)
        low = np.maximum(low, draw.size - (shape - centre) * zoom)
        high = np.minimum(high, centre * zoom)
    middle = (low + high) / 2
    return np.minimum(low, middle), np.maximum(high, middle)


def _walk(draw: _Draw, low: np.ndarray, high: np.ndarray, sides: np.ndarray) -> np.ndarray:
    """(N, 2) places between the bounds: straight legs, sudden turns, reflection at the bounds."""
    at = low + (high - low) * draw.random.uniform(0.25, 0.75, size=2)
    angle, turn = draw.between(0, 2 * np.pi), draw.whole(*TURN)
    speed, burst = draw.graded("speed"), draw.graded("burst")
    heading, places = np.array([np.cos(angle), np.sin(angle)]), [at]
    for frame in range(1, FRAMES):
        since = (frame - draw.event) % turn
        if since == 0:
            angle = draw.between(2.0, 4.3)
            c, s = np.cos(angle), np.sin(angle)
            heading = np.array([[c, -s], [s, c]]) @ heading
        quick = speed + burst * (since < 2) if frame >= draw.event else speed * CALM
        at = at + sides[frame] * quick * heading
        heading = np.where((at < low) | (at > high), -heading, heading)
        at = np.where(at < low, 2 * low - at, np.where(at > high, 2 * high - at, at))
        at = np.clip(at, low, high)
        places.append(at)
    return np.array(places)


def _camera(draw: _Draw, sprite: Sprite, shape: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The scene's point (2,) that the camera moves, and its poses (N, 5)."""
    poses = sprite.poses.copy()
    if not sprite.drawn:
        return sprite.box.mean(axis=0), poses
    first, follow = poses[0].copy(), draw.choice(FOLLOW)
    zoom = float((draw.size / shape).max()) * draw.between(*ZOOM)
    poses[:, 2] *= zoom / first[2]
    if not draw.how.carried:
        poses[:, :2] = first[:2] + follow * (poses[:, :2] - first[:2])
        poses[:, 2:] = zoom, 0, 0
    return draw.random.uniform(first[:2] / zoom, shape - (draw.size - first[:2]) / zoom), poses


def _twin(draw: _Draw, target: Sprite, number: int) -> Sprite:
    """A look-alike that passes the target and then lingers; several come one after the other."""
    poses, side, middle = target.poses.copy(), _sides(target)[0], draw.event + 1 + 2 * number
    poses[:, 2] *= draw.between(0.85, 1.15)
    poses[:, 3] += draw.between(-25, 25)
    speed, miss = draw.between(0.35, 0.5) * side, draw.signed(draw.graded("miss")) * side
    poses[:, :2] = _passing(draw, target, middle, speed, miss, LINGER)
    return Sprite(target.photo, target.outline, poses)


def _occluder(draw: _Draw, target: Sprite, thing: Target) -> Sprite:
    """Something that passes in front of the target."""
    outline, poses = _outline(thing.outline), np.zeros((FRAMES, 5))
    cover, frames, side = draw.graded("cover"), draw.graded("cover_frames"), _sides(target)[0]
    poses[:, 2] = cover * side / np.ptp(outline, axis=0)[0]
    middle, speed = draw.event + int(frames / 2), (1 + cover) * side / frames
    poses[:, :2] = _passing(draw, target, middle, speed, 0.0, 1.0)
    return Sprite(thing.photo, outline, poses)


def _passing(
    draw: _Draw, target: Sprite, middle: int, speed: float, miss: float, after: float
) -> np.ndarray:
    """(N, 2) a straight path that meets the target in frame `middle`, or misses it by `miss` px.

    speed: px per frame, afterwards multiplied by `after`.
    """
    angle = draw.between(-0.6, 0.6) + draw.choice((0.0, np.pi))
    along = np.array([np.cos(angle), np.sin(angle)])
    steps = (np.arange(FRAMES) - middle)[:, None] * speed
    there, start = target.poses[middle, :2], target.poses[0, :2]
    if np.linalg.norm(there + steps[0] * along - start) < 1.6 * _sides(target)[0]:
        along = -along  # in the first frame they are apart
    steps = np.where(steps > 0, steps * after, steps)
    return there + steps * along + miss * np.array([-along[1], along[0]])


def _light(draw: _Draw) -> np.ndarray:
    """(N,) brightness: 1 until the event, then off for a while, fading, flickering or flaring."""
    kind, dark = draw.choice(("off", "fade", "flicker", "flare")), draw.graded("dark")
    since, lasts, period = np.arange(FRAMES) - draw.event, draw.whole(5, 9), draw.whole(1, 2)
    if kind == "fade":
        return np.asarray(1 - dark * np.clip(since / 8, 0, 1))
    if kind == "flicker":
        return np.where((since >= 0) & (since // period % 2 == 0), 1 - dark, 1.0)
    changed = 1 - dark if kind == "off" else 1 + 1.5 * dark
    return np.where((since >= 0) & (since < lasts), changed, 1.0)


# --- geometry and pixels ------------------------------------------------------------------------


def _shift(x: float, y: float) -> np.ndarray:
    return np.array([[1, 0, x], [0, 1, y], [0, 0, 1]], dtype=np.float64)


def _homography(poses: np.ndarray, frame: float, origin: np.ndarray) -> np.ndarray:
    """The (3, 3) map that scales, rolls and tilts about `origin` and puts that point in its place.

    Poses (N, 5) belong to whole frames and change linearly in between.
    """
    at = float(np.clip(frame, 0, len(poses) - 1))
    first = min(int(at), len(poses) - 2)
    pose = poses[first] + (poses[first + 1] - poses[first]) * (at - first)
    x, y, scale, roll, tilt = pose * (1, 1, 1, np.pi / 180, np.pi / 180)
    c, s = scale * np.cos(roll), scale * np.sin(roll)
    turn = np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]])
    swing = np.array([[np.cos(tilt), 0, 0], [0, 1, 0], [np.sin(tilt) / _FOCAL, 0, 1]])
    return _shift(x, y) @ swing @ turn @ _shift(-origin[0], -origin[1])


def _project(matrix: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Points (N, 2) carried by a homography: (N, 2)."""
    carried = np.column_stack([points, np.ones(len(points))]) @ matrix.T
    return carried[:, :2] / carried[:, 2:]


@functools.lru_cache(maxsize=None)
def _photograph(name: str) -> np.ndarray:
    """A photograph of scikit-image's wheel, (H, W, 3) BGR. Raises InputError if it is missing."""
    package = importlib.util.find_spec("skimage")
    if package is None or package.origin is None:
        raise InputError("The demo benchmark is made of photographs in scikit-image: install it.")
    path = Path(package.origin).parent / "data" / name
    image = cv2.imread(str(path)) if path.is_file() else None
    if image is None:
        raise InputError(
            f"{path}: this photograph is missing or broken; install scikit-image again."
        )
    return image


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
        photo, outline = _photograph(sprite.photo), sprite.outline
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
        self._to_photo = _shift(float(left), float(top)) @ grow
        self._sprite = sprite

    def paste(self, image: np.ndarray, frame: float, flat: bool | None = None) -> None:
        """Lay it over an image (H, W, 3); flat: as a white (True) or black (False) silhouette."""
        matrix = self._sprite.to_frame(frame) @ self._to_photo
        height, width = self._cut.shape[:2]
        corners = np.array([(-1, -1), (width, -1), (width, height), (-1, height)], dtype=np.float64)
        reach = _project(matrix, corners)
        left, top = np.maximum(np.floor(reach.min(axis=0)), 0).astype(int)
        right, bottom = np.minimum(np.ceil(reach.max(axis=0)) + 1, image.shape[1::-1]).astype(int)
        if left >= right or top >= bottom:  # out of view
            return
        matrix = _shift(-float(left), -float(top)) @ matrix
        patch = cv2.warpPerspective(self._cut, matrix, (int(right - left), int(bottom - top)))
        alpha, window = patch[..., 3:].astype(np.uint16), image[top:bottom, left:right]
        over = patch[..., :3] if flat is None else alpha * flat
        window[:] = np.minimum((window * (255 - alpha) + 127) // 255 + over, 255).astype(np.uint8)


def _covered(target: _Layer, front: list[_Layer], frame: float, size: tuple[int, int]) -> float:
    """The fraction of the target's area inside the frame that layers in front of it hide."""
    image = np.zeros((size[1], size[0], 3), np.uint8)
    target.paste(image, frame, flat=True)
    area = max(float(image.sum()), 1.0)
    for layer in front:
        layer.paste(image, frame, flat=False)
    return 1 - float(image.sum()) / area


class Frame(NamedTuple):
    """What one moment looks like and why."""

    image: np.ndarray  # (height, width, 3) uint8, BGR
    polygon: np.ndarray  # (4, 2) px
    camera: np.ndarray  # (3, 3) homography from the scene to the frame
    brightness: float  # of a mid-grey, 1 = unchanged
    covered: float  # 0..1 of the target's area inside the frame


def render(spec: Spec) -> Iterator[Frame]:
    """The frames of one sequence, in order.

    Example: `next(render(list_specs()[0])).polygon.shape` is `(4, 2)`. Raises InputError where a
    photograph is missing.
    """
    scene, to_scene = _shrunk(_photograph(spec.photo), float(spec.camera[:, 2].max()))
    target = _Layer(spec.target)
    front = [_Layer(sprite) for sprite in spec.front]
    drawn = [target] * spec.target.drawn + front
    random, (width, height) = np.random.RandomState(spec.seed), spec.size
    shape = (height + 64, width + 64, 3)
    grain = np.round(random.normal(size=shape) * spec.noise).astype(np.int16)

    def snapshot(frame: float) -> np.ndarray:
        view = _homography(spec.camera, frame, spec.anchor) @ to_scene
        image = cv2.warpPerspective(scene, view, spec.size, borderMode=cv2.BORDER_REFLECT_101)
        for layer in drawn:
            layer.paste(image, frame)
        return image

    def polygon(frame: float) -> np.ndarray:
        return _project(spec.target.to_frame(frame), spec.target.box)

    for index in range(spec.frames):
        ends = (polygon(index + part * spec.exposure / 2) for part in (-1, 1))
        travel = float(np.abs(np.subtract(*ends)).max())
        image = _exposed(snapshot, index, spec.exposure, travel)
        brightness = float(spec.light[index])
        lit = np.clip(np.round(np.arange(256) * brightness), 0, 255).astype(np.uint8)
        y, x = random.randint(0, 64, size=2)
        noise = np.ascontiguousarray(grain[y : y + height, x : x + width])
        image = cv2.add(cv2.LUT(image, lit), noise, dtype=cv2.CV_8U)
        view = _homography(spec.camera, index, spec.anchor)
        covered = _covered(target, front, index, spec.size)
        yield Frame(image, polygon(index), view, brightness, covered)


def _exposed(
    snapshot: Callable[[float], np.ndarray], frame: int, exposure: float, travel: float
) -> np.ndarray:
    """The mean of snapshots around a frame: one per 2 px that the target moves, at most 16."""
    count = min(max(int(np.ceil(travel / 2)), 1), 16)
    moments = frame + exposure * ((np.arange(count) + 0.5) / count - 0.5)
    total = np.sum([snapshot(float(moment)) for moment in moments], axis=0, dtype=np.uint16)
    return np.asarray((total + count // 2) // count, dtype=np.uint8)


# --- tags ---------------------------------------------------------------------------------------


def polygon_area(polygons: np.ndarray) -> np.ndarray:
    """Areas (N,) of polygons (N, 4, 2) in square pixels."""
    x, y = polygons[..., 0], polygons[..., 1]
    return np.abs((x * np.roll(y, -1, axis=1) - y * np.roll(x, -1, axis=1)).sum(axis=1)) / 2


def tag_frames(frames: list[Frame], size: tuple[int, int]) -> dict[str, np.ndarray]:
    """The five tags, each (N,) bool, by the rules in the module's table; `size` is a frame's."""
    polygons = np.array([frame.polygon for frame in frames])  # (N, 4, 2)
    centres, area = polygons.mean(axis=1), polygon_area(polygons)
    brightness = np.array([frame.brightness for frame in frames])
    corners = np.array([(0, 0), (size[0], 0), size, (0, size[1])], dtype=np.float64)
    moved = np.zeros(len(frames))
    for index, (old, now) in enumerate(zip(frames, frames[1:]), start=1):
        there = _project(now.camera @ np.linalg.inv(old.camera), corners)
        moved[index] = np.linalg.norm(there - corners, axis=1).mean()
    n, k = np.arange(len(frames)), MOTION_FRAMES
    bend = np.zeros(len(frames))  # needs frames on both sides: the ends stay without this tag
    bend[k:-k] = (
        np.linalg.norm(centres[2 * k :] - 2 * centres[k:-k] + centres[: -2 * k], axis=1) / k
    )
    light = _ratio(brightness, brightness[np.maximum(n - LIGHT_FRAMES, 0)])
    return {
        "camera_motion": moved > CAMERA_PIXELS,
        "illum_change": light > 1 + LIGHT_CHANGE,
        "motion_change": bend > MOTION_PIXELS,
        "occlusion": np.array([frame.covered for frame in frames]) > COVERED,
        "size_change": _ratio(area, area[np.maximum(n - SIZE_FRAMES, 0)]) > 1 + SIZE_CHANGE,
    }


def _ratio(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.asarray(np.maximum(a / b, b / a))


# --- files --------------------------------------------------------------------------------------


def make_benchmark(
    folder: str | os.PathLike[str], sequences: Iterable[str] | None = None, progress: bool = False
) -> Path:
    """Write the benchmark (or the named sequences of it) in VOT layout and return its folder.

    `list.txt`; `<name>/color/%08d.jpg` from 1; `<name>/groundtruth.txt`, eight numbers (px) per
    line; `<name>/<tag>.tag` for each of `TAGS`, 0 or 1 per line; `photographs.csv` with columns
    sequence, target_photo, scene_photo and challenge. The folder appears whole or not at all. One
    that this very generator has made stays as it is, one that another version made is replaced,
    and a folder that holds anything else is refused.

    Raises InputError for an unknown sequence, a folder that is refused or cannot be written, and
    missing photographs.
    """
    folder, specs = Path(folder).absolute(), _chosen(sequences)
    stamp = _stamp(specs)
    # beside it, because a rename is atomic
    partial = folder.with_name(f".{folder.name}.partial-{os.getpid()}")
    try:
        if _made_by(folder) == stamp:
            return folder
        _refuse(folder)
        folder.parent.mkdir(parents=True, exist_ok=True)
        _sweep(folder, partial)
        partial.mkdir()
        with progress_bar(len(specs), "demo benchmark", progress) as bar:
            for spec in specs:
                _write_sequence(partial / spec.name, spec)
                bar.update(1)
        _write_lists(partial, specs)
        (partial / STAMP).write_text(stamp)
        if _made_by(folder) != stamp:  # else another process was faster
            _put_in_place(partial, folder, stamp)
    except OSError as error:
        reason = error.strerror or error
        raise InputError(
            f"{folder}: the demo benchmark cannot be written there ({reason})."
        ) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return folder


def _chosen(names: Iterable[str] | None) -> list[Spec]:
    known = [spec.name for spec in list_specs()]
    wanted = known if names is None else list(names)
    for name in wanted:
        if name not in known:
            raise InputError(
                f"{name}: no such sequence in the demo benchmark, which has {', '.join(known)}."
            )
    return [spec for spec in list_specs() if spec.name in wanted]


def _stamp(specs: list[Spec]) -> str:
    """What a finished folder is recognised by: this file's text and the sequences' names."""
    generator = hashlib.sha256(Path(__file__).read_bytes()).hexdigest()[:16]
    return json.dumps({"generator": generator, "sequences": [spec.name for spec in specs]}) + "\n"


def _made_by(folder: Path) -> str:
    """The stamp of a finished benchmark, empty where there is none."""
    path = folder / STAMP
    return path.read_text(errors="replace") if path.is_file() else ""


def _refuse(folder: Path) -> None:
    """Raise InputError where the folder holds something that no version of this file wrote."""
    try:
        names = "|".join(map(re.escape, json.loads(_made_by(folder))["sequences"]))
    except (ValueError, KeyError, TypeError):
        names = ""
    inside = rf"color(/\d{{8}}\.jpg)?|groundtruth\.txt|({'|'.join(TAGS)})\.tag"
    ours = rf"list\.txt|photographs\.csv|{re.escape(STAMP)}|({names})(/({inside}))?"
    for path in sorted(folder.rglob("*")) if folder.is_dir() else [folder] * folder.exists():
        if not (names and re.fullmatch(ours, path.relative_to(folder).as_posix())):
            raise InputError(
                f"{path}: this does not come from the demo benchmark, so {folder} is not "
                "overwritten; name an empty or a new folder."
            )


def _sweep(folder: Path, own: Path) -> None:
    """Remove what interrupted runs left behind, but not what another process is writing now."""
    for path in folder.parent.glob(f".{folder.name}.partial-*"):
        with contextlib.suppress(FileNotFoundError):  # somebody else sweeps, too
            if path == own or time.time() - path.stat().st_mtime > _STALE:
                shutil.rmtree(path)


def _put_in_place(partial: Path, folder: Path, stamp: str) -> None:
    """Rename the finished folder, after moving an older version's out of the way."""
    _refuse(folder)  # once more: generating took a while
    old = partial.with_name(f"{partial.name}-old")
    with contextlib.suppress(FileNotFoundError):
        folder.rename(old)
    try:
        partial.rename(folder)
    except OSError:
        if _made_by(folder) != stamp:  # else another process was faster
            raise
    shutil.rmtree(old, ignore_errors=True)


def _write_lists(folder: Path, specs: list[Spec]) -> None:
    (folder / "list.txt").write_text("".join(f"{spec.name}\n" for spec in specs))
    rows = [("sequence", "target_photo", "scene_photo", "challenge")]
    rows += [(spec.name, spec.target.photo, spec.photo, spec.challenge) for spec in specs]
    (folder / "photographs.csv").write_text("".join(f"{','.join(row)}\n" for row in rows))


def _write_sequence(folder: Path, spec: Spec) -> None:
    (folder / "color").mkdir(parents=True)
    frames: list[Frame] = []
    for index, frame in enumerate(render(spec), start=1):
        _, encoded = cv2.imencode(".jpg", frame.image, [cv2.IMWRITE_JPEG_QUALITY, _JPEG])
        (folder / "color" / f"{index:08d}.jpg").write_bytes(encoded.tobytes())
        frames.append(frame._replace(image=np.empty(0)))  # the pixels are on disk
    lines = (",".join(f"{value:.2f}" for value in frame.polygon.ravel()) for frame in frames)
    (folder / "groundtruth.txt").write_text("".join(f"{line}\n" for line in lines))
    for tag, holds in tag_frames(frames, spec.size).items():
        (folder / f"{tag}.tag").write_text("".join(f"{int(value)}\n" for value in holds))
