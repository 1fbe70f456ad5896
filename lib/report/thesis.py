"""The thesis's numbers as it reports them (data/thesis/*.csv).

Every file says in its first lines what it is, where it comes from and in which units; every row
says whose number it is: "published" (the SiamRPN++ paper, as the thesis quotes it) or "thesis"
(measured for the thesis).
"""

from __future__ import annotations

from typing import Dict

import pandas as pd

from lib.errors import InputError
from lib.files import ROOT
from lib.vot.dataset import VOT2018_FRAMES

FOLDER = ROOT / "data" / "thesis"
SIZES = ("45.5", "30", "22.5", "12")  # tables 4.4 to 4.7: millions of parameters of the backbone
TRACKERS = ("PyTorch FP32", "TensorRT FP32", "TensorRT FP16", "TensorRT INT8")
XAVIER = "PyTorch NVIDIA Jetson Xavier AGX"  # the baseline's row in table 4.1


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
    path = FOLDER / f"{name}.csv"
    frame = pd.read_csv(path, comment="#", dtype=str, keep_default_na=False)
    found = []
    for row in frame.to_dict("records"):
        texts = {str(column): str(text) for column, text in row.items()}
        parts = {**texts, "parameters_m": f"{texts.get('parameters_m')} M"}
        found.append({**texts, "name": " ".join(parts[each] for each in NAMING if each in texts)})
    return found


def cell(reference: str) -> str:
    """One printed number by "file/name of its row/column", e.g. "table_4_7/12 M TensorRT
    FP16/power_w"."""
    file, name, column = reference.split("/")
    [text] = (row[column] for row in rows(file) if row["name"] == name)
    return text
