"""The verb logs: prints the logs of runs, and follows them until the runs are over."""

import codecs
import os
import sys
import threading
import time
from dataclasses import dataclass, field, replace
from pathlib import Path

from detector.errors import OK, BadInput
from launcher.run_folders import Target, jobs_of
from launcher.run_summary import RunSummary, log_of, summarize

POLL_S = 0.5      # between two reads of the logs
ASK_S = 5.0       # between two questions about the states of the runs
BLOCK = 1 << 16   # bytes that are searched at a time for the last lines


@dataclass
class Follower:
    """A log and the place up to which it has been printed."""

    target: Target
    path: Path
    position: int = 0
    decoder: codecs.IncrementalDecoder = field(
        default_factory=lambda: codecs.getincrementaldecoder("utf-8")(errors="replace"))

    def read(self) -> str:
        """Returns what was appended since the last call; begins again with a log that has become shorter."""
        try:
            with open(self.path, "rb") as file:
                if file.seek(0, os.SEEK_END) < self.position:
                    self.position = 0
                file.seek(self.position)
                content = file.read()
        except FileNotFoundError:
            return ""
        except OSError as error:
            raise BadInput(f"{self.path} cannot be read: {error.strerror}") from error
        self.position += len(content)
        return self.decoder.decode(content)


class LogPrinter:
    """Prints parts of logs, each under the path of its log where that is another one than before."""

    def __init__(self, with_other_jobs: bool):
        self.with_other_jobs = with_other_jobs
        self.shown: Follower | None = None

    def print(self, follower: Follower, text: str) -> None:
        if self.shown is not follower:
            sys.stdout.flush()
            print(f"{follower.path}:{self._hint(follower)}", file=sys.stderr, flush=True)
        self.shown = follower
        sys.stdout.write(text)
        sys.stdout.flush()

    def _hint(self, follower: Follower) -> str:
        run = follower.target.run
        others = [job for job in jobs_of(run) if log_of(run, job) != follower.path] if self.with_other_jobs else []
        return f" (other jobs of this run: {', '.join(others[-5:])}; --job prints their logs)" if others else ""


class StateWatch:
    """Asks for the states of runs in a thread of its own, so that a slow scheduler does not hold up their logs.

    A context manager: the thread ends with it.
    """

    def __init__(self, targets: list[Target]):
        self.targets = targets
        self.latest: list[RunSummary] = []
        self.error: Exception | None = None
        self.is_noted = False
        self.ended = threading.Event()
        self.thread = threading.Thread(target=self._ask_until_end, daemon=True)  # may wait for a silent scheduler

    def __enter__(self) -> "StateWatch":
        self.thread.start()
        return self

    def __exit__(self, *_error) -> None:
        self.ended.set()

    def are_over(self) -> bool:
        """Returns whether all runs are known to be over. Raises the error of the thread, if there is one."""
        if self.error:
            raise self.error
        return bool(self.latest) and all(summary.state.phase.is_over for summary in self.latest)

    def _ask_until_end(self) -> None:
        try:
            while not self.ended.is_set():
                self.latest = summarize(self.targets, self._note)
                self.ended.wait(ASK_S)
        except Exception as error:  # of any kind: it is raised where the states are asked for
            self.error = error

    def _note(self, text: str) -> None:
        if not self.is_noted:  # once only: a controller may be silent for long
            print(f"note: {text}", file=sys.stderr, flush=True)
        self.is_noted = True


def print_logs(targets: list[Target], follow: bool = False, lines: int | None = None, job: str = "") -> int:
    """Prints the logs of runs: of the job that has the run or had it last, of the named job, or log.txt. Returns 0.

    Args:
        follow: go on printing what is appended, until the runs are over.
        lines: print only so many last lines; None: all.
        job: another job of the run.

    Raises:
        BadInput: there is no such job, or no log.
    """
    if job:
        targets = [replace(target, job=checked_job(target, job)) for target in targets]
    summaries = summarize(targets, lambda text: print(f"note: {text}", file=sys.stderr, flush=True))
    unreadable = [summary for summary in summaries if summary.log is None]
    if unreadable:
        raise BadInput(f"{unreadable[0].name}: {unreadable[0].state.text}")
    followers = [Follower(target, log_of(target.run, target.job) if target.job else summary.log)
                 for target, summary in zip(targets, summaries)]
    printer = LogPrinter(with_other_jobs=len(followers) == 1)
    for follower in followers:
        if lines is not None:
            follower.position = position_of_last_lines(follower.path, lines)
        if follower.path.is_file():
            printer.print(follower, follower.read())
    if follow:
        with StateWatch(targets) as watch:
            summaries = follow_until_over(followers, watch, printer)
        for summary in summaries:
            print_end(summary)
    missing = [f"{summary.name} has no log" if follow else describe_missing(summary, follower.path)
               for follower, summary in zip(followers, summaries) if not follower.path.is_file()]
    if missing:
        raise BadInput("\n".join(missing))
    return OK


def follow_until_over(followers: list[Follower], watch: StateWatch, printer: LogPrinter) -> list[RunSummary]:
    """Prints what is appended to logs until all runs are over; returns their last states."""
    waiting = ""
    while True:
        over = watch.are_over()  # asked before reading, so that the last lines are not missed
        for follower in followers:
            if text := follower.read():
                printer.print(follower, text)
        if over:
            return watch.latest
        states = ", ".join(f"{summary.name} is {summary.state.text}" for summary, follower in
                           zip(watch.latest, followers) if not follower.path.is_file())
        if states and states != waiting:
            waiting = states
            print(f"waiting for the log: {states}", file=sys.stderr, flush=True)
        time.sleep(POLL_S)


def print_end(summary: RunSummary) -> None:
    """Prints how a run has ended, and why, to stderr."""
    causes = summary.cause.lines() if summary.cause else []
    print("\n".join([f"{summary.name}: {summary.state.text}", *(f"    {line}" for line in causes)]), file=sys.stderr,
          flush=True)


def checked_job(target: Target, job: str) -> str:
    """Returns the job, which is one of the run; of a job array, the row of the run. Raises BadInput for another one."""
    jobs = jobs_of(target.run)
    matching = [name for name in jobs if name == job or name.startswith(f"{job}_")]
    if not matching:
        raise BadInput(f"{target.name} has no job {job}. Its jobs: {', '.join(jobs) or 'none'}")
    return matching[-1]


def describe_missing(summary: RunSummary, path: Path) -> str:
    """Returns why there is no log, and what to do."""
    causes = summary.cause.lines() if summary.cause else []
    if summary.state.phase.is_over:
        causes = causes or [f"its state: {summary.state.text}"]
        return "\n    ".join([f"{summary.name} has no log", *causes])
    return (f"{path} does not exist yet: {summary.name} is {summary.state.text}. `fleet-rcnn logs {summary.name} "
            "--follow` waits for it")


def position_of_last_lines(path: Path, lines: int) -> int:
    """Returns where the last lines of a file begin; 0 for a file with fewer lines, or no file."""
    try:
        with open(path, "rb") as file:
            position, count = file.seek(0, os.SEEK_END), 0
            if not lines:
                return position
            last = position
            while position:
                start = max(0, position - BLOCK)
                file.seek(start)
                block = file.read(position - start)
                for index in reversed([place for place, byte in enumerate(block) if byte == 10]):
                    count += start + index + 1 < last  # the end of the last line begins no other one
                    if count == lines:
                        return start + index + 1
                position = start
    except OSError:
        pass
    return 0
