"""Runs side by side (sections 4.1 to 4.3): the thesis's rows, this run's, and those of all others
under data/runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Mapping

import pandas as pd

from lib.measure import runs
from lib.report import thesis
from lib.report.compare import MEASURES
from lib.report.tables import Column, Table, Text, as_text

# Outputs are no MyST: no links to *.md
HOW = "[Run it on your own](../own.html) says how to make one; `make book RUN=NAME` shows all pages with it."
FPS: Column = ("FPS, tracked frames", "speed", ".1f")  # fps_tracked without its interval
POWER: tuple[Column, ...] = (
    FPS,
    ("Power, thesis, W", "power_w_thesis", ".1f"),
    ("Energy a frame, thesis, J", "energy_j_thesis", ".3f"),
    ("Power, integrated, W", "power_w", ".1f"),
    ("Energy a frame, integrated, J", "energy_j", ".3f"),
)
# The thesis's columns under a run's names. Table 4.6 prints joules, whatever its head says
NAMES = {"fps": "speed", "power_w": "power_w_thesis", "energy_kj": "energy_j_thesis"}


def other_runs(
    section: str, run: str, reported: str, title: str, power: bool = False
) -> Table | Text:
    """A section's rows of the thesis, of this run and of all others under data/runs, each with its
    hardware and date; a sentence where there are no others. section: e.g. "04_1_baseline".
    reported: the thesis's table, e.g. "table_4_1". power: power and energy by both definitions
    (section 4.3) in place of quality."""
    others = runs.recorded(section, besides=run)
    if not others:
        return Text(f"No other run under data/runs has this section. {HOW}")
    rows: list[dict[Any, Any]] = [
        {
            **{NAMES.get(column, column): text for column, text in row.items()},
            "whose": (row["row"], row.get("hardware", "NVIDIA Jetson Xavier AGX")),
            "tracker": (_tracker(row), "VOT2018"),
        }
        for row in thesis.rows(reported)
    ]
    for name, table in {Path(run).name: runs.section_table(run, section), **others}.items():
        for row in table.to_dict("records"):
            network = ", ".join((as_text(row["dataset"]), as_text(row["network"])))
            machine, date = f"on {as_text(row['hardware'])}", f"on {as_text(row['date'])}"
            about = {"whose": (f"run {name}", machine, date), "tracker": (_tracker(row), network)}
            rows.append({**row, **about, "speed": row.get("fps_tracked")})
    columns: list[Column] = [("Whose number", "whose", ""), ("Tracker", "tracker", "")]
    columns += POWER if power else (*MEASURES, FPS)
    caption = (
        f"{title}: the thesis, run {Path(run).name}, and {len(others)} more under data/runs. Networks and data differ "
        "where the second column says so."
    )
    return Table.of(pd.DataFrame(rows), columns, caption)


def _tracker(row: Mapping[Any, Any]) -> str:
    return " ".join(filter(None, (as_text(row.get("framework")), as_text(row.get("precision")))))
