"""The demo benchmark: complete in VOT layout, the same every time, and its polygons and tags true of the pixels."""
from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from lib import demo
from lib.errors import InputError

SPECS = {spec.name: spec for spec in demo.list_specs()}
SHORT = replace(SPECS["crater"], frames=8)


@pytest.fixture(scope="session")
def benchmark_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return demo.make_benchmark(tmp_path_factory.mktemp("demo") / "benchmark")


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """A benchmark of one sequence of eight frames, where only the files matter."""
    monkeypatch.setattr(demo, "_SEQUENCES", (SHORT,))


def polygons(folder: Path, name: str) -> np.ndarray:
    return np.loadtxt(folder / name / "groundtruth.txt", delimiter=",").reshape(-1, 4, 2)


def tag(folder: Path, name: str, kind: str) -> np.ndarray:
    return np.loadtxt(folder / name / f"{kind}.tag", dtype=int).astype(bool)


def frames(folder: Path, name: str) -> list[np.ndarray]:
    return [read(path) for path in sorted((folder / name / "color").iterdir())]


def read(path: Path) -> np.ndarray:
    image = cv2.imread(str(path))
    assert image is not None, path
    return np.asarray(image)


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


# --- what is written ------------------------------------------------------------------------------------------------------------


def test_twelve_to_sixteen_sequences_in_vot_layout(benchmark_folder: Path) -> None:
    names = (benchmark_folder / "list.txt").read_text().split()
    assert names == list(SPECS)
    assert 12 <= len(set(names)) <= 16
    for name in names:
        spec = SPECS[name]
        files = sorted(path.name for path in (benchmark_folder / name / "color").iterdir())
        assert files == [f"{number:08d}.jpg" for number in range(1, spec.frames + 1)]
        assert 80 <= spec.frames <= 120
        image = read(benchmark_folder / name / "color" / files[-1])
        assert image.shape == (spec.size[1], spec.size[0], 3)
        assert (320, 240) <= spec.size <= (480, 360)
        assert polygons(benchmark_folder, name).shape == (spec.frames, 4, 2)
        assert all(tag(benchmark_folder, name, kind).shape == (spec.frames,) for kind in demo.TAGS)
        assert len(spec.description) > 20


def test_a_sequence_has_the_same_bytes_every_time_alone_or_among_others(benchmark_folder: Path, tmp_path: Path) -> None:
    before = repr(np.random.get_state())  # noqa: NPY002 - the claim is that nobody draws from it
    alone = demo.make_benchmark(tmp_path / "alone", sequences=["coin"])
    assert contents(alone / "coin") == contents(benchmark_folder / "coin")
    assert (alone / "list.txt").read_text() == "coin\n"
    assert repr(np.random.get_state()) == before  # noqa: NPY002


def test_targets_stay_inside_the_frame_and_are_neither_tiny_nor_huge(benchmark_folder: Path) -> None:
    for name, spec in SPECS.items():
        frame = np.array([(0, 0), (spec.size[0], 0), spec.size, (0, spec.size[1])], np.float32)
        for polygon in polygons(benchmark_folder, name).astype(np.float32):
            area = cv2.contourArea(polygon)
            assert cv2.intersectConvexConvex(polygon, frame)[0] > 0.9 * area, name
            assert 35 ** 2 < area < 0.45 * spec.size[0] * spec.size[1], name


def test_the_polygon_follows_the_pixels(benchmark_folder: Path) -> None:
    """The target cut out along the polygon looks the same later as in the first frame, wherever nothing covers it."""
    square = np.array([(0, 0), (48, 0), (48, 48), (0, 48)], np.float32)
    disc = np.hypot(*(np.mgrid[:48, :48] - 23.5)) < 20  # of what is cut out with a rounded mask, too
    for name, spec in SPECS.items():
        if spec.target.wobble:  # it bends within its polygon
            continue
        corners, images = polygons(benchmark_folder, name).astype(np.float32), frames(benchmark_folder, name)
        free = np.flatnonzero(~tag(benchmark_folder, name, "occlusion"))

        def patch(k: int) -> np.ndarray:
            matrix = cv2.getPerspectiveTransform(corners[k], square)  # noqa: B023 - used within this turn of the loop only
            return cv2.cvtColor(cv2.warpPerspective(images[k], matrix, (48, 48)), cv2.COLOR_BGR2GRAY)[disc]  # noqa: B023

        alike = [np.corrcoef(patch(0), patch(k))[0, 1] for k in free[::7]]
        assert min(alike) > (0.4 if spec.exposure else 0.75), f"{name}: {np.round(alike, 2)}"


