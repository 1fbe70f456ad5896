"""Training of the tracker (thesis section 3.1.1): pairs, both losses of the region proposal
network, and distillation."""

from __future__ import annotations

import functools
import os
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Dict, List, Mapping, Optional, Tuple, Union

import torch
from torch import Tensor, nn

from lib.engines.pytorch import usable_device
from lib.errors import InputError
from lib.siamrpn import checkpoint
from lib.siamrpn.network import NetworkConfig, SiamRPN, backbone_config
from lib.training.config import read_config
from lib.training.distill import Distiller, Teacher, tracker_loss
from lib.training.loop import PRECISIONS, Training, fit
from lib.training.losses import tracking_loss
from lib.training.pairs import PairConfig, PairDataset, load_clips

SHAPES = ("linear", "log")  # of learning rates
OPTIMIZERS: Dict[str, Any] = {
    "adamw": torch.optim.AdamW,
    "sgd": functools.partial(torch.optim.SGD, momentum=0.9),
}


@dataclass(frozen=True)
class Phase:
    """A stretch of training with its own crops, losses and learning rate.

    pairs: its length. search_size: side of the search crops. lr: first and last learning rate,
    joined by `shape` ("linear", "log"). epochs: the rate stays the same within one of this many
    equal parts (0: it moves with every step). reaches_end: whether the last part has `lr[1]`
    itself, or leaves it to the following phase, as PySOT's warm-up does. backbone_lr: factor of the
    backbone's rate, 0 freezes it. tracking, distill: weights of the two losses. freeze_norm: batch
    normalisation uses and keeps its running statistics.

    PySOT's schedule, warm-up and a logarithmic fall, is such phases (data/recipes/siamrpn_r50.yaml).
    """

    pairs: int
    search_size: int = 255
    lr: Tuple[float, float] = (1e-3, 1e-3)
    shape: str = "linear"
    epochs: int = 0
    reaches_end: bool = True
    backbone_lr: float = 1.0
    tracking: float = 1.0
    distill: float = 0.0
    freeze_norm: bool = False

    def __post_init__(self) -> None:
        known = self.shape in SHAPES and self.search_size in range(135, 512, 8)
        if self.pairs < 1 or not known:
            raise ValueError(
                f"impossible phase: pairs {self.pairs}, shape {self.shape!r}, search_size {self.search_size}"
            )
        if len(self.lr) != 2 or not all(0 < rate < 1e3 for rate in self.lr):
            raise ValueError(
                f"impossible phase: lr {list(self.lr)}, two numbers above 0 are needed"
            )
        if not (self.tracking or self.distill):
            raise ValueError(
                "impossible phase: neither tracking nor distill has a weight, so there is nothing to learn"
            )


def learning_rate(phase: Phase, done: int) -> float:
    """Learning rate after `done` pairs of a phase."""
    progress = done / phase.pairs
    if phase.epochs:
        epoch = min(phase.epochs - 1, int(progress * phase.epochs))
        progress = epoch / max(1, phase.epochs - (1 if phase.reaches_end else 0))
    first, last = phase.lr
    if phase.shape == "log":
        return float(first * (last / first) ** progress)
    return float(first + (last - first) * progress)


@dataclass(frozen=True)
class TrainConfig:
    """A training run as data.

    data: manifest or folder (`pairs.load_clips`). width: of the ResNet-50. initial: weights of a
    whole network to start from; backbone: of a backbone alone; either may be pruned. teacher:
    weights of a tracker whose maps and answers are distilled, instead of an ImageNet network's
    features. optimizer: "adamw", or "sgd" with PySOT's momentum of 0.9. average: decay of the
    running average of weights, per step (0: none). save_every and log_every count pairs.
    """

    data: str
    phases: Tuple[Phase, ...]
    pairs: PairConfig = field(default_factory=PairConfig)
    width: float = 0.25
    initial: Optional[str] = None
    backbone: Optional[str] = None
    teacher: Optional[str] = None
    batch_size: int = 24
    optimizer: str = "adamw"
    weight_decay: float = 1e-2
    average: float = 0.999
    precision: str = "bf16"
    seed: int = 0
    workers: int = 1
    save_every: int = 4800
    log_every: int = 480

    def __post_init__(self) -> None:
        if not self.phases:
            raise ValueError("no phases")
        if min(self.batch_size, self.save_every, self.log_every) < 1 or self.average >= 1:
            raise ValueError(
                "batch_size, save_every and log_every should be above 0, average below 1"
            )
        if not 0 < self.width <= 4:
            raise ValueError("width should be above 0 (1 is ResNet-50)")
        if self.precision not in PRECISIONS or self.optimizer not in OPTIMIZERS:
            raise ValueError(
                f"precision {self.precision!r} or optimizer {self.optimizer!r} is not known"
            )


def load_config(
    path: Union[str, Path], overrides: Optional[Mapping[str, Any]] = None
) -> TrainConfig:
    """Read a training configuration (YAML). Unknown keys and impossible values raise InputError."""
    return read_config(TrainConfig, path, overrides)


def train(
    config: TrainConfig,
    out: Union[str, Path],
    device: str = "cpu",
    stop_after: Optional[int] = None,
) -> Path:
    """Train a tracker in the folder `out`, or continue there (`loop.fit`); returns the path of
    `weights.pth`. Raises InputError for bad data, weights or checkpoints."""
    for name in (config.initial, config.backbone, config.teacher):
        if name and not os.path.isfile(name):
            raise InputError(f"{name}: no such weights file")
    return fit(TrackerTraining(config, usable_device(device)), Path(out), stop_after)


