"""Latency from channel counts: products against the exported network's weights, predictions at
measured points, and channels chosen for a budget."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from lib import cli, pruning
from lib.engines.export import export_network
from lib.errors import InputError
from lib.measure import latency, pruned, speed
from lib.measure.latency import FULL, NAMES, Latency, products
from lib.siamrpn.checkpoint import load_network
from lib.siamrpn.network import NetworkConfig

pytest.importorskip("onnx")
COST = {"/layer1.": 4e-5, "/layer2.": 1e-5, "/layer3.": 4e-6, "/layer4.": 1e-6}  # ms a product


def made_up(config: NetworkConfig = FULL) -> Latency:
    """Time that rises with products, early stages dearer, as they are computed at more places."""
    shares = (0.0, 0.5, 1.0)
    counts = {
        name: [round(share * product) for share in shares]
        for name, product in products(config).items()
    }
    cost = {name: next((c for part, c in COST.items() if part in name), 1e-6) for name in counts}
    times = {name: [cost[name] * one for one in own] for name, own in counts.items()}
    return Latency(counts, times, base_ms=5.0, factor=1.2)


@pytest.mark.parametrize("share", [1.0, 0.45])
def test_products_are_those_of_the_exported_weights(share: float) -> None:
    counts = pruning.mask_layers(NetworkConfig.resnet50(1 / 4))
    config = pruning.cut_config(
        NetworkConfig.resnet50(1 / 4), {name: round(share * n) for name, n in counts.items()}
    )
    model = export_network(speed.random_network(config), ["search"])["search"]
    shapes = {weight.name: tuple(weight.dims) for weight in model.graph.initializer}
    found = {
        next((name for name in NAMES if node.name.startswith(name)), ""): int(
            np.prod(shapes[node.input[1]][:2])
        )
        for node in model.graph.node
        if node.op_type == "Conv"
    }
    assert {name: found[name] for name in products(config)} == products(config)


def test_a_prediction_at_a_measured_point_is_what_was_measured() -> None:
    model = made_up()
    whole = sum(model.layer_ms[name][-1] for name in model.products)
    assert model.predict(FULL) == pytest.approx(5.0 + 1.2 * whole)
    narrow = latency.at_width(0.3)
    assert 5.0 < model.predict(narrow) < 0.3 * model.predict(FULL)


def test_channels_are_chosen_for_a_budget_and_dear_ones_go_first() -> None:
    model, config = made_up(), pruned.demo_config()
    budget = 0.5 * model.predict(FULL)
    found = latency.fitting(config, pruned.scores(), budget, model)
    assert found.size == pytest.approx(budget, rel=0.05)
    counts = pruning.counts(found.keep)
    wide = pruning.wider(pruning.cut_config(config, counts), 4)
    assert model.predict(wide) == found.size
    assert all(4 * count % latency.VECTOR == 0 for count in counts.values())
    plain = pruning.choose(config, pruned.scores(), budget, times=4, multiple=8, size=model.predict)
    assert plain.size == pytest.approx(budget, rel=0.05)

    def score(choice: pruning.Choice) -> float:
        return sum(float(pruned.scores()[name][stays].sum()) for name, stays in choice.keep.items())

    assert score(found) > score(plain)  # in the same time


def test_a_budget_that_cannot_be_reached_says_what_can() -> None:
    with pytest.raises(InputError, match=r"5\.1 ms a frame cannot be reached"):
        latency.fitting(pruned.demo_config(), pruned.scores(), 5.1, made_up())


def test_layers_and_a_frame_are_timed_in_a_real_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("openvino")
    narrow = NetworkConfig.resnet50(1 / 8)
    layers, frame = latency._times(narrow, "openvino", "fp32")
    assert frame > 0 and all(ms >= 0 for ms in layers.values())
    assert sum(layers[name] > 0 for name in products(narrow)) > 50, "of 55"


def times(config: NetworkConfig, *_: str) -> tuple[dict[str, float], float]:
    """In place of the clock: what `made_up` says, so that no budget depends on the machine."""
    model = made_up(config)
    layers = {name: model.layer_ms[name][-1] for name in model.products}
    return layers, 5.0 + 1.2 * sum(layers.values())


def test_the_commands_predict_time_and_cut(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("openvino")
    narrow = NetworkConfig.resnet50(1 / 4)
    monkeypatch.setattr(latency, "_times", times)
    monkeypatch.setattr(latency, "FULL", narrow)
    monkeypatch.setattr(latency, "VECTOR", 8)
    monkeypatch.setattr(latency, "GRID", (0.5, 1.0))
    monkeypatch.setattr(latency, "TARGETS", (0.9,))
    sizes = {pruned.FULL_SIZES[-1]: latency.at_width(0.75)}
    monkeypatch.setattr(pruned, "full_configs", lambda multiple=1: sizes)
    out = tmp_path / "latency.json"
    assert cli.main(["latency", "--precision", "fp32", "--out", str(out)]) == 0
    found = json.loads(out.read_text())
    assert [row["by"] for row in found["networks"]] == ["parameters"] * 3 + ["milliseconds"] * 2
    assert all(row["low"] <= row["ms"] <= row["high"] for row in found["networks"])
    model = Latency(**found["grid"])
    assert set(model.products) == set(products(narrow))
    assert (model.base_ms, model.factor) == pytest.approx((5.0, 1.2))
    assert all(ms >= 0 for own in model.layer_ms.values() for ms in own)
    target = f"{model.predict(latency.at_width(0.75)):.4f}ms"
    arguments = ["--weights", "demo", "--scores", str(pruned.SCORES), "--precision", "fp32"]
    cut = [*arguments, "--latency", target, "--out", str(tmp_path / "cut.pth")]
    monkeypatch.setattr(latency, "_measure", None)  # the run has it
    assert cli.main(["prune", "cut", *cut]) == 0
    assert "channels removed" in capsys.readouterr().out
    small = load_network(tmp_path / "cut.pth").config
    assert pruning.backbone_parameters(small) < pruning.backbone_parameters(narrow)
    assert cli.main(["prune", "cut", *cut, "--grid", str(out)]) == 0
    assert load_network(tmp_path / "cut.pth").config == small
    for more in (["--parameters", "0.5"], ["--grid", str(pruned.LOGS / "head.yaml")]):
        assert cli.main(["prune", "cut", *cut, *more]) == 2
