"""The backend sbatch: fills a template of slurm/ and submits the script with sbatch."""

import contextlib
import dataclasses
import itertools
import math
import re
import shlex
import sys
import time
from pathlib import Path

from detector.config.load import dump
from detector.config.names import shipped_folder
from detector.errors import OK, BadInput, count_of
from detector.run.files import write_text
from launcher.arrays import (
    Row,
    allow_open_files,
    common_options,
    describe_cores,
    frozen_overrides,
    largest_cores,
    open_rows,
    read_rows,
    refuse_impossible_rows,
)
from launcher.backends import Backend
from launcher.clean_environment import submission_environment
from launcher.code_snapshot import take_snapshot
from launcher.job import Launch
from launcher.option_fields import format_memory
from launcher.preflight import rehearse_script, slurm_notes, slurm_problems
from launcher.run_info import add_job_record
from launcher.sbatch_options import option_text, quote_value
from launcher.slurm_commands import cancel_job, has_slurm, job_state, past_job_state, queued_jobs, slurm
from launcher.submission import Submission, plan_submission, submit_run
from launcher.submission_lock import lock_run, missing_folders, remove_if_failed


def script(launch: Launch) -> str:
    """Returns the batch script; nothing is written. Raises BadInput if the job could not run."""
    if not launch.array_file:
        if not has_slurm():
            print("note: this machine has no Slurm: no partition was asked whether it takes the job", file=sys.stderr)
        planned = plan_submission(launch.job, launch.command_line, has_slurm())
        return fill_template(launch.template, template_values(planned))
    rows = rows_to_submit(launch)
    return array_script(array_submissions(launch, rows, Path.cwd()), launch.array_limit) if rows else ""


def submit(launch: Launch) -> int:
    """Submits the job, or the job array. Raises BadInput if it could not run, or sbatch refuses it."""
    if launch.array_file:
        return submit_array(launch)
    return submit_run(launch, lambda submission: send(submission, launch.template), "sbatch")


def send(submission: Submission, template: str) -> str:
    """Writes the script of a submission into its run folder and submits it; returns the job id."""
    path = submission.run / "slurm" / f"{template}.sbatch"
    write_text(path, fill_template(template, template_values(submission)))
    return run_sbatch(path)


def submit_array(launch: Launch) -> int:
    """Submits a job array. A refusal leaves nothing behind.

    Code snapshot, configs, script and logs of the array lie in a folder of their own beside the run folders.
    """
    rows = rows_to_submit(launch)
    if not rows:
        print(f"--array {launch.array_file}: no row is left to submit")
        return OK
    folder = array_folder(rows[0].run.parent)
    missing = {path: missing_folders(path) for path in (*(row.run for row in rows), folder)}
    with contextlib.ExitStack() as locks, contextlib.ExitStack() as undo:
        for row in sorted(rows, key=lambda row: row.run)[:allow_open_files(len(rows))]:
            locks.enter_context(lock_run(row.run))
        for path in missing:
            undo.enter_context(remove_if_failed(path, missing[path]))
        open_rows(launch.array_file, rows, queued_jobs() or {}, only_failed=False)  # again, now that no other may start
        job = send_array(launch, rows, folder)
        undo.close()
        for index, row in enumerate(rows):
            add_job_record(row.run, job=f"{job}_{index}", verb=row.job.verb, log=f"{folder}/{job}_{index}.log",
                           backend="sbatch", command=launch.command_line)
    limit = f", at most {launch.array_limit} at a time" if launch.array_limit else ""
    print(f"submitted job {job}: {count_of(len(rows), 'run')}{limit}\n{describe_cores(rows)}\n"
          f"script and logs: {folder}")
    return OK


def rows_to_submit(launch: Launch) -> list[Row]:
    """Returns the rows of an array that have something to do; says on stderr which are left out, and why.

    Raises:
        BadInput: a row could not run, or has a job already.
    """
    rows = read_rows(launch.array_file, launch.job)
    refuse_impossible_rows(launch.array_file, rows)
    return open_rows(launch.array_file, rows, queued_jobs() or {}, launch.only_failed)


def array_folder(parent: Path) -> Path:
    """Returns the path of a folder that does not exist yet, for the files of an array."""
    name = f"array-{time.strftime('%Y%m%d-%H%M%S')}"
    paths = itertools.chain([parent / name], (parent / f"{name}-{count}" for count in itertools.count(2)))
    return next(path for path in paths if not path.exists())


def send_array(launch: Launch, rows: list[Row], folder: Path) -> str:
    """Writes the files of an array and submits it; returns the job id."""
    submissions = array_submissions(launch, rows, folder)
    if launch.job.resources.snapshot:
        path, options = common_options(launch.job)
        code, config = take_snapshot(folder / "code"), folder / f"{path.stem}.yaml"
        write_text(config, dump(options))
        jobs = [dataclasses.replace(row.job, arguments=(str(config), *frozen_overrides(row, options)))
                for row in rows]
        submissions = [dataclasses.replace(submission, job=job, code=code)
                       for submission, job in zip(submissions, jobs, strict=True)]
    write_text(folder / "array.sbatch", array_script(submissions, launch.array_limit))
    return run_sbatch(folder / "array.sbatch")


def array_submissions(launch: Launch, rows: list[Row], folder: Path) -> list[Submission]:
    """Returns the submission of each row, with the cores that the largest needs; `folder` is that of the logs."""
    cores = largest_cores(rows)
    return [Submission(row.job, row.run, cores, launch.command_line, f"{folder}/%A_%a.log", Path.cwd())
            for row in rows]


def array_script(rows: list[Submission], limit: int = 0) -> str:
    """Returns one script for several runs with equal resources, of which `limit` run at a time (0: all)."""
    first = rows[0]
    named = dataclasses.replace(first, run=first.run.with_name(f"{len(rows)}-runs"))
    lines = [f"    {shlex.quote(shlex.join(row.verb_and_arguments()))}" for row in rows]
    return fill_template("array", {**template_values(named), "functions": "\n".join(first.functions(is_array=True)),
                                   "rows": "\n".join(lines), "last": str(len(rows) - 1),
                                   "limit": f"%{limit}" if limit else ""})


def sbatch_options(submission: Submission) -> dict[str, str]:
    """Returns the options of sbatch for a job, name -> value, each of them once; a flag has the value "".

    Those of a template itself, ntasks-per-node, cpus-per-task and open-mode, are left out.
    """
    resources = submission.job.resources
    memory, memory_per_core = resources.memory_gib, resources.memory_per_core_gib
    gpu_type = f"{resources.gpu_type}:" if resources.gpu_type else ""
    own = {"job-name": submission.job_name, "output": submission.output, "chdir": submission.folder,
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
    return {"title": submission.title, "command_line": " ".join(submission.command_line.split("\n")),
            "functions": "\n".join(submission.functions()), "setup": "\n".join(submission.setup_lines()),
            "options": "\n".join(lines), "processes": str(processes),
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
    output = slurm("sbatch", str(path), environment=submission_environment())
    match = re.search(r"Submitted batch job (\d+)", output)
    if match is None:
        raise BadInput(f"sbatch {path} printed no job id, but: {output.strip()!r}. `squeue --me` shows whether the job "
                       "is in the queue")
    return match[1]


SBATCH = Backend(preflight=slurm_problems, notes=slurm_notes, script=script, submit=submit, queue=queued_jobs,
                 state=job_state, past_state=past_job_state, cancel=cancel_job, is_cluster=True, has_arrays=True,
                 rehearse=lambda launch: rehearse_script(script(launch)))
