"""What would go wrong with a run, said before anything is queued: the cheap checks first, then a look at every image
and a trial step."""

import torch

from detector.checks.dataset import look_at_images, read_both
from detector.checks.machine import (
    look_at_cores,
    look_at_disk,
    look_at_folders,
    look_at_gpus,
    look_at_shared_memory,
    look_at_weights,
)
from detector.checks.problems import CheckReport, problems_of
from detector.checks.trial_step import build, checkpoint_bytes, try_steps
from detector.config.load import load_config, run_folder
from detector.config.schema import Config
from detector.data.samplers import epoch_sizes
from detector.distributed.process_group import choose_device
from detector.errors import BAD_INPUT, OK, BadInput
from detector.run.environment import slow_precision
from detector.structures import Dataset
from detector.training.schedule import Plan, describe_schedule, plan_run


def check(name: str, overrides: list[str], as_json: bool = False, quick: bool = False, processes: int = 0) -> int:
    """Prints what there is and what is wrong with it; gives the exit status: 0, or 2 with something to mend."""
    try:
        found = examine(load_config(name, overrides), quick, processes)
    except BadInput as error:  # the config itself
        found = CheckReport(problems=problems_of(error, f"config {name}"))
    print(found.as_json() if as_json else as_text(found))
    return BAD_INPUT if found.problems else OK


def examine(config: Config, quick: bool = False, processes: int = 0) -> CheckReport:
    """All findings at once; nothing is written but the index cache. Of one process; `processes` are those of the run to
    be, 0 for one on each GPU of this machine.

    What takes long is left out if it is to be `quick`, or where something is wrong already.
    """
    found = CheckReport()
    processes = processes or max(1, torch.cuda.device_count() if config.run.device != "cpu" else 1)
    folder = run_folder(config)
    look_at_folders(config, folder, found)
    look_at_gpus(config, processes, found)
    look_at_cores(config, processes, found)
    look_at_weights(config, found)
    train, val = read_both(config.data, found)
    plan = plan_of(config, train, processes, found) if train else None
    if plan is None:
        return unfinished(found)
    image_bytes = 3 * int((train.sizes[:, 0].astype("int64") * train.sizes[:, 1]).max())
    look_at_shared_memory(config, image_bytes, processes, found)
    device = choose_device(config.run.device) if not found.problems else torch.device("cpu")
    there = found.facts.get("weights", {}).get("there", False)
    state = build(config, train, device, there and not quick and not found.problems, found)
    if state is not None and not any(problem.what.startswith("run.folder") for problem in found.problems):
        look_at_disk(folder, checkpoint_bytes(state), config.run.keep_checkpoints, found)
    if found.problems or quick:
        return unfinished(found)
    for dataset in filter(None, (train, val)):
        look_at_images(dataset, found)
    found.notes += filter(None, [slow_precision(config.run.precision, device)])
    if not found.problems:
        try_steps(config, train, plan, state, device, processes, len(val) if val else 0, found)
    return found


def plan_of(config: Config, train: Dataset, processes: int, found: CheckReport) -> Plan | None:
    """What the steps will be; None, and a problem, where images and processes do not go together."""
    try:
        sizes = epoch_sizes(train.sizes, config.augment.mirrored_copies)
        plan = plan_run(config.batch, config.optim, config.schedule, sizes, 0, processes)
    except BadInput as error:
        found.problems += problems_of(error, "batch.size")
        return None
    found.facts["plan"] = {"steps": plan.total_steps, "steps_per_epoch": plan.steps_per_epoch,
                           "global_batch": plan.global_batch, "rate": plan.rate, "sentence": plan.sentence,
                           "schedule": describe_schedule(plan, config.schedule)}
    return plan


def unfinished(found: CheckReport) -> CheckReport:
    found.notes.append("not looked at yet: every image, and a trial step"
                       + "; mend what is wrong first" * bool(found.problems))
    return found


def as_text(found: CheckReport) -> str:
    """As a person reads it: what there is, what is worth knowing, what is wrong."""
    lines = []
    for fact in found.facts.values():
        if isinstance(fact, dict) and "objects_of_class" in fact:
            counts = ", ".join(f"{name} {count}" for name, count in fact["objects_of_class"].items())
            lines += [fact["summary"], f"  objects of each class: {counts}"]
    if plan := found.facts.get("plan"):
        lines += [plan["sentence"], plan["schedule"]]
    if canvas := found.facts.get("largest_canvas"):
        took = f"; a step of it took {found.facts['peak_memory_gib']:.2f} GiB at its peak" \
            if "peak_memory_gib" in found.facts else ""
        lines.append(f"largest canvas: {canvas['images']} images on {canvas['width']}x{canvas['height']} pixels, at "
                     f"step {canvas['step']}{took}")
    if disk := found.facts.get("disk"):
        lines.append(f"checkpoints of {disk['checkpoint_gib']:.2f} GiB, {disk['needed_gib']:.1f} GiB of disk in all, "
                     f"{disk['free_gib']:.1f} GiB are free")
    if estimate := found.facts.get("estimate"):
        lines.append(f"about {estimate['hours']:.2g} hours on {estimate['processes']} such "
                     f"process{'es' * (estimate['processes'] > 1)}: {estimate['step_s']:.2f} s a step, "
                     f"{estimate['evaluations']} evaluations")
    return "\n".join([*lines, *(f"note: {note}" for note in found.notes), found.verdict()])
