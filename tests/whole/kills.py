"""Not a test: a run on a real Slurm that is killed at random moments, again and again, and submitted again where it must be."""

import json
import os
import random
import signal
import time
from pathlib import Path

from slurm_cluster import OVER, Cluster, log, until

SIGNALS = (signal.SIGTERM, signal.SIGUSR2, signal.SIGKILL)


def process_of(run: str, rank: int) -> int:
    """The process id of a rank of the detector; 0 where it does not live (yet)."""
    for entry in Path("/proc").iterdir():
        try:
            words = (entry / "cmdline").read_bytes().decode().split("\0") if entry.name.isdigit() else []
            environ = (entry / "environ").read_bytes().decode().split("\0") if f"{run}/slurm/config.yaml" in words else []
        except (OSError, UnicodeDecodeError):  # it has just ended, or is somebody else's
            continue
        if f"RANK={rank}" in environ and "train" in words and "task" not in words:
            return int(entry.name)
    return 0


def phase_of(run: Path, rank: int) -> str:
    try:
        beat = json.loads((run / "heartbeats" / f"rank-{rank:05d}.json").read_text())
    except (OSError, ValueError):
        return "start-up"
    return beat["phase"]


def kill(cluster: Cluster, job: str, run: Path, draw: random.Random) -> str:
    """One signal, now: to all processes of the job as Slurm sends it, or SIGKILL to one rank. Says what was hit."""
    number, rank = draw.choice(SIGNALS), draw.randrange(2)
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


def train_with_kills(cluster: Cluster, arguments: list[str], run: Path, kills: int, longest_s: float, seed: int) -> list[str]:
    """Trains until the run has finished, with so many kills on the way if it lives that long; gives what was hit.

    The moment of each kill is drawn from the seconds that a start may live: start-up, steps, saving and evaluation.
    """
    draw, hit = random.Random(seed), []
    job = cluster.submit(*arguments)
    while True:
        kill_at, before = time.monotonic() + draw.uniform(0, longest_s), cluster.restarts(job)
        while len(hit) < kills and time.monotonic() < kill_at and cluster.state(job) not in OVER:
            time.sleep(0.1)
        if len(hit) < kills and cluster.state(job) == "RUNNING":
            said = kill(cluster, job, run, draw)
            hit += [said] if said else []
        elif len(hit) < kills and cluster.state(job) not in OVER:
            continue  # it waits in the queue
        until(lambda: cluster.state(job) in OVER or cluster.restarts(job) > before or len(hit) < kills, 120, lambda: log(run))
        state = cluster.state(job)
        if state == "COMPLETED":
            return hit
        assert state not in OVER or state == "FAILED", f"{state}:\n{log(run)}"
        if state == "FAILED":
            job = cluster.submit(*arguments)
