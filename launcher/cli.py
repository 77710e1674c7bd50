"""fleet-rcnn VERB ...: checks what can be checked here, then starts the detector where it shall run."""

import argparse
import dataclasses
import shlex
import sys
from pathlib import Path
from typing import Callable

from detector.config.load import load_config
from detector.errors import BAD_INPUT, OK, BadInput
from launcher import check, jobs, resources
from launcher.backends import sbatch
from launcher.backends.local import nothing, processes_here, run_here, run_torchrun, torchrun_command
from launcher.hang_watch import Watch, patience_s
from launcher.job import Job, Resources
from launcher.reproduce import reproduce
from launcher.run_info import run_of
from launcher.submission import refuse_second

VERBS = {  # what it needs, what it does
    "train": ("CONFIG [key=value ...]", "train a config, or go on with its run"),
    "check": ("CONFIG [key=value ...]", "say what is wrong with a config and its data, before anything runs"),
    "evaluate": ("RUN [key=value ...]", "score a run's checkpoint on its validation data"),
    "score": ("DETECTIONS.json ANNOTATIONS", "score any detector's COCO-format results, without a model"),
    "compare": ("RUN_A RUN_B", "is the difference between two evaluated runs real?"),
    "predict": ("RUN SOURCE", "draw what it finds in an image, a folder, a video or camera:0"),
    "view": ("CONFIG | anchors CONFIG", "the data as the network will see it; what its anchors reach"),
    "export": ("RUN --format onnx|torchscript|weights", "its detector for other programs"),
    "data": ("list | get NAME", "the data sets of the tables: which there are, and how they come here"),
    "reproduce": ("ROW [--seeds 3] [key=value ...]", "train and test a row of the published tables"),
    "tables": ("[--markdown|--html|--csv|--models]", "the published tables, printed and measured"),
    "options": ("", "every option of a config, with default and reason"),
    "jobs": ("", "runs and what became of them"),
    "logs": ("RUN [--follow]", "what a run prints"),
    "cancel": ("RUN", "take a run out of Slurm's queue; it saves what it has"),
}
LAUNCHED = ("train", "evaluate")         # run in several processes, and where --on says
OWN = ("check", "jobs", "logs", "cancel")  # what the launcher answers, or helps to
PLACES = ("here", "torchrun", "slurm", "sbatch")


def parser() -> argparse.ArgumentParser:
    verbs = "\n".join(f"  {verb:9} {needs:37}  {about}" for verb, (needs, about) in VERBS.items())
    top = argparse.ArgumentParser(
        prog="fleet-rcnn", formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False,
        usage="fleet-rcnn VERB ... [--on here|torchrun|slurm|sbatch] [options]",
        description=f"Trains Faster R-CNN detectors.\n\nverbs:\n{verbs}\n\n"
        "fleet-rcnn VERB --help tells more of one verb. A config is a YAML file or the name of one that ships\n"
        "with the package, such as custom/bccd. Exit status: 0 done, 2 bad input, 75 stopped early (start\n"
        "again to go on).")
    top.add_argument("verb", choices=VERBS, metavar="VERB", help="what to do")
    where = top.add_argument_group("where train and evaluate run")
    where.add_argument("--on", choices=PLACES, default="here", help="here: processes of this machine; torchrun: here, "
                       "under torchrun; slurm: through submitit; sbatch: a script of its own")
    where.add_argument("--dry-run", action="store_true", help="print the script or the command; submit nothing")
    where.add_argument("--template", choices=sbatch.TEMPLATES, default=sbatch.TEMPLATES[0],
                       help="of --on sbatch: one task for each node, or for each process")
    where.add_argument("--array", metavar="FILE", default="",
                       help="of --on sbatch: a run for each of its lines, which are key=value ...")
    where.add_argument("--cluster", metavar="FILE", default="", help="one's own site; default: "
                       "~/.config/fleet-rcnn/cluster.yaml. configs/cluster/example.yaml shows its keys")
    resources.add_options(top.add_argument_group("what they may use; a cluster file may say the same"))
    followed(top.add_argument_group("jobs, logs, cancel"))
    return top


