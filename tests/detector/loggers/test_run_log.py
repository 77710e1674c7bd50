"""The log of a run: nothing twice after a resume, nothing lost to an incomplete line, nothing from other ranks."""

import errno
import itertools
import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from detector.errors import BadInput
from detector.loggers import LOGGERS, Logger, tensorboard
from detector.loggers.run_log import RunLog
from detector.run.files import read_json_lines
from detector.run.usage import Cost
from detector.visualization.validation_images import EncodedImage, encode_png


@pytest.fixture(autouse=True)
def seconds_apart(monkeypatch):
    """TensorBoard orders its files by the second in their names, which two starts of a real run do not share."""
    seconds = itertools.count(1_700_000_000)
    monkeypatch.setattr(tensorboard, "time", SimpleNamespace(time=lambda: next(seconds)))


def values(loss: float) -> dict[str, float]:
    return {"epoch": 0.5, "loss": loss, "lr": 0.01, "images_per_s": 10.0, "data_wait": 0.1}


def drawing() -> EncodedImage:
    return encode_png("validation/one.jpg", Image.new("RGB", (6, 4)))


def run_from(folder: Path, first: int, last: int, offset: float = 0.0, is_main: bool = True) -> None:
    """Logs steps first + 1 ... last and an evaluation at every second one."""
    run_log = RunLog(folder, first, 100, is_main)
    run_log.start_progress(10)
    for step in range(first + 1, last + 1):
        run_log.advance(step)
        run_log.train_step(step, values(step + offset))
        if step % 2 == 0:
            run_log.evaluation(step, {"AP": step / 100 + offset}, {"cat": {"AP": 0.5}})
            run_log.image(step, drawing())
            run_log.pr_curve(step, "cat", np.zeros((6, 3)))
            run_log.flush_tensorboard()
        run_log.flush()
    run_log.message("at the end")
    run_log.close()


def lines(folder: Path) -> list[tuple]:
    return [(line["kind"], line["step"]) for line in read_json_lines(folder / "metrics.jsonl")]


def events(folder: Path) -> EventAccumulator:
    accumulator = EventAccumulator(str(folder / "tensorboard"))
    accumulator.Reload()
    return accumulator


def tensorboard_scalars(folder: Path, name: str) -> list[tuple[int, float]]:
    return [(event.step, event.value) for event in events(folder).Scalars(name)]


def expected(last: int) -> list[tuple]:
    return [entry for step in range(1, last + 1)
            for entry in [("train", step), *([("evaluation", step)] if step % 2 == 0 else [])]]


@pytest.mark.parametrize("saved", [0, 1, 4, 6])
def test_no_step_occurs_twice_after_a_resume(saved, tmp_path):
    """The run was cut at step 6 and its last checkpoint is of an earlier step, or of that one."""
    run_from(tmp_path, 0, 6)
    run_from(tmp_path, saved, 8, offset=0.25)
    assert lines(tmp_path) == expected(8)
    steps = [(step, step + 0.25 * (step > saved)) for step in range(1, 9)]
    assert tensorboard_scalars(tmp_path, "loss/train") == steps
    assert [step for step, _ in tensorboard_scalars(tmp_path, "metrics/AP")] == [2, 4, 6, 8]
    assert [step for step, _ in tensorboard_scalars(tmp_path, "per class AP/cat")] == [2, 4, 6, 8]
    assert [line["loss"] for line in read_json_lines(tmp_path / "metrics.jsonl") if line["kind"] == "train"] == [
        loss for _, loss in steps]


def test_a_second_resume_is_as_good_as_the_first(tmp_path):
    for first, last in ((0, 3), (2, 5), (2, 4), (4, 7)):
        run_from(tmp_path, first, last)
    assert lines(tmp_path) == expected(7)
    assert [step for step, _ in tensorboard_scalars(tmp_path, "loss/train")] == list(range(1, 8))


@pytest.mark.parametrize("partial", ['{"kind": "train", "st', "{", "\0\0\0\0", '{"kind": "train", "step": 4}garbage'])
def test_an_incomplete_last_line_costs_only_that_line(partial, tmp_path):
    run_from(tmp_path, 0, 3)
    with open(tmp_path / "metrics.jsonl", "a") as file:
        file.write(partial)
    assert lines(tmp_path) == expected(3)
    run_from(tmp_path, 3, 5)
    assert lines(tmp_path) == expected(5)
    for line in (tmp_path / "metrics.jsonl").read_text().splitlines():
        json.loads(line)  # the incomplete line is gone: other tools read the file too


