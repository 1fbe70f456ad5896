"""Fixtures for all tests."""
from __future__ import annotations

import shutil
from pathlib import Path
from typing import Iterator

import pytest

FRAMES = 24  # of a sequence, where a test only wants some to track
SHARED = Path(__file__).resolve().parents[2] / "shared"


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder with reference data beside the repository (PySOT's numbers, VOT2018 annotations, real sequences)."""
    if not SHARED.is_dir():
        pytest.skip(f"reference data is not on this machine: {SHARED} does not exist")
    return SHARED


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """PyTorch on one thread: its pool and another framework's, taking turns on two cores, wait for each other."""
    torch = pytest.importorskip("torch")
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two sequences of the demo benchmark, their first frames."""
    from lib.demo import make_benchmark

    whole = make_benchmark(tmp_path_factory.mktemp("demo") / "whole", ["face", "cup"])
    folder = tmp_path_factory.mktemp("small") / "small"
    for name in ("face", "cup"):
        (folder / name / "color").mkdir(parents=True)
        for file in sorted((whole / name / "color").iterdir())[:FRAMES]:
            shutil.copy(file, folder / name / "color")
        for file in (whole / name).glob("*.t*"):
            lines = file.read_text().splitlines()[:FRAMES]
            (folder / name / file.name).write_text("\n".join(lines) + "\n")
    (folder / "list.txt").write_text("face\ncup\n")
    return folder
