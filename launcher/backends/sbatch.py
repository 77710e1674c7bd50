"""Fills a template of slurm/ and hands it to sbatch."""

import dataclasses
import re
import shlex
import time
from pathlib import Path

from detector.config.load import shipped_folder
from detector.errors import BadInput
from launcher.code_snapshot import take_snapshot
from launcher.run_info import note_job, write_whole
from launcher.slurm_commands import slurm
from launcher.submission import Submission, settle

TEMPLATES = ("torchrun", "srun")  # one task for each node, or one for each process


def options(submission: Submission) -> list[tuple[str, str]]:
    """What is asked for, as options of sbatch; what a template decides by itself is not among them."""
    wanted = submission.job.resources
    stated = [("job-name", submission.run.name), ("output", submission.log), ("chdir", submission.folder),
              ("nodes", wanted.nodes), ("gpus-per-node", wanted.gpus), ("time", wanted.minutes),
              ("mem", f"{wanted.memory_gib}G" if wanted.memory_gib else ""), ("partition", wanted.partition),
              ("account", wanted.account), ("constraint", wanted.constraint)]
    return [(name, str(value)) for name, value in stated if value]


def values(submission: Submission) -> dict[str, str]:
    """What stands in a template in double braces, by name."""
    wanted = submission.job.resources
    lines = [*(f"--{name}={shlex.quote(value)}" for name, value in options(submission)), *wanted.sbatch]
    return {"title": submission.title, "said": submission.said, "setup": "\n".join(submission.setup()),
            "options": "\n".join(f"#SBATCH {line}" for line in lines), "processes": str(wanted.per_node),
            "cores": str(submission.cores), "node_cores": str(submission.cores * wanted.per_node),
            "notice_s": str(wanted.notice_s), "fleet": shlex.join(submission.fleet()),
            "task": shlex.join(submission.task()), "torchrun": shlex.join(submission.torchrun()),
            "program": shlex.join(submission.program()), "run": shlex.join(submission.words())}


def fill(template: str, said: dict[str, str]) -> str:
    """The text of slurm/TEMPLATE.sbatch with its values; a line that holds but an empty value goes."""
    text = (shipped_folder() / "slurm" / f"{template}.sbatch").read_text(encoding="utf-8")
    for name, value in said.items():
        if not value:
            text = text.replace(f"{{{{{name}}}}}\n", "")
        text = text.replace(f"{{{{{name}}}}}", value)
    return text


def render(submission: Submission, template: str) -> str:
    return fill(template, values(submission))


def render_array(rows: list[Submission]) -> str:
    """One script for several runs. They ask for the same; each has its own config."""
    first = rows[0]
    named = dataclasses.replace(first, run=first.run.with_name(f"{len(rows)}-runs"))
    lines = [f"    {shlex.quote(shlex.join(row.words()))}" for row in rows]
    return fill("array", {**values(named), "rows": "\n".join(lines), "last": str(len(rows) - 1)})


def submit(submission: Submission, template: str) -> tuple[str, Path]:
    """Writes the script into the run folder and submits it; gives the number of the job and its log."""
    settled = settle(submission)
    script = settled.run / "slurm" / f"{template}.sbatch"
    write_whole(script, render(settled, template))
    number = hand_over(script)
    log = settled.log.replace("%j", number)
    note_job(settled.run, job=number, verb=settled.job.verb, log=log)
    return number, Path(log)


def submit_array(rows: list[Submission]) -> tuple[str, Path]:
    """The same for an array, which has a folder of its own beside its runs, for code, script and logs."""
    folder = rows[0].run.parent / f"array-{time.strftime('%Y%m%d-%H%M%S')}"
    code = take_snapshot(folder / "code") if rows[0].job.resources.snapshot else rows[0].code
    settled = [dataclasses.replace(settle(row, code), log=f"{folder}/%A_%a.log") for row in rows]
    write_whole(folder / "array.sbatch", render_array(settled))
    number = hand_over(folder / "array.sbatch")
    for index, row in enumerate(settled):
        note_job(row.run, job=f"{number}_{index}", verb=row.job.verb, log=f"{folder}/{number}_{index}.log")
    return number, folder


def hand_over(script: Path) -> str:
    """sbatch; gives the number of the job. Raises BadInput with sbatch's own words."""
    said = slurm("sbatch", str(script))
    found = re.search(r"Submitted batch job (\d+)", said)
    if found is None:
        raise BadInput(f"sbatch {script} said: {said.strip()!r}, which names no job")
    return found[1]
