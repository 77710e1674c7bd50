"""Mixed precision (autocast) and the copy of a batch to its device."""

from functools import lru_cache

import torch


def to_device(images: list, targets: list, device: torch.device) -> tuple[list, list]:
    """Images, and of targets what a loss needs. A frame stays: it is numbers.

    On a GPU the copies have a stream of their own. The host is up to one step ahead of the device, so a batch is copied
    while the step before is computed, and the next one begins when it is there. From pinned memory nobody waits.
    """
    stream = copy_stream(device)
    with torch.cuda.stream(stream):  # None, on a CPU, changes nothing
        images = [image.to(device, non_blocking=True) for image in images]
        targets = [{**{key: target[key].to(device, non_blocking=True) for key in ("boxes", "labels")},
                    **({"frame": target["frame"]} if "frame" in target else {})} for target in targets]
    if stream is not None:
        computing = torch.cuda.current_stream(device)
        computing.wait_stream(stream)
        for tensor in [*images, *(target[key] for target in targets for key in ("boxes", "labels"))]:
            tensor.record_stream(computing)  # else its memory might take the next batch while it is still read
    return images, targets


@lru_cache
def copy_stream(device: torch.device) -> torch.cuda.Stream | None:
    """The one stream that batches are copied on; each stream keeps memory of its own. None for a CPU."""
    return torch.cuda.Stream(device) if device.type == "cuda" else None


def autocast(precision: str, device: torch.device) -> torch.autocast:
    """Mixed precision, or nothing at fp32."""
    kinds = {"fp32": torch.bfloat16, "bf16": torch.bfloat16, "fp16": torch.float16}
    return torch.autocast(device.type, kinds[precision], enabled=precision != "fp32")
