"""The network, crops, anchors and tracker are PySOT's: compared with numbers made by running it
(see ../shared/pysot_parity)."""

from __future__ import annotations

import hashlib
import json
import sys

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from lib.engines.pytorch import torch_network  # noqa: E402
from lib.siamrpn.anchors import anchor_grid  # noqa: E402
from lib.siamrpn.crop import subwindow  # noqa: E402
from lib.siamrpn.network import NetworkConfig, SiamRPN, parameter_count  # noqa: E402
from lib.siamrpn.tracker import SiamRPNTracker  # noqa: E402


@pytest.fixture(scope="module")
def parity(shared):
    """The fixture folder, its helper modules importable."""
    folder = shared / "pysot_parity"
    sys.path.insert(0, str(folder))
    yield folder
    sys.path.remove(str(folder))


@pytest.fixture(scope="module")
def network(parity):
    """The full network with the fixtures' weights."""
    import rules

    entries = json.loads((parity / "state_dict.json").read_text())["entries"]
    net = SiamRPN(NetworkConfig.resnet50())
    net.load_state_dict(
        {name: torch.from_numpy(rules.weight(name, shape)) for name, shape, _ in entries}
    )
    return net.eval()


@pytest.fixture(scope="module")
def video(parity):
    import synth_video

    return synth_video.frames()[0]


def relative_difference(ours, theirs):
    return np.abs(ours - theirs).max() / (theirs.max() - theirs.min())


def test_state_dict_has_pysots_keys_shapes_and_types(parity, network):
    reference = json.loads((parity / "state_dict.json").read_text())
    ours = [
        [name, list(value.shape), str(value.dtype).replace("torch.", "")]
        for name, value in network.state_dict().items()
    ]
    assert sorted(ours) == sorted(reference["entries"])
    counts = {
        part: parameter_count(getattr(network, part)) for part in ("backbone", "neck", "rpn_head")
    }
    assert {**counts, "total": parameter_count(network)} == reference["parameters"]


def test_full_backbone_has_the_thesis_parameter_count(network):
    assert parameter_count(network.backbone) == 45_528_128


def test_forward_pass_equals_pysots(parity, network):
    import rules

    reference = np.load(parity / "forward.npz")
    with torch.inference_mode():
        cls, loc = network(*map(torch.from_numpy, rules.inputs()))
    assert relative_difference(cls.numpy(), reference["cls"]) < 1e-4
    assert relative_difference(loc.numpy(), reference["loc"]) < 1e-4


def test_every_level_of_backbone_and_neck_equals_pysots(parity, network):
    import rules

    reference = np.load(parity / "forward.npz")
    with torch.inference_mode():
        for letter, crop in zip("zx", rules.inputs()):
            features = network.backbone(torch.from_numpy(crop))
            for part, maps in (
                ("backbone", features),
                ("neck", network.neck(features, crop=letter == "z")),
            ):
                for level, tensor in zip((2, 3, 4), maps):
                    key = f"{part}_{letter}_l{level}"
                    assert list(tensor.shape) == reference[f"{key}_shape"].tolist()
                    values = tensor.numpy().ravel()[reference[f"{key}_idx256"]]
                    assert (
                        np.abs(values - reference[f"{key}_at256"]).max()
                        < 1e-4 * np.abs(values).max()
                    ), key


def test_anchors_equal_pysots(parity):
    reference = np.load(parity / "anchors.npz")
    assert np.array_equal(anchor_grid(25).reshape(-1, 4), reference["anchors"])


@pytest.mark.parametrize("case", range(8))
def test_crops_equal_pysots_also_over_every_border(parity, video, case):
    reference = np.load(parity / "tracker.npz")
    crop = subwindow(
        video[0],
        reference[f"sub_{case}_pos"],
        int(reference[f"sub_{case}_original_sz"]),
        int(reference[f"sub_{case}_model_sz"]),
        reference["channel_average"],
    )
    assert np.array_equal(crop.transpose(2, 0, 1), reference[f"sub_{case}_out"])


class StubNetwork:
    """Answers with the fixture's random numbers, whatever the crop."""

    name = "stub"

    def __init__(self, seed, scale):
        self.random, self.scale, self.crops = np.random.RandomState(seed), scale, []

    def template(self, exemplar):
        self.crops.append(exemplar)
        return "kernels"

    def track(self, kernels, search):
        self.crops.append(search)
        cls = (1.5 * self.random.standard_normal((1, 10, 25, 25))).astype("f4")
        return cls, (self.scale * self.random.standard_normal((1, 20, 25, 25))).astype("f4")


def follow(tracker, video, box):
    tracker.init(video[0], box)
    return [tracker.track(frame) for frame in video[1:]]


@pytest.mark.parametrize(
    "name, seed, scale, init", [("stub", 4321, 0.15, "init"), ("stub2", 8765, 0.9, "stub2_init")]
)
def test_tracker_moves_as_pysots_does_also_at_the_clip_limits(
    parity, video, name, seed, scale, init
):
    reference = np.load(parity / "tracker.npz")
    network = StubNetwork(seed, scale)
    results = follow(SiamRPNTracker(network), video, reference[init])
    assert np.abs(np.stack([r.box for r in results]) - reference[f"{name}_bbox"]).max() < 0.01
    assert [r.anchor for r in results] == reference[f"{name}_best_idx"].tolist()
    assert np.allclose(
        [r.penalised_score for r in results], reference[f"{name}_best_pscore"], atol=1e-5
    )
    if name == "stub":
        sums = [int(crop.sum(dtype=np.float64)) for crop in network.crops]
        assert sums == reference["stub_crop_sum"].tolist()


def test_tracker_with_the_full_network_gives_pysots_boxes(parity, video, network):
    reference = np.load(parity / "tracker.npz")
    frames = len(video) // 4  # each begins with what the one before answered
    results = follow(SiamRPNTracker(torch_network(network)), video[: frames + 1], reference["init"])
    assert np.abs(np.stack([r.box for r in results]) - reference["net_bbox"][:frames]).max() < 0.01
    assert np.allclose([r.score for r in results], reference["net_best_score"][:frames], atol=1e-4)


def test_search_crop_of_the_first_frame_is_pysots_byte_for_byte(parity, video):
    reference = np.load(parity / "tracker.npz")
    network = StubNetwork(0, 0.1)
    tracker = SiamRPNTracker(network)
    tracker.init(video[0], reference["init"])
    crop, _ = tracker.search_crop(video[1])
    assert hashlib.sha256(crop.tobytes()).hexdigest() == str(reference["net_crop_sha256"][1])
