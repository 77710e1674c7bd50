"""Mixed precision (autocast), and copies from the host to the device that the host does not wait for."""

from functools import lru_cache

import torch
from torch import Tensor

from detector.config.fields import AUTO_TEXT
from detector.run.environment import fast_precision


def to_device(images: list[Tensor], targets: list[dict], device: torch.device) -> tuple[list[Tensor], list[dict]]:
    """Copies images, and boxes and labels of targets, to the device; `frame` of a target stays, as plain numbers.

    On a GPU the copies run on a stream of their own. The host is up to one step ahead of the device, so a batch is
    copied while the device computes the step before; the computing stream waits for the copies, the host does not if
    the images are in pinned memory.
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
            tensor.record_stream(computing)  # else the next batch might reuse the memory while it is still read
    return images, targets


@lru_cache
def copy_stream(device: torch.device) -> torch.cuda.Stream | None:
    """Returns the one stream that copies batches to a GPU, because each stream caches memory of its own; None on a
    CPU."""
    return torch.cuda.Stream(device) if device.type == "cuda" else None


def numbers_to_device(values: list, like: Tensor) -> Tensor:
    """Returns numbers as a float32 tensor on the device of `like`; the host does not wait for the copy."""
    return torch.tensor(values, dtype=torch.float32, device="cpu").to(like.device, non_blocking=True)


def autocast(precision: str, device: torch.device) -> torch.autocast:
    """Returns the autocast context of run.precision; that of fp32 does nothing. auto: what this device has."""
    if precision == AUTO_TEXT:
        precision = fast_precision(device)
    dtypes = {"fp32": torch.bfloat16, "bf16": torch.bfloat16, "fp16": torch.float16}
    return torch.autocast(device.type, dtypes[precision], enabled=precision != "fp32")
