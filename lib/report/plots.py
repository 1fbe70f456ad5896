"""Figures of the chapters: measured values beside the thesis's, units on the axes, run and machine
under the picture.

Colours are Okabe and Ito's, which colour-blind readers can tell apart, and shapes differ as well.
Figures are narrow and their letters large, so that they can be read on a phone. Views only:
evaluations, trajectories and frames come in, a figure goes out.
"""

from __future__ import annotations

import functools
import textwrap
from typing import Any, Callable, Mapping, NamedTuple, Optional, TypeVar, cast
from typing import Sequence as Seq

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib import patheffects
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch, Polygon

from lib.measure.absent import sentences
from lib.report.tables import Text, needs_all
from lib.vot.dataset import TAGS, Dataset, Sequence, axis_aligned_box, polygon_corners
from lib.vot.metrics import Evaluation, bootstrap, frame_overlaps
from lib.vot.protocol import FAILURE, INIT, SKIPPED, Trajectory

BLUE, ORANGE, GREEN, SKY, YELLOW, GREY = (
    "#0072B2",
    "#D55E00",
    "#009E73",
    "#56B4E9",
    "#F0E442",
    "#666666",
)
MEASURED, THESIS, PUBLISHED = (
    {"color": BLUE, "marker": "o"},
    {"color": ORANGE, "marker": "D", "markerfacecolor": "white"},
    {"color": "black", "marker": "s", "markerfacecolor": "white"},
)
# Of several evaluations in one figure
LOOKS = (MEASURED, PUBLISHED, {"color": GREEN, "marker": "^"}, {"color": "#CC79A7", "marker": "v"})
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
# A box plot that lies, by the word of this Matplotlib.
LYING: Mapping[str, Any] = (
    {"orientation": "horizontal"} if matplotlib.__version_info__ >= (3, 10) else {"vert": False}
)
NAMES = {"empty": "no attribute", **{tag: tag.replace("_", " ") for tag in TAGS}}
Draw = TypeVar("Draw", bound=Callable[..., Optional[Figure]])


def styled(draw: Draw) -> Draw:
    """A function that draws in this book's style, and where what it draws is absent gives a
    sentence (`lib.measure.absent`)."""

    @functools.wraps(draw)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        with plt.rc_context(STYLE):  # type: ignore[arg-type]
            return draw(*args, **kwargs)

    return cast(Draw, needs_all(wrapper))


def needs_frames(draw: Draw) -> Draw:
    """A picture of frames: a sentence stands in its place where the dataset's frames are not on
    this machine."""

    @functools.wraps(draw)
    def wrapper(data: Any, *args: Any, **kwargs: Any) -> Any:
        sequences = [data] if isinstance(data, Sequence) else data
        lacking = [sequence.name for sequence in sequences if not sequence.has_frames]
        if lacking:
            which = f"'{lacking[0]}'{' and others' if len(lacking) > 1 else ''}"
            return Text(
                f"No picture here: the frames of {which} are not on this machine (`siambook fetch vot2018` brings "
                "those of VOT2018)."
            )
        return draw(data, *args, **kwargs)

    return cast(Draw, needs_all(wrapper))


# -- Section 3.3 -----------------------------------------------------------------------------------


@needs_frames
@styled
def overlap(sequence: Sequence, trajectory: Trajectory, note: str) -> Figure:
    """Figure 3.5: annotation, predicted box and their overlap, in the tracked frame whose overlap
    is the sequence's median."""
    figure, axis = new_figure(WIDTH * sequence.height / sequence.width + 0.3)
    values = frame_overlaps(sequence, trajectory)
    index = int(np.nanargmin(np.abs(values - np.nanmedian(values))))
    show_frame(axis, sequence, index, trajectory.entries[index])
    for region, color in ((sequence.regions[index], YELLOW), (trajectory.entries[index], SKY)):
        axis.add_patch(Polygon(polygon_corners(region), color=color, alpha=0.3, lw=0))
    axis.set_title(f"{sequence.name}, frame {index + 1}: overlap {values[index]:.2f}")
    legend_of_boxes(figure, [("annotation", YELLOW, "-"), ("predicted box", SKY, "--")])
    return finished(figure, note)