def test_a_run_that_logged_nothing_yet_has_an_empty_metrics_file(tmp_path):
    assert read_json_lines(tmp_path / "metrics.jsonl") == []
    RunLog(tmp_path, 0, 10, is_main=True).close()
    assert (tmp_path / "metrics.jsonl").read_text() == ""


def test_a_resume_gives_old_metrics_their_name_of_today(tmp_path):
    (tmp_path / "metrics.jsonl").write_text('{"kind": "train", "step": 1, "loss": 2.0, "rate": 0.5}\n')
    RunLog(tmp_path, 1, 10, is_main=True).close()
    assert (tmp_path / "metrics.jsonl").read_text() == '{"kind": "train", "step": 1, "loss": 2.0, "lr": 0.5}\n'


def test_evaluations_are_read_back_by_step_and_metric(tmp_path):
    run_from(tmp_path, 0, 5)
    run_log = RunLog(tmp_path, 4, 10, is_main=True)
    assert run_log.evaluations("AP") == [(2, 0.02), (4, 0.04)]
    assert run_log.evaluations("loss") == []  # a loss of training is no evaluation
    run_log.evaluation(5, {"AP": 0.1, "loss": 2.0}, {})
    assert run_log.evaluations("AP")[-1] == (5, 0.1) and run_log.evaluations("loss") == [(5, 2.0)]
    run_log.close()


def test_other_ranks_write_nothing_and_read_the_same(tmp_path, capsys):
    run_from(tmp_path / "alone", 0, 4, is_main=False)
    assert not (tmp_path / "alone").exists() and capsys.readouterr().out == ""
    run_from(tmp_path / "run", 0, 4)
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "run").rglob("*")}
    run_from(tmp_path / "run", 2, 8, is_main=False)
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "run").rglob("*")} == before
    assert RunLog(tmp_path / "run", 4, 8, is_main=False).evaluations("AP") == [(2, 0.02), (4, 0.04)]


def test_messages_are_on_the_console_and_in_the_log(tmp_path, capsys):
    for text in ("first\nsecond", "third"):
        run_log = RunLog(tmp_path, 0, 10, is_main=True)
        run_log.message(text)
        run_log.message("only in the log", console=False)
        run_log.close()
    assert capsys.readouterr().out == "first\nsecond\nthird\n"
    log = (tmp_path / "log.txt").read_text().splitlines()
    assert [line[len("2000-01-01 00:00:00 "):] for line in log] == ["first", "second", "only in the log", "third",
                                                                    "only in the log"]


def test_a_logged_step_is_one_line_without_a_terminal(tmp_path, capsys):
    run_log = RunLog(tmp_path, 0, 100, is_main=True)
    run_log.start_progress(10)
    run_log.train_step(20, values(1.25))
    run_log.close()
    printed = capsys.readouterr().out
    assert printed.startswith("step 20/100 epoch 0.50 loss 1.2500 lr 0.01 10.0 images/s, waiting 10%, ")
    assert printed.count("\n") == 1


def test_a_logged_step_on_a_gpu_tells_how_busy_it_is(tmp_path, capsys):
    run_log = RunLog(tmp_path, 0, 100, is_main=True)
    run_log.train_step(20, {**values(1.25), "gpu_utilization": 0.934, "gpu_power_w": 350.0})
    run_log.close()
    assert " 10.0 images/s, waiting 10%, GPU 93%, " in capsys.readouterr().out
    assert tensorboard_scalars(tmp_path, "speed and memory/gpu_power_w") == [(20, 350.0)]


def test_the_cost_is_in_tensorboard_and_not_in_metrics_jsonl(tmp_path):
    cost = Cost(hours=1.0, gpu_hours=8.0, cpu_hours=None, kwh=None, devices=("8 x NVIDIA H100",), images=14400, images_per_s=4.0,
                restarts=0, shares={"steps": 0.75, "waiting": 0.25})
    run_log = RunLog(tmp_path, 0, 100, is_main=True)
    run_log.train_step(20, values(1.25), cost)
    run_log.cost(30, cost)
    run_log.close()
    RunLog(tmp_path / "rank 1", 0, 100, is_main=False).cost(30, cost)
    assert tensorboard_scalars(tmp_path, "total cost/gpu_hours") == [(20, 8.0), (30, 8.0)]
    tags = {tag for tag in events(tmp_path).Tags()["scalars"] if tag.startswith("total cost/")}
    assert {tag.removeprefix("total cost/") for tag in tags} == {
        "hours", "gpu_hours", "images", "images_per_s", "restarts", "share_steps", "share_waiting"}
    assert lines(tmp_path) == [("train", 20)] and set(read_json_lines(tmp_path / "metrics.jsonl")[0]) == {"kind", "step", *values(1.25)}


