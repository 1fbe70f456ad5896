"""Overlap of regions: equal to PySOT's compiled code, and to areas that can be computed
otherwise."""

from __future__ import annotations

import numpy as np
import pytest

from lib.vot.overlap import area_overlap, pixel_overlap, region_corners


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
    p, q = region_corners([(0, 0, 20, 20)]), region_corners([(20, 0, 20, 20)])
    assert pixel_overlap(p, q)[0] == 0


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
    place, size = rng.uniform(5, 30, (30, 2)), rng.uniform(10, 40, (30, 2))
    box = region_corners(np.concatenate([place, size], 1))
    fine = pixel_overlap(100 * polygon, 100 * box)
    np.testing.assert_allclose(area_overlap(box, polygon), fine, atol=3e-3)
    np.testing.assert_allclose(area_overlap(box, polygon[:, ::-1]), fine, atol=3e-3)


def test_exact_areas_agree_with_the_formula_for_boxes():
    rng = np.random.RandomState(0)
    a, b = rng.uniform(0, 30, (2, 200, 4))
    size = np.minimum(a[:, :2] + a[:, 2:], b[:, :2] + b[:, 2:]) - np.maximum(a[:, :2], b[:, :2])
    both = np.maximum(size, 0).prod(1)
    expected = both / (a[:, 2:].prod(1) + b[:, 2:].prod(1) - both)
    found = area_overlap(region_corners(a), region_corners(b))
    np.testing.assert_allclose(found, expected, atol=1e-12)
