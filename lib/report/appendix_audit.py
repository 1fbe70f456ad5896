"""The appendix about the thesis's arithmetic: `thesis.audit` grouped, deviations first, and its
tables with units.

Views only: findings and reported tables come in, tables, a figure and sentences go out.
"""

from __future__ import annotations

from collections import Counter
from typing import Any
from typing import Sequence as Seq

from matplotlib.figure import Figure

from lib.report import thesis
from lib.report.plots import BLUE, GREEN, GREY, ORANGE, finished, new_figure, styled
from lib.report.tables import ABSENT, Table, Text
from lib.report.thesis import Finding

READINGS = {
    "slip": "a slip",
    "base": "another base than the words name",
    "units": "another unit",
    "rounding": "rounding",
}
LOOKS = {"slip": (ORANGE, "X"), "base": (BLUE, "o"), "units": (GREEN, "s"), "rounding": (GREY, "v")}
TABLES = tuple(f"table_4_{number}" for number in range(1, 8))
HEADS = {
    "framework": "Framework",
    "hardware": "Machine",
    "precision": "Precision",
    "target": "Target",
    "search": "Search",
    "xcorr": "Xcorr",
    "parameters_m": "Parameters, M",
    "compression": "Compression, parameters left / original",
    "accuracy": "Accuracy, 0 to 1",
    "robustness": "Robustness, failures per 100 frames",
    "eao": "EAO, 0 to 1",
    "fps": "Speed, frames per second",
    "top1": "Top-1, %",
    "top5": "Top-5, %",
    "power_w": "Power, W",
    "power_change_pct": "Power, change in %",
    "energy_kj": "Energy a frame, kJ as printed",
    "energy_j": "Energy a frame, J",
    "energy_change_pct": "Energy, change in %",
}


def summary(found: Seq[Finding]) -> Text:
    """How many numbers follow from others, how many of these agree, and how the rest is read."""
    counted = Counter(finding.reading for finding in found)
    claims = {row["id"] for row in thesis.rows("claims")}
    derived = sum(finding.id in claims for finding in found)
    parts = ", ".join(f"{words} ({counted[reading]})" for reading, words in READINGS.items())
    cells, others = len(found) - derived, len(found) - counted["agrees"]
    return Text(
        f"{len(found)} numbers of the thesis follow from others: {cells} cells of tables 4.1 to 4.7 and {derived} of the "
        f"{len(claims)} numbers that were taken from its text. **{counted['agrees']} agree** to the last printed digit. "
        f"The other **{others}** are read as {parts}."
    )


def derivations(found: Seq[Finding]) -> Table:
    """What was derived from what: a row a column of a table, and a row a kind of formula for the
    text."""
    formulas = {row["id"]: row for row in thesis.rows("audit")}
    names = {
        "robustness": "whole failures on VOT2018's frames",
        "compression": "parameters / parameters of the first row",
        "energy_kj": "power / FPS",
        "energy_j": "power / FPS",
        "power_change_pct": "power against the 45.5 M row",
        "energy_change_pct": "energy against the 45.5 M row",
    }
    kinds = {
        "same": "the same number elsewhere",
        "count": "counted, ranked or looked up in tables or the network",
    }
    groups: dict[tuple[str, str], list[Finding]] = {}
    for finding in found:
        if finding.id in formulas:
            formula = formulas[finding.id]["formula"]
            key = ("the text", kinds.get(formula, f"{formula} of printed numbers"))
        else:
            key = (finding.where, names[finding.id.rsplit("/", 1)[1]])
        groups.setdefault(key, []).append(finding)
    rows = [
        [
            where,
            how,
            str(len(group)),
            str(sum(finding.reading == "agrees" for finding in group)),
            str(sum(finding.reading != "agrees" for finding in group) or ABSENT),
        ]
        for (where, how), group in groups.items()
    ]
    return Table(
        ["Numbers of", "Derived as", "Numbers", "Agree", "Deviate"],
        rows,
        "What was derived from what. A number agrees where it is the derived one, rounded.",
    )


def deviations(found: Seq[Finding], reading: str) -> Table:
    """The findings with a reading: where, the thesis's words, its number, what follows, how far
    apart, and why."""
    chosen = [finding for finding in found if finding.reading == reading]
    rows = [
        [
            (claim(finding), finding.where),
            (finding.stated, finding.unit),
            (f"{finding.derived:.4g}", finding.unit),
            (f"{finding.deviation:+.3g}", relative(finding)),
            finding.sentence,
        ]
        for finding in chosen
    ]
    return Table(
        [
            "The thesis says",
            "Printed",
            "Follows",
            "Deviation",
            "How, and what the reading rests on",
        ],
        rows,
        f"Read as {READINGS[reading]}: {len(rows)}.",
    )


