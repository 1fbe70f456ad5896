"""Speed of networks in groups, kept in a run: each speed once, the same for every page, and with it
FPS of what was tracked."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any, Iterator, List

import numpy as np
import pytest

from lib import environment
from lib.engines import deploy
from lib.engines.deploy import FRAMEWORKS
from lib.errors import InputError
from lib.measure import full_power, full_size, keys, layers, power, pruned, quality, runs
from lib.measure import speed as timing
from lib.measure.full_size import EngineSpeed, engine_speed, with_speed
from lib.measure.measurement import Measurement
from lib.measure.runs import run_folder
from lib.measure.variants import Variant, baseline, mixture
from lib.pruning import backbone_parameters
from lib.siamrpn.contract import LAYER_TYPES
from lib.siamrpn.network import NetworkConfig
from lib.siamrpn.parts import NETWORKS
from lib.vot.dataset import load_dataset

from .helpers import FRAMES, NAMES, make_program, state

pytest.importorskip("openvino")
RUN = "full-size"
TINY = [(1, NetworkConfig.resnet50(1 / 16)), (32, NetworkConfig.resnet50(1 / 32))]


PRECISIONS = ("fp32", "int8")


@pytest.fixture(scope="module", autouse=True)
def framework() -> Iterator[None]:
    """OpenVINO without FP16, and turns of one call; nothing counts as disturbed."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(
            FRAMEWORKS, "openvino", replace(FRAMEWORKS["openvino"], precisions=PRECISIONS)
        )
        patch.setattr(full_size, "timed_configs", lambda: TINY)
        for name, value in (("REST", 0.0), ("TURN_SECONDS", 0.0), ("OTHERS", 9.9), ("SLOWER", 9e9)):
            patch.setattr(timing, name, value)
        yield


@pytest.fixture(scope="module")
def speed(framework: None) -> EngineSpeed:
    """Two tiny networks in place of the full-size ones."""
    return engine_speed(RUN, "openvino")


# -- What is timed ---------------------------------------------------------------------------------


def test_groups_are_files_of_the_run_and_every_speed_is_there_once(speed: EngineSpeed) -> None:
    files = sorted(path.stem for path in (run_folder(RUN) / "speed").iterdir())
    assert files == ["openvino-fp32", "openvino-int8", "openvino-whole", "pytorch"]
    keys = [(row["group"], row["place"], row["precision"], str(row["kept"])) for row in speed.rows]
    assert len(set(keys)) == len(keys) == 2 + 4 + 3 + 2
    whole = [(row["group"], row["precision"]) for row in speed.whole]
    pure = [("openvino-whole", "FP32"), ("openvino-whole", "INT8")]
    assert whole == [("pytorch", "FP32"), *pure]
    places = [row["place"] for row in speed.compared]
    assert places == [0] * 3 + [1] * 3 and speed.compared[:3] == speed.whole
    for row in speed.rows:
        multiple, config = TINY[row["place"]]
        assert (row["multiple"], row["parameters"]) == (multiple, backbone_parameters(config))
        assert {"ratio", "ratio_low", "ratio_high", "whole_ratio", "fps", "disturbed"} <= set(row)
        assert ("search_ms" in row) == ("/" not in row["precision"])
    assert speed.whole[0]["whole_ratio"] == speed.whole[1]["whole_ratio"] == 1


def test_what_a_framework_lacks_is_said(speed: EngineSpeed) -> None:
    lacking = [sentence for sentence in speed.missing if "FP16" in sentence]
    assert len(lacking) == 9 - 4
    sentence = "OpenVINO FP16: OpenVINO has no precision 'fp16' here (there are fp32, int8)"
    assert sentence in lacking
    absent = list(deploy.missing_frameworks(["tensorrt"]).values())
    assert speed.missing == [*lacking, *absent]


def test_layers_and_reinitialisation_are_those_of_the_whole_network(speed: EngineSpeed) -> None:
    names = ["pytorch fp32", *(f"openvino {name}" for name in PRECISIONS)]
    assert list(speed.layers) == names
    for networks in speed.layers.values():
        assert tuple(networks) == NETWORKS
        assert all(tuple(types) == LAYER_TYPES for types in networks.values())
    assert list(speed.reinitialisation) == list(PRECISIONS)
    for ways in speed.reinitialisation.values():
        assert {way: len(seconds) for way, seconds in ways.items()} == {"inputs": 7, "refit": 7}


