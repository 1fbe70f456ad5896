"""CURL: which channels of the backbone can go, and the network without them (thesis sections 2.3.1
and 3.6.2; Luo & Wu 2020).

A *layer* here is what has one index mask: the outputs of the first and second convolution of every
bottleneck ("layer3.1.conv2") and, for every stage, the channels of its residual sum, which the
third convolutions of all its bottlenecks and the shortcut share ("layer3.sum", figure 2.14).
Masking a channel sets the scale and shift of its batch normalisation to 0 (equation 2.7). Its score
is the KL divergence between the class probabilities with and without it, a mean over pictures
(equation 2.8). The channels with the highest scores stay, as many as the wanted number of
parameters allows, and of every layer at least a given share.
"""

from __future__ import annotations

import copy
import csv
import hashlib
import io
import math
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Callable, Dict, List, Mapping, NamedTuple, Optional, Sequence, Tuple, Union

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from lib.engines.pytorch import usable_device
from lib.errors import InputError
from lib.files import write_text
from lib.siamrpn.checkpoint import load_network, read_state, save_weights
from lib.siamrpn.network import (
    Backbone,
    Bottleneck,
    NetworkConfig,
    SiamRPN,
    StageConfig,
    fold_batch_norm,
)
from lib.training.classify import Classifier, ClassifyConfig, load_classifier
from lib.training.pictures import Folders, open_pictures

MINIMUM_RATE = 0.3  # share of a layer's channels that stays whatever their scores (section 3.6.2)
SUM = "sum"
IMAGES_AT_ONCE = 128  # masks times pictures in a batch: more does not get faster

Scores = Dict[str, np.ndarray]  # layer -> score of each channel
Keep = Dict[str, np.ndarray]  # layer -> whether each channel stays


# -- Layers and parameters -------------------------------------------------------------------------


def mask_layers(config: NetworkConfig) -> Dict[str, int]:
    """Layer -> channels, from the input to the output; 11,392 masks in all for the full
    backbone."""
    layers: Dict[str, int] = {}
    for stage, part in enumerate(config.stages, 1):
        for block, mid in enumerate(part.blocks):
            layers.update(
                {f"layer{stage}.{block}.conv{i}": channels for i, channels in enumerate(mid, 1)}
            )
        layers[f"layer{stage}.{SUM}"] = part.channels
    return layers


def cut_config(config: NetworkConfig, counts: Mapping[str, int]) -> NetworkConfig:
    """The configuration with other channel counts; counts: of every layer of `mask_layers`."""
    stages = []
    for stage, part in enumerate(config.stages, 1):
        name = f"layer{stage}"
        blocks = tuple(
            (int(counts[f"{name}.{block}.conv1"]), int(counts[f"{name}.{block}.conv2"]))
            for block in range(len(part.blocks))
        )
        stages.append(StageConfig(int(counts[f"{name}.{SUM}"]), blocks))
    return replace(config, stages=tuple(stages))


def backbone_parameters(config: NetworkConfig) -> int:
    """Number of the backbone's parameters from its channel counts alone; 45,528,128 for the full
    one."""
    total, inputs = 3 * config.stem * 49 + 2 * config.stem, config.stem
    for stage, part in enumerate(config.stages, 1):
        total += part.channels * inputs * (1 if stage == 1 else 9) + 2 * part.channels
        for first, second in part.blocks:
            total += (
                inputs * first
                + 9 * first * second
                + second * part.channels
                + 2 * (first + second + part.channels)
            )
            inputs = part.channels
    return total


# -- Scores ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Work:
    """What scoring costs. masks: channels to score. flop: on all pictures, of the block that a
    layer is in once, and of those behind it for every mask. plain_flop: of a whole forward pass for
    every mask."""

    masks: int
    flop: float
    plain_flop: float


