"""Chapter 2 as code: equations 2.1 to 2.8 in NumPy as the thesis writes them, and figures 2.1 to
2.14 of what they compute.

Views and pure functions. The equations share no code with PyTorch, so that `agreement` compares two
implementations. What a figure shows is computed from what it is given: arrays, frames of a dataset,
and the network of the page.
"""

from __future__ import annotations

from typing import Dict, List, Mapping, NamedTuple, Optional, Tuple, Union
from typing import Sequence as Seq

import numpy as np
import torch
from matplotlib import patheffects
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import ConnectionPatch, Rectangle
from torch import Tensor, nn

from lib.chapters.plots import (
    BLUE,
    GREEN,
    GREY,
    NAMES,
    ORANGE,
    SKY,
    WIDTH,
    YELLOW,
    by,
    draw_arrow,
    draw_box,
    draw_outline,
    finished,
    legend_of_boxes,
    new_figure,
    plt,
    show_frame,
    styled,
)
from lib.chapters.tables import Text
from lib.errors import InputError
from lib.siamrpn.anchors import STRIDE, anchor_grid, corners, iou
from lib.siamrpn.crop import EXEMPLAR_SIZE, SEARCH_SIZE, as_input, context_side, subwindow
from lib.siamrpn.network import Bottleneck, DepthwiseXCorr, SiamRPN
from lib.siamrpn.parts import BRANCHES
from lib.siamrpn.tracker import decode, target_probability
from lib.vot.dataset import Dataset, Sequence, axis_aligned_box, polygon_corners

LEVEL = 3  # of the neck: the middle one of three, for pictures that show one
# Overlaps from which an anchor is positive, or up to which it is negative (section 2.1.4)
POSITIVE, NEGATIVE = 0.7, 0.3
CHALLENGES = {
    "occlusion": "(a) occlusion",
    "size_change": "(b) rotation, scale",
    "illumination_change": "(c) illumination",
}
AWAY = (4, 6)  # strides that the target of a shown pair of frames has gone between them
PAIR_FRAMES = 30  # after the first, in which such a pair is looked for
Example = Union[np.ndarray, Tensor]

# -- Equations -------------------------------------------------------------------------------------


def equation_2_1(x: np.ndarray, kernel: np.ndarray) -> np.ndarray:
    """Equation 2.1, term by term: a 3x3 feature map and a 2x2 kernel to a 2x2 feature map."""
    (x1, x2, x3), (x4, x5, x6), (x7, x8, x9) = x
    (a, b), (c, d) = kernel
    return np.array(
        [
            [x1 * a + x2 * b + x4 * c + x5 * d, x2 * a + x3 * b + x5 * c + x6 * d],
            [x4 * a + x5 * b + x7 * c + x8 * d, x5 * a + x6 * b + x8 * c + x9 * d],
        ]
    )


def output_side(side: int, kernel: int, padding: int, stride: int) -> int:
    """(W - F + 2P) / S + 1 of section 2.1.1, cut to a whole number, as PyTorch does where the
    kernel does not come out even."""
    return (side - kernel + 2 * padding) // stride + 1


def mean_squared_error(y: np.ndarray, expected: np.ndarray) -> float:
    """Equation 2.2, first line."""
    return float(((y - expected) ** 2).mean())


def binary_cross_entropy(y: np.ndarray, p: np.ndarray) -> float:
    """Equation 2.2, second line: y is 0 or 1, p the probability of 1."""
    return float(-(y * np.log(p) + (1 - y) * np.log(1 - p)).mean())


def residual(
    x: np.ndarray, first: np.ndarray, second: np.ndarray, projection: Optional[np.ndarray] = None
) -> np.ndarray:
    """Equation 2.3, or 2.4 with a projection: W2 relu(W1 x) + x, or + Ws x. x: (N,). Weights:
    (outputs, inputs)."""
    return second @ np.maximum(first @ x, 0) + (x if projection is None else projection @ x)


def correlation(z: np.ndarray, x: np.ndarray, b: float = 0.0) -> np.ndarray:
    """Equation 2.5 on features: z (C, h, w) slides over x (C, H, W), products are summed over all
    channels, and b is added everywhere: (H - h + 1, W - w + 1)."""
    windows = np.lib.stride_tricks.sliding_window_view(x, z.shape)[0]
    return np.einsum("ijchw,chw->ij", windows, z) + b


def region_outputs(z: np.ndarray, x: np.ndarray, branch: DepthwiseXCorr) -> np.ndarray:
    """Equation 2.6 as SiamRPN++ computes it: every channel of x (C, H, W) with its own kernel of z
    (C, h, w), then the branch's 1x1 convolutions to 2k or 4k channels: (2k or 4k, H - h + 1, W - w
    + 1)."""
    weight = {
        name: value.detach().double().numpy() for name, value in branch.head.state_dict().items()
    }
    # (C, 25, 25)
    y = np.stack([correlation(z[c : c + 1], x[c : c + 1]) for c in range(len(z))])
    y = np.einsum("oc,chw->ohw", weight["0.weight"][:, :, 0, 0], y)
    mean, variance = weight["1.running_mean"], weight["1.running_var"]
    y = (y - mean[:, None, None]) / np.sqrt(variance[:, None, None] + branch.head[1].eps)
    y = np.maximum(y * weight["1.weight"][:, None, None] + weight["1.bias"][:, None, None], 0)
    return (
        np.einsum("oc,chw->ohw", weight["3.weight"][:, :, 0, 0], y)
        + weight["3.bias"][:, None, None]
    )


def batch_normalised(
    x: np.ndarray, gamma: np.ndarray, beta: np.ndarray, epsilon: float = 1e-5
) -> np.ndarray:
    """Equation 2.7: x (B, C, H, W) by mean and variance of each channel over the mini-batch, then
    scale and shift (C,)."""
    mean, variance = x.mean((0, 2, 3), keepdims=True), x.var((0, 2, 3), keepdims=True)
    return gamma[:, None, None] * (x - mean) / np.sqrt(variance + epsilon) + beta[:, None, None]


def divergence(p: np.ndarray, q: np.ndarray) -> float:
    """Equation 2.8: KL divergence in nats of probabilities (..., n), a mean over the leading
    axes."""
    return float((p * np.log(p / q)).sum(-1).mean())


def agreement(
    name: str, here: Union[float, Example], there: Union[float, Example], tolerance: float = 1e-5
) -> Text:
    """How far two computations of the same thing are apart, as a share of the largest value. Raises
    ArithmeticError where that is more than `tolerance` or the shapes differ."""
    one, two = (
        np.asarray(value.detach() if isinstance(value, Tensor) else value, float)
        for value in (here, there)
    )
    if one.shape != two.shape:
        raise ArithmeticError(f"{name}: shape {one.shape} here and {two.shape} in PyTorch")
    apart = float(np.abs(one - two).max() / max(float(np.abs(two).max()), 1e-30))
    if not apart <= tolerance:
        raise ArithmeticError(
            f"{name}: {apart:.1e} apart from PyTorch, where {tolerance:.0e} is allowed"
        )
    values = f"{one.size:,} values" if one.size > 1 else "the one value"
    return Text(
        f"{name}: NumPy and PyTorch agree in {values}; the largest difference is {apart:.1g} of the largest value."
    )


