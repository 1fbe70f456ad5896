"""The demo benchmark: complete in VOT layout, always the same, its polygons and tags true."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from lib import demo, demo_scenes
from lib.errors import InputError

SPECS = {spec.name: spec for spec in demo.list_specs()}
FIRST = next(iter(SPECS.values()))
SHORT = replace(FIRST, name="short", light=FIRST.light[:8])
TAGS = ("camera_motion", "illum_change", "motion_change", "occlusion", "size_change")
OWN = {"list.txt", "photographs.csv", demo.STAMP}


@pytest.fixture(scope="session")
def benchmark_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return demo.make_benchmark(tmp_path_factory.mktemp("demo") / "benchmark")


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """A benchmark of one sequence of eight frames, where only the files matter."""
    monkeypatch.setattr(demo, "list_specs", lambda: (SHORT,))


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


def of(*challenges: str) -> list[demo.Spec]:
    return [spec for spec in SPECS.values() if spec.challenge in challenges]


def contents(folder: Path) -> dict[str, bytes]:
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths}


# --- what is written ----------------------------------------------------------------------------


def test_sixty_short_sequences_or_more_in_vot_layout(benchmark_folder: Path) -> None:
    names = (benchmark_folder / "list.txt").read_text().split()
    assert names == list(SPECS)
    assert len(set(names)) >= 60
    assert len(SPECS) * demo_scenes.FRAMES <= 1500
    assert {path.name for path in benchmark_folder.iterdir()} == {*names, *OWN}
    for name in names:
        spec = SPECS[name]
        files = sorted(path.name for path in (benchmark_folder / name / "color").iterdir())
        assert files == [f"{number:08d}.jpg" for number in range(1, demo_scenes.FRAMES + 1)]
        last = read(benchmark_folder / name / "color" / files[-1])
        assert last.shape == (spec.size[1], spec.size[0], 3)
        assert polygons(benchmark_folder, name).shape == (demo_scenes.FRAMES, 4, 2)
        for kind in TAGS:
            assert tag(benchmark_folder, name, kind).shape == (demo_scenes.FRAMES,)


def test_the_photographs_of_every_sequence_are_listed(benchmark_folder: Path) -> None:
    with open(benchmark_folder / "photographs.csv", newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [row["sequence"] for row in rows] == list(SPECS)
    for row in rows:
        spec = SPECS[row["sequence"]]
        assert row["target_photo"] == spec.target.photo
        assert row["scene_photo"] == spec.scene.photo
        assert row["challenge"] == spec.challenge
    counts = Counter(row["target_photo"] for row in rows)
    assert len(counts) >= 12
    assert max(counts.values()) - min(counts.values()) <= 1


def test_a_number_makes_a_sequence() -> None:
    for spec in list(SPECS.values())[::5]:
        assert demo_scenes.make_spec(spec.seed).name == spec.name
    assert {spec.challenge for spec in SPECS.values()} == set(demo_scenes.tables()["challenges"])
    new = demo_scenes.make_spec(1000)
    assert new.name not in SPECS
    assert next(demo.render(new)).polygon.shape == (4, 2)


def test_a_sequence_has_the_same_bytes_every_time_alone_or_among_others(
    benchmark_folder: Path, tmp_path: Path
) -> None:
    before = repr(np.random.get_state())  # noqa: NPY002 - the claim is that nobody draws from it
    names = list(SPECS)[5::23]
    some = demo.make_benchmark(tmp_path / "some", sequences=names[::-1])
    for name in names:
        assert contents(some / name) == contents(benchmark_folder / name)
    assert (some / "list.txt").read_text().split() == names
    assert repr(np.random.get_state()) == before  # noqa: NPY002


def test_targets_are_plain_to_see_in_the_first_frame(benchmark_folder: Path) -> None:
    for name, spec in SPECS.items():
        first = polygons(benchmark_folder, name)[0]
        assert np.linalg.norm(first - np.roll(first, 1, axis=0), axis=1).min() > 35, name
        assert (first > 0).all(), name
        assert (first < spec.size).all(), name
        assert not tag(benchmark_folder, name, "occlusion")[0], name


def test_targets_stay_inside_the_frame_and_are_neither_tiny_nor_huge(
    benchmark_folder: Path,
) -> None:
    for name, spec in SPECS.items():
        width, height = spec.size
        frame = np.array([(0, 0), (width, 0), (width, height), (0, height)], np.float32)
        for polygon in polygons(benchmark_folder, name).astype(np.float32):
            area = cv2.contourArea(polygon)
            assert cv2.intersectConvexConvex(polygon, frame)[0] > 0.9 * area, name
            assert 30**2 < area < 0.4 * width * height, name


def test_the_polygon_follows_the_pixels() -> None:
    """Cut out along the polygon, the target always looks as in the first frame."""
    square = np.array([(0, 0), (48, 0), (48, 48), (0, 48)], np.float32)
    disc = np.hypot(*(np.mgrid[:48, :48] - 23.5)) < 20
    for spec in list(SPECS.values())[::4]:
        still = replace(spec, noise=0.0, exposure=0.0, light=np.ones(len(spec.light)), front=())
        patches = []
        for frame in list(demo.render(still))[::5]:
            matrix = cv2.getPerspectiveTransform(frame.polygon.astype(np.float32), square)
            patch = cv2.warpPerspective(frame.image, matrix, (48, 48))
            patches.append(cv2.cvtColor(patch, cv2.COLOR_BGR2GRAY)[disc])
        alike = [np.corrcoef(patches[0], patch)[0, 1] for patch in patches]
        assert min(alike) > 0.75, f"{spec.name}: {np.round(alike, 2)}"


# --- tags mean what they say --------------------------------------------------------------------


def test_every_tag_occurs_in_many_sequences_and_some_frames_have_none(
    benchmark_folder: Path,
) -> None:
    tags = np.array([[tag(benchmark_folder, n, kind) for kind in TAGS] for n in SPECS])
    occurs = tags.any(axis=2).sum(axis=0)
    assert (occurs >= 10).all(), occurs
    assert (occurs <= len(SPECS) - 3).all(), occurs
    assert (~tags.any(axis=1)).sum() >= 100


def test_size_change_frames_differ_by_a_fifth_in_area_from_ten_frames_ago(
    benchmark_folder: Path,
) -> None:
    for name in SPECS:
        shapes = polygons(benchmark_folder, name).astype(np.float32)
        area = np.array([cv2.contourArea(polygon) for polygon in shapes])
        ago = area[np.maximum(np.arange(len(area)) - 10, 0)]
        change = np.maximum(area, ago) / np.minimum(area, ago)
        sure = abs(change - 1.2) > 0.005  # the file has two decimals
        holds = tag(benchmark_folder, name, "size_change")
        assert np.array_equal(holds[sure], (change > 1.2)[sure]), name


def test_motion_change_frames_bend_the_path_of_the_centre(benchmark_folder: Path) -> None:
    for name in SPECS:
        centre = polygons(benchmark_folder, name).mean(axis=1)
        holds = tag(benchmark_folder, name, "motion_change")
        for k in range(3, len(centre) - 3):
            before, after = (centre[k] - centre[k - 3]) / 3, (centre[k + 3] - centre[k]) / 3
            change = float(np.linalg.norm(after - before))
            assert holds[k] == (change > 2) or abs(change - 2) < 0.02, (name, k)


def test_camera_motion_frames_show_the_background_moving(benchmark_folder: Path) -> None:
    agrees: list[bool] = []
    for spec in of("light", "motion"):
        grey = [cv2.cvtColor(i, cv2.COLOR_BGR2GRAY) for i in frames(benchmark_folder, spec.name)]
        shapes = polygons(benchmark_folder, spec.name)
        flow = np.array([background_flow(a, b, p) for a, b, p in zip(grey, grey[1:], shapes)])
        holds = tag(benchmark_folder, spec.name, "camera_motion")[1:]
        near = abs(flow - 1) < 0.6  # flow is no exact measure, and the corners move more
        agrees += (((flow > 1) == holds) | near | np.isnan(flow)).tolist()
    assert np.mean(agrees) > 0.9


def background_flow(first: np.ndarray, second: np.ndarray, polygon: np.ndarray) -> float:
    """The length in px of the optical flow around the target (median in each of four quarters)."""
    mask = np.full(first.shape, 255, np.uint8)
    wider = polygon + 0.5 * (polygon - polygon.mean(axis=0))
    cv2.fillConvexPoly(mask, np.round(wider).astype(np.int32), 0)
    corners = cv2.goodFeaturesToTrack(first, 200, 0.01, 6, mask=mask)
    if corners is None:
        return float("nan")
    moved, found, _ = cv2.calcOpticalFlowPyrLK(first, second, corners, np.empty_like(corners))
    start, length = corners.reshape(-1, 2), np.linalg.norm((moved - corners).reshape(-1, 2), axis=1)
    quarter = (start[:, 0] > first.shape[1] / 2) * 2 + (start[:, 1] > first.shape[0] / 2)
    parts = [length[(quarter == q) & (found.ravel() == 1)] for q in range(4)]
    return float(np.mean([np.median(part) for part in parts if len(part) > 3] or [np.nan]))


def test_illum_change_frames_are_brighter_or_darker_than_ten_frames_ago() -> None:
    for spec in of("light", "mixed")[::3]:
        clear = replace(spec, noise=0.0, exposure=0.0)
        shown = list(demo.render(clear))
        lit = demo.render(replace(clear, light=np.ones(len(spec.light))))
        level = np.array([now.image.mean() / bare.image.mean() for now, bare in zip(shown, lit)])
        ago = level[np.maximum(np.arange(len(level)) - 10, 0)]
        change = np.maximum(level, ago) / np.minimum(level, ago)
        holds = demo.tag_frames(clear, shown)["illum_change"]
        assert (change[holds] > 1.08).all(), spec.name  # bright pixels cannot become brighter
        assert (change[~holds] < 1.2).all(), spec.name


def test_occlusion_frames_look_different_without_what_is_in_front() -> None:
    for spec in of("occlusion", "mixed", "lookalike")[::4]:
        clear = replace(spec, noise=0.0, exposure=0.0, light=np.ones(len(spec.light)))
        shown = list(demo.render(clear))
        holds = demo.tag_frames(clear, shown)["occlusion"]
        for k, (frame, bare) in enumerate(zip(shown, demo.render(replace(clear, front=())))):
            inside = np.zeros(frame.image.shape[:2], np.uint8)
            outline = demo.project(spec.target.to_frame(k), spec.target.outline)
            cv2.fillPoly(inside, [np.round(outline).astype(np.int32)], 1)
            hidden = (frame.image != bare.image).any(axis=2)[inside == 1].mean()
            # a look-alike shows the same colours in places
            assert hidden > 0.05 if holds[k] else hidden < 0.15, (spec.name, k, hidden)


# --- files and faults ---------------------------------------------------------------------------


def test_a_finished_benchmark_is_left_alone_and_an_older_version_replaced(
    short: None, tmp_path: Path
) -> None:
    folder = demo.make_benchmark(tmp_path / "made")
    first = folder / "short" / "color" / "00000001.jpg"
    first.write_bytes(b"touched")
    assert demo.make_benchmark(str(folder)) == folder
    assert first.read_bytes() == b"touched"
    (folder / "short").rename(folder / "old-name")
    (folder / demo.STAMP).write_text('{"generator": "older", "sequences": ["old-name"]}\n')
    demo.make_benchmark(folder)
    assert first.read_bytes() != b"touched"
    assert {path.name for path in folder.iterdir()} == {"short", *OWN}
    assert {path.name for path in tmp_path.iterdir()} == {"made", ".made.lock"}


@pytest.mark.parametrize(
    "file, content",
    [
        ("notes.txt", "kept"),
        ("mine/list.txt", "kept"),
        ("short/notes.txt", "kept"),
        ("short/color/a.png", "kept"),
        ("short/color/a/1.jpg", "kept"),
        (demo.STAMP, ""),
        (demo.STAMP, "{"),
        (demo.STAMP, '{"sequences": [1]}'),
    ],
)
def test_files_of_somebody_else_and_a_folder_without_a_proper_stamp_are_left_alone(
    short: None, tmp_path: Path, file: str, content: str
) -> None:
    folder = demo.make_benchmark(tmp_path / "made")
    (folder / demo.STAMP).write_text('{"generator": "older", "sequences": ["short"]}\n')
    (folder / file).parent.mkdir(exist_ok=True)
    (folder / file).write_text(content)
    before = contents(folder)
    with pytest.raises(InputError, match="does not come from the demo benchmark"):
        demo.make_benchmark(folder)
    assert contents(folder) == before


def test_a_file_that_arrives_while_the_benchmark_is_made_is_not_deleted(
    short: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def arrives(partial: Path, specs: list[demo.Spec]) -> None:
        (tmp_path / "made").mkdir()
        (tmp_path / "made" / "notes.txt").write_text("kept")

    monkeypatch.setattr(demo, "_write_lists", arrives)
    with pytest.raises(InputError, match=r"notes\.txt: this does not come from"):
        demo.make_benchmark(tmp_path / "made")
    assert contents(tmp_path) == {"made/notes.txt": b"kept", ".made.lock": b""}


def test_processes_that_make_the_same_folder_wait_for_each_other(tmp_path: Path) -> None:
    name, folder = next(iter(SPECS)), tmp_path / "made"
    code = f"from lib import demo; demo.make_benchmark({str(folder)!r}, [{name!r}])"
    root = Path(demo.__file__).parents[1]
    (tmp_path / ".made.partial" / "new").mkdir(parents=True)  # of a process that was killed
    running = [subprocess.Popen([sys.executable, "-c", code], cwd=str(root)) for _ in range(3)]
    assert [process.wait(120) for process in running] == [0, 0, 0]
    assert (folder / "list.txt").read_text() == f"{name}\n"
    assert {path.name for path in tmp_path.iterdir()} == {"made", ".made.lock"}


def test_a_run_that_fails_leaves_nothing(
    short: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(folder: Path, spec: demo.Spec) -> None:
        folder.mkdir(parents=True)
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(demo, "_write_sequence", full)
    with pytest.raises(InputError, match=r"made: cannot be written .No space left on device."):
        demo.make_benchmark(tmp_path / "made")
    assert [path.name for path in tmp_path.iterdir()] == [".made.lock"]


def test_faults_are_named_in_one_sentence(
    short: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("kept")
    with pytest.raises(InputError, match=r"file: cannot be written"):
        demo.make_benchmark(tmp_path / "file" / "sub")
    for folder in (tmp_path, tmp_path / "file"):
        with pytest.raises(InputError, match="file: this does not come from the demo benchmark"):
            demo.make_benchmark(folder)
    scene = replace(SHORT.scene, photo="nosuch.png")
    monkeypatch.setattr(demo, "list_specs", lambda: (replace(SHORT, scene=scene),))
    with pytest.raises(InputError, match=r"nosuch\.png: scikit-image"):
        demo.make_benchmark(tmp_path / "made")
    assert {path.name for path in tmp_path.iterdir()} == {"file", ".made.lock"}


def test_the_stamp_names_the_generator_and_the_sequences(short: None, tmp_path: Path) -> None:
    stamp = json.loads((demo.make_benchmark(tmp_path / "made") / demo.STAMP).read_text())
    assert stamp["sequences"] == ["short"]
    assert len(stamp["generator"]) == 16
