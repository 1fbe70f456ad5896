"""Evaluations as text or JSON, for the command `siambook evaluate`."""

from __future__ import annotations

import argparse
import json
from typing import Any, Mapping, Optional

from lib.vot.metrics import bootstrap, json_values, paired_bootstrap


def show(options: argparse.Namespace, title: str, evaluation: Any) -> None:
    """Print an evaluation as text or JSON."""
    result = evaluation.as_dict()
    if options.intervals:
        result["intervals"] = json_values(bootstrap(evaluation))
    if options.json:
        print(json.dumps(result, indent=1))
        return
    print(
        f"{title} on {result['dataset']}: {result['sequences']} sequences, {result['left_out']} "
        f"left out, {result['frames']} frames, protocol {result['protocol']}"
    )
    for key in evaluation.measures:
        low_high = map(_number, result["intervals"][key]) if options.intervals else ()
        print(f"  {key:<12}{_number(result[key]):>9}  {' to '.join(low_high)}".rstrip())
    if not options.one_pass:
        attributes = [f"{name} {_number(of['eao'])}" for name, of in result["attributes"].items()]
        print(
            f"  {result['repetitions']} repetition(s); robustness in failures per 100 frames, EAO "
            "over {}..{} frames".format(*result["eao_interval"])
        )
        print(f"  EAO by attribute: {', '.join(attributes)}")


def compare(options: argparse.Namespace, evaluations: Mapping[str, Any]) -> None:
    """Print trackers as a table or JSON: measures with intervals over sequences, and each one's
    difference to the first, paired by sequence."""
    (first, reference), *others = evaluations.items()
    trackers = {
        name: {**one.as_dict(), "intervals": json_values(bootstrap(one))}
        for name, one in evaluations.items()
    }
    differences = json_values(
        {f"{name} - {first}": paired_bootstrap(one, reference) for name, one in others}
    )
    if options.json:
        print(json.dumps({"trackers": trackers, "differences": differences}, indent=1))
        return
    rows = {
        name: {key: (one[key], *one["intervals"][key]) for key in reference.measures}
        for name, one in trackers.items()
    }
    print(
        f"{reference.dataset}: {len(reference.sequences)} sequences, {reference.left_out} left out,"
        f" protocol {reference.protocol.name}; 95 % intervals over sequences"
    )
    width = max(map(len, [*rows, *differences]))
    print(" " * width, *(f"{key:>28}" for key in reference.measures))
    for name, row in {**rows, **differences}.items():
        cells = ("{} ({} to {})".format(*map(_number, row[key])) for key in row)
        print(f"{name:<{width}}", *(f"{cell:>28}" for cell in cells))


def _number(value: Optional[float]) -> str:
    return "undefined" if value is None else f"{value:.4f}"
