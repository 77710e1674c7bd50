"""Builds the rows of a comparison, published beside measured, and renders them as text, Markdown and CSV."""

import csv
import io
import textwrap
from dataclasses import dataclass, fields
from pathlib import Path

from detector.tables.measured import MeasuredRow, RunFigures, read_measured_row
from detector.tables.published import PublishedRow, leading_number

NOT_MEASURED = "not measured"
# Fields of PublishedRow and their titles: the columns of the original tables, in their order.
HEADER = {"model": "model", "gpus": "#GPUs", "batch": "batch", "lr": "lr", "lr_decay": "lr decay", "epochs": "epochs",
          "time": "time/epoch", "memory": "mem/GPU", "map": "mAP"}
MAX_CHANGES = 4  # changed options that a remark lists


@dataclass(frozen=True)
class TableRow:
    """A published row and what was measured; all cells are texts."""

    row: str
    table: str
    source: str               # where the row is printed
    printed: dict[str, str]   # by the keys of HEADER
    measured: dict[str, str]  # the same; {} if nothing was measured
    gap: str                  # measured minus printed mAP, percent points
    verdict: str              # "within 1.0", "outside 1.0" or ""
    speed_up: str
    tolerance: str
    seeds: str
    commit: str
    hardware: str
    date: str
    remark: str               # why the measured figures do not count; "" if they do


def build_rows(rows: list[PublishedRow], runs: Path) -> list[TableRow]:
    """Returns a table row for each published row, with the runs found below the folder `runs`."""
    return [build_row(row, read_measured_row(row.row, runs)) for row in rows]


def build_row(row: PublishedRow, measured: MeasuredRow) -> TableRow:
    printed = {key: getattr(row, key) for key in HEADER}
    if not measured.runs:
        return TableRow(row.row, row.table, row.source, printed, {}, "", "", "", row.tolerance, "", "", "", "", "")
    gap, verdict = "", ""
    if measured.is_counted and (printed_map := leading_number(row.map)) is not None:
        difference = round(measured.map - printed_map, 2)
        gap = f"{difference:+.1f}"
        if (tolerance := leading_number(row.tolerance)) is not None:
            verdict = f"{'within' if abs(difference) <= tolerance else 'outside'} {row.tolerance}"
    runs = measured.runs
    return TableRow(row.row, row.table, row.source, printed, measured_cells(measured, row.time), gap, verdict,
                    speed_up(row.time, measured), row.tolerance, ", ".join(str(run.config.seed) for run in runs),
                    ", ".join(dict.fromkeys(short_commit(run.commit) for run in runs)),
                    "; ".join(dict.fromkeys(run.hardware for run in runs)), max(run.date for run in runs),
                    "" if measured.is_counted else why_not_counted(runs[0]))


def short_commit(commit: str) -> str:
    """Returns the first nine digits; a "+" at the end (uncommitted changes) is kept."""
    return commit[:9] + ("+" if commit.endswith("+") else "")


def measured_cells(measured: MeasuredRow, printed_time: str) -> dict[str, str]:
    """Returns the measured cells by the keys of HEADER; the time is in the unit of `printed_time`."""
    run = measured.runs[0]
    optim, schedule = run.config.optim, run.config.schedule
    batch = run.config.batch.size or run.config.batch.micro_batch_size * run.processes
    mean_ap = f"{measured.map:.1f}" if measured.map is not None else "not yet"
    if measured.spread is not None:
        mean_ap += f" ± {measured.spread:.1f}"
    return {"model": run.config.model.backbone, "gpus": str(run.processes) if "CPU" not in run.hardware else "CPU",
            "batch": str(batch), "lr": f"{optim.lr * batch / optim.reference_batch_size:g}",
            "lr_decay": describe_lr_decay(run),
            "epochs": f"{run.total_steps / run.steps_per_epoch:.3g}" if schedule.steps else f"{schedule.epochs:g}",
            "time": f"{measured.mean('step_s'):.3g} s/step" if "s/step" in printed_time else
            f"{measured.mean('epoch_h'):.3g} hr", "memory": f"{measured.mean('memory_gib') * 1024:.0f} MiB",
            "map": mean_ap}


def describe_lr_decay(run: RunFigures) -> str:
    schedule = run.config.schedule
    if schedule.lr_schedule == "milestones":
        return ", ".join(f"{epoch:g}" for epoch in schedule.milestones)
    return str(schedule.period) if schedule.lr_schedule == "periodic" else schedule.lr_schedule


def speed_up(printed_time: str, measured: MeasuredRow) -> str:
    """Returns printed time / measured time; "" if no time is printed, or the run's config differs from the row's."""
    printed = leading_number(printed_time) if not measured.runs[0].changes else None
    now = measured.mean("step_s") if "s/step" in printed_time else measured.mean("epoch_h")
    return f"{printed / now:.2f}x" if printed and now else ""


def why_not_counted(run: RunFigures) -> str:
    reasons = [] if run.is_finished else [f"step {run.step:,} of {run.total_steps:,}"]
    reasons += run.changes[:MAX_CHANGES]
    if len(run.changes) > MAX_CHANGES:
        reasons.append(f"and {len(run.changes) - MAX_CHANGES} more")
    return "; ".join(reasons)


