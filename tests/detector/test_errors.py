"""Messages: lists of many items are cut."""

from detector.errors import shorten


def test_long_lists_of_items_are_cut():
    items = [f"n{index}" for index in range(8)]
    assert shorten(items) == "n0, n1, n2, n3, n4 and 3 more" and shorten(items[:2]) == "n0, n1" and shorten([]) == ""
    assert shorten(items, 1, "; ") == "n0 and 7 more" and shorten(items[:2], 2, "; ") == "n0; n1"
