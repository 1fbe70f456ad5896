"""From a name or a path to a tracker: this project's demo model, or any checkpoint of a
SiamRPN++."""

from __future__ import annotations

from dataclasses import fields
from math import isfinite
from pathlib import Path
from typing import Optional, Union

import yaml

from lib.errors import InputError
from lib.files import ROOT
from lib.siamrpn.tracker import SiamRPNTracker, TrackerConfig

DEMO = "demo"  # as weights: the small network that comes with the repository
FOLDER = ROOT / "data" / "demo"
DEMO_WEIGHTS = FOLDER / "siamrpn_r50_quarter.pth"
DEMO_SETTINGS = FOLDER / "tracker.yaml"  # chosen for these weights by `siambook tune`
DEMO_TRAINING = FOLDER / "train.yaml"  # what made them, by `siambook train`
DEMO_LOG = FOLDER / "training_log.csv"  # its losses
# Average overlap after each step, by tests/benchmarks/bench_quality.py
DEMO_STEPS = FOLDER / "steps.csv"


def weights_path(weights: str, folder: Path = Path()) -> Path:
    """The file of `demo`, or of a path relative to `folder`. Raises InputError where it is
    missing."""
    path = DEMO_WEIGHTS if weights == DEMO else (folder / weights).resolve()
    if not path.is_file():
        raise InputError(f"{path}: no such weights file")
    return path


def tracker_config(weights: str, settings: Optional[str] = None) -> TrackerConfig:
    """Settings from a YAML file; without one, those of the `tracker.yaml` beside the weights, or
    PySOT's where there is none."""
    beside = DEMO_SETTINGS if weights == DEMO else Path(weights).parent / DEMO_SETTINGS.name
    if settings is None and not beside.is_file():
        return TrackerConfig()
    path = Path(settings) if settings else beside
    try:
        data = dict(yaml.safe_load(path.read_text()) or {})
    except (OSError, ValueError, TypeError, yaml.YAMLError) as error:
        reason = " ".join(str(error).split())
        raise InputError(f"{path}: not readable tracker settings ({reason})") from None
    known = [field.name for field in fields(TrackerConfig)]
    for name, value in data.items():
        if name not in known:
            raise InputError(
                f"{path}: unknown tracker setting {name!r} (known: {', '.join(known)})"
            )
        if not isinstance(value, (int, float)) or not isfinite(value):
            raise InputError(f"{path}: {name} should be a finite number")
    return TrackerConfig(**data)


def open_tracker(
    weights: Union[str, Path] = DEMO, device: str = "cpu", settings: Optional[str] = None
) -> SiamRPNTracker:
    """A tracker in PyTorch FP32. Raises InputError for weights, settings or a device that cannot be
    used."""
    from lib.engines import pytorch

    pytorch.usable_device(device)
    config = tracker_config(str(weights), settings)
    return SiamRPNTracker(pytorch.load(weights_path(str(weights)), device), config)
