"""Plans (serialised engines) on disk: one is used again only where everything that decides it is
the same (thesis section 4.2).

A plan file is a line of JSON (the key, what the build took, a digest), then the plan. One that
is damaged, of another key or refused by its framework is built again, with a line on standard
error that says so.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Callable, Mapping, Optional, Tuple, TypeVar

from lib.errors import InputError
from lib.files import digest, whole_file

Loaded = TypeVar("Loaded")


def plan_path(folder: Path, name: str, key: Mapping[str, str]) -> Path:
    """Where a plan is kept; name: for people, e.g. "search-int8"."""
    return folder / f"{name}-{digest(json.dumps(dict(key), sort_keys=True).encode())}.plan"


def load_or_build(
    folder: Optional[Path],
    name: str,
    key: Mapping[str, str],
    build: Callable[[], bytes],
    load: Callable[[bytes], Loaded],
) -> Tuple[Loaded, float, int]:
    """The engine from its kept plan, or built now and kept; the seconds that its build took, and
    the plan's bytes. folder: None keeps nothing.

    key: all that decides a plan (model, precision, framework and its version, device, options).
    build makes a plan, load makes an engine of one. What load raises for a kept plan leads to a new
    build; what it raises for a new plan is the caller's. A folder without room is a line on
    standard error: the engine runs, it will be built again next time.
    """
    path = plan_path(folder, name, key) if folder else None
    if path is not None and path.is_file():
        try:
            data, seconds = _read(path, key)
            return load(data), seconds, len(data)
        except Exception as error:  # whatever a framework raises for a plan that it does not take
            reason = " ".join(str(error).split())[:200]
            print(f"{path}: the kept plan cannot be used, built again ({reason})", file=sys.stderr)
    begin = time.perf_counter()
    data = build()
    seconds = time.perf_counter() - begin
    if path is not None:
        head = {"key": dict(key), "build_seconds": seconds, "digest": digest(data)}
        try:
            with whole_file(path) as temporary:
                temporary.write_bytes(json.dumps(head).encode() + b"\n" + data)
        except InputError as error:
            print(f"{error}; the engine will be built again next time", file=sys.stderr)
    return load(data), seconds, len(data)


def _read(path: Path, key: Mapping[str, str]) -> Tuple[bytes, float]:
    """Raises ValueError, KeyError or TypeError for anything but an undamaged plan of this key."""
    line, _, data = path.read_bytes().partition(b"\n")
    head = json.loads(line)
    if (head["key"], head.get("digest")) != (dict(key), digest(data)):
        raise ValueError("it is damaged, or was made for another key or by another version")
    return data, float(head["build_seconds"])
