"""`siambook track` on the files that people have, and the video that it draws."""

from __future__ import annotations

import csv
import functools
import http.server
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress

import cv2
import numpy as np
import pytest
import yaml

pytest.importorskip("torch")

from lib.cli import main
from lib.engines import zoo
from lib.engines.zoo import open_tracker
from lib.errors import InputError
from lib.siamrpn.tracker import LOST_FRAMES, LOST_SCORE, SiamRPNTracker, TrackResult
from lib.video import LARGEST_SIDE, FrameSource, write_track
from lib.vot.dataset import axis_aligned_box, load_dataset
from lib.vot.overlap import area_overlap, region_corners

BOX = "20,30,40,40"


@pytest.fixture(scope="module")
def tracker(one_thread):
    return open_tracker(engine="pytorch")


@pytest.fixture
def track(tracker, tmp_path, monkeypatch, capsys):
    """Runs the command with weights that are loaded once; returns its rows, the video's path, and
    what was said on standard error."""
    monkeypatch.setattr(zoo, "open_tracker", lambda *_: tracker)

    def run(source, box, *options):
        out = tmp_path / "out"
        assert main(["track", str(source), "--init", box, "--out", str(out), *options]) == 0
        with (out / "boxes.csv").open() as file:
            rows = list(csv.DictReader(file))
        return rows, out / "tracked.mp4", capsys.readouterr().err

    return run


@pytest.fixture
def cases(shared):
    return shared / "cases"


@pytest.fixture
def clip(tmp_path):
    """A folder of 12 frames whose target moves by three pixels."""
    folder, random = tmp_path / "clip", np.random.RandomState(1)
    folder.mkdir()
    scene = cv2.GaussianBlur(random.randint(0, 256, (120, 160, 3), np.uint8), (0, 0), 4)
    target = cv2.resize(random.randint(0, 256, (5, 5, 3), np.uint8), (40, 40), interpolation=0)
    for number in range(12):
        frame = scene.copy()
        frame[30:70, 20 + 3 * number : 60 + 3 * number] = target
        cv2.imwrite(str(folder / f"{number + 1}.png"), frame)
    return folder


def boxes(rows):
    return np.array([[float(row[key]) for key in "xywh"] for row in rows])


def overlaps(rows, truth):
    regions = np.loadtxt(truth, delimiter=",")
    assert len(rows) == len(regions)
    return area_overlap(region_corners(boxes(rows)), region_corners(regions))


def length(video):
    """Seconds that a video plays, and its number of frames."""
    capture, times = cv2.VideoCapture(str(video)), []
    while capture.read()[0]:
        times.append(capture.get(cv2.CAP_PROP_POS_MSEC) / 1000)
    last = int(np.argmax(times))  # OpenCV 4.5 gives the frames after it 0
    return times[last] * len(times) / last, len(times)


# -- ../shared/cases -------------------------------------------------------------------------------


def test_frames_come_in_the_order_of_their_numbers(cases, track):
    folder = cases / "frames-unpadded"
    rows, video, _ = track(folder / "frames", BOX)
    assert overlaps(rows, folder / "truth.csv").min() >= 0.85
    assert length(video)[1] == 12


def test_a_video_that_announces_more_frames_than_it_shows_is_tracked(cases, track):
    folder = cases / "video-edit-list"
    rows, video, said = track(folder / "trimmed.mp4", "40,40,40,40")
    assert overlaps(rows, folder / "truth.csv").min() >= 0.85
    assert length(video)[1] == 20 and "30 frames announced, 20" in said


@pytest.mark.parametrize(
    "name, seconds", [("fast.avi", 0.1004), ("fast2.avi", 0.0568), ("slow.avi", 24.0)]
)
def test_a_video_of_an_odd_rate_is_as_long_as_its_source(cases, track, name, seconds):
    rows, video, _ = track(cases / "video-rate" / name, BOX)
    assert len(rows) == 12
    assert length(video) == (pytest.approx(seconds, rel=0.01), 12)
    assert float(rows[-1]["time"]) == pytest.approx(seconds * 11 / 12, rel=0.01)


def test_a_picture_is_cut_where_its_pixels_are_missing(cases, track, tmp_path):
    rows, _, _ = track(cases / "jpeg-trailer" / "motion-photo", BOX, "--frames", "3")
    assert len(rows) == 3
    whole = (cases / "jpeg-trailer" / "motion-photo" / "0001.jpg").read_bytes()
    (tmp_path / "cut").mkdir()
    (tmp_path / "cut" / "1.jpg").write_bytes(whole[: whole.index(b"\xff\xd9") - 500])
    with pytest.raises(InputError, match=r"1\.jpg is "):
        list(FrameSource(str(tmp_path / "cut")))


