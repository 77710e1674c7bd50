"""Each rank leaves a beat; when nothing moves, stacks are left and the late rank is named."""

import json
import time

import pytest

from detector.run import heartbeat
from detector.run.heartbeat import Beat, Heartbeat, heartbeat_file, late, latest_of_all, read_beats


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(heartbeat, "EVERY_S", 0.05)


def until(condition, seconds: float = 10.0) -> None:
    limit = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < limit
        time.sleep(0.02)


def test_a_beat_is_on_disk_soon_and_the_last_one_at_the_end(tmp_path):
    with Heartbeat(tmp_path, 0) as heart:
        heart.open(1)
        heart.beat("loading data", 4)
        until(lambda: [(b.phase, b.step) for b in read_beats(tmp_path, 1)] == [("loading data", 4)])
        heart.beat("step")
    beat, = read_beats(tmp_path, 1)
    assert (beat.rank, beat.phase, beat.step) == (0, "step", 4) and 0 <= time.time() - beat.at < 10
    assert set(json.loads(heartbeat_file(tmp_path / "heartbeats", 0).read_text())) == {"rank", "host", "phase", "step",
                                                                                       "at"}
    assert [path.name for path in (tmp_path / "heartbeats").iterdir()] == ["rank-00000.json"]  # no empty stacks


def test_nothing_is_written_before_the_run_folder_may_be(tmp_path):
    with Heartbeat(tmp_path / "run", 0) as heart:
        heart.beat("reading annotations")
        time.sleep(0.2)
    assert list(tmp_path.iterdir()) == []


def test_ranks_of_an_earlier_start_on_more_processes_are_forgotten(tmp_path):
    (tmp_path / "heartbeats").mkdir()
    for name in ("rank-00001.json", "rank-00002.json", "rank-00003.stacks.txt"):
        (tmp_path / "heartbeats" / name).write_text("{}")
    with Heartbeat(tmp_path, 0) as heart:
        heart.open(2)
    assert sorted(path.name for path in (tmp_path / "heartbeats").iterdir()) == ["rank-00000.json", "rank-00001.json"]


def where_it_hangs(seconds: float) -> None:
    time.sleep(seconds)


def test_without_progress_the_stacks_are_left_and_the_late_rank_is_named_once(tmp_path, monkeypatch):
    said = []
    monkeypatch.setenv("WORLD_SIZE", "2")
    with Heartbeat(tmp_path, 0.5) as heart:
        heart.say = said.append
        heart.open(2)
        heartbeat_file(tmp_path / "heartbeats", 1).write_text(json.dumps(
            {"rank": 1, "host": "n03", "phase": "loading data", "step": 6, "at": time.time() - 640}))
        heart.beat("step", 7)
        where_it_hangs(1.5)
        heart.beat("step", 8)
    assert len(said) == 1 and "rank 1 on n03 is late, last seen at step 6 in phase 'loading data', 64" in said[0]
    assert "where_it_hangs" in (tmp_path / "heartbeats" / "rank-00000.stacks.txt").read_text()


def test_a_rank_that_moves_is_not_stalled_and_0_means_never(tmp_path):
    for stalled_s, pause in ((1.0, 0.1), (0, 0.0)):
        said = []
        with Heartbeat(tmp_path, stalled_s) as heart:
            heart.say = said.append
            heart.open(1)
            for step in range(15):
                heart.beat("step", step)
                time.sleep(pause)
            time.sleep(0.3)
        assert said == [] and not (tmp_path / "heartbeats" / "rank-00000.stacks.txt").exists()


@pytest.mark.parametrize("beats, number", [
    ([(0, 5, 10.0), (1, 4, 12.0)], 1),                    # fewer steps
    ([(0, 5, 12.0), (1, 5, 10.0), (2, 5, 11.0)], 1),      # the same step, and it has not moved for longest
    ([(0, 5, 12.0)], 0)])
def test_who_is_late(beats, number):
    made = [Beat(rank, "host", "step", step, at) for rank, step, at in beats]
    assert latest_of_all(made).rank == number
    assert late(made, now=made[number].at + 3) == (f"rank {number} on host is late, last seen at step {made[number].step} "
                                                   "in phase 'step', 3 s ago")


def test_a_rank_that_left_nothing_or_half_a_line_is_not_among_them(tmp_path):
    (tmp_path / "heartbeats").mkdir()
    heartbeat_file(tmp_path / "heartbeats", 1).write_text("{")
    assert read_beats(tmp_path, 3) == [] and read_beats(tmp_path / "nowhere", 2) == []
