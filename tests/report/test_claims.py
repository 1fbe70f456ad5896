"""Claims: numbers come from the thesis's files, verdicts from rules and what a run measured, and what
is missing is said."""

from __future__ import annotations

import inspect
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from lib import files
from lib.measure import pruned, quality
from lib.measure.measurement import Measurement
from lib.measure.variants import baseline, engines, mixtures
from lib.report import audit, claims, quantities, thesis
from lib.report.claims import FAILS, HOLDS, OPEN
from lib.report.evidence import CannotTell, Evidence, Measured
from lib.siamrpn.parts import NETWORKS
from lib.vot.dataset import Dataset
from lib.vot.metrics import Evaluation, bootstrap, evaluate, paired_bootstrap

from .helpers import SIZES, cells, made_up_speed, timed

PAGES = sorted({row["page"] for row in thesis.rows("scoreboard")})


@pytest.fixture(scope="module")
def tracked(dataset: Dataset, small_run: str) -> Measurement:
    """The demo tracker on real frames."""
    [found] = quality.measure(baseline("demo"), dataset, small_run, shown=False)
    return found


@pytest.fixture
def evidence(dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Evidence:
    """A run in which made-up speeds are all there is."""

    def none(*_: Any, **__: Any) -> Any:
        raise CannotTell("nothing was tracked")

    monkeypatch.setattr(quality, "measure", none)
    return Evidence(str(tmp_path), dataset, "demo", "openvino", timed=made_up_speed())


def write(evidence: Evidence, section: str, rows: list[dict[str, Any]]) -> None:
    pd.DataFrame(rows).to_csv(Path(evidence.run) / f"{section}.csv", index=False)


def verdicts(evidence: Evidence) -> dict[str, claims.Verdict]:
    return {one.claim.id: one for one in claims.judged(evidence)}


# -- The list --------------------------------------------------------------------------------------


def test_every_claim_names_a_quantity_a_rule_and_numbers_that_are_there() -> None:
    found = claims.claims()
    assert 25 <= len(found) <= 45 and len({each.id for each in found}) == len(found)
    for each in found:
        assert each.words and each.unit and np.isfinite(each.number)
        assert each.accepted[0] < each.accepted[1]
        assert set(each.needs.split("; ")) <= {"", "VOT2018", "Xavier", "FP16", "TensorRT"}
        assert (files.ROOT / "notebooks" / f"{each.page}.ipynb").is_file()
    used = {each.quantity for each in found}
    own = inspect.getmembers(quantities, inspect.isfunction)
    public = {name for name, one in own if one.__module__ == quantities.__name__ and name[0] != "_"}
    assert used == public, "no quantity without a claim"


@pytest.mark.parametrize("page", PAGES)
def test_every_page_of_chapter_4_ends_with_its_claims(page: str) -> None:
    own = claims.claims(page)
    assert own and all(each.page == page for each in own)
    last = [cell for cell in cells(page) if cell["cell_type"] == "code"][-1]
    assert "claims.verdicts_table" in "".join(last["source"]) and page in "".join(last["source"])


def test_the_thesiss_own_numbers_lie_in_what_its_rules_accept() -> None:
    """Else a rule would refuse the very run that it was made from."""
    for each in claims.claims():
        exact = Measured(*[each.number] * 3)
        assert claims.judge(exact, each.accepted) == HOLDS, each.id


def test_the_thesiss_unrounded_numbers_pass_its_rules() -> None:
    """Rounded in print, 49.9 / 11.1 is 4.5."""
    unrounded = {
        "speedup_pytorch": 49.9 / 11.1,
        "power_fp16": 100 * (1 - 13.044 / 21.378),
        "energy_fp16": 100 * (1 - (13.044 / 49.9) / (21.378 / 11)),
        "speedup_fp16": 49.9 / 13.1,
        "speedup_int8": 65.7 / 13.1,
    }
    found = {each.id: each for each in claims.claims()}
    for name, value in unrounded.items():
        assert claims.judge(Measured(value, value, value), found[name].accepted) == HOLDS, name


def test_numbers_that_the_audit_corrects_say_so() -> None:
    corrected = {each.id: each.audited for each in claims.claims() if each.audited}
    assert corrected["robustness_change_int8"].endswith("17.6")
    assert corrected["quality_fp16"].endswith("0.024")
    assert set(corrected) >= {"speed_ranges", "mixing", "smaller_worse"}
    assert "speedup_fp16" not in corrected


# -- The rule --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "measured, verdict",
    [
        (Measured(5.0, 4.0, 6.0), HOLDS),
        (Measured(3.0, 2.5, 3.4), FAILS),
        (Measured(4.0, 3.0, 5.0), OPEN),
        (Measured(3.9), OPEN),
        (Measured(3.76, 3.76, 3.76), HOLDS),
        (Measured(3.76, 3.75, 3.77), HOLDS),
    ],
)
def test_at_least_3_8_is_judged_by_the_whole_interval(measured: Measured, verdict: str) -> None:
    words, accepted = claims.accept("at least", 3.8, "", 0.05, "3.8")
    assert words == "at least 3.75" and claims.judge(measured, accepted) == verdict


