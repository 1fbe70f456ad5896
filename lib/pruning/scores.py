"""CURL's scores: the KL divergence between the class probabilities with and without a channel, a
mean over pictures (thesis equation 2.8), and a quick estimate by Fisher information.

A channel is taken away by a mask, as if scale and shift of its batch normalisation were 0 (equation
2.7).
"""

from __future__ import annotations

import copy
import csv
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Dict, Iterator, List, NamedTuple, Optional, Sequence, Tuple, Union

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from lib.engines.pytorch import usable_device
from lib.errors import InputError
from lib.files import digest, write_text
from lib.progress import progress
from lib.pruning.choice import SUM, Scores, mask_layers
from lib.reading import read_text
from lib.siamrpn.network import Bottleneck, NetworkConfig, fold_batch_norm
from lib.training.classify import Classifier, ClassifyConfig, load_classifier
from lib.training.pictures import Folders, open_pictures

IMAGES_AT_ONCE = 128  # masks times pictures in a batch: more is not faster


class Work(NamedTuple):
    """What scoring costs. masks: channels to score. flop: on all pictures, of the block that a
    layer is in once, and of the following blocks for every mask. plain_flop: of a whole forward
    pass for every mask."""

    masks: int
    flop: float
    plain_flop: float


class Scorer:
    """Exact scores of a classifier's channels on some pictures.

    What precedes a masked layer is computed once, and what follows it for many masks in a batch.
    precision: "fp32" or "bf16" (of the convolutions; probabilities are compared in double
    precision).
    """

    def __init__(self, classifier: Classifier, pictures: Tensor, precision: str = "fp32") -> None:
        """pictures: (N, 3, S, S) float, BGR 0..255, on the classifier's device."""
        if precision not in ("fp32", "bf16"):
            raise InputError(f"scores are computed in fp32 or bf16, not in {precision!r}")
        folded = fold_batch_norm(classifier).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        backbone = folded.backbone
        self.layers = mask_layers(classifier.config)
        self.low, self.device, self.count = precision == "bf16", pictures.device.type, len(pictures)
        self.blocks, self.head = named_blocks(backbone), folded.fc.float()
        self.inputs: Dict[str, Tensor] = {}  # of every block, on all pictures
        self.flop: Dict[str, float] = {}
        with self._computing():
            stem = nn.Sequential(backbone.conv1, backbone.relu, backbone.maxpool)
            x, self.stem_flop = run_and_count(
                stem, pictures.contiguous(memory_format=torch.channels_last)
            )
            for name, block in self.blocks.items():
                self.inputs[name] = x
                x, self.flop[name] = run_and_count(block, x)
            self.probability = self._probability(x)  # (1, N, classes), logarithms

    @contextmanager
    def _computing(self) -> Iterator[None]:
        with torch.inference_mode(), torch.autocast(self.device, torch.bfloat16, enabled=self.low):
            yield

    def _probability(self, x: Tensor) -> Tensor:
        """(M x N, C, H, W) to log-probabilities (M, N, classes)."""
        logits = self.head(x.float().mean((2, 3))).double()
        return functional.log_softmax(logits, 1).unflatten(0, (-1, self.count))

    def _from(self, layer: str) -> List[str]:
        """The block in which a layer's masks begin, and those that follow."""
        first = layer.replace(SUM, "0") if layer.endswith(SUM) else layer.rsplit(".", 1)[0]
        names = list(self.blocks)
        return names[names.index(first) :]

    def work(self, layers: Optional[Sequence[str]] = None) -> Work:
        """The cost of scoring these layers, or all."""
        masks, flop = 0, 0.0
        for layer in layers or self.layers:
            first, *behind = (self.flop[name] for name in self._from(layer))
            flop += first + self.layers[layer] * sum(behind)
            masks += self.layers[layer]
        return Work(masks, flop, masks * (self.stem_flop + sum(self.flop.values())))

    def score(self, layer: str, channels: Optional[Sequence[int]] = None) -> np.ndarray:
        """Scores of a layer's channels (or of those given), (C,), nats."""
        chosen = list(range(self.layers[layer]) if channels is None else channels)
        at_once = max(1, IMAGES_AT_ONCE // self.count)
        starts = range(0, len(chosen), at_once)
        parts = [self._divergences(layer, chosen[start : start + at_once]) for start in starts]
        return np.concatenate(parts)

    def _divergences(self, layer: str, channels: Sequence[int]) -> np.ndarray:
        first, *behind = self._from(layer)
        x, block, stage = self.inputs[first], self.blocks[first], first.split(".")[0]
        with self._computing():
            gone = torch.tensor(channels, device=x.device)
            masks = torch.ones(len(channels), self.layers[layer], device=x.device)
            masks[torch.arange(len(channels)), gone] = 0
            if layer.endswith(SUM):
                x = self._masked(block(x), masks)
            else:
                x = self._first_block(layer, block, x, gone)
            for name in behind:
                x = self.blocks[name](x)
                if layer.endswith(SUM) and name.startswith(f"{stage}."):
                    x = self._masked(x, masks)
            p, q = self.probability, self._probability(x)
        return (p.exp() * (p - q)).sum(2).mean(1).clamp_min(0).cpu().numpy()

    def _masked(self, x: Tensor, masks: Tensor) -> Tensor:
        """x (N or M x N, C, H, W) under masks (M, C): (M x N, C, H, W)."""
        pictures = x.unflatten(0, (-1, self.count))
        return (pictures * masks[:, None, :, None, None].to(x.dtype)).flatten(0, 1)

    def _first_block(self, layer: str, block: Bottleneck, x: Tensor, gone: Tensor) -> Tensor:
        """The block in which the masks begin: nearly all of it is the same for all of them."""
        shortcut = x if block.downsample is None else block.downsample(x)
        y = functional.relu(block.conv1(x))
        if layer.endswith("conv1"):
            y = block.conv3(functional.relu(without(block.conv2, y, gone)))
        else:
            y = without(block.conv3, functional.relu(block.conv2(y)), gone)
        return functional.relu(y.unflatten(0, (-1, self.count)) + shortcut).flatten(0, 1)


def named_blocks(backbone: nn.Module) -> Dict[str, Bottleneck]:
    """The backbone's bottlenecks by name, from the input to the output."""
    return {name: part for name, part in backbone.named_modules() if isinstance(part, Bottleneck)}


def without(conv: nn.Conv2d, x: Tensor, channels: Tensor) -> Tensor:
    """The output of a convolution if its input x (N, C, H, W) lacks one channel, for each of M
    channels: (M x N, O, H, W).

    The whole output less the channel's part in it, which costs 1 / C of computing it again.
    """
    parts = conv.weight[:, channels].transpose(0, 1).reshape(-1, 1, *conv.kernel_size)
    part = functional.conv2d(
        x[:, channels], parts, None, conv.stride, conv.padding, conv.dilation, groups=len(channels)
    )
    part = part.unflatten(1, (len(channels), -1)).transpose(0, 1)
    return (conv(x) - part).flatten(0, 1).contiguous(memory_format=torch.channels_last)


def fisher_scores(classifier: Classifier, pictures: Tensor, seed: int = 0) -> Scores:
    """A first-order estimate of every score from one backward pass for each picture (quick mode).

    The divergence itself has no slope at the present network. Its curvature is the Fisher
    information, so the estimate is half the mean square of what first-order Taylor expansion says
    about the log-probability of a class, drawn from the network's own probabilities, when a channel
    is taken away (Theis et al. 2018).
    """
    network = copy.deepcopy(classifier).eval().requires_grad_(False)
    layers, device = mask_layers(network.config), pictures.device
    masks = {
        name: torch.ones(count, 1, 1, device=device, requires_grad=True)
        for name, count in layers.items()
    }

    def mask(module: nn.Module, layer: str) -> None:
        module.register_forward_hook(lambda _, __, output: output * masks[layer])

    for name, block in named_blocks(network.backbone).items():
        mask(block.bn1, f"{name}.conv1")
        mask(block.bn2, f"{name}.conv2")
        mask(block, f"{name.split('.')[0]}.{SUM}")
    generator = torch.Generator().manual_seed(seed)
    squares = {name: torch.zeros(count, device=device) for name, count in layers.items()}
    for picture in pictures:
        log_probability = functional.log_softmax(network(picture[None]), 1)[0]
        drawn = int(torch.multinomial(log_probability.detach().exp().cpu(), 1, generator=generator))
        slopes = torch.autograd.grad(log_probability[drawn], list(masks.values()))
        for name, slope in zip(masks, slopes):
            squares[name] += slope.flatten() ** 2
    halved = {name: square / (2 * len(pictures)) for name, square in squares.items()}
    return {name: score.cpu().numpy().astype(np.float64) for name, score in halved.items()}


def rank_correlation(one: Scores, other: Scores) -> float:
    """Spearman's correlation of two sets of scores over all channels."""
    values = (np.concatenate([scores[name] for name in one]) for scores in (one, other))
    first, second = (np.argsort(np.argsort(value)) for value in values)
    return float(np.corrcoef(first, second)[0, 1])


# -- Files -----------------------------------------------------------------------------------------


def score_file(
    weights: Path,
    config: ClassifyConfig,
    pictures: int,
    out: Path,
    precision: str = "fp32",
    quick: bool = False,
    device: str = "cpu",
) -> Scores:
    """Scores of a classifier's channels on validation pictures, written to the CSV `out` layer by
    layer, the cheapest first. Layers that the file has are not scored again.

    Raises InputError for a file of other weights, pictures or precision.
    """
    classifier = load_classifier(weights).to(usable_device(device))
    some = sample(config, pictures).to(device)
    origin = (
        f"{'first-order estimates' if quick else precision} on {pictures} pictures of {config.data}, "
        f"{config.size} px, weights {digest(weights.read_bytes())}"
    )
    if quick:
        scores = fisher_scores(classifier, some)
        write_scores(out, scores, origin)
        return scores
    done = read_scores(out, classifier.config, origin, whole=False) if out.exists() else {}
    scorer = Scorer(classifier, some, precision)
    cost = {name: scorer.work([name]).flop for name in scorer.layers if name not in done}
    with progress(sum(cost.values()), "scores", late=True) as bar:
        for name in sorted(cost, key=lambda name: cost[name]):
            done[name] = scorer.score(name)
            write_scores(out, done, origin)
            bar.update(cost[name])
    return done


def sample(config: ClassifyConfig, count: int) -> Tensor:
    """The first validation pictures, spread over the classes where they are sorted by class: (N, 3,
    S, S)."""
    pictures = open_pictures(config.data, config.size, config.seed, validation=True)
    step = max(1, len(pictures) // count) if isinstance(pictures, Folders) else 1
    return torch.from_numpy(np.stack([pictures[index * step][0] for index in range(count)]))


def write_scores(path: Path, scores: Scores, origin: str) -> None:
    """A CSV of layer, channel, score; the first line is the origin."""
    lines = [f"# {origin}", "layer,channel,score"]
    for name, values in scores.items():
        lines += [f"{name},{channel},{value:.6g}" for channel, value in enumerate(values)]
    write_text(path, "\n".join(lines) + "\n")


def read_scores(
    path: Union[str, Path], config: NetworkConfig, origin: str = "", whole: bool = True
) -> Scores:
    """Read scores of a network with these channel counts.

    Raises InputError for a malformed file, for scores of another network or (if given) another
    origin, and, with `whole`, for scores that are not complete.
    """
    known = mask_layers(config)
    found: Dict[str, List[float]] = {}
    try:
        head, *lines = read_text(path).splitlines()
        for row in csv.DictReader(lines):
            found.setdefault(row["layer"], []).append(float(row["score"]))
    except (csv.Error, KeyError, TypeError, ValueError):
        raise InputError(
            f"{path}: not a file of channel scores; `siambook prune score` writes one"
        ) from None
    scores = {name: np.array(found[name]) for name in known if name in found}
    fits = all(len(own) == known[name] and np.isfinite(own).all() for name, own in scores.items())
    if not fits or set(found) - set(known) or (whole and len(scores) < len(known)):
        raise InputError(f"{path}: scores of another network, or not all of them")
    if origin and head != f"# {origin}":
        raise InputError(
            f"{path}: scored with other weights or pictures ({head[2:]}); name another file"
        )
    return scores


def run_and_count(module: nn.Module, x: Tensor) -> Tuple[Any, float]:
    """A module's output for x, and the floating point operations of its convolutions: two for every
    multiplication with addition, all images of the batch counted."""
    flop = 0.0

    def count(conv: Any, _: Any, output: Tensor) -> None:
        nonlocal flop
        flop += 2.0 * conv.weight[0].numel() * output.numel()

    convolutions = [part for part in module.modules() if isinstance(part, nn.Conv2d)]
    hooks = [conv.register_forward_hook(count) for conv in convolutions]
    output = module(x)
    for hook in hooks:
        hook.remove()
    return output, flop
