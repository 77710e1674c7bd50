"""A submission to Slurm: one verb of one run with its code, config and log, shared by the backends of Slurm."""

import dataclasses
import shlex
import sys
from dataclasses import dataclass
from pathlib import Path

from detector.config.load import to_yaml
from detector.errors import BadInput, combine_mistakes
from detector.run.files import write_text
from detector.run.lock import refuse_second_start
from launcher.backends import load_backend
from launcher.code_snapshot import take_snapshot
from launcher.job import CODE, Job, count_of, package_arguments, python_command
from launcher.preflight import cores_per_process, run_folder_problems, slurm_problems
from launcher.run_info import backend_of, job_records, resolve_run


@dataclass(frozen=True)
class Submission:
    """A job as Slurm gets it. The methods return parts of the batch script."""

    job: Job           # with the arguments that the job is started with
    run: Path          # the run folder
    cores: int         # CPU cores per process
    command_line: str  # as typed by the user
    log: str           # path of the log; Slurm replaces %j by the job id
    folder: Path       # working directory: relative paths keep their meaning
    code: Path = CODE  # folder that holds the packages

    @property
    def title(self) -> str:
        resources = self.job.resources
        where = f"each of {resources.nodes} nodes" if resources.nodes > 1 else "one node"
        processes = count_of(resources.processes_per_node, "process", "processes")
        return f"{self.job.verb} {self.run.name} in {processes} on {where}"

    def batch_command(self) -> list[str]:
        """Returns the command of launcher.slurm_job on the batch host, outside of any container."""
        return python_command(self.code, "launcher.slurm_job")

    def task_command(self) -> list[str]:
        """Returns the command of launcher.slurm_job in a task of srun, inside the container."""
        resources = self.job.resources
        return [*shlex.split(resources.container),
                *python_command(self.code, "launcher.slurm_job", resources.python)]

    def torchrun_command(self) -> list[str]:
        """Returns the command of torchrun in a task of srun, inside the container."""
        resources = self.job.resources
        return [*shlex.split(resources.container), resources.python or sys.executable, "-m", "torch.distributed.run"]

    def program(self) -> list[str]:
        """Returns the arguments of python, or of torchrun, that run launcher.slurm_job."""
        return package_arguments(self.code, "launcher.slurm_job")

    def verb_and_arguments(self) -> list[str]:
        return [self.job.verb, *self.job.arguments]

    def setup_lines(self) -> list[str]:
        """Returns the lines of shell that come first: the import path, environment modules, the user's own lines."""
        resources = self.job.resources
        is_snapshot = (self.code / "__main__.py").is_file()
        path = f"export PYTHONPATH={shlex.quote(str(self.code))}${{PYTHONPATH:+:$PYTHONPATH}}"
        return [*([] if is_snapshot else [path]), *(f"module load {name}" for name in resources.modules),
                *resources.setup]


def plan_submission(job: Job, command_line: str) -> Submission:
    """Returns what would be submitted; writes nothing.

    Raises:
        BadInput: with every reason why the job could not run.
    """
    run, config = resolve_run(job.verb, job.arguments)
    problems = [*run_folder_problems(run), *slurm_problems(job, run, config)]
    if problems:
        raise combine_mistakes("this cannot be submitted", [str(problem) for problem in problems])
    return Submission(job, run, cores_per_process(job.resources, config), command_line,
                      f"{Path.cwd()}/{run.name}-%j.log", Path.cwd())


def freeze_submission(planned: Submission, code: Path | None = None) -> Submission:
    """Writes code snapshot and config into the run folder; returns the submission that uses them and logs there.

    Args:
        code: a snapshot that exists already, shared by the runs of an array.

    Raises:
        BadInput: another job or process is training the run, or the run folder cannot be written.
    """
    run, job = planned.run, planned.job
    refuse_second_job(run)
    code = code or (take_snapshot(run / "code") if job.resources.snapshot else planned.code)
    if job.verb == "evaluate":
        job = dataclasses.replace(job, arguments=(str(run), *job.arguments[1:]))
    elif job.resources.snapshot:
        _, config = resolve_run(job.verb, job.arguments)
        absolute = dataclasses.replace(config, run=dataclasses.replace(config.run, folder=str(run.parent)))
        write_text(run / "slurm" / "config.yaml", to_yaml(absolute))
        job = dataclasses.replace(job, arguments=(str(run / "slurm" / "config.yaml"),))
    return dataclasses.replace(planned, job=job, code=code, log=f"{run}/slurm/%j.log")


def print_submitted(job: str, log: str, submission: Submission) -> None:
    """Prints the job id, and where its log and its run folder are."""
    print(f"submitted job {job}: {submission.title}\nlog: {log}\nrun: {submission.run}\n"
          f"follow it with: fleet-rcnn logs {submission.run} --follow")


def refuse_second_job(run: Path) -> None:
    """Raises BadInput if a submitted job or a process writes into the run folder already."""
    backend = load_backend(backend_of(run))
    for job in {record["job"] for record in job_records(run)}:
        state = backend.state(job)
        if not state.over:
            raise BadInput(f"{run.name} is in the queue already, as job {job} ({state.name}). Wait for it, remove it "
                           f"with `fleet-rcnn cancel {run}`, or start another run with run.name=...")
    refuse_second_start(run)
