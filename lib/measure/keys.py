"""What decides a measurement, as a key: when it changes, the measurement is repeated (chapter 4).

Keys are coarse on purpose: all code below measuring, the contents of weights, calibration and
frames, the settings, the versions of the libraries, and the machine. Editing a comment repeats
nothing, and anything that could change a result repeats the measurement.
"""

from __future__ import annotations

import ast
import hashlib
from dataclasses import asdict
from pathlib import Path
from typing import Any

from lib import environment
from lib.engines.calibration import calibration_path
from lib.engines.deploy import framework_module
from lib.engines.zoo import DEMO, tracker_config, weights_path
from lib.environment import device
from lib.errors import InputError
from lib.files import ROOT, digest
from lib.measure.runs import to_json
from lib.measure.variants import Variant
from lib.siamrpn.tracker import TrackerConfig
from lib.vot.dataset import Dataset, Video
from lib.vot.protocol import Protocol

# Of a protocol; the rest concerns evaluation.
DECIDE_RESETS = ("failure_overlap", "skip", "box_end", "image_end")
ABOVE = ("cli.py", "options.py", "book", "report")  # what shows measurements decides none


def code_digest(root: Path = ROOT) -> str:
    """Of all modules of lib/ but those `ABOVE` measuring, without their comments."""
    lib = root / "lib"
    names = [path.relative_to(lib) for path in sorted(lib.rglob("*.py"))]
    trees = {
        name.as_posix(): ast.dump(ast.parse((lib / name).read_text(encoding="utf-8")))
        for name in names
        if name.parts[0] not in ABOVE
    }
    return digest(to_json(trees).encode())


# Taken when the module is read: a worker that was started before an edit runs the old code.
CODE = code_digest()


def dataset_digest(dataset: Dataset) -> str:
    """Of all its sequences. Raises InputError where frames are missing."""
    return digest("".join(map(sequence_digest, dataset)).encode())


def sequence_digest(sequence: Video) -> str:
    """Name, regions and the bytes of every frame. Raises InputError where frames are missing."""
    if not sequence.has_frames:
        raise InputError(f"the frames of '{sequence.name}' are not there, so it cannot be tracked.")
    regions = [region.tolist() for region in sequence.regions]
    sha = hashlib.sha256(repr((sequence.name, regions)).encode())
    for frame in sequence.frames:
        try:
            sha.update(digest(frame.read_bytes()).encode())
        except OSError as error:
            raise InputError(f"Frame {frame} cannot be read: {error.strerror}.") from None
    return sha.hexdigest()


def decided_by(variant: Variant, contents: str, protocol: Protocol, alone: bool) -> dict[str, str]:
    """All that decides a variant's raw results, part by part, so that one can say what changed.

    contents: `dataset_digest`. alone: whether the pass is serial and timed.
    """
    hardware = environment.hardware(device())
    parts = ("processor", "device", "gpu", *(("cores", "power_mode") if alone else ()))
    return {
        "weights": digest(weights_path(variant.weights, ROOT).read_bytes()),
        "dataset": contents,
        "tracker": to_json(asdict(settings(variant))),
        "protocol": resets_by(protocol),
        "precision": variant.precision,
        "framework": f"{variant.framework} {framework_module(variant.framework).version()}",
        "quantisation": _quantised_by(variant),
        "code": CODE,
        "versions": to_json(environment.versions()),
        "machine": to_json({part: hardware.get(part) for part in parts}),
        "timed": str(alone),
    }


def timed_by(*frameworks: str, **settings: Any) -> dict[str, str]:
    """All that decides what is timed alone on this machine; PyTorch's version always counts."""
    names = dict.fromkeys(["pytorch", *frameworks])
    return {
        "settings": to_json(settings),
        "frameworks": ", ".join(f"{name} {framework_module(name).version()}" for name in names),
        "code": CODE,
        "versions": to_json(environment.versions()),
        "machine": to_json(environment.hardware(device())),
        "threads": str(environment.speed_threads()),
    }


def resets_by(protocol: Protocol) -> str:
    return to_json({name: getattr(protocol, name) for name in DECIDE_RESETS})


def settings(variant: Variant) -> TrackerConfig:
    weights = variant.weights if variant.weights == DEMO else str(ROOT / variant.weights)
    return tracker_config(weights)


def _quantised_by(variant: Variant) -> str:
    """What decides the integers of a variant's INT8 networks; "" for a variant without. Recipes are
    code, and count with it."""
    if "int8" not in variant.precisions.values():
        return ""
    path = calibration_path(weights_path(variant.weights, ROOT))
    training = variant.quantisation.calibration == "training"
    kept = digest(path.read_bytes()) if training and path.is_file() else ""
    return to_json({**asdict(variant.quantisation), "ranges": kept})
