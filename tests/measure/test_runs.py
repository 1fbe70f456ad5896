"""Runs side by side, the page of machine and runs, and section 4.3's page, also of a run of another
machine."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any, Dict

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from report.helpers import in_this_process, page

from lib import cli, environment
from lib.book import notebook as book
from lib.errors import InputError
from lib.measure import keys, power, quality, runs, variants
from lib.measure.variants import Variant
from lib.report import tables
from lib.report.tables import Table, Text
from lib.vot.dataset import load_dataset

from .helpers import FRAMES, NAMES, make_program, measure, start, state

XAVIER = {
    "processor": "ARMv8 Processor rev 0",
    "cores": 8,
    "gpu": "Xavier",
    "device": "cuda",
    "power_mode": "MAXN",
}


def test_a_jetsons_power_mode_is_part_of_the_hardware(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = "print('NV Fan Mode:quiet\\nNV Power Mode: MAXN\\n0')\n"
    make_program(tmp_path / "nvpmodel", code)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    environment.power_mode.cache_clear()
    try:
        assert environment.hardware()["power_mode"] == "MAXN" and environment.label(
            environment.record()
        ).endswith("mode MAXN")
    finally:
        environment.power_mode.cache_clear()


def test_a_page_runs_again_when_another_machines_run_arrives_or_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And not when the notebooks themselves write to this machine's run."""
    folder = tmp_path / "data" / "runs"
    monkeypatch.setattr(runs, "RUNS", folder)
    (tmp_path / "lib" / "report").mkdir(parents=True)
    (tmp_path / "lib" / "__init__.py").write_text("")
    (tmp_path / "lib" / "report" / "__init__.py").write_text("")
    (tmp_path / "lib" / "report" / "others.py").write_text("")
    (tmp_path / "lib" / "plain.py").write_text("")

    def parts(module: str, run: str = "mine") -> dict[str, str]:
        cells = [{"cell_type": "code", "metadata": {}, "source": f"import lib.{module}"}]
        return book.fingerprint({"cells": cells, "metadata": {}}, tmp_path, {"run": run})

    def write(run: str, name: str, text: str) -> None:
        (folder / run).mkdir(parents=True, exist_ok=True)
        (folder / run / name).write_text(text)

    before, plain = parts("report.others"), parts("plain")
    for run in ("mine", "local"):
        write(run, "04_1_baseline.csv", "a\n1\n")
        own = environment.hardware(environment.device())
        write(run, "environment.json", json.dumps({"hardware": own}))
    assert parts("report.others") == before
    write("xavier", "environment.json", json.dumps({"hardware": XAVIER}))
    assert parts("report.others") != before and parts("plain") == plain
    shown = parts("plain", "xavier")
    write("xavier", "04_1_baseline.csv", "a\n22\n")
    assert parts("plain", "xavier") != shown, (
        "the run that is shown was recorded elsewhere and copied anew"
    )


# -- Recorded runs ---------------------------------------------------------------------------------


