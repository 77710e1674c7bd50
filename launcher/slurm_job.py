"""The part of fleet-rcnn that runs inside a Slurm job, before, in and after srun.

    begin VERB ARGUMENTS...          before srun: decides whether the job may start, and prints which restart it is
    task VERB ARGUMENTS...           a task of srun, or a process of torchrun: runs one rank
    end STATUS VERB ARGUMENTS...     after srun: requests a requeue if the run stopped early, or returns STATUS
    blocked COMMAND...               runs COMMAND with the stop signals blocked, until it unblocks them

A rank that stopped early ends with 0, because srun kills the other ranks of a task that fails. `end` reads in the run
folder how the run ended.
"""

import contextlib
import dataclasses
import os
import re
import shutil
import signal
import socket
import sys
import time
from pathlib import Path

from detector.errors import BAD_INPUT, FAILED, OK, STOPPED, BadInput
from detector.run import lock
from detector.run.checkpoint_files import last_checkpoint_step
from detector.run.files import (
    FAILED_RANKS_FOLDER,
    LOCK_FILE,
    STATUS_FILE,
    STOPPED_EARLY_FILE,
    read_json,
    write_json,
    write_text,
)
from detector.run.heartbeat import describe, read_heartbeats
from detector.run.status import read_status
from launcher.hang_watch import HangWatch, hang_timeout_s
from launcher.job import Job
from launcher.processes import STOP_SIGNALS, describe_status, no_callback, run_processes
from launcher.rank_env import SlurmJob, current_slurm_job, task_environment
from launcher.restart_policy import (
    EarlierRestart,
    EndFacts,
    Outcome,
    StartFacts,
    decide_end,
    decide_start,
    is_failure,
    was_stopped,
)
from launcher.run_info import add_job_record, job_records, resolve_run
from launcher.slurm_commands import expand_hostlist, job_record, parse_record, slurm

REQUEUE_TIMEOUT_S = 60  # Slurm kills a job that requested a requeue within this time
CONNECT_TIMEOUT_S = 5


def main(arguments: list[str] | None = None) -> int:
    """Runs one of the four commands and returns the exit status."""
    args = sys.argv[1:] if arguments is None else arguments
    try:
        if args[:1] == ["begin"] and len(args) >= 3:
            return begin(args[1], tuple(args[2:]))
        if args[:1] == ["task"] and len(args) >= 3:
            return task(args[1], tuple(args[2:]))
        if args[:1] == ["end"] and len(args) >= 4 and args[1].isdigit():
            return end(int(args[1]), args[2], tuple(args[3:]))
        if args[:1] == ["blocked"] and len(args) >= 2:
            signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
            os.execvp(args[1], args[1:])
        print(__doc__, file=sys.stderr)
        return BAD_INPUT
    except BadInput as error:
        print(f"error: {error}", file=sys.stderr)
        return BAD_INPUT


def begin(verb: str, arguments: tuple[str, ...]) -> int:
    """Starts the run, or refuses to. Returns 0, or 1 where the start is refused."""
    job, (run, config) = require_slurm_job(), resolve_run(verb, arguments)
    facts = collect_start_facts(job, verb, run, config.run.max_requeues)
    restart = f", restart {job.restarts} of {facts.max_requeues}" if job.restarts else ""
    print(f"Slurm job {job.name} on {job.nodelist}{restart}: {verb} {run.name}, {facts.step} steps are saved",
          flush=True)
    decision = decide_start(facts)
    if not decision.allowed:
        continues = "" if verb == "evaluate" else f": it continues from step {facts.step}"
        print(f"not started again: {decision.reason}. Submit it again with the same `fleet-rcnn {verb}` command"
              f"{continues}", flush=True)
        return FAILED
    add_job_record(run, job=job.name, verb=verb, restart=job.restarts, step=facts.step, nodes=job.nodelist,
                   log=job_record(job.name).get("StdOut", ""))
    shutil.rmtree(run / FAILED_RANKS_FOLDER, ignore_errors=True)
    (run / STOPPED_EARLY_FILE).unlink(missing_ok=True)
    # submitit refuses to save a result while the temporary file of a killed start exists.
    for partial in (run / "slurm").glob("*.save_tmp"):
        partial.unlink(missing_ok=True)
    if verb != "evaluate":
        write_json(run / STATUS_FILE, {**read_status(run), "state": "starting", "at": time.time()})
    remove_own_lock(job, run)
    return OK


