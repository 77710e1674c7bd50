"""fleet-rcnn check: what the launcher finds and what the detector finds, as one answer."""

import json
import subprocess
import sys
from dataclasses import asdict

from detector.checks.problems import Problem
from detector.errors import BAD_INPUT, OK, BadInput
from launcher import preflight
from launcher.backends.local import run_here
from launcher.job import Job, Resources
from launcher.run_info import run_of


def check(rest: list[str], wanted: Resources, on: str) -> int:
    """0, or 2 with something to mend. With --json among `rest` one JSON object for scripts.

    Where the launcher finds something already, the detector leaves out what takes long.
    """
    run, config = run_of("check", tuple(rest))
    words = tuple(word for word in rest if not word.startswith("-"))
    if on in ("slurm", "sbatch"):
        found, notes = preflight.problems(Job("train", words, wanted), run, config), preflight.notes(wanted)
    else:
        found, notes = preflight.local_problems(), []
    processes = wanted.world if on in ("slurm", "sbatch") else wanted.processes or wanted.gpus
    options = [*(["--processes", str(processes)] if processes else []), *(["--quick"] if found else [])]
    job = Job("check", (*rest, *options), Resources(1))
    if "--json" in rest:
        return check_for_scripts(job, found, notes)
    for note in notes:
        print(note)
    for problem in found:
        print(f"problem: {problem}")
    sys.stdout.flush()
    status = run_here(job)
    if found:
        print(f"{len(found)} problem{'s' * (len(found) > 1)} of launching, above the data")
    return BAD_INPUT if found and status == OK else status


def check_for_scripts(job: Job, found: list[Problem], notes: list[str]) -> int:
    done = subprocess.run(job.command(), capture_output=True, text=True)
    try:
        said = json.loads(done.stdout)
    except ValueError:
        if done.returncode == BAD_INPUT:  # it could not even begin
            raise BadInput(done.stderr.strip().removeprefix("error: ")) from None
        print(done.stderr, file=sys.stderr, end="")
        return done.returncode
    said["problems"] = [asdict(problem) for problem in found] + said["problems"]
    said["notes"] = notes + said["notes"]
    print(json.dumps(said, indent=1))
    return BAD_INPUT if said["problems"] else OK
