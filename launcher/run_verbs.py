"""The command lines of jobs, logs and cancel, which the launcher answers from the run folders."""

import argparse
from collections.abc import Callable
from pathlib import Path

from detector.arguments.verbs import parse
from detector.errors import BadInput
from launcher.arguments import DEFAULT_FOLDER, GROUPS
from launcher.cancel import cancel_runs
from launcher.command_hints import advice_of_launcher
from launcher.job_table import print_jobs
from launcher.run_folders import find_targets
from launcher.run_logs import print_logs


def run(verb: str, arguments: list[str]) -> int:
    """Runs one command line of jobs, logs or cancel; returns the exit status. Raises BadInput if it has a mistake."""
    return RUN_VERBS[verb](parse_run_verb(verb, arguments))


def parse_run_verb(verb: str, arguments: list[str]) -> argparse.Namespace:
    """Parses the arguments of jobs, logs or cancel. Raises BadInput for those that it does not have."""
    args = parse([verb, *arguments], GROUPS, advice_of_launcher)
    if verb == "jobs" and len(args.names) + (args.folder is not None) > 1:
        folders = [*args.names, *filter(None, [args.folder])]
        raise BadInput(f"jobs takes one folder, not {' and '.join(folders)}. For a folder above them, it lists "
                       "the runs of all")
    if verb == "jobs" and args.json and args.watch:
        raise BadInput("jobs: --watch and --json exclude each other: run `fleet-rcnn jobs --json` again for new values")
    if verb == "logs" and args.n is not None and args.n < 0:
        raise BadInput(f"logs: -n {args.n}: a number of lines, 0 or more")
    if verb != "jobs" and not args.names:
        raise BadInput(f"{verb} needs a run: its folder, its name below {args.folder or DEFAULT_FOLDER}/, or the id of "
                       "its job. `fleet-rcnn jobs` lists the runs")
    return args


def run_jobs(args: argparse.Namespace) -> int:
    return print_jobs(Path(args.names[0] if args.names else args.folder or DEFAULT_FOLDER), args.json, args.watch)


def run_logs(args: argparse.Namespace) -> int:
    targets = find_targets(args.names, Path(args.folder or DEFAULT_FOLDER))
    return print_logs(targets, args.follow, args.n, args.job)


def run_cancel(args: argparse.Namespace) -> int:
    return cancel_runs(find_targets(args.names, Path(args.folder or DEFAULT_FOLDER)))


RUN_VERBS: dict[str, Callable[[argparse.Namespace], int]] = {"jobs": run_jobs, "logs": run_logs, "cancel": run_cancel}
