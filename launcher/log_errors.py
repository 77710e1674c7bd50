"""Finds the first error in the log of a job: many lines follow it, of ranks that lost their peer, torchrun and srun."""

import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from detector.run import machine_errors

MAX_BYTES = 32 << 20  # of a log that are read, from its end
# A line that begins a start of a job, printed by `launcher.slurm_job begin`; a requeued job appends to its log.
START = re.compile(r"Slurm job \S+ on .*: (train|evaluate) ")
PREFIX = re.compile(r"^(\[[^\]]*\d\]:?\s*|\d+: )+")  # of torchrun (--tee), or of srun --label
EXCEPTION = re.compile(r"^(\w+\.)*\w*(Error|Exception|Interrupt|Refused|NotFinite|Exit|Warning)\b")
OWN_ERROR = re.compile(r"^(error: |not started again: )")
NO_PROGRESS = re.compile(r"^not started again: no progress")
OOM_KILL = re.compile(r"oom[-_ ]kill", re.IGNORECASE)
OUT_OF_MEMORY = re.compile(r"oom[-_ ]kill|out.of.memory|killed by signal: Killed|Cannot allocate memory", re.IGNORECASE)
# Messages of a shell, a container or Slurm, for a job that ended before its processes could say anything.
OF_SHELL = re.compile(r"command not found|No such file or directory|Permission denied|No space left|^FATAL|fatal:|"
                      r"(srun|slurmstepd|slurmd|sbatch): error|error while loading|\bKilled\b|ERROR:", re.IGNORECASE)
CONTROL = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|[\x00-\x08\x0b-\x1f\x7f-\x9f]")  # colors, and what a terminal obeys
# Errors of ranks whose peer has ended, and reports of the error of another rank.
LOST_PEER = re.compile(
    machine_errors.LOST_PEER.pattern + r"|lost the connection to another rank|TCPStore|nccl (error|watchdog)|"
    r"Dist(Backend|Network|Store)Error|ChildFailedError|FailedJobError|^(\w+Error: )?rank \d+: ", re.IGNORECASE)


def first_error(log: Path) -> str:
    """Returns the first error line of the last start in a log; "" if the log holds none, or cannot be read.

    In this order: an error that the product explains or the last line of a traceback, without those about a lost peer;
    a message of a shell, a container or Slurm; an error about a lost peer. A start that was refused for a lack of
    progress has the error of the start before it.
    """
    *earlier, lines = starts_of(log)
    if earlier and any(NO_PROGRESS.match(line) for line in lines):
        lines = earlier[-1]
    errors = list(error_lines(lines))
    own = [line for line in errors if not LOST_PEER.search(line)]
    shell = [line for line in lines if OF_SHELL.search(line) and not LOST_PEER.search(line)]
    return next(iter([*own, *shell, *errors]), "")


def memory_line(log: Path) -> str:
    """Returns the message of Slurm that memory ran out, of the last start in a log; "" if there is none."""
    line = next((line for line in starts_of(log)[-1] if OOM_KILL.search(line)), "")
    return line.rpartition("error: ")[2].split(". ")[0]


def last_line(log: Path) -> str:
    """Returns the last line of a log that is not blank; "" if there is none."""
    return next(reversed(starts_of(log)[-1]), "")


def starts_of(log: Path) -> list[list[str]]:
    """Returns the lines of each start of a job in its log, the last one last, without blank ones and rank prefixes."""
    try:
        with open(log, "rb") as file:
            file.seek(0, 2)
            file.seek(max(0, file.tell() - MAX_BYTES))
            text = file.read().decode(errors="replace")
    except OSError:
        return [[]]
    lines = [PREFIX.sub("", CONTROL.sub("", line.rpartition("\r")[2]).rstrip())
             for line in text.splitlines() if line.strip()]
    starts = [0, *(index for index, line in enumerate(lines) if START.match(line)), len(lines)]
    return [lines[begin:end] for begin, end in zip(starts, starts[1:])]


def error_lines(lines: Iterable[str]) -> Iterator[str]:
    """Yields the errors that the product explains, and of each traceback its exception."""
    in_traceback = False
    for line in lines:
        if OWN_ERROR.match(line):
            yield line.removeprefix("error: ")
        elif line.startswith("Traceback (most recent call last)"):
            in_traceback = True
        elif in_traceback and EXCEPTION.match(line):
            in_traceback = False
            yield line
