"""What a tracker gets of a run folder: final lines, names, times, files."""

import math
from pathlib import Path

import pytest
from recorded_run import CLASSES, LINES, evaluation_line, make_run, train_line

from detector.errors import BadInput
from detector.run.lock import RunLock
from detector.sync.progress import Progress, read_progress, write_progress
from detector.sync.record import PICTURES, class_values, clean, files_of, read_record, rows_of


def test_a_finished_run_is_sent_whole_and_a_run_in_training_up_to_its_newest_checkpoint(tmp_path):
    run = make_run(tmp_path / "run")
    assert (len(read_record(run).lines), read_record(run).num_later, read_record(run).is_running) == (6, 0, False)
    lock = RunLock(run)
    lock.take()
    assert (read_record(run).lines, read_record(run).num_later, read_record(run).is_running) == ([], 6, True)
    (run / "checkpoints" / "step-00000002.pt").write_text("")
    assert [line["step"] for line in read_record(run).lines] == [1, 2, 2] and read_record(run).num_later == 3
    lock.close()
    assert len(read_record(run).lines) == 6


def test_a_folder_that_is_no_run_is_refused(tmp_path):
    with pytest.raises(BadInput, match="is no run folder: config.yaml is missing. Name the folder"):
        read_record(tmp_path)


def test_a_name_that_is_no_run_leads_to_a_similar_one(tmp_path, monkeypatch):
    make_run(tmp_path / "runs" / "bccd")
    monkeypatch.chdir(tmp_path)
    for name in ("bcd", "runs/bcd"):
        with pytest.raises(BadInput, match=rf"no such run folder: {name} \(did you mean bccd\?\)"):
            read_record(Path(name))


def test_a_run_that_logged_nothing_is_a_record_too(tmp_path):
    run = make_run(tmp_path / "run", [])
    (run / "usage.json").unlink()
    record = read_record(run)
    assert record.lines == [] == rows_of(record.lines, "AP") and record.time_of(0) == (run / "metrics.jsonl").stat().st_mtime


def test_rows_have_the_tags_of_tensorboard_and_the_best_metric_so_far():
    rows = rows_of([*LINES, evaluation_line(6, math.nan)], "AP")
    assert rows[0] == {"optimizer/epoch": 0.1, "loss/train": 3.0, "loss/train_box_reg": 0.5, "optimizer/lr": 0.01,
                       "speed and memory/images_per_s": 4.0}
    assert math.isnan(rows[1]["loss/train"]) and rows[2]["metrics/AP"] == 0.25 and rows[2]["loss/validation"] == 1.0
    assert [rows[index]["metrics/best so far"] for index in (2, 5, 6)] == [0.25] * 3
    assert rows_of([evaluation_line(2, math.nan)], "AP")[0].keys() & {"metrics/best so far"} == set()


def test_classes_get_names_that_every_tracker_takes_and_none_is_lost():
    row = class_values({name: {"AP": index} for index, name in enumerate(CLASSES)})
    assert row == {"per class AP/cat": 0, "per class AP/a_b _old_": 1, "per class AP/a_b _old_ 2": 2, "per class AP/Größe": 3}
    assert [clean(name) for name in ("", "..", "/", "no. 5")] == ["_", "__", "_", "no_ 5"] and class_values({}) == {}


def test_the_time_of_a_step_is_that_of_the_start_that_did_it(tmp_path):
    record = read_record(make_run(tmp_path / "run"))
    assert [record.time_of(step) for step in (0, 1, 2, 4, 9)] == [1000, 1010, 1020, 1040, 1040]


def test_a_file_that_changes_has_another_digest(tmp_path):
    run = make_run(tmp_path / "run")
    before = files_of(run, PICTURES)
    assert set(before) == {"plots/one.png", "pictures/one.jpg"} and files_of(run, ()) == {}
    (run / "plots" / "one.png").write_bytes(b"other")
    assert [path for path, digest in files_of(run, PICTURES).items() if before[path] != digest] == ["plots/one.png"]


def test_the_progress_is_kept_for_each_tracker_and_a_damaged_file_is_none(tmp_path):
    entry = Progress("mlflow", "http://a", "p", "run", "id", 2, "0123456789abcdef", 2)
    write_progress(tmp_path, entry)
    write_progress(tmp_path, Progress("wandb", "", "p", "run", "other"))
    assert read_progress(tmp_path, "mlflow", "http://a", "p", "run") == entry
    assert read_progress(tmp_path, "mlflow", "http://b", "p", "run").run == "" == read_progress(tmp_path, "wandb", "", "p", "copy").run
    (tmp_path / "sync.json").write_text('{"synced": [{"to": "mlflow"}, 3]}')
    assert read_progress(tmp_path, "mlflow", "http://a", "p", "run").run == ""


def test_a_record_that_was_taken_back_is_noticed_and_one_that_grew_is_not(tmp_path):
    run = make_run(tmp_path / "run")
    progress = Progress("wandb", "", "p", "run").with_lines(read_record(run), 4)
    assert progress.is_start_of(read_record(run)) and Progress("wandb", "", "p", "run").is_start_of(read_record(run))
    other = make_run(tmp_path / "other", [*LINES[:3], train_line(3, 9.0), train_line(4)])
    assert not progress.is_start_of(read_record(other))
    assert not progress.is_start_of(read_record(make_run(tmp_path / "shorter", LINES[:3])))
