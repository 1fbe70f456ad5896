"""The thesis's numbers are what its text prints, always labelled as the thesis's, and its
arithmetic is followed."""

from __future__ import annotations

import itertools
import json
import re
from decimal import Decimal
from functools import lru_cache
from pathlib import Path

import pandas as pd
import pytest

from lib.report import audit, thesis
from lib.vot.dataset import VOT2018_FRAMES, VOT2018_SEQUENCES

from .helpers import cells

# The audit has formulas, not numbers
FILES = sorted(path.stem for path in thesis.FOLDER.glob("*.csv") if path.stem[:5] != "audit")
ROBUSTNESS = [
    value for name in ("table_4_1", "table_4_2") for value in thesis.table(name)["robustness"]
]


def test_table_4_1_is_what_the_thesis_prints(thesis_text: str) -> None:
    printed = {}
    for line in thesis_text.splitlines():
        cells = line.split("\t")
        if len(cells) == 6 and cells[1].startswith("NVIDIA"):
            printed[cells[1]] = (cells[0], *map(float, cells[2:]))
    table = thesis.table("table_4_1")
    columns = ["framework", "accuracy", "robustness", "eao", "fps"]
    assert {
        row["hardware"]: tuple(row[name] for name in columns) for row in table.to_dict("records")
    } == printed


def test_the_extra_digits_round_to_what_the_tables_print() -> None:
    digits, baseline = thesis.table("digits"), thesis.table("table_4_1")[1:]
    printed = pd.concat([baseline.assign(precision="FP32"), thesis.table("table_4_2")])
    unrounded = ["framework", "precision", "robustness", "eao"]
    assert digits[unrounded].to_numpy().tolist() == printed[unrounded].to_numpy().tolist()
    assert digits["accuracy"].round(1).tolist() == printed["accuracy"].tolist()
    pytorch, *engines = digits["fps"]
    assert [round(pytorch), *engines] == printed["fps"].tolist()


def test_figure_4_5_is_what_the_notes_recover(shared: Path) -> None:
    notes = (shared / "thesis" / "figure-values.md").read_text(encoding="utf-8")
    rows = re.findall(
        r"^\| ([a-z ]+) \| (0\.\d+) \| (0\.\d+) \| (0\.\d+) \| (0\.\d+) \|$", notes, re.MULTILINE
    )
    figure = thesis.table("figure_4_5")
    assert [name.replace(" ", "_") for name, *_ in rows] == list(figure["attribute"])
    assert [[float(value) for value in values] for _, *values in rows] == figure.iloc[
        :, 2:
    ].to_numpy().tolist()


@pytest.mark.parametrize("name", FILES)
def test_every_number_says_whose_it_is_and_where_it_comes_from(name: str) -> None:
    table = thesis.table(name)
    assert set(table["row"]) <= {"thesis", "published"}
    assert table.attrs["title"] and table.attrs["source"] and table.attrs["units"]


def test_three_digits_of_robustness_leave_one_count_of_failures() -> None:
    for value in ROBUSTNESS:
        [count] = {thesis.failures(value + rounding) for rounding in (-0.0005, 0, 0.0005)}
        assert 100 * count / VOT2018_FRAMES == pytest.approx(value, abs=0.0005)


# The data files against the thesis's text

HEADS = {  # the first cells of a table's head in the text
    "table_4_2": ("Framework", "Precision", "Accuracy"),
    "table_4_3": ("Target", "Search"),
    "table_4_4": ("Parameters in M", "Compression ratio"),
    "table_4_5": ("Parameters in M", "Framework", "Precision", "Accuracy"),
    "table_4_6": ("Framework", "Precision", "Power in W"),
    "table_4_7": ("Parameters in M", "Framework", "Precision", "Power in W"),
}
WORDS = {
    "one": "1",
    "two": "2",
    "one-third": "0.3",
    "half": "0.5",
    "no": "0",
    "doubles": "2",
    "three": "3",
}
COUNTED = {  # claims whose words count cases of a table without a numeral
    "ranking_occlusion",
    "ranking_camera_motion",
    "speed_ranges",
    "pruned_better",
    "pruned_between",
    "ranking_speed",
    "smaller_faster",
    "smaller_worse",
    "ranking_eao",
    "power_exceptions",
    "ranking_power",
    "quality_12m_30m",
    "conclusion_real_time",
}