def collect_start_facts(job: SlurmJob, verb: str, run: Path, max_requeues: int) -> StartFacts:
    """Reads the facts of a start from the run folder and from Slurm."""
    earlier = [record for record in job_records(run) if record["job"] == job.name and record["verb"] == verb
               and 0 < record.get("restart", 0) < job.restarts]
    excused = (run / STOPPED_EARLY_FILE).exists() or bool(earlier) and lost_node(earlier[-1])
    return StartFacts(
        restart=job.restarts, max_requeues=max_requeues, step=last_checkpoint_step(run),
        earlier=tuple(EarlierRestart(record["restart"], record["step"]) for record in earlier),
        last_start_excused=excused, finished=read_status(run).get("state") == "finished",
        must_make_progress=verb != "evaluate")


def remove_own_lock(job: SlurmJob, run: Path) -> None:
    """Removes the lock of an earlier start of this job: on a network disk it can outlive its node."""
    path = run / LOCK_FILE
    if job.restarts and path.is_file():
        nodelists = {record["nodes"] for record in job_records(run)
                     if record["job"] == job.name and record.get("nodes")}
        host = lock.host_of(path.read_text(encoding="utf-8")).split(".")[0]
        if host in [name for nodelist in nodelists for name in expand_hostlist(nodelist)]:
            path.unlink(missing_ok=True)


def lost_node(record: dict) -> bool:
    """Returns whether a node of an earlier start is down now, or was restarted since; `record`: its job record."""
    nodes = [parse_record(slurm("scontrol", "-o", "show", "node", name)) for name in expand_hostlist(record["nodes"])]
    return any(re.search(r"DOWN|FAIL|NOT_RESPONDING|\*", node.get("State", "")) or
               parse_time(node.get("SlurmdStartTime", "")) > record["at"] for node in nodes)


def parse_time(text: str) -> float:
    """Parses a time of Slurm, 2026-01-31T12:00:00, into seconds since 1970; 0 for None or Unknown."""
    with contextlib.suppress(ValueError):
        return time.mktime(time.strptime(text, "%Y-%m-%dT%H:%M:%S"))
    return 0.0


def task(verb: str, arguments: tuple[str, ...]) -> int:
    """Runs one rank; returns its exit status, and 0 for an early stop."""
    status = run_rank(verb, arguments)
    return OK if status == STOPPED else status


def run_rank(verb: str, arguments: tuple[str, ...]) -> int:
    """Runs one rank as a child process; returns its exit status.

    This process forwards signals and writes into the run folder that the rank has stopped early or failed.
    """
    environment, (run, config) = task_environment(), resolve_run(verb, arguments)
    rank, host = int(environment["RANK"]), socket.gethostname()
    on_poll = HangWatch(run, hang_timeout_s(config)) if rank == 0 else no_callback
    status = run_processes(Job(verb, arguments), [environment], on_poll)
    if status == STOPPED:
        write_text(run / STOPPED_EARLY_FILE, "")
    if status not in (OK, STOPPED, BAD_INPUT):
        cause = describe_status(128 - status if status > 128 else status)
        print(f"rank {rank} on {host} ended with {cause}", file=sys.stderr, flush=True)
        write_json(run / FAILED_RANKS_FOLDER / f"rank-{rank:05d}.json",
                   {"rank": rank, "host": host, "how": cause, "signal": status > 128, "at": time.time()})
    return status


