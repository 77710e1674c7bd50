"""The check of a run before it starts: cheap checks first, then every image and a trial step."""

import contextlib
from dataclasses import replace

import torch

from detector.checks.dataset import describe_split, read_train_and_val, review_data, select_objects
from detector.checks.images import check_image_files, check_images
from detector.checks.machine import (
    check_cores,
    check_disk,
    check_folders,
    check_gpus,
    check_shared_memory,
    check_weights,
)
from detector.checks.problems import CheckReport, problems_from_error
from detector.checks.progress import show_stage
from detector.checks.trial import build_initial_state, checkpoint_bytes, run_trial
from detector.config.load import load_config, run_folder
from detector.config.options import auto_options, replace_options
from detector.config.schema import Config
from detector.data.read import resolve_format
from detector.data.repeat_factors import describe_repeats
from detector.distributed.process_group import choose_device
from detector.errors import BAD_INPUT, OK, BadInput, count_of
from detector.run.environment import warn_slow_precision
from detector.structures import Dataset
from detector.training.auto_options import MEASURED, resolve_auto, resolve_precision
from detector.training.micro_batch import measure_micro_batch
from detector.training.schedule import RunPlan, describe_schedule, plan_run_on


def check(name: str, overrides: list[str], as_json: bool = False, quick: bool = False, processes: int = 0) -> int:
    """Prints facts, notes and problems of a config; returns the exit status: 0, or 2 where there is a problem."""
    try:
        report = run_checks(load_config(name, overrides), quick, processes)
    except BadInput as error:  # the config itself
        report = CheckReport(problems=problems_from_error(error, f"config {name}"))
    print(report.as_json() if as_json else format_report(report))
    return BAD_INPUT if report.problems else OK


def run_checks(config: Config, quick: bool = False, processes: int = 0) -> CheckReport:
    """Runs all checks in this one process and returns all results at once; writes nothing but the index cache.

    Args:
        quick: skip the two slow checks, every image and the trial step. Both are also skipped after a problem.
        processes: number of processes of the planned run; 0: one for each GPU of this machine.
    """
    report = CheckReport()
    processes = processes or max(1, torch.cuda.device_count() if config.run.device != "cpu" else 1)
    folder = run_folder(config)
    check_folders(config, folder, report)
    check_gpus(config, processes, report)
    check_cores(config, processes, report)
    check_weights(config, report)
    with contextlib.suppress(BadInput):  # reading the data reports it
        data, layout = resolve_format(config.data)
        config = replace(config, data=data)
        report.facts.update({"format": layout} if layout else {})
    annotated, val = read_train_and_val(config, report)
    for dataset in filter(None, (annotated, val)):
        describe_split(config.data, dataset, dataset is annotated, report)
    train = select_objects(annotated, config.data, report)
    device = choose_device(config.run.device) if not report.problems else torch.device("cpu")
    config = resolve_precision(config, device)
    is_measured = MEASURED in auto_options(config)
    if train:
        config, auto_values = resolve_auto(config, train, processes)
        report.notes += [auto_values] if auto_values else []
    plan = plan_training(config, train, processes, report) if train else None
    if plan is None:
        return note_skipped_checks(report, is_measured)
    image_bytes = 3 * int((train.sizes[:, 0].astype("int64") * train.sizes[:, 1]).max())
    check_shared_memory(config, image_bytes, processes, report)
    weights_on_disk = report.facts.get("weights", {}).get("exists", False)
    load_weights = weights_on_disk and not quick and not report.problems
    state = build_initial_state(config, train, device, load_weights, report)
    if state is not None:
        review_data(config, annotated, val, plan, quick, report)
    if state is not None and not any(problem.subject.startswith("run.folder") for problem in report.problems):
        check_disk(folder, checkpoint_bytes(state), config.run.keep_checkpoints, report)
    if quick:
        for dataset in filter(None, (train, val)):
            check_image_files(dataset, config.data, report)
    if report.problems or quick:
        return note_skipped_checks(report, is_measured)
    for dataset in filter(None, (train, val)):
        check_images(dataset, config.data, report)
    report.notes += filter(None, [warn_slow_precision(config.run.precision, device)])
    if is_measured and not report.problems:
        config, plan = measure(config, train, device, processes, report)
    if not report.problems:
        run_trial(config, train, val, plan, state, device, processes, report)
    return report


