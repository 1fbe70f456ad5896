"""NNCF's accuracy control beside this project's INT8, on the same search network:
`pip install nncf`, then `python tests/benchmarks/bench_nncf.py [--out data/demo/nncf.json]`.

Both start from the same ONNX model and the same training pairs. NNCF quantises, measures the
tracker's mean overlap on sequences that are not in the benchmark, and takes layers back while more
than MAX_DROP is lost. Then both search networks track other sequences between target and xcorr
networks in FP16, and the full-size search network is timed in turns, quantised in both ways.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from lib import environment
from lib.engines.calibration import training_ranges
from lib.engines.deploy import Deployment
from lib.engines.export import random_feeds
from lib.engines.ov import OpenVINOEngine, core, hint
from lib.engines.zoo import DEMO_TRAINING, DEMO_WEIGHTS, tracker_config
from lib.files import write_text
from lib.measure import layers
from lib.measure.speed import full_size_network, seconds_of, timing_deployment
from lib.siamrpn.checkpoint import load_network
from lib.siamrpn.contract import EngineNetwork
from lib.siamrpn.crop import as_input
from lib.siamrpn.tracker import SiamRPNTracker
from lib.training.pairs import training_pairs
from lib.training.tracker import load_config

MAX_DROP = 0.005  # of the mean overlap
CHOOSING, TESTING = range(2001, 2041), range(2101, 2221)  # numbers of generated sequences
PAIRS, ROUNDS, CALLS = 192, 7, 10


class Compiled(OpenVINOEngine):
    """A search network that OpenVINO has compiled already."""

    def __init__(self, compiled: Any) -> None:
        self.network, self.precision, self.refits = "search", "int8", False
        self.framework, self._compiled = "OpenVINO", compiled
        self._request, self._read = compiled.create_infer_request(), {}
        self.inputs, self.outputs = (
            {port.get_any_name(): tuple(port.shape) for port in ports}
            for ports in (compiled.inputs, compiled.outputs)
        )
        self._results = {name: self._request.get_tensor(name).data for name in self.outputs}


def compiled(model: Any, threads: int) -> Compiled:
    options = {
        "INFERENCE_PRECISION_HINT": hint("int8"),
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_NUM_THREADS": str(threads),
        "PERF_COUNT": "YES",
    }
    return Compiled(core().compile_model(model, "CPU", options))


def overlaps(deployment: Deployment, search: Any, numbers: Iterable[int]) -> np.ndarray:
    engines = deployment.engines({"target": "fp16", "xcorr": "fp16"})
    tracker = SiamRPNTracker(EngineNetwork({**engines, "search": search}), tracker_config("demo"))
    return np.array([layers.overlap_in(tracker, number) for number in numbers])


def in_turns(engines: dict[str, Any]) -> dict[str, list[float]]:
    """Milliseconds of a call, median and quartiles, of engines that take turns."""
    feeds = {"search": random_feeds("search", 256)["search"]}
    found: dict[str, list[float]] = {name: [] for name in engines}
    for _ in range(ROUNDS):
        for name, engine in engines.items():
            engine(feeds)
            found[name] += [1000 * seconds_of(engine, feeds) for _ in range(CALLS)]
    return {name: np.percentile(times, [50, 25, 75]).tolist() for name, times in found.items()}


def quantised(model: Any, feeds: list[np.ndarray], deployment: Deployment) -> tuple[Any, str]:
    """The model as NNCF's accuracy control leaves it, and what it did."""
    nncf = import_module("nncf")
    asked: list[float] = []

    def validate(ready: Any, numbers: Iterable[int]) -> tuple[float, list[float]]:
        found = overlaps(deployment, Compiled(ready), numbers)
        if len(found) == len(CHOOSING):  # NNCF also asks about single ones
            asked.append(float(found.mean()))
        return float(found.mean()), found.tolist()

    result = nncf.quantize_with_accuracy_control(
        model,
        nncf.Dataset(feeds),
        nncf.Dataset(CHOOSING),
        validate,
        max_drop=MAX_DROP,
        subset_size=len(feeds),
    )
    return result, " and ".join(f"{value:.4f}" for value in asked)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--out", default="data/demo/nncf.json", type=Path)
    options = parser.parse_args()
    nncf = import_module("nncf")  # no dependency of this project
    threads = environment.threads()
    environment.use_threads(1)
    deployment = Deployment(
        load_network(DEMO_WEIGHTS), "openvino", ranges=lambda _: training_ranges(DEMO_WEIGHTS)
    )
    pairs = training_pairs(load_config(DEMO_TRAINING), PAIRS)
    crops = [as_input(pair.search) for pair in pairs]
    plain = core().read_model(deployment.model("search", "fp32").SerializeToString())
    theirs, asked = quantised(plain, crops, deployment)
    searches = {
        "fp16": deployment.engine("search", "fp16"),
        "ours": deployment.engine("search", "int8"),
        "nncf": compiled(theirs, 1),
    }
    found = {name: overlaps(deployment, search, TESTING) for name, search in searches.items()}
    environment.use_threads(threads)
    timing = timing_deployment(full_size_network(), "openvino")
    full = core().read_model(timing.model("search", "fp32").SerializeToString())
    random = [random_feeds("search", 256, seed)["search"] for seed in range(4)]
    full_theirs = nncf.quantize(full, nncf.Dataset(random), subset_size=len(random))
    ms = in_turns(
        {
            "fp16": timing.engine("search", "fp16"),
            "ours": timing.engine("search", "int8"),
            "nncf": compiled(full_theirs, threads),
        }
    )
    rows = [
        {
            "network": name,
            "overlap": float(found[name].mean()),
            "change": layers.gain(found[name], found["fp16"]),
            "ms": ms[name],
        }
        for name in found
    ]
    about = environment.record(environment.device())
    record = {
        "command": "python tests/benchmarks/bench_nncf.py",
        "measured_on": f"{environment.label(about, searches['ours'].framework)}, NNCF {nncf.__version__}",
        "asked": asked,
        "max_drop": MAX_DROP,
        "difference": layers.gain(found["ours"], found["nncf"]),
        "rows": rows,
    }
    write_text(options.out, json.dumps(record, indent=1) + "\n")
    print(json.dumps(record, indent=1))


if __name__ == "__main__":
    main()
