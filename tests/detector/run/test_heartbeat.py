"""Each rank writes its heartbeat; without progress, stacks are written and the slowest rank is named."""

import errno
import io
import json
import os
import sys
import time

import pytest

from detector.errors import BadInput
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


def write_beat(folder, rank: int, step: int, phase: str, age_s: float, written_ago_s: float = 0.0, skew_s: float = 0.0) -> None:
    """Writes a heartbeat file `written_ago_s` ago, by a host whose clock differs by `skew_s`, in a phase that was `age_s` old then."""
    path, now = heartbeat_file(folder, rank), time.time()
    path.parent.mkdir(exist_ok=True)
    alive_at = now - written_ago_s + skew_s
    path.write_text(json.dumps({"rank": rank, "host": f"n{rank}", "phase": phase, "step": step, "at": alive_at - age_s,
                                "alive_at": alive_at}))
    os.utime(path, (now - written_ago_s, now - written_ago_s))


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
    assert (last.rank, last.phase, last.step, last.error) == (0, "step", 4, "") and 0 <= time.time() - last.at < 10
    assert set(json.loads(heartbeat_file(tmp_path, 0).read_text())) == {"rank", "host", "phase", "step", "at", "error", "alive_at"}
    assert [path.name for path in (tmp_path / "heartbeats").iterdir()] == ["rank-00000.json"]  # no empty stacks


def test_a_rank_without_progress_still_gives_signs_of_life(tmp_path, monkeypatch):
    monkeypatch.setattr(heartbeat, "ALIVE_S", 0.1)
    with Heartbeat(tmp_path, 0) as marks:
        marks.open(1)
        marks.mark("evaluating", 4)
        until(lambda: [b.phase for b in read_heartbeats(tmp_path)] == ["evaluating"])
        first, = read_heartbeats(tmp_path)
        until(lambda: read_heartbeats(tmp_path)[0].alive_at > first.alive_at)
        assert read_heartbeats(tmp_path)[0].at == first.at


@pytest.mark.parametrize("error, text", [
    (ValueError("no box"), "ValueError: no box"), (BadInput("data.root=/x: missing"), "data.root=/x: missing"),
    (KeyboardInterrupt(), "interrupted by Ctrl-C"), (AssertionError(), "AssertionError")])
def test_a_rank_that_fails_leaves_its_error_where_a_run_folder_exists(error, text, tmp_path):
    for folder in (tmp_path, tmp_path / "new"):
        with pytest.raises(type(error)), Heartbeat(folder, 0) as marks:
            marks.mark("step", 7)
            raise error
    assert not (tmp_path / "new").exists()
    last, = read_heartbeats(tmp_path)
    assert (last.step, last.error) == (7, text) and describe(last).endswith(f" on {last.host}: failed at step 7: {text}")


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
        write_beat(tmp_path, 1, 6, "loading data", 640)
        marks.mark("step", 7)
        where_it_hangs(1.5)
        marks.mark("step", 8)
    assert len(messages) == 1 and "rank 1 on n1 is late, at step 6 in phase 'loading data' for 64" in messages[0]
    assert "where_it_hangs" in (tmp_path / "heartbeats" / "rank-00000.stacks.txt").read_text()


@pytest.mark.parametrize("stream", [None, io.StringIO()])
def test_a_stderr_that_is_no_file_does_not_end_the_heartbeats(stream, tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "stderr", stream)
    with Heartbeat(tmp_path, 60) as marks:  # before there is a folder for the stacks
        marks.mark("reading annotations")
        time.sleep(0.3)
        marks.open(1)
        marks.mark("step", 3)
    assert read_heartbeats(tmp_path)[0].step == 3


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
    ([(0, 5, 10.0), (1, 4, 2.0)], 1),                     # fewer steps
    ([(0, 5, 2.0), (1, 5, 4.0), (2, 5, 3.0)], 1),         # the same step, and it has not moved for longest
    ([(0, 5, 2.0)], 0)])
def test_the_slowest_rank_has_the_fewest_steps_and_the_oldest_heartbeat(beats, number):
    made = [Beat(rank, "host", "step", step, 0.0, age_s=age_s) for rank, step, age_s in beats]
    assert slowest_rank(made).rank == number
    assert describe_slowest_rank(made) == (
        f"rank {number} on host is late, at step {made[number].step} in phase 'step' for {made[number].age_s:.0f} s")


@pytest.mark.parametrize("skew_s", [0, 3600, -3600])
def test_ages_do_not_depend_on_the_clocks_of_the_hosts(skew_s, tmp_path):
    """Rank 1 is on a host whose clock differs, and has stopped giving signs of life 20 s ago, 5 s after it began its phase."""
    write_beat(tmp_path, 0, 6, "step", 10)
    write_beat(tmp_path, 1, 6, "step", 5, written_ago_s=20, skew_s=skew_s)
    first, second = read_heartbeats(tmp_path)
    assert (first.rank, second.rank) == (1, 0)
    assert describe(first) == "rank 1 on n1: step at step 6, for 25 s" and describe(second) == "rank 0 on n0: step at step 6, for 10 s"


def test_a_disk_that_fails_for_a_moment_ends_no_heartbeat(tmp_path, monkeypatch):
    """A network disk may answer any access with ESTALE, and Path.is_dir raises that."""
    class Unreachable(type(tmp_path)):
        def stat(self, **options):
            raise OSError(errno.ESTALE, "Stale file handle")
    with Heartbeat(tmp_path, 0) as marks:
        marks.open(1)
        marks.folder = Unreachable(tmp_path)
        marks.mark("step", 2)
        time.sleep(0.3)
        marks.folder = tmp_path
        marks.mark("step", 3)
        until(lambda: [beat.step for beat in read_heartbeats(tmp_path)] == [3])


def test_a_rank_whose_file_is_missing_or_incomplete_is_left_out(tmp_path):
    (tmp_path / "heartbeats").mkdir()
    heartbeat_file(tmp_path, 1).write_text("{")
    heartbeat_file(tmp_path, 2).write_text('{"rank": 2}')
    assert read_heartbeats(tmp_path) == [] and read_heartbeats(tmp_path / "nowhere") == []
