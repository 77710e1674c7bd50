"""Statistics of a data set, against values computed by hand."""

import numpy as np
import pytest

from detector.inspection.dataset_stats import (
    MEASURES,
    bin_edges,
    build_histograms,
    compute_measures,
    quantile_table,
    quantiles,
)

SIZES = np.array([[100, 200], [400, 100]])
BOXES = np.array([[0, 0, 10, 40], [5, 5, 25, 25], [0, 0, 2, 2]], np.float32)
COUNTS = np.array([3, 0])


def test_measures_by_hand():
    measures = compute_measures(SIZES, BOXES, COUNTS)
    assert list(measures) == list(MEASURES)
    assert measures["image height"].tolist() == [100, 400] and measures["image width"].tolist() == [200, 100]
    assert measures["image height / width"].tolist() == [0.5, 4]
    assert measures["objects per image"].tolist() == [3, 0]
    assert measures["object size"].tolist() == [20, 20, 2] and measures["object height / width"].tolist() == [4, 1, 1]


def test_without_objects_or_images_the_quantiles_are_nan():
    measures = compute_measures(SIZES, BOXES[:0], np.zeros(2, int))
    assert len(measures["object size"]) == 0 and np.isnan(quantiles(measures["object size"])).all()
    part, = build_histograms("object size", [measures["object size"]])
    assert sum(part.counts) == 0
    none = compute_measures(np.zeros((0, 2)), BOXES[:0], np.zeros(0, int))
    assert all(len(values) == 0 for values in none.values()) and "nan" in quantile_table(("a",), [none])


@pytest.mark.parametrize("kind, values, first, last", [
    ("counts", [0, 3], 0, 4), ("counts", [0, 0], 0, 1), ("octaves", [8, 16], 8, 2 ** 4.5), ("ratios", [1, 1], 1, 2 ** (1 / 3))])
def test_edges_hold_all_values(kind, values, first, last):
    edges = bin_edges(kind, np.array(values, float))
    assert edges[0] == pytest.approx(first) and edges[-1] == pytest.approx(last)
    assert (np.diff(edges) > 0).all() and len(edges) <= 40


def test_histograms_of_two_share_their_bins_and_lose_nothing():
    values = [np.exp(np.linspace(0, 5, 50)), np.array([7.0])]
    a, b = build_histograms("object size", values)
    assert a.edges == b.edges and sum(a.counts) == 50 and sum(b.counts) == 1
    many = build_histograms("objects per image", [np.arange(500)])[0]
    assert sum(many.counts) == 500 and len(many.counts) <= 32


def test_the_table_has_a_line_for_each_part():
    measures = compute_measures(SIZES, BOXES, COUNTS)
    lines = quantile_table(("before", "afterwards"), [measures, measures]).splitlines()
    assert len(lines) == 1 + 2 * len(MEASURES) and len({len(line) for line in lines}) == 1
    assert "50%" in lines[0] and "250" in lines[1]  # the median of 100 and 400
