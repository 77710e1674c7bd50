"""fleet-rcnn reproduce ROW: trains a row of the published tables, once for each seed, and then shows the row.

Each run is an ordinary training: started again, it resumes, and it takes --on, --gpus and all other options of train.
"""

import argparse
import sys
from functools import partial
from pathlib import Path
from typing import Callable

from detector.arguments.verb import refuse
from detector.config.aliases import HABITS
from detector.config.names import shipped_folder
from detector.errors import BAD_INPUT, OK, BadInput
from launcher.arguments import add_reproduce

# Options that the runs of a row do not share -> what to do instead of stating them.
OF_EACH_RUN = {"seed": "the runs of a row have the seeds 0, 1, ...; set --seeds to their number",
               "run.name": "the runs of a row are called ROW, ROW-seed1, ...; set run.folder to have them elsewhere"}


def reproduce(arguments: list[str], run_command: Callable[[list[str]], int]) -> int:
    """Runs the trainings of a row one after another, then prints the row.

    Args:
        arguments: the command line after `reproduce`, with the values of options of train as `--on=slurm`.
        run_command: runs another command line of fleet-rcnn and returns its exit status.

    Returns:
        0, or the exit status of the first training that did not end with 0; the same command then resumes it.
    """
    try:
        parser = argparse.ArgumentParser(prog="fleet-rcnn reproduce", allow_abbrev=False, add_help=False)
        parser.error = partial(refuse, "reproduce")
        add_reproduce(parser)
        args, rest = parser.parse_known_args(arguments)
        commands = training_commands(args.row, args.seeds, args.steps, rest)
    except BadInput as error:
        print(f"error: {error}", file=sys.stderr)
        return BAD_INPUT
    for command in commands:
        if status := run_command(command):
            return status
    if "--dry-run" in rest:
        return OK
    folders = [argument.partition("=")[2] for argument in rest if argument.startswith("run.folder=")]
    return run_command(["tables", "--row", args.row, "--runs", folders[-1] if folders else "runs"])


def training_commands(row: str, seeds: int, steps: int, rest: list[str]) -> list[list[str]]:
    """Returns the command lines of `fleet-rcnn train`: the run of seed 0 is called ROW, the others ROW-seedN.

    Raises:
        BadInput: there is no such row, a number is out of range, or `rest` states an option that differs by run.
    """
    rows = sorted(path.stem for path in (shipped_folder() / "configs" / "tables").glob("*.yaml"))
    if row not in rows:
        raise BadInput(f"no such row: {row}. Rows: {', '.join(rows)}")
    if seeds < 1:
        raise BadInput(f"--seeds {seeds}: must be at least 1")
    if steps < 0:
        raise BadInput(f"--steps {steps}: must be at least 0, which means all steps of the row")
    for argument in rest:
        key = argument.partition("=")[0]
        if HABITS.get(key, key) in OF_EACH_RUN:
            raise BadInput(f"{argument}: {OF_EACH_RUN[HABITS.get(key, key)]}")
    names = [row, *(f"{row}-seed{seed}" for seed in range(1, seeds))]
    limit = [f"schedule.steps={steps}"] if steps else []
    return [["train", str(Path("tables") / row), *rest, *limit, f"run.name={name}", f"seed={seed}"]
            for seed, name in enumerate(names)]
