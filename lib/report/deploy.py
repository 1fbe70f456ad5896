"""Which tracker to deploy (section 5.3): all that was measured, and a recommendation by a rule.

Among the trackers that meet a budget, the one with the highest EAO is the best. Of those that
cannot be told from it, the fastest is recommended, or the smallest.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from math import nan
from typing import Any, List, Mapping, NamedTuple, Optional, Sequence, Tuple

from lib.engines.deploy import USUAL
from lib.engines.zoo import DEMO
from lib.errors import InputError
from lib.measure import everything, full_size, pruned, quality, runs, start, variants
from lib.measure.variants import Variant
from lib.report import thesis
from lib.report.evidence import Measured
from lib.report.tables import is_known
from lib.vot.metrics import paired_bootstrap

# Of EAO, where there is no interval: the scoreboard's "about as good" (section 4.2)
ALIKE = 0.01
UNPRUNED = "unpruned"


class Budget(NamedTuple):
    """fps: at least, also of the slower frames (their upper quartile). latency_ms: of 99 % of the
    frames. memory_mb: at the peak. smallest: memory ranks what is alike, and not speed."""

    fps: float = 0.0
    latency_ms: Optional[float] = None
    memory_mb: Optional[float] = None
    smallest: bool = False

    def __str__(self) -> str:
        limits = (
            ("at least {:g} FPS", self.fps or None),
            ("99 % of frames within {:g} ms", self.latency_ms),
            ("at most {:g} MB", self.memory_mb),
            ("smallest memory", self.smallest or None),
        )
        return ", ".join(text.format(most) for text, most in limits if most) or "no budget"


@dataclass(frozen=True)
class Candidate:
    """A tracker. eao: here of the demo network. fps: here of the full-size one, with quartiles of
    frames. memory_mb, latency_ms: peak_mb and frame_ms_99 of `start.start`; NaN where nobody
    measured them. evaluation: for paired intervals. command: that runs it."""

    title: str
    backbone: str
    eao: Measured
    fps: Measured
    memory_mb: float = nan
    latency_ms: float = nan
    evaluation: Any = field(default=None, repr=False)
    command: str = ""

    def meets(self, budget: Budget) -> bool:
        """What was not measured meets no limit."""
        limits = [(self.latency_ms, budget.latency_ms), (self.memory_mb, budget.memory_mb)]
        slowest = self.fps.low if is_known(self.fps.low) else self.fps.value
        known = is_known(self.memory_mb) or not budget.smallest
        within = all(most is None or value <= most for value, most in limits)
        return slowest >= budget.fps and known and within


class Advice(NamedTuple):
    """best: by EAO. alike: how many cannot be told from it, itself included. loss: EAO of the one
    that is recommended less that of the best."""

    recommended: Candidate
    best: Candidate
    alike: int
    loss: Measured


# -- The rule --------------------------------------------------------------------------------------


def recommend(candidates: Sequence[Candidate], budget: Budget) -> Optional[Advice]:
    """What the rule says; None where nothing meets the budget."""
    fit = [one for one in candidates if one.meets(budget)]
    if not fit:
        return None
    best = max(fit, key=lambda one: (one.eao.value, one.fps.value))
    losses = [(one, loss_of(one, best)) for one in fit]
    alike = [(one, loss) for one, loss in losses if _is_alike(loss)]
    rank = _by_size if budget.smallest else _by_speed
    recommended, loss = max(alike, key=lambda pair: rank(pair[0]))
    return Advice(recommended, best, len(alike), loss)


def _by_speed(one: Candidate) -> Tuple[float, float]:
    return one.fps.value, one.eao.value


def _by_size(one: Candidate) -> Tuple[float, float]:
    return -one.memory_mb, one.eao.value


def loss_of(one: Candidate, other: Candidate) -> Measured:
    """EAO of one less that of the other, by the paired bootstrap where there are evaluations."""
    if one.evaluation is None or other.evaluation is None:
        return Measured(one.eao.value - other.eao.value)
    return Measured(*paired_bootstrap(one.evaluation, other.evaluation)["eao"])


def _is_alike(loss: Measured) -> bool:
    if is_known(loss.low):
        return loss.low <= 0 <= loss.high
    return abs(loss.value) <= ALIKE + 1e-9  # of printed digits


def sentence(candidates: Sequence[Candidate], budget: Budget) -> str:
    """The recommendation in a line."""
    advice = recommend(candidates, budget)
    if advice is None:
        quickest = max(candidates, key=_by_speed)
        return f"nothing measured meets it; the fastest is {_said(quickest)}"
    text, (recommended, best, alike, loss) = _said(advice.recommended), advice
    if alike > 1:
        rank = "smallest" if budget.smallest else "fastest"
        how = "that cannot be told from" if is_known(loss.low) else f"within {ALIKE} EAO of"
        text += f"; the {rank} of {alike} {how} the best"
    if best is recommended:
        return text
    ends = f" ({loss.low:+.3f} to {loss.high:+.3f})" if is_known(loss.low) else ""
    return f"{text} ({_said(best)}; difference {loss.value:+.3f}{ends})"


def _said(one: Candidate) -> str:
    memory = f", {one.memory_mb:.0f} MB" if is_known(one.memory_mb) else ""
    return f"{one.title}: EAO {one.eao.value:.3f}, {one.fps.value:.1f} FPS{memory}"


def advise(values: Mapping[str, Any], budget: Budget) -> List[str]:
    """What `siambook choose` prints. values: a profile's parameters. Raises InputError where the
    run lacks measurements."""
    weights, run = (
        str(values.get(key, usual)) for key, usual in (("weights", DEMO), ("run", "local"))
    )
    dataset = variants.open_dataset(str(values.get("dataset", DEMO)), run)
    engine = variants.compiled_framework(str(values.get("framework", "auto")), run)
    left = quality.work(_usual(weights, engine), dataset, run)
    if left + full_size.work(run, engine) + start.work(run, engine):
        raise InputError(f"run {run} has not measured everything: `siambook measure` goes on")
    found = here(dataset, weights, engine, run)
    if not found:
        raise InputError(f"run {run} has no tracker with quality and speed")
    return lines(found, budget)


def lines(found: Sequence[Candidate], budget: Budget) -> List[str]:
    """The recommendation here and by the thesis's numbers, and the command that runs it."""
    told, advice = [f"{budget}, here: {sentence(found, budget)}"], recommend(found, budget)
    if not any(budget[1:]):  # the thesis has neither memory nor single frames
        told.append(f"{budget}, thesis: {sentence(in_thesis(), budget)}")
    return [*told, advice.recommended.command] if advice else told


