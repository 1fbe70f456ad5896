"""Speed: networks and engines to time alone on the machine (section 4.2, figures 4.2 to 4.4).

Speed does not depend on what weights know, so the full-size network runs with random ones.
`lib.measure.turns` times them.
"""

from __future__ import annotations

from pathlib import Path
from typing import (
    Any,
    Callable,
    Dict,
    Iterator,
    List,
    Mapping,
    Optional,
    Sequence,
    Tuple,
)

import numpy as np
import pandas as pd
import torch

from lib.engines.calibration import Ranges
from lib.engines.deploy import (
    FRAMEWORKS,
    Deployment,
    give_back_memory,
    missing_frameworks,
    refitted,
)
from lib.engines.export import random_feeds
from lib.engines.quantize import METHODS
from lib.errors import InputError
from lib.measure.turns import Candidate, Timed, seconds_of, time_group
from lib.siamrpn.contract import EngineNetwork, LayerTime
from lib.siamrpn.network import NetworkConfig, SiamRPN
from lib.siamrpn.parts import NETWORKS

NO_RANGE = 6.0  # the bound of every activation where INT8 is only timed


# -- Networks to time ------------------------------------------------------------------------------


def random_network(config: NetworkConfig) -> SiamRPN:
    """A network with seeded random weights, in evaluation mode."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return SiamRPN(config).eval()


def full_size_network(width: float = 1.0) -> SiamRPN:
    """SiamRPN++ at a fraction of the thesis's width with random weights."""
    return random_network(NetworkConfig.resnet50(width))


class NoRanges(Dict[str, float]):
    """Bounds for timing alone: what an activation is divided by does not change how long that
    takes."""

    def __missing__(self, tensor: str) -> float:
        return NO_RANGE


def timing_deployment(
    network: SiamRPN, framework: str, device: str = "cpu", models: Optional[Path] = None
) -> Deployment:
    """A deployment whose engines are good for timing: no plan is kept, INT8 has made-up ranges.

    models: a folder that keeps the FP32 models, for deployments of the same network that follow.
    """
    ranges: Ranges = {name: dict.fromkeys(METHODS, NoRanges()) for name in NETWORKS}
    return Deployment(network, framework, device, None, lambda quantisation: ranges, models)


def candidate(
    place: int, deployment: Deployment, precisions: Mapping[str, str], single: bool = True
) -> Candidate:
    """Build the engines. Raises InputError where the framework lacks a precision."""
    network = deployment.network(precisions)
    return Candidate(place, deployment.framework, dict(precisions), network, single)


def pairs_to_time(frameworks: Sequence[str]) -> List[Tuple[str, str]]:
    """(framework, precision) of every row but PyTorch FP32, which the others are compared with."""
    every = [(name, precision) for name in frameworks for precision in FRAMEWORKS[name].precisions]
    return [pair for pair in every if pair != ("pytorch", "fp32")]


def bench(
    network: SiamRPN,
    frameworks: Sequence[str],
    device: str = "cpu",
    rounds: int = 5,
    report: Callable[[str], None] = lambda text: None,
) -> Iterator[Timed]:
    """Time every framework at every precision, each in turns with PyTorch FP32; the first row is
    PyTorch's own.

    Only one candidate and the reference are in memory at a time. report hears in a sentence what is
    missing here.
    """
    plain = candidate(
        0, timing_deployment(network, "pytorch", device), dict.fromkeys(NETWORKS, "fp32")
    )
    yield time_group([plain], rounds)[0]
    absent = missing_frameworks(frameworks)
    for sentence in absent.values():
        report(sentence)
    for framework, precision in pairs_to_time([name for name in frameworks if name not in absent]):
        try:
            deployment = timing_deployment(network, framework, device)
            other = candidate(0, deployment, dict.fromkeys(NETWORKS, precision))
            yield time_group([plain, other], rounds)[1]
            del deployment, other
        except InputError as error:
            report(f"{FRAMEWORKS[framework].title} {precision.upper()}: {error}")
        give_back_memory()


# -- Layers and re-initialisation ------------------------------------------------------------------


def layer_times(
    deployment: Deployment, precision: str, calls: int = 3
) -> Dict[str, List[LayerTime]]:
    """Mean times of the layers of the three networks, by the framework's own profiler."""
    channels = deployment.weights.config.rpn
    engines = {name: deployment.engine(name, precision) for name in NETWORKS}
    return {
        name: engine.profile(random_feeds(name, channels), calls)
        for name, engine in engines.items()
    }


def reinitialisation(
    deployment: Deployment, precision: str, calls: int = 7
) -> Dict[str, Optional[np.ndarray]]:
    """Seconds from an exemplar crop to kernels that the xcorr network runs with, (calls,), both
    ways.

    inputs: kernels are inputs of the network. refit: they are constants that `refit` replaces; None
    where that is impossible.
    """
    exemplar = random_feeds("target", deployment.weights.config.rpn)["exemplar"]
    network = deployment.network(dict.fromkeys(NETWORKS, precision))
    kernels = network.template(exemplar)
    inputs = np.array([seconds_of(network.template, exemplar) for _ in range(calls)])
    if deployment.framework == "pytorch":
        return {"inputs": inputs, "refit": None}
    first = {name: network.target.numpy(kernel) for name, kernel in kernels.items()}
    fitted = EngineNetwork({**network.engines, "xcorr": refitted(deployment, precision, first)})
    fitted.template(exemplar)
    return {
        "inputs": inputs,
        "refit": np.array([seconds_of(fitted.template, exemplar) for _ in range(calls)]),
    }


def report(rows: Sequence[Mapping[str, Any]]) -> str:
    """The rows of `Timed.row` for a terminal: ms a call and ratio to PyTorch FP32 of every network
    and of the whole frame."""
    table: Dict[str, List[str]] = {
        "framework": [row["framework"] for row in rows],
        "precision": [row["precision"] for row in rows],
        "convolutions": [row["executed"] for row in rows],
    }
    for name in NETWORKS:
        table[f"{name} ms"] = [
            f"{row[f'{name}_ms']:.2f} ({row[f'{name}_ratio']:.1f}x)" for row in rows
        ]
    table["frame ms"] = [f"{row['frame_ms']:.2f}" for row in rows]
    table["ratio (rounds)"] = [
        f"{row['ratio']:.2f}x ({row['ratio_low']:.2f}-{row['ratio_high']:.2f})" for row in rows
    ]
    table["plan MB"] = [f"{row['plan_mb']:.1f}" for row in rows]
    table["disturbed"] = [str(row["disturbed"]) for row in rows]
    return pd.DataFrame(table).to_string(index=False)
