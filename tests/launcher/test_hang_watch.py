"""A hang is reported once, with the rank that is late."""

import time
from pathlib import Path

from detector.config.load import load_config
from detector.run.files import write_json
from launcher import hang_watch


def write_heartbeat(run: Path, rank: int, step: int, phase: str, ago_s: float) -> None:
    write_json(run / "heartbeats" / f"rank-{rank:05d}.json",
               {"rank": rank, "host": f"n{rank // 2}", "phase": phase, "step": step, "at": time.time() - ago_s})


def test_a_hang_names_the_late_rank_once(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(hang_watch, "EVERY_S", 0.0)
    watch = hang_watch.HangWatch(tmp_path, timeout_s=600)
    watch.started_at -= 10_000
    watch()
    assert capsys.readouterr().err == ""  # no heartbeat yet
    for rank in range(4):
        write_heartbeat(tmp_path, rank, 1204, "step", 100)
    watch()
    assert capsys.readouterr().err == ""
    for rank, (step, phase, ago_s) in enumerate([(1205, "step", 640), (1205, "step", 641), (1204, "loading data", 642),
                                                (1205, "step", 639)]):
        write_heartbeat(tmp_path, rank, step, phase, ago_s)
    watch()
    watch()
    report = capsys.readouterr().err
    assert report.count("no progress for 639 s. Late is rank 2 on n1: loading data at step 1204, last seen 642 s ago") == 1
    watch.started_at = time.time()  # heartbeats of an earlier start do not count
    watch.reported_at = 0
    watch()
    assert capsys.readouterr().err == ""


def test_a_timeout_of_0_minutes_never_reports(tmp_path):
    (tmp_path / "a.yaml").write_text("data: {root: /x}\nrun: {hang_timeout_minutes: 0}\n")
    assert hang_watch.hang_timeout_s(load_config(str(tmp_path / "a.yaml"))) == float("inf")
    assert hang_watch.hang_timeout_s(load_config(str(tmp_path / "a.yaml"), ["run.hang_timeout_minutes=1"])) > 60
