"""What a run says to the claims of the thesis: each public function is a quantity that
data/thesis/scoreboard.csv may name.

Speeds are the full-size network's, quality is the run's on its dataset. An interval of a difference
in quality is the paired bootstrap's; of a speed, the smallest and the largest round or the
quartiles of frames.
"""

from __future__ import annotations

from math import nan
from typing import Any, Iterable, Mapping, Sequence

import numpy as np

from lib.measure import pruned
from lib.measure.variants import Variant, mixtures
from lib.report import audit, thesis
from lib.report.evidence import BASE, CannotTell, Evidence, Measured
from lib.report.tables import is_known
from lib.siamrpn.contract import PRECISIONS
from lib.siamrpn.network import NetworkConfig, backbone_parameters

ORDER = (BASE, "engine FP32", "engine FP16", "engine INT8")  # the thesis's, from the slowest
FULL = "full-size network, random weights"


def _with_ends(ends: Iterable[float], source: str) -> Measured:
    """ends: a value, its low and its high end."""
    value, low, high = ends
    return Measured(value, low, high, source)


def _fps(row: Mapping[str, Any]) -> Measured:
    """The interval: quartiles of single frames."""
    return Measured(row["fps"], 1000 / row["frame_ms_high"], 1000 / row["frame_ms_low"], FULL)


def _to_baseline(row: Mapping[str, Any]) -> Measured:
    """Speed as a multiple of PyTorch FP32's. The interval: smallest and largest round."""
    return Measured(row["ratio"], row["ratio_low"], row["ratio_high"], FULL)


def _ratio(one: Measured, other: Measured) -> Measured:
    """Of two speeds, as far apart as their ends allow."""
    return Measured(one.value / other.value, one.low / other.high, one.high / other.low, FULL)


def fps(evidence: Evidence, tracker: str) -> Measured:
    """Frames per second of the full-size network."""
    return _fps(evidence.speed_row(tracker))


def speed_ratio(evidence: Evidence, a: str, b: str) -> Measured:
    """How much faster a is than b at full size; each was timed in turns with PyTorch FP32."""
    one = _to_baseline(evidence.speed_row(a))
    return one if b == BASE else _ratio(one, _to_baseline(evidence.speed_row(b)))


def speed_more(evidence: Evidence, a: str, b: str) -> Measured:
    """`speed_ratio` less one."""
    value, low, high, source = speed_ratio(evidence, a, b)
    return Measured(value - 1, low - 1, high - 1, source)


def baseline_quality(evidence: Evidence, measure: str) -> Measured:
    """A measure of the baseline with its interval over sequences."""
    row = evidence.measurement(BASE).row()
    ends = (row[f"{measure}{end}"] for end in ("", "_low", "_high"))
    return _with_ends(ends, f"{evidence.benchmark}, {row['network']}")


def eao_loss(evidence: Evidence, a: str, b: str) -> Measured:
    """EAO of b less that of a, paired."""
    return _with_ends(evidence.difference(b, a), evidence.benchmark)


def change(evidence: Evidence, measure: str, a: str | Variant, b: str | Variant) -> Measured:
    """Paired change of a measure from b to a in % of b's value."""
    whole = evidence.measurement(b).evaluation
    base = float(getattr(whole, measure))
    if not base:
        raise CannotTell(f"{b} has a {measure} of 0, of which nothing can be a share")
    value, low, high = (100 * part / base for part in evidence.difference(a, b, measure))
    if measure == "robustness":  # counts whole failures: less than half a one is not seen
        low, high = min(low, value - 50 / whole.failures), max(high, value + 50 / whole.failures)
    return Measured(value, low, high, evidence.benchmark)


def eao_share(evidence: Evidence, a: str, b: str) -> Measured:
    """EAO of a as a share of b's, by their paired difference."""
    value, low, high, source = change(evidence, "eao", a, b)
    return Measured(1 + value / 100, 1 + low / 100, 1 + high / 100, source)


