"""What a run says: nothing twice after a resume, nothing lost to half a line, nothing from other ranks."""

import itertools
import json
import os
from pathlib import Path
from types import SimpleNamespace

import pytest
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.summary.writer import event_file_writer

from detector.loggers.run_log import RunLog, clock
from detector.run.evaluation_history import best_of, out_of_patience
from detector.run.files import read_lines, write_whole
from detector.visualization.validation_images import as_picture


@pytest.fixture(autouse=True)
def seconds_apart(monkeypatch):
    """TensorBoard orders its files by the second in their names, which two starts of a real run do not share."""
    seconds = itertools.count(1_700_000_000)
    monkeypatch.setattr(event_file_writer, "time", SimpleNamespace(time=lambda: next(seconds)))


def values(loss: float) -> dict[str, float]:
    return {"epoch": 0.5, "loss": loss, "rate": 0.01, "images_per_s": 10.0, "data_wait": 0.1}


def run_from(folder: Path, first: int, last: int, offset: float = 0.0, main: bool = True) -> None:
    """Steps first + 1 ... last are logged, every second one is evaluated."""
    journal = RunLog(folder, first, 100, main)
    journal.start_bar()
    for step in range(first + 1, last + 1):
        journal.advance(step)
        journal.training(step, values(step + offset))
        if step % 2 == 0:
            journal.evaluation(step, {"AP": step / 100 + offset}, {"cat": {"AP": 0.5}})
            journal.picture(step, as_picture("validation/one.jpg", Image.new("RGB", (6, 4))))
    journal.say("at the end")
    journal.close()


def lines(folder: Path) -> list[tuple]:
    return [(line["kind"], line["step"]) for line in read_lines(folder / "metrics.jsonl")]


def board(folder: Path, name: str) -> list[tuple[int, float]]:
    accumulator = EventAccumulator(str(folder / "tensorboard"))
    accumulator.Reload()
    return [(event.step, event.value) for event in accumulator.Scalars(name)]


def expected(last: int) -> list[tuple]:
    return [entry for step in range(1, last + 1)
            for entry in [("train", step), *([("evaluation", step)] if step % 2 == 0 else [])]]


@pytest.mark.parametrize("saved", [0, 1, 4, 6])
def test_nothing_is_there_twice_after_a_resume(saved, tmp_path):
    """The run was cut at step 6 and its last checkpoint is of an earlier step, or of that one."""
    run_from(tmp_path, 0, 6)
    run_from(tmp_path, saved, 8, offset=0.25)
    assert lines(tmp_path) == expected(8)
    steps = [(step, step + 0.25 * (step > saved)) for step in range(1, 9)]
    assert board(tmp_path, "train/loss") == steps
    assert [step for step, _ in board(tmp_path, "evaluation/AP")] == [2, 4, 6, 8]
    assert [step for step, _ in board(tmp_path, "AP by class/cat")] == [2, 4, 6, 8]
    assert [line["loss"] for line in read_lines(tmp_path / "metrics.jsonl") if line["kind"] == "train"] == [
        loss for _, loss in steps]


def test_a_second_resume_is_as_good_as_the_first(tmp_path):
    for first, last in ((0, 3), (2, 5), (2, 4), (4, 7)):
        run_from(tmp_path, first, last)
    assert lines(tmp_path) == expected(7)
    assert [step for step, _ in board(tmp_path, "train/loss")] == list(range(1, 8))


@pytest.mark.parametrize("half", ['{"kind": "train", "st', "{", "\0\0\0\0", '{"kind": "train", "step": 4}garbage'])
def test_half_a_last_line_costs_that_line_only(half, tmp_path):
    run_from(tmp_path, 0, 3)
    with open(tmp_path / "metrics.jsonl", "a") as file:
        file.write(half)
    assert lines(tmp_path) == expected(3)
    run_from(tmp_path, 3, 5)
    assert lines(tmp_path) == expected(5)
    for line in (tmp_path / "metrics.jsonl").read_text().splitlines():
        json.loads(line)  # the half line is gone: other tools read the file too


def test_a_run_that_wrote_nothing_yet_is_an_empty_record(tmp_path):
    assert read_lines(tmp_path / "metrics.jsonl") == []
    RunLog(tmp_path, 0, 10, main=True).close()
    assert (tmp_path / "metrics.jsonl").read_text() == ""


