"""The front page's table: what each way of optimising bought, in the thesis and here. A view
only."""

from __future__ import annotations

from typing import Any, Mapping, NamedTuple
from typing import Sequence as Seq

from lib.measure import pruned
from lib.measure.full_size import EngineSpeed
from lib.measure.measurement import Measurement
from lib.measure.pruned import DISTILLED, FROZEN, UNPRUNED, Tracker
from lib.measure.variants import Variant, baseline, engines
from lib.report.tables import ABSENT, Table, as_number, as_value, shows_what_is_there
from lib.report.thesis import table

SMALLEST = min(pruned.SHARES)


class Line(NamedTuple):
    """A line of the table: what it says, the variant that is tracked with, the thesis's row (empty:
    it has none), and the share of the backbone's parameters."""

    title: str
    variant: Variant
    reported: Mapping[Any, Any]
    share: float = UNPRUNED


def lines(weights: str, framework: str) -> list[Line]:
    """The thesis's way from PyTorch to the pruned INT8 engine, and this book's other training of
    the last."""
    ours = [*baseline(weights), *engines(weights, framework)]
    theirs = [table("digits").iloc[0].to_dict(), *table("table_4_2").to_dict("records")]
    found = [Line(_title(variant), variant, row) for variant, row in zip(ours, theirs)]
    small = table("table_4_5")
    small = (
        small[
            (small["parameters_m"] == small["parameters_m"].min()) & (small["precision"] == "INT8")
        ]
        .iloc[0]
        .to_dict()
    )
    for training, row in ((FROZEN, small), (DISTILLED, {})):
        tracker = Tracker(SMALLEST, training)
        if tracker.is_there:
            variant = pruned.variants(tracker, framework)[-1]
            found.append(
                Line(
                    f"{_title(variant)}, backbone pruned to {SMALLEST:g}, {training}",
                    variant,
                    row,
                    SMALLEST,
                )
            )
    return found


def _title(variant: Variant) -> str:
    """The engine has another framework in the thesis than it may have here."""
    return variant.title if variant.framework == "pytorch" else f"Engine {variant.precision}"


def _speed(line: Line, speed: EngineSpeed) -> Mapping[str, Any]:
    """The row of the full-size network of a line's size and engine; its channels are those that the
    scores say."""
    rows = [
        row
        for row in speed.rows
        if row["multiple"] == 1
        and row["precision"] == line.variant.precision
        and str(row["framework"]).lower().startswith(line.variant.framework)
    ]
    ordered = sorted(rows, key=lambda row: float(row["parameters"]))
    return ordered[-1 if line.share == UNPRUNED else 0] if ordered else {}


@shows_what_is_there
def headline(
    chosen: Seq[Line], measured: Seq[Measurement], speed: EngineSpeed, caption: str
) -> Table:
    """EAO and frames per second of every line, the thesis's beside those measured; speeds at full
    size, with the range of the rounds under a ratio."""
    first = chosen[0].reported
    cells = []
    for line, one in zip(chosen, measured):
        row, here = line.reported, _speed(line, speed)
        times = row["fps"] / first["fps"] if row else None
        cells.append(
            [
                line.title,
                as_number(row.get("eao"), 3),
                as_value(one.row(), "eao", 3),
                as_number(row.get("fps"), 1),
                as_number(here.get("fps"), 1),
                as_number(times, 1),
                _ratio(here),
            ]
        )
    heads = [
        "Tracker",
        "EAO, thesis (VOT2018)",
        "EAO, here (demo)",
        "FPS, thesis (Xavier)",
        "FPS, here (full size)",
        "× PyTorch, thesis",
        "× PyTorch, here",
    ]
    under = (
        "Under EAO: its 95 % interval over sequences (bootstrap). Under a ratio measured here: the smallest and the largest "
        "of its rounds."
    )
    return Table(heads, cells, f"{caption} {under}")


def _ratio(row: Mapping[str, Any]) -> Any:
    """How many times faster than the whole network in PyTorch FP32, and its range."""
    if "ratio" not in row:
        return ABSENT
    ratio, low, high = (row[f"ratio{end}"] for end in ("", "_low", "_high"))
    return (f"{ratio:.2f}", f"{low:.2f}–{high:.2f}") if low < high else f"{ratio:.0f}"
