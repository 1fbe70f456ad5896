"""The thesis's numbers as it reports them (data/thesis/*.csv), and what follows from them by
arithmetic.

Every file says in its first lines what it is, where it comes from and in which units; every row
says whose number it is: "published" (the SiamRPN++ paper, as the thesis quotes it) or "thesis"
(measured for the thesis). Serves chapter 4 and the audit: `audit` derives each number of tables and
text (claims.csv) that follows from others, by the formulas of audit.csv.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from math import ceil, prod
from operator import sub, truediv
from typing import Any, Callable, Dict, Iterator, NamedTuple, Tuple

import numpy as np
import pandas as pd

from lib.errors import InputError
from lib.files import ROOT
from lib.vot.dataset import VOT2018_FRAMES

FOLDER = ROOT / "data" / "thesis"
SIZES = ("45.5", "30", "22.5", "12")  # tables 4.4 to 4.7: millions of parameters of the backbone
TRACKERS = ("PyTorch FP32", "TensorRT FP32", "TensorRT FP16", "TensorRT INT8")
XAVIER = "PyTorch NVIDIA Jetson Xavier AGX"  # the baseline's row in table 4.1
# Kernel, stride, padding of stem, pooling, second stage (lib/siamrpn/network.py)
STRIDED = ((7, 2, 0), (3, 2, 1), (3, 2, 0))
TOLERANCE = 1e-9  # of float arithmetic, where a number is exactly half a digit away


def table(name: str) -> pd.DataFrame:
    """A reported table or figure by its file's name, e.g. "table_4_1"; column `row` is "published"
    or "thesis".

    `.attrs` has "title", "source" and "units" as the file states them. Raises InputError where
    there is no such file.
    """
    path = FOLDER / f"{name}.csv"
    if not path.is_file():
        there = ", ".join(sorted(file.stem for file in FOLDER.glob("*.csv")))
        raise InputError(f"{path}: no such table of the thesis (there are {there}).")
    head = [
        line[1:].strip()
        for line in path.read_text(encoding="utf-8").splitlines()
        if line.startswith("#")
    ]
    frame = pd.read_csv(path, comment="#")
    frame.attrs["title"] = head[0]
    for line in head[1:]:
        key, value = line.split(": ", 1)
        frame.attrs[key] = value
    return frame


def failures(robustness: float, frames: int = VOT2018_FRAMES, digits: int = 3) -> list[int]:
    """The whole numbers of failures that print as this robustness (failures per 100 frames, rounded
    to `digits`).

    failures(0.234) -> [50], failures(0.243) -> [52]: three digits pin the count on VOT2018 down, so
    the "one more time" that section 4.1 reads out of the two is two more. Half a last digit either
    way covers rounding and cutting off.
    """
    step = 10.0**-digits
    lowest, highest = (frames * (robustness + shift * step) / 100 for shift in (-0.5, 0.5))
    return [
        count
        for count in range(max(int(lowest) - 1, 0), int(highest) + 2)
        if lowest <= count <= highest
    ]


def audit_4_1() -> str:
    """What section 4.1 reads out of its two robustness values, and what follows from them, as a
    sentence."""
    paper, xavier = table("table_4_1")["robustness"]
    [few], [many] = failures(paper), failures(xavier)
    return (
        f"Table 4.1 prints robustness {paper:g} and {xavier:g}, failures per 100 frames. On the {VOT2018_FRAMES:,} frames "
        f"of VOT2018 these are {few} and {many} failures and nothing else: {many - few} more on the Xavier, where the text "
        f'says one more. The text\'s "0.01 percentage points" are {xavier - paper:.3f} failures per 100 frames.'
    )


@dataclass(frozen=True)
class Finding:
    """A number of the thesis beside what follows from its other numbers.

    reading: "agrees" (the derived number rounds to the stated one), "units" (it does in another
    unit), "base" (it does from another base than the words name), "rounding" (it may with unrounded
    inputs, or it was cut off), else "slip".
    """

    id: str  # of claims.csv, or table/row/column (see `cell`)
    where: str
    claim: str  # the thesis's words, or the table's row and column
    stated: str  # as printed
    derived: float
    unit: str
    reading: str
    sentence: str  # how it was derived, and what the reading rests on

    @property
    def deviation(self) -> float:
        """derived - stated, in `unit`."""
        return self.derived - float(self.stated)


class Derived(NamedTuple):
    """A derived number, and how low and high it may be where its inputs are known to their printed
    digits only."""

    value: float
    low: float
    high: float


def half_digit(text: str) -> float:
    """Half a unit of the last printed digit: "0.239" -> 0.0005."""
    return 0.5 * 10.0 ** -len(text.partition(".")[2])


def derive(formula: Callable[..., float], *printed: str) -> Derived:
    """A formula of printed numbers that only rises or only falls in each of them, so that its
    bounds are at the corners."""
    ends = product(
        *((float(text) - half_digit(text), float(text) + half_digit(text)) for text in printed)
    )
    values = [formula(*corner) for corner in ends]
    return Derived(formula(*map(float, printed)), min(values), max(values))


def reading(
    stated: str, derived: Derived, instead: Derived | None = None, kind: str = "base"
) -> str:
    """How a stated number is read (`Finding`): as `kind` where not `derived` but `instead` explains
    it."""

    def agrees(other: Derived) -> bool:
        return abs(other.value - number) <= half + TOLERANCE

    def in_reach(other: Derived) -> bool:
        return agrees(other) or (
            other.low + TOLERANCE < number + half and number - half + TOLERANCE < other.high
        )

    number, half = float(stated), half_digit(stated)
    if agrees(derived):
        return "agrees"
    if instead is not None and in_reach(instead):
        return kind
    cut_off = (
        number * derived.value > 0 and abs(number) <= abs(derived.value) < abs(number) + 2 * half
    )
    return "rounding" if in_reach(derived) or cut_off else "slip"


def change(new: float, old: float) -> float:
    """In %."""
    return 100 * (new / old - 1)


def nearest_count(robustness: float) -> int:
    """Failures on VOT2018, a whole number."""
    return round(robustness * VOT2018_FRAMES / 100)


# Of audit.csv; "count" there names one of `counts` instead
FORMULAS: Dict[str, Callable[..., float]] = {
    "same": float,
    "difference": sub,
    "ratio": truediv,
    "change": change,
    "saving": lambda new, old: -change(new, old),
    "energy saving": lambda watt, fps, watt_before, fps_before: (
        -change(watt / fps, watt_before / fps_before)
    ),
    "part more": lambda new, old: new / old - 1,
    "percent": lambda part: 100 * part,
    "rest": lambda percent: 100 - percent,
    "rounded up": lambda all_of_them, groups: ceil(all_of_them / groups),
    "ratio of ratios": lambda a, b, c, d: (a / b) / (c / d),
    "failures more": lambda robustness, before: nearest_count(robustness) - nearest_count(before),
}


def rows(name: str) -> list[Dict[str, str]]:
    """A table's rows as printed, every digit kept, with a key "name": the tracker's, "12 M TensorRT
    FP16", or a claim's id."""
    parts = (
        "id",
        "parameters_m",
        "framework",
        "hardware",
        "precision",
        "target",
        "search",
        "xcorr",
        "attribute",
    )
    frame, units = (
        pd.read_csv(FOLDER / f"{name}.csv", comment="#", dtype=str, keep_default_na=False),
        {"parameters_m": " M"},
    )
    records = (
        {str(column): text for column, text in row.items()} for row in frame.to_dict("records")
    )
    return [
        {**row, "name": " ".join(row[part] + units.get(part, "") for part in parts if part in row)}
        for row in records
    ]


