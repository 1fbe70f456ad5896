"""Section 5.3: the rule on numbers made by hand, what it says to the thesis's, the page on a small run, and
`siambook choose`."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path
from typing import Any, List

import numpy as np
import pytest

from lib import cli
from lib.cli import main
from lib.measure import everything, full_size, start
from lib.measure.runs import Lacking
from lib.measure.variants import Variant, baseline, engines, mixture
from lib.report import deploy
from lib.report.deploy import Budget, Candidate, Measured, recommend, sentence
from lib.vot.dataset import Dataset
from lib.vot.metrics import Evaluation, evaluate
from lib.vot.protocol import Trajectory

from .helpers import MACHINE, Page, assert_readable, executed, made_up_speed


def candidate(name: str, eao: float, fps: float, **more: Any) -> Candidate:
    return Candidate(name, "unpruned", Measured(eao), Measured(fps, 0.9 * fps, 1.1 * fps), **more)


# -- The rule --------------------------------------------------------------------------------------

SLOW, GOOD, LIKE, FAST = (
    candidate("slow", 0.40, 10, memory_mb=900.0, latency_ms=120.0),
    candidate("good", 0.38, 40, memory_mb=600.0, latency_ms=30.0),
    candidate("like", 0.375, 45),
    candidate("fast", 0.20, 90, memory_mb=300.0, latency_ms=12.0),
)
ALL = [SLOW, GOOD, LIKE, FAST]


@pytest.mark.parametrize(
    "budget, name, best, alike",
    [
        (Budget(), "slow", "slow", 1),
        (Budget(fps=30), "like", "good", 2),
        (Budget(fps=38), "like", "like", 1),  # 36 FPS in the slower quarter of good's frames
        (Budget(fps=60), "fast", "fast", 1),
        (Budget(latency_ms=50), "good", "good", 1),  # like's latency was not measured
        (Budget(memory_mb=400), "fast", "fast", 1),
        (Budget(fps=30, smallest=True), "good", "good", 1),
        (Budget(fps=90), None, None, 0),
        (Budget(fps=30, memory_mb=200), None, None, 0),
    ],
    ids=str,
)
def test_the_rule(budget: Budget, name: str, best: str, alike: int) -> None:
    advice = recommend(ALL, budget)
    if name is None:
        assert advice is None
        assert "nothing measured meets it; the fastest is fast: EAO 0.200" in sentence(ALL, budget)
        return
    assert advice is not None
    assert (advice.recommended.title, advice.best.title, advice.alike) == (name, best, alike)
    assert sentence(ALL, budget).startswith(f"{name}: EAO ")


def test_where_a_difference_has_an_interval_the_interval_decides(
    still: Dataset, beside: dict[str, Trajectory], evaluated: Evaluation
) -> None:
    """The tracker that loses sequence b once cannot be told from one that does not; one that is off
    by as much everywhere can."""
    whole = {**beside, "b": beside["a"]}
    whole["b"] = Trajectory(whole["b"].entries[: len(beside["b"].entries)], beside["b"].seconds)
    off = {
        name: Trajectory(
            tuple(e + (8, 0, 0, 0) if len(e) == 4 else e for e in one.entries), one.seconds
        )
        for name, one in whole.items()
    }
    kept, worse = (evaluate(still, {n: [t] for n, t in one.items()}) for one in (whole, off))
    best = candidate("best", kept.eao, 10, evaluation=kept)
    like = candidate("like", evaluated.eao, 20, evaluation=evaluated)
    less = candidate("less", worse.eao, 30, evaluation=worse)
    assert kept.eao > evaluated.eao + deploy.ALIKE and worse.eao < kept.eao
    advice = recommend([best, like, less], Budget())
    assert advice is not None and advice.recommended is like and advice.alike == 2
    assert advice.loss.low < 0 <= advice.loss.high
    assert "that cannot be told from the best" in sentence([best, like, less], Budget())


def test_smaller_counts_where_that_is_asked() -> None:
    big = candidate("big", 0.4, 50, memory_mb=500.0)
    small = candidate("small", 0.395, 40, memory_mb=300.0)
    unknown = candidate("unknown", 0.5, 60)
    worse = candidate("worse", 0.394, 45, memory_mb=300.0)
    advice = recommend([big, worse, small, unknown], Budget(smallest=True))
    assert advice is not None and advice.recommended is small and advice.best is big
    assert "the smallest of 2 within 0.01 EAO of the best" in sentence(
        [big, small], Budget(smallest=True)
    )


def test_of_the_same_network_the_better_one_is_recommended() -> None:
    """Trackers of one form have one speed, whatever their weights."""
    one, other = candidate("one", 0.395, 50), candidate("other", 0.4, 50)
    for every in ([one, other], [other, one]):
        advice = recommend(every, Budget())
        assert advice is not None and advice.recommended is other
        assert "the fastest is other" in sentence(every, Budget(fps=60))


def test_a_budget_in_words() -> None:
    assert str(Budget(30)) == "at least 30 FPS" and str(Budget()) == "no budget"
    every = "at least 7.5 FPS, 99 % of frames within 50 ms, at most 600 MB, smallest memory"
    assert str(Budget(7.5, 50, 600, True)) == every


# -- The thesis's numbers --------------------------------------------------------------------------


@pytest.mark.parametrize(
    "fps, recommended, best",
    [
        (30, ("TensorRT INT8/FP16/FP16", 0.387, 52.8), ("TensorRT FP16/FP16/FP32", 0.396, 41.6)),
        (60, ("TensorRT INT8/INT8/FP32", 0.371, 60.9), ("TensorRT INT8/INT8/FP32", 0.371, 60.9)),
    ],
)
def test_what_the_thesis_would_have_been_told(fps: float, recommended: Any, best: Any) -> None:
    advice = recommend(deploy.in_thesis(), Budget(fps))
    assert advice is not None
    for one, expected in ((advice.recommended, recommended), (advice.best, best)):
        assert (one.title, one.eao.value, one.fps.value) == expected


def test_the_thesiss_candidates_are_all_of_its_trackers_once() -> None:
    found = deploy.in_thesis()
    assert len(found) == 4 + 24 + 16 == len({one.title for one in found})
    [pruned] = [one for one in found if one.title == "TensorRT INT8, 12 M, table 4.5"]
    assert (pruned.eao.value, pruned.fps.value) == (0.159, 94.4)


# -- The page --------------------------------------------------------------------------------------

STARTED = {
    "memory_mb": 300.0,
    "peak_mb": 420.0,
    "device_mb": 0.0,
    "load_s": 1.5,
    "first_ms": 90.0,
    "frame_ms": 40.0,
    "frame_ms_99": 55.0,
    "frames": 60,
    "others": 0.4,
}


def few(weights: str, framework: str) -> List[Variant]:
    """Of everything that is measured: enough for a front, and a calibration that is left out."""
    one = engines("data/demo/distilled_as_frozen_26.pth", framework)[-1]
    calibrated = mixture(
        weights,
        framework,
        ["int8"] * 3,
        everything.lists.calibrations(weights, framework)[-1].quantisation,
    )
    small = Variant("small", one.weights, framework, "int8", "int8", "int8")
    mixed = mixture(weights, framework, ("int8", "fp16", "fp32"))
    return [*baseline(weights), *engines(weights, framework), mixed, small, calibrated]


@pytest.fixture(scope="module")
def made_up(one_thread: None) -> Any:
    """Real boxes; speeds and starts that nobody measured."""
    rows = [
        {"place": place, "framework": name, "precision": level, **STARTED, "peak_mb": 420.0 + n}
        for n, (place, name, level) in enumerate(start.engines_to_start("openvino"))
    ]
    record = {"rows": rows, "missing": ["one is"], "environment": MACHINE}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(everything, "every_variant", few)
        patch.setattr(full_size, "engine_speed", lambda *_, **__: made_up_speed())
        patch.setattr(start, "started", lambda *_, **__: record)
        yield patch


@pytest.fixture(scope="module")
def page(made_up: Any, small: Path, small_run: str) -> Page:
    pytest.importorskip("openvino")
    return executed("05_3_deploy", dataset=str(small), run=small_run, framework="openvino")


def test_candidates_are_what_was_measured(page: Page) -> None:
    titles = [one.title for one in page.found]
    whole = ["PyTorch FP32", "OpenVINO FP32", "OpenVINO FP16", "OpenVINO INT8"]
    assert titles == [*whole, "OpenVINO INT8/FP16/FP32", "OpenVINO INT8, 0.26 distilled"]
    rows = {
        one.title: page.speed.row_for(variant)
        for one, variant in zip(page.found, few("demo", "openvino"))
    }
    for one in page.found:
        row = rows[one.title]
        assert one.fps.value == row["fps"] and one.fps.low == 1000 / row["frame_ms_high"]
        assert one.eao.low <= one.eao.value <= one.eao.high or np.isnan(one.eao.low)
    memory = [one.memory_mb for one in page.found]
    assert memory[:4] == [420.0, 421.0, 422.0, 423.0] and np.isnan(memory[4]) and memory[5] == 424.0


def test_the_front_is_what_nothing_else_beats(page: Page) -> None:
    assert [one.title for one in page.front(ALL)] == ["fast", "like", "good", "slow"]
    for beaten in (candidate("beaten", 0.19, 80), candidate("as fast", 0.19, 90)):
        assert beaten not in page.front([beaten, *ALL, beaten])
    assert [one.title for one in page.thesis_ahead][:2] == [
        "TensorRT INT8, 12 M, table 4.5",
        "TensorRT FP16/INT8/FP16",
    ]


def test_the_chart_has_every_tracker_its_name_and_a_filter(page: Page) -> None:
    [chart] = page.shown_as(page.Chart)
    html = chart._repr_html_()
    inside = re.findall(r'<script type="application/json">(.*?)</script>', html, re.S)[0]
    told = json.loads(inside.replace("<\\/", "</"))
    *points, line = told["data"]
    names = [re.findall("<b>(.*?)</b>", text)[0] for each in points for text in each["text"]]
    assert sorted(names) == sorted(one.title for one in page.found)
    assert len(line["x"]) == len(page.front(page.found))
    buttons = told["layout"]["updatemenus"][0]["buttons"]
    assert [each["label"] for each in buttons] == ["All", "Front", "PyTorch", "OpenVINO"]
    for each in buttons:
        assert len(each["args"][0]["visible"]) == len(told["data"])
    assert "data:image/svg+xml" in html and "<figcaption>" in html and "alt=" in html
    assert "http" not in re.sub(r"base64,[\w+/=]+", "", html)
    assert_readable(page.still(page.found, page.front(page.found), page.speed.note), "Run run, now")


def test_tables_and_the_command(page: Page) -> None:
    by_head = {shown.heads[0]: shown for shown in page.tables()[::-1]}
    budgets = by_head["Budget"].rows
    assert [row[:2] for row in budgets][:2] == [
        ["at least 30 FPS", "here"],
        ["at least 30 FPS", "thesis"],
    ]
    assert budgets[0][2] == sentence(page.found, Budget(30))
    assert budgets[-1][2] == "the thesis measured no memory"
    engine = by_head["Engine"]
    assert len(engine.rows) == len(start.engines_to_start("openvino")) and engine.rows[0][6] == (
        "55.0",
        "60 frames",
    )
    assert "Other work used up to 0.4 cores" in engine.caption and "one is" in engine.caption
    shown = "\n".join(page.texts())
    assert "def recommend(" in shown and "$ siambook choose --fps 30" in shown


def test_every_command_is_one_that_the_command_line_takes(page: Page) -> None:
    for one in page.found:
        program, *words = shlex.split(one.command)
        taken = cli.PARSER.parse_args(words)
        assert program == "siambook" and taken.command == "track"
        levels = one.title.partition(",")[0].split()[1].lower().split("/")
        assert taken.precision == (levels if len(levels) == 3 else levels * 3)
    assert "--weights data/demo/distilled_as_frozen_26.pth" in page.found[-1].command


def test_what_a_recorded_run_lacks_is_said(made_up: Any, small: Path, small_run: str) -> None:
    pytest.importorskip("openvino")
    lacking = Lacking("speed", "run x")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(full_size, "engine_speed", lambda *_, **__: lacking)
        patch.setattr(deploy, "here", lambda *_: [])
        patch.setattr(start, "started", lambda *_, **__: Lacking("memory", "run x"))
        page = executed("05_3_deploy", dataset=str(small), run=small_run)
    assert sum(text.startswith("Missing here: ") for text in page.texts()) >= 4
    assert len(page.tables()) == 1, "the thesis's"


# -- The command -----------------------------------------------------------------------------------


def test_choose_prints_the_pages_lines(
    page: Page, small: Path, small_run: str, capsys: Any, monkeypatch: Any, tmp_path: Path
) -> None:
    profile = tmp_path / "own.yaml"
    profile.write_text(f"dataset: {small}\nweights: demo\nframework: openvino\n")
    call = ["choose", "--profile", str(profile), "--run", small_run]
    assert main([*call, "--fps", "30"]) == 2, "speeds are made up, so the run has none"
    assert "`siambook measure`" in capsys.readouterr().err
    for module in (full_size, start):
        monkeypatch.setattr(module, "work", lambda *_: 0.0)
    assert main([*call, "--fps", "10"]) == 0
    here, thesis, command = capsys.readouterr().out.splitlines()
    assert here == f"at least 10 FPS, here: {sentence(page.found, Budget(10))}"
    assert thesis == f"at least 10 FPS, thesis: {sentence(deploy.in_thesis(), Budget(10))}"
    advice = recommend(page.found, Budget(10))
    assert advice is not None and command == advice.recommended.command
    assert main([*call, "--latency", "1"]) == 0
    [line] = capsys.readouterr().out.splitlines()
    assert line.startswith("99 % of frames within 1 ms, here: nothing measured meets it")
