"""Helper of tests: a run on a real Slurm that is killed at random moments and submitted again where that is needed."""

import json
import os
import random
import signal
import time
from pathlib import Path

from slurm_cluster import OVER, Cluster, log, until

SIGNALS = (signal.SIGTERM, signal.SIGUSR2, signal.SIGKILL)


def process_of(run: str, rank: int) -> int:
    """Returns the process id of a rank of the detector; 0 if it does not run."""
    for entry in Path("/proc").iterdir():
        try:
            command = (entry / "cmdline").read_bytes().decode().split("\0") if entry.name.isdigit() else []
            is_of_run = f"{run}/slurm/config.yaml" in command
            environ = (entry / "environ").read_bytes().decode().split("\0") if is_of_run else []
        except (OSError, UnicodeDecodeError):  # the process has just ended, or belongs to another user
            continue
        if f"RANK={rank}" in environ and "train" in command and "task" not in command:
            return int(entry.name)
    return 0


def phase_of(run: Path, rank: int) -> str:
    """Returns the phase of a rank's last heartbeat."""
    try:
        heartbeat = json.loads((run / "heartbeats" / f"rank-{rank:05d}.json").read_text())
    except (OSError, ValueError):
        return "start-up"
    return heartbeat["phase"]


def kill(cluster: Cluster, job: str, run: Path, rng: random.Random) -> str:
    """Sends one random signal: through Slurm to all processes of the job, or SIGKILL to one rank.

    Returns:
        Signal and phase, such as "SIGKILL in step"; empty if there was no process to kill.
    """
    number, rank = rng.choice(SIGNALS), rng.randrange(2)
    phase = phase_of(run, rank)
    if number != signal.SIGKILL:
        cluster.call("scancel", f"--signal={number.name.removeprefix('SIG')}", job)
        return f"{number.name} in {phase}"
    pid = process_of(str(run), rank)
    if not pid:
        return ""
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return ""
    return f"SIGKILL in {phase}"


def train_with_kills(cluster: Cluster, args: list[str], run: Path, max_kills: int, longest_s: float, seed: int) -> list[str]:
    """Trains to the end with up to `max_kills` kills on the way; returns what was hit, see `kill`.

    Args:
        longest_s: the moment of each kill is drawn from this many seconds after a start, so that it hits start-up, steps,
            saving and evaluation.
    """
    rng, hits = random.Random(seed), []
    job = cluster.submit(*args)
    while True:
        kill_at, before = time.monotonic() + rng.uniform(0, longest_s), cluster.restarts(job)
        while len(hits) < max_kills and time.monotonic() < kill_at and cluster.state(job) not in OVER:
            time.sleep(0.1)
        if len(hits) < max_kills and cluster.state(job) == "RUNNING":
            hit = kill(cluster, job, run, rng)
            hits += [hit] if hit else []
        elif len(hits) < max_kills and cluster.state(job) not in OVER:
            continue  # the job waits in the queue
        until(lambda: cluster.state(job) in OVER or cluster.restarts(job) > before or len(hits) < max_kills, 120,
              lambda: log(run))
        state = cluster.state(job)
        if state == "COMPLETED":
            return hits
        assert state not in OVER or state == "FAILED", f"{state}:\n{log(run)}"
        if state == "FAILED":
            job = cluster.submit(*args)
