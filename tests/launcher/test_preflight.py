"""Reasons why a job could not run are reported with a remedy, each on its own and all at once."""

import os
from pathlib import Path

import pytest

from detector.config.load import load_config
from detector.errors import BadInput
from detector.run.files import write_text
from launcher import partitions, preflight
from launcher.job import Job, Resources
from launcher.partitions import Partition, parse_limit, parse_partitions

SINFO = """gpu|gpu*|up|1-00:00:00|4|64|gpu:8(S:0-1)
gpu|gpu*|up|1-00:00:00|2|32|gpu:a100:4
cpu|cpu|up|infinite|8|16|(null)
cpu|cpu|up|infinite|2|128|(null)
old|old|down|30:00|2|8|gpu:k80:1,gpu:m40:1,tmpfs:3
"""


@pytest.fixture
def slurm(monkeypatch):
    monkeypatch.setattr(partitions, "has_slurm", lambda: True)
    monkeypatch.setattr(partitions, "slurm", lambda *command: SINFO)


def problem_lines(resources: Resources, run: Path, *overrides: str) -> str:
    job = Job("train", ("coco/resnet50_fpn", *overrides), resources)
    return "\n".join(map(str, [*preflight.run_folder_problems(run),
                               *preflight.slurm_problems(job, run, load_config(job.arguments[0], list(overrides)))]))


def test_partitions_as_sinfo_prints_them():
    assert parse_partitions(SINFO) == [
        Partition("gpu", True, True, 1440, 4, 64, 8), Partition("gpu", True, True, 1440, 2, 32, 4, ("a100",)),
        Partition("cpu", False, True, float("inf"), 8, 16, 0),
        Partition("cpu", False, True, float("inf"), 2, 128, 0), Partition("old", False, False, 30, 2, 8, 2, ("k80", "m40"))]
    assert parse_partitions("") == []


def test_counts_with_a_suffix_are_numbers():
    assert parse_partitions("big|big*|up|infinite|1K|2K+|(null)") == [Partition("big", True, True, float("inf"), 1024, 2048, 0)]


def test_nodes_that_sinfo_does_not_show_count_and_may_have_any_size(tmp_path, monkeypatch):
    """Nodes of a cloud are hidden while they are powered down; those of a site with PrivateData=nodes always are."""
    output = {"sinfo": "cloud|cloud*|up|infinite|0|0|(null)\nmixed|mixed|up|infinite|1|4|gpu:1\nseen|seen|up|infinite|2|4|gpu:1\n",
              "scontrol": "PartitionName=cloud Nodes=c[1-4] TotalNodes=4 State=UP\nPartitionName=mixed TotalNodes=2\n"
                          "PartitionName=seen TotalNodes=2\nPartitionName=none Nodes=(null)\n"}
    monkeypatch.setattr(partitions, "has_slurm", lambda: True)
    monkeypatch.setattr(partitions, "slurm", lambda *command: output[command[0]])
    fits = dict(gpus=8, gpu_type="h100", cores=12)
    assert problem_lines(Resources(nodes=1, **fits), tmp_path) == problem_lines(Resources(partition="mixed", **fits), tmp_path) == ""
    assert "nodes=5: partition cloud has 4 nodes" in problem_lines(Resources(nodes=5, gpus=1), tmp_path)
    assert problem_lines(Resources(partition="seen", **fits), tmp_path).count("\n") == 2


def test_a_site_that_keeps_its_nodes_private_is_asked_for_its_partitions_alone(tmp_path, monkeypatch):
    """PrivateData=nodes: sinfo is refused to users."""
    def run(*command: str) -> str:
        if command[0] == "sinfo":
            raise BadInput("sinfo: slurm_load_node: Access/permission denied")
        return "PartitionName=gpu Default=YES MaxTime=1-00:00:00 TotalNodes=4 State=UP\nPartitionName=old State=DOWN TotalNodes=1\n"
    monkeypatch.setattr(partitions, "has_slurm", lambda: True)
    monkeypatch.setattr(partitions, "slurm", run)
    assert problem_lines(Resources(nodes=2, gpus=8, gpu_type="h100", cores=12), tmp_path) == ""
    assert "partition=cpu: there is no such partition. Partitions: gpu, old" in problem_lines(Resources(partition="cpu"), tmp_path)
    assert "hours=25: partition gpu allows 24 hours" in problem_lines(Resources(hours=25), tmp_path)
    assert "partition=old: it is not up" in problem_lines(Resources(partition="old"), tmp_path)


@pytest.mark.parametrize("text, minutes", [
    ("30:00", 30), ("2:30", 2.5), ("12:00:00", 720), ("1-00:00:00", 1440), ("infinite", float("inf")), ("n/a", float("inf"))])
def test_time_limits_as_sinfo_writes_them(text, minutes):
    assert parse_limit(text) == minutes


@pytest.mark.parametrize("hours, minutes", [(24, 1440), (0.5, 30), (0.017, 2), (1 / 60, 1), (0.01, 1)])
def test_hours_become_whole_minutes(hours, minutes):
    assert Resources(hours=hours).time_limit_minutes == minutes


@pytest.mark.parametrize("resources", [
    Resources(gpus=8), Resources(gpus=4, gpu_type="a100"), Resources(gpus=8, partition="cpu, gpu"),
    Resources(hours=48, partition="gpu,cpu"), Resources(hours=float("inf"), partition="cpu"),
    Resources(nodes=6, gpus=2, partition="gpu"), Resources(processes=2, partition="cpu", hours=1000)])
