"""Tables of metrics: of the data set, of its classes, and of one evaluation beside the one before and the best one."""

import math
from dataclasses import dataclass
from typing import Mapping

from rich.text import Text

from detector.loggers.styled_lines import (
    BEST,
    DIM,
    LABEL,
    TITLE,
    WORSE,
    Block,
    flow,
    labelled,
    shorten_name,
    table,
)

INDENT = 11                # columns of the titles of groups of metrics
LOSS_PREFIX = "loss"       # all losses begin with it: loss, loss_objectness ...
MAX_CLASSES = 30           # rows of a class table on a terminal: of more classes, the best and the worst are shown
SHOWN_CLASSES = 5          # best and worst ones after an evaluation
SECONDARY = ("AR1", "AR10", "ARs", "ARm", "ARl")  # not in the table of an evaluation during training
GOOD_AP, FAIR_AP = 0.5, 0.2  # from which on the AP of a class is green or yellow

Metrics = Mapping[str, float]
PerClass = Mapping[str, Mapping[str, float]]


def format_number(value: float, digits: int = 4) -> str:
    """Returns a metric as text; "-" for -1, the value of an undefined metric such as AP without objects."""
    return "-" if value == -1 else f"{value:.{digits}f}"


def short_loss_name(name: str) -> str:
    """Returns the name of a loss without its prefix: objectness for loss_objectness."""
    return name.removeprefix(f"{LOSS_PREFIX}_")


def is_known(value: float) -> bool:
    """Returns whether a metric is defined and finite."""
    return value != -1 and math.isfinite(value)


def ap_text(value: float, digits: int) -> Text:
    """Returns the AP of a class, green where it is good and yellow where it is fair."""
    style = "" if not is_known(value) else "green" if value >= GOOD_AP else "yellow" if value >= FAIR_AP else ""
    return Text(format_number(value, digits), style)


def evaluated_metrics(metrics: Metrics, per_class: PerClass) -> Block:
    """Returns the block of a whole evaluation: average precision, average recall, losses, and a row for each class."""
    def build(width: int | None) -> list[Text]:
        lines: list[Text] = []
        for label, names in metric_groups(metrics).items():
            fields = [Text.assemble((f"{short_loss_name(name)} ", LABEL),
                                    (format_number(metrics[name]), "bold" if name == "AP" else "")) for name in names]
            lines += labelled(label, flow(fields, width, INDENT), INDENT) if names else []
        return [*lines, Text(), *class_table(per_class, width)] if per_class else lines
    return build


def metric_groups(metrics: Metrics) -> dict[str, list[str]]:
    """Returns the names of the metrics by what they measure: precision, recall, losses."""
    losses = [name for name in metrics if name.startswith(LOSS_PREFIX)]
    recall = [name for name in metrics if name.startswith("AR")]
    return {"precision": [name for name in metrics if name not in (*losses, *recall)], "recall": recall,
            "losses": losses}


