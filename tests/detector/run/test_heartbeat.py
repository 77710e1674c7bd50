"""Each rank writes its heartbeat; without progress, stacks are written and the slowest rank is named."""

import json
import re
import time

import pytest

from detector.run import heartbeat
from detector.run.heartbeat import (
    Beat,
    Heartbeat,
    describe,
    describe_slowest_rank,
    heartbeat_file,
    read_heartbeats,
    slowest_rank,
)


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(heartbeat, "INTERVAL_S", 0.05)


def until(condition, seconds: float = 10.0) -> None:
    limit = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < limit
        time.sleep(0.02)


def test_a_heartbeat_is_on_disk_soon_and_the_last_one_at_the_end(tmp_path):
    with Heartbeat(tmp_path, 0) as marks:
        marks.open(1)
        marks.mark("loading data", 4)
        until(lambda: [(b.phase, b.step) for b in read_heartbeats(tmp_path)] == [("loading data", 4)])
        marks.mark("step")
    last, = read_heartbeats(tmp_path)
    assert (last.rank, last.phase, last.step) == (0, "step", 4) and 0 <= time.time() - last.at < 10
    assert set(json.loads(heartbeat_file(tmp_path, 0).read_text())) == {"rank", "host", "phase", "step", "at"}
    assert [path.name for path in (tmp_path / "heartbeats").iterdir()] == ["rank-00000.json"]  # no empty stacks


def test_nothing_is_written_before_the_run_folder_may_be(tmp_path):
    with Heartbeat(tmp_path / "run", 0) as marks:
        marks.mark("reading annotations")
        time.sleep(0.2)
    assert list(tmp_path.iterdir()) == []


def test_ranks_of_an_earlier_start_on_more_processes_are_forgotten(tmp_path):
    (tmp_path / "heartbeats").mkdir()
    for name in ("rank-00001.json", "rank-00002.json", "rank-00003.stacks.txt"):
        (tmp_path / "heartbeats" / name).write_text("{}")
    with Heartbeat(tmp_path, 0) as marks:
        marks.open(2)
    assert sorted(path.name for path in (tmp_path / "heartbeats").iterdir()) == ["rank-00000.json", "rank-00001.json"]


def where_it_hangs(seconds: float) -> None:
    time.sleep(seconds)


def test_without_progress_the_stacks_are_left_and_the_late_rank_is_named_once(tmp_path, monkeypatch):
    messages = []
    monkeypatch.setenv("WORLD_SIZE", "2")
    with Heartbeat(tmp_path, 0.5) as marks:
        marks.message = messages.append
        marks.open(2)
        heartbeat_file(tmp_path, 1).write_text(json.dumps(
            {"rank": 1, "host": "n03", "phase": "loading data", "step": 6, "at": time.time() - 640}))
        marks.mark("step", 7)
        where_it_hangs(1.5)
        marks.mark("step", 8)
    assert len(messages) == 1 and "rank 1 on n03 is late, last seen at step 6 in phase 'loading data', 64" in messages[0]
    assert "where_it_hangs" in (tmp_path / "heartbeats" / "rank-00000.stacks.txt").read_text()


def test_a_rank_that_moves_is_not_stalled_and_0_means_never(tmp_path):
    for stalled_s, pause in ((1.0, 0.1), (0, 0.0)):
        messages = []
        with Heartbeat(tmp_path, stalled_s) as marks:
            marks.message = messages.append
            marks.open(1)
            for step in range(15):
                marks.mark("step", step)
                time.sleep(pause)
            time.sleep(0.3)
        assert messages == [] and not (tmp_path / "heartbeats" / "rank-00000.stacks.txt").exists()


@pytest.mark.parametrize("beats, number", [
    ([(0, 5, 10.0), (1, 4, 12.0)], 1),                    # fewer steps
    ([(0, 5, 12.0), (1, 5, 10.0), (2, 5, 11.0)], 1),      # the same step, and it has not moved for longest
    ([(0, 5, 12.0)], 0)])
def test_the_slowest_rank_has_the_fewest_steps_and_the_oldest_heartbeat(beats, number):
    made = [Beat(rank, "host", "step", step, at) for rank, step, at in beats]
    assert slowest_rank(made).rank == number
    assert describe_slowest_rank(made, now=made[number].at + 3) == (
        f"rank {number} on host is late, last seen at step {made[number].step} in phase 'step', 3 s ago")


def test_heartbeats_are_read_oldest_first_and_described_with_their_age(tmp_path):
    (tmp_path / "heartbeats").mkdir()
    now = time.time()
    for rank, age in ((0, 10), (1, 30), (2, 20)):
        heartbeat_file(tmp_path, rank).write_text(json.dumps(
            {"rank": rank, "host": "n03", "phase": "step", "step": 6, "at": now - age}))
    beats = read_heartbeats(tmp_path)
    assert [last.rank for last in beats] == [1, 2, 0]
    assert re.fullmatch(r"rank 1 on n03: step at step 6, last seen 3\d s ago", describe(beats[0]))


def test_a_rank_whose_file_is_missing_or_incomplete_is_left_out(tmp_path):
    (tmp_path / "heartbeats").mkdir()
    heartbeat_file(tmp_path, 1).write_text("{")
    heartbeat_file(tmp_path, 2).write_text('{"rank": 2}')
    assert read_heartbeats(tmp_path) == [] and read_heartbeats(tmp_path / "nowhere") == []
