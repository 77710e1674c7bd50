"""plots/ in a run folder: losses, metrics, precision-recall curves and confusion as PNG, 800 pixels wide.

    python -m detector.visualization.plots RUN

draws them from metrics.jsonl and plots/curves.json. A training does so after each evaluation, in a process of low
priority beside its steps, which imports no torch.
"""

import io
import os
import sys
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Callable

from detector.distributed.stop_signal import terminate_with_parent
from detector.run.evaluation_history import best_evaluation, read_evaluations, read_metrics
from detector.run.files import CURVES_FILE, PLOTS_FOLDER, read_json
from detector.visualization.plot_curves import draw_confusion, draw_pr_curves
from detector.visualization.plot_history import draw_losses, draw_metrics

if TYPE_CHECKING:
    from matplotlib.figure import Figure

DPI = 100
SIZE = 8.0, 6.0  # inches


def draw_plots(run: Path, best_metric: str = "AP") -> list[Path]:
    """Draws all plots for which there are numbers, and returns their files.

    Args:
        best_metric: the metric by which the best evaluation is marked.
    """
    lines, evaluations, curves = read_metrics(run), read_evaluations(run), read_json(run / CURVES_FILE)
    steps = [line for line in lines if line["kind"] == "train"]
    drawings: dict[str, Callable[["Figure"], None]] = {}
    if steps:
        drawings["losses"] = lambda figure: draw_losses(figure, steps, evaluations)
    if evaluations:
        best = best_evaluation(evaluations, best_metric)
        drawings["metrics"] = lambda figure: draw_metrics(figure, evaluations, best, best_metric)
    if curves.get("classes"):
        drawings["pr_curves"] = lambda figure: draw_pr_curves(figure, curves)
        drawings["confusion"] = lambda figure: draw_confusion(figure, curves)
    return [save_plot(run, name, draw) for name, draw in drawings.items()]


def save_plot(run: Path, name: str, draw: Callable[["Figure"], None]) -> Path:
    """Draws a figure and writes it as plots/NAME.png, whole or not at all."""
    path = run / PLOTS_FOLDER / f"{name}.png"
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{name}.part")
    partial.write_bytes(draw_png(draw))
    partial.replace(path)
    return path


def draw_png(draw: Callable[["Figure"], None], size: tuple[float, float] = SIZE) -> bytes:
    """Returns a figure as PNG; size: width and height in inches."""
    from matplotlib.figure import Figure
    figure, buffer = Figure(size, DPI, layout="constrained"), io.BytesIO()
    draw(figure)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # signs that the font lacks
        figure.savefig(buffer, format="png")
    return buffer.getvalue()


def main(arguments: list[str]) -> int:
    """Draws the plots of a run. Arguments: the run folder; its evaluate.best_metric; what is added to the niceness."""
    run, best_metric, nice = (*arguments, *("", "AP", "0")[len(arguments):])
    terminate_with_parent()
    os.nice(int(nice))
    draw_plots(Path(run), best_metric)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
