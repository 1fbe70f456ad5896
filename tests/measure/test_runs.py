"""Runs side by side, the page of machine and runs, and section 4.3's page, also of a run of another
machine."""

from __future__ import annotations

import json
import os
import shutil
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from matplotlib.figure import Figure
from report.helpers import in_this_process, page

from lib import environment
from lib.book import notebook as book
from lib.errors import InputError
from lib.measure import power, runs
from lib.report import appendix_runs, thesis
from lib.report.tables import Table, Text

XAVIER = {
    "processor": "ARMv8 Processor rev 0",
    "cores": 8,
    "gpu": "Xavier",
    "device": "cuda",
    "power_mode": "MAXN",
}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """data/runs of another repository: this machine's run, and one of a Xavier with power."""
    monkeypatch.setattr(runs, "RUNS", tmp_path)
    here = environment.record()
    row = {
        "row": "measured",
        "framework": "PyTorch",
        "precision": "FP32",
        "network": "3.4 M parameters",
        "dataset": "demo",
        "accuracy": 0.61,
        "accuracy_low": 0.55,
        "accuracy_high": 0.66,
        "eao": 0.5,
        "fps_tracked": 12.34,
    }
    for name, record, more in (
        ("local", here, {}),
        (
            "xavier",
            {**here, "hardware": {**here["hardware"], **XAVIER}},
            {"power_w": 21.5, "energy_j": 1.9, "sensor": "tegrastats", "rail": "GPU"},
        ),
    ):
        runs.write_environment(name, record)
        about = {
            "run": "its name there",
            "hardware": environment.label(record),
            "date": record["date"],
        }
        table = pd.DataFrame([{**row, **about, **more}])
        for section in ("04_1_baseline", "04_3_power"):
            table.to_csv(tmp_path / name / f"{section}.csv", index=False)
    return tmp_path


def test_the_thesis_this_machine_and_recorded_runs_stand_in_one_table(folder: Path) -> None:
    table = appendix_runs.side_by_side(
        "04_1_baseline", "local", thesis.table("table_4_1"), "Table 4.1"
    )
    assert [row[0][0] for row in table.rows] == ["published", "thesis", "run local", "run xavier"]
    published, xavier, here, there = table.rows
    assert (
        xavier[0][1] == "NVIDIA Jetson Xavier AGX" and xavier[5] == "11" and published[2] == "0.6"
    )
    assert (
        environment.processor() in here[0][1]
        and here[5] == "12.3"
        and here[2] == ("0.610", "0.550–0.660")
    )
    assert "8 cores ARMv8 Processor rev 0" in there[0][1] and "mode MAXN" in there[0][1]

    table = appendix_runs.side_by_side(
        "04_3_power", "local", thesis.table("table_4_6"), "Table 4.6", power=True
    )
    assert [row[0][0] for row in table.rows] == ["thesis"] * 4 + ["run local", "run xavier"], (
        "a run is its folder"
    )
    first, here, there = table.rows[0], *table.rows[4:]
    assert first[3:] == ["21.378", "1.94", "–", "–"] and here[5] == "–"
    assert there[2:] == ["12.3", ("–", "tegrastats, GPU"), "–", "21.500", "1.9"]


def test_without_other_runs_a_sentence_says_how_to_get_one(folder: Path) -> None:
    text = appendix_runs.side_by_side("04_2_engines", "local", thesis.table("table_4_2"), "x")
    assert (
        text.startswith("No other run under data/runs has this section.")
        and "make book RUN=NAME" in text
    )
    (folder / "xavier" / "04_1_baseline.csv").write_text("")
    with pytest.raises(InputError, match=r"04_1_baseline\.csv: not a table"):
        appendix_runs.side_by_side("04_1_baseline", "local", thesis.table("table_4_1"), "x")