@styled
def segments(
    dataset: Dataset,
    trajectories: Mapping[str, Trajectory],
    evaluation: Evaluation,
    note: str,
    rows: int = 32,
) -> Figure:
    """Figure 3.6: what becomes of segments when the average overlap at the shortest length that EAO
    looks at is asked for.

    A segment is cut to the length, or filled up with zeros where a failure ended it; one that the
    end of its sequence cut short is left out. The sequences with the most failures come first;
    where there are more than `rows` segments, the note says how many are not drawn. The mean at the
    end is that of all averages, drawn or not: the curve's value at this length.
    """
    length, first = evaluation.eao_interval[0], evaluation.protocol.first_length
    # The initial frame, which has no answer, may count for the length, and never for the average
    frames = length - first
    ordered = sorted(
        dataset, key=lambda sequence: -int((trajectories[sequence.name].codes == FAILURE).sum())
    )
    every = [
        part
        for sequence in ordered
        for part in list_segments(sequence, trajectories[sequence.name])
    ]
    averages = [segment_average(part, frames) for part in every]
    known, chosen = [average for average in averages if np.isfinite(average)], every[:rows]
    figure, axis = new_figure(0.21 * max(len(chosen) + 1, 10) + 1.4)
    image = np.full((len(chosen), frames), np.nan)
    for row, (part, average) in enumerate(zip(chosen, averages)):
        values = part.overlaps[1 : frames + 1]
        image[row, : len(values)] = values
        if part.failed:
            image[row, len(values) :] = 0
        text = f"{average:.2f}" if np.isfinite(average) else "left out"
        axis.text(
            frames * 1.02,
            row,
            text,
            va="center",
            fontsize=9,
            color="black" if np.isfinite(average) else GREY,
        )
    mean = f"mean of {len(known)}: {np.mean(known):.2f}" if known else "no average is known"
    axis.text(
        frames * 1.02, len(chosen), mean, va="center", ha="center", fontsize=9, fontweight="bold"
    )
    shown = axis.imshow(
        image,
        aspect="auto",
        cmap="cividis",
        vmin=0,
        vmax=1,
        extent=(0.5, frames + 0.5, len(chosen) - 0.5, -0.5),
        interpolation="nearest",
    )
    axis.set_yticks(
        range(len(chosen)), [f"{part.name}, {part.start + 1}" for part in chosen], fontsize=9
    )
    axis.set(
        xlabel="frames after the initialisation",
        ylabel="sequence, first frame",
        ylim=(len(chosen) + 0.5, -0.5),
    )
    axis.set_title(f"Segments of {length} frames, averages")
    axis.grid(False)
    figure.colorbar(shown, ax=axis, label="overlap", location="bottom", shrink=0.7, pad=0.02)
    if len(every) > len(chosen):
        note = (
            f"{note}. {len(chosen)} of {len(every)} segments are drawn, those of the sequences with most failures; the mean "
            "is over all."
        )
    return finished(figure, note)


def segment_average(segment: Segment, frames: int) -> float:
    """Average overlap over the frames after the initialisation, zeros after a failure; NaN where
    the sequence ended before."""
    values = segment.overlaps[1 : frames + 1]
    return float(values.sum() / frames) if segment.failed or len(values) == frames else float("nan")


class Segment(NamedTuple):
    """From an initialisation (frame `start`, from 0) to a failure or the end of the sequence;
    overlaps are 0 at both codes."""

    name: str
    start: int
    overlaps: np.ndarray
    failed: bool


def list_segments(sequence: Sequence, trajectory: Trajectory) -> list[Segment]:
    """The segments that resets cut a sequence into (section 3.3.1)."""
    codes, values = trajectory.codes, np.nan_to_num(frame_overlaps(sequence, trajectory, eao=True))
    found = []
    for start in np.flatnonzero(codes == INIT).tolist():
        ends = np.flatnonzero(codes[start:] == FAILURE)
        stop = start + int(ends[0]) + 1 if ends.size else len(codes)
        found.append(Segment(sequence.name, start, values[start:stop], bool(ends.size)))
    return found


