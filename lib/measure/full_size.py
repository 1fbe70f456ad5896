"""Speed of the full-size networks, whole and pruned, on this machine, kept in a run (sections 4.1
and 4.2).

Their weights are random (seeded), since no speed depends on them; so this needs neither VOT2018 nor
PySOT's weights. They are timed in groups, each in turns with PyTorch FP32 and small enough for
memory, and each kept as data/runs/<run>/speed/<group>.json:

    pytorch                        the whole network and the pruned ones in PyTorch FP32
    <framework>-mixtures           all 27 mixtures of the whole network, layers, initialising again
    <framework>-fp32, -fp16, ...   the whole network and the pruned ones in one precision

Each speed comes from one group, and so is the same on every page: the whole network's from the
first two.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Dict, List, Mapping, Optional, Sequence, Tuple, cast

import numpy as np

from lib import environment
from lib.engines.deploy import FRAMEWORKS, framework_module, give_back_memory, missing_frameworks
from lib.environment import device
from lib.errors import InputError
from lib.measure import pruned
from lib.measure.absent import Absent
from lib.measure.keys import CODE
from lib.measure.measurement import Measurement
from lib.measure.pruned import timed_configs
from lib.measure.runs import (
    absent,
    is_recorded,
    kept_record,
    read_json,
    run_folder,
    run_note,
    to_json,
)
from lib.measure.speed import (
    candidate,
    layer_times,
    random_network,
    reinitialisation,
    timing_deployment,
)
from lib.measure.turns import Candidate, Timed, ratios, time_group
from lib.measure.variants import Variant, mixtures
from lib.progress import progress
from lib.pruning import backbone_parameters
from lib.siamrpn.contract import by_type
from lib.siamrpn.network import NetworkConfig, parameter_count
from lib.siamrpn.parts import NETWORKS
from lib.vot.protocol import INIT, SKIPPED

ROUNDS = 3
PLAIN = dict.fromkeys(NETWORKS, "fp32")
# What a turn costs beside one of PyTorch FP32, for the time left alone.
COST = {"fp32": 0.7, "fp16": 0.4, "int8": 0.3}
Configs = Sequence[Tuple[int, NetworkConfig]]
Row = Mapping[str, Any]


@dataclass(frozen=True)
class EngineSpeed:
    """Speed of the full-size networks on every precision of a framework, beside PyTorch FP32.

    rows: of `speed.Timed.row`, with the network's place (0: the whole one), the backbone's
    parameters, the multiple of channels that it keeps and its group; ratio is to the whole network
    in PyTorch FP32, whole_ratio to the whole network with the same engine (median, _low, _high:
    smallest and largest round). layers: "openvino int8" -> network -> layer type -> seconds a call.
    reinitialisation: precision -> "inputs" and "refit" -> seconds, empty where there is no such
    way. missing: sentences.
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
    def whole(self) -> List[Row]:
        """The whole network with one precision throughout, PyTorch's first."""
        return [row for row in self.rows if row["place"] == 0 and "/" not in row["precision"]]

    @property
    def mixtures(self) -> Dict[Tuple[str, str, str], Row]:
        """The whole network's rows by precision of target, search and xcorr network."""
        group = f"{self.framework}-mixtures"
        return {
            (row["target"], row["search"], row["xcorr"]): row
            for row in self.rows
            if row["group"] == group
        }

    @property
    def compared(self) -> List[Row]:
        """All networks in PyTorch FP32 and every precision: the whole one first, then by size."""
        return [*self.whole, *(row for row in self.rows if row["place"])]

    @property
    def title(self) -> str:
        return FRAMEWORKS[self.framework].title

    @property
    def note(self) -> str:
        """What a caption says: the run, the machine, the day, and whether turns stayed
        disturbed."""
        note = run_note(self.run, self.environment, self.title, self.recorded)
        return note + about_turns(self.rows)

    @property
    def size(self) -> str:
        """Of the whole network: "53.9 M parameters"."""
        return f"{self.parameters / 1e6:.1f} M parameters"

    def row_of(self, framework: str, precision: str) -> Row:
        """The whole network's row of a framework (a key of deploy.FRAMEWORKS) and a precision.
        Raises InputError without one."""
        title = FRAMEWORKS[framework].title
        for row in self.whole:
            if str(row["framework"]).startswith(title) and row["precision"] == precision.upper():
                return row
        raise InputError(f"{title} in {precision.upper()} was not timed in run {self.run}")

    def row_for(self, variant: Variant) -> Row:
        """The full-size network's row for a variant of any size; {} where it was not timed."""
        place, precisions = pruned.place(variant), (variant.target, variant.search, variant.xcorr)
        if variant.framework == "pytorch":
            found = [
                row for row in self.rows if row["group"] == "pytorch" and row["place"] == place
            ]
        elif place == 0:
            found = [self.mixtures[precisions]] if precisions in self.mixtures else []
        else:
            found = [
                row for row in self.rows if row["place"] == place and row["group"] != "pytorch"
            ]
            found = [row for row in found if row["precision"] == variant.precision]
        return found[0] if found else {}

    def initialisation(self, variant: Variant) -> float:
        """Seconds of an init call: the crop and the target network of the whole network's
        engine."""
        rows = [row for row in self.whole if row["target"] == variant.target]
        chosen = [
            row
            for row in rows
            if row["group"] == ("pytorch" if variant.framework == "pytorch" else rows[-1]["group"])
        ]
        return (
            float(chosen[0]["target_ms"] + chosen[0]["crop_ms"]) / 1000 if chosen else float("nan")
        )