def layer_ratio(evidence: Evidence, network: str, kind: str, slow: str, fast: str) -> Measured:
    """Time of a layer type of a full-size network at one precision, divided by that at another;
    means over calls."""
    layers, framework = evidence.speed.layers, evidence.framework
    one, other = (
        layers.get(f"{framework} {level}", {}).get(network, {}).get(kind, 0.0)
        for level in (slow, fast)
    )
    if not (one and other):
        raise CannotTell(f"{framework} reports no {kind} layers of the {network} network")
    return Measured(one / other, source=FULL)


def _mixed(evidence: Evidence) -> dict[tuple[str, ...], Mapping[str, Any]]:
    """The 24 mixtures of more than one precision, by precision of target, search and xcorr."""
    every = evidence.mixtures.items()
    return {levels: row for levels, row in every if len(set(levels)) > 1}


def shared_speeds(evidence: Evidence) -> Measured:
    """FPS that the ranges of two neighbouring precisions of the search network share; 0 where they
    are apart."""
    every = evidence.mixtures.items()
    groups = [
        np.array([_fps(row)[:3] for levels, row in every if levels[1] == precision])
        for precision in PRECISIONS
    ]
    shared = [
        np.max(slow, 0) - np.min(fast, 0)[[0, 2, 1]] for slow, fast in zip(groups, groups[1:])
    ]
    return _with_ends(np.max([np.zeros(3), *shared], 0), FULL)


def median_against_pure(evidence: Evidence, level: str) -> Measured:
    """Median speed of the mixtures whose search network has a precision, against the tracker that
    has it throughout."""
    level = level.lower()
    mixed = [_fps(row)[:3] for levels, row in _mixed(evidence).items() if levels[1] == level]
    return _ratio(Measured(*np.median(mixed, 0)), _fps(evidence.mixtures[level, level, level]))


def fastest_mixture(evidence: Evidence) -> Measured:
    """Speed of the fastest mixture against INT8 throughout."""
    fastest = max(_mixed(evidence).values(), key=lambda row: float(row["fps"]))
    return _ratio(_fps(fastest), _fps(evidence.mixtures["int8", "int8", "int8"]))


def mixtures_above(evidence: Evidence, tracker: str) -> Measured:
    """Mixtures whose EAO is higher than a tracker's. low: surely; high: possibly."""
    mixed = [one for one in mixtures(evidence.weights, evidence.framework) if "/" in one.precision]
    found = [evidence.difference(one, tracker, tests=len(mixed)) for one in mixed]
    return _counted(
        [[value > 0, low > 0, high > 0] for value, low, high in found], evidence.benchmark
    )


def xcorr_change(evidence: Evidence) -> Measured:
    """What an INT8 xcorr network changes in EAO, % of an FP32 one's: the median of nine paired
    changes, one for each precision of target and search network, and of their ends."""
    every = mixtures(evidence.weights, evidence.framework)
    named = {tuple(one.precisions.values()): one for one in every}
    changes = [
        change(evidence, "eao", one, named[one.target, one.search, "fp32"])
        for one in every
        if one.xcorr == "int8"
    ]
    return _with_ends(np.median([each[:3] for each in changes], 0), evidence.benchmark)


def network_parameters(_: Evidence) -> Measured:
    """Parameters of the full-size backbone, counted, millions."""
    counted = backbone_parameters(NetworkConfig.resnet50()) / 1e6
    return Measured(counted, counted, counted, "counted")


def pruned_better(evidence: Evidence) -> Measured:
    """Pruned networks with a higher top-1 accuracy than the original. low: whose intervals lie
    apart; high: or overlap."""
    first, *others = evidence.section("04_2_2_pruned_backbone")
    counted = [
        [
            row["top1"] > first["top1"],
            row["top1_low"] > first["top1_high"],
            row["top1_high"] >= first["top1_low"],
        ]
        for row in others
    ]
    return _counted(counted, "demo network, generated classes")


def _sizes(evidence: Evidence) -> list[list[Mapping[str, Any]]]:
    """Speed of the full-size networks: for each backbone from the whole one to the smallest, a row
    per tracker in `ORDER`. The backbones' channels are those that the scores say."""
    sizes = [list(map(evidence.speed.row_for, trackers)) for trackers in _pruned(evidence)]
    if not all(map(all, sizes)):
        raise CannotTell(f"{evidence.framework} has not every precision at every size")
    return sizes


