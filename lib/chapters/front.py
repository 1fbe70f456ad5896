"""The front page's table: what each way of optimising bought, in the thesis and here. A view only."""
from __future__ import annotations

from typing import Any, Mapping, NamedTuple
from typing import Sequence as Seq

from lib import pruned
from lib.chapters.tables import INTERVALS, Table, as_number, as_value, shows_what_is_there
from lib.experiments import Measurement, Variant, baseline, engines
from lib.pruned import DISTILLED, FROZEN, UNPRUNED, PrunedSpeed, Tracker
from lib.thesis import table

SMALLEST = min(pruned.SHARES)


class Line(NamedTuple):
    """A line of the table: what it says, the variant that is tracked with, the thesis's row (empty: it has none), and the share
    of the backbone's parameters."""

    title: str
    variant: Variant
    reported: Mapping[Any, Any]
    share: float = UNPRUNED


def lines(weights: str, framework: str) -> list[Line]:
    """The thesis's way from PyTorch to the pruned INT8 engine, and this book's other training of the last."""
    ours = [*baseline(weights), *engines(weights, framework)]
    theirs = [table("digits").iloc[0].to_dict(), *table("table_4_2").to_dict("records")]
    found = [Line(variant.title, variant, row) for variant, row in zip(ours, theirs)]
    small = table("table_4_5")
    small = small[(small["parameters_m"] == small["parameters_m"].min()) & (small["precision"] == "INT8")].iloc[0].to_dict()
    for training, row in ((FROZEN, small), (DISTILLED, {})):
        tracker = Tracker(SMALLEST, training)
        if tracker.is_there:
            variant = pruned.variants(tracker, framework)[-1]
            found.append(Line(f"{variant.title}, backbone pruned to {SMALLEST:g}, {training}", variant, row, SMALLEST))
    return found


def _speed(line: Line, speed: PrunedSpeed) -> Mapping[str, Any]:
    """The row of the full-size network of a line's size and engine; its channels are those that the scores say."""
    rows = [row for row in speed.rows if row["multiple"] == 1 and row["precision"] == line.variant.precision
            and str(row["framework"]).lower().startswith(line.variant.framework)]
    ordered = sorted(rows, key=lambda row: float(row["parameters"]))
    return ordered[-1 if line.share == UNPRUNED else 0] if ordered else {}


@shows_what_is_there
def headline(chosen: Seq[Line], measured: Seq[Measurement], speed: PrunedSpeed, caption: str) -> Table:
    """EAO and frames per second of every line, the thesis's beside those measured; speeds at full size."""
    first, base = chosen[0].reported, _speed(chosen[0], speed)
    cells = []
    for line, one in zip(chosen, measured):
        row, here = line.reported, _speed(line, speed)
        times = row["fps"] / first["fps"] if row else None
        ours = base["frame_ms"] / here["frame_ms"] if here and base else None
        cells.append([line.title, as_number(row.get("eao"), 3), as_value(one.row(), "eao", 3), as_number(row.get("fps"), 1),
                      as_number(here.get("fps"), 1), as_number(times, 1), as_number(ours, 1)])
    heads = ["Tracker", "EAO, thesis (VOT2018)", "EAO, here (demo)", "FPS, thesis (Xavier)", "FPS, here (full size)",
             "× PyTorch, thesis", "× PyTorch, here"]
    return Table(heads, cells, f"{caption} {INTERVALS}")