def test_an_option_that_is_given_twice_is_refused(capsys):
    with pytest.raises(SystemExit) as ended:
        main(["track", "frames", "--init", BOX, "--init", "90,50,30,30"])
    assert ended.value.code == 2 and "--init" in capsys.readouterr().err


# -- Sources ---------------------------------------------------------------------------------------


def test_deep_pictures_are_stretched_alike_in_all_frames(clip, tmp_path):
    (tmp_path / "deep").mkdir()
    for number in range(1, 4):
        grey = cv2.imread(str(clip / f"{number}.png"), cv2.IMREAD_GRAYSCALE)
        deep = (30000 + 2 * grey.astype(np.uint16)) * (1 if number < 3 else 2)
        cv2.imwrite(str(tmp_path / "deep" / f"{number}.png"), deep)
    said = []
    first, second, bright = FrameSource(str(tmp_path / "deep"), said.append)
    assert first.dtype == np.uint8 and first.min() == 0 and first.max() == 255
    assert (first[:20] == second[:20]).all()  # the scene, which does not move
    assert (bright == 255).all() and len(said) == 1


def test_the_video_may_be_anything_that_opencv_opens(cases, clip):
    folder = str(cases / "video-edit-list")
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=folder)
    handler.log_message = None
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_port}/trimmed.mp4"
        assert len(list(FrameSource(address, lambda _: None))) == 20
        server.shutdown()
    assert len(list(FrameSource(str(clip / "%d.png")))) == 12


@pytest.mark.parametrize("name", ["²", "9" * 20, "n" * 5000, "nowhere.mp4", "http://127.0.0.1:9/v"])
def test_what_is_no_source_is_refused(name):
    with pytest.raises(InputError):
        FrameSource(name)


def test_a_box_that_begins_left_of_the_frame_needs_no_equals_sign(clip, track):
    rows, _, _ = track(clip, "-5,30,40,40", "--frames", "2", "--no-video")
    assert float(rows[0]["x"]) == -5


# -- What is written -------------------------------------------------------------------------------


def test_without_a_video_there_are_the_same_boxes(clip, track):
    rows, video, _ = track(clip, BOX, "--no-video")
    assert not video.exists()
    assert (boxes(rows) == boxes(track(clip, BOX)[0])).all()


def test_a_picture_wider_than_players_take_is_drawn_smaller(tmp_path):
    result = TrackResult(np.array([10.0, 10, 30, 30]), 0.5, 0, 0.5)
    with write_track(tmp_path, 30.0) as writer:
        for _ in range(3):
            writer.add(np.zeros((65, LARGEST_SIDE + 901, 3), np.uint8), result, 0.0)
    capture = cv2.VideoCapture(str(tmp_path / "tracked.mp4"))
    assert capture.get(cv2.CAP_PROP_FRAME_WIDTH) == LARGEST_SIDE


def test_a_failure_takes_its_files_away_and_leaves_those_of_an_earlier_run(clip, tmp_path):
    earlier = "frame,x,y,w,h,score\n1,2,3,4,5,0.6\n"
    (tmp_path / "boxes.csv").write_text(earlier)
    result = TrackResult(np.array([10.0, 10, 30, 30]), 0.5, 0, 0.5)
    for folder, left in ((tmp_path, earlier), (tmp_path / "new", None)):
        with suppress(InputError), write_track(folder, 30.0) as writer:
            writer.add(np.zeros((64, 64, 3), np.uint8), result, 0.0)
            raise InputError("damaged")
        assert folder.exists() == bool(left)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["boxes.csv", "clip"]
    assert (tmp_path / "boxes.csv").read_text() == earlier


def test_boxes_that_are_not_of_this_command_are_spared(clip, tmp_path, capsys):
    (tmp_path / "boxes.csv").write_text("my notes\n")
    assert main(["track", str(clip), "--init", BOX, "--out", str(tmp_path)]) == 2
    assert "boxes.csv" in capsys.readouterr().err
    assert (tmp_path / "boxes.csv").read_text() == "my notes\n"


def test_the_source_and_films_of_others_are_spared(clip, track, tmp_path, capsys):
    _, film, _ = track(clip, BOX)
    content = film.read_bytes()
    assert main(["track", str(film), "--init", BOX, "--out", str(film.parent)]) == 2
    assert "is the source" in capsys.readouterr().err and film.read_bytes() == content
    (film.parent / "boxes.csv").unlink()
    assert main(["track", str(clip), "--init", BOX, "--out", str(film.parent)]) == 2
    assert "not made by this command" in capsys.readouterr().err and film.read_bytes() == content


def test_a_stack_of_pictures_is_refused(clip, tmp_path):
    frames = [cv2.imread(str(file)) for file in sorted(clip.iterdir())]
    assert cv2.imwritemulti(str(tmp_path / "stack.tif"), frames)
    with pytest.raises(InputError, match="12 pictures in one file"):
        FrameSource(str(tmp_path / "stack.tif"))


