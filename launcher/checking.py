"""fleet-rcnn check: what the launcher finds and what the detector finds, as one answer."""

import json
import subprocess
import sys

from detector.errors import BAD_INPUT, OK, BadInput
from launcher import preflight
from launcher.job import Job, Resources
from launcher.local import run_here
from launcher.record import run_of


def check(rest: list[str], wanted: Resources, on: str) -> int:
    """0, or 2 with something to mend. With --json among `rest` one JSON object for scripts."""
    words = tuple(word for word in rest if word != "--json")
    run, config = run_of("check", words)
    if on in ("slurm", "sbatch"):
        found, notes = preflight.problems(Job("train", words, wanted), run, config), preflight.notes(wanted)
    else:
        found, notes = preflight.local_problems(run), []
    if "--json" in rest:
        return check_for_scripts(words, found, notes)
    for note in notes:
        print(note)
    for problem in found:
        print(f"problem: {problem}")
    sys.stdout.flush()
    status = run_here(Job("check", words, Resources(1)))
    if found and status == OK:
        print(f"{len(found)} problem{'s' * (len(found) > 1)} above, none in the data")
    return BAD_INPUT if found and status == OK else status


def check_for_scripts(words: tuple[str, ...], found: list[preflight.Problem], notes: list[str]) -> int:
    done = subprocess.run(Job("check", (*words, "--json")).command(), capture_output=True, text=True)
    try:
        said = json.loads(done.stdout)
    except ValueError:
        if done.returncode == BAD_INPUT:  # it could not even begin
            raise BadInput(done.stderr.strip().removeprefix("error: ")) from None
        print(done.stderr, file=sys.stderr, end="")
        return done.returncode
    said["problems"] = [{"what": one.what, "why": one.why, "remedy": one.remedy} for one in found] + said["problems"]
    print(json.dumps({**said, "notes": notes}, indent=1))
    return BAD_INPUT if said["problems"] else OK
