"""One training step: forward, backward, optimizer.

The learning rate, the resize and all sampling are derived from the config, `state.step` and the position of the
micro-batch in the global batch, never from the state of a random generator. A run that is resumed at any step therefore
computes the same weights.
"""

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from detector.config.schema import Config
from detector.data.loader import Batch
from detector.data.padding_buckets import PaddingBuckets
from detector.distributed.data_parallel import average_batchnorm_statistics, sync_gradients
from detector.distributed.rank_info import world_size
from detector.model.precision import autocast, to_device
from detector.seeding import derive_seed, generator, seed_torch
from detector.structures import Resize
from detector.training.checkpoint import TrainState
from detector.training.ema import update_ema
from detector.training.optimizer import set_lr
from detector.training.schedule import RunPlan, learning_rate


@dataclass(frozen=True)
class StepResult:
    """The losses of one step on this rank, still on the device; their mean over ranks is the mean over all images."""

    loss_names: tuple[str, ...]
    losses: Tensor         # float32 [L], detached, in the order of `loss_names`
    gradient_norm: Tensor  # float32 [], before clipping


def train_step(state: TrainState, model: nn.Module, batches: list[Batch], *, plan: RunPlan, config: Config,
               buckets: PaddingBuckets, device: torch.device,
               forward_timer: AbstractContextManager = nullcontext()) -> StepResult:
    """Runs forward and backward on every micro-batch, then updates the weights. Collective.

    The loss of a micro-batch is weighted by its images. Summed over micro-batches and averaged over ranks, the gradient
    is that of the mean loss over the global batch, however the batch is split.

    Args:
        state: changed in place, except for `state.step`.
        model: `state.model`, wrapped by DistributedDataParallel where there are several ranks.
        batches: this rank's micro-batches, one for each range of positions in `plan.micro_batches`.
        forward_timer: entered around each forward pass, which waits for no other rank.
    """
    set_lr(state.optimizer, learning_rate(state.step, plan, config.schedule))
    resize = draw_resize(config, state.step)
    model.train()
    total: Tensor | float = 0.0
    for positions, (images, targets) in zip(plan.micro_batches, batches):
        min_padded_size = buckets.min_padded_size(resize, [int(target["index"]) for target in targets])
        images, targets = to_device(images, targets, device)
        seed_torch(derive_seed(config.seed, "sampling", state.step, positions.start))
        weight = len(positions) * world_size() / plan.global_batch  # DDP divides the sum over ranks by world_size()
        with sync_gradients(model, is_last=positions == plan.micro_batches[-1]):
            with autocast(config.run.precision, device), forward_timer:
                losses = model(images, targets, resize, min_padded_size)
            values = torch.stack(list(losses.values()))
            state.scaler.scale(values.sum() * weight).backward()
        total = total + values.detach() * weight
    return StepResult(tuple(losses), total, update_weights(state, config))


def draw_resize(config: Config, step: int) -> Resize:
    """Returns the resize rule of all images of one step, on all ranks, so that none has more work than the others.

    Of several `augment.min_size`, one is drawn.
    """
    min_sizes = config.augment.min_size
    drawn = torch.randint(len(min_sizes), (), generator=generator(derive_seed(config.seed, "side", step)))
    return Resize(min_sizes[int(drawn)], config.augment.max_size)


def update_weights(state: TrainState, config: Config) -> Tensor:
    """Applies the gradient and updates running statistics and the moving average.

    Collective, because the running statistics of batch norms are averaged over the ranks.

    Returns:
        The norm of the gradient before clipping, float32 [], still on the device.
    """
    norm = apply_gradient(state, config)
    average_batchnorm_statistics(state.model)
    if state.ema_model is not None:
        update_ema(state.ema_model, state.model, config.optim.ema_decay, state.step)
    return norm


def apply_gradient(state: TrainState, config: Config) -> Tensor:
    """Clips the gradient, updates the weights and clears the gradient; returns its norm as `update_weights` does."""
    state.scaler.unscale_(state.optimizer)
    parameters = [parameter for parameter in state.model.parameters() if parameter.grad is not None]
    norm = nn.utils.clip_grad_norm_(parameters, config.optim.grad_clip_norm or float("inf"))
    state.scaler.step(state.optimizer)
    state.scaler.update()
    state.optimizer.zero_grad(set_to_none=True)
    return norm