# -- A real pair of frames -------------------------------------------------------------------------


class Pair(NamedTuple):
    """Two frames of a sequence as a tracker sees them that found the target in the first: exemplar
    (127, 127, 3) and search crop (255, 255, 3), uint8 BGR; box: the second annotation, x1 y1 x2 y2
    in pixels of the search crop."""

    sequence: Sequence
    first: int
    second: int
    exemplar: np.ndarray
    search: np.ndarray
    box: np.ndarray

    @property
    def note(self) -> str:
        return f"Sequence {self.sequence.name}, frames {self.first + 1} and {self.second + 1}"


def choose_pair(dataset: Dataset) -> Pair:
    """The first sequence whose uncovered target gets AWAY strides from its first place, and the
    first frame where it has; else the frame with the farthest target of all. The crops need the
    frames' files (`Sequence.frame`)."""
    ways = []
    for sequence in dataset:
        centre, side = _place(sequence, 0)
        for index in range(1, min(PAIR_FRAMES, len(sequence) - 1) + 1):
            strides = (
                float(np.linalg.norm(_place(sequence, index)[0] - centre))
                * EXEMPLAR_SIZE
                / side
                / STRIDE
            )
            if AWAY[0] <= strides <= AWAY[1] and not sequence.tags["occlusion"][index]:
                return _pair(sequence, index)
            if strides <= AWAY[1]:
                ways.append((strides, sequence, index))
    if not ways:
        raise InputError(
            f"dataset {dataset.name}: no two frames of a sequence show the same target near one place"
        )
    return _pair(*max(ways, key=lambda way: way[0])[1:])


def _place(sequence: Sequence, index: int) -> Tuple[np.ndarray, float]:
    """Centre of an annotation and the side of its exemplar window, in frame pixels."""
    box = axis_aligned_box(sequence.regions[index])
    return box[:2] + (box[2:] - 1) / 2, context_side(box[2], box[3])


