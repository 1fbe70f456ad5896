"""A training run learns, logs, and goes on after a stop to the same weights, however it was
stopped."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import time

import cv2
import numpy as np
import pytest
import torch
import yaml

from lib import cli, pruning
from lib.errors import InputError
from lib.siamrpn.anchors import anchor_grid
from lib.siamrpn.checkpoint import load_network, read_state, save_weights
from lib.siamrpn.network import NetworkConfig, SiamRPN
from lib.training import tune
from lib.training.pairs import PairConfig, PairDataset, Sample, load_clips, paste
from lib.training.tracker import TrackerTraining, load_config, train


@pytest.fixture(scope="module")
def manifest(tmp_path_factory):
    """Six textured pictures, two of them frames of a sequence, as a manifest."""
    folder = tmp_path_factory.mktemp("pictures")
    entries = []
    for number in range(6):
        coarse = np.random.RandomState(number).randint(0, 256, (20, 24, 3), np.uint8)
        picture = cv2.resize(coarse, (240, 200), interpolation=cv2.INTER_CUBIC)
        cv2.imwrite(str(folder / f"{number}.png"), picture)
        sequence, frame = ("moving", number) if number < 2 else (None, None)
        place = {"sequence": sequence, "frame": frame}
        box = [60 + number, 50, 70, 60]
        entries.append({"file": f"{number}.png", "boxes": [box], **place})
    (folder / "manifest.json").write_text(json.dumps(entries))
    return folder / "manifest.json"


def configuration(folder, manifest, **changes):
    data = {
        "data": str(manifest),
        "width": 0.125,
        "batch_size": 4,
        "precision": "fp32",
        "workers": 0,
        "save_every": 8,
        "log_every": 4,
        "phases": [
            {"pairs": 16, "search_size": 135, "lr": [1e-3, 5e-4]},
            {"pairs": 8, "search_size": 159, "lr": [5e-4, 1e-4], "freeze_norm": True},
        ],
        **changes,
    }
    path = folder / "train.yaml"
    path.write_text(yaml.safe_dump(data))
    return path


def test_pairs_depend_on_seed_and_number_alone(manifest):
    clips = load_clips(manifest)
    one, two = (PairDataset(clips, PairConfig(), 191, seed=3) for _ in range(2))
    _ = one[0], one[5]
    for key, value in one[7].items():
        assert np.array_equal(value, two[7][key]), key
    assert not np.array_equal(one[7]["search"], one[8]["search"])


def test_the_box_of_a_pair_is_where_the_target_was_put(manifest):
    """Without warps, an exemplar found by correlation in its search crop lies where the best
    anchor's offsets say."""
    without = ("negative", "video", "warp", "light", "occluder", "distractor", "scale", "grey")
    config = PairConfig(shares={"annotated": 1.0}, **dict.fromkeys(without, 0))
    dataset = PairDataset(load_clips(manifest), config, 255, seed=0)
    distances = []
    for number in range(12):
        pair = dataset[number]
        anchor, row, col = np.argwhere(pair["label"] == 1)[0]
        grid, delta = anchor_grid(25)[anchor, row, col], pair["delta"][:, anchor, row, col]
        center = 127 + grid[:2] + delta[:2] * grid[2:]
        patch = pair["exemplar"].transpose(1, 2, 0)[44:84, 44:84]
        response = cv2.matchTemplate(
            pair["search"].transpose(1, 2, 0), np.ascontiguousarray(patch), cv2.TM_CCOEFF_NORMED
        )
        found = np.array(np.unravel_index(response.argmax(), response.shape))[::-1] + 20
        distances.append(np.linalg.norm(found - center))
    assert np.median(distances) < 6


def test_a_pasted_patch_covers_its_ellipse_and_nothing_else():
    base, layer = np.zeros((511, 511, 3), np.uint8), np.full((511, 511, 3), 200, np.uint8)
    out = paste(base, Sample(layer, (60.0, 40.0)), (100, -50), power=2)
    assert out[255 - 50, 255 + 100].tolist() == [200] * 3
    covered = (out[..., 0] > 100).sum()
    assert covered == pytest.approx(np.pi * 30 * 20, rel=0.05)
    assert base.max() == 0


