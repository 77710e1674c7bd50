"""Runs that go on, or went: what became of them, what they say, and how to stop them."""

import sys
import time
from collections import deque
from pathlib import Path

from detector.errors import BadInput
from launcher.run_info import heartbeats, jobs_of, last_checkpoint, last_metrics, seen, status_of
from launcher.slurm_commands import has_slurm, job_state, slurm
from launcher.submission import OVER

HEADLINES = ("AP", "mAP", "AP50")
COLUMNS = ("run", "state", "job", "step", "images/s", "left", "restarts", "last metric")


def jobs(folder: Path) -> int:
    """A table of the runs below a folder; below a run that failed, the last line of its log."""
    runs = [path for path in sorted(folder.glob("*/")) if (path / "status.json").is_file() or jobs_of(path)]
    if not folder.is_dir():
        raise BadInput(f"no folder {folder}; --folder names the one where runs live")
    if not runs:
        print(f"no run in {folder}/; --folder names another")
        return 0
    try:
        queue = queued()
    except BadInput as error:  # what the run folders tell is worth telling all the same
        queue = None
        print(f"note: Slurm was not asked: {error}", file=sys.stderr)
    rows = [describe(run, queue) for run in runs]
    widths = [max(len(line[i]) for line in [COLUMNS, *(row for row, _ in rows)]) for i in range(len(COLUMNS))]
    for line, trouble in [(COLUMNS, ""), *rows]:
        print("  ".join(cell.ljust(width) for cell, width in zip(line, widths)).rstrip())
        if trouble:
            print(f"    {trouble}")
    return 0


def queued() -> dict[str, str] | None:
    """The user's jobs that Slurm has not done with, {"12": "running", "13": "pending (Priority)"}; None: no Slurm."""
    if not has_slurm():
        return None
    lines = [line.split("|") for line in slurm("squeue", "--me", "-h", "-r", "-o", "%i|%T|%r").splitlines()]
    return {job: state.lower() + (f" ({reason})" if state == "PENDING" and reason != "None" else "")
            for job, state, reason in lines}


def describe(run: Path, queue: dict[str, str] | None) -> tuple[tuple[str, ...], str]:
    """A row of the table, and what is wrong, if something is."""
    said, known = status_of(run), jobs_of(run)
    job, restart = (known[-1]["job"] if known else ""), max((line.get("restart", 0) for line in known), default=0)
    state, trouble = said.get("state", ""), ""
    if queue and job in queue:
        state = f"{queue[job]}, {state}" if state and queue[job] == "running" else queue[job]
    elif known and state not in ("finished", "stopped", "failed"):
        state = f"ended ({job_state(job)['JobState']})" if queue is not None else f"ended? was {state}"
    if "FAILED" in state or state in ("failed", "stopped") or state.startswith("ended"):
        trouble = last_line(log_of(run))
    metrics = last_metrics(run)
    evaluation = metrics.get("evaluation", {})
    headline = next((f"{name} {evaluation[name]:.4g}" for name in HEADLINES if name in evaluation), "")
    step, total = said.get("step") or last_checkpoint(run), said.get("total_steps", "?")
    rate = said.get("images_per_s") or metrics.get("train", {}).get("images_per_s")
    left = said.get("seconds_left") if state not in ("finished", "stopped", "failed") else None
    return (run.name, state or "?", job, f"{step}/{total}", f"{rate:.1f}" if rate else "", span(left), str(restart),
            headline), trouble


def span(seconds: float | None) -> str:
    """3700 -> 1:01 h"""
    if seconds is None:
        return ""
    minutes = int(seconds) // 60
    return f"{minutes // 60}:{minutes % 60:02d} h" if minutes >= 60 else f"{minutes} min"


def log_of(run: Path) -> Path:
    """What the last job of a run printed, else the run's own log.txt."""
    logs = [Path(line["log"]) for line in jobs_of(run) if line.get("log")]
    return logs[-1] if logs else run / "log.txt"


def last_line(path: Path) -> str:
    if not path.is_file():
        return ""
    with open(path, encoding="utf-8", errors="replace") as file:
        return next((line.strip() for line in reversed(deque(file, maxlen=50)) if line.strip()), "")


def known_run(name: str, folder: Path) -> Path:
    """A run by its folder, or by its name below `folder`."""
    for run in (Path(name), folder / name):
        if (run / "config.yaml").is_file() or (run / "slurm").is_dir():
            return run.absolute()
    raise BadInput(f"no such run: {name}. Name its folder; `fleet-rcnn jobs` lists those in {folder}/")


def logs(run: Path, follow: bool) -> int:
    """The log of the last job; with `follow`, what is added to it until the job is over."""
    path, position = log_of(run), 0
    print(f"{path}:", file=sys.stderr)
    while True:
        over = not follow or is_over(run)  # asked before reading, so that the last lines are read
        if path.is_file():
            with open(path, encoding="utf-8", errors="replace") as file:
                file.seek(position)
                sys.stdout.write(file.read())
                position = file.tell()
            sys.stdout.flush()
        if over:
            break
        time.sleep(0.5)
    if not path.is_file():
        raise BadInput(f"{path} is not there yet: the job has not started, or not printed anything")
    return 0


def is_over(run: Path) -> bool:
    known = jobs_of(run)
    return job_state(known[-1]["job"])["JobState"] in OVER if known else status_of(run).get("state") in (
        "finished", "stopped", "failed")


def cancel(run: Path) -> int:
    """scancel: the run saves what it has, and is not queued again."""
    known = jobs_of(run)
    job = known[-1]["job"] if known else ""
    if not job or job_state(job)["JobState"] in OVER:
        local = "" if job else ": it was not submitted; Ctrl-C stops it where it was started"
        raise BadInput(f"{run.name} is not in Slurm's queue{local}")
    slurm("scancel", job)
    print(f"asked Slurm to cancel job {job}: {run.name} saves what it has, and is not queued again")
    for beat in heartbeats(run)[:1]:
        print(f"  {seen(beat)}")
    return 0