def cell(reference: str) -> str:
    """One printed number by "file/name of its row/column", e.g. "table_4_7/12 M TensorRT
    FP16/power_w"."""
    file, name, column = reference.split("/")
    [text] = (row[column] for row in rows(file) if row["name"] == name)
    return text


def counts() -> Dict[str, float]:
    """What is counted or looked up rather than computed by one formula: ranks, maxima, a median,
    the network's size."""
    # Imports PyTorch, which `table` does not need
    from lib.siamrpn.network import Backbone, NetworkConfig, parameter_count

    accuracy, robustness, eao, fps = (
        _grid("table_4_5", column) for column in ("accuracy", "robustness", "eao", "fps")
    )
    power, energy = _grid("table_4_7", "power_w"), _grid("table_4_7", "energy_j")
    mixed, pruning, fp16 = (
        table("table_4_3"),
        table("table_4_4"),
        table("digits").set_index("precision").loc["FP16"],
    )
    pure = table("table_4_2").set_index("precision")
    median = mixed.loc[mixed["search"] == "FP16", "fps"]
    overall = np.argsort([float(cell(f"table_4_1/{XAVIER}/eao")), *pure["eao"]])
    by_attribute = table("figure_4_5").set_index("attribute")[list(TRACKERS)]
    low, high = (
        [float(cell(f"claims/{who}_{top}/number")) for top in ("top1", "top5")]
        for who in ("curl", "resnet50")
    )
    tops = pruning[["top1", "top5"]]
    better = mixed["eao"] > fp16["eao"]
    side = int(cell("claims/exemplar_size/number"))
    for kernel, stride, padding in STRIDED:
        side = (side - kernel + 2 * padding) // stride + 1  # the formula of section 2.1.1
    return {
        "feature side": side,
        "stride": prod(stride for _, stride, _ in STRIDED),
        "parameters": parameter_count(Backbone(NetworkConfig.resnet50())) / 1e6,
        "same places, occlusion": (
            np.argsort(by_attribute.loc["occlusion"].to_numpy()) == overall
        ).sum(),
        "same places, camera motion": (
            np.argsort(by_attribute.loc["camera_motion"].to_numpy()) == overall
        ).sum(),
        "shared speeds": max(0.0, median.max() - mixed.loc[mixed["search"] == "INT8", "fps"].min()),
        "median": median.median(),
        "median with pure row": pd.concat([median, pure.loc[["FP16"], "fps"]]).median(),
        "highest EAO": max(mixed["eao"].max(), pure["eao"].max()),
        "highest FPS": max(mixed["fps"].max(), pure["fps"].max()),
        "mixtures above FP16 in EAO": better.sum(),
        "mixtures above FP16 in all": (
            better
            & (mixed["accuracy"] > fp16["accuracy"])
            & (mixed["robustness"] < fp16["robustness"])
        ).sum(),
        "last row": len(pruning),
        "pruned above original": (tops[1:] > tops.iloc[0]).all(axis=1).sum(),
        "pruned between": ((tops[1:] > low) & (tops[1:] < high)).all(axis=1).sum(),
        "highest pruned FPS": fps[1:].max(),
        "sizes in speed order": (np.diff(fps) > 0).all(1).sum(),
        "sizes in EAO order": (np.diff(eao) < 0).all(1).sum(),
        "steps up in FPS": (np.diff(fps, axis=0) > 0).sum(),
        "steps down in EAO": (np.diff(eao, axis=0) < 0).sum(),
        "above 45.5 M in power": (power[1:] > power[0]).sum(),
        "steps up in power": (np.diff(power, axis=0) > 0).sum(),
        "power and energy orders": (np.diff([power, energy]) < 0).all(-1).sum(),
        "INT8 xcorr in EAO": change(
            *(
                float(mixed.loc[mixed["xcorr"] == level, "eao"].median())
                for level in ("INT8", "FP32")
            )
        ),
        "12 M better than 30 M": sum(
            quality[3, 2] > quality[1, 2] for quality in (accuracy, -robustness, eao)
        ),
    }


