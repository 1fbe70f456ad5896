"""Weights load in all of PySOT's wrappings, at any width, and anything else is refused with its
reason."""

from __future__ import annotations

import pickle

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from lib.errors import InputError  # noqa: E402
from lib.siamrpn.checkpoint import load_network, load_state, read_backbone, save_weights  # noqa: E402
from lib.siamrpn.network import NetworkConfig, SiamRPN, StageConfig  # noqa: E402


@pytest.fixture(scope="module")
def small():
    torch.manual_seed(0)
    return SiamRPN(NetworkConfig.resnet50(0.125)).eval()


newer = pytest.mark.skipif(
    not hasattr(torch.serialization, "safe_globals"),
    reason="NumPy's numbers in a checkpoint need PyTorch 2.5 or newer",
)


@pytest.mark.parametrize(
    "wrap",
    [
        lambda state: state,
        lambda state: {"state_dict": state, "epoch": 20},
        pytest.param(
            lambda state: {"model": state, "lr": np.float64(0.005), "epochs": np.int64(20)},
            marks=newer,
        ),
        lambda state: {"net": {"model_state_dict": state}},
        lambda state: {f"module.{key}": value for key, value in state.items()},
        lambda state: {"state_dict": {f"module.{key}": value for key, value in state.items()}},
        lambda state: {
            key: value for key, value in state.items() if not key.endswith("num_batches_tracked")
        },
    ],
    ids=["plain", "state_dict", "NumPy", "net", "module.", "both", "without counters"],
)
def test_every_wrapping_of_pysot_loads(tmp_path, small, wrap):
    torch.save(wrap(small.state_dict()), str(tmp_path / "w.pth"))
    loaded = load_network(tmp_path / "w.pth")
    assert loaded.config == small.config
    assert all(
        torch.equal(a, b) for a, b in zip(loaded.state_dict().values(), small.state_dict().values())
    )


def test_half_precision_weights_track_as_the_full_ones(tmp_path, small):
    save_weights(tmp_path / "w.pth", small.state_dict())
    assert (tmp_path / "w.pth").stat().st_size < 0.6 * sum(
        v.numel() * 4 for v in small.state_dict().values()
    )
    exemplar, search = torch.rand(1, 3, 127, 127) * 255, torch.rand(1, 3, 255, 255) * 255
    with torch.inference_mode():
        for ours, theirs in zip(
            load_network(tmp_path / "w.pth")(exemplar, search), small(exemplar, search)
        ):
            assert (ours - theirs).abs().max() < 0.02 * (theirs.max() - theirs.min())


def test_channels_are_read_off_a_network_pruned_unevenly(tmp_path):
    stages = tuple(
        StageConfig(channels, tuple((8 + n, 9 + n) for n in range(depth)))
        for depth, channels in ((3, 24), (4, 40), (6, 56), (3, 72))
    )
    config = NetworkConfig(stem=12, stages=stages, rpn=16)
    torch.save(SiamRPN(config).state_dict(), str(tmp_path / "w.pth"))
    network = load_network(tmp_path / "w.pth")
    assert network.config == config
    with torch.inference_mode():
        assert network(torch.rand(1, 3, 127, 127), torch.rand(1, 3, 255, 255))[1].shape == (
            1,
            20,
            25,
            25,
        )


class Hostile:
    """Unpickled, it would make a file in the working folder."""

    def __reduce__(self):
        import os

        return os.mkdir, ("siambook-hostile",)


