"""Targets, losses, gradients, crops, augmentation and schedule are PySOT's (numbers in
../shared/pysot_parity)."""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from lib.siamrpn.crop import training_window, window_map
from lib.training.augment import augment
from lib.training.losses import classification_loss, tracking_loss
from lib.training.targets import anchor_targets, output_size
from lib.training.tracker import learning_rate, load_config

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def reference(shared):
    return np.load(shared / "pysot_parity" / "training.npz")


@pytest.fixture(scope="module")
def frame(shared):
    """The frame that the crops are cut from."""
    sys.path.insert(0, str(shared / "pysot_parity"))
    import synth_video

    sys.path.pop(0)
    return synth_video.frame(10)


@pytest.fixture(scope="module")
def targets(reference):
    return [
        anchor_targets(box, bool(negative), np.random.RandomState(seed))
        for box, negative, seed in zip(reference["targets"], reference["neg"], reference["seeds"])
    ]


def test_response_maps_have_the_size_of_the_networks_output():
    assert [output_size(size) for size in (255, 191)] == [25, 17]


def test_labels_offsets_and_weights_equal_pysots(reference, targets):
    for number, target in enumerate(targets):
        assert np.array_equal(target["label"], reference["cls"][number])
        assert np.abs(target["delta"] - reference["delta"][number]).max() < 1e-5
        assert np.array_equal(target["weight"], reference["delta_weight"][number])


def logits():
    random = np.random.RandomState(77)
    cls = random.standard_normal((7, 10, 25, 25)).astype("f4")
    loc = (0.3 * random.standard_normal((7, 20, 25, 25))).astype("f4")
    return torch.tensor(cls, requires_grad=True), torch.tensor(loc, requires_grad=True)


def batch(targets):
    return [
        torch.from_numpy(np.stack([t[key] for t in targets]))
        for key in ("label", "delta", "weight")
    ]


def test_losses_and_gradients_equal_pysots(reference, targets):
    cls, loc = logits()
    losses = tracking_loss(cls, loc, *batch(targets))
    losses["total"].backward()
    for key in ("cls", "loc", "total"):
        assert losses[key].item() == pytest.approx(float(reference[f"loss_{key}"]), abs=1e-6)
    assert np.abs(cls.grad.numpy() - reference["grad_cls"]).max() < 1e-7
    assert np.abs(loc.grad.numpy() - reference["grad_loc"]).max() < 1e-7


def test_losses_of_single_images_equal_pysots(reference, targets):
    cls, loc = logits()
    for number, target in enumerate(targets):
        losses = tracking_loss(cls[number : number + 1], loc[number : number + 1], *batch([target]))
        ours = [losses[key].item() for key in ("cls", "loc", "total")]
        assert ours == pytest.approx(reference["loss_per_target"][number], abs=2e-5)


def test_a_single_positive_counts_for_nothing_as_in_pysot(reference):
    cls, _ = logits()
    label = torch.from_numpy(reference["single_positive_label"].astype(np.int64))[None]
    loss = classification_loss(cls[:1], label).item()
    assert loss == pytest.approx(float(reference["loss_cls_single_positive"]), abs=1e-5)


def training_crop(frame, box, side, fill):
    mapping = window_map(training_window(box, side), side)
    return cv2.warpAffine(frame, mapping, (side, side), borderValue=tuple(map(float, fill)))


def test_training_crops_equal_pysots(frame, reference):
    for number, box in enumerate(reference["crop_boxes"]):
        for side, name in ((127, "crop_map_z"), (511, "crop_map_x")):
            mapping = window_map(training_window(box, side), side)
            assert np.allclose(mapping, reference[name][number])
        exemplar = training_crop(frame, box, 127, reference["crop_padding"])
        search = training_crop(frame, box, 511, reference["crop_padding"])
        digest = hashlib.sha256(search.tobytes()).hexdigest()
        stored = [
            (reference[f"crop_z{suffix}"][number], str(reference[f"crop_x_sha256{suffix}"][number]))
            for suffix in ("", "_cv481")
        ]
        exact = [np.array_equal(exemplar, crop) and digest == sha256 for crop, sha256 in stored]
        nearest = min(np.abs(exemplar.astype(int) - crop).max() for crop, _ in stored)
        assert any(exact) or nearest <= 7, (
            f"OpenCV {cv2.__version__} rounds differently by {nearest} grey levels"
        )


def test_augmentation_equals_pysots(reference, frame):
    padding = reference["crop_padding"]
    source_crop = training_crop(frame, reference["crop_boxes"][0], 511, padding)
    for number, seed in enumerate(reference["aug_seeds"]):
        rng = np.random.RandomState(seed)
        box = reference["aug_src_box"]
        exemplar, exemplar_box = augment(source_crop, box, 127, rng, 4, 0.05)
        search, search_box = augment(source_crop, box, 255, rng, 64, 0.18, 0.2, grey=seed == 905)
        assert np.abs(exemplar_box - reference["aug_boxes"][number, 0]).max() < 1e-9
        assert np.abs(search_box - reference["aug_boxes"][number, 1]).max() < 1e-9
        nearest = min(
            max(
                np.abs(exemplar[::4, ::4] - reference[f"aug_z_every4{suffix}"][number]).max(),
                np.abs(search[::8, ::8] - reference[f"aug_x_every8{suffix}"][number]).max(),
            )
            for suffix in ("", "_cv481")
        )
        assert nearest < 1e-3 or (cv2.__version__ not in ("5.0.0", "4.8.1") and nearest <= 8)


def test_the_full_scale_recipe_is_pysots_schedule(shared):
    """5 epochs of warm-up, 15 of logarithmic fall, the backbone (at a tenth) from epoch 10."""
    groups = np.load(shared / "pysot_parity" / "lr.npz")["group_lr"]
    epoch = 600_000  # pairs
    phases = load_config(ROOT / "data" / "recipes" / "siamrpn_r50.yaml").phases
    rates, factors = [], []
    for phase in phases:
        starts = range(0, phase.pairs, epoch)
        rates += [learning_rate(phase, start) for start in starts]
        factors += [phase.backbone_lr] * len(starts)
    assert np.allclose(rates, groups[:, 1], rtol=1e-6)
    assert np.allclose(rates, groups[:, 2], rtol=1e-6)
    assert np.allclose(np.multiply(rates, factors)[10:], groups[10:, 0], rtol=1e-6)
    assert factors[:10] == [0.0] * 10  # frozen, as PySOT's backbone is before its epoch 10
