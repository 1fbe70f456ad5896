"""Where each figure and table of the thesis is made again: data/reproduction.csv as a table with
links (appendix of the book)."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from lib.files import ROOT
from lib.report.tables import ABSENT, Text

FILE = ROOT / "data" / "reproduction.csv"
STATES = ("made", "after training", "not yet", "exception")
WITH_PAGE = STATES[:2]


def rows() -> pd.DataFrame:
    """Columns item ("figure 2.1", "table 4.2"), title, state (one of STATES), page (of the table of
    contents), data, scale; empty text where there is nothing to say."""
    return pd.read_csv(FILE, comment="#", dtype=str).fillna("")


def markdown(frame: pd.DataFrame) -> Text:
    """The rows as a Markdown table, for a notebook beside the pages that it links to."""
    lines = ["| Thesis | Shows | Where | From | Scale |", "|---|---|---|---|---|"]
    for row in frame.to_dict("records"):
        name = Path(row["page"]).name
        section = ".".join(part.lstrip("0") for part in name.split("_") if part.isdigit())
        where = f"[section {section}]({name}.ipynb)" if row["page"] else row["state"]
        lines.append(
            f"| {str(row['item']).capitalize()} | {row['title']} | {where} | {row['data'] or ABSENT} | "
            f"{row['scale'] or ABSENT} |"
        )
    return Text("\n".join(lines))


def counts(frame: pd.DataFrame) -> Text:
    """How many rows are in each state that there is, and what is not there yet."""
    found = [
        f"{count} {state}" for state in STATES if (count := int((frame["state"] == state).sum()))
    ]
    absent = ", ".join(frame["item"][frame["state"] == "not yet"])
    return Text(
        f"Of {len(frame)} figures and tables: {', '.join(found)}."
        + (f" Not yet: {absent}." if absent else "")
    )
