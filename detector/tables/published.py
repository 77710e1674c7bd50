"""Reads configs/tables/published.csv: the rows of the published tables, every cell as its source prints it."""

import csv
import re
from dataclasses import dataclass

from detector.config.names import shipped_folder
from detector.errors import BadInput


@dataclass(frozen=True)
class PublishedRow:
    """One row of a published table. All cells are texts as printed; empty: not printed."""

    row: str        # its config is configs/tables/ROW.yaml
    table: str
    source: str
    model: str
    gpus: str
    batch: str
    lr: str
    lr_decay: str
    epochs: str
    time: str       # "0.76 hr" per epoch, or "0.210 s/step"
    memory: str     # of one GPU, "3265MB" or "3.0 GB"
    map: str        # percent
    tolerance: str  # not printed: how far a run's mAP may differ and still count as reproduced, in percent points


def read_published_rows() -> list[PublishedRow]:
    """Returns all rows in the order of the file."""
    with open(shipped_folder() / "configs" / "tables" / "published.csv", encoding="utf-8", newline="") as file:
        return [PublishedRow(**cells) for cells in csv.DictReader(file)]


def select_rows(rows: list[PublishedRow], name: str) -> list[PublishedRow]:
    """Returns the row of this name, or all rows for "". Raises BadInput, which lists the rows, for another name."""
    selected = [row for row in rows if name in ("", row.row)]
    if not selected:
        raise BadInput(f"unknown row {name}; choose one of: {', '.join(row.row for row in rows)}")
    return selected


def leading_number(cell: str) -> float | None:
    """Returns the number at the start of a cell, 3265 of "3265MB"; None if the cell starts with something else."""
    match = re.match(r"[+-]?\d[\d,]*(\.\d+)?([eE][+-]?\d+)?", cell)
    return float(match[0].replace(",", "")) if match else None
