"""Figures, tables and sentences of sections 3.6, 4.2.2 and 4.2.3: pruning the backbone (figures
3.11 and 4.8 to 4.10).

Views only, as in `plots`: networks, scores, logs and measurements come in, figures and tables go
out.
"""

from __future__ import annotations

from typing import Any, Mapping
from typing import Sequence as Seq

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from lib import pruning
from lib.measure.full_size import EngineSpeed
from lib.measure.measurement import Measurement
from lib.measure.pruned import CUT, DISTILLED, FROZEN, RECALIBRATED, UNPRUNED, Tracker, tracker_of
from lib.report.ch04_engines import (
    APART,
    COLOURS,
    MARKS,
    QUALITY,
    ROBUSTNESS,
    ROUNDS,
    SCHEME,
    about_plans,
    difference,
    eao_difference,
    fps_head,
    leaves_out_0,
)
from lib.report.plots import (
    BLUE,
    GREEN,
    GREY,
    ORANGE,
    SKY,
    WIDTH,
    YELLOW,
    draw_arrow,
    draw_box,
    finished,
    new_figure,
    new_sheet,
    plt,
    styled,
)
from lib.report.tables import (
    ABSENT,
    INTERVALS,
    Table,
    Text,
    as_number,
    as_value,
    needs_all,
    shows_what_is_there,
)
from lib.siamrpn.network import NetworkConfig
from lib.training.pictures import montage
from lib.vot.dataset import axis_aligned_box
from lib.vot.metrics import bootstrap, paired_bootstrap

STAGES = {1: SKY, 2: BLUE, 3: GREEN, 4: ORANGE}
SHARES_LOOK = {1.0: GREY, 0.66: BLUE, 0.5: GREEN, 0.26: ORANGE}
TRAINING_LOOK = {DISTILLED: "black", RECALIBRATED: SKY, CUT: YELLOW}


def _colour(tracker: Tracker) -> str:
    return TRAINING_LOOK.get(tracker.training) or SHARES_LOOK[tracker.share]


# -- Section 3.6 -----------------------------------------------------------------------------------


@styled
def architecture(config: NetworkConfig, note: str) -> Figure:
    """Figure 3.11: the backbone stage by stage, with channels and strides; crossed out: what only a
    classifier has."""
    strides, dilations = (4, 8, 8, 8), (1, 1, 2, 4)
    parts = [("Conv1", f"7×7, stride 2, {config.stem} channels, max pooling")]
    parts += [
        (
            f"Conv{stage + 1}",
            f"{len(part.blocks)} blocks, {part.channels} channels, stride {stride}"
            + (f", dilation {dilation}" if dilation > 1 else ""),
        )
        for stage, (part, stride, dilation) in enumerate(zip(config.stages, strides, dilations), 1)
    ]
    parts += [("Avg pool", "not in the tracker"), ("FC", "not in the tracker")]
    figure, axis = new_sheet("", 6.4)
    for index, (title, text) in enumerate(parts):
        y, there = 10.6 - 1.62 * index, index <= len(config.stages)
        draw_box(axis, (4.0, y), (7.4, 1.1), title, text, SKY if there else YELLOW)
        if not there:
            for ends in ((-0.55, 0.55), (0.55, -0.55)):
                axis.plot([0.3, 7.7], [y + end for end in ends], color=ORANGE, lw=2)
        if index:
            draw_arrow(axis, (4.0, y + 1.07), (4.0, y + 0.55))
        if 2 <= index <= len(config.stages):
            draw_arrow(axis, (7.7, y), (8.5, y))
            axis.text(8.6, y, "RPN", va="center", fontsize=10)
    return finished(figure, note)


@styled
def score_distribution(scores: pruning.Scores, note: str) -> Figure:
    """Scores by stage, sorted, on a logarithmic scale: inside the blocks, and of the residual
    sums."""
    figure, axes = new_figure(5.6, [1, 1])
    for axis, inner in zip(axes, (True, False)):
        for stage, colour in STAGES.items():
            chosen = [
                values
                for name, values in scores.items()
                if name.startswith(f"layer{stage}.") and name.endswith(pruning.SUM) != inner
            ]
            values = np.sort(np.concatenate(chosen))
            axis.plot(
                np.linspace(0, 100, len(values)),
                np.maximum(values, 1e-9),
                color=colour,
                label=f"Conv{stage + 1}",
            )
        axis.set(
            yscale="log",
            ylabel="score, nats",
            xlim=(0, 100),
            title="inside the blocks" if inner else "residual sums",
        )
    axes[0].legend(loc="lower right")
    axes[1].set(xlabel="channels of the stage, sorted by score, %")
    return finished(figure, note)


