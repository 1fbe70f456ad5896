"""Section 4.3's tables, figure and sentences: power and energy, by the thesis's definition and by
integration (`lib.measure.power`).

Views only: rows of a run (columns of `measurement.power_columns`) and the thesis's tables come in.
A run without a sensor has no such rows; then the thesis's stand alone, and `about_sensor` says what
would supply ours.
"""

from __future__ import annotations

from typing import Any, Mapping
from typing import Sequence as Seq

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lib.measure import power
from lib.report import thesis
from lib.report.appendix_audit import claim
from lib.report.plots import BLUE, GREEN, GREY, ORANGE, finished, new_figure, styled
from lib.report.tables import ABSENT, WHOSE, Table, Text, as_number, is_known

COLOURS = {
    "PyTorch FP32": GREY,
    "TensorRT FP32": BLUE,
    "TensorRT FP16": ORANGE,
    "TensorRT INT8": GREEN,
}
DEFINITIONS = (
    "Thesis: a sample every 5 s, their running average, its largest value; energy a frame is that power divided by frames a "
    "second. Integrated: mean power over the run; energy a frame is of the tracked frames, with its standard deviation under it, "
    "as it was drawn and with the idle power subtracted."
)
COMMAND = "papermill notebooks/04_3_power.ipynb out.ipynb --cwd notebooks -r run NAME"


# -- Tables ----------------------------------------------------------------------------------------


def table_4_6(rows: pd.DataFrame, caption: str) -> Table:
    """Table 4.6: the thesis's rows with energies and changes computed again, then the rows of a run
    (none without a sensor)."""
    findings = {finding.id: finding for finding in thesis.audit()}
    theirs = thesis.table("table_4_6").to_dict("records")
    first = 1000 * findings["table_4_6/PyTorch FP32/energy_kj"].derived
    heads = [
        "Tracker",
        "Power, thesis, W",
        "Energy a frame, thesis, J",
        "Power against PyTorch FP32",
        "Energy against it",
        "Power, integrated, W",
        "Idle, W",
        "Energy a frame, integrated, J",
        "The same without idle, J",
    ]
    cells: list[list[Any]] = []
    for printed in theirs:
        name = f"{printed['framework']} {printed['precision']}"
        joules = 1000 * findings[f"table_4_6/{name}/energy_kj"].derived
        cells.append(
            [
                (name, "thesis, Xavier, MAXN, VOT2018"),
                f"{printed['power_w']:g}",
                (f"{joules:.3f}", f"printed: {printed['energy_kj']:g} kJ"),
                _change(printed["power_w"], theirs[0]["power_w"]),
                _change(joules, first),
                *[ABSENT] * 4,
            ]
        )
    if not len(rows):
        return Table(heads[:5], [row[:5] for row in cells], caption)
    return Table(
        heads,
        [*cells, *(_measured(row, rows) for row in rows.to_dict("records"))],
        f"{caption} {DEFINITIONS}",
    )


def _measured(row: Mapping[Any, Any], rows: pd.DataFrame) -> list[Any]:
    """A row of a run; what it is compared with is PyTorch FP32 with the same network and data."""
    same = rows[
        (rows["network"] == row["network"])
        & (rows["dataset"] == row["dataset"])
        & (rows["framework"] == "PyTorch")
        & (rows["precision"] == "FP32")
    ].to_dict("records")
    changes = [
        _change(row[name], same[0][name]) if same else ABSENT
        for name in ("power_w_thesis", "energy_j_thesis")
    ]
    gap = row["power_s"] - row["power_covered_s"]
    left_out = (
        f"{gap:.1f} of {row['power_s']:.0f} s without readings"
        if gap > 0.05 * row["power_s"]
        else ""
    )
    return [
        (
            f"{row['framework']} {row['precision']}",
            f"{WHOSE[str(row['row'])]}, run {row['run']}",
            f"{row['dataset']}, {row['network']}",
            f"{row['sensor']}, rail {row['rail']}",
        ),
        as_number(row["power_w_thesis"], 3),
        _digits(row["energy_j_thesis"]),
        *changes,
        (as_number(row["power_w"], 3), left_out),
        as_number(row["idle_w"], 3),
        (_digits(row["energy_j"]), _give_or_take(row["energy_j_spread"])),
        (_digits(row["net_energy_j"]), _give_or_take(row["net_energy_j_spread"])),
    ]


