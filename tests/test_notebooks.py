"""Sections 3.3 and 4.1 run as notebooks, on two real sequences: what a page prints is what lies in
the run's files."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
import pytest
import torch

from lib.vot.dataset import load_dataset
from lib.vot.metrics import Evaluation, bootstrap, evaluate
from lib.vot.results import read_results

pytestmark = pytest.mark.slow
pytest.importorskip("papermill", reason="papermill is missing: install the `test` extra")

ROOT = Path(__file__).parent.parent
FRAMES = 50  # of each sequence
# Threads that wait for each other make a machine with other work crawl; every process has the
# same, or speeds were stale.
ONE_THREAD = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
MEASURE = """
import sys
from lib.measure import quality, variants
if __name__ == "__main__":
    dataset, weights, run = sys.argv[1:]
    data = variants.open_dataset(dataset, run)
    quality.measure(variants.baseline(weights), data, run, shown=False)
"""
# What the pages find in the run: speeds that were measured before. Here they are those of a tiny
# network.
SPEEDS = """
import sys
from lib.measure import full_size, speed
from lib.siamrpn.network import NetworkConfig
speed.REST, speed.TURN_SECONDS, speed.TRIES = 0.0, 0.0, 1
full_size.random_network = lambda config: speed.random_network(NetworkConfig.resnet50(1 / 32))
full_size.baseline_speed(sys.argv[1])
"""


class Executed(NamedTuple):
    """The baseline's run: its folder, the notebook with outputs, files that were there after a
    kill, and their times."""

    run: Path
    sequences: Path
    notebook: dict[str, Any]
    killed: dict[Path, int]


@pytest.fixture(scope="module")
def sequences(shared: Path, first_frames: Any) -> Path:
    folder = shared / "sequences" / "VOT2018"
    if not folder.is_dir():
        pytest.skip(
            f"the two real VOT2018 sequences are not on this machine: {folder} does not exist"
        )
    return first_frames(folder, (folder / "list.txt").read_text().split(), FRAMES)


@pytest.fixture(scope="module")
def executed(sequences: Path, shared: Path, tmp_path_factory: pytest.TempPathFactory) -> Executed:
    """A measurement killed after its first sequence, then the notebook on the same run."""
    folder = tmp_path_factory.mktemp("baseline")
    run = folder / "run"
    process = subprocess.Popen(
        [sys.executable, "-c", MEASURE, str(sequences), "demo", str(run)], cwd=ROOT, env=ONE_THREAD
    )
    while process.poll() is None and not raw_files(run):
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL, "the measurement ended before it was killed"
    killed = {path: path.stat().st_mtime_ns for path in raw_files(run)}
    assert len(killed) == 1, "the kill came between the two sequences"
    subprocess.run([sys.executable, "-c", SPEEDS, str(run)], cwd=ROOT, env=ONE_THREAD, check=True)
    notebook = execute("04_1_baseline", folder, sequences, run, vot2018_results=shared / "vot2018")
    return Executed(run, sequences, notebook, killed)


def execute(name: str, folder: Path, dataset: Path, run: Path, **more: Any) -> dict[str, Any]:
    """Run a notebook as the README says, and return it with its outputs."""
    parameters = {"dataset": dataset, "run": run, **more}
    options = [word for key, value in parameters.items() for word in ("-r", key, str(value))]
    command = [
        sys.executable,
        "-m",
        "papermill",
        f"notebooks/{name}.ipynb",
        str(folder / f"{name}.ipynb"),
        "--cwd",
        "notebooks",
    ]
    result = subprocess.run(
        [*command, *options], cwd=ROOT, env=ONE_THREAD, capture_output=True, text=True
    )
    assert result.returncode == 0, result.stderr[-3000:]
    return json.loads((folder / f"{name}.ipynb").read_text(encoding="utf-8"))


def raw_files(run: Path) -> list[Path]:
    return sorted(run.glob("*/*/baseline/*/*_001.txt"))


def outputs(notebook: dict[str, Any], kind: str) -> list[str]:
    found = [
        out.get("data", {}).get(kind)
        for cell in notebook["cells"]
        for out in cell.get("outputs", [])
    ]
    return ["".join(text) for text in found if text]


def rows(notebook: dict[str, Any], head: str) -> list[list[list[str]]]:
    """The rows of the table with this head: cells as lines of text."""
    [table] = [html for html in outputs(notebook, "text/html") if head in html]
    body = table.split("<tbody>")[1]
    cells = [
        re.findall(r"<t[hd].*?>(.*?)</t[hd]>", row) for row in re.findall(r"<tr>(.*?)</tr>", body)
    ]
    return [
        [[re.sub(r"<[^>]+>", "", line) for line in cell.split("<br>")] for cell in row]
        for row in cells
    ]


@pytest.fixture(scope="module")
def table(executed: Executed) -> list[list[list[str]]]:
    """The rows of table 4.1."""
    return rows(executed.notebook, "Whose number")


@pytest.fixture(scope="module")
def independent(executed: Executed) -> Evaluation:
    """The run's raw files, evaluated without the code that made them."""
    dataset = load_dataset(executed.sequences)
    return evaluate(dataset, read_results(executed.run / "VOT2018" / "pytorch-fp32", dataset))