def test_the_other_rules() -> None:
    assert claims.accept("near", -10.0, "0.25", 0.5, "-10") == ("-10 ± 25 %", (-12.5, -7.5))
    _, accepted = claims.accept("within", 0.413, "0.01", 0.0005, "0.413")
    assert accepted == pytest.approx((0.403, 0.423))
    assert claims.accept("at most", -11.5, "-5", 0.05, "-11.5") == ("at most -5", (-np.inf, -5))


# -- Missing things --------------------------------------------------------------------------------


def test_what_a_run_lacks_cannot_be_told_and_says_why(
    evidence: Evidence, monkeypatch: pytest.MonkeyPatch
) -> None:
    def nothing(_: Evidence) -> Any:
        raise CannotTell("nothing was timed")

    monkeypatch.setattr(Evidence, "speed", property(nothing))
    found = verdicts(evidence)
    assert {name for name, one in found.items() if one.verdict != OPEN} == {"parameters"}
    assert all(one.reason for one in found.values() if one.verdict == OPEN)


def test_power_without_a_sensor_cannot_be_told(evidence: Evidence) -> None:
    names = [evidence.variant(name).name for name in ("PyTorch FP32", "engine FP16")]
    rows: list[dict[str, Any]] = [{"variant": name, "power_w_thesis": np.nan} for name in names]
    wanted = ("power_w_thesis", "engine FP16", "PyTorch FP32")
    with pytest.raises(CannotTell, match="04_3_power"):
        quantities.saving(evidence, *wanted)
    write(evidence, "04_3_power", rows)
    with pytest.raises(CannotTell, match="without a power sensor"):
        quantities.saving(evidence, *wanted)
    rows[0]["power_w_thesis"], rows[1]["power_w_thesis"] = 20.0, 8.0
    write(evidence, "04_3_power", rows)
    assert quantities.saving(evidence, *wanted).value == pytest.approx(60)


def test_absolute_values_of_the_thesiss_machine_are_not_compared_with_others(
    evidence: Evidence,
) -> None:
    rows = {name: verdicts(evidence)[name] for name in ("fps_fp16", "speedup_pytorch")}
    assert rows["fps_fp16"].verdict == OPEN and "another machine" in rows["fps_fp16"].reason
    assert rows["fps_fp16"].measured is not None, "shown, and not judged"
    assert rows["speedup_pytorch"].measured is not None
    hardware = {"processor": "ARMv8", "cores": 8, "gpu": "Xavier", "device": "cuda"}
    (Path(evidence.run) / "environment.json").write_text(json.dumps({"hardware": hardware}))
    assert verdicts(evidence)["fps_fp16"].verdict == FAILS, "17.5 FPS are not the thesis's 50"


def test_fp16_that_is_computed_in_fp32_is_not_judged(evidence: Evidence) -> None:
    speed = made_up_speed()
    rows = [{**row, "executed": "80 FP32"} for row in speed.rows]
    evidence.timed = replace(speed, rows=rows)
    one = verdicts(evidence)["speedup_fp16"]
    assert one.verdict == OPEN and "16-bit" in one.reason and one.measured is not None


# -- Speeds ----------------------------------------------------------------------------------------


