"""The end of a Slurm job, after srun: a requeue where one is due, and the exit status."""

import contextlib
import dataclasses
import re
import socket
import sys
import time
from pathlib import Path

from detector.errors import BAD_INPUT, STOPPED, BadInput
from detector.run.checkpoint_files import last_checkpoint_step
from detector.run.files import BAD_INPUT_FILE, FAILED_RANKS_FOLDER, STOPPED_EARLY_FILE, write_text
from detector.run.heartbeat import describe, read_heartbeats
from detector.run.status import read_status
from launcher.failure_cause import first_rank_to_end
from launcher.rank_env import SlurmJob, confirm_job, require_slurm_job
from launcher.restart_policy import EndFacts, Outcome, decide_end, is_failure
from launcher.run_info import resolve_run
from launcher.slurm_commands import SlurmSilent, expand_hostlist, parse_record, slurm

REQUEUE_TIMEOUT_S = 60  # Slurm kills a job that requested a requeue within this time
CONNECT_TIMEOUT_S = 5
SILENCE_LIMIT_S = 1800.0  # how long a requeue is requested from a controller that does not answer
SILENCE_PAUSE_S = 10.0


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
    if decide_end(facts).outcome in (Outcome.DONE, Outcome.FAILED):
        return BAD_INPUT if facts.bad_input else status
    write_text(run / STOPPED_EARLY_FILE, "")  # the next start is not refused for a lack of progress of this one
    return requeue_when_slurm_answers(job, facts)


def requeue_when_slurm_answers(job: SlurmJob, facts: EndFacts) -> int:
    """Does what `requeue` does, and repeats it while Slurm does not answer; returns the exit status of the job."""
    deadline, is_told = time.monotonic() + SILENCE_LIMIT_S, False
    while True:
        try:
            return requeue(job, facts)
        except SlurmSilent as error:
            left_s = deadline - time.monotonic()
            if left_s <= 0 or not is_told:
                print_silence(job, error, left_s)
            if left_s <= 0:
                return STOPPED
        is_told = True
        time.sleep(SILENCE_PAUSE_S)


def requeue(job: SlurmJob, facts: EndFacts) -> int:
    """Requests a requeue if the state of the job in Slurm allows it; returns the exit status of the job.

    Raises:
        SlurmSilent: Slurm does not answer.
    """
    job, record = confirm_job(job)
    decision = decide_end(dataclasses.replace(facts, job_state=record["JobState"], restarts=job.restarts,
                                              may_requeue=record.get("Requeue") != "0"))
    print(decision.reason, flush=True)
    if decision.outcome is Outcome.REQUEUE:
        try:
            slurm("scontrol", "requeue", job.name)
        except SlurmSilent:
            raise
        except BadInput as error:  # Slurm may have requeued a preempted job already
            remedy = "Unless the job is requeued all the same, submit the run again to continue"
            print(f"{error}. {remedy}", file=sys.stderr, flush=True)
        time.sleep(REQUEUE_TIMEOUT_S)
    return STOPPED


def print_silence(job: SlurmJob, error: SlurmSilent, left_s: float) -> None:
    """Prints that Slurm does not answer, for how long it is still asked, and what to type otherwise."""
    again = f"The requeue is requested for {left_s / 60:.0f} more minutes" if left_s > 0 else "The job is not requeued"
    print(f"{error}. {again}. By hand: scontrol requeue {job.name}", file=sys.stderr, flush=True)


def collect_end_facts(status: int, job: SlurmJob, verb: str, run: Path, max_requeues: int) -> EndFacts:
    """Reads the facts of an end from the run folder; asks Slurm nothing."""
    content = read_status(run) if verb != "evaluate" else {}
    return EndFacts(
        status=status, step=last_checkpoint_step(run), restarts=job.restarts, max_requeues=max_requeues,
        stopped_early=(run / STOPPED_EARLY_FILE).exists() or content.get("state") == "stopped",
        failure_recorded=(run / FAILED_RANKS_FOLDER).exists(), starting=content.get("state", "starting") == "starting",
        saved_step=content.get("step"), saved_in_s=content.get("saved_in_s"),
        bad_input=(run / BAD_INPUT_FILE).exists())


def describe_failure(run: Path, status: int) -> str:
    """Returns which rank ended first, with its error, and the last heartbeat of each rank, at most 16 lines."""
    ended = first_rank_to_end(run, in_job=True)
    heartbeats = [f"  {describe(heartbeat)}" for heartbeat in read_heartbeats(run)[:16]]
    first = f"ended with exit status {status}"
    if ended:
        causes = ": ".join(filter(None, (ended.end, ended.error)))
        first = f"rank {ended.rank} on {ended.host} was the first to end, with {causes}"
    return "\n".join([first, *heartbeats])


def silent_nodes(job: SlurmJob) -> list[str]:
    """Returns the nodes of the job whose slurmd accepts no connection; none if Slurm does not say where they are."""
    silent = []
    with contextlib.suppress(BadInput):  # Slurm is silent, or keeps its nodes private
        default_port = re.search(r"SlurmdPort\s*=\s*(\d+)", slurm("scontrol", "show", "config"))[1]
        for name in expand_hostlist(job.nodelist):
            node = parse_record(slurm("scontrol", "-o", "show", "node", name))
            try:
                address = (node["NodeAddr"], int(node.get("Port", default_port)))
                socket.create_connection(address, CONNECT_TIMEOUT_S).close()
            except OSError:
                silent.append(name)
    return silent