# --- tags mean what they say ----------------------------------------------------------------------------------------------------


def test_every_tag_occurs_in_some_sequences_and_is_absent_from_others(benchmark_folder: Path) -> None:
    tags = {name: np.array([tag(benchmark_folder, name, kind) for kind in demo.TAGS]) for name in SPECS}
    for row, kind in enumerate(demo.TAGS):
        counts = [int(tags[name][row].sum()) for name in SPECS]
        assert sum(count >= 5 for count in counts) >= 4, kind
        assert sum(count == 0 for count in counts) >= 3, kind
    untagged = [int((~tags[name].any(axis=0)).sum()) for name in SPECS]
    assert sum(count >= 20 for count in untagged) >= 4


def test_size_change_frames_differ_by_a_fifth_in_area_from_twenty_frames_ago(benchmark_folder: Path) -> None:
    for name in SPECS:
        area = np.array([cv2.contourArea(polygon.astype(np.float32)) for polygon in polygons(benchmark_folder, name)])
        ago = area[np.maximum(np.arange(len(area)) - 20, 0)]
        change = np.maximum(area, ago) / np.minimum(area, ago)
        sure = abs(change - 1.2) > 0.005  # the file has two decimals
        assert np.array_equal(tag(benchmark_folder, name, "size_change")[sure], (change > 1.2)[sure]), name


def test_motion_change_frames_bend_the_path_of_the_centre(benchmark_folder: Path) -> None:
    for name in SPECS:
        centre = polygons(benchmark_folder, name).mean(axis=1)
        holds = tag(benchmark_folder, name, "motion_change")
        for k in range(3, len(centre) - 3):
            before, after = (centre[k] - centre[k - 3]) / 3, (centre[k + 3] - centre[k]) / 3
            change = float(np.linalg.norm(after - before))
            assert holds[k] == (change > 2) or abs(change - 2) < 0.02, (name, k)


@pytest.mark.parametrize("name", ["cup", "face", "twins", "wheel", "galaxy"])
def test_camera_motion_frames_show_the_background_moving(benchmark_folder: Path, name: str) -> None:
    images = [cv2.cvtColor(image, cv2.COLOR_BGR2GRAY) for image in frames(benchmark_folder, name)]
    flow = np.array([background_flow(a, b, p) for a, b, p in zip(images, images[1:], polygons(benchmark_folder, name))])
    holds = tag(benchmark_folder, name, "camera_motion")[1:]
    agrees = ((flow > 1) == holds) | (abs(flow - 1) < 0.6)  # flow is no exact measure, and the corners move more than the rest
    assert agrees.mean() > 0.95, np.round(flow[~agrees], 1)


def background_flow(first: np.ndarray, second: np.ndarray, polygon: np.ndarray) -> float:
    """The mean length in px of the optical flow outside the target's surroundings (its median in each of the four quarters)."""
    mask = np.full(first.shape, 255, np.uint8)
    cv2.fillConvexPoly(mask, np.round(polygon + 0.3 * (polygon - polygon.mean(axis=0))).astype(np.int32), 0)
    corners = cv2.goodFeaturesToTrack(first, 200, 0.01, 6, mask=mask)
    moved, found, _ = cv2.calcOpticalFlowPyrLK(first, second, corners, np.empty_like(corners))
    start, length = corners.reshape(-1, 2), np.linalg.norm((moved - corners).reshape(-1, 2), axis=1)
    quarter = (start[:, 0] > first.shape[1] / 2) * 2 + (start[:, 1] > first.shape[0] / 2)
    parts = [length[(quarter == q) & (found.ravel() == 1)] for q in range(4)]
    return float(np.mean([np.median(part) for part in parts if len(part) > 3]))