@styled
def kept(choices: Mapping[float, pruning.Choice], minimum: float, note: str) -> Figure:
    """Share of its channels that every layer keeps, a line a pruned network; dotted: the
    minimum."""
    figure, axis = new_figure(4.4)
    names: list[str] = []
    for share, choice in choices.items():
        names = list(choice.keep)
        axis.plot(
            range(len(names)),
            [100 * stays.mean() for stays in choice.keep.values()],
            marker="o",
            ms=4,
            lw=1.2,
            color=SHARES_LOOK[share],
            label=f"{share:g} of the parameters",
        )
    axis.axhline(100 * minimum, color=GREY, ls=":")
    ends = [index for index, name in enumerate(names) if name.endswith(pruning.SUM)]
    axis.set_xticks(
        [(start + end) / 2 for start, end in zip([0, *[e + 1 for e in ends]], ends)],
        [f"Conv{stage + 1}" for stage in STAGES],
    )
    for end in ends[:-1]:
        axis.axvline(end + 0.5, color=GREY, lw=0.6)
    axis.set(
        ylabel="channels that stay, %",
        ylim=(0, 104),
        xlim=(-0.5, len(names) - 0.5),
        xlabel="layers in their order; the last of each stage is its residual sum",
    )
    axis.legend(loc="lower left")
    return finished(figure, note)


@styled
def parameters_by_k(
    config: NetworkConfig,
    scores: pruning.Scores,
    choices: Mapping[float, pruning.Choice],
    note: str,
) -> Figure:
    """Parameters of the backbone against k, the channels kept by score; marked: what bisection
    found."""
    figure, axis = new_figure(3.4)
    total = sum(map(len, scores.values()))
    ks = np.unique(np.linspace(0, total, 41).astype(int))
    curve = [
        pruning.backbone_parameters(
            pruning.cut_config(config, pruning.counts(pruning.keep_best(scores, int(k))))
        )
        for k in ks
    ]
    axis.plot(ks, np.array(curve) / 1e6, color=BLUE)
    for share, choice in choices.items():
        axis.plot(
            [choice.k],
            [choice.parameters / 1e6],
            ls="",
            marker="o",
            color=SHARES_LOOK[share],
            label=f"{share:g}: k = {choice.k}, {choice.parameters / 1e6:.3f} M",
        )
    axis.set(xlabel=f"k, of {total} channels", ylabel="parameters, M", ylim=(0, None))
    axis.legend(loc="upper left")
    return finished(figure, note)


def channel_table(
    config: NetworkConfig, smaller: Mapping[str, NetworkConfig], caption: str
) -> Table:
    """Channels of every block of the full and the pruned networks: first and second convolution,
    residual sum."""
    columns = {"whole": config, **smaller}
    layers = {title: pruning.mask_layers(each) for title, each in columns.items()}
    rows: list[Seq[Any]] = [
        ["parameters", *(f"{pruning.backbone_parameters(each):,}" for each in columns.values())]
    ]
    for stage, part in enumerate(config.stages, 1):
        for block in range(len(part.blocks)):
            names = (
                f"layer{stage}.{block}.conv1",
                f"layer{stage}.{block}.conv2",
                f"layer{stage}.{pruning.SUM}",
            )
            rows.append(
                [
                    f"Conv{stage + 1}, block {block + 1}",
                    *(" / ".join(str(found[name]) for name in names) for found in layers.values()),
                ]
            )
    return Table(["Block", *columns], rows, caption)


# -- Section 4.2.2 ---------------------------------------------------------------------------------


