"""Precision by layer: groups of nodes, INT8 and FP16 in one group alone."""

from __future__ import annotations

from typing import Any, Dict

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

from torch.nn import functional  # noqa: E402

from lib.engines.calibration import training_ranges  # noqa: E402
from lib.engines.deploy import Deployment, Quantisation  # noqa: E402
from lib.engines.export import export_network, random_feeds  # noqa: E402
from lib.engines.layers import COMPUTE, OnnxEngine, fp16_in  # noqa: E402
from lib.engines.quantize import GROUPS, group, observer  # noqa: E402
from lib.engines.zoo import DEMO_WEIGHTS  # noqa: E402
from lib.errors import InputError  # noqa: E402
from lib.siamrpn.checkpoint import load_network  # noqa: E402
from lib.siamrpn.network import fold_batch_norm  # noqa: E402
from lib.siamrpn.parts import NETWORKS, three_networks  # noqa: E402

from .helpers import of_the_range  # noqa: E402


@pytest.fixture(scope="module")
def deployment() -> Deployment:
    network = load_network(DEMO_WEIGHTS)
    return Deployment(network, "openvino", ranges=lambda _: training_ranges(DEMO_WEIGHTS))


@pytest.fixture(scope="module")
def models() -> Dict[str, Any]:
    return export_network(load_network(DEMO_WEIGHTS))


def test_every_layer_that_computes_is_in_a_group(models: Dict[str, Any]) -> None:
    found = {
        name: {group(node.name) for node in models[name].graph.node if node.op_type in COMPUTE}
        for name in NETWORKS
    }
    backbone = {"stem", "stage 1", "stage 2", "stage 3", "stage 4", "neck", "branches"}
    assert found["target"] == found["search"] == backbone
    assert found["xcorr"] == {"correlation", "heads", "sum"} == set(GROUPS) - backbone


@pytest.mark.parametrize("kept", [(), ("stem", "stage 3"), tuple(GROUPS)])
def test_int8_leaves_out_the_groups_that_are_kept(
    deployment: Deployment, kept: tuple[str, ...]
) -> None:
    for name in NETWORKS:
        model = deployment.model(name, "int8", Quantisation(recipe="everything", kept=kept))
        integers = {
            group(node.name)
            for node in model.graph.node
            if any(tensor.endswith("_dq") for tensor in node.input)
        }
        every = {group(node.name) for node in model.graph.node if node.op_type in COMPUTE}
        assert integers == every - set(kept)


def test_an_unknown_group_is_refused() -> None:
    with pytest.raises(InputError, match=r"unknown 'stage 5'.*stage 4"):
        Quantisation(kept=("stage 5",))


def test_fp16_rounds_what_a_group_reads_and_puts_out(models: Dict[str, Any]) -> None:
    """Against PyTorch, which rounds the same tensors by its own `half`."""
    network = load_network(DEMO_WEIGHTS)
    stem = fold_batch_norm(three_networks(network)["search"]).backbone.conv1
    feeds = random_feeds("search", network.config.rpn)
    model = fp16_in(models["search"], ["stem"])
    output = next(
        node.output[0].replace("_exact", "")
        for node in model.graph.node
        if node.name == "/backbone/conv1/Conv"
    )
    crop, weight, bias = (
        tensor.half().float()
        for tensor in (torch.from_numpy(feeds["search"]), stem.weight, stem.bias)
    )
    with torch.no_grad():
        rounded = functional.conv2d(crop, weight, bias, stem.stride, stem.padding).half().float()
        exact = stem(torch.from_numpy(feeds["search"])).numpy()
    found = observer(model, [output])(feeds)[output]
    # Sums in another order may lie on the other side of a step of FP16
    step = np.spacing(np.abs(found).astype(np.float16)).astype(np.float32)
    assert (np.abs(found - rounded.numpy()) <= step + 1e-4).all()
    assert (found == rounded.numpy()).mean() > 0.99 > (found == exact).mean()


@pytest.mark.parametrize("name", NETWORKS)
def test_no_group_in_fp16_is_the_network_itself(models: Dict[str, Any], name: str) -> None:
    feeds = random_feeds(name, load_network(DEMO_WEIGHTS).config.rpn)
    plain, none, all_of_it = (
        OnnxEngine(model, name)(feeds)
        for model in (models[name], fp16_in(models[name], []), fp16_in(models[name], GROUPS))
    )
    for tensor, value in plain.items():
        assert (none[tensor] == value).all()
        assert 1e-5 < of_the_range(all_of_it[tensor], value) < 1e-2
