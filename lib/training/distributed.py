"""Several processes on one training, started by `torchrun`: each takes its share of every batch,
and gradients are averaged.

Batches do not depend on the number of processes, so a training may be stopped with one number and
continue with another. Two things do depend on it: batch normalisation sees a process's share only
(its running statistics are averaged after every step), and so does a loss that is not a mean over
the batch.
"""

from __future__ import annotations

import os
from contextlib import contextmanager
from typing import Iterator, List, Sequence

import torch
from torch import Tensor, distributed

from lib.engines.pytorch import usable_device
from lib.errors import InputError


@contextmanager
def processes(device: str) -> Iterator[torch.device]:
    """Join the processes that torchrun started, if any; gives this process's device ("cuda" becomes
    its own GPU). Raises InputError for a device that is not here."""
    many = int(os.environ.get("WORLD_SIZE", "1")) > 1
    if device == "cuda" and many:
        device = f"cuda:{os.environ.get('LOCAL_RANK', '0')}"
    place = usable_device(device)
    if many:
        try:
            distributed.init_process_group("nccl" if place.type == "cuda" else "gloo")
        except (RuntimeError, ValueError) as error:
            raise InputError(
                f"the processes of this training cannot find each other: {str(error).splitlines()[0]}"
            ) from None
    try:
        yield place
    finally:
        if many:
            distributed.destroy_process_group()


def size() -> int:
    """Number of processes."""
    together = distributed.is_available() and distributed.is_initialized()
    return distributed.get_world_size() if together else 1


def is_first() -> bool:
    """Whether this process writes files and talks."""
    return size() == 1 or distributed.get_rank() == 0


def share(batch: Sequence[int]) -> List[int]:
    """This process's part of a batch; never empty, so that every process has a gradient."""
    own = batch[distributed.get_rank() :: size()] if size() > 1 else batch
    return list(own) or [batch[0]]


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
