"""What runs inside a Slurm job, around srun: begin, task, end.

    begin VERB ARGUMENTS...          may this job start (again)? Says which restart it is
    task VERB ARGUMENTS...           one rank: a task of srun, or a process of torchrun
    end STATUS VERB ARGUMENTS...     asks Slurm for a requeue if the run stopped early; else gives STATUS on
    blocked COMMAND...               COMMAND, with the stop signals kept until it lets them in

A run that stopped early is no failure: its tasks end with 0, for srun would kill the others of a task that does not,
and `end` finds in the run's status.json what became of it.
"""

import contextlib
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
from launcher import run_info
from launcher.backends.local import KEPT, meaning, nothing, run_processes
from launcher.hang_watch import Watch, patience_s
from launcher.job import Job
from launcher.rank_env import SlurmJob, current_slurm_job, task_environment
from launcher.run_info import last_checkpoint, run_of, status_of
from launcher.slurm_commands import fields, host_names, job_state, slurm

BY_SIGNAL = tuple(128 + number for number in KEPT)
SRUNS_OWN = range(160, 256)  # no node takes the task, an old credential; ours end with less, by a signal too
REQUEUE_S = 60  # a job that asked for a requeue is killed within this


def main(arguments: list[str] | None = None) -> int:
    said = sys.argv[1:] if arguments is None else arguments
    try:
        if said[:1] == ["begin"] and len(said) >= 3:
            return begin(said[1], tuple(said[2:]))
        if said[:1] == ["task"] and len(said) >= 3:
            return task(said[1], tuple(said[2:]))
        if said[:1] == ["end"] and len(said) >= 4 and said[1].isdigit():
            return end(int(said[1]), said[2], tuple(said[3:]))
        if said[:1] == ["blocked"] and len(said) >= 2:
            signal.pthread_sigmask(signal.SIG_BLOCK, KEPT)
            os.execvp(said[1], said[1:])
        print(__doc__, file=sys.stderr)
        return BAD_INPUT
    except BadInput as error:
        print(f"error: {error}", file=sys.stderr)
        return BAD_INPUT


def begin(verb: str, arguments: tuple[str, ...]) -> int:
    """0, or 1 where all restarts are used up, or the last one has brought nothing."""
    job, (run, config) = the_job(), run_of(verb, arguments)
    step, allowed = last_checkpoint(run), config.run.max_requeues
    before = [line for line in run_info.jobs_of(run)
              if line["job"] == job.name and line["verb"] == verb and 0 < line.get("restart", 0) < job.restarts]
    refused = ""
    # One that failed is given up at once. One that was asked to stop is not to blame: Slurm may still be ending a job
    # that it preempted when it starts it again. Nor is one that lost a node.
    tries = 3 if (run / run_info.STOPPED).exists() or before and lost_a_node(before[-1]) else 1
    since = before[-tries] if len(before) >= tries else None
    if job.restarts > allowed:
        refused = f"all {allowed} restarts are used (run.max_requeues)"
    elif verb != "evaluate" and since and since["step"] == step and status_of(run).get("state") != "finished":
        refused = (f"no progress since restart {since['restart']}, which began at step {step} as well. "
                   "The log above says what ended it")
    times = f", restart {job.restarts} of {allowed}" if job.restarts else ""
    print(f"Slurm job {job.name} on {job.nodes}{times}: {verb} {run.name}, {step} steps are saved", flush=True)
    if refused:
        print(f"not started again: {refused}. `fleet-rcnn {verb}` as before starts anew from there", flush=True)
        return FAILED
    run_info.note_job(run, job=job.name, verb=verb, restart=job.restarts, step=step, nodes=job.nodes,
                    log=job_state(job.name).get("StdOut", ""))
    shutil.rmtree(run / run_info.FAILED, ignore_errors=True)
    (run / run_info.STOPPED).unlink(missing_ok=True)
    for half in (run / "slurm").glob("*.save_tmp"):  # submitit refuses to write a result beside one that was cut off
        half.unlink(missing_ok=True)
    if verb != "evaluate":
        run_info.write_json(run / "status.json", {**status_of(run), "state": "starting", "at": time.time()})
    forget_owner(job, run)
    return OK


def forget_owner(job: SlurmJob, run: Path) -> None:
    """An earlier start of this job may have left its lock on a network disk, if its node is gone."""
    path = run / lock.NAME
    if job.restarts and path.is_file():
        before = {line["nodes"] for line in run_info.jobs_of(run) if line["job"] == job.name and line.get("nodes")}
        host = lock.host_of(path.read_text(encoding="utf-8")).split(".")[0]
        if host in [name for nodes in before for name in host_names(nodes)]:
            path.unlink(missing_ok=True)


def lost_a_node(start: dict) -> bool:
    """Is a node of an earlier start, a line of note_job, down, or was it since?"""
    nodes = [fields(slurm("scontrol", "-o", "show", "node", name)) for name in host_names(start["nodes"])]
    return any(re.search(r"DOWN|FAIL|NOT_RESPONDING|\*", said.get("State", "")) or
               when(said.get("SlurmdStartTime", "")) > start["at"] for said in nodes)


def when(text: str) -> float:
    """Slurm's 2026-01-31T12:00:00 -> seconds since 1970; 0 for None or Unknown."""
    with contextlib.suppress(ValueError):
        return time.mktime(time.strptime(text, "%Y-%m-%dT%H:%M:%S"))
    return 0.0