def table_4_7(rows: pd.DataFrame, caption: str) -> Table:
    """Table 4.7: what is printed, what follows from power and speed, and each percentage computed
    again; then a run's rows.

    Marked ≠ where the printed number is not the one that follows.
    """
    findings = {finding.id: finding for finding in thesis.audit()}
    heads = [
        "Backbone",
        "Tracker",
        "Power, W",
        "Power against 45.5 M",
        "Energy a frame, J",
        "Energy against 45.5 M",
    ]

    def again(name: str, column: str, printed: str, digits: int) -> Any:
        found = findings.get(f"table_4_7/{name}/{column}")
        if found is None:
            return ABSENT
        sign, unit = ("+", " %") if column.endswith("pct") else ("", "")
        mark = "" if found.reading == "agrees" else " ≠"
        return f"{float(printed):{sign}g}{unit}{mark}", f"({found.derived:{sign}.{digits}f}{unit})"

    cells: list[list[Any]] = []
    for row in thesis.rows("table_4_7"):
        cells.append(
            [
                (f"{row['parameters_m']} M", "thesis, Xavier"),
                f"{row['framework']} {row['precision']}",
                row["power_w"],
                again(row["name"], "power_change_pct", row["power_change_pct"], 2),
                again(row["name"], "energy_j", row["energy_j"], 4),
                again(row["name"], "energy_change_pct", row["energy_change_pct"], 2),
            ]
        )
    for own in rows.to_dict("records"):
        cells.append(
            [
                (
                    own["network"],
                    f"{WHOSE[str(own['row'])]}, run {own['run']}",
                    str(own["dataset"]),
                ),
                (f"{own['framework']} {own['precision']}", f"{own['sensor']}, rail {own['rail']}"),
                (as_number(own["power_w_thesis"], 3), f"integrated {as_number(own['power_w'], 3)}"),
                ABSENT,
                (_digits(own["energy_j_thesis"]), f"integrated {_digits(own['energy_j'])}"),
                ABSENT,
            ]
        )
    under = (
        "Under a printed number, in brackets: the same computed from the table's other numbers and the speeds of table "
        "4.5; marked ≠ where it does not round to the printed one."
    )
    return Table(heads, cells, f"{caption} {under}")


def concerns_power(finding: thesis.Finding) -> bool:
    """Whether a finding of the audit is about power or energy: sections 3.3.4 and 4.3, their
    tables, what chapter 5 says."""
    place = finding.where.split(",")[0]
    return place in (
        "table 4.6",
        "table 4.7",
        "section 3.3.4",
        "section 4.3",
    ) or finding.id.startswith(("conclusion_power", "conclusion_energy"))


READINGS = {
    "units": "another unit",
    "base": "another base than the words name",
    "rounding": "cut off, not rounded",
    "slip": "a slip",
}


def deviations(caption: str) -> Table:
    """Every number about power and energy that does not follow from the others, with what does."""
    found = [finding for finding in thesis.audit() if concerns_power(finding)]
    rows = [
        [
            (finding.where, claim(finding)),
            f"{finding.stated} {_unit(finding)}",
            f"{finding.derived:.4g} {_unit(finding)}",
            READINGS[finding.reading],
            finding.sentence,
        ]
        for finding in found
        if finding.reading != "agrees"
    ]
    return Table(
        ["Where", "Printed", "Follows", "Read as", "Why"],
        rows,
        f"{caption} {len(found)} numbers follow from others; {len(found) - len(rows)} of them agree.",
    )


