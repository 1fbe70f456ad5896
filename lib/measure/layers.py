"""Which layers need 16 bits (section 4.2.4, `siambook layers`).

Every group of layers (`quantize.GROUPS`) is put alone into INT8, and alone into FP16. The loss is
that of the mean overlap in one pass over generated sequences that are not in the benchmark. The cost
of 16 bits is how much longer the group's layers of the full-size network then take, by the
framework's profiler. A search that starts with INT8 throughout takes groups back to 16 bits, those
first whose loss per millisecond is largest.
"""

from __future__ import annotations

from collections import defaultdict
from functools import lru_cache
from pathlib import Path
from typing import Any, Dict, List, Optional, Sequence, Tuple

import cv2
import numpy as np
import pandas as pd

from lib import environment
from lib.demo import render
from lib.demo_scenes import COUNT, make_spec
from lib.engines.calibration import training_ranges
from lib.engines.deploy import FRAMEWORKS, Deployment, Quantisation, framework_module
from lib.engines.export import export_network, random_feeds
from lib.engines.layers import OnnxEngine, fp16_in
from lib.engines.quantize import GROUPS, group
from lib.engines.zoo import DEMO, FOLDER, tracker_config, weights_path
from lib.errors import InputError
from lib.files import ROOT, write_text
from lib.measure.speed import full_size_network, timing_deployment
from lib.measure.variants import Variant, mixture
from lib.measure.worker import one_thread, open_executor
from lib.progress import progress
from lib.reading import read_mapping
from lib.siamrpn.checkpoint import load_network
from lib.siamrpn.contract import EngineNetwork
from lib.siamrpn.parts import NETWORKS
from lib.siamrpn.tracker import SiamRPNTracker
from lib.vot.dataset import axis_aligned_box
from lib.vot.metrics import percentiles, resample
from lib.vot.overlap import area_overlap, region_corners

FILE = FOLDER / "layers.csv"
EVERYTHING = "everything"  # of deploy.RECIPES: where the search begins
STEPS = (0, 5, 6)  # of the search, which the book measures on the benchmark
CALLS = 20


def layered(weights: str, framework: str, kept: Sequence[str]) -> Variant:
    """The tracker in INT8 but for some groups of layers."""
    how = Quantisation(recipe=EVERYTHING, kept=tuple(kept))
    return mixture(weights, framework, ["int8"] * 3, how)


def steps(weights: str, framework: str) -> List[Variant]:
    """The points of the search that the book measures."""
    order = read()[0].sort_values("order")["group"].tolist()
    return [layered(weights, framework, order[:count]) for count in STEPS]


def kept(variant: Variant) -> Optional[List[str]]:
    """The groups in 16 bits of a variant of `layered`; None for others."""
    how = variant.quantisation
    return list(how.kept) if how.recipe == EVERYTHING and variant.search == "int8" else None


# -- Quality ---------------------------------------------------------------------------------------


def overlaps(
    weights: str, framework: str, groups: Tuple[str, ...], how: str, count: int
) -> np.ndarray:
    """(count,) mean overlaps of the frames after the first, in as many sequences, with some groups
    of layers in the precision `how`.

    "int8": the others run as the framework runs what INT8 leaves out (OpenVINO in 16 bits). "fp16":
    the others run in FP32, in ONNX Runtime. weights: relative to the repository, or "demo".
    """
    path = weights_path(weights, ROOT)
    network = load_network(path)
    if how == "int8":
        others = tuple(name for name in GROUPS if name not in groups)
        deployment = Deployment(network, framework, ranges=lambda _: training_ranges(path))
        quantisation = Quantisation(recipe=EVERYTHING, kept=others)
        engines = deployment.network(dict.fromkeys(NETWORKS, "int8"), quantisation)
    else:
        halves: Dict[str, Any] = {
            name: OnnxEngine(fp16_in(model, groups), name)
            for name, model in export_network(network).items()
        }
        engines = EngineNetwork(halves)
    tracker = SiamRPNTracker(engines, tracker_config(weights if weights == DEMO else str(path)))
    return np.array([overlap_in(tracker, COUNT + 1 + index) for index in range(count)])


def _in_worker(*arguments: Any) -> np.ndarray:
    one_thread()
    return overlaps(*arguments)


def overlap_in(tracker: SiamRPNTracker, number: int) -> float:
    """Mean overlap in one pass over the generated sequence of a number."""
    pictures, polygons = _sequence(number)
    frames = [np.asarray(cv2.imdecode(picture, cv2.IMREAD_COLOR)) for picture in pictures]
    tracker.init(frames[0], axis_aligned_box(polygons[0]))
    boxes = [np.array(tracker.track(frame).box, float) for frame in frames[1:]]
    found = area_overlap(region_corners(boxes), region_corners(polygons[1:]))
    return float(np.nan_to_num(found).mean())


