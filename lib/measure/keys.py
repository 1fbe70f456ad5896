"""What decides a measurement, as a key: where it changes, the measurement is made again (chapter
4).

Keys are coarse on purpose. All code below measuring counts, not a list of files that somebody has
to keep; so do the contents of weights, calibration and frames, the settings, the versions of the
libraries, and the machine. Editing a docstring repeats a measurement; nothing that could change a
result is ever missed.
"""

from __future__ import annotations

import ast
import hashlib
from dataclasses import asdict
from functools import lru_cache
from pathlib import Path
from typing import Dict

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
from lib.vot.dataset import Dataset
from lib.vot.protocol import Protocol

# Of a protocol; the rest concerns evaluation.
DECIDE_RESETS = ("failure_overlap", "skip", "box_end", "image_end")
ABOVE = ("cli.py", "options.py", "book", "report")  # what shows measurements decides none


def code_digest(root: Path = ROOT) -> str:
    """Of all modules of lib/ but those `ABOVE` measuring, without their comments."""
    lib = root / "lib"
    files = [(path.relative_to(lib), path) for path in sorted(lib.rglob("*.py"))]
    own = [f"{name.as_posix()} {_code(path)}" for name, path in files if name.parts[0] not in ABOVE]
    return digest("\n".join(own).encode())


def _code(file: Path) -> str:
    return _without_comments(file.read_text(encoding="utf-8"))


@lru_cache(maxsize=None)
def _without_comments(text: str) -> str:
    return digest(ast.dump(ast.parse(text)).encode())


def dataset_digest(dataset: Dataset) -> str:
    """Names, regions and the bytes of every frame. Raises InputError where frames are missing."""
    sha = hashlib.sha256()
    for sequence in dataset:
        if not sequence.has_frames:
            raise InputError(
                f"Dataset {dataset.path}: the frames of '{sequence.name}' are not there, so it cannot be tracked."
            )
        sha.update(repr((sequence.name, [region.tolist() for region in sequence.regions])).encode())
        for frame in sequence.frames:
            try:
                sha.update(digest(frame.read_bytes()).encode())
            except OSError as error:
                raise InputError(f"Frame {frame} cannot be read: {error.strerror}.") from None
    return sha.hexdigest()[:16]


# Taken when the module is read: a worker that was started before an edit runs the old code.
CODE = code_digest()


def decided_by(variant: Variant, contents: str, protocol: Protocol, alone: bool) -> Dict[str, str]:
    """All that decides a variant's raw results, part by part, so that one can say what changed.

    contents: `dataset_digest`. alone: whether the pass is serial and timed.
    """
    hardware = environment.machine(device())
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


def resets_by(protocol: Protocol) -> str:
    return to_json({name: getattr(protocol, name) for name in DECIDE_RESETS})


def settings(variant: Variant) -> TrackerConfig:
    return tracker_config(
        variant.weights if variant.weights == DEMO else str(ROOT / variant.weights)
    )


def _quantised_by(variant: Variant) -> str:
    """What decides the integers of a variant's INT8 networks; "" for a variant without. Recipes are
    code, and count with it."""
    if "int8" not in variant.precisions.values():
        return ""
    path = calibration_path(weights_path(variant.weights, ROOT))
    training = variant.quantisation.calibration == "training"
    kept = digest(path.read_bytes()) if training and path.is_file() else ""
    return to_json({**asdict(variant.quantisation), "ranges": kept})
