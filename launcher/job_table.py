"""The verb jobs: a table of the runs below a folder, with the cause under each that ended badly; --json, --watch."""

import json
import shutil
import sys
import textwrap
import time
import unicodedata
from collections.abc import Callable
from pathlib import Path

from detector.errors import OK, BadInput
from launcher.run_state import Phase
from launcher.run_summary import Metric, RunSummary, summarize_folder

WATCH_S = 5.0  # between two tables of --watch
MIN_WIDTH = 60
GAP = "  "
CLEAR = "\x1b[H\x1b[2J"  # moves to the top left and clears the terminal
# Columns, each with its cells; those that a narrow terminal leaves out, in this order.
COLUMNS: dict[str, Callable[[RunSummary], str]] = {
    "run": lambda summary: summary.name,
    "state": lambda summary: summary.state.text,
    "job": lambda summary: summary.state.job,
    "step": lambda summary: "" if is_unreadable(summary) else f"{summary.step}/{summary.total_steps or '?'}",
    "images/s": lambda summary: f"{summary.images_per_s:.1f}" if summary.images_per_s else "",
    "left": lambda summary: format_duration(summary.seconds_left),
    "restarts": lambda summary: "" if is_unreadable(summary) else str(summary.restarts),
    "best metric": lambda summary: format_metric(summary.best),
    "last metric": lambda summary: format_metric(summary.last, summary.best),
    "cost": lambda summary: summary.cost.short() if summary.cost else ""}
LEFT_OUT_FIRST = ("restarts", "cost", "images/s", "last metric", "best metric", "left", "job")


def print_jobs(folder: Path, as_json: bool = False, watch: bool = False) -> int:
    """Prints the table of the runs below a folder, or a JSON list with one object for each run. Returns 0.

    Args:
        watch: print it again every WATCH_S seconds, until Ctrl-C.

    Raises:
        BadInput: there is no such folder.
    """
    if not folder.is_dir():
        raise BadInput(f"no folder {folder}: `fleet-rcnn jobs FOLDER` names the folder of the runs")
    while True:
        notes: list[str] = []
        summaries = summarize_folder(folder, notes.append)
        terminal = sys.stdout.isatty()
        if as_json:
            text = json.dumps([summary.as_json() for summary in summaries], indent=1, ensure_ascii=False)
        else:
            text = format_table(summaries, shutil.get_terminal_size().columns if terminal else None)
            text = text or f"no run in {folder}/; `fleet-rcnn jobs FOLDER` names another folder"
        print((CLEAR if watch and terminal else "") + text, flush=True)
        for note in notes:
            print(f"note: {note}", file=sys.stderr, flush=True)
        if not watch:
            return OK
        time.sleep(WATCH_S)
        if not terminal and not as_json:
            print()


def format_table(summaries: list[RunSummary], width: int | None) -> str:
    """Returns the table; "" for no runs.

    Args:
        width: of the terminal in characters: columns that do not fit are left out, causes are wrapped; None: no limit.
    """
    if not summaries:
        return ""
    columns = fitting_columns(summaries, width)
    widths = {name: column_width(name, summaries) for name in columns}
    lines = [GAP.join(pad(name, widths[name]) for name in columns)]
    for summary in summaries:
        lines.append(GAP.join(pad(COLUMNS[name](summary), widths[name]) for name in columns))
        for line in summary.cause.lines() if summary.cause else []:
            lines += wrap(line, width)
    hidden = [name for name in COLUMNS if name not in columns and any(COLUMNS[name](summary) for summary in summaries)]
    if hidden:
        lines += wrap(f"(not shown: {', '.join(hidden)}; a wider terminal or --json shows them)", width, "")
    return "\n".join(line.rstrip() for line in lines)


def fitting_columns(summaries: list[RunSummary], width: int | None) -> list[str]:
    """Returns the columns that fit into a width: empty ones are left out first, then those of LEFT_OUT_FIRST."""
    columns = list(COLUMNS)
    if width is None:
        return columns
    empty = [name for name in LEFT_OUT_FIRST
             if not any(COLUMNS[name](summary).strip("0") for summary in summaries)]
    for name in [*empty, *(name for name in LEFT_OUT_FIRST if name not in empty)]:
        total = sum(column_width(column, summaries) + len(GAP) for column in columns) - len(GAP)
        if total <= max(width, MIN_WIDTH):
            break
        columns.remove(name)
    return columns


def column_width(name: str, summaries: list[RunSummary]) -> int:
    return max(text_width(text) for text in [name, *(COLUMNS[name](summary) for summary in summaries)])


def pad(text: str, width: int) -> str:
    """Returns a text with blanks up to a width."""
    return text + " " * (width - text_width(text))


def text_width(text: str) -> int:
    """Returns the columns that a terminal needs for a text: Chinese characters are two wide, accents have no width."""
    return sum(0 if unicodedata.combining(character) else 2 if unicodedata.east_asian_width(character) in "WF" else 1
               for character in text)


def wrap(text: str, width: int | None, indent: str = "    ") -> list[str]:
    """Returns the lines of an indented text; paths and commands are not broken."""
    if width is None:
        return [indent + text]
    return textwrap.wrap(text, max(width, MIN_WIDTH), initial_indent=indent, subsequent_indent=f"{indent}  ",
                         break_long_words=False, break_on_hyphens=False) or [indent]


def is_unreadable(summary: RunSummary) -> bool:
    return summary.state.phase is Phase.UNKNOWN and summary.log is None


def format_duration(seconds: float | None) -> str:
    """Returns "1:01 h" for 3700 seconds, "5 min" for 300, "20 s" for 20, "" for None."""
    if seconds is None:
        return ""
    minutes = int(seconds) // 60
    if not minutes:
        return f"{int(seconds)} s"
    return f"{minutes // 60}:{minutes % 60:02d} h" if minutes >= 60 else f"{minutes} min"


def format_metric(metric: Metric | None, best: Metric | None = None) -> str:
    """Returns "AP 0.371 at 9000"; without the name if `best` has the same."""
    if metric is None:
        return ""
    name = "" if best and best.name == metric.name else f"{metric.name} "
    return f"{name}{metric.value:.4g} at {metric.step}"
