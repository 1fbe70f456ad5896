"""Datasets: every layout is read alike, nothing real is refused, and what cannot be meant is named
in one sentence."""

from __future__ import annotations

import json
import shutil

import cv2
import numpy as np
import pytest

from lib.errors import InputError
from lib.vot.dataset import TAGS, load_dataset, polygon_corners, read_frame

from .helpers import HEIGHT, WIDTH, write_vot


def refused(path, *words):
    """The message with which a dataset is refused: one sentence that has all the words."""
    with pytest.raises(InputError) as caught:
        load_dataset(path)
    message = str(caught.value)
    assert message.endswith(".")
    assert "\n" not in message
    assert all(word in message for word in words), message


def describe(**changes):
    """PySOT's json of one sequence of three frames."""
    video = {
        "video_dir": "a",
        "init_rect": [1, 2, 30, 20],
        "img_names": [f"a/color/{i:08d}.jpg" for i in (1, 2, 3)],
        "gt_rect": [[1, 2, 30, 20]] * 3,
        "width": WIDTH,
        "height": HEIGHT,
        "camera_motion": [0, 1, 1],
        "illum_change": [1, 0, 0],
        "motion_change": [],
        "size_change": [0] * 3,
        "occlusion": [0] * 3,
    }
    video.update(changes)
    return json.dumps({"a": {key: value for key, value in video.items() if value is not None}})


def test_vot2018_is_read_with_its_quirks_and_without_frames(shared):
    dataset = load_dataset(shared / "vot2018" / "VOT2018.json")
    assert dataset.name == "VOT2018"
    assert len(dataset) == 60
    assert sum(map(len, dataset)) == 21356
    assert dataset["conduction1"].regions[0].shape == (4,)
    assert dataset["bag"].regions[0].shape == (8,)
    for name, tag in (("ball1", "occlusion"), ("car1", "occlusion"), ("matrix", "camera_motion")):
        assert not dataset[name].tags[tag].any()
    assert not dataset["bag"].has_frames
    with pytest.raises(InputError, match=r"00000001.jpg cannot be read"):
        dataset["bag"].frame(0)


def test_a_vot_folder_says_the_same_as_the_json(shared):
    folder = load_dataset(shared / "sequences" / "VOT2018")
    described = load_dataset(shared / "vot2018" / "VOT2018.json")
    assert [sequence.name for sequence in folder] == ["bag", "ball1"]
    for sequence in folder:
        other = described[sequence.name]
        np.testing.assert_allclose(sequence.regions, other.regions, atol=1e-2)
        assert (sequence.width, sequence.height) == (other.width, other.height)
        for tag in TAGS:
            np.testing.assert_array_equal(sequence.tags[tag], other.tags[tag])
    assert folder["bag"].frame(195).shape == (360, 480, 3)
    assert len(load_dataset(shared / "sequences" / "VOT2018" / "bag")) == 1


def test_otb_folders_with_tabs_and_commas_and_grey_frames(shared):
    dataset = load_dataset(shared / "sequences" / "OTB")
    assert {sequence.name: len(sequence) for sequence in dataset} == {"Crossing": 120, "David": 471}
    np.testing.assert_array_equal(dataset["Crossing"].regions[0], [205, 151, 17, 50])
    assert dataset["David"].frame(470).shape == (240, 320, 3)


def test_every_real_frame_is_accepted(shared):
    for folder in ("VOT2018/ball1", "OTB/Crossing"):
        sequence = load_dataset(shared / "sequences" / folder).sequences[0]
        assert all(sequence.frame(index).dtype == np.uint8 for index in range(len(sequence)))


