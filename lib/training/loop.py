"""The training loop of trackers and classifiers: one configuration, one folder.

The folder holds `checkpoint.pt` (everything that the next step depends on), `log.csv`, and at the
end `weights.pth` (in half precision). Stopped at any moment, the same command continues to the same
weights and the same log. Which samples a step sees depends on their numbers alone, so a checkpoint
needs no state of the data.
"""

from __future__ import annotations

import csv
import signal
import threading
from contextlib import contextmanager
from dataclasses import asdict
from itertools import accumulate
from math import isfinite
from pathlib import Path
from typing import Any, Dict, Iterator, List, Mapping, Optional, Sequence, Tuple

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from lib.errors import InputError
from lib.files import whole_file
from lib.progress import progress
from lib.siamrpn.checkpoint import read_plain, save_weights, save_whole

PRECISIONS = ("fp32", "bf16")  # of the convolutions; weights and losses stay in FP32
# Settings that may differ between a checkpoint and the command that continues it
FREE = ("phases", "data", "workers", "save_every", "log_every", "evaluate_every")


class Training:
    """A training between two steps: what a step changes, and (in subclasses) what a step is.

    config: a dataclass with at least batch_size, precision, save_every and workers. lengths:
    samples in each phase. decay: of the running average of weights, per step (0: none).
    """

    unit = "sample"
    columns: Tuple[str, ...] = ()  # of log.csv; the first counts samples
    clip_norm = float("inf")  # largest norm of the gradients

    def __init__(
        self,
        config: Any,
        network: Any,
        optimizer: torch.optim.Optimizer,
        lengths: Sequence[int],
        log_every: int,
        decay: float = 0.0,
    ) -> None:
        self.config, self.network, self.optimizer = config, network, optimizer
        self.log_every, self.decay = log_every, decay
        # What learns, by name in the checkpoint
        self.modules: Dict[str, nn.Module] = {"network": network}
        self.device = next(network.parameters()).device
        self.low = config.precision == "bf16"  # the convolutions' arithmetic
        state = network.state_dict() if decay else {}
        self.average = {key: value.clone() for key, value in state.items()}
        ends = list(accumulate(lengths))
        self.bounds = list(zip([0, *ends], ends))  # of the phases, in samples
        self.done = 0  # samples
        self.unlogged: List[Dict[str, float]] = []  # losses of the steps since the log's last row

    # What a step is

    def begin(self, phase: int) -> Dataset:
        """Prepare the network for a phase; returns its samples by number."""
        raise NotImplementedError

    def rates(self, phase: int, done: int) -> List[float]:
        """Learning rates of the parameter groups after `done` samples of a phase."""
        raise NotImplementedError

    def losses(self, batch: Any) -> Dict[str, Tensor]:
        """Losses of a batch, of which "sum" is minimised."""
        raise NotImplementedError

    def row(self, phase: int, rate: float, means: Mapping[str, float]) -> List[str]:
        """A row of the log without its first column; means: losses since the last row."""
        raise NotImplementedError

    # What a step changes

    def state(self) -> Dict[str, Any]:
        """The checkpoint's content."""
        return {
            **{name: module.state_dict() for name, module in self.modules.items()},
            "average": self.average,
            "optimizer": self.optimizer.state_dict(),
            "done": self.done,
            "unlogged": self.unlogged,
            "config": asdict(self.config),
        }

    def resume(self, checkpoint: Path) -> None:
        """Restore a checkpoint of the same settings and the same finished phases; the present phase
        and later ones may differ. Raises InputError for any other file."""
        state = read_plain(checkpoint)
        if not isinstance(state, Mapping) or set(state) != set(self.state()):
            raise InputError(f"{checkpoint}: not a checkpoint of this kind of training")
        try:
            was, now, self.done = state["config"], asdict(self.config), state["done"]
            changed = [key for key in now if key not in FREE and was.get(key) != now[key]]
            past = sum(end <= self.done for _, end in self.bounds)
            if was.get("phases", ())[:past] != now.get("phases", ())[:past]:
                changed.append("finished phases")
            if changed:
                raise InputError(f"{checkpoint}: was trained with another {', '.join(changed)}")
            if not 0 <= self.done <= self.bounds[-1][1]:
                raise ValueError(self.done)
            for name, module in self.modules.items():
                module.load_state_dict(state[name])
            self.optimizer.load_state_dict(state["optimizer"])
            self.average = {key: value.to(self.device) for key, value in state["average"].items()}
            self.unlogged = state["unlogged"]
        except (AttributeError, KeyError, TypeError, ValueError, RuntimeError):
            raise InputError(f"{checkpoint}: damaged, or of a network of other widths") from None

    def step(self, batch: Any, size: int, rates: Sequence[float]) -> None:
        """One step on a batch of `size` samples."""
        for group, rate in zip(self.optimizer.param_groups, rates):
            group["lr"] = rate
        buffers = [b for module in self.modules.values() for b in module.buffers()]
        before = [buffer.clone() for buffer in buffers] if self.low else []
        values, finite = self._gradients(batch)
        if self.low and not finite:
            # oneDNN's weight gradient of some dilated convolutions on processors without matrix units
            print(f"bf16 gives no finite gradient here: FP32 from {self.unit} {self.done} on")
            self.low = False
            with torch.no_grad():
                for buffer, value in zip(buffers, before):
                    buffer.copy_(value)
            values, finite = self._gradients(batch)
        if not finite:
            raise InputError(
                f"the loss or its gradient is not finite after {self.done} {self.unit}s; lower lr, or take another precision"
            )
        self.optimizer.step()
        self.done += size
        self.unlogged.append(values)
        if self.average:
            self.move_average()

    def _gradients(self, batch: Any) -> Tuple[Dict[str, float], bool]:
        """Clipped gradients of a batch; returns the losses, and whether loss and gradients are
        finite."""
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.low):
            losses = self.losses(batch)
        values = {key: float(value.detach()) for key, value in losses.items()}
        parameters = [p for group in self.optimizer.param_groups for p in group["params"]]
        self.optimizer.zero_grad(set_to_none=True)
        losses["sum"].backward()
        norm = nn.utils.clip_grad_norm_(parameters, self.clip_norm)
        return values, isfinite(values["sum"]) and isfinite(float(norm))

    def move_average(self) -> None:
        """Move the averaged weights (and batch statistics) towards the present ones; faster at the
        start, when the past is noise."""
        decay = min(self.decay, (1 + self.done) / (2400 + self.done))
        for key, value in self.network.state_dict().items():
            if value.is_floating_point():
                self.average[key].lerp_(value, 1 - decay)
            else:
                self.average[key].copy_(value)


