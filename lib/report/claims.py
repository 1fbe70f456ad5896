"""The thesis's claims, and which of them a run holds (sections 4.1 to 5.1).

data/thesis/scoreboard.csv has a line per claim: the thesis's number (a formula of
`lib.report.audit` and its inputs), a function of `lib.report.quantities` with its arguments, the
page that measures it, and a rule. A rule accepts a range of values, which is compared with the
measured interval:

- *holds*: all of the interval lies within the range;
- *does not hold*: none of it does;
- *cannot be told here*: a part does, nothing or no interval was measured, or the number means
  something on the thesis's machine, engine or data only.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from math import inf
from typing import Mapping, Sequence

from lib.measure import runs
from lib.report import audit, quantities, thesis
from lib.report.evidence import CannotTell, Evidence, Measured, digits
from lib.report.tables import ABSENT, Table
from lib.vot.dataset import VOT2018_FRAMES, VOT2018_SEQUENCES

# Units of whole numbers, which nobody rounds
COUNTED = ("mixtures", "pruned networks", "sizes", "steps to a smaller backbone")
HOLDS, FAILS, OPEN = "holds", "does not hold", "cannot be told here"


# -- Claims and rules ------------------------------------------------------------------------------


@dataclass(frozen=True)
class Claim:
    """A line of data/thesis/scoreboard.csv. number: the thesis's, printed or as it follows. rule:
    in words. accepted: the range that the rule accepts, with a last printed digit where the limit
    is the number itself, since the thesis rounds and cuts off. audited: what the thesis's own
    numbers give instead, where its audit found another."""

    id: str
    section: str
    page: str
    words: str
    number: float
    unit: str
    quantity: str
    of: tuple[str, ...]
    rule: str
    accepted: tuple[float, float]
    needs: str
    audited: str


def claims(page: str = "") -> list[Claim]:
    """All claims in their order, or those that a page measures."""
    differ = {each.id: each for each in audit.findings() if each.reading != "agrees"}
    rows = [row for row in thesis.rows("scoreboard") if page in ("", row["page"])]
    return [_claim(row, differ) for row in rows]


def _claim(row: Mapping[str, str], differ: Mapping[str, audit.Finding]) -> Claim:
    name = row["inputs"].split("/")[1] if row["inputs"].startswith("claims/") else ""
    audited = f"its own tables give {digits(differ[name].derived)}" if name in differ else ""
    number = float(audit.value(row["formula"], row["inputs"]).value)
    text, digit = f"{number:.3g}", 0.0
    if row["formula"] == "same":
        text = thesis.cell(row["inputs"])
        exact = number == 0 or row["unit"] in COUNTED
        digit = 0.0 if exact else 2 * audit.half_digit(text)
    rule, accepted = accept(row["rule"], number, row["allowed"], digit, text)
    plain = {name: row[name] for name in ("id", "section", "page", "unit", "quantity", "needs")}
    return Claim(
        **plain,
        words=row["finding"],
        number=number,
        of=tuple(filter(None, row["of"].split("; "))),
        rule=rule,
        accepted=accepted,
        audited=audited,
    )


def accept(
    rule: str, number: float, allowed: str, digit: float, text: str
) -> tuple[str, tuple[float, float]]:
    """A rule in words, and the range of values that it accepts. text: the number as it is shown."""
    if rule == "near":
        low, high = sorted(number * (1 + sign * float(allowed)) for sign in (-1, 1))
        return f"{text} ± {100 * float(allowed):g} %", (low, high)
    if rule == "within":
        return f"{text} ± {float(allowed):g}", (number - float(allowed), number + float(allowed))
    least = rule == "at least"
    limit = float(allowed) if allowed else number - digit if least else number + digit
    shown = allowed or (f"{limit:g}" if digit else text)
    return f"{rule} {shown}", (limit, inf) if least else (-inf, limit)


# -- Verdicts --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Verdict:
    """A claim, judged. measured: None where it is not to be had. reason: why it cannot be told."""

    claim: Claim
    verdict: str
    measured: Measured | None = None
    reason: str = ""


def judge(measured: Measured, accepted: tuple[float, float]) -> str:
    """By the whole interval (see above); a value without one gets no verdict."""
    low, high = measured.low, measured.high
    if accepted[0] <= low and high <= accepted[1]:
        return HOLDS
    return FAILS if high < accepted[0] or low > accepted[1] else OPEN


def judged(evidence: Evidence, page: str = "") -> list[Verdict]:
    """Every claim, or those of a page, judged by what the run has."""
    return [_judged(claim, evidence) for claim in claims(page)]


def _judged(claim: Claim, evidence: Evidence) -> Verdict:
    try:
        measured = getattr(quantities, claim.quantity)(evidence, *claim.of)
        reason = _out_of_place(claim.needs, evidence)
    except CannotTell as error:
        return Verdict(claim, OPEN, None, str(error))
    if reason:
        return Verdict(claim, OPEN, measured, reason)
    verdict = judge(measured, claim.accepted)
    if verdict == OPEN:
        reason = "the interval lies on both sides of the limit" if measured.span else "no interval"
    return Verdict(claim, verdict, measured, reason)


def _out_of_place(needs: str, evidence: Evidence) -> str:
    """Why what the thesis found on its machine and data cannot be compared with this run's; ""
    where it can."""
    record = runs.read_json(runs.run_folder(evidence.run) / runs.ENVIRONMENT)
    size = (len(evidence.dataset), sum(map(len, evidence.dataset)))
    for need in needs.split("; "):
        if need == "Xavier" and "Xavier" not in json.dumps(record.get("hardware", {})):
            return "a speed of the Jetson AGX Xavier, and this is another machine"
        if need == "VOT2018" and size != (VOT2018_SEQUENCES, VOT2018_FRAMES):
            return f"a value on VOT2018, and this is {evidence.dataset.name}"
        if need == "TensorRT" and evidence.framework != "tensorrt":
            return "about TensorRT's quality, which another engine cannot tell"
        if need == "FP16" and str(evidence.speed_row("engine FP16")["executed"]).endswith("FP32"):
            return "the processor has no 16-bit arithmetic, so the FP16 engine computes in FP32"
    return ""


def verdicts_table(verdicts: Sequence[Verdict], caption: str) -> Table:
    """A row a claim: the thesis's words and number, this run's with its interval, the rule, the
    verdict and why it cannot be told."""
    rows = []
    for one in verdicts:
        claim, here = one.claim, one.measured
        rows.append(
            [
                (claim.words, claim.section),
                (digits(claim.number), claim.unit, claim.audited),
                (digits(here.value), here.span, here.source) if here else ABSENT,
                claim.rule,
                (one.verdict, one.reason),
            ]
        )
    heads = ["The thesis says", "In numbers", "This run, in the same unit", "Holds if", "Verdict"]
    return Table(heads, rows, caption)
