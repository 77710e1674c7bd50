"""A hang is reported once, with the rank that is late."""

from pathlib import Path
from types import SimpleNamespace

import pytest

from detector.config.load import load_config
from detector.run.files import write_json
from launcher import hang_watch


def write_heartbeat(run: Path, rank: int, step: int, phase: str, age_s: float = 0.0, clock: float = 1e9) -> None:
    write_json(run / "heartbeats" / f"rank-{rank:05d}.json",
               {"rank": rank, "host": f"n{rank // 2}", "phase": phase, "step": step, "at": clock - age_s, "alive_at": clock})


@pytest.mark.parametrize("skew_s", [0, 3600, -3600])
def test_a_hang_names_the_late_rank_once_whatever_the_clocks_of_the_hosts_say(skew_s, tmp_path, capsys, monkeypatch):
    clock = SimpleNamespace(now=100.0)
    monkeypatch.setattr(hang_watch.time, "monotonic", lambda: clock.now)
    write_heartbeat(tmp_path, 0, 1300, "step", 0)  # of an earlier start
    watch = hang_watch.HangWatch(tmp_path, timeout_s=600)

    def watch_for(seconds: int) -> str:
        for _ in range(0, seconds, 10):
            clock.now += 10
            watch()
        return capsys.readouterr().err
    assert watch_for(2000) == ""  # heartbeats of an earlier start do not count
    for step in (1203, 1204):
        for rank in range(4):
            write_heartbeat(tmp_path, rank, step, "step", clock=1e9 + skew_s * (rank == 2))
        assert watch_for(500) == ""
    for rank, (step, phase, age_s) in enumerate([(1205, "step", 1), (1205, "step", 2), (1204, "loading data", 3), (1205, "step", 0)]):
        write_heartbeat(tmp_path, rank, step, phase, age_s, 1e9 + skew_s * (rank == 2))
    report = watch_for(3000)
    assert report.count("no progress for 610 s. Late is rank 2 on n1: loading data at step 1204, for 3 s\n") == 1
    assert report.count("no progress") == 1 and report.count("rank 2") == 1 and "rank 3 on n1: step at step 1205" in report
    write_heartbeat(tmp_path, 2, 1205, "step")
    assert watch_for(300) == "" and watch_for(600).count("no progress") == 1


def test_a_timeout_of_0_minutes_never_reports(tmp_path):
    (tmp_path / "a.yaml").write_text("data: {root: /x}\nrun: {hang_timeout_minutes: 0}\n")
    assert hang_watch.hang_timeout_s(load_config(str(tmp_path / "a.yaml"))) == float("inf")
    assert hang_watch.hang_timeout_s(load_config(str(tmp_path / "a.yaml"), ["run.hang_timeout_minutes=1"])) > 60
