"""Ids of a COCO file: numbers and texts by one rule."""

import pytest

from detector.data.formats.coco_ids import index_ids, int64_ids, integer_id, text_id


@pytest.mark.parametrize("value, integer", [
    (7, 7), (7.0, 7), ("7", 7), (" 7 ", 7), ("007", 7), ("7.0", 7), ("+7", 7), (-7, -7), ("-7", -7), (0, 0), (2**63, 2**63),
    (True, None), (None, None), ("", None), ("img_a", None), ("1_0", None), (1.5, None), ("1.5", None), ("\u00b2", None),
    (float("nan"), None), (float("inf"), None), ([], None)])
def test_an_id_stands_for_an_integer_however_it_is_written(value, integer):
    assert integer_id(value) == integer


@pytest.mark.parametrize("value, text", [
    (7, "7"), (7.0, "7"), (" img_a ", "img_a"), ("007", "007"), (1.5, "1.5"),
    (2**70, str(2**70)), (10**400, str(10**400)), (True, None), (None, None),
    ("  ", None), ({}, None), (float("inf"), None)])
def test_an_id_is_a_number_or_a_text(value, text):
    assert text_id(value) == text


def test_an_id_is_looked_up_as_a_number_or_a_text():
    table = index_ids([5, "6", "img_a", "007"], [0, 1, 2, 3])
    for value, target in ((5, 0), ("5", 0), (5.0, 0), ("05", 0), (6, 1), ("img_a", 2), (" img_a", 2), (7, 3), ("007", 3), ("7", 3),
                          (8, None), (None, None), ([5], None)):
        assert table.find(value) == target, value


def test_ids_that_stand_for_the_same_integer_are_told_apart_by_their_texts():
    table = index_ids(["1", "01", "001"], [0, 1, 2])
    assert [table.find(value) for value in ("1", 1, 1.0, "01", "001", "0001")] == [0, 0, 0, 1, 2, None]


@pytest.mark.parametrize("ids, integers", [
    ([], []), ([3, "1", 2.0], [3, 1, 2]), ([-2**63, 2**63 - 1, 0], [-2**63, 2**63 - 1, 0]), ([1, 2**63], None),
    ([-2**63 - 1], None), ([1, "01"], None), ([1, "a"], None), ([1.5], None)])
def test_ids_are_kept_only_as_distinct_integers_of_64_bits(ids, integers):
    assert int64_ids(ids) == integers
