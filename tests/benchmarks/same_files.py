"""Whether raw files are the same, byte for byte: with 1 worker, 2 workers, a Dask cluster of 2, and
after ten kills at random.

    python tests/benchmarks/same_files.py [SEQUENCES] [KILLS]

Prints a digest of all raw files of each way, and how often and when the measurement was killed;
takes some minutes.
"""

from __future__ import annotations

import hashlib
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from measure.helpers import Dask, raw_files, start  # noqa: E402

from lib.demo import list_specs, make_benchmark  # noqa: E402

MEASURE = """
import sys
from lib.measure import quality, variants
from lib.vot.dataset import load_dataset

if __name__ == "__main__":
    folder, run, workers, scheduler = sys.argv[1:]
    chosen = [
        *variants.baseline("demo"),
        *variants.engines("demo", "openvino"),
        *variants.xcorr_recipes("demo", "openvino")[1:3],
        variants.mixture("demo", "openvino", ("int8", "fp32", "fp16")),
    ]
    quality.measure(chosen, load_dataset(folder), run, shown=False, workers=int(workers), scheduler=scheduler)
"""


def digest(run: Path) -> str:
    """Of all raw files: names and bytes."""
    files = raw_files(run)
    sha = hashlib.sha256()
    for name, content in files.items():
        sha.update(name.encode() + content)
    return f"{sha.hexdigest()[:16]} ({len(files)} files)"


def finish(process: subprocess.Popen) -> None:
    told = process.communicate()[1]
    assert process.returncode == 0, told


def main(count: int = 4, kills: int = 10) -> None:
    with tempfile.TemporaryDirectory() as place:
        names = [spec.name for spec in list_specs()]
        chosen = names[:: max(1, len(names) // count)][:count]
        runs, folder = Path(place), make_benchmark(Path(place) / "small", chosen)
        took = {}
        for workers in (1, 2):
            begin, run = time.perf_counter(), runs / str(workers)
            finish(start(MEASURE, folder, run, workers, ""))
            took[workers] = time.perf_counter() - begin
            print(f"{workers} worker(s): {digest(run)}, {took[workers]:.0f} s", flush=True)
        cluster = Dask(runs / "cluster")
        try:
            cluster.add("one")
            cluster.add("two")
            cluster.wait_for("one", "two")
            finish(start(MEASURE, folder, runs / "dask", 0, cluster.address))
        finally:
            cluster.close()
        print(f"Dask, 2 workers: {digest(runs / 'dask')}", flush=True)
        run, when = runs / "killed", []
        for _ in range(kills):
            process = start(MEASURE, folder, run, 2, "")
            wait = random.uniform(3.0, 3.0 + took[2] / 3)
            try:
                process.wait(wait)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
                when.append(f"{wait:.0f} s: {len(raw_files(run))}")
        finish(start(MEASURE, folder, run, 2, ""))
        print(f"killed {len(when)} times (after: files there) {', '.join(when)}: {digest(run)}")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
