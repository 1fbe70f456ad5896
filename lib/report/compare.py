"""What several pages of chapter 4 share: looks and columns of variants, groups by precision, and
differences with their intervals."""

from __future__ import annotations

from typing import Any, Sequence

from lib.measure.measurement import Measurement
from lib.measure.pruned import CUT, DISTILLED, RECALIBRATED, SHARES, UNPRUNED, Tracker
from lib.report.plots import BLUE, GREEN, GREY, ORANGE, SKY, YELLOW
from lib.report.tables import ABSENT, Column, is_known

LEVELS = ("FP32", "FP16", "INT8")
COLOURS = {"FP32": BLUE, "FP16": ORANGE, "INT8": GREEN}
MARKS = {"FP32": "o", "FP16": "^", "INT8": "s"}
# Of pruned backbones (sections 3.6, 4.2.2, 4.2.3)
BY_SHARE = dict(zip((UNPRUNED, *SHARES), (GREY, BLUE, GREEN, ORANGE)))
BY_TRAINING = {DISTILLED: "black", RECALIBRATED: SKY, CUT: YELLOW}
QUALITY = ("accuracy", "robustness", "eao")
ROBUSTNESS = "R, failures per 100 frames"
MEASURES: tuple[Column, ...] = (
    ("A", "accuracy", ".3f"),
    (ROBUSTNESS, "robustness", ".3f"),
    ("EAO", "eao", ".3f"),
)


def fps_head(measured: Sequence[Measurement]) -> str:
    """The head of a column of speeds: of the passes themselves, or of the full-size network where
    those were not timed."""
    return "FPS, full-size network" if any(one.speed for one in measured) else "FPS, tracked frames"


def colour(tracker: Tracker) -> str:
    """Of a pruned tracker: by its training, where that is not the thesis's; else by its share of
    the parameters."""
    return BY_TRAINING.get(tracker.training) or BY_SHARE[tracker.share]


# -- Differences -----------------------------------------------------------------------------------


def difference(value: float, low: float, high: float) -> Any:
    """A difference and its interval: ("+0.012 *", "(+0.003 to +0.021)"). Where a bound of a marked
    interval is printed as 0, the mark is (*)."""
    if not is_known(low):
        return signed(value, 3) if is_known(value) else ABSENT
    ends, mark = (signed(low, 3), signed(high, 3)), ""
    if leaves_out_0(low, high):
        mark = " (*)" if "0.000" in ends else " *"
    return f"{signed(value, 3)}{mark}", f"({ends[0]} to {ends[1]})"


def signed(value: float, digits: int) -> str:
    """With its sign, which a number that is printed as 0 does not have: "+0.012", "0.000"."""
    text = f"{value:+.{digits}f}"
    return text if float(text) else text[1:]


def leaves_out_0(low: float, high: float) -> bool:
    return low > 0 or high < 0
