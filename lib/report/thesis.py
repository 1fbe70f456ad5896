"""The thesis's numbers as it reports them (data/thesis/*.csv).

Every file says in its first lines what it is, where it comes from and in which units; every row
says whose number it is: "published" (the SiamRPN++ paper, as the thesis quotes it) or "thesis"
(measured for the thesis).
"""

from __future__ import annotations

import csv
from typing import Dict

import pandas as pd

from lib.files import ROOT
from lib.vot.dataset import VOT2018_FRAMES

FOLDER = ROOT / "data" / "thesis"
SIZES = ("45.5", "30", "22.5", "12")  # tables 4.4 to 4.7: millions of parameters of the backbone
TRACKERS = ("PyTorch FP32", "TensorRT FP32", "TensorRT FP16", "TensorRT INT8")
XAVIER = "PyTorch NVIDIA Jetson Xavier AGX"  # the baseline's row in table 4.1


def table(name: str) -> pd.DataFrame:
    """A reported table or figure by its file's name, e.g. "table_4_1"; column `row` is "published"
    or "thesis".

    `.attrs` has "title", "source" and "units" as the file states them.
    """
    path = FOLDER / f"{name}.csv"
    lines = path.read_text(encoding="utf-8").splitlines()
    title, *about = (line[1:].strip() for line in lines if line.startswith("#"))
    frame = pd.read_csv(path, comment="#")
    frame.attrs.update(title=title, **dict(line.split(": ", 1) for line in about))
    return frame


def failures(robustness: float) -> int:
    """The whole number of failures on VOT2018 that prints as this robustness (failures per 100
    frames, three digits).

    failures(0.234) -> 50, failures(0.243) -> 52: the "one more time" that section 4.1 reads out of
    the two is two more. Three digits leave one number, rounded or cut off.
    """
    return round(robustness * VOT2018_FRAMES / 100)


NAMING = (
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


def rows(name: str) -> list[Dict[str, str]]:
    """A table's rows as printed, every digit kept, with a key "name": the tracker's, "12 M TensorRT
    FP16", or a claim's id."""
    with open(FOLDER / f"{name}.csv", encoding="utf-8") as file:
        found = list(csv.DictReader(line for line in file if not line.startswith("#")))
    for row in found:
        parts = {**row, "parameters_m": f"{row.get('parameters_m')} M"}
        row["name"] = " ".join(parts[each] for each in NAMING if each in row)
    return found


def cell(reference: str) -> str:
    """One printed number by "file/name of its row/column", e.g. "table_4_7/12 M TensorRT
    FP16/power_w"."""
    file, name, column = reference.split("/")
    [text] = (row[column] for row in rows(file) if row["name"] == name)
    return text
