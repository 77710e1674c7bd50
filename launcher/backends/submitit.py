"""Slurm through submitit: one task for each process."""

import os
import shlex
import sys
from dataclasses import dataclass
from pathlib import Path

import submitit

from detector.errors import OK, STOPPED, BadInput
from launcher import slurm_job
from launcher.backends.sbatch import options
from launcher.rank_env import FIRST_PORT, PORTS
from launcher.run_info import note_job
from launcher.submission import Submission, settle

# Of the batch script around submitit's srun. As in slurm/srun.sbatch: the stop signals are for the processes, and the
# first node is where all meet.
MEETING = ("trap '' TERM USR1 USR2",
           'export MASTER_ADDR=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)',
           f"export MASTER_PORT=$(({FIRST_PORT} + SLURM_JOB_ID % {PORTS}))",
           ': "${MASTER_ADDR:?scontrol show hostnames names no host}"')


@dataclass(frozen=True)
class Task:
    """What submitit keeps and starts in each task: names, no objects."""

    verb: str
    arguments: tuple[str, ...]
    folder: str

    def __call__(self) -> int:
        """One rank. Where it stopped early it ends without a result, by which submitit knows that there is more."""
        os.chdir(self.folder)
        status = slurm_job.one_rank(self.verb, self.arguments)
        if status != OK:
            raise SystemExit(OK if status == STOPPED else status)
        return status


def executor(submission: Submission) -> submitit.AutoExecutor:
    """Raises BadInput where there is no Slurm."""
    wanted, place = submission.job.resources, Path(submission.log).parent
    fleet, words = shlex.join(submission.fleet()), shlex.join(submission.words())
    python = shlex.join([*submission.task(), "blocked", wanted.python or sys.executable])
    try:
        made = submitit.AutoExecutor(place, cluster="slurm", slurm_python=python)
    except RuntimeError as error:
        raise BadInput(f"submitit: {error} Do this on a login node of the Slurm cluster, or try it with "
                       "slurm/local-cluster") from error
    stated = dict(options(submission))
    further = {name: stated[name] for name in ("output", "chdir") if name in stated}
    for option in wanted.sbatch:  # --qos=long or --exclusive
        name, _, value = option.lstrip("-").partition("=")
        further[name] = value or True
    optional = {"gpus_per_node": wanted.gpus, "mem_gb": wanted.memory_gib, "slurm_partition": wanted.partition,
                "slurm_account": wanted.account, "slurm_constraint": wanted.constraint}
    made.update_parameters(
        name=submission.run.name, nodes=wanted.nodes, tasks_per_node=wanted.per_node, cpus_per_task=submission.cores,
        timeout_min=wanted.minutes, slurm_signal_delay_s=wanted.notice_s, slurm_stderr_to_stdout=True,
        slurm_setup=[*submission.setup(), *MEETING, f"{fleet} begin {words} || exit",
                     f"cd {shlex.quote(str(submission.code))}"],  # here Python finds this code first
        slurm_srun_args=["--kill-on-bad-exit=1", f"--cpus-per-task={submission.cores}", "--open-mode=append",
                         f"--output={submission.log}"],
        slurm_teardown=[f"status=$?; cd {shlex.quote(str(submission.folder))}", f"{fleet} end $status {words}"],
        slurm_additional_parameters={"requeue": True, **further},
        **{name: value for name, value in optional.items() if value})
    return made


def render(submission: Submission) -> str:
    """The script that submitit makes."""
    slurm = executor(submission)._executor  # has no public way to show it
    return slurm._make_submission_file_text(slurm._submitit_command_str, "")


def submit(submission: Submission) -> tuple[str, Path]:
    """Gives the number of the job and its log."""
    settled = settle(submission)
    task = Task(settled.job.verb, settled.job.arguments, str(settled.folder))
    try:
        number = executor(settled).submit(task).job_id
    except (submitit.core.utils.FailedJobError, submitit.core.utils.FailedSubmissionError) as error:
        raise BadInput(f"sbatch refused: {' '.join(str(error).split())}") from error
    log = settled.log.replace("%j", number)
    note_job(settled.run, job=number, verb=settled.job.verb, log=log)
    return number, Path(log)