def test_a_row_is_found_by_name_and_for_a_variant_of_any_size(speed: EngineSpeed) -> None:
    for row in speed.whole:
        name = "pytorch" if row["group"] == "pytorch" else "openvino"
        assert speed.row_of(name, row["precision"].lower()) is row
    with pytest.raises(InputError, match="TensorRT FP32 was not timed in run full-size"):
        speed.row_of("tensorrt", "fp32")
    mixed = mixture("other.pth", "openvino", ("int8", "fp32", "int8"))
    assert speed.row_for(mixed)["precision"] == "FP32/FP32/INT8", "runs the same in every frame"
    assert speed.row_for(mixture("demo", "openvino", ["fp16"] * 3)) == {}
    assert speed.row_for(baseline("demo")[0]) is speed.whole[0]
    for variant in layers.steps("demo", "openvino"):
        row = speed.row_for(variant)
        assert (row["group"], row["kept"]) == ("openvino-whole", layers.kept(variant))
    tracker = pruned.Tracker(pruned.SHARES[0])
    if not tracker.is_there:
        pytest.skip(f"{tracker.weights} is not there")
    for variant in pruned.variants(tracker, "openvino"):
        row = speed.row_for(variant)
        if variant.precision == "FP16":
            assert row == {}
            continue
        assert (row["place"], row["precision"]) == (1, variant.precision)
        assert (row["group"] == "pytorch") == (variant.framework == "pytorch")
    smaller = pruned.variants(pruned.Tracker(pruned.SHARES[1]), "openvino")[0]
    assert speed.row_for(smaller) == {}, "a network that was not timed"


def test_a_caption_says_how_many_turns_were_disturbed(speed: EngineSpeed) -> None:
    assert "disturbed" not in speed.note and speed.note.startswith("Run full-size, ")
    rows = [{**speed.rows[0], "repeated": 3, "disturbed": 1}, *speed.rows[1:]]
    told = "; other work disturbed turns: 3 repeated, 1 still disturbed"
    assert replace(speed, rows=rows).note.endswith(told)


# -- Kept in the run -------------------------------------------------------------------------------