def test_where_boxes_have_no_room_those_of_an_earlier_run_come_back(clip, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    (out / "boxes.csv").write_text("frame,x,y,w,h,score\n")
    _, said = (done := start(clip, out, SMALL_DISK.replace("3000", "100"))).communicate(timeout=300)
    assert done.returncode == 2 and b"cannot be written" in said
    assert (out / "boxes.csv").read_text() == "frame,x,y,w,h,score\n"


SMALL_DISK = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (3000, 3000)); "


def start(source, out, before=""):
    code = f"{before}import sys; from lib.cli import main; sys.exit(main())"
    command = [sys.executable, "-c", code, "track", str(source), "--init", BOX, "--out", str(out)]
    own = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen([*command, "--engine", "pytorch"], env=own, stderr=subprocess.PIPE)


def test_boxes_are_complete_where_there_is_no_room_for_the_video(clip, tmp_path):
    done = start(clip, tmp_path / "out", SMALL_DISK)
    _, said = done.communicate(timeout=300)
    assert done.returncode == 0 and b"no video" in said
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["boxes.csv"]
    assert len((tmp_path / "out" / "boxes.csv").read_text().splitlines()) == 13


def test_sigterm_leaves_the_frames_so_far_and_nothing_else(clip, tmp_path):
    for number in range(13, 2000):
        os.link(clip / f"{number % 12 + 1}.png", clip / f"{number}.png")
    out, running = tmp_path / "out", start(clip, tmp_path / "out")
    for _ in range(3000):
        if (out / "boxes.csv").is_file() and (out / "boxes.csv").read_text().count("\n") > 5:
            break
        time.sleep(0.1)
    running.send_signal(signal.SIGTERM)
    running.communicate(timeout=300)
    assert sorted(path.name for path in out.iterdir()) == ["boxes.csv", "tracked.mp4"]
    rows = (out / "boxes.csv").read_text().splitlines()
    assert length(out / "tracked.mp4")[1] == len(rows) - 1
    assert {row.count(",") for row in rows} == {8}


def test_the_video_plays_in_a_browser(clip, track):
    webdriver = pytest.importorskip("selenium.webdriver")
    binary, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if not binary or not driver:
        pytest.skip("Chromium or its driver is missing")
    _, video, _ = track(clip, BOX)
    options = webdriver.ChromeOptions()
    options.binary_location = binary
    for argument in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu"):
        options.add_argument(argument)
    page = video.with_name("page.html")
    page.write_text(f"<video muted src={video.name}></video>")
    browser = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
    try:
        browser.get(page.as_uri())
        browser.execute_script("document.querySelector('video').play()")
        for _ in range(100):
            time.sleep(0.1)
            seconds, width, ended = browser.execute_script(
                "const v = document.querySelector('video'); return [v.currentTime, v.videoWidth, v.ended]"
            )
            if ended:
                break
    finally:
        browser.quit()
    assert ended and width == 160 and seconds == pytest.approx(0.4, abs=0.05)


# -- The tracker -----------------------------------------------------------------------------------


def test_engines_in_fp32_give_the_same_boxes(shared, tracker):
    pytest.importorskip("openvino")
    [sequence] = load_dataset(shared / "sequences" / "OTB" / "Crossing")
    found = []
    for one in (tracker, open_tracker(engine="openvino")):
        one.init(sequence.frame(0), axis_aligned_box(sequence.regions[0]))
        found.append([one.track(sequence.frame(index)).box for index in range(1, 20)])
    assert np.abs(np.subtract(*found)).max() < 1


def test_a_target_is_lost_after_some_weak_frames():
    tracker = SiamRPNTracker(None)
    tracker.center, tracker.size = np.array([50.0, 50.0]), np.array([20.0, 20.0])
    loc, weak = np.zeros((1, 20, 25, 25), np.float32), np.zeros((1, 10, 25, 25), np.float32)
    weak[:, :5] = 9  # background
    lost = [tracker.update(weak, loc, 1.0, 100, 100).lost for _ in range(LOST_FRAMES + 1)]
    assert lost == [False] * (LOST_FRAMES - 1) + [True] * 2
    assert not tracker.update(-weak, loc, 1.0, 100, 100).lost
    measured = yaml.safe_load((zoo.FOLDER / "lost.yaml").read_text())
    assert (measured["score"], measured["frames"]) == (LOST_SCORE, LOST_FRAMES)


@pytest.mark.parametrize(
    "engine, device", [("openvino", "cuda"), ("pytorch", "meta"), ("pytorch", "mps"), ("auto", "x")]
)
def test_a_device_that_cannot_be_used_is_one_sentence(engine, device):
    with pytest.raises(InputError) as refused:
        open_tracker(engine=engine, device=device)
    assert device in str(refused.value) and len(str(refused.value)) < 150
