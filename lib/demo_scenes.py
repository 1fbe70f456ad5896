"""The demo benchmark's sequences as parameters: what is seen where, and how it moves.

A number makes a sequence: `make_spec(7)`. Targets are cut out of the photographs in scikit-image's
wheel (nothing is fetched), or they are parts of a photograph, the scene, and move with the camera.
A challenge is a set of ranges: of speed, light, occluders and so on (data/demo/benchmark.yaml). A
sequence's level is its position in these ranges; levels are spread evenly from easy to hard. The
first frames are quiet, and the difficulty begins at a drawn frame, the event.

All motion is in the frame's pixels: the target's, that of the objects passing in front of it, and
the scene's. The ranges were set for the demo tracker's scores as a whole, not for single sequences.
"""

from __future__ import annotations

import functools
import importlib.util
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Mapping, Sequence

import cv2
import numpy as np
import yaml

from lib.errors import InputError
from lib.files import ROOT

TABLES = ROOT / "data" / "demo" / "benchmark.yaml"
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
FOCAL = 400.0  # px, of the perspective that a tilt gives


@dataclass(frozen=True, eq=False)
class Sprite:
    """A part of a photograph, or a scene, and how it moves through the frame.

    A pose places the middle of the outline. Poses belong to whole frames and change linearly in
    between.
    """

    photo: str
    outline: np.ndarray  # (K, 2) in the photograph's px; softened when cut out; a scene's: a point
    poses: np.ndarray  # (N, 5) x, y in the frame, scale, roll, tilt in degrees; for each frame
    drawn: bool = True  # False: it is in the scene already

    @functools.cached_property
    def box(self) -> np.ndarray:
        """(4, 2) corners around the outline, clockwise from the top left; the photograph's px."""
        (left, top), (right, bottom) = self.outline.min(axis=0), self.outline.max(axis=0)
        return np.array([(left, top), (right, top), (right, bottom), (left, bottom)])

    def to_frame(self, frame: float) -> np.ndarray:
        """(3, 3) homography from the photograph to the frame at a time in frames."""
        at = float(np.clip(frame, 0, len(self.poses) - 1))
        first = min(int(at), len(self.poses) - 2)
        pose = self.poses[first] + (self.poses[first + 1] - self.poses[first]) * (at - first)
        x, y, scale, roll, tilt = pose * (1, 1, 1, np.pi / 180, np.pi / 180)
        c, s = scale * np.cos(roll), scale * np.sin(roll)
        turn = np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]])
        swing = np.array([[np.cos(tilt), 0, 0], [0, 1, 0], [np.sin(tilt) / FOCAL, 0, 1]])
        return shift(x, y) @ swing @ turn @ shift(*-self.box.mean(axis=0))


@dataclass(frozen=True, eq=False)
class Spec:
    """One sequence: a scene, a camera over it, a target, and what makes it difficult."""

    name: str
    challenge: str
    seed: int
    size: tuple[int, int]  # of a frame: width, height
    scene: Sprite
    target: Sprite
    front: tuple[Sprite, ...]  # drawn over it
    light: np.ndarray  # (N,) brightness, 1 = unchanged
    exposure: float  # fraction of the frame's time during which motion blurs
    noise: float  # standard deviation of the sensor's noise in grey levels


# --- geometry and photographs -------------------------------------------------------------------


def shift(x: float, y: float) -> np.ndarray:
    return np.array([[1, 0, x], [0, 1, y], [0, 0, 1]], dtype=np.float64)