def audit() -> list[Finding]:
    """Every number that follows from others, derived and compared: the tables, then the sentences
    in their order."""
    found, claims = list(_tables()), {row["id"]: row for row in rows("claims")}
    counted = {
        name: Derived(float(value), float(value), float(value)) for name, value in counts().items()
    }

    def result(formula: str, inputs: str) -> Derived:
        return (
            counted[inputs]
            if formula == "count"
            else derive(FORMULAS[formula], *map(cell, inputs.split("; ")))
        )

    for check in rows("audit"):
        claim, printed = (
            claims[check["id"]],
            map(cell, check["inputs"].split("; ") if check["formula"] != "count" else []),
        )
        derived = result(check["formula"], check["inputs"])
        instead = result(check["formula_instead"], check["instead"]) if check["instead"] else None
        sentence = check["sentence"].format(
            *printed, derived=derived.value, instead=instead and instead.value
        )
        where = f"{'' if claim['section'] == 'abstract' else 'section '}{claim['section']}, page {claim['page']}"
        found.append(
            Finding(
                claim["id"],
                where,
                claim["words"],
                claim["number"],
                derived.value,
                claim["unit"],
                reading(claim["number"], derived, instead),
                sentence,
            )
        )
    return found


def _grid(name: str, column: str) -> Any:
    """(4, 4): a column of table 4.5 or 4.7, SIZES x TRACKERS."""
    return np.array(
        [
            [float(cell(f"{name}/{size} M {tracker}/{column}")) for tracker in TRACKERS]
            for size in SIZES
        ]
    )


