"""A rank or host that the others wait for is named once it has been the same for long."""

import pytest

from detector.run.environment import RankInfo
from detector.training import slow_ranks
from detector.training.slow_ranks import REPEAT_S, WINDOW, SlowRankWatch, spread

FOUR = [RankInfo(rank, f"n{rank // 2}", "cpu", (rank,)) for rank in range(4)]


@pytest.mark.parametrize("own_s, expected", [
    ([1.0, 1.0, 1.5, 1.0], (2, 0.5)), ([1.0, 2.0], (1, 1.0)), ([2.0, 2.0, 1.0, 1.0], (0, 1.0)), ([1.0], (0, 0.0)),
    ([0.0, 0.0], (0, 0.0)), ([1.0, 1.0, 1.25], (2, 0.25))])
def test_the_slowest_rank_and_its_excess_over_the_median(own_s, expected):
    assert spread(own_s) == expected


def messages(ranks, observations, first_step: int = 0, watch=None) -> list[str]:
    watch = watch or SlowRankWatch(ranks)
    return [message for step, (slowest, excess) in enumerate(observations, first_step + 1)
            for message in watch.observe(10 * step, slowest, excess)]


def test_a_rank_that_is_slowest_for_long_is_named_with_its_host():
    message, = messages(FOUR, [(3, 0.23)] * WINDOW)
    assert message.startswith("rank 3 on n1 is slower than the median rank by 23%, at least since step 10, and all others wait ")


def test_ranks_of_one_host_that_take_turns_are_named_by_their_host():
    message, = messages(FOUR, [(2, 0.2), (3, 0.3)] * (WINDOW // 2))
    assert message.startswith("ranks on n1 are slower than the median rank by 25%, at least since step 10, ")


@pytest.mark.parametrize("observations", [
    [(3, 0.23)] * (WINDOW - 1),                                   # not for long
    [(3, 0.05)] * WINDOW,                                         # hardly slower
    [(step % 4, 0.5) for step in range(WINDOW)],                  # always another
    [(3, 0.23)] * (WINDOW * 3 // 4) + [(0, 0.23)] * (WINDOW // 4), []])
def test_no_rank_is_named_where_it_is_chance(observations):
    assert messages(FOUR, observations) == []


def test_on_one_host_a_rank_is_named_and_never_the_host():
    one_host = [RankInfo(rank, "n0", "cpu", (rank,)) for rank in range(4)]
    assert messages(one_host, [(2, 0.2), (3, 0.3)] * (WINDOW // 2)) == []
    assert len(messages(one_host, [(2, 0.2)] * WINDOW)) == 1


def test_the_same_message_comes_once_an_hour_and_that_of_another_rank_at_once(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(slow_ranks.time, "monotonic", lambda: now[0])
    watch = SlowRankWatch(FOUR)
    assert len(messages(FOUR, [(3, 0.2)] * 3 * WINDOW, watch=watch)) == 1
    assert "rank 0 on n0" in messages(FOUR, [(0, 0.2)] * 2 * WINDOW, watch=watch)[0]
    now[0] += REPEAT_S
    assert len(messages(FOUR, [(0, 0.2)] * WINDOW, watch=watch)) == 1