def test_a_ratio_of_two_engines_is_as_uncertain_as_both(evidence: Evidence) -> None:
    fp32, fp16 = (evidence.speed_row(f"engine {level}") for level in ("FP32", "FP16"))
    value = fp16["ratio"] / fp32["ratio"]
    found = quantities.speed_ratio(evidence, "engine FP16", "engine FP32")
    assert tuple(found)[:3] == pytest.approx((value, value * 0.9 / 1.1, value * 1.1 / 0.9))
    more = quantities.speed_more(evidence, "engine FP16", "engine FP32")
    assert more.value == pytest.approx(value - 1)
    base = quantities.speed_ratio(evidence, "engine FP16", "PyTorch FP32")
    assert tuple(base)[:3] == tuple(fp16[f"ratio{end}"] for end in ("", "_low", "_high"))


def test_orders_and_steps_are_counted_with_what_is_sure_and_what_is_possible(
    evidence: Evidence,
) -> None:
    def place(index: int, faster: float) -> list[dict[str, Any]]:
        """FP16 4 times PyTorch, within 3.6 to 4.4, and INT8 4.4 times: their order is not sure."""
        rows = []
        for level, ratio, width in (
            ("fp32", 1.0, 0.0),
            ("fp32", 1.2, 0.01),
            ("fp16", 4.0, 0.1),
            ("int8", 4.4, 0.1),
        ):
            milliseconds = 100 / ratio / faster
            row = timed(
                "openvino-whole" if rows else "pytorch",
                "OpenVINO 1" if rows else "PyTorch 1",
                (level,) * 3,
                index,
                frame_ms_low=0.99 * milliseconds,
                frame_ms_high=1.01 * milliseconds,
                fps=1000 / milliseconds,
                ratio=ratio,
                ratio_low=ratio * (1 - width),
                ratio_high=ratio * (1 + width),
            )
            rows.append(row)
        return rows

    steps = enumerate((1, 1.5, 1.505, 3, 9))
    rows = [row for index, faster in steps for row in place(index, faster)]
    mixtures_only = [row for row in made_up_speed().rows if "/" in row["precision"]]
    evidence.timed = replace(made_up_speed(), rows=[*rows, *mixtures_only])
    assert tuple(quantities.sizes_in_speed_order(evidence))[:3] == (4, 0, 4)
    assert tuple(quantities.steps_faster(evidence))[:3] == (12, 8, 12), (
        "the step of 0.3 % is within the quartiles"
    )
    assert quantities.gain_left(evidence, "12").value == pytest.approx(1)
    assert quantities.pruned_fps(evidence, "12", "engine INT8").value == pytest.approx(3 * 44)
    found = verdicts(evidence)
    assert found["ranking_speed"].verdict == found["smaller_faster"].verdict == OPEN
    assert found["speedup_shrinks"].verdict == FAILS
    assert len({row["parameters"] for row in rows}) == len(SIZES), "that of multiples is left out"


def test_layer_times_are_those_of_the_runs_profile(evidence: Evidence) -> None:
    layers = {
        "openvino fp32": {"search": {"convolution": 0.2}},
        "openvino fp16": {"search": {"convolution": 0.04}},
    }
    evidence.timed = replace(made_up_speed(), layers=layers)
    found = quantities.layer_ratio(evidence, "search", "convolution", "fp32", "fp16")
    assert found.value == pytest.approx(5)
    with pytest.raises(CannotTell, match="reformat"):
        quantities.layer_ratio(evidence, "xcorr", "reformat", "int8", "fp16")


def test_the_thesiss_own_tables_give_its_own_numbers(evidence: Evidence) -> None:
    """Tables 4.2 and 4.3 as if they had been timed here."""
    pure, mixed = (thesis.table(f"table_4_{number}").to_dict("records") for number in (2, 3))
    rows = []
    for row in [*pure, *mixed]:
        levels = [row.get(name, row.get("precision")).lower() for name in NETWORKS]
        times = dict.fromkeys(("frame_ms", "frame_ms_low", "frame_ms_high"), 1000 / row["fps"])
        rows.append(timed("openvino-whole", "OpenVINO 1", levels, fps=row["fps"], **times))
    evidence.timed = replace(made_up_speed(), rows=rows)
    own = {each.id: each.number for each in claims.claims()}
    audited = {each.id: each.derived for each in audit.findings()}
    assert quantities.shared_speeds(evidence).value == pytest.approx(audited["speed_ranges"])
    found = quantities.median_against_pure(evidence, "FP16")
    assert found.value == pytest.approx(own["median_fp16"], abs=0.001)
    assert quantities.fastest_mixture(evidence).value == pytest.approx(own["highest_fps"])


