"""The command line: what it prints, what it writes, and one sentence with exit status 2 for every
kind of bad input."""

from __future__ import annotations

import csv
import json
import shutil
import subprocess
import sys

import cv2
import numpy as np
import pytest

from lib.cli import main
from lib.files import ROOT
from lib.options import COMMANDS

torch = pytest.importorskip("torch")

from report.helpers import in_this_process  # noqa: E402

from lib.siamrpn.checkpoint import save_weights  # noqa: E402
from lib.siamrpn.network import NetworkConfig, SiamRPN  # noqa: E402
from lib.siamrpn.parts import NETWORKS  # noqa: E402


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("weights") / "small.pth"
    save_weights(path, SiamRPN(NetworkConfig.resnet50(0.125)).state_dict())
    return str(path)


@pytest.fixture
def here(one_thread, tmp_path):
    """Quality is measured in this process: to start others takes longer than what there is to
    track."""
    with in_this_process(tmp_path):
        yield


@pytest.fixture
def frames(tmp_path):
    """A folder of eight frames, 160 x 120."""
    folder = tmp_path / "frames"
    folder.mkdir()
    for number in range(8):
        cv2.imwrite(
            str(folder / f"{number:04d}.jpg"),
            np.random.RandomState(number).randint(0, 256, (120, 160, 3), np.uint8),
        )
    return folder


@pytest.fixture
def track(frames, weights, tmp_path):
    """A command that follows a box in these frames."""
    box, out = "40,30,32,24", tmp_path / "out"
    return ("track", frames, "--init", box, "--out", out, "--weights", weights)


def done(capsys, *arguments):
    """Run a command to its end; returns what it printed."""
    assert main([str(each) for each in arguments]) == 0
    return capsys.readouterr().out


def refused(capsys, *arguments):
    """Run a command that must be refused; returns its sentence."""
    assert main([str(each) for each in arguments]) == 2
    captured = capsys.readouterr()
    message = captured.err.strip().splitlines()[-1]
    assert captured.out == ""
    assert message.startswith("siambook: ")
    return message


def test_evaluate_prints_the_published_numbers(shared, capsys):
    folder = shared / "vot2018"
    results, dataset = folder / "results/SiamRPNpp_R50", folder / "VOT2018.json"
    result = json.loads(done(capsys, "evaluate", results, "--dataset", dataset, "--json"))
    expected = json.loads((folder / "expected.json").read_text())["trackers"]["SiamRPNpp_R50"]
    found = [round(result[key], 4) for key in ("accuracy", "robustness", "failures", "eao")]
    assert found == [0.6011, 0.2341, 50, 0.4152]
    for name in ("camera_motion", "illum_change", "motion_change", "size_change", "occlusion"):
        assert result["attributes"][name]["eao"] == pytest.approx(expected["eao"][name], abs=2e-4)
    text = done(capsys, "evaluate", results, "--dataset", dataset)
    assert all(f"{value:.4f}" in text for value in found)


def test_evaluate_of_one_sequence_with_intervals_is_valid_json(shared, tmp_path, capsys):
    """With one sequence the bootstrap has nothing to draw from: the bounds are null, not NaN."""
    folder = tmp_path / "one"
    shutil.copytree(str(shared / "sequences/VOT2018/bag"), str(folder / "bag"))
    (folder / "list.txt").write_text("bag\n")
    command = ("evaluate", shared / "vot2018/results/KCF", "--dataset", folder, "--intervals")
    result = json.loads(
        done(capsys, *command, "--json"),
        parse_constant=lambda name: pytest.fail(f"{name} is not JSON"),
    )
    assert result["intervals"]["eao"] == [None, None]
    assert "undefined to undefined" in done(capsys, *command)


@pytest.mark.parametrize("as_video", [False, True], ids=["folder", "video"])
def test_track_writes_boxes_and_an_annotated_video(track, frames, tmp_path, capsys, as_video):
    source = frames
    if as_video:
        source = tmp_path / "clip.mp4"
        writer = cv2.VideoWriter(str(source), cv2.VideoWriter.fourcc(*"mp4v"), 12, (160, 120))
        for file in sorted(frames.iterdir()):
            writer.write(cv2.imread(str(file)))
        writer.release()
    out = tmp_path / "out"
    told = done(capsys, "track", source, *track[2:])
    assert ": 8 frames" in told.splitlines()[0]
    rows = list(csv.DictReader((out / "boxes.csv").open()))
    assert [int(row["frame"]) for row in rows] == list(range(1, 9))
    assert [float(rows[0][key]) for key in "xywh"] == [40, 30, 32, 24]
    video = cv2.VideoCapture(str(out / "tracked.mp4"))
    shown = [video.read() for _ in range(9)]
    assert [found for found, _ in shown] == [True] * 8 + [False]
    assert shown[0][1].shape == (120, 160, 3)
    assert sorted(file.name for file in out.iterdir()) == ["boxes.csv", "tracked.mp4"]


