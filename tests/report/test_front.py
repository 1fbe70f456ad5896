"""The front page's table: the thesis's way from PyTorch to the pruned INT8 engine, and what it
bought there and here."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from lib.measure import quality
from lib.measure.full_size import EngineSpeed
from lib.report import front
from lib.report.tables import ABSENT
from lib.vot.dataset import load_dataset

pytest.importorskip("openvino")
# parameters, multiple of channels, times faster
SIZES = ((45.5e6, 1, 1), (12e6, 1, 2), (11.9e6, 32, 9))


def speed(rows: list[dict[str, Any]]) -> EngineSpeed:
    return EngineSpeed(rows, {}, {}, [], 54_000_000, "openvino", "run", {})


def timed(framework: str, precision: str, faster: int) -> list[dict[str, Any]]:
    """Rows of one engine for every size."""
    return [
        {
            "framework": f"{framework} 1",
            "precision": precision,
            "parameters": size,
            "multiple": multiple,
            "fps": 10 * faster * more,
            "ratio": faster * more,
            "ratio_low": faster * more - 0.5,
            "ratio_high": faster * more + 0.5,
        }
        for size, multiple, more in SIZES
    ]


def test_the_front_page_sets_the_thesiss_way_beside_ours(small: Path, small_run: str) -> None:
    chosen = front.lines("demo", "openvino")
    assert [line.reported.get("eao") for line in chosen] == [
        0.413,
        0.392,
        0.389,
        0.347,
        0.159,
        None,
    ]
    assert [line.title for line in chosen[:4]] == [
        "PyTorch FP32",
        "Engine FP32",
        "Engine FP16",
        "Engine INT8",
    ]
    engines = (
        row for precision in ("FP32", "FP16", "INT8") for row in timed("OpenVINO", precision, 4)
    )
    rows = [*timed("PyTorch", "FP32", 1), *engines]
    measured = quality.measure(
        [line.variant for line in chosen], load_dataset(small), small_run, shown=False
    )
    table = front.headline(chosen, measured, speed(rows), "Caption.")
    assert [row[4] for row in table.rows] == ["10.0", "40.0", "40.0", "40.0", "80.0", "80.0"], (
        "no multiples"
    )
    assert [row[6] for row in table.rows[2:5]] == [
        ("4.00", "3.50–4.50"),
        ("4.00", "3.50–4.50"),
        ("8.00", "7.50–8.50"),
    ]
    assert (
        table.rows[3][5] == f"{65.7 / 11.1:.1f}" and table.rows[5][1] == table.rows[5][3] == ABSENT
    )
    for row, one in zip(table.rows, measured):
        assert row[2][0] == f"{one.evaluation.eao:.3f}"


def test_speeds_that_a_run_lacks_are_dashes(small: Path, small_run: str) -> None:
    [line] = front.lines("demo", "openvino")[:1]
    [one] = quality.measure([line.variant], load_dataset(small), small_run, shown=False)
    [row] = front.headline([line], [one], speed([]), "Caption.").rows
    assert row[4] == row[6] == ABSENT and row[5] == "1.0"
