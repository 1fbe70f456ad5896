"""Fixtures for all tests."""
from __future__ import annotations

from pathlib import Path
from typing import Iterator

import pytest

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
