"""The conclusion as a scoreboard: findings of the thesis, what a run measured of each, and whether
it holds by a stated rule.

data/thesis/scoreboard.csv has a line a finding: the thesis's number (a formula of `lib.report.thesis` and
its inputs), a quantity of `QUANTITIES` with its arguments, and a rule. What is measured is read
from the run's section tables and raw results; nothing is measured here, and what is missing is
said. A rule accepts a range of values, which is compared with the measured interval:

- *holds*: all of the interval lies within the range;
- *does not hold*: none of it does;
- *cannot be told here*: a part does, or nothing was measured, or the number means something on the
  thesis's machine or data only.

At demo scale relations are compared (ratios, differences with intervals, orders) and absolute
values of VOT2018 are not.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from math import inf, nan
from pathlib import Path
from typing import Any, Callable, Dict, Mapping, NamedTuple
from typing import Sequence as Seq

import numpy as np
from matplotlib.figure import Figure

from lib.measure import pruned, runs
from lib.pruning import backbone_parameters
from lib.report import thesis
from lib.report.ch04_engines import LEVELS, by_precision
from lib.report.plots import GREEN, GREY, ORANGE, finished, new_figure, styled
from lib.report.tables import ABSENT, Table, Text, is_known
from lib.siamrpn.network import NetworkConfig
from lib.vot.dataset import VOT2018_FRAMES, VOT2018_SEQUENCES, Dataset
from lib.vot.metrics import Evaluation, evaluate, paired_bootstrap
from lib.vot.results import read_results, result_path

HOLDS, FAILS, OPEN = "holds", "does not hold", "cannot be told here"
VERDICTS = {HOLDS: GREEN, FAILS: ORANGE, OPEN: GREY}
PAGES = {
    "04_2_speed": "04_2_engines",
    "04_2_calibration": "04_2_engines",
    "04_2_3_full_size": "04_2_3_pruned_engines",
}
BASE = "PyTorch FP32"
# Of the thesis's four backbones, millions, from the whole one down
COUNTS = tuple(thesis.table("table_4_4")["parameters_m"])
TRACKERS_SHARES = (pruned.UNPRUNED, *pruned.SHARES)


class CannotTell(Exception):
    """Why a quantity is not to be had from a run, in words without a full stop. page: the notebook
    that measures it, if one."""

    def __init__(self, reason: str, page: str = "") -> None:
        super().__init__(reason)
        self.page = page


class Measured(NamedTuple):
    """A quantity of a run. low, high: its interval, NaN where there is none. source: from what, in
    words."""

    value: float
    low: float = nan
    high: float = nan
    source: str = ""

    @property
    def interval(self) -> tuple[float, float]:
        """The interval, or the value twice."""
        return (self.low, self.high) if is_known(self.low) else (self.value, self.value)


@dataclass(frozen=True)
class Evidence:
    """A run's tables and raw results. run: as the notebooks name it. dataset: what its trackers
    were measured on."""

    run: str
    dataset: Dataset
    _evaluations: Dict[str, Evaluation] = field(default_factory=dict, repr=False, compare=False)

    def rows(self, section: str) -> list[dict[str, Any]]:
        """A section's rows; `CannotTell` where the run has none."""
        table = runs.section_table(self.run, section)
        if table.empty:
            number = ".".join(part.lstrip("0") for part in section.split("_") if part.isdigit())
            raise CannotTell(
                f"this run does not have section {number} ({section})", PAGES.get(section, section)
            )
        return [
            {str(name): value for name, value in row.items()} for row in table.to_dict("records")
        ]

    def row(self, tracker: str, section: str = "04_2_engines") -> dict[str, Any]:
        """A tracker's row: "PyTorch FP32" or "engine FP16" of a section of the baseline's engines,
        or "0.26 frozen" (in PyTorch) or "0.26 frozen FP16" of section 4.2.3."""
        first, *rest = tracker.split()
        if first in ("PyTorch", "engine"):
            return self._find(
                section,
                tracker,
                lambda row: (
                    (row["framework"] == "PyTorch") == (first == "PyTorch")
                    and row["precision"] == rest[0]
                    and "M parameters" in str(row["network"])
                ),
            )
        share, training, precision = float(first), rest[0], (rest[1:] or [""])[0]
        return self._find(
            "04_2_3_pruned_engines",
            tracker,
            lambda row: (
                (row["share"], row["training"]) == (share, training)
                and (row["framework"] == "PyTorch") == (not precision)
                and row["precision"] == (precision or "FP32")
            ),
        )

    def _find(
        self, section: str, name: str, is_it: Callable[[dict[str, Any]], bool]
    ) -> dict[str, Any]:
        found = [row for row in self.rows(section) if is_it(row)]
        if not found:
            raise CannotTell(
                f"section {section} of this run has no row of {name}", PAGES.get(section, section)
            )
        return found[0]

    def evaluation(self, variant: str) -> Evaluation:
        """A variant's raw results, evaluated; `CannotTell` where the run does not have them."""
        if variant not in self._evaluations:
            folder = runs.run_folder(self.run) / self.dataset.name / variant
            lacking = [
                sequence.name
                for sequence in self.dataset
                if not result_path(folder, sequence.name).is_file()
            ]
            if lacking:
                raise CannotTell(f"the run lacks raw results of {variant} on {self.dataset.name}")
            self._evaluations[variant] = evaluate(self.dataset, read_results(folder, self.dataset))
        return self._evaluations[variant]

    def difference(
        self, a: str, b: str, measure: str = "eao", level: float = 0.95
    ) -> tuple[float, float, float]:
        """a - b of two variants, with its paired interval."""
        return paired_bootstrap(self.evaluation(a), self.evaluation(b), level=level)[measure]

    @property
    def quality(self) -> str:
        return f"{self.dataset.name}, {len(self.dataset)} sequences"


