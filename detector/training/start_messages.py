"""The messages of a run before its first step: model, changes since the last start, review of the data."""

import torch
from torch import nn

from detector.config.schema import Batch, Config
from detector.data.fingerprint import describe_change
from detector.data.samplers import micro_batches
from detector.distributed.rank_info import world_size
from detector.errors import count_of
from detector.structures import Dataset
from detector.training.checkpoint import cpu_threads
from detector.training.review import review_files, review_training
from detector.training.schedule import RunPlan


def describe_model(backbone: str, model: nn.Module) -> str:
    """Returns one line: the backbone, and how many parameters the model has and are trained."""
    total = sum(parameter.numel() for parameter in model.parameters())
    trained = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    return f"{backbone}, {total / 1e6:.3g} million parameters" + (
        f", {trained / 1e6:.3g} million of them trained" if trained < total else "")


def describe_data_changes(content: dict | None, fingerprints: dict[str, dict[str, int]]) -> list[str]:
    """Returns a sentence for each part of the data that is not as it was when the checkpoint was saved.

    Checkpoints of version 0.3 and before do not tell.
    """
    before = content.get("fingerprints", {}) if content else {}
    return [describe_change(part, before.get(part), now, content["step"]) for part, now in fingerprints.items()
            if content]


def describe_world_change(config: Config, batch: Batch, content: dict | None) -> list[str]:
    """Returns messages about a resume on another number of processes: what stays the same, what does not, and why."""
    processes = world_size()
    before = content.get("processes", processes) if content else processes
    if before == processes:
        return []
    kept = (f"batch.size=0: the global batch of {batch.size} images, from the start on {before}, is kept"
            if config.batch.size == 0 else "the same images and the same lr at every step")
    messages = [f"on {processes} process{'es' if processes > 1 else ''} now, {before} before: {kept}"]
    stored = content["config"]["batch"]["micro_batch_size"]
    if all_micro_batches(content["global_batch"], stored, before) == all_micro_batches(
            batch.size, batch.micro_batch_size, processes):
        messages.append("the weights will differ in rounding: the gradients of a step are summed in another order")
    else:
        messages.append("not the same weights: the images of a forward pass differ, so padding differs, and anchors "
                        "and proposals are sampled anew")
    if config.model.norm == "trained":
        messages.append("model.norm=trained: the running statistics of batch norms are averaged over other parts of "
                        "the batch")
    if config.model.norm == "synchronized":
        messages.append("model.norm=synchronized: batch norms take their statistics from the images of a forward pass "
                        f"on {processes}, before on {before}; the weights will differ")
    return messages


def describe_thread_change(content: dict | None, device: torch.device) -> str:
    """Returns the message about a resume on a CPU with as many processes of more or fewer threads; "" for others.

    Checkpoints of earlier versions, which hold no number of threads, do not tell.
    """
    if not content or content.get("processes") != world_size():
        return ""
    before, now = content.get("threads", 0), cpu_threads(device)
    if not before or not now or before == now:
        return ""
    return (f"on {count_of(now, 'thread')} in each process now, {before} before (OMP_NUM_THREADS): the weights will "
            "differ in rounding")


def all_micro_batches(size: int, micro_batch_size: int, processes: int) -> set[range]:
    """Returns the ranges of positions in the global batch that share a forward pass, of all ranks."""
    return {positions for rank in range(processes)
            for positions in micro_batches(size, micro_batch_size, rank, processes)}


def describe_review(config: Config, all_data: Dataset, val_data: Dataset | None, plan: RunPlan) -> list[str]:
    """Returns what to know about data and length of the run before its first step. Reads the images' file sizes."""
    notes = [*review_training(config, all_data, val_data, plan).notes, *review_files(all_data, val_data)]
    return [f"note: {note}" for note in notes]
