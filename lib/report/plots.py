"""Figures of the chapters: measured values beside the thesis's, units on the axes, run and machine
under the picture.

Colours are Okabe and Ito's, which colour-blind readers can tell apart, and shapes differ as well.
Figures are narrow and their letters large, so that they can be read on a phone. Views only:
evaluations, trajectories and frames come in, a figure goes out.
"""

from __future__ import annotations

import functools
import textwrap
from typing import Any, Callable, Mapping, Sequence, TypeVar, cast

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib import patheffects
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch, Polygon

from lib.report.tables import Text, needs_all
from lib.vot.dataset import TAGS, Video, polygon_corners
from lib.vot.metrics import Evaluation, bootstrap, resample

BLUE, ORANGE, GREEN = "#0072B2", "#D55E00", "#009E73"
SKY, YELLOW, GREY = "#56B4E9", "#F0E442", "#666666"
MEASURED: Mapping[str, Any] = {"color": BLUE, "marker": "o"}
THESIS: Mapping[str, Any] = {"color": ORANGE, "marker": "D", "markerfacecolor": "white"}
# The baseline and its engines (figures 4.1 and 4.5)
TRACKERS = (
    {"color": "black", "marker": "D", "markerfacecolor": "white"},
    {"color": BLUE, "marker": "o"},
    {"color": ORANGE, "marker": "^"},
    {"color": GREEN, "marker": "s"},
)
WIDTH = 4.3  # inches
STYLE = {
    "font.size": 11,
    "axes.titlesize": 12,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#DDDDDD",
    "axes.axisbelow": True,
    "legend.frameon": False,
    "legend.fontsize": 10,
    "figure.facecolor": "white",
    "lines.linewidth": 2,
    "lines.markersize": 7,
    "svg.fonttype": "path",
}
# Horizontal box plots, in the words of this Matplotlib
LYING: Mapping[str, Any] = (
    {"orientation": "horizontal"} if matplotlib.__version_info__ >= (3, 10) else {"vert": False}
)
NAMES = {"empty": "no attribute", **{tag: tag.replace("_", " ") for tag in TAGS}}
Draw = TypeVar("Draw", bound=Callable[..., Any])


def styled(draw: Draw) -> Draw:
    """A function that draws in this book's style. Where a recorded run lacks
    anything it draws, it returns a sentence (`needs_all`)."""

    @functools.wraps(draw)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        with plt.rc_context(STYLE):  # type: ignore[arg-type]
            return draw(*args, **kwargs)

    return cast(Draw, needs_all(wrapper))


def needs_frames(draw: Draw) -> Draw:
    """A figure of frames; its first argument is the sequences. It is a sentence if their frames
    are not on this machine."""

    @functools.wraps(draw)
    def wrapper(data: Any, *args: Any, **kwargs: Any) -> Any:
        lacking = [sequence.name for sequence in data if not sequence.has_frames]
        if not lacking:
            return draw(data, *args, **kwargs)
        return Text(
            f"No figure: frames of {len(lacking)} sequences, '{lacking[0]}' among them, are not on this machine "
            "(`siambook fetch vot2018` brings those of VOT2018)."
        )

    return cast(Draw, needs_all(wrapper))


# -- Values with their intervals -------------------------------------------------------------------


def curve_band(evaluation: Evaluation) -> tuple[np.ndarray, np.ndarray]:
    """Low and high, (L,) each, of the 95 % interval of the EAO curve over sequences drawn with
    replacement; NaN with a single sequence, and where no segment is as long."""
    band = np.full((2, evaluation.curve_sum.shape[-1]), np.nan)
    if len(evaluation.sequences) > 1:
        counts = resample(evaluation.sequences, 1000)
        weight = counts @ evaluation.curve_weight[0]
        curves = counts @ evaluation.curve_sum[0] / np.where(weight > 0, weight, np.nan)
        curves[:, 0] = 1  # the initial frame, as in `Evaluation.eao_curve`
        known = np.isfinite(curves).any(0)
        band[:, known] = np.nanpercentile(curves[:, known], [2.5, 97.5], axis=0)
    return band[0], band[1]


