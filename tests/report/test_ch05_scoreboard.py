"""The scoreboard: numbers come from the thesis's files, verdicts from rules and a run's files, and
what is missing is said."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from lib import files
from lib.measure import quality, runs
from lib.measure.measurement import Measurement
from lib.measure.variants import Variant, baseline
from lib.report import appendix_audit, ch05_scoreboard, thesis
from lib.report.ch05_scoreboard import FAILS, HOLDS, OPEN, CannotTell, Evidence, Finding, Measured
from lib.vot.dataset import Dataset, load_dataset
from lib.vot.metrics import bootstrap, paired_bootstrap

NAN = float("nan")


@pytest.fixture(scope="module")
def dataset(small: Path) -> Dataset:
    return load_dataset(small)


@pytest.fixture(scope="module")
def tracked(
    dataset: Dataset, small_run: str, tmp_path_factory: pytest.TempPathFactory
) -> list[Measurement]:
    """The demo tracker twice, the second time as if its answers came from an engine; tracked on
    real frames."""
    run = tmp_path_factory.mktemp("runs") / "real"
    variants = [*baseline("demo"), Variant("engine-fp16", "demo")]
    [known] = quality.measure(variants[:1], dataset, small_run, shown=False)
    for variant in variants:
        shutil.copytree(known.results, run / dataset.name / variant.name)
    shutil.copy(Path(small_run) / runs.ENVIRONMENT, run)
    found = quality.measure(variants, dataset, str(run), shown=False)
    rows = [found[0].row(), {**found[1].row(), "framework": "OpenVINO", "precision": "FP16"}]
    for section in ("04_2_engines", "04_1_baseline"):
        runs.write_section(str(run), section, rows)
    return found


@pytest.fixture
def evidence(dataset: Dataset, tmp_path: Path) -> Evidence:
    """An empty run, to which `write` adds sections."""
    return Evidence(str(tmp_path), dataset)


def write(evidence: Evidence, section: str, rows: list[dict[str, Any]]) -> None:
    pd.DataFrame(rows).to_csv(Path(evidence.run) / f"{section}.csv", index=False)


def finding(name: str) -> Finding:
    [found] = [each for each in ch05_scoreboard.findings() if each.id == name]
    return found


def speed(
    framework: str, precision: str, ratio: float, width: float = 0.1, **more: Any
) -> dict[str, Any]:
    """A row of section 4.2's speeds: 100 ms a frame in PyTorch FP32."""
    milliseconds = 100 / ratio
    return {
        "framework": framework,
        "precision": precision,
        "ratio": ratio,
        "ratio_low": ratio * (1 - width),
        "ratio_high": ratio * (1 + width),
        "frame_ms": milliseconds,
        "frame_ms_low": milliseconds * 0.99,
        "frame_ms_high": milliseconds * 1.01,
        "fps": 1000 / milliseconds,
        **more,
    }


# -- The list --------------------------------------------------------------------------------------


def test_every_finding_names_a_quantity_a_rule_and_numbers_that_are_there() -> None:
    found = ch05_scoreboard.findings()
    assert 25 <= len(found) <= 45 and len({each.id for each in found}) == len(found)
    for each in found:
        assert (
            each.quantity in ch05_scoreboard.QUANTITIES
            and each.words
            and each.unit
            and np.isfinite(each.number)
        )
        assert each.accepted[0] < each.accepted[1]
        assert each.needs in ("", "VOT2018", "Xavier", "FP16")
    used = {each.quantity for each in found}
    assert used == set(ch05_scoreboard.QUANTITIES), "no quantity without a finding"


def test_the_thesiss_own_numbers_lie_in_what_its_rules_accept() -> None:
    """Else a rule would refuse the very run that it was made from."""
    for each in ch05_scoreboard.findings():
        assert ch05_scoreboard.judge(Measured(each.number), each.accepted) == HOLDS, each.id


def test_numbers_that_the_audit_corrects_say_so() -> None:
    corrected = {each.id: each.audited for each in ch05_scoreboard.findings() if each.audited}
    assert corrected["robustness_change_int8"] == "its own tables give 17.6" and corrected[
        "quality_fp16"
    ].endswith("0.024")
    assert (
        set(corrected) >= {"speed_ranges", "mixing", "smaller_worse"}
        and "speedup_fp16" not in corrected
    )


