"""Section 4.2's figures, tables and sentences: variants of precision beside the thesis's TensorRT
engines (tables 4.2 and 4.3).

Views only, as in `plots` and `tables`: measurements and reported rows come in, figures and tables
go out, and the sentences that say what holds are computed from the same numbers.
"""

from __future__ import annotations

from typing import Any, Callable, Dict, List, Mapping, Union, cast
from typing import Sequence as Seq

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lib.engines.deploy import FRAMEWORKS, RECIPES
from lib.errors import InputError
from lib.measure.absent import together
from lib.measure.full_size import EngineSpeed
from lib.measure.measurement import Measurement
from lib.report.plots import (
    BLUE,
    GREEN,
    GREY,
    LOOKS,
    LYING,
    NAMES,
    ORANGE,
    SKY,
    YELLOW,
    draw_point,
    finished,
    new_figure,
    styled,
)
from lib.report.tables import (
    ABSENT,
    INTERVALS,
    Table,
    Text,
    as_number,
    as_value,
    is_known,
    needs_all,
    shows_what_is_there,
)
from lib.siamrpn.contract import LAYER_TYPES
from lib.vot.dataset import TAGS
from lib.vot.metrics import bootstrap, paired_bootstrap
from lib.vot.protocol import FAILURE

LEVELS = ("FP32", "FP16", "INT8")
COLOURS = {"FP32": BLUE, "FP16": ORANGE, "INT8": GREEN}
MARKS = {"FP32": "o", "FP16": "^", "INT8": "s"}
QUALITY = ("accuracy", "robustness", "eao")
ROBUSTNESS = "R, failures per 100 frames"
PARTS = {"crop": SKY, "search": BLUE, "copies": YELLOW, "xcorr": GREEN, "decode": ORANGE}
# What the two engines, timed apart from frames, leave of the time between the ends
PART_NAMES = {"copies": "not accounted for"}
SCHEME = "The thesis's FPS are by PySOT's scheme (section 3.3)."
ROUNDS = "Times and ratios: medians of the rounds, in which the rows of a group took turns with PyTorch FP32."
APART = "Networks are timed by themselves, apart from frames, so one may take longer than the frame that it is a part of."


# -- Figures ---------------------------------------------------------------------------------------


@styled
def speed_quality(measured: Seq[Measurement], reported: pd.DataFrame, note: str) -> Figure:
    """Figure 4.1: EAO against speed, here (with 95 % intervals) and in the thesis; the dashed line
    is the PyTorch baseline's EAO."""
    figure, axes = new_figure(5.2, [1, 1])
    for row in measured:
        interval = bootstrap(row.evaluation)["eao"]
        _mark(
            axes[0],
            row.variant.title,
            row.variant.precision,
            row.fps_tracked,
            row.evaluation.eao,
            interval,
        )
    axes[0].axhline(measured[0].evaluation.eao, color=GREY, ls="--", lw=1.2)
    axes[0].set(title=f"Here, {measured[0].dataset.name}", xlabel=fps_head(measured), ylabel="EAO")
    for other in reported.to_dict("records"):
        _mark(
            axes[1],
            f"{other['framework']} {other['precision']}",
            str(other["precision"]),
            other["fps"],
            other["eao"],
            None,
        )
    axes[1].axhline(reported["eao"].iloc[0], color=GREY, ls="--", lw=1.2)
    axes[1].set(title="Thesis, Xavier, VOT2018", xlabel="frames per second", ylabel="EAO")
    for axis in axes:
        axis.set(xlim=(0, 1.12 * axis.get_xlim()[1]))
        axis.legend(loc="best")
    return finished(figure, note)


def _mark(
    axis: Axes,
    label: str,
    precision: str,
    fps: float,
    eao: float,
    interval: tuple[float, float] | None,
) -> None:
    baseline = label.startswith("PyTorch")
    colour = "black" if baseline else COLOURS[precision]
    if interval is not None and np.isfinite(interval).all():
        axis.plot([fps, fps], interval, color=colour, lw=1.5)
    axis.plot(
        [fps],
        [eao],
        ls="",
        color=colour,
        marker="D" if baseline else MARKS[precision],
        label=label,
        markerfacecolor="white" if baseline else colour,
    )


