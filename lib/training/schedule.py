"""Learning rates by phase of a training run; PySOT's schedule (warm-up, then a logarithmic fall) is
such phases (`data/recipes/siamrpn_r50.yaml`)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Tuple

SHAPES = ("linear", "log")


@dataclass(frozen=True)
class Phase:
    """A stretch of training with its own crops, losses and learning rate.

    pairs: its length. search_size: side of the search crops. lr: first and last learning rate,
    joined by `shape` ("linear", "log"). epochs: the rate stays the same within one of
    this many equal parts (0: it moves with every step). reaches_end: whether the last part has
    `lr[1]` itself, or leaves it to the following phase, as PySOT's warm-up does. backbone_lr:
    factor of the backbone's rate, 0 freezes it. tracking, distill: weights of the two losses.
    freeze_norm: batch normalisation uses and keeps its running statistics.
    """

    pairs: int
    search_size: int = 255
    lr: Tuple[float, float] = (1e-3, 1e-3)
    shape: str = "linear"
    epochs: int = 0
    reaches_end: bool = True
    backbone_lr: float = 1.0
    tracking: float = 1.0
    distill: float = 0.0
    freeze_norm: bool = False

    def __post_init__(self) -> None:
        known = self.shape in SHAPES and self.search_size in range(135, 512, 8)
        if self.pairs < 1 or not known:
            raise ValueError(
                f"impossible phase: pairs {self.pairs}, shape {self.shape!r}, search_size {self.search_size}"
            )
        if len(self.lr) != 2 or not all(0 < rate < 1e3 for rate in self.lr):
            raise ValueError(
                f"impossible phase: lr {list(self.lr)}, two numbers above 0 are needed"
            )
        if not (self.tracking or self.distill):
            raise ValueError(
                "impossible phase: neither tracking nor distill has a weight, so there is nothing to learn"
            )


def learning_rate(phase: Phase, done: int) -> float:
    """Learning rate after `done` pairs of a phase."""
    progress = done / phase.pairs
    if phase.epochs:
        epoch = min(phase.epochs - 1, int(progress * phase.epochs))
        progress = epoch / max(1, phase.epochs - (1 if phase.reaches_end else 0))
    first, last = phase.lr
    if phase.shape == "log":
        return float(first * (last / first) ** progress)
    return float(first + (last - first) * progress)
