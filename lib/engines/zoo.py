"""From a name or a path to a tracker: this project's demo model, or any checkpoint of a
SiamRPN++."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any, Dict, Mapping, Optional, Sequence, Union

from lib import environment
from lib.errors import InputError
from lib.files import ROOT
from lib.reading import read_mapping
from lib.siamrpn.tracker import SiamRPNTracker, TrackerConfig

DEMO = "demo"  # as weights: the small network that comes with the repository
FOLDER = ROOT / "data" / "demo"
DEMO_WEIGHTS = FOLDER / "siamrpn_r50_quarter.pth"
DEMO_SETTINGS = FOLDER / "tracker.yaml"  # chosen for these weights by `siambook tune`
DEMO_TRAINING = FOLDER / "train.yaml"  # what made them, by `siambook train`
DEMO_LOG = FOLDER / "training_log.csv"  # its losses
# Average overlap after each step, by tests/benchmarks/bench_quality.py
DEMO_STEPS = FOLDER / "steps.csv"

# The settings, and the largest value of each
LARGEST = {"penalty": 10, "window": 1, "rate": 1, "smallest": 1000}
# PySOT's names for them, and what its pysot/core/config.py has where a config.yaml is silent
PYSOT_NAMES = {"PENALTY_K": "penalty", "WINDOW_INFLUENCE": "window", "LR": "rate"}
PYSOT_TRACK = {
    "TYPE": "SiamRPNTracker",
    "PENALTY_K": 0.04,
    "WINDOW_INFLUENCE": 0.44,
    "LR": 0.4,
    "EXEMPLAR_SIZE": 127,
    "INSTANCE_SIZE": 255,
    "BASE_SIZE": 8,
    "CONTEXT_AMOUNT": 0.5,
}
# Of PySOT's other trackers
PYSOT_OTHERS = (
    *("MASK_THERSHOLD", "MASK_OUTPUT_SIZE"),
    *("LOST_INSTANCE_SIZE", "CONFIDENCE_LOW", "CONFIDENCE_HIGH"),
)


def weights_path(weights: str, folder: Path = Path()) -> Path:
    """The file of `demo`, or of a path relative to `folder`. Raises InputError where it is
    missing."""
    path = DEMO_WEIGHTS if weights == DEMO else (folder / weights).resolve()
    if not path.is_file():
        raise InputError(f"{path}: no such weights file")
    return path


def tracker_config(weights: str, settings: Optional[str] = None) -> TrackerConfig:
    """Settings from a YAML file, this project's or PySOT's config.yaml; without one, those of the
    `tracker.yaml` beside the weights, or PySOT's where there is none."""
    path = Path(settings) if settings else _beside(weights)
    if settings is None and not path.is_file():
        return TrackerConfig()
    data = read_mapping(path)
    data = _of_pysot(data["TRACK"], path) if isinstance(data.get("TRACK"), dict) else data
    for name, value in data.items():
        if name not in LARGEST:
            raise InputError(
                f"{path}: unknown tracker setting {name!r} (known: {', '.join(LARGEST)})"
            )
        number = isinstance(value, (int, float)) and not isinstance(value, bool)
        if not number or not 0 <= value <= LARGEST[name]:
            raise InputError(f"{path}: {name} should be a number from 0 to {LARGEST[name]}")
    return TrackerConfig(**data)


def settings_note(weights: str, settings: Optional[str] = None) -> str:
    """A sentence where weights have no settings of their own; else empty."""
    if settings or _beside(weights).is_file():
        return ""
    return f"{weights}: no {DEMO_SETTINGS.name} beside it, so PySOT's settings are used"


def _beside(weights: str) -> Path:
    return DEMO_SETTINGS if weights == DEMO else Path(weights).parent / DEMO_SETTINGS.name


def _of_pysot(track: Mapping[str, Any], path: Path) -> Dict[str, Any]:
    """Settings in the TRACK part of PySOT's config.yaml. Raises InputError where it is for another
    tracker than this one."""
    given = {**PYSOT_TRACK, **track}
    for key, value in given.items():
        if key not in {*PYSOT_TRACK, *PYSOT_NAMES, *PYSOT_OTHERS}:
            raise InputError(f"{path}: TRACK has {key}, which PySOT does not know")
        if key not in PYSOT_NAMES and value != PYSOT_TRACK.get(key, value):
            raise InputError(
                f"{path}: TRACK has {key} {value!r}, this tracker has {PYSOT_TRACK[key]!r}"
            )
    return {name: given[key] for key, name in PYSOT_NAMES.items()}


def open_tracker(
    weights: Union[str, Path] = DEMO,
    engine: str = "auto",
    precision: Union[str, Sequence[str]] = "fp32",
    device: Optional[str] = None,
    settings: Optional[str] = None,
) -> SiamRPNTracker:
    """A tracker for `init(frame, box)` and then `track(frame)`, frame by frame.

    engine: "pytorch", "openvino", "tensorrt", or "auto", the compiled one of this machine.
    precision: of all three networks, or of target, search and xcorr. device: "cpu" or "cuda" (by
    default the engine's). Raises InputError for what cannot be used.
    """
    from lib.engines.calibration import training_ranges
    from lib.engines.deploy import Deployment, usable_framework
    from lib.engines.pytorch import usable_device
    from lib.siamrpn.checkpoint import load_network
    from lib.siamrpn.parts import NETWORKS

    if device:
        usable_device(device)
    framework, path = usable_framework(engine, device), weights_path(str(weights))
    config = tracker_config(str(weights), settings)
    deployment = Deployment(
        load_network(path),
        framework,
        device or environment.device(),
        ranges=lambda _: training_ranges(path),
    )
    three = [precision] * 3 if isinstance(precision, str) else precision
    tracker = SiamRPNTracker(deployment.network(dict(zip(NETWORKS, three))), config)
    note = settings_note(str(weights), settings)
    if note:
        print(note, file=sys.stderr)
    return tracker