@styled
def layer_types(speed: EngineSpeed, network: str, note: str) -> Figure:
    """Figures 4.2 to 4.4: mean latency of one network by layer type at every precision, a panel a
    framework."""
    frameworks = list(dict.fromkeys(key.split()[0] for key in speed.layers))
    shown = [
        kind
        for kind in LAYER_TYPES
        if any(times[network][kind] > 0 for times in speed.layers.values())
    ]
    figure, axes = new_figure(
        0.5 + len(frameworks) * (0.55 + 0.42 * len(shown)), [1] * len(frameworks)
    )
    for axis, framework in zip(np.atleast_1d(axes), frameworks):
        rows = {
            key.split()[1].upper(): times[network]
            for key, times in speed.layers.items()
            if key.split()[0] == framework
        }
        for at, (precision, times) in enumerate(rows.items()):
            place = np.arange(len(shown)) + 0.26 * (at - (len(rows) - 1) / 2)
            values = [1000 * times[kind] for kind in shown]
            axis.barh(place, values, 0.24, color=COLOURS[precision], label=precision)
            for y, value in zip(place, values):
                axis.text(value, y, f" {value:.2f}", va="center", fontsize=8)
        axis.set_yticks(range(len(shown)), shown)
        axis.set(
            title=FRAMEWORKS[framework].title,
            xlabel="mean latency, ms",
            ylim=(len(shown) - 0.5, -0.5),
        )
        axis.set_xlim(0, 1.18 * axis.get_xlim()[1])
        axis.legend(loc="lower right")
    return finished(figure, note)


@styled
def frame_parts(speed: EngineSpeed, note: str) -> Figure:
    """Where a tracked frame's time goes: crop, search engine, xcorr engine, decode, and what the
    two engines, which are timed apart from frames, do not account for; a bar a framework and
    precision."""
    figure, axes = new_figure(0.5 + 0.8 * len(speed.whole), [1])
    for row, timed in enumerate(speed.whole):
        left = 0.0
        for part, colour in PARTS.items():
            axes.barh(
                row,
                timed[f"{part}_ms"],
                0.55,
                left,
                color=colour,
                label=PART_NAMES.get(part, part) if row == 0 else None,
            )
            left += timed[f"{part}_ms"]
        axes.text(
            left,
            row,
            f" {timed['frame_ms']:.1f} ms, {timed['ratio']:.1f}×",
            va="center",
            fontsize=9,
        )
    axes.set_yticks(
        range(len(speed.whole)),
        [f"{timed['framework'].split()[0]}\n{timed['precision']}" for timed in speed.whole],
    )
    axes.set(
        title="A tracked frame, full-size network", xlabel="ms", ylim=(len(speed.whole) - 0.5, -0.5)
    )
    axes.set_xlim(0, 1.3 * axes.get_xlim()[1])
    figure.legend(loc="outside upper left", ncols=3)
    return finished(figure, note)


@styled
def attributes(measured: Seq[Measurement], figure_4_5: pd.DataFrame, note: str) -> Figure:
    """Figure 4.5: EAO per visual attribute of the baseline and the three engines, here (with
    intervals) and in the thesis."""
    figure, axes = new_figure(7.4, [1.2, 1])
    looks = (
        *LOOKS[:1],
        {"color": BLUE, "marker": "o"},
        {"color": ORANGE, "marker": "^"},
        {"color": GREEN, "marker": "s"},
    )
    looks = ({"color": "black", "marker": "D", "markerfacecolor": "white"}, *looks[1:])
    step, handles = 0.2, []
    for at, (row, look) in enumerate(zip(measured, looks)):
        scores = row.evaluation.attributes()
        for place, name in enumerate((*TAGS, "empty")):
            interval = bootstrap(row.evaluation, attribute=name)["eao"]
            handle = draw_point(axes[0], place + at * step, scores[name]["eao"], interval, look)
        handles.append((handle, row.variant.title.replace(" ", "\n", 1)))
    columns = [name for name in figure_4_5.columns if name not in ("row", "attribute")]
    reported = figure_4_5.set_index("attribute")
    for at, (column, look) in enumerate(zip(columns, looks)):
        for place, name in enumerate(TAGS):
            draw_point(axes[1], place + at * step, float(reported[column][name]), None, look)
    for axis, names, title in (
        (axes[0], (*TAGS, "empty"), f"Here, {measured[0].dataset.name}"),
        (axes[1], TAGS, "Thesis (TensorRT), Xavier, VOT2018"),
    ):
        axis.set_yticks(
            [place + 1.5 * step for place in range(len(names))], [NAMES[name] for name in names]
        )
        axis.set(title=title, xlabel="EAO (0 to 1)", xlim=(0, None), ylim=(len(names) - 0.2, -0.4))
    figure.legend(*zip(*handles), loc="outside upper left", ncols=4, fontsize=8)
    return finished(figure, note)