def test_an_evaluation_and_its_classes_are_in_the_record_and_in_tensorboard(tmp_path, capsys):
    per_class = {"cat": {"AP": 0.5, "AP50": 0.75}, "dog": {"AP": 0.25}}
    run_log = RunLog(tmp_path, 0, 100, is_main=True)
    run_log.evaluation(20, {"AP": 0.123456, "loss": 2.0}, per_class)
    run_log.close()
    assert capsys.readouterr().out.splitlines() == ["evaluation at step 20: AP 0.1235, the best so far", "            AP   loss",
                                                    "step 20  0.123  2.000", "classes  cat 0.500  dog 0.250"]
    assert read_json_lines(tmp_path / "metrics.jsonl") == [{"kind": "evaluation", "step": 20, "AP": 0.123456, "loss": 2.0,
                                                           "per_class": per_class}]
    assert {tag: tensorboard_scalars(tmp_path, tag) for tag in events(tmp_path).Tags()["scalars"]} == {
        "metrics/AP": [(20, pytest.approx(0.123456))], "metrics/best so far": [(20, pytest.approx(0.123456))],
        "loss/validation": [(20, 2.0)],
        "per class AP/cat": [(20, 0.5)], "per class AP50/cat": [(20, 0.75)], "per class AP/dog": [(20, 0.25)]}


def test_drawings_and_curves_are_in_tensorboard(tmp_path):
    run_from(tmp_path, 0, 2)
    accumulator = events(tmp_path)
    image, = accumulator.Images("validation/one.jpg")
    assert (image.step, image.width, image.height, image.encoded_image_string) == (2, 6, 4, drawing().png)
    curve, = accumulator.Tensors("precision and recall/cat")
    assert (curve.step, [dim.size for dim in curve.tensor_proto.tensor_shape.dim]) == (2, [6, 3])


def test_an_evaluation_is_compared_with_those_before_also_after_a_resume(tmp_path, capsys):
    for step, metric in ((10, 0.3), (20, 0.2), (30, 0.4)):
        run_log = RunLog(tmp_path, step, 100, is_main=True)
        run_log.evaluation(step, {"AP50": metric}, {}, "AP50")
        run_log.close()
    out = capsys.readouterr().out
    assert "evaluation at step 20: AP50 0.2000; the best is 0.3000 at step 10" in out and "since step 10  -0.100" in out
    assert "evaluation at step 30: AP50 0.4000, the best so far" in out and "since step 20  +0.200" in out


def test_another_logger_is_one_class_and_one_entry(tmp_path, monkeypatch):
    calls = []

    class ListLogger(Logger):
        def __init__(self, folder: Path, step: int, total_steps: int):
            calls.append(("opened", folder, step, total_steps))

        def scalars(self, kind: str, step: int, values: dict[str, float]) -> None:
            calls.append((kind, step, values))

    monkeypatch.setitem(LOGGERS, "list", ListLogger)
    run_log = RunLog(tmp_path, 3, 10, is_main=True)
    run_log.evaluation(4, {"AP": 0.5}, {"cat": {"AP": 0.25}})
    run_log.image(4, drawing())
    run_log.pr_curve(4, "cat", np.zeros((6, 3)))
    run_log.message("a message")
    run_log.close()
    assert calls == [("opened", tmp_path, 3, 10), ("evaluation", 4, {"AP": 0.5}), ("AP by class", 4, {"cat": 0.25})]


class FullDisk:
    """A file on a full disk, from now on."""

    name = "log.txt"

    def write(self, _text) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    flush = close = lambda self: self.write("")


def test_without_tensorboard_or_log_txt_a_run_goes_on_and_says_so_once(tmp_path, capsys):
    run_log = RunLog(tmp_path, 0, 100, True)
    run_log.loggers["tensorboard"].records = FullDisk()
    run_log.loggers["console"].log = FullDisk()
    for step in (1, 2, 3):
        run_log.train_step(step, values(step))
        run_log.image(step, drawing())
        run_log.flush_tensorboard()
        run_log.flush()
    run_log.close()
    out = capsys.readouterr().out
    assert out.count("tensorboard cannot write into") == 1 == out.count("log.txt cannot be written") and "step 3/100" in out
    assert "No space left on device); the run goes on" in out and lines(tmp_path) == [("train", n) for n in (1, 2, 3)]


def test_without_metrics_jsonl_a_run_ends_with_one_error(tmp_path):
    run_log = RunLog(tmp_path, 0, 100, True)
    run_log.loggers["jsonl"].file.close()
    run_log.loggers["jsonl"].file = FullDisk()
    with pytest.raises(BadInput, match="cannot write .*metrics.jsonl: No space left on device. Make room"):
        run_log.train_step(1, values(1))
    run_log.close()
