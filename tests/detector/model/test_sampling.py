"""Sampling of boxes, beside a plain count."""

import pytest
import torch

from detector.model.sampling import sample_boxes


def masks(*rows: str) -> tuple[torch.Tensor, torch.Tensor]:
    """One row for each image: p is positive, n negative, a dot neither."""
    return tuple(torch.tensor([[letter == kind for letter in row] for row in rows]) for kind in "pn")


def slow_counts(row: str, batch_size: int, positive_fraction: float, replacement: bool) -> tuple[int, int]:
    """How many positives and negatives are drawn of one image."""
    positives, negatives = row.count("p"), row.count("n")
    if replacement and not negatives:
        return (batch_size if positives else 0), 0
    first = min(positives, int(batch_size * positive_fraction))
    return first, (batch_size - first if replacement else min(negatives, batch_size - first))


ROWS = ["ppnnnnnnnnnn", "pppppppppppp", "nnnnnnnnnnnn", "............", "p..........n", "pppppppppp.n", "nn.........."]


@pytest.mark.parametrize("replacement", [False, True])
@pytest.mark.parametrize("batch_size, fraction", [(8, 0.25), (8, 0.5), (4, 0.1), (64, 0.25), (12, 1.0)])
def test_as_many_are_drawn_as_the_loop_counts(batch_size, fraction, replacement):
    positive, negative = masks(*ROWS)
    for seed in range(20):
        torch.manual_seed(seed)
        sample = sample_boxes(positive, negative, batch_size, fraction, replacement)
        assert sample.index.shape == sample.valid.shape == (len(ROWS), batch_size if replacement else min(batch_size, 12))
        for b, row in enumerate(ROWS):
            drawn = [(int(n), bool(is_positive)) for n, is_positive, valid
                     in zip(sample.index[b], sample.positive[b], sample.valid[b]) if valid]
            assert all(row[n] == ("p" if is_positive else "n") for n, is_positive in drawn)
            first = [n for n, is_positive in drawn if is_positive]
            second = [n for n, is_positive in drawn if not is_positive]
            assert (len(first), len(second)) == slow_counts(row, batch_size, fraction, replacement)
            assert not (sample.positive[b] & ~sample.valid[b]).any()
            if not replacement:
                assert len(set(first)) == len(first) and len(set(second)) == len(second)
            elif "n" in row:
                assert len(set(first)) == len(first)


@pytest.mark.parametrize("replacement", [False, True])
def test_every_box_has_the_same_probability(replacement):
    positive, negative = masks("pppp" + "n" * 8 + "..")
    counts = torch.zeros(14)
    torch.manual_seed(0)
    for _ in range(3000):
        counts += torch.bincount(sample_boxes(positive, negative, 6, 0.34, replacement).index[0], minlength=14)
    assert counts[12:].sum() == 0
    assert counts.sum() == 3000 * 6
    assert (counts[:4] / 3000 - 2 / 4).abs().max() < 0.05      # two of four positives; 0.05 is five standard deviations
    assert (counts[4:12] / 3000 - 4 / 8).abs().max() < 0.05    # four of eight negatives


def test_images_of_a_batch_do_not_draw_alike():
    positive, negative = masks(*["n" * 40] * 2)
    torch.manual_seed(0)
    sample = sample_boxes(positive, negative, 10, 0.5)
    assert set(sample.index[0].tolist()) != set(sample.index[1].tolist())


def test_too_few_boxes_are_repeated_and_the_repetitions_are_not_valid():
    positive, negative = masks("n.p.....")
    sample = sample_boxes(positive, negative, 6, 0.5)
    assert sample.valid.tolist() == [[True, True] + [False] * 4]
    assert sample.index[0].tolist() == [2, 0] * 3
