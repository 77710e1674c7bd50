"""One training step: a pure function of (config, step, rank) and the state it changes."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from detector.config.schema import Config
from detector.data.dataset import unreadable_messages
from detector.data.loader import BatchIterator
from detector.data.padding_buckets import PaddingBuckets
from detector.data.synced_batches import FetchPolicy, fetch_batches
from detector.data.transforms import draw_short_side
from detector.distributed import data_parallel, rank_info
from detector.distributed.stop_signal import StopRequest
from detector.errors import Stopped
from detector.loggers.run_log import RunLog
from detector.model.precision import autocast, to_device
from detector.run.heartbeat import Heartbeat
from detector.run.status import StatusFile
from detector.seeding import derive_seed, generator, seed_torch
from detector.structures import Dataset, Resize
from detector.training.async_checkpoint import Saver
from detector.training.async_evaluation import Scorer
from detector.training.checkpoint import TrainState
from detector.training.nan_guard import FiniteCheck, refuse_not_finite
from detector.training.optimizer import set_rate, update_average
from detector.training.schedule import Plan, learning_rate


@dataclass(frozen=True)
class Run:
    """All that stays the same while the state changes."""

    config: Config
    data: Dataset        # to learn from
    val: Dataset | None  # to evaluate on
    plan: Plan
    canvases: PaddingBuckets
    device: torch.device
    journal: RunLog
    stop: StopRequest
    check: FiniteCheck
    saver: Saver
    status: StatusFile
    heart: Heartbeat
    scorer: Scorer

    def evaluation_due(self, step: int) -> bool:
        every = round(self.config.evaluate.every_epochs * self.plan.steps_per_epoch)
        return self.val is not None and due(step, every, self.plan.total_steps)

    def waiting(self) -> FetchPolicy:
        """How this run waits for data; a checkpoint or an evaluation that failed in the background is trouble."""
        return FetchPolicy(lambda: self.stop.requested, self.config.data.unreadable_images == "refuse",
                       60 * self.config.run.timeout_minutes, self.heart.beat,
                       lambda: self.saver.error or self.scorer.error)


def due(step: int, every: int, total: int) -> bool:
    """After this many steps, is it time? Every so often, and at the end."""
    return step == total or (every > 0 and step % every == 0)


@dataclass(frozen=True)
class Step:
    """What one step tells: of this rank, and not yet fetched from the device."""

    losses: Tensor          # float32 [4], see model/faster_rcnn.py's LOSSES; the mean over ranks is the mean over the images
    gradient_norm: Tensor   # float32 [], before clipping
    wait_s: float           # for data
    unreadable: list[str]   # images that could not be read


def train_step(state: TrainState, module: nn.Module, steps: BatchIterator, run: Run) -> Step:
    """One optimiser step, on all ranks together. All raise if any was asked to stop, before anything has changed, or
    if the loss of the step before was not finite, or an image is refused.

    The loss of each turn is weighted by its images, so that the sum over turns, averaged over ranks, is the mean over
    the global batch, however it is shared.
    """
    config, plan = run.config, run.plan
    evidence = run.check.failed()
    came = fetch_batches(steps, len(plan.micro), run.waiting(), evidence is not None)
    refuse_not_finite(came.failed, evidence, state, run)
    if came.stopping:
        raise Stopped
    run.heart.beat("step")
    rate = learning_rate(state.step, plan, config.schedule)
    set_rate(state.optimizer, rate)
    side = Resize(draw_short_side(config.augment.min_size, generator(derive_seed(config.seed, "side", state.step))),
                config.augment.max_size)
    module.train()
    total = 0.0
    for turn, (columns, (images, targets)) in enumerate(zip(plan.micro, came.batches)):
        least = run.canvases.least(side, [int(target["index"]) for target in targets])
        images, targets = to_device(images, targets, run.device)
        seed_torch(derive_seed(config.seed, "sampling", state.step, columns.start))
        weight = len(columns) * rank_info.world_size() / plan.global_batch
        with data_parallel.sync_gradients(module, last=turn == len(plan.micro) - 1):
            with autocast(config.run.precision, run.device):
                losses = module(images, targets, side, least)
            state.scaler.scale(losses.sum() * weight).backward()
        total = total + losses.detach() * weight
    targets = [target for _, targets in came.batches for target in targets]
    norm = update_weights(state, config)
    run.check.note(total, {"step": state.step, "rate": rate, "images": [int(target["index"]) for target in targets],
                           "gradient_norm": norm})
    return Step(total, norm, came.wait_s, unreadable_messages(targets))


def update_weights(state: TrainState, config: Config) -> Tensor:
    """Clips, steps, averages; gives the norm of the gradient before clipping, float32 []."""
    state.scaler.unscale_(state.optimizer)
    weights = [weight for weight in state.model.parameters() if weight.grad is not None]
    norm = nn.utils.clip_grad_norm_(weights, config.optim.grad_clip_norm or float("inf"))
    state.scaler.step(state.optimizer)
    state.scaler.update()
    state.optimizer.zero_grad(set_to_none=True)
    data_parallel.average_batchnorm_statistics(state.model)
    if state.average is not None:
        update_average(state.average, state.model, config.optim.ema_decay, state.step)
    return norm