@pytest.fixture
def recorded(
    measured: Path, patches: Path, weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Path:
    """A run that was measured, copied to another place and made another machine's; no tracker can
    run from here on."""
    shutil.copytree(measured, tmp_path / "first")
    first = measure(patches, weights, tmp_path / "first")
    runs.write_section(str(tmp_path / "first"), "04_1_baseline", [first.row()])
    monkeypatch.setattr(runs, "RUNS", tmp_path / "runs")
    folder = tmp_path / "runs" / "xavier"
    shutil.copytree(tmp_path / "first", folder)
    there = {"processor": "ARMv8 Processor rev 0", "cores": 8, "gpu": "Xavier", "device": "cuda"}
    for path in (folder / "environment.json", folder / "patches" / "tiny" / variants.MEASURED):
        record = json.loads(path.read_text())
        machine = record.get("environment", record)
        machine.update(date="2023-04-01 12:00 UTC")
        machine["hardware"].update(power_mode="MAXN", **there)
        path.write_text(json.dumps(record))
    for module, name in ((quality, "open_executor"), (quality, "write_text"), (runs, "locked")):
        monkeypatch.setattr(module, name, None)
    return folder


def test_a_recorded_run_is_shown_without_its_dataset_its_weights_or_a_measurement(
    recorded: Path, patches: Path, tmp_path: Path
) -> None:
    own = pd.read_csv(tmp_path / "first" / "04_1_baseline.csv").iloc[0]
    before = state(recorded)
    patches.rename(tmp_path / "away")
    data = variants.open_dataset(str(patches), "xavier")
    assert [sequence.name for sequence in data] == list(NAMES)
    assert not data.sequences[0].has_frames
    [shown] = quality.measure([Variant("tiny", "weights/that/are/not/here.pth")], data, "xavier")
    row = shown.row()
    for name in ("accuracy", "robustness", "eao", "eao_low", "eao_high", "fps", "fps_tracked"):
        assert row[name] == pytest.approx(own[name], nan_ok=True), name
    assert row["row"] == "recorded" and shown.whose == "recorded"
    assert shown.note.startswith("Recorded run xavier, 2023-04-01 12:00 UTC: 8 cores ARMv8")
    assert "mode MAXN" in shown.note
    runs.write_section("xavier", "04_1_baseline", [row])
    assert state(recorded) == before, "nothing was written into it"


def test_frames_that_are_here_belong_to_a_recorded_run_too(recorded: Path, patches: Path) -> None:
    data = variants.open_dataset(str(patches), "xavier")
    assert all(sequence.has_frames for sequence in data)
    assert data.sequences[1].frame(0).shape == (90, 120, 3)


def test_a_recorded_run_of_vot2018_is_evaluated_without_its_frames(
    recorded: Path, shared: Path, tmp_path: Path
) -> None:
    """PySOT's own raw results stand for those of a run."""
    data = load_dataset(shared / "vot2018" / "VOT2018.json")
    results = recorded / "VOT2018" / "tiny"
    for file in (shared / "vot2018" / "results" / "SiamRPNpp_R50").rglob("*.txt"):
        own = results / file.relative_to(shared / "vot2018" / "results" / "SiamRPNpp_R50")
        own.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, own)  # without its mode, by which it can only be read
    shutil.copy(recorded / "patches" / "tiny" / variants.MEASURED, results)
    runs.keep_annotations("xavier", data)
    here = variants.open_dataset(str(tmp_path / "nowhere" / "VOT2018"), "xavier")
    [shown] = quality.measure([Variant("tiny", "weights.pth")], here, "xavier")
    told = json.loads((shared / "vot2018" / "expected.json").read_text())
    eao = told["trackers"]["SiamRPNpp_R50"]["eao"]["all"]
    assert shown.evaluation.failures == 50
    assert shown.evaluation.eao == pytest.approx(eao, abs=2e-4)
    assert "the thesis's benchmark" in shown.scale


def test_what_a_recorded_run_lacks_is_a_sentence_and_never_measured(
    recorded: Path, patches: Path, weights: Path
) -> None:
    data, before = variants.open_dataset(str(patches), "xavier"), state(recorded)
    asked = [Variant("tiny", str(weights)), Variant("other", str(weights))]
    there, absent = quality.measure(asked, data, "xavier")
    where = "run xavier, recorded on another machine (8 cores ARMv8 Processor rev 0"
    assert absent.note.startswith(where)
    assert "does not have PyTorch FP32 on patches (other)" in absent.note
    section = runs.write_section("xavier", "s", [there, absent])
    table = tables.Table.of(section, [("EAO", "eao", ".3f")], "Caption.")
    assert len(table.rows) == 1 and absent.note in table.caption
    with pytest.raises(runs.Missing, match="is only read here"):
        absent.row()
    assert quality.work(asked, data, "xavier") == 0
    assert state(recorded) == before
    (recorded / "patches" / "tiny" / "baseline" / "third" / "third_001.txt").unlink()
    [part] = quality.measure(asked[:1], data, "xavier")
    assert "does not have 1 of 3 sequences of patches" in part.note
    (recorded / "patches" / "patches.json").unlink()
    patches.rename(patches.with_name("away"))
    missing = r"run xavier has no annotations of patches .* and the dataset is not on this machine"
    with pytest.raises(InputError, match=missing):
        variants.open_dataset(str(patches), "xavier")


