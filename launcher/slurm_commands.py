"""Slurm's commands (sbatch, scontrol, squeue, ...): run, parsed, and their errors explained.

A controller that does not answer (overloaded, restarted, failed over) is asked again for a limited time. Silence never
means that a job is over: `SlurmSilent` is raised then.
"""

import os
import re
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Mapping

from detector.config.aliases import print_once
from detector.errors import BadInput
from launcher.backends import JobState

# States of a job that Slurm will neither start nor continue. UNKNOWN: Slurm has forgotten the job. All others, such as
# SUSPENDED, COMPLETING, REQUEUED, REQUEUE_HOLD, SPECIAL_EXIT and STAGE_OUT, are followed by another state.
FINAL_STATES = ("BOOT_FAIL", "CANCELLED", "COMPLETED", "DEADLINE", "FAILED", "NODE_FAIL", "OUT_OF_MEMORY", "PREEMPTED",
                "REVOKED", "TIMEOUT", "UNKNOWN")
LIMIT_S = 60.0      # how long a controller that does not answer is asked
MIN_TRY_S = 15.0    # the shortest time that one command gets: Slurm's own MessageTimeout is 10 s
QUEUE_LIMIT_S = 20.0  # the same for the queue, which is shown beside the run folders
PAUSE_S = 2.0       # between two tries
NOTE_AFTER_S = 3.0  # without an answer, then a note is printed
# Messages of Slurm's commands when a request did not arrive, and when its answer did not.
NOT_REACHED = re.compile(
    r"controller \(connect failure|connection refused|communication connection failure|standby mode|"
    r"controller not responding|no route to host|network is unreachable|configuration source", re.IGNORECASE)
NO_ANSWER = re.compile(
    r"unable to contact slurm controller|timed out|zero bytes were transmitted|transport endpoint|connection reset|"
    r"broken pipe|(send|receive|shutdown) failure|temporarily unavailable|munge|authentication (credential|error)",
    re.IGNORECASE)
NO_SUCH_JOB = re.compile(r"invalid job id|job \S+ not found", re.IGNORECASE)
NO_CLUSTER = re.compile(r"DNS SRV lookup failed", re.IGNORECASE)  # Slurm's commands are installed, but not configured
# Variables with which users change what the commands print or select.
OUTPUT_VARIABLES = re.compile(r"(SQUEUE|SCONTROL|SCANCEL|SINFO|SACCT)_|SLURM_TIME_FORMAT$")


class SlurmSilent(BadInput):
    """Slurm has not answered within the limit: what it knows of a job is unknown, and the job may be running."""


class SubmissionUnanswered(SlurmSilent):
    """sbatch has got no answer to its request: the job may be in the queue, and its files have to stay."""


class SubmissionInterrupted(KeyboardInterrupt):
    """Ctrl-C came before sbatch has answered: the job may be in the queue, and its files have to stay."""

    def __init__(self):
        super().__init__("interrupted before sbatch has answered: the job may be in the queue all the same. `squeue "
                         "--me` shows it, and `scancel` cancels it")


def has_slurm() -> bool:
    """Returns whether this machine has sbatch."""
    return shutil.which("sbatch") is not None


def slurm(*command: str, environment: Mapping[str, str] | None = None, limit_s: float = LIMIT_S) -> str:
    """Runs a Slurm command and returns its output. Repeats the command while the controller does not answer.

    A note on stderr says after a few seconds that Slurm is silent.

    Args:
        environment: environment variables of the command; None: those of this process without OUTPUT_VARIABLES.
        limit_s: seconds after which the command is not repeated; 0: it is run once.

    Raises:
        SlurmSilent: the controller has not answered within the limit; for sbatch, SubmissionUnanswered if the request
            may have arrived.
        BadInput: the command is missing, or fails (with its own message).
        SubmissionInterrupted: by Ctrl-C while sbatch was running.
    """
    variables = plain_environment() if environment is None else dict(environment)
    note = threading.Timer(NOTE_AFTER_S, print_note, (command[0], limit_s))
    note.daemon = True
    note.start()
    try:
        return run_until_answered(command, variables, limit_s)
    except KeyboardInterrupt:
        if command[0] == "sbatch":
            raise SubmissionInterrupted from None
        raise
    finally:
        note.cancel()


