"""Speed of the full-size networks, whole and pruned, on this machine, kept in a run (sections 4.1
and 4.2).

Their weights are random (seeded), since no speed depends on them; so this needs neither VOT2018 nor
PySOT's weights. They are timed in groups, each in turns with PyTorch FP32 and small enough for
memory, and each kept as data/runs/<run>/speed/<group>.json:

    pytorch                        the whole network and the pruned ones in PyTorch FP32
    <framework>-whole              the whole network in mixtures of precisions, and with some groups
                                   of layers in INT8; times of layers, and of initialising again
    <framework>-fp32, -fp16, ...   the whole network and the pruned ones in one precision

Each speed comes from one group, and so is the same on every page: the whole network's from the
first two. The target network runs at an initialisation only, so mixtures that differ in nothing
else have one speed.
"""

from __future__ import annotations

import tempfile
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Mapping, Sequence

import numpy as np

from lib import environment
from lib.engines.deploy import (
    FRAMEWORKS,
    Deployment,
    give_back_memory,
    missing_frameworks,
    refitted,
)
from lib.engines.export import random_feeds
from lib.environment import device
from lib.errors import InputError
from lib.measure import pruned, runs
from lib.measure.keys import timed_by
from lib.measure.layers import kept, steps
from lib.measure.measurement import Measurement
from lib.measure.pruned import timed_configs
from lib.measure.runs import Record, is_recorded, run_note
from lib.measure.speed import (
    Timed,
    random_network,
    ratios,
    seconds_of,
    time_group,
    timing_deployment,
)
from lib.measure.variants import Variant, baseline, mixture, mixtures
from lib.siamrpn.contract import EngineNetwork, by_type
from lib.siamrpn.network import backbone_parameters
from lib.siamrpn.parts import NETWORKS
from lib.vot.protocol import INIT, SKIPPED

ROUNDS = 3
# Of a turn in a group, in frames of the demo tracker in PyTorch FP32; for the time left alone.
COST = {"pytorch": 43, "whole": 38, "fp32": 55, "fp16": 39, "int8": 38}
Row = Mapping[str, Any]


@dataclass(frozen=True)
class EngineSpeed:
    """Speed of the full-size networks on every precision of a framework, beside PyTorch FP32.

    rows: of `speed.Timed.row`, with the network's place (0: the whole one), the backbone's
    parameters, the multiple of channels that it keeps and its group; ratio is to the whole network
    in PyTorch FP32, whole_ratio to the whole network with the same engine (median, _low, _high:
    smallest and largest round). layers: "openvino int8" -> network -> layer type -> seconds a call.
    reinitialisation: precision -> "inputs" and "refit" -> seconds. missing: sentences.
    """

    rows: Sequence[Row] = field(repr=False)
    layers: Mapping[str, Mapping[str, Mapping[str, float]]] = field(repr=False)
    reinitialisation: Mapping[str, Mapping[str, Sequence[float]]] = field(repr=False)
    missing: Sequence[str]
    parameters: int
    framework: str
    run: str
    environment: Mapping[str, Any] = field(repr=False)
    recorded: bool = False

    @property
    def whole(self) -> list[Row]:
        """The whole network with one precision throughout, PyTorch's first."""
        pure = [row for row in self.rows if "/" not in row["precision"] and not row["place"]]
        return [row for row in pure if row["kept"] is None]

    @property
    def compared(self) -> list[Row]:
        """All networks in PyTorch FP32 and every precision: the whole one first, then by size."""
        return [*self.whole, *(row for row in self.rows if row["place"])]

    @property
    def note(self) -> str:
        """What a caption says: the run, the machine, the day, and turns that other work
        disturbed."""
        title = FRAMEWORKS[self.framework].title
        note = run_note(self.run, self.environment, title, self.recorded)
        repeated, left = (
            sum(int(row[name]) for row in self.rows) for name in ("repeated", "disturbed")
        )
        if repeated + left:
            note += f"; other work disturbed turns: {repeated} repeated, {left} still disturbed"
        return note

    @property
    def size(self) -> str:
        """Of the whole network: "53.9 M parameters"."""
        return f"{self.parameters / 1e6:.1f} M parameters"

    def row_of(self, framework: str, precision: str) -> Row:
        """The whole network's row with one precision throughout. Raises InputError without one."""
        variant = mixture("", framework, [precision.lower()] * 3)
        row = self.row_for(variant)
        if not row:
            raise InputError(f"{variant.title} was not timed in run {self.run}")
        return row

    def row_for(self, variant: Variant) -> Row:
        """The full-size network's row for a variant of any size, with the same target network where
        that was timed; {} where the search and xcorr networks were not."""
        wanted = pruned.place(variant), variant.framework, variant.search, variant.xcorr
        for row in sorted(self.rows, key=lambda row: bool(row["target"] != variant.target)):
            timed = row["place"], row["group"].partition("-")[0], row["search"], row["xcorr"]
            if (*timed, row["kept"]) == (*wanted, kept(variant)):
                return row
        return {}