def with_speed(measured: Sequence[Any], speed: Any) -> List[Any]:
    """Measurements whose passes were not timed, with the full-size network's times: each call takes
    its median, measured alone.

    So FPS by PySOT's scheme is what these failures make of the full-size network's speed. What is
    absent stays so.
    """
    known = not isinstance(speed, Absent)
    return [
        _timed_as(one, speed) if known and isinstance(one, Measurement) else one for one in measured
    ]


def _timed_as(one: Measurement, speed: EngineSpeed) -> Measurement:
    row = speed.row_for(one.variant)
    if not row or all(
        np.isfinite(trajectory.seconds).all() for trajectory in one.trajectories.values()
    ):
        return one
    seconds = {SKIPPED: 0.0, INIT: speed.initialisation(one.variant)}
    trajectories = {
        name: replace(
            each,
            seconds=np.array(
                [seconds.get(code, row["frame_ms"] / 1000) for code in each.codes.tolist()]
            ),
        )
        for name, each in one.trajectories.items()
    }
    return replace(one, trajectories=trajectories, speed=row)


def about_turns(rows: Sequence[Row]) -> str:
    """How many turns other work of the machine disturbed, for captions; "" where none."""
    repeated, left = (
        sum(int(row.get(name, 0)) for row in rows) for name in ("repeated", "disturbed")
    )
    if not repeated + left:
        return ""
    return f"; other work disturbed turns: {repeated} repeated, {left} still disturbed"


def groups(framework: str) -> List[str]:
    """The groups of a framework, in the order in which they are timed."""
    precisions = FRAMEWORKS[framework].precisions
    compiled = [f"{framework}-mixtures", *(f"{framework}-{precision}" for precision in precisions)]
    return ["pytorch", *(compiled if framework != "pytorch" else [])]


def engine_speed(
    run: str, framework: str, networks: Configs = (), rounds: int = ROUNDS, bar: Any = None
) -> EngineSpeed:
    """Time all groups, or load what the run has.

    networks: each with the multiple of channels that it keeps, the whole one first;
    `pruned.timed_configs` unless given. bar: a progress bar to count on (units of `work`).
    """
    records = {}
    with tempfile.TemporaryDirectory() as models:  # FP32 models that several groups compile from
        for group in groups(framework):
            record = _record(run, group, networks or timed_configs(), rounds, bar, Path(models))
            if record is None:
                title = FRAMEWORKS[framework].title
                what = f"the speed of the full-size networks with {title} ({group})"
                return cast(EngineSpeed, absent(what, run))
            records[group] = record
    rows = [{**row, "group": group} for group, record in records.items() for row in record["rows"]]
    every = list(records.values())
    missing = [sentence for record in every for sentence in record["missing"]]
    return EngineSpeed(
        [
            row
            for row in rows
            if row["place"] or row["group"] in ("pytorch", f"{framework}-mixtures")
        ],
        {name: times for record in every for name, times in record["layers"].items()},
        {name: times for record in every for name, times in record["reinitialisation"].items()},
        [*dict.fromkeys(missing), *every[0]["absent"]],
        every[0]["parameters"],
        framework,
        run,
        every[-1]["environment"],
        is_recorded(run, device()),
    )


