"""The exceptions that end a run, the exit statuses, texts of messages, and output that odd letters do not end."""

import contextlib
import io
import os
import sys
from collections.abc import Iterator, Sequence
from typing import TextIO

OK = 0
FAILED = 1
BAD_INPUT = 2
INTERRUPTED = 130  # ended at once by Ctrl-C: the second one in train and evaluate, which save at the first
STOPPED = 75  # EX_TEMPFAIL: stopped early with everything saved; the same command resumes the run


MAX_MISTAKES = 10  # that the message of one error lists; `BadInput.mistakes` holds all


class BadInput(Exception):
    """An error that the user can fix. The message states the cause, the value, what is allowed and a remedy.

    subject, mistakes: of an error made by `combine_mistakes`, all of its mistakes; empty for other errors.
    """

    subject: str = ""
    mistakes: tuple[str, ...] = ()


class Stopped(Exception):
    """A stop was requested (SIGTERM, for example); all ranks raise this at the same step."""


class NotFinite(Exception):
    """The loss became infinite or NaN; the message names the file that describes the step."""


class MachineError(Exception):
    """The machine ended a part of the run, such as a loader worker; the message states the likely cause and a remedy.

    The weights are not affected: the same command continues the run.
    """


def combine_mistakes(subject: str, mistakes: list[str]) -> BadInput:
    """Returns one BadInput for all mistakes found in `subject`, such as "config custom/bccd".

    The message lists the first MAX_MISTAKES and says how many more there are.
    """
    if len(mistakes) == 1:
        error = BadInput(f"{subject}: {mistakes[0]}")
    else:
        lines = [f"  - {mistake}" for mistake in mistakes[:MAX_MISTAKES]]
        if len(mistakes) > MAX_MISTAKES:
            lines.append(f"  and {len(mistakes) - MAX_MISTAKES} more")
        error = BadInput(f"{subject}: {len(mistakes)} mistakes\n" + "\n".join(lines))
    error.subject, error.mistakes = subject, tuple(mistakes)
    return error


def interrupted_line(text: str = "interrupted") -> str:
    """Returns the one line that a command prints when Ctrl-C ends it, below the ^C that a terminal shows."""
    return f"\n{text}" if sys.stderr is not None and sys.stderr.isatty() else text


def count_of(count: int, singular: str, plural: str = "") -> str:
    """Returns a number with its noun, and what agrees with it: "1 node", "2 nodes", "1 image is", "2 images are"."""
    return f"{count} {singular if count == 1 else plural or singular + 's'}"


def shorten(items: Sequence[str], limit: int = 5, separator: str = ", ") -> str:
    """Joins items; of many, the first `limit` and the number of the others."""
    rest = f" and {len(items) - limit} more" if len(items) > limit else ""
    return separator.join(items[:limit]) + rest


def escape_unprintable() -> None:
    """Lets print() write what the terminal's encoding lacks as an escape, such as a byte of a file name: \\udcdf."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def open_closed_streams() -> None:
    """Opens standard output and error on os.devnull where the caller has closed them (`>&-`); children inherit them."""
    for descriptor, name in ((1, "stdout"), (2, "stderr")):
        if getattr(sys, name) is None:
            devnull = os.open(os.devnull, os.O_WRONLY)
            os.dup2(devnull, descriptor)
            os.set_inheritable(descriptor, True)  # dup2 leaves a descriptor as it is that equals its source
            setattr(sys, name, open(descriptor, "w", closefd=False))


def use_utf8() -> None:
    """Starts this command again in UTF-8 mode where the locale has another encoding, such as Latin-1.

    Names of files and classes could otherwise not be used, or would change between machines. Output stays in the
    encoding of the terminal.
    """
    if sys.getfilesystemencoding().lower() == "utf-8":
        return
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]],
              {"PYTHONIOENCODING": f"{encoding}:backslashreplace", **os.environ, "PYTHONUTF8": "1"})


class LastingStream:
    """A text stream that writes nothing more, in place of an error, once its terminal or its reader is gone.

    A training goes on when its terminal is closed, or its output was piped into a program that has ended.
    """

    def __init__(self, stream: TextIO):
        self.stream = stream

    def write(self, text: str) -> int:
        try:
            return self.stream.write(text)
        except OSError:
            self._discard_output()
            return len(text)

    def flush(self) -> None:
        try:
            self.stream.flush()
        except OSError:
            self._discard_output()

    def _discard_output(self) -> None:
        """Leads the file descriptor to nowhere: the interpreter fails if it cannot write what is left when it exits."""
        with contextlib.suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), self.stream.fileno())
            self.stream.flush()

    def __getattr__(self, name: str):
        return getattr(self.stream, name)


@contextlib.contextmanager
def lasting_output() -> Iterator[None]:
    """Makes stdout and stderr LastingStreams."""
    with contextlib.redirect_stdout(sys.stdout and LastingStream(sys.stdout)), \
            contextlib.redirect_stderr(sys.stderr and LastingStream(sys.stderr)):
        yield
