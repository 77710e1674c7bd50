"""Plots of the last evaluation: precision-recall curves and the confusion matrix."""

from typing import TYPE_CHECKING

import numpy as np

from detector.visualization.plot_history import best_and_worst, legend_name, line_style, style_axes

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MAX_CELLS = 20    # classes in the confusion matrix: of more, those that are confused most
MAX_NUMBERS = 13  # classes up to which cells hold fractions; those of more classes hold percent


def draw_pr_curves(figure: "Figure", curves: dict) -> None:
    """Draws precision over recall at IoU 0.5: of all classes, or of the best and the worst ones, and their mean.

    Args:
        curves: the content of plots/curves.json.
    """
    axes, recall = figure.subplots(), np.linspace(0, 1, 101)
    known = {name: np.array(curve) for name, curve in zip(curves["classes"], curves["precision"]) if curve is not None}
    names = sorted(known, key=lambda name: -known[name].mean())
    shown = best_and_worst(names)
    for name in names:
        if name not in shown:
            axes.plot(recall, known[name], color="#b8bfca", linewidth=0.7, alpha=0.6)
    for place, name in enumerate(shown):
        axes.plot(recall, known[name], line_style(place, shown == names), linewidth=1.5,
                  label=f"{legend_name(name)}  {known[name].mean():.3f}")
    if known:
        mean = np.array(curves["mean_precision"])
        axes.plot(recall, mean, "k", linewidth=3, label=f"mean  {mean.mean():.3f}")
        axes.legend(fontsize=9, title="AP50", loc="upper left", bbox_to_anchor=(1, 1))
    style_axes(axes, f"Precision over recall at IoU 0.5, step {curves['step']}", "recall", "precision")
    axes.set_xlim(0, 1)
    axes.set_ylim(0, 1.02)


def draw_confusion(figure: "Figure", curves: dict) -> None:
    """Draws the confusion matrix at the score with the highest F1: each row as fractions of its true class.

    The last column holds missed objects, the last row false detections.

    Args:
        curves: the content of plots/curves.json.
    """
    counts, names = confused_most(np.array(curves["confusion"], np.float64), curves["classes"])
    fractions = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    axes = figure.subplots()
    axes.imshow(fractions, cmap="Blues", vmin=0, vmax=1, aspect="auto")
    labels, size = [legend_name(name) for name in names], max(10, 15 - len(names))
    length = 0.6 * size / 72 * max(map(len, [*labels, "missed"]))  # of the longest label, inches
    is_wide = length * (len(names) + 1) > 0.8 * figure.get_figwidth()
    axes.set_xticks(range(len(names) + 1), [*labels, "missed"], rotation=90 if is_wide else 0, fontsize=size)
    axes.set_yticks(range(len(names) + 1), [*labels, "no object"], fontsize=size)
    axes.set_xticks(np.arange(len(names) + 2) - 0.5, minor=True)
    axes.set_yticks(np.arange(len(names) + 2) - 0.5, minor=True)
    axes.grid(which="minor", color="white", linewidth=1)
    axes.tick_params(which="both", length=0)
    for row, column in np.argwhere(counts > 0):
        axes.text(column, row, cell_text(fractions[row, column], int(counts[row, column]), len(names)), ha="center",
                  va="center", fontsize=size - 1 if len(names) <= MAX_NUMBERS else 8,
                  color="white" if fractions[row, column] > 0.5 else "black")
    every = len(names) == len(curves["classes"])
    subset = "" if every else f" of the {len(names)} most confused of {len(curves['classes'])} classes\n"
    unit = "" if len(names) <= MAX_NUMBERS else " in percent"
    point = f"at score {curves['best_score']:.2f} (F1 {curves['f1']:.3f}), step {curves['step']}"
    figure.suptitle(f"Confusion{unit}{subset} {point}", x=0.01, ha="left", fontsize=11, fontweight="bold")
    axes.set_xlabel("detected as")
    axes.set_ylabel("true class")


def cell_text(fraction: float, count: int, classes: int) -> str:
    """Returns the text of a cell of a confusion matrix, the shorter the more classes there are."""
    if classes <= 5:
        return f"{fraction:.2f}\n({count})"
    if classes <= MAX_NUMBERS:
        return f"{fraction:.2f}"
    return f"{100 * fraction:.0f}" if fraction >= 0.005 else ""


def confused_most(confusion: np.ndarray, classes: list[str]) -> tuple[np.ndarray, list[str]]:
    """Returns the rows and columns of the classes with the most errors, with background last, and their names.

    Args:
        confusion: float64 [C + 1, C + 1], 0 is background.
    """
    wrong = confusion.copy()
    np.fill_diagonal(wrong, 0)
    errors = (wrong.sum(axis=0) + wrong.sum(axis=1))[1:]
    chosen = np.sort(np.argsort(-errors, kind="stable")[:MAX_CELLS])
    order = [*(chosen + 1), 0]
    return confusion[np.ix_(order, order)], [classes[index] for index in chosen]
