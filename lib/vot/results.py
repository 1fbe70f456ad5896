"""Raw results as the VOT toolkit and PySOT write them:
`<tracker>/baseline/<sequence>/<sequence>_001.txt`, one line per frame.

A line is a code (1 initialised, 2 failure, 0 skipped), a box or a polygon. Durations go beside it
as `<sequence>_001_time.value`.
"""

from __future__ import annotations

import contextlib
import math
import re
import struct
from pathlib import Path

import numpy as np

from lib.errors import InputError
from lib.files import write_text
from lib.reading import read_bytes
from lib.vot.dataset import Dataset, read_numbers
from lib.vot.protocol import FAILURE, INIT, SKIPPED, Trajectory


def result_path(folder: str | Path, sequence: str, repetition: int = 1) -> Path:
    """Where a tracker's folder keeps one repetition of one sequence."""
    return Path(folder) / "baseline" / sequence / f"{sequence}_{repetition:03d}.txt"


def write_trajectory(path: str | Path, trajectory: Trajectory) -> None:
    """Write one raw file and, where durations are known, the times beside it.

    Missing folders are made, nothing is left half-written. Raises InputError where the place cannot
    be written to.
    """
    path = Path(path)
    lines = [
        ",".join(f"{value:.4f}" if len(entry) > 1 else f"{value:.0f}" for value in entry)
        for entry in trajectory.entries
    ]
    if np.isfinite(trajectory.seconds).all():
        write_text(_time_path(path), "".join(f"{value:.6f}\n" for value in trajectory.seconds))
    else:
        with contextlib.suppress(OSError):
            _time_path(path).unlink()  # an earlier run's
    # Comes last, so that its presence means complete
    write_text(path, "".join(line + "\n" for line in lines))


def read_trajectory(path: str | Path) -> Trajectory:
    """Read one raw file, also a `.bin` of vot-toolkit. Raises InputError where it is missing or a
    line is neither a code nor a box nor a polygon."""
    path = Path(path)
    rows = _read_binary(path) if path.suffix == ".bin" else read_numbers(path)
    for number, row in enumerate(rows, 1):
        code = len(row) == 1 and row[0] in (SKIPPED, INIT, FAILURE)
        if not (code or (len(row) in (4, 8) and all(map(math.isfinite, row)))):
            raise InputError(
                f"{path}: line {number} is neither a code (0, 1 or 2) nor 4 or 8 finite numbers."
            )
    file = _time_path(path)
    times = [value for row in read_numbers(file) for value in row] if file.is_file() else []
    seconds = np.array(times) if len(times) == len(rows) else np.full(len(rows), np.nan)
    return Trajectory(tuple(np.array(row) for row in rows), seconds)


def _read_binary(path: Path) -> list[list[float]]:
    """The rows of vot-toolkit's binary results (vot/region/io.py): int16 1, uint32 N, and N regions,
    each a byte for its kind before its numbers."""
    data, rows = read_bytes(path), []
    try:
        (version, count), place = struct.unpack_from("<hI", data), 6
        for _ in range(count):
            kind, corners = data[place], data[place + 1 : place + 3]
            form = {0: "<BI", 1: "<B4f", 2: "<BH8f"}[kind]
            if version != 1 or (kind == 2 and corners != b"\4\0"):
                raise KeyError(kind)
            rows.append(
                list(map(float, struct.unpack_from(form, data, place)[2 if kind == 2 else 1 :]))
            )
            place += struct.calcsize(form)
    except (struct.error, IndexError, KeyError):
        raise InputError(
            f"{path}: not results of boxes and polygons as vot-toolkit writes them."
        ) from None
    return rows


def read_results(folder: str | Path, dataset: Dataset) -> dict[str, list[Trajectory]]:
    """All repetitions of every sequence of the dataset: name -> trajectories, each as long as its
    sequence.

    folder: a tracker's, with `baseline/<sequence>/<sequence>_*.txt` or `.bin` inside (or the
    baseline folder itself), or with `<sequence>.txt` as PySOT writes one-pass results. Results of further sequences
    are left alone. Raises InputError for a missing sequence, and for a file with too few or too
    many lines.
    """
    results = {}
    if not Path(folder).is_dir():
        raise InputError(f"Results folder {folder} does not exist, or is a file.")
    for sequence in dataset:
        files = _files(Path(folder), sequence.name)
        if not files:
            raise InputError(
                f"Results folder {folder} lacks sequence '{sequence.name}' of {dataset.name}."
            )
        results[sequence.name] = [read_trajectory(file) for file in files]
        for file, trajectory in zip(files, results[sequence.name]):
            if len(trajectory) != len(sequence):
                raise InputError(
                    f"{file} has {len(trajectory)} lines where sequence '{sequence.name}' has "
                    f"{len(sequence)} frames."
                )
    return results


def _files(folder: Path, name: str) -> list[Path]:
    for parent in (folder / "baseline" / name, folder / name):
        every = sorted(parent.glob(f"{name}_[0-9][0-9][0-9].*"))
        found = {file.stem: file for file in every if file.suffix in (".bin", ".txt")}
        if found:
            return [*found.values()]
    # got10k's toolkit has Jogging.1.txt for OTB's first target there
    names = (name, re.sub(r"-(\d+)$", r".\1", name))
    return [folder / f"{each}.txt" for each in names if (folder / f"{each}.txt").is_file()][:1]


def _time_path(path: Path) -> Path:
    return path.with_name(path.stem + "_time.value")