# -- The rule --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "measured, verdict",
    [
        (Measured(5.0, 4.0, 6.0), HOLDS),
        (Measured(3.0, 2.5, 3.4), FAILS),
        (Measured(4.0, 3.0, 5.0), OPEN),
        (Measured(3.9), HOLDS),
        (Measured(3.7), FAILS),
        (Measured(3.76, 3.75, 3.77), HOLDS),
    ],
)
def test_at_least_3_8_is_judged_by_the_whole_interval(measured: Measured, verdict: str) -> None:
    words, accepted = ch05_scoreboard.accept("at least", 3.8, "", 0.05, "3.8")
    assert words == "at least 3.8" and ch05_scoreboard.judge(measured, accepted) == verdict


def test_the_other_rules() -> None:
    assert ch05_scoreboard.accept("near", -10.0, "0.25", 0.5, "-10") == (
        "-10 ± 25 %",
        (-12.5, -7.5),
    )
    assert ch05_scoreboard.accept("within", 0.413, "0.01", 0.0005, "0.413")[1] == pytest.approx(
        (0.403, 0.423)
    )
    words, (low, high) = ch05_scoreboard.accept("at most", -11.5, "-5", 0.05, "-11.5")
    assert words == "at most -5" and high == -5 and low == -np.inf
    with pytest.raises(ValueError, match="unknown rule"):
        ch05_scoreboard.accept("about", 1.0, "", 0.0, "1")


# -- Missing things --------------------------------------------------------------------------------


def test_an_empty_run_can_tell_only_what_is_counted_and_says_what_to_run(
    evidence: Evidence,
) -> None:
    judged = ch05_scoreboard.scores(evidence)
    told = [score for score in judged if score.verdict != OPEN]
    assert [score.finding.id for score in told] == ["parameters"] and told[0].verdict == HOLDS
    assert all(score.reason for score in judged if score.verdict == OPEN)
    text = ch05_scoreboard.commands(judged, evidence.run)
    for page in (
        "04_1_baseline",
        "04_2_engines",
        "04_2_1_mixed_precision",
        "04_2_2_pruned_backbone",
        "04_2_3_pruned_engines",
        "04_3_power",
    ):
        assert (
            f"papermill notebooks/{page}.ipynb" in text
            and (files.ROOT / "notebooks" / f"{page}.ipynb").is_file()
        )
    assert f"{len(judged) - 1} cannot be told here" in ch05_scoreboard.summary(judged)


def test_a_damaged_section_is_an_error_and_no_verdict(evidence: Evidence) -> None:
    (Path(evidence.run) / "04_2_speed.csv").write_text("")
    with pytest.raises(ch05_scoreboard.runs.InputError, match="not a table"):
        ch05_scoreboard.scores(evidence)


def test_power_without_a_sensor_cannot_be_told(evidence: Evidence) -> None:
    rows = [
        {
            "framework": name,
            "precision": level,
            "network": "3.4 M parameters",
            "variant": name,
            "power_w_thesis": NAN,
            "energy_j_thesis": NAN,
        }
        for name, level in (("PyTorch", "FP32"), ("OpenVINO", "FP16"))
    ]
    write(evidence, "04_3_power", rows)
    with pytest.raises(CannotTell, match="without a power sensor"):
        ch05_scoreboard.saving(evidence, "power_w_thesis", "engine FP16", "PyTorch FP32")
    rows[0].update(power_w_thesis=20.0)
    rows[1].update(power_w_thesis=8.0)
    write(evidence, "04_3_power", rows)
    assert ch05_scoreboard.saving(
        evidence, "power_w_thesis", "engine FP16", "PyTorch FP32"
    ).value == pytest.approx(60)


