"""CURL's choice: the channels with the highest scores stay, as many as the wanted number of
parameters allows, and of every layer at least a given share (thesis section 3.6.2)."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Callable, Dict, Mapping, NamedTuple

import numpy as np

from lib.errors import InputError
from lib.siamrpn.network import NetworkConfig, StageConfig, backbone_parameters

MINIMUM_RATE = 0.3  # share of a layer's channels that stays whatever their scores (section 3.6.2)
SUM = "sum"

Scores = Dict[str, np.ndarray]  # layer -> score of each channel
Keep = Dict[str, np.ndarray]  # layer -> whether each channel stays


def mask_layers(config: NetworkConfig) -> Dict[str, int]:
    """Layer -> channels, from the input to the output; 11,392 masks in all for the full
    backbone."""
    layers: Dict[str, int] = {}
    for stage, part in enumerate(config.stages, 1):
        for block, (first, second) in enumerate(part.blocks):
            layers[f"layer{stage}.{block}.conv1"] = first
            layers[f"layer{stage}.{block}.conv2"] = second
        layers[f"layer{stage}.{SUM}"] = part.channels
    return layers


def cut_config(config: NetworkConfig, counts: Mapping[str, int]) -> NetworkConfig:
    """The configuration with other channel counts; counts: of every layer of `mask_layers`."""
    stages = []
    for stage, part in enumerate(config.stages, 1):
        blocks = tuple(
            (counts[f"layer{stage}.{block}.conv1"], counts[f"layer{stage}.{block}.conv2"])
            for block in range(len(part.blocks))
        )
        stages.append(StageConfig(counts[f"layer{stage}.{SUM}"], blocks))
    return replace(config, stages=tuple(stages))


def wider(config: NetworkConfig, times: int) -> NetworkConfig:
    """Every channel count times a whole number."""
    stages = tuple(
        StageConfig(part.channels * times, tuple((a * times, b * times) for a, b in part.blocks))
        for part in config.stages
    )
    return replace(config, stem=config.stem * times, rpn=config.rpn * times, stages=stages)


class Choice(NamedTuple):
    """The k best channels and those that the minimum of every layer adds: the channels that stay,
    and their size: the number of the backbone's parameters, or what `choose` was asked for."""

    k: int
    keep: Keep
    size: float


def counts(keep: Keep) -> Dict[str, int]:
    """Channels that stay, by layer."""
    return {name: int(stays.sum()) for name, stays in keep.items()}


def ranks(values: np.ndarray) -> np.ndarray:
    """0 for the highest value, 1 for the next, ..."""
    return np.argsort(np.argsort(-values, kind="stable"))


def keep_best(scores: Scores, k: int, multiple: int = 1) -> Keep:
    """The k channels with the highest scores of all, and of every layer at least the best
    `MINIMUM_RATE` of its own, filled up with the next best to a multiple of channels."""
    ends = np.cumsum([len(own) for own in scores.values()])
    best = np.split(ranks(np.concatenate(list(scores.values()))) < k, ends[:-1])
    keep = {}
    for (name, own), chosen in zip(scores.items(), best):
        least = max(int(chosen.sum()), math.ceil(MINIMUM_RATE * len(own)))
        keep[name] = ranks(own) < math.ceil(least / multiple) * multiple
    return keep


def choose(
    config: NetworkConfig,
    scores: Scores,
    target: float,
    times: int = 1,
    multiple: int = 1,
    size: Callable[[NetworkConfig], float] = backbone_parameters,
    unit: str = "parameters",
) -> Choice:
    """Find k by bisection so that the size of the network, the number of the backbone's parameters
    unless `size` says otherwise, is as close as possible to `target`.

    times: counts every channel so often, to size a wider network by the scores of a narrow one.
    multiple: of channels that every layer keeps; processors compute 16 or more at once, and an odd
    number wastes the rest. unit: of sizes. Raises InputError for a target that is impossible with
    the minimum.
    """

    def at(k: int) -> Choice:
        keep = keep_best(scores, k, multiple)
        return Choice(k, keep, size(wider(cut_config(config, counts(keep)), times)))

    low, high = 0, sum(map(len, scores.values()))
    smallest, largest = at(low).size, at(high).size
    if not smallest <= target <= largest:
        raise InputError(
            f"{round(target, 1):,} {unit} cannot be reached: keeping at least {MINIMUM_RATE:.0%} of every layer, the network "
            f"has {round(smallest, 1):,} to {round(largest, 1):,}"
        )
    while high - low > 1:
        middle = (low + high) // 2
        if at(middle).size < target:
            low = middle
        else:
            high = middle
    return min(at(low), at(high), key=lambda choice: abs(choice.size - target))