def _unit(finding: thesis.Finding) -> str:
    return finding.unit.split(" (")[0]


# -- Sentences -------------------------------------------------------------------------------------


def unit_finding() -> Text:
    """Table 4.6's unit, told from its own numbers."""
    found = [finding for finding in thesis.audit() if finding.id.startswith("table_4_6/")]
    wrong = [finding for finding in found if finding.reading == "units"]
    first = found[0]
    return Text(
        f"**The unit of table 4.6.** Its head says kJ a frame. Power divided by frames a second gives "
        f"{1000 * first.derived:.4f} J for the first row, where {first.stated} is printed: {len(wrong)} of {len(found)} "
        "energies are right in joules and a thousand times too large in the unit printed over them. Table 4.7 says J."
    )


def sampling() -> Text:
    """How often power is read, by the thesis and here, and how long the idle power is taken
    before."""
    theirs = thesis.cell("claims/power_sampling/number")
    return Text(
        f"The thesis reads the sensor every {theirs} s. Here it is read every {power.PERIOD:g} s, for both definitions; "
        f"the first takes one of these readings each {power.THESIS_PERIOD:g} s. The idle power is that of the "
        f"{power.IDLE_SECONDS:g} s before."
    )


def against_size() -> Text:
    """Where the thesis's power rises though the backbone gets smaller."""
    found = []
    for tracker in COLOURS:
        for size, smaller in zip(thesis.SIZES, thesis.SIZES[1:]):
            before, after = (
                float(thesis.cell(f"table_4_7/{each} M {tracker}/power_w"))
                for each in (size, smaller)
            )
            if after > before:
                found.append(
                    f"{tracker} takes {before:g} W at {size} M parameters and {after:g} W at {smaller} M"
                )
    return Text(
        f"**Smaller is not always less.** {'; '.join(found)}. The text names one such case. The largest value of a "
        "running average, of one run each, may well differ by that much; without a spread nobody can tell."
    )


def about_sensor(sensor: str, has_rows: bool) -> Text:
    """Which sensor the rows come from, or why there is none, and the one command that would supply
    them."""
    if has_rows:
        return Text(
            f"Power was read from {sensor}."
            if sensor and not sensor.startswith("no ")
            else "The run has power; on this machine, now: " + sensor + "."
        )
    if sensor.startswith("no power in run"):
        return Text(
            f"**{sensor[0].upper()}{sensor[1:]}**, and only there it can be added: `{COMMAND}`."
        )
    # There is one, but what the run has was measured without
    if not sensor.startswith("no power sensor"):
        return Text(
            f"**No power in this run.** There is a sensor here ({sensor}), and what this run holds was measured without "
            f"it. A run of another name is measured with it: `{COMMAND}`."
        )
    first = ""
    if "Permission denied" in sensor:
        first = " The counters are there, for root alone: `sudo chmod a+r /sys/class/powercap/*/energy_uj` opens them; then:"
    elif "pip install" in sensor:
        first = " With an NVIDIA GPU, `pip install -e '.[power]'` first; then, as on a Jetson or an x86 machine with RAPL:"
    first = first or " On a machine with one:"
    return Text(
        f"**{sensor[0].upper()}{sensor[1:]}**, so no row of this machine stands in the tables.{first} `{COMMAND}` "
        "measures power into data/runs/NAME; copied here, that run is shown below and by `make book RUN=NAME`."
    )


# -- Figure ----------------------------------------------------------------------------------------


