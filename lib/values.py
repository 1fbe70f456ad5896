"""The values of options of the command `siambook`: text to numbers and lists, or a sentence on what
it should have been."""

from __future__ import annotations

import argparse
from math import isfinite
from typing import List

PRECISIONS = ("fp32", "fp16", "int8")


def box(text: str) -> List[float]:
    try:
        x, y, w, h = (float(part) for part in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not x,y,w,h") from None
    return [x, y, w, h]


def precisions(text: str) -> List[str]:
    names = text.lower().split(",")
    if not set(names) <= set(PRECISIONS):
        raise argparse.ArgumentTypeError(f"{text!r} is not a list of {', '.join(PRECISIONS)}")
    return names


def of_networks(text: str) -> List[str]:
    """The precisions of target, search and xcorr network; one stands for all three."""
    names = precisions(text)
    if len(names) not in (1, 3):
        raise argparse.ArgumentTypeError(f"{text!r} is neither one precision nor three")
    return names if len(names) == 3 else names * 3


def positive(text: str) -> int:
    if not text.isdigit() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number above 0")
    return int(text)


def above_0(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not (isfinite(value) and value > 0):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number above 0")
    return value


def milliseconds(text: str) -> float:
    return above_0(text[:-2] if text.endswith("ms") else text)
