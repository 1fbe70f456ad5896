"""Fixtures of the chapters' tests: one run for all of them, on the small benchmark, measured in the
process that tests."""

from __future__ import annotations

from pathlib import Path
from typing import Iterator

import matplotlib
import numpy as np
import pytest

from lib.vot.dataset import TAGS, Dataset, Video, load_dataset
from lib.vot.metrics import Evaluation, evaluate
from lib.vot.protocol import Trajectory

from .helpers import BOX, COUNT, LOST, SKIP, in_this_process

matplotlib.use("Agg")


@pytest.fixture(scope="session")
def thesis_text(shared: Path) -> str:
    return (shared / "thesis" / "thesis.txt").read_text(encoding="utf-8")


@pytest.fixture(scope="session")
def dataset(small: Path) -> Dataset:
    return load_dataset(small)


@pytest.fixture(scope="session")
def small_run(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A run that every test may add variants to, and none may change: what one has tracked, another
    one loads."""
    return str(tmp_path_factory.mktemp("runs") / "small")


@pytest.fixture(scope="module", autouse=True)
def _here(one_thread: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with in_this_process(tmp_path_factory.getbasetemp()):
        yield


@pytest.fixture(scope="module")
def still(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """Three sequences of a box that does not move."""
    cv2 = pytest.importorskip("cv2")
    folder = tmp_path_factory.mktemp("frames")
    path = folder / "frame.png"
    cv2.imwrite(str(path), np.full((90, 120, 3), 90, np.uint8))
    flags = np.arange(COUNT) % 2 == 0
    sequences = [
        Video(
            name,
            (path,) * count,
            (np.array(BOX),) * count,
            dict.fromkeys(TAGS, flags[:count]),
            120,
            90,
        )
        for name, count in (("a", COUNT), ("b", COUNT - 4), ("c", COUNT - 8))
    ]
    return Dataset("still", folder, tuple(sequences))


@pytest.fixture(scope="module")
def beside(still: Dataset) -> dict[str, Trajectory]:
    """A tracker's boxes, shifted against the target; sequence b is lost once."""
    found = {}
    for sequence in still:
        box = np.array(BOX) + (5, 0, 0, 0)
        entries = [np.array([1.0]), *[box] * (len(sequence) - 1)]
        if sequence.name == "b":
            skipped = [np.array([0.0])] * (SKIP - 1)
            entries[LOST : LOST + SKIP + 1] = [np.array([2.0]), *skipped, np.array([1.0])]
        found[sequence.name] = Trajectory(tuple(entries), np.full(len(sequence), 0.1))
    return found


@pytest.fixture(scope="module")
def evaluated(still: Dataset, beside: dict[str, Trajectory]) -> Evaluation:
    return evaluate(still, {name: [trajectory] for name, trajectory in beside.items()})
