"""NanGuard: finds a loss or gradient that is not finite without waiting for the device, and writes a file about it."""

import json
import math
from pathlib import Path

import torch
from torch import Tensor

from detector.data.synced_batches import Fetched
from detector.distributed.rank_info import rank
from detector.errors import NotFinite
from detector.run.files import write_whole
from detector.structures import Dataset
from detector.training.step import StepResult


class NanGuard:
    """Checks the losses and the gradient of each step: on the CPU at once, on a GPU while the next step is computed.

    has_loss_scale: the gradient is not checked, since a loss scale that is too large makes it infinite, and the step
        is then left out (GradScaler).
    """

    def __init__(self, device: torch.device, has_loss_scale: bool = False):
        self.on_gpu, self.has_loss_scale = device.type == "cuda", has_loss_scale
        self.pending: list[tuple[StepResult, Tensor, torch.cuda.Event | None, dict]] = []
        self.latest: dict[str, float] = {}  # losses of the newest step that are known, by name

    def watch(self, result: StepResult, details: dict) -> None:
        """Starts to fetch the losses of a step; `details` helps to understand the step if they are not finite."""
        values = torch.cat([result.losses, result.gradient_norm.to(result.losses)[None]])
        if not self.on_gpu:
            self.pending.append((result, values, None, details))
            return
        on_host = torch.empty(values.shape, dtype=values.dtype, pin_memory=True)
        on_host.copy_(values, non_blocking=True)
        copied = torch.cuda.Event()
        copied.record()
        self.pending.append((result, on_host, copied, details))

    def poll(self, wait: bool = False) -> dict | None:
        """Returns the details of a step with a loss or gradient that was not finite; None if all known ones were.

        On a GPU the losses of the newest step are left for the next call, unless `wait`. Wait before weights are saved.
        """
        ready = len(self.pending) - (1 if self.on_gpu and not wait else 0)
        known, self.pending = self.pending[:ready], self.pending[ready:]
        for result, values, copied, details in known:
            if copied is not None:
                copied.synchronize()
            *losses, gradient_norm = values.tolist()
            self.latest = dict(zip(result.loss_names, losses))
            if not all(map(math.isfinite, losses if self.has_loss_scale else [*losses, gradient_norm])):
                return {**details, "gradient_norm": gradient_norm, "losses": self.latest}
        return None


def step_details(step: int, lr: float, fetched: Fetched) -> dict:
    """Returns the description of a step for not-finite-rankN.json, used if its loss or gradient is not finite."""
    images = [int(target["index"]) for _, targets in fetched.batches for target in targets]
    return {"step": step, "lr": lr, "images": images}


def raise_not_finite(details: dict | None, step: int, data: Dataset, scaler: torch.amp.GradScaler,
                     folder: Path) -> None:
    """Writes not-finite-rankN.json and raises. Every rank calls this at the same step.

    Args:
        details: from NanGuard.poll; None on a rank whose own losses, and the gradient, were finite.
        step: completed steps of this rank.

    Raises:
        NotFinite: always.
    """
    path = folder / f"not-finite-rank{rank()}.json"
    known = {"step": step, "losses": "finite on this rank", "images": [], **(details or {})}
    known["images"] = [data.path(index) for index in known["images"]]
    write_whole(path, json.dumps({**known, "amp_scale": scaler.get_scale()}, indent=1) + "\n")
    culprit = "gradient" if details and all(map(math.isfinite, details["losses"].values())) else "loss"
    raise NotFinite(f"the {culprit} is not finite at step {known['step']}; {path} and the files of the other ranks "
                    "describe the step. All ranks stopped together; the last checkpoint is older than this "
                    "step. Setting optim.grad_clip_norm=10 or lowering optim.lr often helps")
