"""Figures and tables say what they show: titles, units, run and machine, the thesis's value beside
the measured one."""

from __future__ import annotations

import base64
import io
import re
from pathlib import Path

import cv2
import matplotlib
import numpy as np
import pandas as pd
import pytest

matplotlib.use("Agg")

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from lib.report import plots, tables, thesis
from lib.vot.dataset import Dataset, Sequence
from lib.vot.metrics import Evaluation, evaluate
from lib.vot.protocol import Trajectory

NOTE = "Run test, 2026-01-01 00:00 UTC: 2 cores Test, PyTorch 2.13.0, CPU"
COUNT, LOST, SKIP = 40, 15, 5
BOX = (40.0, 30.0, 30.0, 20.0)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """Three sequences of a box that does not move."""
    folder = tmp_path_factory.mktemp("frames")
    path = folder / "frame.png"
    cv2.imwrite(str(path), np.full((90, 120, 3), 90, np.uint8))
    tags = {name: np.arange(COUNT) % 2 == 0 for name in plots.TAGS}
    return Dataset(
        "still",
        folder,
        tuple(
            Sequence(
                name,
                (path,) * count,
                (np.array(BOX),) * count,
                {tag: flags[:count] for tag, flags in tags.items()},
                120,
                90,
            )
            for name, count in (("a", COUNT), ("b", COUNT - 4), ("c", COUNT - 8))
        ),
    )


@pytest.fixture(scope="module")
def trajectories(dataset: Dataset) -> dict[str, Trajectory]:
    """Half a box beside the target; sequence b is lost once."""
    found = {}
    for sequence in dataset:
        entries = [
            np.array([1.0]),
            *(np.array(BOX) + (5, 0, 0, 0) for _ in range(len(sequence) - 1)),
        ]
        if sequence.name == "b":
            entries[LOST : LOST + SKIP + 1] = [
                np.array([2.0]),
                *([np.array([0.0])] * (SKIP - 1)),
                np.array([1.0]),
            ]
        found[sequence.name] = Trajectory(tuple(entries), np.full(len(sequence), 0.1))
    return found


@pytest.fixture(scope="module")
def evaluation(dataset: Dataset, trajectories: dict[str, Trajectory]) -> Evaluation:
    return evaluate(dataset, {name: [trajectory] for name, trajectory in trajectories.items()})


@pytest.fixture(scope="module")
def figures(
    dataset: Dataset, trajectories: dict[str, Trajectory], evaluation: Evaluation
) -> dict[str, Figure]:
    failure = plots.failure(
        dataset, trajectories, {"b": {LOST: np.array(BOX) + (50, 0, 0, 0)}}, SKIP, NOTE
    )
    assert failure is not None
    lengths = [len(sequence) for sequence in dataset]
    return {
        "overlap": plots.overlap(dataset["a"], trajectories["a"], NOTE),
        "resets": plots.resets(dataset["b"], trajectories["b"], 10, NOTE),
        "segments": plots.segments(dataset, trajectories, evaluation, NOTE),
        "eao": plots.eao({"measured now": evaluation}, {"thesis: Xavier": 0.413}, NOTE, lengths),
        "attributes": plots.attributes(
            {"measured now": evaluation}, thesis.table("figure_4_5"), NOTE
        ),
        "gallery": plots.gallery(dataset, trajectories, NOTE),
        "failure": failure,
    }


CHARTS = ("resets", "segments", "eao", "attributes")
NAMES = ("overlap", *CHARTS, "gallery", "failure")


def texts(figure: Figure) -> str:
    return "\n".join(text.get_text() for text in figure.findobj(matplotlib.text.Text))  # type: ignore[attr-defined]


@pytest.mark.parametrize("name", NAMES)
def test_a_figure_names_run_and_machine_and_has_titles(
    figures: dict[str, Figure], name: str
) -> None:
    assert NOTE in texts(figures[name]).replace("\n", " ")
    assert all(
        axis.get_title(loc="left")
        for axis in figures[name].axes
        if axis.has_data() and axis.get_label() != "<colorbar>"
    )


