"""Sections 3.1 to 3.3: parts add up to what is exported, crops are the crops, a bias is seen,
resets count as they were run."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from lib import files, thesis
from lib.chapters import ch03_methodology
from lib.chapters.tables import Table, Text
from lib.errors import InputError
from lib.measure import full_size, quality
from lib.measure.variants import baseline
from lib.siamrpn.checkpoint import load_network
from lib.siamrpn.crop import EXEMPLAR_SIZE, SEARCH_SIZE
from lib.siamrpn.network import NetworkConfig, SiamRPN, parameter_count
from lib.vot.dataset import Dataset, load_dataset
from lib.vot.protocol import PYSOT, Trajectory, frames_per_second
from lib.zoo import DEMO_WEIGHTS

from .helpers import made_up_speed

QUARTER = NetworkConfig.resnet50(0.25)


@pytest.fixture(scope="module")
def dataset(small: Path) -> Dataset:
    return load_dataset(small)


# -- Section 3.1 -----------------------------------------------------------------------------------


def test_the_parts_are_the_whole_network() -> None:
    for config in (QUARTER, NetworkConfig.resnet50()):
        assert sum(part.parameters for part in ch03_methodology.blocks(config)) == parameter_count(
            SiamRPN(config)
        )


def test_operations_and_shapes_are_those_of_the_exported_networks() -> None:
    pytest.importorskip("onnx", reason="onnx is missing: install the `engines` extra")
    from lib.export import describe, export_network

    known = {
        name: describe(model) for name, model in export_network(SiamRPN(QUARTER).eval()).items()
    }
    parts = {part.name: part for part in ch03_methodology.blocks(QUARTER)}
    assert sum(part.gflop[0] for part in parts.values()) == pytest.approx(known["target"]["gflop"])
    assert sum(part.gflop[1] for part in parts.values()) == pytest.approx(
        known["search"]["gflop"] + known["xcorr"]["gflop"]
    )
    assert parts["map convolutions"].shapes[1] == known["search"]["outputs"]["map_cls2"]
    channels, _, *side = known["target"]["outputs"]["kernel_cls2"]
    assert parts["kernel convolutions"].shapes[0] == (1, channels, *side)


def test_the_full_network_is_the_one_that_the_thesis_describes() -> None:
    text = ch03_methodology.network_finding(NetworkConfig.resnet50())
    assert (
        "45.528 M parameters in the backbone (45.5 M)" in text
        and "15×15 (15)" in text
        and "7×7 (7)" in text
    )
    table = ch03_methodology.network_table(NetworkConfig.resnet50(), "x")
    assert table.rows[-1][0] == "all"
    assert table.rows[4][:3] == [
        ("Conv5", "stage 4, layer4", "level 4"),
        "2048×15×15",
        "2048×31×31",
    ]
    assert [row[0][1:] for row in table.rows[:3]] == [
        (),
        ("stage 1, layer1", ""),
        ("stage 2, layer2", "level 2"),
    ]


def test_a_crop_shows_the_target_in_its_middle_at_the_scale_that_the_table_says(
    dataset: Dataset,
) -> None:
    for sequence in dataset:
        found = ch03_methodology.crops(sequence)
        assert found.exemplar.shape == (EXEMPLAR_SIZE, EXEMPLAR_SIZE, 3) and found.search.shape == (
            SEARCH_SIZE,
            SEARCH_SIZE,
            3,
        )
        width, height = found.box[2:] - found.box[:2]
        assert found.side**2 == pytest.approx((width + found.context) * (height + found.context))
        small, large = found.windows
        assert (large[2] - large[0]) / (small[2] - small[0]) == pytest.approx(
            SEARCH_SIZE / EXEMPLAR_SIZE
        )
        assert (small[:2] + small[2:]) == pytest.approx(found.box[:2] + found.box[2:])
        # The exemplar's window, at nearly the exemplar's scale
        middle = found.search[64:191, 64:191].astype(float)
        assert np.corrcoef(middle.ravel(), found.exemplar.astype(float).ravel())[0, 1] > 0.9


def test_what_lies_outside_of_the_frame_is_counted(dataset: Dataset) -> None:
    sequence = dataset.sequences[0]
    width, height = sequence.width, sequence.height
    assert ch03_methodology.outside(np.array([0, 0, width, height]), sequence) == 0
    assert ch03_methodology.outside(
        np.array([-width, 0, width, height]), sequence
    ) == pytest.approx(0.5)
    assert ch03_methodology.outside(np.array([2 * width, 0, 3 * width, height]), sequence) == 1
    inside, beyond = ch03_methodology.inside_and_beyond(dataset)
    shares = [
        ch03_methodology.outside(ch03_methodology.crops(each).windows[1], each)
        for each in (inside, beyond)
    ]
    assert shares[0] < shares[1]
    assert isinstance(ch03_methodology.crop_table([inside, beyond], "x"), Table)


def test_a_dataset_without_frames_has_a_sentence_in_place_of_crops(dataset: Dataset) -> None:
    from dataclasses import replace

    bare = replace(
        dataset.sequences[0],
        frames=tuple(Path("nowhere") / frame.name for frame in dataset.sequences[0].frames),
    )
    assert not bare.has_frames
    for view in (ch03_methodology.crop_table, ch03_methodology.crop_figure):
        found = view([bare], "x")
        assert isinstance(found, Text) and "not on this machine" in found


# -- Figure 3.1 ------------------------------------------------------------------------------------


def answers(scores: np.ndarray) -> torch.Tensor:
    """(1, 10, 25, 25) scores whose target probability is (25, 25) for every anchor."""
    probability = np.clip(scores, 1e-6, 1 - 1e-6)
    target = np.log(probability / (1 - probability))[None].repeat(5, 0)
    return torch.from_numpy(
        np.concatenate([np.zeros_like(target), target])[None].astype(np.float32)
    )


def test_a_network_that_only_knows_the_centre_shows_it(dataset: Dataset) -> None:
    peak = np.zeros((25, 25))
    peak[12, 12] = 0.9
    maps = ch03_methodology.position_maps(
        lambda *_: (answers(peak), torch.zeros(1)), dataset, pairs=4
    )
    found = ch03_methodology.distribution(maps)
    assert (
        found.sum() == pytest.approx(1)
        and found[12, 12] > 0.9
        and ch03_methodology.inner_share(found) > 0.99
    )


def test_a_network_that_answers_everywhere_alike_has_no_bias(dataset: Dataset) -> None:
    maps = ch03_methodology.position_maps(
        lambda *_: (answers(np.full((25, 25), 0.3)), torch.zeros(1)), dataset, pairs=2
    )
    found = ch03_methodology.distribution(maps)
    assert maps.shape == (2, 25, 25)
    assert found == pytest.approx(1 / 625) and ch03_methodology.inner_share(found) == pytest.approx(
        25 / 625
    )


def test_the_target_is_where_the_search_crop_was_moved_away_from(dataset: Dataset) -> None:
    """Told by template matching in the crops that a network is given."""
    seen: list[np.ndarray] = []

    def network(exemplar: torch.Tensor, search: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        template = exemplar[0, :, 44:83, 44:83]
        windows = search[0].unfold(1, 39, 8).unfold(2, 39, 8)  # (3, n, n, 39, 39), every 8 pixels
        distance = ((windows - template[:, None, None]) ** 2).mean((0, 3, 4)).numpy()
        seen.append(
            (np.array(np.unravel_index(distance.argmin(), distance.shape)) * 8 + 19 - 127).astype(
                float
            )
        )
        return answers(np.full((25, 25), 0.5)), torch.zeros(1)

    ch03_methodology.position_maps(network, dataset, pairs=12, reach=48)
    places = np.array(seen)
    assert (np.abs(places) <= 48 + 16).mean() > 0.8, "targets lie within the square"
    assert np.ptp(places, axis=0).min() > 40, "and not all in one place"


def test_without_the_three_weights_the_commands_stand_in_the_figures_place(
    dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    nowhere = {shift: tmp_path / f"{shift}.pth" for shift in ch03_methodology.SHIFTS}
    monkeypatch.setattr(ch03_methodology, "shift_weights", lambda: nowhere)
    monkeypatch.setattr(ch03_methodology, "SHIFT_POSITIONS", tmp_path / "none.csv")
    found = ch03_methodology.figure_3_1(ch03_methodology.shift_positions(dataset), "note")
    assert isinstance(found, Text)
    for shift in ch03_methodology.SHIFTS:
        assert (
            f"siambook train data/recipes/shift.yaml --shift {shift} --out train/shift-{shift}"
            in found
        )


def test_what_was_recorded_stands_in_for_the_weights(
    dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "positions.csv"
    monkeypatch.setattr(ch03_methodology, "SHIFT_POSITIONS", file)
    monkeypatch.setattr(
        ch03_methodology,
        "shift_weights",
        lambda: dict.fromkeys(ch03_methodology.SHIFTS, DEMO_WEIGHTS),
    )
    ch03_methodology.record_positions(dataset, file, pairs=2)
    expected = ch03_methodology.distribution(
        ch03_methodology.position_maps(load_network(DEMO_WEIGHTS), dataset, pairs=2)
    )
    found = ch03_methodology.recorded_positions(file)
    assert list(found) == list(ch03_methodology.SHIFTS)
    assert np.abs(found[16] - expected).max() < 1e-6
    monkeypatch.setattr(
        ch03_methodology,
        "shift_weights",
        lambda: dict.fromkeys(ch03_methodology.SHIFTS, tmp_path / "none.pth"),
    )
    figure = ch03_methodology.figure_3_1(ch03_methodology.shift_positions(dataset), "note")
    assert not isinstance(figure, Text) and len(figure.axes) == 3 + 1, (
        "a panel a shift, and the scale"
    )
    assert "2 search crops" in figure._supxlabel.get_text().replace("\n", " "), "as the file says"
    file.write_text(file.read_text().replace("row,", "line,"))
    with pytest.raises(InputError, match="not readable position probabilities"):
        ch03_methodology.recorded_positions(file)


def test_the_finding_of_figure_3_1_follows_from_the_shares() -> None:
    def with_centre(share: float) -> np.ndarray:
        found = np.full((25, 25), (1 - share) / 600)
        found[10:15, 10:15] = share / 25
        return found

    rising = {
        shift: with_centre(share) for shift, share in ((0, 0.3), (16, 0.2), (32, 0.15), (64, 0.1))
    }
    assert "as in the thesis" in ch03_methodology.shift_finding(
        rising
    ) and "30.0 %" in ch03_methodology.shift_finding(rising)
    mixed = {
        shift: with_centre(share) for shift, share in ((0, 0.3), (16, 0.2), (32, 0.25), (64, 0.1))
    }
    assert "do not follow the thesis's order" in ch03_methodology.shift_finding(mixed)
    assert "only shifts 0 and 64, 32 and 64 differ" in ch03_methodology.shift_finding(mixed), (
        "with 64 crops"
    )
    near = {shift: with_centre(share) for shift, share in ((0, 0.11), (64, 0.1))}
    assert "no two shifts differ" in ch03_methodology.shift_finding(near)


def test_a_share_comes_with_the_interval_that_its_crops_allow() -> None:
    """Each crop answers with one place: the share is a count, and its interval the binomial one."""
    centred = np.random.RandomState(0).rand(400) < 0.2
    maps = np.zeros((400, 25, 25))
    maps[centred, 12, 12] = maps[~centred, 0, 0] = 0.7
    share = ch03_methodology.inner_share(maps)
    interval = ch03_methodology.share_interval(maps)
    assert share == pytest.approx(centred.mean()) and interval is not None
    half = 1.96 * (share * (1 - share) / 400) ** 0.5
    assert np.array(interval) == pytest.approx([share - half, share + half], abs=0.01)
    assert f"({100 * interval[0]:.1f}–{100 * interval[1]:.1f} %)" in ch03_methodology.shift_finding(
        {64: maps}
    )
    assert ch03_methodology.share_interval(ch03_methodology.distribution(maps)) is None


def test_an_even_share_is_that_of_targets_drawn_evenly() -> None:
    places = np.random.RandomState(0).uniform(-64, 64, (200_000, 2))
    nearest = np.abs(np.round(places / 8)).max(1) <= ch03_methodology.CENTRE
    assert ch03_methodology.even_share(64) == pytest.approx(nearest.mean(), abs=0.003)
    assert ch03_methodology.even_share(10) == 1
    assert f"{100 * ch03_methodology.even_share():.1f} %" in ch03_methodology.about_positions()


def test_how_long_the_three_went_on_is_read_from_the_recipe() -> None:
    import yaml

    recipe = yaml.safe_load((files.ROOT / ch03_methodology.SHIFT_RECIPE).read_text())
    assert (
        f"{sum(phase['pairs'] for phase in recipe['phases']):,} pairs"
        in ch03_methodology.training_finding()
    )


def test_a_single_map_fills_its_figure() -> None:
    figure = ch03_methodology.positions({64: np.full((25, 25), 1 / 625)}, 64, "note")
    figure.canvas.draw()
    box = figure.axes[0].get_window_extent()
    assert box.width > 0.5 * figure.bbox.width and box.x0 < 0.25 * figure.bbox.width


def test_what_was_recorded_of_the_three_trainings_is_three_distributions() -> None:
    found = ch03_methodology.recorded_positions(ch03_methodology.SHIFT_POSITIONS)
    assert list(found) == list(ch03_methodology.SHIFTS)
    assert all(ch03_methodology.inner_share(one) > 25 / 625 for one in found.values()), (
        "somewhere near the centre"
    )


def test_the_commands_of_figure_3_1_set_the_shift_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from dataclasses import asdict

    from lib import cli
    from lib.training import loop

    given: list[loop.TrainConfig] = []

    def train(config: loop.TrainConfig, out: str, *_: object, **__: object) -> str:
        given.append(config)
        return out

    monkeypatch.setattr(loop, "train", train)
    for shift in ch03_methodology.SHIFTS:
        line = [
            "train",
            str(files.ROOT / ch03_methodology.SHIFT_RECIPE),
            "--shift",
            str(shift),
            "--out",
            str(tmp_path),
        ]
        assert cli.main(line) == 0
    assert [config.pairs.shift for config in given] == list(ch03_methodology.SHIFTS)
    plain = loop.load_config(files.ROOT / ch03_methodology.SHIFT_RECIPE)
    for config in given:
        one, other = asdict(config), asdict(plain)
        one["pairs"].pop("shift"), other["pairs"].pop("shift")
        assert one == other


# -- Sections 3.2 and 3.3 --------------------------------------------------------------------------


def test_the_machines_of_the_thesis_are_what_its_text_says(shared: Path) -> None:
    text = (shared / "thesis" / "thesis.txt").read_text(encoding="utf-8").replace("\n", " ")
    hardware = thesis.table("hardware").set_index(["machine", "part"])["value"]
    xavier = hardware["NVIDIA Jetson AGX Xavier"]
    assert (
        xavier["processor"] in text
        and "512core NVIDIA Volta GPU" in text
        and "16GB of LPDDR4x memory" in text
    )
    for fact in (
        "JetPack 4.6.2 and CUDA 10.2",
        "version 8.2.1.8",
        "PyTorch framework of version 1.9.0",
        "of the 32.6.1 release",
        "two NVIDIA A100 cards (40GB memory each)",
        "highest performance mode (MAXN)",
    ):
        assert fact in text
    for part, value in (
        ("TensorRT", "8.2.1.8"),
        ("CUDA", "10.2"),
        ("PyTorch", "1.9.0"),
        ("power mode", "MAXN"),
    ):
        assert xavier[part] == value


def test_this_machine_stands_beside_the_thesiss_two() -> None:
    from lib import environment

    record = environment.record()
    table = ch03_methodology.hardware_table(record, "none here", "x")
    rows = {row[0]: row[1:] for row in table.rows}
    assert record["hardware"]["processor"] in rows["processor"][0] and rows["power sensor"] == [
        "none here",
        "Tegrastats",
        "–",
    ]
    assert "TensorRT" in rows and "TensorRT-RTX" in rows and "another product" in table.caption
    assert rows["PyTorch"][:2] == [record["versions"]["torch"], "1.9.0"] and len(table.heads) == 4


def test_vot2018_is_counted_as_the_thesis_counts_it(shared: Path, dataset: Dataset) -> None:
    vot = load_dataset(shared / "vot2018" / "VOT2018.json")
    table = ch03_methodology.dataset_table({"small": dataset, "VOT2018": vot}, "x")
    said, small, counted = table.rows
    assert [said[0][1], said[1]] == [counted[0][1], counted[1]] == [
        "60 sequences",
        "21,356",
    ] and said[2] == "–"
    assert small[0][1] == f"{len(dataset)} sequences" and small[1] == str(sum(map(len, dataset)))
    flags = sum(int(sequence.tags["occlusion"].sum()) for sequence in vot)
    column = table.heads.index("Occlusion")
    assert counted[column][0] == f"{100 * flags / 21356:.0f} %"


def trajectory(kinds: str, track: float = 0.02, init: float = 0.01) -> Trajectory:
    """i: initialised, t: tracked, f: failure, s: skipped."""
    entries = {
        "i": np.array([1.0]),
        "f": np.array([2.0]),
        "s": np.array([0.0]),
        "t": np.array([0.0, 0, 5, 5]),
    }
    seconds = {"i": init, "f": track, "s": 0.0, "t": track}
    return Trajectory(
        tuple(entries[kind] for kind in kinds), np.array([seconds[kind] for kind in kinds])
    )


def test_times_are_told_apart_and_give_the_speeds_of_the_protocol() -> None:
    runs = {"a": trajectory("ittttfssssitt"), "b": trajectory("ittt")}
    found = ch03_methodology.times(runs)
    assert (
        len(found.tracked),
        len(found.initialised),
        found.skipped,
        found.restarts,
        found.failures,
    ) == (10, 3, 4, 1, 1)
    assert found.fps_scheme == pytest.approx(frames_per_second(runs.values()))
    assert (
        found.fps_tracked
        == pytest.approx(frames_per_second(runs.values(), tracked_only=True))
        == pytest.approx(50)
    )


def test_the_distortion_by_resets_is_what_long_tracking_with_failures_shows() -> None:
    """Against a run that is put together: 200 failures in a long video, so that its first start
    weighs nothing."""
    times = ch03_methodology.times(
        {"long": trajectory("i" + "t" * 20 + ("f" + "ssssi" + "t" * 100) * 200, 0.02, 0.01)}
    )
    frames = len(times.tracked) + times.skipped + times.restarts
    expected = ch03_methodology.distortion(times.failures / frames, PYSOT, init=0.01, track=0.02)
    assert times.fps_scheme / times.fps_tracked - 1 == pytest.approx(expected, rel=0.01)
    assert ch03_methodology.distortion(0, PYSOT, 0.01, 0.02) == 0
    assert (
        ch03_methodology.distortion(0.01, PYSOT, 0.0, 0.02)
        > ch03_methodology.distortion(0.01, PYSOT, 0.02, 0.02)
        > 0
    )


def test_a_run_that_was_tracked_is_shown_with_the_times_of_the_full_size_network(
    dataset: Dataset, small_run: str
) -> None:
    measured, speed = (
        quality.measure(baseline("demo"), dataset, small_run, shown=False),
        made_up_speed(),
    )
    [one] = full_size.with_speed(measured, speed)
    found, row = ch03_methodology.times(one.trajectories), speed.row_of("pytorch", "fp32")
    assert set(found.tracked) == {row["frame_ms"] / 1000} and one.fps_tracked == pytest.approx(
        row["fps"]
    )
    assert found.initialised == pytest.approx((row["target_ms"] + row["crop_ms"]) / 1000)
    assert found.fps_scheme == pytest.approx(one.fps) and found.fps_tracked == pytest.approx(
        one.fps_tracked
    )
    [row] = (table := ch03_methodology.latency_table([one], "x")).rows
    (scheme, more), tracked = (
        row[table.heads.index(head)] for head in ("FPS, PySOT's scheme", "FPS, tracked frames")
    )
    assert [float(scheme), float(tracked)] == pytest.approx([one.fps, one.fps_tracked], abs=0.006)
    assert more == f"({100 * (one.fps / one.fps_tracked - 1):+.1f} %)"
    text = ch03_methodology.reset_finding(one, PYSOT)
    low, high = ch03_methodology.thesis_robustness()
    assert (
        f"{low:g} to {high:g} times in 100 frames" in text
        and low < thesis.table("table_4_5")["robustness"].max() <= high
    )
    axis = ch03_methodology.reset_figure(one, PYSOT, one.note).axes[0]
    assert axis.get_xlabel() == "failures per 100 frames" and np.size(
        axis.lines[1].get_xdata()
    ) == len(dataset)
