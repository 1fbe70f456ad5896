"""Channels by the millisecond (section 4.2.5): how long a frame takes, told from channel counts.

A layer's time is measured over a grid of channel counts, in whole networks of the full size, by the
framework's profiler. Between the points it is interpolated over the layer's products of input and
output channels. What the grid's layers add up to and what a frame takes beside them is fitted to
measured frames.
"""

from __future__ import annotations

import argparse
import sys
from collections import defaultdict
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Dict, List, Mapping, Sequence, Tuple

import numpy as np

from lib import environment, pruning
from lib.engines.deploy import give_back_memory, usable_framework
from lib.engines.export import random_feeds
from lib.engines.zoo import FOLDER, weights_path
from lib.errors import InputError
from lib.files import write_text
from lib.measure import pruned, runs
from lib.measure.keys import timed_by
from lib.measure.pruned import DISTILLED, FULL_SIZES, SHARES, VECTOR, Tracker
from lib.measure.speed import Timed, random_network, time_group, timing_deployment
from lib.measure.variants import Variant, mixture
from lib.reading import read_mapping
from lib.siamrpn.network import NetworkConfig, backbone_parameters

GRID = (0.3, 0.45, 0.6, 0.8, 1.0)  # of every layer's channels, in multiples of VECTOR
CALLS = 10
FULL = NetworkConfig.resnet50()
FULL_SIZE = float(backbone_parameters(FULL))
TARGETS = (0.8, 0.65, 0.5, 0.4, 0.33)  # of the whole network's time
ROUNDS = 5
FILE = FOLDER / "latency.json"
# Trained alike, by data/demo/pruning/distilled.yaml: choice by -> weights
TRACKERS = {
    "parameters": Tracker(SHARES[-1], DISTILLED).weights,
    "milliseconds": "data/demo/latency_26.pth",
}


def products(config: NetworkConfig) -> Dict[str, int]:
    """Input times output channels of every convolution that pruning changes, by the beginning of
    its name in the ONNX model."""
    found, channels = {}, config.stem
    for number, stage in enumerate(config.stages, 1):
        for block, (first, second) in enumerate(stage.blocks):
            name = f"/backbone/layer{number}/layer{number}.{block}/"
            found[f"{name}conv1"] = channels * first
            found[f"{name}conv2"] = first * second
            found[name] = second * stage.channels  # conv3, and the sum behind it
            if block == 0:
                found[f"{name}downsample"] = channels * stage.channels
            channels = stage.channels
        if number > 1:
            found[f"/neck/downsample{number}/"] = channels * config.rpn
    return found


NAMES = sorted(products(FULL), key=len, reverse=True)  # a block's own name comes after its layers'


def at_width(share: float) -> NetworkConfig:
    """The full-size network with a share of every layer's channels."""
    counts = pruning.mask_layers(FULL).items()
    return pruning.cut_config(FULL, {name: up(share * count) for name, count in counts})


def up(channels: float) -> int:
    return int(np.ceil(channels / VECTOR - 1e-9)) * VECTOR


@dataclass(frozen=True)
class Latency:
    """Of the full-size network on an engine: layer -> products of channels, rising, and
    milliseconds there; a frame takes `base_ms` and `factor` times what its layers add up to."""

    products: Mapping[str, Sequence[int]]
    layer_ms: Mapping[str, Sequence[float]]
    base_ms: float
    factor: float

    def layers(self, config: NetworkConfig) -> float:
        """Milliseconds of the layers that pruning changes, by the framework's profiler."""
        return float(
            sum(
                np.interp(product, self.products[name], self.layer_ms[name])
                for name, product in products(config).items()
            )
        )

    def predict(self, config: NetworkConfig) -> float:
        """Milliseconds of a frame of the full-size network with these channel counts."""
        return self.base_ms + self.factor * self.layers(config)


def latency(framework: str, precision: str) -> Latency:
    """Measured once per engine and precision, and kept in the run `local`."""
    record = runs.Record(
        runs.LOCAL,
        f"latency/{framework}-{precision}.json",
        partial(timed_by, framework, precision=precision, grid=GRID, calls=CALLS),
        len(GRID),
        lambda bar: asdict(_measure(framework, precision, bar)),
    ).load()
    assert record is not None, "local is this machine's own"
    return Latency(**{name: record[name] for name in Latency.__dataclass_fields__})


def _measure(framework: str, precision: str, bar: Any) -> Latency:
    """Time the layers of whole networks over the grid, and fit frames to them."""
    grid: Dict[str, Dict[int, float]] = defaultdict(dict)  # of equal counts the last time stays
    sums, frames = [], []
    for config in map(at_width, GRID):
        own, frame = _times(config, framework, precision)
        for name, product in products(config).items():
            grid[name][product] = own[name]
        sums.append(sum(own[name] for name in grid))
        frames.append(frame)
        bar.update(1)
    factor, base = np.polyfit(sums, frames, 1)
    return Latency(
        {name: list(times) for name, times in grid.items()},
        {name: list(times.values()) for name, times in grid.items()},
        float(base),
        float(factor),
    )


def _times(config: NetworkConfig, framework: str, precision: str) -> Tuple[Dict[str, float], float]:
    """Milliseconds by layer, and of a frame."""
    deployment = timing_deployment(random_network(config), framework, environment.device())
    built = Timed(0, deployment, mixture("", framework, [precision] * 3))
    layers: Dict[str, float] = defaultdict(float)
    feeds = random_feeds("search", config.rpn)
    for layer in built.network.search.profile(feeds, CALLS):
        name = next((name for name in NAMES if layer.name.startswith(name)), "")
        layers[name] += 1000 * layer.seconds
    time_group([built])
    give_back_memory()
    return layers, 1000 * float(np.median(built.times["frame"]))


