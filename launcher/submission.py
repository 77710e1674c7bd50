"""What goes to Slurm: one verb of one run, its code and config as they are now, and what it asks for."""

import dataclasses
import shlex
import sys
from dataclasses import dataclass
from pathlib import Path

from detector.config.load import to_yaml
from detector.errors import BadInput, listed
from detector.run.lock import refuse_second_start
from launcher.code_snapshot import take_snapshot
from launcher.job import CODE, Job, counted, program, starter
from launcher.preflight import folder_problems, problems
from launcher.run_info import jobs_of, run_of, write_whole
from launcher.slurm_commands import job_state

OVER = ("BOOT_FAIL", "CANCELLED", "COMPLETED", "DEADLINE", "FAILED", "NODE_FAIL", "OUT_OF_MEMORY", "TIMEOUT", "UNKNOWN")


@dataclass(frozen=True)
class Submission:
    job: Job             # its arguments as the job will see them
    run: Path            # the run folder
    cores: int           # of each process
    said: str            # what the user typed
    log: str             # Slurm puts the number of the job in place of %j
    folder: Path         # where the job starts, so that relative paths mean what they meant
    code: Path = CODE

    @property
    def title(self) -> str:
        wanted = self.job.resources
        where = f"each of {wanted.nodes} nodes" if wanted.nodes > 1 else "one node"
        return f"{self.job.verb} {self.run.name} in {counted(wanted.per_node, 'process', 'processes')} on {where}"

    def fleet(self) -> list[str]:
        """Starts launcher.slurm_job on the batch host, outside of any container."""
        return starter(self.code, "launcher.slurm_job")

    def task(self) -> list[str]:
        """The same for the processes."""
        wanted = self.job.resources
        return [*shlex.split(wanted.container), *starter(self.code, "launcher.slurm_job", wanted.python)]

    def torchrun(self) -> list[str]:
        wanted = self.job.resources
        return [*shlex.split(wanted.container), wanted.python or sys.executable, "-m", "torch.distributed.run"]

    def program(self) -> list[str]:
        return program(self.code, "launcher.slurm_job")

    def words(self) -> list[str]:
        return [self.job.verb, *self.job.arguments]

    def setup(self) -> list[str]:
        """Lines of shell that come first."""
        wanted = self.job.resources
        copy = (self.code / "__main__.py").is_file()
        path = [] if copy else [f"export PYTHONPATH={shlex.quote(str(self.code))}${{PYTHONPATH:+:$PYTHONPATH}}"]
        return [*path, *(f"module load {name}" for name in wanted.modules), *wanted.setup]


def plan(job: Job, said: str) -> Submission:
    """What would be submitted; nothing is written. Raises BadInput with all that stands against it."""
    run, config = run_of(job.verb, job.arguments)
    found = [*folder_problems(run), *problems(job, run, config)]
    if found:
        raise listed("this cannot be submitted", [str(problem) for problem in found])
    cores = job.resources.cores or config.run.num_workers + 1
    return Submission(job, run, cores, said, f"{Path.cwd()}/{run.name}-%j.log", Path.cwd())


def settle(planned: Submission, code: Path | None = None) -> Submission:
    """The same with log, config and code in the run folder, where they stay as they are now."""
    run, job = planned.run, planned.job
    refuse_second(run)
    code = code or (take_snapshot(run / "code") if job.resources.snapshot else planned.code)
    if job.verb == "evaluate":
        job = dataclasses.replace(job, arguments=(str(run), *job.arguments[1:]))
    elif job.resources.snapshot:
        _, config = run_of(job.verb, job.arguments)
        whole = dataclasses.replace(config, run=dataclasses.replace(config.run, folder=str(run.parent)))
        write_whole(run / "slurm" / "config.yaml", to_yaml(whole))
        job = dataclasses.replace(job, arguments=(str(run / "slurm" / "config.yaml"),))
    return dataclasses.replace(planned, job=job, code=code, log=f"{run}/slurm/%j.log")


def refuse_second(run: Path) -> None:
    """Two jobs must not write into one run folder, nor a job and a process that was started by hand."""
    for name in {line["job"] for line in jobs_of(run)}:
        state = job_state(name)["JobState"]
        if state not in OVER:
            raise BadInput(f"{run.name} is in the queue already, as job {name} ({state}). Wait for it, take it out "
                           f"with `fleet-rcnn cancel {run}`, or start another run with run.name=...")
    refuse_second_start(run)