@pytest.mark.parametrize(
    "content, words",
    [
        (b"", "not a readable PyTorch checkpoint"),
        (b"PK\x03\x04 cut off", "not a readable PyTorch checkpoint"),
        (pickle.dumps(Hostile()), "could run code"),
        ("tensor", "not a state dict"),
        ({"state_dict": {}}, "not a state dict"),
        ({"weights": torch.zeros(3)}, "not the weights of a SiamRPN++"),
    ],
    ids=["empty", "truncated", "hostile", "tensor", "nothing", "another network"],
)
def test_wrong_files_are_refused_in_one_sentence(tmp_path, content, words, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "w.pth"
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        torch.save(torch.zeros(2) if content == "tensor" else content, str(path))
    with pytest.raises(InputError) as fault:
        load_network(path)
    assert (
        str(path) in str(fault.value) and words in str(fault.value) and "\n" not in str(fault.value)
    )
    assert [file.name for file in tmp_path.iterdir()] == ["w.pth"]


def test_a_hostile_pickle_inside_a_torch_file_runs_nothing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save({"state_dict": {"a": Hostile()}}, str(tmp_path / "w.pth"))
    with pytest.raises(InputError, match="could run code"):
        load_network(tmp_path / "w.pth")
    assert not (tmp_path / "siambook-hostile").exists()


def test_values_too_large_for_half_precision_stay_whole_and_nan_is_refused(tmp_path, small):
    state = {key: value.clone() for key, value in small.state_dict().items()}
    state["backbone.bn1.running_var"][0] = 1e5
    save_weights(tmp_path / "w.pth", state)
    assert load_network(tmp_path / "w.pth").state_dict()["backbone.bn1.running_var"][0] == 1e5
    state["backbone.bn1.running_var"][0] = float("nan")
    save_weights(tmp_path / "w.pth", state)
    with pytest.raises(
        InputError, match=r"1 with NaN, infinity or .* \(backbone\.bn1\.running_var"
    ):
        load_network(tmp_path / "w.pth")


@pytest.mark.parametrize("kind", [torch.complex64, torch.int64, "huge", "meta", "sparse"])
def test_weights_that_are_no_real_numbers_are_refused(small, kind):
    state = dict(small.state_dict())
    key = "neck.downsample2.downsample.0.weight"
    value = state[key]
    others = {"huge": value + 1e30, "meta": value.to("meta"), "sparse": value.to_sparse()}
    state[key] = others[kind] if isinstance(kind, str) else value.to(kind)
    with pytest.raises(InputError, match=rf"w\.pth: .*1 with .*\({key}\)"):
        load_state(small, state, "w.pth")


def test_a_checkpoint_that_contains_itself_is_refused(tmp_path):
    content = {}
    content["state_dict"] = content
    torch.save(content, tmp_path / "w.pth")
    with pytest.raises(InputError, match="not a state dict"):
        load_network(tmp_path / "w.pth")


@newer
def test_a_training_checkpoint_of_pysot_is_the_network_it_was_made_of(shared):
    path = shared / "cases" / "checkpoint-numpy-lr" / "checkpoint_e1.pth"
    if not path.is_file():
        pytest.skip(f"{path} does not exist")
    from lib.files import ROOT

    ours, theirs = load_network(path), load_network(ROOT / "data" / "demo" / "distilled_26.pth")
    for key, value in theirs.state_dict().items():
        assert torch.equal(ours.state_dict()[key], value)


def test_a_network_with_other_anchors_is_refused(tmp_path):
    from dataclasses import replace

    save_weights(
        tmp_path / "w.pth", SiamRPN(replace(NetworkConfig.resnet50(0.125), anchors=3)).state_dict()
    )
    with pytest.raises(InputError, match="3 anchors"):
        load_network(tmp_path / "w.pth")


def test_missing_unexpected_and_misshapen_keys_are_named(small):
    state = dict(small.state_dict())
    del state["backbone.conv1.weight"]
    state["extra.weight"] = torch.zeros(1)
    state["neck.downsample2.downsample.1.bias"] = torch.zeros(7)
    with pytest.raises(InputError) as fault:
        load_state(small, state, "w.pth")
    for words in (
        "1 missing (backbone.conv1.weight)",
        "1 unexpected (extra.weight)",
        "1 of another shape (neck.downsample2.downsample.1.bias (7,) for (32,))",
    ):
        assert words in str(fault.value)


def test_weights_are_written_whole_or_not_at_all(tmp_path, small):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(InputError, match="cannot be written"):
        save_weights(tmp_path / "file" / "w.pth", small.state_dict())
    assert (tmp_path / "file").read_text() == "in the way"


def test_a_backbone_alone_loads_with_and_without_its_prefix(tmp_path, small):
    backbone, path = small.backbone.state_dict(), tmp_path / "resnet50.model"
    for state in ({**backbone, "fc.weight": torch.zeros(3, 3)}, dict(small.state_dict())):
        torch.save(state, str(path))
        read = read_backbone(path)
        assert all(torch.equal(read[key], backbone[key]) for key in {**backbone, **read})
    with pytest.raises(InputError, match="of another shape"):
        load_state(SiamRPN(NetworkConfig.resnet50(0.25)).backbone, read_backbone(path), path)


def test_weights_that_were_halved_with_their_counters_are_read(small, tmp_path):
    state = {key: value.half() for key, value in small.state_dict().items()}
    torch.save(state, tmp_path / "w.pth")
    network = load_network(tmp_path / "w.pth")
    key = "backbone.conv1.weight"
    assert torch.equal(network.state_dict()[key], small.state_dict()[key].half().float())


@pytest.mark.parametrize(
    "content, kind",
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n", "Git LFS"),
        (b"\n<!DOCTYPE html><html>404</html>", "HTML"),
        (b"\x1f\x8b\x08\x00abc", "gzip"),
    ],
)
def test_other_files_under_the_name_of_weights_are_named(tmp_path, content, kind):
    (tmp_path / "w.pth").write_bytes(content)
    with pytest.raises(InputError, match=kind):
        load_network(tmp_path / "w.pth")