# -- Quantities ------------------------------------------------------------------------------------


def _speed_row(evidence: Evidence, tracker: str) -> dict[str, Any]:
    """A row of the full-size network's speed in section 4.2."""
    first, precision = tracker.split()
    return evidence._find(
        "04_2_speed",
        tracker,
        lambda row: (
            row["precision"] == precision
            and str(row["framework"]).startswith("PyTorch") == (first == "PyTorch")
        ),
    )


def _fps(row: Mapping[str, Any]) -> Measured:
    return Measured(row["fps"], 1000 / row["frame_ms_high"], 1000 / row["frame_ms_low"], FULL)


def fps(evidence: Evidence, tracker: str) -> Measured:
    """Frames per second of the full-size network; its quartiles."""
    return _fps(_speed_row(evidence, tracker))


def _executed(evidence: Evidence, tracker: str) -> str:
    """How many convolutions ran in what, "80 FP32"; "" where the run does not say."""
    try:
        return str(_speed_row(evidence, tracker).get("executed", ""))
    except CannotTell:
        return ""


def speed_ratio(evidence: Evidence, a: str, b: str) -> Measured:
    """How much faster a is than b at full size: of their ratios to PyTorch FP32, each measured in
    turns with it. The interval is as wide as the smallest and the largest round of both allow."""
    one, other = _speed_row(evidence, a), _speed_row(evidence, b)
    if b == BASE:
        return Measured(one["ratio"], one["ratio_low"], one["ratio_high"], FULL)
    return Measured(
        one["ratio"] / other["ratio"],
        one["ratio_low"] / other["ratio_high"],
        one["ratio_high"] / other["ratio_low"],
        FULL,
    )


def speed_more(evidence: Evidence, a: str, b: str) -> Measured:
    """`speed_ratio` less one."""
    value, low, high, source = speed_ratio(evidence, a, b)
    return Measured(value - 1, low - 1, high - 1, source)


def quality(evidence: Evidence, measure: str) -> Measured:
    """A measure of the baseline with its interval over sequences."""
    row = evidence.row(BASE, "04_1_baseline")
    return Measured(
        row[measure],
        row[f"{measure}_low"],
        row[f"{measure}_high"],
        f"{evidence.quality}, {row['network']}",
    )


def eao_loss(evidence: Evidence, a: str, b: str) -> Measured:
    """EAO of b less that of a, paired."""
    value, low, high = evidence.difference(*(evidence.row(name)["variant"] for name in (b, a)))
    return Measured(value, low, high, evidence.quality)