def plain_environment() -> dict[str, str]:
    """Returns the environment of this process without the variables that change the output of Slurm's commands."""
    return {name: value for name, value in os.environ.items() if not OUTPUT_VARIABLES.match(name)}


def print_note(program: str, limit_s: float) -> None:
    """Prints that Slurm does not answer; once only, also where it is asked again and again."""
    print_once([f"Slurm does not answer {program} yet; it is asked for up to {max(limit_s, MIN_TRY_S):.0f} s"])


def run_until_answered(command: tuple[str, ...], environment: dict[str, str], limit_s: float) -> str:
    """Runs a command until it succeeds; see `slurm`.

    sbatch is repeated only if its request did not arrive: otherwise there may be a job, and a repetition would submit a
    second one.
    """
    started_at = time.monotonic()
    while True:
        elapsed_s = time.monotonic() - started_at
        status, output, message = run_once(command, environment, max(MIN_TRY_S, limit_s - elapsed_s))
        if status == 0:
            return output
        not_reached = bool(NOT_REACHED.search(message))
        if is_refusal(message):
            raise BadInput(f"{' '.join(command)}: {message}")
        elapsed_s = time.monotonic() - started_at
        if command[0] == "sbatch" and not not_reached:
            raise SubmissionUnanswered(describe_silence(command, message, elapsed_s, not_reached))
        if elapsed_s + PAUSE_S > limit_s:
            raise SlurmSilent(describe_silence(command, message, elapsed_s, not_reached))
        time.sleep(PAUSE_S)


def run_once(command: tuple[str, ...], environment: dict[str, str], timeout_s: float) -> tuple[int, str, str]:
    """Runs a command and returns its exit status, its output, and its message in one line.

    Raises:
        BadInput: this machine has no such command.
    """
    try:
        completed = subprocess.run(command, capture_output=True, encoding="utf-8", errors="replace", env=environment,
                                   stdin=subprocess.DEVNULL, timeout=timeout_s)
    except FileNotFoundError as error:
        raise BadInput(f"no {command[0]} on this machine ({socket.gethostname()}). Use a login node of the Slurm "
                       "cluster, or start a test cluster with slurm/local-cluster") from error
    except subprocess.TimeoutExpired:
        return 1, "", f"{command[0]} timed out"
    return completed.returncode, completed.stdout, " ".join((completed.stderr or completed.stdout).split())


def is_refusal(message: str) -> bool:
    """Returns whether a message of a Slurm command is an answer, and not the silence of a controller."""
    return bool(NO_CLUSTER.search(message)) or not (NOT_REACHED.search(message) or NO_ANSWER.search(message))


def submission_error(message: str) -> BadInput:
    """Returns the error for a message of sbatch that another program has run: a refusal, or a controller's silence."""
    not_reached = bool(NOT_REACHED.search(message))
    if is_refusal(message):
        return BadInput(f"sbatch refused the job: {message}")
    kind = SlurmSilent if not_reached else SubmissionUnanswered
    return kind(describe_silence(("sbatch",), message, 0, not_reached))


def describe_silence(command: tuple[str, ...], message: str, elapsed_s: float, not_reached: bool) -> str:
    """Returns the message of SlurmSilent: how long Slurm was asked, its last message, and what to do."""
    remedy = "Try again later; `scontrol ping` shows whether the controller is up"
    if command[0] == "sbatch" and not not_reached:
        remedy = "The job may be in the queue all the same: look with `squeue --me` before you submit it again"
    program = " ".join([command[0], *(word for word in command[1:3] if not word.startswith("-"))][:2])
    duration = f" for {elapsed_s:.0f} s" if elapsed_s else ""
    return f"Slurm has not answered {program}{duration} ({message}). {remedy}"


