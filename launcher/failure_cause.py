"""The cause of a bad end of a run: which rank on which host, which error, what the scheduler says, and what to do."""

import contextlib
import os
import re
import shlex
import signal
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from detector.config.load import load_config, run_folder
from detector.errors import BadInput
from detector.run.files import CONFIG_FILE, ENVIRONMENT_FILE, FAILED_RANKS_FOLDER, JOBS_FILE, read_json
from detector.run.heartbeat import Beat, first_line, heartbeat_file, read_heartbeats
from detector.run.lock import Liveness, Owner
from launcher.backends import JobState
from launcher.log_errors import LOST_PEER, OUT_OF_MEMORY, first_error, last_line, memory_line
from launcher.run_info import backend_of, job_records
from launcher.run_state import Phase, RunState

MORE_MEMORY = "lower run.num_workers or batch.micro_batch_size, or request more memory (--memory-gib on a cluster)"
MEANINGS = {  # state of a job -> what it means for the run
    "TIMEOUT": "the time limit came before the run could be saved: request more with --hours or --notice-s",
    "NODE_FAIL": "a node was lost",
    "BOOT_FAIL": "a node could not be booted",
    "PREEMPTED": "a job of higher priority took the nodes, and this partition does not requeue",
    "DEADLINE": "the job could not end before its deadline (sbatch --deadline)",
    "REVOKED": "the job runs on another cluster of the federation",
}
# Reasons of a job that waits, and what to do; JOB stands for its id.
WAITING_ADVICE = (
    (re.compile(r"held|REQUEUE_HOLD|SPECIAL_EXIT", re.IGNORECASE),
     "the job is held: `scontrol release JOB` lets it continue, `scontrol show job JOB` may say why"),
    (re.compile(r"NeverSatisfied|BadConstraints|Invalid(Account|QOS)|NotAllowed|Partition(TimeLimit|NodeLimit|Config)|"
                r"Max\w+Per(Job|Node)"),
     "the job will not start like this: cancel it, change its options and submit it again"))
LONG_COMMAND = 200  # characters
SUBMITTED_CONFIG = "slurm/config.yaml"  # in the run folder
CONSEQUENT_ENDS = ("signal SIGTERM", "signal SIGABRT")  # of ranks that lost a peer


@dataclass(frozen=True)
class RankEnd:
    """The end of one rank."""

    rank: int
    host: str
    step: int
    end: str      # such as "signal SIGKILL" or "exit status 1"; "" if not known
    error: str    # its first line; "" if not known
    at: float     # seconds since 1970 by the clock of the file server

    @property
    def is_consequence(self) -> bool:
        """True if the rank only ended because another one did."""
        return bool(LOST_PEER.search(self.error)) if self.error else self.end in (*CONSEQUENT_ENDS, "")


@dataclass(frozen=True)
class Cause:
    """The cause of a bad end; empty fields are not known."""

    rank: int | None = None
    host: str = ""
    step: int | None = None  # that was being done
    end: str = ""            # how the rank ended: "exit status 1", "signal SIGKILL"
    error: str = ""          # the first line of the error
    scheduler: str = ""      # what the scheduler says: Slurm: FAILED (NonZeroExitCode), exit status 1
    remedy: str = ""
    command: str = ""        # starts the run again

    def lines(self) -> list[str]:
        """Returns the cause as lines of text, the most important first."""
        where = "" if self.rank is None else f"rank {self.rank}" + (f" on {self.host}" if self.host else "")
        ended = f" ended with {self.end}" if self.end and not self.error else " failed" if where else ""
        at_step = f" at step {self.step}" if self.step and where else ""
        first = ": ".join(filter(None, (where + ended + at_step, self.error)))
        again = f"start it again with: {self.command}" if self.command else ""
        return list(filter(None, (first, self.scheduler, self.remedy, again)))

    def as_json(self) -> dict:
        """Returns the fields that are known."""
        return {name: value for name, value in asdict(self).items() if value not in ("", None)}


