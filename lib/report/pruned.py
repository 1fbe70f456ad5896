"""Colours of the pruned backbones in the figures of sections 3.6, 4.2.2 and 4.2.3."""

from __future__ import annotations

from lib.measure.pruned import CUT, DISTILLED, RECALIBRATED, SHARES, UNPRUNED, Tracker
from lib.report.plots import BLUE, GREEN, GREY, ORANGE, SKY, YELLOW

BY_SHARE = dict(zip((UNPRUNED, *SHARES), (GREY, BLUE, GREEN, ORANGE)))
BY_TRAINING = {DISTILLED: "black", RECALIBRATED: SKY, CUT: YELLOW}


def colour(tracker: Tracker) -> str:
    """By its training, where that is not the thesis's; else by its share of the parameters."""
    return BY_TRAINING.get(tracker.training) or BY_SHARE[tracker.share]
