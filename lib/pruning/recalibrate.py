"""Batch normalisation measured again after channels were removed (thesis section 4.2.3)."""

from __future__ import annotations

from pathlib import Path
from typing import Sequence

import numpy as np
import torch
from torch import nn

from lib.engines.calibration import CropPair
from lib.errors import InputError
from lib.siamrpn.checkpoint import load_network, save_weights
from lib.siamrpn.crop import as_input
from lib.siamrpn.network import SiamRPN
from lib.training.pairs import training_pairs
from lib.training.tracker import load_config


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
            chosen = pairs[start : start + batch]
            network(
                *(
                    torch.from_numpy(np.concatenate([as_input(crop) for crop in crops]))
                    for crops in zip(*chosen)
                )
            )
    for norm, momentum in zip(norms, momenta):
        norm.momentum = momentum
    network.eval()


def recalibrate_file(weights: Path, config: Path, count: int, out: Path) -> str:
    """Write a tracker's weights with statistics of `count` pairs of a training configuration's
    data; returns a sentence on what was done."""
    network = load_network(weights)
    recalibrate(network, training_pairs(load_config(config), count))
    save_weights(out, network.state_dict())
    return f"{out}: statistics of {count} training pairs"
