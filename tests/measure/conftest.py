"""Fixtures for the tests of lib.measure."""

from __future__ import annotations

from contextlib import contextmanager
from pathlib import Path
from typing import Any, Iterator

import pytest

from lib import environment
from lib.measure import quality

from .helpers import InProcess, make_patches, save_tiny


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
    """Measure without other processes, each of which takes seconds to start."""

    @contextmanager
    def opened(*_: Any) -> Iterator[Any]:
        yield InProcess()

    monkeypatch.setattr(quality, "open_executor", opened)
    monkeypatch.setattr(environment, "_in_use", lambda: 0.0)  # which takes a moment to find out