@styled
def boxes(
    here: Mapping[str, Seq[float]], thesis: Mapping[str, Seq[float]], label: str, of: str, note: str
) -> Figure:
    """Figures 4.6 and 4.7: box plots of a value by the precision of one network, here and redone
    from the thesis's table."""
    figure, axes = new_figure(4.6, [1, 1])
    for axis, groups, title in ((axes[0], here, "Here"), (axes[1], thesis, "Thesis (table 4.3)")):
        drawn = axis.boxplot(
            [groups[name] for name in LEVELS],
            **LYING,
            widths=0.5,
            patch_artist=True,
            medianprops={"color": "black"},
            flierprops={"markersize": 4},
        )
        for box, name in zip(drawn["boxes"], LEVELS):
            box.set_facecolor(COLOURS[name])
            box.set_alpha(0.5)
        for place, name in enumerate(LEVELS, 1):
            jitter = np.linspace(-0.12, 0.12, len(groups[name]))
            axis.plot(
                groups[name], place + jitter, ls="", marker=".", ms=4, color="black", alpha=0.6
            )
        axis.set_yticks(range(1, 4), LEVELS)
        axis.set(title=title, xlabel=label, ylabel=f"{of} network", ylim=(3.6, 0.4))
    return finished(figure, note)


def by_precision(rows: Seq[Mapping[str, Any]], network: str, value: str) -> dict[str, list[float]]:
    """The values of a column, grouped by the precision of one network: {"FP32": [...], "FP16":
    [...], "INT8": [...]}; where a row is absent, an `Absent`."""
    missing = together(*rows)
    if missing is not None:
        return cast(Dict[str, List[float]], missing)
    return {
        level: [float(row[value]) for row in rows if str(row[network]).upper() == level]
        for level in LEVELS
    }


# Of `thesis.table`, or of `thesis.rows`, which keep every printed digit
Reported = Union[pd.DataFrame, Seq[Mapping[str, Any]]]


def with_pure_rows(table_4_3: Reported, table_4_2: Reported) -> list[dict[str, Any]]:
    """The thesis's 27 mixtures: the 24 of table 4.3, and the three of table 4.2 that have one
    precision throughout."""
    mixed, pure = (
        each.to_dict("records") if isinstance(each, pd.DataFrame) else each
        for each in (table_4_3, table_4_2)
    )
    return [
        *map(dict, mixed),
        *(
            {**row, **dict.fromkeys(("target", "search", "xcorr"), row["precision"])}
            for row in pure
        ),
    ]


# -- Tables ----------------------------------------------------------------------------------------


def fps_head(measured: Seq[Measurement]) -> str:
    """The head of a column of speeds: of the passes themselves, or of the full-size network where
    those were not timed."""
    return "FPS, full-size network" if any(one.speed for one in measured) else "FPS, tracked frames"