def class_table(per_class: PerClass, width: int | None, digits: int = 4, title: str = "class") -> list[Text]:
    """Returns a row for each class, from the highest AP to the lowest; numbers of type int are counts.

    On a terminal, of more than MAX_CLASSES classes only the best and the worst are shown.
    """
    keys = list(next(iter(per_class.values()), {}))
    if not keys:
        return []
    names = by_ap(per_class)
    hidden = 0 if width is None or len(names) <= MAX_CLASSES else len(names) - MAX_CLASSES // 2 * 2
    rows: list[list[str | Text]] = [[Text(title, DIM), *(Text(key, LABEL) for key in keys)]]
    shown = names if not hidden else [*names[:MAX_CLASSES // 2], *names[-(MAX_CLASSES // 2):]]
    for name in shown:
        values = per_class[name]
        cells = [str(values[key]) if isinstance(values[key], int) else format_number(values[key], digits)
                 for key in keys]
        rows.append([shorten_name(name), ap_text(values[keys[0]], digits), *cells[1:]])
    lines = table(rows, width)
    if hidden:
        lines.insert(1 + MAX_CLASSES // 2, Text(f"... {hidden} classes between", DIM))
    return lines


def by_ap(per_class: PerClass) -> list[str]:
    """Returns the names of the classes by falling value of their first metric; classes without a value are last."""
    first = {name: next(iter(values.values()), -1) for name, values in per_class.items()}
    return sorted(per_class, key=lambda name: first[name] if math.isfinite(first[name]) else -1, reverse=True)


@dataclass(frozen=True)
class EvaluationRecord:
    """An evaluation during training, with what it is compared to. Each of `previous` and `best` is (step, metrics)."""

    step: int
    epoch: float | None                     # None: unknown
    metrics: Metrics
    per_class: PerClass
    best_metric: str
    previous: tuple[int, Metrics] | None    # the evaluation before
    best: tuple[int, Metrics] | None        # the best one before this one

    @property
    def is_best(self) -> bool:
        """True for an evaluation that is better than all before."""
        value = self.metrics.get(self.best_metric, math.nan)
        return math.isfinite(value) and (self.best is None or value > self.best[1][self.best_metric])


def evaluation_table(record: EvaluationRecord) -> Block:
    """Returns the block of an evaluation during training: its metrics, their change, the best, and some classes."""
    def build(width: int | None) -> list[Text]:
        above = [] if width is None else [Text()]  # on a terminal, a line of space
        return [*above, *evaluation_title(record, width), *metric_rows(record, width),
                *class_lines(record.per_class, width)]
    return build


def evaluation_title(record: EvaluationRecord, width: int | None) -> list[Text]:
    """Returns the first line of an evaluation, or two: its step, and whether it is the best."""
    epoch = "" if record.epoch is None else f" (epoch {record.epoch:.3g})"
    value = f"{record.best_metric} {format_number(record.metrics.get(record.best_metric, math.nan))}"
    start = Text.assemble((f"evaluation at step {record.step}{epoch}: ", TITLE))
    if record.is_best:
        return [start.append(f"{value}, the best so far", BEST)]
    start.append(value, "bold")
    if not record.best:
        return [start]
    step, best = record.best
    rest = f"the best is {format_number(best[record.best_metric])} at step {step}"
    fits = width is None or start.cell_len + len(rest) + 2 <= width
    return [start.append(f"; {rest}")] if fits else [start, Text(rest)]


def metric_rows(record: EvaluationRecord, width: int | None) -> list[Text]:
    """Returns the table of an evaluation: its metrics, the change since the one before, and the best one."""
    names = [name for name in record.metrics if name not in SECONDARY and not name.startswith(LOSS_PREFIX)]
    names += [LOSS_PREFIX] if LOSS_PREFIX in record.metrics else []
    names.sort(key=lambda name: name.startswith("AR"))  # the last columns are left out where there is no room
    heads = [Text(name, LABEL) for name in names]
    style = BEST if record.is_best else "bold"
    rows: list[list[str | Text]] = [
        ["", *heads],
        [Text(f"step {record.step}", style), *(
            Text(format_number(record.metrics[name], 3), style if name == record.best_metric else "")
            for name in names)]]
    if record.previous:
        step, before = record.previous
        rows.append([Text(f"since step {step}", DIM), *(change_text(name, record.metrics, before) for name in names)])
    if record.best and not record.is_best and record.best != record.previous:
        step, best = record.best
        rows.append([Text(f"best, step {step}", "green"),
                     *(Text(format_number(best.get(name, -1), 3), "green") for name in names)])
    return table(rows, width)


def change_text(name: str, metrics: Metrics, before: Metrics) -> Text:
    """Returns the change of a metric, green where it is better: a loss that falls, or another metric that rises."""
    now, old = metrics[name], before.get(name, -1)
    if not is_known(now) or not is_known(old):
        return Text("-", DIM)
    change = now - old
    is_better = change < 0 if name.startswith(LOSS_PREFIX) else change > 0
    return Text(f"{change:+.3f}", "green" if is_better else WORSE) if abs(change) >= 0.0005 else Text("0.000", DIM)


def class_lines(per_class: PerClass, width: int | None) -> list[Text]:
    """Returns the AP of the best and of the worst classes, or of all where they are few; none for a single class."""
    if len(per_class) < 2:
        return []
    values = {name: next(iter(metrics.values()), -1) for name, metrics in per_class.items()}
    names = [name for name in by_ap(per_class) if is_known(values[name])]
    if len(names) <= 2 * SHOWN_CLASSES:
        groups = {"classes": names}
    else:
        groups = {"best classes": names[:SHOWN_CLASSES], "worst classes": names[:-SHOWN_CLASSES - 1:-1]}
    indent = 2 + max(map(len, groups))
    return [line for label, group in groups.items() if group for line in labelled(label, flow(
        [Text.assemble(f"{shorten_name(name)} ", ap_text(values[name], 3)) for name in group], width, indent), indent)]
