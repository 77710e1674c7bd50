"""The lock of a folder: waited for or refused, and free again afterwards."""

import threading

import pytest

from detector.errors import BadInput
from detector.run.folder_lock import folder_lock


def test_a_lock_that_is_taken_is_waited_for(tmp_path):
    order = []

    def second():
        with folder_lock(tmp_path):
            order.append("second")
    thread = threading.Thread(target=second)
    with folder_lock(tmp_path):
        thread.start()
        thread.join(0.3)
        order.append("first")
    thread.join(30)
    assert order == ["first", "second"]


def test_a_lock_that_is_taken_is_refused_with_the_sentence_given_and_free_afterwards(tmp_path):
    with folder_lock(tmp_path), pytest.raises(BadInput, match="taken"), folder_lock(tmp_path, "taken"):
        pytest.fail("two hold the lock")
    with folder_lock(tmp_path, "taken"):
        pass


def test_a_folder_that_is_not_there_is_not_locked(tmp_path):
    with folder_lock(tmp_path / "missing", "taken"):
        assert not (tmp_path / "missing").exists()
