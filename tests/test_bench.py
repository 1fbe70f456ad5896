"""Timing: a row for every framework and precision, the whole frame accounted for, layers by type, what is missing said aloud."""
from __future__ import annotations

import sys

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
openvino = pytest.importorskip("openvino")

from lib import bench as timing  # noqa: E402
from lib.bench import (  # noqa: E402
    FRAME_PARTS,
    Timed,
    Times,
    bench,
    full_size_network,
    in_turns,
    layer_times,
    make_ready,
    pairs_to_time,
    reinitialisation,
    target_channels,
    time_engine,
    time_together,
    times_faster,
    timing_deployment,
)
from lib.engines import ov  # noqa: E402
from lib.engines.base import LAYER_TYPES, by_type  # noqa: E402
from lib.engines.pytorch import TorchEngine  # noqa: E402
from lib.errors import InputError  # noqa: E402
from lib.export import random_feeds  # noqa: E402
from lib.siamrpn.network import parameter_count  # noqa: E402
from lib.siamrpn.parts import NETWORKS, three_networks  # noqa: E402

CAPABILITIES = set(openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"))
HERE = ["fp32", *(["fp16"] if {"BF16", "FP16"} & CAPABILITIES else []), *(["int8"] if "INT8" in CAPABILITIES else [])]


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(autouse=True)
def no_rest(monkeypatch):
    """The pause between turns serves exact ratios, which no test asks for."""
    monkeypatch.setattr(timing, "REST", 0.0)


@pytest.fixture(scope="module")
def network():
    return full_size_network(0.125)


@pytest.fixture(scope="module")
def rows(network):
    """Everything that PyTorch and OpenVINO do, and what was reported."""
    said = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(timing, "REST", 0.0)
        return list(bench(network, ["pytorch", "openvino"], rounds=2, calls=2, report=said.append)), said


# -- The table -----------------------------------------------------------------------------------------------------------------


def test_there_is_a_row_for_every_framework_and_precision_and_pytorchs_own_comes_first(rows):
    timed, said = rows
    expected = [("pytorch", "fp32"), ("pytorch", "fp16"), *(("openvino", precision) for precision in HERE)]
    assert [(each.framework, each.precision) for each in timed] == expected
    assert len(said) == 3 - len(HERE)
    assert pairs_to_time(["pytorch", "openvino"]) == [("pytorch", "fp16"), *(("openvino", p) for p in ("fp32", "fp16", "int8"))]


def test_networks_that_are_timed_together_are_compared_with_their_own_pytorch_and_with_each_other(network):
    said = []
    ready = make_ready([network, full_size_network(0.0625)], ["openvino"], report=said.append)
    assert [(each.place, each.framework, each.precision) for each in ready] == \
        [(place, *pair) for pair in [("pytorch", "fp32"), *(("openvino", precision) for precision in HERE)] for place in (0, 1)]
    assert len(said) == 3 - len(HERE)
    timed = time_together(ready, rounds=3, calls=2)
    for each, one in zip(ready, timed):
        plain = timed[each.place]
        assert one.reference is plain.times and one.times.frame.shape == (3, 2)
        assert one.row()["ratio"] == pytest.approx(np.median(np.median(plain.times.frame, 1) / np.median(one.times.frame, 1)))
    assert timed[0].row()["ratio_low"] == timed[0].row()["ratio_high"] == 1
    median, low, high = times_faster(timed[1].times, timed[0].times)
    assert low <= median <= high and high > 1, "a quarter of the multiplications"


def test_rows_say_what_ran_and_are_numbers_above_zero(rows):
    table = [each.row() for each in rows[0]]
    assert all(row.keys() == table[0].keys() for row in table)
    assert [row["executed"] for row in table[:3]] == ["80 FP32", "80 BF16", "80 FP32"]
    for row in table:
        assert row["framework"].split()[0] in ("PyTorch", "OpenVINO") and row["device"] == "CPU"
        assert row["fps"] == pytest.approx(1000 / row["frame_ms"])
        assert row["frame_ms_low"] <= row["frame_ms"] <= row["frame_ms_high"]
        assert row["ratio_low"] <= row["ratio"] <= row["ratio_high"]
        assert row["outside_ms"] == pytest.approx(row["crop_ms"] + row["decode_ms"])
        assert min(row[f"{name}_{what}"] for name in NETWORKS for what in ("ms", "ratio")) > 0
        assert row["build_s"] > 0
        assert (row["plan_mb"] > 0) == row["framework"].startswith("OpenVINO")


def test_the_parts_add_up_to_the_frame_within_a_tenth(rows):
    for each in rows[0]:
        for times in (each.times, each.reference):
            assert times.frame.shape == (2, 2) and set(times.parts) == set(FRAME_PARTS) and set(times.engines) == set(NETWORKS)
            shares = sum(times.parts.values()) / times.frame
            assert (shares <= 1).all()
            assert np.median(shares) > 0.9


def test_int8_plans_are_smaller_than_fp32_ones(rows):
    sizes = {each.precision: each.plan_bytes for each in rows[0] if each.framework == "openvino"}
    if "int8" not in sizes:
        pytest.skip("this processor has no INT8")
    assert sizes["int8"] < 0.6 * sizes["fp32"]


def test_a_row_is_medians_and_ratios_of_the_rounds():
    """Two rounds of two calls; ratios by hand: 40/10 and 60/20."""
    def times(frame, crop, network, decode, target, search, xcorr):
        return Times(np.array(frame), {part: np.full((2, 2), value) for part, value in zip(FRAME_PARTS, (crop, network, decode))},
                     {name: np.full((2, 2), value) for name, value in zip(NETWORKS, (target, search, xcorr))})

    own = times([[0.01, 0.01], [0.02, 0.02]], 0.001, 0.012, 0.002, 0.004, 0.008, 0.001)
    base = times([[0.03, 0.05], [0.06, 0.06]], 0.001, 0.05, 0.002, 0.012, 0.040, 0.004)
    row = Timed("openvino", "OpenVINO 1", "CPU", "int8", "74 INT8, 6 BF16", 2_500_000, 1.5, own, base).row()
    expected = {"framework": "OpenVINO 1", "precision": "INT8", "executed": "74 INT8, 6 BF16", "frame_ms": 15, "frame_ms_low": 10,
                "frame_ms_high": 20, "fps": 1000 / 15, "ratio": 3.5, "ratio_low": 3, "ratio_high": 4, "target_ms": 4,
                "target_ratio": 3, "search_ms": 8, "search_ratio": 5, "xcorr_ms": 1, "xcorr_ratio": 4, "copies_ms": 3,
                "crop_ms": 1, "decode_ms": 2, "outside_ms": 3, "plan_mb": 2.5, "build_s": 1.5}
    for column, value in expected.items():
        assert row[column] == (value if isinstance(value, str) else pytest.approx(value)), column


def test_the_blocks_take_turns_so_that_what_else_the_machine_does_meets_both():
    order = []

    def block(name):
        def run():
            order.append(name)
            return {"frame": [float(len(order)), 0.5]}
        return run

    first, second = in_turns([block("own"), block("reference")], 3)
    assert order == ["own", "reference"] * 3
    assert first["frame"].tolist() == [[1, 0.5], [3, 0.5], [5, 0.5]]
    assert second["frame"].tolist() == [[2, 0.5], [4, 0.5], [6, 0.5]]


def test_an_engine_is_warm_before_it_is_timed(network):
    engine = TorchEngine(three_networks(network)["xcorr"], "xcorr", 32)
    calls = []
    engine.module.register_forward_hook(lambda *_: calls.append(1))
    seconds = time_engine(engine, {**random_feeds("xcorr", 32), "exemplar": np.zeros(1)}, 3)  # feeds of others do not matter
    assert len(calls) == 4 and len(seconds) == 3 and min(seconds) > 0


# -- What is missing -----------------------------------------------------------------------------------------------------------


def test_a_missing_framework_is_reported_and_the_others_are_timed(network, monkeypatch):
    ov.core.cache_clear()
    monkeypatch.setitem(sys.modules, "openvino", None)
    said = []
    try:
        timed = list(bench(network, ["openvino", "pytorch"], rounds=1, calls=1, report=said.append))
    finally:
        ov.core.cache_clear()
    assert [(each.framework, each.precision) for each in timed] == [("pytorch", "fp32"), ("pytorch", "fp16")]
    assert len(said) == 1, "one sentence a framework, not one a precision"
    assert said[0] == "OpenVINO: the framework OpenVINO is not installed: pip install -e '.[engines]'"


def test_a_precision_that_cannot_be_built_is_reported_and_the_next_is_timed(network, monkeypatch):
    build = ov.build

    def lacking(model, name, precision, *arguments, **named):
        if precision != "fp32":
            raise InputError(f"this processor has no {precision}")
        return build(model, name, precision, *arguments, **named)

    monkeypatch.setattr(ov, "build", lacking)
    said = []
    timed = list(bench(network, ["openvino"], rounds=1, calls=1, report=said.append))
    assert [(each.framework, each.precision) for each in timed] == [("pytorch", "fp32"), ("openvino", "fp32")]
    assert said == ["OpenVINO FP16: this processor has no fp16", "OpenVINO INT8: this processor has no int8"]


# -- Networks to time ----------------------------------------------------------------------------------------------------------


def test_the_network_to_time_is_the_same_every_time_and_leaves_the_random_numbers_alone():
    state = torch.random.get_rng_state()
    first, second = full_size_network(0.125), full_size_network(0.125)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert not first.training
    assert all(torch.equal(one, other) for one, other in zip(first.state_dict().values(), second.state_dict().values()))
    assert parameter_count(full_size_network(0.25)) > 3 * parameter_count(first)


def test_timing_keeps_no_plans(network, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("lib.deploy.CACHE", tmp_path / "plans")
    deployment = timing_deployment(network, "openvino")
    for precision in HERE:
        assert target_channels(deployment.engine("target", precision)) == 32
    assert not list(tmp_path.iterdir())


# -- Layers and re-initialisation ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("framework, precision", [("pytorch", "fp32"), ("pytorch", "fp16"), *(("openvino", p) for p in HERE)])
def test_layers_are_of_the_same_types_everywhere_and_correlation_is_in_xcorr_only(network, framework, precision):
    found = layer_times(timing_deployment(network, framework), precision, calls=2)
    assert tuple(found) == NETWORKS
    for name, layers in found.items():
        assert layers and {layer.type for layer in layers} <= set(LAYER_TYPES)
        assert all(layer.seconds >= 0 for layer in layers)
        times = by_type(layers)
        assert tuple(times) == LAYER_TYPES
        assert sum(times.values()) == pytest.approx(sum(layer.seconds for layer in layers))
        assert any(layer.type == "correlation" for layer in layers) == (name == "xcorr")
        assert max(times, key=times.get) == "convolution" or name == "xcorr" or precision != "fp32"


def test_a_reinitialisation_is_timed_with_kernels_as_inputs_and_by_refit(network):
    found = reinitialisation(timing_deployment(network, "openvino"), "fp32", calls=3)
    assert found["inputs"].shape == found["refit"].shape == (3,)
    assert found["inputs"].min() > 0
    # OpenVINO compiles again, which no noise makes faster than running one small network
    assert np.median(found["refit"]) > np.median(found["inputs"])
    eager = reinitialisation(timing_deployment(network, "pytorch"), "fp32", calls=2)
    assert eager["inputs"].shape == (2,) and eager["refit"] is None