def test_what_was_timed_is_loaded_and_other_code_or_networks_are_timed_again(
    speed: EngineSpeed, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = state(run_folder(RUN))
    with monkeypatch.context() as patch:
        patch.setattr(full_size, "_time_group", None)
        assert engine_speed(RUN, "openvino") == speed
        row = full_size.baseline_speed(RUN)
    assert row["fps_tracked"] == speed.whole[0]["fps"]
    assert row["fps_tracked_low"] <= row["fps_tracked"] <= row["fps_tracked_high"]
    assert {path: told for path, told in state(run_folder(RUN)).items() if path in before} == before
    assert full_size.work(RUN, "openvino") == 0
    other = [TINY[0], (1, replace(TINY[0][1]))]
    every = full_size.work("none yet", "openvino")
    with monkeypatch.context() as patch:
        patch.setattr(full_size, "timed_configs", lambda: other)
        assert full_size.work(RUN, "openvino") > 0
    with monkeypatch.context() as patch:
        patch.setattr(keys, "CODE", "edited")
        assert full_size.work(RUN, "openvino") == every > 0
    with monkeypatch.context() as patch:
        patch.setattr(environment, "versions", lambda: {"torch": "1.9.0"})
        assert full_size.work(RUN, "openvino") == every
    path = run_folder(RUN) / "speed" / "openvino-int8.json"
    whole = path.read_text()
    path.write_text(whole[:1000])
    assert 0 < full_size.work(RUN, "openvino") < every, "a damaged file"
    path.write_text(whole)


def test_of_a_recorded_run_speeds_are_only_read(
    speed: EngineSpeed, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(environment, "processor", lambda: "of another machine")
    before = state(run_folder(RUN))
    read = engine_speed(RUN, "openvino")
    assert read.rows == speed.rows and read.recorded
    assert read.note.startswith("Recorded run full-size, ")
    assert full_size.baseline_speed(RUN)["row"] == "recorded"
    # The framework of a recorded run need not be here
    monkeypatch.setattr(keys, "framework_module", None)
    lacking = engine_speed(RUN, "tensorrt")
    assert "does not have the speed of the full-size networks with TensorRT" in lacking.note
    assert with_speed(["absent"], lacking) == ["absent"]
    assert state(run_folder(RUN)) == before


# -- With what was tracked -------------------------------------------------------------------------


@pytest.fixture
def tracked(patches: Path, weights: Path, tmp_path: Path, in_process: None) -> Measurement:
    variant = Variant("tiny", str(weights))
    return quality.measure([variant], load_dataset(patches), str(tmp_path / "run"), shown=False)[0]


def test_fps_by_pysots_scheme_is_what_failures_make_of_the_full_size_networks_speed(
    tracked: Measurement, speed: EngineSpeed
) -> None:
    [timed] = with_speed([tracked], speed)
    row = speed.whole[0]
    codes = np.concatenate([one.codes for one in tracked.trajectories.values()])
    assert (codes == 2).any() and (codes == 0).any(), "failures and skipped frames"
    init = (row["target_ms"] + row["crop_ms"]) / 1000
    spent = (codes == 1).sum() * init + np.isin(codes, (-1, 2)).sum() * row["frame_ms"] / 1000
    assert timed.fps == pytest.approx(len(NAMES) * (FRAMES - 1) / spent)
    assert timed.fps_tracked == pytest.approx(row["fps"])
    assert timed.evaluation is tracked.evaluation
    shown = timed.row()
    ends = [1000 / row["frame_ms_high"], 1000 / row["frame_ms_low"]]
    assert [shown["fps_low"], shown["fps_high"]] == pytest.approx(ends)
    assert (shown["plan_mb"], shown["build_s"]) == (row["plan_mb"], row["build_s"])
    assert with_speed([timed], speed) == [timed], "what was timed keeps its times"


def test_a_compiled_variant_starts_with_its_own_target_network(
    tracked: Measurement, speed: EngineSpeed
) -> None:
    mixed = mixture("demo", "openvino", ("int8", "fp32", "fp32"))
    [timed] = with_speed([replace(tracked, variant=mixed)], speed)
    own = next(row for row in speed.whole if row["precision"] == "INT8")
    first = next(iter(timed.trajectories.values()))
    seconds = {code: set(first.seconds[first.codes == code]) for code in (0, 1)}
    assert seconds == {0: {0.0}, 1: {(own["target_ms"] + own["crop_ms"]) / 1000}}
    assert timed.fps_tracked == pytest.approx(speed.row_for(mixed)["fps"])
    unknown = Variant("x", "demo", "tensorrt")
    [same] = with_speed([replace(tracked, variant=unknown)], replace(speed, rows=speed.rows[:2]))
    assert np.isnan(same.fps) and same.speed == {}


# -- Power -----------------------------------------------------------------------------------------

TEGRASTATS = """
import sys, time
while True:
    print("RAM 1/2MB CPU [0%@1190] GPU@35C GPU 2534mW/2534mW CPU 310mW/310mW", flush=True)
    time.sleep(0.02)
"""


def test_the_full_size_networks_power_needs_a_sensor_and_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = make_program(tmp_path / "bin" / "tegrastats", TEGRASTATS)
    with monkeypatch.context() as patch:
        patch.setenv("PATH", f"{program.parent}{os.pathsep}{os.environ['PATH']}")
        patch.setattr(power, "PERIOD", 0.02)
        patch.setattr(power, "IDLE_SECONDS", 0.3)
        drawn = full_power.full_size_power("power", "pytorch", width=1 / 32, seconds=0.5)
    [row] = drawn.rows
    assert [row["power_w"], row["power_w_thesis"]] == pytest.approx([2.534] * 2)
    assert row["energy_j_spread"] >= 0 and row["fps_tracked"] > 0
    monkeypatch.setattr(power, "find_sensor", lambda device: (None, "no power sensor here"))
    assert full_power.full_size_power("power", "pytorch", 1 / 32, 0.5).rows == drawn.rows
    without = full_power.full_size_power("no power", "pytorch", 1 / 32, 0.5)
    assert list(without.rows) == [] and without.sensor == "no power sensor here"
    assert not run_folder("no power").exists(), "nothing was run"
    record = json.loads((run_folder("power") / runs.ENVIRONMENT).read_text())
    record["hardware"]["processor"] = "of another machine"
    (run_folder("power") / runs.ENVIRONMENT).write_text(json.dumps(record))
    assert [one["row"] for one in rows_of("power")] == ["recorded"]


def rows_of(run: str) -> List[Any]:
    return list(full_power.full_size_power(run, "pytorch", 1 / 32, 0.5).rows)
