"""A job array: the rows of a file, one run each; which of them are to be submitted, and what their jobs request."""

import copy
import json
import re
import resource
import shlex
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from operator import attrgetter
from pathlib import Path

from detector.config.load import apply_override, config_of, dump, read_with_base, run_folder
from detector.config.names import find_config
from detector.config.paths import escape, path_options
from detector.config.schema import Config
from detector.errors import BadInput, combine_mistakes, count_of, shorten
from detector.run.lock import refuse_second_start
from detector.run.status import read_status
from launcher.backends import JobState
from launcher.job import Job
from launcher.partitions import cluster_problems
from launcher.preflight import cores_per_process, job_problems, run_folder_problems
from launcher.run_info import job_records
from launcher.slurm_commands import slurm
from launcher.submission import is_finished

OTHER_FILES = 64  # open beside the locks of an array
THREADS = 32      # that look whether a row is being trained
# A line up to its comment: a # counts as a comment at the start and after a blank, outside of quotes.
BEFORE_COMMENT = re.compile(r"""(?:\\.|'[^']*'|"(?:\\.|[^"\\])*"|(?<=\S)\#|[^\\'"\#])*""")


@dataclass(frozen=True)
class Row:
    """One line of an array file."""

    line: int  # its number in the file
    overrides: tuple[str, ...]
    job: Job   # with the arguments of the command line, then the overrides
    run: Path  # the run folder
    config: Config


def parse_array_option(text: str) -> tuple[str, int]:
    """Parses FILE or FILE%N; returns the file, and how many rows may run at a time (0: all).

    Raises:
        BadInput: N is not a number of at least 1.
    """
    file, percent, limit = text.rpartition("%")
    if not percent or Path(text).is_file():
        return text, 0
    if not limit.isdecimal() or not int(limit):
        raise BadInput(f"--array {text}: after % stands how many rows may run at a time, at least 1, such as {file}%4")
    return file, int(limit)


def read_lines(file: str) -> list[tuple[int, list[str]]]:
    """Returns number and arguments of each line that holds any: quotes as in a shell, # starts a comment.

    Raises:
        BadInput: the file cannot be read, holds no such line, or a line has a mistake.
    """
    try:
        text = Path(file).read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise BadInput(f"--array {file}: {error.strerror}. Name a file with one line of key=value ... for each run"
                       ) from error
    except UnicodeDecodeError as error:
        raise BadInput(f"--array {file}: not a text file in UTF-8 ({error.reason}). Save it as UTF-8") from error
    lines, mistakes = [], []
    for number, line in enumerate(text.split("\n"), start=1):
        try:
            arguments = split_line(line.rstrip("\r"))
        except ValueError as error:
            mistakes.append(f"line {number}: {error}")
            continue
        if arguments:
            lines.append((number, arguments))
    if mistakes:
        raise combine_mistakes(f"--array {file}", mistakes)
    if not lines:
        raise BadInput(f"--array {file}: no line of key=value ... in this file")
    return lines


def split_line(line: str) -> list[str]:
    """Returns the arguments in a line. Raises ValueError with the mistake in it."""
    end = BEFORE_COMMENT.match(line).end()
    try:
        arguments = shlex.split(line[:end] if line[end:end + 1] == "#" else line)
    except ValueError:
        raise ValueError("a quote is not closed. Quote as in a shell: data.root='/data/my images'") from None
    for argument in arguments:
        if argument.startswith("-"):
            raise ValueError(f"{argument}: a row holds key=value. An option of the command line is for all rows")
    return arguments


def read_rows(file: str, job: Job) -> list[Row]:
    """Returns the rows of an array file.

    Args:
        job: of the command line; the arguments of each row follow its own.

    Raises:
        BadInput: names the lines with a mistake, or with the same run folder.
    """
    lines, (path, tree), rows = read_lines(file), common_options(job), []
    mistakes: dict[str, list[int]] = {}
    for number, arguments in lines:
        try:
            config = config_of(copy.deepcopy(tree), arguments, str(path), path)
        except BadInput as error:
            for mistake in error.mistakes or [str(error)]:
                mistakes.setdefault(mistake, []).append(number)
            continue
        row_job = replace(job, arguments=(*job.arguments, *arguments))
        rows.append(Row(number, tuple(arguments), row_job, run_folder(config).absolute(), config))
    if mistakes:
        raise combine_mistakes(f"--array {file}", with_lines(mistakes, len(lines)))
    refuse_equal_runs(file, rows)
    return rows


def common_options(job: Job) -> tuple[Path, dict]:
    """Returns the config file of the command line, and the options that all rows have: the file with the overrides."""
    positional = [argument for argument in job.arguments if not argument.startswith("-")]
    if not positional:
        raise BadInput("train needs a config file. `fleet-rcnn train --help` shows the arguments")
    path = find_config(positional[0])
    tree = read_with_base(path)
    mistakes = [mistake for override in positional[1:] for mistake in apply_override(tree, override)]
    if mistakes:
        raise combine_mistakes(f"config {positional[0]}", mistakes)
    return path, tree