def test_absolute_values_of_the_thesiss_machine_and_data_are_not_compared_with_others(
    evidence: Evidence,
) -> None:
    write(
        evidence, "04_2_speed", [speed("PyTorch 2", "FP32", 1.0), speed("OpenVINO 1", "FP16", 5.0)]
    )
    rows = {score.finding.id: score for score in ch05_scoreboard.scores(evidence)}
    assert rows["fps_fp16"].verdict == OPEN and rows["fps_fp16"].measured is not None, (
        "shown, and not judged"
    )
    assert (
        "Jetson AGX Xavier" in rows["fps_fp16"].reason and rows["speedup_pytorch"].verdict == HOLDS
    )
    record = {
        "hardware": {"processor": "ARMv8", "cores": 8, "gpu": "Xavier", "device": "cuda"},
        "versions": {"torch": "1.9"},
    }
    (Path(evidence.run) / "environment.json").write_text(ch05_scoreboard.json.dumps(record))
    rows = {score.finding.id: score for score in ch05_scoreboard.scores(evidence)}
    assert rows["fps_fp16"].verdict == HOLDS and rows["fps_fp16"].measured.value == pytest.approx(
        50
    )  # type: ignore[union-attr]


# -- Speeds ----------------------------------------------------------------------------------------


def test_a_ratio_of_two_engines_is_as_uncertain_as_both(evidence: Evidence) -> None:
    write(
        evidence,
        "04_2_speed",
        [
            speed("PyTorch 2", "FP32", 1.0),
            speed("OpenVINO 1", "FP32", 1.25),
            speed("OpenVINO 1", "FP16", 5.0),
            speed("OpenVINO 1", "INT8", 8.0),
        ],
    )
    found = ch05_scoreboard.speed_ratio(evidence, "engine FP16", "engine FP32")
    assert tuple(found)[:3] == pytest.approx((4.0, 4 * 0.9 / 1.1, 4 * 1.1 / 0.9))
    assert ch05_scoreboard.speed_more(
        evidence, "engine INT8", "engine FP16"
    ).value == pytest.approx(0.6)
    judged = {score.finding.id: score.verdict for score in ch05_scoreboard.scores(evidence)}
    assert judged["speedup_fp16"] == OPEN, "3.27 to 4.89 lies on both sides of 3.8"
    assert judged["speed_fp32"] == HOLDS and judged["speedup_int8"] == HOLDS


def test_orders_and_steps_are_counted_with_what_is_sure_and_what_is_possible(
    evidence: Evidence,
) -> None:
    def size(faster: float, parameters: float) -> list[dict[str, Any]]:
        rows = [
            speed("PyTorch 2", "FP32", 1.0, 0.0),
            speed("OpenVINO 1", "FP32", 1.2, 0.01),
            speed("OpenVINO 1", "FP16", 4.0),
            # 3.6 to 4.4 and 3.96 to 4.84: their order is not sure
            speed("OpenVINO 1", "INT8", 4.4),
        ]
        for row in rows:
            row.update(
                {
                    name: row[name] / faster
                    for name in ("frame_ms", "frame_ms_low", "frame_ms_high")
                },
                fps=row["fps"] * faster,
                parameters=parameters,
                multiple=1,
            )
        return rows

    other = [{**row, "multiple": 32} for row in size(9, 11.9e6)]
    write(
        evidence,
        "04_2_3_full_size",
        other + size(1, 45.5e6) + size(1.5, 30e6) + size(1.505, 22.5e6) + size(3, 12e6),
    )
    assert tuple(ch05_scoreboard.sizes_in_speed_order(evidence))[:3] == (4, 0, 4)
    assert tuple(ch05_scoreboard.steps_faster(evidence))[:3] == (12, 8, 12), (
        "the step of 0.3 % is within the quartiles"
    )
    assert ch05_scoreboard.gain_left(evidence, "12").value == pytest.approx(1)
    assert ch05_scoreboard.pruned_fps(evidence, "12", "INT8").value == pytest.approx(3 * 44)
    judged = {score.finding.id: score.verdict for score in ch05_scoreboard.scores(evidence)}
    assert (
        judged["ranking_speed"] == judged["smaller_faster"] == OPEN
        and judged["speedup_shrinks"] == FAILS
    )


def test_layer_times_are_those_of_the_runs_profile(evidence: Evidence) -> None:
    layers = {
        "openvino fp32": {"search": {"convolution": 0.2}},
        "openvino fp16": {"search": {"convolution": 0.04}},
        "pytorch fp32": {"search": {"convolution": 0.5}},
    }
    files.write_text(
        Path(evidence.run) / "speed" / "openvino-mixtures.json",
        ch05_scoreboard.json.dumps({"layers": layers}),
    )
    assert ch05_scoreboard.layer_ratio(
        evidence, "search", "convolution", "fp32", "fp16"
    ).value == pytest.approx(5)
    with pytest.raises(CannotTell, match="xcorr network's layers of type reformat"):
        ch05_scoreboard.layer_ratio(evidence, "xcorr", "reformat", "int8", "fp16")


