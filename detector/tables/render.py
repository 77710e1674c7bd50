"""Rows of a report: what is printed, what is measured, and how they compare, as texts; and the tables made of them."""

import csv
import io
from dataclasses import dataclass, fields
from pathlib import Path

from detector.tables.measured import Figures, Measured, measured
from detector.tables.published import Printed, number

NOTHING = "not measured"
HEADER = {"model": "model", "gpus": "#GPUs", "batch": "batch", "rate": "lr", "decay": "lr decay", "epochs": "epochs",
          "time": "time/epoch", "memory": "mem/GPU", "map": "mAP"}  # the original's columns, in its order


@dataclass(frozen=True)
class Line:
    """A row of a report: all cells are texts."""

    row: str
    table: str
    source: str               # who printed it
    printed: dict[str, str]   # by the keys of HEADER
    measured: dict[str, str]  # the same; {} where nothing was measured
    gap: str                  # of mAP, percent points
    verdict: str              # "within 1.0", "outside 1.0" or ""
    speed_up: str
    tolerance: str
    seeds: str
    commit: str
    hardware: str
    date: str
    remark: str               # why a measured figure does not count


def lines(rows: list[Printed], runs: Path) -> list[Line]:
    return [line(row, measured(row.row, runs)) for row in rows]


def line(row: Printed, found: Measured) -> Line:
    printed = {key: getattr(row, key) for key in HEADER}
    if not found.runs:
        return Line(row.row, row.table, row.source, printed, {}, "", "", "", row.tolerance, "", "", "", "", "")
    run, gap, verdict = found.runs[0], "", ""
    if found.counts and (target := number(row.map)) is not None:
        distance = round(found.map - target, 2)
        gap = f"{distance:+.1f}"
        if (tolerance := number(row.tolerance)) is not None:
            verdict = f"{'within' if abs(distance) <= tolerance else 'outside'} {row.tolerance}"
    return Line(row.row, row.table, row.source, printed, measured_cells(found, row.time), gap, verdict,
                speed_up(row.time, found), row.tolerance, ", ".join(str(one.config.seed) for one in found.runs),
                ", ".join(dict.fromkeys(one.commit[:9] + "+" * one.commit.endswith("+") for one in found.runs)),
                "; ".join(dict.fromkeys(one.hardware for one in found.runs)), max(one.date for one in found.runs),
                remark(run) if not found.counts else "")


def measured_cells(found: Measured, printed_time: str) -> dict[str, str]:
    """The original's columns of what was measured."""
    run = found.runs[0]
    optim, schedule = run.config.optim, run.config.schedule
    batch = run.config.batch.size or run.config.batch.micro_batch_size * run.processes
    value = f"{found.map:.1f}" if found.map is not None else "not yet"
    return {"model": run.config.model.backbone, "gpus": str(run.processes) if "CPU" not in run.hardware else "CPU",
            "batch": str(batch), "rate": f"{optim.lr * batch / optim.reference_batch_size:g}", "decay": decay(run),
            "epochs": f"{run.total_steps / run.steps_per_epoch:.3g}" if schedule.steps else f"{schedule.epochs:g}",
            "time": f"{found.mean('step_s'):.3g} s/step" if "s/step" in printed_time else
            f"{found.mean('epoch_h'):.3g} hr", "memory": f"{found.mean('memory_gib') * 1024:.0f} MiB",
            "map": value + (f" ± {found.spread:.1f}" if found.spread is not None else "")}


def decay(run: Figures) -> str:
    schedule = run.config.schedule
    return {"milestones": ", ".join(f"{epoch:g}" for epoch in schedule.milestones),
            "periodic": str(getattr(schedule, "period", ""))}.get(schedule.lr_schedule, schedule.lr_schedule)


def speed_up(printed_time: str, found: Measured) -> str:
    """How many times as fast as printed, in the unit of the print; empty where none is printed, or for other work."""
    before = number(printed_time) if not found.runs[0].changes else None
    now = found.mean("step_s") if "s/step" in printed_time else found.mean("epoch_h")
    return f"{before / now:.2f}x" if before and now else ""


def remark(run: Figures) -> str:
    said = [] if run.finished else [f"step {run.step:,} of {run.total_steps:,}"]
    return "; ".join(said + list(run.changes[:4]) + [f"and {len(run.changes) - 4} more"] * (len(run.changes) > 4))


def cells(one: Line) -> tuple[list[str], list[str]]:
    """Two lines of a table: printed and measured."""
    below = [one.measured.get(key, "") for key in HEADER] if one.measured else [NOTHING] + [""] * (len(HEADER) - 1)
    beside = [one.gap, one.speed_up, one.verdict or one.tolerance, one.seeds, one.commit, one.hardware, one.date]
    nothing = [""] * len(beside)
    return ([one.row, "printed", *(one.printed[key] for key in HEADER), *nothing],
            [f"({one.remark})" * bool(one.remark), "measured", *below, *(beside if one.measured else nothing)])


COLUMNS = ["row", "", *HEADER.values(), "gap", "speed-up", "tolerance", "seed", "commit", "hardware", "date"]


def by_table(found: list[Line]) -> dict[str, list[Line]]:
    tables: dict[str, list[Line]] = {}
    for one in found:
        tables.setdefault(one.table, []).append(one)
    return tables


def as_text(found: list[Line]) -> str:
    """For a terminal: columns as wide as their widest cell; where and when something was measured on a line below."""
    parts, last = [], COLUMNS.index("commit")
    for title, members in by_table(found).items():
        grid = [(one, [entry[0] * (entry[1] == "printed"), *entry[1:last]]) for one in members for entry in cells(one)]
        widths = [max(len(entry[n]) for _, entry in [(None, COLUMNS), *grid]) for n in range(last)]
        drawn = [title, "", draw(COLUMNS[:last], widths), "-" * (sum(widths) + 2 * (last - 1))]
        for one, entry in grid:
            drawn.append(draw(entry, widths))
            if entry[1] == "measured" and one.measured:
                drawn.append(f"  {one.hardware}; commit {one.commit or 'unknown'}; {one.date}"
                             + f"; does not count: {one.remark}" * bool(one.remark))
        parts.append("\n".join(drawn))
    return "\n\n\n".join(parts)


def draw(entry: list[str], widths: list[int]) -> str:
    return "  ".join(cell.ljust(width) for cell, width in zip(entry, widths)).rstrip()


def as_markdown(found: list[Line]) -> str:
    parts = []
    for title, members in by_table(found).items():
        grid = [COLUMNS, ["---"] * len(COLUMNS), *(cells_of for one in members for cells_of in cells(one))]
        drawn = ["| " + " | ".join(cell.replace("|", "\\|") for cell in entry) + " |" for entry in grid]
        parts.append("\n".join([f"### {title}", "", *drawn]))
    return "\n\n".join(parts)


def as_csv(found: list[Line]) -> str:
    """One line a row; columns printed_* and measured_*."""
    rest = [field.name for field in fields(Line) if field.name not in ("printed", "measured")]
    content = io.StringIO()
    writer = csv.writer(content, lineterminator="\n")
    both = [f"{kind}_{key}" for kind in ("printed", "measured") for key in HEADER]
    writer.writerow([*rest[:3], *both, *rest[3:]])
    for one in found:
        values = [getattr(one, name) for name in rest]
        writer.writerow([*values[:3], *one.printed.values(), *(one.measured.get(key, NOTHING) for key in HEADER),
                         *values[3:]])
    return content.getvalue()