def change(evidence: Evidence, measure: str, a: str, b: str) -> Measured:
    """Paired change of a measure from b to a in % of b's value."""
    one, other = (evidence.row(name)["variant"] for name in (a, b))
    base = float(getattr(evidence.evaluation(other), measure))
    if not base:
        raise CannotTell(f"{b} has a {measure} of 0, of which nothing can be a share")
    value, low, high = (100 * part / base for part in evidence.difference(one, other, measure))
    # Robustness counts whole failures, so a change of less than half a one is not seen
    if measure == "robustness":
        half = 50 / evidence.evaluation(other).failures
        low, high = min(low, value - half), max(high, value + half)
    return Measured(value, low, high, evidence.quality)


def eao_share(evidence: Evidence, a: str, b: str) -> Measured:
    """EAO of a as a share of b's, by their paired difference."""
    value, low, high, source = change(evidence, "eao", a, b)
    return Measured(1 + value / 100, 1 + low / 100, 1 + high / 100, source)


def layer_ratio(evidence: Evidence, network: str, kind: str, slow: str, fast: str) -> Measured:
    """Time of a layer type of a network of the full size at one precision, divided by that at
    another; means over calls."""
    for path in sorted(runs.run_folder(evidence.run).glob("speed/*-mixtures.json")):
        framework = path.stem.partition("-")[0]
        layers = runs.read_json(path).get("layers", {})
        times = [
            layers.get(f"{framework} {level}", {}).get(network, {}).get(kind, 0.0)
            for level in (slow, fast)
        ]
        if min(times) > 0:
            return Measured(times[0] / times[1], source=FULL)
    raise CannotTell(
        f"this run has no times of the {network} network's layers of type {kind} in {slow} and {fast}",
        "04_2_engines",
    )


def _mixtures(evidence: Evidence) -> list[dict[str, Any]]:
    return evidence.rows("04_2_1_mixed_precision")


def _pure(rows: Seq[Mapping[str, Any]], level: str) -> Mapping[str, Any]:
    return next(row for row in rows if row["precision"] == level)


def _speeds(rows: Seq[Mapping[str, Any]]) -> np.ndarray:
    """(3, N) FPS of rows: the value, and its low and high end (of the full-size network: half of
    the frames lie between)."""
    ends = [[row.get(name, nan) for row in rows] for name in ("fps_tracked", "fps_low", "fps_high")]
    return np.array(ends, float)


def shared_speeds(evidence: Evidence) -> Measured:
    """FPS that the ranges of two neighbouring precisions of the search network share; 0 where they
    are apart."""
    rows = _mixtures(evidence)
    groups = [_speeds([row for row in rows if row["search"] == level.lower()]) for level in LEVELS]
    pairs = list(zip(groups, groups[1:]))
    value, low, high = (
        max(0.0, *(slow[i].max() - fast[j].min() for slow, fast in pairs))
        for i, j in ((0, 0), (1, 2), (2, 1))
    )
    return Measured(value, low, high, FULL)


def median_against_pure(evidence: Evidence, level: str) -> Measured:
    """Median speed of the mixtures whose search network has a precision, against the tracker that
    has it throughout."""
    rows = _mixtures(evidence)
    mixed = [row for row in rows if row["search"] == level.lower() and "/" in row["precision"]]
    return _against(np.median(_speeds(mixed), 1), _speeds([_pure(rows, level)])[:, 0])


def _against(one: np.ndarray, other: np.ndarray) -> Measured:
    """The ratio of two speeds, (value, low, high) each, as far apart as their ends allow."""
    return Measured(
        float(one[0] / other[0]), float(one[1] / other[2]), float(one[2] / other[1]), FULL
    )


def fastest_mixture(evidence: Evidence) -> Measured:
    """Speed of the fastest mixture against INT8 throughout."""
    rows = _mixtures(evidence)
    fastest = max(
        (row for row in rows if "/" in row["precision"]), key=lambda row: row["fps_tracked"]
    )
    return _against(*(_speeds([row])[:, 0] for row in (fastest, _pure(rows, "INT8"))))


