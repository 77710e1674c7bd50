"""The command line of fleet-rcnn: the verbs of the detector, those of the launcher, and launch options."""

import argparse
from dataclasses import replace

from detector.arguments.verb import PROGRAM, Verb, add_overrides
from detector.arguments.verbs import GROUPS as DETECTOR_GROUPS
from detector.config.aliases import print_once
from detector.config.names import RUNS_FOLDER
from launcher.backends import BACKENDS, DEFAULT_BACKEND
from launcher.job import LAUNCHED_VERBS, TEMPLATES
from launcher.resources import add_resource_options

DEFAULT_FOLDER = RUNS_FOLDER
LAUNCHER_VERBS = (*LAUNCHED_VERBS, "check")  # take the options of add_launch_options; the others do not


def launch_parser() -> argparse.ArgumentParser:
    """Returns the parser of the verb and the options of its launch alone, which may stand anywhere."""
    parser = argparse.ArgumentParser(prog=PROGRAM, allow_abbrev=False, add_help=False)
    parser.add_argument("verb", nargs="?", default="")
    add_launch_options(parser)
    return parser


def add_launch_options(parser: argparse.ArgumentParser) -> None:
    """Adds the options that say where a job runs and with which resources."""
    parser.conflict_handler = "resolve"  # --processes of check is also a resource
    where = parser.add_argument_group("where it runs")
    where.add_argument("--on", type=backend_name, choices=BACKENDS, default=DEFAULT_BACKEND,
                       help="local: processes on this machine; torchrun: this machine, under torchrun; slurm: a Slurm "
                       "job, submitted with submitit; sbatch: a Slurm job, submitted as a script of slurm/; default: "
                       "local")
    where.add_argument("--dry-run", action="store_true", help="print the script or the command, and submit nothing")
    where.add_argument("--template", choices=TEMPLATES, default=TEMPLATES[0],
                       help="for --on sbatch: torchrun: one torchrun on each node; srun: one task for each process; "
                       "default: torchrun")
    where.add_argument("--array", metavar="FILE[%N]", default="",
                       help="for --on sbatch: submit one run for each line of FILE, which holds key=value ..., such as "
                       "rows.txt; with rows.txt%%4, four of them run at a time; default: one run")
    where.add_argument("--failed", action="store_true",
                       help="of --array: leave out the runs that are in the queue or being trained; those that are "
                       "finished are always left out")
    where.add_argument("--cluster", metavar="FILE", default="",
                       help="cluster file with defaults for the options below, such as a100.yaml; "
                       "configs/cluster/example.yaml shows its keys; default: ~/.config/fleet-rcnn/cluster.yaml")
    add_resource_options(parser.add_argument_group("resources; a cluster file may set them too"))


def backend_name(name: str) -> str:
    """Returns the value of --on; the old name `here` becomes `local`, with a note."""
    if name != "here":
        return name
    print_once(["--on here is now called --on local"])
    return "local"


def with_launch_options(verb: Verb) -> Verb:
    """Returns a verb of the detector that takes the options of its launch as well."""
    def add_arguments(parser: argparse.ArgumentParser) -> None:
        verb.add_arguments(parser)
        add_launch_options(parser)

    return replace(verb, add_arguments=add_arguments)


def add_reproduce(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of reproduce; all others belong to train."""
    parser.add_argument("row", metavar="ROW", help="row of the tables, such as voc07-res101-g8-b16; "
                        f"`{PROGRAM} tables` lists the rows")
    parser.add_argument("--seeds", type=int, default=1, metavar="N", help="number of runs, with seeds 0 to N - 1; "
                        "default: 1")
    parser.add_argument("--steps", type=int, default=0, metavar="N", help="stop after N steps; such a run does not "
                        "count in the table; default: all steps of the row")


def add_jobs(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of jobs."""
    parser.add_argument("names", nargs="*", metavar="FOLDER",
                        help=f"folder of the run folders, such as /shared/runs; default: {DEFAULT_FOLDER}")
    parser.add_argument("--watch", action="store_true", help="print the table every few seconds, until Ctrl-C")
    parser.add_argument("--json", action="store_true", help="print a JSON list with one object for each run")
    add_folder(parser)


def add_logs(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of logs."""
    add_run_names(parser)
    parser.add_argument("--follow", action="store_true", help="go on printing until the run is over")
    parser.add_argument("-n", type=int, metavar="LINES", help="print only so many last lines, such as 50; default: all")
    parser.add_argument("--job", default="", metavar="ID", help="print the log of another job of the run, such as 118; "
                        "default: the newest")
    add_folder(parser)


def add_cancel(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of cancel."""
    add_run_names(parser)
    add_folder(parser)


def add_run_names(parser: argparse.ArgumentParser) -> None:
    """Adds the positional arguments RUN ..."""
    parser.add_argument("names", nargs="*", metavar="RUN", help="run folder, name of a run, id of a job or of a job "
                        "array, or folder of an array, such as runs/bccd, bccd or 118; at least one")


def add_folder(parser: argparse.ArgumentParser) -> None:
    """Adds the option --folder."""
    parser.add_argument("--folder", metavar="FOLDER",
                        help=f"folder of the run folders, such as /shared/runs; default: {DEFAULT_FOLDER}")


def add_reproduce_and_train(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of reproduce and those that it passes to train, for help and completion."""
    add_reproduce(parser)
    add_overrides(parser)
    add_launch_options(parser)


REPRODUCE = Verb("ROW [key=value ...]", "train and test a row of the published tables",
                 ("reproduce deeppcb-resnet18-fpn --seeds 3 data.root=data/deeppcb",), add_reproduce_and_train,
                 "Trains the row once for each seed, then prints it. Each run is an ordinary training: started again, "
                 "it resumes, and it takes key=value, --on, --gpus and all other options of train.")
RUNS = {
    "jobs": Verb("[FOLDER]", "list the runs with their states, and why they ended",
                 ("jobs", "jobs /shared/runs --watch", "jobs --json"), add_jobs),
    "logs": Verb("RUN ...", "print the logs of runs", ("logs bccd --follow", "logs bccd -n 50"), add_logs),
    "cancel": Verb("RUN ...", "cancel the jobs of runs, or stop them; they save a checkpoint first",
                   ("cancel bccd", "cancel 118"), add_cancel),
}
GROUPS = {**{title: {name: with_launch_options(verb) if name in LAUNCHER_VERBS else verb
                     for name, verb in group.items()} for title, group in DETECTOR_GROUPS.items()},
          "runs and jobs": RUNS, "published tables": {"reproduce": REPRODUCE}}
VERBS = {name: verb for group in GROUPS.values() for name, verb in group.items()}
