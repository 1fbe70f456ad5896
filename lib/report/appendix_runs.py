"""Runs side by side, and the page about this machine and its runs (chapter 4, appendix B).

Views only: tables of runs (`lib.measure.runs`) and the thesis's rows come in.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Mapping

import pandas as pd

from lib import environment
from lib.measure import runs
from lib.report.tables import ABSENT, Table, Text, as_number, as_text, as_value, is_known

# Outputs are no MyST: no links to *.md
PAGES = "[Run it on your own](../own.html), [On a Jetson AGX Xavier](../xavier.html)"
HOW = (
    f"A run of another machine is made there with `run` set to a name of its own (see {PAGES}), and its folder data/runs/NAME "
    "copied here; then it stands in this place, and `make book RUN=NAME` shows all pages with it."
)


QUALITY = ("A", "R, failures per 100 frames", "EAO", "FPS, tracked frames")
POWER = (
    "FPS, tracked frames",
    "Power, thesis, W",
    "Energy a frame, thesis, J",
    "Power, integrated, W",
    "Energy a frame, integrated, J",
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
    rows = [_reported(row, power) for row in reported.to_dict("records")]
    for name, table in {Path(run).name: runs.section_table(run, section), **others}.items():
        rows += [_row(name, row, power) for row in table.to_dict("records")]
    caption = (
        f"{title}: the thesis, run {Path(run).name}, and {len(others)} more under data/runs. Networks and data differ "
        "where the second column says so."
    )
    return Table(["Whose number", "Tracker", *(POWER if power else QUALITY)], rows, caption)


def _reported(row: Mapping[Any, Any], power: bool) -> list[Any]:
    """A row of the thesis; its speed is by PySOT's scheme, and table 4.6's energies are in J,
    whatever its head says."""
    columns = (
        ("fps", "power_w", "energy_kj", "", "")
        if power
        else ("accuracy", "robustness", "eao", "fps")
    )
    return [
        (as_text(row["row"]), as_text(row.get("hardware")) or "NVIDIA Jetson Xavier AGX"),
        (_tracker(row), "VOT2018"),
        *(f"{row[name]:g}" if is_known(row.get(name)) else ABSENT for name in columns),
    ]


def _row(run: str, row: Mapping[Any, Any], power: bool) -> list[Any]:
    network = ", ".join(filter(None, (as_text(row.get("dataset")), as_text(row.get("network")))))
    speed = as_number(row.get("fps_tracked"), 1)
    sensor = ", ".join(filter(None, (as_text(row.get("sensor")), as_text(row.get("rail")))))
    joules = [
        f"{row[name]:.3g}" if is_known(row.get(name)) else ABSENT
        for name in ("energy_j_thesis", "energy_j")
    ]
    values = (
        [
            speed,
            (as_number(row.get("power_w_thesis"), 3), sensor),
            joules[0],
            as_number(row.get("power_w"), 3),
            joules[1],
        ]
        if power
        else [*(as_value(row, name, 3) for name in ("accuracy", "robustness", "eao")), speed]
    )
    whose = (f"run {run}", f"on {as_text(row.get('hardware'))}", f"on {as_text(row.get('date'))}")
    return [whose, (_tracker(row), network), *values]


def _tracker(row: Mapping[Any, Any]) -> str:
    return " ".join(filter(None, (as_text(row.get("framework")), as_text(row.get("precision")))))


# -- Appendix B ------------------------------------------------------------------------------------


def machine(record: Mapping[str, Any], sensor: str) -> Table:
    """This machine: a record of `environment.record`, and its power sensor or why there is none."""
    hardware = record["hardware"]
    rows = [
        ["processor", f"{hardware['processor']}, cores: {hardware['cores']}"],
        ["GPU", hardware["gpu"] or "none that PyTorch uses"],
        ["memory", f"{as_number(record['memory_gib'], 1)} GiB"],
        ["power mode", hardware.get("power_mode") or "none (not a Jetson)"],
        ["power sensor", sensor],
        ["system", record["system"]],
        ["commit", record["commit"] or "not a git repository"],
        [
            "in use by other work",
            f"{100 * record['in_use']:.0f} %" if is_known(record["in_use"]) else "unknown",
        ],
    ]
    versions = [[name, version] for name, version in record["versions"].items() if version]
    return Table(
        ["", "This machine"],
        [*rows, *versions],
        f"As of {record['date']}. A commit with + has uncommitted changes.",
    )


def all_runs(device: str) -> Table | Text:
    """A row a run under data/runs: where and when it was made, with what, what is in it, and
    whether it may be measured into."""
    rows = []
    for name in runs.names():
        record = runs.read_json(runs.run_folder(name) / runs.ENVIRONMENT)
        variants = sorted(path.parent for path in runs.run_folder(name).glob("*/*/measured.json"))
        datasets = list(dict.fromkeys(folder.parent.name for folder in variants))
        logs = next(runs.run_folder(name).glob("*/*/baseline/*/*_power.csv"), None)
        whose = (
            "recorded on another machine: read only"
            if runs.is_recorded(name, device)
            else "this machine's own"
        )
        rows.append(
            [
                (name, whose),
                (environment.label(record), record["date"], f"commit {record['commit']}"),
                (f"{len(variants)} variants", f"on {', '.join(datasets)}" if datasets else ""),
                ", ".join(sorted(path.stem for path in runs.run_folder(name).glob("[0-9]*.csv"))),
                "yes" if logs else ABSENT,
            ]
        )
    if not rows:
        return Text(f"Nothing is under data/runs yet. {HOW}")
    return Table(
        ["Run", "Last measured", "Holds", "Tables of sections", "Power"],
        rows,
        "All runs under data/runs.",
    )


def notebook_times() -> Table | Text:
    """What `siambook run` wrote down about each notebook, for every run that has it."""
    rows: list[list[Any]] = []
    for name in runs.names():
        for row in runs.notebook_times(name).to_dict("records"):
            rows.append(
                [
                    name,
                    row["notebook"],
                    row["status"],
                    as_number(row["seconds"], 1),
                    as_text(row["started"]),
                    as_text(row["message"]),
                ]
            )
    if not rows:
        return Text(
            "No run holds the times of its notebooks (`siambook run` writes them to data/runs/NAME/notebooks.csv)."
        )
    total = pd.DataFrame(rows)[3].replace(ABSENT, "nan").astype(float).sum()
    return Table(
        ["Run", "Notebook", "Status", "Seconds", "Started", "Message"],
        rows,
        f"What `siambook run` executed: {total:.0f} s in all.",
    )