@styled
def head_training(log: pd.DataFrame, thesis_top1: float, note: str) -> Figure:
    """Figure 4.8: top-1 accuracy over the training of the classification layer alone."""
    figure, axis = new_figure(3.2)
    axis.plot(
        log["pictures"] / 1000, 100 * log["top1"], marker="o", ms=4, color=BLUE, label="top-1"
    )
    axis.plot(log["pictures"] / 1000, 100 * log["top5"], marker="o", ms=4, color=SKY, label="top-5")
    axis.set(
        xlabel="thousand pictures",
        ylabel="validation accuracy, %",
        ylim=(0, None),
        title=f"The thesis ends at {thesis_top1:g} % top-1 on ImageNet",
    )
    axis.legend(loc="upper left")
    return finished(figure, note)


@styled
def finetuning(
    logs: Mapping[float, pd.DataFrame], resumed: pd.DataFrame | None, cut_at: float, note: str
) -> Figure:
    """Figure 4.9: top-1 and top-5 accuracy over fine-tuning; crosses: the same training, stopped
    and resumed once."""
    figure, axes = new_figure(5.6, [1, 1])
    for axis, column in zip(axes, ("top1", "top5")):
        for share, log in logs.items():
            axis.plot(
                log["pictures"] / 1000,
                100 * log[column],
                marker="o",
                ms=3,
                color=SHARES_LOOK[share],
                label=f"{share:g}",
            )
        if resumed is not None:
            axis.plot(
                resumed["pictures"] / 1000,
                100 * resumed[column],
                ls="",
                marker="x",
                ms=7,
                color="black",
                label="stopped and resumed",
            )
            axis.axvline(cut_at / 1000, color=GREY, ls=":")
        axis.set(ylabel=f"{column[:3]}-{column[3]}, %", ylim=(0, 100))
    figure.legend(
        *axes[0].get_legend_handles_labels(),
        loc="outside upper left",
        title="share of parameters",
        ncols=2,
    )
    axes[1].set(xlabel="thousand pictures")
    return finished(figure, note)


@styled
def classes(names: Seq[str], size: int, note: str) -> Figure:
    """Sixteen of the generated classes."""
    chosen = [(place * 9) % len(names) for place in range(16)]
    figure, axes = plt.subplots(4, 4, figsize=(WIDTH, WIDTH + 0.6), layout="constrained")
    for axis, label in zip(axes.flat, chosen):
        axis.imshow(montage([label], size)[..., ::-1])
        axis.set_title(names[label], fontsize=7)
        axis.axis("off")
    return finished(figure, note)


def resumed_finding(differences: Mapping[str, float]) -> Text:
    """Whether the resumed training's curve lies on the uninterrupted one."""
    worst = max(differences.values())
    if worst == 0:
        return Text(
            "At every point the resumed training gets as many pictures right as the uninterrupted one: momentum, rate "
            "and the order of the pictures go on where they were, so there is no dip to recover from."
        )
    return Text(
        f"The resumed training and the uninterrupted one are up to {100 * worst:.2g} points apart."
    )


def finetuning_finding(rows: Seq[Mapping[str, Any]], reported: pd.DataFrame) -> Text:
    """What fine-tuning does to accuracy, here and in the thesis."""
    first, *pruned = rows
    theirs = reported["top1"].tolist()
    better = sum(row["top1_low"] > first["top1_high"] for row in pruned)
    ours = [row["top1"] - first["top1"] for row in pruned]
    return Text(
        f"In the thesis all {len(theirs) - 1} pruned networks beat the whole one after fine-tuning, by "
        f"{min(theirs[1:]) - theirs[0]:.1f} to {max(theirs[1:]) - theirs[0]:.1f} points. There the backbone had been "
        "trained on these classes, ImageNet's, and only the last layer of the whole network was new. Here the backbone "
        f"has never seen the classes, and {better} of {len(pruned)} pruned networks beat the whole one, by "
        f"{min(ours):.0f} to {max(ours):.0f} points. That says how little of the classes a backbone knows that was not "
        "fine-tuned for them, and nothing in favour of fewer channels."
    )


@styled
def tracker_training(logs: Mapping[Tracker, pd.DataFrame], note: str) -> Figure:
    """Loss of the trackers on pruned backbones over the pairs seen; steps are changes to larger
    search crops."""
    figure, axis = new_figure(3.6)
    for tracker, log in logs.items():
        colour = _colour(tracker)
        axis.plot(log["pairs"] / 1000, log["total"], color=colour, label=tracker.title)
    axis.set(xlabel="thousand pairs", ylabel="loss of classes and boxes", yscale="log")
    axis.legend(loc="upper right", title="share of parameters", ncols=2)
    return finished(figure, note)


