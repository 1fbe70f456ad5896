"""Sections 3.1 to 3.3 executed: parts add up to what is exported, crops are the crops, a bias is
seen, resets count as they were run."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from lib import environment
from lib.measure import full_size
from lib.report import thesis
from lib.report.tables import Text
from lib.siamrpn.crop import EXEMPLAR_SIZE, SEARCH_SIZE
from lib.siamrpn.network import NetworkConfig, SiamRPN, parameter_count
from lib.vot.dataset import Dataset, load_dataset
from lib.vot.metrics import Evaluation, evaluate
from lib.vot.protocol import PYSOT, TOOLKIT, Trajectory, frames_per_second

from .helpers import COUNT, LOST, SKIP, Page, assert_readable, executed, made_up_speed, texts

QUARTER = NetworkConfig.resnet50(0.25)


@pytest.fixture(scope="module")
def siamrpn(small: Path, tmp_path_factory: pytest.TempPathFactory) -> Page:
    run = tmp_path_factory.mktemp("siamrpn") / "run"
    return executed("03_1_siamrpn", dataset=str(small), run=str(run))


@pytest.fixture(scope="module")
def evaluation(small: Path, small_run: str, shared: Path) -> Page:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(full_size, "engine_speed", lambda *_: made_up_speed())
        vot = str(shared / "vot2018")
        return executed("03_3_evaluation", dataset=str(small), run=small_run, vot2018_results=vot)


# -- Section 3.1 -----------------------------------------------------------------------------------


def test_the_parts_are_the_whole_network(siamrpn: Page) -> None:
    for config in (QUARTER, NetworkConfig.resnet50()):
        counted = sum(part.parameters for part in siamrpn.blocks(config))
        assert counted == parameter_count(SiamRPN(config))


def test_operations_and_shapes_are_those_of_the_exported_networks(siamrpn: Page) -> None:
    pytest.importorskip("onnx", reason="onnx is missing: install the `engines` extra")
    from lib.engines.export import describe, export_network

    models = export_network(SiamRPN(QUARTER).eval())
    known = {name: describe(model) for name, model in models.items()}
    parts = {part.name: part for part in siamrpn.blocks(QUARTER)}
    assert sum(part.gflop[0] for part in parts.values()) == pytest.approx(known["target"]["gflop"])
    in_a_frame = known["search"]["gflop"] + known["xcorr"]["gflop"]
    assert sum(part.gflop[1] for part in parts.values()) == pytest.approx(in_a_frame)
    assert parts["map convolutions"].shapes[1] == known["search"]["outputs"]["map_cls2"]
    channels, _, *side = known["target"]["outputs"]["kernel_cls2"]
    assert parts["kernel convolutions"].shapes[0] == (1, channels, *side)


def test_the_full_network_is_the_one_that_the_thesis_describes(siamrpn: Page) -> None:
    rows = {row[0]: row[1:] for row in siamrpn.table("Counted").rows}
    assert rows["parameters in the backbone, M"] == ["45.528", "45.5"]
    assert [str(value) for value in rows["side of an exemplar's feature"]] == ["15", "15"]
    assert [str(value) for value in rows["side after the crop"]] == ["7", "7"]
    whole = siamrpn.network_table(siamrpn.parts.values(), "x").rows
    assert whole[-1][0] == "all"
    assert whole[4][:3] == [("Conv5", "stage 4, layer4", "level 4"), "2048×15×15", "2048×31×31"]
    labels = [(), ("stage 1, layer1", ""), ("stage 2, layer2", "level 2")]
    assert [row[0][1:] for row in whole[:3]] == labels


def test_a_crop_shows_the_target_in_its_middle_at_the_scale_that_the_table_says(
    siamrpn: Page, dataset: Dataset
) -> None:
    for sequence in dataset:
        found = siamrpn.make_crops(sequence)
        exemplar, search = found.crops
        assert exemplar.shape == (EXEMPLAR_SIZE, EXEMPLAR_SIZE, 3)
        assert search.shape == (SEARCH_SIZE, SEARCH_SIZE, 3)
        width, height = found.box[2:] - found.box[:2]
        assert found.side**2 == pytest.approx((width + found.context) * (height + found.context))
        small, large = found.windows
        larger = (large[2] - large[0]) / (small[2] - small[0])
        assert larger == pytest.approx(SEARCH_SIZE / EXEMPLAR_SIZE)
        assert (small[:2] + small[2:]) == pytest.approx(found.box[:2] + found.box[2:])
        # The exemplar's window, at nearly the exemplar's scale
        middle = search[64:191, 64:191].astype(float)
        assert np.corrcoef(middle.ravel(), exemplar.astype(float).ravel())[0, 1] > 0.9


def test_what_lies_outside_of_the_frame_is_counted(siamrpn: Page, dataset: Dataset) -> None:
    sequence = dataset.sequences[0]
    width, height = sequence.width, sequence.height
    assert siamrpn.outside(np.array([0, 0, width, height]), sequence) == 0
    assert siamrpn.outside(np.array([-width, 0, width, height]), sequence) == pytest.approx(0.5)
    assert siamrpn.outside(np.array([2 * width, 0, 3 * width, height]), sequence) == 1
    inside, beyond = siamrpn.shown_sequences
    assert siamrpn.beyond(inside) < siamrpn.beyond(beyond)


def test_a_dataset_without_frames_has_a_sentence_in_place_of_crops(
    siamrpn: Page, dataset: Dataset
) -> None:
    first = dataset.sequences[0]
    bare = replace(first, frames=tuple(Path("nowhere") / frame.name for frame in first.frames))
    for view in (siamrpn.crop_table, siamrpn.crop_figure):
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


def test_a_network_that_only_knows_the_centre_shows_it(siamrpn: Page, dataset: Dataset) -> None:
    peak = np.zeros((25, 25))
    peak[12, 12] = 0.9
    maps = siamrpn.position_maps(lambda *_: (answers(peak), torch.zeros(1)), dataset, pairs=4)
    found = siamrpn.distribution(maps)
    assert found.sum() == pytest.approx(1) and found[12, 12] > 0.9


def test_a_network_that_answers_everywhere_alike_has_no_bias(
    siamrpn: Page, dataset: Dataset
) -> None:
    flat = answers(np.full((25, 25), 0.3))
    maps = siamrpn.position_maps(lambda *_: (flat, torch.zeros(1)), dataset, pairs=2)
    assert maps.shape == (2, 25, 25)
    found = siamrpn.distribution(maps)
    assert found == pytest.approx(1 / 625)
    assert found[siamrpn.CENTRE, siamrpn.CENTRE].sum() == pytest.approx(25 / 625)


def test_the_target_is_where_the_search_crop_was_moved_away_from(
    dataset: Dataset, siamrpn: Page
) -> None:
    """Told by template matching in the crops that a network is given."""
    seen: list[np.ndarray] = []

    def network(exemplar: torch.Tensor, search: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        template = exemplar[0, :, 44:83, 44:83]
        windows = search[0].unfold(1, 39, 8).unfold(2, 39, 8)  # (3, n, n, 39, 39), every 8 pixels
        distance = ((windows - template[:, None, None]) ** 2).mean((0, 3, 4)).numpy()
        nearest = np.unravel_index(distance.argmin(), distance.shape)
        seen.append(np.array(nearest) * 8.0 + 19 - 127)
        return answers(np.full((25, 25), 0.5)), torch.zeros(1)

    siamrpn.position_maps(network, dataset, pairs=12, reach=48)
    places = np.array(seen)
    assert (np.abs(places) <= 48 + 16).mean() > 0.8, "targets lie within the square"
    assert np.ptp(places, axis=0).min() > 40, "and not all in one place"


def test_a_shares_error_is_the_binomial_one(siamrpn: Page) -> None:
    error = siamrpn.standard_error(20, siamrpn.CROPS)
    drawn = np.random.RandomState(0).binomial(siamrpn.CROPS, 0.2, 20000) / siamrpn.CROPS
    assert error == pytest.approx(100 * drawn.std(), rel=0.05)


def test_padding_leaks_the_place_and_nothing_else_does(siamrpn: Page) -> None:
    for leak in siamrpn.leaks.values():
        middle = leak.shape[0] // 2
        assert leak[middle, middle] == 0 and leak[0].max() > leak[middle].min()


def test_an_even_share_is_that_of_targets_drawn_evenly(siamrpn: Page) -> None:
    places = np.random.RandomState(0).uniform(-64, 64, (200_000, 2))
    nearest = np.abs(np.round(places / 8)).max(1) <= 2
    assert siamrpn.even == pytest.approx(nearest.mean(), abs=0.003)


def test_the_recorded_shares_are_those_of_three_trainings(siamrpn: Page) -> None:
    assert list(siamrpn.shares.index) == [0, 16, 32]
    assert siamrpn.shares.between(100 * 25 / 625, 100).all(), "somewhere near the centre"


# -- Sections 3.2 and 3.3 --------------------------------------------------------------------------


def test_the_machines_of_the_thesis_are_what_its_text_says(thesis_text: str) -> None:
    text = thesis_text.replace("\n", " ")
    hardware = thesis.table("hardware").set_index(["machine", "part"])["value"]
    xavier = hardware["NVIDIA Jetson AGX Xavier"]
    for fact in (
        xavier["processor"],
        "512core NVIDIA Volta GPU",
        "16GB of LPDDR4x memory",
        "JetPack 4.6.2 and CUDA 10.2",
        "version 8.2.1.8",
        "PyTorch framework of version 1.9.0",
        "of the 32.6.1 release",
        "two NVIDIA A100 cards (40GB memory each)",
        "highest performance mode (MAXN)",
    ):
        assert fact in text
    parts = ["TensorRT", "CUDA", "PyTorch", "power mode"]
    assert xavier[parts].tolist() == ["8.2.1.8", "10.2", "1.9.0", "MAXN"]


def test_this_machine_stands_beside_the_thesiss_two() -> None:
    page, record = executed("03_2_hardware"), environment.record()
    [shown] = page.tables()
    rows = {row[0]: row[1:] for row in shown.rows}
    assert record["hardware"]["processor"] in rows["processor"][0]
    assert rows["power sensor"][1:] == ["Tegrastats", "–"]
    assert "TensorRT" in rows and "TensorRT-RTX" in rows and "another product" in shown.caption
    assert rows["PyTorch"][:2] == [record["versions"]["torch"], "1.9.0"] and len(shown.heads) == 4


def test_segments_are_what_resets_leave(
    evaluation: Page, still: Dataset, beside: dict[str, Trajectory]
) -> None:
    first, second = evaluation.list_segments(still["b"], beside["b"])
    assert (first.start, len(first.overlaps), first.failed) == (0, LOST + 1, True)
    assert (second.start, second.failed) == (LOST + SKIP, False)
    assert first.overlaps[-1] == 0 and second.overlaps[-1] > 0.5


@pytest.mark.parametrize("late", [False, True])
def test_the_mean_of_the_segments_averages_is_the_curves_value(
    evaluation: Page, still: Dataset, beside: dict[str, Trajectory], late: bool
) -> None:
    """Of all segments, also where some are not drawn. late: with a failure that leaves no frame to
    start again."""
    if late:
        entries = [*beside["c"].entries[:-3], np.array([2.0]), np.array([0.0]), np.array([0.0])]
        beside = {**beside, "c": replace(beside["c"], entries=tuple(entries))}
    evaluated = evaluate(still, {name: [trajectory] for name, trajectory in beside.items()})
    evaluated = replace(evaluated, eao_interval=(COUNT - 4, COUNT - 4))  # c is shorter
    frames = evaluated.eao_interval[0] - evaluated.protocol.first_length
    parts = [
        part
        for sequence in still
        for part in evaluation.list_segments(sequence, beside[sequence.name])
    ]
    averages = np.array([evaluation.segment_average(part, frames) for part in parts])
    known = averages[np.isfinite(averages)]
    expected = evaluated.eao_curve()[frames]
    assert np.mean(known) == pytest.approx(expected)
    assert 0 < len(known) < len(parts), "one is left out"
    for rows in (len(parts), 2):
        figure = evaluation.segments(still, beside, evaluated, "Note", rows=rows)
        assert f"mean of {len(known)}: {expected:.2f}" in texts(figure)
        assert figure.axes[0].images[0].get_array().shape[0] == rows
    assert f"2 of {len(parts)} segments" in texts(figure).replace("\n", " ")


def test_the_figures_of_section_3_3_can_be_read(
    evaluation: Page, still: Dataset, beside: dict[str, Trajectory], evaluated: Evaluation
) -> None:
    lengths = [len(sequence) for sequence in still]
    curve = evaluation.eao("measured now", evaluated, lengths, "the note")
    drawn = curve.axes[0].lines[0].get_ydata()
    np.testing.assert_array_equal(np.asarray(drawn), evaluated.eao_curve())
    assert [axis.get_xlabel() for axis in curve.axes] == ["$N_S$, frames", "frames"]
    for figure in (
        curve,
        evaluation.overlap(still, beside, "the note"),
        evaluation.resets(still, beside, 10, "the note"),
        evaluation.segments(still, beside, evaluated, "the note"),
        *evaluation.figures().values(),
    ):
        assert_readable(figure, "note" if "the note" in texts(figure) else "Run ")
    assert evaluation.most_failures(still, beside).name == "b"


def test_both_rules_count_the_same_raw_results(evaluation: Page) -> None:
    rows = evaluation.table("EAO over").rows
    one, other = (evaluation.now.evaluated_by(rules) for rules in (PYSOT, TOOLKIT))
    assert [row[4][0] for row in rows] == [f"{one.failures:.0f}", f"{other.failures:.0f}"]
    assert rows[0][3][0] == f"{one.eao:.3f}"


def test_vot2018_is_counted_as_the_thesis_counts_it(
    evaluation: Page, shared: Path, dataset: Dataset
) -> None:
    vot = load_dataset(shared / "vot2018" / "VOT2018.json")
    counts = evaluation.table("Dataset")
    small, counted = counts.rows
    assert [counted[0][1], counted[1]] == ["60 sequences", "21,356"]
    assert small[0][1] == f"{len(dataset)} sequences" and small[1] == str(sum(map(len, dataset)))
    flags = sum(int(sequence.tags["occlusion"].sum()) for sequence in vot)
    column = counts.heads.index("Occlusion")
    assert counted[column][0] == f"{100 * flags / 21356:.0f} %"


def trajectory(kinds: str) -> Trajectory:
    """i: initialised in 10 ms, t: tracked in 20 ms, f: failure, s: skipped."""
    entries = {
        "i": np.array([1.0]),
        "f": np.array([2.0]),
        "s": np.array([0.0]),
        "t": np.array([0.0, 0, 5, 5]),
    }
    seconds = {"i": 0.01, "f": 0.02, "s": 0.0, "t": 0.02}
    return Trajectory(
        tuple(entries[kind] for kind in kinds), np.array([seconds[kind] for kind in kinds])
    )


def test_times_are_told_apart_and_give_the_speeds_of_the_protocol(evaluation: Page) -> None:
    runs = {"a": trajectory("ittttfssssitt"), "b": trajectory("ittt")}
    found = evaluation.times(runs)
    counts = (len(found.tracked), len(found.initialised), found.skipped, found.restarts)
    assert (*counts, found.failures) == (10, 3, 4, 1, 1)
    assert found.fps_scheme == pytest.approx(frames_per_second(runs.values()))
    tracked = frames_per_second(runs.values(), tracked_only=True)
    assert found.fps_tracked == pytest.approx(tracked) == pytest.approx(50)


def test_the_distortion_by_resets_is_what_long_tracking_with_failures_shows(
    evaluation: Page,
) -> None:
    """Against a run that is put together: 200 failures in a long video, so that its first start
    weighs nothing."""
    kinds = "i" + "t" * 20 + ("f" + "ssssi" + "t" * 100) * 200
    found = evaluation.times({"long": trajectory(kinds)})
    expected = evaluation.distortion(found.failures / found.frames, PYSOT.skip, 0.01, 0.02)
    assert found.fps_scheme / found.fps_tracked - 1 == pytest.approx(expected, rel=0.01)
    assert evaluation.distortion(0, PYSOT.skip, 0.01, 0.02) == 0
    thesis_rows = evaluation.table("If a start ...").rows
    most = 100 * evaluation.distortion(evaluation.most / 100, PYSOT.skip, 1.0, 1.0)
    assert thesis_rows[0][2] == f"{most:.1f}"
    free, slow = (evaluation.distortion(0.01, PYSOT.skip, init, 0.02) for init in (0.0, 0.02))
    assert free > slow > 0


def test_a_run_that_was_tracked_is_shown_with_the_times_of_the_full_size_network(
    evaluation: Page, dataset: Dataset
) -> None:
    one, row = evaluation.now, made_up_speed().row_of("pytorch", "fp32")
    found = evaluation.times(one.trajectories)
    assert set(found.tracked) == {row["frame_ms"] / 1000}
    assert one.fps_tracked == pytest.approx(row["fps"])
    assert found.initialised == pytest.approx((row["target_ms"] + row["crop_ms"]) / 1000)
    assert found.fps_scheme == pytest.approx(one.fps)
    assert found.fps_tracked == pytest.approx(one.fps_tracked)
    shown = evaluation.table("FPS, PySOT's scheme")
    [cells] = shown.rows
    scheme, tracked, more = (float(cell) for cell in cells[-3:])
    assert (scheme, tracked) == pytest.approx((one.fps, one.fps_tracked), abs=0.006)
    assert more == pytest.approx(100 * (one.fps / one.fps_tracked - 1), abs=0.06)
    assert evaluation.least < thesis.table("table_4_5")["robustness"].max() <= evaluation.most
    [axis] = [
        figure.axes[0]
        for figure in evaluation.figures().values()
        if figure.axes[0].get_xlabel() == "failures per 100 frames"
    ]
    assert np.size(axis.lines[1].get_xdata()) == len(dataset)
