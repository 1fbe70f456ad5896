"""The reset-based protocol and the one-pass run, with a tracker whose answers are known."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from lib.vot.dataset import axis_aligned_box, load_dataset
from lib.vot.protocol import (
    PROTOCOLS,
    Protocol,
    Trajectory,
    frames_per_second,
    run_one_pass,
    run_reset_based,
)

from .helpers import ScriptedTracker, write_vot

HERE, AWAY = (50.0, 40.0, 30.0, 20.0), (110.0, 80.0, 20.0, 20.0)


def frame_number(frame):
    return round(float(frame.mean()) / 20)


@pytest.fixture
def sequence(tmp_path):
    return load_dataset(write_vot(tmp_path / "seq")).sequences[0]


def test_a_lost_target_is_re_initialised_five_frames_later(sequence):
    tracker = ScriptedTracker(lambda frame: AWAY if frame_number(frame) == 3 else HERE)
    trajectory = run_reset_based(tracker, sequence)
    assert trajectory.codes.tolist() == [1, -1, -1, 2, 0, 0, 0, 0, 1, -1, -1, -1]
    assert [name for name, _ in tracker.calls] == ["init", *["track"] * 3, "init", *["track"] * 3]
    np.testing.assert_array_equal(tracker.calls[4][1], HERE)
    assert (trajectory.seconds[[4, 5, 6, 7]] == 0).all()
    assert (np.delete(trajectory.seconds, [4, 5, 6, 7]) > 0).all()


def test_the_protocol_is_data(sequence):
    tracker = ScriptedTracker(
        lambda frame: (62.0, 40.0, 30.0, 20.0) if frame_number(frame) == 3 else HERE
    )
    strict = Protocol("strict", failure_overlap=0.5, skip=2)
    assert run_reset_based(tracker, sequence).codes.tolist() == [1, *[-1] * 11]
    codes = run_reset_based(tracker, sequence, strict).codes.tolist()
    assert codes == [1, -1, -1, 2, 0, 1, *[-1] * 6]
    for name, protocol in PROTOCOLS.items():
        assert name == protocol.name and protocol.eao_low < protocol.eao_high


def test_a_box_that_is_not_finite_is_a_failure(sequence):
    tracker = ScriptedTracker(lambda frame: (np.nan,) * 4 if frame_number(frame) == 11 else HERE)
    assert run_reset_based(tracker, sequence).codes.tolist() == [1, *[-1] * 10, 2]


def test_every_frame_is_shown_with_the_box_of_the_tracker(sequence):
    seen = []
    tracker = ScriptedTracker(lambda frame: AWAY if frame_number(frame) == 3 else HERE)

    def show(index, frame, entry, box):
        seen.append((index, entry.tolist(), box))

    run_reset_based(tracker, sequence, on_frame=show)
    assert [index for index, _, _ in seen] == list(range(12))
    assert seen[3][1] == [2]
    assert seen[3][2].tolist() == list(AWAY)
    assert seen[4][1:] == ([0], None)


def test_one_pass_never_starts_again(sequence):
    tracker = ScriptedTracker(lambda frame: AWAY)
    trajectory = run_one_pass(tracker, sequence)
    assert [name for name, _ in tracker.calls] == ["init", *["track"] * 11]
    assert [tuple(entry) for entry in trajectory.entries] == [HERE, *[AWAY] * 11]


def test_skipped_frames_look_like_speed_in_pysots_scheme():
    code, box = np.array([0.0]), np.array(HERE)
    lost = Trajectory(
        (code + 1, box, code + 2, code, code, code, code, code + 1),
        np.array([0.5, 0.1, 0.1, 0, 0, 0, 0, 0.3]),
    )
    assert frames_per_second([lost]) == pytest.approx(7 / 1.0)
    assert frames_per_second([lost, lost], tracked_only=True) == pytest.approx(4 / 0.4)
    unknown = Trajectory(lost.entries, np.full(8, np.nan))
    assert np.isnan(frames_per_second([unknown]))


def test_the_initial_box_of_a_polygon_keeps_centre_and_area(shared):
    """Against the loop of PySOT's get_axis_aligned_bbox, written out."""
    for sequence in load_dataset(shared / "vot2018" / "VOT2018.json").sequences[:20]:
        region = sequence.regions[0]
        if region.size == 4:
            np.testing.assert_array_equal(axis_aligned_box(region), region)
            continue
        xs, ys = region[0::2], region[1::2]
        sides = np.hypot(xs[0] - xs[1], ys[0] - ys[1]) * np.hypot(xs[1] - xs[2], ys[1] - ys[2])
        scale = np.sqrt(sides / ((xs.max() - xs.min()) * (ys.max() - ys.min())))
        w, h = scale * (xs.max() - xs.min()) + 1, scale * (ys.max() - ys.min()) + 1
        np.testing.assert_allclose(
            axis_aligned_box(region), [xs.mean() - (w - 1) / 2, ys.mean() - (h - 1) / 2, w, h]
        )


def test_a_run_on_a_real_sequence_survives_on_its_own_annotation(shared):
    sequence = load_dataset(shared / "sequences" / "VOT2018" / "ball1").sequences[0]
    answers = iter([axis_aligned_box(region) for region in sequence.regions[1:]])
    tracker = SimpleNamespace(
        init=lambda frame, box: None,
        track=lambda frame: SimpleNamespace(box=next(answers), score=1.0),
    )
    assert (run_reset_based(tracker, sequence).codes[1:] == -1).all()