def relative(finding: Finding) -> str:
    """Deviation in % of the printed number; empty where that is 0."""
    stated = float(finding.stated)
    return f"{100 * finding.deviation / abs(stated):+.1f} %" if stated else ""


@styled
def figure(found: Seq[Finding], note: str) -> Figure:
    """Size of the deviations in % of the printed number, largest first; those of printed zeros have
    no such size."""
    shown = [finding for finding in found if finding.reading != "agrees" and float(finding.stated)]
    shown.sort(key=lambda finding: abs(finding.deviation / float(finding.stated)))
    drawn, axis = new_figure(0.9 + 0.27 * len(shown))
    for row, finding in enumerate(shown):
        size, (color, marker) = (
            abs(100 * finding.deviation / float(finding.stated)),
            LOOKS[finding.reading],
        )
        axis.plot([1e-2, size], [row, row], color="#BBBBBB", lw=1)
        axis.plot([size], [row], color=color, marker=marker, ls="")
    names = [_short(finding) for finding in shown]
    axis.set_yticks(range(len(shown)), names, fontsize=8)
    axis.set(
        xscale="log",
        xlabel="deviation, % of the printed number",
        title="Size of the deviations",
        xlim=(1e-2, 300),
    )
    handles = [
        axis.plot([], [], color=color, marker=marker, ls="")[0] for color, marker in LOOKS.values()
    ]
    drawn.legend(handles, list(READINGS.values()), loc="outside upper left", ncols=2, fontsize=9)
    return finished(drawn, note)


def _short(finding: Finding) -> str:
    """For an axis: "4.2, p. 50: 16.6 %"; of a cell "4.6, TensorRT INT8: energy a frame"."""
    place = finding.where.replace("section ", "").replace("table ", "").replace("page", "p.")
    unit = f" {finding.unit}" if len(finding.unit) < 7 else ""
    return f"{place}, {claim(finding)}" if "/" in finding.id else f"{place}: {finding.stated}{unit}"


def claim(finding: Finding) -> str:
    """The thesis's words; of a cell its row and column."""
    if "/" not in finding.id:
        return finding.claim
    _, row, column = finding.id.split("/")
    head, _, unit = HEADS[column].partition(", ")
    return f"{row}: {head[0].lower()}{head[1:]}{', change' if unit.startswith('change') else ''}"


def agreements(found: Seq[Finding]) -> Table:
    """The findings that agree, in the order of the thesis."""
    rows = [
        [
            (claim(finding), finding.where),
            (finding.stated, finding.unit),
            f"{finding.derived:.5g}",
            finding.sentence,
        ]
        for finding in found
        if finding.reading == "agrees"
    ]
    return Table(
        ["The thesis says", "Printed", "Follows", "How"], rows, f"Numbers that agree: {len(rows)}."
    )


def printed(name: str, found: Seq[Finding]) -> Table:
    """A table of the thesis as printed, units in the heads; ≠ and what follows where the audit
    finds another number."""
    deviating = {finding.id: finding for finding in found if finding.reading != "agrees"}
    about, rows = thesis.table(name).attrs, thesis.rows(name)
    columns = [column for column in rows[0] if column in HEADS]

    def cell(row: dict[str, str], column: str) -> Any:
        other = deviating.get(f"{name}/{row['name']}/{column}")
        return (
            row[column] or ABSENT
            if other is None
            else (f"{row[column]} ≠", f"({other.derived:.4g})")
        )

    cells = [[row["row"], *(cell(row, column) for column in columns)] for row in rows]
    return Table(
        ["Whose number", *(HEADS[column] for column in columns)],
        cells,
        f"{about['title']} (source: {about['source']}). Units: {about['units']}.",
    )


def untouched() -> Text:
    """What of the text's numbers follows from nothing else."""
    derived = {row["id"] for row in thesis.rows("audit")}
    alone = [row for row in thesis.rows("claims") if row["id"] not in derived]
    quoted = sum(row["row"] == "published" for row in alone)
    return Text(
        f"{len(alone)} numbers of the text follow from no others in it, {quoted} of them quoted from others: settings, "
        "sizes, and values that stand in no table. They are used, and not judged."
    )
