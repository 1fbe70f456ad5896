"""All that the pages of a profile show, measured in one go with one progress display (`siambook
measure`)."""

from __future__ import annotations

import sys
from typing import Any, Collection, Mapping

from lib.environment import device
from lib.measure import full_power, full_size, latency, layers, pruned, quality, runs, start
from lib.measure import variants as lists
from lib.measure.variants import Variant
from lib.progress import progress

STEPS = ("quality", "speed", "start", "power")


def every_variant(weights: str, framework: str) -> list[Variant]:
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


def measure(
    values: Mapping[str, Any], scheduler: str = "", workers: int = 0, only: Collection[str] = STEPS
) -> dict[str, float]:
    """Fill the run of a profile: quality, speed, how engines start, power where there is a sensor.
    Goes on where it was stopped.

    values: the profile's parameters (dataset, weights, run, framework). only: these steps;
    quality alone needs the dataset and the weights. Returns the work done by step, in frames of the
    demo tracker. Raises InputError as `quality.measure`. A recorded run is only read.
    """
    run, weights = str(values.get("run") or runs.LOCAL), str(values["weights"])
    if runs.is_recorded(run, device()):
        print(f"run {run} was recorded on another machine and is only read here", file=sys.stderr)
        return {}
    framework = lists.compiled_framework(str(values.get("framework", "auto")), run)
    todo = {"speed": full_size.work(run, framework), "start": start.work(run, framework)}
    if "quality" in only:
        dataset = lists.open_dataset(str(values["dataset"]), run)
        chosen = every_variant(weights, framework)
        todo["quality"] = quality.work(chosen, dataset, run, scheduler, workers)
    todo = {step: work for step, work in todo.items() if step in only}
    with progress(sum(todo.values()), "measuring", any(todo.values())) as bar:
        if todo.get("quality"):
            quality.measure(chosen, dataset, run, scheduler=scheduler, workers=workers, bar=bar)
        if todo.get("speed"):
            full_size.engine_speed(run, framework, bar)
        if todo.get("start"):
            start.started(run, framework, bar)
        if "power" in only:
            bar.set_description("power", refresh=False)
            full_power.full_size_power(run, framework, bar=bar)
        bar.set_description("measured", refresh=False)
    return todo


def speeds(values: Mapping[str, Any]) -> list[str]:
    """What a run has measured of the whole full-size network, a line per framework and precision."""
    run = str(values.get("run") or runs.LOCAL)
    framework = lists.compiled_framework(str(values.get("framework", "auto")), run)
    speed = full_size.engine_speed(run, framework)
    line = "{framework} {precision}: {fps:.1f} FPS, {ratio:.2f} times PyTorch FP32"
    rows = [line.format(**row) for row in speed.whole]
    return [*rows, *speed.missing, speed.note]