@pytest.mark.parametrize("flat", [True, False])
@pytest.mark.parametrize("ending", [".tag", ".label"])
def test_flat_folders_boxes_and_both_tag_files(tmp_path, flat, ending):
    folder = write_vot(tmp_path / "seq", count=3, flat=flat)
    (folder / f"illum_change{ending}").write_text("0\n1\n1\n")
    (folder / "occlusion.tag").write_text("")
    sequence = load_dataset(tmp_path).sequences[0]
    assert sequence.tags["illumination_change"].tolist() == [False, True, True]
    assert not sequence.tags["occlusion"].any()
    assert (len(sequence), sequence.width, sequence.height) == (3, WIDTH, HEIGHT)


def test_a_json_finds_frames_beside_it(tmp_path):
    write_vot(tmp_path / "test" / "a", count=3)
    (tmp_path / "test" / "test.json").write_text(describe(width=None, height=None))
    for path in (tmp_path / "test", tmp_path / "test" / "test.json"):
        sequence = load_dataset(path)["a"]
        assert (sequence.width, sequence.height) == (WIDTH, HEIGHT)
        assert sequence.frame(2).shape == (HEIGHT, WIDTH, 3)
        assert sequence.tags["camera_motion"].tolist() == [False, True, True]


def test_corners_run_clockwise_from_the_top_left():
    corners = polygon_corners(np.array([1, 2, 30, 20]))
    assert corners.tolist() == [[1, 2], [31, 2], [31, 22], [1, 22]]


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        ("50,40,30,20\n" * 2, ["2 boxes for 3 frames"]),
        ("50,40,30,20\n" * 4, ["4 boxes for 3 frames"]),
        ("50,40,30,20\n50,nan,30,20\n50,40,30,20\n", ["frame 2", "finite"]),
        ("50,40,30,20\n50,40,30,20\n50,40,-30,20\n", ["frame 3", "no positive size"]),
        ("50,40,30,0\n" * 3, ["frame 1", "absent"]),
        ("10,10,30,10,50,10,20,10\n" * 3, ["frame 1", "no positive size"]),
        ("-40,40,30,20\n" * 3, ["frame 1", f"outside its {WIDTH} x {HEIGHT} image"]),
        ("nan,nan,nan,nan\n" * 3, ["frame 1", "absent"]),
        ("50,40,1e300,20\n" * 3, ["frame 1", "finite"]),
        ("50,40,30\n" * 3, ["frame 1", "4 nor 8"]),
        ("50,40,30,20\nleft,40,30,20\n50,40,30,20\n", ["line 2", "numbers"]),
        ("", ["0 boxes"]),
    ],
)
def test_bad_boxes_are_refused_with_file_and_frame(tmp_path, lines, words):
    folder = write_vot(tmp_path / "seq", count=3)
    (folder / "groundtruth.txt").write_text(lines)
    refused(folder, "groundtruth.txt", *words)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"gt_rect": [[1, 2, 30, 20]] * 2}, ["'a'", "2 boxes for 3 frames"]),
        ({"gt_rect": [[1, 2, 30, float("nan")]] * 3}, ["'a'", "frame 1", "finite"]),
        ({"gt_rect": [[1, 2, 30, "x"]] * 3}, ["PySOT"]),
        ({"occlusion": [1]}, ["'a'", "occlusion", "1 values for 3 frames"]),
        ({"img_names": None}, ["PySOT"]),
        ({"width": None}, ["00000001.jpg", "cannot be read"]),
    ],
)
def test_bad_jsons_are_refused(tmp_path, changes, words):
    path = tmp_path / "test.json"
    path.write_text(describe(**changes))
    refused(path, *(["test.json"] if "00000001.jpg" not in words else []), *words)


@pytest.mark.parametrize("text", ["{}", "[]", "[1]", "{", '{"a": 1}'])
def test_what_is_no_description_is_refused(tmp_path, text):
    (tmp_path / "test.json").write_text(text)
    refused(tmp_path / "test.json", "test.json")


