"""fleet-rcnn reproduce ROW: the training of a table's row, once for each seed, and what the table then says of it.

A run of a row is a training like any other: it goes on where it was, and takes --on, --gpus and all the rest.
"""

import argparse
import sys
from pathlib import Path
from typing import Callable

from detector.config.load import shipped_folder
from detector.errors import BAD_INPUT, OK, BadInput


def reproduce(arguments: list[str], start: Callable[[list[str]], int]) -> int:
    """Starts the trainings one after another and then shows the row; `start` is fleet-rcnn itself.

    The first that does not end well ends it: the same command goes on later.
    """
    try:
        said, rest = parser().parse_known_args(arguments)
        commands = trainings(said.row, said.seeds, said.steps, rest)
    except BadInput as error:
        print(f"error: {error}", file=sys.stderr)
        return BAD_INPUT
    except SystemExit as end:  # after --help, or a mistake that argparse has told
        return int(end.code or OK)
    for command in commands:
        if status := start(command):
            return status
    folder = next((word.partition("=")[2] for word in reversed(rest) if word.startswith("run.folder=")), "runs")
    return OK if "--dry-run" in rest else start(["tables", "--row", said.row, "--runs", folder])


def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(prog="fleet-rcnn reproduce", description=__doc__, allow_abbrev=False,
                                  formatter_class=argparse.RawDescriptionHelpFormatter)
    top.add_argument("row", help="a row of the tables, such as voc07-res101-g8-b16; fleet-rcnn tables lists them")
    top.add_argument("--seeds", type=int, default=1, metavar="N", help="so many runs, with seeds 0, 1, ...")
    top.add_argument("--steps", type=int, default=0, metavar="N", help="end after so many steps; the table says so")
    top.add_argument_group("all else is handed on to train: key=value, --on, --gpus, --processes, ...")
    return top


def trainings(row: str, seeds: int, steps: int, rest: list[str]) -> list[list[str]]:
    """The command lines of `fleet-rcnn train`: run ROW has seed 0, run ROW-seedN has seed N."""
    known = sorted(path.stem for path in (shipped_folder() / "configs" / "tables").glob("*.yaml"))
    if row not in known:
        raise BadInput(f"no such row: {row}. There are: {', '.join(known)}")
    if seeds < 1 or steps < 0:
        raise BadInput(f"--seeds {seeds} --steps {steps}: at least one seed, and no negative number of steps")
    names = [row, *(f"{row}-seed{seed}" for seed in range(1, seeds))]
    return [["train", str(Path("tables") / row), *rest, *([f"schedule.steps={steps}"] if steps else []),
             f"run.name={name}", f"seed={seed}"] for seed, name in enumerate(names)]