def find_cause(run: Path, state: RunState, past: JobState | None, log: Path, owner: Owner) -> Cause | None:
    """Returns the cause of the state of a run; None for a run that waits, runs or has ended as it should.

    Args:
        past: what the scheduler says about the job that is over; None for a run without a job.
        log: of the job, or log.txt of the run.
    """
    if state.phase is Phase.WAITING:
        advice = waiting_advice(state)
        return Cause(remedy=advice) if advice else None
    if state.phase is Phase.STOPPED and state.text not in ("never started", "cancelled"):
        if past and past.name == "CANCELLED":
            return None
        return Cause(error=last_line(log) if state.job else "", scheduler=describe_job(past, run),
                     remedy=MEANINGS.get(past.name, "") if past else "", command=start_command(run, state.job))
    if state.phase is not Phase.FAILED:
        return None
    if past and state.job and not log.is_file():
        return unseen_folder(run, past, log, state.job)
    return cause_of_failure(run, state, past, log, owner)


def cause_of_failure(run: Path, state: RunState, past: JobState | None, log: Path, owner: Owner) -> Cause:
    """Returns the cause of a failure whose log can be read."""
    first = first_rank_to_end(run, bool(state.job))
    scheduler, command = describe_job(past, run), start_command(run, state.job)
    memory = memory_line(log) if state.job else ""
    if first is None:
        error = first_error(log)
        if not error and owner.liveness is Liveness.DEAD:
            error = f"process {owner.pid} on {owner.host} was killed, or the machine was restarted"
        last = last_line(log) if state.job else ""
        return Cause(error=error or (f"the last line of its log: {last}" if last else ""), scheduler=scheduler,
                     remedy=remedy_of(error, "SIGKILL" if "was killed" in error else "", past, memory), command=command)
    error = first.error
    if not error and not first.end.startswith("signal") and state.job:
        error = first_error(log)
    return Cause(first.rank, first.host, first.step, first.end, error, scheduler,
                 remedy_of(error, first.end, past, memory), command)


def first_rank_to_end(run: Path, in_job: bool) -> RankEnd | None:
    """Returns the rank that ended first on its own; None if no rank has left a trace of its end.

    A rank that lost a peer is none, unless there is no other. Then a rank without an error that fell silent first was
    killed.

    Args:
        in_job: the run had a job, whose tasks record the ends of their ranks.
    """
    ends = list(rank_ends(run, in_job))
    if not ends:
        return None
    first = min(ends, key=lambda end: (end.is_consequence, not end.error and not end.end.startswith("signal"), end.at))
    if not first.is_consequence:
        return first
    failed = {end.rank for end in ends}
    silent = [heartbeat for heartbeat in read_heartbeats(run) if heartbeat.rank not in failed]
    if not silent:
        return first
    latest = min(silent, key=lambda heartbeat: written_at(heartbeat_file(run, heartbeat.rank)))
    return RankEnd(latest.rank, latest.host, latest.step, "", "no sign of life since then, probably killed (SIGKILL)",
                   0.0)


def rank_ends(run: Path, in_job: bool) -> Iterator[RankEnd]:
    """Yields the end of each rank that has left a trace: its error in its heartbeat, or its status in slurm/failed.

    Traces that are older than the last submission or start of a job are of an earlier start.
    """
    records, since = {}, int(written_at(run / JOBS_FILE))
    for path in (run / FAILED_RANKS_FOLDER).glob("rank-*.json") if in_job else []:
        record = read_json(path)
        if "rank" in record and written_at(path) >= since:
            records[record["rank"]] = (record, written_at(path))
    heartbeats = {heartbeat.rank: heartbeat for heartbeat in read_heartbeats(run)
                  if written_at(heartbeat_file(run, heartbeat.rank)) >= since}
    for rank in sorted({*records, *(rank for rank, heartbeat in heartbeats.items() if heartbeat.error)}):
        record, recorded_at = records.get(rank, ({}, 0.0))
        latest = heartbeats.get(rank) or Beat(rank, "", "", 0, 0.0)
        if latest.error:
            recorded_at = written_at(heartbeat_file(run, rank)) - latest.alive_at + latest.at
        yield RankEnd(rank, record.get("host") or latest.host, latest.step, record.get("how", ""),
                      first_line(latest.error), recorded_at)


