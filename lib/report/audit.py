"""The thesis's arithmetic, done again: each number of its tables and of its text (claims.csv) that
follows from others, by the formulas of audit_tables.csv and audit.csv."""

from __future__ import annotations

from dataclasses import dataclass
from fnmatch import fnmatch
from functools import lru_cache
from itertools import product
from math import ceil, prod
from operator import sub, truediv
from typing import Any, Callable, Dict, Iterator, NamedTuple

import numpy as np
import pandas as pd

from lib.report.thesis import TRACKERS, cell, failures, rows, table
from lib.siamrpn.network import NetworkConfig, backbone_parameters
from lib.vot.dataset import VOT2018_FRAMES

# Kernel, stride, padding of stem, pooling, second stage (lib/siamrpn/network.py)
STRIDED = ((7, 2, 0), (3, 2, 1), (3, 2, 0))
TOLERANCE = 1e-9  # of float arithmetic, where a number is exactly half a digit away
READINGS = {
    "slip": "a slip",
    "base": "another base than the words name",
    "units": "another unit",
}


class Derived(NamedTuple):
    """A derived number, and how low and high it may be where its inputs are known to their printed
    digits only."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Finding:
    """A number of the thesis beside what follows from its other numbers.

    reading: "agrees" (the derived number is the stated one, rounded or cut off, as far as the
    printed digits of its inputs can tell), "units" (it is in another unit), "base" (it is from
    another base than the words name), else "slip".
    """

    id: str  # of claims.csv, or table/row/column (see `thesis.cell`)
    where: str
    words: str  # the thesis's, or the table's row and column
    stated: str  # as printed
    derived: float
    unit: str
    reading: str
    sentence: str  # how it was derived, and what the reading rests on

    @property
    def deviation(self) -> float:
        """derived - stated, in `unit`."""
        return self.derived - float(self.stated)


# -- Formulas --------------------------------------------------------------------------------------


def half_digit(text: str) -> float:
    """Half a unit of the last printed digit: "0.239" -> 0.0005."""
    return 0.5 * 10.0 ** -len(text.partition(".")[2])


def derive(formula: Callable[..., float], *printed: str) -> Derived:
    """A formula of printed numbers that only rises or only falls in each of them, so that its
    bounds are at the corners."""
    ends = [(float(text) - half_digit(text), float(text) + half_digit(text)) for text in printed]
    values = [formula(*corner) for corner in product(*ends)]
    return Derived(formula(*map(float, printed)), min(values), max(values))


def reading(
    stated: str, derived: Derived, instead: Derived | None = None, otherwise: str = "base"
) -> str:
    """How a stated number is read (`Finding`): as `otherwise` where not `derived` but `instead`
    explains it."""
    number, half = float(stated), half_digit(stated)

    def rounds(other: Derived) -> bool:
        return abs(other.value - number) <= half + TOLERANCE

    def reaches(other: Derived) -> bool:
        low, high = other.low + TOLERANCE, other.high - TOLERANCE
        return rounds(other) or (low < number + half and number - half < high)

    if rounds(derived):
        return "agrees"
    if instead is not None and reaches(instead):
        return otherwise
    size = abs(number)
    cut_off = number * derived.value > 0 and size <= abs(derived.value) < size + 2 * half
    return "agrees" if reaches(derived) or cut_off else "slip"


def change(new: float, old: float) -> float:
    """In %."""
    return 100 * (new / old - 1)


FORMULAS: Dict[str, Callable[..., float]] = {
    "same": float,
    "difference": sub,
    "ratio": truediv,
    "ratio in thousands": lambda one, other: one / other / 1000,
    "change": change,
    "saving": lambda new, old: -change(new, old),
    "energy saving": lambda watt, fps, watt_before, fps_before: (
        -change(watt / fps, watt_before / fps_before)
    ),
    "part more": lambda new, old: new / old - 1,
    "rounded up": lambda all_of_them, groups: ceil(all_of_them / groups),
    "ratio of ratios": lambda a, b, c, d: (a / b) / (c / d),
    "failures more": lambda robustness, before: failures(robustness) - failures(before),
    "of whole failures": lambda robustness: 100 * failures(robustness) / VOT2018_FRAMES,
}


def value(formula: str, inputs: str) -> Derived:
    """A formula's name and its inputs, as the files write them. "count" names one of `looked_up`."""
    if formula == "count":
        counted = float(looked_up()[inputs])
        return Derived(counted, counted, counted)
    return derive(FORMULAS[formula], *map(cell, inputs.split("; ")))


# -- What is counted or looked up rather than computed by one formula ------------------------------


@lru_cache(maxsize=None)
def looked_up() -> Dict[str, Any]:
    """Ranks, maxima, medians, and the network's size, by the name that the files use."""
    return {**_of_network(), **_of_engines(), **_of_pruning()}


def _of_network() -> Dict[str, Any]:
    side = int(cell("claims/exemplar_size/number"))
    for kernel, stride, padding in STRIDED:
        side = (side - kernel + 2 * padding) // stride + 1  # the formula of section 2.1.1
    return {
        "feature side": side,
        "stride": prod(stride for _, stride, _ in STRIDED),
        "parameters": backbone_parameters(NetworkConfig.resnet50()) / 1e6,
    }


