"""Fetching batches with a vote: a stop request ends the wait, and an error of one rank raises on all."""

import time

import pytest
import torch

from detector.data import synced_batches
from detector.data.synced_batches import FetchPolicy, fetch_batches
from detector.errors import BadInput, MachineError


class Slow:
    """A slow loader: returns a batch at every n-th poll."""

    def __init__(self, every: int, targets: list[dict] = ()):
        self.every, self.polls, self.targets = every, 0, list(targets)

    def poll(self):
        self.polls += 1
        time.sleep(0.02)
        return ([f"image {self.polls}"], self.targets) if self.polls % self.every == 0 else None


@pytest.fixture(autouse=True)
def short_poll(monkeypatch):
    monkeypatch.setattr(synced_batches, "POLL_S", 0.05)


def policy(stop_requested=lambda: False, refuse_unreadable=True, timeout_s=60.0, **rest) -> FetchPolicy:
    return FetchPolicy(stop_requested, refuse_unreadable, timeout_s, **rest)


@pytest.mark.parametrize("every, count", [(1, 1), (1, 3), (4, 2), (3, 0)])
def test_the_requested_number_of_batches_comes_in_order(every, count):
    fetched = fetch_batches(Slow(every), count, policy())
    assert [images for images, _ in fetched.batches] == [[f"image {every * n}"] for n in range(1, count + 1)]
    assert not fetched.stop_requested and not fetched.nan_found


def test_a_stop_request_ends_the_wait_for_a_slow_loader_and_also_counts_when_data_is_ready():
    for every in (10**9, 1):
        started_at = time.monotonic()
        fetched = fetch_batches(Slow(every), 1, policy(stop_requested=lambda: time.monotonic() - started_at > 0.1 * (every > 1)))
        assert fetched.stop_requested and time.monotonic() - started_at < 5


def test_a_rank_that_needs_no_batch_still_votes():
    assert fetch_batches(Slow(1), 0, policy(stop_requested=lambda: True)).stop_requested


def test_a_loss_that_is_not_finite_ends_the_wait():
    assert fetch_batches(Slow(10**9), 1, policy(), nan_found=True).nan_found


def test_an_unreadable_image_is_refused_or_accepted():
    message = torch.frombuffer(bytearray(b"corrupt image 3.png"), dtype=torch.uint8)
    with pytest.raises(BadInput, match="corrupt image 3.png"):
        fetch_batches(Slow(1, [{"unreadable": message}]), 1, policy())
    assert len(fetch_batches(Slow(1, [{"unreadable": message}]), 1, policy(refuse_unreadable=False)).batches) == 1


def test_a_background_error_raises_during_the_wait():
    with pytest.raises(BadInput, match="disk full"):
        fetch_batches(Slow(10**9), 1, policy(background_error=lambda: BadInput("disk full")))


def test_an_error_of_the_loader_is_raised_by_vote_and_after_a_last_call():
    class Broken:
        def poll(self):
            raise MachineError("worker killed")
    calls = []
    with pytest.raises(MachineError, match="worker killed"):
        fetch_batches(Broken(), 1, policy(before_error=lambda: calls.append("save")))
    assert calls == ["save"]


def test_a_loader_that_never_answers_is_an_error_with_rank_and_option():
    with pytest.raises(MachineError, match=r"rank 0 on .* has waited 0 s for its data loader \(limit: run.timeout_minutes\)"):
        fetch_batches(Slow(10**9), 1, policy(timeout_s=0.2))


def test_phases_are_marked():
    phases = []
    fetch_batches(Slow(3), 1, policy(mark=phases.append))
    assert phases == ["loading data", "waiting for the others"]


def test_a_rank_that_waits_for_the_others_makes_no_progress(monkeypatch):
    phases, votes = [], iter([True, True, True, False])  # another rank has no data yet, for three votes
    monkeypatch.setattr(synced_batches.collectives, "any_rank",
                        lambda error, missing, stop, nan: (error, next(votes), stop, nan))
    assert len(fetch_batches(Slow(1), 1, policy(mark=phases.append)).batches) == 1
    assert phases == ["loading data", "waiting for the others"] and next(votes, None) is None


def test_wait_s_is_the_time_until_the_data_arrived():
    assert 0.05 <= fetch_batches(Slow(4), 1, policy()).wait_s < 5