def test_track_stops_after_so_many_frames(track, tmp_path, capsys):
    told = done(capsys, *track, "--frames", "3")
    assert ": 3 frames" in told.splitlines()[0]
    assert len((tmp_path / "out" / "boxes.csv").read_text().splitlines()) == 4


def test_the_box_in_the_video_is_drawn_where_the_csv_says():
    from lib.video import annotated

    image = annotated(np.zeros((100, 120, 3), np.uint8), np.array([30.0, 40.0, 50.0, 20.0]), 0.5)
    drawn = np.argwhere((image == (0, 190, 255)).all(2))
    assert (40, 55) in {tuple(p) for p in drawn} and (60, 55) in {tuple(p) for p in drawn}
    assert not image[50, 55].any()


DAMAGES = {
    "truncated": (lambda file: file.write_bytes(file.read_bytes()[:-200]), "0003.jpg is "),
    "empty": (lambda file: file.write_bytes(b""), "0003.jpg is not a readable image"),
    "another size": (
        lambda file: cv2.imwrite(str(file), np.zeros((60, 80, 3), np.uint8)),
        "frame 4 has 80x60 pixels",
    ),
    "no images": (
        lambda file: [each.unlink() for each in file.parent.iterdir()],
        "no images in this folder",
    ),
    "missing": (
        lambda file: shutil.rmtree(file.parent),
        "no such video, folder, address or camera",
    ),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_bad_frames_are_named_and_nothing_is_left(track, frames, tmp_path, capsys, damage):
    make, words = DAMAGES[damage]
    make(frames / "0003.jpg")
    assert words in refused(capsys, *track)
    assert not list(tmp_path.glob("out/*"))


def test_grey_frames_are_tracked_as_three_equal_channels(track, frames, capsys):
    for file in frames.iterdir():
        cv2.imwrite(str(file), cv2.imread(str(file), cv2.IMREAD_GRAYSCALE))
    done(capsys, *track)


def test_a_grey_array_is_refused_by_the_tracker(weights):
    from lib.engines.zoo import open_tracker
    from lib.errors import InputError

    tracker = open_tracker(weights, "pytorch")
    with pytest.raises(InputError, match="height x width x 3"):
        tracker.init(np.zeros((120, 160), np.uint8), np.array([1, 1, 20, 20]))


@pytest.mark.parametrize(
    "box, words",
    [
        ("40,30,-5,24", "w and h of at least 1"),
        ("40,30,0.2,0.2", "w and h of at least 1"),
        ("0,0,1e6,1e6", "far larger than the 160x120 frame"),
        ("500,30,20,24", "outside the 160x120 frame"),
        ("-50,30,20,24", "outside the 160x120 frame"),
    ],
)
def test_bad_boxes_are_refused(frames, weights, tmp_path, capsys, box, words):
    command = ("track", frames, f"--init={box}", "--out", tmp_path / "out", "--weights", weights)
    assert words in refused(capsys, *command)
    assert not list(tmp_path.glob("out/*"))


@pytest.mark.skipif(torch.cuda.is_available(), reason="CUDA is here")
def test_a_device_that_is_not_here_is_named(track, capsys):
    assert "device 'cuda'" in refused(capsys, *track, "--device", "cuda")


def test_drawing_without_a_display_says_what_to_do(frames, weights, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("matplotlib.get_backend", lambda: "agg")
    command = ("track", frames, "--out", tmp_path / "out", "--weights", weights)
    assert "--init x,y,w,h" in refused(capsys, *command)


@pytest.mark.parametrize("name", COMMANDS.choices)
def test_help_of_every_command_has_an_example(name, capsys):
    with pytest.raises(SystemExit):
        main([name, "--help"])
    assert f"Example: siambook {name} " in " ".join(capsys.readouterr().out.split())


# -- Engines ---------------------------------------------------------------------------------------


def test_export_writes_the_three_networks_and_says_how_close_they_are(tmp_path, capsys):
    pytest.importorskip("openvino")
    command = ("export", "--out", tmp_path, "--precision", "fp32,int8")
    lines = done(capsys, *command).splitlines()
    names = [f"{name}-{precision}.onnx" for precision in ("fp32", "int8") for name in NETWORKS]
    assert [line.partition(":")[0] for line in lines] == [str(tmp_path / name) for name in names]
    assert all((tmp_path / name).stat().st_size > 1000 for name in names)
    assert ["of the range from PyTorch" in line for line in lines] == [True] * 3 + [False] * 3


def test_evaluate_runs_a_mixture_of_precisions(frames, tmp_path, capsys, here):
    pytest.importorskip("openvino")
    (frames / "groundtruth.txt").write_text("40,30,50,40\n" * 8)
    command = ("evaluate", "--dataset", frames, "--run", tmp_path / "run", "--engine", "openvino")
    name = "openvino-int8-fp32-fp16"
    assert name in done(capsys, *command, "--precision", "int8,fp32,fp16")
    assert (tmp_path / "run" / "frames" / name / "measured.json").is_file()


def test_calibrate_from_a_dataset_makes_ranges_that_int8_uses(
    frames, weights, tmp_path, capsys, here
):
    pytest.importorskip("openvino")
    (frames / "groundtruth.txt").write_text("40,30,50,40\n" * 8)
    own = tmp_path / "own.pth"
    shutil.copy(weights, own)
    command = ["evaluate", "--dataset", frames, "--run", tmp_path / "run", "--weights", own]
    command += ["--engine", "openvino", "--precision", "int8"]
    assert "siambook calibrate" in refused(capsys, *command)
    done(capsys, "calibrate", frames, "--weights", own, "--pairs", "4")
    assert (tmp_path / "own.calibration.csv").is_file()
    done(capsys, *command)


@pytest.mark.parametrize(
    "options, where",
    [
        ([], {"scheduler": "", "workers": 0}),
        (["--workers", "3"], {"scheduler": "", "workers": 3}),
        (["--scheduler", "local", "--workers", "3"], {"scheduler": "local", "workers": 3}),
    ],
    ids=" ".join,
)
def test_where_quality_is_measured_is_told_by_options(
    frames, tmp_path, capsys, monkeypatch, options, where
):
    from lib.errors import InputError
    from lib.measure import everything, quality

    told = []

    def measure(*_, **how):
        told.append({name: how[name] for name in where})
        raise InputError("told")

    for module in (quality, everything):
        monkeypatch.setattr(module, "measure", measure)
    (frames / "groundtruth.txt").write_text("40,30,50,40\n" * 8)
    profile = tmp_path / "own.yaml"
    profile.write_text("dataset: demo\nweights: demo\n")
    refused(capsys, "evaluate", "--dataset", str(frames), "--run", str(tmp_path / "run"), *options)
    refused(capsys, "measure", "--profile", str(profile), "--run", str(tmp_path / "run"), *options)
    assert told == [where, where]


@pytest.mark.parametrize(
    "what, name", [("vot2018", "VOT2018"), ("weights", "siamrpn_r50_l234_dwxcorr.pth")]
)
def test_fetch_writes_where_profiles_look_from_any_folder(tmp_path, monkeypatch, what, name):
    from lib import fetch

    asked = []
    for function in ("fetch_vot2018", "fetch_weights"):
        monkeypatch.setattr(fetch, function, lambda path, **_: asked.append(path))
    monkeypatch.chdir(tmp_path)
    assert main(["fetch", what]) == 0
    assert asked == [ROOT / "data" / "cache" / name]
    assert name in (ROOT / "profiles" / "workstation.yaml").read_text()


def test_a_daemon_without_standard_streams_does_its_work(tmp_path):
    command = f"'{sys.executable}' -m lib.cli demo-data '{tmp_path}/made' >&- 2>&-"
    done = subprocess.run(["sh", "-c", command], cwd=ROOT, timeout=300)
    assert done.returncode == 0 and (tmp_path / "made" / "list.txt").is_file()


def test_an_empty_name_is_refused(capsys):
    assert "an empty name" in refused(capsys, "export", "--out", "")