@shows_what_is_there
def engines(
    measured: Seq[Measurement],
    base: Measurement,
    reported: pd.DataFrame,
    digits: pd.DataFrame,
    caption: str,
) -> Table:
    """Table 4.2: the baseline and the engines, quality with the paired difference to `base`, what
    ran, speed, plan; then the thesis's. reported: its rows as printed; digits: the same rows with
    one more digit (data/thesis/digits.csv)."""
    heads = [
        "Tracker",
        "Convolutions run in",
        "A",
        ROBUSTNESS,
        "EAO",
        f"ΔEAO to {base.variant.title}",
        fps_head(measured),
        "Plans, MB",
        "Built in, s",
    ]
    finer = {(row["framework"], row["precision"]): row for row in digits.to_dict("records")}
    rows: list[list[Any]] = []
    for one in measured:
        row = one.row()
        plans = (
            (f"{row['plan_mb']:.1f}", f"{row['build_s']:.1f}")
            if row["plan_mb"]
            else (ABSENT, ABSENT)
        )
        rows.append(
            [
                (one.variant.title, one.whose),
                one.executed,
                *(as_value(row, name, 3) for name in QUALITY),
                eao_difference(one, base),
                as_number(one.fps_tracked, 1),
                *plans,
            ]
        )
    for other in reported.to_dict("records"):
        more = finer[other["framework"], other["precision"]]
        change = (
            f"{other['eao'] - reported['eao'].iloc[0]:+.3f}"
            if other["framework"] != "PyTorch"
            else ABSENT
        )
        accuracy, robustness, eao, fps = (
            as_value(other, name, 3, more) for name in (*QUALITY, "fps")
        )
        rows.append(
            [
                (f"{other['framework']} {other['precision']}", "thesis, Xavier, VOT2018"),
                ABSENT,
                accuracy,
                robustness,
                eao,
                change,
                fps,
                ABSENT,
                ABSENT,
            ]
        )
    return Table(
        heads,
        rows,
        f"{caption} {SCHEME} {INTERVALS} {about_differences(base)} In brackets: one more digit, from the "
        f"thesis author's script.{about_plans([one.row() for one in measured])}",
    )


@shows_what_is_there
def mixtures(
    measured: Seq[Measurement], base: Measurement, reported: Seq[Mapping[str, Any]], caption: str
) -> Table:
    """Table 4.3: a row a mixture, sorted by the search network as in the thesis, with the thesis's
    values under those measured. reported: of `with_pure_rows`."""
    known = {
        tuple(str(row[name]).lower() for name in ("target", "search", "xcorr")): row
        for row in reported
    }
    heads = [
        "Target",
        "Search",
        "Xcorr",
        "A",
        ROBUSTNESS,
        "EAO",
        f"ΔEAO to {base.variant.title}",
        fps_head(measured),
    ]
    rows = []
    for one in measured:
        row, thesis = one.row(), known[one.variant.target, one.variant.search, one.variant.xcorr]
        rows.append(
            [
                *(getattr(one.variant, name).upper() for name in ("target", "search", "xcorr")),
                *((*as_value(row, name, 3), f"thesis {thesis[name]}") for name in QUALITY),
                eao_difference(one, base),
                (as_number(one.fps_tracked, 1), f"thesis {thesis['fps']}"),
            ]
        )
    return Table(heads, rows, f"{caption} {SCHEME} {INTERVALS} {about_differences(base)}")


@shows_what_is_there
def quantisations(
    measured: Seq[Measurement],
    base: Measurement,
    name: Callable[[Measurement], tuple[str, str]],
    caption: str,
) -> Table:
    """Ways to quantise, a row each, against the row that was not; name: what to call a measurement,
    and a line under it."""
    rows = [
        [
            name(one),
            *(as_value(one.row(), column, 3) for column in QUALITY),
            eao_difference(one, base),
        ]
        for one in measured
    ]
    heads = ["Quantised how", "A", ROBUSTNESS, "EAO", f"ΔEAO to {base.variant.title}"]
    return Table(heads, rows, f"{caption} {INTERVALS} {about_differences(base)}")


RECIPE_WORDS = {
    "standard": "correlation and weighted sum in 16 bits, the rest in INT8: what this book uses",
    "last-kept": "the heads' last convolutions in 16 bits as well",
    "everything": "all in INT8, the correlation too, with one range for all kernels",
    "one-target": "all in INT8, calibrated with the first target's kernels and with their scales",
    "stand-in": "all in INT8, calibrated with kernels of no target, as exported before one was seen, and with their scales",
    "stand-in-standard": "as this book's, but calibrated with kernels of no target",
    "misbound": "all in INT8, calibrated with maps bound to the wrong branches",
}


def recipe_name(one: Measurement) -> tuple[str, str]:
    """An xcorr recipe in words, and the method of its ranges."""
    how = one.variant.quantisation
    if one.variant.xcorr != "int8":
        return "not quantised", one.variant.title
    return RECIPE_WORDS[how.recipe], f"ranges by {how.method}"


def calibration_name(one: Measurement) -> tuple[str, str]:
    """A calibration in words, and the method of its ranges."""
    words = {
        "training": "calibrated on training pictures",
        "benchmark": "calibrated on frames that are tested, as the thesis does",
    }
    how = one.variant.quantisation
    if one.variant.search != "int8":
        return "not quantised", one.variant.title
    return words[how.calibration], f"ranges by {how.method}"


