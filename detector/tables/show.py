"""`fleet-rcnn tables`: the report in the form that was asked for."""

from pathlib import Path

from detector.run.files import write_whole
from detector.tables.html import as_html
from detector.tables.model_size import sizes_text
from detector.tables.published import published, select
from detector.tables.render import as_csv, as_markdown, as_text, lines


def show(row: str, runs: str, html: str | None, markdown: bool, as_list: bool, models: bool) -> None:
    """Prints it; `html` is the file that the page goes to. Raises BadInput for a row that is not there."""
    rows = select(published(), row)
    if models:
        print(sizes_text(rows) + "\n\nFor one image, with all proposals that evaluation keeps; a multiplication and an "
              "addition are two operations;\npooling, NMS and decoding are not counted.")
        return
    found = lines(rows, Path(runs))
    if html:
        write_whole(Path(html), as_html(found))
        print(f"the tables are in {html}")
        return
    print(as_markdown(found) if markdown else as_csv(found).rstrip() if as_list else as_text(found))