def frozen_overrides(row: Row, options: dict) -> tuple[str, ...]:
    """Returns the overrides of a row for its job, in which paths with ~ or $VAR are those of the submission.

    Args:
        options: those that all rows have.
    """
    if not re.search(r"[~$]", "".join((dump(options), *row.overrides))):
        return row.overrides
    values = {path: attrgetter(path)(row.config) for path in path_options()}
    paths = {path: [escape(item) for item in value] if isinstance(value, tuple) else escape(value)
             for path, value in values.items() if value != path_options()[path].default}
    return (*row.overrides, *(f"{path}={json.dumps(value, ensure_ascii=False)}" for path, value in paths.items()))


def with_lines(mistakes: dict[str, list[int]], count: int) -> list[str]:
    """Returns each mistake with the lines that have it; one that all rows have, of `count`, names no line."""
    return [text if len(lines) == count and count > 1 else
            f"line{'s' * (len(lines) > 1)} {shorten([str(line) for line in lines])}: {text}"
            for text, lines in mistakes.items()]


def refuse_equal_runs(file: str, rows: list[Row]) -> None:
    """Raises BadInput if several rows have the same run folder."""
    lines: dict[Path, list[int]] = {}
    for row in rows:
        lines.setdefault(row.run, []).append(row.line)
    repeated = {f"the same run folder, {run}. Give each line its own run.name=...": numbers
                for run, numbers in lines.items() if len(numbers) > 1}
    if repeated:
        raise combine_mistakes(f"--array {file}", with_lines(repeated, 0))


def refuse_impossible_rows(file: str, rows: list[Row]) -> None:
    """Raises BadInput with every reason why a row could not run, or the array could not be submitted."""
    lines: dict[str, list[int]] = {}
    parents: dict[Path, list] = {}  # rows in one folder are checked by writing there once
    for row in rows:
        if row.run.parent not in parents:
            parents[row.run.parent] = run_folder_problems(row.run)
        for problem in [*parents[row.run.parent], *job_problems(row.job, row.run, row.config)]:
            lines.setdefault(str(problem), []).append(row.line)
    mistakes = with_lines(lines, len(rows))
    mistakes += [str(problem) for problem in cluster_problems(rows[0].job.resources, largest_cores(rows))]
    if mistakes:
        raise combine_mistakes(f"--array {file}: this cannot be submitted", mistakes)
    limit = largest_array()
    if len(rows) > limit:
        raise BadInput(f"--array {file}: {len(rows)} rows, and this cluster allows {limit} in an array (MaxArraySize). "
                       "Divide the file into several")


def largest_cores(rows: list[Row]) -> int:
    """Returns the CPU cores per process that the largest row needs."""
    return max(cores_per_process(row.job.resources, row.config) for row in rows)


def describe_cores(rows: list[Row]) -> str:
    """Returns how many cores each process of the array gets; where the rows need different numbers, for which row."""
    cores = {cores_per_process(row.job.resources, row.config): row for row in reversed(rows)}
    text = f"{count_of(max(cores), 'core')} for each process"
    return text + (f" of every row, as line {cores[max(cores)].line} needs them" if len(cores) > 1 else "")


def allow_open_files(count: int) -> int:
    """Raises the limit of open files for `count` locks; returns how many of them it allows."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    limit = count + OTHER_FILES if hard == resource.RLIM_INFINITY else min(hard, count + OTHER_FILES)
    if soft != resource.RLIM_INFINITY and soft < limit:
        resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
    return max(limit, soft) - OTHER_FILES


def largest_array() -> int:
    """Returns the largest number of rows that Slurm takes in one array."""
    match = re.search(r"^MaxArraySize\s*=\s*(\d+)", slurm("scontrol", "show", "config"), re.MULTILINE)
    return int(match[1]) if match else 1001  # Slurm's default


def open_rows(file: str, rows: list[Row], queue: dict[str, JobState], only_failed: bool) -> list[Row]:
    """Returns the rows that are to be submitted: those that are neither finished nor in the queue nor being trained.

    Prints a line on stderr for each row that is left out.

    Args:
        queue: the jobs in Slurm's queue.
        only_failed: rows that are in the queue or being trained are left out; otherwise they are an error.

    Raises:
        BadInput: a row is in the queue or being trained, and `only_failed` is not set.
    """
    remaining, busy = [], []
    with ThreadPoolExecutor(THREADS) as pool:  # a run that was killed is watched for some seconds
        reasons = list(pool.map(lambda row: busy_reason(row.run, queue), rows))
    for row, reason in zip(rows, reasons, strict=True):
        if reason:
            busy.append(f"line {row.line}: {row.run.name} {reason}")
        elif is_finished(row.run, row.config):
            print(f"line {row.line}: {row.run.name} is finished ({read_status(row.run)['step']} steps), left out",
                  file=sys.stderr)
        else:
            remaining.append(row)
    if busy and not only_failed:
        raise combine_mistakes(
            f"--array {file}: some rows have a job already. Add --failed to submit only those that are neither "
            "finished, nor in the queue, nor being trained", busy)
    for text in busy:
        print(f"{text}, left out", file=sys.stderr)
    return remaining


def busy_reason(run: Path, queue: dict[str, JobState]) -> str:
    """Returns why another job of a run must not be submitted; empty if it may."""
    for job in dict.fromkeys(record["job"] for record in job_records(run)):
        if job in queue and not queue[job].over:
            return f"is in the queue, as job {job} ({queue[job].name})"
    try:
        refuse_second_start(run)
    except BadInput:
        return "is being trained"
    return ""