@pytest.mark.parametrize("name", ["crater", "headlamp", "twins", "cup"])
def test_illum_change_frames_are_brighter_or_darker_than_ten_frames_ago(benchmark_folder: Path, name: str) -> None:
    level = np.array([image.mean() for image in frames(benchmark_folder, name)])
    ago = level[np.maximum(np.arange(len(level)) - 10, 0)]
    change = np.maximum(level, ago) / np.minimum(level, ago)
    holds = tag(benchmark_folder, name, "illum_change")
    assert (change[holds] > 1.08).all()  # the scene's own content moves the mean, too
    assert (change[~holds] < 1.25).all()


@pytest.mark.parametrize("name", ["cameraman", "galaxy"])
def test_occlusion_frames_look_different_without_what_stands_in_front(name: str) -> None:
    spec = replace(SPECS[name], noise=0.0, exposure=0.0)
    shown = list(demo.render(spec))
    holds = demo.tag_frames(shown, spec.size)["occlusion"]
    for k, (frame, bare) in enumerate(zip(shown, demo.render(replace(spec, front=())))):
        inside = cv2.fillConvexPoly(np.zeros(frame.image.shape[:2], np.uint8), np.round(frame.polygon).astype(np.int32), 1) == 1
        hidden = (frame.image != bare.image).any(axis=2)[inside].mean()  # of the box, of which the target fills three quarters
        assert holds[k] == (hidden > 0.1) or abs(hidden - 0.1) < 0.08, (k, hidden)


# --- files and faults -----------------------------------------------------------------------------------------------------------


def test_a_finished_benchmark_is_left_alone_and_an_older_version_replaced(short: None, tmp_path: Path) -> None:
    folder = demo.make_benchmark(tmp_path / "made")
    first = folder / "crater" / "color" / "00000001.jpg"
    first.write_bytes(b"touched")
    assert demo.make_benchmark(str(folder)) == folder
    assert first.read_bytes() == b"touched"
    (folder / demo.STAMP).write_text('{"generator": "older", "sequences": ["crater"]}\n')
    demo.make_benchmark(folder)
    assert first.read_bytes() != b"touched"
    assert [path.name for path in tmp_path.iterdir()] == ["made"]


def test_a_run_that_was_killed_is_swept_up_and_a_run_of_another_process_is_not(short: None, tmp_path: Path) -> None:
    leftovers = [tmp_path / f".made.partial-{name}" for name in (os.getpid(), "killed", "running")]
    for leftover in leftovers:
        (leftover / "crater" / "color").mkdir(parents=True)
        (leftover / "crater" / "color" / "00000001.jpg").write_bytes(b"half")
    os.utime(leftovers[1], (0, 0))
    folder = demo.make_benchmark(tmp_path / "made")
    assert (folder / "list.txt").read_text() == "crater\n"
    assert [leftover.exists() for leftover in leftovers] == [False, False, True]


def test_a_run_that_fails_leaves_nothing(short: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(folder: Path, spec: demo.Spec) -> None:
        folder.mkdir()
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(demo, "_write_sequence", full)
    with pytest.raises(InputError, match=r"cannot be written there .No space left on device."):
        demo.make_benchmark(tmp_path / "made")
    assert not list(tmp_path.iterdir())


def test_faults_are_named_in_one_sentence(short: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("kept")
    with pytest.raises(InputError, match=r"file/sub: the demo benchmark cannot be written there"):
        demo.make_benchmark(tmp_path / "file" / "sub")
    with pytest.raises(InputError, match="this is not a demo benchmark"):
        demo.make_benchmark(tmp_path)
    with pytest.raises(InputError, match="this is not a demo benchmark"):
        demo.make_benchmark(tmp_path / "file")
    with pytest.raises(InputError, match="nosuch: no such sequence"):
        demo.make_benchmark(tmp_path / "made", sequences=["crater", "nosuch"])
    monkeypatch.setattr(demo, "_SEQUENCES", (replace(SHORT, photo="nosuch.png"),))
    with pytest.raises(InputError, match=r"nosuch\.png: this photograph of scikit-image is missing"):
        demo.make_benchmark(tmp_path / "made")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