def mixtures_above(evidence: Evidence, level: str) -> Measured:
    """Mixtures whose EAO is higher than with one precision throughout. low: surely; high: possibly.
    Intervals of the differences are Bonferroni's, since so many are looked at."""
    rows = _mixtures(evidence)
    mixed = [row["variant"] for row in rows if "/" in row["precision"]]
    found = [
        evidence.difference(name, _pure(rows, level)["variant"], level=1 - 0.05 / len(mixed))
        for name in mixed
    ]
    return _counts([[value > 0, low > 0, high > 0] for value, low, high in found], evidence.quality)


def xcorr_change(evidence: Evidence) -> Measured:
    """Median EAO of the mixtures with an INT8 xcorr network against those with an FP32 one, %."""
    groups = by_precision(_mixtures(evidence), "xcorr", "eao")
    return Measured(
        thesis.change(float(np.median(groups["INT8"])), float(np.median(groups["FP32"]))),
        source=evidence.quality,
    )


def network_parameters(evidence: Evidence) -> Measured:
    """Parameters of the full-size backbone, counted, millions."""
    counted = backbone_parameters(NetworkConfig.resnet50())
    return Measured(counted / 1e6, source="counted in the network")


def least_compression(evidence: Evidence) -> Measured:
    """Share of parameters that the smallest pruned backbone keeps."""
    return Measured(
        min(row["compression"] for row in evidence.rows("04_2_2_pruned_backbone")),
        source="demo network",
    )


def pruned_better(evidence: Evidence) -> Measured:
    """Pruned networks with a higher top-1 accuracy than the original. low: whose intervals lie
    apart; high: or overlap."""
    first, *others = evidence.rows("04_2_2_pruned_backbone")
    return Measured(
        sum(row["top1"] > first["top1"] for row in others),
        sum(row["top1_low"] > first["top1_high"] for row in others),
        sum(row["top1_high"] >= first["top1_low"] for row in others),
        "demo network, generated classes",
    )


def _sizes(evidence: Evidence) -> list[dict[str, Mapping[str, Any]]]:
    """Speed of the full-size networks: for each backbone from the whole one to the smallest, rows
    by tracker."""

    def named(rows: Seq[Mapping[str, Any]]) -> dict[str, Mapping[str, Any]]:
        engine = {
            f"engine {row['precision']}": row
            for row in rows
            if not str(row["framework"]).startswith("PyTorch")
        }
        return {
            BASE: next(
                row
                for row in rows
                if str(row["framework"]).startswith("PyTorch") and row["precision"] == "FP32"
            ),
            **engine,
        }

    # As the scores say, like the thesis's
    every = [row for row in evidence.rows("04_2_3_full_size") if row["multiple"] == 1]
    sizes = sorted({row["parameters"] for row in every}, reverse=True)
    return [named([row for row in every if row["parameters"] == size]) for size in sizes]


# From the slowest to the fastest, as the thesis has it
ORDER = (BASE, *(f"engine {level}" for level in LEVELS))


def pruned_fps(evidence: Evidence, millions: str, level: str) -> Measured:
    """Frames per second of a full-size network with a pruned backbone."""
    rows = _sizes(evidence)[COUNTS.index(float(millions))]
    return _fps(rows[f"engine {level}"])


def sizes_in_speed_order(evidence: Evidence) -> Measured:
    """Sizes at which PyTorch, FP32, FP16 and INT8 follow each other in speed. low: in every round;
    high: in some."""
    counted = []
    for rows in _sizes(evidence):
        steps = [(rows[slow], rows[fast]) for slow, fast in zip(ORDER, ORDER[1:])]
        counted.append(
            [
                all(fast["ratio"] > slow["ratio"] for slow, fast in steps),
                all(fast["ratio_low"] > slow["ratio_high"] for slow, fast in steps),
                all(fast["ratio_high"] > slow["ratio_low"] for slow, fast in steps),
            ]
        )
    return _counts(counted, FULL)


def steps_faster(evidence: Evidence) -> Measured:
    """Steps to a smaller backbone that make a tracker faster, of 3 steps and 4 trackers. low, high:
    by the frames' quartiles."""
    sizes = _sizes(evidence)
    pairs = [
        (_fps(large[name]), _fps(small[name]))
        for large, small in zip(sizes, sizes[1:])
        for name in ORDER
    ]
    return Measured(
        sum(b.value > a.value for a, b in pairs),
        sum(b.low > a.high for a, b in pairs),
        sum(b.high > a.low for a, b in pairs),
        FULL,
    )


