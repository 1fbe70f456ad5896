"""All that the pages of a profile show, measured in one go with one progress display (`siambook
measure`)."""

from __future__ import annotations

import sys
from typing import Any, Dict, List, Mapping

from lib.environment import device
from lib.measure import full_power, full_size, pruned, quality, runs
from lib.measure.variants import (
    Variant,
    baseline,
    calibrations,
    compiled_framework,
    mixtures,
    open_dataset,
    xcorr_recipes,
)
from lib.progress import progress

# A turn of the full network in PyTorch FP32, building engines included, in frames of the demo
# tracker; for the time left alone.
TURN = 25.0


def variants(weights: str, framework: str) -> List[Variant]:
    """Every variant of chapters 3 and 4, each once."""
    ours = [
        variant for tracker in pruned.trackers() for variant in pruned.variants(tracker, framework)
    ]
    lists = (
        baseline,
        lambda name: mixtures(name, framework),
        lambda name: xcorr_recipes(name, framework),
    )
    every = [variant for make in lists for variant in make(weights)]
    return list(dict.fromkeys([*every, *calibrations(weights, framework), *ours]))


def measure(
    values: Mapping[str, Any], shown: bool = True, scheduler: str = "", workers: int = 0
) -> Dict[str, float]:
    """Fill the run of a profile: quality, speed, power where there is a sensor. Goes on where it
    was stopped.

    values: the profile's parameters (dataset, weights, run, framework). Returns the work done by
    step, in the units of the progress display. Raises InputError as `quality.measure`. A run of
    another machine is only read.
    """
    run, weights = str(values.get("run") or runs.LOCAL), str(values["weights"])
    if runs.is_recorded(run, device()):
        print(f"run {run} was recorded on another machine and is only read here", file=sys.stderr)
        return {}
    dataset = open_dataset(str(values["dataset"]), run, shown)
    framework = compiled_framework(str(values.get("framework", "auto")), run)
    chosen = variants(weights, framework)
    parallel = quality.parallel(scheduler, workers)
    todo = {
        "quality": quality.work(chosen, dataset, run) / parallel,
        "speed": full_size.work(run, framework) * TURN,
    }
    with progress(sum(todo.values()), "measuring", shown and sum(todo.values()) > 0) as bar:
        if todo["quality"]:
            quality.measure(
                chosen,
                dataset,
                run,
                scheduler=scheduler,
                workers=workers,
                bar=_Scaled(bar, 1 / parallel),
            )
        if todo["speed"]:
            full_size.engine_speed(run, framework, bar=_Scaled(bar, TURN))
        bar.set_description("power", refresh=False)
        full_power.full_size_power(run, framework)
        bar.set_description("measured", refresh=False)
    return todo


class _Scaled:
    """A bar for one of several steps, whose units are worth `factor` of the whole's."""

    def __init__(self, bar: Any, factor: float) -> None:
        self._bar, self._factor = bar, factor

    def update(self, amount: float) -> None:
        self._bar.update(amount * self._factor)

    def set_description(self, text: str, refresh: bool = True) -> None:
        self._bar.set_description(text, refresh)
