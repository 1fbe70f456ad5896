"""Accuracy, robustness, EAO and their intervals: equal to PySOT's toolkit, near VOT's, and to
formulas where there are some."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest

from lib.errors import InputError
from lib.vot.dataset import load_dataset
from lib.vot.metrics import (
    ATTRIBUTES,
    Evaluation,
    bootstrap,
    eao_interval,
    evaluate,
    frame_overlaps,
    paired_bootstrap,
)
from lib.vot.one_pass import average_overlap
from lib.vot.protocol import PYSOT, TOOLKIT, Protocol
from lib.vot.results import read_results

from .helpers import dataset_of, entries, still_sequence

TRACKERS = ("SiamRPNpp_R50", "SiamRPN", "SiamFC", "KCF")
BOX, HALF = (50, 40, 30, 20), (50, 40, 30, 9.5)

# Official toolkit: votchallenge/toolkit 0.9.0 (analysis/supervised.py run on the same files):
# accuracy, EAO.
OFFICIAL = {
    "SiamRPNpp_R50": (0.602557, 0.406672),
    "SiamRPN": (0.585620, 0.371719),
    "SiamFC": (0.493188, 0.184156),
    "KCF": (0.435210, 0.133173),
}


@pytest.fixture(scope="module")
def vot2018(shared):
    return load_dataset(shared / "vot2018" / "VOT2018.json")


@pytest.fixture(scope="module")
def expected(shared):
    return json.loads((shared / "vot2018" / "expected.json").read_text())


@pytest.fixture(scope="module")
def results(shared, vot2018):
    folder = shared / "vot2018" / "results"
    return {name: read_results(folder / name, vot2018) for name in TRACKERS}


@pytest.fixture(scope="module")
def evaluations(results, vot2018):
    return {name: evaluate(vot2018, results[name]) for name in TRACKERS}


@pytest.mark.parametrize("tracker", TRACKERS)
def test_scores_are_those_of_pysot(evaluations, expected, tracker):
    ours, theirs = evaluations[tracker].as_dict(), expected["trackers"][tracker]
    assert ours["failures"] == theirs["failures"]
    assert ours["frames"] == theirs["frames"] == 21356
    for measure in ("accuracy", "robustness"):
        assert ours[measure] == pytest.approx(theirs[measure], abs=1e-9)
    assert ours["eao"] == pytest.approx(theirs["eao"].pop("all"), abs=1e-7)
    theirs["eao"]["empty"] = theirs["eao"].pop("empty_per_frame")
    assert set(ours["attributes"]) == set(theirs["eao"])
    for tag, eao in theirs["eao"].items():
        assert ours["attributes"][tag]["eao"] == pytest.approx(eao, abs=1e-7)
    np.testing.assert_allclose(ours["eao_curve"][:400], theirs["eao_curve"], atol=1e-7)
    assert ours["eao_interval"] == [100, 356]
    for name, values in theirs["per_sequence"].items():
        assert ours["per_sequence"][name]["failures"] == values["failures"]
        assert ours["per_sequence"][name]["accuracy"] == pytest.approx(values["accuracy"], abs=1e-6)


def test_the_published_row_of_the_model_zoo(evaluations, expected):
    ours = evaluations["SiamRPNpp_R50"]
    for measure in ("accuracy", "robustness", "eao"):
        assert round(getattr(ours, measure), 3) == expected["published"][measure]


@pytest.mark.parametrize("tracker", TRACKERS)
def test_the_toolkits_variant_is_near_the_official_toolkit(results, vot2018, tracker):
    ours = evaluate(vot2018, results[tracker], TOOLKIT)
    assert (ours.accuracy, ours.eao) == pytest.approx(OFFICIAL[tracker], abs=3e-4)


def test_every_frame_has_the_attributes_it_was_given(evaluations, vot2018):
    attributes = evaluations["SiamRPN"].attributes()
    frames = evaluations["SiamRPN"].frames.sum(1)
    failures = [attributes[name]["failures"] for name in ATTRIBUTES]
    assert failures[0] <= sum(failures[1:])
    assert frames[0] <= frames[1:].sum()
    assert frames[-1] == sum(
        (~np.any(list(sequence.tags.values()), axis=0)).sum() for sequence in vot2018
    )


def oracle_eao(runs, low, high, skip=5):
    """PySOT's expected overlap as its toolkit computes it, one length at a time: runs are
    (overlaps, failures)."""
    longest = max(len(overlaps) for overlaps, _ in runs)
    rows, weights = [], []
    for overlaps, failures in runs:
        count = len(overlaps)
        points = [0] + [failure + skip for failure in failures if failure + skip <= count]
        for i, point in enumerate(points):
            last = i == len(points) - 1
            row = np.full(longest, np.nan if last else 0.0)
            values = np.nan_to_num(overlaps[point : None if last else points[i + 1] + 1])
            row[: len(values)] = values
            rows.append(row)
            weights.append(
                len(values) / ((count - point + 1e-16) if last else (points[i + 1] - point + 1))
            )
    rows, weights, curve = np.array(rows), np.array(weights), [1.0]
    for length in range(1, longest):
        known = ~np.isnan(rows[:, length])
        curve.append(
            (rows[known, 1 : length + 1].mean(1) * weights[known]).sum() / weights[known].sum()
        )
    return np.mean(curve[low - 1 : high])


@pytest.mark.parametrize("last", [24, 29, 32, 33, 34, 35, 38, 39])
def test_failures_near_the_end_count_as_in_pysot(last):
    """Of 40 frames; the re-initialisation after a failure at 34 is the last frame, after one at 35
    it is past the end."""
    dataset = dataset_of(still_sequence("a", 40), still_sequence("b", 30))
    lines = [1, *[HALF] * 39]
    for failure in (10, last):
        lines[failure : failure + 6] = [2, 0, 0, 0, 0, 1]
    results = {"a": [entries(*lines[:40])], "b": [entries(1, *[BOX] * 29)]}
    protocol = Protocol(eao_low=5, eao_high=40)
    runs = [
        (frame_overlaps(s, results[s.name][0]), np.flatnonzero(results[s.name][0].codes == 2))
        for s in dataset
    ]
    found = evaluate(dataset, results, protocol)
    assert found.failures == 2
    assert found.eao == pytest.approx(oracle_eao(runs, 5, 40), abs=1e-12)
    late = evaluate(dataset, results, dataclasses.replace(protocol, late_failures=True))
    assert (late.eao != found.eao) == (last > 35)


def test_burn_in_and_failures_of_a_run_that_can_be_counted():
    tag = np.arange(40) >= 30
    sequence = still_sequence(count=40, occlusion=tag)
    lines = [1, *[BOX] * 19, 2, 0, 0, 0, 0, 1, *[HALF] * 14]
    found = evaluate(dataset_of(sequence), {"still": [entries(*lines)]})
    half = frame_overlaps(sequence, entries(*lines))[-1]
    # 10 of 20 rows and the row that pixel counting adds
    assert half == pytest.approx(11 / 21, abs=1e-6)
    assert found.accuracy == pytest.approx((10 * 1 + 5 * half) / 15)
    assert (found.failures, found.robustness) == (1, pytest.approx(100 / 40))
    occluded, empty = found.attributes()["occlusion"], found.attributes()["empty"]
    assert occluded["accuracy"] == pytest.approx(half)
    assert (occluded["failures"], empty["failures"], empty["accuracy"]) == (0, 1, 1)
    assert np.isnan(found.attributes()["size_change"]["eao"])
    written = json.loads(json.dumps(found.as_dict(), allow_nan=False))
    assert written["attributes"]["size_change"]["accuracy"] is None


def test_repetitions_are_averaged():
    sequence = still_sequence(count=40)
    good, bad = entries(1, *[BOX] * 39), entries(1, *[BOX] * 19, 2, 0, 0, 0, 0, 1, *[BOX] * 14)
    dataset = dataset_of(sequence)
    once, twice = (evaluate(dataset, {"still": [good, bad] * n}) for n in (1, 2))
    assert once.failures == twice.failures == 0.5
    assert once.eao == pytest.approx(twice.eao)
    assert (once.repetitions, twice.repetitions) == (2, 4)


def test_results_that_were_not_made_with_resets_are_refused():
    dataset = dataset_of(still_sequence(count=3))
    with pytest.raises(InputError, match="'still'"):
        evaluate(dataset, {})
    for lines in ((BOX, BOX, BOX), (1, BOX), (2, 0, 0)):
        with pytest.raises(InputError, match="'still'"):
            evaluate(dataset, {"still": [entries(*lines)]})


def test_the_interval_of_lengths_is_vots_where_the_sequences_allow_it(vot2018):
    lengths = [len(sequence) for sequence in vot2018]
    assert eao_interval(lengths) == (100, 356)
    low, high = eao_interval(lengths, Protocol(eao_high=9999))
    # what VOT found for these sequences
    assert (low, high) == pytest.approx((PYSOT.eao_low, PYSOT.eao_high), abs=5)


@pytest.mark.parametrize("lengths", [[105, 196], [100] * 12, [80, 90, 100, 100, 110, 130], [30]])
def test_short_sequences_get_an_interval_they_can_fill(lengths):
    low, high = eao_interval(lengths)
    assert min(lengths) - 30 <= low <= high <= max(lengths)
    assert low <= np.median(lengths) + 1


def made_up(accuracy, failures, frames=100):
    """An evaluation whose sequences have equal weights, so that the bootstrap's spread has a
    formula."""
    count, measures = len(accuracy), len(ATTRIBUTES)
    ones = np.ones((measures, count))
    curve = np.repeat(np.asarray(accuracy, float)[None, :, None], 20, 2) * ones[..., None]
    names = tuple(f"s{i}" for i in range(count))
    return Evaluation(
        "made up",
        PYSOT,
        names,
        0,
        1,
        (5, 15),
        accuracy * ones * 50,
        ones * 50,
        failures * ones,
        ones * frames,
        curve,
        np.ones_like(curve),
    )


def test_bootstrap_intervals_have_the_width_of_the_formula():
    rng = np.random.RandomState(1)
    accuracy, failures = rng.uniform(0.3, 0.9, 60), rng.poisson(2.0, 60).astype(float)
    intervals = bootstrap(made_up(accuracy, failures), n=20000)
    for measure, values in (
        ("accuracy", accuracy),
        ("eao", accuracy),
        ("robustness", failures),
        ("failures", 60 * failures),
    ):
        low, high = intervals[measure]
        assert (high - low) / 2 == pytest.approx(1.96 * values.std() / np.sqrt(60), rel=0.04)
        assert (high + low) / 2 == pytest.approx(values.mean(), rel=0.03)


def test_the_bootstrap_is_deterministic(evaluations):
    one = bootstrap(evaluations["SiamFC"])
    assert one == bootstrap(evaluations["SiamFC"])
    assert all(one[m][0] < getattr(evaluations["SiamFC"], m) < one[m][1] for m in one)
    assert np.isnan(bootstrap(made_up(np.array([0.5]), np.array([1.0])))["eao"]).all()


def test_a_sequence_drawn_twice_counts_as_two(evaluations, results, vot2018):
    """Counts as weights give what evaluating the drawn sequences gives."""
    rng = np.random.RandomState(0)
    drawn = [vot2018.sequences[i] for i in rng.randint(0, 60, 60)] + [vot2018["girl"]]
    copies = [dataclasses.replace(each, name=str(i)) for i, each in enumerate(drawn)]
    found = {str(i): results["SiamFC"][each.name] for i, each in enumerate(drawn)}
    direct = evaluate(dataset_of(*copies), found)
    names = [each.name for each in drawn]
    counts = np.array([[names.count(name) for name in evaluations["SiamFC"].sequences]])
    for attribute in ATTRIBUTES:
        weighted = evaluations["SiamFC"].scores(counts, attribute)
        for measure, value in direct.attributes()[attribute].items():
            assert weighted[measure][0] == pytest.approx(value, rel=1e-9)


def test_pairs_cancel_what_sequences_have_in_common(evaluations):
    a, b = evaluations["SiamRPNpp_R50"], evaluations["SiamRPN"]
    assert all(values == (0, 0, 0) for values in paired_bootstrap(a, a).values())
    paired, ours, theirs = paired_bootstrap(a, b), bootstrap(a), bootstrap(b)
    for measure in ("accuracy", "robustness", "failures", "eao"):
        value, low, high = paired[measure]
        assert value == pytest.approx(getattr(a, measure) - getattr(b, measure))
        assert low < value < high
        assert high - low < np.hypot(np.subtract(*ours[measure]), np.subtract(*theirs[measure]))
    noise = np.random.RandomState(0).uniform(0.2, 0.8, 30)
    shifted = paired_bootstrap(made_up(noise + 0.1, noise), made_up(noise, noise))
    assert shifted["eao"] == pytest.approx((0.1, 0.1, 0.1))
    with pytest.raises(InputError, match="cannot be paired"):
        paired_bootstrap(a, made_up(noise, noise))


def test_average_overlap_is_the_mean_after_the_first_frame():
    sequence = still_sequence(count=3)
    assert average_overlap(sequence, entries(BOX, BOX, (50, 40, 30, 10))) == pytest.approx(0.75)
    assert average_overlap(sequence, entries(1, (0, 0, 5, 5), BOX)) == pytest.approx(0.5)