def gain_left(evidence: Evidence, millions: str) -> Measured:
    """What FP16 gains over FP32 in speed with a pruned backbone, as a share of what it gains with
    the whole one."""
    sizes = _sizes(evidence)
    chosen = (sizes[0], sizes[COUNTS.index(float(millions))])
    whole, small = ([rows[f"engine {level}"] for level in ("FP16", "FP32")] for rows in chosen)

    def gain(rows: Seq[Mapping[str, Any]], numerator: str, denominator: str) -> float:
        return float(rows[0][numerator] / rows[1][denominator])

    ends = (
        gain(small, "ratio_low", "ratio_high") / gain(whole, "ratio_high", "ratio_low"),
        gain(small, "ratio_high", "ratio_low") / gain(whole, "ratio_low", "ratio_high"),
    )
    return Measured(gain(small, "ratio", "ratio") / gain(whole, "ratio", "ratio"), *ends, FULL)


def _pruned_variants(evidence: Evidence) -> list[list[str]]:
    """Variants of the four trackers of section 4.2.3 that were trained as the thesis does, PyTorch
    first."""
    names = ["", " FP32", " FP16", " INT8"]
    return [
        [evidence.row(f"{share:g} {pruned.FROZEN}{name}")["variant"] for name in names]
        for share in TRACKERS_SHARES
    ]


def steps_worse(evidence: Evidence) -> Measured:
    """Steps to a smaller backbone that lower a tracker's EAO, of 3 steps and 4 trackers. low: by
    more than noise; high: or within it (Bonferroni's intervals)."""
    sizes = _pruned_variants(evidence)
    pairs = [pair for one, other in zip(sizes, sizes[1:]) for pair in zip(one, other)]
    found = [
        evidence.difference(small, large, level=1 - 0.05 / len(pairs)) for large, small in pairs
    ]
    return _counts(
        [[value < 0, high < 0, low <= 0] for value, low, high in found], evidence.quality
    )


def sizes_pytorch_best(evidence: Evidence) -> Measured:
    """Sizes at which all engines have a lower EAO than PyTorch. low: by more than noise; high: none
    is higher by more than it (Bonferroni's intervals)."""
    counted, sizes = [], _pruned_variants(evidence)
    level = 1 - 0.05 / sum(len(engines) for _, *engines in sizes)
    for base, *engines in sizes:
        found = [evidence.difference(engine, base, level=level) for engine in engines]
        counted.append(
            [
                all(value < 0 for value, _, _ in found),
                all(high < 0 for _, _, high in found),
                all(low <= 0 for _, low, _ in found),
            ]
        )
    return _counts(counted, evidence.quality)


def _counts(counted: Seq[Seq[bool]], source: str) -> Measured:
    """Of things that each may be true by value, surely, and possibly: how many are."""
    value, surely, possibly = (float(count) for count in np.sum(counted, 0))
    return Measured(value, surely, possibly, source)


def saving(evidence: Evidence, column: str, a: str, b: str) -> Measured:
    """How much less power or energy a frame a takes than b, %, by the thesis's definition (section
    4.3)."""
    values = [float(evidence.row(name, "04_3_power").get(column, nan)) for name in (a, b)]
    if not all(map(is_known, values)):
        raise CannotTell(
            "this run was made without a power sensor (section 4.3 names those that are read)",
            "04_3_power",
        )
    return Measured(-thesis.change(*values), source=evidence.quality)


FULL = "full-size network, random weights"
QUANTITIES: Dict[str, Callable[..., Measured]] = {
    quantity.__name__: quantity
    for quantity in (
        fps,
        speed_ratio,
        speed_more,
        quality,
        eao_loss,
        change,
        eao_share,
        layer_ratio,
        shared_speeds,
        median_against_pure,
        fastest_mixture,
        mixtures_above,
        xcorr_change,
        network_parameters,
        least_compression,
        pruned_better,
        pruned_fps,
        sizes_in_speed_order,
        steps_faster,
        gain_left,
        steps_worse,
        sizes_pytorch_best,
        saving,
    )
}


