"""A real Slurm with two nodes: after any disturbance, a job ends with the bits of a run without disturbances."""

import os
import re
import signal
import time
from dataclasses import dataclass
from pathlib import Path

import pytest
from disturbances import ROUND, cut_off, lose_a_node, preempt, signal_all, train_disturbed
from kills import process_of, train_with_kills
from slurm_cluster import assert_same_end, log, pace, reached, until
from slurm_fixtures import BACKENDS, FOUR_PROCESSES, STEPS, cluster, needs_slurm, runs, undisturbed  # noqa: F401

pytestmark = needs_slurm


@dataclass(frozen=True)
class LimitedJob:
    job: str
    run: Path


@pytest.fixture(scope="module")
def limited(cluster, runs) -> LimitedJob:
    """A job of two minutes, the shortest that this Slurm allows; it trains during the first tests."""
    job = cluster.submit(*runs.arguments, "run.name=limited", "schedule.steps=100000", "evaluate.every_epochs=0", "--on", "slurm",
                         "--processes", "1", "--hours", "0.033", "--notice-s", "59")
    return LimitedJob(job, runs.folder / "limited")


def test_a_cluster_is_idle_within_five_seconds(cluster):
    assert cluster.up_s < 5 and cluster.call("sinfo", "-h", "-o", "%T").split() == ["idle"]


@pytest.mark.parametrize("backend", BACKENDS)
def test_two_nodes_give_the_bits_of_four_processes_on_one(backend, cluster, runs, undisturbed, limited):
    run = runs.folder / backend
    job = cluster.submit(*runs.arguments, f"run.name={backend}", *BACKENDS[backend], *FOUR_PROCESSES)
    assert cluster.wait(job, run) == "COMPLETED", log(run)
    assert_same_end(run, undisturbed, STEPS)
    assert f"finished: {STEPS} of {STEPS} steps" in log(run)


def test_an_array_trains_one_run_for_each_row_side_by_side(cluster, runs, undisturbed, tmp_path):
    """Two jobs of one user on one node at the same time do not disturb each other."""
    rows = tmp_path / "rows.txt"
    rows.write_text("run.name=row-a  # a run\n\nrun.name=row-b seed=7\n")
    job = cluster.submit(*runs.arguments, "--on", "sbatch", "--array", str(rows), "--processes", "2", "--sbatch=--nodelist=node1",
                         "schedule.steps=4")
    for index, name in enumerate(("row-a", "row-b")):
        folder = next(runs.folder.glob("array-*"))
        assert cluster.wait(f"{job}_{index}", runs.folder / name) == "COMPLETED", "".join(
            path.read_text() for path in folder.glob("*.log"))
    hosts = {path.read_text().split("Slurm job ")[1].split(":")[0].split(" on ")[1] for path in folder.glob("*.log")}
    assert hosts == {"node1"}
    assert (runs.folder / "row-a" / "metrics.jsonl").read_text() != (runs.folder / "row-b" / "metrics.jsonl").read_text()


def test_a_run_that_reaches_its_time_limit_is_saved_and_resumes(cluster, limited):
    job, run = limited.job, limited.run
    until(lambda: cluster.restarts(job) and cluster.state(job) == "RUNNING", 150, lambda: log(run))
    until(lambda: log(run).count("resuming from") == cluster.restarts(job), 60, lambda: log(run))
    assert "stop requested (SIGUSR2)" in log(run) and "requeue requested (restart 1 of 100)" in log(run)
    cluster.fleet("cancel", str(run))
    assert cluster.wait(job, run) == "CANCELLED"
    until(lambda: "so no requeue is requested" in log(run), 60, lambda: log(run))
    assert log(run).count("requeue requested (") == cluster.restarts(job), "a cancelled job is not requeued"


def test_every_disturbance_in_one_run(cluster, runs, undisturbed):
    """FLEET_ROUNDS sets how often each occurs; tests/benchmarks/disturbances.py runs two rounds."""
    rounds = int(os.environ.get("FLEET_ROUNDS", 1))
    total_steps = rounds * (20 + int(30 * pace(undisturbed)))  # Slurm may notice a near time limit half a minute late
    arguments = [*runs.arguments, f"schedule.steps={total_steps}", "evaluate.every_epochs=5"]
    cluster.fleet("train", *arguments, "run.name=calm", "--on", "torchrun", "--processes", "4")
    output = train_disturbed(cluster, [*arguments, "run.name=stormy", "--on", "slurm", "--hours", "1", *FOUR_PROCESSES],
                             runs.folder / "stormy", ROUND * rounds)
    assert_same_end(runs.folder / "stormy", runs.folder / "calm", total_steps)
    assert "stop requested (SIGUSR2)" in output and "stop requested (SIGTERM)" in output