# -- Choosing channels -----------------------------------------------------------------------------


def per_millisecond(
    config: NetworkConfig, scores: pruning.Scores, model: Latency, times: int
) -> pruning.Scores:
    """Every channel's score, divided by the time that half of its layer's channels take, for each
    of them."""
    counts = {name: len(own) for name, own in scores.items()}

    def predicted(counts: Mapping[str, int]) -> float:
        return model.predict(pruning.wider(pruning.cut_config(config, counts), times))

    whole, per_channel = predicted(counts), {}
    for name, count in counts.items():
        half = count // 2
        per_channel[name] = (whole - predicted({**counts, name: half})) / (count - half)
    least = max(per_channel.values()) / 1000  # of a layer whose time does not depend on its width
    return {name: own / max(per_channel[name], least) for name, own in scores.items()}


def fitting(
    config: NetworkConfig, scores: pruning.Scores, milliseconds: float, model: Latency
) -> pruning.Choice:
    """The channels with the highest scores per millisecond, as many as fit into a frame of so many
    milliseconds at full size, in multiples of VECTOR there. Raises InputError as
    `pruning.choose`."""
    times = FULL.stem // config.stem
    ranked = per_millisecond(config, scores, model, times)
    return pruning.choose(
        config,
        ranked,
        milliseconds,
        times=times,
        multiple=max(1, VECTOR // times),
        size=model.predict,
        unit="ms a frame",
    )


def trackers(framework: str) -> List[Variant]:
    """The demo trackers of both choices in INT8."""
    variants = [mixture(path, framework, ["int8"] * 3) for path in TRACKERS.values()]
    return [replace(one, name=f"{Path(one.weights).stem}-{one.name}") for one in variants]


def cut(options: argparse.Namespace) -> str:
    """`siambook prune cut --latency`: the weights without the channels that go (lib/cli.py)."""
    if options.action != "cut" or options.scores is None or options.parameters is not None:
        raise InputError("--latency is for cut, with --scores and without --parameters")
    if options.grid:
        model, _ = read(Path(options.grid))
    else:
        model = latency(usable_framework(options.engine), options.precision)
    return pruning.cut_file(
        weights_path(options.weights),
        options.scores,
        lambda config, scores: fitting(config, scores, options.latency, model),
        Path(options.out),
    )


# -- `siambook latency` ----------------------------------------------------------------------------


def record(framework: str, precision: str, out: Path) -> List[Dict[str, Any]]:
    """Write the grid and a row per network to a JSON file; returns the rows.

    by: "parameters" (the thesis's sizes, then the same in multiples of VECTOR) or "milliseconds".
    multiple: of channels that every layer keeps. target: what was asked for. parameters: of the
    backbone. predicted_ms; ms, low, high: of a frame, median, fastest and slowest round, all
    networks in turns.
    """
    model = latency(framework, precision)
    config, scores = pruned.demo_config(), pruned.scores()
    networks = [("parameters", 1, FULL_SIZE, FULL)]
    for multiple in (1, VECTOR):
        sizes = pruned.full_configs(multiple).items()
        networks += [("parameters", multiple, *each) for each in sizes]
    # As fast as the thesis's smallest, as it is and not as it is predicted
    _, smallest = _times(pruned.full_configs()[FULL_SIZES[-1]], framework, precision)
    for target in (*(share * model.predict(FULL) for share in TARGETS), smallest):
        try:
            choice = fitting(config, scores, target, model)
        except InputError as error:  # a network that was faster than its layers let expect
            print(error, file=sys.stderr)
            continue
        cut = pruning.cut_config(config, pruning.counts(choice.keep))
        wide = pruning.wider(cut, FULL.stem // config.stem)
        networks.append(("milliseconds", VECTOR, target, wide))
    variant, device = mixture("", framework, [precision] * 3), environment.device()
    built = []
    for place, (*_, network) in enumerate(networks):
        own = random_network(network)
        built.append(Timed(place, timing_deployment(own, framework, device), variant))
        give_back_memory()
    time_group(built, ROUNDS)
    rows = [_row(*networks[one.place], model, one) for one in built]
    about = environment.record(device)
    head = {
        "command": f"siambook latency --engine {framework} --precision {precision}",
        "measured_on": environment.label(about, built[0].network.search.framework),
    }
    write_text(out, runs.to_json({**head, "grid": asdict(model), "networks": rows}))
    return rows


def read(path: Path = FILE) -> Tuple[Latency, Dict[str, Any]]:
    """What `record` wrote: the model, and all of the file. Raises InputError for another file."""
    recorded = read_mapping(path)
    try:
        return Latency(**recorded["grid"]), recorded
    except (KeyError, TypeError):
        raise InputError(f"{path}: nothing that `siambook latency` wrote") from None


def _row(
    by: str, multiple: int, target: float, network: NetworkConfig, model: Latency, timed: Timed
) -> Dict[str, Any]:
    ms = 1000 * np.median(timed.times["frame"], 1)
    return {
        "by": by,
        "multiple": multiple,
        "target": target,
        "parameters": backbone_parameters(network),
        "predicted_ms": model.predict(network),
        "ms": float(np.median(ms)),
        "low": float(ms.min()),
        "high": float(ms.max()),
        "disturbed": timed.disturbed,
    }