def pruned_fps(evidence: Evidence, millions: str, tracker: str) -> Measured:
    """Frames per second of a full-size network with a pruned backbone."""
    return _fps(_sizes(evidence)[thesis.SIZES.index(millions)][ORDER.index(tracker)])


def sizes_in_speed_order(evidence: Evidence) -> Measured:
    """Sizes at which the trackers' speeds are in the thesis's `ORDER`. low: in every round; high:
    in some."""
    sizes = [[_to_baseline(row) for row in rows] for rows in _sizes(evidence)]
    steps = [[_faster(b, a) for a, b in zip(rows, rows[1:])] for rows in sizes]
    return _counted([np.all(each, 0) for each in steps], FULL)


def steps_faster(evidence: Evidence) -> Measured:
    """Steps to a smaller backbone that make a tracker faster, of 3 steps and 4 trackers. low, high:
    by the frames' quartiles."""
    sizes = _sizes(evidence)
    pairs = [pair for one, other in zip(sizes, sizes[1:]) for pair in zip(one, other)]
    return _counted([_faster(_fps(small), _fps(large)) for large, small in pairs], FULL)


def _faster(one: Measured, other: Measured) -> list[bool]:
    """Whether a speed is above another: by value, surely, possibly."""
    return [one.value > other.value, one.low > other.high, one.high > other.low]


def gain_left(evidence: Evidence, millions: str) -> Measured:
    """What FP16 gains over FP32 in speed with a pruned backbone, as a share of what it gains with
    the whole one."""
    sizes = _sizes(evidence)
    fp16, fp32 = ORDER.index("engine FP16"), ORDER.index("engine FP32")
    whole, small = (
        _ratio(_to_baseline(rows[fp16]), _to_baseline(rows[fp32]))
        for rows in (sizes[0], sizes[thesis.SIZES.index(millions)])
    )
    return _ratio(small, whole)


def _pruned(evidence: Evidence) -> list[list[Variant]]:
    """Of each size, the four trackers of section 4.2.3 that were trained as in the thesis."""
    shares = (pruned.UNPRUNED, *pruned.SHARES)
    return [
        pruned.variants(pruned.Tracker(share, pruned.FROZEN), evidence.framework)
        for share in shares
    ]


def steps_worse(evidence: Evidence) -> Measured:
    """Steps to a smaller backbone that lower a tracker's EAO, of 3 steps and 4 trackers. low: by
    more than noise; high: or within it."""
    sizes = _pruned(evidence)
    pairs = [pair for one, other in zip(sizes, sizes[1:]) for pair in zip(one, other)]
    lower = [_lower(evidence, small, large, len(pairs)) for large, small in pairs]
    return _counted(lower, evidence.benchmark)


def _lower(evidence: Evidence, one: Variant, other: Variant, tests: int) -> list[bool]:
    """Whether a tracker has a lower EAO than another: by value, surely, possibly."""
    value, low, high = evidence.difference(one, other, tests=tests)
    return [value < 0, high < 0, low <= 0]


def sizes_pytorch_best(evidence: Evidence) -> Measured:
    """Sizes at which all engines have a lower EAO than PyTorch. low: by more than noise; high: none
    is higher by more than it."""
    sizes = _pruned(evidence)
    counted = [
        np.all([_lower(evidence, one, base, len(sizes) * len(compiled)) for one in compiled], 0)
        for base, *compiled in sizes
    ]
    return _counted(counted, evidence.benchmark)


def _counted(counted: Sequence[Any], source: str) -> Measured:
    """Of things that each may be true by value, surely, and possibly: how many are."""
    return _with_ends(np.sum(counted, 0, float), source)


def saving(evidence: Evidence, column: str, a: str, b: str) -> Measured:
    """How much less power or energy a frame a takes than b, %, by the thesis's definition (section
    4.3)."""
    rows = {row["variant"]: row for row in evidence.section("04_3_power")}
    names = [evidence.variant(tracker).name for tracker in (a, b)]
    values = [float(rows.get(name, {}).get(column, nan)) for name in names]
    if not all(map(is_known, values)):
        raise CannotTell("this run was made without a power sensor (section 4.3 names them)")
    return Measured(-audit.change(*values), source=evidence.benchmark)