@styled
def resets(sequence: Sequence, trajectory: Trajectory, burn_in: int, note: str) -> Figure:
    """The reset-based protocol at work: overlap over the frames of one sequence, failures, skipped
    frames, initialisations."""
    figure, axis = new_figure(2.6)
    codes, values = trajectory.codes, frame_overlaps(sequence, trajectory)
    number = np.arange(1, len(codes) + 1)
    axis.plot(number, values, color=BLUE)
    for start in np.flatnonzero(codes == INIT):
        axis.axvspan(
            start + 1,
            min(start + burn_in, len(codes)),
            color=SKY,
            alpha=0.35,
            lw=0,
            label=f"{burn_in} frames not counted" if start == 0 else None,
        )
    for code, look, label in (
        (INIT, {"marker": "^", "color": GREEN}, "initialised"),
        (FAILURE, {"marker": "X", "color": ORANGE}, "failure"),
        (SKIPPED, {"marker": ".", "color": GREY, "ms": 4}, "skipped"),
    ):
        at = number[codes == code]
        if at.size:
            axis.plot(at, np.zeros(at.size), ls="", clip_on=False, zorder=3, label=label, **look)  # type: ignore[arg-type]
    axis.set(
        title=f"Sequence {sequence.name}",
        xlabel="frame",
        ylabel="overlap",
        ylim=(0, 1),
        xlim=(0, len(codes) + 1),
    )
    figure.legend(loc="outside upper left", ncols=2)
    return finished(figure, note)


# -- EAO -------------------------------------------------------------------------------------------


