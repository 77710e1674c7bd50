"""Plots over the steps of a run: losses and learning rate, metrics and classes."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from detector.run.evaluation_history import PastEvaluation

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MAX_LINES = 10   # classes in one plot: of more, the best and the worst ones
MAX_NAME = 20    # letters of a class name
WINDOW = 40      # a curve is smoothed over this fraction of its points: 1 / WINDOW
TOTAL, GRID, BEST = "#1757b4", "#d7dbe2", "#1a7f37"
METRIC_NAMES = ("AP", "AP50", "AP75", "APs", "APm", "APl", "AP_11point", "AP_weighted", "AR100")


def legend_name(name: str) -> str:
    """Returns a class name for a legend: short, and without signs that matplotlib takes for markup."""
    short = name if len(name) <= MAX_NAME else name[:MAX_NAME - 1] + "…"
    return (f" {short}" if short.startswith("_") else short).replace("$", r"\$")


def style_axes(axes: "Axes", title: str, x: str, y: str) -> None:
    axes.set_title(title, loc="left", fontsize=11, fontweight="bold")
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    axes.grid(color=GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def smooth(values: np.ndarray) -> np.ndarray:
    """Returns the moving mean of a curve over 1 / WINDOW of its points, at least one; NaNs are left out of it.

    Args:
        values: float64 [N].
    """
    half = len(values) // WINDOW // 2
    known = np.isfinite(values)
    totals = np.concatenate([[0.0], np.cumsum(np.where(known, values, 0.0))])
    counts = np.concatenate([[0], np.cumsum(known)])
    first = np.maximum(np.arange(len(values)) - half, 0)
    last = np.minimum(np.arange(len(values)) + half + 1, len(values))
    count = counts[last] - counts[first]
    return np.divide(totals[last] - totals[first], count, out=np.full(len(values), np.nan), where=count > 0)


def column(lines: Sequence[dict], name: str) -> np.ndarray:
    """Returns a value of each line, float64 [N]; NaN where it is missing."""
    return np.array([line.get(name, np.nan) for line in lines], np.float64)


def draw_losses(figure: "Figure", steps: Sequence[dict], evaluations: Sequence[PastEvaluation]) -> None:
    """Draws the losses of training and validation, and below them the learning rate.

    Args:
        steps: the lines of logged steps in metrics.jsonl, at least one.
    """
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=[3, 1])
    at = column(steps, "step")
    total = column(steps, "loss")
    marker = "o" if len(steps) == 1 else ""
    above.plot(at, total, color=TOTAL, alpha=0.25, linewidth=1)
    above.plot(at, smooth(total), color=TOTAL, linewidth=2, marker=marker, label="loss")
    for number, name in enumerate((name for name in steps[-1] if name.startswith("loss_")), 1):
        above.plot(at, smooth(column(steps, name)), color=f"C{number}", linewidth=1.2, marker=marker,
                   label=name.removeprefix("loss_"))
    validated = [past for past in evaluations if "loss" in past.metrics]
    if validated:
        above.plot([past.step for past in validated], [past.metrics["loss"] for past in validated], "k--o",
                   linewidth=1.2, markersize=4, label="validation loss")
    finite = total[np.isfinite(total)]
    if len(finite):  # the first, very large values would flatten all others
        top = max(float(np.quantile(finite, 0.98)), *(past.metrics["loss"] for past in validated), float(finite[-1]))
        above.set_ylim(0, 1.1 * top if np.isfinite(top) and top > 0 else None)
    style_axes(above, "Losses", "", "loss")
    above.legend(fontsize=9, ncols=2, loc="upper right")
    below.plot(at, column(steps, "lr"), color=TOTAL, linewidth=1.5, marker=marker)
    below.set_ylim(bottom=0)
    style_axes(below, "Learning rate", "step", "lr")


def draw_metrics(figure: "Figure", evaluations: Sequence[PastEvaluation], best: PastEvaluation | None,
                 best_metric: str) -> None:
    """Draws the metrics of all evaluations with the best one marked, and below them the AP of classes.

    Args:
        evaluations: at least one.
    """
    classes = chosen_classes(evaluations[-1])
    above, below = (figure.subplots(2, 1, sharex=True, height_ratios=[1, 1]) if classes
                    else (figure.subplots(), None))
    at = [past.step for past in evaluations]
    for name in [name for name in METRIC_NAMES if name in evaluations[-1].metrics]:
        values = [known(past.metrics.get(name, np.nan)) for past in evaluations]
        if not np.isfinite(values).any():
            continue
        above.plot(at, values, marker="o", markersize=4, linewidth=2.2 if name == best_metric else 1.2, label=name)
    title = "Metrics on the validation images"
    if best is not None:
        value = best.metrics[best_metric]
        above.axvline(best.step, color=BEST, linestyle=":", linewidth=1.2)
        above.plot([best.step], [value], marker="*", markersize=15, color=BEST, linestyle="", zorder=5)
        title += f"; best {best_metric} {value:.4f} at step {best.step}"
    style_axes(above, title, "" if classes else "step", "")
    above.set_ylim(bottom=0)
    if above.get_legend_handles_labels()[0]:
        above.legend(fontsize=9, loc="upper left", bbox_to_anchor=(1, 1))
    if below is not None:
        few = len(classes) == len(evaluations[-1].per_class)
        for place, name in enumerate(classes):
            values = [known(next(iter(past.per_class.get(name, {}).values()), np.nan)) for past in evaluations]
            below.plot(at, values, line_style(place, few), marker="o", markersize=3, linewidth=1.2,
                       label=legend_name(name))
        style_axes(below, "AP of each class" if few else "AP of the best and the worst (dashed) classes", "step", "")
        below.set_ylim(bottom=0)
        below.legend(fontsize=9, loc="upper left", bbox_to_anchor=(1, 1))


def best_and_worst(names: list[str]) -> list[str]:
    """Returns all names, or of more than MAX_LINES the first and the last ones.

    Args:
        names: of classes, the best ones first.
    """
    return names if len(names) <= MAX_LINES else [*names[:MAX_LINES // 2], *names[-(MAX_LINES // 2):]]


def line_style(place: int, are_all: bool) -> str:
    """Returns the style of a class's line: dashed for the worst ones, where not all classes are shown."""
    return "-" if are_all or place < MAX_LINES // 2 else "--"


def known(value: float) -> float:
    """Returns a metric; NaN for -1, the value of an undefined one."""
    return np.nan if value == -1 else value


def chosen_classes(past: PastEvaluation) -> list[str]:
    """Returns the names of the classes from the highest AP to the lowest; of many, the best and the worst ones."""
    values = {name: known(next(iter(metrics.values()), np.nan)) for name, metrics in past.per_class.items()}
    names = [name for name in values if np.isfinite(values[name])]
    return best_and_worst(sorted(names, key=lambda name: -values[name]))
