"""Is the loss finite? Asked at every step without waiting for the device."""

import json

import torch
from torch import Tensor

from detector.distributed import collectives, rank_info
from detector.errors import NotFinite
from detector.training.checkpoint import TrainState

pass
from detector.model.faster_rcnn import LOSSES
from detector.run.files import write_whole
from detector.training.step import Run


def ensure_finite(state: TrainState, run: Run) -> None:
    """Before weights are saved or put on record: if the last loss of any rank was not finite, all raise. Collective."""
    evidence = run.check.failed(wait=True)
    refuse_not_finite(*collectives.any_rank(evidence is not None), evidence, state, run)


def refuse_not_finite(any_bad: bool, evidence: dict | None, state: TrainState, run: Run) -> None:
    """If the loss of any rank was not finite, every rank writes what it knows of the step and raises."""
    if not any_bad:
        return
    path = run.journal.folder / f"not-finite-rank{rank_info.rank()}.json"
    known = {"step": state.step, "losses": "finite on this rank", "images": [], **(evidence or {})}
    known["images"] = [run.data.path(index) for index in known["images"]]
    known |= {key: float(known[key]) for key in ("gradient_norm",) if key in known}
    write_whole(path, json.dumps({**known, "amp_scale": state.scaler.get_scale()}, indent=1) + "\n")
    raise NotFinite(f"the loss is not finite at step {known['step']}; {path} and its neighbours describe it. All ranks "
                    "stopped together; the last checkpoint is from before. A lower optim.lr or optim.grad_clip_norm=10 "
                    "often helps")


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
