"""The terminal: blocks with colors, and live lines below them. Elsewhere plain lines are printed.

NO_COLOR (any value) leaves colors out, FORCE_COLOR (any value) prints them into pipes, too.
"""

import os
import sys
import time
from typing import TextIO

from rich.console import Console
from rich.live import Live
from rich.text import Text

from detector.loggers.progress import RunProgress, live_lines
from detector.loggers.styled_lines import MAX_WIDTH, Block, plain_lines, wrap

NOTE = "yellow"
ASCII = str.maketrans("━─…", "=-.")  # for terminals of another encoding than UTF-8
REFRESH_S = 0.25  # between two renewals of the live lines


def open_console(stream: TextIO | None = None) -> Console | None:
    """Returns the console on stdout (or on `stream`) if it is a terminal or FORCE_COLOR is set; None for plain lines.
    """
    stream = stream or sys.stdout
    if not (stream and stream.isatty()) and not os.environ.get("FORCE_COLOR"):
        return None
    return Console(file=stream, highlight=False, markup=False, emoji=False, force_terminal=True)


def is_live(console: Console | None) -> bool:
    """Returns whether lines of this console can be written again: a terminal that moves its cursor."""
    return console is not None and console.file.isatty() and not console.is_dumb_terminal


def width_of(console: Console) -> int:
    return min(console.width, MAX_WIDTH)


def joined(console: Console, lines: list[Text], style: str = "") -> Text:
    """Returns lines as one text, in signs that the console has."""
    text = Text("\n", style).join(lines)
    if not console.encoding.startswith("utf"):
        text.plain = text.plain.translate(ASCII)
    return text


def print_block(console: Console, block: Block) -> None:
    """Prints a block, built for the width of the console."""
    console.print(joined(console, block(width_of(console))), soft_wrap=True)


def print_text(console: Console, text: str) -> None:
    """Prints a message, its lines broken between words; a note in another color."""
    lines = [part for line in text.splitlines() for part in wrap(line, width_of(console))]
    console.print(joined(console, lines, NOTE if text.startswith("note: ") else ""), soft_wrap=True)


def show(*parts: str | Block) -> None:
    """Prints messages and blocks on stdout, with colors on a terminal."""
    console = open_console()
    for part in parts:
        if console is None:
            print(part if isinstance(part, str) else "\n".join(plain_lines(part)))
        elif isinstance(part, str):
            print_text(console, part) if part else console.print()
        else:
            print_block(console, part)


class LiveLines:
    """The lines below all others that show how far a training is.

    The caller's thread renews them: a thread of its own would compete with the training steps.
    """

    def __init__(self, console: Console, progress: RunProgress):
        self.console, self.progress, self.renewed_at = console, progress, 0.0
        self.live = Live(console=console, get_renderable=self._render, auto_refresh=False, transient=True,
                         redirect_stderr=sys.stderr is not None and sys.stderr.isatty())
        self.live.start()
        console.show_cursor(True)  # Live hides it, and a killed process could not bring it back

    def _render(self) -> Text:
        return joined(self.console, live_lines(self.progress, width_of(self.console)))

    def update(self, progress: RunProgress) -> None:
        """Shows another state, at most every REFRESH_S seconds; the begin and the end of an evaluation at once."""
        is_turn = (progress.evaluated is None) != (self.progress.evaluated is None)
        self.progress = progress
        now = time.monotonic()
        if is_turn or now - self.renewed_at >= REFRESH_S:
            self.renewed_at = now
            self.live.refresh()

    def close(self) -> None:
        """Removes the lines."""
        self.live.stop()
