"""fleet-rcnn VERB ...: parses the command line, checks it, and starts the detector on the backend named by --on."""

import argparse
import os
import sys
from shlex import join
from typing import Callable

from detector import __version__
from detector.config.aliases import print_once
from detector.errors import BAD_INPUT, INTERRUPTED, OK, BadInput, escape_unprintable, use_utf8
from detector.run.machine_errors import explain
from launcher import check, run_verbs
from launcher.arrays import parse_array_option
from launcher.backends import BACKENDS, DEFAULT_BACKEND, Backend, load_backend
from launcher.backends.local import run_local
from launcher.clean_environment import unused_notes
from launcher.command_hints import refuse_unknown_options, refuse_unknown_verb
from launcher.job import LAUNCHED_VERBS, TEMPLATES, Job, Launch, Resources
from launcher.reproduce import reproduce
from launcher.resources import CLUSTER_FIELDS, add_resource_options, attach_option_values, build_resources

VERBS = {  # verb: (arguments, description)
    "train": ("CONFIG [key=value ...]", "train a detector, or resume its run"),
    "check": ("CONFIG [key=value ...]", "report mistakes in a config, its data and resources before training"),
    "evaluate": ("RUN [key=value ...]", "evaluate a run's checkpoint on its validation data"),
    "score": ("DETECTIONS.json ANNOTATIONS", "score detections in COCO's result format, of any detector"),
    "compare": ("RUN_A RUN_B", "test whether the difference between two evaluated runs is significant"),
    "predict": ("RUN|coco|FILE SOURCE", "draw the detections in an image, a folder, a video or camera:0"),
    "view": ("CONFIG [key=value ...]", "show the training data, as annotated and as the model gets it"),
    "anchors": ("CONFIG [key=value ...]", "show how well the anchors cover the objects, and propose better ones"),
    "export": ("RUN --format onnx|torchscript|weights", "export a run's detector for other programs"),
    "data": ("list | get NAME", "list or download the data sets of the published tables"),
    "convert": ("SOURCE --to LAYOUT OUT", "write a data set in another layout, such as yolo"),
    "reproduce": ("ROW [--seeds 3] [key=value ...]", "train and test a row of the published tables"),
    "tables": ("[--markdown|--html|--csv|--models]", "print the published tables beside measured results"),
    "options": ("", "list every option of a config with default and description"),
    "jobs": ("[FOLDER] [--watch] [--json]", "list the runs with their states, and why they ended"),
    "logs": ("RUN ... [--follow] [-n 50]", "print the logs of runs"),
    "cancel": ("RUN ...", "cancel the jobs of runs, or stop them; they save a checkpoint first"),
}
LAUNCHER_VERBS = (*LAUNCHED_VERBS, "check")  # take the options below; the others have options of their own
BROKEN_PIPE = 141  # 128 + SIGPIPE: the reader of the output has ended, as `| head` does
LAUNCH_OPTIONS = ("--on", "--processes", "--gpus", "--nodes", "--array", "--dry-run", "--cluster")


def parser() -> argparse.ArgumentParser:
    """Returns the parser of the launcher's own options."""
    verbs = "\n".join(f"  {verb:9} {arguments:37}  {about}" for verb, (arguments, about) in VERBS.items())
    places = "|".join(BACKENDS)
    top = argparse.ArgumentParser(
        prog="fleet-rcnn", formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False,
        usage=f"fleet-rcnn VERB ... [--on {places}] [options]",
        description=f"Trains Faster R-CNN detectors.\n\nverbs:\n{verbs}\n\n"
        "`fleet-rcnn VERB --help` describes one verb. CONFIG is a YAML file or the name of a config that ships with\n"
        "the package, such as custom/bccd. Exit status: 0 done, 1 failed, 2 bad input, 75 stopped early (run the same\n"
        "command again to resume).")
    top.add_argument("--version", action="version", version=f"fleet-rcnn {__version__}")
    top.add_argument("verb", metavar="VERB", help="see above")
    where = top.add_argument_group("where train and evaluate run")
    where.add_argument("--on", type=backend_name, choices=BACKENDS, default=DEFAULT_BACKEND,
                       help="local: processes on this machine (default); torchrun: this machine, under torchrun; "
                       "slurm: a Slurm job, submitted with submitit; sbatch: a Slurm job, submitted as a script of "
                       "slurm/")
    where.add_argument("--dry-run", action="store_true", help="print the script or the command, and submit nothing")
    where.add_argument("--template", choices=TEMPLATES, default=TEMPLATES[0],
                       help="for --on sbatch: torchrun: one torchrun on each node (default); srun: one task for each "
                       "process")
    where.add_argument("--array", metavar="FILE[%N]", default="",
                       help="for --on sbatch: submit one run for each line of FILE, which holds key=value ...; "
                       "with %%N, N of them run at a time")
    where.add_argument("--failed", action="store_true",
                       help="of --array: leave out the runs that are in the queue or being trained; those that are "
                       "finished are always left out")
    where.add_argument("--cluster", metavar="FILE", default="",
                       help="cluster file with defaults for the options below; default: "
                       "~/.config/fleet-rcnn/cluster.yaml; configs/cluster/example.yaml shows its keys")
    add_resource_options(top.add_argument_group("resources; a cluster file may set them too"))
    return top


