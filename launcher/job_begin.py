"""The begin of a Slurm job, before srun: whether it may start, and which restart it is."""

import contextlib
import re
import shlex
import shutil
import time
from pathlib import Path

from detector.config.schema import Config
from detector.errors import FAILED, OK, BadInput
from detector.run import lock
from detector.run.checkpoint_files import last_checkpoint_step
from detector.run.files import (
    BAD_INPUT_FILE,
    FAILED_RANKS_FOLDER,
    LOCK_FILE,
    STATUS_FILE,
    STOPPED_EARLY_FILE,
    write_json,
)
from detector.run.status import read_status
from launcher.rank_env import SlurmJob, confirm_job, require_slurm_job
from launcher.restart_policy import EarlierRestart, StartFacts, decide_start
from launcher.run_info import add_job_record, job_records, resolve_run
from launcher.slurm_commands import SlurmSilent, expand_hostlist, job_state, parse_record, slurm
from launcher.submission_lock import lock_run

COMPLETING_S = 60.0  # how long another job of the run may take to leave the queue after its end


def begin(verb: str, arguments: tuple[str, ...]) -> int:
    """Starts the run, or refuses to. Returns 0, or 1 where the start is refused.

    Raises:
        BadInput: another job, or a process, trains the run. Nothing is changed then.
    """
    job, (run, config) = require_slurm_job(), resolve_run(verb, arguments)
    with contextlib.suppress(SlurmSilent):  # the environment says nearly always the same
        job, _ = confirm_job(job)
    with lock_run(run):
        refuse_while_another_trains(job, run)
        return start(job, verb, run, config)


def refuse_while_another_trains(job: SlurmJob, run: Path) -> None:
    """Raises BadInput if another job of the run has started and is not over, or a process trains the run."""
    others = {record["job"] for record in job_records(run) if "restart" in record and record["job"] != job.name}
    for other in sorted(others):
        state = state_after_completing(other)
        if state:
            raise BadInput(f"{run} belongs to job {other}, which is {state}: this job {job.name} ends and changes "
                           f"nothing. Cancel the other one with `fleet-rcnn cancel {shlex.quote(str(run))}`, or start "
                           "another run with run.name=...")
    remove_own_lock(job, run)
    lock.refuse_second_start(run)


def state_after_completing(job: str) -> str:
    """Returns the state of a job in Slurm; empty if it is over, and if Slurm does not answer: owner.lock decides."""
    deadline = time.monotonic() + COMPLETING_S
    with contextlib.suppress(SlurmSilent):
        while not (state := job_state(job)).over:
            if state.name != "COMPLETING" or time.monotonic() > deadline:
                return state.name
            time.sleep(1)
    return ""


def start(job: SlurmJob, verb: str, run: Path, config: Config) -> int:
    """Decides about the start, records it, and removes what the last start has left. Returns 0, or 1 for a refusal."""
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
                   log=log_of(job, run))
    shutil.rmtree(run / FAILED_RANKS_FOLDER, ignore_errors=True)
    # submitit refuses to save a result while the temporary file of a killed start exists.
    for path in (run / STOPPED_EARLY_FILE, run / BAD_INPUT_FILE, *(run / "slurm").glob("*.save_tmp")):
        path.unlink(missing_ok=True)
    if verb != "evaluate":
        write_json(run / STATUS_FILE, {**read_status(run), "state": "starting", "at": time.time()})
    return OK


def log_of(job: SlurmJob, run: Path) -> str:
    """Returns the path of the job's log: as recorded at its submission, else the file that this process writes to."""
    recorded = [record["log"] for record in job_records(run) if record["job"] == job.name and record.get("log")]
    path = Path("/proc/self/fd/1").resolve()
    return recorded[0] if recorded else str(path) if path.is_file() else ""


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
    """Returns whether a node of an earlier start is down now, or was restarted since; True if Slurm does not tell.

    Args:
        record: job record of the start.
    """
    try:
        nodes = [parse_record(slurm("scontrol", "-o", "show", "node", name))
                 for name in expand_hostlist(record["nodes"])]
    except BadInput:  # it is silent, or keeps its nodes private
        return True
    return any(re.search(r"DOWN|FAIL|NOT_RESPONDING|\*", node.get("State", "")) or
               parse_time(node.get("SlurmdStartTime", "")) > record["at"] for node in nodes)


def parse_time(text: str) -> float:
    """Parses a time of Slurm, 2026-01-31T12:00:00, into seconds since 1970; 0 for None or Unknown."""
    with contextlib.suppress(ValueError):
        return time.mktime(time.strptime(text, "%Y-%m-%dT%H:%M:%S"))
    return 0.0