@pytest.mark.parametrize("name", CHARTS)
def test_the_axes_of_a_chart_say_what_they_measure(figures: dict[str, Figure], name: str) -> None:
    assert all(axis.get_xlabel() for axis in figures[name].axes)
    units = "|".join(axis.get_xlabel() for axis in figures[name].axes)
    assert re.search(r"frame|0 to 1|overlap", units)


@pytest.mark.parametrize("name", NAMES)
def test_nothing_is_cut_off_and_letters_can_be_read_on_a_phone(
    figures: dict[str, Figure], name: str
) -> None:
    figure, canvas = figures[name], FigureCanvasAgg(figures[name])
    canvas.draw()
    width, height = figure.get_size_inches()
    drawn = figure.get_tightbbox(canvas.get_renderer())
    assert (
        drawn.x0 >= -0.02
        and drawn.y0 >= -0.02
        and drawn.x1 <= width + 0.02
        and drawn.y1 <= height + 0.02
    )
    for text in figure.findobj(matplotlib.text.Text):  # type: ignore[attr-defined]
        if text.get_text().strip():
            assert text.get_fontsize() * 350 / (72 * width) >= 8, (
                f"{text.get_text()} in a figure of 350 pixels"
            )


def test_the_thesis_stands_beside_what_was_measured(figures: dict[str, Figure]) -> None:
    assert "thesis: Xavier" in texts(figures["eao"]) and "measured now" in texts(figures["eao"])
    drawn = [
        line.get_xdata()[0]
        for line in figures["attributes"].axes[0].lines
        if line.get_marker() == plots.THESIS["marker"]
    ]
    assert sorted(drawn) == sorted(thesis.table("figure_4_5")["PyTorch FP32"])


def test_measured_thesis_and_published_differ_in_colour_and_in_shape() -> None:
    looks = [plots.MEASURED, plots.THESIS, plots.PUBLISHED]
    assert len({look["color"] for look in looks}) == len({look["marker"] for look in looks}) == 3


def test_the_drawn_curve_and_its_band_belong_to_the_evaluation(
    figures: dict[str, Figure], evaluation: Evaluation
) -> None:
    curve = figures["eao"].axes[0].lines[0]
    np.testing.assert_array_equal(np.asarray(curve.get_ydata()), evaluation.eao_curve())
    low, high = plots.curve_band(evaluation)
    known = np.isfinite(low)
    assert known.any() and (low[known] <= evaluation.eao_curve()[known] + 1e-9).all()
    assert (high[known] >= evaluation.eao_curve()[known] - 1e-9).all()


def test_segments_are_what_resets_leave(
    dataset: Dataset, trajectories: dict[str, Trajectory]
) -> None:
    first, second = plots.list_segments(dataset["b"], trajectories["b"])
    assert (first.start, len(first.overlaps), first.failed) == (0, LOST + 1, True)
    assert (second.start, second.failed) == (LOST + SKIP, False)
    assert first.overlaps[-1] == 0 and second.overlaps[-1] > 0.5


def test_the_mean_of_the_averages_is_the_curves_value(
    dataset: Dataset, trajectories: dict[str, Trajectory], evaluation: Evaluation
) -> None:
    """Of all segments, also where some are not drawn."""
    length, first = evaluation.eao_interval[0], evaluation.protocol.first_length
    parts = [
        part
        for sequence in dataset
        for part in plots.list_segments(sequence, trajectories[sequence.name])
    ]
    averages = np.array([plots.segment_average(part, length - first) for part in parts])
    known = averages[np.isfinite(averages)]
    expected = evaluation.eao_curve()[length - first]
    assert np.mean(known) == pytest.approx(expected) and 0 < len(known) < len(parts), (
        "one is left out"
    )
    for rows in (len(parts), 2):
        figure = plots.segments(dataset, trajectories, evaluation, "Note", rows=rows)
        assert (
            f"mean of {len(known)}: {expected:.2f}" in texts(figure)
            and figure.axes[0].images[0].get_array().shape[0] == rows
        )
        assert ("are drawn" in texts(figure)) == (rows < len(parts))
    assert f"2 of {len(parts)} segments" in texts(figure).replace("\n", " ")


