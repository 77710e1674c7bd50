"""Resources: the command line over the cluster file over the defaults."""

import re

import pytest

from detector.errors import BadInput
from launcher import cli
from launcher.job import CODE, Resources
from launcher.resources import build_resources


def parse(*options: str, is_cluster: bool = True) -> Resources:
    return build_resources(cli.launch_parser().parse_args(["train", *options]), is_cluster)


def test_the_command_line_wins_over_the_cluster_file_and_that_over_the_defaults(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    assert parse("--hours", "1e1") == Resources(hours=10)
    file = tmp_path / "fleet-rcnn" / "cluster.yaml"
    file.parent.mkdir()
    file.write_text("partition: gpu\ngpus: 8\nmodules: [cuda, nccl]\nsnapshot: false\n")
    assert parse("--gpus", "4") == Resources(partition="gpu", gpus=4, modules=("cuda", "nccl"), snapshot=False)
    assert parse("--snapshot", "--sbatch=--qos=a", "--sbatch=--exclusive").sbatch == ("--qos=a", "--exclusive")
    assert parse("--snapshot").snapshot and parse() == parse("--cluster", str(file), is_cluster=False)
    assert parse(is_cluster=False) == Resources()  # the GPUs of a cluster are not those of this machine
    file.write_text("partitoin: gpu\ngpus: many\n")
    with pytest.raises(BadInput, match=r"(?s)2 mistakes.*partitoin: no such option.*gpus='many': a whole number"):
        parse()


def test_the_example_is_a_cluster_file_and_names_every_key():
    example = CODE / "configs" / "cluster" / "example.yaml"
    resources = parse("--cluster", str(example))
    assert resources.partition == "gpu" and resources.gpus == 8
    for name in vars(Resources()):
        assert name in ("processes", "nodes") or re.search(rf"^(# )?{name}: ", example.read_text(), re.MULTILINE), name


@pytest.mark.parametrize("option", [
    ["--partition", "high"], ["--sbatch=--qos=a"], ["--hours", "2"], ["--no-snapshot"], ["--srun", "--mpi=none"]])
def test_options_of_a_job_are_refused_on_this_machine(option, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.yaml").write_text("data: {root: /x}\n")
    assert cli.main(["train", "mine.yaml", *option]) == 2
    assert "for a job --on slurm or --on sbatch" in capsys.readouterr().err