def test_the_command_line_reads_a_recorded_run_and_names_what_it_lacks(
    recorded: Path, patches: Path, weights: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (recorded / "patches" / "tiny").rename(recorded / "patches" / "pytorch-fp32")
    command = ["evaluate", "--dataset", str(patches), "--weights", str(weights), "--run", "xavier"]
    assert cli.main([*command, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["frames"] == len(NAMES) * FRAMES
    assert cli.main([*command, "--protocol", "toolkit"]) == 2
    assert "by this protocol, and is only read here" in capsys.readouterr().err


def test_annotations_of_a_run_are_those_of_the_dataset(recorded: Path, patches: Path) -> None:
    data = load_dataset(patches)
    kept = load_dataset(runs.run_folder("xavier") / data.name)
    assert kept.name == data.name
    for one, other in zip(kept, data):
        assert one.name == other.name and len(one) == len(other)
        assert all(np.array_equal(a, b) for a, b in zip(one.regions, other.regions))
        assert all(np.array_equal(one.tags[tag], other.tags[tag]) for tag in other.tags)
        assert (one.width, one.height) == (other.width, other.height)


@pytest.mark.parametrize(
    "change, other",
    [
        ({}, False),
        ({"threads": 99}, False),
        ({"processor": "another"}, True),
        ({"cores": 999}, True),
        ({"gpu": "Xavier"}, True),
    ],
)
def test_which_runs_are_this_machines_own(
    change: Dict[str, Any], other: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runs, "RUNS", tmp_path)
    for name in ("named", "local"):
        runs.write_environment(name, {"hardware": {**environment.hardware("cpu"), **change}})
    assert runs.is_recorded("named", "cpu") == other
    assert not runs.is_recorded("local", "cpu") and not runs.is_recorded("none yet", "cpu")


def test_runs_stand_side_by_side(recorded: Path) -> None:
    found = runs.recorded("04_1_baseline")
    assert list(found) == ["xavier"] and found["xavier"]["variant"].tolist() == ["tiny"]
    assert runs.recorded("04_1_baseline", besides="xavier") == {}
    assert runs.recorded("04_9_none") == {}


def test_tests_see_no_run_but_their_own() -> None:
    assert Path(os.environ["SIAMBOOK_RUNS"]) == runs.RUNS
    assert keys.ROOT not in runs.RUNS.parents
    process = start("from lib.measure import runs; print(runs.RUNS)")
    assert process.communicate(timeout=60)[0].strip() == os.environ["SIAMBOOK_RUNS"]


# -- Pages of runs ---------------------------------------------------------------------------------


def text_of(shown: list[Any]) -> str:
    return "\n".join(str(each) for each in shown if isinstance(each, (Table, Text)))


def test_section_4_3_runs_without_a_sensor_and_a_recorded_run_is_shown_as_it_is(
    small: Path, tmp_path: Path, one_thread: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("openvino", reason="OpenVINO is missing: install the `engines` extra")
    monkeypatch.setattr(power, "find_sensor", lambda *_: (None, "no power sensor here (a desk)"))
    data, run = tmp_path / "small", tmp_path / "mine"
    shutil.copytree(small, data)
    with in_this_process(tmp_path):
        first = page(
            "04_3_power", dataset=str(data), run=str(run), weights="data/demo/distilled_26.pth"
        )
    text = text_of(first)
    assert "no power sensor here (a desk)" in text
    assert "papermill notebooks/04_3_power.ipynb" in text and "1.943" in text
    assert sum(isinstance(each, Figure) for each in first) == 2
    record = pd.read_csv(run / "04_3_power.csv")
    assert record["variant"].tolist() == [
        "pytorch-fp32",
        "openvino-fp32",
        "openvino-fp16",
        "openvino-int8",
    ]

    there = tmp_path / "there"
    shutil.copytree(run, there)
    for path in [there / "environment.json", *there.glob("*/*/measured.json")]:
        value = json.loads(path.read_text())
        value.get("environment", value)["hardware"].update(XAVIER)
        path.write_text(json.dumps(value))
    before = {path: path.stat().st_mtime_ns for path in there.rglob("*")}
    shutil.rmtree(data)
    for name in (
        "04_3_power",
        "04_1_baseline",
        "04_2_engines",
        "04_2_1_mixed_precision",
        "03_3_evaluation",
    ):
        text = text_of(page(name, dataset=str(data), run=str(there)))
        assert name == "04_3_power" or "8 cores ARMv8 Processor rev 0" in text, name
    assert {path: path.stat().st_mtime_ns for path in there.rglob("*")} == before, (
        "nothing was measured or written"
    )


def test_speed_is_measured_with_the_process_s_threads_and_again_with_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Pages' kernels compute with one, and are told the number."""
    before, seen = environment.threads(), []

    def measure(bar: Any) -> dict[str, Any]:
        seen.append(environment.threads())
        return {}

    for count in (2, 2, 3):
        monkeypatch.setenv(environment.SPEED_THREADS, str(count))
        key = {"threads": str(environment.speed_threads())}
        record = runs.Record("threads", "a.json", lambda key=key: key, 1.0, measure).load()
        assert record and record["environment"]["threads"] == count
    assert seen == [2, 3] and environment.threads() == before
    record["environment"]["hardware"]["cores"] = 4
    assert environment.label(record["environment"]).startswith("3 threads on 4 cores")