def followed(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--folder", default="runs", help="where runs live; default: runs")
    group.add_argument("--follow", action="store_true", help="of logs: go on as the run does")


def main(arguments: list[str] | None = None) -> int:
    arguments = sys.argv[1:] if arguments is None else arguments
    if arguments[:1] == ["reproduce"]:
        return reproduce(arguments[1:], main)
    if len(arguments) > 1 and arguments[0] in VERBS and {"-h", "--help"} & set(arguments):
        return help_of(arguments[0])
    if arguments and arguments[0] in VERBS and arguments[0] not in (*LAUNCHED, *OWN):
        return run_here(Job(arguments[0], tuple(arguments[1:]), Resources()))  # its options are its own
    said, rest = parser().parse_known_args(arguments)
    try:
        return act(said, rest, f"fleet-rcnn {shlex.join(arguments)}")
    except BadInput as error:
        print(f"error: {error}", file=sys.stderr)
        return BAD_INPUT


def help_of(verb: str) -> int:
    if verb in ("jobs", "logs", "cancel"):
        needs, about = VERBS[verb]
        usage = f"fleet-rcnn {' '.join(filter(None, (verb, needs)))} [--folder FOLDER]"
        own = argparse.ArgumentParser(usage=usage, description=about)
        followed(own.add_argument_group("how"))
        own.print_help()
        return OK
    status = run_here(Job(verb, ("--help",), Resources(1)))
    if verb in LAUNCHED:
        print("\nWhere it runs, and on what: fleet-rcnn --help")
    return status


def act(said: argparse.Namespace, rest: list[str], typed: str) -> int:
    if said.verb == "jobs":
        return jobs.jobs(Path(said.folder))
    if said.verb in ("logs", "cancel"):
        if not rest:
            raise BadInput(f"{said.verb} which run? Name its folder, or its name below {said.folder}/")
        run = jobs.known_run(rest[0], Path(said.folder))
        return jobs.logs(run, said.follow) if said.verb == "logs" else jobs.cancel(run)
    on_slurm = said.on in ("slurm", "sbatch")
    wanted = resources.resources(said, on_slurm)
    if said.verb == "check":
        return check.check(rest, wanted, said.on)
    refuse_what_does_not_go_together(said, wanted)
    if on_slurm:
        return submit(said, Job(said.verb, tuple(rest), wanted), typed)
    job = Job(said.verb, tuple(rest), on_this_machine(said.verb, rest, wanted))
    if said.dry_run:
        print(shlex.join(torchrun_command(job) if said.on == "torchrun" else job.command()))
        return OK
    if job.verb == "train" and job.arguments:
        refuse_second(run_of(job.verb, job.arguments)[0])
    return run_torchrun(job) if said.on == "torchrun" else run_here(job, watch(job))


def refuse_what_does_not_go_together(said: argparse.Namespace, wanted: Resources) -> None:
    several = said.on != "here" or wanted.processes > 1 or wanted.gpus > 1 or said.array or said.dry_run
    if several and said.verb not in LAUNCHED:
        raise BadInput(f"{said.verb} runs in one process, here: leave out --on, --processes and the like")
    if said.on in ("here", "torchrun") and wanted.nodes > 1:
        raise BadInput(f"--nodes {wanted.nodes}: several machines need --on slurm or --on sbatch")
    if said.array and (said.on != "sbatch" or said.verb != "train"):
        raise BadInput("--array is for train --on sbatch")


def on_this_machine(verb: str, rest: list[str], wanted: Resources) -> Resources:
    """As many processes as asked for, or as the machine has GPUs. Mistakes in a config are told here, once."""
    words = [word for word in rest if not word.startswith("-")]
    overrides = [word for word in words[1:] if "=" in word]
    wish = 1 if "--time" in rest else wanted.processes or wanted.gpus
    if verb == "evaluate" and words and Path(words[0]).is_dir():
        config = load_config(str(Path(words[0]) / "config.yaml"), overrides)
        return Resources(processes_here(wish, config.run.device, most=0))
    if verb == "train" and words:
        config = load_config(words[0], words[1:])
        return Resources(processes_here(wish, config.run.device, config.batch.size))
    return Resources(wish)


def watch(job: Job) -> Callable[[], None]:
    if job.verb != "train" or not job.arguments:
        return nothing
    run, config = run_of(job.verb, job.arguments)
    return Watch(run, patience_s(config))


def submit(said: argparse.Namespace, job: Job, typed: str) -> int:
    """Hands a job to Slurm, or shows what it would hand over; says where to look."""
    from launcher.backends import submitit  # submitit takes a while
    from launcher.submission import plan
    if said.array:
        rows = [plan(row, typed) for row in rows_of(said.array, job)]
        if said.dry_run:
            print(sbatch.render_array([dataclasses.replace(row, log="array-%A_%a.log") for row in rows]), end="")
            return OK
        number, folder = sbatch.submit_array(rows)
        print(f"submitted job {number}, {len(rows)} runs\nscript and logs: {folder}")
        return OK
    planned = plan(job, typed)
    if said.dry_run:
        print(submitit.render(planned) if said.on == "slurm" else sbatch.render(planned, said.template), end="")
        return OK
    number, log = submitit.submit(planned) if said.on == "slurm" else sbatch.submit(planned, said.template)
    print(f"submitted job {number}: {planned.title}\nlog: {log}\nrun: {planned.run}\n"
          f"follow it with: fleet-rcnn logs {planned.run} --follow")
    return OK


def rows_of(file: str, job: Job) -> list[Job]:
    """A job for each line of the file: what was typed, and the key=value of the line."""
    try:
        lines = [line.split("#")[0].strip() for line in Path(file).read_text(encoding="utf-8").splitlines()]
    except OSError as error:
        raise BadInput(f"--array {file}: {error.strerror}") from error
    rows = [dataclasses.replace(job, arguments=(*job.arguments, *shlex.split(line))) for line in lines if line]
    runs = [str(run_of(row.verb, row.arguments)[0]) for row in rows]
    shared = sorted({run for run in runs if runs.count(run) > 1})
    if not rows:
        raise BadInput(f"--array {file}: it holds no line of key=value ...")
    if shared:
        raise BadInput(f"--array {file}: several lines lead to one run folder, {', '.join(shared)}. Give each a "
                       "run.name=...")
    return rows


if __name__ == "__main__":
    sys.exit(main())
