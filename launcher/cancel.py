"""The verb cancel: ends the jobs of runs, and runs that processes of this machine train. They save a checkpoint."""

import os
import signal
import sys

from detector.errors import BAD_INPUT, OK, BadInput, shorten
from detector.run.files import LOCK_FILE
from detector.run.heartbeat import describe, read_heartbeats
from detector.run.lock import Liveness, has_open, read_owner
from launcher.backends import load_backend
from launcher.run_folders import Target
from launcher.run_info import job_records
from launcher.run_state import Phase
from launcher.run_summary import RunSummary, summarize


def cancel_runs(targets: list[Target]) -> int:
    """Cancels runs; returns 0, or 2 if one of them could not be cancelled. The others are cancelled all the same."""
    notes: list[str] = []
    errors, queued = [], {}
    for summary in summarize(targets, notes.append):
        try:
            if is_in_queue(summary):
                queued.setdefault(summary.backend, []).append(summary)
            else:
                print(stop_process(summary, notes))
        except BadInput as error:
            errors.append(str(error))
    for backend, group in queued.items():
        try:
            load_backend(backend).cancel(*short_ids([summary.state.job for summary in group], backend))
            print("\n".join(describe_cancelled(summary) for summary in group), flush=True)
        except BadInput as error:
            errors.append(f"{shorten([summary.name for summary in group])} cannot be cancelled: {error}")
    for error in errors:
        print(f"error: {error}", file=sys.stderr)
    return BAD_INPUT if errors else OK


def is_in_queue(summary: RunSummary) -> bool:
    """Returns whether the job that has the run waits or runs."""
    return bool(summary.state.job and summary.state.job_state and not summary.state.job_state.over)


def short_ids(jobs: list[str], backend: str) -> list[str]:
    """Returns the ids of jobs; those of an array whose rows in the queue are all among them as the id of the array."""
    arrays = {job.partition("_")[0] for job in jobs if "_" in job}
    rows = [job for job in load_backend(backend).queue() or {} if job.partition("_")[0] in arrays] if arrays else []
    whole = {array for array in arrays if all(job in jobs for job in rows if job.partition("_")[0] == array)}
    return list(dict.fromkeys(job.partition("_")[0] if job.partition("_")[0] in whole else job for job in jobs))


def describe_cancelled(summary: RunSummary) -> str:
    """Returns what happens to a run whose job was cancelled."""
    job, records = summary.state.job, job_records(summary.run)
    if summary.state.phase is Phase.RUNNING:
        heartbeats = "".join(f"\n  {describe(heartbeat)}" for heartbeat in read_heartbeats(summary.run)[:1])
        return f"cancelled job {job}: {summary.name} saves a checkpoint and is not requeued{heartbeats}"
    if any(record["job"] == job and "restart" in record for record in records):
        return f"cancelled job {job}: {summary.name} waited to be continued; step {summary.step} is saved"
    return f"cancelled job {job}: {summary.name} had not started"


def stop_process(summary: RunSummary, notes: list[str]) -> str:
    """Sends SIGTERM to the process of this machine that trains a run; returns what happens then.

    Args:
        notes: about schedulers that do not answer.

    Raises:
        BadInput: no process of this machine trains the run; its job is over or of an unknown state.
    """
    name, job, owner = summary.name, summary.state.job, read_owner(summary.run)
    if job and summary.state.job_state is None:
        raise BadInput(f"{name} is not cancelled: {notes[0] if notes else f'this machine cannot ask for job {job}'}. "
                       f"`scancel {job}` cancels it on a machine of the cluster")
    if owner.liveness is Liveness.ALIVE and has_open(owner.pid, summary.run / LOCK_FILE):
        try:
            os.kill(owner.pid, signal.SIGTERM)
        except OSError as error:
            raise BadInput(f"{name} cannot be cancelled: process {owner.pid}: {error.strerror}. Its owner can do "
                           "that") from error
        return f"sent SIGTERM to process {owner.pid}: {name} saves a checkpoint and stops"
    if owner.liveness is Liveness.ALIVE:
        raise BadInput(f"{name} cannot be cancelled: process {owner.pid} is in another container of this machine. "
                       "Press Ctrl-C where it was started")
    if owner.liveness is Liveness.ELSEWHERE and not job and not summary.state.phase.is_over:
        raise BadInput(f"{name} cannot be cancelled from here: process {owner.pid} on {owner.host} trains it. Press "
                       f"Ctrl-C there, or `ssh {owner.host} kill {owner.pid}`")
    if job:
        raise BadInput(f"{name} is not in the queue: its job {job} is over ({summary.state.text})")
    raise BadInput(f"{name} is not running: {summary.state.text}")