def in_text(text: str, name: str) -> list[list[str]]:
    """The rows under a table's head in the text, as printed; a percentage loses its sign "%" and
    its "+", "-" alone is empty."""
    lines = [line.split("\t") for line in text.splitlines()]
    [start] = (i for i, line in enumerate(lines) if tuple(line[: len(HEADS[name])]) == HEADS[name])
    block = list(itertools.takewhile(lambda line: len(line) > 1, lines[start + 1 :]))
    return [[re.sub(r"^\+|^-$|%$", "", cell) for cell in line] for line in block if line[0]]


@pytest.mark.parametrize("name", HEADS)
def test_a_table_is_what_the_thesis_prints_digit_by_digit(thesis_text: str, name: str) -> None:
    columns = list(thesis.table(name).columns)
    assert columns[0] == "row"
    assert [[row[column] for column in columns[1:]] for row in thesis.rows(name)] == in_text(
        thesis_text, name
    )


@pytest.mark.parametrize("name", ["table_4_1", *HEADS])
def test_a_table_has_the_caption_and_the_page_of_the_thesis(thesis_text: str, name: str) -> None:
    flat, attributes = " ".join(thesis_text.split()), thesis.table(name).attrs
    assert attributes["title"] in flat
    section, page = re.findall(r"section ([\d.]+\d), page (\d+)", attributes["source"])[0]
    first, last = pages(thesis_text)[section]
    assert first <= int(page) <= last


@lru_cache(maxsize=None)
def pages(text: str) -> dict[str, tuple[int, int]]:
    """First and last page of each section, from the table of contents; a section may end where the
    next begins."""
    starts = [
        (section, int(page))
        for section, page in re.findall(r"^\t+(\d(?:\.\d)+)[\t ].*\t(\d+)$", text, re.MULTILINE)
    ]
    return {
        section: (page, following)
        for (section, page), (_, following) in zip(starts, [*starts[1:], ("", starts[-1][1] + 1)])
    }


@lru_cache(maxsize=None)
def sections(text: str) -> dict[str, str]:
    """The text of each section, white space made single."""
    body = text[text.index("Chapter 1\n\nIntroduction") : text.index("\nBibliography")]
    parts = re.split(r"^(\d(?:\.\d)+) \**(?=[A-Z])", body, flags=re.MULTILINE)
    abstract = text[text.index("\nAbstract\n") : text.index("\nKurzfassung\n")]
    named = dict(zip(parts[1::2], parts[2::2]))
    return {name: " ".join(part.split()) for name, part in {"abstract": abstract, **named}.items()}


CLAIMS = [row for row in thesis.rows("claims") if not row["section"].startswith("reference")]


@pytest.mark.parametrize("row", CLAIMS, ids=[row["id"] for row in CLAIMS])
def test_a_claim_is_in_the_section_it_names_with_its_number(
    thesis_text: str, row: dict[str, str]
) -> None:
    assert row["words"] in sections(thesis_text)[row["section"]]
    if row["id"] not in COUNTED and float(row["number"]):
        numbers = re.findall(r"-?\d+(?:\.\d+)?", row["words"]) + [
            WORDS[word] for word in row["words"].split() if word in WORDS
        ]
        assert row["number"] in numbers
    if row["page"].isdigit():
        first, last = pages(thesis_text)[row["section"]]
        assert first <= int(row["page"]) <= last


def test_the_dataset_has_the_frames_that_the_thesis_counts(shared: Path) -> None:
    sequences = json.loads((shared / "vot2018" / "VOT2018.json").read_text(encoding="utf-8"))
    assert len(sequences) == VOT2018_SEQUENCES == int(thesis.cell("claims/sequences/number"))
    frames = sum(len(sequence["img_names"]) for sequence in sequences.values())
    assert frames == VOT2018_FRAMES == int(thesis.cell("claims/frames/number"))


# The audit


@pytest.fixture(scope="module")
def findings() -> dict[str, audit.Finding]:
    found = audit.findings()
    by_id = {finding.id: finding for finding in found}
    assert len(by_id) == len(found)
    return by_id


