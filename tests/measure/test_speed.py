"""Turns: a row for every framework and precision, disturbed turns repeated.

No test asserts on seconds.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Dict, Iterator, List

import numpy as np
import pytest
import torch

from lib.engines.deploy import Deployment
from lib.engines.export import random_feeds
from lib.engines.pytorch import TorchEngine
from lib.measure import full_size, speed
from lib.measure.speed import (
    Timed,
    Turn,
    full_size_network,
    ratios,
    time_engine,
    time_group,
    timing_deployment,
)
from lib.measure.variants import Variant, mixture
from lib.siamrpn.contract import LAYER_TYPES
from lib.siamrpn.network import SiamRPN, parameter_count
from lib.siamrpn.parts import NETWORKS, three_networks

openvino = pytest.importorskip("openvino")
CAPABILITIES = openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
PRECISIONS = ("fp32", "fp16", "int8")
HERE = [name for name in PRECISIONS if name != "int8" or "INT8" in CAPABILITIES]
CHANNELS = 8  # of the network below
PLAIN = Variant("plain")
PARTS = ("crop", "network", "decode")


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    shorten(monkeypatch)


def shorten(patch: pytest.MonkeyPatch) -> None:
    """One call a turn and no pauses; nothing counts as disturbed unless a test says so."""
    patch.setattr(speed, "REST", 0.0)
    patch.setattr(speed, "TURN_SECONDS", 0.0)
    patch.setattr(speed, "SLOWER", float("inf"))
    patch.setattr(speed, "OTHERS", float("inf"))


@pytest.fixture(scope="module")
def network() -> SiamRPN:
    return full_size_network(1 / 32)


@pytest.fixture(scope="module")
def rows(network: SiamRPN) -> List[Timed]:
    """Everything that PyTorch and OpenVINO do; PyTorch FP32 is the reference."""
    pairs = [("pytorch", "fp32"), ("pytorch", "fp16"), *(("openvino", each) for each in HERE)]
    with pytest.MonkeyPatch.context() as patch:
        shorten(patch)
        candidates = [
            Timed(0, timing_deployment(network, name), mixture("", name, [precision] * 3))
            for name, precision in pairs
        ]
        time_group(candidates, 2)
    return candidates


# -- The table -------------------------------------------------------------------------------------


def test_rows_say_what_ran_with_the_same_columns_in_each(rows: List[Timed]) -> None:
    table = [one.row() for one in rows]
    assert all(row.keys() == table[0].keys() for row in table)
    assert [row["executed"] for row in table[:3]] == ["80 FP32", "80 BF16", "80 FP32"]
    for one, row in zip(rows, table):
        assert row["framework"].split()[0] in ("PyTorch", "OpenVINO") and row["device"] == "CPU"
        assert (row["plan_mb"] > 0) == row["framework"].startswith("OpenVINO")
        assert row["fps"] == pytest.approx(1000 / row["frame_ms"])
        assert row["outside_ms"] == pytest.approx(row["crop_ms"] + row["decode_ms"])
        assert (row["repeated"], row["disturbed"]) == (0, 0)
        for times in (one.times, one.reference):
            assert set(times) == {*PARTS, *NETWORKS, "frame"}
            assert {part.shape for part in times.values()} == {(2, speed.FEWEST_CALLS)}, (
                "rounds and calls"
            )
    assert table[0]["ratio_low"] == table[0]["ratio"] == table[0]["ratio_high"] == 1


def test_a_row_is_medians_and_ratios_of_the_rounds(network: SiamRPN) -> None:
    """Two rounds of two calls; ratios by hand: 40/10 and 60/20."""

    def times(frame: List[List[float]], *others: float) -> Dict[str, np.ndarray]:
        known = {name: np.full((2, 2), value) for name, value in zip((*PARTS, *NETWORKS), others)}
        return {**known, "frame": np.array(frame)}

    own = times([[0.01, 0.01], [0.02, 0.02]], 0.001, 0.012, 0.002, 0.004, 0.008, 0.001)
    base = times([[0.03, 0.05], [0.06, 0.06]], 0.001, 0.05, 0.002, 0.012, 0.040, 0.004)
    timed = Timed(0, timing_deployment(network, "pytorch"), PLAIN)
    timed.reference, timed.repeated = base, 3
    timed.turns = [Turn({name: part[i] for name, part in own.items()}, 0.0) for i in (0, 1)]
    row = timed.row()
    expected: Dict[str, float] = {"frame_ms": 15, "frame_ms_low": 10, "frame_ms_high": 20}
    expected.update(fps=1000 / 15, ratio=3.5, ratio_low=3, ratio_high=4)
    expected.update(target_ms=4, target_ratio=3, search_ms=8, search_ratio=5)
    expected.update(xcorr_ms=1, xcorr_ratio=4, copies_ms=3, crop_ms=1, decode_ms=2, outside_ms=3)
    expected.update(repeated=3, disturbed=0)
    assert {name: row[name] for name in expected} == pytest.approx(expected)
    assert ratios(own, base, "x") == pytest.approx({"x": 3.5, "x_low": 3, "x_high": 4})


# -- Turns -----------------------------------------------------------------------------------------


@pytest.fixture
def pair(network: SiamRPN) -> List[Any]:
    """Two networks; the second one's precisions are mixed."""
    mixed = Variant("mixed", target="fp16")
    first = Timed(0, timing_deployment(network, "pytorch"), PLAIN)
    return [first, Timed(1, timing_deployment(full_size_network(1 / 64), "pytorch"), mixed)]


