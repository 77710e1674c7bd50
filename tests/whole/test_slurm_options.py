"""A real Slurm: what users say to it holds, and what it refuses leaves nothing behind."""

import os
import re

import pytest
from slurm_fixtures import cluster, needs_slurm, runs  # noqa: F401

pytestmark = needs_slurm
WAYS = {"submitit": ["--on", "slurm"], "torchrun": ["--on", "sbatch"]}


@pytest.fixture(scope="module", autouse=True)
def hidden_partition(cluster):
    cluster.call("scontrol", "update", "PartitionName=short", "Hidden=YES")
    yield
    cluster.call("scancel", "--me")


def record(cluster, job: str) -> str:
    return cluster.call("scontrol", "-o", "show", "job", job)


@pytest.mark.parametrize("way", WAYS)
def test_a_job_has_the_options_of_its_user(way, cluster, runs, monkeypatch):
    monkeypatch.setitem(cluster.environ, "SBATCH_PARTITION", "main")
    job = cluster.submit(*runs.arguments, f"run.name=options-{way}", *WAYS[way], "--gpus", "2", "--partition", "high,short",
                         "--no-snapshot",
                         "--sbatch", "--hold -w node2", "--sbatch=--comment='a # \\b' --time=0:9:30", "--sbatch=--mem-per-cpu=50M",
                         "--sbatch=--no-requeue --signal=B:USR1@70", "--sbatch=--job-name=mine")
    text = record(cluster, job)
    for part in ("JobName=mine", "Partition=high,short", "ReqNodeList=node2", "Comment=a # \\b ", "TimeLimit=00:10:00", "MinMemoryCPU=50M",
                 "Requeue=0", "TresPerNode=gres:gpu:2", "Reason=JobHeldUser"):
        assert part in text, text
    script = cluster.call("scontrol", "write", "batch_script", job, "-")
    for option in ("requeue", "signal", "time", "mem", "job-name", "partition", "nodelist"):
        assert len(re.findall(rf"^#SBATCH --(?:no-)?{option}(?:-per-cpu)?\b", script, re.MULTILINE)) == 1, option
    assert "#SBATCH --signal=USR1@70" in script


def test_a_refusal_leaves_nothing_and_check_foretells_it(cluster, runs, tmp_path):
    (tmp_path / "rows.txt").write_text("run.name=a\nrun.name=b\n")
    arguments = [*runs.arguments, f"run.folder={tmp_path / 'runs'}", "--processes", "1", "--constraint", "nofeature"]
    output = cluster.fleet("check", *arguments, "--on", "slurm", "--quick", expected=2)
    assert "problem: sbatch --test-only: Invalid feature specification" in output and "1 problem" in output
    output = cluster.fleet("train", *arguments, "--on", "sbatch", "--array", str(tmp_path / "rows.txt"), expected=2)
    assert "Invalid feature specification" in output and os.listdir(tmp_path) == ["rows.txt"]


def test_of_an_array_only_rows_without_a_job_are_submitted_again(cluster, runs, tmp_path):
    (tmp_path / "rows.txt").write_text("run.name='a b'\nrun.name=c#d run.num_workers=2\nrun.name=e\n")
    arguments = [*runs.arguments, f"run.folder={tmp_path / 'runs'}", "--processes", "1", "--on", "sbatch", "--sbatch=--hold"]
    job = cluster.submit(*arguments, "--array", f"{tmp_path / 'rows.txt'}%2")
    assert "ArrayTaskId=0-2%2 ArrayTaskThrottle=2" in record(cluster, job) and "NumCPUs=3" in record(cluster, job)
    cluster.call("scancel", f"{job}_1")
    output = cluster.fleet("train", *arguments, "--array", str(tmp_path / "rows.txt"), expected=2)
    assert f"line 1: a b is in the queue, as job {job}_0 (PENDING)" in output and "line 2" not in output
    again = cluster.submit(*arguments, "--array", str(tmp_path / "rows.txt"), "--failed")
    assert "ArrayTaskId=0 " in record(cluster, again)
    assert "run.name=c#d" in cluster.call("scontrol", "write", "batch_script", again, "-")
