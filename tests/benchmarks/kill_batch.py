"""Batches killed at random moments: `python tests/benchmarks/kill_batch.py [--kills 20] [--seed 0]
[--csv FILE]`.

Small forms of the notebooks of sections 4.1 and 4.2 (tracking with PyTorch and OpenVINO, speed of a
narrow network, a calibration made from the frames that are tested) on two generated sequences, in a
copy of lib/ with runs and a cache of its own. One run is left alone; others are killed (SIGKILL)
and started again until they are done, each with an empty cache, and must come to the same tables
apart from times. After every kill all files must be whole and no kernel be left. Exits with 1 where
that fails. OpenVINO numbers the layers of all that a process builds, so the same plan is some bytes
longer when built later: sizes may differ by a thousandth.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import random
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from measure.helpers import alive, children  # noqa: E402

from lib.demo import list_specs, make_benchmark  # noqa: E402

# Columns that no two runs have the same
TIMES = re.compile(r"fps.*|.*_ms.*|.*ratio.*|build_s|date|run|seconds|started")
SIZE = "plan_mb"
FRAMES = 30  # of a sequence
SHARE = 0.6  # of the undisturbed time, before which a kill comes
HEAD = """from lib.measure import runs
from lib.measure import full_size, quality, variants
from lib.siamrpn.network import NetworkConfig
data = variants.open_dataset(dataset, run)
full_size.timed_configs = lambda: [(1, NetworkConfig.resnet50(0.125))]
full_size.ROUNDS = 1"""
SECTION = "runs.write_section(run, '{}', [one.row() for one in measured]);"
NOTEBOOKS = {
    "04_1_baseline": [
        "measured = quality.measure(variants.baseline(weights), data, run)",
        "large = full_size.baseline_speed(run)",
        "runs.write_section(run, '04_1_baseline', [measured[0].row(), large]);",
    ],
    "04_2_engines": [
        "measured = quality.measure(variants.engines(weights, framework)[::2], data, run)",
        SECTION.format("04_2_engines"),
    ],
    "04_2_1_calibration": [
        "measured = quality.measure(variants.calibrations(weights, framework)[3:4], data, run)",
        SECTION.format("04_2_calibration"),
    ],
    "B_runs": [
        "from lib import environment",
        "from lib.report import others",
        "others.HOW",
    ],
}
PARAMETERS = "dataset = 'demo'\nweights = 'demo'\nframework = 'auto'\nrun = 'local'"


def make_book(root: Path) -> None:
    """A book of these notebooks, beside a copy of the library."""
    shutil.copytree(ROOT / "lib", root / "lib", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("notebooks", "profiles", "data"):
        (root / name).mkdir()
    (root / "data" / "demo").symlink_to(ROOT / "data" / "demo")
    make_sequences(root / "sequences")
    for name, cells in NOTEBOOKS.items():
        tagged = [(["parameters"], PARAMETERS), ([], HEAD), *(([], cell) for cell in cells)]
        code = [
            {
                "cell_type": "code",
                "id": f"c{number}",
                "metadata": {"tags": tags},
                "source": source,
                "outputs": [],
                "execution_count": None,
            }
            for number, (tags, source) in enumerate(tagged)
        ]
        notebook = {"nbformat": 4, "nbformat_minor": 5, "metadata": {}, "cells": code}
        (root / "notebooks" / f"{name}.ipynb").write_text(json.dumps(notebook))
    (root / "_toc.yml").write_text(
        "root: intro\nchapters:\n" + "".join(f"- file: notebooks/{name}\n" for name in NOTEBOOKS)
    )
    (root / "profiles" / "demo.yaml").write_text(
        f"dataset: {root}/sequences\nframework: openvino\n"
    )


def make_sequences(folder: Path) -> None:
    """The first frames of two sequences of the demo benchmark."""
    make_benchmark(folder, [spec.name for spec in list_specs()[:2]])
    for file in folder.glob("*/*.t*"):
        file.write_text("".join(file.read_text().splitlines(keepends=True)[:FRAMES]))
    for sequence in folder.glob("*/color"):
        for frame in sorted(sequence.iterdir())[FRAMES:]:
            frame.unlink()


def start(root: Path, run: str) -> subprocess.Popen[bytes]:
    environ = {
        name: value for name, value in os.environ.items() if not name.startswith("SIAMBOOK_")
    }
    environ.update(PYTHONPATH=str(root), OMP_NUM_THREADS="1")
    command = [sys.executable, "-m", "lib.cli", "run", "--run", run]
    with open(root / f"{run}.log", "ab") as log:
        return subprocess.Popen(command, cwd=root, env=environ, stdout=log, stderr=log)


def left(kernels: set[int], seconds: float = 2.0) -> int:
    """How many of the processes are there after some time."""
    end = time.monotonic() + seconds
    while any(map(alive, kernels)) and time.monotonic() < end:
        time.sleep(0.02)
    return sum(map(alive, kernels))


def broken(folder: Path) -> list[str]:
    """Files that are not whole; temporary ones, whose names begin with a dot, may be anything."""
    found = []
    for path in (
        each
        for each in sorted(folder.rglob("*"))
        if each.is_file() and not each.name.startswith(".")
    ):
        try:
            if path.suffix in (".json", ".ipynb"):
                json.loads(path.read_text(encoding="utf-8"))
            # Which is empty where nothing was lost
            elif path.suffix == ".csv" and not path.stem.endswith("_lost"):
                pd.read_csv(path, comment="#")
        except ValueError as error:
            found.append(f"{path}: {' '.join(str(error).split())}")
    return found


def tables(run: Path) -> dict[str, pd.DataFrame]:
    """What must be the same: the sections' tables and the state of the notebooks without times, and
    the raw results."""
    found = {path.name: pd.read_csv(path) for path in sorted(run.glob("[!.]*.csv"))}
    found = {
        name: table[[column for column in table if not TIMES.fullmatch(column)]]
        for name, table in found.items()
    }
    for path in sorted(run.rglob("*_001.txt")):
        found[str(path.relative_to(run))] = pd.DataFrame(path.read_text().splitlines())
    return found


def differences(one: dict[str, pd.DataFrame], other: dict[str, pd.DataFrame]) -> list[str]:
    """What two runs do not have the same, in words."""
    found = [f"{name} is in one alone" for name in sorted({*one} ^ {*other})]
    for name in sorted({*one} & {*other}):
        if list(one[name]) != list(other[name]) or len(one[name]) != len(other[name]):
            found.append(f"{name} has other rows or columns")
            continue
        for column in one[name]:
            values = [table[name][column].tolist() for table in (one, other)]
            close = column == SIZE and np.allclose(*values, rtol=1e-3, atol=0, equal_nan=True)
            if not (close or one[name][column].equals(other[name][column])):
                found.append(f"{name}, {column}: {values[0]} and not {values[1]}")
    return found


def where(run: Path) -> str:
    """The notebook that a killed batch was in, or had just finished."""
    logs = sorted(run.glob("notebooks/*.log"), key=lambda path: path.stat().st_mtime_ns)
    return logs[-1].stem if logs else "none"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--minutes", type=float, default=9.0, help="no kill after that")
    parser.add_argument("--csv", metavar="FILE", help="gets a row a kill")
    options = parser.parse_args()
    draw, begin, faults, kills = random.Random(options.seed), time.monotonic(), [], []
    with tempfile.TemporaryDirectory(prefix="kill_batch") as folder:
        root = Path(folder)
        make_book(root)
        runs, number = root / "data" / "runs", 1
        undisturbed = time.monotonic()
        if start(root, "undisturbed").wait():
            sys.exit((root / "undisturbed.log").read_text())
        undisturbed = time.monotonic() - undisturbed
        expected, took = (
            tables(runs / "undisturbed"),
            pd.read_csv(runs / "undisturbed" / "notebooks.csv"),
        )
        print(
            f"seed {options.seed}; undisturbed: {undisturbed:.0f} s "
            f"({', '.join(f'{name} {seconds:.0f}' for name, seconds in zip(took['notebook'], took['seconds']))}), "
            f"{len(expected)} tables and raw files",
            flush=True,
        )
        shutil.rmtree(root / "data" / "cache")
        while True:
            run = f"killed-{number}"
            killing = len(kills) < options.kills and time.monotonic() - begin < 60 * options.minutes
            # Mostly early, so that notebooks are left and begun, too
            delay = SHARE * undisturbed * draw.random() ** 2
            process = start(root, run)
            try:
                status = process.wait(delay if killing else None)
            except subprocess.TimeoutExpired:
                kernels = children(process.pid)
                process.kill()
                process.wait()
                row: dict[str, Any] = {
                    "kill": len(kills) + 1,
                    "run": run,
                    "after_s": round(delay, 2),
                    "in": where(runs / run),
                    "kernels": len(kernels),
                    "left": left(kernels),
                    "broken": broken(root / "data" / "runs"),
                }
                kills.append(row)
                print(", ".join(f"{key} {value}" for key, value in row.items()), flush=True)
                faults += [f"kill {row['kill']}: {row['left']} kernels left"] * bool(
                    row["left"]
                ) + row["broken"]
                continue
            faults += [f"{run}: {(root / f'{run}.log').read_text()}"] * bool(status)
            faults += [
                f"{run}: {difference}" for difference in differences(tables(runs / run), expected)
            ]
            print(f"{run} is done", flush=True)
            if not killing:
                break
            shutil.rmtree(root / "data" / "cache", ignore_errors=True)
            number += 1
        stray = [
            path for path in (root / "data").rglob(".*") if path.name not in (".lock", ".batch")
        ]
    for fault in faults:
        print(fault)
    if options.csv:
        with open(options.csv, "w", newline="") as stream:
            writer = csv.DictWriter(stream, list(kills[0]))
            writer.writeheader()
            writer.writerows(kills)
    print(
        f"{len(kills)} kills with seed {options.seed} in {number} runs, {(time.monotonic() - begin) / 60:.1f} minutes: "
        f"{len(expected)} tables and raw files of each are those of an undisturbed run but for {len(faults)} faults; "
        f"{len(stray)} temporary files left by kills"
    )
    print("\n".join(sorted({re.sub(r"\d{3,}", "PID", path.name) for path in stray})))
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
