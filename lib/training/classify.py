"""Training the backbone as a classifier (thesis section 3.6.2): a new layer on a fixed backbone, and
fine-tuning a pruned one."""

from __future__ import annotations

from dataclasses import dataclass
from math import cos, pi
from pathlib import Path
from typing import Dict, List, Mapping, Tuple, Union

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader, Subset

from lib.errors import InputError
from lib.siamrpn.checkpoint import load_state, read_backbone, read_state
from lib.siamrpn.network import Backbone, NetworkConfig, backbone_config
from lib.training.config import read_config
from lib.training.loop import PRECISIONS, Training
from lib.training.pictures import GENERATED, Folders, Generated, open_pictures


class Classifier(nn.Module):
    """The tracker's backbone with what figure 3.11 crosses out: global average pooling and a fully
    connected layer."""

    def __init__(self, config: NetworkConfig, classes: int) -> None:
        super().__init__()
        self.config, self.classes = config, classes
        self.backbone = Backbone(config)
        self.fc = nn.Linear(config.stages[-1].channels, classes)

    def forward(self, pictures: Tensor) -> Tensor:
        """Pictures (B, 3, S, S), BGR 0..255, to class scores (B, classes)."""
        return self.fc(self.backbone(pictures)[-1].mean((2, 3)))


def load_classifier(path: Union[str, Path], classes: int = 0) -> Classifier:
    """A classifier's weights; or, where `classes` are given, the backbone of a tracker with a new
    layer for so many classes.

    Raises InputError for a file without a backbone, or without a layer where no classes are given.
    """
    state = {f"backbone.{key}": value for key, value in read_backbone(path).items()}
    layer = {key: value for key, value in read_state(path).items() if key.startswith("fc.")}
    try:
        stem, stages = backbone_config(state)
    except KeyError as error:
        raise InputError(f"{path}: no ResNet-50 of a tracker (no {error})") from None
    if not (layer or classes):
        raise InputError(f"{path}: has no classification layer; `siambook prune head` trains one")
    classes = len(layer["fc.weight"]) if layer else classes
    classifier = Classifier(NetworkConfig(stem, stages, rpn=4 * stem), classes)
    if not layer:
        with torch.random.fork_rng():
            torch.manual_seed(0)
            nn.init.normal_(classifier.fc.weight, std=0.01)
            nn.init.zeros_(classifier.fc.bias)
        layer = {f"fc.{key}": value for key, value in classifier.fc.state_dict().items()}
    load_state(classifier, {**state, **layer}, path)
    return classifier.eval()


@dataclass(frozen=True)
class ClassifyConfig:
    """A classification training as data. data: "generated", or a folder like ImageNet's. size: side
    of a picture, pixels.

    pictures: length of the run. lr: highest rate; it rises linearly over `warmup` pictures and
    falls along a cosine to 0. head_only: the backbone stays as it is, with its batch statistics.
    All counts are in pictures.
    """

    data: str = GENERATED
    size: int = 95
    pictures: int = 20000
    batch_size: int = 64
    lr: float = 0.1
    warmup: int = 0
    head_only: bool = False
    precision: str = "bf16"
    seed: int = 0
    workers: int = 1
    validation: int = 2048  # generated pictures to validate on; a folder's are all used
    evaluate_every: int = 4000
    save_every: int = 4000

    def __post_init__(self) -> None:
        counts = (self.pictures, self.batch_size, self.evaluate_every, self.save_every)
        known = self.precision in PRECISIONS
        if min(*counts, self.validation) < 1 or self.size < 63 or self.lr <= 0 or not known:
            raise ValueError(
                "size should be at least 63, lr and all counts above 0, precision fp32 or bf16"
            )


def load_classify_config(path: Union[str, Path]) -> ClassifyConfig:
    """Read a configuration (YAML). Unknown keys and impossible values raise InputError."""
    return read_config(ClassifyConfig, path)


def rate(config: ClassifyConfig, done: int) -> float:
    """Learning rate after `done` pictures: warm-up, then a cosine without restart."""
    if done < config.warmup:
        return config.lr * (done + config.batch_size) / (config.warmup + config.batch_size)
    progress = (done - config.warmup) / max(1, config.pictures - config.warmup)
    return config.lr * (1 + cos(pi * progress)) / 2


class ClassifierTraining(Training):
    """A classifier's training, in one phase, for `loop.fit`. Raises InputError for pictures that do
    not fit the classes."""

    unit = "picture"
    columns = ("pictures", "lr", "loss", "train_top1", "top1", "top5")

    def __init__(
        self, classifier: Classifier, config: ClassifyConfig, device: torch.device
    ) -> None:
        self.pictures = open_pictures(config.data, config.size, config.seed)
        if len(self.pictures.classes) != classifier.classes:
            raise InputError(
                f"{config.data}: {len(self.pictures.classes)} classes of pictures, {classifier.classes} of the network"
            )
        classifier.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        classifier.backbone.requires_grad_(not config.head_only)
        learning = [p for p in classifier.parameters() if p.requires_grad]
        optimizer = torch.optim.SGD(learning, lr=config.lr, momentum=0.9, weight_decay=1e-4)
        super().__init__(config, classifier, optimizer, [config.pictures], config.evaluate_every)

    def begin(self, phase: int) -> Union[Generated, Folders]:
        self.network.train()
        if self.config.head_only:
            self.network.backbone.eval()
        return self.pictures

    def rates(self, phase: int, done: int) -> List[float]:
        return [rate(self.config, done)]

    def losses(self, batch: List[Tensor]) -> Dict[str, Tensor]:
        pictures = batch[0].to(self.device, memory_format=torch.channels_last)
        labels = batch[1].to(self.device)
        answer = self.network(pictures).float()
        right = (answer.argmax(1) == labels).float().mean()
        return {"sum": functional.cross_entropy(answer, labels), "right": right}

    def row(self, phase: int, rate: float, means: Mapping[str, float]) -> List[str]:
        values = (means["sum"], means["right"], *self.accuracy())
        self.begin(phase)  # back to training mode
        return [f"{rate:.4g}", *(f"{value:.5f}" for value in values)]

    @torch.no_grad()
    def accuracy(self) -> Tuple[float, float]:
        """Top-1 and top-5 accuracy on the validation pictures, 0..1."""
        config, network = self.config, self.network.eval()
        pictures = open_pictures(config.data, config.size, config.seed, validation=True)
        count = config.validation if isinstance(pictures, Generated) else len(pictures)
        top1 = top5 = 0
        for images, labels in DataLoader(Subset(pictures, range(count)), 64):
            images = images.to(self.device, memory_format=torch.channels_last)
            with torch.autocast(
                self.device.type, torch.bfloat16, enabled=config.precision == "bf16"
            ):
                answer = network(images).float().cpu()
            right = answer.topk(min(5, network.classes), 1).indices == labels[:, None]
            top1, top5 = top1 + int(right[:, 0].sum()), top5 + int(right.any(1).sum())
        return top1 / count, top5 / count
