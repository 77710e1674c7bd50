"""The next batches: waited for in slices, so that a stop is heard; what is wrong on a rank raises."""

import time

import pytest
import torch

from detector.data import synced_batches
from detector.data.synced_batches import FetchPolicy, fetch_batches
from detector.errors import BadInput


class Slow:
    """Gives a batch at every n-th asking, as a loader that is slow does."""

    def __init__(self, every: int, targets: list[dict] = ()):
        self.every, self.requested, self.targets = every, 0, list(targets)

    def take(self):
        self.requested += 1
        time.sleep(0.02)
        return ([f"image {self.requested}"], self.targets) if self.requested % self.every == 0 else None


@pytest.fixture(autouse=True)
def short_slices(monkeypatch):
    monkeypatch.setattr(synced_batches, "SLICE_S", 0.05)


def how(asked=lambda: False, refuse=True, patience_s=60.0, **rest) -> FetchPolicy:
    return FetchPolicy(asked, refuse, patience_s, **rest)


@pytest.mark.parametrize("every, count", [(1, 1), (1, 3), (4, 2), (3, 0)])
def test_as_many_as_asked_for_in_their_order(every, count):
    came = fetch_batches(Slow(every), count, how())
    assert [images for images, _ in came.batches] == [[f"image {every * n}"] for n in range(1, count + 1)]
    assert not came.stopping and not came.failed


def test_a_stop_is_heard_while_a_loader_is_slow_and_at_once_where_there_is_data():
    for every in (10**9, 1):
        started_at = time.monotonic()
        came = fetch_batches(Slow(every), 1, how(requested=lambda: time.monotonic() - started_at > 0.1 * (every > 1)))
        assert came.stopping and time.monotonic() - started_at < 5


def test_a_rank_that_needs_nothing_still_votes():
    assert fetch_batches(Slow(1), 0, how(requested=lambda: True)).stopping


def test_a_failure_ends_the_wait():
    assert fetch_batches(Slow(10**9), 1, how(), failed=True).failed


def test_a_broken_image_is_refused_or_let_through():
    message = torch.frombuffer(bytearray(b"corrupt image 3.png"), dtype=torch.uint8)
    with pytest.raises(BadInput, match="corrupt image 3.png"):
        fetch_batches(Slow(1, [{"broken": message}]), 1, how())
    assert len(fetch_batches(Slow(1, [{"broken": message}]), 1, how(refuse=False)).batches) == 1


def test_trouble_elsewhere_raises_while_waiting():
    with pytest.raises(BadInput, match="disk full"):
        fetch_batches(Slow(10**9), 1, how(trouble=lambda: BadInput("disk full")))


def test_a_loader_that_never_answers_is_an_error_with_rank_and_setting():
    with pytest.raises(RuntimeError, match="rank 0 on .* has waited 0 s for its loader .run.timeout_minutes."):
        fetch_batches(Slow(10**9), 1, how(patience_s=0.2))


def test_the_phases_are_told():
    phases = []
    fetch_batches(Slow(3), 1, how(beat=phases.append))
    assert phases == ["loading data", "waiting for the others"]


def test_a_rank_that_waits_for_the_others_makes_no_progress(monkeypatch):
    phases, votes = [], iter([True, True, True, False])  # another rank has no data yet, for three votes
    monkeypatch.setattr(synced_batches.collectives, "any_rank",
                        lambda trouble, missing, asked, failed: (trouble, next(votes), asked, failed))
    assert len(fetch_batches(Slow(1), 1, how(beat=phases.append)).batches) == 1
    assert phases == ["loading data", "waiting for the others"] and next(votes, None) is None


def test_the_wait_is_that_for_the_data():
    assert 0.05 <= fetch_batches(Slow(4), 1, how()).wait_s < 5