class Scorer:
    """Exact scores of a classifier's channels on some pictures.

    What lies before a masked layer is computed once, what lies behind it for many masks in a batch.
    precision: "fp32" or "bf16" (of the convolutions; probabilities are compared in double
    precision).
    """

    def __init__(self, classifier: Classifier, pictures: Tensor, precision: str = "fp32") -> None:
        """pictures: (N, 3, S, S) float, BGR 0..255, on the classifier's device."""
        if precision not in ("fp32", "bf16"):
            raise InputError(f"scores are computed in fp32 or bf16, not in {precision!r}")
        folded = fold_batch_norm(classifier).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.config, self.precision = classifier.config, precision
        self.backbone: Backbone = folded.backbone
        self.head: nn.Linear = folded.fc
        self.blocks: List[Tuple[str, Bottleneck]] = [
            (f"layer{stage}.{block}", module)
            for stage in (1, 2, 3, 4)
            for block, module in enumerate(getattr(self.backbone, f"layer{stage}"))
        ]
        self.inputs: List[Tensor] = []
        with torch.inference_mode(), self._autocast(pictures.device.type):
            backbone = self.backbone
            x = backbone.maxpool(
                backbone.relu(
                    backbone.conv1(pictures.contiguous(memory_format=torch.channels_last))
                )
            )
            self.flop = [
                2.0
                * x.shape[0]
                * 49
                * 3
                * backbone.conv1.out_channels
                * (pictures.shape[2] // 2) ** 2
            ]
            for _, block in self.blocks:
                self.inputs.append(x)
                before, x = x, run_block(block, x, len(pictures))
                self.flop.append(_block_flop(block, x, before))
            self.probability = self._probability(x)[0]

    def _autocast(self, device: str) -> Any:
        return torch.autocast(device, torch.bfloat16, enabled=self.precision == "bf16")

    def _probability(self, x: Tensor) -> Tensor:
        """(M x N, C, H, W) to log-probabilities (M, N, classes)."""
        logits = self.head.float()(x.float().mean((2, 3))).double()
        return functional.log_softmax(logits, 1).reshape(
            -1, len(self.inputs[0]), self.head.out_features
        )

    def start_of(self, layer: str) -> int:
        """Index of the first block that a layer's masks change."""
        prefix = layer.replace(SUM, "0") if layer.endswith(SUM) else layer.rsplit(".", 1)[0]
        return [name for name, _ in self.blocks].index(prefix)

    def work(self, layers: Optional[Sequence[str]] = None) -> Work:
        known = mask_layers(self.config)
        chosen = {name: known[name] for name in (known if layers is None else layers)}
        flop = 0.0
        for name, count in chosen.items():
            own, *behind = self.flop[1 + self.start_of(name) :]
            flop += own + count * sum(behind)
        return Work(sum(chosen.values()), flop, sum(chosen.values()) * sum(self.flop))

    def score(self, layer: str, channels: Optional[Sequence[int]] = None) -> np.ndarray:
        """Scores of a layer's channels (or of those given), (C,), nats."""
        chosen = list(range(mask_layers(self.config)[layer]) if channels is None else channels)
        at_once = max(1, IMAGES_AT_ONCE // len(self.inputs[0]))
        found = [
            self._divergences(layer, chosen[start : start + at_once])
            for start in range(0, len(chosen), at_once)
        ]
        return np.concatenate(found)

    def _divergences(self, layer: str, channels: Sequence[int]) -> np.ndarray:
        pictures, first, stage = len(self.inputs[0]), self.start_of(layer), layer.split(".")[0]
        with torch.inference_mode(), self._autocast(self.inputs[0].device.type):
            chosen = torch.tensor(channels, device=self.inputs[0].device)
            masks = torch.ones(len(channels), mask_layers(self.config)[layer], device=chosen.device)
            masks[torch.arange(len(channels)), chosen] = 0
            sums = masks if layer.endswith(SUM) else None
            x = self._first_block(layer, self.blocks[first][1], self.inputs[first], chosen, sums)
            for name, block in self.blocks[first + 1 :]:
                x = run_block(
                    block, x, pictures, sums=sums if name.startswith(f"{stage}.") else None
                )
            answer = self._probability(x)
        p = self.probability
        return (p.exp() * (p - answer)).sum(2).mean(1).clamp_min(0).cpu().numpy()

    def _first_block(
        self, layer: str, block: Bottleneck, x: Tensor, channels: Tensor, sums: Optional[Tensor]
    ) -> Tensor:
        """The block in which the masks begin: nearly all of it is the same for all of them."""
        if sums is not None:
            return run_block(block, x, len(x), sums=sums)
        shortcut = x if block.downsample is None else block.downsample(x)
        y = functional.relu(block.conv1(x))
        if layer.endswith("conv1"):
            y = block.conv3(functional.relu(without(block.conv2, y, channels)))
        else:
            y = without(block.conv3, functional.relu(block.conv2(y)), channels)
        return functional.relu(y.unflatten(0, (-1, len(x))) + shortcut).flatten(0, 1)


def without(conv: nn.Conv2d, x: Tensor, channels: Tensor) -> Tensor:
    """What a convolution puts out where its input x (N, C, H, W) lacks one channel, for each of M
    channels: (M x N, O, H, W).

    The whole answer less the channel's part in it, which costs a share of 1 / C of computing it
    again.
    """
    parts = conv.weight[:, channels].transpose(0, 1).reshape(-1, 1, *conv.kernel_size)
    part = functional.conv2d(
        x[:, channels], parts, None, conv.stride, conv.padding, conv.dilation, groups=len(channels)
    )
    whole = conv(x)
    part = part.unflatten(1, (len(channels), -1)).transpose(0, 1)
    return (whole - part).flatten(0, 1).contiguous(memory_format=torch.channels_last)


def run_block(
    block: Bottleneck,
    x: Tensor,
    pictures: int,
    first: Optional[Tensor] = None,
    second: Optional[Tensor] = None,
    sums: Optional[Tensor] = None,
) -> Tensor:
    """A bottleneck, whose batch normalisation is folded or not, with masks (M, C) behind its first
    or second convolution or on its residual sum. x: (pictures, C, H, W), or M times as many where
    masks before have made so many of it already. With masks the answer has M x pictures images."""
    shortcut = x if block.downsample is None else block.downsample(x)
    y = _masked(functional.relu(block.bn1(block.conv1(x))), first, pictures)
    y = _masked(functional.relu(block.bn2(block.conv2(y))), second, pictures)
    y = block.bn3(block.conv3(y)).unflatten(0, (-1, pictures)) + shortcut.unflatten(
        0, (-1, pictures)
    )
    return functional.relu(_masked(y.flatten(0, 1), sums, pictures))


def _masked(x: Tensor, masks: Optional[Tensor], pictures: int) -> Tensor:
    if masks is None:
        return x
    return (x.unflatten(0, (-1, pictures)) * masks[:, None, :, None, None].to(x.dtype)).flatten(
        0, 1
    )


def _block_flop(block: Bottleneck, output: Tensor, inputs: Tensor) -> float:
    """Floating point operations of a bottleneck for the images in a batch, multiplications and
    additions."""
    convolutions: List[Tuple[Any, Tensor]] = [
        (block.conv1, inputs),
        (block.conv2, output),
        (block.conv3, output),
    ]
    if isinstance(block.downsample, nn.Sequential):
        convolutions.append((block.downsample[0], output))
    return float(
        sum(
            2.0 * len(output) * conv.weight.numel() * at.shape[2] * at.shape[3]
            for conv, at in convolutions
        )
    )


def score_all(
    scorer: Scorer,
    path: Union[str, Path],
    origin: str,
    say: Callable[[str], None] = print,
    layers: Optional[Sequence[str]] = None,
) -> Scores:
    """Score every layer, the cheapest first, writing each to a CSV as it is done; layers that the
    file has are not scored again.

    origin: what decides the scores (weights, pictures, precision); a file of another origin raises
    InputError. Says how much work is left, and after the first layer how fast it goes.
    """
    path = Path(path)
    known = mask_layers(scorer.config)
    done = read_scores(path, scorer.config, origin, whole=False) if path.exists() else {}
    left = sorted(
        (name for name in (layers or known) if name not in done),
        key=lambda name: scorer.work([name]).flop,
    )
    work = scorer.work(left)
    say(
        f"{work.masks} of {sum(known.values())} masks to score: {work.flop / 1e12:.1f} TFLOP "
        f"({work.plain_flop / 1e12:.1f} with a whole forward pass for each)"
    )
    begin, finished = time.perf_counter(), 0.0
    for name in left:
        done[name] = scorer.score(name)
        write_scores(path, done, origin)
        finished += scorer.work([name]).flop
        seconds = time.perf_counter() - begin
        say(
            f"{name}: {known[name]} masks; {finished / seconds / 1e12:.3f} TFLOP/s, "
            f"{seconds * (work.flop / finished - 1) / 60:.1f} min left"
        )
    return done


def fisher_scores(classifier: Classifier, pictures: Tensor, seed: int = 0) -> Scores:
    """A first-order estimate of every score from one backward pass for each picture (quick mode).

    The divergence itself has no slope at the present network. Its curvature is the Fisher
    information, so the estimate is half the mean square of what first-order Taylor expansion says
    about the log-probability of a class, drawn from the network's own probabilities, when a channel
    is taken away (Theis et al. 2018).
    """
    network = copy.deepcopy(classifier).eval().requires_grad_(False)
    device = pictures.device
    masks = {
        name: torch.ones(1, count, device=device, requires_grad=True)
        for name, count in mask_layers(network.config).items()
    }
    generator = torch.Generator().manual_seed(seed)
    squares = {name: torch.zeros(mask.shape[1], device=device) for name, mask in masks.items()}
    for picture in pictures:
        backbone = network.backbone
        x = backbone.maxpool(backbone.relu(backbone.bn1(backbone.conv1(picture[None]))))
        for stage in (1, 2, 3, 4):
            for index, block in enumerate(getattr(backbone, f"layer{stage}")):
                name = f"layer{stage}.{index}"
                x = run_block(
                    block,
                    x,
                    1,
                    masks[f"{name}.conv1"],
                    masks[f"{name}.conv2"],
                    masks[f"layer{stage}.{SUM}"],
                )
        log_probability = functional.log_softmax(network.fc(x.mean((2, 3))), 1)[0]
        drawn = int(torch.multinomial(log_probability.detach().exp().cpu(), 1, generator=generator))
        for name, slope in zip(
            masks, torch.autograd.grad(log_probability[drawn], list(masks.values()))
        ):
            squares[name] += slope[0] ** 2
    return {
        name: (square / (2 * len(pictures))).cpu().numpy().astype(np.float64)
        for name, square in squares.items()
    }


def rank_correlation(one: Scores, other: Scores) -> float:
    """Spearman's correlation of two sets of scores over all channels."""
    first, second = (
        np.argsort(np.argsort(np.concatenate([scores[name] for name in one])))
        for scores in (one, other)
    )
    return float(np.corrcoef(first, second)[0, 1])


def write_scores(path: Union[str, Path], scores: Scores, origin: str) -> None:
    """A CSV of layer, channel, score; the first line tells the origin."""
    stream = io.StringIO()
    stream.write(f"# {origin}\n")
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(("layer", "channel", "score"))
    for name, values in scores.items():
        writer.writerows((name, channel, f"{value:.6g}") for channel, value in enumerate(values))
    write_text(Path(path), stream.getvalue())


def read_scores(
    path: Union[str, Path], config: NetworkConfig, origin: str = "", whole: bool = True
) -> Scores:
    """Read scores of a network with these channel counts. Raises InputError for a file that is
    none, is of another network or, where given, of another origin, or is not complete where it
    should be."""
    try:
        text = Path(path).read_text(encoding="utf-8")
        head, _, rest = text.partition("\n")
        found: Dict[str, Dict[int, float]] = {}
        for row in csv.DictReader(io.StringIO(rest)):
            found.setdefault(row["layer"], {})[int(row["channel"])] = float(row["score"])
        scores = {
            name: np.array([values[channel] for channel in range(len(values))])
            for name, values in found.items()
        }
    except (OSError, UnicodeDecodeError, KeyError, TypeError, ValueError) as error:
        raise InputError(
            f"{path}: not a file of channel scores ({error!r}); `siambook prune score` writes one"
        ) from None
    known = mask_layers(config)
    wrong = next((name for name in scores if known.get(name) != len(scores[name])), None)
    if wrong is not None or (whole and set(scores) != set(known)):
        what = (
            f"{len(scores[wrong])} channels of {wrong}"
            if wrong
            else f"{len(scores)} of {len(known)} layers"
        )
        raise InputError(f"{path}: scores of another network, or not all of them ({what})")
    if not all(np.isfinite(values).all() for values in scores.values()):
        raise InputError(f"{path}: scores that are not numbers")
    if origin and head != f"# {origin}":
        raise InputError(
            f"{path}: scored with other weights or pictures ({head[2:]}); name another file"
        )
    return {name: scores[name] for name in known if name in scores}


# -- Which channels stay ---------------------------------------------------------------------------


class Choice(NamedTuple):
    """k channels by score, and with what the layers' minimum adds: the channels that stay, and the
    network's parameters."""

    k: int
    keep: Keep
    parameters: int


def keep_best(scores: Scores, k: int, minimum: float = MINIMUM_RATE, multiple: int = 1) -> Keep:
    """The k channels with the highest scores of all, and of every layer at least its best `minimum`
    of them, filled up with the next best to a multiple of channels."""
    names = list(scores)
    every = np.concatenate([scores[name] for name in names])
    rank = np.empty(len(every), int)
    rank[np.argsort(-every, kind="stable")] = np.arange(len(every))
    keep, start = {}, 0
    for name in names:
        size = len(scores[name])
        least = max(int((rank[start : start + size] < k).sum()), math.ceil(minimum * size))
        stays = np.zeros(size, bool)
        stays[
            np.argsort(-scores[name], kind="stable")[: math.ceil(least / multiple) * multiple]
        ] = True
        keep[name], start = stays, start + size
    return keep


def counts(keep: Keep) -> Dict[str, int]:
    """Channels that stay, by layer."""
    return {name: int(stays.sum()) for name, stays in keep.items()}


def choose(
    config: NetworkConfig,
    scores: Scores,
    target: int,
    minimum: float = MINIMUM_RATE,
    times: int = 1,
    multiple: int = 1,
) -> Choice:
    """Find k by bisection so that the backbone has as close to `target` parameters as it gets.

    times: counts channels so often, to size a wider network after the scores of a narrow one.
    multiple: of channels that every layer keeps; processors compute 16 or more at once, and an odd
    number wastes what is left. Raises InputError for a target that the minimum rates, or the whole
    network, make impossible.
    """

    def at(k: int) -> Choice:
        keep = keep_best(scores, k, minimum, multiple)
        return Choice(k, keep, backbone_parameters(wider(cut_config(config, counts(keep)), times)))

    low, high = 0, sum(map(len, scores.values()))
    smallest, largest = at(low), at(high)
    if not smallest.parameters <= target <= largest.parameters:
        raise InputError(
            f"{target:,} parameters cannot be reached: keeping at least {minimum:.0%} of every layer, the backbone "
            f"has {smallest.parameters:,} to {largest.parameters:,}"
        )
    while high - low > 1:
        middle = (low + high) // 2
        if at(middle).parameters < target:
            low = middle
        else:
            high = middle
    return min(at(low), at(high), key=lambda choice: abs(choice.parameters - target))


def wider(config: NetworkConfig, times: int) -> NetworkConfig:
    """Every channel count times a whole number."""
    stages = tuple(
        StageConfig(part.channels * times, tuple((a * times, b * times) for a, b in part.blocks))
        for part in config.stages
    )
    return replace(config, stem=config.stem * times, rpn=config.rpn * times, stages=stages)


# -- The network without them ----------------------------------------------------------------------


def masked(network: Union[SiamRPN, Classifier], keep: Keep) -> Union[SiamRPN, Classifier]:
    """A copy of a network with a `backbone` in which the channels that go are masked (equation
    2.7)."""
    network = copy.deepcopy(network)
    with torch.no_grad():
        for name, stays in keep.items():
            for norm in _norms(network.backbone, name):
                gone = torch.from_numpy(~stays)
                norm.weight[gone] = 0
                norm.bias[gone] = 0
    return network


def _norms(backbone: Backbone, layer: str) -> List[nn.BatchNorm2d]:
    """The batch normalisations whose channels a layer's mask masks."""
    stage = getattr(backbone, layer.split(".")[0])
    if layer.endswith(SUM):
        return [block.bn3 for block in stage] + [
            block.downsample[1] for block in stage if block.downsample is not None
        ]
    _, block, conv = layer.split(".")
    return [getattr(stage[int(block)], conv.replace("conv", "bn"))]


def cut_state(state: Mapping[str, Tensor], config: NetworkConfig, keep: Keep) -> Dict[str, Tensor]:
    """The weights that stay of a tracker's or a classifier's state dict: what reads from a stage
    (neck, classification layer) loses the inputs that are gone. Raises InputError where `keep` is
    of another network."""
    if {name: len(stays) for name, stays in keep.items()} != mask_layers(config):
        raise InputError("the channels to keep are those of another network")
    index = {name: torch.from_numpy(np.flatnonzero(stays)) for name, stays in keep.items()}
    cut = {key: value.clone() for key, value in state.items()}

    def take(prefix: str, outputs: Optional[Tensor], inputs: Optional[Tensor]) -> None:
        for key in [key for key in cut if key.startswith(f"{prefix}.") and cut[key].ndim]:
            if outputs is not None:
                cut[key] = cut[key][outputs]
            if inputs is not None and cut[key].ndim > 1:
                cut[key] = cut[key][:, inputs]

    before: Optional[Tensor] = None
    for stage, part in enumerate(config.stages, 1):
        name = f"backbone.layer{stage}"
        sums = index[f"layer{stage}.{SUM}"]
        take(f"{name}.0.downsample.0", sums, before)
        take(f"{name}.0.downsample.1", sums, None)
        for block in range(len(part.blocks)):
            first, second = (index[f"layer{stage}.{block}.conv{i}"] for i in (1, 2))
            for conv, outputs, inputs in (
                (1, first, before),
                (2, second, first),
                (3, sums, second),
            ):
                take(f"{name}.{block}.conv{conv}", outputs, inputs)
                take(f"{name}.{block}.bn{conv}", outputs, None)
            before = sums
        take(f"neck.downsample{stage}.downsample.0", None, sums)
        if stage == len(config.stages):
            take("fc", None, sums)
    return cut


def cut_tracker(network: SiamRPN, keep: Keep) -> SiamRPN:
    """A tracker without the channels that go; it computes what the masked one computes."""
    small = SiamRPN(cut_config(network.config, counts(keep)))
    small.load_state_dict(cut_state(network.state_dict(), network.config, keep))
    return small.train(network.training)


def cut_classifier(classifier: Classifier, keep: Keep) -> Classifier:
    """A classifier without the channels that go."""
    small = Classifier(cut_config(classifier.config, counts(keep)), classifier.classes)
    small.load_state_dict(cut_state(classifier.state_dict(), classifier.config, keep))
    return small.train(classifier.training)


def largest_difference(
    network: Union[SiamRPN, Classifier], small: nn.Module, keep: Keep, *inputs: Tensor
) -> float:
    """Largest difference between the masked and the cut network's outputs, as a share of each
    output's range."""
    with torch.inference_mode():
        theirs, ours = (
            _tensors(module.eval()(*inputs)) for module in (masked(network, keep), small)
        )
    return max(
        float((a - b).abs().max() / (a.max() - a.min()).clamp_min(1e-30))
        for a, b in zip(theirs, ours)
    )


def _tensors(output: Any) -> List[Tensor]:
    return [output] if isinstance(output, Tensor) else list(output)


# -- Files -----------------------------------------------------------------------------------------


def score_file(
    weights: Path,
    config: ClassifyConfig,
    pictures: int,
    out: Path,
    precision: str = "fp32",
    quick: bool = False,
    device: str = "cpu",
    say: Callable[[str], None] = print,
) -> Scores:
    """Scores of a classifier's channels on validation pictures, written to the CSV `out` as they
    come; resumes."""
    classifier = load_classifier(weights).to(usable_device(device))
    some = sample(config, pictures).to(device)
    origin = (
        f"{'first-order estimates' if quick else precision} on {pictures} pictures of {config.data}, "
        f"{config.size} px, weights {hashlib.sha256(weights.read_bytes()).hexdigest()[:16]}"
    )
    if quick:
        scores = fisher_scores(classifier, some)
        write_scores(out, scores, origin)
        return scores
    return score_all(Scorer(classifier, some, precision), out, origin, say)


def sample(config: ClassifyConfig, count: int) -> Tensor:
    """The first validation pictures, spread over the classes where they are sorted by class: (N, 3,
    S, S)."""
    pictures = open_pictures(config.data, config.size, config.seed, validation=True)
    step = max(1, len(pictures) // count) if isinstance(pictures, Folders) else 1
    return torch.from_numpy(np.stack([pictures[index * step][0] for index in range(count)]))


def cut_file(
    weights: Path,
    scores: Optional[str],
    target: Optional[float],
    out: Path,
    minimum: float = MINIMUM_RATE,
    multiple: int = 1,
) -> str:
    """Write a tracker's or a classifier's weights without the channels that go; says what is left.

    target: parameters of the backbone, a share where it is at most 1. minimum, multiple: as in
    `choose`. Raises InputError.
    """
    if scores is None or target is None:
        raise InputError("cutting needs --scores and --parameters")
    state = read_state(weights)
    tracker = any(key.startswith("rpn_head.") for key in state)
    network: Any = load_network(weights) if tracker else load_classifier(weights)
    before = backbone_parameters(network.config)
    wanted = round(target * before if target <= 1 else target)
    choice = choose(
        network.config, read_scores(scores, network.config), wanted, minimum, multiple=multiple
    )
    small = cut_tracker(network, choice.keep) if tracker else cut_classifier(network, choice.keep)
    save_weights(out, small.state_dict())
    total = sum(map(len, choice.keep.values()))
    return (
        f"{out}: backbone of {choice.parameters:,} parameters ({choice.parameters / before:.3f} of {before:,}), "
        f"k = {choice.k}, {total - sum(counts(choice.keep).values())} of {total} channels removed"
    )
