"""What the thesis's claims are judged by: the trackers of a run, by the names that
data/thesis/scoreboard.csv uses for them."""

from __future__ import annotations

from dataclasses import dataclass, field
from math import nan
from pathlib import Path
from typing import Any, Mapping, NamedTuple, Sequence

from lib.engines.zoo import DEMO
from lib.errors import InputError
from lib.measure import full_size, pruned, quality, runs
from lib.measure.full_size import EngineSpeed
from lib.measure.measurement import Measurement
from lib.measure.variants import Variant, baseline, engines, mixtures
from lib.report.tables import is_known
from lib.vot.dataset import Dataset
from lib.vot.metrics import paired_bootstrap

BASE = "PyTorch FP32"
NOWHERE = Dataset("no benchmark", Path(), ())  # of claims that are not about quality
LEVEL = 0.95


class CannotTell(Exception):
    """Why a quantity is not to be had from a run, in words without a full stop."""


class Measured(NamedTuple):
    """A quantity of a run. low, high: its interval, NaN where there is none. source: from what."""

    value: float
    low: float = nan
    high: float = nan
    source: str = ""

    def __str__(self) -> str:
        return digits(self.value) + (f" {self.span}" if self.span else "")

    @property
    def span(self) -> str:
        return f"({digits(self.low)} to {digits(self.high)})" if is_known(self.low) else ""


@dataclass
class Evidence:
    """What a run has measured, by the names that scoreboard.csv uses: "PyTorch FP32", "engine
    FP16", "0.26 frozen" (in PyTorch), "0.26 frozen INT8".

    known: what a page has measured already; anything else is measured, or loaded, when a claim asks
    for it. weights, framework: as the pages name them.
    """

    run: str
    dataset: Dataset = NOWHERE
    weights: str = DEMO
    framework: str = "openvino"
    known: Sequence[Measurement] = field(default=(), repr=False)
    timed: EngineSpeed | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        self._measured = {one.variant.name: one for one in runs.there(self.known)}

    def variant(self, tracker: str) -> Variant:
        """The variant that a name of scoreboard.csv stands for."""
        first, *rest = tracker.split()
        if first in ("PyTorch", "engine"):
            every = [*baseline(self.weights), *engines(self.weights, self.framework)]
        else:
            training, *rest = rest
            every = pruned.variants(pruned.Tracker(float(first), training), self.framework)
        framework = "pytorch" if first == "PyTorch" or not rest else self.framework
        wanted = framework, *(rest or ["FP32"])
        return next(one for one in every if (one.framework, one.precision) == wanted)

    def measurement(self, variant: str | Variant) -> Measurement:
        """Raises CannotTell where a recorded run does not have it."""
        wanted = self.variant(variant) if isinstance(variant, str) else variant
        if wanted.name not in self._measured:
            [found] = quality.measure([wanted], self.dataset, self.run)
            if isinstance(found, runs.Lacking):
                raise CannotTell(found.note)
            self._measured[wanted.name] = found
        return self._measured[wanted.name]

    @property
    def speed(self) -> EngineSpeed:
        """Raises CannotTell where a recorded run does not have it."""
        if self.timed is None:
            self.timed = full_size.engine_speed(self.run, self.framework)
        if isinstance(self.timed, runs.Lacking):
            raise CannotTell(self.timed.note)
        return self.timed

    @property
    def mixtures(self) -> dict[tuple[str, ...], Mapping[str, Any]]:
        """Speed of the whole full-size network's 27 mixtures, by precision of target, search and
        xcorr network. Raises CannotTell where the framework lacks one."""
        every = mixtures(self.weights, self.framework)
        found = {tuple(one.precisions.values()): self.speed.row_for(one) for one in every}
        if not all(found.values()):
            raise CannotTell(f"{self.framework} does not have all 27 mixtures")
        return found

    def speed_row(self, tracker: str) -> Mapping[str, Any]:
        """Of the whole full-size network. Raises CannotTell where the framework has no such
        precision."""
        first, precision = tracker.split()
        try:
            return self.speed.row_of("pytorch" if first == "PyTorch" else self.framework, precision)
        except InputError as error:
            raise CannotTell(str(error)) from None

    def section(self, name: str) -> list[dict[Any, Any]]:
        """A section's rows as its page wrote them; CannotTell where it has not run yet."""
        rows = runs.section_table(self.run, name).to_dict("records")
        if not rows:
            raise CannotTell(f"`papermill notebooks/{name}.ipynb` has not run for this run")
        return rows

    def difference(
        self, a: str | Variant, b: str | Variant, measure: str = "eao", tests: int = 1
    ) -> tuple[float, float, float]:
        """a - b with its paired interval. tests: how many are looked at (Bonferroni)."""
        one, other = (self.measurement(name).evaluation for name in (a, b))
        return paired_bootstrap(one, other, level=1 - (1 - LEVEL) / tests)[measure]

    @property
    def benchmark(self) -> str:
        return f"{self.dataset.name}, {len(self.dataset)} sequences"


def digits(value: float) -> str:
    """Three digits, without an exponent: 94.4, 0.0213, 11."""
    if abs(value) < 5e-4:
        return "0"
    return f"{value:.3g}" if abs(value) < 1000 else f"{value:.0f}"