@shows_what_is_there
def speeds(speed: EngineSpeed, caption: str) -> Table:
    """Milliseconds of a frame, of each network and outside of them, and ratios to PyTorch FP32, at
    full size."""
    heads = [
        "Framework, precision",
        "Convolutions run in",
        "Frame, ms",
        "FPS",
        "× PyTorch FP32",
        "Target, ms",
        "Search, ms",
        "Xcorr, ms",
        "Outside, ms",
        "Plans, MB",
        "Built in, s",
    ]
    rows = [
        [
            (row["framework"], row["precision"]),
            row["executed"],
            (f"{row['frame_ms']:.1f}", f"{row['frame_ms_low']:.1f}–{row['frame_ms_high']:.1f}"),
            f"{row['fps']:.1f}",
            (f"{row['ratio']:.2f}", f"{row['ratio_low']:.2f}–{row['ratio_high']:.2f}"),
            *(
                (f"{row[f'{name}_ms']:.2f}", f"{row[f'{name}_ratio']:.1f}×")
                for name in ("target", "search", "xcorr")
            ),
            f"{row['outside_ms']:.2f}",
            *(
                (f"{row['plan_mb']:.1f}", f"{row['build_s']:.1f}")
                if row["plan_mb"]
                else (ABSENT, ABSENT)
            ),
        ]
        for row in speed.whole
    ]
    under = (
        f"{ROUNDS} Under a frame's time: its quartiles; under a ratio: the smallest and the largest of "
        f"the rounds; under a network's time: its ratio to PyTorch FP32. {APART}{about_plans(speed.whole)}"
    )
    return Table(
        heads,
        rows,
        f"{caption} {under}" + "".join(f" Missing: {sentence}." for sentence in speed.missing),
    )


@shows_what_is_there
def reinitialisations(speed: EngineSpeed, caption: str) -> Table:
    """Milliseconds from an exemplar crop to kernels that the xcorr engine runs with, both ways."""

    def cell(seconds: Seq[float]) -> Any:
        if not len(seconds):
            return ABSENT
        low, middle, high = np.percentile(1000 * np.array(seconds), [25, 50, 75])
        return f"{middle:.1f}", f"{low:.1f}–{high:.1f}"

    rows = [
        [precision.upper(), cell(ways["inputs"]), cell(ways["refit"])]
        for precision, ways in speed.reinitialisation.items()
    ]
    heads = ["Precision", "Kernels as inputs, ms", "Kernels inside, refitted, ms"]
    return Table(heads, rows, f"{caption} Under a time: the quartiles.")


def about_plans(rows: Seq[Mapping[str, Any]]) -> str:
    """Why plans are no smaller in FP16, where that shows. rows: with framework, precision,
    plan_mb."""
    title = FRAMEWORKS["openvino"].title
    fp16, fp32 = (
        max(
            (
                row["plan_mb"]
                for row in rows
                if row["framework"].startswith(title) and row["precision"] == level
            ),
            default=0,
        )
        for level in ("FP16", "FP32")
    )
    return (
        f" {title} keeps the weights of an FP16 plan in FP32, so it is no smaller."
        if fp16 >= 0.99 * fp32 > 0
        else ""
    )


def about_differences(base: Measurement) -> str:
    """What ΔEAO is and what its mark says, for captions."""
    return (
        "ΔEAO: the difference to the row named in its head on the same sequences, with its 95 % interval (paired bootstrap "
        f"over sequences). * where the interval leaves out 0; without *, these {len(base.evaluation.sequences)} sequences "
        "cannot tell the difference from 0."
    )


def eao_difference(one: Measurement, base: Measurement) -> Any:
    """EAO's paired difference and its interval, marked where that leaves out 0."""
    return (
        ABSENT
        if one is base
        else difference(*paired_bootstrap(one.evaluation, base.evaluation)["eao"])
    )


