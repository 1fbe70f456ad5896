"""Classification training: generated pictures, folders, resuming."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Optional

import cv2
import numpy as np
import pytest
import torch

from lib.errors import InputError
from lib.siamrpn.checkpoint import read_state, save_weights
from lib.siamrpn.network import NetworkConfig, SiamRPN
from lib.training import classify
from lib.training.classify import Classifier, ClassifierTraining, ClassifyConfig
from lib.training.loop import fit
from lib.training.pictures import CLASSES, Folders, Generated, draw

pytestmark = pytest.mark.usefixtures("one_thread")
ROOT = Path(__file__).resolve().parents[2]
TINY = NetworkConfig.resnet50(1 / 8)
SHORT = ClassifyConfig(
    size=63,
    pictures=48,
    batch_size=8,
    lr=0.05,
    warmup=8,
    precision="fp32",
    workers=0,
    validation=16,
    evaluate_every=16,
    save_every=16,
    seed=3,
)


def fresh() -> Classifier:
    torch.manual_seed(0)
    return Classifier(TINY, len(CLASSES))


def train_classifier(
    classifier: Classifier, config: ClassifyConfig, out: Path, stop_after: Optional[int] = None
) -> Path:
    return fit(ClassifierTraining(classifier, config, torch.device("cpu")), out, stop_after)


def weights(path: Path) -> dict[str, torch.Tensor]:
    return torch.load(path.parent / "checkpoint.pt", weights_only=True)["network"]


def largest_difference(one: Path, other: Path) -> float:
    a, b = weights(one), weights(other)
    return max(float((a[key].double() - b[key].double()).abs().max()) for key in a)


def test_a_picture_is_a_function_of_seed_and_index():
    one, again, other = Generated(63, 1), Generated(63, 1), Generated(63, 1, validation=True)
    assert (one[5][0] == again[5][0]).all() and one[5][1] == again[5][1]
    assert (one[5][0] != other[5][0]).any() and (one[5][0] != one[6][0]).any()
    assert one[5][0].shape == (3, 63, 63) and one[5][0].dtype == np.float32
    assert 0 <= one[5][0].min() <= one[5][0].max() <= 255
    assert {one[index][1] for index in range(800)} == set(range(64))


def test_colour_alone_does_not_tell_the_class():
    def colours(label: int, seed: int) -> np.ndarray:
        randoms = [np.random.RandomState([seed, k]) for k in range(24)]
        return np.array([draw(label, 63, random).mean((0, 1)) for random in randoms])

    means, spread = [colours(label, label).mean(0) for label in (0, 27, 63)], colours(0, 9).std(0)
    assert np.ptp(means, 0).max() < 2 * spread.max()


def test_a_cut_and_resumed_run_equals_one_that_was_not(tmp_path):
    whole = train_classifier(fresh(), SHORT, tmp_path / "whole")
    train_classifier(fresh(), SHORT, tmp_path / "cut", stop_after=21)
    cut = train_classifier(fresh(), SHORT, tmp_path / "cut")
    assert largest_difference(whole, cut) == 0
    assert (tmp_path / "whole/log.csv").read_text() == (tmp_path / "cut/log.csv").read_text()
    assert (tmp_path / "whole/log.csv").read_text().splitlines()[-1].startswith("48,")
    half = train_classifier(fresh(), SHORT, tmp_path / "half", stop_after=24)
    assert largest_difference(whole, half) > 0  # the comparison can fail


def test_a_frozen_backbone_stays_as_it_is(tmp_path):
    classifier = fresh()
    before = {key: value.clone() for key, value in classifier.state_dict().items()}
    train_classifier(classifier, replace(SHORT, head_only=True), tmp_path)
    after = weights(tmp_path / "weights.pth")
    changed = {key for key, value in before.items() if not torch.equal(value, after[key])}
    assert changed == {"fc.weight", "fc.bias"}


def folders(path: Path, classes: int = 3, pictures: int = 4) -> Path:
    random = np.random.RandomState(0)
    for part in ("train", "val"):
        for label in range(classes):
            (path / part / f"n{label}").mkdir(parents=True)
            for index in range(pictures):
                picture = random.randint(0, 256, (90, 120, 3)).astype(np.uint8)
                cv2.imwrite(str(path / part / f"n{label}/{index}.jpg"), picture)
    return path


def test_folders_are_walked_in_every_epochs_own_order(tmp_path):
    pictures = Folders(folders(tmp_path), 64, 0)
    epochs = [[pictures[epoch * 12 + place][1] for place in range(12)] for epoch in (0, 1)]
    assert sorted(epochs[0]) == sorted(epochs[1]) == sorted([0, 1, 2] * 4)
    assert epochs[0] != epochs[1]
    assert pictures[3][0].shape == (3, 64, 64)
    assert len(Folders(tmp_path, 64, 0, validation=True)) == 12


@pytest.mark.parametrize("fault", ["classes", "empty", "missing"])
def test_folders_that_do_not_fit_are_refused(tmp_path, fault):
    path = folders(tmp_path / "data") if fault != "missing" else tmp_path
    if fault == "classes":
        (path / "val/n2").rename(path / "val/other")
    if fault == "empty":
        for file in (path / "train/n1").iterdir():
            file.unlink()
    with pytest.raises(InputError, match="of the same classes"):
        Folders(path, 64, 0)


def test_pictures_of_other_classes_than_the_networks_are_refused(tmp_path):
    config = replace(SHORT, data=str(folders(tmp_path / "data")))
    with pytest.raises(InputError, match="3 classes of pictures, 64 of the network"):
        train_classifier(fresh(), config, tmp_path / "out")


def test_checkpoints_of_another_width_or_training_are_refused(tmp_path):
    train_classifier(fresh(), SHORT, tmp_path, stop_after=8)
    with pytest.raises(InputError, match="trained with another lr"):
        train_classifier(fresh(), replace(SHORT, lr=1.0), tmp_path)
    with pytest.raises(InputError, match="of a network of other widths"):
        train_classifier(Classifier(NetworkConfig.resnet50(3 / 16), 64), SHORT, tmp_path)


def test_a_tracker_gets_a_new_layer_and_a_classifier_keeps_its_own(tmp_path):
    torch.manual_seed(0)
    save_weights(tmp_path / "tracker.pth", SiamRPN(TINY).state_dict())
    classifier = classify.load_classifier(tmp_path / "tracker.pth", 7)
    assert classifier.classes == 7 and classifier.config.stages == TINY.stages
    with pytest.raises(InputError, match="no classification layer"):
        classify.load_classifier(tmp_path / "tracker.pth")
    save_weights(tmp_path / "classifier.pth", classifier.state_dict())
    assert classify.load_classifier(tmp_path / "classifier.pth").classes == 7
    with pytest.raises(InputError, match="64 classes of pictures, 7 of the network"):
        train_classifier(classify.load_classifier(tmp_path / "classifier.pth", 64), SHORT, tmp_path)
    assert "fc.weight" in read_state(tmp_path / "classifier.pth")


@pytest.mark.parametrize(
    "done, expected", [(0, 0.1 * 64 / 704), (640, 0.1), (640 + 4680, 0.05), (10000, 0.0)]
)
def test_the_rate_warms_up_and_falls_along_a_cosine(done, expected):
    config = ClassifyConfig(pictures=10000, warmup=640, batch_size=64, lr=0.1)
    assert classify.rate(config, done) == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize(
    "name",
    [
        "data/recipes/imagenet_head.yaml",
        "data/recipes/imagenet_finetune.yaml",
        "data/demo/pruning/head.yaml",
        "data/demo/pruning/finetune.yaml",
    ],
)
def test_configurations_of_the_project_are_readable(name):
    assert classify.load_classify_config(ROOT / name).pictures > 1000