# Processors without half precision are slow at it.
SHORT = [
    {"pairs": 8, "search_size": 135, "lr": [1e-3, 5e-4]},
    {"pairs": 4, "search_size": 135, "lr": [5e-4, 1e-4], "freeze_norm": True},
]


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"precision": "bf16", "workers": 1, "phases": SHORT},
        {
            "optimizer": "sgd",
            "average": 0,
            "phases": [
                {"pairs": 16, "search_size": 135, "lr": [1e-3, 5e-4], "backbone_lr": 0.0},
                {"pairs": 8, "search_size": 135, "lr": [5e-4, 5e-4], "backbone_lr": 0.1},
            ],
        },
    ],
    ids=["fp32", "bf16 and a worker", "sgd, frozen backbone"],
)
def test_a_stopped_run_ends_with_the_weights_of_an_unstopped_one(tmp_path, manifest, changes):
    config = load_config(configuration(tmp_path, manifest, **changes))
    train(config, tmp_path / "whole")
    whole_length = sum(phase.pairs for phase in config.phases)
    for share in (0.2, 0.6, 0.75, None):  # inside a phase, at its end, inside the next one
        stop = share and int(share * whole_length)
        train(config, tmp_path / "parts", stop_after=stop)
    whole, parts = (
        torch.load(str(tmp_path / name / "checkpoint.pt"), weights_only=True)
        for name in ("whole", "parts")
    )
    for part in ("network", "average"):
        assert all(torch.equal(value, parts[part][key]) for key, value in whole[part].items()), part
    assert bool(whole["average"]) == (config.average > 0)
    logs = [(tmp_path / name / "log.csv").read_text() for name in ("whole", "parts")]
    assert logs[0] == logs[1]


LONG = {"pairs": 4000, "search_size": 135, "lr": [1e-3, 5e-4]}


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_keeps_every_finished_step(tmp_path, manifest, number):
    path = configuration(tmp_path, manifest, save_every=1000, phases=[LONG])
    out = tmp_path / "out"
    command = [sys.executable, "-m", "lib.cli", "train", str(path), "--out", str(out)]
    process = subprocess.Popen(
        command,
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        preexec_fn=lambda: signal.signal(number, signal.SIG_DFL),  # what started us may ignore it
    )
    while not (out / "log.csv").exists() or len((out / "log.csv").read_text().split()) < 3:
        time.sleep(0.01)
    process.send_signal(number)
    said = process.communicate()[1].decode()
    assert process.returncode == 130 and said.rstrip().endswith("siambook: stopped")
    rows = [int(row["pairs"]) for row in csv.DictReader((out / "log.csv").open())]
    done = torch.load(str(out / "checkpoint.pt"), weights_only=True)["done"]
    assert 0 < rows[-1] <= done < 4000 and not (out / "weights.pth").exists()


@pytest.mark.slow
def test_a_killed_run_ends_with_the_weights_of_an_unkilled_one(tmp_path, manifest):
    path = configuration(tmp_path, manifest)
    whole = read_state(train(load_config(path), tmp_path / "whole"))
    out = tmp_path / "killed"
    command = [sys.executable, "-m", "lib.cli", "train", str(path), "--out", str(out)]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    while not (out / "checkpoint.pt").exists() and process.poll() is None:
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert (out / "checkpoint.pt").exists()
    assert not (out / "weights.pth").exists()
    assert subprocess.run(command, check=False, capture_output=True).returncode == 0
    again = read_state(out / "weights.pth")
    assert all(torch.equal(whole[key], again[key]) for key in whole)
    rows = [int(row["pairs"]) for row in csv.DictReader((out / "log.csv").open())]
    assert rows == sorted(set(rows)) and rows[-1] == 24


def test_training_lowers_the_loss(tmp_path, manifest):
    phases = [{"pairs": 160, "search_size": 135, "lr": [3e-3, 3e-3]}]
    plain = dict.fromkeys(("negative", "warp", "distractor", "occluder"), 0.0)
    pairs = {"shares": {"annotated": 1.0}, **plain}
    path = configuration(tmp_path, manifest, average=0, phases=phases, pairs=pairs)
    train(load_config(path), tmp_path / "out")
    total = [float(row["total"]) for row in csv.DictReader((tmp_path / "out" / "log.csv").open())]
    assert np.mean(total[-8:]) < 0.85 * np.mean(total[:4])


def test_crop511_folders_of_pysot_are_read(tmp_path):
    folder = tmp_path / "coco"
    (folder / "crop511" / "train" / "a").mkdir(parents=True)
    random = np.random.RandomState(0)
    for number in (0, 3):
        crop = random.randint(0, 256, (511, 511, 3), np.uint8)
        cv2.imwrite(str(folder / "crop511" / "train" / "a" / f"{number:06d}.00.x.jpg"), crop)
    boxes = {"000000": [10, 10, 60, 90], "000003": [50, 80]}
    (folder / "train.json").write_text(json.dumps({"train/a": {"00": boxes}}))
    clips = load_clips(folder)
    assert [len(clip) for clip in clips] == [2]
    pair = PairDataset(clips, PairConfig(shares={"annotated": 1.0}), 255, 0)[0]
    assert pair["exemplar"].shape == (3, 127, 127)
    assert pair["search"].shape == (3, 255, 255)
    with pytest.raises(InputError, match="held out of a manifest, not of crop511"):
        load_clips(folder, ("a",))