def accuracies(
    measured: Seq[Mapping[str, Any]], reported: pd.DataFrame, classes: int, caption: str
) -> Table:
    """Table 4.4 with the thesis's columns beside those measured."""
    heads = [
        "Compression",
        "Parameters, M",
        f"Top-1, % ({classes} classes)",
        "Top-5, %",
        "Thesis: parameters, M",
        "Top-1, % (ImageNet)",
        "Top-5, %",
    ]
    rows = [
        [
            f"{row['compression']:.2f}",
            as_number(row["parameters_m"], 3),
            as_value(row, "top1", 1),
            as_value(row, "top5", 1),
            f"{theirs['parameters_m']:g}",
            f"{theirs['top1']:g}",
            f"{theirs['top5']:g}",
        ]
        for row, theirs in zip(measured, reported.to_dict("records"))
    ]
    return Table(heads, rows, f"{caption} Under a value: its 95 % interval (Wilson).")


# -- Section 4.2.3 ---------------------------------------------------------------------------------


@shows_what_is_there
def engines(measured: Seq[Measurement], reported: pd.DataFrame, caption: str) -> Table:
    """Table 4.5: every tracker on every engine; under its values those of the thesis's row of the
    same share, training and precision."""
    heads = ["Backbone", "Engine", "A", ROBUSTNESS, "EAO", fps_head(measured), "Plan, MB"]
    order = sorted(reported["parameters_m"].unique(), reverse=True)
    cells = []
    for one in measured:
        tracker, row = tracker_of(one.variant), one.row()
        theirs: Mapping[str, Any] = {}
        if tracker.training == FROZEN:
            size = order[sorted(SHARES_LOOK, reverse=True).index(tracker.share)]
            match = reported[
                (reported["parameters_m"] == size)
                & (reported["precision"] == one.variant.precision)
                & ((reported["framework"] == "PyTorch") == (one.variant.framework == "pytorch"))
            ]
            theirs = match.to_dict("records")[0]
        said = {
            name: f"thesis {theirs[name]:.{1 if name == 'fps' else 3}f}" if theirs else ""
            for name in (*QUALITY, "fps")
        }
        cells.append(
            [
                tracker.title,
                one.variant.title,
                *((*as_value(row, name, 3), said[name]) for name in QUALITY),
                (as_number(one.fps_tracked, 1), said["fps"]),
                as_number(row["plan_mb"] or None, 1),
            ]
        )
    return Table(
        heads,
        cells,
        f"{caption} {SCHEME} {INTERVALS}{about_plans([one.row() for one in measured])}",
    )


@needs_all
@styled
def speed_quality(measured: Seq[Measurement], reported: pd.DataFrame, note: str) -> Figure:
    """Figure 4.10: EAO against speed for every share and precision, here and in the thesis."""
    figure, axes = new_figure(6.4, [1, 1])
    looks = dict(zip(sorted(reported["parameters_m"].unique(), reverse=True), SHARES_LOOK.values()))
    for one in measured:
        tracker, baseline = tracker_of(one.variant), one.variant.framework == "pytorch"
        colour = _colour(tracker)
        axes[0].plot(
            [one.fps_tracked],
            [one.evaluation.eao],
            ls="",
            color=colour,
            marker="D" if baseline else MARKS[one.variant.precision],
            markerfacecolor="white" if baseline else colour,
        )
    for row in reported.to_dict("records"):
        baseline = row["framework"] == "PyTorch"
        colour = looks[row["parameters_m"]]
        axes[1].plot(
            [row["fps"]],
            [row["eao"]],
            ls="",
            color=colour,
            marker="D" if baseline else MARKS[row["precision"]],
            markerfacecolor="white" if baseline else colour,
        )
    for share, colour in SHARES_LOOK.items():
        axes[0].plot([], [], ls="", marker="o", color=colour, label=f"{share:g}")
    for training, colour in TRAINING_LOOK.items():
        if any(tracker_of(one.variant).training == training for one in measured):
            axes[0].plot([], [], ls="", marker="o", color=colour, label=training)
    for precision in COLOURS:
        axes[1].plot([], [], ls="", marker=MARKS[precision], color=GREY, label=precision)
    axes[1].plot(
        [], [], ls="", marker="D", color=GREY, markerfacecolor="white", label="PyTorch FP32"
    )
    axes[0].set(
        title="Here", ylabel="EAO", ylim=(0, None), xlim=(0, None), xlabel=fps_head(measured)
    )
    axes[1].set(
        title="Thesis, Xavier, VOT2018",
        ylabel="EAO",
        ylim=(0, None),
        xlim=(0, None),
        xlabel="frames per second",
    )
    for axis in axes:
        axis.set_ylim(0, 1.05 * axis.get_ylim()[1])
    (colours, shares), (marks, engines) = (axis.get_legend_handles_labels() for axis in axes)
    rows = max(len(SHARES_LOOK), len(marks))
    blank = -len(colours) % rows  # so that the marks begin a column
    figure.legend(
        [*colours, *axes[0].plot([], [], ls="") * blank, *marks],
        [*shares, *[""] * blank, *engines],
        ncols=3,
        loc="outside upper left",
        title="colour: share, training; mark: engine",
    )
    return finished(figure, note)


