"""Messages, tables and progress on the console, and as plain lines in log.txt."""

import time
from dataclasses import replace
from pathlib import Path

from detector.loggers.progress import RunProgress, step_line
from detector.loggers.protocol import Logger
from detector.loggers.styled_lines import Block, plain_lines
from detector.loggers.terminal import LiveLines, is_live, open_console, print_block, print_text
from detector.run.files import LOG_FILE


class ConsoleLogger(Logger):
    """Prints messages, tables and logged steps, and appends them with the time to log.txt.

    log.txt and pipes get the same plain lines. On a terminal there are colors, and live lines in place of logged steps.
    """

    def __init__(self, folder: Path, step: int, total_steps: int):
        self.console = open_console()
        self.live: LiveLines | None = None
        self.progress = RunProgress(step, total_steps)
        self.is_log_lost = False
        self.log = open(folder / LOG_FILE, "a", encoding="utf-8", errors="backslashreplace")

    def start_progress(self, steps_per_epoch: int) -> None:
        """Shows live lines, if stdout is a terminal that can."""
        self.progress = replace(self.progress, steps_per_epoch=steps_per_epoch)
        if is_live(self.console):
            self.live = LiveLines(self.console, self.progress)

    def advance(self, **changes) -> None:
        """Changes fields of the RunProgress that the live lines show."""
        self.progress = replace(self.progress, **changes)
        if self.live:
            self.live.update(self.progress)

    def logged_step(self, step: int, values: dict[str, float], seconds_left: float) -> None:
        """Logs a step as a line; on a terminal with live lines to log.txt only."""
        self.advance(step=step, values=values, seconds_left=seconds_left)
        self.text(step_line(self.progress), console=self.live is None)

    def text(self, text: str, console: bool = True) -> None:
        if console and self.console:
            print_text(self.console, text)
        elif console:
            print(text, flush=True)
        self._write(text.splitlines())

    def block(self, block: Block) -> None:
        lines = plain_lines(block)
        if self.console:
            print_block(self.console, block)
        else:
            print("\n".join(lines), flush=True)
        self._write(lines)

    def _write(self, lines: list[str]) -> None:
        try:
            self.log.write("".join(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {line}".rstrip() + "\n" for line in lines))
            self.log.flush()
        except OSError as error:
            if not self.is_log_lost:
                self.is_log_lost = True
                print(f"{self.log.name} cannot be written ({error.strerror}); the run goes on", flush=True)

    def stop_progress(self) -> None:
        """Removes the live lines."""
        if self.live:
            self.live.close()
        self.live = None

    def close(self) -> None:
        self.stop_progress()
        self.log.close()