def written_at(path: Path) -> float:
    """Returns when a file was written, seconds since 1970 by the clock of the file server; 0 for no file."""
    with contextlib.suppress(OSError):
        return path.stat().st_mtime
    return 0.0


def remedy_of(error: str, end: str, past: JobState | None, memory: str) -> str:
    """Returns what to do about an error; "" where its own message says it, or nothing is known.

    Args:
        memory: a line of the log that says that memory ran out.
    """
    if memory or past and past.name == "OUT_OF_MEMORY":
        return f"memory ran out{f' ({memory})' if memory else ''}: {MORE_MEMORY}"
    if "SIGKILL" in f"{end} {error}" and "memory" not in error or OUT_OF_MEMORY.search(error):
        return f"memory may have run out (`dmesg` of the host tells): {MORE_MEMORY}"
    return MEANINGS.get(past.name, "") if past else ""


def unseen_folder(run: Path, past: JobState, log: Path, job: str) -> Cause:
    """Returns the cause of a job that ended without a log."""
    return Cause(
        error=f"the job ended without a word: its node could not write {log}", scheduler=describe_job(past, run),
        remedy=f"probably the nodes do not see {run}: set run.folder to a disk that all nodes share (`shared` in the "
               "cluster file lets the launcher check that)", command=start_command(run, job))


def waiting_advice(state: RunState) -> str:
    """Returns what to do about a job that waits and will not start on its own; "" for others."""
    text = f"{state.job_state.name} {state.job_state.reason}" if state.job_state else ""
    return next((advice.replace("JOB", state.job) for pattern, advice in WAITING_ADVICE if pattern.search(text)), "")


def describe_job(past: JobState | None, run: Path) -> str:
    """Returns what the scheduler says about a job that is over: its state, reason and exit code; "" without a job."""
    if past is None or past.name == "UNKNOWN":
        return ""
    backend = backend_of(run)
    scheduler = {"slurm": "Slurm", "sbatch": "Slurm"}.get(backend, backend)
    reason = f" ({past.reason})" if past.reason and past.reason.lower() != past.name.lower() else ""
    code = f", {describe_exit_code(past.exit_code)}" if past.exit_code else ""
    return f"{scheduler}: {past.name}{reason}{code}"


def describe_exit_code(code: str) -> str:
    """Returns Slurm's exit code in words: 1:0 is exit status 1, 0:9 is signal SIGKILL."""
    status, _, number = code.partition(":")
    if not number.isdigit() or number == "0":
        return f"exit status {status}"
    names = {member.value: member.name for member in signal.Signals}
    return f"signal {names.get(int(number), number)}" if int(number) < signal.SIGRTMIN else f"exit code {code}"


def start_command(run: Path, job: str) -> str:
    """Returns the command that starts a run again, as it was typed; a long one with the config of the run instead."""
    typed = [record["command"] for record in job_records(run) if record["job"] == job and record.get("command")]
    environment = read_json(run / ENVIRONMENT_FILE)
    if not job and environment.get("command"):
        processes = environment.get("processes", 1)
        where = ["--processes", str(processes)] if processes > 1 else []
        typed = [shlex.join(["fleet-rcnn", *environment["command"][1:], *where])]
    if typed and (len(typed[-1]) <= LONG_COMMAND or "--array" in typed[-1]):
        return typed[-1]
    config = next((path for path in (run / SUBMITTED_CONFIG, run / CONFIG_FILE) if is_config_of(path, run)), None)
    if config is None:
        return typed[-1] if typed else ""
    backend = backend_of(run) if job else "local"
    options = [] if backend == "local" else ["--on", backend]
    if typed:
        options = [word for word in shlex.split(typed[-1])[3:] if word.startswith("-") or "=" not in word]
    return shlex.join(["fleet-rcnn", "train", str(config), *options])


def is_config_of(path: Path, run: Path) -> bool:
    """Returns whether a config file, read in this folder, is one of this run."""
    with contextlib.suppress(BadInput, OSError):
        return path.is_file() and os.path.realpath(run_folder(load_config(str(path), []))) == os.path.realpath(run)
    return False
