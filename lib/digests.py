"""Digests of what decides a measurement: data, frames, code. What has another digest is measured again (`lib.experiments`)."""
from __future__ import annotations

import ast
import hashlib
from functools import lru_cache
from pathlib import Path

from lib.deploy import FRAMEWORKS
from lib.errors import InputError
from lib.files import ROOT
from lib.vot.dataset import Dataset


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:16]


def dataset_digest(dataset: Dataset) -> str:
    """Names, regions and the bytes of every frame. Raises InputError where frames are missing."""
    sha = hashlib.sha256()
    for sequence in dataset:
        if not sequence.has_frames:
            raise InputError(f"Dataset {dataset.path}: the frames of '{sequence.name}' are not there, so it cannot be tracked.")
        sha.update(repr((sequence.name, [region.tolist() for region in sequence.regions])).encode())
        for frame in sequence.frames:
            try:
                sha.update(digest(frame.read_bytes()).encode())
            except OSError as error:
                raise InputError(f"Frame {frame} cannot be read: {error.strerror}.") from None
    return sha.hexdigest()[:16]


def code_digest(framework: str) -> str:
    """The code between a frame and its raw result: network, crop, tracker, engine, protocol and the overlap that it resets by."""
    lib = ROOT / "lib"
    own = [] if framework == "pytorch" else ["engines/plans.py", "export.py", "quantize.py", "calibration.py"]
    module = f"{FRAMEWORKS[framework].module.replace('lib.', '').replace('.', '/')}.py"
    files = [*sorted(lib.glob("siamrpn/*.py")), *(lib / name for name in ("engines/base.py", "engines/shared.py", module, *own)),
             *(lib / "vot" / name for name in ("dataset.py", "overlap.py", "protocol.py"))]
    return digest("".join(map(_dump, files)).encode())


def source(name: str) -> str:
    """A module of lib/ by its file's name, without its comments."""
    return _dump(ROOT / "lib" / name)


def _dump(file: Path) -> str:
    """A module's code without its comments."""
    return _without_comments(file.read_text(encoding="utf-8"))


@lru_cache(maxsize=None)
def _without_comments(text: str) -> str:
    return ast.dump(ast.parse(text))
