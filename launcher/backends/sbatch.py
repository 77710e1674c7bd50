"""The backend sbatch: fills a template of slurm/ and submits the script with sbatch."""

import dataclasses
import math
import re
import shlex
import time
from pathlib import Path

from detector.config.load import shipped_folder
from detector.errors import OK, BadInput
from detector.run.files import write_text
from launcher.backends import Backend
from launcher.code_snapshot import take_snapshot
from launcher.job import Job, Launch
from launcher.option_fields import format_memory
from launcher.preflight import slurm_notes, slurm_problems
from launcher.run_info import add_job_record, resolve_run
from launcher.sbatch_options import option_text, quote_value
from launcher.slurm_commands import cancel_job, job_state, queued_jobs, slurm
from launcher.submission import Submission, freeze_submission, plan_submission, print_submitted


def script(launch: Launch) -> str:
    """Returns the batch script; nothing is written. Raises BadInput if the job could not run."""
    if not launch.array_file:
        return fill_template(launch.template, template_values(plan_submission(launch.job, launch.command_line)))
    rows = [plan_submission(job, launch.command_line) for job in array_jobs(launch)]
    return array_script([dataclasses.replace(row, log="array-%A_%a.log") for row in rows])


def submit(launch: Launch) -> int:
    """Submits the job, or the job array. Raises BadInput if it could not run, or sbatch refuses it."""
    if launch.array_file:
        return submit_array(launch)
    frozen = freeze_submission(plan_submission(launch.job, launch.command_line))
    path = frozen.run / "slurm" / f"{launch.template}.sbatch"
    write_text(path, fill_template(launch.template, template_values(frozen)))
    job = run_sbatch(path)
    log = frozen.log.replace("%j", job)
    add_job_record(frozen.run, job=job, verb=frozen.job.verb, log=log, backend="sbatch")
    print_submitted(job, log, frozen)
    return OK


def submit_array(launch: Launch) -> int:
    """Submits a job array. Its code snapshot, script and logs lie in a folder of their own beside the run folders."""
    planned = [plan_submission(job, launch.command_line) for job in array_jobs(launch)]
    first = planned[0]
    folder = first.run.parent / f"array-{time.strftime('%Y%m%d-%H%M%S')}"
    code = take_snapshot(folder / "code") if first.job.resources.snapshot else first.code
    rows = [dataclasses.replace(freeze_submission(row, code), log=f"{folder}/%A_%a.log") for row in planned]
    write_text(folder / "array.sbatch", array_script(rows))
    job = run_sbatch(folder / "array.sbatch")
    for index, row in enumerate(rows):
        add_job_record(row.run, job=f"{job}_{index}", verb=row.job.verb, log=f"{folder}/{job}_{index}.log",
                       backend="sbatch")
    print(f"submitted job {job}, {len(rows)} runs\nscript and logs: {folder}")
    return OK


def array_jobs(launch: Launch) -> list[Job]:
    """Returns one job for each line of the array file: the arguments of the command line, then those of the line.

    Raises:
        BadInput: the file cannot be read, has no line, or two lines have the same run folder.
    """
    file, job = launch.array_file, launch.job
    try:
        lines = [line.split("#")[0].strip() for line in Path(file).read_text(encoding="utf-8").splitlines()]
    except OSError as error:
        raise BadInput(f"--array {file}: {error.strerror}. Name a file with one line of key=value ... for each run"
                       ) from error
    jobs = [dataclasses.replace(job, arguments=(*job.arguments, *shlex.split(line))) for line in lines if line]
    if not jobs:
        raise BadInput(f"--array {file}: no line of key=value ... in this file")
    runs = [str(resolve_run(row.verb, row.arguments)[0]) for row in jobs]
    repeated = sorted({run for run in runs if runs.count(run) > 1})
    if repeated:
        raise BadInput(f"--array {file}: several lines have the same run folder, {', '.join(repeated)}. Give each line "
                       "its own run.name=...")
    return jobs


