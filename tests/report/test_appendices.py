"""The pages about machine and runs, about the thesis's arithmetic, and where each figure went; runs side
by side."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from lib import environment
from lib.errors import InputError
from lib.measure import runs
from lib.report import audit, others, thesis

from .helpers import executed


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """This machine's run and one of a Xavier, under a folder of runs of their own."""
    monkeypatch.setattr(runs, "RUNS", tmp_path)
    here = environment.record()
    xavier: dict[str, Any] = {
        **here,
        "hardware": {
            "processor": "ARMv8 Processor rev 0 (v8l)",
            "cores": 8,
            "threads": 8,
            "gpu": "Xavier",
            "device": "cuda",
            "power_mode": "MAXN",
        },
        "date": "2026-01-01",
    }
    row = {
        "row": "measured",
        "framework": "PyTorch",
        "precision": "FP32",
        "network": "3.4 M parameters",
        "dataset": "demo",
        "accuracy": 0.61,
        "accuracy_low": 0.55,
        "accuracy_high": 0.66,
        "robustness": 0.3,
        "eao": 0.4,
        "fps_tracked": 12.34,
    }
    for name, record, more in (
        ("local", here, {}),
        ("xavier", xavier, {"power_w": 21.5, "energy_j": 1.9, "sensor": "tegrastats"}),
    ):
        (tmp_path / name).mkdir()
        runs.write_environment(name, record)
        about = {"hardware": environment.label(record), "date": record["date"]}
        for section in ("04_1_baseline", "04_3_power"):
            table = pd.DataFrame([{**row, **about, **more}])
            table.to_csv(tmp_path / name / f"{section}.csv", index=False)
    return tmp_path


def test_the_thesis_this_machine_and_recorded_runs_stand_in_one_table(folder: Path) -> None:
    table = others.other_runs("04_1_baseline", "local", "table_4_1", "Table 4.1")
    assert [row[0][0] for row in table.rows] == ["published", "thesis", "run local", "run xavier"]
    published, reported, here, there = table.rows
    assert reported[0][1] == "NVIDIA Jetson Xavier AGX" and reported[5] == "11"
    assert published[2] == "0.6" and here[5] == "12.3" and here[2] == ("0.610", "0.550–0.660")
    assert environment.processor() in here[0][1]
    assert "8 cores ARMv8" in there[0][1] and "mode MAXN" in there[0][1]
    power = others.other_runs("04_3_power", "local", "table_4_6", "Table 4.6", power=True)
    assert power.rows[0][3:] == ["21.378", "1.94", "–", "–"]
    assert power.rows[-1][2:] == ["12.3", "–", "–", "21.5", "1.900"]


def test_without_other_runs_a_sentence_says_how_to_get_one(folder: Path) -> None:
    text = others.other_runs("04_2_engines", "local", "table_4_2", "x")
    assert isinstance(text, str) and "make book RUN=NAME" in text
    (folder / "xavier" / "04_1_baseline.csv").write_text("")
    with pytest.raises(InputError, match=r"04_1_baseline\.csv: not a table"):
        others.other_runs("04_1_baseline", "local", "table_4_1", "x")


def test_the_page_of_runs_lists_machine_runs_and_times(folder: Path) -> None:
    (folder / "xavier/demo/tensorrt-fp16/baseline/one").mkdir(parents=True)
    (folder / "xavier/demo/tensorrt-fp16/measured.json").write_text("{}")
    (folder / "xavier/demo/tensorrt-fp16/baseline/one/one_001_power.json").write_text("")
    machine, every, times = (shown for _, shown in executed("B_runs").cells_shown)
    assert ["processor", environment.processor()] in machine.rows
    assert "power sensor" in [row[0] for row in machine.rows]
    (local, xavier) = every.rows
    assert local[0] == ("local", "this machine's own") and "read only" in xavier[0][1]
    assert xavier[2] == ("1 variants", "demo") and [local[-1], xavier[-1]] == ["–", "yes"]
    assert "No run here" in times
    log = "notebook,status,seconds,started,message\n04_1,done,12.5,now,\n04_2,failed,3,now,no GPU\n"
    (folder / "local" / runs.NOTEBOOKS).write_text(log)
    *_, times = (shown for _, shown in executed("B_runs").cells_shown)
    assert times.rows[0] == ["local", "04_1", "done", "12.5", "now", ""]
    assert times.rows[1][-1] == "no GPU"


def test_every_finding_of_the_audit_is_on_its_page_once() -> None:
    page = executed("C_audit")
    summary, _, *tables = (shown for _, shown in page.cells_shown)
    listed = [row for table in tables[:4] for row in table.rows]
    assert len(listed) == len(page.found) and summary.startswith(f"{len(page.found)} numbers")
    readings = [each.reading for each in page.found]
    assert f"**{readings.count('agrees')} agree**" in summary
    assert len(tables[3].rows) == readings.count("agrees")
    assert set(readings) - {"agrees"} <= set(audit.READINGS)
    for number, shown in enumerate(tables[4:], 1):
        reported = thesis.rows(f"table_4_{number}")
        assert len(shown.rows) == len(reported), "the tables as printed"
        values = [set(row.values()) | {"–"} for row in reported]
        assert all(set(row) <= own for row, own in zip(shown.rows, values))


def test_the_table_of_figures_links_pages() -> None:
    page = executed("C_reproduction")
    counts, table = (shown for _, shown in page.cells_shown)
    assert len(table.splitlines()) == len(page.rows) + 2
    assert "[section 4.2.1](04_2_1_mixed_precision.ipynb)" in table
    assert f"{sum(page.rows['state'] == 'made')} made" in counts
    json.dumps(table)
