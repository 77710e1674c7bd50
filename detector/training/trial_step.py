"""A trial step: one micro-batch trained on as in a run, to learn what memory and time it takes.

No rank waits for another here, because a trial may fail on one of them for lack of memory.
"""

import time

import torch

from detector.config.schema import Config
from detector.data.loader import collate
from detector.model.precision import autocast, to_device
from detector.structures import Dataset, Resize
from detector.training.checkpoint import TrainState
from detector.training.schedule import RunPlan
from detector.training.step import apply_gradient
from detector.training.train_loader import training_dataset
from detector.training.trial_batches import PaddedBatch

# In the messages of other errors: of PyTorch on a CPU, of cuBLAS and its like, of the CUDA driver.
NO_MEMORY = ("allocate memory", "_STATUS_ALLOC_FAILED", "CUDA error: out of memory")


def run_micro_batch(config: Config, data: Dataset, plan: RunPlan, state: TrainState, device: torch.device,
                    batch: PaddedBatch) -> tuple[float, float]:
    """Trains on one micro-batch; returns the seconds to load it and the seconds to train on it."""
    examples = training_dataset(data, plan, config)
    started_at = time.monotonic()
    images, targets = to_device(*collate([examples[key] for key in batch.keys]), device)
    loaded_at = time.monotonic()
    state.model.train()
    with autocast(config.run.precision, device):
        resize = Resize(batch.min_size, config.augment.max_size)
        losses = state.model(images, targets, resize, (batch.height, batch.width))
    total = torch.stack(list(losses.values())).sum()
    state.scaler.scale(total).backward()
    apply_gradient(state, config)
    float(total.detach())  # waits for the device
    return loaded_at - started_at, time.monotonic() - loaded_at


def is_out_of_memory(error: Exception) -> bool:
    """Returns whether a GPU, a library of CUDA, or PyTorch's allocator on a CPU got no memory."""
    return isinstance(error, torch.OutOfMemoryError) or any(text in str(error) for text in NO_MEMORY)