# -- Rules -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Finding:
    """A line of data/thesis/scoreboard.csv. number: the thesis's, printed or as it follows. rule:
    in words. accepted: the range that the rule accepts, with half a last printed digit where the
    limit is the number itself. audited: what the thesis's own numbers give instead, where its audit
    found another."""

    id: str
    section: str
    words: str
    number: float
    unit: str
    quantity: str
    of: tuple[str, ...]
    rule: str
    accepted: tuple[float, float]
    needs: str
    audited: str


def findings() -> list[Finding]:
    """All lines, in their order."""
    counted, audit = (
        thesis.counts(),
        {each.id: each for each in thesis.audit() if each.reading != "agrees"},
    )
    found = []
    for row in thesis.rows("scoreboard"):
        other = (
            audit.get(row["inputs"].split("/")[1]) if row["inputs"].startswith("claims/") else None
        )
        audited = f"its own tables give {digits(other.derived)}" if other else ""
        printed = (
            []
            if row["formula"] == "count"
            else [thesis.cell(name) for name in row["inputs"].split("; ")]
        )
        number = (
            counted[row["inputs"]]
            if not printed
            else thesis.FORMULAS[row["formula"]](*map(float, printed))
        )
        half = thesis.half_digit(printed[0]) if row["formula"] == "same" else 0.0
        text = printed[0] if row["formula"] == "same" else f"{number:.3g}"
        rule, accepted = accept(row["rule"], float(number), row["allowed"], half, text)
        of = tuple(filter(None, row["of"].split("; ")))
        found.append(
            Finding(
                row["id"],
                row["section"],
                row["finding"],
                float(number),
                row["unit"],
                row["quantity"],
                of,
                rule,
                accepted,
                row["needs"],
                audited,
            )
        )
    return found


def accept(
    rule: str, number: float, allowed: str, half: float, text: str
) -> tuple[str, tuple[float, float]]:
    """A rule in words, and the range of values that it accepts. text: the number as it is shown."""
    if rule == "near":
        ends = sorted(number * (1 + sign * float(allowed)) for sign in (-1, 1))
        return f"{text} ± {100 * float(allowed):g} %", (ends[0], ends[1])
    if rule == "within":
        return f"{text} ± {float(allowed):g}", (number - float(allowed), number + float(allowed))
    limit, slack = (float(allowed), 0.0) if allowed else (number, half)
    words = f"{rule} {allowed or text}"
    if rule == "at least":
        return words, (limit - slack, inf)
    if rule == "at most":
        return words, (-inf, limit + slack)
    raise ValueError(f"data/thesis/scoreboard.csv: unknown rule '{rule}'")


def judge(measured: Measured, accepted: tuple[float, float]) -> str:
    """The verdict (see above). An interval without a width is a value."""
    low, high = measured.interval
    if accepted[0] <= low and high <= accepted[1]:
        return HOLDS
    return FAILS if high < accepted[0] or low > accepted[1] else OPEN


@dataclass(frozen=True)
class Score:
    """A finding with its verdict. measured: None where it is not to be had. reason: of a verdict
    that cannot be told."""

    finding: Finding
    verdict: str
    measured: Measured | None = None
    reason: str = ""
    page: str = ""


def scores(evidence: Evidence) -> list[Score]:
    """Every finding judged by what the run has."""
    return [_score(finding, evidence) for finding in findings()]


def _score(finding: Finding, evidence: Evidence) -> Score:
    try:
        measured = QUANTITIES[finding.quantity](evidence, *finding.of)
        reason = _out_of_place(finding.needs, evidence)
    except CannotTell as error:
        return Score(finding, OPEN, None, str(error), error.page)
    if reason:
        return Score(finding, OPEN, measured, reason)
    verdict = judge(measured, finding.accepted)
    return Score(
        finding,
        verdict,
        measured,
        "the interval is partly inside of the rule's range" if verdict == OPEN else "",
    )


