"""Overlap of regions: equal to PySOT's compiled code, and to areas that can be computed
otherwise."""

from __future__ import annotations

import numpy as np
import pytest

from lib.vot.overlap import area_overlap, pixel_overlap, region_corners, surely_meet


def regions(table):
    return region_corners([row[~np.isnan(row)] for row in table])


def test_all_cases_of_pysot_agree_exactly(shared):
    cases = np.load(str(shared / "pysot_parity" / "overlap_cases.npz"))
    p, q, bounds = regions(cases["p"]), regions(cases["q"]), cases["bounds"]
    free = np.isnan(bounds).any(1)
    overlap = np.empty(len(p))
    overlap[free] = pixel_overlap(p[free], q[free])
    overlap[~free] = pixel_overlap(p[~free], q[~free], bounds[~free])
    assert len(overlap) == 396
    np.testing.assert_array_equal(overlap.astype(np.float32), cases["overlap"])
    np.testing.assert_array_equal(overlap[free], pixel_overlap(q[free], p[free]))


def test_a_box_of_20_by_20_has_21_by_21_pixels():
    p, q = region_corners([(0, 0, 20, 20)]), region_corners([(0, 0, 41, 20)])
    assert pixel_overlap(p, q)[0] == pytest.approx(21 / 42)
    assert area_overlap(p, q)[0] == pytest.approx(20 / 41)


def test_boxes_that_only_touch_do_not_overlap():
    assert (
        pixel_overlap(region_corners([(0, 0, 20, 20)]), region_corners([(20, 0, 20, 20)]))[0] == 0
    )


def test_what_lies_off_the_image_does_not_count():
    p, q = region_corners([(-10, 0, 20, 20)]), region_corners([(0, 0, 10, 20)])
    assert pixel_overlap(p, q, (100, 100))[0] == 1
    assert pixel_overlap(p, q)[0] < 0.6


@pytest.mark.filterwarnings("error")
def test_absurd_numbers_do_no_harm():
    p = region_corners([(-1e30, -1e30, 2e30, 2e30), (1e30, 0, 5, 5), (0, 0, 1e12, 0)])
    overlap = pixel_overlap(p, region_corners([(0, 0, 100, 100)] * 3), (100, 100))
    np.testing.assert_array_equal(overlap, [1, 0, 0])


def test_codes_have_no_overlap():
    p = region_corners([(1,), (0, 0, 10, 10), (2,)])
    q = region_corners([(0, 0, 10, 10)] * 3)
    for overlap in (pixel_overlap, area_overlap):
        np.testing.assert_array_equal(overlap(p, q), [np.nan, 1, np.nan])


@pytest.mark.parametrize("shape", ["rotated", "any quadrilateral"])
def test_exact_areas_agree_with_fine_sampling(shape):
    rng = np.random.RandomState(3)
    angle = rng.uniform(0, 2 * np.pi, (30, 1)) + np.array([0, 1.0, np.pi, np.pi + 1.0])
    # star-shaped, at times not convex
    radius = 20 if shape == "rotated" else rng.uniform(5, 30, (30, 4))
    polygon = np.stack([30 + radius * np.cos(angle), 30 + radius * np.sin(angle)], 2)
    box = region_corners(
        np.concatenate([rng.uniform(5, 30, (30, 2)), rng.uniform(10, 40, (30, 2))], 1)
    )
    fine = pixel_overlap(100 * polygon, 100 * box)
    np.testing.assert_allclose(area_overlap(polygon, box), fine, atol=3e-3)
    np.testing.assert_allclose(area_overlap(box, polygon[:, ::-1]), fine, atol=3e-3)
    if shape == "rotated":
        np.testing.assert_allclose(area_overlap(polygon, polygon), 1, atol=1e-9)


def test_exact_areas_agree_with_the_formula_for_boxes():
    rng = np.random.RandomState(0)
    a, b = rng.uniform(0, 30, (2, 200, 4))
    size = np.minimum(a[:, :2] + a[:, 2:], b[:, :2] + b[:, 2:]) - np.maximum(a[:, :2], b[:, :2])
    both = np.maximum(size, 0).prod(1)
    expected = both / (a[:, 2:].prod(1) + b[:, 2:].prod(1) - both)
    np.testing.assert_allclose(
        area_overlap(region_corners(a), region_corners(b)), expected, atol=1e-12
    )


def test_what_surely_meets_overlaps_by_pixels_and_by_areas_whatever_its_shape():
    rng = np.random.RandomState(5)
    angles, radii = rng.uniform(0, 2 * np.pi, (4000, 4)), rng.uniform(1, 40, (4000, 4))
    angles[::2].sort(1)  # every second star-shaped, the others may cross themselves
    center = rng.uniform(-5, 105, (4000, 1, 2))
    p = center + radii[..., None] * np.stack([np.cos(angles), np.sin(angles)], 2)
    q = region_corners(
        np.concatenate(
            [center[:, 0] + rng.uniform(-20, 5, (4000, 2)), rng.uniform(1, 40, (4000, 2))], 1
        )
    )
    for end, box in ((0, q), (-1, q + [[0, 0], [-1, 0], [-1, -1], [0, -1]])):
        sure = np.array([surely_meet(one, other, (100, 80)) for one, other in zip(p, box)])
        assert sure.sum() > 200
        assert (pixel_overlap(p, box, (100 + end, 80 + end))[sure] > 0).all() and (
            area_overlap(p, box)[sure] > 0
        ).all()


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    "box",
    [(np.nan, 0, 5, 5), (0, 0, 0, 0), (200, 200, 30, 30), (-1e300, 0, 1e301, 5), (np.inf, 0, 5, 5)],
)
def test_nothing_is_sure_of_absurd_and_distant_boxes(box):
    p, q = region_corners([box]), region_corners([(0, 0, 100, 100)])
    assert not surely_meet(p[0], q[0], (100, 100))


def test_a_good_tracker_surely_meets_its_target(shared):
    """On real annotations: a polygon's box of equal area meets it, so that few frames need the
    pixels counted."""
    from lib.vot.dataset import axis_aligned_box, load_dataset

    dataset = load_dataset(shared / "vot2018" / "VOT2018.json")
    pairs = [
        (region, axis_aligned_box(region), (s.width, s.height))
        for s in dataset
        for region in s.regions[::50]
    ]
    sure = [surely_meet(*region_corners([region, box]), size) for region, box, size in pairs]
    assert len(sure) > 400 and np.mean(sure) > 0.9