def with_speed(measured: Sequence[Any], speed: Any) -> list[Any]:
    """Measurements whose passes were not timed, with the full-size network's times: each call takes
    its median, measured alone. So FPS by PySOT's scheme is what these failures make of the
    full-size network's speed."""
    if isinstance(speed, runs.Lacking):
        return list(measured)
    return [one if isinstance(one, runs.Lacking) else _timed_as(one, speed) for one in measured]


def _timed_as(one: Measurement, speed: EngineSpeed) -> Measurement:
    row, timed = speed.row_for(one.variant), not np.isnan(one.fps)
    if timed or not row:
        return one
    if row["target"] != one.variant.target:  # as fast, but not as large
        row = {**row, "plan_mb": np.nan, "build_s": np.nan}
    whole = speed.row_of(one.variant.framework, one.variant.target)
    init = whole["target_ms"] + whole["crop_ms"]
    trajectories = {}
    for name, each in one.trajectories.items():
        codes = each.codes
        ms = np.select([codes == SKIPPED, codes == INIT], [0.0, init], row["frame_ms"])
        trajectories[name] = replace(each, seconds=ms / 1000)
    return replace(one, trajectories=trajectories, speed=row)


def pairs(framework: str) -> list[tuple[str, str]]:
    """(framework, precision) of table 4.2's rows: PyTorch FP32, and all that the framework has."""
    compiled = FRAMEWORKS[framework].precisions if framework != "pytorch" else ()
    return [("pytorch", "fp32"), *((framework, precision) for precision in compiled)]


def groups(framework: str) -> list[str]:
    """The groups of a framework, in the order in which they are timed."""
    kinds = ["whole", *FRAMEWORKS[framework].precisions]
    return ["pytorch", *(f"{framework}-{kind}" for kind in kinds if framework != "pytorch")]


def engine_speed(run: str, framework: str, bar: Any = None) -> Any:
    """Time all groups, or load what the run has: an `EngineSpeed`, or `runs.Lacking` where a
    recorded run lacks a group. bar: a progress bar to count on (units of `work`)."""
    with tempfile.TemporaryDirectory() as folder:
        found = {group: _record(run, group, Path(folder)).load(bar) for group in groups(framework)}
    if None in found.values():
        title = FRAMEWORKS[framework].title
        return runs.Lacking(f"the speed of the full-size networks with {title}", run)
    records = [record for record in found.values() if record]
    missing = [sentence for record in records for sentence in record["missing"]]
    return EngineSpeed(
        rows=[row for record in records for row in record["rows"]],
        layers={name: times for one in records for name, times in one["layers"].items()},
        reinitialisation={
            level: ways for one in records for level, ways in one["reinitialisation"].items()
        },
        missing=[*dict.fromkeys(missing), *records[0]["absent"]],
        parameters=records[0]["parameters"],
        framework=framework,
        run=run,
        environment=records[-1]["environment"],
        recorded=is_recorded(run, device()),
    )


def baseline_speed(run: str) -> Any:
    """A line for table 4.1: the whole network in PyTorch FP32, without quality, since random
    weights have none; `runs.Lacking` where a recorded run lacks it."""
    speed = engine_speed(run, "pytorch")
    if isinstance(speed, runs.Lacking):
        return speed
    row = speed.whole[0]
    return {
        "row": "recorded" if speed.recorded else "measured",
        "variant": "full-size",
        "framework": FRAMEWORKS["pytorch"].title,
        "precision": "FP32",
        "hardware": environment.label(speed.environment),
        "network": speed.size,
        "dataset": "speed only, random weights",
        "fps_tracked": row["fps"],
        "fps_tracked_low": 1000 / row["frame_ms_high"],
        "fps_tracked_high": 1000 / row["frame_ms_low"],
        "run": Path(run).name,
        "date": speed.environment["date"],
    }


# -- Timing a group --------------------------------------------------------------------------------


def work(run: str, framework: str) -> float:
    """How long `engine_speed` would take, in frames of the demo tracker in PyTorch FP32; 0 where
    the run has everything."""
    return sum(_record(run, group, Path()).work for group in groups(framework))


def _record(run: str, group: str, models: Path) -> Record:
    """A group's record. models: a folder for FP32 models, by the network's place."""
    kind = _split(group)[1]
    candidates = 1 + sum(len(variants) for _, variants in _wanted(group))
    return Record(
        run,
        f"speed/{group}.json",
        partial(group_key, group),
        ROUNDS * candidates * COST[kind],
        lambda bar: _time_group(group, models, bar),
    )