@needs_all
def relations(
    measured: Seq[Measurement], shipped: Measurement, reported: pd.DataFrame, baseline: float
) -> Table:
    """EAO of pruned trackers as a share of others': in the thesis, here with frozen backbones, and
    trained the better way. shipped: the tracker that the channels were taken out of, whose backbone
    was trained for tracking. baseline: the thesis's EAO in table 4.1."""
    theirs = reported[reported["framework"] == "PyTorch"].sort_values("parameters_m")["eao"]
    small, large = float(theirs.iloc[0]), float(theirs.iloc[-1])
    whole = (
        (large, ("unpruned, frozen", f"{large:.3f}, table 4.5")),
        (baseline, ("baseline", f"{baseline:.3f}, table 4.1")),
    )
    cells: list[Seq[Any]] = [
        [
            ("thesis, smallest", "PyTorch FP32, VOT2018"),
            f"{small:.3f}",
            beside,
            f"{small / eao:.2f}",
            ABSENT,
        ]
        for eao, beside in whole
    ]
    plain = _in_fp32(measured)
    for tracker, one in plain.items():
        others = [("unpruned, frozen", plain[Tracker(UNPRUNED)])]
        if tracker.training != FROZEN:
            others += [
                ("demo tracker", shipped),
                *(
                    (f"{same.title}, {FROZEN}", plain[same])
                    for same in [Tracker(tracker.share)]
                    if same in plain
                ),
            ]
        if tracker.share != UNPRUNED:
            cells += [
                [
                    f"{tracker.share:g}, {tracker.training}",
                    _with_interval(one),
                    (name, *_with_interval(other)),
                    f"{one.evaluation.eao / other.evaluation.eao:.2f}",
                    eao_difference(one, other),
                ]
                for name, other in others
            ]
    return Table(
        ["Pruned tracker", "Its EAO", "Beside", "Ratio", "Difference"],
        cells,
        "EAO in FP32 of pruned trackers beside the unpruned one with a frozen backbone, beside the demo tracker, whose "
        "backbone was trained for tracking, and beside the one with the same channels and a frozen backbone. The "
        "thesis's unpruned tracker was trained again as its pruned ones were, its baseline was not. Difference: on the "
        "same sequences, with its 95 % interval (paired bootstrap). * where that leaves out 0; without *, these "
        f"{len(shipped.evaluation.sequences)} sequences cannot tell the two apart.",
    )


def _in_fp32(measured: Seq[Measurement]) -> dict[Tracker, Measurement]:
    """Each tracker's measurement in FP32, PyTorch's where there is one, in the order given."""
    fp32 = [one for one in measured if one.variant.precision == "FP32"]
    plain = {tracker_of(one.variant): one for one in fp32}
    return {
        **plain,
        **{tracker_of(one.variant): one for one in fp32 if one.variant.framework == "pytorch"},
    }


