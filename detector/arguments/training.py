"""The arguments of train and check."""

import argparse

from detector.arguments.verb import Verb, add_config


def add_check(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of check."""
    add_config(parser)
    parser.add_argument("--json", action="store_true", help="print problems, notes and facts as one JSON object")
    parser.add_argument("--quick", action="store_true", help="skip decoding all images and the trial step")
    parser.add_argument("--processes", type=int, default=0, metavar="N", help="processes of the planned run, such as "
                        "8; default: one for each GPU of this machine")


TRAINING = {
    "train": Verb("CONFIG [key=value ...]", "train a detector, or resume its run",
                  ("train shapes/demo", "train custom/bccd data.root=/data/bccd optim.lr=0.005",
                   "train mine.yaml run.name=second schedule.epochs=24"), add_config,
                  "The files are in the run folder, run.folder/run.name, such as runs/bccd. The same command resumes "
                  "a run that was stopped, from its newest checkpoint: nothing needs to be set. Ctrl-C saves and "
                  "stops; a second one stops at once."),
    "check": Verb("CONFIG [key=value ...]", "report mistakes in a config, its data and resources before training",
                  ("check custom/bccd data.root=/data/bccd", "check mine.yaml --quick --json"), add_check,
                  "Reads all annotations, decodes all images, takes a trial step, and tells memory and hours. Exit "
                  "status: 0 without a problem, else 2."),
}
