"""What the chapters' tests share: pages executed without a kernel, and speeds of the full-size
networks that nobody timed."""

from __future__ import annotations

import ast
import json
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Iterator, Sequence

import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.text import Text as Words

from lib import environment
from lib.book import notebook as book
from lib.files import ROOT
from lib.measure import quality, worker
from lib.measure.full_size import EngineSpeed
from lib.measure.variants import mixtures
from lib.measure.worker import Serial
from lib.report.tables import Table, Text
from lib.siamrpn.contract import LAYER_TYPES
from lib.siamrpn.parts import NETWORKS

# The target that stands still (conftest): its box, frames, where it is lost, frames until the start
BOX, COUNT, LOST, SKIP = (40.0, 30.0, 30.0, 20.0), 40, 15, 5
# Of the search network; the others take a tenth of it
FRAME_MS = {"fp32": 100.0, "fp16": 50.0, "int8": 20.0}
# parameters, multiple, faster
SIZES = ((45.5e6, 1, 1.0), (30e6, 1, 1.5), (22.5e6, 1, 2.0), (12e6, 1, 3.0), (11.9e6, 32, 4.0))

MACHINE = {
    "hardware": {"processor": "a processor", "cores": 2, "gpu": None},
    "versions": {"torch": "1"},
    "in_use": 0.0,
    "date": "now",
}


@contextmanager
def in_this_process(folder: Path) -> Iterator[None]:
    """Quality is measured without other processes; folder: for calibrations from few frames, which
    nothing else must find."""

    @contextmanager
    def opened(*_: Any, **__: Any) -> Iterator[Serial]:
        yield Serial()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(quality, "open_executor", opened)
        # One of each sequence
        patch.setattr(worker, "requested_frames", lambda dataset: sum(map(len, dataset)))
        patch.setattr(worker, "CALIBRATIONS", folder / "calibration")
        patch.setattr(environment, "_in_use", lambda: 0.0)  # which takes a moment to find out
        yield


class Page:
    """A page that was executed: its names are attributes; `.cells_shown` is what its cells show."""

    def __init__(
        self, names: dict[str, Any], cells_shown: list[tuple[dict[str, Any], Any]]
    ) -> None:
        self._names, self.cells_shown = names, cells_shown

    def __getattr__(self, name: str) -> Any:
        try:
            return self._names[name]
        except KeyError:
            raise AttributeError(f"the page has no {name}") from None

    def shown_as(self, kind: type) -> list[Any]:
        return [shown for _, shown in self.cells_shown if isinstance(shown, kind)]

    def tables(self) -> list[Table]:
        return self.shown_as(Table)

    def table(self, head: str) -> Table:
        """The first table with this head."""
        return next(table for table in self.tables() if head in table.heads)

    def texts(self) -> list[str]:
        return [str(text) for text in self.shown_as(Text)]

    def figures(self) -> dict[str, Any]:
        """By the name that the cell gives them."""
        figures = [
            (cell["metadata"].get("mystnb", {}).get("figure"), shown)
            for cell, shown in self.cells_shown
        ]
        return {about["name"]: shown for about, shown in figures if about}


def texts(figure: Any) -> str:
    """All words of a figure."""
    return "\n".join(text.get_text() for text in figure.findobj(Words))


def assert_readable(figure: Any, note: str) -> None:
    """A figure has its note and titles, nothing is cut off, and its letters can be read on a
    phone."""
    assert note in texts(figure).replace("\n", " ")
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    width, height = figure.get_size_inches()
    drawn = figure.get_tightbbox(canvas.get_renderer())
    assert min(drawn.x0, drawn.y0) >= -0.02
    assert drawn.x1 <= width + 0.02 and drawn.y1 <= height + 0.02
    for text in figure.findobj(Words):
        if text.get_text().strip():
            size = text.get_fontsize() * 350 / (72 * width)
            assert size >= 8, f"{text.get_text()} in a figure of 350 pixels"


def page(name: str, **parameters: Any) -> list[Any]:
    """What the cells of a notebook show, in their order; parameters in place of its own."""
    return [value for _, value in executed(name, **parameters).cells_shown]