def test_all_runs_are_listed_with_what_may_be_done_to_them(folder: Path) -> None:
    (folder / "xavier" / "demo" / "tensorrt-fp16").mkdir(parents=True)
    (folder / "xavier" / "demo" / "tensorrt-fp16" / "measured.json").write_text("{}")
    local, xavier = appendix_runs.all_runs("cpu").rows
    assert local[0] == ("local", "this machine's own") and xavier[0] == (
        "xavier",
        "recorded on another machine: read only",
    )
    assert "8 cores ARMv8" in xavier[1][0] and xavier[2] == ("1 variants", "on demo")
    assert xavier[3:] == ["04_1_baseline, 04_3_power", "–"], (
        "a section's table of power is no log of a sensor"
    )
    (folder / "xavier/demo/tensorrt-fp16/baseline/one").mkdir(parents=True)
    (folder / "xavier/demo/tensorrt-fp16/baseline/one/one_001_power.csv").write_text("")
    assert appendix_runs.all_runs("cpu").rows[1][4] == "yes"


def test_times_of_notebooks_are_those_that_a_run_holds(folder: Path) -> None:
    assert "No run holds the times" in appendix_runs.notebook_times()
    times = (
        "notebook,status,seconds,started,message\n04_1_baseline,done,12.5,2026-01-01 10:00 UTC,\n"
        "04_2_engines,failed,3,now,no GPU\n"
    )
    (folder / "local" / runs.NOTEBOOKS).write_text(times)
    table = appendix_runs.notebook_times()
    assert table.rows[0] == ["local", "04_1_baseline", "done", "12.5", "2026-01-01 10:00 UTC", ""]
    assert table.rows[1][-1] == "no GPU" and "16 s in all" in table.caption


def test_this_machine_is_described(folder: Path) -> None:
    text = str(appendix_runs.machine(environment.record(), "no power sensor here (a desk)"))
    assert (
        environment.processor() in text
        and "no power sensor here (a desk)" in text
        and "torch" in text
    )


def test_a_jetsons_power_mode_is_part_of_the_hardware(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "nvpmodel"
    program.write_text(
        f"#!{sys.executable}\nprint('NV Fan Mode:quiet\\nNV Power Mode: MAXN\\n0')\n"
    )
    program.chmod(0o755)
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
    (tmp_path / "lib" / "report" / "appendix_runs.py").write_text("")
    (tmp_path / "lib" / "plain.py").write_text("")

    def parts(module: str, run: str = "mine") -> dict[str, str]:
        cells = [{"cell_type": "code", "metadata": {}, "source": f"import lib.{module}"}]
        return book.fingerprint({"cells": cells, "metadata": {}}, tmp_path, {"run": run})

    def write(run: str, name: str, text: str) -> None:
        (folder / run).mkdir(parents=True, exist_ok=True)
        (folder / run / name).write_text(text)

    before, plain = parts("report.appendix_runs"), parts("plain")
    for run in ("mine", "local"):
        write(run, "04_1_baseline.csv", "a\n1\n")
        own = environment.hardware(environment.device())
        write(run, "environment.json", json.dumps({"hardware": own}))
    assert parts("report.appendix_runs") == before
    write("xavier", "environment.json", json.dumps({"hardware": XAVIER}))
    assert parts("report.appendix_runs") != before and parts("plain") == plain
    shown = parts("plain", "xavier")
    write("xavier", "04_1_baseline.csv", "a\n22\n")
    assert parts("plain", "xavier") != shown, (
        "the run that is shown was recorded elsewhere and copied anew"
    )


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
    assert "No power sensor here" in text and "papermill notebooks/04_3_power.ipynb" in text
    assert (
        "1.943" in text
        and "printed: 1.94 kJ" in text
        and "4 of 4 energies are right in joules" in text
    )
    assert sum(isinstance(each, Figure) for each in first) == 1
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


def test_the_page_of_machine_and_runs_shows_them(folder: Path) -> None:
    text = text_of(page("B_runs", run="local"))
    assert environment.processor() in text and "power sensor" in text and "8 cores ARMv8" in text