def _of_engines() -> Dict[str, Any]:
    """Of table 4.3, with the pure rows of table 4.2, and figure 4.5's places by EAO."""
    mixed, pure = table("table_4_3"), table("table_4_2").set_index("precision")
    places = table("figure_4_5").set_index("attribute")[list(TRACKERS)].rank(axis=1)
    same = (places == table("digits")["eao"].rank().to_numpy()).sum(axis=1)
    fp16 = mixed.loc[mixed["search"] == "FP16", "fps"]
    int8, fp32 = (mixed.loc[mixed["xcorr"] == level, "eao"].median() for level in ("INT8", "FP32"))
    return {
        "same places, occlusion": same["occlusion"],
        "same places, camera motion": same["camera_motion"],
        "shared speeds": max(0.0, fp16.max() - mixed.loc[mixed["search"] == "INT8", "fps"].min()),
        "median": fp16.median(),
        "median with pure row": pd.concat([fp16, pure.loc[["FP16"], "fps"]]).median(),
        "highest EAO": max(mixed["eao"].max(), pure["eao"].max()),
        "highest FPS": max(mixed["fps"].max(), pure["fps"].max()),
        "mixtures above FP16 in EAO": (mixed["eao"] > pure.loc["FP16", "eao"]).sum(),
        "INT8 xcorr in EAO": change(float(int8), float(fp32)),
    }


def _of_pruning() -> Dict[str, Any]:
    """Of tables 4.4, 4.5 and 4.7."""
    power = _grid("table_4_7", "power_w")
    accuracy, robustness, eao, fps = (
        _grid("table_4_5", column) for column in ("accuracy", "robustness", "eao", "fps")
    )
    tops = table("table_4_4")[["top1", "top5"]]
    low, high = (
        [float(cell(f"claims/{who}_{top}/number")) for top in ("top1", "top5")]
        for who in ("curl", "resnet50")
    )
    return {
        "pruned above original": (tops[1:] > tops.iloc[0]).all(axis=1).sum(),
        "pruned between": ((tops[1:] > low) & (tops[1:] < high)).all(axis=1).sum(),
        "highest pruned FPS": fps[1:].max(),
        "sizes in speed order": (np.diff(fps) > 0).all(1).sum(),
        "sizes in EAO order": (np.diff(eao) < 0).all(1).sum(),
        "steps up in FPS": (np.diff(fps, axis=0) > 0).sum(),
        "steps down in EAO": (np.diff(eao, axis=0) < 0).sum(),
        "12 M better than 30 M": sum(
            quality[3, 2] > quality[1, 2] for quality in (accuracy, -robustness, eao)
        ),
        "above 45.5 M in power": (power[1:] > power[0]).sum(),
        "steps up in power": (np.diff(power, axis=0) > 0).sum(),
    }


def _grid(name: str, column: str) -> Any:
    """(4, 4): a column of table 4.5 or 4.7, sizes from the whole backbone x trackers."""
    ordered = table(name).sort_values("parameters_m", ascending=False, kind="stable")
    return ordered[column].to_numpy().reshape(4, 4)


# -- Findings --------------------------------------------------------------------------------------


def findings() -> list[Finding]:
    """Every number that follows from others, derived and compared: the tables, then the sentences
    in their order."""
    claims = {row["id"]: row for row in rows("claims")}
    return [
        *(finding for check in rows("audit_tables") for finding in _cells(check)),
        *(_sentence(check, claims[check["id"]]) for check in rows("audit")),
    ]


def _cells(check: Dict[str, str]) -> Iterator[Finding]:
    """The cells that a line of audit_tables.csv checks."""
    name, names, column = check["cells"].split("/")
    for row in rows(name):
        if row[column] and fnmatch(row["name"], names):
            own = {key: check[key].format(**row) for key in ("words", "inputs", "instead")}
            yield _finding(
                {**check, **own},
                check["id"] or f"{name}/{row['name']}/{column}",
                f"table {name[6:].replace('_', '.')}",
                own["words"],
                row[column],
                check["unit"],
            )


def _sentence(check: Dict[str, str], claim: Dict[str, str]) -> Finding:
    """A number of the text."""
    place = f"{'' if claim['section'] == 'abstract' else 'section '}{claim['section']}"
    about = (claim[key] for key in ("words", "number", "unit"))
    return _finding(check, claim["id"], f"{place}, page {claim['page']}", *about)


def _finding(
    check: Dict[str, str], name: str, where: str, words: str, stated: str, unit: str
) -> Finding:
    derived = value(check["formula"], check["inputs"])
    instead = value(check["formula_instead"], check["instead"]) if check["instead"] else None
    printed = [] if check["formula"] == "count" else map(cell, check["inputs"].split("; "))
    return Finding(
        name,
        where,
        words,
        stated,
        derived.value,
        unit,
        reading(stated, derived, instead, check.get("reading", "base")),
        check["sentence"].format(
            *printed,
            derived=derived.value,
            instead=instead and instead.value,
            failures=failures(derived.value),
        ),
    )
