"""Sections 3.1 to 3.3: the network's parts, crops step by step (figures 3.2 and 3.3), where a
tracker expects its target (figure 3.1), machines, test data, and what resets do to the speed.

Shapes, parameters and operations are read from a network as it runs, speeds from the times in raw
results.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable, Mapping, NamedTuple
from typing import Sequence as Seq

import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure
from torch import Tensor, nn

from lib import thesis
from lib.chapters.plots import (
    BLUE,
    GREEN,
    LYING,
    ORANGE,
    SKY,
    STYLE,
    WIDTH,
    YELLOW,
    by,
    draw_arrow,
    draw_box,
    finished,
    needs_frames,
    new_figure,
    new_sheet,
    plt,
    styled,
)
from lib.chapters.tables import ABSENT, Table, Text, as_number, needs_all
from lib.errors import InputError
from lib.files import ROOT, digest, write_text
from lib.measure.measurement import Measurement
from lib.siamrpn.anchors import STRIDE
from lib.siamrpn.checkpoint import load_network
from lib.siamrpn.crop import (
    CONTEXT,
    EXEMPLAR_SIZE,
    SEARCH_SIZE,
    as_input,
    context_side,
    subwindow,
    training_crop,
    training_window,
)
from lib.siamrpn.network import NetworkConfig, SiamRPN
from lib.siamrpn.tracker import target_probability
from lib.training.loop import load_config
from lib.vot.dataset import TAGS, Dataset, Sequence, axis_aligned_box
from lib.vot.protocol import FAILURE, INIT, SKIPPED, Protocol, Trajectory
from lib.zoo import FOLDER

SHIFTS = (0, 16, 32)  # of figure 3.1, pixels of a 255 search crop
SHIFT_RECIPE = "data/recipes/shift.yaml"
SHIFT_POSITIONS = FOLDER / "shift" / "positions.csv"  # and beside it the logs of the trainings
FULL_POSITIONS = 25  # side of the response map of a 255 search crop
LEVELS = (2, 3, 4)  # stages of the backbone that lead to a region proposal network
CENTRE = 2  # positions on each side of the middle one that count as the centre: 5 by 5 of 25 by 25
# Search crops that a network answers, and how far from their centre the target may lie, pixels
CROPS, REACH = 64, 64


# -- Section 3.1: the network ----------------------------------------------------------------------


class Block(NamedTuple):
    """A part of the network. shapes: of its output for an exemplar and for a search crop (either
    may be empty); gflop: of its convolutions in each, two operations a multiplication with
    addition."""

    name: str
    parameters: int
    shapes: tuple[tuple[int, ...], tuple[int, ...]]
    gflop: tuple[float, float]


def blocks(config: NetworkConfig) -> list[Block]:
    """The network's parts in the order in which a crop runs through them, counted while the network
    runs without numbers (on PyTorch's meta device). Batch normalisation counts with its two trained
    numbers a channel and takes no operations."""
    network = SiamRPN(config).eval().to("meta")
    head, body = network.rpn_head.branches(), network.backbone
    parts: dict[str, list[nn.Module]] = {
        "Conv1, max pooling": [body.conv1, body.bn1, body.maxpool],
        **{f"Conv{stage + 1}": [getattr(body, f"layer{stage}")] for stage in (1, 2, 3, 4)},
        "neck: 1×1 convolutions": [getattr(network.neck, f"downsample{level}") for level in LEVELS],
        "kernel convolutions": [branch.conv_kernel for branch in head],
        "map convolutions": [branch.conv_search for branch in head],
        "heads": [branch.head for branch in head],
    }
    seen: dict[str, dict[str, Any]] = {name: {"shape": (), "flop": 0.0} for name in parts}

    def watch(name: str, modules: Seq[nn.Module]) -> list[Any]:
        def shape(_: nn.Module, __: Any, output: Tensor) -> None:
            seen[name]["shape"] = tuple(output.shape)

        def count(layer: nn.Module, _: Any, output: Tensor) -> None:
            assert isinstance(layer, nn.Conv2d)
            seen[name]["flop"] += 2.0 * layer.weight[0].numel() * output.numel()

        layers = [
            layer
            for module in modules
            for layer in module.modules()
            if isinstance(layer, nn.Conv2d)
        ]
        return [
            *(module.register_forward_hook(shape) for module in modules),
            *(layer.register_forward_hook(count) for layer in layers),
        ]

    hooks = [hook for name, modules in parts.items() for hook in watch(name, modules)]
    passes = []
    with torch.inference_mode():
        kernels = network.template(torch.zeros(1, 3, EXEMPLAR_SIZE, EXEMPLAR_SIZE, device="meta"))
        passes.append({name: dict(what) for name, what in seen.items()})
        for what in seen.values():
            what.update(shape=(), flop=0.0)
        maps = network.search(torch.zeros(1, 3, SEARCH_SIZE, SEARCH_SIZE, device="meta"))
        side = maps[0].shape[-1] - kernels[0].shape[-1] + 1
        # The correlation itself has no layer, and none of its numbers are needed
        for branch in head:
            branch.head(torch.zeros(1, config.rpn, side, side, device="meta"))
        passes.append(seen)
    for hook in hooks:
        hook.remove()
    found = [
        Block(
            name,
            sum(parameter.numel() for module in modules for parameter in module.parameters()),
            (passes[0][name]["shape"], passes[1][name]["shape"]),
            (passes[0][name]["flop"] / 1e9, passes[1][name]["flop"] / 1e9),
        )
        for name, modules in parts.items()
    ]
    flop = 2.0 * len(head) * config.rpn * side**2 * kernels[0].shape[-1] ** 2
    outputs = ((), (1, 6 * config.anchors, side, side))  # scores and offsets of one level
    correlation = Block(
        "depthwise correlation", 0, ((), (1, config.rpn, side, side)), (0.0, flop / 1e9)
    )
    weights = network.rpn_head.cls_weight.numel() + network.rpn_head.loc_weight.numel()
    return [
        *found[:-1],
        correlation,
        found[-1]._replace(shapes=outputs),
        Block("weighted sum of levels", weights, outputs, (0.0, 0.0)),
    ]


def network_table(config: NetworkConfig, caption: str) -> Table:
    """A row a part: output shapes (channels x rows x columns) for the two crops, parameters and
    GFLOP; and their sums."""
    parts = blocks(config)
    names = {
        f"Conv{stage + 1}": (
            f"stage {stage}, layer{stage}",
            f"level {stage}" if stage in LEVELS else "",
        )
        for stage in (1, 2, 3, 4)
    }
    heads = [
        "Part",
        "Output, exemplar",
        "Output, search crop",
        "Parameters, M",
        "GFLOP, exemplar",
        "GFLOP, search crop",
    ]
    rows = [
        [
            (part.name, *names.get(part.name, ())),
            *(by(shape[1:]) if shape else ABSENT for shape in part.shapes),
            f"{part.parameters / 1e6:.3f}",
            *(f"{value:.2f}" if value else ABSENT for value in part.gflop),
        ]
        for part in parts
    ]
    total = [
        "all",
        "",
        "",
        f"{sum(part.parameters for part in parts) / 1e6:.3f}",
        *(f"{sum(part.gflop[which] for part in parts):.2f}" for which in (0, 1)),
    ]
    under = "A shape is that of one output: there are three levels behind the backbone and six branches behind the neck."
    return Table(heads, [*rows, total], f"{caption} {under}")


def network_finding(config: NetworkConfig) -> Text:
    """What the thesis says of the network in numbers, beside the same counted here."""
    parts = {block.name: block for block in blocks(config)}
    backbone = [block for name, block in parts.items() if name.startswith("Conv")]
    side = parts["Conv5"].shapes[0][-1]
    said = {row["id"]: row["number"] for row in thesis.rows("claims")}
    millions, stride = sum(block.parameters for block in backbone) / 1e6, thesis.counts()["stride"]
    neck = parts["neck: 1×1 convolutions"].shapes[0]
    facts = (
        (f"{millions:.3f} M parameters in the backbone", f"{said['parameters']} M"),
        (f"an exemplar's feature of {side}×{side}", said["exemplar_feature"]),
        (f"cropped to {neck[-1]}×{neck[-1]}", said["exemplar_crop"]),
        (f"{neck[1]} channels in each RPN", said["neck_channels"]),
        (f"an effective stride of {stride:g} px", said["stride"]),
    )
    return Text(
        "Counted, and in the thesis: "
        + ", ".join(f"{here} ({there})" for here, there in facts)
        + "."
    )


@styled
def architecture(config: NetworkConfig, note: str) -> Figure:
    """Figure 3.2: both branches, the three levels and their sum, with the shapes of this network's
    features."""
    parts = {block.name: block for block in blocks(config)}
    figure, axis = new_sheet("SiamRPN++", 6.6)
    columns = {"exemplar": (2.3, 0), "search crop": (7.7, 1)}
    stages = [
        ("Conv1, max pooling", "Conv1"),
        *((f"Conv{number}", f"Conv{number}") for number in (2, 3, 4, 5)),
    ]
    for name, (x, which) in columns.items():
        size = (EXEMPLAR_SIZE, SEARCH_SIZE)[which]
        draw_box(axis, (x, 10.75), (3.6, 0.95), name, f"3×{size}×{size}")
        for row, (part, short) in enumerate(stages):
            y = 9.45 - 1.13 * row
            draw_box(axis, (x, y), (3.6, 0.95), short, by(parts[part].shapes[which][1:]), SKY)
            draw_arrow(axis, (x, y + 0.65), (x, y + 0.475))
    axis.text(5, 7.19, "same\nweights", ha="center", va="center", fontsize=9)
    for row, level in enumerate(("Conv3", "Conv4", "Conv5")):
        y, start = 3.65 - 0.95 * row, 9.45 - 1.13 * (row + 2)
        draw_box(
            axis,
            (5, y),
            (7.2, 0.8),
            f"RPN on {level}",
            "neck, convolutions, depthwise correlation",
            YELLOW,
        )
        for edge, rail, end in ((0.5, 0.06 + 0.16 * row, 1.4), (9.5, 9.94 - 0.16 * row, 8.6)):
            axis.plot([edge, rail, rail], [start, start, y], color="black", lw=1)
            draw_arrow(axis, (rail, y), (end, y))
    side = parts["heads"].shapes[1][-1]
    draw_box(
        axis,
        (5, 0.6),
        (7.2, 0.85),
        "weighted sum",
        f"scores {2 * config.anchors}×{side}×{side}, boxes {4 * config.anchors}×{side}×{side}",
    )
    draw_arrow(axis, (5, 1.35), (5, 1.03))
    return finished(figure, note)


# -- Section 3.1.1: crops --------------------------------------------------------------------------


@dataclass(frozen=True)
class Crops:
    """What becomes of one annotated frame, step by step. box: x1 y1 x2 y2 of the target. context:
    pixels that are added to its width and height. side: of the exemplar's square window, frame
    pixels. windows: x1 y1 x2 y2 of both. exemplar, search: the crops, (127, 127, 3) and (255, 255,
    3) uint8. apart: mean difference, in grey levels, to the crops that the tracker cuts."""

    sequence: Sequence
    number: int
    box: np.ndarray
    context: float
    side: float
    windows: tuple[np.ndarray, np.ndarray]
    exemplar: np.ndarray
    search: np.ndarray
    apart: tuple[float, float]


def crops(sequence: Sequence, number: int = 0) -> Crops:
    """The steps of section 3.1.1 on a frame (number from 0), by the affine transformation that
    makes training pictures."""
    frame, (x, y, width, height) = (
        sequence.frame(number),
        axis_aligned_box(sequence.regions[number]),
    )
    box = np.array([x, y, x + width, y + height])
    fill, side = frame.mean(axis=(0, 1)), context_side(width, height)
    exemplar, search = (
        training_crop(frame, box, size, fill) for size in (EXEMPLAR_SIZE, SEARCH_SIZE)
    )
    center = np.array([x + (width - 1) / 2, y + (height - 1) / 2])
    tracked = (
        subwindow(frame, center, round(side * scale), size, fill)
        for size, scale in ((EXEMPLAR_SIZE, 1.0), (SEARCH_SIZE, SEARCH_SIZE / EXEMPLAR_SIZE))
    )
    apart = [
        float(np.abs(mine.astype(float) - theirs).mean())
        for mine, theirs in zip((exemplar, search), tracked)
    ]
    return Crops(
        sequence,
        number,
        box,
        CONTEXT * (width + height),
        side,
        (training_window(box, EXEMPLAR_SIZE), training_window(box, SEARCH_SIZE)),
        exemplar,
        search,
        (apart[0], apart[1]),
    )


@needs_frames
def crop_figure(sequences: Seq[Sequence], note: str) -> Figure:
    """Figure 3.3: the first frame of every sequence with box and windows, its exemplar crop and its
    search crop."""
    with plt.rc_context(STYLE):  # type: ignore[arg-type]
        figure, axes = plt.subplots(
            len(sequences),
            3,
            figsize=(WIDTH, 1.75 * len(sequences) + 0.8),
            layout="constrained",
            squeeze=False,
            gridspec_kw={"width_ratios": [1.35, 1, 1]},
        )
        for row, found in zip(axes, map(crops, sequences)):
            row[0].imshow(found.sequence.frame(found.number)[..., ::-1])
            outlines = (found.box, *found.windows)
            for (x1, y1, x2, y2), color in zip(outlines, (YELLOW, ORANGE, SKY)):
                for width, shade in ((3.2, "black"), (1.8, color)):
                    row[0].plot([x1, x2, x2, x1, x1], [y1, y1, y2, y2, y1], color=shade, lw=width)
            corners = np.array(outlines)
            row[0].set(
                xlim=(
                    min(-0.5, corners[:, 0].min() - 6),
                    max(found.sequence.width, corners[:, 2].max() + 6),
                ),
                ylim=(
                    max(found.sequence.height, corners[:, 3].max() + 6),
                    min(-0.5, corners[:, 1].min() - 6),
                ),
            )
            for axis, crop in zip(row[1:], (found.exemplar, found.search)):
                axis.imshow(crop[..., ::-1])
            heads = (
                f"{found.sequence.name}, frame {found.number + 1}",
                *(
                    f"{name}, {len(crop)} px"
                    for name, crop in (("exemplar", found.exemplar), ("search", found.search))
                ),
            )
            for axis, head in zip(row, heads):
                axis.set_title(head, fontsize=9)
                axis.set_axis_off()
        lines = [plt.Line2D([], [], color=color, lw=2) for color in (YELLOW, ORANGE, SKY)]
        figure.legend(
            lines,
            ["target", "exemplar window", "search window"],
            loc="outside upper left",
            ncols=3,
            fontsize=8,
            columnspacing=1,
            handlelength=1.4,
        )
        return finished(figure, note)


@needs_frames  # type: ignore[type-var]  # which is for figures, and does the same for a table
def crop_table(sequences: Seq[Sequence], caption: str) -> Table:
    """The steps of section 3.1.1 in numbers, a column a sequence."""
    found = [crops(sequence) for sequence in sequences]

    def row(step: str, text: Callable[[Crops], str]) -> list[str]:
        return [step, *map(text, found)]

    def size(crop: Crops) -> np.ndarray:
        return crop.box[2:] - crop.box[:2]

    rows = [
        row(
            "1. box: centre, px",
            lambda crop: "({:.1f}, {:.1f})".format(*(crop.box[:2] + size(crop) / 2)),
        ),
        row("1. box: width × height, px", lambda crop: "{:.1f} × {:.1f}".format(*size(crop))),
        row(
            f"2. with context {CONTEXT:g} (w + h), px",
            lambda crop: "{:.1f} × {:.1f}".format(*(size(crop) + crop.context)),
        ),
        row("3. square exemplar window, side, px", lambda crop: f"{crop.side:.1f}"),
        row(
            f"3. search window, side × {SEARCH_SIZE}/{EXEMPLAR_SIZE}, px",
            lambda crop: f"{crop.windows[1][2] - crop.windows[1][0]:.1f}",
        ),
        row("4. scale, crop px per frame px", lambda crop: f"{EXEMPLAR_SIZE / crop.side:.3f}"),
        row(
            "target in the search crop, px",
            lambda crop: "{:.0f} × {:.0f}".format(*(size(crop) * EXEMPLAR_SIZE / crop.side)),
        ),
        row(
            "exemplar window outside the frame",
            lambda crop: f"{100 * outside(crop.windows[0], crop.sequence):.0f} %",
        ),
        row(
            "search window outside the frame",
            lambda crop: f"{100 * outside(crop.windows[1], crop.sequence):.0f} %",
        ),
        row(
            "to the tracker's own crops: exemplar, search, mean grey levels",
            lambda crop: "{:.1f}, {:.1f}".format(*crop.apart),
        ),
    ]
    return Table(["Step", *(crop.sequence.name for crop in found)], rows, caption)


def inside_and_beyond(dataset: Dataset) -> list[Sequence]:
    """The sequence whose first search window lies most inside of the frame, and the one where it
    lies most outside."""

    def beyond(sequence: Sequence) -> float:
        x, y, width, height = axis_aligned_box(sequence.regions[0])
        return outside(
            training_window(np.array([x, y, x + width, y + height]), SEARCH_SIZE), sequence
        )

    ordered = sorted(dataset, key=beyond)
    return [ordered[0], ordered[-1]][: len(ordered)]


def outside(window: np.ndarray, sequence: Sequence) -> float:
    """Share (0..1) of a window x1 y1 x2 y2 that lies outside of the frame and is filled with its
    mean colour."""
    low, high = np.maximum(window[:2], 0), np.minimum(window[2:], [sequence.width, sequence.height])
    return float(1 - np.prod(np.maximum(high - low, 0)) / np.prod(window[2:] - window[:2]))


# -- Figure 3.1 ------------------------------------------------------------------------------------


def shift_weights(folder: Path = ROOT / "train") -> dict[int, Path]:
    """Where the three trainings of figure 3.1 leave their weights, by shift in pixels."""
    return {shift: folder / f"shift-{shift}" / "weights.pth" for shift in SHIFTS}


def shift_commands() -> Text:
    """What makes the weights of figure 3.1, and what is there of them."""
    lacking = [shift for shift, path in shift_weights().items() if not path.is_file()]
    if not lacking:
        return Text("All three weights of figure 3.1 are there.")
    lines = "\n".join(
        f"    siambook train {SHIFT_RECIPE} --shift {shift} --out train/shift-{shift}"
        for shift in lacking
    )
    return Text(
        f"Figure 3.1 needs three small trackers that differ in one number of their training, and {len(lacking)} of them "
        f"{'is' if len(lacking) == 1 else 'are'} not on this machine. The trainings, from the root of the repository:\n\n"
        f"{lines}"
    )


def position_maps(
    network: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]],
    dataset: Dataset,
    pairs: int = CROPS,
    reach: int = REACH,
    seed: int = 0,
) -> np.ndarray:
    """Where a network sees its target in each of many crops: (pairs, 25, 25), rows from top to
    bottom, probabilities.

    As figure 3.1 (Li et al. 2019, figure 2): search crops in which the target lies anywhere within
    `reach` pixels of the centre, every place equally likely; of each the target probability of the
    best anchor at every position. pairs: crops, spread over the dataset's sequences; exemplar and
    crop are cut from the same frame, so that only the place differs. network: exemplar and search
    crop to scores and offsets, e.g. a SiamRPN in evaluation mode. The same seed makes the same
    crops for every network.
    """
    rng = np.random.RandomState(seed)
    found = np.zeros((pairs, FULL_POSITIONS, FULL_POSITIONS))
    for index in range(pairs):
        sequence = dataset.sequences[index % len(dataset.sequences)]
        number = rng.randint(len(sequence))
        while not np.isfinite(sequence.regions[number]).all():
            number = rng.randint(len(sequence))
        x, y, width, height = axis_aligned_box(sequence.regions[number])
        frame, side = sequence.frame(number), context_side(width, height)
        center, fill = (
            np.array([x + (width - 1) / 2, y + (height - 1) / 2]),
            frame.mean(axis=(0, 1)),
        )
        moved = center - rng.uniform(-reach, reach, 2) * side / EXEMPLAR_SIZE
        exemplar = subwindow(frame, center, round(side), EXEMPLAR_SIZE, fill)
        search = subwindow(
            frame, moved, round(side * SEARCH_SIZE / EXEMPLAR_SIZE), SEARCH_SIZE, fill
        )
        with torch.inference_mode():
            cls, _ = network(
                torch.from_numpy(as_input(exemplar)), torch.from_numpy(as_input(search))
            )
        found[index] = (
            target_probability(cls.numpy()).reshape(-1, FULL_POSITIONS, FULL_POSITIONS).max(0)
        )
    return found


def distribution(answers: np.ndarray) -> np.ndarray:
    """The mean of `position_maps`, scaled to sum to 1: (25, 25). A network without a bias answers
    with the places' own distribution, which is even. A single map (25, 25) is scaled alone."""
    total = answers.reshape(-1, *answers.shape[-2:]).sum(0)
    return total / total.sum()


def inner_share(answers: np.ndarray, half: int = CENTRE) -> float:
    """Share (0..1) of a distribution, or of that of many maps, in its central (2 half + 1) squared
    positions."""
    found, middle = distribution(answers), answers.shape[-1] // 2
    return float(found[middle - half : middle + half + 1, middle - half : middle + half + 1].sum())


def share_interval(
    answers: np.ndarray, n: int = 2000, seed: int = 0, level: float = 0.95
) -> tuple[float, float] | None:
    """Percentile interval of `inner_share` over crops (pairs, 25, 25) drawn with replacement; None
    of a distribution alone."""
    if answers.ndim < 3:
        return None
    middle, count = answers.shape[-1] // 2, len(answers)
    inner = answers[
        :, middle - CENTRE : middle + CENTRE + 1, middle - CENTRE : middle + CENTRE + 1
    ].sum((1, 2))
    drawn = np.random.RandomState(seed).multinomial(count, np.full(count, 1 / count), n)
    low, high = np.percentile(
        drawn @ inner / (drawn @ answers.sum((1, 2))), [50 * (1 - level), 50 * (1 + level)]
    )
    return float(low), float(high)


def even_share(reach: int = REACH) -> float:
    """Share (0..1) of targets, lying evenly within `reach` pixels of the centre, whose nearest
    position is in the centre."""
    return min(1.0, ((2 * CENTRE + 1) * STRIDE / (2 * reach)) ** 2)


@styled
def positions(found: Mapping[int, np.ndarray], reach: int, note: str) -> Figure:
    """Figure 3.1: target position probabilities, a panel a shift, all in one scale. found:
    `position_maps`, or a distribution, by shift in pixels."""
    maps = {shift: distribution(answers) for shift, answers in found.items()}
    size = (WIDTH, 3.7) if len(maps) == 1 else (WIDTH + 0.9, 2.75)
    figure, axes = plt.subplots(
        1, len(maps), figsize=size, layout="constrained", sharey=True, squeeze=False
    )
    highest = max(float(one.max()) for one in maps.values())
    edge = STRIDE * FULL_POSITIONS / 2  # pixels of the search crop
    for axis, (shift, one) in zip(axes[0], maps.items()):
        shown = axis.imshow(
            1000 * one,
            cmap="cividis",
            vmin=0,
            vmax=1000 * highest,
            extent=(-edge, edge, edge, -edge),
        )
        axis.plot(
            [-reach, reach, reach, -reach, -reach],
            [-reach, -reach, reach, reach, -reach],
            color="white",
            ls="--",
            lw=1,
        )
        axis.set_title(f"shift {shift}\ncentre: {100 * inner_share(one):.1f} %", fontsize=10)
        axis.grid(False)
        axis.set_xlabel("px")
    axes[0][0].set_ylabel("px from the centre")
    figure.colorbar(shown, ax=axes, label="probability, ‰", location="right", shrink=0.8)
    return finished(figure, note)


def record_positions(dataset: Dataset, path: Path, pairs: int = CROPS, reach: int = REACH) -> None:
    """Write what the three trained networks answer, so that figure 3.1 can be drawn where their
    weights are not."""
    files = shift_weights()
    named = ", ".join(f"{shift}: {digest(file.read_bytes())}" for shift, file in files.items())
    head = (
        f"# Target position probabilities of figure 3.1 (methodology.record_positions), {SHIFT_RECIPE}\n"
        f"# source: weights {named}; {pairs} search crops of {dataset.name}, targets within {reach} px\n"
        "# units: shift in pixels, row and column of the response map, probability (sums to 1 for a shift)\n"
    )
    rows = [
        (shift, row, column, value)
        for shift, file in files.items()
        for (row, column), value in np.ndenumerate(
            distribution(position_maps(load_network(file), dataset, pairs, reach))
        )
    ]
    frame = pd.DataFrame(rows, columns=["shift", "row", "column", "probability"])
    write_text(path, head + frame.to_csv(index=False, float_format="%.6g"))


def recorded_positions(path: Path) -> dict[int, np.ndarray]:
    """What `record_positions` wrote: shift -> (25, 25). Raises InputError where the file is not
    such a one."""
    try:
        frame = pd.read_csv(path, comment="#")
        found = {
            int(str(shift)): group.pivot(
                index="row", columns="column", values="probability"
            ).to_numpy(float)
            for shift, group in frame.groupby("shift")
        }
    except (OSError, ValueError, KeyError) as error:
        raise InputError(f"{path}: not readable position probabilities ({error})") from None
    if any(
        one.shape != (FULL_POSITIONS, FULL_POSITIONS) or not np.isclose(one.sum(), 1, atol=1e-3)
        for one in found.values()
    ):
        raise InputError(
            f"{path}: not position probabilities of {FULL_POSITIONS} by {FULL_POSITIONS} places"
        )
    return found


def crops_seen(answers: np.ndarray) -> int:
    """How many crops a share is of: of recorded distributions, what their file says."""
    if answers.ndim > 2:
        return len(answers)
    said = (
        re.search(r"(\d+) search crops", SHIFT_POSITIONS.read_text(encoding="utf-8"))
        if SHIFT_POSITIONS.is_file()
        else None
    )
    return int(said.group(1)) if said else CROPS


def shift_positions(
    dataset: Dataset, pairs: int = CROPS, reach: int = REACH
) -> dict[int, np.ndarray]:
    """What the three trainings answer, by shift: `position_maps` of their weights where they were
    made on this machine, else the distributions that were recorded; empty where neither is
    there."""
    files = shift_weights()
    if all(path.is_file() for path in files.values()):
        return {
            shift: position_maps(load_network(path), dataset, pairs, reach)
            for shift, path in files.items()
        }
    return recorded_positions(SHIFT_POSITIONS) if SHIFT_POSITIONS.is_file() else {}


def about_positions() -> Text:
    """What the measure of figure 3.1 is taken over, what its centre is, and what a network without
    any preference gives it."""
    side = 2 * CENTRE + 1
    return Text(
        f"A network answers {CROPS} crops, every network the same ones, with targets up to {REACH} pixels from the "
        f"middle, every place alike. The *centre* is the inner {side}×{side} of the {FULL_POSITIONS}×{FULL_POSITIONS} "
        f"positions, which lie {STRIDE} pixels apart; one of these is the nearest to {100 * even_share():.1f} % of such "
        "targets."
    )


def positions_note(found: Mapping[int, np.ndarray], reach: int = REACH) -> str:
    """How many crops maps of positions are of, and what no preference would give the centre."""
    [crops], side = {crops_seen(answers) for answers in found.values()}, 2 * CENTRE + 1
    return (
        f"{crops} search crops, targets evenly within the dashed square, which gives the centre's {side}×{side} positions "
        f"{100 * even_share(reach):.1f} %."
    )


def figure_3_1(found: Mapping[int, np.ndarray], note: str, reach: int = REACH) -> Figure | Text:
    """Figure 3.1 of `shift_positions`; the commands that make the trainings where there is nothing
    to show."""
    return (
        positions(found, reach, f"{note} {positions_note(found, reach)}")
        if found
        else shift_commands()
    )


def training_finding() -> Text:
    """How long, and from what, the three networks of figure 3.1 were trained, from their recipe."""
    recipe = load_config(ROOT / SHIFT_RECIPE)
    pairs = sum(phase.pairs for phase in recipe.phases)
    return Text(
        f"With each of the three shifts the demo tracker went on learning for {pairs:,} pairs (`{SHIFT_RECIPE}`)."
    )


def shift_finding(found: Mapping[int, np.ndarray]) -> Text:
    """What the centre's share says of the shifts that networks were trained with, and how far so
    many crops can tell. found: shift -> `position_maps`, or a distribution."""
    shares = {shift: inner_share(answers) for shift, answers in sorted(found.items())}
    counts = {shift: crops_seen(answers) for shift, answers in found.items()}
    listed = []
    for shift, share in shares.items():
        interval = share_interval(found[shift])
        listed.append(
            f"{100 * share:.1f} %"
            + (f" ({100 * interval[0]:.1f}–{100 * interval[1]:.1f} %)" if interval else "")
            + f" with shifts up to {shift}"
        )
    text, values = f"The centre gets {', '.join(listed)}", list(shares.values())
    if len(values) > 1:
        falling = all(one > other for one, other in zip(values, values[1:]))
        text += (
            ": the smaller the shift in training, the more, as in the thesis"
            if falling
            else ". These do not follow the thesis's order from shift to shift"
        )
    variances = {shift: share * (1 - share) / counts[shift] for shift, share in shares.items()}
    errors = [100 * variance**0.5 for variance in variances.values()]
    drawn = any(answers.ndim > 2 for answers in found.values())
    brackets = "In brackets: 95 % intervals over the crops (bootstrap). " if drawn else ""
    many = " and ".join(str(count) for count in sorted(set(counts.values())))
    spread = f"{min(errors):.1f}" if len(errors) < 2 else f"{min(errors):.1f} to {max(errors):.1f}"
    text += (
        f". {brackets}"
        f"A share of {many} crops has a standard error of about {spread} points (binomial), "
    )
    apart = [
        f"{one} and {other}"
        for one in shares
        for other in shares
        if one < other
        and abs(shares[one] - shares[other]) > 2 * (variances[one] + variances[other]) ** 0.5
    ]
    if len(values) > 1:
        text += (
            "so differences of a few points are within what so few crops can tell: "
            + (f"only shifts {', '.join(apart)} differ" if apart else "no two shifts differ")
            + " by more than twice the standard error of the difference. "
            "Whether longer training would show the bias of the thesis's figure more clearly was not tried."
        )
    else:
        text += "so a few points more or less say nothing."
    return Text(text)


# -- Section 3.2 -----------------------------------------------------------------------------------


def hardware_table(record: Mapping[str, Any], sensor: str, caption: str) -> Table:
    """This machine (a record of `environment.record`) beside the thesis's
    (data/thesis/hardware.csv). sensor: of power, or why there is none."""
    machine, versions = record["hardware"], record["versions"]
    here = {
        "used for": "the measured values of this book",
        "processor": f"{machine['processor']}, cores: {machine['cores']}",
        "GPU": machine["gpu"] or "none that PyTorch uses",
        "memory": f"{as_number(record['memory_gib'], 1)} GiB",
        "power mode": machine.get("power_mode") or "none (not a Jetson)",
        "power sensor": sensor,
        "system": record["system"],
        "CUDA": versions.get("cuda"),
        "TensorRT": versions.get("tensorrt"),
        "TensorRT-RTX": versions.get("tensorrt-rtx-cu13-bindings"),
        "PyTorch": versions["torch"],
        "OpenVINO": versions.get("openvino"),
        "ONNX Runtime": versions.get("onnxruntime"),
    }
    theirs = thesis.table("hardware")
    names = list(dict.fromkeys(theirs["machine"]))
    printed = {(row["machine"], row["part"]): row["value"] for row in theirs.to_dict("records")}
    rows = [
        [part, value or "not installed", *(printed.get((name, part), ABSENT) for name in names)]
        for part, value in here.items()
    ]
    under = "TensorRT-RTX is another product than TensorRT, with versions of its own."
    return Table(
        ["", f"This machine, {record['date']}", *(f"Thesis: {name}" for name in names)],
        rows,
        f"{caption} {under}",
    )


def power_modes() -> Text:
    """The power modes that the thesis names for its board, which are two lists (from its audit)."""
    [found] = [finding for finding in thesis.audit() if finding.id == "lowest_power_mode_again"]
    return Text(found.sentence)


# -- Section 3.3.2 ---------------------------------------------------------------------------------


def dataset_table(datasets: Mapping[str, Dataset], caption: str) -> Table:
    """A row a dataset, counted in its annotations, below what the thesis says of VOT2018:
    sequences, frames, lengths, and the share of frames and of sequences with each visual
    attribute."""
    heads = ["Dataset", "Frames", *(tag.replace("_", " ").capitalize() for tag in TAGS)]
    rows: list[list[Any]] = [
        [
            ("VOT2018, thesis", f"{thesis.VOT2018_SEQUENCES} sequences"),
            f"{thesis.VOT2018_FRAMES:,}",
            *[ABSENT] * len(TAGS),
        ]
    ]
    for name, dataset in datasets.items():
        lengths = [len(sequence) for sequence in dataset]
        cells = []
        for tag in TAGS:
            flags = [sequence.tags[tag] for sequence in dataset]
            cells.append(
                (
                    f"{100 * np.concatenate(flags).mean():.0f} %",
                    f"in {sum(bool(each.any()) for each in flags)}",
                )
            )
        spread = f"{min(lengths)}, {np.median(lengths):g}, {max(lengths)} frames"
        rows.append(
            [(f"{name}, counted", f"{len(dataset)} sequences", spread), f"{sum(lengths):,}", *cells]
        )
    under = (
        "Under a counted dataset: frames of the shortest, the median and the longest sequence. Under an attribute: the "
        "share of frames that carry it, and in how many sequences."
    )
    return Table(heads, rows, f"{caption} {under}")


@styled
def lengths(datasets: Mapping[str, Dataset], note: str) -> Figure:
    """Lengths of the sequences, a row of marks and a box a dataset."""
    figure, axis = new_figure(0.8 + 0.75 * len(datasets))
    for row, dataset in enumerate(datasets.values()):
        counted = [len(sequence) for sequence in dataset]
        axis.boxplot(
            [counted],
            positions=[row],
            **LYING,
            widths=0.4,
            showfliers=False,
            medianprops={"color": ORANGE, "lw": 2},
        )
        axis.plot(counted, np.full(len(counted), row + 0.33), "|", color=BLUE, ms=9)
    axis.set_yticks(range(len(datasets)), list(datasets))
    axis.set(
        xlim=(0, None),
        xlabel="frames of a sequence",
        title="Lengths of the sequences",
        ylim=(-0.5, len(datasets) - 0.3),
    )
    return finished(figure, note)


def about_vot2018(folder: str | None) -> Text:
    """Where the row of VOT2018 was counted, or how to have it counted."""
    if folder:
        return Text(f"VOT2018 is counted in the annotations in `{folder}`.")
    return Text(
        "VOT2018's annotations were not given, so its row has only what the thesis says. Given a folder with "
        "`VOT2018.json` (annotations in PySOT's format), lengths and attributes are counted: "
        "`papermill notebooks/03_3_evaluation.ipynb out.ipynb --cwd notebooks -p vot2018_results FOLDER`."
    )


# -- Section 3.3.3 ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class Times:
    """What the times of raw results consist of. tracked, initialised: seconds of single track and
    init calls, (T,) and (I,). skipped: frames after a failure that take no time. restarts:
    initialisations after a failure. failures: lost targets."""

    tracked: np.ndarray
    initialised: np.ndarray
    skipped: int
    restarts: int
    failures: int

    @property
    def fps_scheme(self) -> float:
        """As PySOT counts: all frames but the first of each sequence, over the time of all
        calls."""
        frames = len(self.tracked) + self.skipped + self.restarts
        return frames / float(self.tracked.sum() + self.initialised.sum())

    @property
    def fps_tracked(self) -> float:
        return len(self.tracked) / float(self.tracked.sum())


def times(trajectories: Mapping[str, Trajectory]) -> Times:
    """The times of raw results by what was done."""
    codes, seconds, restart = (
        np.concatenate(parts)
        for parts in zip(
            *(
                (each.codes, each.seconds, np.arange(len(each.codes)) > 0)
                for each in trajectories.values()
            )
        )
    )
    return Times(
        seconds[(codes == -1) | (codes == FAILURE)],
        seconds[codes == INIT],
        int((codes == SKIPPED).sum()),
        int((restart & (codes == INIT)).sum()),
        int((codes == FAILURE).sum()),
    )


def distortion(failures: float, protocol: Protocol, init: float, track: float) -> float:
    """How much faster PySOT's scheme makes a tracker look, as a share of its speed, by failures per
    frame (0..1).

    A failure replaces `skip` tracked frames by skip - 1 that take no time and an initialisation.
    init, track: seconds of a call.
    """
    return 1 / (1 - protocol.skip * failures + failures * init / track) - 1


@needs_all
def latency_table(measured: Seq[Measurement], caption: str) -> Table:
    """A row a tracker: what the frames were that PySOT's scheme counts, seconds of single calls,
    and both speeds."""
    heads = [
        "Tracker",
        "Frames counted",
        "Track call, ms",
        "Init call, ms",
        "FPS, PySOT's scheme",
        "FPS, tracked frames",
    ]
    rows = []
    for one in measured:
        found = times(one.trajectories)
        low, middle, high = np.percentile(1000 * found.tracked, [5, 50, 95])
        rows.append(
            [
                (one.variant.title, f"{found.failures} failures"),
                (
                    f"{len(found.tracked) + found.skipped + found.restarts:,}",
                    f"{len(found.tracked):,} tracked",
                    f"{found.skipped} skipped, no time",
                    f"{found.restarts} restarts",
                ),
                (f"{middle:.1f}", f"{low:.1f}–{high:.1f}" if low < high else "for every call"),
                f"{1000 * np.median(found.initialised):.1f}",
                (
                    f"{found.fps_scheme:.2f}",
                    f"({100 * (found.fps_scheme / found.fps_tracked - 1):+.1f} %)",
                ),
                f"{found.fps_tracked:.2f}",
            ]
        )
    return Table(
        heads,
        rows,
        f"{caption} Calls: the median; under a track call: 90 % of the calls lie between, where they were "
        "timed one by one. Under the FPS of PySOT's scheme: how much more they are than those over "
        "tracked frames.",
    )


@needs_all
@styled
def reset_figure(one: Measurement, protocol: Protocol, note: str) -> Figure:
    """How much faster the scheme makes a tracker look, by failures: computed from this run's median
    calls, and by sequence."""
    found = times(one.trajectories)
    init, track = float(np.median(found.initialised)), float(np.median(found.tracked))
    spans = {name: times({name: trajectory}) for name, trajectory in one.trajectories.items()}
    rates = [
        100 * part.failures / (len(part.tracked) + part.skipped + part.restarts)
        for part in spans.values()
    ]
    shown = [100 * (part.fps_scheme / part.fps_tracked - 1) for part in spans.values()]
    figure, axis = new_figure(3.2)
    grid = np.linspace(0, max(1.2, 1.1 * max(rates)), 60)
    axis.plot(
        grid,
        [100 * distortion(rate / 100, protocol, init, track) for rate in grid],
        color=BLUE,
        label="restarts alone, median calls",
    )
    axis.plot(
        rates,
        shown,
        ls="",
        marker="o",
        color=GREEN,
        alpha=0.7,
        label="sequences, first start included",
    )
    low, high = thesis_robustness()
    axis.axvspan(low, high, color=ORANGE, alpha=0.2, lw=0, label="the thesis's trackers")
    axis.axhline(0, color="black", lw=0.8)
    axis.set(
        xlabel="failures per 100 frames",
        ylabel="faster by the scheme, %",
        title="What failures add to the speed",
    )
    figure.legend(loc="outside upper left", fontsize=9)
    return finished(figure, note)


def thesis_robustness() -> tuple[float, float]:
    """Lowest and highest robustness (failures per 100 frames) of the thesis's trackers, tables 4.1
    to 4.5."""
    tables = [thesis.table(f"table_4_{number}") for number in (1, 2, 3, 5)]
    values = [
        float(value)
        for table in tables
        for value in table.loc[table["row"] == "thesis", "robustness"]
    ]
    return min(values), max(values)


@needs_all
def reset_finding(one: Measurement, protocol: Protocol) -> Text:
    """What resets did to this run's speed, and what they can have done to the thesis's."""
    found = times(one.trajectories)
    share, ratio = (
        found.skipped / max(found.failures, 1),
        float(np.median(found.initialised) / np.median(found.tracked)),
    )
    free, same = (
        [100 * distortion(rate / 100, protocol, init, 1.0) for rate in thesis_robustness()]
        for init in (0.0, 1.0)
    )
    low, high = thesis_robustness()
    gain = 100 * (found.fps_scheme / found.fps_tracked - 1)
    return Text(
        f"By PySOT's scheme {found.fps_scheme:.1f} FPS, over tracked frames alone {found.fps_tracked:.1f}: {gain:+.1f} %. After "
        f"each of the {found.failures} failures {share:.1f} frames took no time, and a start took {ratio:.2f} times as long as a "
        "tracked frame. The first start of each sequence is in the time and not in the frames. The thesis's trackers fail "
        f"{low:g} to {high:g} times in 100 frames: if a start takes as long as a tracked frame, restarts make them look "
        f"{same[0]:.1f} to {same[1]:.1f} % faster, and {free[0]:.1f} to {free[1]:.1f} % if it took no time."
    )