def plan_training(config: Config, train: Dataset, processes: int, report: CheckReport) -> RunPlan | None:
    """Returns the plan of the run; None, and a problem, where batch size, images and processes do not fit together."""
    try:
        plan = plan_run_on(train, config, 0, processes)
    except BadInput as error:
        report.problems += problems_from_error(error, "batch.size")
        return None
    report.facts["plan"] = {"steps": plan.total_steps, "steps_per_epoch": plan.steps_per_epoch,
                            "global_batch": plan.global_batch, "lr": plan.lr, "sentence": plan.summary,
                            "schedule": describe_schedule(plan, config.schedule),
                            "repeats": describe_repeats(train, config.batch.repeat_threshold)}
    return plan


def measure(config: Config, train: Dataset, device: torch.device, processes: int,
            report: CheckReport) -> tuple[Config, RunPlan | None]:
    """Returns config and plan with the micro-batch that a run would take here; adds a problem if none fits."""
    try:
        with show_stage("trial steps of batch.micro_batch_size=auto"):
            size, remark = measure_micro_batch(config, train, device, processes, processes)
    except BadInput as error:
        report.problems += problems_from_error(error, f"{MEASURED}=auto")
        return config, None
    report.facts["micro_batch_size"] = size
    report.notes.append(f"{MEASURED}=auto would take {size} here: {remark}")
    config = replace_options(config, {MEASURED: size})
    return config, plan_training(config, train, processes, report)


def note_skipped_checks(report: CheckReport, is_measured: bool) -> CheckReport:
    """Notes that images and trial step are not checked yet; returns the same report.

    Args:
        is_measured: batch.micro_batch_size is `auto`.
    """
    note = "not checked yet: every image, and a trial step"
    note += f", which {MEASURED}=auto follows" if is_measured else ""
    report.notes.append(f"{note}; fix the problems first" if report.problems else note)
    return report


def format_report(report: CheckReport) -> str:
    """Returns the report as text for a person: facts, notes, problems."""
    facts = report.facts
    lines = [facts["format"]] if "format" in facts else []
    for fact in facts.values():
        if isinstance(fact, dict) and "objects_of_class" in fact:
            counts = ", ".join(f"{name} {count}" for name, count in fact["objects_of_class"].items())
            lines += [fact["summary"], f"  objects of each class: {counts}"]
    if plan := facts.get("plan"):
        lines += filter(None, [plan["sentence"], plan["repeats"], plan["schedule"]])
    for name in ("largest_padded_batch", "batch_with_most_objects"):
        if (batch := facts.get(name)) and (name == "largest_padded_batch" or batch != facts["largest_padded_batch"]):
            lines.append(f"{name.replace('_', ' ')}: {batch['images']} images of {batch['width']}x{batch['height']} "
                         f"pixels, up to {batch['most_objects_of_an_image']} objects in one, at step {batch['step']}")
    if "peak_memory_gib" in facts:
        lines.append(f"training and evaluation take {facts['peak_memory_gib']:.2f} GiB at their peak")
    if disk := facts.get("disk"):
        lines.append(f"checkpoints of {disk['checkpoint_gib']:.2f} GiB, {disk['needed_gib']:.1f} GiB of disk in all, "
                     f"{disk['free_gib']:.1f} GiB are free")
    if estimate := facts.get("estimate"):
        processes = "1 process" if estimate["processes"] == 1 else f"{estimate['processes']} processes"
        loading = f" because of loading (training alone: {estimate['step_s']:.2f} s)"
        loading = loading if estimate["step_with_loading_s"] > estimate["step_s"] else ""
        lines.append(f"about {estimate['hours']:.2g} hours on {processes}, if all are as fast as this one: "
                     f"{estimate['step_with_loading_s']:.2f} s a step{loading}, "
                     f"{count_of(estimate['evaluations'], 'evaluation')}")
    return "\n".join([*lines, *(f"note: {note}" for note in report.notes), report.verdict()])