def baseline_speed(run: str, networks: Configs = (), rounds: int = ROUNDS) -> Dict[str, Any]:
    """A line for table 4.1: the whole network in PyTorch FP32, without quality, since random
    weights have none."""
    record = _record(run, "pytorch", networks or timed_configs(), rounds)
    if record is None:
        return cast(Dict[str, Any], absent("the speed of the full-size network in PyTorch", run))
    row = record["rows"][0]
    return {
        "row": "recorded" if is_recorded(run, device()) else "measured",
        "variant": "full-size",
        "framework": FRAMEWORKS["pytorch"].title,
        "precision": "FP32",
        "hardware": environment.label(record["environment"]),
        "network": f"{record['parameters'] / 1e6:.1f} M parameters",
        "dataset": "speed only, random weights",
        "fps_tracked": row["fps"],
        "fps_tracked_low": 1000 / row["frame_ms_high"],
        "fps_tracked_high": 1000 / row["frame_ms_low"],
        "run": Path(run).name,
        "date": record["environment"]["date"],
    }


def work(run: str, framework: str, networks: Configs = ()) -> float:
    """How much `engine_speed` would have to do, in turns of the whole network in PyTorch FP32; 0
    where the run has everything."""
    if is_recorded(run, device()):
        return 0.0
    networks = networks or timed_configs()
    names = groups(framework)
    parts = {name: _decided(name, networks, ROUNDS) for name in names}
    left = [name for name in names if read_json(_path(run, name)).get("decided_by") != parts[name]]
    return sum(sum(_costs(name, networks)) * ROUNDS for name in left)


def _costs(group: str, networks: Configs) -> List[float]:
    """Of a turn of each candidate of a group."""
    whole = backbone_parameters(networks[0][1])
    sizes = [backbone_parameters(config) / whole for _, config in networks]
    framework, _, precision = group.partition("-")
    if framework == "pytorch":
        return [2 * size for size in sizes]
    if precision == "mixtures":
        return [
            2.0,
            *(
                COST[one.search] * (1 if "/" in one.precision else 2)
                for one in mixtures("", framework)
            ),
        ]
    return [2.0, *(2 * COST[precision] * size for size in sizes)]


# -- Timing a group --------------------------------------------------------------------------------


def _path(run: str, group: str) -> Path:
    return run_folder(run) / "speed" / f"{group}.json"


def _decided(group: str, networks: Configs, rounds: int) -> Dict[str, str]:
    frameworks = dict.fromkeys(["pytorch", group.partition("-")[0]])
    return {
        "networks": to_json([config.to_dict() for _, config in networks]),
        "rounds": str(rounds),
        "machine": to_json(environment.machine(device())),
        "absent": ", ".join(missing_frameworks(["tensorrt"])),
        "frameworks": ", ".join(
            f"{name} {framework_module(name).version()}" for name in frameworks
        ),
        "versions": to_json(environment.versions()),
        "code": CODE,
    }


def _record(
    run: str,
    group: str,
    networks: Configs,
    rounds: int,
    bar: Any = None,
    models: Optional[Path] = None,
) -> Optional[Dict[str, Any]]:
    def measure() -> Dict[str, Any]:
        with progress(rounds * sum(_costs(group, networks)), f"speed: {group}", bar is None) as own:
            return _time_group(group, networks, rounds, own if bar is None else bar, models)

    return kept_record(run, f"speed/{group}.json", _decided(group, networks, rounds), measure)