def difference(value: float, low: float, high: float) -> Any:
    """A difference and its interval: ("+0.012 *", "(+0.003 to +0.021)"); with more digits where a
    bound that is not 0 would be printed as 0, which a marked interval must not show."""
    if not is_known(low):
        return signed(value, 3)
    real, digits = leaves_out_0(low, high), 3
    while digits < (6 if real else 4) and any(
        bound and not round(bound, digits) for bound in (low, high)
    ):
        digits += 1
    return (
        f"{signed(value, digits)}{' *' if real else ''}",
        f"({signed(low, digits)} to {signed(high, digits)})",
    )


def signed(value: float, digits: int) -> str:
    """With its sign, which a number that is printed as 0 does not have: "+0.012", "0.000"."""
    text = f"{value:+.{digits}f}"
    return text if float(text) else text[1:]


def leaves_out_0(low: float, high: float) -> bool:
    return low > 0 or high < 0


# -- Sentences -------------------------------------------------------------------------------------


@needs_all
def same_boxes(a: Measurement, b: Measurement) -> Text:
    """The largest difference of two trackers' boxes over all frames, and what the thesis lost
    between the same two. Tracked frames in which both lose the target have no boxes to compare."""
    worst, frames, codes, lost = 0.0, 0, 0, 0
    for name, one in a.trajectories.items():
        for mine, theirs in zip(one.entries, b.trajectories[name].entries):
            if len(mine) != len(theirs):
                codes += 1
            elif len(mine) > 1:
                worst, frames = max(worst, float(np.abs(mine - theirs).max())), frames + 1
            else:
                lost += int(mine[0] == theirs[0] == FAILURE)
    without = f" (in {lost} more, both lost it and gave none)" if lost else ""
    event = f" In {codes} frames only one of them had lost the target." if codes else ""
    return Text(
        f"**{a.variant.title} and {b.variant.title}** give the same boxes: over {frames:,} tracked frames with a box "
        f"of the target{without} no coordinate differs by more than {worst:.4f} pixels.{event} EAO: "
        f"{a.evaluation.eao:.4f} and {b.evaluation.eao:.4f}."
    )


@needs_all
def verdict(one: Measurement, base: Measurement, allowed: float) -> Text:
    """Whether a variant holds the base's EAO within `allowed`, a limit of this book, and whether
    the interval leaves out 0."""
    value, low, high = paired_bootstrap(one.evaluation, base.evaluation)["eao"]
    real = (
        "which leaves out 0"
        if leaves_out_0(low, high)
        else f"which holds 0: these {len(base.evaluation.sequences)} sequences cannot tell the two apart"
    )
    holds = "holds" if abs(value) <= allowed else "does not hold"
    return Text(
        f"**{one.variant.title}** {holds} the EAO of {base.variant.title} within {allowed:g}, the limit that this "
        f"book sets: {signed(value, 4)}, 95 % interval {signed(low, 4)} to {signed(high, 4)}, {real}."
    )


@needs_all
def speed_finding(speed: EngineSpeed, reported: pd.DataFrame) -> Text:
    """The thesis's speed-ups beside those measured at full size in one run."""
    fps = {
        f"{row['framework']} {row['precision']}": row["fps"] for row in reported.to_dict("records")
    }
    parts = []
    for level in LEVELS:
        try:
            row = speed.row_of(speed.framework, level)
        except InputError as error:  # named in the sentence
            parts.append(str(error))
            continue
        parts.append(
            f"{level} {row['ratio']:.1f} times PyTorch FP32 (rounds {row['ratio_low']:.1f} to {row['ratio_high']:.1f}; "
            f"thesis: {fps[f'TensorRT {level}'] / fps['PyTorch FP32']:.1f})"
        )
    return Text("Speed at full size, one run: " + "; ".join(parts) + ".")


@needs_all
def search_decides(rows: Seq[Mapping[str, Any]], thesis: Seq[Mapping[str, Any]]) -> Text:
    """Whether the speed of a mixture is limited to ranges by the precision of its search network,
    as section 4.2.1 says."""
    groups, theirs = (
        by_precision(rows, "search", "fps_tracked"),
        by_precision(thesis, "search", "fps"),
    )
    ranges = {level: (min(values), max(values)) for level, values in groups.items()}
    apart = [f"{a} and {b}" for a, b in zip(LEVELS, LEVELS[1:]) if ranges[a][1] >= ranges[b][0]]
    text = "; ".join(
        f"{level} {low:.3g} to {high:.3g} FPS, median {np.median(groups[level]):.3g}"
        for level, (low, high) in ranges.items()
    )
    holds = (
        "so each precision has a range of its own"
        if not apart
        else f"so the ranges of {' and of '.join(apart)} overlap"
    )
    return Text(
        f"By the precision of the search network: {text}; {holds}. In the "
        f"thesis FP16 reaches {max(theirs['FP16']):.1f} and INT8 begins at {min(theirs['INT8']):.1f} FPS."
    )