def test_the_table_is_what_the_raw_files_say(
    executed: Executed, independent: Evaluation, table: list[list[list[str]]]
) -> None:
    whose = [row[0][0] for row in table]
    assert whose == ["published", "thesis", "published", "measured now", "measured now"]
    intervals = bootstrap(independent)
    for cell, measure in ((4, "accuracy"), (5, "robustness"), (6, "eao")):
        low, high = intervals[measure]
        value = f"{getattr(independent, measure):.3f}"
        assert table[3][cell][:2] == [value, f"{low:.3f}–{high:.3f}"], measure
    assert table[3][7][0] == f"{independent.failures:.0f}"
    record = pd.read_csv(executed.run / "04_1_baseline.csv").iloc[0]
    for measure in ("accuracy", "robustness", "failures", "eao"):
        assert record[measure] == pytest.approx(getattr(independent, measure))


def test_the_thesiss_and_the_published_rows_stand_beside(
    table: list[list[list[str]]], shared: Path
) -> None:
    paper, xavier, raw = table[:3]
    assert [cell[0] for cell in paper[4:9]] == ["0.6", "0.234", "0.414", "50", "35"]
    assert [cell[0] for cell in xavier[4:9]] == ["0.6", "0.243", "0.413", "52", "11"]
    told = json.loads((shared / "vot2018" / "expected.json").read_text())
    eao = told["trackers"]["SiamRPNpp_R50"]["eao"]["all"]
    assert raw[7][0] == "50" and raw[6][0] == f"{eao:.3f}"


def test_speed_is_the_full_size_networks_and_comes_from_the_run(
    executed: Executed, table: list[list[list[str]]]
) -> None:
    record = json.loads((executed.run / "speed" / "pytorch.json").read_text())
    assert float(table[4][9][0]) == pytest.approx(record["rows"][0]["fps"], abs=0.06)
    assert [table[3][cell][0] for cell in (8, 9)] == [table[4][4][0]] * 2, (
        "not timed, as its quality"
    )


def test_the_killed_measurement_was_continued(executed: Executed) -> None:
    now = {path: path.stat().st_mtime_ns for path in executed.killed}
    assert now == executed.killed, "what was complete is kept"
    assert len(raw_files(executed.run)) == 2


def test_every_figure_is_drawn_and_names_scale_run_and_machine(executed: Executed) -> None:
    figures = [cell for cell in executed.notebook["cells"] if "mystnb" in cell["metadata"]]
    assert len(figures) == 3
    drawn = [out["data"] for cell in figures for out in cell["outputs"]]
    assert all("image/svg+xml" in data for data in drawn[:2]) and len(drawn) == 3
    text = "\n".join(
        outputs(executed.notebook, "text/markdown") + outputs(executed.notebook, "text/html")
    )
    assert (
        "Demo scale: measured on VOT2018 (2 sequences, 100 frames)" in text
        and "not comparable" in text
    )
    assert "Run run," in text and f"PyTorch {torch.__version__.split('+')[0]}" in text


def test_running_again_measures_nothing_again(
    executed: Executed, table: list[list[list[str]]], tmp_path: Path
) -> None:
    kept = [*raw_files(executed.run), executed.run / "speed" / "pytorch.json"]
    before = {path: path.stat().st_mtime_ns for path in kept}
    again = execute("04_1_baseline", tmp_path, executed.sequences, executed.run)
    evaluation = execute("03_3_evaluation", tmp_path, executed.sequences, executed.run)
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert rows(again, "Whose number") == [*table[:2], *table[3:]], (
        "without raw results the published row is the paper's alone"
    )
    assert any(
        "No raw results of VOT2018 were given" in text for text in outputs(again, "text/markdown")
    )
    assert len(outputs(evaluation, "image/svg+xml")) == 5
    assert rows(evaluation, "EAO over")[0][1:5] == table[3][4:8], (
        "both chapters count the same failures"
    )