@lru_cache(maxsize=None)
def _sequence(number: int) -> Tuple[List[np.ndarray], List[np.ndarray]]:
    frames = list(render(make_spec(number)))
    pictures = [cv2.imencode(".jpg", frame.image)[1] for frame in frames]
    return pictures, [frame.polygon.ravel() for frame in frames]


def gain(one: np.ndarray, other: np.ndarray) -> Tuple[float, float, float]:
    """Mean of the differences, and its 95 % interval over sequences."""
    drawn = resample([str(index) for index in range(len(one))])
    return (float((one - other).mean()), *percentiles(drawn @ (one - other) / len(one), 0.95))


# -- Time ------------------------------------------------------------------------------------------


def group_times(framework: str) -> Dict[str, Dict[str, float]]:
    """precision -> group -> milliseconds of a frame's layers in the full-size network."""
    deployment = timing_deployment(full_size_network(), framework, environment.device())
    found: Dict[str, Dict[str, float]] = {}
    for precision in ("fp16", "int8"):
        times: Dict[str, float] = defaultdict(float)
        for name in ("search", "xcorr"):  # the target network runs once a target
            engine = deployment.engine(name, precision, Quantisation(recipe=EVERYTHING))
            feeds = random_feeds(name, deployment.weights.config.rpn)
            for layer in engine.profile(feeds, CALLS):
                times[group(layer.name)] += 1000 * layer.seconds
        found[precision] = dict(times)
    return found


# -- `siambook layers` -----------------------------------------------------------------------------


def sensitivity(weights: str, framework: str, count: int, workers: int = 0) -> pd.DataFrame:
    """A row per group of layers, in the network's order.

    int8, fp16 (with _low, _high): change of the mean overlap; int8_ms, fp16_ms: of the group's
    layers in a frame. order: in which groups are taken back to 16 bits, from 1.
    """
    ms = group_times(framework)
    wanted = [(groups, how) for how in ("int8", "fp16") for groups in [(), *((g,) for g in GROUPS)]]
    tasks = [(_in_worker, weights, framework, groups, how, count) for groups, how in wanted]
    found: Dict[Any, np.ndarray] = {}
    with progress(len(tasks), "layers") as bar, open_executor("local", workers) as pool:
        for (_, _, _, groups, how, _), answer in pool.answers(tasks):
            found[groups, how] = answer
            bar.update(1)
    rows = []
    for name in GROUPS:
        row: Dict[str, Any] = {"group": name}
        for how in ("int8", "fp16"):
            values = gain(found[(name,), how], found[(), how])
            row.update(zip((how, f"{how}_low", f"{how}_high"), values))
            row[f"{how}_ms"] = ms[how].get(name, 0.0)
        rows.append(row)
    frame = pd.DataFrame(rows)
    return frame.assign(order=rank(frame))


def rank(frame: pd.DataFrame) -> pd.Series:
    """Places by loss per millisecond that 16 bits cost, the largest first; what costs nothing comes
    before it."""
    cost = frame["fp16_ms"] - frame["int8_ms"]
    gain = np.where(cost > 0, -frame["int8"] / cost.where(cost > 0, 1.0), np.inf)
    return pd.Series(gain, frame.index).rank(ascending=False, method="first").astype(int)


def write(path: Path, frame: pd.DataFrame, weights: str, framework: str, count: int) -> None:
    about = environment.label(
        environment.record(environment.device()),
        f"{FRAMEWORKS[framework].title} {framework_module(framework).version()}",
    )
    head = f"# siambook layers --weights {weights} --engine {framework} --sequences {count}\n"
    write_text(path, f"{head}# {about}\n{frame.to_csv(index=False, float_format='%.5g')}")


def read(path: Path = FILE) -> Tuple[pd.DataFrame, str]:
    """What `write` wrote: the rows, and where they were measured."""
    if not path.is_file():
        raise InputError(f"{path}: no such table; `siambook layers` makes it")
    lines = path.read_text(encoding="utf-8").splitlines()
    return pd.read_csv(path, comment="#"), lines[1].lstrip("# ")


def beside_nncf() -> Dict[str, Any]:
    """What tests/benchmarks/bench_nncf.py has recorded of NNCF's accuracy control."""
    return read_mapping(FOLDER / "nncf.json")
