"""The line that says what is done, in a log."""

from __future__ import annotations

import io
import sys
import time
from typing import List, Optional

import pytest

from lib import progress


def lines(monkeypatch: pytest.MonkeyPatch, seconds: float, steps: int, **how: object) -> List[str]:
    """What a log gets while `steps` of 0.02 s are done; seconds: between two lines."""
    log = io.StringIO()
    monkeypatch.setattr(sys, "stderr", log)
    monkeypatch.setattr(progress, "LOG_SECONDS", seconds)
    total: Optional[float] = how.pop("total", 10)  # type: ignore[assignment]
    with progress.progress(total, "frames", **how) as bar:  # type: ignore[arg-type]
        for _ in range(steps):
            time.sleep(0.02)
            bar.update(1)
    return log.getvalue().splitlines()


def test_work_of_a_moment_leaves_no_line_where_the_first_comes_late(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert lines(monkeypatch, 600, 10, late=True) == []
    assert lines(monkeypatch, 600, 10)[0].startswith("frames   0 %")


def test_long_work_has_lines_and_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    told = lines(monkeypatch, 0.01, 8, done=2, late=True)
    assert told[-1].startswith("frames 100 %") and not any("frames   0 %" in one for one in told)


def test_of_a_stream_without_end_the_number_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    told = lines(monkeypatch, 0.01, 5, total=None)
    assert told[0].startswith("frames 0, ") and told[-1].startswith("frames 5, ")
    assert not any("%" in one for one in told)
