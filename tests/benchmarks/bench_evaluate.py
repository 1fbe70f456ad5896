"""Time of a whole evaluation of VOT2018, from the start of Python to the JSON, beside PySOT's
compiled toolkit.

Run as `python tests/benchmarks/bench_evaluate.py`.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
# Seconds of PySOT's compiled toolkit for accuracy and robustness, EAO, and EAO of all tags
# (pysot_parity/README.md beside the repository); its start and its reading of the annotations
# come on top.
PYSOT_SECONDS = (0.40 + 0.45 + 0.97, 0.48 + 0.58 + 1.31)
LIMIT = 2.0
CODE = """
import json, sys
from lib.vot.dataset import load_dataset
from lib.vot.metrics import bootstrap, evaluate
from lib.vot.results import read_results
dataset = load_dataset(sys.argv[2])
evaluation = evaluate(dataset, read_results(sys.argv[1], dataset))
json.dumps({**evaluation.as_dict(), "intervals": bootstrap(evaluation)})
"""


def seconds(results: Path, dataset: Path) -> tuple[float, float]:
    """Wall and processor seconds of a fresh Python that evaluates one tracker, intervals
    included."""
    wall, before = time.perf_counter(), os.times()
    subprocess.run(
        [sys.executable, "-c", CODE, str(results), str(dataset)], cwd=str(ROOT), check=True
    )
    after = os.times()
    spent = (
        after.children_user + after.children_system - before.children_user - before.children_system
    )
    return time.perf_counter() - wall, spent


def main() -> None:
    vot2018 = ROOT.parent / "shared" / "vot2018"
    if not vot2018.is_dir():
        sys.exit(f"{vot2018} is missing: the annotations and raw results are there")
    for results in sorted((vot2018 / "results").iterdir()):
        runs = [seconds(results, vot2018 / "VOT2018.json") for _ in range(3)]
        wall, spent = (statistics.median(run[i] for run in runs) for i in (0, 1))
        print(
            f"{results.name:14s} {wall:5.2f} s ({spent:4.2f} s of processor, at most {LIMIT:.0f} are meant), "
            f"PySOT's toolkit {PYSOT_SECONDS[0]:.1f} to {PYSOT_SECONDS[1]:.1f} s"
        )


if __name__ == "__main__":
    main()
