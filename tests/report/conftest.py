"""Fixtures of the chapters' tests: one run for all of them, on the small benchmark, measured in the
process that tests."""

from __future__ import annotations

from typing import Iterator

import pytest

from .helpers import in_this_process


@pytest.fixture(scope="session")
def small_run(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A run that every test may add variants to, and none may change: what one has tracked, another
    one loads."""
    return str(tmp_path_factory.mktemp("runs") / "small")


@pytest.fixture(scope="module", autouse=True)
def _here(one_thread: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with in_this_process(tmp_path_factory.getbasetemp()):
        yield
