"""What fresh memory costs PyTorch: `python tests/benchmarks/bench_faults.py [--rounds N]`.

Times the full-size network in PyTorch FP32 in processes that take turns: with the C library as it is,
which gives large tensors back to the system and takes fresh memory for the next frame, and told to
keep memory (glibc's MALLOC_ variables). Prints milliseconds and page faults of a frame.
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys

import numpy as np

KEEP = {
    "MALLOC_MMAP_THRESHOLD_": "4000000000",
    "MALLOC_TRIM_THRESHOLD_": "8000000000",
    "MALLOC_TOP_PAD_": "200000000",
}
FRAMES = 12


def faults() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt


def frames() -> None:
    """Time frames in this process."""
    from lib.measure.speed import Timed, full_size_network, timing_deployment
    from lib.measure.variants import baseline

    timed = Timed(0, timing_deployment(full_size_network(), "pytorch"), baseline("")[0])
    before = faults()
    seconds = [timed.tracker.timed(timed.frames[0])["frame"] for _ in range(FRAMES)]
    print(f"{1000 * np.median(seconds):.0f} ms, {(faults() - before) / FRAMES:.0f} page faults")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--here", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.here:
        frames()
        return
    for _ in range(options.rounds):
        for name, variables in (("as it is", {}), ("memory kept", KEEP)):
            print(f"{name:<12}", end=" ", flush=True)
            call = [sys.executable, __file__, "--here"]
            subprocess.run(call, check=True, env={**os.environ, **variables})


if __name__ == "__main__":
    main()
