"""Helper of tests: disturbances of a job on a cluster, and a run that must survive them."""

from pathlib import Path
from typing import Callable

from slurm_cluster import OVER, Cluster, log, reached, steps, until

Disturbance = Callable[[Cluster, str], None]


def preempt(cluster: Cluster, job: str) -> None:
    """Submits a job of higher priority that needs both nodes."""
    cluster.call("sbatch", "--partition=high", "--nodes=2", "--exclusive", "--time=1", "--output=/dev/null", "--wrap=sleep 2")


def requeue(cluster: Cluster, job: str) -> None:
    cluster.call("scontrol", "requeue", job)


def lose_a_node(cluster: Cluster, job: str) -> None:
    """Stops node2, which does not run the batch script; Slurm handles the loss of the other node by itself."""
    before = cluster.restarts(job)
    cluster.control("fail", "node2")
    until(lambda: cluster.restarts(job) > before or cluster.state(job) == "PENDING", 90)
    cluster.control("start", "node2")


def cut_off(cluster: Cluster, job: str) -> None:
    """Cuts the network of node2, whose processes live on, and connects it again after the restart."""
    before = cluster.restarts(job)
    cluster.control("cut", "node2")
    until(lambda: cluster.restarts(job) > before or cluster.state(job) == "PENDING", 90)
    cluster.control("join", "node2")


def signal_all(cluster: Cluster, job: str) -> None:
    """Sends the signal that Slurm sends before the time limit."""
    cluster.call("scancel", "--signal=USR2", job)


def meet_the_limit(cluster: Cluster, job: str) -> None:
    """Lowers the time limit so that Slurm sends its signal at once; the next start has an hour again."""
    before = cluster.restarts(job)
    cluster.call("scontrol", "update", f"JobId={job}", "TimeLimit=1")
    until(lambda: cluster.restarts(job) > before, 90)
    cluster.call("scontrol", "update", f"JobId={job}", "TimeLimit=60")


ROUND = [preempt, meet_the_limit, requeue, lose_a_node]


def train_disturbed(cluster: Cluster, args: list[str], run: Path, disturbances: list[Disturbance], min_steps: int = 1) -> str:
    """Trains to the end with all disturbances on the way; returns the log of the job.

    The run must be long enough for all disturbances. Each costs one restart or two: Slurm's late signals to a job that was
    preempted hit the next start, and a node that has returned may not accept tasks yet.

    Args:
        min_steps: steps that each start must make before the next disturbance.
    """
    job = cluster.submit(*args)
    for disturb in disturbances:
        target = max(steps(run), default=0) + min_steps
        until(lambda: reached(run, target) and cluster.state(job) == "RUNNING", 120, lambda: log(run))
        before = cluster.restarts(job)
        disturb(cluster, job)
        until(lambda: cluster.restarts(job) > before, 120, lambda: f"{disturb.__name__}:\n{log(run)}")
    until(lambda: cluster.state(job) in OVER, 240, lambda: log(run))
    assert cluster.state(job) == "COMPLETED", log(run)
    return log(run)