class TrackerTraining(Training):
    """The tracker's network, with the projections that distillation needs."""

    unit = "pair"
    columns = ("pairs", "phase", "lr", "cls", "loc", "total", "distill")
    clip_norm = 10.0  # as in PySOT

    def __init__(self, config: TrainConfig, device: torch.device) -> None:
        self.labelled = load_clips(config.data, config.pairs.holdout)
        # Distillation alone needs no boxes, so nothing is held out from it
        self.pictures = load_clips(config.data)
        network = initial_network(config)
        self.distiller = Distiller(network.config).to(device)
        network.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        behind = (network.neck, network.rpn_head, self.distiller)
        groups: List[Any] = [
            {"params": list(network.backbone.parameters())},
            {"params": [p for part in behind for p in part.parameters()]},
        ]
        optimizer = OPTIMIZERS[config.optimizer](groups, lr=0.1, weight_decay=config.weight_decay)
        lengths = [phase.pairs for phase in config.phases]
        super().__init__(config, network, optimizer, lengths, config.log_every, config.average)
        self.modules["distiller"] = self.distiller
        self.phase = config.phases[0]
        self.teacher: Optional[nn.Module] = None

    def begin(self, phase: int) -> PairDataset:
        """Load the phase's teacher and set training mode. A frozen backbone's parameters get no
        gradient, and frozen batch normalisation keeps its statistics."""
        config, self.phase, self.teacher = self.config, self.config.phases[phase], None
        if self.phase.distill:
            name = config.teacher
            teacher: Any = checkpoint.load_network(name) if name else Teacher()
            self.teacher = teacher.requires_grad_(False).to(
                self.device, memory_format=torch.channels_last
            )  # type: ignore[call-overload]
        network, frozen = self.network, self.phase.backbone_lr == 0
        network.train()
        self.distiller.train()
        network.backbone.requires_grad_(not frozen)
        if frozen or self.phase.freeze_norm:
            part = network if self.phase.freeze_norm else network.backbone
            for module in part.modules():
                if isinstance(module, nn.BatchNorm2d):
                    module.eval()
        clips = self.labelled if self.phase.tracking else self.pictures
        return PairDataset(clips, config.pairs, self.phase.search_size, config.seed)

    def rates(self, phase: int, done: int) -> List[float]:
        rate = learning_rate(self.phase, done)
        return [rate * self.phase.backbone_lr, rate]

    def losses(self, batch: Mapping[str, Tensor]) -> Dict[str, Tensor]:
        phase, network, teacher = self.phase, self.network, self.teacher
        exemplar, search = (
            batch[key].to(self.device, torch.float32).contiguous(memory_format=torch.channels_last)
            for key in ("exemplar", "search")
        )
        zero = torch.zeros((), device=self.device)
        losses = {"cls": zero, "loc": zero, "total": zero, "distill": zero}
        with torch.set_grad_enabled(phase.backbone_lr != 0):
            features = network.backbone(search)
        if isinstance(teacher, Teacher):
            losses["distill"] = self.distiller(features, teacher(search))
        if phase.tracking or isinstance(teacher, SiamRPN):
            kernels, maps = network.template(exemplar), network.search_maps(features)
            cls, loc = network.correlate(kernels, maps)
            wanted = (batch[key].to(self.device) for key in ("label", "delta", "weight"))
            losses.update(tracking_loss(cls, loc, *wanted))
            if isinstance(teacher, SiamRPN):
                answers = [*kernels, *maps, cls, loc]
                losses["distill"] = tracker_loss(teacher, answers, exemplar, search)
        losses["sum"] = phase.tracking * losses["total"] + phase.distill * losses["distill"]
        return losses

    def row(self, phase: int, rate: float, means: Mapping[str, float]) -> List[str]:
        return [str(phase), f"{rate:.3g}", *(f"{means[key]:.5f}" for key in self.columns[3:])]


def initial_network(config: TrainConfig) -> SiamRPN:
    """The network that training starts from: random weights, and those of `initial` or `backbone`,
    whose channel counts it takes.

    Pruning takes channels from the four stages only, so the stem tells the width. Raises InputError
    for weights of another width.
    """
    channels, source = NetworkConfig.resnet50(config.width), config.initial or config.backbone
    if source:
        try:
            stem, stages = backbone_config(checkpoint.read_backbone(source), prefix="")
        except KeyError as error:
            raise InputError(f"{source}: no ResNet-50 of a tracker (no {error})") from None
        if stem != channels.stem:
            raise InputError(
                f"{source}: a backbone of another width ({stem} channels in its stem, {channels.stem} at {config.width})"
            )
        channels = replace(channels, stages=stages)
    torch.manual_seed(config.seed)
    network = SiamRPN(channels)
    initialise(network)
    if config.initial:
        checkpoint.load_state(network, checkpoint.read_state(config.initial), config.initial)
    if config.backbone:
        backbone = checkpoint.read_backbone(config.backbone)
        checkpoint.load_state(network.backbone, backbone, config.backbone)
    return network


def initialise(network: SiamRPN) -> None:
    """He initialisation; every residual branch starts at zero, so that the untrained backbone is an
    identity between stages."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    for name, parameter in network.named_parameters():
        if name.endswith("bn3.weight"):
            nn.init.zeros_(parameter)
    for branch in network.rpn_head.branches():
        nn.init.normal_(branch.head[-1].weight, std=0.01)  # type: ignore[arg-type]