@pytest.mark.parametrize(
    "changes, words",
    [
        ({"speed": 3}, "unknown key 'speed'"),
        ({"phases": [{"pairs": 8, "colour": 1}]}, "unknown key 'colour'"),
        ({"phases": []}, "no phases"),
        ({"phases": [3]}, "Phase should be a list of keys"),
        ({"phases": [{"pairs": 8, "lr": [1e-3]}]}, "two numbers above 0"),
        ({"phases": [{"pairs": 8, "search_size": 767}]}, "search_size 767"),
        ({"phases": [{"pairs": 8, "tracking": 0.0}]}, "nothing to learn"),
        ({"precision": "int4"}, "precision 'int4'"),
        ({"batch_size": -1}, "batch_size cannot be -1"),
        ({"batch_size": 0}, "batch_size, save_every and log_every should be above 0"),
        ({"seed": "x"}, "seed cannot be 'x'"),
        ({"width": 0.0}, "width should be above 0"),
        ({"data": 3}, "data cannot be 3"),
        ({"pairs": {"holdout": "moving"}}, "holdout cannot be 'moving'"),
        ({"pairs": {"shares": {"cats": 1.0}}}, "unknown kinds ['cats']"),
        ({"initial": "missing.pth"}, "missing.pth: no such weights file"),
        ({"data": "nowhere.json"}, "nowhere.json cannot be read"),
    ],
)
def test_bad_configurations_are_refused_in_one_sentence(tmp_path, manifest, changes, words):
    path = configuration(tmp_path, manifest, **changes)
    with pytest.raises(InputError) as fault:
        train(load_config(path), tmp_path / "out")
    assert words in str(fault.value)
    assert "\n" not in str(fault.value)
    assert not (tmp_path / "out" / "weights.pth").exists()


@pytest.mark.parametrize(
    "entry, words",
    [
        ({"boxes": [[10, 10, -5, 20]]}, "which no target can have"),
        ({"boxes": [[10, 10, float("nan"), 20]]}, "which no target can have"),
        ({"boxes": [[900, 10, 20, 20]]}, "does not fit a picture of 240x200"),
        ({"file": "cut.jpg"}, "cut.jpg"),
        ({"file": "gone.jpg"}, "gone.jpg is missing"),
    ],
)
def test_bad_pictures_and_boxes_are_named_also_from_a_worker(tmp_path, entry, words):
    picture = np.random.RandomState(0).randint(0, 256, (200, 240, 3), np.uint8)
    cv2.imwrite(str(tmp_path / "whole.jpg"), picture)
    (tmp_path / "cut.jpg").write_bytes((tmp_path / "whole.jpg").read_bytes()[:-9000])
    whole = {"file": "whole.jpg", "boxes": [[60, 50, 70, 60]], "sequence": None, "frame": None}
    (tmp_path / "manifest.json").write_text(json.dumps([{**whole, **entry}]))
    path = configuration(tmp_path, tmp_path / "manifest.json", workers=1)
    with pytest.raises(InputError) as fault:
        train(load_config(path), tmp_path / "out")
    assert words in str(fault.value) and "\n" not in str(fault.value)


def test_a_run_that_diverges_stops_and_says_so(tmp_path, manifest):
    phases = [{"pairs": 80, "search_size": 191, "lr": [900.0, 900.0]}]
    path = configuration(tmp_path, manifest, optimizer="sgd", phases=phases)
    with pytest.raises(InputError, match="the loss or its gradient is not finite after"):
        train(load_config(path), tmp_path / "out")
    assert not (tmp_path / "out" / "weights.pth").exists()


class NoGradient(torch.autograd.Function):
    """Passes a number on, and NaN back."""

    @staticmethod
    def forward(ctx, value):
        return value.clone()

    @staticmethod
    def backward(ctx, gradient):
        return gradient * float("nan")


def test_without_finite_gradients_in_bf16_a_run_goes_on_in_fp32(
    tmp_path, manifest, monkeypatch, capsys
):
    """As PyTorch has none of some convolutions on processors without matrix units. The step that
    found it leaves no trace, in batch statistics either."""
    losses = TrackerTraining.losses

    def broken(self, batch):
        found = losses(self, batch)
        if torch.is_autocast_cpu_enabled():
            found["sum"] = NoGradient.apply(found["sum"])
        return found

    monkeypatch.setattr(TrackerTraining, "losses", broken)
    states = {}
    for precision in ("fp32", "bf16"):
        path = configuration(tmp_path, manifest, precision=precision)
        states[precision] = read_state(train(load_config(path), tmp_path / precision))
    assert "FP32 from pair 0 on" in capsys.readouterr().out
    assert all(torch.equal(value, states["bf16"][key]) for key, value in states["fp32"].items())


