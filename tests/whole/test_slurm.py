"""On a real Slurm of two nodes: whatever happens to a job, it ends with the bits of a run that nothing happened to."""

import os
import shutil
import signal
import time
from pathlib import Path

import pytest
from conftest import TINY
from disturbances import ROUND, cut_off, lose_a_node, preempt, signal_all, train_disturbed
from kills import process_of, train_with_kills
from slurm_cluster import Cluster, assert_same_end, log, missing, pace, reached, until

pytestmark = [pytest.mark.whole, pytest.mark.skipif(bool(missing()), reason=missing())]
STEPS = 9
WAYS = {"submitit": ["--on", "slurm"], "torchrun": ["--on", "sbatch"], "srun": ["--on", "sbatch", "--template", "srun"]}
FOUR = ["--nodes", "2", "--processes", "2"]


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    one = Cluster(Path("/tmp") / f"fleet-test-{os.getpid()}")  # sockets want a short path
    started_at = time.monotonic()
    wrong = one.up("--gpus", "8", "--kill-wait", "8", "--grace", "10")
    if "namespaces" in wrong:
        pytest.skip(wrong.strip())
    assert not wrong, wrong
    one.up_s = time.monotonic() - started_at
    yield one
    one.control("down")
    shutil.rmtree(one.environ["FLEET_CLUSTER"])


@pytest.fixture(scope="module")
def runs(shapes_root, tmp_path_factory):
    """(config and overrides of any run but its name, folder of the runs)"""
    folder = tmp_path_factory.mktemp("slurm")
    (folder / "empty.yaml").write_text("")
    return [str(folder / "empty.yaml"), *TINY, "data.format=shapes", f"data.root={shapes_root}",
            f"data.cache={folder / 'cache'}", f"run.folder={folder}", f"schedule.steps={STEPS}", "run.save_every_steps=3",
            "evaluate.every_epochs=2"], folder


@pytest.fixture(scope="module")
def undisturbed(cluster, runs):
    """The run that all others are compared with: four processes of torchrun on this machine."""
    arguments, folder = runs
    cluster.fleet("train", *arguments, "run.name=undisturbed", "--on", "torchrun", "--processes", "4")
    return folder / "undisturbed"


@pytest.fixture(scope="module")
def limited(cluster, runs):
    """(number, folder) of a job of two minutes, the least that Slurm knows here: it trains beside the first tests."""
    arguments, folder = runs
    return cluster.submit(*arguments, "run.name=limited", "schedule.steps=100000", "evaluate.every_epochs=0", "--on", "slurm",
                          "--processes", "1", "--hours", "0.033", "--notice-s", "59"), folder / "limited"


def test_a_cluster_is_idle_within_five_seconds(cluster):
    assert cluster.up_s < 5 and cluster.call("sinfo", "-h", "-o", "%T").split() == ["idle"]


@pytest.mark.parametrize("way", WAYS)
def test_two_nodes_give_the_bits_of_four_processes_on_one(way, cluster, runs, undisturbed, limited):
    arguments, folder = runs
    job = cluster.submit(*arguments, f"run.name={way}", *WAYS[way], *FOUR)
    assert cluster.wait(job, folder / way) == "COMPLETED", log(folder / way)
    assert_same_end(folder / way, undisturbed, STEPS)
    assert f"finished: {STEPS} of {STEPS} steps" in log(folder / way)


def test_an_array_trains_a_row_for_each_task_side_by_side(cluster, runs, undisturbed, tmp_path):
    """Two jobs of one user on one node at the same time do not meet."""
    arguments, folder = runs
    rows = tmp_path / "rows.txt"
    rows.write_text("run.name=row-a  # a run\n\nrun.name=row-b seed=7\n")
    number = cluster.submit(*arguments, "--on", "sbatch", "--array", str(rows), "--processes", "2", "--sbatch=--nodelist=node1",
                            "schedule.steps=4")
    for index, name in enumerate(("row-a", "row-b")):
        said = next(folder.glob("array-*"))
        assert cluster.wait(f"{number}_{index}", folder / name) == "COMPLETED", "".join(
            path.read_text() for path in said.glob("*.log"))
    hosts = {path.read_text().split("Slurm job ")[1].split(":")[0].split(" on ")[1] for path in said.glob("*.log")}
    assert hosts == {"node1"}
    assert (folder / "row-a" / "metrics.jsonl").read_text() != (folder / "row-b" / "metrics.jsonl").read_text()


def test_a_run_that_meets_its_time_limit_is_saved_and_goes_on(cluster, limited):
    job, run = limited
    until(lambda: cluster.restarts(job) and cluster.state(job) == "RUNNING", 150, lambda: log(run))
    until(lambda: log(run).count("resuming from") == cluster.restarts(job), 60, lambda: log(run))
    assert "asked to stop (SIGUSR2)" in log(run) and "asked for a requeue (restart 1 of 100)" in log(run)
    cluster.fleet("cancel", str(run))
    assert cluster.wait(job, run) == "CANCELLED"
    until(lambda: "so nothing is asked for" in log(run), 60, lambda: log(run))
    assert log(run).count("asked for a requeue") == cluster.restarts(job), "a cancelled job is not queued again"