def _split(group: str) -> tuple[str, str]:
    """Framework and kind of a group."""
    framework, _, kind = group.partition("-")
    return framework, kind or framework


def group_key(group: str) -> dict[str, str]:
    """All that decides a group's times (see `lib.measure.keys`)."""
    framework, kind = _split(group)
    networks = [asdict(config) for _, config in timed_configs()]
    chosen = [one.name for one in steps("", framework)] if kind == "whole" else []
    return timed_by(framework, networks=networks, layers=chosen, rounds=ROUNDS)


def _time_group(group: str, models: Path, bar: Any) -> dict[str, Any]:
    """Build a group's engines, time them in turns, and look into those of the whole network."""
    (framework, kind), networks = _split(group), timed_configs()
    bar.set_description(f"speed: building {group}")
    plain = timing_deployment(random_network(networks[0][1]), "pytorch", device())
    candidates, missing = [Timed(0, plain, baseline("")[0])], []
    for place, variants in _wanted(group):
        network, folder = random_network(networks[place][1]), models / str(place)
        deployment = timing_deployment(network, framework, device(), folder)
        for variant in variants:
            try:
                candidates.append(Timed(place, deployment, variant))
            except InputError as error:
                missing.append(f"{variant.title}: {error}")
        give_back_memory()
    bar.set_description(f"speed: {group}, {len(candidates)} engines in turns")
    time_group(candidates, ROUNDS, lambda: bar.update(COST[kind]))
    layers, again = {}, {}
    if kind == "pytorch":
        layers["pytorch fp32"] = layer_times(plain, "fp32")
    elif kind == "whole":
        pure = [one.variant.search for one in candidates[1:] if one.is_pure]
        for precision in dict.fromkeys(pure):
            bar.set_description(f"speed: layers of {framework} {precision}")
            layers[f"{framework} {precision}"] = layer_times(deployment, precision)
            again[precision] = reinitialisation(deployment, precision)
    give_back_memory()
    return {
        "rows": _rows(candidates, group),
        "layers": layers,
        "reinitialisation": again,
        "missing": missing,
        "absent": list(missing_frameworks(["tensorrt"]).values()),
        "parameters": plain.parameters,
    }


def _wanted(group: str) -> list[tuple[int, list[Variant]]]:
    """The variants of every network that a group times beside the reference, by place."""
    framework, kind = _split(group)
    places = range(len(timed_configs()))
    if kind == "pytorch":
        return [(place, baseline("")) for place in places[1:]]
    if kind == "whole":
        different = [one for one in mixtures("", framework) if one.target == one.search]
        return [(0, [*different, *steps("", framework)])]
    return [(place, [mixture("", framework, [kind] * 3)]) for place in places]


def _rows(timed: Sequence[Timed], group: str) -> list[dict[str, Any]]:
    networks, kind = timed_configs(), _split(group)[1]
    # The reference's speed comes from its own group, and the whole network's from one of the two
    own = timed if group == "pytorch" else timed[1:]
    whole = next((one for one in own if one.place == 0), timed[0])
    return [
        {
            **one.row(),
            "group": group,
            "kept": kept(one.variant),
            "place": one.place,
            "multiple": networks[one.place][0],
            "parameters": backbone_parameters(networks[one.place][1]),
            **ratios(one.times, (whole if one.place else one).times, "whole_ratio"),
        }
        for one in own
        if one.place or kind in ("pytorch", "whole")
    ]


def layer_times(
    deployment: Deployment, precision: str, calls: int = 3
) -> dict[str, dict[str, float]]:
    """Network -> layer type -> mean seconds, by the framework's own profiler."""
    channels = deployment.weights.config.rpn
    return {
        name: by_type(engine.profile(random_feeds(name, channels), calls))
        for name, engine in deployment.engines(dict.fromkeys(NETWORKS, precision)).items()
    }


def reinitialisation(
    deployment: Deployment, precision: str, calls: int = 7
) -> dict[str, list[float]]:
    """Seconds from an exemplar crop to kernels that a compiled xcorr network runs with.

    inputs: kernels are inputs of the network. refit: they are constants that `refit` replaces.
    """
    exemplar = random_feeds("target", deployment.weights.config.rpn)["exemplar"]
    network = deployment.network(dict.fromkeys(NETWORKS, precision))
    kernels = network.template(exemplar).items()
    first = {name: network.target.numpy(kernel) for name, kernel in kernels}
    fitted = EngineNetwork({**network.engines, "xcorr": refitted(deployment, precision, first)})
    fitted.template(exemplar)
    return {
        way: [seconds_of(one.template, exemplar) for _ in range(calls)]
        for way, one in (("inputs", network), ("refit", fitted))
    }
