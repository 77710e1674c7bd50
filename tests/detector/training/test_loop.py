"""The training loop: what it prints when it stops."""

import pytest

from detector.training.loop import describe_save


@pytest.mark.parametrize("step, elapsed_s, message", [
    (0, None, "before the first step there is nothing to save"), (7, None, "step 7 is saved"),
    (7, 1.25, "saved step 7 in 1.2 s")])
def test_a_stop_tells_what_is_on_disk(step, elapsed_s, message):
    assert describe_save(step, elapsed_s) == message
