"""Fixtures for all tests."""
from __future__ import annotations

from pathlib import Path

import pytest

SHARED = Path(__file__).resolve().parents[2] / "shared"


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder with reference data beside the repository (PySOT's numbers, VOT2018 annotations, real sequences)."""
    if not SHARED.is_dir():
        pytest.skip(f"reference data is not on this machine: {SHARED} does not exist")
    return SHARED