def _tables() -> Iterator[Finding]:
    """Tables 4.1 to 4.7, every cell that follows from others."""
    cells = [
        (f"table_4_{number}", "robustness", "failures per 100 frames") for number in (1, 2, 3, 5)
    ]
    cells += [
        ("table_4_4", "compression", "parameters left / original"),
        ("table_4_6", "energy_kj", "kJ"),
        ("table_4_7", "energy_j", "J"),
        ("table_4_7", "power_change_pct", "%"),
        ("table_4_7", "energy_change_pct", "%"),
    ]
    for name, column, unit in cells:
        for row in filter(lambda row: row[column], rows(name)):
            derived, instead, sentence = _follow(column, row)
            yield Finding(
                f"{name}/{row['name']}/{column}",
                f"table {name[6:].replace('_', '.')}",
                f"{row['name']}: {column}",
                row[column],
                derived.value,
                unit,
                reading(row[column], derived, instead, "units"),
                sentence,
            )


def _follow(column: str, row: Dict[str, str]) -> Tuple[Derived, Derived | None, str]:
    """What a table's cell should be, what it would be in another unit, and how that follows."""
    if column == "robustness":
        count = nearest_count(float(row[column]))
        value = 100 * count / VOT2018_FRAMES
        return Derived(value, value, value), None, f"{count} failures in {VOT2018_FRAMES:,} frames."
    if column == "compression":
        return (
            derive(truediv, row["parameters_m"], SIZES[0]),
            None,
            f"{row['parameters_m']} / {SIZES[0]}.",
        )
    if column.startswith("energy_") and not column.endswith("pct"):
        table_of_speed = "table_4_5" if "parameters_m" in row else "table_4_2"
        fps = cell(
            f"table_4_1/{XAVIER}/fps"
            if row["name"] == TRACKERS[0]
            else f"{table_of_speed}/{row['name']}/fps"
        )
        joules, how = derive(truediv, row["power_w"], fps), f"{row['power_w']} W / {fps} FPS"
        if column == "energy_j":
            return joules, None, f"{how}."
        kilojoules = Derived(*(value / 1000 for value in joules))
        return (
            kilojoules,
            joules,
            f"{how} = {joules.value:.4f} J a frame; the table's head says kJ.",
        )
    of = {"power_change_pct": "power_w", "energy_change_pct": "energy_j"}[column]
    base = cell(f"table_4_7/{SIZES[0]} M {row['framework']} {row['precision']}/{of}")
    derived = derive(change, row[of], base)
    how = (
        "" if reading(row[column], derived) == "agrees" else ", cut off where it should be rounded"
    )
    return derived, None, f"{row[of]} against {base}: {derived.value:.4f} %{how}."
