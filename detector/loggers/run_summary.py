"""The last lines of a training: the best and the last evaluation, classes, time, files, and what one may do next."""

import importlib.util
import shlex
from collections.abc import Sequence
from pathlib import Path

from rich.text import Text

from detector.errors import count_of
from detector.loggers.metric_tables import class_table, format_number, short_loss_name
from detector.loggers.progress import format_duration
from detector.loggers.styled_lines import BEST, DIM, TITLE, Block, flow, labelled, wrap
from detector.run import files
from detector.run.checkpoint_files import best_path, checkpoint_path
from detector.run.evaluation_history import PastEvaluation, best_evaluation, read_evaluations
from detector.run.usage import read_cost

INDENT = 12  # columns of the titles
FILES = {files.PLOTS_FOLDER: "losses, metrics, curves, confusion", files.PICTURES_FOLDER: "validation images",
         files.RESULTS_FILE: "the last evaluation", files.METRICS_FILE: "all numbers", files.LOG_FILE: "this log"}


def run_summary(folder: Path, step: int, total_steps: int, best_metric: str, image: str = "") -> Block:
    """Returns the block at the end of a run.

    Args:
        step: completed steps, fewer than `total_steps` after early stopping.
        best_metric: the metric that best.pt follows.
        image: a file to which the detector may be applied, for an example; empty: none is known.
    """
    evaluations = read_evaluations(folder)

    def build(width: int | None) -> list[Text]:
        best, last = best_evaluation(evaluations, best_metric), evaluations[-1] if evaluations else None
        title = f"finished: {step} of {total_steps} steps are done; results are in {folder}"
        lines = [] if width is None else [Text("─" * width)]
        lines = [Text.assemble((line.plain, TITLE)) for line in (*lines, *wrap(title, width))]
        lines += evaluation_lines(folder, best, last, best_metric, width)
        lines += labelled("time", flow(describe_time(folder), width, INDENT), INDENT)
        if best and best.per_class:
            classes = class_table(best.per_class, None if width is None else width - INDENT, digits=3,
                                  title=f"at step {best.step}")
            lines += labelled("classes", [indented(line, index) for index, line in enumerate(classes)], INDENT)
        present = [Text.assemble(name + ("/" if (folder / name).is_dir() else ""), (f" ({text})", DIM))
                   for name, text in FILES.items() if (folder / name).exists()]
        lines += labelled("files", flow(present, width, INDENT), INDENT)
        commands = next_commands(folder, image, has_evaluation=last is not None)
        lines += labelled("next", [indented(Text(command), index) for index, command in enumerate(commands)], INDENT)
        return lines
    return build


def indented(line: Text, index: int) -> Text:
    return Text.assemble(" " * INDENT, line) if index else line


def evaluation_lines(folder: Path, best: PastEvaluation | None, last: PastEvaluation | None, best_metric: str,
                     width: int | None) -> list[Text]:
    """Returns the best evaluation with the file of its weights, and the last one, with the losses of both."""
    lines: list[Text] = []
    rows = [("best", best, best_path(folder))]
    if best is not None and best == last:
        rows = [("best, last", best, best_path(folder))]
    elif last is not None:
        rows.append(("last", last, checkpoint_path(folder, last.step)))
    for label, past, path in rows:
        if past is None:
            continue
        value = f"{best_metric} {format_number(past.metrics[best_metric])}"
        fields = [Text(value, BEST if past is best else "bold"), f"at step {past.step}",
                  *other_metrics(past, best_metric)]
        fields += [path.relative_to(folder).as_posix()] if path.exists() else []
        lines += labelled(label, flow(fields, width, INDENT), INDENT)
    return lines


def other_metrics(past: PastEvaluation, best_metric: str) -> list[str]:
    """Returns the other headline metrics of an evaluation and its loss."""
    return [f"{short_loss_name(name)} {format_number(past.metrics[name])}" for name in ("AP", "AP50", "AP75", "loss")
            if name in past.metrics and name != best_metric]


def describe_time(folder: Path) -> list[str]:
    """Returns the duration of all starts of a run together, and its speed."""
    cost = read_cost(folder)
    if cost is None:
        return ["unknown"]
    starts = f"in {cost.restarts + 1} starts" if cost.restarts else ""
    return [field for field in (format_duration(3600 * cost.hours), starts, count_of(cost.images, "image"),
                                f"{cost.images_per_s:.1f} images/s over all") if field]


def next_commands(folder: Path, image: str, has_evaluation: bool) -> list[str]:
    """Returns commands that suit a finished run."""
    run = shlex.quote(str(folder))
    has_onnx = all(importlib.util.find_spec(package) for package in ("onnx", "onnxruntime", "onnxscript"))
    commands: Sequence[str] = [
        f"fleet-rcnn evaluate {run} --report" if has_evaluation else "",
        f"fleet-rcnn predict {run} {shlex.quote(image)}" if image else "",
        f"fleet-rcnn export {run} --format {'onnx' if has_onnx else 'weights'}"]
    return [command for command in commands if command]