# -- Candidates ------------------------------------------------------------------------------------


def here(dataset: Any, weights: str, framework: str, run: str) -> List[Candidate]:
    """The trackers of chapter 4 in their usual quantisation, measured now or as the run has them;
    of a recorded run, those whose quality and speed it has."""
    speed, record = full_size.engine_speed(run, framework), start.started(run, framework)
    if isinstance(speed, runs.Lacking):
        return []
    rows = [] if isinstance(record, runs.Lacking) else record["rows"]
    starts = {(row["place"], row["framework"], row["precision"]): row for row in rows}
    found = []
    for one in runs.there(quality.measure(_usual(weights, framework), dataset, run)):
        variant, row, columns = one.variant, speed.row_for(one.variant), one.row()
        if not row:
            continue
        began = starts.get((row["place"], variant.framework, variant.precision.lower()), {})
        backbone = UNPRUNED
        if variant.weights != weights:
            tracker = pruned.tracker_of(variant)
            backbone = f"{tracker.share:g} {tracker.training}"
        found.append(
            Candidate(
                variant.title + ("" if backbone == UNPRUNED else f", {backbone}"),
                backbone,
                Measured(*(columns[f"eao{end}"] for end in ("", "_low", "_high"))),
                Measured(row["fps"], *(1000 / row[f"frame_ms_{end}"] for end in ("high", "low"))),
                began.get("peak_mb", nan),
                began.get("frame_ms_99", nan),
                one.evaluation,
                track_command(variant),
            )
        )
    return found


def _usual(weights: str, framework: str) -> List[Variant]:
    """What is also timed at full size."""
    known = {weights, *(one.weights for one in pruned.trackers())}
    every = everything.every_variant(weights, framework)
    return [one for one in every if one.quantisation == USUAL and one.weights in known]


def track_command(variant: Variant) -> str:
    """What tracks a video with a variant."""
    precision = variant.precision.lower().replace("/", ",")
    weights = "" if variant.weights == DEMO else f" --weights {variant.weights}"
    how = f"--engine {variant.framework} --precision {precision}"
    return f"siambook track clip.mp4 --init 120,80,64,48{weights} {how}"


def in_thesis() -> List[Candidate]:
    """The thesis's trackers on the Xavier and VOT2018 (tables 4.1 to 4.3 and 4.5)."""
    found = []
    for row in (row for name in ("digits", "table_4_3", "table_4_5") for row in thesis.rows(name)):
        mixed = "/".join(row.get(part, "") for part in ("target", "search", "xcorr"))
        title = f"{row.get('framework', 'TensorRT')} {row.get('precision', mixed)}"
        backbone = f"{row['parameters_m']} M, table 4.5" if "parameters_m" in row else UNPRUNED
        eao, fps = (Measured(float(row[column])) for column in ("eao", "fps"))
        title += "" if backbone == UNPRUNED else f", {backbone}"
        found.append(Candidate(title, backbone, eao, fps))
    return found
