"""What runs inside a Slurm job, around srun: begin, task, end.

    begin VERB RUN            may this job start (again)? Says which restart it is
    task VERB ARGUMENTS...    one rank: a task of srun, or a process of torchrun
    end VERB RUN STATUS       asks Slurm for a requeue if the run stopped early; else gives STATUS on

A run that stopped early is no failure: its tasks end with 0, for srun would kill the others of a task that does not,
and `end` finds in the run's status.json what became of it.
"""

import json
import os
import re
import signal
import socket
import sys
import time
from pathlib import Path

from detector.errors import BAD_INPUT, FAILED, OK, STOPPED, BadInput
from launcher.environment import SlurmJob, host_names, run_slurm, slurm_environment, slurm_job
from launcher.job import Job
from launcher.local import run_processes
from launcher.record import last_checkpoint, launched, read_json, write_json

BY_SIGNAL = tuple(128 + number for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2))
REQUEUE_S = 60  # a job that asked for a requeue is killed within this


def main(arguments: list[str] | None = None) -> int:
    said = sys.argv[1:] if arguments is None else arguments
    try:
        if said[:1] == ["begin"] and len(said) == 3:
            return begin(said[1], Path(said[2]))
        if said[:1] == ["task"] and len(said) >= 3:
            return task(said[1], tuple(said[2:]))
        if said[:1] == ["end"] and len(said) == 4:
            return end(said[1], Path(said[2]), int(said[3]))
        print(f"{__doc__}", file=sys.stderr)
        return BAD_INPUT
    except BadInput as error:
        print(f"error: {error}", file=sys.stderr)
        return BAD_INPUT


def begin(verb: str, run: Path) -> int:
    """0, or 1 where all restarts are used up, or the last one has brought nothing."""
    job, allowed = the_job(), launched(run, verb).get("restarts", 0)
    step = last_checkpoint(run)
    starts = run / "slurm" / f"starts-{verb}.jsonl"
    before = [json.loads(line) for line in starts.read_text().splitlines()] if starts.is_file() else []
    before = [line for line in before if line["job"] == job.name and line["restart"] < job.restarts]
    refused = ""
    if job.restarts > allowed:
        refused = f"all {allowed} restarts are used (run.restarts)"
    elif verb == "train" and before and before[-1]["restart"] > 0 and before[-1]["step"] == step:
        refused = f"no progress: restart {before[-1]['restart']} began at step {step}, too. The log says what ended it"
    times = f", restart {job.restarts} of {allowed}" if job.restarts else ""
    print(f"Slurm job {job.name} on {job.nodes}{times}: {verb} {run.name}, {step} steps are saved"
          + (f"; not started again: {refused}" if refused else ""), flush=True)
    if refused:
        return FAILED
    starts.parent.mkdir(parents=True, exist_ok=True)
    with open(starts, "a", encoding="utf-8") as file:
        file.write(json.dumps({"job": job.name, "restart": job.restarts, "step": step, "at": time.time()}) + "\n")
    if verb == "train":
        write_json(run / "status.json", {**read_json(run / "status.json"), "state": "starting", "at": time.time()})
    return OK


def task(verb: str, arguments: tuple[str, ...]) -> int:
    """One rank, with this process beside it to hand signals on and to say what became of it."""
    environment = slurm_environment()
    status = run_processes(Job(verb, arguments), [environment])
    if status in (OK, STOPPED):
        return OK
    print(f"rank {environment['RANK']} on {socket.gethostname()} ended with exit status {status}", file=sys.stderr, flush=True)
    if status != BAD_INPUT:
        wait_for_requeue(the_job())
    return status


def end(verb: str, run: Path, status: int) -> int:
    """The exit status of the job, if it lives on: a requeue ends this process, too."""
    job, said = the_job(), read_json(run / "status.json") if verb == "train" else {}
    early = said.get("state") == "stopped" or status in BY_SIGNAL and said.get("state", "starting") == "starting"
    if early:
        return requeue(job, run, verb, said)
    if status in (OK, BAD_INPUT):
        return status
    print(f"{verb} {run.name} ended with exit status {status}" + (last_seen(run) if verb == "train" else ""),
          file=sys.stderr, flush=True)
    wait_for_requeue(job)
    return status


def requeue(job: SlurmJob, run: Path, verb: str, said: dict) -> int:
    allowed = launched(run, verb).get("restarts", 0)
    saved = (f"saved step {said['step']} in {said['saved_in_s']:.1f} s" if said.get("saved_in_s") is not None
             else f"stopped before there was something to save, {last_checkpoint(run)} steps are on disk")
    if job.restarts >= allowed:
        print(f"{saved}; not requeued: all {allowed} restarts are used (run.restarts)", flush=True)
        return STOPPED
    print(f"{saved}, asked for a requeue (restart {job.restarts + 1} of {allowed})", flush=True)
    try:
        run_slurm("scontrol", "requeue", job.name)
    except BadInput as error:  # a preempted job may be in the queue again already
        print(error, file=sys.stderr, flush=True)
    time.sleep(REQUEUE_S)
    return STOPPED


def wait_for_requeue(job: SlurmJob) -> None:
    """If a node of the job is gone, stays until Slurm has seen it, too: a job that ends before is not requeued."""
    gone = silent_nodes(job)
    if gone:
        patience_s = REQUEUE_S + int(re.search(r"SlurmdTimeout\s*=\s*(\d+)", run_slurm("scontrol", "show", "config"))[1])
        print(f"{', '.join(gone)} of job {job.name} does not answer: Slurm should requeue the job within {patience_s} s",
              file=sys.stderr, flush=True)
        time.sleep(patience_s)


def silent_nodes(job: SlurmJob) -> list[str]:
    """Nodes of the job whose slurmd takes no connection."""
    default = re.search(r"SlurmdPort\s*=\s*(\d+)", run_slurm("scontrol", "show", "config"))[1]
    silent = []
    for name in host_names(job.nodes):
        said = run_slurm("scontrol", "-o", "show", "node", name)
        port = re.search(r"\bPort=(\d+)", said)
        try:
            socket.create_connection((re.search(r"NodeAddr=(\S+)", said)[1], int(port[1] if port else default)), 5).close()
        except OSError:
            silent.append(name)
    return silent


def last_seen(run: Path) -> str:
    """Where each rank was, from its heartbeat; the oldest first."""
    beats = sorted((read_json(path) for path in (run / "heartbeats").glob("rank-*.json")), key=lambda beat: beat.get("at", 0))
    lines = [f"rank {beat['rank']} on {beat['host']}: {beat['phase']} at step {beat['step']}, "
             f"last seen {time.time() - beat['at']:.0f} s ago" for beat in beats if "at" in beat]
    return "".join(f"\n  {line}" for line in lines[:16])


def the_job() -> SlurmJob:
    job = slurm_job(os.environ)
    if job is None:
        raise BadInput("this is for the inside of a Slurm job: SLURM_JOB_ID is not set")
    return job


if __name__ == "__main__":
    sys.exit(main())
