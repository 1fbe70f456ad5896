"""Several processes on one training run, started by `torchrun`: each takes its share of every
batch, gradients are averaged.

The pictures or pairs of a batch do not depend on the number of processes, so a run may be stopped
with one number and go on with another. What does: batch normalisation sees a process's share only
(its running statistics are averaged after every step), and a loss that is not a mean over the
batch.
"""

from __future__ import annotations

import os
from contextlib import contextmanager
from typing import Iterable, Iterator, List, Sequence, TypeVar

import torch
from torch import Tensor, distributed, nn

from lib.errors import InputError

T = TypeVar("T")


@contextmanager
def processes(device: str) -> Iterator[torch.device]:
    """Join the processes that torchrun started, if it did; gives this process's device ("cuda"
    becomes its own GPU)."""
    many = int(os.environ.get("WORLD_SIZE", "1")) > 1
    if device == "cuda" and many:
        device = f"cuda:{os.environ.get('LOCAL_RANK', '0')}"
    if many:
        try:
            distributed.init_process_group("nccl" if device.startswith("cuda") else "gloo")
        except (RuntimeError, ValueError) as error:
            raise InputError(
                f"the processes of this training cannot find each other: {str(error).splitlines()[0]}"
            ) from None
    try:
        yield torch.device(device)
    finally:
        if many:
            distributed.destroy_process_group()


def size() -> int:
    """Number of processes."""
    return (
        distributed.get_world_size()
        if distributed.is_available() and distributed.is_initialized()
        else 1
    )


def is_first() -> bool:
    """Whether this process writes files and talks."""
    return size() == 1 or distributed.get_rank() == 0


def share(batch: Sequence[T]) -> List[T]:
    """This process's part of a batch; at least one of it, so that nobody is without a gradient."""
    own = list(batch[distributed.get_rank() :: size()]) if size() > 1 else list(batch)
    return own or [batch[0]]


def average_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """Replace every gradient by its mean over the processes."""
    average([parameter.grad for parameter in parameters if parameter.grad is not None])


def average_statistics(module: nn.Module) -> None:
    """Replace running statistics by their mean over the processes."""
    average([buffer for buffer in module.buffers() if buffer.is_floating_point()])


def average(tensors: Sequence[Tensor]) -> None:
    """Replace tensors by their means over the processes, in one exchange."""
    if size() == 1 or not tensors:
        return
    flat = torch.cat([tensor.detach().reshape(-1).float() for tensor in tensors])
    distributed.all_reduce(flat)
    flat /= size()
    for tensor, mean in zip(tensors, flat.split([tensor.numel() for tensor in tensors])):
        tensor.detach().copy_(mean.view_as(tensor))


def wait() -> None:
    """Wait for the other processes."""
    if size() > 1:
        distributed.barrier()
