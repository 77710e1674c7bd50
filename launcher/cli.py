"""fleet-rcnn VERB ...: parses the command line, checks it, and starts the detector on the backend named by --on."""

import argparse
import os
import sys
from shlex import join
from typing import Callable

from detector.arguments.completion import complete
from detector.arguments.unknown import refuse_unknown_options, refuse_unknown_verb
from detector.arguments.verb import end_options, parser_of
from detector.arguments.verbs import build_parser, parse
from detector.errors import (
    BAD_INPUT,
    INTERRUPTED,
    OK,
    BadInput,
    escape_unprintable,
    interrupted_line,
    open_closed_streams,
    use_utf8,
)
from detector.run.machine_errors import explain, is_closed_output
from launcher import check, run_verbs
from launcher.arguments import GROUPS, LAUNCHER_VERBS, VERBS, launch_parser
from launcher.arrays import parse_array_option
from launcher.backends import BACKENDS, Backend, load_backend
from launcher.backends.local import run_local
from launcher.clean_environment import unused_notes
from launcher.command_hints import advice_of_launcher
from launcher.job import Job, Launch, Resources
from launcher.reproduce import reproduce
from launcher.resources import CLUSTER_FIELDS, attach_option_values, build_resources

BROKEN_PIPE = 141  # 128 + SIGPIPE: the reader of the output has ended, as `| head` does
LAUNCH_OPTIONS = ("--on", "--processes", "--gpus", "--nodes", "--array", "--dry-run", "--cluster")


def main(arguments: list[str] | None = None) -> int:
    """Runs one command line and returns its exit status."""
    if arguments is None:
        use_utf8()
        open_closed_streams()
    escape_unprintable()
    if "_ARGCOMPLETE" in os.environ:
        complete(build_parser(GROUPS))
    arguments = end_options(sys.argv[1:] if arguments is None else arguments)
    if arguments[:1] == ["reproduce"] and not {"-h", "--help"} & set(arguments):
        return reproduce(attach_option_values(arguments[1:], value_options(launch_parser())), main)
    try:
        status = run_command_line(arguments)
        sys.stdout.flush()
        return status
    except BadInput as error:
        print(f"error: {error}", file=sys.stderr)
        return BAD_INPUT
    except SystemExit as end:  # help or the version was printed
        return int(end.code or OK)
    except KeyboardInterrupt as error:
        print(interrupted_line(*map(str, error.args)), file=sys.stderr)
        return INTERRUPTED
    except Exception as error:
        if is_closed_output(error):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or the interpreter fails again at its exit
            return BROKEN_PIPE
        explained = explain(error)  # such as a run folder of another user
        if explained is None:
            raise
        print(f"error: {explained[0]}", file=sys.stderr)
        return explained[1]


def run_command_line(arguments: list[str]) -> int:
    """Runs one command line and returns its exit status. Raises BadInput if it has a mistake."""
    attached = attach_option_values(arguments)
    if {"-h", "--help", "--version"} & set(attached) or attached[:1] in ([], ["help"]):
        parse(attached, GROUPS)  # prints it
    if attached[0] in run_verbs.RUN_VERBS:
        return run_verbs.run(attached[0], attached[1:])
    args, rest = launch_parser().parse_known_args(attached)
    refuse_unknown_verb(args.verb, VERBS)
    if args.verb not in LAUNCHER_VERBS:
        refuse_launch_options(args.verb, attached)
        parse(attached, GROUPS, advice_of_launcher)  # its mistakes are reported before a process starts
        return run_local(Job(args.verb, tuple(attached[1:]), Resources()))
    refuse_unknown_options(args.verb, rest, parser_of(args.verb, VERBS[args.verb]), advice_of_launcher)
    return run_verb(args, rest, f"fleet-rcnn {join(arguments)}")


def refuse_launch_options(verb: str, arguments: list[str]) -> None:
    """Raises BadInput for an option of LAUNCH_OPTIONS with a verb of the detector that runs in one process."""
    if verb not in LAUNCHER_VERBS and {argument.partition("=")[0] for argument in arguments} & set(LAUNCH_OPTIONS):
        raise BadInput(f"{verb} runs in one process on this machine: leave out "
                       f"{', '.join(LAUNCH_OPTIONS[:-1])} and {LAUNCH_OPTIONS[-1]}")


def value_options(top: argparse.ArgumentParser) -> list[str]:
    """Returns the options of a parser that take one value."""
    return [flag for action in top._actions for flag in action.option_strings if action.nargs is None]


def run_verb(args: argparse.Namespace, rest: list[str], command_line: str) -> int:
    """Runs a verb of the launcher and returns the exit status.

    Args:
        args: options of the launcher.
        rest: the other arguments, passed to the detector.
        command_line: as typed by the user.
    """
    backend = load_backend(args.on)
    resources = build_resources(args, backend.is_cluster)
    refuse_contradictions(args, resources, backend)
    launch = Launch(Job(args.verb, tuple(rest), resources), command_line, args.template,
                    *parse_array_option(args.array), args.failed)
    if args.verb == "check":
        return check.check(launch, backend)
    for note in unused_notes() if backend.is_cluster else []:
        print(f"note: {note}", file=sys.stderr)
    if args.dry_run:
        print(backend.script(launch), end="")
        return OK
    return backend.submit(launch)


def refuse_contradictions(args: argparse.Namespace, resources: Resources, backend: Backend) -> None:
    """Raises BadInput for options that the verb or the backend cannot serve."""
    if resources.nodes > 1 and not backend.is_cluster:
        raise BadInput(f"--nodes {resources.nodes}: several nodes need {places_with(lambda other: other.is_cluster)}")
    cluster_options = [] if backend.is_cluster else [
        f"--{name.replace('_', '-')}" for name in CLUSTER_FIELDS if getattr(args, name) is not None]
    if cluster_options:
        raise BadInput(f"{', '.join(cluster_options)}: for a job {places_with(lambda other: other.is_cluster)}")
    if args.array and (not backend.has_arrays or args.verb != "train"):
        raise BadInput(f"--array is for train {places_with(lambda other: other.has_arrays)}")
    if args.failed and not args.array:
        raise BadInput("--failed is for the rows of --array FILE. A single run that has failed is submitted again with "
                       "the same command")


def places_with(condition: Callable[[Backend], bool]) -> str:
    """Returns the values of --on whose backend meets a condition: "--on slurm or --on sbatch"."""
    return " or ".join(f"--on {name}" for name in BACKENDS if condition(load_backend(name)))


if __name__ == "__main__":
    sys.exit(main())