@styled
def eao(
    evaluations: Mapping[str, Evaluation],
    reported: Mapping[str, float],
    note: str,
    lengths: Seq[int] = (),
) -> Figure:
    """Figure 3.7: the EAO curve with its bootstrap band; the lengths of the sequences, where given;
    EAO beside reported values.

    Where evaluations have different intervals of lengths, each one's is shaded in its colour.
    """
    heights = [
        2.6,
        *([1.5] if len(lengths) else []),
        0.75 + 0.42 * (len(evaluations) + len(reported)),
    ]
    figure, axes = new_figure(sum(heights), heights)
    for (label, evaluation), look in zip(evaluations.items(), LOOKS):
        _draw_curve(axes[0], evaluation, label, look["color"])
    axes[0].set(
        title="Expected average overlap curve", xlabel="$N_S$, frames", ylabel=r"$\hat\Phi_{N_S}$"
    )
    axes[0].set(
        ylim=(0, 1),
        xlim=(0, 1.15 * max(evaluation.eao_interval[1] for evaluation in evaluations.values())),
    )
    axes[0].legend(loc="upper right")
    if len(lengths):
        (evaluation, *_) = evaluations.values()
        low, high = evaluation.eao_interval
        axes[1].hist(lengths, bins=min(12, max(4, len(lengths) // 2)), color=GREY, density=True)
        axes[1].plot(lengths, np.zeros(len(lengths)), "|", color="black", ms=10, clip_on=False)
        axes[1].axvspan(low, high, color=BLUE, alpha=0.15, lw=0)
        axes[1].set(
            title=f"Lengths of sequences, interval {low}–{high}", xlabel="frames", ylabel="density"
        )
        axes[1].set(xlim=axes[0].get_xlim())
    _draw_values(axes[-1], evaluations, reported)
    return finished(figure, note)


def _draw_curve(axis: Axes, evaluation: Evaluation, label: str, color: Any) -> None:
    first, curve = evaluation.protocol.first_length, evaluation.eao_curve()
    length = np.arange(len(curve)) + first
    low, high = curve_band(evaluation)
    axis.plot(length, curve, color=color, label=f"{label}, EAO {evaluation.eao:.3f}")
    axis.fill_between(length, low, high, color=color, alpha=0.2, lw=0)
    begin, end = evaluation.eao_interval
    axis.axvspan(begin, end, color=color, alpha=0.1, lw=0)
    axis.plot([begin, end], [evaluation.eao] * 2, color=color, ls=":")


def curve_band(
    evaluation: Evaluation, n: int = 1000, seed: int = 0, level: float = 0.95
) -> tuple[np.ndarray, np.ndarray]:
    """Percentile band (L,), (L,) of the EAO curve over sequences drawn with replacement; NaN with a
    single sequence."""
    count = len(evaluation.sequences)
    if count < 2:
        return np.full((2, evaluation.curve_sum.shape[-1]), np.nan)[0], np.full(
            evaluation.curve_sum.shape[-1], np.nan
        )
    drawn = np.random.RandomState(seed).multinomial(count, np.full(count, 1 / count), n)
    weight = drawn @ evaluation.curve_weight[0]
    curves = np.where(
        weight > 0, drawn @ evaluation.curve_sum[0] / np.where(weight > 0, weight, 1), np.nan
    )
    curves[:, 0] = 1.0
    known = np.isfinite(curves).any(0)
    band = np.full((2, curves.shape[1]), np.nan)
    band[:, known] = np.nanpercentile(
        curves[:, known], [50 * (1 - level), 50 * (1 + level)], axis=0
    )
    return band[0], band[1]


def _draw_values(
    axis: Axes, evaluations: Mapping[str, Evaluation], reported: Mapping[str, float]
) -> None:
    """EAO as a row of points: measured ones with their intervals, reported ones without."""
    for row, (evaluation, look) in enumerate(zip(evaluations.values(), LOOKS)):
        draw_point(axis, row, evaluation.eao, bootstrap(evaluation)["eao"], look)
    for row, (label, value) in enumerate(reported.items(), len(evaluations)):
        draw_point(axis, row, value, None, THESIS if label.startswith("thesis") else PUBLISHED)
    labels = [*evaluations, *reported]
    for row, label in enumerate(labels):
        axis.text(
            0.01, row - 0.38, label, transform=axis.get_yaxis_transform(), fontsize=10, va="center"
        )
    axis.set_yticks([])
    axis.set(
        title="EAO with 95 % interval",
        xlabel="EAO (0 to 1)",
        ylim=(len(labels) - 0.6, -0.8),
        xlim=(0, None),
    )


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
def attributes(
    evaluations: Mapping[str, Evaluation],
    figure_4_5: pd.DataFrame,
    note: str,
    tracker: str = "PyTorch FP32",
) -> Figure:
    """Figure 4.5's baseline: EAO per visual attribute, measured (with intervals) beside what the
    thesis reports for `tracker`."""
    names = [*TAGS, "empty"]
    figure, axis = new_figure(0.62 * len(names) + 1.1)
    step = 0.22
    handles = []
    for at, ((label, evaluation), look) in enumerate(zip(evaluations.items(), LOOKS)):
        scores = evaluation.attributes()
        for row, name in enumerate(names):
            handle = draw_point(
                axis,
                row + at * step,
                scores[name]["eao"],
                bootstrap(evaluation, attribute=name)["eao"],
                look,
            )
        handles.append((handle, label))
    reported = dict(zip(figure_4_5["attribute"], figure_4_5[tracker]))
    for row, name in enumerate(names):
        if name in reported:
            handle = draw_point(axis, row + len(evaluations) * step, reported[name], None, THESIS)
    handles.append((handle, f"thesis: {tracker}, Xavier, VOT2018"))
    axis.set_yticks([row + step / 2 for row in range(len(names))], [NAMES[name] for name in names])
    axis.set(
        title="EAO by visual attribute",
        xlabel="EAO (0 to 1), 95 % interval",
        xlim=(0, None),
        ylim=(len(names) - 0.3, -0.4),
    )
    figure.legend(*zip(*handles), loc="outside upper left")
    return finished(figure, note)


# -- Frames ----------------------------------------------------------------------------------------


@needs_frames
def gallery(
    dataset: Dataset, trajectories: Mapping[str, Trajectory], note: str, count: int = 6
) -> Figure:
    """One tracked frame, two thirds into the sequence, of up to `count` sequences spread over the
    dataset."""
    every = [sequence for sequence in dataset if (trajectories[sequence.name].codes == -1).any()]
    chosen = [
        every[i]
        for i in np.unique(np.linspace(0, len(every) - 1, min(count, len(every))).astype(int))
    ]
    panels = []
    for sequence in chosen:
        tracked = np.flatnonzero(trajectories[sequence.name].codes == -1)
        index = int(tracked[np.abs(tracked - 2 * len(sequence) / 3).argmin()])
        box = trajectories[sequence.name].entries[index]
        panels.append(Panel(sequence, index, box, f"{sequence.name}, frame {index + 1}"))
    return frames(panels, note)


class Panel(NamedTuple):
    """One frame to draw: annotation, the tracker's box (None: none), a title, and whether the box
    is a lost one."""

    sequence: Sequence
    number: int
    box: np.ndarray | None
    title: str
    lost: bool = False


def most_failures(dataset: Dataset, trajectories: Mapping[str, Trajectory]) -> Sequence:
    """The sequence to show resets on: the one with most failures among those where anything was
    tracked."""
    if sentences(trajectories):
        return cast(Sequence, trajectories)

    def rank(sequence: Sequence) -> tuple[bool, int]:
        codes = trajectories[sequence.name].codes
        return bool((codes == -1).any()), int((codes == FAILURE).sum())

    return max(dataset, key=rank)


def find_failure(
    dataset: Dataset, trajectories: Mapping[str, Trajectory], skip: int
) -> tuple[Sequence, int] | None:
    """The failure after the longest time of tracking that is followed by a re-initialisation; None
    without one."""
    found = []
    for sequence in dataset:
        codes = trajectories[sequence.name].codes
        for index in np.flatnonzero(codes == FAILURE).tolist():
            if index + skip < len(codes):
                since = index - int(np.flatnonzero(codes[:index] == INIT)[-1])
                found.append((since, sequence, index))
    return max(found, key=lambda item: item[0])[1:] if found else None


@needs_frames
def failure(
    dataset: Dataset,
    trajectories: Mapping[str, Trajectory],
    lost: Mapping[str, Mapping[int, np.ndarray]],
    skip: int,
    note: str,
) -> Figure | None:
    """The failure of `find_failure`: the frame before, the failure, a skipped frame, the new start.
    None where there is none."""
    found = find_failure(dataset, trajectories, skip)
    if found is None:
        return None
    sequence, index = found
    before, again, entry = index - 1, index + skip, trajectories[sequence.name].entries[index - 1]
    tracked = len(entry) > 1
    start = axis_aligned_box(sequence.regions[before])
    return frames(
        [
            Panel(
                sequence,
                before,
                entry if tracked else start,
                f"frame {before + 1}: {'tracked' if tracked else 'started'}",
            ),
            Panel(
                sequence,
                index,
                lost[sequence.name].get(index),
                f"frame {index + 1}: failure",
                lost=True,
            ),
            Panel(sequence, again - 1, None, f"frame {again}: skipped"),
            Panel(
                sequence,
                again,
                axis_aligned_box(sequence.regions[again]),
                f"frame {again + 1}: started again",
            ),
        ],
        f"Sequence {sequence.name}. {note}",
    )


@styled
def frames(panels: Seq[Panel], note: str) -> Figure:
    """Frames in two columns with annotation and the tracker's box drawn."""
    rows = (len(panels) + 1) // 2
    tallest = max(panel.sequence.height / panel.sequence.width for panel in panels)
    size = (WIDTH, rows * (WIDTH / 2 * tallest + 0.25) + 0.7)
    figure, axes = plt.subplots(rows, 2, figsize=size, layout="constrained", squeeze=False)
    for axis, panel in zip(axes.ravel(), panels):
        show_frame(axis, panel.sequence, panel.number, panel.box, panel.lost)
        axis.set_title(panel.title, fontsize=10)
    for axis in axes.ravel()[len(panels) :]:
        axis.set_axis_off()
    names = [("annotation", YELLOW, "-"), ("tracker", SKY, "--")]
    legend_of_boxes(
        figure, [*names, ("lost", ORANGE, "--")] if any(panel.lost for panel in panels) else names
    )
    return finished(figure, note)


def show_frame(
    axis: Axes, sequence: Sequence, index: int, box: np.ndarray | None, lost: bool = False
) -> None:
    axis.imshow(sequence.frame(index)[..., ::-1], interpolation="antialiased")
    axis.set_axis_off()
    draw_outline(axis, sequence.regions[index], YELLOW, "-")
    if box is not None:
        draw_outline(axis, box, ORANGE if lost else SKY, "--")
    axis.set(xlim=(-0.5, sequence.width - 0.5), ylim=(sequence.height - 0.5, -0.5))


def draw_outline(axis: Axes, region: np.ndarray, color: str, line: str) -> None:
    under = Polygon(polygon_corners(region), fill=False, edgecolor="black", lw=3.4)
    axis.add_patch(under)
    axis.add_patch(Polygon(polygon_corners(region), fill=False, edgecolor=color, lw=2, ls=line))


def legend_of_boxes(figure: Figure, names: Seq[tuple[str, str, str]]) -> None:
    stroke = [patheffects.withStroke(linewidth=3.4, foreground="black")]
    handles = [
        plt.Line2D([], [], color=color, ls=line, path_effects=stroke) for _, color, line in names
    ]
    figure.legend(handles, [name for name, _, _ in names], loc="outside upper left", ncols=3)


# -- Training --------------------------------------------------------------------------------------


@styled
def training(log: pd.DataFrame, note: str) -> Figure:
    """Losses over a training run, from its log (columns pairs, phase, cls, loc, total, distill); a
    line at every new phase."""
    figure, axes = new_figure(5.6, [1, 1, 1])
    tracked = log[log["total"] > 0]
    panels = (
        ("class loss", tracked, "cls", BLUE),
        ("box loss", tracked, "loc", ORANGE),
        ("distillation loss", log[log["distill"] > 0], "distill", GREEN),
    )
    starts = log.loc[log["phase"].diff() > 0, "pairs"]
    for axis, (title, rows, column, color) in zip(axes, panels):
        axis.plot(rows["pairs"] / 1000, rows[column], color=color)
        axis.set(title=title, ylabel="loss", ylim=(0, None), xlim=(0, log["pairs"].max() / 1000))
        for start in starts:
            axis.axvline(start / 1000, color=GREY, ls=":", lw=1.2)
    axes[-1].set_xlabel("thousand pairs")
    return finished(figure, note)


# -- All figures -----------------------------------------------------------------------------------


def new_figure(height: float, heights: Seq[float] = ()) -> tuple[Figure, Any]:
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
    corner = (centre[0] - size[0] / 2, centre[1] - size[1] / 2)
    axis.add_patch(
        FancyBboxPatch(
            corner,
            *size,
            boxstyle="round,pad=0,rounding_size=0.2",
            fc=color or "white",
            ec="black",
            lw=1,
            alpha=0.45 if color else 1,
        )
    )
    lines = text.count("\n") + 1
    axis.text(
        centre[0],
        centre[1] + 0.19 * lines,
        title,
        ha="center",
        va="center",
        fontsize=10,
        fontweight="bold",
    )
    axis.text(
        centre[0], centre[1] - 0.22, text, ha="center", va="center", fontsize=9, linespacing=1.15
    )


def draw_arrow(axis: Axes, start: tuple[float, float], end: tuple[float, float]) -> None:
    axis.annotate(
        "",
        end,
        start,
        arrowprops={"arrowstyle": "-|>", "color": "black", "lw": 1.4, "shrinkA": 0, "shrinkB": 0},
    )


def by(shape: Seq[int]) -> str:
    """(1, 64, 7, 7) as "1×64×7×7"."""
    return "×".join(map(str, shape))
