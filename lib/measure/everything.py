"""All that the pages of a profile show, measured in one go with one progress display (`siambook
measure`)."""

from __future__ import annotations

import sys
from typing import Any, Mapping

from lib.environment import device
from lib.measure import full_power, full_size, latency, layers, pruned, quality, runs, start
from lib.measure import variants as lists
from lib.measure.variants import Variant
from lib.progress import progress


def variants(weights: str, framework: str) -> list[Variant]:
    """Every variant of chapter 4, each once."""
    every = [
        *lists.baseline(weights),
        *lists.mixtures(weights, framework),
        *lists.xcorr_recipes(weights, framework),
        *lists.calibrations(weights, framework),
        *layers.steps(weights, framework),
        *latency.trackers(framework),
    ]
    for tracker in pruned.trackers():
        every += pruned.variants(tracker, framework)
    return list(dict.fromkeys(every))


def measure(values: Mapping[str, Any], scheduler: str = "", workers: int = 0) -> dict[str, float]:
    """Fill the run of a profile: quality, speed, how engines start, power where there is a sensor.
    Goes on where it was stopped.

    values: the profile's parameters (dataset, weights, run, framework). Returns the work done by
    step, in frames of the demo tracker. Raises InputError as `quality.measure`. A recorded run is
    only read.
    """
    run, weights = str(values.get("run") or runs.LOCAL), str(values["weights"])
    if runs.is_recorded(run, device()):
        print(f"run {run} was recorded on another machine and is only read here", file=sys.stderr)
        return {}
    dataset = lists.open_dataset(str(values["dataset"]), run)
    framework = lists.compiled_framework(str(values.get("framework", "auto")), run)
    chosen = variants(weights, framework)
    todo = {
        "quality": quality.work(chosen, dataset, run, scheduler, workers),
        "speed": full_size.work(run, framework),
        "start": start.work(run, framework),
    }
    with progress(sum(todo.values()), "measuring", any(todo.values())) as bar:
        if todo["quality"]:
            quality.measure(chosen, dataset, run, scheduler=scheduler, workers=workers, bar=bar)
        if todo["speed"]:
            full_size.engine_speed(run, framework, bar)
        if todo["start"]:
            start.started(run, framework, bar)
        bar.set_description("power", refresh=False)
        full_power.full_size_power(run, framework, bar=bar)
        bar.set_description("measured", refresh=False)
    return todo