@needs_all
def xcorr_finding(measured: Seq[Measurement], thesis: Seq[Mapping[str, Any]]) -> Text:
    """Median EAO by the precision of the xcorr network, here and in the thesis."""
    rows = [one.row() for one in measured]
    here = {
        level: float(np.median(values))
        for level, values in by_precision(rows, "xcorr", "eao").items()
    }
    there = {
        level: float(np.median(values))
        for level, values in by_precision(thesis, "xcorr", "eao").items()
    }
    change = 100 * (here["INT8"] / here["FP32"] - 1) if here["FP32"] else 0.0
    texts = [
        ", ".join(f"{level} {value:.3f}" for level, value in group.items())
        for group in (here, there)
    ]
    return Text(
        f"Median EAO by the precision of the xcorr network: {texts[0]} here; {texts[1]} in the thesis, where INT8 loses "
        f"{100 * (1 - there['INT8'] / there['FP32']):.0f} %; here it {'gains' if change > 0 else 'loses'} "
        f"{abs(change):.1f} %."
    )


@needs_all
def beyond_noise(measured: Seq[Measurement], base: Measurement) -> Text:
    """How many of the mixtures have a difference to the base whose interval leaves out 0, which lie
    lowest and highest, and what choosing the highest is worth."""
    others = [one for one in measured if one is not base]
    found = [(one, *paired_bootstrap(one.evaluation, base.evaluation)["eao"]) for one in others]
    real = [item for item in found if leaves_out_0(*item[2:])]
    low, high = min(found, key=lambda item: item[1]), max(found, key=lambda item: item[1])
    expected, count = 0.05 * len(found), len(measured)
    even = ", although its interval leaves out 0" if high in real else ", and its interval holds 0"
    return Text(
        f"Of {len(found)} mixtures, {len(real)} have an interval of ΔEAO that leaves out 0; where all were equal, about "
        f"{expected:.0f} would by chance. The lowest is {low[0].variant.precision} ({signed(low[1], 3)}), the highest "
        f"{high[0].variant.precision} ({signed(high[1], 3)}). Picked out of {count} for being the highest, as the thesis "
        f"picks its best, it is likely to look better than it is{even}: a part of its lead is chance, which other "
        "sequences would not repeat."
    )


@needs_all
def recipe_finding(measured: Seq[Measurement], thesis: Seq[Mapping[str, Any]]) -> Text:
    """Which ways to make an INT8 xcorr network lose accuracy or EAO, by intervals that leave out 0,
    and what the thesis lost."""
    base, worst = measured[0], []
    for one in measured[1:]:
        change = paired_bootstrap(one.evaluation, base.evaluation)
        lost = [
            " ".join((title, signed(change[name][0], 3), difference(*change[name])[1]))
            for name, title in (("accuracy", "accuracy"), ("eao", "EAO"))
            if change[name][2] < 0
        ]
        if lost:
            words, method = recipe_name(one)
            worst.append(f"*{words}* ({method}): {', '.join(lost)}")
    if not worst:
        return Text(
            "For no way is accuracy or EAO lower by an interval that leaves out 0, so none explains the thesis's loss."
        )
    theirs = {}
    for value in ("accuracy", "eao"):
        groups = by_precision(thesis, "xcorr", value)
        theirs[value] = float(np.median(groups["FP32"]) - np.median(groups["INT8"]))
    return Text(
        f"Of {len(measured) - 1} ways, {len(worst)} {'loses' if len(worst) == 1 else 'lose'} accuracy or EAO by an "
        f"interval that leaves out 0: {'; '.join(worst)}. Of the others no loss can be told. In the thesis an INT8 xcorr "
        f"network loses {theirs['accuracy']:.3f} of accuracy and {theirs['eao']:.3f} of EAO "
        "(medians of tables 4.2 and 4.3)."
    )


assert set(RECIPE_WORDS) == set(RECIPES), "every recipe has words"