def fit(training: Training, out: Path, stop_after: Optional[int] = None) -> Path:
    """Run or continue a training in the folder `out`; returns the path of `weights.pth`.

    stop_after: end (with a checkpoint) with the batch that reaches this many samples in all, as a
    time limit would. Raises InputError for a checkpoint of another training and for a folder that
    cannot be written. Ctrl-C leaves a checkpoint.
    """
    checkpoint, total = out / "checkpoint.pt", training.bounds[-1][1]
    if checkpoint.exists():
        training.resume(checkpoint)
        print(f"{checkpoint}: continuing after {training.done} {training.unit}s")
    start_log(out / "log.csv", training)
    stop = total if stop_after is None else min(total, stop_after)
    with progress(total, f"{training.unit}s", done=training.done, late=True) as bar:
        try:
            for phase, (begin, end) in enumerate(training.bounds):
                if begin <= training.done < min(end, stop):
                    run_phase(training, phase, stop, out, bar)
        except KeyboardInterrupt:  # which has waited for the end of a step
            if training.done:
                save_whole(checkpoint, training.state())
            raise
    save_whole(checkpoint, training.state())
    save_weights(out / "weights.pth", training.average or training.network.state_dict())
    return out / "weights.pth"


def run_phase(training: Training, phase: int, stop: int, out: Path, bar: Any) -> None:
    """Train to the end of the phase, or to the end of the batch that reaches sample `stop`."""
    config, data, (begin, end) = training.config, training.begin(phase), training.bounds[phase]
    starts = range(training.done, min(end, stop), config.batch_size)
    batches = [range(start, min(start + config.batch_size, end)) for start in starts]
    loader = DataLoader(data, batch_sampler=batches, num_workers=config.workers)  # type: ignore[arg-type]
    for numbers, batch in zip(batches, loader):
        before = training.done
        rates = training.rates(phase, before - begin)
        with _uninterrupted():
            training.step(batch, len(numbers), rates)
            done = training.done
            if done // training.log_every > before // training.log_every or done >= end:
                write_row(training, phase, rates[-1], out / "log.csv", bar)
        if done // config.save_every > before // config.save_every:
            save_whole(out / "checkpoint.pt", training.state())
        bar.update(len(numbers))


@contextmanager
def _uninterrupted() -> Iterator[None]:
    """Let Ctrl-C and SIGTERM wait for the end of the block: a training can go on from there."""
    came: List[int] = []
    before = {}
    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGINT, signal.SIGTERM):
            if signal.getsignal(number) != signal.SIG_IGN:  # as nohup asks for
                before[number] = signal.signal(number, lambda *about: came.append(about[0]))
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if came:
        raise KeyboardInterrupt


def start_log(path: Path, training: Training) -> None:
    """Write the log anew, without the rows behind the checkpoint. Raises InputError for a file that
    is no log."""
    rows: List[List[str]] = []
    if path.exists():
        try:
            with path.open() as stream:
                rows = [row for row in [*csv.reader(stream)][1:] if int(row[0]) <= training.done]
        except (IndexError, ValueError):
            raise InputError(f"{path}: not the log of a training") from None
    with whole_file(path) as temporary, temporary.open("w", newline="") as stream:
        csv.writer(stream).writerows([training.columns, *rows])


def write_row(training: Training, phase: int, rate: float, path: Path, bar: Any) -> None:
    """Append the mean losses since the last row."""
    steps, training.unlogged = training.unlogged, []
    means = {key: sum(step[key] for step in steps) / len(steps) for key in steps[0]}
    row = training.row(phase, rate, means)
    with path.open("a", newline="") as stream:
        csv.writer(stream).writerow([training.done, *row])
    about = (f"{name} {value}" for name, value in zip(training.columns[1:], row))
    bar.set_postfix_str(", ".join(about), refresh=False)
