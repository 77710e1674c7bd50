"""Messages: lists of many items are cut."""

from detector.errors import count_of, shorten


def test_long_lists_of_items_are_cut():
    items = [f"n{index}" for index in range(8)]
    assert shorten(items) == "n0, n1, n2, n3, n4 and 3 more" and shorten(items[:2]) == "n0, n1" and shorten([]) == ""
    assert shorten(items, 1, "; ") == "n0 and 7 more" and shorten(items[:2], 2, "; ") == "n0; n1"


def test_a_number_agrees_with_its_noun_and_its_verb():
    assert [count_of(count, "step") for count in (0, 1, 2)] == ["0 steps", "1 step", "2 steps"]
    assert [count_of(count, "box is", "boxes are") for count in (1, 2)] == ["1 box is", "2 boxes are"]
