"""Not a test: what may happen to a job on a cluster, and a run that lives through it."""

from pathlib import Path
from typing import Callable

from slurm_cluster import OVER, Cluster, log, reached, steps, until

Disturbance = Callable[[Cluster, str], None]


def preempt(cluster: Cluster, job: str) -> None:
    cluster.call("sbatch", "--partition=high", "--nodes=2", "--exclusive", "--time=1", "--output=/dev/null", "--wrap=sleep 2")


def requeue(cluster: Cluster, job: str) -> None:
    cluster.call("scontrol", "requeue", job)


def lose_a_node(cluster: Cluster, job: str) -> None:
    """The one that does not run the batch script: Slurm takes care of the other by itself."""
    before = cluster.restarts(job)
    cluster.control("fail", "node2")
    until(lambda: cluster.restarts(job) > before or cluster.state(job) == "PENDING", 90)
    cluster.control("start", "node2")


def cut_off(cluster: Cluster, job: str) -> None:
    """Slurm and the other node hear nothing more of node2, whose processes live on until its cable is in again."""
    before = cluster.restarts(job)
    cluster.control("cut", "node2")
    until(lambda: cluster.restarts(job) > before or cluster.state(job) == "PENDING", 90)
    cluster.control("join", "node2")


def signal_all(cluster: Cluster, job: str) -> None:
    """As at the time limit."""
    cluster.call("scancel", "--signal=USR2", job)


def meet_the_limit(cluster: Cluster, job: str) -> None:
    """The limit is put so near that Slurm gives notice of it as soon as it looks; the next start has an hour again."""
    before = cluster.restarts(job)
    cluster.call("scontrol", "update", f"JobId={job}", "TimeLimit=1")
    until(lambda: cluster.restarts(job) > before, 90)
    cluster.call("scontrol", "update", f"JobId={job}", "TimeLimit=60")


ROUND = [preempt, meet_the_limit, requeue, lose_a_node]


def train_disturbed(cluster: Cluster, arguments: list[str], run: Path, disturbances: list[Disturbance], apart: int = 1) -> str:
    """Trains to the end; each disturbance comes when the start has brought the run `apart` steps further. Gives the log.

    It is an error of the caller if the run ends before all of them have happened. Each costs a start, or a further one:
    Slurm's late signals to a job that it preempted hit the next start, and a node that is back may not take tasks yet.
    """
    job = cluster.submit(*arguments)
    for disturb in disturbances:
        wanted = max(steps(run), default=0) + apart
        until(lambda: reached(run, wanted) and cluster.state(job) == "RUNNING", 120, lambda: log(run))
        before = cluster.restarts(job)
        disturb(cluster, job)
        until(lambda: cluster.restarts(job) > before, 120, lambda: f"{disturb.__name__}:\n{log(run)}")
    until(lambda: cluster.state(job) in OVER, 240, lambda: log(run))
    assert cluster.state(job) == "COMPLETED", log(run)
    return log(run)
