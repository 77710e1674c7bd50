"""Tables of metrics: what they show, in which order, and within which width."""

import math

import pytest

from detector.loggers.metric_tables import (
    EvaluationRecord,
    class_lines,
    class_table,
    evaluated_metrics,
    evaluation_table,
    format_number,
)
from detector.loggers.styled_lines import plain_lines

COCO = {"AP": 0.31, "AP50": 0.52, "AP75": 0.33, "APs": 0.1, "APm": 0.3, "APl": -1, "AR1": 0.2, "AR10": 0.3, "AR100": 0.4, "ARs": 0.1,
        "ARm": 0.2, "ARl": 0.3, "loss": 1.5, "loss_objectness": 0.25, "loss_rpn_box_reg": 0.25, "loss_classifier": 0.5,
        "loss_box_reg": 0.5}


def record(**changes) -> EvaluationRecord:
    return EvaluationRecord(**{"step": 120, "epoch": 3.0, "metrics": COCO, "per_class": {}, "best_metric": "AP", "previous": None,
                               "best": None, **changes})


def cells(line: str) -> list[str]:
    return line.split()


def class_metrics(*aps: float) -> dict[str, dict[str, float]]:
    return {f"class{number}": {"AP": ap, "AP50": ap, "objects": 12} for number, ap in enumerate(aps)}


def test_an_evaluation_shows_precision_by_size_recall_and_loss():
    title, heads, row = plain_lines(evaluation_table(record()))
    assert title == "evaluation at step 120 (epoch 3): AP 0.3100, the best so far"
    assert cells(heads) == ["AP", "AP50", "AP75", "APs", "APm", "APl", "loss", "AR100"]
    assert cells(row) == ["step", "120", "0.310", "0.520", "0.330", "0.100", "0.300", "-", "1.500", "0.400"]


def test_the_change_since_the_evaluation_before_is_shown_and_green_where_it_is_better():
    before = {**COCO, "AP": 0.3, "AP50": 0.6, "loss": 2.0}
    lines = evaluation_table(record(previous=(80, before), best=(80, before)))(None)
    change = lines[3]
    assert cells(change.plain) == ["since", "step", "80", "+0.010", "-0.080", "0.000", "0.000", "0.000", "-", "-0.500", "0.000"]
    styles = {change.plain[span.start:span.end].strip(): span.style for span in change.spans}
    assert (styles["+0.010"], styles["-0.080"], styles["-0.500"]) == ("green", "red", "green")
    assert lines[0].plain.endswith("the best so far")


def test_an_evaluation_that_is_not_the_best_names_the_best():
    best, before = (40, {**COCO, "AP": 0.4}), (80, {**COCO, "AP": 0.35})
    lines = plain_lines(evaluation_table(record(previous=before, best=best)))
    assert lines[0] == "evaluation at step 120 (epoch 3): AP 0.3100; the best is 0.4000 at step 40"
    assert cells(lines[4])[:4] == ["best,", "step", "40", "0.400"]
    assert len(plain_lines(evaluation_table(record(previous=best, best=best)))) == 4, "the change tells the best"


def test_a_metric_that_is_not_finite_is_never_the_best():
    title = plain_lines(evaluation_table(record(metrics={"AP": math.nan}, epoch=None)))[0]
    assert title == "evaluation at step 120: AP nan"


@pytest.mark.parametrize("width", [60, 70, 80, 140, 200])
def test_no_line_is_wider_than_the_terminal(width):
    classes = class_metrics(*(number / 40 for number in range(40)))
    classes["a class with a name that is much longer than any column"] = {"AP": 0.5, "AP50": 0.5, "objects": 1234567}
    best = (100000, {**COCO, "AP": 0.4})
    tables = [evaluation_table(record(step=123456, per_class=classes, previous=(120000, COCO), best=best)),
              evaluated_metrics(COCO, classes)]
    for block in tables:
        lines = block(width)
        assert len(lines) > 4 and max(line.cell_len for line in lines) <= width


def test_a_narrow_terminal_keeps_the_first_columns():
    lines = evaluation_table(record(step=123456, previous=(120000, {**COCO, "AP": 0.2}), best=(120000, COCO)))(60)
    assert cells(lines[3].plain)[:4] == ["AP", "AP50", "AP75", "APs"]


def test_few_classes_are_all_shown_from_the_best_to_the_worst():
    lines = class_lines(class_metrics(0.1, 0.3, -1, 0.2), None)
    assert [line.plain for line in lines] == ["classes  class1 0.300  class3 0.200  class0 0.100"]


def test_of_many_classes_the_five_best_and_the_five_worst_are_shown():
    best, worst = class_lines(class_metrics(*(number / 20 for number in range(20))), None)
    assert best.plain.split()[2::2] == ["class19", "class18", "class17", "class16", "class15"]
    assert worst.plain.split()[2::2] == ["class0", "class1", "class2", "class3", "class4"]


@pytest.mark.parametrize("per_class", [{}, class_metrics(0.5)])
def test_no_or_one_class_needs_no_list(per_class):
    assert class_lines(per_class, 80) == []


def test_a_class_table_is_sorted_and_counts_have_no_digits():
    lines = [cells(line.plain) for line in class_table(class_metrics(0.25, -1.0, 0.5), None)]
    assert lines == [["class", "AP", "AP50", "objects"], ["class2", "0.5000", "0.5000", "12"], ["class0", "0.2500", "0.2500", "12"],
                     ["class1", "-", "-", "12"]]
    assert class_table({}, 80) == []


def test_of_very_many_classes_a_terminal_shows_the_ends_and_a_file_all():
    classes = class_metrics(*(number / 80 for number in range(80)))
    lines = [line.plain for line in class_table(classes, 80)]
    assert len(lines) == 32 and "... 50 classes between" in lines and lines[1].startswith("class79") and lines[-1].startswith("class0 ")
    assert len(class_table(classes, None)) == 81


def test_metrics_are_grouped_by_what_they_measure():
    assert plain_lines(evaluated_metrics(COCO, {})) == [
        "precision  AP 0.3100  AP50 0.5200  AP75 0.3300  APs 0.1000  APm 0.3000  APl -",
        "recall     AR1 0.2000  AR10 0.3000  AR100 0.4000  ARs 0.1000  ARm 0.2000  ARl 0.3000",
        "losses     loss 1.5000  objectness 0.2500  rpn_box_reg 0.2500  classifier 0.5000  box_reg 0.5000"]
    assert plain_lines(evaluated_metrics({"AP": 0.5, "AP_11point": 0.25}, {})) == ["precision  AP 0.5000  AP_11point 0.2500"]


@pytest.mark.parametrize("value, text", [(-1, "-"), (0.12344, "0.1234"), (math.nan, "nan")])
def test_undefined_metrics_are_a_dash(value, text):
    assert format_number(value) == text
