"""Raw results go to files and come back; what does not belong to the dataset is refused."""

from __future__ import annotations

import os
import struct

import numpy as np
import pytest

from lib.errors import InputError
from lib.vot.dataset import load_dataset
from lib.vot.protocol import Trajectory
from lib.vot.results import read_results, read_trajectory, result_path, write_trajectory

from .helpers import dataset_of, entries, still_sequence

BOX = (50, 40, 30, 20)


def test_a_trajectory_survives_the_round_trip(tmp_path):
    path = result_path(tmp_path, "still")
    polygon = (1.25, 2, 3, 4.5, 5, 6, 7, 8.0625)
    lost = entries(1, BOX, polygon, 2, 0, 0, 0, 0, 1)
    write_trajectory(path, Trajectory(lost.entries, np.arange(9) / 8))
    assert path.read_text().split("\n")[:3] == [
        "1",
        "50.0000,40.0000,30.0000,20.0000",
        "1.2500,2.0000,3.0000,4.5000,5.0000,6.0000,7.0000,8.0625",
    ]
    assert path.read_text().endswith("\n2\n0\n0\n0\n0\n1\n")
    back = read_trajectory(path)
    assert [entry.tolist() for entry in back.entries] == [entry.tolist() for entry in lost.entries]
    np.testing.assert_array_equal(back.seconds, np.arange(9) / 8)
    assert sorted(os.listdir(str(path.parent))) == ["still_001.txt", "still_001_time.value"]
    write_trajectory(path, lost)
    assert np.isnan(read_trajectory(path).seconds).all()  # the times of the run before are gone


def test_published_files_come_back_byte_for_byte(shared, tmp_path):
    source = shared / "vot2018" / "results" / "SiamRPNpp_R50" / "baseline" / "book" / "book_001.txt"
    write_trajectory(tmp_path / "book_001.txt", read_trajectory(source))
    assert (tmp_path / "book_001.txt").read_text().split() == source.read_text().split()
    assert not (tmp_path / "book_001_time.value").exists()


def test_all_published_results_are_read(shared):
    dataset = load_dataset(shared / "vot2018" / "VOT2018.json")
    for folder in sorted((shared / "vot2018" / "results").iterdir()):
        results = read_results(folder, dataset)
        for sequence in dataset:
            assert len(results[sequence.name][0]) == len(sequence)


@pytest.mark.parametrize(
    "layout", ["baseline/still/still_{:03d}.txt", "still/still_{:03d}.txt", "still.txt"]
)
def test_layouts_and_repetitions(tmp_path, layout):
    dataset = dataset_of(still_sequence(count=3))
    for repetition in (1, 2, 3):
        write_trajectory(tmp_path / layout.format(repetition), entries(1, BOX, BOX))
    assert len(read_results(tmp_path, dataset)["still"]) == (1 if layout == "still.txt" else 3)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("1\n50,40,30,20\n", ["2 lines", "3 frames"]),
        ("1\n" + "50,40,30,20\n" * 3, ["4 lines", "3 frames"]),
        ("", ["0 lines"]),
        ("1\n50,40,30,20\n3\n", ["line 3", "code"]),
        ("1\n50,40,30\n1\n", ["line 2", "4 or 8"]),
        ("1\n50,40,nan,20\n1\n", ["line 2", "finite"]),
        ("1\nm0,1,2\n1\n", ["line 2", "numbers"]),
    ],
)
def test_bad_results_are_refused_with_file_and_line(tmp_path, text, words):
    path = result_path(tmp_path, "still")
    path.parent.mkdir(parents=True)
    path.write_text(text)
    with pytest.raises(InputError) as caught:
        read_results(tmp_path, dataset_of(still_sequence(count=3)))
    assert all(word in str(caught.value) for word in ["still_001.txt", *words]), caught.value


def test_results_of_another_dataset_are_refused(tmp_path):
    dataset = dataset_of(still_sequence("a", 3), still_sequence("b", 3))
    write_trajectory(result_path(tmp_path, "c"), entries(1, BOX, BOX))
    for name, words in (("nowhere", "does not exist"), ("", "lacks sequence 'a'")):
        with pytest.raises(InputError, match=words):
            read_results(tmp_path / name, dataset)
    write_trajectory(result_path(tmp_path, "a"), entries(1, BOX, BOX))
    with pytest.raises(InputError, match="lacks sequence 'b' of test"):
        read_results(tmp_path, dataset)


def test_a_place_that_cannot_be_written_is_named_and_left_as_it_was(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"still_001.txt: cannot be written"):
        write_trajectory(result_path(tmp_path / "file", "still"), entries(1, BOX))
    (tmp_path / "taken.txt").mkdir()
    with pytest.raises(InputError, match=r"taken\.txt: cannot be written"):
        write_trajectory(tmp_path / "taken.txt", entries(1, BOX))
    assert sorted(os.listdir(str(tmp_path))) == ["file", "taken.txt"]


def test_repetitions_of_both_kinds_count_and_got10ks_names_are_found(tmp_path):
    dataset = dataset_of(still_sequence("Jogging-1", 3))
    (tmp_path / "Jogging.1.txt").write_text("50,40,30,20\n" * 3)
    assert len(read_results(tmp_path, dataset)["Jogging-1"]) == 1
    write_trajectory(result_path(tmp_path, "Jogging-1", 2), entries(1, BOX, BOX))
    binary = struct.pack("<hI", 1, 3) + struct.pack("<BI", 0, 1) + 2 * struct.pack("<B4f", 1, *BOX)
    result_path(tmp_path, "Jogging-1").with_suffix(".bin").write_bytes(binary)
    one, two = read_results(tmp_path, dataset)["Jogging-1"]
    assert all(np.allclose(a, b) for a, b in zip(one.entries, two.entries))