def test_all_that_may_happen_to_one_run(cluster, runs, undisturbed):
    """FLEET_ROUNDS sets how often each; tests/benchmarks/disturbances.py does it twice."""
    arguments, folder = runs
    rounds = int(os.environ.get("FLEET_ROUNDS", 1))
    total = rounds * (20 + int(30 * pace(undisturbed)))  # Slurm may take half a minute to see that a limit is near
    arguments = [*arguments, f"schedule.steps={total}", "evaluate.every_epochs=5"]
    cluster.fleet("train", *arguments, "run.name=calm", "--on", "torchrun", "--processes", "4")
    said = train_disturbed(cluster, [*arguments, "run.name=stormy", "--on", "slurm", "--hours", "1", *FOUR], folder / "stormy",
                           ROUND * rounds)
    assert_same_end(folder / "stormy", folder / "calm", total)
    assert "asked to stop (SIGUSR2)" in said and "asked to stop (SIGTERM)" in said


@pytest.mark.parametrize("way, first, second", [("torchrun", signal_all, lose_a_node), ("srun", cut_off, preempt)],
                         ids=["torchrun: signalled, lost a node", "srun: a node cut off, preempted"])
def test_disturbed_twice_in_one_run(way, first, second, cluster, runs, undisturbed):
    if first is cut_off and not cluster.network:
        pytest.skip("no networks for the nodes here: slurm/local-cluster up --network says why")
    arguments, folder = runs
    run = folder / f"disturbed-{way}"
    said = train_disturbed(cluster, [*arguments, f"run.name={run.name}", *WAYS[way], *FOUR], run, [first, second], min_steps=3)
    assert_same_end(run, undisturbed, STEPS)
    assert "restart 1 of 100" in said and "restart 2 of 100" in said and "resuming from" in said


@pytest.mark.parametrize("way", WAYS)
def test_one_killed_rank_ends_the_job_which_says_who_it_was(way, cluster, runs):
    arguments, folder = runs
    run = folder / f"killed-{way}"
    job = cluster.submit(*arguments, f"run.name={run.name}", "schedule.steps=100000", *WAYS[way], "--nodes", "2", "--processes", "1")
    until(lambda: reached(run, 1), 90, lambda: log(run))
    os.kill(process_of(str(run), rank=1), signal.SIGKILL)
    killed_at = time.monotonic()
    assert cluster.wait(job, run) == "FAILED" and time.monotonic() - killed_at < 30
    assert "rank 1 on node2 was the first to end, with signal SIGKILL" in log(run)
    assert f"{run.name}" in cluster.fleet("jobs", "--folder", str(folder))


def test_kills_at_random_moments(cluster, runs):
    """FLEET_KILLS sets how many; tests/benchmarks/kills.py does fifty."""
    arguments, folder = runs
    arguments = [*arguments, *WAYS["srun"], "--processes", "2"]
    job = cluster.submit(*arguments, "run.name=alone")
    assert cluster.wait(job, folder / "alone") == "COMPLETED", log(folder / "alone")
    train_with_kills(cluster, [*arguments, "run.name=kills"], folder / "kills", int(os.environ.get("FLEET_KILLS", 2)), 15.0, seed=1)
    assert_same_end(folder / "kills", folder / "alone", STEPS)


def test_a_finished_run_that_is_queued_again_ends_well_at_once(cluster, runs, undisturbed):
    arguments, folder = runs
    job = cluster.submit(*arguments, "run.name=twice", "schedule.steps=2", *WAYS["srun"], "--processes", "1")
    assert cluster.wait(job, folder / "twice") == "COMPLETED"
    cluster.call("scontrol", "requeue", job)
    until(lambda: cluster.restarts(job) == 1 and cluster.state(job) == "COMPLETED", 60, lambda: log(folder / "twice"))
    assert log(folder / "twice").count("finished: 2 of 2 steps") == 2


def test_restarts_are_limited_and_must_bring_the_run_forward(cluster, runs):
    arguments, folder = runs
    run = folder / "stuck"
    job = cluster.submit(*arguments, "run.name=stuck", "schedule.steps=100000", "run.max_requeues=5", *WAYS["srun"],
                         "--processes", "1", "run.save_every_steps=100000", "evaluate.every_epochs=0")
    for number in range(1, 3):  # it always dies before it has saved anything
        until(lambda: process_of(str(run), rank=0), 60, lambda: log(run))
        os.kill(process_of(str(run), rank=0), signal.SIGKILL)
        assert cluster.wait(job, run) == "FAILED"
        cluster.call("scontrol", "requeue", job)
        until(lambda: cluster.restarts(job) == number, 90, lambda: log(run))
    assert cluster.wait(job, run) == "FAILED"
    assert "not started again: no progress since restart 1" in log(run)


def test_check_names_what_would_keep_a_job_from_running(cluster, runs, tmp_path):
    arguments, _ = runs
    closed = Path("/proc/fleet")  # nobody can write there
    before = os.times()
    said = cluster.fleet("check", *arguments, f"run.folder={closed}", "data.classes=[circle,unicorn]", "--on", "slurm",
                         "--partition", "mian", "--hours", "0.02", "--gpus", "16", expected=2)
    cpu_s = os.times().children_user - before.children_user  # a clock would measure what else this machine does
    for part in ("partition=mian: there is no such partition", "There are: high, main, short", "too little time",
                 "cannot create a file in /proc", "unicorn"):
        assert part in said, said
    assert cpu_s < 10
    said = cluster.fleet("train", *arguments, "--on", "slurm", "--partition", "short", "--gpus", "9", "--nodes", "3", "--hours",
                         "1", "run.name=never", "--processes", "1", expected=2)
    for part in ("partition short has 8 GPUs in a node", "has 2 nodes", "allows 0.166667 hours"):
        assert part in said, said
