"""Lines of text with styles: on a terminal with colors, in files and pipes as plain text.

A block of lines is built for a width in columns; None stands for files and pipes, where no line is broken or cut.
"""

from collections.abc import Callable, Sequence

from rich.text import Text

MAX_WIDTH = 200   # columns that a block uses, however wide the terminal is
MAX_NAME = 24     # columns of the name of a class

Block = Callable[[int | None], list[Text]]

TITLE, LABEL, BEST, WORSE, DIM = "bold cyan", "cyan", "bold green", "red", "dim"


def plain_lines(block: Block) -> list[str]:
    """Returns a block as it is written to files and pipes."""
    return [line.plain for line in block(None)]


def as_text(cell: str | Text) -> Text:
    return cell.copy() if isinstance(cell, Text) else Text(cell)


def shorten_name(name: str, width: int = MAX_NAME) -> str:
    """Returns a name of at most `width` columns; a longer one ends in an ellipsis."""
    text = Text(name)
    text.truncate(width, overflow="ellipsis")
    return text.plain


def table(rows: Sequence[Sequence[str | Text]], width: int | None) -> list[Text]:
    """Returns the rows as lines of a table: the first column left-aligned, all others right-aligned.

    Where the table is too wide, its columns move together, and then columns are left out, the last one first.

    Args:
        rows: cells of each row, equally many.
    """
    cells = [[as_text(cell) for cell in row] for row in rows]
    widths = [max(cell.cell_len for cell in column) for column in zip(*cells)]
    gap = next((gap for gap in (2, 1) if width is None or sum(widths) + gap * (len(widths) - 1) <= width), 1)
    while width is not None and len(widths) > 2 and sum(widths) + gap * (len(widths) - 1) > width:
        widths.pop()
    return [join_cells(row, widths, gap) for row in cells]


def join_cells(cells: list[Text], widths: list[int], gap: int) -> Text:
    """Returns one line: the cells padded to `widths`, of which there may be fewer than cells."""
    line = Text()
    for index, (cell, cell_width) in enumerate(zip(cells, widths)):
        padding = " " * (cell_width - cell.cell_len)
        line.append_text(Text.assemble(" " * gap, padding, cell) if index else Text.assemble(cell, padding))
    line.rstrip()
    return line


def flow(fields: Sequence[str | Text], width: int | None, indent: int = 0) -> list[Text]:
    """Returns the fields, two columns apart, on as many lines as needed; no field is broken.

    Args:
        indent: columns that all lines but the first begin with; the first one is `indent` columns narrower than `width`
            as well, so that a label of that length may stand before it.
    """
    lines: list[Text] = []
    for field in (Text.assemble(field) for field in fields):  # or a style would be that of all that follows
        if lines and (width is None or indent + lines[-1].cell_len + 2 + field.cell_len <= width):
            lines[-1].append("  ").append_text(field)
        else:
            lines.append(field)
    return [line if not index else Text.assemble(" " * indent, line) for index, line in enumerate(lines)]


def labelled(label: str, lines: list[Text], indent: int) -> list[Text]:
    """Returns the lines with a label of up to `indent` columns before the first; see `flow`."""
    first = lines[0] if lines else Text()
    return [Text.assemble((label.ljust(indent), LABEL), first), *lines[1:]]


def wrap(text: str, width: int | None, indent: int = 0) -> list[Text]:
    """Returns a sentence broken between words so that no line is wider than `width`; for `indent` see `flow`."""
    if width is None:
        return [Text(text)]
    lines: list[Text] = []
    for word in text.split(" "):
        if lines and indent + lines[-1].cell_len + 1 + Text(word).cell_len <= width:
            lines[-1].append(f" {word}")
        else:
            lines.append(Text(word))
    return [line if not index else Text.assemble(" " * indent, line) for index, line in enumerate(lines)]