def draw_point(
    axis: Axes,
    row: float,
    value: float,
    interval: tuple[float, float] | None,
    look: Mapping[str, Any],
) -> Any:
    if interval is not None and np.isfinite(interval).all():
        axis.plot(interval, [row, row], color=look["color"], lw=2)
    return axis.plot([value], [row], ls="", **look)[0]


@styled
def forest(
    rows: Mapping[str, tuple[float, float, float]],
    title: str,
    note: str,
    theirs: Sequence[float] = (),
    at: float = 0.0,
) -> Figure:
    """Values with their intervals (value, low, high), a row each; filled where the interval leaves
    out the value `at`. theirs: the thesis's in the same order, on an axis of their own."""
    figure, axes = plt.subplots(
        1,
        2 if len(theirs) else 1,
        figsize=(WIDTH, 1.6 + 0.23 * len(rows)),
        layout="constrained",
        sharey=True,
        squeeze=False,
    )
    for row, (value, *ends) in enumerate(rows.values()):
        told = ends[0] > at or ends[1] < at
        look = {**MEASURED, "markersize": 6, "markerfacecolor": BLUE if told else "white"}
        draw_point(axes[0, 0], row, value, (ends[0], ends[1]), look)
    axes[0, -1].plot(theirs, np.arange(len(theirs)), ls="", **{**THESIS, "markersize": 6})
    for axis, whose in zip(axes[0], ("Here", "Thesis")):
        axis.axvline(at, color=GREY, lw=1)
        axis.set(title=whose, xlabel=title)
        axis.locator_params(axis="x", nbins=2 if len(theirs) else 5)
        axis.margins(x=0.08)
        axis.tick_params(axis="x", labelsize=9)
    axes[0, 0].set_yticks(range(len(rows)), [*rows], fontsize=9)
    axes[0, 0].set(ylim=(len(rows) - 0.5, -0.5))
    handles = [
        plt.Line2D([], [], **{**MEASURED, "markerfacecolor": fill}) for fill in (BLUE, "white")
    ]
    names = [f"interval excludes {at:g}", "cannot be told"]
    figure.legend(handles, names, loc="outside upper left", ncols=2, fontsize=9)
    return finished(figure, note)


@styled
def attributes(here: Mapping[str, Evaluation], reported: pd.DataFrame, note: str) -> Figure:
    """Figure 4.5: EAO by visual attribute, here (with 95 % intervals) and in the thesis.

    here: by tracker, the baseline first. reported: the column "attribute" and one per tracker, in
    the same order (data/thesis/figure_4_5.csv).
    """
    names, step = [*TAGS, "empty"], 0.2
    theirs = reported.set_index("attribute").loc[list(TAGS)]
    figure, axes = new_figure(7.4, [1, 1])
    handles = []
    for at, ((label, evaluation), look) in enumerate(zip(here.items(), TRACKERS)):
        for row, name in enumerate(names):
            every = np.ones((1, len(evaluation.sequences)))
            value = float(evaluation.scores(every, name)["eao"][0])
            interval = bootstrap(evaluation, attribute=name)["eao"]
            handle = draw_point(axes[0], row + at * step, value, interval, look)
        handles.append((handle, label))
    for at, (column, look) in enumerate(zip(theirs, TRACKERS)):
        for row, value in enumerate(theirs[column]):
            draw_point(axes[1], row + at * step, value, None, look)
    datasets = dict.fromkeys(evaluation.dataset for evaluation in here.values())
    titles = (f"Here, {' and '.join(datasets)}", "Thesis, Xavier, VOT2018")
    for axis, title, shown in zip(axes, titles, (names, TAGS)):
        middle = (min(len(here), len(TRACKERS)) - 1) / 2 * step
        axis.set_yticks(np.arange(len(shown)) + middle, [NAMES[name] for name in shown])
        axis.set(title=title, xlabel="EAO (0 to 1)", ylim=(len(shown) - 0.2, -0.4))
        axis.set_xlim(0, 1.04 * axis.get_xlim()[1])
    figure.legend(*zip(*handles), loc="outside upper left", ncols=2, fontsize=9)
    return finished(figure, note)


