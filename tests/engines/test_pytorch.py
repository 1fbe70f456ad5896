"""PyTorch's engines: the network's own numbers, the precision that really runs, and one sentence
for what PyTorch cannot do."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from lib.engines.deploy import Deployment  # noqa: E402
from lib.engines.export import random_feeds  # noqa: E402
from lib.engines.pytorch import TorchEngine, torch_network, usable_device, version  # noqa: E402
from lib.errors import InputError  # noqa: E402
from lib.siamrpn.contract import LAYER_TYPES, by_type  # noqa: E402
from lib.siamrpn.parts import INPUTS, KERNELS, NETWORKS, OUTPUTS, three_networks  # noqa: E402

from .helpers import CHANNELS, crops, of_the_range  # noqa: E402

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def engines(network):
    """name, precision -> engine."""
    return {
        (name, precision): TorchEngine(
            three_networks(network)[name], name, CHANNELS, "cpu", precision
        )
        for name in NETWORKS
        for precision in ("fp32", "fp16")
    }


def test_fp32_engines_compute_what_the_network_computes(network):
    exemplar, search = crops(1)
    engine_network = torch_network(network)
    cls, loc = engine_network.track(engine_network.template(exemplar), search)
    with torch.inference_mode():
        expected = network(torch.from_numpy(exemplar), torch.from_numpy(search))
    for own, theirs in zip((cls, loc), expected):
        assert own.dtype == np.float32
        assert of_the_range(own, theirs.numpy()) <= 1e-5


def test_sixteen_bits_are_near_fp32_and_leave_the_fp32_weights_alone(network, engines):
    before = {name: value.clone() for name, value in network.state_dict().items()}
    exemplar, search = crops(2)
    half = Deployment(network, "pytorch").network(dict.fromkeys(NETWORKS, "fp16"))
    exact = torch_network(network)
    (cls, loc), (cls32, loc32) = (
        each.track(each.template(exemplar), search) for each in (half, exact)
    )
    for own, theirs in ((cls, cls32), (loc, loc32)):
        assert own.dtype == np.float32
        assert 0 < of_the_range(own, theirs) < 0.1
    assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())


@pytest.mark.parametrize("name, convolutions", [("target", 62), ("search", 62), ("xcorr", 18)])
def test_the_precision_told_is_that_of_the_weights_and_outputs(engines, name, convolutions):
    told = f"PyTorch {torch.__version__.split('+')[0]}"
    for precision, executed, kind in (
        ("fp32", "fp32", torch.float32),
        ("fp16", "bf16", torch.bfloat16),
    ):
        engine = engines[name, precision]
        assert engine.executed() == {executed: convolutions}
        assert {weight.dtype for weight in engine.module.parameters()} == {kind}
        answer = engine(random_feeds(name, CHANNELS))
        assert {value.dtype for value in answer.values()} == {kind}
        assert engine.precision == precision
        assert engine.framework == told == f"PyTorch {version()}"


@pytest.mark.parametrize("name", NETWORKS)
def test_inputs_and_outputs_are_named_and_shaped_as_they_run(engines, name):
    engine = engines[name, "fp32"]
    feeds = random_feeds(name, CHANNELS)
    answer = engine(feeds)
    for specs, tensors in ((engine.inputs, feeds), (engine.outputs, answer)):
        assert list(specs.items()) == [(key, value.shape) for key, value in tensors.items()]
    assert tuple(answer) == OUTPUTS[name] and tuple(engine.inputs) == INPUTS[name]
    assert (engine.refits, engine.plan_bytes, engine.device) == (False, 0, "CPU")


def test_kernels_of_one_target_stay_valid_after_another_is_taken(network):
    engine_network = torch_network(network)
    first = engine_network.template(crops(1)[0])
    kept = {name: kernel.clone() for name, kernel in first.items()}
    before = engine_network.track(first, crops(1)[1])
    second = engine_network.template(crops(2)[0])
    assert not torch.equal(first["kernel_cls2"], second["kernel_cls2"])
    assert all(torch.equal(first[name], kept[name]) for name in KERNELS)
    after = engine_network.track(first, crops(1)[1])
    assert all(np.array_equal(one, other) for one, other in zip(before, after))


def test_what_eager_mode_cannot_do_is_refused(engines):
    with pytest.raises(InputError, match="takes 'map_cls3' of shape"):
        engines["xcorr", "fp32"]({**random_feeds("xcorr", CHANNELS), "map_cls3": np.zeros(3)})
    with pytest.raises(InputError, match="cannot be refitted"):
        engines["xcorr", "fp32"].refit({})


def test_a_device_that_is_not_here_is_named():
    for name in ("nonsense", *(() if torch.cuda.is_available() else ("cuda",))):
        with pytest.raises(InputError, match=f"device '{name}' cannot be used here") as refusal:
            usable_device(name)
        assert "\n" not in str(refusal.value)
    assert usable_device("cpu") == torch.device("cpu")


def test_the_name_tells_the_precisions_that_are_mixed(network):
    precisions = {"target": "fp32", "search": "fp16", "xcorr": "fp32"}
    mixed = Deployment(network, "pytorch").network(precisions)
    assert mixed.name == f"PyTorch {version()} FP32/FP16/FP32 (CPU)"
    assert mixed.search.executed() == {"bf16": 62} and mixed.xcorr.executed() == {"fp32": 18}
    exact = torch_network(network)
    exemplar, search = crops(3)
    (cls, _), (cls32, _) = (each.track(each.template(exemplar), search) for each in (mixed, exact))
    assert 0 < of_the_range(cls, cls32) < 0.1


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
@pytest.mark.parametrize("name", NETWORKS)
def test_layers_have_the_types_of_every_framework_and_are_a_part_of_what_was_recorded(
    engines, monkeypatch, name, precision
):
    engine, recorded = engines[name, precision], []

    class Kept(torch.profiler.profile):
        def __init__(self, **options):
            super().__init__(**options)
            recorded.append(self)

    monkeypatch.setattr(torch.profiler, "profile", Kept)
    layers = engine.profile(random_feeds(name, CHANNELS), calls=4)
    times = by_type(layers)
    assert {layer.type for layer in layers} <= set(LAYER_TYPES)
    assert {layer.precision for layer in layers} == set(engine.executed())
    assert (times["correlation"] > 0) == (name == "xcorr")
    assert times["convolution"] > 0
    assert (times["pooling"] > 0) == (name != "xcorr")
    [record] = recorded
    # Of a call, each operator without its own
    whole = 1e-6 * sum(event.self_cpu_time_total for event in record.events()) / 4
    assert 0.01 * whole < sum(times.values()) <= 1.0001 * whole, (
        "in seconds a call; what a layer does inside counts once"
    )
