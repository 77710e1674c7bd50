"""Options of sbatch: read as sbatch reads them, translated into resources, or refused with the reason."""

import math
import shutil
import stat
import subprocess

import pytest

from detector.errors import BadInput
from launcher import sbatch_options
from launcher.arguments import launch_parser
from launcher.job import Resources
from launcher.resources import attach_option_values, build_resources
from launcher.sbatch_options import OPTIONS, SHORT, parse_help, parse_options, quote_value


@pytest.fixture(autouse=True)
def no_site(monkeypatch, tmp_path):
    """No cluster file, no SBATCH_*, and no sbatch whose plugins have options."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    monkeypatch.setattr(sbatch_options, "site_options", lambda program: {})
    for name in ("SBATCH_ACCOUNT", "SBATCH_PARTITION", "SBATCH_QOS"):
        monkeypatch.delenv(name, raising=False)


def parse(*options: str) -> Resources:
    return build_resources(launch_parser().parse_args(attach_option_values(["train", *options])), is_cluster=True)


def error_of(*options: str) -> str:
    with pytest.raises(BadInput) as error:
        parse(*options)
    return str(error.value)


@pytest.mark.parametrize("text, options", [
    ("--qos=long", [("qos", "long")]), ("--qos long", [("qos", "long")]), ("-q long", [("qos", "long")]),
    ("-qlong", [("qos", "long")]), ("-w node[1-2]", [("nodelist", "node[1-2]")]), ("--exclusive", [("exclusive", "")]),
    ("--exclusive=user", [("exclusive", "user")]), ("-Hv", [("hold", ""), ("verbose", "")]), ("--nice=-5", [("nice", "-5")]),
    ("--qos=a --hold -x n[1,3]", [("qos", "a"), ("hold", ""), ("exclude", "n[1,3]")]),
    ("--comment='two words'", [("comment", "two words")]), ("--comment=two words", [("comment", "two words")]),
    ("--mail-type=END FAIL --mail-user=me@x.org", [("mail-type", "END FAIL"), ("mail-user", "me@x.org")]),
    ("--constraint='[a&b]|c'", [("constraint", "[a&b]|c")]), ("-C a*2", [("constraint", "a*2")]), ("", [])])
def test_options_may_be_written_as_for_sbatch(text, options):
    assert parse_options([text]) == options


@pytest.mark.parametrize("option", ["-w node2", "--nodelist=node2", "--nodelist node2", "-wnode2"])
@pytest.mark.parametrize("words", [["--sbatch", "{}"], ["--sbatch={}"]])
def test_the_command_line_takes_every_form(option, words):
    assert parse(*(word.format(option) for word in words)).sbatch == ("--nodelist=node2",)


@pytest.mark.parametrize("option, message", [
    ("--tiem=3", "--tiem=3: sbatch has no such option (did you mean --time?)"), ("--Qos=x", "no such option (did you mean --qos?)"),
    ("-w", "-w: this option needs a value. Write --nodelist=..."), ("--qos=", "--qos=: this option needs a value"),
    ("--qos --hold", "--qos: this option needs a value"), ("--requeue=yes", "--requeue=yes: this option takes no value"),
    ("qos=long", "'qos=long': no option of sbatch. Options start with a dash"), ("--comment='a", "a quote is not closed"),
    (": --nodes=2", "':': no option of sbatch"), ("--array=0-2%1", "Write --array FILE%N"), ("-o x.log", "`logs` reads the log"),

    ("--error=x", "`logs` reads"), ("-n3", "-n3: this option cannot be stated, because the number of processes"),
    ("--ntasks-per-node=2", "Write --processes N"), ("--tasks-per-node=2", "Write --processes N"), ("--gpus-per-task=1", "Write --gpus N"),
    ("--gpu-bind=closest", "must see all GPUs"), ("-D /tmp", "Submit it from there"), ("--wait", "job's id at once"),
    ("--parsable", "job's id at once"),
    ("--test-only", "`fleet-rcnn check` asks"), ("--wrap=hostname", "Write shell commands into --setup"),
    ("--uid=0", "the job runs as the user"), ("-M other", "Submit from a login node of that cluster"),
    ("--nodes=1-2", "--nodes=1-2: one whole number"), ("--time=soon", "--time=soon: minutes, MM:SS"),
    ("--mem=lots", "a whole number with K, M"),
    ("--signal=HUP@20", "one of TERM, INT, USR1, USR2"),
    ("--signal=9", "one of TERM"), ("--gpus-per-node=a:1,b:2", "one type and a number"),
    ("--gres=gpu:a:1,gpu:b:2", "one type of GPU"), ("--cpus-per-task=0", "a whole number of at least 1"),
    ("--distribution=arbitrary", "the first process must be on the first node"), ("--cpus-per-gpu=2", "--cores N")])
def test_what_cannot_be_stated_is_refused_with_the_reason(option, message):
    assert message in error_of(f"--sbatch={option}")


@pytest.mark.parametrize("option, expected", [
    ("--time=90", {"hours": 1.5}), ("-t 1-12", {"hours": 36}), ("--time=01:30:00", {"hours": 1.5}), ("--time=90:00", {"hours": 1.5}),
    ("--time=1-00:30", {"hours": 24.5}), ("--time=2-0:0:0", {"hours": 48}), ("-N2", {"nodes": 2}), ("--nodes=2-2", {"nodes": 2}),
    ("--gpus-per-node=4", {"gpus": 4}), ("--gpus-per-node=a100:4", {"gpus": 4, "gpu_type": "a100"}), ("--gres=gpu:2", {"gpus": 2}),
    ("--gres=gpu:a100:2", {"gpus": 2, "gpu_type": "a100"}),
    ("--gres=gpu", {"gpus": 1}), ("-c 7", {"cores": 7}), ("--mem=200G", {"memory_gib": 200}),
    ("--mem=1536", {"memory_gib": 1.5}), ("--mem=1T", {"memory_gib": 1024}), ("--mem-per-cpu=512M", {"memory_per_core_gib": 0.5}),
    ("-p main,high -A me -C a100", {"partition": "main,high", "account": "me", "constraint": "a100"}),
    ("--gres=gpu:2,lscratch:9", {"gpus": 2, "sbatch": ("--gres=lscratch:9",)}), ("--mem=0", {"sbatch": ("--mem=0",)}),
    ("--time=UNLIMITED", {"hours": math.inf, "sbatch": ("--time=UNLIMITED",)}), ("-G 4 -N 2", {"gpus": 2, "nodes": 2}),
    ("-G a100:4", {"gpus": 4, "gpu_type": "a100"}), ("--cpus-per-gpu=3 --gpus-per-node=2", {"cores": 3, "gpus": 2}),
    ("--signal=B:USR1@300", {"notice_s": 300, "sbatch": ("--signal=USR1@300",)}),
    ("--signal=SIGTERM", {"notice_s": 60, "sbatch": ("--signal=TERM@60",)})])
def test_options_with_a_field_become_resources_which_the_preflight_sees(option, expected):
    assert parse(f"--sbatch={option}") == Resources(**expected)


def test_gpus_may_have_a_type_on_the_command_line_and_in_the_file(tmp_path):
    file = tmp_path / "c.yaml"
    file.write_text("gpus: a100:8\nmemory_per_core_gib: 2\nsrun: --container-image=$HOME/x.sqsh\n")
    assert parse("--gpus", "a100:2") == Resources(gpus=2, gpu_type="a100")
    resources = parse("--cluster", str(file), "--gpus", "4", "--memory-gib", "9")
    assert (resources.gpus, resources.gpu_type, resources.memory_gib, resources.memory_per_core_gib) == (4, "a100", 9, 0)
    assert "$HOME" not in resources.srun[0] and resources.srun[0].startswith("--container-image=/")


def test_the_command_line_over_the_file_over_sbatch_variables_option_by_option(tmp_path, monkeypatch):
    monkeypatch.setenv("SBATCH_PARTITION", "site")
    monkeypatch.setenv("SBATCH_QOS", "site")
    monkeypatch.setenv("SBATCH_TIMELIMIT", "1-0")
    file = tmp_path / "c.yaml"
    file.write_text('sbatch: ["--qos=file --requeue", "--mem-per-cpu=2G", --time=60, -x n1]\n')
    assert parse() == Resources(partition="site", hours=24, sbatch=("--qos=site",))
    monkeypatch.setenv("SBATCH_TIMELIMIT", "90")
    assert parse().hours == 1.5
    resources = parse("--cluster", str(file), "--sbatch=--no-requeue",
                      "--partition", "mine", "--sbatch", "--mem-per-gpu=3G", "--hours", "2")
    assert set(resources.sbatch) == {"--qos=file", "--exclude=n1", "--no-requeue", "--mem-per-gpu=3G"}
    assert (resources.partition, resources.hours, resources.memory_per_core_gib) == ("mine", 2, 0)
    assert parse("--cluster", str(file)).sbatch == ("--qos=file", "--requeue", "--exclude=n1")


@pytest.mark.parametrize("options, message", [
    (["--hours", "3", "--sbatch=--time=2"], "--hours 3 and --sbatch=--time=2 contradict each other"),
    (["--gpus", "2", "--sbatch=--gres=gpu:4"], "--gpus 2 and --sbatch=--gres=gpu:4 contradict"),
    (["--memory-gib", "2", "--sbatch=--mem-per-cpu=1G"], "--memory-gib 2 and --sbatch=--mem-per-cpu=1G contradict"),
    (["--sbatch=--requeue", "--sbatch=--no-requeue"], "contradict each other"), (["--sbatch=-q a -q b"], "contradict each other"),
    (["--notice-s", "30", "--sbatch=--signal=USR1@60"], "contradict each other")])
def test_two_statements_of_one_layer_must_not_contradict_each_other(options, message):
    assert message in error_of(*options)


def test_the_same_statement_twice_is_no_contradiction():
    assert parse("--hours", "2", "--sbatch=--time=120", "--sbatch=-p a", "--partition=a") == Resources(hours=2, partition="a")


def test_paths_of_a_cluster_file_may_hold_variables_and_the_home(tmp_path, monkeypatch):
    monkeypatch.setenv("SCRATCH", "/scratch/me")
    monkeypatch.setenv("HOME", "/home/me")
    monkeypatch.delenv("NOPE", raising=False)
    file = tmp_path / "c.yaml"
    file.write_text("shared: $SCRATCH\npython: ~/venv/bin/python\ncontainer: apptainer exec --bind ${SCRATCH}:/data ~/torch.sif\n")
    resources = parse("--cluster", str(file))
    assert (resources.shared, resources.python) == ("/scratch/me", "/home/me/venv/bin/python")
    assert resources.container == "apptainer exec --bind ${SCRATCH}:/data /home/me/torch.sif"  # a variable of the node
    file.write_text("shared: $NOPE/runs\n")
    assert "shared=$NOPE/runs: the environment variable NOPE is not set" in error_of("--cluster", str(file))


@pytest.mark.parametrize("command, message", [
    ("apptainer exec 'my torch.sif", "no closing quotation. Close every quote"), (" ", "no command")])
def test_a_container_command_is_read_before_the_job_is_queued(command, message):
    assert message in error_of("--container", command)


@pytest.mark.parametrize("option, message", [
    ("--ntasks=2", "the number of processes decides it"), ("--containerimage=x", "(did you mean --container-image?)"),

    ("--export=NONE", "need the variables of the job"),
    ("--qos=a", "Write it as --sbatch"), ("--kill-on-bad-exit=0", "the script states it")])
def test_options_of_srun_are_checked_as_well(option, message):
    assert parse("--srun=--container-image=nvcr.io#torch --mpi=pmix").srun == ("--container-image=nvcr.io#torch", "--mpi=pmix")
    assert message in error_of(f"--srun={option}")


def test_options_of_a_site_are_those_that_its_sbatch_lists(tmp_path, monkeypatch):
    monkeypatch.undo()
    program = tmp_path / "sbatch"
    program.write_text("#!/bin/sh\necho '      --lab-image=PATH         image'\necho '      --lab-mount[=PATH]   mount'\n")
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    assert parse_options(["--lab-image x --lab-mount --qos=a"]) == [("lab-image", "x"), ("lab-mount", ""), ("qos", "a")]
    with pytest.raises(BadInput, match="--lab-imag: sbatch has no such option"):
        parse_options(["--lab-imag x"])


@pytest.mark.skipif(not shutil.which("sbatch"), reason="no sbatch on this machine")
def test_the_table_agrees_with_the_sbatch_of_this_machine(tmp_path):
    (tmp_path / "slurm.conf").write_text("ClusterName=c\nSlurmctldHost=localhost\n")
    text = subprocess.run(["sbatch", "--help"], capture_output=True, text=True, env={"SLURM_CONF": str(tmp_path / "slurm.conf"),
                          "PATH": "/usr/bin:/bin"}).stdout
    listed = parse_help(text)
    assert set(listed) <= {*OPTIONS} and set(SHORT.values()) <= set(OPTIONS)
    assert len(listed) > 60 or not text


@pytest.mark.parametrize("value, quoted", [("a b", "'a b'"), ("a\\b", "'a\\\\b'"), ("x#1", "'x#1'"), ("long", "long")])
def test_values_are_quoted_as_sbatch_reads_lines_of_a_script(value, quoted):
    assert quote_value(value) == quoted


@pytest.mark.parametrize("program, text, options", [
    ("sbatch", "--part=main --no-req", [("partition", "main"), ("no-requeue", "")]),
    ("srun", "--wait=60 -l -u", [("wait", "60"), ("label", ""), ("unbuffered", "")])])
def test_options_may_be_shortened_and_those_of_srun_are_known(program, text, options):
    assert parse_options([text], program) == options


@pytest.mark.parametrize("option", ["--jobid=3", "--relative=1", "--pty", "-w node2", "--het-group=0"])
def test_a_step_stays_in_its_own_job(option):
    with pytest.raises(BadInput, match="cannot be stated"):
        parse_options([option], "srun")