COLUMNS = ["row", "", *HEADER.values(), "gap", "speed-up", "tolerance", "seed", "commit", "hardware", "date"]
LEFT_OUT_FIRST = ["seed", "tolerance", "speed-up", "mem/GPU", "time/epoch", "lr decay", "lr",
                  "batch", "epochs", "#GPUs", "model"]  # on a narrow terminal


def printed_and_measured(row: TableRow) -> tuple[list[str], list[str]]:
    """Returns the two lines of a row, with a cell for each of COLUMNS."""
    comparison = [row.gap, row.speed_up, row.verdict or row.tolerance, row.seeds, row.commit, row.hardware, row.date]
    empty = [""] * len(comparison)
    if row.measured:
        measured = [*(row.measured.get(key, "") for key in HEADER), *comparison]
    else:
        measured = [NOT_MEASURED, *[""] * (len(HEADER) - 1), *empty]
    return ([row.row, "printed", *(row.printed[key] for key in HEADER), *empty],
            [f"({row.remark})" if row.remark else "", "measured", *measured])


def by_table(rows: list[TableRow]) -> dict[str, list[TableRow]]:
    """Returns the rows of each table, by its title."""
    tables: dict[str, list[TableRow]] = {}
    for row in rows:
        tables.setdefault(row.table, []).append(row)
    return tables


def printed_by(rows: list[TableRow]) -> list[str]:
    """Returns a sentence for each source of the figures of a table, with its rows if there are several sources."""
    rows_by_source: dict[str, list[str]] = {}
    for row in rows:
        rows_by_source.setdefault(row.source, []).append(row.row)
    return [f"Printed by {source}" + (": " + ", ".join(names) if len(rows_by_source) > 1 else "")
            for source, names in rows_by_source.items() if source]


def as_text(rows: list[TableRow], columns: int | None = None) -> str:
    """Returns the tables for a terminal: aligned columns; hardware, commit and date on a line of their own.

    Args:
        columns: of the terminal: columns of the tables that do not fit are left out and named; None: no limit.
    """
    parts, names = [], COLUMNS[:COLUMNS.index("commit")]
    hidden: list[str] = []
    for title, members in by_table(rows).items():
        lines = []  # (row, kind, cells by column)
        for row in members:
            printed, measured = printed_and_measured(row)
            lines += [(row, "printed", dict(zip(names, printed))),
                      (row, "measured", {**dict(zip(names, measured)), names[0]: ""})]
        widths = {name: max(len(cells[name]) for cells in [{name: name}, *(cells for _, _, cells in lines)])
                  for name in names}
        left_out = columns_to_leave_out(widths, columns)
        hidden += [name for name in left_out if name not in hidden]
        shown = {name: width for name, width in widths.items() if name not in left_out}
        text = [title, "", align([*shown], [*shown.values()]), "-" * total_width(shown)]
        for row, kind, cells in lines:
            text.append(align([cells[name] for name in shown], [*shown.values()]))
            if kind == "measured" and row.measured:
                remark = f"; does not count: {row.remark}" if row.remark else ""
                about = f"{row.hardware}; commit {row.commit or 'unknown'}; {row.date}{remark}"
                text += textwrap.wrap(about, columns or max(80, len(about) + 2), initial_indent="  ",
                                      subsequent_indent="  ")
        text.append("")
        for sentence in printed_by(members):
            text += textwrap.wrap(sentence, columns or max(80, len(sentence)), break_on_hyphens=False)
        parts.append("\n".join(text).rstrip())
    if hidden:
        note = f"(not shown: {', '.join(hidden)}; a wider terminal, --csv or --html shows them)"
        parts.append(textwrap.fill(note, columns or len(note), break_on_hyphens=False))
    return "\n\n\n".join(parts)


def columns_to_leave_out(widths: dict[str, int], columns: int | None) -> list[str]:
    """Returns the columns without which a table fits into a terminal, those of LEFT_OUT_FIRST in their order."""
    left_out: list[str] = []
    for name in LEFT_OUT_FIRST if columns else ():
        if total_width({other: width for other, width in widths.items() if other not in left_out}) <= columns:
            break
        left_out.append(name)
    return left_out


def total_width(widths: dict[str, int]) -> int:
    """Returns the width of a table with columns of these widths."""
    return sum(widths.values()) + 2 * (len(widths) - 1)


def align(cells: list[str], widths: list[int]) -> str:
    return "  ".join(cell.ljust(width) for cell, width in zip(cells, widths)).rstrip()


def as_markdown(rows: list[TableRow]) -> str:
    parts = []
    for title, members in by_table(rows).items():
        lines = [COLUMNS, ["---"] * len(COLUMNS), *(cells for row in members for cells in printed_and_measured(row))]
        table = ["| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |" for cells in lines]
        sources = [f"- {sentence}" for sentence in printed_by(members)]
        parts.append("\n".join([f"### {title}", "", *table, "", *sources]).rstrip())
    return "\n\n".join(parts)


def as_csv(rows: list[TableRow]) -> str:
    """Returns one line for each row, with columns printed_* and measured_*."""
    names = [field.name for field in fields(TableRow) if field.name not in ("printed", "measured")]
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    header_names = [f"{kind}_{key}" for kind in ("printed", "measured") for key in HEADER]
    writer.writerow([*names[:3], *header_names, *names[3:]])
    for row in rows:
        values = [getattr(row, name) for name in names]
        writer.writerow([*values[:3], *row.printed.values(),
                         *(row.measured.get(key, NOT_MEASURED) for key in HEADER), *values[3:]])
    return buffer.getvalue()