@pytest.mark.parametrize("backend, first, second", [("torchrun", signal_all, lose_a_node), ("srun", cut_off, preempt)],
                         ids=["torchrun: signalled, lost a node", "srun: a node cut off, preempted"])
def test_two_disturbances_in_one_run(backend, first, second, cluster, runs, undisturbed):
    if first is cut_off and not cluster.has_network:
        pytest.skip("the nodes have no networks of their own: `slurm/local-cluster up --network` prints the reason")
    run = runs.folder / f"disturbed-{backend}"
    output = train_disturbed(cluster, [*runs.arguments, f"run.name={run.name}", *BACKENDS[backend], *FOUR_PROCESSES], run,
                             [first, second], min_steps=3)
    assert_same_end(run, undisturbed, STEPS)
    assert "restart 1 of 100" in output and "restart 2 of 100" in output and "resuming from" in output


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_killed_rank_ends_the_job_and_its_log_names_the_rank(backend, cluster, runs):
    run = runs.folder / f"killed-{backend}"
    job = cluster.submit(*runs.arguments, f"run.name={run.name}", "schedule.steps=100000", *BACKENDS[backend], "--nodes", "2",
                         "--processes", "1")
    until(lambda: reached(run, 1), 90, lambda: log(run))
    os.kill(process_of(str(run), rank=1), signal.SIGKILL)
    killed_at = time.monotonic()
    assert cluster.wait(job, run) == "FAILED" and time.monotonic() - killed_at < 30
    assert "rank 1 on node2 was the first to end, with signal SIGKILL" in log(run)
    assert re.search(rf"^{run.name} .*failed.*\n    rank 1 on node2 ended with signal SIGKILL( at step \d+)?\n    Slurm: FAILED",
                     cluster.fleet("jobs", str(runs.folder)), re.MULTILINE)


def test_kills_at_random_moments(cluster, runs):
    """FLEET_KILLS sets the number of kills; tests/benchmarks/kills.py uses fifty."""
    arguments = [*runs.arguments, *BACKENDS["srun"], "--processes", "2"]
    job = cluster.submit(*arguments, "run.name=alone")
    assert cluster.wait(job, runs.folder / "alone") == "COMPLETED", log(runs.folder / "alone")
    kills = int(os.environ.get("FLEET_KILLS", 2))
    train_with_kills(cluster, [*arguments, "run.name=kills"], runs.folder / "kills", kills, 15.0, seed=1)
    assert_same_end(runs.folder / "kills", runs.folder / "alone", STEPS)


def test_a_finished_run_that_is_requeued_finishes_again_at_once(cluster, runs, undisturbed):
    run = runs.folder / "twice"
    job = cluster.submit(*runs.arguments, "run.name=twice", "schedule.steps=2", *BACKENDS["srun"], "--processes", "1")
    assert cluster.wait(job, run) == "COMPLETED"
    cluster.call("scontrol", "requeue", job)
    until(lambda: cluster.restarts(job) == 1 and cluster.state(job) == "COMPLETED", 60, lambda: log(run))
    assert log(run).count("finished: 2 of 2 steps") == 2


def test_restarts_are_limited_and_must_make_progress(cluster, runs):
    run = runs.folder / "stuck"
    job = cluster.submit(*runs.arguments, "run.name=stuck", "schedule.steps=100000", "run.max_requeues=5", *BACKENDS["srun"],
                         "--processes", "1", "run.save_every_steps=100000", "evaluate.every_epochs=0")
    for number in range(1, 3):  # killed each time before a checkpoint was saved
        until(lambda: process_of(str(run), rank=0), 60, lambda: log(run))
        os.kill(process_of(str(run), rank=0), signal.SIGKILL)
        assert cluster.wait(job, run) == "FAILED"
        cluster.call("scontrol", "requeue", job)
        until(lambda: cluster.restarts(job) == number, 90, lambda: log(run))
    assert cluster.wait(job, run) == "FAILED"
    assert "not started again: no progress since restart 1" in log(run)


def test_check_reports_why_a_job_could_not_run(cluster, runs, tmp_path):
    closed = Path("/proc/fleet")  # cannot be written
    output = cluster.fleet("check", *runs.arguments, f"run.folder={closed}", "data.classes=[circle,unicorn]", "--on", "slurm",
                           "--partition", "mian", "--hours", "0.02", "--gpus", "16", expected=2)
    for part in ("partition=mian: there is no such partition", "Partitions: high, main, short", "too little time",
                 "cannot create a file in /proc", "unicorn", "not checked yet: every image, and a trial step; fix the problems first"):
        assert part in output, output
    output = cluster.fleet("train", *runs.arguments, "--on", "slurm", "--partition", "short", "--gpus", "9", "--nodes", "3",
                           "--hours", "1", "run.name=never", "--processes", "1", expected=2)
    for part in ("partition short has 8 GPUs in a node", "has 2 nodes", "allows 0.166667 hours"):
        assert part in output, output
