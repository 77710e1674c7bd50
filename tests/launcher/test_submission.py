"""Parts of a submission: names and paths that Slurm reads, and the shell of the set-up."""

import subprocess
import time
from dataclasses import replace
from pathlib import Path

import pytest

from launcher.job import Job, Resources
from launcher.submission import Submission, safe_name


def submission(run: str = "/runs/a", **resources) -> Submission:
    return Submission(Job("train", ("c.yaml",), Resources(**resources)), Path(run), 1, "fleet-rcnn train", f"{run}/slurm/%j.log",
                      Path("/"), Path("/nowhere"))


@pytest.mark.parametrize("run, output, log", [
    ("/runs/a", "/runs/a/slurm/%j.log", "/runs/a/slurm/12.log"),
    ("/my runs/50%j #1", "/my runs/50%%j #1/slurm/%j.log", "/my runs/50%j #1/slurm/12.log"),
    ("/runs/it's", "/runs/it's/slurm/%j.log", "/runs/it's/slurm/12.log"),
    ("/runs/a\\b", "/dev/null", "/runs/a\\b/slurm/12.log")])
def test_slurm_writes_the_log_into_a_folder_of_any_name(run, output, log):
    assert submission(run).output == output and submission(run).log_of("12") == log


def test_a_log_that_slurm_cannot_open_is_opened_by_the_script(tmp_path):
    folder = tmp_path / "it's a\\b"
    folder.mkdir()
    array = replace(submission(), log=f"{folder}/%A_%a.log")
    line, = array.redirection()
    subprocess.run(["bash", "-c", f"{line}\necho text"], env={"SLURM_ARRAY_JOB_ID": "3", "SLURM_ARRAY_TASK_ID": "4"}, check=True)
    assert (folder / "3_4.log").read_text() == "text\n" and submission().redirection() == []


@pytest.mark.parametrize("name, safe", [
    ("r50", "r50"), ("größe_数据", "größe_数据"), ("lr=0.1,b", "lr=0.1,b"), ("it's #1 50%\\", "it_s_1_50_")])
def test_a_job_name_has_no_character_with_a_meaning(name, safe):
    assert safe_name(name) == safe


MODULE = '''module() { case $2 in
    none/1) echo "ERROR:105: Unable to locate a modulefile" >&2 ;;
    bad/1) return 1 ;;
    *) export LOADEDMODULES=$LOADEDMODULES${LOADEDMODULES:+:}$2/1.0 ;;
esac; }; export LOADEDMODULES=gcc/12'''


@pytest.mark.parametrize("resources, error", [
    ({}, ""),
    ({"modules": ("cuda",)}, ""), ({"modules": ("gcc",)}, ""), ({"modules": ("gcc/12",)}, ""), ({"modules": ("cuda", "cuda")}, ""),
    ({"modules": ("bad/1",)}, "with exit status 1: module load bad/1"),
    ({"modules": ("none/1",)}, "with exit status 1: module load none/1"),  # an old module command returns 0
    ({"setup": ("conda activate nosuch",)}, "with exit status 127: conda activate nosuch"),
    ({"setup": ("source /nowhere/activate",)}, "with exit status 1: source /nowhere/activate"),
    ({"setup": ("source fails.sh",)}, "with exit status 3: source fails.sh"),
    ({"setup": ("if true; then", "  false", "fi")}, "with exit status 1:   false"),
    ({"setup": ("exit 3",)}, "with exit status 3: exit 3"), ({"setup": ("exit 0",)}, "with exit status 0: exit 0"),
    ({"setup": ("set -u; echo $nothing",)}, "with exit status 1: echo $nothing"),
    ({"setup": ("false || true", "[ -f /nowhere ] && source /nowhere", "set -eu", "# a comment", "source harmless.sh", "A='two", "lines'")},
     ""),
])
def test_a_set_up_line_that_fails_ends_the_job_with_an_error_that_names_it(resources, error, tmp_path):
    (tmp_path / "fails.sh").write_text("true\n(exit 3)\n")
    (tmp_path / "harmless.sh").write_text("set +e\nfalse\n[ -n \"${PS1-}\" ]\ntrue\n")
    parts = submission(**resources)
    script = tmp_path / "job.sh"
    script.write_text("\n".join([MODULE, *parts.functions(), *parts.setup_lines(), "false", "echo $unset begun"]))
    done = subprocess.run(["bash", str(script)], capture_output=True, text=True, cwd=tmp_path,
                          env={"PATH": "/usr/bin:/bin", "SLURMD_NODENAME": "n1"})
    if error:
        assert done.returncode == 2 and done.stdout == "" and f"the set-up of the job failed on n1 {error}" in done.stderr
    else:
        assert (done.returncode, done.stdout, done.stderr) == (0, "begun\n", "")


def test_scripts_unset_the_variables_of_other_jobs_and_those_of_arrays_keep_their_own():
    names = ("RANK", "PET_NNODES", "TORCHELASTIC_RUN_ID", "SLURM_MEM_PER_CPU", "SLURM_CPU_BIND_TYPE", "SLURM_ARRAY_TASK_ID", "RANKING")
    left = {}
    for is_array in (False, True):
        code = "\n".join([*submission().functions(is_array), "env"])
        output = subprocess.run(["bash", "-c", code], capture_output=True, text=True, env=dict.fromkeys(names, "1")).stdout
        left[is_array] = {name for name in names if f"{name}=" in output.splitlines() or f"{name}=1" in output.splitlines()}
    assert left == {False: {"RANKING"}, True: {"RANKING", "SLURM_ARRAY_TASK_ID"}}


def test_a_stop_signal_to_the_shell_alone_is_passed_on_by_srun_and_the_status_is_that_of_srun(tmp_path):
    program = tmp_path / "srun"
    program.write_text("#!/bin/bash\ntrap 'echo passed on; exit 7' USR1\necho started\nfor i in $(seq 600); do sleep 0.1; done\n")
    program.chmod(0o755)
    code = "\n".join([*submission().functions(), "srun a b", "echo ended with $?", "kill -TERM $$", "echo ignored"])
    process = subprocess.Popen(["bash", "-c", code], stdout=subprocess.PIPE, text=True, env={"PATH": f"{tmp_path}:/usr/bin:/bin"})
    assert process.stdout.readline() == "started\n"
    time.sleep(0.5)
    process.terminate()
    assert process.communicate(timeout=60)[0] == "passed on\nended with 7\nignored\n"