# -- Quality ---------------------------------------------------------------------------------------


def known(evidence: Evidence, tracked: Measurement, worse: set[str]) -> Evidence:
    """All variants of the claims have the same tracking; those named have boxes of half the
    sides: worse in every sequence, without a doubt."""
    small = {
        name: replace(
            each,
            entries=tuple(box * [1, 1, 0.5, 0.5] if len(box) == 4 else box for box in each.entries),
        )
        for name, each in tracked.trajectories.items()
    }
    bad = evaluate(tracked.dataset, {name: [each] for name, each in small.items()})
    every = [*engines("demo", "openvino"), *mixtures("demo", "openvino"), *baseline("demo")]
    for tracker in pruned.trackers():
        every += pruned.variants(tracker, "openvino")
    found = [
        replace(tracked, variant=one, evaluation=bad if one.name in worse else tracked.evaluation)
        for one in every
    ]
    return replace(evidence, known=found)


def test_quality_is_compared_by_the_paired_interval(
    evidence: Evidence, tracked: Measurement
) -> None:
    made = known(evidence, tracked, {"openvino-int8"})
    one, other = (made.measurement(name).evaluation for name in ("engine FP32", "engine INT8"))
    found = quantities.eao_loss(made, "engine INT8", "engine FP32")
    assert tuple(found)[:3] == pytest.approx(paired_bootstrap(one, other)["eao"])
    judged = verdicts(made)
    assert "TensorRT" in judged["quality_fp16"].reason, "OpenVINO cannot tell"
    rules = {each.id: each for each in claims.claims()}
    same = quantities.eao_loss(made, "engine FP16", "PyTorch FP32")
    assert claims.judge(same, rules["quality_fp16"].accepted) == HOLDS
    worse = quantities.change(made, "eao", "engine INT8", "engine FP32")
    assert claims.judge(worse, rules["eao_change_int8"].accepted) == HOLDS, "half a box"
    base = quantities.baseline_quality(made, "eao")
    assert tuple(base)[1:3] == pytest.approx(bootstrap(tracked.evaluation)["eao"])
    assert judged["baseline_eao"].verdict == OPEN and "VOT2018" in judged["baseline_eao"].reason
    assert tuple(quantities.mixtures_above(made, "engine FP16"))[:2] == (0, 0)


def test_pruned_trackers_are_compared_size_by_size(
    evidence: Evidence, tracked: Measurement
) -> None:
    smallest = pruned.variants(pruned.Tracker(0.26, pruned.FROZEN), "openvino")
    made = known(evidence, tracked, {one.name for one in smallest})
    assert tuple(quantities.steps_worse(made))[:3] == (4, 4, 12), (
        "the last step for all four, the others possibly"
    )
    assert tuple(quantities.sizes_pytorch_best(made))[:3] == (0, 0, 4), (
        "engines are as good as PyTorch"
    )
    base, worse = (
        made.measurement(name).evaluation.eao for name in ("1 frozen", "0.26 frozen FP16")
    )
    share = quantities.eao_share(made, "0.26 frozen", "PyTorch FP32")
    assert share.value == pytest.approx(worse / base)
    lost = quantities.eao_loss(made, "0.26 frozen FP16", "1 frozen")
    assert lost.value == pytest.approx(base - worse)
    judged = verdicts(made)
    assert judged["quality_pruned"].verdict == HOLDS and judged["retrained"].verdict == FAILS
    assert judged["smaller_worse"].verdict == OPEN


def test_a_change_of_robustness_is_no_finer_than_half_a_failure(
    evidence: Evidence, tracked: Measurement, evaluated: Evaluation
) -> None:
    compared = ("robustness", "engine INT8", "engine FP32")
    with pytest.raises(CannotTell, match="robustness of 0"):
        quantities.change(known(evidence, tracked, set()), *compared)
    failing = known(evidence, replace(tracked, evaluation=evaluated), set())
    found = quantities.change(failing, *compared)
    assert tuple(found)[:3] == pytest.approx((0, -50, 50)), "of one failure"


# -- Views -----------------------------------------------------------------------------------------


def test_a_table_has_a_row_per_claim(evidence: Evidence) -> None:
    found = claims.judged(evidence, "04_2_engines")
    table = claims.verdicts_table(found, "x")
    assert [row[-1][0] for row in table.rows] == [one.verdict for one in found]
