"""The thesis's numbers are what its text prints, always labelled as the thesis's, and its arithmetic is followed."""
from __future__ import annotations

import re
from pathlib import Path

import pytest

from lib import thesis
from lib.errors import InputError

FILES = sorted(path.stem for path in thesis.FOLDER.glob("*.csv"))


@pytest.fixture(scope="module")
def text(shared: Path) -> str:
    return (shared / "thesis" / "thesis.txt").read_text(encoding="utf-8")


def test_table_4_1_is_what_the_thesis_prints(text: str) -> None:
    printed = {}
    for line in text.splitlines():
        cells = line.split("\t")
        if len(cells) == 6 and cells[1].startswith("NVIDIA"):
            printed[cells[1]] = (cells[0], *map(float, cells[2:]))
    table = thesis.table("table_4_1")
    columns = ["framework", "accuracy", "robustness", "eao", "fps"]
    assert {row["hardware"]: tuple(row[name] for name in columns) for row in table.to_dict("records")} == printed


def test_the_extra_digits_round_to_what_the_tables_print(text: str) -> None:
    tensorrt = re.findall(r"^TensorRT\t(FP32|FP16|INT8)\t([\d.]+)\t([\d.]+)\t([\d.]+)\t([\d.]+)$", text, re.MULTILINE)
    digits = thesis.table("digits").set_index(["framework", "precision"])
    assert len(tensorrt) == 3
    for precision, accuracy, robustness, eao, fps in tensorrt:
        row = digits.loc[("TensorRT", precision)]
        assert round(row["accuracy"], 1) == float(accuracy)
        assert (row["robustness"], row["eao"], row["fps"]) == (float(robustness), float(eao), float(fps))
    baseline, [_, xavier] = digits.loc[("PyTorch", "FP32")], thesis.table("table_4_1").to_dict("records")
    assert (round(baseline["accuracy"], 1), baseline["robustness"]) == (xavier["accuracy"], xavier["robustness"])
    assert (baseline["eao"], round(baseline["fps"])) == (xavier["eao"], xavier["fps"])


def test_figure_4_5_is_what_the_notes_recover(shared: Path) -> None:
    notes = (shared / "thesis" / "figure-values.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| ([a-z ]+) \| (0\.\d+) \| (0\.\d+) \| (0\.\d+) \| (0\.\d+) \|$", notes, re.MULTILINE)
    figure = thesis.table("figure_4_5")
    assert [name.replace(" ", "_") for name, *_ in rows] == list(figure["attribute"])
    assert [[float(value) for value in values] for _, *values in rows] == figure.iloc[:, 2:].to_numpy().tolist()


@pytest.mark.parametrize("name", FILES)
def test_every_number_says_whose_it_is_and_where_it_comes_from(name: str) -> None:
    table = thesis.table(name)
    assert set(table["row"]) <= {"thesis", "published"}
    assert table.attrs["title"] and table.attrs["source"] and table.attrs["units"]


def test_the_dataset_is_the_one_that_the_thesis_counts(text: str) -> None:
    assert f"{thesis.VOT2018_SEQUENCES} videos and {thesis.VOT2018_FRAMES} single images" in text


def test_three_digits_of_robustness_leave_one_count_of_failures() -> None:
    robustness = [*thesis.table("table_4_1")["robustness"], *thesis.table("digits")["robustness"]]
    for value in robustness:
        [count] = thesis.failures(value)
        assert 100 * count / thesis.VOT2018_FRAMES == pytest.approx(value, abs=0.0005)
    assert thesis.failures(0.234) == [50]
    assert thesis.failures(0.23, digits=2) == [49, 50], "two digits do not"


def test_the_text_says_one_more_failure_where_its_table_says_two(text: str) -> None:
    assert "lost the target object one more time in total" in text
    assert "50 and 52 failures" in thesis.audit_4_1() and "2 more on the Xavier" in thesis.audit_4_1()


def test_a_table_that_is_not_there_is_named() -> None:
    with pytest.raises(InputError, match=r"table_9_9\.csv: no such table of the thesis \(there are .*table_4_1"):
        thesis.table("table_9_9")