def _pair(sequence: Sequence, index: int) -> Pair:
    first, second, (centre, side) = sequence.frame(0), sequence.frame(index), _place(sequence, 0)
    exemplar = subwindow(first, centre, round(side), EXEMPLAR_SIZE, first.mean((0, 1)))
    search = subwindow(
        second, centre, round(side * SEARCH_SIZE / EXEMPLAR_SIZE), SEARCH_SIZE, first.mean((0, 1))
    )
    box = axis_aligned_box(sequence.regions[index])
    ends = np.array([box[:2], box[:2] + box[2:] - 1])
    return Pair(
        sequence,
        0,
        index,
        exemplar,
        search,
        ((ends - centre) * EXEMPLAR_SIZE / side + SEARCH_SIZE // 2).ravel(),
    )


def features(network: SiamRPN, pair: Pair) -> Tuple[np.ndarray, np.ndarray]:
    """phi(z) (C, 7, 7) and phi(x) (C, 31, 31) of equation 2.5: what backbone and neck make of a
    pair at LEVEL."""
    with torch.inference_mode():
        z, x = (
            network.neck(network.backbone(torch.from_numpy(as_input(image))), crop)[LEVEL - 2][
                0
            ].numpy()
            for image, crop in ((pair.exemplar, True), (pair.search, False))
        )
    return z, x


def branch_features(
    network: SiamRPN, pair: Pair, name: str
) -> Tuple[np.ndarray, np.ndarray, DepthwiseXCorr]:
    """phi(z) (C, 5, 5) and phi(x) (C, 29, 29) of one branch of equation 2.6 ("cls" or "loc") at
    LEVEL, and the branch."""
    index = BRANCHES.index(f"{name}{LEVEL}")
    with torch.inference_mode():
        kernels, maps = (
            part(torch.from_numpy(as_input(crop)))
            for part, crop in ((network.template, pair.exemplar), (network.search, pair.search))
        )
    return kernels[index][0].numpy(), maps[index][0].numpy(), network.rpn_head.branches()[index]


def displacement(response: np.ndarray, stride: int = STRIDE) -> np.ndarray:
    """Where the largest value of a square response lies from its centre, times the stride: (2,) x,
    y in crop pixels."""
    row, column = np.unravel_index(int(response.argmax()), response.shape)
    return (np.array([column, row]) - response.shape[0] // 2) * stride


def displacement_text(response: np.ndarray, pair: Pair) -> Text:
    """What `displacement` finds beside the annotation."""
    x, y = displacement(response)
    real = (pair.box[:2] + pair.box[2:]) / 2 - SEARCH_SIZE // 2
    return Text(
        f"The largest response lies {x:+d}, {y:+d} pixels of the search crop from its centre; the annotation's centre "
        f"lies {real[0]:+.0f}, {real[1]:+.0f} pixels from it. A response is {STRIDE} pixels wide."
    )


# -- Section 2.1.1: parts of a network -------------------------------------------------------------


@styled
def fully_connected(x: np.ndarray, weights: Seq[np.ndarray], note: str) -> Figure:
    """Figure 2.1: a fully-connected network of sigmoid neurons with its values. x: (inputs,).
    weights: (outputs, inputs) a layer."""
    values = [x]
    for weight in weights:
        values.append(1 / (1 + np.exp(-weight @ values[-1])))
    figure, axis = _sheet(
        "Fully-connected network", 3.4, len(values) - 0.4, max(map(len, values)) + 0.1
    )
    places = [
        [(i + 0.3, (max(map(len, values)) - len(layer)) / 2 + j + 0.3) for j in range(len(layer))]
        for i, layer in enumerate(values)
    ]
    largest = max(float(np.abs(weight).max()) for weight in weights)
    for weight, starts, ends in zip(weights, places, places[1:]):
        for (row, column), value in np.ndenumerate(weight):
            axis.plot(
                *zip(starts[column], ends[row]),
                color=BLUE if value > 0 else ORANGE,
                zorder=1,
                lw=0.4 + 3 * abs(value) / largest,
            )
    for layer, spots in zip(values, places):
        for value, spot in zip(layer, spots):
            _neuron(axis, spot, f"{value:.2f}")
    for spots, name in zip((places[0], places[1], places[-1]), ("input", "hidden", "output")):
        axis.text(
            spots[0][0], axis.get_ylim()[1], f"{name} layer", ha="center", va="top", fontsize=10
        )
    axis.invert_yaxis()
    handles = [plt.Line2D([], [], color=color) for color in (BLUE, ORANGE)]
    figure.legend(handles, ["weight > 0", "weight < 0"], loc="outside upper left", ncols=2)
    return finished(figure, note)


@styled
def neuron(x: np.ndarray, w: np.ndarray, note: str) -> Figure:
    """Figure 2.2: inputs x (N,), weights w (N,), their products, the sum, and the sigmoid of it."""
    total = float(x @ w)
    figure, axis = _sheet("One neuron", 2.6, 5.6, len(x) - 0.2)
    middle = (len(x) - 1) / 2 + 0.3
    for i, (value, weight) in enumerate(zip(x, w)):
        axis.text(0, i + 0.3, f"$x_{i + 1}$ = {value:.2f}", va="center", fontsize=10)
        draw_arrow(axis, (1.15, i + 0.3), (2.65, middle + 0.2 * (i - (len(x) - 1) / 2)))
        axis.text(
            1.9,
            (i + 0.3 + middle) / 2 - 0.2,
            f"$w_{i + 1}$ = {weight:.2f}",
            ha="center",
            fontsize=9,
            color=BLUE,
            bbox={"fc": "white", "ec": "none", "pad": 0.5},
        )
    for spot, text, name in ((3.05, f"Σ\n{total:.2f}", ""), (4.2, r"$\sigma$", "")):
        _neuron(axis, (spot, middle), text + name, 38)
    draw_arrow(axis, (3.4, middle), (3.85, middle))
    draw_arrow(axis, (4.55, middle), (4.95, middle))
    axis.text(5, middle, f"{1 / (1 + np.exp(-total)):.2f}", va="center", fontsize=10)
    axis.invert_yaxis()
    return finished(figure, note)


@styled
def local_connections(
    frame: np.ndarray, kernel: np.ndarray, at: Tuple[int, int], note: str
) -> Figure:
    """Figure 2.3: a frame at 32x32 (H, W, 3 BGR, any size), the region that one neuron sees, and
    the neurons of one kernel (3, 3, 3) over all of it, with zero padding. at: row and column of the
    neuron that is pointed at."""
    import cv2

    small = cv2.resize(frame, (32, 32), interpolation=cv2.INTER_AREA)
    x = torch.from_numpy(as_input(small)) / 255
    y = nn.functional.conv2d(x, torch.from_numpy(kernel.astype(np.float32))[None], padding=1)[
        0, 0
    ].numpy()
    figure, axes = plt.subplots(1, 2, figsize=(WIDTH, 2.9), layout="constrained")
    axes[0].imshow(small[..., ::-1])
    axes[1].imshow(y, cmap="cividis")
    for axis, name, shape in ((axes[0], "input", x.shape[1:]), (axes[1], "neurons", (1, *y.shape))):
        axis.set_title(f"{name}\n{by(shape)}", fontsize=10)
        axis.set_axis_off()
    (row, column), side = at, kernel.shape[-1]
    for axis, size in ((axes[0], side), (axes[1], 1)):
        axis.add_patch(
            Rectangle((column - size / 2, row - size / 2), size, size, fill=False, ec="white", lw=3)
        )
        axis.add_patch(
            Rectangle(
                (column - size / 2, row - size / 2), size, size, fill=False, ec=ORANGE, lw=1.6
            )
        )
    for end in (-0.5, 0.5):
        line = ConnectionPatch(
            (column + side / 2, row + end * side),
            (column - 0.5, row + end),
            "data",
            "data",
            axesA=axes[0],
            axesB=axes[1],
            color=ORANGE,
            lw=1.2,
        )
        line.set_in_layout(False)
        axes[1].add_artist(line)
    return finished(figure, note)


def connections_text(side: int = 32, channels: int = 3, kernel: int = 3) -> Text:
    """Section 2.1.1's counts, from layers of PyTorch."""
    one = nn.Linear(side * side * channels, 1, bias=False).weight.numel()
    shared = nn.Conv2d(channels, 1, kernel, padding=kernel // 2, bias=False)
    neurons = shared(torch.zeros(1, channels, side, side)).numel()
    return Text(
        f"A neuron that sees the whole {by((side, side, channels))} image has {one:,} weights, and {neurons:,} of them "
        f"have {one * neurons:,}. A {kernel}×{kernel} kernel that all {neurons:,} share has {shared.weight.numel()}."
    )


@styled
def convolution(x: np.ndarray, kernels: np.ndarray, note: str) -> Figure:
    """Figure 2.4: n feature maps x (n, 3, 3), n kernels (n, 2, 2), and the n feature maps of
    equation 2.1, in numbers."""
    figure, axes = plt.subplots(
        len(x),
        3,
        figsize=(WIDTH, 1.75 * len(x) + 0.7),
        layout="constrained",
        squeeze=False,
        gridspec_kw={"width_ratios": [3, 2, 2]},
    )
    for row, (one, kernel) in zip(axes, zip(x, kernels)):
        parts = (
            (one, 2, "input $x$"),
            (kernel, 0, "kernel $a$ to $d$"),
            (equation_2_1(one, kernel), 1, "output $y$"),
        )
        for axis, (grid, marked, name) in zip(row, parts):
            colors = np.full(grid.shape, "#FFFFFF")
            colors[:marked, :marked] = YELLOW
            _grid_of_numbers(axis, grid, colors)
            axis.set_title(name, fontsize=10)
    return finished(figure, note)


def activations(slope: float = 0.1) -> Dict[str, nn.Module]:
    """Figure 2.5's four functions."""
    return {
        "sigmoid": nn.Sigmoid(),
        "hyperbolic tangent": nn.Tanh(),
        "ReLU": nn.ReLU(),
        f"leaky ReLU, a = {slope:g}": nn.LeakyReLU(slope),
    }


@styled
def activation_functions(functions: Mapping[str, nn.Module], note: str) -> Figure:
    """Figure 2.5: activation functions with their derivatives as PyTorch differentiates them."""
    figure, axes = plt.subplots(2, 2, figsize=(WIDTH, 4.4), layout="constrained", sharex=True)
    for letter, axis, (name, function) in zip("abcd", axes.ravel(), functions.items()):
        x = torch.linspace(-5, 5, 401, requires_grad=True)
        y = function(x)
        [slope] = torch.autograd.grad(y.sum(), x)
        axis.plot(x.detach(), y.detach(), color=BLUE, label="σ(x)")
        axis.plot(x.detach(), slope, color=ORANGE, ls="--", lw=1.4, label="dσ/dx")
        axis.set_title(f"({letter}) {name}", fontsize=10)
        axis.set(ylim=(-1.2, 1.2) if axis in axes[0] else (-1, 5))
    for axis in axes[1]:
        axis.set_xlabel("x")
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside upper left", ncols=2)
    return finished(figure, note)


@styled
def pooling(x: np.ndarray, note: str) -> Figure:
    """Figure 2.6: a 4x4 feature map, and 2x2 max and average pooling of it with a stride of 2."""
    values = torch.from_numpy(x.astype(np.float32))[None, None]
    figure, axes = plt.subplots(
        1, 3, figsize=(WIDTH, 2.5), layout="constrained", gridspec_kw={"width_ratios": [2, 1, 1]}
    )
    colours = np.array([["#CFE4F2", "#F6D5BF"], ["#BFE7DB", "#F8F3B8"]])
    _grid_of_numbers(axes[0], x, np.repeat(np.repeat(colours, 2, 0), 2, 1))
    for axis, layer, name in (
        (axes[1], nn.MaxPool2d(2), "max"),
        (axes[2], nn.AvgPool2d(2), "average"),
    ):
        _grid_of_numbers(axis, layer(values)[0, 0].numpy(), colours)
        axis.set_title(name, fontsize=10)
    axes[0].set_title("feature map", fontsize=10)
    return finished(figure, note)


# -- Section 2.1.3: depth --------------------------------------------------------------------------


class Deep(nn.Module):
    """A fully-connected network of `depth` layers, which names a class: plain, or with the
    shortcuts of equation 2.3."""

    def __init__(
        self, inputs: int, classes: int, depth: int, shortcuts: bool, width: int = 32
    ) -> None:
        super().__init__()

        def layer(before: int, *after: nn.Module) -> List[nn.Module]:
            return [nn.Linear(before, width, bias=False), nn.BatchNorm1d(width), *after]

        self.shortcuts = shortcuts
        self.stem = nn.Sequential(*layer(inputs, nn.ReLU()))
        self.blocks = nn.ModuleList(
            nn.Sequential(*layer(width, nn.ReLU()), *layer(width)) for _ in range((depth - 2) // 2)
        )
        self.head = nn.Linear(width, classes)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.kaiming_normal_(module.weight)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for block in self.blocks:
            x = torch.relu(block(x) + x if self.shortcuts else block(x))
        return self.head(x)


class Patches(NamedTuple):
    """x: (N, side * side) grey patches of zero mean, float32. y: (N,) which sequence they are from.
    names: of the sequences."""

    x: Tensor
    y: Tensor
    names: Tuple[str, ...]


def frame_patches(
    dataset: Dataset, right: bool, side: int = 8, each: int = 150, classes: int = 10
) -> Patches:
    """Patches of the left or right half of the first frame of each of the first sequences, at
    256x256."""
    import cv2

    random, chosen = np.random.RandomState(int(right)), list(dataset)[:classes]
    found = []
    for sequence in chosen:
        grey = cv2.resize(
            cv2.cvtColor(sequence.frame(0), cv2.COLOR_BGR2GRAY),
            (256, 256),
            interpolation=cv2.INTER_AREA,
        )
        half = grey[:, 128:] if right else grey[:, :128]
        for top, left in zip(
            random.randint(0, 257 - side, each), random.randint(0, 129 - side, each)
        ):
            patch = half[top : top + side, left : left + side].astype(np.float32).ravel()
            found.append((patch - patch.mean()) / (patch.std() + 5))
    return Patches(
        torch.from_numpy(np.array(found)),
        torch.arange(len(chosen)).repeat_interleave(each),
        tuple(sequence.name for sequence in chosen),
    )


class Learned(NamedTuple):
    """A trained network and its errors (0 to 1) on training and test patches after so many
    steps."""

    network: Deep
    steps: List[int]
    train: List[float]
    test: List[float]


def learn(
    train: Patches,
    test: Patches,
    depth: int,
    shortcuts: bool,
    steps: int = 240,
    batch: int = 128,
    every: int = 30,
) -> Learned:
    """Train a `Deep` network by SGD with momentum and cross-entropy; the same for the same
    arguments and PyTorch."""
    with torch.random.fork_rng():
        torch.manual_seed(1)
        network = Deep(train.x.shape[1], len(train.names), depth, shortcuts)
    optimizer = torch.optim.SGD(network.parameters(), 0.02, momentum=0.9, weight_decay=1e-4)
    generator = torch.Generator().manual_seed(0)
    learned = Learned(network, [], [], [])
    for step in range(steps + 1):
        if step % every == 0:
            network.eval()
            with torch.inference_mode():
                errors = [
                    float((network(part.x).argmax(1) != part.y).float().mean())
                    for part in (train, test)
                ]
            learned.steps.append(step)
            learned.train.append(errors[0])
            learned.test.append(errors[1])
            network.train()
        chosen = torch.randint(0, len(train.x), (batch,), generator=generator)
        loss = nn.functional.cross_entropy(network(train.x[chosen]), train.y[chosen])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    network.eval()
    return learned


@styled
def depth_errors(runs: Mapping[str, Learned], note: str) -> Figure:
    """Figure 2.7: training and test error over the steps of training, a line a network."""
    figure, axes = new_figure(4.4, [1, 1])
    for (name, run), color, mark in zip(runs.items(), (BLUE, ORANGE, GREEN), "o^s"):
        for axis, values in zip(axes, (run.train, run.test)):
            axis.plot(
                run.steps,
                [100 * value for value in values],
                color=color,
                marker=mark,
                ms=4,
                label=name,
            )
    for axis, name in zip(axes, ("Training error", "Test error")):
        axis.set(title=name, ylabel="error, %", ylim=(0, 100))
    axes[1].set_xlabel("step")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside upper left", ncols=2)
    return finished(figure, note)


def depth_text(runs: Mapping[str, Learned]) -> Text:
    """Errors at the end of training."""
    ends = [
        f"{name}: {100 * run.train[-1]:.0f} % and {100 * run.test[-1]:.0f} %"
        for name, run in runs.items()
    ]
    [classes] = {run.network.head.out_features for run in runs.values()}
    return Text(
        f"Training and test error at the end: {'; '.join(ends)}. Guessing one of {classes} classes errs in "
        f"{100 - 100 / classes:.0f} %."
    )


@styled
def residual_block(block: nn.Sequential, x: Tensor, note: str) -> Figure:
    """Figure 2.8: a residual block (linear, norm, ReLU, linear, norm) of a trained network, with
    sizes of F(x) and x in it. x: (B, N) what goes into the block."""
    with torch.inference_mode():
        x = x.detach()
        change = block(x)
    linear = [layer for layer in block if isinstance(layer, nn.Linear)]
    figure, axis = _sheet("Residual block", 3.7, 10, 8.6)
    _block_chain(
        axis,
        [
            (f"linear, {by(layer.weight.shape[::-1])}", f"{layer.weight.numel():,} weights")
            for layer in linear
        ],
        f"x, {linear[0].in_features} values",
        f"F(x) + x, {linear[-1].out_features} values",
    )
    axis.text(
        9.9,
        1.1,
        f"means: |x| = {float(x.norm(dim=1).mean()):.2f}\n|F(x)| = {float(change.norm(dim=1).mean()):.2f}",
        ha="right",
        va="center",
        fontsize=10,
    )
    return finished(figure, note)


@styled
def bottleneck(block: Bottleneck, x: Tensor, note: str) -> Figure:
    """Figure 2.9: a bottleneck of the network, with the shapes that x (1, C, H, W) takes in it."""
    chain, shapes = (block.conv1, block.conv2, block.conv3), []
    hooks = [
        conv.register_forward_hook(
            lambda module, inputs, output: shapes.append(tuple(output.shape[1:]))
        )
        for conv in chain
    ]
    with torch.inference_mode():
        y = block(x)
    for hook in hooks:
        hook.remove()
    figure, axis = _sheet("Bottleneck", 4.7, 10, 10.9)
    rows = [
        (
            f"{by(conv.kernel_size)} convolution, {conv.in_channels} → {conv.out_channels}",
            f"{conv.weight.numel():,} weights; out {by(shape)}",
        )
        for conv, shape in zip(chain, shapes)
    ]
    _block_chain(axis, rows, f"x, {by(x.shape[1:])}", f"F(x) + x, {by(y.shape[1:])}")
    return finished(figure, note)


def bottleneck_text(block: Bottleneck) -> Text:
    """What the bottleneck saves against two 3x3 convolutions on all of its channels."""
    channels, own = (
        block.conv3.out_channels,
        sum(conv.weight.numel() for conv in (block.conv1, block.conv2, block.conv3)),
    )
    plain = 2 * nn.Conv2d(channels, channels, 3, bias=False).weight.numel()
    return Text(
        f"Its three convolutions have {own:,} weights. Two 3×3 convolutions on {channels} channels "
        f"would have {plain:,}, {plain / own:.1f} times as many."
    )


def block_input(network: SiamRPN, pair: Pair) -> Tensor:
    """What the second bottleneck of the first stage gets of a pair's search crop: (1, C, H, W)."""
    backbone = network.backbone
    with torch.inference_mode():
        x = backbone.relu(backbone.bn1(backbone.conv1(torch.from_numpy(as_input(pair.search)))))
        return backbone.layer1[0](backbone.maxpool(x))


# -- Section 2.1.4: anchors ------------------------------------------------------------------------


class Anchors(NamedTuple):
    """boxes (k, S, S, 4) x1 y1 x2 y2 in crop pixels; overlap (k, S, S) with the annotation; best:
    index of the largest."""

    boxes: np.ndarray
    overlap: np.ndarray
    best: Tuple[int, int, int]

    @property
    def positive(self) -> np.ndarray:
        """(k, S, S): overlap above POSITIVE, and the best anchor whatever its overlap."""
        chosen = self.overlap > POSITIVE
        chosen[self.best] = True
        return chosen


def pair_anchors(network: SiamRPN, pair: Pair) -> Anchors:
    """All anchors of the network's answer to a pair, in the search crop."""
    with torch.inference_mode():
        cls, _ = network(
            torch.from_numpy(as_input(pair.exemplar)), torch.from_numpy(as_input(pair.search))
        )
    grid = anchor_grid(cls.shape[-1])
    grid[..., :2] += SEARCH_SIZE // 2
    boxes = corners(grid)
    overlap = iou(tuple(np.moveaxis(boxes, -1, 0)), tuple(pair.box))
    a, row, column = np.unravel_index(int(overlap.argmax()), overlap.shape)
    return Anchors(boxes, overlap, (int(a), int(row), int(column)))


@styled
def region_proposals(pair: Pair, anchors: Anchors, channels: int, note: str) -> Figure:
    """Figure 2.10: the positions of a region proposal network on a search crop, the k anchors at
    one, and its two layers."""
    count, side = anchors.boxes.shape[:2]
    figure, axes = plt.subplots(
        2, 1, figsize=(WIDTH, 6.9), layout="constrained", gridspec_kw={"height_ratios": [2.6, 1]}
    )
    _picture(axes[0], pair.search, f"search crop, {side}×{side} positions, k = {count}")
    middle = anchors.boxes[0].reshape(-1, 4)
    axes[0].plot(
        (middle[:, 0] + middle[:, 2]) / 2,
        (middle[:, 1] + middle[:, 3]) / 2,
        ls="",
        marker=".",
        ms=2.5,
        color="white",
    )
    _, row, column = anchors.best
    for number, box in enumerate(anchors.boxes[:, row, column]):
        color, line = (GREEN, "-") if number == anchors.best[0] else (SKY, "--")
        draw_outline(axes[0], _box_of(box), color, line)
    draw_outline(axes[0], _box_of(pair.box), YELLOW, "-")
    legend_of_boxes(
        figure, [("annotation", YELLOW, "-"), ("anchor", SKY, "--"), ("best anchor", GREEN, "-")]
    )
    axes[0].set(xlim=(-0.5, SEARCH_SIZE - 0.5), ylim=(SEARCH_SIZE - 0.5, -0.5))
    axes[1].set(xlim=(0, 10), ylim=(0, 4))
    axes[1].set_axis_off()
    draw_box(axes[1], (1.7, 2), (3.2, 1.6), "sliding window", f"{channels} channels", SKY)
    for y, name, factor in ((3.1, "cls layer", 2), (0.9, "reg layer", 4)):
        draw_arrow(axes[1], (3.3, 2), (4.7, y))
        draw_box(
            axes[1],
            (7.2, y),
            (5, 1.5),
            name,
            f"{factor}k = {factor * count} channels, {side}×{side}",
            YELLOW,
        )
    return finished(figure, note)


def anchors_text(anchors: Anchors) -> Text:
    """How many anchors of a crop would be positive, negative and left out in training, by section
    2.1.4's rule."""
    positive, negative = int(anchors.positive.sum()), int((anchors.overlap < NEGATIVE).sum())
    return Text(
        f"Of {anchors.overlap.size:,} anchors {positive} are positive (overlap above {POSITIVE:g}, or the largest, "
        f"{anchors.overlap.max():.2f}), {negative:,} negative (below {NEGATIVE:g}), and "
        f"{anchors.overlap.size - positive - negative:,} are not used."
    )


# -- Section 2.2: tracking -------------------------------------------------------------------------


class Challenge(NamedTuple):
    """One of figure 2.11's challenges: a sequence, a frame of it without, one with the challenge,
    and what is measured there."""

    title: str
    sequence: Sequence
    before: int
    after: int
    measured: str


class Found(NamedTuple):
    """How much of a challenge a frame (number from 0) has, by its own measure, and that in
    words."""

    value: float
    number: int
    measured: str


class Rival(NamedTuple):
    """The place in a sequence's first frame that is most like its target without touching it.
    score: normalised correlation, at most 1. box: x y w h of the place. scores: (H, W) of every
    place, NaN where the target would leave the frame."""

    sequence: Sequence
    score: float
    box: np.ndarray
    scores: np.ndarray


def challenges(dataset: Dataset) -> List[Challenge]:
    """Frames for figure 2.11 (a) to (c), found by the tags, each against the first frame: the frame
    of an occlusion that is least like the one before the occlusion, the largest turn together with
    a change of area, the largest change of brightness. What no frame is tagged with is left out."""
    found, measures = (
        [],
        {
            "occlusion": _hidden,
            "size_change": _turn_and_growth,
            "illumination_change": _light_change,
        },
    )
    for tag, title in CHALLENGES.items():
        tagged = {
            sequence.name: [
                index
                for index in np.flatnonzero(sequence.tags[tag]).tolist()
                if np.isfinite(sequence.regions[index]).all()
            ]
            for sequence in dataset
        }
        ranked: List[Tuple[Found, Sequence]] = [
            (measures[tag](sequence, np.array(tagged[sequence.name])), sequence)
            for sequence in dataset
            if tagged[sequence.name]
        ]
        if ranked:
            (_, number, measured), sequence = max(ranked, key=lambda item: item[0].value)
            found.append(Challenge(title, sequence, 0, number, measured))
    return found


def _spread(numbers: np.ndarray, count: int) -> List[int]:
    """Up to `count` of the numbers, evenly."""
    return [
        int(number)
        for number in numbers[np.unique(np.linspace(0, len(numbers) - 1, count).astype(int))]
    ]


def _hidden(sequence: Sequence, tagged: np.ndarray, looked_at: int = 12) -> Found:
    """The frame of the longest occlusion whose target is least like that of the frame before it
    (correlation of the pixels)."""
    runs = np.split(tagged, np.flatnonzero(np.diff(tagged) > 1) + 1)
    longest = max(runs, key=len)
    shown = target_pixels(sequence, max(int(longest[0]) - 1, 0))
    some = _spread(longest, looked_at)
    alike = np.array([np.corrcoef(shown, target_pixels(sequence, index))[0, 1] for index in some])
    alike = np.nan_to_num(alike, nan=1.0)  # of a target without any texture
    at = int(alike.argmin())
    return Found(
        -float(alike[at]),
        some[at],
        f"the target's pixels correlate by {alike[at]:.2f} with those before the occlusion",
    )


def target_pixels(sequence: Sequence, index: int, side: int = 48) -> np.ndarray:
    """The target of a frame, turned upright and scaled to one size: (side * side * 3,) grey
    levels."""
    import cv2

    square = np.array([(0, 0), (side, 0), (side, side), (0, side)], np.float32)
    seen = cv2.getPerspectiveTransform(
        polygon_corners(sequence.regions[index]).astype(np.float32), square
    )
    return cv2.warpPerspective(sequence.frame(index), seen, (side, side)).astype(float).ravel()


def _turn_and_growth(sequence: Sequence, tagged: np.ndarray) -> Found:
    """The frame whose annotation has turned and grown (or shrunk) most, by the product of both;
    where nothing turns, by the area. A turn is told by the outline alone, so it is at most 45
    degrees, whichever corner comes first."""
    # (1 + T, 4, 2)
    corners = np.array([polygon_corners(sequence.regions[index]) for index in (0, *tagged)])
    edge = corners[:, 1] - corners[:, 0]
    turn = np.degrees(np.arctan2(edge[:, 1], edge[:, 0]))
    turn = np.abs((turn[1:] - turn[0] + 45) % 90 - 45)
    area = np.array(
        [axis_aligned_box(sequence.regions[index])[2:].prod() for index in (0, *tagged)]
    )
    change = np.abs(np.log(area[1:] / area[0]))
    value = change * (turn + 1e-3)
    at = int(value.argmax())
    return Found(
        float(value[at]),
        int(tagged[at]),
        f"outline turned by {turn[at]:.0f}°, {area[1 + at] / area[0]:.1f} times the area",
    )


def _light_change(sequence: Sequence, tagged: np.ndarray, looked_at: int = 6) -> Found:
    some, before = _spread(tagged, looked_at), float(sequence.frame(0).mean())
    light = [float(sequence.frame(index).mean()) for index in some]
    at = int(np.argmax(np.abs(np.array(light) - before)))
    return Found(
        abs(light[at] - before),
        some[at],
        f"mean grey level {before:.0f} before, {light[at]:.0f} there",
    )


def find_rival(dataset: Dataset) -> Rival:
    """Figure 2.11 (d), for which VOT has no tag: the sequence whose first frame has the best
    `look_alike`."""
    return max((look_alike(sequence) for sequence in dataset), key=lambda rival: rival.score)


def look_alike(sequence: Sequence) -> Rival:
    """The target's box compared with every place of the first frame (normalised correlation of
    pixels less their mean)."""
    import cv2

    frame = sequence.frame(0)
    left, top, width, height = np.round(axis_aligned_box(sequence.regions[0])).astype(int)
    left, top = max(left, 0), max(top, 0)
    template = frame[top : top + height, left : left + width]
    height, width = template.shape[:2]
    scores = cv2.matchTemplate(frame, template, cv2.TM_CCOEFF_NORMED)
    free = scores.copy()
    free[max(top - height, 0) : top + height, max(left - width, 0) : left + width] = -1
    y, x = np.unravel_index(int(free.argmax()), free.shape)
    whole = np.full(frame.shape[:2], np.nan)
    whole[height // 2 : height // 2 + len(scores), width // 2 : width // 2 + scores.shape[1]] = (
        scores
    )
    return Rival(sequence, float(free.max()), np.array([x, y, width, height], float), whole)


@styled
def tracking_challenges(found: Seq[Challenge], rival: Rival, note: str) -> Figure:
    """Figure 2.11: a row a challenge; in the last the place like the target, and how like it every
    place is."""
    heights = [
        sequence.height / sequence.width
        for sequence in (*(one.sequence for one in found), rival.sequence)
    ]
    figure, axes = plt.subplots(
        len(heights),
        2,
        figsize=(WIDTH, sum(WIDTH / 2 * height + 0.35 for height in heights) + 1.6),
        layout="constrained",
        squeeze=False,
        gridspec_kw={"height_ratios": heights},
    )
    for row, one in zip(axes, found):
        for axis, index, name in zip(row, (one.before, one.after), (one.title, one.sequence.name)):
            show_frame(axis, one.sequence, index, None)
            axis.set_title(f"{name}, frame {index + 1}" if axis is row[1] else name, fontsize=10)
    show_frame(axes[-1, 0], rival.sequence, 0, None)
    draw_outline(axes[-1, 0], rival.box, ORANGE, "--")
    axes[-1, 0].set_title("(d) similar object", fontsize=10)
    shown = axes[-1, 1].imshow(rival.scores, cmap="cividis", vmin=0, vmax=1)
    figure.colorbar(
        shown,
        ax=axes[-1, :],
        location="bottom",
        shrink=0.7,
        aspect=30,
        extend="min",
        label="normalised correlation",
    )
    axes[-1, 1].set_title(f"{rival.sequence.name}: {rival.score:.2f} alike", fontsize=10)
    axes[-1, 1].set_axis_off()
    legend_of_boxes(figure, [("annotation", YELLOW, "-"), ("similar place", ORANGE, "--")])
    return finished(figure, note)


def challenges_text(found: Seq[Challenge], rival: Rival) -> Text:
    """What figure 2.11 shows, and which challenges no frame of the dataset is tagged with."""
    shown = [
        f"{one.title}: {one.sequence.name}, frame {one.after + 1} ({one.measured})" for one in found
    ]
    absent = [
        f"{title}: no frame of this dataset is tagged {NAMES[tag]}"
        for tag, title in CHALLENGES.items()
        if title not in [one.title for one in found]
    ]
    return Text(
        f"{'; '.join([*shown, *absent])}. (d) similar object: {rival.sequence.name}, {rival.score:.2f} alike."
    )


@styled
def siamfc(pair: Pair, z: np.ndarray, x: np.ndarray, response: np.ndarray, note: str) -> Figure:
    """Figure 2.12: both crops of a pair, their features (means over the channels), and the response
    of equation 2.5."""
    figure, axes = plt.subplots(3, 2, figsize=(WIDTH, 7.4), layout="constrained")
    _picture(axes[0, 0], pair.exemplar, f"exemplar z\n{by(pair.exemplar.shape)}")
    _picture(axes[0, 1], pair.search, f"search crop x\n{by(pair.search.shape)}")
    for axis, maps, name in ((axes[1, 0], z, r"$\varphi(z)$"), (axes[1, 1], x, r"$\varphi(x)$")):
        axis.imshow(maps.mean(0), cmap="cividis")
        axis.set_title(f"{name}\n{by(maps.shape)}", fontsize=10)
    _response(axes[2, 0], response, pair, f"response\n{by(response.shape)}")
    _picture(axes[2, 1], pair.search, "largest response\nin the crop")
    centre = displacement(response) + SEARCH_SIZE // 2
    _mark(axes[2, 1], centre, "+", ORANGE)
    draw_outline(axes[2, 1], _box_of(pair.box), YELLOW, "-")
    for axis in axes.ravel():
        axis.set_axis_off()
    _name_marks(figure, [("annotation", YELLOW, "x", "-"), ("largest response", ORANGE, "+", "")])
    return finished(figure, note)


class Proposals(NamedTuple):
    """What the whole network answers to a pair. score (k, S, S): probability of the target. boxes
    (k, S, S, 4): x1 y1 x2 y2 in crop pixels. overlap (k, S, S): of the boxes with the annotation.
    best: index of the largest score."""

    score: np.ndarray
    boxes: np.ndarray
    overlap: np.ndarray
    best: Tuple[int, int, int]


def proposals(network: SiamRPN, pair: Pair) -> Proposals:
    """All levels fused, decoded; without the tracker's penalties and window."""
    with torch.inference_mode():
        cls, loc = (
            part.numpy()
            for part in network(
                torch.from_numpy(as_input(pair.exemplar)), torch.from_numpy(as_input(pair.search))
            )
        )
    grid = anchor_grid(cls.shape[-1])
    boxes = corners(decode(loc, grid.reshape(-1, 4)).T).reshape(grid.shape) + SEARCH_SIZE // 2
    score = target_probability(cls).reshape(grid.shape[:3])
    a, row, column = np.unravel_index(int(score.argmax()), score.shape)
    overlap = iou(tuple(np.moveaxis(boxes, -1, 0)), tuple(pair.box))
    return Proposals(score, boxes, overlap, (int(a), int(row), int(column)))


@styled
def siamrpn(pair: Pair, found: Proposals, note: str) -> Figure:
    """Figure 2.13: both crops, the scores and the boxes of the two branches, and the box that is
    chosen."""
    figure, axes = plt.subplots(2, 2, figsize=(WIDTH, 5.4), layout="constrained")
    k, side, _ = found.score.shape
    _picture(axes[0, 0], pair.exemplar, "exemplar z")
    _picture(axes[0, 1], pair.search, "search crop x")
    draw_outline(axes[0, 1], _box_of(pair.box), YELLOW, "-")
    draw_outline(axes[0, 1], _box_of(found.boxes[found.best]), SKY, "--")
    _response(axes[1, 0], found.score.max(0), pair, f"cls: best score\nof k = {k}, {side}×{side}")
    _, row, column = found.best
    shown = axes[1, 1].imshow(found.overlap.max(0), cmap="cividis", vmin=0, vmax=1)
    _mark(axes[1, 1], np.array([column, row]), "+", ORANGE)
    axes[1, 1].set_title("reg: best overlap with\nthe annotation", fontsize=10)
    figure.colorbar(
        shown, ax=axes[1, :], location="bottom", shrink=0.7, label="score, overlap (0 to 1)"
    )
    for axis in axes.ravel():
        axis.set_axis_off()
    axes[0, 1].set(xlim=(-0.5, SEARCH_SIZE - 0.5), ylim=(SEARCH_SIZE - 0.5, -0.5))
    _name_marks(
        figure,
        [
            ("annotation", YELLOW, "x", "-"),
            ("chosen box", SKY, "", "--"),
            ("best score", ORANGE, "+", ""),
        ],
    )
    return finished(figure, note)


def proposals_text(found: Proposals) -> Text:
    """The chosen box against the annotation and against the best box of all."""
    return Text(
        f"The box with the highest score ({found.score[found.best]:.2f}) overlaps the annotation by "
        f"{found.overlap[found.best]:.2f}; the best of all {found.score.size:,} boxes does by "
        f"{found.overlap.max():.2f}."
    )


# -- Section 2.3: pruning --------------------------------------------------------------------------


@styled
def curl_blocks(network: SiamRPN, stage: int, note: str) -> Figure:
    """Figure 2.14: the first two bottlenecks of a stage with their output and input channels: those
    inside a block and those of the residual sum, which all blocks of the stage share."""
    blocks = list(getattr(network.backbone, f"layer{stage}"))[:2]
    figure, axis = _sheet(f"Stage {stage}, two blocks", 6.3, 10, 15.9)
    y, half, ring = 15.6, 0.5, 0.33  # half the height of a box, and the radius of a plus sign
    axis.text(
        3.3,
        y,
        f"input, {blocks[0].conv1.in_channels} channels",
        ha="center",
        va="center",
        fontsize=10,
    )
    y -= 0.35
    for block in blocks:
        top = y - (0 if block is blocks[0] else 0.5)  # where the shortcut leaves
        axis.plot([3.3, 3.3], [y, top], color="black", lw=1.4)
        below, y = top, top - 1.35
        for number, conv in enumerate((block.conv1, block.conv2, block.conv3), 1):
            draw_arrow(axis, (3.3, below), (3.3, y + half))
            # What comes into the stage belongs to the stage before
            before = GREY if block is blocks[0] else GREEN
            _conv_box(
                axis,
                (3.3, y),
                conv,
                GREEN if number == 3 else ORANGE,
                before if number == 1 else ORANGE,
            )
            below, y = y - half, y - 1.7
        y += 0.4
        draw_arrow(axis, (3.3, below), (3.3, y + ring))
        axis.text(
            3.3,
            y,
            "+",
            ha="center",
            va="center",
            fontsize=14,
            bbox={"boxstyle": "circle,pad=0.1", "fc": "white"},
        )
        axis.plot([3.3, 8.2, 8.2], [top, top, y], color="black", lw=1.4)
        draw_arrow(axis, (8.2, y), (3.3 + ring, y))
        if block.downsample is not None:
            _conv_box(axis, (8.2, (top + y) / 2), block.downsample[0], GREEN, GREY)
        y -= ring
    draw_arrow(axis, (3.3, y), (3.3, y - 0.7))
    axis.text(
        3.3,
        y - 1,
        f"{blocks[-1].conv3.out_channels} channels",
        ha="center",
        va="center",
        fontsize=10,
    )
    handles = [Rectangle((0, 0), 1, 1, fc=color, alpha=0.75) for color in (ORANGE, GREEN)]
    figure.legend(
        handles, ["inside a block", "of the residual sum"], loc="outside upper left", ncols=2
    )
    return finished(figure, note)


def _conv_box(
    axis: Axes, centre: Tuple[float, float], conv: nn.Conv2d, outputs: str, inputs: str
) -> None:
    """Output channels, input channels and kernel of a convolution, with colours of the first
    two."""
    x, y = centre
    axis.add_patch(Rectangle((x - 1.75, y - 0.5), 3.5, 1, fc="white", ec="black", lw=1, zorder=3))
    texts = (
        (conv.out_channels, outputs),
        (conv.in_channels, inputs),
        (by(conv.kernel_size), "black"),
    )
    for at, (text, color) in zip((-1.1, 0, 1.1), texts):
        axis.text(
            x + at,
            y,
            str(text),
            ha="center",
            va="center",
            fontsize=10,
            color=color,
            fontweight="bold",
            zorder=4,
        )


def channel_scores(network: SiamRPN, pair: Pair, count: int = 16) -> np.ndarray:
    """Equation 2.8 for the first channels behind the first convolution of the first bottleneck:
    (channels,), nats.

    A channel is removed by setting its scale and shift to 0 (equation 2.7). CURL compares the class
    probabilities of a classifier; a tracker has none, so this compares its two probabilities,
    target and background, of every anchor of a pair.
    """

    def probabilities() -> np.ndarray:
        with torch.inference_mode():
            cls, _ = network(
                torch.from_numpy(as_input(pair.exemplar)), torch.from_numpy(as_input(pair.search))
            )
        target = target_probability(cls.double().numpy())
        return np.clip(np.stack([target, 1 - target], -1), 1e-12, 1)

    [norm, *_] = [
        module for module in network.backbone.layer1.modules() if isinstance(module, nn.BatchNorm2d)
    ]
    p, found = probabilities(), []
    for channel in range(min(count, norm.num_features)):
        kept = [(values, float(values[channel])) for values in (norm.weight.data, norm.bias.data)]
        for values, _ in kept:
            values[channel] = 0
        found.append(divergence(p, probabilities()))
        for values, value in kept:
            values[channel] = value
    return np.array(found)


@styled
def channel_figure(scores: np.ndarray, note: str) -> Figure:
    """Scores of channels, the least important first."""
    figure, axis = new_figure(3.2)
    order = np.argsort(scores)
    axis.bar(range(len(scores)), 1e6 * scores[order], color=BLUE)
    axis.set_xticks(range(len(scores)), [str(channel) for channel in order], fontsize=9)
    axis.set(
        title="Score of every channel",
        xlabel="channel, by its score",
        ylabel="s, millionths of a nat",
    )
    return finished(figure, note)


# -- Drawings --------------------------------------------------------------------------------------


def _sheet(title: str, height: float, across: float, up: float) -> Tuple[Figure, Axes]:
    """An empty sheet of the book's width; `across` and `up` are its sides in its own units."""
    figure, axis = new_figure(height)
    axis.set(xlim=(0, across), ylim=(0, up), title=title)
    axis.set_axis_off()
    return figure, axis


def _neuron(axis: Axes, centre: Tuple[float, float], text: str, size: float = 34) -> None:
    axis.plot(
        *centre, marker="o", ms=size, mfc="white", mec="black", mew=1, zorder=2, clip_on=False
    )
    axis.text(*centre, text, ha="center", va="center", fontsize=9, zorder=3)


def _grid_of_numbers(axis: Axes, values: np.ndarray, colors: np.ndarray) -> None:
    """A matrix as cells with their numbers; colors: of each cell."""
    rows, columns = values.shape
    for (row, column), value in np.ndenumerate(values):
        axis.add_patch(Rectangle((column, row), 1, 1, fc=colors[row, column], ec="black", lw=1))
        axis.text(column + 0.5, row + 0.5, f"{value:g}", ha="center", va="center", fontsize=11)
    axis.set(xlim=(-0.05, columns + 0.05), ylim=(rows + 0.05, -0.05), aspect="equal")
    axis.set_axis_off()


def _picture(axis: Axes, image: np.ndarray, title: str) -> None:
    axis.imshow(image[..., ::-1], interpolation="antialiased")
    axis.set_title(title, fontsize=10)
    axis.set_axis_off()


def _response(axis: Axes, response: np.ndarray, pair: Pair, title: str) -> None:
    """A square response with its largest value and the centre of the annotation marked."""
    axis.imshow(response, cmap="cividis")
    middle = response.shape[0] // 2
    _mark(axis, displacement(response, 1) + middle, "+", ORANGE)
    _mark(
        axis, ((pair.box[:2] + pair.box[2:]) / 2 - SEARCH_SIZE // 2) / STRIDE + middle, "x", YELLOW
    )
    axis.set_title(title, fontsize=10)


def _mark(axis: Axes, at: np.ndarray, marker: str, color: str) -> None:
    axis.plot(*at, ls="", marker=marker, ms=13, mew=4.5, color="black")
    axis.plot(*at, ls="", marker=marker, ms=12, mew=2.5, color=color)


def _name_marks(figure: Figure, names: Seq[Tuple[str, str, str, str]]) -> None:
    """A legend of outlines and marks: name, colour, marker, line."""
    stroke = [patheffects.withStroke(linewidth=4, foreground="black")]
    handles = [
        plt.Line2D([], [], color=color, marker=marker, ls=line, ms=9, mew=2.5, path_effects=stroke)
        for _, color, marker, line in names
    ]
    figure.legend(handles, [name for name, *_ in names], loc="outside upper left", ncols=3)


def _box_of(corners: np.ndarray) -> np.ndarray:
    """x1 y1 x2 y2 to x y w h."""
    return np.concatenate([corners[:2], corners[2:] - corners[:2]])


def _block_chain(axis: Axes, layers: Seq[Tuple[str, str]], start: str, end: str) -> None:
    """Layers under each other with ReLU between them, a shortcut around them, and the sum: on a
    sheet 10 wide."""
    y = axis.get_ylim()[1] - 0.4
    axis.text(3.7, y, start, ha="center", va="center", fontsize=10)
    top = y - 0.5
    for number, (title, text) in enumerate(layers):
        y -= 2.3 if number else 1.8
        draw_arrow(axis, (3.7, y + (1.6 if number else 1.4)), (3.7, y + 0.7))
        if number:
            axis.text(3.9, y + 1.15, "ReLU", va="center", fontsize=10)
        draw_box(axis, (3.7, y), (7, 1.4), title, text, SKY)
    y -= 1.7
    draw_arrow(axis, (3.7, y + 1), (3.7, y + 0.35))
    axis.text(
        3.7,
        y,
        "+",
        ha="center",
        va="center",
        fontsize=14,
        bbox={"boxstyle": "circle,pad=0.1", "fc": "white"},
    )
    axis.plot([3.7, 8.4, 8.4], [top, top, y], color="black", lw=1.4)
    axis.text(8.6, top - 0.5, "x", fontsize=10)
    draw_arrow(axis, (8.4, y), (4.1, y))
    draw_arrow(axis, (3.7, y - 0.35), (3.7, y - 1))
    axis.text(3.9, y - 0.7, "ReLU", va="center", fontsize=10)
    axis.text(3.7, y - 1.3, end, ha="center", va="center", fontsize=10)
