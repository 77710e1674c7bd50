"""Finds run folders: those below a folder, also nested ones (run.name=exp1/lr0.1), and those that a user names."""

import difflib
import os
import re
from dataclasses import dataclass
from pathlib import Path

from detector.errors import BadInput, shorten
from detector.run.files import (
    CHECKPOINTS_FOLDER,
    CONFIG_FILE,
    EVALUATIONS_FOLDER,
    HEARTBEATS_FOLDER,
    JOBS_FILE,
    PICTURES_FOLDER,
    STATUS_FILE,
    TENSORBOARD_FOLDER,
)
from launcher.run_info import job_records

INNER_FOLDERS = {CHECKPOINTS_FOLDER, EVALUATIONS_FOLDER, HEARTBEATS_FOLDER, PICTURES_FOLDER, TENSORBOARD_FOLDER, "code",
                 "slurm"}  # of a run folder: no run lies in them
MAX_DEPTH = 6  # of a run below the folder of the runs
JOB_ID = re.compile(r"\d+(_\d+)?")


@dataclass(frozen=True)
class Target:
    """A run that a user has named."""

    run: Path
    name: str      # as the user knows it
    job: str = ""  # the job, where the user has named the run by a job id


def list_runs(folder: Path) -> list[Path]:
    """Returns the run folders below a folder, sorted by name, and the folders that cannot be read.

    Symbolic links are followed, each folder is visited once.
    """
    runs, visited, pending = [], set(), [(folder, 0)]
    while pending:
        path, depth = pending.pop()
        try:
            entries = [entry for entry in os.scandir(path) if not entry.name.startswith(".") and is_folder(entry)]
        except OSError:
            runs.append(path)
            continue
        if is_run(path):
            runs.append(path)
            entries = [entry for entry in entries if entry.name not in INNER_FOLDERS]
        for entry in entries if depth < MAX_DEPTH else []:
            place = os.path.realpath(entry.path)
            if place not in visited:
                visited.add(place)
                pending.append((path / entry.name, depth + 1))
    return sorted(runs)


def is_folder(entry: os.DirEntry) -> bool:
    """Returns whether an entry is a folder, or a link to one that can be reached."""
    try:
        return entry.is_dir()
    except OSError:  # a link in a circle, into a folder of somebody else, or to a disk that is gone
        return False


def is_run(path: Path) -> bool:
    """Returns whether a folder is a run folder: a process has started the run, or a job was submitted for it."""
    return os.path.isfile(path / STATUS_FILE) or os.path.isfile(path / JOBS_FILE)


def find_targets(names: list[str], folder: Path) -> list[Target]:
    """Returns the runs named by their paths, their names below `folder`, ids of jobs, or folders of arrays.

    Raises:
        BadInput: a name stands for no run, or for a folder of several.
    """
    targets = [target for name in names for target in find_run(name, folder)]
    return list(dict.fromkeys(targets))


def find_run(name: str, folder: Path) -> list[Target]:
    """Returns the runs that one name stands for: several for the id of a job array, or for the folder of one."""
    paths = [Path(name), folder / name]
    for path in paths:
        if is_run(path) or os.path.isfile(path / CONFIG_FILE) or os.path.isdir(path / "slurm"):
            return [Target(path.absolute(), name)]
    for path in paths:
        if os.path.isdir(path) and not os.access(path, os.R_OK | os.X_OK):
            raise BadInput(f"{path} cannot be read: permission denied. Its owner may grant it with chmod")
    runs = list_runs(folder) if folder.is_dir() else []
    if JOB_ID.fullmatch(name):
        return targets_of_job(name, runs, folder)
    for path in paths:
        if os.path.isfile(path / "array.sbatch") and (rows := targets_of_array(path)):
            return rows
    raise no_such_run(name, folder, runs, paths)


def targets_of_job(name: str, runs: list[Path], folder: Path) -> list[Target]:
    """Returns the run of a job, or the runs of all rows of a job array."""
    targets = [Target(run.absolute(), display_name(run, folder), job) for run in runs for job in jobs_of(run)
               if job == name or job.startswith(f"{name}_")]
    if not targets:
        raise BadInput(f"no run in {folder}/ has a job {name}. `fleet-rcnn jobs` lists the runs with their jobs; "
                       "--folder names another folder of runs")
    return targets


def targets_of_array(path: Path) -> list[Target]:
    """Returns the runs of an array, whose logs lie in its folder."""
    logs = f"{path.absolute()}{os.sep}"
    return [Target(run.absolute(), display_name(run, path.parent), record["job"])
            for run in list_runs(path.parent) for record in readable_records(run)
            if record.get("log", "").startswith(logs) and "backend" in record]


def jobs_of(run: Path) -> list[str]:
    """Returns the jobs of a run, the oldest first; none if they cannot be read."""
    return list(dict.fromkeys(record["job"] for record in readable_records(run)))


def readable_records(run: Path) -> list[dict]:
    """Returns the records of the jobs of a run; none if they cannot be read."""
    try:
        return job_records(run)
    except OSError:
        return []


def display_name(run: Path, folder: Path) -> str:
    """Returns the name of a run: its path below the folder of the runs."""
    path = os.path.relpath(run, folder)
    if path == os.curdir:
        return run.absolute().name
    return str(run) if path.split(os.sep)[0] == os.pardir else path


def no_such_run(name: str, folder: Path, runs: list[Path], paths: list[Path]) -> BadInput:
    """Returns the error for a name that stands for no run, with the runs that may be meant."""
    known = [display_name(run, folder) for run in runs]
    inside = [display_name(run, folder) for path in paths if path.is_dir() for run in list_runs(path)]
    if inside:
        return BadInput(f"{name} is a folder of runs: name those that you mean, such as {shorten(inside, 3)}")
    close = difflib.get_close_matches(name, known, n=1)
    hint = f" (did you mean {close[0]}?)" if close else ""
    return BadInput(f"no such run: {name}{hint}. Name its folder, its name below {folder}/, or the id of its job; "
                    "`fleet-rcnn jobs` lists the runs")
