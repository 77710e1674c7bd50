"""The names of all files in a run folder, and functions that write and read small files whole.

A reader may come at any moment, also after a crash. Files are therefore written beside their place and renamed.
"""

import contextlib
import json
import math
import os
import secrets
import shutil
import time
from collections.abc import Iterable
from pathlib import Path

from detector.config.names import RUN_CONFIG_FILE
from detector.errors import BadInput

# All names are relative to the run folder.
CONFIG_FILE = RUN_CONFIG_FILE             # config.yaml: the resolved config
ENVIRONMENT_FILE = "environment.json"     # versions, machine, command; see environment.py
STATUS_FILE = "status.json"               # see status.py
LOCK_FILE = "owner.lock"                  # see lock.py
HEARTBEATS_FOLDER = "heartbeats"          # folder; see heartbeat.py
CHECKPOINTS_FOLDER = "checkpoints"        # folder: step-N.pt and best.pt; see checkpoint_files.py
METRICS_FILE = "metrics.jsonl"            # a line for each logged step and each evaluation
LOG_FILE = "log.txt"                      # all messages, each with its time
TENSORBOARD_FOLDER = "tensorboard"        # folder of event files
PICTURES_FOLDER = "pictures"              # folder of validation images with their boxes
PLOTS_FOLDER = "plots"                    # folder of curves as PNG; see visualization/plots.py
CURVES_FILE = "plots/curves.json"         # of the last evaluation; see visualization/curves_file.py
DETECTIONS_FILE = "detections.json"       # of an evaluation, in COCO's format
RESULTS_FILE = "results.json"             # metrics of an evaluation
USAGE_FILE = "usage.json"                 # what each start has used; see usage.py
SYNC_FILE = "sync.json"                   # what `sync` has sent, and where; see detector/sync/progress.py
HELD_OUT_FILE = "held_out.json"           # paths of the validation images where data.val is a share
EVALUATIONS_FOLDER = "evaluations"        # folder: evaluations of other data, metrics or checkpoints, a folder each
REPORT_FILE = "report.html"               # of an evaluation
JOBS_FILE = "slurm/jobs.jsonl"            # a line for each job that was submitted or has started
SUBMISSION_LOCK_FILE = "slurm/submit.lock"  # see launcher/submission_lock.py
BAD_INPUT_FILE = "slurm/bad-input"        # exists if a rank has found bad input since the last start
FAILED_RANKS_FOLDER = "slurm/failed"      # folder: a file for each rank that ended badly since the last start
STOPPED_EARLY_FILE = "slurm/stopped"      # exists if a rank has stopped early since the last start


def replace_file(path: Path, content: bytes, flush: bool = True) -> None:
    """Replaces a file, which keeps its permissions; a reader sees the old or the new content, never a part.

    Where several processes write a file at the same time, the last one wins. The partial file has a random name:
    processes in containers may have equal ids.

    Args:
        flush: wait until the content is on the disk. Without it, a power cut can leave an incomplete file.

    Raises:
        OSError: the file cannot be written; the old one is left as it is.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.{secrets.token_hex(4)}.part")
    try:
        with open(partial, "wb") as file:
            file.write(content)
            file.flush()
            if flush:
                os.fsync(file.fileno())
        with contextlib.suppress(OSError):  # no such file, or a disk that allows no chmod
            shutil.copymode(path, partial)
        os.replace(partial, path)
    except OSError:
        partial.unlink(missing_ok=True)
        raise


def write_whole(path: Path, text: str, flush: bool = True) -> None:
    """Replaces a text file as replace_file does. Raises OSError."""
    replace_file(path, text.encode("utf-8"), flush)


def write_text(path: Path, text: str) -> None:
    """Replaces a text file as replace_file does, without waiting for the disk. Raises BadInput in place of OSError."""
    try:
        write_whole(path, text, flush=False)
    except OSError as error:
        raise cannot_write(path, error) from error


def write_json(path: Path, value: dict) -> None:
    """Replaces a JSON file. Raises BadInput if the file cannot be written."""
    write_text(path, to_json(value, indent=1) + "\n")


def append_json_line(path: Path, **values) -> None:
    """Appends a line with these values and the time ("at", seconds since 1970).

    Raises:
        BadInput: the file cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(path, "a", encoding="utf-8") as file:
            file.write(to_json({**values, "at": time.time()}) + "\n")
    except OSError as error:
        raise cannot_write(path, error) from error


def to_json(value, indent: int | None = None) -> str:
    """Returns a value as JSON; numbers that are not finite become null, because JSON has no others."""
    return json.dumps(finite_or_none(value), indent=indent, allow_nan=False)


def finite_or_none(value):
    """Returns nested dicts and lists with None in place of each number that is not finite."""
    if isinstance(value, dict):
        return {key: finite_or_none(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [finite_or_none(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def refuse_folder(option: str, path: Path, name: str) -> None:
    """Raises BadInput where the value of an option, which names a file to write, is a folder.

    Args:
        name: of a file in this folder, for the remedy.
    """
    if path.is_dir():
        raise BadInput(f"{option} {path} is a folder. Name a file, such as {path / name}")


def cannot_write(path: Path, error: OSError) -> BadInput:
    link = broken_link(path)
    return BadInput(f"cannot write {path}: {link}, or set run.folder" if link else
                    f"cannot write {path}: {error.strerror}. Make room, or set run.folder")


def broken_link(path: Path) -> str:
    """Returns what to do about a link in a path that leads nowhere, as to a disk that is not there; "" without one."""
    link = next((part for part in (path, *path.parents) if part.is_symlink() and not part.exists()), None)
    return f"{link} is a link to {os.readlink(link)}, which does not exist. Make that folder" if link else ""


def read_json(path: Path) -> dict:
    """Returns the object in a JSON file; an empty dict if there is no such file or it holds anything else."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}


def read_json_lines(path: Path) -> list[dict]:
    """Returns the objects of a JSON-lines file. A line that a crash cut short, or that is damaged, is left out."""
    return parse_json_lines(path.read_text(encoding="utf-8", errors="replace").split("\n") if path.is_file() else [])


def parse_json_lines(texts: Iterable[str]) -> list[dict]:
    """Returns the JSON objects in lines; a line that is none is left out."""
    values = []
    for text in texts:
        with contextlib.suppress(ValueError):
            values.append(json.loads(text))
    return [value for value in values if isinstance(value, dict)]
