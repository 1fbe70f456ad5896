"""The pruned backbones, their trackers, and their logs in data/demo/pruning (sections 4.2.2 and
4.2.3).

The demo network is pruned to the thesis's shares of parameters. At full size there are no weights
to score. The full-size pruned networks are only timed, and get their channel counts from the demo
network's scores: a demo channel stands for four.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import pandas as pd

from lib import pruning
from lib.engines.zoo import DEMO_WEIGHTS, FOLDER
from lib.files import ROOT
from lib.measure.variants import Variant, baseline, engines
from lib.siamrpn.checkpoint import load_network, load_state, read_backbone, read_state
from lib.siamrpn.network import NetworkConfig
from lib.training.classify import Classifier

LOGS = FOLDER / "pruning"
SCORES = LOGS / "scores.csv"
SHARES = (0.66, 0.5, 0.26)  # of the backbone's parameters that stay (thesis table 4.4)
FULL_SIZES = (30e6, 22.5e6, 12e6)  # parameters of the full-size backbones
VECTOR = 32  # channels; what processors multiply at once is a divisor of it, or twice as much
UNPRUNED = 1.0
# Trained as in the thesis, on a backbone that was fine-tuned for classes and then fixed
FROZEN = "frozen"
DISTILLED = "distilled"  # channels taken out of the trained tracker, all of it trained on
# Channels taken out, batch normalisation measured again, nothing trained
RECALIBRATED = "recalibrated"
CUT = "cut"  # channels taken out, nothing else
STEMS = {DISTILLED: "distilled_as_frozen"}  # of files that are not named after the training
ENGINES = {
    FROZEN: ("fp32", "fp16", "int8"),
    DISTILLED: ("fp32", "fp16", "int8"),
    RECALIBRATED: ("fp32", "int8"),
    CUT: ("fp32",),
}


@dataclass(frozen=True)
class Tracker:
    """A tracker of these sections: share of the backbone's parameters, and how it was trained."""

    share: float
    training: str = FROZEN

    @property
    def weights(self) -> str:
        """Its file, relative to the repository."""
        stem = STEMS.get(self.training, self.training)
        return str((FOLDER / f"{stem}_{round(100 * self.share)}.pth").relative_to(ROOT))

    @property
    def is_there(self) -> bool:
        return (ROOT / self.weights).is_file()

    @property
    def title(self) -> str:
        return f"{self.share:g}" if self.training == FROZEN else f"{self.share:g}, {self.training}"


def tracker_of(variant: Variant) -> Tracker:
    """The tracker that a variant of `variants` runs."""
    stem, share = Path(variant.weights).stem.rsplit("_", 1)
    trainings = {stem: training for training, stem in STEMS.items()}
    return Tracker(int(share) / 100, trainings.get(stem, stem))


def place(variant: Variant) -> int:
    """Of the full-size network that stands for a variant's, among `timed_configs`: 0 for the whole
    one."""
    shares = {Path(tracker.weights).stem: tracker.share for tracker in trackers()}
    return (UNPRUNED, *SHARES).index(shares.get(Path(variant.weights).stem, UNPRUNED))


def about(variant: Variant) -> dict[str, Any]:
    """Columns of a section's table: share of the backbone's parameters, and training."""
    tracker = tracker_of(variant)
    return {"share": tracker.share, "training": tracker.training}


def trackers() -> list[Tracker]:
    """The thesis's four, and behind them those that come from the trained tracker."""
    every = [Tracker(share, training) for training in ENGINES for share in (UNPRUNED, *SHARES)]
    return [tracker for tracker in every if tracker.is_there]


def variants(tracker: Tracker, framework: str) -> list[Variant]:
    """Table 4.5's four rows of one of the thesis's trackers: PyTorch FP32, engines at FP32, FP16
    and INT8. The others run as engines alone, whose FP32 has PyTorch's boxes."""
    plain = baseline(tracker.weights) if tracker.training == FROZEN else []
    compiled = engines(tracker.weights, framework)
    rows = [*plain, *(row for row in compiled if row.search in ENGINES[tracker.training])]
    head = Path(tracker.weights).stem
    return [replace(row, name=f"{head}-{row.name}") for row in rows]


def demo_config() -> NetworkConfig:
    """The demo tracker's channel counts, which the scores belong to."""
    return load_network(DEMO_WEIGHTS).config


def classifier() -> Classifier:
    """The demo tracker's backbone with the classification layer that was trained on it (`siambook
    prune head`)."""
    state = {
        **{f"backbone.{key}": value for key, value in read_backbone(DEMO_WEIGHTS).items()},
        **read_state(LOGS / "head.pth"),
    }
    network = Classifier(demo_config(), state["fc.weight"].shape[0])
    load_state(network, state, LOGS / "head.pth")
    return network.eval()


def scores() -> pruning.Scores:
    """Every channel's score, as `siambook prune score` made them."""
    return pruning.read_scores(SCORES, demo_config())


def choices() -> dict[float, pruning.Choice]:
    """What stays of the demo network at each share."""
    config, found = demo_config(), scores()
    whole = pruning.backbone_parameters(config)
    return {share: pruning.choose(config, found, round(share * whole)) for share in SHARES}


def full_configs(multiple: int = 1) -> dict[float, NetworkConfig]:
    """Channel counts of full-size networks with backbones of about `FULL_SIZES` parameters, by the
    demo network's scores.

    multiple: of the full-size channels that every layer keeps.
    """
    config, found = demo_config(), scores()
    times = NetworkConfig.resnet50().stem // config.stem
    small = max(1, multiple // times)
    configs = {}
    for size in FULL_SIZES:
        choice = pruning.choose(config, found, int(size), times=times, multiple=small)
        cut = pruning.cut_config(config, pruning.counts(choice.keep))
        configs[size] = pruning.wider(cut, times)
    return configs


@lru_cache(maxsize=None)
def timed_configs() -> list[tuple[int, NetworkConfig]]:
    """The full-size networks that are timed, each with the multiple of channels it keeps: the whole
    one, the thesis's three, and the smallest again in multiples of `VECTOR`."""
    return [
        (1, NetworkConfig.resnet50()),
        *((1, config) for config in full_configs().values()),
        (VECTOR, full_configs(VECTOR)[FULL_SIZES[-1]]),
    ]


def training_log(name: str) -> pd.DataFrame:
    """A training's log.csv from data/demo/pruning, e.g. "finetune_26"."""
    return pd.read_csv(LOGS / f"{name}.csv")


def origin() -> str:
    """What the scores were made from, as their file says."""
    return SCORES.read_text(encoding="utf-8").split("\n", 1)[0].lstrip("# ")


# The training of finetune_26.csv, stopped after CUT_AT pictures and resumed
RESUMED = "finetune_26_resumed"
CUT_AT = 8000


def resumed_difference() -> dict[str, float]:
    """Largest difference of the resumed training's accuracies to the uninterrupted one's, 0..1; 0
    where it went on as if never stopped."""
    one, other = training_log("finetune_26"), training_log(RESUMED)
    return {column: float((one[column] - other[column]).abs().max()) for column in ("top1", "top5")}
