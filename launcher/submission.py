"""A submission to Slurm: one verb of one run with its code, config and log, shared by the backends of Slurm."""

import dataclasses
import os
import re
import shlex
import sys
import textwrap
from dataclasses import dataclass
from operator import attrgetter
from pathlib import Path
from typing import Callable

from detector.config.load import load_config, to_yaml
from detector.config.names import shipped_folder
from detector.config.options import auto_options, replace_options
from detector.config.schema import Config
from detector.errors import OK, BadInput, combine_mistakes, count_of
from detector.run.files import CONFIG_FILE, write_text
from detector.run.lock import refuse_second_start
from detector.run.status import read_status
from launcher.backends import load_backend
from launcher.clean_environment import foreign_variables
from launcher.code_snapshot import take_snapshot
from launcher.job import CODE, Job, Launch, package_arguments, python_command
from launcher.preflight import cores_per_process, job_problems, run_folder_problems, slurm_problems
from launcher.rank_env import LOG_PATTERNS
from launcher.run_info import add_job_record, backend_of, job_records, resolve_run
from launcher.submission_lock import lock_run, missing_folders, remove_if_failed

# Lines of shell around the set-up: a line that fails, or exits, ends the job; see slurm/job_functions.sh.
BEFORE_SETUP = ("trap 'setup_line_failed $? $LINENO ${#BASH_SOURCE[@]}' ERR",
                "trap 'setup_failed $? \"$BASH_COMMAND\"' EXIT")
AFTER_SETUP = "trap - ERR EXIT; set +eu"


@dataclass(frozen=True)
class Submission:
    """A job as Slurm gets it. The methods return parts of the batch script."""

    job: Job           # with the arguments that the job is started with
    run: Path          # the run folder
    cores: int         # CPU cores per process
    command_line: str  # as typed by the user
    log: str           # path of the log; in the name of the file, Slurm replaces %j by the job id
    folder: Path       # working directory: relative paths keep their meaning
    code: Path = CODE  # folder that holds the packages

    @property
    def title(self) -> str:
        resources = self.job.resources
        where = f"each of {resources.nodes} nodes" if resources.nodes > 1 else "one node"
        processes = count_of(resources.processes_per_node, "process", "processes")
        return f"{self.job.verb} {self.run.name} in {processes} on {where}"

    @property
    def job_name(self) -> str:
        """The name of the run, without characters that Slurm or a shell could read as something else."""
        return safe_name(self.run.name)

    @property
    def output(self) -> str:
        """The log as a value of sbatch's --output, in which the names of folders may hold no pattern.

        Slurm fills in no pattern in a path with a backslash: `redirection` opens such a log.
        """
        folder, name = os.path.split(self.log)
        return os.devnull if "\\" in folder else f"{folder.replace('%', '%%')}/{name}"

    def log_of(self, job: str) -> str:
        """Returns the path of the log of the job with this id."""
        folder, name = os.path.split(self.log)
        return f"{folder}/{name.replace('%j', job)}"

    def redirection(self) -> list[str]:
        """Returns the line of shell that opens the log where Slurm cannot."""
        folder, name = os.path.split(self.log)
        for pattern, variable in LOG_PATTERNS.items():
            name = name.replace(pattern, f'"{variable}"')
        return [f"exec >>{shlex.quote(folder)}/{name} 2>&1"] if self.output == os.devnull else []

    def batch_command(self) -> list[str]:
        """Returns the command of launcher.slurm_job on a host, outside of any container."""
        return python_command(self.code, "launcher.slurm_job")

    def container_command(self) -> list[str]:
        """Returns the command that runs the command after it in the container; empty without a container."""
        container = self.job.resources.container
        return [*self.batch_command(), "enter", container] if container else []

    def task_command(self) -> list[str]:
        """Returns the command of launcher.slurm_job in a task of srun, inside the container."""
        return [*self.container_command(),
                *python_command(self.code, "launcher.slurm_job", self.job.resources.python)]

    def torchrun_command(self) -> list[str]:
        """Returns the command of torchrun in a task of srun, inside the container."""
        return [*self.container_command(), self.job.resources.python or sys.executable, "-m", "torch.distributed.run"]

    def program(self) -> list[str]:
        """Returns the arguments of python, or of torchrun, that run launcher.slurm_job."""
        return package_arguments(self.code, "launcher.slurm_job")

    def verb_and_arguments(self) -> list[str]:
        return [self.job.verb, *self.job.arguments]

    def functions(self, is_array: bool = False) -> list[str]:
        """Returns the lines of shell that come first: they open the log, unset foreign variables, define functions."""
        text = (shipped_folder() / "slurm" / "job_functions.sh").read_text(encoding="utf-8")
        names = " \\\n    ".join(textwrap.wrap(" ".join(foreign_variables(is_array)), 100))
        return [*self.redirection(), text.replace("{{foreign}}", names).rstrip()]

    def setup_lines(self) -> list[str]:
        """Returns the lines of shell before the job begins: the import path, environment modules, the user's lines."""
        resources = self.job.resources
        is_snapshot = (self.code / "__main__.py").is_file()
        path = f"export PYTHONPATH={shlex.quote(str(self.code))}${{PYTHONPATH:+:$PYTHONPATH}}"
        commands = [*(f"load_module {name}" for name in resources.modules), *resources.setup]
        return [*([] if is_snapshot else [path]), *([*BEFORE_SETUP, *commands, AFTER_SETUP] if commands else [])]


