"""The backend slurm: submits through submitit, with one task of srun for each process.

submitit itself is imported where it is used, so that jobs, logs and cancel answer at once.
"""

import os
import shlex
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from detector.errors import OK, STOPPED, BadInput
from launcher import slurm_job
from launcher.backends import Backend
from launcher.backends.sbatch import sbatch_options
from launcher.job import Launch
from launcher.preflight import slurm_notes, slurm_problems
from launcher.rank_env import FIRST_PORT, PORTS
from launcher.run_info import add_job_record
from launcher.slurm_commands import cancel_job, job_state, queued_jobs
from launcher.submission import Submission, freeze_submission, plan_submission, print_submitted

if TYPE_CHECKING:
    import submitit

# Lines of the batch script before srun, as in slurm/srun.sbatch: the batch shell ignores the stop signals, which are
# meant for the processes, and the first node is the rendezvous.
BEFORE_SRUN = ("trap '' TERM USR1 USR2",
               'export MASTER_ADDR=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)',
               f"export MASTER_PORT=$(({FIRST_PORT} + SLURM_JOB_ID % {PORTS}))",
               ': "${MASTER_ADDR:?scontrol show hostnames names no host}"')

LONGEST_LIMIT_MINUTES = 525600  # that submitit is told; Slurm gets the limit by sbatch_options


@dataclass(frozen=True)
class Task:
    """The callable that submitit pickles and runs in each task. Holds plain values only."""

    verb: str
    arguments: tuple[str, ...]
    folder: str  # working directory

    def __call__(self) -> int:
        """Runs one rank. After an early stop the task exits without a result: to submitit, the job is not complete."""
        os.chdir(self.folder)
        status = slurm_job.run_rank(self.verb, self.arguments)
        if status != OK:
            raise SystemExit(OK if status == STOPPED else status)
        return status


def script(launch: Launch) -> str:
    """Returns the batch script that submitit would write. Raises BadInput if the job could not run."""
    return render(plan_submission(launch.job, launch.command_line))


def render(submission: Submission) -> str:
    """Returns the batch script of a submission."""
    slurm_executor = build_executor(submission)._executor  # submitit has no public function that returns the script
    return slurm_executor._make_submission_file_text(slurm_executor._submitit_command_str, "")


def submit(launch: Launch) -> int:
    """Submits the job. Raises BadInput if it could not run, or sbatch refuses it."""
    from submitit.core.utils import FailedJobError, FailedSubmissionError
    frozen = freeze_submission(plan_submission(launch.job, launch.command_line))
    task = Task(frozen.job.verb, frozen.job.arguments, str(frozen.folder))
    try:
        job = build_executor(frozen).submit(task).job_id
    except (FailedJobError, FailedSubmissionError) as error:
        raise BadInput(f"sbatch refused the job: {' '.join(str(error).split())}") from error
    log = frozen.log.replace("%j", job)
    add_job_record(frozen.run, job=job, verb=frozen.job.verb, log=log, backend="slurm")
    print_submitted(job, log, frozen)
    return OK


def build_executor(submission: Submission) -> "submitit.AutoExecutor":
    """Returns the executor with all options of the submission. Raises BadInput where there is no Slurm."""
    import submitit
    resources, folder = submission.job.resources, Path(submission.log).parent
    batch, run = shlex.join(submission.batch_command()), shlex.join(submission.verb_and_arguments())
    python = shlex.join([*submission.task_command(), "blocked", resources.python or sys.executable])
    try:
        executor = submitit.AutoExecutor(folder, cluster="slurm", slurm_python=python)
    except RuntimeError as error:
        raise BadInput(f"submitit: {error} Use a login node of the Slurm cluster, or start a test cluster with "
                       "slurm/local-cluster") from error
    executor.update_parameters(
        name=submission.run.name, nodes=resources.nodes, tasks_per_node=resources.processes_per_node,
        cpus_per_task=submission.cores, timeout_min=int(min(resources.time_limit_minutes, LONGEST_LIMIT_MINUTES)),
        slurm_stderr_to_stdout=True,
        slurm_setup=[*submission.setup_lines(), *BEFORE_SRUN, f"{batch} begin {run} || exit",
                     f"cd {shlex.quote(str(submission.code))}"],  # Python imports the packages from here first
        slurm_srun_args=["--kill-on-bad-exit=1", f"--cpus-per-task={submission.cores}", "--open-mode=append",
                         f"--output={submission.log}", *resources.srun],
        slurm_teardown=[f"status=$?; cd {shlex.quote(str(submission.folder))}", f"{batch} end $status {run}"],
        slurm_additional_parameters=additional_parameters(submission))
    return executor


def additional_parameters(submission: Submission) -> dict[str, str | bool]:
    """Returns the options of sbatch as submitit takes them: they replace its parameters of the same names."""
    return {name.replace("-", "_"): value.replace("\\", "\\\\") or True
            for name, value in sbatch_options(submission).items()}


SUBMITIT = Backend(preflight=slurm_problems, notes=slurm_notes, script=script, submit=submit, queue=queued_jobs,
                   state=job_state, cancel=cancel_job, is_cluster=True)