# Everything that does not agree: the derived number and, where another base explains the stated
# one, that one's
DEVIATIONS = {
    "table_4_6/unit": ("units", 21.378 / 11 / 1000, 21.378 / 11),
    "failures_more_xavier": ("slip", 52 - 50, None),
    "robustness_change_int8": ("slip", 100 * (0.281 - 0.239) / 0.239, None),
    "calibration_per_video": ("slip", -(-1000 // 60), None),
    "speed_ranges": ("slip", 52.9 - 43.0, None),
    "smaller_worse": ("slip", 4 + 0 + 4, None),
    "eao_baseline": ("base", 0.413, 0.414),
    "power_saving_fp16": (
        "base",
        100 * (21.378 - 13.044) / 21.378,
        100 * (20.877 - 13.044) / 20.877,
    ),
    "energy_saving_fp16": ("base", 100 * (1.94 - 0.26) / 1.94, 100 * (1.59 - 0.26) / 1.59),
    "power_saving_int8": ("base", 100 * (21.378 - 3.569) / 21.378, 100 * (20.877 - 3.569) / 20.877),
    "energy_saving_int8": (
        "base",
        100 * (1.94 - 0.05) / 1.94,
        100 * (1 - (3.569 / 65.7) / (20.877 / 13.1)),
    ),
    "conclusion_speedup": ("base", 49.9 / 11, 49.9 / 13.1),
    "conclusion_eao": ("base", 0.413 - 0.389, 0.414 - 0.389),
    "conclusion_mixing": ("slip", len([0.394, 0.395, 0.398, 0.396]), None),
}


def test_the_audit_lists_these_deviations_and_no_other(findings: dict[str, audit.Finding]) -> None:
    assert {
        name: finding.reading for name, finding in findings.items() if finding.reading != "agrees"
    } == {name: kind for name, (kind, *_) in DEVIATIONS.items()}


@pytest.mark.parametrize("name", DEVIATIONS)
def test_a_deviation_has_the_size_that_arithmetic_gives(
    findings: dict[str, audit.Finding], name: str
) -> None:
    (_, expected, instead), finding = DEVIATIONS[name], findings[name]
    assert finding.derived == pytest.approx(expected)
    assert finding.deviation == pytest.approx(expected - float(finding.stated))
    assert abs(finding.deviation) > audit.half_digit(finding.stated)
    if instead is not None:
        assert instead == pytest.approx(
            float(finding.stated), abs=audit.half_digit(finding.stated) * (1 + 1e-6)
        )


def test_what_agrees_is_within_the_last_printed_digit(
    findings: dict[str, audit.Finding],
) -> None:
    agreeing = [finding for finding in findings.values() if finding.reading == "agrees"]
    assert len(agreeing) > 100
    for finding in agreeing:
        digit = Decimal(1).scaleb(Decimal(finding.stated).as_tuple().exponent)
        assert abs(Decimal(finding.derived) - Decimal(finding.stated)) <= digit + Decimal("1e-9"), (
            finding
        )


AGREEMENTS = {
    "abstract_compression": 12 / 45.5,
    "abstract_fps_pruned": 94.4,
    "abstract_speedup": 49.9 / 11,
    "speedup_fp16": 49.9 / 13.1,
    "robustness_difference": 0.009,
    "failures_more_fp16": 53 - 51,
    "failures_more_int8": 60 - 51,
    "speedup_int8": 65.7 / 13.1,
    "faster_int8": (65.7 - 49.9) / 49.9,
    "eao_change_int8": 100 * (0.347 - 0.392) / 0.392,
    "median_fps_fp16": (42.5 + 42.7) / 2,
    "eao_drop_retrained": 0.414 - 0.344,
    "future_eao_drop_relative": -100 * 0.07 / 0.414,
    "eao_half": 0.212 / 0.413,
    "conclusion_power": 100 * 8.334 / 21.378,
    "conclusion_energy": 100 * 1.68 / 1.94,
    "exemplar_feature": 15,
    "stride": 8,
    "power_saving_pruned": 100 * (12.445 - 3.958) / 12.445,
    "energy_saving_pruned": 100 * (0.241 - 0.067) / 0.241,
    "highest_eao": 0.398,
    "highest_fps": 78.8,
    "parameters": 45.528128,
    "ranking_speed": 4,
    "smaller_faster": 12,
    "ranking_eao": 4,
    "power_exceptions": 1,
    "quality_12m_30m": 3,
    "pruned_better": 3,
    "pruned_between": 3,
    "table_4_7/12 M TensorRT INT8/energy_j": 1.159 / 94.4,
    "table_4_7/12 M TensorRT INT8/energy_change_pct": -100 * 53 / 65,
    "table_4_7/30 M TensorRT FP32/power_change_pct": 100 * 0.014 / 19.823,
    "table_4_4/22.5 M/compression": 22.5 / 45.5,
}


@pytest.mark.parametrize("name", AGREEMENTS)
def test_what_agrees_is_derived_as_arithmetic_gives(
    findings: dict[str, audit.Finding], name: str
) -> None:
    assert findings[name].derived == pytest.approx(AGREEMENTS[name])
    assert findings[name].reading == "agrees"


@pytest.mark.parametrize("name", ["table_4_1", "table_4_2", "table_4_3", "table_4_5"])
def test_every_robustness_is_one_whole_number_of_failures(
    findings: dict[str, audit.Finding], name: str
) -> None:
    for row in thesis.rows(name):
        count = thesis.failures(float(row["robustness"]))
        finding = findings[f"{name}/{row['name']}/robustness"]
        assert (finding.reading, finding.sentence) == (
            "agrees",
            f"{count} failures in 21,356 frames.",
        )


def test_every_energy_percentage_and_compression_of_the_tables_is_in_the_audit(
    findings: dict[str, audit.Finding],
) -> None:
    columns = {
        "table_4_4": ["compression"],
        "table_4_6": ["energy_kj"],
        "table_4_7": ["energy_j", "power_change_pct", "energy_change_pct"],
    }
    cells = {
        f"{name}/{row['name']}/{column}"
        for name in columns
        for row in thesis.rows(name)
        for column in columns[name]
        if row[column]
    }
    found = {name for name in findings if "/" in name and not name.endswith("robustness")}
    assert found == cells | {"table_4_6/unit"}
    assert len(cells) == 4 + 4 + 16 + 2 * 12
    assert all(findings[name].stated == thesis.cell(name) for name in cells)


def test_sentences_are_audited_in_the_order_of_the_thesis(
    findings: dict[str, audit.Finding],
) -> None:
    order = [row["id"] for row in thesis.rows("claims")]
    audited = [name for name in findings if "/" not in name]
    assert audited == [name for name in order if name in findings]
    assert all(findings[name].stated == thesis.cell(f"claims/{name}/number") for name in audited)


def test_the_numbers_that_the_audit_s_sentences_add_are_the_thesis_s_or_follow_from_them() -> None:
    known = {value for name in FILES for row in thesis.rows(name) for value in row.values()}
    known |= {
        number
        for row in thesis.rows("claims")
        for number in re.findall(r"\d+(?:\.\d+)?", row["words"])
    }
    known |= {str(thesis.failures(value)) for value in ROBUSTNESS}
    known |= {f"{100 * 12 / 45.5:.1f}", f"{100 * (60 - 51) / 51:.1f}"}  # 26.4 %, 17.6 %
    for check in thesis.rows("audit"):
        words = re.sub(
            r"\{[^}]*\}|(?:[Tt]ables?|[Ss]ections?|figure) [\d.]*\d(?: and [\d.]*\d)?",
            "",
            check["sentence"],
        )
        words = re.sub(r"\b(?:INT8|FP16|FP32)\b|per 100 frames", "", words)
        assert set(re.findall(r"\d+(?:\.\d+)?", words)) <= known, check["id"]


def test_no_two_trackers_differ_by_the_16_6_percent_of_the_text() -> None:
    changes = [100 * (a - b) / b for a, b in itertools.permutations(ROBUSTNESS, 2)]
    assert not [value for value in changes if abs(abs(value) - 16.6) <= 0.05]


def test_what_the_sentences_say_besides_their_numbers() -> None:
    mixed, power, eao = (
        thesis.table("table_4_3"),
        thesis.table("table_4_7"),
        thesis.table("table_4_5"),
    )
    networks, by_search = ["target", "search", "xcorr"], mixed.groupby("search")["fps"]
    above = mixed[mixed["eao"] > 0.389]
    assert len(above) == 4 and (above[networks] != "INT8").all(axis=1).sum() == 3
    best = [mixed.loc[mixed[name].idxmax(), networks].tolist() for name in ("eao", "fps")]
    assert best == [["INT8", "FP32", "FP16"], ["FP16", "INT8", "FP16"]]
    assert by_search.median().sort_values().index.tolist() == ["FP32", "FP16", "INT8"]
    slowest, fastest = by_search.min(), by_search.max()
    assert fastest["FP16"] == 52.9 and slowest["INT8"] == 43.0 > fastest["FP32"]
    half = power[(power["precision"] == "FP16")]
    assert half["power_change_pct"].min() == -68.2 and half["energy_change_pct"].min() == -72.2, (
        "up to is the largest saving"
    )
    middle, small = (eao.loc[eao["parameters_m"] == size, "eao"].to_numpy() for size in (30, 22.5))
    assert (small > middle).all()
    pruned = eao.loc[eao["parameters_m"] < 45].sort_values("fps").iloc[-1]
    assert (pruned["parameters_m"], pruned["precision"]) == (12, "INT8")


@pytest.mark.parametrize(
    "stated, value, spread, instead, expected",
    [
        ("3.8", 3.81, 0, None, "agrees"),
        ("3.8", 3.85, 0, None, "agrees"),
        ("3.8", 3.86, 0, None, "agrees"),
        ("3.8", 3.94, 0, None, "slip"),
        ("3.8", 3.94, 0.1, None, "agrees"),
        ("3.8", 3.76, 0.002, None, "agrees"),
        ("3.8", 3.7, 0.04, None, "slip"),
        ("-9.99", -9.997, 0, None, "agrees"),
        ("-9.99", -9.98, 0, None, "slip"),
        ("0", 4, 0, 0, "base"),
        ("0", 4, 0, 3, "slip"),
        ("0", 0, 0, 4, "agrees"),
        ("4", 4.54, 0.2, 3.8, "base"),
    ],
)
def test_a_reading(
    stated: str, value: float, spread: float, instead: float | None, expected: str
) -> None:
    derived = audit.Derived(value, value - spread, value + spread)
    other = None if instead is None else audit.Derived(instead, instead, instead)
    assert audit.reading(stated, derived, other) == expected


def test_bounds_come_from_the_printed_digits() -> None:
    derived = audit.derive(lambda power, fps: power / fps, "21.378", "11")
    assert derived == pytest.approx((21.378 / 11, 21.3775 / 11.5, 21.3785 / 10.5))
    assert [audit.half_digit(text) for text in ("0.239", "16.0", "11")] == pytest.approx(
        [0.0005, 0.05, 0.5]
    )


def test_a_cell_is_found_by_its_row_s_name() -> None:
    assert thesis.cell("table_4_5/12 M PyTorch FP32/fps") == "26.6"
    assert thesis.cell("table_4_5/30 M TensorRT FP16/fps") == "52.0", "as printed, zeros kept"
    assert thesis.cell("table_4_3/INT8 FP32 FP16/eao") == "0.398"


def in_short() -> dict[str, list[str]]:
    """Page -> the numbers of the thesis that its first sentence has to have, from the tables."""
    paper, xavier = thesis.table("table_4_1").to_dict("records")
    engines = {row["precision"]: row for row in thesis.table("table_4_2").to_dict("records")}
    shares, pruned = thesis.table("table_4_4"), thesis.table("table_4_5")
    power = thesis.table("table_4_6")
    fp16, int8 = engines["FP16"], engines["INT8"]
    smallest = pruned[pruned["precision"] == "INT8"].sort_values("parameters_m").iloc[0]
    frozen = pruned[pruned["framework"] == "PyTorch"].sort_values("parameters_m").iloc[-1]
    first, second = (
        power[power["precision"] == precision].sort_values("power_w").iloc[-1]
        for precision in ("FP32", "FP16")
    )
    assert 1.28 < int8["fps"] / fp16["fps"] < 1.38, "a third faster still"
    return {
        "04_1_baseline": [f"{xavier['eao']:.3f}", f"{paper['eao']:.3f}", f"{xavier['fps']:.0f} fr"],
        "04_2_engines": [
            f"{fp16['fps'] / xavier['fps']:.1f} times",
            f"{xavier['eao'] - fp16['eao']:.3f}",
            f"{xavier['eao'] - int8['eao']:.3f}",
        ],
        "04_2_2_pruned_backbone": [
            f"{shares['top1'][1:].min():.0f} to {shares['top1'][1:].max():.0f} %",
            f"{shares['top1'][0]:.0f} %",
        ],
        "04_2_3_pruned_engines": [
            f"{smallest['fps']:.0f} frames",
            f"{smallest['eao']:.3f} instead of {xavier['eao']:.3f}",
            f"{xavier['eao']:.3f} to {frozen['eao']:.3f}",
        ],
        "04_3_power": [
            f"{100 * (1 - second['power_w'] / first['power_w']):.0f} % less power",
            f"{100 * (1 - second['energy_kj'] / first['energy_kj']):.0f} % less energy",
        ],
    }


def test_the_first_sentence_of_a_page_has_the_thesiss_own_numbers() -> None:
    for page, numbers in in_short().items():
        told = " ".join(
            "".join(cells(page)[0]["source"]).split("**You will**")[0].replace("> ", "").split()
        )
        assert "In short" in told and "In the thesis" in told
        for number in numbers:
            assert number in told, (page, number, told)
