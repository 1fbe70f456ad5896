"""Datasets and results as people have them: each input of ../shared/cases has its right value."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest

from lib.cli import main
from lib.vot.dataset import load_dataset
from lib.vot.metrics import evaluate
from lib.vot.one_pass import evaluate_one_pass, track_all
from lib.vot.protocol import run_reset_based
from lib.vot.results import read_results

pytest.importorskip("torch")


@pytest.fixture(scope="module")
def cases(shared):
    if not (shared / "cases").is_dir():
        pytest.skip(f"{shared / 'cases'} does not exist")
    return shared / "cases"


@pytest.fixture(scope="module")
def tracker(one_thread):
    from lib.engines.zoo import open_tracker

    return open_tracker("demo", "pytorch")


OVERLAPS = {
    "absent-target/UAV": {"walk": 0.9188},
    "absent-target/LaSOT": {"walk": 0.9188},
    "gt-encodings/bom": {"walk": 0.9186},
    "gt-encodings/utf16": {"walk": 0.9186},
    "gt-encodings/trailing-comma": {"walk": 0.9186},
    "json-without-color/VOT2019": {"agility": 0.9071},
    "frames-unpadded/VOTLIKE": {"move": 0.912},
    "otb-part-annotated/OTB": {"Football1": 0.9214, "Plain": 0.9186},
    "otb-part-annotated/OTB-starts-late": {"David": 0.9186},
    "otb-two-targets/OTB": {
        "Plain": 0.9186,
        "Pair-1": 0.9186,
        "Pair-2": 0.7203,
        "Second-2": 0.9186,
    },
    "otb-two-targets/OTB/Pair": {"Pair-1": 0.9186, "Pair-2": 0.7203},
}


@pytest.mark.parametrize("case", OVERLAPS)
def test_the_overlap_in_one_pass_is_right(cases, tracker, case):
    dataset = load_dataset(cases / case)
    evaluation = evaluate_one_pass(*reversed(track_all(tracker, dataset, lambda: None)))
    found = dict(zip(evaluation.sequences, evaluation.overlap))
    assert found == pytest.approx(OVERLAPS[case], abs=0.005)
    assert evaluation.left_out == 0


@pytest.mark.parametrize("case", ["UAV", "LaSOT"])
def test_absent_targets_neither_fail_nor_start(cases, tracker, case):
    dataset = load_dataset(cases / "absent-target" / case)
    [sequence] = dataset
    assert np.flatnonzero(~sequence.present).tolist() == [5, 6]
    trajectory = run_reset_based(tracker, sequence)
    assert trajectory.codes.tolist() == [1, *[-1] * 11]
    assert evaluate(dataset, {"walk": [trajectory]}).frames[0].sum() == 10


def test_binary_results_of_the_toolkit_are_those_of_its_text(cases, capsys):
    dataset = load_dataset(cases / "results-bin" / "VOT")
    folders = [cases / "results-bin" / name / "Tracker" for name in ("results", "results-as-text")]
    binary, text = (evaluate(dataset, read_results(folder, dataset)) for folder in folders)
    assert binary.accuracy == text.accuracy == pytest.approx(0.9081, abs=5e-5)
    assert binary.failures == text.failures == 0
    arguments = ["--dataset", str(dataset.path), "--json"]
    assert main(["evaluate", *map(str, folders), *arguments]) == 0
    [difference] = json.loads(capsys.readouterr().out)["differences"].values()
    assert difference["accuracy"][0] == 0


def test_one_bad_sequence_is_named_and_counted(cases, tmp_path, capsys):
    source = cases / "otb-part-annotated"
    for file in source.glob("OTB/**/*.*"):
        copy = tmp_path / file.relative_to(source)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, copy)
    (tmp_path / "OTB" / "Plain" / "img" / "0005.jpg").write_bytes(b"no picture")
    (tmp_path / "OTB" / "Gone").mkdir()
    (tmp_path / "OTB" / "Gone" / "groundtruth_rect.txt").write_text("1,2,3,4\n")
    assert main(["evaluate", "--one-pass", "--dataset", str(tmp_path / "OTB"), "--json"]) == 0
    captured = capsys.readouterr()
    result = json.loads(captured.out)
    assert (list(result["per_sequence"]), result["left_out"]) == (["Football1"], 2)
    assert "Gone has no frames" in captured.err and "05.jpg" in captured.err
    assert "the last 2 frames have no box" in captured.err