# -- Frames ----------------------------------------------------------------------------------------


def show_frame(
    axis: Axes, sequence: Video, index: int, box: np.ndarray | None, color: str = SKY
) -> None:
    """A frame with its annotation and, unless it is None, a tracker's box."""
    axis.imshow(sequence.frame(index)[..., ::-1], interpolation="antialiased")
    axis.set_axis_off()
    draw_outline(axis, sequence.regions[index], YELLOW, "-")
    if box is not None:
        draw_outline(axis, box, color, "--")
    axis.set(xlim=(-0.5, sequence.width - 0.5), ylim=(sequence.height - 0.5, -0.5))


def draw_outline(axis: Axes, region: np.ndarray, color: str, line: str) -> None:
    under = Polygon(polygon_corners(region), fill=False, edgecolor="black", lw=3.4)
    axis.add_patch(under)
    axis.add_patch(Polygon(polygon_corners(region), fill=False, edgecolor=color, lw=2, ls=line))


def legend_of_boxes(figure: Figure, names: Sequence[tuple[str, str, str]]) -> None:
    stroke = [patheffects.withStroke(linewidth=3.4, foreground="black")]
    handles = [
        plt.Line2D([], [], color=color, ls=line, path_effects=stroke) for _, color, line in names
    ]
    figure.legend(handles, [name for name, _, _ in names], loc="outside upper left", ncols=3)


# -- All figures -----------------------------------------------------------------------------------


def new_figure(height: float, heights: Sequence[float] = ()) -> tuple[Figure, Any]:
    """A figure of the book's width and one axis, or one a row of `heights`."""
    return plt.subplots(
        max(len(heights), 1),
        1,
        figsize=(WIDTH, height + 0.5),
        layout="constrained",
        gridspec_kw={"height_ratios": heights} if heights else None,
    )


def finished(figure: Figure, note: str) -> Figure:
    """Run and machine under the picture."""
    figure.supxlabel(textwrap.fill(note, 54), x=0.01, ha="left", fontsize=9, color=GREY)
    # The notebook shows what a cell returns, and not a second time what pyplot holds
    plt.close(figure)
    return figure


def new_sheet(
    title: str, height: float, across: float = 10, up: float = 11.3
) -> tuple[Figure, Axes]:
    """An empty sheet of the book's width; `across` and `up` are its sides in its own units."""
    figure, axis = new_figure(height)
    axis.set(xlim=(0, across), ylim=(0, up), title=title)
    axis.set_axis_off()
    return figure, axis


def draw_box(
    axis: Axes,
    centre: tuple[float, float],
    size: tuple[float, float],
    title: str,
    text: str,
    color: str | None = None,
) -> None:
    (x, y), corner = centre, (centre[0] - size[0] / 2, centre[1] - size[1] / 2)
    fill: dict[str, Any] = {"fc": color, "alpha": 0.45} if color else {"fc": "white"}
    rounded = "round,pad=0,rounding_size=0.2"
    axis.add_patch(FancyBboxPatch(corner, *size, boxstyle=rounded, ec="black", lw=1, **fill))
    up = 0.19 * (text.count("\n") + 1)
    middle: dict[str, Any] = {"ha": "center", "va": "center"}
    axis.text(x, y + up, title, **middle, fontsize=10, fontweight="bold")
    axis.text(x, y - 0.22, text, **middle, fontsize=9, linespacing=1.15)


def draw_arrow(axis: Axes, start: tuple[float, float], end: tuple[float, float]) -> None:
    look = {"arrowstyle": "-|>", "color": "black", "lw": 1.4, "shrinkA": 0, "shrinkB": 0}
    axis.annotate("", end, start, arrowprops=look)


def by(shape: Sequence[int]) -> str:
    """(1, 64, 7, 7) as "1×64×7×7"."""
    return "×".join(map(str, shape))
