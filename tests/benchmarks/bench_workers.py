"""How long quality takes with more workers: the recorded tasks of a run, scheduled on 1, 2, 8 and
32 workers.

    python tests/benchmarks/bench_workers.py data/runs/local/demo-benchmark/tasks.csv

Tasks are handed out in their order, each to the worker that is free first, phase by phase, as
`lib.measure.executors` does. What a worker takes to start and to load engines is in its first
tasks. The longest task and the idle share say what limits.
"""

from __future__ import annotations

import heapq
import sys

import pandas as pd


def makespan(tasks: pd.DataFrame, workers: int) -> float:
    """Seconds until the last task of the last phase is done."""
    end = 0.0
    for _, phase in tasks.groupby("phase"):
        free = [end] * workers
        heapq.heapify(free)
        for seconds in phase["seconds"]:
            heapq.heappush(free, heapq.heappop(free) + seconds)
        end = max(free)
    return end


def main(path: str) -> None:
    tasks = pd.read_csv(path)
    total, longest = tasks["seconds"].sum(), tasks.loc[tasks["seconds"].idxmax()]
    print(
        f"{len(tasks)} tasks, {total:.0f} s of one worker; the longest takes {longest['seconds']:.1f} s ({longest['of']})"
    )
    for workers in (1, 2, 8, 32):
        took = makespan(tasks, workers)
        idle = 1 - total / (workers * took)
        print(
            f"{workers:>3} workers: {took:7.1f} s, {total / took:5.2f} times as fast as one, {100 * idle:.0f} % idle"
        )


if __name__ == "__main__":
    main(sys.argv[1])