def project(matrix: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Points (N, 2) carried by a homography: (N, 2)."""
    carried = np.column_stack([points, np.ones(len(points))]) @ matrix.T
    return carried[:, :2] / carried[:, 2:]


@functools.lru_cache(maxsize=None)
def photograph(name: str) -> np.ndarray:
    """A photograph of scikit-image's wheel, (H, W, 3) BGR. Raises InputError if it is missing."""
    origin = getattr(importlib.util.find_spec("skimage"), "origin", None) or ""
    path = Path(origin).parent / "data" / name
    image = cv2.imread(str(path)) if path.is_file() else None
    if image is None:
        raise InputError(f"{name}: scikit-image, which has this photograph, has to be installed.")
    return image


@functools.lru_cache(maxsize=None)
def tables() -> dict[str, Any]:
    """What sequences are made of: ranges of difficulty and outlines of objects."""
    return dict(yaml.safe_load(TABLES.read_text()))


def _outline(text: str) -> np.ndarray:
    """(K, 2) points of "x,y x,y ..." as in SVG, or of "oval x y a b" with half axes."""
    if text.startswith("oval"):
        x, y, across, down = map(float, text.split()[1:])
        turns = np.arange(24) * (2 * np.pi / 24)
        return np.column_stack([x + across * np.cos(turns), y + down * np.sin(turns)])
    return np.array([point.split(",") for point in text.split()], dtype=np.float64)


# --- from numbers to sequences ------------------------------------------------------------------


class _Draw:
    """Random numbers of one sequence, with its challenge, level, frame size and event."""

    def __init__(self, number: int) -> None:
        self.random = np.random.RandomState(number)  # RandomState: numpy keeps its stream for ever
        challenges = tables()["challenges"]
        self.challenge: str = list(challenges)[number % len(challenges)]
        self.how = {**tables()["usual"], **challenges[self.challenge]}
        self.level = number // len(challenges) * 0.618034 % 1  # the golden ratio spreads evenly
        self.size: tuple[int, int] = self.choice(SIZES)
        self.event = self.whole(*EVENT)

    def graded(self, name: str) -> float:
        """The value at the sequence's level in the challenge's range of that name."""
        easy, hard = self.how[name]
        return float(easy + (hard - easy) * self.level)

    def whole(self, low: int, high: int) -> int:
        return int(self.random.randint(low, high + 1))

    def choice(self, items: Sequence[Any]) -> Any:
        return items[self.whole(0, len(items) - 1)]

    def signed(self, value: float) -> float:
        return value * self.choice((-1.0, 1.0))


@functools.lru_cache(maxsize=None)
def list_specs() -> tuple[Spec, ...]:
    """The sequences in the benchmark's order."""
    return tuple(make_spec(number) for number in range(1, COUNT + 1))


def make_spec(number: int) -> Spec:
    """The sequence of a number: always the same one. The challenges take turns."""
    draw = _Draw(number)
    targets = tables()["targets"]
    photos = list(dict.fromkeys(target["photo"] for target in targets))
    same = [target for target in targets if target["photo"] == photos[number % len(photos)]]
    target = same[number // len(photos) % len(same)]
    place = draw.choice(target["scenes"])
    own = place == "own"
    photo = target["photo"] if own else place
    shape = np.array(photograph(photo).shape[1::-1])
    outline, poses = _outline(target["outline"]), np.zeros((FRAMES, 5))
    sprite = Sprite(target["photo"], outline, poses, not own)
    sprite.poses[:, 2:] = _turning(draw, sprite.box, float((draw.size / shape).max()) * own)
    sprite.poses[:, :2] = _walk(draw, *_room(draw, sprite, shape), _sides(sprite))
    scene = _scene(draw, sprite, photo)
    others = [o for o in tables()["occluders"] if o["photo"] not in (photo, target["photo"])]
    other = draw.choice(others)
    front = [_twin(draw, sprite, k) for k in range(round(draw.graded("twins")))]
    if draw.how["cover"][1]:
        front.append(_occluder(draw, sprite, other))
    jolts = draw.random.normal(size=(FRAMES, 2)) * draw.graded("shake")
    for moving in (scene, sprite, *front):
        moving.poses[:, :2] += jolts
    return Spec(
        name=f"{target['name']}-{draw.challenge}-{number:02d}",
        challenge=draw.challenge,
        seed=number,
        size=draw.size,
        scene=scene,
        target=sprite,
        front=tuple(front),
        light=_light(draw),
        exposure=draw.graded("blur"),
        noise=draw.random.uniform(*NOISE),
    )


def _sides(sprite: Sprite) -> np.ndarray:
    """(N,) the square root of the target's area in px."""
    return sprite.poses[:, 2] * np.sqrt(np.ptp(sprite.box, axis=0).prod())


def _turning(draw: _Draw, box: np.ndarray, least: float) -> np.ndarray:
    """(N, 3) scale, roll and tilt, which change from the event on.

    least: the scale at which a scene fills the frame if the target is a part of it, otherwise 0.
    """
    sides = np.ptp(box, axis=0)
    grow = draw.graded("grow") ** (1 if least else draw.signed(1))
    scale = draw.random.uniform(*SIDE) / np.sqrt(sides.prod() * grow)
    scale = max(scale, SHORTEST / sides.min(), least)
    grow = min(grow, max(LONGEST * draw.size[1] / sides.max() / scale, 1))
    roll, tilt = draw.signed(draw.graded("roll")), draw.signed(draw.graded("tilt"))
    after = np.clip((np.arange(FRAMES) - draw.event) / (FRAMES - 1 - draw.event), 0, 1)
    return np.column_stack([scale * grow**after, roll * after, tilt * after])


def _room(draw: _Draw, sprite: Sprite, shape: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Bounds (2,) of the target's centre: it stays in the frame, and a scene's edges out of it."""
    reach = np.array([project(sprite.to_frame(k), sprite.box) for k in range(FRAMES)])
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
    angle, turn = draw.random.uniform(0, 2 * np.pi), draw.whole(*TURN)
    speed, burst = draw.graded("speed"), draw.graded("burst")
    heading, places = np.array([np.cos(angle), np.sin(angle)]), [at]
    for frame in range(1, FRAMES):
        since = (frame - draw.event) % turn
        if since == 0:
            angle = draw.random.uniform(2.0, 4.3)
            c, s = np.cos(angle), np.sin(angle)
            heading = np.array([[c, -s], [s, c]]) @ heading
        quick = speed + burst * (since < 2) if frame >= draw.event else speed * CALM
        at = at + sides[frame] * quick * heading
        heading = np.where((at < low) | (at > high), -heading, heading)
        at = np.where(at < low, 2 * low - at, np.where(at > high, 2 * high - at, at))
        at = np.clip(at, low, high)
        places.append(at)
    return np.array(places)


def _scene(draw: _Draw, sprite: Sprite, photo: str) -> Sprite:
    """The background, which moves as the camera does: with the target, or slower, or not at all."""
    poses, shape = sprite.poses.copy(), np.array(photograph(photo).shape[1::-1])
    if not sprite.drawn:
        return Sprite(photo, sprite.outline, poses)
    first, follow = poses[0].copy(), draw.choice(FOLLOW)
    zoom = float((draw.size / shape).max()) * draw.random.uniform(*ZOOM)
    poses[:, 2] *= zoom / first[2]
    if not draw.how["carried"]:
        poses[:, :2] = first[:2] + follow * (poses[:, :2] - first[:2])
        poses[:, 2:] = zoom, 0, 0
    point = draw.random.uniform(first[:2] / zoom, shape - (draw.size - first[:2]) / zoom)
    return Sprite(photo, point[None], poses)


def _twin(draw: _Draw, target: Sprite, number: int) -> Sprite:
    """A look-alike that passes the target and then lingers; several come one after the other."""
    poses, side, middle = target.poses.copy(), _sides(target)[0], draw.event + 1 + 2 * number
    poses[:, 2] *= draw.random.uniform(0.85, 1.15)
    poses[:, 3] += draw.random.uniform(-25, 25)
    speed, miss = draw.random.uniform(0.35, 0.5) * side, draw.signed(draw.graded("miss")) * side
    poses[:, :2] = _passing(draw, target, middle, speed, miss, LINGER)
    return Sprite(target.photo, target.outline, poses)


def _occluder(draw: _Draw, target: Sprite, thing: Mapping[str, str]) -> Sprite:
    """Something that passes in front of the target."""
    outline, poses = _outline(thing["outline"]), np.zeros((FRAMES, 5))
    cover, frames, side = draw.graded("cover"), draw.graded("cover_frames"), _sides(target)[0]
    poses[:, 2] = cover * side / np.ptp(outline, axis=0)[0]
    middle, speed = draw.event + int(frames / 2), (1 + cover) * side / frames
    poses[:, :2] = _passing(draw, target, middle, speed, 0.0, 1.0)
    return Sprite(thing["photo"], outline, poses)


def _passing(
    draw: _Draw, target: Sprite, middle: int, speed: float, miss: float, after: float
) -> np.ndarray:
    """(N, 2) a straight path that meets the target in frame `middle`, or misses it by `miss` px.

    speed: px per frame, afterwards multiplied by `after`.
    """
    angle = draw.random.uniform(-0.6, 0.6) + draw.choice((0.0, np.pi))
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