def test_the_failure_shown_is_followed_by_a_new_start(
    dataset: Dataset, trajectories: dict[str, Trajectory]
) -> None:
    found = plots.find_failure(dataset, trajectories, SKIP)
    assert found is not None and (found[0].name, found[1]) == ("b", LOST)
    calm = {name: trajectories["a" if name == "b" else name] for name in trajectories}
    assert plots.find_failure(dataset, calm, SKIP) is None
    assert plots.failure(dataset, calm, {}, SKIP, NOTE) is None


# -- Tables ----------------------------------------------------------------------------------------


def test_table_4_1_says_whose_every_number_is() -> None:
    measured = pd.DataFrame(
        [
            {
                "row": "measured",
                "framework": "PyTorch",
                "precision": "FP32",
                "hardware": "2 cores",
                "network": "3.4 M parameters",
                "dataset": "demo",
                "accuracy": 0.61234,
                "accuracy_low": 0.55,
                "accuracy_high": 0.7,
                "robustness": 0.5,
                "failures": 7.0,
                "eao": 0.4,
                "fps": 33.333,
                "fps_tracked": 30.0,
            },
            {
                "row": "measured",
                "framework": "PyTorch",
                "hardware": "2 cores",
                "dataset": "speed only",
                "fps_tracked": 1.5,
                "fps_tracked_low": 1.4,
                "fps_tracked_high": 1.6,
            },
        ]
    )
    html = tables.results(
        [thesis.table("table_4_1"), measured], "A caption <here>", thesis.table("digits")
    )._repr_html_()
    [(name, data)] = re.findall(
        r'<a download="([^"]+)" href="data:text/csv;charset=utf-8;base64,([^"]+)"', html
    )
    cells = pd.read_csv(io.BytesIO(base64.b64decode(data)))
    assert name == "a-caption-here.csv" and len(cells) == len(thesis.table("table_4_1")) + len(
        measured
    )
    assert list(cells.columns)[:2] == ["Whose number", "Machine, data"]
    rows = [re.sub(r"<[^>]+>", " ", row) for row in html.split("<tr>")[2:]]
    assert [re.split(r"  +", row.strip())[0] for row in rows] == [
        "published",
        "thesis",
        "measured now",
        "measured now",
    ]
    assert "0.6 " in rows[0] and "50" in rows[0] and "35" in rows[0]
    assert "(0.602)" in rows[1] and "52" in rows[1] and "(11.1)" in rows[1]
    assert "0.612" in rows[2] and "0.550–0.700" in rows[2] and "33.3" in rows[2]
    assert "1.4–1.6" in rows[3] and rows[3].count("–") == 5, "no quality where there is none"
    assert "A caption &lt;here&gt;" in html and "nan" not in html.replace(data, "").lower()


def test_tables_count_what_was_measured(dataset: Dataset, evaluation: Evaluation) -> None:
    rows = tables.per_sequence(dataset, evaluation, "caption").rows
    by_name = {row[0][0]: row for row in rows}
    assert by_name["b"][1:3] == [COUNT - 4, "1"] and by_name["a"][2] == "0"
    assert [row[0][0] for row in rows] == ["b", "a", "c"], "most failures first"
    total = tables.dataset(dataset, "caption").rows[-1]
    assert total[1] == 3 * COUNT - 12 and total[2] == "50 %"
    assert "caption" in repr(tables.rules({"PySOT": evaluation}, "caption"))
    assert "5 frames later" in tables.protocol(evaluation)


def test_the_style_does_not_leak(figures: dict[str, Figure]) -> None:
    assert (
        matplotlib.rcParams["axes.titlelocation"]
        == matplotlib.rcParamsDefault["axes.titlelocation"]
    )


def test_pages_read_no_picture_from_disk(tmp_path: Path, figures: dict[str, Figure]) -> None:
    out = io.StringIO()
    figures["gallery"].savefig(out, format="svg")
    assert "data:image/png;base64" in out.getvalue() and 'href="http' not in re.sub(
        r"xmlns:\w+=\"[^\"]+\"", "", out.getvalue()
    )
