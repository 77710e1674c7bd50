"""The backend slurm: submits through submitit, with one task of srun for each process.

submitit itself is imported where it is used, so that jobs, logs and cancel answer at once.
"""

import contextlib
import io
import os
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from detector.errors import BAD_INPUT, OK, STOPPED, BadInput
from launcher import slurm_job
from launcher.backends import Backend
from launcher.backends.sbatch import sbatch_options
from launcher.clean_environment import submission_environment
from launcher.job import Launch
from launcher.preflight import rehearse_script, slurm_notes, slurm_problems
from launcher.rank_env import FIRST_PORT, PORTS
from launcher.slurm_commands import (
    SubmissionInterrupted,
    cancel_job,
    job_state,
    past_job_state,
    queued_jobs,
    submission_error,
)
from launcher.submission import Submission, plan_submission, submit_run

if TYPE_CHECKING:
    import submitit

# Lines of the batch script before srun, as in slurm/srun.sbatch: the batch shell ignores the stop signals, which are
# meant for the processes, and the first node is the rendezvous. submitit's own four lines of each rank are left out.
IGNORE_SIGNALS = "trap '' TERM INT HUP USR1 USR2"
BEFORE_SRUN = ('export MASTER_ADDR=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)',
               f"export MASTER_PORT=$(({FIRST_PORT} + SLURM_JOB_ID % {PORTS}))",
               ': "${MASTER_ADDR:?scontrol show hostnames names no host}"',
               "export SUBMITIT_LOG_LEVEL=ERROR")
LONGEST_LIMIT_MINUTES = 525600  # that submitit is told; Slurm gets the limit by sbatch_options
PATTERNS = ("%j", "%t", "%A", "%a")  # that submitit replaces in names of folders too


@dataclass(frozen=True)
class Task:
    """The callable that submitit pickles and runs in each task. Holds plain values only."""

    verb: str
    arguments: tuple[str, ...]

    def __call__(self) -> int:
        """Runs one rank. Without a result after an early stop or bad input: to submitit, the job is not complete."""
        status = slurm_job.run_rank(self.verb, self.arguments)
        if status != OK:
            raise SystemExit(OK if status in (STOPPED, BAD_INPUT) else status)
        return status


def run_pickled_task(folder: str) -> int:
    """Runs the task that submitit has pickled in a folder, in a task of srun. Returns 0, or raises SystemExit."""
    from submitit.core.submission import process_job
    slurm_job.work_in_submission_folder()
    process_job(folder)
    return OK


def script(launch: Launch) -> str:
    """Returns the batch script that submitit would write. Raises BadInput if the job could not run."""
    return render(plan_submission(launch.job, launch.command_line))


def render(submission: Submission) -> str:
    """Returns the batch script of a submission."""
    slurm_executor = build_executor(submission)._executor  # submitit has no public function that returns the script
    return slurm_executor._make_submission_file_text(slurm_executor._submitit_command_str, "")


def submit(launch: Launch) -> int:
    """Submits the job. Raises BadInput if it could not run, or sbatch refuses it."""
    return submit_run(launch, send, "slurm")


def send(submission: Submission) -> str:
    """Submits what freeze_submission returned, and returns the job id. Raises BadInput if sbatch refuses it."""
    from submitit.core.utils import FailedJobError, FailedSubmissionError
    executor, task = build_executor(submission), Task(submission.job.verb, submission.job.arguments)
    try:
        with environment_of_sbatch(), contextlib.redirect_stderr(io.StringIO()):  # submitit prints the error as well
            return executor.submit(task).job_id
    except (FailedJobError, FailedSubmissionError) as error:
        raise submission_error(" ".join(str(error).split())) from error
    except KeyboardInterrupt:
        raise SubmissionInterrupted from None


@contextlib.contextmanager
def environment_of_sbatch() -> Iterator[None]:
    """A context in which the environment of this process, which submitit hands to sbatch, is that of a submission."""
    before = dict(os.environ)
    cleaned = submission_environment(before)
    for name in before.keys() - cleaned.keys():
        del os.environ[name]
    try:
        yield
    finally:
        os.environ.update(before)


def build_executor(submission: Submission) -> "submitit.AutoExecutor":
    """Returns the executor with all options of the submission. Raises BadInput where there is no Slurm."""
    import submitit
    if any(pattern in str(submission.run) for pattern in PATTERNS):
        raise BadInput(f"the run folder {submission.run} holds one of {', '.join(PATTERNS)}, which submitit replaces. "
                       "Set another run.name or run.folder, or use --on sbatch")
    resources, folder = submission.job.resources, Path(submission.log).parent
    batch, run = shlex.join(submission.batch_command()), shlex.join(submission.verb_and_arguments())
    python = shlex.join([*submission.task_command(), "submitit"])  # submitit adds: -u -m submitit.core._submit FOLDER
    try:
        executor = submitit.AutoExecutor(folder, cluster="slurm", slurm_python=python)
    except RuntimeError as error:
        raise BadInput(f"submitit: {error} Use a login node of the Slurm cluster, or start a test cluster with "
                       "slurm/local-cluster") from error
    executor.update_parameters(
        name=submission.job_name, nodes=resources.nodes, tasks_per_node=resources.processes_per_node,
        cpus_per_task=submission.cores, timeout_min=int(min(resources.time_limit_minutes, LONGEST_LIMIT_MINUTES)),
        slurm_stderr_to_stdout=True,
        slurm_setup=[*submission.functions(), *submission.setup_lines(), IGNORE_SIGNALS,
                     f"{batch} begin {run} || exit", *BEFORE_SRUN],
        slurm_srun_args=["--export=ALL", "--kill-on-bad-exit=1", f"--cpus-per-task={submission.cores}",
                         "--output=all", *resources.srun],
        slurm_teardown=[f"{batch} end $? {run}"],
        slurm_additional_parameters=additional_parameters(submission))
    return executor


def additional_parameters(submission: Submission) -> dict[str, str | bool]:
    """Returns the options of sbatch as submitit takes them: they replace its parameters of the same names."""
    return {name.replace("-", "_"): value.replace("\\", "\\\\") or True
            for name, value in sbatch_options(submission).items()}


SUBMITIT = Backend(preflight=slurm_problems, notes=slurm_notes, script=script, submit=submit, queue=queued_jobs,
                   state=job_state, past_state=past_job_state, cancel=cancel_job, is_cluster=True,
                   rehearse=lambda launch: rehearse_script(script(launch)))
