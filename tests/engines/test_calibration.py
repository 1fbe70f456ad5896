"""Calibration: which frames the thesis's set takes, what the xcorr network is fed, files of ranges,
trusted only when whole."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

torch = pytest.importorskip("torch")
onnx = pytest.importorskip("onnx")
ort = pytest.importorskip("onnxruntime")

from lib.engines.calibration import (  # noqa: E402
    METHOD,
    XCORR_FEEDS,
    calibrate_ways,
    calibration_path,
    dataset_pairs,
    network_feeds,
    read_ranges,
    thesis_pairs,
    training_ranges,
    write_ranges,
    xcorr_feeds,
)
from lib.engines.export import export_network  # noqa: E402
from lib.engines.quantize import METHODS, quantisable, to_int8  # noqa: E402
from lib.engines.zoo import DEMO_TRAINING, DEMO_WEIGHTS  # noqa: E402
from lib.errors import InputError  # noqa: E402
from lib.siamrpn.checkpoint import load_network  # noqa: E402
from lib.siamrpn.crop import as_input  # noqa: E402
from lib.siamrpn.parts import KERNELS, MAPS, NETWORKS, three_networks  # noqa: E402
from lib.siamrpn.tracker import SiamRPNTracker  # noqa: E402
from lib.training.pairs import (  # noqa: E402
    PairDataset,
    held_out,
    load_clips,
    training_pairs,
)
from lib.training.tracker import load_config  # noqa: E402
from lib.vot.dataset import Video, load_dataset  # noqa: E402

from .helpers import noise_pairs, of_the_range  # noqa: E402

WEIGHTS = "0123456789abcdef"


@pytest.fixture(scope="module")
def pairs():
    return noise_pairs(3)


@pytest.fixture(scope="module")
def ranges(models, pairs):
    return calibrate_ways(models, pairs, ["own"])["own"]


# -- Sets ------------------------------------------------------------------------------------------


def test_vot2018_gives_22_frames_of_each_sequence(shared, monkeypatch):
    monkeypatch.setattr(Video, "frame", lambda *_: np.zeros((8, 8, 3), np.uint8))
    pairs = thesis_pairs(load_dataset(shared / "vot2018" / "VOT2018.json"), requested=1000)
    assert len(pairs) == 60 * 22, "the thesis author's rule on 21,356 frames"


@pytest.fixture
def numbered(tmp_path):
    """Two OTB sequences of 20 and 2 frames; brightness 4 * index, and 200 + 4 * index."""
    for name, length, first in (("long", 20, 0), ("short", 2, 200)):
        (tmp_path / name / "img").mkdir(parents=True)
        for index in range(length):
            frame = np.full((90, 120, 3), first + 4 * index, np.uint8)
            cv2.imwrite(str(tmp_path / name / "img" / f"{index:04d}.png"), frame)
        rows = [f"{40 + index},30,30,24\n" for index in range(length)]
        (tmp_path / name / "groundtruth_rect.txt").write_text("".join(rows))
    return load_dataset(tmp_path)


def numbers(pairs):
    """(exemplar's brightness, search crop's) of every pair."""
    return [(int(pair.exemplar[63, 63, 0]), int(pair.search[127, 127, 0])) for pair in pairs]


def test_frames_of_a_sequence_are_chosen_once_and_a_short_sequence_gives_all_it_has(numbered):
    chosen = numbers(thesis_pairs(numbered, requested=4))  # ceil(22 / 4) = 6 a sequence
    long = [pair for pair in chosen if pair[0] < 200]
    short = [pair for pair in chosen if pair[0] >= 200]
    assert len(long) == 6
    assert len({search for _, search in long}) == len({exemplar for exemplar, _ in long}) == 6
    assert sorted(search for _, search in short) == [200, 204]
    assert all(exemplar != search for exemplar, search in chosen)
    assert all(value % 4 == 0 for pair in chosen for value in pair)
    assert numbers(thesis_pairs(numbered, 4)) == chosen, "the same each time"


@pytest.mark.parametrize("total", [1, 7, 21, 22, 1000])
def test_so_many_frames_as_asked_come_from_a_dataset(numbered, total):
    """`siambook calibrate DATASET --pairs N`; the dataset has 20 and 2 frames."""
    chosen = numbers(dataset_pairs(numbered, total))
    assert len(chosen) == len({search for _, search in chosen}) == min(total, 22)
    short = sum(search >= 200 for _, search in chosen)
    assert abs(short - min(total, 22) * 2 / 22) < 1


class Listener:
    """A network that keeps what the tracker shows it."""

    name = "listener"

    def __init__(self):
        self.crops = []

    def template(self, exemplar):
        self.crops.append(exemplar)
        return "kernels"


def test_crops_of_real_sequences_are_the_trackers_own(shared):
    dataset = load_dataset(shared / "sequences" / "VOT2018")
    assert [len(sequence) for sequence in dataset] == [196, 105]
    pairs = thesis_pairs(dataset, requested=100)  # ceil(301 / 100) = 4 of each
    assert len(pairs) == 8
    for exemplar, search in pairs:
        assert (exemplar.shape, search.shape) == ((127, 127, 3), (255, 255, 3))
        assert exemplar.dtype == search.dtype == np.uint8
        assert exemplar.std() > 5 and search.std() > 5
    otb = load_dataset(shared / "sequences" / "OTB" / "Crossing")
    [sequence] = otb
    one = replace(sequence, frames=sequence.frames[:1], regions=sequence.regions[:1], tags={})
    [pair] = thesis_pairs(replace(otb, sequences=(one,)), requested=1)
    tracker = SiamRPNTracker(Listener())
    tracker.init(sequence.frame(0), sequence.regions[0])
    assert np.array_equal(as_input(pair.exemplar), tracker.network.crops[0])
    assert np.array_equal(pair.search, tracker.search_crop(sequence.frame(0))[0])


def test_training_pairs_are_seeded_and_none_of_those_that_were_trained_on(shared):
    config = replace(load_config(DEMO_TRAINING), data=str(shared / "train"))
    configs = (config, config, replace(config, seed=config.seed + 1))
    drawn, again, other = (training_pairs(each, 4) for each in configs)
    assert [(pair.exemplar.shape, pair.search.shape) for pair in drawn] == [
        ((127, 127, 3), (255, 255, 3))
    ] * 4
    assert all(np.array_equal(one.search, same.search) for one, same in zip(drawn, again))
    assert not any(
        np.array_equal(one.search, different.search) for one, different in zip(drawn, other)
    )
    clips = load_clips(Path(config.data), config.pairs.holdout)
    trained = PairDataset(clips, config.pairs, 255, config.seed)
    assert not any(
        np.array_equal(pair.search, trained[index]["search"].transpose(1, 2, 0))
        for index, pair in enumerate(drawn)
    )
    kept_back = held_out(Path(config.data), config.pairs.holdout)
    used, unused = ({frame.path for clip in some for frame in clip} for some in (clips, kept_back))
    assert unused and not used & unused


# -- Feeds -----------------------------------------------------------------------------------------


def test_the_xcorr_networks_feeds_are_bound_by_name_to_what_the_other_two_put_out(
    network, models, pairs
):
    feeds = network_feeds(models, pairs)
    assert [len(feeds[name]) for name in NETWORKS] == [3, 3, 3]
    modules = three_networks(network)
    for index, pair in enumerate(pairs):
        assert np.array_equal(feeds["target"][index]["exemplar"], as_input(pair.exemplar))
        assert np.array_equal(feeds["search"][index]["search"], as_input(pair.search))
        with torch.inference_mode():
            expected = {
                **dict(zip(KERNELS, modules["target"](torch.from_numpy(as_input(pair.exemplar))))),
                **dict(zip(MAPS, modules["search"](torch.from_numpy(as_input(pair.search))))),
            }
        assert feeds["xcorr"][index].keys() == expected.keys()
        for name, value in expected.items():
            assert of_the_range(feeds["xcorr"][index][name], value.numpy()) < 1e-4, name


def test_the_ways_to_feed_the_xcorr_network_change_what_they_say_and_nothing_else(models, pairs):
    own = network_feeds(models, pairs)["xcorr"]
    made = {how: xcorr_feeds(own, how) for how in XCORR_FEEDS}

    def differing(how):
        return {
            name
            for given, changed in zip(own, made[how])
            for name in given
            if not np.array_equal(given[name], changed[name])
        }

    assert not differing("own")
    assert differing("one-target") == differing("stand-in") == set(KERNELS)
    assert differing("misbound") == set(MAPS)
    for feeds in made["one-target"]:
        assert all(np.array_equal(feeds[name], own[0][name]) for name in KERNELS)
    for feeds in made["stand-in"]:
        for name in KERNELS:
            assert np.array_equal(feeds[name], made["stand-in"][0][name])
            assert 0.19 < np.abs(feeds[name]).max() <= 0.2  # +-1/sqrt(25)
    for feeds, given in zip(made["misbound"], own):
        assert np.array_equal(feeds["map_cls2"], given["map_loc4"]) and np.array_equal(
            feeds["map_loc3"], given["map_cls3"]
        )
    again = xcorr_feeds(own, "stand-in")
    assert np.array_equal(again[0]["kernel_cls2"], made["stand-in"][0]["kernel_cls2"])


def test_every_network_gets_a_range_for_every_activation_by_every_method(models, ranges):
    assert set(ranges) == set(NETWORKS)
    for name in NETWORKS:
        assert set(ranges[name]) == set(METHODS)
        for bounds in ranges[name].values():
            assert list(bounds) == quantisable(models[name])
    assert ranges["search"]["minmax"]["search"] == 255.0


def test_a_recipe_with_fixed_scales_gets_the_bounds_of_the_kernels_it_saw_first(models, pairs):
    own = network_feeds(models, pairs)["xcorr"]
    found = calibrate_ways(models, pairs, ["one-target"])["one-target"]["xcorr"]
    for bounds in found.values():
        assert bounds["kernel_loc3[7]"] == float(np.abs(own[0]["kernel_loc3"][7]).max())
        assert sum("[" in tensor for tensor in bounds) == 6 * 32
        to_int8(models["xcorr"], bounds, (), fixed_kernels=True)
    assert found["minmax"]["kernel_loc3"] == float(np.abs(own[0]["kernel_loc3"]).max())


def test_ways_that_are_asked_for_together_get_what_they_get_alone(models, pairs, ranges):
    found = calibrate_ways(models, pairs, ["own", "misbound"])
    assert found["own"] == ranges
    assert found["misbound"] == calibrate_ways(models, pairs, ["misbound"])["misbound"]
    assert found["misbound"]["xcorr"]["minmax"]["map_cls2"] == ranges["xcorr"]["minmax"]["map_loc4"]
    assert found["misbound"]["search"] == ranges["search"]


def test_an_empty_set_is_refused(models):
    with pytest.raises(InputError, match="the calibration set is empty"):
        calibrate_ways(models, [], ["own"])


# -- Files -----------------------------------------------------------------------------------------


def test_ranges_are_read_as_they_were_written_to_six_digits(ranges, tmp_path):
    path = tmp_path / "new" / "ranges.csv"
    write_ranges(path, ranges, "three pairs, of noise: for a test", WEIGHTS)
    found = read_ranges(path, WEIGHTS)
    assert set(found) == set(ranges)
    for name, methods in ranges.items():
        for method, bounds in methods.items():
            assert list(found[name][method]) == list(bounds)
            assert list(found[name][method].values()) == pytest.approx(
                list(bounds.values()), rel=1e-5
            )
    assert "# source: three pairs, of noise: for a test\n" in path.read_text()
    assert path.stat().st_size < 20000
    assert [file.name for file in path.parent.iterdir()] == ["ranges.csv"]


def without(word):
    return lambda text: "".join(
        line for line in text.splitlines(keepends=True) if not line.startswith(word)
    )


def in_its_place(new):
    """Another word for a number of the file."""
    return lambda text: text.replace("\nsearch,search,255,", f"\nsearch,search,{new},")


DAMAGE = {
    "empty": lambda text: "",
    "text": lambda text: "some notes\n",
    "no rows": lambda text: "".join(text.splitlines(keepends=True)[:4]),
    "no method": lambda text: text.replace("entropy", "extropy"),
    "a word": in_its_place("wide"),
    "no number": in_its_place(""),
    "inf": in_its_place("inf"),
    "cut short": lambda text: text.rstrip().rsplit(",", 1)[0],
    "a network missing": without("xcorr"),
    "other encoding": lambda text: text.encode("utf-16"),
}
MADE_FOR_OTHERS = {
    "other weights": lambda text: text.replace(WEIGHTS, "fedcba9876543210"),
    "no weights": without("# weights"),
}


@pytest.mark.parametrize("case", [*DAMAGE, *MADE_FOR_OTHERS])
def test_a_damaged_file_is_refused_in_one_sentence_that_names_it(ranges, tmp_path, case):
    path = tmp_path / "ranges.csv"
    write_ranges(path, ranges, "a test", WEIGHTS)
    before = path.read_text()
    damaged = {**DAMAGE, **MADE_FOR_OTHERS}[case](before)
    assert damaged != before
    path.write_bytes(damaged if isinstance(damaged, bytes) else damaged.encode())
    with pytest.raises(InputError) as refusal:
        read_ranges(path, WEIGHTS)
    said = str(refusal.value)
    assert str(path) in said and "\n" not in said
    assert ("damaged" if case in DAMAGE else "made for other weights") in said


def test_a_missing_file_names_the_command_that_makes_one(tmp_path):
    with pytest.raises(
        InputError, match=r"ranges.csv: no such calibration file; `siambook calibrate` makes one"
    ):
        read_ranges(tmp_path / "ranges.csv", WEIGHTS)


def test_where_ranges_cannot_be_written_one_sentence_says_so(ranges, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot be written"):
        write_ranges(tmp_path / "file" / "ranges.csv", ranges, "a test", WEIGHTS)


def test_the_demo_models_ranges_belong_to_its_weights_and_fit_its_networks():
    assert calibration_path(DEMO_WEIGHTS).parent == DEMO_WEIGHTS.parent
    found = training_ranges(DEMO_WEIGHTS)
    for name, model in export_network(load_network(DEMO_WEIGHTS)).items():
        assert all(list(found[name][method]) == quantisable(model) for method in METHODS)
        to_int8(model, found[name][METHOD], ())