@needs_all
def quality_finding(measured: Seq[Measurement], shipped: Measurement) -> Text:
    """What the paired intervals bear out of where quality goes: with the channels, or with what the
    weights were trained for. shipped: as in `relations`."""
    plain = _in_fp32(measured)
    frozen = {tracker.share: one for tracker, one in plain.items() if tracker.training == FROZEN}
    ours = [
        (tracker, one)
        for tracker, one in plain.items()
        if tracker.training in (DISTILLED, RECALIBRATED)
    ]
    fewer = [
        _compared(f"{share:g}", one, frozen[UNPRUNED])
        for share, one in frozen.items()
        if share != UNPRUNED
    ]
    weights = [
        _compared(tracker.title, one, frozen[tracker.share])
        for tracker, one in ours
        if tracker.share in frozen
    ]
    channels = [_compared(tracker.title, one, shipped) for tracker, one in ours]
    groups = (
        ("Fewer channels, frozen backbone, beside the unpruned one", fewer),
        ("Same channels, weights of the trained tracker, beside a frozen backbone", weights),
        ("Fewer channels, weights of the trained tracker, beside the demo tracker", channels),
    )
    lines = [f"- {what}: {'; '.join(text for text, _ in found)}" for what, found in groups if found]
    trained = [
        sign for (_, sign), (tracker, _) in zip(channels, ours) if tracker.training == DISTILLED
    ]
    shows = {True: "show", False: "do not show"}
    by_weights = shows[any(sign for _, sign in weights)]
    by_channels = shows[any(sign < 0 for sign in [*trained, *(sign for _, sign in fewer)])]
    closing = (
        f"So these {len(shipped.evaluation.sequences)} sequences {by_weights} that EAO depends on what the weights were "
        f"trained for, and they {by_channels} that fewer channels cost EAO where the rest is trained again."
    )
    return Text(
        "\n".join(
            ["Differences of EAO with their 95 % intervals, in FP32:", "", *lines, "", closing]
        )
        + _about_boxes(plain)
    )


def _compared(name: str, one: Measurement, other: Measurement) -> tuple[str, int]:
    """The difference of EAO in words, and 1 where it is higher, -1 where it is lower, 0 where the
    interval holds 0."""
    value, low, high = paired_bootstrap(one.evaluation, other.evaluation)["eao"]
    sign = 0 if not leaves_out_0(low, high) else 1 if low > 0 else -1
    shown = difference(value, low, high)
    text = " ".join(shown).replace(" *", "") if isinstance(shown, tuple) else shown
    return f"{name}: {text}, {('undecided', 'higher', 'lower')[sign]}", sign


def _about_boxes(plain: Mapping[Tracker, Measurement]) -> str:
    """Why a tracker that was only cut fails seldom though its accuracy is low, where its boxes show
    it."""
    base, text = plain[Tracker(UNPRUNED)], ""
    for tracker, one in plain.items():
        if tracker.training == CUT and one.evaluation.robustness < base.evaluation.robustness:
            larger, usual = _areas(one), _areas(base)
            if one.evaluation.accuracy < base.evaluation.accuracy and larger > 2 * usual:
                text += (
                    f" The boxes of *{tracker.title}* have {larger:.1f} times the annotated area (median of the tracked "
                    f"frames; the unpruned tracker's {usual:.1f} times), and a box that large seldom loses all overlap: few "
                    "failures in spite of a low accuracy."
                )
    return text


def _areas(one: Measurement) -> float:
    """Median over the tracked frames: area of the box, of that annotated."""
    pairs = [
        (entry, axis_aligned_box(region))
        for sequence in one.dataset
        for entry, region in zip(one.trajectories[sequence.name].entries, sequence.regions)
        if len(entry) == 4
    ]
    return (
        float(np.median([entry[2] * entry[3] / (box[2] * box[3]) for entry, box in pairs]))
        if pairs
        else float("nan")
    )


def _with_interval(one: Measurement) -> tuple[str, str]:
    low, high = bootstrap(one.evaluation)["eao"]
    return f"{one.evaluation.eao:.3f}", f"{low:.3f}–{high:.3f}"


