"""A logged step as a line, and the live lines of a terminal."""

import pytest

from detector.loggers.progress import RunProgress, format_duration, live_lines, step_line

VALUES = {"epoch": 2.5, "loss": 1.25, "loss_objectness": 0.25, "loss_rpn_box_reg": 0.125, "loss_classifier": 0.5, "loss_box_reg": 0.375,
          "lr": 0.02, "gradient_norm": 3.0, "images_per_s": 12.34, "data_wait": 0.02, "gpu_utilization": 0.93, "gpu_memory_gib": 12.3,
          "cpu_share": 0.5, "memory_gib": 10.0}
TRAINING = RunProgress(50, 240, 20, 754.0, VALUES)


def text_of(progress: RunProgress, width: int) -> str:
    return "\n".join(line.plain for line in live_lines(progress, width))


@pytest.mark.parametrize("width", [60, 80, 140, 200])
def test_the_live_lines_show_everything_at_any_width(width):
    text = text_of(TRAINING, width)
    assert max(map(len, text.splitlines())) <= width
    for part in ("epoch 2.5/12", "step 50/240", "21%", "0:12:34 left", "loss 1.250", "objectness 0.250", "rpn_box_reg 0.125",
                 "classifier 0.500", "box_reg 0.375", "lr 0.02", "12.3 images/s", "waiting 2%", "GPU 93%", "GPU memory 12.3 GiB", "CPU 50%",
                 "peak memory 10.0 GiB"):
        assert part in text, part


def test_before_the_first_step_only_the_bar_is_shown():
    lines = live_lines(RunProgress(0, 240), 80)
    assert len(lines) == 1 and "step 0/240" in lines[0].plain and "left" not in lines[0].plain


def test_losses_of_a_newer_step_take_the_place_of_the_logged_ones():
    text = text_of(RunProgress(51, 240, 20, 700.0, VALUES, {"loss": 2.0, "loss_objectness": 2.0}), 80)
    assert "loss 2.000  objectness 2.000  lr" in text


def test_an_evaluation_shows_its_batches():
    text = text_of(RunProgress(50, 240, 20, 754.0, VALUES, evaluated=(3, 12)), 80)
    assert text.startswith("evaluating  batch 3/12") and "25%" in text


def test_the_line_of_a_step_holds_the_four_losses():
    assert step_line(TRAINING) == (
        "step 50/240 epoch 2.50 loss 1.2500 (objectness 0.2500, rpn_box_reg 0.1250, classifier 0.5000, box_reg 0.3750) lr 0.02 "
        "12.3 images/s, waiting 2%, GPU 93%, 0:12:34 left")


@pytest.mark.parametrize("seconds, text", [(0, "0:00:00"), (59.9, "0:00:59"), (3661, "1:01:01"), (360000, "100:00:00")])
def test_durations_are_hours_minutes_and_seconds(seconds, text):
    assert format_duration(seconds) == text
