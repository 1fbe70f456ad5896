"""Runs side by side (sections 4.1 to 4.3): the thesis's rows, this run's, and those of all others
under data/runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Mapping

import pandas as pd

from lib.measure import runs
from lib.report.tables import ABSENT, Table, Text, as_number, as_text, as_value, is_known

# Outputs are no MyST: no links to *.md
HOW = "[Run it on your own](../own.html) says how to make one; `make book RUN=NAME` shows all pages with it."
# Heads, and columns of the thesis's table and of a run's
QUALITY = (
    ("A", "accuracy", "accuracy", 3),
    ("R, failures per 100 frames", "robustness", "robustness", 3),
    ("EAO", "eao", "eao", 3),
    ("FPS, tracked frames", "fps", "fps_tracked", 1),
)
POWER = (
    ("FPS, tracked frames", "fps", "fps_tracked", 1),
    ("Power, thesis, W", "power_w", "power_w_thesis", 1),
    # Table 4.6 prints joules, whatever its head says
    ("Energy a frame, thesis, J", "energy_kj", "energy_j_thesis", 3),
    ("Power, integrated, W", "", "power_w", 1),
    ("Energy a frame, integrated, J", "", "energy_j", 3),
)


def side_by_side(
    section: str, run: str, reported: pd.DataFrame, title: str, power: bool = False
) -> Table | Text:
    """A section's rows of the thesis, of this run and of all others under data/runs, each with its
    hardware and date; a sentence where there are no others. section: e.g. "04_1_baseline".
    reported: the thesis's table with framework and precision or hardware. power: power and energy
    by both definitions (section 4.3) in place of quality."""
    others = runs.recorded(section, besides=run)
    if not others:
        return Text(f"No other run under data/runs has this section. {HOW}")
    columns = POWER if power else QUALITY
    rows: list[list[Any]] = []
    for row in reported.to_dict("records"):
        machine = as_text(row.get("hardware")) or "NVIDIA Jetson Xavier AGX"
        values = (row.get(name) for _, name, _, _ in columns)
        rows.append(
            [(as_text(row["row"]), machine), (_tracker(row), "VOT2018")]
            + [f"{value:g}" if is_known(value) else ABSENT for value in values]
        )
    for name, table in {Path(run).name: runs.section_table(run, section), **others}.items():
        for row in table.to_dict("records"):
            whose = (f"run {name}", f"on {as_text(row['hardware'])}", f"on {as_text(row['date'])}")
            network = ", ".join((as_text(row["dataset"]), as_text(row["network"])))
            values = (_value(row, own, digits) for _, _, own, digits in columns)
            rows.append([whose, (_tracker(row), network), *values])
    caption = (
        f"{title}: the thesis, run {Path(run).name}, and {len(others)} more under data/runs. Networks and data differ "
        "where the second column says so."
    )
    return Table(["Whose number", "Tracker", *(head for head, *_ in columns)], rows, caption)


def _value(row: Mapping[Any, Any], name: str, digits: int) -> Any:
    if is_known(row.get(f"{name}_low")) and name in ("accuracy", "robustness", "eao"):
        return as_value(row, name, digits)
    return as_number(row.get(name), digits)


def _tracker(row: Mapping[Any, Any]) -> str:
    return " ".join(filter(None, (as_text(row.get("framework")), as_text(row.get("precision")))))