def array_script(rows: list[Submission]) -> str:
    """Returns one script for several runs. All have the resources of the first, each has its own config."""
    first = rows[0]
    named = dataclasses.replace(first, run=first.run.with_name(f"{len(rows)}-runs"))
    lines = [f"    {shlex.quote(shlex.join(row.verb_and_arguments()))}" for row in rows]
    return fill_template("array", {**template_values(named), "rows": "\n".join(lines), "last": str(len(rows) - 1),
                                   "limit": ""})


def sbatch_options(submission: Submission) -> dict[str, str]:
    """Returns the options of sbatch for a job, name -> value, each of them once; a flag has the value "".

    Those of a template itself, ntasks-per-node, cpus-per-task and open-mode, are left out.
    """
    resources = submission.job.resources
    memory, memory_per_core = resources.memory_gib, resources.memory_per_core_gib
    gpu_type = f"{resources.gpu_type}:" if resources.gpu_type else ""
    own = {"job-name": submission.run.name, "output": submission.log, "chdir": submission.folder,
           "nodes": resources.nodes, "gpus-per-node": f"{gpu_type}{resources.gpus}" if resources.gpus else "",
           "time": "" if math.isinf(resources.hours) else resources.time_limit_minutes,
           "mem": format_memory(memory) if memory else "",
           "mem-per-cpu": format_memory(memory_per_core) if memory_per_core else "",
           "partition": resources.partition, "account": resources.account, "constraint": resources.constraint}
    stated = dict(option.removeprefix("--").partition("=")[::2] for option in resources.sbatch)
    requeue = {} if "no-requeue" in stated else {"requeue": ""}
    return {**{name: str(value) for name, value in own.items() if value}, **requeue,
            "signal": f"USR2@{resources.notice_s}", **stated}


def template_values(submission: Submission) -> dict[str, str]:
    """Returns the values of the names in double braces of a template."""
    resources, options = submission.job.resources, sbatch_options(submission)
    processes = resources.processes_per_node
    requeue = next(name for name in ("no-requeue", "requeue") if options.pop(name, None) is not None)
    signal = options.pop("signal")
    lines = [f"#SBATCH {option_text(name, quote_value(value) if value else '')}" for name, value in options.items()]
    return {"title": submission.title, "command_line": submission.command_line,
            "setup": "\n".join(submission.setup_lines()), "options": "\n".join(lines), "processes": str(processes),
            "cores": str(submission.cores), "node_cores": str(submission.cores * processes),
            "requeue": requeue, "signal": signal, "srun": "".join(f" {shlex.quote(arg)}" for arg in resources.srun),
            "fleet": shlex.join(submission.batch_command()),
            "task": shlex.join(submission.task_command()), "torchrun": shlex.join(submission.torchrun_command()),
            "program": shlex.join(submission.program()), "run": shlex.join(submission.verb_and_arguments())}


def fill_template(template: str, values: dict[str, str]) -> str:
    """Returns the text of slurm/TEMPLATE.sbatch with its values; a line with nothing but an empty value is removed."""
    text = (shipped_folder() / "slurm" / f"{template}.sbatch").read_text(encoding="utf-8")
    for name, value in values.items():
        placeholder = f"{{{{{name}}}}}"
        if not value:
            text = text.replace(f"\n{placeholder}\n", "\n")
        text = text.replace(placeholder, value)
    return text


def run_sbatch(path: Path) -> str:
    """Submits a script and returns the job id. Raises BadInput with the message of sbatch if it is refused."""
    output = slurm("sbatch", str(path))
    match = re.search(r"Submitted batch job (\d+)", output)
    if match is None:
        raise BadInput(f"sbatch {path} printed no job id, but: {output.strip()!r}. `squeue --me` shows whether the job "
                       "is in the queue")
    return match[1]


SBATCH = Backend(preflight=slurm_problems, notes=slurm_notes, script=script, submit=submit, queue=queued_jobs,
                 state=job_state, cancel=cancel_job, is_cluster=True, has_arrays=True)