def plan_submission(job: Job, command_line: str, has_cluster: bool = True) -> Submission:
    """Returns what would be submitted; writes nothing.

    Args:
        has_cluster: ask the cluster for its partitions; without it, the script is for another machine.

    Raises:
        BadInput: with every reason why the job could not run.
    """
    run, config = resolve_run(job.verb, job.arguments)
    problems_of = slurm_problems if has_cluster else job_problems
    problems = [*run_folder_problems(run), *problems_of(job, run, config)]
    if problems:
        raise combine_mistakes("this cannot be submitted", [str(problem) for problem in problems])
    return Submission(job, run, cores_per_process(job.resources, config), command_line,
                      f"{Path.cwd()}/{safe_name(run.name)}-%j.log", Path.cwd())


def submit_run(launch: Launch, send: Callable[[Submission], str], backend: str) -> int:
    """Submits the job of a run and records it; returns the exit status. A refusal leaves nothing behind.

    A training that is finished is not submitted, because its job would only say so.

    Args:
        send: submits what it is given, and returns the job id.
        backend: the value of --on.

    Raises:
        BadInput: the job could not run, another one trains the run, or `send` is refused.
    """
    planned = plan_submission(launch.job, launch.command_line)
    run, missing = planned.run, missing_folders(planned.run)
    if launch.job.verb == "train" and is_finished(run, resolve_run("train", launch.job.arguments)[1]):
        print(f"{run} is finished: {read_status(run)['step']} steps are done, and nothing is submitted. For more, set "
              "schedule.steps; for another run, set run.name")
        return OK
    with lock_run(run):
        with remove_if_failed(run, missing):
            frozen = freeze_submission(planned)
            job = send(frozen)
        add_job_record(run, job=job, verb=frozen.job.verb, log=frozen.log_of(job), backend=backend,
                       command=launch.command_line)
    print_submitted(job, frozen.log_of(job), frozen)
    return OK


def is_finished(run: Path, config: Config) -> bool:
    """Returns whether a run has reached its last step with this config, apart from the options in `run`.

    The config in the run folder holds the values that the run has derived for options that are `auto`.
    """
    if read_status(run).get("state") != "finished" or not (run / CONFIG_FILE).is_file():
        return False
    try:
        trained = load_config(str(run / CONFIG_FILE))
    except BadInput:
        return False
    derived = {option: attrgetter(option)(trained) for option in auto_options(config)}
    return dataclasses.replace(replace_options(config, derived), run=trained.run) == trained


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
        folder = Path(os.path.expanduser(config.run.folder)).absolute()  # run.name may name a folder too
        absolute = dataclasses.replace(config, run=dataclasses.replace(config.run, folder=str(folder)))
        write_text(run / "slurm" / "config.yaml", to_yaml(absolute))
        job = dataclasses.replace(job, arguments=(str(run / "slurm" / "config.yaml"),))
    return dataclasses.replace(planned, job=job, code=code, log=f"{run}/slurm/%j.log")


def safe_name(name: str) -> str:
    """Returns a name in which each character that Slurm or a shell could read as something else is replaced by _."""
    return re.sub(r"[^\w.,+=@:-]+", "_", name)


def print_submitted(job: str, log: str, submission: Submission) -> None:
    """Prints the job id, and where its log and its run folder are."""
    print(f"submitted job {job}: {submission.title}\nlog: {log}\nrun: {submission.run}\n"
          f"follow it with: fleet-rcnn logs {shlex.quote(str(submission.run))} --follow")


def refuse_second_job(run: Path) -> None:
    """Raises BadInput if a submitted job or a process writes into the run folder already."""
    backend = load_backend(backend_of(run))
    for job in {record["job"] for record in job_records(run)}:
        state = backend.state(job)
        if not state.over:
            raise BadInput(f"{run.name} is in the queue already, as job {job} ({state.name}). Wait for it, remove it "
                           f"with `fleet-rcnn cancel {shlex.quote(str(run))}`, or start another run with run.name=...")
    refuse_second_start(run)
