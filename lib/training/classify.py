"""Training the backbone as a classifier (thesis section 3.6.2): a new head on a fixed backbone, and
fine-tuning a pruned one.

A folder holds `checkpoint.pt`, `log.csv` and at the end `weights.pth` (backbone and classification
layer in half precision). Stopped at any moment, a run goes on to the same weights: momentum, rate
and the order of pictures are where they were.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from math import cos, pi
from pathlib import Path
from typing import Any, Callable, Dict, List, Mapping, Optional, Tuple, Union

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader
from tqdm import tqdm

from lib.engines.pytorch import usable_device
from lib.errors import InputError
from lib.siamrpn.checkpoint import (
    load_state,
    read_backbone,
    read_plain,
    read_state,
    save_weights,
    save_whole,
)
from lib.siamrpn.network import Backbone, NetworkConfig, backbone_config
from lib.training import distributed
from lib.training.config import build, read_yaml
from lib.training.log import TrainingLog
from lib.training.pictures import GENERATED, Folders, Generated, open_pictures

COLUMNS = ("pictures", "lr", "loss", "train_top1", "top1", "top5")
PRECISIONS = {"fp32": None, "bf16": torch.bfloat16}


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

    Raises InputError for a file without a backbone, or a classification layer for another number of
    classes.
    """
    state = {
        **{f"backbone.{key}": value for key, value in read_backbone(path).items()},
        **{key: value for key, value in read_state(path).items() if key.startswith("fc.")},
    }
    try:
        stem, stages = backbone_config(state)
    except KeyError as error:
        raise InputError(f"{path}: no ResNet-50 of a tracker (no {error})") from None
    known = state["fc.weight"].shape[0] if "fc.weight" in state else 0
    if classes and known and known != classes:
        raise InputError(
            f"{path}: its classification layer has {known} classes, the pictures have {classes}"
        )
    if not (classes or known):
        raise InputError(f"{path}: has no classification layer; `siambook prune head` trains one")
    classifier = Classifier(NetworkConfig(stem, stages, rpn=4 * stem), classes or known)
    if not known:
        with torch.random.fork_rng():
            torch.manual_seed(0)
            nn.init.normal_(classifier.fc.weight, std=0.01)
            nn.init.zeros_(classifier.fc.bias)
        state.update({f"fc.{key}": value for key, value in classifier.fc.state_dict().items()})
    load_state(classifier, state, path)
    return classifier.eval()


@dataclass(frozen=True)
class ClassifyConfig:
    """A classification training as data. data: "generated", or a folder of ImageNet's kind. size:
    of a picture's side, pixels.

    pictures: length of the run. lr: highest rate; it rises linearly over `warmup` pictures and
    falls along a cosine to 0. head_only: the backbone stays as it is, its batch statistics too.
    Counts of everything are in pictures.
    """

    data: str = GENERATED
    size: int = 95
    pictures: int = 20000
    batch_size: int = 64
    lr: float = 0.1
    warmup: int = 0
    momentum: float = 0.9
    weight_decay: float = 1e-4
    head_only: bool = False
    precision: str = "bf16"
    seed: int = 0
    workers: int = 1
    validation: int = 2048  # generated pictures to validate on; a folder's are used whole
    evaluate_every: int = 4000
    save_every: int = 4000

    def __post_init__(self) -> None:
        counts = (
            self.pictures,
            self.batch_size,
            self.evaluate_every,
            self.save_every,
            self.validation,
        )
        if min(counts) < 1 or self.size < 63 or self.lr <= 0 or self.precision not in PRECISIONS:
            raise InputError(f"impossible training: {self}")


def load_classify_config(path: Union[str, Path]) -> ClassifyConfig:
    """Read a configuration (YAML). Unknown keys and impossible values raise InputError."""
    return build(ClassifyConfig, read_yaml(path), path)


def rate(config: ClassifyConfig, done: int) -> float:
    """Learning rate after `done` pictures: warm-up, then a cosine without restart."""
    if done < config.warmup:
        return config.lr * (done + config.batch_size) / (config.warmup + config.batch_size)
    return (
        config.lr
        * (1 + cos(pi * (done - config.warmup) / max(1, config.pictures - config.warmup)))
        / 2
    )


