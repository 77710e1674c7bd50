"""Work beside the steps: its value and its error arrive once, and never get lost."""

import threading

import pytest

from detector.background import Background


def test_what_is_given_arrives_once():
    work = Background("scorer")
    assert work.wait() is None and not work.busy() and work.error is None  # nothing was started
    work.start(lambda: 7)
    assert work.wait() == 7 and work.wait() is None
    work.start(lambda: 8)  # again
    assert work.wait() == 8
    work.close()


def test_an_error_waits_for_whoever_asks_and_is_told_once():
    work = Background("scorer")
    work.start(lambda: {}["no such key"])
    work.close()
    assert isinstance(work.error, KeyError)
    with pytest.raises(KeyError, match="no such key"):
        work.wait()
    assert work.error is None and work.wait() is None


def test_one_at_a_time_and_nobody_waits_who_does_not_ask():
    work, gate = Background("scorer"), threading.Event()
    work.start(lambda: gate.wait(20))
    assert work.busy()
    with pytest.raises(AssertionError, match="still at work"):
        work.start(lambda: 1)
    gate.set()
    assert work.wait() is True and not work.busy()