@styled
def figure_4_11(rows: pd.DataFrame, note: str) -> Figure:
    """Figure 4.11: the power of every backbone and tracker as table 4.7 has it, and the energy a
    frame; a run's rows below."""
    table = thesis.table("table_4_7")
    heights = [3.6, 3.6, *([0.6 + 0.32 * len(rows)] if len(rows) else [])]
    figure, axes = new_figure(sum(heights), heights)
    for axis, column, title, label in (
        (axes[0], "power_w", "Power (thesis, Xavier, MAXN)", "W, largest running average"),
        (axes[1], "energy_j", "Energy a frame (thesis)", "J"),
    ):
        _bars(axis, table, column)
        axis.set(title=title, xlabel=label, ylabel="parameters of the backbone")
    handles = axes[0].get_legend_handles_labels()
    if len(rows):
        _own_bars(axes[2], rows)
    figure.legend(*handles, loc="outside upper left", ncols=2)
    return finished(figure, note)


def _bars(axis: Axes, table: pd.DataFrame, column: str) -> None:
    sizes = list(dict.fromkeys(table["parameters_m"]))
    for at, (tracker, colour) in enumerate(COLOURS.items()):
        framework, precision = tracker.split()
        values = table[
            (table["framework"] == framework) & (table["precision"] == precision)
        ].set_index("parameters_m")[column]
        places = np.arange(len(sizes)) + 0.2 * (at - 1.5)
        axis.barh(places, [values[size] for size in sizes], 0.18, color=colour, label=tracker)
        for place, size in zip(places, sizes):
            axis.text(values[size], place, f" {values[size]:g}", va="center", fontsize=8)
    axis.set_yticks(range(len(sizes)), [f"{size:g} M" for size in sizes])
    axis.set(ylim=(len(sizes) - 0.5, -0.5), xlim=(0, 1.15 * table[column].max()))


def _own_bars(axis: Axes, rows: pd.DataFrame) -> None:
    """The run's power by both definitions."""
    for place, row in enumerate(rows.to_dict("records")):
        colour = COLOURS.get(
            f"TensorRT {row['precision']}" if row["framework"] != "PyTorch" else "PyTorch FP32",
            GREY,
        )
        axis.barh(place, row["power_w_thesis"], 0.6, color=colour, alpha=0.5)
        axis.plot(
            [row["power_w"]],
            [place],
            marker="D",
            color="black",
            ls="",
            label="integrated" if place == 0 else None,
        )
        axis.text(
            max(row["power_w_thesis"], row["power_w"]),
            place,
            f"  {row['power_w_thesis']:.2f}",
            va="center",
            fontsize=8,
        )
    names = [
        f"{row['framework']} {row['precision']}\n{str(row['network']).replace('parameters', '').strip()}"
        for row in rows.to_dict("records")
    ]
    axis.set_yticks(range(len(rows)), names, fontsize=8)
    axis.set(title="Power here", xlabel="W; bar: thesis's definition", ylim=(len(rows) - 0.4, -0.6))
    axis.set_xlim(0, 1.2 * float(np.nanmax(rows[["power_w_thesis", "power_w"]].to_numpy(float))))
    axis.legend(loc="lower right")


# -- Numbers ---------------------------------------------------------------------------------------


def all_rows(*tables: Seq[Mapping[str, Any]] | pd.DataFrame) -> pd.DataFrame:
    """Rows that have a power, each variant once; a table may be a list of rows."""
    frames = [frame for frame in map(pd.DataFrame, tables) if len(frame) and "power_w" in frame]
    found = [frame[frame["power_w"].notna()] for frame in frames]
    kept = [frame for frame in found if len(frame)]
    return (
        pd.concat(kept, ignore_index=True).drop_duplicates(["variant", "network", "dataset"])
        if kept
        else pd.DataFrame()
    )


def _change(new: float, old: float) -> str:
    return f"{thesis.change(new, old):+.2f} %" if new != old else ABSENT


def _digits(value: Any) -> str:
    """Three significant digits."""
    return f"{float(value):.3g}" if is_known(value) else ABSENT


def _give_or_take(value: Any) -> str:
    return f"(± {float(value):.2g})" if is_known(value) else ""