def cells(name: str) -> list[dict[str, Any]]:
    """Of a notebook, as they are written."""
    return json.loads((ROOT / "notebooks" / f"{name}.ipynb").read_text(encoding="utf-8"))["cells"]


def executed(name: str, **parameters: Any) -> Page:
    names: dict[str, Any] = {"__name__": name}
    shown = []
    for cell in cells(name):
        lines = ast.parse(book.notebook_code({"cells": [cell]})).body
        last = lines.pop() if lines and isinstance(lines[-1], ast.Expr) else None
        exec(compile(ast.Module(lines, []), name, "exec", dont_inherit=True), names)
        if "parameters" in cell["metadata"].get("tags", []):
            assert set(parameters) <= set(names), "a parameter that the notebook does not have"
            names.update(parameters)
        if last is not None:
            code = compile(ast.Expression(last.value), name, "eval", dont_inherit=True)
            shown.append((cell, eval(code, names)))
    return Page(names, shown)


def timed(
    group: str, title: str, precisions: Sequence[str], place: int = 0, **more: Any
) -> dict[str, Any]:
    """A row of `full_size.EngineSpeed`, made up."""
    target, search, xcorr = precisions
    parameters, multiple, faster = SIZES[place]
    took = {
        "target": FRAME_MS[target] / 10,
        "search": FRAME_MS[search],
        "xcorr": FRAME_MS[xcorr] / 10,
    }
    took = {name: value / faster for name, value in took.items()}
    frame = took["search"] + took["xcorr"] + 2.0
    ratio = (FRAME_MS["fp32"] * 1.1 + 2) / frame
    ends = (("", 1.0), ("_low", 0.9), ("_high", 1.1))
    return {
        "framework": title,
        "precision": "/".join(precisions if len(set(precisions)) > 1 else precisions[:1]).upper(),
        "target": target,
        "search": search,
        "xcorr": xcorr,
        "group": group,
        "place": place,
        "multiple": multiple,
        "parameters": parameters,
        "executed": f"80 {search.upper()}",
        "device": "CPU",
        "repeated": 0,
        "disturbed": 0,
        "kept": None,
        **{f"frame_ms{end}": frame * factor for end, factor in ends},
        "fps": 1000 / frame,
        **{f"ratio{end}": ratio * factor for end, factor in ends},
        **{f"whole_ratio{end}": faster * factor for end, factor in ends},
        **{f"{name}_ms": value for name, value in took.items()},
        **{f"{name}_ratio": ratio for name in took},
        "crop_ms": 1.5,
        "decode_ms": 0.5,
        "outside_ms": 2.0,
        "copies_ms": 0.0,
        "plan_mb": 0.0 if title.startswith("PyTorch") else parameters / 1e6,
        "build_s": 1.0,
        **more,
    }


def made_up_speed(framework: str = "openvino", **more: Any) -> EngineSpeed:
    """The full-size networks on all engines."""
    pure = [(level,) * 3 for level in FRAME_MS]
    title, group = "OpenVINO 1", f"{framework}-whole"
    rows = [timed("pytorch", "PyTorch 1", pure[0], place) for place in range(len(SIZES))]
    rows += [
        timed(group, title, (one.target, one.search, one.xcorr))
        for one in mixtures("demo", framework)
    ]
    rows += [
        timed(f"{framework}-{each[0]}", title, each, place)
        for each in pure
        for place in range(1, len(SIZES))
    ]
    types = {name: dict.fromkeys(LAYER_TYPES, 0.001) for name in NETWORKS}
    layers = dict.fromkeys(["pytorch fp32", *(f"{framework} {level}" for level in FRAME_MS)], types)
    ways = {level: {"inputs": [0.01, 0.02], "refit": [0.1, 0.2]} for level in FRAME_MS}
    known: dict[str, Any] = {
        "missing": [],
        "parameters": 54_000_000,
        "run": "run",
        "environment": MACHINE,
        **more,
    }
    return EngineSpeed(rows, layers, ways, framework=framework, **known)