def test_mixtures_are_read_as_section_4_2_1_reads_them(evidence: Evidence) -> None:
    def row(target: str, search: str, xcorr: str, fps: float, eao: float) -> dict[str, Any]:
        levels = (target, search, xcorr)
        return {
            "variant": "-".join(levels),
            "target": target,
            "search": search,
            "xcorr": xcorr,
            "fps_tracked": fps,
            "eao": eao,
            "precision": "/".join(levels if len(set(levels)) > 1 else levels[:1]).upper(),
        }

    write(
        evidence,
        "04_2_1_mixed_precision",
        [
            row("fp32", "fp32", "fp32", 10, 0.5),
            row("fp16", "fp32", "fp32", 11, 0.4),
            row("fp16", "fp16", "fp16", 40, 0.5),
            row("int8", "fp16", "fp16", 30, 0.5),
            row("fp32", "fp16", "int8", 34, 0.3),
            row("int8", "int8", "int8", 50, 0.2),
            row("fp16", "int8", "fp16", 38, 0.5),
        ],
    )
    assert ch05_scoreboard.shared_speeds(evidence).value == pytest.approx(2), (
        "INT8 begins at 38, FP16 reaches 40"
    )
    assert ch05_scoreboard.median_against_pure(evidence, "FP16").value == pytest.approx(32 / 40)
    assert ch05_scoreboard.fastest_mixture(evidence).value == pytest.approx(38 / 50)
    assert ch05_scoreboard.xcorr_change(evidence).value == pytest.approx(100 * (0.25 / 0.45 - 1))


def test_the_thesiss_own_table_4_3_gives_its_own_numbers(evidence: Evidence) -> None:
    mixed, pure = thesis.table("table_4_3"), thesis.table("table_4_2")
    pure = pure.assign(**dict.fromkeys(("target", "search", "xcorr"), pure["precision"]))
    rows = [
        {
            **row,
            "fps_tracked": row["fps"],
            "variant": str(number),
            "precision": "/".join(dict.fromkeys((row["target"], row["search"], row["xcorr"])))
            if row["target"] == row["search"] == row["xcorr"]
            else f"{row['target']}/{row['search']}/{row['xcorr']}",
            "search": row["search"].lower(),
            "xcorr": row["xcorr"].lower(),
        }
        for number, row in enumerate([*mixed.to_dict("records"), *pure.to_dict("records")])
    ]
    write(evidence, "04_2_1_mixed_precision", rows)
    audit = {each.id: each.derived for each in thesis.audit()}
    assert ch05_scoreboard.shared_speeds(evidence).value == pytest.approx(audit["speed_ranges"])
    assert ch05_scoreboard.median_against_pure(evidence, "FP16").value == pytest.approx(
        finding("median_fp16").number, abs=0.001
    )
    assert ch05_scoreboard.fastest_mixture(evidence).value == pytest.approx(
        finding("highest_fps").number
    )


# -- Quality ---------------------------------------------------------------------------------------


def test_quality_is_compared_by_the_paired_interval_of_the_raw_results(
    tracked: list[Measurement],
) -> None:
    one, other = tracked
    evidence = Evidence(one.run, one.dataset)
    found = ch05_scoreboard.eao_loss(evidence, "engine FP16", "PyTorch FP32")
    assert tuple(found)[:3] == pytest.approx(
        paired_bootstrap(one.evaluation, other.evaluation)["eao"]
    )
    judged = {score.finding.id: score for score in ch05_scoreboard.scores(evidence)}
    assert judged["quality_fp16"].verdict == HOLDS, "the same tracker loses nothing to itself"
    base = ch05_scoreboard.quality(evidence, "eao")
    assert tuple(base)[1:3] == pytest.approx(bootstrap(one.evaluation)["eao"])
    assert judged["baseline_eao"].verdict == OPEN and "VOT2018" in judged["baseline_eao"].reason


