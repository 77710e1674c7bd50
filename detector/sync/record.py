"""The record of a run as an experiment tracker takes it: options, environment, logged lines, and files."""

import hashlib
import math
import re
import socket
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from detector.config.names import no_such_run
from detector.config.sections import flatten
from detector.config.yaml_files import read_options
from detector.errors import BadInput
from detector.run import files
from detector.run.checkpoint_files import last_checkpoint_step
from detector.run.evaluation_history import PER_CLASS, not_finite, read_metrics
from detector.run.files import read_json, to_json
from detector.run.lock import Liveness, has_live_heartbeat, read_owner
from detector.run.metric_tags import BEST_NAME, BY_CLASS, tag_of
from detector.run.status import read_status
from detector.run.usage import Start, read_starts

FILES = (files.CONFIG_FILE, files.ENVIRONMENT_FILE, files.RESULTS_FILE, files.USAGE_FILE, files.LOG_FILE,
         files.REPORT_FILE)
PICTURES = (f"{files.PLOTS_FOLDER}/*.png", f"{files.PICTURES_FOLDER}/*.jpg")


@dataclass(frozen=True)
class Record:
    """The content of a run folder for an experiment tracker."""

    folder: Path
    options: dict[str, object]      # by path, as texts and lists
    environment: dict[str, object]  # the content of environment.json
    lines: list[dict]               # those of metrics.jsonl that no resume takes back
    num_later: int                  # further lines, which a resume may take back
    is_running: bool
    state: str                      # of status.json
    starts: list[Start]

    @property
    def name(self) -> str:
        return self.folder.name

    @cached_property
    def digests(self) -> list[str]:
        """The digest of the first N lines for each N from 0 on."""
        digest, texts = hashlib.sha256(), [""]
        for line in self.lines:
            digest.update(f"{to_json(line)}\n".encode())
            texts.append(digest.hexdigest()[:16])
        return texts

    def time_of(self, step: int) -> float:
        """Returns when a step was done, in seconds since 1970, at an even pace within the start that did it."""
        start = next((start for start in reversed(self.starts) if start.first_step < step), None)
        if start is None:
            return self.starts[0].at if self.starts else (self.folder / files.METRICS_FILE).stat().st_mtime
        share = (step - start.first_step) / max(start.step - start.first_step, 1)
        return start.at + min(share, 1.0) * (start.until - start.at)


def read_record(folder: Path) -> Record:
    """Returns the record of a run. Raises BadInput if the folder holds none.

    A process that trains the run may be killed, and the run then resumes at its newest checkpoint: while it is trained,
    later lines are left out.
    """
    if not folder.is_dir():
        raise no_such_run(str(folder))
    if not (folder / files.CONFIG_FILE).is_file():
        raise BadInput(f"{folder} is no run folder: {files.CONFIG_FILE} is missing. Name the folder of a run, such as "
                       "runs/bccd; `fleet-rcnn jobs` lists the runs")
    lines, is_running = read_metrics(folder), is_trained(folder)
    last_step = last_checkpoint_step(folder) if is_running else math.inf
    final = [line for line in lines if line["step"] <= last_step]
    return Record(folder.resolve(), flatten(read_options(folder / files.CONFIG_FILE)),
                  read_json(folder / files.ENVIRONMENT_FILE), final, len(lines) - len(final), is_running,
                  str(read_status(folder).get("state", "")), read_starts(folder))


def is_trained(folder: Path) -> bool:
    """Returns whether a process trains the run, on this machine or on another one."""
    try:
        owner = read_owner(folder)
    except OSError:
        return False
    is_elsewhere = owner.liveness is Liveness.ELSEWHERE and owner.host != socket.gethostname()
    return owner.liveness is Liveness.ALIVE or is_elsewhere and has_live_heartbeat(folder)


def rows_of(lines: list[dict], best_metric: str) -> list[dict[str, float]]:
    """Returns the numbers of each line by tag; those of an evaluation with the best metric so far."""
    rows, best = [], -math.inf
    for line in lines:
        values = {name: value for name, value in line.items()
                  if isinstance(value, (int, float)) and name not in ("kind", "step")}
        row = {tag_of(line["kind"], clean(name)): float(value) for name, value in values.items()}
        if line["kind"] == "evaluation":
            row |= class_values(line.get(PER_CLASS) or {})
            if best_metric in values and not not_finite(values):
                best = max(best, values[best_metric])
            row |= {tag_of("evaluation", BEST_NAME): best} if math.isfinite(best) else {}
        rows.append(row)
    return rows


def class_values(per_class: dict[str, dict]) -> dict[str, float]:
    """Returns the metrics of each class by tag. Classes whose names differ only in special characters get numbers."""
    row: dict[str, float] = {}
    taken: set[str] = set()
    for class_name, metrics in per_class.items():
        name = base = clean(class_name)
        number = 2
        while name.lower() in taken:
            name, number = f"{base} {number}", number + 1
        taken.add(name.lower())
        for metric, value in metrics.items():
            if isinstance(value, (int, float, type(None))):
                row[tag_of(f"{clean(metric)}{BY_CLASS}", name)] = math.nan if value is None else float(value)
    return row


def clean(name: str) -> str:
    """Returns a name of characters that every tracker takes: letters, digits, spaces, _ and -."""
    return re.sub(r"[^\w -]", "_", name)[:100].strip() or "_"


def files_of(folder: Path, patterns: tuple[str, ...]) -> dict[str, str]:
    """Returns the digest of each file that there is, by its path in the run folder."""
    digests = {}
    for path in sorted(path for pattern in patterns for path in folder.glob(pattern)):
        try:
            digests[path.relative_to(folder).as_posix()] = hashlib.sha256(path.read_bytes()).hexdigest()[:16]
        except OSError:  # replaced meanwhile, or not readable
            continue
    return digests


def first_line(error: Exception) -> str:
    """Returns the first line of an error's text, without a full stop; its type if there is none."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
