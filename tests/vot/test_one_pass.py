"""One pass: measures equal PySOT's toolkit's."""

from __future__ import annotations

import numpy as np
import pytest

from lib.errors import InputError
from lib.vot.dataset import load_dataset
from lib.vot.metrics import bootstrap, paired_bootstrap
from lib.vot.one_pass import evaluate_one_pass
from lib.vot.protocol import Trajectory

from .helpers import dataset_of, entries, still_sequence

# success_overlap, success_error at 20 px and overlap_ratio of PySOT's toolkit (STVIR/pysot @ d04028f)
# for the annotations of ../shared/sequences/OTB with `strayed`'s boxes
PYSOT = {
    "Crossing": (0.571031746031746, 1.0, 0.5692293316708287),
    "David": (0.36609038519866544, 0.3099787685774947, 0.358159945422392),
}


def strayed(sequence, seed=0):
    """The annotations, straying further and further."""
    boxes = np.array(sequence.regions)
    away = np.cumsum(np.random.RandomState(seed).normal(size=boxes.shape), 0) * [1, 1, 0.1, 0.1]
    away[0] = 0
    return [Trajectory(tuple(boxes + away), np.full(len(boxes), np.nan))]


@pytest.fixture(scope="module")
def otb(shared):
    return load_dataset(shared / "sequences" / "OTB")


def test_the_measures_are_those_of_pysots_toolkit(otb):
    evaluation = evaluate_one_pass(otb, {one.name: strayed(one) for one in otb})
    scores = evaluation.scores(np.eye(2))
    for column, name in enumerate(("auc", "precision", "overlap")):
        expected = [PYSOT[sequence][column] for sequence in evaluation.sequences]
        np.testing.assert_allclose(scores[name], expected, atol=1e-9)
    whole = evaluation.as_dict()
    assert whole["auc"] == pytest.approx(np.mean([values[0] for values in PYSOT.values()]))
    assert len(whole["success_curve"]) == 21


def test_trackers_are_compared_by_sequence(otb):
    a, b = (
        evaluate_one_pass(otb, {one.name: strayed(one, seed) for one in otb}) for seed in (0, 1)
    )
    difference, low, high = paired_bootstrap(a, b)["overlap"]
    assert difference == pytest.approx(a.overlap.mean() - b.overlap.mean())
    assert low <= difference <= high
    assert paired_bootstrap(a, a)["auc"] == (0, 0, 0)
    assert bootstrap(a)["overlap"] == (min(a.overlap), max(a.overlap))  # of two sequences


def test_what_has_resets_is_no_single_pass():
    dataset, box = dataset_of(still_sequence(count=3)), (50, 40, 30, 20)
    for last in (2, (50, 40, 80, 40, 80, 60, 50, 60)):
        with pytest.raises(InputError, match="'still'"):
            evaluate_one_pass(dataset, {"still": [entries(1, box, last)]})
    # A frame without an answer counts as an overlap of 0
    assert evaluate_one_pass(dataset, {"still": [entries(1, box, 0)]}).overlap == [0.5]