def end(status: int, verb: str, arguments: tuple[str, ...]) -> int:
    """Requests a requeue where one is due; returns the exit status of the job, unless the requeue ends this process.

    Args:
        status: exit status of srun.
    """
    job, (run, config) = require_slurm_job(), resolve_run(verb, arguments)
    facts = collect_end_facts(status, job, verb, run, config.run.max_requeues)
    if is_failure(facts):
        print(f"{verb} {run.name}: {describe_failure(run, status)}", file=sys.stderr, flush=True)
        facts = dataclasses.replace(facts, silent_nodes=tuple(silent_nodes(job)))
    if is_failure(facts) or was_stopped(facts):
        facts = dataclasses.replace(facts, job_state=job_record(job.name)["JobState"])
    decision = decide_end(facts)
    if decision.outcome in (Outcome.DONE, Outcome.FAILED):
        return status
    write_text(run / STOPPED_EARLY_FILE, "")  # the next start is not refused for a lack of progress of this one
    print(decision.reason, flush=True)
    if decision.outcome is Outcome.STOPPED:
        return STOPPED
    try:
        slurm("scontrol", "requeue", job.name)
    except BadInput as error:  # Slurm may have requeued a preempted job already
        print(error, file=sys.stderr, flush=True)
    time.sleep(REQUEUE_TIMEOUT_S)
    return STOPPED


def collect_end_facts(status: int, job: SlurmJob, verb: str, run: Path, max_requeues: int) -> EndFacts:
    """Reads the facts of an end from the run folder; asks Slurm nothing."""
    content = read_status(run) if verb != "evaluate" else {}
    return EndFacts(
        status=status, step=last_checkpoint_step(run), restarts=job.restarts, max_requeues=max_requeues,
        stopped_early=(run / STOPPED_EARLY_FILE).exists() or content.get("state") == "stopped",
        failure_recorded=(run / FAILED_RANKS_FOLDER).exists(), starting=content.get("state", "starting") == "starting",
        saved_step=content.get("step"), saved_in_s=content.get("saved_in_s"))


def describe_failure(run: Path, status: int) -> str:
    """Returns which rank ended first, and the last heartbeat of each rank, at most 16 lines.

    Ranks that a signal killed come first: the others failed because they lost this peer.
    """
    records = [read_json(path) for path in (run / FAILED_RANKS_FOLDER).glob("rank-*.json")]
    records = sorted((record for record in records if "at" in record),
                     key=lambda record: (not record["signal"], record["at"]))
    heartbeats = [f"  {describe(heartbeat)}" for heartbeat in read_heartbeats(run)[:16]]
    first = f"ended with exit status {status}"
    if records:
        first = f"rank {records[0]['rank']} on {records[0]['host']} was the first to end, with {records[0]['how']}"
    return "\n".join([first, *heartbeats])


def silent_nodes(job: SlurmJob) -> list[str]:
    """Returns the nodes of the job whose slurmd accepts no connection."""
    default_port = re.search(r"SlurmdPort\s*=\s*(\d+)", slurm("scontrol", "show", "config"))[1]
    silent = []
    for name in expand_hostlist(job.nodelist):
        node = parse_record(slurm("scontrol", "-o", "show", "node", name))
        try:
            address = (node["NodeAddr"], int(node.get("Port", default_port)))
            socket.create_connection(address, CONNECT_TIMEOUT_S).close()
        except OSError:
            silent.append(name)
    return silent


def require_slurm_job() -> SlurmJob:
    """Returns the Slurm job of this process. Raises BadInput outside of Slurm."""
    job = current_slurm_job()
    if job is None:
        raise BadInput("this command runs only inside of a Slurm job, and this process is not in one. Submit one "
                       "with `fleet-rcnn train CONFIG --on slurm`")
    return job


if __name__ == "__main__":
    sys.exit(main())