def test_evaluations_are_read_back_by_step_and_metric(tmp_path):
    run_from(tmp_path, 0, 5)
    journal = RunLog(tmp_path, 4, 10, main=True)
    assert journal.evaluations("AP") == [(2, 0.02), (4, 0.04)]
    assert journal.evaluations("loss") == []  # a loss of training is no evaluation
    journal.evaluation(5, {"AP": 0.1, "loss": 2.0}, {})
    assert journal.evaluations("AP")[-1] == (5, 0.1) and journal.evaluations("loss") == [(5, 2.0)]
    journal.close()


def test_other_ranks_write_nothing_and_read_the_same(tmp_path, capsys):
    run_from(tmp_path / "alone", 0, 4, main=False)
    assert not (tmp_path / "alone").exists() and capsys.readouterr().out == ""
    run_from(tmp_path / "run", 0, 4)
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "run").rglob("*")}
    run_from(tmp_path / "run", 2, 8, main=False)
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "run").rglob("*")} == before
    assert RunLog(tmp_path / "run", 4, 8, main=False).evaluations("AP") == [(2, 0.02), (4, 0.04)]


def test_what_is_said_is_on_the_console_and_in_the_log(tmp_path, capsys):
    for text in ("first\nsecond", "third"):
        journal = RunLog(tmp_path, 0, 10, main=True)
        journal.say(text)
        journal.say("only in the log", console=False)
        journal.close()
    assert capsys.readouterr().out == "first\nsecond\nthird\n"
    log = (tmp_path / "log.txt").read_text().splitlines()
    assert [line[len("2000-01-01 00:00:00 "):] for line in log] == ["first", "second", "only in the log", "third",
                                                                    "only in the log"]


def test_a_logged_step_is_one_line_without_a_terminal(tmp_path, capsys):
    journal = RunLog(tmp_path, 0, 100, main=True)
    journal.start_bar()
    journal.training(20, values(1.25))
    journal.close()
    said = capsys.readouterr().out
    assert said.startswith("step 20/100 epoch 0.50 loss 1.2500 rate 0.01 10.0 images/s, waiting 10%, ")
    assert said.count("\n") == 1


def test_a_file_appears_whole_or_not_at_all(tmp_path, monkeypatch):
    path = tmp_path / "new" / "results.json"
    write_whole(path, "first")
    assert path.read_text() == "first" and os.listdir(path.parent) == ["results.json"]

    def fail(*args):
        raise OSError("disk full")
    for step in ("fsync", "replace"):
        with monkeypatch.context() as patched:
            patched.setattr(os, step, fail)
            with pytest.raises(OSError):
                write_whole(path, "second")
        assert path.read_text() == "first"
    write_whole(path, "third")
    assert path.read_text() == "third" and os.listdir(path.parent) == ["results.json"]


@pytest.mark.parametrize("evaluations, best", [
    ([], None), ([(5, 0.1)], (5, 0.1)), ([(5, 0.1), (10, 0.3), (15, 0.2)], (10, 0.3)),
    ([(5, 0.3), (10, 0.3)], (5, 0.3)),         # the first of equals
    ([(5, -1.0), (10, 0.0)], (10, 0.0))])      # -1: nothing to be found
def test_best_of(evaluations, best):
    assert best_of(evaluations) == best


@pytest.mark.parametrize("values, patience, over", [
    ([], 2, False), ([1], 1, False), ([1, 2, 3], 1, False),
    ([1, 2, 1], 1, True), ([1, 2, 1], 2, False), ([1, 2, 1, 1], 2, True),
    ([2, 2], 1, True),                         # as good is not better
    ([3, 1, 2], 2, True), ([3, 1, 4], 2, False),
    ([1, 0, 0, 0], 0, False)])                 # 0: never
def test_patience_ends_after_as_many_evaluations_without_a_better_one(values, patience, over):
    assert out_of_patience(list(enumerate(values)), patience) is over


@pytest.mark.parametrize("seconds, text", [(0, "0:00:00"), (59.9, "0:00:59"), (3661, "1:01:01"), (360000, "100:00:00")])
def test_clock(seconds, text):
    assert clock(seconds) == text
