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
from lib.measure import power, runs
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


def test_the_page_of_machine_and_runs_shows_them(folder: Path) -> None:
    text = text_of(page("B_runs", run="local"))
    assert environment.processor() in text and "power sensor" in text and "8 cores ARMv8" in text
