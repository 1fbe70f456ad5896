"""The training loop: one configuration file, one folder; stopped at any moment it goes on to the
same weights.

A folder holds `checkpoint.pt` (everything the next step depends on), `log.csv` (losses), and at the
end `weights.pth` (the averaged weights in half precision). What is drawn depends on the pair's
number alone, so a checkpoint needs no data state.
"""

from __future__ import annotations

import functools
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Callable, Dict, Iterable, List, Mapping, Optional, Tuple, Union

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader
from tqdm import tqdm

from lib.engines.pytorch import usable_device
from lib.errors import InputError
from lib.siamrpn.checkpoint import (
    load_backbone,
    load_network,
    load_state,
    read_backbone,
    read_plain,
    read_state,
    save_weights,
    save_whole,
)
from lib.siamrpn.network import NetworkConfig, SiamRPN, backbone_config
from lib.training import distributed
from lib.training.config import build, read_yaml
from lib.training.distill import Distiller, Teacher, TrackerTeacher
from lib.training.log import TrainingLog
from lib.training.losses import tracking_loss
from lib.training.pairs import PairConfig, PairDataset, load_clips
from lib.training.schedule import Phase, learning_rate

COLUMNS = ("pairs", "phase", "lr", "cls", "loc", "total", "distill")
PRECISIONS = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True)
class TrainConfig:
    """A training run as data.

    data: manifest or folder (`pairs.load_clips`). width: of the ResNet-50. initial: weights of a
    whole network to start from; backbone: of a backbone alone; either may be pruned. teacher:
    weights of a tracker whose maps and answers distillation aims at, in place of an ImageNet
    network's features. optimizer: "adamw", or "sgd" with PySOT's momentum of 0.9. average: decay of
    the running average of weights, per step (0: none). save_every and log_every count pairs.
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
    clip_norm: float = 10.0
    average: float = 0.999
    precision: str = "bf16"
    seed: int = 0
    workers: int = 1
    save_every: int = 4800
    log_every: int = 480


def load_config(
    path: Union[str, Path], overrides: Optional[Mapping[str, Any]] = None
) -> TrainConfig:
    """Read a training configuration (YAML). Unknown keys and impossible values raise InputError."""
    data = {**read_yaml(path), **(overrides or {})}
    if not isinstance(data.get("phases"), list) or not data["phases"]:
        raise InputError(f"{path}: no phases")
    phases = [build(Phase, phase, path) for phase in data["phases"]]
    config = build(
        TrainConfig,
        {**data, "phases": phases, "pairs": build(PairConfig, data.get("pairs", {}), path)},
        path,
    )
    if (
        not isinstance(config.data, str)
        or min(config.batch_size, config.save_every, config.log_every) < 1
        or config.average >= 1
    ):
        raise InputError(
            f"{path}: data should be a path, batch_size, save_every and log_every above 0, average below 1"
        )
    if not 0 < config.width <= 4 or not all(
        isinstance(v, (int, float)) and v >= 0 for v in config.pairs.shares.values()
    ):
        raise InputError(
            f"{path}: width should be above 0 (1 is ResNet-50) and the shares of pairs 0 or more"
        )
    if config.precision not in PRECISIONS or config.optimizer not in ("adamw", "sgd"):
        raise InputError(
            f"{path}: precision {config.precision!r} or optimizer {config.optimizer!r} is not known"
        )
    return config


class _Run:
    """Everything a step changes, so that saving and restoring it is complete."""

    def __init__(self, config: TrainConfig, device: torch.device) -> None:
        torch.manual_seed(config.seed)
        self.network = SiamRPN(network_config(config))
        initialise(self.network)
        if config.initial:
            load_state(self.network, read_state(config.initial), config.initial)
        if config.backbone:
            load_backbone(self.network, config.backbone)
        self.distiller = Distiller(self.network.config)
        self.network.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.distiller.to(device)
        self.average = {
            key: value.detach().clone() for key, value in self.network.state_dict().items()
        }
        groups = [
            list(self.network.backbone.parameters()),
            [
                p
                for part in (self.network.neck, self.network.rpn_head, self.distiller)
                for p in part.parameters()
            ],
        ]
        kind = (
            functools.partial(torch.optim.SGD, momentum=0.9)
            if config.optimizer == "sgd"
            else torch.optim.AdamW
        )
        self.optimizer: torch.optim.Optimizer = kind(
            [{"params": g} for g in groups], lr=0.1, weight_decay=config.weight_decay
        )
        self.scaler = _scaler(device.type, config.precision == "fp16")
        self.done = 0

    def state(self) -> Dict[str, Any]:
        return {
            "network": self.network.state_dict(),
            "distiller": self.distiller.state_dict(),
            "average": self.average,
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "done": self.done,
            "random": torch.get_rng_state(),
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        self.network.load_state_dict(state["network"])
        self.distiller.load_state_dict(state["distiller"])
        self.average = {
            key: value.to(self.average[key].device) for key, value in state["average"].items()
        }
        self.optimizer.load_state_dict(state["optimizer"])
        self.scaler.load_state_dict(state["scaler"])
        self.done = state["done"]
        torch.set_rng_state(state["random"])

    def step_average(self, decay: float) -> None:
        """Move the averaged weights (and batch statistics) towards the present ones; faster at the
        start: the past is noise."""
        decay = min(decay, (1 + self.done) / (2400 + self.done))
        for key, value in self.network.state_dict().items():
            if value.is_floating_point():
                self.average[key].lerp_(value.detach(), 1 - decay)
            else:
                self.average[key].copy_(value)


def _scaler(device: str, enabled: bool) -> Any:
    """Keeps the gradients of fp16 from vanishing. PyTorch before 2.3 (JetPack has 2.1 at most)
    knows it for CUDA alone."""
    if hasattr(torch.amp, "GradScaler"):
        return torch.amp.GradScaler(device, enabled=enabled)
    return torch.cuda.amp.GradScaler(enabled=enabled and device == "cuda")


def network_config(config: TrainConfig) -> NetworkConfig:
    """Channel counts of a run: those of the weights it starts from, which must be of the
    configuration's width.

    Pruning takes channels from the four stages only, so the stem tells the width. Raises InputError
    for another one.
    """
    wanted, source = NetworkConfig.resnet50(config.width), config.initial or config.backbone
    if not source:
        return wanted
    try:
        stem, stages = backbone_config(read_backbone(source), prefix="")
    except KeyError as error:
        raise InputError(f"{source}: no ResNet-50 of a tracker (no {error})") from None
    if stem != wanted.stem:
        raise InputError(
            f"{source}: a backbone of another width ({stem} channels in its stem, {wanted.stem} at {config.width})"
        )
    return replace(wanted, stages=stages)


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
        last = branch.head[-1]
        assert isinstance(last, nn.Conv2d)
        nn.init.normal_(last.weight, std=0.01)


def phase_at(phases: Iterable[Phase], done: int) -> Tuple[int, Phase, int]:
    """Number, phase and pairs done in it, after `done` pairs in all; IndexError behind the last."""
    start = 0
    for number, phase in enumerate(phases):
        if done < start + phase.pairs:
            return number, phase, done - start
        start += phase.pairs
    raise IndexError(done)


def train(
    config: TrainConfig,
    out: Union[str, Path],
    device: str = "cpu",
    progress: bool = True,
    stop_after: Optional[int] = None,
    say: Callable[[str], None] = print,
) -> Path:
    """Run or continue a training run in the folder `out`; returns the path of `weights.pth`.

    stop_after: end (with a checkpoint) with the batch that reaches this many pairs in all, as a
    time limit would. Raises InputError for bad data, for a checkpoint of another configuration and
    for a folder that cannot be written.
    """
    with distributed.processes(str(usable_device(device))) as place:
        return _train(config, Path(out), place, progress, stop_after, say)


def _train(
    config: TrainConfig,
    out: Path,
    device: torch.device,
    progress: bool,
    stop_after: Optional[int],
    say: Callable[[str], None],
) -> Path:
    labelled = load_clips(Path(config.data), config.pairs.holdout)
    # Distillation alone needs no boxes, so nothing is held out from it
    pictures = load_clips(Path(config.data))
    run = _Run(config, device)
    checkpoint = out / "checkpoint.pt"
    if checkpoint.exists():
        _resume(run, checkpoint, config)
        say(f"{checkpoint}: continuing after {run.done} pairs")
    distributed.wait()
    log = _Log(out / "log.csv")
    if distributed.is_first():
        log.start(run.done)
    total = sum(phase.pairs for phase in config.phases)
    end = total if stop_after is None else min(total, stop_after)
    shown = progress and distributed.is_first()
    with tqdm(total=total, initial=run.done, unit="pair", disable=not shown, smoothing=0.05) as bar:
        while run.done < end:
            number, phase, _ = phase_at(config.phases, run.done)
            dataset = PairDataset(
                labelled if phase.tracking else pictures,
                config.pairs,
                phase.search_size,
                config.seed,
            )
            _run_phase(run, config, number, phase, dataset, end, device, log, bar, checkpoint)
    if distributed.is_first():
        save_whole(checkpoint, {**run.state(), "config": asdict(config)})
        save_weights(
            out / "weights.pth", run.average if config.average else run.network.state_dict()
        )
    distributed.wait()
    return out / "weights.pth"


def _resume(run: _Run, checkpoint: Path, config: TrainConfig) -> None:
    """Restore a checkpoint of the same settings and the same finished phases; the phase under way
    and later ones may differ."""
    state = read_plain(checkpoint)
    if not isinstance(state, Mapping) or not set(run.state()) | {"config"} <= set(state):
        raise InputError(f"{checkpoint}: not a checkpoint of a training run")
    # For keys that the checkpoint is too old to know
    defaults = asdict(TrainConfig(data="", phases=()))
    was, now = {**defaults, **state["config"]}, asdict(config)
    was["pairs"] = {**defaults["pairs"], **was["pairs"]}
    past = phase_at([*config.phases, Phase(2**62)], state["done"])[0]
    free = {"phases", "workers", "save_every", "log_every", "data"}
    changed = [key for key in now if key not in free and was[key] != now[key]]
    if changed or list(was["phases"])[:past] != list(now["phases"])[:past]:
        raise InputError(
            f"{checkpoint}: was trained with another configuration ({', '.join(changed) or 'phases'} differ)"
        )
    run.restore(state)


def _run_phase(
    run: _Run,
    config: TrainConfig,
    number: int,
    phase: Phase,
    dataset: PairDataset,
    end: int,
    device: torch.device,
    log: _Log,
    bar: Any,
    checkpoint: Path,
) -> None:
    """Train from where the run is to the end of the phase, or to the end of the batch that reaches
    pair number `end`."""
    teacher: Optional[nn.Module] = None
    if phase.distill:
        teacher = TrackerTeacher(load_network(config.teacher)) if config.teacher else Teacher()
        teacher = teacher.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    _set_mode(run, phase)
    start_of_phase = run.done - phase_at(config.phases, run.done)[2]
    last = start_of_phase + phase.pairs
    starts = range(run.done, min(last, end), config.batch_size)
    batches = [list(range(start, min(start + config.batch_size, last))) for start in starts]
    own = [distributed.share(batch) for batch in batches]
    loader = DataLoader(dataset, batch_sampler=own, num_workers=config.workers)  # type: ignore[arg-type]
    for indices, batch in zip(batches, loader):
        rate = learning_rate(phase, run.done - start_of_phase)
        for group, factor in zip(run.optimizer.param_groups, (phase.backbone_lr, 1.0)):
            group["lr"] = rate * factor
        losses = _losses(run, config, phase, batch, teacher, device)
        run.optimizer.zero_grad(set_to_none=True)
        if not bool(torch.isfinite(losses["sum"])):
            raise InputError(
                f"{log.path}: the loss is not finite after {run.done} pairs; lower lr, or take another precision"
            )
        run.scaler.scale(losses["sum"]).backward()
        distributed.average_gradients(
            p for group in run.optimizer.param_groups for p in group["params"]
        )
        run.scaler.unscale_(run.optimizer)
        nn.utils.clip_grad_norm_(
            [p for group in run.optimizer.param_groups for p in group["params"]], config.clip_norm
        )
        scale = run.scaler.get_scale()
        run.scaler.step(run.optimizer)
        run.scaler.update()
        distributed.average_statistics(run.network)
        # fp16 skips a step whose gradients overflowed, and halves its scale
        stepped = run.scaler.get_scale() >= scale
        before, run.done = run.done, run.done + len(indices)
        if config.average and stepped:
            run.step_average(config.average)
        log.waiting.append({key: float(value.detach()) for key, value in losses.items()})
        if run.done // config.log_every > before // config.log_every or indices is batches[-1]:
            row = log.write(run.done, number, rate)
            bar.set_postfix_str(
                f"phase {number}, loss {row['total']:.3f}, distill {row['distill']:.3f}"
            )
        if run.done // config.save_every > before // config.save_every and distributed.is_first():
            save_whole(checkpoint, {**run.state(), "config": asdict(config)})
        bar.update(len(indices))


def _set_mode(run: _Run, phase: Phase) -> None:
    """Training mode, frozen parts left out; a frozen backbone's parameters get no gradient and its
    statistics stay."""
    run.network.train()
    run.distiller.train()
    frozen_norm = (
        run.network
        if phase.freeze_norm
        else run.network.backbone
        if phase.backbone_lr == 0
        else None
    )
    for module in frozen_norm.modules() if frozen_norm is not None else ():
        if isinstance(module, nn.BatchNorm2d):
            module.eval()
    run.network.backbone.requires_grad_(phase.backbone_lr != 0)


def _losses(
    run: _Run,
    config: TrainConfig,
    phase: Phase,
    batch: Mapping[str, Tensor],
    teacher: Optional[nn.Module],
    device: torch.device,
) -> Dict[str, Tensor]:
    """The losses of one batch and `sum`, what is minimised."""
    exemplar, search = (
        batch[key].to(device, torch.float32).contiguous(memory_format=torch.channels_last)
        for key in ("exemplar", "search")
    )
    network, dtype = run.network, PRECISIONS[config.precision]
    zero = torch.zeros((), device=device)
    losses = {"cls": zero, "loc": zero, "total": zero, "distill": zero}
    with torch.autocast(device.type, dtype or torch.bfloat16, enabled=dtype is not None):
        with torch.set_grad_enabled(phase.backbone_lr != 0):
            features = network.backbone(search)
        if isinstance(teacher, Teacher):
            losses["distill"] = run.distiller(features, teacher(search))
        if phase.tracking or isinstance(teacher, TrackerTeacher):
            kernels, maps = network.template(exemplar), network.search_maps(features)
            cls, loc = network.correlate(kernels, maps)
            losses.update(
                tracking_loss(
                    cls, loc, *(batch[key].to(device) for key in ("label", "delta", "weight"))
                )
            )
            if isinstance(teacher, TrackerTeacher):
                losses["distill"] = teacher([*kernels, *maps, cls, loc], exemplar, search)
    return {**losses, "sum": phase.tracking * losses["total"] + phase.distill * losses["distill"]}


class _Log(TrainingLog):
    """Mean losses since the last row; of several processes the first writes, of its own share."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, COLUMNS)
        self.waiting: List[Dict[str, float]] = []

    def write(self, done: int, phase: int, rate: float) -> Dict[str, float]:
        means = {
            key: sum(row[key] for row in self.waiting) / len(self.waiting) for key in COLUMNS[3:]
        }
        self.waiting.clear()
        if distributed.is_first():
            self.add(done, phase, f"{rate:.3g}", *(f"{value:.5f}" for value in means.values()))
        return means
