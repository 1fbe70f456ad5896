"""How engines start: in processes of their own, from files, once for a run."""

from __future__ import annotations

import json
import os
from typing import Any

import pytest

from lib import environment
from lib.measure import full_size, runs, start
from lib.measure.runs import run_folder
from lib.siamrpn.network import NetworkConfig

pytest.importorskip("openvino")
RUN = "start"
# Small enough to be quick, and large enough that memory is not all noise
WIDE, NARROW = (1, NetworkConfig.resnet50(1 / 4)), (1, NetworkConfig.resnet50(1 / 16))
NETWORKS = [WIDE, NARROW, (32, NARROW[1])]


@pytest.fixture(scope="module", autouse=True)
def tiny() -> Any:
    """Two networks in place of the full-size ones."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(full_size, "timed_configs", lambda: NETWORKS)
        patch.setattr(environment, "_in_use", lambda: 0.0)
        yield


@pytest.fixture(scope="module")
def record(tiny: Any) -> Any:
    return start.started(RUN, "openvino")


def test_each_engine_is_started_for_real(record: Any) -> None:
    started = [(row["place"], row["framework"], row["precision"]) for row in record["rows"]]
    assert started == start.engines_to_start("openvino") and record["missing"] == []
    assert started[-1] == (1, "openvino", "int8"), "the most pruned one, not in multiples of 32"
    for row in record["rows"]:
        assert 0 < row["memory_mb"] <= row["peak_mb"] < 1000, row
        assert 0 < row["load_s"] < 60 and row["first_ms"] > 0
        assert 0 < row["frame_ms"] <= row["frame_ms_99"]
        assert start.FEWEST <= row["frames"] <= start.MOST
    whole = {row["precision"]: row for row in record["rows"] if row["framework"] == "openvino"}
    assert whole["fp32"]["peak_mb"] > record["rows"][-1]["peak_mb"], "a larger network takes more"


def test_a_run_has_it_once_and_a_recorded_one_is_only_read(
    record: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert start.work(RUN, "openvino") == 0
    monkeypatch.setattr(start, "_measure", None)
    assert start.started(RUN, "openvino") == record
    with monkeypatch.context() as patch:
        patch.setattr(full_size, "ROUNDS", 99)
        assert start.work(RUN, "openvino") == len(record["rows"]) * start.COST
    other = run_folder("start-elsewhere")
    other.mkdir()
    (other / runs.ENVIRONMENT).write_text(
        json.dumps(
            {**record["environment"], "hardware": {"processor": "abacus", "cores": 1, "gpu": None}}
        )
    )
    assert start.work(other.name, "openvino") == 0
    assert isinstance(start.started(other.name, "openvino"), runs.Lacking)


def _ends(*_: Any) -> None:
    os._exit(9)


def test_an_engine_whose_process_ends_is_named_and_the_others_are_measured(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(start, "start", _ends)
    monkeypatch.setattr(start, "engines_to_start", lambda *_: [(1, "pytorch", "fp32")])
    found = start.started("ends", "openvino")
    assert found["rows"] == []
    [sentence] = found["missing"]
    assert sentence.startswith("PyTorch FP32: a worker process ended (often for lack of memory)")