def test_a_job_that_fits_has_no_problem(resources, slurm, tmp_path):
    assert problem_lines(resources, tmp_path / "runs" / "a") == ""


@pytest.mark.parametrize("resources, overrides, message", [
    (Resources(gpus=8, partition="gpus"), [], "partition=gpus: there is no such partition. Partitions: cpu, gpu, old"),
    (Resources(gpus=8, hours=25), [], "hours=25: partition gpu allows 24 hours"),
    (Resources(gpus=8, hours=0.05), [], "hours=0.05: too little time"),
    (Resources(gpus=8, sbatch=("--time-min=3",)), [], "hours=0.05: too little time"),
    (Resources(gpus=8, hours=float("inf")), [], "hours=inf: partition gpu allows 24 hours"),
    (Resources(gpus=2, gpu_type="h100"), [], "gpus=h100:2: partition gpu has no GPUs of this type. Types that sinfo names: a100"),
    (Resources(gpus=8, partition="cpu,gqu"), [], "partition=gqu: there is no such partition"),
    (Resources(gpus=9), [], "gpus=9: partition gpu has 8 GPUs in a node"),
    (Resources(gpus=1, partition="cpu"), [], "partition cpu has 0 GPUs in a node"),
    (Resources(nodes=7, gpus=1), [], "nodes=7: partition gpu has 6 nodes"),
    (Resources(gpus=8, cores=9), [], "cores of a node (8 x 9 = 72): partition gpu has 64 cores in a node"),
    (Resources(gpus=8, cores=1), ["run.num_workers=4"], "cores=1: fewer than the 4 workers of each process"),
    (Resources(gpus=1, partition="old", hours=0.4), [], "partition=old: it is not up"),
    (Resources(processes=1), ["run.device=cuda"], "gpus=0: run.device=cuda"),
    (Resources(processes=4, gpus=2), [], "processes=4: more than the 2 GPUs"),
    (Resources(nodes=4, gpus=8), ["batch.size=16"], "batch.size=16: fewer images than the 32 processes"),
    (Resources(gpus=8, setup=("if false; then", "true")), [], "setup: bash cannot read it: line 3: syntax error"),
    (Resources(gpus=8, shared="/no/such"), [], "shared=/no/such: there is no such folder"),
    (Resources(gpus=8, shared="/usr"), [], "does not lie below /usr, which all nodes can see. Set run.folder=/usr/runs")])
def test_each_problem_is_reported(resources, overrides, message, slurm, tmp_path):
    lines = problem_lines(resources, tmp_path / "runs" / "a", *overrides)
    assert message in lines and lines.count("\n") == 0, lines


def test_of_several_partitions_the_problems_of_each_are_reported(slurm, tmp_path):
    lines = problem_lines(Resources(gpus=9, partition="cpu,gpu"), tmp_path)
    assert "partition cpu has 0 GPUs" in lines and "partition gpu has 8 GPUs" in lines


def test_all_problems_are_reported_at_once(slurm):
    lines = problem_lines(Resources(gpus=9, partition="gpu", hours=99, nodes=20), Path("/proc/runs/a"), "batch.size=0")
    assert [line.split(":")[0] for line in lines.splitlines()] == ["run folder /proc/runs/a", "nodes=20", "gpus=9", "hours=99"]


def test_a_run_below_the_shared_folder_is_fine_and_leaves_nothing_there(slurm, tmp_path):
    (tmp_path / "link").symlink_to(tmp_path)
    assert problem_lines(Resources(gpus=8, shared=str(tmp_path / "link")), tmp_path / "a" / "b") == ""
    assert os.listdir(tmp_path) == ["link"]


def test_a_run_folder_behind_a_link_that_leads_nowhere_is_named(slurm, tmp_path):
    (tmp_path / "runs").symlink_to("/scratch.purged/me")
    link = f"{tmp_path}/runs is a link to /scratch.purged/me, which does not exist. Make that folder, or set run.folder"
    assert problem_lines(Resources(gpus=8), tmp_path / "runs" / "a") == f"run folder {tmp_path}/runs/a: {link}"
    with pytest.raises(BadInput, match=link):
        write_text(tmp_path / "runs" / "a" / "status.json", "")


def test_no_slurm_and_a_slurm_without_sinfo_are_reported(tmp_path, monkeypatch):
    monkeypatch.setattr(partitions, "has_slurm", lambda: False)
    assert "sbatch: there is none on" in problem_lines(Resources(gpus=8), tmp_path)
    monkeypatch.setattr(partitions, "has_slurm", lambda: True)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert "no sinfo on this machine" in problem_lines(Resources(gpus=8), tmp_path)


def test_without_a_default_partition_the_user_must_name_one(tmp_path, monkeypatch):
    monkeypatch.setattr(partitions, "has_slurm", lambda: True)
    monkeypatch.setattr(partitions, "slurm", lambda *command: SINFO.replace("*", ""))
    assert "partition: the cluster has no default partition. Name one of: cpu, gpu, old" in problem_lines(Resources(gpus=8), tmp_path)


def test_options_that_contradict_the_backbone_are_found_before_submission(tmp_path, slurm):
    assert "resnet50_c4 has 1 level" in problem_lines(
        Resources(gpus=1), tmp_path, "model.backbone=resnet50_c4", "model.anchor_sizes=[[8],[16]]")