def test_a_run_without_raw_results_compares_no_quality(
    tracked: list[Measurement], tmp_path: Path
) -> None:
    shutil.copytree(tracked[0].run, tmp_path / "run")
    name = tracked[0].dataset.sequences[0].name
    [raw] = (tmp_path / "run" / tracked[0].dataset.name).glob(
        f"engine-fp16/baseline/{name}/{name}_001.txt"
    )
    raw.unlink()
    with pytest.raises(CannotTell, match="lacks raw results of engine-fp16"):
        ch05_scoreboard.eao_loss(
            Evidence(str(tmp_path / "run"), tracked[0].dataset), "engine FP16", "PyTorch FP32"
        )


def test_pruned_trackers_are_compared_size_by_size(
    tracked: list[Measurement], tmp_path: Path
) -> None:
    """The smallest one is the same tracking with boxes of half the sides: worse in every sequence,
    without a doubt."""
    run, name = tmp_path / "run", tracked[0].dataset.name
    shutil.copytree(tracked[0].run, run)
    shutil.copytree(run / name / "engine-fp16", run / name / "worse")
    for raw in (run / name / "worse").rglob("*_001.txt"):
        boxes = [line.split(",") for line in raw.read_text().split()]
        raw.write_text(
            "\n".join(
                line[0]
                if len(line) == 1
                else f"{line[0]},{line[1]},{float(line[2]) / 2},{float(line[3]) / 2}"
                for line in boxes
            )
            + "\n"
        )
    evidence, trackers = Evidence(str(run), tracked[0].dataset), []
    for share in ch05_scoreboard.TRACKERS_SHARES:
        for framework, precision in (
            ("PyTorch", "FP32"),
            *(("OpenVINO", level) for level in ("FP32", "FP16", "INT8")),
        ):
            trackers.append(
                {
                    "share": share,
                    "training": "frozen",
                    "framework": framework,
                    "precision": precision,
                    "variant": "worse" if share == 0.26 else tracked[0].variant.name,
                }
            )
    trackers.append({**trackers[1], "share": 0.26, "training": "distilled"})
    write(evidence, "04_2_3_pruned_engines", trackers)
    assert tuple(ch05_scoreboard.steps_worse(evidence))[:3] == (4, 4, 12), (
        "the last step for all four, the others possibly"
    )
    assert tuple(ch05_scoreboard.sizes_pytorch_best(evidence))[:3] == (0, 0, 4), (
        "engines are as good as PyTorch"
    )
    base, worse = (
        evidence.evaluation(variant).eao for variant in (tracked[0].variant.name, "worse")
    )
    assert ch05_scoreboard.eao_share(
        evidence, "0.26 frozen", "PyTorch FP32"
    ).value == pytest.approx(worse / base)
    assert ch05_scoreboard.eao_loss(
        evidence, "0.26 frozen FP16", "1 frozen"
    ).value == pytest.approx(base - worse)
    assert ch05_scoreboard.distilled_gain(evidence).low > 0
    judged = {score.finding.id: score.verdict for score in ch05_scoreboard.scores(evidence)}
    assert (
        judged["quality_pruned"] == HOLDS
        and judged["retrained"] == FAILS
        and judged["smaller_worse"] == OPEN
    )
    write(evidence, "04_2_3_pruned_engines", [row for row in trackers if row["share"] != 0.5])
    with pytest.raises(CannotTell, match=r"no row of 0\.5 frozen"):
        ch05_scoreboard.steps_worse(evidence)


def test_a_change_of_robustness_is_no_finer_than_half_a_failure(
    tracked: list[Measurement], monkeypatch: pytest.MonkeyPatch
) -> None:
    evidence = Evidence(tracked[0].run, tracked[0].dataset)
    base = evidence.evaluation(tracked[0].variant.name)
    failed = np.zeros_like(base.failed)
    failed[0, 0] = 4
    changed = ch05_scoreboard.evaluate  # the same sums with four failures in one sequence, for both
    monkeypatch.setattr(
        ch05_scoreboard, "evaluate", lambda *arguments: replace(changed(*arguments), failed=failed)
    )
    found = ch05_scoreboard.change(
        Evidence(tracked[0].run, tracked[0].dataset), "robustness", "engine FP16", "PyTorch FP32"
    )
    assert tuple(found)[:3] == pytest.approx((0, -12.5, 12.5))
    monkeypatch.setattr(
        ch05_scoreboard,
        "evaluate",
        lambda *arguments: replace(changed(*arguments), failed=0 * failed),
    )
    with pytest.raises(CannotTell, match="robustness of 0"):
        ch05_scoreboard.change(
            Evidence(tracked[0].run, tracked[0].dataset),
            "robustness",
            "engine FP16",
            "PyTorch FP32",
        )


