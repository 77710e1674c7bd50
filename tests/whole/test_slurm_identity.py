"""A job is itself on a real Slurm: whatever environment it is submitted from, whatever its name, and one job for each run."""

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest
from slurm_cluster import REPO, log, reached, until
from slurm_fixtures import BACKENDS, cluster, needs_slurm, runs  # noqa: F401

from launcher.run_info import job_records, last_job

pytestmark = needs_slurm

# Of an array task that was requeued once, of a notebook, and of torchrun.
FOREIGN = {"RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0", "MASTER_ADDR": "nowhere", "PET_NNODES": "3", "TORCHELASTIC_RUN_ID": "x",
           "SLURM_JOB_ID": "3", "SLURM_ARRAY_JOB_ID": "3", "SLURM_ARRAY_TASK_ID": "7", "SLURM_RESTART_COUNT": "1", "SLURM_NTASKS": "8",
           "SLURM_MEM_PER_CPU": "200", "SLURM_GPUS_PER_NODE": "2", "SLURM_CPU_BIND": "quiet,mask_cpu:0x1", "SBATCH_EXPORT": "NONE"}
CLEAN = ["--container", "env -i PATH=/usr/bin:/bin HOME=/root", "--sbatch=--export=NONE", "--memory-gib", "2"]
SHORT = ["schedule.steps=2", "evaluate.every_epochs=0", "data.val=[]"]


@pytest.fixture
def foreign(cluster, monkeypatch) -> None:
    monkeypatch.setattr(cluster, "environ", {**cluster.environ, **FOREIGN})


def odd_name(backend: str) -> str:
    return f"exp1/{backend}'s \"lr\" #1 50%j $HOME" if backend != "submitit" else "exp1/größe's \"lr\" #1 50%_ \\ $HOME"


def test_jobs_from_a_foreign_environment_train_in_clean_containers_under_odd_names(cluster, foreign, runs, tmp_path):
    script = cluster.fleet("train", *runs.arguments, *SHORT, "run.name=by-hand", *BACKENDS["srun"], "--processes", "1", "--memory-gib",
                           "2", "--dry-run")
    (tmp_path / "by-hand.sbatch").write_text(script[script.index("#!/bin/bash"):])
    jobs = {backend: cluster.submit(*runs.arguments, *SHORT, f"run.name={odd_name(backend)}", *BACKENDS[backend], *CLEAN, "--nodes",
                                    "2", "--processes", "1") for backend in BACKENDS}
    by_hand = cluster.call("sbatch", "--parsable", f"--output={runs.folder}/by-hand.log", str(tmp_path / "by-hand.sbatch")).strip()
    for backend, job in jobs.items():
        run = runs.folder / odd_name(backend)
        assert cluster.wait(job, run) == "COMPLETED", log(run)
        assert f"Slurm job {job} on node[1-2]: train" in log(run) and "finished: 2 of 2 steps" in log(run) and "submitit" not in log(run)
        assert {record["job"] for record in job_records(run)} == {job} and not (runs.folder / "exp1" / "exp1").exists()
    assert cluster.wait(by_hand, runs.folder / "by-hand") == "COMPLETED", (runs.folder / "by-hand.log").read_text()
    assert f"Slurm job {by_hand} on node" in (runs.folder / "by-hand.log").read_text()
    finished = cluster.fleet("train", *runs.arguments, *SHORT, f"run.name={odd_name('srun')}", "--on", "slurm", "--nodes", "2",
                             "--processes", "1")
    assert "is finished: 2 steps are done, and nothing is submitted" in finished


def test_a_run_has_one_job_and_a_stop_signal_to_its_batch_shell_alone_saves(cluster, runs, tmp_path):
    arguments = [*runs.arguments, "run.name=single", "schedule.steps=100000", "evaluate.every_epochs=0", *BACKENDS["srun"],
                 "--processes", "1"]
    run = runs.folder / "single"
    script = cluster.fleet("train", *arguments, "--dry-run")
    (tmp_path / "by-hand.sbatch").write_text(script[script.index("#!/bin/bash"):])
    with ThreadPoolExecutor() as pool:
        outputs = list(pool.map(lambda _: train(cluster, arguments), range(2)))
    assert sorted(output.count("submitted job") for output in outputs) == [0, 1], outputs
    job = last_job(run)
    until(lambda: reached(run, 1), 90, lambda: log(run))
    second = cluster.call("sbatch", "--parsable", f"--output={tmp_path}/second.log", str(tmp_path / "by-hand.sbatch")).strip()
    assert cluster.wait(second, run) == "FAILED" and last_job(run) == job
    assert f"belongs to job {job}, which is RUNNING: this job {second} ends" in (tmp_path / "second.log").read_text()
    cluster.call("scontrol", "update", f"JobId={job}", "Requeue=0")
    cluster.call("scancel", "--batch", "--signal=TERM", job)
    assert cluster.wait(job, run) == "FAILED" and "not requeued: the job was submitted with --no-requeue" in log(run)
    assert "saved step" in log(run) and list((run / "checkpoints").glob("step-*.pt"))


def train(cluster, arguments: list[str]) -> str:
    done = subprocess.run([sys.executable, "-m", "launcher.cli", "train", *arguments], env=cluster.environ, cwd=REPO,
                          capture_output=True, text=True)
    return done.stdout + done.stderr


def test_bad_input_and_a_failed_set_up_end_a_job_with_one_error_and_status_2(cluster, runs):
    jobs = {}
    for backend in BACKENDS:
        jobs[f"bad-{backend}"] = cluster.submit(*runs.arguments, f"run.name=bad-{backend}", "data.classes=[circle,unicorn]",
                                                *BACKENDS[backend], "--nodes", "2", "--processes", "2")
        jobs[f"setup-{backend}"] = cluster.submit(*runs.arguments, f"run.name=setup-{backend}", *BACKENDS[backend], "--processes", "1",
                                                  "--setup", "[ -f /nowhere ] && source /nowhere", "--setup", "conda activate mine")
    for name, job in jobs.items():
        run = runs.folder / name
        assert cluster.wait(job, run) == "FAILED", log(run)
        assert "ExitCode=2:0" in cluster.call("scontrol", "-o", "show", "job", job), log(run)
        expected = "unknown class unicorn" if name.startswith("bad") else "with exit status 127: conda activate mine"
        assert log(run).count(expected) == log(run).count("error: ") == 1 and "requeue" not in log(run), log(run)


def test_a_refused_submission_leaves_nothing_behind(cluster, runs):
    for backend in BACKENDS:
        output = cluster.fleet("train", *runs.arguments, f"run.folder={runs.folder}/new/folder", "run.name=a", *BACKENDS[backend],
                               "--sbatch=--constraint=nofeature", "--processes", "1", expected=2)
        assert "constraint" in output.lower() or "feature" in output.lower()
        assert not (runs.folder / "new").exists()
