"""What was printed: configs/tables/published.csv, a line for each row, every cell as its source shows it."""

import csv
import re
from dataclasses import dataclass

from detector.config.load import shipped_folder
from detector.errors import BadInput


@dataclass(frozen=True)
class Printed:
    """One row of a published table. All cells are texts as printed; empty: not printed."""

    row: str        # its config is configs/tables/ROW.yaml
    table: str
    source: str
    model: str
    gpus: str
    batch: str
    rate: str
    decay: str
    epochs: str
    time: str       # "0.76 hr" an epoch, or "0.210 s/step"
    memory: str     # of one GPU, "3265MB" or "3.0 GB"
    map: str        # percent
    tolerance: str  # ours: how far a run may be away and still count as reproduced, percent; see README


def published() -> list[Printed]:
    """All rows in the order of the file."""
    with open(shipped_folder() / "configs" / "tables" / "published.csv", encoding="utf-8", newline="") as file:
        return [Printed(**line) for line in csv.DictReader(file)]


def select(rows: list[Printed], wanted: str) -> list[Printed]:
    """The row of this name, or all. Raises BadInput that lists the rows."""
    chosen = [row for row in rows if wanted in ("", row.row)]
    if not chosen:
        raise BadInput(f"no such row: {wanted}. There are: {', '.join(row.row for row in rows)}")
    return chosen


def number(cell: str) -> float | None:
    """The number that a cell begins with: 3265 of "3265MB"; None where it has none."""
    found = re.match(r"[+-]?\d[\d,]*(\.\d+)?([eE][+-]?\d+)?", cell)
    return float(found[0].replace(",", "")) if found else None