def _out_of_place(needs: str, evidence: Evidence) -> str:
    """Why what the thesis found on its machine and data cannot be compared with this run's; ""
    where it can."""
    record = runs.read_json(runs.run_folder(evidence.run) / runs.ENVIRONMENT)
    if needs == "Xavier" and "Xavier" not in json.dumps(record.get("hardware", {})):
        return "a speed of the Jetson AGX Xavier, and this is another machine"
    frames = sum(map(len, evidence.dataset))
    if needs == "VOT2018" and (len(evidence.dataset), frames) != (
        VOT2018_SEQUENCES,
        VOT2018_FRAMES,
    ):
        return f"a value on VOT2018, and this is {evidence.dataset.name}"
    if needs == "FP16" and _executed(evidence, "engine FP16").endswith("FP32"):
        return (
            "the FP16 engine computes in FP32 here, because the processor has no 16-bit arithmetic"
        )
    return ""


# -- Views -----------------------------------------------------------------------------------------


def scale(evidence: Evidence) -> Text:
    """What the run's quality and its speeds were measured with."""
    frames = sum(map(len, evidence.dataset))
    try:
        network = f"a network of {evidence.row(BASE)['network']}"
    except CannotTell:
        network = "no engines yet"
    return Text(
        f"Quality here: {evidence.quality}, {frames:,} frames, with {network}. Speed here: the {FULL}."
    )


def table(judged: Seq[Score], verdict: str, caption: str) -> Table:
    """A row a finding with a verdict: the thesis's words and number, this run's with its interval,
    the rule; where it cannot be told, why."""
    rows = []
    for score in (score for score in judged if score.verdict == verdict):
        finding, measured = score.finding, score.measured
        here: Any = ABSENT
        if measured is not None:
            here = (digits(measured.value), span(measured) or "no interval", measured.source)
        rows.append(
            [
                (finding.words, finding.section),
                (digits(finding.number), finding.unit, finding.audited),
                here,
                finding.rule,
                *([score.reason] if verdict == OPEN else []),
            ]
        )
    heads = [
        "The thesis says",
        "Its number",
        "This run, in the same unit",
        "Holds if",
        *(["Why not"] if verdict == OPEN else []),
    ]
    return Table(heads, rows, f"{len(rows)} findings: {verdict}. {caption}")


def span(measured: Measured) -> str:
    """The interval in brackets, empty where there is none."""
    return f"({digits(measured.low)} to {digits(measured.high)})" if is_known(measured.low) else ""


def digits(value: float) -> str:
    """Three digits, without an exponent: 94.4, 0.0213, 11."""
    if abs(value) < 5e-4:
        return "0"
    return f"{value:.3g}" if abs(value) < 1000 else f"{value:.0f}"


def summary(judged: Seq[Score]) -> Text:
    """How many findings have which verdict, and why the rest cannot be told."""
    counted = {
        verdict: [score for score in judged if score.verdict == verdict] for verdict in VERDICTS
    }
    absent = sum(score.measured is None for score in counted[OPEN])
    placed = sum(
        score.measured is not None and bool(score.finding.needs) for score in counted[OPEN]
    )
    wide = len(counted[OPEN]) - absent - placed
    bare = sum(
        not is_known(score.measured.low)
        for verdict in (HOLDS, FAILS)
        for score in counted[verdict]
        if score.measured
    )
    return Text(
        f"Of {len(judged)} findings **{len(counted[HOLDS])} hold**, **{len(counted[FAILS])} do not**, and "
        f"**{len(counted[OPEN])} cannot be told here**: {absent} because this run does not have what they need, {placed} "
        f"because they are about another machine or benchmark, {wide} because the interval is too wide. {bare} of "
        "those that hold or do not rest on one value without an interval, as the tables say."
    )


def commands(judged: Seq[Score], run: str) -> Text:
    """The command of every page that would measure what is missing."""
    pages = sorted({score.page for score in judged if score.page})
    if not pages:
        return Text("The run has every section that the findings need.")
    named = Path(run).name
    lines = "\n".join(
        f"    papermill notebooks/{page}.ipynb out.ipynb --cwd notebooks -r run {named}"
        + (" (where there is a power sensor)" if page == "04_3_power" else "")
        for page in pages
    )
    return Text(f"What is missing in run {named} is measured by\n\n{lines}")


