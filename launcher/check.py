"""fleet-rcnn check: the problems that the launcher finds and those that the detector finds, in one report."""

import json
import re
import subprocess
import sys
from dataclasses import replace

from detector.checks.problems import NO_PROBLEM, CheckReport, Problem, count_of_problems
from detector.errors import BAD_INPUT, OK, BadInput
from launcher.backends import Backend
from launcher.backends.local import run_local
from launcher.job import Job, Launch, Resources
from launcher.preflight import run_folder_problems
from launcher.run_info import resolve_run


def check(launch: Launch, backend: Backend) -> int:
    """Prints the report; with --json as one JSON object.

    After a problem of the launcher, the detector skips the checks that take long.

    Args:
        launch: of the training that is checked; its arguments may hold options of the detector's check.

    Returns:
        0, or 2 if there is a problem.
    """
    arguments, resources = launch.job.arguments, launch.job.resources
    run, config = resolve_run("check", arguments)
    training = Job("train", tuple(argument for argument in arguments if not argument.startswith("-")), resources)
    problems, notes = backend.preflight(training, run, config), backend.notes(resources)
    if not problems and not run_folder_problems(run):  # which the detector's check reports
        problems, more_notes = backend.rehearse(replace(launch, job=training))
        notes = [*notes, *more_notes]
    processes = resources.world_size if backend.is_cluster else resources.processes or resources.gpus
    options = [*(["--processes", str(processes)] if processes else []), *(["--quick"] if problems else [])]
    job = Job("check", (*arguments, *options), Resources(1))
    if "--json" in arguments:
        return print_json_report(job, problems, notes)
    for note in notes:
        print(note)
    for problem in problems:
        print(f"problem: {problem}")
    sys.stdout.flush()
    if not problems:
        return run_local(job)
    completed = subprocess.run(job.command(), stdout=subprocess.PIPE, text=True, errors="backslashreplace")
    lines = completed.stdout.splitlines()
    count = number_of_problems(lines[-1]) if lines else None
    print("\n".join([*(lines if count is None else lines[:-1]), count_of_problems(len(problems) + (count or 0))]))
    return completed.returncode or BAD_INPUT


def number_of_problems(line: str) -> int | None:
    """Returns the number that the last line of the detector's report tells; None for another line."""
    match = re.fullmatch(r"(\d+) problems?", line)
    return 0 if line == NO_PROBLEM else int(match[1]) if match else None


def print_json_report(job: Job, problems: list[Problem], notes: list[str]) -> int:
    """Runs the detector's check, puts the launcher's problems and notes before its own, and prints one JSON object.

    Returns:
        0, or 2 if there is a problem, or the exit status of a detector that printed no JSON.
    """
    completed = subprocess.run(job.command(), capture_output=True, text=True)
    try:
        report = json.loads(completed.stdout)
    except ValueError:
        if completed.returncode == BAD_INPUT:  # an error before the first check
            raise BadInput(completed.stderr.strip().removeprefix("error: ")) from None
        print(completed.stderr, file=sys.stderr, end="")
        return completed.returncode
    launch_report = json.loads(CheckReport(problems=problems, notes=notes).as_json())
    for key in ("problems", "notes"):
        report[key] = launch_report[key] + report[key]
    print(json.dumps(report, indent=1))
    return BAD_INPUT if report["problems"] else OK
