"""One variant on one dataset, measured: boxes, scores, and what a row of a table says of them
(chapter 4)."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Mapping

import numpy as np

from lib import environment
from lib.engines.deploy import FRAMEWORKS
from lib.measure.runs import run_note
from lib.measure.variants import Variant
from lib.siamrpn.contract import describe_executed
from lib.vot.dataset import VOT2018_FRAMES, VOT2018_SEQUENCES, Dataset
from lib.vot.metrics import Evaluation, columns, evaluate
from lib.vot.protocol import FAILURE, Protocol, Trajectory, frames_per_second

ENDS = (("low", "high"), ("high", "low"))  # the slow end of a speed is the long end of a time


@dataclass(frozen=True)
class Measurement:
    """One variant on one dataset, complete.

    results: its folder. lost: sequence -> frame -> box at a failure. engines: network -> framework,
    precision as asked and as executed, plan_bytes, build_seconds. power: of `power.measure_parts`.
    Times, and so FPS and power, are known where the pass was serial and alone (a GPU); else they
    are NaN, and `full_size.with_speed` takes those of the full-size network. speed: its row, {}
    where the pass was timed.
    """

    variant: Variant
    dataset: Dataset = field(repr=False)
    run: str
    results: Path
    parameters: int
    environment: Mapping[str, Any] = field(repr=False)
    engines: Mapping[str, Mapping[str, Any]] = field(repr=False)
    trajectories: Mapping[str, Trajectory] = field(repr=False)
    lost: Mapping[str, Mapping[int, np.ndarray]] = field(repr=False)
    evaluation: Evaluation = field(repr=False)
    power: Mapping[str, Any] = field(repr=False)
    recorded: bool = False
    speed: Mapping[str, Any] = field(default_factory=dict, repr=False)

    @property
    def whose(self) -> str:
        """For legends: whether it was measured here or comes from a recorded run."""
        return "recorded" if self.recorded else "measured now"

    @property
    def fps(self) -> float:
        """Frames per second by PySOT's scheme (section 3.3.3); NaN where the pass was not timed."""
        return frames_per_second(self.trajectories.values())

    @property
    def fps_tracked(self) -> float:
        """Frames per second of the tracked frames alone: track calls over their time."""
        return frames_per_second(self.trajectories.values(), tracked_only=True)

    def evaluated_by(self, protocol: Protocol) -> Evaluation:
        """The same raw results counted by other rules."""
        results = {name: [trajectory] for name, trajectory in self.trajectories.items()}
        return evaluate(self.dataset, results, protocol)

    @property
    def executed(self) -> str:
        """Convolutions of the search and the xcorr network by the precision that they ran in."""
        search, xcorr = (Counter(self.engines[name]["executed"]) for name in ("search", "xcorr"))
        return describe_executed(search + xcorr)

    @property
    def note(self) -> str:
        """What a caption says: the run, the machine, the day."""
        framework = self.engines["search"]["framework"]
        return run_note(self.run, self.environment, framework, self.recorded)

    @property
    def scale(self) -> str:
        """What these numbers may be compared with, in a sentence."""
        frames, count = sum(map(len, self.dataset)), len(self.dataset)
        on = f"{self.dataset.name} ({count} sequences, {frames:,} frames) with a network of "
        on += f"{self.parameters / 1e6:.1f} M parameters"
        if (count, frames) == (VOT2018_SEQUENCES, VOT2018_FRAMES):
            return f"Measured on {on}: the thesis's benchmark."
        others = "Accuracy, robustness and EAO are not comparable with values on VOT2018."
        return f"Demo scale: measured on {on}. {others}"

    def row(self) -> dict[str, Any]:
        """A line of a section's table: what was measured on what, the measures with their 95 %
        intervals, power."""
        engines = self.engines.values()
        built = {
            "plan_mb": sum(engine["plan_bytes"] for engine in engines) / 1e6,
            "build_s": sum(engine["build_seconds"] for engine in engines),
        }
        speed = self.speed
        ends = {f"fps_{end}": 1000 / speed[f"frame_ms_{of}"] for end, of in ENDS} if speed else {}
        return {
            "row": "recorded" if self.recorded else "measured",
            "variant": self.variant.name,
            "framework": FRAMEWORKS[self.variant.framework].title,
            "precision": self.variant.precision,
            **self.variant.precisions,
            "executed": self.executed,
            **{name: speed.get(name, value) for name, value in built.items()},
            "hardware": environment.label(self.environment, self.engines["search"]["framework"]),
            "network": f"{self.parameters / 1e6:.1f} M parameters",
            "dataset": self.dataset.name,
            "sequences": len(self.dataset),
            "frames": sum(map(len, self.dataset)),
            **columns(self.evaluation),
            "fps": self.fps,
            "fps_tracked": self.fps_tracked,
            **ends,
            **self.power,
            "run": Path(self.run).name,
            "date": self.environment["date"],
        }


def frames_tracked(trajectory: Trajectory) -> int:
    """Frames that the tracker was asked about, without initialisations."""
    return int(np.isin(trajectory.codes, (-1, FAILURE)).sum())