def watched(monkeypatch: pytest.MonkeyPatch, shares: Iterator[float]) -> None:
    """What other work uses in every turn, in order; without any it is idle."""
    monkeypatch.setattr(speed, "OTHERS", 0.15)
    monkeypatch.setattr(speed.Watch, "others", lambda self: next(shares, 0.0))


def test_candidates_take_turns_and_each_turn_is_reported(
    pair: List[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    order: List[Any] = []
    turn = Timed._turn
    monkeypatch.setattr(Timed, "_turn", lambda self: order.append(self) or turn(self))
    time_group(pair, 3, lambda: order.append("done"))
    first, second = pair
    assert order == [pair[0], "done", pair[1], "done"] * 3
    assert first.times["frame"].shape == second.times["frame"].shape == (3, speed.FEWEST_CALLS)
    assert second.reference["frame"].tolist() == first.times["frame"].tolist()
    assert set(NETWORKS) <= set(first.times) and not set(NETWORKS) & set(second.times)
    assert "copies_ms" not in second.row() and "search_ms" not in second.row()


def test_a_disturbed_turn_is_repeated_at_once_and_the_undisturbed_one_counts(
    pair: List[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    kept: List[Turn] = []
    turn = Timed._turn

    def remembered(self: Any) -> Turn:
        kept.append(turn(self))
        return kept[-1]

    monkeypatch.setattr(Timed, "_turn", remembered)
    watched(monkeypatch, iter([0.0, 0.5, 0.9, 0.0, 0.0, 0.2, 0.0]))
    time_group(pair, 2)
    assert len(kept) == 7
    assert [(one.repeated, one.disturbed) for one in pair] == [(0, 0), (3, 0)]
    for one, places in zip(pair, ((0, 4), (3, 6))):
        counted = [kept[place].seconds["frame"][0] for place in places]
        assert one.times["frame"][:, 0].tolist() == counted


def test_what_stays_disturbed_is_counted_and_a_busy_machine_takes_no_longer_than_twice(
    pair: List[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = iter(range(1000))
    watched(monkeypatch, (1.5 for _ in asked))
    time_group(pair, 3)
    assert next(asked) == 2 * 3 * len(pair), "as many repetitions as turns"
    assert sum(one.repeated for one in pair) == 3 * len(pair)
    assert [one.disturbed for one in pair] == [3, 3]
    assert max(one.repeated for one in pair) <= 3 * (speed.TRIES - 1)


def test_a_turn_is_disturbed_by_other_work_or_where_it_is_slower_than_the_fastest(
    pair: List[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    player = pair[1]
    monkeypatch.undo()
    player.fastest = 1.0
    turns = [(1.0, 0.0, False), (1.2, 0.1, False), (1.3, 0.0, True), (1.0, 0.2, True)]
    for frame, others, expected in turns:
        assert player.is_disturbed(Turn({"frame": [frame]}, others)) == expected


def test_what_other_work_uses_is_not_known_everywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    assert speed.Watch().others() >= 0
    monkeypatch.setattr(speed.environment, "busy_seconds", lambda: 0.0)
    assert speed.Watch().others() == 0


def test_an_engine_is_warm_before_it_is_timed(network: SiamRPN) -> None:
    engine = TorchEngine(three_networks(network)["xcorr"], "xcorr", CHANNELS)
    calls: List[int] = []
    engine.module.register_forward_hook(lambda *_: calls.append(1))
    feeds = {
        **random_feeds("xcorr", CHANNELS),
        "exemplar": np.zeros(1),
    }  # feeds of others do not matter
    assert len(time_engine(engine, feeds, 3)) == 3
    assert len(calls) == 4


# -- Networks to time ------------------------------------------------------------------------------


def test_the_network_to_time_is_the_same_every_time_and_leaves_the_random_numbers_alone() -> None:
    state = torch.random.get_rng_state()
    first, second = full_size_network(0.125), full_size_network(0.125)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert not first.training
    pairs = zip(first.state_dict().values(), second.state_dict().values())
    assert all(torch.equal(one, other) for one, other in pairs)
    assert parameter_count(full_size_network(0.25)) > 3 * parameter_count(first)


@pytest.fixture(scope="module")
def plans(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("plans")


@pytest.fixture(scope="module")
def deployments(network: SiamRPN, plans: Path) -> Dict[str, Deployment]:
    """Of both frameworks, whose engines are built once."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(plans)
        patch.setattr("lib.engines.deploy.CACHE", plans)
        found = {name: timing_deployment(network, name) for name in ("pytorch", "openvino")}
        for precision in HERE:
            found["openvino"].network(dict.fromkeys(NETWORKS, precision))
    return found


def test_timing_keeps_no_plans(deployments: Dict[str, Deployment], plans: Path) -> None:
    assert not list(plans.iterdir())


# -- Layers and re-initialisation ------------------------------------------------------------------


@pytest.mark.parametrize(
    "framework, precision",
    [("pytorch", "fp32"), ("pytorch", "fp16"), *(("openvino", one) for one in HERE)],
)
def test_layers_are_of_the_same_types_everywhere_and_correlation_is_in_xcorr_only(
    deployments: Dict[str, Deployment], framework: str, precision: str
) -> None:
    found = full_size.layer_times(deployments[framework], precision, calls=2)
    assert tuple(found) == NETWORKS
    for name, times in found.items():
        assert tuple(times) == LAYER_TYPES and sum(times.values()) > 0
        assert (times["correlation"] > 0) == (name == "xcorr")


def test_a_reinitialisation_is_timed_with_kernels_as_inputs_and_by_refit(
    deployments: Dict[str, Deployment],
) -> None:
    found = full_size.reinitialisation(deployments["openvino"], "fp32", calls=3)
    assert {way: len(seconds) for way, seconds in found.items()} == {"inputs": 3, "refit": 3}
