"""A job is itself on a real Slurm: whatever environment it is submitted from, whatever its name, and one job for each run."""

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
from slurm_cluster import log, reached, until
from slurm_fixtures import BACKENDS, cluster, needs_slurm, runs  # noqa: F401

from launcher import cli
from launcher.run_info import job_records

pytestmark = needs_slurm

# Of an array task that was requeued once, of a notebook, and of torchrun.
FOREIGN = {"RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0", "MASTER_ADDR": "nowhere", "PET_NNODES": "3", "TORCHELASTIC_RUN_ID": "x",
           "SLURM_JOB_ID": "3", "SLURM_ARRAY_JOB_ID": "3", "SLURM_ARRAY_TASK_ID": "7", "SLURM_RESTART_COUNT": "1", "SLURM_NTASKS": "8",
           "SLURM_MEM_PER_CPU": "200", "SLURM_GPUS_PER_NODE": "2", "SLURM_CPU_BIND": "quiet,mask_cpu:0x1", "SBATCH_EXPORT": "NONE"}
CLEAN = ["--container", "env -i PATH=/usr/bin:/bin HOME=/root", "--sbatch=--export=NONE", "--memory-gib", "2"]
SHORT = ["schedule.steps=2", "evaluate.every_epochs=0", "data.val=[]"]


@pytest.fixture
def fleet(cluster, monkeypatch, capfd) -> Callable[..., str]:
    """fleet-rcnn in this process, which has imported torch already; returns what it prints: its notes, then its output."""
    for name, value in cluster.environ.items():
        monkeypatch.setenv(name, value)

    def run(*arguments: str, expected: int = 0) -> str:
        capfd.readouterr()
        status, printed = cli.main(["train", *arguments]), capfd.readouterr()
        output = printed.err + printed.out
        assert status == expected, output
        return output
    return run


def job_of(output: str) -> str:
    return output.partition("submitted job ")[2].partition(":")[0]


def odd_name(backend: str) -> str:
    return f"exp1/{backend}'s \"lr\" #1 50%j $HOME" if backend != "submitit" else "exp1/größe's \"lr\" #1 50%_ \\ $HOME"


def test_jobs_from_a_foreign_environment_train_in_clean_containers_under_odd_names(cluster, fleet, runs, tmp_path, monkeypatch):
    for name, value in FOREIGN.items():
        monkeypatch.setenv(name, value)
    arguments = {backend: [*runs.arguments, *SHORT, f"run.name={odd_name(backend)}", *BACKENDS[backend], *CLEAN, "--nodes", "2",
                           "--processes", "1"] for backend in BACKENDS}
    jobs = {backend: job_of(fleet(*arguments[backend])) for backend in ("submitit", "torchrun")}
    monkeypatch.setattr(cluster, "environ", {**os.environ})
    jobs["srun"] = submit_by_hand(cluster, fleet(*arguments["srun"], "--dry-run"), tmp_path)
    for backend, job in jobs.items():
        run, name = runs.folder / odd_name(backend), odd_name(backend).partition("/")[2]
        state = cluster.wait(job, run)
        output = (tmp_path / f"{job}.log").read_text() if backend == "srun" else log(run)
        assert state == "COMPLETED", output
        assert f"Slurm job {job} on node[1-2]: train {name}" in output and "finished: 2 of 2 steps" in output and "submitit" not in output
        assert {record["job"] for record in job_records(run)} == {job} and not (runs.folder / "exp1" / "exp1").exists()
    assert "is finished: 2 steps are done, and nothing is submitted" in fleet(*arguments["srun"])


def submit_by_hand(cluster, output: str, folder) -> str:
    """Submits the script that --dry-run has printed; its log is JOB.log in the folder. Returns the job id."""
    script = folder / "by-hand.sbatch"
    script.write_text(output[output.index("#!/bin/bash"):])
    return cluster.call("sbatch", "--parsable", f"--output={folder}/%j.log", str(script)).strip()


def test_a_run_has_one_job_and_a_stop_signal_to_its_batch_shell_alone_saves(cluster, fleet, runs, tmp_path, capfd):
    arguments = [*runs.arguments, "run.name=single", "schedule.steps=100000", "evaluate.every_epochs=0", *BACKENDS["srun"],
                 "--processes", "1"]
    run, script = runs.folder / "single", fleet(*arguments, "--dry-run")
    with ThreadPoolExecutor() as pool:
        statuses = list(pool.map(lambda _: cli.main(["train", *arguments]), range(2)))
    assert sorted(statuses) == [0, 2] and "single is in the queue already, as job" in capfd.readouterr().err
    job = job_records(run)[-1]["job"]
    until(lambda: reached(run, 1), 90, lambda: log(run))
    second = submit_by_hand(cluster, script, tmp_path)
    assert cluster.wait(second, run) == "FAILED" and job_records(run)[-1]["job"] == job
    assert f"belongs to job {job}, which is RUNNING: this job {second} ends" in (tmp_path / f"{second}.log").read_text()
    cluster.call("scontrol", "update", f"JobId={job}", "Requeue=0")
    cluster.call("scancel", "--batch", "--signal=TERM", job)
    assert cluster.wait(job, run) == "FAILED" and "not requeued: the job was submitted with --no-requeue" in log(run)
    assert "saved step" in log(run) and list((run / "checkpoints").glob("step-*.pt"))


def test_bad_input_and_a_failed_set_up_end_a_job_with_one_error_and_status_2(cluster, fleet, runs):
    setup = ["--setup", "[ -f /nowhere ] && source /nowhere", "--setup", "conda activate mine"]
    cases = {"bad": ["data.classes=[circle,unicorn]", *BACKENDS["submitit"], "--nodes", "2"], "setup": [*BACKENDS["srun"], *setup]}
    jobs = {name: job_of(fleet(*runs.arguments, f"run.name={name}", "--processes", "1", *case)) for name, case in cases.items()}
    for name, job in jobs.items():
        run = runs.folder / name
        assert cluster.wait(job, run) == "FAILED", log(run)
        assert "ExitCode=2:0" in cluster.call("scontrol", "-o", "show", "job", job), log(run)
        expected = "unknown class unicorn" if name == "bad" else "with exit status 127: conda activate mine"
        assert log(run).count(expected) == log(run).count("error: ") == 1 and "requeue" not in log(run), log(run)


def test_a_refused_submission_leaves_nothing_behind(fleet, runs):
    output = fleet(*runs.arguments, f"run.folder={runs.folder}/new/folder", "run.name=a", *BACKENDS["submitit"],
                           "--sbatch=--constraint=nofeature", "--processes", "1", expected=2)
    assert output.count("Invalid feature specification") == 1 and not (runs.folder / "new").exists()