def backend_name(name: str) -> str:
    """Returns the value of --on; the old name `here` becomes `local`, with a note."""
    if name != "here":
        return name
    print_once(["--on here is now called --on local"])
    return "local"


def main(arguments: list[str] | None = None) -> int:
    """Runs one command line and returns its exit status."""
    if arguments is None:
        use_utf8()
    escape_unprintable()
    arguments = sys.argv[1:] if arguments is None else arguments
    if arguments[:1] == ["reproduce"]:
        return reproduce(attach_option_values(arguments[1:], value_options(parser())), main)
    if len(arguments) > 1 and arguments[0] in VERBS and {"-h", "--help"} & set(arguments):
        return print_verb_help(arguments[0])
    try:
        status = run_command_line(arguments)
        sys.stdout.flush()
        return status
    except BadInput as error:
        print(f"error: {error}", file=sys.stderr)
        return BAD_INPUT
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or the interpreter fails again when it exits
        return BROKEN_PIPE
    except Exception as error:
        explained = explain(error)  # such as a run folder of another user
        if explained is None:
            raise
        print(f"error: {explained[0]}", file=sys.stderr)
        return explained[1]


def run_command_line(arguments: list[str]) -> int:
    """Runs one command line and returns its exit status. Raises BadInput if it has a mistake."""
    if arguments and arguments[0] in run_verbs.RUN_VERBS:
        return run_verbs.run(arguments[0], arguments[1:], VERBS[arguments[0]][1])
    if arguments and arguments[0] in VERBS and arguments[0] not in LAUNCHER_VERBS:
        refuse_launch_options(arguments[0], arguments)
        return run_local(Job(arguments[0], tuple(arguments[1:]), Resources()))
    top = parser()
    args, rest = top.parse_known_args(attach_option_values(arguments))
    refuse_unknown_verb(args.verb, VERBS)
    refuse_launch_options(args.verb, arguments)
    refuse_unknown_options(args.verb, rest, flags_of(top))
    return run_verb(args, rest, f"fleet-rcnn {join(arguments)}")


def refuse_launch_options(verb: str, arguments: list[str]) -> None:
    """Raises BadInput for an option of LAUNCH_OPTIONS with a verb of the detector that runs in one process."""
    if verb not in LAUNCHER_VERBS and {argument.partition("=")[0] for argument in arguments} & set(LAUNCH_OPTIONS):
        raise BadInput(f"{verb} runs in one process on this machine: leave out "
                       f"{', '.join(LAUNCH_OPTIONS[:-1])} and {LAUNCH_OPTIONS[-1]}")


def flags_of(top: argparse.ArgumentParser) -> list[str]:
    """Returns the long options of a parser."""
    return [flag for action in top._actions for flag in action.option_strings if flag.startswith("--")]


def value_options(top: argparse.ArgumentParser) -> list[str]:
    """Returns the options of a parser that take one value."""
    return [flag for action in top._actions for flag in action.option_strings if action.nargs is None]


def print_verb_help(verb: str) -> int:
    """Prints the help of one verb and returns the exit status."""
    if verb in run_verbs.RUN_VERBS:
        run_verbs.parser_of(verb, VERBS[verb][1]).print_help()
        return OK
    status = run_local(Job(verb, ("--help",), Resources(1)))
    if verb in LAUNCHER_VERBS:
        print("\n`fleet-rcnn --help` lists the options for where it runs and with which resources.")
    return status


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