def task(verb: str, arguments: tuple[str, ...]) -> int:
    """One rank, for which to have stopped early is to have ended well."""
    status = one_rank(verb, arguments)
    return OK if status == STOPPED else status


def one_rank(verb: str, arguments: tuple[str, ...]) -> int:
    """The exit status of one rank, with this process beside it to hand signals on and to say what became of it."""
    environment, (run, config) = task_environment(), run_of(verb, arguments)
    rank, host = int(environment["RANK"]), socket.gethostname()
    look = Watch(run, patience_s(config)) if rank == 0 else nothing
    status = run_processes(Job(verb, arguments), [environment], look)
    if status == STOPPED:
        run_info.write_whole(run / run_info.STOPPED, "")
    if status not in (OK, STOPPED, BAD_INPUT):
        how = meaning(128 - status if status > 128 else status)
        print(f"rank {rank} on {host} ended with {how}", file=sys.stderr, flush=True)
        run_info.write_json(run / run_info.FAILED / f"rank-{rank:05d}.json",
                          {"rank": rank, "host": host, "how": how, "signal": status > 128, "at": time.time()})
    return status


def end(status: int, verb: str, arguments: tuple[str, ...]) -> int:
    """The exit status of the job, if it lives on: a requeue ends this process, too."""
    job, (run, config) = the_job(), run_of(verb, arguments)
    said = status_of(run) if verb != "evaluate" else {}
    early = (run / run_info.STOPPED).exists() or said.get("state") == "stopped"
    # A rank that dies is told of by the process beside it. Where those are killed as well it was Slurm, whose last
    # signals to a job that it preempted may hit the start after it.
    killed_whole = status == 128 + signal.SIGKILL and not (run / run_info.FAILED).exists()
    starting = said.get("state", "starting") == "starting"
    if early or killed_whole or status in BY_SIGNAL and starting:
        seconds = said.get("saved_in_s")
        saved = (f"saved step {said['step']} in {seconds:.1f} s" if early and seconds is not None else
                 f"stopped before there was something to save; step {last_checkpoint(run)} is on disk")
        return requeue(job, run, saved, config.run.max_requeues, verb)
    if status in (OK, BAD_INPUT):
        return status
    print(f"{verb} {run.name}: {first_to_fail(run, status)}", file=sys.stderr, flush=True)
    silent, on_disk = silent_nodes(job), f"step {last_checkpoint(run)} is on disk"
    if silent:
        return requeue(job, run, f"{', '.join(silent)} does not answer, {on_disk}", config.run.max_requeues, verb)
    if starting and status in SRUNS_OWN:
        return requeue(job, run, f"srun could not start all tasks, {on_disk}", config.run.max_requeues, verb)
    return status


def requeue(job: SlurmJob, run: Path, saved: str, allowed: int, verb: str) -> int:
    """Asks for it, unless Slurm has it in hand: then the job was cancelled, or is in the queue again already.

    The next start is told that this one is not to blame if it brought nothing.
    """
    run_info.write_whole(run / run_info.STOPPED, "")
    state = job_state(job.name)["JobState"]
    if state != "RUNNING":
        print(f"{saved}; Slurm says that the job is {state}, so nothing is asked for", flush=True)
        return STOPPED
    if job.restarts >= allowed:
        print(f"{saved}; not requeued: all {allowed} restarts are used (run.max_requeues). `fleet-rcnn {verb}` as before "
              "goes on", flush=True)
        return STOPPED
    print(f"{saved}, asked for a requeue (restart {job.restarts + 1} of {allowed})", flush=True)
    try:
        slurm("scontrol", "requeue", job.name)
    except BadInput as error:  # a preempted job may be in the queue again already
        print(error, file=sys.stderr, flush=True)
    time.sleep(REQUEUE_S)
    return STOPPED


def first_to_fail(run: Path, status: int) -> str:
    """Who ended first, and where all ranks were: a rank that a signal ended takes the others down with it."""
    ended = [run_info.read_json(path) for path in (run / run_info.FAILED).glob("rank-*.json")]
    ended = sorted((said for said in ended if "at" in said), key=lambda said: (not said["signal"], said["at"]))
    beats = [f"  {run_info.seen(beat)}" for beat in run_info.heartbeats(run)[:16]]
    first = f"ended with exit status {status}"
    if ended:
        first = f"rank {ended[0]['rank']} on {ended[0]['host']} was the first to end, with {ended[0]['how']}"
    return "\n".join([first, *beats])


def silent_nodes(job: SlurmJob) -> list[str]:
    """Nodes of the job whose slurmd takes no connection."""
    default = re.search(r"SlurmdPort\s*=\s*(\d+)", slurm("scontrol", "show", "config"))[1]
    silent = []
    for name in host_names(job.nodes):
        said = fields(slurm("scontrol", "-o", "show", "node", name))
        try:
            socket.create_connection((said["NodeAddr"], int(said.get("Port", default))), 5).close()
        except OSError:
            silent.append(name)
    return silent


def the_job() -> SlurmJob:
    job = current_slurm_job()
    if job is None:
        raise BadInput("this is for the inside of a Slurm job, and this is none")
    return job


if __name__ == "__main__":
    sys.exit(main())
