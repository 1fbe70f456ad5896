"""Plans (serialised engines) on disk: one is used again only where everything that decides it is
the same (thesis section 4.2).

A plan file is a line of JSON (the key, what the build took, size and checksum), then the plan. One
of another key, cut short, with a flipped bit or refused by its framework is built again, with a
line on standard error that says so.
"""

from __future__ import annotations

import hashlib
import json
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable, Mapping, Optional, Tuple, TypeVar

from lib.errors import InputError
from lib.files import whole_file

Loaded = TypeVar("Loaded")


@dataclass(frozen=True)
class Plan:
    """A serialised engine (empty where it is not kept), the seconds its build took, and whether it
    came from the cache."""

    data: bytes
    build_seconds: float
    cached: bool


def digest(data: bytes) -> str:
    """SHA-256, shortened to 16 digits: a name for contents."""
    return hashlib.sha256(data).hexdigest()[:16]


def digest_file(path: Path) -> str:
    """`digest` of a file's contents, read piece by piece."""
    sha = hashlib.sha256()
    with open(path, "rb") as stream:
        for piece in iter(lambda: stream.read(1 << 20), b""):
            sha.update(piece)
    return sha.hexdigest()[:16]


def plan_path(folder: Path, name: str, key: Mapping[str, str]) -> Path:
    """Where a plan is kept; name: for people, e.g. "search-int8"."""
    return folder / f"{name}-{digest(json.dumps(dict(key), sort_keys=True).encode())}.plan"


def load_or_build(
    folder: Optional[Path],
    name: str,
    key: Mapping[str, str],
    build: Callable[[], bytes],
    load: Callable[[bytes], Loaded],
) -> Tuple[Loaded, Plan]:
    """The engine from its kept plan, or built now and kept. folder: None keeps nothing.

    key: all that decides a plan (model, precision, calibration, framework and its version, device,
    options). build makes a plan, load makes an engine of one. What load raises for a kept plan
    leads to a new build; what it raises for a new plan is the caller's. A folder without room is a
    line on standard error: the engine runs, it will be built again next time.
    """
    path = plan_path(folder, name, key) if folder else None
    if path is not None and path.is_file():
        try:
            plan = _read(path, key)
            return load(plan.data), plan
        except Exception as error:  # whatever a framework raises for a plan that it does not take
            reason = " ".join(str(error).split())[:200] or type(error).__name__
            print(
                f"{path}: built again, because the plan kept there cannot be used ({reason})",
                file=sys.stderr,
            )
    begin = time.perf_counter()
    data = build()
    plan = Plan(data, time.perf_counter() - begin, cached=False)
    if path is not None:
        try:
            _write(path, key, plan)
        except InputError as error:
            print(
                f"{error}; the engine runs all the same and will be built again next time",
                file=sys.stderr,
            )
    return load(data), plan


def _write(path: Path, key: Mapping[str, str], plan: Plan) -> None:
    checksum = hashlib.sha256(plan.data).hexdigest()
    head = {
        "key": dict(key),
        "build_seconds": plan.build_seconds,
        "size": len(plan.data),
        "sha256": checksum,
    }
    with whole_file(path) as temporary:
        temporary.write_bytes(json.dumps(head, sort_keys=True).encode() + b"\n" + plan.data)


def _read(path: Path, key: Mapping[str, str]) -> Plan:
    """Raises ValueError that says what is wrong with the file."""
    line, _, data = path.read_bytes().partition(b"\n")
    try:
        head: Any = json.loads(line)
        kept, size, checksum, seconds = (
            head["key"],
            head["size"],
            head["sha256"],
            float(head["build_seconds"]),
        )
    except (ValueError, KeyError, TypeError):
        raise ValueError("it is no plan of this project") from None
    if not isinstance(kept, dict):
        raise ValueError("it is no plan of this project")
    if kept != dict(key):
        differing = sorted(part for part in {*kept, *key} if kept.get(part) != key.get(part))
        raise ValueError(f"it was made for another {', '.join(differing)}")
    if len(data) != size:
        raise ValueError(f"it has {len(data)} bytes of {size}")
    if hashlib.sha256(data).hexdigest() != checksum:
        raise ValueError("it is damaged: its checksum differs")
    return Plan(data, seconds, cached=True)
