"""Fixtures for the tests of lib.measure."""

from __future__ import annotations

from pathlib import Path

import pytest

from lib import environment
from lib.measure import quality

from .helpers import make_patches, measure, save_tiny, serially


@pytest.fixture(autouse=True, scope="module")
def _one_thread(one_thread: None) -> None:
    """Tests that measure in this process do it as workers do."""


@pytest.fixture(scope="session")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "tiny.pth"
    save_tiny(path)
    return path


@pytest.fixture
def patches(tmp_path: Path) -> Path:
    return make_patches(tmp_path / "patches")


@pytest.fixture
def in_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Measure without other processes."""
    monkeypatch.setattr(quality, "open_executor", serially)
    monkeypatch.setattr(environment, "_in_use", lambda: 0.0)  # which takes a moment to find out


@pytest.fixture(scope="session")
def measured(weights: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of the tiny tracker, to be copied."""
    folder = tmp_path_factory.mktemp("measured")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(quality, "open_executor", serially)
        measure(make_patches(folder / "patches"), weights, folder / "run")
    return folder / "run"
