"""The command lines of jobs, logs and cancel, which the launcher answers from the run folders."""

import argparse
from collections.abc import Callable
from pathlib import Path

from detector.config.parsing import did_you_mean
from detector.errors import BadInput
from launcher.cancel import cancel_runs
from launcher.job_table import print_jobs
from launcher.run_folders import find_targets
from launcher.run_logs import print_logs

DEFAULT_FOLDER = "runs"
# Options of other tools -> what to write here.
HABITS = {"-f": "--follow", "--tail": "-n", "--lines": "-n", "--all": "the names of the runs", "-w": "--watch"}


def parser_of(verb: str, description: str) -> argparse.ArgumentParser:
    """Returns the parser of one verb."""
    parser = argparse.ArgumentParser(prog=f"fleet-rcnn {verb}", description=description, allow_abbrev=False,
                                     exit_on_error=False)
    if verb == "jobs":
        parser.add_argument("names", nargs="*", metavar="FOLDER",
                            help=f"folder of the run folders; default: {DEFAULT_FOLDER}")
        parser.add_argument("--watch", action="store_true", help="print the table every few seconds, until Ctrl-C")
        parser.add_argument("--json", action="store_true", help="print a JSON list with one object for each run")
    else:
        parser.add_argument("names", nargs="*", metavar="RUN",
                            help="run folder, name of a run, id of a job or of a job array, or folder of an array")
    if verb == "logs":
        parser.add_argument("--follow", action="store_true", help="go on printing until the run is over")
        parser.add_argument("-n", type=int, metavar="LINES", help="print only so many last lines")
        parser.add_argument("--job", default="", metavar="ID", help="print the log of another job of the run")
    parser.add_argument("--folder", metavar="FOLDER", help=f"folder of the run folders; default: {DEFAULT_FOLDER}")
    return parser


def run(verb: str, arguments: list[str], description: str) -> int:
    """Runs one command line of jobs, logs or cancel; returns the exit status. Raises BadInput if it has a mistake."""
    return RUN_VERBS[verb](parse(verb, arguments, description))


def parse(verb: str, arguments: list[str], description: str) -> argparse.Namespace:
    """Parses the arguments of one verb. Raises BadInput for those that it does not have."""
    parser = parser_of(verb, description)
    try:
        args, unknown = parser.parse_known_intermixed_args(arguments)
    except argparse.ArgumentError as error:
        raise BadInput(f"{verb}: {error}. `fleet-rcnn {verb} --help` shows the options") from error
    if unknown:
        flags = [argument for argument in unknown if argument.startswith("-")] or unknown
        raise BadInput(f"{verb}: " + "; ".join(describe_unknown(argument, parser) for argument in flags))
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


def describe_unknown(argument: str, parser: argparse.ArgumentParser) -> str:
    """Returns what to write instead of an argument that the verb does not have."""
    flags = [flag for action in parser._actions for flag in action.option_strings]
    flag = argument.partition("=")[0]
    habit = HABITS.get(flag, "-")
    if habit in flags or not habit.startswith("-"):
        return f"{argument}: no such option (did you mean {habit}?)"
    return (f"{argument}: no such option{did_you_mean(flag, flags)}. Options: "
            f"{', '.join(name for name in flags if name != '-h')}")


def run_jobs(args: argparse.Namespace) -> int:
    return print_jobs(Path(args.names[0] if args.names else args.folder or DEFAULT_FOLDER), args.json, args.watch)


def run_logs(args: argparse.Namespace) -> int:
    targets = find_targets(args.names, Path(args.folder or DEFAULT_FOLDER))
    return print_logs(targets, args.follow, args.n, args.job)


def run_cancel(args: argparse.Namespace) -> int:
    return cancel_runs(find_targets(args.names, Path(args.folder or DEFAULT_FOLDER)))


RUN_VERBS: dict[str, Callable[[argparse.Namespace], int]] = {"jobs": run_jobs, "logs": run_logs, "cancel": run_cancel}