@pytest.mark.parametrize("content", [b"", b"garbage", {"state_dict": {}}])
def test_a_checkpoint_that_is_none_is_refused(tmp_path, manifest, content):
    out = tmp_path / "out"
    out.mkdir()
    if isinstance(content, bytes):
        (out / "checkpoint.pt").write_bytes(content)
    else:
        torch.save(content, str(out / "checkpoint.pt"))
    with pytest.raises(InputError, match=r"checkpoint\.pt: not a"):
        train(load_config(configuration(tmp_path, manifest)), out)


def test_a_checkpoint_of_another_configuration_is_refused(tmp_path, manifest):
    out = tmp_path / "out"
    train(load_config(configuration(tmp_path, manifest)), out, stop_after=8)
    with pytest.raises(InputError, match="trained with another seed"):
        train(load_config(configuration(tmp_path, manifest, seed=9)), out)


def test_tuning_uses_the_held_out_sequence_and_keeps_the_best(
    tmp_path, manifest, monkeypatch, capsys
):
    path = configuration(tmp_path, manifest, pairs={"holdout": ["moving"]})
    weights = train(load_config(path), tmp_path / "out", stop_after=4)
    seen = []
    monkeypatch.setattr(tune, "GRID", {"window": (0.2, 0.6), "rate": (0.38,)})
    monkeypatch.setattr(
        tune, "overlap_on", lambda network, videos, config: seen.append(videos) or config.window
    )
    line = ["--weights", str(weights), "--out", str(tmp_path / "tracker.yaml")]
    assert cli.main(["tune", str(path), *line]) == 0
    assert [len(video) for video in seen[0]] == [2] and len(seen) == 3
    tuned = yaml.safe_load((tmp_path / "tracker.yaml").read_text())
    assert tuned == {"penalty": 0.05, "window": 0.6, "rate": 0.38}
    assert cli.main(["tune", str(configuration(tmp_path, manifest)), *line]) == 2
    assert "holds out no sequence" in capsys.readouterr().err


def pruned_tracker(path, width=0.125):
    """Weights of a tracker whose backbone has lost channels."""
    torch.manual_seed(1)
    network = SiamRPN(NetworkConfig.resnet50(width))
    layers = pruning.mask_layers(network.config)
    keep = {name: np.arange(count) % 2 == 0 for name, count in layers.items()}
    small = pruning.cut_network(network, keep)
    save_weights(path, small.state_dict())
    return small


def test_a_tracker_is_trained_on_a_pruned_backbone_that_stays_as_it_is(tmp_path, manifest):
    small = pruned_tracker(tmp_path / "small.pth")
    phases = [{"pairs": 8, "search_size": 191, "lr": [1e-3, 1e-3], "backbone_lr": 0.0}]
    path = configuration(tmp_path, manifest, phases=phases, average=0)
    config = load_config(path, {"backbone": str(tmp_path / "small.pth")})
    weights = train(config, tmp_path / "out")
    assert load_network(weights).config == small.config
    before, after = read_state(tmp_path / "small.pth"), read_state(weights)
    assert {value.dtype for value in after.values()} == {torch.float16, torch.int64}
    kept = {key for key, value in before.items() if torch.equal(value, after[key])}
    backbone = {key for key in before if key.startswith("backbone.")}
    assert backbone <= kept and kept < before.keys()


@pytest.mark.parametrize("start", ["backbone", "initial"])
def test_weights_of_another_width_are_refused(tmp_path, manifest, start):
    pruned_tracker(tmp_path / "wide.pth", width=0.25)
    config = load_config(configuration(tmp_path, manifest), {start: str(tmp_path / "wide.pth")})
    with pytest.raises(InputError, match=r"another width \(16 channels in its stem, 8 at 0\.125"):
        train(config, tmp_path / "out")


def test_a_tracker_learns_from_a_larger_one(tmp_path, manifest):
    torch.manual_seed(0)
    save_weights(tmp_path / "teacher.pth", SiamRPN(NetworkConfig.resnet50(0.125)).state_dict())
    pruned_tracker(tmp_path / "small.pth")
    phase = {"pairs": 160, "search_size": 135, "lr": [2e-3, 2e-3], "tracking": 0.0, "distill": 1.0}
    changes = {"phases": [phase], "teacher": str(tmp_path / "teacher.pth"), "log_every": 16}
    path = configuration(tmp_path, manifest, **changes)
    config = load_config(path, {"initial": str(tmp_path / "small.pth")})
    train(config, tmp_path / "out")
    with (tmp_path / "out" / "log.csv").open() as stream:
        losses = [float(row["distill"]) for row in csv.DictReader(stream)]
    assert losses[-1] < 0.6 * losses[0]
