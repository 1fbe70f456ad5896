"""PyTorch as an engine: named tensors in and out, precisions as they run, and the three networks' weights left alone."""
from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from lib.engines.base import LAYER_TYPES, describe_executed  # noqa: E402
from lib.engines.pytorch import TorchEngine, load, torch_network, usable_device  # noqa: E402
from lib.errors import InputError  # noqa: E402
from lib.export import random_feeds  # noqa: E402
from lib.siamrpn.checkpoint import save_weights  # noqa: E402
from lib.siamrpn.network import NetworkConfig, SiamRPN  # noqa: E402
from lib.siamrpn.parts import INPUTS, NETWORKS, OUTPUTS, three_networks  # noqa: E402


@pytest.fixture(scope="module")
def network():
    with torch.random.fork_rng():
        torch.manual_seed(1)
        return SiamRPN(NetworkConfig.resnet50(0.125)).eval()


def engine(network, name, precision="fp32"):
    return TorchEngine(three_networks(network)[name], name, network.config.rpn, "cpu", precision)


@pytest.mark.parametrize("name", NETWORKS)
def test_answers_have_the_names_shapes_and_numbers_of_onnx_runtime(network, name):
    pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    from lib.export import export_network, run_onnx
    feeds, own = random_feeds(name, 32), engine(network, name)
    answers = {tensor: own.numpy(value) for tensor, value in own(feeds).items()}
    assert (tuple(own.inputs), tuple(answers)) == (INPUTS[name], OUTPUTS[name])
    for tensor, theirs in zip(OUTPUTS[name], run_onnx(export_network(network, [name])[name], feeds)):
        assert own.outputs[tensor].shape == theirs.shape
        assert np.abs(answers[tensor] - theirs).max() < 1e-4 * np.ptp(theirs)


def test_the_three_networks_are_the_whole_network(network):
    exemplar, search = random_feeds("target", 32)["exemplar"], random_feeds("search", 32)["search"]
    three = torch_network(network)
    own = three.track(three.template(exemplar), search)
    with torch.inference_mode():
        whole = network(torch.from_numpy(exemplar), torch.from_numpy(search))
    assert all(np.abs(mine - theirs.numpy()).max() < 1e-4 * np.ptp(theirs.numpy()) for mine, theirs in zip(own, whole))


def test_tensors_are_bound_by_name_whatever_their_order(network):
    feeds, own = random_feeds("xcorr", 32), engine(network, "xcorr")
    assert torch.equal(own(dict(reversed(list(feeds.items()))))["cls"], own(feeds)["cls"])


@pytest.mark.parametrize("precision, executed", [("fp32", "FP32"), ("fp16", "BF16")])
def test_the_precision_told_is_the_one_of_the_tensors(network, precision, executed):
    for name, convolutions in (("target", 62), ("search", 62), ("xcorr", 18)):
        own = engine(network, name, precision)
        assert describe_executed(own.executed()) == f"{convolutions} {executed}"
        answer = next(iter(own(random_feeds(name, 32)).values()))
        assert answer.dtype == {"FP32": torch.float32, "BF16": torch.bfloat16}[executed]
        assert own.numpy(answer).dtype == np.float32


def test_16_bits_leave_the_shared_weights_in_32(network):
    feeds = random_feeds("target", 32)
    full = engine(network, "target")
    before = full(feeds)["kernel_cls2"].clone()
    half = engine(network, "target", "fp16")(feeds)["kernel_cls2"].float()
    assert {value.dtype for value in network.parameters()} == {torch.float32}
    assert torch.equal(full(feeds)["kernel_cls2"], before)
    assert 0 < (half - before).abs().max() < 0.1 * (before.max() - before.min())


def test_kernels_stay_valid_after_another_target_also_in_mixed_precision(network):
    three = torch_network(network, precisions={"target": "fp16", "search": "fp32", "xcorr": "fp32"})
    search = random_feeds("search", 32)["search"]
    kernels = three.template(random_feeds("target", 32)["exemplar"])
    before = three.track(kernels, search)
    other = three.track(three.template(random_feeds("target", 32, 8)["exemplar"] * 0.2), search)
    assert all(np.array_equal(*pair) for pair in zip(before, three.track(kernels, search)))
    assert not np.array_equal(before[0], other[0])
    assert "FP16/FP32/FP32 (CPU)" in three.name


@pytest.mark.parametrize("name", NETWORKS)
def test_only_the_xcorr_network_has_correlations_and_every_layer_has_a_type(network, name):
    layers = engine(network, name).profile(random_feeds(name, 32), 2)
    types = {layer.type for layer in layers}
    assert "convolution" in types <= set(LAYER_TYPES)
    assert ("correlation" in types) == (name == "xcorr")
    assert {layer.precision for layer in layers} == {"fp32"}
    assert all(layer.seconds >= 0 for layer in layers)


def test_a_checkpoint_is_loaded_as_three_engines(network, tmp_path):
    save_weights(tmp_path / "weights.pth", network.state_dict())
    exemplar = random_feeds("target", 32)["exemplar"]
    own, theirs = (three.template(exemplar)["kernel_loc4"] for three in (load(tmp_path / "weights.pth"), torch_network(network)))
    assert torch.equal(own, theirs)


@pytest.mark.parametrize("change, words", [
    (lambda feeds: feeds.pop("kernel_cls3"), "it lacks 'kernel_cls3'"),
    (lambda feeds: feeds.update(more=feeds["map_cls2"]), "it has no input 'more'"),
    (lambda feeds: feeds.update(kernel_cls2=feeds["kernel_cls2"][:16]), r"'kernel_cls2' of shape \(32, 1, 5, 5\), not \(16, 1, 5, 5\)"),
], ids=["missing", "unknown", "shape"])
def test_a_call_that_does_not_fit_is_refused(network, change, words):
    feeds = random_feeds("xcorr", 32)
    change(feeds)
    with pytest.raises(InputError, match=words):
        engine(network, "xcorr")(feeds)


def test_what_pytorch_cannot_do_is_a_sentence(network):
    with pytest.raises(InputError, match="PyTorch runs in FP32 or FP16 here, not in INT8: use OpenVINO or TensorRT"):
        engine(network, "xcorr", "int8")
    with pytest.raises(InputError, match="cannot be refitted"):
        engine(network, "xcorr").refit({})
    with pytest.raises(InputError, match="device 'cuda:99' cannot be used here") as refusal:
        usable_device("cuda:99")
    assert "\n" not in str(refusal.value)
