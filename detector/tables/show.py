"""The verb `tables`: prints or writes the published tables beside what was measured."""

import shutil
import sys
from pathlib import Path

from detector.report.page.build import page_path
from detector.run.files import write_whole
from detector.tables.html import as_html
from detector.tables.model_size import describe_sizes
from detector.tables.published import read_published_rows, select_rows
from detector.tables.render import as_csv, as_markdown, as_text, build_rows


def show(row: str, runs: str, html: str | None, markdown: bool, csv: bool, models: bool) -> None:
    """Prints the comparison of published and measured rows.

    Args:
        row: name of a row; "": all rows.
        runs: folder that holds the run folders.
        html: file to write a page to, instead of printing; "": pages/tables.html, see page_path.
        markdown, csv: print in this format; default: aligned text.
        models: print the parameters and operations of the rows' models instead.

    Raises:
        BadInput: no row has this name, or the page is a folder.
    """
    path = None if html is None else page_path("--html", html, "tables")
    published = select_rows(read_published_rows(), row)
    if models:
        print(f"{describe_sizes(published)}\n\nFor one image, with all proposals that evaluation keeps. "
              "A multiplication and an\naddition are two operations. Pooling, NMS and box decoding are not counted.")
        return
    rows = build_rows(published, Path(runs))
    if path:
        write_whole(path, as_html(rows))
        print(f"page written: {path}")
        return
    if markdown:
        print(as_markdown(rows))
    elif csv:
        print(as_csv(rows).rstrip())
    else:
        print(as_text(rows, shutil.get_terminal_size().columns if sys.stdout.isatty() else None))