def test_places_without_a_dataset_are_refused(tmp_path):
    refused(tmp_path / "nowhere", "nowhere", "does not exist")
    refused(tmp_path, "holds no sequence")
    (tmp_path / "list.txt").write_text("a\nb\n")
    refused(tmp_path, "a/groundtruth.txt", "cannot be read")
    write_vot(tmp_path / "a", count=2)
    refused(tmp_path, "b/groundtruth.txt", "cannot be read")
    dataset = load_dataset(tmp_path, leave_out=True)
    assert (len(dataset), dataset.left_out) == (1, 1)
    assert "b/groundtruth.txt cannot be read" in dataset.notes[0]
    shutil.rmtree(str(tmp_path / "a" / "color"))
    refused(tmp_path / "a", "no frames")
    (tmp_path / "list.txt").write_text("a\na\n")
    write_vot(tmp_path / "a", count=2)
    refused(tmp_path, "two sequences", "'a'")


@pytest.mark.parametrize("progressive", [0, 1])
@pytest.mark.parametrize("shape", [(40, 56), (33, 17), (200, 301, 3)])
def test_a_jpeg_without_some_pixels_is_refused_wherever_it_ends(tmp_path, shape, progressive):
    path, noise = tmp_path / "noise.jpg", np.random.RandomState(0).randint(0, 256, shape, np.uint8)
    how = [cv2.IMWRITE_JPEG_PROGRESSIVE, progressive, cv2.IMWRITE_JPEG_RST_INTERVAL, 2]
    for options in (how, how[:2]):
        whole = cv2.imencode(".jpg", noise, options)[1].tobytes()
        for end in (b"", b"\0" * 99, b"\0\0" + whole):  # behind the picture, as a motion photo has
            path.write_bytes(whole + end)
            assert read_frame(path).shape == (*shape[:2], 3)
        for share in (0.6, 0.8, 0.9):
            for end in (b"", b"\xff\xd9", b"\xff\xd9" + whole):
                path.write_bytes(whole[: int(share * len(whole))] + end)
                with pytest.raises(InputError, match=r"noise\.jpg is (truncated|not a readable)"):
                    read_frame(path)