def expand_hostlist(nodes: str) -> list[str]:
    """Returns the host names of a Slurm host list: n[01-02] -> ['n01', 'n02'].

    Raises:
        BadInput: Slurm names no host.
    """
    hosts = slurm("scontrol", "show", "hostnames", nodes).split() if nodes else []
    if not hosts:
        raise BadInput(f"scontrol show hostnames {nodes!r} returned no host, and MASTER_ADDR must be the first one")
    return hosts


def parse_record(line: str) -> dict[str, str]:
    """Parses a record of `scontrol -o`, words of the form Key=Value.

    The first of equal keys wins, because free text comes late in a record. A value with blanks is cut at the first one.
    """
    return dict(word.split("=", 1) for word in reversed(line.split()) if "=" in word)


def job_record(job: str) -> dict[str, str]:
    """Returns the record of `scontrol show job`, at least {"JobState": ...}.

    JobState is UNKNOWN for a job that Slurm has forgotten, and on a machine that belongs to no cluster.

    Raises:
        SlurmSilent: the controller does not answer: the job may be running.
        BadInput: scontrol refuses for another reason.
    """
    if not has_slurm():
        return {"JobState": "UNKNOWN"}
    try:
        return {"JobState": "UNKNOWN", **parse_record(slurm("scontrol", "-o", "show", "job", job))}
    except SlurmSilent:
        raise
    except BadInput as error:
        if NO_SUCH_JOB.search(str(error)) or NO_CLUSTER.search(str(error)):
            return {"JobState": "UNKNOWN"}
        raise


def queued_jobs() -> dict[str, JobState] | None:
    """Returns the user's jobs in the queue, job -> state; a row of an array is ARRAY_ROW. None without Slurm."""
    if not has_slurm():
        return None
    lines = slurm("squeue", "--me", "-h", "-r", "-o", "%i|%T|%r", limit_s=QUEUE_LIMIT_S).splitlines()
    return {job: JobState(state, state in FINAL_STATES, plain_reason(reason))
            for job, state, reason in (line.split("|", 2) for line in lines)}


def plain_reason(reason: str) -> str:
    """Returns Slurm's reason; "" for those that say nothing."""
    return "" if reason in ("None", "(null)", "N/A", "Unknown") else reason


def job_state(job: str) -> JobState:
    """Returns the state of a job. Raises SlurmSilent while the controller does not answer."""
    record = job_record(job)
    name = record["JobState"]
    codes = [record.get(key, "") for key in ("ExitCode", "DerivedExitCode")]
    return JobState(name, name in FINAL_STATES, plain_reason(record.get("Reason", "")),
                    next((code for code in codes if code not in ("", "0:0")), ""))


def past_job_state(job: str) -> JobState:
    """Returns the state of a job that is over, from Slurm's accounting if the controller has forgotten the job."""
    state = job_state(job)
    if state.name != "UNKNOWN" or not shutil.which("sacct"):
        return state
    try:
        lines = slurm("sacct", "-X", "-n", "-P", "-j", job, "-o", "State,Reason,ExitCode", limit_s=0).splitlines()
    except BadInput:  # a cluster without accounting
        return state
    fields = lines[-1].split("|") if lines else []
    if len(fields) != 3:
        return state
    name = fields[0].split()[0].rstrip("+") if fields[0].split() else "UNKNOWN"  # CANCELLED by 1000
    return JobState(name, True, plain_reason(fields[1]), "" if fields[2] == "0:0" else fields[2])


def cancel_job(*jobs: str) -> None:
    """Runs scancel for one or several jobs; the id of an array stands for all of its rows."""
    slurm("scancel", *jobs)