def _time_group(
    group: str, networks: Configs, rounds: int, bar: Any, models: Optional[Path]
) -> Dict[str, Any]:
    """Build a group's engines, time them in turns, and look into those of the whole network."""
    framework, _, precision = group.partition("-")
    bar.set_description(f"speed: building {group}")
    missing: List[str] = []
    whole = random_network(networks[0][1])
    plain = timing_deployment(whole, "pytorch", device())
    candidates, looked_into = [candidate(0, plain, PLAIN)], []
    if group == "pytorch":
        candidates += _of_backbones(networks, 1, framework, "fp32", missing, None)
        looked_into = [(plain, "fp32")]
    elif precision == "mixtures":
        own = timing_deployment(whole, framework, device(), models / "0" if models else None)
        candidates += _of_mixtures(own, missing)
        pure = [one for one in candidates[1:] if "/" not in one.precision]
        looked_into = [(own, one.precision.lower()) for one in pure]
    else:
        candidates += _of_backbones(networks, 0, framework, precision, missing, models)
    give_back_memory()
    costs = iter(_costs(group, networks) * rounds)
    bar.set_description(f"speed: {group}, {len(candidates)} engines in turns")
    timed = time_group(candidates, rounds, lambda: bar.update(next(costs, 0)))
    found = {
        "rows": _rows(networks, timed, group),
        **_layers(looked_into, bar),
        "missing": missing,
        "absent": list(missing_frameworks(["tensorrt"]).values()),
        "parameters": parameter_count(whole),
    }
    del candidates, timed, looked_into
    give_back_memory()
    return found


def _layers(looked_into: Sequence[Tuple[Any, str]], bar: Any) -> Dict[str, Dict[str, Any]]:
    """Latency by layer type, and re-initialisation both ways, of deployments at a precision."""
    layers, again = {}, {}
    for deployment, precision in looked_into:
        bar.set_description(f"speed: layers of {deployment.framework} {precision}")
        times = layer_times(deployment, precision)
        layers[f"{deployment.framework} {precision}"] = {
            part: by_type(found) for part, found in times.items()
        }
        if deployment.framework != "pytorch":
            ways = reinitialisation(deployment, precision).items()
            again[precision] = {
                way: [] if seconds is None else seconds.tolist() for way, seconds in ways
            }
    return {"layers": layers, "reinitialisation": again}


def _of_backbones(
    networks: Configs,
    start: int,
    framework: str,
    precision: str,
    missing: List[str],
    models: Optional[Path],
) -> List[Candidate]:
    """The networks from place `start` on in one precision; what the framework lacks goes to
    `missing`."""
    found = []
    for place in range(start, len(networks)):
        network, folder = (
            random_network(networks[place][1]),
            models / str(place) if models else None,
        )
        try:
            deployment = timing_deployment(network, framework, device(), folder)
            found.append(candidate(place, deployment, dict.fromkeys(NETWORKS, precision)))
        except InputError as error:
            missing.append(f"{FRAMEWORKS[framework].title} {precision.upper()}: {error}")
            break  # the other networks lack it as well
        del deployment, network
        give_back_memory()
    return found


def _of_mixtures(deployment: Any, missing: List[str]) -> List[Candidate]:
    """The 27 mixtures of one network, from nine engines."""
    found = []
    for one in mixtures("", deployment.framework):
        try:
            found.append(candidate(0, deployment, one.precisions, "/" not in one.precision))
        except InputError as error:
            missing.append(f"{one.title}: {error}")
    return found


def _rows(networks: Configs, timed: Sequence[Timed], group: str) -> List[Dict[str, Any]]:
    whole = next((one for one in timed[1:] if one.candidate.place == 0), timed[0])
    # The reference's speed comes from its own group
    own = timed if group == "pytorch" else timed[1:]
    return [
        {
            **one.row(),
            "place": one.candidate.place,
            "multiple": networks[one.candidate.place][0],
            "parameters": backbone_parameters(networks[one.candidate.place][1]),
            **ratios(one.times, (whole if one.candidate.place else one).times, "whole_ratio"),
        }
        for one in own
    ]
