"""The network without the channels that go: masked (thesis equation 2.7), or cut out of the
weights. Both compute the same."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any, Callable, Dict, List, Mapping, Optional, Union

import numpy as np
import torch
from torch import Tensor, nn

from lib.errors import InputError
from lib.pruning.choice import SUM, Choice, Keep, Scores, counts, cut_config, mask_layers
from lib.pruning.scores import read_scores
from lib.siamrpn.checkpoint import load_network, read_state, save_weights
from lib.siamrpn.network import Backbone, NetworkConfig, SiamRPN, backbone_parameters
from lib.training.classify import Classifier, load_classifier


def masked(network: Union[SiamRPN, Classifier], keep: Keep) -> Union[SiamRPN, Classifier]:
    """A copy of a network in which scale and shift of the channels that go are 0."""
    network = copy.deepcopy(network)
    with torch.no_grad():
        for name, stays in keep.items():
            for norm in _norms(network.backbone, name):
                norm.weight[torch.from_numpy(~stays)] = 0
                norm.bias[torch.from_numpy(~stays)] = 0
    return network


def _norms(backbone: Backbone, layer: str) -> List[nn.BatchNorm2d]:
    """The batch normalisations whose channels a layer's mask masks."""
    stage = getattr(backbone, layer.split(".")[0])
    if layer.endswith(SUM):
        return [stage[0].downsample[1], *(block.bn3 for block in stage)]
    _, block, conv = layer.split(".")
    return [getattr(stage[int(block)], conv.replace("conv", "bn"))]


def cut_state(state: Mapping[str, Tensor], config: NetworkConfig, keep: Keep) -> Dict[str, Tensor]:
    """The weights that stay of a tracker's or a classifier's state dict: whatever reads a stage's
    output (neck, classification layer) loses the inputs that are gone.

    Raises InputError for a `keep` of another network.
    """
    if {name: len(stays) for name, stays in keep.items()} != mask_layers(config):
        raise InputError("the channels to keep are those of another network")
    index = {name: torch.from_numpy(np.flatnonzero(stays)) for name, stays in keep.items()}
    cut = {key: value.clone() for key, value in state.items()}

    def take(module: str, outputs: Optional[Tensor], inputs: Optional[Tensor]) -> None:
        for key in [key for key in cut if key.startswith(f"{module}.") and cut[key].ndim]:
            if outputs is not None:
                cut[key] = cut[key][outputs]
            if inputs is not None and cut[key].ndim > 1:
                cut[key] = cut[key][:, inputs]

    before: Optional[Tensor] = None  # the channels of the block's input
    for stage, part in enumerate(config.stages, 1):
        name, sums = f"backbone.layer{stage}", index[f"layer{stage}.{SUM}"]
        take(f"{name}.0.downsample.0", sums, before)
        take(f"{name}.0.downsample.1", sums, None)
        for block in range(len(part.blocks)):
            first, second = (index[f"layer{stage}.{block}.conv{number}"] for number in (1, 2))
            channels = (before, first, second, sums)
            for number in (1, 2, 3):
                take(f"{name}.{block}.conv{number}", channels[number], channels[number - 1])
                take(f"{name}.{block}.bn{number}", channels[number], None)
            before = sums
        take(f"neck.downsample{stage}.downsample.0", None, sums)
    take("fc", None, before)
    return cut


def cut_network(network: Union[SiamRPN, Classifier], keep: Keep) -> Any:
    """A tracker or a classifier without the channels that go; it computes what the masked one
    computes."""
    config = cut_config(network.config, counts(keep))
    small: Any = (
        SiamRPN(config) if isinstance(network, SiamRPN) else Classifier(config, network.classes)
    )
    small.load_state_dict(cut_state(network.state_dict(), network.config, keep))
    return small.train(network.training)


def cut_file(
    weights: Path,
    scores: str,
    choose: Callable[[NetworkConfig, Scores], Choice],
    out: Path,
) -> str:
    """Write a tracker's or a classifier's weights without the channels that go; returns a sentence
    on what is left. choose: says which channels of a network stay, from their scores."""
    tracker = any(key.startswith("rpn_head.") for key in read_state(weights))
    network: Any = load_network(weights) if tracker else load_classifier(weights)
    choice = choose(network.config, read_scores(scores, network.config))
    small = cut_network(network, choice.keep)
    save_weights(out, small.state_dict())
    before, after = (backbone_parameters(one.config) for one in (network, small))
    total, kept = (sum(map(function, choice.keep.values())) for function in (len, np.sum))
    return (
        f"{out}: backbone of {after:,} parameters ({after / before:.3f} of {before:,}), "
        f"k = {choice.k}, {total - kept} of {total} channels removed"
    )
