"""Is the loss finite? Asked at every step without waiting for the device."""

import torch
from torch import Tensor

from detector.model.build import LOSSES


class FiniteCheck:
    """On the CPU a step's answer is there at once; on a GPU it is fetched while the next step is under way."""

    def __init__(self, device: torch.device):
        self.on_gpu = device.type == "cuda"
        self.pending: list[tuple[Tensor, torch.cuda.Event | None, dict]] = []

    def note(self, losses: Tensor, about: dict) -> None:
        """Losses [4] of one step on the device; `about` is what helps to understand the step."""
        if not self.on_gpu:
            self.pending.append((losses, None, about))
            return
        host = torch.empty(losses.shape, dtype=losses.dtype, pin_memory=True)
        host.copy_(losses, non_blocking=True)
        event = torch.cuda.Event()
        event.record()
        self.pending.append((host, event, about))

    def failed(self, wait: bool = False) -> dict | None:
        """What is known of a step whose loss was not finite; None if all that are due were finite.

        On a GPU the newest step is not due yet, unless `wait`: before its weights are saved it must be known.
        """
        ready = len(self.pending) - (1 if self.on_gpu and not wait else 0)
        taken, self.pending = self.pending[:ready], self.pending[ready:]
        for losses, event, about in taken:
            if event is not None:
                event.synchronize()  # of the step before: over by now
            if not bool(torch.isfinite(losses).all()):
                return {**about, "losses": dict(zip(LOSSES, losses.tolist()))}
        return None