class _Run:
    """All that a step changes."""

    def __init__(
        self, classifier: Classifier, config: ClassifyConfig, device: torch.device
    ) -> None:
        self.network = classifier.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.network.backbone.requires_grad_(not config.head_only)
        trained = [p for p in self.network.parameters() if p.requires_grad]
        self.optimizer = torch.optim.SGD(
            trained, lr=config.lr, momentum=config.momentum, weight_decay=config.weight_decay
        )
        self.done = 0
        # Loss and share of right answers of the steps since the log's last row
        self.unlogged: List[Tuple[float, float]] = []

    def state(self) -> Dict[str, Any]:
        return {
            "network": self.network.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "done": self.done,
            "unlogged": self.unlogged,
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        self.network.load_state_dict(state["network"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.done, self.unlogged = (
            state["done"],
            [(loss, right) for loss, right in state["unlogged"]],
        )


def train_classifier(
    classifier: Classifier,
    config: ClassifyConfig,
    out: Union[str, Path],
    device: str = "cpu",
    progress: bool = True,
    stop_after: Optional[int] = None,
    say: Callable[[str], None] = print,
) -> Path:
    """Run or continue a training in the folder `out`; returns the path of `weights.pth`.

    stop_after: end with a checkpoint once so many pictures were seen, as a time limit would. Under
    torchrun every process takes its share of each batch. Raises InputError for pictures that do not
    fit the classes, or a checkpoint of another training.
    """
    out = Path(out)
    usable_device(device)
    pictures = open_pictures(config.data, config.size, config.seed)
    if len(pictures.classes) != classifier.classes:
        raise InputError(
            f"{config.data}: {len(pictures.classes)} classes of pictures, {classifier.classes} of the network"
        )
    with distributed.processes(device) as place:
        run = _Run(classifier, config, place)
        checkpoint, log = out / "checkpoint.pt", TrainingLog(out / "log.csv", COLUMNS)
        if checkpoint.exists():
            _resume(run, checkpoint, config)
            say(f"{checkpoint}: continuing after {run.done} pictures")
        distributed.wait()
        if distributed.is_first():
            log.start(run.done)
        _train(
            run,
            config,
            pictures,
            min(config.pictures, stop_after or config.pictures),
            place,
            log,
            checkpoint,
            progress,
        )
        if distributed.is_first():
            save_whole(checkpoint, {**run.state(), "config": asdict(config)})
            save_weights(out / "weights.pth", run.network.state_dict())
        distributed.wait()
    return out / "weights.pth"


def _resume(run: _Run, checkpoint: Path, config: ClassifyConfig) -> None:
    state = read_plain(checkpoint)
    if not isinstance(state, Mapping) or not set(run.state()) | {"config"} <= set(state):
        raise InputError(f"{checkpoint}: not a checkpoint of a classification training")
    free = {"workers", "save_every", "data"}
    changed = [
        key
        for key, value in asdict(config).items()
        if key not in free and state["config"].get(key) != value
    ]
    shapes = {key: value.shape for key, value in run.network.state_dict().items()}
    if changed or shapes != {key: value.shape for key, value in state["network"].items()}:
        raise InputError(
            f"{checkpoint}: of another training ({', '.join(changed) or 'a network of other widths'})"
        )
    run.restore(state)


def _train(
    run: _Run,
    config: ClassifyConfig,
    pictures: Union[Generated, Folders],
    end: int,
    device: torch.device,
    log: TrainingLog,
    checkpoint: Path,
    progress: bool,
) -> None:
    batches = [
        list(range(start, min(start + config.batch_size, config.pictures)))
        for start in range(run.done, end, config.batch_size)
    ]
    own = [distributed.share(batch) for batch in batches]
    loader = DataLoader(pictures, batch_sampler=own, num_workers=config.workers)  # type: ignore[arg-type]
    with tqdm(
        total=config.pictures,
        initial=run.done,
        unit="picture",
        smoothing=0.05,
        disable=not (progress and distributed.is_first()),
    ) as bar:
        for indices, (images, labels) in zip(batches, loader):
            run.unlogged.append(
                _step(
                    run,
                    config,
                    images.to(device, memory_format=torch.channels_last),
                    labels.to(device),
                )
            )
            before, run.done = run.done, run.done + len(indices)
            if (
                run.done // config.evaluate_every > before // config.evaluate_every
                or run.done >= config.pictures
            ):
                if distributed.is_first():
                    loss, right = (sum(values) / len(run.unlogged) for values in zip(*run.unlogged))
                    top1, top5 = accuracy(run.network, config, device)
                    log.add(
                        run.done,
                        f"{rate(config, before):.4g}",
                        *(f"{value:.5f}" for value in (loss, right, top1, top5)),
                    )
                    bar.set_postfix_str(f"top-1 {top1:.3f}")
                run.unlogged.clear()
                distributed.wait()
            if (
                run.done // config.save_every > before // config.save_every
                and distributed.is_first()
            ):
                save_whole(checkpoint, {**run.state(), "config": asdict(config)})
            bar.update(len(indices))


def _step(run: _Run, config: ClassifyConfig, images: Tensor, labels: Tensor) -> Tuple[float, float]:
    """One step; returns the loss and the share of pictures that were right."""
    network, dtype = run.network, PRECISIONS[config.precision]
    network.train()
    if config.head_only:
        network.backbone.eval()
    for group in run.optimizer.param_groups:
        group["lr"] = rate(config, run.done)
    with torch.autocast(images.device.type, dtype or torch.bfloat16, enabled=dtype is not None):
        answer = network(images).float()
    loss = functional.cross_entropy(answer, labels)
    if not bool(torch.isfinite(loss)):
        raise InputError(f"the loss is not finite after {run.done} pictures; lower lr")
    run.optimizer.zero_grad(set_to_none=True)
    loss.backward()
    distributed.average_gradients(network.parameters())
    run.optimizer.step()
    distributed.average_statistics(network)
    return float(loss.detach()), float((answer.argmax(1) == labels).float().mean())


@torch.no_grad()
def accuracy(
    classifier: Classifier, config: ClassifyConfig, device: Union[str, torch.device] = "cpu"
) -> Tuple[float, float]:
    """Top-1 and top-5 accuracy on the validation pictures, 0..1."""
    pictures = open_pictures(config.data, config.size, config.seed, validation=True)
    count = config.validation if isinstance(pictures, Generated) else len(pictures)
    batches = [list(range(start, min(start + 64, count))) for start in range(0, count, 64)]
    loader = DataLoader(pictures, batch_sampler=batches, num_workers=0)  # type: ignore[arg-type]
    dtype, right = PRECISIONS[config.precision], [0, 0]
    classifier.eval()
    for images, labels in loader:
        with torch.autocast(
            torch.device(device).type, dtype or torch.bfloat16, enabled=dtype is not None
        ):
            answer = classifier(images.to(device, memory_format=torch.channels_last)).float().cpu()
        best = answer.topk(min(5, classifier.classes), 1).indices == labels[:, None]
        right = [right[0] + int(best[:, 0].sum()), right[1] + int(best.any(1).sum())]
    return right[0] / count, right[1] / count