def test_accuracy_after_pruning_is_counted_by_its_intervals(evidence: Evidence) -> None:
    rows = [
        {"compression": share, "top1": top1, "top1_low": top1 - 2, "top1_high": top1 + 2}
        for share, top1 in ((1, 70.0), (0.66, 76.0), (0.5, 73.0), (0.26, 60.0))
    ]
    write(evidence, "04_2_2_pruned_backbone", rows)
    assert tuple(ch05_scoreboard.pruned_better(evidence))[:3] == (2, 1, 2)
    assert ch05_scoreboard.least_compression(evidence).value == 0.26
    judged = {score.finding.id: score.verdict for score in ch05_scoreboard.scores(evidence)}
    assert judged["pruned_better"] == FAILS and judged["compression"] == HOLDS


# -- Views -----------------------------------------------------------------------------------------


def test_the_table_shows_number_interval_rule_and_verdict(tracked: list[Measurement]) -> None:
    evidence = Evidence(tracked[0].run, tracked[0].dataset)
    judged = ch05_scoreboard.scores(evidence)
    tables = {
        verdict: ch05_scoreboard.table(judged, verdict, "x") for verdict in ch05_scoreboard.VERDICTS
    }
    assert sum(len(table.rows) for table in tables.values()) == len(judged), "each in one table"
    [row] = [row for row in tables[HOLDS].rows if "keeps the quality" in row[0][0]]
    assert (
        row[1][:2] == ("0.025", "EAO")
        and row[2][:2] == ("0", "(0 to 0)")
        and row[3:] == ["at most 0.025"]
    )
    assert all(row[4] for row in tables[OPEN].rows), "what cannot be told says why"
    scale = ch05_scoreboard.scale(evidence)
    assert "3.4 M parameters" in scale and f"{len(evidence.dataset)} sequences" in scale
    figure = ch05_scoreboard.figure(judged, "x")
    drawn = sum(patch.get_width() for patch in figure.axes[0].patches)  # type: ignore[attr-defined]
    assert drawn == len(judged)


def test_future_work_is_measured_or_says_why_not(evidence: Evidence) -> None:
    rows = ch05_scoreboard.future(evidence, "x").rows
    assert len(rows) == len(ch05_scoreboard.FUTURE)
    cells = [row[2] for row in rows]
    assert (
        cells[0][0].endswith("% top-1")
        and "04_2_3_pruned_engines" in cells[1][1]
        and "04_2_calibration" in cells[3][1]
    )


# -- The audit's page ------------------------------------------------------------------------------


def test_every_finding_of_the_audit_is_on_its_page_once() -> None:
    found = thesis.audit()
    listed = [
        row
        for reading in appendix_audit.READINGS
        for row in appendix_audit.deviations(found, reading).rows
    ]
    agree = appendix_audit.agreements(found).rows
    assert len(listed) + len(agree) == len(found) and len(listed) == sum(
        each.reading != "agrees" for each in found
    )
    rows = appendix_audit.derivations(found).rows
    assert sum(int(row[2]) for row in rows) == len(found) and sum(
        int(row[3]) for row in rows
    ) == len(agree)
    text = appendix_audit.summary(found)
    assert text.startswith(f"{len(found)} numbers") and f"**{len(agree)} agree**" in text


def test_a_printed_table_marks_what_does_not_follow() -> None:
    found = thesis.audit()
    assert set(appendix_audit.TABLES) <= {path.stem for path in thesis.FOLDER.glob("*.csv")}
    energy = appendix_audit.printed("table_4_6", found)
    column = energy.heads.index("Energy a frame, kJ as printed")
    assert [row[column][0] for row in energy.rows] == ["1.94 ≠", "1.59 ≠", "0.26 ≠", "0.05 ≠"]
    for name in appendix_audit.TABLES:
        table = appendix_audit.printed(name, found)
        marked = sum(isinstance(cell, tuple) for row in table.rows for cell in row)
        assert marked == sum(
            each.id.startswith(f"{name}/") and each.reading != "agrees" for each in found
        )
        assert len(table.rows) == len(thesis.table(name)) and "Units:" in table.caption