def test_frames_that_are_missing_truncated_or_no_image_are_refused(tmp_path):
    folder = write_vot(tmp_path / "seq", count=4)
    sequence = load_dataset(folder).sequences[0]
    noise = np.random.RandomState(0).randint(0, 256, (HEIGHT, WIDTH, 3)).astype(np.uint8)
    for suffix in (".jpg", ".png"):
        data = cv2.imencode(suffix, noise)[1].tobytes()
        path = tmp_path / ("noise" + suffix)
        path.write_bytes(data)
        np.testing.assert_array_equal(read_frame(path).shape, noise.shape)
        path.write_bytes(data[: len(data) // 2])
        with pytest.raises(InputError, match=f"noise{suffix} is (truncated|not a readable image)"):
            read_frame(path)
    sequence.frames[1].unlink()
    sequence.frames[2].write_bytes(b"")
    sequence.frames[3].write_text("not an image")
    for index, fault in enumerate(["cannot be read", *["not a readable image"] * 2], 1):
        with pytest.raises(InputError, match=f"{index + 1:08d}.jpg.*{fault}"):
            sequence.frame(index)


def test_a_grey_file_becomes_three_equal_channels(tmp_path):
    cv2.imwrite(str(tmp_path / "grey.png"), np.full((4, 5), 77, np.uint8))
    np.testing.assert_array_equal(read_frame(tmp_path / "grey.png"), np.full((4, 5, 3), 77))


def test_frames_come_in_natural_order_without_hidden_files(tmp_path):
    folder = write_vot(tmp_path / "seq", count=11, suffix=".webp")
    images = folder / "color"
    for file in sorted(images.iterdir()):
        file.rename(images / f"{int(file.stem)}.webp")
    (images / "._1.webp").write_bytes(b"a Mac was here")
    names = [frame.name for frame in load_dataset(folder).sequences[0].frames]
    assert names == [f"{number}.webp" for number in range(1, 12)]


@pytest.mark.parametrize(
    "file, text",
    [
        ("full_occlusion.txt", "0,0,0,1,1,0"),  # LaSOT
        ("out_of_view.txt", "0,0,0,1,1,0\n"),
        ("absence.label", "0\n0\n0\n1\n1\n0\n"),  # GOT-10k
        ("cover.label", "8\n8\n3\n0\n0\n1\n"),
    ],
)
def test_files_of_visibility_say_where_there_is_no_target(tmp_path, file, text):
    folder = write_vot(tmp_path / "seq", count=6)
    (folder / file).write_text(text)
    [sequence] = load_dataset(folder)
    assert sequence.present.tolist() == [True, True, True, False, False, True]
    (folder / file).write_text("0,1")
    refused(folder, file, "2 values for 6 frames")


def test_a_lasot_json_says_where_the_target_is_present(tmp_path):
    write_vot(tmp_path / "a", count=3)
    (tmp_path / "d.json").write_text(describe(absent=[1, 0, 1]))
    assert load_dataset(tmp_path / "d.json").sequences[0].present.tolist() == [True, False, True]
    (tmp_path / "d.json").write_text(describe(absent=[1, 0]))
    refused(tmp_path / "d.json", "2 values for 3 frames")


@pytest.mark.parametrize("line", ["20,5 30,5 40,0 40,0", "20,5\t30,5\t40,0\t40,0", "1_0,20,30,30"])
def test_numbers_that_can_be_read_in_two_ways_are_refused(tmp_path, line):
    folder = write_vot(tmp_path / "seq", count=2)
    (folder / "groundtruth.txt").write_text(f"50,40,30,20\n{line}\n")
    refused(folder, "groundtruth.txt", "line 2")


def otb(folder, count, boxes, numbered=()):
    write_vot(folder, count)
    (folder / "color").rename(folder / "img")
    (folder / "groundtruth.txt").unlink()
    for ending in numbered or [""]:
        (folder / f"groundtruth_rect{ending}.txt").write_text("50\t40\t30\t20\n" * boxes)
    return folder


def test_frames_that_are_missing_before_the_surplus_are_refused(tmp_path):
    folder = otb(tmp_path / "seq", 8, 6)
    assert load_dataset(folder).sequences[0].unused == 2
    (folder / "img" / "00000003.jpg").unlink()
    refused(folder, "6 boxes for 7 frames")


def test_an_empty_annotation_beside_a_filled_one_is_no_target(tmp_path):
    """As in OTB's Human4."""
    folder = otb(tmp_path / "Human4", 3, 3, (".1", ".2"))
    assert [each.name for each in load_dataset(folder)] == ["Human4-1", "Human4-2"]
    (folder / "groundtruth_rect.1.txt").write_text("")
    assert [each.name for each in load_dataset(folder)] == ["Human4-2"]


def test_a_picture_and_its_mask_are_not_two_frames(tmp_path):
    folder = write_vot(tmp_path / "seq", count=3)
    shutil.copy(folder / "color" / "00000002.jpg", folder / "color" / "00000002.png")
    refused(folder, "00000002.jpg and 00000002.png")


def test_a_linked_sequence_has_its_own_name_and_an_empty_folder_is_passed_over(tmp_path):
    real = write_vot(tmp_path / "store" / "x93f", count=3, flat=True, suffix=".jpe")
    (real / "img").mkdir()
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "ball").symlink_to(real)
    [sequence] = load_dataset(tmp_path / "set")
    assert (sequence.name, len(sequence)) == ("ball", 3)


def test_a_box_without_width_is_no_target(tmp_path):
    folder = write_vot(tmp_path / "seq", count=3)
    (folder / "groundtruth.txt").write_text("50,40,30,20\n50,40,0,20\n50,40,30,20\n")
    assert load_dataset(folder).sequences[0].present.tolist() == [True, False, True]