@styled
def figure(judged: Seq[Score], note: str) -> Figure:
    """Verdicts by the section that a finding stands in first: stacked bars."""
    sections = sorted({score.finding.section.split(", ")[-1] for score in judged})
    image = {
        verdict: [
            sum(
                score.verdict == verdict and score.finding.section.split(", ")[-1] == section
                for score in judged
            )
            for section in sections
        ]
        for verdict in VERDICTS
    }
    drawn, axis = new_figure(0.6 + 0.4 * len(sections))
    left, hatches = np.zeros(len(sections)), {HOLDS: "", FAILS: "//", OPEN: ".."}
    for verdict, counts in image.items():
        axis.barh(
            range(len(sections)),
            counts,
            left=left,
            color=VERDICTS[verdict],
            hatch=hatches[verdict],
            edgecolor="white",
            label=verdict,
        )
        left += np.array(counts)
    axis.set_yticks(range(len(sections)), sections)
    axis.invert_yaxis()
    axis.set(
        xlabel="findings",
        ylabel="section of the thesis",
        title="What of the thesis holds in this run",
    )
    drawn.legend(loc="outside upper left", ncols=3, fontsize=9)
    return finished(drawn, note)


# -- Future work -----------------------------------------------------------------------------------


class Step(NamedTuple):
    """Something that the thesis leaves to others, or that follows from its own limits, and what was
    done of it."""

    wanted: str
    done: str
    quantity: Callable[[Evidence], Measured]
    unit: str
    page: str


def head_accuracy(_: Evidence) -> Measured:
    """Top-1 accuracy of the classification layer on the demo backbone, %."""
    return Measured(
        100 * float(pruned.log("head")["top1"].iloc[-1]),
        source="log of its training, generated classes",
    )


def distilled_gain(evidence: Evidence) -> Measured:
    """EAO of the smallest tracker when it is distilled, less that of the same backbone trained as
    in the thesis; paired."""
    share = f"{min(pruned.SHARES):g}"
    return eao_loss(evidence, f"{share} {pruned.FROZEN} FP32", f"{share} {pruned.DISTILLED} FP32")


def resumed_dip(_: Evidence) -> Measured:
    """Largest difference in top-1 or top-5 accuracy of a resumed to an uninterrupted fine-tuning,
    percentage points."""
    return Measured(
        100 * max(pruned.resumed_difference().values()), source="logs of both trainings"
    )


def own_calibration(evidence: Evidence) -> Measured:
    """EAO of INT8 calibrated on training data less that calibrated on the frames of the test,
    entropy in both; paired."""
    names = [row["variant"] for row in evidence.rows("04_2_calibration")]
    test = [name for name in names if name.endswith("-int8-benchmark")]
    train = [name for name in names if name.endswith("-int8")]
    if not test or not train:
        raise CannotTell(
            "section 04_2_calibration of this run has not both calibrations", "04_2_engines"
        )
    value, low, high = evidence.difference(train[0], test[0])
    return Measured(value, low, high, evidence.quality)


FUTURE = (
    Step(
        "a better classification layer for the backbone (section 5.2)",
        "trained on generated classes, on the tracker's own backbone; its accuracy is what pruning starts from",
        head_accuracy,
        "% top-1",
        "04_2_2_pruned_backbone",
    ),
    Step(
        "a training that does not lose quality (section 5.2)",
        "channels are taken out of the trained tracker, and all of it goes on learning from boxes and from the unpruned one",
        distilled_gain,
        "difference in EAO at the smallest size",
        "04_2_3_pruned_engines",
    ),
    Step(
        "fine-tuning that goes on seamlessly after a time limit (section 4.2.2)",
        "a checkpoint holds everything that the next step depends on",
        resumed_dip,
        "percentage points apart",
        "04_2_2_pruned_backbone",
    ),
    Step(
        "a calibration that has not seen the test (section 4.2)",
        "ranges come from training pictures",
        own_calibration,
        "EAO against ranges from the test",
        "04_2_engines",
    ),
)


def future(evidence: Evidence, caption: str) -> Table:
    """A row a step of `FUTURE`: what is wanted, what was done, what was measured of it."""
    rows = []
    for step in FUTURE:
        try:
            found = step.quantity(evidence)
            cell: Any = (f"{digits(found.value)} {step.unit}", span(found), found.source)
        except CannotTell as error:
            cell = (ABSENT, str(error))
        rows.append([step.wanted, step.done, cell])
    return Table(["The thesis leaves open", "Done here", "Measured"], rows, caption)
