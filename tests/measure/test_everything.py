"""All of a profile in one go: a run is filled, gone on with, and left alone when it has
everything."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any, Dict, List

import pytest

from lib.engines.deploy import FRAMEWORKS
from lib.errors import InputError
from lib.measure import everything, full_size, power, runs, speed
from lib.measure.runs import run_folder
from lib.measure.variants import Variant, baseline, mixture
from lib.siamrpn.network import NetworkConfig

from .helpers import make_patches, raw_files, state

pytest.importorskip("openvino")
pytestmark = pytest.mark.usefixtures("tiny", "in_process")


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two variants, one network in place of the full-size ones, OpenVINO in FP32 alone, no
    sensor."""
    monkeypatch.setattr(everything, "every_variant", few)
    config = NetworkConfig.resnet50(1 / 32)
    monkeypatch.setattr(full_size, "timed_configs", lambda: [(1, config)])
    fewer = replace(FRAMEWORKS["openvino"], precisions=("fp32",))
    monkeypatch.setitem(FRAMEWORKS, "openvino", fewer)
    monkeypatch.setattr(power, "find_sensor", lambda device: (None, "no power sensor here"))
    for name, value in (("REST", 0.0), ("TURN_SECONDS", 0.0), ("OTHERS", 9.9), ("SLOWER", 9e9)):
        monkeypatch.setattr(speed, name, value)


def few(weights: str, framework: str) -> List[Variant]:
    return [*baseline(weights), mixture(weights, framework, ["fp32"] * 3)]


def profile(folder: Path, weights: Path, run: str) -> Dict[str, Any]:
    patches = folder / "patches"
    if not patches.is_dir():
        make_patches(patches)
    values = {"dataset": str(patches), "weights": str(weights), "framework": "openvino"}
    return {**values, "run": run, "profile": "test"}


def without_locks(run: str) -> Dict[str, Any]:
    return {path: told for path, told in state(run_folder(run)).items() if ".lock" not in path}


def test_a_profile_fills_a_run_goes_on_where_it_was_stopped_and_then_does_nothing(
    weights: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    values, run = profile(tmp_path, weights, "everything"), run_folder("everything")
    time_group = full_size._time_group

    def stopped(group: str, *arguments: Any) -> Any:
        if group != "pytorch":
            raise KeyboardInterrupt
        return time_group(group, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(full_size, "_time_group", stopped)
        with pytest.raises(KeyboardInterrupt):
            everything.measure(values)
    assert sorted(path.name for path in (run / "patches").iterdir() if path.is_dir()) == [
        "openvino-fp32",
        "pytorch-fp32",
    ]
    assert len(raw_files(run)) == 6
    kept = without_locks("everything")
    todo = everything.measure(values)
    assert todo["quality"] == 0 and todo["speed"] > 0
    after = without_locks("everything")
    results = [path for path in kept if Path(path).is_file() and "environment" not in path]
    assert {path: after[path] for path in results} == {path: kept[path] for path in results}
    groups = sorted(path.stem for path in (run / "speed").iterdir())
    assert groups == ["openvino-fp32", "openvino-whole", "pytorch"]
    told = capsys.readouterr().err
    assert "left" in told and "%" in told, "a progress display"
    monkeypatch.setattr(full_size, "_time_group", None)
    monkeypatch.setattr("lib.measure.quality.open_executor", None)
    before = without_locks("everything")
    assert everything.measure(values) == {"quality": 0, "speed": 0, "start": 0}
    nowhere = {**values, "dataset": str(tmp_path / "nowhere")}
    assert everything.measure(nowhere, only=["speed"]) == {"speed": 0}, "needs no dataset"
    lines = everything.speeds(nowhere)
    assert [line.partition(":")[0].partition(" ")[0] for line in lines[:2]] == [
        "PyTorch",
        "OpenVINO",
    ]
    assert without_locks("everything") == before
    assert capsys.readouterr().err == "", "nothing to do is nothing to say"


def test_a_recorded_run_is_only_read(
    weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = run_folder("recorded-everything")
    folder.mkdir()
    (folder / runs.ENVIRONMENT).write_text(json.dumps({"hardware": {"processor": "abacus"}}))
    before = state(folder)
    assert everything.measure(profile(tmp_path, weights, folder.name)) == {}
    told = f"run {folder.name} was recorded on another machine and is only read here\n"
    assert capsys.readouterr().err == told
    assert state(folder) == before


def test_what_is_missing_is_said_before_anything_is_measured(weights: Path, tmp_path: Path) -> None:
    values = profile(tmp_path, tmp_path / "missing.pth", "missing")
    with pytest.raises(InputError, match=r"missing\.pth: no such weights file"):
        everything.measure(values)
    with pytest.raises(InputError, match=r"Dataset .*nowhere does not exist"):
        everything.measure({**values, "dataset": str(tmp_path / "nowhere")})
    assert not list(run_folder("missing").rglob("*.json"))
