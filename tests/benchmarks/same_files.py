"""Whether raw files are the same, byte for byte: with 1 worker, 2 workers, a Dask cluster of 2, and
after ten kills at random.

    python tests/benchmarks/same_files.py [SEQUENCES] [KILLS]

Prints a digest of all raw files of each way, and how often and when the measurement was killed;
takes some minutes.
"""

from __future__ import annotations

import hashlib
import os
import random
import re
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
MEASURE = """
import sys
from lib.measure import quality, variants
from lib.vot.dataset import load_dataset

if __name__ == "__main__":
    folder, run, workers, scheduler = sys.argv[1:]
    chosen = [*variants.baseline("demo"), *variants.engines("demo", "openvino"), *variants.xcorr_recipes("demo", "openvino")[1:3],
              variants.mixture("demo", "openvino", ("int8", "fp32", "fp16"))]
    quality.measure(chosen, load_dataset(folder), run, shown=False, workers=int(workers), scheduler=scheduler)
"""


def digest(run: Path) -> str:
    """Of all raw files: names and bytes."""
    sha = hashlib.sha256()
    files = sorted(run.rglob("*_001.txt"))
    for path in files:
        sha.update(str(path.relative_to(run)).encode() + path.read_bytes())
    return f"{sha.hexdigest()[:16]} ({len(files)} files)"


def start(
    script: Path, folder: Path, run: Path, workers: int, scheduler: str = ""
) -> subprocess.Popen:
    command = [sys.executable, str(script), str(folder), str(run), str(workers), scheduler]
    return subprocess.Popen(command, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)})


def on_dask(script: Path, folder: Path, run: Path) -> None:
    """A scheduler and two workers on this machine, for one measurement."""
    environ = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [
        sys.executable,
        "-m",
        "distributed.cli.dask_scheduler",
        "--host",
        "127.0.0.1",
        "--port",
        "0",
        "--no-dashboard",
    ]
    scheduler = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environ, cwd=ROOT)
    assert scheduler.stderr is not None
    address = next(
        found[0]
        for line in scheduler.stderr
        if (found := re.search(r"tcp://127\.0\.0\.1:\d+", line))
    )
    command = [
        sys.executable,
        "-m",
        "distributed.cli.dask_worker",
        address,
        "--nthreads",
        "1",
        "--nworkers",
        "2",
    ]
    workers = subprocess.Popen(
        [*command, "--no-dashboard"], stderr=subprocess.DEVNULL, env=environ, cwd=ROOT
    )
    try:
        assert start(script, folder, run, 0, address).wait() == 0
    finally:
        workers.terminate()
        scheduler.terminate()


def main(count: int = 4, kills: int = 10) -> None:
    from lib.demo import list_specs, make_benchmark

    with tempfile.TemporaryDirectory() as place:
        runs, script = Path(place), Path(place) / "measure.py"
        script.write_text(MEASURE)
        names = [spec.name for spec in list_specs()]
        folder = make_benchmark(runs / "small", names[:: max(1, len(names) // count)][:count])
        took = {}
        for workers in (1, 2):
            begin = time.perf_counter()
            assert start(script, folder, runs / str(workers), workers).wait() == 0
            took[workers] = time.perf_counter() - begin
            print(
                f"{workers} worker(s): {digest(runs / str(workers))}, {took[workers]:.0f} s",
                flush=True,
            )
        on_dask(script, folder, runs / "dask")
        print(f"Dask, 2 workers: {digest(runs / 'dask')}", flush=True)
        when = []
        for _ in range(kills):
            process = start(script, folder, runs / "killed", 2)
            wait = random.uniform(3.0, 3.0 + took[2] / 3)
            try:
                process.wait(wait)
            except subprocess.TimeoutExpired:
                process.send_signal(signal.SIGKILL)
                process.wait()
                when.append(f"{wait:.0f} s: {len(list((runs / 'killed').rglob('*_001.txt')))}")
        assert start(script, folder, runs / "killed", 2).wait() == 0
        print(
            f"killed {len(when)} times (after: files there) {', '.join(when)}: {digest(runs / 'killed')}"
        )


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    main(*map(int, sys.argv[1:]))