@shows_what_is_there
def full_size(speed: EngineSpeed, caption: str) -> Table:
    """Speed, latency and plan size of the full-size networks, whole and pruned."""
    heads = [
        "Backbone",
        "Engine",
        "Frame, ms",
        "FPS",
        "Search, ms",
        "Plan, MB",
        "× PyTorch FP32",
        "× whole network",
    ]
    cells = [
        [
            _size_name(row),
            f"{row['framework']} {row['precision']}",
            (f"{row['frame_ms']:.1f}", f"{row['frame_ms_low']:.1f}–{row['frame_ms_high']:.1f}"),
            f"{row['fps']:.1f}",
            f"{row['search_ms']:.1f}",
            as_number(row["plan_mb"] or None, 1),
            (f"{row['ratio']:.1f}", f"{row['ratio_low']:.1f}–{row['ratio_high']:.1f}"),
            (
                f"{row['whole_ratio']:.2f}",
                f"{row['whole_ratio_low']:.2f}–{row['whole_ratio_high']:.2f}",
            ),
        ]
        for row in speed.compared
    ]
    missing = f" Missing here: {'; '.join(speed.missing)}." if speed.missing else ""
    return Table(
        heads,
        cells,
        f"{caption} {ROUNDS} Under a frame's time: its quartiles; under a ratio: the "
        "smallest and the largest of the rounds. × PyTorch FP32: beside the whole network; × whole network: with the "
        f"same engine. {APART}{about_plans(speed.compared)}{missing}",
    )


def _size_name(row: Mapping[str, Any]) -> str:
    multiple = f" (multiples of {row['multiple']})" if row["multiple"] > 1 else ""
    return f"{row['parameters'] / 1e6:.1f} M{multiple}"


@needs_all
def full_size_finding(speed: EngineSpeed, reported: pd.DataFrame, aim: float) -> Text:
    """Whether the smallest backbone makes an INT8 engine `aim` times as fast as the whole
    network's, this book's own aim, with the channel counts of the scores and in multiples; and with
    which engines multiples pay."""
    compared = speed.compared
    smallest = [
        min(row["parameters"] for row in compared if row["multiple"] == multiple)
        for multiple in {row["multiple"] for row in compared}
    ]
    rows = [row for row in compared if row["parameters"] in smallest]
    int8 = [row for row in rows if row["precision"] == "INT8"]
    if not int8:
        return Text("No INT8 engine could be timed here.")
    theirs = reported[reported["precision"] == "INT8"].sort_values("parameters_m")["fps"].tolist()
    verdicts = []
    for row in int8:
        low, high = row["whole_ratio_low"], row["whole_ratio_high"]
        verdict = (
            "reached in every round"
            if low >= aim
            else "missed in every round"
            if high < aim
            else ("reached in some rounds and missed in others")
        )
        verdicts.append(
            f"{_size_name(row)}: {row['whole_ratio']:.2f} times ({low:.2f}–{high:.2f}), {verdict}"
        )
    return Text(
        f"This book aims at an INT8 engine that pruning makes {aim:g} times as fast as the whole network's; in the "
        f"thesis it is {theirs[0] / theirs[-1]:.2f} times ({theirs[0]:.1f} and {theirs[-1]:.1f} FPS, table 4.5). Here: "
        f"{'; '.join(verdicts)}. Crop, decoding and the unpruned neck and heads are part of both."
        f"{_about_multiples(rows)}"
    )


def _about_multiples(rows: Seq[Mapping[str, Any]]) -> str:
    """With which engines channels in multiples are faster in every round. rows: of the smallest
    networks, with and without."""
    pairs = [
        (row, other)
        for row in rows
        for other in rows
        if row["multiple"] == 1 < other["multiple"]
        and (row["framework"], row["precision"]) == (other["framework"], other["precision"])
    ]
    if not pairs:
        return ""
    faster, rest = [], []
    for row, other in pairs:
        name, (before, after) = (
            f"{row['framework']} {row['precision']}",
            (each["whole_ratio"] for each in (row, other)),
        )
        if other["whole_ratio_low"] > row["whole_ratio_high"]:
            faster.append(
                f"{name} ({after:.2f} times the whole network's speed in place of {before:.2f})"
            )
        else:
            rest.append(name)
    text = (
        " A processor computes in vectors, and one that channels do not fill costs as much as a full one; CURL counts "
        f"parameters alone. With channels in multiples of {pairs[0][1]['multiple']} "
    )
    if not faster:
        return f"{text}no engine is faster in every round."
    more = f"; with {' and '.join(rest)} no gain can be told" if rest else ""
    return f"{text}the network is faster in every round with {' and with '.join(faster)}{more}."
