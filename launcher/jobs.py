"""The verbs jobs, logs and cancel: a table of the runs, the log of a run, and the cancellation of its job."""

import sys
import time
from collections import deque
from pathlib import Path

from detector.errors import OK, BadInput
from detector.run.checkpoint_files import last_checkpoint_step
from detector.run.files import CONFIG_FILE, LOG_FILE, STATUS_FILE
from detector.run.heartbeat import describe, read_heartbeats
from detector.run.status import read_status
from launcher.backends import JobState, load_backend
from launcher.run_info import backend_of, job_records, last_job, last_metrics

HEADLINE_METRICS = ("AP", "mAP", "AP50")
FINAL_RUN_STATES = ("finished", "stopped", "failed")  # states of status.json in which no process trains
COLUMNS = ("run", "state", "job", "step", "images/s", "left", "restarts", "last metric")
POLL_S = 0.5


def print_jobs(folder: Path) -> int:
    """Prints a table of the runs below a folder; under a run that failed, the last line of its log. Returns 0."""
    if not folder.is_dir():
        raise BadInput(f"no folder {folder}; --folder names the folder of the runs")
    runs = [path for path in sorted(folder.glob("*/")) if (path / STATUS_FILE).is_file() or job_records(path)]
    if not runs:
        print(f"no run in {folder}/; --folder names another folder")
        return OK
    queues = {name: read_queue(name) for name in sorted({backend_of(run) for run in runs})}
    rows = [describe_run(run, queues[backend_of(run)]) for run in runs]
    widths = [max(len(row[column]) for row in [COLUMNS, *(cells for cells, _ in rows)])
              for column in range(len(COLUMNS))]
    for cells, trouble in [(COLUMNS, ""), *rows]:
        print("  ".join(cell.ljust(width) for cell, width in zip(cells, widths)).rstrip())
        if trouble:
            print(f"    {trouble}")
    return OK


def read_queue(backend: str) -> dict[str, JobState] | None:
    """Returns the queue of a backend; None, and a note on stderr, if its scheduler does not answer."""
    try:
        return load_backend(backend).queue()
    except BadInput as error:  # the run folders are still worth printing
        print(f"note: the states of jobs are unknown: {error}", file=sys.stderr)
        return None


def describe_run(run: Path, queue: dict[str, JobState] | None) -> tuple[tuple[str, ...], str]:
    """Returns a row of the table, and the last line of the log if the run has or may have ended badly.

    Args:
        queue: job -> state; None if unknown.
    """
    status, records, metrics = read_status(run), job_records(run), last_metrics(run)
    job, restarts = last_job(run), max((record.get("restart", 0) for record in records), default=0)
    state = describe_state(run, status.get("state", ""), queue)
    is_trouble = "FAILED" in state or state in ("failed", "stopped") or state.startswith(("ended", "unknown"))
    trouble = last_line(log_file(run)) if is_trouble else ""
    evaluation = metrics.get("evaluation", {})
    headline = next((f"{name} {evaluation[name]:.4g}" for name in HEADLINE_METRICS if name in evaluation), "")
    step, total_steps = status.get("step") or last_checkpoint_step(run), status.get("total_steps", "?")
    images_per_s = status.get("images_per_s") or metrics.get("train", {}).get("images_per_s")
    seconds_left = status.get("seconds_left") if state not in FINAL_RUN_STATES else None
    return (run.name, state or "?", job, f"{step}/{total_steps}", f"{images_per_s:.1f}" if images_per_s else "",
            format_duration(seconds_left), str(restarts), headline), trouble


def describe_state(run: Path, run_state: str, queue: dict[str, JobState] | None) -> str:
    """Returns the state of a run: that of its job in the queue, that of status.json, ended or unknown.

    Args:
        run_state: of status.json; empty if there is none.
    """
    job = last_job(run)
    if queue and job in queue:
        name, reason = queue[job].name.lower(), queue[job].reason
        if name == "running":
            return f"running, {run_state}" if run_state else name
        return f"{name} ({reason})" if reason else name
    if job and run_state not in FINAL_RUN_STATES:  # the job was killed before the run could write its state
        if queue is None:
            return f"unknown (last state: {run_state or 'none'})"
        return f"ended ({load_backend(backend_of(run)).state(job).name})"
    return run_state


def format_duration(seconds: float | None) -> str:
    """Returns "1:01 h" for 3700 seconds, "5 min" for 300, "" for None."""
    if seconds is None:
        return ""
    minutes = int(seconds) // 60
    return f"{minutes // 60}:{minutes % 60:02d} h" if minutes >= 60 else f"{minutes} min"


def log_file(run: Path) -> Path:
    """Returns the log of the last job of a run; for a run without a job its own log.txt."""
    logs = [Path(record["log"]) for record in job_records(run) if record.get("log")]
    return logs[-1] if logs else run / LOG_FILE


def last_line(path: Path) -> str:
    """Returns the last line of a file that is not blank; "" if there is none among the last 50, or no file."""
    if not path.is_file():
        return ""
    with open(path, encoding="utf-8", errors="replace") as file:
        return next((line.strip() for line in reversed(deque(file, maxlen=50)) if line.strip()), "")


def find_run(name: str, folder: Path) -> Path:
    """Returns the absolute run folder named by its path, or by its name below `folder`. Raises BadInput if neither."""
    for run in (Path(name), folder / name):
        if (run / CONFIG_FILE).is_file() or (run / "slurm").is_dir():
            return run.absolute()
    raise BadInput(f"no such run: {name}. Name its folder; `fleet-rcnn jobs` lists the runs in {folder}/")


def print_log(run: Path, follow: bool) -> int:
    """Prints the log of the last job. Returns 0.

    Args:
        follow: go on printing what is appended, until the job is over.
    """
    path, position = log_file(run), 0
    print(f"{path}:", file=sys.stderr)
    while True:
        over = not follow or is_over(run)  # asked before reading, so that the last lines are not missed
        if path.is_file():
            with open(path, encoding="utf-8", errors="replace") as file:
                file.seek(position)
                sys.stdout.write(file.read())
                position = file.tell()
            sys.stdout.flush()
        if over:
            break
        time.sleep(POLL_S)
    if not path.is_file():
        raise BadInput(f"{path} does not exist yet: the job has not started, or has printed nothing. `fleet-rcnn jobs` "
                       "shows its state")
    return OK


def is_over(run: Path) -> bool:
    """Returns whether the last job of a run is over; for a run without a job, whether status.json says so."""
    job = last_job(run)
    return load_backend(backend_of(run)).state(job).over if job else read_status(run).get("state") in FINAL_RUN_STATES


def cancel_run(run: Path) -> int:
    """Cancels the last job of a run: the run saves a checkpoint and is not requeued. Returns 0.

    Raises:
        BadInput: the run has no job in the queue.
    """
    job, backend = last_job(run), load_backend(backend_of(run))
    if job and backend.state(job).over:
        raise BadInput(f"{run.name} is not in the queue: its job {job} is over")
    try:
        backend.cancel(job)
    except BadInput as error:
        raise BadInput(f"{run.name} cannot be cancelled: {error}") from error
    print(f"cancelled job {job}: {run.name} saves a checkpoint and is not requeued")
    for heartbeat in read_heartbeats(run)[:1]:
        print(f"  {describe(heartbeat)}")
    return OK
