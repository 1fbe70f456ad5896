"""Batch normalisation measured again after channels were removed (thesis section 4.2.3)."""

from __future__ import annotations

from typing import Sequence

import numpy as np
import torch
from torch import nn

from lib.engines.calibration import CropPair
from lib.errors import InputError
from lib.siamrpn.crop import as_input
from lib.siamrpn.network import SiamRPN


def recalibrate(network: SiamRPN, pairs: Sequence[CropPair], batch: int = 16) -> None:
    """Replace the running means and variances of all batch normalisations by those over the pairs;
    no weight changes.

    In place; the network ends in evaluation mode. Raises InputError without pairs.
    """
    if not pairs:
        raise InputError("recalibration needs at least one pair")
    norms = [module for module in network.eval().modules() if isinstance(module, nn.BatchNorm2d)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # which makes PyTorch take the plain mean of all batches
        norm.train()
    with torch.no_grad():
        for start in range(0, len(pairs), batch):
            inputs = [
                torch.from_numpy(np.concatenate([as_input(crop) for crop in crops]))
                for crops in zip(*pairs[start : start + batch])
            ]
            network(*inputs)
    for norm, momentum in zip(norms, momenta):
        norm.momentum = momentum
    network.eval()
